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
# # Write a cache-aside that survives Monday
#
# **About 40 minutes.** Five functions, each of a few lines, each with a trap that the notebook
# `05_cache_aside` has shown.
#
# Every function gets `cache`, a redis-py client, and `db`, the shop's database. The checks bring
# their own, fresh each time. `cachelab.hint("05_cache_aside.read")` helps.

# %%
import json

import redis

import cachelab

lab = cachelab.start()

# %% [markdown]
# ## 1. Read
#
# The pattern itself: `GET`, and on a miss the query and a `SET`. The key is `user:v1:<id>`, the copy
# lives 300 seconds. `db.user(user_id)` is the query; it gives a dict.


# %% exercise="05_cache_aside.read" minutes=7
def read_user(cache, db, user_id):
    """A user's row, from the cache if it is there, else from the database.

    user_id: int, an existing user. Returns a dict, equal to what `db.user` gives.
    A copy is kept under `user:v1:<id>` for 300 seconds, as JSON. A hit asks no query.
    """
    ### BEGIN SOLUTION
    key = f"user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    user = db.user(user_id)
    cache.set(key, json.dumps(user), ex=300)
    return user
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Three steps: ask the cache; if it has nothing, ask the database; leave a copy.

# %% [markdown] tags=["hint"]
# `stored = cache.get(key)` is a text or None. If it is a text, `json.loads(stored)` is the answer,
# and nothing else is to be done.

# %% [markdown] tags=["hint"]
# On a miss: `user = db.user(user_id)`, then `cache.set(key, json.dumps(user), ex=300)`, then return
# `user`.

# %%
cachelab.check("05_cache_aside.read", read_user)

# %% [markdown] tags=["solution"]
# Three trips on a miss, one on a hit. The TTL is part of the same `SET`: a `SET` followed by an
# `EXPIRE` would leave a copy without a TTL if the process died between the two.

# %% [markdown]
# ## 2. Values that look like nothing
#
# `db.stock(product_id)` is a number; 0 means sold out; `None` means that there is no such product.
# Cache all of them under `stock:v1:<id>`: a number for 60 seconds, absence for at most 10, because a
# new product should not stay invisible for long.


# %% exercise="05_cache_aside.values" minutes=7
def read_stock(cache, db, product_id):
    """How many of a product are left: int, or None if there is no such product.

    A number is kept for 60 seconds, None for at most 10 (and at least 1). A hit asks no query.
    """
    ### BEGIN SOLUTION
    key = f"stock:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    stock = db.stock(product_id)
    cache.set(key, json.dumps(stock), ex=10 if stock is None else 60)
    return stock
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What does your function do with a stock of 0 when it reads it from the cache?

# %% [markdown] tags=["hint"]
# Put the question `is None` to the stored text, before `json.loads`. None as a value is stored as
# the text `null`.

# %% [markdown] tags=["hint"]
# The TTL depends on the value: `ex=10 if stock is None else 60`.

# %%
cachelab.check("05_cache_aside.values", read_stock)

# %% [markdown] tags=["solution"]
# The question "did the cache have something?" is put to the *stored text*, before decoding. `null` is
# text; nothing is `None`. After decoding the two look the same.

# %% [markdown]
# ## 3. Invalidate on update
#
# Two things in the cache are made from a user's row: `user:v1:<id>`, and the public page with name
# and address, `user:public:v1:<id>`. Change the address with `db.update_user(user_id, email=...)`,
# which commits, and see to it that no reader is served the old one afterwards: also not after a
# reader has come along *while* you were at it, nor after two changes at once. What is not about this
# user stays in the cache.


# %% exercise="05_cache_aside.update" minutes=8
def change_email(cache, db, user_id, email):
    """Change a user's e-mail address, in the database and for all who read through the cache.

    user_id: int, an existing user. email: str. Returns nothing.
    """
    ### BEGIN SOLUTION
    db.update_user(user_id, email=email)
    cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two keys are made from the row. And think of a reader who misses right after your delete: which
# row will they find in the database?

# %% [markdown] tags=["hint"]
# Change the database first, which commits; delete after that.

# %% [markdown] tags=["hint"]
# `db.update_user(user_id, email=email)`, then one `cache.delete(...)` with both keys.

# %%
cachelab.check("05_cache_aside.update", change_email)

