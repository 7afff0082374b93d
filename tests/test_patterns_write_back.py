"""Write-back, by hash and by stream, and the lab's own: each view counts once, whoever dies.

One suite for all of them. No library that we know flushes counters from Redis to a database, so
there is none to set beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from test_exercises_contract import defined_in
from worlds import World, world

from cachelab import exercises, stage
from cachelab.patterns import write_back, write_back_stream

BASE = 97  # the views of article 1 in a fresh shop


@dataclass(frozen=True)
class Buffer:
    """One way to count and to flush; `prepare` makes what it needs, once."""

    add: Callable[[Any, int], Any]
    flush: Callable[[Any, Any], Any]
    prepare: Callable[[Any, Any], Any]


def table(cache: Any, db: Any) -> None:
    with db.engine.begin() as connection:
        connection.execute(write_back.FLUSHED)


def table_and_log(cache: Any, db: Any) -> None:
    table(cache, db)
    write_back_stream.create(cache)
    write_back_stream.create(cache)  # a second process does it too


def labs() -> Buffer:
    """What the lab asks for, as its solution does it."""
    (replay,) = [e for e in exercises.catalogue("07_write_back") if e.id.endswith(".replay")]
    flush = defined_in("solutions", replay)
    return Buffer(flush.__globals__["count_view"], flush, table)


HASH = Buffer(write_back.add, lambda cache, db: write_back.flush(cache, db.engine), table)
STREAM = Buffer(
    write_back_stream.add,
    lambda cache, db: write_back_stream.flush(cache, db.engine),
    table_and_log,
)
BUFFERS = {"hash": lambda: HASH, "stream": lambda: STREAM, "the lab's": labs}


@pytest.fixture(params=BUFFERS)
def buffer(request: pytest.FixtureRequest) -> Buffer:
    return BUFFERS[request.param]()


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


@pytest.fixture
def ready(w: World, buffer: Buffer) -> World:
    buffer.prepare(w.cache, w.db)
    w.trace.clear()
    return w


def views(w: Any, article_id: int = 1) -> int:
    return int(w.db.article(article_id)["views"])


# What all of them do --------------------------------------------------------------------------


def test_what_is_counted_arrives_in_the_database_once(buffer: Buffer, ready: World) -> None:
    others = [views(ready, article) for article in (2, 4)]
    for article in (1, 3, 1, 1, 3):
        buffer.add(ready.cache, article)
    assert views(ready) == BASE
    for _ in range(2):
        buffer.flush(ready.cache, ready.db)
        assert (views(ready), views(ready, 3)) == (BASE + 3, 3 * BASE + 2)
    assert [views(ready, article) for article in (2, 4)] == others


def test_a_flush_is_one_transaction_however_many_views(buffer: Buffer, ready: World) -> None:
    for number in range(50):
        buffer.add(ready.cache, 1 + number % 3)
    assert ready.trace.writes == 0
    buffer.flush(ready.cache, ready.db)
    assert ready.trace.count("commit") == 1
    assert ready.trace.writes <= 4


def test_a_flush_of_nothing_writes_nothing(buffer: Buffer, ready: World) -> None:
    buffer.flush(ready.cache, ready.db)
    buffer.flush(ready.cache, ready.db)
    assert ready.trace.writes == 0
    assert views(ready) == BASE


def test_two_equal_batches_both_count(buffer: Buffer, ready: World) -> None:
    for _ in range(3):
        buffer.add(ready.cache, 1)
        buffer.flush(ready.cache, ready.db)
    assert views(ready) == BASE + 3


def test_a_batch_that_the_database_refused_counts_with_the_next_flush(
    buffer: Buffer, ready: World
) -> None:
    refuses = [True]

    @sa.event.listens_for(ready.db.engine, "commit")
    def refuse(_: Any) -> None:
        if refuses:
            raise sa.exc.OperationalError("COMMIT", None, Exception("the disk is full"))

    buffer.add(ready.cache, 1)
    with pytest.raises(sa.exc.OperationalError):
        buffer.flush(ready.cache, ready.db)
    refuses.clear()
    assert views(ready) == BASE
    buffer.add(ready.cache, 1)
    for _ in range(2):
        buffer.flush(ready.cache, ready.db)
    assert views(ready) == BASE + 2


def test_after_the_cache_lost_everything_new_views_count_again(
    buffer: Buffer, ready: World
) -> None:
    for _ in range(2):
        buffer.add(ready.cache, 1)
        buffer.flush(ready.cache, ready.db)
    ready.server.kill()
    ready.server.restart()
    buffer.prepare(ready.cache, ready.db)
    for expected in (3, 4):
        buffer.add(ready.cache, 1)
        buffer.flush(ready.cache, ready.db)
        assert views(ready) == BASE + expected


def test_a_view_that_the_cache_does_not_take_is_an_error(buffer: Buffer, ready: World) -> None:
    ready.server.kill()
    with pytest.raises(redis.ConnectionError):
        buffer.add(ready.cache, 1)
    with pytest.raises(redis.ConnectionError):
        buffer.flush(ready.cache, ready.db)


def visitor(buffer: Buffer) -> Callable[..., Any]:
    return lambda cache, db: (buffer.add(cache, 1), "acknowledged")


def each_view_once(acknowledged: tuple[str, ...]) -> Callable[[Any], Any]:
    """Every actor named whose `add` returned is in the database, once, and nobody else."""

    def holds(world: Any) -> str | bool:
        counted = sum(name in world.answers for name in acknowledged)
        found = views(world) - BASE
        return found == counted or f"{counted} acknowledged, {found} in the database."

    return holds


def test_a_view_that_comes_during_a_flush_counts_in_this_batch_or_the_next(
    buffer: Buffer,
) -> None:
    actors = {
        "a": visitor(buffer),
        "b": visitor(buffer),
        "flush": buffer.flush,
        "next": (10, buffer.flush),
        "last": (20, buffer.flush),
    }
    verdict = stage.explore(actors, each_view_once(("a", "b")), setup=buffer.prepare)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive


def test_a_flusher_that_dies_at_any_step_loses_no_view_and_counts_none_twice(
    buffer: Buffer,
) -> None:
    actors = {
        "a": visitor(buffer),
        "flush": buffer.flush,
        "next": (10, buffer.flush),
        "last": (20, buffer.flush),
    }
    verdict = stage.explore(actors, each_view_once(("a",)), setup=buffer.prepare, crashes=1)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive


# The hash -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_flushers_at_once_count_each_view_once_also_when_one_dies() -> None:
    for visitors, crashes in ((("a", "b"), 0), (("a",), 1)):
        actors: dict[str, Any] = {name: visitor(HASH) for name in visitors}
        actors |= {"flush": HASH.flush, "another": HASH.flush}
        actors |= {"next": (10, HASH.flush), "last": (20, HASH.flush)}
        verdict = stage.explore(
            actors, each_view_once(visitors), setup=table, crashes=crashes, limit=20_000
        )
        assert verdict.outcome == "passed", verdict
        assert verdict.exhaustive


def test_a_flusher_that_was_overtaken_does_not_delete_the_next_batch() -> None:
    def busy(cache: Any, db: Any) -> None:
        HASH.flush(cache, db)
        HASH.add(cache, 1)
        HASH.flush(cache, db)

    actors = {"a": visitor(HASH), "late": HASH.flush, "busy": busy, "last": (20, HASH.flush)}
    verdict = stage.explore(
        actors, each_view_once(("a", "busy")), setup=table, limit=20_000, seed=1
    )
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive


@pytest.mark.slow
def test_a_read_misses_no_acknowledged_view_and_counts_none_twice_in_every_order() -> None:
    def one_waits(cache: Any, db: Any) -> None:
        table(cache, db)
        cache.hset(write_back.OPEN, mapping={"batch": "first", "1": 1, "waiting": 1})

    def read(cache: Any, db: Any) -> int:
        return write_back.read(cache, db.engine, 1)

    def within(world: Any) -> str | bool:
        found = world.answers["read"] - BASE
        return found in (1, 2) or f"read {found}, expected 1 or 2."

    actors = {"read": read, "flush": HASH.flush, "a": visitor(HASH)}
    verdict = stage.explore(actors, within, setup=one_waits)
    assert verdict.outcome == "passed", verdict
    verdict = stage.explore({**actors, "another": HASH.flush}, within, setup=one_waits)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive


def test_a_read_sees_what_waits_in_the_open_and_in_the_sealed_batch(w: World) -> None:
    table(w.cache, w.db)
    for _ in range(3):
        write_back.add(w.cache, 1)
    assert write_back.read(w.cache, w.db.engine, 1) == BASE + 3
    w.cache.rename(write_back.OPEN, write_back.SEALED)
    write_back.add(w.cache, 1)
    write_back.add(w.cache, 2)
    assert write_back.read(w.cache, w.db.engine, 1) == BASE + 4
    assert write_back.read(w.cache, w.db.engine, 2) == 2 * BASE + 1
    assert write_back.read(w.cache, w.db.engine, 3) == 3 * BASE


def test_add_says_how_many_views_wait_so_that_a_batch_can_be_bounded(w: World) -> None:
    table(w.cache, w.db)
    assert [write_back.add(w.cache, article) for article in (1, 1, 2)] == [1, 2, 3]
    assert write_back.flush(w.cache, w.db.engine) == 2
    assert write_back.add(w.cache, 5) == 1


def test_a_flusher_that_comes_late_leaves_the_batch_of_another_alone(w: World) -> None:
    w.cache.hset(write_back.SEALED, mapping={"batch": "newer", "1": 1, "waiting": 1})
    assert w.cache.eval(write_back.DROP, 1, write_back.SEALED, "older") == 0
    assert w.cache.exists(write_back.SEALED)


def test_the_buffer_has_no_ttl(w: World) -> None:
    write_back.add(w.cache, 1)
    assert w.cache.ttl(write_back.OPEN) == -1


# The stream -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_flushers_of_a_stream_with_two_names_count_each_view_once() -> None:
    def named(name: str) -> Callable[..., Any]:
        return lambda cache, db: write_back_stream.flush(cache, db.engine, name, most=1)

    actors: dict[str, Any] = {"a": visitor(STREAM), "b": visitor(STREAM)}
    actors |= {"one": named("one"), "two": named("two")}
    actors |= {f"next {n}": (10 + n, named("one")) for n in range(2)}
    verdict = stage.explore(actors, each_view_once(("a", "b")), setup=table_and_log, limit=20_000)
    assert verdict.outcome == "passed", verdict


def test_a_flushed_stream_is_empty_and_nothing_of_it_is_pending(w: World) -> None:
    table_and_log(w.cache, w.db)
    for _ in range(5):
        STREAM.add(w.cache, 1)
    assert write_back_stream.flush(w.cache, w.db.engine, most=3) == 3
    assert w.cache.xlen(write_back_stream.LOG) == 2
    assert write_back_stream.flush(w.cache, w.db.engine) == 2
    assert w.cache.xlen(write_back_stream.LOG) == 0
    assert w.cache.xpending(write_back_stream.LOG, write_back_stream.GROUP)["pending"] == 0


def test_entries_that_were_given_and_not_acknowledged_are_one_batch_again(w: World) -> None:
    """Also when the next flusher would take fewer: another batch would have another id."""
    table_and_log(w.cache, w.db)
    for _ in range(4):
        STREAM.add(w.cache, 1)
    log, group = write_back_stream.LOG, write_back_stream.GROUP
    w.cache.xreadgroup(group, "flusher", {log: ">"}, count=4)
    assert write_back_stream.flush(w.cache, w.db.engine, most=1) == 4
    assert views(w) == BASE + 4


# What they are for ----------------------------------------------------------------------------


def careless(cache: Any, db: Any) -> None:
    """Read, write, delete: what comes first to mind."""
    sums = cache.hgetall(write_back.OPEN)
    with db.engine.begin() as connection:
        for article, more in sums.items():
            connection.execute(write_back.ADD, {"id": int(article), "more": int(more)})
    cache.delete(write_back.OPEN)


def counts(cache: Any, db: Any) -> int:
    return int(cache.hincrby(write_back.OPEN, "1", 1))


def test_a_careless_flush_loses_views_that_come_meanwhile() -> None:
    actors = {"a": counts, "flush": careless, "next": (10, careless)}
    verdict = stage.explore(
        actors, lambda world: views(world) == BASE + 2, setup=counts, commit_apart=False
    )
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 4, 2)


def test_a_flush_without_an_id_counts_a_batch_twice_when_it_dies_after_the_commit() -> None:
    actors = {"flush": careless, "next": (10, careless)}
    verdict = stage.explore(actors, lambda world: views(world) == BASE + 1, setup=counts, crashes=1)
    assert verdict.outcome == "failed"
    assert [e.what for e in verdict.counterexample if e.actor == "flush"][-2:] == [
        "COMMIT",
        "CRASH",
    ]
