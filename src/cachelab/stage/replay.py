"""One order of the actors' operations, as somebody has written it down, played step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, cast

from cachelab.origin import SMALL, Latency, Size
from cachelab.record.trace import Event
from cachelab.stage.deadline import real_seconds
from cachelab.stage.faults import FAILURES, LOST, Fault
from cachelab.stage.orders import ENDS, Choice, parsed
from cachelab.stage.performance import Performer
from cachelab.stage.scheduler import Scheduler, Task
from cachelab.stage.world import (
    Actor,
    Actors,
    StageTrace,
    World,
    as_actors,
    open_world,
)

_OPERATIONS = frozenset(
    {"hit", "miss", "fill", "delete", "command", "query", "write", "commit", "rollback", "error"}
)


class Impossible(ValueError):
    """The actors cannot take this order; `step` counts from 1, `trace` is what came before it."""

    def __init__(self, step: int, why: str, trace: StageTrace) -> None:
        super().__init__(why)
        self.step, self.trace = step, trace


def replay(
    actors: Actors | Callable[[], Actors],
    order: Sequence[str] | str,
    *,
    setup: Callable[..., Any] | None = None,
    commit_apart: bool | None = None,
    faults: Iterable[Fault] = (),
    seed: int = 0,
    latency: Latency = 0.0,
    capacity: int | None = None,
    size: Size = SMALL,
    limit_seconds: float = 30 * 86_400.0,
    wall_limit: float = 10.0,
) -> StageTrace:
    """Play the actors in exactly this order.

    `order` is a list, in which "reader GET" is the next operation of `reader`, and a statement and
    its commit are one step unless `commit_apart`. Or it is the text that a failed exploration gives
    as its `order`, "reader*2, writer*3, reader": then pass all else as to `explore`, and a larger
    `wall_limit` (s, real) to go through it in a debugger.

    Raises Impossible, in one sentence, when an actor would do something else than the order says,
    or when the order ends before the actors do; ValueError for a text that is no order.
    """
    is_text = isinstance(order, str)
    choices = parsed(order) if isinstance(order, str) else []
    made = actors() if is_text and callable(actors) and not isinstance(actors, Actor) else actors
    cast_list = as_actors(cast(Actors, made))
    roots = [*(actor.play for actor in cast_list), setup, *([actors] if callable(actors) else [])]
    with (
        open_world(
            roots, size=size, latency=latency, capacity=capacity, faults=faults, seed=seed
        ) as world,
        real_seconds(wall_limit) as world.deadline,
    ):
        world.prepare(setup)
        world.commit_apart = is_text if commit_apart is None else commit_apart
        if any(how not in ("", ENDS) for _, how in choices):
            world.perils = (*FAILURES, LOST)
        names = [actor.name for actor in cast_list]
        picker = _Reader(world, choices) if is_text else _Prompter(world, names, order)
        scheduler = Scheduler(world.trace, picker, limit=limit_seconds, deadline=world.deadline)
        world.fresh(scheduler)
        trace = cast(StageTrace, world.play(cast_list, scheduler))
        picker.finish()
        return trace


class _Reader(Performer):
    """Plays an order that is written as a text."""

    def __init__(self, world: World, choices: Sequence[Choice]) -> None:
        super().__init__(world)
        self.choices = choices

    def decide(self, enabled: list[Task], parked: deque[Task]) -> Choice:
        if len(self.taken) == len(self.choices):
            raise Impossible(len(self.taken) + 1, _ends_early(parked), self._trace)
        return self.choices[len(self.taken)]

    def refuse(self, choice: Choice) -> NoReturn:
        who = f"the TTL of {choice.name}" if choice.how == ENDS else choice.name
        what = {"": "go on", ENDS: "end"}.get(choice.how, f"go on ({choice.how})")
        raise Impossible(len(self.taken) + 1, f"{who} cannot {what} there", self._trace)

    def finish(self) -> None:
        """The run is over, and so must be the order."""
        if len(self.taken) < len(self.choices):
            self.refuse(self.choices[len(self.taken)])

    @property
    def _trace(self) -> StageTrace:
        return cast(StageTrace, self.scheduler.trace)


def _ends_early(parked: Iterable[Task]) -> str:
    names = " and ".join(sorted({task.name for task in parked}))
    are = "have" if " and " in names else "has"
    return f"the order ends while {names} still {are} something to do"


class _Prompter(Performer):
    """Plays an order that is a list, and compares what is done with what is written."""

    def __init__(self, world: World, names: Sequence[str], order: Sequence[str]) -> None:
        super().__init__(world)
        self.names, self.order = names, order
        self.mark = 0  # events before the last step

    @property
    def trace(self) -> StageTrace:
        return cast(StageTrace, self.scheduler.trace)

    def decide(self, enabled: list[Task], parked: deque[Task]) -> Choice:
        self.compare()
        if len(self.taken) == len(self.order):
            raise Impossible(len(self.taken) + 1, _ends_early(parked), self.trace)
        return Choice(self.order[len(self.taken)].split()[0])

    def note(self, choice: Choice, task: Task | None) -> None:
        self.mark = len(self.trace.events)

    def finish(self) -> None:
        """The run is over, and so must be the order."""
        self.compare()
        if len(self.taken) < len(self.order):
            self.refuse(Choice(self.order[len(self.taken)].split()[0]))

    def compare(self) -> None:
        """Whether the last step did what the order says."""
        step = len(self.taken)
        name, _, wanted = self.order[step - 1].partition(" ") if step else ("", "", "")
        done = self._done(name, self.mark)
        if wanted.strip() and done and done[0].what != wanted.strip():
            raise Impossible(
                step,
                f"{name} cannot {wanted.strip()} there: its next operation is {done[0].what}",
                self.trace,
            )

    def refuse(self, choice: Choice) -> NoReturn:
        """Say why this step cannot be taken."""
        step, name = len(self.taken) + 1, choice.name
        if name not in self.names:
            raise Impossible(step, f"there is no {name} among {', '.join(self.names)}", self.trace)
        before = self._done(name, 0)
        last = before[-1] if before else None
        told = f", after its {last.what}{' hit' if last.kind == 'hit' else ''}" if last else ""
        waits = any(task.name == name for task in self.scheduler.parked)
        why = "waits for another's commit" if waits else f"has finished{told}"
        raise Impossible(step, f"{name} {why}", self.trace)

    def _done(self, name: str, since: int) -> list[Event]:
        events = self.trace.events[since:]
        return [one for one in events if one.actor == name and one.kind in _OPERATIONS]
