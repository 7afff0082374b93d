"""fakeredis, made to answer as a server does; `docs/parity.md` says where it still does not.

fakeredis 2.40 cuts moments of expiry to whole seconds, shares one hash between two keys after
COPY, adds floats with their errors, lets a transaction pass when a watched key has expired, fails
every script once one has set a global variable, and so on. What a server has and fakeredis has not
is refused with one sentence, as `NotHere`.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from copy import deepcopy
from decimal import Context, Decimal, InvalidOperation
from typing import Any

import redis
from fakeredis import FakeServer, _msgs
from fakeredis._clients._sync import FakeRedisConnection
from fakeredis._command_args_parsing import Int
from fakeredis._commands import Key, Signature
from fakeredis._core._database import Database
from fakeredis._helpers import SimpleError
from fakeredis._socket import FakeSocket

from cachelab.cache.command_keys import commands
from cachelab.cache.lua import Chance, plain, prepare


class NotHere(redis.ResponseError):
    """A command that a server has and fakeredis has not: a limit of ours, in one sentence."""


SCRIPTS = {"EVAL", "EVALSHA", "FCALL", "FCALL_RO"}

# What a server has, fakeredis has not, and is small.
_signed: Any = Signature  # its types are narrower than what it takes
OURS = {
    "touch": _signed("touch", "touch", (Key(),), (Key(),)),
    "wait": _signed("wait", "wait", (Int, Int)),
    "delifeq": _signed("delifeq", "delifeq", (Key(bytes), bytes)),
}

# As a long double of C has them, which is what a server adds floats in.
LONG_DOUBLE = Context(prec=19)


class ExactKeys(Database):
    """A database of fakeredis that compares times to the millisecond, as a server does."""

    def expired(self, item: Any) -> bool:
        return item.expireat is not None and round(item.expireat * 1e3) < round(self.time * 1e3)


class ExactServer(FakeServer):
    """What an `ExactConnection` speaks to; `missed`: what was asked for and is not here."""

    def __init__(self) -> None:
        super().__init__(version=(8,), server_type="redis")
        self.dbs = defaultdict(lambda: ExactKeys(self.lock))
        self.missed: list[str] = []
        self.chance = Chance()


class ExactSocket(FakeSocket):
    """A socket of fakeredis that answers as a server does."""

    _server: Any
    there: frozenset[tuple[bytes, Any]] = frozenset()  # watched keys that were there
    place = "in fakeredis, which stands in for a server here"

    # What is not here ---------------------------------------------------------------------------

    def _name_to_func(self, cmd_name: str) -> Any:
        ours = OURS.get(cmd_name)
        if ours is not None:
            return getattr(self, ours.func_name), ours
        try:
            return super()._name_to_func(cmd_name)
        except SimpleError:
            name, known = cmd_name.upper(), commands()
            asked = [field.decode(errors="replace").upper() for field in self.asked[:2]]
            if "|".join(asked) in known and asked[0] == name:
                self.refuse(" ".join(asked))
            if name.replace(" ", "|") in known:
                self.refuse(name)
            raise

    def refuse(self, name: str) -> None:
        """Raise SimpleError: a server has this and we have not."""
        sentence = f"{name} is not {self.place}: it needs a real server."
        self._server.missed.append(sentence)
        raise SimpleError(sentence)

    def _process_command(self, fields: list[bytes]) -> None:
        self.asked = fields
        super()._process_command(fields)

    def _decode_error(self, error: SimpleError) -> Any:
        said = error.value
        if said in self._server.missed:
            return NotHere(said)
        name, *rest = (field.decode(errors="replace") for field in self.asked)
        if said.startswith("ERR unknown command '"):  # with the words as they were sent
            told = "".join(f"'{argument}' " for argument in rest)
            said = f"ERR unknown command '{name}', with args beginning with: {told}"
            if name.upper() in SCRIPTS:
                said = "ERR Unknown Redis command called from script"
        said = re.sub(r"^(ERR invalid expire time) in (\w+)$", r"\1 in '\2' command", said)
        return super()._decode_error(SimpleError(plain(said)))

    # Times --------------------------------------------------------------------------------------

    def _ttl(self, key: Any, scale: float) -> int:
        left: int = super()._ttl(key, 1000.0)
        return left if scale == 1000.0 or left < 0 else (left + 500) // 1000

    def httl(self, key: Any, *args: bytes) -> list[int]:
        """`HTTL key FIELDS n field ...`: whole seconds, rounded as TTL does."""
        return [n if n < 0 else (n + 500) // 1000 for n in self.hpttl(key, *args)]

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

    def _expireat(self, key: Any, timestamp: float, *options: bytes) -> int:
        done = super()._expireat(key, timestamp, *options)
        if done and timestamp <= self._db.time:
            key.value = None  # as a server does: deleted now
        return done

    def hsetex(self, key: Any, *args: bytes) -> Any:
        """`HSETEX key [FNX | FXX] [EX s | ... | KEEPTTL] FIELDS n field value ...`."""
        kept = dict(key.value._expirations)
        answer = super().hsetex(key, *args)
        options = [word.lower() for word in args]
        if answer and b"keepttl" in options[: options.index(b"fields")]:
            for field in args[options.index(b"fields") + 2 :: 2]:
                if field in kept:
                    key.value.set_key_expireat(field, kept[field])
        return answer

    def xpending(self, key: Any, group_name: bytes, *args: bytes) -> Any:
        """`XPENDING key group [IDLE ms] start end count`: idle for so long or longer."""
        if len(args) > 1 and args[0].lower() == b"idle":
            args = (args[0], b"%d" % (int(args[1]) - 1), *args[2:])
        return super().xpending(key, group_name, *args)

    # Keys and values ----------------------------------------------------------------------------

    def touch(self, *keys: Any) -> int:
        """`TOUCH key ...`: how many are there."""
        return sum(map(bool, keys))

    def wait(self, replicas: int, milliseconds: int) -> int:
        """`WAIT replicas milliseconds`: there is no replica."""
        return 0

    def copy(self, key: Any, newkey: Any, *options: bytes) -> int:
        """`COPY key newkey`: what is done to one afterwards is not done to the other."""
        done: int = super().copy(key, newkey, *options)
        if done:
            newkey.value, newkey.expireat = deepcopy(key.value), key.expireat
        return done

    def set_(self, key: Any, value: bytes, *args: bytes) -> Any:
        """`SET key value [NX | XX | IFEQ expected] [GET] [EX s | ... | KEEPTTL]`."""
        options = [word.lower() for word in args]
        if b"ifeq" in options[:-1]:
            at = options.index(b"ifeq")
            expected, args = args[at + 1], (*args[:at], *args[at + 2 :])
            if {b"nx", b"xx"} & {word.lower() for word in args}:
                raise SimpleError(_msgs.SYNTAX_ERROR_MSG)
            self._compare(key)
            if key.value != expected:
                return key.value if b"get" in options else None
        return super().set_(key, value, *args)

    def delifeq(self, key: Any, expected: bytes) -> int:
        """`DELIFEQ key value`: delete the key if it holds just that."""
        if not key or key.value != expected:
            return 0
        key.value = None
        return 1

    def _compare(self, key: Any) -> None:
        if key.value is not None and type(key.value) is not bytes:
            raise SimpleError(_msgs.WRONGTYPE_MSG)

    def incrbyfloat(self, key: Any, amount: float) -> Any:
        """`INCRBYFLOAT key amount`, added in decimal: 0.1 and 0.2 are 0.3."""
        super().incrbyfloat(_Copy(key), amount)  # says what is wrong
        key.update(_sum(key.get(b"0"), amount))
        return key.value

    def hincrbyfloat(self, key: Any, field: bytes, amount: bytes) -> Any:
        """`HINCRBYFLOAT key field amount`, likewise."""
        before = key.value.get(field, b"0")
        try:
            super().hincrbyfloat(key, field, amount)
        except SimpleError as error:
            if error.value == _msgs.INVALID_FLOAT_MSG and not _is_number(before):
                raise SimpleError("ERR hash value is not a float") from None
            raise
        total = _sum(before, amount)
        key.value.update({field: total}, clear_expiration=False)
        return total

    def hrandfield(self, key: Any, *args: bytes) -> Any:
        """`HRANDFIELD key [count [WITHVALUES]]`: without a count one field, not a list."""
        answer = super().hrandfield(key, *args)
        return answer if args or answer is None else answer[0]

    def zrandmember(self, key: Any, *args: bytes) -> Any:
        """`ZRANDMEMBER key [count [WITHSCORES]]`: without a count one member, not a list."""
        answer = super().zrandmember(key, *args)
        return answer if args else answer[0] if answer else None

    def pubsub_numpat(self, *_: Any) -> int:
        """`PUBSUB NUMPAT`: patterns that somebody still listens to."""
        return sum(map(bool, self._server.psubscribers.values()))

    # Transactions and scripts -------------------------------------------------------------------

    def watch(self, *keys: Any) -> Any:
        """`WATCH key ...`; a key that expires from now on has changed."""
        answer = super().watch(*keys)
        self.there |= {(key.key, self._db) for key in keys if key.key in self._db}
        return answer

    def _clear_watches(self) -> None:
        super()._clear_watches()
        self.there = frozenset()

    def exec_(self) -> Any:
        """`EXEC`."""
        if any(key not in keys for key, keys in self.there):
            self.notify_watch()
        return super().exec_()

    def _get_server_runtime(self, server: Any) -> Any:
        is_new = not hasattr(server, "_lua_runtime")
        lua = super()._get_server_runtime(server)
        if is_new:
            prepare(
                lua,
                server.chance,
                server._lua_cjson_decode_partial,
                lambda name: server._lua_current_socket[0].refuse(name),
            )
            server._lua_expected_globals |= set(lua.globals().keys())
        server.chance.source = random  # each script begins anew
        return lua

    def _convert_lua_result(self, result: Any, nested: bool = True) -> Any:
        first = result[0] if isinstance(result, tuple) else result  # `return 1, 2` returns 1
        return super()._convert_lua_result(first, nested)


def _is_number(value: bytes) -> bool:
    try:
        return Decimal(value.decode()).is_finite()
    except (InvalidOperation, UnicodeDecodeError):
        return False


def _sum(before: bytes, amount: float | bytes) -> bytes:
    """The sum as a server writes it: at most 17 decimals, and no zeros at the end."""
    more = Decimal(amount.decode() if isinstance(amount, bytes) else repr(amount))
    total = LONG_DOUBLE.add(Decimal(before.decode()), more)
    said = f"{total:.17f}".rstrip("0").rstrip(".")
    return b"0" if said in {"-0", ""} else said.encode()


class _Copy:
    """A key whose changes go nowhere."""

    def __init__(self, key: Any) -> None:
        self.get = key.get

    def update(self, value: Any) -> None:
        """Forget it."""


class ExactConnection(FakeRedisConnection):
    """A connection of fakeredis over an exact socket."""

    socket_class = ExactSocket

    @property
    def _connection_error_class(self) -> Any:  # type: ignore[override]
        """What a command raises while the server is not connected; `World.cache_hangs` sets it."""
        return getattr(self._server, "unreachable", redis.ConnectionError)

    def _connect(self) -> FakeSocket:
        assert self._server is not None
        if not self._server.connected:
            raise self._connection_error_class(_msgs.CONNECTION_ERROR_MSG)
        return self.socket_class(
            self._server,
            client_class=self._client_class,
            db=self.db,
            lua_modules=self._lua_modules,
            client_info=self._client_info,
        )
