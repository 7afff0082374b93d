"""The search for flakes: it finds a test that depends on the order, and says in which run."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tools import flake

pytestmark = pytest.mark.slow

ORDER = """
import random
seen = []
def test_this_one_must_come_first():
    assert not seen
    seen.append(1)
def test_another():
    seen.append(2)
def test_dice():
    assert random.random() >= 0.0
"""


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(flake, "ROOT", tmp_path)
    monkeypatch.setattr(flake, "LOGS", tmp_path / "logs")
    return tmp_path / "logs"


def test_a_test_that_depends_on_the_order_is_found_with_its_seeds(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_order.py").write_text(ORDER)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    arguments = ["--runs", "3", "--workers", "0", "--busy", "1", str(tmp_path / "test_order.py")]
    assert flake.main(arguments) == 1
    said = capsys.readouterr().out
    assert "seed 1: " in said
    assert "seed 3: " in said
    assert "of 3 runs red: test_order.py::test_this_one_must_come_first (seeds [" in said
    assert said.endswith("Flakes: 1 in 3 runs.\n")
    assert len(list(logs.glob("*-units.log"))) == 3
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_green_runs_are_no_flakes_and_a_run_that_breaks_as_a_whole_is_one(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_good.py").write_text("def test_good(): pass")
    common = ["--runs", "1", "--workers", "0", "--busy", "0"]
    assert flake.main([*common, str(tmp_path / "test_good.py")]) == 0
    assert flake.main([*common, str(tmp_path / "test_gone.py")]) == 1
    assert "pytest ended with code 4, see logs/1-units.log" in capsys.readouterr().out


def books_of(command: list[str]) -> list[str]:
    (books,) = [word for word in command if word.startswith("BOOKS=")]
    return books.removeprefix("BOOKS=").split()


def test_the_notebooks_are_run_on_both_backends_each_once_in_an_order_of_the_seed() -> None:
    by_seed = []
    for seed in (1, 2):
        parts = dict(flake.commands(seed, 2, []))
        assert set(parts) == {"units", "live", "fake"}
        books = books_of(parts["live"])
        assert sorted(books) == sorted({*books})
        assert {Path(book).parent.name for book in books} == {"notebooks", "solutions"}
        assert books == books_of(parts["fake"])
        assert "test-notebooks-live" in parts["live"]
        assert "test-notebooks-fake" in parts["fake"]
        by_seed.append(books)
    assert by_seed[0] != by_seed[1]
