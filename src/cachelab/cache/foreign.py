"""A server that is not ours, named by CACHELAB_REDIS_URL: checked, and left as it was found."""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.connection import BlockingConnectionPool, Connection, parse_url
from redis.crc import key_slot

from cachelab.cache.base import OLDEST, Server, ServerError, ServerUnfit, product
from cachelab.cache.connections import CONNECTIONS, TcpConnection, pool
from cachelab.cache.keyspace import SAFE_PREFIX
from cachelab.process.guard import Guard, GuardError

FOREIGN_CONNECT_SECONDS = 2.0


class ReconnectingPool(BlockingConnectionPool):
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


@dataclass(kw_only=True)
class ForeignServer(Server):
    """A server named by CACHELAB_REDIS_URL: only keys under our prefix, and those go at the end.

    In a cluster the prefix holds a hash tag, so all our keys are in one slot, and whatever works on
    one server works there; `nodes` are its nodes, that with our slot first.
    """

    url: str = field(repr=False)
    owns_guard: bool = True
    cleanup_id: int = 0
    nodes: list[dict[str, Any]] = field(default_factory=list, repr=False)

    is_cut: bool = False

    def connection_pool(self, **overrides: Any) -> BlockingConnectionPool:
        return self._open(ReconnectingPool, server=self, **overrides)

    def client(self, **overrides: Any) -> redis.Redis:
        return redis.Redis.from_pool(self._open(BlockingConnectionPool, **overrides))

    def _open(
        self, pool_class: type[BlockingConnectionPool], **overrides: Any
    ) -> BlockingConnectionPool:
        options = parse_url(self.url)
        kind = CONNECTIONS[options.pop("connection_class", Connection)]
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
                self.guard.off_exit(self.cleanup_id)
            if self.owns_guard:
                self.guard.close()


def foreign(url: str, *, guard: Guard | None = None, within: str = "") -> ForeignServer:
    """The server at `url`, checked, under a new prefix of our own; ServerUnfit, one sentence.

    `within`: what that prefix has to begin with, where a user may touch no other keys.
    """
    place = _place(url)
    began = _began(within)
    server = _foreign(url, f"{began}{secrets.token_hex(4)}:")
    said = f"CACHELAB_REDIS_URL points to {place}, but"
    with contextlib.closing(server.client(max_connections=1)) as client:
        _identify(server, client, began, said)
    with contextlib.closing(server.client(max_connections=1)) as client:
        _try_to_write(server, client, began, said)
    server.owns_guard = guard is None
    server.guard = guard or Guard()
    server.cleanup_id = _forget_on_exit(server, server.guard, began)
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


def _identify(server: ForeignServer, client: redis.Redis, began: str, said: str) -> None:
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


def _forget_on_exit(server: ForeignServer, guard: Guard, began: str) -> int:
    """Have our keys deleted when this process is gone, however it ended; the guard's number."""
    package = str(Path(__file__).resolve().parents[2])
    return guard.on_exit(
        [sys.executable, "-m", "cachelab.cache.foreign", "--forget", server.prefix],
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


def _reason(error: BaseException) -> str:
    """An error's own words in one line; redis-py's never hold the password."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def main(arguments: list[str] | None = None) -> int:
    """`python -m cachelab.cache.foreign --forget PREFIX`: what a guard runs after our death.

    The server is the one in CACHELAB_REDIS_URL: a URL may hold a password, a command line may not.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cachelab.cache.foreign", description=main.__doc__
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
