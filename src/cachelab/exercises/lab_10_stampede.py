"""Checks and hints of lab 10: five defences against a stampede, each in the case that breaks it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from cachelab import stage
from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.process.limits import say_error
from cachelab.record.verdict import short
from cachelab.stage import StageTrace

KEY, LOCK = "product:v1:1", "lock:product:v1:1"
Read = Callable[[Any, Any], Any]

# jitter --------------------------------------------------------------------------------------


def judge_jitter(answer: Any, trial: Trial) -> None:
    """Whole seconds, never above the bound nor far below it, and spread evenly."""
    first = trial.call(answer, 3600)
    trial.expect(
        type(first) is int,
        f"page_ttl(3600) gave {short(first)} (a {type(first).__name__}); whole seconds, an int,"
        " were expected.",
    )
    draws = trial.call(lambda: [answer(3600) for _ in range(5_000)])
    most, least = max(draws), min(draws)
    trial.expect(
        most <= 3600,
        f"Of 5,000 TTLs for a page that may be 3600 s old, the longest was {most} s: {most - 3600}"
        " s older than promised.",
    )
    trial.expect(
        least >= 3060,
        f"Of 5,000 TTLs for 3600 s, the shortest was {least} s; at least 85 %, 3060 s, was asked.",
    )
    busiest, count = Counter(draws).most_common(1)[0]
    trial.expect(
        count <= 40,
        f"Of 5,000 TTLs for 3600 s, {count} were the same, {busiest} s: so many pages would expire"
        " in one second.",
    )
    middle = sum(draws) / len(draws)
    trial.expect(
        3310 <= middle <= 3350,
        f"5,000 TTLs for 3600 s were {middle:.0f} s on average; spread evenly it would be 3330 s.",
    )
    trial.expect(
        least <= 3080 and most >= 3580,
        f"5,000 TTLs for 3600 s lie between {least} and {most} s; the whole range from 3060 to 3600"
        " s was to be used.",
    )
    for third in range(3):
        share = sum(3060 + 180 * third <= drawn < 3240 + 180 * third for drawn in draws) / 5_000
        trial.expect(
            0.27 <= share <= 0.4,
            f"Of 5,000 TTLs for 3600 s, {share:.0%} lie from {3060 + 180 * third} to"
            f" {3240 + 180 * third} s; spread evenly it would be a third.",
        )
    for seconds in (1, 2, 7):
        draws = trial.call(lambda wanted: [answer(wanted) for _ in range(200)], seconds)
        trial.expect(
            all(1 <= drawn <= seconds for drawn in draws),
            f"For {seconds} s there was a TTL of {min(draws)} s; it has to be 1 to {seconds} s,"
            " and EX 0 is an error.",
        )


# lock ----------------------------------------------------------------------------------------


def judge_lock(answer: Any, trial: Trial) -> None:
    """Owner, second look, release in every case; and at most one query in every order."""
    tokens = [_plain_refill(answer, trial) for _ in range(2)]
    trial.expect(
        tokens[0] != tokens[1],
        f"Two calls used the same token, {short(tokens[0])}: then anybody may take a lock for"
        " theirs.",
    )

    _expect_own_tokens(answer, trial)

    world = trial.world()
    world.put(LOCK, "somebody", seconds=20)
    got = trial.call(answer, world.cache, KEY, lambda: world.db.product(1))
    trial.expect(
        world.db.queries == 0, "Somebody else had the lock, and refill asked the database."
    )
    trial.expect(got is None, f"Somebody else had the lock: expected was None, not {short(got)}.")
    trial.expect(
        world.peek(LOCK) == "somebody",
        f"Somebody else had the lock, and afterwards it held {short(world.peek(LOCK))}.",
    )

    world = trial.world()
    copy = {"id": 1, "name": "filled meanwhile"}
    world.put(KEY, json.dumps(copy), seconds=300)
    got = trial.call(answer, world.cache, KEY, lambda: world.db.product(1))
    trial.expect(
        world.db.queries == 0,
        "Somebody had filled the key between the miss and the lock, and refill loaded it again:"
        " look once more when you have the lock.",
    )
    trial.expect(got == copy, f"The copy in the cache was {short(copy)}; refill gave {short(got)}.")
    _expect_no_lock(trial, world, "a copy was found")

    world = trial.world()
    world.on("query", lambda: world.put(LOCK, "somebody", seconds=20))
    trial.call(answer, world.cache, KEY, lambda: world.db.product(1))
    trial.expect(
        world.peek(LOCK) == "somebody",
        "The lock expired during the load and became somebody else's, and refill released it.",
    )

    _whenever_the_lock_is_lost(answer, trial)

    world = trial.world()
    world.break_database()
    ended = trial.attempt(answer, world.cache, KEY, lambda: world.db.product(1))
    trial.expect(
        ended.error is not None,
        f"The load failed, and refill returned {short(ended.value)}: the caller has to see it.",
    )
    _expect_no_lock(trial, world, "the load had failed")

    def reader(cache: Any, db: Any) -> Any:
        stored = cache.get(KEY)
        if stored is not None:
            return json.loads(stored)
        return answer(cache, KEY, lambda: db.product(1)) or "nobody"

    def one_query(world: Any) -> str | None:
        asked = world.trace.queries
        return None if asked == 1 else f"two readers together asked {asked} queries, not 1"

    trial.every_order({"reader 1": reader, "reader 2": reader}, one_query)


def _expect_own_tokens(answer: Any, trial: Trial, *more: Any) -> None:
    """Eight calls at the same moment, each for a key of its own, have eight tokens."""
    tokens: list[Any] = []

    def fills(number: int) -> Read:
        key = f"product:v1:{number}"

        def fill(cache: Any, db: Any) -> Any:
            def load() -> Any:
                tokens.append(cache.get(f"lock:{key}"))
                return db.product(number)

            return answer(cache, key, load, *more)

        return fill

    run = trial.play([fills(number) for number in range(1, 9)])
    token, count = Counter(tokens).most_common(1)[0] if tokens else (None, 0)
    trial.expect(
        count <= 1,
        f"{count} of eight calls at the same moment used the same token, {short(token)}: then"
        " anybody may take a lock for theirs.",
        trace=run,
    )


def _whenever_the_lock_is_lost(answer: Any, trial: Trial, *more: Any) -> None:
    """During the load, then after each cache command in turn, the lock becomes somebody else's."""
    name = trial.exercise.function
    world = trial.world()
    world.on("query", lambda: world.put(LOCK, "somebody", seconds=20))
    trial.attempt(answer, world.cache, KEY, lambda: world.db.product(1), *more)
    trial.expect(
        world.peek(LOCK) == "somebody",
        f"The lock expired during the load and became somebody else's, and {name} released it.",
    )
    commands = 1
    number = 0
    while number < min(commands, 12):
        number += 1
        world = trial.world()
        lost: list[float | None] = []

        def lose(world: TrialWorld = world, lost: list[float | None] = lost) -> None:
            if world.peek(LOCK) is not None:
                lost.append(world.ttl(LOCK))
                world.put(LOCK, "somebody", seconds=20)

        count = world.after_cache_command(number, lose)
        trial.attempt(answer, world.cache, KEY, lambda world=world: world.db.product(1), *more)
        commands = max(commands, count())
        if not lost:
            continue
        trial.expect(
            lost[0] is not None,
            "Between two commands the lock had no TTL: if its owner dies just then, the key stays"
            " locked for ever.",
        )
        trial.expect(
            world.peek(LOCK) == "somebody",
            f"The lock expired and became somebody else's between two commands, and {name} released"
            " it: look at the token and delete in one step.",
        )


