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
# # Decide when not to cache
#
# **About 30 minutes.**
#
# **What you'll do.** Put the article's five rules against caching to the test, one by one. Then take a
# slow query that was given a cache, mend it with an index, and take the cache away.
#
# **What you'll learn.** What each rule really measures, and where it is too strong; to read a query
# plan; four repairs that leave no copy behind; what an index costs.
#
# **What you'll need.** `01_latency_freshness_cost` and `05_cache_aside`.

# %%
import json
import random
import time
from timeit import repeat

import sqlalchemy as sa

import cachelab
from cachelab import stage, traffic
from cachelab.models import ttl, worth
from cachelab.origin import Size
from cachelab.patterns import cache_aside
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## Rule 1: not what is written often
#
# Five cases, says the article, are not for a cache. We try each on the shop, and ask which number decides.
# The first: what is written every second has more invalidations than hits, so a cache is only
# overhead. Let's write the price of an auction once a second, and delete its copy each time.

# %%
question = "One write a second, ten reads a second. How many of the reads hit?"
predict(question, key="writes", unit="%")

# %%
KEY = "price:v1:1"


def look(cache, db, seconds=300):
    return cache_aside.read(cache, KEY, lambda: db.product(1), seconds)


def bid(cache, db):
    db.update_product(1, price_cents=500)
    cache.delete(KEY)


def a_minute(read, write, reads):
    views = [(at, read) for at in traffic.poisson(reads, 60, seed=1)]
    return [*views, *((at, write) for at in traffic.poisson(1, 60, seed=4))]


# %%
for reads in (0.2, 1, 10, 100):
    run = stage.run(a_minute(look, bid, reads))
    deletes = len(run.of("delete"))
    print(f"{reads:5} reads/s: {run.hits:5,} hits, {deletes} deletes, hit rate {run.hit_rate:4.0%}")
    if reads == 10:
        measured = run.hit_rate
reveal("writes", round(100 * measured))

# %% [markdown]
# The first line is the article's case. The last is an auction that everybody watches: written every
# second, and a cache takes nearly all the load. What counts is not writes per second but **reads per
# write**. With r reads for each write the hit rate is about r ÷ (r + 1).
#
# Does each write have to delete? If the price may be a second old, a TTL of one second is enough, and the
# writers need not know of the cache.


# %%
def quiet_bid(cache, db):
    db.update_product(1, price_cents=500)


def look_for_a_second(cache, db):
    return look(cache, db, 1)


two = {"each write deletes": (look, bid), "TTL of one second": (look_for_a_second, quiet_bid)}
for name, (read, write) in two.items():
    run = stage.run(a_minute(read, write, 100))
    oldest = max((event.stale_for for event in run.stale), default=0)
    share = len(run.stale) / (run.hits + run.misses)
    print(f"{name}: {run.queries} queries, {share:.0%} stale, by {oldest:.1f} s at most")

# %% [markdown] given=[30, 60, 100]
# The same load on the database, and now four answers in ten are old, by up to a second. If that
# is within the budget it is the simpler way; if not, delete. (Here a query takes no time. When it does, a
# delete can come too early: `11_stale_data`.)
#
# **Rule 1, refined:** not what is *read* seldom between two writes.
#
# ## Rule 2: not what guards something
#
# Permissions and session validity: a TTL under ten seconds, the article says, or no cache. It also
# says that a TTL under thirty seconds is a sign of over-caching, and its own code keeps permissions
# for sixty. Three numbers for one thing. `11_stale_data` shows what a stale right does; here is what ten
# seconds would bring, for a user whose rights are looked up once in 100 s:

# %%
hits = ttl.hit_ratio(0.01, 10)
needed = worth.break_even(cache_time=0.0005, query_time=0.004, store_time=0.0005)
print(f"hit rate with a TTL of 10 s: {hits:.0%}; the cache saves time from {needed:.0%} on")

