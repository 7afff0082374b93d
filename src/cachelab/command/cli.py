"""The command line: `cachelab lab`, `doctor`, `check`, `reset`, `board`, `class`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import json
import os
import re
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path

from cachelab.board import commands as board_commands
from cachelab.command import CommandError
from cachelab.command.jupyter import project_root
from cachelab.process.errors import OneSentence
from cachelab.record.trace import say_seconds

OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 35)  # RETURNING
NEEDED_DISK_BYTES = 200_000_000
SLOW_SECONDS = 0.05  # for the answer to a PING; one on this machine takes a thousandth of that
PORT = 8888  # JupyterLab's own; it takes the next when this is in use

PASSED, NOT_ALL, IMPOSSIBLE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see `cachelab --help`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["lab"]:
        # JupyterLab has an argument parser of its own, `--help` included.
        from cachelab.command.jupyter import launch

        return launch(given[1:])
    parsed = _parser().parse_args(given)
    try:
        command: Callable[[argparse.Namespace], int] = parsed.command
        return command(parsed)
    except OneSentence as why:
        print(_plain(str(why)), file=sys.stderr)
        return IMPOSSIBLE
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be flushed into it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_ALL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cachelab", description="The caching workbook: work in it, check it, repair it."
    )
    parser.add_argument("--version", action="version", version=f"cachelab {_version('cachelab')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    lab = commands.add_parser("lab", help="open the workbook in JupyterLab, with its arguments")
    lab.add_argument("arguments", nargs=argparse.REMAINDER)

    doctor = commands.add_parser("doctor", help="say what on this machine keeps it from working")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(command=_doctor)

    check = commands.add_parser(
        "check",
        help="judge a whole lab file",
        description="Judge a whole lab file. Exit code 0: all passed; 1: something is not; 2: it"
        " could not be judged.",
    )
    check.add_argument("lab", type=Path, help="the file, for example labs/05_cache_aside.ipynb")
    check.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    check.set_defaults(command=_check)

    reset = commands.add_parser("reset", help="give a lab back as it was; keeps a backup")
    reset.add_argument("lab", help="its stem, 05_cache_aside, or its file")
    reset.set_defaults(command=_reset)

    board_commands.add_to(commands)
    return parser


# check ---------------------------------------------------------------------------------------


def _check(asked: argparse.Namespace) -> int:
    from cachelab.submission.notebook import CannotJudge, judge_lab

    try:
        judged = judge_lab(asked.lab)
    except CannotJudge as why:
        raise CommandError(str(why)) from None
    if asked.json:
        print(json.dumps(judged.as_dict(), indent=1, ensure_ascii=True))
    else:
        for _, verdict in judged.verdicts:
            print(f"{verdict['outcome']:<15}{verdict['exercise']}")
            if verdict["outcome"] != "passed":
                print(f"{'':15}{_plain(verdict['summary'])}")
        for number, problem in judged.cells:
            print(f"Cell {number}: {_plain(problem)}")
        print(f"{judged.passed} of {len(judged.verdicts)} passed in {_plain(judged.file)}")
    return PASSED if judged.passed == len(judged.verdicts) else NOT_ALL


def _plain(text: str) -> str:
    """A submission's words without anything that a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in text)


# reset ---------------------------------------------------------------------------------------


def _reset(asked: argparse.Namespace) -> int:
    target, root = _lab_file(asked.lab)
    original = _original(root, target.stem)
    if not target.exists():
        _write(target, original)
        print(f"{_shown(target, root)} was gone and is back as it was given.")
        return PASSED
    if target.read_bytes() == original:
        print(f"{_shown(target, root)} is as it was given: nothing to do.")
        return PASSED
    backup = _keep(target)
    _write(target, original)
    print(
        f"{_shown(target, root)} is as it was given; your version is {_shown(backup, root)}."
        " If it is open in JupyterLab, choose File, Reload Notebook from Disk."
    )
    return PASSED


def _lab_file(asked: str) -> tuple[Path, Path]:
    """Where the lab is, and the root of the workbook; CommandError, with what comes close."""
    path, root = Path(asked), project_root()
    stem = path.name.removesuffix(".ipynb")
    is_in_labs = path.absolute().parent.name == "labs"
    if path.suffix == ".ipynb" and is_in_labs:
        root = path.absolute().parent.parent
    elif path.parts not in {(path.name,), ("labs", stem)}:
        stem = asked
    known = sorted(source.stem for source in (root / "content" / "labs").glob("[0-9]*.py"))
    if not known:
        raise CommandError(
            f"The originals of the labs are not in {root}: run this in the folder of the workbook."
        )
    if stem not in known:
        close = difflib.get_close_matches(stem, known, n=3, cutoff=0.5)
        advice = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."
        raise CommandError(f"There is no lab {asked}: {advice}")
    return root / "labs" / f"{stem}.ipynb", root


