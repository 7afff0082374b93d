"""The client of the lessons: plain redis-py that leaves a trace and stays in its keyspace."""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

import redis
from redis.client import Pipeline, PubSub

from cachelab.cache.keyspace import Keyspace
from cachelab.record.trace import Trace

Command = Sequence[Any]
Advise = Callable[[redis.RedisError], str]

READS = frozenset({"GET", "GETEX", "HGET", "HGETALL", "LINDEX", "LRANGE", "SMEMBERS", "ZRANGE"})
FILLS = frozenset({"SET", "SETEX", "PSETEX", "GETSET", "HSET", "HSETEX"})
DELETES = frozenset({"DEL", "UNLINK", "GETDEL"})
SCRIPTS = frozenset({"EVAL", "EVALSHA", "FCALL"})


# Whose trace records the command under way: on the stage nobody else has to.
told: ContextVar[Trace | None] = ContextVar("told", default=None)


class Cache(redis.Redis):
    """redis-py's own client; every command becomes an event of `trace`.

    `advise` says of an error what to do about it, or "": one sentence, shown under the error.
    On a server that is not ours `keyspace` puts every key under our prefix and refuses, with one
    sentence, what would touch more. All of redis-py's methods work: pipelines, scripts, locks,
    streams, pub/sub.
    """

    def __init__(
        self,
        *args: Any,
        trace: Trace | None = None,
        keyspace: Keyspace | None = None,
        advise: Advise | None = None,
        **options: Any,
    ) -> None:
        self.trace = trace if trace is not None else Trace()
        self.keyspace = keyspace if keyspace is not None else Keyspace.own()
        self.advise = advise
        super().__init__(*args, **options)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        sent = self.keyspace.outgoing(args)
        token = told.set(self.trace)
        try:
            reply = super().execute_command(*sent, **options)
        except redis.RedisError as error:
            record_error(self.trace, args, error, time.perf_counter() - began)
            _add_advice(self.advise, error)
            raise
        finally:
            told.reset(token)
        reply = self.keyspace.incoming(args, reply)
        record(self.trace, args, reply, time.perf_counter() - began)
        return reply

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> TracedPipeline:
        """A redis-py pipeline whose commands are recorded when they run."""
        return TracedPipeline(self, transaction, shard_hint)

    def pubsub(self, **options: Any) -> KeptPubSub:
        """A redis-py subscriber; its channels stay under our prefix too."""
        return KeptPubSub(
            self.connection_pool,
            trace=self.trace,
            keyspace=self.keyspace,
            event_dispatcher=self._event_dispatcher,
            **options,
        )

    def client(self) -> Cache:
        """The same client on one connection of its own."""
        return type(self)(
            trace=self.trace,
            keyspace=self.keyspace,
            advise=self.advise,
            connection_pool=self.connection_pool,
            single_connection_client=True,
        )


