"""What happened in a run: every cache, database and clock operation as one event, in order."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any, overload

from cachelab.record.freshness import Freshness, Served

_CACHE_KINDS = ("hit", "miss", "fill", "delete", "command")
_ORIGIN_KINDS = ("query", "write", "commit", "rollback")
KINDS = frozenset((*_CACHE_KINDS, *_ORIGIN_KINDS, "sleep", "wait", "error", "crash", "note"))

_HALVES = re.compile("[\ud800-\udfff]")

_acting: ContextVar[str | None] = ContextVar("cachelab_actor", default=None)
silent: ContextVar[bool] = ContextVar("cachelabsilent", default=False)


def current_actor() -> str:
    """Who is running: the name given by `Trace.acting`, else the thread's ("app": the main one)."""
    name = _acting.get() or threading.current_thread().name
    return "app" if name == "MainThread" else name


@dataclass(frozen=True, slots=True)
class Event:
    """One operation.

    `at` and `took` are seconds since the trace began, real or virtual; `at` is when it ended.
    `kind` is one of `KINDS`; `what` the command or statement ("GET", "SELECT"); `on` the key or
    the table with its parameters. For a hit, `age` is the time in seconds since the served value
    was read from the origin, and `stale_for` the time since it stopped being true; None means
    true, or not known.
    """

    at: float
    actor: str
    kind: str
    what: str
    on: str = ""
    detail: str = ""
    took: float = 0.0
    age: float | None = None
    stale_for: float | None = None

    @property
    def is_stale(self) -> bool:
        """Whether this answer was no longer what the origin would have said."""
        return self.stale_for is not None


