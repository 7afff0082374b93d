"""The one form of all benchmarks: a row is a figure of ours beside another of the same run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COLUMNS = ("what", "ours", "beside", "theirs", "ratio", "target", "met")
SHORT_COLUMNS = ("what", "ours", "beside", "ratio", "target", "met")
BEGIN, END = "<!-- bench: written by make bench ARGS=--write -->", "<!-- /bench -->"
STATES = ("yes", "NO", "-", "not run", "FAILED")


@dataclass(frozen=True)
class Target:
    """What a row must keep to: `of` is "ours" or "ratio", `limit` in the row's unit."""

    limit: float
    of: str = "ratio"
    at_least: bool = False

    def is_met(self, found: float) -> bool:
        """Whether `found` is on the right side; exactly the limit is."""
        return found >= self.limit if self.at_least else found <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `ours` and `theirs` are in `unit` ("s" is shown as ms or µs where that reads better). The ratio
    is ours to theirs. `short` is what the line is called in the README; without, it is not there.
    `not_run` and `failed` are one sentence each, in place of the figures.
    """

    what: str
    ours: float | None = None
    unit: str = "s"
    beside: str = ""
    theirs: float | None = None
    target: Target | None = None
    short: str = ""
    not_run: str = ""
    failed: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours to theirs; None where one of them is missing."""
        if self.ours is None or not self.theirs:
            return None
        return self.ours / self.theirs

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.failed:
            return "FAILED"
        if self.not_run:
            return "not run"
        if self.target is None:
            return "-"
        found = self.ours if self.target.of == "ours" else self.ratio
        return "yes" if found is not None and self.target.is_met(found) else "NO"

    @property
    def is_wrong(self) -> bool:
        """Whether the run as a whole is to end with an error."""
        return self.state in ("FAILED", "NO")

    def cells(self) -> list[str]:
        """The texts under COLUMNS."""
        said = self.failed or self.not_run
        if said:
            return [f"{self.what}: {said}", "", "", "", "", "", self.state]
        theirs = "" if self.theirs is None else figure(self.theirs, self.unit)
        ours = "" if self.ours is None else figure(self.ours, self.unit)
        return [
            self.what,
            ours,
            self.beside,
            theirs,
            times(self.ratio),
            self._wanted(),
            self.state,
        ]

    def short_cells(self) -> list[str]:
        """The texts under SHORT_COLUMNS."""
        _, ours, beside, _, ratio, target, state = self.cells()
        said = self.failed or self.not_run
        return [f"{self.short}: {said}" if said else self.short, ours, beside, ratio, target, state]

    def _wanted(self) -> str:
        if self.target is None:
            return ""
        side = "at least" if self.target.at_least else "at most"
        if self.target.of == "ratio":
            return f"{side} {times(self.target.limit)}"
        return f"{side} {figure(self.target.limit, self.unit)}"


def three_digits(value: float) -> str:
    """A number to read: three digits, thousands marked."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    if abs(rounded) >= 100 or rounded == int(rounded):
        return f"{rounded:,.0f}"
    return f"{rounded:.{max(0, digits)}f}"


def figure(value: float, unit: str) -> str:
    """`value` with its unit; seconds as ms or µs where they are small."""
    if unit == "s" and 0 < value < 0.0995e-3:
        return f"{three_digits(1e6 * value)} µs"
    if unit == "s" and 0 < value < 0.0995:
        return f"{three_digits(1e3 * value)} ms"
    return f"{three_digits(value)} {unit}".rstrip()


def times(ratio: float | None) -> str:
    """A ratio: 1.28, 64, or 1/29."""
    if ratio is None or ratio <= 0:
        return ""
    return f"1/{three_digits(1 / ratio)}" if ratio < 0.5 else three_digits(ratio)


def markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows
    )


def text(lines: Iterable[Sequence[str]]) -> str:
    """The same for a terminal: one block of lines, columns aligned."""
    rows = [COLUMNS, *lines]
    full = [row for row in rows if any(row[1:-1])]
    widths = [max(len(row[at]) for row in full) for at in range(len(COLUMNS))]
    shown = []
    for row in rows:
        if any(row[1:-1]):
            row = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        else:
            row = [row[0], row[-1]]
        shown.append("  " + "  ".join(row).rstrip())
    return "\n".join(shown)


def replaced(whole: str, table: str) -> str | None:
    """`whole` with `table` between BEGIN and END; None where it has no such place."""
    head, begin, rest = whole.partition(BEGIN)
    _, end, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}" if begin and end else None


def between(whole: str) -> str:
    """What stands between BEGIN and END; "" where there is no such place."""
    return whole.partition(BEGIN)[2].partition(END)[0].strip("\n")
