"""Whatever actors hold, reach or import, it follows the stage, and is as before when it is over."""

from __future__ import annotations

import datetime
import functools
import importlib
import os
import queue
import random
import subprocess
import sys
import threading
import time
import types
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, sleep

import pytest

from cachelab import stage
from cachelab.process.redirect import Methods, Original, Redirected

# Clocks and locks, wherever they are kept -----------------------------------------------------


@dataclass(slots=True)
class Slotted:
    held: object


class ReadOnly:
    """Something that hands out what it holds by code of its own."""

    def __init__(self, held):
        self.__held = held

    @property
    def held(self):
        return self.__held


def in_a_default(held):
    return lambda held=held: held


def in_a_tuple(held):
    box = ((held,),)
    return lambda: box[0][0]


def in_slots(held):
    return functools.partial(getattr, Slotted(held), "held")


def in_an_attribute(held):
    return functools.partial(getattr, types.SimpleNamespace(held=held), "held")


def behind_a_property(held):
    return functools.partial(getattr, ReadOnly(held), "held")


def in_a_module(held):
    module = types.ModuleType("a_service")
    module.held = held
    return lambda: module.held


def in_a_class(held):
    kind = type("Kind", (), {"held": staticmethod(held) if callable(held) else held})
    return lambda: kind.held


def in_a_partial(held):
    return functools.partial(lambda one: one, held)


def in_a_deque(held):
    box = {"k": deque([held])}
    return lambda: box["k"][0]


def in_a_factory(held):
    box = defaultdict(lambda: held)
    return lambda: box["k"]


PLACES = [
    in_a_default,
    in_a_tuple,
    in_slots,
    in_an_attribute,
    behind_a_property,
    in_a_module,
    in_a_class,
    in_a_partial,
    in_a_deque,
    in_a_factory,
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "clock", [time.time, time.monotonic, time.perf_counter, monotonic, datetime.datetime.now]
)
def test_a_clock_kept_in_any_place_is_virtual_on_the_stage_and_real_after_it(place, clock):
    if clock == datetime.datetime.now:
        read = place(lambda: datetime.datetime.now().timestamp())
    else:
        read = place(clock)

    def actor():
        began = read()()
        time.sleep(3600)
        return read()() - began

    real = time.time()
    assert stage.run({"a": actor}).answers["a"] == pytest.approx(3600)
    assert time.time() - real < 60
    assert read()() - read()() < 60


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "make", [threading.Lock, threading.RLock, threading.Condition, threading.Semaphore]
)
def test_a_lock_kept_in_any_place_makes_threads_of_one_process_wait_on_the_stage(place, make):
    lock = make()
    find = place(lock)
    inside = []

    def actor():
        def work():
            with find():
                inside.append(1)
                assert len(inside) == 1
                sleep(1)
                inside.pop()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return "done"

    trace = stage.run({"a": actor})
    assert (trace.answers, trace.elapsed) == ({"a": "done"}, 3)
    assert exclusive(lock)


def test_a_condition_an_event_and_a_queue_of_earlier_wake_those_who_wait():
    condition, event, line = threading.Condition(), threading.Event(), queue.SimpleQueue()

    def actor():
        def tell():
            sleep(1)
            with condition:
                condition.notify()
            event.set()
            line.put("item")

        threading.Thread(target=tell).start()
        with condition:
            told = condition.wait(5)
        return told, event.wait(5), line.get(timeout=5), time.monotonic() - 1024

    assert stage.run({"a": actor}).answers["a"] == (True, True, "item", 1.0)
    assert line.empty()


def test_thread_locals_of_any_class_are_each_threads_own():
    class Own(threading.local):
        def __init__(self):
            self.names = []

    plain, own = threading.local(), Own()
    plain.name, own.names = "caller", ["caller"]

    def actor():
        me = threading.current_thread().name
        seen = hasattr(plain, "name"), list(own.names)
        plain.name = me
        own.names.append(me)
        sleep(1)
        return seen, plain.name, own.names

    for _ in range(2):
        answers = stage.run({"a": actor, "b": actor}).answers
        assert answers == {name: ((False, []), name, [name]) for name in "ab"}
    assert (plain.name, own.names) == ("caller", ["caller"])


def test_threads_that_actors_ask_about_are_known_only_while_they_run():
    def actor():
        me = threading.current_thread()
        return me.name, me.ident == threading.get_ident(), me in threading.enumerate()

    before = threading.enumerate()
    assert stage.run({"a": actor, "b": actor}).answers == {n: (n, True, True) for n in "ab"}
    assert threading.enumerate() == before


