"""One Lab a notebook: a cache, an origin behind it, and the trace of what happens between them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import redis
import sqlalchemy as sa

from cachelab import origin as shop
from cachelab.cache import server as servers
from cachelab.cache.client import Cache
from cachelab.origin import Origin
from cachelab.process.guard import Guard, temp_place
from cachelab.record.trace import Trace

# redis-py's words when every connection of the pool is in use: then the server may well run.
FULL_POOL = "No connection available."


class Lab:
    """A cache, a database and a trace to break things with.

    `cache` is a redis-py client, `db` the shop's database, `trace` what has happened so far, and
    `someone_else` the same database in the hands of another service that knows nothing of the
    cache. Use `cachelab.start()` to get the one Lab of a notebook.
    """

    def __init__(self) -> None:
        self._clock = _Clock()
        self.trace = Trace(clock=self._clock)
        try:
            self._guard = Guard()
        except OSError as error:
            raise servers.ServerError(_no_room(error)) from None
        try:
            self.server = servers.find(guard=self._guard)
            self.cache = self.client()
            self.db = Origin(_engine(self._guard), self.trace)
        except BaseException:
            self._guard.close()
            raise
        self.someone_else = self.db.acting_as("someone else")

    def __repr__(self) -> str:
        return f"cache: {self.server} | origin: {self.db.name}"

    @property
    def folder(self) -> Path:
        """A private temp folder, gone with the kernel."""
        return self._guard.folder

    def client(self, **options: Any) -> Cache:
        """Another client of the same cache; `options` go to redis-py's connections."""
        pool = self.server.connection_pool(**options)
        return Cache(
            connection_pool=pool,
            trace=self.trace,
            keyspace=self.server.keyspace,
            advise=self._advise,
        )

    def _advise(self, error: redis.RedisError) -> str:
        """What to do when the cache does not answer; "" for any other error."""
        if isinstance(error, redis.TimeoutError):
            if not self.server.is_ours:
                return (
                    f"The cache at {self.server.place} takes longer than it may: see to it there."
                )
            return (
                "The cache server runs and does not answer: lab.resume_cache() if it was paused,"
                " lab.restart_cache() for an empty one. The database is as it was."
            )
        lost = isinstance(error, redis.ConnectionError) and not isinstance(
            error, (redis.AuthenticationError, redis.exceptions.MaxConnectionsError)
        )
        if not lost or str(error) == FULL_POOL:
            return ""
        if getattr(self.server, "is_cut", False):
            return "The plug to the cache is pulled: lab.restart_cache() puts it in again."
        if not self.server.is_ours:
            return (
                f"The cache at {self.server.place} cannot be reached: see that it runs. The"
                " database is as it was."
            )
        return (
            "The cache server does not run, and what it held is gone: lab.restart_cache() starts"
            " it again, empty. The database is as it was."
        )

    @contextlib.contextmanager
    def record(self) -> Iterator[Trace]:
        """What happens inside, as a Trace of its own; complete when the block ends."""
        part, start = Trace(self._clock), len(self.trace)
        try:
            yield part
        finally:
            part.events.extend(self.trace.events[start:])

    def fast_forward(self, seconds: float) -> None:
        """Let `seconds` pass at once: every TTL in the cache and the trace's clock move forward."""
        if not 0 <= seconds <= 10 * 365 * 86_400:
            raise ValueError(f"fast_forward takes seconds, from 0 to ten years; this is {seconds}.")
        try:
            self.server.age(seconds)
        except redis.ConnectionError:
            pass  # a dead cache holds nothing to age
        except redis.TimeoutError:
            raise servers.ServerError(
                "The cache does not answer, so its TTLs cannot be moved: lab.resume_cache() first."
            ) from None
        self._clock.ahead += seconds

    def keys(self) -> list[str]:
        """Every key in the cache that is ours, sorted."""
        with self.trace.off_the_record():
            return sorted(self.cache.scan_iter())

    def clear(self) -> None:
        """Empty the cache (of our keys) and forget the trace. The database stays as it is."""
        with self.trace.off_the_record():
            found = self.keys()
            if found:
                self.cache.unlink(*found)
        self.trace.clear()

    def kill_cache(self) -> None:
        """End the cache server as a power cut would (SIGKILL). Its memory is gone.

        A server that is not ours lives on; the plug is pulled on our side.
        """
        self.server.kill()
        self.trace.note("the cache server was killed")

    def restart_cache(self) -> None:
        """Start the cache server again, empty unless it was told to persist."""
        self.server.restart()
        self.trace.note("the cache server was started again")

    def pause_cache(self) -> None:
        """Stop the cache server from answering (SIGSTOP); connections stay open."""
        self.server.pause()
        self.trace.note("the cache server was paused")

    def resume_cache(self) -> None:
        """Let a paused cache server go on."""
        self.server.resume()
        self.trace.note("the cache server goes on")

    def close(self) -> None:
        """End the server and remove the temp folder. A notebook need not: they die with it."""
        self.db.engine.dispose()
        self.server.close()
        self._guard.close()


class _Clock:
    """Seconds since the Lab began, plus what was fast-forwarded."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() - self._began + self.ahead


_the_lab: Lab | None = None


def start() -> Lab:
    """The Lab of this notebook; prints one line that says what it runs on.

    Running the first cell again gives a fresh one and ends the old.
    """
    global _the_lab
    if _the_lab is not None:
        _the_lab.close()
        _the_lab = None
    _the_lab = Lab()
    print(_the_lab)
    return _the_lab


def current() -> Lab | None:
    """The Lab that `start` made last, if any."""
    return _the_lab


def _engine(guard: Guard) -> sa.Engine:
    url = os.environ.get("CACHELAB_DATABASE_URL", "")
    if not url:
        try:
            return shop.open_sqlite(shop.copy_of_shop(guard.folder, kept_shop()))
        except OSError as error:
            raise servers.ServerError(_no_room(error)) from None
    try:
        return shop.open_postgresql(url, guard)
    except shop.OriginError as error:
        raise servers.ServerError(f"CACHELAB_DATABASE_URL cannot be used: {error}") from None


def _no_room(error: OSError) -> str:
    return (
        f"The temp folder {temp_place()} cannot be used ({error.strerror}): make 20 MB of room"
        " there, or set TMPDIR to a folder of yours, and start the kernel again."
    )


def kept_shop() -> Path:
    """Where the seeded shop is kept between runs."""
    home = os.environ.get("CACHELAB_HOME")
    return Path(home) if home else Path(platformdirs.user_cache_dir("cachelab"))
