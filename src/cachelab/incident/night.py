"""A night on the stage: the same traffic for every version of the service, and what came of it."""

from __future__ import annotations

import bisect
import functools
import inspect
import json
import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from cachelab import stage
from cachelab.incident.parts import FAULTS, PROMISED, Part, with_faults
from cachelab.incident.pods import ConnectionLimit, Pod, hash_per_process, open_pod
from cachelab.incident.scenario import IncidentError, Scenario, load
from cachelab.incident.service import ROOMS, WORDS, Service, on_the_shelf, row, slow, taking
from cachelab.origin import Product, Size, peek, rows
from cachelab.record.trace import Event, Trace, say_seconds

SHOP = Size(users=20, products=40, articles=5, comments=20, orders=50)
PODS = ("pod-1", "pod-2")
NEW = 41  # the product that is launched
DEAD = (901, 902, 903)  # what dead links lead to
HOP = 0.002  # seconds of a trip to the cache
LATE = 1.0  # seconds: a later answer is a slow one
WEIGHTS = {"wrong": 10, "slow": 3, "queries": 1}  # of the harm
WALL_SECONDS = 40.0


@dataclass(frozen=True)
class PageRequest:
    """One customer: who serves, what is asked for, and when, in seconds."""

    who: str
    at: float
    page: str
    about: Any


@dataclass(frozen=True)
class PageAnswer:
    """What one customer got: `said` is the answer, or None with a `failure`; times in seconds."""

    request: PageRequest
    said: Any
    failure: str
    took: float
    wrong: bool = False

    @property
    def slow(self) -> bool:
        """Later than `LATE`, or no answer at all."""
        return bool(self.failure) or self.took > LATE


@dataclass(frozen=True)
class Score:
    """What customers saw, and what the database had to do. Less `harm` is better."""

    answers: int
    wrong: int
    slow: int
    queries: int

    @property
    def harm(self) -> int:
        """10 for each wrong answer, 3 for each slow one, 1 for each query."""
        return sum(weight * getattr(self, name) for name, weight in WEIGHTS.items())

    def __repr__(self) -> str:
        return (
            f"{self.answers:,} answers: {self.wrong:,} wrong, {self.slow:,} slow;"
            f" {self.queries:,} queries\n"
            f"harm = 10 x {self.wrong:,} + 3 x {self.slow:,} + {self.queries:,} = {self.harm:,}"
        )


# Who comes when ------------------------------------------------------------------------------


def traffic(night: Scenario) -> list[PageRequest]:
    """Everybody who comes, in order of arrival; drawn from the seed, before anything is served."""
    draw = random.Random(night.seed)
    pages, weights = list(night.mix), list(night.mix.values())
    asked: list[tuple[float, str]] = []
    at = draw.expovariate(night.rate)
    while at < night.seconds:
        asked.append((round(at, 3), draw.choices(pages, weights)[0]))
        at += draw.expovariate(night.rate)
    for burst in night.bursts:
        asked += [(burst.at, burst.page)] * burst.customers
    asked.sort(key=lambda one: one[0])
    return [
        PageRequest(f"{_pod(night, number, at)} r{number}", at, page, _about(page, draw))
        for number, (at, page) in enumerate(asked, 1)
    ]


def _pod(night: Scenario, number: int, at: float) -> str:
    """Which process serves: pods take turns, and each restart is a new process."""
    which = number % len(PODS)
    if night.restart_every is None:
        return f"{PODS[which]}.1"
    restarts = int(at / night.restart_every)
    mine = (restarts + 1 - which) // len(PODS)  # they are restarted in turn, pod-1 first
    return f"{PODS[which]}.{mine + 1}"


def _about(page: str, draw: random.Random) -> Any:
    numbers = range(1, SHOP.products + 1)
    if page in {"product", "stock"}:
        return draw.choices(numbers, [1 / rank for rank in numbers])[0]
    if page == "search":
        return draw.choices(WORDS, [1 / rank for rank in range(1, len(WORDS) + 1)])[0]
    if page == "missing":
        return NEW if draw.random() < 0.75 else draw.choice(DEAD)
    return draw.choice(ROOMS) if page == "shelf" else ROOMS[0]


# The cast ------------------------------------------------------------------------------------


