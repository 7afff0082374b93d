"""The command line: labs judged in kernels that can be killed, labs reset, machines examined."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import pytest

import cachelab
from cachelab import exercises
from cachelab.command import cli, jupyter
from cachelab.submission.notebook import CannotJudge, judge_lab, read_lab

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "labs" / "05_cache_aside.ipynb"
SOLUTION = ROOT / "solutions" / "05_cache_aside.ipynb"
FIXTURES = str(Path(__file__).parent / "fixtures" / "exercises")
SCHEMA = json.loads((Path(cachelab.__file__).parent / "submission" / "check.json").read_text())


@pytest.fixture
def _throw_away_exercises(monkeypatch):
    monkeypatch.setattr(exercises, "__path__", [*exercises.__path__, FIXTURES])


def notebook(path: Path, *cells: str) -> Path:
    """A notebook of code cells; a leading line `# exercise: id` becomes their metadata."""
    written = []
    for text in cells:
        found = re.match(r"# exercise: (\S+)\n", text)
        metadata = {"exercise": found[1]} if found else {}
        written.append(
            {"cell_type": "code", "metadata": metadata, "source": text.splitlines(keepends=True)}
        )
    raw = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": written}
    path.write_text(json.dumps(raw))
    return path


def left_folders() -> set[str]:
    own = f"cachelab-{os.getpid()}-"
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(own)}


# check ---------------------------------------------------------------------------------------


def test_an_untouched_lab_is_not_attempted_and_nothing_is_written_in_the_home(tmp_path):
    before = left_folders()
    done = subprocess.run(
        [sys.executable, "-m", "cachelab", "check", str(LAB), "--json"],
        env={**os.environ, "HOME": str(tmp_path), "CACHELAB_HOME": str(tmp_path / "shop")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    jsonschema.validate(told, SCHEMA)
    assert {one["outcome"] for one in told["exercises"]} == {"not attempted"}
    assert (told["lab"], told["passed"], told["total"]) == ("05_cache_aside", 0, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert left_folders() == before


def test_a_solution_passes(capsys):
    assert cli.main(["check", str(SOLUTION)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "passed         05_cache_aside.read"
    assert lines[-1] == f"5 of 5 passed in {SOLUTION}"


@pytest.mark.usefixtures("_throw_away_exercises")
@pytest.mark.slow
def test_a_lab_that_does_its_worst_is_judged_all_the_same(tmp_path, capsys, monkeypatch):
    """Its cells flood, hang and die, its answers hang in C, leave, and do not exist."""
    path = notebook(
        tmp_path / "90_throw_away.ipynb",
        f"import cachelab.exercises\ncachelab.exercises.__path__.append({FIXTURES!r})\nkept = 1",
        "for _ in range(100): print('x' * 1_000_000)",
        "while True:\n    try:\n        import time; time.sleep(1)\n    except: pass",
        "import os; os._exit(7)",
        "from os import _exit",
        "# exercise: 90_throw_away.first\ndef first(cache, db, user_id):\n    assert kept == 1\n"
        "    return db.user(user_id)",
        "1/0",
        "# exercise: 90_throw_away.nothing\ndef nothing(cache):\n    return sum(iter(int, 1))",
        "# exercise: 90_throw_away.bug\ndef bug(cache, seconds=3:\n    return 1",
        "# exercise: 90_throw_away.verdict\ndef verdict(cache, *, keyword=1): return 1",
        "# exercise: 90_throw_away.endless\ndef endless(cache):\n    exit()",
        "import cachelab; cachelab.check('90_throw_away.nothing', nothing)",
    )
    # Enough for the imports of the first cell and of a check, also on a busy machine.
    monkeypatch.setattr("cachelab.submission.notebook.CHECK_SECONDS", 8.0)
    judged = judge_lab(path, cell_seconds=12.0)
    told = {exercise.id.partition(".")[2]: verdict for exercise, verdict in judged.verdicts}
    assert told["first"]["outcome"] == "passed", told["first"]
    assert told["nothing"]["summary"] == (
        "nothing did not come back within 8 s, and had to be killed."
    )
    assert told["bug"]["outcome"] == "failed"
    assert told["bug"]["summary"].startswith("There is no bug: its cell stopped with SyntaxError:")
    assert told["verdict"]["outcome"] == "passed"
    assert told["endless"]["summary"].startswith("endless called exit() in line 3 (`exit()`)")
    assert [number for number, _ in judged.cells] == [3, 4]
    jsonschema.validate(judged.as_dict(), SCHEMA)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("_throw_away_exercises")
def test_an_answer_that_ends_the_kernel_does_not_end_the_judging(tmp_path):
    path = notebook(
        tmp_path / "90_throw_away.ipynb",
        f"import cachelab.exercises\ncachelab.exercises.__path__.append({FIXTURES!r})",
        "from os import _exit\ndef first(cache, db, user_id):\n    _exit(3)",
        "def verdict(cache, *, keyword=1): return 1",
    )
    told = {exercise.id: verdict for exercise, verdict in judge_lab(path).verdicts}
    assert told["90_throw_away.first"]["summary"] == "first ended the kernel."
    assert told["90_throw_away.verdict"]["outcome"] == "passed"
    assert told["90_throw_away.endless"]["outcome"] == "not attempted"


def test_a_copy_under_another_name_is_known_by_its_source(tmp_path):
    copy = tmp_path / "my copy.ipynb"
    shutil.copy(LAB, copy)
    assert read_lab(copy)[0] == "05_cache_aside"


BROKEN = {
    "missing": (None, "There is no file"),
    "folder": ("folder", "is a folder"),
    "binary": (b"\xff\xfe\x00", "not UTF-8"),
    "empty": (b"", "its JSON is broken"),
    "cut off": (b'{"cells": [', "its JSON is broken"),
    "deep": (b"[" * 100_000, "not a notebook"),
    "a list": (b"[]", "not a notebook of format 4"),
    "an old one": (b'{"cells": [], "nbformat": 3}', "not a notebook of format 4"),
    "cells are no list": (b'{"cells": {}, "nbformat": 4}', "not a notebook of format 4"),
    "a cell is no cell": (b'{"cells": [5], "nbformat": 4, "metadata": {}}', "is no lab"),
    "another": (b'{"cells": [], "nbformat": 4, "metadata": 7}', "is no lab with exercises: known"),
}


@pytest.mark.parametrize(("content", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_lab_gets_one_sentence_and_exit_code_2(tmp_path, capsys, content, said):
    path = tmp_path / "lab.ipynb"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert cli.main(["check", str(path), "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert len(told.err.splitlines()) == 1


def test_a_chapter_is_not_taken_for_its_lab():
    with pytest.raises(CannotJudge, match="is the chapter, not its lab: judge labs/05_cache_aside"):
        judge_lab(ROOT / "notebooks" / "05_cache_aside.ipynb")


def test_the_schema_is_one_and_refuses_what_is_not_it():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 1}, SCHEMA)


# reset ---------------------------------------------------------------------------------------


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    """A workbook with one lab, in a folder with a space in its name."""
    root = tmp_path / "my workbook"
    for part in ("content/labs/05_cache_aside.py", "labs/05_cache_aside.ipynb"):
        target = root / part
        target.parent.mkdir(parents=True)
        shutil.copy(ROOT / part, target)
    shutil.copytree(ROOT / "tools", root / "tools")
    monkeypatch.setattr(cli, "project_root", lambda: root)
    return root


def test_a_reset_gives_the_lab_back_and_keeps_what_was_written(workbook, capsys):
    lab = workbook / "labs" / "05_cache_aside.ipynb"
    original = lab.read_bytes()
    lab.write_bytes(b"my work, half saved {")
    assert cli.main(["reset", "05_cache_aside"]) == 0
    assert lab.read_bytes() == original
    (backup,) = (workbook / "labs").glob("05_cache_aside.backup-*.ipynb")
    assert re.fullmatch(r"05_cache_aside\.backup-\d{8}-\d{6}\.ipynb", backup.name)
    assert backup.read_bytes() == b"my work, half saved {"
    said = capsys.readouterr().out
    assert f"your version is labs/{backup.name}" in said
    assert str(workbook) not in said


def test_resetting_twice_in_a_second_keeps_both(workbook):
    lab = workbook / "labs" / "05_cache_aside.ipynb"
    for work in (b"one", b"two", b"three"):
        lab.write_bytes(work)
        assert cli.main(["reset", str(lab)]) == 0
    kept = sorted(path.read_bytes() for path in lab.parent.glob("*.backup-*"))
    assert kept == [b"one", b"three", b"two"]
    assert {path.suffix for path in lab.parent.iterdir()} == {".ipynb"}


def test_a_lab_that_is_gone_comes_back(workbook, capsys, monkeypatch):
    lab = workbook / "labs" / "05_cache_aside.ipynb"
    original = lab.read_bytes()
    lab.unlink()
    monkeypatch.chdir(workbook)
    assert cli.main(["reset", "labs/05_cache_aside.ipynb"]) == 0
    assert lab.read_bytes() == original
    assert "is back" in capsys.readouterr().out
    assert cli.main(["reset", "05_cache_aside"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert [path.name for path in lab.parent.iterdir()] == [lab.name]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("05_cache_asid", "did you mean 05_cache_aside?"),
        ("nonsense", "known: 05_cache_aside."),
        ("../content/labs/05_cache_aside", "There is no lab"),
        ("notebooks/05_cache_aside.ipynb", "There is no lab"),
        ("", "There is no lab"),
    ],
)
def test_an_unknown_lab_is_refused_in_one_sentence(workbook, capsys, asked, said):
    assert cli.main(["reset", asked]) == 2
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines())) == ("", 1)
    assert said in told.err


def test_an_original_with_an_error_changes_nothing(workbook, capsys):
    source = workbook / "content" / "labs" / "05_cache_aside.py"
    source.write_text(source.read_text().replace("### END SOLUTION", "### END SOLUTON", 1))
    lab = workbook / "labs" / "05_cache_aside.ipynb"
    lab.write_bytes(b"my work")
    assert cli.main(["reset", "05_cache_aside"]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    assert lab.read_bytes() == b"my work"
    assert [path.name for path in lab.parent.iterdir()] == [lab.name]


def test_outside_a_workbook_reset_says_where_to_go(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "project_root", lambda: tmp_path)
    assert cli.main(["reset", "05_cache_aside"]) == 2
    assert "run this in the folder of the workbook" in capsys.readouterr().err


# doctor --------------------------------------------------------------------------------------


@pytest.fixture
def _fake_server(monkeypatch):
    monkeypatch.setenv("CACHELAB_BACKEND", "fake")
    monkeypatch.delenv("CACHELAB_REDIS_URL", raising=False)


@pytest.mark.usefixtures("_fake_server")
def test_on_a_machine_that_is_well_the_doctor_says_so(capsys):
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "All is well."
    assert all(line.startswith("ok ") for line in lines[:-1])
    names = (
        "Python",
        "packages",
        "cache server",
        "edge",
        "SQLite",
        "JupyterLab",
        "port",
        "workbook",
    )
    for name in names:
        assert any(line[9:].startswith(f"{name}: ") for line in lines)


@pytest.mark.usefixtures("_fake_server")
def test_the_doctor_tells_the_same_as_json(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["ok"]) == (1, True)
    assert {"name", "ok", "found", "advice"} == set(told["findings"][0])


def test_the_doctor_says_how_to_get_an_edge_and_calls_it_no_problem(monkeypatch):
    monkeypatch.setenv("CACHELAB_EDGE", "none")
    (found,) = cli._edge()
    assert found.ok
    assert "unset it to have one; without it chapter 04 can be read, not run" in found.found


def test_the_doctor_starts_the_server_that_would_be_used_and_ends_it(monkeypatch):
    monkeypatch.delenv("CACHELAB_REDIS_URL", raising=False)
    monkeypatch.delenv("CACHELAB_BACKEND", raising=False)
    before = left_folders()
    (found,) = cli._server()
    assert found.ok
    assert "our own" in found.found or "fakeredis" in found.found
    assert left_folders() == before


@pytest.mark.usefixtures("_fake_server")
def test_each_problem_gets_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli, "OLDEST_PYTHON", (99, 0))
    monkeypatch.setattr(cli, "OLDEST_SQLITE", (99, 0))
    versions = {"redis": "5.0.1", "jupyterlab": "", "ipykernel": ""}
    real = cli._version
    monkeypatch.setattr(cli, "_version", lambda name: versions.get(name, real(name)))
    monkeypatch.setattr(cli, "NEEDED_DISK_BYTES", 10**18)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    found = {finding.name: finding for finding in cli.examine()}
    assert cli.main(["doctor"]) == 1
    assert "Problems: 6." in capsys.readouterr().out
    bad = {name: finding.advice for name, finding in found.items() if not finding.ok}
    assert set(bad) == {"Python", "packages", "SQLite", "JupyterLab", "workbook", "temp folder"}
    assert all(bad.values())
    assert "redis is 5.0.1, needed is >=8.1" in found["packages"].found
    assert "jupyterlab is missing" in found["packages"].found


def test_a_server_that_cannot_be_had_is_a_problem_with_advice(monkeypatch):
    monkeypatch.delenv("CACHELAB_BACKEND", raising=False)
    with socket.socket() as taken:  # bound, so nobody else listens there; and nobody answers
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("CACHELAB_REDIS_URL", f"redis://:secret@127.0.0.1:{port}")
        (found,) = cli._server()
    assert not found.ok
    assert f"127.0.0.1:{port}" in found.found
    assert "secret" not in found.found + found.advice
    assert found.advice


def test_a_look_that_fails_is_a_finding_and_the_others_go_on(monkeypatch):
    def broken():
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli, "_LOOKS", [("this", broken), ("port", cli._port)])
    first, second = cli.examine()
    assert (first.ok, first.found) == (False, "could not be looked at (RuntimeError: two lines)")
    assert second.name == "port"


# lab and the rest ----------------------------------------------------------------------------


def test_lab_hands_everything_on_to_jupyterlab(monkeypatch):
    given = []
    monkeypatch.setattr(jupyter, "launch", lambda args: given.append(args) or 3)
    assert cli.main(["lab", "--no-browser", "--port", "8899", "--help"]) == 3
    assert given == [["--no-browser", "--port", "8899", "--help"]]


@pytest.mark.parametrize("arguments", [[], ["board"], ["check"], ["reset"], ["check", "a", "b"]])
def test_a_wrong_command_line_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "usage: cachelab" in capsys.readouterr().err


def test_it_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "cachelab", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cachelab {cachelab.__version__}\n"


def test_ctrl_c_ends_it_without_a_traceback(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_doctor", interrupted)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"
