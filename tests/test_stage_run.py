"""What a run on the stage does: golden figures, virtual time, and the code that learners write."""

from __future__ import annotations

import calendar
import datetime
import json
import queue
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from datetime import datetime as moment
from time import monotonic, sleep

import pytest
import redis
import sqlalchemy as sa
from actors import reader as read_user
from sqlalchemy.orm import Session

from cachelab import stage
from cachelab.origin import User
from cachelab.process.patience import Patience

GLOBAL_LOCK = threading.Lock()
GLOBAL_QUEUE: queue.Queue[str] = queue.Queue()
GLOBAL_POOL = ThreadPoolExecutor(2)


def read_user_with_a_hopeful_lock(cache, db):
    """One fills under a lock of 5 s; the others wait 100 ms once and then help themselves."""
    found = cache.get("user:1")
    if found is not None:
        return found
    if cache.set("lock:user:1", "1", nx=True, ex=5):
        try:
            row = json.dumps(db.user(1))
            cache.set("user:1", row, ex=300)
            return row
        finally:
            cache.delete("lock:user:1")
    time.sleep(0.1)
    found = cache.get("user:1")
    return found if found is not None else json.dumps(db.user(1))


# Golden figures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spread", "capacity", "queries", "seconds"),
    [(0.0, 1, 800, 8.0), (0.2, 1, 41, 0.41), (0.0, 10, 800, 0.8)],
)
def test_800_readers_of_a_10_ms_query_make_the_queue_that_the_formula_says(
    spread, capacity, queries, seconds
):
    trace = stage.run([read_user] * 800, latency=0.01, capacity=capacity, spread=spread)
    assert trace.queries == queries
    assert trace.elapsed == pytest.approx(seconds)
    assert all(answer["name"] == "Alice" for answer in trace.answers.values())
    assert len(trace.answers) == 800


@pytest.mark.parametrize(
    ("latency", "queries"), [(0.05, 1), (0.09, 1), (0.11, 40), (0.25, 600), (1.0, 800)]
)
def test_a_lock_that_waits_100_ms_once_protects_only_a_query_faster_than_that(latency, queries):
    trace = stage.run([read_user_with_a_hopeful_lock] * 800, latency=latency, spread=0.2)
    assert trace.queries == pytest.approx(queries, rel=0.01)


# Time ----------------------------------------------------------------------------------------


def test_every_clock_that_python_has_follows_the_virtual_one():
    def look():
        return (
            time.time(),
            time.monotonic(),
            time.perf_counter(),
            time.time_ns() / 1e9,
            monotonic(),
            datetime.datetime.now(datetime.UTC).timestamp(),
            moment.now().timestamp(),
        )

    def actor():
        before = look()
        sleep(3600)
        return [b - a for a, b in zip(before, look(), strict=True)]

    trace = stage.run({"sleeper": actor})
    assert trace.answers["sleeper"] == pytest.approx([3600.0] * 7)
    assert trace.elapsed == 3600
    assert [event.kind for event in trace] == ["sleep"]


def test_dates_keep_their_types_on_the_stage():
    def actor():
        now, today = moment.now(), datetime.date.today()
        return (
            isinstance(now, datetime.datetime),
            isinstance(now, datetime.date),
            isinstance("x", datetime.datetime),
            now.date() == today,
            (moment(2030, 1, 2) - datetime.timedelta(days=1)).isoformat(),
            datetime.datetime.fromisoformat("2026-02-03").day,
            type(now),
        )

    answer = stage.run({"a": actor}).answers["a"]
    assert answer == (True, True, False, True, "2030-01-01T00:00:00", 3, datetime.datetime)


def test_a_ttl_follows_the_virtual_clock():
    def actor(cache, db):
        cache.set("a", "1", ex=60)
        cache.set("b", "2", px=1500)
        seen = [cache.ttl("a"), cache.pttl("b")]
        time.sleep(1.5)
        seen.append(cache.get("b"))
        time.sleep(0.001)
        seen += [cache.get("b"), cache.ttl("a"), cache.exists("a")]
        time.sleep(59)
        return [*seen, cache.get("a")]

    # At the very millisecond of its expiry a server still answers; one later it does not.
    assert stage.run({"a": actor}).answers["a"] == [60, 1500, "2", None, 58, 1, None]


