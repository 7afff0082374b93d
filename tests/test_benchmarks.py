"""Every benchmark yields rows of one form, and what is written about them is what they wrote."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import NAMES, __main__, table
from benchmarks.table import COLUMNS, SHORT_COLUMNS, STATES, Row, Target

ROOT = Path(__file__).resolve().parents[1]
# Those of the others that need minutes, a browser or all of a notebook are run by make bench only.
CHEAP = ("models", "growth", "stage")


def tables(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """The tables of a Markdown text, each with the heading above it."""
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        yield part.splitlines()[0], [line.strip("| ").split(" | ") for line in lines]


def written() -> str:
    return (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")


# The benchmarks


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_has_a_title_a_budget_and_rows(name: str) -> None:
    module = importlib.import_module(f"benchmarks.bench_{name}")
    assert module.TITLE
    assert module.BUDGET > 0
    assert callable(module.rows)


def test_the_budgets_together_keep_to_ten_minutes() -> None:
    budgets = [importlib.import_module(f"benchmarks.bench_{name}").BUDGET for name in NAMES]
    assert sum(budgets) <= 600


@pytest.mark.parametrize("name", CHEAP)
def test_a_benchmark_yields_figures_beside_others_in_a_tiny_size(name: str) -> None:
    rows = list(importlib.import_module(f"benchmarks.bench_{name}").rows(tiny=True))
    assert rows
    assert not [row for row in rows if row.failed]
    assert any(row.ratio for row in rows)
    for row in rows:
        assert len(row.cells()) == len(COLUMNS)
        assert __main__.row_from(json.dumps(asdict(row))) == row


# The runner


def lost(code: str, limit: float = 60.0) -> __main__.Measured:
    """What becomes of a benchmark whose process runs `code` after its first row."""
    row = json.dumps(asdict(Row("first", 1.0, theirs=2.0)))
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        return real([sys.executable, "-c", f"print({row!r}, flush=True)\n{code}"], **options)

    patched = SimpleNamespace(**{**vars(subprocess), "Popen": popen})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(__main__, "subprocess", patched)
        return __main__.measure("models", limit=limit)


def test_a_benchmark_that_breaks_is_a_row_with_its_reason_and_keeps_the_rows_before() -> None:
    one = lost("raise OSError('no such thing')")
    assert [row.state for row in one.rows] == ["-", "FAILED"]
    assert "OSError: no such thing" in one.rows[1].failed


def test_a_benchmark_that_hangs_is_ended_and_is_a_row() -> None:
    one = lost("import time; time.sleep(60)", limit=5)
    assert [row.state for row in one.rows] == ["-", "FAILED"]
    assert one.rows[1].failed == "it was ended after 5 s"


def test_only_a_failure_or_a_missed_target_ends_the_run_with_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {
        "start": [Row("kept", 1.0, theirs=1.0, target=Target(1.3))],
        "stage": [Row("missed", 2.0, theirs=1.0, target=Target(1.3))],
        "models": [Row("absent", not_run="there is no browser")],
        "growth": [Row("broken", failed="it broke")],
    }
    found = {name: __main__.Measured(name, name, some, 1.0) for name, some in rows.items()}
    monkeypatch.setattr(__main__, "measure", lambda name, tiny: found[name])
    monkeypatch.setattr(__main__, "machine", lambda: ["a machine"])
    assert __main__.main(["start", "models"]) == 0
    assert __main__.main(["stage", "start"]) == 1
    assert __main__.main(["growth"]) == 1
    assert "broken: it broke" in capsys.readouterr().out


def test_part_of_a_run_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["--write", "stage"])
    assert "--write keeps one whole run" in capsys.readouterr().err


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["stge"])
    assert "there is no benchmark 'stge'" in capsys.readouterr().err


def test_a_benchmark_is_not_sent_to_somebody_elses_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in __main__.ELSEWHERE:
        monkeypatch.setenv(name, "redis://somewhere-else:6379")
    told = lost(
        "import os, sys; sys.exit(', '.join(n for n in os.environ if n in "
        f"{__main__.ELSEWHERE!r}) or None)"
    )
    assert [row.state for row in told.rows] == ["-"]


# The table


def test_a_target_is_met_up_to_its_limit_and_not_beyond() -> None:
    assert [Row("", x, theirs=1.0, target=Target(1.3)).state for x in (1.3, 1.31)] == ["yes", "NO"]
    rate = Target(1_000, "ours", at_least=True)
    assert [Row("", x, "a second", target=rate).state for x in (1_000, 999)] == ["yes", "NO"]


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.00000321, "s", "3.21 µs"),
        (0.0123, "s", "12.3 ms"),
        (0.25, "s", "0.250 s"),
        (61.0, "s", "61 s"),
        (1234.5, "a second", "1,230 a second"),
        (12.34, "MB", "12.3 MB"),
    ],
)
def test_a_figure_has_three_digits_and_a_unit(value: float, unit: str, said: str) -> None:
    assert table.figure(value, unit) == said


@pytest.mark.parametrize(("ratio", "said"), [(1.284, "1.28"), (64.2, "64.2"), (1 / 29, "1/29")])
def test_a_ratio_below_a_half_is_written_as_a_share(ratio: float, said: str) -> None:
    assert table.times(ratio) == said


# What is written


def test_results_hold_every_benchmark_in_the_form_that_the_code_writes() -> None:
    found = dict(tables(written()))
    titles = [importlib.import_module(f"benchmarks.bench_{name}").TITLE for name in NAMES]
    assert list(found) == ["In short", *titles]
    for title, (head, rule, *rows) in found.items():
        columns = SHORT_COLUMNS if title == "In short" else COLUMNS
        assert head == list(columns), title
        assert set("".join(rule)) == {"-"}
        assert rows, title
        assert all(len(row) == len(columns) and row[-1] in STATES for row in rows), title


def value(cell: str) -> float:
    """The number in a cell, in the unit's base."""
    number, _, unit = cell.partition(" ")
    return float(number.replace(",", "")) * {"ms": 1e-3, "µs": 1e-6}.get(unit, 1)


