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
# # Write twice, and let neither write fail the other
#
# **About 40 minutes.** Four functions: three writers, and a count that tells whether they pay. The
# notebook `06_write_through` has what you need.
#
# Every writer gets `cache`, a redis-py client, and `db`, the shop's database. The checks bring their
# own, fresh each time. `cachelab.hint("06_write_through.both")` helps.

# %%
import json

import redis

import cachelab
from cachelab.patterns import versioned_set

lab = cachelab.start()

# %% [markdown]
# ## 1. Write both
#
# Readers fill `user:v1:<id>` with what `db.user(user_id)` gives, as JSON, for 300 seconds. Change the
# address with `db.update_user(user_id, email=...)`, which commits, and leave under that key what a
# reader would have left: the whole row as it is *now*. If the database refuses, the cache must not
# have changed.


# %% exercise="06_write_through.both" minutes=8
def change_email(cache, db, user_id, email):
    """Change a user's e-mail address in the database, and then in the cache.

    user_id: int, an existing user. email: str. Returns the new row, a dict as `db.user` gives it.
    The row is kept under `user:v1:<id>` for 300 seconds, as JSON. An error of the database is
    raised to the caller.
    """
    ### BEGIN SOLUTION
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.set(f"user:v1:{user_id}", json.dumps(user), ex=300)
    return user
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Three steps: change the database, ask it for the row, store the row. In which order?

# %% [markdown] tags=["hint"]
# `db.update_user` commits. Only then read the row, so that its version is the new one.

# %% [markdown] tags=["hint"]
# `user = db.user(user_id)` after the update, then `cache.set(f"user:v1:{user_id}",
# json.dumps(user), ex=300)`, and return `user`.

# %%
cachelab.check("06_write_through.both", change_email)

# %% [markdown] tags=["solution"]
# The row is read again *after* the update. Who reads it before and changes the address in the dict
# stores the old `version`, and whatever else somebody has changed meanwhile.

# %% [markdown]
# ## 2. The second write fails
#
# The same for a price, under `product:v1:<id>`, and now each cache command may fail with a
# `redis.RedisError`: the server is out of reach, for the length of one command or for good, or it
# is full and refuses to store. What is committed is committed, so the caller must not get an error
# for it. Tell them instead how the cache is left:
#
# - `"stored"`: the new row is in the cache.
# - `"deleted"`: it could not be stored, so the old copy, if there was one, was deleted.
# - `"stale"`: neither got through. If there is an old copy it stays until its TTL ends, and that is
#   what the 60 seconds are for.


# %% exercise="06_write_through.second_write" minutes=12
def change_price(cache, db, product_id, price_cents):
    """Change a product's price in the database, and then in the cache, if the cache allows it.

    product_id: int, an existing product. price_cents: int. Returns "stored", "deleted" or "stale".
    The row, as `db.product` gives it, is kept under `product:v1:<id>` for 60 seconds, as JSON.
    An error of the database is raised to the caller; one of the cache never is.
    """
    ### BEGIN SOLUTION
    db.update_product(product_id, price_cents=price_cents)
    key, row = f"product:v1:{product_id}", json.dumps(db.product(product_id))
    try:
        cache.set(key, row, ex=60)
        return "stored"
    except redis.RedisError:
        pass
    try:
        cache.delete(key)
        return "deleted"
    except redis.RedisError:
        return "stale"
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Which lines may fail without the caller being told? Only those that talk to the cache, and only
# after the commit.

# %% [markdown] tags=["hint"]
# Two small try blocks that catch `redis.RedisError`: the first around the SET, the second, if the
# first one failed, around a DEL.

# %% [markdown] tags=["hint"]
# In the first: `cache.set(key, row, ex=60)`, then return "stored". In the second:
# `cache.delete(key)`, then return "deleted"; and in its except return "stale".

# %%
cachelab.check("06_write_through.second_write", change_price)

# %% [markdown] tags=["solution"]
# Two small `try` blocks behind the commit, and no more than two commands: a cache that is down is not
# worth waiting for. When does a `SET` fail and a `DEL` right after it work? When the first was the one
# that hit a broken connection; and on a server that is full and may not evict, which refuses to store
# but not to delete. In production, count the three answers: "stale" should wake somebody.

# %% [markdown]
# ## 3. Two writers
#
# The address once more, with two writers at the same time, and readers who miss in between. Readers
# fill only an empty key (`SET ... NX`), so that they cannot overwrite you. That the newest row stays,
# in every order, is up to the writers.
#
# Every update raises the row's `version` by one. `versioned_set.SET_IF_NEWER` is the script of the
# notebook: `cache.eval(versioned_set.SET_IF_NEWER, 1, key, text, version, seconds)` stores the text,
# unless what is there has the same version or a newer one. You may write your own.

