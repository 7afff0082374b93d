"""JupyterLab as a learner starts it, and a real browser in front of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / ".ci" / "artefacts" / "screenshots"  # kept by CI
expect.set_options(timeout=60_000)  # a kernel on a busy machine takes its time

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Jupyter:
    """A running JupyterLab over a copy of the notebooks."""

    url: str
    token: str
    folder: Path

    def address(self, path: str) -> str:
        """Where a notebook opens."""
        return f"{self.url}/lab/tree/{path}?token={self.token}"


@pytest.fixture(scope="module")  # what one file writes into a lab is no concern of the next
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    folder = tmp_path_factory.mktemp("workbook")
    for name in ("notebooks", "labs", "solutions"):
        shutil.copytree(ROOT / name, folder / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "cachelab", "lab", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(
        # A workspace of its own: JupyterLab would open what the last visitor had open.
        [*command, f"--ServerApp.root_dir={folder}", f"--LabApp.workspaces_dir={folder}/.lab"],
        env={**os.environ, "CACHELAB_TOKEN": token},
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
    )
    one = Jupyter(f"http://127.0.0.1:{port}", token, folder)
    try:
        _wait_until_it_answers(one, server)
        yield one
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def _wait_until_it_answers(jupyter: Jupyter, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{jupyter.url}/api/status?token={jupyter.token}", timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not answer:\n{(jupyter.folder / 'log').read_text()}")


def wait_for_the_kernel(page: Page) -> None:
    """Until the kernel of the open notebook has nothing to do."""
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle")


def run_all(page: Page) -> None:
    """Run > Run All Cells; again if JupyterLab, still starting, lets the click pass unheard.

    What tells is a cell that waits for its turn, `[*]`: a kernel is busy for other reasons too.
    """
    waits = """() => [...document.querySelectorAll(".jp-NotebookPanel .jp-InputPrompt")].some(
        prompt => prompt.textContent.includes("*"))"""
    for _ in range(6):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with contextlib.suppress(PlaywrightTimeout):
            page.wait_for_function(waits, timeout=5_000)
            return
    raise AssertionError("Run All Cells started nothing in six tries.")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.fail("There is no chromium on PATH; .ci/run installs it.")
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield one
        one.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def shots() -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS
