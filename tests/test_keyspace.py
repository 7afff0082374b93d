"""What Keyspace promises: our keys look unprefixed to us, and nobody else's key is ever touched."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from cachelab.cache import server
from cachelab.cache.command_keys import TABLE_FILE, commands
from cachelab.cache.keyspace import BY_HAND, CommandRefused, Keyspace
from tools.command_keys import dumps, read_table

PREFIX = "cachelab:0badcafe:"
KEPT = Keyspace(PREFIX, place="example:6379")

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="there is no real server on Windows"
)


class KeptClient(redis.Redis):
    """redis-py with a Keyspace and nothing else."""

    kept: Keyspace = Keyspace.own()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        reply = super().execute_command(*self.kept.outgoing(args), **options)
        return self.kept.incoming(args, reply)


THEIRS = ("a", "a1", "b", "h", "k", "l", "s", "x", "z", "z'z", "w1", "lock", "none", "only")


@pytest.fixture(scope="module")
def wheel() -> Iterator[server.OurServer]:
    ours = server.start(server.from_wheel(), where="our own, from the wheel", tcp=True)
    yield ours
    ours.close()


@pytest.fixture
def foreign(wheel: server.OurServer) -> Iterator[server.ForeignServer]:
    """The wheel's server, met as one that is not ours, with keys named as ours will be."""
    raw = wheel.client()
    raw.flushall()
    raw.mset(dict.fromkeys(THEIRS, "theirs"))
    there = server.foreign(url_of(wheel))
    yield there
    there.close()


def url_of(ours: server.OurServer) -> str:
    at = ours.address
    return f"redis://:{at['password']}@{at['host']}:{at['port']}/0"


def kept_client(there: server.Server) -> KeptClient:
    client = KeptClient(connection_pool=there.connection_pool())
    client.kept = there.keyspace
    return client


# --- where the keys are ---------------------------------------------------------------------------


def test_the_stored_table_is_what_the_wheels_server_says(wheel: server.OurServer) -> None:
    assert dumps(read_table(wheel)) == TABLE_FILE.read_text("utf-8"), "python -m tools.command_keys"


def test_every_command_the_table_cannot_place_is_placed_by_hand() -> None:
    unplaced = {name for name, specs in commands().items() if ["?"] in specs}
    assert unplaced <= BY_HAND


KEY = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8
)
SHAPES: list[Callable[[list[str]], list[Any]]] = [
    lambda k: ["GET", k[0]],
    lambda k: ["get", k[0].encode()],
    lambda k: ["SET", k[0], "v", "EX", 5],
    lambda k: ["MGET", *k],
    lambda k: ["DEL", *k],
    lambda k: ["MSET", *[part for key in k for part in (key, "v")]],
    lambda k: ["MSETEX", len(k), *[part for key in k for part in (key, "v")], "EX", 5],
    lambda k: ["BITOP", "OR", *k],
    lambda k: ["BLPOP", *k, 1],
    lambda k: ["RENAME", k[0], k[1]],
    lambda k: ["COPY", k[0], k[1], "REPLACE"],
    lambda k: ["EVAL", "return 1", len(k), *k, "an-argument"],
    lambda k: ["EVALSHA", "f" * 40, str(len(k)).encode(), *k, "an-argument"],
    lambda k: ["LMPOP", len(k), *k, "LEFT"],
    lambda k: ["BLMPOP", 1, len(k), *k, "LEFT", "COUNT", 2],
    lambda k: ["BZMPOP", 1, len(k), *k, "MIN"],
    lambda k: ["ZMPOP", len(k), *k, "MIN"],
    lambda k: ["SINTERCARD", len(k), *k, "LIMIT", 1],
    lambda k: ["ZUNIONSTORE", k[0], len(k[1:]), *k[1:], "WEIGHTS", *[1 for _ in k[1:]]],
    lambda k: ["ZINTER", len(k), *k, "WITHSCORES"],
    lambda k: ["ZDIFFSTORE", k[0], len(k[1:]), *k[1:]],
    lambda k: ["XREAD", "COUNT", 1, "STREAMS", *k, *["0" for _ in k]],
    lambda k: ["XREADGROUP", "GROUP", "g", "STREAMS", "STREAMS", *k, *[">" for _ in k]],
    lambda k: ["GEORADIUS", k[0], 1, 1, 1, "km", "STORE", k[1]],
    lambda k: ["OBJECT ENCODING", k[0]],
    lambda k: ["XGROUP", "CREATE", k[0], "g", "$"],
    lambda k: ["MEMORY", "USAGE", k[0]],
    lambda k: ["SORT", k[0], "LIMIT", 0, 1, "STORE", k[1]],
    lambda k: ["PFMERGE", *k],
    lambda k: ["SMOVE", k[0], k[1], "m"],
    lambda k: ["LCS", k[0], k[1]],
    lambda k: ["WATCH", *k],
]


