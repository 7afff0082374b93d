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
# # Read around the cache: cache-aside
#
# **About 30 minutes.**
#
# **What you'll do.** Build the most common of all caching patterns, draw what it really does, and
# then break it in four ways: an update, a changed shape, an empty value, a dead server. Three of the
# fixes you break as well.
#
# **What you'll learn.** What a miss costs; how old an answer can get, and why; what belongs in a
# key; which values an innocent `if` throws away; what must happen when the cache is gone.
#
# **What you'll need.** `00_start_here`.

# %%
import json

import redis

import cachelab

lab = cachelab.start()

# %% [markdown]
# ## The idea
#
# The cache stands *aside*: it does not know the database, the database does not know it, and the
# application talks to both. On a miss the application asks the database and leaves a copy behind.
# This is how it is meant to go:
#
# ```mermaid
# sequenceDiagram
#     participant App
#     participant Cache
#     participant Origin
#     App->>Cache: GET user:v1:1
#     Cache-->>App: MISS
#     App->>Origin: SELECT users 1
#     Origin-->>App: 1 row
#     App->>Cache: SET user:v1:1 (TTL 300 s)
#     App->>Cache: GET user:v1:1
#     Cache-->>App: HIT
# ```


# %%
def read_user(cache, db, user_id):
    key = f"user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    user = db.user(user_id)
    cache.set(key, json.dumps(user), ex=300)
    return user


# %% [markdown]
# **Predict:** Alice's profile is read twice, then Bruno's once. How many hits, misses, queries?

# %%
with lab.record() as run:
    read_user(lab.cache, lab.db, 1)
    read_user(lab.cache, lab.db, 1)
    read_user(lab.cache, lab.db, 2)
print(run)

# %% [markdown]
# And this is how it went: the diagram below was not drawn by anybody, it was written from the first
# two reads of that run. Compare it with the one above, arrow by arrow.

# %%
cachelab.sequence(run[:4])

# %% [markdown]
# Only what somebody asked for is in the cache. Nobody had to decide in advance what to load, and
# that is why this pattern suits data of which a small part is read most of the time.
#
# ## What the first reader pays
#
# Without a cache, a read is one trip over the network, to the database. How many trips is a miss, and
# how many a hit? Count them in the first lines of the run above, then compare:

# %%
print("a miss:", len(run[:3]), "trips:", [event.what for event in run[:3]])
print("a hit: ", len(run[3:4]), "trip: ", [event.what for event in run[3:4]])

# %% [markdown] given=[20]
# A miss costs *more* than having no cache at all: ask, query, store. With a query of 20 ms the two
# extra trips do not matter. With one of 0.05 ms they do: this shop's database is a file beside us,
# the bare read by primary key takes less time than the trip to the cache, and a hit saves nothing
# (measured in `01_latency_freshness_cost`). So make the database as slow as a busy one over a
# network: `latency` is added to every statement.

# %%
lab.db.latency = 0.02  # seconds

# %% [markdown]
# ## Break it, first way: somebody writes
#
# Another service changes Alice's address. **Predict** what is read right after, and how long that
# goes on.

# %%
lab.clear()
with lab.record() as run:
    read_user(lab.cache, lab.db, 1)
    lab.someone_else.update_user(1, email="alice@new-job.example")
    for minutes in (1, 3, 2):
        lab.fast_forward(minutes * 60)
        print(read_user(lab.cache, lab.db, 1)["email"])
print(run.summary())

# %%
cachelab.lanes(run)

# %% [markdown]
# The ringed dots are the two stale hits. One minute and four minutes after the change the answer was
# wrong; after six minutes the TTL of five had run out and the third read was a miss. **The worst case
# is the TTL**, counted from the fill, and every reader until then gets the wrong answer. The trace
# counts them, which your monitoring will not: to it, each one was a hit.
#
# ## The fix: whoever writes, deletes
#
# If the update goes through our own code, we can delete the copy ourselves. First the commit, then
# the delete; the other way round a reader may slip in between and put the old row back (chapter
# `11_stale_data` finds that order for you).


