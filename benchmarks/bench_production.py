"""The production cache beside a bare GET and three libraries: hits, cold bursts, a killed server.

With the word `pod` it is one of the four processes of a burst, and waits for orders.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.files import room_for
from benchmarks.table import Row, Target
from cachelab.cache import server as servers
from cachelab.lab.comparison import RIGS, Async, CountingOrigin, Place, Rig, bring_all, crowd
from cachelab.patterns.production import ProductionCache, connect

ROOT = Path(__file__).resolve().parents[1]
TITLE = "The production cache: a hit, a cold burst of 800, a killed server"
BUDGET = 50.0
VALUE = {"id": 1, "name": "office chair", "price_cents": 12_900}
LIBRARIES = ("dogpile.cache", "cashews", "aiocache", "the article")
SECONDS = 0.1  # of the origin, in a burst
ADDED = 0.05  # s; the most that a dead server may cost a reader


# A hit -------------------------------------------------------------------------------------------


def seconds(call: Callable[[], Any], reads: int) -> float:
    """For `reads` calls."""
    began = time.perf_counter()
    for _ in range(reads):
        call()
    return time.perf_counter() - began


def rounds_of(rig: Rig, reads: int) -> Callable[[], float]:
    """A function that makes `reads` hits and gives the seconds; in the loop, for coroutines."""
    rig.read("k", lambda: VALUE)

    async def hits() -> float:
        assert isinstance(rig, Async)
        began = time.perf_counter()
        for _ in range(reads):
            await rig.aread("k", lambda: VALUE)
        return time.perf_counter() - began

    if isinstance(rig, Async):
        return lambda: float(rig.do(hits()).result())
    return lambda: seconds(lambda: rig.read("k", lambda: VALUE), reads)


def on_cores(server: Any, cores: list[int], ours: list[int]) -> None:
    """Keep every thread of the server on `cores`, and ours on `ours`."""
    for process, allowed in ((server.pid, cores), (os.getpid(), ours)):
        for thread in os.listdir(f"/proc/{process}/task"):
            os.sched_setaffinity(int(thread), allowed)


def hits(server: Any, url: str, rounds: int, reads: int) -> Iterator[Row]:
    """In both placements of server and client, where the system lets us choose.

    Left alone, they meet on one core and part again in the middle of a run; a trip from one core
    to the other takes two to three times as long, and the ratios would tell of that.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield from hit_rows(url, "wherever the system puts them", rounds, reads)
        return
    for where, its in (("on one core", cores[0]), ("on a core each", cores[1])):
        on_cores(server, [its], cores[:1])
        yield from hit_rows(url, where, rounds, reads)
    on_cores(server, cores, cores)


def hit_rows(url: str, where: str, rounds: int, reads: int) -> Iterator[Row]:
    client = connect(url, 2.0)
    client.set("bare", '{"id": 1, "name": "office chair", "price_cents": 12900}')
    with tempfile.TemporaryDirectory() as folder:
        rigs = {
            name: RIGS[name](Place(url, f"bench:{name}:", f"{folder}/{name}", ttl=600))
            for name in ("ours", *LIBRARIES)
        }
        # With lock=True cashews takes its lock for each read; `early` is its way without.
        early = Place(url, "bench:early:", f"{folder}/early", ttl=600, swr=True)
        rigs["cashews, early"] = RIGS["cashews"](early)
        turns = {"a bare GET": lambda: seconds(lambda: client.get("bare"), reads)}
        turns |= {name: rounds_of(rig, reads) for name, rig in rigs.items()}
        found: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(rounds):  # in turn, so that a busy moment meets them all
            for name, turn in turns.items():
                found[name].append(turn() / reads)
    best = {name: min(each) for name, each in found.items()}
    ours = best.pop("ours")
    short = "production cache: a hit" if where != "on one core" else ""
    for name, theirs in best.items():
        yield Row(
            f"a hit, client and server {where}",
            ours,
            beside="a bare GET, redis-py" if name == "a bare GET" else name,
            theirs=theirs,
            target=Target(1.3) if name == "a bare GET" else None,
            short=short if name not in ("cashews, early", "the article") else "",
        )


# A cold burst ------------------------------------------------------------------------------------


def burst(name: str, place: Place, readers: int) -> tuple[int, int, float]:
    """`readers` threads at one cold key: origin calls, right answers, s until the last one."""
    rig, origin = RIGS[name](place), CountingOrigin(SECONDS)
    began = time.perf_counter()
    got = crowd(rig, readers, origin, "k", wait=30)
    return origin.calls, got.count("right"), time.perf_counter() - began


def pod() -> None:
    """One of four processes: a library and a place, ready, go, and what came of it."""
    logging.disable(logging.CRITICAL)
    bring_all()
    print("ready", flush=True)
    for line in sys.stdin:
        name, place, readers = json.loads(line)
        print("there", flush=True)
        sys.stdin.readline()
        print(json.dumps(burst(name, Place(**place), readers)), flush=True)


