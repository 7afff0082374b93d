"""Traffic: many real readers at once, in threads and in processes, and seeded streams of arrivals.

`burst` lets a reader function loose on the Lab's own cache and database. It is the live twin of
`stage.run`: the same function, real threads, real time.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from redis.connection import BlockingConnectionPool

from cachelab.cache import connections
from cachelab.cache.base import GET_ONE
from cachelab.cache.client import Cache
from cachelab.cache.keyspace import Keyspace
from cachelab.lab import Lab
from cachelab.origin import Origin, connect_postgresql, open_sqlite
from cachelab.process.errors import OneSentence
from cachelab.record.trace import Event, Trace

if sys.platform != "win32":
    import fcntl

Reader = Callable[[Any, Any], Any]

MOST_READERS = 2_000  # threads in all
QUIET_LOOKS = 100  # at 5 ms each: when nobody more has asked for so long, nobody will
WALL_SECONDS = 60.0  # for one burst


class TrafficError(OneSentence, ValueError):
    """This burst cannot be run; its text says why in one sentence."""


# Streams ---------------------------------------------------------------------------------------


def poisson(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Arrival times (s, from 0, ascending) of independent readers, `rate` per second on average."""
    if not 0 < rate * seconds <= 1_000_000:
        raise ValueError(f"rate and seconds give {rate * seconds:g} arrivals; 1 to 1,000,000 go.")
    draw, times = random.Random(seed), [0.0]
    while times[-1] < seconds:
        times.append(times[-1] + draw.expovariate(rate))
    return times[1:-1]


# Bursts ----------------------------------------------------------------------------------------


@dataclass
class Burst:
    """What became of a burst.

    answers: what each reader got, in the order of the readers; errors: "ConnectionError: ..." for
    each that got none; waits: s from a reader's first step to its answer; seconds: from the moment
    the database was open until the last answer; trace: all that happened, of all processes.
    """

    readers: int
    processes: int = 1
    answers: list[Any] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0
    trace: Trace = field(default_factory=Trace)

    @property
    def queries(self) -> int:
        """Reads that reached the origin."""
        return self.trace.queries

    def __repr__(self) -> str:
        where = f" in {self.processes} processes" if self.processes > 1 else ""
        parts = [
            f"{self.readers} readers{where}",
            f"{len(self.answers)} answers",
            f"{len(self.errors)} error{'' if len(self.errors) == 1 else 's'}",
            f"{self.queries} origin {'query' if self.queries == 1 else 'queries'}",
        ]
        return " | ".join(parts)


def burst(
    lab: Lab, reader: Reader, readers: int = 800, *, processes: int = 1, over: float = 0.0
) -> Burst:
    """Let `readers` real threads call `reader(lab.cache, lab.db)`, and wait for all of them.

    `over`: seconds over which they arrive, evenly. 0 is all at once: a barrier lets them go, and
    because no computer starts 800 threads within one 10 ms query, the database gives its first
    answer only when all of them have asked the cache. `processes`: spread the readers over so many
    new Python processes, which share the cache, the database and its slots; `reader` must then be
    a `def` that uses modules, functions and constants. The Lab's trace gets what happens.

    Raises TrafficError, one sentence, for what cannot be run.
    """
    if not 1 <= readers <= MOST_READERS or not 1 <= processes <= readers:
        raise TrafficError(
            f"A burst takes 1 to {MOST_READERS} readers and at most as many processes; these are"
            f" {readers} and {processes}."
        )
    if over < 0:
        raise TrafficError(f"over is a time in seconds, from 0; this is {over!r}.")
    if processes > 1:
        return _in_processes(lab, reader, readers, processes, over)
    with lab.record() as trace:
        crowd = _Crowd(reader, lab.cache, lab.db, range(readers), range(readers), over)
        with crowd.held_origin():
            crowd.go()
            crowd.wait_until_asked()
            crowd.open()
            crowd.wait()
    return Burst(readers, 1, crowd.answers, crowd.errors, crowd.waits, crowd.seconds, trace)


