"""Other people's labs, judged by tools/judge.py and by the action's own steps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tools import judge

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
LAB = "00_start_here.ipynb"
STEPS = {
    step["name"]: step
    for step in yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))["runs"]["steps"]
    if "name" in step
}
INPUTS = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))["inputs"]
SCHEMA = json.loads((ROOT / "src/cachelab/submission/check.json").read_text("utf-8"))
posix = pytest.mark.skipif(os.name != "posix", reason="the action runs on Linux and macOS")


def act(
    folder: Path, python: str, labs: str, must_pass: str = INPUTS["must-pass"]["default"]
) -> subprocess.CompletedProcess[str]:
    """Run the action's step that judges; `python` is what its .venv/bin/python does."""
    action = folder / "the action"
    (action / ".venv/bin").mkdir(parents=True)
    (action / "tools").symlink_to(ROOT / "tools")
    program = action / ".venv/bin/python"
    program.write_text(f"#!/bin/sh\n{python}\n", "utf-8")
    program.chmod(0o755)
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEPS["Judge"]["run"]],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "GITHUB_ACTION_PATH": str(action),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "LABS": labs,
            "VERDICTS": INPUTS["verdicts"]["default"],
            "MUST_PASS": must_pass,
        },
        capture_output=True,
        text=True,
    )


REAL = f'exec "{sys.executable}" "$@"'


@posix
@pytest.mark.timeout(240)
def test_the_action_judges_a_right_an_untouched_and_a_broken_lab_of_three_people(
    tmp_path: Path,
) -> None:
    for who, text in {
        "anna": (ROOT / "solutions" / LAB).read_text("utf-8"),
        "bert": (ROOT / "labs" / LAB).read_text("utf-8"),
        "carl": '{"cells": [',
    }.items():
        (tmp_path / "handed in" / who).mkdir(parents=True)
        (tmp_path / "handed in" / who / LAB).write_text(text, "utf-8")
    done = act(tmp_path, REAL, "handed in\n")
    assert done.returncode == judge.IMPOSSIBLE, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert f"lab handed in/anna/{LAB}: 2 of 2 passed" in lines
    assert f"lab handed in/bert/{LAB}: 0 of 2 passed" in lines
    assert f"lab handed in/carl/{LAB}: - passed" in lines
    assert "1 of 3 labs passed, 1 could not be judged." in lines

    # What a lab makes it say lies between two lines that only the runner understands.
    assert lines[0].startswith("::stop-commands::")
    assert lines[-1] == f"::{lines[0].removeprefix('::stop-commands::')}::"

    files = sorted((tmp_path / "verdicts").iterdir())
    verdicts = [json.loads(file.read_text("utf-8")) for file in files]
    for verdict in verdicts:
        jsonschema.validate(verdict, SCHEMA)
    assert [(one["file"], one["passed"]) for one in verdicts] == [
        (f"handed in/anna/{LAB}", 2),
        (f"handed in/bert/{LAB}", 0),
    ]
    summary = (tmp_path / "summary.md").read_text("utf-8")
    rows = [line for line in summary.splitlines() if line.startswith("| handed")]
    assert len(rows) == 3
    assert "| 2 of 2 | |" in rows[0].replace("  ", " ")
    assert "not attempted" in rows[1]
    assert "is not a notebook" in rows[2]
    assert str(tmp_path) not in summary


@posix
@pytest.mark.parametrize(
    ("code", "must_pass", "expected"),
    [(0, "true", 0), (1, "true", 1), (1, "false", 0), (2, "true", 2), (2, "false", 2), (0, "x", 2)],
)
def test_the_step_is_red_when_it_should_be(
    tmp_path: Path, code: int, must_pass: str, expected: int
) -> None:
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs/a.ipynb").touch()
    python = f'[ "$1" = -c ] && echo token && exit; printf "<%s>" "$@"; echo; exit {code}'
    done = act(tmp_path, python, "labs/*.ipynb\nmy own/lab.ipynb", must_pass)
    assert done.returncode == expected
    if must_pass != "x":
        # Patterns and spaces arrive as they were written.
        assert done.stdout.splitlines()[1].endswith("<--><labs/*.ipynb><my own/lab.ipynb>")


def test_files_folders_and_patterns_are_found_once_and_checkpoints_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [
        "a/x.ipynb",
        "a/b/y.ipynb",
        "a/.ipynb_checkpoints/x.ipynb",
        "a/notes.txt",
        "[z]/z.ipynb",
    ]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    found, nothing = judge.find(["a", "a/*.ipynb", "**/y.ipynb", "[z]", "no/*.ipynb"])
    assert [name.replace(os.sep, "/") for name in found] == [
        "a/b/y.ipynb",
        "a/x.ipynb",
        "[z]/z.ipynb",
    ]
    assert nothing == ["no/*.ipynb"]


def test_nothing_to_judge_is_said_and_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge.main([str(tmp_path / "none.ipynb")]) == judge.IMPOSSIBLE
    assert "There is no lab at" in capsys.readouterr().out


def test_a_lab_sees_no_variable_of_the_job_and_a_home_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.update(options)
        assert Path(options["env"]["HOME"]).is_dir()
        return subprocess.CompletedProcess(command, 2, "", "It is no lab.\n")

    for name in ("GITHUB_TOKEN", "GITHUB_ENV", "ACTIONS_RUNTIME_TOKEN", "CACHELAB_CLASS_URL"):
        monkeypatch.setenv(name, "private")
    monkeypatch.setattr(judge.subprocess, "run", run)
    one = judge.judge(str(tmp_path / LAB))
    assert (one.code, one.verdict, one.missing) == (2, None, ["It is no lab."])
    assert "private" not in seen["env"].values()
    assert seen["env"]["PATH"] == os.environ["PATH"]
    assert seen["cwd"] == seen["env"]["HOME"]
    assert not Path(seen["env"]["HOME"]).exists()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (subprocess.CompletedProcess([], 1, "no json", ""), "The check ended with 1."),
        (subprocess.CompletedProcess([], -9, "", ""), "The check ended with -9."),
        (subprocess.TimeoutExpired([], 7), "It was not judged after 7 s, and was stopped."),
    ],
)
def test_a_check_that_gives_no_verdict_is_reported_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, result: Any, said: str
) -> None:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(judge.subprocess, "run", run)
    one = judge.judge(LAB, seconds=7)
    assert (one.code, one.missing) == (judge.IMPOSSIBLE, [said])


def test_what_a_lab_says_can_neither_break_the_table_nor_mention_nor_command() -> None:
    said = "a | b\n::error::x @team [l](http://h) <img src=x> `c` \x1b[31m " + "long " * 99
    verdict = {
        "passed": 0,
        "total": 1,
        "exercises": [{"id": "00_x.y", "outcome": "failed", "summary": said}],
    }
    (*_, row) = judge.table([judge.Judged("a|b.ipynb", 1, verdict)]).splitlines()
    assert row.count("|") == 4
    for dangerous in ("@", "[", "<img", "`", "\x1b", "::", "http://"):
        assert dangerous not in row
    assert len(judge.plain(said)) == judge.LONGEST_TEXT


def test_verdicts_of_people_who_chose_the_same_name_are_all_kept(tmp_path: Path) -> None:
    names = ["a/b.ipynb", "a-b.ipynb", "../../a.ipynb"]
    judge.write(tmp_path / "new", [judge.Judged(name, 0, {"file": name}) for name in names])
    kept = [json.loads(path.read_text("utf-8"))["file"] for path in (tmp_path / "new").iterdir()]
    assert sorted(kept) == sorted(names)
    shutil.rmtree(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
