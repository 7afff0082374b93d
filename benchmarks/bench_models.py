"""How long one slider move of each model takes, and the stampede against SimPy, in one run.

Run `python benchmarks/bench_models.py`. It ends with exit code 1 if a model takes more than 5 ms,
the stampede is less than 100 times as fast as SimPy, or the two count differently. Times are
processor time, so that a busy machine does not decide, as the median of repeated runs at the
default sizes, each with another setting of the slider.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import simpy

from cachelab.models import (
    early_refresh,
    eviction,
    jitter,
    recovery,
    revalidate,
    staleness,
    stampede,
    ttl,
    worth,
    write_back,
)

BUDGET_MS = 5.0
AT_LEAST = 100
MOVES = 40
REPEATS = 25  # of our stampede for each one of SimPy's
QUERY_TIME = 0.0101  # s; off the grid of arrivals, so that no tie decides a count


def milliseconds(move: Callable[[float], Any]) -> tuple[float, float]:
    """Median and 95th percentile (ms) of `move` over settings that differ by up to a half."""
    move(1.0)
    took = []
    for step in range(MOVES):
        begin = time.process_time()
        move(1 + 0.5 * step / MOVES)
        took.append(1e3 * (time.process_time() - begin))
    return statistics.median(took), statistics.quantiles(took, n=20)[-1]


def evict(policy: str) -> Callable[[float], Any]:
    """A move of the capacity slider under `policy`."""
    return lambda x: eviction.simulate(policy, eviction.zipf_requests(1000), int(100 * x))


def models() -> dict[str, Callable[[float], Any]]:
    """One slider move of each simulator, and of the formulas that are not instant."""
    shares = eviction.popularity(1000)
    moves: dict[str, Callable[[float], Any]] = {
        "ttl": lambda x: ttl.simulate(x, 10, query_time=0.5, jitter=0.1),
        "ttl, sliding": lambda x: ttl.simulate_sliding(x, 1),
        "ttl, unprotected": lambda x: ttl.simulate_unprotected(10 * x, 5, query_time=3),
        "jitter, 10,000 keys": lambda x: jitter.simulate(10_000, 3600, 300 * x),
        "jitter, 10,000 keys, 10 cycles": lambda x: jitter.simulate(
            10_000, 3600, 300 * x, cycles=10
        ),
        "stampede, queue": lambda x: stampede.simulate(query_time=0.01 * x),
        "stampede, sharing": lambda x: stampede.simulate(query_time=0.01 * x, discipline="ps"),
        "staleness": lambda x: staleness.simulate(10, 0.1 * x, 10),
        "staleness, race": lambda x: staleness.simulate(20, x, fill_time=0.01, delete_delay=0),
        "revalidate": lambda x: revalidate.simulate(1, 10, 2 * x, 0.5),
        "early refresh": lambda x: early_refresh.simulate(100, 10, 0.2 * x),
        "early refresh, lead formula": lambda x: early_refresh.mean_lead(100, 10, 0.2 * x),
        "write-back": lambda x: write_back.simulate(500, 5 * x),
        "worth": lambda x: worth.simulate(0.6 * x, 0.001, 0.02),
        "recovery, waits": lambda x: recovery.simulate_waits(10, 6 * x, 0.01),
        "recovery, outage": lambda x: recovery.simulate_outage(100 * x, 400, 0.9),
        "eviction, Che": lambda x: eviction.che_hit_ratio(shares, int(100 * x)),
    }
    for policy in eviction.POLICIES:
        moves[f"eviction, {policy}"] = evict(policy)
    return moves


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


def compare(slots: int, window: float) -> tuple[bool, float]:
    """Run both on one stampede, alternating; return (counts are equal, how many times faster)."""
    ours, theirs = [], []
    for _ in range(15):
        begin = time.process_time()
        for _again in range(REPEATS):
            run = stampede.simulate(800, window, QUERY_TIME, slots)
        ours.append((time.process_time() - begin) / REPEATS)
        arrivals = run.arrivals.tolist()
        begin = time.process_time()
        queries, last = simpy_stampede(arrivals, QUERY_TIME, slots)
        theirs.append(time.process_time() - begin)
    same = queries == run.queries and abs(last - run.last_answer) < 1e-9
    faster = statistics.median(theirs) / statistics.median(ours)
    simpy_ms, our_ms = 1e3 * statistics.median(theirs), 1e3 * statistics.median(ours)
    print(f"{window:6.1f} s {slots:5d} slots {queries:8d} {run.queries:8d}", end="")
    print(f"{simpy_ms:10.2f} {our_ms:10.3f} {faster:8.0f}x")
    return same, faster


def main() -> int:
    """Print both tables; 0 if all bounds hold."""
    failed = []
    print(f"{'model':34s}{'median ms':>10s}{'95 % ms':>10s}")
    for name, move in models().items():
        median, high = milliseconds(move)
        print(f"{name:34s}{median:10.3f}{high:10.3f}")
        if median > BUDGET_MS:
            failed.append(f"{name} takes {median:.1f} ms, the budget is {BUDGET_MS:g} ms")
    print("\n800 readers   database    SimPy's and our queries   SimPy ms     our ms   faster")
    for window in (0.0, 0.2):
        for slots in (1, 10, 50):
            same, faster = compare(slots, window)
            if not same:
                failed.append(f"counts differ at {slots} slots over {window} s")
            if faster < AT_LEAST:
                failed.append(f"only {faster:.0f} times SimPy's speed at {slots} slots, {window} s")
    print("\n".join(["", *failed]) if failed else "\nAll bounds hold.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
