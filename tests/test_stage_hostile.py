"""What answers do that no answer should, and that the stage is clean after it."""

from __future__ import annotations

import _socket
import _thread
import asyncio
import contextlib
import datetime
import gc
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from time import time as now

import pytest

from cachelab import stage
from cachelab.process.patience import Patience
from cachelab.record.trace import Trace

MODULE_LOCK = threading.Lock()


def everything_that_may_be_patched():
    return {
        "time": [getattr(time, name) for name in dir(time)],
        "threading": [getattr(threading, name) for name in dir(threading)],
        "Thread": [getattr(threading.Thread, name) for name in ("start", "join", "is_alive")],
        "queue": [getattr(queue, name) for name in dir(queue)],
        "datetime": [datetime.datetime, datetime.date],
        "os": [os.urandom, os._exit, os.abort, os.system, os.fork],
        "random": [random._urandom],
        "socket": [getattr(socket.socket, name) for name in ("connect", "send", "recv")],
        "subprocess": [subprocess.run, subprocess.Popen.__init__],
        "asyncio": [asyncio.run, asyncio.base_events.BaseEventLoop.run_forever],
        "here": [sleep, now, MODULE_LOCK, datetime.datetime],
        "rest": [gc.isenabled(), signal.getsignal(signal.SIGALRM)],
        "timer": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
    }


def redirected_still():
    """Functions and methods written in C that go somewhere else than where they come from."""
    functions = [
        f"{module.__name__}.{name}"
        for module in (time, os, _thread, _socket)
        for name, value in vars(module).items()
        if isinstance(value, types.BuiltinFunctionType)
        and not isinstance(value.__self__, types.ModuleType)
    ]
    kinds = (type(MODULE_LOCK), type(threading.RLock()), queue.SimpleQueue, datetime.datetime)
    methods = [
        f"{kind.__name__}.{name}"
        for kind in kinds
        for name, value in vars(kind).items()
        if isinstance(value, (types.FunctionType, classmethod, property))
    ]
    return functions + methods


@pytest.fixture(autouse=True)
def nothing_stays_patched():
    before, threads = everything_that_may_be_patched(), set(threading.enumerate())
    yield
    assert everything_that_may_be_patched() == before
    # One of an earlier test's may end meanwhile; none may be new.
    assert set(threading.enumerate()) - threads == set()
    assert redirected_still() == []
    assert stage.run([good]).answers == {"good": "v"}  # the stage is clean for the next run


def good(cache, db):
    with MODULE_LOCK:
        cache.set("k", "v")
        return cache.get("k")


def crowd(bad):
    """800 actors, one of them bad."""
    return [good] * 400 + [stage.Actor("bad", bad)] + [good] * 399


def busy():
    while True:
        pass


def stubborn():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


def stubborn_to_the_end(cache, db):
    while True:
        try:
            cache.get("k")
            while True:
                sleep(1)
        except BaseException:
            pass


def polls(cache, db):
    while cache.get("never") is None:
        pass


def polls_and_sleeps(cache, db):
    while cache.get("never") is None:
        sleep(3600)


def waits_for_ever():
    threading.Event().wait()


def takes_twice():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def joins_the_waiting():
    thread = threading.Thread(target=waits_for_ever)
    thread.start()
    thread.join()


def writes_twice(cache, db):
    with db.engine.begin() as one, db.engine.begin() as other:
        one.exec_driver_sql("UPDATE users SET bio = 'x'")
        other.exec_driver_sql("UPDATE users SET bio = 'y'")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (busy, "bad did not come back within 3 s: a loop without"),
        (stubborn, "bad did not come back within 3 s"),
        (polls, "takes longer than 3 s of real time: .* the last by bad"),
        (polls_and_sleeps, "Not finished after 720 h of virtual time: bad waits for the end of"),
        (waits_for_ever, "Nobody can go on: bad waits for a notification.$"),
        (takes_twice, "Nobody can go on: bad waits for a lock, held by bad"),
        (joins_the_waiting, "bad waits for the end of bad/thread-1; bad/thread-1 waits for"),
        (writes_twice, "bad waits for the database's writer, held by bad"),
    ],
)
@pytest.mark.slow
def test_an_actor_without_an_end_is_a_verdict_that_names_it(bad, said):
    limit = Patience(20)
    with pytest.raises(stage.Stuck, match=said) as stuck:
        stage.run(
            crowd(bad), wall_limit=10 if bad is polls_and_sleeps else 3 if bad in SHORT else 9
        )
    assert limit.left() > 0
    assert "\n" not in str(stuck.value)
    assert isinstance(stuck.value.trace, stage.StageTrace)


def test_a_clock_that_rings_while_the_actors_are_closed_changes_nothing(monkeypatch):
    """The alarm goes on ringing until all are closed; here, at the worst moment of each."""
    acting, rung = Trace.acting, []

    @contextlib.contextmanager
    def ringing(self, name):
        with acting(self, name):
            yield
        if name.startswith("waits"):  # for ever: they come here when they are closed
            rung.append(name)
            signal.raise_signal(signal.SIGALRM)

    def waits(cache, db):
        with contextlib.suppress(BaseException):
            threading.Event().wait()

    monkeypatch.setattr(Trace, "acting", ringing)
    with pytest.raises(stage.Stuck, match="bad did not come back within"):
        stage.run([waits] * 5 + [stage.Actor("bad", busy)], wall_limit=0.2)
    assert len(rung) == 5


