"""When somebody refreshes a hot key before it expires, and how many do so at once."""

from __future__ import annotations

import math

import numpy as np

from cachelab.figures import PALETTE
from cachelab.models import early_refresh
from cachelab.widgets.explorer import (
    BLACK,
    PURE,
    Canvas,
    Explorer,
    figure,
    fixed,
    in_steps,
    legend,
    many,
    over_decades,
    per_second,
    percent,
    round_limit,
    seconds,
    span,
)


def early_refresh_explorer() -> Explorer:
    """When somebody refreshes a hot key before it expires, and how many do so at once."""
    drawn, (axes,) = figure()
    one = axes.plot([], [], "--", color=PALETTE["orange"], lw=2, label="a read refreshes now")[0]
    anybody = axes.plot([], [], color=PALETTE["blue"], lw=2, label="somebody has refreshed")[0]
    lead = axes.axvline(0, color=BLACK, ls=":", lw=1.8, label="first refresh (mean)")
    axes.set(xlabel="time left until the key expires (s)", ylabel="probability (%)")
    axes.set(ylim=(-0.01, 1.03), xlim=(10, 0))
    axes.set_yticks(np.linspace(0, 1, 6), ["0", "20", "40", "60", "80", "100"])
    legend(axes, [one, anybody, lead])

    def show(reads: float, life: float, query: float, beta: float) -> str:
        scale = query * beta
        decided = reads * scale
        left = np.linspace(0, min(life, scale * (math.log1p(decided) + 6)), 160)
        one.set_data(left, np.exp(-left / scale))
        early = decided * (np.exp(-left / scale) - math.exp(-life / scale))
        anybody.set_data(left, -np.expm1(-early))
        mean = early_refresh.mean_lead(reads, life, query, beta)
        lead.set_xdata([mean, mean])
        axes.set_xlim(round_limit(1.02 * left[-1]), 0)
        never = early_refresh.none_early(reads, life, query, beta)
        run = early_refresh.simulate(reads, life, query, beta, reads=100_000)
        at_once = (
            f"{many(run.mean_started)} run at once, counted over {many(run.cycles)} refreshes"
            if run.cycles
            else "100,000 reads are over before the first refresh is"
        )
        factor = early_refresh.origin_load_factor(reads, life, query, beta)
        load = "over 1,000" if factor >= 1000 else fixed(factor, 2)
        return (
            f"The first refresh starts {seconds(mean)} before the expiry on average; {at_once} "
            f"(for a hot key e^(1/beta) = {many(early_refresh.mean_started(beta))}). "
            f"Copies that expire first: {percent(never)}. The origin works {load} times as much."
        )

    return Explorer(
        "Early refresh explorer",
        "Probability (per cent) against the seconds left until a key expires: that one read "
        "refreshes it, and that somebody has done so by then. Time runs to the right, to 0.",
        "beta is to make the refreshes rarer at once. Which beta brings them to about 1.5, what "
        "does it cost, and can beta alone ever bring them to 1?",
        {
            "reads": over_decades("Reads of the key", 0.1, 1000, 100, per_second),
            "life": over_decades("TTL", 1, 3600, 10, span, 300, 3600),
            "query": over_decades("Query", 0.01, 10, 0.2, span),
            "beta": in_steps("beta", 0.1, 5.0, 0.1, 1.0, ".1f", unit=PURE),
        },
        Canvas(drawn, [one, anybody, lead]),
        show,
    )
