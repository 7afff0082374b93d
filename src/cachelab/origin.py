"""The origin: the shop's database, as slow and as narrow as a lesson needs it, every query counted.

The engine is SQLAlchemy's own. Its events do the counting and the tracing, so a lesson may use
sessions, core statements or raw SQL and is seen all the same.
"""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cachelab.trace import Trace, say_seconds

# The shop ------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    """The tables of the shop."""


class User(Base):
    """A customer. User 1 is Alice."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str]
    bio: Mapped[str]
    role: Mapped[str]
    version: Mapped[int]


class Product(Base):
    """Something to buy. The price is in cents; a stock of 0 is sold out."""

    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    category: Mapped[str]
    price_cents: Mapped[int]
    stock: Mapped[int]
    version: Mapped[int]


class Permission(Base):
    """One thing that one user may do."""

    __tablename__ = "permissions"
    user_id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)


class Flag(Base):
    """A feature flag."""

    __tablename__ = "flags"
    name: Mapped[str] = mapped_column(primary_key=True)
    enabled: Mapped[bool]


class Article(Base):
    """A page of the shop's magazine."""

    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int]
    title: Mapped[str]
    views: Mapped[int]


class Comment(Base):
    """What a user wrote under an article."""

    __tablename__ = "comments"
    id: Mapped[int] = mapped_column(primary_key=True)
    article_id: Mapped[int] = mapped_column(index=True)
    user_id: Mapped[int]
    text: Mapped[str]


class Order(Base):
    """One sale. Large on purpose, and without the index that a slow report would want."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    product_id: Mapped[int]
    quantity: Mapped[int]
    total_cents: Mapped[int]
    placed_on: Mapped[date]


SEED = 20  # of the shop's data: the same rows on every machine
SCHEMA = 1  # raise it when the tables or the seed data change, so that old copies are not used


@dataclass(frozen=True)
class Size:
    """How many rows of each kind the shop is seeded with."""

    users: int = 1_000
    products: int = 500
    articles: int = 200
    comments: int = 5_000
    orders: int = 200_000


FULL = Size()
SMALL = Size(users=20, products=20, articles=5, comments=20, orders=50)  # for checks: copied often

_NAMES = ("Alice", "Bruno", "Chen", "Dalia", "Emre", "Fatou", "Goran", "Hana", "Ines", "Jonas")
_GOODS = ("lamp", "chair", "desk", "kettle", "rug", "clock", "mug", "shelf", "stool", "vase")
_ROOMS = ("kitchen", "office", "bedroom", "garden", "hall")


def rows(size: Size = FULL) -> dict[str, list[tuple[Any, ...]]]:
    """The seed data, table name to rows in column order; the same on every machine."""
    draw = random.Random(SEED)
    people = [_NAMES[i % len(_NAMES)] for i in range(size.users)]
    users = [
        (
            i,
            name if i <= len(_NAMES) else f"{name} {i}",
            f"{name.lower()}@example.org" if i <= len(_NAMES) else f"{name.lower()}{i}@example.org",
            f"Likes a good {_GOODS[i % len(_GOODS)]}." if i % 3 else "",
            "admin" if i == 2 else "customer",
            1,
        )
        for i, name in enumerate(people, 1)
    ]
    products = [
        (
            i,
            f"{_ROOMS[i % len(_ROOMS)]} {_GOODS[i % len(_GOODS)]} {i}",
            _ROOMS[i % len(_ROOMS)],
            500 + 25 * (i * 37 % 400),
            0 if i % 7 == 0 else i * 13 % 90 + 1,
            1,
        )
        for i in range(1, size.products + 1)
    ]
    permissions = [(2, "orders:refund"), (2, "users:edit"), (3, "articles:edit")]
    flags = [("new_checkout", False), ("recommendations", True)]
    articles = [
        (
            i,
            1 + i % size.users,
            f"How to choose a {_GOODS[i % len(_GOODS)]}, part {i}",
            i * 97 % 9000,
        )
        for i in range(1, size.articles + 1)
    ]
    # The last article has no comments yet: an empty list is a value too.
    comments = [
        (
            i,
            1 + int((size.articles - 1) * draw.random() ** 2),
            1 + int(size.users * draw.random() ** 2),
            f"Comment {i}: my {_GOODS[i % len(_GOODS)]} agrees.",
        )
        for i in range(1, size.comments + 1)
    ]
    first_day, orders = date(2025, 1, 1), []
    days = [(first_day + timedelta(days=d)).isoformat() for d in range(365)]
    uniform = draw.random
    for i in range(1, size.orders + 1):
        product = 1 + int(size.products * uniform() ** 2)
        quantity = 1 + int(3 * uniform())
        price = products[product - 1][3]
        user, day = 1 + int(size.users * uniform()), days[i * 365 // (size.orders + 1)]
        orders.append((i, user, product, quantity, quantity * price, day))
    return {
        "users": users,
        "products": products,
        "permissions": permissions,
        "flags": flags,
        "articles": articles,
        "comments": comments,
        "orders": orders,
    }


def seed_sqlite(path: Path | str, size: Size = FULL) -> None:
    """Create the shop in a new SQLite file."""
    engine = sa.create_engine(f"sqlite:///{path}")
    try:
        Base.metadata.create_all(engine)
    finally:
        engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for table, data in rows(size).items():
            marks = ", ".join("?" * len(data[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", data)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def seed_engine(engine: sa.Engine, size: Size = FULL) -> None:
    """Create the shop in a schema of its own, in place of an older one of ours."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for table, data in rows(size).items():
            columns = Base.metadata.tables[table].columns
            parsed = [_typed(columns, row) for row in data]
            connection.execute(sa.insert(Base.metadata.tables[table]), parsed)


