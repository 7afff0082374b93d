"""The explorers in a real browser: the model in JavaScript, a live notebook, an exported page."""

from __future__ import annotations

import base64
import itertools
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbconvert
import pytest
from conftest import Jupyter, run_all, wait_for_the_kernel
from playwright.sync_api import Browser, Locator, Page, expect

from cachelab import widgets
from cachelab.models import stampede as model
from cachelab.widgets import stampede
from tools.build import build

NAME = "91_widgets.ipynb"
# Those that are drawn in the kernel.
EXPLORERS = [name for name in widgets.EXPLORERS if name != "stampede_explorer"]
LIVE = "from cachelab.widgets import stampede_explorer\n\nhero = stampede_explorer()\nhero"
SOURCE = (
    f'# %% [markdown]\n# # Move a slider\n\n# %% tags=["widget"]\n{LIVE}\n\n'
    "# %%\nprint(hero.values)\n\n# %%\nfrom cachelab import widgets\n"
    "from cachelab.figures.predict import predict, recap, reveal\n\n"
    'predict("How many of 800 reach the database?", key="naive", unit="readers")\n\n'
    '# %%\nreveal("naive", 41)\n\n'
    + "\n".join(f'# %% tags=["widget"]\nwidgets.{name}()\n' for name in EXPLORERS)
)
CELL = ".jp-NotebookPanel:visible .jp-CodeCell"


# The model in JavaScript


@pytest.fixture
def module(page: Page) -> Page:
    """A page in which `window.stampede` is the module."""
    source = base64.b64encode(stampede.module().encode()).decode()
    page.evaluate(
        """async source => {
            window.stampede = await import(`data:text/javascript;base64,${source}`);
        }""",
        source,
    )
    return page


GRID = [
    {
        "readers": readers,
        "window": window,
        "queryTime": query_time,
        "slots": slots,
        "discipline": discipline,
        "singleFlight": single_flight,
    }
    for readers, window, query_time, slots, discipline, single_flight in itertools.product(
        (10, 41, 800, 2000),
        (0.0, 0.01, 0.2, 1.0),
        (0.001, 0.01, 0.0101, 0.05, 0.25, 0.5),
        (1, 3, 10, 16, 100),
        ("fcfs", "ps"),
        (False, True),
    )
]


def test_the_model_in_the_browser_is_the_model_in_python_over_the_whole_grid(
    module: Page,
) -> None:
    assert len(GRID) == 1920
    ours = module.evaluate(
        """grid => grid.map(settings => {
            const run = stampede.simulate(settings);
            const sum = run.waits.reduce((total, wait) => total + wait, 0);
            const atOnce = stampede.queriesAt([settings.queryTime], settings)[0];
            return [run.queries, run.firstAnswer, run.lastAnswer, run.longestWait, sum,
                    atOnce, stampede.say(settings, run)];
        })""",
        GRID,
    )
    for settings, (queries, first, last, longest, waits, at_once, said) in zip(
        GRID, ours, strict=True
    ):
        run = model.simulate(
            settings["readers"],
            settings["window"],
            settings["queryTime"],
            settings["slots"],
            discipline=settings["discipline"],
            single_flight=settings["singleFlight"],
        )
        assert (queries, at_once) == (run.queries, run.queries), settings
        assert (first, last, longest) == (run.first_answer, run.last_answer, run.longest_wait)
        assert math.isclose(waits, run.waits.sum(), rel_tol=1e-9, abs_tol=1e-9), settings
        assert said == stampede.say(settings["readers"], run)


def test_both_sides_have_the_same_ranges_and_disciplines(module: Page) -> None:
    ranges = module.evaluate("stampede.RANGES")
    assert {name: (each["low"], each["high"]) for name, each in ranges.items()} == {
        name: (low, high) for name, (low, high, _) in stampede.RANGES.items()
    }
    assert module.evaluate("stampede.DISCIPLINES") == stampede.DISCIPLINES


