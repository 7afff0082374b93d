"""One world on the stage: a cache, a database and a trace, made once and set back for every run."""

from __future__ import annotations

import gc
import inspect
import random
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, cast

from greenlet import getcurrent

from cachelab.origin import SMALL, Latency, Origin, Size
from cachelab.record.trace import Trace
from cachelab.stage.database import Database
from cachelab.stage.deadline import real_seconds
from cachelab.stage.faults import LOST, PUBLISHES, Fault
from cachelab.stage.memory import Memory
from cachelab.stage.patches import Patches, refuse_coroutine
from cachelab.stage.scheduler import (
    EPOCH,
    Deadline,
    Drawn,
    Label,
    Scheduler,
    Stuck,
    Task,
    current,
    refuse,
)
from cachelab.stage.store import StageCache, Store, touches
from cachelab.stage.sync import Slots

_monotonic = time.monotonic


@dataclass(frozen=True)
class Actor:
    """Somebody on the stage: `play` is called with `(cache, db)` at `start` seconds.

    Each actor is a process of its own, with a memory of its own, unless several name the same
    `process`: they are its threads.
    """

    name: str
    play: Callable[..., Any]
    start: float = 0.0
    process: str = ""


Actors = Mapping[str, Any] | Iterable[Any]


class StageTrace(Trace):
    """The trace of a run on the stage.

    `answers`: what each actor returned, or the exception it ended with, by the actor's name.
    `world`: the cache and the database as the run left them; what is asked there is not recorded.
    `seconds`: the virtual time at which the last actor had finished.
    """

    answers: dict[str, Any]
    world: World
    seconds: float = 0.0

    @property
    def elapsed(self) -> float:
        """Virtual seconds until the last actor had finished."""
        return self.seconds


CROWD = 400  # actors, who leave megabytes behind


def as_actors(actors: Actors, spread: float = 0.0) -> list[Actor]:
    """The actors with names and start times; raises ValueError in one sentence for anything else.

    Without a start of their own, `n` actors arrive evenly: number i, from 0, at `i * spread / n`
    seconds.
    """
    given: list[tuple[str | None, Any]]
    if isinstance(actors, Mapping):
        given = [(str(name), actor) for name, actor in actors.items()]
    elif callable(actors) or isinstance(actors, Actor):
        given = [(None, actors)]
    else:
        given = [(None, actor) for actor in actors]
    if not given:
        raise ValueError("A run needs at least one actor: pass a list of functions of (cache, db).")
    if spread < 0:
        raise ValueError(f"spread is a time in seconds from 0; this is {spread!r}.")
    made: list[Actor] = []
    for number, (name, actor) in enumerate(given):
        start: float | None = None
        process = ""
        if isinstance(actor, Actor):
            name, start, process, actor = actor.name, actor.start, actor.process, actor.play
        elif isinstance(actor, tuple) and len(actor) == 2 and callable(actor[1]):
            start, actor = actor
        if not callable(actor):
            raise ValueError(
                f"Actor {number + 1} is not a function of (cache, db) "
                f"nor (start_seconds, function): {str(actor)[:60]!r}."
            )
        if start is None:
            start = number * spread / len(given)
        if not isinstance(start, (int, float)) or not start >= 0:
            raise ValueError(f"An actor starts at a time in seconds from 0; this is {start!r}.")
        made.append(Actor(name or "", actor, start, process))
    return _named(made)


def threads(actors: Actors, process: str = "process") -> list[Actor]:
    """These actors as threads of one process: they share its memory and its locks.

    Those without a name of their own are named after the process.
    """
    made = as_actors(actors)
    if not isinstance(actors, Mapping):
        made = [replace(actor, name=f"{process} {n}") for n, actor in enumerate(made, 1)]
    return [replace(actor, process=process) for actor in made]


