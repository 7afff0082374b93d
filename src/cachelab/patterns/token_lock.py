"""Token lock: on a miss one reader asks the origin; the others wait for its copy, so long."""

import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import redis

# Store the copy and let go of the lock; both only while the lock is still ours.
FILL = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return redis.call('DEL', KEYS[1])
"""
RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class Busy(Exception):
    """Nobody had filled the cache within the budget: answer 503, or with something older."""


def read(
    cache: redis.Redis,
    key: str,
    load: Callable[[], Any],
    ttl: int,
    *,
    budget: float = 10.0,
    hold: float = 30.0,
) -> Any:
    """The value of `key`, from the cache or from one `load()`, kept for `ttl` seconds.

    Whoever does not get the lock looks again until `budget` seconds are over, and
    then gets `Busy`: never the origin. The lock of a reader that has died stays for
    `hold` seconds; make that longer than the slowest load. An error of `load` is
    the caller's; the next one tries.
    """
    lock, token = f"lock:{key}", uuid.uuid4().hex
    deadline, pause = time.monotonic() + budget, 0.05
    while (raw := cache.get(key)) is None:
        if cache.set(lock, token, nx=True, px=int(hold * 1000)):
            return _fill(cache, key, load, ttl, lock, token)
        left = deadline - time.monotonic()
        if left <= 0:
            raise Busy(f"{key} was not filled within {budget:g} s")
        time.sleep(min(left, pause * random.uniform(0.5, 1)))
        pause = min(2 * pause, 0.4)
    return json.loads(raw)


def _fill(
    cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int, lock: str, token: str
) -> Any:
    try:
        raw = cache.get(key)  # again: the last holder may have filled it after we had looked
        if raw is not None:
            return json.loads(raw)
        value = load()
        cache.eval(FILL, 2, lock, key, token, json.dumps(value), ttl)
        return value
    finally:
        cache.eval(RELEASE, 1, lock, token)
