"""Checks and hints of lab 07: a buffer that counts each view once, whoever comes or dies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from cachelab import stage
from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.record.verdict import short

OPEN, SEALED, NOTES = "views:v1:open", "views:v1:sealed", "views:v1:notes"
ADD = sa.text("UPDATE articles SET views = views + :more WHERE id = :id")
FLUSHED = sa.text("CREATE TABLE IF NOT EXISTS flushed (batch TEXT PRIMARY KEY)")
BASE = 97  # the views of article 1 in the small shop; of article n, n times that

# Actors of the judge's own ---------------------------------------------------------------------


def count_view(cache: Any, article_id: int) -> None:
    """The same as in the lab."""
    cache.hincrby(OPEN, article_id, 1)


def visits(cache: Any, db: Any) -> str:
    count_view(cache, 1)
    return "acknowledged"


def makes_table(cache: Any, db: Any) -> None:
    with db.engine.begin() as connection:
        connection.execute(FLUSHED)


def table_and_a_view(cache: Any, db: Any) -> None:
    makes_table(cache, db)
    count_view(cache, 1)


def flusher(cache: Any, db: Any) -> None:
    """What exercise 2 says of the flusher."""
    cache.rename(OPEN, SEALED)
    sums = cache.hgetall(SEALED)
    with db.engine.begin() as connection:
        for article, more in sums.items():
            connection.execute(ADD, {"id": int(article), "more": int(more)})
    cache.delete(SEALED)


# flush ---------------------------------------------------------------------------------------


def judge_flush(answer: Any, trial: Trial) -> str:
    """Each view arrives once, in one transaction, those that come meanwhile too."""
    world = trial.world()
    before = _all_views(world)
    trial.call(answer, world.cache, world.db)
    _expect_views(trial, world, before, {}, "a flush of an empty buffer")

    for article, views in ((1, 3), (2, 1), (4, 6)):
        for _ in range(views):
            count_view(world.cache, article)
    commits, writes = world.trace.count("commit"), world.trace.writes
    trial.call(answer, world.cache, world.db)
    counted = {1: 3, 2: 1, 4: 6}
    _expect_views(trial, world, before, counted, "ten views of three articles and a flush")
    made = world.trace.count("commit") - commits
    trial.expect(made == 1, f"Three articles took {made} transactions; one is enough.")
    wrote = world.trace.writes - writes
    trial.expect(
        wrote <= 3,
        f"Ten views of three articles took {wrote} UPDATEs; one an article is enough.",
    )
    writes = world.trace.writes
    trial.call(answer, world.cache, world.db)
    _expect_views(trial, world, before, counted, "a second flush, with no new view,")
    wrote = world.trace.writes - writes
    trial.expect(
        wrote == 0,
        "A second flush, with no new view, ran an UPDATE again, which adds 0: what has been flushed"
        " does not wait any more.",
    )
    count_view(world.cache, 2)
    trial.call(answer, world.cache, world.db)
    counted[2] += 1
    _expect_views(trial, world, before, counted, "one more view of article 2 and a flush")

    actors = {"one visitor": visits, "another": visits, "flush": answer, "next flush": (10, answer)}
    found = trial.every_order(actors, _each_once(1, "one visitor", "another"), setup=_one_waits)
    return f"Each view counts once; {_uncapital(found.summary)}"


def _one_waits(cache: Any, db: Any) -> None:
    count_view(cache, 1)


def _each_once(
    waited: int, *visitors: str, with_ids: bool = False
) -> Callable[[stage.World], str | bool]:
    """Every view that was acknowledged is in the database, once.

    `with_ids`: of views that count twice it is said how many ids the table `flushed` has.
    """

    def holds(world: stage.World) -> str | bool:
        acknowledged = waited + sum(name in world.answers for name in visitors)
        found = _views(world.db) - BASE
        if found == acknowledged:
            return True
        said = f"views acknowledged: {acknowledged}, in the database in the end: {found}"
        if found < acknowledged:
            return f"{said}; some are lost."
        if not with_ids:
            return f"{said}; some count twice."
        with world.db.engine.connect() as connection:
            ids = connection.execute(sa.text("SELECT count(*) FROM flushed")).scalar_one()
        return f"{said}; some count twice (ids in flushed: {ids})."

    return holds


# read ----------------------------------------------------------------------------------------


def judge_read(answer: Any, trial: Trial) -> str:
    """The sum of the three places, and never less than what was acknowledged."""
    for opened, sealed, where in (
        (0, 0, "nothing waiting"),
        (3, 0, "3 views in open"),
        (0, 2, "2 views in sealed"),
        (3, 2, "3 views in open and 2 in sealed"),
    ):
        world = trial.world()
        with world.trace.off_the_record():
            for key, some in ((OPEN, opened), (SEALED, sealed)):
                world.cache.hset(key, "2", 5)
                if some:
                    world.cache.hset(key, "1", some)
        kept = {key: world.peek(key) for key in world.keys()}
        got = trial.call(answer, world.cache, world.db, 1)
        right = BASE + opened + sealed
        trial.expect(
            type(got) is int,
            f"With {where}, views gave {short(got)} (a {type(got).__name__}); expected was"
            f" {right}.",
        )
        trial.expect(
            got == right,
            f"With {BASE} views of article 1 in the table and {where}, views gave {short(got)};"
            f" expected was {right}.",
        )
        trial.expect(
            {key: world.peek(key) for key in world.keys()} == kept,
            "A read changed the buffer: those views are not yet in the database.",
        )
        trial.expect(world.trace.writes == 0, "A read wrote to the database.")
        asked = world.db.queries
        trial.expect(asked == 1, f"A read asked {asked} queries; expected was 1.")

    def reads(cache: Any, db: Any) -> Any:
        return answer(cache, db, 1)

    def not_lower(world: stage.World) -> str | bool:
        got = world.answers["reader"]
        if type(got) is not int or got < BASE + 2:
            return (
                f"a reader got {short(got)}, though {BASE + 2} views had been acknowledged before:"
                " they moved on while it looked."
            )
        if got > BASE + 9:
            return f"a reader got {got}; three views, each met in three places, make {BASE + 9}."
        return True

    def two_wait(cache: Any, db: Any) -> None:
        count_view(cache, 1)
        count_view(cache, 1)

    actors = {"reader": reads, "flusher": flusher, "visitor": visits}
    found = trial.every_order(actors, not_lower, setup=two_wait)
    return f"No reader is shown too few; {_uncapital(found.summary)}"


# replay --------------------------------------------------------------------------------------


def judge_replay(answer: Any, trial: Trial) -> str:
    """Each view once: after a death at any step, for equal batches, with a cache that forgot."""
    world = _with_table(trial)
    before = _all_views(world)
    trial.call(answer, world.cache, world.db)
    _expect_views(trial, world, before, {}, "a call with an empty buffer")
    for number in (1, 2, 3):
        for article in (1, 1, 3):
            count_view(world.cache, article)
        trial.call(answer, world.cache, world.db)
        after = "a first batch" if number == 1 else f"{number} batches with the same views"
        _expect_views(trial, world, before, {1: 2 * number, 3: number}, after)
    trial.call(answer, world.cache, world.db)
    _expect_views(trial, world, before, {1: 6, 3: 3}, "one more call, with no new view,")

    with world.trace.acting("a crash of the cache"):
        for key in world.keys():
            world.cache.delete(key)
    for number in (1, 2, 3, 4):
        count_view(world.cache, 4)
        trial.call(answer, world.cache, world.db)
        views = f"{number} view{'' if number == 1 else 's'}"
        after = f"a crash that emptied the cache, and {views} in {number} of the batches since"
        _expect_views(trial, world, before, {1: 6, 3: 3, 4: number}, after)

    def works(cache: Any, db: Any) -> str:
        answer(cache, db)
        return "returned"

    later = {"next": (10, works), "last": (20, works)}
    actors: dict[str, Any] = {"worker": works, **later}
    holds = _each_once(1, with_ids=True)
    trial.every_order(actors, holds, setup=table_and_a_view, crashes=1, limit=3_000)
    actors = {"visitor": visits, "worker": works, **later}
    holds = _each_once(1, "visitor", with_ids=True)
    found = trial.every_order(actors, holds, setup=table_and_a_view, crashes=1, limit=3_000)
    return f"Each view counts once, wherever a worker dies; {_uncapital(found.summary)}"


def _with_table(trial: Trial) -> TrialWorld:
    world = trial.world()
    with world.truth.engine.begin() as connection:
        connection.execute(FLUSHED)
    return world


# bound ---------------------------------------------------------------------------------------

MOST, OLDEST = 100, 5.0


class Buffered:
    """A world with a flush of the judge's own, which looks whether it was time."""

    def __init__(self, trial: Trial, answer: Any) -> None:
        self.trial, self.answer, self.world = trial, answer, trial.world()
        self.waiting: list[float] = []  # when each view that waits was counted
        self.flushes = self.flushed = 0
        self.now = 0.0
        self.too_soon = ""

    def call(self, now: float, article_id: int | None) -> None:
        """One view, or the timer; afterwards nothing may be too many or too old."""
        self.now, before = now, self.flushes
        if article_id is not None:
            self.waiting.append(now)
        self.trial.call(self.answer, self.world.cache, article_id, now, self.flush)
        self.trial.expect(not self.too_soon, self.too_soon)
        kept = self._kept()
        if self.flushes > before:  # a view that is counted after the flush waits on
            self.waiting = self.waiting[len(self.waiting) - kept :] if kept else []
        self.trial.expect(
            kept == len(self.waiting),
            f"Of {self.flushed + len(self.waiting)} views so far {self.flushed} were flushed and"
            f" {kept} wait in {OPEN}.",
        )
        articles = len(self.world.peek(OPEN) or {})
        self.trial.expect(
            kept < MOST,
            f"{kept} views of {articles} articles wait and were not flushed; the bound is 100"
            " views.",
        )
        age = now - self.waiting[0] if self.waiting else 0.0
        self.trial.expect(
            age < OLDEST,
            f"A view has waited {age:g} s, through {'a timer' if article_id is None else 'a view'}"
            " and without a flush; the bound is 5 s.",
        )

    def flush(self) -> None:
        """What the answer calls; what it thinks of that is said after the call."""
        held = self.world.peek(OPEN) or {}
        kept = sum(int(views) for views in held.values() if str(views).isdigit())
        age = self.now - self.waiting[0] if self.waiting else 0.0
        if kept < MOST and age < OLDEST:
            self.too_soon = self.too_soon or (
                f"flush() was called with {kept} view{'' if kept == 1 else 's'} waiting, the oldest"
                f" for {age:g} s: that is neither 100 nor 5 s."
            )
        with self.world.trace.acting("flush"):
            self.world.cache.delete(OPEN, NOTES)
        self.flushes, self.flushed = self.flushes + 1, self.flushed + kept

    def _kept(self) -> int:
        held = self.world.peek(OPEN) or {}
        odd = [f for f, v in held.items() if not (f.isdigit() and str(v).isdigit())]
        self.trial.expect(
            not odd,
            f"The hash {OPEN} has the field {odd[0] if odd else ''!r}, which is no article: a flush"
            " would take it for one.",
        )
        return sum(map(int, held.values()))


