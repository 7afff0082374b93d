"""Tags: a copy names what it is made of, and one command voids every copy that names it.

A logical clock goes up with each `forget`, which leaves its new time under the tag. A copy knows
the time before its query; it counts while no tag of its own has a later one. So a fill that began
before a write is void however late it ends, and nobody needs a list of keys.

A hit takes two trips, and reads a mark for each tag. Marks outlive the copies and must not be
evicted: a mark that is gone voids nothing. On a cluster all of it needs one slot.
"""

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

import redis

log = logging.getLogger(__name__)

CLOCK = "tags:clock"
LONGEST = 86_400  # seconds: no copy may live longer, so an older mark has nothing left to void

# One script: of two writers the later time must also be the one that stays.
FORGET = """local now = redis.call('INCR', KEYS[1])
for i = 2, #KEYS do redis.call('SET', KEYS[i], now, 'EX', ARGV[1]) end
return now"""

TagsOf = Callable[[Any], Iterable[str]]


def read(cache: redis.Redis, key: str, load: Callable[[], Any], tags_of: TagsOf, ttl: int) -> Any:
    """The value of `key`: a copy that is not void, or `load()`, kept for `ttl` seconds.

    `tags_of(value)` names what the value, JSON, is made of. A dead cache is a miss.
    """
    if not 0 < ttl <= LONGEST:
        raise ValueError(f"Marks are kept for {LONGEST} s; ttl is 1 s to that, not {ttl} s.")
    try:
        stored, now = cache.mget(key, CLOCK)  # the time must be from before the query
        if stored is not None:
            copy = json.loads(stored)
            names = [f"tag:{tag}" for tag in copy["tags"]]
            marks = cache.mget(names) if names else []
            if all(int(mark or 0) <= copy["at"] for mark in marks):
                return copy["value"]
    except redis.RedisError as error:
        log.warning("cache read of %s failed: %s", key, error)
        return load()  # without the time there is nothing to store

    value = load()

    copy = {"at": int(now or 0), "tags": sorted(set(tags_of(value))), "value": value}
    try:
        cache.set(key, json.dumps(copy), ex=ttl)
    except redis.RedisError as error:
        log.warning("cache write of %s failed: %s", key, error)
    return value


def forget(cache: redis.Redis, *tags: str) -> None:
    """Void every copy that names one of these tags; call it after the commit.

    Raises redis.RedisError: whoever tells of a change must know when it has not been heard.
    """
    cache.eval(FORGET, 1 + len(tags), CLOCK, *(f"tag:{tag}" for tag in tags), LONGEST)
