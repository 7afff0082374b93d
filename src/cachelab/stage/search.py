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
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from cachelab.origin import SMALL, Latency, Size
from cachelab.process.places import Where, place_at
from cachelab.record.verdict import Outcome, Verdict
from cachelab.stage.deadline import real_seconds
from cachelab.stage.explain import Doing, others, parting, sentences
from cachelab.stage.faults import FAILURES, LOST, Fault
from cachelab.stage.orders import (
    DIES,
    ENDS,
    EVERYTHING,
    Choice,
    Step,
    dependent,
    fewest_switches,
    orders_of,
    switches,
    written,
)
from cachelab.stage.performance import Performer
from cachelab.stage.scheduler import Deadline, Label, Limit, Scheduler, Stuck, Task
from cachelab.stage.world import (
    Actor,
    Actors,
    StageTrace,
    World,
    as_actors,
    open_world,
)

Invariant = Callable[[World], Any]
_AFTER_FAILURE = 2_000  # more orders are run in search of a smaller counter-example
_MOST_STEPS = 20_000  # of one order
_PREEMPTIONS = 3  # of one random order
_LEAST = 50  # orders that are tried however slow the machine
_CHANCE = 0.05  # that something goes wrong at a step of a random order
_TRIED = 40  # orders next to the one that failed
_LAST = 0.2  # of the time, in which a slow machine begins no further order


@dataclass(frozen=True, repr=False)
class Exploration(Verdict):
    """A Verdict that also says how much was seen.

    `schedules`: orders that were run. `orders`: how many orders there are, None if that is not
    known. `pruned`: orders that were not run because they equal one that was. `failing`: how many
    orders break the invariant. `exhaustive`: whether no order was left out. `nearest`: of a failed
    one, the run that passes and parts from the counter-example last, None if none was found.
    """

    orders: int | None = None
    pruned: int = 0
    failing: int = 0
    exhaustive: bool = True
    nearest: StageTrace | None = None


@dataclass(slots=True)
class _Node:
    """A state on the current path: who could go on, and what has been tried."""

    enabled: dict[str, Label]
    processes: dict[str, str]
    sleep: dict[Choice, Label]
    epoch: int
    deaths: bool  # an actor may die here
    gated: frozenset[str] = frozenset()  # who is there, and would have to wait for a lock
    chosen: Choice | None = None
    backtrack: dict[Choice, None] = field(default_factory=dict)
    tried: dict[Choice, Label] = field(default_factory=dict)

    def add_threads(self) -> None:
        """The threads of one process do not commute with its death: try each of them."""
        found = {self.processes[name] for name, _ in self.backtrack if name in self.processes}
        for name in self.enabled:
            if self.processes[name] in found:
                self.backtrack[Choice(name)] = None


@dataclass
class _Finding:
    choices: list[Choice]
    sentence: str
    steps: list[Step]
    trace: StageTrace

    def size(self) -> tuple[int, int, list[Choice]]:
        return (len(self.choices), switches(self.choices), self.choices)


@dataclass(frozen=True)
class Perils:
    """What may go wrong in one order, and how often: the search decides when."""

    crashes: int = 0
    failures: int = 0
    losses: int = 0
    endings: int = 0
    patterns: tuple[str, ...] = ("*",)  # of the keys whose TTL may end

    def budget(self) -> dict[str, int]:
        """How often each kind may still happen."""
        counts = {DIES: self.crashes, ENDS: self.endings, LOST: self.losses}
        return counts | {_FAILS: self.failures}

    def ways(self) -> tuple[str, ...]:
        """How a command may go, besides well."""
        return (*(FAILURES if self.failures else ()), *((LOST,) if self.losses else ()))


_FAILS = "fails"
_KINDS = {DIES: DIES, ENDS: ENDS, LOST: LOST} | dict.fromkeys(FAILURES, _FAILS)


class Seen(Exception):
    """The order under way equals one that was run: it ends here."""


