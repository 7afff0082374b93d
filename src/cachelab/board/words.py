"""What of a verdict's sentence may leave the learner's machine: the check's own words only."""

from __future__ import annotations

import ast
import builtins
import re
from functools import cache
from pathlib import Path

from cachelab.board.stream import LONGEST_MESSAGE

PACKAGE = Path(__file__).resolve().parents[1]
LEAST_LETTERS = 3
GAP = "…"


def message(lab: str, function: str, summary: str) -> str:
    """The sentence of a verdict with … for all that does not stand in the checks' own sources.

    So values, lines of code, names and error texts of the learner stay where they are, and the
    same mistake gives the same message whatever its numbers.
    """
    kept, at = [], 0
    # Of thousands of pieces a few are in this sentence: a small pattern of those, longest first.
    here = [piece for piece in (function, *_ERRORS, *_own(lab)) if piece in summary]
    pattern = "|".join(map(_whole, sorted(here, key=len, reverse=True))) or r"(?!)"
    for found in re.finditer(pattern, summary):
        kept += [_gap(summary[at : found.start()]), found.group()]
        at = found.end()
    text = " ".join("".join([*kept, _gap(summary[at:])]).split())
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + GAP


def _gap(text: str) -> str:
    """What stands for a text that is not ours: itself, if it says nothing."""
    return f" {GAP} " if any(map(str.isalnum, text)) else text[:3]


@cache
def _own(lab: str) -> frozenset[str]:
    files = [
        PACKAGE / "exercises" / f"lab_{lab}.py",
        *(PACKAGE / "judge" / name for name in ("trial.py", "world.py")),
        PACKAGE / "process" / "limits.py",
        *sorted((PACKAGE / "stage").glob("*.py")),
    ]
    # A lab that a team keeps elsewhere has no such file: its sentences become gaps.
    return frozenset().union(*(_pieces(file) for file in files if file.is_file()))


@cache
def _pieces(file: Path) -> set[str]:
    """The texts written in a source, f-strings cut at their holes, too short ones left out."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        else:
            # A single word is a key or an option, hardly a sentence.
            value = node.value if isinstance(node, ast.Constant) else ""
            parts = [value] if isinstance(value, str) and " " in value else []
        for part in parts:
            piece = " ".join(str(part).split())
            if sum(map(str.isalpha, piece)) >= LEAST_LETTERS and len(piece) <= LONGEST_MESSAGE:
                found.add(piece)
    return found


def _whole(piece: str) -> str:
    """A piece as a pattern that matches no part of a word."""
    before = r"(?<!\w)" if piece[0].isalnum() else ""
    after = r"(?!\w)" if piece[-1].isalnum() else ""
    return f"{before}{re.escape(piece)}{after}"


_ERRORS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
