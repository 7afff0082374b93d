"""Checks and hints of lab 15: a floor, an alert, an audit, a flush and a warm-up."""

from __future__ import annotations

import json
from collections.abc import Iterable
from numbers import Real
from typing import Any

from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.record.verdict import short

Pair = tuple[str, str]

# floor ---------------------------------------------------------------------------------------


def judge_floor(answer: Any, trial: Trial) -> None:
    """1 - slots / (reads x query time), never below 0, and 0 when nobody reads."""
    cases = (
        (100, 0.1, 1, 0.9),
        (1_000, 0.1, 20, 0.8),
        (250, 0.02, 2, 0.6),
        (300, 0.05, 4, 11 / 15),
        (5, 0.5, 4, 0.0),
        (40, 0.1, 4, 0.0),
        (0, 0.1, 1, 0.0),
    )
    for reads, query_time, slots, right in cases:
        got = trial.call(answer, reads, query_time, slots)
        said = f"{reads:,} reads a second, {query_time:g} s a query, slots: {slots}"
        trial.expect(
            isinstance(got, Real) and not isinstance(got, bool),
            f"{said}: lowest_hit_rate gave {short(got)}, which is not a number.",
        )
        trial.expect(
            abs(got - right) < 1e-6,
            f"{said}: lowest_hit_rate gave {float(got):g}; expected was {right:g}.",
        )


# alert ---------------------------------------------------------------------------------------

Counts = tuple[int, int]
ALERTS: tuple[tuple[str, list[Counts], Counts, bool], ...] = (
    ("Three pods fell from 97 % to 80 %", [(16_000, 4_000)] * 3, (970_000, 30_000), True),
    ("A cache is at 55 %, as yesterday", [(1_650, 1_350)], (55_000, 45_000), False),
    ("At night there were 3 reads, 2 of them misses", [(1, 2)], (8_000, 2_000), False),
    (
        "A busy pod is at 98 % as yesterday, and a new one had 40 reads, all misses",
        [(49_000, 1_000), (0, 40)],
        (98_000, 2_000),
        False,
    ),
    (
        "A busy pod fell from 90 % to 60 %, and two idle ones had ten hits each",
        [(6_000, 4_000), (10, 0), (10, 0)],
        (90_000, 10_000),
        True,
    ),
    ("Of 200 small pods each fell from 90 % to 60 %", [(54, 36)] * 200, (90_000, 10_000), True),
    ("A large cache fell from 97 % to 96.7 %", [(96_700, 3_300)], (970_000, 30_000), False),
    ("A cache at 99.9 % had 2 misses in 400 reads", [(398, 2)], (99_900, 100), False),
    ("A large cache fell from 97 % to 94.5 %", [(56_700, 3_300)], (970_000, 30_000), True),
    ("A cache fell from 55 % to 25 %", [(750, 2_250)], (55_000, 45_000), True),
    ("A cache rose from 60 % to 95 %", [(9_500, 500)], (60_000, 40_000), False),
    ("There were as many reads as on a whole day", [(90_000, 10_000)], (90_000, 10_000), False),
    ("Yesterday had no miss, and now there are 200", [(1_000, 200)], (10_000, 0), True),
    # On the bounds themselves; a quarter and its sums are exact in binary.
    ("A small cache had 80 reads, 70 of them misses", [(10, 70)], (750, 250), True),
    ("A small cache had 160 reads, 70 of them misses", [(90, 70)], (750, 250), False),
    ("A small cache fell from 75 % to 66 %", [(530, 270)], (7_500, 2_500), False),
    ("There were exactly half as many misses again", [(500, 300)], (7_500, 2_500), False),
    ("Nobody read anything", [(0, 0)], (9_000, 1_000), False),
    ("No pod runs", [], (9_000, 1_000), False),
    ("The cache is new, with no yesterday", [(0, 500)], (0, 0), False),
)


