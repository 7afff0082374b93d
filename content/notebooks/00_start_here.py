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
# # Add a cache, and meet the bug that comes with it
#
# **About 25 minutes.**
#
# **What you'll do.** Make a slow page fast with a cache, get a complaint from a customer two weeks
# later, find out why, and measure how wrong the page was. Then hand in your first exercise.
#
# **What you'll learn.** What a cache trades away; how to read a trace; how checks, hints and resets
# work in this workbook.
#
# **What you'll need.** Some Python. You need not know Redis.
#
# Run each cell with **Shift+Enter**, from the top. Where the text asks you to predict, do it before
# you run the cell: a wrong guess teaches more than a right answer that you only read.

# %%
import json

import cachelab

lab = cachelab.start()

# %% [markdown] given=[1000, 200000]
# That line says what you are working on. The cache is a real server that was started for this
# notebook alone and ends with it; you cannot break anything but your own lesson. Behind it is the
# **origin**: the database of a small shop, with 1,000 users and 200,000 orders. Alice is user 1.

# %%
lab.db.user(1)

# %% [markdown]
# ## A slow page
#
# The account page greets the user, shows their e-mail address, and recommends what sells best in
# the kitchen department. The second part is slow, and honestly so: the database adds up all the
# orders each time.


# %%
def account_page(user_id):
    user = lab.db.user(user_id)
    best = lab.db.best_sellers("kitchen", 3)
    return {"email": user["email"], "best": [product["name"] for product in best]}


account_page(1)

# %% [markdown]
# Every operation is on record in `lab.trace`: nobody has to log anything. The function above sent
# two queries, and the one before it one.

# %%
print(lab.trace)

# %% [markdown]
# **Predict:** fifty customers open the page. How many queries does the database get?

# %%
lab.trace.clear()
for _ in range(50):
    account_page(1)
print(lab.trace.queries, "queries")

# %% [markdown]
# ## "We added Redis"
#
# A **cache** keeps the answer to a question that was expensive to ask. The function below looks
# there first. If the answer is there, that is a **hit**. If not, a **miss**: ask the origin, and
# **fill** the cache for next time. `ex=600` gives the copy a **TTL** (time to live) of 600 seconds;
# then the server drops it by itself.


# %%
def cached_account_page(user_id):
    key = f"account:v1:{user_id}"
    stored = lab.cache.get(key)
    if stored is not None:
        return json.loads(stored)
    page = account_page(user_id)
    lab.cache.set(key, json.dumps(page), ex=600)
    return page


# %% [markdown]
# **Predict** again: fifty visits, how many queries this time?

# %%
lab.trace.clear()
for _ in range(50):
    cached_account_page(1)
print(lab.trace.summary())

# %% [markdown]
# Two queries instead of a hundred. Is it faster, too? Times differ from machine to machine, so this
# workbook compares them with each other, in the same run, and never with a stopwatch of its own.

# %% tags=["nbval-ignore-output"]
import timeit

slow = timeit.timeit(lambda: account_page(1), number=5)
fast = timeit.timeit(lambda: cached_account_page(1), number=5)
print(f"A hit is about {slow / fast:.0f} times faster than asking the database.")

# %% [markdown]
# Ship it. Everybody is happy.
#
# ## Two weeks later
#
# Alice changes her e-mail address. The settings service writes to the database; it has never heard
# of your cache. We play that service with `lab.someone_else`.

# %%
lab.clear()
cached_account_page(1)
lab.someone_else.update_user(1, email="alice@new-job.example")

# %% [markdown]
# **Predict:** Alice reloads her account page. Which address does she see? And four minutes later?

# %%
print("at once:        ", cached_account_page(1)["email"])
lab.fast_forward(4 * 60)
print("4 minutes later:", cached_account_page(1)["email"])

# %% [markdown]
# The old one, twice. (`fast_forward` moves every TTL of ours on the real server, so that nobody has
# to wait.) Nothing failed, nothing was logged, no alert went off. The page is fast and wrong.
#
# Here is what happened, in order:

# %%
print(lab.trace)

# %% [markdown]
# Look at the last line of the table. The trace knows which rows a cached value was made of; after
# each commit it asks the database again, off the record, and compares. So here **staleness is a
# number**: how many answers were wrong, and for how long they had been.
#
# The same as a picture: one row for each actor, time to the right. A filled circle is a hit, a
# hollow one a miss, a diamond a query, a triangle a write; a ringed circle is a stale answer.

# %%
cachelab.lanes(lab.trace)

# %% [markdown] given=[11]
# **Predict:** what does Alice see eleven minutes after the change?

# %%
lab.fast_forward(7 * 60)
print(cached_account_page(1)["email"])

# %% [markdown] given=[10]
# The TTL ran out, the next read missed, and the page is right again. So the TTL is a promise about
# how long you may be wrong: here, ten minutes, for everything on the page.
#
# ## The one idea to keep
#
# > A cache makes an answer fast by giving up some of the certainty that it is still true.
#
# Often that is a good bargain; the best sellers may well be ten minutes old. It has to be a bargain
# that somebody made, though, and not something that happened. For each thing you want to cache, ask
# three questions:
#
# | question | on this page |
# |---|---|
# | **Latency:** how much faster does it get? | best sellers: a lot. The user row: not at all |
# | **Freshness:** how often does it change, and who suffers if it is old? | best sellers: nobody. The e-mail address: Alice, at once |
# | **Cost:** memory, another server, another way to be wrong | one copy of the best sellers serves everybody; one copy of the page for each user does not |
#
# The page went wrong because two things with different answers were put under one key with one TTL.