def _plain_refill(answer: Any, trial: Trial) -> Any:
    """One refill of an empty key; the token that the lock held meanwhile."""
    world = trial.world()
    truth, seen = world.truth.product(1), []
    world.on("query", lambda: seen.append((world.peek(LOCK), world.ttl(LOCK))))
    got = trial.call(answer, world.cache, KEY, lambda: world.db.product(1))
    _expect_right(trial, got, truth, "With an empty cache, refill")
    asked = world.db.queries
    trial.expect(asked == 1, f"With an empty cache refill asked {asked} queries; one is enough.")
    _expect_lock(trial, *seen[0])
    _expect_copy(trial, world, truth)
    _expect_no_lock(trial, world, "refill had returned")
    return seen[0][0]


def _expect_lock(trial: Trial, token: Any, left: float | None) -> None:
    trial.expect(
        token is not None,
        f"While it loaded, nothing was stored under {LOCK}: nobody else would have waited.",
    )
    trial.expect(
        left is not None, "The lock has no TTL: if its owner dies, the key stays locked for ever."
    )
    trial.expect(
        25 <= (left or 0) <= 30, f"The lock lives {left:.0f} s; expected was a TTL of 30 s."
    )


def _expect_copy(trial: Trial, world: TrialWorld, truth: Any) -> None:
    stored = world.peek(KEY)
    trial.expect(stored is not None, f"Afterwards there is nothing under {KEY} in the cache.")
    try:
        same = json.loads(stored) == truth
    except (TypeError, ValueError):
        same = False
    trial.expect(same, f"Under {KEY} is stored {short(stored)}, which is not the value as JSON.")
    left = world.ttl(KEY)
    trial.expect(left is not None, f"The copy under {KEY} has no TTL.")
    trial.expect(
        299 <= (left or 0) <= 300, f"The copy under {KEY} lives {left:g} s; expected was 300 s."
    )


