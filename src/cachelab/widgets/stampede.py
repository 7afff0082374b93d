"""The stampede explorer: drawn in the browser, so that it moves without a kernel too."""

from __future__ import annotations

import json
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

import anywidget
import numpy as np
import traitlets

from cachelab.figures import PALETTE
from cachelab.models import stampede
from cachelab.widgets.explorer import (
    Canvas,
    Pixels,
    bundle,
    figure,
    fixed,
    legend,
    round_limit,
    seconds,
)

# Range and first value of each slider; static/stampede.js has the same ranges (tested).
RANGES = {
    "readers": (10, 2000, 800),
    "window_ms": (0, 1000, 200),
    "query_ms": (1, 500, 10),
    "slots": (1, 100, 1),
}
DISCIPLINES = {"fcfs": "queue: one query a slot", "ps": "sharing: all run at once"}
QUESTION = (
    "let the database share its slots, and raise the slots from 1. At which load do the readers "
    "who reach it fall from hundreds to tens? Does a queue have such a point?"
)
LOADS = np.geomspace(0.01, 1000, 60)


@lru_cache(maxsize=1)
def module() -> str:
    """The source of static/stampede.js: the model again, the picture and the controls."""
    return (files("cachelab.figures") / "static" / "stampede.js").read_text("utf-8")


class StampedeExplorer(anywidget.AnyWidget):
    """How many readers of one missing key reach the database, and how long they wait.

    readers: count; window_ms, query_ms: ms; slots: count; discipline: "fcfs" (a queue) or "ps"
    (all queries share the slots); single_flight: one reader queries for all. They follow the
    controls, a moment later, and the controls follow them. TraitError for a value out of range.
    """

    # Given by function: a file would be watched for changes.
    _esm = module()

    readers = traitlets.Int(800, min=10, max=2000).tag(sync=True)
    window_ms = traitlets.Int(200, min=0, max=1000).tag(sync=True)
    query_ms = traitlets.Int(10, min=1, max=500).tag(sync=True)
    slots = traitlets.Int(1, min=1, max=100).tag(sync=True)
    discipline = traitlets.Enum(list(DISCIPLINES), "fcfs").tag(sync=True)
    single_flight = traitlets.Bool(False).tag(sync=True)
    question = traitlets.Unicode(QUESTION).tag(sync=True)

    @property
    def values(self) -> dict[str, Any]:
        """What the controls are set to, times in ms."""
        names = (*RANGES, "discipline", "single_flight")
        return {name: getattr(self, name) for name in names}

    @property
    def result(self) -> stampede.Stampede:
        """The same stampede by `cachelab.models`."""
        return stampede.simulate(
            self.readers,
            self.window_ms / 1000,
            self.query_ms / 1000,
            self.slots,
            discipline=self.discipline,
            single_flight=self.single_flight,
        )

    @property
    def said(self) -> str:
        """The reading under the picture."""
        return say(self.readers, self.result)

    def __repr__(self) -> str:
        return "\n".join(
            [
                "Stampede explorer: left, readers that have arrived and readers that have their "
                "answer, over time; right, readers that reach the database against the load "
                "(arrival rate × query time ÷ slots) on a log scale, for a queue and for sharing; "
                "sharing tips over at 1.",
                f"Settings: {self._set_to()}.",
                f"Reading: {self.said}",
                f"Question: {self.question}",
            ]
        )

    def _set_to(self) -> str:
        slots = "1 slot" if self.slots == 1 else f"{self.slots} slots"
        flight = ", single-flight" if self.single_flight else ""
        return (
            f"{self.readers:,} readers within {self.window_ms} ms, query time {self.query_ms} ms, "
            f"{slots}, {DISCIPLINES[self.discipline]}{flight}"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # type: ignore[override]
        # Where scripts are run the still is replaced by the explorer itself.
        attributes = (
            f' class="cachelab-stampede" data-settings="{escape(json.dumps(self.values))}"'
            f' data-question="{escape(self.question)}"'
        )
        script = f'\n<script type="module">\n{module()}\nmountAll();\n</script>'
        set_to = self._set_to()
        return bundle(self, still(self), set_to, attributes=attributes, script=script)


def stampede_explorer(**settings: Any) -> StampedeExplorer:
    """The stampede explorer; `settings` are the first values, as in `StampedeExplorer`."""
    return StampedeExplorer(**settings)


def say(readers: int, run: stampede.Stampede) -> str:
    """The reading of one stampede, word for word as static/stampede.js says it."""
    reach = "reaches" if run.queries == 1 else "reach"
    return (
        f"{fixed(run.queries, 0)} of {fixed(readers, 0)} {reach} the database; the longest wait "
        f"is {seconds(run.longest_wait)}, the last answer comes after {seconds(run.last_answer)}."
    )


def still(explorer: StampedeExplorer) -> Pixels:
    """The picture of the explorer as it is set, drawn without a browser."""
    drawn, (time, tip) = figure(2, 3.3)
    run = explorer.result
    readers = explorer.readers
    end = max(run.last_answer, explorer.window_ms / 1000)
    counted = np.arange(1, readers + 1)
    answers = np.sort(run.arrivals + run.waits)
    came = time.plot([*run.arrivals, end], [*counted, readers], "--", color=PALETTE["orange"], lw=2)
    went = time.plot([0, *answers, end], [0, *counted, readers], color=PALETTE["blue"], lw=2)
    waiting = time.fill_betweenx(counted, run.arrivals, answers, color=PALETTE["sky"], alpha=0.4)
    time.set(xlim=(0, round_limit(end)), ylim=(0, 1.02 * readers))
    time.set(xlabel="time after the first reader (s)", ylabel="readers")
    names = ("arrived", "answered", "waiting")
    for artist, name in zip((came[0], went[0], waiting), names, strict=True):
        artist.set_label(name)
    legend(time, [came[0], went[0], waiting])

    window = explorer.window_ms / 1000
    curves = []
    for discipline, style, colour in (("fcfs", "--", "orange"), ("ps", "-", "blue")):
        found = [
            stampede.simulate(
                readers,
                window,
                load * explorer.slots * window / readers,
                explorer.slots,
                discipline=discipline,
                single_flight=explorer.single_flight,
            ).queries
            for load in LOADS
        ]
        curves += tip.plot(LOADS, found, style, color=PALETTE[colour], lw=2)
        curves[-1].set_label("queue" if discipline == "fcfs" else "sharing")
    curves.append(tip.axvline(1, color=PALETTE["red"], ls=":", lw=2, label="tipping point"))
    rate = readers / window if window else np.inf
    load = min(max(rate * explorer.query_ms / 1000 / explorer.slots, LOADS[0]), LOADS[-1])
    tip.plot([load], [run.queries], "o", color="white", mec="#222222", ms=9, mew=2, clip_on=False)
    tip.set(xscale="log", xlim=(LOADS[0], LOADS[-1]), ylim=(0, 1.02 * readers))
    tip.set(xlabel="load: arrival rate × query time ÷ slots", ylabel="readers that query")
    legend(tip, curves)
    return Canvas(drawn, []).pixels()
