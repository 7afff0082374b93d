"""Which cached values are still true: remembers the rows each key was filled from.

Staleness is measured, not guessed. When an actor stores a key, the statements it has read from the
origin since it missed that key are what the value was made of. After every commit the statements
that touch the changed tables are asked again, off the record; a key whose rows would now be
different is stale from that commit on, until it is filled again, deleted, or true again.

A table stands for any of its rows, unless the ids that were read or changed are known: then a
statement about other rows of it need not be asked again.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Rows = tuple[Any, ...]
Tables = Iterable[str] | Mapping[str, frozenset[int] | None]  # with ids, where they are known
MOST_STATEMENTS = 2_000  # the least recently read are forgotten; a lesson uses a few dozen


@dataclass(frozen=True, slots=True)
class Served:
    """How old a served value was: seconds since it was read, and since it stopped being true."""

    age: float
    stale_for: float | None


@dataclass(slots=True)
class _Statement:
    """One statement with its parameters, and every answer the origin has given to it."""

    tables: dict[str, frozenset[int] | None]
    ask: Callable[[], Rows]
    answers: list[tuple[float, Rows]]

    @property
    def now(self) -> Rows:
        return self.answers[-1][1]


@dataclass(frozen=True, slots=True)
class _Read:
    statement: _Statement
    rows: Rows
    version: int  # index into statement.answers of these rows, or of what was true meanwhile
    at: float


@dataclass(slots=True)
class _Actor:
    """What one actor has read since it last stored something, and where it missed which key."""

    reads: list[_Read] = field(default_factory=list)
    missed: dict[str, int] = field(default_factory=dict)  # key -> len(reads) at its last miss
    last: list[_Read] = field(default_factory=list)  # for one read that fills several keys
    filled: int = 0  # reads before this one went into an earlier fill


class Freshness:
    """The truth behind the cached keys of one run. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._lock = threading.RLock()
        self._statements: OrderedDict[Any, _Statement] = OrderedDict()
        self._actors: dict[str, _Actor] = {}
        self._keys: dict[str, list[_Read]] = {}

    # From the origin ------------------------------------------------------------------------

    def read(
        self,
        actor: str,
        statement: Any,
        rows: Rows,
        tables: Tables,
        ask: Callable[[], Rows],
    ) -> None:
        """`actor` has read `rows`; `ask` would read them again, off the record."""
        with self._lock:
            now = self.clock()
            known = self._statements.get(statement)
            if known is None:
                known = _Statement(_with_ids(tables), ask, [(now, rows)])
                self._statements[statement] = known
                if len(self._statements) > MOST_STATEMENTS:
                    self._statements.popitem(last=False)
            elif known.now != rows:
                # Read before a commit and reported after it, or changed by a stranger: ask.
                self._renew(known, now)
            self._statements.move_to_end(statement)
            version = _newest_equal(known.answers, rows)
            self._of(actor).reads.append(_Read(known, rows, version, now))

    def wrote(self, actor: str) -> None:
        """`actor` has changed rows: what it read before says nothing about what it stores next."""
        with self._lock:
            self._actors.pop(actor, None)

    def committed(self, tables: Tables) -> None:
        """Rows of these tables have changed for everybody."""
        changed = _with_ids(tables)
        with self._lock:
            now = self.clock()
            for statement in self._statements.values():
                if _meet(statement.tables, changed):
                    self._renew(statement, now)

    # From the cache -------------------------------------------------------------------------

    def missed(self, actor: str, key: str) -> None:
        """`actor` looked for `key` and found nothing."""
        with self._lock:
            state = self._of(actor)
            state.missed[key] = len(state.reads)
            state.last = []

    def filled(self, actor: str, key: str, value: str) -> None:
        """`actor` has stored `value` under `key`.

        It was made of what the actor has read since it missed the key, or since its last fill. If
        that is nothing, one read may have filled several keys: then the value shows some of it.
        """
        with self._lock:
            state = self._of(actor)
            start = state.missed.pop(key, state.filled)
            reads = state.reads[start:]
            if not reads and start == len(state.reads):
                reads = [read for read in state.last if _shows(value, read.rows)]
            if reads:
                self._keys[key] = reads
            else:
                self._keys.pop(key, None)  # made of something else: not known
            state.last = reads or state.last
            if state.missed:
                state.filled = len(state.reads)
            else:
                state.reads, state.filled = [], 0

    def deleted(self, key: str) -> None:
        """`key` is gone from the cache."""
        with self._lock:
            self._keys.pop(key, None)

    def served(self, actor: str, key: str) -> Served | None:
        """How fresh the value of `key` is now; None if it is not known what it was made of."""
        with self._lock:
            self._of(actor).last = []
            reads = self._keys.get(key)
            if not reads:
                return None
            now = self.clock()
            wrong = [since for read in reads if (since := _wrong_since(read)) is not None]
            age = now - min(read.at for read in reads)
            return Served(age, now - min(wrong) if wrong else None)

    # From one run to the next -------------------------------------------------------------

    def known(self) -> Any:
        """What the keys are made of, for `learn` of another run."""
        return self._statements, self._keys

    def learn(self, known: Any) -> None:
        """Begin with a copy of what another run knew in the end."""
        self._statements, self._keys = copy.deepcopy(known)

    # Inside ---------------------------------------------------------------------------------

    def _of(self, actor: str) -> _Actor:
        return self._actors.setdefault(actor, _Actor())

    def _renew(self, statement: _Statement, now: float) -> None:
        try:
            rows = statement.ask()
        except Exception:
            return  # the table is gone or locked; what was known stays the best knowledge
        if rows != statement.now:
            statement.answers.append((now, rows))


def _with_ids(tables: Tables) -> dict[str, frozenset[int] | None]:
    return dict(tables) if isinstance(tables, Mapping) else dict.fromkeys(tables)


def _meet(
    read: dict[str, frozenset[int] | None], changed: dict[str, frozenset[int] | None]
) -> bool:
    """Whether some row that was read may be one that has changed."""
    for table, ids in read.items():
        if table in changed:
            others = changed[table]
            if ids is None or others is None or not ids.isdisjoint(others):
                return True
    return False


def _shows(value: str, rows: Rows) -> bool:
    """Whether a stored text holds some cell of these rows."""
    cells = (str(cell) for row in rows for cell in row)
    return any(len(cell) > 1 and cell in value for cell in cells)


def _newest_equal(answers: list[tuple[float, Rows]], rows: Rows) -> int:
    """Where these rows stand last; the newest answer if they were never true for everybody."""
    for version in range(len(answers) - 1, -1, -1):
        if answers[version][1] == rows:
            return version
    return len(answers) - 1


def _wrong_since(read: _Read) -> float | None:
    """When the rows of this read stopped being true, in seconds; None while they are true."""
    answers = read.statement.answers
    if answers[-1][1] == read.rows:
        return None
    later = (since for since, rows in answers[read.version :] if rows != read.rows)
    return max(next(later), read.at)
