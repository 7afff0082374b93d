"""Checks and hints of lab 17: a diagnosis with evidence, five parts mended, the night, the page."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from typing import Any

import redis
import sqlalchemy as sa

from cachelab.incident.evidence import INNOCENT, SUSPECTS, alibi, evidence, objection
from cachelab.incident.night import Run, Score, actors_of, judged, options, play, repaired
from cachelab.incident.parts import FAULTS, LONGEST, SOUND
from cachelab.incident.pods import ConnectionLimit, hash_per_process, open_pod
from cachelab.incident.report import TEMPLATE
from cachelab.incident.scenario import Scenario, load, scenario
from cachelab.incident.service import row
from cachelab.judge.trial import JudgingEnded, Trial
from cachelab.judge.world import TrialWorld
from cachelab.origin import Product
from cachelab.process.limits import say_error
from cachelab.record.trace import Trace, say_seconds
from cachelab.record.verdict import short
from cachelab.stage import SlowCommand, threads

NIGHT = "three_in_the_morning"
BEFORE = Score(answers=1_360, wrong=172, slow=151, queries=441)  # of that night, as it was
NIGHT_SECONDS = 7.5  # real ones, for a whole night


@cache
def that_night() -> Run:
    """The night of the chapter, as it was."""
    return play(NIGHT)


@cache
def _shown() -> dict[str, set[int]]:
    return evidence(that_night())


def _only(faults: tuple[str, ...], mix: dict[str, float], **events: Any) -> Scenario:
    """Six minutes in which mostly the pages of one fault are asked for."""
    data = {
        "title": "one fault",
        "pager": "one fault",
        "clock": "03:00",
        "faults": list(faults),
        "traffic": {"seed": 17, "seconds": 360, "rate": 0.8, "mix": mix},
        "events": events,
        "database": {"slots": 2},
        "good": {"wrong": 0, "slow": 1_000, "queries": 1_000},
    }
    return scenario(data)


def _replay(trial: Trial, night: Scenario, fixes: Mapping[str, Any], seconds: float = 6) -> Run:
    """The traffic of a night with its faults planted, and the learner's parts in their places."""
    actors, playing = actors_of(night, repaired(night.faults, fixes))
    with hash_per_process(fixes.values()):
        trace = trial.play(actors, seconds=seconds, **options(night))
    return judged(playing, trace, night.faults)


def _wrong_answer(run: Run) -> str:
    """The first wrong answer of a run, as a clause."""
    first = next(answer for answer in run.answers if answer.wrong)
    asked, when = first.request, run.night.time_of_day(first.request.at)
    said = "not found" if first.said is None else short(first.said, 40)
    return f"the first at {when}, {asked.page} {asked.about}: {said}"


def _expect_no_wrong_answer(trial: Trial, run: Run) -> None:
    score = run.score
    if score.wrong:
        trial.fail(
            f"In six minutes of traffic {score.wrong} of {score.answers} answers were older than"
            f" promised, {_wrong_answer(run)}.",
            trace=run.trace,
        )
    failed = [answer for answer in run.answers if answer.failure]
    if failed:
        trial.fail(
            f"In six minutes of traffic {len(failed)} customers got an error: {failed[0].failure}.",
            trace=run.trace,
        )


# diagnose ------------------------------------------------------------------------------------


def judge_diagnose(answer: Any, trial: Trial) -> str:
    """Six faults are named, none that was not there, and each with entries that show it."""
    given = trial.call(answer)
    if not isinstance(given, Mapping) or not given:
        trial.fail(
            f"diagnose gave {short(given)}; expected was a dict from faults to entries of the"
            ' journal, such as {"pool_of_100": [123]}.'
        )
    night, shown = that_night(), _shown()
    for name in given:
        if not isinstance(name, str) or name not in SUSPECTS:
            trial.fail(f"{short(name)} is none of the suspects: {', '.join(SUSPECTS)}.")
        if name in INNOCENT:
            trial.fail(f"{name} was not it: {alibi(name)}.")
    for name, cited in given.items():
        numbers = list(cited) if isinstance(cited, (list, tuple, set)) else [cited]
        if not numbers:
            trial.fail(f"{name}: no entry of the journal is cited; expected was at least one.")
        for number in numbers:
            complaint = objection(night, name, number, shown)
            if complaint:
                trial.fail(f"{name}: {complaint}.")
    missing = len(night.faults) - len(given)
    if missing:
        trial.fail(
            f"{len(given)} of six faults are shown; {missing} {'is' if missing == 1 else 'are'}"
            " still to be found."
        )
    everybody = Counter(n for cited in given.values() for n in _list(cited))
    number, often = everybody.most_common(1)[0]
    trial.expect(often <= 2, f"Entry {number} is cited for {often} faults; each has its own.")
    return "Six faults, each shown by the journal, and nobody innocent accused."


