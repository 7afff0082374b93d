"""What a judge works with: fresh worlds, calls of the answer under limits, and ways to decide."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
import math
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np
import sqlalchemy as sa

from cachelab import stage
from cachelab.judge.exercise import Exercise
from cachelab.judge.world import TrialWorld
from cachelab.origin import SMALL, Base, Size
from cachelab.process.limits import (
    CHECK_SECONDS,
    SECONDS,
    Ended,
    OutOfTime,
    limited,
    run,
    say_error,
)
from cachelab.process.patience import Patience
from cachelab.process.places import place_in
from cachelab.record.trace import Trace
from cachelab.record.verdict import Outcome, Verdict, short
from cachelab.stage import Exploration, StageTrace
from cachelab.stage.world import Actors

__all__ = [
    "Exercise",
    "JudgingEnded",
    "Trial",
    "TrialWorld",
    "finite",
    "judge",
    "new_hash_seed",
    "signature_mismatch",
]

# Kept back of a check's time: to stop what runs, to clear away, to write the verdict.
RESERVE = 2.0


class JudgingEnded(BaseException):
    """Ends the judging with a verdict. Not an Exception: no judge catches it by mistake."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.summary)
        self.verdict = verdict


# Judging -------------------------------------------------------------------------------------


class Trial:
    """One judging of one answer. A judge asks it for worlds, calls the answer, and expects.

    Each of `call`, `expect`, `fail` and `nothing_proved` may end the judging. A judge that comes
    to its end has passed the answer; a text that it returns is then the summary. It may return a
    Verdict instead.
    """

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        self.worlds: list[TrialWorld] = []
        self.printed: list[str] = []
        self.schedules = 1  # orders that were run, the plain calls being one
        self._patience = Patience(_all_seconds())

    def world(
        self, size: Size = SMALL, *, latency: float = 0.0, capacity: int | None = None
    ) -> TrialWorld:
        """A fresh cache (`.cache`), shop (`.db`) and trace (`.trace`)."""
        made = TrialWorld(size, latency=latency, capacity=capacity)
        self.worlds.append(made)
        return made

    @property
    def trace(self) -> Trace | None:
        """What has happened in the newest world."""
        return self.worlds[-1].trace if self.worlds else None

    def call(self, answer: Any, *args: Any, seconds: float | None = None, **options: Any) -> Any:
        """The value of `answer(*args, **options)`; ends the judging when there is none.

        So it does for an exception, an endless loop, `exit()` and the like. Threads that the
        answer starts are waited for.
        """
        ended = self.attempt(answer, *args, seconds=seconds, **options)
        if ended.error is not None:
            table = _missing_table(ended.error)
            self.fail(_gone(table) if table else ended.sentence(self._name))
        return ended.value

    def attempt(
        self, answer: Any, *args: Any, seconds: float | None = None, **options: Any
    ) -> Ended:
        """How `answer(*args, **options)` ended: `.error` is what it raised, or None; `.value`.

        As `call`, for a judge that may want to see an exception.
        """
        seconds = SECONDS if seconds is None else seconds
        given = min(seconds, self._patience.left())
        if given > 0.05:
            ended = run(answer, *args, seconds=given, **options)
            if ended.printed:
                self.printed.append(ended.printed)
        if given <= 0.05 or (ended.how == "out of time" and given < seconds):
            self.fail(f"All calls of {self._name} together took longer than {_all_seconds():g} s.")
        if isinstance(ended.error, NotImplementedError) and self.exercise.id in str(ended.error):
            self._end(
                "not attempted",
                f"Not attempted: {self._name} still raises NotImplementedError. Replace that line"
                " with your code.",
            )
        if ended.how in {"out of time", "left"} or (ended.how == "returned" and ended.running):
            self.fail(ended.sentence(self._name))
        if inspect.iscoroutine(ended.value):
            ended.value.close()
            self.fail(f"{self._name} returned a coroutine; write it with `def`, not `async def`.")
        return ended

    def play(self, actors: Actors, *, seconds: float | None = None, **options: Any) -> StageTrace:
        """Run actors on the stage, as `stage.run` does; ends the judging if they get stuck.

        `answers` of the trace holds what each returned or raised; `world` the cache and database
        afterwards. `seconds` of real time; `options` go to the stage.
        """
        given = SECONDS if seconds is None else seconds
        trace: StageTrace = self._staged(stage.run, actors, seconds=given, **options)
        return trace

    def every_order(
        self,
        actors: Any,
        invariant: Callable[[stage.World], Any],
        *,
        seconds: float = 4.0,
        **options: Any,
    ) -> Exploration:
        """Run actors in every order, as `stage.explore` does; ends the judging unless all is well.

        The sentence that `invariant(world)` returns for a bad order becomes the verdict's, and that
        order its counter-example.
        """
        found: Exploration = self._staged(
            stage.explore, actors, invariant, seconds=seconds, **options
        )
        self.schedules += found.schedules
        if found.outcome != "passed":
            self._end(found.outcome, found.summary, trace=found.counterexample, why=found.why)
        return found

    def _staged(self, act: Callable[..., Any], *args: Any, seconds: float, **options: Any) -> Any:
        """Call the stage under limits of our own; what gets stuck there ends the judging."""
        given = min(seconds, self._patience.left())
        if given <= 0.05:
            self.fail(f"All calls of {self._name} together took longer than {_all_seconds():g} s.")
        ended = run(act, *args, seconds=given + 1, wall_limit=given, **options)
        if ended.printed:
            self.printed.append(ended.printed)
        if isinstance(ended.error, stage.Limit):
            self._end("proved nothing", f"Proved nothing: {ended.error}", trace=ended.error.trace)
        if isinstance(ended.error, stage.Stuck):
            self.fail(str(ended.error), trace=ended.error.trace)
        if isinstance(ended.error, stage.Refused):
            self.nothing_proved(str(ended.error))
        if isinstance(ended.error, ValueError) and ended.where is None:
            raise ended.error  # the judge asked the stage for something that makes no sense
        if ended.error is not None or ended.how != "returned":
            self.fail(ended.sentence(self._name))
        return ended.value

    def expect(
        self, condition: Any, summary: str, hint: str = "", *, trace: Trace | None = None
    ) -> None:
        """End the judging as failed unless `condition`; the newest trace shows how it came."""
        if not condition:
            self.fail(summary, hint, trace=trace)

    def fail(self, summary: str, hint: str = "", *, trace: Trace | None = None) -> NoReturn:
        """End the judging as failed."""
        shown = trace if trace is not None else self.trace
        self._end("failed", summary, hint, shown if shown is not None and len(shown) else None)

    def nothing_proved(self, summary: str, hint: str = "") -> NoReturn:
        """End the judging as "proved nothing": this run could not have shown the fault."""
        self._end("proved nothing", summary, hint, self.trace)

    def close(self) -> None:
        """Let go of the worlds."""
        for world in self.worlds:
            world.close()

    @property
    def _name(self) -> str:
        return self.exercise.function

    def _end(
        self,
        outcome: Outcome,
        summary: str,
        hint: str = "",
        trace: Trace | None = None,
        why: tuple[str, ...] = (),
    ) -> NoReturn:
        raise JudgingEnded(
            Verdict(outcome, summary, hint, _frozen(trace), exercise=self.exercise.id, why=why)
        )


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """Judge one answer, whatever it does; raises only KeyboardInterrupt.

    With CACHELAB_STRICT=1, for maintainers, an error in the judge itself is raised too.
    """
    complaint = signature_mismatch(exercise, answer)
    if complaint:
        return Verdict("failed", complaint, exercise=exercise.id)
    trial = Trial(exercise)
    try:
        verdict = _judged(exercise, answer, trial)
        limits = [limit for world in trial.worlds for limit in world.missed]
        if limits and verdict.outcome != "not attempted":  # what came of it is no fault of theirs
            verdict = Verdict("proved nothing", limits[0], counterexample=verdict.counterexample)
    finally:
        with contextlib.suppress(Exception):  # the answer may have broken what it was given
            trial.close()
    printed = "\n".join(trial.printed)
    lines = printed.splitlines()
    if len(lines) > 12:
        printed = "\n".join([*lines[:11], f"... and {len(lines) - 11} more lines"])
    return _with(verdict, exercise=exercise.id, printed=printed)


