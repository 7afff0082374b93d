"""The cache on the stage: fakeredis under the virtual clock, every command a switch point."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, cast

import redis
from fakeredis._helpers import SimpleError
from fakeredis._socket._resp import extract_command
from redis.maint_notifications import MaintNotificationsConfig

from cachelab.cache.client import Cache
from cachelab.cache.command_keys import commands, key_positions
from cachelab.cache.exact import ExactConnection, ExactServer, ExactSocket
from cachelab.stage.context import Context
from cachelab.stage.faults import FAILURES, LOST
from cachelab.stage.scheduler import Label, Refused, current


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_READ_ONLY = _words(
    "GET MGET HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSTRLEN STRLEN EXISTS TTL PTTL TYPE "
    "GETRANGE SUBSTR LRANGE LLEN LINDEX LPOS SMEMBERS SISMEMBER SMISMEMBER SCARD SRANDMEMBER "
    "SINTER SUNION SDIFF SINTERCARD ZRANGE ZRANGEBYSCORE ZREVRANGE ZRANGEBYLEX ZSCORE ZMSCORE "
    "ZCARD ZCOUNT ZRANK ZREVRANK XRANGE XREVRANGE XLEN XREAD XINFO XPENDING GETBIT BITCOUNT "
    "BITPOS EXPIRETIME PEXPIRETIME OBJECT DUMP WATCH HTTL HPTTL SSCAN HSCAN ZSCAN PFCOUNT EVAL_RO "
    "EVALSHA_RO FCALL_RO KEYS SCAN DBSIZE RANDOMKEY"
)
_WHOLE = _words("KEYS SCAN DBSIZE RANDOMKEY FLUSHALL FLUSHDB SWAPDB RENAME RENAMENX COPY")
_NOTHING = _words(
    "PING ECHO TIME HELLO CLIENT SELECT MULTI EXEC DISCARD UNWATCH SCRIPT AUTH COMMAND INFO "
    "CONFIG ACL QUIT RESET"
)
_CHANNELS = _words("PUBLISH SPUBLISH SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE")


def touches(args: Sequence[Any]) -> Label:
    """What one command reads or writes, as the explorer sees it."""
    words = _text(args[0]).upper().split(" ")
    name = words[0]
    if name in _NOTHING:
        return ()
    if name in _CHANNELS:
        return (("channel", None, True),)
    writes = name not in _READ_ONLY
    if name in _WHOLE:
        return (("cache", None, writes),)
    argv = [*words[1:], *args[1:]] if len(words) > 1 else list(args)
    specs = commands().get("|".join(words[:2])) or commands().get(name)
    if specs is None:
        return (("cache", None, True),)
    keys: dict[str, None] = {}
    try:
        for spec in specs:
            for position in key_positions(spec, argv):
                keys[_text(argv[position])] = None
    except (IndexError, ValueError, TypeError):
        return (("cache", None, True),)
    return tuple(("cache", key, writes) for key in keys)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class _Ordered(dict[Any, None]):
    """A set that keeps its order: which subscriber hears first must not depend on addresses."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)

    def remove(self, item: Any) -> None:
        del self[item]

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.keys()))


class _Socket(ExactSocket):
    """A socket of fakeredis that can answer a command at once, without a queue between."""

    place = "on the stage"

    def _decode_result(self, result: Any) -> Any:
        missed, task = self._server.missed, current()
        if missed and task is not None:  # a limit of ours ends the run, whatever comes of the error
            refused = Refused(missed.pop())
            task.scheduler.fail(task, refused)
        return super()._decode_result(result)

    def direct(self, fields: list[bytes]) -> Any:
        """One command outside of transactions and subscriptions: what `_process_command` does."""
        server, self.asked = self._server, fields
        name, arguments = extract_command(fields)
        try:
            function, signature = self._name_to_func(name)
            with server.lock:
                now = time.time()
                for keys in server.dbs.values():
                    keys.time = now
                signature.check_arity(arguments, self.version)
                result = self._run_command(function, signature, arguments, False)
        except SimpleError as error:
            result = error
        return self._decode_result(result)


