# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Keep a stampede off the database
#
# **About 50 minutes.** Five functions: the defences that the notebook `10_stampede` has shown, each
# without the hole that its textbook version has.
#
# `cache` is a redis-py client. `load` is a function without arguments that asks the database: slow,
# and counted. What it gives is a dict; store it as JSON under `key`. The checks run your code on the
# stage, where `time.sleep` takes no real time. `cachelab.hint("10_stampede.jitter")` helps.

# %%
import json
import math
import random
import time
import uuid

import cachelab
from cachelab import stage

lab = cachelab.start()

# %% [markdown] given=[10000, 15]
# ## 1. Jitter that keeps the bound
#
# 10,000 pages are filled in one night, and shall not expire in one second. But the product manager was
# promised that no page is older than `seconds`. Take off up to 15 %, evenly, anew each time.


# %% exercise="10_stampede.jitter" minutes=6
def page_ttl(seconds):
    """A TTL in whole seconds (int) for a page that may be `seconds` old.

    seconds: int, at least 1. Between 85 % of it and all of it, at least 1, drawn with `random`.
    """
    ### BEGIN SOLUTION
    return max(1, int(seconds - seconds * 0.15 * random.random()))
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Which is the longest TTL that keeps the promise? From there, only downwards.

# %% [markdown] tags=["hint"]
# `random.random()` is between 0 and 1; so `seconds * 0.15 * random.random()` is what comes off.
# Think of small numbers too.

# %% [markdown] tags=["hint"]
# `max(1, int(seconds - seconds * 0.15 * random.random()))`.

# %%
cachelab.check("10_stampede.jitter", page_ttl)

# %% [markdown] tags=["solution"] given=[15]
# `max(1, ...)`, because `SET ... EX 0` is an error. And subtracted: with `seconds + ...` the oldest
# page would be 15 % older than promised. For one hot key, none of this does anything.

# %% [markdown]
# ## 2. A lock with an owner
#
# A reader has just missed `key`. Write what it does next. Take the lock `lock:<key>`, with a token
# that nobody else has and a TTL of 30 s. Look once more: perhaps somebody has filled the key
# meanwhile. If not, load and store it for 300 s. And let go of the lock, whatever happens, but only
# if it is still yours. This script does the last part in one step:

# %%
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


# %% exercise="10_stampede.lock" minutes=10
def refill(cache, key, load):
    """Fill `key` under its lock and return the value; None if somebody else has the lock.

    A copy that is there once the lock is ours is returned as it is. An error of `load` is raised.
    `cache.eval(RELEASE, 1, lock, token)` deletes the lock if it holds the token.
    """
    ### BEGIN SOLUTION
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    try:
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
        value = load()
        cache.set(key, json.dumps(value), ex=300)
        return value
    finally:
        cache.eval(RELEASE, 1, lock, token)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Four steps: take the lock or return None; look once more; load and store; release in `finally`.

# %% [markdown] tags=["hint"]
# A token: `uuid.uuid4().hex`. Taking: `cache.set(lock, token, nx=True, ex=30)` is true for one
# caller only. The second look stands after it.

# %% [markdown] tags=["hint"]
# After taking: `try:` with `stored = cache.get(key)`, return it decoded if it is there, else load,
# `cache.set(key, json.dumps(value), ex=300)`, return; `finally: cache.eval(RELEASE, 1, lock,
# token)`.

# %%
cachelab.check("10_stampede.lock", refill)

# %% [markdown] tags=["solution"]
# Without the second look, a reader who missed just before the fill gets the lock just after it, and
# loads what is there already. A `GET` and then a `DEL` of the lock from Python would not do: between
# the two, ours may expire and be somebody else's. One hole is left: an owner who lost the lock may
# still *store*. `token_lock` in `cachelab.patterns` closes it.

# %% [markdown]
# ## 3. Wait, but not for ever
#
# The whole read. A copy is returned at once. Otherwise one reader, with the lock, loads; the others
# look again every now and then, and after `budget` seconds they give up with a `TimeoutError`. They
# never load without the lock, and whoever gets it looks once more. A holder may have died: its lock
# ends by itself, and then one of those who wait should take over. Do not ask more often than 20
# times a second, nor less than twice.


# %% exercise="10_stampede.wait" minutes=12
def read_patiently(cache, key, load, budget):
    """The value of `key`; TimeoutError if nobody has filled it within `budget` seconds.

    The lock is `lock:<key>`, with a token and a TTL of 30 s; the copy is kept for 300 s.
    """
    ### BEGIN SOLUTION
    lock, token = f"lock:{key}", uuid.uuid4().hex
    deadline = time.monotonic() + budget
    while (stored := cache.get(key)) is None:
        if cache.set(lock, token, nx=True, ex=30):
            try:
                stored = cache.get(key)
                if stored is None:
                    stored = json.dumps(load())
                    cache.set(key, stored, ex=300)
                return json.loads(stored)
            finally:
                cache.eval(RELEASE, 1, lock, token)
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{key} was not filled within {budget} s")
        time.sleep(min(left, 0.1 * random.uniform(0.5, 1.5)))
    return json.loads(stored)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# A loop: look; try the lock; if it is not yours, is there time left? If so, nap.

# %% [markdown] tags=["hint"]
# `deadline = time.monotonic() + budget` before the loop. In it, in this order: GET, SET NX, `if
# time.monotonic() >= deadline: raise TimeoutError`, `time.sleep(0.1)`.