def _judged(exercise: Exercise, answer: Any, trial: Trial) -> Verdict:
    name = exercise.function
    try:
        with limited(CHECK_SECONDS - RESERVE / 2):
            result = exercise.judge(answer, trial)
    except JudgingEnded as ended:
        return ended.verdict
    except OutOfTime:
        return Verdict("failed", f"Judging {name} took longer than {_all_seconds():g} s.")
    except (Exception, SystemExit) as error:
        table = _missing_table(error)
        if table:
            return Verdict("failed", _gone(table), counterexample=_frozen(trial.trace))
        where = place_in(error.__traceback__, besides=inspect.getfile(exercise.judge))
        if where is not None:  # an `__eq__` of the learner's, or what they put in a cache
            return Verdict("failed", f"What {name} gave raised {say_error(error)} in {where}.")
        if os.environ.get("CACHELAB_STRICT") == "1":
            raise
        return Verdict(
            "proved nothing",
            f"The check of {exercise.id} itself failed ({say_error(error)}): please report it.",
        )
    if isinstance(result, Verdict):
        return result
    return Verdict("passed", result or f"{name} does what was asked.", schedules=trial.schedules)


def _with(verdict: Verdict, **changes: Any) -> Verdict:
    return Verdict(**{**vars(verdict), **changes})


