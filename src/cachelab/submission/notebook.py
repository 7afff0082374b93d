"""Judges a whole lab file: runs it in a kernel of its own and then checks every exercise.

The kernel can be killed from outside, so nothing that an answer does can stop the judging. It has
a home and a temp folder of its own, nothing secret in its environment, and a fence (`fence.py`).
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cachelab.exercises import catalogue, labs
from cachelab.judge.exercise import Exercise
from cachelab.lab.lab import kept_shop
from cachelab.origin import copy_of_shop
from cachelab.process.guard import Guard, GuardError
from cachelab.process.limits import CHECK_SECONDS
from cachelab.process.patience import Patience
from cachelab.record.verdict import MIME, OUTCOMES, Verdict

CELL_SECONDS = 20.0
CELLS_SECONDS = 120.0  # for all cells of a lab together, those that have to be run again included
START_SECONDS = 60.0
INTERRUPT_SECONDS = 2.0  # what a cell has to end in when it is interrupted, before it is killed

# What a submission sees of the user's environment: no tokens, no addresses of servers, no board.
SEEN = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|TERM|VIRTUAL_ENV|PYTHON\w+|CONDA\w*|LD_LIBRARY_PATH|DYLD_\w+"
    r"|\w+_NUM_THREADS|SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT"
    r"|CACHELAB_(BACKEND|SERVER|EDGE|STRICT)"
)
HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair


class CannotJudge(Exception):
    """This file cannot be judged; the text is one sentence."""


@dataclass(frozen=True)
class Judged:
    """What came of a lab file: a verdict an exercise, and cells that had to be stopped.

    A verdict is what `Verdict.as_dict` gives: it comes from another process.
    """

    lab: str
    file: str
    verdicts: list[tuple[Exercise, dict[str, Any]]]
    cells: list[tuple[int, str]]  # number from 1, what was wrong with it

    @property
    def passed(self) -> int:
        """How many exercises passed."""
        return sum(verdict["outcome"] == "passed" for _, verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: the shape is that of `check.json`."""
        return {
            "schema": 1,
            "lab": self.lab,
            "file": self.file,
            "passed": self.passed,
            "total": len(self.verdicts),
            "exercises": [
                {
                    "id": exercise.id,
                    "title": exercise.title,
                    "function": exercise.function,
                    **{key: value for key, value in verdict.items() if key != "exercise"},
                }
                for exercise, verdict in self.verdicts
            ],
            "cells": [{"cell": number, "problem": what} for number, what in self.cells],
        }


