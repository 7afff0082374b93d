"""Answers to lab 14, wrong and right, as learners write them."""

from __future__ import annotations

import json

import sqlalchemy as sa

from answers import Wrong
from cachelab.exercises.lab_14_when_not_to_cache import CASES, SLOW

# cases ---------------------------------------------------------------------------------------

WHY = {case.name: case.model[2] for case in CASES}
MODEL = {case.name: case.model for case in CASES}


def _but(**changes):
    """The model answers, but for some cases; 'my_orders' stands for 'my orders'."""
    named = {name.replace("_", " "): pair for name, pair in changes.items()}
    changed = {name: (*pair, WHY[name]) if len(pair) == 2 else pair for name, pair in named.items()}
    return lambda: {**MODEL, **changed}


def caches_everything():
    return {name: ("cache", "none", WHY[name]) for name in WHY}


def caches_nothing():
    return {name: ("no cache", "traffic", WHY[name]) for name in WHY}


def without_reasons():
    return {name: (verdict, rule, "") for name, (verdict, rule, _) in MODEL.items()}


def one_reason_for_all():
    return {
        name: (verdict, rule, "because it is better so")
        for name, (verdict, rule, _) in MODEL.items()
    }


def only_verdicts():
    return {name: verdict for name, (verdict, _, _) in MODEL.items()}


def nine_cases():
    return {name: entry for name, entry in MODEL.items() if name != "export"}


def as_a_list():
    return list(MODEL.values())


def by_their_figures():
    found = {}
    for case in CASES:
        busy = case.keys * case.reads * case.query
        if case.guards:
            verdict, rule = "no cache", "security"
        elif case.budget is None:
            verdict, rule = "no cache", "owner"
        elif case.read >= 100 * case.shown:
            verdict, rule = "fix the query", "query"
        elif busy < 0.5:
            verdict, rule = "no cache", "traffic"
        elif case.sources > 3:
            verdict, rule = "no cache", "joins"
        else:
            verdict, rule = "cache", "none"
        found[case.name] = [verdict, rule, f"{busy:.2f} connections are busy with {case.name}"]
    return found


# index ---------------------------------------------------------------------------------------

REPAIRED = (
    "SELECT id, placed_on, total_cents FROM orders"
    " WHERE user_id = :user AND placed_on >= :first AND placed_on < :after"
    " ORDER BY placed_on DESC, id DESC"
)


def _do(db, *statements):
    with db.engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def _index(db, *columns, name="an_index"):
    _do(db, f"CREATE INDEX IF NOT EXISTS {name} ON orders ({', '.join(columns)})")


def only_rewritten(db):
    return REPAIRED


def only_indexed(db):
    _index(db, "user_id", "placed_on")
    return SLOW


def index_on_the_day(db):
    _index(db, "placed_on", name="orders_by_day")
    return REPAIRED


def index_on_the_customer(db):
    _index(db, "user_id", name="orders_by_user")
    return REPAIRED


def the_day_first(db):
    _index(db, "placed_on", "user_id", name="orders_by_day_and_user")
    return REPAIRED


def with_the_next_month(db):
    _index(db, "user_id", "placed_on")
    return REPAIRED.replace("placed_on < :after", "placed_on <= :after")


def without_the_first_day(db):
    _index(db, "user_id", "placed_on")
    return REPAIRED.replace("placed_on >= :first", "placed_on > :first")


def months_of_thirty_days(db):
    _index(db, "user_id", "placed_on")
    return REPAIRED.replace("placed_on < :after", "placed_on < date(:first, '+30 days')")


def the_oldest_first(db):
    _index(db, "user_id", "placed_on")
    return REPAIRED.replace("DESC", "ASC")


def twins_the_other_way(db):
    _index(db, "user_id", "placed_on")
    return REPAIRED.replace("placed_on DESC, id DESC", "placed_on DESC, id")


def all_the_columns(db):
    _index(db, "user_id", "placed_on")
    return REPAIRED.replace("id, placed_on, total_cents", "*", 1)


def twins_are_one(db):
    _index(db, "user_id", "placed_on")
    return REPAIRED.replace(" ORDER BY", " GROUP BY placed_on, total_cents ORDER BY")