@dataclass
class NightState:
    """What one run keeps beside its trace."""

    night: Scenario
    parts: Mapping[str, Part]
    connections: ConnectionLimit = field(default_factory=ConnectionLimit)
    pods: dict[str, Pod] = field(default_factory=dict)
    answers: list[PageAnswer] = field(default_factory=list)
    truth: dict[str, dict[int, int]] = field(default_factory=dict)  # price job -> prices after it
    sold: list[tuple[float, int, int]] = field(default_factory=list)  # seconds, product, left
    _writing: Any = None

    def writing(self) -> Any:
        """One writer at a time. Two that wait for each other's rows could fill all slots."""
        if self._writing is None:
            self._writing = threading.Lock()
        return self._writing

    def pod(self, cache: Any, process: str) -> Pod:
        """The process with this name; started, and its predecessor ended, when first needed."""
        if process not in self.pods:
            name = process.partition(".")[0]
            for old in [one for one in self.pods if one.startswith(f"{name}.")]:
                self.pods.pop(old).close()
            wire = self.connections.wire(cache)
            made = open_pod(process, self.parts["connect"], wire, cache.trace)
            cache.trace.note(f"INFO {process} has started")
            self.pods[process] = made
        return self.pods[process]


_CACHE_AND_DB = inspect.signature(lambda cache, db: None)


def actors_of(night: Scenario, parts: Mapping[str, Part]) -> tuple[dict[str, Any], NightState]:
    """The actors of a night for `stage.run`, and what they leave behind."""
    playing = NightState(night, parts)

    def actor(play: Callable[..., Any], *more: Any) -> Any:
        # A partial, so that the stage finds what a learner's part keeps: each pod has its own.
        made: Any = functools.partial(play, playing, tuple(parts.values()), *more)
        made.__signature__ = _CACHE_AND_DB  # or it is worked out anew for each of a thousand
        return made

    actors: dict[str, Any] = {"deploy": (0.0, actor(_deploy))}
    for request in traffic(night):
        serve, pod = actor(_serve, request), request.who.partition(" ")[0]
        actors[request.who] = stage.Actor(request.who, serve, request.at, process=pod)
    draw = random.Random(night.seed + 1)
    for number, at in enumerate(night.price_jobs, 1):
        prices = {
            product: 25 * draw.randint(20, 400) for product in sorted(draw.sample(range(1, 21), 10))
        }
        actors[f"price-job j{number}"] = (at, actor(_reprice, f"price-job j{number}", prices))
    numbers = range(1, SHOP.products + 1)
    sales = int(night.seconds / night.stock_every) if night.stock_every else 0
    for number in range(1, sales):
        product = draw.choices(numbers, [1 / rank for rank in numbers])[0]
        actors[f"till t{number}"] = (number * night.stock_every, actor(_sell, product))
    if night.launch_at is not None:
        actors["catalogue"] = (night.launch_at, actor(_launch))
    return actors, playing


def options(night: Scenario) -> dict[str, Any]:
    """What `stage.run` needs to know besides the actors."""
    return {
        "seed": 0,
        "latency": taking.get,  # depends on who asks for what
        "capacity": night.slots,
        "hop": HOP,
        "size": SHOP,
        "limit_seconds": night.seconds + 3_600,
    }


def _serve(playing: NightState, _: Any, request: PageRequest, cache: Any, db: Any) -> None:
    trace, failure, said = cache.trace, "", None
    began = trace.clock()
    try:
        pod = playing.pod(cache, request.who.partition(" ")[0])
        service = Service(pod.cache, db, playing.parts, trace.note)
        page = "product" if request.page == "missing" else request.page
        said = getattr(service, page)(request.about)
    except Exception as error:
        failure = " ".join(f"{type(error).__name__}: {error}".split())[:100]
    took = trace.clock() - began
    playing.answers.append(PageAnswer(request, said, failure, took))
    told = f"ERROR 500, {failure}" if failure else f"200 {_abbreviated(said)}"
    trace.note(f"GET /{request.page}/{request.about} {told}, {say_seconds(took)}")


def _abbreviated(said: Any) -> str:
    text = "not found" if said is None else str(said).replace(" ", "")
    return text if len(text) <= 24 else text[:21] + "..."


def _deploy(playing: NightState, _: Any, cache: Any, db: Any) -> None:
    """A new version goes live: it fills every product within half a second."""
    with slow("warm-up"):
        for number in range(1, SHOP.products + 1):
            seconds = playing.parts["lifetime"]("product", True)
            cache.set(f"product:v1:{number}", json.dumps(row(db, number)), ex=seconds)
    cache.trace.note(f"INFO deployed; {SHOP.products} products warmed up")


def _reprice(
    playing: NightState, _: Any, who: str, prices: dict[int, int], cache: Any, db: Any
) -> None:
    cache.trace.note(f"INFO changing {len(prices)} prices: {', '.join(map(str, prices))}")
    try:
        with playing.writing(), slow("write"):
            playing.parts["change_prices"](cache, db, dict(prices))
        cache.trace.note("INFO prices changed")
    except Exception as error:
        cache.trace.note(f"ERROR prices not changed, {type(error).__name__}: {error}")
    now = peek(db, "SELECT id, price_cents FROM products")
    playing.truth[who] = {int(number): int(cents) for number, cents in now}


