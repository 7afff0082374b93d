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
# # Leave no old name behind
#
# **About 55 minutes.** Four functions and a plan. Alice is renamed in each of them, and the check goes
# looking for her old name. The notebook `09_invalidation` has what you need;
# `cachelab.hint("09_invalidation.keys")` helps.

# %%
import json

import redis
import sqlalchemy as sa

import cachelab

lab = cachelab.start()

# %% [markdown]
# ## 1. Say it, after the commit
#
# Two keys hold a user: `user:v1:<id>` and `user:public:v1:<id>`. Change the row, then delete both. If
# the cache cannot be reached by then, the update *has* happened: do not report a failure to the user,
# but do let the caller know that two copies are old.


# %% exercise="09_invalidation.explicit" minutes=6
def rename(cache, db, user_id, name):
    """Give a user a new name in the database, and delete the two copies after the commit.

    user_id: int, an existing user. name: str. Returns True if the copies are gone, or there were
    none; False if the cache could not be told. An error of the database is raised to the caller.
    """
    ### BEGIN SOLUTION
    db.update_user(user_id, name=name)
    try:
        cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")
    except redis.RedisError:
        return False
    return True
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Three steps in this order: change the row, delete two keys, say how it went.

# %% [markdown] tags=["hint"]
# `db.update_user(user_id, name=name)` commits. What may fail without an error is only the delete:
# put a try around that alone.

# %% [markdown] tags=["hint"]
# After the update: `try: cache.delete(two keys)`, `except redis.RedisError: return False`; and at
# the end `return True`.

# %%
cachelab.check("09_invalidation.explicit", rename)

# %% [markdown] tags=["solution"]
# The `try` holds the delete and nothing else: an error of the database means that nothing was changed,
# and has to be seen. Who gets False can put the keys on a list and try again; the TTL ends it anyway.

# %% [markdown]
# ## 2. Every key that holds the name
#
# Five kinds of copies, all of them filled by now:
#
# | key | what it holds |
# |---|---|
# | `user:v1:<user id>` | the user's row |
# | `user:public:v1:<user id>` | name and bio |
# | `article:v1:<article id>` | the article and the name of its author |
# | `comments:v1:<article id>` | the comments, each with the name of who wrote it |
# | `feed:v1:<user id>` | all comments on the articles of which this user is the author, with names |
#
# In the database, `articles` has `id` and `author_id`; `comments` has `article_id` and `user_id`.
# `db.session()` and `db.engine` are SQLAlchemy's.


# %% exercise="09_invalidation.keys" minutes=14
def keys_of(db, user_id):
    """Every key that holds the name of a user, and none that does not.

    user_id: int, an existing user. Returns a list of texts, in any order. It only reads, and asks
    the database anew each time: comments come and go.
    """
    ### BEGIN SOLUTION
    threads = sa.text("SELECT DISTINCT article_id FROM comments WHERE user_id = :user")
    feeds = sa.text(
        "SELECT DISTINCT author_id FROM articles JOIN comments ON article_id = articles.id"
        " WHERE user_id = :user"
    )
    bylines = sa.text("SELECT id FROM articles WHERE author_id = :user")
    keys = [f"user:v1:{user_id}", f"user:public:v1:{user_id}"]
    with db.engine.connect() as connection:
        for kind, asked in (("comments", threads), ("feed", feeds), ("article", bylines)):
            found = connection.execute(asked, {"user": user_id}).scalars()
            keys += [f"{kind}:v1:{number}" for number in found]
    return keys
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two keys carry the user's own id. For the other three kinds ask the database: where has this user
# commented, whose articles are those, and what has the user written?

# %% [markdown] tags=["hint"]
# `SELECT DISTINCT article_id FROM comments WHERE user_id = :user` gives the threads. The feeds
# belong to the authors of those articles.

# %% [markdown] tags=["hint"]
# Feeds: `SELECT DISTINCT author_id FROM articles JOIN comments ON article_id = articles.id WHERE
# user_id = :user`. Bylines: `SELECT id FROM articles WHERE author_id = :user`, under
# `article:v1:<id>`.

# %%
cachelab.check("09_invalidation.keys", keys_of)

# %% [markdown] tags=["solution"]
# Three queries for five kinds of pages, and the next kind needs a fourth. The feed is the one that
# most people miss: it is under *another* user's key.

# %% [markdown]
# ## 3. Without a list
#
# `forget` is given: it moves the clock on by one and leaves the new time under each tag. Write the
# reader. Here the tags are known before the query, so one `MGET` can fetch all that a hit needs.

# %%
FORGET = """
local now = redis.call('INCR', KEYS[1])
for i = 2, #KEYS do redis.call('SET', KEYS[i], now) end
return now
"""


def forget(cache, *names):
    """Void every copy that has one of these tags."""
    cache.eval(FORGET, 1 + len(names), "tags:clock", *(f"tag:{name}" for name in names))


# %% [markdown]
# Under `tags:clock` and `tag:<name>` are whole numbers; nothing there means 0. A copy is void when one
# of its tags has a later time than the clock had *before the copy's query*.


# %% exercise="09_invalidation.tagged" minutes=12
def read_tagged(cache, key, names, load):
    """The value of `key`: a copy, unless one of its tags was forgotten since, or `load()`.

    names: list of tags, possibly empty. load: function without parameters; it returns any value
    that JSON knows. A copy is kept for 300 s from its load, however often it is read. Several
    processes call this at once.
    """
    ### BEGIN SOLUTION
    stored, now, *marks = cache.mget(key, "tags:clock", *(f"tag:{name}" for name in names))
    if stored is not None:
        copy = json.loads(stored)
        if all(int(mark or 0) <= copy["at"] for mark in marks):
            return copy["value"]
    value = load()
    cache.set(key, json.dumps({"at": int(now or 0), "value": value}), ex=300)
    return value
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# A copy has to carry two things: the value, and the clock's time before its query.

