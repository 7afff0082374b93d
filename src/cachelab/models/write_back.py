"""What a crash loses when writes are acknowledged first and flushed to the database later.

w acknowledged writes/s, a flush every F seconds, K keys written equally often.

Sources: the means are those of a uniform crash time in a flush interval, rows and dirty keys those
of Poisson occupancy; derived for this course and checked against the simulator.
"""

import math
from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import FloatArray, count, event_times, number, ratio, uniforms


@dataclass(frozen=True)
class Loss:
    """Acknowledged writes lost in a crash: mean and (expected) worst."""

    mean: float
    worst: float


@dataclass(frozen=True)
class Coalescing:
    """Flushing only the last value of each key: rows written per flush, writes saved per row
    (factor, 1 = nothing saved), and keys whose newest value a crash loses (mean)."""

    rows_per_flush: float
    saving: float
    dirty_keys_lost: float


@dataclass(frozen=True, eq=False)
class CrashRun:
    """Simulated flush intervals with one crash each, arrays of shape (intervals,).

    lost: acknowledged writes since the last flush; dirty: distinct keys among them; rows: distinct
    keys in the whole interval; writes: total over all intervals.
    """

    lost: FloatArray
    dirty: FloatArray
    rows: FloatArray
    writes: int

    @property
    def saving(self) -> float:
        return ratio(self.writes, self.rows.sum())


def loss(write_rate: float, flush_every: float, flush_time: float = 0.0) -> Loss:
    """A crash at a random time loses w F / 2 on average and w (F + flush time) at worst."""
    rate = number("write_rate", write_rate, "writes/s")
    every = number("flush_every", flush_every, "seconds")
    longest = every + number("flush_time", flush_time, "seconds")
    return Loss(rate * every / 2, rate * longest)


def loss_by_batch(batch: int) -> Loss:
    """Flushing every B writes: a crash loses (B - 1) / 2 on average and B - 1 at worst."""
    batch = count("batch", batch)
    return Loss((batch - 1) / 2, batch - 1)


def coalescing(write_rate: float, flush_every: float, keys: int) -> Coalescing:
    """With x = w F / K writes per key and interval: rows K (1 - exp(-x)), saving x / (1 - exp(-x)),
    dirty keys lost K (1 - (1 - exp(-x)) / x). Poisson writes, equally likely keys.

    A replay after a crash needs idempotent upserts: a counter would count twice.
    """
    keys = count("keys", keys)
    writes = number("write_rate", write_rate, "writes/s")
    per_key = writes * number("flush_every", flush_every, "seconds") / keys
    touched = -math.expm1(-per_key)
    if per_key < 1e-6:  # the last formula cancels here: its series
        return Coalescing(keys * touched, 1 + per_key / 2, keys * per_key / 2)
    clean = touched / per_key
    return Coalescing(keys * touched, 1 / clean, keys * (1 - clean))


def simulate(
    write_rate: float,
    flush_every: float,
    keys: int = 1000,
    *,
    skew: float = 0.0,
    intervals: int = 20,
    seed: int = 0,
) -> CrashRun:
    """Poisson writes to `keys` keys; in each of `intervals` flush intervals a crash at random.

    skew: exponent of Zipf popularity, 0 for equally likely keys.
    """
    rate = number("write_rate", write_rate, "writes/s")
    every = number("flush_every", flush_every, "seconds", above=0)
    keys, intervals = count("keys", keys), count("intervals", intervals)
    expected = number("writes", rate * every * intervals, "writes in the run", high=1e7)
    number("keys * intervals", keys * intervals, "cells", high=2e7)
    size = int(expected + 6 * math.sqrt(expected)) + 20
    at = event_times(seed, "write_back.writes", rate, size)
    at = at[: np.searchsorted(at, every * intervals)]
    popularity = np.arange(1.0, keys + 1) ** -number("skew", skew, "powers", high=10)
    places = uniforms(seed, "write_back.keys", size)[: len(at)]
    if skew:
        shares = np.cumsum(popularity)
        key = np.searchsorted(shares, places * shares[-1], side="right")
    else:
        key = (places * keys).astype(np.int64)
    interval = np.minimum((at / every).astype(np.int64), intervals - 1)
    into = at - interval * every
    crash = uniforms(seed, "write_back.crash", intervals) * every

    first_write: FloatArray = np.full(intervals * keys, np.inf)
    first_write[(interval * keys + key)[::-1]] = into[::-1]  # of repeated keys the earliest stays
    first_write = first_write.reshape(intervals, keys)
    lost = np.bincount(interval[into < crash[interval]], minlength=intervals).astype(float)
    dirty = np.count_nonzero(first_write < crash[:, None], axis=1).astype(float)
    rows = np.count_nonzero(first_write < np.inf, axis=1).astype(float)
    return CrashRun(lost, dirty, rows, len(at))


def simulate_batch(batch: int, *, crashes: int = 1000, seed: int = 0) -> FloatArray:
    """Writes lost in each of `crashes` crashes, shape (crashes,), when every `batch` writes flush.

    Each crash comes after a number of writes that is uniform over a hundred batches.
    """
    writes = uniforms(seed, "write_back.batch", count("crashes", crashes)) * count("batch", batch)
    lost: FloatArray = np.floor(writes * 100) % batch
    return lost
