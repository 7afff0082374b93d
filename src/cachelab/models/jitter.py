"""What jitter does for many keys that were filled together, and so expire together.

N keys with TTL T and a uniform jitter of width J seconds. Jitter spreads *different* keys; for one
hot key it changes nothing: 1 + rD readers still find no copy.

Source: the balls-in-bins form was derived for this course and checked against the simulator.
"""

import math
from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import FloatArray, IntArray, count, number, one_of, uniforms

FORMS = ("additive", "mean-preserving", "subtractive")
_SHIFT = {"additive": 0.0, "mean-preserving": 0.5, "subtractive": 1.0}
MOST_BINS = 5_000_000


@dataclass(frozen=True)
class TtlRange:
    """Shortest, mean and longest TTL (s) that a form of jitter hands out."""

    shortest: float
    mean: float
    longest: float


@dataclass(frozen=True, eq=False)
class Expiries:
    """A simulated timeline of expiries.

    starts: s, shape (bins,); per_bin: expiries in each bin, shape (bins,); peak: the largest of
    them; spread: standard deviation (s) of the expiry times in each cycle, shape (cycles,);
    longest_ttl: the longest TTL drawn (s), which bounds the age of what is served.
    """

    starts: FloatArray
    per_bin: IntArray
    peak: int
    spread: FloatArray
    longest_ttl: float


def ttl_range(ttl: float, width: float, form: str = "additive") -> TtlRange:
    """TTLs that jitter of `width` s makes of `ttl` s.

    additive [T, T + J] breaks the staleness bound T and lifts the mean; mean-preserving
    [T - J/2, T + J/2] breaks the bound; subtractive [T - J, T] keeps it.
    """
    ttl = number("ttl", ttl, "seconds")
    width = number("width", width, "seconds", high=ttl if form != "additive" else math.inf)
    shift = _SHIFT[one_of("form", form, FORMS)] * width
    return TtlRange(ttl - shift, ttl + width / 2 - shift, ttl + width - shift)


def expected_peak(keys: int, width: float, bin_width: float = 1.0) -> float:
    """Expected largest number of expiries in one bin: about m + sqrt(2 m ln b), at most N.

    b = J / bin bins with m = N / b keys each. N when there is a single bin. Good to some 5 %
    while m is 10 or more; the square root is the growth of the maximum of b normal draws.
    """
    keys = count("keys", keys)
    bin_width = number("bin_width", bin_width, "seconds", above=0)
    bins = number("width", width, "seconds") / bin_width
    if bins <= 1:
        return float(keys)
    mean = keys / bins
    return min(float(keys), mean + math.sqrt(2 * mean * math.log(bins)))


def simulate(
    keys: int,
    ttl: float,
    width: float,
    *,
    form: str = "additive",
    cycles: int = 1,
    bin_width: float = 1.0,
    step: float = 0.0,
    seed: int = 0,
) -> Expiries:
    """Expire and refill `keys` keys `cycles` times, all filled at 0 and refilled at once.

    step (s): above 0, jitter is rounded down to whole steps, as by a whole number of minutes.
    """
    ttl_range(ttl, width, form)  # refuses what cannot be
    keys, cycles = count("keys", keys), count("cycles", cycles)
    number("keys * cycles", keys * cycles, "expiries", high=2e7)
    bin_width = number("bin_width", bin_width, "seconds", above=0)
    lives = width * uniforms(seed, "jitter", keys * cycles).reshape(cycles, keys)
    if number("step", step, "seconds"):
        lives = np.floor(lives / step) * step
    lives += ttl - _SHIFT[form] * width
    times = np.cumsum(lives, axis=0)
    first = math.floor(times[0].min() / bin_width)
    number("bins", times.max() / bin_width - first, "bins on the timeline", high=MOST_BINS)
    per_bin = np.bincount((times.ravel() / bin_width).astype(np.int64) - first)
    starts = (first + np.arange(len(per_bin))) * bin_width
    return Expiries(starts, per_bin, int(per_bin.max()), times.std(axis=1), float(lives.max()))