# %% [markdown]
# So here the short TTL is a risk without a gain: skip the cache. (If they were looked up every
# second it would be another matter, and a question of budget.) Often the true trouble is
# that *one page* asks the same thing again and again. That needs no cache, only a variable:

# %%
CHECKS = ("users:edit", "orders:refund", "articles:edit") * 4

with lab.record() as each:
    one_way = [right in lab.db.permissions(2) for right in CHECKS]
with lab.record() as once:
    rights = set(lab.db.permissions(2))
    other_way = [right in rights for right in CHECKS]
print("the same answers:", one_way == other_way)
print(f"twelve checks on a page: {each.queries} queries, or {once.queries}")

# %% [markdown]
# What is read once per request is as old as the request. And sessions: the article keeps them in Redis as
# its model example, and here it tells you not to cache them. Both can be right. A session that lives in
# Redis *and nowhere else* is no copy: deleting it there is the logout itself.
#
# **Rule 2, confirmed,** if a stale answer lets somebody in. The number is not ten; it is your budget.
#
# ## Rule 3: not under low traffic
#
# Fifty requests a second, says the article, are nothing to a database with proper indexes. Here is one
# that works on ten statements at once.

# %%
predict(
    "50 requests/s, ten at once. Which query time is too long for the database?",
    key="traffic",
    choices=["4 ms", "40 ms", "400 ms"],
)

# %%
arrivals = traffic.poisson(50, 20, seed=3)
for query in (0.004, 0.04, 0.4):
    cast = [(at, lambda cache, db: db.product(1)) for at in arrivals]
    run = stage.run(cast, latency=query, capacity=10)
    longest = max((event.took for event in run.of("wait")), default=0)
    print(f"{query * 1e3:3.0f} ms: {50 * query:4.1f} of ten busy, longest wait {longest:5.2f} s")
reveal("traffic", "400 ms")

# %% [markdown] given=[20, 10]
# At 4 ms the rule holds with room to spare. At 400 ms the same low traffic wants twenty connections,
# there are ten, and the queue grows for as long as the traffic lasts. The small words *properly indexed*
# carry the rule. Count **rate × time**, not requests; and if the time is what is wrong, mend the time:
# that is the second half of this chapter.
#
# **Rule 3, refined:** not where rate × time is a fraction of one connection.
#
# ## Rule 4: not a join of many tables
#
# A change in any of them can make the result wrong, says the article of a join of six. Here is one
# of our own, the page of an article: five tables, one of them, `users`, twice.

# %%
PAGE = sa.text(
    """SELECT a.title, w.name, c.text, u.name, p.name, g.name FROM articles a
    JOIN users w ON w.id = a.author_id JOIN comments c ON c.article_id = a.id
    JOIN users u ON u.id = c.user_id LEFT JOIN permissions p ON p.user_id = u.id
    LEFT JOIN products g ON g.id = u.id WHERE a.id = 60 ORDER BY c.id"""
)


# %%
def page():
    with lab.db.engine.connect() as connection:
        return connection.execute(PAGE).all()


rows = page()
print(
    f"{len(rows)} comments on the page, in {len(json.dumps([tuple(row) for row in rows])):,} bytes"
)

# %%
predict(
    "400 writes to four of these tables, rows drawn at random. How many change this page?",
    key="joins",
    unit="writes",
)

# %%
TABLES = {"articles": "title", "users": "name", "comments": "text", "products": "name"}
ROWS = {"articles": 200, "users": 1_000, "comments": 5_000, "products": 500}


def some_write(draw, number):
    table = draw.choice(list(TABLES))
    change = f"UPDATE {table} SET {TABLES[table]} = :new WHERE id = :id"
    with lab.db.engine.begin() as connection:
        new = {"new": f"changed {number}", "id": draw.randint(1, ROWS[table])}
        connection.execute(sa.text(change), new)


# %%
draw, changed, before = random.Random(14), 0, page()
for number in range(400):
    some_write(draw, number)
    now = page()
    changed, before = changed + (now != before), now