def test_no_ratio_of_the_results_was_changed_by_hand() -> None:
    checked = 0
    for title, (_, _, *rows) in tables(written()):
        for row in rows if title != "In short" else []:
            if row[4]:
                over, _, under = row[4].partition("/")
                told = value(over) / value(under or "1")
                assert told == pytest.approx(value(row[1]) / value(row[3]), rel=0.02), row
                checked += 1
    assert checked > 20


def test_the_short_table_of_the_readme_is_that_of_the_results() -> None:
    short = re.findall(r"## In short\n\n(.*?)\n\n## ", written(), re.S)[0]
    assert table.between((ROOT / "README.md").read_text("utf-8")) == short


def test_results_tell_of_no_host_and_no_path() -> None:
    assert not re.search(r"/(home|work|root|tmp|Users|opt)/|https?://", written())


def test_what_is_written_anew_replaces_only_the_short_table(tmp_path: Path) -> None:
    before = f"# A title\n\n{table.BEGIN}\nold\n{table.END}\n\nthe rest\n"
    row = Row("a", 1.0, theirs=2.0, short="a in short")
    one = [__main__.Measured("stage", "The stage", [row], 1.0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(__main__, "ROOT", tmp_path)
        patch.setattr(__main__, "RESULTS", tmp_path / "RESULTS.md")
        patch.setattr(__main__, "README", tmp_path / "README.md")
        (tmp_path / "README.md").write_text(before, "utf-8")
        __main__.write(one, "A machine.", datetime(2026, 1, 1, tzinfo=UTC), 1.0)
    after = (tmp_path / "README.md").read_text("utf-8")
    assert after.startswith(f"# A title\n\n{table.BEGIN}\n| what |")
    assert after.endswith(f"{table.END}\n\nthe rest\n")
    assert "| a in short | 1 s |" in table.between(after)
    assert table.between(after) in (tmp_path / "RESULTS.md").read_text("utf-8")


# What was mended because a target was missed


def test_importing_cachelab_brings_no_library_of_others() -> None:
    code = (
        "import sys; before = set(sys.modules); import cachelab\n"
        "heavy = {'redis', 'sqlalchemy', 'numpy', 'matplotlib', 'fakeredis', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules) - before))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_starting_a_lab_imports_neither_pictures_nor_fakeredis_nor_sliders() -> None:
    code = (
        "import sys; from cachelab import start\n"
        "heavy = {'numpy', 'matplotlib', 'fakeredis', 'lupa', 'ipywidgets', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
