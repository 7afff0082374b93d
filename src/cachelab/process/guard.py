"""A private temp folder and child processes that are gone within 2 s of this process's death.

`atexit` does not run when a kernel is killed, so a small supervisor process (`_supervise.py`) holds
the children: it sees our end by the end of its stdin and by a changed parent process, kills the
children, removes the folder and exits. Linux and macOS. On Linux the children also die when the
supervisor itself is killed; on macOS they would then be left behind.

On Windows there is no supervisor: children and folder go at a normal end of the process only.
Cachelab starts no server there (it uses fakeredis), so little is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

OUR_NAME = re.compile(r"cachelab-(\d+)-\w{8}(\.[0-9a-f]{8})?")
LOCK_NAME = ".alive"
# A Unix socket's path may have 103 bytes on macOS and 107 on Linux; ours needs about 45 of its own.
LONGEST_TEMP = 58
UNLOCKED_GRACE_SECONDS = 60.0


class GuardError(RuntimeError):
    """The guard cannot do what was asked; its text is one sentence."""


class Guard:
    """A private folder (`.folder`, mode 0700) and the processes started with `.spawn`.

    Thread-safe. In a forked child every method refuses and `.close()` does nothing: the guard
    belongs to the process that made it.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._requests = 0
        self._orphans: dict[int, subprocess.Popen[bytes]] = {}  # Windows only
        self.supervisor: subprocess.Popen[bytes] | None = None
        place = temp_place()
        if sys.platform == "win32":
            self.folder = Path(tempfile.mkdtemp(prefix=f"cachelab-{self._owner}-", dir=place))
            self._close = weakref.finalize(self, _close_plain, self._orphans, self.folder)
            return
        sweep(place)
        self.folder = Path(tempfile.mkdtemp(prefix=f"cachelab-{self._owner}-", dir=place))
        lock = os.open(self.folder / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.supervisor = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(Path(__file__).with_name("_supervise.py")),
                    str(self.folder),
                    str(self._owner),
                    str(lock),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                # Jupyter's interrupt is a SIGINT to the kernel's whole process group.
                start_new_session=True,
                pass_fds=[lock],
            )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            os.close(lock)
        self._close = weakref.finalize(self, _close_supervised, self.supervisor, self._owner)

    def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, log: str = "child.log"
    ) -> int:
        """Start `argv` in the folder, in a session of its own, and return its process id.

        `env` is its whole environment (None: ours); its output is appended to the file `log` in
        the folder. Raises GuardError when it cannot be started.
        """
        argv = [str(part) for part in argv]
        given = dict(os.environ if env is None else env)
        try:
            if sys.platform == "win32":
                return self._spawn_plain(argv, given, log)
            return int(self._ask("spawn", argv=argv, env=given, log=log))
        except (OSError, GuardError) as error:
            raise GuardError(f"{argv[0]} could not be started: {error}.") from None

    def signal(self, pid: int, sig: int) -> None:
        """Send `sig` to a process of ours; GuardError when it does not run."""
        if sys.platform == "win32":
            self._orphans[pid].send_signal(sig)
        else:
            self._ask("signal", pid=pid, sig=int(sig))

    def kill(self, pid: int) -> None:
        """SIGKILL a process of ours with its session, and wait until it is reaped."""
        if sys.platform == "win32":
            self._orphans[pid].kill()
            self._orphans[pid].wait()
        else:
            self._ask("kill", pid=pid)

    def returncode(self, pid: int) -> int | None:
        """None while it runs; then its exit code, or minus the signal that ended it."""
        if sys.platform == "win32":
            return self._orphans[pid].poll()
        code = self._ask("returncode", pid=pid)
        return None if code is None else int(code)

    def on_exit(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
        """Have `argv` run when this process has ended, however it ended, or at `.close()`.

        It runs after the children are dead and the folder is gone, for 15 s at most, with its
        output dropped. Secrets belong in `env`: command lines can be read by every user. Returns
        a number for `.off_exit`. Windows has nobody to run it.
        """
        if sys.platform == "win32":
            return 0
        given = dict(os.environ if env is None else env)
        return int(self._ask("on_exit", argv=[str(part) for part in argv], env=given))

    def off_exit(self, number: int) -> None:
        """Forget a command given to `.on_exit`."""
        if sys.platform != "win32":
            self._ask("off_exit", number=number)

    def close(self) -> None:
        """Kill the children and remove the folder; safe to call twice, does nothing in a fork."""
        if os.getpid() == self._owner:
            with self._lock:
                self._close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: str, **arguments: Any) -> Any:
        if os.getpid() != self._owner:
            raise GuardError("this process is a fork; the guard belongs to its parent")
        with self._lock:
            process = self.supervisor
            if process is None or process.stdin is None or process.stdout is None:
                raise GuardError("the guard has no supervisor")
            if not self._close.alive:
                raise GuardError("the guard is closed")
            self._requests += 1
            request = {"id": self._requests, "do": what, "with": arguments}
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                reply: dict[str, Any] = {"id": None}
                # An interrupted call may have left its answer unread: skip to our own.
                while reply["id"] != self._requests:
                    line = process.stdout.readline()
                    if not line:
                        raise BrokenPipeError
                    reply = json.loads(line)
            except OSError:
                raise GuardError(
                    "the supervisor process is gone, and with it what it guarded"
                ) from None
        if "error" in reply:
            raise GuardError(reply["error"])
        return reply["value"]

    def _spawn_plain(self, argv: list[str], env: dict[str, str], log: str) -> int:
        with open(self.folder / log, "ab") as out:
            child = subprocess.Popen(
                argv,
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._orphans[child.pid] = child
        return child.pid


def temp_place() -> Path:
    """Where our folders go: the temp folder, or /tmp where its name is too long for a socket."""
    place = Path(tempfile.gettempdir())
    if len(os.fsencode(place)) > LONGEST_TEMP and os.access("/tmp", os.W_OK | os.X_OK):
        return Path("/tmp")
    return place


def sweep(place: Path) -> list[Path]:
    """Remove the folders under `place` whose supervisor is gone, and return them.

    A supervisor holds a lock on its folder's `.alive` file for as long as it lives; only real
    folders with our kind of name (`cachelab-`, process id, eight characters), of our own user,
    whose lock is free, are taken. One without that file may be in the making: it is left for a
    minute, and for as long as its process runs.
    """
    swept = []
    if sys.platform != "win32":
        for folder in place.glob("cachelab-*"):
            with contextlib.suppress(OSError):
                if _is_left_over(folder):
                    # Take it out of others' sight first: two sweeps may meet.
                    grave = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
                    folder.rename(grave)
                    shutil.rmtree(grave, ignore_errors=True)
                    swept.append(folder)
    return swept


if sys.platform != "win32":

    def _is_left_over(folder: Path) -> bool:
        found = folder.lstat()
        named = OUR_NAME.fullmatch(folder.name)
        if (
            named is None
            or not folder.is_dir()
            or folder.is_symlink()
            or found.st_uid != os.getuid()
        ):
            return False
        try:
            lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            old = time.time() - found.st_mtime > UNLOCKED_GRACE_SECONDS
            return old and not _runs(int(named[1]))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            # Made by the owner before it could lock it: not yet ours to judge.
            return time.time() - os.fstat(lock).st_mtime > 1.0
        finally:
            os.close(lock)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _close_supervised(supervisor: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner or supervisor.stdin is None or supervisor.stdout is None:
        return
    with contextlib.suppress(OSError):
        supervisor.stdin.close()
    # It lets go of its stdout when the folder is gone; clean-up commands may take longer.
    with contextlib.suppress(OSError, ValueError):
        while supervisor.stdout.read(4096):
            pass
    supervisor.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        supervisor.wait(1.0)
    if supervisor.returncode is None:
        supervisor.returncode = 0  # still cleaning up elsewhere; init will reap it


def _close_plain(orphans: dict[int, subprocess.Popen[bytes]], folder: Path) -> None:
    for child in orphans.values():
        child.send_signal(signal.SIGTERM)
        child.wait()
    shutil.rmtree(folder, ignore_errors=True)
