"""fakeredis with the times of a server: `SETEX` to the millisecond, `EXPIRE key 0` at once.

fakeredis 2.40 cuts the moment of expiry to the whole second in SETEX and PSETEX (not in
`SET ... EX`), so that a copy lives up to a second less than was asked; and it ends a key with no
time left only when time has passed, which it does not do within a step of the stage.
"""

from __future__ import annotations

from typing import Any

import redis
from fakeredis import _msgs
from fakeredis._clients._sync import FakeRedisConnection
from fakeredis._socket import FakeSocket


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

    def _expireat(self, key: Any, timestamp: float, *options: bytes) -> int:
        done = super()._expireat(key, timestamp, *options)
        if done and timestamp <= self._db.time:
            key.value = None  # as a server does: deleted now
        return done


class ExactConnection(FakeRedisConnection):
    """A connection of fakeredis over an exact socket."""

    def _connect(self) -> FakeSocket:
        assert self._server is not None
        if not self._server.connected:
            raise redis.ConnectionError(_msgs.CONNECTION_ERROR_MSG)
        return ExactSocket(
            self._server,
            client_class=self._client_class,
            db=self.db,
            lua_modules=self._lua_modules,
            client_info=self._client_info,
        )
