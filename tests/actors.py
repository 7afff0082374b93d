"""The two actors that most tests of the stage play: a naive reader and a writer that deletes."""

from __future__ import annotations

import json
from typing import Any


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
