"""The ten cases of lab 14: the table that a learner reads, the figures that judge, the review."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cachelab.exercises import check
from cachelab.exercises.lab_14_when_not_to_cache import CASES, review

LAB = Path(__file__).resolve().parents[1] / "content/labs/14_when_not_to_cache.py"
PER_YEAR = 365 * 86_400
SECONDS = {"ms": 0.001, "s": 1, "h": 3_600, "day": 86_400}


def written() -> dict[str, list[str]]:
    """The lab's table: a case's name to its other cells."""
    rows = re.findall(r"^# \| `([^`]+)` \| (.+) \|$", LAB.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in rows}


def number(cell: str) -> float | None:
    """'2,000' -> 2000, '4 ms' -> 0.004, '30 a year' -> 30 / a year, 'nobody knows' -> None."""
    if cell == "nobody knows":
        return None
    found, _, unit = cell.replace(",", "").partition(" ")
    return float(found) * (1 / PER_YEAR if unit == "a year" else SECONDS.get(unit, 1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_in_the_lab_has_the_figures_that_the_check_judges_by(case):
    figures = (case.keys, case.reads, case.writes, case.query, case.budget)
    figures += (case.sources, case.read, case.shown)
    shown = [number(cell) for cell in written()[case.name][1:]]
    assert shown == [None if one is None else pytest.approx(one, rel=0.1) for one in figures]


def test_the_model_answers_pass_their_own_check():
    verdict = check("14_when_not_to_cache.cases", lambda: {one.name: one.model for one in CASES})
    assert verdict.outcome == "passed", verdict


def test_the_model_answer_is_shown_only_where_a_reason_was_written():
    yours = {
        "refund": ("no cache", "security", "my own words here"),
        "export": ("cache", "none", " "),
    }
    shown = repr(review(lambda: yours))
    assert "my own words here" in shown
    assert {one.name for one in CASES if one.model[2] in shown} == {"refund"}


def test_a_review_of_the_untouched_stub_or_of_nonsense_shows_no_model_answer():
    def stub():
        raise NotImplementedError

    for judged in (stub, lambda: None, lambda: {"refund": "no"}):
        assert not any(one.model[2] in repr(review(judged)) for one in CASES)
