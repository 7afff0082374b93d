"""Tests of the TTL model: golden values, formulas against simulated reads, and where they fail."""

import math
from itertools import pairwise

import pytest
from models_ztest import agrees, contradicts, printed

from cachelab.models import ttl


@pytest.mark.parametrize(
    ("rate", "life", "digits"),
    [(0.5, 1, "0.33333"), (1, 5, "0.83333"), (100, 6, "0.99834"), (1, 7.5, "0.88235")],
)
def test_the_hit_ratio_of_a_fixed_ttl_has_its_golden_values(rate, life, digits):
    assert printed(ttl.hit_ratio(rate, life), digits)


def test_seventy_percent_needs_seven_thirds_reads_per_ttl():
    assert ttl.reads_per_ttl(0.7) == pytest.approx(7 / 3)
    assert ttl.hit_ratio(7 / 3, 1) == pytest.approx(0.7)


def test_one_second_is_no_over_caching_at_a_thousand_reads_a_second():
    assert printed(ttl.hit_ratio(1000, 1), "0.999")


@pytest.mark.parametrize(
    ("rate", "life", "query", "digits"), [(10, 5, 3, "0.012346"), (1, 10, 0.5, "0.086957")]
)
def test_single_flight_queries_have_their_golden_values(rate, life, query, digits):
    assert printed(ttl.origin_ratio_single_flight(rate, life, query), digits)


@pytest.mark.parametrize(("rate", "life"), [(0.5, 1), (1, 5), (100, 6)])
def test_the_hit_ratio_of_a_fixed_ttl_is_what_simulated_reads_meet(rate, life):
    assert agrees(
        ttl.hit_ratio(rate, life), lambda seed: ttl.simulate(rate, life, seed=seed).hit_ratio
    )


def test_of_a_random_ttl_only_the_mean_counts():
    assert agrees(
        ttl.hit_ratio(1, 5 * 1.5), lambda seed: ttl.simulate(1, 5, jitter=1, seed=seed).hit_ratio
    )


@pytest.mark.parametrize(("rate", "life", "query"), [(10, 5, 3), (1, 10, 0.5)])
def test_single_flight_queries_and_waiters_are_what_simulated_reads_meet(rate, life, query):
    assert agrees(
        ttl.origin_ratio_single_flight(rate, life, query),
        lambda seed: ttl.simulate(rate, life, query_time=query, seed=seed).origin_ratio,
    )
    assert agrees(
        ttl.delayed_ratio_single_flight(rate, life, query),
        lambda seed: ttl.simulate(rate, life, query_time=query, seed=seed).delayed_ratio,
    )


def test_jitter_does_not_shrink_the_stampede_of_one_key():
    rate, life, query = 10, 60, 1

    def size(seed):
        run = ttl.simulate(rate, life, query_time=query, jitter=0.15, seed=seed)
        return 1 + run.delayed / run.queries

    assert agrees(1 + rate * query, size)


def test_periodic_reads_hit_four_times_in_five_where_the_poisson_formula_says_0_818():
    run = ttl.simulate(1, 4.5, arrivals="periodic")
    assert run.hit_ratio == 0.8
    assert printed(ttl.hit_ratio(1, 4.5), "0.818")


def test_reads_in_bursts_hit_more_than_the_poisson_formula_says():
    assert contradicts(
        ttl.hit_ratio(1, 5),
        lambda seed: ttl.simulate(1, 5, arrivals="bursts", seed=seed).hit_ratio,
    )


def test_a_periodic_read_at_the_moment_of_expiry_is_a_miss():
    assert ttl.simulate(1, 4, arrivals="periodic").hit_ratio == 3 / 4


@pytest.mark.parametrize("rate", [0, 1e-9, 1e9])
@pytest.mark.parametrize("life", [0, 1e-9, 1e9])
@pytest.mark.parametrize("query", [0, 1e9])
def test_every_ratio_stays_between_0_and_1_at_the_extremes(rate, life, query):
    runs = [
        ttl.simulate(rate, life, query_time=query, reads=500),
    ]
    ratios = [
        ttl.hit_ratio(rate, life),
        ttl.origin_ratio_single_flight(rate, life, query),
        ttl.delayed_ratio_single_flight(rate, life, query),
        *(run.hit_ratio for run in runs),
        *(run.delayed_ratio for run in runs),
    ]
    assert all(0 <= ratio <= 1 for ratio in ratios)


def test_a_key_that_is_never_cached_or_never_read_has_no_hits():
    assert ttl.hit_ratio(5, 0) == ttl.hit_ratio(0, 5) == 0
    assert ttl.simulate(5, 0).hit_ratio == 0
    assert ttl.simulate(0, 5).hit_ratio == 0
    assert ttl.origin_ratio_single_flight(0, 5, 1) == 1


def test_a_key_that_never_expires_is_queried_once():
    run = ttl.simulate(1, 1e9, query_time=2, reads=1000)
    assert (run.reads, run.queries) == (1000, 1)


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
def test_an_impossible_ttl_is_refused_in_one_sentence(bad):
    for call in (ttl.hit_ratio, ttl.simulate):
        with pytest.raises(
            ValueError, match=r"^(mean_)?ttl must be a finite number of seconds.*\.$"
        ):
            call(1, bad)


def test_a_hit_ratio_of_one_needs_endless_reads_and_is_refused():
    with pytest.raises(ValueError, match=r"hit_ratio must be"):
        ttl.reads_per_ttl(1)


def test_an_unknown_arrival_pattern_is_refused_by_name():
    with pytest.raises(ValueError, match="arrivals must be one of poisson, periodic, bursts"):
        ttl.simulate(1, 1, arrivals="monthly")


def test_a_slightly_longer_ttl_meets_the_same_reads():
    ratios = [ttl.simulate(1, life / 100, reads=5000).hit_ratio for life in range(500, 520)]
    steps = [abs(after - before) for before, after in pairwise(ratios)]
    assert max(steps) < 0.004
    assert ttl.simulate(1, 5, seed=3) == ttl.simulate(1, 5, seed=3) != ttl.simulate(1, 5, seed=4)
