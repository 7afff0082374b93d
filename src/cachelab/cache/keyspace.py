"""Keeps us inside our own keys on a foreign server: prefixes them all, refuses what is wider."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cachelab.cache.command_keys import Table, as_text, commands, key_positions, upper
from cachelab.cache.script_calls import lua_calls
from cachelab.process.errors import OneSentence

SAFE_PREFIX = re.compile(r"[A-Za-z0-9_.:-]+")

EMPTIES = "would empty"
SETTINGS = "would change the settings of"
STOPS = "would stop or disturb"
DISK = "would write to the disk of"
TOPOLOGY = "would change the replication or the cluster of"
OTHER_DATABASE = "would leave our database on"
SHARED_SCRIPTS = "would change the scripts that all users share on"
OTHERS_SCRIPTS = "would run a function somebody else wrote, with keys of its own choice, on"
OTHERS_CLIENTS = "would disturb other users of"
OTHERS_DATA = "would read or copy the keys of others on"
STATISTICS = "would reset the records of"

REFUSED = {
    "FLUSHALL": EMPTIES,
    "FLUSHDB": EMPTIES,
    "SHUTDOWN": STOPS,
    "DEBUG": STOPS,
    "MODULE": SETTINGS,
    "ACL": SETTINGS,
    "CONFIG": SETTINGS,
    "SAVE": DISK,
    "BGSAVE": DISK,
    "BGREWRITEAOF": DISK,
    "REPLICAOF": TOPOLOGY,
    "SLAVEOF": TOPOLOGY,
    "FAILOVER": TOPOLOGY,
    "CLUSTER": TOPOLOGY,
    "ASKING": TOPOLOGY,
    "SYNC": OTHERS_DATA,
    "PSYNC": OTHERS_DATA,
    "REPLCONF": TOPOLOGY,
    "RESTORE-ASKING": TOPOLOGY,
    "MIGRATE": OTHERS_DATA,
    "CLUSTERSCAN": OTHERS_DATA,
    "MONITOR": OTHERS_DATA,
    "SELECT": OTHER_DATABASE,
    "SWAPDB": OTHER_DATABASE,
    "MOVE": OTHER_DATABASE,
    "RESET": OTHER_DATABASE,
    "SCRIPT": SHARED_SCRIPTS,
    "FUNCTION": SHARED_SCRIPTS,
    "FCALL": OTHERS_SCRIPTS,
    "FCALL_RO": OTHERS_SCRIPTS,
    "CLIENT": OTHERS_CLIENTS,
    "LATENCY": STATISTICS,
    "SLOWLOG": STATISTICS,
    "COMMANDLOG": STATISTICS,
    "MEMORY": STOPS,
    "PFDEBUG": STOPS,
    "PFSELFTEST": STOPS,
}

# What may be asked of a command that is refused otherwise.
ALLOWED = {
    "ACL": {"WHOAMI", "CAT"},
    "CLIENT": {
        *("CACHING", "CAPA", "GETNAME", "GETREDIR", "ID", "INFO", "LIST", "NO-TOUCH", "REPLY"),
        *("SETINFO", "SETNAME", "TRACKING", "TRACKINGINFO"),
    },
    "CLUSTER": {"COUNTKEYSINSLOT", "INFO", "KEYSLOT", "LINKS", "MYID", "MYSHARDID", "NODES"}
    | {"SHARDS", "SLOTS"},
    "COMMANDLOG": {"GET", "LEN"},
    "CONFIG": {"GET"},
    "FUNCTION": {"DUMP", "LIST", "STATS"},
    "LATENCY": {"DOCTOR", "GRAPH", "HISTOGRAM", "HISTORY", "LATEST"},
    "MEMORY": {"DOCTOR", "MALLOC-STATS", "STATS", "USAGE"},
    "MODULE": {"LIST"},
    "SCRIPT": {"EXISTS", "LOAD", "SHOW"},
    "SLOWLOG": {"GET", "LEN"},
}

SCRIPTS = {"EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO"}
SORTS = {"SORT", "SORT_RO"}
SUBSCRIBES = {"SUBSCRIBE", "UNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE"}
PATTERN_SUBSCRIBES = {"PSUBSCRIBE", "PUNSUBSCRIBE"}
PUBLISHES = {"PUBLISH", "SPUBLISH"}
POPS = {"BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX", "LMPOP", "BLMPOP", "ZMPOP", "BZMPOP"}
STREAM_READS = {"XREAD", "XREADGROUP"}
# Their keys are found by code below, not by the table alone.
BY_HAND = SORTS | {"MIGRATE"}
# In a script these would see the keys of others; outside one we can narrow them.
NOT_IN_SCRIPTS = {"KEYS", "SCAN", "RANDOMKEY", "DBSIZE"}

OURS_BY_SCAN = """local found, cursor = {}, '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do found[key] = true end
until cursor == '0'
"""
COUNT_OURS = OURS_BY_SCAN + "local n = 0 for _ in pairs(found) do n = n + 1 end return n"
RANDOM_OF_OURS = (
    OURS_BY_SCAN
    + """local keys = {}