def judge_alert(answer: Any, trial: Trial) -> str:
    """Rings for every incident and for nothing else."""
    for what, pods, baseline, right in ALERTS:
        got = trial.call(answer, list(pods), baseline)
        trial.expect(
            type(got).__name__ in {"bool", "bool_"},
            f"{what}: should_alert gave {short(got)}; True or False was expected.",
        )
        if bool(got) == right:
            continue
        misses = sum(pod[1] for pod in pods)
        expected = sum(map(sum, pods)) * baseline[1] / max(1, sum(baseline))
        counted = f"{misses:,} misses where {expected:,.0f} were to be expected"
        verdict = "should_alert stays silent" if right else "should_alert wakes somebody"
        trial.fail(f"{what}, which is {counted}, and {verdict}.")
    incidents = sum(right for *_, right in ALERTS)
    return (
        f"{incidents} incidents seen, and no false alarm in {len(ALERTS) - incidents} quiet ones."
    )


# register ------------------------------------------------------------------------------------


def _entry(owner: str = "somebody", ttl: int = 300, cleared_by: str = "update") -> dict[str, Any]:
    return {"owner": owner, "ttl": ttl, "cleared_by": cleared_by}


REGISTER = {
    "user:v1:": _entry("accounts"),
    "user:v1:draft:": _entry("accounts", ttl=60),
    "product:v1:": _entry("catalogue", cleared_by=""),
    "permissions:v1:": _entry("", ttl=10),
    "cart:v1:": _entry("checkout", ttl=3_600),
}
MOST_TRIPS = 100
IN_PIPE = "in a pipeline"


def judge_register(answer: Any, trial: Trial) -> str:
    """Exactly the planted faults are found, in few trips, and nothing is changed."""
    world = trial.world()
    world.put("user:v1:1", "{}", 300)
    found = _audit(answer, trial, world, {"user:v1:": REGISTER["user:v1:"]})
    trial.expect(
        not found, f"One key, registered, with a right TTL: audit reported {_said(found)}."
    )

    world = trial.world()
    _put_many(world, (f"product:v1:{number}" for number in range(1_000)), 250)
    planted: dict[Pair, str] = {
        ("product:v1:", "nothing clears it"): "its cleared_by is empty",
        ("permissions:v1:", "no owner"): "its owner is empty",
    }
    for key, seconds, problem, why in (
        ("prodcut:v1:7", 300, "unknown", "no prefix fits"),
        ("user:v10:1", 300, "unknown", "user:v1: is not how it begins"),
        ("job:1", None, "unknown", "no prefix fits"),
        ("user:v1:5", None, "no TTL", "it stays for ever"),
        ("permissions:v1:2", 600, "TTL too long", "10 s are allowed, it has 600 s"),
        ("user:v1:draft:3", 200, "TTL too long", "the longest prefix allows 60 s, it has 200 s"),
        ("user:v1:draft:4", 50, "", ""),
        ("user:v1:6", 290, "", ""),
    ):
        world.put(key, "{}", seconds)
        if problem:
            planted[key, problem] = why
    with world.trace.off_the_record():
        world.cache.hset("cart:v1:1", "mug", "2")
    planted["cart:v1:1", "no TTL"] = "it is a hash, and stays for ever"
    before = _lives(world)

    found = _audit(answer, trial, world, REGISTER)
    missed = [pair for pair in planted if pair not in found]
    if missed:
        trial.fail(f"audit does not report {missed[0]}: {planted[missed[0]]}.")
    wrong = [pair for pair in found if pair not in planted]
    trial.expect(not wrong, f"audit reports {_said(wrong)}, which is not so.")
    after = _lives(world)
    changed = [
        key for key in before if key not in after or not 0 <= _run_down(before, after, key) < 20
    ]
    trial.expect(
        not changed,
        f"After the audit {changed[:1]} is not as it was: an audit only looks.",
    )
    used = {event.what for event in world.trace}
    trial.expect("KEYS" not in used, "audit used KEYS: until it ends, nobody else is served.")
    trial.expect(
        "SCAN" in used,
        "audit never used SCAN: a script is one command, and everybody waits for it.",
    )
    scans = sum(event.what == "SCAN" for event in world.trace)
    alone = sum(event.what != "SCAN" and IN_PIPE not in event.detail for event in world.trace)
    trial.expect(
        scans + alone <= MOST_TRIPS,
        f"audit went to the server {scans + alone:,} times for {len(before):,} keys, {scans:,} of"
        f" them with SCAN; {MOST_TRIPS} are enough, with larger pages (count=) and the TTLs of a"
        " page in one pipeline.",
    )

    world = trial.world()
    world.put("user:v1:1", "{}", 5)
    world.put("user:v1:2", "{}", 300)
    world.after_cache_command(1, lambda: world.fast_forward(10))
    found = _audit(answer, trial, world, {"user:v1:": REGISTER["user:v1:"]})
    trial.expect(
        not found,
        f"A key ended by itself between the SCAN and the question for its TTL, and audit reported"
        f" {_said(found)}.",
    )
    return f"{len(planted)} planted faults found among {len(before):,} keys, and nothing else."


