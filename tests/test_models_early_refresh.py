"""Tests of the early refresh (XFetch) model."""

import math
from functools import cache

import pytest
from models_ztest import agrees, contradicts, printed

from cachelab.models import early_refresh as early


@pytest.mark.parametrize(("beta", "digits"), [(1, "2.718"), (2, "1.649"), (0.5, "7.389")])
def test_the_mean_stampede_is_e_to_the_inverse_of_beta(beta, digits):
    assert printed(early.mean_started(beta), digits)


@pytest.mark.parametrize(
    ("rate", "beta", "digits"), [(100, 1, "5.182"), (1000, 1, "7.485"), (1000, 2, "16.356")]
)
def test_the_mean_lead_has_its_golden_values(rate, beta, digits):
    assert printed(early.mean_lead(rate, 1000, 1, beta), digits)


@pytest.mark.parametrize(("rate", "digits"), [(1, "0.3679"), (0.1, "0.905")])
def test_cold_keys_are_missed_as_often_as_the_golden_values_say(rate, digits):
    assert printed(early.none_early(rate, 1000, 1), digits)


def test_the_lead_and_the_misses_are_those_of_the_distribution_added_up_finely():
    for rate, life in ((0.5, 3), (4, 1), (50, 8)):
        steps = 200_000
        dt, none, lead = life / steps, 1.0, 0.0
        for step in range(steps):  # from the fill to the expiry
            left = life - (step + 0.5) * dt
            refresh = rate * math.exp(-left / (0.7 * 1.5)) * dt
            lead += none * refresh * left
            none *= 1 - refresh
        assert early.none_early(rate, life, 0.7, 1.5) == pytest.approx(none, rel=1e-3)
        assert early.mean_lead(rate, life, 0.7, 1.5) == pytest.approx(lead, rel=1e-3)


CASES = [(100, 20, 1, 1.0), (100, 40, 1, 2.0), (100, 20, 1, 0.5)]


@pytest.mark.parametrize("case", CASES)
def test_refreshes_start_as_often_and_as_early_as_the_forms_say(case):
    @cache
    def run(seed):
        return early.simulate(*case, reads=100_000, seed=seed)

    assert agrees(early.mean_started(case[3]), lambda seed: run(seed).mean_started)
    assert agrees(early.mean_lead(*case), lambda seed: run(seed).mean_lead)


def none_early(run):
    return run.none_early / run.cycles


@pytest.mark.parametrize("rate", [1, 0.1])
def test_cold_keys_expire_unrefreshed_as_often_as_the_form_says(rate):
    assert agrees(
        early.none_early(rate, 10, 1),
        lambda seed: none_early(early.simulate(rate, 10, 1, reads=5000, seed=seed)),
    )


def test_a_lock_around_the_refresh_makes_it_exactly_one():
    run = early.simulate(100, 20, 1, locked=True)
    assert run.mean_started == 1
    assert run.cycles > 10


def test_refreshing_early_costs_the_share_of_the_ttl_that_the_lead_is():
    lead = early.mean_lead(100, 20, 1)
    assert early.origin_load_factor(100, 20, 1) == 20 / (20 - lead) > 1.3


def test_reads_in_bursts_expire_unrefreshed_more_often_than_the_form_says():
    assert contradicts(
        early.none_early(2, 10, 1),
        lambda seed: none_early(
            early.simulate(2, 10, 1, arrivals="bursts", reads=10_000, seed=seed)
        ),
    )


def test_on_a_cold_key_the_stampede_is_not_e():
    assert contradicts(
        early.mean_started(1),
        lambda seed: early.simulate(0.5, 10, 1, reads=5000, seed=seed).mean_started,
    )


@pytest.mark.parametrize("rate", [0, 1e-9, 1e9])
@pytest.mark.parametrize("life", [0, 1e-6, 1e6])
@pytest.mark.parametrize("query", [1e-6, 1, 1e6])
@pytest.mark.parametrize("beta", [0.01, 100])
def test_extremes_give_finite_numbers(rate, life, query, beta):
    assert 0 <= early.none_early(rate, life, query, beta) <= 1
    assert -1e-6 * life <= early.mean_lead(rate, life, query, beta) <= life * (1 + 1e-6)
    if life:
        assert 1 - 1e-9 <= early.origin_load_factor(rate, life, query, beta) < math.inf
    run = early.simulate(rate, life, query, beta, reads=300)
    assert math.isfinite(run.mean_lead)
    assert run.mean_started == 0 or 1 <= run.mean_started <= 300


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: early.none_early(1, 1, 0), "query_time must be .* above 0"),
        (lambda: early.mean_started(0), "beta must be .* above 0"),
        (lambda: early.mean_started(1e-9), "1 / beta must be .* at most 700"),
        (lambda: early.origin_load_factor(1, 0, 1), "ttl must be .* above 0"),
        (lambda: early.simulate(-1, 1, 1), "read_rate must be"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).endswith(".")
