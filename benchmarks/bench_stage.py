"""How fast the stage is: beside the same code live, SimPy, and threads that take turns."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import redis
import simpy
import sqlalchemy as sa

from benchmarks.files import room_for
from benchmarks.table import Row, Target
from cachelab import origin, stage
from cachelab.cache import server
from cachelab.cache.client import Cache
from cachelab.patterns import cache_aside
from cachelab.record.trace import Trace

TITLE = "The stage: 800 readers against 8 s, and schedules a second"
BUDGET = 30.0


def reader(cache: Any, db: Any) -> Any:
    """Cache-aside, unprotected."""
    return cache_aside.read(cache, "user:1", lambda: db.user(1), 300)


def five_reads_and_writes(cache: Any, db: Any) -> Any:
    cache.get("a")
    cache.set("a", "1")
    cache.get("b")
    cache.delete("a")
    return cache.incr("b")


def five_others(cache: Any, db: Any) -> Any:
    cache.set("a", "2")
    cache.get("a")
    cache.incr("b")
    cache.set("a", "3")
    return cache.get("b")


def reads_twice(cache: Any, db: Any) -> Any:
    if cache.get("user:1") is None:
        email = db.user(1)["email"]
        cache.set("user:1", email)
        cache.expire("user:1", 300)
    return cache.get("user:1")


def writes(cache: Any, db: Any) -> Any:
    db.update_user(1, email="new@example.org")
    cache.delete("user:1")
    cache.get("user:1")
    return db.user(1)


MEMO: dict[str, Any] = {}
LOCK = threading.Lock()


def remembers(cache: Any, db: Any) -> Any:
    """Five commands, with a memo and a lock of the process."""
    with LOCK:
        MEMO["a"] = cache.get("a")
    cache.set("a", "1")
    cache.get("b")
    with LOCK:
        MEMO["b"] = cache.incr("b")
    return cache.get("a"), len(MEMO)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def best(work: Callable[[], Any], times: int = 5) -> tuple[float, Any]:
    """The shortest of `times` runs."""
    return min((timed(work) for _ in range(times)), key=lambda taken: taken[0])


def live(found: Any, readers: int, query: float) -> int:
    """The same code with real threads, a real server and a real wait; origin queries."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.sqlite"
        origin.seed_sqlite(path, origin.SMALL)
        engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.pool.NullPool)
        trace = Trace()
        cache = Cache(connection_pool=found.connection_pool(), trace=trace, keyspace=found.keyspace)
        db = origin.Origin(engine, trace, latency=query)
        threads = [threading.Thread(target=reader, args=(cache, db)) for _ in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return trace.queries


def model(readers: int, query: float) -> int:
    """What SimPy is given: no client, no database, only the waiting."""
    world = simpy.Environment()
    stored: list[int] = []
    queries: list[int] = []

    def one() -> Any:
        if not stored:
            queries.append(1)
            yield world.timeout(query)
            stored.append(1)

    for _ in range(readers):
        world.process(one())
    world.run()
    return len(queries)


class Paced:
    """A client whose commands each wait for the actor's turn, and then pass it on."""

    def __init__(self, client: redis.Redis, turn: threading.Semaphore, pass_on: Any) -> None:
        self.client, self.turn, self.pass_on = client, turn, pass_on

    def __getattr__(self, name: str) -> Any:
        command = getattr(self.client, name)

        def call(*args: Any) -> Any:
            self.turn.acquire()
            try:
                return command(*args)
            finally:
                self.pass_on()

        return call


def in_turns(client: redis.Redis, plays: Sequence[Any], order: Sequence[int]) -> None:
    """One order of the actors' commands, with a thread each, on the live server."""
    turns = [threading.Semaphore(0) for _ in plays]
    left = iter(order)

    def pass_on() -> None:
        following = next(left, None)
        if following is not None:
            turns[following].release()

    client.delete("a", "b")
    threads = [
        threading.Thread(target=play, args=(Paced(client, turn, pass_on), None))
        for play, turn in zip(plays, turns, strict=True)
    ]
    for thread in threads:
        thread.start()
    pass_on()
    for thread in threads:
        thread.join()


def orders(length: int) -> Iterator[list[int]]:
    """Every order of two actors' commands, `length` each."""
    for first in combinations(range(2 * length), length):
        yield [0 if place in first else 1 for place in range(2 * length)]


def explored(actors: Sequence[Any], **options: Any) -> Any:
    """The verdict over all orders, whatever happens in them."""
    return stage.explore(list(actors), lambda world: None, **options)


def rows(tiny: bool = False) -> Iterator[Row]:
    """The stage against live threads and SimPy; schedules a second; one large exploration."""
    readers, query = (20, 0.2) if tiny else (800, 8.0)
    stage.run([reader] * 3)  # imports, and the shop's image
    ours, trace = best(lambda: stage.run([reader] * readers, latency=query))
    if trace.queries != readers:
        raise AssertionError(f"{readers} readers made {trace.queries} queries on the stage")
    what = f"{readers} readers, a query of {query:g} s, each asks"
    found: Any = server.find()
    try:
        count = readers if room_for(6 * readers) else min(readers, 150)
        if found.is_live:
            theirs, queries = timed(lambda: live(found, count, query))
            yield Row(
                what,
                ours,
                beside=f"the same code live: {count} threads, {queries} queries",
                theirs=theirs,
                target=Target(0.3, "ours"),
                short=f"stage: {readers} readers against a query of {query:g} s",
            )
        else:
            yield Row(what, not_run="there is no live server here to compare with")
        theirs, queries = best(lambda: model(readers, query))
        yield Row(
            what,
            ours,
            beside=f"SimPy, a model without the code, {queries} queries",
            theirs=theirs,
        )
        pair = (five_reads_and_writes, five_others)
        took, verdict = best(lambda: explored(pair, prune=False), 1 if tiny else 3)
        rate = verdict.schedules / took
        if found.is_live:
            client = redis.Redis(connection_pool=found.connection_pool())
            every = list(orders(5))[: 5 if tiny else None]
            took, _ = timed(lambda: [in_turns(client, pair, order) for order in every])
            yield Row(
                f"schedules a second, two actors, five commands each ({verdict.schedules} orders)",
                rate,
                "a second",
                "two threads that take turns on the live server",
                len(every) / took,
                Target(1_000, "ours", at_least=True),
                short="stage: schedules a second",
            )
        else:
            yield Row("schedules a second", not_run="there is no live server here")
    finally:
        found.close()
    crowd = [remembers] * readers
    apart, _ = best(lambda: stage.run(crowd))
    together, _ = best(lambda: stage.run(stage.threads(crowd)))
    yield Row(
        f"{readers} processes with a memo and a lock each, five commands",
        apart,
        beside="the same as threads of one process, which wait for the lock",
        theirs=together,
    )
    pair = (remembers, remembers)
    rates = []
    for actors in (list(pair), stage.threads(pair)):
        took, verdict = best(lambda actors=actors: explored(actors, prune=False), 1 if tiny else 3)
        rates.append(verdict.schedules / took)
    yield Row(
        "schedules a second, two processes with a memo and a lock each",
        rates[0],
        "a second",
        "the same as threads of one process: no memory is exchanged",
        rates[1],
    )
    actors = (reads_twice, writes)
    took, verdict = best(lambda: explored(actors, prune=False), 1 if tiny else 3)
    rate = verdict.schedules / took
    actors = actors if tiny else (reads_twice, *actors)
    took, verdict = timed(lambda: explored(actors, limit=50_000))
    yield Row(
        f"{'a reader' if tiny else 'two readers'} and a writer, with SQL: all {verdict.orders:,} "
        f"orders, {verdict.schedules:,} run, {verdict.pruned:,} pruned",
        took,
        beside="all of them at the speed without pruning (calculated)",
        theirs=verdict.orders / rate,
        target=Target(20, "ours"),
    )