print(f"writes that change the page: {changed} of 400")
reveal("joins", changed)

# %% [markdown]
# A copy that is deleted on *every* write to these tables is nearly always deleted for nothing. Whoever
# deletes it only when it matters has to know which rows are on which page. The third way is a TTL. One
# write and one read a second, in plain Python:


# %%
def stay_fresh(way):
    draw, kept, filled, queries, wrong = random.Random(3), None, 0, 0, 0
    for second in range(200):
        before = page()
        some_write(draw, f"{second}, {way}")
        truth = page()
        expired = second - filled >= 60
        matters = truth != before
        if {"any write": True, "a write that matters": matters, "60 s": expired}[way]:
            kept = None
        if kept is None:
            kept, filled, queries = truth, second, queries + 1
        wrong += kept != truth
    return queries, wrong


# %%
for way in ("any write", "a write that matters", "60 s"):
    queries, wrong = stay_fresh(way)
    print(f"cleared by {way:21}{queries:3} queries, {wrong:3} stale answers of 200")

# %% [markdown]
# The first way is no cache at all. The second is perfect and needs a list that must never be wrong
# (`09_invalidation`): that is what the article means by extremely hard. The third needs no list, and all its
# stale answers are under a minute old, as you decided they may be. And an expensive join is just
# what hurts: the article itself lists *computed aggregates* as good to cache.
#
# **Rule 4, refined:** not if it must be exact. With a budget, the number of tables does not matter.
#
# ## Rule 5: not without an answer to "when, and who?"
#
# When does this entry become invalid, and who clears it? If you cannot say, do not cache. Three copies
# of a name, and another service that changes it and has never heard of us:

# %%
name = lab.db.user(7)["name"]
lab.cache.set("no TTL", name)
lab.cache.set("TTL of 60 s", name, ex=60)
lab.cache.set(f"version {lab.db.user(7)['version']}", name, ex=86_400)

lab.someone_else.update_user(7, name="Georg")
lab.fast_forward(3_600)
for copy in ("no TTL", "TTL of 60 s", f"version {lab.db.user(7)['version']}"):
    print(f"{copy:12} an hour later: {lab.cache.get(copy) or 'a miss, so the database is asked'}")

# %% [markdown]
# The first copy is wrong for ever. The second has an answer to both questions: *after a minute*, and
# *the clock*. So have the article's own country codes, which nothing but an hour of TTL ever clears. The
# third never becomes invalid: a new version has a new key (for which one must know the version).
#
# **Rule 5, confirmed,** if a TTL within the budget counts as an answer. "If you can't invalidate it, don't
# cache it" would forbid the country codes.
#
# ## The slow query
#
# Now the rule that the article gives elsewhere: a cache can hide bad database design. The shop has a page
# "my orders". It is slow, so it was given a cache. Ask the database first what it does.

# %%
ORDERS = "SELECT id, total_cents FROM orders WHERE user_id = 7 ORDER BY id"
SQLITE = lab.db.engine.dialect.name == "sqlite"


def plan(sql):
    with lab.db.engine.connect() as connection:
        found = connection.execute(sa.text(("EXPLAIN QUERY PLAN " if SQLITE else "EXPLAIN ") + sql))
        return [str(row[-1]).strip() for row in found]


def uses_an_index(sql):  # PostgreSQL's index of the primary key is no help here
    return any("INDEX" in line.upper() and "_pkey" not in line for line in plan(sql))


# %%
predict("How many orders does the database read to show those of one customer?", key="rows")


# %%
def ask(sql, **values):
    with lab.db.engine.connect() as connection:
        return connection.execute(sa.text(sql), values).all()


def change(sql, **values):
    with lab.db.engine.begin() as connection:
        connection.execute(sa.text(sql), values)


rows = ask("SELECT count(*) FROM orders")[0][0]
print(f"orders: {rows:,}, shown: {len(ask(ORDERS))}; uses an index: {uses_an_index(ORDERS)}")
reveal("rows", rows)

