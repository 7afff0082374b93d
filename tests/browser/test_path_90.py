"""The ninety minutes of workshop/paths, walked in JupyterLab: sections run, checks passed."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT, Jupyter
from playwright.sync_api import Locator, Page, expect
from test_lab_in_jupyterlab import code_cell, replace_code, verdict, wait_for_the_kernel

PATH = tomllib.loads((ROOT / "workshop" / "paths" / "90-minutes.toml").read_text("utf-8"))
OPEN = ".jp-NotebookPanel:visible"
PROMPT = {"x": 40, "y": 12}  # of a cell: beside its text, where a click selects and edits nothing
ERRORS = f'{OPEN} .jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]'
# The prompts of the code cells with these numbers among all cells: "[ ]:", "[*]:" or "[7]:".
PROMPTS = """([panel, from, to]) =>
    [...[...document.querySelectorAll(panel)].find(one => one.offsetParent !== null)
        .querySelectorAll(".jp-Cell")].slice(from, to)
    .filter(cell => cell.classList.contains("jp-CodeCell"))
    .map(cell => cell.querySelector(".jp-InputArea-prompt").textContent.trim())"""


def cells_of(room: str, stem: str) -> list[Any]:
    return list(nbformat.read(ROOT / room / f"{stem}.ipynb", as_version=4).cells)


def span(stem: str, sections: list[str]) -> tuple[int, int]:
    """The cell in which the first of the sections begins, and the one in which the next begins."""
    headings = [
        (number, line.removeprefix("## "))
        for number, cell in enumerate(cells_of("notebooks", stem))
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    names = [name for _, name in headings]
    first, last = names.index(sections[0]), names.index(sections[-1])
    return headings[first][0], headings[last + 1][0]


def cell(page: Page, number: int) -> Locator:
    return page.locator(f"{OPEN} .jp-Cell").nth(number)


def prompts(page: Page, start: int, end: int) -> list[str]:
    found: list[str] = page.evaluate(PROMPTS, [".jp-NotebookPanel", start, end])
    return found


def choose(page: Page, menu: str, item: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=item, exact=True).click()


def run_cells(page: Page, start: int, end: int) -> None:
    """Select the cells from `start` up to `end` and run them, as an instructor does; all must end.

    Again, if JupyterLab, still starting, let the keys pass unheard.
    """
    for _ in range(6):
        cell(page, start).click(position=PROMPT)
        cell(page, end - 1).click(position=PROMPT, modifiers=["Shift"])
        expect(page.locator(f"{OPEN} .jp-Cell.jp-mod-selected")).to_have_count(end - start)
        page.keyboard.press("Control+Enter")
        with contextlib.suppress(TimeoutError):
            wait_for_prompts(page, start, end, begun=True, seconds=5)
            break
    wait_for_prompts(page, start, end, begun=False, seconds=90)
    expect(page.locator(ERRORS)).to_have_count(0)


def wait_for_prompts(page: Page, start: int, end: int, *, begun: bool, seconds: int) -> None:
    """Until none of the cells waits to be run (`begun`: until the first of them does not)."""
    for _ in range(seconds * 5):
        shown = prompts(page, start, end)
        if begun and shown[0] != "[ ]:":
            return
        if not begun and all(one.strip("[]:").isdigit() for one in shown):
            return
        page.wait_for_timeout(200)
    raise TimeoutError(f"after {seconds} s the cells {start} to {end} show {shown}")


class Walk:
    """Goes from step to step; a notebook that was shown before is run on in its own kernel."""

    def __init__(self, page: Page, jupyter: Jupyter) -> None:
        self.page, self.jupyter = page, jupyter
        self.ran: set[str] = set()

    def open(self, path: str) -> None:
        """One notebook alone, with the kernel that it has."""
        self.page.goto(f"{self.jupyter.address(path)}&reset")
        expect(self.page.locator(f"{OPEN} .jp-Cell").first).to_be_visible()
        wait_for_the_kernel(self.page)

    def show(self, stem: str, sections: list[str]) -> None:
        """Run the sections of a notebook, and before them what they need."""
        start, end = span(stem, sections)
        self.open(f"notebooks/{stem}.ipynb")
        choose(self.page, "Edit", "Clear Outputs of All Cells")  # so that what is seen is today's
        if stem not in self.ran:
            start = 1  # after the title
        run_cells(self.page, start, end)
        self.ran.add(stem)

    def solve(self, exercise: str) -> Locator:
        """Write the solution into the lab's cell, run the lab, and give the verdict's panel."""
        stem = exercise.partition(".")[0]
        self.open(f"labs/{stem}.ipynb")
        (solution,) = [
            one.source
            for one in cells_of("solutions", stem)
            if one.metadata.get("exercise") == exercise
        ]
        name = solution.partition("(")[0]  # "def read_user"
        replace_code(self.page, code_cell(self.page, f"{name}("), solution)
        panel = verdict(self.page, exercise)
        for _ in range(6):
            choose(self.page, "Run", "Run All Cells")
            with contextlib.suppress(AssertionError):
                expect(panel).to_be_visible(timeout=10_000)
                break
        expect(panel).to_contain_text("passed")
        panel.scroll_into_view_if_needed()
        return panel


@pytest.mark.timeout(600)
def test_the_ninety_minutes_can_be_walked_and_every_check_on_the_way_passes(
    page: Page, jupyter: Jupyter, shots: Path
) -> None:
    walk = Walk(page, jupyter)
    passed = []
    for number, step in enumerate(PATH["steps"], 1):
        if "notebook" in step:
            walk.show(step["notebook"], step["sections"])
        elif "exercise" in step:
            panel = walk.solve(step["exercise"])
            expect(panel).to_contain_text(step["exercise"])
            passed.append(step["exercise"])
        else:
            continue
        page.screenshot(path=shots / f"path_90_{number:02}.png")
    assert passed == [step["exercise"] for step in PATH["steps"] if "exercise" in step]
    assert len(passed) == 5