def _named(actors: list[Actor]) -> list[Actor]:
    """Names for those without: the function's, numbered where several have the same."""
    plain = [actor.name or _name_of(actor.play) for actor in actors]
    counts: dict[str, int] = {}
    named, taken = [], {actor.name for actor in actors if actor.name}
    if len(taken) < sum(bool(actor.name) for actor in actors):
        raise ValueError("Two actors have the same name; give each its own.")
    for actor, name in zip(actors, plain, strict=True):
        if not actor.name:
            counts[name] = counts.get(name, 0) + 1
            if plain.count(name) > 1 if len(plain) < 50 else counts[name] > 1 or name in plain[:2]:
                name = f"{name}-{counts[name]}"
        named.append(replace(actor, name=name))
    return named


def _name_of(play: Any) -> str:
    found = getattr(play, "__name__", None) or getattr(
        getattr(play, "func", None), "__name__", type(play).__name__
    )
    return "actor" if found == "<lambda>" else str(found)


def _takes(play: Any) -> int:
    """How many of (cache, db) a callable wants: 0, 1 or 2."""
    try:
        signature = inspect.signature(play)
    except (TypeError, ValueError):
        return 2
    for count in (2, 0, 1):
        try:
            signature.bind(*([None] * count))
        except TypeError:
            continue
        return count
    raise ValueError(
        f"{_name_of(play)}{signature} cannot be an actor: it must be callable with (cache, db) "
        "or with nothing."
    )