# %% [markdown]
# `EXPLAIN QUERY PLAN` (on PostgreSQL: `EXPLAIN`) does not run the query, it tells how the database
# would. For SQLite it is one line:

# %% tags=["nbval-ignore-output"]
plan(ORDERS)

# %% [markdown]
# **SCAN**: every row of the table, from the first to the last, for each visitor anew. A **SEARCH** would
# go straight to the rows it needs. So this is what the cache hides, and this is what it costs:


# %%
def my_orders(user, cached):
    def query():
        found = ask("SELECT id, total_cents FROM orders WHERE user_id = :user", user=user)
        return [list(row) for row in found]

    if not cached:
        return query()
    return cache_aside.read(lab.cache, f"orders:v1:{user}", query, 600)


def buy(user):
    number = ask("SELECT max(id) FROM orders")[0][0] + 1
    row = {"n": number, "user": user}
    change("INSERT INTO orders VALUES (:n, :user, 1, 1, 1350, '2026-01-02')", **row)
    return number


# %%
def ten_customers(cached):
    missing = 0
    for user in range(1, 11):
        my_orders(user, cached)
        number = buy(user)  # and then they look whether it has arrived
        missing += number not in [order for order, _ in my_orders(user, cached)]
    return missing


lab.clear()
missing = ten_customers(cached=True)
print(f"do not see the order they just made: {missing} of 10; keys in the cache: {len(lab.keys())}")

# %% [markdown]
# Each first visit is still slow, and when the cache is empty every visit is a first one. After
# it, each customer misses the order they have just made. Here is one of them:

# %%
with lab.record() as run:
    my_orders(11, cached=True)
    buy(11)
    my_orders(11, cached=True)
cachelab.lanes(run)

# %% [markdown]
# In the lane: the miss, the scan, the fill; then the order with its commit; then the hit, marked as
# stale. Next somebody adds an invalidation to the checkout, another to refunds, and so on. The cache
# treats the symptom, says the article, and what is underneath comes back in another form.
#
# ## The fix: an index, and no cache
#
# An index is a second, sorted table of (`user_id`, where the row is), which the database keeps up
# itself, in the same transaction.

# %%
change("CREATE INDEX orders_by_user ON orders (user_id)")
print("uses an index:", uses_an_index(ORDERS))

# %% tags=["nbval-ignore-output"]
plan(ORDERS)

# %%
lab.clear()
missing = ten_customers(cached=False)
print(f"do not see the order they just made: {missing} of 10; keys in the cache: {len(lab.keys())}")
print(f"rows read for one page: {len(my_orders(7, cached=False))} of {rows:,}")

# %% [markdown]
# Never stale, no key, no TTL, no invalidation, nothing to be down. Time it, but compare only
# the lines: a page by scan (the index is switched off by `+ 0`, see below), by index, and from the cache. A
# hit may still be the quickest. But the scan was what hurt, and it is gone, without a cache.

# %% tags=["nbval-ignore-output"]
my_orders(7, cached=True)
by_scan = ORDERS.replace("user_id", "user_id + 0")
ways = {
    "scan": lambda: ask(by_scan),
    "index": lambda: ask(ORDERS),
    "cache hit": lambda: my_orders(7, cached=True),
}
took = {name: min(repeat(do, number=2, repeat=25)) for name, do in ways.items()}
for name, seconds in took.items():
    print(f"{name:10}{seconds / took['index']:7.2f} times the index")

# %% [markdown]
# ## Break the fix
#
# An index helps only a query that asks in its order. **Predict** which of these can use an index on
# (`user_id`, `placed_on`).

# %%
change("CREATE INDEX orders_by_user_and_day ON orders (user_id, placed_on)")
change("DROP INDEX orders_by_user")
MARCH = "placed_on >= '2025-03-01' AND placed_on < '2025-04-01'"
for where in (
    "user_id = 7",
    f"user_id = 7 AND {MARCH}",
    MARCH,
    "user_id + 0 = 7",
    "CAST(user_id AS TEXT) = '7'",
):
    print(f"{uses_an_index(f'SELECT * FROM orders WHERE {where}')!s:6} WHERE {where}")

