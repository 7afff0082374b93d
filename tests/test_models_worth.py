"""Tests of the break-even model: is it worth caching?"""

import math

import pytest
from models_ztest import agrees, contradicts, printed

from cachelab.models import worth


@pytest.mark.parametrize(
    ("cache_ms", "query_ms", "percent"), [(0.5, 4, "22"), (1, 4, "40"), (0.5, 1200, "0.08")]
)
def test_the_break_even_has_its_golden_values(cache_ms, query_ms, percent):
    assert printed(100 * worth.break_even(cache_ms, query_ms, cache_ms), percent)


def test_at_the_break_even_a_read_costs_what_the_query_costs():
    even = worth.break_even(0.5, 4, 0.5)
    assert worth.mean_latency(even, 0.5, 4, 0.5) == pytest.approx(4)
    assert worth.mean_latency(even + 0.01, 0.5, 4, 0.5) < 4 < worth.mean_latency(0, 0.5, 4, 0.5)


def test_fifty_reads_of_4_ms_save_200_ms_a_second_only_if_all_hit_and_lookups_are_free():
    assert worth.saved_per_second(50, 1, 0, 0.004) == pytest.approx(0.2)
    assert worth.saved_per_second(50, 0.7, 0.0005, 0.004, 0.0005) < 0.2 * 0.6
    assert worth.saved_per_second(50, 0.1, 0.0005, 0.004, 0.0005) < 0


def test_the_mean_latency_is_what_simulated_reads_take():
    assert agrees(
        worth.mean_latency(0.8, 0.001, 0.02, 0.003),
        lambda seed: worth.simulate(0.8, 0.001, 0.02, 0.003, seed=seed).cached.mean(),
    )


def test_simulated_reads_save_what_the_form_says():
    assert agrees(
        worth.saved_per_second(1, 0.8, 0.001, 0.02, 0.003),
        lambda seed: worth.simulate(0.8, 0.001, 0.02, 0.003, seed=seed).saved_per_read,
    )


def test_where_the_slow_queries_are_the_ones_that_miss_the_form_promises_too_much():
    assert contradicts(
        worth.mean_latency(0.8, 0.001, 0.02),
        lambda seed: worth.simulate(0.8, 0.001, 0.02, slow_ones_miss=True, seed=seed).cached.mean(),
    )
    unlucky = worth.simulate(0.8, 0.001, 0.02, slow_ones_miss=True)
    assert unlucky.cached.mean() > 2 * worth.mean_latency(0.8, 0.001, 0.02)


def test_a_cache_slower_than_the_query_has_no_break_even_below_one():
    assert worth.break_even(0.002, 0.001) == 2


@pytest.mark.parametrize("hit_ratio", [0, 1])
@pytest.mark.parametrize("query", [0, 1e-9, 1e9])
def test_extremes_give_finite_numbers(hit_ratio, query):
    run = worth.simulate(hit_ratio, 0.001, query, reads=100)
    assert math.isfinite(run.saved_per_read)
    assert math.isfinite(worth.mean_latency(hit_ratio, 0.001, query))
    assert math.isfinite(worth.break_even(0.001, query, 0.001))
    slow = worth.simulate(hit_ratio, 0.001, query, slow_ones_miss=True, reads=100)
    assert math.isfinite(slow.saved_per_read)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: worth.mean_latency(1.1, 1, 1), "hit_ratio must be .* at most 1, got 1.1"),
        (lambda: worth.break_even(1, 0), "query_time . store_time must be .* above 0"),
        (lambda: worth.saved_per_second(-1, 0.5, 1, 1), "read_rate must be"),
        (lambda: worth.simulate(0.5, -1, 1), "cache_time must be"),
        (lambda: worth.simulate(0.5, 1, 1, reads=0), "reads must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).endswith(".")
