"""Every order in which actors can interleave, until the smallest one that breaks an invariant.

Depth-first search with replay. Two operations commute unless they touch the same key, row or lock
and one of them writes; of the orders that differ only in commuting operations one is run. The
pruning is source-set dynamic partial-order reduction with sleep sets (Abdulla, Aronsson, Jonsson,
Sagonas, "Optimal dynamic partial order reduction", POPL 2014, section 4). Each order that is run
stands for all linear extensions of its happens-before relation, and those are counted, so that the
number of orders is known although few of them are run.
"""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from cachelab.origin import SMALL, Latency, Size
from cachelab.process.patience import Patience
from cachelab.record.verdict import Outcome, Verdict
from cachelab.stage.faults import Fault
from cachelab.stage.scheduler import Label, Scheduler, Stuck, Task
from cachelab.stage.world import (
    Actor,
    Actors,
    StageTrace,
    World,
    as_actors,
    open_world,
    wall_clock,
)

Invariant = Callable[[World], Any]
_MOST_COUNTED = 40_000  # states of the count of orders; beyond it "many"
_AFTER_FAILURE = 2_000  # more orders are run in search of a smaller counter-example
_PREEMPTIONS = 3  # of one random order
_LEAST = 50  # orders that are tried however slow the machine
_LAST = 0.2  # of the time, in which a slow machine begins no further order
_CRASH = "!"  # the mark of the choice that an actor dies instead of going on


@dataclass(frozen=True, repr=False)
class Exploration(Verdict):
    """A Verdict that also says how much was seen.

    `schedules`: orders that were run. `orders`: how many orders there are, None if that is not
    known. `pruned`: orders that were not run because they equal one that was. `failing`: how many
    orders break the invariant. `exhaustive`: whether no order was left out.
    """

    orders: int | None = None
    pruned: int = 0
    failing: int = 0
    exhaustive: bool = True


@dataclass(slots=True)
class _Step:
    """One executed step: who, what it touched, what happened before it (a set of bits)."""

    who: str
    owner: str
    label: Label
    own: int = 0  # of those, the ones it follows by program order, not by what it touches
    before: int = 0
    released: tuple[str, ...] = ()
    crash: bool = False


@dataclass(slots=True)
class _Node:
    """A state on the current path: who could go on, and what has been tried."""

    enabled: dict[str, Label]
    owners: dict[str, str]
    sleep: dict[str, Label]
    epoch: int
    crashes_left: int
    chosen: str = ""
    backtrack: dict[str, None] = field(default_factory=dict)
    tried: dict[str, Label] = field(default_factory=dict)

    def add_threads(self) -> None:
        """The threads of one process do not commute with its death: try each of them."""
        owners = {self.owners[name] for name in self.backtrack if name in self.owners}
        for name in self.enabled:
            if self.owners[name] in owners:
                self.backtrack[name] = None


@dataclass
class _Finding:
    choices: list[str]
    sentence: str
    steps: list[_Step]

    def size(self) -> tuple[int, int, list[str]]:
        return (len(self.choices), switches(self.choices), self.choices)


def switches(choices: Sequence[str]) -> int:
    """How often somebody else goes on."""
    names = [choice.strip(_CRASH) for choice in choices]
    return sum(a != b for a, b in itertools.pairwise(names))


def dependent(a: Label, b: Label) -> bool:
    """Whether the order of two operations can matter."""
    for space, item, writes in a:
        for other_space, other_item, other_writes in b:
            if (
                (writes or other_writes)
                and space == other_space
                and (item is None or other_item is None or item == other_item)
            ):
                return True
    return False


class Unrepeatable(Stuck):
    """The actors do not do the same when they are played again, so orders mean nothing."""

    def __init__(self, seen: str) -> None:
        super().__init__(
            f"The actors do not do the same when played again ({seen}): they keep something "
            "between runs, in a global or a closure. Pass a function that makes the actors anew."
        )


