"""One table of calls, `calls.txt`, made on every cache that Cachelab can have, and compared."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis

from cachelab import stage
from cachelab.cache import server
from cachelab.cache.client import Cache

TABLE = Path(__file__).with_name("calls.txt")

# How a client may ask: redis-py's options, by name. The first is what `cachelab.start()` gives.
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "RESP2": {"protocol": 2},
    "RESP3": {"protocol": 3},
    "bytes": {"decode_responses": False},
}
LIMIT = re.compile(r"(NotHere|Refused)\b")  # what says that a command is not here


@dataclass(frozen=True)
class Row:
    """One program of the table; `reasons`: by side, why it answers otherwise than Valkey."""

    section: str
    text: str
    shape_only: bool = False
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> list[str]:
        """The calls whose replies are compared, as text."""
        return [
            ast.unparse(each) for each in ast.parse(self.text).body if isinstance(each, ast.Expr)
        ]

    @property
    def names(self) -> set[str]:
        """The methods, and the commands in capitals, that it calls."""
        nodes = list(ast.walk(ast.parse(self.text)))
        called = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        called |= {
            node.func.id
            for node in nodes
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        texts = [str(node.value) for node in nodes if isinstance(node, ast.Constant)]
        scripted = re.findall(r"redis\.p?call\('(\w+)", self.text)
        return called | {text for text in texts if re.fullmatch("[A-Z]{3,}", text)} | {*scripted}


@cache
def table() -> list[Row]:
    """The rows of `calls.txt`."""
    rows: list[Row] = []
    section = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("=="):
            section = line.removeprefix("==").strip()
        elif line.startswith(" "):
            sides, _, why = line.strip().partition(": ")
            rows[-1].reasons.update(dict.fromkeys(sides.split(), why))
        elif line and not line.startswith("#"):
            rows.append(Row(section, line.removeprefix("~ "), line.startswith("~ ")))
    return rows


# Playing a row ----------------------------------------------------------------------------------


def play(client: redis.Redis, row: Row, seen: list[str]) -> None:
    """Add to `seen` what each call of the row answers, as text; of an error its type and words."""
    names: dict[str, Any] = {each.__name__: each for each in (int, len, sorted, str)}
    names["sleep"] = time.sleep  # on the stage that is another one
    for statement in ast.parse(row.text).body:
        assert isinstance(statement, ast.Expr | ast.Assign), row.text
        try:
            value = _value(statement.value, client, names)
        except Exception as error:
            seen.append(type(error).__name__ if row.shape_only else _said(error))
            continue
        if isinstance(statement, ast.Assign):
            assert isinstance(statement.targets[0], ast.Name)
            names[statement.targets[0].id] = value
        elif hasattr(value, "execute_command"):
            seen.append("itself")
        else:
            seen.append(shape(value) if row.shape_only else _said(value))


def _value(node: ast.expr, client: redis.Redis, names: dict[str, Any]) -> Any:
    def look(inner: ast.expr) -> Any:
        return _value(inner, client, names)

    if isinstance(node, ast.Call):
        options = {word.arg: look(word.value) for word in node.keywords if word.arg}
        return look(node.func)(*map(look, node.args), **options)
    if isinstance(node, ast.Attribute):
        return getattr(look(node.value), node.attr)
    if isinstance(node, ast.Name):
        return names[node.id] if node.id in names else getattr(client, node.id)
    return ast.literal_eval(node)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    if isinstance(value, set):
        return f"{{{', '.join(sorted(map(_said, value)))}}}"
    if isinstance(value, Exception):
        # Valkey leaves "Redis" out of its words, and each says in which script it was.
        words = re.sub(r"\b(Redis|Valkey|redis lib) | script: .*", "", str(value))
        return f"{type(value).__name__}: {words}"
    return repr(value)


def shape(value: Any) -> str:
    """The types in a reply, without its values."""
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{key!r}: {shape(item)}' for key, item in value.items()))}}}"
    if isinstance(value, list | tuple | set):
        inner = sorted({shape(item) for item in value})
        return f"{type(value).__name__}[{' | '.join(inner)}]"
    return type(value).__name__


# Sides ------------------------------------------------------------------------------------------


class Server:
    """A server, or fakeredis."""

    def __init__(self, name: str, found: server.Server) -> None:
        self.name, self.found = name, found
        self.all = cache(lambda mode: self.replies(table(), mode))

    def replies(self, rows: Sequence[Row], mode: str) -> list[list[str]]:
        """What each row's calls answer to a client of that mode."""
        answers: list[list[str]] = []
        for row in rows:
            pool = self.found.connection_pool(**MODES[mode])
            client = Cache(connection_pool=pool, keyspace=self.found.keyspace)
            client.flushall()
            answers.append([])
            play(client, row, answers[-1])
            pool.disconnect()
        return answers


class Stage:
    """An actor on the stage. What the stage refuses ends the run, and is the last of a row."""

    name = "stage"

    def replies(self, rows: Sequence[Row], mode: str) -> list[list[str]]:
        """As of a server."""
        answers: list[list[str]] = []
        while len(answers) < len(rows):
            answers += self._run(rows[len(answers) :], mode)
        return answers

    def _run(self, rows: Sequence[Row], mode: str) -> list[list[str]]:
        """The replies of the first rows, as far as the stage plays them in one run."""
        # An actor's process sends back what it adds to a plain list.
        began: list[int] = []
        said: list[str] = []

        def actor(cache: Cache) -> None:
            for row in rows:
                began.append(len(said))
                cache.flushall()
                play(own(cache, mode), row, said)

        try:
            answer = stage.run({"a": actor}).answers["a"]
        except stage.Refused as refused:
            said.append(_said(refused))
        else:
            assert answer is None, answer
        return [said[start:end] for start, end in pairwise([*began, len(said)])]


def own(cache: Cache, mode: str) -> Cache:
    """A client of an actor's own on the stage's pool, if it asks otherwise than the one given."""
    if not MODES[mode]:
        return cache
    pool = cache.connection_pool
    options = {**pool.connection_kwargs, **MODES[mode]}
    mine = redis.ConnectionPool(connection_class=pool.connection_class, **options)
    return Cache(connection_pool=mine)


# Comparing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A row that is answered otherwise: the mode, and the first such call with both replies."""

    row: Row
    mode: str
    call: str
    ours: str
    theirs: str

    @property
    def is_limit(self) -> bool:
        """Whether the command is said not to be here."""
        return LIMIT.match(self.ours) is not None


def compare(side: Server | Stage, valkey: Server) -> list[Difference]:
    """Where a side answers otherwise than Valkey, three times: a clock may be late once."""
    found = []
    for mode in MODES:
        ours, theirs = side.replies(table(), mode), valkey.all(mode)
        for row, one, other in zip(table(), ours, theirs, strict=True):
            for _ in range(2):
                if one == other or row.reasons.get(side.name) or LIMIT.match(one[-1]):
                    break
                [one], [other] = side.replies([row], mode), valkey.replies([row], mode)
            if one != other:
                at = next(at for at, reply in enumerate(one) if reply != other[at])
                found.append(Difference(row, mode, row.calls[at], one[at], other[at]))
    return found