# %% [markdown] tags=["hint"]
# `while (stored := cache.get(key)) is None:`, and inside: with the lock, load, store, release with
# RELEASE and return; without it, check the deadline and nap 0.1 s. After the loop `return
# json.loads(stored)`.

# %%
cachelab.check("10_stampede.wait", read_patiently)

# %% [markdown] tags=["solution"] given=[800]
# The article's waiters nap once and then help themselves, so that a slow query brings back the whole
# stampede. Here the worst case is a `TimeoutError`, for which a page can show an older copy or "try
# again". The random part of the nap keeps 800 readers from looking all at the same moment.

# %% [markdown]
# ## 4. Serve the old copy meanwhile
#
# A copy is *fresh* for 60 s after the load. For 600 s more it may still be served, but the first to
# see that it is no longer fresh has it renewed in the background, and *nobody* waits for that. Only
# one renewal is under way at a time; should its process die, another may try after 30 s. Give a
# function to `later`, and it is called in a thread of its own.


# %% exercise="10_stampede.swr" minutes=12
def read_swr(cache, key, load, later):
    """The value of `key`, fresh for 60 s and then served for up to 600 s more while renewed.

    later: function of one function. After 660 s, or in a cold cache, the reader loads and waits.
    """

    ### BEGIN SOLUTION
    def fill():
        value = load()
        cache.set(key, json.dumps(value), ex=660)
        cache.delete(f"renew:{key}")
        return value

    stored, left = cache.get(key), cache.pttl(key)
    if stored is None:
        return fill()
    if left <= 600_000 and cache.set(f"renew:{key}", "1", nx=True, ex=30):
        later(fill)
    return json.loads(stored)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The copy must stay in the cache for 660 s. How can a reader tell whether it is older than 60?

# %% [markdown] tags=["hint"]
# `cache.pttl(key)` is what is left in milliseconds: at most 600,000 means no longer fresh.
# `cache.set(f"renew:{key}", "1", nx=True, ex=30)` is true for one reader.

# %% [markdown] tags=["hint"]
# An inner `def fill():` loads, stores with `ex=660`, deletes the flag and returns the value.
# Nothing stored: `return fill()`. Old and flag taken: `later(fill)`. Then return the stored value.

# %%
cachelab.check("10_stampede.swr", read_swr)

# %% [markdown] tags=["solution"] given=[11]
# The TTL in the cache is 660 s, and what is left of it tells whether the copy is fresh: one clock, the
# server's, and no time stamp in the value. `SET NX` chooses the one who renews. Now say out loud what
# you have promised: an answer may be eleven minutes old.

# %% [markdown]
# ## 5. Renew before it expires
#
# XFetch. Keep beside the value how many seconds the load took. A read with `left` seconds to live
# renews the copy itself if `left <= took * beta * -math.log(1 - random.random())`; then it waits for
# the load and stores the result for `ttl` seconds. Other reads return the copy.


# %% exercise="10_stampede.early" minutes=10
def read_early(cache, key, load, ttl, beta):
    """The value of `key`, renewed by chance before its `ttl` seconds are over.

    beta: above 0, the usual is 1; a larger one renews earlier. A miss loads and stores as well.
    """
    ### BEGIN SOLUTION
    stored, left = cache.get(key), cache.pttl(key) / 1000
    if stored is not None:
        copy = json.loads(stored)
        if left > copy["took"] * beta * -math.log(1 - random.random()):
            return copy["value"]
    began = time.monotonic()
    value = load()
    took = time.monotonic() - began
    cache.set(key, json.dumps({"value": value, "took": took}), ex=ttl)
    return value
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What is stored is more than the value: the time of the load goes with it.

# %% [markdown] tags=["hint"]
# Store `json.dumps({"value": value, "took": took})`, with `took` from two calls of
# `time.monotonic()` around the load. `cache.pttl(key) / 1000` is the time left.

# %% [markdown] tags=["hint"]
# A hit returns `copy["value"]` if `left > copy["took"] * beta * -math.log(1 - random.random())`;
# otherwise go on as after a miss: load, store and return.

# %%
cachelab.check("10_stampede.early", read_early)

# %% [markdown] tags=["solution"]
# `1 - random.random()`, because `random()` may be 0 and has no logarithm. With as many seconds left as
# the load takes, 36.8 % of the reads renew; with five times as many, 0.7 %. For a hot key e readers do
# so at once on average: put a short `SET NX` before the load if one is what you need.

# %% [markdown]
# ## All together
#
# Send 800 readers through your functions on the stage, and change the numbers until something breaks.
# How slow may the query be for `read_patiently`?

# %%
# For instance: stage.run([lambda cache, db: read_patiently(
#     cache, "product:v1:1", lambda: db.product(1), 5)] * 800, latency=2).queries

# %% tags=["solution"]
for query in (2, 4, 8):
    run = stage.run(
        [lambda cache, db: read_patiently(cache, "product:v1:1", lambda: db.product(1), 5)] * 200,
        latency=query,
    )
    late = sum(isinstance(answer, TimeoutError) for answer in run.answers.values())
    print(f"a query of {query} s: queries {run.queries}, readers who gave up {late}")

# %% [markdown]
# ## Recap
#
# - Jitter comes off the TTL, so that the promise holds.
# - A lock has a token, a TTL, a second look; only its owner lets it go.
# - Whoever waits has a budget, and never turns to the database.
# - An old copy served at once costs freshness; a copy renewed early costs some extra queries.
#
# **Next:** `notebooks/11_stale_data.ipynb`.