def _list(cited: Any) -> list[Any]:
    return list(cited) if isinstance(cited, (list, tuple, set)) else [cited]


# lifetime ------------------------------------------------------------------------------------

LIFETIMES = _only(
    ("one_ttl", "absent_for_ever"),
    {"stock": 40, "missing": 25, "product": 25, "search": 10},
    stock_every=5,
    launch_at=100,
)
MOST_LIFETIME_QUERIES = 240


def judge_lifetime(answer: Any, trial: Trial) -> str:
    """Within each kind's bound, absence briefly, spread; and nothing old in six minutes."""
    for kind, longest in LONGEST.items():
        if kind == "absent":
            continue
        for found in (True, False):
            bound = longest if found else min(longest, LONGEST["absent"])
            what = f"lifetime({kind!r}, {found})"
            draws = trial.call(
                lambda kind=kind, found=found: [answer(kind, found) for _ in range(400)]
            )
            _expect_lifetimes(trial, what, bound, draws)
    run = _replay(trial, LIFETIMES, {"lifetime": answer})
    _expect_no_wrong_answer(trial, run)
    trial.expect(
        run.score.queries <= MOST_LIFETIME_QUERIES,
        f"Six minutes of traffic took {run.score.queries} queries; {MOST_LIFETIME_QUERIES} are"
        " enough.",
        trace=run.trace,
    )
    return (
        f"Within every bound and spread; six minutes of traffic, no wrong answer,"
        f" {run.score.queries} queries."
    )


def _expect_lifetimes(trial: Trial, what: str, bound: int, draws: list[Any]) -> None:
    odd = next((drawn for drawn in draws if type(drawn) is not int), 0)
    trial.expect(
        odd is not None,
        f"{what} gave None, and a copy without a TTL stays for ever; at most {bound} s were asked.",
    )
    trial.expect(
        type(odd) is int, f"{what} gave {short(odd)}; whole seconds, an int, were expected."
    )
    most, least = max(draws), min(draws)
    trial.expect(
        most <= bound,
        f"{what}: of 400 copies one lives {most} s; {bound} s is the longest allowed.",
    )
    trial.expect(least >= 1, f"{what} gave {least} s, and `EX {least}` is an error; from 1 on.")
    trial.expect(
        least >= bound / 2,
        f"{what}: of 400 copies one lives only {least} s where {bound} s are allowed, and each copy"
        " that ends early is a query; at least half were asked.",
    )
    if bound >= 90:
        value, often = Counter(draws).most_common(1)[0]
        trial.expect(
            often <= 60,
            f"{what}: of 400 copies {often} live exactly {value} s, so what was filled together"
            " expires together.",
        )
        trial.expect(
            most - least >= 0.1 * bound,
            f"{what}: 400 copies live {least} to {most} s; spread over at least a tenth of"
            f" {bound} s was asked.",
        )


# key -----------------------------------------------------------------------------------------

SEARCHES = _only(("hash_in_key",), {"search": 90, "product": 10}, restart_every=40)
MOST_SEARCHES = 18
TRICKY = (
    *("lamp", "palm", "lamp lamp", "red lamp", "redlamp", "lamp red", "chair", "Stühle", "Stuhle"),
    *("Sthle", " lamp", "red_lamp", "red+lamp"),
    *("a:b c", "a b:c", "lamp%", "lamp*", "", "0", "None", "l", "x" * 300, "x" * 299 + "y"),
)

SAME_CRC = ("plumless", "buckeroo")


