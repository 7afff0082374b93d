"""From key press to painted picture in a browser: our explorers beside the floor and `interact`.

It starts JupyterLab and Chromium and moves four sliders in turns, in one run:

- floor      a bare slider that echoes into a label through the kernel
- interact   `interact` and pyplot, drawing the picture of the stampede explorer anew
- explorer   an explorer of ours that is drawn in the kernel (jitter: one of the heavier ones)
- stampede   the stampede explorer, drawn in the browser

Then one slider is moved as fast as the keys come, and it is measured how far the pictures are
behind.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from benchmarks.table import Row, Target

TITLE = "Sliders: from key press to painted picture, in Chromium"
BUDGET = 100.0
MOVES = 60
TURN = 10  # moves of one slider before the next one has its turn
BURST = 30  # moves without waiting
MOST_TO_FLOOR = 1.3
MOST = 0.02  # s
NOTEBOOK = "bench.ipynb"
CELLS = {
    "floor": """import ipywidgets
slider, label = ipywidgets.IntSlider(50, description="floor"), ipywidgets.Label("50")
slider.observe(lambda change: setattr(label, "value", str(change["new"])), names="value")
ipywidgets.VBox([slider, label])""",
    "interact": """%matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from cachelab.models import stampede
loads = np.geomspace(0.01, 1000, 60)
@ipywidgets.interact(query_ms=ipywidgets.IntSlider(50, 1, 500))
def draw(query_ms):
    run = stampede.simulate(800, 0.2, query_ms / 1000, 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3))
    left.plot(run.arrivals, np.arange(800), "--")
    left.plot(np.sort(run.arrivals + run.waits), np.arange(800))
    for kind in ("fcfs", "ps"):
        found = [stampede.simulate(800, 0.2, x / 4000, 1, discipline=kind).queries for x in loads]
        right.semilogx(loads, found)
    right.plot([4 * query_ms], [run.queries], "o")
    left.set(xlabel="time (s)", ylabel="readers", title=f"{run.queries} of 800")
    right.set(xlabel="load", ylabel="readers that query")
    plt.show()""",
    "explorer": "from cachelab import widgets\nwidgets.jitter_explorer()",
    "stampede": "widgets.stampede_explorer(query_ms=50)",
}
# What takes the keys, and what a move changes last, inside the output of each cell.
FOCUS = {
    "floor": ".noUi-handle",
    "interact": ".noUi-handle",
    "explorer": ".noUi-handle",
    "stampede": "input[id$='-query_ms']",
}
CHANGES = {
    "floor": ".widget-label:last-child",
    "interact": "img",
    "explorer": "img.widget-image",
    "stampede": ".cachelab-reading",
}
# From the time stamp of the key event to the frame after the change: an image is decoded by then.
WATCH = """({root, what}) => {
    window.moves = [];
    let pressed = 0;
    const look = () => {
        const found = root.querySelectorAll(what);
        const node = found[found.length - 1];
        return node ? node.src || node.textContent : "";
    };
    let shown = look();
    const key = event => { pressed = event.timeStamp; };
    const last = () => window.moves.map(([since, painted]) => [since, painted, painted - pressed]);
    const observer = new MutationObserver(async () => {
        const now = look();
        if (!now || now === shown) return;
        shown = now;
        const since = pressed;
        const found = root.querySelectorAll(what);
        const node = found[found.length - 1];
        if (node.decode) await node.decode().catch(() => {});
        requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = () => {
                window.moves.push([since, performance.now()]);
                window.moved?.();
            };
            channel.port2.postMessage(0);
        });
    });
    const options = {subtree: true, childList: true, characterData: true, attributes: true};
    observer.observe(root, options);
    document.addEventListener("keydown", key, true);
    window.stopWatching = () => {
        observer.disconnect();
        document.removeEventListener("keydown", key, true);
        return last();
    };
}"""
# Resolves with the number of pictures so far: `number`, or after 5 s fewer.
UNTIL = """number => window.moves.length >= number || new Promise(resolve => {
    window.moved = () => { if (window.moves.length >= number) resolve(); };
    setTimeout(resolve, 5000);
})"""


@contextmanager
def jupyter() -> Iterator[str]:
    """JupyterLab over a folder with the notebook; the address of the notebook."""
    with tempfile.TemporaryDirectory(prefix="cachelab-bench-") as name:
        folder = Path(name)
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        notebook.cells = [nbformat.v4.new_code_cell(code) for code in CELLS.values()]
        nbformat.write(notebook, folder / NOTEBOOK)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        token = secrets.token_hex(16)
        options = ["--no-browser", "--port", str(port), f"--ServerApp.root_dir={folder}"]
        options += [f"--LabApp.workspaces_dir={folder}/.lab"]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "cachelab", "lab", *options],
                env={**os.environ, "CACHELAB_TOKEN": token},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            for _ in range(300):
                try:
                    status = f"http://127.0.0.1:{port}/api/status?token={token}"
                    urllib.request.urlopen(status, timeout=2)
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token={token}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def outputs(page: Any, address: str) -> dict[str, Any]:
    """Open the notebook, run it, and return the output of each cell."""
    page.goto(address)
    page.locator(".jp-CodeCell").first.wait_for()
    idle = "document.querySelector('#jp-main-statusbar')?.innerText.includes('| Idle')"
    page.wait_for_function(idle)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    found = {}
    for number, name in enumerate(CELLS):
        found[name] = page.locator(".jp-CodeCell").nth(number).locator(".jp-Cell-outputArea")
        found[name].locator(CHANGES[name]).last.wait_for()
    page.wait_for_timeout(2000)
    return found


def move(page: Any, output: Any, name: str, keys: list[str], *, waiting: bool = True) -> list[Any]:
    """Press the keys; for each picture that came, in ms: the key before it pressed, the picture
    painted, and how long that was after the last key of all."""
    focus = output.locator(FOCUS[name]).first
    focus.scroll_into_view_if_needed()
    focus.focus()
    page.wait_for_timeout(500)  # what the turn before has left behind is over
    root = output.element_handle()
    page.evaluate(WATCH, {"root": root, "what": CHANGES[name]})
    for number, key in enumerate(keys, 1):
        page.keyboard.press(key)
        if waiting:
            page.evaluate(UNTIL, number)  # without asking again and again, which costs time
            page.wait_for_timeout(37)
    if not waiting:
        page.wait_for_timeout(2500)
    moves: list[Any] = page.evaluate("window.stopWatching()")
    return moves


def high(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


def rows(tiny: bool = False) -> Iterator[Row]:
    """The 95th percentiles beside each other, and how far pictures fall behind a dragged slider."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        yield Row(TITLE, not_run="there is no chromium on PATH (.ci/run installs it)")
        return
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield Row(TITLE, not_run="playwright is missing (make lint installs it)")
        return
    turns = 1 if tiny else MOVES // TURN
    with jupyter() as address, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)
        found = outputs(page, address)
        took: dict[str, list[float]] = {name: [] for name in CELLS}
        for turn in range(-1, turns):  # the first turn is not counted
            keys = ["ArrowRight" if turn % 2 else "ArrowLeft"] * TURN
            for name, output in found.items():
                # `interact` takes half a second for a picture: fewer are enough.
                moves = move(page, output, name, keys[: TURN // 2] if name == "interact" else keys)
                if turn >= 0:
                    took[name] += [(painted - pressed) / 1e3 for pressed, painted, _ in moves]
        behind = {}
        for name in ("explorer", "stampede", "interact"):
            moves = move(page, found[name], name, ["ArrowLeft"] * BURST, waiting=False)
            behind[name] = (len(moves), max(0.0, moves[-1][2] / 1e3))
        browser.close()
    p95 = {name: high(each) for name, each in took.items()}
    yield Row(
        f"an explorer drawn in the kernel, 95 % of {len(took['explorer'])} moves below",
        p95["explorer"],
        beside="the floor: a slider that echoes into a label",
        theirs=p95["floor"],
        target=Target(MOST_TO_FLOOR),
        short="sliders: an explorer drawn in the kernel, 95 % of moves below",
    )
    stampede = f"the stampede explorer, 95 % of {len(took['stampede'])} moves below"
    yield Row(
        stampede,
        p95["stampede"],
        beside="interact with pyplot, the same picture",
        theirs=p95["interact"],
        target=Target(MOST, "ours"),
        short="sliders: the stampede explorer, 95 % of moves below",
    )
    yield Row(stampede, p95["stampede"], beside="the floor", theirs=p95["floor"])
    yield Row(
        "the stampede explorer, median",
        statistics.median(took["stampede"]),
        beside="interact with pyplot, median",
        theirs=statistics.median(took["interact"]),
    )
    for name in ("explorer", "stampede"):
        pictures, late = behind[name]
        # Nothing queues up: the last picture comes after the last key as after any other.
        yield Row(
            f"{BURST} moves without waiting, {name}: the last picture ({pictures} in all)",
            late,
            beside=f"interact ({behind['interact'][0]} in all)",
            theirs=behind["interact"][1],
            target=Target(3 * p95[name] + 0.02, "ours"),
        )