def judge_lab(path: Path, cell_seconds: float | None = None) -> Judged:
    """Judge the lab at `path`; CannotJudge, one sentence, when that is not possible."""
    lab, cells = read_lab(path)
    exercises = catalogue(lab)
    run = _Run(path, lab, cells, CELL_SECONDS if cell_seconds is None else cell_seconds)
    try:
        run.start()
        for number, cell in enumerate(cells, 1):
            if cell.is_code:
                run.cell(number, cell)
        verdicts = [(exercise, run.judge(exercise)) for exercise in exercises]
    except (GuardError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotJudge(f"{path} could not be judged to the end: {reason}.") from None
    finally:
        run.close()
    return Judged(lab, str(path), verdicts, run.stopped)


# The file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One cell of a lab file."""

    text: str
    is_code: bool
    exercise: str | None


def read_lab(path: Path) -> tuple[str, list[Cell]]:
    """The stem of the lab and its cells; CannotJudge, one sentence, for what is no lab."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CannotJudge(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise CannotJudge(f"{path} is a folder; name one lab in it.") from None
    except OSError as error:
        raise CannotJudge(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CannotJudge(f"{path} is not a notebook: it is not UTF-8 text.") from None
    except RecursionError:
        raise CannotJudge(f"{path} is not a notebook: its JSON is nested too deep.") from None
    except ValueError as error:
        raise CannotJudge(f"{path} is not a notebook: its JSON is broken ({error}).") from None
    cells = raw.get("cells") if isinstance(raw, dict) else None
    if not isinstance(cells, list) or raw.get("nbformat") != 4:
        raise CannotJudge(f"{path} is not a notebook of format 4.")
    language = _language(raw.get("metadata"))
    if language != "python":
        raise CannotJudge(f"{path} is written for {language[:40]!r}, but a lab is in Python.")
    return _stem(path, raw), [_cell(path, number, cell) for number, cell in enumerate(cells, 1)]


def _language(metadata: Any) -> str:
    """The language a notebook says it is in; "python" when it says nothing."""
    for part, name in (("language_info", "name"), ("kernelspec", "language")):
        told = metadata.get(part) if isinstance(metadata, dict) else None
        said = told.get(name) if isinstance(told, dict) else None
        if isinstance(said, str) and said:
            return said.lower()
    return "python"


def _cell(path: Path, number: int, raw: Any) -> Cell:
    source = raw.get("source", "") if isinstance(raw, dict) else None
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    if not isinstance(source, str):
        raise CannotJudge(f"{path} is not a notebook: a cell of it has no text.")
    if not source.isascii() and HALF.search(source):
        # JSON can hold it and UTF-8 cannot: no kernel could be sent it.
        raise CannotJudge(f"{path} is not a notebook: its cell {number} holds half a character.")
    metadata = raw.get("metadata")
    exercise = metadata.get("exercise") if isinstance(metadata, dict) else None
    return Cell(source, raw.get("cell_type") == "code", exercise)


def _stem(path: Path, raw: dict[str, Any]) -> str:
    known = labs()
    metadata: Any = raw.get("metadata")
    ours = metadata.get("cachelab") if isinstance(metadata, dict) else None
    source = Path(str(ours.get("source", "")) if isinstance(ours, dict) else "")
    if source.parent.name == "notebooks":
        lab = f"labs/{source.stem}.ipynb"
        raise CannotJudge(f"{path} is the chapter, not its lab: judge {lab}.")
    for stem in (path.stem, source.stem):
        if stem in known:
            return stem
    raise CannotJudge(f"{path} is no lab with exercises: known are {', '.join(known) or 'none'}.")


# The kernel ----------------------------------------------------------------------------------


@dataclass
class _CellRun:
    """How the run of one cell ended, the error it showed, and the verdict it gave."""

    ended: Literal["idle", "late", "dead"]
    error: str = ""
    verdict: dict[str, Any] | None = None


@dataclass
class _Run:
    """One lab in one kernel, or in several, if some have to be killed."""

    path: Path
    lab: str
    cells: list[Cell]
    cell_seconds: float
    good: list[str] = field(default_factory=list)  # ran to their end, in order
    stopped: list[tuple[int, str]] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    _guard: Guard | None = None
    _client: Any = None
    _pid: int = 0
    _until: float = field(default_factory=lambda: time.monotonic() + CELLS_SECONDS)

    def start(self) -> None:
        """A fresh kernel with folders of its own, inside the fence."""
        try:
            from jupyter_client.blocking.client import BlockingKernelClient
            from jupyter_client.connect import write_connection_file
        except ImportError:
            raise CannotJudge(
                "Judging a lab needs Jupyter's client: pip install 'cachelab[lab,build]'."
            ) from None
        if self._guard is None:
            self._guard = Guard()
            self._create_folders(self._guard.folder)
        folder = self._guard.folder
        label = secrets.token_hex(2)
        file = str(folder / f"kernel-{label}.json")
        # Sockets in our own folder: no port that somebody else could take or reach.
        place: dict[str, Any] = (
            {"ip": str(folder / label), "transport": "ipc"} if os.name == "posix" else {}
        )
        write_connection_file(file, **place)
        self._pid = self._guard.spawn(
            [sys.executable, "-m", "ipykernel_launcher", "-f", file, "--log-level=CRITICAL"],
            env=self._environment(),
            log="kernel.log",
        )
        self._client = BlockingKernelClient(connection_file=file)
        self._client.load_connection_file()
        self._client.start_channels()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._client.wait_for_ready(timeout=1)
                break
            except RuntimeError:
                if self._is_dead() or time.monotonic() > deadline:
                    said = f"No kernel could be started: {self._last_log_lines()}."
                    raise CannotJudge(said) from None

        raised = self._execute(
            f"__import__('os').chdir({str(self._work)!r})\n"
            "__import__('cachelab.submission.fence', fromlist=['up']).up("
            f"{str(self._work)!r}, {self.lab!r})",
            START_SECONDS,
        )
        if raised.ended != "idle" or raised.error:
            why = raised.error or "it did not come up"
            raise CannotJudge(f"No fence could be put around the lab: {why}.")

    @property
    def _work(self) -> Path:
        """The one folder in which the submission may write."""
        assert self._guard is not None
        return self._guard.folder / "work"

    def _create_folders(self, folder: Path) -> None:
        """Make the submission's folders; the shop is seeded here, by nobody's code but ours."""
        for name in ("home", "tmp", "private"):
            (self._work / name).mkdir(parents=True)
        shutil.copyfile(self.path, self._work / self.path.name)
        copy_of_shop(folder, kept_shop()).unlink()
        for kept in kept_shop().glob("shop-*.sqlite"):
            shutil.copyfile(kept, self._work / "home" / kept.name)

    def _environment(self) -> dict[str, str]:
        seen = {name: value for name, value in os.environ.items() if SEEN.fullmatch(name.upper())}
        home, temp, private = (str(self._work / name) for name in ("home", "tmp", "private"))
        return {
            **seen,
            **dict.fromkeys(("HOME", "USERPROFILE", "CACHELAB_HOME"), home),
            **dict.fromkeys(("TMPDIR", "TMP", "TEMP"), temp),
            **dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR"), private),
            "CACHELAB_JUDGING": "1",
            "MPLBACKEND": "agg",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def close(self) -> None:
        """End the kernel and remove its folder."""
        self._stop_client()
        if self._guard is not None:
            self._guard.close()

    def cell(self, number: int, cell: Cell) -> None:
        """Run one cell; when it has to be killed, go on without it."""
        if not cell.text.strip():
            return
        if self._seconds() <= 0:
            what = f"was not run: those before it took all of the {CELLS_SECONDS:g} s there are"
            self.errors[number] = what
            self.stopped.append((number, f"The cell {what}."))
            return
        done = self._execute(cell.text, self._seconds())
        if done.ended == "idle":
            self.good.append(cell.text)
            if done.error:
                self.errors[number] = f"stopped with {done.error}"
            return
        what = "ended the kernel"
        if done.ended == "late":
            what = f"did not end within {self.cell_seconds:g} s"
        self.errors[number] = what
        self.stopped.append((number, f"The cell {what}; the others were run without it."))
        if done.ended == "dead" or not self._interrupt():
            self._again()

    def _seconds(self) -> float:
        """How long the next cell may take."""
        return min(self.cell_seconds, self._until - time.monotonic())

    def judge(self, exercise: Exercise) -> dict[str, Any]:
        """Check one exercise in the kernel, as it is after all cells."""
        # No name of the notebook is relied on: it may have changed any of them.
        code = (
            "__import__('IPython.display').display.publish_display_data({"
            f"{MIME!r}: __import__('cachelab.submission.fence', fromlist=['judge']).judge("
            f"globals(), {exercise.id!r})}})"
        )
        done = self._execute(code, CHECK_SECONDS)
        name = exercise.function
        if done.ended != "idle":
            said = f"did not come back within {CHECK_SECONDS:g} s, and had to be killed"
            said = said if done.ended == "late" else "ended the kernel"
            if done.ended == "dead" or not self._interrupt():
                self._again()
            return Verdict("failed", f"{name} {said}.", exercise=exercise.id).as_dict()
        if not _is_verdict(done.verdict, exercise):
            reason = done.error or "what it said is no verdict"
            said = f"The check of {exercise.id} itself failed ({reason}): please report it."
            return Verdict("proved nothing", said, exercise=exercise.id).as_dict()
        assert done.verdict is not None
        why = self._why_undefined(exercise)
        if why and f"defines no {name}" in done.verdict["summary"]:
            said = f"There is no {name}: its cell {why}."
            return Verdict("failed", said, exercise=exercise.id).as_dict()
        return done.verdict

    def _why_undefined(self, exercise: Exercise) -> str:
        """What became of the cell that should define the function."""
        for number, cell in enumerate(self.cells, 1):
            is_its = cell.exercise == exercise.id or f"def {exercise.function}(" in cell.text
            if is_its and number in self.errors:
                return self.errors[number]
        return ""

    def _again(self) -> None:
        """A new kernel in place of one that is dead or does not listen, brought to where it was."""
        assert self._guard is not None
        self._stop_client()
        if not self._is_dead():
            self._guard.kill(self._pid)
        self.start()
        still_good = []
        for text in self.good:
            done = self._execute(text, max(1.0, self._seconds()))
            if done.ended == "idle":
                still_good.append(text)
            else:
                # What ran once and does not run again: leave it out, and begin once more.
                self.good = [one for one in self.good if one is not text]
                return self._again()
        self.good = still_good
        return None

    def _execute(self, code: str, seconds: float) -> _CellRun:
        """Run code and wait for its end; what it prints is dropped."""
        sent = self._client.execute(code, allow_stdin=False, stop_on_error=False)
        patience = Patience(seconds, process=self._pid)
        done = _CellRun("idle")
        while True:
            if patience.left() <= 0:
                done.ended = "late"
                return done
            try:
                message = self._client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                if self._is_dead():
                    done.ended = "dead"
                    return done
                continue
            if message["parent_header"].get("msg_id") != sent:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "error":
                text = " ".join(f"{content.get('ename')}: {content.get('evalue')}".split())
                done.error = text if len(text) <= 160 else text[:157] + "..."
            elif kind == "display_data" and MIME in content.get("data", {}):
                done.verdict = content["data"][MIME]
            elif kind == "status" and content.get("execution_state") == "idle":
                return done

    def _interrupt(self) -> bool:
        """Whether the kernel listens again after a Ctrl-C."""
        assert self._guard is not None
        if os.name != "posix":
            return False
        self._guard.signal(self._pid, signal.SIGINT)
        return self._execute("None", INTERRUPT_SECONDS).ended == "idle"

    def _is_dead(self) -> bool:
        assert self._guard is not None
        return self._guard.returncode(self._pid) is not None

    def _stop_client(self) -> None:
        if self._client is not None:
            self._client.stop_channels()
            self._client = None

    def _last_log_lines(self) -> str:
        assert self._guard is not None
        log = self._guard.folder / "kernel.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1].rstrip(".") if lines else "it said nothing"


def _is_verdict(told: Any, exercise: Exercise) -> bool:
    """Whether this is what `Verdict.as_dict` gives: the kernel may say anything."""
    shapes = dict.fromkeys(("exercise", "outcome", "summary", "hint", "printed", "order"), str)
    if not isinstance(told, dict) or set(told) != {*shapes, "schedules", "counterexample", "why"}:
        return False
    lines = [] if told["counterexample"] is None else told["counterexample"]
    return (
        all(isinstance(told[name], kind) for name, kind in shapes.items())
        and told["exercise"] == exercise.id
        and told["outcome"] in OUTCOMES
        and type(told["schedules"]) is int
        and told["schedules"] >= 0
        and all(_is_text(part) for part in (lines, told["why"]))
    )


def _is_text(lines: Any) -> bool:
    return isinstance(lines, list) and all(isinstance(line, str) for line in lines)
