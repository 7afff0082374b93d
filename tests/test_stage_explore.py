"""What exploring every order finds, prunes, and refuses to call proof."""

from __future__ import annotations

import itertools
import json
import threading
import time

import pytest
import redis
import sqlalchemy as sa
from actors import delete_after_commit, reader

from cachelab import stage
from cachelab.origin import User
from cachelab.stage.orders import DIES, Choice, Step, fewest_switches, orders_of, switches

STALE = "The cache keeps an old value after everybody has finished."


def delete_before_commit(cache, db):
    with db.session() as session:
        session.execute(sa.update(User).where(User.id == 1).values(email="new@example.org"))
        cache.delete("user:1")
        session.commit()


def never_stale(world):
    kept = world.cache.get("user:1")
    if kept is not None and json.loads(kept)["email"] != world.db.user(1)["email"]:
        return STALE
    return None


def lanes(trace):
    return [(event.actor, event.what) for event in trace]


# The race ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [False, True])
def test_of_the_ten_orders_of_fill_and_invalidate_exactly_one_leaves_the_cache_stale(prune):
    verdict = stage.explore(
        [reader, delete_after_commit], never_stale, prune=prune, commit_apart=False
    )
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 10, 1)
    assert verdict.schedules + verdict.pruned == 10
    assert lanes(verdict.counterexample) == [
        ("reader", "GET"),
        ("reader", "SELECT"),
        ("delete_after_commit", "UPDATE"),
        ("delete_after_commit", "COMMIT"),
        ("delete_after_commit", "DEL"),
        ("reader", "SET"),
    ]
    assert STALE in verdict.summary
    assert verdict.summary.startswith("In 1 of all 10 orders")


@pytest.mark.parametrize("looks_first", [False, True])
def test_somebody_may_come_between_a_read_and_the_watch_after_it(looks_first):
    def add(cache, db):
        while True:
            with cache.pipeline() as pipe:
                try:
                    value = cache.get("n") if looks_first else None
                    pipe.watch("n")
                    value = value if looks_first else pipe.get("n")
                    pipe.multi()
                    pipe.set("n", int(value or 0) + 1)
                    return pipe.execute()
                except redis.WatchError:
                    continue

    def lost(world):
        return None if world.cache.get("n") == "2" else "One of two was not counted."

    assert stage.explore([add, add], lost).outcome == ("failed" if looks_first else "passed")


def test_a_statement_that_commits_itself_is_one_step():
    def writer(cache, db):
        engine = db.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text("UPDATE users SET email = 'n' WHERE id = 1"))
        cache.delete("user:1")

    verdict = stage.explore([reader, writer], never_stale, prune=False)
    assert (verdict.orders, verdict.failing) == (10, 1)


@pytest.mark.parametrize("prune", [False, True])
def test_deleting_the_key_before_the_commit_is_caught(prune):
    verdict = stage.explore([reader, delete_before_commit], never_stale, prune=prune)
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 20, 12)
    order = lanes(verdict.counterexample)
    assert order.index(("reader", "SET")) < order.index(("delete_before_commit", "COMMIT"))
    assert verdict.counterexample.world.cache.get("user:1") is not None


def test_the_counter_example_is_the_shortest_with_the_fewest_switches():
    def idle(cache, db):
        cache.get("other")
        cache.get("another")

    verdict = stage.explore([idle, reader, delete_after_commit], never_stale)
    actors = [event.actor for event in verdict.counterexample]
    changes = sum(a != b for a, b in itertools.pairwise(actors))
    assert changes == 3
    again = stage.explore([idle, reader, delete_after_commit], never_stale)
    assert again.counterexample.to_json() == verdict.counterexample.to_json()
    assert again.summary == verdict.summary


def test_an_order_is_told_with_as_few_switches_as_an_equal_one():
    x, y = Choice("x"), Choice("y")
    free, kept = (("cache", "a", False),), (("cache", "b", True),)
    steps = [
        Step(x, "x", free, 0b0000, 0b0000),
        Step(y, "y", free, 0b0000, 0b0000),
        Step(x, "x", kept, 0b0001, 0b0001),
        Step(y, "y", kept, 0b0010, 0b0111),
    ]
    assert fewest_switches(steps) == [x, x, y, y]
    assert orders_of(steps) == 3
    assert switches([x, y, Choice("x", DIES)]) == 2


# What is right is proved right ---------------------------------------------------------------