def test_sql_knows_the_virtual_time_too():
    def actor(cache, db):
        asked = "SELECT unixepoch('now'), unixepoch(CURRENT_TIMESTAMP), strftime('%s', 'now')"
        with db.engine.connect() as connection:
            first = connection.exec_driver_sql(asked).one()
            time.sleep(100)
            then = connection.exec_driver_sql(asked).one()
        return [int(b) - int(a) for a, b in zip(first, then, strict=True)], first[0] - time.time()

    assert stage.run({"a": actor}).answers["a"] == ([100, 100, 100], -100.0)


def test_an_actor_starts_when_it_is_told_and_the_others_arrive_evenly():
    def when():
        return time.monotonic()

    trace = stage.run([(5, when), when, when], spread=3)
    starts = [round(value - 1024, 6) for value in trace.answers.values()]
    assert starts == [5, 1, 2]


def test_waiting_takes_no_real_time():
    limit = Patience(5)
    trace = stage.run([lambda: time.sleep(86_400)] * 5)
    assert trace.elapsed == 86_400
    assert limit.left() > 0


# What learners write -------------------------------------------------------------------------


def test_threads_that_an_actor_starts_are_actors():
    def actor(cache, db):
        def refresh():
            time.sleep(2)
            cache.set("k", "new")

        worker = threading.Thread(target=refresh, daemon=True)
        worker.start()
        before = (cache.get("k"), worker.is_alive())
        worker.join()
        return before, cache.get("k"), worker.is_alive()

    trace = stage.run({"web": actor})
    assert trace.answers["web"] == ((None, True), "new", False)
    assert trace.actors == ["web", "web/thread-1"]


def test_work_in_flight_is_finished_and_a_background_loop_is_ended():
    def actor(cache, db):
        def refresh():
            cache.set("user:1", json.dumps(db.user(1)))

        def heartbeat():
            while True:
                cache.incr("beats")
                time.sleep(1)

        threading.Thread(target=refresh, daemon=True).start()
        threading.Thread(target=heartbeat, daemon=True).start()
        time.sleep(3.5)
        return "served"

    trace = stage.run({"web": actor}, latency=8)
    assert trace.world.cache.get("user:1") is not None
    assert int(trace.world.cache.get("beats")) < 12


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, lambda: GLOBAL_LOCK])
def test_a_lock_lets_one_in_at_a_time(make):
    lock = make()
    inside = []

    def actor():
        with lock:
            inside.append(1)
            assert len(inside) == 1
            time.sleep(1)
            inside.pop()

    trace = stage.run([stage.Actor(f"thread {n}", actor, process="pod") for n in range(5)])
    assert trace.answers == dict.fromkeys(trace.answers)
    assert trace.elapsed == 5
    assert not GLOBAL_LOCK.locked()


def test_events_conditions_semaphores_and_barriers_work():
    def actor():
        event, box = threading.Event(), []
        condition, barrier = threading.Condition(), threading.Barrier(3)
        room = threading.BoundedSemaphore(2)

        def worker(number):
            barrier.wait()
            with room:
                time.sleep(1)
            with condition:
                box.append(number)
                condition.notify_all()
            event.wait()

        workers = [threading.Thread(target=worker, args=(n,)) for n in range(3)]
        for one in workers:
            one.start()
        with condition:
            done = condition.wait_for(lambda: len(box) == 3, timeout=10)
        late = event.wait(timeout=0.5)
        event.set()
        for one in workers:
            one.join()
        timer = threading.Timer(7, box.append, ["timer"])
        timer.start()
        timer.join()
        return done, late, sorted(map(str, box)), time.monotonic() - 1024

    assert stage.run({"a": actor}).answers["a"] == (True, False, ["0", "1", "2", "timer"], 9.5)


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.SimpleQueue])
def test_queues_hand_over(kind):
    def actor():
        line = kind()

        def producer():
            for number in range(3):
                time.sleep(1)
                line.put(number)

        threading.Thread(target=producer).start()
        got = [line.get() for _ in range(3)]
        with pytest.raises(queue.Empty):
            line.get(timeout=5)
        return got, time.monotonic() - 1024

    assert stage.run({"a": actor}).answers["a"] == ([0, 1, 2], 8.0)


