"""`cachelab check` before submissions that do their worst, and the fence that is around them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import psutil
import pytest

import cachelab
from cachelab.command import cli
from cachelab.submission import notebook as judging

ROOT = Path(__file__).resolve().parents[1]
LAB = "00_start_here"
SCHEMA = json.loads((Path(cachelab.__file__).parent / "submission" / "check.json").read_text())

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="no signals, no forks, no limits"),
]


# The fence, one attack after the other --------------------------------------------------------

# Each must be refused with one sentence. `there` is a folder of the user's with files in it.
ATTACKS = """
open(f"{there}/precious.txt", "w")
open(f"{there}/precious.txt", "a")
open(f"{there}/precious.txt", "r+b")
open(f"{there}/new.txt", "x")
os.open(f"{there}/precious.txt", os.O_RDWR)
os.remove(f"{there}/precious.txt")
pathlib.Path(there, "precious.txt").unlink()
pathlib.Path(there, "precious.txt").write_text("gone")
os.rename(f"{there}/precious.txt", "mine.txt")
os.replace("decoy.txt", f"{there}/precious.txt")
shutil.move(f"{there}/precious.txt", "mine.txt")
shutil.copy("decoy.txt", f"{there}/precious.txt")
shutil.rmtree(there)
os.rmdir(f"{there}/empty")
os.remove("precious.txt", dir_fd=os.open(there, os.O_RDONLY))
os.mkdir(f"{there}/new")
os.makedirs(f"{there}/new/er")
os.truncate(f"{there}/precious.txt", 0)
os.chmod(there, 0o777)
os.utime(f"{there}/precious.txt")
os.symlink("/etc", f"{there}/link")
os.link("decoy.txt", f"{there}/link")
os.symlink(there, "way-out") or open("way-out/precious.txt", "w")
open("../" * 20 + there.lstrip("/") + "/precious.txt", "w")
sqlite3.connect(f"{there}/new.sqlite")
sqlite3.connect(f"file:{there}/new.sqlite?mode=rwc", uri=True)
tempfile.TemporaryFile(dir=there)
subprocess.run(["rm", "-rf", there])
subprocess.Popen("rm -rf " + there, shell=True)
os.system("rm -rf " + there)
os.popen("rm -rf " + there)
os.posix_spawn("/bin/rm", ["rm", "-rf", there], {})
os.execv("/bin/rm", ["rm", "-rf", there])
os.spawnv(os.P_WAIT, "/bin/rm", ["rm", "-rf", there])
os.fork()
multiprocessing.get_context("fork").Process(target=print).start()
os.kill(os.getppid(), 9)
os.killpg(os.getpgid(os.getppid()), 9)
"""

# Each must go through.
FINE = """
open("mine.txt", "w").write("1")
os.mkdir("folder"); os.rename("folder", "other"); os.rmdir("other")
pathlib.Path("mine.txt").unlink()
tempfile.TemporaryFile().write(b"1")
sqlite3.connect(":memory:").execute("create table a (b)")
sqlite3.connect("mine.sqlite").execute("create table a (b)")
assert open(f"{there}/precious.txt").read() == "kept"
open(os.devnull, "w").write("1")
os.symlink(there, "link"); os.remove("link")
os.kill(os.getppid(), 0)
lab = cachelab.start(); lab.cache.set("a", 1); assert lab.db.user(1); lab.close()
"""

# Each is more than one submission may have; nothing of it is really written or used.
TOO_MUCH = {
    'open("large.bin", "wb").truncate(fence.FILE_BYTES + 1)': "OSError",
    "bytearray(fence.MEMORY_BYTES)": "MemoryError",
}

INSIDE = """
import json, multiprocessing, os, pathlib, shutil, sqlite3, subprocess, sys, tempfile
import cachelab
from cachelab.submission import fence

