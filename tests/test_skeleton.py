"""The files around the library agree with each other, and `make` finds a Python that works."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import cachelab

PROJECT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
LOCKS = ("requirements.txt", "requirements-ci.txt")


def read(name: str) -> str:
    return (PROJECT / name).read_text("utf-8")


def plain(name: str) -> str:
    """A package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: str) -> dict[str, str]:
    """Name and version of every package of a lock."""
    found = re.findall(r"^([\w.-]+)==(\S+)", read(lock), re.M)
    return {plain(name): version for name, version in found}


def needed(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {plain(name[0]) for name in names if name}


# The locks


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host(lock: str) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|\.(org|com|io|net)\b", read(lock))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_one_version_and_a_hash(lock: str) -> None:
    packages = re.split(r"^(?=\S)", read(lock), flags=re.M)[1:]
    assert packages
    for package in packages:
        assert re.match(r"[\w.-]+==[\w.]+ ", package), package
        assert "--hash=sha256:" in package, package
    assert len(packages) == len(locked(lock))


def test_the_locks_hold_all_that_the_project_asks_for_and_nothing_twice() -> None:
    project, extras = CONFIG["project"], CONFIG["project"]["optional-dependencies"]
    wanted = needed(project["dependencies"])
    for extra in ("lab", "build", "test"):
        wanted |= needed(extras[extra])
    assert wanted <= locked("requirements.txt").keys()
    assert needed(extras["ci"]) <= locked("requirements-ci.txt").keys()
    assert not locked("requirements.txt").keys() & locked("requirements-ci.txt").keys()


def test_the_project_installs_itself_from_the_lock() -> None:
    assert needed(CONFIG["build-system"]["requires"]) <= locked("requirements.txt").keys()


def test_every_dependency_says_why_it_is_there() -> None:
    lines = read("pyproject.toml").splitlines()
    start, end = lines.index("dependencies = ["), lines.index("[project.scripts]")
    for number in range(start, end):
        if re.match(r'    "', lines[number]):
            assert lines[number - 1].startswith("    # "), lines[number]


# make and what is written about it


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))


def test_make_help_names_what_the_readers_of_the_house_are_promised() -> None:
    make = ["make", "--no-print-directory", "help"]
    run = subprocess.run(make, cwd=PROJECT, capture_output=True, text=True, check=True)
    for target in ("lab", "test", "notebooks", "check", "bench", "lint", "lock", "clean", "help"):
        assert re.search(rf"^  {target}  +\w", run.stdout, re.M), target


@pytest.mark.parametrize("text", ["CONTRIBUTING.md", "README.md", ".ci/run"])
def test_every_make_command_that_is_written_down_exists(text: str) -> None:
    in_code = set(re.findall(r"(?:`|^ *|; |CACHELAB_\w+=\w+ )make ([a-z-]+)", read(text), re.M))
    assert in_code <= targets()


# CI


