"""What an operation touches is known, or it touches everything: no order is left out by mistake."""

from __future__ import annotations

import sqlite3

import pytest
import redis
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from cachelab import stage
from cachelab.origin import Permission, Product, User
from cachelab.stage.statements import Compiler


def both_searches(actors, invariant, **how):
    """The verdict, which the search that leaves nothing out has to share."""
    found = stage.explore(actors, invariant, **how)
    full = stage.explore(actors, invariant, prune=False, **how)
    assert (found.outcome, found.failing, found.orders) == (full.outcome, full.failing, full.orders)
    return found


def both_ends(actors, end, **how):
    """What `end(world)` says of all orders, which the search that leaves nothing out says too."""
    ends = []
    for prune in (True, False):
        said = set()
        stage.explore(actors, lambda w, said=said: said.add(end(w)), prune=prune, **how)
        ends.append(said)
    assert ends[0] == ends[1]
    return ends[0]


def twice(read):
    def reader(cache, db):
        return read(cache, db), read(cache, db)

    return reader


def one_truth(world):
    first, second = world.answers["reader"]
    return first == second or f"one page, two truths: {first} and {second}"


def sql(text, *values):
    def do(cache, db):
        with db.engine.begin() as connection:
            found = connection.exec_driver_sql(text, values)
            return [tuple(row) for row in found] if found.returns_rows else found.rowcount

    return do


# SQL -----------------------------------------------------------------------------------------


def tables(cache, db):
    with db.engine.begin() as connection:
        for made in (
            "CREATE VIEW emails AS SELECT id, email FROM users",
            "CREATE TABLE totals (id INTEGER PRIMARY KEY, n INTEGER)",
            "INSERT INTO totals VALUES (1, 0)",
            "CREATE TRIGGER counts AFTER UPDATE ON products BEGIN"
            " UPDATE totals SET n = n + 1 WHERE id = 1; END",
            "CREATE TABLE tags (name TEXT PRIMARY KEY COLLATE NOCASE, n INTEGER)",
            "INSERT INTO tags VALUES ('new', 0)",
        ):
            connection.exec_driver_sql(made)


def joined_by_the_orm(cache, db):
    asked = sa.select(User.name, Permission.name)
    with db.engine.connect() as connection:
        on = asked.where(Permission.user_id == User.id, User.id == 2)
        return [tuple(row) for row in connection.execute(on)]


@pytest.mark.parametrize(
    ("read", "write"),
    [
        pytest.param(
            sql("SELECT p.name FROM users u, permissions p WHERE p.user_id = u.id AND u.id = 2"),
            sql("DELETE FROM permissions WHERE user_id = 2"),
            id="a comma join",
        ),
        pytest.param(
            joined_by_the_orm,
            sql("DELETE FROM permissions WHERE user_id = 2"),
            id="a join that SQLAlchemy writes",
        ),
        pytest.param(
            sql("SELECT email FROM emails WHERE id = 1"),
            sql("UPDATE users SET email = 'new' WHERE id = 1"),
            id="a view",
        ),
        pytest.param(
            sql("SELECT n FROM totals WHERE id = 1"),
            sql("UPDATE products SET stock = 3 WHERE id = 1"),
            id="a trigger",
        ),
        pytest.param(
            sql("SELECT email FROM main.users WHERE id = 1"),
            sql("UPDATE `users` SET email = 'new' WHERE id = 1"),
            id="names with a schema and in backticks",
        ),
        pytest.param(
            sql("SELECT (SELECT count(*) FROM permissions)"),
            sql("DELETE FROM permissions WHERE user_id = 2"),
            id="a subquery",
        ),
        pytest.param(
            sql("WITH who AS (SELECT * FROM users WHERE id = ?) SELECT email FROM who", 1),
            sql("-- who?\nUPDATE users SET email = 'new' WHERE id = ?", 1),
            id="a CTE, and a comment before the verb",
        ),
        pytest.param(
            sql("SELECT email FROM users WHERE id = ?", "1"),
            sql("UPDATE users SET email = 'new' WHERE id = ?", 1.0),
            id="one row named in three types",
        ),
        pytest.param(
            sql("SELECT email FROM users WHERE id = 5000"),
            sql("UPDATE users SET id = 5000 WHERE id = ?", 1),
            id="a row that moves",
        ),
        pytest.param(
            sql("SELECT n FROM tags WHERE name = ?", "NEW"),
            sql("UPDATE tags SET n = 1 WHERE name = ?", "new"),
            id="a key that does not tell cases apart",
        ),
        pytest.param(
            sql("SELECT name FROM users WHERE id = ?", 77),
            sql(
                "INSERT INTO users SELECT 77, name, email, bio, country, version, updated_at"
                " FROM users WHERE id = 1"
            ),
            id="a row that comes",
        ),
    ],
)
def test_the_search_sees_what_a_statement_touches(read, write, request):
    if "comes" in request.node.name:
        columns = ", ".join(column.name for column in User.__table__.columns)
        others = columns.replace("id, ", "", 1)
        write = sql(f"INSERT INTO users ({columns}) SELECT 77, {others} FROM users WHERE id = 1")
    found = both_searches({"reader": twice(read), "writer": write}, one_truth, setup=tables)
    assert (found.outcome, found.failing) == ("failed", 2), found