def _typed(columns: Any, row: tuple[Any, ...]) -> dict[str, Any]:
    values = dict(zip(columns.keys(), row, strict=True))
    if "placed_on" in values:
        values["placed_on"] = date.fromisoformat(values["placed_on"])
    return values


def copy_of_shop(folder: Path, cached_in: Path, size: Size = FULL) -> Path:
    """A fresh SQLite file of the shop in `folder`, copied from one seeded once in `cached_in`.

    `cached_in` that cannot be written is no error: the shop is then seeded anew, in about a second.
    """
    target = folder / "shop.sqlite"
    master = cached_in / f"shop-{SCHEMA}-{size.orders}.sqlite"
    try:
        if not master.exists():
            cached_in.mkdir(parents=True, exist_ok=True)
            # Two kernels may do this at once: each writes its own file, the last rename wins.
            own = cached_in / f".{master.name}.{threading.get_native_id()}"
            own.unlink(missing_ok=True)
            seed_sqlite(own, size)
            own.replace(master)
        shutil.copyfile(master, target)
    except OSError:
        target.unlink(missing_ok=True)
        seed_sqlite(target, size)
    return target


# The origin ----------------------------------------------------------------------------------


class Slots(Protocol):
    """Room for so many statements at once; the others wait in order of arrival."""

    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...


