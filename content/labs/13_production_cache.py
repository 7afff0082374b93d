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
# # Build the parts of a production cache
#
# **About 45 minutes.** Four functions. Each adds one promise of `13_production_cache` to the
# cache-aside of `05_cache_aside`; together they are most of a helper.
#
# Every function gets `cache`, a redis-py client, and `db`, the shop's database; `db.product(id)` is the
# query and gives a dict, or None if there is no such product. The checks bring their own, fresh each
# time. `cachelab.hint("13_production_cache.envelope")` helps.

# %%
import json
import random
import threading
import time

import redis

import cachelab

lab = cachelab.start()

# %% [markdown]
# ## 1. Envelope and version
#
# Store the product under `product:v2:<id>` as a JSON object with the row under `"value"`. Other
# releases write other things, and somebody may store nonsense under your key: what is no JSON object
# with a `"value"` is a miss and gets replaced. A product is kept for 300 s, None for at most 5.


# %% exercise="13_production_cache.envelope" minutes=10
def read_product(cache, db, product_id):
    """A product (a dict) or None, whatever the cache holds.

    A copy is kept under `product:v2:<id>`, as {"value": ...}: 300 seconds, None at most 5 (and at
    least 1). A hit asks no query.
    """
    ### BEGIN SOLUTION
    key = f"product:v2:{product_id}"
    try:
        return json.loads(cache.get(key))["value"]
    except (ValueError, TypeError, KeyError):
        pass
    product = db.product(product_id)
    cache.set(key, json.dumps({"value": product}), ex=5 if product is None else 300)
    return product
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What does your function do with a text that is no JSON, and with one that is JSON but not yours?

# %% [markdown] tags=["hint"]
# Let all that goes wrong while the copy is read end in the same place: the miss.

# %% [markdown] tags=["hint"]
# `json.loads(cache.get(key))["value"]` in a `try`; TypeError, ValueError and KeyError are misses.

# %%
cachelab.check("13_production_cache.envelope", read_product)

# %% [markdown] tags=["solution"]
# Asking forgiveness is short here: `json.loads(None)` is a TypeError, broken text a ValueError, a list
# or a number has no `["value"]`. A copy of None is `{"value": null}`, which is not nothing.

# %% [markdown]
# ## 2. Fast failure
#
# The cache may be away for minutes: it refuses, or it does not answer in time. Whoever asks it pays a
# timeout each time, so stop asking: after **three** failed commands in a row leave it alone for **two
# seconds**, then let one read try. `breaker` is a dict, empty at first and the same in each call of
# this process: keep in it what you need to remember. Use `time.monotonic()`.


# %% exercise="13_production_cache.breaker" minutes=12
def read_guarded(cache, db, product_id, breaker):
    """A product as a dict, also when the cache does not answer.

    A copy is kept under `product:v1:<id>` for 300 seconds. No error of the cache reaches the caller;
    one of the database does. After 3 failed commands in a row no command is sent for 2 seconds.
    """
    ### BEGIN SOLUTION
    key = f"product:v1:{product_id}"

    def ask(command, *args, **options):
        if breaker.get("failures", 0) >= 3 and time.monotonic() < breaker["again_at"]:
            return None
        try:
            reply = command(*args, **options)
        except redis.RedisError:
            breaker["failures"] = breaker.get("failures", 0) + 1
            breaker["again_at"] = time.monotonic() + 2
            return None
        breaker["failures"] = 0
        return reply

    stored = ask(cache.get, key)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    ask(cache.set, key, json.dumps(product), ex=300)
    return product
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two things have to be remembered: how many commands in a row have failed, and when the cache may
# be tried again.

# %% [markdown] tags=["hint"]
# Before each command: three failures, and the time has not come? Then no command. After each: a
# success sets the count to 0, a failure sets the time to now and 2 s.

# %% [markdown] tags=["hint"]
# `if breaker.get("failures", 0) >= 3 and time.monotonic() < breaker["again_at"]`: go to the
# database at once.

# %%
cachelab.check("13_production_cache.breaker", read_guarded)

# %% [markdown] tags=["solution"]
# A success sets the count back: three *in a row*. When the two seconds are over the count is still
# three, so a try that fails closes the door again at once.

# %% [markdown]
# ## 3. Two ends
#
# A copy is fresh for a TTL of 60 s, from which up to 15 % is taken off by chance, so that copies made
# together do not end together. For 600 s more it may be served at once, while **one** reader, of all
# processes, renews it in a thread. If a renewal fails or dies, a later reader tries again. No copy is
# taken for fresh after 60 s. `time.time()` is the clock.