# %% [markdown] tags=["solution"]
# Commit first. If the delete comes first, a reader between the two misses, reads the *old* row, and
# stores it again; nobody deletes it a second time. And one `DEL` with both keys: it is a single
# command, so there is no moment at which only one of them is gone.

# %% [markdown]
# ## 4. Survive without a cache
#
# `read_product` is cache-aside once more (`product:v1:<id>`, 300 seconds). This time the cache may be
# dead, before the read or in the middle of it: redis-py then raises a `redis.RedisError` of one kind
# or another: a lost connection, a time-out. The customer must get the product all the same, for the
# price of one query. If the *database* fails, that is not yours to hide.


# %% exercise="05_cache_aside.cache_down" minutes=10
def read_product(cache, db, product_id):
    """A product as a dict, also when the cache does not answer.

    A copy is kept under `product:v1:<id>` for 300 seconds whenever the cache allows it.
    An error of the database is raised to the caller.
    """
    ### BEGIN SOLUTION
    key = f"product:v1:{product_id}"
    try:
        stored = cache.get(key)
    except redis.RedisError:
        stored = None
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    try:
        cache.set(key, json.dumps(product), ex=300)
    except redis.RedisError:
        pass
    return product
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Which lines talk to the cache? Each of them can raise, and only those.

# %% [markdown] tags=["hint"]
# Two small try blocks that catch `redis.RedisError`: one around the GET, one around the SET. The
# query stands outside both.

# %% [markdown] tags=["hint"]
# When the GET fails, go on as after a miss: `stored = None`. When the SET fails, go on and return
# the product.

# %%
cachelab.check("05_cache_aside.cache_down", read_product)

# %% [markdown] tags=["solution"]
# Two small `try` blocks, each around one command, and the query outside both. One big `try` around
# everything would swallow the database's errors too, or ask the query twice. In production, log in
# both `except` branches and count them: a cache that is down should wake somebody.

# %% [markdown]
# ## 5. A new shape
#
# Until yesterday a cached profile was `{"name": ...}`, under `profile:v1:<id>`. Your release adds
# `"initials"`: the first letter of each word of the name, so "Alice Moreau" gives "AM". Pods of
# yesterday's release (a pod is one running process of the shop) are still there: they read and write
# `profile:v1:<id>` and must find there what they know.


# %% exercise="05_cache_aside.version" minutes=8
def read_profile(cache, db, user_id):
    """A user's profile: {"name": str, "initials": str}, kept for 300 seconds and never older.

    What the old release has stored must neither break this function nor be changed by it.
    """
    ### BEGIN SOLUTION
    key = f"profile:v2:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    name = db.user(user_id)["name"]
    profile = {"name": name, "initials": "".join(word[0] for word in name.split())}
    cache.set(key, json.dumps(profile), ex=300)
    return profile
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# A key says what it holds, in which shape, of whom. What has changed here?

# %% [markdown] tags=["hint"]
# Keep away from `profile:v1:`: use a key of your own for the new shape.

# %% [markdown] tags=["hint"]
# Cache-aside under `profile:v2:<id>`; initials are `"".join(word[0] for word in name.split())`.

# %%
cachelab.check("05_cache_aside.version", read_profile)

# %% [markdown] tags=["solution"]
# A new shape, a new key. The old entries stay for those who understand them, and expire. Until then
# each profile may be in the cache twice: that is the price, and it ends with the TTL.

# %% [markdown]
# ## On the real cache
#
# Now on the live server of this notebook: read twice, change the address, read again. What do you
# expect in the trace?

# %%
lab.clear()
# Call your functions here, for instance: read_user(lab.cache, lab.db, 1)
print(lab.trace)

# %% [markdown] tags=["solution"]
# The first read misses, the second hits, and the update is seen.

# %% tags=["solution"]
lab.clear()
read_user(lab.cache, lab.db, 1), read_user(lab.cache, lab.db, 1)
change_email(lab.cache, lab.db, 1, "alice@new-job.example")
print(read_user(lab.cache, lab.db, 1)["email"])
print(lab.trace.summary())

# %% [markdown]
# ## Recap
#
# - One `SET` with its TTL; one question to the stored text; one `DEL` for all keys, after the commit.
# - Each cache command can fail, and none of them may fail the request.
# - The shape of a value is part of its key.
#
# **Next:** `notebooks/06_write_through.ipynb`.
