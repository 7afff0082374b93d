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
# # Write to the cache as well: write-through
#
# **About 30 minutes.**
#
# **What you'll do.** Let the writer store the new value instead of deleting the old one, count what
# that costs and what it saves, and put its promise, no stale reads, to the test: with a second write
# that fails, with the two in the wrong order, and with two writers at once.
#
# **What you'll learn.** Who reads what was stored; what an error after the commit does to the caller;
# why the cache comes second; how a version settles who wins; when to store and when to delete.
#
# **What you'll need.** `05_cache_aside`.

# %%
import json
import logging
import random
import time

import redis
import sqlalchemy as sa

import cachelab
from cachelab import stage, traffic
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## The idea
#
# In `05_cache_aside` whoever changed a row deleted its copy, and the next reader paid for a miss. With
# **write-through** the writer stores the new row, and the next reader finds it:
#
# ```mermaid
# sequenceDiagram
#     participant App
#     participant Cache
#     participant Origin
#     App->>Origin: UPDATE users 1
#     Origin-->>App: committed
#     App->>Origin: SELECT users 1
#     Origin-->>App: 1 row
#     App->>Cache: SET user:v1:1 (TTL 300 s)
#     App->>Cache: GET user:v1:1
#     Cache-->>App: HIT
# ```

# %%
KEY = "user:v1:1"


def read_user(cache, db):
    stored = cache.get(KEY)
    if stored is not None:
        return json.loads(stored)
    user = db.user(1)
    cache.set(KEY, json.dumps(user), ex=300)
    return user


def store_email(cache, db, email):
    db.update_user(1, email=email)
    cache.set(KEY, json.dumps(db.user(1)), ex=300)


# %% [markdown]
# **Predict:** Alice saves a new address, and her settings page loads twice. How many misses?

# %%
lab.clear()
with lab.record() as run:
    store_email(lab.cache, lab.db, "alice@new-job.example")
    print(read_user(lab.cache, lab.db)["email"])
    read_user(lab.cache, lab.db)
print(run.summary())
cachelab.sequence(run)

# %% [markdown]
# None, and the answer is true. The arrows, written from the run, are the ones that were intended. As
# long as there is one writer and nothing fails, the promise holds: the copy is fresh from the moment
# the `SET` is through.
#
# ## Store what readers expect
#
# The usual picture of this pattern, the article's too, stores only what was changed: the read path
# leaves `{id, name}` under the key, the write path `{name}`. Here the writer stores nothing but the
# new address. **Predict** what the settings page, which greets by name, says.

# %%
lab.db.update_user(1, email="alice@home.example")
lab.cache.set(KEY, json.dumps({"email": "alice@home.example"}), ex=300)
try:
    print("Good morning,", read_user(lab.cache, lab.db)["name"])
except KeyError as error:
    print("KeyError:", error)

# %% [markdown]
# For five minutes every page of Alice's ends like that. Reader and writer fill the same key, so they
# must store the same shape. `store_email` therefore asks for the whole row again, after the commit. One
# `SELECT` more is the price; `UPDATE ... RETURNING` saves it.
#
# ## What a write costs
#
# "Every write pays for two places" is the usual objection. But who deletes the copy also writes in two
# places. Count both, for a write and the first read after it.


# %%
def delete_email(cache, db, email):
    db.update_user(1, email=email)
    cache.delete(KEY)


for change in (delete_email, store_email):
    with lab.record() as run:
        change(lab.cache, lab.db, "alice@example.org")
        read_user(lab.cache, lab.db)
    steps = " ".join(event.what for event in run)
    print(f"{change.__name__}: {steps.replace('GET', '| GET')}")

# %% [markdown] given=[1300]
# The same work, done by somebody else. If a read follows, storing needs one trip less (and with
# `RETURNING` two), and it is the writer who waits for the query, not the reader. If *no* read follows,
# the `SELECT` and the `SET` were for nothing.
#
# ## Who reads what was stored?
#
# So the question is what comes after a write: a read, or the next write? One hour of one key, three
# times, each with about 1,300 requests: twelve reads a write, as many reads as writes, twelve writes a
# read. Both writers get the same requests.


