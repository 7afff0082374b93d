"""The production cache's hit beside a bare GET and the libraries' hits; and a killed server."""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from cachelab import comparison
from cachelab import server as servers
from cachelab.comparison import RIGS, Async, Place, Rig
from cachelab.patterns.production import ProductionCache, connect

ROUNDS, READS = 15, 400
VALUE = {"id": 1, "name": "office chair", "price_cents": 12_900}


def seconds(call: Callable[[], Any]) -> float:
    """For READS calls."""
    began = time.perf_counter()
    for _ in range(READS):
        call()
    return time.perf_counter() - began


def rounds_of(rig: Rig) -> Callable[[], float]:
    """A function that makes READS hits and gives the seconds; in the loop, for coroutines."""
    rig.read("k", lambda: VALUE)

    async def hits() -> float:
        assert isinstance(rig, Async)
        began = time.perf_counter()
        for _ in range(READS):
            await rig.aread("k", lambda: VALUE)
        return time.perf_counter() - began

    if isinstance(rig, Async):
        return lambda: float(rig.do(hits()).result())
    return lambda: seconds(lambda: rig.read("k", lambda: VALUE))


def on_cores(server: Any, cores: list[int], ours: list[int]) -> None:
    """Keep every thread of the server on `cores`, and ours on `ours`."""
    for process, allowed in ((server.pid, cores), (os.getpid(), ours)):
        for thread in os.listdir(f"/proc/{process}/task"):
            os.sched_setaffinity(int(thread), allowed)


def hit_paths(server: Any, url: str) -> None:
    """In both placements of server and client, where the system lets us choose.

    Left alone, they meet on one core and part again in the middle of a run; a trip from one core
    to the other takes two to three times as long, and the ratios would tell of that.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        hit_ratios(url, "wherever the system puts them")
        return
    for where, its in (("on one core", cores[0]), ("on a core each", cores[1])):
        on_cores(server, [its], cores[:1])
        hit_ratios(url, where)
    on_cores(server, cores, cores)


def hit_ratios(url: str, where: str) -> None:
    client = connect(url, 2.0)
    client.set("bare", '{"id": 1, "name": "office chair", "price_cents": 12900}')
    with tempfile.TemporaryDirectory() as folder:
        names = ["ours", "dogpile.cache", "cashews", "aiocache", "the article"]
        rigs = {n: RIGS[n](Place(url, f"bench:{n}:", f"{folder}/{n}", ttl=600)) for n in names}
        # With lock=True cashews takes its lock for each read; `early` is its way without.
        early = Place(url, "bench:early:", f"{folder}/early", ttl=600, swr=True)
        rigs["cashews, early"] = RIGS["cashews"](early)
        turns = {"a bare GET": lambda: seconds(lambda: client.get("bare"))}
        turns |= {name: rounds_of(rig) for name, rig in rigs.items()}
        found: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(ROUNDS):  # in turn, so that a busy moment meets them all
            for name, turn in turns.items():
                found[name].append(turn())
    bare = found["a bare GET"]
    print(f"a hit, in bare GETs; client and server {where} ({ROUNDS} rounds of {READS}, median)")
    for name, times in found.items():
        ratios = [mine / its for mine, its in zip(times, bare, strict=True)]
        micro = 1e6 * statistics.median(times) / READS
        print(f"  {name:16}{statistics.median(ratios):5.2f}   {micro:6.0f} us")


def killed(server: Any, url: str) -> None:
    """200 readers of 20 hot keys, an origin of 5 ms; the server is killed, then started again.

    Each reader asks once a second, at its own moment: what is timed is the cache, and not how long
    200 threads wait for one interpreter.
    """
    products = ProductionCache(connect(url, connections=220), "killed", origin_slots=20)
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
        over.wait(number / 200)
        while not over.is_set():
            when, began = state[0], time.perf_counter()
            try:
                products.get(str(number % 20), load, 60)
            except Exception as error:
                failed.append(repr(error))
            waits[when].append(time.perf_counter() - began)
            over.wait(1 - (time.perf_counter() - began))

    readers = [threading.Thread(target=read, args=(number,)) for number in range(200)]
    for reader in readers:
        reader.start()
    time.sleep(2)  # all have come, and have a connection
    state[0] = "alive"
    time.sleep(4)
    state[0] = "dead"
    server.kill()
    time.sleep(4)
    server.restart()
    back, hits = time.perf_counter(), products.metrics["hits"]
    while products.metrics["hits"] == hits and time.perf_counter() < back + 10:
        time.sleep(0.005)
    back = time.perf_counter() - back
    state[0] = "back"
    time.sleep(1)
    over.set()
    for reader in readers:
        reader.join()
    print("the server is killed under 200 readers, an origin of 5 ms, 20 slots")
    for when, times in waits.items():
        quantiles = statistics.quantiles(times, n=100)
        p50, p99, slowest = (1e3 * wait for wait in (quantiles[49], quantiles[98], max(times)))
        print(f"  {when:8}: {len(times):6,} reads, ms: median {p50:.1f}", end=", ")
        print(f"99 % below {p99:.1f}, slowest {slowest:.1f}")
    print(f"  failed {len(failed)}, origin at most {most[0]} at once, a hit {back:.2f} s after")


def main() -> None:
    logging.disable(logging.CRITICAL)
    server: Any = servers.find(tcp=True)
    if not server.is_live or not server.is_ours:
        print("This benchmark kills a server: it needs one of its own.")
        return
    at = server.address
    url = f"redis://:{at['password']}@{at['host']}:{at['port']}/0"
    print(server, "|", comparison.versions())
    hit_paths(server, url)
    killed(server, url)
    server.close()


if __name__ == "__main__":
    main()