def test_a_queue_made_before_the_run_works_and_is_left_alone():
    def producer():
        time.sleep(1)
        GLOBAL_QUEUE.put("hello")

    plays = {"producer": producer, "consumer": GLOBAL_QUEUE_get}
    trace = stage.run([stage.Actor(name, play, process="pod") for name, play in plays.items()])
    assert trace.answers["consumer"] == "hello"
    assert GLOBAL_QUEUE.empty()
    GLOBAL_QUEUE.put("after")
    assert GLOBAL_QUEUE.get(timeout=1) == "after"


def GLOBAL_QUEUE_get():
    return GLOBAL_QUEUE.get()


@pytest.mark.parametrize("own", [True, False])
def test_pools_of_threads_work(own):
    pool = None if own else GLOBAL_POOL

    def slow(number):
        time.sleep(number)
        return number

    def actor():
        def work(workers):
            futures = [workers.submit(slow, n) for n in (3, 1, 2)]
            first = next(as_completed(futures)).result()
            wait(futures)
            return first, list(workers.map(slow, (1, 2))), time.monotonic() - 1024

        if pool is not None:
            return work(pool)
        with ThreadPoolExecutor(max_workers=2) as workers:
            return work(workers)

    assert stage.run({"a": actor}).answers["a"] == (1, [1, 2], 5.0)
    assert GLOBAL_POOL.submit(lambda: 42).result(timeout=5) == 42


def test_thread_locals_are_each_actors_own():
    local = threading.local()

    def actor():
        assert not hasattr(local, "who")
        local.who = threading.current_thread().name
        time.sleep(1)
        return local.who

    assert stage.run({"a": actor, "b": actor}).answers == {"a": "a", "b": "b"}


def test_chance_is_drawn_from_the_seed():
    def actor():
        return random.random(), uuid.uuid4().hex, uuid.uuid1().hex

    state = random.getstate()
    one, two, other = (stage.run([actor], seed=seed).answers for seed in (1, 1, 2))
    assert one == two
    assert one != other
    assert random.getstate() == state


def test_pipelines_and_watched_transactions_work():
    def add(cache, db):
        def change(pipe):
            value = int(pipe.get("n") or 0)
            time.sleep(0.1)
            pipe.multi()
            pipe.set("n", value + 1)

        cache.transaction(change, "n")
        with cache.pipeline() as pipe:
            return pipe.incr("m").get("n").execute()[0]

    trace = stage.run([add] * 6)
    assert trace.world.cache.mget("n", "m") == ["6", "6"]
    assert sorted(trace.answers.values()) == [1, 2, 3, 4, 5, 6]


def test_lua_scripts_see_the_virtual_time():
    def actor(cache, db):
        script = cache.register_script(
            "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('TIME')"
        )
        first = script(keys=["k"], args=["v"])
        time.sleep(10)
        then = script(keys=["k"], args=["w"])
        return cache.get("k"), int(then[0]) - int(first[0])

    assert stage.run({"a": actor}).answers["a"] == ("w", 10)


def test_redis_py_locks_wait_on_the_virtual_clock_and_expire():
    def actor(cache, db):
        lock = cache.lock("l", timeout=5, blocking_timeout=60)
        assert lock.acquire()
        time.sleep(8)
        try:
            lock.release()
        except redis.exceptions.LockNotOwnedError:
            return "lost it"
        return "released"

    trace = stage.run({"a": actor, "b": actor})
    assert trace.answers == {"a": "lost it", "b": "lost it"}
    assert 13 <= trace.elapsed < 13.2


def test_pub_sub_and_blocking_reads_wait_on_the_stage():
    def subscriber(cache, db):
        heard = cache.pubsub(ignore_subscribe_messages=True)
        heard.subscribe("news")
        got = []
        while len(got) < 2:
            message = heard.get_message(timeout=5)
            if message:
                got.append((message["data"], time.monotonic() - 1024))
        return got

    def publisher(cache, db):
        time.sleep(1)
        cache.publish("news", "one")
        time.sleep(7)
        cache.publish("news", "two")
        cache.rpush("list", "item")
        cache.xadd("stream", {"a": "1"}, id="1-1")

    def popper(cache, db):
        early = cache.blpop("list", timeout=2)
        return early, cache.blpop("list", timeout=60), time.monotonic() - 1024

    def streamer(cache, db):
        return cache.xread({"stream": "$"}, block=60_000)

    trace = stage.run([subscriber, publisher, popper, streamer])
    assert trace.answers["subscriber"] == [("one", 1.0), ("two", 8.0)]
    early, got, at = trace.answers["popper"]
    assert (early, list(got), at) == (None, ["list", "item"], 8.0)
    assert "1-1" in str(trace.answers["streamer"])


