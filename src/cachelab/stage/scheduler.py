"""Who runs next, and what time it is: greenlets on one OS thread under a virtual clock."""

from __future__ import annotations

import contextlib
import contextvars
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from greenlet import GreenletExit, getcurrent, greenlet

from cachelab.process.patience import Patience
from cachelab.record.trace import Trace, say_seconds, silent
from cachelab.stage import thread_locals

SECOND = 1_000_000_000  # the clock counts nanoseconds: sums of times are exact
EPOCH = 1_767_225_600  # 2026-01-01 00:00 UTC, when every run begins
MONOTONIC = 1024.0  # what time.monotonic() says then; a power of two keeps differences exact

# What an operation touches: (space, item, writes). Item None is all of that space.
Touch = tuple[str, str | None, bool]
Label = tuple[Touch, ...]

# Kinds of events that change something: rows, keys, the time.
_CHANGES = frozenset({"fill", "delete", "write", "commit", "sleep", "wait"})
_graveyard: list[greenlet] = []  # actors that refuse to end are kept, not collected


class Stuck(RuntimeError):
    """The run cannot end: the sentence says who waits for what. `trace` is what happened so far."""

    trace: Trace | None = None

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Limit(Stuck):
    """A limit of the stage was met: it says nothing about the actors."""


class Refused(RuntimeError):
    """Something that cannot work inside an actor."""

    def _render_traceback_(self) -> list[str]:
        return [f"Refused: {self}"]


class Overtime(BaseException):
    """Raised inside an actor that keeps the machine busy without ever reaching a switch point."""


class Picker:
    """Decides what a run leaves open. This one serves whoever came first, and nothing goes wrong.

    A run asks three questions: a new run begins; who goes on; which of so many things happens.
    """

    thorough = False  # is asked at every switch point, also where only one task can go on

    def begin(self, scheduler: Scheduler) -> None:
        """A run begins, with this scheduler."""

    def next_task(self, parked: deque[Task]) -> Task | None:
        """Take one out of those at a switch point; None when none of them can go on now."""
        return parked.popleft()

    def choose(self, count: int) -> int:
        """A number from 0, below `count`; 0 is what comes first, or that all is well."""
        return 0


class Drawn(Picker):
    """Draws who goes on: the same seed, the same order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"order {seed}")

    def next_task(self, parked: deque[Task]) -> Task | None:
        chosen = self.choose(len(parked))
        parked[0], parked[chosen] = parked[chosen], parked[0]
        return parked.popleft()

    def choose(self, count: int) -> int:
        return self.random.randrange(count) if count > 1 else 0


class Wait:
    """What a task waits for. `woken` says by whom it ended: somebody (True), or the clock."""

    __slots__ = ("held_by", "over", "what", "woken")

    def __init__(self, what: str, held_by: Callable[[], str] | None = None) -> None:
        self.what, self.held_by = what, held_by
        self.over = self.woken = False


class Process:
    """What the threads of one process share, and no other process sees."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.threads = 0
        self.locks: dict[int, Any] = {}  # id of a lock -> its state here, and the lock
        self.stamp: Any = None  # of its last uuid1
        self.image: dict[int, Any] = {}  # what its memory holds, where that is not as in others


class Task(greenlet):  # type: ignore[misc]  # greenlet has no types
    """One actor, or a thread that an actor started."""

    def __init__(self, scheduler: Scheduler, name: str, body: Callable[[], Any]) -> None:
        super().__init__(parent=scheduler.hub)
        self.gr_context = scheduler.context.copy()  # where a notebook's prints belong
        self.scheduler = scheduler
        self.name = name
        self.body = body
        self.index = 0
        self.owner: Task = self  # the actor that has started this thread
        self.process = scheduler.outside
        self.daemon = False
        self.free = False  # looks without being scheduled
        self.done = False
        self.gone = False  # crashed, or the run is over: no operation has an effect any more
        self.idle = False  # a pool's worker that waits for work
        self.answer: Any = None
        self.label: Label = ()  # what its next step touches,
        self.gate: Any = None  # the lock that it needs, when exploring,
        self.ways: Sequence[str] = ()  # and how it may go, when chance is explored
        self.wait: Wait | None = None
        self.joiners: list[Task] = []
        self.children = 0
        self.locks = 0
        self.locals: Any = None  # what threading.local keeps for it
        self.thread: Any = None
        self.at_once = 0  # steps since it last slept or waited
        self.refusals = 0
        self.mask = 0  # the steps that happened before the next one of this task

    @property
    def waiting(self) -> bool:
        """Whether it waits for somebody, or for the clock."""
        return self.wait is not None

    def run(self) -> None:
        self.scheduler.perform(self)


