"""What an exercise is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cachelab.record.verdict import Verdict


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lab.

    `id` is "05_cache_aside.read", `lab` the stem "05_cache_aside"; `function` is the name that the
    learner defines and `signature` how it is written, "read_user(cache, db, user_id)"; `hints` are
    three, each more direct. `judge(answer, trial)` decides, with what a `Trial` offers.
    """

    id: str
    title: str
    function: str
    signature: str
    minutes: int
    hints: tuple[str, str, str]
    judge: Callable[[Any, Any], Verdict | str | None] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hints", tuple(self.hints))
        complaints = [
            (re.fullmatch(r"\d\d_\w+\.\w+", self.id), "its id is not of the form 05_lab.name"),
            (self.signature.startswith(self.function + "("), "signature and function differ"),
            (len(self.hints) == 3, f"it has {len(self.hints)} hints, not 3"),
            (self.minutes > 0, "it takes no time"),
        ]
        for fine, complaint in complaints:
            if not fine:
                raise ValueError(f"Exercise {self.id!r} cannot be used: {complaint}.")

    @property
    def lab(self) -> str:
        """The stem of its lab."""
        return self.id.partition(".")[0]

    @property
    def solution(self) -> str:
        """The file that shows one way to do it."""
        return f"solutions/{self.lab}.ipynb"
