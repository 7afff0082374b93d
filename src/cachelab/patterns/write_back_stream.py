"""Write-back through a stream: each view is an entry of a log, and a consumer group empties it.

An entry stays until its view is committed. A flusher that dies is followed by another of its name,
which is given the same entries again; the transaction knows them by the id of the last. What a
crash of the server loses is the server's setting: with `appendonly yes` and `appendfsync always`
nothing that was acknowledged. A log takes room for every view, and has no sum to read.
"""

from collections import Counter
from typing import Any

import redis
import sqlalchemy as sa

from cachelab.patterns.write_back import ADD, CLAIM

LOG, GROUP = "views:v1:log", "flush"


def create(cache: redis.Redis) -> None:
    """Make the log and its consumer group, where they are not there yet."""
    try:
        cache.xgroup_create(LOG, GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def add(cache: redis.Redis, article_id: int, views: int = 1) -> str:
    """Count, in one trip; returns the entry's id."""
    return str(cache.xadd(LOG, {"article": article_id, "views": views}))


def flush(
    cache: redis.Redis,
    engine: sa.Engine,
    name: str = "flusher",
    most: int = 500,
) -> int:
    """Bring up to `most` entries to the database; returns how many entries that were.

    Those that were given to this name before, and not acknowledged, come first: all of
    them, so that they are the same batch as then. Two flushers at once need two names.
    """
    entries = _given(cache, name, "0", None) or _given(cache, name, ">", most)
    if not entries:
        return 0
    ids, sums = [entry for entry, _ in entries], Counter[int]()
    for _, fields in entries:
        sums[int(fields["article"])] += int(fields["views"])
    rows = [{"id": article, "more": views} for article, views in sorted(sums.items())]
    with engine.begin() as connection:
        if connection.execute(CLAIM, {"batch": ids[-1]}).rowcount:  # 0: counted before
            connection.execute(ADD, rows)
    with cache.pipeline() as pipe:
        pipe.xack(LOG, GROUP, *ids)
        pipe.xdel(LOG, *ids)
        pipe.execute()
    return len(ids)


def _given(cache: redis.Redis, name: str, after: str, most: int | None) -> list[Any]:
    reply: Any = cache.xreadgroup(GROUP, name, {LOG: after}, count=most)
    entries = dict(reply).get(LOG, [])
    return entries[0] if entries and isinstance(entries[0], list) else entries  # as RESP3 has it
