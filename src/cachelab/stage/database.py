"""The origin's database on the stage: real SQLite, many connections, one writer, all in memory.

Two copies are kept. Readers are answered from the front, which holds what is committed. One
transaction at a time may write, into the back; its commit makes the back the front and repeats its
statements on the other copy. So another actor sees the old row until the commit, and a second
writer waits, on the stage, for the first one's.
"""

from __future__ import annotations

import datetime
import math
import re
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from cachelab.origin import Base, Size, rows
from cachelab.stage.context import Context
from cachelab.stage.scheduler import EPOCH, Label, Task, current
from cachelab.stage.sync import Lock

_TABLE = re.compile(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+\"?(\w+)", re.IGNORECASE)
_EQUALS = re.compile(r"(?:\b(\w+)\.)?\b(\w+)\s*=\s*\?")
_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_TIMES = ("date", "time", "datetime", "julianday", "unixepoch", "strftime")
_KEYS = {
    name: table.primary_key.columns[0].name
    for name, table in Base.metadata.tables.items()
    if len(table.primary_key.columns) == 1
}


@dataclass(frozen=True)
class Statement:
    """What one SQL text is: its kind, its tables, and where among its parameters a row is named."""

    kind: str  # read, write, begin, commit, rollback, savepoint, ddl, other
    tables: tuple[str, ...]
    row: int | None  # position of the parameter that names the row


@lru_cache(maxsize=2_000)
def read_statement(text: str) -> Statement:
    """Look at one SQL text."""
    words = text.lstrip(" \t\r\n(").upper().split(None, 2)
    verb = words[0].rstrip(";") if words else ""
    tables = tuple(dict.fromkeys(name.lower() for name in _TABLE.findall(text)))
    kind = {
        "SELECT": "read",
        "VALUES": "read",
        "INSERT": "write",
        "UPDATE": "write",
        "DELETE": "write",
        "REPLACE": "write",
        "BEGIN": "begin",
        "COMMIT": "commit",
        "END": "commit",
        "SAVEPOINT": "savepoint",
        "RELEASE": "savepoint",
        "CREATE": "ddl",
        "DROP": "ddl",
        "ALTER": "ddl",
    }.get(verb, "other")
    if verb == "WITH":
        kind = "write" if _WRITES.search(text) else "read"
    if verb == "ROLLBACK":
        kind = "savepoint" if "TO" in " ".join(words[1:]).split() else "rollback"
    return Statement(kind, tables, _row_position(text, tables, verb))


def _row_position(text: str, tables: tuple[str, ...], verb: str) -> int | None:
    """Which parameter is the primary key of the one row that a statement is about."""
    head, where, condition = text.partition("WHERE")
    if (
        not where
        or len(tables) != 1
        or tables[0] not in _KEYS
        or verb not in {"SELECT", "UPDATE", "DELETE"}
    ):
        return None
    if re.search(r"\b(OR|UNION|SELECT|NOT)\b", condition, re.IGNORECASE):
        return None
    for found in _EQUALS.finditer(condition):
        if found[2] == _KEYS[tables[0]] and found[1] in (None, tables[0]):
            return head.count("?") + condition[: found.start()].count("?")
    return None


def _touches(statement: Statement, parameters: Any, writes: bool) -> Label:
    row, at = None, statement.row
    if at is not None and isinstance(parameters, (tuple, list)) and at < len(parameters):
        row = str(parameters[at])
    return tuple((f"table {name}", row, writes) for name in statement.tables)


