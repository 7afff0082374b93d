"""A cache inside one process: bounded, with a TTL, on a clock of your choice, for many threads."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

Clock = Callable[[], float]  # seconds


class LocalCache:
    """At most `maxsize` values, none older than `ttl` s; the least recently used goes first.

    Of all threads that miss a key one loads it and the others wait; if that load fails,
    the error is its caller's and the next one tries. Age counts from the start of the load;
    what is forgotten during its load is not kept. A load must not ask for its own key.

    It does not copy: all get the same object, so do not change it. It counts values, not
    bytes. It knows nothing of other processes: each has its own, and has to be told.
    """

    def __init__(self, maxsize: int, ttl: float, clock: Clock = time.monotonic) -> None:
        if maxsize < 1 or not ttl > 0:
            raise ValueError(f"maxsize is 1 or more and ttl above 0 s; got {maxsize} and {ttl}.")
        self._maxsize, self._ttl, self._clock = maxsize, ttl, clock
        self._kept: OrderedDict[Hashable, tuple[Any, float]] = OrderedDict()  # value, end
        self._loading: dict[Hashable, object] = {}  # key -> whose load may be kept
        self._changed = threading.Condition()

    def get(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """The value of `key`: a kept one, or what `load()` gives."""
        mine = object()
        with self._changed:
            while True:
                value, until = self._kept.get(key, (None, float("-inf")))
                if self._clock() < until:
                    self._kept.move_to_end(key)
                    return value
                if key not in self._loading:
                    break
                self._changed.wait()
            self._loading[key] = mine
            until = self._clock() + self._ttl
        try:
            value = load()
            with self._changed:
                if self._loading.get(key) is mine:  # else it was forgotten
                    self._kept[key] = value, until
                    self._kept.move_to_end(key)
                    if len(self._kept) > self._maxsize:
                        self._kept.popitem(last=False)
            return value
        finally:
            with self._changed:
                if self._loading.get(key) is mine:
                    del self._loading[key]
                self._changed.notify_all()

    def forget(self, key: Hashable) -> None:
        """Drop a key whose row has changed; from now on all get a value loaded since."""
        with self._changed:
            self._kept.pop(key, None)
            self._loading.pop(key, None)
            self._changed.notify_all()
