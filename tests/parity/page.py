"""docs/parity.md: what was compared, and every difference with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cachelab.cache import server
from parity import MODES, Difference, Server, Stage, compare, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parity.md"
REDIS = "\n## Where Redis 7.0 answers otherwise than Valkey\n"

HEAD = """\
# The stage, fakeredis, Valkey and Redis: where they answer otherwise

Built by `PYTHONPATH=tests python -m parity` from `tests/parity/calls.txt`; `tests/test_parity.py`
holds this page to a run. The table has {rows} programs with {calls} calls of {names} methods and
commands. Every one is made by a client as `cachelab.start()` gives it, by one that speaks RESP2, by
one that speaks RESP3, and by one that wants bytes: on a live Valkey, by an actor on the stage, on
fakeredis (`CACHELAB_BACKEND=fake`), and on a live Redis 7.0. Replies have to be equal, type and
value; of an error its class and words, without "Redis" and the place in the script.

| programs of {rows} | {columns} |
|---|{rule}|
{counts}

## What needs a real server

On the stage each of these ends the run with `Refused`: "... is not on the stage: it needs a real
server." A check then says *proved nothing*, never *failed*. On fakeredis it raises `NotHere`, a
`redis.ResponseError`.

{limits}

## Where the stage or fakeredis answers otherwise than Valkey

The first difference of each program; a mode in brackets where it is so in that mode only.

| call | Valkey | here | why |
|---|---|---|---|
{ours}
"""


def here(valkey: Server) -> dict[str, list[Difference]]:
    """Where the stage and fakeredis answer otherwise."""
    return {
        "stage": compare(Stage(), valkey),
        "fake": compare(Server("fake", server.fake()), valkey),
    }


def ours(found: dict[str, list[Difference]]) -> str:
    """The part about the stage and fakeredis."""
    return HEAD.format(
        rows=len(table()),
        calls=sum(len(row.calls) for row in table()),
        names=len(set().union(*(row.names for row in table()))),
        columns=" | ".join(found),
        rule="---|" * (len(found) - 1) + "---",
        counts=_counts(found),
        limits=_limits(found["stage"]),
        ours=_rows([*found["stage"], *found["fake"]]),
    )


def theirs(found: list[Difference]) -> str:
    """The part about Redis."""
    return f"{REDIS}\n| call | Valkey | Redis | why |\n|---|---|---|---|\n{_rows(found)}\n"


def theirs_as_written() -> str:
    """The part about Redis as the page has it."""
    _, mark, after = PAGE.read_text(encoding="utf-8").partition(REDIS)
    return mark + after


def _counts(found: dict[str, list[Difference]]) -> str:
    lines = []
    for mode in MODES:
        cells = []
        for differences in found.values():
            those = [each for each in differences if each.mode == mode]
            limits = sum(each.is_limit for each in those)
            other = len(those) - limits
            cells.append(
                f"{len(table()) - len(those)} equal, {limits} need a server, {other} otherwise"
            )
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _limits(found: Iterable[Difference]) -> str:
    names = {
        each.ours.partition(": ")[2].partition(" is not ")[0] for each in found if each.is_limit
    }
    return ", ".join(f"`{name}`" for name in sorted(names)) + "."


def _rows(found: Iterable[Difference]) -> str:
    """One row for each program, by its first difference."""
    rows: dict[str, str] = {}
    modes = Counter((each.row.text, each.call) for each in found)
    for each in found:
        if each.is_limit or each.row.text in rows:
            continue
        why = next(iter(each.row.reasons.values()), "")
        only = "" if modes[each.row.text, each.call] % len(MODES) == 0 else f" ({each.mode})"
        cells = [f"`{_cut(text)}`" for text in (each.call, each.theirs, each.ours)]
        rows[each.row.text] = f"| {cells[0]}{only} | {cells[1]} | {cells[2]} | {why} |"
    return "\n".join(rows.values())


def _cut(text: str) -> str:
    line = " ".join(text.split()).replace("|", "/").replace("`", "'")
    return line if len(line) <= 90 else line[:87] + "..."
