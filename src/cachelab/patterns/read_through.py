"""Read-through: the cache owns the loaders; callers say what they want and never where it is."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis

log = logging.getLogger(__name__)


class Entity(NamedTuple):
    """`load(ids)` gives those that exist, by id, in one query. TTLs are in seconds."""

    load: Callable[[list[Any]], Mapping[Any, Any]]
    ttl: int
    absent_ttl: int = 5
    version: int = 1


@dataclass(frozen=True)
class ReadThrough:
    """Values are JSON; None means no such thing. A dead cache or broken JSON is a miss.

    A loader's error is the caller's, and not stored. `once(key, call)` takes a guard, as
    `SingleFlight().do`. Not promised: that no old fill follows a delete (see `lease`).
    """

    cache: redis.Redis
    entities: Mapping[str, Entity]
    once: Callable[[str, Callable[[], Any]], Any] = lambda key, call: call()

    def key(self, name: str, id: Any) -> str:
        return f"{name}:v{self.entities[name].version}:{id}"

    def read(self, name: str, id: Any) -> Any:
        return self.read_many(name, [id])[id]

    def read_many(self, name: str, ids: Iterable[Any]) -> dict[Any, Any]:
        """Values by id: one MGET, one load of all missing, one pipeline of fills."""
        keys = {id: self.key(name, id) for id in ids}
        found = self.once(" ".join(keys.values()), lambda: self._read(name, keys))
        return {id: found[key] for id, key in keys.items()}

    def _read(self, name: str, keys: dict[Any, str]) -> dict[str, Any]:
        kind, found = self.entities[name], {}
        try:
            texts = self.cache.mget([*keys.values()]) if keys else []
            kept = zip(keys.values(), texts, strict=True)
            found = {key: json.loads(text) for key, text in kept if text is not None}
        except (redis.RedisError, ValueError) as error:  # all are loaded and stored anew
            log.warning("cache read of %s failed: %s", ", ".join(keys.values()), error)
        if missing := {id: key for id, key in keys.items() if key not in found}:
            rows = {self.key(name, id): row for id, row in kind.load([*missing]).items()}
            pipe = self.cache.pipeline(transaction=False)
            for key in missing.values():
                row = found[key] = rows.get(key)
                seconds = kind.absent_ttl if row is None else kind.ttl
                pipe.set(key, json.dumps(row), ex=seconds)
            with suppress(redis.RedisError):  # the read has said so
                pipe.execute()
        return found
