"""The supervisor process of a Guard: it outlives our process by a moment and takes all with it.

Run by guard.py as `python -I -S _supervise.py FOLDER OWNER_PID LOCK_FD`; standard library only.
It reads requests, one JSON object a line, from stdin and answers each on stdout. When the owner is
gone (end of stdin, or another parent process) it kills its children with their whole sessions,
removes the folder, runs the registered clean-up commands, and exits.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

POLL_SECONDS = 0.25
CLEANUP_SECONDS = 15.0
PR_SET_PDEATHSIG = 1


class Supervisor:
    def __init__(self, folder: str, owner: int) -> None:
        self.folder, self.owner = folder, owner
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.ended: dict[int, int] = {}
        self.asked = 0
        self.cleanups: dict[int, tuple[list[str], dict[str, str]]] = {}
        self.stopping = False

    def owner_is_gone(self) -> bool:
        # A forked child of the owner may hold our stdin open, so end-of-file alone is not enough.
        return os.getppid() != self.owner

    def serve(self) -> None:
        """Answer requests until the owner says stop, or is gone."""
        wake_out, wake_in = os.pipe()
        for end in (wake_out, wake_in):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        ready = selectors.DefaultSelector()
        ready.register(0, selectors.EVENT_READ)
        ready.register(wake_out, selectors.EVENT_READ)
        unread = b""
        while not self.stopping and not self.owner_is_gone():
            for key, _ in ready.select(POLL_SECONDS):
                got = os.read(key.fd, 65536)
                if key.fd == 0:
                    if not got:
                        return
                    *lines, unread = (unread + got).split(b"\n")
                    for line in lines:
                        self._answer(json.loads(line))
            self.reap()

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _answer(self, request: dict[str, Any]) -> None:
        try:
            reply = {"value": getattr(self, "do_" + request["do"])(**request.get("with", {}))}
        except Exception as error:
            reply = {"error": getattr(error, "strerror", None) or str(error) or repr(error)}
        self._say({"id": request["id"], **reply})

    def _say(self, reply: dict[str, Any]) -> None:
        try:
            os.write(1, json.dumps(reply).encode() + b"\n")
        except OSError:
            self.stopping = True

    def do_spawn(self, argv: list[str], env: dict[str, str], log: str) -> int:
        with open(os.path.join(self.folder, log), "ab") as out:
            child = subprocess.Popen(
                argv,
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(os.getpid()),
            )
        self.children[child.pid] = child
        return child.pid

    def do_signal(self, pid: int, sig: int) -> None:
        if pid not in self.children or self.do_returncode(pid) is not None:
            raise ProcessLookupError(f"no process {pid} of this guard is running")
        os.kill(pid, sig)

    def do_kill(self, pid: int) -> int | None:
        child = self.children.get(pid)
        if child is not None:
            kill_session(pid)
            self._bury(child)
        return self.ended.get(pid)

    def do_returncode(self, pid: int) -> int | None:
        self.reap()
        return self.ended.get(pid)

    def do_on_exit(self, argv: list[str], env: dict[str, str]) -> int:
        self.asked += 1
        self.cleanups[self.asked] = (argv, env)
        return self.asked

    def do_off_exit(self, number: int) -> None:
        self.cleanups.pop(number, None)

    def reap(self) -> None:
        """Bury the children that have ended, with what is left of their sessions."""
        for child in list(self.children.values()):
            if has_ended(child):
                self._bury(child)

    def _bury(self, child: subprocess.Popen[bytes]) -> None:
        if child.returncode is None:
            # Before the zombie is reaped its id cannot belong to anyone else.
            kill_session(child.pid)
        self.ended[child.pid] = child.wait()
        self.children.pop(child.pid, None)

    def finish(self) -> None:
        """Kill everything, remove the folder, run the clean-up commands."""
        for child in self.children.values():
            kill_session(child.pid)
        for child in list(self.children.values()):
            self._bury(child)
        remove(self.folder)
        # Whoever waits for us waits for the folder, not for the clean-up commands.
        for end in (0, 1):
            os.dup2(os.open(os.devnull, os.O_RDWR), end)
        running = []
        for argv, env in self.cleanups.values():
            try:
                running.append(subprocess.Popen(argv, env=env, cwd="/", start_new_session=True))
            except OSError:
                continue
        for process in running:
            try:
                process.wait(CLEANUP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def has_ended(child: subprocess.Popen[bytes]) -> bool:
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return child.poll() is not None
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill_session(leader: int) -> None:
    """SIGKILL a child, its process group, and (Linux) every other process of its session."""
    for pid in (leader, *session_members(leader)):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    try:
        os.killpg(leader, signal.SIGKILL)
    except OSError:
        return


def session_members(session: int) -> list[int]:
    members = []
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name in parentheses may hold spaces; the session is the fourth field after.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if len(fields) > 3 and int(fields[3]) == session:
            members.append(int(pid))
    return members


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """What a child runs before exec so that it dies even when we are SIGKILLed (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


def remove(folder: str) -> None:
    """Remove a folder of ours with all that is in it, write-protected parts too."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.isdir(folder):
        for place, _, _ in os.walk(folder):
            try:
                os.chmod(place, stat.S_IRWXU)
            except OSError:
                continue
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    folder, owner, lock = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.umask(0o077)  # ours and our children's: logs, dumps, sockets are for their owner alone
    os.set_inheritable(lock, False)  # held by us alone: its release says that we are gone
    supervisor = Supervisor(folder, owner)
    try:
        supervisor.serve()
    finally:
        supervisor.finish()


if __name__ == "__main__":
    main()
