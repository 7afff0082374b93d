"""Ends what takes too many real seconds, also where an actor never comes to a switch point."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from greenlet import getcurrent

from cachelab.process.patience import Patience, waited
from cachelab.process.places import place_at
from cachelab.stage.scheduler import Deadline, Overtime, Task

_monotonic, _thread_time = time.monotonic, time.thread_time
_RING = 0.05  # s from one ring of the alarm to the next
_LOOKED = 4  # rings after which it is known whether a task is busy or waits
_ASKED = 20  # rings after which a task is left where it is


@contextmanager
def real_seconds(seconds: float) -> Iterator[Deadline]:
    """Stop an actor that computes for ever, after so many of them; gives their Deadline.

    In the main thread those do not count that other programs had.
    """
    if not 0 < seconds < 86_400:
        raise ValueError(f"wall_limit is a time in seconds, above 0; this is {seconds!r}.")
    deadline = Deadline(seconds, Patience(seconds))
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and hasattr(signal, "setitimer"):
        yield from _by_signal(deadline)
    else:
        yield from _by_watcher(deadline)


def _by_signal(deadline: Deadline) -> Iterator[Deadline]:
    seconds, rung, busy = deadline.seconds, 0, 0.0
    closing: Task | None = None

    def late(number: int, frame: Any) -> None:
        nonlocal rung, closing, busy
        left = 0.0 if rung else deadline.left()
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001), _RING)
            return
        rung += 1
        deadline.passed = True
        if closing is not deadline.closing:  # to unwind takes a moment; not two rings of ours
            closing = deadline.closing
            return
        here = getcurrent()
        if rung == 1:
            busy = _thread_time() + waited()  # s that it ran or would have run
        if type(here) is not Task or rung < _LOOKED:
            return  # whoever comes to a switch point ends there
        spent = _thread_time() + waited() - busy
        if rung == _LOOKED and spent < (_LOOKED - 1) * _RING / 2:
            place = place_at(frame)
            deadline.unseen = place.full if place is not None else frame.f_code.co_qualname
        if rung < _ASKED:
            raise Overtime
        here.scheduler.abandon(here)

    began = _monotonic()
    old = signal.signal(signal.SIGALRM, late)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _RING)
    if 0 < remaining < seconds:  # somebody outside is less patient
        signal.setitimer(signal.ITIMER_REAL, remaining, _RING)
        deadline.patience = Patience(remaining)
    try:
        yield deadline
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        if remaining:
            left = max(0.001, remaining - (_monotonic() - began))
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def _by_watcher(deadline: Deadline) -> Iterator[Deadline]:
    import ctypes

    target, over = threading.get_ident(), threading.Event()
    interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def watch() -> None:
        if over.wait(deadline.seconds):
            return
        deadline.passed = True
        beats = -1
        while not over.wait(_RING):
            if deadline.running is not None and deadline.beats == beats:
                interrupt(ctypes.c_ulong(target), ctypes.py_object(Overtime))
            beats = deadline.beats

    watcher = threading.Thread(target=watch, name="stage watcher", daemon=True)
    watcher.start()
    try:
        yield deadline
    finally:
        over.set()
        watcher.join()
        interrupt(ctypes.c_ulong(target), None)
