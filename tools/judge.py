"""Judges many people's labs with `cachelab check --json`, and says what came of them in a table.

    python tools/judge.py submissions/ --verdicts verdicts/ --summary summary.md

Exit code 0: every lab passed; 1: something is not passed; 2: a file could not be judged.
Each lab is code that somebody else wrote, and it is run: see docs/judging.md before you do that.
"""

from __future__ import annotations

import argparse
import glob
import html
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALL_PASSED, NOT_ALL, IMPOSSIBLE = 0, 1, 2
# `cachelab check` bounds every cell and every exercise; this bounds a lab of very many cells.
LONGEST_SECONDS = 900.0
LONGEST_TEXT = 300
# What a judged lab sees of our environment: no token of CI, no address of a server or class board.
KEPT = re.compile(
    r"(LD_LIBRARY_|DYLD_LIBRARY_)?PATH|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|COMSPEC|PATHEXT"
    r"|CACHELAB_BACKEND"
)


@dataclass(frozen=True)
class Judged:
    """One file: its exit code of `cachelab check`, its JSON (None: not judged), or why not."""

    file: str
    code: int
    verdict: dict[str, Any] | None
    said: str = ""

    @property
    def score(self) -> str:
        """ "3 of 5", or a dash."""
        return f"{self.verdict['passed']} of {self.verdict['total']}" if self.verdict else "-"

    @property
    def missing(self) -> list[str]:
        """A line for each exercise that is not passed, or the reason why nothing was judged."""
        if self.verdict is None:
            return [self.said]
        return [
            f"{one['id']}: {one['outcome']}. {one['summary']}"
            for one in self.verdict["exercises"]
            if one["outcome"] != "passed"
        ]


def find(asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """The notebooks at the paths, in folders and by patterns (`**` too), and what led to none."""
    files: list[str] = []
    nothing: list[str] = []
    for pattern in asked:
        found: list[str] = []
        for path in sorted(glob.glob(pattern, recursive=True)) or [pattern]:
            if os.path.isdir(path):
                inside = sorted(glob.glob(f"{glob.escape(path)}/**/*.ipynb", recursive=True))
                # Hidden folders, Jupyter's checkpoints among them, are not matched by `**`.
                found += [one for one in inside if os.path.isfile(one)]
            elif os.path.exists(path):
                found.append(path)
        files += [one for one in found if one not in files]
        if not found:
            nothing.append(pattern)
    return files, nothing


def judge(file: str, seconds: float = LONGEST_SECONDS) -> Judged:
    """Run `cachelab check` on one file, with a home and a working folder that are then removed."""
    with tempfile.TemporaryDirectory(prefix="cachelab-judge-", ignore_cleanup_errors=True) as home:
        environment = {k: v for k, v in os.environ.items() if KEPT.fullmatch(k.upper())}
        environment |= {"HOME": home, "USERPROFILE": home, "PYTHONUTF8": "1"}
        command = [sys.executable, "-m", "cachelab", "check", os.path.abspath(file), "--json"]
        try:
            run = subprocess.run(
                command,
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            said = f"It was not judged after {seconds:g} s, and was stopped."
            return Judged(file, IMPOSSIBLE, None, said)
    try:
        verdict = json.loads(run.stdout) if run.returncode in (ALL_PASSED, NOT_ALL) else None
    except ValueError:
        verdict = None
    if not isinstance(verdict, dict):
        lines = run.stderr.strip().splitlines() or [f"The check ended with {run.returncode}."]
        return Judged(file, IMPOSSIBLE, None, lines[-1].replace(os.path.abspath(file), file))
    verdict["file"] = file
    return Judged(file, run.returncode, verdict)


def plain(text: str) -> str:
    """One line without control characters, not too long: what a lab says is not ours."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 3]}..."


def cell(text: str) -> str:
    """A text as it may stand in a table of Markdown, where it can neither link nor mention."""
    return re.sub(
        r"[\\`*_\[\]|@#:~]", lambda found: f"&#{ord(found[0])};", html.escape(plain(text))
    )


def table(judged: Sequence[Judged]) -> str:
    """What came of all files, as Markdown."""
    lines = [f"{closing(judged)}\n", "| lab | passed | not passed |", "|---|---|---|"]
    for one in judged:
        missing = "<br>".join(cell(line) for line in one.missing)
        lines.append(f"| {cell(one.file)} | {one.score} | {missing} |")
    return "\n".join(lines) + "\n"


def closing(judged: Sequence[Judged]) -> str:
    """One sentence: how many passed, and how many could not be judged."""
    passed = sum(one.code == ALL_PASSED for one in judged)
    impossible = sum(one.code == IMPOSSIBLE for one in judged)
    sentence = f"{passed} of {len(judged)} labs passed"
    return f"{sentence}, {impossible} could not be judged." if impossible else f"{sentence}."


def write(folder: Path, judged: Sequence[Judged]) -> None:
    """One JSON file a lab, of the shape of `src/cachelab/submission/check.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(judged, 1):
        if one.verdict is not None:
            name = re.sub(r"[^\w.-]+", "-", one.file.removesuffix(".ipynb")).strip("-.")[-80:]
            text = json.dumps(one.verdict, indent=1)
            (folder / f"{number:03}-{name}.json").write_text(text + "\n", "utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/judge.py", description="Judge labs that others handed in."
    )
    parser.add_argument("labs", nargs="+", help="files, folders or patterns")
    parser.add_argument("--verdicts", type=Path, help="a folder for the verdicts, as JSON")
    parser.add_argument("--summary", type=Path, help="a file to which a table is appended")
    options = parser.parse_args(argv)
    files, nothing = find(options.labs)
    for pattern in nothing:
        print(f"There is no lab at {plain(pattern)}: name a file, a folder or a pattern.")
    judged = []
    for file in files:
        one = judge(file)
        judged.append(one)
        print(f"lab {plain(file)}: {one.score} passed", flush=True)
        for line in one.missing:
            print(f"    not passed: {plain(line)}", flush=True)
    print(closing(judged))
    try:
        if options.verdicts:
            write(options.verdicts, judged)
        if options.summary:
            with options.summary.open("a", encoding="utf-8") as summary:
                summary.write(table(judged))
    except OSError as error:
        print(f"The verdicts cannot be written ({error}).", file=sys.stderr)
        return IMPOSSIBLE
    codes = [one.code for one in judged] + [IMPOSSIBLE] * bool(nothing or not judged)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
