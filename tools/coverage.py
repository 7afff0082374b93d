"""Whether `content/COVERAGE.md` keeps its word: each row leads to a cell that ran and shows it."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tools.notebook import loads
from tools.numbers import numbers_in

TABLE = "content/COVERAGE.md"
COLUMNS = ["the idea", "where", "verdict"]
PLACE = re.compile(r"`((?:solutions/)?\d\d_[a-z_]+)` · `([^`]+)`")
VERDICT = re.compile(r"(confirmed: |refined: |wrong, because )(\S.*\S)\.")
ANYWHERE = {1.0}  # "one" is hardly ever a count
COUNTS = re.compile(r"^\d+ ideas: \d+ confirmed, \d+ refined, \d+ wrong\.$", re.MULTILINE)

Cells = tuple[dict[str, Any], ...]


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


def counted(text: str) -> str:
    """The page with the counts of its rows in the line above the tables, if it can be read."""
    try:
        rows = read_rows(text)
    except ValueError:
        return text
    count = Counter(re.split("[:,]", row.verdict)[0] for row in rows)
    kinds = ", ".join(f"{count[kind]} {kind}" for kind in ("confirmed", "refined", "wrong"))
    return COUNTS.sub(f"{len(rows)} ideas: {kinds}.", text, count=1)


def cells_of(root: Path, stem: str) -> Cells:
    """The cells of a built notebook, or of a solution; none if there is none that can be read."""
    path = root / (stem if stem.startswith("solutions/") else f"notebooks/{stem}")
    try:
        return _cells(path.with_suffix(".ipynb").read_text("utf-8"))
    except (OSError, ValueError):
        return ()


@cache
def _cells(text: str) -> Cells:
    return tuple(loads(text).cells)


def source_of(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def is_code(cell: dict[str, Any]) -> bool:
    """Whether a cell is run."""
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


def _numbers(text: str) -> set[float]:
    return {value for value, _, _ in numbers_in(text)}


def faults(row: Row, cells: Cells) -> Iterator[str]:
    """What is wrong with a row, each in one sentence; `cells` are those of its notebook."""
    verdict, place = VERDICT.fullmatch(row.verdict), PLACE.fullmatch(row.where)
    if verdict is None:
        yield f"line {row.line}: not a verdict: {row.verdict}"
    if place is None:
        yield f"line {row.line}: not a chapter and a snippet: {row.where}"
        return
    stem, snippet = place.groups()
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
    if verdict and (unseen := _numbers(verdict[2]) - _numbers(beside) - ANYWHERE):
        yield f"line {row.line}: {sorted(unseen)} not in the cell, nor beside it: {snippet}"