def _expect_no_lock(trial: Trial, world: TrialWorld, when: str) -> None:
    held = world.peek(LOCK)
    trial.expect(
        held is None, f"After {when} the lock was still there: for 30 s nobody can fill the key."
    )


# wait ----------------------------------------------------------------------------------------


def judge_wait(answer: Any, trial: Trial) -> None:
    """One query, everybody served or told within the budget, and a dead holder is replaced."""
    _wait_alone(answer, trial)
    _expect_own_tokens(answer, trial, 5)
    _whenever_the_lock_is_lost(answer, trial, 1)
    _wait_for_one_second(answer, trial)
    _wait_longer_than_the_budget(answer, trial)
    _wait_for_a_dead_holder(answer, trial)
    _wait_in_vain(answer, trial)


def _wait_alone(answer: Any, trial: Trial) -> None:
    world = trial.world()
    truth, seen = world.truth.product(1), []
    world.on("query", lambda: seen.append((world.peek(LOCK), world.ttl(LOCK))))
    for turn in ("first", "second"):
        got = trial.call(answer, world.cache, KEY, lambda: world.db.product(1), 5)
        _expect_right(trial, got, truth, f"Alone, the {turn} read")
    trial.expect(
        world.db.queries == 1,
        f"Two reads, one after the other, asked {world.db.queries} queries; expected was 1.",
    )
    _expect_lock(trial, *seen[0])
    _expect_copy(trial, world, truth)
    _expect_no_lock(trial, world, "a read")

    world = trial.world()
    world.after_cache_command(1, lambda: world.put(KEY, json.dumps(truth), seconds=300))
    got = trial.call(answer, world.cache, KEY, lambda: world.db.product(1), 5)
    trial.expect(
        got == truth and world.db.queries == 0,
        "Somebody filled the key between the first look and the lock, and it was loaded again: look"
        " once more when you have the lock.",
    )


def _wait_for_one_second(answer: Any, trial: Trial) -> None:
    run = _crowd(answer, trial, readers=40, budget=5, latency=1.0)
    _expect_all_right(trial, run, "40 readers at once and a query of 1 s")
    trial.expect(
        run.queries == 1,
        f"40 readers at once and a query of 1 s: {run.queries} queries; expected was 1.",
        trace=run,
    )
    longest = max(waited for _, waited in run.answers.values())
    trial.expect(
        longest <= 1.6,
        f"The copy was there after 1 s, but somebody waited {longest:.2g} s for it; look at least"
        " twice a second.",
        trace=run,
    )
    looks = sum(event.kind in ("hit", "miss") for event in run) / 40
    trial.expect(
        looks <= 25,
        f"In one second each reader looked {looks:.0f} times into the cache; 20 are enough.",
        trace=run,
    )