SET_IF_NEWER = """
local kept = redis.call('GET', KEYS[1])
if kept and cjson.decode(kept).version >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""


def put_if_newer(cache, row):
    cache.eval(SET_IF_NEWER, 1, "user:1", json.dumps(row), row["version"])


def versioned_reader(cache, db):
    found = cache.get("user:1")
    if found is not None:
        return json.loads(found)
    row = db.user(1)
    put_if_newer(cache, row)
    return row


def versioned_writer(cache, db):
    db.update_user(1, email="new@example.org")
    put_if_newer(cache, db.user(1))


def test_a_versioned_set_is_clean_in_every_order():
    verdict = stage.explore([versioned_reader, versioned_reader, versioned_writer], never_stale)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive
    assert verdict.orders > verdict.schedules > 10
    assert verdict.summary.startswith(f"Holds in all {verdict.orders:,} orders")


TAKE_LEASE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return {redis.call('GET', KEYS[1]), false} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'EX', 10) then return {false, ARGV[1]} end
return {false, false}
"""
FILL_WITH_LEASE = """
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""


def leasing_reader(token):
    def leased(cache, db):
        found, lease = cache.eval(TAKE_LEASE, 2, "user:1", "lease:user:1", token)
        if found:
            return json.loads(found)
        row = db.user(1)
        if lease:
            cache.eval(FILL_WITH_LEASE, 2, "user:1", "lease:user:1", json.dumps(row), token)
        return row

    return leased


def leasing_writer(cache, db):
    db.update_user(1, email="new@example.org")
    cache.delete("user:1", "lease:user:1")


def test_a_lease_is_clean_in_every_order():
    actors = {"a": leasing_reader("a"), "b": leasing_reader("b"), "writer": leasing_writer}
    verdict = stage.explore(actors, never_stale)
    assert verdict.outcome == "passed", verdict
    assert verdict.exhaustive
    assert verdict.pruned > 0


# Crashes -------------------------------------------------------------------------------------


def test_a_crash_between_commit_and_delete_is_tried():
    def warm(cache, db):
        cache.set("user:1", json.dumps(db.user(1)))

    calm = stage.explore([reader, delete_after_commit], never_stale, setup=warm, crashes=0)
    assert calm.outcome == "passed"
    verdict = stage.explore([reader, delete_after_commit], never_stale, setup=warm, crashes=1)
    assert verdict.outcome == "failed"
    order = [event.what for event in verdict.counterexample if event.actor != "reader"]
    assert order == ["UPDATE", "COMMIT", "CRASH"]


@pytest.mark.parametrize("prune", [False, True])
def test_with_crashes_the_pruned_search_finds_as_many_orders_as_the_full_one(prune):
    verdict = stage.explore([reader, delete_before_commit], never_stale, crashes=1, prune=prune)
    assert (verdict.orders, verdict.failing) == CRASH_COUNTS


CRASH_COUNTS = (88, 12)


# What proves nothing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actors", "said"),
    [
        ([lambda c, d: c.get("a") or 1, lambda c, d: c.set("b", 1)], "touched the same key"),
        ([lambda c, d: c.get("a") or 1, lambda c, d: c.get("a") or 1], "nobody wrote"),
        ([lambda c, d: print(c.get("a"), end=""), lambda c, d: c.set("a", 1) and None], "answer"),
    ],
)
def test_an_exploration_that_could_not_fail_proves_nothing(actors, said):
    verdict = stage.explore(actors, lambda world: None)
    assert verdict.outcome == "proved nothing"
    assert said in verdict.summary


def test_a_failing_invariant_is_a_failure_even_where_nobody_meets():
    verdict = stage.explore([lambda: 1], lambda world: "no")
    assert verdict.outcome == "failed"


def test_beyond_the_limit_the_orders_are_random_and_the_verdict_says_so():
    def busy(cache, db):
        for _ in range(8):
            cache.incr("n")
        return 1

    verdict = stage.explore([busy, busy, busy], lambda world: None, limit=200)
    assert verdict.outcome == "passed"
    assert not verdict.exhaustive
    assert verdict.orders is None
    assert verdict.schedules == 300
    assert "the first 200 and 100 random orders of many" in verdict.summary

    def rarely(world):
        return world.trace.events[0].actor == "busy-1" or "somebody else was first"

    found = stage.explore([busy, busy, busy], rarely, limit=200)
    assert found.outcome == "failed"
    assert found.summary.startswith(f"In at least {found.failing} of ")
    assert "random" in found.summary


# Locks, time, threads ------------------------------------------------------------------------


def test_both_orders_of_taking_a_lock_are_tried():
    def actors():
        lock, seen = threading.Lock(), []

        def take(name):
            def taker(cache, db):
                with lock:
                    cache.rpush("order", name)
                    cache.get("x")
                return seen

            return taker

        return [stage.Actor(name, take(name), process="pod") for name in "ab"]

    found = set()
    verdict = stage.explore(
        actors, lambda world: found.add(tuple(world.cache.lrange("order", 0, -1))), prune=True
    )
    assert found == {("a", "b"), ("b", "a")}
    assert verdict.outcome == "passed"


def test_a_deadlock_in_one_order_is_found_and_named():
    def actors():
        left, right = threading.Lock(), threading.Lock()

        def take(first, second):
            def taker(cache, db):
                with first:
                    cache.incr("n")
                    with second:
                        return cache.incr("n")

            return taker

        plays = {"a": take(left, right), "b": take(right, left)}
        return [stage.Actor(name, play, process="pod") for name, play in plays.items()]

    verdict = stage.explore(actors, lambda world: None)
    assert verdict.outcome == "failed"
    assert "a waits for a lock, held by b; b waits for a lock, held by a" in verdict.summary


def test_orders_of_threads_that_an_actor_starts_are_explored_too():
    def web(cache, db):
        worker = threading.Thread(target=lambda: cache.set("k", "thread"))
        worker.start()
        cache.set("k", "web")
        worker.join()
        return cache.get("k")

    ends = set()
    verdict = stage.explore([web], lambda world: ends.add(world.answers["web"]))
    assert ends == {"web", "thread"}
    assert verdict.orders == 2


def test_a_sleep_is_longer_than_what_the_others_do_meanwhile():
    def slow(cache, db):
        time.sleep(0.1)
        return cache.get("k")

    verdict = stage.explore([slow, lambda c, d: c.set("k", 1)], lambda w: w.answers["slow"] == "1")
    assert (verdict.outcome, verdict.orders) == ("passed", 1)


def test_an_actor_that_raises_fails_the_order_unless_that_is_allowed():
    def raises(cache, db):
        if cache.get("k"):
            raise LookupError("seen")
        return 1

    actors = [raises, lambda c, d: c.set("k", 1)]
    verdict = stage.explore(actors, lambda world: None)
    assert (verdict.outcome, verdict.failing, verdict.orders) == ("failed", 1, 2)
    assert "raises raised LookupError: seen." in verdict.summary
    assert stage.explore(actors, lambda world: None, allow_errors=True).outcome == "passed"


def test_actors_that_draw_on_what_earlier_runs_used_up_are_told_to_begin_anew():
    count = (number for number in itertools.count())  # no process can have one of its own

    def forgetful(cache, db):
        if next(count) > 5:
            cache.set("a", 1)
        cache.set("k", 1)
        return 1

    with pytest.raises(stage.Stuck, match="when played again"):
        stage.explore([forgetful, forgetful, forgetful], lambda world: None)


def test_what_setup_left_is_there_in_every_order():
    def setup(cache, db):
        cache.rpush("l", "a", "b")
        db.update_user(2, name="Set Up")

    def pop(cache, db):
        db.update_user(2, name="gone")
        return cache.lpop("l"), db.user(2)["name"]

    seen = set()
    stage.explore([pop, pop], lambda w: seen.add(tuple(sorted(w.answers.values()))), setup=setup)
    assert seen == {(("a", "gone"), ("b", "gone"))}


def test_crashed_actors_leave_no_answer_and_their_cache_lock_stays():
    def worker(cache, db):
        if cache.set("lock", "1", nx=True, ex=30):
            cache.incr("work")
            cache.delete("lock")
            return "worked"
        return "refused"

    left = set()
    stage.explore(
        [worker, worker],
        lambda w: left.add((len(w.answers), w.cache.get("lock"), w.cache.get("work"))),
        crashes=1,
    )
    assert (1, "1", None) in left
    assert (1, "1", "1") in left
    assert (2, None, "2") in left


# A slow machine -----------------------------------------------------------------------------


def test_a_slow_machine_tries_fewer_orders_and_blames_nobody():
    def slow(cache):
        for number in range(6):
            end = time.process_time() + 0.0005
            while time.process_time() < end:
                pass
            cache.incr("views:v1:1", number)
        return "done"

    found = stage.explore({"one": slow, "two": slow}, lambda world: True, prune=False, wall_limit=4)
    assert found.outcome == "passed", found
    assert 50 <= found.schedules < 924
    assert not found.exhaustive
    assert found.summary == f"Holds in the first {found.schedules} orders of many."
