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
# # Share one cache among twenty pods
#
# **About 30 minutes.**
#
# **What you'll do.** Log in on one pod and be known on another, and then lose the session in three
# ways. Count what the shared cache costs: trips, bytes, connections. Name keys so that neither
# another release nor a user who means harm gets at a copy that is not theirs.
#
# **What you'll learn.** When a cache outside the process pays, and when it does not; how to read a
# hundred keys in one trip; what JSON loses; what happens to version 1 while version 2 rolls out; why
# 800 threads and a healthy server give connection errors.
#
# **What you'll need.** `01_latency_freshness_cost`. As there, `cache_aside.read` asks the cache, on a miss the
# database, and leaves a copy; `cache_aside.forget` deletes copies. `05_cache_aside` builds both.

# %%
import json
import secrets
import time
from functools import partial

import redis
import sqlalchemy as sa

import cachelab
from cachelab import stage, traffic
from cachelab.patterns import cache_aside, read_many
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## Log in on pod 3, ask on pod 17
#
# Twenty **pods** run the shop: the same program, each in a process of its own. Alice logs in; her
# request lands on pod 3, which notes in a dictionary who she is: her **session**. Her next click
# lands wherever the **load balancer**, which deals out the requests, sends it.

# %%
memories = [{} for _ in range(20)]  # what each pod knows by itself
memories[3]["a-session-id"] = {"user_id": 1}
predict("How many of the 20 pods know that Alice is logged in?", key="pods")

# %%
know = sum("a-session-id" in memory for memory in memories)
print(f"{know} of 20 pods")
reveal("pods", know)

# %% [markdown] given=[19]
# On nineteen clicks of twenty she has to log in again. So the session moves to a place that all pods
# can reach. Twenty clients stand for the pods below: all they have in common is the server.
#
# ```mermaid
# graph LR
#     Browser --> LB[Load balancer]
#     LB --> P3[Pod 3]
#     LB --> P17[Pod 17]
#     LB --> More[18 more]
#     P3 --> Cache[(Cache)]
#     P17 --> Cache
#     More --> Cache
#     P3 -. on a miss .-> DB[(Database)]
#     P17 -. on a miss .-> DB
# ```

# %%
LIFE = 1_800  # seconds without a click


def log_in(pod, user_id, old_id=None):
    if old_id is not None:
        pod.delete(f"session:v1:{old_id}")
    session_id = secrets.token_urlsafe(24)  # never `random`: its next numbers can be computed
    pod.set(f"session:v1:{session_id}", json.dumps({"user_id": user_id}), ex=LIFE)
    return session_id


def who_is(pod, session_id):
    stored = pod.getex(f"session:v1:{session_id}", ex=LIFE)  # reads, and starts the TTL anew
    return None if stored is None else json.loads(stored)["user_id"]


# %%
pods = [lab.client() for _ in range(20)]


def who_knows(session_id):
    return sum(who_is(pod, session_id) == 1 for pod in pods)


alice = log_in(pods[3], 1)
print("pod 17 says: user", who_is(pods[17], alice))
print("pods that know her:", who_knows(alice), "| keys in the cache:", len(lab.keys()))
pods[9].delete(f"session:v1:{alice}")  # she logs out, on pod 9
print("pods that know her:", who_knows(alice))

# %% [markdown] given=[40]
# One key, one truth, and a logout that counts everywhere. (A token that carries its own proof, such as
# a JWT, needs no store, and for that very reason cannot be taken back before it expires.)
#
# The TTL **slides**: each click starts it anew. **Predict** what pod 5 says after 40 minutes with a
# click in the middle, and after 31 minutes without one.

# %%
alice = log_in(pods[3], 1)
for minutes in (20, 20, 31):
    lab.fast_forward(60 * minutes)
    print(f"{minutes} min later: user", who_is(pods[5], alice))

# %% [markdown]
# ### Break it: the id that was planted
#
# Many shops give a visitor an id before the login, for the basket, and keep it. A thief opens the shop,
# gets an id, and sends Alice a link that makes her browser use it. Then she logs in.


