"""Run all that a merge needs of one chapter, or of one model with its explorer.

python -m tools.ready 18_slug        its notebooks, check, its tests, COVERAGE, lint, the site
python -m tools.ready cold_start     its tests, lint

Every step is run, whatever became of the one before; a failure names the file to edit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Step(NamedTuple):
    """One thing to run: its name, what Python is given, and what it finds in the environment."""

    name: str
    command: list[str]
    env: dict[str, str] = {}


PYTEST = [
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:randomly",
    "-p",
    "no:valkey",
    "-n",
    "2",
    "--dist",
    "loadscope",
]
UNITS = [*PYTEST, "-p", "no:nbval", "--tb", "short"]
NBVAL = [*PYTEST, "-p", "tools.nbval_live", "--nbval", "--nbval-current-env"]
NBVAL += ["--nbval-sanitize-with", "tests/nbval_sanitize.cfg", "--nbval-cell-timeout", "60"]
LINT = [
    Step("style (make format)", ["-m", "ruff", "check", "."]),
    Step("format (make format)", ["-m", "ruff", "format", "--check", "."]),
    Step("types", ["-m", "mypy"]),
    Step("order of the rooms", ["-c", "from importlinter import cli; cli.lint_imports_command()"]),
]
WRITTEN = Step(
    "nothing left to write", [*UNITS, "tests/test_scaffold.py", "-k", "nothing_that_a_scaffold"]
)
# The tests that know of chapters.
OF_CHAPTERS = ("content", "exercises_contract", "workshop", "coverage", "links", "security")


def stems(root: Path) -> list[str]:
    """The stems of all chapters, in order."""
    return sorted(path.stem for path in (root / "content" / "notebooks").glob("[0-9]*.py"))


def models(root: Path) -> list[str]:
    """The names of all models."""
    found = (path.stem for path in (root / "src/cachelab/models").glob("[a-z]*.py"))
    return sorted(set(found) - {"inputs"})


def chapter(root: Path, stem: str) -> list[Step]:
    """The steps for a chapter, in order."""
    others = " or ".join(each for each in stems(root) if each != stem)
    tests = [f"tests/test_{name}.py" for name in OF_CHAPTERS]
    books = [f"notebooks/{stem}.ipynb", f"solutions/{stem}.ipynb"]
    return [
        WRITTEN,
        Step("notebooks", ["-m", "tools.build", "--force", stem]),
        Step("check", ["-m", "tools.build", "--check"]),
        Step("tests and COVERAGE", [*UNITS, *tests, "-k", f"not ({others})"]),
        Step("notebooks, fakeredis", [*NBVAL, *books], {"CACHELAB_BACKEND": "fake"}),
        *LINT,
        Step("site", [*UNITS, "tests/extras/test_site.py"]),
    ]


def model(root: Path, name: str) -> list[Step]:
    """The steps for a model and its explorer, in order."""
    tests = [f"tests/test_models_{name}.py", "tests/test_models_inputs.py", "tests/test_widgets.py"]
    others = " or ".join(f"{each}_explorer" for each in models(root) if each != name)
    return [WRITTEN, Step("tests", [*UNITS, *tests, "-k", f"not ({others} or built)"]), *LINT]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the steps; 0 when all are green, 1 when not, or after one sentence for a wrong name."""
    words = sys.argv[1:] if arguments is None else arguments
    known = {**dict.fromkeys(models(root), model), **dict.fromkeys(stems(root), chapter)}
    if len(words) != 1 or words[0] not in known:
        asked = f"{' '.join(words)!r} is none" if words else "none was named"
        print(
            f"Name a chapter or a model ({asked}), as in make ready ARGS={stems(root)[-1]}; there "
            f"are {', '.join(sorted(known))}.",
            file=sys.stderr,
        )
        return 1
    failed = []
    began = time.monotonic()
    for name, command, env in known[words[0]](root, words[0]):
        print(f"{name:24}", end="", flush=True)
        since = time.monotonic()
        run = subprocess.run(
            [sys.executable, *command],
            cwd=root,
            env={**os.environ, **env},
            stdout=PIPE,
            stderr=STDOUT,
        )
        said = "FAILED" if run.returncode else "ok"
        print(f"{said}, {time.monotonic() - since:.0f} s", flush=True)
        if run.returncode:
            failed.append(name)
            print(run.stdout.decode(errors="replace"))
    took = f"after {time.monotonic() - began:.0f} s"
    if failed:
        print(f"{words[0]} is not ready, {took}; failed: {', '.join(failed)}.", file=sys.stderr)
        return 1
    print(f"{words[0]} is ready for a merge, {took}; make test test-more runs the rest.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
