"""The HTTP origin behind the edge: it counts who asks, can be slow, and answers 304 when it may."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from cachelab.edge.answers import Headers

WORKERS = 32  # threads for pages that are functions
LONGEST_HEAD = 64 * 1024


@dataclass(frozen=True)
class Request:
    """What the origin was asked.

    path: with the query, as sent; user: from the cookie `session=...` or from
    `Authorization: Bearer ...`, None for a stranger; headers: any spelling finds them.
    """

    method: str
    path: str
    headers: Headers = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def user(self) -> str | None:
        """Who asks, if they say."""
        bearer = re.fullmatch(r"Bearer (\S+)", self.headers.get("Authorization", ""))
        session = re.search(r"(?:^|;\s*)session=([^;\s]+)", self.headers.get("Cookie", ""))
        found = bearer or session
        return found[1] if found else None

    @property
    def if_none_match(self) -> str | None:
        """The ETag of the copy that the asker holds, if any."""
        return self.headers.get("If-None-Match")


@dataclass(frozen=True)
class Reply:
    """What a page that is a function may return: body, status and headers of this one answer."""

    body: Any = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Call:
    """One line of the origin's log: who asked what, and how it was answered.

    status: 0 while it waits for its answer; bytes: of the answer's body.
    """

    method: str
    path: str
    user: str | None
    if_none_match: str | None
    status: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        parts = [f"{self.method} {self.path}", f"by {self.user or 'a stranger'}"]
        if self.if_none_match:
            parts.append(f"If-None-Match {self.if_none_match}")
        answer = f"{self.status}, {self.bytes:,} bytes" if self.status else "not answered yet"
        return f"{', '.join(parts)}: {answer}"


@dataclass(frozen=True)
class Page:
    """What is served at a path: a body, or a function that makes one from the Request."""

    body: Any
    status: int
    headers: Mapping[str, str]

    def reply(self, request: Request) -> Reply:
        """The answer to this request."""
        made = self.body(request) if callable(self.body) else self.body
        if not isinstance(made, Reply):
            made = Reply(made, self.status)
        return Reply(made.body, made.status, {**self.headers, **made.headers})


class HttpOrigin:
    """A small HTTP/1.1 server on 127.0.0.1 whose pages are set from the notebook.

    `latency`: seconds that every answer takes. `log`: the calls in the order in which they came.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.latency = 0.0
        self.log: list[Call] = []
        self._pages: dict[str, Page] = {}
        self._in_flight = 0
        self._answering = asyncio.Event()
        self._answering.set()
        self._workers = ThreadPoolExecutor(WORKERS, "origin")
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    def __repr__(self) -> str:
        calls = f"{self.calls:,} call{'' if self.calls == 1 else 's'}"
        return f"origin: 127.0.0.1 | {len(self._pages)} pages | {calls}"

    @property
    def address(self) -> str:
        """ "127.0.0.1:PORT" """
        return f"127.0.0.1:{self.port}"

    # What a notebook uses -------------------------------------------------------------------

    def page(
        self,
        path: str,
        body: Any,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Serve `body` at `path` from now on.

        body: str, bytes, dict or list (sent as JSON), or a function of the Request that returns one
        of these or a Reply. headers: sent with it; with an ETag among them, a request that holds
        that ETag gets 304 and no body. A path without a query also answers for every query. A
        page's function runs in a thread; one that raises becomes a 500.
        """
        if not path.startswith("/"):
            raise ValueError(f"A page's path begins with /, but this is {path!r}.")
        self._pages[path] = Page(body, status, dict(headers or {}))

    @property
    def calls(self) -> int:
        """How many requests have reached the origin since the last reset."""
        return len(self.log)

    def calls_to(self, path: str) -> int:
        """How many of them were for `path`, as sent, with its query."""
        return sum(call.path == path for call in self.log)

    def reset(self) -> None:
        """Forget the calls; pages and latency stay."""
        self.log.clear()

    # What the edge uses ---------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether every request that arrived has its answer."""
        return self._in_flight == 0

    def hold_answers(self) -> None:
        """Let requests arrive and be counted, but answer none until the door is opened."""
        self._answering.clear()

    def release_answers(self) -> None:
        """Answer those who wait and those who come."""
        self._answering.set()

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, backlog=4096, limit=LONGEST_HEAD
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no longer and hang up."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read(reader)) is not None:
                await self._answer(request, writer)
                if request.headers.get("Connection", "").lower() == "close":
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the other side hung up, or speaks no HTTP
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        call = Call(request.method, request.path, request.user, request.if_none_match)
        self.log.append(call)
        self._in_flight += 1
        try:
            await self._answering.wait()
            if self.latency > 0:
                await asyncio.sleep(self.latency)
            head, body = await self._message(request)
            call.status, call.bytes = int(head[9:12]), len(body)
            writer.write(head + body)
            await writer.drain()
        finally:
            self._in_flight -= 1

    async def _message(self, request: Request) -> tuple[bytes, bytes]:
        """Head and body of the answer, whatever the page does."""
        page = self._pages.get(request.path) or self._pages.get(request.path.partition("?")[0])
        if page is None:
            return _wire(request, Reply(f"There is no page at {request.path}.", 404))
        try:
            if not callable(page.body):
                return _wire(request, page.reply(request))
            # It may be slow, or wait for something: others must not wait for it.
            made = await self._loop.run_in_executor(self._workers, page.reply, request)
            return _wire(request, made)
        except Exception as error:
            said = f"The page at {request.path} raised {type(error).__name__}: {error}"
            return _wire(request, Reply(said, 500, {"Cache-Control": "no-store"}))


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None when there is no more."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise
        return None
    first, _, rest = raw.decode("latin-1").partition("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = Headers.parse(rest)
    length = int(headers.get("Content-Length", "0"))
    return Request(method, path, headers, await reader.readexactly(length) if length else b"")


def _encoded(body: Any) -> tuple[bytes, str]:
    """A body as bytes, and its Content-Type."""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return json.dumps(body, ensure_ascii=False).encode(), "application/json"


def _wire(request: Request, reply: Reply) -> tuple[bytes, bytes]:
    """Head and body of a reply as they go over the wire, 304 where the asker's copy is good."""
    body, kind = _encoded(reply.body)
    headers = Headers({"Date": formatdate(time.time(), usegmt=True), "Content-Type": kind})
    headers = Headers({**headers, **Headers(reply.headers)})
    status = reply.status
    if status == 200 and _same_etag(request.if_none_match, headers.get("ETag")):
        status, body = 304, b""
    if status == 304:
        headers = Headers({name: headers[name] for name in headers if name != "Content-Type"})
    else:
        headers = Headers({**headers, "Content-Length": str(len(body))})
    lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\n" in line or "\r" in line for line in lines):
        raise ValueError("a header has a line break in it")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
    return head, b"" if request.method == "HEAD" else body


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _same_etag(held: str | None, current: str | None) -> bool:
    """If-None-Match against an ETag, by the weak comparison of RFC 9110 section 8.8.3.2."""
    if held is None or current is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in held.split(",")]
    return "*" in tags or current.removeprefix("W/") in tags
