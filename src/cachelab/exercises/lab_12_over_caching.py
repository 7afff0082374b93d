"""Checks of lab 12: a report from a trace, why a read missed, three rates, what to keep."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cachelab.judge.trial import Trial, finite
from cachelab.record.trace import Event, Trace
from cachelab.record.verdict import short

# report --------------------------------------------------------------------------------------

HOP = 0.0005  # seconds of a cache command
SECONDS = 120.0
BAR = 0.2  # connections
FIELDS = ("hits", "ttl", "query", "reads_per_write", "saved", "keep")
# name, table: what is asked of the trace, in this order
KINDS = (
    ("flag", "flags"),
    ("best", "orders"),
    ("profile", "users"),
    ("product", "products"),
    ("product_list", "products"),
    ("session", "users"),
    ("stock", "products"),
)


def judge_report(answer: Any, trial: Trial) -> str:
    """Six numbers for each of seven kinds of key, from one trace of a shop with many readers."""
    run = _shop(trial)
    for name, table in KINDS:
        right = _report(run, name, table)
        given = trial.call(answer, _copy(run), name, table, SECONDS)
        if not isinstance(given, Mapping) or any(field not in given for field in FIELDS):
            named = ", ".join(f'"{field}"' for field in FIELDS)
            trial.fail(f"report gave {short(given)}; expected was a dict with {named}.")
        for field in FIELDS:
            found, wanted = given[field], right[field]
            if _same(found, wanted):
                continue
            trial.fail(
                f"{name}: {field!r} is {_say(found)}; expected was {_say(wanted)}"
                f"{_why(run, name, table, field, found, right)}.",
                trace=Trace(events=[e for e in run if e.on.startswith(name)][:12], exact=True),
            )
    kept = [name for name, table in KINDS if _report(run, name, table)["keep"]]
    return f"Seven kinds of key, six numbers each, all right; worth keeping: {', '.join(kept)}."


def _shop(trial: Trial) -> Trace:
    """Two minutes of readers, writers and a job that fills without having missed."""
    actors: list[Any] = []
    # name, keys, mean gap of each reader (s), TTL (s; of the second reader another), query (s)
    for name, keys, gap, ttls, query in (
        ("flag", 1, 2.0, (30, 30), 0.003),
        ("best", 40, 2.0, (300, 300, 300), 1.2),
        ("profile", 8, 3.0, (60, 20, 60), 0.02),
        ("product", 6, 1.5, (40, 40, 40), 0.05),
        ("product_list", 4, 2.0, (10, 10), 0.4),
        ("stock", 12, 1.0, (5, 5), 0.08),
    ):
        actors += [_reader(name, keys, gap, ttl, query, seed) for seed, ttl in enumerate(ttls)]
    # Two who miss the same key at once: the fill of one lies inside the other's wait.
    for start, wait in ((20.0, 2.0), (20.5, 1.0)):
        actors.append((start, _one_read("best:v1:hot", 300, wait)))
    actors += [(1.0, _job), (3.0, _visits), (5.0, _bookings), (10.0, _renewal), (15.0, _both)]
    run = trial.play(actors, hop=HOP)
    return Trace(events=list(run.events), exact=True)


def _reader(
    name: str, keys: int, gap: float, ttl: int, query: float, seed: int
) -> Callable[..., None]:
    def play(cache: Any, db: Any) -> None:
        draw = random.Random(f"{name} {seed}")
        while True:
            time.sleep(draw.expovariate(1 / gap))
            if db.trace.clock() > SECONDS - 2 * query:
                return
            key = f"{name}:v1:{draw.randint(1, keys)}"
            if cache.get(key) is None:
                time.sleep(query * draw.uniform(0.5, 1.5))
                cache.set(key, "x", ex=ttl)

    return play


def _one_read(key: str, ttl: int, query: float) -> Callable[..., None]:
    def play(cache: Any, db: Any) -> None:
        if cache.get(key) is None:
            time.sleep(query)
            cache.set(key, "x", ex=ttl)

    return play


def _renewal(cache: Any, db: Any) -> None:
    """One miss and two fills: nobody asked for the second."""
    _one_read("stock:v1:renewed", 60, 0.08)(cache, db)
    time.sleep(30)
    cache.set("stock:v1:renewed", "x", ex=60)


def _both(cache: Any, db: Any) -> None:
    """Misses two keys, and only then loads one after the other."""
    keys = ("best:v1:left", "best:v1:right")
    for key in keys:
        cache.get(key)
    for key in keys:
        time.sleep(2)
        cache.set(key, "x", ex=300)


def _job(cache: Any, db: Any) -> None:
    """Fills what nobody has missed, and what nobody will read."""
    for number in range(1, 7):
        cache.set(f"product:v1:{number}", "x", ex=40)
        time.sleep(0.3)
        cache.set(f"session:v1:{number}", "x")
    for number in range(1, 7):
        cache.delete(f"session:v1:{number}")


def _visits(cache: Any, db: Any) -> None:
    for number in range(1, 9):
        db.update_user(number, bio="was here")
        cache.delete(f"profile:v1:{number}")
        time.sleep(11)


def _bookings(cache: Any, db: Any) -> None:
    for number in range(1, 13):
        db.update_product(number, stock=number)
        cache.delete(f"stock:v1:{number}")
        time.sleep(7)


def _report(
    run: Trace,
    name: str,
    table: str,
    *,
    prefix: bool = False,
    by_actor: bool = True,
    by_key: bool = True,
    once: bool = True,
    start: bool = True,
) -> dict[str, Any]:
    """The right report; the options are ways to get it wrong, for `_why`."""
    mine = [
        e for e in run if e.on.startswith(name if prefix else name + ":") and e.kind in _COMMANDS
    ]
    hits, misses = (sum(e.kind == kind for e in mine) for kind in ("hit", "miss"))
    missed: dict[Any, float] = {}
    queries = []
    for event in mine:
        who = (event.actor if by_actor else "", event.on if by_key else "")
        if event.kind == "miss":
            missed[who] = event.at
        elif event.kind == "fill" and who in missed:
            queries.append(event.at - (event.took if start else 0) - missed[who])
            if once:
                del missed[who]
    fills = [e for e in mine if e.kind == "fill"]
    ttls = [int(e.detail.split()[1]) for e in fills if e.detail.startswith("TTL")]
    writes = sum(e.kind == "write" and e.on.split(" ")[0] == table for e in run)
    reads, query = hits + misses, sum(queries) / len(queries) if queries else None
    saved = (hits * (query or 0) - sum(e.took for e in mine)) / SECONDS
    return {
        "hits": hits / reads if reads else None,
        "ttl": min(ttls, default=None),
        "query": query,
        "reads_per_write": reads / writes if writes else None,
        "saved": saved,
        "keep": saved >= BAR,
    }


_COMMANDS = frozenset({"hit", "miss", "fill", "delete", "command", "error"})


def _why(
    run: Trace, name: str, table: str, field: str, found: Any, right: Mapping[str, Any]
) -> str:
    """What the learner has probably done, as the end of the sentence; "" if nobody knows."""
    if right[field] is None:
        never = {"hits": "it was never read", "reads_per_write": f"nobody wrote to {table}"}
        return ": " + never.get(field, "none of its fills has one")
    if _same(found, _report(run, name, table, prefix=True)[field]):
        return f" (yours counts other keys that begin with {name!r})"
    mine = [event for event in run if event.on.split(":")[0] == name]
    hits = sum(event.kind == "hit" for event in mine)
    writes = sum(event.kind == "write" for event in run)
    spent = sum(event.took for event in mine)
    reads = hits + sum(event.kind == "miss" for event in mine)
    query = right["query"] or 0.0
    likely: dict[str, list[tuple[Any, str]]] = {
        "hits": [
            (1 - (right["hits"] or 0), "that is the share of misses"),
            (run.hit_rate, "that is the hit rate of the whole cache"),
        ],
        "ttl": [
            (max(_ttls(mine), default=None), "that is the longest"),
            (_mean(_ttls(mine)), "that is the mean"),
        ],
        "query": [
            (
                _report(run, name, table, by_actor=False)["query"],
                "a miss of one reader and the fill of another are no pair",
            ),
            (
                _report(run, name, table, by_key=False)["query"],
                "a miss of one key and the fill of another are no pair",
            ),
            (
                _report(run, name, table, once=False)["query"],
                "a miss counts for the next fill only, not for those after it",
            ),
            (
                _report(run, name, table, start=False)["query"],
                "that goes to the end of the fill, not to its beginning",
            ),
        ],
        "reads_per_write": [
            (reads / writes, "writes to other tables do not count"),
            (hits / max(1, round(reads / right["reads_per_write"])), "a miss is a read as well")
            if right["reads_per_write"]
            else (None, ""),
        ],
        "saved": [
            (hits * query / SECONDS, "what its commands took is not taken off"),
            (hits * query - spent, "that is for the whole trace, not for a second"),
            ((reads * query - spent) / SECONDS, "a miss saves no query"),
            (
                (hits * query - sum(e.took for e in mine if e.kind in {"hit", "miss"})) / SECONDS,
                "fills and deletes take time as well",
            ),
            (
                (hits * query - sum(e.took for e in mine if e.kind != "delete")) / SECONDS,
                "deletes take time as well",
            ),
        ],
        "keep": [
            (
                (right["hits"] or 0) >= 0.7,
                f"it frees {right['saved']:.3f} connections, whatever its hit rate",
            )
        ],
    }
    for value, said in likely[field]:
        if value is not None and _same(found, value):
            return f" ({said})"
    return ""


def _ttls(events: list[Event]) -> list[int]:
    fills = (e.detail.split() for e in events if e.kind == "fill")
    return [int(words[1]) for words in fills if words[0] == "TTL"]


def _mean(values: list[int]) -> float | None:
    return sum(values) / len(values) if values else None


# why_missed ----------------------------------------------------------------------------------

REASONS = ("first", "written", "expired", "evicted")
# What is done with the key, and the reason for each miss after its first fill. "12" lets 12 s pass.
STORIES = (
    ("that nobody has filled", "first", "get"),
    ("deleted before its first fill", "first", "del get"),
    ("filled for 60 s and deleted after 12 s", "written", "get set:60 12 del get"),
    ("filled for 60 s, 80 s ago", "expired", "get set:60 80 get"),
    ("filled for 60 s, exactly 60 s ago", "expired", "get set:60 60 get"),
    ("filled for 60 s and gone after 12 s", "evicted", "get set:60 12 evict get"),
    ("filled without a TTL and gone a day later", "evicted", "get set 86400 evict get"),
    (
        "filled for 60 s and deleted after 80 s, when it had expired",
        "expired",
        "get set:60 80 del get",
    ),
    ("deleted, filled for 60 s, and gone after 5 s", "evicted", "set:60 del set:60 5 evict get"),
    (
        "filled for 60 s, after 50 s once more for 60 s, and gone 20 s later",
        "evicted",
        "set:60 50 set:60 20 evict get",
    ),
    ("filled for 60 s, deleted after 5 s, missed after 105", "written", "set:60 5 del 100 get"),
    ("missed twice before its first fill", "first", "get get"),
    ("deleted by UNLINK", "written", "set:60 unlink get"),
    ("filled for 60 s, gone after 12 s, and missed twice", "evicted", "set:60 12 evict get 5 get"),
    ("filled for 60 s and missed twice after that", "expired", "set:60 80 get 5 get"),
    ("filled for 60 s, deleted after 5 s, and missed twice", "written", "set:60 5 del get 5 get"),
)  # fmt: skip


def judge_why_missed(answer: Any, trial: Trial) -> str:
    """Each story by itself, and then all of them at the same time, mixed with others' events."""
    together: list[Event] = []
    counts = dict.fromkeys(REASONS, 0)
    for number, (told, reason, steps) in enumerate(STORIES):
        run, misses = _told(trial, f"page:v1:{number}", steps)
        wanted = dict.fromkeys(REASONS, 0)
        early = steps.partition("set")[0].split().count("get")
        wanted["first"] += early
        wanted[reason] += misses - early
        given = trial.call(answer, _copy(run))
        _expect_counts(trial, given)
        found = {name: int(given[name]) for name in REASONS}
        if found != wanted:
            trial.fail(
                f"A key {told}: you count {_counted(found)}; expected was {_counted(wanted)}.",
                trace=run,
            )
        together += run.events
        for name in REASONS:
            counts[name] += wanted[name]
    mixed = Trace(events=sorted(together, key=lambda event: event.at), exact=True)
    given = trial.call(answer, _copy(mixed))
    _expect_counts(trial, given)
    found = {name: int(given[name]) for name in REASONS}
    trial.expect(
        found == counts,
        f"Each key by itself is right, but with {len(STORIES)} keys in one trace you count"
        f" {_counted(found)}; expected was {_counted(counts)}.",
        trace=mixed,
    )
    empty = trial.call(answer, Trace())
    _expect_counts(trial, empty)
    trial.expect(
        all(empty[name] == 0 for name in REASONS),
        f"In an empty trace you count {short(empty)}; expected was four times 0.",
    )
    return f"{sum(counts.values())} misses, each with its reason: {_counted(counts)}."


