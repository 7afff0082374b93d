"""Tags, stream consumer and outbox, ours and the lab's: after a change no old copy is served.

Tags and consumers are run as our pattern and as the lab's solution, in every order on the stage.
Of the libraries that we use, dogpile.cache can void what it holds, a whole region at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from test_exercises_contract import defined_in
from worlds import World, world

from cachelab import exercises, stage
from cachelab.patterns import outbox, stream_consumer, tags

KEY, LOG, GROUP = "user:v1:1", "users:log", "invalidation"
Load = Callable[[], Any]


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


def labs(name: str) -> Any:
    (exercise,) = [e for e in exercises.catalogue("09_invalidation") if e.id.endswith(name)]
    return defined_in("solutions", exercise)


class Counted:
    """A `load` that counts how often it was called."""

    def __init__(self, value: Any) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.value


# Tags ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tags:
    """One way to read with tags, and to void them."""

    read: Callable[[Any, str, list[str], Load], Any]
    forget: Callable[..., Any]


def ours() -> Tags:
    return Tags(
        lambda cache, key, names, load: tags.read(cache, key, load, lambda _: names, 300),
        tags.forget,
    )


def the_labs() -> Tags:
    read = labs(".tagged")
    return Tags(read, read.__globals__["forget"])


TAGS = {"ours": ours, "the lab's": the_labs}


@pytest.fixture(params=TAGS)
def tagged(request: pytest.FixtureRequest) -> Tags:
    return TAGS[request.param]()


@pytest.mark.parametrize("value", [0, "", [], {}, False, None, "text", {"a": [None]}])
def test_every_json_value_is_loaded_once_and_kept_300_s(w: World, tagged: Tags, value: Any) -> None:
    load = Counted(value)
    assert [tagged.read(w.cache, "k", ["user:1"], load) for _ in range(3)] == [value] * 3
    assert load.calls == 1
    assert 295 < w.cache.ttl("k") <= 300


def test_one_command_voids_every_copy_with_the_tag_and_no_other(w: World, tagged: Tags) -> None:
    loads = {f"page:{n}": Counted(n) for n in range(20)}

    def read_all() -> None:
        for number, (key, load) in enumerate(loads.items()):
            tagged.read(w.cache, key, [f"user:{number % 2}", "everybody"], load)

    read_all()
    w.trace.clear()
    tagged.forget(w.cache, "user:1")
    assert len(w.trace) == 1
    for _ in range(2):
        read_all()
    assert [load.calls for load in loads.values()] == [1, 2] * 10


def test_any_one_of_its_tags_voids_a_copy_and_none_is_needed(w: World, tagged: Tags) -> None:
    both, none = Counted("both"), Counted("none")
    for forgotten in ((), ("a",), ("b",), ("a", "b")):
        if forgotten:
            tagged.forget(w.cache, *forgotten)
        for _ in range(2):
            tagged.read(w.cache, "both", ["a", "b"], both)
            tagged.read(w.cache, "none", [], none)
    assert (both.calls, none.calls) == (4, 1)


def test_times_are_compared_as_numbers(w: World, tagged: Tags) -> None:
    load = Counted("x")
    for _ in range(12):
        tagged.read(w.cache, "k", ["user:1"], load)
        tagged.forget(w.cache, "user:1")
    tagged.read(w.cache, "k", ["user:1"], load)
    assert load.calls == 13


def actors_of(tagged: Tags) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    def reader(cache: Any, db: Any) -> Any:
        return tagged.read(cache, KEY, ["user:1"], lambda: db.user(1))

    def writer(cache: Any, db: Any) -> None:
        db.update_user(1, name="Alicia")
        tagged.forget(cache, "user:1")

    def true(world: stage.World) -> bool:
        return bool(reader(world.cache, world.db) == world.db.user(1))

    return reader, writer, true


def test_a_fill_that_began_before_the_write_is_void_in_every_order(tagged: Tags) -> None:
    reader, writer, true = actors_of(tagged)
    cold = stage.explore({"a": reader, "b": reader, "writer": writer}, true)
    warm = stage.explore({"a": reader, "one": writer, "two": writer}, true, setup=reader)
    assert (cold.outcome, warm.outcome) == ("passed", "passed")
    assert cold.exhaustive
    assert warm.exhaustive


def test_a_mark_that_is_evicted_voids_nothing_as_the_docstring_warns() -> None:
    reader, writer, true = actors_of(ours())

    def eviction(cache: Any, db: Any) -> None:
        cache.unlink("tag:user:1")

    actors = {"reader": reader, "writer": writer, "eviction": eviction}
    assert stage.explore(actors, true, setup=reader).outcome == "failed"


def test_marks_outlive_the_copies(w: World) -> None:
    tags.forget(w.cache, "user:1")
    assert w.cache.ttl("tag:user:1") >= tags.LONGEST - 5
    for ttl in (0, -1, tags.LONGEST + 1):
        with pytest.raises(ValueError, match="Marks are kept for 86400 s"):
            tags.read(w.cache, "k", lambda: 1, lambda _: [], ttl)


def test_tags_may_come_from_the_value(w: World) -> None:
    def thread() -> list[dict[str, Any]]:
        return [{"user": 1}, {"user": 2}, {"user": 1}]

    def of(value: list[dict[str, Any]]) -> Iterator[str]:
        return (f"user:{row['user']}" for row in value)

    tags.read(w.cache, "thread", thread, of, 60)
    assert json.loads(w.cache.get("thread"))["tags"] == ["user:1", "user:2"]
    tags.forget(w.cache, "user:2")
    load = Counted(thread())
    tags.read(w.cache, "thread", load, of, 60)
    assert load.calls == 1


def test_a_dead_cache_is_a_miss_for_readers_and_an_error_for_who_forgets(w: World) -> None:
    w.server.kill()
    load = Counted(7)
    assert tags.read(w.cache, "k", load, lambda _: ["user:1"], 300) == 7
    assert load.calls == 1
    with pytest.raises(redis.ConnectionError):
        tags.forget(w.cache, "user:1")


def test_a_cache_that_dies_during_the_load_costs_no_error(w: World) -> None:
    def load() -> int:
        w.server.kill()
        return 7

    assert tags.read(w.cache, "k", load, lambda _: ["user:1"], 300) == 7


def test_dogpiles_invalidate_reaches_the_region_of_its_own_process_only() -> None:
    shared: dict[str, Any] = {}
    one, two = (
        make_region().configure("dogpile.cache.memory", arguments={"cache_dict": shared})
        for _ in range(2)
    )
    one.set("user:v1:1", "Alice")
    one.invalidate()
    assert one.get("user:v1:1") is NO_VALUE
    assert two.get("user:v1:1") == "Alice"


# Stream consumer -----------------------------------------------------------------------------

Consume = Callable[[Any, str], int]


def our_consumer() -> Consume:
    def consume(cache: Any, name: str) -> int:
        def handle(event: dict[str, str]) -> None:
            cache.delete(f"user:v1:{event['user']}")

        return stream_consumer.consume(cache, LOG, GROUP, name, handle)

    return consume


CONSUMERS = {"ours": our_consumer, "the lab's": lambda: labs(".consume")}


@pytest.fixture(params=CONSUMERS)
def consume(request: pytest.FixtureRequest) -> Consume:
    return CONSUMERS[request.param]()


def two_events(cache: Any, db: Any) -> None:
    stream_consumer.create(cache, LOG, GROUP)
    stream_consumer.create(cache, LOG, GROUP)  # a second process does it too
    for user in (1, 2):
        stream_consumer.publish(cache, LOG, {"user": user})
        cache.set(f"user:v1:{user}", "{}")


def test_events_that_came_while_nobody_listened_are_handled_once(
    w: World, consume: Consume
) -> None:
    two_events(w.cache, w.db)
    assert [consume(w.cache, "one"), consume(w.cache, "another")] == [2, 0]
    assert w.cache.exists("user:v1:1", "user:v1:2") == 0
    assert w.cache.xpending(LOG, GROUP)["pending"] == 0


def test_what_the_dead_took_is_claimed_after_a_minute_and_not_before(consume: Consume) -> None:
    def dies(cache: Any, db: Any) -> None:
        cache.xreadgroup(GROUP, "dead", {LOG: ">"})

    def one(cache: Any, db: Any) -> int:
        return consume(cache, "one")

    run = stage.run({"dead": dies, "30 s": (30, one), "90 s": (90, one)}, setup=two_events)
    assert (run.answers["30 s"], run.answers["90 s"]) == (0, 2)


def test_with_a_death_at_every_step_every_event_is_handled_in_the_end(consume: Consume) -> None:
    def as_(name: str) -> Callable[..., int]:
        return lambda cache, db: consume(cache, name)

    def done(world: stage.World) -> bool:
        pending = world.cache.xpending(LOG, GROUP)["pending"]
        return not pending and not world.cache.exists("user:v1:1", "user:v1:2")

    actors = {"one": as_("1"), "two": as_("2"), "later": (100, as_("3")), "last": (200, as_("4"))}
    found = stage.explore(actors, done, setup=two_events, crashes=1)
    assert (found.outcome, found.exhaustive) == ("passed", True)


def test_an_event_whose_handling_fails_stays_and_those_before_it_are_done(w: World) -> None:
    two_events(w.cache, w.db)
    seen = []

    def handle(event: dict[str, str]) -> None:
        if event["user"] == "2":
            raise redis.TimeoutError("no answer")
        seen.append(event["user"])

    with pytest.raises(redis.TimeoutError):
        stream_consumer.consume(w.cache, LOG, GROUP, "one", handle)
    assert (seen, w.cache.xpending(LOG, GROUP)["pending"]) == (["1"], 1)
    done = stream_consumer.consume(w.cache, LOG, GROUP, "two", lambda _: None, claim_after=0)
    assert (done, w.cache.xpending(LOG, GROUP)["pending"]) == (1, 0)


def test_create_raises_what_is_not_about_a_group_that_is_there(w: World) -> None:
    w.cache.set(LOG, "a text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        stream_consumer.create(w.cache, LOG, GROUP)


# Outbox --------------------------------------------------------------------------------------

RENAME = sa.text("UPDATE users SET name = 'Alicia', version = version + 1 WHERE id = 1")


def read(cache: Any, db: Any) -> Any:
    return tags.read(cache, KEY, lambda: db.user(1), lambda _: ["user:1"], 300)


def prepare(cache: Any, db: Any) -> None:
    outbox.create(db.engine)
    outbox.create(db.engine)  # a second process does it too
    stream_consumer.create(cache, LOG, GROUP)
    read(cache, db)


def relays(cache: Any, db: Any) -> int:
    return outbox.relay(db.engine, lambda event: stream_consumer.publish(cache, LOG, event))


def consumes(cache: Any, db: Any) -> int:
    def handle(event: dict[str, str]) -> None:
        tags.forget(cache, f"user:{event['user']}")

    return stream_consumer.consume(cache, LOG, GROUP, "one", handle)


def with_outbox(cache: Any, db: Any) -> None:
    with db.engine.begin() as connection:
        connection.execute(RENAME)
        outbox.note(connection, user=1)


def without_outbox(cache: Any, db: Any) -> None:
    with db.engine.begin() as connection:
        connection.execute(RENAME)
    stream_consumer.publish(cache, LOG, {"user": 1})


def nothing_old(world: stage.World) -> bool:
    return bool(read(world.cache, world.db) == world.db.user(1))


LATER: dict[str, Any] = {
    "relay later": (50, relays),
    "relay again": (80, relays),
    "consumer later": (100, consumes),
    "consumer again": (200, consumes),
}


def told(writer: Callable[..., Any], **more: Any) -> stage.Exploration:
    """One writer among others, every order, a death at every step, and recovery after that."""
    actors = {"writer": writer, **more, **LATER}
    return stage.explore(actors, nothing_old, setup=prepare, crashes=1, limit=20_000)


def test_with_an_outbox_no_committed_update_is_left_untold_whoever_dies_wherever() -> None:
    found = told(with_outbox, relay=relays, reader=read, consumer=consumes)
    assert (found.outcome, found.exhaustive) == ("passed", True)
    assert found.schedules > 50


def test_two_writers_and_two_relays_lose_nothing_either() -> None:
    actors = {"one": with_outbox, "two": with_outbox, "relay": relays}
    found = stage.explore({**actors, **LATER}, nothing_old, setup=prepare, crashes=1, limit=5_000)
    assert found.outcome == "passed"


def test_without_an_outbox_a_death_between_commit_and_publish_leaves_an_old_copy() -> None:
    found = told(without_outbox, reader=read, consumer=consumes)
    assert found.outcome == "failed"
    steps = [event.what for event in found.counterexample or () if event.actor == "writer"]
    assert steps == ["UPDATE", "COMMIT", "CRASH"]


def waiting(w: World) -> list[Any]:
    with w.db.engine.connect() as connection:
        return list(connection.execute(sa.select(outbox.OUTBOX.c.event)).scalars())


def test_an_event_is_there_exactly_if_its_change_is(w: World) -> None:
    outbox.create(w.db.engine)
    with w.db.engine.connect() as connection:
        connection.execute(RENAME)
        outbox.note(connection, user=1)
        connection.rollback()
    assert (waiting(w), w.db.user(1)["name"]) == ([], "Alice")
    with_outbox(w.cache, w.db)
    assert (waiting(w), w.db.user(1)["name"]) == ([{"user": 1}], "Alicia")


def test_events_go_out_oldest_first_and_stay_until_they_are_out(w: World) -> None:
    outbox.create(w.db.engine)
    with w.db.engine.begin() as connection:
        for user in range(1, 6):
            outbox.note(connection, user=user)
    out: list[int] = []

    def publish(event: dict[str, Any]) -> None:
        if event["user"] == 4:
            raise redis.ConnectionError("the log is down")
        out.append(event["user"])

    assert outbox.relay(w.db.engine, publish, most=2) == 2
    with pytest.raises(redis.ConnectionError):
        outbox.relay(w.db.engine, publish)
    assert out == [1, 2, 3]
    assert waiting(w) == [{"user": 4}, {"user": 5}]


def test_a_slow_relay_does_not_delete_an_event_that_came_later(w: World) -> None:
    """Ids are not used again, or the late DELETE of an old event would take a new one with it."""
    outbox.create(w.db.engine)
    with_outbox(w.cache, w.db)
    out: list[dict[str, Any]] = []

    def slowly(event: dict[str, Any]) -> None:
        assert outbox.relay(w.db.engine, out.append) == 1  # a quicker one comes in between
        with w.db.engine.begin() as connection:
            outbox.note(connection, user=2)

    outbox.relay(w.db.engine, slowly)
    assert waiting(w) == [{"user": 2}]


def test_a_tagged_copy_may_live_one_second_or_a_day(w: World) -> None:
    for ttl in (1, tags.LONGEST):
        assert tags.read(w.cache, f"k{ttl}", lambda: 7, lambda _: [], ttl) == 7
