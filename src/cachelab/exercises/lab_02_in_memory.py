"""Checks and hints of lab 02: caches in the process, on a clock, bounded, refreshed, told."""

from __future__ import annotations

import gc
import random
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import redis

from cachelab import stage
from cachelab.judge.trial import Trial
from cachelab.process.limits import say_error
from cachelab.record.verdict import short
from cachelab.stage import StageTrace

# What several of them use --------------------------------------------------------------------


class OriginDown(Exception):
    """What a load of the judge's raises."""


class Loads:
    """An origin for in-process caches: each load of a key gives another value, and is counted.

    `values`: what is to be given instead; `fails`: keys whose load raises; `takes`: seconds of
    `clock` that a load takes.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.of: list[Any] = []  # the keys, in the order in which they were loaded
        self.values: dict[Any, Any] = {}
        self.fails: set[Any] = set()
        self.takes = 0.0

    def clock(self) -> float:
        return self.now

    def load(self, key: Any) -> Any:
        self.of.append(key)
        self.now += self.takes
        if key in self.fails:
            raise OriginDown("the origin does not answer")
        return self.values.get(key, f"{key}, load {self.of.count(key)}")


def _made(trial: Trial, answer: Any, *args: Any) -> Any:
    """The function that the answer makes."""
    got = trial.call(answer, *args)
    _expect_function(trial, got)
    return got


def _expect_function(trial: Trial, got: Any) -> None:
    trial.expect(
        callable(got),
        f"{trial.exercise.function} returned {short(got)}; a function was expected, the one that"
        " reads through the cache.",
    )


# ttl -----------------------------------------------------------------------------------------


def judge_ttl(answer: Any, trial: Trial) -> None:
    """Once within the TTL, by the given clock, key by key, whatever the value."""
    _first_reads(answer, trial)
    one, other = Loads(), Loads()
    other.values["a"] = "of the other origin"
    gets = [_made(trial, answer, each.load, 60, each.clock) for each in (one, other)]
    got = [trial.call(get, "a") for get in gets]
    trial.expect(
        got == ["a, load 1", "of the other origin"],
        f"Two caches with an origin each gave {short(got[0])} and {short(got[1])} for the same key:"
        " they share their memory.",
    )
    _by_the_clock(answer, trial)
    _key_by_key(answer, trial)
    _every_value(answer, trial)

    origin = Loads()
    get = _made(trial, answer, origin.load, 60, origin.clock)
    origin.fails = {"a"}
    ended = trial.attempt(get, "a")
    trial.expect(
        isinstance(ended.error, OriginDown),
        f"A load failed, and get gave {_outcome(ended)}: the caller has to see the origin's error.",
    )
    origin.fails = set()
    ended = trial.attempt(get, "a")
    trial.expect(
        ended.error is None and len(origin.of) == 2,
        "A load failed once, and the next get gave the error again without asking the origin.",
    )
    origin.now, origin.fails = 61.0, {"a"}
    ended = trial.attempt(get, "a")
    trial.expect(
        ended.error is not None,
        "After the TTL the load failed, and the old value was given: it is older than promised.",
    )

    origin = Loads()
    origin.takes = 50.0
    get = _made(trial, answer, origin.load, 60, origin.clock)
    trial.call(get, "a")
    origin.now = 59.0
    trial.call(get, "a")
    trial.expect(
        len(origin.of) == 1,
        "A load that took 50 s began at 0 s, and at 59 s the key was loaded again.",
    )
    origin.now = 61.0
    trial.call(get, "a")
    trial.expect(
        len(origin.of) == 2,
        "A load began at 0 s and took 50 s; at 61 s its value was still served: age counts from"
        " the beginning of the load.",
    )


def _first_reads(answer: Any, trial: Trial) -> None:
    origin = Loads()
    get = _made(trial, answer, origin.load, 60, origin.clock)
    for turn in ("first", "second", "third"):
        got = trial.call(get, "a")
        trial.expect(
            got == "a, load 1",
            f"The {turn} get('a') gave {short(got)}; what was loaded is 'a, load 1'."
            if len(origin.of) == 1
            else f"The {turn} get('a') gave {short(got)}, and nothing had been loaded."
            if not origin.of
            else f"By the {turn} get('a') there were {len(origin.of)} loads at the same second;"
            " expected was 1.",
        )
    trial.expect(
        len(origin.of) == 1,
        f"Three reads of one key in the same second loaded it {len(origin.of)} times; expected"
        " was 1.",
    )


def _by_the_clock(answer: Any, trial: Trial) -> None:
    for ttl in (60, 0.5):
        origin = Loads()
        get = _made(trial, answer, origin.load, ttl, origin.clock)
        trial.call(get, "a")
        origin.now = ttl * 0.98
        trial.call(get, "a")
        trial.expect(
            len(origin.of) == 1,
            f"With a TTL of {ttl} s a value was loaded again at an age of {origin.now:g} s.",
        )
        origin = Loads()
        get = _made(trial, answer, origin.load, ttl, origin.clock)
        trial.call(get, "a")
        origin.now = ttl * 1.02
        got = trial.call(get, "a")
        trial.expect(
            got == "a, load 2",
            f"With a TTL of {ttl} s a value was still served at an age of {origin.now:g} s, by the"
            " clock that was passed in.",
        )
    origin = Loads()
    get = _made(trial, answer, origin.load, 60, origin.clock)
    for origin.now in (0.0, 30.0, 59.0):
        trial.call(get, "a")
    origin.now = 61.0
    trial.call(get, "a")
    trial.expect(
        len(origin.of) == 2,
        "A key that was loaded at 0 s and read at 30 s and 59 s was still served at 61 s: reading"
        " must not make it live longer.",
    )
    origin = Loads()
    get = _made(trial, answer, origin.load, 60, origin.clock)
    trial.call(get, "a")
    origin.now = 60.0
    trial.call(get, "a")
    trial.expect(
        len(origin.of) == 2,
        "With a TTL of 60 s a value was still served at an age of exactly 60 s; less than the TTL"
        " was asked.",
    )


def _key_by_key(answer: Any, trial: Trial) -> None:
    origin = Loads()
    get = _made(trial, answer, origin.load, 60, origin.clock)
    trial.call(get, "a")
    origin.now = 50.0
    got = trial.call(get, "b")
    trial.expect(got == "b, load 1", f"After a read of 'a', get('b') gave {short(got)}.")
    origin.now = 61.0
    got = trial.call(get, "a")
    trial.expect(
        got == "a, load 2",
        "'a' was loaded at 0 s and 'b' at 50 s; at 61 s the old 'a' was still served: each key"
        " needs a time of its own.",
    )
    trial.call(get, "b")
    trial.expect(
        origin.of.count("b") == 1,
        "'b' was loaded at 50 s, and again at 61 s, when only 'a' was too old.",
    )
    origin = Loads()
    get = _made(trial, answer, origin.load, 60, origin.clock)
    for key in (1, "1", ("1",)):
        trial.call(get, key)
    trial.expect(
        len(origin.of) == 3,
        "After get(1), get('1') and get(('1',)) there were"
        f" {len(origin.of)} loads: these are three keys, though they look alike as text.",
    )
    origin = Loads()
    get = _made(trial, answer, origin.load, 60, origin.clock)
    many = [f"page {number}" for number in range(200)]
    trial.call(lambda: [get(key) for key in many * 2])
    trial.expect(
        len(origin.of) == 200,
        f"200 keys were read twice within the TTL, and that took {len(origin.of)} loads: this"
        " cache has no bound but the TTL.",
    )


def _every_value(answer: Any, trial: Trial) -> None:
    values: tuple[Any, ...] = (0, "", [], False, None)
    for value in values:
        origin = Loads()
        origin.values["a"] = value
        get = _made(trial, answer, origin.load, 60, origin.clock)
        got = [trial.call(get, "a") for _ in range(3)]
        trial.expect(
            all(type(one) is type(value) and one == value for one in got),
            f"The origin gave {value!r}, and three reads gave {short(got)}.",
        )
        trial.expect(
            len(origin.of) == 1,
            f"The origin gave {value!r}: three reads loaded it {len(origin.of)} times; expected"
            " was 1.",
        )


def _outcome(ended: Any) -> str:
    return short(ended.value) if ended.error is None else say_error(ended.error)


# lru -----------------------------------------------------------------------------------------


def judge_lru(answer: Any, trial: Trial) -> str:
    """The least recently used goes, nobody else, and it is really gone."""
    origin = Loads()
    get = _made(trial, answer, origin.load, 3)
    for turn in ("first", "second"):
        got = trial.call(get, "a")
        trial.expect(
            got == "a, load 1",
            f"The {turn} get('a') gave {short(got)} after {len(origin.of)} loads; expected was what"
            " the first load gave.",
        )
    _same_room(answer, trial)
    _who_goes(answer, trial)
    values: tuple[Any, ...] = (None, 0, [])
    for value in values:
        origin = Loads()
        origin.values["a"] = value
        get = _made(trial, answer, origin.load, 3)
        got = [trial.call(get, "a") for _ in range(3)]
        trial.expect(
            got == [value] * 3 and len(origin.of) == 1,
            f"The origin gave {value!r}: three reads gave {short(got)} and loaded"
            f" {len(origin.of)} times; expected was 1.",
        )
    _a_failed_load(answer, trial)
    loads, least = _stream(answer, trial, room=10)
    trial.expect(
        loads == least,
        f"2,000 reads of 50 keys with room for 10 took {loads:,} loads; with the least recently"
        f" used going each time it is {least:,}.",
    )
    _is_gone(answer, trial)
    return f"2,000 reads of 50 keys with room for 10 took {loads:,} loads, as LRU does."


def _reload(answer: Any, trial: Trial, room: int, reads: Iterable[str], probe: str) -> bool:
    """Whether `probe` is loaded when it is read after `reads`, in a cache of its own."""
    origin = Loads()
    get = _made(trial, answer, origin.load, room)
    for key in reads:
        trial.call(get, key)
    before = len(origin.of)
    trial.call(get, probe)
    return len(origin.of) > before


def _same_room(answer: Any, trial: Trial) -> None:
    for room in (3, 1):
        keys = "abc"[:room]
        lost = [key for key in keys if _reload(answer, trial, room, keys, key)]
        trial.expect(
            not lost,
            f"With room for {room}, after reads of {_and(keys)} another read of {_and(lost)} went"
            " to the origin: there was room.",
        )


def _who_goes(answer: Any, trial: Trial) -> None:
    reads = ["a", "b", "c", "a", "d"]
    lost = [key for key in ("a", "c", "d") if _reload(answer, trial, 3, reads, key)]
    trial.expect(
        not lost,
        f"With room for 3, after reads of {_and(reads)} in this order, {_and(lost)} had to go; the"
        " least recently used is b.",
    )
    eight = "abcdefgh"
    held = sum(not _reload(answer, trial, 3, eight, key) for key in eight)
    trial.expect(
        held <= 3, f"With room for 3, after reads of eight keys {held} values are still there."
    )
    trial.expect(
        _reload(answer, trial, 3, reads, "b"),
        f"With room for 3, after reads of {_and(reads)}, b is still there: that makes four values.",
    )
    trial.expect(
        _reload(answer, trial, 1, "ab", "a"),
        "With room for 1, after reads of a and b, a is still there.",
    )


def _a_failed_load(answer: Any, trial: Trial) -> None:
    for probe in ("a", "b", "c"):
        origin = Loads()
        origin.fails = {"x"}
        get = _made(trial, answer, origin.load, 3)
        for key in ("a", "b", "c"):
            trial.call(get, key)
        ended = trial.attempt(get, "x")
        trial.expect(
            isinstance(ended.error, OriginDown),
            f"A load failed, and get gave {_outcome(ended)}: the caller has to see the error.",
        )
        before = len(origin.of)
        trial.call(get, probe)
        trial.expect(
            len(origin.of) == before,
            f"A load failed in a full cache, and {probe} had to go for a value that never came.",
        )


def _stream(answer: Any, trial: Trial, room: int) -> tuple[int, int]:
    """Loads of the answer, and of an LRU, on the same reads."""
    draw = random.Random(2)
    keys = [f"page {int(50 * draw.random() ** 2)}" for _ in range(2_000)]
    origin = Loads()
    get = _made(trial, answer, origin.load, room)
    trial.call(lambda: [get(key) for key in keys])
    kept: OrderedDict[str, None] = OrderedDict()
    least = 0
    for key in keys:
        if key not in kept:
            least += 1
            if len(kept) == room:
                kept.popitem(last=False)
        kept[key] = None
        kept.move_to_end(key)
    return len(origin.of), least


class _Key(str):
    """A key of which one can tell whether it is still held."""


class _Page:
    """A value of which one can tell whether it is still held."""


def _is_gone(answer: Any, trial: Trial) -> None:
    held: dict[str, weakref.WeakSet[Any]] = {"values": weakref.WeakSet(), "keys": weakref.WeakSet()}

    def load(key: Hashable) -> Any:
        page = _Page()
        held["values"].add(page)
        return page

    get = _made(trial, answer, load, 10)

    def read_many() -> None:
        for number in range(2_000):
            key = _Key(f"page {number}")
            held["keys"].add(key)
            get(key)

    trial.call(read_many)
    gc.collect()
    pages, keys = len(held["values"]), len(held["keys"])
    trial.expect(
        pages <= 10,
        f"After reads of 2,000 different keys with room for 10, {pages:,} values are still held in"
        " memory.",
    )
    trial.expect(
        keys <= 10,
        f"After reads of 2,000 different keys with room for 10, {keys:,} keys are still held in"
        " memory, though their values have gone.",
    )


def _and(keys: Sequence[str]) -> str:
    *first, last = keys or [""]
    return f"{', '.join(first)} and {last}" if first else last


# refresh -------------------------------------------------------------------------------------


class TableOrigin:
    """An origin that gives a whole table, and its clock."""

    def __init__(self, table: dict[str, Any] | None = None) -> None:
        self.now = 1_000.0
        self.loads = 0
        self.down = False
        self.takes = 0.0
        self.rates: dict[str, Any] = {"EUR": 1.0, "USD": 1.1} if table is None else table

    def clock(self) -> float:
        return self.now

    def load(self) -> dict[str, Any]:
        self.loads += 1
        self.now += self.takes
        if self.down:
            raise OriginDown("the origin does not answer")
        return dict(self.rates)


def judge_refresh(answer: Any, trial: Trial) -> None:
    """Loaded on start, then hourly; a failed refresh keeps the old table and is not repeated."""
    origin = TableOrigin()
    origin.down = True
    ended = trial.attempt(answer, origin.load, origin.clock)
    if ended.error is None:
        trial.expect(origin.loads, "make_table loaded nothing: the table is loaded on start.")
        trial.fail(
            "The first load failed, and make_table returned as if nothing had happened: a pod"
            " without a table must not start."
        )
    trial.expect(
        isinstance(ended.error, OriginDown),
        f"The first load failed, and make_table raised {_outcome(ended)} instead of the origin's"
        " error.",
    )

    origin = TableOrigin()
    table = _made(trial, answer, origin.load, origin.clock)
    trial.expect(
        origin.loads == 1, f"On start the table was loaded {origin.loads} times; once is enough."
    )
    old = dict(origin.rates)
    for after in (0, 1, 1_800, 3_599):
        origin.now = 1_000.0 + after
        _expect_table(trial, table, old, f"{after:,} s after the start, table()")
    trial.expect(
        origin.loads == 1,
        f"Within the first hour the table was loaded {origin.loads} times; expected was 1, on"
        " start.",
    )
    given = trial.call(table)
    origin.rates = {"EUR": 1.0, "CHF": 0.95}
    for hour in (1, 2):
        origin.now = 1_000.0 + 3_600 * hour
        origin.rates["hour"] = hour
        _expect_table(trial, table, origin.rates, f"{3_600 * hour:,} s after the start, table()")
        trial.expect(
            origin.loads == 1 + hour,
            f"{3_600 * hour:,} s after the start there were {origin.loads} loads; expected were"
            f" {1 + hour}.",
        )
    trial.expect(
        given == old,
        f"A reader was given {short(old)}, and after a refresh it had become {short(given)} in"
        " their hands.",
    )
    _failing_refresh(answer, trial)
    empty = TableOrigin({})
    table = _made(trial, answer, empty.load, empty.clock)
    for _ in range(3):
        _expect_table(trial, table, {}, "The origin's table was empty; table()")
    trial.expect(
        empty.loads == 1,
        f"The origin's table was empty, and three reads loaded it {empty.loads} times in all;"
        " expected was 1.",
    )
    emptied = TableOrigin()
    table = _made(trial, answer, emptied.load, emptied.clock)
    emptied.now, emptied.rates = emptied.now + 3_600, {}
    _expect_table(trial, table, {}, "The origin's table was emptied; an hour later table()")
    _slow_and_silent(answer, trial)


def _slow_and_silent(answer: Any, trial: Trial) -> None:
    """Age counts from the beginning of a load, and hours without a reader are not made up for."""
    origin = TableOrigin()
    origin.takes = 100.0
    table = _made(trial, answer, origin.load, origin.clock)
    for number, load in ((2, "The first load"), (3, "The second load")):
        began = origin.now - origin.takes
        origin.now = began + 3_600
        trial.call(table)
        trial.expect(
            origin.loads == number,
            f"{load} took 100 s, and 3,600 s after it began its table was still given: age counts"
            " from the beginning of the load.",
        )
    origin = TableOrigin()
    table = _made(trial, answer, origin.load, origin.clock)
    origin.now += 10.5 * 3_600
    for _ in range(5):
        trial.call(table)
        origin.now += 1
    trial.expect(
        origin.loads == 2,
        "For ten and a half hours nobody asked; the five reads after that, a second apart, loaded"
        f" {origin.loads - 1} times; expected was 1.",
    )


def _failing_refresh(answer: Any, trial: Trial) -> None:
    origin = TableOrigin()
    table = _made(trial, answer, origin.load, origin.clock)
    old = dict(origin.rates)
    origin.now += 3_600
    origin.down = True
    ended = trial.attempt(table)
    trial.expect(
        ended.error is None,
        "The hourly refresh failed, and the reader got the error; expected was the old table.",
    )
    trial.expect(
        ended.value == old,
        f"The hourly refresh failed, and table() gave {short(ended.value)}; the old table is"
        f" {short(old)}.",
    )
    trial.expect(
        origin.loads == 2, f"For the hourly refresh there were {origin.loads - 1} loads, not one."
    )
    for _ in range(59):
        origin.now += 1
        _expect_table(trial, table, old, "While the origin was down, table()")
    trial.expect(
        origin.loads == 2,
        "The refresh failed, and within the next minute the origin was asked again"
        f" ({origin.loads - 2} more loads); expected was a minute of peace.",
    )
    origin.now += 2
    _expect_table(trial, table, old, "While the origin was down for the second minute, table()")
    trial.expect(
        origin.loads == 3,
        "61 s after a failed refresh the next read did not try again; it should, once a minute.",
    )
    origin.now += 1
    _expect_table(trial, table, old, "While the origin was down for the second minute, table()")
    trial.expect(
        origin.loads == 3,
        "A refresh that failed for the second time was tried again a second later: each failure"
        " gives a minute of peace.",
    )
    origin.down, origin.rates = False, {"EUR": 1.0}
    origin.now += 61
    back = origin.now
    _expect_table(trial, table, origin.rates, "A minute after the origin had come back, table()")
    for _ in range(30):
        origin.now += 100
        trial.call(table)
    trial.expect(
        origin.loads <= 5,
        f"After the origin had come back there were {origin.loads - 3} loads within 50 minutes;"
        " expected was 1, then an hour of rest.",
    )
    origin.now, origin.rates = back + 3_600, {"EUR": 1.0, "SEK": 11.0}
    _expect_table(trial, table, origin.rates, "An hour after the origin had come back, table()")


def _expect_table(trial: Trial, table: Any, right: dict[str, Any], when: str) -> None:
    got = trial.call(table)
    trial.expect(got == right, f"{when} gave {short(got)}; expected was {short(right)}.")


# broadcast -----------------------------------------------------------------------------------

FLAG, OTHER = "new_checkout", "recommendations"
STARTS = {"pod A": 0.0, "pod B": 7.0, "pod C": 14.0}  # they read at whole seconds
UNTIL = 300.0


def judge_broadcast(answer: Any, trial: Trial) -> str:
    """Told at once, and if not told, right after the TTL; one flag at a time."""
    # Off the stage a pod that listens in a thread would never come to an end; without a cache it
    # does not come to listening, and everything else that an answer may do is seen.
    world = trial.world()
    world.cache_down()
    ended = trial.attempt(answer, world.cache, world.db)
    if ended.error is None:
        _expect_function(trial, ended.value)
    elif not isinstance(ended.error, redis.RedisError):
        trial.fail(ended.sentence(trial.exercise.function))
    _one_pod(answer, trial)

    run = _pods(answer, trial, 100.5, _flips)
    late = _late(run, 100.5)
    trial.expect(
        late <= 1.5,
        f"A flag was flipped and broadcast, and {late:.0f} s later a pod still gave the old value.",
        trace=run,
    )
    _expect_queries(trial, run, 20, "one message")
    lost = _pods(answer, trial, 14.5, _flips, faults=[stage.DropMessage("flags")])
    lag = _late(lost, 14.5)
    trial.expect(
        lag <= 60,
        f"A message was lost, and {lag:.0f} s after the flip a pod still gave the old value; the"
        " TTL is 60 s.",
        trace=lost,
    )
    _expect_queries(trial, lost, 18, "no message")
    chatter = _pods(answer, trial, 10.5, _chats)
    _expect_queries(trial, chatter, 18, "50 messages about another flag")
    many = _pods(answer, trial, 100.5, _flips_after_others)
    late = _late(many, 100.5)
    trial.expect(
        late <= 1.5,
        f"Ten messages came at once, the last of them about this flag, and {late:.0f} s later a pod"
        " still gave the old value: hear all that has arrived.",
        trace=many,
    )
    _during_a_load(answer, trial)
    _read_seldom(answer, trial)
    return f"A flip is seen at the next read; with its message lost, within {lag + 1.5:.0f} s."


def _one_pod(answer: Any, trial: Trial) -> None:
    """Every kind of answer, remembered, in the pod's own memory, without waiting."""
    asked: list[int] = []

    def reads(cache: Any, db: Any) -> Any:
        is_on, got = answer(cache, db), []
        if not callable(is_on):
            return is_on
        for name in (OTHER, FLAG, "no such flag"):
            before = db.queries
            got.append([is_on(name) for _ in range(3)])
            asked.append(db.queries - before)
        return got

    run = trial.play({"pod": reads})
    got = run.answers["pod"]
    if isinstance(got, BaseException):
        trial.fail(f"is_on raised {say_error(got)}.", trace=run)
    if len(asked) < 3:
        _expect_function(trial, got)
    cases = ((OTHER, True), (FLAG, False), ("no such flag", None))
    for (name, truth), values, queries in zip(cases, got, asked, strict=True):
        for turn, value in zip(("first", "second", "third"), values, strict=True):
            trial.expect(
                value is truth,
                f"The {turn} is_on({name!r}) gave {short(value)}; the database has {truth}.",
                trace=run,
            )
        trial.expect(
            queries == 1,
            f"Three reads of {name!r}, which is {truth}, asked {queries} queries; expected was 1.",
            trace=run,
        )
    trial.expect(
        run.elapsed < 0.5,
        f"Nine reads took {run.elapsed:.0f} s: is_on waits for messages instead of hearing those"
        " that have arrived.",
        trace=run,
    )
    stored = [str(key) for key in run.world.cache.keys()]
    trial.expect(
        not stored,
        f"The pod stored {short(', '.join(stored))} in the shared cache; its memory is its own.",
        trace=run,
    )


def _pods(
    answer: Any, trial: Trial, at: float, admin: Callable[..., Any], **options: Any
) -> StageTrace:
    """Three pods that read once a second until 300 s; each answers its (seconds, value)s."""
    actors: dict[str, Any] = {name: (start, _pod(answer, start)) for name, start in STARTS.items()}
    run = trial.play({**actors, "admin": (at, admin)}, **options)
    for name in STARTS:
        got = run.answers[name]
        if isinstance(got, BaseException):
            trial.fail(f"On {name} is_on({FLAG!r}) raised {say_error(got)}.", trace=run)
    return run


def _pod(answer: Any, start: float) -> Callable[..., Any]:
    def serve(cache: Any, db: Any) -> list[tuple[float, Any]]:
        zero = time.monotonic() - start
        is_on, seen = answer(cache, db), []
        while (at := time.monotonic() - zero) < UNTIL:
            seen.append((at, is_on(FLAG)))
            time.sleep(1)
        return seen

    return serve


def _flips(cache: Any, db: Any) -> None:
    db.set_flag(FLAG, True)
    cache.publish("flags", FLAG)


def _chats(cache: Any, db: Any) -> None:
    for _ in range(50):
        cache.publish("flags", OTHER)
        time.sleep(5)


def _flips_after_others(cache: Any, db: Any) -> None:
    db.set_flag(FLAG, True)
    for name in [OTHER] * 9 + [FLAG]:
        cache.publish("flags", name)


