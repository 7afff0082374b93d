"""Lease: only a reader whose lease is still valid may fill, and every delete voids the lease.

The idea is memcached's at Facebook: Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013,
section 3.2.1.
"""

import json
import logging
import secrets
from collections.abc import Callable
from typing import Any

import redis

log = logging.getLogger(__name__)

LEASE_TTL = 10  # seconds: how long a reader that died keeps the others from filling

# One script is one step for everybody else: the lease cannot be voided between check and SET.
FILL_IF_LEASED = """
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
"""


def read(cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int) -> Any:
    """The value of `key`, from the cache or from `load()`, kept for `ttl` seconds.

    The lease is taken before `load`, with a token of this reader's own. Who does not get one
    answers from `load` and fills nothing. A cache that is down is a miss.
    """
    lease, token, leased = f"lease:{key}", secrets.token_hex(8), None
    try:
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
        leased = cache.set(lease, token, nx=True, ex=LEASE_TTL)
    except redis.RedisError as error:
        log.warning("cache read of %s failed: %s", key, error)

    value = load()

    if leased:
        try:
            cache.eval(FILL_IF_LEASED, 2, key, lease, json.dumps(value), token, ttl)
        except redis.RedisError as error:
            log.warning("cache write of %s failed: %s", key, error)
    return value


def forget(cache: redis.Redis, *keys: str) -> None:
    """Delete keys whose rows have changed, and void the leases on them, in one command.

    Call it after the commit. If the cache is down the keys stay until their TTL.
    """
    try:
        cache.delete(*keys, *(f"lease:{key}" for key in keys))
    except redis.RedisError as error:
        log.error("stale until their TTL: %s (%s)", ", ".join(keys), error)