def judge_bound(answer: Any, trial: Trial) -> str:
    """Neither too many nor too old, nor flushed too soon, for many processes at once."""
    _is_flushed_at_all(answer, trial)
    for articles in (MOST, 3):
        burst = Buffered(trial, answer)
        for number in range(MOST + 1):
            burst.call(number / 256, 1 + number % articles)
    another = Buffered(trial, answer)  # another cache: what Python remembers is not about it
    for number in range(MOST - 1):
        another.call(1 + number / 256, 1)
    idle = Buffered(trial, answer)
    idle.call(0.0, None)
    idle.call(0.5, 2)
    for second in range(1, 9):
        idle.call(float(second), None)
    idle.call(9.0, 2)
    for second in range(10, 16):
        idle.call(float(second), None)
    steady = Buffered(trial, answer)
    for second in range(40):
        steady.call(float(second), 1)
    _is_tried_again(answer, trial)

    def takes(cache: Any, db: Any) -> Callable[[], None]:
        def take() -> None:
            with cache.pipeline() as pipe:
                pipe.hgetall(OPEN)
                pipe.delete(OPEN, NOTES)
                sums = pipe.execute()[0]
            with db.engine.begin() as connection:
                for article, more in sums.items():
                    connection.execute(ADD, {"id": int(article), "more": int(more)})

        return take

    def counts(cache: Any, db: Any) -> str:
        answer(cache, 1, 2.0, takes(cache, db))
        return "acknowledged"

    def flushes(cache: Any, db: Any) -> None:
        takes(cache, db)()

    def timer(cache: Any, db: Any) -> int:
        waiting = _waiting(cache)
        answer(cache, None, 60.0, takes(cache, db))
        return waiting

    def later(cache: Any, db: Any) -> bool:
        alone, take, called = not _waiting(cache), takes(cache, db), []

        def flush() -> None:
            called.append("flush")
            take()

        answer(cache, 1, 60.0, flush)
        return alone and bool(called)

    def full_but_for(few: int) -> Callable[[Any, Any], None]:
        def fill(cache: Any, db: Any) -> None:
            for _ in range(MOST - few):
                answer(cache, 1, 1.0, takes(cache, db))

        return fill

    def flushed_in_the_end(few: int) -> Callable[[stage.World], str | bool]:
        def holds(world: stage.World) -> str | bool:
            held = _waiting(world.cache)
            found, started = _views(world.db) - BASE, world.answers
            acknowledged = MOST - few + sum(name in started for name in ("one visitor", "another"))
            if found + held != acknowledged:
                return (
                    f"of {acknowledged} views counted by several processes {found} are in the"
                    f" database and {held} wait: the rest is lost."
                )
            if held:
                return (
                    f"of two processes one flushed while the other counted, and {held} view of the"
                    " other was forgotten: the timer finds it neither full nor old."
                )
            if started["timer"] >= MOST:
                return (
                    f"two processes counted at once, {started['timer']} views waited, and neither"
                    " of the two called flush(): each missed the other's view."
                )
            return True

        return holds

    def not_too_soon(world: stage.World) -> str | bool:
        return not world.answers["later visitor"] or (
            "a flush came between a view and the note of it, the note stayed behind, and for the"
            " next view flush() was called at once: a view and its notes belong in one step."
        )

    actors = {"one visitor": counts, "another": counts, "timer": (100, timer)}
    trial.every_order(actors, flushed_in_the_end(2), setup=full_but_for(2), limit=150)
    soon = {"one visitor": counts, "another flush": flushes, "later visitor": (100, later)}
    actors = {"one visitor": counts, "another flush": flushes, "timer": (100, timer)}
    found = trial.every_order(actors, flushed_in_the_end(1), setup=full_but_for(1), limit=150)
    trial.every_order(soon, not_too_soon, limit=150)
    return f"At most 100 wait, for at most 5 s; {_uncapital(found.summary)}"


