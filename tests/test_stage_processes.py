"""Each actor is a process with a memory of its own; what it adds to the caller's comes back."""

from __future__ import annotations

import collections
import functools
import importlib
import itertools
import os
import queue
import random
import sys
import threading
import time
import types
import uuid
from dataclasses import dataclass

import pytest

from cachelab import stage
from cachelab.stage import memory

LOCK, MEMO, DRAWN = threading.Lock(), {}, itertools.count()
STARTED = None


def threads(plays):
    """The same actors, as threads of one process."""
    return [stage.Actor(name, play, process="pod") for name, play in plays.items()]


# A memory of its own --------------------------------------------------------------------------


@functools.lru_cache
def cached(db):
    return db.stock(1)


class Service:
    memo: dict = {}
    reads = 0

    def __init__(self):
        self.seen = []

    def read(self, cache, db):
        if 1 not in self.memo:
            self.memo[1] = db.stock(1)
            Service.reads += 1
        self.seen.append(1)
        return self.memo[1], Service.reads, len(self.seen)

    @functools.lru_cache  # noqa: B019 - written as it is written
    def kept(self, db):
        return db.stock(1)


@dataclass(slots=True)
class Slotted:
    memo: object = None


SERVICE, SLOTTED, ROWS = Service(), Slotted(), collections.deque(maxlen=9)


def in_a_global_dict(cache, db):
    if 1 not in MEMO:
        MEMO[1] = db.stock(1)
    return MEMO[1]


def in_a_global_name(cache, db):
    global STARTED
    if STARTED is None:
        STARTED = db.stock(1)
    return STARTED


def in_a_default(cache, db, memo={}):  # noqa: B006
    return memo.setdefault(1, None) or memo.update({1: db.stock(1)}) or memo[1]


def in_slots(cache, db):
    if SLOTTED.memo is None:
        SLOTTED.memo = db.stock(1)
    return SLOTTED.memo


def in_a_deque(cache, db):
    if not ROWS:
        ROWS.append(db.stock(1))
    return ROWS[0]


def in_an_lru_cache(cache, db):
    return cached(db)


def in_an_lru_cache_of_a_class(cache, db):
    return SERVICE.kept(db)


def in_a_class(cache, db):
    return SERVICE.read(cache, db)[0]


def in_an_attribute_of_a_function(cache, db):
    if not hasattr(in_an_attribute_of_a_function, "memo"):
        in_an_attribute_of_a_function.memo = db.stock(1)
    return in_an_attribute_of_a_function.memo


MEMOS = [
    in_a_global_dict,
    in_a_global_name,
    in_a_default,
    in_slots,
    in_a_deque,
    in_an_lru_cache,
    in_an_lru_cache_of_a_class,
    in_a_class,
    in_an_attribute_of_a_function,
]


@pytest.fixture
def nothing_kept():
    """What the caller has had sent back by an earlier test is not there."""
    global STARTED
    STARTED = SLOTTED.memo = None
    Service.reads = 0
    for kept in (MEMO, Service.memo, SERVICE.seen, ROWS, vars(in_an_attribute_of_a_function)):
        kept.clear()
    in_a_default.__defaults__[0].clear()


@pytest.mark.parametrize("play", MEMOS)
def test_what_a_process_remembers_another_one_does_not_know(play, nothing_kept):
    plays = {"pod 1": play, "pod 2": (1.0, play), "pod 3": (2.0, play)}
    first = stage.run(plays)
    assert first.queries == 3
    assert stage.run(plays).to_json() == first.to_json()  # nor does one of a later run
    assert stage.run([stage.Actor(n, play, process="pod") for n in "ab"]).queries <= 2


@pytest.mark.parametrize("play", MEMOS)
def test_a_memo_serves_old_values_only_in_its_own_process(play, nothing_kept):
    def reads_twice(cache, db):
        return play(cache, db), time.sleep(2), play(cache, db)

    def sells(cache, db):
        db.update_product(1, stock=1_000)

    answers = stage.run({"old": reads_twice, "seller": (1, sells), "new": (2, play)}).answers
    first, _, second = answers["old"]
    assert first == second != 1_000
    assert answers["new"] == 1_000


def test_a_lock_guards_the_threads_of_a_process_and_not_other_processes():
    def actor(cache, db):
        with LOCK:
            time.sleep(1)
        return time.monotonic() - 1024

    assert stage.run({"a": actor, "b": actor}).elapsed == 1
    assert stage.run(threads({"a": actor, "b": actor})).elapsed == 2
    assert not LOCK.locked()


def lost_update(cache, db):
    with LOCK:
        cache.set("n", int(cache.get("n") or 0) + 1)
    return 1


def counted(world):
    return world.cache.get("n") == "2" or f"Two were {world.cache.get('n')}."


