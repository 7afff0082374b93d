"""What the store, the database and a fault ask of the world that they are part of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cachelab.record.trace import Trace
from cachelab.stage.scheduler import Label, Scheduler, Task


class Context(Protocol):
    """A world, as its parts see it: they are below it and do not import it."""

    met: dict[Any, int]  # how often each fault has been looked for in this run
    struck: set[Any]  # the faults that have changed what happened in it
    scheduler: Scheduler | None
    hop: int  # nanoseconds of a trip to the cache
    commit_apart: bool  # whether a statement and its commit are two steps

    @property
    def trace(self) -> Trace:
        """What has happened in this run."""

    def labels(self, args: Sequence[Any]) -> Label:
        """What one command of the cache touches."""

    def meet(self, task: Task, args: Sequence[Any]) -> None:
        """Let the faults strike before a command that `task` sends."""

    def counted(self, task: Task, asked: Sequence[Sequence[Any]]) -> Label:
        """What one round trip touches because faults count it."""

    def swallows(self, args: Sequence[Any]) -> bool:
        """Whether a fault loses this command on its way."""

    def set_down(self, fault: Any) -> None:
        """The cache does not answer any more, because of this fault; None: it does so again."""

    def ways(self, asked: Sequence[Sequence[Any]]) -> Sequence[str]:
        """How one round trip to the cache may go, "" being well; none if chance does nothing."""

    def forget(self, key: str) -> bool:
        """Take a key out of the cache, as expiry does; whether it was there."""

    def look(self, do: Callable[[], Any]) -> Any:
        """Call `do` off the record, at the world's own time, without any switch."""

    def draw(self) -> int:
        """SQL's random()."""

    def note(self, text: str) -> None:
        """A remark of the stage itself."""

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something at a virtual time."""
