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
# # Find the order that breaks it, then leave none
#
# **About 50 minutes.** Two puzzles and three functions. In the puzzles you are the one who chooses who
# goes next; in the functions everybody else is. The notebook `11_stale_data` has what you need.
#
# The checks run on the stage: in the puzzles the order you give, in the functions every order there
# is. `cachelab.hint("11_stale_data.twice")` helps.

# %%
import json

import redis

import cachelab

lab = cachelab.start()
KEY = "user:v1:1"

# %% [markdown]
# ## 1. Deleted twice, and still there
#
# A colleague knows that a single delete can lose the race against a fill, and deletes twice: before
# the update and after it. At the start a copy of Alice's row *is* in the cache.


# %%
def reader(cache, db):
    stored = cache.get(KEY)
    if stored is not None:
        return json.loads(stored)
    user = db.user(1)
    cache.set(KEY, json.dumps(user), ex=300)
    return user


def writer(cache, db):
    cache.delete(KEY)
    db.update_user(1, email="new@example.org")
    cache.delete(KEY)


# %% [markdown]
# The steps are `"reader GET"`, `"reader SELECT"`, `"reader SET"`, `"writer DEL"`, `"writer UPDATE"`
# (with its commit), and `"writer DEL"` again. A `GET` that hits is the reader's last step. Of the
# eleven orders that are possible, one leaves the old address in the cache. Which?


# %% exercise="11_stale_data.twice" minutes=8
def order_against_two_deletes():
    """An order of the steps of reader and writer that leaves the old address in the cache.

    Returns a list of texts such as "reader GET", every step that is taken, in order.
    """
    ### BEGIN SOLUTION
    return [
        "writer DEL",
        "reader GET",
        "reader SELECT",
        "writer UPDATE",
        "writer DEL",
        "reader SET",
    ]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The reader must miss first. Which of the writer's steps sees to that?

# %% [markdown] tags=["hint"]
# The SELECT has to come before the UPDATE, so that it finds the old row. And the SET?

# %% [markdown] tags=["hint"]
# First the writer's DEL, then the reader's GET and SELECT, then all that the writer has left; the
# SET comes last.

# %%
cachelab.check("11_stale_data.twice", order_against_two_deletes)

# %% [markdown] tags=["solution"]
# The first delete does no good: it is what makes the reader miss. What counts is that the `SELECT`
# comes before the update and the `SET` after the last delete, and no number of deletes changes that.
# "Delete again a second later" makes the window smaller, for readers that are faster than a second.

# %% [markdown]
# ## 2. A lease that is only a flag
#
# The next colleague has read about leases, and leaves out the token: the lease is the text `"1"`, for
# everybody. The fill is one script: if there is a lease, delete it and store.