def _wait_longer_than_the_budget(answer: Any, trial: Trial) -> None:
    run = _crowd(answer, trial, readers=40, budget=2, latency=8.0)
    trial.expect(
        run.queries == 1,
        f"40 readers with a budget of 2 s and a query of 8 s: {run.queries} queries; only the one"
        " with the lock may ask.",
        trace=run,
    )
    trial.expect(
        not any(isinstance(got, HandedOver) for got, _ in run.answers.values()),
        "After its budget of 2 s a reader was handed a TimeoutError as a value; raise it.",
        trace=run,
    )
    given_up = [got for got in run.answers.values() if isinstance(got[0], BaseException)]
    served = len(run.answers) - len(given_up)
    trial.expect(
        served == 1 and all(isinstance(error, TimeoutError) for error, _ in given_up),
        "With a budget of 2 s and a query of 8 s, 39 readers should get a TimeoutError; got were"
        f" {_counted(run)}.",
        trace=run,
    )
    earliest, latest = min(w for _, w in given_up), max(w for _, w in given_up)
    trial.expect(
        earliest >= 1.9 and latest <= 2.6,
        f"With a budget of 2 s readers gave up after {earliest:.2g} to {latest:.2g} s.",
        trace=run,
    )


def _wait_for_a_dead_holder(answer: Any, trial: Trial) -> None:
    def died(cache: Any, db: Any) -> None:
        cache.set(LOCK, "of a process that died", ex=2)

    run = _crowd(answer, trial, readers=5, budget=8, latency=1.0, setup=died)
    _expect_all_right(
        trial, run, "The lock of a process that died ended after 2 s, the budget is 8 s"
    )
    trial.expect(
        run.queries == 1,
        f"After the lock of a dead process had ended, five readers asked {run.queries} queries;"
        " expected was 1.",
        trace=run,
    )


def _wait_in_vain(answer: Any, trial: Trial) -> None:
    def taken(cache: Any, db: Any) -> None:
        cache.set(LOCK, "somebody", ex=20)

    run = _crowd(answer, trial, readers=2, budget=2, latency=1.0, setup=taken)
    held = run.world.cache.get(LOCK)
    trial.expect(
        held == "somebody",
        "Somebody else had the lock for 20 s; after readers had given up, with a budget of 2 s, it"
        f" held {short(held)}.",
        trace=run,
    )


def _crowd(
    answer: Any, trial: Trial, *, readers: int, budget: float, latency: float, setup: Any = None
) -> StageTrace:
    """Readers at once; each answers (value or error, seconds waited)."""

    def reader(cache: Any, db: Any) -> Any:
        return _timed(lambda: answer(cache, KEY, lambda: db.product(1), budget))

    return trial.play([reader] * readers, latency=latency, setup=setup, limit_seconds=600)


class HandedOver:
    """In the place of an error that was returned, not raised."""


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    try:
        got = call()
        got = HandedOver() if isinstance(got, BaseException) else got
    except Exception as error:
        got = error
    return got, time.monotonic() - began


def _counted(run: StageTrace) -> str:
    kinds = Counter(type(_first(got)).__name__ for got in run.answers.values())
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _first(got: Any) -> Any:
    return got[0] if isinstance(got, tuple) else got


def _expect_all_right(trial: Trial, run: StageTrace, when: str) -> None:
    truth = run.world.db.product(1)
    for got in map(_first, run.answers.values()):
        if isinstance(got, BaseException):
            trial.fail(f"{when}: a reader got {say_error(got)}.", trace=run)
        trial.expect(
            got == truth, f"{when}: a reader got {short(got)}, not {short(truth)}.", trace=run
        )