@dataclass
class World:
    """The cache, the database and the trace of the stage. Make one with `open_world`."""

    size: Size = SMALL
    latency: Latency = 0.0
    capacity: int | None = None
    faults: tuple[Fault, ...] = ()
    met: dict[Fault, int] = field(default_factory=dict)
    struck: set[Fault] = field(default_factory=set)
    answers: dict[str, Any] = field(default_factory=dict)
    scheduler: Scheduler | None = None
    hop: int = 0
    commit_apart: bool = True
    deadline: Deadline | None = None
    perils: tuple[str, ...] = ()  # what may go wrong with a command, if the picker says so
    tasks: dict[str, Task] = field(default_factory=dict)
    patches: Patches | None = None  # while a run is on
    memory: Memory | None = None  # of its processes, the same
    seed: int = 0

    def __post_init__(self) -> None:
        self.trace = StageTrace(clock=self._clock, exact=True)
        self._labels: dict[Any, Label] = {}
        self._sql_chance: dict[str, random.Random] = {}
        self._wanted: dict[int, int] = {}
        self._known: Any = None  # what the keys that setup stored were made of

    def build(self) -> None:
        """Make cache and database; inside a look, so that their locks are the stage's."""
        self.store = Store(self)
        self.database = Database(self, self.size)
        self.cache: StageCache = self.store.client
        self.db = Origin(
            self.database.engine,
            self.trace,
            slots=Slots,
            ask=self.database.ask,
            latency=self.latency,
        )
        self.db.capacity = self.capacity

    def _clock(self) -> float:
        return self.scheduler.clock() if self.scheduler is not None else 0.0

    def labels(self, args: Sequence[Any]) -> Label:
        """`touches`, remembered for the commands that come again and again."""
        try:
            found = self._labels.get(args)
        except TypeError:
            return touches(args)
        if found is None:
            if len(self._labels) > 5_000:
                self._labels.clear()
            found = self._labels[args] = touches(args)
        return found

    def draw(self) -> int:
        """SQL's random(); each actor draws its own, whoever of the others drew before."""
        task = current()
        name = task.name if task is not None else ""
        chance = self._sql_chance.setdefault(name, random.Random(f"{self.seed} {name}"))
        return chance.randrange(-(2**63), 2**63)

    # For faults -----------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A remark of the stage itself."""
        self.trace.add("note", text, actor="stage")

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something at a virtual time."""
        assert self.scheduler is not None
        self.scheduler.at(seconds, do)

    def forget(self, key: str) -> bool:
        """Take a key out of the cache, as expiry does; whether it was there."""
        keys = self.store.server.dbs[0]
        gone = keys._dict.pop(key.encode(), None) is not None
        if gone:
            self.trace.freshness.deleted(key)
        return gone

    def meet(self, task: Task, args: Sequence[Any]) -> None:
        """Let the faults strike before a command that `task` sends."""
        for fault in self.faults:
            fault.meet(self, task, args)

    def counted(self, task: Task, asked: Sequence[Sequence[Any]]) -> Label:
        """What one round trip touches because faults count it."""
        return tuple(
            ("fault", str(number), True)
            for number, fault in enumerate(self.faults)
            if any(fault.counts(task, args) for args in asked)
        )

    def swallows(self, args: Sequence[Any]) -> bool:
        """Whether a fault loses this command on its way."""
        return sum(fault.swallows(self, args) for fault in self.faults) > 0  # each of them counts

    def set_down(self, fault: Fault | None) -> None:
        """The cache does not answer any more, because of this fault; None: it does so again."""
        self.store.down = fault

    def ways(self, asked: Sequence[Sequence[Any]]) -> Sequence[str]:
        """How one round trip to the cache may go, "" being well; none if chance does nothing."""
        if not self.perils:
            return ()
        loses = len(asked) == 1 and str(asked[0][0]).upper() in PUBLISHES
        found = [way for way in self.perils if loses or way != LOST]
        return ("", *found) if found else ()

    def endings(self, patterns: Sequence[str]) -> list[tuple[str, int]]:
        """The keys whose TTL could end next, one a moment, each with a virtual time (ns) after it.

        Of several keys that end in the same millisecond the first by name stands for all.
        """
        assert self.scheduler is not None
        found: dict[int, str] = {}
        for key, milliseconds in self.store.lifetimes():
            after = (milliseconds + 1 - EPOCH * 1_000) * 1_000_000
            if self.scheduler.now < after <= self.scheduler.limit and any(
                fnmatchcase(key, pattern) for pattern in patterns
            ):
                found[after] = min(key, found.get(after, key))
        return [(found[after], after) for after in sorted(found)]

    def end(self, key: str, after: int) -> None:
        """All who are at a switch point stand still until the TTL of `key` has ended."""
        assert self.scheduler is not None
        self.scheduler.at_nanosecond(after, lambda: self.note(f"the TTL of {key} ends"))
        self.scheduler.hold(after)

    # Looking --------------------------------------------------------------------------------

    def look(self, do: Callable[[], Any]) -> Any:
        """Call `do` at the world's own time, off the record and without any switch."""
        installed = self.patches is None
        patches = Patches()
        if installed:
            patches.install()
            self.patches = patches
        scheduler = self.scheduler

        def quietly() -> Any:
            with self.trace.off_the_record():
                return do()

        try:
            if scheduler is None:
                scheduler = self.scheduler = Scheduler(self.trace)
            task = Task(scheduler, "looking", quietly)
            task.parent = getcurrent()
            task.free = task.daemon = True
            hub, scheduler.hub = scheduler.hub, getcurrent()
            try:
                task.switch()
            finally:
                scheduler.hub = hub
            if scheduler.failure is not None:
                failure, scheduler.failure = scheduler.failure, None
                raise failure
            if isinstance(task.answer, BaseException):
                raise task.answer
            return task.answer
        finally:
            if installed:
                self.patches = None
                patches.remove()

    # Running --------------------------------------------------------------------------------

    def fresh(self, scheduler: Scheduler) -> None:
        """Set everything back to where a run starts."""
        trace = StageTrace(clock=self._clock, exact=True)
        self.scheduler, self.trace, scheduler.trace = scheduler, trace, trace
        self.met, self.struck, self.answers, self.tasks = {}, set(), {}, {}
        self._sql_chance.clear()
        self.store.reset()
        self.database.reset()
        self.cache.trace = self.db.trace = trace
        self.db.reset(self.latency)
        if self._known is not None:
            trace.freshness.learn(self._known)
        if self.patches is not None:
            self.patches.reset()
            self.patches.seed(self.seed)
        if self.memory is not None:
            self.memory.note()

    def play(self, actors: Sequence[Actor], scheduler: Scheduler) -> StageTrace:
        """Run the actors once; raises Stuck, with the trace, when that has no end."""
        trace = cast(StageTrace, scheduler.trace)
        if self.memory is not None:
            self.memory.begin(actor.play for actor in actors)
            scheduler.memory = self.memory
        scheduler.on_end.append(self._actor_ended)
        for fault in self.faults:
            fault.arm(self)
        for actor in actors:
            self.tasks[actor.name] = scheduler.spawn(
                actor.name, self._body(actor.play), start=actor.start, process=actor.process
            )
        try:
            scheduler.loop()
            if not scheduler.explores:
                for fault in self.faults:
                    if fault not in self.struck:
                        self.note(f"{fault!r} never struck")
        except Stuck as error:
            error.trace = trace
            raise
        finally:
            self.answers = trace.answers = {
                name: task.answer
                for name, task in self.tasks.items()
                if task.done and not task.gone
            }
            trace.world = self
            trace.seconds = (scheduler.now if scheduler.ended is None else scheduler.ended) / 1e9
            recorded = len(trace.events)
            scheduler.close()
            del trace.events[recorded:]  # what unwinding actors still had to say
            self.database.abandon_of(scheduler.tasks)
        return trace

    @property
    def trace(self) -> StageTrace:
        """What has happened in this run, also when it is over, for as long as somebody has it."""
        trace = self._trace if self._trace is not None else self._over()
        return trace if trace is not None else StageTrace(clock=self._clock, exact=True)

    @trace.setter
    def trace(self, trace: StageTrace) -> None:
        self._trace: StageTrace | None = trace
        self._over = weakref.ref(trace)

    def let_go(self) -> None:
        """Hold the trace no longer, which holds the world: it goes with whoever has it."""
        self.trace.freshness.clock = self._clock
        self._trace = None
        if self.scheduler is not None:
            self.scheduler.trace = StageTrace(clock=self._clock, exact=True)

    def _body(self, play: Any) -> Callable[[], Any]:
        wanted = self._wanted.get(id(play))
        if wanted is None:
            wanted = self._wanted[id(play)] = _takes(play)
        arguments = (self.cache, self.db)[:wanted]

        def body() -> Any:
            answer = play(*arguments)
            refuse_coroutine(answer)
            return answer

        return body

    def _actor_ended(self, task: Task) -> None:
        if self.database.abandon_of([task]):
            self.trace.note("left its transaction open: it is rolled back")

    def crash(self, task: Task) -> None:
        """The process of this actor dies here and now: nothing of it is cleaned up."""
        scheduler = task.scheduler
        if self.memory is not None:
            self.memory.note()  # what it has sent back so far has arrived
        family = [other for other in scheduler.tasks if other.process is task.process]
        for other in family:
            scheduler.remove(other)
        scheduler.release_plumbing(family)
        rolled_back = self.database.abandon_of(family)
        for name in dict.fromkeys(other.owner.name for other in family):
            self.trace.add(
                "crash",
                "CRASH",
                detail="its transaction is rolled back" if rolled_back else "",
                actor=name,
            )

    def prepare(self, setup: Callable[..., Any] | None) -> None:
        """Run `setup(cache, db)` off the record; every run starts from what it leaves."""
        if setup is None:
            return
        scheduler = Scheduler(self.trace, deadline=self.deadline)
        self.fresh(scheduler)
        if self.patches is not None:  # what it draws, a uuid say, is not drawn again by the actors
            self.patches.seed(self.seed + 1_000_003)
        self.db.latency = 0.0
        scheduler.on_end.append(self._actor_ended)
        task = scheduler.spawn("setup", self._body(setup))
        try:
            scheduler.loop()
        finally:
            scheduler.close()
            self.database.abandon_of(scheduler.tasks)
        if isinstance(task.answer, BaseException):
            raise task.answer
        self.store.keep()
        self.database.keep()
        if self.memory is not None:
            self.memory.settle()
        self._known = self.trace.freshness.known()