class _Player:
    """Plays one order: the given choices first, then on by itself."""

    def __init__(self, search: _Search, choices: Sequence[str], draw: random.Random | None) -> None:
        self.search = search
        self.choices = choices
        self.draw = draw
        self.preemptions = _PREEMPTIONS
        self.steps: list[_Step] = []
        self.taken: list[str] = []
        self.epoch_start = 0
        self.cut = False
        self.crashes = search.crashes
        self.current: Task | None = None
        self.in_a_row = 0
        self.open: _Step | None = None  # its tail is still running
        scheduler = self.scheduler = Scheduler(
            search.world.trace, limit=search.limit_seconds, wall_limit=search.wall_limit
        )
        scheduler.most_steps = 20_000
        scheduler.explores = True
        scheduler.commit_apart = search.commit_apart
        scheduler.parked = []
        scheduler.picker = self.pick
        scheduler.ticked = self.tick  # type: ignore[method-assign]

    def tick(self) -> None:
        """The clock moved: everything so far happened before everything to come."""
        self._close()
        everything = (1 << len(self.steps)) - 1
        self.epoch_start = len(self.steps)
        for task in self.scheduler.tasks:
            task.mask |= everything

    def _close(self) -> None:
        if self.open is not None:
            released = self.scheduler.released
            if released:
                self.open.released = tuple(released)
                released.clear()
            self.open = None

    def pick(self, parked: list[Task]) -> Task | None:
        """Who goes on. None: nobody can, or this order needs no further look."""
        self._close()
        while True:
            enabled = [task for task in parked if task.gate is None or task.gate.is_free()]
            if not enabled:
                return None
            depth = len(self.taken)
            nodes = self.search.nodes
            choice = self._choose(enabled, parked, depth)
            if choice is None:
                self.cut = self.scheduler.enough = True
                return None
            crash = choice.endswith(_CRASH)
            name = choice.removesuffix(_CRASH)
            if crash:  # of a whole process: the choice names the actor, not its thread
                task = next((task for task in parked if task.owner.name == name), None)
            else:
                task = next((task for task in enabled if task.name == name), None)
            if task is None:
                raise Unrepeatable(f"{name} cannot go on where it could")
            self.taken.append(choice)
            label = self._label(task, crash)
            at = len(self.steps)
            if self.draw is None and depth >= self.search.known and depth < len(nodes):
                nodes[depth].tried[choice] = label
            replayed = self.draw is None and depth < len(self.choices) and not crash
            if replayed and nodes[depth].enabled.get(name, label) != label:
                raise Unrepeatable(f"{name} does something else than before")
            before = self._before(task, label, crash)
            step = _Step(name, task.owner.name, label, task.mask, before, (), crash)
            self.steps.append(step)
            self.search.touched(step)
            task.mask = before | 1 << at
            self.open = step
            if crash:
                self.crashes -= 1
                self.search.world.crash(task)
                self._close()
                if self.scheduler.runnable:
                    return None
                continue
            parked.remove(task)
            self.in_a_row = self.in_a_row + 1 if task is self.current else 1
            self.current = task
            return task

    def _before(self, task: Task, label: Label, crash: bool) -> int:
        """The steps that happened before the next one of `task`, as bits."""
        before = task.mask
        for j, step in enumerate(self.steps):
            if before >> j & 1:
                continue
            follows = (
                dependent(step.label, label)
                or (crash and step.owner == task.owner.name)
                or any(space == "lock" and item in step.released for space, item, _ in label)
            )
            if follows:
                before |= step.before | 1 << j
        return before

    def _label(self, task: Task, crash: bool) -> Label:
        if not crash:
            return task.label
        owner = self.search.world.database.owner
        if owner is not None and owner.task is not None and owner.task.owner is task.owner:
            return (("lock", "writer", True),)
        return ()

    def _choose(self, enabled: list[Task], parked: list[Task], depth: int) -> str | None:
        if self.draw is not None:
            return self._at_random(enabled)
        search = self.search
        if depth < len(self.choices):
            return self.choices[depth]
        labels = {task.name: task.label for task in enabled}
        if depth == len(search.nodes):
            search.add_node(self, labels, {task.name: task.owner.name for task in enabled})
        node = search.nodes[depth]
        if self.crashes:
            # A process may die anywhere; sleep sets leave out where that makes no difference.
            node.backtrack.update(dict.fromkeys(f"{task.owner.name}{_CRASH}" for task in parked))
        awake = [name for name in labels if name not in node.sleep]
        if not awake:
            deaths = [choice for choice in node.backtrack if choice not in node.sleep]
            node.chosen = deaths[0] if deaths else ""
            return node.chosen or None
        here = self.current.name if self.current is not None else None
        name = here if here in awake else awake[0]
        if self.in_a_row > 60 and len(awake) > 1:  # it polls: let the others get on
            name = awake[(awake.index(name) + 1) % len(awake)]
        node.chosen = name
        node.backtrack[name] = None
        if not search.prune:
            node.backtrack.update(dict.fromkeys(labels))
        elif self.crashes:
            node.add_threads()
        return name

    def _at_random(self, enabled: list[Task]) -> str:
        assert self.draw is not None
        if len(self.taken) < len(self.choices):
            return self.choices[len(self.taken)]
        names = [task.name for task in enabled]
        here = self.current.name if self.current is not None else None
        if here in names and (not self.preemptions or self.draw.random() < 0.7):
            name = here
        else:
            name = names[self.draw.randrange(len(names))]
            if here in names and name != here:
                self.preemptions -= 1
        if self.crashes and self.draw.random() < 0.05:
            return f"{name}{_CRASH}"
        return name


