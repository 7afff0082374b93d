"""Tests of the stale-while-revalidate model."""

import math

import pytest
from models_ztest import agrees, contradicts, printed

from cachelab.models import revalidate

CASES = [(1, 10, 2, 0.0), (1, 10, 2, 0.5)]


@pytest.mark.parametrize(
    ("case", "blocking", "origin", "stale"),
    [
        (CASES[0], "0.01230", "0.09091", "0.0786"),
        (CASES[1], "0.01184", "0.08747", "0.11345"),
    ],
)
def test_the_fractions_have_their_golden_values(case, blocking, origin, stale):
    form = revalidate.fractions(*case)
    assert printed(form.blocking, blocking)
    assert printed(form.origin, origin)
    assert printed(form.stale, stale)


def test_one_hour_of_max_age_and_a_day_of_window_permit_25_hours():
    assert revalidate.fractions(1, 3600, 86_400).worst_age == 25 * 3600
    assert revalidate.fractions(1, 3600, 86_400, 2).worst_age == 25 * 3600 + 2
    assert revalidate.fractions(1, 3600, 0, 2).worst_age == 3600


@pytest.mark.parametrize("case", [*CASES, (5, 2, 0.1, 3.0), (5, 2, 0.0, 3.0)])
@pytest.mark.parametrize("field", ["blocking", "origin", "stale"])
def test_the_fractions_are_what_simulated_reads_meet(case, field):
    assert agrees(
        getattr(revalidate.fractions(*case), field),
        lambda seed: getattr(revalidate.simulate(*case, seed=seed), field),
    )


def test_periodic_reads_inside_the_window_never_block_where_the_formula_says_they_do():
    assert revalidate.simulate(1, 10.5, 2, arrivals="periodic").blocked == 1  # the cold start
    assert contradicts(
        revalidate.fractions(1, 10, 2).blocking,
        lambda seed: revalidate.simulate(1, 10, 2, arrivals="bursts", seed=seed).blocking,
    )


def test_no_stale_answer_is_older_than_ttl_window_and_query_time():
    run = revalidate.simulate(1, 10, 2, 0.5)
    assert 12 < run.oldest <= revalidate.fractions(1, 10, 2, 0.5).worst_age


def test_without_a_window_it_is_a_plain_ttl():
    form = revalidate.fractions(3, 5, 0, 2)
    assert form.stale == 0
    assert form.blocking == form.origin == 1 / 16
    assert revalidate.simulate(3, 5, 0, 2).served_stale == 0


@pytest.mark.parametrize("rate", [0, 1e-9, 1e9])
@pytest.mark.parametrize("life", [0, 1e9])
@pytest.mark.parametrize("window", [0, 1e9])
@pytest.mark.parametrize("query", [0, 1e9])
def test_extremes_give_shares_between_0_and_1(rate, life, window, query):
    run = revalidate.simulate(rate, life, window, query, reads=300)
    form = revalidate.fractions(rate, life, window, query)
    for result in (run, form):
        assert 0 <= result.blocking <= result.origin <= 1
        assert 0 <= result.stale <= 1
    assert math.isfinite(run.oldest)


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
def test_an_impossible_window_is_refused_in_one_sentence(bad):
    for call in (revalidate.fractions, revalidate.simulate):
        with pytest.raises(ValueError, match=r"^window must be a finite number of seconds.*\.$"):
            call(1, 10, bad)


def test_a_run_too_short_for_a_second_fetch_counts_the_one_that_blocked():
    assert revalidate.simulate(1, 10, 2, reads=1) == revalidate.RevalidationRun(1, 1, 1, 0, 0.0)
    # Reads at 1, 2, 3 s; fresh until 2.5 s: the third is served stale and starts the second fetch.
    two = revalidate.simulate(1, 1.5, 5, arrivals="periodic", reads=3)
    assert two == revalidate.RevalidationRun(2, 1, 1, 0, 0.0)


def test_unless_told_a_query_takes_no_time():
    assert revalidate.simulate(1, 10, 2) == revalidate.simulate(1, 10, 2, 0.0)
    assert revalidate.fractions(1, 10, 2) == revalidate.fractions(1, 10, 2, 0.0)
