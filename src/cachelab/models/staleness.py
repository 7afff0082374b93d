"""How often a hit is out of date, by how much, and what each way of invalidating changes.

Reads Poisson at rate r, writes Poisson at rate m (`write_rate`), time to live T.

Sources: Cho and Garcia-Molina, SIGMOD 2000 and TODS 2003 (freshness and age of copies that are
refreshed periodically; the formulas were derived again for this course); delayed invalidation and
the fill race were derived for this course and checked against the simulator.
"""

import math
from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import count, event_times, first_at_or_after, number, ratio, walk


@dataclass(frozen=True)
class Staleness:
    """How stale the hits are.

    stale_share: hits that return an old value / hits; mean_staleness: s since the value stopped
    being true, mean over all hits (0 for a fresh one); versions_behind: mean writes missed per
    hit; worst: longest possible staleness (s).
    """

    stale_share: float
    mean_staleness: float
    versions_behind: float
    worst: float


@dataclass(frozen=True)
class FillRace:
    """Cache-aside fills that store a value deleted while they ran.

    probability: that a fill stores an old version; per_second: such fills/s; seconds_between:
    their mean distance (s), infinite if there are none.
    """

    probability: float
    per_second: float
    seconds_between: float


@dataclass(frozen=True)
class StalenessRun:
    """A simulated run: counts over `reads`, and means over the hits.

    stale_share, mean_staleness (s), versions_behind, worst (s) as in `Staleness`; seconds: length
    of the run; poisoned: fills that stored an old version.
    """

    reads: int
    hits: int
    fills: int
    poisoned: int
    stale_share: float
    mean_staleness: float
    versions_behind: float
    worst: float
    seconds: float

    @property
    def hit_ratio(self) -> float:
        return ratio(self.hits, self.reads)

    @property
    def poisoned_share(self) -> float:
        return ratio(self.poisoned, self.fills)


def ttl_only(write_rate: float, ttl: float, jitter: float = 0.0, window: float = 0.0) -> Staleness:
    """No invalidation: a hit sees a copy of uniform age in [0, T].

    With x = mT: stale share 1 - (1 - exp(-x))/x; mean staleness T/2 - 1/m + (1 - exp(-x))/(m x);
    versions behind x/2; worst case T. The worst case grows to T (1 + jitter) with additive jitter
    (a share of T) and by the stale-while-revalidate window (s); the means are those of a fixed T.
    """
    ttl = number("ttl", ttl, "seconds")
    writes = number("write_rate", write_rate, "writes/s") * ttl
    worst = ttl * (1 + number("jitter", jitter, "TTLs")) + number("window", window, "seconds")
    if writes < 1e-3:  # the formulas cancel here: their series
        stale = writes / 2 - writes**2 / 6
        return Staleness(stale, ttl * (writes / 6 - writes**2 / 24), writes / 2, worst)
    unchanged = -math.expm1(-writes) / writes
    mean = ttl * (1 / 2 - 1 / writes + unchanged / writes)
    return Staleness(1 - unchanged, mean, writes / 2, worst)


def hit_ratio_delete_on_write(
    read_rate: float, write_rate: float, ttl: float | None = None
) -> float:
    """Hit ratio when a write deletes the copy at once: r E / (1 + r E), E = (1 - exp(-mT)) / m.

    ttl None: no TTL, then r / (r + m), and 70 % needs 7/3 reads per write. Instant fill.
    """
    reads = number("read_rate", read_rate, "reads/s")
    writes = number("write_rate", write_rate, "writes/s")
    if ttl is None:
        return reads / (reads + writes) if reads else 0.0
    ttl = number("ttl", ttl, "seconds")
    life = -math.expm1(-writes * ttl) / writes if writes else ttl
    return 1 - 1 / (1 + reads * life)


def stale_share_delayed(write_rate: float, delay: float) -> float:
    """Stale share of the hits when the delete arrives `delay` s after the write, without a TTL.

    (1 - exp(-2 m d)) / 2: close to 1 - exp(-m d) while m d is small, but never above 1/2, as a late
    delete also removes copies that were already new. Right after a write reads are stale for d s.
    """
    writes = number("write_rate", write_rate, "writes/s")
    return -math.expm1(-2 * writes * number("delay", delay, "seconds")) / 2


