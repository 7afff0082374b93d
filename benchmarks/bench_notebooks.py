"""A whole nbval run beside its cells' own time, the slowest parts, the largest kernel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import nbformat
import psutil
from jupyter_client.manager import start_new_kernel

from benchmarks.table import Row, Target

ROOT = Path(__file__).resolve().parents[1]
TITLE = "The notebooks: a whole run, its slowest parts, its largest kernel"
BUDGET = 170.0
CELL, CHAPTER, CHECK = Target(20, "ours"), Target(60, "ours"), Target(10, "ours")  # s
MEMORY = Target(2.0)
BARE = [
    "%matplotlib inline\nimport matplotlib.pyplot as plt",
    "figure, axes = plt.subplots()\naxes.plot([0, 1])\nplt.show()",
]


def run_all(books: list[str], folder: str) -> tuple[float, dict[str, Any], str]:
    """As `make test-notebooks-live` does: seconds, what each cell took, and pytest's last line."""
    report = Path(folder) / "report.json"
    command = f"{sys.executable} -m pytest -q -p tools.nbval_live -p benchmarks.nbval_report"
    command += " -p no:randomly -p no:valkey -p no:cacheprovider -n 2 --dist loadscope --nbval"
    command += " --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg"
    command += " --nbval-cell-timeout 60"
    began = time.perf_counter()
    done = subprocess.run(
        [*command.split(), f"--basetemp={folder}/pytest", *books],
        cwd=ROOT,
        env={
            **os.environ,
            "CACHELAB_BACKEND": "live",
            "CACHELAB_BENCH_REPORT": str(report),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
    wrong = "" if done.returncode == 0 else re.sub(r"[=\s]+", " ", last).strip()
    found = json.loads(report.read_text("utf-8")) if report.exists() else {}
    return took, found, wrong


def memory(pid: int) -> float:
    """Megabytes that a process has in memory: its resident set, which no neighbour changes."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def after(cells: list[str], folder: Path) -> float:
    """Megabytes of a kernel that has run these cells, by itself and started cold."""
    kernel, client = start_new_kernel(
        kernel_name="python3",
        cwd=str(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for cell in cells:
            reply = client.execute_interactive(cell, output_hook=lambda message: None, timeout=120)
            content = reply["content"]
            if content["status"] == "error" and content["ename"] != "NotImplementedError":
                raise RuntimeError(f"a cell ended in {content['ename']}: {content['evalue']}")
        return memory(kernel.provisioner.pid)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def code_of(notebook: str) -> list[str]:
    """The code cells; those that end in an error on purpose are left out."""
    book = nbformat.read(ROOT / notebook, 4)  # type: ignore[no-untyped-call]
    return [
        cell.source
        for cell in book.cells
        if cell.cell_type == "code" and "raises-exception" not in cell.metadata.get("tags", [])
    ]


def slowest(what: str, took: list[tuple[float, str]], target: Target) -> Row:
    """The longest of these times (s), each with its place, beside their mean."""
    seconds, place = max(took)
    return Row(
        f"the slowest {what} ({place})",
        seconds,
        beside="their mean",
        theirs=fmean(each for each, _ in took),
        target=target,
        short=f"the slowest {what}",
    )


def rows(tiny: bool = False) -> Iterator[Row]:
    """One nbval run, live; then the notebook with the largest kernel again, alone."""
    books = ["notebooks/08_read_through.ipynb"] if tiny else ["notebooks", "solutions"]
    with tempfile.TemporaryDirectory(prefix="cachelab-bench-") as folder:
        took, found, wrong = run_all(books, folder)
    if wrong or not found:
        yield Row("nbval", failed=f"the notebooks did not pass ({wrong or 'no cell ran'})")
    if not found:
        return
    cells = [(seconds, book) for book, told in found.items() for seconds in told["cells"]]
    yield Row(
        f"nbval, {len(found)} notebooks and solutions, two processes",
        took,
        beside=f"the sum of its {len(cells)} cells' own time",
        theirs=sum(seconds for seconds, _ in cells),
        short=f"nbval of {len(found)} notebooks and solutions, two processes",
    )
    by_cell = [(seconds, f"{Path(book).parent.name}/{Path(book).stem}") for seconds, book in cells]
    yield slowest("cell", by_cell, CELL)
    solved = [(seconds, book) for seconds, book in by_cell if book.startswith("solutions/")]
    if solved:
        yield slowest("cell of a lab's solutions, its check included", solved, CHECK)
    chapters: dict[str, float] = {}
    for book, told in found.items():
        stem = Path(book).stem
        chapters[stem] = chapters.get(stem, 0.0) + sum(told["cells"])
    by_chapter = [(seconds, stem) for stem, seconds in chapters.items()]
    yield slowest("chapter, notebook and solutions", by_chapter, CHAPTER)
    largest = max(found, key=lambda book: int(found[book]["resident"]))
    place = ROOT / Path(largest).parent
    yield Row(
        f"a kernel after the largest notebook ({Path(largest).parent.name}/{Path(largest).stem})",
        after(code_of(largest), place),
        "MB",
        "a bare ipykernel with matplotlib and one figure",
        after(BARE, place),
        MEMORY,
        short="memory of a kernel after the largest notebook",
    )
