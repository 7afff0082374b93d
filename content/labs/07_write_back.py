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
# # Write a buffer that counts each view once
#
# **About 45 minutes.** Four functions around one buffer. The notebook `07_write_back` has shown where
# each of them can go wrong.
#
# Views are counted in the hash `views:v1:open`: its fields are the ids of articles, its values how
# many views wait. `cache` is a redis-py client, `db` the shop's database; the checks bring their own,
# fresh each time. `cachelab.hint("07_write_back.flush")` helps.

# %%
import uuid

import redis
import sqlalchemy as sa

import cachelab

lab = cachelab.start()
ADD = "UPDATE articles SET views = views + :more WHERE id = :id"


def count_view(cache, article_id):
    cache.hincrby("views:v1:open", article_id, 1)


# %% [markdown]
# ## 1. Buffer and flush
#
# `count_view` above is what each visitor of the magazine runs. Write the other half: a worker calls
# `flush` every few seconds, one call at a time, and visitors go on counting meanwhile. If a flush finds
# nothing, there is nothing to do. That the worker may die is left to exercise 3.


# %% exercise="07_write_back.flush" minutes=10
def flush(cache, db):
    """Add the views that wait to the table `articles`, and take them out of the buffer.

    One transaction for all articles, and one UPDATE an article, however many views it had. A view
    that comes during a flush is counted by this one or by the next. Returns nothing.
    """
    ### BEGIN SOLUTION
    try:
        cache.rename("views:v1:open", "views:v1:sealed")
    except redis.ResponseError:  # no such key: nothing waits
        return
    rows = [
        {"id": int(article), "more": int(views)}
        for article, views in cache.hgetall("views:v1:sealed").items()
    ]
    with db.engine.begin() as connection:
        connection.execute(sa.text(ADD), rows)
    cache.delete("views:v1:sealed")
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# While you write to the database, visitors go on counting. Which hash do they count in, and which
# one do you read?

# %% [markdown] tags=["hint"]
# First `cache.rename` the open hash to a name of its own: one step, and nobody counts there any
# more. Renaming a key that does not exist raises redis.ResponseError.

# %% [markdown] tags=["hint"]
# Rename; `cache.hgetall`; one `with db.engine.begin() as connection:` with
# `connection.execute(sa.text(ADD), [{"id": ..., "more": ...}])`; then delete what was renamed.

# %%
cachelab.check("07_write_back.flush", flush)

# %% [markdown] tags=["solution"]
# `RENAME` is one step: after it, new views open a new hash, and nobody adds to the sealed one. To
# subtract afterwards what was flushed (`HINCRBY` with a negative number), or to read and delete in one
# `MULTI`, would do as well. To read, write and then delete would not: between the first and the last
# of these, views come that nobody has read.

# %% [markdown]
# ## 2. Read what waits
#
# An author looks at her article and wants all its views, those that wait included. A flusher is at
# work at the same time: it renames `views:v1:open` to `views:v1:sealed`, adds the sealed views to the
# table, commits, and deletes `views:v1:sealed`. You cannot stop it. While it is at work you may meet the
# same views in two of the places, and show them twice: for a moment, nobody minds. But the number must
# never be *lower* than what has been acknowledged.


# %% exercise="07_write_back.read" minutes=8
def views(cache, db, article_id):
    """An article's views as an int: in the database, and waiting in open and sealed.

    article_id: int, an existing article; `db.article(article_id)["views"]` is what the table has.
    Changes nothing, and asks the database once.
    """
    ### BEGIN SOLUTION
    waiting = 0
    for key in ("views:v1:open", "views:v1:sealed"):
        waiting += int(cache.hget(key, article_id) or 0)
    return db.article(article_id)["views"] + waiting
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# A view is in one of three places, and moves. In which direction?

# %% [markdown] tags=["hint"]
# `cache.hget(key, article_id)` gives a text, or None if no view waits there.

# %% [markdown] tags=["hint"]
# Ask open first, then sealed, and the database last; add up, with `int(... or 0)`.

# %%
cachelab.check("07_write_back.read", views)

# %% [markdown] tags=["solution"]
# A view moves from open to sealed to the table. Whoever looks in the same direction may meet it again
# but cannot miss it; whoever looks the other way can pass it on the road. The pattern in the notebook
# does not count it twice either, because it knows which batches are in the table.

# %% [markdown]
# ## 3. Replay without doubling
#
# Now the worker may be killed at any step, and a new one calls `flush_once` again. Nothing that was
# counted may be lost, and nothing may count twice. For that the database has a table
# `flushed(batch TEXT PRIMARY KEY)`, in which you keep the id of each batch *in the transaction* that
# adds its views. Still one worker at a time. And a cache that dies comes back empty: do not take its
# next batch for an old one.


