"""Time and chance as choices of the search: TTLs that end, commands that fail, lost messages."""

from __future__ import annotations

import gc
import sys
import time

import pytest
import redis

from cachelab import stage

LOCK = "job"
RELEASE = (
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
)
both = pytest.mark.parametrize("prune", [False, True])


def fine(world):
    return None


def told(trace):
    return [(event.actor, event.what) for event in trace]


# A TTL ends between any two commands --------------------------------------------------------


def kept(cache, db):
    cache.set("k", "v", px=1)


def check_then_get(cache, db):
    return cache.get("k").upper() if cache.exists("k") else "miss"


def looks(cache, db):
    cache.get("k")
    return 1


@both
def test_a_ttl_that_ends_between_a_check_and_a_read_is_found(prune):
    actors = {"a": check_then_get, "b": looks}
    verdict = stage.explore(actors, fine, setup=kept, expiry=1, prune=prune)
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 11, 4)
    assert told(verdict.counterexample)[-3:-1] == [("stage", "the TTL of k ends"), ("a", "GET")]
    assert stage.explore(actors, fine, setup=kept).outcome == "proved nothing"


def releasing(atomic):
    def worker(cache, db):
        if not cache.set(LOCK, "A", nx=True, px=5_000):
            return "busy"
        cache.incr("work")
        if atomic:
            cache.eval(RELEASE, 1, LOCK, "A")
        elif cache.get(LOCK) == "A":
            cache.delete(LOCK)
        return "done"

    return worker


def stays(cache, db):
    return "B" if cache.set(LOCK, "B", nx=True, px=5_000) else "busy"


def b_keeps_it(world):
    events = list(world.trace)
    takes = [n for n, event in enumerate(events) if event.actor == "B" and "done" in event.detail]
    if not takes or world.cache.get(LOCK) is not None:
        return None
    ended = any("TTL" in event.what for event in events[takes[0] :])
    return None if ended else "A has deleted B's lock."


@both
@pytest.mark.parametrize("atomic", [False, True])
def test_a_lock_that_expires_between_get_and_del_is_released_for_its_next_holder(atomic, prune):
    actors = {"A": releasing(atomic), "B": stays}
    verdict = stage.explore(actors, b_keeps_it, expiry="j*", prune=prune)
    assert verdict.outcome == ("passed" if atomic else "failed"), verdict
    assert verdict.exhaustive
    assert stage.explore(actors, b_keeps_it, expiry=["other:*"]).outcome == "proved nothing"


def test_the_clock_shows_that_a_ttl_has_ended():
    def worker(cache, db):
        began = time.monotonic()
        cache.set(LOCK, "A", px=5_000)
        cache.incr("work")
        return round(time.monotonic() - began, 6), cache.exists(LOCK)

    seen = set()
    stage.explore([worker], lambda world: seen.add(world.answers["worker"]), expiry=1)
    assert seen == {(0.0, 1), (0.0, 0), (5.001, 0)}


def test_who_sleeps_goes_on_while_the_others_stand_still_until_a_ttl_has_ended():
    def holder(cache, db):
        cache.set(LOCK, "A", px=1_000)
        cache.get("work")
        return cache.get(LOCK)

    def poller(cache, db):
        tries = 1
        while not cache.set(LOCK, "B", nx=True):
            tries += 1
            time.sleep(0.25)
        return tries

    seen = set()
    verdict = stage.explore(
        {"holder": holder, "poller": poller},
        lambda world: seen.add(tuple(world.answers.values())),
        expiry=1,
        wall_limit=10,
    )
    assert verdict.exhaustive
    assert (None, 6) in seen  # at 1.001 s and at 1.25 s


# A command fails ----------------------------------------------------------------------------


def unguarded(cache, db):
    found = cache.get("p")
    if found is None:
        found = str(db.stock(1))
        cache.set("p", found, ex=60)
    return found


def guarded(*errors):
    def reader(cache, db):
        try:
            return unguarded(cache, db)
        except errors:
            return str(db.stock(1))

    return reader


@both
def test_each_way_in_which_one_command_can_fail_is_tried(prune):
    seen = set()

    def note(world):
        answer = world.answers["reader"]
        seen.add((type(answer).__name__, world.cache.exists("p")))

    verdict = stage.explore({"reader": unguarded}, note, failures=1, prune=prune, allow_errors=True)
    assert verdict.outcome == "passed", verdict
    # well; GET or SET fails or times out, with or without an effect
    assert seen == {
        ("str", 1),
        ("ConnectionError", 0),
        ("ConnectionError", 1),
        ("TimeoutError", 0),
        ("TimeoutError", 1),
    }
    assert verdict.orders == 9


@pytest.mark.parametrize(
    ("reader", "outcome"),
    [
        (unguarded, "failed"),
        (guarded(redis.ConnectionError), "failed"),
        (guarded(redis.ConnectionError, redis.TimeoutError), "passed"),
    ],
)
def test_a_reader_that_expects_one_error_only_fails_by_the_other(reader, outcome):
    verdict = stage.explore({"one": reader, "two": reader}, fine, failures=1)
    assert verdict.outcome == outcome, verdict


def test_a_counter_that_is_retried_after_a_lost_reply_counts_twice():
    def count(cache, db):
        try:
            cache.incr("n")
        except redis.RedisError:
            cache.incr("n")

    verdict = stage.explore(
        {"one": count, "two": count},
        lambda world: world.cache.get("n") == "2" or f"counted {world.cache.get('n')} of 2",
        failures=1,
    )
    assert verdict.outcome == "failed"
    assert "counted 3 of 2" in verdict.summary
    assert ("stage", "INCRBY is done; its reply is lost") in told(verdict.counterexample)


