"""Checks and hints of lab 13: the parts of a production cache, each with what breaks it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from cachelab import stage
from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.record.verdict import short

# envelope ------------------------------------------------------------------------------------

NONSENSE = (
    "{half",
    "null",
    "7",
    "[]",
    '"text"',
    '{"name": "of another release"}',
    '{"values": [1]}',
)


def judge_envelope(answer: Any, trial: Trial) -> None:
    """Right whatever the cache holds; what is broken is replaced; absence is kept briefly."""
    world = trial.world()
    key, row = "product:v2:1", world.truth.product(1)
    other = json.dumps({"name": "of the release before"})
    world.put("product:v1:1", other, 200)
    _expect_product(trial, trial.call(answer, world.cache, world.db, 1), row, "The first read")
    _expect_key(trial, world, key)
    _expect_ttl(trial, world, key, 299, 300)
    stored = world.peek(key)
    trial.expect(
        _value_in(stored) == row,
        f"Under {key} is stored {short(stored)}; expected was a JSON object with the row under"
        ' "value".',
    )
    _expect_product(trial, trial.call(answer, world.cache, world.db, 1), row, "The second read")
    trial.expect(
        world.db.queries == 1, f"Two reads asked {world.db.queries} queries; expected was 1."
    )
    trial.expect(
        world.peek("product:v1:1") == other,
        f"The old release's entry became {short(world.peek('product:v1:1'))}; it is not yours.",
    )

    for text in NONSENSE:
        world = trial.world()
        world.put(key, text, 9_000)
        ended = trial.attempt(answer, world.cache, world.db, 1)
        said = type(ended.error).__name__ if ended.error else short(ended.value)
        trial.expect(
            ended.error is None and ended.value == row,
            f"With {text} in the cache a read {'raised' if ended.error else 'gave'} {said};"
            " expected was the product, as on a miss.",
        )
        trial.call(answer, world.cache, world.db, 1)
        trial.expect(
            world.db.queries == 1,
            f"With {text} in the cache two reads asked {world.db.queries} queries: what is broken"
            " should be replaced.",
        )
        left = world.ttl(key)
        trial.expect(
            left is not None and left <= 300,
            f"What replaced {text} {f'lives {left:.0f} s' if left else 'has no TTL'}; expected was"
            " 300 s: it is a new copy.",
        )

    world = trial.world()
    for _ in range(3):
        got = trial.call(answer, world.cache, world.db, 999)
        trial.expect(got is None, f"Product 999 does not exist, and the read gave {short(got)}.")
    trial.expect(
        world.db.queries == 1,
        f"Three reads of a product that does not exist asked {world.db.queries} queries;"
        " expected was 1: None is a value, too.",
    )
    _expect_ttl(trial, world, "product:v2:999", 1, 5)


def _value_in(stored: Any) -> Any:
    try:
        return json.loads(stored)["value"]
    except (ValueError, TypeError, KeyError):
        return None


# breaker -------------------------------------------------------------------------------------

EVERY = 0.1  # seconds between two reads


def judge_breaker(answer: Any, trial: Trial) -> None:
    """Left alone after three failures in a row, tried again after two seconds."""
    world = trial.world()
    row = world.truth.product(1)
    _expect_product(trial, trial.call(answer, world.cache, world.db, 1, {}), row, "The first read")
    calm = _serve(answer, trial, 2, [])
    trial.expect(
        calm.queries == 5,
        f"With a healthy cache, 20 reads of 5 products asked {calm.queries} queries; expected"
        " were 5.",
        trace=calm,
    )
    _expect_ttl(trial, world, "product:v1:1", 299, 300)
    run = _serve(answer, trial, 12, [stage.CacheDown(1.95, 7.95)])
    trial.expect(
        run.errors <= 8,
        f"In an outage of 6 s the cache was sent {run.errors} commands; expected were at most 8:"
        " three, and then a try every two seconds.",
        trace=run,
    )
    trial.expect(
        run.errors >= 4,
        f"In an outage of 6 s the cache was tried {run.errors} times; it must be tried again after"
        " two seconds, or nobody learns that it is back.",
        trace=run,
    )
    _expect_rests(trial, run)
    late = sum(event.kind == "hit" and 10.2 < event.at < 12 for event in run)
    trial.expect(
        late > 0,
        "The cache was back at 8 s, and from 10.2 s to 12 s there was not one hit.",
        trace=run,
    )
    blips = [stage.CacheDown(at - 0.05, at + 0.05) for at in (2, 3, 4)]
    run = _serve(answer, trial, 5, blips)
    hits = sum(event.kind == "hit" and event.at > 4.15 for event in run)
    trial.expect(
        hits > 0,
        "Three short outages, a second of good answers between them, closed the door:"
        " three failures in a row were asked for.",
        trace=run,
    )
    world = trial.world()
    world.cache_hangs()
    ended = trial.attempt(answer, world.cache, world.db, 1, {})
    if ended.error is not None:
        trial.fail(f"The cache did not answer in time, and a read raised {_name(ended.error)}.")
    _expect_product(trial, ended.value, row, "A read while the cache does not answer")
    _judge_whose_failures(answer, trial)


def _expect_rests(trial: Trial, run: stage.StageTrace) -> None:
    """Three commands fail, and then two seconds pass before each try. A try is one read."""
    failed = [event.at for event in run.of("error")]
    rested = failed[3] - failed[2]
    trial.expect(
        rested > 2 - EVERY / 2,
        f"Three commands had failed, and the next was sent {rested:.1f} s later; expected was"
        " none for 2 s from the third.",
        trace=run,
    )


def _judge_whose_failures(answer: Any, trial: Trial) -> None:
    """The database's failures are not the cache's, and another process's not ours."""
    world = trial.world()
    row, breaker = world.truth.product(1), dict[str, Any]()
    trial.call(answer, world.cache, world.db, 1, breaker)
    world.break_database()
    for _ in range(4):
        ended = trial.attempt(answer, world.cache, world.db, 2, breaker)
        trial.expect(
            ended.error is not None,
            f"The database failed, and the function returned {short(ended.value)}: the caller would"
            " take that for the truth.",
        )
    ended = trial.attempt(answer, world.cache, world.db, 1, breaker)
    trial.expect(
        ended.error is None and ended.value == row,
        "The database failed four times, and then a product that is in the cache was not read from"
        " it: only what the cache fails counts.",
    )
    world = trial.world()
    ours = dict[str, Any]()
    trial.call(answer, world.cache, world.db, 1, ours)
    world.cache_down()
    others = dict[str, Any]()
    for _ in range(4):
        trial.call(answer, world.cache, world.db, 1, others)
    world.cache_up()
    asked = world.db.queries
    trial.call(answer, world.cache, world.db, 1, ours)
    trial.expect(
        world.db.queries == asked,
        "Another process, with a `breaker` of its own, met three failures, and now this one does"
        " not ask the cache either: keep what you remember in `breaker`.",
    )


