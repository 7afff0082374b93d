"""Stale-while-revalidate: who still waits, and how old an answer may be.

After the TTL T a copy may be served for a further window W while one background fetch of D seconds
replaces it. Poisson reads at rate r.

Sources: RFC 5861 section 3 (may serve stale inside the window, should not block); RFC 9111 section
4.2.4 (when it must not). The fractions were derived for this course.
"""

import math
from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import count, event_times, number, ratio, walk


@dataclass(frozen=True)
class Revalidation:
    """Shares of the reads that block on the origin, cause an origin fetch, or are served stale;
    worst_age: s, the oldest answer allowed."""

    blocking: float
    origin: float
    stale: float
    worst_age: float


@dataclass(frozen=True)
class RevalidationRun:
    """A simulated run over whole cycles: counts of reads, of blocking and stale ones, of fetches;
    oldest: age (s) of the oldest stale answer, 0 if there was none."""

    reads: int
    blocked: int
    fetches: int
    served_stale: int
    oldest: float

    @property
    def blocking(self) -> float:
        return ratio(self.blocked, self.reads)

    @property
    def origin(self) -> float:
        return ratio(self.fetches, self.reads)

    @property
    def stale(self) -> float:
        return ratio(self.served_stale, self.reads)


def fractions(read_rate: float, ttl: float, window: float, query_time: float = 0.0) -> Revalidation:
    """With p = exp(-r W) and n = 1 + r T + (1 - p) r D reads per cycle: blocking p / n, origin
    1 / n, stale (1 - p)(1 + r D) / n; worst age T + W + D.

    Poisson reads. A copy is still served while its refresh runs, even past the window; a blocking
    fetch counts as instant. read_rate in reads/s, the rest in s.
    """
    reads = number("read_rate", read_rate, "reads/s")
    ttl = number("ttl", ttl, "seconds")
    window = number("window", window, "seconds")
    query_time = number("query_time", query_time, "seconds")
    nobody = math.exp(-reads * window)
    in_time = -math.expm1(-reads * window)
    cycle = 1 + reads * ttl + in_time * reads * query_time
    stale = in_time * min(1.0, (1 + reads * query_time) / cycle)
    worst = ttl + window + (query_time if window else 0.0)
    return Revalidation(nobody / cycle, 1 / cycle, stale, worst)


def simulate(
    read_rate: float,
    ttl: float,
    window: float,
    query_time: float = 0.0,
    *,
    arrivals: str = "poisson",
    reads: int = 10_000,
    seed: int = 0,
) -> RevalidationRun:
    """Follow reads of one key from refresh to refresh. arrivals: as in `ttl.simulate`."""
    read_rate = number("read_rate", read_rate, "reads/s")
    ttl = number("ttl", ttl, "seconds")
    window = number("window", window, "seconds")
    query_time = number("query_time", query_time, "seconds")
    at = event_times(seed, "revalidate", read_rate, count("reads", reads), arrivals)

    # Walk over the reads that start a fetch. Each read is looked at twice, as one that would
    # block (even nodes: new copy at once) and one that would refresh (odd: new copy D later).
    fresh_from = np.column_stack((at, at + query_time))
    expiry = fresh_from + ttl
    after = np.searchsorted(at, expiry.ravel()).reshape(-1, 2)
    after = np.maximum(after, np.arange(1, len(at) + 1)[:, None])
    arrival = np.append(at, np.inf)[after]
    refreshes = arrival < expiry + window
    nodes = walk(np.where(after < len(at), 2 * after + refreshes, 2 * len(at)).ravel())
    starts, refreshing = nodes // 2, nodes % 2
    if len(nodes) == 1:
        return RevalidationRun(len(at), 1, 1, 0, 0.0)
    begun, refreshing = starts[:-1], refreshing[:-1]
    meanwhile = np.searchsorted(at, at[begun] + query_time) - begun  # itself and those during D
    stale = np.where(refreshing == 1, np.maximum(meanwhile, 1), 0)
    last_served = np.where(refreshing == 1, at[begun + stale - 1], 0.0)
    stored = fresh_from[starts[:-1], refreshing]
    ages = last_served[1:] - stored[:-1]  # below 0 where the fetch blocked
    return RevalidationRun(
        reads=int(starts[-1]),
        blocked=int(np.count_nonzero(refreshing == 0)),
        fetches=len(begun),
        served_stale=int(stale.sum()),
        oldest=float(ages.max(initial=0.0)),
    )