# %% exercise="07_write_back.replay" minutes=15
def flush_once(cache, db):
    """Add the views that wait to `articles`, each once, also if an earlier call died half-way.

    A call that finds a batch of a dead worker may leave newer views to the next call. Returns
    nothing.
    """
    ### BEGIN SOLUTION
    if not cache.exists("views:v1:sealed"):
        if not cache.exists("views:v1:open"):
            return
        cache.hset("views:v1:open", "batch", uuid.uuid4().hex)
        cache.rename("views:v1:open", "views:v1:sealed")
    sealed = cache.hgetall("views:v1:sealed")
    batch = {"batch": sealed.pop("batch")}
    rows = [{"id": int(article), "more": int(views)} for article, views in sealed.items()]
    with db.engine.begin() as connection:
        known = sa.text("SELECT 1 FROM flushed WHERE batch = :batch")
        if connection.execute(known, batch).first() is None:
            connection.execute(sa.text("INSERT INTO flushed VALUES (:batch)"), batch)
            connection.execute(sa.text(ADD), rows)
    cache.delete("views:v1:sealed")
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# After which step can you no longer tell whether the batch was counted? Let the database remember
# it, in the same transaction.

# %% [markdown] tags=["hint"]
# Give the hash a field such as `batch` with `uuid.uuid4().hex` before you rename it, so that
# whoever finds it later finds the same id. And a sealed hash that is there already goes first.

# %% [markdown] tags=["hint"]
# In one `db.engine.begin()`: SELECT the batch from `flushed`; if it is not there, INSERT it and run
# ADD. Delete the sealed hash in any case, after the commit.

# %%
cachelab.check("07_write_back.replay", flush_once)

# %% [markdown] tags=["solution"]
# The batch gets its id *before* it is renamed, so that whoever finds it sealed finds the id too. Id and
# views are one transaction: either both are in the database or neither. A number from `INCR` would
# start again at 1 when the cache has died, and the database would say of a new batch: seen that. A
# checksum of the views would say so of any two batches that are alike.

# %% [markdown]
# ## 4. Bound the loss
#
# What waits is what a crash takes. So flush **when 100 views wait, or when the oldest has waited 5
# seconds**, whichever comes first, and not sooner. Many processes call this function at once, for each
# view; and a timer calls it once a second with `article_id=None`, which is no view. What you want to
# know about the batch, keep in the hash `views:v1:notes`: a flush deletes it together with the batch.


# %% exercise="07_write_back.bound" minutes=12
def bounded_view(cache, article_id, now, flush):
    """Count a view in `views:v1:open`; call `flush()` if 100 wait or the oldest is 5 s old.

    article_id: int, or None when the timer calls. now: the time in seconds. `flush()` empties
    `views:v1:open` into the database and deletes `views:v1:notes`. Returns nothing.
    """
    ### BEGIN SOLUTION
    with cache.pipeline() as pipe:
        if article_id is not None:
            pipe.hincrby("views:v1:open", article_id, 1)
            pipe.hincrby("views:v1:notes", "waiting", 1)
            pipe.hsetnx("views:v1:notes", "since", now)
        pipe.hmget("views:v1:notes", ["waiting", "since"])
        waiting, since = pipe.execute()[-1]
    if waiting is not None and (int(waiting) >= 100 or now - float(since) >= 5):
        flush()
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What must the last process know about the views of all the others? It cannot be in a Python
# variable.

# %% [markdown] tags=["hint"]
# In the notes: how many views wait (`hincrby`), and when the first of them came (`hsetnx` leaves
# what is there).

# %% [markdown] tags=["hint"]
# One `cache.pipeline()`: unless article_id is None, `hincrby` the article, `hincrby` the notes,
# `hsetnx` the time; then `hmget` both notes. After `execute()`, decide.

# %%
cachelab.check("07_write_back.bound", bounded_view)

# %% [markdown] tags=["solution"]
# `HSETNX` notes the *first* view of the batch: with `HSET` every view would start the five seconds
# anew, and at one view a second the batch would only be flushed when it is full. The size is counted in
# views; `HLEN` counts articles. And all of it is one `MULTI`: were the view counted first and noted
# later, a flush between the two would take the view and leave the note, or worse, the other way round.

# %% [markdown]
# ## On the real cache
#
# Now on the live server of this notebook: count three views, flush, look, kill the server with
# `lab.kill_cache()`, start it again with `lab.restart_cache()`. What do you expect to be left?

# %%
lab.clear()
with lab.db.engine.begin() as connection:
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS flushed (batch TEXT PRIMARY KEY)"))
# Call your functions here, for instance: count_view(lab.cache, 1)
print(lab.trace)

# %% [markdown] tags=["solution"]
# Three views are flushed and stay. Two more die with the server, although both were acknowledged.

# %% tags=["solution"]
began = lab.db.article(1)["views"]
for waits in (3, 2):
    for _ in range(waits):
        count_view(lab.cache, 1)
    print("seen:", views(lab.cache, lab.db, 1) - began)
    if waits == 3:
        flush_once(lab.cache, lab.db)
lab.kill_cache()
lab.restart_cache()
print("after the crash:", views(lab.cache, lab.db, 1) - began)

# %% [markdown]
# ## Recap
#
# - Seal a batch in one step, then take your time with it.
# - Read in the direction in which the data moves.
# - An id, kept in the transaction that does the work, makes doing it again harmless.
# - A bound on size *and* on age, seen by every process, is a bound on what a crash takes.
#
# **Next:** `notebooks/08_read_through.ipynb`.