# %%
def log_in_keeping_the_id(pod, user_id, session_id):
    pod.set(f"session:v1:{session_id}", json.dumps({"user_id": user_id}), ex=LIFE)
    return session_id


log_in_keeping_the_id(pods[3], 1, "the thief's id")
print("The thief is user", who_is(pods[12], "the thief's id"))
log_in(pods[3], 1, old_id="the thief's id")
print("The thief is user", who_is(pods[12], "the thief's id"))

# %% [markdown]
# Session fixation is its name. A login draws a **new** id and ends the old one. And because a sliding
# TTL lets a stolen id live as long as the thief keeps clicking, real stores also note when the session
# began and end it after some hours, used or not.
#
# ### Break it: a store is not a cache
#
# **Predict** the number of pods that know Alice after a restart of the server.

# %%
alice = log_in(pods[3], 1)
lab.kill_cache()
lab.restart_cache()
print("pods that know her:", who_knows(alice))

# %% [markdown]
# Everybody is logged out, and there is no origin to ask: the session *was* the original. People say
# "sessions are in the cache", but this is a small database with TTLs. Give it persistence (the
# server writes it to disk) or a replica (a second server that follows the first:
# `16_beyond_one_node`), and never put it where a full server throws keys out to make room for
# product pages (`12_over_caching`).
#
# ## What a trip costs
#
# Here a dictionary, a `PING` (a trip that does nothing) and a `GET` race each other.

# %% tags=["live", "nbval-ignore-output"]
memory = {"user:v1:1": json.dumps(lab.db.user(1))}
lab.cache.set("user:v1:1", memory["user:v1:1"], ex=300)
races = {
    "dictionary": lambda: memory["user:v1:1"],
    "PING": lab.cache.ping,
    "GET": lambda: lab.cache.get("user:v1:1"),
}
seconds = {}
for name, act in races.items():
    began = time.perf_counter()
    for _ in range(1_000):
        act()
    seconds[name] = (time.perf_counter() - began) / 1_000
print({name: f"{each / seconds['dictionary']:,.0f} x" for name, each in seconds.items()})

# %% [markdown]
# Compare: a `PING` looks nothing up and still costs as much as hundreds of dictionary lookups, if not
# thousands. The **trip** is the price, and this server is on the same machine; over a network it is more.
# What pod 3 has filled is there for pod 17, so its page needs no query. It still makes several trips, one
# after the other:


# %%
def page(pod, session_id):
    user_id = who_is(pod, session_id)
    for key, load in (
        (f"user:v1:{user_id}", lambda: lab.db.user(user_id)),
        (f"permissions:v1:{user_id}", lambda: lab.db.permissions(user_id)),
        ("flag:v1:new_checkout", lambda: lab.db.flag("new_checkout")),
    ):
        cache_aside.read(pod, key, load, 300)


TRIP = 0.0005  # seconds, in a data centre, say: measure yours
alice = log_in(pods[3], 1)
page(pods[3], alice)
with lab.record() as run:
    page(pods[17], alice)
print(f"{run.queries} queries, {len(run)} commands: {1_000 * len(run) * TRIP:.1f} ms on the way")

# %% [markdown]
# ## When it does not pay
#
# Three cases are usually named: a single instance, queries under 5 ms, and data that changes each
# second. We check each with numbers. First the query, with the formula of `01_latency_freshness_cost`:
# a hit costs one trip, a miss two and the query.
# Which hit rate makes the cache faster than the query alone?

# %%
from cachelab.models import recovery, staleness, worth

for milliseconds in (0.1, 1, 4, 5, 1_200):
    share = worth.break_even(TRIP, milliseconds / 1_000, TRIP)
    print(f"query of {milliseconds:7,} ms:", f"{share:.1%}" if share < 1 else "at no hit rate")
print("4 ms, 50 reads/s, each a free hit: saves", worth.saved_per_second(50, 1, 0, 0.004), "s/s")

