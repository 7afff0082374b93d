"""Pods: processes of the service, each with a hash seed, a client and a pool of its own.

All of a night runs in one Python process, on the stage. What differs between real processes is
modelled here, and only that: `hash()` of a text, which Python salts anew in each process, gives in
each pod what that pod's salt says. And each pod is connected to the cache by redis-py's own pool,
made by the part `connect`; the server takes so many clients and no more.
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import redis

from cachelab.cache.client import Cache
from cachelab.record.trace import current_actor
from cachelab.stage.scheduler import current as stage_task

_PLAIN = frozenset({"GET", "SET", "MGET", "DEL"})
_NONE_YET = object()
MOST_CLIENTS = 250  # connections that the server takes, of all pods together


def hash(value: Any) -> int:
    """`hash()` as the process of the running pod computes it.

    As in Python, only texts (and what holds texts) are salted; numbers are not. The salt is the
    pod's name with its generation: a pod that was restarted is another process.
    """
    if not _salted(value):
        return builtins.hash(value)
    pod = current_actor().split(" ")[0]
    digest = hashlib.blake2b(repr(value).encode(), key=pod.encode()[:64], digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True)


def _salted(value: Any) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return any(map(_salted, value))
    return isinstance(value, (str, bytes))


@contextmanager
def hash_per_process(functions: Iterable[Callable[..., Any]]) -> Iterator[None]:
    """While this lasts, `hash` in the modules of these functions is that of the running pod."""
    spaces = {}
    for function in functions:
        plain = getattr(function, "func", function)  # a partial
        space = getattr(plain, "__globals__", None)
        if isinstance(space, dict) and "hash" not in space:
            spaces[id(space)] = space
    for space in spaces.values():
        space["hash"] = hash
    try:
        yield
    finally:
        for space in spaces.values():
            if space.get("hash") is hash:
                del space["hash"]


@dataclass
class ConnectionLimit:
    """The server's side of the connections: how many are open, and how many there ever were."""

    peak: int = 0
    held: set[Any] = field(default_factory=set)  # each of some process

    @property
    def open(self) -> int:
        """How many are open now."""
        return len(self.held)

    def wire(self, cache: Any) -> dict[str, Any]:
        """What a redis-py pool needs to reach the cache of the stage, counted here."""
        connections, known = self, cache.store.pool

        class PodConnection(known.connection_class):  # type: ignore[misc, name-defined]
            """A connection that the server may refuse."""

            reply: Any = _NONE_YET

            @classmethod
            def hang_up(cls) -> None:
                """The process is gone, and the server sees all its connections end."""
                for one in [one for one in connections.held if type(one) is cls]:
                    one.disconnect()

            def connect(self) -> None:
                if self not in connections.held:
                    if connections.open >= MOST_CLIENTS:
                        raise redis.ConnectionError("max number of clients reached")
                    connections.held.add(self)
                    connections.peak = max(connections.peak, connections.open)
                super().connect()

            def send_command(self, *args: Any, **more: Any) -> None:
                task = stage_task()
                if args[0] not in _PLAIN or not self._sock or task is None:
                    super().send_command(*args, **more)
                    return
                # The same step of the stage, without packing and unpacking what nobody reads.
                self.reply = self.store.decoded(self.store.exchange(task, args))

            def read_response(self, *args: Any, **more: Any) -> Any:
                if self.reply is _NONE_YET:
                    return super().read_response(*args, **more)
                reply, self.reply = self.reply, _NONE_YET
                if isinstance(reply, Exception):
                    raise reply
                return reply

            def disconnect(self, *args: Any, **more: Any) -> None:
                connections.held.discard(self)
                super().disconnect(*args, **more)

        return {"connection_class": PodConnection, **known.connection_kwargs}


@dataclass
class Pod:
    """One process of the service."""

    name: str
    cache: Cache
    hang_up: Callable[[], None]

    def close(self) -> None:
        """Its process is gone, and its connections with it."""
        with suppress(Exception):
            self.hang_up()


def open_pod(name: str, connect: Callable[..., Any], wire: Mapping[str, Any], trace: Any) -> Pod:
    """A new process: connected by `connect`, which gets `wire`."""
    cache = Cache(connection_pool=connect(dict(wire)), trace=trace)
    pool = cache.connection_pool
    return Pod(name, cache, getattr(pool.connection_class, "hang_up", pool.disconnect))
