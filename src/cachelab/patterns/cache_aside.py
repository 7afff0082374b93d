"""Cache-aside: ask the cache first; on a miss ask the origin and leave a copy in the cache."""

import json
import logging
from collections.abc import Callable
from typing import Any

import redis

log = logging.getLogger(__name__)

ABSENT_TTL = 30  # seconds: "there is no such row" is soon wrong, when somebody creates it


def read(cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int) -> Any:
    """The value of `key`, from the cache or from `load()`, kept for `ttl` seconds.

    The value must be JSON. A cache that is down is a miss, never an error; an error of `load` is
    the caller's to see. Absence (None) is kept too, but only briefly.
    """
    try:
        raw = cache.get(key)
    except redis.RedisError as error:
        log.warning("cache read of %s failed: %s", key, error)
        raw = None
    if raw is not None:  # never `if raw:` or `if value:`; 0, "", [] and None are values
        return json.loads(raw)

    value = load()

    try:
        cache.set(key, json.dumps(value), ex=ABSENT_TTL if value is None else ttl)
    except redis.RedisError as error:
        log.warning("cache write of %s failed: %s", key, error)
    return value


def forget(cache: redis.Redis, *keys: str) -> None:
    """Delete keys whose rows have changed. Call it after the commit, never before it.

    If the cache is down the keys stay until their TTL: say so, but do not fail a committed write.
    """
    try:
        cache.delete(*keys)
    except redis.RedisError as error:
        log.error("stale until their TTL: %s (%s)", ", ".join(keys), error)