# %%
def requests(reads, writes, seconds=3_600):
    read = [(at, "read") for at in traffic.poisson(reads / seconds, seconds, seed=1)]
    write = [(at, "write") for at in traffic.poisson(writes / seconds, seconds, seed=2)]
    return sorted(read + write)


def shop(what_comes, change):
    def play(cache, db):
        now = 0
        for at, what in what_comes:
            time.sleep(at - now)
            now = at
            read_user(cache, db) if what == "read" else change(cache, db, f"{at}@example.org")

    return play


# %%
def never_read(run):
    unread, waiting = 0, 0
    for event in run:
        if event.kind == "fill":
            unread, waiting = unread + waiting, 1
        elif event.kind == "hit":
            waiting = 0
    return unread + waiting


question = "Twelve writes a read: what share of the stored values does nobody ever read?"
predict(question, key="unread", unit="%")

# %%
for reads, writes in ((1_200, 100), (650, 650), (100, 1_200)):
    came = requests(reads, writes)
    deleting = stage.run({"shop": shop(came, delete_email)})
    storing = stage.run({"shop": shop(came, store_email)})
    unread = 100 * never_read(storing) / storing.fills
    print(
        f"{reads:5,} reads, {writes:5,} writes. Hit rate: deleting {deleting.hit_rate:4.0%},"
        f" storing {storing.hit_rate:4.0%}; stored and never read: {unread:.0f} %"
    )
reveal("unread", round(unread))

# %% [markdown] given=[10]
# The hit rate of write-through is close to 100 % in all three rows, and says nothing. In the last row
# nine stores in ten were thrown away unread. It is the same fact seen from two sides: what counts is
# whether a read or a write comes next, and for requests that come independently of each other the
# chance of a write is **writes ÷ (reads + writes)**. Whoever deletes pays that share of the reads as
# misses, whoever stores pays that share of the stores for nothing.

# %%
for reads, writes in ((1_200, 100), (650, 650), (100, 1_200)):
    print(f"{reads:5,} reads, {writes:5,} writes: {writes / (reads + writes):.0%}")

# %% [markdown]
# (The first row counted 5 %, not 8 %: a hundred writes are few, and chance shows.)
#
# That was one key. Now many: at night a job sets new prices for all 500 products, through the cache, as
# the pattern says. In the morning come 1,000 page views, most of them of the same few products.
# **Predict:** how many of the 500 copies does anybody look at?

# %%
from cachelab.patterns import cache_aside

draw = random.Random(6)
views = [min(int(draw.paretovariate(1)), 500) for _ in range(1_000)]


def show_page(product):
    key = f"product:v1:{product}"
    return cache_aside.read(lab.cache, key, lambda: lab.db.product(product), 86_400)


# %%
lab.clear()
for product in range(1, 501):
    lab.db.update_product(product, price_cents=500 + product)
    lab.cache.set(f"product:v1:{product}", json.dumps(lab.db.product(product)), ex=86_400)
stored = len(lab.keys())

with lab.record() as run:
    for product in views:
        show_page(product)
print(f"stored by the job: {stored}, looked at: {len({event.on for event in run.of('hit')})}")

# %%
lab.clear()
for product in views:
    show_page(product)
print(f"without the job, filled on demand: {len(lab.keys())}")

# %% [markdown] given=[439]
# The 439 others hold memory for a day, and in a full cache they push out what people do read
# (`12_over_caching`). A job that writes everything should delete, or leave the cache alone and let the
# TTL do it.
#
# ## Break it, first way: the second write fails
#
# Commit and `SET` are two writes to two systems. The server is ours, so let it die just before the
# second one. **Predict:** what does the caller see, and what does the database say?

# %%
lab.kill_cache()
try:
    store_email(lab.cache, lab.db, "alice@new-job.example")
except redis.ConnectionError:
    print("the caller sees: ConnectionError")
print("the database has:", lab.db.user(1)["email"])
lab.restart_cache()
print("the next reader gets:", read_user(lab.cache, lab.db)["email"])

