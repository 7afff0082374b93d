"""The set-up of a fresh clone beside a bare `pip install` of the same lock, in turns."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Row

ROOT = Path(__file__).resolve().parents[1]
TITLE = "The set-up of a fresh clone"
BUDGET = 110.0
ENOUGH = 55.0  # s; a further round only if the first was shorter
PARTS = ("src", "tools", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")
MORE = ("LICENSE-CONTENT",)


def base_python() -> str:
    """The Python that made the environment we run in."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def timed(*commands: list[str], cwd: Path) -> float:
    """Seconds for these commands, one after the other."""
    began = time.perf_counter()
    for command in commands:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise RuntimeError(f"the set-up failed: {said[-1] if said else 'no reason given'}")
    return time.perf_counter() - began


def ours(folder: Path) -> float:
    """`make ready` in a clone: an environment, the lock, the project."""
    for name in (*PARTS, *MORE):
        if (ROOT / name).is_dir():
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=leave)
        else:
            shutil.copy(ROOT / name, folder / name)
    return timed([base_python(), "tools/bootstrap.py"], cwd=folder)


def theirs(folder: Path) -> float:
    """What a requirements.txt is for: an environment and `pip install -r`."""
    shutil.copy(ROOT / "requirements.txt", folder)
    return timed(
        [base_python(), "-m", "venv", ".venv"],
        [".venv/bin/python", "-m", "pip", "install", "-r", "requirements.txt"],
        cwd=folder,
    )


def rows(tiny: bool = False) -> Iterator[Row]:
    """Both from the packages that pip has kept or finds nearby; the first turn is theirs to lose.

    Ours comes first, so what has to be fetched is fetched at our expense.
    """
    if tiny:
        yield Row("setup", not_run="a set-up has no tiny size")
        return
    took: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    while not took[1] or time.perf_counter() - began < ENOUGH:
        for found, way in zip(took, (ours, theirs), strict=True):
            with tempfile.TemporaryDirectory(prefix="cachelab-bench-") as folder:
                found.append(way(Path(folder)))
    rounds = len(took[0])
    yield Row(
        f"set-up of a fresh clone, the packages at hand ({rounds} round{'s' * (rounds > 1)})",
        statistics.median(took[0]),
        beside="python -m venv and pip install -r requirements.txt",
        theirs=statistics.median(took[1]),
        short="set-up of a fresh clone",
    )
