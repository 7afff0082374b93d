"""The edge: one nginx in front of one HTTP origin, as two sites, naive and guarded."""

from __future__ import annotations

import asyncio
import math
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cachelab.edge import nginx as nginxes
from cachelab.edge import readers as crowds
from cachelab.edge.answers import Answer, HttpBurst
from cachelab.edge.http_origin import HttpOrigin
from cachelab.edge.nginx import EdgeError, Nginx, NginxUnfit

MOST_READERS = 2_000
QUIET_LOOKS = 100  # at 5 ms each: when nobody more has come for so long, nobody will
REFRESH_SECONDS = 2.0  # a background refresh starts at once; this is for a busy machine
SETTLE_SECONDS = 0.2
CONNECTIONS = 16  # of `repeat`
LONGEST_SECONDS = 600.0  # of anything; a reader who gets no answer gives up long before

Got = TypeVar("Got")


class Site:
    """One of the edge's two sites: ask it, alone or in a crowd."""

    def __init__(self, edge: Edge, name: str, port: int) -> None:
        self._edge = edge
        self.name = name
        self.port = port

    def __repr__(self) -> str:
        return f"site: {self.name}"

    @property
    def url(self) -> str:
        """Where it is, for a browser: "http://127.0.0.1:PORT"."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def rules(self) -> str:
        """Its caching rules, as nginx reads them: all in which the two sites differ."""
        return nginxes.site_rules(self.name)

    def get(
        self,
        path: str,
        *,
        user: str | None = None,
        bearer: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> Answer:
        """Ask once, over a new connection.

        `user="alice"` sends the cookie `session=alice`, `bearer="alice"` sends `Authorization:
        Bearer alice`. When the answer is STALE, this returns once the refresh that it set off has
        reached the origin, so that `origin.calls` is right. Raises EdgeError when no answer comes.
        """
        return self._edge._run(self._get(self._request(path, user, bearer, headers, method)))

    def burst(
        self,
        path: str,
        readers: int = 800,
        over: float = 0.0,
        *,
        user: str | None = None,
        bearer: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: str,
    ) -> HttpBurst:
        """Let many readers ask for the same path, each over a connection of its own.

        `over`: seconds over which they come. 0 is all at once: nobody is answered by the origin
        before everybody who will ask it has asked it, so the count does not depend on the machine.
        `more`: further headers, `accept_language="de"`. Raises EdgeError, one sentence, when this
        machine cannot hold so many connections.
        """
        if not 1 <= readers <= MOST_READERS:
            raise EdgeError(f"A burst has 1 to {MOST_READERS:,} readers, but this is {readers!r}.")
        if not 0 <= over <= crowds.WALL_SECONDS / 2:
            raise EdgeError(f"A burst comes over 0 to 30 seconds, but this is {over!r}.")
        _check_open_files(readers)
        named = {name.replace("_", "-").title(): value for name, value in more.items()}
        request = self._request(path, user, bearer, {**named, **(headers or {})})
        return self._edge._run(self._burst(request, readers, over))

    def repeat(self, path: str, times: int = 10_000, **asking: Any) -> HttpBurst:
        """Ask `times` times over a few connections that stay open; the first goes alone.

        `asking`: as for `get`.
        """
        if not 1 <= times <= 100_000:
            raise EdgeError(f"repeat takes 1 to 100,000 times, but this is {times!r}.")
        head = {name: asking.pop(name, None) for name in ("user", "bearer", "headers")}
        if asking:
            raise TypeError(f"repeat knows user, bearer and headers, not {', '.join(asking)}.")
        return self._edge._run(self._repeat(self._request(path, **head), times))

    def _request(
        self,
        path: str,
        user: str | None,
        bearer: str | None,
        headers: Mapping[str, str] | None,
        method: str = "GET",
    ) -> bytes:
        host = f"127.0.0.1:{self.port}"
        return crowds.head_of(method, path, host, user=user, bearer=bearer, headers=headers)

    async def _get(self, request: bytes) -> Answer:
        before = self._edge._calls()
        try:
            answer = await crowds.one("127.0.0.1", self.port, request)
        except (OSError, ValueError) as error:
            raise EdgeError(
                f"The {self.name} site gave no answer ({type(error).__name__}): make a new edge"
                " with edge.start()."
            ) from None
        await self._edge._wait_for_calls(before, [answer])
        return answer

    async def _burst(self, request: bytes, readers: int, over: float) -> HttpBurst:
        origin, before = self._edge._origin, self._edge._calls()
        answered = 0

        def count() -> None:
            nonlocal answered
            answered += 1

        at_once = origin is not None and over == 0
        if at_once and origin is not None:
            origin.hold_answers()
        began = time.perf_counter()
        crowd = asyncio.ensure_future(
            crowds.crowd("127.0.0.1", self.port, request, readers, over=over, on_answer=count)
        )
        try:
            if at_once:
                await _until_quiet(lambda: (answered, self._edge._calls() - before), readers)
            if origin is not None:
                origin.release_answers()
            got = await crowd
        finally:
            crowd.cancel()
            if origin is not None:
                origin.release_answers()
        return await self._sum_up(got, before, time.perf_counter() - began)

    async def _repeat(self, request: bytes, times: int) -> HttpBurst:
        before, began = self._edge._calls(), time.perf_counter()
        got = await crowds.queue("127.0.0.1", self.port, request, times, connections=CONNECTIONS)
        return await self._sum_up(got, before, time.perf_counter() - began)

    async def _sum_up(self, got: list[Answer | str], before: int, seconds: float) -> HttpBurst:
        answers = [each for each in got if isinstance(each, Answer)]
        errors = [each for each in got if isinstance(each, str)]
        await self._edge._wait_for_calls(before, answers)
        return HttpBurst(len(got), answers, errors, self._edge._calls() - before, seconds)


class Edge:
    """A running nginx with its two sites and, unless it has another upstream, a counting origin.

    `naive` and `guarded` are the sites. Ends with `.close()`, as a context manager, or with this
    process, however that ends.
    """

    def __init__(self, nginx: Nginx, origin: HttpOrigin | None, loop: _Loop) -> None:
        self.nginx = nginx
        self._origin = origin
        self._loop = loop
        self.naive = Site(self, "naive", nginx.ports["naive"])
        self.guarded = Site(self, "guarded", nginx.ports["guarded"])
        self._owner = os.getpid()
        self._finish = weakref.finalize(self, _end, nginx, origin, loop, self._owner)

    def __repr__(self) -> str:
        version = ".".join(self.nginx.version.split(".")[:2])
        behind = self.nginx.upstream.partition(":")[0]
        return f"edge: nginx {version} | sites: naive, guarded | origin: {behind}"

    @property
    def origin(self) -> HttpOrigin:
        """The HTTP origin of this edge: set its pages, read its count."""
        if self._origin is None:
            raise EdgeError(
                f"This edge stands in front of {self.nginx.upstream}, which counts nothing here:"
                " edge.start() without an upstream has an origin of its own."
            )
        return self._origin

    def forget(self) -> None:
        """Empty the store of both sites, once the origin has answered whom it still has to."""
        self._run(self._idle(crowds.WALL_SECONDS))
        self.nginx.catch_up()
        self.nginx.empty_stores()

    def wait(self, seconds: float) -> None:
        """Wait until at least `seconds` have passed by nginx's clock too.

        Its clock cannot be moved, and its freshness ticks in whole seconds: what it stores with
        `max-age=1` is fresh for one to two. After `wait(1)` it is stale for certain, one second
        later at most.
        """
        if not 0 <= seconds <= 60:
            raise EdgeError(f"wait takes 0 to 60 seconds of real time, but this is {seconds!r}.")
        until = math.floor(time.time()) + math.ceil(seconds) + 1.02
        while (left := until - time.time()) > 0:
            time.sleep(left)

    def close(self) -> None:
        """End nginx and the origin and remove their folder; safe to call twice."""
        self._finish()

    def __enter__(self) -> Edge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Got]) -> Got:
        if not self._finish.alive or os.getpid() != self._owner:
            work.close()
            what = "is closed" if not self._finish.alive else "belongs to another process"
            raise EdgeError(f"This edge {what}: make a new one with edge.start().")
        try:
            return self._loop.run(work, LONGEST_SECONDS)
        except TimeoutError:
            raise EdgeError(
                f"The edge was not done after {LONGEST_SECONDS:g} s: make a new one with"
                " edge.start(), and ask less of it."
            ) from None

    def _calls(self) -> int:
        return 0 if self._origin is None else self._origin.calls

    async def _wait_for_calls(self, before: int, answers: list[Answer]) -> None:
        """Wait until the count of the origin's calls is right, and, if it is quick, until it rests.

        nginx answers STALE first and asks the origin then.
        """
        if self._origin is not None:
            refreshes = any(answer.cache == "STALE" for answer in answers)
            deadline = time.monotonic() + REFRESH_SECONDS
            while refreshes and self._calls() == before and time.monotonic() < deadline:
                await asyncio.sleep(0.002)
            await self._idle(SETTLE_SECONDS)

    async def _idle(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._origin and not self._origin.is_idle and time.monotonic() < deadline:
            await asyncio.sleep(0.002)


def start(*, upstream: str | None = None, nginx: Path | None = None) -> Edge:
    """Start an edge on free ports of 127.0.0.1, in a private temp folder.

    `upstream`: "HOST:PORT" of an HTTP server to stand in front of (None: a counting origin in this
    process). `nginx`: the binary (None: as CACHELAB_EDGE and this machine have it). Raises
    EdgeError, one sentence that says what is missing and how to get it.
    """
    if upstream is not None and not re.fullmatch(r"[\w.-]+:\d{1,5}", upstream):
        raise EdgeError(f"An upstream is HOST:PORT, like 127.0.0.1:8000, but this is {upstream!r}.")
    binaries = nginxes.candidates() if nginx is None else [nginx]
    loop = _Loop()
    try:
        origin = None
        if upstream is None:
            origin = HttpOrigin(loop.loop)
            loop.run(origin.start(), 10.0)
            upstream = origin.address
        why: NginxUnfit | None = None
        for binary in binaries:
            try:
                running = nginxes.run(binary, upstream)
            except NginxUnfit as unfit:
                why = why or unfit
            else:
                return Edge(running, origin, loop)
        raise EdgeError(f"No edge could be started: {why}") from None
    except BaseException:
        loop.stop()
        raise


class _Loop:
    """An event loop in a thread of its own, where the origin answers and the readers ask."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="edge", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Got], seconds: float) -> Got:
        """Run `work` there and wait for it, `seconds` at most."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(seconds)
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(5.0)
            self.loop.close()


def _end(nginx: Nginx, origin: HttpOrigin | None, loop: _Loop, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork has neither the loop's thread nor a right to our nginx
    nginx.close()
    if origin is not None and loop.loop.is_running():
        loop.run(origin.stop(), 5.0)
    loop.stop()


async def _until_quiet(state: Callable[[], tuple[int, int]], readers: int) -> None:
    """Until all have an answer or wait at the origin, or nothing has moved for a while.

    `state`: how many have an answer, and how many calls have reached the origin.
    """
    seen, quiet = (0, 0), 0
    while sum(now := state()) < readers and quiet < QUIET_LOOKS:
        quiet = quiet + 1 if now == seen != (0, 0) else 0
        seen = now
        await asyncio.sleep(0.005)


def _check_open_files(readers: int) -> None:
    """A reader costs this process two connections, and nginx two and a file."""
    if sys.platform == "win32":
        return
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 3 * readers + 100
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise EdgeError(
            f"{readers:,} readers need {needed:,} open files, but this process may have {soft:,}:"
            f" start it after `ulimit -n {needed}`, or take fewer readers."
        )
