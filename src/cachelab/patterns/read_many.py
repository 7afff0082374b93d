"""Read many: a list of rows in two trips to the cache and one query, however long the list."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import redis

log = logging.getLogger(__name__)

ABSENT_TTL = 30  # seconds: "there is no such row" is soon wrong, when somebody creates it


def read(
    cache: redis.Redis,
    ids: Iterable[Any],
    key: Callable[[Any], str],
    load: Callable[[list[Any]], Mapping[Any, Any]],
    ttl: int,
) -> list[Any]:
    """The values of `ids`, in their order, each kept for `ttl` seconds under `key(id)`.

    One MGET; then, if any are missing, one `load(missing)` and one pipeline that stores
    them. `load` gets each missing id once and gives {id: JSON value}; an id that it leaves
    out does not exist: None, kept briefly. A cache that is down is a list of misses.

    Not promised: that the values are of one moment, that several who miss at once load
    only once, or that a fill cannot lose a race against a delete (see single_flight,
    lease). Thousands of ids are one long command for the server: cut them up.
    """
    asked = list(ids)
    wanted = list(dict.fromkeys(asked))  # an id may come twice
    raw = _stored(cache, [key(one) for one in wanted])
    texts = zip(wanted, raw, strict=True)
    found = {one: json.loads(text) for one, text in texts if text is not None}
    missing = [one for one in wanted if one not in found]
    if missing:
        loaded = load(missing)
        fresh = {one: loaded.get(one) for one in missing}
        _fill(cache, {key(one): value for one, value in fresh.items()}, ttl)
        found |= fresh
    return [found[one] for one in asked]


def _stored(cache: redis.Redis, keys: list[str]) -> list[Any]:
    try:
        return list(cache.mget(keys)) if keys else []
    except redis.RedisError as error:
        log.warning("cache read of %d keys failed: %s", len(keys), error)
        return [None] * len(keys)


def _fill(cache: redis.Redis, values: dict[str, Any], ttl: int) -> None:
    try:
        with cache.pipeline(transaction=False) as pipe:  # each SET has its TTL: half a fill is fine
            for name, value in values.items():
                pipe.set(name, json.dumps(value), ex=ABSENT_TTL if value is None else ttl)
            pipe.execute()
    except redis.RedisError as error:
        log.warning("cache write of %d keys failed: %s", len(values), error)