@given(st.sampled_from(SHAPES), st.lists(KEY, min_size=2, max_size=4))
def test_every_key_the_server_would_see_is_under_our_prefix(
    shape: Callable[[list[str]], list[Any]], keys: list[str]
) -> None:
    marks = [f"<{number}>" for number in range(len(keys))]
    keyed = dict(zip(marks, keys, strict=True))
    asked = shape(marks)
    expected = [PREFIX + keyed[part] if part in keyed else part for part in _flat(asked)]
    sent = KEPT.outgoing(shape(keys))
    assert sent[0] == asked[0]
    assert _flat(sent) == expected


@given(st.lists(st.tuples(st.sampled_from(SHAPES), st.lists(KEY, min_size=2, max_size=4))))
def test_a_server_of_our_own_gets_every_command_as_it_is(
    asked: list[tuple[Callable[[list[str]], list[Any]], list[str]]],
) -> None:
    for shape, keys in asked:
        assert Keyspace.own().outgoing(shape(keys)) == tuple(shape(keys))


def test_the_server_finds_only_prefixed_keys_in_what_we_send(wheel: server.OurServer) -> None:
    client = wheel.client()
    keys = ["a", "STREAMS", "STORE", "7"]
    for shape in SHAPES:
        sent = [part for each in KEPT.outgoing(shape(keys)) for part in _split_name(each)]
        found = client.execute_command("COMMAND GETKEYS", *sent)
        assert [key for key in found if not key.startswith(PREFIX)] == [], sent
        assert len(found) > 0


def _flat(args: Any) -> list[str]:
    return [part.decode() if isinstance(part, bytes) else str(part) for part in args]


def _split_name(part: Any) -> list[Any]:
    return part.split() if part in {"OBJECT ENCODING"} else [part]


def test_an_option_said_twice_is_prefixed_twice() -> None:
    sent = KEPT.outgoing(["GEORADIUS", "g", 1, 1, 1, "km", "STORE", "a", "STORE", "b"])
    assert sent[-3::2] == (PREFIX + "a", PREFIX + "b")
    sent = KEPT.outgoing(["SCAN", 0, "MATCH", "a*", "match", "b*"])
    assert sent[-3::2] == (PREFIX + "a*", PREFIX + "b*")


def test_numbers_and_bytes_become_keys_as_redis_py_would_send_them() -> None:
    assert KEPT.outgoing(["MGET", 1, 2.5, b"\xff", memoryview(b"m")])[1:] == (
        PREFIX + "1",
        PREFIX + "2.5",
        PREFIX.encode() + b"\xff",
        PREFIX.encode() + b"m",
    )
    assert KEPT.outgoing(["GET", None]) == ("GET", None)  # redis-py's own complaint stays


def test_a_prefix_with_a_pattern_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        Keyspace("all*")


# --- what is refused ------------------------------------------------------------------------------

WIDER = """
FLUSHALL | FLUSHDB | flushall ASYNC | CONFIG SET maxmemory 1 | CONFIG REWRITE | CONFIG RESETSTAT
SHUTDOWN | SHUTDOWN NOSAVE | DEBUG SLEEP 1 | SWAPDB 0 1 | SELECT 1 | MOVE a 1 | COPY a b DB 1
SCRIPT FLUSH | SCRIPT KILL | FUNCTION FLUSH | FUNCTION DELETE f | FUNCTION LOAD x
FUNCTION RESTORE x | FCALL f 0 | FCALL_RO f 1 a | ACL SETUSER x | ACL LIST | ACL DELUSER x
CLIENT KILL 1 | CLIENT PAUSE 1 | CLIENT NO-EVICT on | CLIENT UNBLOCK 1 | CLIENT UNPAUSE
REPLICAOF NO ONE | SLAVEOF NO ONE | CLUSTER RESET | CLUSTER FLUSHSLOTS | CLUSTER MEET a 1
MODULE LOAD x | MODULE UNLOAD x | SAVE | BGSAVE | BGREWRITEAOF | MONITOR | LATENCY RESET
SLOWLOG RESET | COMMANDLOG RESET 1 slow | MIGRATE h 1 a 0 1 | MEMORY PURGE | FAILOVER | SYNC
PSYNC ? -1 | RESET | RESTORE-ASKING a 0 x | CLUSTERSCAN 0 | PFDEBUG GETREG a | NOSUCH a
"""


@pytest.mark.parametrize(
    "line",
    [part.strip() for line in WIDER.splitlines() for part in line.split("|") if part.strip()],
)
def test_a_command_that_would_touch_more_is_refused_in_one_sentence(line: str) -> None:
    argv = line.split()
    joined = [" ".join(argv[:2]), *argv[2:]]
    as_bytes = [word.encode() for word in argv]
    mixed = [argv[0].capitalize(), *argv[1:]]
    for spelt in (argv, as_bytes, mixed, *([joined] if len(argv) > 1 else [])):
        with pytest.raises(CommandRefused) as caught:
            KEPT.outgoing(spelt)
        said = str(caught.value)
        assert argv[0].upper() in said
        assert "example:6379" in said
        assert said.endswith(".")
        assert "\n" not in said
        assert said.count(". ") == 0


def test_the_refusal_says_what_to_do_instead() -> None:
    with pytest.raises(CommandRefused) as caught:
        KEPT.outgoing(["FLUSHALL"])
    assert str(caught.value) == (
        "FLUSHALL would empty a server that is not ours (example:6379): delete your own keys with"
        " lab.clear()."
    )


@pytest.mark.parametrize(
    "line",
    [
        *("CONFIG GET maxmemory", "CLIENT ID", "CLIENT SETNAME x", "INFO", "SLOWLOG LEN"),
        *("ACL WHOAMI", "SCRIPT EXISTS x", "MODULE LIST", "PING", "MULTI", "TIME", "CONFIG HELP"),
    ],
)
def test_looking_is_allowed(line: str) -> None:
    assert KEPT.outgoing(line.split()) == tuple(line.split())


@pytest.mark.parametrize(
    "script",
    [
        "redis.call('FLUSHALL')",
        'return redis.pcall("flushdb")',
        "server.call([[FLUSHALL]])",
        "return redis . call ( 'CONFIG' , 'SET', 'maxmemory', '1')",
        "redis.call('SET', 'theirs', 1)",
        "redis.call('SET', 'x:' .. KEYS[1], 1)",
        "redis.call('DEL', ARGV[1])",
        "redis.call('KEYS', '*')",
        "redis.call('SCAN', 0)",
        "local c = redis.call; c('FLUSHALL')",
        "local r = redis return r.call('FLUSHALL')",
        "redis['call']('FLUSHALL')",
        "redis.call('FLUSH' .. 'ALL')",
        "redis.call(ARGV[1])",
        "_G.redis.call('FLUSHALL')",
        "return loadstring(ARGV[1])()",
        "redis.call 'FLUSHALL'",
        r"redis.call('FLUSH\65LL')",
        "redis.call('NOSUCH', KEYS[1])",
        "-- redis.call('GET', KEYS[1])\nredis.call('FLUSHALL')",
        "redis.call('PUBLISH', 'theirs', 1)",
    ],
)
def test_a_script_that_could_reach_further_is_refused(script: str) -> None:
    for asked in (
        ("EVAL", script, 0),
        ("SCRIPT LOAD", script),
        ("SCRIPT", "LOAD", script.encode()),
    ):
        with pytest.raises(CommandRefused, match=r"^[^\n]+\.$"):
            KEPT.outgoing(asked)


@pytest.mark.parametrize(
    "script",
    [
        "return redis.call('GET', KEYS[1])",
        "local key = KEYS[1] -- redis.call('FLUSHALL')\nreturn redis.call('set', key, ARGV[1])",
        "return redis.call('SET', KEYS[1] .. ':lock', 1)",
        "return redis.error_reply('redis is FLUSHALL')",
        "--[[ redis.call('FLUSHALL') ]] return redis.sha1hex('x')",
        "return redis.call('TIME')",
        "return redis.call( -- one of ours\n 'GET', KEYS[1])",
        redis.lock.Lock.LUA_RELEASE_SCRIPT,
        redis.lock.Lock.LUA_EXTEND_SCRIPT,
        redis.lock.Lock.LUA_REACQUIRE_SCRIPT,
    ],
)
def test_a_script_that_keeps_to_keys_is_sent(script: str) -> None:
    assert KEPT.outgoing(("EVAL", script, 1, "a", "x")) == ("EVAL", script, 1, PREFIX + "a", "x")


