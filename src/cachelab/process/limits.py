"""Runs code that may do anything, for so many seconds, and gives the process back as it was.

What cannot be stopped inside one process: a call that stays in C without running any Python
(`sum(iter(int, 1))`, a huge power, an endless SQL statement), and code that ends the process by a
way we do not know. `cachelab check` judges in a process of its own, which is killed from outside.
"""

from __future__ import annotations

import _thread
import builtins
import concurrent.futures.thread as pools
import contextlib
import contextvars
import ctypes
import io
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import greenlet

from cachelab.process.patience import Patience
from cachelab.process.places import Where, place_at, place_in

if sys.platform != "win32":
    import resource

SECONDS = 2.0  # for one call of an answer
CHECK_SECONDS = 10.0  # for one whole check
MEMORY_BYTES = 1 << 30  # on top of what the process holds (Linux)
PRINTED_LINES, PRINTED_CHARS = 10, 1_000

# How often an answer is asked, by an exception, to end before its stack is left lying: enough for
# `finally` and `with` to clean up, too little for a loop that catches everything.
ASKED = 25


class OutOfTime(BaseException):
    """The time is up. Not an Exception, so that `except Exception` does not swallow it."""

    def __init__(self, seconds: float = SECONDS, where: Where | None = None) -> None:
        super().__init__(f"not finished within {seconds:g} s")
        self.seconds, self.where = seconds, where


class Left(BaseException):
    """The code tried to end the process, or what it stands in; `what` names the call."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class _Stopped(SystemExit):
    """Ends a thread; `threading` prints no traceback for a SystemExit."""


@dataclass(frozen=True)
class Ended:
    """How a call ended.

    `how`: "returned" (`value`), "raised" (`error`), "out of time", or "left" (it tried to end the
    process; `error` says by what call). `where` is the place in the caller's own code. `printed`
    is what it printed, shortened. `running` names threads that it started and that had to be
    stopped.
    """

    how: Literal["returned", "raised", "out of time", "left"]
    value: Any = None
    error: BaseException | None = None
    where: Where | None = None
    printed: str = ""
    running: tuple[str, ...] = ()
    seconds: float = SECONDS

    def sentence(self, name: str) -> str:
        """What happened to `name`, in one sentence; "" if it returned and left nothing running."""
        at = f" in {self.where}" if self.where else ""
        if self.how == "out of time":
            return f"{name} did not come back within {self.seconds:g} s; it was{at or ' busy'}."
        if self.how == "left" and self.error is not None:
            did = "raised" if self.error.args == ("KeyboardInterrupt",) else "called"
            return f"{name} {did} {self.error}{at}; it should return, so that the program goes on."
        if isinstance(self.error, MemoryError):
            return f"{name} asked for more memory than there is (1 GB){at}."
        if self.error is not None:
            return f"{name} raised {say_error(self.error)}{at}."
        if self.running:
            threads = "a thread" if len(self.running) == 1 else f"{len(self.running)} threads"
            return f"{name} left {threads} running that did not end within {self.seconds:g} s."
        return ""


def run(
    function: Callable[..., Any], /, *args: Any, seconds: float = SECONDS, **options: Any
) -> Ended:
    """Call `function` with what `args` and `options` say, and tell how that ended. Never raises.

    Except KeyboardInterrupt, if the user asked for it. Whatever is put in the way of the call
    (time, memory, output, `exit`, threads) is gone when this returns.
    """
    alarm, contained = _Alarm(seconds), _Containment()
    call = _Call(function, args, options)
    with alarm, contained:
        if alarm.by_signal:
            task = greenlet.greenlet(call)
            task.gr_context = contextvars.copy_context()
            alarm.arm(home=greenlet.getcurrent())
            try:
                task.switch()
            finally:
                alarm.disarm()
            if not task.dead:
                # It catches whatever is thrown at it, so its stack is never woken again: not even
                # by the garbage collector, which would throw once more.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))
                call.error = OutOfTime(seconds)
        else:
            worker = threading.Thread(
                target=contextvars.copy_context().run, args=(call,), name="answer", daemon=True
            )
            contained.adopt(worker)
            worker.start()
            try:
                in_time = _wait_for([worker], seconds)
            except KeyboardInterrupt:
                in_time, alarm.interrupted = False, True
            except BaseException:
                _stop([worker])
                raise
            if not in_time:
                alarm.where = _place_of(worker)
                _stop([worker])
                call.error = OutOfTime(seconds)
        running = contained.stop_threads(alarm, wait=call.error is None)
    if alarm.interrupted:
        raise KeyboardInterrupt
    return call.ended(alarm, contained, running)


@dataclass
class _Call:
    """One call, and what came of it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    value: Any = None
    error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self.value = self.function(*self.args, **self.options)
        except BaseException as error:
            self.error = error

    def ended(self, alarm: _Alarm, contained: _Containment, running: tuple[str, ...]) -> Ended:
        """What came of it. The traceback is dropped: it would keep what the call held alive."""
        error, printed = self.error, contained.sink.shortened()
        common: dict[str, Any] = {
            "printed": printed,
            "running": running,
            "seconds": alarm.seconds,
        }
        if error is None:
            return Ended("returned", self.value, **common)
        if isinstance(error, (OutOfTime, _Stopped)):
            return Ended("out of time", error=error, where=alarm.where, **common)
        where = place_in(error.__traceback__)
        _strip(error)
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            error = Left("sys.exit()" if isinstance(error, SystemExit) else "KeyboardInterrupt")
        how: Literal["left", "raised"] = "left" if isinstance(error, Left) else "raised"
        return Ended(how, error=error, where=where, **common)


