"""The same seed gives the same trace, byte for byte, in any process and on a busy machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cachelab import stage

pytestmark = pytest.mark.slow

PROGRAM = """
import json, random, threading, time, uuid
from concurrent.futures import ThreadPoolExecutor
from sqlalchemy import text
from cachelab import stage

lock = threading.Lock()

def reader(cache, db):
    time.sleep(random.random() / 100)
    found = cache.get("user:1")
    if found is None:
        with cache.lock("lock:user:1", timeout=1, sleep=0.01):
            found = cache.get("user:1")
            if found is None:
                found = json.dumps(db.user(1))
                cache.set("user:1", found, px=30)
    cache.sadd("seen", uuid.uuid4().hex, threading.current_thread().name)
    return sorted(cache.smembers("seen"))[0], cache.srandmember("seen")

def writer(cache, db):
    for n in range(3):
        time.sleep(0.01)
        with db.session() as session:
            session.execute(text("UPDATE users SET bio = random() WHERE id = 1"))
            session.commit()
        cache.delete("user:1")
        cache.publish("news", n)
        cache.xadd("stream", {"bio": db.user(1)["bio"]})
    return db.user(1)["bio"]

def listener(cache, db):
    heard = cache.pubsub(ignore_subscribe_messages=True)
    heard.subscribe("news")
    got = []
    while len(got) < 2:
        message = heard.get_message(timeout=1)
        got += [message["data"]] if message else []
    with lock:
        cache.rpush("heard", *got)
    return got

def pool(cache, db):
    with ThreadPoolExecutor(3) as workers:
        return list(workers.map(lambda n: (time.sleep(n / 50), cache.incr("n"))[1], range(6)))

def play(seed=3):
    actors = [reader] * 12 + [writer, writer, listener, listener, pool]
    trace = stage.run(actors, seed=seed, latency=0.003, capacity=3, spread=0.05)
    return trace.to_json() + repr(trace.answers) + str(trace.world.cache.xrange("stream"))
"""
SPACE: dict = {"__name__": "a_learners_notebook"}
exec(compile(PROGRAM, "a_learners_notebook", "exec"), SPACE)
play = SPACE["play"]


@pytest.fixture(scope="module")
def first():
    text = play()
    assert "Error" not in text, text
    assert text.count('"kind"') > 100
    return text


def test_a_hundred_runs_of_one_seed_are_identical(first):
    assert {play() for _ in range(100)} == {first}


def test_another_seed_is_another_run(first):
    assert play(seed=4) != first


@pytest.mark.parametrize("busy", [False, True])
def test_fresh_processes_with_other_hash_seeds_give_the_same_bytes(first, busy, tmp_path):
    (tmp_path / "program.py").write_text(
        PROGRAM + "\nimport sys\nsys.stdout.buffer.write(play().encode())\n"
    )
    source = str(Path(stage.__file__).resolve().parents[2])
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 if busy else 0)
    ]
    try:
        for hash_seed in ("0", "1", "4242"):
            environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": source}
            done = subprocess.run(
                [sys.executable, str(tmp_path / "program.py")],
                env=environment,
                capture_output=True,
                timeout=60,
                check=True,
            )
            assert done.stdout.decode() == first
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_an_exploration_is_the_same_every_time():
    def reader(cache, db):
        found = cache.get("k")
        if found is None:
            cache.set("k", db.user(1)["bio"])
        return found or 1

    def writer(cache, db):
        db.update_user(1, bio="new")
        cache.delete("k")

    def fresh(world):
        return world.cache.get("k") in (None, world.db.user(1)["bio"])

    seen = set()
    for _ in range(5):
        verdict = stage.explore([reader, reader, writer], fresh)
        seen.add((str(verdict), verdict.counterexample.to_json(), verdict.orders, verdict.pruned))
    assert len(seen) == 1
    assert verdict.outcome == "failed"


A_LOCK_AFTER_THE_FIRST_PUBSUB = """
import threading
from cachelab import stage

def pod(cache, db):
    kept, news, turn = {}, cache.pubsub(ignore_subscribe_messages=True), None
    news.subscribe("flags")
    turn = threading.Lock()

    def listen():
        for message in news.listen():
            with turn:
                kept.pop(message["data"], None)

    threading.Thread(target=listen, daemon=True).start()
    value = db.flag("new_checkout")
    with turn:
        kept["new_checkout"] = value
    return kept

def admin(cache, db):
    db.set_flag("new_checkout", True)
    cache.publish("flags", "new_checkout")

def is_new(world):
    return world.answers["pod"].get("new_checkout", True) or "old"

for _ in range(2):
    found = stage.explore({"pod": pod, "admin": admin}, is_new)
    print(found.failing, found.orders)
"""


def test_the_first_exploration_of_a_process_finds_what_the_second_finds():
    done = subprocess.run(
        [sys.executable, "-c", A_LOCK_AFTER_THE_FIRST_PUBSUB],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "3 32\n3 32\n"