# --- pub/sub --------------------------------------------------------------------------------------


def test_a_message_comes_back_on_the_channel_it_was_asked_for() -> None:
    assert KEPT.outgoing(["PUBLISH", "news", "x"]) == ("PUBLISH", PREFIX + "news", "x")
    assert KEPT.outgoing(["PSUBSCRIBE", "n*"]) == ("PSUBSCRIBE", PREFIX + "n*")
    assert KEPT.incoming_message(["message", PREFIX + "news", PREFIX + "x"]) == [
        "message",
        "news",
        PREFIX + "x",
    ]
    assert KEPT.incoming_message(
        [b"pmessage", f"{PREFIX}n*".encode(), f"{PREFIX}news".encode(), b"x"]
    ) == [b"pmessage", b"n*", b"news", b"x"]
    assert KEPT.incoming_message(["subscribe", PREFIX + "news", 1]) == ["subscribe", "news", 1]
    assert KEPT.incoming_message(["unsubscribe", None, 0]) == ["unsubscribe", None, 0]
    assert KEPT.incoming_message(b"PONG") == b"PONG"


def test_events_of_keys_reach_us_for_our_keys_only() -> None:
    assert KEPT.outgoing(["SUBSCRIBE", "__keyspace@0__:a"])[1] == f"__keyspace@0__:{PREFIX}a"
    assert KEPT.incoming_message(["message", f"__keyspace@0__:{PREFIX}a", "set"]) == [
        "message",
        "__keyspace@0__:a",
        "set",
    ]
    event = "__keyevent@0__:expired"
    assert KEPT.outgoing(["SUBSCRIBE", event])[1] == event
    assert KEPT.incoming_message(["message", event, PREFIX + "a"]) == ["message", event, "a"]
    assert KEPT.incoming_message(["message", event, "theirs"]) is None
    assert KEPT.incoming_message(["invalidate", [PREFIX + "a", "b"]]) == ["invalidate", ["a"]]


def test_tracking_by_broadcast_covers_our_prefix_only() -> None:
    assert KEPT.outgoing(["CLIENT", "TRACKING", "ON", "BCAST"])[-2:] == ("PREFIX", PREFIX)
    assert KEPT.outgoing(["CLIENT TRACKING", "ON", "BCAST", "PREFIX", "u:"]) == (
        *("CLIENT TRACKING", "ON", "BCAST", "PREFIX"),
        PREFIX + "u:",
    )


# --- the same answers as on a server of our own ---------------------------------------------------


def every(*calls: Callable[[redis.Redis], Any]) -> Callable[[redis.Redis], list[Any]]:
    return lambda client: [call(client) for call in calls]


def with_list(c: redis.Redis, name: str = "l") -> None:
    c.rpush(name, "a", "b", "c", "a")


def with_zset(c: redis.Redis) -> None:
    c.zadd("z", {"a": 1, "b": 2, "c": 3})
    c.zadd("y", {"b": 5, "d": 1})


def with_sets(c: redis.Redis) -> None:
    c.sadd("s", "a", "b", "c")
    c.sadd("t", "b", "c", "d")


def with_hash(c: redis.Redis) -> None:
    c.hset("h", mapping={"a": "1", "b": "2"})


def with_stream(c: redis.Redis) -> None:
    c.xadd("x", {"f": "1"}, id="1-1")
    c.xadd("x", {"f": "2"}, id="2-1")
    c.xgroup_create("x", "g", id="0")


def with_geo(c: redis.Redis) -> None:
    c.geoadd("geo", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"))


def nothing(_: redis.Redis) -> None:
    return None


LATER = 4_000_000_000
SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], redis.call('GET', KEYS[1])}"

