"""The shop's database: as slow and as narrow as a lesson needs it, every query counted."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from cachelab.origin.counting import Ask, Latency, Meter, SemaphoreLike, asker
from cachelab.origin.schema import Article, Base, Comment, Flag, Order, Permission, Product, User
from cachelab.record.trace import Trace


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
        ask: Ask | None = None,
    ) -> None:
        self.engine = engine
        self._meter = Meter(engine, trace, latency, ask or asker(engine))
        self._make_slots = slots
        self.capacity = capacity
        self._actor: str | None = None

    @property
    def trace(self) -> Trace:
        """Where every statement is recorded."""
        return self._meter.trace

    @trace.setter
    def trace(self, trace: Trace) -> None:
        self._meter.trace = trace

    @property
    def latency(self) -> float:
        """Seconds that a statement sent now takes on top of its own time."""
        return self._meter.seconds()

    @latency.setter
    def latency(self, seconds: float) -> None:
        if not 0 <= seconds < 3600:
            raise ValueError(f"latency is a time in seconds, 0 to 3600; this is {seconds!r}.")
        self._meter.latency = float(seconds)

    @property
    def capacity(self) -> int | None:
        """How many statements at once; None means any number."""
        return self._meter.capacity

    @capacity.setter
    def capacity(self, slots: int | None) -> None:
        if slots is not None and (not isinstance(slots, int) or slots < 1):
            raise ValueError(f"capacity is a whole number from 1, or None; this is {slots!r}.")
        self._meter.capacity = slots
        self._meter.slots = None if slots is None else self._make_slots(slots)

    @property
    def queries(self) -> int:
        """How many reads this database has been sent, by anybody, since the Lab began."""
        return self._meter.queries

    def add_queries(self, queries: int) -> None:
        """Add the reads that other processes of this Lab sent to the same database."""
        self._meter.queries += queries

    @property
    def writes(self) -> int:
        """How many statements that change rows it has been sent."""
        return self._meter.writes

    def reset(self, latency: Latency) -> None:
        """No statement was sent yet, and none is open: the next run of the same database."""
        meter = self._meter
        meter.queries, meter.writes, meter.latency = 0, 0, latency
        meter.changed.clear()
        self.capacity = meter.capacity

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


def peek(origin: Origin, statement: str, parameters: Any = ()) -> tuple[Any, ...]:
    """The rows that a statement finds now: not counted, not slowed down, not recorded."""
    return origin._meter.ask(statement, parameters)


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
