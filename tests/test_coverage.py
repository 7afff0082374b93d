"""Whether `content/COVERAGE.md` keeps its word: each row leads to a cell that ran and shows it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "content" / "COVERAGE.md"
COLUMNS = ["the idea", "where", "verdict"]
PLACE = re.compile(r"`((?:solutions/)?\d\d_[a-z_]+)` · `([^`]+)`")
VERDICT = re.compile(r"(confirmed: |refined: |wrong, because )(\S.*\S)\.")
NUMBER = re.compile(r"\d[\d,_]*(?:\.\d+)?")
CHAPTERS = {f"{number:02}" for number in range(16)}


class Row(NamedTuple):
    """A row of the table, and the line of the file that it stands on."""

    line: int
    idea: str
    where: str
    verdict: str


def read_rows(text: str) -> list[Row]:
    """The rows of all tables; ValueError for a line that is not a row of three cells."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3 or not all(cells):
            raise ValueError(f"line {number}: three cells expected, seen: {line}")
        if cells != COLUMNS and set("".join(cells)) != {"-"}:
            rows.append(Row(number, *cells))
    return rows


@cache
def cells_of(stem: str) -> tuple[dict[str, Any], ...]:
    """The cells of a built notebook, or of a solution; none if it is not there."""
    path = ROOT / (stem if stem.startswith("solutions/") else f"notebooks/{stem}")
    path = path.with_suffix(".ipynb")
    return tuple(json.loads(path.read_text())["cells"]) if path.exists() else ()


def source_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def is_code(cell: dict[str, Any]) -> bool:
    return bool(cell["cell_type"] == "code")


def ran(cell: dict[str, Any]) -> bool:
    """Whether this code cell was run to its end, and has something to show."""
    kinds = [output["output_type"] for output in cell["outputs"]]
    return cell["execution_count"] is not None and bool(kinds) and "error" not in kinds


def words_of(cell: dict[str, Any]) -> str:
    """What stands in a cell: its source, and its outputs as text."""
    texts = [source_of(cell)]
    for output in cell.get("outputs", []):
        texts.append("".join(output.get("text", "")))
        texts.append("".join(output.get("data", {}).get("text/plain", "")))
    return "\n".join(texts)


def numbers_in(text: str) -> set[float]:
    return {float(re.sub("[,_]", "", found)) for found in NUMBER.findall(text)}


def faults(row: Row, cells: tuple[dict[str, Any], ...] | None = None) -> Iterator[str]:
    """What is wrong with a row, each in one sentence; `cells` are its notebook's, unless given."""
    verdict, place = VERDICT.fullmatch(row.verdict), PLACE.fullmatch(row.where)
    if verdict is None:
        yield f"line {row.line}: not a verdict: {row.verdict}"
    if place is None:
        yield f"line {row.line}: not a chapter and a snippet: {row.where}"
        return
    stem, snippet = place.groups()
    cells = cells_of(stem) if cells is None else cells
    found = [n for n, cell in enumerate(cells) if is_code(cell) and snippet in source_of(cell)]
    times = sum(source_of(cells[n]).count(snippet) for n in found)
    if times != 1:
        yield f"line {row.line}: {times} times in the code of {stem}, not once: {snippet}"
        return
    here = found[0]
    after = next((n for n in range(here + 1, len(cells)) if is_code(cells[n])), here)
    shown = here if cells[here]["outputs"] else after
    if cells[here]["execution_count"] is None or not ran(cells[shown]):
        yield f"line {row.line}: not run, or without an output: {snippet}"
    beside = "\n".join(map(words_of, cells[max(0, here - 1) : shown + 2]))
    if verdict and (unseen := numbers_in(verdict[2]) - numbers_in(beside)):
        yield f"line {row.line}: {sorted(unseen)} not in the cell, nor beside it: {snippet}"


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
    rows = rows_of_the_table()
    count = Counter(re.split("[:,]", row.verdict)[0] for row in rows)
    said = f"{len(rows)} ideas: {count['confirmed']} confirmed, {count['refined']} refined, "
    assert f"{said}{count['wrong']} wrong." in TABLE.read_text()


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