# %% exercise="13_production_cache.two_ends" minutes=15
def read_stale(cache, db, product_id):
    """A product as a dict: fresh, or up to 600 seconds past its TTL while one reader renews it.

    The copy is under `product:v1:<id>`, in an envelope of your own. A cold key is loaded.
    """
    ### BEGIN SOLUTION
    key = f"product:v1:{product_id}"

    def fill():
        began = time.time()
        product = db.product(product_id)
        life = 60 * (1 - 0.15 * random.random())
        envelope = {"value": product, "fresh_until": began + life}
        cache.set(key, json.dumps(envelope), ex=int(life) + 600)
        cache.delete(f"renew:{key}")
        return product

    stored = cache.get(key)
    if stored is None:
        return fill()
    envelope = json.loads(stored)
    if time.time() >= envelope["fresh_until"] and cache.set(f"renew:{key}", 1, nx=True, ex=30):
        threading.Thread(target=fill).start()
    return envelope["value"]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Redis knows one end, the later one. The earlier one has to be in the copy itself.

# %% [markdown] tags=["hint"]
# Store {"value": ..., "fresh_until": time.time() + life} for life + 600 s, and ask `fresh_until`
# when you read. `SET NX` on another key picks the one who renews.

# %% [markdown] tags=["hint"]
# `life = 60 * (1 - 0.15 * random.random())`; past `fresh_until`, whoever gets
# `cache.set(f"renew:{key}", 1, nx=True, ex=30)` starts a thread that fills, and everybody returns
# the value at once.

# %%
cachelab.check("13_production_cache.two_ends", read_stale)

# %% [markdown] tags=["solution"]
# `SET NX` picks the one who renews, over all processes, and its TTL lets another try if that one dies.
# The life is counted from *before* the query, so a slow query does not make a copy older than promised.

# %% [markdown]
# ## 4. Numbers
#
# Count, in `counts` (a `collections.Counter`): `"hits"`, `"misses"`, `"errors"` (a read that met a
# cache which did not answer, at its first command or at a later one: one for the read, however many
# failed) and `"loads"` (calls of `db.product`, also one that fails). Each read is a hit, a miss or an
# error, never two of them.


# %% exercise="13_production_cache.metrics" minutes=8
def read_counted(cache, db, product_id, counts):
    """A product (a dict) or None, also when the cache does not answer; and its numbers.

    A copy is kept under `product:v1:<id>`: 300 seconds, None at most 5.
    """
    ### BEGIN SOLUTION
    key, seen = f"product:v1:{product_id}", "misses"
    try:
        stored = cache.get(key)
    except redis.RedisError:
        stored, seen = None, "errors"
    if stored is not None:
        counts["hits"] += 1
        return json.loads(stored)
    try:
        counts["loads"] += 1
        product = db.product(product_id)
        try:
            cache.set(key, json.dumps(product), ex=5 if product is None else 300)
        except redis.RedisError:
            seen = "errors"
        return product
    finally:
        counts[seen] += 1
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Which of the three is a read that met a dead cache? It is counted once, however many commands
# failed.

# %% [markdown] tags=["hint"]
# Decide what the read was in one place, and count it in one place.

# %% [markdown] tags=["hint"]
# Count the load before you call `db.product`: one that raises is a load all the same.

# %%
cachelab.check("13_production_cache.metrics", read_counted)

# %% [markdown] tags=["solution"]
# Hits, misses and errors add up to the reads, so that a hit rate can be computed from them; and a
# cache that is away shows as errors, not as a low hit rate.

# %% [markdown]
# ## Together
#
# The finished helper, on the live server. What do you expect to be counted?

# %%
from cachelab.patterns.production import ProductionCache

lab.clear()
products = ProductionCache(lab.cache, "product")
for product_id in (1, 1, 2, 999, 999):
    products.get(str(product_id), lambda number=product_id: lab.db.product(number), 300)
print(dict(products.metrics))

# %% [markdown]
# ## Recap
#
# - The shape of a copy is checked when it is read, and is part of its key.
# - A dead cache is asked three times, then now and then.
# - Two ends: until the first a copy is fresh, until the second it is better than waiting.
# - Every read is counted once.
#
# **Next:** `notebooks/14_when_not_to_cache.ipynb`.