def _audit(answer: Any, trial: Trial, world: TrialWorld, register: dict[str, Any]) -> set[Pair]:
    """The pairs that an answer gives, whatever it gives them in."""
    copied = {prefix: dict(entry) for prefix, entry in register.items()}
    got = trial.call(lambda: _listed(answer(world.cache, copied)))
    fine = type(got) is list and all(
        type(pair) in (tuple, list) and [type(part) for part in pair] == [str, str] for pair in got
    )
    trial.expect(
        fine,
        f"audit gave {short(got)}; a list of pairs was expected, such as ('user:v1:5', 'no TTL').",
    )
    return {(key, problem) for key, problem in got}


def _listed(given: Any) -> Any:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else given


def _put_many(world: TrialWorld, keys: Iterable[str], seconds: int) -> None:
    with world.trace.off_the_record(), world.cache.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.set(key, "{}", ex=seconds)
        pipe.execute()


def _run_down(before: dict[str, float], after: dict[str, float], key: str) -> float:
    """Seconds by which a key's life has become shorter."""
    return 0.0 if before[key] == after[key] else before[key] - after[key]


def _lives(world: TrialWorld) -> dict[str, float]:
    """Each key, with the seconds it has left (infinity: no TTL)."""
    lives = {key: world.ttl(key) for key in world.keys()}
    return {key: float("inf") if left is None else left for key, left in lives.items()}


def _said(pairs: Iterable[Pair]) -> str:
    listed = sorted(pairs) or [("nothing", "")]
    more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
    return f"{listed[0]}{more}"


# flush ---------------------------------------------------------------------------------------


def judge_flush(answer: Any, trial: Trial) -> str:
    """The namespace is gone, page by page, and nothing else is."""
    world = trial.world()
    world.put("session:1", "Alice")
    got = trial.call(answer, world.cache, "product:v1:")
    trial.expect(
        got == 0 and type(got) is int,
        f"There was nothing to delete, and flush gave {short(got)}; expected was 0.",
    )

    world = trial.world()
    for name in ("product:v1", "session"):
        _put_many(world, (f"{name}:{number}" for number in range(1_300)), 300)
    for key in ("product:v10:1", "product:v1", "product:v2:1", "old:product:v1:1"):
        world.put(key, "{}", 300)
    _expect_flushed(answer, trial, world, "product:v1:")
    events = list(world.trace)
    used = [event.what for event in events]
    trial.expect(
        "KEYS" not in used,
        "flush used KEYS, which looks at all 2,604 keys in one command: until it ends, nobody else"
        " is served.",
    )
    scans = used.count("SCAN")
    trial.expect(
        scans > 0, f"flush never used SCAN but {used[0]}: nobody else is served until it ends."
    )
    trial.expect(
        scans >= 3,
        f"flush walked through 2,604 keys in {scans} SCAN{'s' if scans > 1 else ''}: a page is at"
        " most 1,000 keys.",
    )
    trial.expect(
        "DEL" not in used,
        "flush used DEL, which frees the memory while everybody waits; UNLINK does it afterwards.",
    )
    other = sorted({*used} - {"SCAN", "MULTI", "EXEC"})
    trial.expect(
        "UNLINK" in used,
        f"flush deleted by {', '.join(other)} and not by UNLINK, which takes out a page of keys at"
        " once and frees their memory afterwards.",
    )
    largest = max((len(e.on.split(", ")) for e in events if e.kind == "delete"), default=0)
    trial.expect(
        largest <= 1_000, f"One UNLINK of flush named {largest:,} keys; at most 1,000 were asked."
    )

    world = trial.world()
    for name, many in (("cart", 1_250), ("report", 3), ("session", 1_250)):
        _put_many(world, (f"{name}:{number}" for number in range(many)), 300)
    _expect_flushed(answer, trial, world, "report:")

    world = trial.world()
    for key in ("price[eur]:1", "pricee:1", "a*c:1", "abc:1", "a?c:1"):
        world.put(key, "{}", 300)
    for namespace in ("price[eur]:", "a*c:", "a?c:"):
        _expect_flushed(answer, trial, world, namespace)

    world = trial.world()
    world.put("report:1", "{}", 5)
    world.put("report:2", "{}", 300)
    world.after_cache_command(1, lambda: world.fast_forward(10))
    got = trial.call(answer, world.cache, "report:")
    trial.expect(
        got == 1,
        f"Of two keys one ended by itself before it could be deleted; flush gave {short(got)},"
        " and expected was 1.",
    )
    return "1,300 keys are gone, in pages, and none of the others."


