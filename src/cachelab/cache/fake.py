"""fakeredis as a server, in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

import fakeredis
from fakeredis._socket import FakeSocket
from redis.connection import BlockingConnectionPool

from cachelab.cache.base import GET_ONE, Server, ServerError
from cachelab.cache.connections import pool
from cachelab.cache.exact import ExactConnection, ExactServer


class FakeConnection(ExactConnection):
    """A connection that finds the new server after a restart, as a socket's address does."""

    def __init__(self, *, owner: FakeRedisServer, **options: Any) -> None:
        self._owner = owner
        super().__init__(server=owner.backend, **options)

    def _connect(self) -> FakeSocket:
        self._server = self._owner.backend
        return super()._connect()


@dataclass(kw_only=True)
class FakeRedisServer(Server):
    """fakeredis, in this process: no server is available, or none was asked for.

    backend: what fakeredis keeps the data in; a restart replaces it as a whole.
    """

    name: str = f"fakeredis {getattr(fakeredis, '__version__', '')}".strip()
    where: str = "fakeredis"
    is_ours: bool = True
    can_be_killed: bool = True
    can_be_paused: bool = False
    backend: ExactServer = field(default_factory=ExactServer, repr=False)

    def __str__(self) -> str:
        return f"{self.name} (in this process)"

    @property
    def is_live(self) -> bool:
        return False

    def connection_pool(self, **overrides: Any) -> BlockingConnectionPool:
        return pool(FakeConnection, {"owner": self, **overrides})

    def kill(self) -> None:
        self.backend.connected = False

    def restart(self) -> None:
        self.kill()
        self.backend = ExactServer()

    def _refuse(self, what: str) -> NoReturn:
        raise ServerError(
            f"fakeredis runs inside this process and cannot be {what}: for a real server,"
            f" {GET_ONE}."
        )
