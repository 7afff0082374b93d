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
# # Let the cache do the loading: read-through
#
# **About 30 minutes.**
#
# **What you'll do.** Move keys, TTLs and queries out of the endpoints into one layer, change them
# there, load twenty things in one query, remember what does not exist, and put a stampede guard into
# a single place. Then look at what such a layer hides.
#
# **What you'll learn.** What differs from cache-aside, and what does not; what a change costs in each;
# why a batch and an absence need care of their own; what the layer does not do for you.
#
# **What you'll need.** `05_cache_aside`.

# %%
import inspect
import json
import logging
import re
import time

import sqlalchemy as sa

import cachelab
from cachelab import stage
from cachelab.origin import Product, User
from cachelab.patterns import cache_aside, read_through, single_flight
from cachelab.patterns.read_through import Entity, ReadThrough
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## The idea
#
# With cache-aside the application talks to two: it asks the cache, and on a miss the database. With
# **read-through** it asks one, a layer that owns a **loader** for each kind of thing, and the layer
# asks the database when it has to.
#
# ```mermaid
# sequenceDiagram
#     participant App
#     participant Layer
#     participant Cache
#     participant Origin
#     App->>Layer: read("user", 1)
#     Layer->>Cache: GET user:v1:1
#     Cache-->>Layer: MISS
#     Layer->>Origin: SELECT users 1
#     Layer->>Cache: SET user:v1:1 (TTL 300 s)
#     Layer-->>App: Alice
# ```
#
# Redis itself is no such layer: no command of it takes a query. Somebody has to write it, and the
# smallest one is a dict of loaders and a function.

# %%
loaders = {"user": (lab.db.user, 300), "product": (lab.db.product, 600)}


def read(name, id):
    load, ttl = loaders[name]
    key = f"{name}:v1:{id}"
    stored = lab.cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = load(id)
    lab.cache.set(key, json.dumps(value), ex=ttl)
    return value


# %% [markdown]
# **Predict:** a user is read twice, then a product. Which arrows will differ from those of
# `05_cache_aside`?

# %%
with lab.record() as run:
    read("user", 1), read("user", 1), read("product", 7)
print(run.summary())
cachelab.sequence(run)

# %% [markdown]
# None. The diagram is written from the run, and on the wire read-through *is* cache-aside: the same
# hits and misses, and the same staleness. What has moved is the knowledge. Whoever calls
# `read("user", 1)` knows neither the key nor the TTL nor the query.
#
# Here is one to carry home. Its loaders take a list of ids and return a dict of those that exist; that
# will pay off twice. Read it once, top to bottom; we go through it piece by piece.

# %%
cachelab.show(read_through.ReadThrough)

# %% [markdown]
# ## The same shop, written twice
#
# Three **endpoints**, functions that each answer one kind of request, and a writer. First with
# cache-aside, each a clean call of the pattern that you know:


# %%
def profile_aside(user_id):
    return cache_aside.read(lab.cache, f"user:v1:{user_id}", lambda: lab.db.user(user_id), 300)


def product_aside(product_id):
    key = f"product:v1:{product_id}"
    return cache_aside.read(lab.cache, key, lambda: lab.db.product(product_id), 600)


# %%
def checkout_aside(user_id, product_id):
    user = cache_aside.read(lab.cache, f"user:v1:{user_id}", lambda: lab.db.user(user_id), 300)
    key = f"product:v1:{product_id}"
    product = cache_aside.read(lab.cache, key, lambda: lab.db.product(product_id), 600)
    return f"{user['email']} pays {product['price_cents']} cents"


def rename_aside(user_id, name):
    lab.db.update_user(user_id, name=name)
    cache_aside.forget(lab.cache, f"user:v1:{user_id}")


# %% [markdown]
# Now with read-through. This is the **register**: a line for each kind of thing.


# %%
def by_id(db, table):
    def load(ids):
        asked = sa.select(table.__table__).where(table.id.in_(ids))
        with db.engine.connect() as connection:
            return {row.id: dict(row._mapping) for row in connection.execute(asked)}

    return load


def register(db):
    return {"user": Entity(by_id(db, User), 300), "product": Entity(by_id(db, Product), 600)}


# %%
shop = ReadThrough(lab.cache, register(lab.db))


def profile_through(user_id):
    return shop.read("user", user_id)


def product_through(product_id):
    return shop.read("product", product_id)


# %%
def checkout_through(user_id, product_id):
    user, product = shop.read("user", user_id), shop.read("product", product_id)
    return f"{user['email']} pays {product['price_cents']} cents"


