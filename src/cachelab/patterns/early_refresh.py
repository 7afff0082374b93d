"""Early refresh (XFetch): a hot key is renewed shortly before it expires, by a reader by chance."""

import json
import math
import random
import time
from collections.abc import Callable
from typing import Any

import redis

RENEWAL = 30  # seconds until another reader may try, if the one who renews has died


def read(
    cache: redis.Redis,
    key: str,
    load: Callable[[], Any],
    ttl: int,
    *,
    beta: float = 1.0,
    alone: bool = True,
    draw: Callable[[], float] = random.random,
) -> Any:
    """The value of `key`; the nearer its expiry, the likelier a reader renews it and waits.

    With t seconds left a read renews with the chance exp(-t / (beta * s)), where s is what the
    last load took (Vattani et al., VLDB 2015). A mean of e^(1/beta) readers renew a hot key at
    once; with `alone`, the first of them. A cold key, or one seldom read, is not protected.
    """
    with cache.pipeline() as pipe:
        pipe.get(key)
        pipe.pttl(key)
        raw, left = pipe.execute()
    if raw is not None:
        entry = json.loads(raw)
        lead = -entry["took"] * beta * math.log(1 - draw())  # in seconds, exponential
        if left / 1000 > lead or (alone and not _chosen(cache, key)):
            return entry["value"]
    began = time.monotonic()
    try:
        value = load()
    except Exception:
        if raw is None:
            raise
        return entry["value"]  # still good; the next one may try when the flag is gone
    took = time.monotonic() - began
    cache.set(key, json.dumps({"value": value, "took": took}), ex=ttl)
    if alone:
        cache.delete(f"renew:{key}")
    return value


def _chosen(cache: redis.Redis, key: str) -> bool:
    return bool(cache.set(f"renew:{key}", "1", nx=True, ex=RENEWAL))
