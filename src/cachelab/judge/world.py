"""A fresh cache and a fresh small shop for one judging, with fault switches."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from cachelab.cache import server as servers
from cachelab.cache.client import SCRIPTS, Cache
from cachelab.origin import SMALL, Origin, Size, copy_of_shop, open_sqlite
from cachelab.process.guard import Guard
from cachelab.record.freshness import Freshness
from cachelab.record.trace import Event, Trace

SCRIPTED = ""  # no key has this name
CACHE_KINDS = frozenset({"hit", "miss", "fill", "delete", "command"})


class TrialWorld:
    """A fresh cache (`.cache`), a fresh small shop (`.db`), and the trace of what happens to them.

    Its clock moves only by `fast_forward`, also as far as `ttl` is concerned. Nothing is shared
    with another world, or with the learner's own Lab. `someone_else` is the same database in the
    hands of another service. `truth` is it for the judge: what that reads is neither counted nor
    recorded; of what it writes, the trace shows the commit.
    """

    def __init__(
        self, size: Size = SMALL, *, latency: float = 0.0, capacity: int | None = None
    ) -> None:
        self.now = 0.0
        self.trace = WatchedTrace(clock=lambda: self.now, exact=True)
        self.server = servers.fake()
        self.cache = Cache(connection_pool=self.server.connection_pool(), trace=self.trace)
        self._aside = self.server.client(max_connections=4)
        self._folder, engine = _fresh_shop(size)
        self.db = Origin(engine, self.trace, latency=latency, capacity=capacity)
        self.someone_else = self.db.acting_as("someone else")
        self.truth = Origin(_engine(self._folder), Trace(clock=lambda: self.now))
        self.truth.trace.freshness = _CommitsOnly(self.trace)
        self._is_down = False
        self._written: dict[str, float] = {}  # key, or SCRIPTED: real time of its last write
        self.trace.watchers.append(self._note_write)

    # What happens to it ---------------------------------------------------------------------

    def fast_forward(self, seconds: float) -> None:
        """Let `seconds` pass at once, for every TTL and for the trace's clock."""
        with self._reachable():
            self.server.age(seconds)
        self.now += seconds

    def cache_down(self) -> None:
        """The cache answers no more: every command raises redis.ConnectionError."""
        if not self._is_down:
            self._is_down = True
            self._fake.connected = False
            self.trace.note("the cache is down")

    def cache_hangs(self) -> None:
        """The cache is there and does not answer: every command raises redis.TimeoutError."""
        self._fake.unreachable = redis.TimeoutError
        self.cache_down()

    def cache_up(self) -> None:
        """The cache answers again, and still holds what it held."""
        if self._is_down:
            self._is_down = False
            self._fake.connected = True
            self._fake.unreachable = redis.ConnectionError
            self.trace.note("the cache is back")

    def break_database(self) -> None:
        """Every statement of `.db` fails from now on; `.truth` still works."""

        @sa.event.listens_for(self.db.engine, "before_cursor_execute")
        def fail(_: Any, __: Any, statement: str, *___: Any) -> None:
            self.trace.add("error", statement.split(None, 1)[0].upper(), "", "OperationalError")
            cause = sqlite3.OperationalError("the database is down")
            raise sa.exc.OperationalError(statement, None, cause)

        self.trace.note("the database is down")

    def on(self, kind: str, action: Callable[[], Any]) -> None:
        """Do `action` after each event of this kind ("query": when the origin has answered)."""

        def watch(event: Event) -> None:
            if event.kind == kind:
                action()

        self.trace.watchers.append(watch)

    def after_cache_command(
        self, number: int | None, action: Callable[[], Any]
    ) -> Callable[[], int]:
        """Do `action` once, after the `number`th cache command from now on (None: never).

        Returns a function that tells how many commands there have been. What `action` itself
        sends is not counted.
        """
        count = 0

        def watch(event: Event) -> None:
            nonlocal count
            is_cache_error = event.kind == "error" and event.what not in _STATEMENTS
            if event.kind in CACHE_KINDS or is_cache_error:
                count += 1
                if count == number:
                    action()

        self.trace.watchers.append(watch)
        return lambda: count

    # Looking and preparing, without a trace ---------------------------------------------------

    def keys(self) -> list[str]:
        """Every key in the cache, sorted."""
        with self._reachable() as cache:
            return sorted(cache.scan_iter())

    def kind(self, key: str) -> str:
        """What the key holds: "string", "hash", "list"...; "none" if it is not there."""
        with self._reachable() as cache:
            return str(cache.type(key))

    def peek(self, key: str) -> Any:
        """What the key holds, a text, dict, list or set; None if it is not there."""
        with self._reachable() as cache:
            read: dict[str, Callable[[], Any]] = {
                "string": lambda: cache.get(key),
                "hash": lambda: cache.hgetall(key),
                "list": lambda: cache.lrange(key, 0, -1),
                "set": lambda: cache.smembers(key),
                "zset": lambda: cache.zrange(key, 0, -1, withscores=True),
                "none": lambda: None,
            }
            kind = self.kind(key)
            return read[kind]() if kind in read else f"<{kind}>"

    def ttl(self, key: str) -> float | None:
        """Seconds that the key has left; None without a TTL, or without the key.

        fakeredis counts in real time. What has passed of that since the answer wrote the key, by
        fakeredis's own clock, is the machine's business, and is not taken off.
        """
        with self._reachable() as cache:
            left = int(cache.pttl(key))
        if left < 0:
            return None
        written = max(self._written.get(key, 0.0), self._written.get(SCRIPTED, 0.0))
        passed = self._moment() - written if written else 0.0
        return round(left / 1000 + passed, 2)

    def put(self, key: str, text: str, seconds: float | None = None) -> None:
        """Store a text, with a TTL or without."""
        with self._reachable() as cache:
            cache.set(key, text, px=None if seconds is None else round(seconds * 1000))
        self._written[key] = self._moment()
        self.trace.freshness.deleted(key)  # what it is made of, nobody knows

    def close(self) -> None:
        """Let go of what it holds."""
        self._aside.connection_pool.disconnect()
        self.truth.engine.dispose()
        shutil.rmtree(self._folder, ignore_errors=True)
        self.cache.connection_pool.disconnect()
        self.db.engine.dispose()

    def _note_write(self, event: Event) -> None:
        starts_a_ttl = event.kind in ("fill", "command") or event.what == "GETEX"
        if not starts_a_ttl or event.detail.endswith("refused"):
            return
        # Which keys a script has written, only the script knows.
        names = [SCRIPTED] if event.what in SCRIPTS else event.on.split(", ")
        self._written |= dict.fromkeys(names, self._moment())

    def _moment(self) -> float:
        """The time at which fakeredis took its last command: what it counts TTLs from."""
        return float(self._fake.dbs[0].time)

    @property
    def missed(self) -> list[str]:
        """Commands asked of the cache that it has not, each as a sentence: limits of ours."""
        return list(self._fake.missed)

    @property
    def _fake(self) -> Any:
        # What is cut is the network, not the server: `server.restart()` would empty it.
        return self.server.backend

    @contextmanager
    def _reachable(self) -> Iterator[Any]:
        """The cache by a client that leaves no trace, also while it is down for others."""
        before, self._fake.connected = self._fake.connected, True
        try:
            yield self._aside
        finally:
            self._fake.connected = before


