"""Seven explorers: a model of `cachelab.models`, its picture, and the sliders that move both."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from cachelab.figures import PALETTE
from cachelab.models import (
    early_refresh,
    eviction,
    jitter,
    staleness,
    ttl,
    worth,
    write_back,
)
from cachelab.models.inputs import FloatArray, uniforms
from cachelab.widgets.explorer import (
    Canvas,
    Explorer,
    choice,
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

BLACK = "#222222"
MARKED: dict[str, Any] = {"markersize": 10, "markeredgecolor": BLACK, "linestyle": "", "zorder": 5}


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
            "hits": in_steps("Hit ratio (%)", 0, 100, 1, 70, "d"),
        },
        Canvas(drawn, [cached, direct, even, here]),
        show,
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
            "room": in_steps("Room (% of the objects)", 1, 100, 1, 10, "d"),
            "exponent": in_steps("Skew (Zipf exponent)", 0.0, 1.5, 0.05, 0.8, ".2f"),
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
            "beta": in_steps("beta", 0.1, 5.0, 0.1, 1.0, ".1f"),
        },
        Canvas(drawn, [one, anybody, lead]),
        show,
    )
