"""Readers of a site: one, many at once, or one after another, over real connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote

from cachelab.edge.answers import Answer, Headers

WALL_SECONDS = 60.0  # for one reader, and for a burst
CONNECTING = 64  # at a time: some systems queue no more
LONGEST_HEAD = 64 * 1024


def head_of(
    method: str,
    path: str,
    host: str,
    *,
    user: str | None = None,
    bearer: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A request as it goes over the wire.

    `user` sends the cookie `session=...`, `bearer` sends `Authorization: Bearer ...`.
    """
    if not path.startswith("/"):
        raise ValueError(f"A path begins with /, but this is {path!r}.")
    fields = {"Host": host, "User-Agent": "cachelab", "Accept": "*/*"}
    if user is not None:
        fields["Cookie"] = f"session={user}"
    if bearer is not None:
        fields["Authorization"] = f"Bearer {bearer}"
    every = Headers({**fields, **(headers or {})})
    target = quote(path, safe="/?&=%:@!$'()*+,;~-._")
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("A header cannot have a line break in it.")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Reader:
    """One connection to a site: asks, and asks again over the same connection."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        """Open the connection, unless it is open."""
        if self._ends is None:
            self._ends = await asyncio.open_connection(self.host, self.port, limit=LONGEST_HEAD)

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer; ConnectionError when the site hangs up."""
        await self.connect()
        assert self._ends is not None
        reader, writer = self._ends
        began = time.perf_counter()
        writer.write(request)
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
            first, _, rest = raw.decode("latin-1").partition("\r\n")
            status, headers = int(first.split(" ", 2)[1]), Headers.parse(rest)
            body = await _body(request, status, headers, reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise ConnectionError("the site hung up in the middle of its answer") from None
        return Answer(status, headers, body, time.perf_counter() - began)

    def disconnect(self) -> None:
        """Close the connection."""
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None


async def _body(
    request: bytes, status: int, headers: Headers, reader: asyncio.StreamReader
) -> bytes:
    if request.startswith(b"HEAD") or status in (204, 304):
        return b""
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return b"".join(parts)
    if "Content-Length" in headers:
        return await reader.readexactly(int(headers["Content-Length"]))
    return await reader.read()


async def one(host: str, port: int, request: bytes) -> Answer:
    """One reader with a connection of its own."""
    reader = Reader(host, port)
    try:
        return await asyncio.wait_for(reader.ask(request), WALL_SECONDS)
    finally:
        reader.disconnect()


async def crowd(
    host: str,
    port: int,
    request: bytes,
    readers: int,
    *,
    over: float,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Answer | str]:
    """As many readers, each with a connection of its own; what each got, or saw fail.

    They connect first and then ask: all at once, or one after another over `over` seconds.
    """
    connecting, ready, go = asyncio.Semaphore(CONNECTING), [0], asyncio.Event()

    async def read(number: int) -> Answer | str:
        reader = Reader(host, port)
        try:
            try:
                async with connecting:
                    await reader.connect()
            finally:
                ready[0] += 1
                if ready[0] == readers:
                    go.set()
            await go.wait()
            if over > 0:
                await asyncio.sleep(over * number / readers)
            return await asyncio.wait_for(reader.ask(request), WALL_SECONDS)
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            on_answer()
            reader.disconnect()

    return list(await asyncio.gather(*(read(number) for number in range(readers))))


async def queue(
    host: str, port: int, request: bytes, times: int, *, connections: int
) -> list[Answer | str]:
    """The same request `times` times over a few connections that stay open."""
    got: list[Answer | str] = []

    async def read(count: int) -> None:
        reader = Reader(host, port)
        try:
            for _ in range(count):
                try:
                    got.append(await asyncio.wait_for(reader.ask(request), WALL_SECONDS))
                except (OSError, ValueError) as error:
                    got.append(f"{type(error).__name__}: {error}")
                    reader.disconnect()
        finally:
            reader.disconnect()

    # The very first goes alone, so that the others find what it stored.
    await read(min(1, times))
    share, rest = divmod(max(0, times - 1), connections)
    await asyncio.gather(*(read(share + (each < rest)) for each in range(connections)))
    return got
