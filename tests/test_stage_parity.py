"""What the stage says is what a real server and real threads do, scaled down."""

from __future__ import annotations

import json
import threading
import time

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cachelab import origin, stage
from cachelab.cache import server
from cachelab.cache.client import Cache
from cachelab.origin import Origin, User
from cachelab.record.trace import Trace


@pytest.fixture(scope="module")
def live_server():
    found = server.find()
    if not found.is_live:
        found.close()
        pytest.skip("there is no real server on this machine")
    yield found
    found.close()


class Live:
    """A cache on the real server and a database in a file, for real threads."""

    def __init__(self, live, folder, latency, capacity):
        self.trace = Trace()
        self.server = live
        self.cache = Cache(
            connection_pool=live.connection_pool(), trace=self.trace, keyspace=live.keyspace
        )
        with self.trace.off_the_record():
            self.cache.flushdb()
        path = folder / f"{time.monotonic_ns()}.sqlite"
        origin.seed_sqlite(path, origin.SMALL)
        self.db = Origin(origin.open_sqlite(path), self.trace, latency=latency, capacity=capacity)

    def run(self, actors, setup=None):
        """Each actor in a thread of its own, all at once."""
        gate, answers = threading.Barrier(len(actors)), {}
        if setup is not None:
            with self.trace.off_the_record():
                setup(self.cache, self.db)

        def play(number, actor):
            gate.wait()
            answers[number] = actor(self.cache, self.db)

        threads = [threading.Thread(target=play, args=pair) for pair in enumerate(actors)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.db.engine.dispose()
        return [answers[number] for number in range(len(actors))]


def naive(cache, db):
    found = cache.get("user:1")
    if found is None:
        found = json.dumps(db.user(1))
        cache.set("user:1", found, ex=300)
    return json.loads(found)["name"]


def hopeful_lock(cache, db):
    found = cache.get("user:1")
    if found is None and cache.set("lock", "1", nx=True, ex=5):
        found = json.dumps(db.user(1))
        cache.set("user:1", found, ex=300)
        cache.delete("lock")
    elif found is None:
        time.sleep(1.0)
        found = cache.get("user:1") or json.dumps(db.user(1))
    return json.loads(found)["name"]


def redis_lock(cache, db):
    found = cache.get("user:1")
    if found is None:
        with cache.lock("lock", timeout=30):
            found = cache.get("user:1")
            if found is None:
                found = json.dumps(db.user(1))
                cache.set("user:1", found, ex=300)
    return json.loads(found)["name"]


def count_in_sql(cache, db):
    with db.engine.begin() as connection:
        connection.execute(sa.update(User).where(User.id == 1).values(version=User.version + 1))
    return "Alice"


def count_in_cache(cache, db):
    def add(pipe):
        value = int(pipe.get("n") or 0)
        pipe.multi()
        pipe.set("n", value + 1)

    cache.transaction(add, "n")
    return "Alice"


def in_a_thread(cache, db):
    box = []
    thread = threading.Thread(target=lambda: box.append(db.user(1)["name"]))
    thread.start()
    thread.join()
    return box[0]


def by_message(cache, db):
    if cache.set("lock", "1", nx=True, ex=30):
        name = db.user(1)["name"]
        cache.rpush("name", *[name] * 40)
        return name
    return cache.blpop(["name"], timeout=20)[1]


@pytest.mark.parametrize(
    ("actor", "latency", "capacity", "queries"),
    [
        (naive, 0.6, None, 30),
        (hopeful_lock, 0.4, None, 1),
        (hopeful_lock, 2.0, None, 30),
        (redis_lock, 0.3, None, 1),
        (count_in_sql, 0.0, None, 0),
        (count_in_cache, 0.0, None, 0),
        (in_a_thread, 0.05, 10, 30),
        (by_message, 0.2, None, 1),
    ],
)
def test_a_scenario_has_the_same_counts_on_the_stage_and_live(
    live_server, tmp_path, actor, latency, capacity, queries
):
    staged = stage.run([actor] * 30, latency=latency, capacity=capacity)
    live = Live(live_server, tmp_path, latency, capacity)
    answers = live.run([actor] * 30)
    assert list(staged.answers.values()) == answers == ["Alice"] * 30
    assert staged.queries == live.trace.queries == queries
    assert staged.fills == live.trace.fills
    assert staged.writes == live.trace.writes
    if actor is count_in_sql:
        world = staged.world
        assert world.db.user(1)["version"] == live.db.user(1)["version"] == 31
    if actor is count_in_cache:
        assert staged.world.cache.get("n") == live.cache.get("n") == "30"


# One actor: the same as without a stage ------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.one_of(st.integers(-5, 5), st.text("xyé\n ", max_size=4))
SECONDS = st.integers(1, 50)
MILLISECONDS = SECONDS.map(lambda seconds: seconds * 1000)
COMMANDS = st.one_of(
    st.tuples(st.just("SET"), KEYS, VALUES),
    st.tuples(st.just("SET"), KEYS, VALUES, st.just("EX"), SECONDS),
    st.tuples(st.just("SET"), KEYS, VALUES, st.just("PX"), MILLISECONDS),
    st.tuples(st.just("SET"), KEYS, VALUES, st.just("NX"), st.just("EX"), SECONDS),
    st.tuples(st.just("SET"), KEYS, VALUES, st.just("XX"), st.just("KEEPTTL")),
    st.tuples(st.just("SETEX"), KEYS, SECONDS, VALUES),
    st.tuples(st.sampled_from(["GET", "TTL", "EXISTS", "TYPE", "PERSIST", "GETDEL", "INCR"]), KEYS),
    st.tuples(st.sampled_from(["EXPIRE", "INCRBY"]), KEYS, SECONDS),
    st.tuples(st.just("PEXPIRE"), KEYS, MILLISECONDS | st.just(-5)),
    st.tuples(st.just("GETEX"), KEYS, st.just("EX"), SECONDS),
    st.tuples(st.sampled_from(["DEL", "UNLINK"]), KEYS, KEYS),
    st.tuples(st.just("APPEND"), KEYS, VALUES),
    st.tuples(st.just("RENAME"), KEYS, KEYS),
    st.tuples(st.sampled_from(["RPUSH", "LPUSH", "SADD"]), KEYS, VALUES),
    st.tuples(st.sampled_from(["LPOP", "LLEN", "SCARD", "SMEMBERS", "HGETALL"]), KEYS),
    st.tuples(st.just("HSET"), KEYS, st.just("f"), VALUES),
    st.tuples(st.just("ZADD"), KEYS, st.integers(0, 5), VALUES),
    st.tuples(st.just("ZRANGE"), KEYS, st.just(0), st.just(-1)),
    st.tuples(st.just("MGET"), KEYS, KEYS),
    st.tuples(st.just("sleep"), st.integers(0, 40).map(lambda seconds: seconds * 1000 + 250)),
)


def obey(cache, program, rest):
    """What every command of a program answers, errors included."""
    seen = []
    for name, *arguments in program:
        if name == "sleep":
            rest(arguments[0] / 1000)
            continue
        try:
            seen.append(cache.execute_command(name, *arguments))
        except Exception as error:
            seen.append(type(error).__name__)
    seen.append(sorted(cache.keys()))
    seen += [cache.ttl(key) for key in "abc"]
    return seen


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(COMMANDS.filter(lambda c: c[0] not in ("sleep", "TTL")), max_size=25))
def test_one_actor_gets_the_same_answers_as_without_the_stage(program):
    fake = server.fake()
    plain = Cache(connection_pool=fake.connection_pool(), trace=Trace(), keyspace=fake.keyspace)
    with_stage = stage.run({"a": lambda cache, db: obey(cache, program, time.sleep)})
    expected = obey(plain, program, lambda seconds: None)
    assert with_stage.answers["a"][:-3] == expected[:-3]
    for staged, fresh in zip(with_stage.answers["a"][-3:], expected[-3:], strict=True):
        assert abs(staged - fresh) <= 1


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(COMMANDS, max_size=25))
def test_time_to_live_is_what_a_real_server_makes_of_it(live_server, program):
    trace = Trace()
    cache = Cache(
        connection_pool=live_server.connection_pool(), trace=trace, keyspace=live_server.keyspace
    )
    # Up to three sleeps of so many whole seconds and a quarter: nothing is asked for within a
    # quarter of a second of its expiry, which is what the live clock may be ahead.
    assume([name for name, *_ in program].count("sleep") <= 3)
    cache.flushdb()
    began = time.monotonic()
    live = obey(cache, program, live_server.age)
    assume(time.monotonic() - began < 0.2)
    staged = stage.run({"a": lambda cache, db: obey(cache, program, time.sleep)}).answers["a"]
    assert len(staged) == len(live)
    for ours, theirs in zip(staged, live, strict=True):
        if isinstance(ours, int) and isinstance(theirs, int) and ours >= 0:
            assert abs(ours - theirs) <= 1  # the live clock has moved a little meanwhile
        else:
            assert ours == theirs
