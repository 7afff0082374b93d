"""The five parts of the shop's service that can be wrong: as they should be, and as they were.

`SOUND` is the service without a fault. `FAULTS` is the catalogue: what each fault puts in the place
of a part. A scenario names the faults that are planted.
"""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
import sqlalchemy as sa

from cachelab.incident.pods import hash  # of the process that the code runs in
from cachelab.origin import Product
from cachelab.patterns.token_lock import FILL, RELEASE

Part = Callable[..., Any]

# What customers are promised: how old, in seconds, an answer may be. And how long a copy may live,
# so that the promise holds with the time of a query and of a queue on top.
PROMISED = {"product": 5, "stock": 15, "search": 330, "absent": 45}
LONGEST = {"product": 600, "stock": 10, "search": 300, "best": 90, "absent": 30}


# As they should be ----------------------------------------------------------------------------


def lifetime(kind: str, found: bool) -> int:
    """Whole seconds that a copy lives: within its bound, absence briefly, all of them apart."""
    longest = LONGEST[kind] if found else min(LONGEST[kind], LONGEST["absent"])
    return max(1, int(longest * random.uniform(0.8, 1)))


def search_key(words: str) -> str:
    """The same key in every process, another one for other words."""
    return f"search:v1:{words}"


def rebuild(cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int) -> Any:
    """One process loads and stores; None to the others. Whoever lost the lock changes nothing."""
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    try:
        raw = cache.get(key)
        if raw is not None:
            return json.loads(raw)
        value = load()
        cache.eval(FILL, 2, lock, key, token, json.dumps(value), ttl)
        return value
    finally:
        cache.eval(RELEASE, 1, lock, token)


def change_prices(cache: redis.Redis, db: Any, prices: Mapping[int, int]) -> None:
    """All prices in one transaction; the copies go when it is committed, and not before."""
    with db.session() as session:
        for product, cents in prices.items():
            row = sa.update(Product).where(Product.id == product)
            session.execute(row.values(price_cents=cents))
        session.commit()
    cache.delete(*(f"product:v1:{product}" for product in prices))


def connect(wire: Mapping[str, Any]) -> redis.ConnectionPool:
    """A pool that is smaller than the crowd, in which the crowd stands in line for a moment."""
    return redis.BlockingConnectionPool(max_connections=50, timeout=1, **wire)


# As they were ---------------------------------------------------------------------------------


def one_ttl(kind: str, found: bool) -> int:
    """Five minutes. For everything."""
    return 300


def absent_for_ever(kind: str, found: bool) -> int | None:
    """A product that does not exist need not be asked for again."""
    return lifetime(kind, found) if found else None


def one_ttl_absent_for_ever(kind: str, found: bool) -> int | None:
    """Five minutes. And what does not exist need not be asked for again."""
    return 300 if found else None


def hash_in_key(words: str) -> str:
    """Short keys save memory."""
    return f"search:v1:{hash(words)}"


def lock_without_token(cache: redis.Redis, key: str, load: Callable[[], Any], ttl: int) -> Any:
    """A lock, so that only one of us asks the database. Two seconds are plenty."""
    if not cache.set(f"lock:{key}", "1", nx=True, ex=2):
        return None
    try:
        value = load()
        cache.set(key, json.dumps(value), ex=ttl)
        return value
    finally:
        cache.delete(f"lock:{key}")


def delete_before_commit(cache: redis.Redis, db: Any, prices: Mapping[int, int]) -> None:
    """The new prices must be seen at once, so the copies go first."""
    cache.delete(*(f"product:v1:{product}" for product in prices))
    with db.session() as session:
        for product, cents in prices.items():
            row = sa.update(Product).where(Product.id == product)
            session.execute(row.values(price_cents=cents))
        session.commit()


def pool_of_100(wire: Mapping[str, Any]) -> redis.ConnectionPool:
    """The client's default: up to 100 connections, and an error for whoever comes then."""
    return redis.ConnectionPool(**wire)


@dataclass(frozen=True)
class PlantedFault:
    """One planted fault: the part it is in, and what it is in a few words."""

    part: str
    said: str


SOUND: dict[str, Part] = {
    "lifetime": lifetime,
    "search_key": search_key,
    "rebuild": rebuild,
    "change_prices": change_prices,
    "connect": connect,
}
FAULTS: dict[str, PlantedFault] = {
    "one_ttl": PlantedFault("lifetime", "one TTL for every kind of data"),
    "absent_for_ever": PlantedFault("lifetime", '"there is no such product" is kept for ever'),
    "hash_in_key": PlantedFault("search_key", "Python's hash() in a key"),
    "lock_without_token": PlantedFault(
        "rebuild", "a lock that does not know its owner, and ends early"
    ),
    "delete_before_commit": PlantedFault("change_prices", "copies deleted before the commit"),
    "pool_of_100": PlantedFault("connect", "a pool of 100 connections for more callers"),
}
_BROKEN: dict[frozenset[str], Part] = {
    frozenset({"one_ttl"}): one_ttl,
    frozenset({"absent_for_ever"}): absent_for_ever,
    frozenset({"one_ttl", "absent_for_ever"}): one_ttl_absent_for_ever,
    frozenset({"hash_in_key"}): hash_in_key,
    frozenset({"lock_without_token"}): lock_without_token,
    frozenset({"delete_before_commit"}): delete_before_commit,
    frozenset({"pool_of_100"}): pool_of_100,
}


def with_faults(planted: Iterable[str]) -> dict[str, Part]:
    """The five parts, those with a planted fault as they were that night."""
    names, parts = set(planted), dict(SOUND)
    for part in parts:
        found = frozenset(name for name in names if FAULTS[name].part == part)
        if found:
            parts[part] = _BROKEN[found]
    return parts
