"""For the length of a run, gives actors the stage's time, locks and threads, and takes them back.

Nothing that refers to a clock or a lock is replaced: the functions and methods themselves are
redirected. Each asks first whether an actor of a stage is running on this OS thread; everybody
else gets what they always get.
"""

from __future__ import annotations

import _socket
import _thread
import asyncio.base_events
import asyncio.runners
import concurrent.futures.thread as pool_threads
import contextlib
import datetime
import functools
import gc
import hashlib
import io
import multiprocessing.process
import os
import queue
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cachelab.process.redirect import Methods, Original, Redirected
from cachelab.stage import sync, thread_locals
from cachelab.stage.database import StageSqlite
from cachelab.stage.memory import NODE, is_library
from cachelab.stage.scheduler import EPOCH, MONOTONIC, SECOND, current, refuse

with contextlib.suppress(ImportError):  # Windows has none
    import fcntl
_os: Any = sys.modules[os.name]  # a fence may have put its own functions into `os` just now
_functions: list[Redirected] = []


def _redirect(function: Any, target: Callable[..., Any]) -> None:
    """While a run is on, calls of this C function go to `target(real, task, *args)` on a stage."""
    real = Original(function)

    def dispatch(*args: Any, **more: Any) -> Any:
        task = current()
        return real(*args, **more) if task is None else target(real, task, *args, **more)

    _functions.append(Redirected(function, functools.wraps(function)(dispatch)))


# Time ------------------------------------------------------------------------------------------


def _clock(function: Any, began: float) -> None:
    real = Original(function)
    _functions.append(
        Redirected(
            function,
            lambda: real() if (task := current()) is None else began + task.scheduler.now / SECOND,
        )
    )


def _clock_ns(function: Any, began: float) -> None:
    _redirect(function, lambda real, task: int(began) * SECOND + task.scheduler.now)


def _now() -> float:
    task = current()
    assert task is not None
    return EPOCH + task.scheduler.now / SECOND


def _sleep(real: Any, task: Any, seconds: float, /) -> None:
    # The origin's latency is a query's own time, not a sleep of the learner.
    caller = sys._getframe(2).f_globals.get("__name__")
    task.scheduler.sleep(task, seconds, quiet=str(caller).startswith("cachelab.origin."))


def _calendar(function: Any) -> None:
    """`localtime` and the like: without a moment they take the present one."""
    _redirect(function, lambda real, task, when=None, /: real(_now() if when is None else when))


def _strftime(real: Any, task: Any, form: str, when: Any = None, /) -> str:
    return str(real(form, time.localtime() if when is None else when))


for _name, _began in (("time", EPOCH), ("monotonic", MONOTONIC), ("perf_counter", MONOTONIC)):
    _clock(getattr(time, _name), _began)
    _clock_ns(getattr(time, f"{_name}_ns"), _began)
for _name in ("localtime", "gmtime", "ctime"):
    _calendar(getattr(time, _name))
_redirect(time.sleep, _sleep)
_redirect(time.strftime, _strftime)

_datetime = dict(vars(datetime.datetime))  # its `today` and a date's ask time.time


def _datetime_now(cls: Any, tz: Any = None) -> Any:
    if current() is None:
        return _datetime["now"].__get__(None, cls)(tz)
    return cls.fromtimestamp(_now(), tz)


def _datetime_utcnow(cls: Any) -> Any:
    if current() is None:
        return _datetime["utcnow"].__get__(None, cls)()
    return cls.fromtimestamp(_now(), datetime.UTC).replace(tzinfo=None)


# Chance ----------------------------------------------------------------------------------------

_redirect(os.urandom, lambda real, task, size, /: random.randbytes(size))

_redirect(os.getpid, lambda real, task: 20_000 + task.process.number)


def _hash(real: Any, task: Any, value: Any, /) -> int:
    """As in another process: `hash` of a text, and of what holds texts, is salted anew.

    Not for a `__hash__`: a dict that was made before the run has to find its keys.
    """
    caller = sys._getframe(2)
    if (
        not _is_salted(value)
        or caller.f_code.co_name == "__hash__"
        or is_library(caller.f_globals.get("__name__"))
    ):
        return int(real(value))
    salt = task.process.name.encode()[:64]
    digest = hashlib.blake2b(repr(value).encode(), key=salt, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) >> 3


def _is_salted(value: Any) -> bool:
    if type(value) in (tuple, frozenset):
        return any(map(_is_salted, value))
    return type(value) in (str, bytes)


_redirect(hash, _hash)

# Locks, queues, threads ------------------------------------------------------------------------

_redirect(_thread.get_ident, lambda real, task: sync.ident(task))
_TYPES = [
    Methods(sync.RealLock, sync.LOCK_METHODS),
    Methods(sync.RealRLock, sync.RLOCK_METHODS),
    Methods(queue.SimpleQueue, sync.QUEUE_METHODS),
    Methods(
        datetime.datetime,
        {"now": classmethod(_datetime_now), "utcnow": classmethod(_datetime_utcnow)},
    ),
]


