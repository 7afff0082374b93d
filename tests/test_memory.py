"""What a finished run or a large model held is given back: a kernel holds one run, not fifty."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cachelab import stage
from cachelab.models import inputs
from cachelab.patterns import cache_aside
from cachelab.record.trace import Event
from cachelab.stage.scheduler import Task
from cachelab.stage.world import CROWD, World

pytestmark = pytest.mark.slow


def asks_the_database(cache: Any, db: Any) -> Any:
    return cache_aside.read(cache, "user:1", lambda: db.user(1), 300)


def sends_a_pipeline(cache: Any, db: Any) -> Any:
    with cache.pipeline() as pipe:
        pipe.get("a")
        return pipe.execute()


def starts_a_thread(cache: Any, db: Any) -> None:
    threading.Thread(target=lambda: cache.get("a")).start()


def takes_a_lock(cache: Any, db: Any) -> None:
    with cache.lock("lock:a", timeout=5):
        cache.get("a")


def alive(kind: type) -> int:
    """How many objects of this class nobody has freed."""
    return sum(type(found) is kind for found in gc.get_objects())


@pytest.mark.parametrize(
    "play", [asks_the_database, sends_a_pipeline, starts_a_thread, takes_a_lock]
)
def test_the_collector_frees_every_run_that_nobody_holds(play: Callable[..., Any]) -> None:
    stage.run([play] * 2, latency=0.01)  # what is made once and kept, a script say
    gc.collect()
    before = alive(World)
    for _ in range(5):
        stage.run([play] * 2, latency=0.01)
    gc.collect()
    assert alive(World) <= before


def test_the_actors_of_a_run_go_without_waiting_for_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        before = alive(Task)
        run = stage.run([asks_the_database] * 50, latency=0.01)
        assert run.queries == 50
        assert alive(Task) - before < 10  # what looked, before and after
    finally:
        gc.enable()


def test_what_happened_in_a_run_goes_with_its_trace_without_waiting_for_the_collector() -> None:
    stage.run([asks_the_database] * 2)
    gc.collect()
    gc.disable()
    try:
        before = alive(Event)
        run = stage.run([asks_the_database] * 50, latency=0.01)
        assert alive(Event) - before >= len(run) > 100
        del run
        assert alive(Event) - before < 10
    finally:
        gc.enable()


def test_of_many_crowds_only_the_last_two_stay_where_the_collector_does_not_run_by_itself() -> None:
    gc.collect()
    gc.disable()
    try:
        before = alive(World)
        for _ in range(5):
            run = stage.run([lambda: None] * CROWD)
            assert len(run.answers) == CROWD
        assert alive(World) - before <= 2
    finally:
        gc.enable()


def test_a_run_that_is_over_keeps_no_connections_and_opens_one_when_it_is_looked_at() -> None:
    run = stage.run([sends_a_pipeline] * 20)
    world = run.world
    assert not world.store.pool._available_connections
    assert not world.store.pool._in_use_connections
    world.cache.set("a", "seen")
    assert sends_a_pipeline(world.cache, world.db) == ["seen"]


@pytest.mark.parametrize(("size", "kept"), [(1_000, True), (inputs.MOST_KEPT + 1, False)])
def test_draws_are_remembered_for_a_slider_and_not_when_they_are_large(
    size: int, kept: bool
) -> None:
    for draw in (inputs.uniforms, inputs.exponentials):
        first, again = draw(3, "a stream", size), draw(3, "a stream", size)
        assert (first is again) == kept
        assert (first == again).all()
        assert not again.flags.writeable