# Transactions --------------------------------------------------------------------------------


def email(db):
    return db.user(1)["email"]


def test_another_actor_sees_the_old_row_until_the_commit():
    def writer(cache, db):
        with db.session() as session:
            session.get(User, 1).email = "new@example.org"
            session.flush()
            mine = session.execute(sa.select(User.email).where(User.id == 1)).scalar()
            time.sleep(2)
            session.commit()
        return mine

    def reader(cache, db):
        time.sleep(1)
        before = email(db)
        time.sleep(2)
        return before, email(db)

    trace = stage.run([writer, reader])
    assert trace.answers["writer"] == "new@example.org"
    assert trace.answers["reader"] == ("alice@example.org", "new@example.org")
    assert trace.world.db.user(1)["email"] == "new@example.org"


def test_a_writer_waits_for_another_writers_commit():
    def writer(cache, db):
        with db.engine.begin() as connection:
            connection.execute(sa.text("UPDATE users SET version = version + 1 WHERE id = 1"))
            time.sleep(3)
            return time.monotonic() - 1024

    trace = stage.run([writer] * 3)
    assert list(trace.answers.values()) == [3, 6, 9]
    assert trace.world.db.user(1)["version"] == 4
    assert [event.took for event in trace.of("wait")] == [3, 6]


def test_rollbacks_savepoints_returning_and_errors_do_what_sqlite_does():
    def actor(cache, db):
        with Session(db.engine) as session:
            session.add(User(id=900, name="N", email="n", bio="", role="customer", version=1))
            session.flush()
            nested = session.begin_nested()
            session.execute(sa.update(User).where(User.id == 900).values(name="inner"))
            nested.rollback()
            name = session.execute(sa.select(User.name).where(User.id == 900)).scalar()
            session.commit()
        with db.engine.connect() as connection:
            connection.execute(sa.delete(User).where(User.id == 2))
            connection.rollback()
            changed = connection.execute(
                sa.update(User).where(User.id < 3).values(version=7).returning(User.id)
            ).all()
            connection.commit()
        try:
            with db.engine.begin() as connection:
                connection.execute(sa.text("INSERT INTO users (id) VALUES (1)"))
        except sa.exc.IntegrityError:
            refused = True
        return name, sorted(row[0] for row in changed), db.user(2)["version"], refused

    assert stage.run({"a": actor}).answers["a"] == ("N", [1, 2], 7, True)


def test_what_sql_drew_at_random_is_the_same_for_everybody_for_ever():
    def actor(cache, db):
        with db.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE users SET bio = random() WHERE id < 4")
        drawn = [db.bio(n) for n in (1, 2, 3)]
        for bio in ("x", "y"):
            db.update_user(9, bio=bio)
            assert [db.bio(n) for n in (1, 2, 3)] == drawn
        return drawn

    drawn = stage.run({"a": actor}).answers["a"]
    assert isinstance(drawn, list)
    assert len(set(drawn)) == 3


def test_two_sessions_that_read_then_write_lose_an_update():
    def spend(cache, db):
        with db.session() as session, session.begin():
            user = session.get(User, 1)
            time.sleep(0.1)
            user.version += 1

    trace = stage.run([spend, spend])
    assert trace.world.db.user(1)["version"] == 2


def test_hundreds_of_open_transactions_need_no_file_handles():
    def actor(cache, db):
        with db.session() as session:
            session.get(User, 1).bio = "x"
            session.flush()
            time.sleep(0.01)
            session.commit()

    trace = stage.run([actor] * 400)
    assert not any(trace.answers.values())
    assert trace.elapsed == pytest.approx(4.0)


# Set-up, faults, crashes ---------------------------------------------------------------------