# %% [markdown] given=[18]
# So 5 ms is no border: such a query breaks even at a hit rate of 18 %. A query that is faster than one
# trip loses at any rate. Between, the cache wins *time*, but how much? At 50 reads per second a fifth of one
# database connection, for a server to run and copies to keep true. That is the better reason to leave
# it.
#
# **Each second.** The row is written about once a second and each write deletes the copy: a formula, and
# a hundred seconds counted on the stage.

# %%
predict("50 reads/s, 1 write/s. How many hits for each delete?", key="writes", unit="hits")


# %%
def busy(read_rate, cache, db):
    reads = [(at, "read") for at in traffic.poisson(read_rate, 100, seed=11)]
    writes = [(at, "write") for at in traffic.poisson(1, 100, seed=1)]
    now = 0
    for at, what in sorted(reads + writes):
        time.sleep(at - now)
        now = at
        if what == "read":
            cache_aside.read(cache, "stock:v1:1", lambda: db.stock(1), 300)
        else:
            db.update_product(1, stock=int(at))
            cache.delete("stock:v1:1")


# %%
for rate in (0.5, 1.6, 50):
    model = staleness.hit_ratio_delete_on_write(rate, 1)
    run = stage.run([partial(busy, rate)])
    per_delete = run.hits / run.count("delete")
    print(f"{rate:4} reads/s: hit rate {model:.0%}, counted {run.hit_rate:.0%};", end=" ")
    print(f"hits per delete {rate * model:.1f}, counted {per_delete:.1f}")
reveal("writes", round(50 * staleness.hit_ratio_delete_on_write(50, 1)))

# %% [markdown] given=[50]
# That such data is deleted more often than it is hit, as the article says, is true below 1.6 reads per
# write, and far from true at 50. It is not the second that counts but **reads per write**.
#
# **A single instance** has nobody to agree with, so a dictionary (`02_in_memory`) is faster and simpler.
# But count again: four worker processes of one web server are four memories, and a restart empties all
# of them at once.
#
# ## One trip for many keys
#
# A page shows 100 products. Written as a loop it is cache-aside, a hundred times over. On the stage,
# `hop` is the time of a trip to the cache; nothing else takes time, so the clock counts trips.

# %%
from dataclasses import replace

from cachelab import origin

shop = {"hop": TRIP, "size": replace(origin.SMALL, products=100)}
ids = [*range(100, 0, -1), 999]  # there is no product 999


def key_of(product_id):
    return f"product:v1:{product_id}"


def loop(cache, db):
    return [cache_aside.read(cache, key_of(one), partial(db.product, one), 300) for one in ids]


# %%
def products(db, wanted):
    rows = sa.select(origin.Product.__table__).where(origin.Product.id.in_(wanted))
    with db.engine.connect() as connection:
        return {row.id: dict(row._mapping) for row in connection.execute(rows)}


def batch(cache, db):
    return read_many.read(cache, ids, key_of, partial(products, db), 300)


predict("101 ids, none in the cache: how many trips for the batch?", key="trips", unit="trips")

# %%
trips, rows = {}, []
for name, reader in {"loop": loop, "batch": batch}.items():
    for state, warm in {"cold": None, "warm": reader}.items():
        run = stage.run({name: reader}, setup=warm, **shop)
        trips[name, state], rows = round(run.elapsed / TRIP), run.answers[name]
        print(f"{name:5} {state}: {trips[name, state]:3} trips, {run.queries:3} queries")
print("ids that came back:", [row and row["id"] for row in (*rows[:2], *rows[-2:])])
reveal("trips", trips["batch", "cold"])

# %% [markdown]
# 202 trips and 101 queries became two and one; when everything is there, 101 became one. `MGET` reads,
# one `IN` query loads what is missing, a pipeline stores it: many commands, one trip. The order is that
# of the ids, and product 999 is remembered as absent.

# %%
cachelab.show(read_many.read)

