"""Runs the whole suite again and again, in random order and on a busy machine, and counts flakes.

    python -m tools.flake --runs 20 --workers 2

Each run has a seed of its own: for the order of the tests (pytest-randomly), for what is random in
them, and for hypothesis. Every core is kept busy by a process that does nothing else. The notebooks
are run as well, on both backends, files in random order, cells in their own. Exit code 0: every run
was green; 1: some test was red in some run, and the list says which, how often and with what seed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / ".cachelab" / "flake"
# It ends with the one that started it, however that ends.
BURN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(10**6))"
RED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:cacheprovider", "-rfE"]
MAKE = ["make", "--no-print-directory", "SKIP_SETUP=1"]
# A cell may take twice as long as in `make test`, since others have the cores.
NOTEBOOKS = "-rfE -p no:cacheprovider --nbval-cell-timeout 120"


@contextlib.contextmanager
def busy(cores: int) -> Iterator[None]:
    """So many processes that use all the processor time they get."""
    burning = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(cores)]
    try:
        yield
    finally:
        for one in burning:
            one.kill()
            one.wait()


def commands(seed: int, workers: int, tests: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The name and command of each part of one run; `tests` stands for all of it when given."""
    share = ["-n", str(workers), "--dist", "loadscope"]
    seeds = [f"--randomly-seed={seed}", f"--hypothesis-seed={seed}"]
    units = tests or ["tests", "--ignore", "tests/extras", "--ignore", "tests/browser"]
    yield "units", [*PYTEST, *share, "-p", "no:nbval", *seeds, *units]
    if tests:
        return
    books = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("notebooks/*.ipynb"))
    books += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("solutions/*.ipynb"))
    random.Random(seed).shuffle(books)
    for backend in ("live", "fake"):
        chosen = [f"WORKERS={workers}", f"BOOKS={' '.join(books)}", f"ARGS={NOTEBOOKS}"]
        yield backend, [*MAKE, f"test-notebooks-{backend}", *chosen]


def one_run(seed: int, workers: int, tests: Sequence[str]) -> list[str]:
    """Run everything once; the tests that were red, or the part that broke as a whole."""
    red = []
    for part, command in commands(seed, workers, tests):
        log = LOGS / f"{seed}-{part}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, check=False
            ).returncode
        if code:
            found = RED.findall(log.read_text(encoding="utf-8", errors="replace"))
            red += found or [f"{part}: pytest ended with code {code}, see {log.relative_to(ROOT)}"]
    return red


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `--runs` times; print a line a run, then the flakes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make flake", description="Look for tests that flake.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next adds one")
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 2, help="cores kept busy")
    parser.add_argument("tests", nargs="*", help="of the units only these; else all, and notebooks")
    options = parser.parse_args(arguments)
    LOGS.mkdir(parents=True, exist_ok=True)
    seeds: dict[str, list[int]] = {}
    times: Counter[str] = Counter()
    with busy(options.busy):
        for seed in range(options.seed, options.seed + options.runs):
            began = time.monotonic()
            red = one_run(seed, options.workers, options.tests)
            for test in red:
                times[test] += 1
                seeds.setdefault(test, []).append(seed)
            said = "green" if not red else f"{len(red)} red"
            print(f"seed {seed}: {said}, {time.monotonic() - began:.0f} s", flush=True)
    for test, count in times.most_common():
        print(f"{count} of {options.runs} runs red: {test} (seeds {seeds[test]})")
    print(f"Flakes: {len(times)} in {options.runs} runs.")
    return 1 if times else 0


if __name__ == "__main__":
    raise SystemExit(main())