@contextmanager
def open_world(
    roots: Iterable[Any],
    *,
    size: Size = SMALL,
    latency: Latency = 0.0,
    capacity: int | None = None,
    faults: Iterable[Fault] = (),
    seed: int = 0,
) -> Any:
    """A new world with everything patched for the length of the block, and nothing after it."""
    if current() is not None:
        refuse("An actor cannot run a stage of its own: run it outside.")
    if not callable(latency) and not 0 <= latency < 86_400:
        raise ValueError(f"latency is a time in seconds from 0 to a day; this is {latency!r}.")
    armed = tuple(faults)
    for fault in armed:
        if not isinstance(fault, Fault):
            raise ValueError(
                f"A fault is one of those in cachelab.stage.faults; this is {fault!r}."
            )
    world = World(size, latency, capacity, armed, seed=seed)
    patches = Patches()
    try:
        patches.install()
        world.patches = patches
        world.memory = Memory(roots)
        patches.seed(seed)
        world.look(world.build)
        yield world
    finally:
        if world.memory is not None:
            world.memory.close()
        world.memory = world.patches = None
        patches.remove()
        if hasattr(world, "db"):
            world.db.latency, world.db.capacity = 0.0, None  # looking at it takes no time
            world.cache.trace = world.db.trace = Trace()  # looking leaves no trace