@pytest.fixture
def ci(tmp_path: Path) -> Path:
    """A copy of .ci/run beside a `make` and an `apt-get` that only say so."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(PROJECT / ".ci/run", tmp_path / ".ci/run")
    bin = tmp_path / "bin"
    bin.mkdir()
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    for name in ("apt-get", "sudo", "redis-server", "make"):
        (bin / name).write_text(f'#!/bin/sh\necho {name} "$CACHELAB_SERVER" "$@"\n')
        (bin / name).chmod(0o755)
    # tests/postgres.py runs the rest of its line beside a PostgreSQL.
    python.write_text(
        '#!/bin/sh\necho python "$CACHELAB_EDGE" "$@"\n'
        '[ "$1" != tests/postgres.py ] || { shift; exec "$@"; }\n'
    )
    python.chmod(0o755)
    return tmp_path


def run_ci(ci: Path, *part: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{ci / 'bin'}:{os.environ['PATH']}"}
    environment.pop("CACHELAB_SERVER", None)
    command = ["bash", ".ci/run", *part]
    return subprocess.run(command, cwd=ci, env=environment, capture_output=True, text=True)


def test_ci_covers_the_wheel_and_the_server_on_path_and_adds_up(ci: Path) -> None:
    make = ci / "bin/make"
    make.write_text(make.read_text() + 'echo "7 passed, 1 skipped in 0.10s"\n')
    run = run_ci(ci)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.index("make wheel test\n") < run.stdout.index("make wheel test-more\n")
    assert "make path test-notebooks-live BOOKS=" in run.stdout
    assert "python path tests/postgres.py make test-notebooks-live" in run.stdout
    assert run.stdout.index("make wheel test") < run.stdout.index("apt-get")
    for edge in ("wheel", "path"):
        assert f"python {edge} tests/http_cache/run.py\n" in run.stdout
    assert run.stdout.splitlines()[-1] == "35 passed, 0 failed"


@pytest.mark.parametrize("failing", ["test", "test-more", "lint", "test-notebooks-live", "site"])
def test_ci_is_red_when_any_part_is(ci: Path, failing: str) -> None:
    make = ci / "bin/make"
    make.write_text(make.read_text() + f'[ "$1" != {failing} ]\n')
    run = run_ci(ci)
    assert run.returncode != 0
    assert "0 failed" not in run.stdout


def test_ci_refuses_a_part_it_does_not_know(ci: Path) -> None:
    run = run_ci(ci, "everything")
    assert run.returncode == 2
    assert "usage" in run.stdout + run.stderr


# make and Python


class Machine:
    """A clone in a path with spaces, and a PATH with only the Pythons that a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my clone"
        (self.root / "tools").mkdir(parents=True)
        shutil.copy(PROJECT / "Makefile", self.root / "Makefile")
        (self.root / "tools/bootstrap.py").write_text("import sys; print(sys.argv[1:])\n")
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in ("make", "sh", "sed", "awk"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def python(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments],
            cwd=self.root,
            env={"PATH": str(self.bin)},
            capture_output=True,
            text=True,
        )


# What a script does that stands for a Python: answer the probe (-c), or run tools/bootstrap.py.
WORKS = f'[ "$1" = -c ] || echo "${{0##*/}}"; exec "{sys.executable}" "$@"'
OLD = '[ "$1" = -c ] && exit 4; echo "needs Python 3.11 or newer" >&2; exit 1'
BARE = '[ "$1" = -c ] && exit 3; echo "has no ensurepip" >&2; exit 1'
BROKEN_SHIM = 'echo "command not found in any version" >&2; exit 127'


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_make_passes_over_a_python_that_does_not_run_or_is_too_old(machine: Machine) -> None:
    machine.python("python3", OLD)
    machine.python("python3.13", BROKEN_SHIM)
    machine.python("python3.12", BARE)
    machine.python("python3.11", WORKS)
    run = machine.make("setup")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "python3.11\n[]\n"


@pytest.mark.parametrize(
    ("pretend", "expected"),
    [
        ("", 0),
        ("import sys; sys.version_info = (3, 8, 18); ", 4),
        ("import importlib.util as u; u.find_spec = lambda name: None; ", 3),
    ],
)
def test_the_question_that_make_asks_a_python_tells_old_and_bare_ones(
    pretend: str, expected: int
) -> None:
    found = re.search(r"^PROBE = (.*\\\n.*)$", read("Makefile"), re.M)
    assert found
    probe = re.sub(r"\\\n\s*", "", found[1])
    assert subprocess.run([sys.executable, "-c", pretend + probe]).returncode == expected


def test_make_says_in_one_sentence_that_the_only_python_is_too_old(machine: Machine) -> None:
    machine.python("python3", OLD)
    run = machine.make("setup")
    assert run.returncode != 0
    assert run.stderr.splitlines()[0] == "needs Python 3.11 or newer"


def test_make_prefers_the_right_sentence_if_the_only_new_python_lacks_venv(
    machine: Machine,
) -> None:
    machine.python("python3", OLD)
    machine.python("python3.12", BARE)
    run = machine.make("setup")
    assert run.returncode != 0
    assert run.stderr.splitlines()[0] == "has no ensurepip"