def judge_key(answer: Any, trial: Trial) -> str:
    """One key for the same words in every process, another one for other words."""

    def as_pod(pod: str, words: str) -> Any:
        with Trace().acting(f"{pod} r1"), hash_per_process([answer]):
            return answer(words)

    keys: dict[str, str] = {}
    for words in TRICKY:
        key = trial.call(as_pod, "pod-1.1", words)
        if not isinstance(key, str) or not key.startswith("search:"):
            trial.fail(
                f"search_key({short(words, 30)}) gave {short(key, 50)}; expected was a text that"
                ' begins with "search:".'
            )
        again = trial.call(as_pod, "pod-1.1", words)
        trial.expect(
            key == again,
            f"search_key({short(words, 30)}) gave {short(key, 50)} and then {short(again, 50)} in"
            " one process: no copy would ever be found again.",
        )
        for pod in ("pod-2.1", "pod-1.2"):
            other = trial.call(as_pod, pod, words)
            trial.expect(
                other == key,
                f"search_key({short(words, 30)}) gave {short(key, 50)} in one process and"
                f" {short(other, 50)} in another: neither finds what the other has stored.",
            )
        same = next((known for known, one in keys.items() if one == key), None)
        trial.expect(
            same is None,
            f"search_key gave {short(key, 50)} both for {short(same, 30)} and for"
            f" {short(words, 30)}: one would be served the other's results.",
        )
        keys[words] = key
    many = trial.call(
        lambda: [answer(f"{word} {number}") for word in ("lamp", "rug") for number in range(1_500)]
    )
    often = Counter(map(str, many)).most_common(1)[0][1]
    trial.expect(
        often == 1,
        f"3,000 different searches have {len(set(map(str, many))):,} different keys; expected was"
        " one each.",
    )
    one, other = trial.call(lambda: [answer(words) for words in SAME_CRC])
    trial.expect(
        one != other,
        f"search_key gave {short(one, 50)} both for {SAME_CRC[0]!r} and for {SAME_CRC[1]!r}, which"
        " have the same CRC-32: one would be served the other's results.",
    )
    run = _replay(trial, SEARCHES, {"search_key": answer})
    _expect_no_wrong_answer(trial, run)
    asked = sum(event.took >= 1.1 for event in run.trace.of("query"))
    trial.expect(
        asked <= MOST_SEARCHES,
        f"In six minutes with eight restarts {asked} searches reached the database; expected were"
        f" {MOST_SEARCHES} at most.",
        trace=run.trace,
    )
    return (
        f"The same key in every process; {asked} slow searches in six minutes and eight restarts."
    )


# lock ----------------------------------------------------------------------------------------

KEY = "best:v1:kitchen"
LOCK = f"lock:{KEY}"
TTL = 90
BESTS = _only(("lock_without_token",), {"best": 60, "stock": 25, "product": 15}, stock_every=20)


def judge_lock(answer: Any, trial: Trial) -> str:
    """One query at a time however slow; a lock that was lost is nobody's to free or store under."""
    _alone(answer, trial)
    world = trial.world()
    world.put(LOCK, "somebody", seconds=20)
    loaded: list[int] = []

    def load_one() -> list[int]:
        loaded.append(1)
        return [1]

    got = trial.call(answer, world.cache, KEY, load_one, TTL)
    trial.expect(
        not loaded and got is None,
        "Somebody else had the lock, and rebuild"
        f" {'asked the database' if loaded else f'gave {short(got)}, where None was expected'}.",
    )
    trial.expect(
        world.peek(LOCK) == "somebody",
        f"Somebody else had the lock, and afterwards it held {short(world.peek(LOCK))}.",
    )

    world = trial.world()
    world.put(KEY, "[7, 8]", seconds=TTL)
    got = trial.call(answer, world.cache, KEY, load_one, TTL)
    trial.expect(
        not loaded,
        "The last owner had filled the key before rebuild got the lock, and it was loaded again:"
        " look once more when you have the lock.",
    )
    trial.expect(got == [7, 8], f"A copy was there, [7, 8], and rebuild gave {short(got)}.")
    _expect_free(trial, world, "a copy was found")
    world.put(KEY, "[]", seconds=TTL)
    got = trial.call(answer, world.cache, KEY, load_one, TTL)
    trial.expect(
        not loaded and got == [],
        f"A copy was there, [], and {'it was loaded again' if loaded else f'rebuild gave {got}'}:"
        " an empty list is a value too.",
    )

    world = trial.world()

    def fails() -> Any:
        raise RuntimeError("the query failed")

    ended = trial.attempt(answer, world.cache, KEY, fails, TTL)
    trial.expect(
        ended.error is not None,
        f"The query failed, and rebuild gave {short(ended.value)}: its caller has to see that.",
    )
    _expect_free(trial, world, "the query had failed")
    _lost(answer, trial)
    _whenever_it_is_lost(answer, trial)
    _two_at_once(answer, trial)

    def reader(cache_: Any, db: Any) -> Any:
        def load() -> Any:
            db.latency = 18
            return [db.stock(1)]

        return answer(cache_, KEY, load, TTL)

    run = trial.play({f"reader {at}": (at, reader) for at in (0, 1, 4, 9, 15)}, latency=18)
    trial.expect(
        run.queries == 1,
        f"A query took 18 s, five readers came meanwhile, and {run.queries} of them asked the"
        " database: a lock has to last longer than the slowest query, 20 s.",
        trace=run,
    )
    played = _replay(trial, BESTS, {"rebuild": answer})
    _expect_no_wrong_answer(trial, played)
    most = _at_once(played)
    trial.expect(
        most <= 1,
        f"In six minutes of traffic {most} slow queries ran at once, and the database has two"
        " slots.",
        trace=played.trace,
    )
    return "One slow query at a time, and a lock that only its owner can free."


