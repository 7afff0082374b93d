"""Known answers to the exercises: one module a lab, `lab_<stem>.py`, with `WRONG` and `RIGHT`.

`WRONG` maps an exercise's id to at least three `Wrong`; `RIGHT` to functions that do it another
way than the solution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

__all__ = ["Wrong", "right", "wrong"]


@dataclass(frozen=True)
class Wrong:
    """A mistake with a name. `expect` is a piece of the sentence that has to be said of it."""

    name: str
    function: Callable[..., Any]
    expect: str


def wrong(exercise_id: str) -> list[Wrong]:
    """The known wrong answers to an exercise."""
    found: list[Wrong] = _module(exercise_id).WRONG.get(exercise_id, [])
    return found


def right(exercise_id: str) -> list[Callable[..., Any]]:
    """Right answers that are written in another way than the solution."""
    found: list[Callable[..., Any]] = _module(exercise_id).RIGHT.get(exercise_id, [])
    return found


def _module(exercise_id: str) -> Any:
    name = f"answers.lab_{exercise_id.partition('.')[0]}"
    # A lab without answers fails its own test, and not the collection of all.
    return import_module(name) if find_spec(name) else SimpleNamespace(WRONG={}, RIGHT={})
