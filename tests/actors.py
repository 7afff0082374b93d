"""The two actors that most tests of the stage play: a naive reader and a writer that deletes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from cachelab import stage
from cachelab.stage.world import as_actors


def reader(cache: Any, db: Any) -> Any:
    """Cache-aside, as everybody writes it first."""
    found = cache.get("user:1")
    if found is not None:
        return json.loads(found)
    row = db.user(1)
    cache.set("user:1", json.dumps(row), ex=300)
    return row


def delete_after_commit(cache: Any, db: Any) -> None:
    """Changes the row, then deletes the copy: the right way round, and still a race."""
    db.update_user(1, email="new@example.org")
    cache.delete("user:1")


def by_process(actors: Any) -> list[stage.Actor]:
    """The same actors, those with one function as threads of one process."""
    made = as_actors(actors)
    numbers: dict[int, int] = {}
    for actor in made:
        numbers.setdefault(id(actor.play), len(numbers) + 1)
    return [replace(actor, process=f"process {numbers[id(actor.play)]}") for actor in made]