class Unrepeatable(Limit):
    """The actors do not do the same when they are played again, so orders mean nothing."""

    def __init__(self, seen: str) -> None:
        super().__init__(
            f"The actors do not do the same when played again ({seen}): they keep something "
            "between runs, in a global or a closure. Pass a function that makes the actors anew."
        )


class _Player(Performer):
    """Plays one order: the given choices first, then on by itself."""

    def __init__(
        self, search: _Search, choices: Sequence[Choice], draw: random.Random | None
    ) -> None:
        super().__init__(search.world, search.perils.patterns)
        self.search = search
        self.choices = choices
        self.draw = draw
        self.preemptions = _PREEMPTIONS
        self.steps: list[Step] = []
        self.ticks = self.epoch_start = 0
        self.cut = False
        self.left = search.perils.budget()
        self.in_a_row = 0
        self.open: Step | None = None  # its tail is still running

    def begin(self, scheduler: Scheduler) -> None:
        super().begin(scheduler)
        scheduler.on_touch.append(self._refine)

    def next_task(self, parked: deque[Task]) -> Task | None:
        """Who goes on. None: nobody can."""
        self.settle()
        self._tick()
        return super().next_task(parked)

    def refuse(self, choice: Choice) -> NoReturn:
        what = (
            f"{choice.name} cannot go on"
            if choice.how != ENDS
            else f"the TTL of {choice.name} cannot end"
        )
        raise Unrepeatable(f"{what} where it could")

    def _mischances(self, parked: Iterable[Task], enabled: Iterable[Task]) -> Iterator[Choice]:
        """What may go wrong here."""
        left = self.left
        if left[DIES]:
            yield from dict.fromkeys(Choice(task.process.name, DIES) for task in parked)
        for task in enabled:
            for way in task.ways[1:]:
                if left[_KINDS[way]]:
                    yield Choice(task.name, way)
        if left[ENDS] and self.scheduler.left:
            for key, _ in self.search.world.endings(self.search.perils.patterns):
                yield Choice(key, ENDS)

    def _tick(self) -> None:
        """If the clock moved, everything so far happened before everything to come."""
        if self.ticks == self.scheduler.ticks:
            return
        self.ticks, self.epoch_start = self.scheduler.ticks, len(self.steps)
        everything = (1 << len(self.steps)) - 1
        for task in self.scheduler.tasks:
            task.mask |= everything

    def settle(self) -> None:
        """The step under way is over: note which locks it has given back."""
        if self.open is not None:
            released = self.scheduler.released
            if released:
                self.open.released = tuple(released)
                released.clear()
            self.open = None

    def note(self, choice: Choice, task: Task | None) -> None:
        """Note the step that is about to run, and what it follows."""
        at, nodes = len(self.steps), self.search.nodes
        if choice.how:
            self.left[_KINDS[choice.how]] -= 1
        label = EVERYTHING if task is None else self._label(task, choice)
        if self.draw is None and at < len(nodes):
            if at >= self.search.known:
                nodes[at].tried[choice] = label
            known = nodes[at].enabled.get(choice.name, label)
            if at < len(self.choices) and not choice.how and known != label:
                raise Unrepeatable(f"{choice.name} does something else than before")
        if task is None:
            self.steps.append(Step(choice, "the clock", label, 0, (1 << at) - 1))
            self.search.touched("the clock", (("cache", choice.name, True),))
            return
        before = self._before(task, label, choice)
        self.steps.append(Step(choice, task.process.name, label, task.mask, before))
        self.search.touched(task.owner.name, label)
        if choice.how in task.ways:  # whoever spoils a command is somebody else
            self.search.touched("chance", tuple((*touch[:2], True) for touch in task.label))
        task.mask = before | 1 << at
        self.open = self.steps[-1]
        if choice.how != DIES:
            self.in_a_row = self.in_a_row + 1 if task is self.current else 1

    def _refine(self, task: Task, label: Label) -> None:
        """What the step under way touches in truth, known when its operation has run.

        The order in which scripts meet depends on the keys that they do use, and those on the
        state; so does an order that is left out because of them.
        """
        step = self.open
        if step is None or step.who != task.name:
            return
        step.label, at = label, len(self.steps) - 1
        task.mask = step.own
        step.before = self._before(task, label, step.choice, at)
        task.mask = step.before | 1 << at
        if self.draw is None and self.search.known <= at < len(self.search.nodes):
            self.search.nodes[at].tried[step.choice] = label
        self.search.touched(task.owner.name, label)

    def _before(self, task: Task, label: Label, choice: Choice, most: int | None = None) -> int:
        """The steps, of the first `most`, that happened before the next one of `task`, as bits."""
        before = task.mask
        for j, step in enumerate(self.steps[:most]):
            if before >> j & 1:
                continue
            follows = (
                dependent(step.label, label)
                or (choice.how == DIES and step.process == task.process.name)
                or any(space == "lock" and item in step.released for space, item, _ in label)
            )
            if follows:
                before |= step.before | 1 << j
        return before

    def _label(self, task: Task, choice: Choice) -> Label:
        if choice.how == LOST or (choice.how in FAILURES and not FAILURES[choice.how][1]):
            return ()
        if choice.how != DIES:
            return task.label
        owner = self.search.world.database.owner
        if owner is not None and owner.task is not None and owner.task.process is task.process:
            return (("lock", "writer", True),)
        return ()

    def decide(self, enabled: list[Task], parked: deque[Task]) -> Choice:
        depth = len(self.taken)
        if depth < len(self.choices):
            return self.choices[depth]
        if self.draw is not None:
            return self._at_random(enabled, parked)
        search = self.search
        labels = {task.name: task.label for task in enabled}
        if depth == len(search.nodes):
            search.add_node(self, labels, {task.name: task.process.name for task in enabled})
            search.nodes[depth].gated = frozenset(t.name for t in parked if t.name not in labels)
        node = search.nodes[depth]
        # It may go wrong anywhere; sleep sets leave out where that makes no difference.
        node.backtrack.update(dict.fromkeys(self._mischances(parked, enabled)))
        awake = [name for name in labels if Choice(name) not in node.sleep]
        if not awake:
            node.chosen = next((one for one in node.backtrack if one not in node.sleep), None)
            if node.chosen is None:
                self.cut = True
                raise Seen
            return node.chosen
        here = self.current.name if self.current is not None else None
        name = here if here in awake else awake[0]
        if self.in_a_row > 60 and len(awake) > 1:  # it polls: let the others get on
            name = awake[(awake.index(name) + 1) % len(awake)]
        node.chosen = Choice(name)
        node.backtrack[node.chosen] = None
        if not search.prune or self.left[ENDS]:
            # The end of a TTL comes after all that came before, even where none has a TTL yet:
            # only the sleep sets prune until then.
            node.backtrack.update(dict.fromkeys(map(Choice, labels)))
        elif node.deaths:
            node.add_threads()
        return node.chosen

    def _at_random(self, enabled: list[Task], parked: deque[Task]) -> Choice:
        assert self.draw is not None
        mischances = list(self._mischances(parked, enabled))
        if mischances and self.draw.random() < _CHANCE:
            return mischances[self.draw.randrange(len(mischances))]
        names = [task.name for task in enabled]
        here = self.current.name if self.current is not None else None
        if here in names and (not self.preemptions or self.draw.random() < 0.7):
            name = here
        else:
            name = names[self.draw.randrange(len(names))]
            if here in names and name != here:
                self.preemptions -= 1
        return Choice(name)


