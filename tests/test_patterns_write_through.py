"""Write-through in one suite: our pattern, the lab's solutions, and dogpile.cache's `region.set`.

What is promised in every order is explored on the stage; what they do alone is tried on fakeredis.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import pytest
import redis
import sqlalchemy as sa
from dogpile.cache import make_region
from worlds import World, world

from cachelab import stage
from cachelab.patterns import write_through

KEY = "user:v1:1"
NEW = "new@example.org"
LAB = Path(__file__).resolve().parents[1] / "content" / "labs" / "06_write_through.py"


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


@cache
def solution(name: str) -> Callable[..., Any]:
    """A function as the lab's solution defines it."""
    found: dict[str, Any] = {}
    for cell in jupytext.read(LAB).cells:
        if cell.cell_type == "code" and (
            "exercise" in cell.metadata or cell.source.startswith("import")
        ):
            exec(cell.source.replace("lab = cachelab.start()", ""), found)
    return found[name]


# The implementations ---------------------------------------------------------------------------


def pattern_write(cache, db, email):
    def save():
        db.update_user(1, email=email)
        return db.user(1)

    return write_through.write(cache, KEY, save, 300)


def pattern_read(cache, db):
    return write_through.read(cache, KEY, lambda: db.user(1), 300)


def aside_read(cache, db):
    stored = cache.get(KEY)
    if stored is not None:
        return json.loads(stored)
    user = db.user(1)
    cache.set(KEY, json.dumps(user), ex=300, nx=True)
    return user


@dataclass(frozen=True)
class WriteThrough:
    """One way to do it: a writer `(cache, db, email)` and a reader `(cache, db)`."""

    write: Callable[..., Any]
    read: Callable[..., Any]


def of_the_lab(name: str) -> Callable[..., Any]:
    return lambda cache, db, email: solution(name)(cache, db, 1, email)


PATTERN = WriteThrough(pattern_write, pattern_read)
BOTH = WriteThrough(of_the_lab("change_email"), aside_read)
TWO_WRITERS = WriteThrough(of_the_lab("save_email"), aside_read)


def with_dogpile(w: World) -> WriteThrough:
    """dogpile's Redis backend on the world's own server, storing JSON."""
    pool = w.server.connection_pool(decode_responses=False)
    region = make_region(
        serializer=lambda value: json.dumps(value).encode(), deserializer=json.loads
    ).configure(
        "dogpile.cache.redis",
        expiration_time=300,
        arguments={"connection_pool": pool, "redis_expiration_time": 300},
    )

    def write(cache, db, email):
        db.update_user(1, email=email)
        region.set(KEY, db.user(1))

    return WriteThrough(write, lambda cache, db: region.get_or_create(KEY, lambda: db.user(1)))


@pytest.fixture(params=["pattern", "lab: both", "lab: two writers", "dogpile"])
def any_of_them(request: pytest.FixtureRequest, w: World) -> WriteThrough:
    made = {"pattern": PATTERN, "lab: both": BOTH, "lab: two writers": TWO_WRITERS}
    return made.get(request.param) or with_dogpile(w)


# What all of them do ---------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [True, False])
def test_the_read_after_a_write_asks_no_query_and_gets_the_new_row(
    any_of_them: WriteThrough, w: World, warm: bool
) -> None:
    if warm:
        any_of_them.read(w.cache, w.db)
    any_of_them.write(w.cache, w.db, NEW)
    asked = w.db.queries
    got = any_of_them.read(w.cache, w.db)
    assert w.db.queries == asked
    assert got == w.db.user(1)
    assert got["email"] == NEW


def test_what_a_writer_stores_ends_with_its_ttl(any_of_them: WriteThrough, w: World) -> None:
    any_of_them.write(w.cache, w.db, NEW)
    w.server.age(299)
    assert w.cache.exists(KEY)
    w.server.age(2)
    assert not w.cache.exists(KEY)


def test_a_refused_update_is_the_callers_to_see_and_leaves_the_cache_as_it_was(
    any_of_them: WriteThrough, w: World
) -> None:
    any_of_them.read(w.cache, w.db)
    before = w.cache.get(KEY)

    @sa.event.listens_for(w.db.engine, "before_cursor_execute")
    def refuse(_, __, statement, *___):
        if statement.startswith("UPDATE"):
            raise RuntimeError("the origin refuses")

    with pytest.raises(RuntimeError, match="the origin refuses"):
        any_of_them.write(w.cache, w.db, NEW)
    assert w.cache.get(KEY) == before


# The second write fails ------------------------------------------------------------------------


def test_a_committed_write_does_not_fail_because_the_cache_is_down(w: World) -> None:
    w.server.kill()
    assert pattern_write(w.cache, w.db, NEW)["email"] == NEW
    assert w.db.user(1)["email"] == NEW
    assert solution("change_price")(w.cache, w.db, 1, 999) == "stale"
    assert w.db.product(1)["price_cents"] == 999


