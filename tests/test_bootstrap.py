"""The set-up: one sentence when it cannot be, never half an environment, nothing done twice."""

import ast
import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from tools import setup_venv
from tools.setup_venv import why_pip_failed

PROJECT = Path(__file__).resolve().parents[1]

# Each environment is a real one, which takes long on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Builds an editable install without any package: what hatchling does, in small.
BACKEND = '''
import os, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("tiny.pth", os.path.abspath("src"))
        info = "tiny-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
'''  # fmt: skip # noqa: E501
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny"
version = "1.0"
"""


def wheel(folder: Path, name: str, version: str) -> str:
    """Write a wheel with one module into a folder; returns its line in a lock."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = []
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record.append(f"{file},sha256={digest.decode()},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}=={version} \\\n    --hash=sha256:{sha256}\n"


class Clone:
    """A small project with our set-up, two wheels as its package index, and spaces in its path."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my clone"
        self.index = folder / "index"
        self.index.mkdir()
        (self.root / "tools").mkdir(parents=True)
        (self.root / "src").mkdir()
        for name in ("bootstrap.py", "setup_venv.py"):
            shutil.copy(PROJECT / "tools" / name, self.root / "tools" / name)
        (self.root / "src" / "tiny.py").write_text("answer = 42\n")
        (self.root / "backend.py").write_text(BACKEND)
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        self.lock(wheel(self.index, "apple", "1.0"))
        (self.root / "requirements-ci.txt").write_text(wheel(self.index, "pear", "1.0"))

    def lock(self, text: str) -> None:
        (self.root / "requirements.txt").write_text(text)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
        return subprocess.Popen(
            [sys.executable, self.root / "tools" / "bootstrap.py", *arguments],
            env=inherited
            | {
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.index),
                "PIP_CONFIG_FILE": os.devnull,
            }
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def set_up(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Run the set-up to its end: exit code, standard output, standard error."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def has(self, *modules: str) -> bool:
        code = "; ".join(f"import {module}" for module in modules)
        run = subprocess.run([self.root / ".venv/bin/python", "-c", code], capture_output=True)
        return run.returncode == 0

    def mark(self) -> Path:
        """A file in .venv that is gone when .venv was made anew."""
        path = self.root / ".venv" / "mark"
        path.touch()
        return path


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def sentence(err: str) -> str:
    """The one line on standard error; anything more is a failure."""
    assert "Traceback" not in err
    (line,) = err.strip().splitlines()
    return line


def test_any_old_python_can_read_the_file_that_tells_it_so() -> None:
    tree = ast.parse((PROJECT / "tools/bootstrap.py").read_text("ascii"), feature_version=(3, 4))
    too_new = (ast.JoinedStr, ast.AnnAssign, ast.AsyncFunctionDef, ast.NamedExpr, ast.Starred)
    for node in ast.walk(tree):
        assert not isinstance(node, too_new)
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None
            assert not node.args.kwonlyargs
        if isinstance(node, ast.Raise):
            assert node.cause is None


def test_a_python_that_is_too_old_gets_one_sentence(clone: Clone) -> None:
    pretend = (
        "import runpy, sys; sys.version_info = (3, 8, 18, 'final', 0); "
        f"runpy.run_path({str(clone.root / 'tools/bootstrap.py')!r}, run_name='__main__')"
    )
    run = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True)
    assert run.returncode == 1
    said = sentence(run.stderr)
    assert said.startswith("Cachelab needs Python 3.11 or newer; this is 3.8.18 at ")
    assert not (clone.root / ".venv").exists()


def test_a_python_without_ensurepip_gets_one_sentence_with_the_cure(clone: Clone) -> None:
    pretend = (
        "import importlib.util as u, runpy; real = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name == 'ensurepip' else real(name, *rest); "
        f"runpy.run_path({str(clone.root / 'tools/bootstrap.py')!r}, run_name='__main__')"
    )
    run = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True)
    assert run.returncode == 1
    version = "{}.{}".format(*sys.version_info)
    assert "has no ensurepip" in sentence(run.stderr)
    assert f"apt install python{version}-venv" in run.stderr


def test_each_call_does_only_what_is_missing(clone: Clone) -> None:
    code, out, err = clone.set_up()
    assert (code, err) == (0, "")
    assert "setting up .venv" in out
    assert clone.has("apple", "tiny")
    assert not clone.has("pear")

    mark = clone.mark()
    assert clone.set_up() == (0, "", "")

    clone.lock(wheel(clone.index, "apple", "2.0"))
    code, out, _ = clone.set_up()
    assert code == 0
    assert "up to date" in out
    run = [clone.root / ".venv/bin/python", "-c", "import apple; print(apple.version)"]
    assert subprocess.check_output(run, text=True) == "2.0\n"

    assert clone.set_up("--ci")[0] == 0
    assert clone.has("pear")
    assert clone.set_up() == (0, "", "")  # what CI needs is more, not other
    assert mark.exists()

    clone.root = clone.root.rename(clone.root.with_name("moved here"))
    code, out, _ = clone.set_up()
    assert code == 0
    assert "setting up .venv" in out
    assert clone.has("apple", "tiny")


def test_a_set_up_that_was_killed_is_made_anew(clone: Clone) -> None:
    process = clone.start()
    unfinished = clone.root / ".venv" / "cachelab-setup-unfinished"
    give_up = time.monotonic() + 60
    while not unfinished.exists() and time.monotonic() < give_up:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert unfinished.exists()

    mark = clone.mark()
    code, out, err = clone.set_up()
    assert (code, err) == (0, "")
    assert "setting up .venv" in out
    assert not mark.exists()
    assert not unfinished.exists()
    assert clone.has("apple", "tiny")


def test_a_venv_that_somebody_else_made_is_kept_and_filled(clone: Clone) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", clone.root / ".venv"], check=True
    )
    mark = clone.mark()
    assert clone.set_up()[0] == 0
    assert mark.exists()
    assert clone.has("apple", "tiny")


def test_a_failed_download_names_the_package_and_the_log_and_is_not_half_used(clone: Clone) -> None:
    good = (clone.root / "requirements.txt").read_text()
    clone.lock(good + f"plum==3.1 \\\n    --hash=sha256:{'0' * 64}\n")
    # Port 9 of this machine: nobody answers there.
    nowhere = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    code, _, err = clone.set_up(**nowhere)
    assert code == 1
    said = sentence(err)
    log = clone.root / ".cachelab" / "setup.log"
    assert "plum==3.1" in said
    assert "package index" in said
    assert str(log) in said
    assert "plum" in log.read_text()

    clone.lock(good)
    code, out, _ = clone.set_up()
    assert code == 0
    assert "setting up .venv" in out
    assert clone.has("apple", "tiny")


def test_a_file_that_is_not_what_the_lock_names_is_not_installed(clone: Clone) -> None:
    clone.lock(f"apple==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    code, _, err = clone.set_up()
    assert code == 1
    assert "apple==1.0" in sentence(err)
    assert "not what the lock names" in err
    assert not clone.has("apple")


def test_a_package_without_a_hash_is_not_installed(clone: Clone) -> None:
    clone.lock("apple==1.0\n")
    code, _, err = clone.set_up()
    assert code == 1
    assert "apple" in sentence(err)
    assert not clone.has("apple")


def test_a_folder_that_cannot_be_written_gets_one_sentence(clone: Clone) -> None:
    (clone.root / ".cachelab").write_text("a file where a folder is needed")
    code, _, err = clone.set_up()
    assert code == 1
    assert "must be writable" in sentence(err)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement plum==3.1 "
            "(from versions: 1.0)\nERROR: No matching distribution found for plum==3.1",
            "no ready-made file of it for this Python",
        ),
        ("Collecting plum==3.1\nOSError: [Errno 28] No space left on device", "disk is full"),
        ("Collecting plum==3.1\nERROR: what nobody foresaw", "what nobody foresaw"),
    ],
)
def test_what_pip_says_becomes_one_sentence(printed: str, expected: str) -> None:
    said = why_pip_failed(printed.splitlines())
    assert expected in said
    assert "plum==3.1" in said
    assert "\n" not in said


@pytest.mark.skipif(os.name == "nt", reason="Windows has no lock of this kind")
def test_a_second_set_up_of_a_folder_says_that_it_waits_and_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    held: list[int] = []
    monkeypatch.setattr(setup_venv, "PRIVATE", tmp_path)
    monkeypatch.setattr(setup_venv, "say", said.append)
    first = setup_venv.only_one()
    second = threading.Thread(target=lambda: held.append(setup_venv.only_one()), daemon=True)
    second.start()
    end = time.monotonic() + 20
    while not said and not held and time.monotonic() < end:
        time.sleep(0.01)
    assert (said, held) == (["another set-up of this folder is running; waiting for it to end"], [])
    os.close(first)
    second.join(20)
    assert len(held) == 1
    os.close(held[0])
