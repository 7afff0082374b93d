"""A cache, an origin and a trace for tests: fakeredis and a small SQLite file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachelab import origin
from cachelab.cache import server
from cachelab.cache.client import Cache
from cachelab.origin import Origin
from cachelab.record.trace import Trace


class ManualClock:
    """Seconds that pass only when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """What a lesson has, without a server."""

    cache: Cache
    db: Origin
    trace: Trace
    clock: ManualClock
    server: server.Server

    def read(self, user_id: int) -> Any:
        """Cache-aside, in its plainest form."""
        key = f"user:v1:{user_id}"
        stored = self.cache.get(key)
        if stored is not None:
            return json.loads(stored)
        user = self.db.user(user_id)
        self.cache.set(key, json.dumps(user), ex=300)
        return user


def world(folder: Path) -> World:
    """A fresh one, its database in `folder`."""
    clock = ManualClock()
    trace = Trace(clock=clock, exact=True)
    fake = server.fake()
    path = folder / "shop.sqlite"
    origin.seed_sqlite(path, origin.SMALL)
    db = Origin(origin.open_sqlite(path), trace)
    cache = Cache(connection_pool=fake.connection_pool(), trace=trace, keyspace=fake.keyspace)
    return World(cache, db, trace, clock, fake)