def test_no_corner_of_the_controls_goes_blank(module: Page) -> None:
    corners = [
        dict(zip(stampede.RANGES, values, strict=True))
        | {"discipline": discipline, "single_flight": flight}
        for values in itertools.product(*((low, high) for low, high, _ in stampede.RANGES.values()))
        for discipline in stampede.DISCIPLINES
        for flight in (False, True)
    ]
    found = module.evaluate(
        """corners => {
            const host = document.createElement("div");
            document.body.append(host);
            const explorer = stampede.mount(host, corners[0]);
            return corners.map(corner => {
                explorer.set(corner);
                const paths = [...host.querySelectorAll("svg > path")]
                    .map(path => path.getAttribute("d"));
                const box = host.querySelector("svg").getBBox();
                return [paths.join(" "), host.innerText, box.width, box.height];
            });
        }""",
        corners,
    )
    assert len(found) == 64
    for corner, (paths, text, width, height) in zip(corners, found, strict=True):
        assert not re.search("NaN|Infinity|undefined", paths + text), corner
        assert "reach" in text
        assert 700 < width < 900, corner
        assert 250 < height < 400, corner


# A page without a kernel and without a network


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    (root / "content/notebooks").mkdir(parents=True)
    (root / "content/notebooks/91_widgets.py").write_text(SOURCE, "utf-8")
    assert build(root, say=lambda line: None) == []
    return root / "notebooks" / NAME


@pytest.fixture
def offline(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page that cannot reach any network, and what it tried to reach."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    asked: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    yield page, asked
    context.close()


def reading(at: Page | Locator) -> Locator:
    return at.locator(".cachelab-reading")


def test_an_exported_notebook_moves_without_a_kernel_and_without_a_network(
    built: Path, tmp_path: Path, offline: tuple[Page, list[str]], shots: Path
) -> None:
    page, asked = offline
    exported = tmp_path / "exported.html"
    exporter = nbconvert.HTMLExporter()
    exported.write_text(exporter.from_filename(str(built))[0], "utf-8")
    page.goto(exported.as_uri())
    expect(reading(page)).to_contain_text("41 of 800 reach the database")
    slots = page.get_by_label("Database slots")
    slots.focus()
    page.get_by_label("sharing: all run at once").check()
    slots.focus()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    expect(reading(page)).to_contain_text("211 of 800 reach the database")
    expect(page.get_by_role("status")).to_contain_text("211 of 800")
    page.get_by_label("single-flight").focus()
    page.keyboard.press("Space")
    expect(reading(page)).to_contain_text("1 of 800 reaches the database")
    page.screenshot(path=shots / "widgets_exported.png")
    pictures = page.locator(".jp-RenderedHTML img")
    expect(pictures).to_have_count(len(EXPLORERS))  # stills of the others, described
    for picture in pictures.all():
        assert "Reading:" in (picture.get_attribute("alt") or "")
    fetched = [url for url in asked if not re.match("file:|data:|blob:", url)]
    # The page itself asks for MathJax and require.js, as every exported notebook does.
    assert not [url for url in fetched if "widget" in url]


def test_the_focus_can_be_seen_and_every_control_has_a_name(
    built: Path, tmp_path: Path, offline: tuple[Page, list[str]]
) -> None:
    page, _ = offline
    exported = tmp_path / "exported.html"
    exported.write_text(nbconvert.HTMLExporter().from_filename(str(built))[0], "utf-8")
    page.goto(exported.as_uri())
    expect(reading(page)).to_be_visible()
    names = page.locator(".cachelab-stampede input").evaluate_all(
        "all => all.map(input => [...input.labels].map(label => label.innerText.trim()).join())"
    )
    assert len(names) == 7
    assert all(names)
    for name in ("Readers", "sharing", "single-flight"):
        control = page.get_by_label(name)
        page.keyboard.press("Tab")  # from now on the browser shows the focus
        control.focus()
        width = control.evaluate("input => getComputedStyle(input).outlineWidth")
        assert width == "3px", name


# JupyterLab


@pytest.fixture
def notebook(page: Page, jupyter: Jupyter, built: Path) -> Page:
    """The built notebook, opened and not yet run."""
    shutil.copy(built, jupyter.folder / "notebooks" / NAME)
    page.goto(jupyter.address(f"notebooks/{NAME}"))
    expect(page.locator(CELL).first).to_be_visible()
    return page


def run_to_the_end(page: Page) -> None:
    wait_for_the_kernel(page)
    run_all(page)
    # JupyterLab takes the focus back after each cell, so all of them are waited for.
    last = page.locator(CELL).last
    expect(last.locator("img.widget-image")).to_be_visible(timeout=90_000)
    wait_for_the_kernel(page)
    page.wait_for_timeout(300)


def cell(page: Page, text: str) -> Locator:
    return page.locator(CELL).filter(has=page.locator(".cm-content", has_text=text)).first


def painted(picture: Locator) -> str:
    """A picture as text, once it is loaded."""
    found: str = picture.evaluate(
        """async img => {
            await img.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
            canvas.getContext("2d").drawImage(img, 0, 0);
            return canvas.toDataURL();
        }"""
    )
    return found


def test_a_notebook_that_was_not_run_shows_its_stills(notebook: Page, shots: Path) -> None:
    page = notebook
    hero = cell(page, "hero = stampede_explorer()")
    still = hero.locator(".jp-OutputArea-output img")
    expect(still).to_be_visible()
    assert still.evaluate("img => img.naturalWidth") == 800
    expect(hero).to_contain_text("41 of 800 reach the database")
    page.screenshot(path=shots / "widgets_not_run.png")
    for name in EXPLORERS:
        picture = cell(page, f"widgets.{name}()").locator(".jp-RenderedHTML img")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("img => img.naturalWidth") == 800
    expect(page.locator(".jp-NotebookPanel:visible")).not_to_contain_text("Error displaying widget")


def test_a_live_stampede_explorer_moves_by_key_and_the_kernel_follows(
    notebook: Page, shots: Path
) -> None:
    page = notebook
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(error))
    run_to_the_end(page)
    hero = cell(page, "hero = stampede_explorer()")
    expect(reading(hero)).to_contain_text("41 of 800", timeout=90_000)
    slots = hero.get_by_label("Database slots")
    slots.focus()
    for _ in range(9):
        page.keyboard.press("ArrowUp")  # which JupyterLab takes for "the cell above"
    expect(slots).to_be_focused()
    hero.get_by_label("sharing").check()
    expect(reading(hero)).to_contain_text("211 of 800 reach the database")
    hero.scroll_into_view_if_needed()
    page.screenshot(path=shots / "widgets_live.png")
    page.wait_for_timeout(600)
    shown = cell(page, "print(hero.values)")
    shown.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(shown.locator(".jp-OutputArea")).to_contain_text("'slots': 10, 'discipline': 'ps'")
    assert errors == []