class _Watched(_Player):
    """Plays a given order, and notes where in the actors' code each step was asked for."""

    def __init__(self, search: _Search, choices: Sequence[Choice]) -> None:
        super().__init__(search, choices, random.Random(0))
        self.places: dict[str, Where | None] = {}
        self.doings: list[Doing] = []

    def begin(self, scheduler: Scheduler) -> None:
        super().begin(scheduler)
        scheduler.on_step.append(self._look)

    def _look(self, task: Task, label: Label) -> None:
        self.places[task.name] = place_at(sys._getframe())

    def note(self, choice: Choice, task: Task | None) -> None:
        place = self.places.get(task.name) if task is not None else None
        self.doings.append(Doing(len(self.scheduler.trace.events), place))
        super().note(choice, task)


class _Guided(_Player):
    """Plays what is wanted, as far as it can be had."""

    def __init__(self, search: _Search, wanted: Sequence[Choice]) -> None:
        super().__init__(search, (), random.Random(0))
        self.wanted = list(wanted)

    def decide(self, enabled: list[Task], parked: deque[Task]) -> Choice:
        possible = {*map(Choice, (task.name for task in enabled))}
        possible |= {*self._mischances(parked, enabled)}
        for number, choice in enumerate(self.wanted):
            if choice in possible:
                return self.wanted.pop(number)
        return Choice(enabled[0].name)


