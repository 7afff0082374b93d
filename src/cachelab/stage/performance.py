"""Lets the choices of an order come to pass: who goes on, who dies, which command fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from cachelab.stage.orders import DIES, ENDS, Choice
from cachelab.stage.scheduler import Picker, Scheduler, Task
from cachelab.stage.world import World


class Performer(Picker):
    """Does what `decide` says, one choice after the other.

    `taken` is what was done, `current` who went on last. The TTLs that may end are those of keys
    that match `patterns`.
    """

    thorough = True

    def __init__(self, world: World, patterns: Sequence[str] = ("*",)) -> None:
        self.world, self.patterns = world, patterns
        self.taken: list[Choice] = []
        self.current: Task | None = None
        self._way = ""  # in which the step under way is to go

    def begin(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def next_task(self, parked: deque[Task]) -> Task | None:
        while True:
            enabled = [task for task in parked if task.gate is None or task.gate.is_free()]
            if not enabled:
                return None
            choice = self.decide(enabled, parked)
            if choice.how == ENDS:
                self._end(choice)
                return None
            task = self._meant(choice, enabled, parked)
            self.taken.append(choice)
            self.note(choice, task)
            if choice.how == DIES:
                self.world.crash(task)
                self.settle()
                if self.scheduler.runnable:
                    return None
                continue
            parked.remove(task)
            self.current, self._way = task, choice.how
            return task

    def choose(self, count: int) -> int:
        """In which way the step under way goes; whoever waits for a lock gets it in turn."""
        way, self._way = self._way, ""
        return self.current.ways.index(way) if way and self.current is not None else 0

    def _end(self, choice: Choice) -> None:
        """Time passes until a TTL has ended, whatever the actors were about to do."""
        after = dict(self.world.endings(self.patterns)).get(choice.name)
        if after is None:
            self.refuse(choice)
        self.taken.append(choice)
        self.note(choice, None)
        self.world.end(choice.name, after)

    def _meant(self, choice: Choice, enabled: list[Task], parked: deque[Task]) -> Task:
        if choice.how == DIES:  # the choice names a process
            task = next((task for task in parked if task.process.name == choice.name), None)
        else:
            task = next((task for task in enabled if task.name == choice.name), None)
        if task is None or choice.how not in ("", DIES, *task.ways):
            self.refuse(choice)
        return task

    def decide(self, enabled: list[Task], parked: deque[Task]) -> Choice:
        """What happens next. `enabled` are those of `parked` that wait for no lock; never empty."""
        raise NotImplementedError

    def refuse(self, choice: Choice) -> NoReturn:
        """What was decided cannot happen here: raise."""
        raise NotImplementedError

    def note(self, choice: Choice, task: Task | None) -> None:
        """A choice is about to come to pass; no task where a TTL ends."""

    def settle(self) -> None:
        """A process has died."""
