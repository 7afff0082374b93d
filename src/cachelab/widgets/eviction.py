"""What a cache that is too small keeps, under five policies."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cachelab.figures import PALETTE
from cachelab.models import eviction
from cachelab.models.inputs import FloatArray
from cachelab.widgets.explorer import (
    MARKED,
    PER_CENT,
    PURE,
    Canvas,
    Explorer,
    choice,
    figure,
    in_steps,
    legend,
    percent,
)

OBJECTS = 300
REQUESTS = 3000
CAPACITIES = (1, 3, 6, 12, 20, 30, 45, 60, 80, 105, 130, 160, 190, 220, 250, 275, 290, 299)


@lru_cache(maxsize=64)
def _by_capacity(exponent: float) -> dict[str, FloatArray]:
    """Hit ratio by formula at every capacity that is drawn, for LRU, FIFO and the best cache."""
    shares = eviction.popularity(OBJECTS, exponent)
    found = {
        policy: [eviction.che_hit_ratio(shares, capacity, policy) for capacity in CAPACITIES]
        for policy in ("lru", "fifo")
    }
    found["best"] = [eviction.best_hit_ratio(shares, capacity) for capacity in CAPACITIES]
    return {name: np.array([0.0, *ratios, 1.0]) for name, ratios in found.items()}


def eviction_explorer() -> Explorer:
    """What a cache that is too small keeps, under five policies."""
    drawn, (axes,) = figure()
    lru = axes.plot([], [], color=PALETTE["blue"], lw=2, label="LRU (formula)")[0]
    fifo = axes.plot([], [], "--", color=PALETTE["orange"], lw=2, label="FIFO, random (formula)")[0]
    best = axes.plot([], [], ":", color=PALETTE["grey"], lw=2, label="best that can be")[0]
    counted = axes.plot([], [], "D", color="white", **MARKED, label="your policy, counted")[0]
    axes.set(xlim=(0, 100.5), ylim=(0, 1.03), xlabel="room in the cache (% of all objects)")
    axes.set(ylabel="hit ratio (%)")
    axes.set_yticks(np.linspace(0, 1, 6), ["0", "20", "40", "60", "80", "100"])
    legend(axes, [lru, fifo, best, counted], columns=4)
    room_axis = np.array([0, *CAPACITIES, OBJECTS]) / OBJECTS * 100

    def show(room: int, exponent: float, policy: str) -> str:
        exponent = round(exponent, 2)
        curves = _by_capacity(exponent)
        for line, name in ((lru, "lru"), (fifo, "fifo"), (best, "best")):
            line.set_data(room_axis, curves[name])
        capacity = max(1, OBJECTS * room // 100)
        asked = eviction.zipf_requests(OBJECTS, exponent, REQUESTS)
        run = eviction.simulate(policy, asked, capacity, warm_up=REQUESTS // 3)
        counted.set_data([100 * capacity / OBJECTS], [run.hit_ratio])
        shares = eviction.popularity(OBJECTS, exponent)
        by_lru = eviction.che_hit_ratio(shares, capacity)
        most = eviction.best_hit_ratio(shares, capacity)
        return (
            f"Room for {capacity} of {OBJECTS} objects: {percent(run.hit_ratio)} of "
            f"{run.requests:,} counted requests hit; LRU by formula {percent(by_lru)}, "
            f"the best that can be {percent(most)}."
        )

    return Explorer(
        "Eviction explorer",
        f"Hit ratio (per cent) against the room in the cache (per cent of {OBJECTS} objects): the "
        "formulas for LRU and for FIFO or random, the best that can be, and one counted run.",
        "with a tenth of the objects in the cache, how much does LRU by sampling, as the server "
        "does it, lose against LRU? And what changes when all objects are equally popular?",
        {
            "room": in_steps("Room (% of the objects)", 1, 100, 1, 10, "d", unit=PER_CENT),
            "exponent": in_steps("Skew (Zipf exponent)", 0.0, 1.5, 0.05, 0.8, ".2f", unit=PURE),
            "policy": choice(
                "Policy",
                [
                    ("least recently used (LRU)", "lru"),
                    ("LRU by sampling, as the server does it", "sampled"),
                    ("first in, first out (FIFO)", "fifo"),
                    ("least frequently used (LFU)", "lfu"),
                    ("random", "random"),
                ],
            ),
        },
        Canvas(drawn, [best, lru, fifo, counted]),
        show,
    )
