"""Read-through: one suite of behaviours for our pattern, the lab's solutions, and dogpile.cache."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from dogpile.cache import make_region

from cachelab import stage
from cachelab.cache import server
from cachelab.cache.client import Cache
from cachelab.origin import Product
from cachelab.patterns import cache_aside, read_through
from cachelab.patterns.read_through import Entity, ReadThrough
from cachelab.patterns.single_flight import SingleFlight
from cachelab.record.trace import Trace

ROOT = Path(__file__).resolve().parents[1]
TTL, ABSENT_TTL = 300, 7


class Loader:
    """Gives the things that exist; remembers for which ids it was asked."""

    def __init__(self, things: dict[Any, Any]) -> None:
        self.things = things
        self.asked: list[list[Any]] = []

    def __call__(self, ids: list[Any]) -> dict[Any, Any]:
        self.asked.append(list(ids))
        return {id: self.things[id] for id in reversed(list(ids)) if id in self.things}


@dataclass
class World:
    """A cache, its server, and what was done to it."""

    server: Any
    cache: Cache
    trace: Trace


@pytest.fixture
def w() -> World:
    fake, trace = server.fake(), Trace()
    cache = Cache(connection_pool=fake.connection_pool(), trace=trace, keyspace=fake.keyspace)
    return World(fake, cache, trace)


# Three ways to do it -------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One implementation. `make(world, load)` gives (read, read_many) of the entity "thing".

    What it does not promise, as it is today: `broken` and `dead` are what it raises where our
    pattern has a miss; `absent_ttl` how many seconds it keeps absence.
    """

    name: str
    make: Callable[[World, Any], tuple[Callable[[Any], Any], Callable[[Any], Any]]]
    broken: type[Exception] | None = None
    dead: type[Exception] | None = None
    absent_ttl: int = ABSENT_TTL


def ours(w: World, load: Any) -> Any:
    layer = ReadThrough(w.cache, {"thing": Entity(load, TTL, ABSENT_TTL)})
    return lambda id: layer.read("thing", id), lambda ids: layer.read_many("thing", ids)


@lru_cache
def solution(exercise: str) -> Any:
    """What solutions/08_read_through.ipynb defines in the cell of this exercise."""
    book = json.loads((ROOT / "solutions" / "08_read_through.ipynb").read_text(encoding="utf-8"))
    namespace: dict[str, Any] = {"json": json, "suppress": suppress}
    for cell in book["cells"]:
        if cell["metadata"].get("exercise") == f"08_read_through.{exercise}":
            before = set(namespace)
            exec("".join(cell["source"]), namespace)
            return next(
                namespace[name] for name in namespace if name not in before | {"__builtins__"}
            )
    raise LookupError(exercise)


def labs(w: World, load: Any) -> Any:
    register = {"thing": Entity(load, TTL, ABSENT_TTL)}
    one, many = solution("registry"), solution("batch")
    return (
        lambda id: one(w.cache, register, "thing", id),
        lambda ids: many(w.cache, register, "thing", ids),
    )


# dogpile's own setex is deprecated in redis-py, which is between the two of them.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


def dogpiles(w: World, load: Any) -> Any:
    pool = w.server.connection_pool(decode_responses=False)
    region = make_region(
        serializer=lambda value: json.dumps(value).encode(), deserializer=json.loads
    ).configure(
        "dogpile.cache.redis",
        expiration_time=TTL,
        arguments={"connection_pool": pool, "redis_expiration_time": TTL},
    )

    def one(id: Any) -> Any:
        return region.get_or_create(f"thing:v1:{id}", lambda: load([id]).get(id))

    def many(ids: Any) -> dict[Any, Any]:
        keys = {f"thing:v1:{id}": id for id in ids}

        def create(*missing: str) -> list[Any]:
            rows = load([keys[key] for key in missing])
            return [rows.get(keys[key]) for key in missing]

        return dict(zip(keys.values(), region.get_or_create_multi(list(keys), create), strict=True))

    return one, many


WAYS = [
    Way("ours", ours),
    Way("the lab's", labs, dead=redis.ConnectionError),  # which it was not asked for
    Way("dogpile", dogpiles, json.JSONDecodeError, redis.ConnectionError, TTL),
]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


# What holds for every one, or is said to be otherwise ----------------------------------------