def _waiting(cache: Any) -> int:
    return sum(map(int, cache.hvals(OPEN)))


def _is_flushed_at_all(answer: Any, trial: Trial) -> None:
    called = _calls_of_flush(answer, trial, views=MOST)
    trial.expect(
        called, "A hundred views came, and the timer a minute later, and flush() was never called."
    )


def _is_tried_again(answer: Any, trial: Trial) -> None:
    called = _calls_of_flush(answer, trial, views=MOST + 1)
    trial.expect(
        MOST + 1 in called,
        "At 100 views flush() was called and did not get through, the database being down; at 101"
        " it was not called again.",
    )


def _calls_of_flush(answer: Any, trial: Trial, views: int) -> list[int]:
    """After how many views a flush that does not get through was called; 0 is the timer."""
    world, now = trial.world(), [(number, 0.0) for number in range(1, views + 1)]
    called: list[int] = []
    for number, at in [*now, (0, 1.0), (0, 60.0)]:
        flush = functools.partial(called.append, number)
        trial.call(answer, world.cache, 1 if number else None, at, flush)
    return called


# What several of them expect -----------------------------------------------------------------


def _views(db: Any, article_id: int = 1) -> int:
    return int(db.article(article_id)["views"])


def _all_views(world: TrialWorld) -> dict[int, int]:
    return {article: _views(world.truth, article) for article in range(1, 6)}


def _expect_views(
    trial: Trial, world: TrialWorld, before: dict[int, int], counted: dict[int, int], after: str
) -> None:
    now = _all_views(world)
    for article, views in before.items():
        right = views + counted.get(article, 0)
        trial.expect(
            now[article] == right,
            f"After {after} article {article} has {now[article]} views in the database; expected"
            f" was {right} ({views} and {counted.get(article, 0)}).",
        )


def _uncapital(text: str) -> str:
    return text[:1].lower() + text[1:]