def _alone(answer: Any, trial: Trial) -> None:
    """Twice on an empty cache: the value, the copy, the lock meanwhile and afterwards."""
    tokens = []
    for _ in range(2):
        world = trial.world()
        seen: list[tuple[Any, float | None]] = []

        def load(world: TrialWorld = world, seen: list[Any] = seen) -> list[int]:
            seen.append((world.peek(LOCK), world.ttl(LOCK)))
            return [40, 15]

        got = trial.call(answer, world.cache, KEY, load, TTL)
        trial.expect(
            got == [40, 15], f"On an empty cache rebuild gave {short(got)}, not what load gave."
        )
        trial.expect(len(seen) == 1, f"On an empty cache rebuild called load {len(seen)} times.")
        token, left = seen[0]
        trial.expect(token is not None, f"While the query ran, nothing was stored under {LOCK}.")
        trial.expect(
            left is not None,
            "The lock has no TTL: if its owner dies, nobody ever asks the database again.",
        )
        trial.expect(
            20 < (left or 0) <= 120,
            f"The lock lasts {left:.0f} s; expected was longer than the slowest query, 20 s, and at"
            " most 120 s.",
        )
        try:
            same = json.loads(world.peek(KEY)) == [40, 15]
        except (TypeError, ValueError):
            same = False
        trial.expect(
            same, f"Under {KEY} is stored {short(world.peek(KEY))}, not the value as JSON."
        )
        life = world.ttl(KEY)
        trial.expect(
            life is not None and TTL - 1 <= life <= TTL,
            f"The copy under {KEY} lives {'for ever' if life is None else f'{life:g} s'}; expected"
            f" was ttl, {TTL} s.",
        )
        _expect_free(trial, world, "rebuild had returned")
        tokens.append(token)
    trial.expect(
        tokens[0] != tokens[1],
        f"Two calls used the same token, {short(tokens[0])}: then anybody may take a lock for"
        " theirs.",
    )


def _lost(answer: Any, trial: Trial) -> None:
    """The lock ended during the query and is somebody else's, who has stored a newer copy."""
    world = trial.world()

    def overtaken() -> list[str]:
        world.put(LOCK, "somebody", seconds=30)
        world.put(KEY, '["newer"]', seconds=TTL)
        return ["older"]

    trial.attempt(answer, world.cache, KEY, overtaken, TTL)
    trial.expect(
        world.peek(LOCK) == "somebody",
        "The lock ended during the query and became somebody else's, and rebuild freed it.",
    )
    trial.expect(
        world.peek(KEY) == '["newer"]',
        "The lock ended during the query and became somebody else's, and rebuild stored its older"
        " copy over theirs.",
    )

    world = trial.world()

    def outlived() -> list[str]:
        world.put(LOCK, "somebody", seconds=30)
        return ["older"]

    trial.attempt(answer, world.cache, KEY, outlived, TTL)
    trial.expect(
        world.peek(KEY) is None,
        "The lock ended during the query and became somebody else's, who had not stored yet, and"
        " rebuild stored its older copy under it.",
    )


