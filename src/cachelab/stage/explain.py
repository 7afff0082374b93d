"""Why an order fails: the two operations whose order decides, and the nearest order that passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cachelab.process.places import Where
from cachelab.record.trace import Trace
from cachelab.stage.faults import LOST
from cachelab.stage.orders import DIES, ENDS, Choice, Step, dependent

_OTHERWISE = {
    "fails": "does not reach the cache",
    "fails late": "is done, and its reply is lost",
    "times out": "times out before it is done",
    "times out late": "times out, and is done",
    LOST: "is lost on its way",
}
_ASIDE = frozenset({"note", "sleep", "wait"})  # kinds of events that are no operation


class Doing(NamedTuple):
    """What one step did: its events begin with number `mark`, its operation is sent at `place`."""

    mark: int
    place: Where | None


@dataclass(frozen=True)
class Other:
    """An order to try instead: `wanted`, as far as it can be had.

    It differs from the failed one in that step `second` comes before step `first`; or, without a
    `second`, in that the mischance `first` does not happen.
    """

    wanted: list[Choice]
    first: int
    second: int | None = None


def others(taken: Sequence[Choice], steps: Sequence[Step]) -> Iterator[Other]:
    """The orders next to this one, those that part from it last before the others."""
    for at in range(len(taken) - 1, -1, -1):
        if taken[at].how:
            yield Other([*taken[:at], *taken[at + 1 :]], at)
    for first in range(len(taken) - 1, -1, -1):
        for second in range(first + 1, len(taken)):
            if _can_swap(steps, first, second):
                between = range(first + 1, second)
                before = [k for k in between if steps[second].before >> k & 1]
                after = [k for k in between if k not in before]
                moved = [*before, second, first, *after, *range(second + 1, len(taken))]
                yield Other([*taken[:first], *(taken[k] for k in moved)], first, second)


def _can_swap(steps: Sequence[Step], first: int, second: int) -> bool:
    """Whether two steps meet, and nothing else says which of them comes first."""
    one, two = steps[first], steps[second]
    if one.who == two.who or two.own >> first & 1 or ENDS in (one.choice.how, two.choice.how):
        return False
    if not dependent(one.label, two.label):
        return False
    return not any(
        steps[k].before >> first & 1 and two.before >> k & 1 for k in range(first + 1, second)
    )


def parting(taken: Sequence[Choice], other: Sequence[Choice]) -> int:
    """The first step, from 0, at which two orders differ."""
    pairs = enumerate(zip(taken, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(taken), len(other)))


def sentences(
    steps: Sequence[Step], doings: Sequence[Doing], trace: Trace, found: Other | None, at: int
) -> tuple[str, ...]:
    """What to say of a failed order of which `found` passes, which parts from it at step `at`."""
    row = _row(doings, trace, steps, at)
    parts = f"The nearest order that passes parts from this one at #{row}"
    if found is None:
        return (f"{parts}.",)
    if found.second is not None:
        one, two = (_said(steps, doings, trace, k) for k in (found.first, found.second))
        return (f"{one} comes before {two}.", f"The other way round it holds. {parts}.")
    return (f"{_mischance(steps, doings, trace, found.first)}.", f"Without that it holds. {parts}.")


def _mischance(steps: Sequence[Step], doings: Sequence[Doing], trace: Trace, at: int) -> str:
    name, how = steps[at].choice
    if how == DIES:
        last = max((k for k in range(at) if steps[k].process == name), default=None)
        after = f" after {_said(steps, doings, trace, last, own=True)}" if last is not None else ""
        where = f", before {_at(doings[at].place)}" if doings[at].place else ""
        return f"{name} dies{after}{where}"
    if how == ENDS:
        key = (("cache", name, True),)
        meets = [k for k, step in enumerate(steps) if k != at and dependent(step.label, key)]
        near = [
            word + _said(steps, doings, trace, k)
            for word, k in (
                ("after ", max((k for k in meets if k < at), default=None)),
                ("before ", min((k for k in meets if k > at), default=None)),
            )
            if k is not None
        ]
        return f"The TTL of {name} ends {' and '.join(near)}".rstrip()
    return f"{_said(steps, doings, trace, at)} {_OTHERWISE[how]}"


def _said(
    steps: Sequence[Step], doings: Sequence[Doing], trace: Trace, at: int, *, own: bool = False
) -> str:
    """A step as a sentence names it: "reader's GET user:1 (line 3, `cache.get(key)`)"."""
    row = _row(doings, trace, steps, at)
    event = trace.events[row - 1] if 0 < row <= len(trace.events) else None
    mine = event is not None and event.actor == steps[at].who and event.kind not in _ASIDE
    what = f"{event.what} {event.on}".rstrip() if event is not None and mine else "next step"
    place = _at(doings[at].place)
    return f"{'its' if own else steps[at].who + chr(39) + 's'} {what}" + (
        f" ({place})" if place else ""
    )


def _at(place: Where | None) -> str:
    return place.full if place is not None else ""


def _row(doings: Sequence[Doing], trace: Trace, steps: Sequence[Step], at: int) -> int:
    """The number in the table of the event that a step left, or of the next one."""
    if at >= len(doings):
        return len(trace.events)
    end = doings[at + 1].mark if at + 1 < len(doings) else len(trace.events)
    for number in range(doings[at].mark, end):
        event = trace.events[number]
        if event.actor == steps[at].who and event.kind not in _ASIDE:
            return number + 1
    return min(doings[at].mark + 1, len(trace.events))
