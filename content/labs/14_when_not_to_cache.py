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
# # Leave it out, or mend it
#
# **About 45 minutes.** Ten cases to judge, each with a reason, and three pieces of code that need no cache.
# The notebook `14_when_not_to_cache` has all you need.
#
# The checks bring their own shop, fresh each time. `cachelab.hint("14_when_not_to_cache.index")` helps.

# %%
import sqlalchemy as sa

import cachelab
from cachelab.exercises.lab_14_when_not_to_cache import RULES, review

lab = cachelab.start()

# %% [markdown] given=[80]
# ## 1. Ten cases
#
# Somebody wants to cache each of these. `reads` and `writes` are of one key, per second unless it says otherwise; the budget is how
# old an answer may be; the last two columns are the rows that one query reads and shows.
#
# | case | what it is | keys | reads | writes | query | budget | tables | read | shown |
# |---|---|---|---|---|---|---|---|---|---|
# | `refund` | may this clerk pay out a refund? | 50 | 0.02 | 30 a year | 4 ms | 0 | 1 | 3 | 3 |
# | `courier` | a parcel on the map, for one customer | 300 | 0.2 | 1 | 4 ms | 5 s | 1 | 1 | 1 |
# | `auction` | the price that everybody watches | 1 | 2,000 | 1 | 20 ms | 1 s | 1 | 1 | 1 |
# | `best sellers` | by category, on the home page | 5 | 2 | 1 | 1.2 s | 1 h | 2 | 40,000 | 5 |
# | `my orders` | "has my order arrived?" | 100,000 | 0.0005 | 0.00001 | 40 ms | 0 | 1 | 200,000 | 200 |
# | `search` | results with filters and sorting | 400,000 | 0.0001 | 0.5 | 30 ms | 60 s | 6 | 300 | 20 |
# | `countries` | the list of valid country codes | 1 | 2,000 | 1 a year | 4 ms | 1 day | 1 | 250 | 250 |
# | `partner's rate` | changed by a partner, who tells nobody | 30 | 2 | 0.01 | 80 ms | nobody knows | 1 | 1 | 1 |
# | `product page` | in a small shop | 500 | 0.1 | 0.0001 | 4 ms | 300 s | 1 | 1 | 1 |
# | `export` | all orders, for the accountant | 1 | 0.00002 | 1 | 3 s | 60 s | 3 | 200,000 | 200,000 |
#
# Your verdict is one of `"cache"`, `"no cache"` and `"fix the query"`; the rule is one of these:

# %%
for rule, meaning in RULES.items():
    print(f"{rule:9} {meaning}")

# %% [markdown]
# Without a cache keys × reads × query is how many connections are busy. A lookup or a store in the cache
# takes half a millisecond, which a copy must earn first: it pays if it frees a tenth of a connection at least,
# and where it could free three, leaving it out is wrong. For some cases more than one answer is right. The reason is for yourself in a year: at least four words.


# %% exercise="14_when_not_to_cache.cases" minutes=15
def judge_cases():
    """A verdict on each of the ten cases, with the rule that decides, and your reason.

    Returns a dict of a verdict, a rule and a reason for each case's name, such as
    {"refund": ("no cache", "security", "why, in words of your own"), ...}
    """
    ### BEGIN SOLUTION
    return {
        "refund": ("no cache", "security", "Who was dismissed at noon must not pay out at one."),
        "courier": (
            "no cache",
            "writes",
            "Five writes a read: copies are deleted before they are read.",
        ),
        "auction": ("cache", "none", "40 connections busy; one second of TTL takes nearly all."),
        "best sellers": ("cache", "none", "Expensive, and an hour of staleness hurts nobody."),
        "my orders": ("fix the query", "query", "200,000 rows read to show 200: an index."),
        "search": ("no cache", "joins", "Six tables, and hardly ever the same search twice."),
        "countries": ("cache", "none", "Changes once a year, is needed 2,000 times a second."),
        "partner's rate": ("no cache", "owner", "First agree on how old a rate may be."),
        "product page": ("no cache", "traffic", "A fifth of one connection, who would notice?"),
        "export": ("no cache", "traffic", "Twice a day; a copy of a minute is never met."),
    }
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# For each case work out three numbers: reads per write, rate x time (keys x reads x query: the busy
# connections), and the reads that fall into one budget.

