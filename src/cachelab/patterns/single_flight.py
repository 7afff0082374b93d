"""Single-flight: of all threads of a process that want the same key, one does the work."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import redis

from cachelab.patterns import cache_aside


class SingleFlight:
    """Calls in progress, by key. One object for a process: another process knows nothing of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Future[Any]] = {}

    def do(self, key: str, call: Callable[[], Any]) -> Any:
        """What `call()` gives, or a call for `key` that is already under way.

        All get the same object, so do not change it. All get its error, too.
        """
        with self._lock:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not leads:
            return flight.result()
        try:
            value = call()
        except BaseException as error:
            self._land(key)
            if not isinstance(error, Exception):  # a Ctrl-C is for the leader alone
                flight.set_exception(RuntimeError(f"{key}: the load was stopped"))
            else:
                flight.set_exception(error)
            raise
        self._land(key)
        flight.set_result(value)
        return value

    def _land(self, key: str) -> None:
        with self._lock:
            del self._flights[key]


_of_this_process = SingleFlight()
do = _of_this_process.do


def read(cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int) -> Any:
    """Cache-aside of which each process has one under way for a key, and no more."""
    return do(key, lambda: cache_aside.read(cache, key, load, ttl))