def test_a_lock_in_a_module_protects_no_key_from_other_processes():
    plays = {"a": lost_update, "b": lost_update}
    assert stage.explore(plays, counted).outcome == "failed"
    assert stage.explore(threads(plays), counted).outcome == "passed"


def test_a_process_that_dies_takes_its_locks_along():
    def reader(cache, db):
        with LOCK:
            found = cache.get("k")
            if found is None:
                cache.set("k", db.stock(1))
        return 1

    verdict = stage.explore({"one": reader, "two": reader}, lambda world: None, crashes=1)
    assert verdict.outcome == "passed", verdict
    run = stage.run({"one": reader, "two": (1, reader)}, crash=("one", 2))
    assert run.answers == {"two": 1}


def test_all_threads_of_a_process_die_together():
    def beats(cache, db):
        for _ in range(5):
            cache.incr(threading.current_thread().name)
            time.sleep(1)

    run = stage.run(
        [stage.Actor("a", beats, process="pod"), stage.Actor("b", beats, process="pod"), beats],
        crash=("a", 3),
    )
    assert run.answers == {"beats": None}
    assert [event.actor for event in run.of("crash")] == ["a", "b"]


@pytest.mark.parametrize("crashes", [0, 1])
def test_threads_meet_in_the_memory_that_they_share(crashes):
    """Their steps touch different keys, and still their order decides."""
    seen = []

    def asks(key, name):
        def asker(cache, db):
            cache.get(key)
            seen.append(name)
            cache.set(f"saw:{name}", ",".join(seen))
            return 1

        return asker

    plays = threads({"a": asks("x", "a"), "b": asks("y", "b")})
    ends = set()
    for prune in (True, False):
        ends.add(frozenset(every_end(plays, "saw:a", "saw:b", crashes=crashes, prune=prune)))
    assert len(ends) == 1


def every_end(plays, *keys, **how):
    ends = set()
    stage.explore(plays, lambda world: ends.add(tuple(world.cache.mget(*keys))), **how)
    return ends


# What differs from process to process ---------------------------------------------------------


def test_what_python_draws_anew_for_each_process_differs():
    def draws():
        return os.getpid(), hash("text"), hash(("a", 1)), uuid.getnode(), uuid.uuid1().node

    one, other = stage.run({"a": draws, "b": draws}).answers.values()
    assert not set(one) & set(other)
    assert [hash(7), hash((1, 2))] == stage.run([lambda: [hash(7), hash((1, 2))]]).answers["actor"]
    assert len(set(map(str, stage.run(threads({"a": draws, "b": draws})).answers.values()))) == 1
    assert stage.run({"a": draws, "b": draws}).answers == {"a": one, "b": other}


def test_keys_that_hash_themselves_are_still_found():
    @dataclass(frozen=True)
    class Key:
        name: str

    known = {Key("a"): 1}
    assert stage.run([lambda: known[Key("a")], lambda: Key("a") in known]).answers == {
        "actor-1": 1,
        "actor-2": True,
    }


def test_counters_and_queues_are_each_processes_own():
    line = queue.SimpleQueue()

    def draws():
        line.put(threading.current_thread().name)
        return next(DRAWN), line.qsize(), line.get()

    answers = stage.run({"a": draws, "b": draws}).answers
    assert answers["a"] == (0, 1, "a")
    assert answers["b"] == (0, 1, "b")
    assert (repr(DRAWN), line.empty()) == ("count(0)", True)


# What the caller collects ---------------------------------------------------------------------


def test_what_processes_add_to_the_callers_collections_comes_back_in_the_order_of_the_run():
    results, answers, names, count = [], {}, set(), 0
    votes, by_key, line = collections.Counter(), collections.defaultdict(list), queue.Queue()
    box = types.SimpleNamespace(last=None, rows=[])

    def record(name):  # not the actor itself
        results.append(name)
        box.rows.append(name)

    def actor(cache, db):
        nonlocal count
        name = threading.current_thread().name
        for _ in range(2):
            record(name)
            count += 1
            time.sleep(1)
        answers[name] = len(results)
        names.add(name)
        votes["all"] += 1
        by_key[name].append(count)
        line.put(name)
        box.last = name

    stage.run({"a": actor, "b": (0.5, actor)})
    assert results == box.rows == ["a", "b", "a", "b"]
    assert (answers, names, count) == ({"a": 2, "b": 2}, {"a", "b"}, 4)
    assert (votes["all"], dict(by_key), box.last) == (2, {"a": [2], "b": [2]}, "b")
    assert [line.get(timeout=1), line.get(timeout=1)] == ["a", "b"]


def test_what_was_sent_back_is_the_callers_until_the_caller_passes_it_on():
    results = []

    def actor():
        results.append(len(results))

    stage.run([actor, actor])
    stage.run([actor])
    assert results == [0, 0, 0]
    results.append("mine")
    stage.run([actor])
    assert results == [0, 0, 0, "mine", 4]


