"""How often, and by how much, a hit is out of date."""

from __future__ import annotations

import numpy as np

from cachelab.figures import PALETTE
from cachelab.models import staleness
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
    seconds,
    span,
)


def staleness_explorer() -> Explorer:
    """How often, and by how much, a hit is out of date."""
    drawn, (share, age) = figure(2)
    lives = np.geomspace(0.1, 10_000, 120)
    floor = 1e-4
    share_curve = share.plot([], [], color=PALETTE["blue"], lw=2, label="TTL only")[0]
    share_late = share.axhline(
        0, color=PALETTE["orange"], ls="--", lw=2, label="late delete, no TTL"
    )
    share_dot = share.plot([], [], "D", color="white", **MARKED, label="counted")[0]
    age_curve = age.plot([], [], color=PALETTE["blue"], lw=2)[0]
    age_worst = age.plot(lives, lives, ":", color=PALETTE["red"], lw=2, label="worst: the TTL")[0]
    age_dot = age.plot([], [], "D", color="white", **MARKED)[0]
    share.set(xscale="log", xlim=(0.1, 10_000), ylim=(-0.02, 1.02), xlabel="TTL (s)")
    share.set(ylabel="stale share of the hits (%)")
    share.set_yticks(np.linspace(0, 1, 6), ["0", "20", "40", "60", "80", "100"])
    age.set(xscale="log", yscale="log", xlim=(0.1, 10_000), ylim=(floor, 20_000), xlabel="TTL (s)")
    age.set(ylabel="mean time out of date (s)")
    legend(share, [share_curve, share_late, share_dot])
    legend(age, [age_worst])

    def show(reads: float, writes: float, life: float, after: str, delay: float) -> str:
        settings["delay"].disabled = after != "late"
        formulas = [staleness.ttl_only(writes, each) for each in lives]
        share_curve.set_data(lives, [each.stale_share for each in formulas])
        age_curve.set_data(lives, [max(each.mean_staleness, floor) for each in formulas])
        wait = {"ttl": None, "delete": 0.0, "late": delay}[after]
        late = staleness.stale_share_delayed(writes, wait or 0.0)
        share_late.set_ydata([late, late])
        share_late.set_visible(after == "late")
        run = staleness.simulate(reads, writes, life, delete_delay=wait)
        share_dot.set_data([life], [run.stale_share])
        age_dot.set_data([life], [max(run.mean_staleness, floor)])
        formula = staleness.ttl_only(writes, life)
        by_formula = f" (formula: {percent(formula.stale_share)})" if after == "ttl" else ""
        worst = f"at worst {span(life if after == 'ttl' else min(life, wait or 0.0))}"
        if after == "delete":
            worst = "none, as the fill takes no time here"
        return (
            f"{percent(run.stale_share)} of the hits are out of date{by_formula}, on average "
            f"over all hits by {seconds(run.mean_staleness)}, {worst}; "
            f"{percent(run.hit_ratio)} of the reads hit."
        )

    settings = {
        "reads": over_decades("Reads of the key", 1, 100, 2, per_second),
        "writes": over_decades("Writes to it", 0.001, 10, 0.1, per_second),
        "life": over_decades("TTL", 0.1, 10_000, 10, span, 300, 3600),
        "after": choice(
            "After a write",
            [
                ("nothing happens: the TTL ends the copy", "ttl"),
                ("the copy is deleted at once", "delete"),
                ("the copy is deleted late", "late"),
            ],
        ),
        "delay": over_decades("The delete is late by", 0.01, 10, 1, span),
    }
    return Explorer(
        "Staleness explorer",
        "left, share of the hits that are out of date (per cent) against the TTL; right, by how "
        "many seconds a hit is out of date on average, against the TTL, both on log scales.",
        "there is one write in ten seconds. Which TTL keeps nine of ten hits true, and which "
        "hit ratio is left?",
        settings,
        Canvas(drawn, [share_curve, share_late, share_dot, age_curve, age_dot]),
        show,
    )