# %% tags=["live", "nbval-ignore-output"]
keys = [key_of(one) for one in range(1, 101)]
pipe = lab.cache.pipeline(transaction=False)
ways = {"MGET": lambda: lab.cache.mget(keys), "GETs": lambda: [lab.cache.get(key) for key in keys]}
ways["pipeline"] = lambda: [pipe.get(key) for key in keys] and pipe.execute()
spent = dict.fromkeys(ways, 60.0)
for name, act in [*ways.items()] * 40:
    began = time.perf_counter()
    act()
    spent[name] = min(spent[name], time.perf_counter() - began)
print({name: f"{each / spent['MGET']:.1f} x MGET" for name, each in spent.items()})

# %% [markdown] given=[10000, 50]
# A hundred `GET`s take several times as long as one `MGET`. A pipeline lies between: one trip, but
# still a hundred commands.
#
# **Break it.** The server does one command after the other. `MGET` of 10,000 keys, or one `GET` of a
# value of 50 MB, and everybody else waits: cut long lists into some hundreds. A pipeline is not a
# transaction either; others come between its commands.
#
# ## What travels
#
# A value leaves the process as bytes. **Predict** which of these come back as they went, and what
# `default=str`, the usual remedy for dates, makes of one.

# %%
from datetime import date
from decimal import Decimal

for value in ({"sku": "A7"}, (40, 41), {7: "seven"}, Decimal("19.90")):
    try:
        print(repr(value), "->", repr(json.loads(json.dumps(value))))
    except TypeError as error:
        print(repr(value), "->", error)
day = date(2025, 1, 1)
print("default=str, a miss:", repr(day), "| a hit:", repr(json.loads(json.dumps(day, default=str))))

# %% [markdown]
# The exception is the friendly one. A tuple becomes a list, a number as key a text and a date a text, in
# silence, and **only on a hit**: the reader who misses gets the original. Convert before both: store
# cents, ISO dates and lists, and return what you store.
#
# "pickle keeps everything." It does, and it also runs whatever the bytes ask for:


# %%
import pickle


class Gift:
    def __reduce__(self):
        return print, ("This line was run by reading a value from the cache.",)


stored = pickle.dumps(Gift())  # what somebody with access to the cache has put there
nothing = pickle.loads(stored)

# %% [markdown]
# Whoever can write to the cache runs code in every pod. It also ties the bytes to the names of your
# classes, so that a release that moves one cannot read what the last one wrote. This workbook stores
# JSON only.
#
# **Size.** Nobody needs the whole row for a name in a list, still less the object that the ORM
# (here SQLAlchemy) makes of it. And is compression worth it?

# %%
import zlib

whole, needed = json.dumps(lab.db.user(1)), json.dumps({"name": lab.db.user(1)["name"]})
with lab.db.session() as session:
    pickled = pickle.dumps(session.get(origin.User, 1))
print("whole row", len(whole), "bytes, what the list needs", len(needed), "bytes")
page = json.dumps(lab.db.comments(1)).encode()
print("the ORM's object, pickled, is more than twice the row:", len(pickled) > 2 * len(whole))
print("comments of article 1:", f"{len(page):,}", "bytes")
print("packed to less than a quarter:", len(zlib.compress(page)) < len(page) / 4)
print("the small one packed is smaller:", len(zlib.compress(needed.encode())) < len(needed))
print("2,000 hits/s of that page:", round(2_000 * len(page) * 8 / 1e6), "Mbit/s")

# %% [markdown] given=[1800, 300, 60]
# Compression pays for large text and costs processor time on every hit; small values grow. The last
# line is the **hot key**: however many cache servers you have, one key lives on one of them. A big value
# that everybody wants fills that server's network card first.
#
# ## What a key is made of
#
# | key | holds | TTL | deleted by |
# |---|---|---|---|
# | `session:v1:<id>` | who is logged in | 1,800 s, sliding | logout, next login |
# | `user:v1:<id>` | the row | 300 s | every change of the user |
# | `product:v1:<id>` | the row | 300 s | every change of the product |
# | `search:v1:<words>` | ids that were found | 60 s | nobody |
#
# `entity:version:id`. Two ways to spoil it: `hash()`, and an id that users choose.