def test_what_a_process_has_taken_out_again_does_not_come_back():
    inside, flights = [], {}

    def actor(cache, db):
        inside.append(1)
        flights["k"] = threading.current_thread().name
        time.sleep(1)
        del flights["k"]
        return inside.pop()

    stage.run({"a": actor, "b": actor})
    assert (inside, flights) == ([], {})


def test_what_a_process_that_died_had_added_has_arrived():
    results = []

    def actor(cache, db):
        results.append("began")
        cache.get("k")
        results.append("asked")
        cache.get("k")

    stage.run({"a": actor}, crash=("a", 2))
    assert results == ["began", "asked"]


def test_the_invariant_reads_what_the_actors_of_its_order_have_collected():
    seen = []

    def reader(cache, db):
        seen.append(cache.get("k"))
        return 1

    per_order = []

    def invariant(world):
        per_order.append(tuple(seen[-2:]))
        assert len(seen) == 2 * len(per_order)

    writer = stage.explore(
        {"one": reader, "two": reader, "writer": lambda c, d: c.set("k", 1)}, invariant
    )
    assert writer.outcome == "passed", writer
    assert {(None, None), ("1", "1")} <= set(per_order)


def test_a_factory_may_clear_what_was_collected_and_say_what_processes_begin_with():
    log, box = [], {"n": 0}

    def actors():
        log.clear()
        box["n"] += 1
        number = box["n"]

        def actor(cache, db):
            assert box["n"] == number
            log.append(cache.incr("n"))
            return 1

        return {"a": actor, "b": actor}

    verdict = stage.explore(actors, lambda world: sorted(log) == [1, 2] or str(log))
    assert verdict.outcome == "passed", verdict


def test_every_order_begins_with_the_same_memory(nothing_kept):
    def pod(cache, db):
        cache.get("k")
        return in_a_global_dict(cache, db)

    def admin(cache, db):
        db.update_product(1, stock=1_000)
        cache.set("k", 1)

    seen = set()
    stage.explore(
        {"pod": pod, "admin": admin}, lambda world: seen.add(world.answers["pod"] == 1_000)
    )
    assert seen == {True, False}


SERVICE_MODULE = """
import threading, uuid
lock, memo, loads = threading.Lock(), {}, 0
POD = uuid.uuid4().hex

def stock(db, number):
    global loads
    with lock:
        if number not in memo:
            memo[number] = db.stock(number)
            loads += 1
        return memo[number], loads, POD
"""


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A learner's own module, imported."""
    name = f"service_{random.randrange(10**9)}"
    (tmp_path / f"{name}.py").write_text(SERVICE_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


@pytest.mark.parametrize("by", ["its module", "its own name", "an import inside"])
def test_a_module_of_the_code_under_test_is_each_processes_own_and_is_left_as_it_was(service, by):
    name, stock = service.__name__, service.stock

    def by_module(cache, db):
        return service.stock(db, 1)

    def by_name(cache, db):
        return stock(db, 1)

    made = {}
    exec(f"def inside(cache, db):\n    import {name}\n    return {name}.stock(db, 1)", made)
    play = {"its module": by_module, "its own name": by_name, "an import inside": made["inside"]}[
        by
    ]
    before = dict(vars(service))
    run = stage.run({"a": play, "b": play, "c": (1, play)}, latency=0.1)
    assert run.queries == 3
    assert {answer[1] for answer in run.answers.values()} == {1}
    assert (service.memo, service.loads, service.lock.locked()) == ({}, 0, False)
    assert vars(service) == before


# Limits ---------------------------------------------------------------------------------------


def test_too_much_to_look_through_is_said_and_held_against_nobody(monkeypatch):
    monkeypatch.setattr(memory, "MOST_OBJECTS", 50)
    rows = [[number] for number in range(100)]

    def actor(cache, db):
        cache.incr("n")
        return len(rows)

    said = "actor reaches more than 50 objects, the last a list"
    with pytest.raises(stage.Limit, match=said):
        stage.run([actor])
    verdict = stage.explore([actor, actor], lambda world: None)
    assert verdict.outcome == "proved nothing"
    assert said in verdict.summary


def test_memory_is_the_callers_own_however_a_run_ends(nothing_kept):
    kept, ends = [1], {"stuck": lambda: threading.Event().wait(), "interrupt": _interrupt}
    for name, end in ends.items():

        def actor(cache, db, end=end):
            kept.append(cache.get("k"))
            try:
                end()
            finally:
                kept.append("unwinding")

        with pytest.raises((stage.Stuck, KeyboardInterrupt)):
            stage.run({"a": actor, "b": lambda: kept.clear()})
        assert kept in ([1, None], [1, None, "unwinding"]), name
        del kept[1:]


def _interrupt():
    raise KeyboardInterrupt
