"""The origin: the shop's database, as slow and as narrow as a lesson needs it, every query counted.

The engine is SQLAlchemy's own. Its events do the counting and the tracing, so a lesson may use
sessions, core statements or raw SQL and is seen all the same.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import re
import secrets
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cachelab.process.errors import OneSentence
from cachelab.process.guard import Guard
from cachelab.record.trace import Trace, say_seconds

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
    with closing(sqlite3.connect(path)) as connection:
        with connection:
            connection.execute("PRAGMA journal_mode=WAL")
            for table, data in rows(size).items():
                marks = ", ".join("?" * len(data[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", data)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def seed_postgresql(connection: sa.Connection, size: Size = FULL) -> None:
    """Create the shop in the schema that the connection stands in, which is empty."""
    Base.metadata.create_all(connection, checkfirst=False)
    driver: Any = connection.connection.driver_connection
    for table, data in rows(size).items():
        # COPY takes a second for what INSERT takes ten.
        with driver.cursor().copy(f"COPY {table} FROM STDIN (FREEZE)") as copying:
            for row in data:
                copying.write_row(row)
        if "id" in Base.metadata.tables[table].columns:
            # The ids were given; the next row without one follows them, as it does on SQLite.
            last = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {len(data)})"
            connection.exec_driver_sql(last)
    connection.exec_driver_sql("ANALYZE " + ", ".join(Base.metadata.tables))


def copy_of_shop(folder: Path, cached_in: Path, size: Size = FULL) -> Path:
    """A fresh SQLite file of the shop in `folder`, copied from one seeded once in `cached_in`.

    `cached_in` that cannot be written is no error, nor is a damaged file in it: the shop is then
    seeded anew, in about a second. Raises OSError, with its reason, if `folder` is full.
    """
    target = folder / "shop.sqlite"
    master = cached_in / f"shop-{SCHEMA}-{size.orders}.sqlite"
    try:
        if not _is_whole(master):
            cached_in.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Two kernels may do this at once: each writes its own file, the last rename wins.
            own = cached_in / f".{master.name}.{threading.get_native_id()}"
            try:
                own.unlink(missing_ok=True)
                seed_sqlite(own, size)
                own.replace(master)
            finally:
                for left in cached_in.glob(f"{own.name}*"):
                    left.unlink()
        shutil.copyfile(master, target)
    except (OSError, sqlite3.Error, sa.exc.SQLAlchemyError):
        target.unlink(missing_ok=True)
        try:
            seed_sqlite(target, size)
        except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
            said = str(getattr(error, "orig", None) or error)
            raise OSError(errno.EIO, said, str(target)) from None
    return target


def _is_whole(path: Path) -> bool:
    """Whether this is a SQLite file of the length that its first page names."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
        page = int.from_bytes(head[16:18], "big")
        told = (65_536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
        return head.startswith(b"SQLite format 3\0") and 0 < told == path.stat().st_size
    except OSError:
        return False


# The origin ----------------------------------------------------------------------------------


Latency = float | Callable[[], float]


class SemaphoreLike(Protocol):
    """Room for so many statements at once; the others wait in order of arrival."""

    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...


class Origin:
    """The shop's database with two knobs.

    `latency`: seconds that each statement takes on top of its own time, while it holds a slot; or
    a function of nothing that says so for the statement that comes.
    `capacity`: how many statements the database works on at once; None means any number.
    """

    def __init__(
        self,
        engine: sa.Engine,
        trace: Trace,
        *,
        latency: Latency = 0.0,
        capacity: int | None = None,
        slots: Callable[[int], SemaphoreLike] = threading.Semaphore,
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
        """Seconds that a statement sent now takes on top of its own time."""
        set_to = self._knobs.latency
        return set_to() if callable(set_to) else set_to

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

    def begin_again(self, latency: Latency) -> None:
        """No statement was sent yet, and none is open: the next run of the same database."""
        knobs = self._knobs
        knobs.queries, knobs.writes, knobs.latency = 0, 0, latency
        knobs.changed.clear()
        self.capacity = knobs.capacity

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

    latency: Latency
    capacity: int | None = None
    slots: SemaphoreLike | None = None
    queries: int = 0
    writes: int = 0
    # Open transaction -> its tables, each with the ids of the changed rows where they are known.
    changed: dict[int, dict[str, frozenset[int] | None]] = field(default_factory=dict)


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

    @sa.event.listens_for(engine, "handle_error")
    def advise(context: Any) -> None:
        said = next(
            (do for seen, do in ADVICE.items() if seen in str(context.original_exception)), ""
        )
        if said and context.sqlalchemy_exception is not None:
            context.sqlalchemy_exception.add_note(said)

    return engine


# What SQLite says when the fault is not the learner's, and what stands under it in a notebook.
ADVICE = {
    "database is locked": (
        "Another program holds the shop's database, and a write waited 10 s for it: end that"
        " program and run the cell again, or take a shop of your own with cachelab.start()."
    ),
    "disk is full": (
        "The disk of the temp folder is full, and what was committed before is kept: make room"
        " there and run the cell again."
    ),
    "disk I/O error": (
        "The disk of the temp folder refuses to write, and what was committed before is kept: make"
        " room there and run the cell again."
    ),
}


# PostgreSQL ----------------------------------------------------------------------------------

OUR_SCHEMA = re.compile(r"cachelab_(\d{8})_[0-9a-f]{8}")
OUR_COMMENT = "Cachelab: the shop of one lab, gone with its kernel"
CONNECT_SECONDS = 5
KEPT_DAYS = 2  # what a machine that lost its power has left is dropped by a later lab
# One core a statement, rows in the order of the table, no wait for the disk: as SQLite does it.
PLAIN = {
    "synchronous_commit": "off",
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",
    "jit": "off",
}


class OriginError(OneSentence, ValueError):
    """The database named is of no use to us; its text is one sentence."""


def open_postgresql(url: str, guard: Guard | None = None, size: Size = FULL) -> sa.Engine:
    """An engine for a fresh shop on a PostgreSQL server.

    The shop lives in a schema of its own, one for each lab: no other table of the database is
    touched or seen. The schema is dropped when `guard` closes or its process ends, however that
    comes. OriginError, one sentence, when the server cannot be used.
    """
    asked = _postgresql_url(url)
    schema = f"cachelab_{datetime.now(UTC):%Y%m%d}_{secrets.token_hex(4)}"
    settings = {"search_path": schema, "application_name": schema, **PLAIN}
    given = [asked.query.get("options", ""), *(f"-c{k}={v}" for k, v in settings.items())]
    engine = connect_postgresql(
        asked.update_query_dict({"options": " ".join(map(str, filter(None, given)))})
    )
    try:
        with engine.connect() as connection:
            _drop_left_over(connection)
            connection.commit()
            if guard is not None:
                wish = [sys.executable, "-m", "cachelab.origin.shop", "--drop", schema]
                guard.on_exit(wish, env={**os.environ, "CACHELAB_DATABASE_URL": url})
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
            connection.exec_driver_sql(f"COMMENT ON SCHEMA {schema} IS '{OUR_COMMENT}'")
            seed_postgresql(connection, size)
            connection.commit()
    except sa.exc.SQLAlchemyError as error:
        engine.dispose()
        raise OriginError(_why_not(error, asked)) from None
    return engine


def connect_postgresql(url: sa.URL) -> sa.Engine:
    """An engine that many threads may use; the URL says in which schema it works.

    OriginError, one sentence, when nobody can be reached there.
    """
    try:
        engine = sa.create_engine(
            url,
            # As many at once as with SQLite; when they rest, few: a server has 100 for everybody.
            pool_size=4,
            max_overflow=28,
            pool_timeout=60,
            connect_args={
                "connect_timeout": url.query.get("connect_timeout", CONNECT_SECONDS),
                "prepare_threshold": None,  # a pooler in front of the server may not keep them
            },
        )
    except ImportError:
        raise OriginError(
            "PostgreSQL needs a driver that is not installed: pip install 'psycopg[binary]', or"
            " unset the variable to use SQLite."
        ) from None
    try:
        # SQLAlchemy's own first questions to a server are nobody's queries: ask them now.
        engine.connect().close()
    except sa.exc.SQLAlchemyError as error:
        raise OriginError(_why_not(error, url)) from None
    return engine


def drop_schema(url: str, schema: str) -> None:
    """Drop one schema that a lab has made; ValueError for any other name."""
    if not OUR_SCHEMA.fullmatch(schema):
        raise ValueError(f"a schema of ours looks like cachelab_20261231_1a2b3c4d, not {schema!r}.")
    asked = _postgresql_url(url)
    engine = connect_postgresql(asked)
    try:
        with engine.begin() as connection:
            if schema in _ours(connection):
                connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    except sa.exc.SQLAlchemyError as error:
        raise OriginError(_why_not(error, asked)) from None
    finally:
        engine.dispose()


def _postgresql_url(url: str) -> sa.URL:
    try:
        asked = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise OriginError(
            "this is no URL of a database; write postgresql://user:password@host:5432/database."
        ) from None
    backend = asked.get_backend_name()
    if backend not in {"postgresql", "postgres"}:  # hosted servers hand out the short form
        raise OriginError(f"only PostgreSQL is supported; this names {backend}.")
    return asked.set(drivername="postgresql+psycopg")


def _ours(connection: sa.Connection) -> list[str]:
    """The schemas that labs of this user have made."""
    found = connection.execute(
        sa.text(
            "SELECT nspname FROM pg_namespace"
            " WHERE pg_get_userbyid(nspowner) = current_user"
            " AND obj_description(oid, 'pg_namespace') = :comment"
        ),
        {"comment": OUR_COMMENT},
    )
    return [name for name in found.scalars() if OUR_SCHEMA.fullmatch(name)]


def _drop_left_over(connection: sa.Connection) -> None:
    """Drop the schemas of labs that ended days ago without being able to clear up."""
    before = f"{datetime.now(UTC) - timedelta(days=KEPT_DAYS):%Y%m%d}"
    asked = "SELECT application_name FROM pg_stat_activity WHERE usename = current_user"
    in_use = set(connection.exec_driver_sql(asked).scalars())
    for schema in _ours(connection):
        if schema.split("_")[1] < before and schema not in in_use:
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def _why_not(error: sa.exc.SQLAlchemyError, asked: sa.URL) -> str:
    """What a server said, and what to do, in one sentence without the password."""
    said = str(getattr(error, "orig", None) or error)
    # A host of several addresses fails once for each: the last reason stands for all.
    reason = re.split(r"(?:FATAL|ERROR|failed): +", said)[-1].strip().splitlines()[0].rstrip(".")
    user, database = asked.username or "you", asked.database or asked.username or "it"
    if "permission denied for database" in reason:
        return (
            f"the user {user} may not make a schema in the database {database}: have GRANT CREATE"
            f" ON DATABASE {database} TO {user} run there, or unset the variable to use SQLite."
        )
    place = f"{asked.host or 'the local socket'}:{asked.port or 5432}/{database}"
    return (
        f"PostgreSQL at {place} does not let {user} in ({reason}): see that it runs and that the"
        " URL is right, or unset the variable to use SQLite."
    )


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
        changed = origin._knobs.changed.pop(_identity(connection), {})
        commit(connection)
        if changed:
            origin.trace.add("commit", "COMMIT", ", ".join(sorted(changed)))
            origin.trace.freshness.committed(changed)

    def do_rollback(connection: Any) -> None:
        changed = origin._knobs.changed.pop(_identity(connection), {})
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
    values = _in_order(statement, parameters)
    touched = _with_ids(statement, tables, values)
    trace, knobs, on = origin.trace, origin._knobs, _label(tables, values, verb)
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
        latency = origin.latency
        if latency:
            time.sleep(latency)
    except Exception as error:
        trace.add("error", verb, on, _say_error(error), took=time.monotonic() - began)
        raise
    finally:
        if slots is not None:
            slots.release()
    took = time.monotonic() - began
    slow = f"takes {say_seconds(latency)}" if latency else ""
    if verb in _WRITES:
        knobs.writes += 1
        connection = context.root_connection
        alone = connection._is_autocommit_isolation()  # no commit will follow
        if not alone:
            so_far = knobs.changed.setdefault(_identity(connection.connection), {})
            for table, ids in touched.items():
                known = so_far.get(table, frozenset())
                so_far[table] = None if ids is None or known is None else known | ids
        trace.freshness.wrote(trace.actor())
        count = f"{cursor.rowcount} row{'' if cursor.rowcount == 1 else 's'}"
        trace.add("write", verb, on, ", ".join(filter(None, [count, slow])), took=took)
        if found is not None:
            _hand_back(context, cursor, found)
        if alone:
            trace.freshness.committed(touched)
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
        touched,
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
    is_server = engine.dialect.name == "postgresql"

    def ask(statement: str, parameters: Any) -> tuple[Any, ...]:
        connection = aside.connect()
        try:
            driver: Any = connection.driver_connection
            if is_server and not driver.autocommit:
                driver.autocommit = True  # BEGIN and ROLLBACK would be two more trips
            cursor = connection.cursor()
            if parameters == ():  # then psycopg takes a % in the statement for itself
                cursor.execute(statement)
            else:
                cursor.execute(statement, parameters)
            return tuple(cursor.fetchall())
        finally:
            connection.close()

    return ask


# One row of one table, by its key and by nothing else. Whatever is written in another way may be
# about any row.
_KEY = r"(?:\1\.)?id = (?:\?|%\(\w+\)s(?:::\w+)?)\s*"
_ONE_ROW = re.compile(
    rf"\s*SELECT [\w., *]+\s+FROM (\w+)\s+WHERE {_KEY}"
    rf"|\s*UPDATE (\w+) SET (?:(?!\bWHERE\b|\bid\b\"?\s*=).)*\s+WHERE {_KEY.replace('1', '2')}",
    re.IGNORECASE | re.DOTALL,
)


@lru_cache(maxsize=500)
def _table_of_one_row(statement: str) -> str | None:
    found = _ONE_ROW.fullmatch(statement)
    return None if found is None else (found[1] or found[2]).lower()


def _with_ids(
    statement: str, tables: tuple[str, ...], values: list[Any]
) -> dict[str, frozenset[int] | None]:
    """The tables of a statement, with the ids it is about where its text leaves no doubt."""
    one = _table_of_one_row(statement)
    if one is None or tables != (one,) or not values or type(values[-1]) is not int:
        return dict.fromkeys(tables)
    return {one: frozenset([values[-1]])}


_NAMED = re.compile(r"%\((\w+)\)s")


def _in_order(statement: str, parameters: Any) -> list[Any]:
    """The values as the statement asks for them; PostgreSQL's driver takes them by name."""
    if not isinstance(parameters, dict):
        return list(parameters)
    return [parameters[name] for name in _NAMED.findall(statement) if name in parameters]


def _label(tables: tuple[str, ...], parameters: list[Any], verb: str) -> str:
    """What a statement is about: 'users 1'. A SELECT ends in LIMIT, an UPDATE in its WHERE."""
    about = ", ".join(tables) or "?"
    simple = parameters and all(isinstance(value, (int, str)) for value in parameters)
    chosen = (parameters[-1] if verb == "UPDATE" else parameters[0]) if simple else ""
    return f"{about} {str(chosen)[:20]}".rstrip()


def _say_error(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}"[:80]


# For the supervisor --------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Drop a schema in the database of CACHELAB_DATABASE_URL; 0 if it is gone, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m cachelab.origin.shop", description=main.__doc__
    )
    parser.add_argument("--drop", metavar="SCHEMA", required=True)
    schema = parser.parse_args(arguments).drop
    try:
        drop_schema(os.environ.get("CACHELAB_DATABASE_URL", ""), schema)
    except ValueError as error:
        print(f"Nothing was dropped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