# swr -----------------------------------------------------------------------------------------


def judge_swr(answer: Any, trial: Trial) -> None:
    """Fresh, stale and renewed by one, gone: what each reader gets, and how long it waits."""
    world = trial.world()
    truth = world.truth.product(1)
    got = trial.call(answer, world.cache, KEY, lambda: world.db.product(1), lambda call: call())
    _expect_right(trial, got, truth, "With an empty cache, a read")

    def later(call: Callable[[], Any]) -> None:
        threading.Thread(target=call).start()

    def read(cache: Any, db: Any) -> Any:
        return _timed(lambda: answer(cache, KEY, lambda: db.product(1), later))

    def sale(cache: Any, db: Any) -> None:
        db.update_product(1, price_cents=1)

    many = {  # threads of three processes: a lock in each is not enough
        f"stale {number}": stage.Actor(f"stale {number}", read, 63.0, f"pod {number % 3}")
        for number in range(1, 31)
    }
    run = trial.play(
        {
            "cold": (0.0, read),
            "fresh": (50.0, read),
            "sale": (55.0, sale),
            **many,
            "renewed": (70.0, read),
            "gone": (2_000.0, read),
        },
        latency=1.0,
    )
    old, new = truth, run.world.db.product(1)
    asked = [event.at - event.took for event in run.of("query")]

    def expect(condition: Any, said: str) -> None:
        trial.expect(condition, said, trace=run)

    for name, got in run.answers.items():
        error = _first(got)
        if isinstance(error, BaseException):
            trial.fail(f"The reader {name!r} got {say_error(error)}.", trace=run)
    expect(
        run.answers["cold"][0] == old and asked and asked[0] < 1,
        f"The first reader, in an empty cache, got {short(run.answers['cold'][0])}.",
    )
    early = sum(2 < at < 60 for at in asked)
    expect(early == 0, "50 s after the fill, while the copy was fresh, the database was asked.")
    expect(
        run.answers["fresh"][0] == old and run.answers["fresh"][1] == 0,
        f"50 s after the fill a reader got {short(run.answers['fresh'][0])} after"
        f" {run.answers['fresh'][1]:g} s; the copy, at once, was expected.",
    )
    crowd = [got for name, got in run.answers.items() if name.startswith("stale")]
    waited = max(seconds for _, seconds in crowd)
    expect(
        waited == 0,
        f"63 s after the first read the copy was old, and a reader waited {waited:g} s; nobody is"
        " to wait in the window.",
    )
    renewals = sum(60 < at < 66 for at in asked)
    expect(
        renewals > 0,
        "63 s after the first read 30 readers saw a copy that was no longer fresh, and nobody had"
        " it renewed.",
    )
    expect(
        renewals == 1,
        f"30 readers saw a copy that was no longer fresh: {renewals} renewals; one is enough.",
    )
    values = [got for got, _ in crowd if got != old]
    expect(
        not values,
        f"In the window a reader got {short(values[0] if values else None)}, not the old copy.",
    )
    got, waited = run.answers["renewed"]
    expect(
        got == new and waited == 0,
        f"7 s after the renewal had begun a reader got {short(got)} after {waited:g} s; expected"
        f" was the new row, {short(new)}, at once.",
    )
    last = [at for at in asked if at >= 1_990]
    expect(
        run.answers["gone"] == (new, 1.0) and len(last) == 1,
        "2,000 s after the first read there was still a copy; it may be served for 60 + 600 s.",
    )
    _swr_ends(trial, read)


