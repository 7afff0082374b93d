"""For the length of a run, gives actors the stage's time, locks and threads, and takes them back.

Every stand-in asks first whether an actor of a stage is running on this OS thread; everybody else
gets what they always get. Names that were bound before (`from time import sleep`) and locks that
were made before are replaced where the actors can reach them, and put back afterwards.
"""

from __future__ import annotations

import _thread
import asyncio.base_events
import asyncio.runners
import concurrent.futures.thread as pool_threads
import contextlib
import datetime as datetime_module
import functools
import gc
import multiprocessing.process
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator
from datetime import date as _RealDate
from datetime import datetime as _RealDatetime
from typing import Any

from cachelab.stage import sync
from cachelab.stage.scheduler import EPOCH, MONOTONIC, SECOND, current, refuse

# Time ------------------------------------------------------------------------------------------

_time, _monotonic, _perf = time.time, time.monotonic, time.perf_counter
_time_ns, _monotonic_ns, _perf_ns = time.time_ns, time.monotonic_ns, time.perf_counter_ns
_sleep, _localtime, _gmtime = time.sleep, time.localtime, time.gmtime
_ctime, _strftime = time.ctime, time.strftime
_urandom, _exit, _abort = os.urandom, os._exit, os.abort
_uuid1 = uuid.uuid1
_SILENT = "cachelab.origin."  # its latency is a query's own time, not a sleep of the learner


def _now_ns() -> int | None:
    task = current()
    return None if task is None else task.scheduler.now


def stage_time() -> float:
    now = _now_ns()
    return _time() if now is None else EPOCH + now / SECOND


def stage_time_ns() -> int:
    now = _now_ns()
    return _time_ns() if now is None else EPOCH * SECOND + now


def stage_monotonic() -> float:
    now = _now_ns()
    return _monotonic() if now is None else MONOTONIC + now / SECOND


def stage_perf_counter() -> float:
    now = _now_ns()
    return _perf() if now is None else MONOTONIC + now / SECOND


def stage_monotonic_ns() -> int:
    now = _now_ns()
    return _monotonic_ns() if now is None else int(MONOTONIC) * SECOND + now


def stage_perf_counter_ns() -> int:
    now = _now_ns()
    return _perf_ns() if now is None else int(MONOTONIC) * SECOND + now


def stage_sleep(seconds: float, /) -> None:
    task = current()
    if task is None:
        _sleep(seconds)
        return
    quiet = str(sys._getframe(1).f_globals.get("__name__")).startswith(_SILENT)
    task.scheduler.sleep(task, seconds, quiet=quiet)


def stage_localtime(seconds: float | None = None, /) -> time.struct_time:
    return _localtime(stage_time() if seconds is None else seconds)


def stage_gmtime(seconds: float | None = None, /) -> time.struct_time:
    return _gmtime(stage_time() if seconds is None else seconds)


def stage_ctime(seconds: float | None = None, /) -> str:
    return _ctime(stage_time() if seconds is None else seconds)


def stage_strftime(format: str, when: Any = None, /) -> str:
    return _strftime(format, stage_localtime() if when is None else when)


class _DateMeta(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _RealDate)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, _RealDate)


class StageDate(_RealDate, metaclass=_DateMeta):
    """`datetime.date` for actors; what it makes are plain dates."""

    def __new__(cls, *args: Any, **more: Any) -> Any:
        return _RealDate(*args, **more)

    @classmethod
    def today(cls) -> Any:
        return _RealDatetime.fromtimestamp(stage_time()).date()


class _DatetimeMeta(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _RealDatetime)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, _RealDatetime)


class StageDatetime(_RealDatetime, metaclass=_DatetimeMeta):
    """`datetime.datetime` for actors; what it makes are plain datetimes."""

    def __new__(cls, *args: Any, **more: Any) -> Any:
        return _RealDatetime(*args, **more)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _RealDatetime.fromtimestamp(stage_time(), tz)

    @classmethod
    def today(cls) -> Any:
        return _RealDatetime.fromtimestamp(stage_time())

    @classmethod
    def utcnow(cls) -> Any:
        utc = datetime_module.UTC
        return _RealDatetime.fromtimestamp(stage_time(), utc).replace(tzinfo=None)