def an_index_for_each_column(db):
    _index(db, "user_id", "placed_on")
    for column in ("user_id", "placed_on", "product_id", "total_cents"):
        _index(db, column, name=f"by_{column}")
    return REPAIRED


def not_a_second_time(db):
    _do(db, "CREATE INDEX orders_by_user_and_day ON orders (user_id, placed_on)")
    return REPAIRED


def a_copy_in_a_table(db):
    _do(
        db,
        "CREATE TABLE IF NOT EXISTS mine AS SELECT * FROM orders",
        "CREATE INDEX IF NOT EXISTS fast ON mine (user_id, placed_on)",
    )
    return REPAIRED.replace("FROM orders", "FROM mine")


def throws_the_old_away(db):
    _do(db, "DELETE FROM orders WHERE placed_on < '2025-02-01'")
    _index(db, "user_id", "placed_on")
    return REPAIRED


def closes_the_shop(db):
    _do(
        db,
        "CREATE TRIGGER IF NOT EXISTS closed BEFORE INSERT ON orders"
        " BEGIN SELECT RAISE(FAIL, 'no'); END",
    )
    return REPAIRED


def the_rows_at_once(db):
    _index(db, "user_id", "placed_on")
    with db.engine.connect() as connection:
        march = {"user": 1, "first": "2025-03-01", "after": "2025-04-01"}
        return connection.execute(sa.text(REPAIRED), march).all()


def misspelt(db):
    _index(db, "user_id", "placed_on")
    return REPAIRED.replace("WHERE", "WERE")


def says_nothing(db):
    _index(db, "user_id", "placed_on")
    return " "


def never_ends(db):
    _index(db, "user_id", "placed_on")
    return "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT n, n, n FROM a"


def covering(db):
    _index(db, "user_id", "placed_on DESC", "id DESC", "total_cents")
    return sa.text(REPAIRED + ";")


def with_between(db):
    if "by_customer" not in {one["name"] for one in sa.inspect(db.engine).get_indexes("orders")}:
        orders = sa.Table("orders", sa.MetaData(), autoload_with=db.engine)
        sa.Index("by_customer", orders.c.user_id, orders.c.placed_on).create(db.engine)
    return """SELECT o.id, o.placed_on, o.total_cents FROM orders AS o
        WHERE o.placed_on BETWEEN :first AND date(:after, '-1 day') AND o.user_id = :user
        ORDER BY 2 DESC, 1 DESC"""


def by_an_expression(db):
    _index(db, "user_id", "substr(placed_on, 1, 7)", "placed_on", name="by_month")
    return SLOW


# uncached ------------------------------------------------------------------------------------


def _one(db, sql, **values):
    with db.engine.connect() as connection:
        return connection.execute(sa.text(sql), values).scalar()


SUM = "SELECT sum(total_cents) FROM orders WHERE user_id = :user"


def still_cached(cache, db, user_id):
    key = f"spent:v1:{user_id}"
    if cached := cache.get(key):
        return int(cached)
    total = _one(db, SUM, user=user_id) or 0
    cache.set(key, total, ex=600)
    return total


def cached_for_a_second(cache, db, user_id):
    key = f"spent:v2:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    total = _one(db, SUM, user=user_id) or 0
    cache.set(key, json.dumps(total), ex=1)
    return total


_totals: dict = {}


def in_a_dict(cache, db, user_id):
    mark = (id(db), user_id)
    if mark not in _totals:
        _totals[mark] = _one(db, SUM, user=user_id) or 0
    return _totals[mark]


def none_for_nothing(cache, db, user_id):
    return _one(db, SUM, user=user_id)


def as_a_float(cache, db, user_id):
    return _one(db, "SELECT total(total_cents) FROM orders WHERE user_id = :user", user=user_id)


def order_by_order(cache, db, user_id):
    with db.engine.connect() as connection:
        asked = sa.text("SELECT id FROM orders WHERE user_id = :user")
        ids = connection.execute(asked, {"user": user_id}).scalars().all()
    return sum(_one(db, "SELECT total_cents FROM orders WHERE id = :id", id=one) for one in ids)