# %% [markdown]
# An error page for a change that *was* made. The reader is lucky: a server that died comes back empty.
# The dangerous one is the server that was only out of reach, for it comes back with its old copies.
# That is one argument to the stage. A clerk books five chairs into stock at second 40, while the cache
# is not reachable for three seconds; a customer looks every 30 s.


# %%
def look(cache, db):
    stored = cache.get("stock:v1:1")
    if stored is None:
        stored = json.dumps(db.stock(1))
        cache.set("stock:v1:1", stored, ex=300)
    return json.loads(stored)


def book(cache, db):
    with db.engine.begin() as connection:
        connection.execute(sa.text("UPDATE products SET stock = stock + 5 WHERE id = 1"))
    cache.set("stock:v1:1", json.dumps(db.stock(1)), ex=300)


# %%
def customer(cache, db):
    for _ in range(12):
        time.sleep(30)
        look(cache, db)


# %%
outage = [stage.CacheDown(39, 42)]
run = stage.run({"clerk": (40, book), "customer": customer}, setup=look, faults=outage)
print("the clerk sees:", type(run.answers["clerk"]).__name__)
print("stale answers: ", len(run.stale))
cachelab.lanes(run[:16])

# %% [markdown]
# The lanes show how it begins. In the clerk's, the update and its commit (triangle, bar) go
# through, the new number is read (diamond), and the `SET` fails (cross; the second one is the error
# that the clerk sees). The stars, in the stage's own lane, are the beginning and the end of the
# outage. From then on the customer, who sleeps between two looks, is served the old number, until
# the TTL of 300 s ends it and the customer's own miss repairs the copy.
#
# And the clerk? They saw an error, so they press the button again.


# %%
def persistent(cache, db):
    for _ in range(2):
        try:
            return book(cache, db)
        except redis.ConnectionError:
            time.sleep(5)


question = "14 chairs in stock, the clerk books 5. How many does the database say?"
predict(question, key="chairs", unit="chairs")

# %%
run = stage.run({"clerk": (40, persistent), "customer": customer}, setup=look, faults=outage)
print("database:", run.world.db.stock(1), "| cache:", run.world.cache.get("stock:v1:1"))
reveal("chairs", run.world.db.stock(1))

# %% [markdown] given=[19]
# Cache and database agree now, and both are wrong: there are nineteen chairs in the storeroom. **An error
# after the commit is a lie to the caller**, and what follows from it can be worse than a stale read.
#
# ## The fix: after the commit nothing may fail
#
# The commit decides. What the cache does afterwards is logged, never raised. If the row cannot be
# stored, at least the old copy should go, and if that fails as well, the TTL has to do it. (The
# `SET_IF_NEWER` in it comes further down.)

# %%
from cachelab.patterns import versioned_set, write_through

cachelab.show(write_through.write)

# %% [markdown]
# The same update twice: during an outage so short that it meets a single command, and during one of
# three seconds. A copy lives for 300 s or for 60 s, and somebody reads every ten seconds. **Predict**
# the four numbers of stale answers.


# %%
def careful(ttl, email="new@example.org"):
    def write(cache, db):
        def save():
            db.update_user(1, email=email)
            return db.user(1)

        return write_through.write(cache, KEY, save, ttl)

    return write


# %%
def forty_reads(ttl):
    def read(cache, db):
        for _ in range(40):
            write_through.read(cache, KEY, lambda: db.user(1), ttl)
            time.sleep(10)

    return read


# %%
logging.disable(logging.ERROR)  # the pattern logs each failure; here we count them instead
for ttl in (300, 60):
    for down in (stage.CacheDown(24.995, 25.015), stage.CacheDown(24, 27)):
        cast = {"reader": forty_reads(ttl), "writer": (25, careful(ttl))}
        run = stage.run(cast, hop=0.01, faults=[down])
        did = " ".join(event.what for event in run if event.actor == "writer")
        print(f"TTL {ttl:3} s: {did}, errors {run.errors}, stale answers {len(run.stale)}")

# %% [markdown]
# (`EVAL` is the store.) In none of the four did the writer see an error. After the short outage the
# delete got through, and nobody was served an old row. In the long one neither did, and the TTL alone
# decides between 27 old answers and 3: that is why a copy needs a TTL within its staleness budget
# (`11_stale_data`) also where every writer stores.
#
# **Break the fix:** the process can die between the commit and the `SET`. `crashes=1` tries that at
# every step. (With `commit_apart=False` an `UPDATE` and its commit count as one step.)


# %%
def reader(cache, db):
    return write_through.read(cache, KEY, lambda: db.user(1), 300)


def no_old_copy(world):
    stored = world.cache.get(KEY)
    if stored is not None and json.loads(stored) != world.db.user(1):
        return "an old row is left in the cache."


# %%
cast = {"reader": reader, "writer": careful(300)}
dying = stage.explore(cast, no_old_copy, setup=reader, crashes=1, commit_apart=False)
print(dying.outcome, [event.what for event in dying.counterexample if event.actor == "writer"])

# %% [markdown]
# Nothing that the writer does *after* the commit can help here. What would: a note "this key is stale",
# committed in the same transaction as the row, which somebody else reads and carries out. It is called
# an **outbox**, and `09_invalidation` builds one. Until then the TTL is your only answer.
#
# ## Break it, second way: the cache first
#
# If the second write may get lost, why not make the cache the first? **Predict** what readers get when
# the database says no.


# %%
def cache_first(cache, db, email):
    cache.set(KEY, json.dumps({**db.user(1), "email": email}), ex=300)
    with db.engine.begin() as connection:
        change = sa.text("UPDATE users SET email = :email WHERE id = 1")
        connection.execute(change, {"email": email})
        raise ValueError("this address belongs to somebody else")  # so it is rolled back


# %%
lab.clear()
try:
    cache_first(lab.cache, lab.db, "bruno@example.org")
except ValueError as error:
    print("the caller sees:  ", error)
lab.fast_forward(4 * 60)
print("readers are served:", read_user(lab.cache, lab.db)["email"])
print("the database has:  ", lab.db.user(1)["email"])

# %% [markdown]
# A stale copy was true once. This one never was, and four minutes later Alice still has an address
# that belongs to somebody else. Also without a rollback there is a moment in which readers see what is
# not committed yet. The same goes for a `SET` inside the transaction. First the commit, then the cache.
#
# ## Break it, third way: two writers
#
# Alice's address is changed by herself and, in the same moment, by support. Each writer takes three
# steps: `UPDATE` with its commit, `SELECT`, `SET`. There are twenty orders.

# %%
predict("How many of the twenty orders leave an old row in the cache?", key="two", unit="orders")


# %%
def saving(change, email):
    def save(cache, db):
        change(cache, db, email)
        return email

    return save


two = {name: saving(store_email, f"{name}@example.org") for name in ("alice", "support")}
race = stage.explore(two, no_old_copy, commit_apart=False)
print(race.summary, reveal("two", race.failing), sep="\n")
cachelab.lanes(race.counterexample)

# %% [markdown]
# In the lanes, the one who wrote first is the last to store (the square at the right end). The database
# put the two commits in order, the cache put the two `SET`s in order, and nothing makes the orders
# the same. No error, no log line, and the old row stays for the whole TTL. "No stale reads" is true
# for one writer at a time.
#
# ## The fix: let the newer row win
#
# Every update of the shop raises the row's `version`. A store that replaces only an older version does
# not care who comes last. To look and to store must be one step, and a Lua script on the server is
# one:

# %%
print(versioned_set.SET_IF_NEWER.strip())


# %%
def store_newer(cache, db, email):
    careful(300, email)(cache, db)


newer = {name: saving(store_newer, f"{name}@example.org") for name in ("alice", "support")}
stage.explore(newer, no_old_copy, commit_apart=False)

# %% [markdown]
# Proved for these two, as every order was run or equals one that was. But readers store as well. Four
# ways to write, and beside them readers who miss: plain ones, or ones that fill with `NX`, only if
# there is nothing. **Predict** which of the four is clean in all three columns.


