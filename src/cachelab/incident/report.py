"""What is shown of a night: four curves over its time, and the post-mortem as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachelab.figures import PALETTE, Picture, Rich
from cachelab.incident.night import LATE, Run

BIN = 30.0  # seconds


@dataclass(frozen=True)
class Curve:
    """One number a half minute of a night; None where there was nothing to measure."""

    name: str
    unit: str
    values: tuple[float | None, ...]

    @property
    def worst(self) -> tuple[float, int]:
        """The worst value and the number of its half minute: the lowest of a rate, else highest."""
        there = [(value, n) for n, value in enumerate(self.values) if value is not None]
        best = min if self.unit == "%" else max
        return best(there, key=lambda one: one[0]) if there else (0.0, 0)


def curves_of(run: Run) -> list[Curve]:
    """Hit rate (%), queries, p99 (s) and wrong answers, each a half minute of the night."""
    bins = math.ceil(run.night.seconds / BIN)
    hits, misses, queries, wrong = ([0] * bins for _ in range(4))
    took: list[list[float]] = [[] for _ in range(bins)]
    looked: set[tuple[str, str]] = set()  # a reader that waits looks again; the first look counts
    for event in run.trace.events:
        place = min(bins - 1, int(event.at / BIN))
        if event.kind == "query":
            queries[place] += 1
        elif event.kind in {"hit", "miss"} and (event.actor, event.on) not in looked:
            looked.add((event.actor, event.on))
            (hits if event.kind == "hit" else misses)[place] += 1
    for answer in run.answers:
        place = min(bins - 1, int(answer.request.at / BIN))
        took[place].append(math.inf if answer.failure else answer.took)
        wrong[place] += answer.wrong
    rates = [100 * h / (h + m) if h + m else None for h, m in zip(hits, misses, strict=True)]
    return [
        Curve("hit rate", "%", tuple(rates)),
        Curve("queries", "in 30 s", tuple(map(float, queries))),
        Curve("p99", "s", tuple(_p99(times) for times in took)),
        Curve("wrong answers", "in 30 s", tuple(map(float, wrong))),
    ]


def _p99(times: list[float]) -> float | None:
    there = sorted(time for time in times if time < math.inf)
    return there[math.ceil(0.99 * len(there)) - 1] if there else None


def curves(run: Run, after: Run | None = None) -> Picture:
    """Four curves over the night, one above the other; with `after`, a second line in each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    panels = figure.subplots(4, 1, sharex=True)
    drawn = [(run, "red", "-", "that night")]
    if after is not None:
        drawn.append((after, "blue", "--", "the same traffic, mended"))
    for one, colour, line, name in drawn:
        for axes, curve in zip(panels, curves_of(one), strict=True):
            times = [(number + 0.5) * BIN / 60 for number in range(len(curve.values))]
            values = [math.nan if value is None else value for value in curve.values]
            style = {"color": PALETTE[colour], "lw": 2, "drawstyle": "steps-mid"}
            axes.plot(times, values, line, label=name, **style)
            axes.set_ylabel(f"{curve.name}\n({curve.unit})")
    for axes in panels:
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[2].axhline(LATE, color=PALETTE["grey"], lw=1)
    minutes = range(0, math.ceil(run.night.seconds / 60) + 1, max(1, int(run.night.seconds // 360)))
    panels[-1].set_xticks(list(minutes), [run.night.time_of_day(60 * m)[:5] for m in minutes])
    panels[-1].set_xlabel("time of day")
    if after is not None:
        panels[0].legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return Picture(figure, _said(run) if after is None else f"{_said(run)} Mended: {_said(after)}")


def _said(run: Run) -> str:
    parts = []
    for curve in curves_of(run):
        value, place = curve.worst
        when = run.night.time_of_day(place * BIN)[:8]
        word = "lowest" if curve.unit == "%" else "highest"
        unit = " %" if curve.unit == "%" else " s" if curve.unit == "s" else ""
        shown = f"{value:.1f}" if curve.unit == "s" else f"{value:.0f}"
        parts.append(f"{curve.name} {word} {shown}{unit} from {when}")
    return f"In half minutes: {'; '.join(parts)}."


# The post-mortem -----------------------------------------------------------------------------

TEMPLATE: dict[str, str] = {
    "summary": "Two sentences for somebody who was asleep: what customers saw, and why.",
    "impact": "How many wrong answers, slow answers and queries, of how many; from the score.",
    "timeline": 'Pairs of a time of day and what happened then: ("03:04", "...").',
    "causes": "For each fault: what made it possible. Of the system, not of a person.",
    "detection": "What told us, how late, and what would have told us earlier.",
    "actions": 'Triples of what, who owns it, and by when: ("...", "a role", "2026-01-15").',
}


def page(run: Run, texts: Mapping[str, Any]) -> Rich:
    """The post-mortem of a night as Markdown; what is not written yet shows what it is for."""
    lines = [f"### Post-mortem: {run.night.title}"]
    for name, purpose in TEMPLATE.items():
        lines += ["", f"**{name.capitalize()}.** "]
        given = texts.get(name)
        if not given:
            lines[-1] += f"*{purpose}*"
        elif isinstance(given, Mapping):
            lines += ["", *(f"- {key}: {value}" for key, value in given.items())]
        elif isinstance(given, (list, tuple)):
            lines += ["", *(f"- {' · '.join(map(str, one))}" for one in given)]
        else:
            lines[-1] += str(given)
    text = "\n".join(lines)
    return Rich(text, "text/markdown", text)