class Origin:
    """The shop's database with two knobs.

    `latency`: seconds that each statement takes on top of its own time, while it holds a slot.
    `capacity`: how many statements the database works on at once; None means any number.
    """

    def __init__(
        self,
        engine: sa.Engine,
        trace: Trace,
        *,
        latency: float = 0.0,
        capacity: int | None = None,
        slots: Callable[[int], Slots] = threading.Semaphore,
        ask: Callable[[str, Any], tuple[Any, ...]] | None = None,
    ) -> None:
        self.engine = engine
        self.trace = trace
        self._make_slots = slots
        self._knobs = _Knobs(latency)
        self.capacity = capacity
        self._ask = ask or _asker(engine)
        self._actor: str | None = None
        _listen(self)

    @property
    def latency(self) -> float:
        """Seconds that each statement takes on top of its own time."""
        return self._knobs.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        if not 0 <= seconds < 3600:
            raise ValueError(f"latency is a time in seconds, 0 to 3600; this is {seconds!r}.")
        self._knobs.latency = float(seconds)

    @property
    def capacity(self) -> int | None:
        """How many statements at once; None means any number."""
        return self._knobs.capacity

    @capacity.setter
    def capacity(self, slots: int | None) -> None:
        if slots is not None and (not isinstance(slots, int) or slots < 1):
            raise ValueError(f"capacity is a whole number from 1, or None; this is {slots!r}.")
        self._knobs.capacity = slots
        self._knobs.slots = None if slots is None else self._make_slots(slots)

    @property
    def queries(self) -> int:
        """How many reads this database has been sent, by anybody, since the Lab began."""
        return self._knobs.queries

    def count_elsewhere(self, queries: int) -> None:
        """Add the reads that other processes of this Lab sent to the same database."""
        self._knobs.queries += queries

    @property
    def writes(self) -> int:
        """How many statements that change rows it has been sent."""
        return self._knobs.writes

    @property
    def name(self) -> str:
        """Product and version: 'SQLite 3.45.1'."""
        if self.engine.dialect.name == "sqlite":
            return f"SQLite {sqlite3.sqlite_version}"
        with self.trace.off_the_record(), self.engine.connect() as connection:
            version = connection.dialect.server_version_info or ()
        known = {"postgresql": "PostgreSQL"}
        title = known.get(self.engine.dialect.name, self.engine.dialect.name)
        return f"{title} {'.'.join(map(str, version))}"

    def session(self) -> Session:
        """A new SQLAlchemy session; use it as a context manager and commit what you change."""
        return Session(self.engine)

    def acting_as(self, actor: str) -> Origin:
        """The same database, used by somebody else: the admin tool, another service."""
        other = copy(self)
        other._actor = actor
        return other

    # What the shop asks of its database: each is one SELECT, or one UPDATE and its commit.

    def user(self, user_id: int) -> dict[str, Any] | None:
        """One user as a dict, or None."""
        return self._one(_by_id(User), user_id)

    def product(self, product_id: int) -> dict[str, Any] | None:
        """One product as a dict, or None."""
        return self._one(_by_id(Product), product_id)

    def stock(self, product_id: int) -> int | None:
        """How many are left: 0 is sold out, None is no such product."""
        found: int | None = self._value(sa.select(Product.stock).where(Product.id == product_id))
        return found

    def bio(self, user_id: int) -> str | None:
        """What a user says about themselves: often "", None is no such user."""
        found: str | None = self._value(sa.select(User.bio).where(User.id == user_id))
        return found

    def permissions(self, user_id: int) -> list[str]:
        """What a user may do; [] for most."""
        asked = sa.select(Permission.name).where(Permission.user_id == user_id)
        return [row[0] for row in self._rows(asked.order_by(Permission.name))]

    def flag(self, name: str) -> bool | None:
        """Whether a feature is switched on; None is no such flag."""
        found: bool | None = self._value(sa.select(Flag.enabled).where(Flag.name == name))
        return found

    def article(self, article_id: int) -> dict[str, Any] | None:
        """One article as a dict, or None."""
        return self._one(_by_id(Article), article_id)

    def comments(self, article_id: int) -> list[dict[str, Any]]:
        """The comments of an article with their authors' names; [] if nobody wrote any."""
        asked = (
            sa.select(Comment.id, Comment.text, User.name.label("author"))
            .join(User, User.id == Comment.user_id)
            .where(Comment.article_id == article_id)
            .order_by(Comment.id)
        )
        return [dict(row._mapping) for row in self._rows(asked)]

    def best_sellers(self, category: str, most: int = 5) -> list[dict[str, Any]]:
        """The products of a category by turnover: a really slow query, it reads every order."""
        turnover = sa.func.sum(Order.total_cents).label("turnover_cents")
        asked = (
            sa.select(Product.id, Product.name, turnover)
            .join(Order, Order.product_id == Product.id)
            .where(Product.category == category)
            .group_by(Product.id, Product.name)
            .order_by(turnover.desc(), Product.id)
            .limit(most)
        )
        return [dict(row._mapping) for row in self._rows(asked)]

    def update_user(self, user_id: int, **changes: Any) -> None:
        """Change columns of a user, raise its version, commit."""
        self._update(User, user_id, changes)

    def update_product(self, product_id: int, **changes: Any) -> None:
        """Change columns of a product, raise its version, commit."""
        self._update(Product, product_id, changes)

    def set_flag(self, name: str, enabled: bool) -> None:
        """Switch a feature, commit."""
        self._update(Flag, name, {"enabled": enabled})

    # Inside ---------------------------------------------------------------------------------

    @contextmanager
    def _by_actor(self) -> Iterator[None]:
        if self._actor is None:
            yield
        else:
            with self.trace.acting(self._actor):
                yield

    def _rows(
        self, statement: Any, parameters: dict[str, Any] | None = None
    ) -> Sequence[sa.Row[Any]]:
        with self._by_actor(), self.engine.connect() as connection:
            return connection.execute(statement, parameters).all()

    def _one(self, statement: sa.Select[Any], key: int) -> dict[str, Any] | None:
        found = self._rows(statement, {"the_key": key})
        return dict(found[0]._mapping) if found else None

    def _value(self, statement: Any) -> Any:
        found = self._rows(statement)
        return found[0][0] if found else None

    def _update(self, table: type[Base], key: Any, changes: dict[str, Any]) -> None:
        unknown = set(changes) - set(table.__table__.columns.keys())
        if unknown or not changes:
            columns = ", ".join(table.__table__.columns.keys())
            named = ", ".join(sorted(unknown)) or "nothing"
            raise ValueError(
                f"{table.__tablename__} has the columns {columns}; this names {named}."
            )
        with self._by_actor(), self.engine.begin() as connection:
            parameters = {"the_key": key, **changes}
            connection.execute(_update_by_key(table, tuple(changes)), parameters)


