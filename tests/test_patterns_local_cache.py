"""Caches in the process: ours, the lab's and the libraries', under one set of behaviours."""

from __future__ import annotations

import ast
import functools
import gc
import json
import random
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cachetools
import pytest

from cachelab import stage
from cachelab.models import eviction
from cachelab.patterns.local_cache import LocalCache

ROOT = Path(__file__).resolve().parents[1]
Get = Callable[[Any], Any]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Origin:
    """Gives another value at each load of a key, and keeps the keys that were asked for."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.asked, self.takes, self.down = clock, [], 0.0, False

    def load(self, key: Any) -> Any:
        self.asked.append(key)
        self.clock.now += self.takes
        if self.down:
            raise ConnectionError("the origin is down")
        return f"{key}, load {self.asked.count(key)}"


def solution(name: str) -> Any:
    """A function as the lab's solution defines it."""
    notebook = json.loads((ROOT / "solutions" / "02_in_memory.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["metadata"].get("exercise") == f"02_in_memory.{name}":
            text = "".join(cell["source"])
            space: dict[str, Any] = {"OrderedDict": OrderedDict, "time": time}
            exec(compile(text, f"02_in_memory.{name}", "exec"), space)
            (function,) = [one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef)]
            return space[function.name]
    raise AssertionError(f"the solutions have no exercise {name}")


def ours(load: Get, room: int, ttl: float, clock: Clock) -> Get:
    cache = LocalCache(room, ttl, clock)
    return lambda key: cache.get(key, lambda: load(key))


def labs_ttl(load: Get, room: int, ttl: float, clock: Clock) -> Get:
    made: Get = solution("ttl")(load, ttl, clock)
    return made


def labs_lru(load: Get, room: int, ttl: float, clock: Clock) -> Get:
    made: Get = solution("lru")(load, room)
    return made


def librarys(load: Get, room: int, ttl: float, clock: Clock) -> Get:
    made: Get = cachetools.cached(
        cachetools.TTLCache(room, ttl, timer=clock), condition=threading.Condition()
    )(load)
    return made


def pythons(load: Get, room: int, ttl: float, clock: Clock) -> Get:
    return functools.lru_cache(maxsize=room)(load)


every = pytest.mark.parametrize("make", [ours, labs_ttl, labs_lru, librarys, pythons])
with_ttl = pytest.mark.parametrize("make", [ours, labs_ttl, librarys])
bounded = pytest.mark.parametrize("make", [ours, labs_lru, librarys, pythons])
for_threads = pytest.mark.parametrize("make", [ours, librarys])


# All of them -----------------------------------------------------------------------------------


@every
def test_a_key_is_loaded_once_and_each_key_by_itself(make: Any) -> None:
    origin = Origin(Clock())
    get = make(origin.load, 10, 60, origin.clock)
    assert [get(key) for key in "abab"] == ["a, load 1", "b, load 1"] * 2
    assert origin.asked == ["a", "b"]


@every
@pytest.mark.parametrize("value", [None, 0, "", False, ()])
def test_every_value_is_a_value(make: Any, value: Any) -> None:
    calls: list[Any] = []

    def load(key: Any) -> Any:
        calls.append(key)
        return value

    get = make(load, 10, 60, Clock())
    assert [get("a") for _ in range(3)] == [value] * 3
    assert len(calls) == 1


@every
def test_an_error_is_the_callers_and_is_not_remembered(make: Any) -> None:
    origin = Origin(Clock())
    get = make(origin.load, 10, 60, origin.clock)
    origin.down = True
    with pytest.raises(ConnectionError, match="the origin is down"):
        get("a")
    origin.down = False
    assert get("a") == get("a") == "a, load 2"


# A TTL -----------------------------------------------------------------------------------------


@with_ttl
def test_a_value_ends_with_its_ttl_on_the_clock_that_was_passed_in(make: Any) -> None:
    origin = Origin(Clock())
    get = make(origin.load, 10, 60, origin.clock)
    seen = {}
    for origin.clock.now in (0.0, 30.0, 59.9, 60.0, 119.9, 120.0):
        seen[origin.clock.now] = get("a")
    loads = [int(value[-1]) for value in seen.values()]
    assert loads == [1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("make", [ours, labs_ttl])
def test_age_counts_from_the_start_of_the_load(make: Any) -> None:
    origin = Origin(Clock())
    get = make(origin.load, 10, 60, origin.clock)
    origin.takes = 50.0
    get("a")
    origin.clock.now = 59.0
    assert get("a") == "a, load 1"
    origin.clock.now = 61.0
    assert get("a") == "a, load 2"


def test_a_librarys_ttl_counts_from_the_end_of_the_load() -> None:
    origin = Origin(Clock())
    get = librarys(origin.load, 10, 60, origin.clock)
    origin.takes = 50.0
    get("a")
    origin.clock.now = 109.0
    assert get("a") == "a, load 1"  # 109 s after the origin was asked


def test_a_ttl_or_room_that_makes_no_sense_is_refused_in_one_sentence() -> None:
    for room, ttl in ((0, 60), (10, 0), (10, float("nan"))):
        with pytest.raises(ValueError, match="maxsize is 1 or more and ttl above 0 s"):
            LocalCache(room, ttl)


# Bounded ---------------------------------------------------------------------------------------


@bounded
def test_the_least_recently_used_goes(make: Any) -> None:
    origin = Origin(Clock())
    get = make(origin.load, 3, 60, origin.clock)
    for key in "abcad":  # b goes
        get(key)
    assert [get(key)[-1] for key in "acdb"] == ["1", "1", "1", "2"]


@bounded
def test_its_hits_are_those_of_the_eviction_model_to_the_last_one(make: Any) -> None:
    asked = eviction.zipf_requests(500, 0.8, 5_000, seed=2)
    origin = Origin(Clock())
    get = make(origin.load, 25, 60, origin.clock)
    for key in asked.tolist():
        get(key)
    model = eviction.simulate("lru", asked, 25, warm_up=0)
    assert len(asked) - len(origin.asked) == model.hits


@bounded
def test_what_has_gone_is_held_no_more(make: Any) -> None:
    class Page:
        pass

    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def load(key: Any) -> Any:
        page = Page()
        alive.add(page)
        return page

    get = make(load, 10, 60, Clock())
    for number in range(500):
        get(number)
    gc.collect()
    assert len(alive) == 10


@bounded
def test_a_failed_load_costs_nobody_their_place(make: Any) -> None:
    origin = Origin(Clock())
    get = make(origin.load, 3, 60, origin.clock)
    for key in "abc":
        get(key)
    origin.down = True
    with pytest.raises(ConnectionError):
        get("x")
    assert [get(key)[-1] for key in "abc"] == ["1", "1", "1"]


# Threads ---------------------------------------------------------------------------------------


def crowd(get: Callable[[Any, Any], Any], readers: int = 200, **options: Any) -> stage.StageTrace:
    return stage.run(stage.threads([get] * readers), latency=0.05, **options)


@for_threads
def test_of_all_threads_that_miss_a_key_one_loads_it(make: Any) -> None:
    shop: dict[str, Any] = {}
    get = make(lambda key: shop["db"].flag(key), 10, 60, Clock())

    def reader(cache: Any, db: Any) -> Any:
        shop["db"] = db
        return get("new_checkout")

    run = crowd(reader)
    assert (run.queries, set(run.answers.values())) == (1, {False})
    assert run.elapsed == pytest.approx(0.05)


@pytest.mark.parametrize("guard", ["nothing", "lock"])
def test_a_lock_around_the_dictionary_lets_all_of_them_load(guard: str) -> None:
    """Chapter 02 says so of cachetools; lru_cache is the same."""
    shop: dict[str, Any] = {}
    guards = {} if guard == "nothing" else {"lock": threading.Lock()}
    read = cachetools.cached(cachetools.TTLCache(10, 60, timer=Clock()), **guards)(
        lambda key: shop["db"].flag(key)
    )

    def reader(cache: Any, db: Any) -> Any:
        shop["db"] = db
        return read("new_checkout")

    assert crowd(reader).queries == 200


@for_threads
def test_when_a_load_fails_its_caller_sees_it_and_the_next_one_tries(make: Any) -> None:
    calls: list[int] = []

    def load(key: Any) -> Any:
        calls.append(1)
        time.sleep(1)
        if len(calls) == 1:
            raise ConnectionError("the answer was lost")
        return "right"

    get = make(load, 10, 60, Clock())
    run = stage.run(stage.threads([lambda cache, db: get("a")] * 5))
    got = Counter(type(answer).__name__ for answer in run.answers.values())
    assert got == {"str": 4, "ConnectionError": 1}
    assert len(calls) == 2


@for_threads
def test_two_keys_do_not_wait_for_each_other(make: Any) -> None:
    def load(key: Any) -> Any:
        time.sleep(1)
        return key

    get = make(load, 10, 60, Clock())
    run = stage.run(stage.threads([lambda cache, db: get("a"), lambda cache, db: get("b")]))
    assert run.elapsed == pytest.approx(1)


@for_threads
def test_real_threads_at_random_get_right_values_and_leave_it_whole(make: Any) -> None:
    clock = Clock()
    get = make(lambda key: ("value of", key), 5, 3, clock)
    wrong: list[Any] = []

    def read(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(300):
            key = draw.randrange(12)
            if get(key) != ("value of", key):
                wrong.append(key)
            if draw.random() < 0.1:
                clock.now += 1

    threads = [threading.Thread(target=read, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


# Forgetting ------------------------------------------------------------------------------------


def test_what_is_forgotten_is_loaded_again_and_nothing_else_is() -> None:
    cache, origin = LocalCache(10, 60, Clock()), Origin(Clock())
    for key in "ab":
        cache.get(key, lambda key=key: origin.load(key))
    cache.forget("a")
    cache.forget("never heard of")
    assert cache.get("a", lambda: origin.load("a")) == "a, load 2"
    assert cache.get("b", lambda: origin.load("b")) == "b, load 1"


def listening_pod(memory: Any) -> Any:
    """A pod that drops what it is told to drop, in a thread, and reads once meanwhile."""

    def pod(cache: Any, db: Any) -> Any:
        turn = threading.Lock()
        news = cache.pubsub(ignore_subscribe_messages=True)
        news.subscribe("flags")

        def listen() -> None:
            for message in news.listen():
                with turn:
                    kept.forget(message["data"])

        def load() -> Any:
            value = db.flag("new_checkout")
            with turn:  # a lock shows the explorer that what stands on either side has an order
                return value

        kept = memory()
        threading.Thread(target=listen, daemon=True).start()
        kept.get("new_checkout", load)
        return kept

    return pod


def flip(cache: Any, db: Any) -> None:
    db.set_flag("new_checkout", True)
    cache.publish("flags", "new_checkout")


def keeps_nothing_old(world: stage.World) -> str | bool:
    got = world.answers["pod"].get("new_checkout", lambda: True)
    return got is True or "after the message the pod serves the old value."


def test_what_is_forgotten_while_it_is_loaded_is_not_kept_in_any_order() -> None:
    pod = listening_pod(lambda: LocalCache(10, 60))
    found = stage.explore({"pod": pod, "admin": flip}, keeps_nothing_old)
    assert found.outcome == "passed", found
    assert found.schedules > 3


def test_a_cache_that_only_drops_what_it_has_keeps_an_old_value_in_some_orders() -> None:
    class Naive(LocalCache):
        def forget(self, key: Any) -> None:
            with self._changed:
                self._kept.pop(key, None)

    found = stage.explore(
        {"pod": listening_pod(lambda: Naive(10, 60)), "admin": flip}, keeps_nothing_old
    )
    assert found.outcome == "failed"
    assert "serves the old value" in found.summary


def test_whoever_waits_or_asks_after_a_forget_does_not_get_the_old_load() -> None:
    cache = LocalCache(10, 600)

    def ask(at_origin: str) -> Callable[..., Any]:
        def load() -> str:
            time.sleep(10)
            return at_origin

        return lambda cache_, db: (cache.get("a", load), db.trace.clock())

    cast = {
        "before": (0.0, ask("old")),
        "waits": (1.0, ask("new")),
        "writer": (2.0, lambda: cache.forget("a")),
        "after": (3.0, ask("new")),
        "late": (20.0, ask("newer")),
    }
    run = stage.run(stage.threads(cast))
    got = {name: answer for name, answer in run.answers.items() if answer}
    assert got == {
        "before": ("old", 10.0),
        "waits": ("new", 12.0),  # it leads from 2 s on, when the old load was given up
        "after": ("new", 12.0),
        "late": ("new", 20.0),
    }
