"""The shop's service: six pages, each cache-aside, made of five parts that can be replaced."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import redis
import sqlalchemy as sa

from cachelab.incident.parts import Part
from cachelab.origin import Product
from cachelab.patterns.token_lock import Busy

# Seconds that a query takes, besides its place in the queue of the database.
QUERY = {"product": 0.1, "stock": 0.1, "search": 1.2, "best": 12.0, "write": 0.3, "warm-up": 0.01}
PATIENCE = 20.0  # seconds that a reader waits for somebody else's query
ROOMS = ("kitchen", "office", "bedroom", "garden", "hall")
WORDS = ("lamp", "chair", "desk", "kettle", "rug", "clock")

taking: ContextVar[float] = ContextVar("cachelab_taking", default=QUERY["product"])


@contextmanager
def slow(kind: str) -> Iterator[None]:
    """Statements inside take what a query of this kind takes."""
    token = taking.set(QUERY[kind])
    try:
        yield
    finally:
        taking.reset(token)


@dataclass
class Service:
    """The pages as one process serves them, with its own client."""

    cache: redis.Redis
    db: Any
    parts: Mapping[str, Part]
    log: Callable[[str], None]

    def product(self, number: int) -> Any:
        """The price in cents, or None: there is no such product."""
        row = self._read(f"product:v1:{number}", "product", lambda: self._row(number))
        return None if row is None else row["price_cents"]

    def stock(self, number: int) -> Any:
        """How many are left."""
        return self._read(f"stock:v1:{number}", "stock", lambda: self.db.stock(number))

    def search(self, words: str) -> Any:
        """The numbers of the products whose names contain the words."""
        key = self.parts["search_key"](words)
        return self._read(key, "search", lambda: self._found(words))

    def shelf(self, room: str) -> list[int | None]:
        """The prices of a room: one trip for all copies, then what is missing."""
        numbers = on_the_shelf(room)
        try:
            copies = self.cache.mget([f"product:v1:{number}" for number in numbers])
        except redis.ConnectionError as error:
            self.log(f"WARN cache unavailable, asking the database: {error}")
            return [self._row(number)["price_cents"] for number in numbers]
        return [
            self.product(number) if copy is None else json.loads(copy)["price_cents"]
            for number, copy in zip(numbers, copies, strict=True)
        ]

    def best(self, room: str) -> Any:
        """The best sellers, a slow query. An old list is served while one renews it."""
        key, until = f"best:v1:{room}", time.monotonic() + PATIENCE
        try:
            while (raw := self.cache.get(key)) is None:
                if (old := self.cache.get(f"old:{key}")) is not None:
                    threading.Thread(target=self._renew, args=(key, room)).start()
                    return json.loads(old)
                if (made := self._renew(key, room)) is not None:
                    return made
                if time.monotonic() > until:
                    raise Busy(f"{key} was not there within {PATIENCE:g} s")
                time.sleep(0.5)
            return json.loads(raw)
        except redis.ConnectionError as error:
            self.log(f"WARN cache unavailable, asking the database: {error}")
            return self._best(room)

    # Inside --------------------------------------------------

    def _read(self, key: str, kind: str, load: Callable[[], Any]) -> Any:
        """Cache-aside. A cache that does not answer is a miss, and never an error."""
        try:
            raw = self.cache.get(key)
        except redis.ConnectionError as error:
            self.log(f"WARN cache unavailable, asking the database: {error}")
            return self._load(kind, load)
        if raw is not None:
            return json.loads(raw)
        value = self._load(kind, load)
        try:
            seconds = self.parts["lifetime"](kind, value is not None)
            self.cache.set(key, json.dumps(value), ex=seconds)
        except redis.ConnectionError as error:
            self.log(f"WARN could not store {key}: {error}")
        return value

    def _load(self, kind: str, load: Callable[[], Any]) -> Any:
        with slow(kind):
            return load()

    def _row(self, number: int) -> Any:
        return row(self.db, number)

    def _found(self, words: str) -> list[int]:
        fits = Product.name.contains(words)
        with self.db.engine.connect() as connection:
            rows = connection.execute(sa.select(Product.id).where(fits).order_by(Product.id))
            return list(rows.scalars())

    def _renew(self, key: str, room: str) -> Any:
        def load() -> list[int]:
            numbers = self._best(room)
            self.cache.set(f"old:{key}", json.dumps(numbers), ex=3_600)
            return numbers

        ttl = self.parts["lifetime"]("best", True)
        return self.parts["rebuild"](self.cache, key, load, ttl)

    def _best(self, room: str) -> list[int]:
        self.log(f"INFO the slow query for best:v1:{room}")
        with slow("best"):
            return [found["id"] for found in self.db.best_sellers(room)]


_ROW = sa.select(Product.id, Product.name, Product.price_cents).where(
    Product.id == sa.bindparam("number")
)


def row(db: Any, product_id: int) -> dict[str, Any] | None:
    """What the page of a product shows: its stock is not part of it."""
    with db.engine.connect() as connection:
        found = connection.execute(_ROW, {"number": product_id}).mappings().one_or_none()
    return None if found is None else dict(found)


def on_the_shelf(room: str, products: int = 40) -> list[int]:
    """The numbers of the products that stand in a room."""
    return [n for n in range(1, products + 1) if ROOMS[n % len(ROOMS)] == room]