# %% [markdown]
# It is sorted by customer first, like a phone book by surname: it does not help to find all the
# Georges. And a column inside an expression is not what the index is sorted by. Leave the column
# bare and put the arithmetic on the other side.
#
# ## An index that is the answer
#
# If the index holds *all* the columns that the query needs, the table is not touched at all: a **covering**
# index. That is one of two reasons to name columns instead of writing `SELECT *`. (SQLite's words;
# PostgreSQL says `Index Only Scan`, and wants a `VACUUM` now and then for it.)

# %%
change("CREATE INDEX orders_spent ON orders (user_id, total_cents)")
WORDS = "COVERING INDEX" if SQLITE else "Index Only Scan"
for what in ("sum(total_cents)", "*"):
    sql = f"SELECT {what} FROM orders WHERE user_id = 7"
    size = len(json.dumps([list(row) for row in ask(sql)], default=str))
    covered = any(WORDS in line for line in plan(sql))
    print(f"SELECT {what:17} covered by the index: {covered!s:6} {size:6,} bytes")

# %% [markdown] given=[5000]
# The other reason is in the last column. Who needs one number should not fetch all the rows: before you
# cache something large, ask for less.
#
# ## What an index costs
#
# Every `INSERT` writes one more tree for every index, and an index takes room. Here are 5,000 orders
# with no index, with one, with three. (Compare the lines; nothing here waits for a disk.)


# %% tags=["nbval-ignore-output"]
def insert_orders(indexes):
    change("CREATE TABLE trial AS SELECT * FROM orders WHERE id <= 50000")
    for column in ("user_id", "product_id", "total_cents")[:indexes]:
        change(f"CREATE INDEX trial_{column} ON trial ({column})")
    more = sa.text("INSERT INTO trial SELECT * FROM orders WHERE id BETWEEN 60001 AND 65000")
    with lab.db.engine.begin() as connection:
        began = time.perf_counter()
        connection.execute(more)
        seconds = time.perf_counter() - began  # without the commit, where the lab's trace works
    change("DROP TABLE trial")
    return seconds


took = {indexes: min(insert_orders(indexes) for _ in range(5)) for indexes in (0, 1, 3)}
for indexes, seconds in took.items():
    print(f"{indexes} indexes: {seconds / took[0]:4.1f} times as long")

# %% [markdown]
# Without an index a row is only put at the end; each index has to put it in its place. So each wants a query
# that needs it. The writer pays for it, at once, and nobody pays in wrong
# answers.
#
# ## Fewer queries instead of a cache
#
# Next a page with the sixty comments of an article. Whoever wrote it asks for the comments, and then
# for each comment's author. Such a page has **N + 1** queries, each of them quick: 4 ms, where a trip to
# the cache takes half a millisecond. **Predict** three times: as it is, with all authors in the cache, and
# as one join.


# %%
def one_by_one(cache, db, author):
    with db.engine.connect() as connection:
        asked = "SELECT user_id, text FROM comments WHERE article_id = 1 ORDER BY id"
        found = connection.execute(sa.text(asked)).all()
    return [(author(cache, db, user), text) for user, text in found]


def from_database(cache, db, user):
    return db.user(user)["name"]


def from_cache(cache, db, user):
    return cache_aside.read(cache, f"name:v1:{user}", lambda: db.user(user)["name"], 300)


# %%
def joined(cache, db):
    return [(row["author"], row["text"]) for row in db.comments(1)]


def warm(cache, db):
    one_by_one(cache, db, from_cache)


size = Size(users=1_000, products=20, articles=20, comments=200, orders=60)
ways = {
    "N + 1": lambda cache, db: one_by_one(cache, db, from_database),
    "N + 1, all in the cache": lambda cache, db: one_by_one(cache, db, from_cache),
    "one join": joined,
}

