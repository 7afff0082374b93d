"""Closed forms and seeded simulators of caches: pure NumPy, no clock, no server, no global state.

Every module pairs a formula with a simulator that shares no code with it, so that each can be held
against the other. Times are in seconds, rates per second, ratios between 0 and 1.

- `ttl`            hit ratio under a fixed, sliding or random TTL, with and without query time
- `jitter`         keys filled together that expire together, and how far jitter spreads them
- `stampede`       how many readers reach the database when one hot key is missing
- `staleness`      how often, and by how much, a hit is out of date
- `revalidate`     stale-while-revalidate
- `early_refresh`  probabilistic early refresh (XFetch)
- `write_back`     acknowledged writes that a crash loses
- `worth`          the hit ratio below which a cache costs more than it saves
- `eviction`       LRU, FIFO, LFU, random and sampled LRU in a cache that is too small
- `recovery`       waiting at the database, a lost cache, and retries that keep it down
"""

from cachelab.models import (
    early_refresh,
    eviction,
    jitter,
    recovery,
    revalidate,
    staleness,
    stampede,
    ttl,
    worth,
    write_back,
)

__all__ = [
    "early_refresh",
    "eviction",
    "jitter",
    "recovery",
    "revalidate",
    "staleness",
    "stampede",
    "ttl",
    "worth",
    "write_back",
]