def _told(trial: Trial, key: str, steps: str) -> tuple[Trace, int]:
    """Play one story; the trace and how many misses it has."""
    world = trial.world()
    world.fast_forward(1)
    for step in steps.split():
        what, _, ttl = step.partition(":")
        if what.isdigit():
            world.fast_forward(int(what))
        elif what == "set":
            world.cache.set(key, "x", ex=int(ttl) if ttl else None)
        elif what == "evict":
            with world.trace.off_the_record():
                world.cache.delete(key)
        elif what == "del":
            world.cache.delete(key)
        elif what == "unlink":
            world.cache.unlink(key)
        else:
            world.cache.get(key)
    return Trace(events=list(world.trace.events), exact=True), world.trace.misses


def _expect_counts(trial: Trial, given: Any) -> None:
    fine = isinstance(given, Mapping) and all(name in given for name in REASONS)
    named = ", ".join(f'"{name}"' for name in REASONS)
    trial.expect(fine, f"why_missed gave {short(given)}; expected was a dict with {named}.")
    for name in REASONS:
        count = finite(given[name])
        trial.expect(
            count is not None and count == int(count),
            f"{name!r} is {short(given[name])}; expected was a count.",
        )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"


# rates ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """One line of a log of reads."""

    waited: float  # seconds until it had its answer
    query: float  # seconds that its own query takes, or would have taken
    asked: bool  # whether it sent that query


