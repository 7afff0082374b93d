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
        self._loads: dict[str, Future[Any]] = {}

    def do(self, key: str, call: Callable[[], Any]) -> Any:
        """What `call()` gives, or a call for `key` that is already under way.

        All get the same object, so do not change it. All get its error, too.
        """
        with self._lock:
            future = self._loads.get(key)
            leads = future is None
            if future is None:
                future = self._loads[key] = Future()
        if not leads:
            return future.result()
        try:
            value = call()
        except BaseException as error:
            self._finish(key)
            if not isinstance(error, Exception):  # a Ctrl-C is for the leader alone
                future.set_exception(RuntimeError(f"{key}: the load was stopped"))
            else:
                future.set_exception(error)
            raise
        self._finish(key)
        future.set_result(value)
        return value

    def _finish(self, key: str) -> None:
        with self._lock:
            del self._loads[key]


_of_this_process = SingleFlight()
do = _of_this_process.do


def read(cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int) -> Any:
    """Cache-aside of which each process has one under way for a key, and no more."""
    return do(key, lambda: cache_aside.read(cache, key, load, ttl))