def test_the_search_sees_what_a_cascade_and_a_foreign_key_touch():
    def setup(cache, db):
        with db.engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.exec_driver_sql("CREATE TABLE shelf (id INTEGER PRIMARY KEY)")
            connection.exec_driver_sql(
                "CREATE TABLE book (id INTEGER PRIMARY KEY,"
                " shelf INTEGER REFERENCES shelf ON DELETE CASCADE)"
            )
            connection.exec_driver_sql("INSERT INTO shelf VALUES (1)")
            connection.exec_driver_sql("INSERT INTO book VALUES (1, 1)")

    clear = sql("DELETE FROM shelf WHERE id = ?", 1)
    found = both_searches(
        {"reader": twice(sql("SELECT count(*) FROM book")), "writer": clear}, one_truth, setup=setup
    )
    assert (found.outcome, found.failing) == ("failed", 2)

    def add(cache, db):
        try:
            return sql("INSERT INTO book VALUES (2, 1)")(cache, db)
        except sa.exc.IntegrityError:
            return "no shelf"

    ends = both_ends(
        {"add": add, "clear": clear},
        lambda world: (world.answers["add"], world.answers["clear"]),
        setup=setup,
    )
    assert ends == {(1, 1), ("no shelf", 1)}


def test_a_table_made_meanwhile_is_seen():
    def look(cache, db):
        try:
            return sql("SELECT count(*) FROM later")(cache, db)
        except sa.exc.OperationalError:
            return "no such table"

    make = sql("CREATE TABLE later (id INTEGER PRIMARY KEY)")
    ends = both_ends({"look": look, "make": make}, lambda world: str(world.answers["look"]))
    assert ends == {"no such table", "[(0,)]"}


def test_rows_that_are_not_the_same_stay_apart():
    """Otherwise ever more orders would be run, until the limit says "of many"."""
    read, write = (
        sql("SELECT bio FROM users WHERE id = ?", 1),
        sql("UPDATE users SET bio = 'x' WHERE id = ?", 2),
    )
    found = stage.explore({"reader": twice(read), "writer": write}, one_truth)
    assert (found.outcome, found.schedules, found.orders) == ("proved nothing", 1, 6)


SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE);
CREATE INDEX by_name ON users (name);
CREATE TABLE flags (name VARCHAR PRIMARY KEY, enabled BOOLEAN);
CREATE TABLE pairs (a INTEGER, b INTEGER, c TEXT, PRIMARY KEY (a, b));
CREATE TABLE Ähnlich (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
"""


@pytest.mark.parametrize(
    ("text", "values", "label"),
    [
        ("SELECT * FROM users WHERE id = ?", [1], {("users", "1", False)}),
        ("SELECT * FROM users WHERE ? = id AND name = ?", [1, "x"], {("users", "1", False)}),
        ("SELECT * FROM users WHERE id = 7 LIMIT ?", [1], {("users", "7", False)}),
        ("SELECT * FROM users WHERE id = ?", [True], {("users", "1", False)}),
        ("SELECT * FROM users WHERE id = ?", ["1"], {("users", None, False)}),
        ("SELECT * FROM users WHERE id = ?", [1.0], {("users", None, False)}),
        ("SELECT * FROM users WHERE id = -?", [1], {("users", None, False)}),
        ("SELECT * FROM users WHERE id = ? OR id = ?", [1, 2], {("users", None, False)}),
        ("SELECT * FROM users WHERE id IN (?, ?)", [1, 2], {("users", None, False)}),
        ("SELECT * FROM users WHERE id > ?", [1], {("users", None, False)}),
        ("SELECT * FROM users WHERE email = ?", ["x"], {("users", None, False)}),
        ("SELECT count(*) FROM users", [], {("users", None, False)}),
        ("SELECT 1", [], set()),
        (
            "SELECT * FROM users u, flags f WHERE u.id = ?",
            [1],
            {("users", "1", False), ("flags", None, False)},
        ),
        ("SELECT enabled FROM flags WHERE name = ?", ["x"], {("flags", "x", False)}),
        ("SELECT enabled FROM flags WHERE name = ?", [1], {("flags", None, False)}),
        ("SELECT enabled FROM flags WHERE rowid = ?", [1], {("flags", None, False)}),
        ("UPDATE users SET name = ? WHERE id = ?", ["x", 2], {("users", "2", True)}),
        ("UPDATE users SET email = ? WHERE id = ?", ["x", 2], {("users", None, True)}),
        ("UPDATE users SET id = ? WHERE id = ?", [3, 2], {("users", None, True)}),
        ("UPDATE users SET oid = ? WHERE id = ?", [3, 2], {("users", None, True)}),
        ("UPDATE Ähnlich SET ID = ? WHERE id = ?", [3, 2], {("ähnlich", None, True)}),
        ("UPDATE flags SET enabled = ? WHERE name = ?", [1, "x"], {("flags", "x", True)}),
        ("UPDATE flags SET name = ? WHERE name = ?", ["y", "x"], {("flags", None, True)}),
        ("DELETE FROM users WHERE id = ?", [1], {("users", "1", True)}),
        ("DELETE FROM users", [], {("users", None, True)}),
        ("INSERT INTO users (id) VALUES (?)", [1], {("users", None, True)}),
        ("REPLACE INTO users (id) VALUES (?)", [1], {("users", None, True)}),
        (
            "INSERT INTO flags VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET enabled = 1",
            ["x"],
            {("flags", None, True)},
        ),
        (
            "INSERT INTO counted (name) VALUES (?) RETURNING id",
            ["x"],
            {("counted", None, True), ("sqlite_sequence", None, True)},
        ),
        ("SELECT c FROM pairs WHERE a = ?", [1], {("pairs", None, False)}),
        ("SELECT c FROM pairs WHERE a = ? AND b = ?", [1, 2], {("pairs", None, False)}),
        ("SELECT name FROM sqlite_master", [], {("sqlite_schema", None, False)}),
        ("PRAGMA table_info(users)", [], {("sqlite_schema", None, False)}),
        ("EXPLAIN SELECT * FROM users", [], {("sqlite_schema", None, False)}),
        ("SELECT nothing FROM users", [], None),
        ("DROP TABLE flags", [], None),
        ("SELECT * FROM json_each('[1]')", [], None),
    ],
)
def test_a_statement_is_about_one_row_only_where_its_program_proves_it(text, values, label):
    """`label` None: everything."""
    reader = Compiler()
    real = sqlite3.connect(":memory:", isolation_level=None)
    real.executescript(SCHEMA)
    real.set_authorizer(reader.note)
    said = reader.read(real, text, values).label(values)
    if label is None:
        label = {
            (name, None, True)
            for name in ("sqlite_schema", "sqlite_sequence", "users", "flags", "pairs", "counted")
        } | {("ähnlich", None, True)}
    assert {(space.removeprefix("table "), *rest) for space, *rest in said} == label
    real.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PRAGMA user_version = 3", "PRAGMA user_version = 3 is not on the stage"),
        ("CREATE TEMP TABLE mine (n)", "A temporary table is not on the stage"),
        ("ATTACH ':memory:' AS more", "A second database is not on the stage"),
        ("VACUUM", "VACUUM is not on the stage"),
        ("SELECT changes()", "are not on the stage"),
        ("INSERT OR ROLLBACK INTO flags VALUES ('x', 1)", "ON CONFLICT ROLLBACK"),
    ],
)
def test_a_statement_that_the_stage_cannot_keep_is_refused(text, said):
    with pytest.raises(stage.Refused, match=said):
        stage.run({"one": sql(text)})


def test_what_sql_draws_does_not_depend_on_who_drew_before():
    draw = sql("SELECT random()")
    assert len(both_ends({"a": draw, "b": draw}, lambda world: str(world.answers))) == 1


# Locks and isolation -------------------------------------------------------------------------


def buy(session_of, read):
    def buyer(cache, db):
        with session_of(db) as session, session.begin():
            product = read(session)
            product.stock = product.stock - 1
        return "bought"

    return buyer


def all_sold(before):
    return lambda w: w.db.stock(1) == before - 2 or f"{before} before, {w.db.stock(1)} after two"


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda s: s.get(Product, 1), "failed"),
        (lambda s: s.get(Product, 1, with_for_update=True), "passed"),
        (lambda s: s.scalars(sa.select(Product).where(Product.id == 1)).one(), "failed"),
        (
            lambda s: s.scalars(
                sa.select(Product).where(Product.id == 1).with_for_update(of=Product)
            ).one(),
            "passed",
        ),
    ],
)
def test_for_update_keeps_the_row_until_the_commit(read, outcome):
    before = stage.run({"x": lambda cache, db: db.stock(1)}).answers["x"]
    buyer = buy(lambda db: Session(db.engine), read)
    found = both_searches({"a": buyer, "b": buyer}, all_sold(before))
    assert found.outcome == outcome, found


def test_for_update_lets_go_at_a_rollback_and_without_a_transaction():
    def gives_up(cache, db):
        with db.session() as session:
            session.get(Product, 1, with_for_update=True)
            session.rollback()
        return "no"

    def only_looks(cache, db):
        engine = db.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.select(Product.stock).with_for_update())
            cache.get("x")
            return "looked"

    def writes(cache, db):
        db.update_product(1, stock=1)
        return "wrote"

    found = both_searches({"a": gives_up, "b": only_looks, "c": writes}, lambda world: None)
    assert found.outcome == "passed"
    assert found.orders > 10


@pytest.mark.parametrize("how", [{"nowait": True}, {"skip_locked": True}, {"read": True}])
def test_a_lock_that_the_stage_does_not_have_is_refused(how):
    def locks(cache, db):
        with db.session() as session:
            return session.get(Product, 1, with_for_update=how)

    with pytest.raises(stage.Refused, match="is not on the stage, where one transaction writes"):
        stage.run({"one": locks})


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
@pytest.mark.parametrize("whose", ["connection", "engine", "session"])
def test_an_isolation_level_that_the_stage_cannot_keep_is_refused(level, whose):
    def isolated(cache, db):
        if whose == "session":
            with db.session() as session:
                session.connection(execution_options={"isolation_level": level})
        elif whose == "engine":
            with db.engine.execution_options(isolation_level=level).connect():
                pass
        else:
            with db.engine.connect() as connection:
                connection.execution_options(isolation_level=level)

    with pytest.raises(stage.Refused, match=f"The isolation level {level} is not on the stage"):
        stage.run({"one": isolated})


def test_a_level_that_the_stage_keeps_is_set_and_taken_back():
    def levels(cache, db):
        with db.engine.connect() as connection:
            before = connection.get_isolation_level()
            connection.execution_options(isolation_level="AUTOCOMMIT")
            return before, connection.get_isolation_level()

    def again(cache, db):
        with db.engine.connect() as connection:
            connection.execution_options(isolation_level="READ UNCOMMITTED")
            return connection.get_isolation_level()

    answers = stage.run({"a": levels, "b": again}).answers
    assert answers == {"a": ("READ COMMITTED", "AUTOCOMMIT"), "b": "READ COMMITTED"}


def test_a_statement_that_commits_itself_may_come_before_a_transaction():
    def moves(cache, db):
        with db.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE users SET bio = bio || 't' WHERE id = 1")
        return "moved"

    def alone(cache, db):
        engine = db.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("UPDATE users SET bio = bio || 'a' WHERE id = 1")
        return "moved"

    ends = both_ends({"moves": moves, "alone": alone}, lambda world: world.db.bio(1)[-2:])
    assert ends == {"ta", "at"}


def test_a_savepoint_makes_nobody_wait_before_something_is_written():
    """Otherwise a lost update would hide behind it."""
    before = stage.run({"x": lambda cache, db: db.stock(1)}).answers["x"]

    def buyer(cache, db):
        with db.session() as session, session.begin():
            with session.begin_nested():
                product = session.get(Product, 1)
                left = product.stock
            with session.begin_nested() as nested:
                product.stock = 77
                session.flush()
                nested.rollback()
            with session.begin_nested():
                product.stock = left - 1
        return "bought"

    found = both_searches({"a": buyer, "b": buyer}, all_sold(before))
    assert found.outcome == "failed"
    assert stage.run({"a": buyer}).world.db.stock(1) == before - 1


# Generated -----------------------------------------------------------------------------------

STATEMENTS = st.sampled_from(
    [
        sql("SELECT email FROM emails WHERE id = 1"),
        sql("SELECT n FROM totals WHERE id = ?", 1),
        sql("SELECT count(*) FROM users, permissions p WHERE p.user_id = users.id"),
        sql("SELECT n FROM tags WHERE name = ?", "NEW"),
        sql("SELECT bio FROM users WHERE id = ?", "2"),
        sql("UPDATE users SET bio = bio || 'x' WHERE id = 2"),
        sql("UPDATE users SET email = email || 'x' WHERE id = ?", 1),
        sql("UPDATE products SET stock = stock + 1 WHERE id = ?", 1),
        sql("UPDATE tags SET n = n + 1 WHERE name = ?", "new"),
        sql("UPDATE tags SET n = (SELECT n FROM totals)"),
        sql("INSERT INTO totals (n) SELECT n FROM tags"),
        sql("DELETE FROM permissions WHERE id = 1"),
        sql("DELETE FROM totals WHERE id = ?", 2),
    ]
)
MOST = 300  # orders; a program with more is passed over


def ends_of(programs, setup, prune):
    ends = set()

    def actor(program):
        return lambda cache, db: [do(cache, db) for do in program]

    def look(world):
        asked = "SELECT group_concat(n) FROM totals", "SELECT n FROM tags", "SELECT bio FROM users"
        with world.db.engine.connect() as connection:
            state = [connection.exec_driver_sql(text).all() for text in asked]
        ends.add(repr((state, sorted(world.answers.items()))))

    actors = {name: actor(program) for name, program in zip("abc", programs, strict=False)}
    verdict = stage.explore(
        actors, look, setup=setup, prune=prune, limit=MOST, allow_errors=True, wall_limit=600
    )
    return ends, verdict


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(STATEMENTS, min_size=1, max_size=2), min_size=2, max_size=3))
@pytest.mark.slow
def test_statements_reach_the_same_ends_in_the_pruned_search_as_in_the_full_one(programs):
    full, all_of_them = ends_of(programs, tables, False)
    if not all_of_them.exhaustive:
        return
    pruned, verdict = ends_of(programs, tables, True)
    assert pruned == full
    assert verdict.orders == all_of_them.schedules


def test_a_script_that_does_not_say_how_many_keys_it_has_is_refused_by_the_server():
    def reader(cache, db):
        with pytest.raises(redis.ResponseError):
            cache.execute_command("EVAL", "return 1", "many", "a")

    world = stage.run({"reader": reader})
    assert [event.kind for event in world.events] == ["error"]