def _whenever_it_is_lost(answer: Any, trial: Trial) -> None:
    """After each cache command in turn, the lock becomes somebody else's."""
    commands, number = 1, 0
    while number < min(commands, 10):
        number += 1
        world = trial.world()
        lost: list[tuple[bool, bool]] = []  # had the lock a TTL, was the copy stored?

        def lose(world: TrialWorld = world, lost: list[tuple[bool, bool]] = lost) -> None:
            if world.peek(LOCK) is not None:
                lost.append((world.ttl(LOCK) is not None, world.peek(KEY) is not None))
                world.put(LOCK, "somebody", seconds=30)

        count = world.after_cache_command(number, lose)
        trial.attempt(answer, world.cache, KEY, lambda: [1], TTL)
        commands = max(commands, count())
        trial.expect(
            not lost or lost[0][0],
            "For one moment the lock was there without a TTL: if its owner dies just then, nobody"
            " ever asks the database again; one SET takes NX and EX together.",
        )
        trial.expect(
            not lost or world.peek(LOCK) == "somebody",
            "The lock became somebody else's between two commands, and rebuild freed it: look at"
            " the token and delete in one step.",
        )
        trial.expect(
            not lost or lost[0][1] or world.peek(KEY) is None,
            "The lock became somebody else's between two commands, and rebuild stored its copy"
            " under it: look at the token and store in one step.",
        )


def _two_at_once(answer: Any, trial: Trial) -> None:
    """Two callers on an empty cache, in every order: one query."""

    def caller(cache_: Any, db: Any) -> Any:
        return answer(cache_, KEY, lambda: [db.stock(1)], TTL)

    def once(stage_world: Any) -> str | None:
        asked = stage_world.trace.count("query")
        if asked == 1:
            return None
        return (
            f"two callers came to an empty cache, and the database was asked {asked} times: take"
            " the lock in one step, and look at the key once more when you have it."
        )

    trial.every_order({"one": caller, "other": caller}, once)


def _expect_free(trial: Trial, world: TrialWorld, when: str) -> None:
    trial.expect(
        world.peek(LOCK) is None,
        f"After {when} the lock was still there: until it ends nobody can fill the key.",
    )


def _at_once(run: Run) -> int:
    """How many slow queries ran at the same time, at most."""
    slow = [(e.at - e.took, e.at) for e in run.trace.of("query") if e.took > 8]
    return max((sum(a <= begin < b for a, b in slow) for begin, _ in slow), default=0)


# prices --------------------------------------------------------------------------------------

PRICES = _only(
    ("delete_before_commit",), {"product": 60, "shelf": 40}, price_jobs=[60, 130, 200, 270]
)


def _price(db: Any, product: int) -> Any:
    asked = sa.select(Product.price_cents).where(Product.id == product)
    with db.engine.connect() as connection:
        return connection.execute(asked).scalar_one()


