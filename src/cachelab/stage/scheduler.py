"""Who runs next, and what time it is: greenlets on one OS thread under a virtual clock."""

from __future__ import annotations

import contextlib
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from cachelab.record.trace import Trace, say_seconds, silent

SECOND = 1_000_000_000  # the clock counts nanoseconds: sums of times are exact
EPOCH = 1_767_225_600  # 2026-01-01 00:00 UTC, when every run begins
MONOTONIC = 1024.0  # what time.monotonic() says then; a power of two keeps differences exact

# What an operation touches: (space, item, writes). Item None is all of that space.
Touch = tuple[str, str | None, bool]
Label = tuple[Touch, ...]

_graveyard: list[greenlet] = []  # actors that refuse to end are kept, not collected


class Stuck(RuntimeError):
    """The run cannot end: the sentence says who waits for what. `trace` is what happened so far."""

    trace: Trace | None = None

    def _render_traceback_(self) -> list[str]:
        return [f"Stuck: {self}"]


class Refused(RuntimeError):
    """Something that cannot work inside an actor."""

    def _render_traceback_(self) -> list[str]:
        return [f"Refused: {self}"]


class Overtime(BaseException):
    """Raised inside an actor that keeps the machine busy without ever reaching a switch point."""


class Task(greenlet):  # type: ignore[misc]  # greenlet has no types
    """One actor, or a thread that an actor started."""

    def __init__(self, scheduler: Scheduler, name: str, body: Callable[[], Any]) -> None:
        super().__init__(parent=scheduler.hub)
        self.gr_context = scheduler.context.copy()  # where a notebook's prints belong
        self.scheduler = scheduler
        self.name = name
        self.body = body
        self.index = 0
        self.owner: Task = self  # the actor whose process this is
        self.daemon = False
        self.free = False  # looks without being scheduled
        self.done = False
        self.gone = False  # crashed, or the run is over: no operation has an effect any more
        self.idle = False  # a pool's worker that waits for work
        self.answer: Any = None
        self.label: Label = ()
        self.gate: Any = None  # a lock that must be free before the next step, when exploring
        self.waits_for = ""
        self.held_by: Callable[[], str] | None = None
        self.waiting = False
        self.wait_id = 0
        self.woken = False
        self.joiners: list[Task] = []
        self.children = 0
        self.locks = 0
        self.locals: dict[int, dict[str, Any]] = {}
        self.thread: Any = None
        self.at_once = 0  # steps since it last slept or waited
        self.refusals = 0
        self.gone_early = False  # crashed, not merely ended with the run
        self.mask = 0  # the steps that happened before the next one of this task

    def run(self) -> None:
        self.scheduler.perform(self)


def current() -> Task | None:
    """The actor that runs now on this OS thread; None outside of a stage."""
    here = getcurrent()
    return here if type(here) is Task else None


