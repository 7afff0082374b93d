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
# # Build the five tools you will want at three in the morning
#
# **About 45 minutes.** A floor, an alert, an audit, a flush and a warm-up: each a few lines, each with a
# trap or two. You need the notebook `15_operations`.
#
# `cache` is a redis-py client. The checks bring their own, fresh each time.
# `cachelab.hint("15_operations.floor")` helps.

# %%
import json
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import cachelab

lab = cachelab.start()

# %% [markdown]
# ## 1. The floor
#
# The database has so many slots, and a query keeps one of them busy for so long. Below which hit rate
# do the misses alone fill it?


# %% exercise="15_operations.floor" minutes=5
def lowest_hit_rate(reads, query_time, slots):
    """The hit rate, 0 to 1, below which the misses are more than the database can do.

    reads: reads of the cache per second, may be 0; query_time: seconds a miss keeps one slot of the
    database busy; slots: how many queries it works on at once. 0 if it can do without the cache.
    """
    ### BEGIN SOLUTION
    needed = reads * query_time  # slots, if every read were a miss
    return max(0.0, 1 - slots / needed) if needed else 0.0
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# How many slots would be busy if every read were a miss?

# %% [markdown] tags=["hint"]
# `reads * query_time` slots would be. Only the share that misses may need at most `slots`.

# %% [markdown] tags=["hint"]
# `1 - slots / (reads * query_time)`, but never below 0, and 0 if nobody reads.

# %%
cachelab.check("15_operations.floor", lowest_hit_rate)

# %% [markdown] tags=["solution"]
# `reads × query_time` is the number of slots that all reads together would keep busy. This is the
# absolute half of an alert: it knows your database, and 70 % does not.

# %% [markdown]
# ## 2. The alert
#
# Every pod has its own counters. Wake somebody if the misses of all pods together, in the last ten
# minutes,
#
# - are more than 1.5 times as many as yesterday's share of misses leads to expect for so many reads, *and*
# - are at least 50 more than expected.
#
# With nothing to compare, nobody is woken.


# %% exercise="15_operations.alert" minutes=8
def should_alert(pods, baseline):
    """Whether the hit rate has dropped by so much that somebody has to get up: True or False.

    pods: list of (hits, misses), one pair a pod, in the last ten minutes; may be empty.
    baseline: (hits, misses) of all pods together, yesterday; (0, 0) for a new cache.
    """
    ### BEGIN SOLUTION
    hits, misses = (sum(pod[n] for pod in pods) for n in (0, 1))
    if sum(baseline) == 0:
        return False
    expected = (hits + misses) * baseline[1] / sum(baseline)
    return misses > 1.5 * expected and misses - expected >= 50
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Add up hits and misses of all pods before you divide anything.

# %% [markdown] tags=["hint"]
# Expected misses: all reads of the window, times yesterday's misses, divided by yesterday's reads.
# When can that not be computed?

# %% [markdown] tags=["hint"]
# `expected = (hits + misses) * baseline[1] / sum(baseline)`, then `misses > 1.5 * expected and
# misses - expected >= 50`.

# %%
cachelab.check("15_operations.alert", should_alert)

# %% [markdown] tags=["solution"]
# Add, then divide: a mean of the pods' rates would let an idle pod ring, or hide a busy one. The factor
# keeps a large cache from ringing at a small change, the 50 keeps a small one from ringing at all.

# %% [markdown]
# ## 3. The audit
#
# The register says for each prefix who owns the keys, how long they may live, and what clears them.
# Hold it against the keyspace. What may be found:
#
# | pair | when |
# |---|---|
# | `(prefix, "no owner")` | the register's owner is empty |
# | `(prefix, "nothing clears it")` | its `cleared_by` is empty |
# | `(key, "unknown")` | no prefix fits; say nothing more about this key |
# | `(key, "no TTL")` | it will stay for ever |
# | `(key, "TTL too long")` | it has more seconds left than the register allows |
#
# If several prefixes fit a key, the longest counts. The server is in use: no `KEYS`, at most 100 trips
# for about a thousand keys, and nothing is changed. Keys may expire while you look.


# %% exercise="15_operations.register" minutes=12
def audit(cache, register):
    """What is wrong, as a list of pairs (key or prefix, problem), in any order.

    register: {prefix: {"owner": str, "ttl": seconds, "cleared_by": str}}; "" is empty.
    """
    ### BEGIN SOLUTION
    found = [(prefix, "no owner") for prefix, entry in register.items() if not entry["owner"]]
    for prefix, entry in register.items():
        if not entry["cleared_by"]:
            found.append((prefix, "nothing clears it"))
    keys = cache.scan_iter(count=500)
    while page := list(islice(keys, 500)):
        with cache.pipeline(transaction=False) as pipe:
            for key in page:
                pipe.pttl(key)
            lives = pipe.execute()
        for key, left in zip(page, lives, strict=True):
            fitting = [prefix for prefix in register if key.startswith(prefix)]
            if left == -2:
                continue
            if not fitting:
                found.append((key, "unknown"))
            elif left == -1:
                found.append((key, "no TTL"))
            elif left > 1_000 * register[max(fitting, key=len)]["ttl"]:
                found.append((key, "TTL too long"))
    return found
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two parts: the register by itself, then the keys, page by page, with their TTLs.