class limited:  # in lower case, since it reads as a statement
    """`with limited(seconds):` raises OutOfTime inside the block when the time is up.

    In the main thread on POSIX by a signal, which also ends sleeps and waits for locks; elsewhere
    by an exception that arrives when Python code next runs. Code that catches everything is asked
    again and again, at random moments. May be nested.
    """

    def __init__(self, seconds: float) -> None:
        self._alarm = _Alarm(seconds)

    def __enter__(self) -> limited:
        self._alarm.__enter__()
        self._alarm.arm(home=None)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._alarm.disarm()
        self._alarm.__exit__(kind, error, trace)
        if self._alarm.interrupted:
            raise KeyboardInterrupt from None
        if self._alarm.has_raised and (error is None or isinstance(error, OutOfTime)):
            raise OutOfTime(self._alarm.seconds, self._alarm.where) from None


# Time ----------------------------------------------------------------------------------------


class _Alarm:
    """Raises OutOfTime in the thread that armed it, again and again until it is disarmed.

    Never inside this file: what sets up and clears away is not interrupted halfway.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.where: Where | None = None
        self.has_raised = False
        self.interrupted = False  # by the user's Ctrl-C
        self.by_signal = (
            threading.current_thread() is threading.main_thread()
            and hasattr(signal, "setitimer")
            and signal.getsignal(signal.SIGALRM) is not None
        )
        self._armed = False
        self._asked = 0
        self._home: greenlet.greenlet | None = None
        self._watch: threading.Event | None = None
        self._patience: Patience | None = None

    def __enter__(self) -> _Alarm:
        self.began = time.monotonic()
        if self.by_signal:
            self._old_interrupt = signal.getsignal(signal.SIGINT)
            if self._old_interrupt is not None:
                signal.signal(signal.SIGINT, self._interrupt)
            self._old_alarm = signal.signal(signal.SIGALRM, self._ring)
            self._old_timer = signal.setitimer(signal.ITIMER_REAL, 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self.by_signal:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._old_alarm)
            left, interval = self._old_timer
            if left:
                left = max(left - (time.monotonic() - self.began), 0.001)
                signal.setitimer(signal.ITIMER_REAL, left, interval)
            if self._old_interrupt is not None:
                signal.signal(signal.SIGINT, self._old_interrupt)

    def arm(self, home: greenlet.greenlet | None) -> None:
        """Start the time. `home` is where to go on when the code does not end; None: nowhere."""
        self._home, self._armed = home, True
        if self.by_signal:
            self._patience = Patience(self.seconds)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
        else:
            self._watch = threading.Event()
            arguments = (threading.get_ident(), self._watch)
            threading.Thread(target=self._ring_elsewhere, args=arguments, daemon=True).start()

    def disarm(self) -> None:
        """Stop the time; nothing is raised any more."""
        self._armed = False
        if self.by_signal:
            signal.setitimer(signal.ITIMER_REAL, 0)
        elif self._watch is not None:
            self._watch.set()
            _raise_in(threading.get_ident(), None)

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        if not self._armed:
            return
        if frame is None or frame.f_code.co_filename == __file__:
            signal.setitimer(signal.ITIMER_REAL, 0.0002)  # look again when the code is at work
            return
        rung = self.has_raised or self.interrupted
        left = self._patience.left() if self._patience and not rung else 0.0
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))
            return
        if self.where is None:
            self.where = place_at(frame)
        self.has_raised = True
        self._asked += 1
        home = self._home
        if self._asked > ASKED and home is not None and greenlet.getcurrent() is not home:
            self._armed = False
            home.switch()
        # At a random moment: a loop around `try` and a bare `except` is open to it only between.
        signal.setitimer(signal.ITIMER_REAL, _moments.uniform(1e-6, 3e-4))
        raise OutOfTime(self.seconds, self.where)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        self.interrupted = True
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # if the code swallows it
            if frame is not None and frame.f_code.co_filename != __file__:
                raise KeyboardInterrupt

    def _ring_elsewhere(self, thread: int, watch: threading.Event) -> None:
        watch.wait(self.seconds)
        while not watch.is_set():
            frame = sys._current_frames().get(thread)
            if frame is None:
                return
            if self._armed and frame.f_code.co_filename != __file__:
                self.where = self.where or place_at(frame)
                self.has_raised = True
                _raise_in(thread, OutOfTime)
            del frame
            watch.wait(_moments.uniform(0.001, 0.02))


_moments = random.Random()  # of our own: a learner's random.seed() stays what it was


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise `kind` in a thread when it next runs Python code; None takes back what is pending."""
    raised = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


