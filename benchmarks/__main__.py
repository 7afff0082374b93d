"""Run all benchmarks, or those that are named, and print one table: `make bench`.

    make bench                          all; under ten minutes on two cores
    make bench ARGS="stage models"      some
    make bench ARGS=--write             all, and write RESULTS.md and the README's short table

Each benchmark has a process of its own: what one breaks is a line of the table and exit code 1, and
the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import NAMES
from benchmarks.table import (
    BEGIN,
    COLUMNS,
    END,
    SHORT_COLUMNS,
    Row,
    Target,
    markdown,
    replaced,
    text,
    three_digits,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "benchmarks" / "RESULTS.md", ROOT / "README.md"
# What would send a benchmark to somebody else's server, database or board.
ELSEWHERE = (
    "CACHELAB_REDIS_URL",
    "CACHELAB_PREFIX",
    "CACHELAB_BACKEND",
    "CACHELAB_DATABASE_URL",
    "CACHELAB_CLASS_URL",
    "CACHELAB_EDGE",
)
PACKAGES = (
    "redis",
    "fakeredis",
    "SQLAlchemy",
    "numpy",
    "matplotlib",
    "jupyterlab",
    "ipykernel",
    "simpy",
    "dogpile.cache",
    "cashews",
    "aiocache",
    "cachetools",
    "nbval",
    "playwright",
    "pip",
)


@dataclass(frozen=True)
class Measured:
    """One benchmark: its rows and how long it took (s)."""

    name: str
    title: str
    rows: list[Row]
    took: float


# In the process of one benchmark -----------------------------------------------------------------


def be_one(name: str, tiny: bool) -> None:
    """Write the rows of one benchmark, one a line, as they come."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a benchmark prints is no row
    module = importlib.import_module(f"benchmarks.bench_{name}")
    for row in module.rows(tiny=tiny):
        print(json.dumps(asdict(row)), file=out, flush=True)


# In the process that runs them -------------------------------------------------------------------


def row_from(line: str) -> Row:
    """The Row that `be_one` wrote."""
    found: dict[str, Any] = json.loads(line)
    target = found.pop("target")
    return Row(**found, target=Target(**target) if target else None)


def measure(name: str, *, tiny: bool = False, limit: float | None = None) -> Measured:
    """Run one benchmark in a process of its own; what fails there is a row. `limit` in s."""
    module = importlib.import_module(f"benchmarks.bench_{name}")
    title, limit = module.TITLE, limit or 120 + 6 * module.BUDGET
    command = [sys.executable, "-m", "benchmarks", "--one", name, *(["--tiny"] if tiny else [])]
    began = time.monotonic()
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ELSEWHERE},
        start_new_session=True,
    )
    said: queue.Queue[str | None] = queue.Queue()
    complaints: list[str] = []

    def listen(stream: Any, take: Any) -> None:
        for line in stream:
            take(line)
        said.put(None)

    for stream, take in ((child.stdout, said.put), (child.stderr, complaints.append)):
        threading.Thread(target=listen, args=(stream, take), daemon=True).start()
    rows: list[Row] = []
    ended = 0
    try:
        while ended < 2:
            line = said.get(timeout=max(0.1, limit - (time.monotonic() - began)))
            if line is None:
                ended += 1
            else:
                rows.append(row_from(line))
        code = child.wait(timeout=30)
        if code != 0:
            last = next((one.strip() for one in reversed(complaints) if one.strip()), "no reason")
            rows.append(Row(title, failed=f"it ended with exit code {code} ({last[:200]})"))
    except (queue.Empty, subprocess.TimeoutExpired):
        rows.append(Row(title, failed=f"it was ended after {limit:.0f} s"))
    except ValueError as error:
        rows.append(Row(title, failed=f"its answer cannot be read ({error})"))
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)  # with all that it has started
            child.wait()
    return Measured(name, title, rows, time.monotonic() - began)


def machine() -> Iterator[str]:
    """Where and with what it was measured; no name of a host, no path."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, IndexError):
        model = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield f"Machine: {platform.system()} {platform.machine()}, {model}, {cores} cores, "
    yield f"{memory:.0f} GB; load when it began {os.getloadavg()[0]:.2f}.\n"
    found = []
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    yield f"Versions: Python {platform.python_version()}, {', '.join(found)}; {server()}."


def server() -> str:
    """The cache server that the benchmarks start, by name and version."""
    from cachelab.cache import server as servers

    found: Any = servers.find({k: v for k, v in os.environ.items() if k not in ELSEWHERE})
    try:
        return str(found).partition(" (")[0]
    finally:
        found.close()


def results(measured: list[Measured], about: str, when: datetime, took: float) -> str:
    """The text of RESULTS.md."""
    parts = [
        "# What Cachelab costs",
        "Written by `make bench ARGS=--write`; the next run writes it anew. The ratio is ours to "
        "theirs, both measured in the same run, in turns where the machine's mood could decide. "
        "*Target* is what this project has promised; *met* says whether it holds.",
        f"Measured on {when:%Y-%m-%d at %H:%M} UTC in {took:.0f} s. {about}",
        "## In short",
        markdown(SHORT_COLUMNS, short_lines(measured)),
    ]
    for one in measured:
        parts.append(f"## {one.title}")
        parts.append(f'`make bench ARGS="{one.name}"`, {one.took:.0f} s')
        parts.append(markdown(COLUMNS, (row.cells() for row in one.rows)))
    return "\n\n".join(parts) + "\n"


def short_lines(measured: list[Measured]) -> list[list[str]]:
    """The README's table: the rows that have a short name, and all that went wrong."""
    return [
        row.short_cells() if row.short else Row(**{**vars(row), "short": row.what}).short_cells()
        for one in measured
        for row in one.rows
        if row.short or row.is_wrong
    ]


def write(measured: list[Measured], about: str, when: datetime, took: float) -> None:
    """Write RESULTS.md, and the README's table where it has a place for it."""
    RESULTS.write_text(results(measured, about, when, took), "utf-8")
    print(f"Written: {RESULTS.relative_to(ROOT)}")
    table = markdown(SHORT_COLUMNS, short_lines(measured))
    text = replaced(README.read_text("utf-8"), table)
    if text is None:
        print(f"README.md has no place for the short table: a line {BEGIN} and a line {END}.")
        return
    README.write_text(text, "utf-8")
    print("Written: the short table in README.md")


def main(argv: list[str] | None = None) -> int:
    """Run and print; 0 if nothing failed and every target is met."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and the README")
    parser.add_argument("--tiny", action="store_true", help="sizes that prove nothing, for a test")
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        be_one(options.one, options.tiny)
        return 0
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}.")
    if options.write and (options.names or options.tiny):
        parser.error("--write keeps one whole run; leave out the names and --tiny.")
    when, began, about = datetime.now(UTC), time.monotonic(), "".join(machine())
    print(about, flush=True)
    measured = []
    for name in options.names or NAMES:
        one = measure(name, tiny=options.tiny)
        measured.append(one)
        print(
            f"\n{one.title} ({one.took:.0f} s)\n{text(row.cells() for row in one.rows)}", flush=True
        )
    took = time.monotonic() - began
    wrong = [row for one in measured for row in one.rows if row.is_wrong]
    print(f"\nAll of it took {three_digits(took)} s.")
    for row in wrong:
        print(f"{row.state}: {'; '.join(cell for cell in row.cells()[:-1] if cell)}")
    if options.write:
        write(measured, about, when, took)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
