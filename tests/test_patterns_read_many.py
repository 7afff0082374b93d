"""Reading many keys at once: our pattern, the lab's solution and dogpile.cache under one suite."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from dogpile.cache import make_region
from worlds import World, world

from cachelab import stage
from cachelab.cache.exact import ExactConnection
from cachelab.origin import Product
from cachelab.patterns import read_many

# dogpile.cache sends SETEX, of which redis-py thinks that it is old.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex")

ROOT = Path(__file__).resolve().parents[1]
Load = Callable[[list[int]], dict[int, Any]]
Read = Callable[[World, Iterable[int], Load], list[Any]]


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


def key_of(product_id: int) -> str:
    return f"product:v1:{product_id}"


def ours(w: World, ids: Iterable[int], load: Load) -> list[Any]:
    return read_many.read(w.cache, ids, key_of, load, 300)


def the_labs_solution(w: World, ids: Iterable[int], load: Load) -> list[Any]:
    notebook = json.loads((ROOT / "solutions" / "03_distributed.ipynb").read_text(encoding="utf-8"))
    (cell,) = [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["metadata"].get("exercise") == "03_distributed.read_many"
        and "def read_many" in "".join(cell["source"])
    ]
    space: dict[str, Any] = {"json": json}
    exec(cell, space)
    return space["read_many"](w.cache, load, ids)


def dogpiles(w: World, ids: Iterable[int], load: Load) -> list[Any]:
    """`get_or_create_multi`, told to store JSON with a TTL; it hands its own keys to the loader."""
    pool = w.server.connection_pool(decode_responses=False)
    region = make_region(
        serializer=lambda value: json.dumps(value).encode(), deserializer=json.loads
    ).configure(
        "dogpile.cache.redis",
        expiration_time=300,
        arguments={"connection_pool": pool, "redis_expiration_time": 300},
    )

    def create(*keys: str) -> list[Any]:
        wanted = [int(key.rpartition(":")[2]) for key in keys]
        loaded = load(wanted)
        return [loaded.get(one) for one in wanted]

    return list(region.get_or_create_multi([key_of(one) for one in ids], create))


every = pytest.mark.parametrize("read", [ours, the_labs_solution, dogpiles])
own = pytest.mark.parametrize("read", [ours, the_labs_solution])


class Loads:
    """A loader that asks one query, and remembers for what."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.asked: list[list[int]] = []

    def __call__(self, ids: list[int]) -> dict[int, Any]:
        self.asked.append(sorted(ids))
        return products(self.w.db, ids)


