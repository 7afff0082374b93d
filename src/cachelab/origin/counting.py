"""Every statement of an engine counted, recorded and slowed down, by SQLAlchemy's own events.

So a lesson may use sessions, core statements or raw SQL and is seen all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy

from cachelab.origin.statements import READS, WRITES, in_order, label, rows_touched, tables_of
from cachelab.record.trace import Trace, say_seconds

Latency = float | Callable[[], float]
Ask = Callable[[str, Any], tuple[Any, ...]]


class SemaphoreLike(Protocol):
    """Room for so many statements at once; the others wait in order of arrival."""

    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...


@dataclass
class Meter:
    """The counts of one engine, and the knobs that slow it down: what every view of it shares.

    `ask`: sends a statement past the meter.
    """

    engine: sa.Engine
    trace: Trace
    latency: Latency
    ask: Ask
    capacity: int | None = None
    slots: SemaphoreLike | None = None
    queries: int = 0
    writes: int = 0
    # Open transaction -> its tables, each with the ids of the changed rows where they are known.
    changed: dict[int, dict[str, frozenset[int] | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        engine = self.engine

        @sa.event.listens_for(engine, "do_execute")
        def one(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
            run = partial(cursor.execute, statement, parameters)
            return self._perform(cursor, statement, parameters, context, run)

        @sa.event.listens_for(engine, "do_execute_no_params")
        def bare(cursor: Any, statement: str, context: Any) -> bool:
            return self._perform(cursor, statement, (), context, partial(cursor.execute, statement))

        @sa.event.listens_for(engine, "do_executemany")
        def many(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
            run = partial(cursor.executemany, statement, parameters)
            return self._perform(cursor, statement, parameters, context, run)

        # SQLAlchemy's own commit event comes before the commit; freshness changes after it.
        commit, rollback = engine.dialect.do_commit, engine.dialect.do_rollback

        def do_commit(connection: Any) -> None:
            changed = self.changed.pop(_identity(connection), {})
            commit(connection)
            if changed:
                self.trace.add("commit", "COMMIT", ", ".join(sorted(changed)))
                self.trace.freshness.committed(changed)

        def do_rollback(connection: Any) -> None:
            changed = self.changed.pop(_identity(connection), {})
            rollback(connection)
            if changed:
                self.trace.add("rollback", "ROLLBACK", ", ".join(sorted(changed)))

        engine.dialect.do_commit, engine.dialect.do_rollback = do_commit, do_rollback  # type: ignore[method-assign,assignment]

    def seconds(self) -> float:
        """What a statement sent now takes on top of its own time."""
        return self.latency() if callable(self.latency) else self.latency

    def _perform(
        self, cursor: Any, statement: str, parameters: Any, context: Any, run: Callable[[], Any]
    ) -> bool:
        """Run one statement in a slot, and record it; True: SQLAlchemy need not run it."""
        verb = statement.lstrip().split(None, 1)[0].upper()
        tables = tables_of(statement)
        values = in_order(statement, parameters)
        touched = rows_touched(statement, tables, values)
        trace, on = self.trace, label(tables, values, verb)
        if verb not in READS | WRITES:
            run()
            return True
        slots = self.slots
        if slots is not None and not slots.acquire(blocking=False):
            asked = time.monotonic()
            slots.acquire()
            trace.add("wait", "WAIT", "a database slot", took=time.monotonic() - asked)
        began = time.monotonic()
        try:
            # It answers from what was committed when it began, and only then takes its time.
            run()
            found = None if cursor.description is None else tuple(cursor.fetchall())
            latency = self.seconds()
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
        if verb in WRITES:
            self.writes += 1
            connection = context.root_connection
            alone = connection._is_autocommit_isolation()  # no commit will follow
            if not alone:
                so_far = self.changed.setdefault(_identity(connection.connection), {})
                for table, ids in touched.items():
                    known = so_far.get(table, frozenset())
                    so_far[table] = None if ids is None or known is None else known | ids
            trace.freshness.wrote(trace.actor())
            count = f"{cursor.rowcount} row{'' if cursor.rowcount == 1 else 's'}"
            trace.add("write", verb, on, ", ".join(filter(None, [count, slow])), took=took)
            if found is not None:
                _replace_result(context, cursor, found)
            if alone:
                trace.freshness.committed(touched)
            return True
        self.queries += 1
        found = found or ()
        _replace_result(context, cursor, found)
        count = f"{len(found)} row{'' if len(found) == 1 else 's'}"
        trace.add("query", "SELECT", on, ", ".join(filter(None, [count, slow])), took=took)
        trace.freshness.read(
            trace.actor(),
            (statement, repr(parameters)),
            found,
            touched,
            lambda: self.ask(statement, parameters),  # no partial: it is copied, and self is not
        )
        return True


def _identity(connection: Any) -> int:
    """Which DBAPI connection this is; it is open as long as its transaction is."""
    return id(connection.dbapi_connection)


def _replace_result(context: Any, cursor: Any, found: tuple[Any, ...]) -> None:
    # The rows were taken from the cursor to be compared later: SQLAlchemy reads them from here.
    context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(cursor, initial_buffer=found)


def asker(engine: sa.Engine) -> Ask:
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


def _say_error(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}"[:80]