class _Search:
    """The depth-first search over all orders."""

    def __init__(
        self,
        world: World,
        make: Callable[[], list[Actor]],
        invariant: Invariant,
        *,
        limit: int,
        crashes: int,
        seed: int,
        prune: bool,
        commit_apart: bool,
        allow_errors: bool,
        limit_seconds: float,
        wall_limit: float,
        patience: Patience,
    ) -> None:
        self.world, self.make, self.invariant = world, make, invariant
        self.limit, self.crashes, self.seed, self.prune = limit, crashes, seed, prune
        self.commit_apart, self.allow_errors = commit_apart, allow_errors
        self.limit_seconds, self.wall_limit, self.patience = limit_seconds, wall_limit, patience
        self.nodes: list[_Node] = []
        self.known = 0
        self.run_count = self.cut_count = self.random_count = 0
        self.orders: int | None = 0
        self.failing = 0
        self.findings: list[_Finding] = []
        self.met: dict[str, dict[str | None, set[str]]] = {}
        self.shared = self.wrote = self.answered = False
        self.scheduler: Scheduler | None = None

    # Playing --------------------------------------------------------------------------------

    def play(
        self, choices: Sequence[str], draw: random.Random | None = None
    ) -> tuple[_Player, str | None, StageTrace]:
        """One order; the sentence is what is wrong with it, None when nothing is."""
        player = _Player(self, choices, draw)
        self.scheduler = scheduler = player.scheduler
        self.world.fresh(scheduler)
        trace = cast(StageTrace, scheduler.trace)
        try:
            self.world.play(self.world.look(self.make), scheduler)
        except Stuck as stuck:
            if scheduler.overtime or isinstance(stuck, Unrepeatable):
                raise
            return player, str(stuck), trace
        if player.cut:
            return player, None, trace
        if any(
            value is not None and not isinstance(value, BaseException)
            for value in trace.answers.values()
        ):
            self.answered = True
        return player, self.judge(trace), trace

    def judge(self, trace: StageTrace) -> str | None:
        """What is wrong after this run; None when nothing is."""
        if not self.allow_errors:
            for name, answer in trace.answers.items():
                if isinstance(answer, BaseException):
                    return f"{name} raised {type(answer).__name__}: {answer}".rstrip(": ") + "."
        try:
            said = self.world.look(lambda: self.invariant(self.world))
        except AssertionError as error:
            said = str(error) or False
        if said is None or said is True:
            return None
        if said is False:
            return "The invariant does not hold."
        if isinstance(said, str):
            return said or None
        raise TypeError(
            "An invariant returns None or True when all is well, otherwise a sentence or False; "
            f"this one returned {said!r}."
        )

    def touched(self, step: _Step) -> None:
        """Take note of who met whom, for "proved nothing"."""
        if self.shared and self.wrote:
            return
        for space, item, writes in step.label:
            if space == "lock":
                continue
            self.wrote = self.wrote or writes
            met = self.met.setdefault(space, {})
            met.setdefault(item, set()).add(step.owner)
            near = met.values() if item is None else (met[item], met.get(None, set()))
            self.shared = self.shared or any(owners - {step.owner} for owners in near)

    # Searching ------------------------------------------------------------------------------

    def add_node(self, player: _Player, labels: dict[str, Label], owners: dict[str, str]) -> None:
        """A state seen for the first time: what sleeps there follows from the state before."""
        sleep: dict[str, Label] = {}
        if self.nodes and self.prune:
            last = self.nodes[-1]
            taken = player.taken[-1]
            done = player.steps[-1]
            ticked = player.epoch_start == len(player.steps)  # then nothing commutes
            for name, label in [*last.sleep.items(), *last.tried.items()]:
                if name.endswith(_CRASH):  # ends a whole process, its threads too
                    other = name.removesuffix(_CRASH) != done.owner
                else:
                    other = name != done.who and name in labels
                if other and name != taken and not ticked and not dependent(label, done.label):
                    sleep[name] = label
        self.nodes.append(_Node(labels, owners, sleep, player.epoch_start, player.crashes))

    def look_for_races(self, player: _Player) -> None:
        """Where another order of two dependent steps is possible, plan to try it."""
        steps = player.steps
        waiting = [
            _Step(task.name, task.owner.name, task.label, task.mask, task.mask)
            for task in player.scheduler.tasks
            if task.gate is not None and not task.gone_early
        ]
        for i in range(self.known, len(steps)):
            self._races_of(steps, i, steps[i], self.nodes[i].epoch)
        for step in waiting:
            self._races_of(steps, len(steps), step, player.epoch_start)

    def _races_of(self, steps: list[_Step], i: int, step: _Step, epoch: int) -> None:
        seen = step.own
        for j in range(i - 1, epoch - 1, -1):
            earlier = steps[j]
            if seen >> j & 1 or earlier.who == step.who:
                continue
            if dependent(earlier.label, step.label):
                seen |= earlier.before | 1 << j
                self._plan(steps, j, i, step)

    def _plan(self, steps: list[_Step], j: int, i: int, step: _Step) -> None:
        node = self.nodes[j]
        after = [(k, steps[k]) for k in range(j + 1, i) if not steps[k].before >> j & 1]
        after.append((i, step))
        initials: list[str] = []
        members = 0
        for k, later in after:
            if later.who not in initials and not later.before & members:
                initials.append(later.who)
            members |= 1 << k
        for name in initials:
            if name in node.backtrack and name in node.enabled:
                return
        possible = [name for name in initials if name in node.enabled]
        wanted = [step.who] if step.who in possible else possible[:1] or list(node.enabled)
        node.backtrack.update(dict.fromkeys(wanted))
        if node.crashes_left:
            node.add_threads()

    def next_prefix(self) -> list[str] | None:
        """The deepest choice that is still to be tried."""
        while self.nodes:
            node = self.nodes[-1]
            for choice in node.backtrack:
                if choice not in node.tried and choice not in node.sleep:
                    node.chosen = choice
                    return [other.chosen for other in self.nodes]
            self.nodes.pop()
        return None

    def search(self) -> bool:
        """Run orders until all are known (True), or the limit or the end of the time (False)."""
        choices: list[str] = []
        failed_at: int | None = None
        while True:
            self.known = max(0, len(choices) - 1)
            player, sentence, _ = self.play(choices)
            self.look_for_races(player)
            if player.cut:
                self.cut_count += 1
            else:
                self.run_count += 1
                count = orders_of(player.steps) if self.prune else 1
                self.orders = None if None in (self.orders, count) else self.orders + count  # type: ignore[operator]
                if sentence is not None:
                    failed_at = self.run_count if failed_at is None else failed_at
                    self.failing += count or 1
                    self._remember(_Finding(player.taken, sentence, player.steps))
            if not self.run_count & 255:
                gc.collect()
            following = self.next_prefix()
            if following is None:
                return True
            if self.run_count >= self.limit or self.is_late():
                return False
            if failed_at is not None and self.run_count - failed_at >= _AFTER_FAILURE:
                return False
            choices = following

    def is_late(self) -> bool:
        """Whether to begin no further order: one that is cut off would blame an actor."""
        if self.run_count + self.random_count < _LEAST:
            return False
        return self.patience.left() < _LAST * self.wall_limit

    def search_at_random(self, count: int) -> None:
        """Beyond the limit: seeded orders with few preemptions."""
        self.nodes.clear()
        for number in range(count):
            if self.is_late():
                return
            draw = random.Random(f"{self.seed} {number}")
            player, sentence, _ = self.play([], draw)
            self.random_count += 1
            if sentence is not None:
                self.failing += 1
                self._remember(_Finding(player.taken, sentence, player.steps))
            if not number & 255:
                gc.collect()

    def _remember(self, finding: _Finding) -> None:
        self.findings.append(finding)
        if len(self.findings) > 64:
            self.findings.sort(key=_Finding.size)
            del self.findings[32:]

    def smallest(self) -> tuple[str, StageTrace]:
        """The shortest failing order, with the fewest switches of all orders that equal it."""
        best = min(self.findings, key=_Finding.size)
        length = len(best.choices)
        tried = [best]
        for finding in sorted(self.findings, key=_Finding.size):
            if len(finding.choices) == length:
                calmer = fewest_switches(finding.steps)
                if calmer is not None:
                    tried.append(_Finding(calmer, finding.sentence, finding.steps))
        for finding in sorted(tried, key=_Finding.size):
            self.nodes.clear()
            player, sentence, trace = self.play(finding.choices, random.Random(0))
            if sentence is not None and player.taken == finding.choices:
                return sentence, trace
        raise Unrepeatable("the order that failed did not fail again")