# %%
def change_email(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.delete(f"user:v1:{user_id}")


lab.clear()
read_user(lab.cache, lab.db, 1)
change_email(lab.cache, lab.db, 1, "alice@home.example")
print(read_user(lab.cache, lab.db, 1)["email"])
print(lab.trace.summary())

# %% [markdown]
# No stale answer. Why delete, and not store the new value right away? Because a delete cannot be
# wrong: the next reader takes whatever the database says by then. (The other choice is a pattern of
# its own, `06_write_through`.)
#
# ## Break the fix: the key you forgot
#
# The shop also has a public page for each user, cached by a colleague, under a key of its own.


# %%
def public_page(cache, db, user_id):
    key = f"user:public:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    page = {"name": db.user(user_id)["name"]}
    cache.set(key, json.dumps(page), ex=300)
    return page


def rename(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    cache.delete(f"user:v1:{user_id}")


# %% [markdown]
# **Predict:** Alice marries and changes her name. Which of the two reads below is stale?

# %%
lab.clear()
read_user(lab.cache, lab.db, 1), public_page(lab.cache, lab.db, 1)
rename(lab.cache, lab.db, 1, "Alice Moreau")
print("profile:    ", read_user(lab.cache, lab.db, 1)["name"])
print("public page:", public_page(lab.cache, lab.db, 1)["name"])
print(lab.trace.summary())

# %% [markdown]
# A writer must know every key that was made from the row, and the cache cannot tell it: to the cache
# they are unrelated pieces of text. One forgotten key is a silent bug. Until you have something
# better (`09_invalidation`), keep the list of keys in one place, next to the writer, and test it.
#
# ## Break it, second way: the shape changes
#
# The next release wants the initial of the user's name on the profile. In the cache there are still
# entries that the old release wrote.


# %%
def read_profile(cache, db, user_id, version):
    key = f"profile:{version}:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    user = db.user(user_id)
    profile = {"name": user["name"], "initial": user["name"][0]}
    cache.set(key, json.dumps(profile), ex=300)
    return profile


with lab.trace.acting("old release"):
    lab.cache.set("profile:v1:1", json.dumps({"name": "Alice"}), ex=300)

# %% [markdown]
# **Predict:** what does the new release get for Alice under `v1`, and under `v2`?

# %%
print("v1:", read_profile(lab.cache, lab.db, 1, "v1"))
print("v2:", read_profile(lab.cache, lab.db, 1, "v2"))
print([key for key in lab.keys() if key.startswith("profile")])

# %% [markdown]
# Under `v1` the new code finds a value that it cannot use, and would crash at `profile["initial"]`
# until the TTL ends. Under `v2` it misses, once, and is right. So a key is
# **`entity:version:id`**: what it holds, in which shape, of whom. Change the shape, raise the
# version; the old entries serve the old release while it is still running, and expire by themselves.
#
# Two things this does not give you. Raising the version makes *every* read a miss at once: a cold
# start. And while both releases run, a writer that deletes only its own version leaves the other's
# copy stale. Delete both during a roll-out.
#
# ## Break it, third way: values that look like nothing
#
# Here is a helper from the wild. It reads well.


# %%
def read_with_if(cache, key, load, ttl):
    stored = cache.get(key)
    value = json.loads(stored) if stored else None
    if value:
        return value
    value = load()
    cache.set(key, json.dumps(value), ex=ttl)
    return value


# %% [markdown]
# **Predict:** each of these values is read three times. How many queries does each cost: 1 or 3?

# %%
reads = {
    "stock of product 1": lambda: lab.db.stock(1),
    "stock of product 7": lambda: lab.db.stock(7),
    "what user 3 says": lambda: lab.db.bio(3),
    "Alice's permissions": lambda: lab.db.permissions(1),
    "user 9999": lambda: lab.db.user(9999),
}
for name, load in reads.items():
    with lab.record() as run:
        for _ in range(3):
            value = read_with_if(lab.cache, f"if:{name}", load, 300)
    print(f"{name}: {value!r}, queries for 3 reads: {run.queries}")

# %% [markdown]
# Sold out, nothing to say, nothing allowed, nobody: `0`, `""`, `[]` and `None` are answers, and
# `if value:` takes each for a miss, every time. The cache fills and never hits. Ask the one question
# that matters, *did the cache have something?*, before you decode.
#
# This is the pattern as we would carry it to production code. Read it once, top to bottom.

# %%
from cachelab.patterns import cache_aside

cachelab.show(cache_aside.read)

# %%
for name, load in reads.items():
    with lab.record() as run:
        for _ in range(3):
            value = cache_aside.read(lab.cache, f"is:{name}", load, 300)
    print(f"{name}: {value!r}, queries for 3 reads: {run.queries}")

# %% [markdown]
# ## Break the fix: remembering that there is nothing
#
# `None` is cached now, and that opens a new hole. Somebody looks for product 501; there is none yet,
# and the cache remembers that. A minute later it is created. **Predict** how long it stays
# invisible, if absence is kept for the usual five minutes. The pattern above keeps it for
# `ABSENT_TTL`:

# %%
with lab.record() as run:
    cache_aside.read(lab.cache, "product:v1:501", lambda: lab.db.product(501), 300)
print(run)

# %% [markdown] given=[501, 30]
# Kept for the usual five minutes, product 501 would be invisible for four minutes after its creation.
# Kept for 30 seconds, the absence has expired by then. So it gets a short TTL of its own, and whoever
# creates the row deletes the key as well.
#
# ## Break it, fourth way: the cache dies
#
# The server is ours, so we can pull the plug. **Predict:** what does a reader of `read_user` see?

# %%
read_user(lab.cache, lab.db, 1)
lab.kill_cache()
try:
    print(read_user(lab.cache, lab.db, 1)["name"])
except redis.RedisError as error:
    print("the customer sees an error page:", type(error).__name__)

# %% [markdown]
# And the database is fine. A cache exists to make things faster. If its death takes the page down, it
# has made the system *less* reliable than before. So a failed read of the cache is a miss, and a
# failed write is a line in the log:


# %%
def robust_read_user(user_id):
    return cache_aside.read(lab.cache, f"user:v1:{user_id}", lambda: lab.db.user(user_id), 300)


import logging

logging.disable(logging.WARNING)  # the pattern logs each failure; here we count them instead
with lab.record() as run:
    print(robust_read_user(1)["name"])
print(run)

# %% [markdown] given=[10]
# The answer is right, and slower. How much slower than the query itself? This is a matter of
# configuration: redis-py's own defaults try a dead server ten times, which takes about four seconds.
# The clients of this workbook do not retry and give up quickly.

# %% tags=["live", "nbval-ignore-output"]
import time

began = time.perf_counter()
robust_read_user(1)
extra = time.perf_counter() - began - lab.db.latency
print(f"with a dead cache: {1000 * extra:.0f} ms on top of the query")

# %% [markdown]
# Now start the server again. It comes back empty. **Predict** the next three reads.

# %%
logging.disable(logging.NOTSET)
lab.restart_cache()
with lab.record() as run:
    for _ in range(3):
        robust_read_user(1)
print(run.summary())

# %% [markdown]
# Nobody had to do anything: the first reader filled the cache.
#
# ## Break the fix: can the database take it?
#
# "Fall back to the database" sounds safe. With a hit rate of 90 %, though, the database is used to
# one read in ten. **Predict** by what factor its load grows when the cache is gone.

# %%
for hit_rate in (0.7, 0.9, 0.95, 0.99):
    print(f"hit rate {hit_rate:.0%}: {1 / (1 - hit_rate):.1f} times the reads")

# %% [markdown]
# The better the cache, the harder the fall. A fallback that was never tried under full load is a
# hope, not a plan; `15_operations` tries it.

# %% [markdown]
# ## Recap
#
# - Cache-aside: ask the cache, on a miss ask the origin and leave a copy. A miss costs two trips more
#   than no cache.
# - The worst age is the TTL. Whoever writes deletes every key made from the row, after the commit.
# - Keys are `entity:version:id`; a new shape is a new version.
# - `0`, `""`, `[]` and `None` are values. Absence is cached too, but briefly.
# - A dead cache makes you slow, never wrong and never down, if the origin can carry the load.
#
# **Now your turn:** `labs/05_cache_aside.ipynb`.
