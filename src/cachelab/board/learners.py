"""Redis users for a class: each may touch keys of their own and append to the board, no more.

What a learner may not do is refused by the server, not by us. What it cannot refuse: SCAN tells
the names of all keys (never what they hold), since ACL rules do not narrow it; and a learner may
fill the server's memory, so give it a `maxmemory`.
"""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import csv
import io
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import redis

from cachelab.board.stream import (
    BOARD,
    LEARNER,
    OWN,
    ROSTER,
    BoardError,
    connect,
    place,
    plain,
    reason,
)

MOST = 999

# What the workbook's chapters send, by the server's own categories; what disturbs others is taken
# out again. SORT's BY and GET are held to the same keys by the server.
COMMANDS = (
    "-@all",
    *(f"+@{each}" for each in ("keyspace", "read", "write", "string", "hash", "list", "set")),
    *(f"+@{each}" for each in ("sortedset", "stream", "bitmap", "hyperloglog", "geo", "pubsub")),
    *(f"+@{each}" for each in ("transaction", "scripting", "connection")),
    "-@dangerous",
    "-@admin",
    *("-randomkey", "-pubsub", "-function", "-fcall", "-fcall_ro"),
    *("-script|flush", "-script|kill", "-script|debug"),
    *("+info", "+sort", "+sort_ro", "+acl|whoami"),
)


@dataclass(frozen=True)
class Account:
    """One row of the file that `create` writes: what a learner is given.

    `start` is the line that a learner runs in the folder of the workbook.
    """

    name: str
    url: str
    prefix: str
    start: str


def prefix_of(name: str) -> str:
    """What every key of this learner begins with."""
    return f"{OWN}:{name}:"


def rules(name: str, password: str) -> list[str]:
    """The words of ACL SETUSER for this learner."""
    return [
        *("reset", "resetchannels", "on", f">{password}"),
        *(f"~{prefix_of(name)}*", f"&{prefix_of(name)}*", *COMMANDS),
        # A stream each: who may XADD may also trim.
        f"(+xadd %W~{BOARD}:{name})",
    ]


@dataclass(frozen=True)
class Created:
    """What `create` found and did: names by what became of them, and a remark or ""."""

    made: list[str]
    existed: list[str]
    unknown: list[str]  # exist, but their password stands in no row of the file
    note: str


def create(url: str, count: int, file: Path, host: str = "") -> Created:
    """Make users learner-01 ... for a class, and write what each is given to `file` (mode 0600).

    A row that is in the file stays as it is, and a user that the server has lost is made again
    with its password. `host`: how learners reach the server, HOST:PORT (as in `url` if empty).
    Raises BoardError, one sentence; then no user was made.
    """
    if not 1 <= count <= MOST:
        raise BoardError(f"A class has 1 to {MOST} learners; asked for are {count}.")
    names = [f"learner-{number:02d}" for number in range(1, count + 1)]
    rows = {row.name: row for row in read_rows(file)}
    with _admin(url) as admin:
        _closed(admin, place(url))
        roster = set(admin.hkeys(ROSTER))
        there = set(admin.acl_users())
        taken = [name for name in names if name in there and name not in roster]
        if taken:
            raise BoardError(
                f"{place(url)} has a user {taken[0]} already that cachelab class create has not"
                " made: nothing was changed; use a server for the class alone."
            )
        missing = [name for name in names if name not in there]
        for name in missing:
            if name not in rows:
                rows[name] = _row(url, host, name, secrets.token_urlsafe(18))
        # The passwords first: a user whose password nobody has is of no use.
        write_rows(file, [rows[name] for name in sorted(rows, key=_number)])
        for name in missing:
            admin.execute_command("ACL", "SETUSER", name, *rules(name, _password(rows[name])))
            admin.hset(ROSTER, name, str(int(time.time())))
        existed = [name for name in names if name in there]
        return Created(
            made=missing,
            existed=[name for name in existed if name in rows],
            unknown=[name for name in existed if name not in rows],
            note=_kept(admin) if missing else "",
        )


