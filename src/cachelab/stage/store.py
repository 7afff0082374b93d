"""The cache on the stage: fakeredis under the virtual clock, every command a switch point."""

from __future__ import annotations

import copy
import hashlib
import time
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import redis
from fakeredis._helpers import NoResponse, SimpleError
from fakeredis._socket._resp import extract_command
from greenlet import GreenletExit
from redis.client import Pipeline, PubSubWorkerThread
from redis.maint_notifications import MaintNotificationsConfig

from cachelab.cache.client import Cache, TracedPipeline, record, record_error, told
from cachelab.cache.command_keys import commands, key_positions
from cachelab.cache.exact import ExactConnection, ExactServer, ExactSocket
from cachelab.stage.context import Context
from cachelab.stage.faults import FAILURES, LOST
from cachelab.stage.scheduler import Label, Refused, Task, current


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
    "PING ECHO TIME HELLO SELECT MULTI EXEC DISCARD UNWATCH AUTH COMMAND LOLWUT ROLE WAIT QUIT "
    "RESET READONLY READWRITE"
)
_CHANNELS = _words(
    "PUBLISH SPUBLISH SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE"
)
_SCRIPTS = _words("EVAL EVAL_RO EVALSHA EVALSHA_RO FCALL FCALL_RO")
# Of commands that reach far otherwise: these only ask, or are about their own connection.
_HARMLESS = {
    "CLIENT": _words(
        "CACHING CAPA GETNAME GETREDIR ID INFO NO-EVICT NO-TOUCH REPLY SETINFO SETNAME TRACKING "
        "TRACKINGINFO HELP"
    ),
    "ACL": _words("WHOAMI CAT HELP GENPASS"),
}
_ALL: Label = (("cache", None, True), ("channel", None, True))
_LISTENS: Label = (("channel", None, False),)
_SHA = hashlib.sha1


def touches(args: Sequence[Any]) -> Label:
    """What one command reads or writes, as the explorer sees it; all of the cache if unknown.

    Of a script only which one it is: what its commands touch is known when they have run.
    """
    words = _text(args[0]).upper().split(" ")
    name = words[0]
    if name in _NOTHING:
        return ()
    argv = [*words, *args[1:]]
    if name in _SCRIPTS or name == "SCRIPT":
        return _scripts(name, argv)
    if name in _CHANNELS:
        return (("channel", None, True),)
    if name == "PUBSUB":
        return _LISTENS
    if name in _HARMLESS:
        below = _text(argv[1]).upper() if len(argv) > 1 else ""
        return () if below in _HARMLESS[name] else _ALL
    if name == "FUNCTION":
        return (*_ALL, ("lock", "functions", True))
    writes = name not in _READ_ONLY
    if name in _WHOLE:
        return (("cache", None, writes),)
    below = f"{name}|{_text(argv[1]).upper()}" if len(argv) > 1 else ""
    if name == "INFO" or below == "CONFIG|GET":
        return (("cache", None, False),)
    specs = commands().get(below) or commands().get(name)
    if not specs or ["?"] in specs:
        return _ALL
    keys: dict[str, None] = {}
    try:
        for spec in specs:
            for position in key_positions(spec, argv):
                keys[_text(argv[position])] = None
    except (IndexError, ValueError, TypeError):
        return _ALL
    return tuple(("cache", key, writes) for key in keys) or _ALL


