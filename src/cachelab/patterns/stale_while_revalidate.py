"""Stale-while-revalidate: past its TTL a copy is still served, while one reader renews it."""

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import redis

log = logging.getLogger(__name__)

RENEWAL = 30  # seconds until another reader may try, if the one who renews has died


def read(cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int, window: int) -> Any:
    """The value of `key`: fresh for `ttl` seconds, then served as it is for `window` more.

    So an answer may be `ttl + window` seconds old, and the time of a load more. The first read
    after the TTL starts `load()` in a thread; nobody waits for it. Who comes after the window, or
    finds nothing at all, loads for themselves: a cold key is not protected.
    """
    with cache.pipeline() as pipe:  # one trip, and one clock: the server's
        pipe.get(key)
        pipe.pttl(key)
        raw, left = pipe.execute()
    if raw is None:
        return _load(cache, key, load, ttl + window)
    if left <= window * 1000 and cache.set(f"renew:{key}", "1", nx=True, ex=RENEWAL):
        threading.Thread(target=_renew, args=(cache, key, load, ttl + window)).start()
    return json.loads(raw)


def _load(cache: redis.Redis, key: str, load: Callable[[], Any], keep: int) -> Any:
    value = load()
    cache.set(key, json.dumps(value), ex=keep)
    return value


def _renew(cache: redis.Redis, key: str, load: Callable[[], Any], keep: int) -> None:
    try:
        _load(cache, key, load, keep)
        cache.delete(f"renew:{key}")
    except Exception as error:  # the copy that we have is still good; nobody waits for a new one
        log.warning("%s was not renewed: %s", key, error)
