"""The search that leaves orders out reaches every end of the search that leaves none out."""

from __future__ import annotations

import os

import programs
import pytest

from cachelab.stage import search
from cachelab.stage.orders import dependent

SHARD = 1_000
# How many programs `make test-more` tries, of which `make test` has had the first hundred.
MANY = int(os.environ.get("CACHELAB_PROGRAMS", "1000"))


def every_loss(seeds, most=3):
    """What the pruned search loses of these programs, the first few."""
    found = []
    for seed in seeds:
        loss = programs.lost(programs.draw(seed))
        if loss is not None:
            found.append(f"program {seed}: {loss}")
        if len(found) == most:
            break
    return found


@pytest.mark.parametrize("first", range(0, 100, 50))
def test_pruning_loses_no_end_of_a_program(first):
    assert every_loss(range(first, first + 50)) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(100, MANY, 300))
def test_pruning_loses_no_end_of_many_programs(first):
    assert every_loss(range(first, min(first + 300, MANY))) == []


def test_the_programs_have_every_operation_and_every_thing_that_may_go_wrong():
    drawn = [programs.draw(seed) for seed in range(1_000)]
    used = {name for each in drawn for one in each.actors.values() for name, *_ in one}
    assert used == set(programs.OPERATIONS)
    assert {fault for each in drawn for fault in each.faults} == set(programs.FAULTS)
    assert {tuple(each.options.items()) for each in drawn} >= set(programs.OPTIONS)


MET_ONCE = [
    # A lock that is only tried meets it where it is given back, too.
    {"x": [("with_a_lock", "p")], "y": [("with_a_lock_if_free", "a")]},
    # What a script touches may hang on what another has written.
    {
        "x": [("thread", "b"), ("script_writes_where_a_key_says",)],
        "y": [("get", "a"), ("append", "p")],
    },
]


@pytest.mark.parametrize("actors", MET_ONCE)
def test_pruning_loses_no_end_of_a_program_that_it_once_lost(actors):
    assert programs.lost(programs.Program(actors, threads=True)) is None


def test_commands_that_a_fault_counts_do_not_commute():
    actors = {"x": [("get", "p"), ("set", "b")], "y": [("get", "a"), ("set", "b")]}
    slow = programs.Program(actors, faults=[("SlowCommand", "GET", 0.2, 1)])
    assert programs.lost(slow) is None
    assert programs.ends(slow)[1].orders == programs.ends(slow, prune=False)[1].schedules


# Planted holes ------------------------------------------------------------------------------------

HOLES = {
    "a key that is read": lambda space, item, writes: space == "cache" and item and not writes,
    "a key that is written": lambda space, item, writes: space == "cache" and item and writes,
    "the whole cache": lambda space, item, writes: space == "cache" and item is None,
    "a hash": lambda space, item, writes: space == "cache" and item == "h",
    "a channel": lambda space, item, writes: space == "channel",
    # To threads of one process their memory matters as well, a lock being part of that.
    "a lock": lambda space, item, writes: (
        space == "memory" or (space == "lock" and item != "writer")
    ),
    "the memory of a process": lambda space, item, writes: space == "memory",
    "a row that is read": lambda space, item, writes: space.startswith("table") and not writes,
    "a row that is written": lambda space, item, writes: space.startswith("table") and writes,
    "a whole table": lambda space, item, writes: space.startswith("table") and item is None,
    "the permissions": lambda space, item, writes: space == "table permissions",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("hole", HOLES)
def test_a_planted_hole_is_found_within_a_thousand_programs(hole, monkeypatch):
    drops = HOLES[hole]

    def holed(a, b):
        return dependent(
            *(tuple(touch for touch in label if not drops(*touch)) for label in (a, b))
        )

    monkeypatch.setattr(search, "dependent", holed)
    assert every_loss(range(SHARD), most=1)
