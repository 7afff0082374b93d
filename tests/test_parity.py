"""The stage and fakeredis answer as live servers do, or docs/parity.md says where they do not."""

from __future__ import annotations

import re
import sys
from contextlib import closing, suppress
from pathlib import Path

import parity
import pytest
import redis
from parity import page

from cachelab import stage
from cachelab.cache import exact, server
from cachelab.judge.exercise import Exercise
from cachelab.judge.trial import judge

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no real server on Windows"),
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def valkey():
    with closing(server.start(server.from_wheel(), where="wheel")) as found:
        yield parity.Server("valkey", found)


@pytest.fixture(scope="module")
def here(valkey):
    """Where the stage and fakeredis answer otherwise."""
    return page.here(valkey)


@pytest.fixture(scope="module")
def on_redis(valkey):
    """Where Debian's Redis does, of which the page speaks."""
    try:
        found = server.start(server.from_path(), where="path")
    except server.ServerUnfit as why:
        pytest.skip(str(why))
    with closing(found):
        if not found.name.startswith("Redis 7.0"):
            pytest.skip(f"the page speaks of Redis 7.0, and this is {found.name}")
        yield parity.compare(parity.Server("redis", found), valkey)


def check(differences, side):
    """Every difference says that it is a limit, or has a reason; and no reason is out of date."""
    assert [one for one in differences if not one.is_limit and side not in one.row.reasons] == []
    otherwise = {one.row.text for one in differences}
    assert [
        one for one in parity.table() if side in one.reasons and one.text not in otherwise
    ] == []


@pytest.mark.parametrize("side", ["stage", "fake"])
def test_a_side_answers_as_valkey_or_the_table_says_why(here, side):
    check(here[side], side)


def test_redis_of_the_path_answers_as_valkey_or_the_table_says_why(on_redis):
    check(on_redis, "redis")


def test_the_page_is_what_a_run_gives(here):
    assert page.PAGE.read_text("utf-8") == page.ours(here) + page.theirs_as_written(), "write it"


def test_the_part_of_the_page_about_redis_of_the_path_is_what_a_run_gives(on_redis):
    assert page.theirs_as_written() == page.theirs(on_redis)


# What is no command: a way to get a client, or redis-py's own.
NO_COMMAND = {"client", "close", "from_pool", "from_url", "get_encoder", "merge", "reset"}


def test_the_table_has_every_command_of_the_book():
    folders = ["content", "src/cachelab/patterns", "src/cachelab/exercises", "tests/answers"]
    text = "\n".join(
        file.read_text("utf-8") for folder in folders for file in (ROOT / folder).rglob("*.py")
    )
    classes = (redis.Redis, redis.client.Pipeline, redis.client.PubSub, redis.lock.Lock)
    methods = {name for each in classes for name in dir(each) if not name.startswith("_")}
    used = (
        set(re.findall(r"(?:cache|pipe|pipeline|client|redis|messages)\.(\w+)\(", text)) & methods
    )
    scripted = {name.lower() for name in re.findall(r"redis\.p?call\([\"'](\w+)", text)}
    known = {name.lower() for row in parity.table() for name in row.names}
    assert used - known - NO_COMMAND == set()
    assert scripted - known == set()
    assert len(parity.table()) >= 200


# A limit of ours ---------------------------------------------------------------------------------


def swallow(cache):
    """An answer that goes on without what the stage has not."""
    try:
        return cache.info()["used_memory"]
    except redis.RedisError:
        return cache.set("a", "1") and 0


@pytest.mark.parametrize(
    "actor",
    [
        swallow,
        lambda cache: cache.pipeline().object("encoding", "a").execute(raise_on_error=False),
        lambda cache: cache.eval("return redis.pcall('CONFIG', 'GET', '*').err", 0),
    ],
)
def test_what_the_stage_has_not_ends_the_run_whatever_the_actor_makes_of_it(actor):
    with pytest.raises(stage.Refused, match="is not on the stage: it needs a real server"):
        stage.run([actor, lambda cache: cache.get("a")])
    with pytest.raises(stage.Refused, match="is not on the stage"):
        stage.explore([actor, lambda cache: cache.get("a")], lambda world: True)


def test_a_look_at_what_the_stage_has_not_is_refused_and_the_world_stays_as_it_was():
    world = stage.run([lambda cache: cache.set("a", "1")]).world
    with pytest.raises(stage.Refused, match="INFO is not on the stage"):
        world.cache.info()
    assert world.cache.get("a") == "1"


def test_what_fakeredis_has_not_says_so():
    with pytest.raises(exact.NotHere, match="SLOWLOG GET is not in fakeredis"):
        server.fake().client().slowlog_get()


def test_a_script_that_sets_a_global_leaves_the_next_one_as_it_was():
    cache = server.fake().client()
    with pytest.raises(redis.ResponseError, match="readonly table"):
        cache.eval("forgot = 1", 0)
    assert cache.eval("return 1", 0) == 1


@pytest.mark.parametrize("kind", ["plain", "staged"])
def test_a_check_says_proved_nothing_of_an_answer_that_needs_a_real_server(kind):
    def judged(answer, trial):
        if kind == "plain":
            answer(trial.world().cache)
            trial.fail("it did not use the cache")
        trial.every_order({"a": answer, "b": answer}, lambda world: "it did not use the cache")

    def answer(cache):
        with suppress(redis.RedisError):
            cache.info()

    exercise = Exercise(
        "05_x.answer", "Title", "answer", "answer(cache)", 1, ("a", "b", "c"), judged
    )
    verdict = judge(exercise, answer)
    assert verdict.outcome == "proved nothing"
    assert re.match("INFO is not .*: it needs a real server.", verdict.summary)
