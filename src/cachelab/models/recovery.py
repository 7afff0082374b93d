"""The database behind the cache: a lost cache, and retries that keep the database down.

Sources: Bronson, Aghayev, Charapko, Zhu, "Metastable
Failures in Distributed Systems", HotOS 2021, and Huang et al., "Metastable Failures in the Wild",
OSDI 2022, for the state that outlives its trigger. The retry band was derived for this course.
"""

from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import FloatArray, count, number

LOST_AT = 10.0  # s into a simulated outage


@dataclass(frozen=True)
class CacheLost:
    """Load per database slot (1 = full) with the cache and without, and the factor between."""

    before: float
    after: float
    factor: float

    @property
    def survives(self) -> bool:
        return self.after < 1


@dataclass(frozen=True, eq=False)
class Outage:
    """A simulated outage, arrays of shape (steps,).

    seconds: time; offered: query attempts/s; wait: s at the database for one that joins; answered:
    share of the queries answered in time; warm: share of the cacheable keys in the cache.
    """

    seconds: FloatArray
    offered: FloatArray
    wait: FloatArray
    answered: FloatArray
    warm: FloatArray

    @property
    def recovered(self) -> bool:
        return bool(self.answered[-1] == 1 and self.warm[-1] > 0.9)


def surge(hit_ratio: float) -> float:
    """Factor by which the database load grows when the cache is lost: 1 / (1 - h)."""
    return 1 / (1 - number("hit_ratio", hit_ratio, "hits per read", high=1 - 1e-12))


def cache_lost(read_rate: float, hit_ratio: float, query_time: float, slots: int) -> CacheLost:
    """Database load r D (1 - h) / c before and r D / c after the cache is lost; stable below 1.

    A high hit ratio is the dangerous one: the database never sees the load it must carry alone.
    """
    factor = surge(hit_ratio)
    after = number("read_rate", read_rate, "reads/s") * number("query_time", query_time, "seconds")
    after /= count("slots", slots)
    return CacheLost(after / factor, after, factor)


def retry_trap(capacity: float, hit_ratio: float, retries: int) -> tuple[float, float]:
    """Read rates (low, high) that run well with a warm cache yet never recover from an outage.

    low = C / (1 + k): cold, with every query tried 1 + k times, the load is above the capacity of
    C queries/s. high = C / (1 - h): warm, first tries only. An outage that leaves the cache cold
    and a queue longer than the readers' patience is kept alive by the retries.
    """
    capacity = number("capacity", capacity, "queries/s")
    return capacity / (1 + count("retries", retries, low=0)), capacity * surge(hit_ratio)


def simulate_outage(
    read_rate: float,
    capacity: float,
    hit_ratio: float,
    retries: int = 2,
    *,
    keys: float = 1000.0,
    patience: float = 1.0,
    outage: float = 5.0,
    shed: tuple[float, float] | None = None,
    shed_to: float = 0.0,
    seconds: float = 90.0,
) -> Outage:
    """Lose the cache at 10 s while the database stops for `outage` s; does it come back?

    A fluid of queries in steps of patience / 10. A query that would wait longer than `patience` s
    is tried again `retries` times, each after its patience; the database still does the abandoned
    work, and only an answer in time warms one of `keys` equally hot keys. shed: (from, to) s
    between which only the share `shed_to` of the reads is let in.
    """
    rate = number("read_rate", read_rate, "reads/s")
    capacity = number("capacity", capacity, "queries/s", above=0)
    hit_ratio = number("hit_ratio", hit_ratio, "hits per read", high=1)
    number("keys", keys, "keys", above=0)
    number("seconds", seconds, "seconds", above=LOST_AT)
    step = number("patience", patience, "seconds", above=0, high=seconds) / 10
    steps = int(number("seconds", seconds, "seconds", high=20_000 * step) / step)
    number("outage", outage, "seconds")
    number("shed_to", shed_to, "reads let in per read", high=1)
    tries = count("retries", retries, low=0, high=20) + 1
    due = np.zeros((steps + 11, tries + 1))  # queries by the step they come in and the try
    shown: list[tuple[float, float, float, float]] = []
    queue, warm = 0.0, 1.0
    for now in range(steps):
        at = now * step
        if now == round(LOST_AT / step):
            warm = 0.0
        stopped = max(0.0, LOST_AT + outage - at) if at >= LOST_AT else 0.0
        let_in = shed_to if shed is not None and shed[0] <= at < shed[1] else 1.0
        reads = rate * let_in * step
        due[now, 0] += reads * (1 - hit_ratio * warm)
        joining = sum(due[now, :tries].tolist())
        wait = queue / capacity + stopped
        in_time = wait <= patience
        if in_time:
            warm = min(1.0, warm + reads * hit_ratio * (1 - warm) / keys)
        else:
            due[now + 10, 1:] += due[now, :-1]
        queue = max(0.0, queue + joining - (0.0 if stopped else capacity * step))
        shown.append((joining / step, wait, float(in_time), warm))
    offered, waits, answered, warmth = np.array(shown).T
    times: FloatArray = np.arange(float(steps)) * step
    return Outage(times, offered, waits, answered, warmth)
