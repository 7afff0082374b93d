"""The exercises: which there are, judging an answer, and hints.

What each exercise is stands in `catalogue.json`, made from the labs' sources by `make notebooks`.
The judge of "05_cache_aside.read" is the function `judge_read` in `lab_05_cache_aside.py`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from cachelab.judge.exercise import Exercise
from cachelab.judge.trial import Trial, TrialWorld, judge
from cachelab.process.errors import OneSentence
from cachelab.process.limits import limited
from cachelab.record.verdict import MIME, OUTCOMES, Verdict, short

__all__ = [
    "MIME",
    "OUTCOMES",
    "Exercise",
    "Hint",
    "Trial",
    "TrialWorld",
    "UnknownExercise",
    "Verdict",
    "catalogue",
    "check",
    "find",
    "forget_progress",
    "hint",
    "judge",
    "judge_in",
    "labs",
    "limited",
    "short",
]

ATTEMPTS = 3  # failed ones, after which the solution is named


class UnknownExercise(OneSentence, ValueError):
    """There is no such exercise; the text says which come close."""


# Which there are -----------------------------------------------------------------------------


def labs() -> list[str]:
    """The stems of the labs that have exercises, in order."""
    return sorted(_labs())


def catalogue(lab: str | None = None) -> list[Exercise]:
    """Every exercise, in order of labs; or those of one lab, by its stem ([] if there is none)."""
    stems = labs() if lab is None else [lab] * (lab in labs())
    return [exercise for stem in stems for exercise in _of_lab(stem)]


def find(exercise_id: str) -> Exercise:
    """The exercise with this id; UnknownExercise, one sentence, if there is none."""
    stem = str(exercise_id).partition(".")[0]
    for exercise in _of_lab(stem) if stem in labs() else []:
        if exercise.id == exercise_id:
            return exercise
    known = [exercise.id for exercise in catalogue()]
    close = difflib.get_close_matches(str(exercise_id), known, n=3, cutoff=0.5)
    if not close:
        close = [known_id for known_id in known if known_id.startswith(stem[:2] + "_")][:5]
    advice = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}."
    raise UnknownExercise(f"There is no exercise {short(exercise_id)}: {advice}")


def _of_lab(stem: str) -> list[Exercise]:
    module = import_module(f"{__name__}.lab_{stem}")
    return [Exercise(**facts, judge=_judge(module, facts["id"])) for facts in _labs()[stem]]


def _judge(module: ModuleType, exercise_id: str) -> Any:
    name = "judge_" + exercise_id.partition(".")[2]
    try:
        return getattr(module, name)
    except AttributeError:
        raise ValueError(
            f"{exercise_id} has no judge: write {name} in {module.__file__}."
        ) from None


def _labs() -> dict[str, list[dict[str, Any]]]:
    """What the catalogue says of each exercise, by its lab's stem."""
    found: dict[str, list[dict[str, Any]]] = {}
    for folder in __path__:
        for facts in _read(folder):
            found.setdefault(facts["id"].partition(".")[0], []).append(facts)
    return found


@cache
def _read(folder: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((Path(folder) / "catalogue.json").read_text("utf-8"))
    return entries


# Judging -------------------------------------------------------------------------------------


@dataclass
class _Progress:
    """What one learner has tried in this process."""

    failed: Counter[str]
    hinted: Counter[str]


_progress = _Progress(Counter(), Counter())


def forget_progress() -> None:
    """Begin counting attempts and hints anew."""
    _progress.failed.clear()
    _progress.hinted.clear()


def check(exercise_id: str, answer: Any) -> Verdict:
    """Judge `answer`, the function that the exercise asks for; takes at most 10 s.

    Never raises for anything that the answer does. Raises UnknownExercise for an id that is none.
    """
    exercise = find(exercise_id)
    if os.environ.get("CACHELAB_JUDGING") == "1":
        # `cachelab check` runs the whole lab first, and judges every answer once at the end.
        return Verdict("not attempted", "Judged at the end of the lab.", exercise=exercise.id)
    verdict = judge(exercise, answer)
    if verdict.outcome == "failed":
        _progress.failed[exercise.id] += 1
        advice = verdict.hint or f'`cachelab.hint("{exercise.id}")` gives a hint.'
        if _progress.failed[exercise.id] >= ATTEMPTS:
            advice = f"{advice} One solution is in `{exercise.solution}`."
        verdict = Verdict(**{**vars(verdict), "hint": advice})
    return verdict


def judge_in(namespace: Mapping[str, Any], exercise_id: str) -> Verdict:
    """Judge what `namespace` holds under the exercise's function name, for `cachelab check`."""
    exercise = find(exercise_id)
    if exercise.function not in namespace:
        said = f"Not attempted: the lab defines no {exercise.function}."
        return Verdict("not attempted", said, exercise=exercise.id)
    return judge(exercise, namespace[exercise.function])


# Hints ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hint:
    """One hint; in JupyterLab it is shown as Markdown."""

    text: str
    tier: int
    exercise: Exercise

    def __repr__(self) -> str:
        return re.sub(r"`([^`]+)`", r"\1", self._markdown()).replace("**", "")

    def _markdown(self) -> str:
        text = f"**Hint {self.tier} of {len(self.exercise.hints)}:** {self.text}"
        if self.tier == len(self.exercise.hints):
            text += f" One solution is in `{self.exercise.solution}`."
        return text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/markdown": self._markdown()}


def hint(exercise_id: str) -> Hint:
    """The next hint, each more direct than the one before; the third names the solution."""
    exercise = find(exercise_id)
    tier = min(_progress.hinted[exercise.id] + 1, len(exercise.hints))
    _progress.hinted[exercise.id] = tier
    return Hint(exercise.hints[tier - 1], tier, exercise)
