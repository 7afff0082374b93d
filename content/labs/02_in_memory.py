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
# # Write four caches that live in the process
#
# **About 40 minutes.** Four functions, each of which makes a cache and returns the function that reads
# through it. What a cache remembers is in variables of its own; nothing is stored in Redis. The notebook
# `02_in_memory` has what you need.
#
# The checks bring their own clocks and their own origin, so nobody waits for an hour to pass.
# `cachelab.hint("02_in_memory.ttl")` helps.

# %%
import time
from collections import OrderedDict

import cachelab

lab = cachelab.start()

# %% [markdown]
# ## 1. A TTL, on a clock that is passed in
#
# `load(key)` asks the origin, `clock()` tells the time in seconds. How old a value is counts from the
# moment at which its load *began*: what the origin said then may have changed while the answer was on its
# way. Which values may an origin give? All of them, `None`, `0` and `[]` included.


# %% exercise="02_in_memory.ttl" minutes=8
def make_ttl_cache(load, ttl, clock):
    """A function get(key), which gives what `load(key)` gave less than `ttl` seconds ago.

    load: a function of a key. ttl: seconds, int or float. clock: a function that gives seconds.
    Within the TTL a key is loaded once; reading it does not make it live longer. An error of
    `load` is raised to the caller and not remembered.
    """
    ### BEGIN SOLUTION
    kept = {}

    def get(key):
        now = clock()
        if key in kept:
            value, until = kept[key]
            if now < until:
                return value
        value = load(key)
        kept[key] = value, now + ttl
        return value

    return get
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What do you have to remember beside the value, so that you can tell later whether it is too old?
# And at which moment do you look at the clock?

# %% [markdown] tags=["hint"]
# A dictionary from key to a pair: the value, and until when it may be served. Ask `key in kept`,
# not whether the value is true.

# %% [markdown] tags=["hint"]
# `now = clock()` comes first. If the key is there and `now < until`, return the value; else `value
# = load(key)`, then `kept[key] = value, now + ttl`.

# %%
cachelab.check("02_in_memory.ttl", make_ttl_cache)

# %% [markdown] tags=["solution"]
# The clock is read once, before the load, so a slow load makes the copy live shorter, never longer than
# promised. And `key in kept` asks whether there is something, not what it is worth.

# %% [markdown]
# ## 2. Bounded: the least recently used goes
#
# The cache above never lets go of a key that nobody asks for again. This one has room for `room` values,
# and no TTL. When it is full, the value that has gone unread for longest makes place for the new one. An
# `OrderedDict` keeps its keys in an order that you can change (`move_to_end`, `popitem`).


# %% exercise="02_in_memory.lru" minutes=8
def make_lru(load, room):
    """A function get(key), which gives what `load(key)` gave, and keeps at most `room` values.

    load: a function of a key. room: int, 1 or more. When there is no room, the least recently
    used goes; reading a value is using it. What has gone is held no more, the key included.
    An error of `load` is raised to the caller, and costs nobody their place.
    """
    ### BEGIN SOLUTION
    kept = OrderedDict()

    def get(key):
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        value = load(key)
        kept[key] = value
        if len(kept) > room:
            kept.popitem(last=False)
        return value

    return get
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Keep the keys in the order in which they were used. What has to happen to a key when it is read?

# %% [markdown] tags=["hint"]
# In an `OrderedDict` the front is the oldest: `move_to_end(key)` on a hit, `popitem(last=False)`
# when there is one too many.

# %% [markdown] tags=["hint"]
# On a miss: load, store, and then, `if len(kept) > room`, `popitem(last=False)`. In this order, so
# that a failed load costs nobody their place.

# %%
cachelab.check("02_in_memory.lru", make_lru)

# %% [markdown] tags=["solution"]
# First the load, then the eviction: the other way round a failed load throws a good value away. The order
# of the dictionary *is* the order of use; there is no second list that could get out of step or grow.

# %% [markdown]
# ## 3. Refresh on start, then hourly
#
# A table of exchange rates: small, read on every page, changed by somebody else once in a while. A pod
# loads it when it starts, and again when it is an hour old. If *that* load fails, an old table is better
# than none, and asking again on every page would finish off an origin that is down already.


# %% exercise="02_in_memory.refresh" minutes=9
def make_table(load, clock):
    """A function table(), which gives the table that `load()` gave, at most an hour old if it can.

    load: a function that gives the whole table, a dict, or raises. clock: gives seconds.
    The first load is made here and now; if it fails, the caller sees the error: a pod without a
    table must not start. The first table() that is called 3,600 s or more after a load began loads
    again. If that fails, it gives the old table, and the next try is made 60 s later.
    What a reader has been given is never changed afterwards.
    """
    ### BEGIN SOLUTION
    due = clock() + 3600
    kept = load()

    def table():
        nonlocal kept, due
        now = clock()
        if now >= due:
            try:
                kept, due = load(), now + 3600
            except Exception:
                due = now + 60
        return kept

    return table
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two variables are enough: the table, and the second at which the next load is due. When does each
# of them change?

