"""Which commands a Lua script calls, read from its text."""

from __future__ import annotations

import re
from collections.abc import Iterator

LUA = re.compile(
    r"""(?P<comment>--\[(?P<c>=*)\[.*?\](?P=c)\]|--[^\n]*)
    |\[(?P<l>=*)\[(?P<long>.*?)\](?P=l)\]
    |"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>(?:\\.|[^'\\])*)'
    |(?P<word>[A-Za-z_]\w*)|(?P<number>\d[\w.]*)|(?P<mark>\S)""",
    re.DOTALL | re.VERBOSE,
)
LUA_WAYS_OUT = {"_G", "getfenv", "setfenv", "load", "loadstring", "dofile", "loadfile", "require"}


def lua_calls(script: str) -> Iterator[tuple[str | None, str | None]]:
    """The commands a Lua script calls, each with its first argument when that is a literal.

    `(None, what)` where a call cannot be read off: a computed command name, `redis` used as a
    value, a way to run other code. ARGV counts as a literal, a variable does not.
    """
    tokens = [match for match in LUA.finditer(script) if match["comment"] is None]

    def at(index: int) -> str:
        return tokens[index].group() if index < len(tokens) else ""

    for index, token in enumerate(tokens):
        word = token["word"]
        if word in LUA_WAYS_OUT and at(index - 1) != ".":
            yield None, word
        if word not in {"redis", "server"} or (index and at(index - 1) == "."):
            continue
        if at(index + 1) != "." or not tokens[index + 2]["word"]:
            yield None, f"{word} other than as {word}.call(...)"
        elif at(index + 2) in {"call", "pcall"}:
            command = _literal(tokens[index + 4]) if index + 4 < len(tokens) else None
            if at(index + 3) != "(" or command is None or at(index + 5) not in {",", ")"}:
                yield None, f"{word}.{at(index + 2)} without a literal command name"
            elif at(index + 5) == "," and index + 6 < len(tokens):
                following = _literal(tokens[index + 6])
                yield command, "ARGV" if at(index + 6) == "ARGV" else following
            else:
                yield command, None


def _literal(token: re.Match[str]) -> str | None:
    return next(
        (token[kind] for kind in ("double", "single", "long", "number") if token[kind] is not None),
        None,
    )
