"""Chapters that a text names are links: to the file beside a notebook, to a page on the site."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.links import linked, unlinked

ROOT = Path(__file__).resolve().parents[1]
BOOKS = sorted(
    path for room in ("notebooks", "labs", "solutions") for path in (ROOT / room).glob("*.ipynb")
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
PIECES = st.sampled_from(
    ["`05_cache_aside`", "`labs/05_cache_aside.ipynb`", "`x`", "```\n", "[", "](a.md)", " ", "\n"]
)


def texts(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_link_of_a_notebook_leads_to_a_file(path: Path) -> None:
    targets = LINK.findall(texts(path))
    assert [each for each in targets if not (path.parent / each).is_file()] == []


def test_a_notebook_leads_to_its_lab_and_a_lab_to_the_next_notebook() -> None:
    names = [path.name for path in BOOKS if path.parent.name == "notebooks"]
    for name, after in zip(names, [*names[1:], None], strict=True):
        assert f"../labs/{name}" in LINK.findall(texts(ROOT / "notebooks" / name))
        if after:
            assert LINK.findall(texts(ROOT / "labs" / name))[-1] == f"../notebooks/{after}"


@given(st.lists(PIECES, max_size=8).map("".join))
def test_a_text_that_was_linked_can_be_had_back(text: str) -> None:
    made = linked(text, lambda room, stem: f"../{room}/{stem}.ipynb", plain=True)
    assert unlinked(made) == text