def run(
    actors: Actors,
    *,
    seed: int = 0,
    spread: float = 0.0,
    latency: Latency = 0.0,
    capacity: int | None = None,
    setup: Callable[..., Any] | None = None,
    faults: Iterable[Fault] = (),
    crash: tuple[str, int] | None = None,
    hop: float = 0.0,
    limit_seconds: float = 30 * 86_400.0,
    wall_limit: float = 10.0,
    size: Size = SMALL,
) -> StageTrace:
    """Run the actors together on a virtual clock; the same seed gives the same trace.

    `actors`: functions of `(cache, db)` or of nothing; or `(start_seconds, function)`; or `Actor`;
    or a dict of them by name. Without a start of their own they arrive evenly over `spread`
    seconds. `seed` 0 serves whoever came first; any other draws the order. `latency` seconds a
    statement (or a function that says so for the one that comes), `capacity` statements at once
    (None: any number), `hop` seconds a cache command.
    `setup(cache, db)` runs first, off the record, in the caller's memory: each actor is a process
    with a copy of it, and sends back what it adds to the caller's lists, dicts, sets and counters.
    `crash=("reader", 2)` stops that actor for ever
    before its second operation. `limit_seconds` is virtual, `wall_limit` real.

    Raises Stuck, with its `trace`, when the run cannot end; ValueError for bad arguments. What an
    actor raises is its answer: the others go on.
    """
    cast_list = as_actors(actors, spread)
    plays = [actor.play for actor in cast_list]
    with open_world(
        [*plays, setup], size=size, latency=latency, capacity=capacity, faults=faults, seed=seed
    ) as world:
        with real_seconds(wall_limit) as world.deadline:
            world.prepare(setup)
            picker = Drawn(seed) if seed else None
            scheduler = Scheduler(world.trace, picker, limit=limit_seconds, deadline=world.deadline)
            world.fresh(scheduler)
            world.hop = round(hop * 1e9)
            if crash is not None:
                scheduler.on_step.append(_dying(world, crash, cast_list))
            try:
                return cast(StageTrace, world.play(cast_list, scheduler))
            finally:
                world.tasks.clear()
                scheduler.forget()
                world.store.hang_up()
                world.let_go()
                _give_back(len(cast_list))


_unfreed: list[int] = []  # actors of the last runs, which may still be in memory


def _give_back(actors: int) -> None:
    """Free earlier runs, which hold on to themselves, and their pages (glibc only), after crowds.

    A notebook's `run = stage.run(...)` lets go of the run before only when this one is over, so a
    crowd is looked for again at the end of the next two.
    """
    import ctypes

    _unfreed.append(actors)
    if sum(_unfreed) < CROWD:
        return
    del _unfreed[:-2]
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _dying(
    world: World, crash: tuple[str, int], actors: Sequence[Actor]
) -> Callable[[Task, Label], None]:
    """Lets an actor die in front of its nth operation; ValueError when there can be none."""
    name, nth = crash
    if name not in {actor.name for actor in actors} or not isinstance(nth, int) or nth < 1:
        names = ", ".join(actor.name for actor in actors[:5])
        raise ValueError(
            f"crash is (actor, number of the operation before which it dies), with an actor among "
            f"{names}; this is {crash!r}."
        )
    left = nth

    def watch(task: Task, label: Label) -> None:
        nonlocal left
        if task.owner.name == name:
            left -= 1
            if not left:
                world.crash(task)

    return watch