class _Crowd:
    """Some readers, each in a thread of its own, before a closed database."""

    def __init__(
        self, reader: Reader, cache: Cache, db: Origin, numbers: range, all_of: range, over: float
    ) -> None:
        self.reader, self.cache, self.db = reader, cache, db
        self.trace, self.over = db.trace, over
        self.ended: dict[int, tuple[Any, str, float]] = {}
        self._before = len(self.trace)
        self._answering, self._barrier = threading.Event(), threading.Barrier(len(numbers) + 1)
        self._opened = 0.0
        self._threads = [
            threading.Thread(
                target=self._read,
                args=(number, over * number / len(all_of)),
                name=f"reader-{number + 1}",
                daemon=True,
            )
            for number in numbers
        ]

    def _read(self, number: int, start: float) -> None:
        self._barrier.wait()
        if start:
            time.sleep(start)
        began, answer, error = time.monotonic(), None, ""
        try:
            answer = self.reader(self.cache, self.db)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        self.ended[number] = (answer, error, time.monotonic() - began)

    @contextlib.contextmanager
    def held_origin(self) -> Iterator[None]:
        """While this lasts, a statement waits until `open`."""

        def wait(*_: Any) -> None:
            self._answering.wait(WALL_SECONDS)

        if self.over:
            self.open()
        sa.event.listen(self.db.engine, "before_cursor_execute", wait)
        try:
            for thread in self._threads:
                thread.start()
            yield
        finally:
            self.open()
            sa.event.remove(self.db.engine, "before_cursor_execute", wait)

    def go(self) -> None:
        """Let them all run."""
        self._barrier.wait(WALL_SECONDS)

    def wait_until_asked(self) -> None:
        """Until each has asked the cache, or nobody more does."""
        if self.over:
            return
        seen, silent, looks = self._before, {thread.name for thread in self._threads}, 0
        # Looks are counted, not seconds: among so many threads a look may come late.
        while silent and looks < QUIET_LOOKS:
            now = len(self.trace)
            new = silent & {event.actor for event in self.trace.events[seen:now]}
            looks = 0 if new else looks + 1
            silent, seen = silent - new, now
            time.sleep(0.005)

    def open(self) -> None:
        """The database answers from now on."""
        if not self._answering.is_set():
            self._opened = time.monotonic()
            self._answering.set()

    def wait(self) -> None:
        """Until the last has its answer."""
        deadline = time.monotonic() + WALL_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.seconds = time.monotonic() - self._opened
        late = sum(thread.is_alive() for thread in self._threads)
        if late:
            raise TrafficError(f"After {WALL_SECONDS:g} s {late} readers still have no answer.")

    @property
    def answers(self) -> list[Any]:
        return [answer for _, (answer, error, _) in sorted(self.ended.items()) if not error]

    @property
    def errors(self) -> list[str]:
        return [error for _, (_, error, _) in sorted(self.ended.items()) if error]

    @property
    def waits(self) -> list[float]:
        return [waited for _, (_, _, waited) in sorted(self.ended.items())]


# In several processes --------------------------------------------------------------------------


