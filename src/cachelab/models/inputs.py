"""What all models share: checked numbers, seeded draws, and a walk from miss to miss."""

import math
from collections.abc import Callable
from functools import lru_cache, wraps
from zlib import crc32

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ARRIVALS = ("poisson", "periodic", "bursts")
BURST = 10  # events that share one instant in the pattern "bursts"
MOST_KEPT = 100_000  # draws; what a slider moves has fewer
NEVER = 1e-12  # events/s that stand for a rate of 0: one in thirty thousand years


def number(
    name: str, value: float, unit: str, *, above: float | None = None, high: float = math.inf
) -> float:
    """Return `value` as a float, or raise a ValueError that names what was expected.

    It must be finite, at least 0 (or more than `above`) and at most `high`.
    """
    low_enough = value >= 0 if above is None else value > above
    if not (math.isfinite(value) and low_enough and value <= high):
        bound = "of at least 0" if above is None else f"above {above:g}"
        limit = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} must be a finite number of {unit} {bound}{limit}, got {value!r}.")
    return float(value)


def count(name: str, value: int, *, low: int = 1, high: int = 10_000_000) -> int:
    """Return `value` as an int between `low` and `high`, or raise a one-sentence ValueError."""
    if value != value or not low <= value <= high or int(value) != value:
        raise ValueError(f"{name} must be a whole number from {low:,} to {high:,}, got {value!r}.")
    return int(value)


def one_of(name: str, value: str, options: tuple[str, ...]) -> str:
    """Return `value` if it is one of `options`, or raise a one-sentence ValueError."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}.")
    return value


def _kept(draw: Callable[..., FloatArray]) -> Callable[..., FloatArray]:
    """`draw` with its last results remembered, unless they are large."""
    remembered = lru_cache(maxsize=24)(draw)

    @wraps(draw)
    def drawn(seed: int, stream: str, size: int, *more: str) -> FloatArray:
        return (remembered if size <= MOST_KEPT else draw)(seed, stream, size, *more)

    return drawn


@_kept
def uniforms(seed: int, stream: str, size: int) -> FloatArray:
    """Draws in [0, 1), shape (size,), read-only, the same for the same seed and stream.

    They are kept, and a longer call begins with the draws of a shorter one: a slider that moves
    a rate or a count scales the same draws (common random numbers) and its curve moves smoothly.
    """
    draws = np.random.default_rng([seed, crc32(stream.encode())]).random(size)
    draws.flags.writeable = False
    return draws


@_kept
def exponentials(seed: int, stream: str, size: int) -> FloatArray:
    """Exponential draws of mean 1, shape (size,), read-only, kept like `uniforms`."""
    draws = -np.log1p(-uniforms(seed, stream, size))
    draws.flags.writeable = False
    return draws


@_kept
def _unit_times(seed: int, stream: str, size: int, pattern: str) -> FloatArray:
    if pattern == "periodic":
        times = np.arange(1.0, size + 1.0)
    elif pattern == "bursts":
        instants = np.cumsum(exponentials(seed, stream, -(-size // BURST)))
        times = np.repeat(instants * BURST, BURST)[:size]
    else:
        times = np.cumsum(exponentials(seed, stream, size))
    times.flags.writeable = False
    return times


def event_times(
    seed: int, stream: str, rate: float, size: int, pattern: str = "poisson"
) -> FloatArray:
    """Times (s) of `size` events at `rate` per second, ascending.

    `pattern` is "poisson", "periodic" (equal gaps) or "bursts" (ten at one instant, the instants
    Poisson): the mean rate is the same in all three.
    """
    unit_times = _unit_times(seed, stream, size, one_of("arrivals", pattern, ARRIVALS))
    return unit_times / max(rate, NEVER)


def first_at_or_after(times: FloatArray, moments: FloatArray) -> IntArray:
    """For each read, the index of the first read at or after its `moments`, never itself."""
    found = np.searchsorted(times, moments)
    return np.maximum(found, np.arange(1, len(times) + 1))


def walk(following: IntArray) -> IntArray:
    """Indices visited from read 0 when read i is followed by read following[i]: the misses."""
    hops = following.tolist()
    visited, at = [], 0
    while at < len(hops):
        visited.append(at)
        at = hops[at]
    return np.array(visited, dtype=np.int64)


def ratio(part: float, whole: float) -> float:
    """part / whole, and 0 where there is no whole."""
    return float(part) / float(whole) if whole else 0.0
