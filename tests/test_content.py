"""How a notebook reads: its skeleton, its headings, its size, and words beside every picture."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "content" / "notebooks").glob("*.py"))
LABS = sorted((ROOT / "content" / "labs").glob("*.py"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
BUILT = [*sorted((ROOT / "notebooks").glob("*.ipynb")), *SOLUTIONS]
pytestmark = pytest.mark.edit("content/{room}/{stem}.py")


def stem(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def cells(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == kind]


def headings(text: str) -> list[tuple[int, str]]:
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [
        (len(mark), title) for mark, title in re.findall(r"^(#+) +(.+)$", outside, re.MULTILINE)
    ]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *LABS], ids=stem)
def test_headings_begin_with_the_only_h1_and_skip_no_level(path: Path) -> None:
    levels = [level for text in cells(path, "markdown") for level, _ in headings(text)]
    assert levels[0] == 1
    assert levels.count(1) == 1, "there is more than one heading of level 1"
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels)), levels


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_a_notebook_says_its_minutes_what_you_do_learn_and_need_and_ends_in_a_recap(
    path: Path,
) -> None:
    texts = cells(path, "markdown")
    for promised in (r"\*\*About \d+ minutes", "What you'll do", "What you'll learn", "need"):
        assert re.search(promised, texts[0]), promised
    titles = [title for text in texts for _, title in headings(text)]
    assert titles[-1] == "Recap"
    assert f"labs/{path.stem}.ipynb" in texts[-1]


@pytest.mark.parametrize("path", LABS, ids=stem)
def test_a_lab_says_its_minutes_and_what_you_need_and_ends_in_a_recap(path: Path) -> None:
    texts = cells(path, "markdown")
    assert re.search(r"\*\*About \d+ minutes", texts[0])
    titles = [title for text in texts for _, title in headings(text)]
    assert titles[-1] == "Recap"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_a_notebook_is_a_half_hour_and_not_a_book(path: Path) -> None:
    words = sum(len(text.split()) for text in cells(path, "markdown"))
    assert 900 <= words <= 2_000, f"{words} words"
    count = len(jupytext.read(path).cells)
    assert 20 <= count <= 65, f"{count} cells"


@pytest.mark.parametrize("path", BUILT, ids=stem)
def test_every_picture_has_words_in_its_output_and_in_the_text_beside_it(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" not in data and "text/vnd.mermaid" not in data:
                continue
            said = data.get("text/plain", "")
            assert len(said.split()) >= 5, f"cell {number} shows a picture that says {said!r}"
            beside = notebook.cells[max(0, number - 1) : number + 2]
            assert any(other.cell_type == "markdown" for other in beside), f"cell {number}"


@pytest.mark.parametrize("path", SOLUTIONS, ids=stem)
def test_every_check_of_a_stored_solution_says_passed(path: Path) -> None:
    asked, said = [], []
    for cell in nbformat.read(path, as_version=4).cells:
        asked += re.findall(r'cachelab\.check\("([\w.]+)"', cell.source)
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/plain", "")
            said += re.findall(r"^✓ passed: ([\w.]+)$", text, re.MULTILINE)
    assert asked, "no cell checks anything"
    assert said == asked


@pytest.mark.parametrize("path", [*NOTEBOOKS, *LABS], ids=stem)
def test_what_the_text_links_to_by_slug_is_written_as_one(path: Path) -> None:
    known = {one.stem for one in NOTEBOOKS}
    for text in cells(path, "markdown"):
        for slug in re.findall(
            r"`(?:notebooks/|labs/|solutions/)?(\d\d_[a-z_]+)(?:\.ipynb)?`", text
        ):
            assert slug in known, slug