SHORT = (busy, stubborn, polls)


def test_an_actor_that_catches_its_own_end_is_left_behind():
    with pytest.raises(stage.Stuck, match="virtual time"):
        stage.run([stubborn_to_the_end], limit_seconds=100)


def raises(cache, db):
    raise LookupError("no such thing")


def leaves(cache, db):
    sys.exit(3)


def leaves_at_once(cache, db):
    os._exit(4)


def recurses(cache, db):
    return recurses(cache, db)


def not_implemented(cache, db):
    raise NotImplementedError("05_cache_aside.read")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (raises, LookupError),
        (leaves, SystemExit),
        (leaves_at_once, SystemExit),
        (recurses, RecursionError),
        (not_implemented, NotImplementedError),
    ],
)
@pytest.mark.slow
def test_what_one_actor_raises_is_its_answer_and_the_others_go_on(bad, kind):
    trace = stage.run(crowd(bad))
    assert isinstance(trace.answers["bad"], kind)
    assert sum(answer == "v" for answer in trace.answers.values()) == 799
    assert [event.actor for event in trace.of("error")] == ["bad"]


def runs_asyncio():
    async def nothing():
        return 1

    coroutine = nothing()
    try:
        asyncio.run(coroutine)
    finally:
        coroutine.close()


async def is_async(cache, db):
    return 1


def connects():
    socket.create_connection(("127.0.0.1", 9))


def connects_by_hand():
    with socket.socket() as line:
        line.connect(("127.0.0.1", 9))


def starts_a_process():
    subprocess.run(["true"], check=True)


def starts_a_process_by_hand():
    os.system("true")


def runs_a_stage():
    stage.run([good])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (runs_asyncio, "asyncio cannot run inside an actor"),
        (is_async, "asyncio cannot run inside an actor"),
        (connects, "network connection"),
        (connects_by_hand, "network connection"),
        (starts_a_process, "cannot start a process"),
        (starts_a_process_by_hand, "cannot start a process"),
        (runs_a_stage, "cannot run a stage of its own"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(bad, said):
    plain = runs_asyncio if bad is is_async else bad

    def in_a_thread(cache, db):
        thread = threading.Thread(target=plain)
        thread.start()
        thread.join()
        return "went on"

    def catches(cache, db):
        with contextlib.suppress(Exception):
            plain()

    for actor in (bad, in_a_thread, catches):
        with pytest.raises(stage.Refused, match=said) as refused:
            stage.run({"bad": actor, "other": good})
        assert "\n" not in str(refused.value)
        with pytest.raises(stage.Refused, match=said):
            stage.explore({"bad": actor, "other": good}, lambda world: None)


def test_a_transaction_that_is_left_open_is_rolled_back_with_a_note():
    kept = []

    def leaks(cache, db):
        session = db.session()
        kept.append(session)
        session.execute(stage_update())
        return "left"

    def next_writer(cache, db):
        db.update_user(1, bio="mine")

    trace = stage.run({"leaks": leaks, "next": next_writer})
    assert trace.answers == {"leaks": "left", "next": None}
    assert [event.what for event in trace.of("note")] == [
        "left its transaction open: it is rolled back"
    ]
    assert trace.world.db.user(1)["bio"] == "mine"
    kept[0].close()


def stage_update():
    import sqlalchemy as sa

    from cachelab.origin import User

    return sa.update(User).where(User.id == 2).values(bio="leaked")


def test_a_table_that_an_actor_drops_is_back_in_the_next_run():
    def drops(cache, db):
        with db.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE users")

    def reads(cache, db):
        sleep(1)
        return db.user(1)

    trace = stage.run([drops, reads])
    assert "no such table" in str(trace.answers["reads"])
    assert stage.run([lambda c, d: d.user(1)["name"]]).answers["actor"] == "Alice"


def test_a_ctrl_c_is_passed_on_and_leaves_nothing_patched():
    def interrupted():
        sleep(1)
        signal.raise_signal(signal.SIGINT)
        sleep(1)

    with pytest.raises(KeyboardInterrupt):
        stage.run([good, interrupted, good])


def test_a_ctrl_c_while_the_stage_explores_is_passed_on_too():
    def interrupted(cache, db):
        cache.get("k")
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        stage.explore([good, interrupted], lambda world: None)


def test_other_threads_keep_the_real_time_while_a_stage_runs():
    seen, over = [], threading.Event()

    def heartbeat():
        while not over.is_set():
            seen.append((time.time(), datetime.datetime.now().timestamp(), type(threading.Lock())))
            time.sleep(0.005)

    thread = threading.Thread(target=heartbeat)
    thread.start()
    began = time.time()
    try:
        for _ in range(3):
            stage.run([lambda: time.sleep(10**6)] * 300)
    finally:
        over.set()
        thread.join()
    assert len(seen) > 3
    for wall, local, lock in seen:
        assert began - 1 < wall < began + 100
        assert abs(wall - local) < 1
        assert lock is type(_thread.allocate_lock())


def test_another_thread_lives_on_for_everybody_who_asks_while_a_stage_runs():
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        assert stage.run([lambda cache, db: other.is_alive()]).answers == {"actor": True}
        assert other.is_alive()
    finally:
        over.set()
        other.join(10)


def test_a_thread_of_a_library_is_left_as_it_is():
    class Theirs(threading.Thread):
        __module__ = "ipykernel.thread"

    theirs = Theirs(name="theirs")
    theirs.lock = threading.Lock()
    answers = stage.run([lambda cache, db: type(theirs.lock).__module__]).answers
    assert answers == {"actor": "_thread"}


def test_other_threads_may_begin_and_end_while_a_stage_runs():
    guard = threading.Condition()

    def actor(cache, db):
        with guard:
            return type(threading._active_limbo_lock).__module__

    assert stage.run([actor]).answers == {"actor": "_thread"}


def test_a_thread_made_before_the_run_is_started_by_an_actor():
    class Counting(threading.Thread):
        def __init__(self):
            super().__init__(name="counting")
            self.lock, self.count = threading.Lock(), 0

        def run(self):
            with self.lock:
                time.sleep(5)
                self.count += 1

    made = Counting()

    def actor(cache, db):
        made.start()
        time.sleep(1)
        with made.lock:
            return made.is_alive(), made.count

    ran = stage.run([actor])
    assert ran.answers["actor"][1] == 1
    assert ran.seconds >= 5


def test_a_stage_runs_in_a_thread_that_is_not_the_main_one():
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(stage.run, [good] * 20).result(30).answers) == 20
        with pytest.raises(stage.Stuck, match="did not come back"):
            pool.submit(stage.run, [good, busy], wall_limit=0.5).result(30)