def test_a_pipeline_fails_as_a_whole_before_or_after_it_was_done():
    def both_keys(cache, db):
        with cache.pipeline() as pipe:
            pipe.set("a", 1).set("b", 1)
            pipe.execute()
        return "done"

    seen = set()
    stage.explore(
        [both_keys], lambda w: seen.add(w.cache.exists("a", "b")), failures=1, allow_errors=True
    )
    assert seen == {0, 2}


def test_every_client_meets_the_failures_and_says_nothing_when_it_is_cleared_away(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)

    def own(cache, db):
        return redis.Redis(connection_pool=cache.connection_pool).incr("n")

    def piped(cache, db):
        with redis.Redis(connection_pool=cache.connection_pool).pipeline(transaction=False) as pipe:
            return pipe.incr("n").incr("n").execute()

    for client, orders in ((own, 18), (piped, 78)):
        seen = {
            prune: stage.explore(
                [client, client], fine, failures=1, allow_errors=True, prune=prune
            ).orders
            for prune in (False, True)
        }
        assert seen == {False: orders, True: orders}
    gc.collect()
    assert said == []


# A message is lost --------------------------------------------------------------------------


@both
def test_a_message_that_is_lost_in_one_order_is_found(prune):
    def listen(cache, db):
        heard = cache.pubsub(ignore_subscribe_messages=True)
        heard.subscribe("flags")
        messages = [heard.get_message(timeout=1) for _ in range(2)]
        return [message["data"] for message in messages if message]

    def tell(cache, db):
        time.sleep(0.5)
        return cache.publish("flags", "on")

    verdict = stage.explore(
        {"listen": listen, "tell": tell},
        lambda world: world.answers["listen"] == ["on"] or "The flag stays off.",
        losses=1,
        prune=prune,
    )
    assert (verdict.outcome, verdict.orders, verdict.failing) == ("failed", 2, 1)
    assert ("stage", "a message on flags is lost") in told(verdict.counterexample)


# A fault that never struck ------------------------------------------------------------------


def reads(cache, db):
    got = cache.get("k")
    cache.incr("reads")
    return got or 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"faults": [stage.CacheDown(1, 2)]}, "CacheDown(start=1, end=2)"),
        ({"faults": [stage.KeyExpires("other", at=0)]}, "KeyExpires(key='other', at=0)"),
        ({"faults": [stage.KeyExpires("k", at=30)]}, "KeyExpires(key='k', at=30)"),
        ({"faults": [stage.LockExpires("k", at=30)]}, "LockExpires(key='k', at=30)"),
        ({"faults": [stage.SlowCommand("HGET", 3)]}, "SlowCommand(command='HGET'"),
        ({"faults": [stage.Pause("nobody", 1, 5)]}, "Pause(actor='nobody'"),
        ({"faults": [stage.Pause("a", 3, 5)]}, "Pause(actor='a', nth=3"),
        ({"faults": [stage.DropMessage("flags")]}, "DropMessage(channel='flags'"),
        ({"expiry": "other"}, "expiry"),
        ({"losses": 1}, "losses"),
    ],
)
def test_a_fault_that_struck_in_no_order_proves_nothing(options, named):
    def setup(cache, db):
        cache.set("k", "v", ex=60)

    verdict = stage.explore({"a": reads, "b": reads}, fine, setup=setup, **options)
    assert verdict.outcome == "proved nothing"
    assert verdict.summary.startswith(f"Proved nothing: the fault never struck ({named}")
    if "faults" in options:
        run = stage.run({"a": reads}, setup=setup, **options)
        assert told(run)[-1][0] == "stage"
        assert told(run)[-1][1].endswith("never struck")


@pytest.mark.parametrize(
    "fault",
    [
        stage.CacheDown(0, 2),
        stage.KeyExpires("k", at=0),
        stage.SlowCommand("GET", 3),
        stage.Pause("a", 1, 5),
    ],
)
def test_a_fault_that_struck_is_not_held_against_a_verdict(fault):
    def setup(cache, db):
        cache.set("k", "v", ex=60)

    def waits(cache, db):
        time.sleep(1)
        return reads(cache, db)

    actors = {"a": waits, "b": waits}
    verdict = stage.explore(actors, fine, setup=setup, faults=[fault], allow_errors=True)
    assert "never struck" not in verdict.summary
    run = stage.run(actors, setup=setup, faults=[fault])
    assert not [what for _, what in told(run) if what.endswith("never struck")]


def test_a_failure_is_a_failure_also_where_the_fault_never_struck():
    verdict = stage.explore([reads], lambda world: "no", faults=[stage.CacheDown(1, 2)])
    assert verdict.outcome == "failed"


# Writers alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [False, True])
def test_actors_that_only_write_pass_or_fail_by_the_invariant(atomic):
    def add(cache, db):
        if atomic:
            cache.incr("n")
        else:
            cache.set("n", int(cache.get("n") or 0) + 1)

    verdict = stage.explore(
        {"one": add, "two": add}, lambda world: world.cache.get("n") == "2" or "One got lost."
    )
    assert verdict.outcome == ("passed" if atomic else "failed"), verdict


# Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"expiry": -1}, {"expiry": []}, {"expiry": [1]}])
def test_an_expiry_that_makes_no_sense_is_one_sentence(options):
    with pytest.raises(ValueError, match="expiry is how many TTLs may end"):
        stage.explore([reads], fine, **options)


@pytest.mark.parametrize("options", [{"failures": -1}, {"losses": -1}, {"crashes": -1}])
def test_a_count_below_zero_is_one_sentence(options):
    with pytest.raises(ValueError, match="at least 0"):
        stage.explore([reads], fine, **options)
