"""Transactional outbox: what has changed is written down in the transaction that changes it.

A relay brings it from there to whoever has to know. Each committed event gets there at least once,
whoever dies, as long as some relay runs again; so what it causes must do no harm twice. An event
says that something changed and not to what, so order does not matter. How late it comes, the relay
decides: a copy needs its TTL all the same.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

Publish = Callable[[dict[str, Any]], Any]

OUTBOX = sa.Table(
    "outbox",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("event", sa.JSON, nullable=False),
    # SQLite would give the id of a deleted row again, and a slow relay would delete the new one.
    sqlite_autoincrement=True,
)


def create(engine: sa.Engine) -> None:
    """Make the table, where it is not there yet."""
    OUTBOX.create(engine, checkfirst=True)


def note(connection: sa.Connection, **event: Any) -> None:
    """Write an event down; `connection` is in the transaction that makes it true."""
    connection.execute(sa.insert(OUTBOX), {"event": event})


def relay(engine: sa.Engine, publish: Publish, most: int = 100) -> int:
    """Publish up to `most` events, the oldest first; returns how many.

    A row is deleted only when its event is out. What `publish` raises is the caller's to
    see; the event stays. There is no position to remember: a transaction that commits late,
    with an early id, is found by the next pass.
    """
    oldest = sa.select(OUTBOX).order_by(OUTBOX.c.id).limit(most)
    with engine.connect() as connection:
        waiting = connection.execute(oldest).all()
    for row in waiting:
        publish(row.event)
        with engine.begin() as connection:
            connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.id == row.id))
    return len(waiting)