def test_every_live_explorer_moves_by_key_and_reads_again(notebook: Page, shots: Path) -> None:
    page = notebook
    run_to_the_end(page)
    for name in EXPLORERS:
        explorer = cell(page, f"widgets.{name}()").locator(".jp-OutputArea").last
        picture = explorer.locator("img.widget-image")
        said = explorer.get_by_role("status").first
        expect(picture).to_be_visible(timeout=90_000)
        before, words = painted(picture), said.inner_text()
        explorer.locator(".noUi-handle").first.focus()
        page.keyboard.press("ArrowRight")
        expect(said).not_to_have_text(words)
        page.wait_for_timeout(100)
        assert painted(picture) != before
        assert explorer.locator(".noUi-handle").first.evaluate("h => h === document.activeElement")
        explorer.scroll_into_view_if_needed()
        explorer.screenshot(path=shots / f"{name}.png")


def test_a_guess_is_typed_and_stands_beside_the_result(notebook: Page) -> None:
    page = notebook
    run_to_the_end(page)
    asked = cell(page, "predict(")
    entry = asked.get_by_placeholder("a number")
    expect(entry).to_be_visible(timeout=90_000)
    expect(asked.locator(".jp-OutputArea")).to_contain_text("Your guess: none yet.")
    # The answer was shown by "Run All"; asking again takes a new guess.
    asked.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(500)
    entry.fill("800")
    expect(asked.locator(".jp-OutputArea")).to_contain_text("Your guess: 800 readers.")
    answer = cell(page, "reveal(")
    answer.locator(".cm-content").last.click()
    page.keyboard.press("Control+Enter")
    expect(answer.locator(".jp-OutputArea")).to_contain_text("20 times too high.")
