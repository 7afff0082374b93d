"""One order of the actors' steps: what follows from what, and how many orders equal it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote

from cachelab.stage.scheduler import Label

EVERYTHING: Label = (("everything", None, True),)  # commutes with nothing
_MOST_COUNTED = 40_000  # states of the count of orders; beyond it "many"

DIES, ENDS = "dies", "ends"  # an actor's process; the TTL of a key


class Choice(NamedTuple):
    """What happens next: the task of that name goes on, or something goes wrong, as `how` says."""

    name: str
    how: str = ""

    @property
    def text(self) -> str:
        """As an order is written: "reader", "reader!dies", "user:1!ends"."""
        name = quote(self.name, safe=_PLAIN)
        return f"{name}!{self.how}" if self.how else name


def written(choices: Iterable[Choice]) -> str:
    """An order as a short text: "reader*2, writer*3, reader", which `parsed` reads."""
    runs = [(text, len(list(run))) for text, run in itertools.groupby(one.text for one in choices)]
    return ", ".join(f"{text}*{count}" if count > 1 else text for text, count in runs)


def parsed(text: str) -> list[Choice]:
    """The choices of an order that `written` wrote; raises ValueError with one sentence."""
    choices: list[Choice] = []
    for part in text.split(","):
        found = _ITEM.fullmatch(part.strip())
        if found is None:
            raise ValueError(
                f'An order is written like "reader*2, writer, reader"; {part.strip()!r} is no part '
                "of one."
            )
        choices += [Choice(unquote(found[1]), found[2] or "")] * int(found[3] or 1)
    return choices


_PLAIN = "".join(chr(code) for code in range(32, 127) if chr(code) not in "%,!*")
_ITEM = re.compile(r"([^!*,]+)(?:!([a-z ]+))?(?:\*([1-9]\d{0,5}))?")


@dataclass(slots=True)
class Step:
    """One executed step: who, what it touched, what happened before it (a set of bits)."""

    choice: Choice
    process: str
    label: Label
    own: int = 0  # of those, the ones it follows by program order, not by what it touches
    before: int = 0
    released: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        return self.choice.text if self.choice.how == ENDS else self.choice.name


def dependent(a: Label, b: Label) -> bool:
    """Whether the order of two operations can matter."""
    if a is EVERYTHING or b is EVERYTHING:
        return True
    for space, item, writes in a:
        for other_space, other_item, other_writes in b:
            if (
                (writes or other_writes)
                and space == other_space
                and (item is None or other_item is None or item == other_item)
            ):
                return True
    return False


def switches(choices: Iterable[Choice]) -> int:
    """How often somebody else goes on."""
    return sum(a.name != b.name for a, b in itertools.pairwise(choices))


def orders_of(steps: Sequence[Step]) -> int | None:
    """How many orders equal this one: the linear extensions of what happened before what."""
    lanes = _lanes(steps)
    states = 1
    for lane in lanes.values():
        states *= len(lane) + 1
    if states > _MOST_COUNTED:
        return None
    # How many orders lead to each set of steps that is closed under "happened before".
    level: dict[int, int] = {0: 1}
    for _ in steps:
        following: dict[int, int] = {}
        for done, count in level.items():
            for lane in lanes.values():
                index = _next(lane, done)
                if index is not None and steps[index].before & ~done == 0:
                    key = done | 1 << index
                    following[key] = following.get(key, 0) + count
        level = following
    return next(iter(level.values()))


def fewest_switches(steps: Sequence[Step]) -> list[Choice] | None:
    """The order with the fewest switches of all that equal this one; None if there are too many."""
    lanes = _lanes(steps)
    states = len(lanes)
    for lane in lanes.values():
        states *= len(lane) + 1
    if states > _MOST_COUNTED:
        return None
    level: dict[tuple[int, str], tuple[int, list[Choice]]] = {(0, ""): (0, [])}
    for _ in steps:
        following: dict[tuple[int, str], tuple[int, list[Choice]]] = {}
        for (done, last), (count, path) in level.items():
            for name, lane in lanes.items():
                index = _next(lane, done)
                if index is not None and steps[index].before & ~done == 0:
                    key = (done | 1 << index, name)
                    better = (count + (last not in ("", name)), [*path, steps[index].choice])
                    if key not in following or better < following[key]:
                        following[key] = better
        level = following
    return min(level.values())[1]


def _lanes(steps: Sequence[Step]) -> dict[str, list[int]]:
    lanes: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        lanes.setdefault(step.who, []).append(index)
    return lanes


def _next(lane: list[int], done: int) -> int | None:
    """The first step of a lane that is not done."""
    for index in lane:
        if not done >> index & 1:
            return index
    return None