def in_pods(
    pods: list[subprocess.Popen[str]], name: str, place: Place, readers: int
) -> tuple[int, int, float]:
    """The same in all pods at once."""
    said: list[Any] = []
    for word in (json.dumps([name, vars(place), readers // len(pods)]), "go"):
        for one in pods:
            assert one.stdin
            print(word, file=one.stdin, flush=True)
        said = [one.stdout.readline() for one in pods if one.stdout]
    found = [json.loads(line) for line in said]
    return sum(one[0] for one in found), sum(one[1] for one in found), max(one[2] for one in found)


def bursts(url: str, readers: int, processes: int) -> Iterator[Row]:
    """Calls and time of ours, beside each library."""
    command = [sys.executable, "-m", "benchmarks.bench_production", "pod"]
    pods = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(processes if processes > 1 else 0)
    ]
    try:
        for one in pods:
            assert one.stdout
            one.stdout.readline()
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            for name in ("ours", *LIBRARIES):
                # redis-py's own pool of 100 would answer most of the crowd with an error.
                roomy = name in ("dogpile.cache", "aiocache", "the article")
                there = f"{url}?max_connections={readers + 100}" if roomy else url
                place = Place(there, f"burst{processes}:{name}:", f"{folder}/{name}", ttl=600)
                if pods:
                    found[name] = in_pods(pods, name, place, readers)
                else:
                    found[name] = burst(name, place, readers)
    finally:
        for one in pods:
            one.kill()
            one.communicate()
    calls, right, took = found.pop("ours")
    where = f"{processes} processes" if processes > 1 else "one process"
    what = f"{readers} readers of a cold key in {where}"
    if right != readers:
        yield Row(what, failed=f"only {right} of {readers} got the right answer from our cache")
    yield Row(
        f"{what}: origin calls",
        calls,
        "",
        "plain cache-aside, as in the article",
        found["the article"][0],
        Target(1, "ours"),
        short=f"production cache: origin calls of {readers} readers, cold key, {where}",
    )
    for name, (its, well, seconds) in found.items():
        lost = readers - well
        without = f", {lost} without an answer" if lost else ""
        yield Row(
            f"{what}: the last answer ({calls} call{'s' if calls != 1 else ''})",
            took,
            beside=f"{name} ({its} call{'s' if its != 1 else ''}{without})",
            theirs=seconds,
        )


# A killed server ---------------------------------------------------------------------------------


def killed(server: Any, url: str, readers: int, pause: float) -> Iterator[Row]:
    """Readers of 20 hot keys, an origin of 5 ms; the server is killed, then started again.

    Each reader asks once a second, at its own moment: what is timed is the cache, and not how long
    200 threads wait for one interpreter.
    """
    cache = connect(url, connections=readers + 20)
    products = ProductionCache(cache, "killed", origin_slots=20)
    over, lock = threading.Event(), threading.Lock()
    waits: dict[str, list[float]] = {"starting": [], "alive": [], "dead": [], "back": []}
    failed: list[str] = []
    state, now, most = ["starting"], [0], [0]

    def load() -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1
        return "right"

    def read(number: int) -> None:
        over.wait(number / readers)
        while not over.is_set():
            when, began = state[0], time.perf_counter()
            try:
                products.get(str(number % 20), load, 60)
            except Exception as error:
                failed.append(repr(error))
            waits[when].append(time.perf_counter() - began)
            over.wait(1 - (time.perf_counter() - began))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
    for thread in threads:
        thread.start()
    time.sleep(2)  # all have come, and have a connection
    state[0] = "alive"
    time.sleep(pause)
    state[0] = "dead"
    server.kill()
    time.sleep(pause)
    server.restart()
    back, before = time.perf_counter(), products.metrics["hits"]
    while products.metrics["hits"] == before and time.perf_counter() < back + 10:
        time.sleep(0.005)
    back = time.perf_counter() - back
    over.set()
    for thread in threads:
        thread.join()
    if failed:
        yield Row("readers of a killed server", failed=f"{len(failed)} reads failed: {failed[0]}")
    alive, dead = (statistics.quantiles(waits[when], n=100)[98] for when in ("alive", "dead"))
    yield Row(
        f"a read while the server is dead, 99 % of {len(waits['dead'])} below",
        dead,
        beside="while it was alive",
        theirs=alive,
        target=Target(ADDED + 0.005, "ours"),  # and the origin's own time
        short=f"production cache: {readers} readers, the server killed, 99 % below",
    )
    yield Row(
        "... and origin calls at once, at most",
        most[0],
        "",
        "readers",
        readers,
        Target(20, "ours"),
    )
    yield Row("... and after the restart, until the first hit", back, target=Target(1, "ours"))


def rows(tiny: bool = False) -> Iterator[Row]:
    """Hits, bursts in one process and in four, and a killed server."""
    logging.disable(logging.CRITICAL)
    server: Any = servers.find(tcp=True)
    try:
        if not server.is_live or not server.is_ours:
            yield Row(TITLE, not_run="it kills a server, and needs a live one of its own")
            return
        at = server.address
        url = f"redis://:{at['password']}@{at['host']}:{at['port']}/0"
        bring_all()
        yield from hits(server, url, *((2, 10) if tiny else (15, 400)))
        readers = 8 if tiny else 800 if room_for(2_000) else 80
        yield from bursts(url, readers, 1)
        yield from bursts(url, readers, 4)
        yield from killed(server, url, *((10, 1.0) if tiny else (200, 4.0)))
    finally:
        server.close()


if __name__ == "__main__":
    pod()