# %%
def read_nx(cache, db):
    stored = cache.get(KEY)
    if stored is None:
        stored = json.dumps(db.user(1))
        cache.set(KEY, stored, ex=300, nx=True)
    return json.loads(stored)


ways = {
    "store": (read_user, store_email),
    "store, fill with NX": (read_nx, store_email),
    "delete": (read_user, delete_email),
    "store the newer": (reader, store_newer),
}

# %%
print(f"{'orders that leave an old row':30} two writers  reader, writer  all three")
for way, (read, change) in ways.items():
    one, other = saving(change, "one@example.org"), saving(change, "two@example.org")
    casts = ([one, other], [read, one], [read, one, other])
    found = [stage.explore(cast, no_old_copy, commit_apart=False) for cast in casts]
    bad = [f"{each.failing} of {each.orders:,}" for each in found]
    print(f"{way:30} {bad[0]:12} {bad[1]:15} {bad[2]}")

# %% [markdown]
# Deleting is the simplest cure for two writers: two deletes in any order are the same. What it leaves
# is one order of ten with a reader in it, the fill that began before the write (`11_stale_data`).
# `NX` cures that one and not the writers. Only versions, in writers *and* readers, are clean
# everywhere.
#
# **Break the fix.** An admin corrects a name by hand, in SQL, and does not think of the version. Then
# somebody tells the cache to store the row again.

# %%
lab.db.update_user(1, name="Alice")
lab.clear()
reader(lab.cache, lab.db)
with lab.db.engine.begin() as connection:
    connection.execute(sa.text("UPDATE users SET name = 'Alicia' WHERE id = 1"))
print("stored again:", versioned_set.put(lab.cache, KEY, lab.db.user(1), 300))
print("readers are served:", reader(lab.cache, lab.db)["name"])

# %% [markdown]
# Refused: the same version, so it cannot be newer. With versions every writer has to raise them; let
# the database do it, with a trigger, if you cannot answer for all. And an eviction in the middle of a
# fill makes the cache forget which version it had (`11_stale_data`).
#
# ## The other door
#
# Last, no race at all. Another service changes the row in the database and has never heard of our
# cache. **Predict:** what is served four minutes later, and what after six?

# %%
careful(300, "alice@example.org")(lab.cache, lab.db)
lab.someone_else.update_user(1, email="alice@other-door.example")
for minutes in (4, 2):
    lab.fast_forward(60 * minutes)
    print(reader(lab.cache, lab.db)["email"])

# %% [markdown] given=[13]
# Write-through keeps fresh what is written *through it*. The public page of `05_cache_aside`, made
# from the same row under another key, stays old in the same way: a writer that stores has to know
# each such key, like one that deletes, and has to be able to build each value besides.
#
# ## When to store, when to delete
#
# | store (write-through) | delete (cache-aside) |
# |---|---|
# | a read follows nearly every write, and soon | writes come in a row, or in bulk |
# | somebody waits for that read: they saved, the page reloads | the next reader can wait for one query |
# | one row, one key, one shape | the row is part of many keys |
# | all writers use one function, rows have a version | anybody may write |
# | the TTL is within the budget | the TTL is within the budget |
#
# User settings, the article's own example, fit the left side: written now and then, read on each page.
# With twelve reads a write one store in thirteen is wasted, by the formula. But look at what it wins
# there: a hit rate of nearly 100 % instead of 93 %, that is, one miss for each write. If the query is
# cheap, delete.

# %% [markdown]
# ## Recap
#
# - Write-through: commit, read the row again, store it in the shape that readers expect. The next read
#   is a hit.
# - Of the stores, writes ÷ (reads + writes) are never read; that is also the share of misses that a
#   delete would cost.
# - Commit first. After it nothing may raise: store, else delete, else let the TTL end it. A writer that
#   dies in between needs an outbox.
# - Two writers store in any order. Compare versions, in one step, in writers and readers; or delete.
#
# Your guesses, and what came:

# %%
logging.disable(logging.NOTSET)
recap()

# %% [markdown]
# **Now your turn:** `labs/06_write_through.ipynb`.
