"""What a crash loses when writes are acknowledged first and flushed later."""

from __future__ import annotations

import numpy as np

from cachelab.figures import PALETTE
from cachelab.models import write_back
from cachelab.models.inputs import uniforms
from cachelab.widgets.explorer import (
    BLACK,
    Canvas,
    Explorer,
    figure,
    legend,
    many,
    over_decades,
    per_second,
    span,
)


def write_back_explorer() -> Explorer:
    """What a crash loses when writes are acknowledged first and flushed later."""
    drawn, (axes,) = figure()
    writes_line = axes.plot([], [], color=PALETTE["blue"], lw=2, label="writes (mean)")[0]
    keys_line = axes.plot([], [], "--", color=PALETTE["orange"], lw=2, label="keys (mean)")[0]
    lost_dots = axes.plot(
        [], [], "o", color=PALETTE["blue"], ms=7, label="crashes: writes lost", zorder=4
    )[0]
    dirty_dots = axes.plot(
        [],
        [],
        "s",
        color=PALETTE["orange"],
        mfc="white",
        ms=7,
        label="crashes: keys lost",
        zorder=4,
    )[0]
    flush = axes.axvline(1, color=BLACK, ls=":", lw=1.8, label="flush")
    axes.set(xscale="log", yscale="log", xlim=(0.001, 100), ylim=(0.5, 1_000_000))
    axes.set(xlabel="time since the last flush (s)", ylabel="writes or keys not in the database")
    legend(axes, [writes_line, keys_line, lost_dots, dirty_dots, flush], columns=5)

    def show(rate: float, every: float, keys: int) -> str:
        lost = write_back.loss(rate, every)
        flushed = write_back.coalescing(rate, every, keys)
        crashes = min(20, max(3, int(100_000 / (rate * every))))
        run = write_back.simulate(rate, every, keys, intervals=crashes)
        moments = uniforms(0, "write_back.crash", crashes) * every
        since = np.geomspace(0.001, every, 80)
        writes_line.set_data(since, rate * since)
        keys_line.set_data(since, -keys * np.expm1(-rate * since / keys))
        lost_dots.set_data(moments, run.lost)
        dirty_dots.set_data(moments, run.dirty)
        flush.set_xdata([every, every])
        return (
            f"A crash loses {many(lost.mean)} acknowledged writes on average, "
            f"{many(lost.worst)} at worst. If only the newest value of each key is flushed, "
            f"{many(lost.worst)} writes become {many(flushed.rows_per_flush)} rows, and a crash "
            f"loses the newest value of {many(flushed.dirty_keys_lost)} keys."
        )

    return Explorer(
        "Write-back explorer",
        "Writes that are acknowledged but not yet in the database, against the seconds since the "
        "last flush, both on log scales: a straight line for the writes, a flattening one for the "
        "keys they touch, and simulated crashes as dots.",
        "you may lose at most 100 writes. At which interval must you flush, and what does that "
        "do to the number of rows?",
        {
            "rate": over_decades("Writes", 1, 5000, 500, per_second),
            "every": over_decades("Flush every", 0.1, 60, 5, span, 60),
            "keys": over_decades("Keys written, equally often", 1, 10_000, 1000, many),
        },
        Canvas(drawn, [writes_line, keys_line, lost_dots, dirty_dots, flush]),
        show,
    )