RATES = ("hits", "at_once", "time")


def _logs() -> list[tuple[str, list[Read]]]:
    fast, hop = 0.0005, 0.0005
    plain = [Read(fast, 0.04, False)] * 8 + [Read(0.061, 0.06, True)] * 2
    lying = [Read(fast, 0.004, False)] * 90 + [Read(1.201, 1.2, True)] * 10
    draw = random.Random(12)
    waiting = [Read(fast, 0.5, False)] * 60 + [Read(0.501, 0.5, True)] * 3
    waiting += [Read(draw.uniform(0.02, 0.5), 0.5, False) for _ in range(30)]
    useless = [Read(fast, 0.0002, False)] * 5 + [Read(0.0002 + 2 * hop, 0.0002, True)] * 5
    return [
        ("10 reads of two pages", plain),
        ("90 cheap hits and 10 dear misses", lying),
        ("93 reads of which 30 waited for another's query", waiting),
        ("10 reads of a query that is faster than the cache", useless),
        ("two misses", [Read(0.011, 0.01, True)] * 2),
        ("one hit that waited exactly 10 ms", [Read(0.010, 0.5, False)]),
    ]


def judge_rates(answer: Any, trial: Trial) -> str:
    """Three rates of six logs and of an empty one."""
    for told, reads in _logs():
        given = trial.call(answer, list(reads))
        _expect_rates(trial, given)
        hits = [read for read in reads if not read.asked]
        waited, query = sum(r.waited for r in reads), sum(r.query for r in reads)
        right = {
            "hits": len(hits) / len(reads),
            "at_once": sum(read.waited < 0.010 for read in hits) / len(reads),
            "time": 1 - waited / query,
        }
        for name in RATES:
            found = finite(given[name])
            if found is None:
                trial.fail(f"{told}: {name!r} is {short(given[name])}; expected was a share of 1.")
            if abs(found - right[name]) <= 0.001:
                continue
            trial.fail(
                f"{told}: {name!r} is {found:.3f}; expected was {right[name]:.3f}"
                f"{_hidden(name, found, reads, right)}."
            )
    given = trial.call(answer, [])
    _expect_rates(trial, given)
    trial.expect(
        all(given[name] is None for name in RATES),
        f"Without any read rates gave {short(given)}; expected was None for each.",
    )
    return "Three rates of six logs: hits, hits at once, time saved."


