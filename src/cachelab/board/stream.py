"""Where the board is: one stream for all, or one for each learner with a Redis user of their own.

A stream each, because whoever may XADD may also trim: with users of their own, nobody can take
away what others were told to have done.
"""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.connection import Connection, parse_url

from cachelab.cache.connections import CONNECTIONS, pool
from cachelab.process.errors import OneSentence

BOARD = "cachelab:board"
ROSTER = "cachelab:roster"  # a hash: the users that `cachelab class create` made, and when
OWN = "cachelab:class"  # what a learner with a user of their own may touch begins so
LENGTH = 100_000  # entries a stream keeps, about

LEARNER = re.compile(r"learner-\d{2,3}")
LONGEST_NAME = 40
LONGEST_MESSAGE = 300


class BoardError(OneSentence, RuntimeError):
    """The board cannot be used as asked; the text is one sentence and holds no password."""


def stream_of(url: str) -> str:
    """The key of the stream to which the user of `url` appends."""
    user = urlsplit(url).username or ""
    return f"{BOARD}:{user}" if LEARNER.fullmatch(user) else BOARD


def place(url: str) -> str:
    """Host and port, or socket path, of a URL: what may be shown. BoardError when it is none."""
    options = _options(url)
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def connect(url: str, *, seconds: float = 5.0, **overrides: Any) -> redis.Redis:
    """A client of the board that gives up after `seconds`; BoardError for what is no URL."""
    options = _options(url)
    kind = CONNECTIONS[options.pop("connection_class", Connection)]
    settings = {
        "socket_connect_timeout": seconds,
        "socket_timeout": seconds,
        "max_connections": 2,
        "encoding_errors": "replace",
        **options,
        **overrides,
    }
    return redis.Redis.from_pool(pool(kind, settings))


def _options(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))
    except ValueError:  # its own text may hold the password
        raise BoardError(
            "The address of the class board cannot be read: it has to be"
            " redis://USER:PASSWORD@HOST:PORT, rediss://... or unix:///PATH."
        ) from None


def reason(error: BaseException) -> str:
    """An error's own words in one line; redis-py's never hold the password."""
    return plain(str(error)).rstrip(".") or type(error).__name__


def plain(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """`text` on one line, without anything that a terminal would obey, cut to `longest`."""
    joined = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return joined if len(joined) <= longest else joined[: longest - 1] + "…"