def adds_up_the_shop(cache, db, user_id):
    with db.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT user_id, total_cents FROM orders")).all()
    return sum(cents for user, cents in rows if user == user_id)


def clears_up_behind(cache, db, user_id):
    total = _one(db, SUM, user=user_id) or 0
    cache.delete(f"spent:v1:{user_id}")
    return total


def counts_the_orders(cache, db, user_id):
    return _one(db, "SELECT count(*) FROM orders WHERE user_id = :user", user=user_id)


def each_total_once(cache, db, user_id):
    return _one(db, SUM.replace("sum(", "sum(DISTINCT "), user=user_id) or 0


def asks_twice(cache, db, user_id):
    if not _one(db, "SELECT count(*) FROM orders WHERE user_id = :user", user=user_id):
        return 0
    return _one(db, SUM, user=user_id)


def keeps_a_note_in_the_database(cache, db, user_id):
    total = _one(db, SUM, user=user_id) or 0
    with db.engine.begin() as connection:
        asked = sa.text("UPDATE users SET bio = :total WHERE id = :user")
        connection.execute(asked, {"total": str(total), "user": user_id})
    return total


def or_nothing(cache, db, user_id):
    return _one(db, SUM, user=user_id) or 0


def in_python(cache, db, user_id):
    with db.engine.connect() as connection:
        asked = sa.text("SELECT total_cents FROM orders WHERE user_id = :user")
        return sum(connection.execute(asked, {"user": user_id}).scalars())


def by_the_orm(cache, db, user_id):
    from cachelab.origin import Order

    with db.session() as session:
        asked = sa.select(sa.func.coalesce(sa.func.sum(Order.total_cents), 0))
        return session.scalar(asked.where(Order.user_id == user_id))


# n_plus_one ----------------------------------------------------------------------------------


def _rows(db, sql, **values):
    with db.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.text(sql), values)]


ORDERS = "SELECT id, product_id, quantity FROM orders WHERE user_id = :user ORDER BY id DESC"
JOINED = (
    "SELECT o.id, p.name AS product, o.quantity FROM orders o LEFT JOIN products p"
    " ON p.id = o.product_id WHERE o.user_id = :user ORDER BY o.id DESC"
)


def one_by_one(db, user_id):
    return [
        {"id": row["id"], "product": _name(db, row["product_id"]), "quantity": row["quantity"]}
        for row in _rows(db, ORDERS, user=user_id)
    ]


def _name(db, product_id):
    product = db.product(product_id)
    return product["name"] if product else None


_names: dict = {}


def names_in_a_dict(db, user_id):
    names = _names.setdefault(id(db), {})
    rows = _rows(db, ORDERS, user=user_id)
    unknown = {row["product_id"] for row in rows} - set(names)
    if unknown:
        marks = ", ".join(map(str, unknown))
        found = _rows(db, f"SELECT id, name FROM products WHERE id IN ({marks})")
        names.update({one["id"]: one["name"] for one in found})
    return [
        {"id": row["id"], "product": names.get(row["product_id"]), "quantity": row["quantity"]}
        for row in rows
    ]


def inner_join(db, user_id):
    return _rows(db, JOINED.replace("LEFT JOIN", "JOIN"), user=user_id)


def twins_as_one(db, user_id):
    found = {row["product"]: row for row in _rows(db, JOINED, user=user_id)}
    return sorted(found.values(), key=lambda row: -row["id"])


def oldest_first(db, user_id):
    return _rows(db, JOINED.replace("DESC", "ASC"), user=user_id)


def none_for_no_orders(db, user_id):
    return _rows(db, JOINED, user=user_id) or None


def every_product(db, user_id):
    names = {row["id"]: row["name"] for row in _rows(db, "SELECT id, name FROM products")}
    return [
        {"id": row["id"], "product": names.get(row["product_id"]), "quantity": row["quantity"]}
        for row in _rows(db, ORDERS, user=user_id)
    ]


def every_order(db, user_id):
    asked = JOINED.replace("WHERE o.user_id = :user", "").replace("o.id,", "o.id, o.user_id,")
    rows = [row for row in _rows(db, asked) if row.pop("user_id") == user_id]
    return rows


