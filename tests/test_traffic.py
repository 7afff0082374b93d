"""Bursts of real readers, in one process and in several, and streams of arrivals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import pairwise

import psutil
import pytest

from cachelab import stage
from cachelab.cache import server as servers
from cachelab.lab import Lab
from cachelab.lab.traffic import TrafficError, burst, poisson, source_of
from cachelab.patterns import cache_aside, single_flight, token_lock

KEY = "product:v1:1"
OTHER = 7


def naive(cache, db):
    return cache_aside.read(cache, KEY, lambda: db.product(1), 300)


def locked(cache, db):
    return token_lock.read(cache, KEY, lambda: db.product(1), 300, budget=30)


def guarded(cache, db):
    return single_flight.do(KEY, lambda: locked(cache, db))


def fails(cache, db):
    cache.get(KEY)
    raise ValueError(f"no {OTHER}")


def silent(cache, db):
    return math.sqrt(OTHER)


def tells_its_process(cache, db):
    cache.get(KEY)
    return os.getpid()


def ends_its_process(cache, db):
    os._exit(3)


@pytest.fixture(scope="module")
def shop() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def lab(shop: Lab) -> Lab:
    shop.clear()
    shop.db.latency, shop.db.capacity = 0.005, 1
    return shop


@pytest.fixture
def live(lab: Lab) -> Lab:
    if not lab.server.is_live:
        pytest.skip("there is no real server on this machine")
    return lab


# One process -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("reader", "queries"), [(naive, 800), (guarded, 1)])
@pytest.mark.slow
def test_800_readers_at_once_get_an_answer_each_and_ask_as_the_stage_says(lab, reader, queries):
    run = burst(lab, reader, 800)
    assert run.errors == []
    assert run.answers == [lab.db.product(1)] * 800
    staged = stage.run([reader] * 800, latency=0.005, capacity=1)
    assert run.queries == staged.queries == queries


def test_a_burst_waits_its_turn_at_the_database(lab):
    run = burst(lab, naive, 100)
    assert 0.5 <= run.seconds < 5  # 100 times 5 ms; the upper bound is for a busy machine
    assert max(run.waits) >= 0.5
    lab.db.capacity = 20
    lab.clear()
    assert burst(lab, naive, 100).seconds < run.seconds


def test_the_trace_of_a_burst_and_of_the_lab_hold_all_that_happened(lab):
    before = lab.db.queries
    run = burst(lab, naive, 40)
    assert (run.trace.misses, run.trace.fills, run.trace.queries) == (40, 40, 40)
    assert sorted(run.trace.actors) == sorted(f"reader-{n}" for n in range(1, 41))
    assert lab.trace.queries == 40
    assert lab.db.queries == before + 40


def test_readers_who_come_over_some_time_find_what_the_first_has_left(lab):
    lab.db.latency = 0.02
    run = burst(lab, naive, 50, over=0.5)
    assert len(run.answers) == 50
    assert 1 <= run.queries < 50
    first = {event.actor: event.at for event in reversed(run.trace.events)}
    assert max(first.values()) - min(first.values()) >= 0.4


def test_what_a_reader_raises_is_an_error_of_the_burst_and_the_others_go_on(lab):
    run = burst(lab, fails, 5)
    assert run.errors == ["ValueError: no 7"] * 5
    assert repr(run) == "5 readers | 0 answers | 5 errors | 0 origin queries"


def test_a_reader_who_asks_nobody_holds_nothing_up(lab):
    assert burst(lab, silent, 5).answers == [math.sqrt(7)] * 5


def test_after_a_burst_the_database_is_open_to_all(lab):
    for reader in (naive, fails):
        burst(lab, reader, 3)
        began = time.monotonic()
        lab.db.product(2)
        assert time.monotonic() - began < 2


# Several processes -----------------------------------------------------------------------------


@pytest.mark.parametrize(("reader", "queries"), [(naive, 800), (guarded, 1)])
@pytest.mark.slow
def test_in_four_processes_800_readers_ask_as_often_as_in_one(live, reader, queries):
    before = live.db.queries
    run = burst(live, reader, 800, processes=4)
    assert run.errors == []
    assert run.queries == live.db.queries - before == queries
    assert run.answers == [live.db.product(1)] * 800
    said = "queries" if queries > 1 else "query"
    assert repr(run) == (
        f"800 readers in 4 processes | 800 answers | 0 errors | {queries} origin {said}"
    )


def test_the_processes_are_real_and_gone_afterwards(live):
    run = burst(live, tells_its_process, 12, processes=3)
    pids = set(run.answers)
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.slow
def test_the_slots_of_the_database_are_shared_by_all_processes(live, slots):
    live.db.latency, live.db.capacity = 0.05, slots
    run = burst(live, naive, 30, processes=3)
    spans = [(event.at - event.took, event.at) for event in run.trace.of("query")]
    # Clocks are read before and after the slot is held, on a busy machine long before: two may
    # touch, but not be the same 50 ms.
    most = max(sum(a <= at < b - 0.04 for a, b in spans) for at, _ in spans)
    assert most <= slots
    assert run.seconds >= 30 * 0.05 / slots * 0.9


def test_events_of_other_processes_stand_in_the_labs_trace_in_order_of_time(live):
    started = live.trace.clock()
    run = burst(live, naive, 20, processes=2)
    times = [event.at for event in run.trace]
    assert times == sorted(times)
    assert started - 0.1 <= times[0] <= times[-1] <= live.trace.clock() + 0.1
    assert len(live.trace) == len(run.trace)


def test_a_process_that_ends_before_its_time_is_one_sentence(live):
    with pytest.raises(TrafficError, match=r"A process of readers ended before its time: .+\.$"):
        burst(live, ends_its_process, 4, processes=2)
    assert burst(live, silent, 4, processes=2).errors == []


def test_an_error_in_another_process_comes_home(live):
    assert burst(live, fails, 4, processes=2).errors == ["ValueError: no 7"] * 4


def test_without_a_real_server_other_processes_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv("CACHELAB_BACKEND", "fake")
    lab = Lab()
    try:
        assert burst(lab, naive, 20).queries == 20
        with pytest.raises(TrafficError, match="fakeredis lives inside this process"):
            burst(lab, naive, 20, processes=2)
    finally:
        lab.close()


def test_a_server_that_is_not_ours_is_read_under_our_prefix_by_every_process(live, monkeypatch):
    foreign = servers.find(tcp=True)
    if not foreign.is_ours:
        pytest.skip("no server of our own to play the stranger's")
    try:
        address = foreign.address
        url = f"redis://:{address['password']}@127.0.0.1:{address['port']}/0"
        monkeypatch.setenv("CACHELAB_REDIS_URL", url)
        lab = Lab()
        try:
            run = burst(lab, naive, 12, processes=2)
            assert (run.queries, run.errors) == (12, [])
            with foreign.client() as client:
                assert [key.endswith(KEY) and key != KEY for key in client.keys()] == [True]
        finally:
            lab.close()
    finally:
        foreign.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_processes_of_readers_die_with_the_one_that_started_them(live, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import threading, time
            from cachelab.lab import traffic
            from cachelab.lab import Lab

            def slow(cache, db):
                cache.get("k")
                time.sleep(30)

            lab = Lab()
            threading.Thread(target=lambda: traffic.burst(lab, slow, 4, processes=2)).start()
            """
        )
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    children: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 30
        while len(children) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
            found = psutil.Process(parent.pid).children(recursive=True)
            children = [child for child in found if "cachelab.lab.traffic" in _line(child)]
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