def rename_through(user_id, name):
    lab.db.update_user(user_id, name=name)
    cache_aside.forget(lab.cache, shop.key("user", user_id))


print(checkout_aside(1, 7), checkout_through(1, 7), sep="\n")

# %% [markdown]
# The two give the same, and even share their copies. Next week a user gets a new field, so the key
# becomes `user:v2:...`, and the TTL is to be 60 s.

# %%
predict("In how many places must the cache-aside version be edited for that?", key="edits")


# %%
def places(pattern, *functions):
    return sum(len(re.findall(pattern, inspect.getsource(function))) for function in functions)


aside = (profile_aside, product_aside, checkout_aside, rename_aside)
through = (profile_through, product_through, checkout_through, rename_through)
for what, pattern in {"key of a user": "user:v1", "its TTL": r"\b300\b"}.items():
    found = places(pattern, *aside), places(pattern, *through)
    print(f"{what:14} cache-aside {found[0]}, read-through {found[1]}")
reveal("edits", places("user:v1", *aside) + places(r"\b300\b", *aside))

# %% [markdown] given=[30]
# No endpoint of the second version knows either; the register does, in one line. These are three
# endpoints. In a real service they are thirty, by six people, and no type checker finds what you
# forgot. (A tidy team collects keys and TTLs in functions. That is half a register.)
#
# **Break it.** The change is made in the profile, and the writer is forgotten. **Predict** what Alice
# sees after she has changed her name.


# %%
def profile_v2(user_id):
    return cache_aside.read(lab.cache, f"user:v2:{user_id}", lambda: lab.db.user(user_id), 60)


lab.db.update_user(1, name="Alice")  # as it was, should you run this twice
lab.clear()
profile_v2(1)
rename_aside(1, "Alice Moreau")
print(profile_v2(1)["name"])
print(lab.trace.summary())

# %% [markdown]
# The old name: the writer deletes a key that nobody reads any more. With the layer there is nothing
# to forget, since reader and writer ask it for the key:

# %%
shop.entities["user"] = shop.entities["user"]._replace(version=2, ttl=60)
lab.clear()
profile_through(1)
rename_through(1, "Alice M.")
print(profile_through(1)["name"], lab.keys())
print(lab.trace.summary())

# %% [markdown] given=[1200]
# ## What the caller no longer sees
#
# That was the gain, and it is what the article promises: clean code that never calls the database.
# Now the price. The same line three times, on the stage, which runs our code on a virtual clock; here a
# trip to the cache takes 1 ms and this query 1,200 ms:


# %%
def three_reads(cache, db):
    layer, took = ReadThrough(cache, register(db)), []
    for product_id in (1, 1, 2):
        began = time.monotonic()
        layer.read("product", product_id)
        took.append(round(time.monotonic() - began, 3))
    return took


print(stage.run([three_reads], hop=0.001, latency=1.2).answers["three_reads"], "seconds")

# %% [markdown] given=[1200]
# One line of code, two speeds, a factor of 1,200 between them. Whoever watches the layer from
# outside sees *a cache that takes 1.2 seconds*. A slow loader looks like a slow cache, so count hits,
# misses and the loaders' time apart; the layer is the one place where that can be done.
#
# And what is hidden gets called in loops. A list of twenty products looks innocent:


# %%
def one_by_one(cache, db):
    layer = ReadThrough(cache, register(db))
    return [layer.read("product", id) for id in range(1, 21)]


predict("How many trips over the network are that, with a cold cache?", key="trips", unit="trips")

# %%
run = stage.run([one_by_one], hop=0.001, latency=0.005)
print(run.summary())
reveal("trips", run.misses + run.queries + run.fills)

# %% [markdown]
# Three for each: ask, query, store. Had the endpoint written the SQL itself, nobody would have put it
# in a loop. As the loader takes *many* ids, the layer can do it in three altogether: one `MGET`, one
# query for all that is missing, one pipeline of fills, as in `03_distributed`.


# %%
def all_at_once(cache, db):
    return ReadThrough(cache, register(db)).read_many("product", range(1, 21))


def nineteen(cache, db):
    ReadThrough(cache, register(db)).read_many("product", range(1, 20))


batch = stage.run([all_at_once], hop=0.001, latency=0.005)
warm = stage.run([all_at_once], hop=0.001, latency=0.005, setup=nineteen)
for name, one in {"one by one": run, "all at once": batch, "19 are there": warm}.items():
    print(f"{name:13}{1000 * one.elapsed:4.0f} ms, {one.summary()}")

# %% [markdown]
# On a clock with trips of 1 ms and queries of 5 ms the page takes 7 ms instead of 140. When nineteen
# are there, the loader is asked for the one that is not.
#
# **Break the fix.** One query for all is one error for all. Nineteen copies are in the cache, and the
# database is down. **Predict** how many products the page can show.


