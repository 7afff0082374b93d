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
# # Build a cache that owns its loaders
#
# **About 45 minutes.** Four functions: a register and its reader, a batch, a sign-up that is seen at
# once, and one place for a guard. The notebook `08_read_through` has what you need.
#
# Every function gets `cache`, a redis-py client. The checks bring their own, fresh each time, and
# loaders that count how often they are asked. `cachelab.hint("08_read_through.registry")` helps.

# %%
import json
from contextlib import suppress

import sqlalchemy as sa

import cachelab
from cachelab.origin import User
from cachelab.patterns import single_flight
from cachelab.patterns.read_through import Entity

lab = cachelab.start()

# %% [markdown]
# ## 1. A register, and a reader that knows nothing else
#
# The register is a dict: a name, and an `Entity` with all that is to be known about it. Its `load`
# takes a *list* of ids and gives a dict, by id, of those that exist.
#
# ```python
# register = {"user": Entity(load=..., ttl=300, absent_ttl=5, version=1), "product": ...}
# ```
#
# A copy is JSON under `<name>:v<version>:<id>`. What does not exist is `None`, and is kept too, for
# `absent_ttl` seconds. A stored text that is no JSON is a miss. An error of the loader is the caller's,
# and nothing is stored of it. A name that is not in the register is a `KeyError`.


# %% exercise="08_read_through.registry" minutes=12
def read(cache, register, name, id):
    """One thing, from the cache or from its entity's loader; None if there is no such thing.

    register: dict of name to Entity(load, ttl, absent_ttl, version), TTLs in seconds.
    A hit does not ask the loader. KeyError if the name is not in the register.
    """
    ### BEGIN SOLUTION
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    stored = cache.get(key)
    if stored is not None:
        try:
            return json.loads(stored)
        except ValueError:
            pass  # as good as nothing: load it anew, and store over it
    value = entity.load([id]).get(id)
    cache.set(key, json.dumps(value), ex=entity.absent_ttl if value is None else entity.ttl)
    return value
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Everything that differs between a user and a product is in `register[name]`: loader, both TTLs,
# version. Write no name and no number of your own.

# %% [markdown] tags=["hint"]
# Look first; if there is a text, try `json.loads(stored)`, and go on as after a miss if it raises
# ValueError. `entity.load([id])` takes a list and gives a dict.

# %% [markdown] tags=["hint"]
# `value = entity.load([id]).get(id)`, outside of any `try`; then `cache.set(key, json.dumps(value),
# ex=entity.absent_ttl if value is None else entity.ttl)`.

# %%
cachelab.check("08_read_through.registry", read)

# %% [markdown] tags=["solution"]
# Nothing about users or products is in this function. `register[name]` comes first: a name that is
# not known raises before anything is asked. The `try` holds the decoding alone, so that an error of
# the loader, which may be a `ValueError` too, is not taken for a broken copy.

# %% [markdown]
# ## 2. Many at once
#
# A page shows twenty products. With `read` in a loop that is sixty trips when the cache is cold. Do it
# in three: one to the cache for all, one load of those that are missing, one to the cache with all
# fills. The rules for keys, TTLs, absence, broken copies and errors are those of `read`.


# %% exercise="08_read_through.batch" minutes=13
def read_many(cache, register, name, ids):
    """A dict of id to value for every id in `ids`; None for what does not exist.

    ids: list, may be empty or name one twice. At most one round trip to look, one `load` with
    exactly the ids that the cache does not have, each once, and one round trip to store what came.
    """
    ### BEGIN SOLUTION
    entity, found = register[name], {}
    keys = {id: f"{name}:v{entity.version}:{id}" for id in ids}
    for id, stored in zip(keys, cache.mget(list(keys.values())) if keys else [], strict=True):
        with suppress(TypeError, ValueError):  # None is a miss, and so is what is no JSON
            found[id] = json.loads(stored)
    missing = [id for id in keys if id not in found]
    if missing:
        rows = entity.load(missing)
        with cache.pipeline() as pipe:
            for id in missing:
                value = found[id] = rows.get(id)
                kept = entity.absent_ttl if value is None else entity.ttl
                pipe.set(keys[id], json.dumps(value), ex=kept)
            pipe.execute()
    return {id: found[id] for id in keys}
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Three steps, each for all: look, load what is missing, store. What is missing is whatever the
# first step did not put into your dict.

# %% [markdown] tags=["hint"]
# `cache.mget(keys)` gives texts and None in the order of the keys (and raises for no keys at all).
# The loader leaves out what does not exist: `rows.get(id)`.

# %% [markdown] tags=["hint"]
# Queue one `pipe.set(key, json.dumps(value), ex=...)` for each missing id on `pipe =
# cache.pipeline()`, then `pipe.execute()` once.

# %%
cachelab.check("08_read_through.batch", read_many)

# %% [markdown] tags=["solution"]
# `MGET` with no key is an error, so an empty list has to be seen to. The question "is it missing?" is
# `id not in found`, and not the value: a `None` that was found is an answer. `MSET` would be one
# trip, too, but it takes no TTL.

