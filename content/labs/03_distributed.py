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
# # Let twenty pods work on one cache
#
# **About 50 minutes.** Four functions that every pod of the shop uses. What one pod knows by itself, no
# other one knows: whatever counts goes through the cache. The notebook `03_distributed` has what you
# need.
#
# The checks bring their own cache and database, and several pods. `cachelab.hint("03_distributed.key")`
# helps.

# %%
import hashlib
import json
import secrets
from urllib.parse import quote

import sqlalchemy as sa

import cachelab
from cachelab.origin import Product

lab = cachelab.start()

# %% [markdown]
# ## 1. One session store for all pods
#
# When a pod starts it calls `session_store` with its client and gets three functions to work with.
#
# - `log_in(user_id, old_id=None)` starts a session under `session:v1:<id>` and returns the id: a text
#   of at least 16 characters that nobody can guess. `old_id` is what the browser came with, if it came
#   with anything. It is never used again, and if it was a session, that one ends.
# - `who_is(session_id)` gives the user's id, an int, or `None`. A session ends 1,800 seconds after the
#   last time that it was asked for.
# - `log_out(session_id)` ends a session for all pods. That it is over already is no error.


# %% exercise="03_distributed.session_store" minutes=15
def session_store(cache):
    """The session store of one pod: the functions log_in, who_is and log_out, as a tuple.

    cache: the pod's own client of the cache that all pods share. A pod that reads a session while
    another pod ends it must not bring it back.
    """
    ### BEGIN SOLUTION

    def log_in(user_id, old_id=None):
        if old_id is not None:
            cache.delete(f"session:v1:{old_id}")
        session_id = secrets.token_urlsafe(24)
        cache.set(f"session:v1:{session_id}", json.dumps({"user_id": user_id}), ex=1800)
        return session_id

    def who_is(session_id):
        stored = cache.getex(f"session:v1:{session_id}", ex=1800)
        return None if stored is None else json.loads(stored)["user_id"]

    def log_out(session_id):
        cache.delete(f"session:v1:{session_id}")

    return log_in, who_is, log_out
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Nothing may be remembered in the pod. Each of the three functions is one or two commands to the
# cache, under `session:v1:<id>`.

# %% [markdown] tags=["hint"]
# `secrets.token_urlsafe(24)` draws an id. `cache.getex(key, ex=1800)` reads and prolongs in one
# command; a GET and a SET would bring back what is deleted between them.

# %% [markdown] tags=["hint"]
# log_in: if old_id is given, `cache.delete` its key; then draw an id, `cache.set(key,
# json.dumps({"user_id": user_id}), ex=1800)`, return the id. log_out: `cache.delete`.

# %%
cachelab.check("03_distributed.session_store", session_store)

# %% [markdown] tags=["solution"]
# `GETEX` reads and prolongs in one command. With a `GET` and a `SET`, a logout may fall between the two,
# and the `SET` brings the session back; a `GET` and an `EXPIRE` are safe, for one trip more, as nothing
# can be prolonged that is not there. And the id is always the server's own: a browser that could choose
# it could choose one that somebody else knows.

# %% [markdown]
# ## 2. Keys that nobody can forge
#
# The shop caches what people search for, so the last part of a key may be anything that they type. Make
# `entity:version:id` from three parts, such that
#
# - a plain id (letters, digits, `-`, `_` and `.`, up to 100 characters) stands there as it is;
# - every key has exactly two colons, only visible ASCII characters, no blanks, and at most 200
#   characters;
# - two different ids never share a key, and every pod makes the same key.
#
# `entity` and `version` are plain. `urllib.parse.quote` and `hashlib.sha256` are there.


# %% exercise="03_distributed.key" minutes=10
def make_key(entity, version, item):
    """The key `entity:version:id` for a cached value.

    entity, version: plain texts, such as "user" and "v1". item: the id, an int or any text at all.
    Returns a text of at most 200 characters.
    """
    ### BEGIN SOLUTION
    safe = quote(str(item), safe="")
    if len(safe) > 100:
        safe = "sha256=" + hashlib.sha256(str(item).encode()).hexdigest()
    return f"{entity}:{version}:{safe}"
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Which ids can go into a key as they are, and what could stand for the others?

# %% [markdown] tags=["hint"]
# `urllib.parse.quote(str(item), safe="")` leaves plain ids alone and turns the rest into signs such
# as %3A. It makes long ids longer: those need a digest.

# %% [markdown] tags=["hint"]
# If the quoted id is longer than 100 characters, take `"sha256=" +
# hashlib.sha256(str(item).encode()).hexdigest()`; the `=` never comes out of quote, so no plain id
# can look like it.

# %%
cachelab.check("03_distributed.key", make_key)

# %% [markdown] tags=["solution"]
# `quote` can be undone, so two ids cannot come out alike; replacing a colon by an underscore cannot.
# A digest could be typed in as an id, too; with an `=` in front, which `quote` never lets through, it is
# no longer the same key. And `hash()` is another number in each process.