def _late(run: StageTrace, flipped: float) -> float:
    """Seconds from the flip to the last read that still gave the old value; 0 if none did."""
    reads: list[tuple[float, Any]] = [read for name in STARTS for read in run.answers[name]]
    return max([at - flipped for at, value in reads if at > flipped and value is not True] + [0.0])


def _expect_queries(trial: Trial, run: StageTrace, most: int, heard: str) -> None:
    trial.expect(
        run.queries <= most,
        f"In five minutes with {heard} three pods asked {run.queries} queries; with a TTL of 60 s"
        f" {most} are enough.",
        trace=run,
    )


def _read_seldom(answer: Any, trial: Trial) -> None:
    """The first read after a message is right already, and a message may come twice."""

    def seldom(cache: Any, db: Any) -> list[Any]:
        is_on, got = answer(cache, db), []
        for _turn in range(3):
            got.append(is_on(FLAG))
            time.sleep(20)
        return got

    def tells_twice(cache: Any, db: Any) -> None:
        _flips(cache, db)
        time.sleep(20)
        cache.publish("flags", FLAG)

    run = trial.play({"pod A": seldom, "admin": (10.0, tells_twice)})
    got = run.answers["pod A"]
    if isinstance(got, BaseException):
        trial.fail(f"On pod A is_on({FLAG!r}) raised {say_error(got)}.", trace=run)
    trial.expect(
        got[1] is True,
        "A flag was flipped and broadcast, and the first read, 10 s later, still gave the old"
        " value: what has arrived is heard before the answer.",
        trace=run,
    )
    trial.expect(
        got[2] is True,
        "The same flag was named a second time, without a flip, and is_on gave"
        f" {short(got[2])}: a message says that something may have changed, not what it is now.",
        trace=run,
    )


def _during_a_load(answer: Any, trial: Trial) -> None:
    """The pod asks from 1 s to 3 s; the flip is committed and told at 2 s."""
    run = trial.play({"pod A": (1.0, _pod(answer, 1.0)), "admin": (0.0, _flips)}, latency=2.0)
    got = run.answers["pod A"]
    if isinstance(got, BaseException):
        trial.fail(f"While the database was slow, is_on raised {say_error(got)}.", trace=run)
    wrong = [at for at, value in got if at >= 3.5 and value is not True]
    heard = [event.detail for event in run if event.what == "PUBLISH"]
    trial.expect(
        not wrong or heard != ["0"],
        "A pod asked the database before it had subscribed: the message that was sent meanwhile"
        f" reached nobody, and until {max(wrong, default=0):.0f} s it gave the old value.",
        trace=run,
    )
    trial.expect(
        not wrong,
        "A message came while the pod was asking the database, and"
        f" {max(wrong, default=0) - 2:.0f} s later it still gave the old value: what it was"
        " loading was old already.",
        trace=run,
    )