# Built once: SQLAlchemy takes longer to build a statement than SQLite to run it.


@lru_cache
def _by_id(table: type[Base]) -> sa.Select[Any]:
    columns = table.__table__.columns
    return sa.select(table.__table__).where(columns.id == sa.bindparam("the_key"))


@lru_cache
def _update_by_key(table: type[Base], changed: tuple[str, ...]) -> sa.Update:
    """Set the columns `changed` of one row, and raise its version if it has one."""
    columns = table.__table__.c
    values: dict[str, Any] = {name: sa.bindparam(name) for name in changed}
    if "version" in columns and "version" not in changed:
        values = {"version": columns.version + 1, **values}
    (key,) = sa.inspect(table).primary_key
    return sa.update(table).where(key == sa.bindparam("the_key")).values(**values)


@dataclass
class _Knobs:
    """What every view of one origin shares."""

    latency: float
    capacity: int | None = None
    slots: Slots | None = None
    queries: int = 0
    writes: int = 0
    changed: dict[int, set[str]] = field(default_factory=dict)  # open transaction -> its tables


def open_sqlite(path: Path) -> sa.Engine:
    """An engine for a shop file that many threads may use."""
    engine = sa.create_engine(
        f"sqlite:///{path}",
        # 32 open files are enough for any capacity that a lesson sets; the others queue here.
        pool_size=32,
        max_overflow=0,
        pool_timeout=60,
        connect_args={"timeout": 10, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def quick(connection: Any, _: Any) -> None:
        # Nothing here must survive a power cut; a commit need not wait for the disk.
        connection.execute("PRAGMA synchronous=OFF")

    return engine


def open_postgresql(url: str) -> sa.Engine:
    """An engine for the shop on a PostgreSQL server, seeded anew.

    The shop lives in a schema named cachelab: a table of yours with the same name is not touched.
    """
    asked = sa.make_url(url)
    if asked.get_backend_name() != "postgresql":
        raise ValueError(f"only PostgreSQL is supported; this names {asked.get_backend_name()}.")
    engine = sa.create_engine(
        asked.set(drivername="postgresql+psycopg"),
        pool_size=32,
        max_overflow=0,
        pool_timeout=60,
        connect_args={"options": "-csearch_path=cachelab"},
    )
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA IF NOT EXISTS cachelab"))
    seed_engine(engine)
    return engine


# How an engine is watched --------------------------------------------------------------------

_TABLE = re.compile(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+\"?(\w+)", re.IGNORECASE)
_READS, _WRITES = {"SELECT", "WITH", "VALUES"}, {"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"}


def _listen(origin: Origin) -> None:
    """Record, count and slow down every statement of the origin's engine."""
    engine = origin.engine

    @sa.event.listens_for(engine, "do_execute")
    def one(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        def run() -> None:
            cursor.execute(statement, parameters)

        _perform(origin, cursor, statement, parameters, context, run)
        return True

    @sa.event.listens_for(engine, "do_execute_no_params")
    def bare(cursor: Any, statement: str, context: Any) -> bool:
        _perform(origin, cursor, statement, (), context, lambda: cursor.execute(statement))
        return True

    @sa.event.listens_for(engine, "do_executemany")
    def many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        def run() -> None:
            cursor.executemany(statement, parameters)

        _perform(origin, cursor, statement, parameters, context, run)
        return True

    # SQLAlchemy's own commit event comes before the commit; freshness changes after it.
    commit, rollback = engine.dialect.do_commit, engine.dialect.do_rollback

    def do_commit(connection: Any) -> None:
        changed = origin._knobs.changed.pop(_identity(connection), set())
        commit(connection)
        if changed:
            origin.trace.add("commit", "COMMIT", ", ".join(sorted(changed)))
            origin.trace.freshness.committed(changed)

    def do_rollback(connection: Any) -> None:
        changed = origin._knobs.changed.pop(_identity(connection), set())
        rollback(connection)
        if changed:
            origin.trace.add("rollback", "ROLLBACK", ", ".join(sorted(changed)))

    engine.dialect.do_commit, engine.dialect.do_rollback = do_commit, do_rollback  # type: ignore[method-assign,assignment]


def _perform(
    origin: Origin,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: Any,
    run: Callable[[], None],
) -> None:
    """Run one statement in a slot, and record it."""
    verb = statement.lstrip().split(None, 1)[0].upper()
    tables = tuple(dict.fromkeys(name.lower() for name in _TABLE.findall(statement)))
    trace, knobs, on = origin.trace, origin._knobs, _label(tables, parameters, verb)
    if verb not in _READS | _WRITES:
        run()
        return
    slots, waited = knobs.slots, 0.0
    if slots is not None and not slots.acquire(blocking=False):
        asked = time.monotonic()
        slots.acquire()
        waited = time.monotonic() - asked
        trace.add("wait", "WAIT", "a database slot", took=waited)
    began = time.monotonic()
    try:
        # It answers from what was committed when it began, and only then takes its time.
        run()
        found = None if cursor.description is None else tuple(cursor.fetchall())
        if knobs.latency:
            time.sleep(knobs.latency)
    except Exception as error:
        trace.add("error", verb, on, _say_error(error), took=time.monotonic() - began)
        raise
    finally:
        if slots is not None:
            slots.release()
    took = time.monotonic() - began
    slow = f"takes {say_seconds(knobs.latency)}" if knobs.latency else ""
    if verb in _WRITES:
        knobs.writes += 1
        connection = context.root_connection
        alone = connection._is_autocommit_isolation()  # no commit will follow
        if not alone:
            knobs.changed.setdefault(_identity(connection.connection), set()).update(tables)
        trace.freshness.wrote(trace.actor())
        count = f"{cursor.rowcount} row{'' if cursor.rowcount == 1 else 's'}"
        trace.add("write", verb, on, ", ".join(filter(None, [count, slow])), took=took)
        if found is not None:
            _hand_back(context, cursor, found)
        if alone:
            trace.freshness.committed(tables)
        return
    knobs.queries += 1
    found = found or ()
    _hand_back(context, cursor, found)
    count = f"{len(found)} row{'' if len(found) == 1 else 's'}"
    trace.add("query", "SELECT", on, ", ".join(filter(None, [count, slow])), took=took)
    trace.freshness.read(
        trace.actor(),
        (statement, repr(parameters)),
        found,
        tables,
        lambda: origin._ask(statement, parameters),
    )


def _identity(connection: Any) -> int:
    """Which DBAPI connection this is; it is open as long as its transaction is."""
    return id(connection.dbapi_connection)


def _hand_back(context: Any, cursor: Any, found: tuple[Any, ...]) -> None:
    # The rows were taken from the cursor to be compared later: SQLAlchemy reads them from here.
    context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(cursor, initial_buffer=found)


def _asker(engine: sa.Engine) -> Callable[[str, Any], tuple[Any, ...]]:
    """Ask a statement again on a connection of its own: not counted, not slowed, not recorded."""
    aside = engine.pool.recreate()  # connects as the engine does, but knows none of its events

    def ask(statement: str, parameters: Any) -> tuple[Any, ...]:
        connection = aside.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(statement, parameters)
            return tuple(cursor.fetchall())
        finally:
            connection.close()

    return ask


def _label(tables: tuple[str, ...], parameters: Any, verb: str) -> str:
    """What a statement is about: 'users 1'. A SELECT ends in LIMIT, an UPDATE in its WHERE."""
    values = list(parameters.values()) if isinstance(parameters, dict) else list(parameters)
    about = ", ".join(tables) or "?"
    simple = values and all(isinstance(value, (int, str)) for value in values)
    chosen = values[-1] if verb == "UPDATE" and simple else values[0] if simple else ""
    return f"{about} {str(chosen)[:20]}".rstrip()


def _say_error(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}"[:80]
