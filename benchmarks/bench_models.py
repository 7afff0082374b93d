"""How long one slider move of each model takes, and models beside SimPy and cachetools.

Times are processor time, so that a busy machine does not decide, as the median of repeated runs at
the default sizes, each with another setting of the slider.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import cachetools
import simpy

from benchmarks.table import Row, Target
from cachelab import widgets
from cachelab.models import (
    early_refresh,
    eviction,
    jitter,
    recovery,
    staleness,
    stampede,
    ttl,
    worth,
    write_back,
)

TITLE = "The models: one slider move, and beside SimPy"
BUDGET = 10.0
MOVE = Target(0.005, "ours")  # s
FASTER = Target(1 / 100)
MOVES = 40
REPEATS = 25  # of our stampede for each one of SimPy's
QUERY_TIME = 0.0101  # s; off the grid of arrivals, so that no tie decides a count


def seconds_of(move: Callable[[float], Any], moves: int) -> float:
    """Median processor time (s) of `move` over settings that differ by up to a half."""
    move(1.0)
    took = []
    for step in range(moves):
        began = time.process_time()
        move(1 + 0.5 * step / moves)
        took.append(time.process_time() - began)
    return statistics.median(took)


def evict(policy: str) -> Callable[[float], Any]:
    """A move of the capacity slider under `policy`."""
    return lambda x: eviction.simulate(policy, eviction.zipf_requests(1000), int(100 * x))


def models() -> dict[str, Callable[[float], Any]]:
    """One slider move of each simulator, explorer, and formula that is not instant."""
    shares = eviction.popularity(1000)
    moves: dict[str, Callable[[float], Any]] = {
        "ttl": lambda x: ttl.simulate(x, 10, query_time=0.5, jitter=0.1),
        "jitter, 10,000 keys": lambda x: jitter.simulate(10_000, 3600, 300 * x),
        "jitter, 10,000 keys, 10 cycles": lambda x: jitter.simulate(
            10_000, 3600, 300 * x, cycles=10
        ),
        "stampede, queue": lambda x: stampede.simulate(query_time=0.01 * x),
        "stampede, sharing": lambda x: stampede.simulate(query_time=0.01 * x, discipline="ps"),
        "staleness": lambda x: staleness.simulate(10, 0.1 * x, 10),
        "staleness, race": lambda x: staleness.simulate(20, x, fill_time=0.01, delete_delay=0),
        "early refresh": lambda x: early_refresh.simulate(100, 10, 0.2 * x),
        "early refresh, lead formula": lambda x: early_refresh.mean_lead(100, 10, 0.2 * x),
        "write-back": lambda x: write_back.simulate(500, 5 * x),
        "worth": lambda x: worth.simulate(0.6 * x, 0.001, 0.02),
        "recovery, outage": lambda x: recovery.simulate_outage(100 * x, 400, 0.9),
        "eviction, Che": lambda x: eviction.che_hit_ratio(shares, int(100 * x)),
    }
    for policy in eviction.POLICIES:
        moves[f"eviction, {policy}"] = evict(policy)
    explorers = {name: getattr(widgets, name)() for name in widgets.EXPLORERS}
    # The stampede explorer is drawn, and its model run, in the browser.
    return moves | {
        name: explore(explorer)
        for name, explorer in explorers.items()
        if isinstance(explorer, widgets.Explorer)
    }


def explore(explorer: widgets.Explorer) -> Callable[[float], Any]:
    """A move of an explorer's first slider: what its models take, without drawing."""
    name, slider = next(iter(explorer.settings.items()))
    if hasattr(slider, "options"):
        values = [value for _, value in slider.options if value >= slider.value]
    else:
        values = [slider.value, slider.max]
    return lambda x: explorer.show(**explorer.values | {name: values[int(len(values) * (x - 1))]})


