"""The defences against a stampede, on the stage: what each protects, and where it fails."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from actors import by_process

from cachelab import stage
from cachelab.lab import traffic
from cachelab.models import early_refresh as early_model
from cachelab.models import jitter as jitter_model
from cachelab.patterns import (
    cache_aside,
    early_refresh,
    jitter,
    single_flight,
    stale_while_revalidate,
    token_lock,
)

KEY = "product:v1:1"


def naive(cache: Any, db: Any) -> Any:
    return cache_aside.read(cache, KEY, lambda: db.product(1), 300)


def articles_lock(cache: Any, db: Any) -> Any:
    """One fills under a lock of 5 s without an owner; the others nap 100 ms and help themselves."""
    if (stored := cache.get(KEY)) is not None:
        return json.loads(stored)
    if cache.set("lock:" + KEY, "1", nx=True, ex=5):
        try:
            value = db.product(1)
            cache.set(KEY, json.dumps(value), ex=300)
            return value
        finally:
            cache.delete("lock:" + KEY)
    time.sleep(0.1)
    stored = cache.get(KEY)
    return db.product(1) if stored is None else json.loads(stored)


def locked(cache: Any, db: Any, **options: Any) -> Any:
    return token_lock.read(cache, KEY, lambda: db.product(1), 300, **options)


def right(run: stage.StageTrace) -> int:
    """How many got what the database has."""
    truth = run.world.db.product(1)
    return sum(answer == truth for answer in run.answers.values())


# jitter --------------------------------------------------------------------------------------


def test_jitter_flattens_the_expiry_of_keys_filled_together() -> None:
    draw = random.Random(1).random
    lives = Counter(jitter.ttl(3600, 0.15, draw) for _ in range(10_000))
    expected = jitter_model.expected_peak(10_000, 540)
    assert max(lives.values()) == pytest.approx(expected, rel=0.25)
    assert 30 < expected < 37


@pytest.mark.parametrize("seconds", [1, 2, 6, 7, 60, 3600])
@pytest.mark.parametrize("drawn", [0.0, 0.5, 1 - 2**-53])
def test_jitter_is_taken_off_so_that_no_answer_is_older_than_promised(
    seconds: int, drawn: float
) -> None:
    found = jitter.ttl(seconds, 0.15, lambda: drawn)
    assert type(found) is int
    assert max(1, int(0.85 * seconds)) <= found <= seconds


def test_jitter_that_is_added_breaks_the_promise() -> None:
    draw = random.Random(1).random
    assert max(3600 + int(3600 * 0.15 * draw()) for _ in range(1_000)) > 4100
    assert jitter_model.ttl_range(3600, 540, "additive").longest == 4140
    assert jitter_model.ttl_range(3600, 540, "subtractive").longest == 3600


@pytest.mark.slow
def test_jitter_does_nothing_for_one_hot_key() -> None:
    def jittered(cache: Any, db: Any) -> Any:
        return cache_aside.read(cache, KEY, lambda: db.product(1), jitter.ttl(300))

    runs = [stage.run([reader] * 800, latency=0.01, capacity=1) for reader in (naive, jittered)]
    assert [run.queries for run in runs] == [800, 800]
    assert runs[1].elapsed == pytest.approx(8.0)


# The article's lock ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "calls"), [(0.05, 1), (0.09, 1), (0.11, 40), (0.2, 400), (0.25, 600), (1.0, 800)]
)
@pytest.mark.slow
def test_the_articles_lock_protects_only_a_query_faster_than_its_nap(
    query: float, calls: int
) -> None:
    run = stage.run([articles_lock] * 800, latency=query, spread=0.2)
    assert run.queries == pytest.approx(calls, rel=0.01)


def entries(read: Any) -> dict[str, Any]:
    """A at 0 s, B at 6 s, an update that deletes the key at 8.5 s, C at 9 s; a query of 8 s."""
    forget = (8.5, lambda cache, db: cache.delete(KEY))
    return {"A": (0, read), "B": (6, read), "update": forget, "C": (9, read)}


def at_once(run: stage.StageTrace) -> int:
    """The largest number of queries under way at the same time."""
    spans = [(event.at - event.took, event.at) for event in run.of("query")]
    return max(sum(a <= start < b for a, b in spans) for start, _ in spans)


def test_the_articles_lock_expires_during_the_query_and_lets_a_second_reader_in() -> None:
    run = stage.run(entries(articles_lock), latency=8)
    assert (run.queries, at_once(run)) == (3, 2)


def test_the_articles_lock_is_released_by_somebody_who_does_not_own_it() -> None:
    run = stage.run(entries(articles_lock), latency=8)
    lock = [(e.actor, e.what) for e in run if e.on == "lock:" + KEY]
    # B has held it since 6 s; A deletes it at 8 s; C gets in at 9 s, and B is still loading.
    assert lock[:4] == [("A", "SET"), ("B", "SET"), ("A", "DEL"), ("C", "SET")]


# Token lock ------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [0.05, 0.25, 1.0, 8.0])
def test_a_token_lock_sends_one_query_however_slow_it_is(query: float) -> None:
    run = stage.run([locked] * 100, latency=query, spread=0.2)
    assert (run.queries, right(run)) == (1, 100)
    assert run.elapsed < query + 0.5


def test_a_token_lock_held_long_enough_lets_nobody_else_in() -> None:
    run = stage.run(entries(locked), latency=8)
    assert (run.queries, at_once(run), right(run)) == (2, 1, 3)


def test_no_order_of_two_readers_loads_twice_under_a_token_lock() -> None:
    def once(world: stage.World) -> str | None:
        return None if world.trace.queries == 1 else "loaded twice"

    assert stage.explore([locked, locked], once).outcome == "passed"


def test_a_reader_over_its_budget_is_told_so_and_does_not_ask_the_origin() -> None:
    run = stage.run([locked] * 50, latency=11)
    kinds = Counter(type(answer).__name__ for answer in run.answers.values())
    assert kinds == {"dict": 1, "Busy": 49}
    assert run.queries == 1
    waits = [e.at for e in run if e.kind == "sleep"]
    assert max(waits) == pytest.approx(10, abs=0.01)


def test_an_owner_who_held_too_short_may_not_store_and_nobody_ever_fills() -> None:
    run = stage.run([lambda cache, db: locked(cache, db, hold=5)] * 20, latency=8)
    assert run.queries == 2
    assert run.world.cache.get(KEY) is None


def test_an_owner_who_lost_the_lock_does_not_overwrite_what_is_newer() -> None:
    def short(cache: Any, db: Any) -> Any:
        return locked(cache, db, hold=5)

    def update(cache: Any, db: Any) -> None:
        with db.trace.off_the_record():
            cache.set(KEY, json.dumps("newer"))
            cache.delete("lock:" + KEY)

    run = stage.run({"A": short, "update": (7, update)}, latency=8)
    assert json.loads(run.world.cache.get(KEY)) == "newer"


def test_a_load_that_fails_frees_the_lock_and_the_next_reader_tries() -> None:
    failures = [RuntimeError("first"), None]

    def sometimes(cache: Any, db: Any) -> Any:
        def load() -> Any:
            value, error = db.product(1), failures.pop(0)
            if error:
                raise error
            return value

        return token_lock.read(cache, KEY, load, 300)

    run = stage.run(stage.threads({"a": sometimes, "b": (0.5, sometimes)}), latency=1)
    assert isinstance(run.answers["a"], RuntimeError)
    assert right(run) == 1
    assert run.world.cache.exists("lock:" + KEY) == 0


def test_the_lock_of_a_reader_that_died_ends_by_itself() -> None:
    run = stage.run(
        {"dies": lambda c, d: locked(c, d, hold=3), "next": (1, locked)},
        latency=1,
        crash=("dies", 4),
    )
    assert run.of("crash")
    assert run.answers["next"] == run.world.db.product(1)
    assert 3 < run.elapsed < 5


# Single-flight ---------------------------------------------------------------------------------


def process() -> Any:
    flight = single_flight.SingleFlight()
    return lambda cache, db: flight.do(KEY, lambda: naive(cache, db))


def test_single_flight_asks_once_for_all_threads_of_a_process() -> None:
    run = stage.run(stage.threads([process()] * 800), latency=0.25)
    assert (run.queries, run.misses, right(run)) == (1, 1, 800)


def test_single_flight_ends_at_the_process_and_four_ask_four_times() -> None:
    processes = [process() for _ in range(4)]
    assert stage.run(by_process(processes * 200), latency=0.25).queries == 4


def test_single_flight_and_a_token_lock_together_ask_once_from_four_processes() -> None:
    def guarded() -> Any:
        flight = single_flight.SingleFlight()
        return lambda cache, db: flight.do(KEY, lambda: locked(cache, db))

    run = stage.run(by_process([guarded() for _ in range(4)] * 200), latency=0.25)
    assert (run.queries, right(run)) == (1, 800)
    assert run.count("sleep") < 40  # one of each process waits, not 799 readers


def test_single_flight_shares_the_error_too() -> None:
    def unlucky(cache: Any, db: Any) -> Any:
        def load() -> Any:
            db.product(1)
            raise TimeoutError("lost")

        return single_flight.do(KEY, load)

    run = stage.run(stage.threads([unlucky] * 800), latency=0.25)
    assert run.queries == 1
    assert {str(answer) for answer in run.answers.values()} == {"lost"}


def test_after_a_flight_the_next_one_starts_anew_whether_it_ended_well_or_not() -> None:
    flight, calls = single_flight.SingleFlight(), []

    def call() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError
        return len(calls)

    with pytest.raises(ValueError):  # noqa: PT011 - ours
        flight.do("k", call)
    assert [flight.do("k", call), flight.do("k", call)] == [2, 3]


def test_a_leader_that_is_stopped_leaves_no_follower_waiting() -> None:
    flight, started = single_flight.SingleFlight(), threading.Event()
    got: list[BaseException] = []

    def stopped() -> None:
        started.set()
        time.sleep(0.2)
        raise SystemExit

    def run(call: Any) -> None:
        try:
            flight.do("k", call)
        except BaseException as error:
            got.append(error)

    threads = [threading.Thread(target=run, args=(stopped,)) for _ in range(3)]
    threads[0].start()
    assert started.wait(5)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert sorted(type(error).__name__ for error in got) == ["RuntimeError"] * 2 + ["SystemExit"]


def test_keys_fly_apart() -> None:
    flight = single_flight.SingleFlight()

    def reader(number: int) -> Any:
        return lambda cache, db: flight.do(f"k{number}", lambda: db.product(number))

    run = stage.run([reader(number) for number in (1, 2, 3)], latency=1)
    assert (run.queries, run.elapsed) == (3, 1)


# Stale-while-revalidate ------------------------------------------------------------------------


def swr(cache: Any, db: Any) -> Any:
    began = time.monotonic()
    value = stale_while_revalidate.read(cache, KEY, lambda: db.product(1), 60, 600)
    return value["price_cents"], time.monotonic() - began


def test_in_the_window_everybody_is_served_at_once_and_one_renews() -> None:
    def sale(cache: Any, db: Any) -> None:
        db.update_product(1, price_cents=1)

    readers: dict[str, Any] = {f"reader {n}": (61.0, swr) for n in range(100)}
    run = stage.run(
        {"sale": (30.0, sale), **readers, "later": (70.0, swr)}, latency=0.25, setup=swr
    )
    assert run.queries == 1
    old = {run.answers[name] for name in readers}
    assert len(old) == 1
    assert old.pop()[1] == 0
    assert run.answers["later"] == (1, 0)
    assert len(run.stale) == 100  # which is what it costs


@pytest.mark.parametrize("start", [0, 700])
@pytest.mark.slow
def test_a_cold_key_or_one_past_its_window_is_not_protected_by_swr(start: int) -> None:
    setup = swr if start else None
    run = stage.run([(start, swr)] * 800, latency=0.25, setup=setup)
    assert run.queries == 800
    assert all(waited == 0.25 for _, waited in run.answers.values())


def test_swr_permits_an_answer_as_old_as_ttl_and_window_together() -> None:
    run = stage.run({"late": (659.9, swr)}, setup=swr)
    (hit,) = run.of("hit")
    assert hit.age == pytest.approx(659.9)


def test_a_renewal_that_fails_leaves_the_copy_and_the_next_reader_tries_later() -> None:
    def broken(cache: Any, db: Any) -> Any:
        def load() -> Any:
            db.product(1)
            raise RuntimeError("no")

        return stale_while_revalidate.read(cache, KEY, load, 60, 600)["id"]

    run = stage.run([(61, broken), (62, broken), (95, broken)], latency=0.25, setup=swr)
    assert list(run.answers.values()) == [1, 1, 1]
    assert run.queries == 2


# Early refresh ---------------------------------------------------------------------------------


def early(alone: bool, beta: float = 1.0) -> Any:
    def read(cache: Any, db: Any) -> Any:
        return early_refresh.read(cache, KEY, lambda: db.product(1), 1, alone=alone, beta=beta)

    return read


def warm(cache: Any, db: Any) -> None:
    cache.set(KEY, json.dumps({"value": db.product(1), "took": 0.1}), ex=1)


def hot(alone: bool, beta: float = 1.0) -> tuple[int, int, int]:
    """Misses, queries and rounds of renewal of a key read 300 times a second for 20 s."""
    arrivals = traffic.poisson(300, 20, seed=3)
    actors = [(at, early(alone, beta)) for at in arrivals]
    run = stage.run(actors, latency=0.1, setup=warm)
    starts = [event.at - event.took for event in run.of("query")]
    rounds = 1 + sum(later - sooner > 0.1 for sooner, later in pairwise(starts))
    return run.misses, run.queries, rounds


@pytest.mark.slow
def test_a_hot_key_that_is_renewed_early_never_misses_but_e_readers_renew_it_not_one() -> None:
    misses, queries, rounds = hot(alone=False)
    assert misses == 0
    # Some 28 rounds with a standard deviation of about 1.6 each: e give or take 1 (3 sigma).
    assert queries / rounds == pytest.approx(early_model.mean_started(1.0), abs=1)
    assert queries / rounds > 1.5


@pytest.mark.slow
def test_a_flag_around_the_early_refresh_makes_it_exactly_one() -> None:
    misses, queries, rounds = hot(alone=True)
    assert misses == 0
    assert queries == rounds > 20


@pytest.mark.slow
def test_a_key_that_is_seldom_read_or_cold_is_not_protected_by_early_refresh() -> None:
    seldom = [(at, early(True)) for at in traffic.poisson(0.1, 400, seed=3)]
    run = stage.run(seldom, latency=0.1)
    assert run.misses > 0.8 * len(seldom)
    assert stage.run([early(True)] * 800, latency=0.1).queries == 800


def test_a_read_renews_with_the_chance_that_the_rule_gives() -> None:
    def at(left: float, number: int) -> Any:
        key = f"k{number}"

        def play(cache: Any, db: Any) -> int:
            before = db.queries
            early_refresh.read(cache, key, lambda: db.product(1), 100, alone=False)
            return int(db.queries > before)

        def fill(cache: Any, db: Any) -> None:
            cache.set(key, json.dumps({"value": 0, "took": 1.0}), px=int(left * 1000))

        return {f"fill {number}": fill, f"read {number}": (0.0, play)}

    actors: dict[str, Any] = {}
    for number in range(300):
        actors |= at(1.0, number)
    run = stage.run(actors, seed=0)
    expected = math.exp(-1.0)  # 36.8 %: one query time before the end
    assert run.queries / 300 == pytest.approx(expected, abs=0.125)  # 4.5 sigma


def test_an_early_refresh_that_fails_serves_the_copy_that_is_still_good() -> None:
    def broken(cache: Any, db: Any) -> Any:
        def load() -> Any:
            raise RuntimeError("no")

        return early_refresh.read(cache, KEY, load, 1, draw=lambda: 1 - 1e-9)["id"]

    run = stage.run({"a": (0.9, broken), "b": (5.0, broken)}, setup=warm)
    assert run.answers["a"] == 1
    assert isinstance(run.answers["b"], RuntimeError)


def test_cache_aside_under_single_flight_asks_once_and_keeps_the_answer() -> None:
    def reader(cache: Any, db: Any) -> Any:
        return single_flight.read(cache, KEY, lambda: db.product(1), 300)

    run = stage.run(stage.threads([reader] * 20), latency=0.25)
    assert (run.queries, right(run)) == (1, 20)
    assert json.loads(run.world.cache.get(KEY)) == run.world.db.product(1)
    assert 299 <= run.world.cache.ttl(KEY) <= 300


def test_a_copy_is_renewed_as_soon_as_its_ttl_is_over() -> None:
    assert stage.run([(59.9, swr)], latency=0.25, setup=swr).queries == 0
    assert stage.run([(60.3, swr)], latency=0.25, setup=swr).queries == 1


def test_a_renewal_that_fails_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(cache: Any, db: Any) -> Any:
        def load() -> Any:
            raise RuntimeError("no such table")

        return stale_while_revalidate.read(cache, KEY, load, 60, 600)["id"]

    assert stage.run([(61, broken)], setup=swr).answers == {"broken": 1}
    assert f"{KEY} was not renewed: no such table" in caplog.text