@every_way
def test_a_miss_loads_once_and_keeps_for_the_ttl_and_a_hit_does_not_load(
    way: Way, w: World
) -> None:
    load = Loader({1: {"name": "lamp"}})
    read, _ = way.make(w, load)
    assert [read(1) for _ in range(3)] == [{"name": "lamp"}] * 3
    assert load.asked == [[1]]
    assert TTL - 60 < w.cache.ttl("thing:v1:1") <= TTL


@every_way
@pytest.mark.parametrize("value", [0, "", [], {}, False, "text", 1.5, {"a": [None]}])
def test_every_json_value_is_loaded_once(way: Way, w: World, value: Any) -> None:
    load = Loader({1: value})
    read, _ = way.make(w, load)
    assert [read(1) for _ in range(3)] == [value] * 3
    assert len(load.asked) == 1


@every_way
def test_absence_is_loaded_once_and_kept_for_its_own_time(way: Way, w: World) -> None:
    load = Loader({})
    read, _ = way.make(w, load)
    assert [read(9) for _ in range(3)] == [None] * 3
    assert len(load.asked) == 1
    assert way.absent_ttl - 5 < w.cache.ttl("thing:v1:9") <= way.absent_ttl


@every_way
@pytest.mark.parametrize("error", [TimeoutError("too slow"), ValueError("no such column")])
def test_an_error_of_the_loader_is_the_callers_and_is_not_stored(
    way: Way, w: World, error: Exception
) -> None:
    def fails(ids: list[Any]) -> dict[Any, Any]:
        raise error

    read, read_many = way.make(w, fails)
    for call, asked in ((read, 1), (read_many, [1, 2])):
        with pytest.raises(type(error), match=str(error)):
            call(asked)
    assert w.cache.keys() == []


@every_way
def test_a_copy_that_is_no_json_is_a_miss(way: Way, w: World) -> None:
    load = Loader({1: "lamp", 2: "chair"})
    read, read_many = way.make(w, load)
    read(2)
    for call, asked in ((read, 1), (read_many, [1, 2])):
        w.cache.set("thing:v1:1", '{"name": "la', ex=TTL)
        if way.broken is not None:
            with pytest.raises(way.broken):
                call(asked)
            continue
        assert call(asked) == ("lamp" if asked == 1 else {1: "lamp", 2: "chair"})
        assert json.loads(w.cache.get("thing:v1:1")) == "lamp"
        asked_so_far = len(load.asked)
        call(asked)
        assert len(load.asked) == asked_so_far


@every_way
def test_a_dead_cache_is_a_miss(way: Way, w: World) -> None:
    load = Loader({1: "lamp"})
    read, read_many = way.make(w, load)
    w.server.kill()
    for call, asked, right in ((read, 1, "lamp"), (read_many, [1, 9], {1: "lamp", 9: None})):
        if way.dead is not None:
            with pytest.raises(way.dead):
                call(asked)
            continue
        assert call(asked) == right
    assert load.asked == ([] if way.dead else [[1], [1, 9]])


@every_way
def test_a_batch_loads_in_one_call_exactly_what_is_missing(way: Way, w: World) -> None:
    load = Loader({1: "lamp", 2: "chair", 3: "desk"})
    read, read_many = way.make(w, load)
    assert read(2) == "chair"
    assert read_many([3, 1, 2, 9]) == {3: "desk", 1: "lamp", 2: "chair", 9: None}
    assert [sorted(ids) for ids in load.asked] == [[2], [1, 3, 9]]
    assert read_many([9, 1]) == {9: None, 1: "lamp"}
    assert len(load.asked) == 2
    assert TTL - 60 < w.cache.ttl("thing:v1:3") <= TTL


@every_way
def test_for_no_ids_nothing_is_loaded(way: Way, w: World) -> None:
    load = Loader({1: "lamp"})
    _, read_many = way.make(w, load)
    assert read_many([]) == {}
    assert load.asked == []


@every_way
def test_after_a_delete_the_next_read_loads(way: Way, w: World) -> None:
    load = Loader({1: "lamp"})
    read, _ = way.make(w, load)
    read(1)
    load.things[1] = "chair"
    assert read(1) == "lamp"
    cache_aside.forget(w.cache, "thing:v1:1")
    assert read(1) == "chair"