def test_a_library_leaves_the_failed_second_write_to_the_caller(w: World) -> None:
    dogpile = with_dogpile(w)
    dogpile.read(w.cache, w.db)
    w.server.kill()
    with pytest.raises(redis.ConnectionError):
        dogpile.write(w.cache, w.db, NEW)
    assert w.db.user(1)["email"] == NEW


def short_outage(write: Callable[..., Any], read: Callable[..., Any]) -> stage.StageTrace:
    """One cache command fails, the writer's first; the readers come at 0 s and 20 s."""
    cast = {"writer": (10, write), "before": read, "after": (20, read)}
    return stage.run(cast, hop=0.01, faults=[stage.CacheDown(9.995, 10.015)])


def test_when_the_store_fails_the_old_copy_is_deleted() -> None:
    def write(cache, db):
        return pattern_write(cache, db, NEW)

    run = short_outage(write, pattern_read)
    assert run.answers["writer"]["email"] == run.answers["after"]["email"] == NEW
    assert [e.what for e in run if e.actor == "writer"][-2:] == ["EVAL", "DEL"]
    assert run.errors == 1
    assert run.stale == []


def test_the_labs_solution_too_deletes_when_the_store_fails() -> None:
    change_price = solution("change_price")

    def read(cache, db):
        stored = cache.get("product:v1:1")
        if stored is None:
            stored = json.dumps(db.product(1))
            cache.set("product:v1:1", stored, ex=60)
        return json.loads(stored)["price_cents"]

    run = short_outage(lambda cache, db: change_price(cache, db, 1, 999), read)
    assert (run.answers["writer"], run.answers["after"]) == ("deleted", 999)


@pytest.mark.parametrize("poison", ["not JSON", '"a text"', "{}"])
def test_a_copy_that_the_script_cannot_read_is_deleted(w: World, poison: str) -> None:
    w.cache.set(KEY, poison, ex=300)
    assert pattern_write(w.cache, w.db, NEW)["email"] == NEW
    assert w.cache.get(KEY) is None
    assert pattern_read(w.cache, w.db)["email"] == NEW


@pytest.mark.parametrize("odd", [{"email": NEW}, {"version": {1, 2}}, None])
def test_a_row_that_cannot_be_stored_is_deleted_and_returned_all_the_same(
    w: World, odd: Any
) -> None:
    pattern_read(w.cache, w.db)
    assert write_through.write(w.cache, KEY, lambda: odd, 300) == odd
    assert w.cache.get(KEY) is None


# Several at once --------------------------------------------------------------------------------


def newest(world):
    """The cache has the row of the database."""
    kept = world.cache.get(KEY)
    return kept is not None and json.loads(kept) == world.db.user(1)


def writers(way: WriteThrough) -> dict[str, Any]:
    def of(email):
        return lambda cache, db: way.write(cache, db, email) or "done"

    return {"first": of("first@example.org"), "second": of("second@example.org")}


@pytest.mark.parametrize("way", [PATTERN, TWO_WRITERS], ids=["pattern", "lab"])
def test_of_two_writers_and_a_reader_the_newest_row_stays_in_every_order(way: WriteThrough) -> None:
    alone, three = writers(way), {**writers(way), "reader": way.read}
    for cast, commit_apart in ((alone, False), (alone, True), (three, False)):
        verdict = stage.explore(cast, newest, commit_apart=commit_apart)
        assert verdict.outcome == "passed", verdict
        assert verdict.exhaustive


def test_a_plain_set_leaves_the_older_row_in_two_orders_of_twenty() -> None:
    verdict = stage.explore(writers(BOTH), newest, commit_apart=False)
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 20, 2)


def test_a_writer_that_dies_after_its_commit_leaves_the_old_copy() -> None:
    cast = {"reader": pattern_read, "writer": writers(PATTERN)["first"]}
    verdict = stage.explore(cast, newest, setup=pattern_read, crashes=1, commit_apart=False)
    assert verdict.outcome == "failed"
    steps = [e.what for e in verdict.counterexample if e.actor == "writer"]
    assert steps[-1] == "CRASH"
    assert "EVAL" not in steps


def test_an_eviction_in_the_middle_of_a_fill_lets_the_old_row_in() -> None:
    def fresh_or_gone(world):
        return world.cache.get(KEY) is None or newest(world)

    def eviction(cache, db):
        cache.unlink(KEY)

    cast = {"reader": pattern_read, "writer": writers(PATTERN)["first"], "eviction": eviction}
    verdict = stage.explore(cast, fresh_or_gone, commit_apart=False)
    assert (verdict.outcome, verdict.failing) == ("failed", 1)