class Scheduler:
    """Runs tasks one at a time. Time passes only when every task sleeps or waits.

    `picker` chooses among the tasks parked at a switch point; None is first come, first served.
    `limit` is virtual seconds, `most_steps` the switch points of a whole run.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        limit: float = 30 * 86_400.0,
        most_steps: int = 2_000_000,
        wall_limit: float = 10.0,
        seed: int = 0,
    ) -> None:
        self.hub = getcurrent()
        self.context = contextvars.copy_context()
        self.context.run(silent.set, False)
        self.trace = trace
        self.now = 0
        self.limit = round(limit * SECOND)
        self.most_steps = most_steps
        self.wall_limit = wall_limit
        self.overtime = False
        self.random = random.Random(f"order {seed}") if seed else None
        self.picker: Callable[[list[Task]], Task | None] | None = None
        self.explores = False
        self.enough = False  # the explorer has seen enough of this order
        self.commit_apart = True
        self.hop = 0
        self.tasks: list[Task] = []
        self.runnable: deque[Task] = deque()  # started or woken: run up to their next switch point
        self.parked: Any = deque()  # at a switch point
        self.timers: list[tuple[int, int, Any, int]] = []
        self._count = 0
        self.steps = 0
        self.beats = 0
        self.left = 0  # tasks that must end before the run is over
        self.ended: int | None = None
        self.draining = False
        self.failure: BaseException | None = None
        self.running: Task | None = None
        self.closing: Task | None = None
        self.released: list[str] = []  # locks given back since the last step began
        self.on_end: list[Callable[[Task], None]] = []

    # Time -----------------------------------------------------------------------------------

    def clock(self) -> float:
        """Seconds since the run began."""
        return self.now / SECOND

    def _timer(self, at: int, who: Any, wait_id: int = 0) -> None:
        self._count += 1
        heapq.heappush(self.timers, (at, self._count, who, wait_id))

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Call `do` at that virtual time, if the run is still on."""
        self._timer(round(seconds * SECOND), do)

    # Tasks ----------------------------------------------------------------------------------

    def spawn(
        self,
        name: str,
        body: Callable[[], Any],
        *,
        start: float = 0.0,
        parent: Task | None = None,
        daemon: bool = False,
    ) -> Task:
        """A new task that starts at `start` seconds, or now if a running task starts it."""
        task = Task(self, name, body)
        task.index = len(self.tasks)
        task.daemon = daemon
        self.tasks.append(task)
        if not daemon:
            self.left += 1
        if parent is not None:
            task.owner, task.mask = parent.owner, parent.mask
            self.runnable.append(task)
        else:
            task.waiting = True
            task.waits_for = "its start"
            self._timer(round(start * SECOND), task)
        return task

    def perform(self, task: Task) -> None:
        """The life of one task: its body, and what became of it."""
        try:
            with self.trace.acting(task.name):
                try:
                    task.answer = task.body()
                except GreenletExit:
                    raise
                except (KeyboardInterrupt, Overtime, Stuck) as error:
                    self.failure = error
                except BaseException as error:
                    task.answer = error
                    if not task.gone:
                        said = f"{type(error).__name__}: {error}".rstrip(": ")
                        self.trace.add("error", "RAISED", detail=" ".join(said.split())[:120])
        except GreenletExit:
            pass
        except Overtime as error:  # it came between the lines above
            self.failure = error
        finally:
            self._finish(task)

    def _finish(self, task: Task) -> None:
        if task.done:
            return
        task.done = True
        if not task.daemon and not task.idle:
            self._less()
        if not task.gone:
            for react in self.on_end:
                react(task)
        for other in task.joiners:
            self.wake(other, task)

    def _less(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.ended = self.now

    def remove(self, task: Task) -> None:
        """`task` never runs again: its process has died. Nothing of it is cleaned up."""
        task.gone = task.gone_early = True
        if not task.done:
            task.done = True
            if not task.daemon and not task.idle:
                self._less()
        if task in self.parked:
            self.parked.remove(task)
        if task in self.runnable:
            self.runnable.remove(task)
        for other in task.joiners:
            self.wake(other, task)

    # What a task does -----------------------------------------------------------------------

    def point(self, task: Task, label: Label, gate: Any = None) -> None:
        """A switch point: anybody may run before what `task` does next, which touches `label`."""
        if task.gone:
            self._go_away(task)
        if task.free:
            return
        self.steps += 1
        task.at_once += 1
        if self.overtime:
            self._fail(task, self._too_long(task))
        if self.steps > self.most_steps:
            self._fail(task, self._endless(task))
        if task.at_once > 1_000 and not self.explores:
            # So many commands at one instant: a loop that polls. Each takes a little time now.
            self.pause(task, SECOND // 1_000, "its next command")
        elif task.at_once > 1_000:
            self._fail(task, self._endless(task))
        if not self.parked and not self.runnable and not self.explores:
            return
        task.label, task.gate = label, gate
        self.parked.append(task)
        self._leave(task)
        task.gate = None

    def pause(self, task: Task, nanoseconds: int, why: str) -> None:
        """Let virtual time pass for this task."""
        at_once = task.at_once
        self.wait(task, why, nanoseconds)
        task.at_once = at_once

    def sleep(self, task: Task, seconds: float, *, quiet: bool = False) -> None:
        """`time.sleep` of an actor."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        if task.gone:
            self._go_away(task)
        if task.free:
            return
        if self.draining and not quiet:
            raise GreenletExit  # a background loop, and everybody has gone home
        nanoseconds = round(seconds * SECOND)
        task.at_once = 0 if nanoseconds else task.at_once
        if not nanoseconds:
            self.point(task, ())
            return
        self.pause(task, nanoseconds, f"the end of a sleep of {say_seconds(seconds)}")
        if not quiet:
            self.trace.add("sleep", "SLEEP", detail=say_seconds(seconds), took=nanoseconds / SECOND)

    def wait(
        self,
        task: Task,
        what: str,
        nanoseconds: int | None = None,
        held_by: Callable[[], str] | None = None,
    ) -> bool:
        """Wait until woken (True) or until the time is over (False)."""
        if task.gone:
            self._go_away(task)
        if task.free:
            raise Stuck(f"Looking at the world after a run would wait for ever for {what}.")
        task.waiting, task.waits_for, task.held_by, task.at_once = True, what, held_by, 0
        task.wait_id += 1
        if nanoseconds is not None:
            self._timer(self.now + max(0, nanoseconds), task, task.wait_id)
        self._leave(task)
        return task.woken

    def wake(self, task: Task, by: Task | None = None) -> None:
        """A waiting task may go on; `by` is whose doing that is."""
        if task.waiting and not task.done:
            task.waiting, task.woken = False, True
            if by is not None:
                task.mask |= by.mask
            if task.idle:
                task.idle = False
                self.left += 1
            self.runnable.append(task)

    def rest(self, task: Task) -> None:
        """A pool's worker waits for work: the run need not wait for it."""
        if not task.daemon and not task.idle:
            task.idle = True
            self._less()

    def _leave(self, task: Task) -> None:
        self.hub.switch()
        if task.gone:
            self._go_away(task)

    def _fail(self, task: Task, error: Stuck) -> None:
        """End the run with `error`; not raised here, where the actor could catch it."""
        self.failure = error
        self._leave(task)

    def _go_away(self, task: Task) -> None:
        task.refusals += 1
        if task.refusals > 100:  # it catches everything and goes on: leave it where it is
            _graveyard.append(task)
            self.hub.switch()
        raise GreenletExit

    # The loop -------------------------------------------------------------------------------

    def loop(self) -> None:
        """Run until every task has ended; raises Stuck when that cannot be."""
        runnable, parked = self.runnable, self.parked
        while True:
            while runnable:
                task = runnable.popleft()
                if not task.done:
                    self._go(task)
            if parked:
                picked = self._pick()
                if picked is not None:
                    self._go(picked)
                    continue
                if self.enough:
                    return
                if runnable:
                    continue
            if self._over():
                return
            self._advance()

    def _over(self) -> bool:
        if self.left:
            return False
        self.draining = True
        limit = (self.ended or 0) + 60 * SECOND
        while self.timers and (callable(self.timers[0][2]) or self._is_old(self.timers[0])):
            if type(self.timers[0][2]) is not Task or self._is_old(self.timers[0]):
                heapq.heappop(self.timers)
            else:
                break
        return not self.timers or self.timers[0][0] > limit

    @staticmethod
    def _is_old(timer: tuple[int, int, Any, int]) -> bool:
        _, _, who, wait_id = timer
        return type(who) is Task and (who.done or not who.waiting or who.wait_id != wait_id)

    def _pick(self) -> Task | None:
        parked = self.parked
        if self.picker is not None:
            return self.picker(parked)
        if self.random is not None and len(parked) > 1:
            chosen = self.random.randrange(len(parked))
            parked[0], parked[chosen] = parked[chosen], parked[0]
        task: Task = parked.popleft()
        return task

    def _go(self, task: Task) -> None:
        self.beats += 1
        if self.overtime:
            raise self._too_long(task)
        self.running = task
        task.switch()
        self.running = None
        if self.failure is not None:
            failure, self.failure = self.failure, None
            if isinstance(failure, Overtime):
                raise self._busy(task)
            raise failure

    def _advance(self) -> None:
        """Move the clock to the next timer and wake whom it wakes."""
        timers = self.timers
        while timers and self._is_old(timers[0]):
            heapq.heappop(timers)
        if not timers:
            raise self._deadlock()
        at = timers[0][0]
        if at > self.limit:
            raise self._too_late()
        self.now = at
        while timers and timers[0][0] == at:
            timer = heapq.heappop(timers)
            if self._is_old(timer):
                continue
            who = timer[2]
            if type(who) is Task:
                who.waiting, who.woken = False, False
                self.runnable.append(who)
            else:
                who()
        self.ticked()

    def ticked(self) -> None:
        """Called when the clock has moved; the explorer takes note."""

    # Sentences ------------------------------------------------------------------------------

    def _waiting(self) -> str:
        parts = []
        for task in self.tasks:
            if task.done or task.idle:
                continue
            held = ""
            what = task.waits_for
            if task.gate is not None:
                what, held = task.gate.name, task.gate.holder_name()
            elif task.held_by is not None:
                held = task.held_by()
            parts.append(f"{task.name} waits for {what}" + (f", held by {held}" if held else ""))
        more = len(parts) - 4
        return "; ".join(parts[:4]) + (f"; and {more} more" if more > 0 else "")

    def _deadlock(self) -> Stuck:
        return Stuck(f"Nobody can go on: {self._waiting()}.")

    def _too_late(self) -> Stuck:
        limit = say_seconds(self.limit / SECOND)
        return Stuck(f"Not finished after {limit} of virtual time: {self._waiting()}.")

    def _endless(self, task: Task) -> Stuck:
        return Stuck(
            f"{task.name} goes on for ever: {task.at_once:,} operations at one instant "
            f"({self.steps:,} in the run) and no end in sight."
        )

    def _busy(self, task: Task) -> Stuck:
        return Stuck(
            f"{task.name} did not come back within {say_seconds(self.wall_limit)}: "
            "a loop without a cache command, a statement or a sleep in it."
        )

    def _too_long(self, task: Task) -> Stuck:
        return Stuck(
            f"The run takes longer than {say_seconds(self.wall_limit)} of real time: "
            f"{self.steps:,} operations so far, the last by {task.name}, "
            f"at {say_seconds(self.now / SECOND)} virtual."
        )

    def interrupted(self) -> Stuck | None:
        """What to say when a task was abandoned in the middle of its loop."""
        return self._busy(self.running) if self.running is not None else None

    # The end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End every task that is left. Their `finally` blocks run, without any effect."""
        for task in self.tasks:
            task.gone = True
        for task in self.tasks:
            if task and not task.dead:  # started and not finished
                self.closing = task
                with contextlib.suppress(Overtime):
                    task.throw(GreenletExit)
            task.done = True
            task.joiners.clear()
        self.closing = None
        self.runnable.clear()
        self.parked.clear()
        self.timers.clear()

    def forget(self) -> None:
        """Let go of the tasks of a run that is over.

        Each is its own owner, so that a crowd of them would wait for the garbage collector.
        """
        for task in self.tasks:
            if not task:  # not one that could not be ended, which may still look
                del task.owner
        self.tasks.clear()