def _successors(steps: Sequence[_Step]) -> tuple[list[str], dict[str, list[int]]]:
    lanes: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        lanes.setdefault(step.who, []).append(index)
    return list(lanes), lanes


def orders_of(steps: Sequence[_Step]) -> int | None:
    """How many orders equal this one: the linear extensions of what happened before what."""
    names, lanes = _successors(steps)
    states = 1
    for name in names:
        states *= len(lanes[name]) + 1
    if states > _MOST_COUNTED:
        return None
    # How many orders lead to each set of steps that is closed under "happened before".
    level: dict[int, int] = {0: 1}
    for _ in steps:
        following: dict[int, int] = {}
        for done, count in level.items():
            for name in names:
                for index in lanes[name]:
                    if not done >> index & 1:
                        if steps[index].before & ~done == 0:
                            key = done | 1 << index
                            following[key] = following.get(key, 0) + count
                        break
        level = following
    return next(iter(level.values()))


def fewest_switches(steps: Sequence[_Step]) -> list[str] | None:
    """The order that equals this one and changes actors least often; None if that is too much."""
    names, lanes = _successors(steps)
    states = len(names)
    for name in names:
        states *= len(lanes[name]) + 1
    if states > _MOST_COUNTED:
        return None
    level: dict[tuple[int, str], tuple[int, list[str]]] = {(0, ""): (0, [])}
    for _ in steps:
        following: dict[tuple[int, str], tuple[int, list[str]]] = {}
        for (done, last), (count, path) in level.items():
            for name in names:
                for index in lanes[name]:
                    if not done >> index & 1:
                        step = steps[index]
                        if step.before & ~done == 0:
                            key = (done | 1 << index, name)
                            said = name + _CRASH if step.crash else name
                            better = (count + (last not in ("", name)), [*path, said])
                            if key not in following or better < following[key]:
                                following[key] = better
                        break
        level = following
    return min(level.values())[1]


