"""Python's locks, queues and threads, as actors have them: a wait is a wait of the stage.

Locks and queues are Python's own objects. While an actor runs, their methods (see `patches`) ask
here for the state that the object has in the actor's process; with nobody on the stage they do
what they always do. So what an actor leaves behind is a real lock, and free.
"""

from __future__ import annotations

import _thread
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from cachelab.stage.scheduler import SECOND, Task, current

RealLock, RealRLock = type(_thread.allocate_lock()), type(_thread.RLock())
_real_lock, _real_rlock = dict(vars(RealLock)), dict(vars(RealRLock))
_real_queue = dict(vars(queue.SimpleQueue))

# Locks that these take are plumbing: taking one that is free is no switch point, and threads
# outside of the stage, which may share what it guards, are kept out as well.
_PLUMBING = {"cachelab", "fakeredis", "greenlet", "redis", "sqlalchemy", "matplotlib", "numpy"}
_PLUMBING |= {"pandas", "IPython", "ipykernel", "traitlets", "zmq", "hypothesis", "pytest"}
_PLUMBING |= {"_pytest"}
_BETWEEN = frozenset({"threading", "queue", "contextlib"})  # they take locks for whoever called
_LOUD: dict[str, bool | None] = {"cachelab.exercises": True, **dict.fromkeys(_BETWEEN)}


