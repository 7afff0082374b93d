"""How often a key with a TTL is found in the cache, and how often its readers reach the origin.

Poisson reads at rate r of one key, time to live T, query time D. A cycle is one miss and the reads
until the copy expires, so the hit ratio is a ratio of two means per cycle.

Sources: Jung, Berger, Balakrishnan, "Modeling TTL-based Internet caches", INFOCOM 2003; Choungmo
Fofack and Alouf on DNS caches, 2013 (random TTLs); Atre, Sherry, Wang, Berger, "Caching with
Delayed Hits", SIGCOMM 2020 (query time above zero). The forms with D were derived for this course
and checked against the simulators below.
"""

from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import (
    FloatArray,
    count,
    event_times,
    first_at_or_after,
    number,
    ratio,
    uniforms,
    walk,
)


@dataclass(frozen=True)
class TtlRun:
    """What a simulated run of reads met; the ratios are over whole cycles.

    reads, queries, delayed: counts; hit_ratio, origin_ratio, delayed_ratio: shares of the reads.
    """

    reads: int
    queries: int
    delayed: int

    @property
    def origin_ratio(self) -> float:
        return ratio(self.queries, self.reads)

    @property
    def delayed_ratio(self) -> float:
        return ratio(self.delayed, self.reads)

    @property
    def hit_ratio(self) -> float:
        return ratio(self.reads - self.queries - self.delayed, self.reads)


def hit_ratio(read_rate: float, mean_ttl: float) -> float:
    """Share of reads that hit: rT / (1 + rT).

    Poisson reads, TTL not renewed by reads, instant query. With a random TTL only its mean
    counts. read_rate in reads/s, mean_ttl in s.
    """
    reads = number("read_rate", read_rate, "reads/s") * number("mean_ttl", mean_ttl, "seconds")
    return 1 - 1 / (1 + reads)


def reads_per_ttl(hit_ratio: float) -> float:
    """Reads per TTL (rT) at which `hit_ratio` is reached: h / (1 - h); 70 % needs 7/3."""
    hit_ratio = number("hit_ratio", hit_ratio, "hits per read", high=1 - 1e-12)
    return hit_ratio / (1 - hit_ratio)


def origin_ratio_single_flight(read_rate: float, ttl: float, query_time: float) -> float:
    """Share of reads that query when one query serves all who wait: 1 / (1 + r (T + D))."""
    rate = number("read_rate", read_rate, "reads/s")
    cycle = number("ttl", ttl, "seconds") + number("query_time", query_time, "seconds")
    return 1 / (1 + rate * cycle)


def delayed_ratio_single_flight(read_rate: float, ttl: float, query_time: float) -> float:
    """Share of reads that wait for someone else's query: rD / (1 + r (T + D))."""
    origin = origin_ratio_single_flight(read_rate, ttl, query_time)
    return min(1.0, read_rate * query_time * origin)


def simulate(
    read_rate: float,
    ttl: float,
    *,
    query_time: float = 0.0,
    jitter: float = 0.0,
    arrivals: str = "poisson",
    reads: int = 20_000,
    seed: int = 0,
) -> TtlRun:
    """Follow `reads` reads of one key with single-flight, TTL ttl * (1 + jitter * U), U uniform.

    arrivals: "poisson", "periodic" or "bursts".
    """
    number("ttl", ttl, "seconds")
    number("query_time", query_time, "seconds")
    times = _read_times(read_rate, arrivals, reads, seed)
    lives = ttl * (1 + number("jitter", jitter, "TTLs") * uniforms(seed, "ttl.jitter", len(times)))
    filled = times + query_time
    misses = walk(first_at_or_after(times, filled + lives))
    waiting = np.searchsorted(times, filled) - np.arange(len(times)) - 1
    waiting = np.maximum(waiting, 0)
    if len(misses) == 1:  # no whole cycle: count the unfinished one
        return TtlRun(len(times), 1, int(waiting[0]))
    return TtlRun(int(misses[-1]), len(misses) - 1, int(waiting[misses[:-1]].sum()))


def _read_times(read_rate: float, arrivals: str, reads: int, seed: int) -> FloatArray:
    rate = number("read_rate", read_rate, "reads/s")
    return event_times(seed, "ttl.reads", rate, count("reads", reads), arrivals)
