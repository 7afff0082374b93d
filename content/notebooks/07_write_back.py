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
# # Write to the cache first, and know what a crash takes
#
# **About 30 minutes.**
#
# **What you'll do.** Count views of articles in the cache, bring the sums to the database in batches,
# and break that in four ways: a view that comes at the wrong moment, a worker that dies, an id that
# starts again, and `kill -9`. Then bound the loss, and try two buffers that survive the crash.
#
# **What you'll learn.** What write-back saves and what it does not; why a batch needs an id; how many
# writes a crash takes, on average and at worst; what an append-only file promises.
#
# **What you'll need.** `05_cache_aside`; for comparison `06_write_through`.

# %%
import os
import random

import sqlalchemy as sa

import cachelab
from cachelab import server, stage, traffic, widgets
from cachelab.models import write_back as model
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## One view, one update
#
# The shop's magazine has 200 articles, and each counts its views. The plain way is an `UPDATE` and a
# commit for every view.

# %%
ADD = sa.text("UPDATE articles SET views = views + :more WHERE id = :id")


def count_at_once(db, article_id=1):
    with db.engine.begin() as connection:
        connection.execute(ADD, {"id": article_id, "more": 1})


# %% [markdown] given=[10]
# Now a hot article: 200 views within a second, and a database that takes 10 ms for an update. Updates
# of one row wait for each other. The stage has a clock for that: **predict** when the last of the
# 200 visitors is done, if they come evenly spread over that second.

# %%
crowd = stage.run([lambda cache, db: count_at_once(db)] * 200, spread=1.0, latency=0.01)
print(f"{crowd.writes} updates, {crowd.count('commit')} commits, done after {crowd.elapsed:.2f} s")

# %% [markdown]
# They come within one second and are done after two: the queue grows by a second every second, for as
# long as the article is hot. A cache for *reading* does not help here.
#
# ## Count in the cache, flush later
#
# **Write-back**, also called write-behind, turns the order round: the visitor writes to the cache and
# goes; a worker brings the sums to the database. Many descriptions, the article's among them, let the
# cache do that. But Redis and Valkey know nothing of your database: the worker is yours to write, and
# to watch.
#
# ```mermaid
# sequenceDiagram
#     participant Visitor
#     participant Cache
#     participant Worker
#     participant Origin
#     Visitor->>Cache: HINCRBY article 1
#     Cache-->>Visitor: acknowledged
#     Worker->>Cache: HGETALL
#     Worker->>Origin: UPDATE, one row an article
#     Worker->>Cache: DEL
# ```

# %%
BUFFER = "views:v1:buffer"


def count(cache, article_id=1):
    return cache.hincrby(BUFFER, article_id, 1)


def flush(cache, db, key=BUFFER):
    sums = cache.hgetall(key)
    rows = [{"id": int(article), "more": int(more)} for article, more in sums.items()]
    if rows:
        with db.engine.begin() as connection:
            connection.execute(ADD, rows)
    cache.delete(key)
    return len(rows)


# %%
# hop: the seconds of a trip to the cache
crowd = stage.run([lambda cache, db: count(cache)] * 200, spread=1.0, latency=0.01, hop=0.0005)
print(f"{crowd.writes} updates, done after {crowd.elapsed:.2f} s")

# %% [markdown]
# Nobody waits for anybody: an increment holds the cache only for the moment it takes. That is what
# "extremely fast" means here. It is not that the trip to the cache is short: the trip to a database
# next door is just as short. It is that nobody queues.
#
# ## What it saves
#
# All over the magazine there are 200 views a second, each of an article by chance, for ten seconds.
# Views of the same article become one row.

# %%
predict("With a flush every second: how many rows does one flush write?", key="rows", unit="rows")


# %%
def ten_seconds(every, cache, db):
    draw, views, flushes, rows = random.Random(7), traffic.poisson(200, 10, seed=7), 0, 0
    for at in views:
        while at >= (flushes + 1) * every:
            rows, flushes = rows + flush(cache, db), flushes + 1
        count(cache, draw.randint(1, 200))
    return len(views), flushes + 1, rows + flush(cache, db)


# %%
print("flush every   views  commits   rows a flush (model)   views a row (model)")
with lab.trace.off_the_record():
    for every in (1, 2, 5, 10):
        views, flushes, rows = ten_seconds(every, lab.cache, lab.db)
        form = model.coalescing(200, every, keys=200)
        print(f"{every:9} s {views:7,} {flushes:8}   {rows / flushes:12.1f}", end="")
        print(f" {form.rows_per_flush:7.1f}   {views / rows:11.1f} {form.saving:7.1f}")
