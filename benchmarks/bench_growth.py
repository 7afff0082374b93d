"""Whether stage, models and board grow in a straight line: the exponent fitted over three sizes."""

from __future__ import annotations

import contextlib
import ctypes
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.table import Row, Target, figure
from cachelab import stage
from cachelab.board.standing import Board
from cachelab.board.stream import BOARD
from cachelab.cache import server
from cachelab.models import (
    early_refresh,
    eviction,
    jitter,
    staleness,
    stampede,
    ttl,
    worth,
    write_back,
)
from cachelab.patterns import cache_aside

TITLE = "Growth: stage, models and board, the exponent over three sizes"
BUDGET = 80.0
# A straight line is 1, and n log n some 1.07; the square would be 2.
STRAIGHT = Target(1.25, "ours")


def keep_memory() -> None:
    """Have glibc keep what is freed, for the next run; elsewhere nothing.

    By itself it takes arrays above 32 MB from the system, page by page, at each run: that doubles
    the time of an event once, between two and five million, whatever the model does.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(-4, 0)  # M_MMAP_MAX: no array by mmap
        glibc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing is given back


def reader(cache: Any, db: Any) -> Any:
    """Cache-aside, unprotected."""
    return cache_aside.read(cache, "user:1", lambda: db.user(1), 300)


def seconds(work: Callable[[int], Any], size: int, patience: float = 0.3) -> float:
    """The shortest of two to five runs, as many as fit into `patience` s; processor time."""
    found: list[float] = []
    while len(found) < 2 or (len(found) < 5 and sum(found) < patience):
        began = time.process_time()
        work(size)
        found.append(time.process_time() - began)
    return min(found)


def exponent(sizes: list[int], took: list[float]) -> float:
    """The slope of the logarithms: time grows with size to this power."""
    return float(np.polyfit(np.log(sizes), np.log(took), 1)[0])


def grown(what: str, work: Callable[[int], Any], sizes: list[int], short: str = "") -> Row:
    """Time it at each size, and fit."""
    took = [seconds(work, size) for size in sizes]
    points = ", ".join(
        f"{size:,}: {figure(one, 's')}" for size, one in zip(sizes, took, strict=True)
    )
    return Row(
        f"{what} ({points}): exponent",
        exponent(sizes, took),
        "",
        "a straight line",
        1.0,
        STRAIGHT,
        short=short,
    )


def models() -> dict[str, tuple[Callable[[int], Any], int]]:
    """Each model by its number of events, and the largest that it takes."""
    most = 10_000_000
    return {
        "ttl, reads": (lambda n: ttl.simulate(10, 10, query_time=0.05, reads=n), most),
        "jitter, keys": (lambda n: jitter.simulate(n, 3600, 300), most),
        "stampede, readers": (lambda n: stampede.simulate(n, 0.2, 0.01), 1_000_000),
        "staleness, reads": (lambda n: staleness.simulate(10, 0.1, 10, reads=n), most),
        "early refresh, reads": (lambda n: early_refresh.simulate(100, 10, 0.2, reads=n), most),
        "write-back, writes": (lambda n: write_back.simulate(n / 100, 5, intervals=20), most),
        "worth, reads": (lambda n: worth.simulate(0.6, 0.001, 0.02, reads=n), most),
        "eviction, LRU, requests": (
            lambda n: eviction.simulate("lru", eviction.zipf_requests(1000, requests=n), 100),
            most,
        ),
    }


def board(sizes: list[int]) -> Row | None:
    """Reading the verdicts of 500 learners from a live server; None without one."""
    found: Any = server.find()
    try:
        if not found.is_live:
            return None
        import redis

        client = redis.Redis(connection_pool=found.connection_pool())

        def fill(count: int) -> None:
            client.delete(BOARD)
            pipe = client.pipeline(transaction=False)
            for number in range(count):
                fields: dict[Any, Any] = {
                    "v": "1",
                    "id": uuid.uuid5(uuid.NAMESPACE_OID, str(number)).hex[:16],
                    "learner": f"learner-{number % 500}",
                    "name": f"learner {number % 500}",
                    "exercise": f"{number // 500 % 18:02d}_chapter.exercise",
                    "outcome": "failed" if number % 3 else "passed",
                    "message": f"seen {number % 50}, expected 1",
                }
                pipe.xadd(BOARD, fields)
                if len(pipe) == 5_000:
                    pipe.execute()
            pipe.execute()

        def read(count: int) -> None:
            one = Board()
            one.read(client)
            if one.verdicts != count:
                raise AssertionError(f"{one.verdicts} of {count} verdicts were read")
            one.as_dict()

        took = []
        for size in sizes:
            fill(size)
            took.append(seconds(read, size))
        client.delete(BOARD)
    finally:
        found.close()
    points = ", ".join(
        f"{size:,}: {figure(one, 's')}" for size, one in zip(sizes, took, strict=True)
    )
    return Row(
        f"the board, verdicts ({points}): exponent",
        exponent(sizes, took),
        "",
        "a straight line",
        1.0,
        STRAIGHT,
        short=f"growth: the board in verdicts, to {sizes[-1]:,} (exponent)",
    )


def rows(tiny: bool = False) -> Iterator[Row]:
    """The exponents, each over sizes from one to thirty or a hundred."""
    sizes = [5, 10, 20] if tiny else [100, 1_000, 10_000]
    keep_memory()
    stage.run([reader] * 3)  # imports, and the shop's image
    yield grown(
        "the stage, actors",
        lambda n: stage.run([reader] * n, latency=8, wall_limit=60),
        sizes,
        short=f"growth: the stage in actors, to {sizes[-1]:,} (exponent)",
    )
    rows: list[Row] = []
    for name, (work, most) in models().items():
        end = 10_000 if tiny else most
        rows.append(grown(name, work, [end // 33, end // 6, end]))
    worst = max(rows, key=lambda row: row.ours or 0.0)
    for row in rows:
        short = f"growth: the models in events, to {10_000_000:,} (the largest exponent)"
        yield Row(**{**vars(row), "short": short}) if row is worst else row
    filled = board([20, 100, 500] if tiny else [1_000, 10_000, 100_000])
    yield filled or Row("the board, verdicts", not_run="there is no live server here")