class Connection:
    """One connection as SQLAlchemy's SQLite dialect uses it (PEP 249)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.isolation_level: str | None = ""
        self.row_factory: Any = None
        self.explicit = False  # between a BEGIN that was sent as SQL and its end
        self.log: list[tuple[str, Any, bool]] | None = None  # statements of the open transaction
        self.changed: dict[Any, None] = {}
        self.task: Task | None = None
        self.step = 0  # when it last wrote
        self.closed = False

    @property
    def in_transaction(self) -> bool:
        return self.log is not None or self.explicit

    @property
    def total_changes(self) -> int:
        return self._database.front.total_changes

    def cursor(self, factory: Any = None) -> Cursor:
        if self.closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        return Cursor(self, self._database)

    def execute(self, text: str, parameters: Any = ()) -> Cursor:
        return self.cursor().execute(text, parameters)

    def executemany(self, text: str, parameters: Any) -> Cursor:
        return self.cursor().executemany(text, parameters)

    def create_function(self, name: str, count: int, function: Any, **options: Any) -> None:
        if name not in ("regexp", "floor"):  # SQLAlchemy's own are there from the start
            for real in (self._database.front, self._database.back):
                real.create_function(name, count, function, **options)

    def commit(self) -> None:
        self.explicit = False
        if self.log is not None:
            self._database.commit(self)

    def rollback(self) -> None:
        self.explicit = False
        if self.log is not None:
            self._database.rollback(self)

    def close(self) -> None:
        if self.log is not None:
            self._database.abandon(self)
        self.closed = True

    def interrupt(self) -> None:
        """Nothing runs while anybody else does."""


class Cursor:
    """A cursor whose rows are fetched when the statement runs."""

    arraysize = 1

    def __init__(self, connection: Connection, database: Database) -> None:
        self.connection = connection
        self._database = database
        self._rows: Iterator[Any] = iter(())
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.row_factory = connection.row_factory

    def execute(self, text: str, parameters: Any = ()) -> Cursor:
        self._database.execute(self, text, parameters, False)
        return self

    def executemany(self, text: str, parameters: Iterable[Any]) -> Cursor:
        self._database.execute(self, text, list(parameters), True)
        return self

    def take(self, real: sqlite3.Cursor) -> None:
        """Take over everything that a real cursor has to give."""
        self.description, self.rowcount = real.description, real.rowcount
        self.lastrowid = real.lastrowid
        self._rows = iter(real.fetchall()) if real.description is not None else iter(())

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        taken = []
        for row in self._rows:
            taken.append(row)
            if len(taken) == (size or self.arraysize):
                break
        return taken

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def close(self) -> None:
        self._rows = iter(())

    def setinputsizes(self, sizes: Any) -> None: ...

    def setoutputsize(self, size: Any, column: Any = None) -> None: ...


class Database:
    """The two copies and the one writer."""

    def __init__(self, world: Context, size: Size) -> None:
        self.world = world
        image = master(size)
        self.front, self.back = self._open(image), self._open(image)
        self.writer = Lock("the database's writer", loud=False)
        self.writer.key = "writer"
        self.owner: Connection | None = None
        self.dirty = False
        self._drawn: list[Any] = []
        self._replayed: Iterator[Any] | None = None
        self._begin()
        self.engine = sa.create_engine(
            "sqlite://", creator=lambda: Connection(self), poolclass=NullPool
        )

    def _open(self, image: bytes) -> sqlite3.Connection:
        real = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        real.deserialize(image)
        # sqlite3 keeps its functions where the garbage collector does not look: if one of them held
        # us, no finished run would ever be freed.
        us: Database = weakref.proxy(self)
        real.create_function("regexp", 2, _regexp, deterministic=True)
        real.create_function("floor", 1, math.floor, deterministic=True)
        real.create_function("random", 0, lambda: us._random())
        for name, form in (
            ("current_timestamp", "%Y-%m-%d %H:%M:%S"),
            ("current_date", "%Y-%m-%d"),
            ("current_time", "%H:%M:%S"),
        ):
            real.create_function(name, 0, _moment(us, form))
        for name in _TIMES:
            real.create_function(name, -1, _virtual(us, name))
        return real

    # Statements -----------------------------------------------------------------------------

    def execute(self, cursor: Cursor, text: str, parameters: Any, many: bool) -> None:
        """Run one statement for the connection of `cursor`, in its transaction."""
        connection, statement = cursor.connection, read_statement(text)
        task = current()
        kind = statement.kind
        if kind == "read":
            if connection.log is not None:
                real = self.back
            else:
                if task is not None:
                    task.scheduler.point(task, _touches(statement, parameters, False))
                real = self.front
            cursor.take(real.execute(text, parameters))
        elif kind in {"write", "ddl", "savepoint"}:
            self._write(cursor, text, parameters, many, statement, task)
        elif kind == "begin":
            if connection.in_transaction:
                raise sqlite3.OperationalError("cannot start a transaction within a transaction")
            connection.explicit = True
            if "IMMEDIATE" in text.upper() or "EXCLUSIVE" in text.upper():
                self._open_for(connection, task, ())
        elif kind == "commit":
            connection.commit()
        elif kind == "rollback":
            connection.rollback()
        elif text.lstrip()[:6].upper() != "PRAGMA" or "=" not in text:
            cursor.take(self.front.execute(text, parameters))

    def _write(
        self,
        cursor: Cursor,
        text: str,
        parameters: Any,
        many: bool,
        statement: Statement,
        task: Task | None,
    ) -> None:
        connection = cursor.connection
        alone = connection.isolation_level is None and not connection.explicit
        if statement.kind == "ddl" and not connection.in_transaction:
            alone = True
        elif statement.kind == "savepoint":
            alone = False
        touched = _touches(statement, None if many else parameters, True)
        joined = task is not None and not self.world.commit_apart
        if connection.log is None:
            self._open_for(connection, task, touched if alone or joined else ())
        elif task is not None:
            # Its own transaction: nobody else can see it, unless the commit is part of this step.
            seen = tuple(dict.fromkeys([*connection.changed, *touched])) if joined else ()
            task.scheduler.point(task, seen)
        if task is not None:
            connection.step = task.scheduler.steps
        drawn = len(self._drawn)
        try:
            run = self.back.executemany if many else self.back.execute
            cursor.take(run(text, parameters))
            assert connection.log is not None
            connection.log.append((text, parameters, many))
            connection.changed.update(dict.fromkeys(touched))
        except BaseException:
            del self._drawn[drawn:]
            if alone:
                self._undo(connection)
            raise
        if alone:
            self._publish(connection)

    # Transactions ---------------------------------------------------------------------------

    def _open_for(self, connection: Connection, task: Task | None, touched: Label) -> None:
        """Become the writer; wait for the one who is."""
        if task is not None and not task.free:
            scheduler, writer = task.scheduler, self.writer
            label = (("lock", writer.key, True), *touched)
            scheduler.point(task, label, writer if scheduler.explores else None)
            began = scheduler.now
            writer.acquire()
            if scheduler.now > began:
                took = (scheduler.now - began) / 1e9
                self.world.trace.add("wait", "WAIT", writer.name, took=took)
        elif self.owner is not None:
            raise sqlite3.OperationalError("database is locked")
        self.back.execute("SAVEPOINT open_transaction")
        self.owner, connection.task = connection, task
        connection.log, connection.changed = [], {}
        self._drawn.clear()
        self.dirty = True

    def commit(self, connection: Connection) -> None:
        """A switch point, then everybody sees what was written."""
        task = current()
        if task is not None:
            scheduler = task.scheduler
            if self.world.commit_apart or scheduler.steps != connection.step:
                scheduler.point(task, tuple(connection.changed))
        if connection.log is not None:
            self._publish(connection)

    def rollback(self, connection: Connection) -> None:
        """A switch point, then it was never written."""
        task = current()
        if task is not None and task is connection.task:
            task.scheduler.point(task, ())
        self.abandon(connection)

    def abandon(self, connection: Connection) -> None:
        """Roll back without asking anybody: its actor has died, or left it open."""
        if connection.log is not None:
            self._undo(connection)

    def abandon_of(self, tasks: Sequence[Task]) -> bool:
        """Roll back the open transaction if one of `tasks` owns it; whether there was one."""
        owner = self.owner
        if owner is None or owner.task not in tasks:
            return False
        owner.explicit = False
        self._undo(owner)
        return True

    def _publish(self, connection: Connection) -> None:
        log = connection.log or []
        self.back.execute("RELEASE open_transaction")
        self.front, self.back = self.back, self.front
        self._replayed = iter(list(self._drawn))
        try:
            for text, parameters, many in log:
                real = (self.back.executemany if many else self.back.execute)(text, parameters)
                if real.description is not None:
                    real.fetchall()
        finally:
            self._replayed = None
        self._end(connection)

    def _undo(self, connection: Connection) -> None:
        self.back.execute("ROLLBACK TO open_transaction")
        self.back.execute("RELEASE open_transaction")
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        connection.log, connection.task, self.owner = None, None, None
        task = current()
        if task is not None and task.scheduler.explores:
            task.scheduler.released.append(self.writer.key)
        if self.writer.holder is not None:
            self.writer.release()

    # State ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.front.execute("BEGIN")
        self.back.execute("BEGIN")

    def keep(self) -> None:
        """What is in the database now is what every run starts from."""
        self.front.execute("COMMIT")
        self.back.execute("COMMIT")
        self._begin()
        self.dirty = False

    def reset(self) -> None:
        """Back to what was kept: all of a run is one transaction that is rolled back."""
        if self.owner is not None:
            self.owner.log = self.owner.task = None
            self.owner = None
        self.writer.reset()
        if self.dirty:
            self.front.execute("ROLLBACK")
            self.back.execute("ROLLBACK")
            self._begin()
            self.dirty = False

    def ask(self, text: str, parameters: Any) -> tuple[Any, ...]:
        """What is committed, off the record."""
        return tuple(self.front.execute(text, parameters).fetchall())

    # Chance and time in SQL -----------------------------------------------------------------

    def _random(self) -> int:
        if self._replayed is not None:
            return int(next(self._replayed))
        drawn = self.world.draw()
        self._drawn.append(drawn)
        return drawn

    def moment(self) -> datetime.datetime:
        now = self.world.scheduler.now if self.world.scheduler is not None else 0
        return datetime.datetime.fromtimestamp(EPOCH + now / 1e9, datetime.UTC)


def _regexp(pattern: str, value: str | None) -> bool | None:
    return None if value is None else re.search(pattern, value) is not None


def _moment(database: Database, form: str) -> Callable[[], str]:
    return lambda: database.moment().strftime(form)


_aside = sqlite3.connect(":memory:", check_same_thread=False)


def _virtual(database: Database, name: str) -> Callable[..., Any]:
    """SQLite's own function of that name, with the virtual time for 'now'."""

    def call(*values: Any) -> Any:
        said = list(values)
        position = 1 if name == "strftime" else 0
        if len(said) <= position:
            said.append("now")
        if said[position] == "now":
            said[position] = database.moment().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        marks = ", ".join("?" * len(said))
        return _aside.execute(f"SELECT {name}({marks})", said).fetchone()[0]

    return call


@lru_cache(maxsize=4)
def master(size: Size) -> bytes:
    """The image of a seeded shop; made once in a process."""
    real = sqlite3.connect(":memory:", check_same_thread=False)
    engine = sa.create_engine("sqlite://", creator=lambda: real, poolclass=StaticPool)
    Base.metadata.create_all(engine)
    for table, data in rows(size).items():
        marks = ", ".join("?" * len(data[0]))
        real.executemany(f"INSERT INTO {table} VALUES ({marks})", data)
    real.commit()
    return real.serialize()