for key in pairs(found) do keys[#keys + 1] = key end
if #keys == 0 then return false end
return keys[tonumber(ARGV[2]) % #keys + 1]"""
)

INSTEAD = "start without CACHELAB_REDIS_URL to have a server of your own"


class CommandRefused(OneSentence, RuntimeError):
    """The command would touch more than our keys; its text is one sentence."""


@dataclass(frozen=True)
class Keyspace:
    """The keys that begin with `prefix`, on the server at `place`; an empty prefix is all keys.

    A prefix holds letters, digits and `_ . : -` only. A Lua script has to take its keys from
    KEYS: what it computes inside, nobody can prefix. A script that names a key or a refused
    command literally, or a command by a variable, is refused.
    """

    prefix: str
    table: Table = field(default_factory=commands, repr=False, compare=False)
    place: str = "CACHELAB_REDIS_URL"

    def __post_init__(self) -> None:
        # On a cluster a hash tag in the prefix keeps all our keys in one slot.
        plain = re.sub(r"\{(\w+)\}", r"\1", self.prefix)
        if self.prefix and not SAFE_PREFIX.fullmatch(plain):
            raise ValueError(
                f"A prefix may hold letters, digits and _ . : - only, but this is {self.prefix!r}."
            )

    @classmethod
    def own(cls) -> Keyspace:
        """The keyspace of a server that is ours: every command passes as it is."""
        return cls("", {}, "our own")

    # Going out -----------------------------------------------------------------------------

    def outgoing(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """One command as it has to be sent: keys, channels and patterns under our prefix.

        `args` as redis-py has them: `("GET", "a")`, `("XINFO STREAM", "a")`. Raises CommandRefused.
        """
        if not self.prefix:
            return tuple(args)
        words, rest = _words(args)
        argv = [*words, *rest]
        name = words[0]
        self._allow(name, upper(argv[1]) if len(argv) > 1 else "")
        narrowed = self._narrowed(name, argv)
        if narrowed is not None:
            return narrowed
        if name in SCRIPTS and len(argv) > 1 and not name.startswith("EVALSHA"):
            self._allow_script(as_text(argv[1]))
        if name == "SCRIPT" and upper(argv[1]) == "LOAD" and len(argv) > 2:
            self._allow_script(as_text(argv[2]))
        for index in self._key_positions(name, argv):
            argv[index] = self._with_prefix(argv[index])
        self._rewrite_channels(name, argv)
        self._rewrite_options(name, argv)
        return (args[0], *argv[len(words) :])

    def _narrowed(self, name: str, argv: list[Any]) -> tuple[Any, ...] | None:
        """Commands about all keys, as the command that asks it about ours."""
        ours = self.prefix + "*"
        if name == "DBSIZE":
            return ("EVAL", COUNT_OURS, 0, ours)
        if name == "RANDOMKEY":
            return ("EVAL", RANDOM_OF_OURS, 0, ours, random.randrange(2**31))
        if name == "KEYS" and len(argv) == 2:
            return ("KEYS", self._with_prefix(argv[1]))
        if name == "SCAN":
            options = argv[2:]
            matches = [at for at, word in enumerate(options[:-1]) if upper(word) == "MATCH"]
            for at in matches:
                options[at + 1] = self._with_prefix(options[at + 1])
            return ("SCAN", *argv[1:2], *options, *(() if matches else ("MATCH", ours)))
        return None

    def _key_positions(self, name: str, argv: list[Any]) -> set[int]:
        if name in SORTS:
            return {1} if len(argv) > 1 else set()
        sub = f"{name}|{upper(argv[1])}" if len(argv) > 1 else ""
        specs = self.table.get(sub, self.table.get(name, []))
        try:
            return {index for spec in specs for index in key_positions(spec, argv)}
        except ValueError as error:
            raise CommandRefused(str(error)) from None

    def _rewrite_channels(self, name: str, argv: list[Any]) -> None:
        if name in PUBLISHES and len(argv) > 1:
            argv[1] = self.channel(argv[1])
        elif name in SUBSCRIBES or name in PATTERN_SUBSCRIBES:
            argv[1:] = [self.channel(each) for each in argv[1:]]
        elif name == "PUBSUB" and len(argv) > 1:
            asked = upper(argv[1])
            if asked in {"CHANNELS", "SHARDCHANNELS"}:
                argv[2:] = [self._with_prefix(each) for each in argv[2:] or ["*"]]
            elif asked in {"NUMSUB", "SHARDNUMSUB"}:
                argv[2:] = [self.channel(each) for each in argv[2:]]

    def _rewrite_options(self, name: str, argv: list[Any]) -> None:
        if name in SORTS:
            index = 2
            while index < len(argv) - 1:
                option, value = upper(argv[index]), as_text(argv[index + 1])
                if option == "STORE" or (option in {"BY", "GET"} and "*" in value):
                    argv[index + 1] = self._with_prefix(argv[index + 1])
                index += {"STORE": 2, "BY": 2, "GET": 2, "LIMIT": 3}.get(option, 1)
        elif name == "COPY" and any(upper(each) == "DB" for each in argv[3:]):
            raise self._refusal("COPY with DB", OTHER_DATABASE)
        elif name == "CLIENT" and upper(argv[1]) == "TRACKING":
            asked = [upper(each) for each in argv]
            prefixes = [index + 1 for index, word in enumerate(asked) if word == "PREFIX"]
            for index in prefixes:
                if index < len(argv):
                    argv[index] = self._with_prefix(argv[index])
            if "BCAST" in asked and not prefixes:
                argv += ["PREFIX", self.prefix]
        elif name == "CLUSTER" and upper(argv[1]) == "KEYSLOT" and len(argv) > 2:
            argv[2] = self._with_prefix(argv[2])

    def channel(self, name: Any) -> Any:
        """A pub/sub channel or pattern under our prefix; the server's own ones keep their form."""
        text = as_text(name)
        if text.startswith(("__redis__:", "__keyevent@")):
            return name
        if text.startswith("__keyspace@") and ":" in text:
            head, _, key = text.partition(":")
            return f"{head}:{self.prefix}{key}"
        return self._with_prefix(name)

    def _with_prefix(self, key: Any) -> Any:
        if isinstance(key, bytes | bytearray | memoryview):
            return self.prefix.encode() + bytes(key)
        if isinstance(key, str):
            return self.prefix + key
        if isinstance(key, int | float) and not isinstance(key, bool):
            return self.prefix + (repr(key) if isinstance(key, float) else str(key))
        return key  # None, True, objects: redis-py says what is wrong with them

    # Refusals ------------------------------------------------------------------------------

    def _allow(self, name: str, sub: str) -> None:
        if name in REFUSED and sub != "HELP" and sub not in ALLOWED.get(name, ()):
            said = f"{name} {sub}" if name in ALLOWED and sub else name
            raise self._refusal(said, REFUSED[name])
        if name not in self.table and f"{name}|{sub}" not in self.table:
            raise CommandRefused(
                f"{name} is not among the commands Cachelab knows, so it cannot tell which keys it"
                f" would touch on a server that is not ours ({self.place}): {INSTEAD}."
            )

    def _refusal(self, command: str, why: str) -> CommandRefused:
        instead = "delete your own keys with lab.clear()" if why == EMPTIES else INSTEAD
        return CommandRefused(
            f"{command} {why} a server that is not ours ({self.place}): {instead}."
        )

    def _allow_script(self, script: str) -> None:
        for command, following in lua_calls(script):
            if command is None:
                raise CommandRefused(
                    f"This Lua script uses {following}, so what it would touch on a server that is"
                    f" not ours ({self.place}) cannot be told: write redis.call('GET', KEYS[1])."
                )
            name = command.upper()
            sub = following.upper() if following else ""
            self._allow(name, sub if name in ALLOWED else "")
            if name in NOT_IN_SCRIPTS:
                raise self._refusal(f"{name} in a Lua script", OTHERS_DATA)
            takes_key_first = name in PUBLISHES or any(
                spec[0] == 1 for spec in self.table.get(name, [])
            )
            if takes_key_first and following is not None:
                raise CommandRefused(
                    f"This Lua script gives {name} a key that is not from KEYS, so it would touch"
                    f" a key of others on a server that is not ours ({self.place}): pass the key"
                    " in KEYS."
                )

    # Coming back ---------------------------------------------------------------------------

    def incoming(self, args: Sequence[Any], reply: Any) -> Any:
        """The reply to the command `args` (before `outgoing`) with our prefix off its keys.

        `reply` is taken before or after redis-py's own conversion, and is not changed in place.
        """
        if not self.prefix or reply is None or isinstance(reply, Exception):
            return reply
        words, rest = _words(args)
        name = words[0]
        if name == "KEYS":
            return type(reply)(map(self.strip, reply)) if _is_many(reply) else reply
        if name == "RANDOMKEY":
            return self.strip(reply)
        if name == "SCAN" and _is_many(reply):
            cursor, keys = reply
            return type(reply)((cursor, [self.strip(key) for key in keys]))
        if name in POPS and isinstance(reply, list | tuple) and reply:
            return type(reply)((self.strip(reply[0]), *reply[1:]))
        if name in STREAM_READS:
            return self._strip_first(reply)
        if name == "PUBSUB":
            return self._incoming_pubsub([*words, *rest], reply)
        if name in SCRIPTS:
            return self._strip_all(reply)
        return reply

    def _incoming_pubsub(self, argv: list[Any], reply: Any) -> Any:
        asked = upper(argv[1]) if len(argv) > 1 else ""
        if asked in {"CHANNELS", "SHARDCHANNELS"}:
            return [self.strip(each) for each in reply]
        if asked in {"NUMSUB", "SHARDNUMSUB"}:
            return self._strip_first(reply)
        return reply

    def incoming_message(self, response: Any) -> Any:
        """A pub/sub push as `PubSub.parse_response` returns it, with our prefix off its channel.

        None where it is not for us: an event about somebody else's key. An invalidation keeps
        only our keys.
        """
        if not self.prefix or not isinstance(response, list | tuple) or len(response) < 2:
            return response
        parts = list(response)
        kind = as_text(parts[0])
        if kind == "invalidate":
            parts[1] = self._only_ours(parts[1])
        elif kind in {"pmessage", "message", "smessage"}:
            source = as_text(parts[-2])
            if source.startswith("__keyevent@"):
                if not as_text(parts[-1]).startswith(self.prefix):
                    return None
                parts[-1] = self.strip(parts[-1])
            elif source == "__redis__:invalidate":
                parts[-1] = self._only_ours(parts[-1])
            parts[1:-1] = [self._strip_channel(each) for each in parts[1:-1]]
        else:
            parts[1] = self._strip_channel(parts[1])
        return type(response)(parts)

    def _only_ours(self, keys: Any) -> Any:
        if not isinstance(keys, list | tuple):
            return keys  # None: everything was flushed
        return [self.strip(key) for key in keys if as_text(key).startswith(self.prefix)]

    def _strip_channel(self, channel: Any) -> Any:
        text = as_text(channel) if channel is not None else ""
        if text.startswith("__keyspace@"):
            head, _, key = text.partition(":")
            return f"{head}:{self.strip(key)}"
        return self.strip(channel)

    def strip(self, key: Any) -> Any:
        """A key without our prefix; anything else as it is."""
        if isinstance(key, str):
            return key.removeprefix(self.prefix)
        if isinstance(key, bytes):
            return key.removeprefix(self.prefix.encode())
        return key

    def _strip_first(self, reply: Any) -> Any:
        """`{key: x}`, `[[key, x], ...]` or `[key, x, ...]` with the keys stripped."""
        if isinstance(reply, dict):
            return {self.strip(key): value for key, value in reply.items()}
        if not isinstance(reply, list | tuple):
            return reply
        return type(reply)(
            type(each)((self.strip(each[0]), *each[1:]))
            if isinstance(each, list | tuple) and each
            else self.strip(each)
            for each in reply
        )

    def _strip_all(self, reply: Any) -> Any:
        if isinstance(reply, list):
            return [self._strip_all(each) for each in reply]
        if isinstance(reply, dict):
            return {self._strip_all(key): self._strip_all(value) for key, value in reply.items()}
        return self.strip(reply)


def _words(args: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """The command's words in capitals, split as redis-py splits them, and the other arguments."""
    name = as_text(args[0])
    words = name.split() if " " in name else [name]
    return [word.upper() for word in words] or [""], list(args[1:])


def _is_many(reply: Any) -> bool:
    return isinstance(reply, list | tuple | set)