def _same_json(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def judge_prices(answer: Any, trial: Trial) -> str:
    """One transaction, then the delete; in no order a customer keeps an old price."""
    world = trial.world()
    for product in (1, 2, 3):
        world.put(f"product:v1:{product}", "{}", seconds=600)
    wanted = {1: 1_234, 3: 99}
    trial.call(answer, world.cache, world.db, dict(wanted))
    found = {product: _price(world.truth, product) for product in wanted}
    trial.expect(
        found == wanted, f"The prices asked were {wanted}; in the database there are {found}."
    )
    commits = world.trace.count("commit")
    trial.expect(
        commits == 1,
        f"Two prices took {commits} commits; expected was one: all prices, or none.",
    )
    left = [product for product in wanted if world.peek(f"product:v1:{product}") == "{}"]
    trial.expect(not left, f"The copy of product {left[:1]} is still there, with its old price.")
    for product in wanted:
        stored, true = world.peek(f"product:v1:{product}"), json.dumps(row(world.truth, product))
        trial.expect(
            stored is None or _same_json(stored, true),
            f"The copy of product {product} is now {short(stored, 40)}, and a reader would have"
            f" stored {short(true, 80)}; delete it, and the next reader will.",
        )
    trial.expect(
        world.peek("product:v1:2") is not None,
        "The copy of product 2 is gone, and its price was not changed.",
    )

    world = trial.world()
    world.put("product:v1:1", "{}", seconds=600)
    world.break_database()
    ended = trial.attempt(answer, world.cache, world.db, {1: 5})
    trial.expect(
        ended.error is not None,
        f"The database failed, and change_prices gave {short(ended.value)}: its caller has to see"
        " that.",
    )

    def warm(cache_: Any, db: Any) -> None:
        cache_.set("product:v1:1", json.dumps(_price(db, 1)), ex=600)

    def reader(cache_: Any, db: Any) -> Any:
        raw = cache_.get("product:v1:1")
        if raw is None:
            raw = json.dumps(_price(db, 1))
            cache_.set("product:v1:1", raw, ex=600)
        return json.loads(raw)

    def job(cache_: Any, db: Any) -> None:
        answer(cache_, db, {1: 7})

    def not_old(world: Any) -> str | None:
        copy, truth = world.cache.get("product:v1:1"), _price(world.db, 1)
        if copy is None or str(truth) in copy:
            return None
        return (
            f"the price is {truth}, the copy says {copy}, and so it stays for ten minutes: somebody"
            " read the old row between the delete and the commit."
        )

    trial.every_order({"customer": reader, "price job": job}, not_old, setup=warm)
    run = _replay(trial, PRICES, {"change_prices": answer})
    _expect_no_wrong_answer(trial, run)
    return "Committed, then deleted: in no order and in six minutes of traffic an old price stays."


# pool ----------------------------------------------------------------------------------------

CALLERS = 140
MOST_CONNECTIONS = 100  # of one pod: the server takes 250, there are two pods and deploys
ASKS = 2.0


def judge_pool(answer: Any, trial: Trial) -> str:
    """140 callers at once share a bounded pool; nobody is refused, nobody waits for ever."""
    opened, waits = _crowd(answer, trial)
    errors = [got for got in waits if isinstance(got, Refusal)]
    trial.expect(
        not errors,
        f"{CALLERS} callers came in one instant, and {len(errors)} of them got"
        f" {say_error(errors[0].error) if errors else ''}.",
    )
    trial.expect(
        opened.peak <= MOST_CONNECTIONS,
        f"{CALLERS} callers opened {opened.peak} connections; the server takes 250 of all pods, so"
        f" at most {MOST_CONNECTIONS} for one were asked.",
    )
    longest = max(waits)
    trial.expect(
        longest <= 0.5,
        f"{CALLERS} callers came in one instant, and the last waited {say_seconds(longest)}; half a"
        " second is enough with trips of 2 ms.",
    )
    _, waits = _crowd(answer, trial, SlowCommand("GET", 60))
    given_up = [got for got in waits if isinstance(got, Refusal)]
    served = len(waits) - len(given_up)
    trial.expect(
        given_up and all(isinstance(got.error, redis.ConnectionError) for got in given_up),
        f"The server stood still for 60 s, and {served} of {CALLERS} callers waited for it; who"
        " gets no connection has to give up with redis.ConnectionError.",
    )
    longest = max(got.after for got in given_up)
    trial.expect(
        longest <= ASKS + 0.1,
        f"The server stood still, and a caller waited {say_seconds(longest)} for a connection;"
        f" at most {ASKS:g} s were asked, then the database answers.",
    )
    return (
        f"{CALLERS} callers over {opened.peak} connections; a server that hangs holds nobody long."
    )


class Refusal(Exception):
    """What a caller got instead of an answer, and after how many seconds."""

    def __init__(self, error: BaseException, after: float) -> None:
        super().__init__(say_error(error))
        self.error, self.after = error, after


class Wire(redis.Connection):
    """A kind of connection that a pool has only from `wire`."""


class AnotherWire(redis.Connection):
    """The same for another pod."""


def _crowd(answer: Any, trial: Trial, *faults: Any) -> tuple[ConnectionLimit, list[Any]]:
    """What callers of one pod get in one instant: seconds waited, or a Refusal."""
    opened = ConnectionLimit()
    pods: list[Any] = []

    def caller(number: int) -> Callable[..., Any]:
        def call(cache_: Any, _: Any) -> Any:
            began = cache_.trace.clock()
            try:
                if not pods:
                    made = answer(opened.wire(cache_))
                    if not isinstance(made, redis.ConnectionPool):
                        return TypeError(f"{short(made)}, where a redis-py pool was expected")
                    pods.append(open_pod("pod-1.1", lambda _: made, {}, cache_.trace))
                pods[0].cache.get(f"product:v1:{number}")
            except NotImplementedError:
                raise
            except Exception as error:
                return Refusal(error, cache_.trace.clock() - began)
            return cache_.trace.clock() - began

        return call

    for kind in (Wire, AnotherWire):
        ended = trial.attempt(answer, {"connection_class": kind})
        if ended.error is None and not isinstance(ended.value, redis.ConnectionPool):
            trial.fail(
                f"connect gave {short(ended.value)}; expected was a pool of redis-py,"
                " redis.ConnectionPool or a kind of it."
            )
        if ended.error is not None:
            trial.fail(ended.sentence("connect"))
        trial.expect(
            ended.value.connection_class is kind,
            "connect made a pool without what this `wire` holds, so it would go to another server:"
            " pass it on as keywords, **wire.",
        )
    callers = {f"pod-1.1 r{n}": (0.0, caller(n)) for n in range(CALLERS)}
    actors = threads(callers, "pod-1.1")
    run = trial.play(actors, seconds=4, hop=0.002, faults=faults)
    got = list(run.answers.values())
    broken = next((one for one in got if isinstance(one, TypeError)), None)
    if broken is not None:
        trial.fail(f"connect gave {broken}.")
    return opened, got


# all -----------------------------------------------------------------------------------------


def judge_all(answer: Any, trial: Trial) -> str:
    """The whole night, the same traffic, with every part in place."""
    given = trial.call(answer)
    if not isinstance(given, Mapping):
        trial.fail(
            f"mended gave {short(given)}; expected was a dict from the names of the five parts to"
            " your functions."
        )
    strange = [name for name in given if name not in SOUND]
    if strange:
        trial.fail(f"The service has no part {short(strange[0])}; it has {', '.join(SOUND)}.")
    for name in SOUND:
        if not callable(given.get(name)):
            seen = "is not there" if name not in given else f"is {short(given[name])}"
            trial.fail(f"In what mended gave, {name} {seen}; expected was your function.")
    night = load(NIGHT)
    try:
        run = _replay(trial, night, given, NIGHT_SECONDS)
    except JudgingEnded as ended:
        if "longer than" not in ended.verdict.summary:
            raise
        trial.nothing_proved(
            "The machine was too busy to play the whole night in the time of a check.",
            "Close what else runs, and check once more.",
        )
    for event in run.trace:
        found = re.search(r"NotImplementedError[: ]+(17_incident\.\w+)", event.what + event.detail)
        if found:
            trial.fail(f"The exercise {found[1]} still raises NotImplementedError: solve it first.")
    score, before, most = run.score, BEFORE, night.good
    failed = [one for one in run.answers if one.failure]
    if failed:
        trial.fail(
            f"{len(failed)} of {score.answers:,} customers got an error, the first:"
            f" {failed[0].failure.rstrip('.')}.",
            trace=run.trace,
        )
    if score.wrong > most.wrong:
        trial.fail(
            f"{score.wrong} wrong answers, {_wrong_answer(run)}; at most {most.wrong} are allowed,"
            f" and there were {before.wrong}.",
            trace=run.trace,
        )
    if score.slow > most.slow:
        trial.fail(
            f"{score.slow} slow answers; at most {most.slow} are allowed, and there were"
            f" {before.slow}.",
            trace=run.trace,
        )
    if score.queries > most.queries:
        trial.fail(
            f"{score.queries} queries; at most {most.queries} are allowed, and there were"
            f" {before.queries}.",
            trace=run.trace,
        )
    return (
        f"The same {score.answers:,} customers: wrong {before.wrong} to {score.wrong}, slow"
        f" {before.slow} to {score.slow}, queries {before.queries} to {score.queries}; harm"
        f" {before.harm:,} to {score.harm:,}."
    )


# postmortem ----------------------------------------------------------------------------------

WORDS = {"summary": 20, "impact": 10, "detection": 10}  # at least
BLAME = (
    *("human error", "careless", "should have known", "stupid", "incompetent", "his fault"),
    *("her fault", "their fault", "somebody forgot", "someone forgot"),
)
NOBODY = (
    "everybody",
    "everyone",
    "all",
    "we",
    "us",
    "the team",
    "team",
    "someone",
    "somebody",
    "tbd",
)


def judge_postmortem(answer: Any, trial: Trial) -> str:
    """Every section is there, with that night's numbers; nobody is blamed, somebody acts."""
    given = trial.call(answer)
    if not isinstance(given, Mapping):
        trial.fail(
            f"postmortem gave {short(given)}; expected was a dict with {', '.join(TEMPLATE)}."
        )
    for name in TEMPLATE:
        if not given.get(name):
            trial.fail(f"{name.capitalize()} is empty; expected was: {TEMPLATE[name]}")
    for name, least in WORDS.items():
        text = given[name]
        many = len(text.split()) if isinstance(text, str) else 0
        if many < least:
            trial.fail(
                f"{name.capitalize()} has {many} words of text; at least {least} were asked."
            )
    score = BEFORE
    said = {int(found.replace(",", "")) for found in re.findall(r"\d[\d,]*", given["impact"])}
    for what in ("wrong", "slow", "queries"):
        number = getattr(score, what)
        trial.expect(
            number in said,
            f"Impact does not name the number of {what}{'' if what == 'queries' else ' answers'}"
            f" that night, {number}; it names {sorted(said) or 'none'}.",
        )
    _expect_timeline(trial, given["timeline"])
    _expect_causes(trial, given["causes"])
    _expect_actions(trial, given["actions"])
    everything = " ".join(_texts(given)).lower()
    found = next((word for word in BLAME if word in everything), None)
    trial.expect(
        found is None,
        f"It says {found!r}: write what made the fault possible, so that it is mended for whoever"
        " comes next.",
    )
    return "A page that somebody who was asleep can act on."


def _expect_timeline(trial: Trial, rows: Any) -> None:
    fine = isinstance(rows, (list, tuple)) and all(
        isinstance(row, (list, tuple)) and len(row) == 2 and all(isinstance(p, str) for p in row)
        for row in rows
    )
    if not fine:
        trial.fail(
            f'Timeline is {short(rows)}; expected were pairs of texts such as ("03:14", "mail").'
        )
    times = [row[0] for row in rows]
    clock = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
    odd = next((one for one in times if not clock.fullmatch(one)), None)
    trial.expect(odd is None, f"In the timeline {odd!r} is no time of day such as '03:14'.")
    trial.expect(
        len(times) >= 4, f"The timeline has {len(times)} entries; at least four were asked."
    )
    trial.expect(times == sorted(times), "The timeline is not in order of time.")
    trial.expect(
        sum("03:00" <= one < "03:21" for one in times) >= 2,
        f"The timeline runs from {times[0]} to {times[-1]}; at least two entries of that night were"
        " asked, 03:00 to 03:20.",
    )


def _expect_causes(trial: Trial, causes: Any) -> None:
    faults = tuple(FAULTS)
    if not isinstance(causes, Mapping):
        trial.fail(f"Causes is {short(causes)}; expected was a dict from faults to texts.")
    for name in faults:
        text = causes.get(name)
        many = len(text.split()) if isinstance(text, str) else 0
        trial.expect(
            many >= 6, f"Causes says {many} words about {name}; at least six were asked for each."
        )
    same = len(faults) - len({" ".join(causes[name].lower().split()) for name in faults})
    trial.expect(not same, "Causes says the same of two faults; each was made possible otherwise.")


def _expect_actions(trial: Trial, rows: Any) -> None:
    fine = isinstance(rows, (list, tuple)) and all(
        isinstance(row, (list, tuple)) and len(row) == 3 and all(isinstance(p, str) for p in row)
        for row in rows
    )
    if not fine:
        trial.fail(f"Actions is {short(rows)}; expected were triples of texts: what, who, by when.")
    trial.expect(len(rows) >= 3, f"There are {len(rows)} actions; at least three were asked.")
    for what, who, when in rows:
        trial.expect(
            who.strip() and who.strip().lower() not in NOBODY,
            f"The action {short(what, 40)} belongs to {short(who, 20)}, and that is nobody; one"
            " role was asked.",
        )
        try:
            date.fromisoformat(when)
        except ValueError:
            trial.fail(f"The action {short(what, 40)} is due {short(when, 20)}; write 2026-01-15.")
    same = len(rows) - len({" ".join(what.lower().split()) for what, _, _ in rows})
    trial.expect(not same, "The same action stands there twice; at least three were asked.")


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, (list, tuple)):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []
