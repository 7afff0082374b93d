"""Whether a process still lives, and whether something comes true in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil


def is_alive(pid: Any) -> bool:
    """Whether there is a process of this number that is no zombie."""
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def within(seconds: float, done: Callable[[], Any]) -> bool:
    """Whether `done()` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
