"""From which hit ratio on a cache saves time."""

from __future__ import annotations

from cachelab.figures import PALETTE
from cachelab.models import worth
from cachelab.widgets.explorer import (
    BLACK,
    MARKED,
    PER_CENT,
    Canvas,
    Explorer,
    figure,
    fixed,
    in_steps,
    legend,
    over_decades,
    percent,
    round_limit,
    seconds,
    span,
)


def worth_explorer() -> Explorer:
    """From which hit ratio on a cache saves time."""
    drawn, (axes,) = figure()
    cached = axes.plot([], [], color=PALETTE["blue"], lw=2, label="with the cache")[0]
    direct = axes.axhline(1, color=PALETTE["orange"], ls="--", lw=2, label="query alone")
    even = axes.axvline(0, color=BLACK, ls=":", lw=1.8, label="break-even")
    here = axes.plot([], [], "o", color=PALETTE["blue"], **MARKED, label="your setting")[0]
    axes.set(xlim=(-1, 101), xlabel="hit ratio (%)", ylabel="mean time of a read (ms)")
    legend(axes, [cached, direct, even, here], columns=4)

    def show(query: float, lookup: float, store: float, hits: int) -> str:
        mean = worth.mean_latency(hits / 100, lookup, query, store)
        worst = worth.mean_latency(0, lookup, query, store)
        needed = worth.break_even(lookup, query, store)
        cached.set_data([0, 100], [1e3 * worst, 1e3 * lookup])
        direct.set_ydata([1e3 * query, 1e3 * query])
        even.set_xdata([100 * needed, 100 * needed])
        even.set_visible(needed <= 1)
        here.set_data([hits], [1e3 * mean])
        axes.set_ylim(0, round_limit(1.08e3 * max(worst, query)))
        change = (query - mean) / query
        if abs(change) < 0.000_5:
            verdict = "as long as"
        elif change > 0:
            verdict = f"{percent(change)} less than"
        else:
            verdict = f"{fixed(-100 * change, 1)} % more than"
        pays = (
            f"the cache saves time from a hit ratio of {percent(needed)} on"
            if needed <= 1
            else "no hit ratio is enough: the cache is slower than the query"
        )
        return f"A read takes {seconds(mean)}, {verdict} the query alone; {pays}."

    return Explorer(
        "Worth caching?",
        "Mean time of a read (ms) against the hit ratio (per cent): a falling line with the cache, "
        "a level one for the query alone; where they cross is the break-even.",
        "for a query of 4 ms, how fast must the lookup be for a hit ratio of 20 % to pay? And for "
        "a query of 1.2 s?",
        {
            "query": over_decades("Query", 0.0001, 10, 0.004, span),
            "lookup": over_decades("Lookup in the cache", 0.0001, 0.1, 0.0005, span),
            "store": over_decades("Storing after a miss", 0.0001, 0.1, 0.0005, span, 0),
            "hits": in_steps("Hit ratio (%)", 0, 100, 1, 70, "d", unit=PER_CENT),
        },
        Canvas(drawn, [cached, direct, even, here]),
        show,
    )
