"""Every client of the cache is on the stage, whoever made it: a step, recorded, hit by faults."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time

import pytest
import redis
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_stage_footprints import both_ends, both_searches, one_truth, twice

from cachelab import stage


def given_client(cache):
    return cache


def same_pool(cache):
    return redis.Redis(connection_pool=cache.connection_pool)


def one_connection(cache):
    return cache.client()


def in_bytes(cache):
    """As libraries want it that store what they have pickled."""
    pool = cache.connection_pool
    options = {**pool.connection_kwargs, "decode_responses": False}
    return redis.Redis(
        connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **options)
    )


def same_class(cache):
    return type(cache)(connection_pool=cache.connection_pool, trace=cache.trace)


CLIENTS = [given_client, same_pool, one_connection, in_bytes, same_class]
every_client = pytest.mark.parametrize("client", CLIENTS)


def counts_to_two(world):
    return int(world.cache.get("n")) == 2 or f"two bumps, and n is {world.cache.get('n')}"


@every_client
def test_a_lost_update_is_found_with_single_commands(client):
    def bump(cache, db):
        mine = client(cache)
        n = int(mine.get("n") or 0)
        mine.set("n", n + 1)
        return n

    found = both_searches({"a": bump, "b": bump}, counts_to_two)
    assert (found.outcome, found.failing, found.orders) == ("failed", 4, 6)


@every_client
@pytest.mark.parametrize("transaction", [True, False])
def test_a_lost_update_is_found_with_pipelines(client, transaction):
    def bump(cache, db):
        mine = client(cache)
        with mine.pipeline(transaction) as pipe:
            n = int(pipe.get("n").execute()[0] or 0)
        with mine.pipeline(transaction) as pipe:
            pipe.set("n", n + 1).execute()
        return n

    found = both_searches({"a": bump, "b": bump}, counts_to_two)
    assert (found.outcome, found.failing, found.orders) == ("failed", 4, 6)


@every_client
@pytest.mark.parametrize(("transaction", "orders"), [(True, 2), (False, 4)])
def test_without_multi_each_command_of_a_pipeline_is_a_step(client, transaction, orders):
    def sets(cache, db):
        with client(cache).pipeline(transaction) as pipe:
            return pipe.set("a", 1).set("b", 1).set("c", 1).execute()

    def reads(cache, db):
        return cache.mget("a", "b", "c")

    actors = {"sets": sets, "reads": reads}
    assert both_searches(actors, lambda world: None).orders == orders
    assert len(both_ends(actors, lambda world: tuple(world.answers["reads"]))) == orders


@every_client
@pytest.mark.parametrize("transaction", [True, False])
def test_a_pipeline_travels_once(client, transaction):
    def works(cache, db):
        mine = client(cache)
        mine.set("a", "1")
        with mine.pipeline(transaction) as pipe:
            return pipe.get("a").get("b").get("c").execute()

    assert stage.run({"a": works}, hop=1).elapsed == 2


@every_client
def test_its_commands_are_in_the_trace_once(client):
    def works(cache, db):
        mine = client(cache)
        mine.set("a", "1", ex=60)
        mine.get("a")
        with mine.pipeline() as pipe:
            pipe.get("b").delete("a").execute()
        with mine.pipeline(transaction=False) as pipe:
            pipe.get("c").incr("n").execute()

    events = [(e.kind, e.what, e.on) for e in stage.run({"a": works}) if e.kind != "note"]
    assert events == [
        ("fill", "SET", "a"),
        ("hit", "GET", "a"),
        ("miss", "GET", "b"),
        ("delete", "DEL", "a"),
        ("miss", "GET", "c"),
        ("command", "INCRBY", "n"),
    ]


@every_client
@pytest.mark.parametrize("pipelined", [False, True, None])
def test_faults_meet_it(client, pipelined):
    def works(cache, db):
        mine = client(cache)
        if pipelined is None:
            return mine.set("a", "1")
        with mine.pipeline(transaction=pipelined) as pipe:
            return pipe.set("a", "1").get("a").execute()

    down = stage.run({"a": works}, faults=[stage.CacheDown(0, 10)])
    assert isinstance(down.answers["a"], redis.ConnectionError)
    assert "error" in {event.kind for event in down}
    slow = stage.run({"a": works}, faults=[stage.SlowCommand("SET", 3)])
    assert slow.elapsed == 3
    paused = stage.run({"a": works}, faults=[stage.Pause("a", 1, 2)])
    assert paused.elapsed == 2


@every_client
def test_a_command_of_a_transaction_that_is_sent_by_hand_touches_its_keys_at_exec(client):
    def by_hand(cache, db):
        mine = client(cache).client()
        mine.execute_command("MULTI")
        mine.execute_command("SET", "a", "new")
        mine.execute_command("SET", "b", "new")
        return mine.execute_command("EXEC")

    def one_state(world):
        return len(set(world.answers["reader"])) == 1 or f"{world.answers['reader']}"

    def setup(cache, db):
        cache.mset({"a": "old", "b": "old"})

    actors = {"reader": lambda cache, db: cache.mget("a", "b"), "writer": by_hand}
    found = both_searches(actors, one_state, setup=setup)
    assert found.outcome == "passed"
    seen = both_ends(actors, lambda world: tuple(world.answers["reader"]), setup=setup)
    assert seen == {("old", "old"), ("new", "new")}


@every_client
def test_exec_depends_on_what_was_watched_too(client):
    def guarded(cache, db):
        with client(cache).pipeline() as pipe:
            try:
                pipe.watch("guard")
                pipe.multi()
                return pipe.set("b", "1").execute()
            except redis.WatchError:
                return "somebody else"

    seen = both_ends(
        {"guarded": guarded, "other": lambda cache, db: cache.set("guard", "x")},
        lambda world: str(world.answers["guarded"]),
    )
    assert seen == {"[True]", "somebody else"}


@pytest.mark.parametrize("client", [given_client, same_pool])
def test_a_client_of_text_says_what_a_library_of_bytes_wants(client):
    def stores_bytes(cache, db):
        client(cache).set("a", b"\x80")
        return client(cache).get("a")

    error = stage.run({"a": stores_bytes}).answers["a"]
    assert isinstance(error, UnicodeDecodeError)
    assert "'decode_responses': False" in str(error)
    assert str(error).count("this client gives text") == 1


# Scripts -------------------------------------------------------------------------------------

KEY_IN_ARGV = "return redis.call('get', ARGV[1])"
KEY_THAT_IS_BUILT = "return redis.call('get', KEYS[1] .. ':tail')"
KEY_FROM_A_VALUE = "return redis.call('get', redis.call('get', KEYS[1]))"
ANY_KEY = "local all = redis.call('keys', '*') return #all"
ALIASED = "local call = redis.call return call('get', ARGV[1])"


def script(text, *of):
    return lambda cache, db: cache.eval(text, *of)


def piped(cache, db):
    with cache.pipeline() as pipe:
        return pipe.eval(KEY_IN_ARGV, 0, "a:tail").execute()


def registered(cache, db):
    return cache.register_script(KEY_IN_ARGV)(args=["a:tail"])


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(script(KEY_IN_ARGV, 0, "a:tail"), id="its key in ARGV"),
        pytest.param(script(KEY_THAT_IS_BUILT, 1, "a"), id="its key built"),
        pytest.param(script(KEY_FROM_A_VALUE, 1, "name"), id="its key read from another"),
        pytest.param(script(ANY_KEY, 0), id="all keys"),
        pytest.param(script(ALIASED, 0, "a:tail"), id="redis.call by another name"),
        pytest.param(piped, id="in a transaction"),
        pytest.param(registered, id="by its hash"),
    ],
)
def test_the_search_sees_what_a_script_touches(read):
    def setup(cache, db):
        cache.set("name", "a:tail")
        cache.set("other", "old")
        cache.script_load(KEY_IN_ARGV)

    def writer(cache, db):
        return cache.set("a:tail", "new")

    actors = {"reader": twice(read), "writer": writer}
    found = both_searches(actors, one_truth, setup=setup)
    assert (found.outcome, found.failing) == ("failed", 1), found


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        # What a script touches is known to the key, and not "all of the cache",
        ("ARGV[1]", ("proved nothing", 1, 3)),
        # but a key that it has put together might be any in another order.
        ("KEYS[1] .. ARGV[1]", ("passed", 3, 3)),
    ],
)
def test_scripts_meet_where_their_keys_may_be_the_same(key, seen):
    def other(cache, db):
        return cache.eval(f"return redis.call('set', {key}, 'x')", 1, "b", "c")

    actors = {"reader": twice(script(KEY_IN_ARGV, 0, "a")), "writer": other}
    found = stage.explore(actors, one_truth)
    assert (found.outcome, found.schedules, found.orders) == seen


def test_what_a_script_does_may_depend_on_what_it_reads():
    moves = "if redis.call('get', KEYS[1]) then return redis.call('incr', 'n') end return 0"

    def mover(cache, db):
        return cache.eval(moves, 1, "on")

    def switch(cache, db):
        cache.set("on", "1")
        return cache.get("n")

    assert len(both_ends({"mover": mover, "switch": switch}, lambda w: str(w.answers))) == 3


def test_whether_a_script_is_known_is_part_of_the_state():
    def by_hash(cache, db):
        try:
            return cache.evalsha("e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0)  # return 1
        except redis.exceptions.NoScriptError:
            return "unknown"

    for load in (
        lambda cache, db: cache.script_load("return 1"),
        lambda cache, db: cache.eval("return 1", 0),
    ):
        seen = both_ends({"by_hash": by_hash, "load": load}, lambda w: w.answers["by_hash"])
        assert seen == {1, "unknown"}


# Messages ------------------------------------------------------------------------------------


@every_client
def test_somebody_may_publish_between_the_subscription_and_the_look(client):
    def listens(cache, db):
        with client(cache).pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe("news")
            pubsub.get_message()  # the answer to the subscription
            return [pubsub.get_message() is not None for _ in range(2)]

    seen = both_ends(
        {"listens": listens, "speaks": lambda cache, db: client(cache).publish("news", "x")},
        lambda world: (tuple(world.answers["listens"]), world.answers["speaks"]),
    )
    assert seen == {((False, False), 0), ((True, False), 1), ((False, True), 1)}


@every_client
@pytest.mark.parametrize("sleep_time", [0.0, 0.5, 60])
def test_a_subscriber_that_runs_in_a_thread_of_redis_py_hears(client, sleep_time):
    def drops(cache, db):
        pubsub = client(cache).pubsub()
        pubsub.subscribe(news=lambda message: cache.delete("copy"))
        thread = pubsub.run_in_thread(sleep_time=sleep_time)
        while cache.get("copy") is not None:
            time.sleep(1)
        thread.stop()
        thread.join()
        return "dropped"

    def speaks(cache, db):
        time.sleep(2)
        return cache.publish("news", "x")

    def setup(cache, db):
        cache.set("copy", "old")

    run = stage.run({"drops": drops, "speaks": speaks}, setup=setup)
    assert run.answers == {"drops": "dropped", "speaks": 1}
    assert run.elapsed <= 2 + max(1, sleep_time) + 1


def test_a_subscriber_in_a_thread_that_nobody_stops_ends_with_the_others():
    def starts(cache, db):
        pubsub = cache.pubsub()
        pubsub.subscribe(news=lambda message: None)
        pubsub.run_in_thread()
        return cache.get("a") or "started"

    assert stage.run({"starts": starts}).answers == {"starts": "started"}
    found = stage.explore(
        {"starts": starts, "other": lambda c, d: c.set("a", "1")}, lambda world: None
    )
    assert found.outcome == "passed"


@every_client
def test_a_message_is_lost_whoever_publishes_it(client):
    def speaks(cache, db):
        mine = client(cache)
        with cache.pubsub() as pubsub:
            pubsub.subscribe("news")
            got = [mine.publish("news", "1"), mine.publish("news", "2")]
            with mine.pipeline() as pipe:
                got += pipe.publish("news", "3").execute()
            return [*got, mine.eval("return redis.call('publish', 'news', '4')", 0)]

    lost = stage.run({"a": speaks}, faults=[stage.DropMessage("news", n) for n in (1, 3, 4)])
    assert lost.answers["a"] == [0, 1, 0, 0]


def test_writes_meet_a_subscriber_of_the_keyspace_only_where_it_was_asked_for():
    def listens(cache, db):
        with cache.pubsub() as pubsub:
            pubsub.subscribe("__keyevent@0__:set")
            pubsub.get_message()
            return pubsub.get_message(timeout=1) is not None

    def asks(cache, db):
        cache.config_set("notify-keyspace-events", "KEA")

    actors = {"listens": listens, "writes": lambda cache, db: cache.set("a", "1")}
    for setup, ends in ((None, {False}), (asks, {False, True})):
        assert both_ends(actors, lambda w: w.answers["listens"], setup=setup) == ends


# Generated -----------------------------------------------------------------------------------

SCRIPTS = {
    "read": "return redis.call('get', ARGV[1])",
    "add": "return redis.call('append', KEYS[1] .. '', ARGV[1])",
    "if": "if redis.call('get', KEYS[1]) then redis.call('append', ARGV[1], 'i') end",
    "keys": "return #redis.call('keys', '*')",
}
KEY = st.sampled_from("ab")
OPERATION = st.one_of(
    st.tuples(st.just("get"), st.integers(0, 4), KEY, KEY),
    st.tuples(st.just("append"), st.integers(0, 4), KEY, KEY),
    st.tuples(st.just("transaction"), st.integers(0, 4), KEY, KEY),
    st.tuples(st.just("pipeline"), st.integers(0, 4), KEY, KEY),
    st.tuples(st.just("watch"), st.integers(0, 4), KEY, KEY),
    st.tuples(st.just("message"), st.integers(0, 4), KEY, KEY),
    st.tuples(st.sampled_from(list(SCRIPTS)), st.integers(0, 4), KEY, KEY),
    st.tuples(st.just("thread"), st.integers(0, 4), KEY, KEY),
)
MOST = 300  # orders; a program with more is passed over


def act(cache, name, seen, what, number, one, other):
    mine = CLIENTS[number](cache)
    if what == "get":
        seen.append(str(mine.get(one)))
    elif what == "append":
        mine.append(one, name)
    elif what in {"transaction", "pipeline"}:
        with mine.pipeline(transaction=what == "transaction") as pipe:
            seen.append(str(pipe.get(one).append(other, name).execute()))
    elif what == "watch":
        with mine.pipeline() as pipe:
            try:
                pipe.watch(one)
                pipe.multi()
                pipe.append(other, name).execute()
            except redis.WatchError:
                seen.append("watched")
    elif what == "message":
        seen.append(mine.publish(one, name))
        with mine.pubsub() as pubsub:
            pubsub.subscribe(one)
            pubsub.get_message()
            seen.append(str(pubsub.get_message()))
    elif what == "thread":
        thread = threading.Thread(target=mine.append, args=(one, f"{name}t"))
        thread.start()
        seen.append(str(mine.get(other)))
        thread.join()
    else:
        seen.append(str(mine.eval(SCRIPTS[what], 1, one, other)))


def ends_of(programs, prune):
    ends = set()

    def actor(name, program):
        def play(cache, db):
            seen = []
            for operation in program:
                act(cache, name, seen, *operation)
            return seen

        return play

    def look(world):
        ends.add(repr((world.cache.mget("a", "b"), sorted(world.answers.items()))))

    actors = {name: actor(name, p) for name, p in zip("xyz", programs, strict=False)}
    verdict = stage.explore(
        actors, look, prune=prune, limit=MOST, allow_errors=True, wall_limit=600
    )
    return ends, verdict


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(OPERATION, min_size=1, max_size=2), min_size=2, max_size=3))
@pytest.mark.slow
def test_clients_reach_the_same_ends_in_the_pruned_search_as_in_the_full_one(programs):
    full, all_of_them = ends_of(programs, False)
    if not all_of_them.exhaustive:
        return
    pruned, verdict = ends_of(programs, True)
    assert pruned == full
    assert verdict.orders == all_of_them.schedules


# What is not on the stage --------------------------------------------------------------------


def sqlite_before(tmp_path):
    return sqlite3.connect(tmp_path / "own.db", check_same_thread=False)


def own_engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'own.db'}")
    with engine.begin() as connection:  # its pool keeps what was opened here
        connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
    return engine


def through_an_engine(engine):
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")


def imports_a_driver(_):
    sys.modules.pop("psycopg", None)
    import psycopg  # noqa: F401


DATABASE = "A database of your own is not on the stage: use the `db`"
FILE = "A file that is written is not on the stage"
NETWORK = "A network connection cannot be used"


def a_lock_file(tmp_path):
    lock = pytest.importorskip("fcntl")
    made = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    return lambda: lock.flock(made, lock.LOCK_EX)


@pytest.mark.parametrize(
    ("make", "use", "said"),
    [
        (lambda path: path, lambda path: sqlite3.connect(path / "own.db"), DATABASE),
        (sqlite_before, lambda made: made.execute("SELECT 1"), DATABASE),
        (sqlite_before, lambda made: made.cursor(), DATABASE),
        (lambda path: sqlite_before(path).cursor(), lambda m: m.execute("SELECT 1"), DATABASE),
        (own_engine, through_an_engine, DATABASE),
        (lambda p: own_engine(p).connect(), lambda m: m.execute(sa.text("SELECT 1")), DATABASE),
        (lambda path: sa.create_engine(f"sqlite:///{path}/x"), lambda m: m.connect(), DATABASE),
        (lambda path: None, imports_a_driver, DATABASE),
        (lambda path: pytest.importorskip("psycopg"), lambda m: m.connect("host=/no"), DATABASE),
        (lambda path: path / "state", lambda path: path.write_text("1"), FILE),
        (lambda path: path / "state", lambda path: open(path, "a"), FILE),  # noqa: SIM115
        (lambda path: path / "lock", lambda path: os.mkdir(path), FILE),
        (lambda path: path / "lock", lambda path: os.open(path, os.O_CREAT | os.O_EXCL), FILE),
        (a_lock_file, lambda lock: lock(), FILE),
        (lambda path: redis.Redis(port=1), lambda made: made.get("a"), NETWORK),
        (
            lambda path: redis.Redis(port=1),
            lambda made: made.pipeline().get("a").execute(),
            NETWORK,
        ),
    ],
)
@pytest.mark.parametrize("where", ["an actor", "a thread", "a try"])
def test_what_is_not_on_the_stage_is_refused_wherever_it_is_used(make, use, said, where, tmp_path):
    made = make(tmp_path)

    def refused(cache, db):
        cache.incr("n")
        if where == "a thread":
            thread = threading.Thread(target=use, args=(made,))
            thread.start()
            thread.join()
        elif where == "a try":
            try:
                use(made)
            except BaseException:
                return "as if nothing had been"
        else:
            use(made)
        return cache.get("n")

    actors = {"refused": refused, "other": lambda cache, db: cache.incr("n")}
    modules = dict(sys.modules)
    for play in (
        lambda: stage.run(actors),
        lambda: stage.explore(actors, lambda world: None),
    ):
        with pytest.raises(stage.Refused, match=said):
            play()
    sys.modules.update({k: v for k, v in modules.items() if k.partition(".")[0] == "psycopg"})


def test_outside_of_actors_all_that_works_as_ever(tmp_path):
    engine, before = own_engine(tmp_path), sqlite_before(tmp_path)

    def looks(world):
        (tmp_path / "seen").write_text(str(world.cache.get("n")))
        through_an_engine(engine)
        assert (tmp_path / "seen").read_text()

    def reads(cache, db):
        return (tmp_path / "text").read_text(), cache.incr("n")

    (tmp_path / "text").write_text("a file that is only read is no state")
    verdict = stage.explore({"a": reads, "b": reads}, looks)
    assert verdict.outcome == "passed"
    assert before.execute("SELECT count(*) FROM t").fetchone() == (verdict.schedules,)
    assert sqlite3.connect(":memory:").execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("transaction", [True, False])
def test_a_pipeline_is_one_trip_over_the_network_however_many_steps_it_is(transaction):
    def actor(cache, db):
        pipe = cache.pipeline(transaction=transaction)
        for number in range(5):
            pipe.get(f"k{number}")
        pipe.execute()

    assert stage.run([actor], hop=1.0).seconds == 1.0
