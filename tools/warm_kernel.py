"""Kernels forked from one process that has imported their libraries already; for nbval runs.

Most of a kernel's start is the import of the same libraries, 1.4 s of processor time for each of
some seventy notebooks. Ahead are loaded only libraries of others that `cachelab` itself loads in
every notebook, and never `cachelab`: a notebook still has to import what it names, and an import
that a module of ours forgot is still missed. Linux only; CACHELAB_KERNELS=cold starts each kernel
by itself. The builder always does.
"""

import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jupyter_client import launcher as cold
from jupyter_client.provisioning import local_provisioner

LIBRARIES = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "numpy",
    "matplotlib.pyplot",
    "redis",
    "sqlalchemy.orm",
    "fakeredis",
)
INLINE = "module://matplotlib_inline.backend_inline"  # what a kernel sets before it imports pyplot


@dataclass
class Forked:
    """A forked kernel, as jupyter_client uses a Popen."""

    pid: int
    stdin: None = None
    stdout: None = None
    stderr: None = None

    def poll(self) -> int | None:
        """None while it runs, else 0: its exit code is known to the process it came from."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def wait(self) -> int:
        """Until it has ended."""
        while self.poll() is None:
            time.sleep(0.005)
        return 0

    def send_signal(self, number: int) -> None:
        """As Popen's."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As Popen's."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """As Popen's."""
        self.send_signal(signal.SIGTERM)


class Warm:
    """The process that kernels are forked from. Started by the first; `close` ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def launch(self, command: list[str], **options: Any) -> Any:
        """In place of jupyter_client's `launch_kernel`; it still starts what is no plain kernel."""
        if command[1:3] != ["-m", "ipykernel_launcher"] or command[0] != sys.executable:
            return cold.launch_kernel(command, **options)
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.warm_kernel"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parents[1],
                env={**os.environ, "MPLBACKEND": INLINE},
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        environment = dict(options.get("env") or os.environ)
        wanted = {"argv": command[3:], "env": environment, "cwd": str(options.get("cwd") or ".")}
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()))

    def close(self) -> None:
        """End it; a kernel that is left follows within a second, as when any parent ends."""
        if self._process is not None:
            self._process.communicate()


def install() -> Warm | None:
    """Let jupyter_client start kernels in this way from now on; None where that is not possible."""
    if sys.platform != "linux" or os.environ.get("CACHELAB_KERNELS") == "cold":
        return None
    warm = Warm()
    setattr(local_provisioner, "launch_kernel", warm.launch)  # noqa: B010 - mypy refuses the other
    return warm


# In the process that is forked -----------------------------------------------------------------


def main() -> None:
    """Fork a kernel for each line of the standard input, until it ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is shared stays shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the ended ones
    ours = os.getpid()
    for line in sys.stdin:
        if os.fork() == 0:
            _be_a_kernel(json.loads(line), ours)


def _be_a_kernel(wanted: dict[str, Any], parent: int) -> NoReturn:
    from ipykernel import kernelapp

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()  # before anybody knows of us: an interrupt goes to the whole group
        os.write(1, f"{os.getpid()}\n".encode())
        nowhere = os.open(os.devnull, os.O_RDWR)
        for end in (0, 1, 2):
            os.dup2(nowhere, end)
        os.chdir(wanted["cwd"])
        os.environ.clear()
        os.environ.update(wanted["env"])
        os.environ["JPY_PARENT_PID"] = str(parent)
        sys.path.pop(0)  # the project's root, which no kernel has there
        # It watches its parent, whose number ipykernel has read when it was imported.
        watched = f"--IPKernelApp.parent_handle={parent}"
        launcher = importlib.util.find_spec("ipykernel_launcher")
        assert launcher is not None
        sys.argv = [str(launcher.origin), *wanted["argv"], watched]
        gc.unfreeze()
        kernelapp.launch_new_instance()
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