# %% [markdown] tags=["hint"]
# `stored, now, *marks = cache.mget(key, 'tags:clock', *tag keys)`. A copy counts if no mark is
# greater than its time; a mark that is None is 0.

# %% [markdown] tags=["hint"]
# Store `json.dumps({'at': int(now or 0), 'value': value})` with ex=300, where `now` is from the
# MGET before `load()`. Compare with `int(mark or 0) <= copy['at']`.

# %%
cachelab.check("09_invalidation.tagged", read_tagged)

# %% [markdown] tags=["solution"]
# Everything hangs on *when* the clock is read. After the query, it may already count a change that the
# query has not seen, and the copy would claim to be younger than it is.

# %% [markdown]
# ## 4. Catch up
#
# Whoever renames a user appends an event to the stream `users:log`: `{"user": "7"}`. The consumers of
# the group `invalidation` delete `user:v1:7`. The group is there already. A consumer may die at any
# step, and one of its colleagues has to finish its work.
#
# | command | what it does |
# |---|---|
# | `cache.xreadgroup(GROUP, name, {LOG: ">"}, count=100)` | new events, given to `name` |
# | `cache.xautoclaim(LOG, GROUP, name, ms, count=100)` | what anybody left for `ms` milliseconds, given to `name`; in `[1]` the list of (id, fields) |
# | `cache.xack(LOG, GROUP, id)` | this event is done |

# %%
LOG, GROUP = "users:log", "invalidation"


def entries(reply):
    """The list of (id, fields) in an answer of XREADGROUP."""
    return dict(reply).get(LOG, [])


# %% exercise="09_invalidation.consume" minutes=12
def consume(cache, name):
    """One pass of the consumer `name`: handle what was left for 60 s or longer, and what is new.

    An event is handled when its key `user:v1:<user>` is deleted, and acknowledged after that. What
    another consumer took less than 60 s ago is left to it. Returns how many were handled.
    """
    ### BEGIN SOLUTION
    left = cache.xautoclaim(LOG, GROUP, name, 60_000, count=100)[1]
    new = entries(cache.xreadgroup(GROUP, name, {LOG: ">"}, count=100))
    for entry, event in [*left, *new]:
        cache.delete(f"user:v1:{event['user']}")
        cache.xack(LOG, GROUP, entry)
    return len(left) + len(new)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two sources, what was left and what is new, and one loop over both.

# %% [markdown] tags=["hint"]
# `cache.xautoclaim(LOG, GROUP, name, 60_000, count=100)[1]` and `entries(cache.xreadgroup(...))`
# are both lists of (id, fields).

# %% [markdown] tags=["hint"]
# For each: `cache.delete(f"user:v1:{event['user']}")`, and only then `cache.xack(LOG, GROUP,
# entry)`. Return how many there were.

# %%
cachelab.check("09_invalidation.consume", consume)

# %% [markdown] tags=["solution"]
# First the delete, then the acknowledgement: a death between the two deletes once more, which does no
# harm. The other way round it would delete never.

# %% [markdown]
# ## 5. From v1 to v2
#
# A release reads one version of the key and, on a rename, deletes one or both. Today it is
# `("v1", {"v1"})`; in the end it shall be `("v2", {"v2"})`. In a rolling deploy each release runs at
# the same time as the one after it: any pod may handle the rename, and any pod may serve the next page.
# Plan the releases so that nobody ever sees an old name.


# %% exercise="09_invalidation.releases" minutes=8
def releases():
    """The releases from today's to the last, in order.

    Returns a list of (reads, deletes): reads is "v1" or "v2", deletes a set of these.
    """
    ### BEGIN SOLUTION
    return [
        ("v1", {"v1"}),
        ("v1", {"v1", "v2"}),
        ("v2", {"v1", "v2"}),
        ("v2", {"v2"}),
    ]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# While two releases run, each must delete what the other one reads.

# %% [markdown] tags=["hint"]
# Before the first pod reads v2, every pod that still runs must already delete it.

# %% [markdown] tags=["hint"]
# There are four releases. The second still reads v1; the third already reads v2; both delete both.

# %%
cachelab.check("09_invalidation.releases", releases)

# %% [markdown] tags=["solution"]
# Whatever a release reads, its neighbours on both sides must delete. So the deletes widen one release
# before the reads move, and narrow one release after.

# %% [markdown]
# ## On the real server
#
# Fill the pages of Alice's threads on the live server of this notebook, rename her, and count how many
# keys your `keys_of` names.

# %%
lab.clear()
# For instance: keys = keys_of(lab.db, 1), and then what each kind of them needs.
print(lab.trace)

# %% [markdown] tags=["solution"]
# In the large shop she is in nearly half of the threads.

# %% tags=["solution"]
lab.clear()
keys = keys_of(lab.db, 1)
print(len(keys), "keys;", sum(key.startswith("comments") for key in keys), "of 200 threads")
print(rename(lab.cache, lab.db, 1, "Alicia"))

# %% [markdown]
# ## Recap
#
# - Commit, then delete; a dead cache does not undo a commit.
# - A map of keys is a set of queries, and the key that is missing belongs to somebody else.
# - With tags nobody has a list. The time of a copy is the time before its query.
# - Handle, then acknowledge; claim what the dead have left.
# - Before anybody reads a new key, everybody deletes it.
#
# **Next:** `notebooks/10_stampede.ipynb`.