@dataclass(frozen=True)
class Failure:
    """A failed order: what is wrong, what happened, its text, and why, where that is known."""

    sentence: str
    trace: StageTrace
    order: str
    why: tuple[str, ...] = ()
    nearest: StageTrace | None = None


class _Search:
    """The depth-first search over all orders."""

    def __init__(
        self,
        world: World,
        make: Callable[[], list[Actor]],
        invariant: Invariant,
        *,
        limit: int,
        perils: Perils,
        seed: int,
        prune: bool,
        allow_errors: bool,
        limit_seconds: float,
        deadline: Deadline,
    ) -> None:
        self.world, self.make, self.invariant = world, make, invariant
        self.limit, self.perils, self.seed, self.prune = limit, perils, seed, prune
        self.allow_errors = allow_errors
        self.limit_seconds, self.deadline = limit_seconds, deadline
        self.nodes: list[_Node] = []
        self.known = 0
        self.run_count = self.cut_count = self.random_count = 0
        self.orders: int | None = 0
        self.failing = 0
        self.findings: list[_Finding] = []
        self.met: dict[str, dict[str | None, set[str]]] = {}
        self.shared = self.wrote = self.answered = False
        self.writers: set[str] = set()  # actors that wrote something in some order
        self.struck: set[Any] = set()  # kinds of mischance, and faults, that came to pass
        self.limit_met = ""  # of the stage, in some order, which says nothing then

    # Playing --------------------------------------------------------------------------------

    def play(
        self, choices: Sequence[Choice], draw: random.Random | None = None
    ) -> tuple[_Player, str | None, StageTrace]:
        """One order; the sentence is what is wrong with it, None when nothing is."""
        player = _Player(self, choices, draw)
        return (player, *self.perform(player))

    def perform(self, player: _Player) -> tuple[str | None, StageTrace]:
        """Play an order as a player says; what is wrong with it, and what happened."""
        scheduler = Scheduler(
            self.world.trace,
            player,
            limit=self.limit_seconds,
            deadline=self.deadline,
            most_steps=_MOST_STEPS,
        )
        self.world.fresh(scheduler)
        trace = cast(StageTrace, scheduler.trace)
        try:
            self.world.play(self.world.look(self.make), scheduler)
        except Seen:
            return None, trace
        except Stuck as stuck:
            if self.deadline.passed or isinstance(stuck, Unrepeatable):
                raise
            if isinstance(stuck, Limit):
                self.limit_met = str(stuck)
                return None, trace
            return str(stuck), trace
        finally:
            self.struck |= self.world.struck | {how for _, how in player.taken if how}
        if any(
            value is not None and not isinstance(value, BaseException)
            for value in trace.answers.values()
        ):
            self.answered = True
        return self.judge(trace), trace

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

    def touched(self, owner: str, label: Label) -> None:
        """Take note of who met whom, for "proved nothing"."""
        for space, item, writes in label:
            if space in ("lock", "memory", "fault"):
                continue
            if writes:
                self.wrote = True
                self.writers.add(owner)
            if self.shared:
                continue
            met = self.met.setdefault(space, {})
            met.setdefault(item, set()).add(owner)
            near = met.values() if item is None else (met[item], met.get(None, set()))
            self.shared = any(owners - {owner} for owners in near)

    # Searching ------------------------------------------------------------------------------

    def add_node(
        self, player: _Player, labels: dict[str, Label], processes: dict[str, str]
    ) -> None:
        """A state seen for the first time: what sleeps there follows from the state before."""
        sleep: dict[Choice, Label] = {}
        if self.nodes and self.prune:
            last = self.nodes[-1]
            done = player.steps[-1]
            ticked = player.epoch_start == len(player.steps)  # then nothing commutes
            for choice, label in [*last.sleep.items(), *last.tried.items()]:
                if choice.how == ENDS:
                    continue
                if choice.how == DIES:  # ends a whole process, its threads too
                    other = choice.name != done.process
                else:
                    other = choice.name != done.who and choice.name in labels
                other = other and choice != done.choice and not ticked
                if other and not dependent(label, done.label):
                    sleep[choice] = label
        deaths = player.left[DIES] > 0
        self.nodes.append(_Node(labels, processes, sleep, player.epoch_start, deaths))

    def look_for_races(self, player: _Player) -> None:
        """Where another order of two dependent steps is possible, plan to try it."""
        steps = player.steps
        waiting = [
            Step(Choice(task.name), task.process.name, task.label, task.mask, task.mask)
            for task in player.scheduler.tasks
            if task.gate is not None
        ]
        for i in range(self.known, len(steps)):
            if steps[i].choice.how == ENDS:
                continue  # everything was tried in front of it
            self._races_of(steps, i, steps[i], self.nodes[i].epoch)
        for step in waiting:
            self._races_of(steps, len(steps), step, player.epoch_start)

    def _races_of(self, steps: list[Step], i: int, step: Step, epoch: int) -> None:
        seen, after = step.own, set[str]()
        for j in range(i - 1, epoch - 1, -1):
            after.update([steps[j + 1].who] if j + 1 < i else [])
            earlier = steps[j]
            if seen >> j & 1 or earlier.who == step.who:
                continue
            if dependent(earlier.label, step.label):
                if step.who in self.nodes[j].gated and step.who not in after:
                    continue  # it could not come before that step, but before the lock was taken
                seen |= earlier.before | 1 << j
                self._plan(steps, j, i, step)

    def _plan(self, steps: list[Step], j: int, i: int, step: Step) -> None:
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
            if name in node.enabled and Choice(name) in node.backtrack:
                return
        possible = [name for name in initials if name in node.enabled]
        wanted = [step.who] if step.who in possible else possible[:1] or list(node.enabled)
        node.backtrack.update(dict.fromkeys(map(Choice, wanted)))
        if node.deaths:
            node.add_threads()

    def next_prefix(self) -> list[Choice] | None:
        """The deepest choice that is still to be tried."""
        while self.nodes:
            node = self.nodes[-1]
            for choice in node.backtrack:
                if choice not in node.tried and choice not in node.sleep:
                    node.chosen = choice
                    return [other.chosen for other in self.nodes if other.chosen is not None]
            self.nodes.pop()
        return None

    def search(self) -> bool:
        """Run orders until all are known (True), or the limit or the end of the time (False)."""
        choices: list[Choice] = []
        failed_at: int | None = None
        while True:
            self.known = max(0, len(choices) - 1)
            player, sentence, trace = self.play(choices)
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
                    self._remember(_Finding(player.taken, sentence, player.steps, trace))
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
        return self.deadline.left() < _LAST * self.deadline.seconds

    def search_at_random(self, count: int) -> None:
        """Beyond the limit: seeded orders with few preemptions."""
        self.nodes.clear()
        for number in range(count):
            if self.is_late():
                return
            draw = random.Random(f"{self.seed} {number}")
            player, sentence, trace = self.play([], draw)
            self.random_count += 1
            if sentence is not None:
                self.failing += 1
                self._remember(_Finding(player.taken, sentence, player.steps, trace))
            if not number & 255:
                gc.collect()

    def _remember(self, finding: _Finding) -> None:
        self.findings.append(finding)
        if len(self.findings) > 64:
            self.findings.sort(key=_Finding.size)
            del self.findings[32:]

    def smallest(self) -> Failure:
        """The shortest failing order, with the fewest switches of all orders that equal it."""
        best = min(self.findings, key=_Finding.size)
        if self.deadline.passed:  # there is no time to play it
            return Failure(best.sentence, best.trace, written(best.choices))
        length = len(best.choices)
        tried = [best]
        for finding in sorted(self.findings, key=_Finding.size):
            if len(finding.choices) == length:
                calmer = fewest_switches(finding.steps)
                if calmer is not None:
                    calm = _Finding(calmer, finding.sentence, finding.steps, finding.trace)
                    tried.append(calm)
        for finding in sorted(tried, key=_Finding.size):
            self.nodes.clear()
            player = _Watched(self, finding.choices)
            sentence, trace = self.perform(player)
            if sentence is not None and player.taken == finding.choices:
                why, nearest = self._explained(player, trace)
                if nearest is not None:  # the world is to be as the failed order leaves it
                    _, trace = self.perform(_Watched(self, finding.choices))
                return Failure(sentence, trace, written(player.taken), why, nearest)
        raise Unrepeatable("the order that failed did not fail again")

    def _explained(
        self, player: _Watched, trace: StageTrace
    ) -> tuple[tuple[str, ...], StageTrace | None]:
        """Which two operations decide, and a run that passes because they come otherwise."""
        for tried, other in enumerate(others(player.taken, player.steps)):
            if tried == _TRIED or self.deadline.left() < _LAST / 2 * self.deadline.seconds:
                break
            guided = _Guided(self, other.wanted)
            sentence, passing = self.perform(guided)
            if sentence is None:
                at = parting(player.taken, guided.taken)
                return sentences(player.steps, player.doings, trace, other, at), passing
        return (), None


