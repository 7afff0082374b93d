"""The patterns against stale data: right in every order, and each with the half in which it fails.

Versioned set and lease are explored on the stage; what they do alone is tried on fakeredis.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worlds import World, world

from cachelab import stage
from cachelab.patterns import cache_aside, lease, versioned_set

KEY = "user:v1:1"
NEW = "new@example.org"


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


def never_stale(world):
    """No reader can be served an old row once everybody has finished."""
    kept = world.cache.get(KEY)
    return kept is None or json.loads(kept)["email"] == world.db.user(1)["email"]


def aside_reader(cache, db):
    return cache_aside.read(cache, KEY, lambda: db.user(1), 300)


def aside_writer(cache, db):
    db.update_user(1, email=NEW)
    cache_aside.forget(cache, KEY)


def versioned_reader(cache, db):
    return versioned_set.read(cache, KEY, lambda: db.user(1), 300)


def versioned_writer(email):
    def write(cache, db):
        db.update_user(1, email=email)
        return versioned_set.put(cache, KEY, db.user(1), 300)

    return write


def leasing_reader(cache, db):
    return lease.read(cache, KEY, lambda: db.user(1), 300)


def leasing_writer(email=NEW):
    def write(cache, db):
        db.update_user(1, email=email)
        lease.forget(cache, KEY)

    return write


def evict(cache, db):
    cache.unlink(KEY)


# Cache-aside: what the two are for ------------------------------------------------------------


def test_cache_aside_leaves_the_cache_stale_in_one_order_of_ten():
    actors = {"reader": aside_reader, "writer": aside_writer}
    verdict = stage.explore(actors, never_stale, commit_apart=False)
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 10, 1)


def test_two_write_through_writers_leave_it_stale_in_two_orders_of_six():
    def writer(email):
        def write(cache, db):
            db.update_user(1, email=email)
            cache.set(KEY, json.dumps({"email": email}), ex=300)

        return write

    actors = {"first": writer("first@example.org"), "second": writer("second@example.org")}
    verdict = stage.explore(actors, never_stale, commit_apart=False)
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 6, 2)


# Versioned set --------------------------------------------------------------------------------


@pytest.mark.parametrize("commit_apart", [False, True])
def test_a_versioned_set_is_right_in_every_order_of_two_readers_and_a_writer(commit_apart):
    actors = {
        "a reader": versioned_reader,
        "another": versioned_reader,
        "writer": versioned_writer(NEW),
    }
    verdict = stage.explore(actors, never_stale, commit_apart=commit_apart)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive


def test_a_versioned_set_is_right_in_every_order_of_two_writers_and_a_reader():
    actors = {
        "reader": versioned_reader,
        "first": versioned_writer("first@example.org"),
        "second": versioned_writer("second@example.org"),
    }
    verdict = stage.explore(actors, never_stale)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive


def test_a_versioned_read_of_a_row_that_is_not_there_stores_nothing(w: World) -> None:
    assert versioned_set.read(w.cache, KEY, lambda: w.db.user(999_999), 300) is None
    assert not w.cache.exists(KEY)


def test_a_versioned_set_fails_when_the_writer_deletes_instead():
    actors = {"reader": versioned_reader, "writer": aside_writer}
    verdict = stage.explore(actors, never_stale, commit_apart=False)
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 10, 1)


def test_a_versioned_set_fails_when_the_newer_copy_is_evicted_during_a_fill():
    actors = {"reader": versioned_reader, "writer": versioned_writer(NEW), "eviction": evict}
    verdict = stage.explore(actors, never_stale)
    assert verdict.outcome == "failed"
    assert verdict.counterexample.events[-1].actor == "reader"


def test_of_two_versions_the_newer_stays_whoever_comes_last(w: World) -> None:
    ninth, tenth = ({"version": number, "email": f"{number}@example.org"} for number in (9, 10))
    assert versioned_set.put(w.cache, KEY, ninth, 300)
    assert versioned_set.put(w.cache, KEY, tenth, 300)
    assert not versioned_set.put(w.cache, KEY, ninth, 300)
    assert not versioned_set.put(w.cache, KEY, tenth, 300)
    assert json.loads(w.cache.get(KEY)) == tenth
    assert 0 < w.cache.ttl(KEY) <= 300


# Lease ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit_apart", [False, True])
def test_a_lease_is_right_in_every_order_of_two_readers_and_a_writer(commit_apart):
    actors = {"a reader": leasing_reader, "another": leasing_reader, "writer": leasing_writer()}
    verdict = stage.explore(actors, never_stale, commit_apart=commit_apart)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive


def test_a_lease_is_right_in_every_order_also_when_the_copy_is_evicted():
    actors = {"reader": leasing_reader, "writer": leasing_writer(), "eviction": evict}
    verdict = stage.explore(actors, never_stale)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive


def test_a_lease_fails_when_the_writer_dies_between_commit_and_delete():
    def warm(cache, db):
        leasing_reader(cache, db)

    actors = {"reader": leasing_reader, "writer": leasing_writer()}
    assert stage.explore(actors, never_stale, setup=warm).outcome == "passed"
    verdict = stage.explore(actors, never_stale, setup=warm, crashes=1)
    assert verdict.outcome == "failed"
    assert [e.what for e in verdict.counterexample if e.actor == "writer"][-1] == "CRASH"


def test_a_lease_fails_when_it_is_taken_after_the_query():
    def late(cache, db):
        stored = cache.get(KEY)
        if stored is None:
            row = db.user(1)
            lease.read(cache, KEY, lambda: row, 300)

    verdict = stage.explore({"reader": late, "writer": leasing_writer()}, never_stale)
    assert verdict.outcome == "failed"


def test_who_has_no_lease_answers_and_does_not_fill(w: World) -> None:
    w.cache.set(f"lease:{KEY}", "somebody else's", ex=10)
    assert lease.read(w.cache, KEY, lambda: w.db.user(1), 300) == w.db.user(1)
    assert w.cache.get(KEY) is None
    assert w.cache.get(f"lease:{KEY}") == "somebody else's"


def test_a_fill_gives_the_lease_back_and_a_hit_takes_none(w: World) -> None:
    for _ in range(2):
        assert lease.read(w.cache, KEY, lambda: w.db.user(1), 300) == w.db.user(1)
        assert w.cache.get(f"lease:{KEY}") is None
    assert w.trace.queries == 1 + 2  # the miss, and two by this test
    assert 0 < w.cache.ttl(KEY) <= 300


def test_a_reader_that_died_keeps_others_from_filling_only_until_its_lease_ends(w: World) -> None:
    def dies() -> Any:
        raise RuntimeError("the process ends here")

    with pytest.raises(RuntimeError):
        lease.read(w.cache, KEY, dies, 300)
    assert 0 < w.cache.ttl(f"lease:{KEY}") <= lease.LEASE_TTL


# Both -----------------------------------------------------------------------------------------

BOTH = [
    pytest.param(module.read, id=module.__name__.rpartition(".")[2])
    for module in (versioned_set, lease)
]


@pytest.mark.parametrize("read", BOTH)
def test_a_dead_cache_costs_one_query_and_no_error(read: Any, w: World) -> None:
    w.server.kill()
    asked = w.trace.queries
    assert read(w.cache, KEY, lambda: w.db.user(1), 300)["name"] == "Alice"
    assert w.trace.queries == asked + 1
    lease.forget(w.cache, KEY)
    assert versioned_set.put(w.cache, KEY, {"version": 1}, 300) is False


@pytest.mark.parametrize("read", BOTH)
def test_an_error_of_the_origin_is_the_callers_to_see(read: Any, w: World) -> None:
    def load() -> Any:
        raise RuntimeError("the origin is down")

    with pytest.raises(RuntimeError, match="the origin is down"):
        read(w.cache, KEY, load, 300)
    assert w.trace.fills == 0
