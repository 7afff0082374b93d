"""Real seconds, without those in which a busy machine served other programs."""

from __future__ import annotations

import time
from collections.abc import Callable

from cachelab.process.redirect import Original

MOST = 2.0  # so many times the seconds may come on top

# Real also while a stage has redirected the function.
_monotonic: Callable[[], float] = Original(time.monotonic)


def waited(process: int | None = None) -> float:
    """Seconds for which this thread could have run while other programs had the CPU.

    `process`: for the main thread of that one. Linux tells it; elsewhere, and when it does not, 0.
    """
    of = "thread-self" if process is None else process
    try:
        with open(f"/proc/{of}/schedstat", encoding="ascii") as told:
            return int(told.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Patience:
    """So many seconds, of which those do not count that a busy machine kept for others.

    An answer is not wrong because forty others are judged at the same time. No more than MOST times
    the seconds come on top: a check ends.
    """

    def __init__(self, seconds: float, process: int | None = None) -> None:
        self.seconds, self.process = seconds, process
        self._began, self._waited = _monotonic(), waited(process)

    def left(self) -> float:
        """Seconds that are left; 0 or less when the time is up. Asked by the thread that began."""
        passed = _monotonic() - self._began
        if passed < self.seconds:
            return self.seconds - passed
        others = min(waited(self.process) - self._waited, MOST * self.seconds)
        return self.seconds + others - passed