def _expect_flushed(answer: Any, trial: Trial, world: TrialWorld, namespace: str) -> None:
    before = set(world.keys())
    ours = {key for key in before if key.startswith(namespace)}
    got = trial.call(answer, world.cache, namespace)
    after = set(world.keys())
    gone = sorted(before - ours - after)
    trial.expect(
        not gone,
        f"flush of {namespace!r} also deleted {len(gone):,} of other namespaces, such as"
        f" {gone[0] if gone else ''!r}.",
    )
    left = len(ours & after)
    trial.expect(
        not left,
        f"After flush of {namespace!r} {left:,} of its {len(ours):,} keys are still there.",
    )
    trial.expect(
        type(got) is int and got == len(ours),
        f"flush of {namespace!r} deleted {len(ours):,} keys and gave {short(got)}.",
    )


# warm ----------------------------------------------------------------------------------------

COUNTS = {product: 1_000 // ((product * 7) % 20 + 1) for product in range(1, 20)}
HOTTEST = sorted(COUNTS, key=lambda product: -COUNTS[product])
MOST, WORKERS, QUERY = 12, 4, 0.1
THERE, BROKEN = HOTTEST[2], HOTTEST[5]


class ProductLoader:
    """Asks the database, and remembers what was asked and how many at the same time."""

    def __init__(self, db: Any, broken: int | None = None) -> None:
        self.db, self.broken = db, broken
        self.asked: list[int] = []
        self.now = self.peak = 0

    def __call__(self, product: int) -> Any:
        self.asked.append(product)
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            row = self.db.product(product)
            if product == self.broken:
                raise RuntimeError("this query failed")
            return row
        finally:
            self.now -= 1


def judge_warm(answer: Any, trial: Trial) -> str:
    """The hottest first, by few at a time, with TTLs that end apart; failures stop nothing."""
    world = trial.world()
    got = trial.call(answer, world.cache, world.db.product, {}, 5, 2)
    trial.expect(
        type(got) is int and got == 0,
        f"With no counts there is nothing to warm, and warm_up gave {short(got)}; expected was 0.",
    )
    loaders: list[ProductLoader] = []

    def actor(broken: int | None) -> Any:
        def warming(cache: Any, db: Any) -> Any:
            loaders.append(ProductLoader(db, broken))
            return answer(cache, loaders[-1], dict(COUNTS), MOST, WORKERS)

        return {"warm-up": warming}

    run = trial.play(actor(None), latency=QUERY, capacity=16)
    loader, stored = loaders[-1], run.world.cache
    _expect_no_error(trial, run.answers["warm-up"], "")
    wanted = HOTTEST[:MOST]
    asked = set(loader.asked)
    cold = [product for product in wanted if product not in asked]
    trial.expect(
        not cold,
        f"Of the {MOST} hottest products {len(cold)} were not loaded, product {cold[:1]} with"
        f" {COUNTS[cold[0]] if cold else 0} reads being one.",
    )
    needless = asked - set(wanted)
    trial.expect(
        not needless,
        f"The {MOST} hottest were to be warmed, and {len(needless)} others were loaded as well.",
    )
    trial.expect(
        len(loader.asked) == MOST, f"{MOST} products took {len(loader.asked)} loads, not {MOST}."
    )
    trial.expect(
        loader.peak <= WORKERS,
        f"{loader.peak} loads ran at the same time; {WORKERS} workers were allowed.",
    )
    trial.expect(
        loader.peak > 1,
        f"The loads ran one after the other, {run.elapsed:.1f} s in all; {WORKERS} at a time were"
        " allowed.",
    )
    first = loader.asked[:WORKERS]
    trial.expect(
        set(first) == set(wanted[:WORKERS]),
        f"The first products that were loaded are {first}; the hottest are {wanted[:WORKERS]}.",
    )
    lives = []
    for product in wanted:
        key = f"product:v1:{product}"
        text, life = stored.get(key), stored.ttl(key)
        trial.expect(text is not None, f"After the warm-up there is nothing under {key}.")
        row = run.world.db.product(product)
        trial.expect(
            _decoded(text) == row, f"Under {key} is stored {short(text)}, which is not the row."
        )
        trial.expect(life != -1, f"The copy under {key} has no TTL: it would stay for ever.")
        trial.expect(
            239 <= life <= 300, f"The copy under {key} lives {life} s; 240 to 300 s were asked."
        )
        lives.append(life)
    trial.expect(
        len(set(lives)) >= 5,
        f"The {MOST} copies have only {len(set(lives))} different TTL"
        f"{'s' if len(set(lives)) > 1 else ''}: what was filled together expires together.",
    )
    trial.expect(
        run.answers["warm-up"] == MOST,
        f"{MOST} copies were stored, and warm_up gave {short(run.answers['warm-up'])}.",
    )
    trial.expect(
        run.elapsed < 2 * QUERY * MOST / WORKERS,
        f"{MOST} loads of {QUERY:g} s took {run.elapsed:.1f} s; with {WORKERS} at a time"
        f" {QUERY * MOST / WORKERS:.1f} s are enough.",
    )
    _whatever_happens(trial, actor, loaders)
    return f"{MOST} hottest warmed in {run.elapsed:.1f} s, at most {loader.peak} loads at a time."


def _whatever_happens(trial: Trial, actor: Any, loaders: list[ProductLoader]) -> None:
    """One copy is there already, one load fails."""
    key = f"product:v1:{THERE}"

    def one_is_there(cache: Any, _: Any) -> None:
        cache.set(key, '"stored by somebody"', ex=200)

    run = trial.play(actor(None), latency=QUERY, capacity=16, setup=one_is_there)
    _expect_no_error(trial, run.answers["warm-up"], "One copy was there already, and ")
    kept = run.world.cache.get(key)
    trial.expect(
        kept == '"stored by somebody"',
        f"A copy of product {THERE} was there already, and warm_up replaced it.",
    )
    trial.expect(
        THERE not in loaders[-1].asked,
        f"A copy of product {THERE} was there already, and warm_up asked the database for it.",
    )
    trial.expect(
        run.answers["warm-up"] == MOST - 1,
        f"{MOST - 1} copies were stored and one was there already; warm_up gave"
        f" {short(run.answers['warm-up'])}.",
    )

    run = trial.play(actor(BROKEN), latency=QUERY, capacity=16)
    _expect_no_error(trial, run.answers["warm-up"], "One load failed, and ")
    filled = run.world.cache.mget([f"product:v1:{product}" for product in HOTTEST[:MOST]])
    count = sum(text is not None for text in filled)
    trial.expect(
        count >= MOST - 1,
        f"One load failed, and only {count} of the other {MOST - 1} products were stored.",
    )
    trial.expect(
        count == MOST - 1,
        f"The load of product {BROKEN} failed, and something was stored for it all the same.",
    )
    trial.expect(
        run.answers["warm-up"] == MOST - 1,
        f"One load failed and {MOST - 1} copies were stored; warm_up gave"
        f" {short(run.answers['warm-up'])}.",
    )


def _expect_no_error(trial: Trial, got: Any, when: str) -> None:
    if isinstance(got, BaseException):
        trial.fail(f"{when or 'On an empty cache '}warm_up raised {type(got).__name__}: {got}.")


def _decoded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None