a_million = model.coalescing(200, 10, keys=1_000_000).saving
print(f"10 s, a million articles: {a_million:.3f} views a row in the model")
reveal("rows", round(model.coalescing(200, 1, keys=200).rows_per_flush))

# %% [markdown] given=[2000, 10]
# Two savings, and they differ. *Commits* go from one a view to one a flush, here from two thousand to
# ten or fewer, whatever the keys. *Rows* only shrink if the same keys come again: with a flush every
# second it is 1.6 views a row, and in a magazine of a million articles a batch is as many rows as
# views. The model is `K (1 - exp(-wF/K))` rows for `w` views a second, `F` seconds, `K` keys.
#
# ## What a reader sees
#
# **Predict:** three visitors have just been counted. What does the author see?

# %%
lab.clear()
before = lab.db.article(1)["views"]
for _ in range(3):
    count(lab.cache)
print("in the database:", lab.db.article(1)["views"] - before, "more")
print("and what waits: ", int(lab.cache.hget(BUFFER, 1) or 0), "more")

# %% [markdown]
# Every reader of that column has to add what waits, or be told that it is late by a flush interval.
# Reports that read the table directly are always late.
#
# ## Break it: a view that comes during the flush
#
# The worker above reads, writes, and deletes. A visitor may come at any of its steps; one view waits
# already.

# %%
predict("In how many of the four orders is a view lost?", key="race", choices=["0", "1", "2", "4"])


# %%
FRESH = 97  # the views of article 1 in the stage's shop


def visitor(cache, db):
    return count(cache)


def all_counted(expected, worker):
    def holds(world):
        worker(world.cache, world.db)  # what still waits comes with the next flush
        found = world.db.article(1)["views"] - FRESH
        return found == expected or f"views counted: {expected}, in the database: {found}."

    return holds


# %%
actors = {"worker": flush, "visitor": visitor}
race = stage.explore(actors, all_counted(2, flush), setup=visitor, commit_apart=False)
print(race.summary, reveal("race", str(race.failing)), sep="\n")
cachelab.lanes(race.counterexample)

# %% [markdown]
# Nothing crashed. In the lanes, the dot is the visitor's increment; it comes after the worker's read
# (circle), and the delete (cross) takes it along. The cure is to **seal** the batch first: `RENAME` is
# one step, and whoever comes later opens a new one.

# %%
SEALED = "views:v1:sealed"


def sealing_flush(cache, db):
    if cache.exists(BUFFER) and not cache.exists(SEALED):
        cache.rename(BUFFER, SEALED)
    flush(cache, db, SEALED)  # a batch that was left behind goes first


actors = {"worker": sealing_flush, "visitor": visitor}
stage.explore(actors, all_counted(2, sealing_flush), setup=visitor)

# %% [markdown]
# ## Break the fix: the worker dies
#
# Workers are deployed, run out of memory, lose their node. `crashes=1` lets one die at each step in
# turn; ten seconds later its successor flushes what it finds.

# %%
predict(
    "The worker may die at any step. What can become of a batch?",
    key="dies",
    choices=["nothing bad", "it is lost", "it counts twice"],
)

# %%
actors = {"worker": sealing_flush, "successor": (10, sealing_flush)}
dead = stage.explore(actors, all_counted(1, sealing_flush), setup=visitor, crashes=1)
print(dead.summary, reveal("dies", "it counts twice"), sep="\n")
cachelab.lanes(dead.counterexample)

# %% [markdown]
# The plus is the death, between the commit (bar) and the delete that would have followed it. The
# successor cannot know that this batch is in the database, and adds it again. Delete before the commit,
# and it is lost instead. No order of the two steps helps; **the database has to remember which batch it
# has seen**, in the same transaction that counts it. In the pattern, `CLAIM` inserts the id of a batch
# unless it is there; `DROP` deletes the sealed hash if it still is that batch.

# %%
from cachelab.patterns import write_back

cachelab.show(write_back.flush)

# %% [markdown]
# The id is born with the batch's first view, so that everybody who finds the batch finds the same id:

# %%
cachelab.show(write_back.add)


# %%
def make_table(cache, db):
    with db.engine.begin() as connection:
        connection.execute(write_back.FLUSHED)
        connection.execute(sa.text("DELETE FROM flushed"))  # of an earlier run of this notebook


def counts(cache, db):
    return write_back.add(cache, 1)


def works(cache, db):
    return write_back.flush(cache, db.engine)


# %%
def each_once(world):
    while write_back.flush(world.cache, world.db.engine):
        pass  # what still waits
    acknowledged, found = "visitor" in world.answers, world.db.article(1)["views"] - FRESH
    return found == acknowledged or f"{acknowledged:d} acknowledged, {found} in the database."


