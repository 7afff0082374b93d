"""Which keys a cache that is too small keeps: LRU, FIFO, LFU, random, and LRU by sampling.

Requests are independent draws from fixed popularities p_i (the independent reference model); the
cache holds C objects of equal size.

Sources: Che, Tung, Wang, "Hierarchical Web Caching Systems", 2002 (the approximation); Fricker,
Robert, Roberts, "A versatile and accurate approximation for LRU cache performance", ITC 24, arXiv
1202.3974 (why it works); Fagin 1977; Jiang, Nain, Towsley 2017.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import FloatArray, IntArray, count, number, one_of, ratio, uniforms

POLICIES = ("lru", "fifo", "lfu", "random", "sampled")
POOL = 16  # eviction candidates that the server remembers between samplings
BLOCK = 1024  # requests whose samples are drawn at once


@dataclass(frozen=True)
class EvictionRun:
    """A simulated run: requests counted after the warm-up, and how many of them hit."""

    requests: int
    hits: int

    @property
    def hit_ratio(self) -> float:
        return ratio(self.hits, self.requests)


def popularity(objects: int, exponent: float = 0.8) -> FloatArray:
    """Zipf shares, shape (objects,), falling, sum 1: p_i proportional to i ** -exponent."""
    weights = np.arange(1.0, count("objects", objects) + 1) ** -number(
        "exponent", exponent, "powers", high=10
    )
    shares: FloatArray = weights / weights.sum()
    return shares


def zipf_requests(
    objects: int, exponent: float = 0.8, requests: int = 2_000, seed: int = 0
) -> IntArray:
    """Object numbers from 0 (most popular), shape (requests,), drawn by `popularity`."""
    shares = np.cumsum(popularity(objects, exponent))
    places = uniforms(seed, "eviction.requests", count("requests", requests)) * shares[-1]
    drawn: IntArray = np.searchsorted(shares, places, side="right")
    return drawn


def characteristic_time(shares: FloatArray, capacity: int, policy: str = "lru") -> float:
    """Che's tC, in requests: how long an object stays that is not asked for again.

    lru: sum(1 - exp(-p tC)) = C; fifo and random: sum(p tC / (1 + p tC)) = C. Infinite if all fits.
    Newton's method from 0 climbs to it, as the sum is concave.
    """
    capacity = count("capacity", capacity, low=0)
    if capacity >= np.count_nonzero(shares):
        return np.inf
    time = 0.0
    for _ in range(200):
        held = _held(shares * time, policy)
        slope = shares * (1 - held) if policy == "lru" else shares * (1 - held) ** 2
        gain = float((capacity - held.sum()) / slope.sum())
        time += gain
        if abs(gain) <= 1e-12 * time:
            break
    return time


def che_hit_ratio(shares: FloatArray, capacity: int, policy: str = "lru") -> float:
    """Hit ratio by Che's approximation: sum of p_i h_i, h_i the chance that i is in the cache.

    lru: h = 1 - exp(-p tC). fifo and random: h = p tC / (1 + p tC), the form of a TTL cache.
    """
    one_of("policy", policy, ("lru", "fifo", "random"))
    time = characteristic_time(shares, capacity, policy)
    if time == np.inf:
        return min(1.0, float(shares.sum()))
    return min(1.0, float(shares @ _held(shares * time, policy)))


def _held(asked: FloatArray, policy: str) -> FloatArray:
    held: FloatArray = -np.expm1(-asked) if policy == "lru" else asked / (1 + asked)
    return held


def best_hit_ratio(shares: FloatArray, capacity: int) -> float:
    """Hit ratio of a cache that knows the popularities and keeps the C largest."""
    kept = count("capacity", capacity, low=0)
    return min(1.0, float(np.sort(shares)[::-1][:kept].sum()))


def simulate(
    policy: str,
    requests: IntArray,
    capacity: int,
    *,
    samples: int = 5,
    pool: int = POOL,
    warm_up: int | None = None,
    seed: int = 0,
) -> EvictionRun:
    """Serve `requests` (object numbers, shape (n,)) from an empty cache of `capacity` objects.

    "sampled" is like the server's allkeys-lru: look at `samples` random keys, keep the `pool`
    longest unused seen so far as candidates, evict the first of them; pool=0 forgets the rest.
    "lfu" counts uses while an object is cached. warm_up: requests not counted, default a tenth.
    """
    play = _PLAYERS[one_of("policy", policy, POLICIES)]
    capacity = count("capacity", capacity, low=0)
    count("samples", samples, high=1000)
    count("pool", pool, low=0, high=1000)
    keys: list[int] = np.asarray(requests).tolist()
    skipped = len(keys) // 10 if warm_up is None else count("warm_up", warm_up, low=0)
    if capacity == 0:
        return EvictionRun(max(0, len(keys) - skipped), 0)
    hits = play(keys, capacity, np.random.default_rng([seed, 17]), samples, pool)
    counted = hits[skipped:]
    return EvictionRun(len(counted), sum(counted))


def _lru(keys: list[int], capacity: int, *_: object) -> list[bool]:
    cache: OrderedDict[int, None] = OrderedDict()
    hits = []
    for key in keys:
        hit = key in cache
        hits.append(hit)
        if hit:
            cache.move_to_end(key)
            continue
        if len(cache) >= capacity:
            cache.popitem(last=False)
        cache[key] = None
    return hits


def _fifo(keys: list[int], capacity: int, *_: object) -> list[bool]:
    cache: OrderedDict[int, None] = OrderedDict()
    hits = []
    for key in keys:
        hit = key in cache
        hits.append(hit)
        if not hit:
            if len(cache) >= capacity:
                cache.popitem(last=False)
            cache[key] = None
    return hits


def _lfu(keys: list[int], capacity: int, *_: object) -> list[bool]:
    uses: dict[int, int] = {}
    by_uses: dict[int, OrderedDict[int, None]] = {}
    fewest = 1
    hits = []
    for key in keys:
        used = uses.get(key, 0)
        hits.append(used > 0)
        if used:
            del by_uses[used][key]
            if not by_uses[used] and fewest == used:
                fewest += 1
        else:
            if len(uses) >= capacity:
                victim, _none = by_uses[fewest].popitem(last=False)
                del uses[victim]
            fewest = 1
        uses[key] = used + 1
        by_uses.setdefault(used + 1, OrderedDict())[key] = None
    return hits


def _at_random(keys: list[int], capacity: int, rng: np.random.Generator, *_: object) -> list[bool]:
    slots: list[int] = []
    cached: set[int] = set()
    victims = (rng.random(len(keys)) * capacity).astype(np.int64).tolist()
    hits = []
    for slot, key in zip(victims, keys, strict=True):
        hit = key in cached
        hits.append(hit)
        if hit:
            continue
        if len(slots) < capacity:
            slots.append(key)
        else:
            cached.remove(slots[slot])
            slots[slot] = key
        cached.add(key)
    return hits


def _sampled(
    keys: list[int], capacity: int, rng: np.random.Generator, samples: int, pool: int
) -> list[bool]:
    slots: list[int] = []
    slot_of: dict[int, int] = {}
    last_use: dict[int, int] = {}
    candidates: list[tuple[int, int]] = []  # (last use when sampled, key), longest unused first
    room = max(pool, 1)
    picks: list[list[int]] = []
    hits = []
    for now, key in enumerate(keys):
        if now % BLOCK == 0:
            picks = (rng.random((BLOCK, samples)) * capacity).astype(np.int64).tolist()
        hit = key in slot_of
        hits.append(hit)
        last_use[key] = now
        if hit:
            continue
        if len(slots) < capacity:
            slot_of[key] = len(slots)
            slots.append(key)
            continue
        slot = None
        while slot is None:  # a candidate may have left the cache since it was sampled
            for pick in picks[now % BLOCK]:
                other = slots[pick]
                used = last_use[other]
                full = len(candidates) >= room
                if full and used >= candidates[-1][0]:
                    continue
                entry = (used, other)
                if entry not in candidates:
                    insort(candidates, entry)
                    if full:
                        candidates.pop()
            while candidates and slot is None:
                slot = slot_of.pop(candidates.pop(0)[1], None)
        if not pool:
            candidates.clear()
        slot_of[key] = slot
        slots[slot] = key
    return hits


_PLAYERS: dict[str, Callable[..., list[bool]]] = {
    "lru": _lru,
    "fifo": _fifo,
    "lfu": _lfu,
    "random": _at_random,
    "sampled": _sampled,
}