def _sell(playing: NightState, _: Any, product: int, cache: Any, db: Any) -> None:
    with playing.writing():
        left = peek(db, "SELECT stock FROM products WHERE id = ?", (product,))[0][0]
        db.update_product(product, stock=left - 1 if left else 50)
    playing.sold.append((cache.trace.clock(), product, left - 1 if left else 50))


def _launch(playing: NightState, _: Any, cache: Any, db: Any) -> None:
    new = {"id": NEW, "name": "hall lamp 41", "category": "hall", "version": 1}
    with playing.writing(), db.session() as session:
        session.execute(sa.insert(Product).values(**new, price_cents=4_900, stock=30))
        session.commit()
    cache.trace.note(f"INFO product {NEW} is in the catalogue")


# Playing ----------------------------------------------------------------------------------------


@dataclass
class Run:
    """One night, played: its trace, the answers, the score.

    `trace` holds everything in order: operations, and the service's log as notes. An entry is
    cited by its number, from 1.
    """

    night: Scenario
    trace: Trace
    answers: list[PageAnswer]
    faults: tuple[str, ...]
    connections: int  # the most that were open at once

    @property
    def score(self) -> Score:
        """What customers saw."""
        wrong = sum(answer.wrong for answer in self.answers)
        slow_ones = sum(answer.slow for answer in self.answers)
        return Score(len(self.answers), wrong, slow_ones, self.trace.queries)

    @property
    def good(self) -> bool:
        """Whether this night was good enough for the scenario."""
        score, most = self.score, self.night.good
        return (
            score.wrong <= most.wrong and score.slow <= most.slow and score.queries <= most.queries
        )

    def entry(self, number: int) -> Event:
        """One entry of the journal by its number, from 1."""
        return self.trace.events[number - 1]

    def line(self, number: int, most: int = 60) -> str:
        """One entry of the journal as a line; lists of keys are cut to `most` characters."""
        event = self.entry(number)
        when = self.night.time_of_day(event.at, 3)
        if event.kind == "note":
            return f"{number:5}  {when}  {event.actor:12}  log     {event.what}"
        more = [event.detail] if event.detail else []
        if event.is_stale:
            more.append(f"wrong for {say_seconds(event.stale_for or 0.0)}")
        said = f"{event.what} {event.on}".rstrip()
        said = said if len(said) <= most else f"{said[: most - 3]}..."
        shown = f"{number:5}  {when}  {event.actor:12}  {event.kind:7} {said}"
        return f"{shown}  ({', '.join(more)})" if more else shown

    def grep(
        self, pattern: str = "", *, since: str = "", until: str = "", who: str = "", most: int = 12
    ) -> Lines:
        """The entries that match a regular expression, between two times of day ("03:04:10").

        `who` is how the actor's name begins. IncidentError for what is no expression or no time.
        """
        try:
            wanted = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise IncidentError(f"{pattern!r} is no regular expression: {error}.") from None
        first = self._seconds(since) if since else 0.0
        last = self._seconds(until) if until else float("inf")
        found = [
            number
            for number, event in enumerate(self.trace.events, 1)
            if first <= event.at <= last
            and event.actor.startswith(who)
            and wanted.search(self.line(number, most=10_000))
        ]
        return Lines(tuple(map(self.line, found[:most])), len(found))

    def _seconds(self, clock: str) -> float:
        found = re.fullmatch(r"(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?", str(clock))
        if not found:
            raise IncidentError(f"{clock!r} is no time of day; write one such as '03:04:10'.")
        hours, minutes, seconds = found.groups()
        begin = [int(part) for part in self.night.clock.split(":")]
        total = 3_600 * (int(hours) - begin[0]) + 60 * (int(minutes) - begin[1])
        return (total + float(seconds or 0)) % 86_400


@dataclass(frozen=True)
class Lines:
    """Some lines of the journal; says how many more there are."""

    lines: tuple[str, ...]
    total: int

    def __repr__(self) -> str:
        if not self.lines:
            return "nothing found"
        more = self.total - len(self.lines)
        return "\n".join([*self.lines, f"... and {more:,} more"] if more else self.lines)


def play(
    night: Scenario | str,
    fixes: Mapping[str, Part] | None = None,
    *,
    faults: Iterable[str] | None = None,
) -> Run:
    """Play a night: with the planted `faults` (the scenario's own), and `fixes` in their places.

    `fixes` maps names of parts to functions. The traffic is the same whatever the service does.
    Raises IncidentError for a part or a fault that there is not; `stage.Stuck` for a service that
    cannot come to an end.
    """
    scenario = load(night) if isinstance(night, str) else night
    planted = planted_in(scenario, faults)
    parts = repaired(planted, fixes or {})
    actors, playing = actors_of(scenario, parts)
    with hash_per_process(parts.values()):
        trace = stage.run(actors, wall_limit=WALL_SECONDS, **options(scenario))
    return judged(playing, trace, planted)