def _swr_ends(trial: Trial, read: Read) -> None:
    """The window is as long as it was asked, and a renewal that died is tried again."""
    run = trial.play({"cold": (0.0, read), "late": (640.0, read)}, latency=1.0)
    waited = run.answers["late"][1]
    trial.expect(
        waited == 0,
        f"640 s after the first read, within 60 + 600 s, a reader waited {waited:g} s.",
        trace=run,
    )
    run = trial.play({"cold": (0.0, read), "too late": (663.0, read)}, latency=1.0)
    trial.expect(
        run.answers["too late"][1] == 1,
        "663 s after the first read a copy was served that was more than 60 + 600 s old.",
        trace=run,
    )
    crashed = {"cold": (0.0, read), "dies": (70.0, read), "next": (120.0, read)}
    run = trial.play(
        {**crashed, "last": (125.0, read)},
        latency=1.0,
        crash=("dies", _steps_to_query(trial, read)),
    )
    asked = sum(event.at > 100 for event in run.of("query"))
    trial.expect(
        asked == 1,
        "The process that renewed died, and 50 s later nobody else had tried: what keeps others"
        " from renewing needs a TTL of 30 s.",
        trace=run,
    )

    _swr_renewal(trial, read)


def _swr_renewal(trial: Trial, read: Read) -> None:
    """Nobody waits during a renewal, the copy is fresh after it, and it may take up to 30 s."""
    again = {"renews": (63.0, read), "meanwhile": (63.5, read), "fresh again": (110.0, read)}
    run = trial.play({"cold": (0.0, read), **again}, latency=1.0)
    waited = run.answers["meanwhile"][1]
    trial.expect(
        waited == 0,
        f"A reader that came during the renewal waited {waited:g} s; the old copy was to be served"
        " until the new one is there.",
        trace=run,
    )
    trial.expect(
        run.queries == 2,
        "47 s after a renewal had begun the copy was renewed again; after a renewal it is fresh for"
        " 60 s, and lives 660 s.",
        trace=run,
    )
    patient = {"cold": (0.0, read), "renews": (90.0, read), "next": (110.0, read)}
    run = trial.play(patient, latency=25.0)
    trial.expect(
        run.queries == 2,
        "A renewal took 25 s, and 20 s after it had begun another began; only one is to be under"
        " way, and what keeps others from renewing has a TTL of 30 s.",
        trace=run,
    )


def _steps_to_query(trial: Trial, read: Read) -> int:
    """At which of its operations a reader in the window sends its query."""
    run = trial.play({"cold": (0.0, read), "dies": (70.0, read)}, latency=1.0)
    mine = [event for event in run if event.actor.startswith("dies")]
    before = [event.kind for event in mine].index("query")
    return before + 1


# early ---------------------------------------------------------------------------------------

# The bounds below are 4.5 standard deviations wide: one right answer in 100,000 would miss them.
KEYS = 150


def judge_early(answer: Any, trial: Trial) -> None:
    """The chance to renew, counted over many keys, at four distances from the expiry."""
    world = trial.world()
    truth = world.truth.product(1)
    for turn in ("first", "second"):
        got = trial.call(answer, world.cache, KEY, lambda: world.db.product(1), 1000, 1.0)
        _expect_right(trial, got, truth, f"The {turn} read")
    trial.expect(
        world.db.queries == 1,
        f"Two reads of a fresh key asked {world.db.queries} queries; expected was 1.",
    )
    left = world.ttl(KEY)
    trial.expect(
        left is not None and 999 <= left <= 1000,
        f"With ttl=1000 the copy lives {'for ever' if left is None else f'{left:g} s'}.",
    )

    with patch.object(random, "random", lambda: 0.0):
        ended = trial.attempt(answer, world.cache, KEY, lambda: world.db.product(1), 1000, 1.0)
    trial.expect(
        ended.error is None,
        f"random.random() may give 0.0, and then read_early got {say_error(ended.error)}."
        if ended.error
        else "",
        "The logarithm of 0 does not exist, of 1 it does: 1 - random.random().",
    )
    _expect_renewals(answer, trial, left=50, beta=1, low=0, high=0)
    _expect_renewals(answer, trial, left=2, beta=1, low=29, high=82)  # one load's time: 36.8 %
    _expect_renewals(answer, trial, left=10, beta=1, low=0, high=7)  # five: 0.67 %
    _expect_renewals(answer, trial, left=6, beta=3, low=29, high=82)  # beta counts like time
    _each_renewal(answer, trial)