def _expect_rates(trial: Trial, given: Any) -> None:
    trial.expect(
        isinstance(given, Mapping) and all(name in given for name in RATES),
        f'rates gave {short(given)}; expected was a dict with "hits", "at_once" and "time".',
    )


def _hidden(name: str, found: float, reads: list[Read], right: Mapping[str, float]) -> str:
    """What the learner has probably done."""
    hits = [read for read in reads if not read.asked]
    query = sum(read.query for read in reads)
    own = [1 - read.waited / read.query for read in reads]
    likely = [(100 * right[name], "yours is per cent")]
    if name == "hits":
        likely += [(1 - right["hits"], "that is the share of misses")]
        likely += [(right["at_once"], "a hit that waited is still one that asked nothing")]
    elif name == "at_once":
        likely += [
            (
                sum(r.waited < 0.010 for r in reads) / len(reads),
                "a read that asked the database does not count, however quick it was",
            ),
            (right["at_once"] * len(reads) / max(1, len(hits)), "that is per hit, not per read"),
            (sum(r.waited <= 0.010 for r in hits) / len(reads), "10 ms is not less than 10 ms"),
            (right["hits"], "some of those waited for a query of another"),
        ]
    else:
        likely += [
            (sum(own) / len(own), "that is the mean of each read's share, so a cheap read counts"
             " as much as a dear one"),
            (sum(r.query for r in hits) / query, "lookups, stores and waiting take time too"),
            (right["hits"], "that is the hit rate: hits of a cheap query spare little"),
            (max(0.0, right["time"]), "a cache may cost more than it spares"),
            (1 - right["time"], "that is the share that was waited"),
            (sum(r.query - r.waited for r in hits) / query, "a miss pays for the cache as well"),
        ]  # fmt: skip
    for value, said in likely:
        if abs(found - value) <= 0.001:
            return f" ({said})"
    return ""