def _scripts(name: str, argv: Sequence[Any]) -> Label:
    """Which scripts are known is state too. To load one twice is to load it once, so that EVAL
    commutes with itself, and not with EVALSHA, which may find nothing.
    """
    if name.startswith("FCALL"):
        return (("lock", "functions", False),)
    below = _text(argv[1]).upper() if name == "SCRIPT" and len(argv) > 1 else ""
    if below == "EXISTS":
        return tuple(("lock", f"script {_text(sha).lower()}", True) for sha in argv[2:])
    if name.startswith("EVALSHA") and len(argv) > 1:
        return (("lock", f"script {_text(argv[1]).lower()}", True),)
    if len(argv) > 1 and (below == "LOAD" or not below):
        text = argv[2] if below else argv[1]
        said = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
        return (("lock", f"script {_SHA(said).hexdigest()}", False),)
    return (*_ALL, ("lock", None, True)) if below == "FLUSH" else _ALL


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

    piped = False  # several commands have come at once
    place = "on the stage"

    def _decode_result(self, result: Any) -> Any:
        missed, task = self._server.missed, current()
        if missed and task is not None:  # a limit of ours ends the run, whatever comes of the error
            refused = Refused(missed.pop())
            task.scheduler.fail(refused)
        return super()._decode_result(result)

    def direct(self, fields: list[bytes]) -> Any:
        """One command outside of transactions and subscriptions: what `_process_command` does."""
        server, self.asked = self._server, fields
        name, arguments = extract_command(fields)
        try:
            function, signature = self._name_to_func(name)
            with server.lock:
                while server.closed_sockets:
                    closed = server.closed_sockets.pop()()
                    if closed is not None:
                        closed._cleanup(server)
                now = time.time()
                for keys in server.dbs.values():
                    keys.time = now
                signature.check_arity(arguments, self.version)
                result = self._run_command(function, signature, arguments, False)
        except SimpleError as error:
            result = error
        return self._decode_result(result)

    def _run_command(self, func: Any, sig: Any, args: list[Any], from_script: bool) -> Any:
        store = cast("Store", self._server.store)
        if from_script:
            label = store.label((sig.name, *args))
            asked = {_text(field) for field in self.asked}
            if any(space == "cache" and item not in asked for space, item, _ in label):
                # A key that the state has named: in another order it may be any.
                label = (*label, ("cache", None, True))
            store.reached.update(dict.fromkeys(label))
            return super()._run_command(func, sig, args, from_script)
        if told.get() is store.world.trace:
            return super()._run_command(func, sig, args, from_script)
        result = super()._run_command(func, sig, args, from_script)
        if current() is not None:
            self._tell(store, [sig.name, *args], result)
        return result

    def _tell(self, store: Store, args: list[Any], result: Any) -> None:
        """Record what a client sent that keeps no trace itself."""
        trace, name = store.world.trace, str(args[0]).upper().split(" ")[0]
        if name in _UNTOLD:
            return
        if isinstance(result, SimpleError):
            record_error(trace, args, self._decode_result(result))
        else:
            reply = "" if isinstance(result, NoResponse) else self._decode_result(result)
            detail = "in a pipeline" if self.piped or self._in_transaction else ""
            record(trace, args, reply, detail=detail)

    def _keyspace_notifications(self, items: Any, event: bytes) -> None:
        if self._server.store.notifies:
            super()._keyspace_notifications(items, event)

    def publish(self, channel: bytes, message: bytes) -> int:
        """`PUBLISH channel message`, if it does not get lost."""
        return 0 if self._lost("PUBLISH", channel, message) else super().publish(channel, message)

    def spublish(self, channel: bytes, message: bytes) -> int:
        """`SPUBLISH channel message`, likewise."""
        return 0 if self._lost("SPUBLISH", channel, message) else super().spublish(channel, message)

    def _lost(self, *args: Any) -> bool:
        task = current()
        if task is None or task.free:
            return False
        store = cast("Store", self._server.store)
        if store.loses:
            store.loses = False
            store.world.note(f"a message on {_text(args[1])} is lost")
            return True
        return store.world.swallows([_text(arg) for arg in args])


_UNTOLD = _words("HELLO AUTH SELECT CLIENT MULTI EXEC DISCARD UNWATCH SCRIPT")