actors = {"visitor": counts, "worker": works, "another": works, "successor": (10, works)}
stage.explore(actors, each_once, setup=make_table, crashes=1)

# %% [markdown]
# Two workers at once, one of them dead at any step, and every view counts once. `write_back.read` uses
# the same ids: it asks the cache what waits, and then the database which of that it has.
#
# **Break it again.** An id must never come twice. Here is one that looks tidy: the cache numbers the
# batches.

# %%
make_table(lab.cache, lab.db)


def tidy_batch():
    batch = f"batch {lab.cache.incr('views:v1:batches')}"
    with lab.db.engine.begin() as connection:
        new = connection.execute(write_back.CLAIM, {"batch": batch}).rowcount == 1
    print(batch, "is counted" if new else "is thrown away: the database has seen it")


tidy_batch()
lab.kill_cache()
lab.restart_cache()
tidy_batch()

# %% [markdown]
# The counter died with the cache and began again. From then on every batch is thrown away, until the
# number is higher than it ever was. Nothing logs an error. A random id cannot do that.
#
# ## kill -9, counted
#
# Now to what everybody warns of: the cache dies, and takes along what was not flushed. How much is that?
# At 200 views a second, with a flush every second and a crash at any moment:

# %%
RATE, EVERY = 200, 1.0
predict("How many acknowledged views does a crash take on average?", key="loss", unit="views")

# %%
lost = model.loss(RATE, EVERY)
many = model.simulate(RATE, EVERY, keys=200, intervals=1_000).lost
print(f"formula: mean w F / 2 = {lost.mean:.0f}, worst w F = {lost.worst:.0f}")
print(f"1,000 simulated crashes: mean {many.mean():.0f}, worst {many.max():.0f}")
reveal("loss", lost.mean)

# %% [markdown]
# Now for real. The moments of the views and of the crash are drawn, as in the model; server, commands
# and `kill -9` are not. (A little more than the worst is possible: in some seconds more than 200 come.)


# %%
def until_the_crash(seed, add, flush):
    """A second of views, a flush, and views until the crash; how many were acknowledged."""
    crash = EVERY * (1 + random.Random(f"crash {seed}").random())
    arrivals = traffic.poisson(RATE, crash, seed)
    first = sum(at < EVERY for at in arrivals)
    for number in range(len(arrivals)):
        if number == first:
            flush()
        add(1)
    return len(arrivals)


# %%
def views_lost(seed, store, cache, pattern=write_back):
    before = lab.db.article(1)["views"]
    acknowledged = until_the_crash(
        seed,
        lambda article: pattern.add(cache, article),
        lambda: pattern.flush(cache, lab.db.engine),
    )
    store.kill()
    store.restart()
    pattern.flush(cache, lab.db.engine)  # what has survived
    return acknowledged - (lab.db.article(1)["views"] - before)


# %% tags=["live"]
with lab.trace.off_the_record():
    losses = [views_lost(seed, lab.server, lab.cache) for seed in range(10)]
spread = (lost.mean + lost.worst**2 / 12) ** 0.5  # of one crash: Poisson views, at any moment
off = 2.576 * spread / 10**0.5
print("lost in ten crashes:", losses, "mean:", sum(losses) / 10)
print(f"99 of 100 such means are from {lost.mean - off:.0f} to {lost.mean + off:.0f}")

# %% [markdown]
# Every one of these views had been acknowledged. The mean of ten strays from the formula, as the mean of
# ten dice does. The tests of this workbook kill the server thirty times, and hold the mean to the same
# band, which is narrower then.
#
# The article finds it acceptable that counters lose "a few seconds", at "hundreds of writes per second".
# Put numbers to it:

# %%
print("flush every   lost: mean   worst   rows a second")
for every in (0.1, 1, 3, 60):
    crash, flushed = model.loss(200, every), model.coalescing(200, every, keys=200)
    print(f"{every:9} s {crash.mean:12,.0f} {crash.worst:7,.0f}", end="")
    print(f"{flushed.rows_per_flush / every:16.1f}")

# %% [markdown]
# Three seconds are six hundred views at worst. The explorer shows the same for other rates: writes and
# keys that are not yet in the database, over the time since the last flush; each dot and each square is
# a crash. **Its question** is below it.

# %% tags=["widget"]
widgets.write_back_explorer()

# %% [markdown]
# ## Bound the loss
#
# By time alone, the loss grows with the traffic: at the peak, when most is lost, twice the rate is twice
# the loss. By size it does not: a batch of `B` loses `(B - 1) / 2` on average and `B - 1` at worst.
# `add` says how many wait:

# %%
for _ in range(250):
    if write_back.add(lab.cache, 1) >= 100:
        write_back.flush(lab.cache, lab.db.engine)
