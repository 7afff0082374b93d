"""Checks and hints of lab 01: from which hit rate, how much memory, which TTL, cached at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachelab import stage
from cachelab.judge.trial import Trial, finite
from cachelab.models import ttl as ttl_model
from cachelab.models import worth
from cachelab.record.verdict import short

# break_even ----------------------------------------------------------------------------------

# Seconds of query, lookup, store.
READS = (
    (0.004, 0.0005, 0.0005),
    (0.004, 0.001, 0.001),
    (1.2, 0.0005, 0.0005),
    (0.02, 0.001, 0.005),
    (0.004, 0.001, 0.0),
    (0.000_8, 0.0005, 0.0005),
    (0.001, 0.001, 0.0005),
    (0.000_05, 0.0005, 0.0005),
)
NEAR = 0.0005  # of a hit rate: whoever rounds to a tenth of a per cent is right


def judge_break_even(answer: Any, trial: Trial) -> str:
    """At the hit rate that is given a read takes as long with the cache as without."""
    for query, lookup, store in READS:
        given = trial.call(answer, query, lookup, store)
        case = f"Query {_say(query)}, lookup {_say(lookup)}, store {_say(store)}: break_even gave"
        needed = worth.break_even(lookup, query, store)
        if needed > 1:
            trial.expect(
                given is None,
                f"{case} {short(given)}; expected was None, because even a read that hits takes"
                f" {_say(lookup)} with the cache and {_say(query)} without.",
            )
            continue
        found = finite(given)
        if given is None:
            slower = "no longer than the" if lookup == query else "against the"
            trial.fail(
                f"{case} None; expected was a share from 0 to 1, as a read that hits takes"
                f" {_say(lookup)}, {slower} {_say(query)} of the query."
            )
        if found is None:
            trial.fail(f"{case} {short(given)}; expected was a share from 0 to 1.")
        if not 0 <= found <= 1:
            trial.fail(f"{case} {found:,.4g}; a hit rate is a share from 0 to 1 (all reads hit).")
        there = found if found < needed else (found + needed) / 2
        takes = worth.mean_latency(there, lookup, query, store)
        facts = f"a read takes {_say(takes)} with the cache and {_say(query)} without"
        trial.expect(
            found >= needed - NEAR, f"{case} {found:.2%}, but at that hit rate {facts}: too low."
        )
        trial.expect(
            found <= needed + NEAR,
            f"{case} {found:.2%}, but it pays before that: at a hit rate of {there:.2%} {facts}.",
        )
    return "At the hit rate that you give, a read takes as long with the cache as without."


# memory_bill ---------------------------------------------------------------------------------

# keys, bytes of one, reads of one per second, TTL, replicas, price per GB and month
CACHES = (
    (100_000, 5_000_000, 1 / 3_600, 1_200, 2, 2.0),
    (100_000, 5_000, 1 / 600, 300, 2, 8.0),
    (2_000_000, 40_000, 0.002, 50, 0, 3.0),
    (50_000, 200_000, 0.0, 600, 3, 1.5),
)
PARTS = ("most", "usual", "bill")


def judge_memory_bill(answer: Any, trial: Trial) -> str:
    """GB if everybody is in, GB on average, and the price of what must be there for the first."""
    for keys, size, reads, seconds, replicas, price in CACHES:
        given = trial.call(answer, keys, size, reads, seconds, replicas, price)
        case = f"{keys:,} keys of {size:,} bytes, reads of each per hour {reads * 3_600:.3g}, TTL"
        case += f" {seconds:,} s: "
        if not isinstance(given, Mapping) or any(part not in given for part in PARTS):
            trial.fail(
                f'memory_bill gave {short(given)}; expected was a dict with "most", "usual" and'
                ' "bill".'
            )
        numbers = {part: finite(given[part]) for part in PARTS}
        for part, found in numbers.items():
            trial.expect(
                found is not None,
                f"{case}{part!r} is {short(given[part])}; expected was a number.",
            )
        most, usual, bill = (float(numbers[part] or 0) for part in PARTS)
        right = keys * size / 1e9
        if not _close(most, right):
            why = _why(most, right, replicas)
            trial.fail(f"{case}'most' is {most:,.4g} GB; expected was {right:,.4g}{why}.")
        share = ttl_model.hit_ratio(reads, seconds)
        trial.expect(
            _close(usual, right * share),
            f"{case}'usual' is {usual:,.4g} GB; expected was {right * share:,.4g}, as a copy is"
            f" there for {seconds:,} s and then gone until the next read"
            + (f", {1 / reads:,.0f} s on average." if reads else ", which never comes."),
        )
        owed = right * (1 + replicas) * price
        copies = f"{1 + replicas} times" if replicas else "once"
        trial.expect(
            _close(bill, owed),
            f"{case}'bill' is {bill:,.4g}; expected was {owed:,.4g}, as room for {right:,.4g} GB is"
            f" paid {copies} with {replicas} replicas, at {price:g} a GB.",
        )
    return "The bound, the usual size and the bill are right for all four caches."


def _why(most: float, right: float, replicas: int) -> str:
    if _close(most * 2**30, right * 1e9):
        return " (yours are GiB of 2^30 bytes; a GB has 10^9)"
    if replicas and _close(most, right * (1 + replicas)):
        return " (one copy; the replicas belong to the bill)"
    return ""


# ttl_for -------------------------------------------------------------------------------------

# budget, jitter, window
BUDGETS = (
    (300, 0.0, 0),
    (300, 0.15, 60),
    (300, 0.15, 0),
    (3_600, 0.0, 600),
    (90_000, 0.1, 86_400),
    (2, 0.5, 0),
    (0, 0.0, 0),
    (1, 0.2, 0),
    (60, 0.0, 60),
    (60, 0.1, 600),
)
KEY = "page:v1:1"
LONGEST_RUN = 20 * 86_400  # seconds; the stage runs for 30 days at most


def judge_ttl_for(answer: Any, trial: Trial) -> str:
    """The longest TTL with which no answer is older than the budget; it is played to see."""
    for budget, jitter, window in BUDGETS:
        given = trial.call(answer, budget, jitter, window)
        case = f"Budget {budget:,} s, jitter {jitter:.0%}, window {window:,} s: ttl_for gave"
        longest = math.floor((budget - window) / (1 + jitter) + 1e-9)
        seconds = finite(given)
        if given is not None and seconds is None:
            trial.fail(f"{case} {short(given)}; expected was a whole number of seconds or None.")
        if longest < 1:
            least = 1 + jitter + window
            trial.expect(
                seconds is None,
                f"{case} {short(given)}; expected was None, as even a TTL of 1 s lets an answer"
                f" become {least:,.3g} s old.",
            )
            continue
        if seconds is None:
            trial.fail(f"{case} None, but a TTL of {longest:,} s keeps that budget.")
        if seconds < 1:
            trial.fail(f"{case} {seconds:g}; a TTL is at least 1 s.")
        life = seconds * (1 + jitter) + window
        if life > budget + 1e-6:
            if life > LONGEST_RUN:
                trial.fail(f"{case} {seconds:,.6g} s: far too long for that budget.")
            run = _at_the_last_moment(trial, life)
            old = run.of("hit")[-1].age or 0.0
            trial.fail(
                f"{case} {seconds:,.6g} s, and with that TTL an answer was served that was"
                f" {old:,.6g} s old: too long.",
                trace=run,
            )
        if seconds != int(seconds):
            trial.fail(f"{case} {seconds:,.6g}; expected was a whole number of seconds.")
        # Without jitter all numbers are whole, and the sum is exact.
        slack = 1e-6 if jitter else 0.0
        trial.expect(
            (seconds + 1) * (1 + jitter) + window > budget - slack,
            f"{case} {seconds:,.0f} s, which keeps the budget, but so does {longest:,} s, with"
            " fewer queries: too short.",
        )
    return "No answer is older than its budget, and no TTL is shorter than it need be."


def _at_the_last_moment(trial: Trial, life: float) -> stage.StageTrace:
    """A copy with the longest life that jitter and window allow, and a read just before its end."""

    def fill(cache: Any, db: Any) -> None:
        cache.get(KEY)
        stock = db.stock(1)
        cache.set(KEY, stock, px=round(1_000 * life))

    def read(cache: Any, db: Any) -> Any:
        return cache.get(KEY)

    return trial.play({"first": (0, fill), "last": (max(0.0, life - 0.01), read)})


# decide --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """What must be known of one kind of data before it is cached.

    `keys`: how many different ones; `reads`: of one key, per second; `query`: seconds, None if no
    origin has it; `size`: bytes of one value; `budget`: seconds that an answer may be old;
    `audience`: "everyone", "one user" or "our code".
    """

    data: str
    keys: int
    reads: float
    query: float | None
    size: int
    budget: int
    audience: str


CARDS = (
    Card("best sellers", 5, 2, 1.2, 335, 3_600, "everyone"),
    Card("article and comments", 200, 0.5, 0.04, 32_000, 60, "everyone"),
    Card("feature flag", 2, 1_000, 0.004, 5, 60, "our code"),
    Card("user profile", 100_000, 0.01, 0.004, 120, 300, "one user"),
    Card("product price", 500, 0.2, 0.004, 4, 60, "everyone"),
    Card("permissions", 100_000, 0.01, 0.004, 30, 5, "our code"),
    Card("stock at checkout", 500, 0.01, 0.004, 2, 0, "our code"),
    Card("order history", 100_000, 0.001, 0.2, 5_000_000, 60, "one user"),
    Card("session", 100_000, 0.05, None, 400, 0, "our code"),
)

PODS = 10  # processes that run the shop; each would have an in-process cache of its own
HOP = 0.0005  # seconds of a lookup or a store in the shared cache
ROOM = {"process": 0.2, "shared": 10.0, "edge": 10.0}  # GB
PLACES = ("nowhere", "process", "shared", "edge", "store")
MUST = 3.0  # connections: whoever leaves so many on the table has to cache
WORTH = 0.1  # connections: less is not worth a copy that may be wrong


def judge_decide(answer: Any, trial: Trial) -> str:
    """Each decision keeps the budget, the room and the secret, saves time, and misses no chance."""
    freed = 0.0
    for card in CARDS:
        given = trial.call(answer, card)
        if type(given) not in (tuple, list) or len(given) != 2:
            trial.fail(
                f"{card.data}: decide gave {short(given)}; expected was a place and a TTL, such as"
                ' ("shared", 60).'
            )
        place, seconds = given
        if type(place) is not str or place not in PLACES:
            trial.fail(f"{card.data}: {short(place)} is none of the places {', '.join(PLACES)}.")
        life = finite(seconds)
        if place in ROOM and life is None:
            trial.fail(
                f"{card.data}: {short(seconds)} is no TTL; expected was a number of seconds."
            )
        objection = _objection(card, place, life or 0.0)
        if objection:
            trial.fail(f"{card.data}, {_said(place, life)}: {objection}.")
        freed += _saved(card, place, life or 0.0) if place in ROOM else 0.0
    busy = sum(card.keys * card.reads * (card.query or 0) for card in CARDS)
    return (
        f"Nine decisions with a reason: they free {freed:.0f} of the {busy:.0f} connections that"
        " these reads keep busy."
    )


def _objection(card: Card, place: str, seconds: float) -> str:
    """What speaks against the decision, "" if nothing does."""
    if card.query is None:
        if place == "nowhere":
            return "no origin has it, so there is nobody to ask each time"
        fits = place == "store"
        return "" if fits else "no origin has it, so what is kept there is no copy but the only one"
    if place == "store":
        return "the database has it, so what is kept beside it is a copy, and can be wrong"
    if place == "nowhere":
        return _missed_chance(card)
    if card.budget == 0:
        return "the budget is 0 s, so no copy is good enough"
    if seconds < 1:
        return "a copy lives at least 1 s (SET with EX 0 is an error)"
    if seconds > card.budget:
        return f"an answer may be {seconds:,g} s old, and the budget is {card.budget:,} s"
    if place == "edge" and card.audience != "everyone":
        return f"the edge shows it to everyone, and it is for {card.audience}"
    gigabytes = _gigabytes(card, place, seconds)
    if gigabytes > ROOM[place]:
        where = "in each of the ten processes" if place == "process" else "there"
        return f"{gigabytes:,.1f} GB {where}, and there is room for {ROOM[place]:g}"
    saved, hits = _saved(card, place, seconds), _hits(card, place, seconds)
    if saved < 0:
        mean = worth.mean_latency(hits, HOP, card.query, HOP)
        return (
            f"{hits:.1%} of the reads hit, and the mean read takes {_say(mean)} instead of"
            f" {_say(card.query)}"
        )
    if saved < WORTH:
        return f"{hits:.1%} of the reads hit, which frees {saved:.2f} of one connection"
    return ""


def _missed_chance(card: Card) -> str:
    """That it should have been cached, if it should."""
    fitting = [
        (_saved(card, place, card.budget), place)
        for place in ("shared", "process")
        if _gigabytes(card, place, card.budget) <= ROOM[place]
    ]
    saved, best = max(fitting, default=(0.0, ""))
    if saved < MUST:
        return ""
    busy = card.keys * card.reads * (card.query or 0)
    return (
        f"its queries keep {busy:.1f} connections busy, and a copy ({best}, within the budget)"
        f" would free {saved:.1f} of them"
    )


def _hits(card: Card, place: str, seconds: float) -> float:
    return ttl_model.hit_ratio(card.reads / (PODS if place == "process" else 1), seconds)


def _gigabytes(card: Card, place: str, seconds: float) -> float:
    return card.keys * card.size * _hits(card, place, seconds) / 1e9


def _saved(card: Card, place: str, seconds: float) -> float:
    """Connections that are set free; at the edge and in the process a lookup costs nothing."""
    hop = HOP if place == "shared" else 0.0
    hits = _hits(card, place, seconds)
    return worth.saved_per_second(card.keys * card.reads, hits, hop, card.query or 0, hop)


def _said(place: str, seconds: float | None) -> str:
    return place if place not in ROOM else f"{place} for {seconds:,g} s"


# What several of them need -------------------------------------------------------------------


def _close(found: float, right: float) -> bool:
    return abs(found - right) <= 0.01 * right + 1e-9


def _say(seconds: float) -> str:
    return f"{seconds * 1e3:,.4g} ms"