class StageConnection(ExactConnection):
    """What every client on the stage sends over, whoever made it: each round trip is a step.

    Without MULTI each command of a pipeline is one; from MULTI to EXEC all are one.
    """

    _ready = False
    socket_class = _Socket

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._queued: list[Command] | None = None  # since MULTI
        self._watched: dict[Any, None] = {}
        self.store.connections.add(self)

    @property
    def store(self) -> Store:
        """By the server, and not a class for each store: fakeredis keeps every class it meets."""
        return cast("Store", self._server.store)  # type: ignore[union-attr]

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        self._ready = True  # what redis-py says on its own before is no step of an actor

    def disconnect(self, *args: Any, **more: Any) -> None:
        self._ready, self._queued = False, None
        self._watched.clear()
        super().disconnect(*args, **more)  # type: ignore[no-untyped-call]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self._sock:
            self.connect()
        if not self._ready:
            super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]
            return
        commands = list(_parsed(command))
        cast("_Socket", self._sock).piped = len(commands) > 1
        hop = self.store.world.hop  # a pipeline of many steps is one trip
        for packed, asked, watched in self._steps(commands):
            way = ""
            if asked:
                way = self.store.before(asked, watched, hop=hop)
                hop = 0
            super().send_packed_command(packed, check_health)  # type: ignore[no-untyped-call]
            self.store.after(way, asked[0][1][0] if asked else "")

    def _steps(
        self, commands: Iterable[Command]
    ) -> Iterator[tuple[list[bytes], list[Command], Label]]:
        """What is sent at once, with the commands that run then (none: it touches no key) and what
        else they depend on.
        """
        waiting: list[bytes] = []
        for packed, args in commands:
            name = _text(args[0]).upper()
            waiting.append(packed)
            if name == "MULTI":
                self._queued = []
            elif self._queued is not None and name not in {"EXEC", "DISCARD"}:
                self._queued.append((packed, args))
            else:
                asked = [(packed, args)]
                watched: Label = ()
                if self._queued is not None:
                    asked, self._queued = (self._queued if name == "EXEC" else []), None
                if name in {"EXEC", "DISCARD", "UNWATCH"}:
                    watched = tuple(self._watched) if name == "EXEC" else ()
                    self._watched.clear()
                elif name == "WATCH":
                    self._watched.update(dict.fromkeys(self.store.label(args)))
                yield waiting, [] if name == "UNWATCH" else asked, watched
                waiting = []
        if waiting:
            yield waiting, [], ()

    def _decode(self, response: Any) -> Any:
        try:
            return super()._decode(response)
        except UnicodeDecodeError as error:
            if _BYTES not in error.reason:
                error.reason += _BYTES
            raise

    def can_read(self, timeout: float | None = 0) -> bool:
        """Whether a message is there; to look for one is a step, for somebody may publish it."""
        task = current()
        if task is None or task.free or not self._sock or not self._sock._pubsub:
            return super().can_read(timeout)
        scheduler = task.scheduler
        scheduler.point(task, _LISTENS)
        if isinstance(task.thread, PubSubWorkerThread):
            if scheduler.draining:
                raise GreenletExit  # a background loop, and everybody has gone home
            if not self._sock.responses.qsize():
                scheduler.rest(task)
            timeout = timeout or _POLL
        return super().can_read(timeout)


_BYTES = (
    "; this client gives text, and a library that stores bytes wants one of its own: "
    "redis.Redis(connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, "
    "**{**pool.connection_kwargs, 'decode_responses': False})), with pool = cache.connection_pool"
)
_POLL = 0.01  # seconds between two looks of `run_in_thread`, which would look without a pause
Command = tuple[bytes, tuple[bytes, ...]]


def _parsed(packed: Any) -> Iterator[Command]:
    """The commands in what a client sends, each as it was sent and as its words."""
    data = packed if isinstance(packed, bytes) else b"".join(packed)
    at = 0
    while at < len(data):
        start, line = at, data.index(b"\r\n", at)
        count, at = int(data[at + 1 : line]), line + 2
        words = []
        for _ in range(count):
            line = data.index(b"\r\n", at)
            size, at = int(data[at + 1 : line]), line + 2
            words.append(data[at : at + size])
            at += size + 2
        yield data[start:at], tuple(words)


class StageCache(Cache):
    """The client that actors are called with: redis-py, straight into fakeredis."""

    @property
    def store(self) -> Store:
        """The server behind its pool."""
        return cast("Store", self.connection_pool.connection_kwargs["server"].store)

    def _execute_command(self, *args: Any, **options: Any) -> Any:
        store = self.store
        if self.connection is not None or self.connection_pool is not store.pool:
            return super()._execute_command(*args, **options)  # type: ignore[no-untyped-call]
        return store.execute(self, args, options)

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> StagePipeline:
        """A redis-py pipeline whose commands are recorded when they run."""
        return StagePipeline(self, transaction, shard_hint)


class StagePipeline(TracedPipeline):
    """A pipeline of a `StageCache`."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the queued commands. Without MULTI others come between them, so that each is recorded
        by the server, when it runs.
        """
        if vars(self)["transaction"] or self.explicit_transaction:  # not its method of that name
            return super().execute(raise_on_error)
        return Pipeline.execute(self, raise_on_error)