# %% [markdown] tags=["hint"]
# `cache.scan_iter(count=500)` gives the keys; put their `pttl` into one pipeline a page. -1 means
# no TTL, -2 means that the key is gone.

# %% [markdown] tags=["hint"]
# `max((p for p in register if key.startswith(p)), key=len, default=None)` is the prefix that
# counts; `left > 1_000 * register[prefix]['ttl']` is too long.

# %%
cachelab.check("15_operations.register", audit)

# %% [markdown] tags=["solution"]
# -1 is "no TTL" and -2 is "no such key": a key that ended between `SCAN` and `PTTL` is no finding. Any
# kind of value has a TTL, so nothing here asks what a key holds.

# %% [markdown]
# ## 4. Flush a namespace
#
# Delete every key that begins with `namespace`, and nothing else, while others use the server: pages of
# at most 1,000 keys, `UNLINK` rather than `DEL`. A namespace is a text, not a pattern: one of them is
# called `price[eur]:`.


# %% exercise="15_operations.flush" minutes=8
def flush(cache, namespace):
    """Delete every key that begins with the text `namespace`; returns how many were deleted.

    No command looks at or deletes more than 1,000 keys. A key that is gone by itself before it
    could be deleted is not counted.
    """
    ### BEGIN SOLUTION
    literal = "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in namespace)
    keys = cache.scan_iter(match=f"{literal}*", count=1_000)
    gone = 0
    while page := list(islice(keys, 1_000)):
        gone += cache.unlink(*page)
    return gone
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `cache.scan_iter(match=..., count=1_000)` walks in pages; collect at most 1,000 keys, delete them,
# go on.

# %% [markdown] tags=["hint"]
# `UNLINK` with no key is an error, and its answer is the number of keys it deleted.

# %% [markdown] tags=["hint"]
# Escape first: `"".join("\\" + c if c in "*?[]\\" else c for c in namespace)`; then `while page :=
# list(islice(keys, 1_000)): gone += cache.unlink(*page)`.

# %%
cachelab.check("15_operations.flush", flush)

# %% [markdown] tags=["solution"]
# `[eur]` in a pattern is one letter of three, so the signs of patterns get a backslash. And the server
# counts better than we do: `UNLINK` answers how many keys there really were.

# %% [markdown]
# ## 5. Warm up
#
# The cache is empty, the doors are still shut. Fill the hottest products under `product:v1:<id>`, as
# JSON, the hottest first, with at most `workers` queries at a time. What is filled together must not
# expire together: every copy gets a TTL of its own, 240 to 300 whole seconds. A copy that is there
# already is left alone, and costs no query. A query may fail; the others go on. Threads will do, by
# `ThreadPoolExecutor(workers)` or your own.


# %% exercise="15_operations.warm" minutes=12
def warm_up(cache, load, counts, most, workers):
    """Fill the `most` hottest products; returns how many copies were stored.

    load(product_id): asks the database, gives a dict, may raise. counts: {product_id: reads
    yesterday}. workers: so many loads may run at the same time, and should.
    """
    ### BEGIN SOLUTION

    def fill(product):
        key = f"product:v1:{product}"
        if cache.exists(key):
            return False
        try:
            row = load(product)
        except Exception:
            return False
        return bool(cache.set(key, json.dumps(row), ex=random.randint(240, 300), nx=True))

    hottest = sorted(counts, key=counts.get, reverse=True)[:most]
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(fill, hottest))
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Write a function that fills one product, then let a pool of `workers` threads call it for the
# hottest.

# %% [markdown] tags=["hint"]
# `sorted(counts, key=counts.get, reverse=True)[:most]` are the hottest. In the pool an exception
# must stay in the one fill that raised it.

# %% [markdown] tags=["hint"]
# Fill: if `cache.exists(key)`, return False; `load` in a try; `cache.set(key, text,
# ex=random.randint(240, 300))`, return True. Then `sum(pool.map(fill, hottest))`.

# %%
cachelab.check("15_operations.warm", warm_up)

# %% [markdown] tags=["solution"]
# `nx=True` is a courtesy: if somebody has stored a copy while our query ran, theirs may be newer. The
# number of workers is the share of the database that you can spare, and the TTLs are spread downwards, so
# that no copy gets older than promised.

# %% [markdown]
# ## On the real cache
#
# Now on the server of this notebook: fill it with something, audit it, flush a part, audit again.

# %%
lab.clear()
register = {"product:v1:": {"owner": "catalogue", "ttl": 300, "cleared_by": "price job"}}
# Call your functions here, for instance: audit(lab.cache, register)
print(lab.keys())

# %% [markdown] tags=["solution"]
# A session that nobody registered, and a product for ever.

# %% tags=["solution"]
warm_up(lab.cache, lab.db.product, {1: 50, 2: 20, 3: 5}, most=2, workers=2)
lab.cache.set("product:v1:9", "{}")
lab.cache.set("session:1", "Alice", ex=60)
print(sorted(audit(lab.cache, register)))
print(flush(lab.cache, "product:v1:"), "deleted, left:", lab.keys())

# %% [markdown]
# ## Recap
#
# - Two alerts: misses against yesterday's, weighted and with a minimum; and a floor from the database.
# - A register that a program reads is one that stays true.
# - Pages, `UNLINK`, and the server's own count; a namespace is a text, not a pattern.
# - Warm the hottest first, by few at a time, with TTLs that end apart.
#
# **Next:** `notebooks/16_beyond_one_node.ipynb`.
