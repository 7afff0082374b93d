"""fakeredis as a server, with its times: `SETEX` to the millisecond, `EXPIRE key 0` at once.

fakeredis 2.40 cuts the moment of expiry to the whole second in SETEX, PSETEX and GETEX (not in
`SET ... EX`), so that a copy lives up to a second less than was asked; and it ends a key with no
time left only when time has passed, which it does not do within a step of the stage. And its
COPY gives two keys one and the same hash, list or set.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import fakeredis
import redis
from fakeredis import FakeServer, _msgs
from fakeredis._clients._sync import FakeRedisConnection
from fakeredis._socket import FakeSocket
from redis.connection import BlockingConnectionPool

from cachelab.cache.base import GET_ONE, Server, ServerError
from cachelab.cache.connections import pool


class ExactSocket(FakeSocket):
    """A socket of fakeredis whose copies live as long as they should."""

    def setex(self, key: Any, seconds: int, value: bytes) -> Any:
        """`SETEX key seconds value`."""
        answer = super().setex(key, seconds, value)
        key.expireat = self._db.time + seconds
        return answer

    def psetex(self, key: Any, ms: int, value: bytes) -> Any:
        """`PSETEX key milliseconds value`."""
        answer = super().psetex(key, ms, value)
        key.expireat = self._db.time + ms / 1000.0
        return answer

    def getex(self, key: Any, *args: bytes) -> Any:
        """`GETEX key EX seconds`, and its like: `PX`, `EXAT`, `PXAT`, `PERSIST`."""
        answer = super().getex(key, *args)
        option = args[0].lower() if args else b""
        if option in (b"ex", b"px", b"pxat"):
            since = 0.0 if option == b"pxat" else self._db.time
            key.expireat = since + int(args[1]) / (1.0 if option == b"ex" else 1000.0)
        return answer

    def copy(self, key: Any, newkey: Any, *options: bytes) -> int:
        """`COPY key newkey`: what is done to one afterwards is not done to the other."""
        done: int = super().copy(key, newkey, *options)
        if done:
            newkey.value, newkey.expireat = deepcopy(key.value), key.expireat
        return done

    def _expireat(self, key: Any, timestamp: float, *options: bytes) -> int:
        done = super()._expireat(key, timestamp, *options)
        if done and timestamp <= self._db.time:
            key.value = None  # as a server does: deleted now
        return done


class ExactConnection(FakeRedisConnection):
    """A connection of fakeredis over an exact socket."""

    @property
    def _connection_error_class(self) -> Any:  # type: ignore[override]
        """What a command raises while the server is not connected; `World.cache_hangs` sets it."""
        return getattr(self._server, "unreachable", redis.ConnectionError)

    def _connect(self) -> FakeSocket:
        assert self._server is not None
        if not self._server.connected:
            raise self._connection_error_class(_msgs.CONNECTION_ERROR_MSG)
        return ExactSocket(
            self._server,
            client_class=self._client_class,
            db=self.db,
            lua_modules=self._lua_modules,
            client_info=self._client_info,
        )


class FakeConnection(ExactConnection):
    """A connection that finds the new server after a restart, as a socket's address does."""

    def __init__(self, *, owner: FakeRedisServer, **options: Any) -> None:
        self._owner = owner
        super().__init__(server=owner.backend, **options)

    def _connect(self) -> FakeSocket:
        self._server = self._owner.backend
        return super()._connect()


_empty = partial(FakeServer, version=(8,), server_type="redis")


@dataclass(kw_only=True)
class FakeRedisServer(Server):
    """fakeredis, in this process: no server to be had, or none wanted.

    backend: what fakeredis keeps the data in; a restart replaces it as a whole.
    """

    name: str = f"fakeredis {getattr(fakeredis, '__version__', '')}".strip()
    where: str = "fakeredis"
    is_ours: bool = True
    can_be_killed: bool = True
    can_be_paused: bool = False
    backend: FakeServer = field(default_factory=_empty, repr=False)

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
        self.backend = _empty()

    def _refuse(self, what: str) -> NoReturn:
        raise ServerError(
            f"fakeredis runs inside this process and cannot be {what}: for a real server,"
            f" {GET_ONE}."
        )
