"""What the stage cannot see or has no time for proves nothing: it is not held against an actor."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cachelab import stage
from cachelab.exercises import find
from cachelab.judge.trial import JudgingEnded, Trial


def real_wait():
    """A wait of the operating system, of which the stage can know nothing."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as end, open(writing, "wb"):
        return end.read(1)


def reads(cache, db):
    return cache.get("k") or 1


def writes(cache, db):
    return cache.set("k", 1)


def fine(world):
    return None


def waits(cache, db):
    cache.incr("n")
    return real_wait()


# A wait that the stage cannot see -----------------------------------------------------------


def test_a_wait_that_the_stage_cannot_see_is_named_by_its_line():
    text = "return end.read(1)"
    lines = [line.strip() for line in Path(__file__).read_text().splitlines()]
    where = f"test_stage_limits.py:{lines.index(text) + 1}, `{text}`"
    with pytest.raises(stage.Limit) as met:
        stage.run([waits, reads], wall_limit=0.5)
    assert str(met.value) == f"waits waits for something that is not on the stage: {where}."
    verdict = stage.explore([waits, writes], fine, wall_limit=0.5)
    assert verdict.outcome == "proved nothing"
    assert verdict.summary == f"Proved nothing: {met.value}"


def test_a_loop_that_only_computes_is_no_such_wait():
    def busy(cache, db):
        while True:
            pass

    with pytest.raises(stage.Stuck, match="did not come back within") as stuck:
        stage.run([busy], wall_limit=0.5)
    assert not isinstance(stuck.value, stage.Limit)


# A budget that ran out ----------------------------------------------------------------------


def test_a_run_that_the_clock_ends_is_a_limit():
    def counts(cache, db):
        while True:
            cache.incr("n")

    with pytest.raises(stage.Limit, match=r"takes longer than 0\.5 s of real time"):
        stage.run([counts, counts], wall_limit=0.5)


def test_a_run_that_the_clock_ends_in_the_middle_of_a_poll_without_an_end_is_the_actors_own():
    def polls(cache, db):
        while cache.get("k") is None:
            pass

    with pytest.raises(stage.Stuck, match=r"takes longer than 0\.5 s of real time") as stuck:
        stage.run([polls] * 40, wall_limit=0.5)
    assert not isinstance(stuck.value, stage.Limit)


def test_an_exploration_that_the_clock_ends_within_an_order_proves_nothing():
    def slow(cache, db):
        for _ in range(500):
            end = time.thread_time() + 0.01
            while time.thread_time() < end:
                pass
            cache.incr("n")
        return 1

    verdict = stage.explore([slow, slow], fine, wall_limit=0.5)
    assert verdict.outcome == "proved nothing"
    assert "takes longer than" in verdict.summary


def test_more_operations_than_one_order_may_have_prove_nothing():
    def stores(cache, db):
        for number in range(1_100):
            cache.set(f"k{number}", number)
        return 1

    verdict = stage.explore([stores, reads], fine)
    assert verdict.outcome == "proved nothing"
    assert "stores does 1,001 operations at one instant" in verdict.summary
    found = stage.explore([stores, writes], lambda world: "no", limit=1)
    assert found.outcome == "proved nothing"


def test_a_loop_that_changes_nothing_and_has_no_end_is_the_actors_own():
    def spins(cache, db):
        while not cache.set("lock", 1, nx=True):
            pass
        return 1

    verdict = stage.explore([spins, spins], fine)
    assert verdict.outcome == "failed"
    assert "goes on for ever" in verdict.summary


# What a judge makes of it -------------------------------------------------------------------


@pytest.mark.parametrize("act", ["play", "every_order"])
def test_a_judge_that_meets_a_limit_of_the_stage_has_proved_nothing(act):
    trial = Trial(find("05_cache_aside.read"))
    invariant = [fine] if act == "every_order" else []
    with pytest.raises(JudgingEnded) as over:
        getattr(trial, act)([waits, writes], *invariant, seconds=0.5)
    assert over.value.verdict.outcome == "proved nothing"
    assert "is not on the stage" in over.value.verdict.summary
