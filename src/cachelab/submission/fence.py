"""A fence around a submission: its process writes only in its own folder and starts no program.

A fence against accidents and pranks, not a sandbox: the code runs with the rights of the user who
judges it, and what goes past Python (ctypes, a library's own C code) goes past the fence. Judge
strangers in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cachelab.exercises import catalogue, judge_in
from cachelab.record.verdict import Verdict

if sys.platform != "win32":
    import resource

MEMORY_BYTES = 4 << 30  # of one submission's process, 8 MB for each thread included (Linux)
FILE_BYTES = 512 << 20  # of one file

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
STDLIB = os.path.join(os.path.realpath(sysconfig.get_paths()["stdlib"]), "")
PACKAGES = tuple(
    os.path.join(os.path.realpath(sysconfig.get_paths()[name]), "")
    for name in ("purelib", "platlib")
)
F_GETPATH = 50  # macOS: the path of an open folder

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Outside(PermissionError):
    """The submission reached for something outside its folder; the text is one sentence."""


# Up ------------------------------------------------------------------------------------------

_folder = ""
_kept: dict[str, Any] = {}


def up(folder: str, lab: str) -> None:
    """Raise the fence around this process, for good: only `folder` is left to write in.

    `lab`: whose checks will be asked for; they are loaded now, before the submission runs.
    """
    global _folder
    catalogue(lab)
    _kept.update(_ours())
    _limit()
    _folder = os.path.realpath(folder)
    sys.addaudithook(_hook)


def _limit() -> None:
    if sys.platform == "win32":
        return
    limits = {resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_CORE: 0}
    if sys.platform.startswith("linux"):
        limits[resource.RLIMIT_DATA] = MEMORY_BYTES
    for kind, most in limits.items():
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an OSError instead


def _hook(event: str, args: tuple[Any, ...]) -> None:
    look = _LOOKS.get(event)
    if look is not None:
        look(event, args)


# What is looked at ---------------------------------------------------------------------------


def _open(event: str, args: tuple[Any, ...]) -> None:
    path, mode, flags = args
    if isinstance(path, int):
        return
    writes = set(mode) & set("wax+") if isinstance(mode, str) else (flags or 0) & WRITES
    if writes and path is not None:
        _allow(path, "write", follow=True)


def _database(event: str, args: tuple[Any, ...]) -> None:
    text = os.fsdecode(args[0]) if isinstance(args[0], (str, bytes, os.PathLike)) else ""
    if text.startswith("file:"):
        if "mode=ro" in text or "mode=memory" in text or text.startswith("file::memory:"):
            return
        text = text.removeprefix("file:").partition("?")[0]
    if text not in ("", ":memory:"):
        _allow(text, "write", follow=True)


def _change(verb: str, *places: tuple[int, int], follow: bool = False) -> Callable[..., None]:
    """A look at an event that changes paths: where each stands in its arguments, and its dir_fd."""

    def look(event: str, args: tuple[Any, ...]) -> None:
        for at, dir_at in places:
            path = args[at]
            if path is None or isinstance(path, int):
                continue
            folder = args[dir_at] if 0 <= dir_at < len(args) else -1
            _allow(path, verb, folder, follow=follow)

    return look


def _program(event: str, args: tuple[Any, ...]) -> None:
    # Ours start the cache, the edge and their guard; `!ls`, %%bash and subprocess are not ours.
    if not _caller().startswith(PACKAGE):
        raise Outside("A submission that is being judged cannot start another program.")


def _fork(event: str, args: tuple[Any, ...]) -> None:
    if not _caller().startswith(PACKAGE):
        raise Outside("A submission that is being judged cannot fork.")


def _kill(event: str, args: tuple[Any, ...]) -> None:
    pid, sig = args[:2]
    mine = pid == os.getpid() and event == "os.kill"
    if sig != 0 and not mine and not _caller().startswith(PACKAGE):
        raise Outside("A submission that is being judged cannot end another process.")


_LOOKS: dict[str, Callable[[str, tuple[Any, ...]], None]] = {
    "open": _open,
    "sqlite3.connect": _database,
    "os.remove": _change("delete", (0, 1)),
    "os.rmdir": _change("delete", (0, 1)),
    "shutil.rmtree": _change("delete", (0, 1)),
    "os.rename": _change("rename", (0, 2), (1, 3)),
    "os.link": _change("link", (0, 2), (1, 3)),
    "os.symlink": _change("write", (1, 2)),
    "os.mkdir": _change("write", (0, 2)),
    "os.truncate": _change("write", (0, -1), follow=True),
    "os.chmod": _change("change", (0, 2), follow=True),
    "os.chown": _change("change", (0, 3), follow=True),
    "os.chflags": _change("change", (0, -1), follow=True),
    "os.utime": _change("change", (0, 3), follow=True),
    "os.setxattr": _change("change", (0, -1), follow=True),
    "os.removexattr": _change("change", (0, -1), follow=True),
    "os.kill": _kill,
    "os.killpg": _kill,
    "os.fork": _fork,
    "os.forkpty": _fork,
    **dict.fromkeys(
        (
            *("subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn"),
            *("os.startfile", "os.startfile/2", "pty.spawn"),
        ),
        _program,
    ),
}


# Where it is ---------------------------------------------------------------------------------


def _allow(path: Any, verb: str, folder: Any = -1, *, follow: bool) -> None:
    """Outside, one sentence, unless `path` is in our folder or one that is ours to use."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        return  # no path: the call itself will say so
    if isinstance(folder, int) and folder >= 0 and not os.path.isabs(text):
        text = os.path.join(_path_of(folder), text)
    text = os.path.abspath(text)
    if follow:
        real = os.path.realpath(text)
    else:
        # What is deleted or renamed is the link itself, not what it points to.
        real = os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
    inside = real == _folder or real.startswith(_folder + os.sep)
    if not inside and text != os.devnull and not _of_our_own(real):
        raise Outside(
            f"A submission that is being judged may {verb} only in its own temporary folder, and"
            f" {text} is not there."
        )


