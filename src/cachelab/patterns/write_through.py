"""Write-through: after its commit the writer stores the new row, so that the next read is a hit.

Promised: a write that is committed never fails because of the cache, and of several writers the
newest row stays, whoever comes last. Not promised: a true copy if the writer dies after its commit,
if neither the store nor the delete gets through, if the copy is evicted or deleted in the middle of
a fill, or if somebody changes the row in another way. What is wrong then ends with its TTL.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

import redis

from cachelab.patterns import cache_aside, versioned_set

log = logging.getLogger(__name__)


def read(cache: redis.Redis, key: str, load: Callable[[], dict[str, Any]], ttl: int) -> Any:
    """The row of `key`, from the cache or from `load()`, kept for `ttl` seconds.

    A fill goes by the same rule as a write: an older row never replaces a newer one.
    """
    return versioned_set.read(cache, key, load, ttl)


def write(
    cache: redis.Redis, key: str, save: Callable[[], dict[str, Any]], ttl: int
) -> dict[str, Any]:
    """Run `save()`, which commits and returns the new row; store that for `ttl` seconds.

    The row is a dict of JSON values, in the shape that `read` loads, with an int
    under "version" that every update raises. Returns the row. An error of `save` is
    the caller's to see, and the cache is left as it was. If the row cannot be stored
    the copy is deleted, if that can be done.
    """
    row = save()
    try:
        text, version = json.dumps(row), row["version"]
        cache.eval(versioned_set.SET_IF_NEWER, 1, key, text, version, ttl)
    except Exception as error:  # it is committed: nothing may say now that it failed
        log.error("not stored, so deleted: %s (%s)", key, error)
        cache_aside.forget(cache, key)
    return row