def _name(error: BaseException) -> str:
    return type(error).__name__


def _serve(answer: Any, trial: Trial, seconds: float, faults: list[Any]) -> stage.StageTrace:
    """One process that reads five products in turn, every 0.1 s."""

    def service(cache: Any, db: Any) -> list[Any]:
        breaker: dict[str, Any] = {}
        got = []
        for number in range(round(seconds / EVERY)):
            got.append((number % 5 + 1, answer(cache, db, number % 5 + 1, breaker)))
            time.sleep(EVERY)
        return got

    run = trial.play({"service": service}, faults=faults)
    got: Any = run.answers.get("service")
    trial.expect(
        isinstance(got, list),
        f"A customer got {type(got).__name__}"
        f"{' while the cache was down' if faults else ''}: {short(str(got))}.",
        trace=run,
    )
    wrong = [(number, value) for number, value in got if value != run.world.db.product(number)]
    trial.expect(
        not wrong, f"A read of product {wrong and wrong[0][0]} gave {short(wrong and wrong[0][1])}."
    )
    return run


# two ends ------------------------------------------------------------------------------------


def judge_two_ends(answer: Any, trial: Trial) -> None:
    """Fresh, then served while one renews, then gone; ends apart, and none too late."""
    trial.call(answer, (world := trial.world()).cache, world.db, 1)
    _expect_key(trial, world, "product:v1:1")
    left = world.ttl("product:v1:1")
    trial.expect(left is not None, "The copy has no TTL: it would stay for ever.")
    trial.expect(
        650 <= (left or 0) <= 660,
        f"The copy lives {left:g} s; expected were 651 to 660: TTL and window together.",
    )

    def one(cache: Any, db: Any) -> tuple[Any, float]:
        began = time.monotonic()
        value = answer(cache, db, 1)
        return value, time.monotonic() - began

    def sale(cache: Any, db: Any) -> None:
        db.update_product(1, price_cents=1)

    readers = {  # threads of five processes: a lock in each is not enough
        f"reader {n}": stage.Actor(f"reader {n}", one, 75.0, f"pod {n % 5}") for n in range(50)
    }
    cast = {
        "first": one,
        "early": (40.0, one),
        "sale": (45.0, sale),
        **readers,
        "later": (80.0, one),
        "again": (400.0, one),
        "last": (1_200.0, one),
    }
    run = trial.play(cast, latency=0.25)
    bad = [got for got in run.answers.values() if isinstance(got, Exception)]
    trial.expect(not bad, f"A reader got {type(bad[0]).__name__ if bad else ''}: {bad[:1]}.")
    early = [event for event in run.of("query") if 39 < event.at < 45]
    trial.expect(not early, "At 40 s the copy is fresh, and yet a query was asked.", trace=run)
    waited = [run.answers[name][1] for name in readers if run.answers[name][1] > 0.005]
    trial.expect(
        not waited,
        f"At 75 s {len(waited)} of 50 readers waited, up to {max(waited, default=0):.2f} s;"
        " the old copy is there to be served.",
        trace=run,
    )
    renewed = sum(60 < event.at < 80 for event in run.of("query"))
    trial.expect(
        renewed == 1,
        f"50 readers at 75 s asked {renewed} queries; expected was 1, which renews the copy.",
        trace=run,
    )
    again = sum(399 < event.at < 405 for event in run.of("query"))
    trial.expect(
        again == 1,
        f"At 400 s the renewed copy had ended too, and {again} queries were asked; expected was 1,"
        " as the first time.",
        trace=run,
    )
    for name in ("later", "last"):
        got = run.answers[name][0]
        trial.expect(
            isinstance(got, dict) and got.get("price_cents") == 1,
            f"After the renewal the {name} reader got {short(got)}; the price is 1 cent.",
            trace=run,
        )
    _judge_failed_renewal(answer, trial)
    _judge_jitter(answer, trial)


