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
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import NullPool, StaticPool

from cachelab.origin import Base, Size, rows
from cachelab.stage.context import Context
from cachelab.stage.scheduler import EPOCH, Label, Task, current, refuse
from cachelab.stage.statements import Compiler, Statement
from cachelab.stage.sync import Lock

_OF_A_CONNECTION = (
    "last_insert_rowid(), changes() and total_changes() are not on the stage, where many share one "
    "SQLite: take the cursor's lastrowid or rowcount, or RETURNING."
)
_TIMES = ("date", "time", "datetime", "julianday", "unixepoch", "strftime")
# What the compiler writes for FOR UPDATE, which SQLite does not know; taken off before it runs.
_FOR_UPDATE = " /* FOR UPDATE */"


class _Compiler(SQLiteCompiler):
    """SQLite's compiler, which does not forget FOR UPDATE."""

    def for_update_clause(self, select: Any, **options: Any) -> str:
        asked = select._for_update_arg
        for what, said in (
            (asked.read, "FOR SHARE"),
            (asked.nowait, "NOWAIT"),
            (asked.skip_locked, "SKIP LOCKED"),
        ):
            if what:
                refuse(
                    f"{said} is not on the stage, where one transaction writes at a time: "
                    "take FOR UPDATE, which waits for it."
                )
        return _FOR_UPDATE


class Dialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's dialect for the stage: what it cannot keep, it refuses."""

    driver = "stage"
    supports_statement_cache = True
    statement_compiler = _Compiler
    default_isolation_level: Any

    def get_isolation_level_values(self, dbapi_connection: Any) -> list[Any]:
        return [*_LEVELS, "REPEATABLE READ", "SERIALIZABLE"]

    def get_default_isolation_level(self, dbapi_connection: Any) -> Any:
        return "READ COMMITTED"

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        connection = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        return "AUTOCOMMIT" if connection.isolation_level is None else "READ COMMITTED"

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        if level not in _LEVELS:
            refuse(
                f"The isolation level {level} is not on the stage, where each statement sees what "
                "is committed: take FOR UPDATE or a version column, which hold anywhere."
            )
        connection = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        connection.isolation_level = None if level == "AUTOCOMMIT" else ""


_LEVELS = ("AUTOCOMMIT", "READ COMMITTED", "READ UNCOMMITTED")
sa.dialects.registry.register("sqlite.stage", __name__, "Dialect")


class StageSqlite(sqlite3.Connection):
    """A SQLite of the stage's own, which it switches at and sets back."""


