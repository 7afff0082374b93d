"""Make .venv hold exactly what the locks say, never half of it, or say in one sentence why not."""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "cachelab-setup.json"
UNFINISHED = VENV / "cachelab-setup-unfinished"
PRIVATE = ROOT / ".cachelab"
LOG = PRIVATE / "setup.log"
LOCK, CI_LOCK, PROJECT = "requirements.txt", "requirements-ci.txt", "pyproject.toml"
NAME_ANOTHER = 'name another Python: make lab PYTHON="/path/to/python3.12"'


class CannotSetUp(Exception):
    """The set-up cannot go on; the text is the one sentence that says why and what to do."""


class Failed(Exception):
    """A command ended with an error; `lines` is what it printed."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines


def say(text: str) -> None:
    print(f"Cachelab: {text}", flush=True)


def digest(name: str) -> str:
    """SHA-256 of a file of the project, in hexadecimal."""
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def stamp() -> dict[str, str]:
    """What the last finished set-up wrote down; {} if none finished."""
    try:
        found = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def venv_version() -> str:
    """The version of .venv's own Python ("3.11.7"), found by running it; "" if it does not run."""
    ask = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        answer = subprocess.run(
            [PYTHON, "-I", "-S", "-c", ask], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def missing_steps(*, ci: bool = False, this_python: bool = False) -> list[str]:
    """What must be done, in order, out of "venv", "packages" and "project"; [] when all is there.

    A .venv that moved, lost its Python, or whose set-up was cut off is made anew. One that works
    but that we did not make is kept, and filled.
    """
    version, done = venv_version(), stamp()
    if not version or UNFINISHED.exists() or done.get("root", str(ROOT)) != str(ROOT):
        return ["venv", "packages", "project"]
    venv_is, we_are = tuple(map(int, version.split(".")[:2])), sys.version_info[:2]
    if venv_is < (3, 11) or (this_python and venv_is != we_are):
        return ["venv", "packages", "project"]
    locks = [LOCK, CI_LOCK] if ci else [LOCK]
    if done.get("python") != version or any(done.get(lock) != digest(lock) for lock in locks):
        return ["packages", "project"]
    return [] if done.get(PROJECT) == digest(PROJECT) else ["project"]


def clean_environment() -> dict[str, str]:
    """Our environment without what would send packages elsewhere; proxies and indexes are kept."""
    dropped = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_BINARY"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    quiet = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    return kept | quiet | {"PIP_USER": "0"}


def run(argv: Sequence[str], held: int, on_line: Callable[[str], None] = lambda line: None) -> None:
    """Run a command, its output into the log and line by line to `on_line`. Raises Failed.

    `held` is the open file of our lock: the child holds it too, so that no second set-up starts
    while a child of a killed one still writes.
    """
    lines: list[str] = []
    with (
        LOG.open("a", encoding="utf-8") as log,
        subprocess.Popen(
            argv,
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            pass_fds=[held] if held >= 0 else [],
        ) as child,
    ):
        log.write(f"$ {' '.join(argv)}\n")
        for line in child.stdout or ():
            log.write(line)
            log.flush()
            lines.append(line.rstrip())
            on_line(lines[-1])
    if child.returncode != 0:
        raise Failed(lines)


def make_venv(held: int) -> None:
    """An empty .venv with pip, marked unfinished from its first moment. Raises CannotSetUp."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    version = "{}.{}".format(*sys.version_info)
    cure = f"On Debian or Ubuntu: sudo apt install python{version}-venv; or {NAME_ANOTHER}."
    absent = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if absent:
        raise CannotSetUp(
            f"Python {version} at {base} has no {' and no '.join(absent)}, so it cannot make the "
            f"virtual environment that Cachelab lives in. {cure}"
        )
    if VENV.is_symlink() or (VENV.exists() and not VENV.is_dir()):
        raise CannotSetUp(f"{VENV} is not a folder: move it away and run the same command again.")
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    UNFINISHED.touch()
    try:
        run([base, "-m", "venv", str(VENV)], held)
    except Failed as error:
        last = next((line for line in reversed(error.lines) if line.strip()), "it gave no reason")
        raise CannotSetUp(
            f"Python {version} at {base} could not make {VENV} ({last}). {cure} Log: {LOG}"
        ) from None


def add_pip(held: int) -> None:
    """Give .venv a pip if it has none, as one made by another tool may. Raises CannotSetUp."""
    try:
        run([str(PYTHON), "-c", "import pip"], held)
    except Failed:
        try:
            run([str(PYTHON), "-m", "ensurepip"], held)
        except Failed:
            raise CannotSetUp(
                f"{VENV}, which Cachelab did not make, has no pip and cannot get one: move it away "
                "and run the same command again."
            ) from None


def why_pip_failed(lines: list[str]) -> str:
    """One sentence out of pip's output: which package, what was wrong, what to do."""
    text = "\n".join(lines)
    named = re.search(r"(?:distribution found for|satisfies the requirement) (\S+?==[\w.]+)", text)
    begun = re.findall(r"^(?:Collecting|Downloading|Processing|Using cached) (\S+)", text, re.M)
    package = named[1] if named else begun[-1].rsplit("/")[-1] if begun else "the packages"
    if "DO NOT MATCH THE HASHES" in text:
        wrong = re.findall(r"^ +(\S+==[\w.]+)\S* (?:from|\()", text, re.M)
        return (
            f"What was downloaded for {wrong[-1] if wrong else package} is not what the "
            "lock names, so it was not installed: run the same command once more; if it stays so, "
            "something between you and the package index changes files."
        )
    if "No space left" in text:
        return f"The disk is full, at {package}: free about 1 GB and run the same command again."
    if re.search(r"Retrying|Max retries|resolve|refused|timed out|Proxy|SSL|HTTP error", text):
        return (
            f"Could not download {package}, because the package index did not answer: check the "
            "network or the proxy (pip's own settings are used) and run the same command again."
        )
    if named:
        return (
            f"Could not get {package}, because the package index has no ready-made file of it for "
            f"this Python on this machine: {NAME_ANOTHER}."
        )
    last = next((line for line in reversed(lines) if "ERROR" in line), "pip gave no reason")
    return f"Could not install {package} ({last}): see the log."


def pip_install(arguments: Sequence[str], held: int, on_line: Callable[[str], None]) -> None:
    """Run .venv's pip. Raises CannotSetUp with the package and the reason."""
    try:
        run([str(PYTHON), "-m", "pip", "install", *arguments], held, on_line)
    except Failed as error:
        raise CannotSetUp(f"{why_pip_failed(error.lines)} Log: {LOG}") from None


def install_packages(locks: Sequence[str], held: int) -> None:
    """Install what the locks name, to the byte, and say three times how far it is."""
    total = sum(len(re.findall(r"^\S+==", (ROOT / lock).read_text(), re.M)) for lock in locks)
    here, quarters = 0, 1

    def progress(line: str) -> None:
        nonlocal here, quarters
        here += line.startswith(("Collecting ", "Processing ", "Requirement already", "Ignoring "))
        if quarters < 4 and 4 * here >= quarters * total:
            say(f"{here} of {total} packages are here")
            quarters += 1
        if line.startswith("Installing collected"):
            say("unpacking them")

    # The lock names every package, so nothing needs resolving; and no package needs a compiler.
    exact = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--progress-bar=off"]
    # Compiling all at once takes longer than the rest; Python does it file by file on first use.
    pip_install(
        [*exact, "--no-compile", *(f"--requirement={lock}" for lock in locks)], held, progress
    )


def only_one() -> int:
    """Wait until no other set-up of this folder runs; an open, locked file (-1 on Windows)."""
    try:
        import fcntl
    except ImportError:
        return -1
    held = os.open(PRIVATE / "setup.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("another set-up of this folder is running; waiting for it to end")
        fcntl.flock(held, fcntl.LOCK_EX)
    return held


def set_up(*, ci: bool = False, this_python: bool = False) -> None:
    """Bring .venv to what the locks say; what was cut off is made anew. Raises CannotSetUp."""
    if not missing_steps(ci=ci, this_python=this_python):
        return
    PRIVATE.mkdir(mode=0o700, exist_ok=True)
    held = only_one()
    steps = missing_steps(ci=ci, this_python=this_python)
    if not steps:
        return
    began = time.monotonic()
    LOG.unlink(missing_ok=True)
    locks = [LOCK, CI_LOCK] if ci else [LOCK]
    done = stamp()
    if "venv" in steps:
        version = ".".join(map(str, sys.version_info[:3]))
        say(f"setting up .venv with Python {version}: a minute or two, and only this once")
        make_venv(held)
    UNFINISHED.touch()
    if "packages" in steps:
        if "venv" not in steps:
            say("bringing .venv up to date with the lock: less than a minute, as a rule")
            add_pip(held)
        install_packages(locks, held)
        done = {lock: digest(lock) for lock in locks}
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--editable", "."]
    pip_install(offline, held, lambda line: None)
    done |= {PROJECT: digest(PROJECT), "python": venv_version(), "root": str(ROOT)}
    STAMP.write_text(json.dumps(done, indent=1), "utf-8")
    UNFINISHED.unlink()
    say(f"ready after {time.monotonic() - began:.0f} s")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools/bootstrap.py", description=__doc__)
    parser.add_argument("--ci", action="store_true", help="also what CI and 'make lint' need")
    parser.add_argument(
        "--this-python",
        action="store_true",
        help="make .venv anew if its Python is of another version than this one",
    )
    options = parser.parse_args(argv)
    try:
        set_up(ci=options.ci, this_python=options.this_python)
    except CannotSetUp as reason:
        print(reason, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"Could not set up in {ROOT} ({error}): the project's folder must be writable, "
            "with about 1 GB free.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nStopped: the same command starts the set-up anew.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