def _original(root: Path, stem: str) -> bytes:
    """The unmodified lab, built from its source."""
    sys.path.insert(0, str(root))
    try:
        markers = importlib.import_module("tools.markers")
        notebook = importlib.import_module("tools.notebook")
    except ImportError as error:
        raise CommandError(
            f"A lab is built anew for this, and {error.name} is missing: run make lab once, or"
            " pip install 'cachelab[lab,build]'."
        ) from None
    finally:
        sys.path.remove(str(root))
    source, errors = markers.read_source(root, root / "content" / "labs" / f"{stem}.py")
    if source is None:
        raise CommandError(f"The original has an error ({errors[0]}): nothing was changed.")
    text: str = notebook.dumps(notebook.blank(source, "labs"))
    return text.encode()


def _keep(path: Path) -> Path:
    """A copy of a file beside it, under a name that is not used yet."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for again in ("", *(f"-{number}" for number in range(2, 100))):
        backup = path.with_name(f"{path.stem}.backup-{stamp}{again}{path.suffix}")
        try:
            with backup.open("xb") as kept:
                kept.write(path.read_bytes())
            return backup
        except FileExistsError:
            continue
        except OSError as error:
            with contextlib.suppress(OSError):
                backup.unlink(missing_ok=True)  # a half is no copy
            raise CommandError(
                f"No backup of {path} could be made ({error.strerror}): nothing was changed."
            ) from None
    raise CommandError(f"There are too many backups of {path} of this second: nothing was changed.")


def _write(path: Path, content: bytes) -> None:
    """Put a file in its place in one step."""
    half = ""
    try:
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".reset-", delete=False) as new:
            half = new.name
            new.write(content)
        if path.exists():
            shutil.copymode(path, half)
        else:
            os.chmod(half, 0o644)
        os.replace(half, path)
    except OSError as error:
        if half:
            with contextlib.suppress(OSError):
                os.unlink(half)
        raise CommandError(
            f"{path} cannot be written ({error.strerror}): it is as it was."
        ) from None


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


# doctor --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do if it is not `ok`."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def _doctor(asked: argparse.Namespace) -> int:
    findings = list(examine())
    healthy = all(finding.ok for finding in findings)
    if asked.json:
        shown = [asdict(finding) for finding in findings]
        print(json.dumps({"schema": 1, "ok": healthy, "findings": shown}, indent=1))
    else:
        for finding in findings:
            line = f"{'ok' if finding.ok else 'PROBLEM':<9}{finding.name}: {finding.found}"
            print(f"{line}; {finding.advice}" if finding.advice else line)
        problems = sum(not finding.ok for finding in findings)
        print("All is well." if healthy else f"Problems: {problems}.")
    return 0 if healthy else 1


def examine() -> Iterator[Finding]:
    """Look at everything the workbook needs; a look that fails is a finding too."""
    for name, look in _LOOKS:
        try:
            yield from look()
        except Exception as error:
            reason = " ".join(str(error).split()) or "no reason given"
            said = f"could not be looked at ({type(error).__name__}: {reason[:160]})"
            yield Finding(name, False, said, "report this, with the output of this command")


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] >= OLDEST_PYTHON
    advice = "" if ok else "install Python 3.11 or newer and run make lab again"
    yield Finding("Python", ok, f"{version} at {sys.executable}", advice)


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    locked = _locked()
    problems, others, count = [], [], 0
    for text in _requirements():
        wanted = Requirement(text)
        extra = {"extra": ""}
        if wanted.marker is not None and not wanted.marker.evaluate(extra):
            continue
        count += 1
        found = _version(wanted.name)
        if not found:
            problems.append(f"{wanted.name} is missing")
        elif not wanted.specifier.contains(found, prereleases=True):
            problems.append(f"{wanted.name} is {found}, needed is {wanted.specifier}")
        elif locked.get(_normal(wanted.name), found) != found:
            others.append(f"{wanted.name} {found} (tested with {locked[_normal(wanted.name)]})")
    if problems:
        advice = "run make lab, or pip install -r requirements.txt"
        yield Finding("packages", False, ", ".join(problems), advice)
        return
    found = f"all {count} are there"
    if others:
        found += f", some in another version: {', '.join(others)}"
    yield Finding("packages", True, found)


def _requirements() -> list[str]:
    """What is needed to run and to build, by pyproject.toml or by the installed package."""
    file = project_root() / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        return [*project["dependencies"], *extras.get("lab", []), *extras.get("build", [])]
    told = metadata.requires("cachelab") or []
    return [text for text in told if "extra ==" not in text]


def _locked() -> dict[str, str]:
    """The versions in requirements.txt, by normal name."""
    file = project_root() / "requirements.txt"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return {_normal(name): version for name, version in found}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _server() -> Iterator[Finding]:
    from cachelab.cache import server as servers

    try:
        server = servers.find()
    except servers.ServerError as why:
        text = str(why).rstrip(".")
        found, _, advice = text.rpartition(": ") if ": " in text else (text, "", "")
        yield Finding("cache server", False, found, advice or "unset the CACHELAB_ variables")
        return
    try:
        client = server.client(max_connections=1)
        client.ping()
        waited = []
        for _ in range(3):
            began = time.monotonic()
            client.ping()
            waited.append(time.monotonic() - began)
        client.close()
        found = f"{server.name}, {server.where}" if server.is_live else server.name
        if not server.is_live:
            found += f"; no real server is used{f' ({server.note})' if server.note else ''}"
            found += ", so cells that kill or measure one are left out"
        elif server.note:
            found += f" ({server.note})"
        if min(waited) > SLOW_SECONDS:
            found += (
                f"; it takes {say_seconds(min(waited))} to answer, so that all is slow and times"
                " in the notebooks are mostly that"
            )
        yield Finding("cache server", True, found)
    finally:
        server.close()


def _edge() -> Iterator[Finding]:
    from cachelab.edge import EdgeError, nginx

    try:
        binary = nginx.candidates()[0]
    except EdgeError as why:
        # Not a problem: one chapter of all needs it, and that one can still be read.
        said = f"{str(why).rstrip('.')}; without it chapter 04 can be read, not run"
        yield Finding("edge", True, said)
        return
    yield Finding("edge", True, f"nginx {nginx.version_of(binary)} at {binary}")


def _sqlite() -> Iterator[Finding]:
    ok = sqlite3.sqlite_version_info[:2] >= OLDEST_SQLITE
    advice = "" if ok else "use a Python that was built with SQLite 3.35 or newer"
    yield Finding("SQLite", ok, sqlite3.sqlite_version, advice)


def _jupyterlab() -> Iterator[Finding]:
    versions = {name: _version(name) for name in ("jupyterlab", "ipykernel")}
    missing = [name for name, version in versions.items() if not version]
    if missing:
        yield Finding("JupyterLab", False, f"{' and '.join(missing)} missing", "run make lab")
    else:
        found = f"{versions['jupyterlab']}, kernel {versions['ipykernel']}"
        yield Finding("JupyterLab", True, found)


def _port() -> Iterator[Finding]:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        advice = "let programs of yours listen on 127.0.0.1"
        yield Finding("port", False, f"none can be opened on 127.0.0.1 ({error})", advice)
        return
    with socket.socket() as probe:
        is_free = probe.connect_ex(("127.0.0.1", PORT)) != 0
    taken = f"{PORT} is in use, JupyterLab will take the next one"
    yield Finding("port", True, f"{PORT} is free on 127.0.0.1" if is_free else taken)


def _folders() -> Iterator[Finding]:
    root = project_root()
    asked = {
        "workbook": (root / "labs" if (root / "labs").is_dir() else root),
        "temp folder": Path(tempfile.gettempdir()),
    }
    for name, folder in asked.items():
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            where = "copy it to a folder of yours"
            advice = where if name == "workbook" else "set TMPDIR to a folder of yours"
            said = f"{folder} cannot be written ({error.strerror})"
            yield Finding(name, False, said, advice)
            continue
        free = shutil.disk_usage(folder).free
        ok = free >= NEEDED_DISK_BYTES
        said = f"{folder} can be written, {free / 1e9:.1f} GB free"
        yield Finding(name, ok, said, "" if ok else "make 0.2 GB of room")


_LOOKS: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
    ("Python", _python),
    ("packages", _packages),
    ("cache server", _server),
    ("edge", _edge),
    ("SQLite", _sqlite),
    ("JupyterLab", _jupyterlab),
    ("port", _port),
    ("folders", _folders),
]
