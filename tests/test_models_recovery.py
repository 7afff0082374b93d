"""Tests of the database model: waiting, a lost cache, and retries that keep it down."""

import numpy as np
import pytest
from models_ztest import printed

from cachelab.models import recovery


@pytest.mark.parametrize(
    ("hit_ratio", "digits"), [(0.7, "3.3"), (0.9, "10"), (0.95, "20"), (0.99, "100")]
)
def test_losing_the_cache_multiplies_the_load_by_its_golden_values(hit_ratio, digits):
    assert printed(recovery.surge(hit_ratio), digits)


def test_a_database_that_was_a_tenth_busy_does_not_survive_the_loss_of_a_95_percent_cache():
    lost = recovery.cache_lost(2000, 0.95, 0.01, 10)
    assert (lost.before, lost.after) == (pytest.approx(0.1), 2)
    assert not lost.survives
    assert recovery.cache_lost(900, 0.99, 0.01, 10).survives


def test_the_surge_is_what_simulated_reads_bring_to_the_database():
    rng = np.random.default_rng(0)
    queries = np.count_nonzero(rng.random(1_000_000) >= 0.9)
    # 100,000 queries expected, standard deviation 300: 4.5 of them is a false alarm of 1e-5
    assert abs(1_000_000 / recovery.surge(0.9) - queries) < 4.5 * 300


def test_the_retry_band_runs_from_the_cold_load_with_retries_to_the_warm_load_without():
    low, high = recovery.retry_trap(400, 0.9, 2)
    assert low == pytest.approx(400 / 3)
    assert high == pytest.approx(4000)


@pytest.mark.parametrize("retries", [0, 1, 2, 4])
def test_above_the_band_edge_an_outage_outlives_its_trigger_and_below_it_ends(retries):
    low, _ = recovery.retry_trap(400, 0.9, retries)

    def comes_back(rate):
        return recovery.simulate_outage(rate, 400, 0.9, retries, seconds=600).recovered

    assert comes_back(0.9 * low)
    assert not comes_back(1.1 * low)


def test_a_cold_cache_alone_is_survived_where_the_outage_is_not():
    assert recovery.simulate_outage(200, 400, 0.9, outage=0).recovered
    assert not recovery.simulate_outage(200, 400, 0.9, outage=5).recovered


def test_recovered_means_answered_and_warm_at_the_end():
    def ends(answered, warm):
        state = np.array([1.0, 1.0, answered]), np.array([1.0, 1.0, warm])
        return recovery.Outage(np.arange(3.0), np.zeros(3), np.zeros(3), *state).recovered

    assert ends(1, 0.95)
    assert not ends(1, 0.5)
    assert not ends(0, 0.95)


def test_each_retry_comes_one_patience_after_the_try_before():
    run = recovery.simulate_outage(200, 400, 0.9, retries=2)
    assert run.offered[100:110] == pytest.approx(200)
    assert run.offered[110:120] == pytest.approx(400)
    assert run.offered[120:140] == pytest.approx(600)


def test_only_shedding_load_ends_it():
    down = recovery.simulate_outage(200, 400, 0.9, seconds=300)
    shed = recovery.simulate_outage(200, 400, 0.9, seconds=300, shed=(30, 60), shed_to=0.1)
    assert not down.recovered
    assert down.offered[-1] == pytest.approx(600)
    assert down.wait[-1] > down.wait[1000] > 1
    assert shed.recovered
    assert shed.warm[-1] > 0.99
    assert shed.wait[-1] == 0


def test_before_the_trigger_the_warm_system_is_at_rest():
    run = recovery.simulate_outage(200, 400, 0.9)
    before = run.seconds < 10
    assert run.offered[before] == pytest.approx(20)
    assert run.answered[before].all()
    assert not run.wait[before].any()
    assert run.wait[100] == pytest.approx(5)
    assert run.wait[110] == pytest.approx(4 + run.offered[100:110].sum() * 0.1 / 400)
    assert run.warm[99] == 1 > run.warm[100]


def test_a_patient_step_warms_the_keys_that_it_answers():
    run = recovery.simulate_outage(100, 400, 0.5, outage=0, keys=1000)
    assert run.warm[100] == pytest.approx(100 * 0.1 * 0.5 / 1000)
    assert run.warm[101] == pytest.approx(0.005 + 0.005 * (1 - 0.005))
    assert run.offered[101] == pytest.approx(100 * (1 - 0.5 * 0.005))


def test_extremes_of_an_outage_give_finite_numbers():
    for rate, capacity in ((0, 1), (1e9, 1e-6), (1e-9, 1e9)):
        run = recovery.simulate_outage(rate, capacity, 1)
        assert np.isfinite([run.offered, run.wait, run.answered, run.warm]).all()
    assert recovery.cache_lost(0, 0, 0, 1) == recovery.CacheLost(0, 0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recovery.cache_lost(1, 0.5, 1, 0), "slots must be a whole number"),
        (lambda: recovery.surge(1), "hit_ratio must be"),
        (lambda: recovery.retry_trap(1, 0.5, -1), "retries must be a whole number from 0"),
        (lambda: recovery.simulate_outage(1, 0, 0.5), "capacity must be .* above 0"),
        (lambda: recovery.simulate_outage(1, 1, 0.5, seconds=9), "seconds must be .* above 10"),
        (lambda: recovery.simulate_outage(1, 1, 0.5, patience=1e9), "patience must be .* at most"),
        (lambda: recovery.simulate_outage(1, 1, 0.5, seconds=1e9), "seconds must be .* at most"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"hit_ratio": 1.5}, r"hit_ratio must be .* at most 1, got 1\.5"),
        ({"shed_to": 1.5}, r"shed_to must be .* at most 1, got 1\.5"),
        ({"keys": 0}, r"keys must be .* above 0, got 0"),
    ],
)
def test_shares_above_one_and_a_cache_of_no_keys_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        recovery.simulate_outage(**({"read_rate": 1, "capacity": 1, "hit_ratio": 0.5} | shares))
