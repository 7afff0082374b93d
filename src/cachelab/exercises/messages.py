"""The template of a verdict's message: the checks' own words, with … for all that is not theirs."""

from __future__ import annotations

import builtins
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from importlib.abc import InspectLoader
from importlib.util import find_spec
from types import CodeType, ModuleType

from cachelab import judge, process, stage
from cachelab.exercises import find
from cachelab.record.verdict import Verdict

LEAST_LETTERS = 3
GAP = "…"


def message_template(verdict: Verdict) -> str:
    """The verdict's sentence with … for all that does not stand in the checks' own code.

    So values, lines of code, names and error texts of the learner are not in it, and the same
    mistake has the same template whatever its numbers. Raises UnknownExercise for a verdict on an
    exercise that is none.
    """
    exercise, summary = find(verdict.exercise), verdict.summary
    ours = {exercise.function, exercise.signature, *_ERRORS, *_phrases(exercise.lab)}
    # Of thousands of phrases a few are in this sentence: a small pattern of those, longest first.
    here = sorted((phrase for phrase in ours if phrase in summary), key=len, reverse=True)
    pattern = "|".join(map(_whole, here)) or r"(?!)"
    kept, at = [], 0
    for found in re.finditer(pattern, summary):
        kept += [_gap(summary[at : found.start()]), found.group()]
        at = found.end()
    return " ".join("".join([*kept, _gap(summary[at:])]).split())


def _gap(text: str) -> str:
    """What stands for a text that is not ours: itself, if it says nothing."""
    return f" {GAP} " if any(map(str.isalnum, text)) else text[:3]


@cache
def _phrases(lab: str) -> frozenset[str]:
    """The texts in the code that makes the verdicts of a lab, cut where a value is filled in.

    A single word is left out: it is a key or an option, hardly a sentence.
    """
    modules = [f"{__package__}.lab_{lab}", *_modules(judge), *_modules(process), *_modules(stage)]
    texts = (text for name in modules for text in _texts(_code(name)) if " " in text)
    return frozenset(
        " ".join(text.split()) for text in texts if sum(map(str.isalpha, text)) >= LEAST_LETTERS
    )


def _modules(room: ModuleType) -> list[str]:
    return [f"{room.__name__}.{module.name}" for module in pkgutil.iter_modules(room.__path__)]


def _code(module: str) -> CodeType | None:
    spec = find_spec(module)
    loader = spec.loader if spec else None
    return loader.get_code(module) if isinstance(loader, InspectLoader) else None


def _texts(constant: object) -> Iterator[str]:
    """The texts among the constants of compiled code: those of an f-string one by one."""
    if isinstance(constant, str):
        yield constant
    elif isinstance(constant, CodeType | tuple | frozenset):
        for one in constant.co_consts if isinstance(constant, CodeType) else constant:
            yield from _texts(one)


def _whole(phrase: str) -> str:
    """A phrase as a pattern that matches no part of a word."""
    before = r"(?<!\w)" if phrase[0].isalnum() else ""
    after = r"(?!\w)" if phrase[-1].isalnum() else ""
    return f"{before}{re.escape(phrase)}{after}"


_ERRORS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