def current() -> Task | None:
    """The actor that runs now on this OS thread; None outside of a stage."""
    here = getcurrent()
    return here if type(here) is Task else None


def shared_memory(task: Task, label: Label) -> Label:
    """What a step touches, and with it the memory of its process, which other threads see too."""
    return (*label, ("memory", task.process.name, True))


def refuse(why: str) -> NoReturn:
    """Raise Refused; an actor could catch that, or lose it in a thread: for one it ends the run."""
    task, refused = current(), Refused(why)
    if task is not None and not task.free and not task.gone:
        task.scheduler.fail(refused)
    raise refused


@dataclass
class Deadline:
    """The real seconds of one run, or of many one after the other; `passed` when they are over.

    The scheduler says which task is `running` (`beats` counts how often one went on) or `closing`;
    who watches the seconds says where that task waits for something `unseen`.
    """

    seconds: float = 10.0
    patience: Patience | None = None
    passed: bool = False
    unseen: str = ""
    running: Task | None = None
    closing: Task | None = None
    beats: int = 0

    def left(self) -> float:
        """Seconds that are left; without a limit, all of them."""
        return self.seconds if self.patience is None else self.patience.left()


class Scheduler:
    """Runs tasks one at a time. Time passes only when every task sleeps or waits.

    `picker` chooses among the tasks parked at a switch point. `limit` is virtual seconds,
    `most_steps` the switch points of a whole run. Each of `on_step` is called in front of a switch
    point with its task and label, each of `on_touch` when the label of a step under way turns out
    to be another, each of `on_end` with a task that has ended.
    """

    def __init__(
        self,
        trace: Trace,
        picker: Picker | None = None,
        *,
        limit: float = 30 * 86_400.0,
        most_steps: int = 2_000_000,
        deadline: Deadline | None = None,
    ) -> None:
        self.hub = getcurrent()
        self.context = contextvars.copy_context()
        self.context.run(silent.set, False)
        self.trace = trace
        self.now = 0
        self.limit = round(limit * SECOND)
        self.most_steps = most_steps
        self.deadline = deadline or Deadline()
        self.tasks: list[Task] = []
        self.outside = Process("", 0)  # the caller's, who looks at the world
        self.processes: dict[str, Process] = {}
        self.memory: Any = None  # what exchanges that of one process for another's
        self.plumbing: dict[int, Any] = {}  # locks of libraries, which all processes share
        self.queues: dict[int, Any] = {}  # id of a queue.SimpleQueue -> its state, and the queue
        self.locals: Any = None  # the caller's
        self._inside: Any = self  # whose are in place
        self.runnable: deque[Task] = deque()  # started or woken: run up to their next switch point
        self.parked: deque[Task] = deque()  # at a switch point
        self.timers: list[tuple[int, int, Any, Wait | None]] = []
        self._count = 0
        self.steps = 0
        self.ticks = 0  # how often the clock was moved on
        self.left = 0  # tasks that must end before the run is over
        self.ended: int | None = None
        self.draining = False
        self.failure: BaseException | None = None
        self.released: list[str] = []  # locks given back since the last step began
        self.on_step: list[Callable[[Task, Label], None]] = []
        self.on_touch: list[Callable[[Task, Label], None]] = []
        self.on_end: list[Callable[[Task], None]] = []
        self.picker = picker or Picker()
        self.explores = self.picker.thorough
        self.picker.begin(self)

    # Time -----------------------------------------------------------------------------------

    def clock(self) -> float:
        """Seconds since the run began."""
        return self.now / SECOND

    def _timer(self, at: int, who: Any, wait: Wait | None = None) -> None:
        self._count += 1
        heapq.heappush(self.timers, (at, self._count, who, wait))

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Call `do` at that virtual time, if the run is still on."""
        self._timer(round(seconds * SECOND), do)

    def at_nanosecond(self, when: int, do: Callable[[], None]) -> None:
        """Call `do` at that virtual time, in nanoseconds, if the run is still on."""
        self._timer(when, do)

    # Tasks ----------------------------------------------------------------------------------

    def spawn(
        self,
        name: str,
        body: Callable[[], Any],
        *,
        start: float = 0.0,
        parent: Task | None = None,
        daemon: bool = False,
        process: str = "",
    ) -> Task:
        """A new task that starts at `start` seconds, or now if a running task starts it.

        It is in the process of that name, in its parent's, or else in one of its own.
        """
        task = Task(self, name, body)
        task.index = len(self.tasks)
        task.daemon = daemon
        self.tasks.append(task)
        if not daemon:
            self.left += 1
        if parent is not None:
            task.owner, task.process, task.mask = parent.owner, parent.process, parent.mask
            self.runnable.append(task)
        else:
            task.process = self.process(process or name)
            task.wait = Wait("its start")
            self._timer(round(start * SECOND), task, task.wait)
        task.process.threads += 1
        return task

    def process(self, name: str) -> Process:
        """The process of that name, new when first asked for."""
        found = self.processes.get(name)
        if found is None:
            found = self.processes[name] = Process(name, len(self.processes) + 1)
        return found

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
        task.gone, task.gate = True, None
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

    def point(self, task: Task, label: Label, gate: Any = None, ways: Sequence[str] = ()) -> str:
        """A switch point: anybody may run before what `task` does next, which touches `label`.

        `gate` is a lock that must be free for it. Returns in which of `ways` it goes, if there are
        any; the first is that all is well.
        """
        if task.gone:
            self._go_away(task)
        if task.free:
            return ""
        if task.process.threads > 1:
            label = shared_memory(task, label)
        for watch in self.on_step:
            watch(task, label)
        if task.gone:
            self.hub.switch()
        self.steps += 1
        task.at_once += 1
        if self.deadline.passed:
            self.fail(self._too_long(task))
        if self.steps > self.most_steps:
            self.fail(self._endless(task))
        if task.at_once > 1_000 and not self.explores:
            # So many commands at one instant: a loop that polls. Each takes a little time now.
            self.pause(task, SECOND // 1_000, "its next command")
        elif task.at_once > 1_000:
            self.fail(self._endless(task))
        if not self.parked and not self.runnable and not self.explores:
            return ""
        task.label, task.gate, task.ways = label, gate, ways
        self.parked.append(task)
        self.hub.switch()
        task.gate = None
        return ways[self.picker.choose(len(ways))] if ways else ""

    def touched(self, task: Task, label: Label) -> None:
        """It is known now what the step of `task` under way touches, not only may touch."""
        task.label = label
        if task.process.threads > 1:
            label = shared_memory(task, label)
        for learn in self.on_touch:
            learn(task, label)

    def gave_back(self, task: Task, lock: str) -> None:
        """The step of `task` under way sets a lock free: that matters to one that only tries it."""
        self.released.append(lock)
        self.touched(task, (*task.label, ("lock", lock, True)))

    def hold(self, until: int) -> None:
        """All who are at a switch point stand still there until then, in nanoseconds."""
        held = list(self.parked)
        self.parked.clear()
        self._timer(until, lambda: self.parked.extend(task for task in held if not task.done))

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
            raise GreenletExit  # a background loop, and all foreground tasks have ended
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
        task.at_once = 0
        wait = task.wait = Wait(what, held_by)
        if nanoseconds is not None:
            self._timer(self.now + max(0, nanoseconds), task, wait)
        self.hub.switch()
        return wait.woken

    def wake(self, task: Task, by: Task | None = None) -> None:
        """A waiting task may go on; `by` is whose doing that is."""
        if task.wait is not None and not task.done:
            task.wait.over = task.wait.woken = True
            task.wait = None
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

    def fail(self, error: Exception) -> None:
        """End the run with `error`; not raised here, where the actor could catch it."""
        self.failure = error
        self.hub.switch()

    def _go_away(self, task: Task) -> None:
        task.refusals += 1
        if task.refusals > 100:  # it catches everything and goes on: leave it where it is
            _graveyard.append(task)
            self.hub.switch()
        raise GreenletExit

    def abandon(self, task: Task) -> None:
        """End the run, and leave the running task where it is: it catches whatever is raised."""
        task.gone, task.refusals, self.failure = True, 1_000, Overtime()
        self._go_away(task)

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
                picked = self.picker.next_task(parked)
                if picked is not None:
                    self._go(picked)
                    continue
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
        while self.timers and (type(self.timers[0][2]) is not Task or self._is_old(self.timers[0])):
            heapq.heappop(self.timers)
        return not self.timers or self.timers[0][0] > limit

    @staticmethod
    def _is_old(timer: tuple[int, int, Any, Wait | None]) -> bool:
        who, wait = timer[2:]
        return wait is not None and (wait.over or who.done)

    def _go(self, task: Task) -> None:
        deadline = self.deadline
        deadline.beats += 1
        if deadline.passed:
            raise self._too_long(task)
        deadline.running = task
        self.enter(task)
        task.switch()
        deadline.running = None
        if self.failure is not None:
            failure, self.failure = self.failure, None
            if isinstance(failure, Overtime):
                raise self._busy(task)
            raise failure

    def enter(self, task: Task | None) -> None:
        """Put what is `task`'s own in place, before it goes on; None: the caller's."""
        new = self if task is None else task
        if new is not self._inside:
            thread_locals.exchange(self._inside, new)
            self._inside = new
            if self.memory is not None:
                self.memory.enter(None if task is None else task.process)

    def release_plumbing(self, tasks: Iterable[Task]) -> None:
        """No lock of a library stays with one of `tasks`, which never run again."""
        for state, _ in list(self.plumbing.values()):
            if state.holder in tasks:
                state.depth = 0
                state._give()

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
        self.ticks += 1
        while timers and timers[0][0] == at:
            timer = heapq.heappop(timers)
            if self._is_old(timer):
                continue
            who = timer[2]
            if timer[3] is not None:
                timer[3].over, who.wait = True, None
                self.runnable.append(who)
            else:
                who()

    # Sentences ------------------------------------------------------------------------------

    def _waiting(self) -> str:
        parts = []
        for task in self.tasks:
            if task.done or task.idle:
                continue
            what, held = "its turn", ""
            if task.gate is not None:
                what, held = task.gate.name, task.gate.holder_name()
            elif task.wait is not None:
                what = task.wait.what
                held = task.wait.held_by() if task.wait.held_by is not None else ""
            parts.append(f"{task.name} waits for {what}" + (f", held by {held}" if held else ""))
        more = len(parts) - 4
        return "; ".join(parts[:4]) + (f"; and {more} more" if more > 0 else "")

    def _deadlock(self) -> Stuck:
        return Stuck(f"Nobody can go on: {self._waiting()}.")

    def _too_late(self) -> Stuck:
        limit = say_seconds(self.limit / SECOND)
        return Stuck(f"Not finished after {limit} of virtual time: {self._waiting()}.")

    def _endless(self, task: Task) -> Stuck:
        if self._goes_round(task):
            return Stuck(
                f"{task.name} goes on for ever: {task.at_once:,} operations at one instant "
                f"({self.steps:,} in the run) and no end in sight."
            )
        return Limit(
            f"{task.name} does {task.at_once:,} operations at one instant ({self.steps:,} in the "
            "run): the stage plays no more of one order."
        )

    def _goes_round(self, task: Task) -> bool:
        """Whether what it did last changed nothing, and was the same again and again."""
        lately = reversed(self.trace.events[-20_000:])
        mine = itertools.islice((event for event in lately if event.actor == task.name), 100)
        seen = [(event.kind, event.what, event.on, event.detail) for event in mine]
        if len(seen) < 100 or any(kind in _CHANGES for kind, *_ in seen):
            return False
        return any(seen[period:] == seen[:-period] for period in range(1, 9))

    def _busy(self, task: Task) -> Stuck:
        if self.deadline.unseen:
            return Limit(
                f"{task.name} waits for something that is not on the stage: {self.deadline.unseen}."
            )
        return Stuck(
            f"{task.name} did not come back within {say_seconds(self.deadline.seconds)}: "
            "a loop without a cache command, a statement or a sleep in it."
        )

    def _too_long(self, task: Task) -> Stuck:
        how = Stuck if self._goes_round(task) else Limit
        return how(
            f"The run takes longer than {say_seconds(self.deadline.seconds)} of real time: "
            f"{self.steps:,} operations so far, the last by {task.name}, "
            f"at {say_seconds(self.now / SECOND)} virtual."
        )

    # The end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End every task that is left. Their `finally` blocks run, without any effect."""
        for task in self.tasks:
            task.gone = True
        if self.memory is not None:
            self.memory.stop_sending(True)
        for task in self.tasks:
            if task and not task.dead:  # started and not finished
                self.deadline.closing = task
                self.enter(task)
                with contextlib.suppress(Overtime):
                    task.throw(GreenletExit)
            task.done = True
            task.joiners.clear()
        self.deadline.closing = None
        self.enter(None)
        if self.memory is not None:
            self.memory.stop_sending(False)
        thread_locals.retire(self.tasks)
        for state, _ in list(self.plumbing.values()):
            state.free()
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