# %% [markdown]
# ## Bad timing, on purpose
#
# The page went stale because the writer knew nothing of the cache. Suppose that it does, and deletes
# the copy right after its update. Is all well then? That depends on who is where at which moment,
# and you cannot wait for an unlucky moment in front of a class.
#
# So this workbook has a **stage**. It runs your own code, as it is, with a clock that moves only
# when everybody sleeps or waits, and goes from one actor to another only at a cache command, a
# query, a commit or a sleep. Here are a reader, who needs a second to render the page, and a writer:

# %%
import time

from cachelab import stage


def reader(cache, db):
    stored = cache.get("email:v1:1")
    if stored is None:
        stored = db.user(1)["email"]
        time.sleep(1)
        cache.set("email:v1:1", stored, ex=600)


def writer(cache, db):
    db.update_user(1, email="alice@new-job.example")
    cache.delete("email:v1:1")


# %% [markdown]
# **Predict:** the reader comes at 2 seconds. The writer comes before, after, or while the reader is
# rendering. What is in the cache afterwards?

# %%
for when, start in {"before": 0.0, "after": 4.0, "meanwhile": 2.5}.items():
    run = stage.run({"reader": (2.0, reader), "writer": (start, writer)})
    print(f"writer {when}: the cache has {run.world.cache.get('email:v1:1')}")

# %% [markdown]
# Before: the new address. After: nothing, the copy was deleted. Meanwhile: the *old* address, stored
# half a second after the delete that should have removed it, and there for the next ten minutes.
# Nobody made a mistake that one could see in their own code. This is the run:

# %%
cachelab.lanes(run)

# %% [markdown]
# The reader's query (diamond) comes before the write (triangle), its fill (square) after the delete
# (cross). You need not guess such moments: `stage.explore` tries **every order** in which the two can
# take turns, and shows the shortest one that breaks what you say must hold.


# %%
def no_old_address(world):
    return world.cache.get("email:v1:1") != "alice@example.org" or "The old address stays cached."


stage.explore({"reader": reader, "writer": writer}, no_old_address)

# %% [markdown]
# Many checks in this workbook do that with your answers. How to close this hole is the subject of
# chapter `11_stale_data`.
#
# ## How the exercises work
#
# Each chapter has a **lab** in the folder `labs`. There you write small functions, and
# `cachelab.check` judges what they *do*, on a fresh cache and a fresh database each time, so you
# can try anything. A function that you have not begun looks like this:


# %%
def remember(cache, key, value, seconds):
    raise NotImplementedError("00_start_here.remember")


cachelab.check("00_start_here.remember", remember)

# %% [markdown]
# *Not attempted* is not a failure. Here is an attempt that many of us have shipped:


# %%
def remember(cache, key, value, seconds):
    cache.set(key, str(value), ex=seconds)


cachelab.check("00_start_here.remember", remember)

# %% [markdown]
# A verdict says in one sentence what was seen and what was expected. There are four:
#
# | verdict | meaning |
# |---|---|
# | **passed** | right in every case that was tried |
# | **failed** | one case went wrong; the sentence says which, and often there is a trace to look at |
# | **proved nothing** | nothing went wrong, but nothing was put to the test either |
# | **not attempted** | the line with `NotImplementedError` is still there |
#
# Stuck? Ask for a hint. There are three for each exercise, and each says more than the one before.

# %%
cachelab.hint("00_start_here.remember")

# %% [markdown]
# - Nothing you write can break the workbook: endless loops are stopped, crashes become a sentence.
# - Solutions are in the folder `solutions`. Look after you have tried; they also explain *why*.
# - To begin a lab again, run `cachelab reset 00_start_here` in a terminal. It keeps a backup of what
#   you wrote.
#
# ## Words
#
# | word | meaning |
# |---|---|
# | **origin** | where the truth is: here, the shop's database |
# | **hit, miss, fill** | found in the cache; not found; stored after a miss |
# | **TTL** | how long a copy may stay, in seconds |
# | **stale** | no longer what the origin would say |
# | **invalidate** | delete or replace a copy because its source has changed |
# | **stampede** | many readers miss the same key at once and all ask the origin |
# | **actor** | whoever acts in a trace: a reader, a writer, another service |
# | **stage** | runs actors on a virtual clock, in one order or in every order |

# %% [markdown]
# ## Recap
#
# - Fifty visits cost 100 queries without a cache, and 2 with it.
# - The same cache served a wrong e-mail address until its TTL ran out, and nothing complained.
# - A TTL is a promise about how long you may be wrong.
# - Before you cache anything: latency, freshness, cost.
# - Some bugs are a matter of order; the stage finds the order.
#
# **Now your turn:** open `labs/00_start_here.ipynb`. Then go on with
# `notebooks/01_latency_freshness_cost.ipynb`.