def _in_processes(lab: Lab, reader: Reader, readers: int, processes: int, over: float) -> Burst:
    if not lab.server.is_live:
        raise TrafficError(
            "fakeredis lives inside this process, where no other process can read through it:"
            f" for a real server, {GET_ONE}."
        )
    if sys.platform == "win32":
        raise TrafficError("Processes share the database's slots by file locks, not on Windows.")
    config = {**_child_config(lab, reader), "readers": readers, "over": over}
    edges = [number * readers // processes for number in range(processes + 1)]
    with _folder(lab) as folder, _children(processes, folder) as children:
        for child, first, last in zip(children, edges, edges[1:], strict=False):
            _send(child.stdin, {**config, "slots": str(folder), "first": first, "last": last})
        for heard, told in (("ready", "go"), ("asked", "open")):
            for child in children:
                _receive(child, heard, folder)
            opened = lab.trace.clock()
            for child in children:
                _send(child.stdin, told)
        reports = [_receive(child, "report", folder) for child in children]
    with lab.record() as trace:
        shift = lab.trace.clock() - time.time()  # the children tell the time of day
        events = [Event(**event) for report in reports for event in report["events"]]
        events = [replace(event, at=event.at + shift) for event in events]
        lab.trace.events.extend(sorted(events, key=lambda event: event.at))
    lab.db.add_queries(trace.queries)
    together = Burst(readers, processes, trace=trace)
    for report in reports:
        together.answers += report["answers"]
        together.errors += report["errors"]
        together.waits += report["waits"]
    together.seconds = max((event.at for event in trace), default=opened) - opened
    return together


def _child_config(lab: Lab, reader: Reader) -> dict[str, Any]:
    """What another process needs to read as this one does, as JSON can hold it."""
    pool = lab.cache.connection_pool
    options = pool.connection_kwargs.items()
    return {
        "source": source_of(reader),
        "reader": reader.__name__,
        "connection": {k: v for k, v in options if isinstance(v, (str, int, float, type(None)))},
        "tls": issubclass(pool.connection_class, connections.TlsConnection),
        "prefix": lab.server.prefix,
        "database": lab.db.engine.url.render_as_string(hide_password=False),
        "latency": lab.db.latency,
        "capacity": lab.db.capacity,
    }


@contextlib.contextmanager
def _folder(lab: Lab) -> Iterator[Path]:
    """A folder for the slots and for last words, inside the Lab's own."""
    folder = Path(tempfile.mkdtemp(prefix="burst-", dir=lab.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _children(count: int, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """New Python processes that wait for their config, and are gone afterwards."""
    children: list[subprocess.Popen[str]] = []
    try:
        for number in range(count):
            with (folder / f"{number}.err").open("w") as errors:
                children.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "cachelab.lab.traffic"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                        start_new_session=True,  # a Ctrl-C is for us; we end them
                    )
                )
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError, AttributeError):
                    pipe.close()  # type: ignore[union-attr]


def _send(pipe: IO[str] | None, what: Any) -> None:
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError):  # what became of it is found out by `_receive`
        pipe.write(json.dumps(what) + "\n")
        pipe.flush()


def _receive(child: subprocess.Popen[str], word: str, folder: Path) -> Any:
    """What a child says under `word`; TrafficError when it ends instead, with its last words."""
    assert child.stdout is not None
    overdue = threading.Timer(WALL_SECONDS, child.kill)
    overdue.start()
    try:
        line = child.stdout.readline()
    finally:
        overdue.cancel()
    if line:
        heard = json.loads(line)
        if word in heard:
            return heard[word]
    said = [text.read_text().strip().splitlines()[-1:] for text in sorted(folder.glob("*.err"))]
    last = next((lines[0] for lines in said if lines), "it gave no reason").rstrip(".")
    raise TrafficError(f"A process of readers ended before its time: {last}.")


def source_of(reader: Reader) -> str:
    """Python text that defines a function and all that it uses, for another process.

    TrafficError, one sentence, for a reader that cannot travel: a lambda, a closure, one that uses
    an object of this process.
    """
    lines: dict[str, str] = {}
    _pack(reader, lines)
    return "\n\n".join(lines.values())


def _pack(function: Any, lines: dict[str, str]) -> None:
    name = getattr(function, "__name__", "?")
    if not isinstance(function, types.FunctionType) or name == "<lambda>" or function.__closure__:
        raise TrafficError(
            f"Another process gets the text of a reader, so write it as a plain `def`; this is"
            f" {name!r}."
        )
    try:
        text = inspect.getsource(function)
    except OSError:
        raise TrafficError(f"The source of {name} is not available.") from None
    lines[name] = ""
    for used in sorted(_names_of(function.__code__) & function.__globals__.keys()):
        if used in lines:
            continue
        value = function.__globals__[used]
        home = getattr(value, "__module__", None)
        if isinstance(value, types.ModuleType):
            lines[used] = (
                f"import {value.__name__} as {used}"
                if "." not in value.__name__
                else ("from {} import {} as {}".format(*value.__name__.rpartition(".")[::2], used))
            )
        elif isinstance(value, types.FunctionType) and home == function.__module__:
            _pack(value, lines)
        elif home and getattr(value, "__qualname__", "") == getattr(value, "__name__", None):
            lines[used] = f"from {home} import {value.__name__} as {used}"
        elif isinstance(value, (str, int, float, bool, type(None), tuple)):
            lines[used] = f"{used} = {value!r}"
        else:
            raise TrafficError(
                f"{name} uses {used} ({type(value).__name__}), which cannot go to another process."
            )
    del lines[name]
    lines[name] = inspect.cleandoc(text) if text[:1].isspace() else text