# %% [markdown] tags=["hint"]
# Load once in `make_table` itself, outside of any `try`. In `table`, when the load is due, put only
# the load into a `try`.

# %% [markdown] tags=["hint"]
# `nonlocal kept, due`; if `now >= due`: try `kept, due = load(), now + 3600`, except Exception `due
# = now + 60`; return `kept`.

# %%
cachelab.check("02_in_memory.refresh", make_table)

# %% [markdown] tags=["solution"]
# The old table is replaced only when the new one is there, in one assignment, and never emptied or
# updated in place: somebody may be reading it. In production, log the failure and count it: a table that
# has been old for a day should wake somebody. And give each pod an hour of its own length,
# as the notebook does: pods that start together refresh together.

# %% [markdown]
# ## 4. A broadcast, with a TTL behind it
#
# Whoever flips a flag tells all pods, on a channel of the cache:


# %%
def flip(cache, db, name, on):
    db.set_flag(name, on)
    cache.publish("flags", name)


# %% [markdown]
# You write the pod. `news = cache.pubsub()` makes a subscriber, `news.subscribe("flags")` subscribes it,
# and `news.get_message()` gives the next message that has arrived, or `None`, without waiting. A message
# is a dict; of those with `"type"` `"message"`, `"data"` is what was published. A message may get lost:
# then the TTL of 60 seconds, on `time.monotonic()`, is what you have left.


# %% exercise="02_in_memory.broadcast" minutes=12
def open_pod(cache, db):
    """A function is_on(name), which gives whether a flag is on, from this pod's own memory.

    name: str. Returns what `db.flag(name)` gave less than 60 s ago: True, False, or None for no
    such flag. A flag that was named on the channel "flags" is loaded again, and only that one.
    """
    ### BEGIN SOLUTION
    kept = {}
    news = cache.pubsub()
    news.subscribe("flags")

    def is_on(name):
        while (message := news.get_message()) is not None:
            if message["type"] == "message":
                kept.pop(message["data"], None)
        now = time.monotonic()
        if name in kept:
            value, until = kept[name]
            if now < until:
                return value
        value = db.flag(name)
        kept[name] = value, now + 60
        return value

    return is_on
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# It is your TTL cache with one step before it: hear what has been said since the last read. When
# must the pod be subscribed?

# %% [markdown] tags=["hint"]
# Subscribe in `open_pod`. In `is_on`, before anything else, take messages until `get_message()`
# gives None, and drop the flag that each one names.

# %% [markdown] tags=["hint"]
# `while (message := news.get_message()) is not None:` and, if its `"type"` is `"message"`,
# `kept.pop(message["data"], None)`. Then as in the first exercise, with `time.monotonic()` and 60.

# %%
cachelab.check("02_in_memory.broadcast", open_pod)

# %% [markdown] tags=["solution"]
# Subscribe first, load afterwards: whoever does it the other way round misses what is said in between. All
# that has arrived is heard before the memory is looked at. And because messages are heard *before* a load
# and never during one, what arrives while the query is under way is still there at the next read, and
# drops the value that was old when it came. A thread that listens all the time would have dropped it too
# early.

# %% [markdown]
# ## On the real cache
#
# Now two pods on the live cache of this notebook: read, flip, read again. What do you expect?

# %%
lab.clear()
lab.db.set_flag("new_checkout", False)
# For instance: pods = [open_pod(lab.cache, lab.db) for _ in range(2)]

# %% [markdown] tags=["solution"]
# Each pod asks once, and once more after the message.

# %% tags=["solution"]
pods = [open_pod(lab.cache, lab.db) for _ in range(2)]
with lab.record() as run:
    print([pod("new_checkout") for pod in pods])
    flip(lab.cache, lab.db, "new_checkout", True)
    time.sleep(0.2)  # a message takes its time
    print([pod("new_checkout") for pod in pods])
lab.db.set_flag("new_checkout", False)
print(run.queries, "queries in all")

# %% [markdown]
# ## Recap
#
# - A TTL is a promise about age: it counts from before the load, and reading does not prolong it.
# - What is bounded by a TTL alone is not bounded.
# - A failed refresh keeps the old table and gives the origin a minute of peace.
# - A broadcast makes it fast, the TTL makes it certain.
#
# **Next:** `notebooks/03_distributed.ipynb`.
