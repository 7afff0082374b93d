"""Is it worth caching? The hit ratio at which a cache begins to save time.

A lookup costs tc, a query tdb, storing the result ts (mean seconds each).

Source: expected cost of one read, derived for this course. "70 %" is not a law, it is a cost ratio.
"""

from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import FloatArray, count, exponentials, number, uniforms


@dataclass(frozen=True, eq=False)
class WorthRun:
    """Simulated latencies (s) of the same reads with and without the cache, shape (reads,)."""

    cached: FloatArray
    direct: FloatArray

    @property
    def saved_per_read(self) -> float:
        return float(self.direct.mean() - self.cached.mean())


def mean_latency(
    hit_ratio: float, cache_time: float, query_time: float, store_time: float = 0.0
) -> float:
    """Mean seconds per read with a cache: tc + (1 - h)(tdb + ts).

    Hits must be independent of what a query costs.
    """
    missed = 1 - number("hit_ratio", hit_ratio, "hits per read", high=1)
    on_miss = number("query_time", query_time, "seconds")
    on_miss += number("store_time", store_time, "seconds")
    return number("cache_time", cache_time, "seconds") + missed * on_miss


def break_even(cache_time: float, query_time: float, store_time: float = 0.0) -> float:
    """Hit ratio above which caching saves time: (tc + ts) / (tdb + ts).

    Above 1 no hit ratio is enough: the cache is slower than the query.
    """
    on_miss = number("query_time", query_time, "seconds")
    on_miss += number("store_time", store_time, "seconds")
    number("query_time + store_time", on_miss, "seconds", above=0)
    return (number("cache_time", cache_time, "seconds") + store_time) / on_miss


def saved_per_second(
    read_rate: float,
    hit_ratio: float,
    cache_time: float,
    query_time: float,
    store_time: float = 0.0,
) -> float:
    """Seconds of latency saved per second, r (tdb - mean latency): negative if the cache loses.

    Its bound at h = 1 and a free lookup is r tdb, which is also the connections set free.
    """
    with_cache = mean_latency(hit_ratio, cache_time, query_time, store_time)
    return number("read_rate", read_rate, "reads/s") * (query_time - with_cache)


def simulate(
    hit_ratio: float,
    cache_time: float,
    query_time: float,
    store_time: float = 0.0,
    *,
    slow_ones_miss: bool = False,
    reads: int = 20_000,
    seed: int = 0,
) -> WorthRun:
    """Draw exponential query times and hits for `reads` reads; lookups and stores are constant.

    slow_ones_miss: the reads that miss are those with the slowest queries, as when the popular
    keys are cheap, instead of a random choice.
    """
    mean_latency(hit_ratio, cache_time, query_time, store_time)  # refuses what cannot be
    direct = query_time * exponentials(seed, "worth.query", count("reads", reads))
    if slow_ones_miss:
        missed = direct > np.quantile(direct, hit_ratio)
    else:
        missed = uniforms(seed, "worth.hit", reads) >= hit_ratio
    cached = np.where(missed, cache_time + direct + store_time, cache_time)
    return WorthRun(cached, direct)