def test_setup_is_off_the_record_and_its_keys_are_known_to_be_fresh():
    def warm(cache, db):
        read_user(cache, db)

    def actors(cache, db):
        db.update_user(1, email="new@example.org")
        time.sleep(30)
        return read_user(cache, db)["email"]

    trace = stage.run({"a": actors}, setup=warm)
    assert trace.answers["a"] == "alice@example.org"
    assert [event.kind for event in trace] == ["write", "commit", "sleep", "hit"]
    assert trace.stale[0].stale_for == 30


def test_a_cache_may_be_down_from_the_first_moment():
    def actor(cache, db):
        try:
            return cache.get("k")
        except redis.ConnectionError:
            return "down"

    later = (1, actor)
    ran = stage.run({"first": actor, "later": later}, faults=[stage.CacheDown(0, 1)])
    assert ran.answers == {"first": "down", "later": None}


def test_faults_are_data_and_are_seen_in_the_trace():
    def reader(cache, db):
        seen = []
        for _ in range(4):
            try:
                seen.append(cache.get("k"))
            except redis.ConnectionError:
                seen.append("down")
            time.sleep(1)
        return seen

    def speaker(cache, db):
        return [cache.publish("news", n) for n in range(3)]

    def listener(cache, db):
        heard = cache.pubsub(ignore_subscribe_messages=True)
        heard.subscribe("news")
        got = []
        for _ in range(5):
            message = heard.get_message(timeout=1)
            got += [message["data"]] if message else []
        return got

    trace = stage.run(
        [reader, (0.25, speaker), listener],
        setup=lambda cache, db: cache.set("k", "v"),
        faults=[
            stage.CacheDown(0.5, 1.5),
            stage.SlowCommand("GET", 5, nth=3),
            stage.DropMessage("news", nth=1),
            stage.KeyExpires("k", at=2.5),
        ],
    )
    assert trace.answers["reader"] == ["v", "down", None, None]
    notes = [event.what for event in trace.of("note")]
    assert notes == [
        "message 1 on news is lost",
        "the cache goes down",
        "the cache is back",
        "GET of reader takes 5 s",
        "k expires",
    ]


def test_a_crash_stops_an_actor_for_ever_and_rolls_its_transaction_back():
    def writer(cache, db):
        try:
            with db.session() as session:
                session.get(User, 1).email = "new@example.org"
                session.flush()
                cache.delete("user:1")
                session.commit()
        finally:
            cache.set("cleaned", "up")

    def another(cache, db):
        db.update_user(2, bio="not blocked")

    trace = stage.run([writer, (1, another)], crash=("writer", 3))
    kinds = [event.kind for event in trace]
    assert kinds == ["query", "write", "crash", "write", "commit"]
    assert trace.world.cache.get("cleaned") is None
    assert trace.world.db.user(1)["email"] == "alice@example.org"
    assert trace.world.db.user(2)["bio"] == "not blocked"
    assert trace.answers == {"another": None}


def test_a_lock_that_expires_or_a_holder_that_stands_still_lets_two_in():
    def worker(cache, db):
        while not cache.set("lock", "1", nx=True, ex=20):
            time.sleep(1)
        cache.incr("inside")
        time.sleep(5)
        seen = cache.get("inside")
        cache.decr("inside")
        return seen

    def most(**options):
        trace = stage.run({"one": worker, "two": worker}, **options)
        return max(trace.answers.values()), [event.what for event in trace.of("note")]

    assert most(limit_seconds=600) == ("1", [])
    assert most(faults=[stage.LockExpires("lock", at=2.5)]) == ("2", ["lock expires"])
    paused = most(faults=[stage.Pause("one", 2, 18)])
    assert paused == ("2", ["one stands still for 18 s"])


def test_a_network_hop_takes_its_time():
    def actor(cache, db):
        cache.set("k", "v")
        return cache.get("k"), time.monotonic() - 1024

    value, took = stage.run({"a": actor}, hop=0.001).answers["a"]
    assert (value, round(took, 6)) == ("v", 0.002)


def test_what_an_actor_prints_goes_where_the_caller_prints(capsys):
    stage.run([lambda: print("here")])
    assert capsys.readouterr().out == "here\n"