def planted_in(night: Scenario, faults: Iterable[str] | None = None) -> tuple[str, ...]:
    """The faults to plant, in the catalogue's order; IncidentError for an unknown name."""
    names = night.faults if faults is None else tuple(faults)
    for name in names:
        if name not in FAULTS:
            raise IncidentError(
                f"There is no fault {str(name)[:40]!r} in the catalogue; known are"
                f" {', '.join(FAULTS)}."
            )
    return tuple(name for name in FAULTS if name in names)


def repaired(planted: Iterable[str], fixes: Mapping[str, Part]) -> dict[str, Part]:
    """The five parts with planted faults, and with `fixes` in place of some."""
    parts = with_faults(planted)
    for name, part in fixes.items():
        if name not in parts:
            raise IncidentError(
                f"The service has no part {str(name)[:40]!r}; its parts are {', '.join(parts)}."
            )
        if not callable(part):
            raise IncidentError(f"{name} must be a function; this is {str(part)[:40]!r}.")
        parts[name] = part
    return parts


# Was it right? -------------------------------------------------------------------------------


def judged(playing: NightState, trace: stage.StageTrace, faults: tuple[str, ...]) -> Run:
    """The run, with each answer held against what was true."""
    truth = _Oracle(playing, trace)
    answers = [
        PageAnswer(a.request, a.said, a.failure, a.took, wrong=not truth.allows(a))
        for a in playing.answers
    ]
    answers.sort(key=lambda answer: (answer.request.at, int(answer.request.who.split(" r")[1])))
    kept = Trace(clock=float, events=list(trace.events), exact=True)
    return Run(playing.night, kept, answers, faults, playing.connections.peak)


class _Oracle:
    """What was true when: a history for each thing that changes."""

    def __init__(self, playing: NightState, trace: Trace) -> None:
        self.history: dict[Any, list[tuple[float, Any]]] = {}
        first = {seeded[0]: seeded for seeded in _seeded()}
        for number, seeded in first.items():
            self.history["price", number] = [(-1e9, seeded[3])]
            self.history["stock", number] = [(-1e9, seeded[4])]
        self.names = {number: seeded[1] for number, seeded in first.items()}
        commits: dict[str, float] = {}
        for event in trace.of("commit"):
            commits[event.actor.split("/")[0]] = event.at
        for job, prices in playing.truth.items():
            for number, cents in prices.items():
                past = self.history.setdefault(("price", number), [(-1e9, None)])
                if number != NEW and past[-1][1] != cents:
                    past.append((commits.get(job, 0.0), cents))
        for at, product, left in playing.sold:
            self.history["stock", product].append((at, left))
        launched = commits.get("catalogue", 1e9)
        self.history["price", NEW] = [(-1e9, None), (launched, 4_900)]
        self.launched = launched

    def allows(self, answer: PageAnswer) -> bool:
        """Whether what was said was true at some moment that the promise covers."""
        page, about, said = answer.request.page, answer.request.about, answer.said
        if answer.failure:
            return True  # it is slow, not wrong
        began = answer.request.at
        ended = began + answer.took
        if page == "product":
            return self._true("price", about, said, began - PROMISED["product"], ended)
        if page == "stock":
            return self._true("stock", about, said, began - PROMISED["stock"], ended)
        if page == "missing":
            return self._true("price", about, said, began - PROMISED["absent"], ended)
        if page == "shelf":
            since, numbers = began - PROMISED["product"], on_the_shelf(about)
            if not isinstance(said, list) or len(said) != len(numbers):
                return False
            pairs = zip(numbers, said, strict=True)
            return all(self._true("price", number, cents, since, ended) for number, cents in pairs)
        if page == "search":
            found = [number for number, name in self.names.items() if about in name]
            later = [*found, NEW] if about in "hall lamp 41" else found
            old = said == found and began - PROMISED["search"] <= self.launched
            return old or (said == later and ended >= self.launched)
        return isinstance(said, list) and len(said) > 0

    def _true(self, what: str, number: int, said: Any, since: float, until: float) -> bool:
        past = self.history.get((what, number), [(-1e9, None)])
        times = [at for at, _ in past]
        begin, end = bisect.bisect_right(times, since) - 1, bisect.bisect_right(times, until)
        return any(said == value for _, value in past[max(0, begin) : end])


@functools.cache
def _seeded() -> tuple[tuple[Any, ...], ...]:
    return tuple(rows(SHOP)["products"])