# %%
def no_database(ids):
    raise TimeoutError("the database does not answer")


def unlucky(cache, db):
    broken = {"product": register(db)["product"]._replace(load=no_database)}
    return ReadThrough(cache, broken).read_many("product", range(1, 21))


run = stage.run([unlucky], setup=nineteen)
print(repr(run.answers["unlucky"]), "with", run.hits, "hits in hand")

# %% [markdown] given=[19]
# None, with nineteen in hand. The layer passes a loader's error on, and stores nothing of it; that is
# right for a checkout. A list page may prefer nineteen products and a gap. It is your decision, and
# now there is one place to make it. (Those that were loaded together also expire together:
# `10_stampede` has jitter for that.)
#
# ## What does not exist
#
# The second use of a loader that gives back *those that exist*: what is missing from its answer does
# not. That is worth remembering too. Otherwise every question for a product that is gone, from an old
# link or a search engine, reaches the database.
#
# But here is a sign-up. A visitor's page asks, ten times a second, whether there is an account for
# Zoe's address. After a minute she signs up.

# %%
ZOE = "zoe@example.org"


def accounts(cache, db, absent_ttl=5):
    def load(emails):
        asked = sa.select(User.__table__).where(User.email.in_(emails))
        with db.engine.connect() as connection:
            return {row.email: dict(row._mapping) for row in connection.execute(asked)}

    return ReadThrough(cache, {"account": Entity(load, 300, absent_ttl)})


# %% [markdown]
# The visitor, and two ways to sign up: one tells only the database, the other then deletes the key.


# %%
def visitor(absent_ttl):
    def wait_for_zoe(cache, db):
        while accounts(cache, db, absent_ttl).read("account", ZOE) is None:
            time.sleep(0.1)

    return wait_for_zoe


def sign_up(cache, db):
    with db.session() as session:
        session.add(User(name="Zoe", email=ZOE, bio="", role="customer", version=1))
        session.commit()


def sign_up_and_forget(cache, db):
    sign_up(cache, db)
    cache_aside.forget(cache, accounts(cache, db).key("account", ZOE))


# %%
predict(
    "Absence is kept for 300 s like all else. For how long does Zoe not exist after her sign-up?",
    key="zoe",
    unit="s",
)

# %%
for absent_ttl, joins in ((300, sign_up), (5, sign_up), (300, sign_up_and_forget)):
    run = stage.run({"visitor": visitor(absent_ttl), "Zoe": (60, joins)})
    unknown = round(run.elapsed - 60)
    print(f"{joins.__name__:18} absence kept {absent_ttl:3} s: unknown for {unknown:3} s")
    if (absent_ttl, joins) == (300, sign_up):
        revealed = reveal("zoe", unknown)
revealed

# %% [markdown]
# In the worst case she has just been looked for, and does not exist for the full five minutes. A
# short TTL for absence bounds that, here to 5 s, most of which were over when she signed up. A
# delete by whoever creates the row ends it at once.
#
# **Break the fix.** Is the short TTL still needed, then? Let us ask every order in which one visitor
# and the sign-up can meet.


# %%
def not_denied(world):
    if world.cache.get(f"account:v1:{ZOE}") == "null":
        return "Zoe exists, and the cache says that she does not."


actors = {"visitor": lambda cache, db: accounts(cache, db).read("account", ZOE)}
race = stage.explore({**actors, "Zoe": sign_up_and_forget}, not_denied, commit_apart=False)
print(race.summary)
cachelab.lanes(race.counterexample)

# %% [markdown]
# It is. In the lanes the visitor, above, has asked (diamond) before Zoe's commit (bar) and stores the
# answer (square) after her delete (cross). It is the race that `11_stale_data` takes apart, with
# "nothing" in place of an old row, and read-through has it as cache-aside has it. So both: the delete
# for nearly always, the short TTL for the rest. The lab closes even that.
#
# **Break it again.** Somebody asks a thousand times for one product that does not exist, and then for
# a thousand different ones. **Predict** the queries.


# %%
def asks(ids):
    def ask(cache, db):
        layer = ReadThrough(cache, register(db))
        for id in ids:
            layer.read("product", id)

    return ask


for name, ids in {"the same": [9_999] * 1_000, "different": range(9_000, 10_000)}.items():
    run = stage.run([asks(ids)])
    print(f"{name:9} queries {run.queries:5,}, keys {len(run.world.cache.keys()):5,}")