class StageConnection(ExactConnection):
    """What pipelines and subscribers send over: each write is one switch point."""

    _ready = False
    socket_class = _Socket

    @property
    def store(self) -> Store:
        """By the server, and not a class for each store: fakeredis keeps every class it meets."""
        return cast("Store", self._server.store)  # type: ignore[union-attr]

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        self._ready = True  # what redis-py says on its own before is no step of an actor

    def disconnect(self, *args: Any, **more: Any) -> None:
        self._ready = False
        super().disconnect(*args, **more)  # type: ignore[no-untyped-call]

    def send_command(self, *args: Any, **more: Any) -> None:
        step = self._ready and touches(args)  # UNWATCH touches no key
        way = self.store.before([args]) if step else ""
        super().send_command(*args, **more)  # type: ignore[no-untyped-call]
        self.store.after(way, [args])

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        store = self.store
        asked, store.queued = store.queued, []
        way = store.before(asked) if asked else ""
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]
        store.after(way, asked)


class StageCache(Cache):
    """The client that actors are called with: redis-py, straight into fakeredis."""

    store: Store

    def _execute_command(self, *args: Any, **options: Any) -> Any:
        if self.connection is not None:
            return super()._execute_command(*args, **options)  # type: ignore[no-untyped-call]
        return self.store.execute(self, args, options)

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        pipe = super().pipeline(transaction, shard_hint)
        store, execute = self.store, pipe.execute

        def labelled(raise_on_error: bool = True) -> Any:
            store.queued = [args for args, _ in pipe.command_stack]
            try:
                return execute(raise_on_error)
            finally:
                store.queued = []

        pipe.execute = labelled  # type: ignore[method-assign]
        return pipe