def explore(
    actors: Actors | Callable[[], Actors],
    invariant: Invariant,
    *,
    setup: Callable[..., Any] | None = None,
    limit: int = 5_000,
    crashes: int = 0,
    expiry: int | str | Iterable[str] = 0,
    failures: int = 0,
    losses: int = 0,
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
    is near, no further order is begun, and the verdict says how many were tried. `prune=False` runs
    orders that are equal too. `commit_apart=False` makes a statement and its commit one step. Time
    passes only when everybody sleeps or waits, so that a sleep is always longer than what the
    others do meanwhile.

    What may go wrong besides, in each order, at any switch point: `crashes` actors die. `expiry`
    TTLs end while whoever is about to do something stands still: so many, or one of a key that
    matches this pattern or one of these. `failures` round trips to the cache fail with
    redis.ConnectionError or redis.TimeoutError, before the cache did anything or after. `losses`
    published messages reach nobody.

    Returns an Exploration, which is a Verdict: "failed" with the shortest order found as
    `counterexample`; "proved nothing" when a fault that was asked for never struck, no two actors
    touched the same key or row, nothing was written, or an actor only read and nobody got an
    answer; otherwise "passed".
    """
    if limit < 1 or min(crashes, failures, losses) < 0:
        raise ValueError(
            "limit is at least 1, and crashes, failures and losses at least 0; these are "
            f"{limit}, {crashes}, {failures}, {losses}."
        )
    endings, patterns = _expiring(expiry)
    perils = Perils(crashes, failures, losses, endings, patterns)
    factory = _factory(actors)
    first = factory()
    roots = [setup, *([actors] if callable(actors) else (actor.play for actor in first))]
    with open_world(
        roots, size=size, latency=latency, capacity=capacity, faults=faults, seed=seed
    ) as world:
        with real_seconds(wall_limit) as deadline:
            world.deadline = deadline
            world.prepare(setup)
            world.commit_apart, world.perils = commit_apart, perils.ways()
            search = _Search(
                world,
                factory,
                invariant,
                limit=limit,
                perils=perils,
                seed=seed,
                prune=prune,
                allow_errors=allow_errors,
                limit_seconds=limit_seconds,
                deadline=deadline,
            )
            exhaustive = False
            try:
                exhaustive = search.search()
                if not exhaustive and not search.findings:
                    search.search_at_random(max(100, limit // 5))
            except Unrepeatable:
                raise
            except Limit as limit_met:
                search.limit_met = str(limit_met)
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
    failure: Failure | None = None
    if search.findings:
        outcome = "failed"
        failure = search.smallest()
        least = "" if exhaustive else "at least "
        summary = f"In {least}{search.failing:,} of {how}: {failure.sentence}"
    elif search.limit_met:
        outcome = "proved nothing"
        where = f", in {how}" if run else ""
        summary = f"Proved nothing{where}: {search.limit_met}"
    elif missing := _missing(search):
        outcome = "proved nothing"
        summary = f"Proved nothing: {missing}, in {how}."
    else:
        outcome = "passed"
        summary = f"Holds in {how}."
    return Exploration(
        outcome,
        summary,
        counterexample=failure.trace if failure else None,
        schedules=run,
        why=failure.why if failure else (),
        order=failure.order if failure else "",
        nearest=failure.nearest if failure else None,
        orders=orders,
        pruned=pruned,
        failing=search.failing,
        exhaustive=exhaustive,
    )


def _missing(search: _Search) -> str:
    """Why these orders could not have shown a fault; "" when they could."""
    asked = {"expiry": search.perils.endings, "losses": search.perils.losses}
    asked["failures"] = search.perils.failures
    kinds = {_KINDS[one] for one in search.struck if one in _KINDS}
    never = [
        name
        for name, kind in (("expiry", ENDS), ("failures", _FAILS), ("losses", LOST))
        if asked[name] and kind not in kinds
    ]
    never += [repr(fault) for fault in search.world.faults if fault not in search.struck]
    if never:
        return f"the fault never struck ({', '.join(never)})"
    if not search.answered and not set(search.world.tasks) <= search.writers:
        return "no actor returned an answer"
    if not search.wrote:
        return "nobody wrote anything"
    if not search.shared:
        return "no two actors ever touched the same key or row"
    return ""


def _expiring(expiry: int | str | Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """How many TTLs may end, and of which keys."""
    if isinstance(expiry, int) and expiry >= 0:
        return int(expiry), ("*",)
    given: list[Any] = [expiry] if isinstance(expiry, (int, str)) else list(expiry)
    if not given or not all(isinstance(one, str) for one in given):
        raise ValueError(
            "expiry is how many TTLs may end in an order, or the pattern of the keys of which one "
            f"may, or several; this is {expiry!r}."
        )
    return 1, tuple(given)


def _said_orders(search: _Search, exhaustive: bool, orders: int | None, pruned: int) -> str:
    if exhaustive and orders is not None:
        ran = f" ({search.run_count:,} run, {pruned:,} pruned as equal)" if pruned else ""
        return f"all {orders:,} order{'s' * (orders != 1)}{ran}"
    if exhaustive:
        return f"all orders ({search.run_count:,} run, the others pruned as equal)"
    if search.random_count:
        return f"the first {search.run_count:,} and {search.random_count:,} random orders of many"
    return f"the first {search.run_count:,} orders of many"
