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
# # Judge caches by what they save
#
# **About 45 minutes.** You get traces of a running shop and have to say which caches are worth their
# memory. The notebook `12_over_caching` has the ideas; here the traces are less tidy.
#
# An event of a trace has `at` (when it ended, in seconds), `took`, `actor`, `kind` ("hit", "miss",
# "fill", "delete", "query", "write" ...), `on` (the key, or the table with its parameters) and `detail`
# ("TTL 60 s" at a fill). A trace can be looped over.
# `cachelab.hint("12_over_caching.report")` helps.

# %%
import cachelab
from cachelab.exercises.lab_12_over_caching import Item, Read

# %% [markdown]
# ## 1. Read a trace and decide
#
# The shop's keys look like `product:v1:7`. Several readers run at once, so between a reader's miss and
# its fill there are other people's events. A job at night fills keys that nobody has missed. And there
# is another kind of key, `product_list:v1:3`.


# %% exercise="12_over_caching.report" minutes=15
def report(run, name, table, seconds):
    """What one kind of key, such as "product", does for the shop.

    run: a trace of `seconds` seconds; table: the table that the values are made from.
    Returns a dict of numbers, not rounded:
    "hits": hits per read of the cache, 0 to 1; None if it was never read.
    "ttl": the shortest TTL of its fills, in seconds; None if no fill has one.
    "query": mean seconds from a miss to the beginning of the next fill of that key by the same actor;
        fills without a miss do not count; None if there are none.
    "reads_per_write": reads of the cache per write to the table; None if there was no write.
    "saved": connections set free: hits times query, less what all commands on its keys took, per
        second of the trace. (No query known: count it as 0.)
    "keep": True if at least 0.2 connections are set free.
    """
    ### BEGIN SOLUTION
    count, spent, ttls, missed, queries = {}, 0.0, [], {}, []
    for event in run:
        if event.kind == "write" and event.on.split(" ")[0] == table:
            count["write"] = count.get("write", 0) + 1
        if event.on.split(":")[0] != name:
            continue
        count[event.kind] = count.get(event.kind, 0) + 1
        spent += event.took
        if event.kind == "miss":
            missed[event.actor, event.on] = event.at
        if event.kind == "fill":
            if event.detail.startswith("TTL"):
                ttls.append(int(event.detail.split(" ")[1]))
            since = missed.pop((event.actor, event.on), None)
            if since is not None:
                queries.append(event.at - event.took - since)
    hits, writes = count.get("hit", 0), count.get("write", 0)
    reads = hits + count.get("miss", 0)
    query = sum(queries) / len(queries) if queries else None
    saved = (hits * (query or 0) - spent) / seconds
    return {
        "hits": hits / reads if reads else None,
        "ttl": min(ttls, default=None),
        "query": query,
        "reads_per_write": reads / writes if writes else None,
        "saved": saved,
        "keep": saved >= 0.2,
    }
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# One loop over the trace is enough. Which events belong to the kind? Which belong to the table?
# Everything else is somebody else's.

# %% [markdown] tags=["hint"]
# A key's kind is `event.on.split(':')[0]`, a write's table `event.on.split(' ')[0]`. Remember each
# miss under its actor and its key.

# %% [markdown] tags=["hint"]
# At a fill: `since = missed.pop((event.actor, event.on), None)`; if that is not None, the query
# took `event.at - event.took - since`. `saved` is `(hits * query - time of all commands) /
# seconds`.

# %%
cachelab.check("12_over_caching.report", report)

# %% [markdown] tags=["solution"]
# Nothing in it needs more than the trace, so it can run on production's. The pairing by actor *and* key
# matters: with many readers at once the fill after a miss is often somebody else's.

# %% [markdown]
# ## 2. Why did it miss?
#
# A copy can be missing for four reasons: the key was never filled; somebody deleted the copy; its TTL
# ran out; or neither, and then the server has evicted it. What happened first counts: who deletes a
# copy that has expired already has taken nothing away. Until somebody fills the key again, each further
# read of it is one more miss of the same kind.


# %% exercise="12_over_caching.why_missed" minutes=12
def why_missed(run):
    """Count the misses of a trace by their reason.

    Returns a dict of four counts: "first", "written", "expired", "evicted".
    A fill's TTL is whole seconds, as in "TTL 60 s"; a fill with "no TTL" never expires. A copy that was
    filled at 10 s with a TTL of 60 s is gone from 70 s on.
    """
    ### BEGIN SOLUTION
    why = {"first": 0, "written": 0, "expired": 0, "evicted": 0}
    ends, written = {}, set()
    for event in run:
        expired = event.at >= ends.get(event.on, float("inf"))
        if event.kind == "fill":
            timed = event.detail.startswith("TTL")
            ends[event.on] = event.at + (int(event.detail.split(" ")[1]) if timed else float("inf"))
            written.discard(event.on)
        elif event.kind == "delete" and event.on in ends and not expired:
            written.add(event.on)
        elif event.kind == "miss" and event.on not in ends:
            why["first"] += 1
        elif event.kind == "miss" and event.on in written:
            why["written"] += 1
        elif event.kind == "miss":
            why["expired" if expired else "evicted"] += 1
    return why
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Go through the events in order and remember for each key what a later miss will have to know:
# whether it was filled, until when that lasts, whether it was deleted.

