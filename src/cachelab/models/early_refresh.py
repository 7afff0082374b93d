"""Probabilistic early refresh (XFetch): one reader in many refreshes a hot key before it expires.

Rule: a read at time t refreshes when t - D b ln(U) >= expiry, with D the query time, b = `beta` and
U uniform. Poisson reads at rate r, TTL T; x = r b D is the number that decides.

Source: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention",
PVLDB 8(8), 2015, doi 10.14778/2757807.2757813 (the rule). The forms in x were derived for this
course and checked against the simulator.
"""

import math
from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import count, event_times, exponentials, number, ratio

LARGEST = 700.0  # exp() of more overflows a float


@dataclass(frozen=True)
class EarlyRefreshRun:
    """A simulated run, over its whole cycles.

    cycles: count; none_early: cycles whose copy expired first; mean_lead: s between the first
    refresh and the expiry, 0 where none was early; mean_started: refreshes started until the
    first was done, itself included.
    """

    cycles: int
    none_early: int
    mean_lead: float
    mean_started: float


def _scale(query_time: float, beta: float) -> float:
    number("query_time", query_time, "seconds", above=0)
    return query_time * number("beta", beta, "refresh scales", above=0)


def none_early(read_rate: float, ttl: float, query_time: float, beta: float = 1.0) -> float:
    """Chance that a copy expires unrefreshed: exp(-x (1 - exp(-T / (b D)))), about exp(-x)."""
    scale = _scale(query_time, beta)
    per_cycle = -math.expm1(-number("ttl", ttl, "seconds") / scale)
    return math.exp(-number("read_rate", read_rate, "reads/s") * scale * per_cycle)


def mean_lead(read_rate: float, ttl: float, query_time: float, beta: float = 1.0) -> float:
    """Mean time (s) between the first refresh and the expiry; 0 counts where none is early.

    The lead is a truncated Gumbel variable: P(lead <= t) = exp(-x (exp(-t/bD) - exp(-T/bD))). Its
    mean is integrated with Simpson's rule. For x >> 1 and T far away it is b D (ln x + 0.5772).
    """
    scale = _scale(query_time, beta)
    decided = number("read_rate", read_rate, "reads/s") * scale
    whole = min(number("ttl", ttl, "seconds") / scale, math.log(decided + 1) + 40)
    left, width = np.linspace(0.0, whole, 2001, retstep=True)  # in units of b D
    at_most = np.exp(-decided * math.exp(-whole) * np.expm1(whole - left))
    tail = 1 - at_most  # ends at 0
    simpson = tail[0] + 4 * tail[1::2].sum() + 2 * tail[2:-1:2].sum()
    return float(scale * width / 3 * simpson)


def mean_started(beta: float = 1.0) -> float:
    """Mean refreshes started while the first one runs, itself included: e^(1/b), so e at b = 1.

    For x >> 1 and a lead longer than D. A short lock around the refresh makes it exactly 1.
    """
    inverse = 1 / number("beta", beta, "refresh scales", above=0)
    number("1 / beta", inverse, "refresh scales", high=LARGEST)
    return math.exp(inverse)


def origin_load_factor(read_rate: float, ttl: float, query_time: float, beta: float = 1.0) -> float:
    """Price of refreshing early: the TTL works for T - lead only, so the load is T / (T - lead)."""
    ttl = number("ttl", ttl, "seconds", above=0)
    left = ttl - mean_lead(read_rate, ttl, query_time, beta)
    return ttl / max(left, 1e-12 * ttl)


def simulate(
    read_rate: float,
    ttl: float,
    query_time: float,
    beta: float = 1.0,
    *,
    locked: bool = False,
    arrivals: str = "poisson",
    reads: int = 50_000,
    seed: int = 0,
) -> EarlyRefreshRun:
    """Follow reads of one key; the copy is replaced when the first refresh is done.

    locked: only one refresh at a time. arrivals: as in `ttl.simulate`.
    """
    ttl = number("ttl", ttl, "seconds")
    scale = _scale(query_time, beta)
    rate = number("read_rate", read_rate, "reads/s")
    at = event_times(seed, "early.reads", rate, count("reads", reads), arrivals)
    ahead = at + scale * exponentials(seed, "early.rule", reads)  # t - b D ln(U)
    filled, leads, started, none = float(at[0]), [], [], 0
    while True:
        expiry = filled + ttl
        low, high = np.searchsorted(at, (filled, expiry), side="right").tolist()
        if high >= reads:
            break
        early = ahead[low:high] >= expiry
        first = low + int(early.argmax()) if early.any() else high  # high: first read after it
        done = at[first] + query_time
        if done > at[-1]:
            break
        last = max(first + 1, int(np.searchsorted(at, done)))
        started.append(1 if locked else int(np.count_nonzero(ahead[first:last] >= expiry)))
        leads.append(max(0.0, expiry - at[first]))
        none += first == high
        filled = float(done)
    cycles = len(leads)
    return EarlyRefreshRun(cycles, none, ratio(sum(leads), cycles), ratio(sum(started), cycles))