def simpy_stampede(times: list[float], query_time: float, slots: int) -> tuple[int, float]:
    """The same stampede in SimPy: queries, and s at which the last answer comes."""
    env = simpy.Environment()
    database = simpy.Resource(env, capacity=slots)
    ends: list[float] = []

    def reader(arrival: float) -> Any:
        yield env.timeout(arrival)
        if ends:
            return
        with database.request() as slot:
            yield slot
            yield env.timeout(query_time)
        ends.append(env.now)

    for arrival in times:
        env.process(reader(arrival))
    env.run()
    return len(ends), max(ends)


def beside_simpy(slots: int, window: float, rounds: int) -> tuple[float, float, int]:
    """Ours and SimPy's processor time (s) for one stampede, in turns, and the queries."""
    ours, theirs = [], []
    for _ in range(rounds):
        began = time.process_time()
        for _again in range(REPEATS):
            run = stampede.simulate(800, window, QUERY_TIME, slots)
        ours.append((time.process_time() - began) / REPEATS)
        arrivals = run.arrivals.tolist()
        began = time.process_time()
        queries, last = simpy_stampede(arrivals, QUERY_TIME, slots)
        theirs.append(time.process_time() - began)
    if queries != run.queries or abs(last - run.last_answer) > 1e-9:
        raise AssertionError(f"SimPy counts {queries} queries, and the model {run.queries}")
    return statistics.median(ours), statistics.median(theirs), queries


def beside_cachetools(capacity: int, rounds: int) -> tuple[float, float, int]:
    """Our LRU and cachetools' on the same requests: processor time (s) of each, and the hits."""
    requests = eviction.zipf_requests(1000)
    ours, theirs = [], []
    for _ in range(rounds):
        began = time.process_time()
        run = eviction.simulate("lru", requests, capacity, warm_up=0)
        ours.append(time.process_time() - began)
        keys = requests.tolist()
        began = time.process_time()
        cache: Any = cachetools.LRUCache(capacity)
        hits = 0
        for key in keys:
            if cache.get(key):
                hits += 1
            else:
                cache[key] = True
        theirs.append(time.process_time() - began)
    if hits != run.hits:
        raise AssertionError(f"cachetools hits {hits} times, and the model {run.hits}")
    return statistics.median(ours), statistics.median(theirs), hits


def rows(tiny: bool = False) -> Iterator[Row]:
    """The slowest slider move, the stampede beside SimPy, LRU beside cachetools."""
    rounds, moves = (1, 3) if tiny else (15, MOVES)
    took = {name: seconds_of(move, moves) for name, move in models().items()}
    slowest = max(took, key=lambda name: took[name])
    placed: dict[tuple[float, int], tuple[float, float, int]] = {
        (window, slots): beside_simpy(slots, window, rounds)
        for window in (0.0, 0.2)
        for slots in ((1,) if tiny else (1, 10, 50))
    }
    simpy_takes = placed[0.2, 1][1]
    yield Row(
        f"slider moves of {len(took)} models, the slowest ({slowest})",
        took[slowest],
        beside="one stampede of 800 in SimPy",
        theirs=simpy_takes,
        target=MOVE,
        short="models: the slowest slider move",
    )
    for name in took:
        if name != slowest and took[name] > MOVE.limit:
            yield Row(f"a slider move, {name}", took[name], target=MOVE)
    for (window, slots), (ours, theirs, queries) in placed.items():
        when = f"over {window:g} s" if window else "at once"
        yield Row(
            f"800 readers {when}, {slots} slots, {queries} queries",
            ours,
            beside="SimPy, the same counts",
            theirs=theirs,
            target=FASTER,
            short="models: a stampede of 800 over 0.2 s" if (window, slots) == (0.2, 1) else "",
        )
    ours, theirs, hits = beside_cachetools(100, rounds)
    yield Row(
        f"LRU, 100 of 1,000 objects, {hits:,} hits",
        ours,
        beside="cachetools.LRUCache, the same hits",
        theirs=theirs,
    )