# %%
import os
import subprocess
import sys
from urllib.parse import quote

chance = {**os.environ, "PYTHONHASHSEED": "random"}  # as when nothing is set
command = [sys.executable, "-c", "print(hash('red lamp'))"]
ask = partial(subprocess.run, command, env=chance, capture_output=True, text=True)
print("two pods, the same hash:", ask().stdout == ask().stdout)


def search_key(category, words):
    return f"search:v1:{category}:{words}"


one, another = search_key("rugs", "red:blue"), search_key("rugs:red", "blue")
print("two searches, the same key:", one == another)
print("quoted:", quote("rugs:red", safe=""), "|", quote("a b\r\nDEL *", safe=""))

# %% [markdown]
# With `hash()` no pod finds another's copies, and nothing fails. With an unquoted colon one search is
# answered with another's result; a line break does no harm in Redis, but forges lines in your logs and,
# in memcached's text protocol, commands. And nothing stops a key of a megabyte. Quote it, then limit its
# length with a digest: that is an exercise in the lab.
#
# ## Two releases at once
#
# Release 2 changes the shape of a user, so it reads and fills `user:v2:1`. During the roll-out pods of
# both releases run. Each of them looks before and after Alice is renamed; the rename lands on either.


# %%
def pod_of(version):
    def looks_twice(cache, db):
        for _ in range(2):
            cache_aside.read(cache, f"user:{version}:1", lambda: db.user(1), 300)
            time.sleep(60)

    return looks_twice


def rename(*versions):
    def writes(cache, db):
        db.update_user(1, name="Alice Moreau")
        cache_aside.forget(cache, *[f"user:{version}:1" for version in versions])

    return 30, writes  # thirty seconds later


ways = ["old name on v1", "old name on v2", "on both", "on none"]
predict("A v1 pod renames Alice and deletes user:v1:1. And then?", key="deploy", choices=ways)

# %%
looking = {"v1 pod": pod_of("v1"), "v2 pod": pod_of("v2")}
one_sided = stage.run({**looking, "a v1 pod writes": rename("v1")})
print(one_sided.summary())
print("stale:", *[event.on for event in one_sided.stale])
cachelab.lanes(one_sided)

# %% [markdown]
# In the lanes, the v1 pod misses again after the write and fills (square); the v2 pod hits, and its
# hit is ringed, that is, stale. The versions kept the shapes apart, and the deletes as well. The
# article's advice, to raise the version and let the old keys run out, says nothing about this.
# Delete both:

# %%
writers = {"v2 pod": ["v2"], "new v2 pod": ["v1", "v2"], "v1 pod, still": ["v1"]}
for who, versions in writers.items():
    run = stage.run({**looking, who + " writes": rename(*versions)})
    print(f"{who}, deletes {' and '.join(versions)}: {len(run.stale)} stale")
reveal("deploy", "old name on v2")

# %% [markdown]
# **Break the fix.** Look at the last line. Release 2 deletes both, but pods of release 1 write as well,
# and they were built before there was a v2. So it takes three deployments: one that *deletes* both and
# reads v1, one that reads v2, and, when no v1 pod and no way back is left, one that forgets v1.
#
# ## What a new version costs
#
# **Predict** the queries of the first 100 reads after the switch, in a shop whose hit rate was 95 %.

# %%
lab.clear()
with lab.record() as run:
    for version in ("v1", "v1", "v2"):
        for one in range(1, 101):
            load = partial(lab.db.product, one)
            cache_aside.read(lab.cache, f"product:{version}:{one}", load, 300)
        print(version, "| queries so far:", lab.trace.queries, "| keys:", len(lab.keys()))
print(f"at a hit rate of 95 %: {recovery.surge(0.95):.0f} times the load on the database")