def the_newest_fifty(db, user_id):
    return _rows(db, f"{JOINED} LIMIT 50", user=user_id)


def everybody(db, user_id):
    return _rows(db, JOINED.replace("WHERE o.user_id = :user", ""))


def with_the_product_id(db, user_id):
    return _rows(db, ORDERS, user=user_id)


def by_two_queries(db, user_id):
    rows = _rows(db, ORDERS, user=user_id)
    asked = sa.text("SELECT id, name FROM products WHERE id IN :ids").bindparams(
        sa.bindparam("ids", expanding=True)
    )
    with db.engine.connect() as connection:
        found = connection.execute(asked, {"ids": list({row["product_id"] for row in rows})})
        names = dict(tuple(row) for row in found)
    return [
        {"id": row["id"], "product": names.get(row["product_id"]), "quantity": row["quantity"]}
        for row in rows
    ]


def by_a_subquery(db, user_id):
    asked = (
        "SELECT id, (SELECT name FROM products p WHERE p.id = product_id) AS product, quantity"
        " FROM orders WHERE user_id = :user"
    )
    return sorted(_rows(db, asked, user=user_id), key=lambda row: row["id"], reverse=True)


def by_the_orm_join(db, user_id):
    from cachelab.origin import Order, Product

    asked = (
        sa.select(Order, Product)
        .outerjoin(Product, Product.id == Order.product_id)
        .where(Order.user_id == user_id)
        .order_by(Order.id.desc())
    )
    with db.session() as session:
        return [
            {
                "id": order.id,
                "product": product.name if product else None,
                "quantity": order.quantity,
            }
            for order, product in session.execute(asked)
        ]