there, here, told = sys.argv[1], os.getcwd(), {}
tempfile.tempdir = here
os.environ["CACHELAB_HOME"] = here
pathlib.Path("decoy.txt").write_text("decoy")
fence.up(here, "00_start_here")
for line in json.load(sys.stdin):
    try:
        exec(compile(line, "cell", "exec"))
        told[line] = ["went through", ""]
    except BaseException as error:
        told[line] = [type(error).__name__, str(error)]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], Path]:
    """What came of each attack and of each harmless line, and the folder that was attacked."""
    there = tmp_path_factory.mktemp("user")
    (there / "precious.txt").write_text("kept")
    (there / "empty").mkdir()
    with tempfile.TemporaryDirectory(prefix="fence-") as here:
        done = subprocess.run(
            [sys.executable, "-c", INSIDE, str(there)],
            input=json.dumps(
                [*ATTACKS.strip().splitlines(), *FINE.strip().splitlines(), *TOO_MUCH]
            ),
            cwd=os.path.realpath(here),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), there


@pytest.mark.parametrize("attack", ATTACKS.strip().splitlines())
def test_a_submission_cannot_reach_out_of_its_folder(fenced, attack):
    told, there = fenced
    kind, said = told[attack]
    assert kind == "Outside", said
    assert said.startswith("A submission that is being judged ")
    assert said.endswith(".")
    assert (there / "precious.txt").read_text() == "kept"
    assert sorted(path.name for path in there.iterdir()) == ["empty", "precious.txt"]


@pytest.mark.parametrize("line", FINE.strip().splitlines())
def test_what_a_lab_needs_goes_through_the_fence(fenced, line):
    assert fenced[0][line] == ["went through", ""]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds memory")
@pytest.mark.parametrize("line", TOO_MUCH)
def test_a_submission_has_a_bounded_file_and_bounded_memory(fenced, line):
    assert fenced[0][line][0] == TOO_MUCH[line]


# Whole submissions ---------------------------------------------------------------------------

IMPORTS = "import json"
REMEMBER = """
def remember(cache, key, value, seconds):
    cache.set(key, json.dumps(value), ex=seconds)"""
RECALL = """
def recall(cache, key, default=None):
    stored = cache.get(key)
    return default if stored is None else json.loads(stored)"""
RIGHT = (IMPORTS, REMEMBER, RECALL)
STUB = """
def remember(cache, key, value, seconds):
    raise NotImplementedError("00_start_here.remember")"""


@dataclass(frozen=True)
class Submission:
    """What is handed in: cells, or the bytes of a file; and what has to come of it."""

    cells: tuple[str, ...] | bytes | None
    code: int
    outcomes: str = ""  # of remember and recall, by their first letters
    says: tuple[str, ...] = ()  # in a summary, in what is said of a cell, or on stderr
    name: str = f"{LAB}.ipynb"
    cell_seconds: float = 20.0
    check_seconds: float = 10.0


def not_judged(content: bytes | None, says: str, name: str = f"{LAB}.ipynb") -> Submission:
    return Submission(content, 2, "", (says,), name)