CALLS: dict[str, tuple[Callable[[redis.Redis], None], Callable[[redis.Redis], Any]]] = {
    "set_get": (nothing, every(lambda c: c.set("k", "1"), lambda c: c.get("k"))),
    "set_nx_get": (nothing, lambda c: (c.set("k", 1, nx=True), c.set("k", 2, nx=True, get=True))),
    "setex_ttl": (nothing, lambda c: (c.execute_command("SETEX", "k", 100, "v"), c.ttl("k") > 9)),
    "psetex": (nothing, lambda c: (c.psetex("k", 100_000, "v"), c.get("k"))),
    "setnx": (nothing, lambda c: (c.setnx("k", 1), c.setnx("k", 2), c.get("k"))),
    "getset": (nothing, lambda c: (c.getset("k", 1), c.getset("k", 2))),
    "getdel": (nothing, lambda c: (c.set("k", 1), c.getdel("k"), c.get("k"))),
    "getex": (nothing, lambda c: (c.set("k", 1), c.getex("k", exat=LATER), c.expiretime("k"))),
    "mset_mget": (nothing, lambda c: (c.mset({"a": 1, "b": 2}), c.mget("a", "b", "none"))),
    "msetnx": (nothing, lambda c: (c.msetnx({"a": 1, "b": 2}), c.msetnx({"b": 3, "c": 4}))),
    "append": (nothing, lambda c: (c.append("k", "ab"), c.append("k", "c"), c.strlen("k"))),
    "getrange": (nothing, lambda c: (c.set("k", "abcdef"), c.getrange("k", 1, 3))),
    "setrange": (nothing, lambda c: (c.setrange("k", 3, "x"), c.get("k"))),
    "incr_decr": (
        nothing,
        lambda c: (c.incr("n"), c.incrby("n", 5), c.decr("n"), c.decrby("n", 2)),
    ),
    "incrbyfloat": (nothing, lambda c: c.incrbyfloat("n", 1.5)),
    "lcs": (nothing, lambda c: (c.mset({"a": "ohmytext", "b": "mynewtext"}), c.lcs("a", "b"))),
    "bits": (nothing, lambda c: (c.setbit("b", 3, 1), c.getbit("b", 3), c.bitcount("b"))),
    "bitop": (nothing, lambda c: (c.set("a", "x"), c.bitop("NOT", "d", "a"), c.strlen("d"))),
    "bitpos": (nothing, lambda c: (c.setbit("b", 9, 1), c.bitpos("b", 1))),
    "bitfield": (nothing, lambda c: c.bitfield("b").set("u8", 0, 7).get("u8", 0).execute()),
    "delete": (nothing, lambda c: (c.mset({"a": 1, "b": 2}), c.delete("a", "b", "c"))),
    "unlink_exists": (
        nothing,
        lambda c: (c.mset({"a": 1, "b": 2}), c.unlink("a"), c.exists("a", "b")),
    ),
    "touch": (nothing, lambda c: (c.set("a", 1), c.touch("a", "b"))),
    "type": (with_list, lambda c: (c.type("l"), c.type("none"))),
    "rename": (nothing, lambda c: (c.set("a", 1), c.rename("a", "b"), c.get("b"))),
    "renamenx": (nothing, lambda c: (c.mset({"a": 1, "b": 2}), c.renamenx("a", "b"))),
    "copy": (nothing, lambda c: (c.set("a", 1), c.copy("a", "b"), c.get("b"))),
    "expire": (nothing, lambda c: (c.set("a", 1), c.expireat("a", LATER), c.expiretime("a"))),
    "pexpire": (
        nothing,
        lambda c: (c.set("a", 1), c.pexpire("a", 99_000), c.persist("a"), c.pttl("a")),
    ),
    "dump_restore": (
        nothing,
        lambda c: (c.set("a", 1), c.restore("b", 0, raw_dump(c)), c.get("b")),
    ),
    "object_encoding": (
        with_list,
        lambda c: (c.object("encoding", "l"), c.object("refcount", "l")),
    ),
    "keys": (
        nothing,
        lambda c: (c.mset({"a1": 1, "a2": 2, "b": 3}), sorted(c.keys("a*")), len(c.keys())),
    ),
    "scan": (
        nothing,
        lambda c: (c.mset({"a1": 1, "b": 3}), sorted(c.scan(0, match="a*", count=99)[1])),
    ),
    "scan_iter": (nothing, lambda c: (c.mset({"a1": 1, "b": 3}), sorted(c.scan_iter()))),
    "scan_type": (with_list, lambda c: (c.set("k", 1), sorted(c.scan_iter(_type="list")))),
    "randomkey": (nothing, lambda c: (c.randomkey(), c.set("only", 1), c.randomkey())),
    "dbsize": (nothing, lambda c: (c.dbsize(), c.mset({"a": 1, "b": 2}), c.dbsize())),
    "lists": (
        with_list,
        lambda c: (c.llen("l"), c.lrange("l", 0, -1), c.lindex("l", 1), c.lpos("l", "a")),
    ),
    "list_edits": (
        with_list,
        lambda c: (
            c.lset("l", 0, "z"),
            c.linsert("l", "BEFORE", "b", "i"),
            c.lrem("l", 1, "c"),
            c.ltrim("l", 0, 2),
            c.lrange("l", 0, -1),
        ),
    ),
    "pops": (
        with_list,
        lambda c: (c.lpop("l"), c.rpop("l", 2), c.lpushx("l", "x"), c.rpushx("no", "x")),
    ),
    "lmove": (
        with_list,
        lambda c: (c.lmove("l", "m", "LEFT", "RIGHT"), c.rpoplpush("l", "m"), c.lrange("m", 0, -1)),
    ),
    "blmove": (with_list, lambda c: (c.blmove("l", "m", 1), c.brpoplpush("l", "m", 1))),
    "blpop": (
        with_list,
        lambda c: (c.blpop(["none", "l"], 1), c.brpop("l", 1), c.blpop("none", 0.01)),
    ),
    "lmpop": (
        with_list,
        lambda c: (
            c.lmpop(2, "none", "l", direction="LEFT", count=2),
            c.blmpop(1, 1, "l", direction="RIGHT"),
        ),
    ),
    "sort": (
        with_list,
        lambda c: (
            c.sort("l", alpha=True),
            c.sort("l", alpha=True, store="d"),
            c.lrange("d", 0, -1),
        ),
    ),
    "sort_by": (
        lambda c: (c.rpush("l", "1", "2"), c.mset({"w1": 9, "w2": 3, "v1": "one", "v2": "two"})),
        lambda c: c.sort("l", by="w*", get=["v*", "#"]),
    ),
    "hashes": (
        with_hash,
        lambda c: (
            c.hget("h", "a"),
            c.hgetall("h"),
            c.hmget("h", "a", "z"),
            c.hlen("h"),
            c.hexists("h", "a"),
        ),
    ),
    "hash_views": (
        with_hash,
        lambda c: (
            c.hkeys("h"),
            c.hvals("h"),
            c.hstrlen("h", "a"),
            c.hsetnx("h", "a", 2),
            c.hdel("h", "a"),
        ),
    ),
    "hash_counts": (with_hash, lambda c: (c.hincrby("h", "a", 3), c.hincrbyfloat("h", "b", 0.5))),
    "hscan": (with_hash, lambda c: (c.hscan("h", match="a*"), sorted(c.hscan_iter("h")))),
    "hash_ttls": (
        with_hash,
        lambda c: (
            c.hexpireat("h", LATER, "a"),
            c.hexpiretime("h", "a", "b"),
            c.hpersist("h", "a"),
        ),
    ),
    "hrandfield": (lambda c: c.hset("h", "a", 1), lambda c: c.hrandfield("h")),
    "sets": (
        with_sets,
        lambda c: (
            c.scard("s"),
            c.sismember("s", "a"),
            c.smismember("s", ["a", "z"]),
            c.smembers("s"),
        ),
    ),
    "set_algebra": (
        with_sets,
        lambda c: (
            c.sinter("s", "t"),
            c.sunion("s", "t"),
            c.sdiff("s", "t"),
            c.sintercard(2, ["s", "t"]),
        ),
    ),
    "set_stores": (
        with_sets,
        lambda c: (
            c.sinterstore("d", "s", "t"),
            c.sunionstore("d", "s", "t"),
            c.sdiffstore("d", "s", "t"),
            c.smembers("d"),
        ),
    ),
    "set_edits": (with_sets, lambda c: (c.smove("s", "t", "a"), c.srem("t", "b"), c.smembers("t"))),
    "spop": (lambda c: c.sadd("s", "a"), lambda c: (c.srandmember("s"), c.spop("s"), c.spop("s"))),
    "sscan": (with_sets, lambda c: sorted(c.sscan_iter("s"))),
    "zsets": (
        with_zset,
        lambda c: (
            c.zcard("z"),
            c.zscore("z", "a"),
            c.zmscore("z", ["a", "q"]),
            c.zrank("z", "b"),
            c.zrevrank("z", "b"),
        ),
    ),
    "zranges": (
        with_zset,
        lambda c: (
            c.zrange("z", 0, -1, withscores=True),
            c.zrangebyscore("z", 2, 3),
            c.zrevrange("z", 0, 0),
            c.zcount("z", 1, 2),
        ),
    ),
    "zlex": (
        with_zset,
        lambda c: (
            c.zrangebylex("z", "-", "+"),
            c.zlexcount("z", "-", "+"),
            c.zremrangebylex("z", "[a", "[a"),
        ),
    ),
    "zrangestore": (with_zset, lambda c: (c.zrangestore("d", "z", 0, 1), c.zrange("d", 0, -1))),
    "zincrby": (
        with_zset,
        lambda c: (
            c.zincrby("z", 2, "a"),
            c.zrem("z", "b"),
            c.zremrangebyrank("z", 0, 0),
            c.zremrangebyscore("y", 0, 2),
        ),
    ),
    "zalgebra": (
        with_zset,
        lambda c: (
            c.zunion(["z", "y"], withscores=True),
            c.zinter(["z", "y"]),
            c.zdiff(["z", "y"]),
            c.zintercard(2, ["z", "y"]),
        ),
    ),
    "zstores": (
        with_zset,
        lambda c: (
            c.zunionstore("d", {"z": 2, "y": 1}),
            c.zinterstore("e", ["z", "y"]),
            c.zdiffstore("f", ["z", "y"]),
            c.zrange("d", 0, -1, withscores=True),
        ),
    ),
    "zpops": (
        with_zset,
        lambda c: (
            c.zpopmin("z"),
            c.zpopmax("z"),
            c.bzpopmin(["none", "y"], 1),
            c.bzpopmax("y", 1),
        ),
    ),
    "zmpop": (
        with_zset,
        lambda c: (c.zmpop(2, ["none", "z"], min=True), c.bzmpop(1, 1, ["y"], max=True)),
    ),
    "zscan": (with_zset, lambda c: sorted(c.zscan_iter("z"))),
    "geo": (
        with_geo,
        lambda c: (
            c.geodist("geo", "Palermo", "Catania", "km"),
            c.geohash("geo", "Palermo"),
            c.geosearch("geo", longitude=15, latitude=37, radius=200, unit="km"),
        ),
    ),
    "geo_stores": (
        with_geo,
        lambda c: (
            c.geosearchstore("d", "geo", longitude=15, latitude=37, radius=200, unit="km"),
            c.georadius("geo", 15, 37, 200, "km", store="e"),
            c.zcard("e"),
        ),
    ),
    "pf": (
        nothing,
        lambda c: (
            c.pfadd("p", "a", "b"),
            c.pfadd("q", "c"),
            c.pfcount("p", "q"),
            c.pfmerge("r", "p", "q"),
            c.pfcount("r"),
        ),
    ),
    "streams": (
        with_stream,
        lambda c: (
            c.xlen("x"),
            c.xrange("x"),
            c.xrevrange("x", count=1),
            c.xdel("x", "1-1"),
            c.xtrim("x", maxlen=0),
        ),
    ),
    "xread": (
        with_stream,
        lambda c: (c.xread({"x": "0", "none": "0"}), c.xread({"x": "$"}, block=5)),
    ),
    "xreadgroup": (
        with_stream,
        lambda c: (
            c.xreadgroup("g", "me", {"x": ">"}, count=1),
            c.xpending("x", "g"),
            c.xack("x", "g", "1-1"),
            c.xreadgroup("g", "me", {"x": ">"}),
        ),
    ),
    "xclaim": (
        with_stream,
        lambda c: (
            c.xreadgroup("g", "me", {"x": ">"}),
            c.xclaim("x", "g", "you", 0, ["1-1"]),
            c.xautoclaim("x", "g", "me", 0, "0"),
        ),
    ),
    "xgroups": (
        with_stream,
        lambda c: (
            c.xgroup_setid("x", "g", "0"),
            c.xgroup_createconsumer("x", "g", "n"),
            c.xgroup_delconsumer("x", "g", "n"),
            c.xgroup_destroy("x", "g"),
        ),
    ),
    "xinfo": (
        with_stream,
        lambda c: (c.xinfo_groups("x"), c.xinfo_stream("x")["length"], c.xinfo_consumers("x", "g")),
    ),
    "eval": (nothing, lambda c: (c.eval(SCRIPT, 1, "k", "v"), c.get("k"))),
    "evalsha": (nothing, lambda c: (c.evalsha(c.script_load(SCRIPT), 1, "k", "v"), c.get("k"))),
    "register_script": (
        nothing,
        lambda c: (c.register_script(SCRIPT)(keys=["k"], args=["w"]), c.get("k")),
    ),
    "lock": (nothing, lambda c: lock_twice(c)),
    "publish": (
        nothing,
        lambda c: (c.publish("news", "x"), c.pubsub_channels(), c.pubsub_numsub("news")),
    ),
    "wait": (nothing, lambda c: (c.set("k", 1), c.wait(0, 10))),
    "ping_echo": (nothing, lambda c: (c.ping(), c.echo("x"))),
    "wrong_type": (with_list, lambda c: error_of(lambda: c.get("l"))),
}