_STATEMENTS = frozenset({"SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "REPLACE"})


@dataclass(repr=False)
class WatchedTrace(Trace):
    """A trace that tells `watchers` of each event; not of those that a watcher causes."""

    watchers: list[Callable[[Event], None]] = field(default_factory=list)
    _busy: bool = False

    def add(self, *args: Any, **options: Any) -> None:
        """As in Trace."""
        before = len(self.events)
        super().add(*args, **options)
        if self._busy or len(self.events) == before:
            return
        self._busy = True
        try:
            for watch in list(self.watchers):
                watch(self.events[before])
        finally:
            self._busy = False


class _CommitsOnly(Freshness):
    """Passes on what the judge commits, and nothing of what it reads."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace.clock)
        self._trace = trace

    def read(self, *_: Any, **__: Any) -> None:
        pass

    def wrote(self, actor: str) -> None:
        pass

    def committed(self, tables: Iterable[str]) -> None:
        changed = sorted(tables)
        self._trace.add("commit", "COMMIT", ", ".join(changed), actor="someone else")
        self._trace.freshness.committed(changed)


# The shop of a world -------------------------------------------------------------------------

_numbers = itertools.count(1)
_opening = threading.Lock()
_guards: dict[int, Guard] = {}  # by process: a fork has to have its own


def _guard() -> Guard:
    """The temp folder of this process's worlds, gone with it even if it is killed."""
    with _opening:
        if os.getpid() not in _guards:
            _guards[os.getpid()] = Guard()
        return _guards[os.getpid()]


def _fresh_shop(size: Size) -> tuple[Path, sa.Engine]:
    """A copy of the seeded shop, in a folder of its own: the folder and an engine."""
    kept = _guard().folder
    folder = kept / f"world-{next(_numbers)}"
    folder.mkdir()
    copy_of_shop(folder, kept, size)
    return folder, _engine(folder)


def _engine(folder: Path) -> sa.Engine:
    engine = open_sqlite(folder / "shop.sqlite")

    @sa.event.listens_for(engine, "connect")
    def impatient(connection: Any, _: Any) -> None:
        # Waiting for a lock happens in C, where no time limit reaches; so it must be short.
        connection.execute("PRAGMA busy_timeout=500")

    return engine