@dataclass
class Trace:
    """A list of events with counters; prints as a short table.

    `clock` gives seconds since the trace began and `actor` the name of who runs now. A run on the
    real machine uses the defaults; the stage passes its virtual clock and its current actor, and
    says that its times are `exact`: fractions of a second are then worth printing.
    """

    clock: Callable[[], float] = None  # type: ignore[assignment]  # set in __post_init__
    actor: Callable[[], str] = current_actor
    events: list[Event] = field(default_factory=list)
    exact: bool = False

    def __post_init__(self) -> None:
        if self.clock is None:
            began = time.monotonic()
            self.clock = lambda: time.monotonic() - began
        self.freshness = Freshness(lambda: self.clock())

    # Recording ------------------------------------------------------------------------------

    def add(
        self,
        kind: str,
        what: str,
        on: str = "",
        detail: str = "",
        *,
        took: float = 0.0,
        served: Served | None = None,
        actor: str | None = None,
    ) -> None:
        """Append one event that ends now. `served` says how old a cached answer was."""
        if kind not in KINDS:
            raise ValueError(
                f"No such kind of event: {kind!r}; known are {', '.join(sorted(KINDS))}."
            )
        if not silent.get():
            age, stale_for = (served.age, served.stale_for) if served else (None, None)
            now = self.clock()
            name = actor or self.actor()
            self.events.append(Event(now, name, kind, what, on, detail, took, age, stale_for))

    def note(self, text: str) -> None:
        """Put a remark in the trace."""
        self.add("note", text)

    @contextmanager
    def acting(self, name: str) -> Iterator[None]:
        """Events inside are by `name`: a second service, an admin tool, a named reader."""
        token = _acting.set(name)
        try:
            yield
        finally:
            _acting.reset(token)

    @contextmanager
    def off_the_record(self) -> Iterator[None]:
        """Operations inside are done but leave no event: set-up, and looking without touching."""
        token = silent.set(True)
        try:
            yield
        finally:
            silent.reset(token)

    def clear(self) -> None:
        """Forget the events so far (not what is known about the freshness of keys)."""
        self.events.clear()

    # Reading --------------------------------------------------------------------------------

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds, in order."""
        return [event for event in self.events if event.kind in kinds]

    def count(self, kind: str) -> int:
        """How many events are of this kind."""
        return sum(event.kind == kind for event in self.events)

    @property
    def hits(self) -> int:
        """Cache reads that found a value."""
        return self.count("hit")

    @property
    def misses(self) -> int:
        """Cache reads that found nothing."""
        return self.count("miss")

    @property
    def fills(self) -> int:
        """Values stored in the cache."""
        return self.count("fill")

    @property
    def queries(self) -> int:
        """Reads sent to the origin."""
        return self.count("query")

    @property
    def writes(self) -> int:
        """Statements that change rows, sent to the origin."""
        return self.count("write")

    @property
    def errors(self) -> int:
        """Operations that failed."""
        return self.count("error")

    @property
    def stale(self) -> list[Event]:
        """The hits that were no longer true when they were served."""
        return [event for event in self.events if event.is_stale]

    @property
    def actors(self) -> list[str]:
        """Everybody who did something, in order of first appearance."""
        return list(dict.fromkeys(event.actor for event in self.events))

    @property
    def hit_rate(self) -> float | None:
        """Hits per cache read, 0 to 1; None before the first read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None

    @property
    def elapsed(self) -> float:
        """Seconds from the start of the first event to the end of the last."""
        if not self.events:
            return 0.0
        return max(e.at for e in self.events) - min(e.at - e.took for e in self.events)

    def summary(self) -> str:
        """The counts in one line."""
        kinds = Counter(event.kind for event in self.events)
        parts = [
            _plural(kinds["hit"], "hit"),
            _plural(kinds["miss"], "miss", "misses"),
            _plural(kinds["fill"], "fill"),
            _plural(kinds["query"], "origin query", "origin queries"),
        ]
        if kinds["write"]:
            parts.append(_plural(kinds["write"], "origin write"))
        if kinds["error"]:
            parts.append(_plural(kinds["error"], "error"))
        stale = self.stale
        if stale:
            oldest = max(event.stale_for or 0.0 for event in stale)
            parts.append(f"{_plural(len(stale), 'stale answer')} (wrong for {self.say(oldest)})")
        return " | ".join(parts)

    def table(self, most: int = 24) -> str:
        """The events as a table of at most `most` rows: the first, the last, and how many between.

        No wall-clock times: two runs that did the same print the same.
        """
        if not self.events:
            return "(nothing happened yet)"
        rows = [("#", "who", "what", "on", "result")]
        head = len(self.events) if len(self.events) <= most else most - 6
        tail = 0 if head == len(self.events) else 5
        numbered = list(enumerate(self.events, 1))
        shown = numbered[:head] + numbered[len(numbered) - tail :]
        rows += [(str(n), e.actor, e.what, e.on, self._result(e)) for n, e in shown]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            f"{row[0]:>{widths[0]}}  "
            + "  ".join(cell.ljust(width) for cell, width in zip(row[1:4], widths[1:], strict=True))
            + f"  {row[4]}"
            for row in rows
        ]
        lines = [line.rstrip() for line in lines]
        if tail:
            lines.insert(1 + head, f"... {len(self.events) - head - tail} more ...")
        return "\n".join(lines)

    def say(self, seconds: float) -> str:
        """A duration in words; a real run does not print the time it happened to take itself."""
        return say_seconds(seconds) if self.exact or seconds >= 60 else "under 1 min"

    def _result(self, event: Event) -> str:
        named = event.kind in {"hit", "miss", "fill", "error", "crash"}
        parts = [event.kind if named else "", event.detail]
        if event.stale_for is not None:
            parts.append(f"STALE: wrong for {self.say(event.stale_for)}")
        return ", ".join(filter(None, parts))

    def __str__(self) -> str:
        return f"{self.table()}\n{self.summary()}"

    __repr__ = __str__

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Trace: ...
    def __getitem__(self, index: int | slice) -> Event | Trace:
        if isinstance(index, slice):
            return Trace(self.clock, self.actor, self.events[index], exact=self.exact)
        return self.events[index]

    # Storing --------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The events as JSON, one a line: the same run gives the same bytes on any machine."""
        lines = (json.dumps(_plain(event), ensure_ascii=False) for event in self.events)
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        # Half a pair is no character of UTF-8, and the text would not go into a file.
        return _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def say_seconds(seconds: float) -> str:
    """A duration as a person says it: '0.4 s', '45 s', '4 min', '25 h'.

    From one minute on the small units are cut, not rounded, so that the milliseconds which a real
    run adds to a fast-forwarded clock do not show.
    """
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us" if seconds else "0 s"
    if seconds < 0.1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{int(seconds // 60)} min"
    return f"{int(seconds // 3600)} h"


def _plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _plain(event: Event) -> dict[str, Any]:
    # Times to the nanosecond: enough for any clock here, and free of binary noise in the text.
    return {
        name: round(value, 9) if isinstance(value, float) else value
        for name, value in asdict(event).items()
        if not (value is None or (value == "" and name in {"on", "detail"}))
    }