def _is_loud(depth: int) -> bool:
    """Whether the lock that is being taken is one of the learner's own, not plumbing."""
    frame: Any = sys._getframe(depth + 1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        try:
            loud = _LOUD[name]
        except KeyError:
            root = str(name).partition(".")[0]
            loud = root not in _PLUMBING and root not in sys.stdlib_module_names
            loud = _LOUD[name] = loud or str(name).startswith("cachelab.exercises.")
        if loud is not None:
            return loud
        frame = frame.f_back
    return False


def _timeout(blocking: bool, timeout: float) -> int | None:
    if not blocking and timeout != -1:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0 and timeout != -1:
        raise ValueError("timeout value must be a non-negative number")
    return None if timeout == -1 else round(timeout * SECOND)


class Lock:
    """What a lock is on the stage. `real`: Python's lock, which is held too, against outsiders."""

    kind = "a lock"

    def __init__(self, name: str = "", *, loud: bool = False, real: Any = None) -> None:
        self.loud, self.real = loud, real
        self.holder: Task | None = None
        self.waiters: deque[Task] = deque()
        self.name = name or self.kind
        task = current()
        if task is None:
            self.key = name or f"{id(self)}"
        elif not loud:
            # Libraries make some once a process: numbered, the actor's own would have another name
            # in the first run than in the next, and the search would take two steps for unrelated.
            self.key = f"{task.name}: plumbing"
        else:
            task.locks += 1
            self.key = f"{task.name}:{task.locks}"

    def is_free(self) -> bool:
        return self.holder is None

    def holder_name(self) -> str:
        return self.holder.name if self.holder is not None else ""

    def reset(self) -> None:
        """Free again, for the next run."""
        self.holder = None
        self.waiters.clear()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        task = current()
        assert task is not None
        return self.take(task, blocking, _timeout(blocking, timeout))

    def take(self, task: Task, blocking: bool = True, nanoseconds: int | None = None) -> bool:
        """Make `task` the holder, at once or after a wait; whether it is."""
        scheduler = task.scheduler
        if task.gone and (self.loud or self.holder is not None):  # a library may still clear up
            scheduler._go_away(task)
        if self.loud:
            label = (("lock", self.key, True),)
            gated = scheduler.explores and blocking and nanoseconds is None
            scheduler.point(task, label, self if gated else None)
        if self.holder is None:
            if self.real is not None and not self._take_real(blocking, nanoseconds):
                return False
            self.holder = task
            return True
        if not blocking or nanoseconds == 0:
            return False
        self.waiters.append(task)
        began = scheduler.now
        woken = scheduler.wait(task, self.name, nanoseconds, self.holder_name)
        took = (scheduler.now - began) / SECOND
        if self.loud and took:
            scheduler.trace.add("wait", "WAIT", self.name, took=took)
        if not woken:
            self.waiters.remove(task)
            self._given_up()
        return woken  # whoever released it has made this task the holder

    def _take_real(self, blocking: bool, nanoseconds: int | None) -> bool:
        """Free on the stage: if not in truth, somebody outside has it, who goes on meanwhile."""
        timeout = -1.0 if nanoseconds is None or not blocking else nanoseconds / SECOND
        return bool(_real_lock["acquire"](self.real, blocking, timeout))

    def _release_real(self) -> None:
        _real_lock["release"](self.real)

    def release(self) -> None:
        if self.holder is not None:
            self._give()
        elif self.real is not None:
            self._release_real()  # somebody outside has taken it
        else:
            raise RuntimeError("release unlocked lock")

    def _give(self) -> None:
        task = current()
        if task is not None and self.loud and task.scheduler.explores:
            task.scheduler.gave_back(task, self.key)
        while self.waiters:
            chosen = self._next_waiter(task)
            if not chosen.done and chosen.waiting:
                self.holder = chosen
                chosen.scheduler.wake(chosen, None if self.loud else task)
                return
        self.free()

    def _given_up(self) -> None:
        """A wait for it was too long."""

    def free(self) -> None:
        """Nobody has it any more, also in truth."""
        if self.holder is not None and self.real is not None:
            self._release_real()
        self.holder = None

    def _next_waiter(self, task: Task | None) -> Task:
        picker = task.scheduler.picker if task is not None else None
        chosen = self.waiters[picker.choose(len(self.waiters)) if picker is not None else 0]
        self.waiters.remove(chosen)
        return chosen


class Notification(Lock):
    """What `threading.Condition.wait` waits for: a lock that the notifier releases."""

    kind = "a notification"

    def __init__(self, forget: Callable[[], Any]) -> None:
        super().__init__()
        self._forget = forget

    def holder_name(self) -> str:
        return ""

    def _give(self) -> None:
        super()._give()
        self._forget()

    def _given_up(self) -> None:
        self._forget()


class RLock(Lock):
    """The same for `threading.RLock`."""

    depth = 0

    def reset(self) -> None:
        super().reset()
        self.depth = 0

    def take(self, task: Task, blocking: bool = True, nanoseconds: int | None = None) -> bool:
        if self.holder is task and self.depth:
            self.depth += 1
            return True
        taken = super().take(task, blocking, nanoseconds)
        if taken:
            self.depth = 1
        return taken

    def _take_real(self, blocking: bool, nanoseconds: int | None) -> bool:
        timeout = -1.0 if nanoseconds is None or not blocking else nanoseconds / SECOND
        return bool(_real_rlock["acquire"](self.real, blocking, timeout))

    def _release_real(self) -> None:
        _real_rlock["release"](self.real)

    def release(self) -> None:
        if self.holder is not current():
            raise RuntimeError("cannot release un-acquired lock")
        self.depth -= 1
        if not self.depth:
            self._give()

    def give_all(self) -> int:
        """Release it however often it was taken; that number, for `take_again`."""
        depth, self.depth = self.depth, 0
        self._give()
        return depth

    def take_again(self, task: Task, depth: int) -> None:
        super().take(task)
        self.depth = depth


# The methods of Python's locks -----------------------------------------------------------------


def _state(task: Task, real: Any, make: type[Lock]) -> Any:
    """What this lock is in the process of the actor that asks for it."""
    found = task.process.locks.get(id(real)) or task.scheduler.plumbing.get(id(real))
    if found is not None:
        return found[0]
    caller = sys._getframe(2)
    if make is Lock and caller.f_code.co_name == "wait" and caller.f_globals is threading.__dict__:
        known = task.scheduler.plumbing
        state: Lock = Notification(lambda: known.pop(id(real), None))
        known[id(real)] = (state, real)
    elif _is_loud(2):
        state = make(loud=True)
        task.process.locks[id(real)] = (state, real)
    else:
        state = make(real=real)
        task.scheduler.plumbing[id(real)] = (state, real)
    return state


def _methods(real: dict[str, Any], make: type[Lock]) -> dict[str, Any]:
    """The methods that a lock and a re-entrant lock have in common."""
    real_acquire, real_release = real["acquire"], real["release"]

    def acquire(self: Any, blocking: bool = True, timeout: float = -1) -> bool:
        task = current()
        if task is None:
            return bool(real_acquire(self, blocking, timeout))
        return bool(_state(task, self, make).take(task, blocking, _timeout(blocking, timeout)))

    def enter(self: Any) -> bool:
        task = current()
        if task is None:
            return bool(real_acquire(self))
        return bool(_state(task, self, make).take(task))

    def release(self: Any) -> None:
        task = current()
        if task is None:
            real_release(self)
            return
        _state(task, self, make).release()

    def leave(self: Any, *_: object) -> None:
        task = current()
        if task is None:
            real_release(self)
            return
        _state(task, self, make).release()

    def locked(self: Any) -> bool:
        task = current()
        if task is None:
            return bool(real["locked"](self))
        return not _state(task, self, make).is_free()

    return {
        "acquire": acquire,
        "__enter__": enter,
        "release": release,
        "__exit__": leave,
        "locked": locked,
    }


def _is_owned(self: Any) -> bool:
    task = current()
    if task is None:
        return bool(_real_rlock["_is_owned"](self))
    return _state(task, self, RLock).holder is task


def _release_save(self: Any) -> Any:
    task = current()
    if task is None:
        return _real_rlock["_release_save"](self)
    return _state(task, self, RLock).give_all()


def _acquire_restore(self: Any, depth: Any) -> None:
    task = current()
    if task is None:
        _real_rlock["_acquire_restore"](self, depth)
        return
    _state(task, self, RLock).take_again(task, depth)


def _recursion_count(self: Any) -> int:
    task = current()
    if task is None:
        return int(_real_rlock["_recursion_count"](self))
    state = _state(task, self, RLock)
    return state.depth if state.holder is task else 0


LOCK_METHODS = _methods(_real_lock, Lock)
RLOCK_METHODS = _methods(_real_rlock, RLock) | {
    "_is_owned": _is_owned,
    "_release_save": _release_save,
    "_acquire_restore": _acquire_restore,
    "_recursion_count": _recursion_count,
}


class Slots:
    """Room for so many statements at once; the others wait in order of arrival."""

    def __init__(self, room: int) -> None:
        self.free = room
        self.waiters: deque[Task] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        task = current()
        if task is None or task.free:
            return True
        if self.free:
            self.free -= 1
            return True
        if blocking:
            self.waiters.append(task)
            task.scheduler.wait(task, "a database slot")
        return blocking

    def release(self) -> None:
        task = current()
        if task is None or task.free:
            return
        while self.waiters:
            chosen = self.waiters.popleft()
            if not chosen.done:
                task.scheduler.wake(chosen, task)
                return
        self.free += 1


class SimpleQueue:
    """What a `queue.SimpleQueue` is on the stage; it begins empty."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiters: deque[Task] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.waiting and not waiter.done:
                waiter.scheduler.wake(waiter, current())
                return

    def get(self, task: Task, block: bool, timeout: float | None, is_pool: bool) -> Any:
        while not self._items:
            if not block:
                raise queue.Empty
            if is_pool and timeout is None:
                task.scheduler.rest(task)
            self._waiters.append(task)
            nanoseconds = None if timeout is None else round(timeout * SECOND)
            if not task.scheduler.wait(task, "an item in a queue", nanoseconds):
                self._waiters.remove(task)
                raise queue.Empty
        return self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)


def _line(task: Task, real: Any) -> SimpleQueue:
    queues = task.scheduler.queues
    found = queues.get(id(real))
    if found is None:
        found = queues[id(real)] = (SimpleQueue(), real)
    return found[0]


def _put(self: Any, item: Any, block: bool = True, timeout: float | None = None) -> None:
    task = current()
    if task is None:
        _real_queue["put"](self, item)
        return
    _line(task, self).put(item)


def _get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
    task = current()
    if task is None:
        return _real_queue["get"](self, block, timeout)
    is_pool = sys._getframe(1).f_globals.get("__name__") == "concurrent.futures.thread"
    return _line(task, self).get(task, block, timeout, is_pool)


def _get_nowait(self: Any) -> Any:
    return _get(self, False)


def _qsize(self: Any) -> int:
    task = current()
    return int(_real_queue["qsize"](self)) if task is None else len(_line(task, self))


def _empty(self: Any) -> bool:
    return not _qsize(self)


QUEUE_METHODS = {
    "put": _put,
    "put_nowait": _put,
    "get": _get,
    "get_nowait": _get_nowait,
    "qsize": _qsize,
    "empty": _empty,
}


# Threads: these stand in for methods of threading.Thread ---------------------------------------

_start, _join, _is_alive = (
    threading.Thread.start,
    threading.Thread.join,
    threading.Thread.is_alive,
)
_FIRST_IDENT = 1 << 60  # no operating system gets there


def start(self: threading.Thread) -> None:
    """A thread that an actor starts becomes an actor."""
    task = current()
    if task is None:
        _start(self)
        return
    if getattr(self, "_on_stage", None) is not None:
        raise RuntimeError("threads can only be started once")
    scheduler, owner = task.scheduler, task.owner
    if task.gone:
        scheduler._go_away(task)
    owner.children += 1
    child = scheduler.spawn(
        f"{owner.name}/thread-{owner.children}", self.run, parent=task, daemon=bool(self.daemon)
    )
    child.thread = self
    self._on_stage = child  # type: ignore[attr-defined]
    self._ident = _FIRST_IDENT + child.index  # type: ignore[attr-defined]


def join(self: threading.Thread, timeout: float | None = None) -> None:
    """Wait for a thread of the stage, on the stage."""
    child: Task | None = getattr(self, "_on_stage", None)
    if child is None:
        _join(self, timeout)
        return
    task = current()
    if child.done or task is None:
        return
    if child is task:
        raise RuntimeError("cannot join current thread")
    child.joiners.append(task)
    nanoseconds = None if timeout is None else round(max(0.0, timeout) * SECOND)
    task.scheduler.wait(task, f"the end of {child.name}", nanoseconds)
    if task in child.joiners:
        child.joiners.remove(task)


def is_alive(self: threading.Thread) -> bool:
    """Whether it has started and not ended."""
    child: Task | None = getattr(self, "_on_stage", None)
    if child is not None:
        return not child.done
    lock = getattr(self, "_tstate_lock", None)
    if lock is not None and current() is not None:  # up to Python 3.12: held while it lives
        return bool(_real_lock["locked"](lock))
    return _is_alive(self)


def ident(task: Task) -> int:
    """The number of an actor's thread, under which `threading.current_thread` finds it."""
    number = _FIRST_IDENT + task.index
    if number not in threading._active:  # type: ignore[attr-defined]
        if task.thread is None:
            task.thread = threading.Thread(name=task.name, daemon=False)
            task.thread._on_stage = task
            task.thread._ident = number
        threading._active[number] = task.thread  # type: ignore[attr-defined]
    return number


def forget_threads() -> None:
    """`threading` knows the actors no more."""
    active = threading._active  # type: ignore[attr-defined]
    for number in [number for number in active if number >= _FIRST_IDENT]:
        if getattr(active[number], "_on_stage", None) is not None:
            del active[number]
