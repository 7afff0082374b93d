"""Write-back: count in the cache now, and bring the sums to the database later, in batches.

A view is acknowledged when the cache has it: a cache that dies takes along what was not flushed.
What did not die is counted exactly once, whoever is killed on the way and however many flush: a
batch has an id from its first view on, and the transaction that counts it keeps that id. The
buffer is no copy: no TTL, nothing that evicts it. A cache that is down is the caller's error.
"""

import uuid

import redis
import sqlalchemy as sa

OPEN, SEALED = "views:v1:open", "views:v1:sealed"  # article -> views; also "batch", "waiting"

# The table of the batches that were counted; ids older than any flusher may be deleted from it.
FLUSHED = sa.text("CREATE TABLE IF NOT EXISTS flushed (batch VARCHAR(40) PRIMARY KEY)")
CLAIM = sa.text("INSERT INTO flushed (batch) VALUES (:batch) ON CONFLICT DO NOTHING")
ADD = sa.text("UPDATE articles SET views = views + :more WHERE id = :id")
READ = sa.text(
    "SELECT views, :open IN (SELECT batch FROM flushed), :sealed IN (SELECT batch FROM flushed)"
    " FROM articles WHERE id = :id"
)
# Another flusher may have been through with this batch, and have sealed the next: leave that.
DROP = "return redis.call('HGET', KEYS[1], 'batch') == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


def add(cache: redis.Redis, article_id: int, views: int = 1) -> int:
    """Count, in one trip; returns how many views wait, for whoever flushes by size."""
    with cache.pipeline() as pipe:
        pipe.hsetnx(OPEN, "batch", uuid.uuid4().hex)
        pipe.hincrby(OPEN, str(article_id), views)
        pipe.hincrby(OPEN, "waiting", views)
        return int(pipe.execute()[-1])


def read(cache: redis.Redis, engine: sa.Engine, article_id: int) -> int:
    """An article's views: none that was acknowledged before is missing, none counts twice."""
    with cache.pipeline() as pipe:
        for key in (OPEN, SEALED):
            pipe.hmget(key, ["batch", str(article_id)])
        (a, in_open), (b, in_sealed) = pipe.execute()
    with engine.connect() as connection:  # after the cache: it knows which of the two it has
        row = connection.execute(READ, {"id": article_id, "open": a, "sealed": b}).one()
    more = [int(n or 0) for n, counted in ((in_open, row[1]), (in_sealed, row[2])) if not counted]
    return int(row.views + sum(more))


def flush(cache: redis.Redis, engine: sa.Engine) -> int:
    """Bring one batch to the database, a dead flusher's first; returns how many rows."""
    try:
        cache.renamenx(OPEN, SEALED)  # one step: no view falls between two batches
    except redis.ResponseError as error:
        if "no such key" not in str(error):
            raise
    sums = cache.hgetall(SEALED)
    if not sums:
        return 0
    batch, _ = sums.pop("batch"), sums.pop("waiting")
    rows = [{"id": int(item), "more": int(views)} for item, views in sorted(sums.items())]
    with engine.begin() as connection:
        if connection.execute(CLAIM, {"batch": batch}).rowcount:  # 0: counted before
            connection.execute(ADD, rows)
    cache.eval(DROP, 1, SEALED, batch)
    return len(rows)
