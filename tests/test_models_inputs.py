"""Tests of what the models share: events, draws and the walk from miss to miss."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cachelab.models import MODELS, inputs, staleness, ttl, write_back


@pytest.mark.parametrize("pattern", inputs.ARRIVALS)
def test_every_pattern_has_as_many_events_as_asked_at_the_rate_asked(pattern):
    times = inputs.event_times(1, "test", 5.0, 20_001, pattern)
    assert len(times) == 20_001
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(20_001 / 5, rel=0.1)


def test_a_longer_run_begins_with_the_draws_of_a_shorter_one():
    short, long = inputs.uniforms(7, "test", 10), inputs.uniforms(7, "test", 1000)
    assert (short == long[:10]).all()
    assert (inputs.uniforms(8, "test", 10) != short).all()
    assert (inputs.uniforms(7, "other", 10) != short).all()


def test_kept_draws_cannot_be_overwritten():
    for draws in (inputs.uniforms(7, "test", 10), inputs.exponentials(7, "test", 10)):
        with pytest.raises(ValueError, match="read-only"):
            draws[0] = 1


def test_exponential_draws_have_mean_one():
    assert abs(inputs.exponentials(3, "test", 100_000).mean() - 1) < 4.5 / 100_000**0.5


def test_a_walk_follows_the_hops_and_always_ends():
    assert inputs.walk(np.array([2, 9, 3, 5])).tolist() == [0, 2, 3]
    times = np.array([1.0, 1.0, 2.0])
    assert inputs.first_at_or_after(times, times).tolist() == [1, 2, 3]


def test_a_number_may_be_as_large_as_its_limit_and_no_larger():
    assert inputs.number("hit_ratio", 1, "hits per read", high=1) == 1
    assert inputs.count("retries", 20, low=0, high=20) == 20
    for refused in (
        lambda: inputs.number("x", 1.01, "s", high=1),
        lambda: inputs.count("x", 21, high=20),
    ):
        with pytest.raises(ValueError, match=r"^x must be"):
            refused()


def test_draws_are_made_once_and_kept():
    assert inputs.uniforms(7, "test", 10) is inputs.uniforms(7, "test", 10)
    assert inputs.exponentials(7, "test", 10) is inputs.exponentials(7, "test", 10)


def test_what_a_model_found_cannot_be_changed_afterwards():
    found = [
        staleness.ttl_only(1, 10),
        ttl.simulate(1, 10, reads=50),
        write_back.loss(10, 1),
    ]
    for result in found:
        for field in dataclasses.fields(result):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(result, field.name, 0)


def test_every_model_has_a_file_of_tests_of_its_name():
    tested = {
        path.stem.removeprefix("test_models_")
        for path in Path(__file__).parent.glob("test_models_*.py")
    }
    assert set(MODELS) <= tested