# %% [markdown] tags=["hint"]
# Budget 0 or unknown: no cache. Far more rows read than shown: fix the query. Less than half a
# connection busy: traffic. Many connections busy and a budget: cache.

# %% [markdown] tags=["hint"]
# Cache: "auction", "countries", and "best sellers" (or fix it). Fix the query: "my orders". The
# other six stay without a cache, each for a rule of its own.

# %%
cachelab.check("14_when_not_to_cache.cases", judge_cases)

# %% [markdown]
# Now the model answers beside yours. (Yours stay where you wrote them, and are saved with the lab.) Where they
# differ and the check passed, both can be defended: do it, aloud.

# %%
review(judge_cases)

# %% [markdown] tags=["solution"]
# Four of the article's rules would have decided otherwise by their wording alone: the auction is written
# every second, so are the orders under the best sellers, the countries are a query under 5 ms, and the
# export has a huge query and no use for a copy.

# %% [markdown]
# ## 2. Fix the query
#
# "My orders of this month" is slow in a shop with many orders:
#
# ```sql
# SELECT id, placed_on, total_cents FROM orders
# WHERE user_id = :user AND substr(placed_on, 1, 7) = substr(:first, 1, 7)
# ORDER BY placed_on DESC, id DESC
# ```
#
# `:user` is a customer, `:first` the first day of the month and `:after` the first day of the next
# month, such as `2025-03-01` and `2025-04-01`. Add what index it needs, and rewrite it so that it reads only
# the orders that it shows. SQLite keeps a date as text, `2025-03-31`. Try `EXPLAIN QUERY PLAN` on `lab.db`.


# %% exercise="14_when_not_to_cache.index" minutes=12
def repair(db):
    """Add an index to the shop, and give the text of the repaired query.

    db: the shop; `db.engine` is SQLAlchemy's. May be called again, as each deploy does.
    Returns SQL with the parameters :user, :first and :after, and the same columns and rows in
    the same order as before.
    """
    ### BEGIN SOLUTION
    with db.engine.begin() as connection:
        index = "CREATE INDEX IF NOT EXISTS orders_by_user_and_day ON orders (user_id, placed_on)"
        connection.execute(sa.text(index))
    return """
        SELECT id, placed_on, total_cents FROM orders
        WHERE user_id = :user AND placed_on >= :first AND placed_on < :after
        ORDER BY placed_on DESC, id DESC"""
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two things are wrong: nothing is sorted by customer, and `substr` hides the column from any index.

# %% [markdown] tags=["hint"]
# Leave the column bare: from `:first` on, and before `:after`. Then the index: first what is
# compared with `=`, then what is compared with a range.

# %% [markdown] tags=["hint"]
# `CREATE INDEX IF NOT EXISTS ... ON orders (user_id, placed_on)`, and `WHERE user_id = :user AND
# placed_on >= :first AND placed_on < :after` with the same ORDER BY.

# %%
cachelab.check("14_when_not_to_cache.index", repair)

# %% [markdown] tags=["solution"]
# First the column that is compared with `=`, then the one with a range: in the index the orders of one customer
# lie side by side, sorted by day, so the ones of March are one piece of it. Read backwards they come in
# the right order as well, and nothing has to be sorted.

# %% [markdown]
# ## 3. Take the cache away
#
# At the checkout, free shipping depends on what a customer has spent so far. It changes with each order,
# discount and cancellation, and somebody has cached it:
#
# ```python
# def spent(cache, db, user_id):
#     if cached := cache.get(f"spent:v1:{user_id}"):
#         return int(cached)
#     total = 0
#     for order_id in order_ids(db, user_id):        # one query
#         total += order_total(db, order_id)         # and one for each order
#     cache.set(f"spent:v1:{user_id}", total, ex=600)
#     return total
# ```
#
# Write it without the cache: right after every write, by whomever, and with one query.


