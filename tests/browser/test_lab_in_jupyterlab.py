"""A learner in JupyterLab: open, run, answer wrong, answer right, and see each verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
from conftest import ROOT, Jupyter, run_all, wait_for_the_kernel
from playwright.sync_api import Locator, Page, expect

LAB = "05_cache_aside"
PANEL = ".jp-OutputArea-output.jp-RenderedHTMLCommon"
WRONG = """def read_user(cache, db, user_id):
    user = db.user(user_id)
    cache.set(f"user:v1:{user_id}", json.dumps(user), ex=300)
    return user
"""


def solution_of(exercise: str) -> str:
    """The code of the built solution."""
    notebook = nbformat.read(ROOT / "solutions" / f"{LAB}.ipynb", as_version=4)
    name = {"05_cache_aside.read": "read_user"}[exercise]
    return next(c.source for c in notebook.cells if c.source.startswith(f"def {name}("))


def open_notebook(page: Page, jupyter: Jupyter, path: str) -> None:
    page.goto(jupyter.address(path))
    expect(page.locator(".jp-NotebookPanel:visible .jp-Cell").first).to_be_visible()
    wait_for_the_kernel(page)


def code_cell(page: Page, text: str) -> Locator:
    return page.locator(".jp-NotebookPanel:visible .jp-CodeCell").filter(
        has=page.locator(".cm-content", has_text=text)
    )


def replace_code(page: Page, cell: Locator, code: str) -> None:
    """Select all of a cell and paste, as a learner does."""
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.evaluate(
        """code => {
            const data = new DataTransfer();
            data.setData("text/plain", code);
            document.activeElement.dispatchEvent(
                new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})
            );
        }""",
        code,
    )
    page.keyboard.press("Shift+Enter")


def verdict(page: Page, exercise: str) -> Locator:
    return code_cell(page, f'check("{exercise}"').locator(PANEL)


def test_a_learner_sees_not_attempted_then_why_it_failed_then_passed(
    page: Page, jupyter: Jupyter, shots: Path
) -> None:
    open_notebook(page, jupyter, f"labs/{LAB}.ipynb")
    run_all(page)
    panels = page.locator(f".jp-NotebookPanel:visible {PANEL}")
    expect(panels).to_have_count(5)
    for number in range(5):
        expect(panels.nth(number)).to_contain_text("not attempted")
    errors = '.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]'
    expect(page.locator(errors)).to_have_count(0)
    page.screenshot(path=shots / "1_untouched.png")

    cell = code_cell(page, "def read_user(")
    replace_code(page, cell, WRONG)
    code_cell(page, 'check("05_cache_aside.read"').locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    panel = verdict(page, "05_cache_aside.read")
    expect(panel).to_contain_text("asked the database again, although a copy was in the cache")
    panel.locator("summary").click()
    expect(panel).to_contain_text("fill, TTL 300 s")
    panel.scroll_into_view_if_needed()
    page.screenshot(path=shots / "2_wrong.png")

    replace_code(page, code_cell(page, "def read_user("), solution_of("05_cache_aside.read"))
    code_cell(page, 'check("05_cache_aside.read"').locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    expect(panel).to_contain_text("passed")
    page.screenshot(path=shots / "3_passed.png")


def test_the_first_notebook_runs_from_top_to_bottom_and_draws_offline(
    page: Page, jupyter: Jupyter, shots: Path
) -> None:
    strangers: list[str] = []
    page.on(
        "request",
        lambda request: (
            None
            if re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", request.url)
            else strangers.append(request.url)
        ),
    )
    open_notebook(page, jupyter, "notebooks/05_cache_aside.ipynb")
    diagram = page.locator(".jp-RenderedMermaid img, .jp-RenderedMermaid svg")
    expect(diagram.first).to_be_visible()
    page.screenshot(path=shots / "4_intended.png")
    run_all(page)
    last = page.locator(".jp-NotebookPanel:visible .jp-CodeCell").last
    expect(last.locator(".jp-OutputArea-output").first).to_be_visible()
    wait_for_the_kernel(page)
    errors = '.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]'
    expect(page.locator(errors)).to_have_count(0)
    assert strangers == []


def test_the_sidebar_shows_what_a_learner_needs_and_no_plumbing(
    page: Page, jupyter: Jupyter, shots: Path
) -> None:
    open_notebook(page, jupyter, "notebooks/00_start_here.ipynb")
    # The sidebar follows the notebook a moment later.
    entry = page.locator(".jp-DirListing-itemText", has_text="00_start_here.ipynb")
    expect(entry).to_be_visible()
    listed = page.locator(".jp-DirListing-item .jp-DirListing-itemText").all_inner_texts()
    page.screenshot(path=shots / "5_start.png")
    assert "00_start_here.ipynb" in listed
    settings = json.dumps(listed)
    assert "src" not in settings


def test_a_click_on_a_chapter_that_a_lab_names_opens_it(page: Page, jupyter: Jupyter) -> None:
    open_notebook(page, jupyter, f"labs/{LAB}.ipynb")
    page.locator(".jp-NotebookPanel:visible a", has_text=LAB).first.click()
    title = page.locator(".jp-NotebookPanel:visible h1").first
    expect(title).to_contain_text("Read around the cache")