def _each_renewal(answer: Any, trial: Trial) -> None:
    """A renewal gives the new value, takes the old one from nobody, and is measured itself."""
    loads: list[str] = []  # by whom

    def read(name: str, beta: float, seconds: float) -> Read:
        def load() -> Any:
            loads.append(name)
            time.sleep(seconds)
            return {"load": name}

        return lambda cache, _: _timed(lambda: answer(cache, KEY, load, 100, beta))

    surely, never = 1_000_000, 0.000_001
    run = trial.play(
        {
            "fills": (0.0, read("fills", 1, 0.4)),
            "renews": (10.0, read("renews", surely, 5.0)),
            "meanwhile": (12.0, read("meanwhile", never, 5.0)),
            "renews again": (20.0, read("renews again", surely, 0.0001)),
            "after that": (30.0, read("after that", 5_000, 0.0001)),
        },
    )

    def expect(condition: Any, said: str) -> None:
        trial.expect(condition, said, trace=run)

    for name, (got, _) in run.answers.items():
        if isinstance(got, BaseException):
            trial.fail(f"The reader {name!r} got {say_error(got)}.", trace=run)
    expect(
        "renews" in loads,
        "The load had taken 0.4 s, beta was 1,000,000, and a read with 90 s to live did not renew"
        " the copy: is the time kept with its fraction?",
    )
    got = run.answers["renews"][0]
    expect(
        got == {"load": "renews"},
        f"A read renewed the copy and gave {short(got)}, not the new value.",
    )
    got, waited = run.answers["meanwhile"]
    expect(
        "meanwhile" not in loads and waited == 0 and got == {"load": "fills"},
        "While one reader renewed, for 5 s, the copy had 88 s to live and beta was 0.000001;"
        f" another reader got {short(got)} after {waited:g} s; the copy, at once, was expected.",
    )
    expect(
        "after that" not in loads,
        "The loads before took 0.4 and 5 s, the last one 0.1 ms, and the next read renewed as if it"
        " still took so long: measure every load.",
    )


def _expect_renewals(
    answer: Any, trial: Trial, *, left: float, beta: float, low: int, high: int
) -> None:
    """Of KEYS keys, loaded in 2 s, how many a read renews with `left` seconds to live."""

    def read(number: int) -> Read:
        key = f"product:v1:{number}"
        return lambda cache, db: answer(cache, key, lambda: db.product(1), 100, beta)

    actors: dict[str, Any] = {}
    for number in range(KEYS):
        actors[f"fill {number}"] = (0.0, read(number))
        actors[f"read {number}"] = (102.0 - left, read(number))
    run = trial.play(actors, latency=2.0, seed=7, seconds=4.0)
    truth = run.world.db.product(1)
    for got in run.answers.values():
        if isinstance(got, BaseException):
            trial.fail(f"With {left:g} s to live a read got {say_error(got)}.", trace=run)
        trial.expect(got == truth, f"A read gave {short(got)}, not {short(truth)}.", trace=run)
    renewals = run.queries - KEYS
    wanted = f"{low}" if low == high else f"{low} to {high}"
    trial.expect(
        low <= renewals <= high,
        f"The load takes 2 s, beta is {beta:g}: with {left:g} s to live {renewals} of {KEYS} reads"
        f" renewed the copy; expected were {wanted}.",
        trace=run[-40:],
    )
    if renewals:
        kept = sum(run.world.cache.ttl(f"product:v1:{number}") > 90 for number in range(KEYS))
        trial.expect(
            kept == renewals,
            f"{renewals} reads renewed, but only {kept} copies have a new life of 100 s.",
            trace=run[-40:],
        )


# What several of them expect -----------------------------------------------------------------


def _expect_right(trial: Trial, got: Any, truth: Any, who: str) -> None:
    shown = short(got)
    trial.expect(
        type(got) is dict, f"{who} gave {shown} (a {type(got).__name__}); expected was a dict."
    )
    trial.expect(got == truth, f"{who} gave {shown}; the right answer is {short(truth)}.")