def test_dogpile_guards_threads_by_itself_where_ours_is_given_a_guard(w: World) -> None:
    inside = threading.Event()

    class Slow(Loader):
        def __call__(self, ids: list[Any]) -> dict[Any, Any]:
            inside.wait(5)
            return super().__call__(ids)

    def burst(read: Callable[[Any], Any]) -> None:
        threads = [threading.Thread(target=read, args=(1,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        inside.set()
        for thread in threads:
            thread.join(20)

    load = Slow({1: "lamp"})
    burst(dogpiles(w, load)[0])
    assert load.asked == [[1]]
    inside.clear()
    w.cache.delete("thing:v1:1")
    load.asked.clear()
    layer = ReadThrough(w.cache, {"thing": Entity(load, TTL)}, SingleFlight().do)
    burst(lambda id: layer.read("thing", id))
    assert load.asked == [[1]]


# Ours and the lab's, on the stage -------------------------------------------------------------


def products(db: Any, version: int = 1) -> dict[str, Entity]:
    def load(ids: list[int]) -> dict[int, Any]:
        asked = sa.select(Product.__table__).where(Product.id.in_(ids))
        with db.engine.connect() as connection:
            return {row.id: dict(row._mapping) for row in connection.execute(asked)}

    return {"product": Entity(load, 600, version=version)}


@pytest.mark.parametrize("who", ["ours", "the lab's"])
@pytest.mark.parametrize(("present", "trips"), [(0, 3), (19, 3), (20, 1)])
def test_twenty_things_are_one_look_one_query_and_one_fill(
    who: str, present: int, trips: int
) -> None:
    def page(cache: Any, db: Any) -> Any:
        if who == "ours":
            return ReadThrough(cache, products(db)).read_many("product", range(1, 21))
        return solution("batch")(cache, products(db), "product", range(1, 21))

    def warm(cache: Any, db: Any) -> None:
        ReadThrough(cache, products(db)).read_many("product", range(1, present + 1))

    run = stage.run([page], hop=1.0, latency=1.0, setup=warm)
    assert run.elapsed == trips
    assert run.queries == (trips == 3)
    assert (run.hits, run.fills) == (present, 20 - present)
    assert run.answers["page"] == {id: run.world.db.product(id) for id in range(1, 21)}


@pytest.mark.parametrize("who", ["ours", "the lab's"])
def test_for_no_ids_nothing_is_sent(who: str) -> None:
    def page(cache: Any, db: Any) -> Any:
        if who == "ours":
            return ReadThrough(cache, products(db)).read_many("product", [])
        return solution("batch")(cache, products(db), "product", [])

    run = stage.run([page], hop=1.0, latency=1.0)
    assert (run.answers["page"], run.elapsed) == ({}, 0)


@pytest.mark.parametrize("who", ["ours", "the lab's"])
def test_800_readers_behind_one_guard_cost_one_query_and_all_are_right(who: str) -> None:
    flight = SingleFlight()

    def reader(cache: Any, db: Any) -> Any:
        if who == "ours":
            return ReadThrough(cache, products(db), flight.do).read("product", 1)
        return solution("guard")(cache, db, flight, 1)

    run = stage.run(stage.threads([reader] * 800), latency=0.01, capacity=1)
    assert (run.queries, run.fills, run.elapsed) == (1, 1, 0.01)
    assert list(run.answers.values()) == [run.world.db.product(1)] * 800


def test_without_a_guard_800_readers_cost_800_queries() -> None:
    def reader(cache: Any, db: Any) -> Any:
        return ReadThrough(cache, products(db)).read("product", 1)

    assert stage.run([reader] * 800, latency=0.01, capacity=1).queries == 800


def test_two_batches_that_overlap_are_two_flights_and_everybody_gets_their_own() -> None:
    flight = SingleFlight()

    def reader(ids: list[int]) -> Callable[[Any, Any], Any]:
        return lambda cache, db: ReadThrough(cache, products(db), flight.do).read_many(
            "product", ids
        )

    run = stage.run(stage.threads([reader([1]), reader([1, 2])] * 50), latency=0.01)
    assert run.queries == 2
    assert [len(answer) for answer in run.answers.values()] == [1, 2] * 50


def test_in_every_order_two_readers_behind_one_guard_ask_once() -> None:
    def actors() -> list[stage.Actor]:
        flight = SingleFlight()

        def reader(cache: Any, db: Any) -> Any:
            return ReadThrough(cache, products(db), flight.do).read("product", 1)

        onlooker = stage.Actor("onlooker", lambda cache, db: cache.exists("product:v1:1"))
        return [*stage.threads({"a": reader, "b": reader}), onlooker]

    found = stage.explore(actors, lambda world: world.trace.queries == 1)
    assert found.outcome == "passed", found


def test_what_is_not_promised_an_old_fill_follows_the_delete_in_one_order_of_ten() -> None:
    def reader(cache: Any, db: Any) -> Any:
        return ReadThrough(cache, products(db)).read("product", 1)

    def writer(cache: Any, db: Any) -> None:
        db.update_product(1, stock=0)
        cache_aside.forget(cache, ReadThrough(cache, products(db)).key("product", 1))

    def not_old(world: stage.World) -> bool:
        kept = world.cache.get("product:v1:1")
        return kept is None or json.loads(kept) == world.db.product(1)

    found = stage.explore({"reader": reader, "writer": writer}, not_old, commit_apart=False)
    assert (found.failing, found.orders) == (1, 10)


# Ours alone ----------------------------------------------------------------------------------


def test_a_new_version_neither_reads_nor_changes_the_old_copies(w: World) -> None:
    load = Loader({1: "lamp"})
    ReadThrough(w.cache, {"thing": Entity(load, TTL)}).read("thing", 1)
    load.things[1] = "a lamp of another shape"
    newer = ReadThrough(w.cache, {"thing": Entity(load, TTL, version=2)})
    assert newer.read("thing", 1) == "a lamp of another shape"
    assert json.loads(w.cache.get("thing:v1:1")) == "lamp"


def test_an_unknown_name_is_a_key_error_and_nothing_is_asked(w: World) -> None:
    layer = ReadThrough(w.cache, {"thing": Entity(Loader({}), TTL)})
    with pytest.raises(KeyError, match="thign"):
        layer.read("thign", 1)
    assert len(w.trace) == 0


def test_an_id_and_its_text_are_the_same_thing_as_they_are_the_same_key(w: World) -> None:
    class Typed(Loader):
        def __call__(self, ids: list[Any]) -> dict[Any, Any]:
            return super().__call__([int(id) for id in ids])  # as a database column does

    layer = ReadThrough(w.cache, {"thing": Entity(Typed({1: "lamp"}), TTL)})
    assert layer.read("thing", "1") == "lamp"
    assert layer.read("thing", 1) == "lamp"
    assert layer.read_many("thing", [1, "1"]) == {1: "lamp", "1": "lamp"}


def test_whoever_joins_a_flight_under_the_text_of_an_id_gets_the_answer_too() -> None:
    flight = SingleFlight()

    def reader(id: Any) -> Callable[[Any, Any], Any]:
        return lambda cache, db: ReadThrough(cache, products(db), flight.do).read("product", id)

    run = stage.run(stage.threads([reader(1), reader("1")]), latency=0.01)
    assert list(run.answers.values()) == [run.world.db.product(1)] * 2
    assert run.queries == 1


def test_one_broken_copy_in_a_batch_is_said_and_costs_one_load_of_the_batch(
    w: World, caplog: pytest.LogCaptureFixture
) -> None:
    load = Loader({1: "lamp", 2: "chair"})
    _, read_many = ours(w, load)
    w.cache.set("thing:v1:1", '{"name": "la', ex=TTL)
    w.cache.set("thing:v1:2", '"chair"', ex=TTL)
    assert [read_many([1, 2]) for _ in range(2)] == [{1: "lamp", 2: "chair"}] * 2
    assert load.asked == [[1, 2]]
    assert "thing:v1:1" in caplog.text


def test_bytes_that_are_no_text_are_a_miss(w: World) -> None:
    with w.server.client(decode_responses=False) as raw:
        raw.set("thing:v1:1", b"\x80\x04\xff")
    layer = ReadThrough(w.cache, {"thing": Entity(Loader({1: "lamp"}), TTL)})
    assert [layer.read("thing", 1) for _ in range(2)] == ["lamp"] * 2
    assert json.loads(w.cache.get("thing:v1:1")) == "lamp"


def test_a_cache_that_dies_between_the_look_and_the_fill_costs_no_error(w: World) -> None:
    class Kills(Loader):
        def __call__(self, ids: list[Any]) -> dict[Any, Any]:
            w.server.kill()
            return super().__call__(ids)

    layer = ReadThrough(w.cache, {"thing": Entity(Kills({1: "lamp"}), TTL)})
    assert layer.read("thing", 1) == "lamp"


def test_the_pattern_fits_on_one_screen() -> None:
    assert len(inspect.getsource(read_through).splitlines()) <= 65