# What is put in the way ----------------------------------------------------------------------


class _Containment:
    """Catches output, `exit` and the like, memory, and threads, of one call."""

    def __init__(self) -> None:
        self.sink = _Sink()
        self._owner = threading.current_thread()
        self._threads: list[threading.Thread] = []
        self._kept: list[tuple[Any, str, Any, bool]] = []
        self._memory: tuple[int, int] | None = None

    def adopt(self, thread: threading.Thread) -> None:
        """Let `thread` be the one that makes the call."""
        self._owner = thread

    def __enter__(self) -> _Containment:
        try:
            for place, name, value in self._patches():
                self._kept.append((place, name, getattr(place, name), name in vars(place)))
                setattr(place, name, value)
            self._limit_memory()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._memory is not None:
            resource.setrlimit(resource.RLIMIT_DATA, self._memory)
        while self._kept:
            place, name, value, was_its_own = self._kept.pop()
            if was_its_own:
                setattr(place, name, value)
            else:
                delattr(place, name)

    def _is_theirs(self) -> bool:
        """Whether the running thread is the one of the call, or was started by it."""
        here = _thread.get_native_id()  # an actor of the stage has a current_thread() of its own
        return any(thread.native_id == here for thread in (self._owner, *self._threads))

    def _patches(self) -> Iterator[tuple[Any, str, Any]]:
        yield sys, "stdout", self.sink
        yield sys, "stderr", self.sink
        yield sys, "unraisablehook", _quiet_unraisable(sys.unraisablehook)
        yield threading, "excepthook", _quiet_thread(threading.excepthook)
        yield sys, "breakpointhook", self._refused("breakpoint()", sys.breakpointhook)
        for name in ("exit", "quit", "input"):
            if hasattr(builtins, name):
                yield builtins, name, self._refused(f"{name}()", getattr(builtins, name))
        for name in ("_exit", "abort", "fork", "forkpty", "execv", "execve"):
            if hasattr(os, name):
                yield os, name, self._refused(f"os.{name}()", getattr(os, name))
        yield os, "kill", self._no_suicide(os.kill)
        yield threading.Thread, "start", self._watched(threading.Thread.start)
        shell = _shell()
        if shell is not None:
            yield shell, "ask_exit", self._refused("exit()", shell.ask_exit)
            yield shell.display_pub, "publish", self.sink.publish

    def _refused(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*args: Any, **options: Any) -> Any:
            if self._is_theirs():
                raise Left(name)
            return original(*args, **options)

        return refuse

    def _no_suicide(self, original: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def kill(pid: int, sig: int) -> None:
            if pid in (0, -1, os.getpid()) and sig != 0 and self._is_theirs():
                raise Left("os.kill() on its own process")
            original(pid, sig)

        return kill

    def _watched(self, original: Callable[[threading.Thread], None]) -> Callable[..., None]:
        def start(thread: threading.Thread) -> None:
            if self._is_theirs() and thread.ident is None:
                thread.daemon = True  # one that resists must not keep the process from ending
                self._threads.append(thread)
            original(thread)

        return start

    def _limit_memory(self) -> None:
        if not sys.platform.startswith("linux"):
            return
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open("/proc/self/statm", encoding="ascii") as pages:
                data = int(pages.read().split()[5]) * resource.getpagesize()
            soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
            wanted = data + MEMORY_BYTES
            if soft == resource.RLIM_INFINITY or soft > wanted:
                resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
                self._memory = (soft, hard)

    def stop_threads(self, alarm: _Alarm, *, wait: bool) -> tuple[str, ...]:
        """Let the threads of the call end, until the time is up; stop the others, and name them."""
        until = alarm.began + alarm.seconds
        while wait and not alarm.interrupted:
            if _wait_for(self._busy(), 0.02) or time.monotonic() > until:
                break
        busy = self._busy()
        if busy and alarm.where is None:
            alarm.where = _place_of(busy[0])
        _stop(busy)
        return tuple(thread.name for thread in busy)

    def _busy(self) -> list[threading.Thread]:
        return [thread for thread in self._threads if _frame_of(thread) and not _is_idle(thread)]


class _Sink(io.TextIOBase):
    """Takes what is printed, and keeps only the beginning."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._kept = self._total = 0
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() takes text, not {type(text).__name__}")
        room = PRINTED_CHARS + 1 - self._kept
        if room > 0:
            self._parts.append(text[:room])
            self._kept += min(len(text), room)
        self._total += len(text)
        return len(text)

    def publish(self, data: dict[str, Any], *_: Any, **__: Any) -> None:
        """Take what is displayed as a print of its plain text."""
        self.write(f"{data.get('text/plain', '')}\n")

    def shortened(self) -> str:
        """What was printed: the first lines, and how much more there was."""
        kept = "".join(self._parts)[:PRINTED_CHARS]
        lines = kept.splitlines()[:PRINTED_LINES]
        text = "\n".join(line.rstrip() for line in lines)
        left_out = (
            self._total
            - len(kept)
            + sum(len(line) for line in kept.splitlines(keepends=True)[PRINTED_LINES:])
        )
        if left_out:
            text += f"\n... and {left_out:,} more characters"
        return text.strip("\n")


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer` of a sink."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        taken = bytes(data)
        self._sink.write(taken.decode("utf-8", "replace"))
        return len(taken)


def _quiet_unraisable(original: Callable[[Any], Any]) -> Callable[[Any], None]:
    def hook(unraisable: Any) -> None:
        # The alarm may ring inside a `__del__`, where nothing can be raised; it rings again.
        if not isinstance(unraisable.exc_value, (OutOfTime, KeyboardInterrupt)):
            original(unraisable)

    return hook


def _quiet_thread(original: Callable[[Any], Any]) -> Callable[[Any], None]:
    def hook(failed: Any) -> None:
        if not issubclass(failed.exc_type, (OutOfTime, _Stopped)):
            original(failed)

    return hook


def _shell() -> Any:
    """The IPython shell of this process, or None."""
    module = sys.modules.get("IPython.core.interactiveshell")
    if module is None or not module.InteractiveShell.initialized():
        return None
    return module.InteractiveShell.instance()


# Threads -------------------------------------------------------------------------------------


def _wait_for(threads: list[threading.Thread], seconds: float) -> bool:
    """Whether all of them ended within `seconds`."""
    until = time.monotonic() + seconds
    for thread in threads:
        while _frame_of(thread) is not None and time.monotonic() < until:
            # In short steps: on Windows a Ctrl-C does not reach a long wait.
            thread.join(min(0.02, max(0.0, until - time.monotonic())))
            if not thread.is_alive():
                time.sleep(0.001)
    return all(_frame_of(thread) is None for thread in threads)


def _stop(threads: list[threading.Thread], patience: float = 0.5) -> None:
    """End threads by an exception. One that is asleep gets it when it wakes; it is a daemon."""
    until = time.monotonic() + patience
    while any(_frame_of(thread) for thread in threads) and time.monotonic() < until:
        for thread in threads:
            if thread.ident is not None and not _is_idle(thread) and not _is_ending(thread):
                _raise_in(thread.ident, _Stopped)
        time.sleep(_moments.uniform(0.0005, 0.005))
    for thread in threads:
        if _frame_of(thread) is not None:
            # A pool's worker is waited for at the end of the process; not this one.
            getattr(pools, "_threads_queues", {}).pop(thread, None)


def _frame_of(thread: threading.Thread) -> FrameType | None:
    """Where a thread is, or None if it has ended.

    `is_alive` may say that it has ended when only a `join` was interrupted (Python 3.11 and 3.12);
    and its number may have gone to another thread since.
    """
    innermost = frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code is _BOOTSTRAP:
            return innermost if frame.f_locals.get("self") is thread else None
        frame = frame.f_back
    return None


_BOOTSTRAP = threading.Thread._bootstrap_inner.__code__  # type: ignore[attr-defined]


def _is_idle(thread: threading.Thread) -> bool:
    """Whether this is a pool's worker that waits for work: a pool may be kept for the next call."""
    frame = _frame_of(thread)
    return (
        frame is not None
        and frame.f_code.co_filename == pools.__file__
        and frame.f_code.co_name == "_worker"
    )


def _is_ending(thread: threading.Thread) -> bool:
    """Whether its work is over and only `threading` still clears up behind it."""
    frame, inner = _frame_of(thread), None
    while frame is not None and frame.f_code is not _BOOTSTRAP:
        frame, inner = frame.f_back, frame
    return frame is None or inner is None or inner.f_code.co_name != "run"


# Sentences ------------------------------------------------------------------------------------


def _place_of(thread: threading.Thread) -> Where | None:
    return place_at(_frame_of(thread))


def say_error(error: BaseException) -> str:
    """An error as a sentence holds it: its type and its first line, at most 160 characters."""
    try:
        lines = str(error).strip().splitlines()
    except BaseException:
        lines = []
    # SQLAlchemy puts the driver's type in front: (sqlite3.OperationalError) no such table: users.
    first = re.sub(r"^\(\w+\.\w+\) ", "", lines[0].strip()) if lines else ""
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return (text if len(text) <= 160 else text[:157] + "...").rstrip(".")


def _strip(error: BaseException | None) -> None:
    """Drop the tracebacks of an error and of what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