# %% [markdown] given=[101]
# A hundred: all are cold, at once. No flush, no emptying of the whole cache, is needed, but the
# database sees what it would see after one. Before, 5 reads of 100 reached it; now 100 do, 20
# times as many. And for a TTL every value is there twice. Roll out slowly; each new pod then warms
# the cache for the next.
#
# ## 800 threads, 100 connections
#
# A **pool** keeps connections open and lends them out, one for each command under way. redis-py's own
# pool holds 100. Here 800 threads send a command that takes a fifth of a second (`BLPOP` waits that long
# for an empty list), as any does while the server is busy with something big. **Predict** what the 101st
# thread gets.

# %%
own = lab.cache.connection_pool
address = {"connection_class": own.connection_class, **own.connection_kwargs}


def client(pool):
    return type(lab.cache)(connection_pool=pool, trace=lab.trace, keyspace=lab.cache.keyspace)


default = client(redis.ConnectionPool(**address))
patient = client(redis.BlockingConnectionPool(max_connections=100, timeout=20, **address))
print("connections in redis-py's pool:", default.connection_pool.max_connections)

# %% tags=["live"]
for name, some in {"default": default, "blocking": patient}.items():
    burst = traffic.burst(lab, lambda cache, db, some=some: some.blpop("empty:v1", 0.2), 800)
    refused = sum("MaxConnectionsError" in error for error in burst.errors)
    print(f"{name}: some refused: {refused > 0}, other errors: {len(burst.errors) - refused}")

# %% [markdown]
# The server was well all the time. With its hundred connections lent out, the pool refused whoever came
# next, without asking the server. A `BlockingConnectionPool` lets them queue, and all are served.
#
# Why does nobody notice? Look at the family of that error, and at what code that survives a dead cache
# (`05_cache_aside`) makes of it. To see it without threads we borrow all 100 connections by hand.

# %%
import logging

logging.disable(logging.WARNING)  # the pattern logs each failure; here we count them instead
refusal = redis.exceptions.MaxConnectionsError
print("is a ConnectionError:", issubclass(refusal, redis.ConnectionError))
cache_aside.read(lab.cache, "user:v1:1", lambda: lab.db.user(1), 300)
lent = [default.connection_pool.get_connection() for _ in range(100)]
with lab.record() as run:
    for _ in range(50):
        cache_aside.read(default, "user:v1:1", lambda: lab.db.user(1), 300)
print(f"50 reads of a key that is in the cache: {run.queries} queries, {run.hits} hits")

# %% [markdown]
# Right answers, no error page, the key is there, the server is idle, and *every* read goes to the
# database. "The cache is down, so ask the origin" turns a small pool into a stampede. Count
# `MaxConnectionsError` by itself, and size the pool for the threads you have.
#
# **Break the fix.** How long does a `BlockingConnectionPool` wait, if nobody says so, for a connection to
# something that exists to save milliseconds? With a budget of 50 ms it gives up in time, and then?

# %%
print("a blocking pool waits, in seconds:", redis.BlockingConnectionPool().timeout)
hurried = client(redis.BlockingConnectionPool(max_connections=1, timeout=0.05, **address))
lent.append(hurried.connection_pool.get_connection())
try:
    hurried.get("user:v1:1")
except redis.ConnectionError as error:
    print("ConnectionError:", error)
print("connections of 20 pods:", f"{20 * 100:,}", "| of 200 pods:", f"{200 * 100:,}")
logging.disable(logging.NOTSET)

# %% [markdown] given=[10000]
# Then it is a miss again, only later. No pool makes the database stronger; a limit on the fallback does
# (`13_production_cache`). Nor is a huge pool the answer: the server accepts 10,000 clients by default
# (`maxclients` in redis.conf), and 200 pods of 100 are twice that.

# %% [markdown]
# ## Recap
#
# - What all pods must agree on lives outside them. A session store has no origin: it is no cache.
# - The trip is the price. Whether it pays you can compute, from the hit rate and from the reads per
#   write, not from the clock.
# - Many keys, one trip: `MGET`, one query, one pipeline.
# - JSON, small, quoted, `entity:version:id`. While two versions run, everybody deletes both.
# - A pool that is empty looks like a cache that is down.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/03_distributed.ipynb`.