# %% [markdown]
# Remembered absence helps against the same question, not against an inventive one, and each of its
# questions leaves a key behind. Against that: reject what cannot be an id before you ask, and limit
# how often one caller may miss. (A Bloom filter of the ids that exist, a small table that can say
# "certainly not there", does the first in little memory.)
#
# ## What is broken
#
# A copy that cannot be decoded, from a half-finished deployment or a stranger with our key. **Predict**
# what each of the two versions does.

# %%
logging.disable(logging.WARNING)  # the layer logs what follows; here we look at the answers
for read_product in (product_aside, product_through):
    lab.cache.set("product:v1:1", '{"id": 1, "na', ex=300)
    try:
        print(f"{read_product.__name__:16}", read_product(1)["name"])
    except json.JSONDecodeError:
        print(f"{read_product.__name__:16} JSONDecodeError, until the TTL is over")

# %% [markdown]
# The layer says so in the log, takes it for a miss and stores a good copy over it. (`dogpile.cache`,
# Python's well-known library for this pattern, brings a stampede guard and a batch; but it raises here
# as well, keeps absence as long as all else, and does not survive a dead cache. Our tests hold the two
# side by side.)
#
# And with the cache gone:

# %%
lab.kill_cache()
with lab.record() as run:
    print(product_through(1)["name"])
print(run.summary())
lab.restart_cache()
logging.disable(logging.NOTSET)

# %% [markdown] given=[10]
# ## One place for the guard
#
# When many readers miss at once, all of them ask the database: a **stampede**, to which `10_stampede`
# is devoted. One defence is a **single-flight**: of all threads that want the same key one does the
# work, and the others wait for its result. Here everybody goes through one method, so everybody can be
# guarded there: `once` is called with a key and the work. 800 readers of one product, a query of
# 10 ms, one slot in the database:


# %%
def readers(once, ids=(1,)):
    def read_all(cache, db):
        return ReadThrough(cache, register(db), once).read_many("product", ids)

    return read_all


def guard():
    return single_flight.SingleFlight().do  # one for a process


bare = readers(lambda key, call: call())
for name, read in {"bare": bare, "guarded": readers(guard())}.items():
    run = stage.run(stage.threads([read] * 800), latency=0.01, capacity=1)
    print(f"{name:8} queries {run.queries:3}, last answer after {run.elapsed:.2f} s")

# %% [markdown]
# One word where the layer is made, and not one endpoint was touched.
#
# **Break it.** **Predict** the queries of 800 readers in four processes; and in one, if half of them
# want product 1 and half the page of twenty, on which it is.

# %%
four = [
    thread for n in range(4) for thread in stage.threads([readers(guard())] * 200, f"process {n}")
]
same = guard()
mixed = stage.threads([readers(same), readers(same, range(1, 21))] * 400)
for name, actors in {"four processes": four, "1, and 1 to 20": mixed}.items():
    print(f"{name:15} queries", stage.run(actors, latency=0.01, capacity=1).queries)

# %% [markdown]
# A process knows nothing of the others, and a batch is one flight: two different batches are two, even
# where they overlap. Bounded, but not one.
#
# A single place has another side. A mistake in it is a mistake everywhere, and when the layer is slow,
# everything is. Test it like a database driver, not like a utility.
#
# ## Which one?
#
# The article warns that this takes a clever layer which knows your data, and that no ordinary client of
# Redis brings one. Both are true, and this is what it takes:

# %%
lines = inspect.getsource(read_through).splitlines()
print(len(lines), "lines, and a line of register for each kind of thing")

# %% [markdown]
# | | cache-aside | read-through |
# |---|---|---|
# | keys, TTLs, queries | at every call | in the register |
# | a new version | an edit at each place | one edit |
# | who sees a miss | the caller | the layer |
# | many ids | each caller's own affair | one loader, three trips |
# | a guard | at every call | in one place |
# | writes, staleness, races | yours | yours |
#
# A few kinds of thing, read in many places by key: read-through. One endpoint with a value of its
# own, such as a report over last month: cache-aside, there is nothing to share. And the last row is
# for both: a layer that reads does not write. Whoever updates still commits, and then deletes.
#
# ## Recap
#
# - Read-through is cache-aside with the knowledge moved: key, TTL, version and loader are in one
#   register, and a change is one edit.
# - Loaders take many ids: one `MGET`, one query, one pipeline. Their errors are passed on and not stored.
# - Absence has a short TTL of its own, *and* is deleted by whoever creates the row.
# - What is hidden gets called in loops and looks like a slow cache: measure hits, misses and loaders
#   apart.
# - A guard goes into one place. It ends at the process, and at the batch.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/08_read_through.ipynb`.
