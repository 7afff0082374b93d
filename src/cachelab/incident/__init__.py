"""The incident game: a night of the shop with planted faults, on the stage, again and again.

`load` a scenario, `play` it, read its pager, `curves` and journal, and play it again with a part of
the service replaced: the same traffic, to the byte. Scenarios are files in `workshop/scenarios`.
"""

from __future__ import annotations

from cachelab.incident.evidence import SUSPECTS
from cachelab.incident.night import Run, Score, play
from cachelab.incident.parts import FAULTS, LONGEST, PROMISED, with_faults
from cachelab.incident.report import TEMPLATE, curves, page
from cachelab.incident.scenario import IncidentError, Scenario, load, scenarios

__all__ = [
    "FAULTS",
    "LONGEST",
    "PROMISED",
    "SUSPECTS",
    "TEMPLATE",
    "IncidentError",
    "Run",
    "Scenario",
    "Score",
    "curves",
    "load",
    "page",
    "play",
    "scenarios",
    "with_faults",
]
