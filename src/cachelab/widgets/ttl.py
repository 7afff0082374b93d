"""How often a key is found: reads per second, TTL, and how regularly the reads come."""

from __future__ import annotations

import numpy as np

from cachelab.figures import PALETTE
from cachelab.models import ttl
from cachelab.widgets.explorer import (
    MARKED,
    Canvas,
    Explorer,
    choice,
    figure,
    legend,
    over_decades,
    per_second,
    percent,
    span,
)


def ttl_explorer() -> Explorer:
    """How often a key is found: reads per second, TTL, and how regularly the reads come."""
    drawn, (axes,) = figure()
    per_ttl = np.geomspace(0.01, 1000, 200)
    fixed_ttl = axes.plot(per_ttl, 1 - 1 / (1 + per_ttl), color=PALETTE["blue"], lw=2)[0]
    sliding = axes.plot(per_ttl, -np.expm1(-per_ttl), "--", color=PALETTE["orange"], lw=2)[0]
    axes.axhline(0.7, color=PALETTE["grey"], ls=":", lw=1.5)
    axes.text(0.011, 0.72, "70 %", color=PALETTE["grey"], fontsize=9)
    formula = axes.plot([], [], "o", color=PALETTE["blue"], **MARKED)[0]
    counted = axes.plot([], [], "D", color="white", **MARKED)[0]
    axes.set(xscale="log", xlim=(0.01, 1000), ylim=(0, 1.02))
    axes.set(xlabel="reads of the key during one TTL", ylabel="hit ratio (%)")
    axes.set_yticks(np.linspace(0, 1, 6), ["0", "20", "40", "60", "80", "100"])
    for artist, name in (
        (fixed_ttl, "formula, TTL from the fill"),
        (sliding, "formula, TTL renewed by reads"),
        (formula, "your setting"),
        (counted, "counted run"),
    ):
        artist.set_label(name)
    legend(axes, [fixed_ttl, sliding, formula, counted], columns=4)

    def show(reads: float, life: float, arrivals: str) -> str:
        expected = ttl.hit_ratio(reads, life)
        run = ttl.simulate(reads, life, arrivals=arrivals)
        at = min(max(reads * life, 0.01), 1000)
        formula.set_data([at], [expected])
        counted.set_data([at], [run.hit_ratio])
        return (
            f"{percent(expected)} of the reads hit by the formula, {percent(run.hit_ratio)} of "
            f"20,000 counted ones; the origin gets about {run.origin_ratio * reads:.3g} of "
            f"{per_second(reads).replace('per s', 'reads/s')}, "
            f"and an answer is at most {span(life)} old."
        )

    return Explorer(
        "TTL explorer",
        "Hit ratio of one key (per cent) against the reads during one TTL, on a log scale: it "
        "rises from 0 to 100 %, and passes 70 % at 2.3 reads.",
        "how many reads per TTL give a hit ratio of 70 %? Then let the reads come like a clock: "
        "does the formula still hold?",
        {
            "reads": over_decades("Reads of the key", 0.01, 1000, 1, per_second),
            "life": over_decades("TTL", 0.1, 10_000, 10, span, 300, 3600),
            "arrivals": choice(
                "The reads come",
                [
                    ("at random (Poisson)", "poisson"),
                    ("like a clock", "periodic"),
                    ("ten at a time", "bursts"),
                ],
            ),
        },
        Canvas(drawn, [formula, counted]),
        show,
    )