# %% [markdown]
# ## 3. Two releases at once
#
# During a roll-out, pods of several releases run side by side. Each reads and fills its own version of
# the key, `user:<version>:<id>`, in its own shape. `versions` says which ones are in use, for instance
# `("v1", "v2")`. Rename a user, and leave no pod with the old name: also none that comes along *while*
# you are at it. `db.update_user(user_id, name=...)` changes the row and commits.


# %% exercise="03_distributed.rollout" minutes=7
def rename(cache, db, user_id, name, versions):
    """Change a user's name in the database and for the pods of every release.

    user_id: int. name: str. versions: tuple of texts, every version that a running pod reads.
    What belongs to others stays in the cache. Returns nothing.
    """
    ### BEGIN SOLUTION
    db.update_user(user_id, name=name)
    cache.delete(*[f"user:{version}:{user_id}" for version in versions])
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Every version that some running pod reads is a copy of the row. How many keys are there?

# %% [markdown] tags=["hint"]
# `[f"user:{version}:{user_id}" for version in versions]` are the keys; first the database, then the
# delete.

# %% [markdown] tags=["hint"]
# `db.update_user(user_id, name=name)`, then one `cache.delete(*keys)`.

# %%
cachelab.check("03_distributed.rollout", rename)

# %% [markdown] tags=["solution"]
# One `DEL` for all versions, after the commit. The list has to be in the *old* release already, one
# deployment before anybody reads the new version: the pods of the old release write too.

# %% [markdown]
# ## 4. One trip for many keys
#
# A list of products, each cached under `product:v1:<id>` for 300 seconds; an id that does not exist is
# `None`, kept for at most 30 seconds (and at least 1). `load` is the query for many ids at once:


# %%
def load_products(ids):
    """One query for all the ids: {id: product}. An id that does not exist is not in it."""
    asked = sa.select(Product.__table__).where(Product.id.in_(ids))
    with lab.db.engine.connect() as connection:
        return {row.id: dict(row._mapping) for row in connection.execute(asked)}


load_products([1, 999])

# %% [markdown]
# Needed are one trip to the cache if everything is there, two and one `load` if something is missing,
# and none at all for an empty list.


# %% exercise="03_distributed.read_many" minutes=15
def read_many(cache, load, ids):
    """Products in the order of `ids`: a list of dicts, None for an id that does not exist.

    ids: list of ints; one may come twice. load: called at most once, with the ids that are missing,
    each once; gives a dict from id to product.
    """
    ### BEGIN SOLUTION
    wanted = list(dict.fromkeys(ids))
    stored = cache.mget([f"product:v1:{one}" for one in wanted]) if wanted else []
    pairs = zip(wanted, stored, strict=True)
    found = {one: json.loads(text) for one, text in pairs if text is not None}
    missing = [one for one in wanted if one not in found]
    if missing:
        loaded = load(missing)
        with cache.pipeline() as pipe:
            for one in missing:
                found[one] = loaded.get(one)
                seconds = 30 if found[one] is None else 300
                pipe.set(f"product:v1:{one}", json.dumps(found[one]), ex=seconds)
            pipe.execute()
    return [found[one] for one in ids]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Three steps for the whole list, not for each id: one MGET, one load of what is missing, one
# pipeline that stores it. Each is left out when it has nothing to do.

# %% [markdown] tags=["hint"]
# `wanted = list(dict.fromkeys(ids))` are the ids, each once; `cache.mget(keys)` gives a list of
# texts and Nones in the order of the keys. `load(missing)` gives a dict; `.get(one)` is None for an
# id that does not exist.

# %% [markdown] tags=["hint"]
# `with cache.pipeline() as pipe:` then `pipe.set(key, json.dumps(value), ex=30 if value is None
# else 300)` for each missing id, then `pipe.execute()`. Return `[found[one] for one in ids]`.

# %%
cachelab.check("03_distributed.read_many", read_many)

# %% [markdown] tags=["solution"]
# `MSET` would store all of them in one command too, but knows no TTL. That is why the fill is a pipeline:
# many commands, one trip. `None` is stored as the text `null`, so that the next reader hits.

# %% [markdown]
# ## On the real cache
#
# On the live server of this notebook: log in on one client, ask on another, read a list twice. What do
# you expect in the trace?

# %%
lab.clear()
one_pod, another_pod = lab.client(), lab.client()
# Call your functions here, for instance: read_many(one_pod, load_products, [3, 1, 999])
print(lab.trace.summary())

# %% [markdown] tags=["solution"]
# The session is known on the other pod. The list costs one query, and then none.

# %% tags=["solution"]
lab.clear()
log_in, _, log_out = session_store(one_pod)
_, who_is, _ = session_store(another_pod)
session_id = log_in(1)
print("on the other pod, user", who_is(session_id))
log_out(session_id)
print("after the logout", who_is(session_id))
for pod in (one_pod, another_pod):
    print([product and product["name"] for product in read_many(pod, load_products, [3, 1, 999])])
print(lab.trace.summary())

# %% [markdown]
# ## Recap
#
# - What counts lives on the server, under a name that every pod makes in the same way.
# - One command where two could be torn apart; one trip where many would do the same.
# - While two releases run, there are two copies.
#
# **Next:** `notebooks/04_cdn_edge.ipynb`.
