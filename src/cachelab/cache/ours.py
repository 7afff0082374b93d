"""A server process of our own: started, killed, restarted, and gone when this process is."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.connection import BlockingConnectionPool

from cachelab.cache.base import Server, ServerError, ServerUnfit, product
from cachelab.cache.connections import TcpConnection, UnixConnection, pool
from cachelab.process.guard import Guard, GuardError

START_SECONDS = 10.0
BUS = 10_000  # a cluster node also listens so much higher
HIGHEST_PORT = 65_535 - BUS


@dataclass(kw_only=True)
class OurServer(Server):
    """A server process of our own, held by a Guard, on a socket or port nobody else can use."""

    binary: Path
    config: dict[str, str] = field(repr=False)
    address: dict[str, Any] = field(repr=False)
    folder: Path
    pid: int = 0
    owns_guard: bool = True

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def connection_pool(self, **overrides: Any) -> BlockingConnectionPool:
        kind = UnixConnection if "path" in self.address else TcpConnection
        return pool(kind, {**self.address, **overrides})

    def kill(self) -> None:
        self._guard.kill(self.pid)

    def restart(self) -> None:
        self.kill()
        if not self._persists():
            # SAVE may have left a dump that an empty server must not load.
            shutil.rmtree(self.folder, ignore_errors=True)
        self.start()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        try:
            self._guard.signal(self.pid, number)
        except GuardError:
            raise ServerError(
                "The server does not run, so it can be neither paused nor resumed: restart it."
            ) from None

    @property
    def _guard(self) -> Guard:
        assert self.guard is not None
        return self.guard

    def _persists(self) -> bool:
        saves = self.config.get("save", "").strip('"') != ""
        return saves or self.config.get("appendonly", "no") == "yes"

    def is_running(self) -> bool:
        return self.pid != 0 and self._guard.returncode(self.pid) is None

    def start(self) -> None:
        """Start the process and wait until it answers; ServerUnfit with its own words if not."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        file = self.folder.with_suffix(".conf")
        file.touch(mode=0o600)
        file.write_text("".join(f"{name} {value}\n" for name, value in self.config.items()))
        keep = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
        env = {name: os.environ[name] for name in keep if name in os.environ}
        began = self.log.stat().st_size if self.log.exists() else 0
        try:
            self.pid = self._guard.spawn([str(self.binary), str(file)], env=env, log=self.log.name)
        except GuardError as error:
            raise ServerUnfit(str(error)) from None
        self._wait_until_ready(began)

    def _wait_until_ready(self, log_from: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        with contextlib.closing(self.client(max_connections=1, socket_timeout=1.0)) as client:
            while True:
                with contextlib.suppress(redis.RedisError):
                    # While it reads its append-only file it answers INFO and refuses PING.
                    if client.info("server").get("process_id") == self.pid and client.ping():
                        return
                code = self._guard.returncode(self.pid)
                if code is not None or time.monotonic() > deadline:
                    break
                time.sleep(0.005)
        what = (
            f"ended with {code}" if code is not None else f"gave no answer in {START_SECONDS:g} s"
        )
        said = self._last_log_lines(log_from)
        self._guard.kill(self.pid)
        raise ServerUnfit(f"{self.binary} was started but {what}{said and ': '}{said}.")

    def _last_log_lines(self, log_from: int) -> str:
        """The last two lines of the log, without process id and time, in one."""
        lines = self.log.read_bytes()[log_from:].decode(errors="replace").split("\n")
        words = [re.sub(r"^\d+:\w .{20,30} [.*#-] ", "", line).strip() for line in lines]
        return " ".join([word for word in words if word][-2:]).rstrip(".")

    def close(self) -> None:
        with contextlib.suppress(GuardError):
            if self.owns_guard:
                self._guard.close()
            else:
                self._guard.kill(self.pid)


def start(
    binary: Path,
    *,
    where: str,
    guard: Guard | None = None,
    tcp: bool = False,
    password: str | None = None,
    **config: str,
) -> OurServer:
    """Start a server of our own that dies with this process.

    It listens on a socket in the guard's private folder, or, with `tcp`, on a free port of
    127.0.0.1 with a random password (or `password`, which several servers may share). `config`:
    further directives, `_` for `-` (`appendonly="yes"`, `maxmemory="2mb"`). Raises ServerUnfit.
    """
    owns_guard = guard is None
    guard = guard or Guard()
    label = f"server-{secrets.token_hex(3)}"
    try:
        for attempt in range(5):
            listen, address = free_address(guard.folder / f"{label}.sock", tcp)
            if tcp and password is not None:
                listen["requirepass"] = address["password"] = password
            server = OurServer(
                name="",
                where=where,
                is_ours=True,
                can_be_killed=True,
                can_be_paused=True,
                guard=guard,
                owns_guard=owns_guard,
                binary=binary,
                folder=guard.folder / label,
                address=address,
                config={
                    "save": '""',
                    "appendonly": "no",
                    "tcp-backlog": "4096",
                    "maxmemory-policy": "noeviction",
                    "enable-debug-command": "no",
                    "loglevel": "warning",
                    "dir": f'"{guard.folder / label}"',
                    **listen,
                    **{name.replace("_", "-"): value for name, value in config.items()},
                },
            )
            try:
                server.start()
            except ServerUnfit:
                # Another process may have taken the port between our look and the start.
                ports = (address["port"], address["port"] + BUS) if tcp else ()
                if attempt == 4 or not any(map(_is_taken, ports)):
                    raise
            else:
                break
        with contextlib.closing(server.client(max_connections=1)) as client:
            server.name = product(client.info("server"))
    except BaseException:
        if owns_guard:
            guard.close()
        raise
    return server


def free_address(path: Path, tcp: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """Where a server may listen, and how to reach it: the socket `path`, or a port of 127.0.0.1."""
    if not tcp:
        listen = {"port": "0", "unixsocket": f'"{path}"', "unixsocketperm": "700"}
        return listen, {"path": str(path)}
    port = HIGHEST_PORT + 1
    while port > HIGHEST_PORT:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    password = secrets.token_urlsafe(24)
    listen = {"bind": "127.0.0.1", "port": str(port), "requirepass": password}
    return listen, {"host": "127.0.0.1", "port": port, "password": password}


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