def fill_race(
    read_rate: float,
    write_rate: float,
    fill_time: float,
    *,
    ttl: float | None = None,
    single_flight: bool = True,
) -> FillRace:
    """Deletes are instant, a fill takes d s: a miss stores an old version with 1 - exp(-m d).

    It stays until the next write or the TTL. Per cycle of 1/r idle, d fill and E cached seconds
    (E as in `hit_ratio_delete_on_write`) there is one fill, or 1 + r d if every miss fills for
    itself (then the cycle lasts until the last of them, and the form is good to 5 % while m d is
    below 1/2).
    """
    reads = number("read_rate", read_rate, "reads/s")
    writes = number("write_rate", write_rate, "writes/s")
    fill = number("fill_time", fill_time, "seconds")
    life = math.inf if ttl is None else number("ttl", ttl, "seconds")
    if writes:
        life = -math.expm1(-writes * life) / writes
    probability = -math.expm1(-writes * fill)
    cycle, fills = fill + life, 1.0
    if reads:
        cycle += 1 / reads
        if not single_flight:
            fills += reads * fill
            cycle += fill + math.expm1(-reads * fill) / reads
    per_second = probability * fills / cycle if reads and cycle else 0.0
    return FillRace(probability, per_second, 1 / per_second if per_second else math.inf)


def simulate(
    read_rate: float,
    write_rate: float,
    ttl: float | None = None,
    *,
    delete_delay: float | None = None,
    fill_time: float = 0.0,
    writes: str = "poisson",
    reads: int = 20_000,
    seed: int = 0,
) -> StalenessRun:
    """Follow Poisson reads of one key and the writes that make its copies old.

    ttl: s, None for none. delete_delay: s from a write to its delete, None if writes delete
    nothing. fill_time: s between reading the origin and storing the value (readers meanwhile
    share that fill). writes: "poisson", "periodic" or "bursts".
    """
    read_rate = number("read_rate", read_rate, "reads/s")
    write_rate = number("write_rate", write_rate, "writes/s")
    life = math.inf if ttl is None else number("ttl", ttl, "seconds")
    fill_time = number("fill_time", fill_time, "seconds")
    at = event_times(seed, "staleness.reads", read_rate, count("reads", reads))
    expected = write_rate * at[-1]
    number("writes", expected, "writes during the reads (write_rate / read_rate * reads)", high=2e7)
    size = int(expected + 6 * math.sqrt(expected)) + 20
    written = event_times(seed, "staleness.writes", write_rate, size, writes)

    stored = at + fill_time
    gone = stored + life
    if delete_delay is not None:
        deletes = np.append(written + number("delete_delay", delete_delay, "seconds"), np.inf)
        gone = np.minimum(gone, deletes[np.searchsorted(deletes, stored, side="right")])
    misses = walk(first_at_or_after(at, gone))

    source = misses[np.searchsorted(misses, np.arange(len(at)), side="right") - 1]  # whose copy
    hit = at > stored[source]
    hit[misses] = False
    known = np.searchsorted(written, at, side="right")  # writes that the origin shows at each read
    behind = (known - known[source])[hit]
    next_write = np.append(written, np.inf)[known[source[hit]]]
    stale_for = np.where(behind > 0, at[hit] - next_write, 0.0)
    poisoned = np.searchsorted(written, stored[misses], side="right") > known[misses]
    hits = int(np.count_nonzero(hit))
    return StalenessRun(
        reads=len(at),
        hits=hits,
        fills=len(misses),
        poisoned=int(np.count_nonzero(poisoned)),
        stale_share=ratio(int(np.count_nonzero(behind)), hits),
        mean_staleness=ratio(stale_for.sum(), hits),
        versions_behind=ratio(behind.sum(), hits),
        worst=float(stale_for.max(initial=0.0)),
        seconds=float(at[-1]),
    )