# %% [markdown] tags=["hint"]
# `ends[key] = event.at + ttl` at a fill, infinity for `no TTL`. A delete counts only if there is a
# copy that has not expired yet; a fill makes it forgotten.

# %% [markdown] tags=["hint"]
# At a miss: not in `ends`: first. In the set of deleted keys: written. `event.at >= ends[key]`:
# expired. Otherwise: evicted.

# %%
cachelab.check("12_over_caching.why_missed", why_missed)

# %% [markdown] tags=["solution"]
# Four reasons, four cures: look at the key; look at the writes; a longer TTL, if the budget allows it;
# more memory, or less in it.

# %% [markdown]
# ## 3. What a hit rate hides
#
# A log of reads. Some found a copy, some asked the database, and some waited for another reader's
# query: those have asked nothing, but were not fast either.


# %%
cachelab.show(Read)


# %% exercise="12_over_caching.rates" minutes=8
def rates(reads):
    """Three rates of a list of `Read`, each a share of 1.

    Returns a dict:
    "hits": reads that asked no query, per read.
    "at_once": reads that asked no query and waited less than 0.010 s, per read.
    "time": the share of all queries' time that the readers were spared: 1 less the time that all of
        them waited, per time that all queries take. Below 0 if the cache costs more than it spares.
    Each is None if there are no reads.
    """
    ### BEGIN SOLUTION
    if not reads:
        return {"hits": None, "at_once": None, "time": None}
    hits = [read for read in reads if not read.asked]
    return {
        "hits": len(hits) / len(reads),
        "at_once": sum(read.waited < 0.010 for read in hits) / len(reads),
        "time": 1 - sum(read.waited for read in reads) / sum(read.query for read in reads),
    }
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# All three are divided by something of *all* reads: their number, or their queries' time.

# %% [markdown] tags=["hint"]
# A read that waited for another's query is a hit, but not at once. For the time, add up `waited`
# and `query` over all reads, the misses too.

# %% [markdown] tags=["hint"]
# "time" is `1 - sum(waited) / sum(query)`; with no reads, None three times.

# %%
cachelab.check("12_over_caching.rates", rates)

# %% [markdown] tags=["solution"]
# Sums first, then one division. The mean of each read's own share would count a saved millisecond of a
# 2 ms query as much as a saved second of a 2 s query.

# %% [markdown] given=[95]
# ## 4. Pick what to keep
#
# The server has `room` bytes, and you decide what goes in. Whatever is in always hits, and a lookup
# takes 0.5 ms. How much does each save? Save at least **95 %** of what the best possible choice saves.


# %%
cachelab.show(Item)


# %% exercise="12_over_caching.choose" minutes=10
def choose(items, room):
    """The names of the items to cache, a list.

    items: a list of `Item`; room: bytes, all chosen sizes together fit into it. An item that saves
    nothing must not be chosen, even if there is room.
    """
    ### BEGIN SOLUTION
    worth = {item: item.reads * (item.query - 0.0005) for item in items}
    chosen, left = [], room
    for item in sorted(items, key=lambda item: worth[item] / item.size, reverse=True):
        if worth[item] > 0 and item.size <= left:
            chosen.append(item.name)
            left -= item.size
    return chosen
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What does an item save in a second? And what does it take away from the others?

# %% [markdown] tags=["hint"]
# It saves `reads * (query - 0.0005)` and takes `size`. Put those first that save most per byte, and
# leave out those that save nothing.

# %% [markdown] tags=["hint"]
# Go through them in that order; take each that still fits, and do not stop at the first that does
# not.

# %%
cachelab.check("12_over_caching.choose", choose)

# %% [markdown] tags=["solution"]
# By saved time **per byte**, until it is full; what does not fit is passed over, and smaller ones may
# still fit. It is the knapsack problem, for which this rule is not always the best, but good wherever
# single items are small against the room. No eviction policy of the server knows the price of a miss.

# %% [markdown]
# ## Recap
#
# - A trace tells hit rate, TTL, query time and reads per write, and from them what a cache saves.
# - First read, written, expired, evicted: four reasons for a miss, each with its own cure.
# - Three rates instead of one: hits, hits at once, time saved.
# - Memory goes to what saves most per byte.
#
# **Next:** `notebooks/13_production_cache.ipynb`.