def remove(url: str, board: bool = False) -> tuple[list[str], int]:
    """Remove the users that `create` made, with their keys; and, if asked, the board.

    Returns their names and how many keys were deleted. The roster goes with the board, which is
    found by it.
    """
    with _admin(url) as admin:
        names = sorted(admin.hkeys(ROSTER), key=_number)
        ours = tuple(prefix_of(name) for name in names)
        # Ends their connections too.
        removed = [name for name in names if admin.acl_deluser(name)]
        gone = 0
        if ours:
            found = admin.scan_iter(match=f"{OWN}:*", count=1000)
            gone = _unlink(admin, (key for key in found if key.startswith(ours)))
        if board:
            gone += _unlink(admin, [BOARD, *(f"{BOARD}:{name}" for name in names), ROSTER])
        _kept(admin)
        return removed, gone


def _unlink(admin: Any, keys: Iterable[str]) -> int:
    every = list(keys)
    return sum(int(admin.unlink(*every[at : at + 500])) for at in range(0, len(every), 500))


class _admin:
    """A client that may make users, or one sentence that says why it may not."""

    def __init__(self, url: str) -> None:
        self._place, self._client = place(url), connect(url)

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._client.close()
        if isinstance(error, redis.exceptions.NoPermissionError):
            raise BoardError(
                f"This user may not make users at {self._place}: name the server with a user who"
                f" may ({reason(error)})."
            ) from None
        if isinstance(error, (redis.RedisError, OSError)):
            raise BoardError(f"{self._place} cannot be used ({reason(error)}).") from None


def _closed(admin: Any, where: str) -> None:
    """BoardError when anybody is let in without a password: users would protect nothing."""
    default = admin.acl_getuser("default")
    flags = set(default["flags"]) if default else set()
    if default and default["enabled"] and "nopass" in flags:
        raise BoardError(
            f"{where} lets everybody in without a password, as its default user, so users of"
            " their own would protect nothing: set a password first (requirepass in its"
            " configuration), and name the server with it."
        )


def _kept(admin: Any) -> str:
    """Save the users where the server can; else a sentence that says that they do not last."""
    try:
        admin.acl_save()
    except redis.ResponseError:
        return (
            "This server has no ACL file, so its users are gone when it restarts: the same"
            " command makes them again, with the passwords in the file."
        )
    return ""


# The file ------------------------------------------------------------------------------------

COLUMNS = [field.name for field in fields(Account)]


def _row(url: str, host: str, name: str, password: str) -> Account:
    parts = urlsplit(url)
    who = f"{name}:{quote(password, safe='')}@"
    netloc = who + ("" if parts.scheme == "unix" else host or parts.netloc.rpartition("@")[2])
    given = urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))
    start = f"CACHELAB_REDIS_URL='{given}' CACHELAB_PREFIX={prefix_of(name)}"
    return Account(name, given, prefix_of(name), f"{start} CACHELAB_CLASS_URL='{given}' make lab")


def _password(row: Account) -> str:
    return unquote(urlsplit(row.url).password or "")


def _number(name: str) -> tuple[int, str]:
    digits = name.rpartition("-")[2]
    return (int(digits) if digits.isdigit() else 0, name)


def read_rows(file: Path) -> list[Account]:
    """The rows of a file that `create` wrote; [] if there is none; BoardError if it is another."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BoardError(f"{file} cannot be read ({reason(error)}).") from None
    table = list(csv.reader(io.StringIO(text)))
    whole = table and table[0] == COLUMNS and all(len(row) == len(COLUMNS) for row in table[1:])
    rows = [Account(*row) for row in table[1:]] if whole else []
    if not whole or not all(LEARNER.fullmatch(row.name) and _password(row) for row in rows):
        raise BoardError(
            f"{file} is not a file that cachelab class create wrote: nothing was changed; name"
            " another with --file."
        )
    return rows


def write_rows(file: Path, rows: Sequence[Account]) -> None:
    """Write the file in one step, for its owner's eyes only (mode 0600)."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerows([COLUMNS, *([getattr(row, name) for name in COLUMNS] for row in rows)])
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".class-", delete=False) as new:
            new.write(out.getvalue().encode())  # made with mode 0600
        os.replace(new.name, file)
    except OSError as error:
        raise BoardError(
            f"{file} cannot be written ({plain(error.strerror or '')}): no user was made."
        ) from None
