"""What may go wrong in a run, as data: each fault says when, and leaves a note in the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import redis

from cachelab.record.trace import say_seconds
from cachelab.stage.context import Context
from cachelab.stage.scheduler import SECOND, Task

# What may go wrong with one command when the search decides it: the error, and whether the server
# had done the command by then.
FAILURES: dict[str, tuple[type[redis.RedisError], bool]] = {
    "fails": (redis.ConnectionError, False),
    "fails late": (redis.ConnectionError, True),
    "times out": (redis.TimeoutError, False),
    "times out late": (redis.TimeoutError, True),
}
LOST = "is lost"  # a message on a channel
PUBLISHES = frozenset({"PUBLISH", "SPUBLISH"})


class Fault:
    """Something that goes wrong. Subclasses are frozen dataclasses; their state is in the world.

    A fault that has changed what happens puts itself into `world.struck`.
    """

    def arm(self, world: Context) -> None:
        """Called when a run begins."""

    def meet(self, world: Context, task: Task, args: Sequence[Any]) -> None:
        """Called before each command that `task` sends to the cache."""

    def swallows(self, world: Context, args: Sequence[Any]) -> bool:
        """Whether this command gets lost on its way."""
        return False

    def counts(self, task: Task, args: Sequence[Any]) -> bool:
        """Whether it strikes by how many such commands there were: then their order matters."""
        return False

    def _nth(self, world: Context) -> int:
        """How often this fault has been looked for, from 1."""
        world.met[self] = world.met.get(self, 0) + 1
        return world.met[self]


def _time(seconds: float, name: str) -> float:
    if not 0 <= seconds < 10**9:
        raise ValueError(f"{name} is a virtual time in seconds from 0; this is {seconds!r}.")
    return seconds


@dataclass(frozen=True)
class CacheDown(Fault):
    """Every command between two virtual times, in seconds, fails with redis.ConnectionError."""

    start: float
    end: float

    def __post_init__(self) -> None:
        _time(self.start, "start")
        if self.end <= self.start:
            raise ValueError(
                f"CacheDown ends after it starts; {self.end} is not after {self.start}."
            )

    def arm(self, world: Context) -> None:
        def down() -> None:
            world.set_down(self)
            world.note("the cache goes down")

        def up() -> None:
            world.set_down(None)
            world.note("the cache is back")

        if self.start == 0:
            down()
        else:
            world.at(self.start, down)
        world.at(self.end, up)


@dataclass(frozen=True)
class SlowCommand(Fault):
    """A command takes that many seconds before it runs: each one, or only the `nth`."""

    command: str
    seconds: float
    nth: int | None = None
    actor: str = "*"

    def __post_init__(self) -> None:
        _time(self.seconds, "seconds")

    def _is_meant(self, task: Task, args: Sequence[Any]) -> bool:
        return str(args[0]).upper() == self.command.upper() and fnmatchcase(task.name, self.actor)

    def counts(self, task: Task, args: Sequence[Any]) -> bool:
        return self.nth is not None and self._is_meant(task, args)

    def meet(self, world: Context, task: Task, args: Sequence[Any]) -> None:
        if not self._is_meant(task, args) or (
            self.nth is not None and self._nth(world) != self.nth
        ):
            return
        world.struck.add(self)
        world.note(f"{self.command.upper()} of {task.name} takes {say_seconds(self.seconds)}")
        task.scheduler.pause(task, round(self.seconds * SECOND), f"a slow {self.command.upper()}")


@dataclass(frozen=True)
class DropMessage(Fault):
    """The `nth` message that is published on a channel reaches nobody."""

    channel: str
    nth: int = 1

    def swallows(self, world: Context, args: Sequence[Any]) -> bool:
        name = str(args[0]).upper()
        if name not in PUBLISHES or str(args[1]) != self.channel:
            return False
        if self._nth(world) != self.nth:
            return False
        world.struck.add(self)
        world.note(f"message {self.nth} on {self.channel} is lost")
        return True


@dataclass(frozen=True)
class KeyExpires(Fault):
    """A key is gone at that virtual time, in seconds: evicted, or its TTL was too short."""

    key: str
    at: float

    def __post_init__(self) -> None:
        _time(self.at, "at")

    def arm(self, world: Context) -> None:
        def expire() -> None:
            gone = world.forget(self.key)
            if gone:
                world.struck.add(self)
            world.note(
                f"{self.key} expires" if gone else f"{self.key} would expire, and is not there"
            )

        world.at(self.at, expire)


class LockExpires(KeyExpires):
    """A lock's key is gone at that virtual time, although its holder is still at work."""


@dataclass(frozen=True)
class Pause(Fault):
    """An actor stands still for that many seconds before its `nth` command, as in a collection."""

    actor: str
    nth: int
    seconds: float

    def __post_init__(self) -> None:
        _time(self.seconds, "seconds")

    def counts(self, task: Task, args: Sequence[Any]) -> bool:
        return fnmatchcase(task.name, self.actor)

    def meet(self, world: Context, task: Task, args: Sequence[Any]) -> None:
        if not fnmatchcase(task.name, self.actor) or self._nth(world) != self.nth:
            return
        world.struck.add(self)
        world.note(f"{task.name} stands still for {say_seconds(self.seconds)}")
        task.scheduler.pause(task, round(self.seconds * SECOND), "the end of its pause")