def test_a_busy_loop_ends_an_exploration_too():
    def loops(cache, db):
        cache.set("k", 1)
        busy()

    with pytest.raises(stage.Stuck, match="did not come back"):
        stage.explore([loops, good], lambda world: None, wall_limit=0.5)


def test_a_module_first_imported_by_an_actor_keeps_no_stand_in(tmp_path, monkeypatch):
    (tmp_path / "freshly_imported.py").write_text(
        "from time import sleep, time\nfrom threading import Lock\nfrom datetime import datetime\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def imports():
        import freshly_imported

        began = freshly_imported.time()
        freshly_imported.sleep(60)
        return freshly_imported.time() - began

    assert stage.run({"a": imports}).answers["a"] == 60
    module = sys.modules.pop("freshly_imported")
    assert (module.sleep, module.time) == (time.sleep, time.time)
    assert (module.Lock, module.datetime) == (threading.Lock, datetime.datetime)


def test_defaults_attributes_and_closures_that_hold_a_clock_follow_the_virtual_one():
    class Clocked:
        clock = time.monotonic

        def __init__(self, timer=time.time):
            self.timer = timer
            self.lock = threading.Lock()

    def make():
        rest, held = sleep, Clocked()

        def actor(pause=sleep):
            with held.lock:
                began = (held.timer(), Clocked.clock(), now())
                rest(10)
                pause(10)
                return [
                    b - a
                    for a, b in zip(began, (held.timer(), Clocked.clock(), now()), strict=True)
                ]

        return actor, held

    actor, held = make()
    trace = stage.run([stage.Actor(name, actor, process="pod") for name in "ab"])
    assert trace.answers == {"a": [20, 20, 20], "b": [20, 20, 20]}
    assert trace.elapsed == 40
    assert held.timer is time.time
    assert actor.__defaults__ == (time.sleep,)
    assert type(held.lock) is type(_thread.allocate_lock())


LEAVES_INSIDE_A_FENCE = """
import os
from cachelab import stage
from cachelab.process import limits

def leaves_at_once(cache, db):
    os._exit(4)

ended = limits.run(stage.run, {"bad": leaves_at_once})
print(ended.how, ended.value and type(ended.value.answers["bad"]).__name__)
"""


def test_an_actor_that_ends_the_process_inside_a_fence_is_stopped():
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_INSIDE_A_FENCE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "returned Left"), done


FIRST_RUN_INSIDE_A_FENCE = """
import os
from cachelab import stage
from cachelab.process import limits

def asks(cache, db):
    return cache.get("k")

def leaves_at_once(cache, db):
    os._exit(4)

assert limits.run(stage.run, [asks]).how == "returned"
answers = stage.run({"bad": leaves_at_once, "good": asks}).answers
print(type(answers["bad"]).__name__)
"""


def test_a_stage_that_first_ran_inside_a_fence_still_catches_an_exit():
    done = subprocess.run(
        [sys.executable, "-c", FIRST_RUN_INSIDE_A_FENCE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "SystemExit"), done.stderr