@pytest.mark.parametrize("used_before", [False, True])
def test_a_pool_of_threads_has_its_real_workers_again(used_before):
    with ThreadPoolExecutor(2) as pool:
        if used_before:
            assert pool.submit(int, "1").result(10) == 1

        def actor():
            return list(pool.map(lambda n: (sleep(n), n)[1], (3, 1, 2)))

        assert stage.run({"a": actor}).answers == {"a": [3, 1, 2]}
        assert pool.submit(int, "42").result(10) == 42


# What runs code when it is looked at ----------------------------------------------------------


class Evaluated(RuntimeError):
    """Somebody has looked into a lazy object."""


def _evaluate(*_):
    raise Evaluated


class Proxy:
    """What werkzeug's LocalProxy and lazy settings do."""

    __dict__ = property(_evaluate)
    __class__ = property(_evaluate)
    __getattr__ = __iter__ = __len__ = __eq__ = __bool__ = __call__ = _evaluate
    __hash__ = _evaluate


class LazyModule(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise Evaluated(name)


def test_what_is_lazy_is_never_evaluated():
    proxy, module = Proxy(), LazyModule("lazy")
    kept = {"proxy": [proxy], "module": module}

    class Holder:
        lazy = proxy

        def __init__(self):
            self.settings = proxy

    holder = Holder()

    def actor(cache, db, given=proxy):
        cache.get("k")
        return "fine" if cache.get("k") is None else (kept, holder, given, module)

    assert stage.run({"a": actor, "b": actor}).answers == {"a": "fine", "b": "fine"}
    stage.explore({"a": actor, "b": actor}, lambda world: None)


# What an actor imports ------------------------------------------------------------------------

LIBRARY = """
import threading, time
from datetime import datetime
from queue import SimpleQueue
from threading import Lock, RLock
from time import monotonic

lock, rlock, condition = threading.Lock(), threading.RLock(), threading.Condition()
line, local = SimpleQueue(), threading.local()

class Map:
    lock_class = Lock
    clock = monotonic
    def __init__(self, clock=time.time):
        self.lock, self.timer = self.lock_class(), clock

class Moment(datetime):
    def plus(self):
        return 1

class Slotted(threading.Thread):
    def run(self):
        pass
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The name of a module that nobody has imported."""
    name = f"library_{random.randrange(10**9)}"
    (tmp_path / f"{name}.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


ENDS = {
    "passed": lambda: None,
    "failed": lambda: 1 / 0,
    "stuck": lambda: threading.Event().wait(),
    "interrupted": lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    "left": lambda: os._exit(3),
}


@pytest.mark.parametrize("end", [*ENDS, "crashed"])
def test_a_module_first_imported_by_an_actor_is_a_real_one_however_the_run_ends(library, end):
    def actor(cache, db):
        module = importlib.import_module(library)
        with module.lock, module.rlock, module.Map().lock:
            cache.get("k")
        module.local.name = "actor"
        module.lock.acquire()
        began = module.monotonic(), module.Map().clock(), module.Map().timer()
        sleep(10)
        cache.get("k")
        assert module.monotonic() - began[0] == 10
        ENDS.get(end, ENDS["passed"])()

    crash = ("actor", 2) if end == "crashed" else None
    try:
        stage.run([actor], crash=crash)
    except (stage.Stuck, KeyboardInterrupt):
        assert end in ("stuck", "interrupted")
    module = importlib.import_module(library)
    for lock in (module.lock, module.rlock, module.condition, module.Map().lock):
        assert exclusive(lock)
    assert module.Map.lock_class is threading.Lock
    assert module.Map.clock is time.monotonic
    assert abs(module.Map().timer() - time.time()) < 60
    assert module.Moment(2026, 1, 1).plus() == 1
    assert type(module.Moment.now()) is module.Moment
    assert not hasattr(module.local, "name")
    with pytest.raises(queue.Empty):
        module.line.get(timeout=0.01)
    thread = module.Slotted()
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def exclusive(lock):
    """Whether of four real threads one at a time has it, and it is free afterwards."""
    inside, most = [], []

    def work():
        for _ in range(3):
            with lock:
                inside.append(1)
                most.append(len(inside))
                sleep(0.001)
                inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result(20)
    return most == [1] * 12


# The mechanism --------------------------------------------------------------------------------


def test_a_redirected_function_is_another_for_all_who_hold_it_and_then_the_same_again():
    held = [time.perf_counter]
    real = Original(time.perf_counter)
    redirected = Redirected(time.perf_counter, lambda *args, **more: (args, more))
    for _ in range(3):
        redirected.on()
        try:
            assert held[0](1, 2, three=3) == ((1, 2), {"three": 3})
            assert isinstance(real(), float)
        finally:
            redirected.off()
        assert isinstance(held[0](), float)
    assert time.perf_counter.__self__ is time


def test_what_a_redirected_function_raises_is_raised():
    redirected = Redirected(time.sleep, _evaluate)
    redirected.on()
    try:
        with pytest.raises(Evaluated):
            sleep(1)
    finally:
        redirected.off()


def test_a_method_of_a_type_in_c_is_another_also_for_what_is_derived_from_it():
    class Derived(datetime.datetime):
        pass

    methods = Methods(datetime.datetime, {"now": classmethod(lambda cls, tz=None: (cls, tz))})
    methods.on()
    try:
        assert Derived.now(3) == (Derived, 3)
    finally:
        methods.off()
    assert type(Derived.now()) is Derived


# A thousand runs ------------------------------------------------------------------------------

A_THOUSAND_RUNS = """
import gc, importlib, random, sys, threading, time, types, warnings
from importlib.util import find_spec

from cachelab import stage

warnings.simplefilter("ignore")
NAMES = [
    "cachetools", "concurrent.futures", "decimal", "django.conf", "django.utils.functional",
    "email.message", "flask", "http.cookiejar", "jinja2", "logging.config", "multiprocessing.pool",
    "sched", "smtplib", "tempfile", "tornado.ioloop", "unittest.mock", "urllib.request",
    "werkzeug.local", "xml.sax", "zipfile", "zoneinfo",
]
NAMES = [name for name in NAMES if find_spec(name.partition(".")[0])]
LOCKS = (type(threading.Lock()), type(threading.RLock()))

def all_locks():
    return {
        id(value): value
        for holder in gc.get_objects()
        for value in gc.get_referents(holder) if type(value) in LOCKS
    }

held = [lock for lock in all_locks().values() if not lock.acquire(blocking=False)]  # of threads
[lock.release() for lock in all_locks().values() if lock not in held]

def uses(cache, db):
    name = random.choice(NAMES)
    module = importlib.import_module(name)
    cache.incr(name)
    if name == "flask":
        from flask import current_app, Flask
        app = Flask("shop")
        with app.app_context():
            return current_app.name, time.sleep(1)
    if name == "django.conf":
        return module.settings.configured, time.sleep(1)
    if name == "cachetools":
        memo = module.TTLCache(9, ttl=5)
        memo["k"] = 1
        time.sleep(6)
        assert "k" not in memo
    with threading.Condition() as told:
        told.wait(random.random())
    return name

def raises(cache, db):
    importlib.import_module(random.choice(NAMES))
    raise LookupError("no such thing")

def waits(cache, db):
    importlib.import_module(random.choice(NAMES))
    with threading.Lock():
        threading.Event().wait()

def interrupts(cache, db):
    importlib.import_module(random.choice(NAMES))
    raise KeyboardInterrupt

def snapshot():
    return {
        (name, key): value
        for name, module in list(sys.modules.items())
        if type(module) is types.ModuleType
        for key, value in list(vars(module).items())
        if type(value) not in (int, float, str)  # counters, and the names of files
    }

def one_run(draw):
    kind = draw.choice([uses, uses, raises, waits, interrupts])
    crash = ("first", draw.randint(1, 3)) if draw.random() < 0.2 else None
    try:
        if draw.random() < 0.1:
            stage.explore({"first": kind, "second": uses}, lambda world: None, limit=5)
        else:
            stage.run({"first": kind, "second": uses}, seed=draw.randrange(99), crash=crash)
    except (stage.Stuck, KeyboardInterrupt):
        pass

draw = random.Random(6)
for _ in range(60):  # all are imported, and have made what they make once
    one_run(draw)
before = snapshot()
for _ in range(1_000):
    one_run(draw)
after = snapshot()
changed = sorted(f"{m}.{k}" for (m, k) in before if after.get((m, k)) is not before[m, k])
print("changed:", [name for name in changed if not name.startswith("uuid._last")])
print("libraries:", len(NAMES), len([n for n in NAMES if n in sys.modules]))

locks = [lock for lock in all_locks().values() if lock not in held]
sys.setswitchinterval(1e-6)
wrong = 0
for lock in locks:
    if not lock.acquire(timeout=1):
        print("still locked:", lock)
        continue
    lock.release()
    inside, most = [], []
    def work():
        for _ in range(50):
            with lock:
                inside.append(1)
                most.append(len(inside))
                inside.pop()
    threads = [threading.Thread(target=work) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    wrong += most != [1] * 150
print("locks that let in two:", wrong, "of many" if len(locks) > 50 else len(locks))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_after_a_thousand_runs_of_every_end_nothing_is_left_behind():
    done = subprocess.run(
        [sys.executable, "-c", A_THOUSAND_RUNS], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2_000:]
    assert lines[0] == "changed: []"
    count, imported = map(int, lines[1].split()[1:])
    assert count == imported >= 12
    assert lines[2:] == ["locks that let in two: 0 of many"]
