"""Where a command has its keys, as the servers say it: `tools/command_keys.py` makes the table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

Spec = list[int | str]
Table = Mapping[str, list[Spec]]

TABLE_FILE = Path(__file__).with_name("command_keys.json")

# Commands of newer Redis servers that Valkey, the source of the table, does not have.
ONLY_REDIS: Table = {name: [[1, 0, 1, 0]] for name in ("DELEX", "DIGEST", "XACKDEL", "XDELEX")}


@cache
def commands() -> Table:
    """Every command we know, upper case, subcommands as `OBJECT|ENCODING`, with its key specs.

    A spec is `[first, last, step, limit]` or `[first, "n", count, keys, step]`: where to look
    (an index, or `"WORD@from"`: after that word), then the range of keys from there, as in
    Valkey's key specifications. `["?"]`: cannot be said so, it takes code.
    """
    known: dict[str, list[Spec]] = json.loads(TABLE_FILE.read_text())
    return {**known, **ONLY_REDIS}


def key_positions(spec: Spec, argv: Sequence[Any]) -> Iterator[int]:
    """The indexes in `argv` (command first) that a key spec names, as the server finds them.

    ValueError, one sentence, where the command does not say how many there are.
    """
    for first in _first_positions(spec, argv):
        yield from _range(spec, first, argv)


def _range(spec: Spec, first: int, argv: Sequence[Any]) -> Iterator[int]:
    if spec[1] == "n":
        _, _, count_at, keys_at, step = spec
        try:
            count = int(as_text(argv[first + int(count_at)]))
        except (ValueError, IndexError):
            raise ValueError(
                f"{upper(argv[0])} needs the number of its keys as an integer, but this is"
                f" {argv[first + int(count_at)] if first < len(argv) else 'missing'!r}."
            ) from None
        start, stop = first + int(keys_at), first + int(keys_at) + count * int(step)
    else:
        last, step, limit = (int(part) for part in spec[1:])
        start = first
        if last >= 0:
            stop = first + last + 1
        elif last == -1 and limit > 1:
            stop = first + (len(argv) - first) // limit
        else:
            stop = len(argv) + last + 1
    yield from (index for index in range(start, stop, int(step)) if index < len(argv))


def _first_positions(spec: Spec, argv: Sequence[Any]) -> list[int]:
    where = spec[0]
    if isinstance(where, int):
        return [where] if where < len(argv) else []
    if where == "?":
        return []
    word, _, start = where.partition("@")
    begin = int(start)
    places = range(begin, len(argv) - 1) if begin > 0 else range(len(argv) + begin, 0, -1)
    found = [place + 1 for place in places if upper(argv[place]) == word]
    # An option said twice (STORE a STORE b) counts for its last place: take them all.
    return found if spec[1] == 0 else found[:1]


def upper(value: Any) -> str:
    return as_text(value).upper()


def as_text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape")
    return str(value)