class Store:
    """The server side: state, snapshot, faults."""

    def __init__(self, world: Context) -> None:
        self.world = world
        self.server = ExactServer()
        self.server.store = self  # type: ignore[attr-defined]
        for name in ("subscribers", "psubscribers", "ssubscribers"):
            setattr(self.server, name, defaultdict(_Ordered))
        self.idle: list[_Socket] = []
        self.connections: weakref.WeakSet[StageConnection] = weakref.WeakSet()
        self.loses = False  # the message under way
        self.reached: dict[Any, None] = {}  # what the commands of a script touch
        self.baseline: dict[int, dict[bytes, Any]] = {}
        self.down: Any = None  # the fault because of which nothing answers
        self._scripts: dict[bytes, bytes] = {}
        self._config: dict[Any, Any] = {}
        self.pool = redis.ConnectionPool(
            connection_class=StageConnection,
            server=self.server,
            decode_responses=True,  # and no protocol: replies in the shapes of a live client
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            max_connections=100_000,
            client_class=redis.Redis,
        )
        self.client = StageCache(connection_pool=self.pool, trace=world.trace)
        self.encode: Any = self.client.get_encoder().encode
        self.decode: Any = self.client.get_encoder().decode

    # One command ----------------------------------------------------------------------------

    @property
    def notifies(self) -> bool:
        """Whether a write tells the subscribers of the keyspace, which somebody has to wish for."""
        return bool(self.server.config.get(b"notify-keyspace-events"))

    def label(self, args: Sequence[Any]) -> Label:
        """What one command touches."""
        found = self.world.labels(args)
        if self.notifies and any(writes for _, _, writes in found):
            return (*found, ("channel", None, True))
        return found

    def before(self, asked: Sequence[Command], more: Label = (), *, hop: int | None = None) -> str:
        """The switch point in front of a step, and the faults that meet it.

        It takes `hop` nanoseconds; None: a trip of its own. Returns what is to go wrong once it is
        done, if anything: a message is lost, or the reply.
        """
        task = current()
        if task is None or task.free:
            return ""
        label = dict.fromkeys(more)
        for _, args in asked:
            label.update(dict.fromkeys(self.label(args)))
        words = [[_text(arg) for arg in args] for _, args in asked]
        return self._step(task, tuple(label), words, self.world.hop if hop is None else hop)

    def _step(self, task: Task, label: Label, asked: Sequence[Sequence[Any]], hop: int) -> str:
        scheduler = task.scheduler
        label = (*label, *self.world.counted(task, asked))
        way = scheduler.point(task, label, ways=self.world.ways(asked))
        began = scheduler.now
        if hop:
            scheduler.pause(task, hop, "the network")
        for args in asked:
            self.world.meet(task, args)
        if scheduler.explores and scheduler.now != began:
            scheduler.point(task, label)  # others have woken at the same time
        error: Exception | None = None
        if self.down is not None:
            self.world.struck.add(self.down)
            error = redis.ConnectionError("The cache is down.")
        elif way in FAILURES and not FAILURES[way][1]:
            error = FAILURES[way][0](f"{asked[0][0]} did not reach the cache")
        if error is not None:
            if told.get() is not self.world.trace:
                for args in asked:
                    record_error(self.world.trace, args, error)
            raise error
        self.reached.clear()
        self.loses = way == LOST
        return way

    def after(self, way: str, name: Any) -> None:
        """When a command has run: what its script has touched in truth; and its reply may get lost,
        if that is the way it goes.
        """
        if self.reached:
            task = current()
            if task is not None and not task.free:
                task.scheduler.touched(task, (*task.label, *self.reached))
            self.reached.clear()
        if way in FAILURES:
            self.world.note(f"{_text(name)} is done; its reply is lost")
            raise FAILURES[way][0](f"The reply to {_text(name)} was lost")

    def execute(self, client: StageCache, args: Sequence[Any], options: dict[str, Any]) -> Any:
        task = current()
        if task is None:
            return self.world.look(lambda: self.execute(client, args, options))
        name, reply = args[0], self.exchange(task, args)
        if isinstance(reply, Exception):
            if isinstance(reply, redis.ResponseError) and "EMPTY_RESPONSE" in options:
                return options["EMPTY_RESPONSE"]
            raise reply
        if options.pop("NEVER_DECODE", None) is None:
            try:
                reply = self.decoded(reply)
            except UnicodeDecodeError as error:
                error.reason += _BYTES
                raise
        options.pop("EMPTY_RESPONSE", None)
        options.pop("keys", None)
        callbacks: Any = client.response_callbacks
        callback = callbacks.get(name)
        return callback(reply, **options) if callback is not None else reply

    def exchange(self, task: Task, args: Sequence[Any]) -> Any:
        """What the server says to one command of `task`, as `answer` does, in a step of its own."""
        way = self._step(task, self.label(args), (args,), self.world.hop) if not task.free else ""
        reply = self.answer(args)
        if way or self.reached:
            self.after(way, args[0])
        return reply

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
        self._scripts, self._config = dict(self.server.script_cache), dict(self.server.config)

    def reset(self) -> None:
        """Back to what was kept."""
        server = self.server
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
        server.config.update(self._config)
        server.missed.clear()
        for registry in (server.subscribers, server.psubscribers, server.ssubscribers):
            registry.clear()
        for connection in list(self.connections):
            connection.disconnect()
        if len(self.pool._available_connections) or self.pool._in_use_connections:
            self.pool.reset()
        self.idle[:] = [s for s in self.idle if not s._watches and s._transaction is None]
        self.down, self.loses, server.connected = None, False, True
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
