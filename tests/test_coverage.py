"""Whether `content/COVERAGE.md` keeps its word: each row leads to a cell that ran and shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import coverage
from tools.coverage import PLACE, Row, cells_of, counted, read_rows

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / coverage.TABLE
CHAPTERS = {f"{number:02}" for number in range(16)}


def faults(row: Row, cells: tuple[dict[str, Any], ...] | None = None) -> Iterator[str]:
    """What is wrong with a row; `cells` are its notebook's, unless given."""
    place = PLACE.fullmatch(row.where)
    built = cells_of(ROOT, place[1]) if place else ()
    return coverage.faults(row, built if cells is None else cells)


def rows_of_the_table() -> list[Row]:
    return read_rows(TABLE.read_text())


def test_each_row_has_a_verdict_and_leads_to_one_cell_that_ran_and_shows_its_numbers() -> None:
    assert [fault for row in rows_of_the_table() for fault in faults(row)] == []


def test_no_idea_no_place_and_no_verdict_stands_there_twice() -> None:
    rows = rows_of_the_table()
    for column in ("idea", "where", "verdict"):
        count = Counter(getattr(row, column).casefold() for row in rows)
        assert [text for text, times in count.items() if times > 1] == []


def test_every_chapter_to_15_has_a_row() -> None:
    stems = {place[1] for row in rows_of_the_table() if (place := PLACE.fullmatch(row.where))}
    assert {stem.removeprefix("solutions/")[:2] for stem in stems} == CHAPTERS


def test_the_counts_above_the_tables_are_those_of_the_rows() -> None:
    text = TABLE.read_text()
    assert counted(text) == text
    assert counted(text.replace("| confirmed: ", "| refined: ", 1)) != text


def test_a_snippet_that_no_longer_stands_in_its_cell_is_found_out() -> None:
    for row in rows_of_the_table():
        changed = row._replace(where=row.where[:-1] + "~`")
        assert any("0 times" in fault for fault in faults(changed)), row.where


def test_a_row_that_pretends_is_found_out() -> None:
    row = next(row for row in rows_of_the_table() if row.verdict.startswith("confirmed"))
    pretended = {
        "a verdict of another kind": row._replace(verdict="true: it is so."),
        "a verdict without a sentence": row._replace(verdict="confirmed"),
        "a number that no cell shows": row._replace(verdict="confirmed: 98,765.4 hits."),
        "a number in words": row._replace(verdict="confirmed: ninety-seven thousand hits."),
        "a chapter that does not exist": row._replace(where="`99_nothing` · `print(`"),
        "a snippet that is everywhere": row._replace(where="`10_stampede` · `print(`"),
    }
    assert [name for name, one in pretended.items() if not list(faults(one))] == []


def test_a_cell_that_did_not_run_or_failed_is_found_out() -> None:
    failed = {"output_type": "error", "ename": "ValueError"}
    shown = {"output_type": "stream", "text": "100"}

    def cell(count: int | None, *outputs: dict[str, str]) -> dict[str, Any]:
        source = "print(hits)"
        code = {"cell_type": "code", "source": source, "execution_count": count}
        return code | {"outputs": list(outputs)}

    row = Row(1, "an idea", "`00_start_here` · `print(hits)`", "confirmed: 100 hits.")
    after = cell(2, shown) | {"source": "hits"}
    assert list(faults(row, (cell(1, shown),))) == []
    assert list(faults(row, (cell(1), after))) == []
    for cells in [(cell(None, shown),), (cell(1),), (cell(1, failed),), (cell(None), after)]:
        assert any("not run" in fault for fault in faults(row, cells)), cells