class Connection:
    """One connection as SQLAlchemy's SQLite dialect uses it (PEP 249)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.isolation_level: str | None = ""
        self.row_factory: Any = None
        self.explicit = False  # between a BEGIN that was sent as SQL and its end
        self.log: list[tuple[str, Any, bool]] | None = None  # statements of the open transaction
        self.changed: dict[Any, None] = {}
        self.points: list[tuple[str, str]] = []  # savepoints from before it became the writer
        self.locks = False  # the next statement ends in FOR UPDATE
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
        self.reader = Compiler()
        self._known: dict[tuple[str, bool], Statement] = {}
        self.front, self.back = self._open(image), self._open(image)
        self.writer = Lock("the database's writer", loud=False)
        self.writer.key = "writer"
        self.owner: Connection | None = None
        self.dirty = False
        self.redefined = False  # by the open transaction
        self.changed_schema = False  # since the run began
        self.schemas = 0  # how often the schema has changed
        self.enforces = self._kept_enforces = False  # foreign keys
        self._drawn: list[Any] = []
        self._replayed: Iterator[Any] | None = None
        self._begin()
        self.engine = sa.create_engine(
            "sqlite+stage://", creator=lambda: Connection(self), poolclass=NullPool
        )
        sa.event.listen(self.engine, "before_cursor_execute", _take_for_update, retval=True)

    def _open(self, image: bytes) -> sqlite3.Connection:
        real = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, factory=StageSqlite
        )
        real.deserialize(image)
        real.set_authorizer(self.reader.note)
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

    def understood(self, connection: Connection, text: str, parameters: Any) -> Statement:
        """What `text` would do in this connection's transaction."""
        mine = connection.log is not None
        known = (text, mine and self.redefined)
        found = self._known.get(known)
        if found is None:
            found = self.reader.read(self.back if mine else self.front, text, parameters)
            if found.kind != "unclear":  # which may be the fault of these parameters
                self._known[known] = found
        return found

    def execute(self, cursor: Cursor, text: str, parameters: Any, many: bool) -> None:
        """Run one statement for the connection of `cursor`, in its transaction."""
        connection, task = cursor.connection, current()
        locks, connection.locks = connection.locks, False
        one = (parameters[0] if parameters else ()) if many else parameters
        statement = self.understood(connection, text, one)
        alone = connection.isolation_level is None and not connection.explicit
        if statement.refused or (statement.of_connection and connection.log is None):
            refuse(statement.refused or _OF_A_CONNECTION)
        kind = statement.kind
        if kind == "pragma":
            self._pragma(cursor, text, parameters, statement, task)
        elif kind in {"read", "unclear"}:
            label = statement.label(parameters, many)
            if locks and not alone and connection.log is None:
                self._open_for(connection, task, label)
            elif connection.log is None and task is not None:
                age = self.schemas
                task.scheduler.point(task, label)
                if age != self.schemas:  # somebody has changed what it means
                    statement = self.understood(connection, text, one)
                    task.scheduler.touched(task, statement.label(parameters, many))
                    if statement.kind != kind:
                        self.execute(cursor, text, parameters, many)
                        return
            real = self.back if connection.log is not None else self.front
            changes = real.total_changes
            cursor.take((real.executemany if many else real.execute)(text, parameters))
            if changes != real.total_changes:
                refuse(f"This statement is not on the stage: {' '.join(text.split())[:60]}.")
        elif kind in {"write", "schema"}:
            self._write(cursor, text, parameters, many, statement, task)
        elif kind == "savepoint":
            if connection.log is not None:
                self._write(cursor, text, parameters, many, statement, task)
            else:
                self._save(connection, statement, text)
        elif kind == "begin":
            if connection.in_transaction:
                raise sqlite3.OperationalError("cannot start a transaction within a transaction")
            connection.explicit = True
            if statement.detail:
                self._open_for(connection, task, ())
        elif kind == "commit":
            connection.commit()
        else:
            connection.rollback()

    def _pragma(
        self, cursor: Cursor, text: str, parameters: Any, statement: Statement, task: Task | None
    ) -> None:
        name, value = statement.detail, statement.name
        if statement.tables and task is not None and cursor.connection.log is None:
            task.scheduler.point(task, statement.label(()))
        if name == "foreign_keys" and value:
            self._enforce(value.strip("'\"").lower() in {"1", "on", "yes", "true"})
        elif statement.tables or not value:
            real = self.back if cursor.connection.log is not None else self.front
            cursor.take(real.execute(text, parameters))

    def _enforce(self, on: bool) -> None:
        """Let foreign keys count, which SQLite takes up between transactions only."""
        if on is self.enforces:
            return
        if self.dirty:
            refuse(
                "PRAGMA foreign_keys changes before anything is written, on the stage: put it at "
                "the start of setup."
            )
        self.enforces = on
        for real in (self.front, self.back):
            real.execute("COMMIT")
            real.execute(f"PRAGMA foreign_keys = {int(on)}")
        self._begin()

    def _save(self, connection: Connection, statement: Statement, text: str) -> None:
        """A savepoint of a connection that has not written yet: nobody needs to wait for it."""
        points, name = connection.points, statement.name
        if statement.detail == "BEGIN":
            points.append((name, text))
            return
        place = next((n for n in reversed(range(len(points))) if points[n][0] == name), None)
        if place is None:
            raise sqlite3.OperationalError(f"no such savepoint: {name}")
        del points[place + (statement.detail == "ROLLBACK") :]

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
        schema = statement.kind == "schema"
        if schema and not connection.in_transaction and not connection.points:
            alone = True
        elif statement.kind == "savepoint":
            alone = False
        touched = statement.label(parameters, many)
        joined = task is not None and not self.world.commit_apart
        if connection.log is None:
            age = self.schemas
            self._open_for(connection, task, touched if alone or joined else ())
            if age != self.schemas:
                touched = self.understood(
                    connection, text, (parameters[0] if parameters else ()) if many else parameters
                ).label(parameters, many)
        elif task is not None:
            # Its own transaction: nobody else can see it, unless the commit is part of this step.
            seen = tuple(dict.fromkeys([*connection.changed, *touched])) if joined else ()
            task.scheduler.point(task, seen)
        if task is not None:
            connection.step = task.scheduler.steps
        drawn = len(self._drawn)
        self._redefine(schema)
        try:
            run = self.back.executemany if many else self.back.execute
            cursor.take(run(text, parameters))
            assert connection.log is not None
            connection.log.append((text, parameters, many))
            connection.changed.update(dict.fromkeys(touch for touch in touched if touch[2]))
        except BaseException:
            del self._drawn[drawn:]
            if alone:
                self._undo(connection)
            raise
        if alone:
            self._publish(connection)

    def _redefine(self, schema: bool) -> None:
        """The schema changes, or changes back: what was understood has to be read again."""
        if schema:
            self.redefined = self.changed_schema = True
            self.schemas += 1
            self._known.clear()

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
        for _, text in connection.points:
            self.back.execute(text)
            connection.log.append((text, (), False))
        connection.points.clear()
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
        self._redefine(self.redefined)
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
        self._redefine(self.redefined)
        self.back.execute("ROLLBACK TO open_transaction")
        self.back.execute("RELEASE open_transaction")
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        connection.log, connection.task, self.owner = None, None, None
        self.redefined = False
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
        self.dirty = self.changed_schema = False
        self._kept_enforces = self.enforces

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
            self.dirty = self.redefined = False
        if self.changed_schema:
            self.changed_schema = False
            self._known.clear()
        self._enforce(self._kept_enforces)

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


def _take_for_update(
    connection: sa.Connection, cursor: Cursor, text: str, parameters: Any, *_: Any
) -> tuple[str, Any]:
    if _FOR_UPDATE in text:
        cursor.connection.locks = True
        text = text.replace(_FOR_UPDATE, "")
    return text, parameters


def _regexp(pattern: str, value: str | None) -> bool | None:
    return None if value is None else re.search(pattern, value) is not None


def _moment(database: Database, form: str) -> Callable[[], str]:
    return lambda: database.moment().strftime(form)


_aside = sqlite3.connect(":memory:", check_same_thread=False, factory=StageSqlite)


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
