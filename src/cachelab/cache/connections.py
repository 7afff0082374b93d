"""Connections to a cache: a pool for 1,000 readers, patient with commands that block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import (
    BlockingConnectionPool,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.utils import SENTINEL

from cachelab.cache.command_keys import upper

# 64 connections carry 1,000 threads, since each is held for one command; the wait for one is long
# because a full pool is no reason to call the cache dead.
POOL_SIZE = 64
POOL_WAIT_SECONDS = 20.0
CONNECT_SECONDS = 0.5
# How long a paused server can hold a command. Blocking commands get their own time on top.
REPLY_SECONDS = 2.0


def blocking_seconds(args: Iterable[Any]) -> float | None:
    """How long a command asks the server to wait: 0 for ever, None when it does not wait."""
    argv = [upper(arg) for arg in args]
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


class BlockingTimeout:
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


class TcpConnection(BlockingTimeout, Connection):
    """Loopback or network."""


class TlsConnection(BlockingTimeout, SSLConnection):
    """A `rediss://` server."""


class UnixConnection(BlockingTimeout, UnixDomainSocketConnection):
    """A socket in our private folder."""


CONNECTIONS = {
    Connection: TcpConnection,
    SSLConnection: TlsConnection,
    UnixDomainSocketConnection: UnixConnection,
}


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