def _path_of(folder: int) -> str:
    try:
        if sys.platform == "darwin":
            import fcntl

            return os.fsdecode(fcntl.fcntl(folder, F_GETPATH, bytes(1024)).rstrip(b"\0"))
        return os.readlink(f"/proc/self/fd/{folder}")
    except OSError:
        return os.sep  # unknown: outside


def _of_our_own(real: str) -> bool:
    """Whether this is the folder of a guard of this process, put elsewhere for its short name."""
    own = re.compile(rf"cachelab-{os.getpid()}-\w{{8}}")
    return any(own.fullmatch(part) for part in real.split(os.sep)[:4])


def _caller() -> str:
    """The file of the innermost frame outside the standard library and this file."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = os.path.realpath(frame.f_code.co_filename)
        plain = name.startswith(STDLIB) and not name.startswith(PACKAGES)
        if not plain and not name.startswith("<frozen") and frame.f_code.co_filename != __file__:
            return name
        frame = frame.f_back
    return ""


# Judging inside the fence --------------------------------------------------------------------


def judge(namespace: Mapping[str, Any], exercise_id: str) -> dict[str, Any]:
    """The verdict on what `namespace` holds; a refusal if Cachelab itself was modified."""
    bent = changed()
    if bent:
        said = (
            f"The lab changes Cachelab itself ({bent[0]}), so its answers cannot be judged: leave"
            " that as it is."
        )
        return Verdict("failed", said, exercise=exercise_id).as_dict()
    return judge_in(namespace, exercise_id).as_dict()


def changed() -> list[str]:
    """The functions and classes of Cachelab that are not what they were when the fence went up."""
    now = _ours()
    return sorted(name for name, was in _kept.items() if now.get(name) != was)


def _ours() -> dict[str, Any]:
    """Every function of Cachelab's loaded modules, by name, with what it would run."""
    found: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "cachelab" and isinstance(module, types.ModuleType):
            found.update(_functions(name, vars(module)))
    return found


def _functions(name: str, names: Any) -> Iterator[tuple[str, Any]]:
    for key, value in list(names.items()):
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, types.FunctionType):
            yield f"{name}.{key}", (id(value), id(value.__code__))
        elif isinstance(value, type):
            yield f"{name}.{key}", id(value)
            if value.__module__ == name:
                yield from _functions(f"{name}.{key}", vars(value))