WRONG = {
    "14_when_not_to_cache.cases": [
        Wrong("all of it", caches_everything, "refund, 'cache': the budget is 0 s"),
        Wrong("none of it", caches_nothing, "auction, 'no cache': its queries keep 40.0"),
        Wrong(
            "best sellers, as orders are written each second",
            _but(best_sellers=("no cache", "writes")),
            "best sellers, 'no cache'",
        ),
        Wrong("under 5 ms", _but(countries=("no cache", "traffic")), "countries, 'no cache'"),
        Wrong(
            "a slow query wants a cache", _but(export=("cache", "none")), "export, 'cache': 0.1%"
        ),
        Wrong("ten seconds of search", _but(search=("cache", "none")), "search, 'cache': 0.6%"),
        Wrong(
            "five seconds of courier", _but(courier=("cache", "none")), "courier, 'cache': 50.0%"
        ),
        Wrong(
            "the partner for a minute",
            lambda: {**MODEL, "partner's rate": ("cache", "none", "a minute is surely fine")},
            "partner's rate, 'cache': nobody can say how old",
        ),
        Wrong("slow stays slow", _but(my_orders=("no cache", "security")), "leaves the query"),
        Wrong("an index for the courier", _but(courier=("fix the query", "query")), "to mend"),
        Wrong(
            "the auction by its writes", _but(auction=("cache", "writes")), "leads to 'no cache'"
        ),
        Wrong("the courier as a join", _but(courier=("no cache", "joins")), "made of 1 table"),
        Wrong("the product page by its writes", _but(product_page=("no cache", "writes")), "1,000"),
        Wrong("a guard that is none", _but(search=("no cache", "security")), "lets nobody in"),
        Wrong(
            "search as low traffic", _but(search=("no cache", "traffic")), "keep 1.2 connections"
        ),
        Wrong("nobody owns the export", _but(export=("no cache", "owner")), "a budget of 60 s"),
        Wrong("another verdict", _but(refund=("no", "security")), "'no' is none of cache"),
        Wrong("another rule", _but(refund=("no cache", "safety")), "'safety' is none of the rules"),
        Wrong("no reasons", without_reasons, "refund: the reason is ''"),
        Wrong("one reason for all", one_reason_for_all, "The same reason stands at 10 cases"),
        Wrong("only verdicts", only_verdicts, "expected were three texts"),
        Wrong("nine cases", nine_cases, "these are missing: export"),
        Wrong("a list", as_a_list, "expected was a dict"),
    ],
    "14_when_not_to_cache.index": [
        Wrong("only rewritten", only_rewritten, "reads every order of the shop (its plan: SCAN"),
        Wrong("only indexed", only_indexed, "every order of the customer"),
        Wrong("index on the day", index_on_the_day, "every order of the month"),
        Wrong("index on the customer", index_on_the_customer, "USING INDEX orders_by_user"),
        Wrong("the day first", the_day_first, "INDEX orders_by_day_and_user"),
        Wrong("with the next month", with_the_next_month, "is none of them"),
        Wrong("without the first day", without_the_first_day, "2025-03-01 with id"),
        Wrong("months of thirty days", months_of_thirty_days, "Customer 3, 2025-02"),
        Wrong("the oldest first", the_oldest_first, "in another order: number 1 is 2025-03-01"),
        Wrong("twins the other way", twins_the_other_way, "in another order"),
        Wrong("all the columns", all_the_columns, "6 columns"),
        Wrong("twins are one", twins_are_one, "is missing"),
        Wrong("an index for each column", an_index_for_each_column, "5 indexes on orders"),
        Wrong("not a second time", not_a_second_time, "already exists"),
        Wrong("a copy in a table", a_copy_in_a_table, "After five new orders"),
        Wrong("throws the old away", throws_the_old_away, "The orders themselves"),
        Wrong("no more orders", closes_the_shop, "no order can be stored"),
        Wrong("the rows at once", the_rows_at_once, "expected was the text"),
        Wrong("says nothing", says_nothing, "an empty text"),
        Wrong("never ends", never_ends, "did not end in 3,000,000 steps"),
        Wrong("misspelt", misspelt, "cannot be run: 'near"),
    ],
    "14_when_not_to_cache.uncached": [
        Wrong("still cached", still_cached, "At first spent(cache, db, 1) gave 1; expected"),
        Wrong("cached for a second", cached_for_a_second, "goes to the cache (GET spent:v2:1)"),
        Wrong("in a dict", in_a_dict, "After a new order"),
        Wrong("None for nothing", none_for_nothing, "gave None (a NoneType); expected was 0"),
        Wrong("a float", as_a_float, "(a float)"),
        Wrong("order by order", order_by_order, "queries for"),
        Wrong("adds up the shop", adds_up_the_shop, "fetched 50 rows"),
        Wrong("clears up behind itself", clears_up_behind, "goes to the cache (DEL spent:v1:1)"),
        Wrong("counts the orders", counts_the_orders, "gave 3; expected was 30750"),
        Wrong("each total once", each_total_once, "After the same order once more"),
        Wrong("asks twice", asks_twice, "with 2 queries"),
        Wrong("a note in the database", keeps_a_note_in_the_database, "wrote into the database"),
    ],
    "14_when_not_to_cache.n_plus_one": [
        Wrong("one by one", one_by_one, "queries for"),
        Wrong("names in a dict", names_in_a_dict, "After a product got a new name"),
        Wrong("inner join", inner_join, "After product 1 was removed"),
        Wrong("twins are one", twins_as_one, "is missing"),
        Wrong("the oldest first", oldest_first, "expected at this place"),
        Wrong("None for no orders", none_for_no_orders, "gave None; expected was a list of 0"),
        Wrong("every product", every_product, "fetched"),
        Wrong("every order", every_order, "fetched"),
        Wrong("the newest fifty", the_newest_fifty, "After 120 more orders"),
        Wrong("everybody's", everybody, "expected were"),
        Wrong("the product's id", with_the_product_id, 'of "id", "product" and "quantity"'),
    ],
}

RIGHT = {
    "14_when_not_to_cache.cases": [
        by_their_figures,
        _but(product_page=("cache", "none"), search=("no cache", "writes")),
        _but(best_sellers=("fix the query", "query"), refund=("no cache", "traffic")),
    ],
    "14_when_not_to_cache.index": [covering, with_between, by_an_expression],
    "14_when_not_to_cache.uncached": [or_nothing, in_python, by_the_orm],
    "14_when_not_to_cache.n_plus_one": [by_two_queries, by_a_subquery, by_the_orm_join],
}
