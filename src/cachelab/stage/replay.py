"""One order of the actors' operations, as somebody has written it down, played step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from cachelab.origin import SMALL, Size
from cachelab.record.trace import Event
from cachelab.stage.scheduler import Picker, Scheduler, Task
from cachelab.stage.world import Actors, StageTrace, as_actors, open_world, wall_clock

_OPERATIONS = frozenset(
    {"hit", "miss", "fill", "delete", "command", "query", "write", "commit", "rollback", "error"}
)


class Impossible(ValueError):
    """The actors cannot take this order; `step` counts from 1, `trace` is what came before it."""

    def __init__(self, step: int, why: str, trace: StageTrace) -> None:
        super().__init__(why)
        self.step, self.trace = step, trace


def replay(
    actors: Actors,
    order: Sequence[str],
    *,
    setup: Callable[..., Any] | None = None,
    commit_apart: bool = False,
    size: Size = SMALL,
    wall_limit: float = 10.0,
) -> StageTrace:
    """Play the actors in exactly this order: "reader GET" is the next operation of `reader`.

    `actors` and `setup` as for `run`. A statement and its commit are one step, unless
    `commit_apart`. Raises Impossible, in one sentence, when an actor would do something else than
    the order says, or when the order ends before the actors do.
    """
    cast_list = as_actors(actors)
    roots = [*(actor.play for actor in cast_list), setup]
    with open_world(roots, size=size) as world, wall_clock(lambda: world.scheduler, wall_limit):
        world.prepare(setup)
        world.commit_apart = commit_apart
        prompter = _Prompter([actor.name for actor in cast_list], order)
        scheduler = Scheduler(world.trace, prompter, wall_limit=wall_limit)
        world.fresh(scheduler)
        trace = cast(StageTrace, world.play(cast_list, scheduler))
        prompter.compare()
        if prompter.step < len(order):
            prompter.refuse(prompter.step + 1)
        return trace


class _Prompter(Picker):
    """Tells who goes on, and compares what they did with what is written."""

    thorough = True

    def __init__(self, names: Sequence[str], order: Sequence[str]) -> None:
        self.names, self.order = names, order
        self.step = 0  # steps taken
        self.mark = 0  # events before the last step

    def begin(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    @property
    def trace(self) -> StageTrace:
        return cast(StageTrace, self.scheduler.trace)

    def next_task(self, parked: deque[Task]) -> Task | None:
        self.compare()
        if self.step == len(self.order):
            names = " and ".join(sorted({task.name for task in parked}))
            are = "have" if " and " in names else "has"
            raise Impossible(
                self.step + 1,
                f"the order ends while {names} still {are} something to do",
                self.trace,
            )
        name = self.order[self.step].split()[0]
        task = next((task for task in parked if task.name == name), None)
        if task is None or (task.gate is not None and not task.gate.is_free()):
            self.refuse(self.step + 1)
        assert task is not None
        parked.remove(task)
        self.step += 1
        self.mark = len(self.trace.events)
        return task

    def compare(self) -> None:
        """Whether the last step did what the order says."""
        name, _, wanted = self.order[self.step - 1].partition(" ") if self.step else ("", "", "")
        done = self._done(name, self.mark)
        if wanted.strip() and done and done[0].what != wanted.strip():
            raise Impossible(
                self.step,
                f"{name} cannot {wanted.strip()} there: its next operation is {done[0].what}",
                self.trace,
            )

    def refuse(self, step: int) -> None:
        """Say why this step cannot be taken."""
        name = self.order[step - 1].split()[0]
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