# %%
FILL = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1], 'EX', 300)
return 1
"""


def flagging_reader(cache, db):
    stored = cache.get(KEY)
    if stored is not None:
        return json.loads(stored)
    leased = cache.set(f"lease:{KEY}", "1", nx=True, ex=10)
    user = db.user(1)
    if leased:
        cache.eval(FILL, 2, KEY, f"lease:{KEY}", json.dumps(user))
    return user


def flag_deleting_writer(cache, db):
    db.update_user(1, email="new@example.org")
    cache.delete(KEY, f"lease:{KEY}")


# %% [markdown] given=[1800, 24]
# Three actors: `first` and `second` are readers of this kind, and there is one `writer`. The cache is
# empty at the start. A reader's steps are `GET`, `SET` (the lease), `SELECT`, and, if it got the lease,
# `EVAL` (the fill); the writer's are `UPDATE` and `DEL`. Of 1,800 orders 24 leave the old address in
# the cache. Find one.


# %% exercise="11_stale_data.flag" minutes=12
def order_against_the_flag():
    """An order of the steps of first, second and writer that leaves the old address in the cache.

    Returns a list of texts such as "first GET", every step that is taken, in order.
    """
    ### BEGIN SOLUTION
    return [
        "first GET",
        "first SET",
        "first SELECT",
        "writer UPDATE",
        "writer DEL",
        "second GET",
        "second SET",
        "first EVAL",
        "second SELECT",
        "second EVAL",
    ]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# The writer voids the first reader's lease. What makes it look valid again?

# %% [markdown] tags=["hint"]
# When `first` has its old row and the writer is through, `second` misses and takes the lease. Now
# let `first` fill.

# %% [markdown] tags=["hint"]
# first GET, first SET, first SELECT, writer UPDATE, writer DEL, second GET, second SET, first EVAL;
# then the rest of `second`.

# %%
cachelab.check("11_stale_data.flag", order_against_the_flag)

# %% [markdown] tags=["solution"]
# The delete voids the first reader's lease, as it should. Then the second reader takes a lease that
# looks exactly like it, and the first one fills with the old row under the second one's right. That
# also spends the lease, so that the second, with the new row, is refused.

# %% [markdown]
# ## 3. Newer wins
#
# `row` is a dict with an int under `"version"`. Store it as JSON under `key` for 300 seconds, unless
# what is there has the same version or a newer one. Several processes call this at once.
#
# `cache.eval(script, 1, key, text, number)` runs Lua on the server, in one step: there the key is
# `KEYS[1]`, the others are `ARGV[1]` and `ARGV[2]` (texts, so `tonumber(...)`),
# `redis.call('GET', ...)` is a command, `cjson.decode(text)` gives a table. Redis's `WATCH`, a
# transaction that fails if somebody has changed the key, is another way.


# %% exercise="11_stale_data.versioned" minutes=10
def put_if_newer(cache, key, row):
    """Store `row` as JSON under `key` for 300 s, if it is newer than what is there.

    row: dict with an int under "version". Returns True if it was stored, False if not.
    """
    ### BEGIN SOLUTION
    script = """
    local kept = redis.call('GET', KEYS[1])
    if kept and cjson.decode(kept).version >= tonumber(ARGV[2]) then return 0 end
    redis.call('SET', KEYS[1], ARGV[1], 'EX', 300)
    return 1
    """
    return bool(cache.eval(script, 1, key, json.dumps(row), row["version"]))
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Compare and store in one step, or another process comes in between. A Lua script is one step.

# %% [markdown] tags=["hint"]
# In the script: GET the key; if there is something and its version is not below
# `tonumber(ARGV[2])`, return 0; else SET with EX 300 and return 1.

# %% [markdown] tags=["hint"]
# `if kept and cjson.decode(kept).version >= tonumber(ARGV[2]) then return 0 end`; call it with
# `cache.eval(script, 1, key, json.dumps(row), row["version"])`.

# %%
cachelab.check("11_stale_data.versioned", put_if_newer)

# %% [markdown] tags=["solution"]
# A `GET` and a `SET` from Python are two steps, and the other writer fits between them: both see the
# old version, both store, and the last one wins, whichever version it has. And versions are compared as
# numbers: as texts, "9" is greater than "10".

# %% [markdown]
# ## 4. A lease with a token
#
# Cache-aside for `user:v1:<id>`, 300 seconds, with a lease under `lease:user:v1:<id>`. `token` is a
# text that no other reader has. Writers delete both keys in one command after their commit. Who gets no
# lease answers from the database and does not fill.


# %% exercise="11_stale_data.lease" minutes=12
def read_with_lease(cache, db, user_id, token):
    """A user's row; a miss fills the cache only while the lease is still this reader's.

    user_id: int, an existing user. token: str. Returns a dict, equal to what `db.user` gives.
    The lease is taken before the query, lasts 10 s at most, and is given back with the fill.
    """
    ### BEGIN SOLUTION
    key, lease = f"user:v1:{user_id}", f"lease:user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    leased = cache.set(lease, token, nx=True, ex=10)
    user = db.user(user_id)
    fill = """
    if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
    redis.call('DEL', KEYS[2])
    redis.call('SET', KEYS[1], ARGV[1], 'EX', 300)
    return 1
    """
    if leased:
        cache.eval(fill, 2, key, lease, json.dumps(user), token)
    return user
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Four steps on a miss: GET, take the lease, query, fill. Which of them must know the token?

# %% [markdown] tags=["hint"]
# Take it with `cache.set(lease, token, nx=True, ex=10)`. The fill is a script: only if the lease
# still holds this token, delete it and SET the row.

# %% [markdown] tags=["hint"]
# `if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end`, then DEL KEYS[2], then SET KEYS[1]
# with EX 300; and return the row in every case.

# %%
cachelab.check("11_stale_data.lease", read_with_lease)

# %% [markdown] tags=["solution"]
# The order is the whole point: the lease *before* the query, so that every write after the query has
# begun voids it; the look at the lease and the `SET` in one step, so that nothing comes between. A
# reader that dies with its lease blocks the others from filling for ten seconds, and nobody from
# reading.

# %% [markdown]
# ## 5. The demoted admin
#
# Two staleness budgets in one function. What begins with `orders:` moves money: budget 0. Everything
# else may be ten seconds late. Whoever revokes a permission deletes `permissions:v1:<id>`, and most of
# the time that arrives. `db.permissions(user_id)` is a list of texts, empty for most users. When the
# cache is dead, ask the database. When that fails too, nobody is let through.


# %% exercise="11_stale_data.permission" minutes=8
def may(cache, db, user_id, permission):
    """Whether a user has a permission: True or False.

    "orders:..." is never answered from a copy. Anything else may be, from a copy of the user's
    whole list under `permissions:v1:<id>`, as JSON, which is never older than 10 s.
    A dead cache costs a query. An error of the database is raised to the caller.
    """
    ### BEGIN SOLUTION
    if permission.startswith("orders:"):
        return permission in db.permissions(user_id)
    key = f"permissions:v1:{user_id}"
    try:
        stored = cache.get(key)
    except redis.RedisError:
        stored = None
    if stored is not None:
        return permission in json.loads(stored)
    allowed = db.permissions(user_id)
    try:
        cache.set(key, json.dumps(allowed), ex=10)
    except redis.RedisError:
        pass
    return permission in allowed
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Begin with the permissions that are never answered from a copy.

# %% [markdown] tags=["hint"]
# For the others it is cache-aside on the whole list, with `ex=10`, and an empty list is a value.
# Both cache commands may fail.

# %% [markdown] tags=["hint"]
# `if permission.startswith("orders:"): return permission in db.permissions(user_id)`; for the rest
# GET and SET each in a small try of its own.

# %%
cachelab.check("11_stale_data.permission", may)

# %% [markdown] tags=["solution"]
# The delete makes a revocation count at once; the ten seconds are for the day on which the delete is
# lost, or loses the race against a fill. No lease is needed for that: the budget allows it. For the
# money there is no copy at all, and no reason to be sorry: the query is a read by primary key.

# %% [markdown]
# ## On the real server
#
# Now on the live server of this notebook: somebody else changes Alice's row, and an old version of it
# comes late. What is in the cache at the end?

# %%
lab.clear()
# For instance: put_if_newer(lab.cache, KEY, lab.db.user(1)), then the same with an older version.
print(lab.trace)

# %% [markdown] tags=["solution"]
# The newer version stays, whoever comes last.

# %% tags=["solution"]
lab.clear()
old = lab.db.user(1)
lab.someone_else.update_user(1, email="alice@new-job.example")
print(put_if_newer(lab.cache, KEY, lab.db.user(1)), put_if_newer(lab.cache, KEY, old))
print(lab.trace)

# %% [markdown]
# ## Recap
#
# - A fill that began before the write can end after the last delete, however many there are.
# - Whatever decides who may store, a version or a token, has to be looked at in the step that stores.
# - A lease must be this reader's own, or it is nobody's.
# - The budget decides: nothing to spare, no copy; ten seconds to spare, ten seconds of TTL.
#
# **Next:** `notebooks/12_over_caching.ipynb`.
