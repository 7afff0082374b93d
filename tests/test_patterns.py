"""The reference patterns, in every case that their docstrings promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worlds import World, world

from cachelab.patterns import cache_aside


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


def test_a_miss_loads_and_fills_and_a_hit_does_neither(w: World) -> None:
    for _ in range(3):
        assert cache_aside.read(w.cache, "k", lambda: w.db.user(1), 300) == w.db.user(1)
    assert (w.trace.misses, w.trace.fills, w.trace.hits) == (1, 1, 2)
    assert 0 < w.cache.ttl("k") <= 300


@pytest.mark.parametrize("value", [0, "", [], {}, False, None, "text", 1.5, {"a": [None]}])
def test_every_json_value_is_loaded_once(w: World, value: Any) -> None:
    calls: list[int] = []

    def load() -> Any:
        calls.append(1)
        return value

    assert [cache_aside.read(w.cache, "k", load, 300) for _ in range(3)] == [value] * 3
    assert len(calls) == 1


def test_absence_is_kept_briefly(w: World) -> None:
    assert cache_aside.read(w.cache, "k", lambda: w.db.user(999), 300) is None
    assert 0 < w.cache.ttl("k") <= cache_aside.ABSENT_TTL


def test_a_dead_cache_costs_one_load_and_no_error(w: World) -> None:
    w.server.kill()
    assert cache_aside.read(w.cache, "k", lambda: w.db.user(1), 300) == w.db.user(1)
    assert w.trace.queries == 2  # one by read, one by this test
    cache_aside.forget(w.cache, "k")


def test_a_cache_that_dies_between_the_read_and_the_fill_costs_no_error(w: World) -> None:
    def load() -> Any:
        w.server.kill()
        return 7

    assert cache_aside.read(w.cache, "k", load, 300) == 7


def test_an_error_of_the_origin_is_the_callers_to_see(w: World) -> None:
    def load() -> Any:
        raise RuntimeError("the origin is down")

    with pytest.raises(RuntimeError, match="the origin is down"):
        cache_aside.read(w.cache, "k", load, 300)
    assert w.trace.fills == 0


def test_forget_deletes_all_keys_in_one_command(w: World) -> None:
    w.cache.mset({"a": 1, "b": 2})
    cache_aside.forget(w.cache, "a", "b")
    assert w.cache.exists("a", "b") == 0
    assert w.trace.count("delete") == 1


def test_what_is_stored_is_json(w: World) -> None:
    cache_aside.read(w.cache, "k", lambda: {"name": "Zoe", "tags": []}, 300)
    assert json.loads(w.cache.get("k")) == {"name": "Zoe", "tags": []}