# %% [markdown] given=[10]
# ## 3. Signed up, and seen
#
# In the notebook the sign-up deleted the key, and one order of ten was left in which a visitor stores
# "no such account" after the sign-up is over. Close it. These two are yours to use:


# %%
def load_account(db, email):
    asked = sa.select(User.id, User.name, User.email).where(User.email == email)
    with db.engine.connect() as connection:
        row = connection.execute(asked).first()
    return dict(row._mapping) if row else None


def create_account(db, name, email):
    with db.session() as session:
        session.add(User(name=name, email=email, bio="", role="customer", version=1))
        session.commit()


# %% [markdown]
# And this one is in use everywhere and stays as it is, so read it closely.


# %%
def find_account(cache, db, email):
    key = f"account:v1:{email}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    account = load_account(db, email)
    if account is None:
        cache.set(key, "null", ex=5, nx=True)
    else:
        cache.set(key, json.dumps(account), ex=300)
    return account


# %% exercise="08_read_through.absence" minutes=10
def sign_up(cache, db, name, email):
    """Create the account with `create_account`, and see to it that everybody finds it from then on.

    When this has returned, no `find_account` may say None again, whoever looked meanwhile. If
    the database fails, the error is raised and nobody finds an account, not even for a moment.
    A copy lives at most 300 seconds; what is not about this account stays in the cache. Returns nothing.
    """
    ### BEGIN SOLUTION
    create_account(db, name, email)
    account = load_account(db, email)
    cache.set(f"account:v1:{email}", json.dumps(account), ex=300)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What does `nx=True` in find_account do, when there is a value under the key, and when there is
# none?

# %% [markdown] tags=["hint"]
# A delete leaves a place where nothing is, and there a late visitor may store null. Leave something
# in that place.

# %% [markdown] tags=["hint"]
# Commit with `create_account`, read the row back with `load_account`, and `cache.set` it as JSON
# under `account:v1:<email>` with `ex=300`.

# %%
cachelab.check("08_read_through.absence", sign_up)

# %% [markdown] tags=["solution"]
# `find_account` stores absence with `nx=True`: only where nothing is. A delete makes just that, a place
# where nothing is, and a visitor who had looked before the commit puts "no such account" there. With
# the row in that place the visitor is refused. First the commit, then the row as the *database* has it,
# with its id, and with a TTL.

# %% [markdown]
# ## 4. One guard for everybody
#
# `flight` is the single-flight of this process: `flight.do(key, call)` gives what `call()` gives, or
# the result of a call for the same key that is under way. Read a product (`product:v1:<id>`, 300
# seconds, `db.product(product_id)`) such that 200 readers at once cost one query and one fill.


# %% exercise="08_read_through.guard" minutes=8
def read_product(cache, db, flight, product_id):
    """A product as a dict, from the cache or, once for all who are waiting, from the database.

    flight: the SingleFlight that all readers of this process share.
    """
    ### BEGIN SOLUTION
    key = f"product:v1:{product_id}"

    def look_load_and_fill():
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
        product = db.product(product_id)
        cache.set(key, json.dumps(product), ex=300)
        return product

    return flight.do(key, look_load_and_fill)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Of 200 that come at once one does the work, and the others get its result. What is the work: the
# query, or the fill as well?

# %% [markdown] tags=["hint"]
# Write plain cache-aside as a function without arguments, inside of yours, and give it to
# `flight.do`.

# %% [markdown] tags=["hint"]
# `return flight.do(key, look_load_and_fill)`, where key is `product:v1:<id>` and the function does
# GET, query and SET.

# %%
cachelab.check("08_read_through.guard", read_product)

# %% [markdown] tags=["solution"]
# All of it is inside: look, load and fill. If the fill were outside, the flight would have landed before
# the copy is there, and whoever comes in between flies again. The key of the flight is the key of the
# copy: one for all products would hand Bruno's chair to whoever asked for a lamp.

# %% [markdown]
# ## On the real cache
#
# Now on the live server of this notebook. `db.user` takes one id; the loader below makes of it one that
# takes many. What do you expect in the trace?


# %%
def load_users(ids):
    rows = {id: lab.db.user(id) for id in ids}
    return {id: row for id, row in rows.items() if row is not None}


users = {"user": Entity(load=load_users, ttl=300)}
flight = single_flight.SingleFlight()
lab.clear()
# Call your functions here, for instance: read(lab.cache, users, "user", 1)
print(lab.trace)

# %% [markdown] tags=["solution"]
# User 1 is there from the first read; of the three in the batch two are loaded, one of which does not
# exist. The loader is a loop, so the trace shows two queries: the *layer* asks once, and what the
# loader makes of it is the loader's affair.

# %% tags=["solution"]
lab.clear()
read(lab.cache, users, "user", 1)
print(list(read_many(lab.cache, users, "user", [1, 2, 9_999])))
read_product(lab.cache, lab.db, flight, 7)
print(lab.trace)

# %% [markdown]
# ## Recap
#
# - The register holds all that is to be known; the reader knows nothing else.
# - Look for all, load what is missing, store all: three trips, however many ids.
# - Absence is stored only where nothing is, and a sign-up puts something there.
# - Look, load and fill belong in one flight, under the key of the copy.
#
# **Next:** `notebooks/09_invalidation.ipynb`.