for _name in ("fromtimestamp", "fromisoformat", "fromordinal", "fromisocalendar"):
    setattr(StageDate, _name, getattr(_RealDate, _name))
    setattr(StageDatetime, _name, getattr(_RealDatetime, _name))
for _name in ("utcfromtimestamp", "combine", "strptime"):
    setattr(StageDatetime, _name, getattr(_RealDatetime, _name))


# Chance ----------------------------------------------------------------------------------------


def stage_urandom(size: int, /) -> bytes:
    return _urandom(size) if current() is None else random.randbytes(size)


def stage_uuid1(node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
    if current() is None:
        return _uuid1(node, clock_seq)
    return uuid.UUID(bytes=random.randbytes(16), version=1)


# What makes locks and queues -------------------------------------------------------------------

_allocate, _RealRLock, _RealLocal, _RealSimpleQueue = (
    _thread.allocate_lock,
    _thread.RLock,
    threading.local,
    queue.SimpleQueue,
)


def stage_lock() -> Any:
    if current() is None:
        return _allocate()
    caller = sys._getframe(1)
    if caller.f_code.co_name == "wait" and caller.f_globals is threading.__dict__:
        return sync.Notification()
    return sync.Lock(loud=sync._is_loud())


def stage_rlock() -> Any:
    return _RealRLock() if current() is None else sync.RLock(loud=sync._is_loud())


def stage_simple_queue() -> Any:
    return _RealSimpleQueue() if current() is None else sync.SimpleQueue()


# What cannot work ------------------------------------------------------------------------------


def _refusing(real: Any, why: str) -> Any:
    @functools.wraps(real)
    def dispatch(*args: Any, **more: Any) -> Any:
        task = current()
        if task is None or task.gone:
            return real(*args, **more)
        refuse(why)

    return dispatch


def stage_exit(status: int = 0) -> Any:
    if current() is None:
        _exit(status)
    raise SystemExit(status)


def stage_abort() -> Any:
    if current() is None:
        _abort()
    raise SystemExit("abort")


_ASYNC = (
    "asyncio cannot run inside an actor of the stage: write the actor as a plain function "
    "and use threads where something runs beside it."
)
_SOCKET = (
    "A network connection cannot be used inside an actor of the stage: "
    "use the cache and the db that the actor is called with."
)
_PROCESS = "An actor of the stage cannot start a process: use a thread, or a second actor."

# The originals that are looked for under any name, by identity, and what replaces them.
_TIMES: dict[Any, Any] = {
    _time: stage_time,
    _time_ns: stage_time_ns,
    _monotonic: stage_monotonic,
    _monotonic_ns: stage_monotonic_ns,
    _perf: stage_perf_counter,
    _perf_ns: stage_perf_counter_ns,
    _sleep: stage_sleep,
    _localtime: stage_localtime,
    _gmtime: stage_gmtime,
    _ctime: stage_ctime,
    _strftime: stage_strftime,
    _urandom: stage_urandom,
    _uuid1: stage_uuid1,
    _exit: stage_exit,
    _abort: stage_abort,
    _allocate: stage_lock,
    _RealRLock: stage_rlock,
    _RealLocal: sync.Local,
    _RealSimpleQueue: stage_simple_queue,
    threading.current_thread: sync.current_thread,
    threading.get_ident: sync.get_ident,
    subprocess.run: _refusing(subprocess.run, _PROCESS),
}
if threading.Lock is not _allocate:  # a class of its own from Python 3.13 on
    _TIMES[threading.Lock] = stage_lock
_DATES: dict[Any, Any] = {_RealDatetime: StageDatetime, _RealDate: StageDate}
_BY_ID = {id(real): stand_in for real, stand_in in _TIMES.items()}
_DATES_BY_ID = {id(real): stand_in for real, stand_in in _DATES.items()}
_BACK = {id(stand_in): real for real, stand_in in {**_TIMES, **_DATES}.items()}

_METHODS: list[tuple[Any, str, Any]] = [
    (threading.Thread, "start", sync.start),
    (threading.Thread, "join", sync.join),
    (threading.Thread, "is_alive", sync.is_alive),
    (datetime_module, "datetime", StageDatetime),
    (datetime_module, "date", StageDate),
]
for _owner, _names, _why in (
    (asyncio.base_events.BaseEventLoop, ("run_forever", "run_until_complete"), _ASYNC),
    (asyncio.runners.Runner, ("run",), _ASYNC),
    (asyncio, ("run",), _ASYNC),
    (socket.socket, ("connect", "connect_ex", "send", "sendall", "recv", "recv_into"), _SOCKET),
    (socket, ("create_connection", "getaddrinfo"), _SOCKET),
    (subprocess.Popen, ("__init__",), _PROCESS),
    (multiprocessing.process.BaseProcess, ("start",), _PROCESS),
    (os, ("system", "fork", "forkpty", "posix_spawn", "popen"), _PROCESS),
):
    for _name in _names:
        if hasattr(_owner, _name):
            _METHODS.append((_owner, _name, _refusing(getattr(_owner, _name), _why)))

_NEVER = {"_thread", "greenlet", "threading", "builtins", "sys", "_time"}
_OWN = (
    "cachelab.stage",
    "cachelab.record.trace",
    "cachelab.process.patience",
    "greenlet",
    "faulthandler",
)
# Looked through each time: what they hold may be somebody else's stand-in just now, as when the
# first run of all is inside `limits.run`, which puts its own `os._exit` in place.
_HOMES = {"os", "time", "datetime", "uuid", "queue", "subprocess"}
_scanned: dict[str, tuple[Any, list[tuple[dict[str, Any], str, Any]]]] = {}


def _places() -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Where in all loaded modules one of the originals is bound to a name."""
    for name, module in list(sys.modules.items()):
        known = _scanned.get(name)
        if known is None or known[0] is not module or name in _HOMES:
            found = []
            if (
                type(module) is types.ModuleType
                and name not in _NEVER
                and not name.startswith(_OWN)
            ):
                space = module.__dict__
                found = [
                    (space, key, value)
                    for key, value in list(space.items())
                    if id(value) in _BY_ID and not key.startswith("__")
                ]
            known = _scanned[name] = (module, found)
        yield from known[1]


class Patches:
    """The stand-ins, installed by `install` and taken back by `remove`, whatever happened."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._adopted: list[Any] = []
        self._modules: set[str] = set()
        self._state: Any = None

    def install(self, roots: Any = ()) -> None:
        """Replace everywhere; `roots` are the actors' callables."""
        self._modules = set(sys.modules)
        for space, key, value in _places():
            self._put(space, key, value, _BY_ID[id(value)])
        names = (
            ("Lock", stage_lock),
            ("_allocate_lock", stage_lock),
            ("_CRLock", stage_rlock),
            ("local", sync.Local),
            ("current_thread", sync.current_thread),
            ("get_ident", sync.get_ident),
            ("_time", stage_monotonic),
        )
        for key, stand_in in names:
            if key in threading.__dict__:
                self._put(threading.__dict__, key, threading.__dict__[key], stand_in)
        for owner, name, stand_in in _METHODS:
            self._put_attribute(owner, name, stand_in)
        Adoption(self).walk(list(roots))
        self._state = (random.getstate(), gc.isenabled())
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            state = numpy.random.get_state()
            self._undo.append(lambda: numpy.random.set_state(state))
        gc.disable()  # what is collected, and when, must not depend on earlier runs

    def seed(self, seed: int) -> None:
        """The same draws in every run."""
        random.seed(seed)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(seed % 2**32)

    def reset(self) -> None:
        """Locks and queues that were made before the run are free and empty again."""
        for adopted in self._adopted:
            adopted.reset()

    def remove(self) -> None:
        """Put everything back."""
        while self._undo:
            with contextlib.suppress(Exception):
                self._undo.pop()()
        if self._state is not None:
            random.setstate(self._state[0])
            if self._state[1]:
                gc.enable()
            self._state = None
        for name in set(sys.modules) - self._modules:  # imported by an actor
            space = getattr(sys.modules[name], "__dict__", {})
            for key, value in list(space.items()):
                if id(value) in _BACK and not name.startswith("cachelab.stage"):
                    space[key] = _BACK[id(value)]
        for thread in list(pool_threads._threads_queues):
            if getattr(thread, "_on_stage", None) is not None:
                del pool_threads._threads_queues[thread]  # type: ignore[attr-defined]

    def _put(self, space: dict[Any, Any], key: Any, old: Any, new: Any) -> None:
        if space.get(key) is not old:
            return
        space[key] = new

        def undo() -> None:
            if space.get(key) is new:
                space[key] = old

        self._undo.append(undo)

    def _put_attribute(self, owner: Any, name: str, new: Any) -> None:
        own = vars(owner)
        had, old = name in own, own.get(name)
        setattr(owner, name, new)

        def undo() -> None:
            if had:
                setattr(owner, name, old)
            else:
                delattr(owner, name)

        self._undo.append(undo)


_LOCK_TYPES = (type(_allocate()), type(_RealRLock()), _RealLocal, _RealSimpleQueue)
_MOST_VISITED = 20_000
_ATOMS = (str, bytes, int, float, bool, type(None), complex, range, type(Ellipsis))
_STDLIB = sys.stdlib_module_names
_OF_A_THREAD = set(vars(threading.Thread(name="plumbing")))
_HEAVY = {
    "sqlalchemy",
    "redis",
    "fakeredis",
    "numpy",
    "matplotlib",
    "IPython",
    "ipykernel",
    "pandas",
    "pytest",
    "_pytest",
    "hypothesis",
    "greenlet",
    "zmq",
    "traitlets",
}
_WALKED_STDLIB = {
    "threading",
    "queue",
    "concurrent",
    "functools",
    "collections",
    "types",
    "__main__",
}


def _is_plumbing(module: Any) -> bool:
    name = str(module or "")
    if name.startswith("cachelab."):
        return not name.startswith(("cachelab.patterns", "cachelab.exercises", "cachelab.judge"))
    root = name.partition(".")[0]
    return root in _HEAVY or (root in _STDLIB and root not in _WALKED_STDLIB)


class Adoption:
    """Finds what was made before the run and actors can reach: locks, queues, names of time."""

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        self._seen: set[int] = set()
        self._stand_ins: dict[int, Any] = {}
        self._keep: list[Any] = []

    def walk(self, roots: list[Any]) -> None:
        """Visit everything from `roots`, and replace in place."""
        waiting = list(roots)
        while waiting and len(self._seen) < _MOST_VISITED:
            value = waiting.pop()
            if isinstance(value, _ATOMS) or id(value) in self._seen:
                continue
            self._seen.add(id(value))
            self._keep.append(value)
            waiting.extend(self._inside(value))

    def _inside(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        if kind is types.FunctionType:
            yield from self._function(value)
        elif kind is types.MethodType:
            yield from (value.__func__, value.__self__)
        elif kind is types.ModuleType:
            return
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif isinstance(value, dict):
            yield from self._mapping(value)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                new = self._stand_in(item)
                if new is not None:
                    self._item(value, index, item, new)
                yield item
        elif isinstance(value, (tuple, set, frozenset)):
            yield from value
        elif isinstance(value, type):
            if not _is_plumbing(value.__module__):
                yield from self._class(value)
        elif isinstance(value, (staticmethod, classmethod)):
            yield value.__func__
        elif isinstance(value, property):
            yield from (value.fget, value.fset)
        elif _is_plumbing(kind.__module__):
            return
        elif isinstance(value, threading.Thread):
            yield from self._thread(value)
        else:
            own = getattr(value, "__dict__", None)
            if isinstance(value, pool_threads.ThreadPoolExecutor):
                self._patches._adopted.append(_Pool(self._patches, value))
            if type(own) is dict:
                yield from self._mapping(own)
            yield kind
            wrapped = getattr(value, "__wrapped__", None)  # lru_cache and other C wrappers
            if wrapped is not None:
                yield wrapped
            if kind.__module__ in {"collections"}:
                with contextlib.suppress(TypeError):
                    yield from list(value)

    def _function(self, function: Any) -> Iterator[Any]:
        if _is_plumbing(function.__module__):
            return
        names = function.__globals__
        if names is not threading.__dict__:  # they lead to every thread of this process
            for key in _names_of(function.__code__):
                if key in names:
                    value = names[key]
                    new = self._stand_in(value)
                    if new is not None:
                        self._patches._put(names, key, value, new)
                    yield value
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            new = self._stand_in(value)
            if new is not None:
                self._cell(cell, value, new)
            yield value
        if function.__defaults__:
            self._defaults(function)
            yield from function.__defaults__
        if function.__kwdefaults__:
            yield from self._mapping(function.__kwdefaults__)
        yield from function.__dict__.values()

    def _thread(self, thread: threading.Thread) -> Iterator[Any]:
        """What a thread was given and learned. The lock that tells whether it lives is not ours:
        with a free one in its place it would be dead for everybody, and for ever.
        """
        given = vars(thread)
        yield from (given.get(name) for name in ("_target", "_args", "_kwargs"))
        yield from self._mapping(given, without=_OF_A_THREAD)
        yield type(thread)

    def _class(self, kind: type) -> Iterator[Any]:
        for name, value in list(vars(kind).items()):
            new = None if name.startswith("__") else self._stand_in(value)
            if new is not None:
                # A builtin in a class is no method: its stand-in must not become one either.
                plain = staticmethod(new) if isinstance(new, types.FunctionType) else new
                self._patches._put_attribute(kind, name, plain)
            yield value
        yield from kind.__bases__

    def _mapping(self, mapping: dict[Any, Any], without: Any = ()) -> Iterator[Any]:
        for key, value in list(mapping.items()):
            if key in without:
                continue
            new = self._stand_in(value)
            if new is not None:
                self._patches._put(mapping, key, value, new)
            yield value

    def _stand_in(self, value: Any) -> Any:
        kind = type(value)
        found = _BY_ID.get(id(value)) or _DATES_BY_ID.get(id(value))
        if found is not None:
            return found
        if kind in _LOCK_TYPES:
            return self._adopt(value)
        if kind is types.BuiltinMethodType and type(value.__self__) in _LOCK_TYPES:
            return getattr(self._adopt(value.__self__), value.__name__, None)
        return None

    def _adopt(self, real: Any) -> Any:
        found = self._stand_ins.get(id(real))
        if found is None:
            number, kind = len(self._stand_ins) + 1, type(real)
            if kind is _LOCK_TYPES[0]:
                found = sync.Lock(loud=True)
                found.key = f"lock {number}"
            elif kind is _LOCK_TYPES[1]:
                found = sync.RLock(loud=True)
                found.key = f"lock {number}"
            elif kind is _RealLocal:
                found = object.__new__(sync.Local)
                object.__setattr__(found, "_outside", real)
            else:
                found = sync.SimpleQueue()
            self._stand_ins[id(real)] = found
            self._keep.append(real)
            self._patches._adopted.append(found)
        return found

    def _item(self, items: list[Any], index: int, old: Any, new: Any) -> None:
        items[index] = new

        def undo() -> None:
            if index < len(items) and items[index] is new:
                items[index] = old

        self._patches._undo.append(undo)

    def _cell(self, cell: Any, old: Any, new: Any) -> None:
        cell.cell_contents = new

        def undo() -> None:
            if cell.cell_contents is new:
                cell.cell_contents = old

        self._patches._undo.append(undo)

    def _defaults(self, function: Any) -> None:
        old = function.__defaults__
        new = tuple(value if (s := self._stand_in(value)) is None else s for value in old)
        if any(a is not b for a, b in zip(old, new, strict=True)):
            function.__defaults__ = new

            def undo() -> None:
                if function.__defaults__ is new:
                    function.__defaults__ = old

            self._patches._undo.append(undo)


class _Pool:
    """A pool of threads that was made before the run: on the stage it starts without workers."""

    def __init__(self, patches: Patches, pool: Any) -> None:
        self._pool = pool
        workers, idle = pool._threads, pool._idle_semaphore

        def undo() -> None:
            pool._threads, pool._idle_semaphore = workers, idle

        patches._undo.append(undo)
        self.reset()

    def reset(self) -> None:
        self._pool._threads = set()
        self._pool._idle_semaphore = threading.Semaphore(0)


def _names_of(code: types.CodeType) -> Iterator[str]:
    """The global names that a function and the functions inside it mention."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_of(constant)


def refuse_coroutine(answer: Any) -> None:
    """An `async def` actor gives a coroutine: say so instead of running nothing."""
    if isinstance(answer, types.CoroutineType):
        answer.close()
        refuse(_ASYNC)
