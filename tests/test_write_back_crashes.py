"""Write-back against `kill -9` of a real server: what is lost is counted, to the view.

The moments of the views and of the crash are drawn, with a seed, as in the model; the server, the
commands and the kill are real. So the counts are the same on every machine. Two tests at the end
let real threads count while the server dies.

SIGKILL ends a process, not a machine: what the server had handed to the operating system survives
it. What a power cut would take is not tested here, and cannot be.
"""

from __future__ import annotations

import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from cachelab import origin
from cachelab.cache import server as servers
from cachelab.cache.server import OurServer, ServerUnfit
from cachelab.lab import traffic
from cachelab.models import write_back as model
from cachelab.patterns import write_back, write_back_stream

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no server for Windows"),
    pytest.mark.timeout(120),
]

RATE, EVERY, CRASHES = 100.0, 1.0, 30


@dataclass
class Shop:
    """A server, a client of it, and the shop's database."""

    server: OurServer
    cache: Any
    engine: sa.Engine

    def views(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT sum(views) FROM articles")).scalar_one())

    def crash(self) -> None:
        """`kill -9`, and the server again at the same address."""
        self.server.kill()
        self.server.restart()


def binary() -> Path:
    for find in (servers.from_wheel, servers.from_path):
        try:
            return find()
        except ServerUnfit:
            continue
    pytest.skip("There is no server to be killed.")


@contextmanager
def shop(folder: Path, **config: str) -> Iterator[Shop]:
    path = folder / "shop.sqlite"
    origin.seed_sqlite(path, origin.SMALL)
    engine = origin.open_sqlite(path)
    with engine.begin() as connection:
        connection.execute(write_back.FLUSHED)
    server = servers.start(binary(), where="", **config)
    try:
        yield Shop(server, server.client(), engine)
    finally:
        server.close()
        engine.dispose()


def until_the_crash(
    seed: int, rate: float, add: Callable[[int], Any], flush: Any
) -> tuple[int, int]:
    """Views at `rate` per second, a flush after `EVERY`, and a crash at any time in the next
    interval; returns how many views were acknowledged since the flush, and in all."""
    crash = EVERY * (1 + random.Random(f"crash {seed}").random())
    arrivals = traffic.poisson(rate, crash, seed)
    article = random.Random(f"article {seed}")
    for number, at in enumerate(arrivals):
        if at >= EVERY and (number == 0 or arrivals[number - 1] < EVERY):
            flush()
        add(article.randint(1, 5))
    return sum(at >= EVERY for at in arrivals), len(arrivals)


def losses_by_hash(s: Shop, rate: float, crashes: int = CRASHES) -> list[tuple[int, int]]:
    """For each crash: the views that were lost, and those acknowledged since the last flush."""
    found = []
    for seed in range(crashes):
        before = s.views()
        since, acknowledged = until_the_crash(
            seed,
            rate,
            lambda article: write_back.add(s.cache, article),
            lambda: write_back.flush(s.cache, s.engine),
        )
        s.crash()
        write_back.flush(s.cache, s.engine)
        found.append((acknowledged - (s.views() - before), since))
    return found


# Without persistence --------------------------------------------------------------------------


def test_thirty_crashes_lose_what_came_since_the_flush_in_the_mean_half_an_interval(
    tmp_path: Path,
) -> None:
    with shop(tmp_path) as s:
        found = losses_by_hash(s, RATE)
    lost = [views for views, _ in found]
    assert lost == [since for _, since in found]
    form = model.loss(RATE, EVERY)
    # The count of a Poisson process at a uniform time: w F / 2 + (w F)^2 / 12.
    spread = math.sqrt(form.mean + form.worst**2 / 12)
    band = 2.576 * spread / math.sqrt(CRASHES)
    assert abs(sum(lost) / CRASHES - form.mean) < band
    assert max(lost) < form.worst + 4.5 * math.sqrt(form.worst)
    assert min(lost) < form.mean < max(lost)


def test_flushed_by_size_a_crash_loses_less_than_a_batch_and_in_the_mean_half_of_one(
    tmp_path: Path,
) -> None:
    batch, lost = 20, []
    with shop(tmp_path) as s:
        for seed in range(CRASHES):
            before, views = s.views(), random.Random(seed).randrange(5 * batch)
            for _ in range(views):
                if write_back.add(s.cache, 1) >= batch:
                    write_back.flush(s.cache, s.engine)
            s.crash()
            lost.append(views - (s.views() - before))
            assert lost[-1] == views % batch
    form = model.loss_by_batch(batch)
    band = 2.576 * math.sqrt((batch**2 - 1) / 12 / CRASHES)
    assert abs(sum(lost) / CRASHES - form.mean) < band
    assert max(lost) <= form.worst


def test_a_stream_without_persistence_loses_as_much_as_a_hash(tmp_path: Path) -> None:
    with shop(tmp_path) as s:
        found = losses_by_stream(s, RATE, crashes=3)
    assert [lost for lost, _ in found] == [since for _, since in found]
    assert all(lost > 0 for lost, _ in found)


def losses_by_stream(s: Shop, rate: float, crashes: int = CRASHES) -> list[tuple[int, int]]:
    found = []
    for seed in range(crashes):
        write_back_stream.create(s.cache)
        before = s.views()
        since, acknowledged = until_the_crash(
            seed,
            rate,
            lambda article: write_back_stream.add(s.cache, article),
            lambda: write_back_stream.flush(s.cache, s.engine),
        )
        s.crash()
        write_back_stream.create(s.cache)
        write_back_stream.flush(s.cache, s.engine)
        found.append((acknowledged - (s.views() - before), since))
    return found


# With an append-only file ---------------------------------------------------------------------

ALWAYS = {"appendonly": "yes", "appendfsync": "always"}
DURABLE_RATE = 20.0  # each view waits for the disk


def test_with_aof_always_thirty_crashes_lose_no_acknowledged_view(tmp_path: Path) -> None:
    with shop(tmp_path, **ALWAYS) as s:
        found = losses_by_hash(s, DURABLE_RATE)
    assert [lost for lost, _ in found] == [0] * CRASHES
    assert sum(since for _, since in found) > CRASHES  # there was something to lose


def test_a_stream_with_aof_always_loses_no_acknowledged_view_in_thirty_crashes(
    tmp_path: Path,
) -> None:
    with shop(tmp_path, **ALWAYS) as s:
        found = losses_by_stream(s, DURABLE_RATE)
    assert [lost for lost, _ in found] == [0] * CRASHES
    assert sum(since for _, since in found) > CRASHES


def test_a_flusher_and_a_server_that_die_after_the_commit_count_no_view_twice(
    tmp_path: Path,
) -> None:
    """The server is killed between the commit and the deletion of the batch."""

    def dies(connection: Any) -> None:
        s.server.kill()

    for config in (ALWAYS, {}):
        with shop(tmp_path, **config) as s:
            before = s.views()
            for _ in range(5):
                write_back.add(s.cache, 1)
            sa.event.listen(s.engine, "commit", dies)
            with pytest.raises(redis.ConnectionError):
                write_back.flush(s.cache, s.engine)
            sa.event.remove(s.engine, "commit", dies)
            s.server.restart()
            assert bool(s.cache.exists(write_back.SEALED)) is bool(config)
            write_back.flush(s.cache, s.engine)
            assert s.views() - before == 5
        (tmp_path / "shop.sqlite").unlink()


def test_entries_given_to_a_flusher_survive_the_server_and_are_given_again(tmp_path: Path) -> None:
    log, group = write_back_stream.LOG, write_back_stream.GROUP
    with shop(tmp_path, **ALWAYS) as s:
        write_back_stream.create(s.cache)
        for _ in range(4):
            write_back_stream.add(s.cache, 1)
        s.cache.xreadgroup(group, "flusher", {log: ">"})
        s.crash()
        assert s.cache.xpending(log, group)["pending"] == 4
        before = s.views()
        assert write_back_stream.flush(s.cache, s.engine) == 4
        assert s.views() - before == 4


# Real time ------------------------------------------------------------------------------------


class Writers:
    """Threads that count until the server is gone, and note when each view was acknowledged."""

    def __init__(self, s: Shop, threads: int, pause: float = 0.0) -> None:
        self.acknowledged: list[float] = []
        self.threads = [
            threading.Thread(target=self._count, args=(s, pause)) for _ in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def _count(self, s: Shop, pause: float) -> None:
        try:
            while True:
                write_back.add(s.cache, 1)
                self.acknowledged.append(time.monotonic())
                time.sleep(pause)
        except redis.RedisError:
            pass  # it is dead; what was on the way may or may not have been counted

    def join(self) -> int:
        for thread in self.threads:
            thread.join()
        return len(self.acknowledged)


@pytest.mark.parametrize("config", [{}, ALWAYS], ids=["no persistence", "AOF always"])
def test_while_threads_count_a_crash_loses_at_most_what_came_after_the_last_flush(
    tmp_path: Path, config: dict[str, str]
) -> None:
    draw = random.Random(3)
    with shop(tmp_path, **config) as s:
        for _ in range(4):
            before = s.views()
            writers = Writers(s, 2, pause=0.001)
            flushed = 0
            for _ in range(2):
                time.sleep(0.05 + 0.1 * draw.random())
                flushed = len(writers.acknowledged)
                write_back.flush(s.cache, s.engine)
            time.sleep(0.1 * draw.random())
            s.server.kill()
            acknowledged = writers.join()
            s.server.restart()
            while s.cache.exists(write_back.OPEN, write_back.SEALED):
                write_back.flush(s.cache, s.engine)
            counted = s.views() - before
            under_way = len(writers.threads)
            assert flushed > 0
            least = acknowledged if config else flushed
            assert least <= counted <= acknowledged + under_way


def test_with_aof_everysec_nothing_older_than_two_seconds_is_lost(tmp_path: Path) -> None:
    """Redis documents one second, and up to two while a sync takes long."""
    with shop(tmp_path, appendonly="yes", appendfsync="everysec") as s:
        before = s.views()
        writers = Writers(s, 1, pause=0.005)
        time.sleep(3.2)
        died = time.monotonic()
        s.server.kill()
        acknowledged = writers.join()
        s.server.restart()
        write_back.flush(s.cache, s.engine)
        counted = s.views() - before
        old = sum(at < died - 2.0 for at in writers.acknowledged)
        assert 0 < old <= counted <= acknowledged + 1
