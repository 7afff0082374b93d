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
# # Decide with numbers what to cache
#
# **About 40 minutes.** Three small formulas, which you will want again and again, and then a decision
# for each kind of data in the shop. The notebook `01_latency_freshness_cost` has all you need.
#
# No cache and no database here: the checks call your functions with figures, and say what would come
# of it. `cachelab.hint("01_latency_freshness_cost.break_even")` helps.

# %%
import cachelab

# %% [markdown]
# ## 1. From which hit rate on?
#
# Every read looks into the cache. A read that misses asks the query as well, and stores what it got.
# From which hit rate on is the mean read faster than the query alone?


# %% exercise="01_latency_freshness_cost.break_even" minutes=8
def break_even(query, lookup, store):
    """The hit rate at which a read takes as long with the cache as without.

    query, lookup, store: seconds, each. Returns a share from 0 to 1, not rounded; None if even a
    cache that always hits is slower than the query.
    """
    ### BEGIN SOLUTION
    share = (lookup + store) / (query + store)
    return share if share <= 1 else None
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Write down what one read takes on average with the cache, if a share h of the reads hits. What
# does every read pay? What do only those pay that miss?

# %% [markdown] tags=["hint"]
# Set equal what a read takes with the cache, `lookup + (1 - h) * (query + store)`, and without it,
# `query`.

# %% [markdown] tags=["hint"]
# `h = (lookup + store) / (query + store)`; above 1 there is no such hit rate: None.

# %%
cachelab.check("01_latency_freshness_cost.break_even", break_even)

# %% [markdown] tags=["solution"] given=[22, 70]
# `lookup + (1 - h) * (query + store) = query`, solved for h. A query of 4 ms with half a millisecond for
# each trip needs 22 % of hits, one of 1.2 s not even 0.1 %. No 70 % anywhere.

# %% [markdown]
# ## 2. The memory bill
#
# Each key is read `reads` times per second, at random moments, and a copy lives `ttl` seconds from its
# fill. How much is in the cache if all keys are, and how much usually? And what does it cost to be
# prepared for the first? A GB has 10⁹ bytes, and each replica holds everything once more.


# %% exercise="01_latency_freshness_cost.memory_bill" minutes=8
def memory_bill(keys, size, reads, ttl, replicas, price):
    """What a cache holds, and what it costs.

    keys: how many; size: bytes of one value; reads: of each key, per second (may be 0); ttl: seconds;
    replicas: copies besides the first; price: of one GB for a month.
    Returns a dict: "most" (GB, all keys at once, one copy), "usual" (GB on average, one copy), "bill"
    (per month, with room for "most" in each copy).
    """
    ### BEGIN SOLUTION
    most = keys * size / 1e9
    there = reads * ttl / (1 + reads * ttl)
    return {"most": most, "usual": most * there, "bill": most * (1 + replicas) * price}
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The bound and the bill are plain products. For the usual size: for which share of the time is the
# copy of one key there?

# %% [markdown] tags=["hint"]
# A copy is there for `ttl` seconds, and then gone until the next read, `1 / reads` seconds later on
# average.

# %% [markdown] tags=["hint"]
# The share is `reads * ttl / (1 + reads * ttl)`, the same as the hit rate; `usual` is `most` times
# that, `bill` is `most * (1 + replicas) * price`.

# %%
cachelab.check("01_latency_freshness_cost.memory_bill", memory_bill)

# %% [markdown] tags=["solution"]
# A copy is there for `ttl` seconds, and then gone until the next read, `1 / reads` seconds later on
# average. The share of time for which it is there is the hit rate as well: who pays for little memory
# has few hits, unless some keys are read far more often than others.

# %% [markdown] given=[15]
# ## 3. From a budget to a TTL
#
# An answer may be `budget` seconds old. To the TTL a share of `jitter` is added at random (0.15: up to
# 15 % more), and for `window` seconds after that the old copy may still be served, while somebody
# fetches a new one. Which TTL is the longest that keeps the budget in the worst case?


# %% exercise="01_latency_freshness_cost.ttl_for" minutes=8
def ttl_for(budget, jitter, window):
    """The longest TTL with which no answer is older than the budget.

    budget, window: seconds. jitter: share of the TTL that is added at most, such as 0.15.
    Returns a whole number of seconds, at least 1; None if there is no such TTL: then do not cache.
    """
    ### BEGIN SOLUTION
    seconds = int((budget - window) / (1 + jitter))
    return seconds if seconds >= 1 else None
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# How old can the oldest answer get, for a given TTL? Add up all that prolongs a copy's life.

# %% [markdown] tags=["hint"]
# The oldest answer is `ttl * (1 + jitter) + window` seconds old. That must not be more than the
# budget.

# %% [markdown] tags=["hint"]
# `int((budget - window) / (1 + jitter))`, and None if that is less than 1.

# %%
cachelab.check("01_latency_freshness_cost.ttl_for", ttl_for)