def explore(
    actors: Actors | Callable[[], Actors],
    invariant: Invariant,
    *,
    setup: Callable[..., Any] | None = None,
    limit: int = 5_000,
    crashes: int = 0,
    seed: int = 0,
    latency: Latency = 0.0,
    capacity: int | None = None,
    faults: Iterable[Fault] = (),
    prune: bool = True,
    commit_apart: bool = True,
    allow_errors: bool = False,
    limit_seconds: float = 30 * 86_400.0,
    wall_limit: float = 60.0,
    size: Size = SMALL,
) -> Exploration:
    """Play the actors in every order, and judge each with `invariant(world)`.

    `actors` as for `run`, or a function without parameters that returns them anew for every order,
    for actors that keep something in a closure. `invariant(world)` looks at `world.cache`,
    `world.db`, `world.answers` and `world.trace` after a run, and returns None or True when all is
    well, otherwise a sentence or False. An actor that raises fails the order, unless
    `allow_errors`.

    `limit`: how many orders are run; beyond it come seeded random ones. When `wall_limit` (s, real)
    is near, no further order is begun, and the verdict says how many were tried. `crashes`: how
    many actors may be stopped for ever, at any switch point. `prune=False` runs orders that are
    equal too. `commit_apart=False` makes a statement and its commit one step. Time passes only when
    everybody sleeps or waits, so that a sleep is always longer than what the others do meanwhile.

    Returns an Exploration, which is a Verdict: "failed" with the shortest order found as
    `counterexample`; "proved nothing" when no two actors touched the same key or row, nothing was
    written, or nobody got an answer; otherwise "passed".
    """
    if limit < 1 or crashes < 0:
        raise ValueError(
            f"limit is at least 1 and crashes at least 0; these are {limit}, {crashes}."
        )
    factory = _factory(actors)
    first = factory()
    roots = [*(actor.play for actor in first), setup, invariant]
    if callable(actors):
        roots.append(actors)
    with open_world(
        roots, size=size, latency=latency, capacity=capacity, faults=faults, seed=seed
    ) as world:
        search: _Search | None = None

        def scheduler() -> Scheduler | None:
            return search.scheduler if search is not None else world.scheduler

        with wall_clock(scheduler, wall_limit) as patience:
            world.prepare(setup)
            search = _Search(
                world,
                factory,
                invariant,
                limit=limit,
                crashes=crashes,
                seed=seed,
                prune=prune,
                commit_apart=commit_apart,
                allow_errors=allow_errors,
                limit_seconds=limit_seconds,
                wall_limit=wall_limit,
                patience=patience,
            )
            exhaustive = search.search()
            if not exhaustive and not search.findings:
                search.search_at_random(max(100, limit // 5))
            return _verdict(search, exhaustive)


def _factory(actors: Any) -> Callable[[], list[Actor]]:
    if callable(actors) and not isinstance(actors, Actor):
        return lambda: as_actors(actors())
    made = as_actors(actors)
    return lambda: made


def _verdict(search: _Search, exhaustive: bool) -> Exploration:
    run = search.run_count + search.random_count
    orders = search.orders if exhaustive else None
    pruned = max(0, orders - search.run_count) if orders is not None else search.cut_count
    how = _said_orders(search, exhaustive, orders, pruned)
    outcome: Outcome
    counterexample: StageTrace | None = None
    hint = ""
    if search.findings:
        outcome = "failed"
        sentence, counterexample = search.smallest()
        least = "" if exhaustive else "at least "
        summary = f"In {least}{search.failing:,} of {how}: {sentence}"
    elif not search.shared or not search.wrote or not search.answered:
        outcome = "proved nothing"
        summary = f"{_missing(search)}, in {how}."
    else:
        outcome = "passed"
        summary = f"Holds in {how}."
    return Exploration(
        outcome,
        summary,
        hint,
        counterexample,
        run,
        orders=orders,
        pruned=pruned,
        failing=search.failing,
        exhaustive=exhaustive,
    )


def _missing(search: _Search) -> str:
    if not search.answered:
        return "Proved nothing: no actor returned an answer"
    if not search.wrote:
        return "Proved nothing: nobody wrote anything"
    return "Proved nothing: no two actors ever touched the same key or row"


def _said_orders(search: _Search, exhaustive: bool, orders: int | None, pruned: int) -> str:
    if exhaustive and orders is not None:
        ran = f" ({search.run_count:,} run, {pruned:,} pruned as equal)" if pruned else ""
        return f"all {orders:,} order{'s' * (orders != 1)}{ran}"
    if exhaustive:
        return f"all orders ({search.run_count:,} run, the others pruned as equal)"
    if search.random_count:
        return f"the first {search.run_count:,} and {search.random_count:,} random orders of many"
    return f"the first {search.run_count:,} orders of many"