class TracedPipeline(Pipeline):
    """A pipeline of a `Cache`."""

    def __init__(self, cache: Cache, transaction: bool, shard_hint: Any) -> None:
        super().__init__(cache.connection_pool, cache.response_callbacks, transaction, shard_hint)
        self.trace, self.keyspace, self.advise = cache.trace, cache.keyspace, cache.advise

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        token = told.set(self.trace)
        try:
            reply = super().immediate_execute_command(*self.keyspace.outgoing(args), **options)
        finally:
            told.reset(token)
        reply = self.keyspace.incoming(args, reply)
        record(self.trace, args, reply, time.perf_counter() - began)
        return reply

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Any:
        self.keyspace.outgoing(args)  # refuse where the learner wrote it, not at execute()
        return super().pipeline_execute_command(*args, **options)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the queued commands; each becomes an event that says so."""
        asked = [args for args, _ in self.command_stack]
        self.command_stack = [
            (self.keyspace.outgoing(args), options) for args, options in self.command_stack
        ]
        began = time.perf_counter()
        token = told.set(self.trace)
        try:
            replies = super().execute(raise_on_error)
        except redis.RedisError as error:
            record_error(self.trace, ("PIPELINE", *_names(asked)), error)
            _add_advice(self.advise, error)
            raise
        finally:
            told.reset(token)
        took = (time.perf_counter() - began) / max(1, len(asked))
        for number, (args, reply) in enumerate(zip(asked, replies, strict=True)):
            if not isinstance(reply, Exception):
                replies[number] = self.keyspace.incoming(args, reply)
                record(self.trace, args, replies[number], took, "in a pipeline")
        return replies


class KeptPubSub(PubSub):
    """A subscriber of a `Cache`."""

    def __init__(self, pool: Any, *, trace: Trace, keyspace: Keyspace, **options: Any) -> None:
        self.trace, self.keyspace = trace, keyspace
        super().__init__(pool, **options)

    def execute_command(self, *args: Any) -> Any:
        token = told.set(self.trace)
        try:
            reply = super().execute_command(*self.keyspace.outgoing(args))
        finally:
            told.reset(token)
        if str(args[0]).upper() != "PING":
            self.trace.add("command", _name(args), _text(args[1]) if len(args) > 1 else "")
        return reply

    def parse_response(self, *args: Any, **options: Any) -> Any:
        """What arrived, with our prefix off its channel; None if it was not for us."""
        return self.keyspace.incoming_message(super().parse_response(*args, **options))


def record(trace: Trace, args: Command, reply: Any, took: float = 0.0, detail: str = "") -> None:
    """Add what one answered command means to the trace: a hit, a miss, a fill, a delete."""
    name, actor, fresh = _name(args), trace.actor(), trace.freshness
    keys = _keys(name, args)
    on = ", ".join(keys)

    def add(kind: str, key: str, *more: str, **rest: Any) -> None:
        said = ", ".join(part for part in (*more, detail) if part)
        trace.add(kind, name, key, said, took=took, actor=actor, **rest)

    if name == "MGET":
        for key, value in zip(keys, reply, strict=True):
            _record_read(trace, actor, key, value is not None, add)
    elif name in READS:
        _record_read(trace, actor, on.split(", ")[0], _found(reply), add)
    elif name == "SET" and _is_conditional(args):
        add("command", on, _condition(args), "done" if reply else "refused")
    elif name in FILLS or (name in SCRIPTS and keys and _truthy(reply)):
        for key in keys:
            fresh.filled(actor, key, " ".join(map(_text, args[2:])))
        if name in FILLS:
            add("fill", on, _lifetime(name, args))
        else:
            add("command", on, _short(reply))
    elif name == "MSET":
        for key, value in zip(keys, args[2::2], strict=True):
            fresh.filled(actor, key, _text(value))
            add("fill", key)
    elif name == "SCRIPT":
        return  # housekeeping of redis-py's scripts
    elif name in DELETES:
        for key in keys:
            fresh.deleted(key)
        add("delete", on, "" if reply else "nothing there")
    else:
        add("command", on, _short(reply))


def record_error(trace: Trace, args: Command, error: Exception, took: float = 0.0) -> None:
    """Add a failed command."""
    name = _name(args)
    if isinstance(error, redis.exceptions.NoScriptError):
        return  # redis-py's own way of finding out: it loads the script and sends it again
    trace.add("error", name, ", ".join(_keys(name, args)), type(error).__name__, took=took)


def _add_advice(advise: Advise | None, error: redis.RedisError) -> None:
    """Let what to do about an error stand under it, where a front end shows it."""
    said = advise(error) if advise is not None else ""
    if said and said not in getattr(error, "__notes__", ()):
        error.add_note(said)


def _record_read(trace: Trace, actor: str, key: str, found: bool, add: Any) -> None:
    if found:
        add("hit", key, served=trace.freshness.served(actor, key))
    else:
        trace.freshness.missed(actor, key)
        add("miss", key)


def _name(args: Command) -> str:
    return _text(args[0]).split(" ")[0].upper()


def _names(commands: Iterable[Command]) -> list[str]:
    return [_name(args) for args in commands]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _keys(name: str, args: Command) -> list[str]:
    if name in SCRIPTS:
        told = _text(args[2]) if len(args) > 2 else ""
        return [_text(key) for key in args[3 : 3 + int(told)]] if told.isdecimal() else []
    if name in {"MGET", "DEL", "UNLINK", "EXISTS", "TOUCH"}:
        return [_text(key) for key in args[1:]]
    if name == "MSET":
        return [_text(key) for key in args[1::2]]
    return [_text(args[1])] if len(args) > 1 else []


def _found(reply: Any) -> bool:
    return reply is not None and reply != {} and reply != [] and reply != set()


def _truthy(reply: Any) -> bool:
    """Whether a script says that it stored something: 1, OK, true; not 0, nil, "0"."""
    return bool(reply) and _text(reply) not in {"0", "false"}


def _options(args: Command) -> list[str]:
    return [_text(arg).upper() for arg in args[3:]]


def _is_conditional(args: Command) -> bool:
    return not {"NX", "XX", "IFEQ"}.isdisjoint(_options(args))


def _condition(args: Command) -> str:
    return next(option for option in _options(args) if option in {"NX", "XX", "IFEQ"})


def _lifetime(name: str, args: Command) -> str:
    if name in {"SETEX", "PSETEX"}:
        return _say_ttl("EX" if name == "SETEX" else "PX", _text(args[2]))
    options = _options(args) if name == "SET" else []
    for position, option in enumerate(options[:-1]):
        if option in {"EX", "PX"}:
            return _say_ttl(option, options[position + 1])
    return "no TTL" if name == "SET" and "KEEPTTL" not in options else ""


def _say_ttl(unit: str, amount: str) -> str:
    return f"TTL {amount} s" if unit == "EX" else f"TTL {amount} ms"


def _short(reply: Any) -> str:
    text = " ".join(_text(reply).split())
    return text if len(text) <= 24 else text[:21] + "..."