# %% [markdown] tags=["solution"] given=[15, 208, 240]
# The oldest answer is `ttl * (1 + jitter) + window` seconds old; the window is not lengthened by the
# jitter. With a budget of five minutes, 15 % of jitter and a minute's window 208 s are left. With jitter
# that is taken off instead of added it would be 240.

# %% [markdown]
# ## 4. Fill in the cards
#
# The shop's nine kinds of data, as in the notebook:
#
# | data | keys | reads (of one key, per s) | query (s) | size (bytes) | budget (s) | audience |
# |---|---|---|---|---|---|---|
# | best sellers | 5 | 2 | 1.2 | 335 | 3,600 | everyone |
# | article and comments | 200 | 0.5 | 0.04 | 32,000 | 60 | everyone |
# | feature flag | 2 | 1,000 | 0.004 | 5 | 60 | our code |
# | user profile | 100,000 | 0.01 | 0.004 | 120 | 300 | one user |
# | product price | 500 | 0.2 | 0.004 | 4 | 60 | everyone |
# | permissions | 100,000 | 0.01 | 0.004 | 30 | 5 | our code |
# | stock at checkout | 500 | 0.01 | 0.004 | 2 | 0 | our code |
# | order history | 100,000 | 0.001 | 0.2 | 5,000,000 | 60 | one user |
# | session | 100,000 | 0.05 | None | 400 | 0 | our code |
#
# And five places:
#
# | place | what it is | a lookup or a store takes | room |
# |---|---|---|---|
# | `"nowhere"` | ask the origin each time | | |
# | `"process"` | in each of the ten processes, which share the reads evenly | nothing | 0.2 GB in each |
# | `"shared"` | in the cache server | 0.5 ms | 10 GB |
# | `"edge"` | in front of the shop, for everyone who asks | nothing | 10 GB |
# | `"store"` | not a copy: it lives here and nowhere else | | |
#
# Write a rule, or decide card by card (`card.data` is its name). There is more than one right answer; a
# wrong one comes back with its reason. Leaving data uncached is right unless that keeps more than three
# connections busy for nothing, and a copy has to free a tenth of one at least.

# %%
from cachelab.exercises.lab_01_latency_freshness_cost import CARDS, Card

print(CARDS[0])


# %% exercise="01_latency_freshness_cost.decide" minutes=14
def decide(card):
    """Where to keep this kind of data, and for how long.

    card: has .data, .keys, .reads, .query (None: no origin has it), .size, .budget, .audience, as in
    the table. Returns a place and a TTL in seconds, such as ("shared", 60); with "nowhere" and
    "store" the TTL does not matter.
    """
    ### BEGIN SOLUTION
    if card.query is None:
        return ("store", 1_800)
    hits = card.reads * card.budget / (1 + card.reads * card.budget)
    needed = break_even(card.query, 0.0005, 0.0005)
    gigabytes = memory_bill(card.keys, card.size, card.reads, card.budget, 0, 0)["usual"]
    if needed is None or hits < needed or gigabytes > 10:
        return ("nowhere", None)
    small = card.keys * card.size < 1_000 and card.audience == "our code"
    return ("process" if small else "shared", card.budget)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Begin with the cards that rule something out: no origin, no budget, one user's own, too large. The
# verdict names one card at a time, with the reason.

# %% [markdown] tags=["hint"]
# A TTL that uses up the budget gives the most hits, n / (1 + n) with n = reads * ttl. Compare that
# with what your `break_even` asks for; where it is less, no cache.

# %% [markdown] tags=["hint"]
# Session: "store". Stock and permissions: "nowhere". Order history: too large for its hits. The
# flag: "process". The rest: "shared", with the budget as TTL.

# %%
cachelab.check("01_latency_freshness_cost.decide", decide)

# %% [markdown] tags=["solution"] given=[22.2]
# The rule asks in the order of what is most often overlooked: is there an origin at all; does the hit
# rate that the budget leaves reach the break-even (with a budget of 0 it is 0); is there room. The
# permissions fail at the second: 4.8 % of hits where 22.2 % are needed. A few flags for our own code fit
# into every process. The price is a matter of taste: a third of a connection is at stake.

# %% [markdown]
# ## Your own
#
# Take one thing that your team caches, or wants to. Which entries of its card do you know?
# Measure the others before you decide.

# %%
# For instance: decide(Card("invoices of a month", keys=..., reads=..., query=..., ...))

# %% [markdown] tags=["solution"]
# The shop's cards, decided by the rule above, and one more:

# %% tags=["solution"]
invoices = Card("invoices of a month", 12_000, 0.0001, 0.3, 4_000, 86_400, "one user")
for card in (*CARDS, invoices):
    place, seconds = decide(card)
    print(f"{card.data:21}{place:8}", f"{seconds:,} s" if place in ("process", "shared") else "")

# %% [markdown]
# ## Recap
#
# - The break-even is a ratio of times; ask for the hit rate that the budget leaves before you compare.
# - Memory is paid for the bound, and used for the hit rate.
# - Jitter and window are part of the budget.
# - No origin: no cache. No budget: no cache. No room: no cache, or a smaller value.
#
# **Next:** `notebooks/02_in_memory.ipynb`.
