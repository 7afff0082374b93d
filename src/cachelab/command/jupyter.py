"""Start JupyterLab as a learner should meet it: private to this machine, offline, at the start."""

from __future__ import annotations

import atexit
import contextlib
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachelab.command import CommandError

if TYPE_CHECKING:
    from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = Path(__file__).resolve().parent / "jupyter_settings"
START = "notebooks/00_start_here.ipynb"

# What a learner does not need to see in the file browser; it is still there for a terminal.
PLUMBING = [
    "__pycache__", "*.pyc", ".DS_Store", "*~",
    "src", "tools", "tests", "content", "benchmarks", "docs", "build", "dist",
    "Makefile", "Dockerfile", "docker-compose.yml", "environment.yml", "conftest.py",
    "pyproject.toml", "requirements*.txt", "LICENSE*", "CHANGELOG.md", "CONTRIBUTING.md",
    "SECURITY.md",
    "site", "action.yml", "postBuild", "start",
]  # fmt: skip


def project_root() -> Path:
    """The folder that holds the notebooks: the clone we run from, else where we are.

    A hub names the learner's home in CACHELAB_ROOT instead.
    """
    if given := os.environ.get("CACHELAB_ROOT"):
        return Path(given)
    return ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()


def private_folder(root: Path) -> Path:
    """Where Jupyter, IPython and Matplotlib write: inside the project, else a new temp folder.

    The temp folder goes with this process. For its owner alone: what lies in it is run at the start
    of a kernel, or holds the token.
    """
    folder = root / ".cachelab"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(OSError):  # made before, or by another user
            folder.chmod(0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        away = tempfile.mkdtemp(prefix="cachelab-jupyter-")
        atexit.register(shutil.rmtree, away, ignore_errors=True)
        return Path(away)


def set_environment(root: Path, environ: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Point Jupyter, IPython and Matplotlib at our folders, so that a home folder is not needed."""
    private = private_folder(root)
    environ["JUPYTER_CONFIG_DIR"] = str(private / "jupyter" / "config")
    environ["JUPYTER_DATA_DIR"] = str(private / "jupyter" / "data")
    environ["JUPYTER_RUNTIME_DIR"] = str(private / "jupyter" / "runtime")
    environ["JUPYTER_CONFIG_PATH"] = str(SETTINGS)
    environ["IPYTHONDIR"] = str(private / "ipython")
    environ["MPLCONFIGDIR"] = str(private / "matplotlib")
    environ.setdefault("CACHELAB_HOME", str(private / "home"))
    # `cachelab` and `python` in JupyterLab's terminal are the ones of this environment.
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    if environ.get("CACHELAB_TOKEN"):
        environ["JUPYTER_TOKEN"] = environ["CACHELAB_TOKEN"]


def in_container(environ: dict[str, str] | os._Environ[str] = os.environ) -> bool:
    return environ.get("CACHELAB_CONTAINER") == "1"


def refuse_no_token(token: str) -> None:
    """Raise CommandError if anybody on this machine could come in."""
    if not token:
        raise CommandError(
            "JupyterLab runs what is typed into it, so it is not started without a token: "
            "leave the token setting out and one is made, or set CACHELAB_TOKEN."
        )


def refuse_strangers(ip: str, *, container: bool) -> None:
    """Raise CommandError if other machines could reach it; a container has its own network."""
    try:
        loopback = ip == "localhost" or ipaddress.ip_address(ip).is_loopback
    except ValueError:
        loopback = False
    if not (loopback or container):
        raise CommandError(
            f"JupyterLab would be open to other machines at {ip!r}, so it is not started: leave "
            "--ip out (it is 127.0.0.1), and reach it from elsewhere through an SSH tunnel."
        )


def refuse_taken_port(ip: str, port: int) -> None:
    """Raise CommandError if a port that was asked for by number cannot be used."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # a port of a server that just ended may be taken again
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} cannot be used ({error.strerror}): name another one with --port, or "
                "leave --port out and a free one is found."
            ) from None


def settings(root: Path) -> Config:
    """JupyterLab's settings for the workbook in `root`, alone on a laptop or under a hub."""
    import zmq
    from traitlets.config import Config

    config = Config()
    config.ServerApp.root_dir = str(root)
    config.ServerApp.answer_yes = True  # one Ctrl-C ends it; autosave has kept the work
    config.ServerApp.allow_root = True  # a container or a fresh machine may have no other user
    config.Application.log_level = "WARN"  # the address to open is not lost among other lines
    # Jupyter Server's own default (90 s) is more than tornado allows, and each kernel would warn.
    config.ServerApp.tornado_settings = {"ws_ping_timeout": 30_000}
    config.ContentsManager.hide_globs = PLUMBING
    config.LabApp.news_url = None
    config.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
    config.LabApp.extension_manager = "readonly"
    if zmq.has("curve"):  # what a kernel says is then private even on a shared machine
        config.KernelManager.transport_encryption = "auto"
    if (root / START).is_file():
        config.LabApp.default_url = f"/lab/tree/{START}"
    return config


def launch(args: Sequence[str] = ()) -> int:
    """Run JupyterLab until it is stopped, with JupyterLab's own command-line arguments.

    Returns the exit code; 1 after one sentence if it would be open to strangers or if the port
    asked for is taken.
    """
    root = project_root()
    set_environment(root)
    # jsonschema looks for this one to check IRIs, which no notebook and no setting has: two seconds
    # of a start. Not found, it is done without.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    # Only now: jupyter_core reads the environment when it is imported.
    from jupyter_server import serverapp
    from jupyterlab.labapp import LabApp

    config = settings(root)
    config.ServerApp.ip = "0.0.0.0" if in_container() else "127.0.0.1"

    # Of the same name, since Jupyter files command-line options under it.
    class ServerApp(serverapp.ServerApp):  # type: ignore[misc, unused-ignore]
        """JupyterLab's server that looks at its final settings before it opens a port."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(config=config, **kwargs)

        def init_configurables(self) -> None:
            # Before Jupyter looks for another port itself, and before it can listen anywhere.
            refuse_strangers(self.ip, container=in_container())
            if "port" in self.cli_config.get("ServerApp", {}) and self.port and not self.sock:
                refuse_taken_port(self.ip, self.port)
                self.port_retries = 0
            super().init_configurables()
            refuse_no_token(self.identity_provider.token)

    LabApp.serverapp_class = ServerApp
    try:
        LabApp.launch_instance(argv=list(args))
    except CommandError as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0