class _Failing:
    """A database whose query fails."""

    def product(self, product_id: int) -> dict[str, Any]:
        raise OSError("the database is down")


def _judge_failed_renewal(answer: Any, trial: Trial) -> None:
    """A renewal that fails leaves the copy, and a later reader tries again."""

    def one(cache: Any, db: Any) -> Any:
        return answer(cache, db, 1)

    def unlucky(cache: Any, db: Any) -> Any:
        return answer(cache, _Failing(), 1)

    run = trial.play({"first": one, "unlucky": (75.0, unlucky), "later": (500.0, one)})
    got = run.answers["unlucky"]
    trial.expect(
        isinstance(got, dict),
        f"At 75 s a renewal failed, and its reader got {_name(got)}; the old copy was there.",
        trace=run,
    )
    trial.expect(
        any(event.at > 499 for event in run.of("query")),
        "At 75 s a renewal failed, and at 500 s nobody could renew: what keeps the others off has"
        " to end, also when the one who renews dies.",
        trace=run,
    )


def _renewed(answer: Any, trial: Trial, at: float) -> int:
    """How many of 30 copies made at 0 s are renewed by a reader of all of them, `at` s later."""

    def all_of_them(cache: Any, db: Any) -> None:
        for number in range(1, 31):
            answer(cache, db, number)

    run = trial.play({"fill": all_of_them, "look": (at, all_of_them)})
    return sum(event.at > at - 1 for event in run.of("query"))


def _judge_jitter(answer: Any, trial: Trial) -> None:
    found = {at: _renewed(answer, trial, at) for at in (50.5, 56, 60.5)}
    trial.expect(
        found[50.5] == 0,
        f"At 50.5 s {found[50.5]} of 30 copies were renewed; at most 15 % of 60 s may be taken"
        " off, so the first may end at 51 s.",
    )
    why = "some are taken for fresh after 60 s. Jitter is taken off, never added"
    if found[60.5] < 30 and _renewed(answer, trial, 80) < 30:
        why = "a renewal of one product keeps the others from theirs"
    trial.expect(
        found[60.5] == 30,
        f"At 60.5 s only {found[60.5]} of 30 copies were renewed: {why}.",
    )
    trial.expect(
        0 < found[56] < 30,
        f"Of 30 copies that were made together, {found[56]} had ended at 56 s: their ends are not"
        " spread.",
    )


# metrics -------------------------------------------------------------------------------------