# %%
shown = {}
for name, do in ways.items():
    run = stage.run({"page": do}, setup=warm, latency=0.004, hop=0.0005, size=size)
    shown[name] = run.answers["page"]
    print(f"{name:24}{run.queries:3} queries, {run.hits:3} hits, {run.elapsed * 1e3:6.1f} ms")
print("all three show the same:", len(set(map(str, shown.values()))) == 1)

# %% [markdown] given=[60, 100]
# The cache makes the page much faster, at a hit rate of 100 %, and the join beats it, and what it
# shows is true. (On the stage each statement takes 4 ms. A real join takes longer than one row by its key,
# but not as long as sixty trips.)
#
# ## A number that is kept
#
# What if a query *has* to read much? The best sellers add up all orders of a category, index or not.
# But the sum changes by one order at a time. So keep it, in a table, and change it **in the same
# transaction** as the order.

# %%
SUM = "SELECT product_id, sum(total_cents) FROM orders GROUP BY product_id ORDER BY product_id"
change("DROP TABLE IF EXISTS turnover")
change("CREATE TABLE turnover (product_id INTEGER PRIMARY KEY, cents BIGINT NOT NULL)")
change(f"INSERT INTO turnover {SUM}")


def sell(product, cents):
    with lab.db.engine.begin() as connection:
        number = connection.execute(sa.text("SELECT max(id) + 1 FROM orders")).scalar()
        order = f"INSERT INTO orders VALUES ({number}, 1, {product}, 1, {cents}, '2026-01-02')"
        connection.execute(sa.text(order))
        add = f"UPDATE turnover SET cents = cents + {cents} WHERE product_id = {product}"
        connection.execute(sa.text(add))


# %%
def is_right():
    return ask(SUM) == ask("SELECT product_id, cents FROM turnover ORDER BY product_id")


for product in range(1, 21):
    sell(product, 1_350)
KITCHEN = "JOIN products p ON p.id = product_id WHERE category = 'kitchen'"
for table in ("orders", "turnover"):
    print(
        f"{table:8} rows for one category: {ask(f'SELECT count(*) FROM {table} {KITCHEN}')[0][0]:6,}"
    )
print("right:", is_right())

change("DELETE FROM orders WHERE id = 100")  # a cancelled order, by a script that knows no turnover
print("after somebody forgot it, right:", is_right())

# %% [markdown] given=[20]
# After twenty sales it is right to the cent. A cache is allowed to be wrong for a while; this is
# never wrong, **if every writer keeps it**. And if one forgets, it is wrong for ever: it has no TTL. So
# let a trigger in the database do it, and compare now and then. It is not free either: two sales of the same
# product wait for each other's row.
#
# The article names a *materialized view* as a cure as well. That is a stored result which someone refreshes:
# a copy, with an age. It is a cache that lives in the database, and all you know about staleness applies.
#
# ## In this order
#
# | ask | repair | can it be stale? |
# |---|---|---|
# | Is it asked too often for one page? | a variable, a join | no |
# | Does it fetch more than it shows? | fewer columns, fewer rows | no |
# | Does it read more than it fetches? | an index; a bare column | no |
# | Must it add up much? | a number kept in the same transaction | no, if all keep it |
# | Does rate × time still hurt, and is there a budget? | **a cache**, with a TTL within the budget | yes, by so much |
#
# A database that reads only what it shows, and is still too busy, is what caches are for.

# %% [markdown]
# ## Recap
#
# - Reads per write, rate × time, and a staleness budget decide; "every second", "50 a second", "six tables" do
#   not.
# - What guards something is asked anew; within one request, ask once.
# - "When does it become invalid, and who clears it?" A TTL within the budget is an answer.
# - Before you cache a query, read its plan: SCAN wants an index, N + 1 wants a join.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/14_when_not_to_cache.ipynb`.
