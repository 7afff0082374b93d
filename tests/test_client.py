"""The client: plain redis-py in use, and every command in the trace for what it means."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from worlds import World, world


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


def seen(w: World) -> list[tuple[str, str, str]]:
    return [(event.kind, event.what, event.on) for event in w.trace]


def test_a_read_is_a_miss_or_a_hit_and_a_set_is_a_fill(w: World) -> None:
    w.cache.get("k")
    w.cache.set("k", "v", ex=60)
    w.cache.get("k")
    assert seen(w) == [("miss", "GET", "k"), ("fill", "SET", "k"), ("hit", "GET", "k")]
    assert w.trace[1].detail == "TTL 60 s"


@pytest.mark.parametrize("value", ["", "0", "null", "[]"])
def test_a_stored_value_that_looks_like_nothing_is_a_hit(w: World, value: str) -> None:
    w.cache.set("k", value)
    assert w.cache.get("k") == value
    assert w.trace.hits == 1


def test_one_mget_is_one_read_for_each_key(w: World) -> None:
    w.cache.set("a", 1)
    assert w.cache.mget("a", "b") == ["1", None]
    assert seen(w)[1:] == [("hit", "MGET", "a"), ("miss", "MGET", "b")]


def test_a_hash_is_found_or_missed_as_a_whole(w: World) -> None:
    assert w.cache.hgetall("h") == {}
    w.cache.hset("h", mapping={"a": 1})
    assert w.cache.hgetall("h") == {"a": "1"}
    assert [kind for kind, _, _ in seen(w)] == ["miss", "fill", "hit"]


def test_a_conditional_set_says_whether_it_was_done_and_is_no_fill(w: World) -> None:
    w.cache.set("lock", "me", nx=True, ex=5)
    w.cache.set("lock", "you", nx=True, ex=5)
    assert [event.detail for event in w.trace] == ["NX, done", "NX, refused"]
    assert w.trace.fills == 0


def test_a_set_without_a_ttl_says_so(w: World) -> None:
    w.cache.set("k", "v")
    w.cache.execute_command("SETEX", "k", 30, "v")
    w.cache.set("k", "v", px=500)
    assert [event.detail for event in w.trace] == ["no TTL", "TTL 30 s", "TTL 500 ms"]


def test_a_delete_of_nothing_says_so(w: World) -> None:
    w.cache.delete("k")
    assert w.trace[0].kind == "delete"
    assert w.trace[0].detail == "nothing there"


def test_each_command_of_a_pipeline_is_recorded_when_it_runs(w: World) -> None:
    with w.cache.pipeline() as pipe:
        pipe.set("a", 1, ex=9)
        pipe.get("a")
        pipe.get("b")
        assert len(w.trace) == 0
        assert pipe.execute() == [True, "1", None]
    assert [kind for kind, _, _ in seen(w)] == ["fill", "hit", "miss"]


def test_watch_and_multi_work_and_are_recorded(w: World) -> None:
    with w.cache.pipeline() as pipe:
        pipe.watch("n")
        before = int(pipe.get("n") or 0)
        pipe.multi()
        pipe.set("n", before + 1)
        pipe.execute()
    assert w.cache.get("n") == "1"
    assert w.trace.misses == 1


def test_a_script_runs_and_redis_pys_own_loading_of_it_is_not_shown(w: World) -> None:
    script = w.cache.register_script("return redis.call('SET', KEYS[1], ARGV[1]) and 1")
    assert script(keys=["k"], args=["v"]) == 1
    assert seen(w) == [("command", "EVALSHA", "k")]


def test_redis_pys_lock_works_and_is_recorded(w: World) -> None:
    with w.cache.lock("lock:a", timeout=5):
        assert w.cache.exists("lock:a")
    assert not w.cache.exists("lock:a")
    assert w.trace.errors == 0


def test_pub_sub_and_streams_work(w: World) -> None:
    listener = w.cache.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("news")
    listener.get_message(timeout=0.1)
    w.cache.publish("news", "hello")
    message = listener.get_message(timeout=1)
    assert message is not None
    assert (message["channel"], message["data"]) == ("news", "hello")
    w.cache.xadd("log", {"a": 1})
    assert len(w.cache.xrange("log")) == 1
    listener.close()


def test_a_dead_server_is_an_error_event_and_an_error_to_the_caller(w: World) -> None:
    w.server.kill()
    with pytest.raises(redis.ConnectionError):
        w.cache.get("k")
    with w.cache.pipeline() as pipe:
        pipe.get("k")
        with pytest.raises(redis.ConnectionError):
            pipe.execute()
    assert [event.kind for event in w.trace] == ["error", "error"]
    assert w.trace[0].detail == "ConnectionError"


def test_a_single_connection_client_is_traced_too(w: World) -> None:
    with w.cache.client() as single:
        single.set("k", "v")
    assert w.trace.fills == 1