def raw_dump(c: redis.Redis) -> bytes:
    value = c.execute_command("DUMP", "a", NEVER_DECODE=True)
    assert isinstance(value, bytes)
    return value


def lock_twice(c: redis.Redis) -> Any:
    first, second = c.lock("lock", timeout=60), c.lock("lock", timeout=60)
    got = first.acquire(blocking=False), second.acquire(blocking=False)
    first.extend(10)
    first.release()
    return got, second.acquire(blocking=False), second.owned()


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(redis.RedisError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.slow
def test_a_prefixed_client_answers_as_one_on_a_server_of_our_own(
    call: str, wheel: server.OurServer, foreign: server.ForeignServer
) -> None:
    prepare, ask = CALLS[call]
    kept = kept_client(foreign)
    prepare(kept)
    seen = ask(kept)
    plain = wheel.client()
    strange = {key for key in plain.scan_iter() if not key.startswith(foreign.prefix)}
    assert strange == set(THEIRS)
    assert plain.mget(THEIRS) == ["theirs"] * len(THEIRS)
    plain.flushall()
    prepare(plain)
    assert seen == ask(plain)


# docs/parity.md says why; and members with unequal scores are left out of ZRANGEBYLEX, whose answer
# for them is undefined.
OTHERWISE_ON_FAKEREDIS = {"geo", "object_encoding", "zlex"}


@pytest.mark.parametrize("call", sorted(CALLS.keys() - OTHERWISE_ON_FAKEREDIS))
def test_fakeredis_answers_as_a_real_server(call: str, wheel: server.OurServer) -> None:
    prepare, ask = CALLS[call]
    answers = []
    for client in (wheel.client(), server.fake().client()):
        client.flushall()
        prepare(client)
        answers.append(ask(client))
    assert answers[0] == answers[1]


# --- nobody else's key ----------------------------------------------------------------------------


def fill_with_others_keys(client: redis.Redis, count: int = 10_000) -> None:
    later = int(time.time()) + 100_000
    with contextlib.closing(client.pipeline(transaction=False)) as pipe:
        for number in range(count):
            key = f"theirs:{number}"
            kind = number % 6
            if kind == 0:
                pipe.set(key, b"\x00\xff" * (number % 50))
            elif kind == 1:
                pipe.hset(key, mapping={"a": number, "b": "x" * (number % 90)})
            elif kind == 2:
                pipe.rpush(key, *range(number % 20 + 1))
            elif kind == 3:
                pipe.xadd(key, {"n": number}, id=f"{number}-1")
            elif kind == 4:
                pipe.zadd(key, {"a": number, "b": 1.5})
            else:
                pipe.sadd(key, "a", number)
            if number % 5 == 0:
                pipe.expireat(key, later + number)
        pipe.set("a", "also theirs")
        pipe.set("cachelab:ffffffff:x", "another learner's")
        pipe.execute()


def photograph(client: redis.Redis) -> dict[bytes, tuple[bytes, int]]:
    keys = sorted(client.scan_iter(count=5000))
    with contextlib.closing(client.pipeline(transaction=False)) as pipe:
        for key in keys:
            pipe.dump(key)
            pipe.pexpiretime(key)
        told = pipe.execute()
    return dict(zip(keys, zip(told[::2], told[1::2], strict=True), strict=True))


def test_ten_thousand_keys_of_others_are_the_same_afterwards(wheel: server.OurServer) -> None:
    raw = wheel.client(decode_responses=False)
    raw.flushall()
    fill_with_others_keys(raw)
    before = photograph(raw)
    assert len(before) == 10_002
    there = server.foreign(url_of(wheel))
    kept = kept_client(there)
    for prepare, ask in CALLS.values():
        prepare(kept)
        ask(kept)
        there.age(30)
        there.forget()
    for line in ("FLUSHALL", "FLUSHDB", "SWAPDB 0 1"):
        with pytest.raises(CommandRefused):
            kept.execute_command(*line.split())
    kept.set("left", "behind")
    there.age(10_000_000)
    there.close()
    assert photograph(raw) == before