# choose --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """Something that one could cache."""

    name: str
    size: int  # bytes of all its values
    reads: float  # per second
    query: float  # seconds


GOOD = 0.95  # of the best possible
MB = 1_000_000


def _items() -> list[tuple[str, list[Item], int]]:
    shop = [
        Item("country codes", 1 * MB, 900, 0.0004),
        Item("front page", 2 * MB, 400, 0.04),
        Item("best sellers", 5 * MB, 4, 1.2),
        Item("product pages", 60 * MB, 1_200, 0.004),
        Item("prices", 8 * MB, 1_500, 0.002),
        Item("search results", 40 * MB, 8, 1.1),
        Item("order histories", 90 * MB, 30, 0.2),
        Item("sales report", 25 * MB, 0.1, 8.0),
        Item("avatars", 70 * MB, 500, 0.003),
        Item("comments", 12 * MB, 60, 0.03),
    ]
    tens = [(f"the shop's ten, room for {room} MB", shop, room * MB) for room in (70, 30, 400)]
    fourteens = []
    for seed in (602, 184, 1009):
        draw = random.Random(seed)
        many = [
            Item(
                f"data set {number}",
                round(draw.lognormvariate(2, 1)) * MB + MB,
                round(draw.lognormvariate(3, 1.2), 2),
                round(draw.lognormvariate(-4, 1.2), 4),
            )
            for number in range(1, 15)
        ]
        fourteens.append(("fourteen data sets, room for 60 MB", many, 60 * MB))
    three = [
        Item("prices", 10 * MB, 100, 0.05),
        Item("comments", 20 * MB, 100, 0.05),
        Item("avatars", 30 * MB, 100, 0.03),
    ]
    exact = ("three data sets, room for 30 MB", three, 30 * MB)
    return [fourteens[0], *tens, *fourteens[1:], exact]