# %%
print(versioned_set.SET_IF_NEWER.strip())


# %% exercise="06_write_through.two_writers" minutes=10
def save_email(cache, db, user_id, email):
    """Change a user's e-mail address; the newest row stays in the cache, whoever comes last.

    user_id: int, an existing user. email: str. Returns nothing.
    The row is kept under `user:v1:<id>` for 300 seconds, as JSON. When all writers are through, the
    key holds the row that the database has.
    """
    ### BEGIN SOLUTION
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    text = json.dumps(user)
    cache.eval(versioned_set.SET_IF_NEWER, 1, f"user:v1:{user_id}", text, user["version"], 300)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Who says which row is newer? Not the order in which two SETs arrive.

# %% [markdown] tags=["hint"]
# Update, read the row again, and store it with the script, which compares versions. Text and
# version come from the same row.

# %% [markdown] tags=["hint"]
# `user = db.user(user_id)` after the update; then `cache.eval(versioned_set.SET_IF_NEWER, 1, key,
# json.dumps(user), user['version'], 300)`.

# %%
cachelab.check("06_write_through.two_writers", save_email)

# %% [markdown] tags=["solution"]
# The version has to come from the row that is stored, and both from the database. Two writers that
# read version 1 and add one themselves both say 2, and the second of them is refused, though its row
# is the newer one.
#
# `SELECT` after the commit may find the row of the *other* writer already. That does no harm: it is
# newer, and the other one will be refused.

# %% [markdown]
# ## 4. Does anybody read it?
#
# Before you choose between storing and deleting, look at the requests. Each is `("read", key)` or
# `("write", key)`, in the order in which they came. A write whose key is read before it is written
# again **saves** a miss if the writer stores. Any other write, the last of a key too if no read comes
# after it, stores for nothing: it is **wasted**. (TTLs play no part here.)


# %% exercise="06_write_through.worth" minutes=8
def worth(requests):
    """How many writes save a miss when the writer stores, and how many store for nothing.

    requests: list of ("read" or "write", key), in order. Returns {"saved": int, "wasted": int}.
    """
    ### BEGIN SOLUTION
    saved, written, unread = 0, 0, set()
    for what, key in requests:
        if what == "write":
            written += 1
            unread.add(key)
        elif key in unread:
            saved += 1
            unread.remove(key)
    return {"saved": saved, "wasted": written - saved}
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# For each write, ask only what comes next *for the same key*: a read, a write, or nothing.

# %% [markdown] tags=["hint"]
# Keep the keys that were written and not yet read in a set. A read of such a key saves one miss and
# takes the key out.

# %% [markdown] tags=["hint"]
# Count the writes and the saved ones; wasted is the difference.

# %%
cachelab.check("06_write_through.worth", worth)

# %% [markdown] tags=["solution"]
# A write can save one miss at most, however many reads follow: the second reader would have found
# what the first one filled. This is why a hit rate does not answer the question.

# %% [markdown]
# ## On the real cache
#
# Now on the live server of this notebook. Change an address, read it from the cache, change a price
# while the cache is dead (`lab.kill_cache()`), and start it again (`lab.restart_cache()`). What do you
# expect in the trace?

# %%
lab.clear()
# Call your functions here, for instance: change_email(lab.cache, lab.db, 1, "new@example.org")
print(lab.trace.summary())

# %% [markdown] tags=["solution"]
# The reader after the first write hits. The price is changed although nobody can tell the cache.

# %% tags=["solution"]
lab.clear()
change_email(lab.cache, lab.db, 1, "alice@new-job.example")
save_email(lab.cache, lab.db, 1, "alice@home.example")
print(json.loads(lab.cache.get("user:v1:1"))["email"])
lab.kill_cache()
print(change_price(lab.cache, lab.db, 1, 950), lab.db.product(1)["price_cents"])
lab.restart_cache()
print(
    change_price(lab.cache, lab.db, 1, 900),
    json.loads(lab.cache.get("product:v1:1"))["price_cents"],
)

# %% [markdown]
# ## Recap
#
# - The whole row, read after the commit, in the shape that readers expect, with its TTL in the same
#   command.
# - After the commit no cache command may raise. Store, else delete, else the TTL.
# - The version comes from the row that is stored. Compare and store in one step.
# - A write saves one miss or none. Count before you choose.
#
# **Next:** `notebooks/07_write_back.ipynb`.
