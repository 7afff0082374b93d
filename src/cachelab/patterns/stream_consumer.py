"""Stream consumer: events from a log, acknowledged when they are handled and not before.

Of one group each event is handled by one consumer, at least once: what a consumer took and did not
acknowledge, another claims after a while. So handling must do no harm twice. For a copy in each
process, give each process a group of its own. A log that is cut (`MAXLEN`) forgets also what was
not read: who may have been away longer than it reaches back has to drop all its copies.
"""

from collections.abc import Callable
from typing import Any

import redis

CLAIM_AFTER = 60.0  # seconds: longer than handling a batch takes


def create(cache: redis.Redis, log: str, group: str) -> None:
    """Make the group, and the log, where they are not there yet; it reads from the beginning."""
    try:
        cache.xgroup_create(log, group, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def publish(cache: redis.Redis, log: str, event: dict[Any, Any]) -> str:
    """Append an event, whether anybody listens or not; returns its id."""
    return str(cache.xadd(log, event))


def consume(
    cache: redis.Redis,
    log: str,
    group: str,
    name: str,
    handle: Callable[[dict[str, str]], Any],
    most: int = 100,
    claim_after: float = CLAIM_AFTER,
) -> int:
    """Handle up to `most` events that others left for `claim_after` s, and `most` new ones.

    Returns how many were handled. What `handle` raises is the caller's to see: the event, and those
    after it, stay unacknowledged and are claimed later.
    """
    idle = round(claim_after * 1000)
    left: Any = cache.xautoclaim(log, group, name, idle, count=most)
    new: Any = cache.xreadgroup(group, name, {log: ">"}, count=most)
    handled = 0
    for entry, fields in [*left[1], *_entries(new, log)]:
        if fields:  # else it was deleted from the log meanwhile
            handle(fields)
            handled += 1
        cache.xack(log, group, entry)
    return handled


def _entries(reply: Any, log: str) -> list[Any]:
    """The entries in an answer of XREADGROUP, which RESP2 and RESP3 write differently."""
    found = dict(reply or {}).get(log, [])
    return found[0] if found and isinstance(found[0], list) else found