# %% exercise="14_when_not_to_cache.uncached" minutes=8
def spent(cache, db, user_id):
    """What a customer has spent so far, in cents: int, 0 for a customer without orders.

    The table `orders` has user_id and total_cents. One query; nothing is asked of the cache
    (the callers still pass it) and nothing is left in it.
    """
    ### BEGIN SOLUTION
    asked = "SELECT coalesce(sum(total_cents), 0) FROM orders WHERE user_id = :user"
    with db.engine.connect() as connection:
        return connection.execute(sa.text(asked), {"user": user_id}).scalar_one()
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Who clears `spent:v1:<id>` when an order is placed, discounted, moved or cancelled? Which line
# makes the function slow?

# %% [markdown] tags=["hint"]
# Let the database add up: one SELECT with `sum(total_cents)`. What does a sum over no rows give?

# %% [markdown] tags=["hint"]
# `SELECT coalesce(sum(total_cents), 0) FROM orders WHERE user_id = :user`, and no line that
# mentions the cache.

# %%
cachelab.check("14_when_not_to_cache.uncached", spent)

# %% [markdown] tags=["solution"]
# Three lines, one part less, no TTL to choose, and nobody has to think of a key when they write an order.
# With an index on `user_id` it is quick as well. The next commit takes the argument `cache` away.

# %% [markdown]
# ## 4. One query, not N + 1
#
# The page of a customer's orders, with the products' names:
#
# ```python
# def order_page(db, user_id):
#     page = []
#     for order in orders_of(db, user_id):           # one query
#         product = db.product(order.product_id)     # and one for each order
#         name = product["name"] if product else None
#         page.append({"id": order.id, "product": name, "quantity": order.quantity})
#     return page
# ```
#
# Somebody wants to cache the products. Write it with two queries at most, however many orders there are,
# and without fetching rows that are not shown.


# %% exercise="14_when_not_to_cache.n_plus_one" minutes=10
def order_page(db, user_id):
    """A customer's orders, the newest (highest id) first, each with its product's name.

    Returns a list of dicts {"id": int, "product": str or None, "quantity": int}; None stands
    for a product that was removed since. [] for a customer without orders.
    """
    ### BEGIN SOLUTION
    asked = """
        SELECT o.id, p.name AS product, o.quantity FROM orders o
        LEFT JOIN products p ON p.id = o.product_id
        WHERE o.user_id = :user ORDER BY o.id DESC"""
    with db.engine.connect() as connection:
        rows = connection.execute(sa.text(asked), {"user": user_id})
        return [dict(row._mapping) for row in rows]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# How many queries does the page ask for a customer with 3 orders? And with 30?

# %% [markdown] tags=["hint"]
# Join `orders` with `products`. What becomes of an order whose product was removed?

# %% [markdown] tags=["hint"]
# `FROM orders o LEFT JOIN products p ON p.id = o.product_id WHERE o.user_id = :user ORDER BY o.id
# DESC`, and each row becomes a dict.

# %%
cachelab.check("14_when_not_to_cache.n_plus_one", order_page)

# %% [markdown] tags=["solution"]
# `LEFT JOIN`, because an order outlives its product. A second query with `WHERE id IN (...)` would do as
# well: what counts is that the number of queries does not grow with the page.

# %% [markdown]
# ## Your own
#
# Take the slowest query of your system that has a cache in front. What does its plan say?

# %%
# For instance: lab.db.engine.connect().execute(sa.text("EXPLAIN QUERY PLAN SELECT ...")).all()

# %% [markdown]
# ## Recap
#
# - Reads per write, rate × time and the budget decide; a written reason outlives the meeting.
# - An index wants the bare column: first what is equal, then the range.
# - The cheapest invalidation is of the copy that is not there.
# - N + 1 small queries are one query that nobody wrote.
#
# **Next:** `notebooks/15_operations.ipynb`.