def _names_of(code: types.CodeType) -> set[str]:
    inner = [_names_of(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*inner)


# What a child does -----------------------------------------------------------------------------


class SharedSlots:
    """Slots that processes share: locked files. Within a process threads wait for each other."""

    def __init__(self, count: int, folder: Path) -> None:
        self._files = [folder / f"slot-{number}" for number in range(count)]
        self._here = threading.Semaphore(count)
        self._mine = threading.local()

    def acquire(self, blocking: bool = True) -> bool:
        """Take a slot; False if none is free and `blocking` is false."""
        if not self._here.acquire(blocking=blocking):
            return False
        while True:
            for path in self._files:
                handle = os.open(path, os.O_RDWR | os.O_CREAT)
                alone = blocking and len(self._files) == 1
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | (0 if alone else fcntl.LOCK_NB))
                except BlockingIOError:
                    os.close(handle)
                    continue
                self._mine.handle = handle
                return True
            if not blocking:
                self._here.release()
                return False
            time.sleep(0.001)

    def release(self) -> None:
        """Give the slot back."""
        os.close(self._mine.handle)  # which also unlocks it
        self._here.release()


def _database(config: dict[str, Any]) -> sa.Engine:
    url = sa.make_url(config["database"])
    if url.get_backend_name() == "sqlite":
        return open_sqlite(Path(url.database or ""))
    return connect_postgresql(url)


def _cache(config: dict[str, Any], trace: Trace) -> Cache:
    options = config["connection"]
    tcp = connections.TlsConnection if config["tls"] else connections.TcpConnection
    kind = connections.UnixConnection if "path" in options else tcp
    pool: BlockingConnectionPool = connections.pool(kind, options)
    prefix = config["prefix"]
    return Cache(
        connection_pool=pool,
        trace=trace,
        keyspace=Keyspace(prefix, place="yours") if prefix else Keyspace.own(),
    )


def _child() -> None:
    """Read with one share of the readers; the parent says when."""
    says = sys.stdout
    sys.stdout = sys.stderr  # what a reader prints must not be taken for a report
    config = json.loads(sys.stdin.readline())
    words: dict[str, threading.Event] = {"go": threading.Event(), "open": threading.Event()}

    def listen() -> None:
        for line in sys.stdin:
            words[json.loads(line)].set()
        os._exit(0)  # the parent is gone, and so is its cache

    threading.Thread(target=listen, daemon=True).start()
    trace = Trace(clock=time.time)
    space: dict[str, Any] = {"__name__": "readers"}
    exec(compile(config["source"], "<reader>", "exec"), space)
    db = Origin(
        _database(config),
        trace,
        latency=config["latency"],
        capacity=config["capacity"],
        slots=lambda count: SharedSlots(count, Path(config["slots"])),
    )
    numbers, everybody = range(config["first"], config["last"]), range(config["readers"])
    cache, reader = _cache(config, trace), space[config["reader"]]
    crowd = _Crowd(reader, cache, db, numbers, everybody, config["over"])
    with crowd.held_origin():
        _send(says, {"ready": True})
        words["go"].wait()
        crowd.go()
        crowd.wait_until_asked()
        _send(says, {"asked": True})
        words["open"].wait()
        crowd.open()
        crowd.wait()
    report = {
        "answers": crowd.answers,
        "errors": crowd.errors,
        "waits": crowd.waits,
        "events": [
            {name: getattr(event, name) for name in Event.__slots__} for event in trace.events
        ],
    }
    _send(says, {"report": report})


if __name__ == "__main__":
    _child()
