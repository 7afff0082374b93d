"""When keys that were filled together expire, for each form of jitter."""

from __future__ import annotations

import numpy as np

from cachelab.figures import PALETTE
from cachelab.models import jitter
from cachelab.widgets.explorer import (
    BLACK,
    MARKED,
    Canvas,
    Explorer,
    choice,
    figure,
    fixed,
    legend,
    many,
    over_decades,
    seconds,
    span,
)


def jitter_explorer(ttl_seconds: int = 3600) -> Explorer:
    """When keys that were filled together expire, for each form of jitter."""
    drawn, (axes,) = figure()
    reach = 1800
    bars = axes.stairs([1], [0, 1], baseline=0.5, color=PALETTE["blue"], lw=1.2)
    peak = axes.plot([], [], "v", color=PALETTE["blue"], **MARKED)[0]
    level = axes.axhline(1, color=PALETTE["red"], ls="--", lw=1.8)
    bound = axes.axvline(0, color=BLACK, ls=":", lw=1.8)
    axes.set(yscale="log", xlim=(-reach, reach + 1), ylim=(0.5, 300_000))
    axes.set(xlabel=f"seconds before (-) and after the TTL of {span(ttl_seconds)} is over")
    axes.set(ylabel="keys that expire, per second")
    bars.set_label("expiries")
    peak.set_label("busiest second")
    level.set_label("its expected height (formula)")
    bound.set_label("the TTL: the promised age")
    legend(axes, [bars, peak, level, bound], columns=4)

    def show(keys: int, width: int, form: str) -> str:
        run = jitter.simulate(keys, ttl_seconds, width, form=form)
        expected = jitter.expected_peak(keys, width)
        begin = run.starts[0] - ttl_seconds
        bins = begin + np.arange(len(run.per_bin) + 1)
        bars.set_data(np.maximum(run.per_bin, 0.5), bins, 0.5)
        top = int(run.per_bin.argmax())
        peak.set_data([bins[top] + 0.5], [run.peak])
        level.set_ydata([expected, expected])
        over = run.longest_ttl - ttl_seconds
        kept = (
            f"{seconds(over)} past the TTL" if over >= 0.0005 else "the promise of the TTL is kept"
        )
        waste = ttl_seconds - jitter.ttl_range(ttl_seconds, width, form).mean
        costs = f" Keys live {span(abs(waste))} less on average." if waste > 0 else ""
        return (
            f"{many(run.peak)} of {many(keys)} keys expire in the busiest second "
            f"(formula: {many(expected)}). The oldest answer is {fixed(run.longest_ttl, 0)} s old: "
            f"{kept}.{costs}"
        )

    return Explorer(
        "Jitter explorer",
        f"Keys that expire per second, on a log scale, around the moment at which a TTL of "
        f"{span(ttl_seconds)} is over, for keys that were filled at one instant.",
        "which form of jitter flattens the peak and still never serves an answer older than the "
        "TTL? And what does jitter do for a single hot key?",
        {
            "keys": over_decades("Keys filled together", 100, 100_000, 10_000, many),
            "width": over_decades("Width of the jitter", 1, 1800, 300, span, 0, 540, 1800),
            "form": choice(
                "The TTL is drawn from",
                [
                    ("TTL to TTL + width (additive)", "additive"),
                    ("TTL - width/2 to TTL + width/2 (mean-preserving)", "mean-preserving"),
                    ("TTL - width to TTL (subtractive)", "subtractive"),
                ],
            ),
        },
        Canvas(drawn, [bars, level, peak]),
        show,
    )