# HOME and PRECIOUS stand for the user's own home folder and a file in it.
SUBMISSIONS = {
    "right, on a live cache": Submission(
        (
            "import cachelab\nlab = cachelab.start()",
            *RIGHT,
            "remember(lab.cache, 'a', 1, 60)\nassert recall(lab.cache, 'a') == 1",
            "verdict = cachelab.check('00_start_here.remember', remember)",
            # The tokens and addresses of whoever judges are not there to be read.
            "import os\nif 'secret' in str(dict(os.environ)): del remember",
        ),
        *(0, "pp"),
    ),
    "wrong": Submission(
        (
            IMPORTS,
            "def remember(cache, key, value, seconds):\n    cache.set(key, str(value), ex=seconds)",
            "recall = 5",
        ),
        *(1, "ff", ("which is not JSON", "was expected, but this is 5")),
    ),
    "half edited": Submission(
        (STUB, "def recall(cache, key, default=None:\n    stored = cache"),
        *(1, "nf", ("There is no recall: its cell stopped with SyntaxError",)),
    ),
    "duplicate cells": Submission(
        (IMPORTS, REMEMBER.replace("json.dumps", "str"), *(RECALL, REMEMBER, STUB, REMEMBER)),
        *(0, "pp"),
    ),
    "floods of output, escape codes, magics and missing modules around right answers": Submission(
        (
            "for _ in range(100): print('x' * 1_000_000)",
            "print('\\x1b[2J\\x1b]0;title\\x07\\x1b[31m')",
            "!rm -rf 'HOME'",
            "%%bash\nrm -rf 'HOME'",
            "%cd HOME\n%rm PRECIOUS",
            "%%writefile PRECIOUS\ngone",
            "%load_ext nothing_of_the_kind",
            "import nothing_of_the_kind",
            *RIGHT,
        ),
        *(0, "pp"),
    ),
    "an endless loop that catches everything, in a cell": Submission(
        ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", *RIGHT),
        *(0, "pp", ("did not end within 3 s",)),
        cell_seconds=3.0,
    ),
    "an endless loop and an endless generator as answers": Submission(
        (
            "def remember(cache, key, value, seconds):\n    while True: pass",
            "import itertools\ndef recall(cache, key, default=None):\n"
            "    return [n for n in itertools.count() if n < 0]",
        ),
        *(1, "ff", ("did not come back within 2 s",)),
    ),
    "an answer that hangs in C, and one that ends the kernel": Submission(
        (
            "def remember(cache, key, value, seconds): sum(iter(int, 1))",
            "from os import _exit\ndef recall(cache, key, default=None): _exit(0)",
        ),
        *(1, "ff", ("did not come back within 4 s, and had to", "recall ended the kernel.")),
        check_seconds=4.0,
    ),
    "bombs: forks, programs, threads, the kernel's end and that of its parent": Submission(
        (
            "import os, signal, subprocess, sys, threading, time\nos._exit(0)",
            "import os, signal, subprocess, sys, threading, time",
            "while True:\n    try:\n        os.fork()\n    except OSError: break",
            "for _ in range(1000): subprocess.Popen([sys.executable, '-c', 'input()'])",
            "for _ in range(50):\n"
            "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "os.kill(os.getppid(), signal.SIGKILL)",
            *RIGHT,
        ),
        *(0, "pp", ("The cell ended the kernel",)),
    ),
    "deletes the user's files": Submission(
        (
            "import os, pathlib, shutil\nshutil.rmtree('HOME')",
            "shutil.rmtree('HOME', ignore_errors=True)",
            "for place, _, files in os.walk('HOME'):\n    for name in files:\n        try:\n"
            "            os.remove(os.path.join(place, name))\n        except OSError: pass",
            "shutil.rmtree(os.path.expanduser('~'), ignore_errors=True)",
            "os.system(\"rm -rf 'HOME'\")",
            *RIGHT,
        ),
        *(0, "pp"),
    ),
    "deletes the user's files, as its answer": Submission(
        (
            "def remember(cache, key, value, seconds):\n    open('PRECIOUS', 'w')",
            "import shutil\ndef recall(cache, key, default=None):\n    shutil.rmtree('HOME')",
        ),
        *(1, "ff", ("may write only in its own", "may delete only in its own temporary folder")),
    ),
    "more memory than there is, and a recursion without end": Submission(
        (
            "held = bytearray(1 << 36)",
            "def remember(cache, key, value, seconds):\n    cache.set(key, bytearray(1 << 33))",
            "def recall(*args, **options): return recall(*args, **options)",
        ),
        *(1, "ff", ("asked for more memory than there is", "recall raised RecursionError")),
    ),
    "redefines cachelab and everything else it can name": Submission(
        (
            *RIGHT,
            "import sys\ncachelab = exercises = None\nprint = display = len = lambda *_: 1 / 0\n"
            "globals()['__name__'] = 'gone'",
        ),
        *(0, "pp"),
    ),
    "patches the check": Submission(
        (
            "import cachelab.exercises\n"
            "from cachelab.record.verdict import Verdict\n"
            "won = Verdict('passed', '!', exercise='00_start_here.recall')\n"
            "cachelab.check = cachelab.exercises.check = lambda *_: won\n"
            "cachelab.exercises.judge_in = lambda *_: won",
        ),
        *(1, "ff", ("The lab changes Cachelab itself (cachelab.exercises.check)",)),
    ),
    "patches the fence to say what is no verdict": Submission(
        ("from cachelab.submission import fence\nfence.judge = lambda *_: {'outcome': 'passed'}",),
        *(1, "pp", ("what it said is no verdict",)),
    ),
    "broken JSON": not_judged(b'{"cells": [{"cell_type": "code"', "its JSON is broken"),
    "empty": not_judged(b"", "its JSON is broken"),
    "a picture": not_judged(b"\x89PNG\r\n\x1a\n\xff\xfe", "not UTF-8 text"),
    "a program": not_judged(b"def remember(): ...", "its JSON is broken"),
    "in UTF-16": not_judged('{"cells": []}'.encode("utf-16"), "not UTF-8 text"),
    "a list": not_judged(b"[]", "is not a notebook of format 4"),
    "null": not_judged(b"null", "is not a notebook of format 4"),
    "of an old format": not_judged(b'{"nbformat": 3, "cells": []}', "not a notebook of format 4"),
    "nested a hundred thousand deep": not_judged(b"[" * 100_000, "is not a notebook"),
    "cells without text": not_judged(
        b'{"nbformat": 4, "metadata": {}, "cells": [{"source": 7}]}', "a cell of it has no text"
    ),
    "written for R": not_judged(
        b'{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "R"}}}',
        "is written for 'r', but a lab is in Python",
    ),
    "no lab of ours": not_judged(
        b'{"nbformat": 4, "metadata": {}, "cells": []}', "is no lab with exercises", "mine.ipynb"
    ),
    "a chapter": not_judged(
        (ROOT / "notebooks" / f"{LAB}.ipynb").read_bytes(), "is the chapter, not its lab"
    ),
    "a name that the terminal would obey": not_judged(b"", "JSON is broken", "a\n\x1b[2J.ipynb"),
    "not there": not_judged(None, "There is no file"),
}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a home folder, precious files in it, and secrets in the environment."""
    home = tmp_path / "home of the user"
    (home / "deep" / "er").mkdir(parents=True)
    for number, place in enumerate((home, home / "deep", home / "deep" / "er")):
        (place / "precious.txt").write_text(f"kept {number}\n" * 100)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CACHELAB_HOME", str(ROOT / ".cachelab" / "home"))
    monkeypatch.setenv("CACHELAB_CLASS_URL", "redis://learner-01:secret@127.0.0.1:1")
    monkeypatch.setenv("SECRET_TOKEN", "secret")
    return home


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file and folder below, with what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes() if path.is_file() else b""
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def own_folders() -> set[str]:
    own = f"cachelab-{os.getpid()}-"
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(own)}


def handed_in(folder: Path, submission: Submission, home: Path) -> Path:
    path = folder / submission.name
    if submission.cells is None:
        return path
    if isinstance(submission.cells, bytes):
        path.write_bytes(submission.cells)
        return path
    cells = []
    for cell in submission.cells:
        text = cell.replace("PRECIOUS", str(home / "precious.txt")).replace("HOME", str(home))
        cells.append({"cell_type": "code", "metadata": {}, "source": textwrap.dedent(text).strip()})
    path.write_text(json.dumps({"nbformat": 4, "metadata": {}, "cells": cells}))
    return path


@pytest.mark.parametrize("submission", SUBMISSIONS.values(), ids=SUBMISSIONS)
def test_a_submission_gets_its_exit_code_and_harms_nobody(
    tmp_path, user, submission, capfd, monkeypatch
):
    monkeypatch.setattr(judging, "CELL_SECONDS", submission.cell_seconds)
    monkeypatch.setattr(judging, "CHECK_SECONDS", submission.check_seconds)
    handed = tmp_path / "handed in"
    handed.mkdir()
    path = handed_in(handed, submission, user)
    before, folders = fingerprint(tmp_path), own_folders()
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    began = time.monotonic()

    code = cli.main(["check", str(path), "--json"])

    told = capfd.readouterr()
    assert code == submission.code, told
    if code == 2:
        assert told.out == ""
        assert submission.says[0] in told.err
        assert len(told.err.splitlines()) == 1
        assert "\x1b" not in told.err
    else:
        assert told.err == ""
        judged = json.loads(told.out)
        jsonschema.validate(judged, SCHEMA)
        assert "".join(one["outcome"][0] for one in judged["exercises"]) == submission.outcomes, (
            told
        )
        assert all(said in told.out for said in submission.says), told
        assert "\x1b" not in told.out
    assert fingerprint(tmp_path) == before
    assert own_folders() == folders
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= children
    # Two exercises, a cell that hangs, three kernels to start: generous, and far from endless.
    assert time.monotonic() - began < 100