def _frozen(trace: Trace | None) -> Trace | None:
    """A copy that no longer hangs on its world."""
    return (
        None if trace is None else Trace(clock=float, events=list(trace.events), exact=trace.exact)
    )


def _all_seconds() -> float:
    return CHECK_SECONDS - RESERVE


def _missing_table(error: BaseException | None) -> str | None:
    """The table of the shop that this error says is not there."""
    if not isinstance(error, (sa.exc.OperationalError, sqlite3.OperationalError)):
        return None
    found = re.search(r"no such table: (?:main\.)?(\w+)", str(error))
    return found[1] if found and found[1] in Base.metadata.tables else None


def _gone(table: str) -> str:
    return f"The database has no such table: {table}: the answer removed it."


# What kind of thing the answer is ------------------------------------------------------------


def finite(given: Any) -> float | None:
    """A finite number as a float, or None for anything else."""
    if isinstance(given, bool) or not isinstance(given, (int, float, Fraction, Decimal, np.number)):
        return None
    try:
        found = float(given)
    except (OverflowError, ValueError, TypeError):
        return None
    return found if math.isfinite(found) else None


@contextlib.contextmanager
def new_hash_seed(answer: Any) -> Iterator[None]:
    """As in a process of its own: `hash()` of a text, as the answer's code calls it, is another."""
    made = getattr(answer, "func", answer)  # a partial's
    theirs = getattr(made, "__globals__", None) or getattr(type(made).__call__, "__globals__", None)
    real = builtins.hash

    def seeded_anew(value: Any) -> int:
        # Who else runs meanwhile keeps its hashes, and a number has the same in every process.
        if sys._getframe(1).f_globals is theirs and not isinstance(value, (int, float)):
            return real((value, "another seed"))
        return real(value)

    with patch.object(builtins, "hash", seeded_anew):
        yield


def signature_mismatch(exercise: Exercise, answer: Any) -> str:
    """Why `answer` cannot be called as the exercise asks, in one sentence; "" if it can."""
    wanted = exercise.signature
    if not callable(answer):
        return f"A function {wanted} was expected, but this is {short(answer)}."
    if inspect.iscoroutinefunction(answer):
        return f"{exercise.function} is `async def`; a plain `def {wanted}` was expected."
    try:
        taken = inspect.signature(answer)
    except (TypeError, ValueError):
        return ""  # some callables of C do not tell; the call will
    for names in _ways_to_call(wanted):
        try:
            taken.bind(*names)
        except TypeError:
            found = f"({', '.join(taken.parameters)})"
            count = len(taken.parameters)
            said = f"takes {count} argument{'' if count == 1 else 's'} {found if count else ''}"
            return f"{exercise.function} {said.strip()}, but {wanted} was expected."
    return ""


def _ways_to_call(signature: str) -> list[list[str]]:
    """The names of the arguments: all of them, and only those without a default."""
    function = ast.parse(f"def {signature}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    required = names[: len(names) - len(function.args.defaults)]
    return [names] if names == required else [names, required]