def test_a_lock_in_the_cache_outlives_the_actor_that_held_it():
    def worker(cache, db):
        while not cache.set("lock", "1", nx=True, ex=5):
            time.sleep(0.5)
        cache.delete("lock")
        return time.monotonic() - 1024

    trace = stage.run({"one": worker, "two": (0.25, worker)}, crash=("one", 2))
    assert trace.answers["two"] == pytest.approx(5.25)


def test_another_seed_gives_another_order_and_the_same_answers():
    orders = set()
    for seed in range(6):
        trace = stage.run([read_user] * 3, seed=seed)
        assert {answer["name"] for answer in trace.answers.values()} == {"Alice"}
        orders.add(tuple(event.actor for event in trace))
    assert len(orders) > 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda: stage.run([]), "at least one actor"),
        (lambda: stage.run([3]), "not a function"),
        (lambda: stage.run([(-1, read_user)]), "starts at a time"),
        (lambda: stage.run([lambda a, b, c: 1]), "callable with"),
        (lambda: stage.run([read_user], latency=-1), "latency"),
        (lambda: stage.run([read_user], spread=-1), "spread"),
        (lambda: stage.run([read_user], capacity=0), "capacity"),
        (lambda: stage.run([read_user], wall_limit=0), "wall_limit"),
        (lambda: stage.run([read_user], faults=["down"]), "A fault is"),
        (lambda: stage.run([read_user], crash=("nobody", 1)), "crash"),
        (lambda: stage.CacheDown(3, 2), "ends after"),
    ],
)
def test_bad_arguments_get_one_sentence(bad, said):
    with pytest.raises(ValueError, match=said):
        bad()


def test_a_key_with_no_time_left_is_gone_at_once():
    def actor(cache, db):
        cache.mset({"a": 1, "b": 2})
        return cache.expire("a", 0), cache.get("a"), cache.pexpire("b", -1), cache.exists("b")

    assert stage.run({"actor": actor}).answers["actor"] == (True, None, True, 0)


def test_what_the_setup_draws_is_not_drawn_again_by_an_actor():
    def setup(cache, db):
        cache.set("token", str(uuid.uuid4()))

    def actor(cache, db):
        return cache.get("token"), str(uuid.uuid4())

    token, mine = stage.run({"actor": actor}, setup=setup).answers["actor"]
    assert token != mine


def test_beyond_a_thousand_commands_at_one_instant_each_takes_a_millisecond():
    def polls(cache, db):
        for _ in range(1_500):
            cache.get("nothing")

    def sleeps_between(cache, db):
        for _ in range(2):
            for _ in range(900):
                cache.get("nothing")
            time.sleep(1)

    assert stage.run([polls]).elapsed == pytest.approx(0.5)
    assert stage.run([sleeps_between]).elapsed == pytest.approx(2)


def test_the_calendar_is_virtual_too_and_a_given_moment_stays_what_it_is():
    form = "%Y-%m-%d %H:%M:%S"

    def reads_the_calendar(cache, db):
        time.sleep(86_400)
        given = 1_000_000_000
        return {
            "now": int(time.time()),
            "localtime": time.mktime(time.localtime()),
            "gmtime": calendar.timegm(time.gmtime()),
            "ctime": time.mktime(time.strptime(time.ctime())),
            "strftime": time.mktime(time.strptime(time.strftime(form), form)),
            "given": [
                time.mktime(time.localtime(given)),
                calendar.timegm(time.gmtime(given)),
                time.mktime(time.strptime(time.ctime(given))),
                int(time.strftime("%Y", time.gmtime(given))),
            ],
        }

    run = stage.run([reads_the_calendar])
    said = run.answers["reads_the_calendar"]
    assert said["given"] == [1_000_000_000, 1_000_000_000, 1_000_000_000, 2001]
    assert {said[name] for name in ("localtime", "gmtime", "ctime", "strftime")} == {said["now"]}


def test_the_world_of_a_run_has_its_trace_when_the_run_is_over():
    run = stage.run([lambda cache, db: db.update_user(1, bio="Likes tea.")])
    assert run.world.trace is run
    assert run.world.trace.writes == 1
    assert run.world.cache.get("user:v1:1") is None  # looking leaves nothing in it
    assert len(run.world.trace.events) == len(run.events)