# What travels ----------------------------------------------------------------------------------


def test_a_reader_travels_with_all_that_it_uses():
    text = source_of(guarded)
    space: dict = {}
    exec(text, space)
    assert space["KEY"] == KEY
    assert callable(space["locked"])
    assert space["single_flight"] is single_flight


def _closure():
    inner = 3
    return lambda cache, db: inner


MADE_HERE = object()


def uses_an_object(cache, db):
    return MADE_HERE


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (lambda cache, db: 1, "write it as a plain `def`; this is '<lambda>'"),
        (_closure(), "write it as a plain `def`"),
        (uses_an_object, "uses_an_object uses MADE_HERE (object), which cannot go"),
    ],
)
def test_a_reader_that_cannot_travel_is_told_why_in_one_sentence(live, reader, said):
    with pytest.raises(TrafficError) as caught:
        burst(live, reader, 2, processes=2)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("readers", "options"),
    [(0, {}), (5_000, {}), (2, {"processes": 3}), (2, {"processes": 0}), (2, {"over": -1})],
)
def test_a_burst_that_makes_no_sense_is_refused_in_one_sentence(lab, readers, options):
    with pytest.raises(TrafficError) as caught:
        burst(lab, naive, readers, **options)
    assert str(caught.value).endswith(".")


# Streams ---------------------------------------------------------------------------------------


def test_poisson_arrivals_have_the_rate_and_the_spread_that_they_should():
    times = poisson(50, 400, seed=1)
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 400
    assert abs(len(times) - 20_000) < 4 * math.sqrt(20_000)
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert math.sqrt(variance) == pytest.approx(mean, rel=0.05)  # exponential, not even


def test_the_same_seed_gives_the_same_stream_in_every_process():
    told = subprocess.run(
        [sys.executable, "-c", "from cachelab.lab.traffic import poisson; print(poisson(2, 9, 5))"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    assert json.loads(told.stdout) == poisson(2, 9, 5)
    assert poisson(2, 9, 6) != poisson(2, 9, 5)


@pytest.mark.parametrize(("rate", "seconds"), [(0, 5), (5, 0), (1e9, 1e9), (-1, 5)])
def test_a_stream_that_makes_no_sense_is_refused(rate, seconds):
    with pytest.raises(ValueError, match="arrivals"):
        poisson(rate, seconds)