class _OfItsLock:
    """A Condition keeps methods of its lock, bound when it was made: while a run is on, the lock's
    own are looked up instead.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._plain: Any = vars(threading.Condition).get(name)

    def __get__(self, condition: Any, owner: Any = None) -> Any:
        lock = condition._lock
        if not hasattr(lock, self._name):  # a plain lock, which Condition helps out
            if self._name == "_is_owned" and current() is not None:
                return lock.locked  # not by trying to take it, which would be a step
            return self._plain.__get__(condition)
        return getattr(lock, self._name)

    def __set__(self, condition: Any, value: Any) -> None:
        vars(condition)[self._name] = value


# What cannot work ------------------------------------------------------------------------------

_ASYNC = (
    "asyncio cannot run inside an actor of the stage: write the actor as a plain function "
    "and use threads where something runs beside it."
)
_SOCKET = (
    "A network connection cannot be used inside an actor of the stage: "
    "use the cache and the db that the actor is called with."
)
_PROCESS = "An actor of the stage cannot start a process: use a thread, or a second actor."
_THREAD = "An actor of the stage starts a thread with threading.Thread."
_DATABASE = (
    "A database of your own is not on the stage: use the `db` that the actor is called with, "
    "and make your tables on `db.engine` in setup."
)
_FILE = (
    "A file that is written is not on the stage, which cannot set it back for the next order: "
    "keep it in the cache or the db that the actor is called with."
)


def _refusing(why: str) -> Callable[..., Any]:
    def target(real: Any, task: Any, *args: Any, **more: Any) -> Any:
        if task.gone:
            return real(*args, **more)
        refuse(why)

    return target


def _refusing_method(real: Any, why: str) -> Any:
    target = _refusing(why)

    @functools.wraps(real)
    def dispatch(*args: Any, **more: Any) -> Any:
        task = current()
        return real(*args, **more) if task is None else target(real, task, *args, **more)

    return dispatch


def _outside(why: str, wanted: Callable[..., bool]) -> Callable[..., Any]:
    """Refuses an actor what is `wanted`; not one who looks at the world, and not an import."""
    refused = _refusing(why)

    def target(real: Any, task: Any, *args: Any, **more: Any) -> Any:
        if task.free or not wanted(*args, **more) or _imports():
            return real(*args, **more)
        return refused(real, task, *args, **more)

    return target


def _imports() -> bool:
    """Whether Python keeps what it has compiled."""
    return sys._getframe(3).f_globals.get("__name__") == "importlib._bootstrap_external"


def _is_written(file: Any, mode: str = "r", *_: Any, **__: Any) -> bool:
    return not set(mode).isdisjoint("wax+") and not isinstance(file, int) and file != os.devnull


def _is_opened_to_write(path: Any, flags: int, *_: Any, **__: Any) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and path != os.devnull


def _of_sqlite(kind: Any, names: Sequence[str]) -> Methods:
    """Methods of a connection or a cursor that was made before the run; the stage has its own."""

    def refusing(name: str) -> Any:
        real: Any = vars(kind)[name]

        @functools.wraps(real)
        def dispatch(self: Any, *args: Any, **more: Any) -> Any:
            task = current()
            if task is None or task.free or task.gone:
                return real(self, *args, **more)
            if type(self if kind is sqlite3.Connection else self.connection) is StageSqlite:
                return real(self, *args, **more)
            refuse(_DATABASE)

        return dispatch

    return Methods(kind, {name: refusing(name) for name in names})


class _Drivers:
    """Finds no module, and refuses those that speak to a server past Python's sockets."""

    names = frozenset({"psycopg", "psycopg2", "asyncpg", "MySQLdb", "oracledb", "pyodbc"})

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Called for each import of a module that is not there yet."""
        task = current()
        if name in self.names and task is not None and not task.free and not task.gone:
            refuse(_DATABASE)


# What a driver that is there already is entered by.
_ENTRIES = {
    "psycopg": ("connect", "Connection.connect", "Cursor.execute", "Cursor.executemany"),
    "psycopg2": ("connect",),
}


def _entries() -> Iterator[tuple[Any, str, Any]]:
    for module, names in _ENTRIES.items():
        for name in names if module in sys.modules else ():
            *path, last = name.split(".")
            owner = functools.reduce(getattr, path, sys.modules[module])
            real = getattr(owner, last)
            ours = _refusing_method(real, _DATABASE)
            yield owner, last, staticmethod(ours) if isinstance(real, types.MethodType) else ours


def _leave(real: Any, task: Any, status: int = 0) -> Any:
    raise SystemExit(status)


_redirect(_os._exit, _leave)
_redirect(_os.abort, lambda real, task: _leave(real, task, "abort"))  # type: ignore[arg-type]
_redirect(_thread.start_new_thread, _refusing(_THREAD))
_redirect(sqlite3.connect, _outside(_DATABASE, lambda *args, **more: True))
_redirect(io.open, _outside(_FILE, _is_written))
_redirect(_os.open, _outside(_FILE, _is_opened_to_write))
for _name in ("mkdir", "link", "symlink", "rename", "replace"):
    _redirect(getattr(_os, _name), _outside(_FILE, lambda *args, **more: True))
if "fcntl" in globals():
    _redirect(fcntl.flock, _refusing(_FILE))
    _redirect(fcntl.lockf, _refusing(_FILE))
_redirect(_socket.getaddrinfo, _refusing(_SOCKET))
for _name in ("system", "fork", "forkpty", "posix_spawn"):
    if hasattr(_os, _name):
        _redirect(getattr(_os, _name), _refusing(_PROCESS))

_TYPES += [
    _of_sqlite(sqlite3.Connection, ("execute", "executemany", "executescript", "cursor", "commit")),
    _of_sqlite(sqlite3.Cursor, ("execute", "executemany", "executescript")),
]

# Attributes of classes that are written in Python.
_ATTRIBUTES: list[tuple[Any, str, Any]] = [
    (threading.Thread, "start", sync.start),
    (threading.Thread, "join", sync.join),
    (threading.Thread, "is_alive", sync.is_alive),
    *(
        (threading.Condition, name, _OfItsLock(name))
        for name in ("acquire", "release", "_release_save", "_acquire_restore", "_is_owned")
    ),
    *(
        (owner, name, _refusing_method(getattr(owner, name), why))
        for owner, names, why in (
            (asyncio.base_events.BaseEventLoop, ("run_forever", "run_until_complete"), _ASYNC),
            (asyncio.runners.Runner, ("__init__", "run"), _ASYNC),
            (socket.socket, ("connect", "connect_ex", "send", "sendall", "recv"), _SOCKET),
            (socket.socket, ("recv_into",), _SOCKET),
            (subprocess.Popen, ("__init__",), _PROCESS),
            (multiprocessing.process.BaseProcess, ("start",), _PROCESS),
        )
        for name in names
    ),
    (uuid, "_generate_time_safe", None),  # then uuid1 is made of the time, a node and of chance
    (uuid, "_last_timestamp", None),
    (uuid, "_node", None),
]


class Patches:
    """What is redirected, by `install` until `remove`, whatever happened."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._undo_run: list[Callable[[], None]] = []

    def install(self) -> None:
        """Redirect all."""
        state, enabled = random.getstate(), gc.isenabled()
        self._undo.append(lambda: random.setstate(state))
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            drawn = numpy.random.get_state()
            self._undo.append(lambda: numpy.random.set_state(drawn))
        if enabled:
            self._undo.append(gc.enable)
            gc.disable()  # what is collected, and when, must not depend on earlier runs
        for owner, name, ours in (*_ATTRIBUTES, *_entries()):
            self._put(owner, name, ours)
        drivers: Any = _Drivers()
        sys.meta_path.insert(0, drivers)
        self._undo.append(lambda: sys.meta_path.remove(drivers))
        self._put(pool_threads.ThreadPoolExecutor, "_adjust_thread_count", self._adjust)
        redirected: list[Redirected | Methods] = [*_functions, *_TYPES]
        for one in redirected:
            one.on()
            self._undo.append(one.off)

    def seed(self, seed: int) -> None:
        """The same draws in every run."""
        random.seed(seed)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(seed % 2**32)

    def reset(self) -> None:
        """What a run has put aside is there again."""
        _all(self._undo_run)
        sync.forget_threads()
        uuid._last_timestamp, uuid._node = None, NODE  # type: ignore[attr-defined]

    def remove(self) -> None:
        """Put everything back."""
        self.reset()
        thread_locals.forget()
        _all(self._undo)
        for thread in list(pool_threads._threads_queues):
            if getattr(thread, "_on_stage", None) is not None:
                del pool_threads._threads_queues[thread]  # type: ignore[attr-defined]

    def _put(self, owner: Any, name: str, ours: Any) -> None:
        """Set an attribute of a class or a module, until `remove`."""
        own = vars(owner)
        if name in own:
            old = own[name]
            self._undo.append(lambda: setattr(owner, name, old))
        else:
            self._undo.append(lambda: delattr(owner, name))
        setattr(owner, name, ours)

    @property
    def _adjust(self) -> Any:
        """On the stage a pool of threads starts without workers, and after it has its own again."""
        real, undo = vars(pool_threads.ThreadPoolExecutor)["_adjust_thread_count"], self._undo_run
        met: dict[Any, None] = {}

        def adjust(pool: Any) -> None:
            if current() is not None and pool not in met:
                workers, idle = pool._threads, pool._idle_semaphore

                def put_back() -> None:
                    pool._threads, pool._idle_semaphore = workers, idle
                    met.pop(pool, None)

                undo.append(put_back)
                met[pool] = None
                pool._threads, pool._idle_semaphore = set(), threading.Semaphore(0)
            real(pool)

        return adjust


def _all(undo: list[Callable[[], None]]) -> None:
    while undo:
        with contextlib.suppress(Exception):
            undo.pop()()


def refuse_coroutine(answer: Any) -> None:
    """An `async def` actor gives a coroutine: say so instead of running nothing."""
    if isinstance(answer, types.CoroutineType):
        answer.close()
        refuse(_ASYNC)
