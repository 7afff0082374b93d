"""How fast the stage is: beside the same code run live, and beside SimPy running only a model."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cachelab import origin, server, stage
from cachelab.client import Cache
from cachelab.patterns import cache_aside
from cachelab.trace import Trace

READERS, QUERY = 800, 8.0
LIVE_READERS = 200  # a real database connection each: as many as a laptop has file handles for


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


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Real seconds, processor seconds, and what came of it."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - processor, result


def best(work: Callable[[], Any], times: int = 5) -> tuple[float, float, Any]:
    return min((timed(work) for _ in range(times)), key=lambda taken: taken[0])


def live() -> int:
    """The same code with real threads, a real server and a real 8 s; origin queries."""
    found = server.find()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.sqlite"
        origin.seed_sqlite(path, origin.SMALL)
        engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.pool.NullPool)
        trace = Trace()
        pool = found.connection_pool()
        cache = Cache(connection_pool=pool, trace=trace, keyspace=found.keyspace)
        db = origin.Origin(engine, trace, latency=QUERY)
        threads = [threading.Thread(target=reader, args=(cache, db)) for _ in range(LIVE_READERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found.close()
    return trace.queries


def model() -> int:
    """What SimPy is given: no client, no database, only the waiting."""
    import simpy

    world, stored, queries = simpy.Environment(), [], []

    def one() -> Any:
        if not stored:
            queries.append(1)
            yield world.timeout(QUERY)
            stored.append(1)

    for _ in range(READERS):
        world.process(one())
    world.run()
    return len(queries)


def main() -> None:
    stage.run([reader] * 3)  # imports, and the shop's image
    wall, processor, trace = best(lambda: stage.run([reader] * READERS, latency=QUERY))
    print(f"{READERS} readers, a query of {QUERY:.0f} s, room for all:")
    print(
        f"  stage  {wall:8.3f} s  ({processor:.3f} s of processor), {trace.queries} queries, "
        f"{trace.elapsed:.1f} s virtual: {trace.elapsed / wall:,.0f} times as fast as the clock"
    )
    taken, _, queries = timed(live)
    print(
        f"  live   {taken:8.3f} s  for {LIVE_READERS} readers ({queries} queries): "
        f"{taken / wall:,.0f} times as long as the stage needs for {READERS}"
    )
    try:
        modelled, _, queries = best(model)
    except ImportError:
        print("  SimPy  is not installed: pip install simpy")
    else:
        print(
            f"  SimPy  {modelled:8.3f} s  ({queries} queries), a model and not the code: "
            f"the stage takes {wall / modelled:,.0f} times as long"
        )
    print("Every order:")
    for title, actors, options in (
        ("two actors, five cache commands each", [five_reads_and_writes, five_others], {}),
        ("a reader and a writer, with SQL", [reads_twice, writes], {}),
    ):
        wall, processor, verdict = best(
            lambda a=actors, o=options: stage.explore(a, lambda world: None, prune=False, **o), 3
        )
        print(
            f"  {title}: {verdict.schedules} orders, {verdict.schedules / wall:,.0f} a second "
            f"({verdict.schedules / processor:,.0f} a second of processor)"
        )
    wall, processor, verdict = timed(
        lambda: stage.explore([reads_twice, reads_twice, writes], lambda world: None, limit=50_000)
    )
    print(
        f"  two readers and a writer: {verdict.orders:,} orders, {verdict.schedules:,} run, "
        f"{verdict.pruned:,} pruned, in {wall:.1f} s ({processor:.1f} s of processor)"
    )


if __name__ == "__main__":
    main()