def judge_choose(answer: Any, trial: Trial) -> str:
    """Fits, saves, and comes near the best of all choices, which is found by trying them."""
    shares = []
    for told, items, room in _items():
        given = trial.call(answer, list(items), room)
        named = _names(trial, given, items)
        by_name = {item.name: item for item in items}
        chosen = [by_name[name] for name in named]
        size = sum(item.size for item in chosen)
        trial.expect(
            size <= room,
            f"{told}: what you chose takes {size / MB:,.0f} MB: too much.",
        )
        for item in chosen:
            trial.expect(
                _worth(item) > 0,
                f"{told}: {item.name} is cached, but its query takes {item.query * 1e3:g} ms and a"
                " lookup 0.5 ms: it saves nothing.",
            )
        found, best = sum(map(_worth, chosen)), _best(items, room)
        if found < GOOD * best:
            trial.fail(
                f"{told}: you save {found:.1f} connections, the best"
                f" choice {best:.1f}; {found / best:.0%} is too little"
                f"{_missed(items, chosen, room)}."
            )
        shares.append(found / best)
    return f"Everything fits, and it saves at least {min(shares):.0%} of what the best choice does."


def _names(trial: Trial, given: Any, items: list[Item]) -> list[str]:
    """What was chosen, each once, as names."""
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        trial.fail(f"choose gave {short(given)}; expected was a list of names.")
    listed = list(given)
    known = {item.name for item in items}
    for one in listed:
        trial.expect(
            isinstance(one, str) and one in known,
            f"choose gave {short(one)} in its list; expected was the name of an item.",
        )
    twice = [one for one in listed if listed.count(one) > 1]
    trial.expect(not twice, f"{twice[:1]} is in the list more than once.")
    return listed


def _worth(item: Item) -> float:
    """Connections that it sets free."""
    return item.reads * (item.query - HOP)


def _best(items: list[Item], room: int) -> float:
    """The most that any choice saves, by trying all of them."""
    size, worth = np.zeros(1), np.zeros(1)
    for item in items:
        size = np.concatenate([size, size + item.size])
        worth = np.concatenate([worth, worth + _worth(item)])
    return float(worth[size <= room].max())


def _missed(items: list[Item], chosen: list[Item], room: int) -> str:
    """A left-out item that would have fitted, or the one that saves most for its size."""
    left = room - sum(item.size for item in chosen)
    out = [item for item in items if item not in chosen and _worth(item) > 0]
    fitting = [item.name for item in out if item.size <= left]
    if fitting:
        return f", and {fitting[0]} would still have fitted"
    densest = max(out, key=lambda item: _worth(item) / item.size)
    return (
        f", and {densest.name}, which saves {_worth(densest) / densest.size * MB:.2g} a MB, is out"
    )


# What several of them need -------------------------------------------------------------------


def _copy(run: Trace) -> Trace:
    """The same trace for an answer to do with as it likes."""
    return Trace(events=list(run.events), exact=True)


def _same(found: Any, wanted: Any) -> bool:
    if wanted is None or isinstance(wanted, bool):
        return found is wanted or (isinstance(found, np.bool_) and bool(found) is wanted)
    number = finite(found)
    return number is not None and abs(number - wanted) <= 0.005 * abs(wanted) + 1e-6


def _say(value: Any) -> str:
    number = finite(value)
    return short(value) if number is None else f"{number:.4g}"
