"""Versioned set: a row replaces only an older copy of itself, so coming late changes nothing.

The rows carry a `version` that every update raises. Readers and writers both store with `put`;
nobody deletes, because a deleted key has forgotten which version it had.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

import redis

log = logging.getLogger(__name__)

# One script is one step for everybody else: nothing comes between the comparison and the SET.
SET_IF_NEWER = """
local kept = redis.call('GET', KEYS[1])
if kept and cjson.decode(kept).version >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
"""


def read(cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int) -> Any:
    """The row of `key`, from the cache or from `load()`, kept for `ttl` seconds.

    A row is a dict of JSON values with an int under "version"; None, for no such row, is returned
    and not stored. The TTL must be longer than the slowest `load`: when a copy expires, its version
    is forgotten with it.
    """
    try:
        stored = cache.get(key)
    except redis.RedisError as error:
        log.warning("cache read of %s failed: %s", key, error)
        stored = None
    if stored is not None:
        return json.loads(stored)
    row = load()
    if row is not None:
        put(cache, key, row, ttl)
    return row


def put(cache: redis.Redis, key: str, row: dict[str, Any], ttl: int) -> bool:
    """Store `row` for `ttl` seconds unless the cache has the same or a newer version.

    Returns whether it was stored. A writer calls it after its commit, with the new row.
    """
    try:
        done = cache.eval(SET_IF_NEWER, 1, key, json.dumps(row), row["version"], ttl)
    except redis.RedisError as error:
        log.error("stale until its TTL: %s (%s)", key, error)
        return False
    return bool(done)