def products(db: Any, ids: list[int]) -> dict[int, Any]:
    asked = sa.select(Product.__table__).where(Product.id.in_(ids))
    with db.engine.connect() as connection:
        return {row.id: dict(row._mapping) for row in connection.execute(asked)}


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that a connection which is open already sends something."""
    sent: list[int] = []
    greet, send = ExactConnection.on_connect_check_health, ExactConnection.send_packed_command

    def greeted(self: Any, *args: Any, **options: Any) -> None:
        greet(self, *args, **options)
        self.is_open = True

    def counted(self: Any, command: Any, check_health: bool = True) -> None:
        if getattr(self, "is_open", False):
            sent.append(1)
        send(self, command, check_health)

    monkeypatch.setattr(ExactConnection, "on_connect_check_health", greeted)
    monkeypatch.setattr(ExactConnection, "send_packed_command", counted)
    return sent


# All three ------------------------------------------------------------------------------------


@every
def test_the_values_come_in_the_order_of_the_ids(w: World, read: Read) -> None:
    for ids in ([7, 3, 12], [12, 7, 3], [3, 5, 12, 1]):
        assert read(w, ids, Loads(w)) == [w.db.product(one) for one in ids]


@every
def test_only_what_is_missing_is_loaded_and_in_one_query(w: World, read: Read) -> None:
    load = Loads(w)
    read(w, [1, 2], load)
    read(w, [4, 2, 3, 1], load)
    read(w, [3, 1, 2, 4], load)
    assert load.asked == [[1, 2], [3, 4]]
    assert w.trace.queries == 2


@every
def test_an_id_that_comes_twice_is_loaded_once_and_given_twice(w: World, read: Read) -> None:
    load = Loads(w)
    first, second, third = read(w, [5, 2, 5], load)
    assert first == third == w.db.product(5)
    assert second == w.db.product(2)
    assert load.asked == [[2, 5]]


@every
def test_a_row_that_does_not_exist_is_none_and_remembered(w: World, read: Read) -> None:
    load = Loads(w)
    for _ in range(2):
        assert [row and row["id"] for row in read(w, [1, 999, 2], load)] == [1, None, 2]
    assert load.asked == [[1, 2, 999]]


@every
@pytest.mark.parametrize("many", [2, 15])
def test_a_cold_list_takes_two_trips_and_a_warm_one_a_single_trip(
    w: World, read: Read, many: int, trips: list[int]
) -> None:
    for expected in (2, 1):
        trips.clear()
        read(w, range(1, many + 1), Loads(w))
        assert len(trips) == expected


@every
def test_an_empty_list_takes_no_trip_and_no_load(w: World, read: Read, trips: list[int]) -> None:
    load = Loads(w)
    assert read(w, [], load) == []
    assert (trips, load.asked) == ([], [])


@every
def test_every_copy_has_its_ttl_in_the_trip_that_stores_it(w: World, read: Read) -> None:
    read(w, [1, 2, 999], Loads(w))
    with w.trace.off_the_record():
        assert all(0 < w.cache.ttl(key_of(one)) <= 300 for one in (1, 2, 999))


@every
def test_an_error_of_the_origin_is_the_callers_and_stores_nothing(w: World, read: Read) -> None:
    def load(_: list[int]) -> dict[int, Any]:
        raise RuntimeError("the origin is down")

    with pytest.raises(RuntimeError, match="the origin is down"):
        read(w, [1, 2], load)
    assert w.cache.exists(key_of(1), key_of(2)) == 0


# Ours, and the lab's --------------------------------------------------------------------------


@own
def test_absence_is_kept_briefly(w: World, read: Read) -> None:
    read(w, [1, 999], Loads(w))
    assert 0 < w.cache.ttl(key_of(999)) <= read_many.ABSENT_TTL < w.cache.ttl(key_of(1)) <= 300


@own
@pytest.mark.parametrize("value", [0, "", [], {}, False, "text", {"a": [None]}])
def test_every_json_value_is_a_hit_the_second_time(w: World, read: Read, value: Any) -> None:
    asked: list[list[int]] = []

    def load(ids: list[int]) -> dict[int, Any]:
        asked.append(list(ids))
        return dict.fromkeys(ids, value)

    for _ in range(2):
        assert read(w, [1, 2], load) == [value, value]
    assert asked == [[1, 2]]


# Ours alone -----------------------------------------------------------------------------------


def test_a_dead_cache_costs_one_load_and_no_error(w: World) -> None:
    w.server.kill()
    load = Loads(w)
    assert ours(w, [2, 1], load) == [w.db.product(2), w.db.product(1)]
    assert load.asked == [[1, 2]]


def test_a_cache_that_dies_between_the_read_and_the_fill_costs_no_error(w: World) -> None:
    def load(ids: list[int]) -> dict[int, Any]:
        w.server.kill()
        return dict.fromkeys(ids, "value")

    assert ours(w, [1, 2], load) == ["value", "value"]


def test_dogpile_raises_when_the_cache_is_down_which_ours_does_not(w: World) -> None:
    w.server.kill()
    with pytest.raises(redis.ConnectionError):
        dogpiles(w, [1, 2], Loads(w))


def test_ids_may_be_given_by_a_generator(w: World) -> None:
    assert ours(w, (one for one in (2, 1)), Loads(w)) == [w.db.product(2), w.db.product(1)]


def test_what_is_stored_is_json(w: World) -> None:
    ours(w, [1], Loads(w))
    assert json.loads(w.cache.get(key_of(1))) == w.db.product(1)


# What it does not promise ---------------------------------------------------------------------


def reader(cache: Any, db: Any) -> Any:
    return read_many.read(cache, [1, 2], key_of, lambda ids: products(db, ids), 300)


def test_two_who_miss_at_once_both_load() -> None:
    run = stage.run([reader, reader], latency=0.01)
    assert run.queries == 2


def test_a_fill_may_lose_the_race_against_a_delete() -> None:
    def writer(cache: Any, db: Any) -> None:
        db.update_product(1, name="new")
        cache.delete(key_of(1))

    def never_stale(world: stage.World) -> bool:
        kept = world.cache.get(key_of(1))
        return kept is None or json.loads(kept)["name"] == world.db.product(1)["name"]

    found = stage.explore({"reader": reader, "writer": writer}, never_stale, commit_apart=False)
    assert (found.outcome, found.orders, found.failing) == (
        "failed",
        15,
        1,
    )  # the fill, a pipeline without MULTI, is two steps