class Store:
    """The server side: state, snapshot, faults."""

    def __init__(self, world: Context) -> None:
        self.world = world
        self.server = ExactServer()
        self.server.store = self  # type: ignore[attr-defined]
        for name in ("subscribers", "psubscribers", "ssubscribers"):
            setattr(self.server, name, defaultdict(_Ordered))
        self.idle: list[_Socket] = []
        self.queued: list[Any] = []
        self.baseline: dict[int, dict[bytes, Any]] = {}
        self.down: Any = None  # the fault because of which nothing answers
        self._scripts: dict[bytes, bytes] = {}
        self.pool = redis.ConnectionPool(
            connection_class=StageConnection,
            server=self.server,
            decode_responses=True,  # and no protocol: replies in the shapes of a live client
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            max_connections=100_000,
            client_class=redis.Redis,
        )
        self.client = StageCache(connection_pool=self.pool, trace=world.trace)
        self.client.store = self
        self.encode: Any = self.client.get_encoder().encode
        self.decode: Any = self.client.get_encoder().decode

    # One command ----------------------------------------------------------------------------

    def before(self, asked: Sequence[Sequence[Any]]) -> str:
        """The switch point in front of a round trip, and the faults that meet it.

        Returns what is to go wrong once it is done, if anything: a message is lost, or the reply.
        """
        task = current()
        if task is None or task.free:
            return ""
        scheduler = task.scheduler
        label: dict[Any, None] = {}
        for args in asked:
            for touch in self.world.labels(args):
                label[touch] = None
        way = scheduler.point(task, tuple(label), ways=self.world.ways(asked))
        if self.world.hop:
            scheduler.pause(task, self.world.hop, "the network")
        for args in asked:
            self.world.meet(task, args)
        if self.down is not None:
            self.world.struck.add(self.down)
            raise redis.ConnectionError("The cache is down.")
        if way in FAILURES and not FAILURES[way][1]:
            raise FAILURES[way][0](f"{asked[0][0]} did not reach the cache")
        return way

    def after(self, way: str, asked: Sequence[Sequence[Any]]) -> None:
        """Lose the reply of a round trip, if that is the way it goes."""
        if way in FAILURES:
            self.world.note(f"{asked[0][0]} is done; its reply is lost")
            raise FAILURES[way][0](f"The reply to {asked[0][0]} was lost")

    def execute(self, client: StageCache, args: Sequence[Any], options: dict[str, Any]) -> Any:
        task = current()
        if task is None:
            return self.world.look(lambda: self.execute(client, args, options))
        way = self.before([args])
        if not task.free and (way == LOST or self.world.swallows(args)):
            if way == LOST:
                self.world.note(f"a message on {_text(args[1])} is lost")
            return 0
        name = args[0]
        reply = self.answer(args)
        self.after(way, [args])
        if isinstance(reply, Exception):
            if isinstance(reply, redis.ResponseError) and "EMPTY_RESPONSE" in options:
                return options["EMPTY_RESPONSE"]
            raise reply
        if options.pop("NEVER_DECODE", None) is None:
            reply = self.decoded(reply)
        options.pop("EMPTY_RESPONSE", None)
        options.pop("keys", None)
        callbacks: Any = client.response_callbacks
        callback = callbacks.get(name)
        return callback(reply, **options) if callback is not None else reply

    def answer(self, args: Sequence[Any]) -> Any:
        """What the server says to one command, in bytes; an error is returned, not raised."""
        encode = self.encode
        fields = [encode(arg) for arg in args]
        if " " in args[0]:
            fields[:1] = [encode(word) for word in args[0].split()]
        socket = self.idle.pop() if self.idle else self._socket()
        reply = socket.direct(fields)
        self.idle.append(socket)
        return reply

    def decoded(self, reply: Any) -> Any:
        """The reply of `answer` in texts."""
        kind = type(reply)
        if kind is bytes:
            return self.decode(reply)
        if kind is list:
            return [self.decoded(item) for item in reply]
        if kind is dict:
            return {self.decoded(key): self.decoded(item) for key, item in reply.items()}
        return reply

    def _socket(self) -> _Socket:
        return _Socket(
            self.server,
            client_class=redis.Redis,
            db=0,
            lua_modules=set(),
            client_info={"resp": 3, "addr": "127.0.0.1:0", "laddr": "127.0.0.1:6379"},
        )

    # State ----------------------------------------------------------------------------------

    def keep(self) -> None:
        """What is in the cache now is what every run starts from."""
        self.baseline = {
            number: {key: copy.deepcopy(item) for key, item in keys._dict.items()}
            for number, keys in self.server.dbs.items()
        }
        self._scripts = dict(self.server.script_cache)

    def reset(self) -> None:
        """Back to what was kept."""
        server = self.server
        if server.lock.locked():  # an actor died in the middle of a command
            server.lock.reset()  # type: ignore[attr-defined]
        for number, keys in server.dbs.items():
            keys._dict.clear()
            keys._expiry_heap.clear()
            keys._watches.clear()
            keys.time = 0.0
            waiters = getattr(keys.condition, "_waiters", None)
            if waiters:
                waiters.clear()
            for key, item in self.baseline.get(number, {}).items():
                keys[key] = copy.deepcopy(item)
        server.script_cache.clear()
        server.script_cache.update(self._scripts)
        server.config.clear()
        server.missed.clear()
        for registry in (server.subscribers, server.psubscribers, server.ssubscribers):
            registry.clear()
        if len(self.pool._available_connections) or self.pool._in_use_connections:
            self.pool.reset()
        self.idle[:] = [s for s in self.idle if not s._watches and s._transaction is None]
        self.queued, self.down, server.connected = [], None, True
        server.scan_cursors.clear()

    def lifetimes(self) -> Iterator[tuple[str, int]]:
        """The keys that have a TTL, each with the time at which it ends: ms since 1970."""
        for key, item in self.server.dbs[0]._dict.items():
            if item.expireat is not None:
                yield _text(key), round(item.expireat * 1e3)

    def hang_up(self) -> None:
        """Let go of the connections, of which a crowd leaves hundreds; who looks opens another."""
        self.idle.clear()
        self.pool.reset()