def test_make_says_in_one_sentence_that_there_is_no_python(machine: Machine) -> None:
    machine.python("python3", BROKEN_SHIM)
    run = machine.make("setup")
    assert run.returncode != 0
    assert run.stderr.startswith("Cachelab needs Python 3.11 or newer, and none was found")


def test_make_takes_the_python_that_is_named_and_no_other(machine: Machine) -> None:
    machine.python("python3", WORKS)
    named = machine.python("my python", WORKS)
    run = machine.make("setup", f"PYTHON={named}")
    assert run.stdout == "my python\n['--this-python']\n"
    missing = machine.make("setup", "PYTHON=/no/such/python")
    assert missing.returncode != 0
    assert missing.stderr.splitlines()[0] == "There is no Python at /no/such/python."


def test_make_test_runs_every_part_and_names_the_ones_that_failed(machine: Machine) -> None:
    machine.python("python3", WORKS)
    (machine.root / ".venv/bin").mkdir(parents=True)
    python = machine.root / ".venv/bin/python"
    python.write_text(
        "#!/bin/sh\n"
        'echo "$CACHELAB_BACKEND: $*"\n'
        'case "$*" in *tools.build*) exit 1;; *) [ "$CACHELAB_BACKEND" != live ];; esac\n'
    )
    python.chmod(0o755)
    run = machine.make("test")
    assert run.returncode != 0
    assert "make test: failed: check test-notebooks-live\n" in run.stderr
    for part in (": -m pytest -q", ": -m tools.build --check", "live: -m pytest"):
        assert part in run.stdout
    run = machine.make("test-more", "BOOKS=tools.build")
    assert run.returncode != 0
    assert "make test-more: failed: test-notebooks-fake\n" in run.stderr
    assert ": -m pytest -q" in run.stdout


@pytest.mark.parametrize(
    ("target", "options", "chosen"),
    [
        ("test-units", [], "-m not slow"),
        ("test-slow", [], "-m slow"),
        ("test-units", ["ARGS=tests/test_cli.py"], "tests/test_cli.py"),
    ],
)
def test_together_make_test_and_test_more_run_every_unit_once(
    machine: Machine, target: str, options: list[str], chosen: str
) -> None:
    machine.python("python3", WORKS)
    (machine.root / ".venv/bin").mkdir(parents=True)
    python = machine.root / ".venv/bin/python"
    python.write_text('#!/bin/sh\necho "$*"\n')
    python.chmod(0o755)
    assert machine.make(target, *options).stdout.endswith(f"--dist loadscope {chosen}\n")


# git


def test_git_ignores_what_a_run_leaves_and_keeps_what_a_learner_writes(tmp_path: Path) -> None:
    shutil.copy(PROJECT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    left = [".venv/x", ".cachelab/x", "labs/05_x.backup-1.ipynb", "src/a/__pycache__/b.pyc"]
    kept = ["labs/05_x.ipynb", "notebooks/a.ipynb", "src/cachelab/build.py", "requirements.txt"]
    for path in left + kept:
        command = ["git", "-C", str(tmp_path), "check-ignore", "-q", path]
        assert subprocess.run(command).returncode == (0 if path in left else 1), path


def test_both_licences_are_there() -> None:
    assert read("LICENSE").startswith("MIT License")
    assert "Creative Commons Attribution 4.0 International" in read("LICENSE-CONTENT")
    assert set(CONFIG["project"]["license-files"]) == {"LICENSE", "LICENSE-CONTENT"}


# The public face


@pytest.mark.parametrize("name", sorted(cachelab._MODULES))
def test_a_module_has_one_public_name_however_it_is_imported(name: str) -> None:
    code = (
        f"import sys; from cachelab.{name} import __name__ as home; from cachelab import {name};"
        f" assert {name} is sys.modules['cachelab.{name}'] is sys.modules[home];"
        f" assert home == {name}.__spec__.name"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_public_names_are_there() -> None:
    for name in cachelab.__all__:
        assert getattr(cachelab, name) is not None
    with pytest.raises(ImportError):
        import_module("cachelab.no_such_room")