print("a batch of 100 loses", model.loss_by_batch(100))
print("still waiting after 250 views:", lab.cache.hget(write_back.OPEN, "waiting"))

# %% [markdown]
# By size alone, those 50 wait for the next visitor, all night if need be. So flush by size *or* by age,
# whichever comes first. You will write that in the lab.
#
# One bound more. A copy in a cache may be evicted, flushed or given a TTL; it is only a copy. This
# buffer is the only place where those views exist. **Keep it on a server that evicts nothing**, apart
# from what is merely cached.
#
# ## A buffer that survives
#
# Redis and Valkey can write every command to an append-only file, the AOF, and read it back when they
# start. `appendfsync` says when the file is forced to the disk: `everysec`, or `always`, before the
# reply. And instead of sums one can keep the views themselves, in a **stream**: a consumer group
# remembers which entries a worker was given and has not acknowledged, and gives them again.

# %%
from cachelab.patterns import write_back_stream

cachelab.show(write_back_stream.flush)


# %% [markdown]
# That holds whoever dies, as before:


# %%
def ready(cache, db):
    make_table(cache, db)
    write_back_stream.create(cache)
    write_back_stream.add(cache, 1)


def drains(cache, db):
    return write_back_stream.flush(cache, db.engine)


actors = {"worker": drains, "successor": (10, drains)}
stage.explore(actors, all_counted(1, drains), setup=ready, crashes=1)

# %% [markdown]
# Now the server dies instead: a private one for each setting, killed three times a pattern. **Predict**
# the losses.


# %%
RATE = 50  # views a second: each of them waits for the disk now


def durable(fsync):
    # A real one of our own: nothing else can be killed.
    ours = {**os.environ, "CACHELAB_REDIS_URL": "", "CACHELAB_BACKEND": "live"}
    store = server.find(ours, appendonly="yes", appendfsync=fsync)
    write_back_stream.create(store.client())
    return store


# %% tags=["live"]
store = durable("always")
for pattern in (write_back, write_back_stream):
    losses = [views_lost(seed, store, store.client(), pattern) for seed in range(3)]
    print(f"always, {pattern.__name__.split('.')[-1]:17} lost: {losses}")
store.close()

# %% tags=["live", "nbval-ignore-output"]
store = durable("everysec")
print("everysec, write_back lost:", [views_lost(n, store, store.client()) for n in range(3)])
store.close()

# %% [markdown]
# `everysec` most likely lost nothing either, and **that proves less than it seems**. `kill -9` ends a
# process; what the process had handed to the operating system is still written. The second that
# `everysec` may lose is lost when the *machine* goes: a power cut, a kernel panic. No `kill` can show
# that. The documentation can, and so can the formula: `everysec` is itself a write-back, with a flush
# every second.

# %%
print("power cut with everysec: at 200 views a second", model.loss(200, 1.0))

# %% [markdown]
# While the disk is slow it may be two seconds, say Redis' notes on latency. For single writes that
# matter more, `WAITAOF` (Redis 7.2, Valkey) waits until they are on disk. `always` makes each write
# wait for the disk: measure on yours what is then left of "extremely fast".
#
# The stream costs something else:

# %%
lab.clear()
write_back_stream.create(lab.cache)
draw = random.Random(7)
for article in [draw.randint(1, 50) for _ in range(500)]:
    write_back.add(lab.cache, article)
    write_back_stream.add(lab.cache, article)
sums = lab.cache.hlen(write_back.OPEN) - 2  # its id and its size are no sums
print(f"500 views: {sums} sums in the hash, {lab.cache.xlen(write_back_stream.LOG)} entries")

# %% [markdown]
# An entry for every view, and no sum to read. In exchange you keep *what happened*: who, when, which
# page. If the events matter and not only their number, take the stream.
#
# ## So, when?
#
# The article says that most teams should not use write-back unless they have decided to accept losses.
# We would put it so: **write down the number that you accept**, in writes and not in seconds. From it
# follow the batch size and the interval. For views, a hundred is nothing. For orders the number is 0, and
# then this is the wrong pattern: write to the database, and cache the reading.

# %% [markdown]
# ## Recap
#
# - Write-back saves commits always, rows only where keys repeat; readers have to add what waits.
# - Seal a batch in one step. Give it an id that never comes again, and keep that id in the transaction
#   that counts the batch.
# - A crash takes `wF/2` acknowledged writes on average, `wF` at worst; `(B - 1)/2` and `B - 1` with a
#   bound on size. Bound both.
# - AOF `always` survived every kill; `everysec` is a write-back of its own, of one second. A `kill -9`
#   is no power cut.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/07_write_back.ipynb`.