def judge_metrics(answer: Any, trial: Trial) -> None:
    """Each read is a hit, a miss or an error, and each load is counted."""
    world, counts = trial.world(), Counter[str]()
    rows = {number: world.truth.product(number) for number in (1, 2, 3, 999)}

    def read(number: int) -> None:
        got = trial.call(answer, world.cache, world.db, number, counts)
        _expect_product(trial, got, rows[number], f"A read of product {number}")

    def expect(what: str, **right: int) -> None:
        seen = {name: counts[name] for name in ("hits", "misses", "errors", "loads")}
        wanted = {name: right.get(name, 0) for name in seen}
        trial.expect(
            seen == wanted,
            f"After {what} the counts are {_counted(seen)}; expected were {_counted(wanted)}.",
        )

    read(1)
    expect("one read of a cold key", misses=1, loads=1)
    read(1)
    expect("a second read", hits=1, misses=1, loads=1)
    for _ in range(2):
        read(999)
    expect("two reads of a product that does not exist", hits=2, misses=2, loads=2)
    _expect_ttl(trial, world, "product:v1:999", 1, 5)
    _expect_ttl(trial, world, "product:v1:1", 299, 300)
    world.cache_down()
    read(1)
    expect("a read while the cache was down", hits=2, misses=2, errors=1, loads=3)
    world.cache_up()
    read(1)
    expect("a read after the cache was back", hits=3, misses=2, errors=1, loads=3)
    world.break_database()
    ended = trial.attempt(answer, world.cache, world.db, 2, counts)
    trial.expect(
        ended.error is not None,
        f"The database failed, and the function returned {short(ended.value)}.",
    )
    expect("a read whose load failed", hits=3, misses=3, errors=1, loads=4)
    world, counts = trial.world(), Counter[str]()
    world.cache_hangs()
    read(1)
    expect("a read of a cache that did not answer in time", errors=1, loads=1)
    world.cache_up()
    world.after_cache_command(1, world.cache_down)
    read(3)
    expect("a read whose copy could not be stored", errors=2, loads=2)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


# What several of them expect -----------------------------------------------------------------


def _expect_product(trial: Trial, got: Any, row: Any, who: str) -> None:
    trial.expect(got == row, f"{who} gave {short(got)}; the right answer is {short(row)}.")


def _expect_key(trial: Trial, world: TrialWorld, key: str) -> None:
    found = ", ".join(world.keys()) or "nothing"
    trial.expect(
        key in world.keys(), f"After a first read the cache holds {found}; expected was {key}."
    )


def _expect_ttl(trial: Trial, world: TrialWorld, key: str, least: float, most: float) -> None:
    _expect_key(trial, world, key)
    left = world.ttl(key)
    trial.expect(left is not None, f"The copy under {key} has no TTL: it would stay for ever.")
    trial.expect(
        least - 0.5 < (left or 0) <= most,
        f"The copy under {key} lives {left:g} s; expected was at most {most:g} s.",
    )


JUDGES: list[tuple[str, str, str, str, int, tuple[str, str, str], Callable[..., Any]]] = [
    (
        "envelope",
        "Envelope and version",
        "read_product",
        "read_product(cache, db, product_id)",
        10,
        (
            "What does your function do with a text that is no JSON, and with one that is JSON but"
            " not yours?",
            "Let all that goes wrong while the copy is read end in the same place: the miss.",
            '`json.loads(cache.get(key))["value"]` in a `try`; TypeError, ValueError and KeyError'
            " are misses.",
        ),
        judge_envelope,
    ),
    (
        "breaker",
        "Fast failure",
        "read_guarded",
        "read_guarded(cache, db, product_id, breaker)",
        12,
        (
            "Two things have to be remembered: how many commands in a row have failed, and when the"
            " cache may be tried again.",
            "Before each command: three failures, and the time has not come? Then no command. After"
            " each: a success sets the count to 0, a failure sets the time to now and 2 s.",
            '`if breaker.get("failures", 0) >= 3 and time.monotonic() < breaker["again_at"]`: go to'
            " the database at once.",
        ),
        judge_breaker,
    ),
    (
        "two_ends",
        "Two ends",
        "read_stale",
        "read_stale(cache, db, product_id)",
        15,
        (
            "Redis knows one end, the later one. The earlier one has to be in the copy itself.",
            'Store {"value": ..., "fresh_until": time.time() + life} for life + 600 s, and ask'
            " `fresh_until` when you read. `SET NX` on another key picks the one who renews.",
            "`life = 60 * (1 - 0.15 * random.random())`; past `fresh_until`, whoever gets"
            ' `cache.set(f"renew:{key}", 1, nx=True, ex=30)` starts a thread that fills, and'
            " everybody returns the value at once.",
        ),
        judge_two_ends,
    ),
    (
        "metrics",
        "Numbers",
        "read_counted",
        "read_counted(cache, db, product_id, counts)",
        8,
        (
            "Which of the three is a read that met a dead cache? It is counted once, however many"
            " commands failed.",
            "Decide what the read was in one place, and count it in one place.",
            "Count the load before you call `db.product`: one that raises is a load all the same.",
        ),
        judge_metrics,
    ),
]
