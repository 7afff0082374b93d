"""An order that somebody has written down is played exactly, or refused in one sentence."""

from __future__ import annotations

import json

import pytest
from actors import delete_after_commit as writer
from actors import reader

from cachelab import stage
from cachelab.stage.replay import Impossible, replay

ACTORS = {"reader": reader, "writer": writer}
BAD = ["reader GET", "reader SELECT", "writer UPDATE", "writer DEL", "reader SET"]


def kept(trace):
    stored = trace.world.cache.get("user:1")
    return stored and json.loads(stored)["email"]


def test_the_order_that_is_written_is_the_order_that_happens():
    trace = replay(ACTORS, BAD)
    done = [f"{e.actor} {e.what}" for e in trace if e.what != "COMMIT"]
    assert done == BAD
    assert kept(trace) == "alice@example.org"
    assert replay(ACTORS, BAD).to_json() == trace.to_json()


def test_it_is_the_order_that_the_search_finds():
    found = stage.explore(
        ACTORS, lambda world: world.cache.get("user:1") is None or "stale", commit_apart=True
    )
    order = [f"{e.actor} {e.what}" for e in found.counterexample]
    again = replay(ACTORS, order, commit_apart=True)
    assert again.to_json() == found.counterexample.to_json()


def test_a_name_alone_is_the_next_operation_of_that_actor():
    trace = replay(ACTORS, [step.split()[0] for step in BAD])
    assert kept(trace) == "alice@example.org"


def test_the_commit_is_a_step_of_its_own_when_that_is_asked_for():
    apart = [*BAD[:3], "reader SET", "writer COMMIT", "writer DEL"]
    assert kept(replay(ACTORS, apart, commit_apart=True)) is None


def test_setup_comes_first_and_off_the_record():
    trace = replay(ACTORS, ["reader GET", *BAD[2:4]], setup=reader)
    assert (trace.hits, trace.queries) == (1, 0)


@pytest.mark.parametrize(
    ("order", "step", "said"),
    [
        (["reader GET", "reader SET"], 2, "reader cannot SET there: its next operation is SELECT"),
        (BAD[:4], 5, "the order ends while reader still has something to do"),
        (["reader GET"], 2, "the order ends while reader and writer still have something to do"),
        ([*BAD, "writer DEL"], 6, "writer has finished, after its DEL"),
        (["auditor GET"], 1, "there is no auditor among reader, writer"),
    ],
)
def test_an_order_that_cannot_be_is_refused_at_its_first_impossible_step(order, step, said):
    with pytest.raises(Impossible) as refused:
        replay(ACTORS, order)
    assert (refused.value.step, str(refused.value)) == (step, said)


def test_an_actor_that_has_finished_early_is_said_to_have():
    with pytest.raises(Impossible, match="reader has finished, after its GET hit"):
        replay(ACTORS, ["reader GET", "reader SELECT"], setup=reader)


def test_a_writer_that_has_to_wait_for_a_commit_cannot_go_on():
    def other(cache, db):
        db.update_user(1, name="Other")

    actors = {"writer": writer, "other": other}
    with pytest.raises(Impossible, match="other waits for another's commit"):
        replay(actors, ["writer UPDATE", "other UPDATE"], commit_apart=True)
