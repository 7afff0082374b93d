"""Tests of the jitter model: golden values, simulated expiries, and jitter that does not help."""

import numpy as np
import pytest
from models_ztest import agrees, contradicts, printed

from cachelab.models import jitter

KEYS, HOUR = 10_000, 3600.0


@pytest.mark.parametrize(("width", "digits"), [(300, "52.8"), (540, "33.8"), (720, "27.4")])
def test_the_expected_peak_has_its_golden_values(width, digits):
    assert printed(jitter.expected_peak(KEYS, width), digits)


def test_without_jitter_all_keys_expire_in_one_instant_in_every_cycle():
    run = jitter.simulate(KEYS, HOUR, 0, cycles=3)
    assert sorted(run.per_bin[run.per_bin > 0]) == [KEYS] * 3
    assert run.peak == jitter.expected_peak(KEYS, 0) == KEYS
    assert run.spread.max() == 0


def test_the_three_forms_shift_the_ttl_as_they_say():
    assert jitter.ttl_range(100, 20) == jitter.TtlRange(100, 110, 120)
    assert jitter.ttl_range(100, 20, "mean-preserving") == jitter.TtlRange(90, 100, 110)
    assert jitter.ttl_range(100, 20, "subtractive") == jitter.TtlRange(80, 90, 100)


@pytest.mark.parametrize("form", jitter.FORMS)
def test_simulated_ttls_stay_in_their_range_and_fill_it(form):
    allowed = jitter.ttl_range(HOUR, 300, form)
    run = jitter.simulate(KEYS, HOUR, 300, form=form)
    assert allowed.longest - 1 < run.longest_ttl <= allowed.longest
    assert allowed.shortest <= run.starts[0] + 1 < allowed.shortest + 2
    mean = (run.starts + 0.5) @ run.per_bin / KEYS
    assert abs(mean - allowed.mean) < 4.5 * 300 / 12**0.5 / KEYS**0.5


def test_only_subtractive_jitter_keeps_the_staleness_bound():
    longest = {
        form: jitter.simulate(KEYS, HOUR, 300, form=form).longest_ttl for form in jitter.FORMS
    }
    assert longest["subtractive"] <= HOUR < longest["mean-preserving"] < longest["additive"]


def test_keys_expire_at_the_rate_n_over_j():
    def rate(seed):
        run = jitter.simulate(KEYS, HOUR, 300, seed=seed)
        return run.per_bin[100:200].mean()

    assert agrees(KEYS / 300, rate)


@pytest.mark.parametrize("width", [300, 540, 720])
def test_the_expected_peak_is_within_eight_percent_of_simulated_peaks(width):
    peaks = [jitter.simulate(KEYS, HOUR, width, seed=seed).peak for seed in range(30)]
    assert jitter.expected_peak(KEYS, width) == pytest.approx(np.mean(peaks), rel=0.08)


@pytest.mark.parametrize("cycles", [1, 10])
def test_the_spread_grows_with_the_square_root_of_the_cycles(cycles):
    assert agrees(
        300 * (cycles / 12) ** 0.5,  # of a random walk with uniform steps
        lambda seed: jitter.simulate(2000, HOUR, 300, cycles=cycles, seed=seed).spread[-1],
    )


@pytest.mark.parametrize("form", jitter.FORMS)
def test_mixed_phases_settle_at_the_long_run_rate(form):
    def rate(seed):  # 60 cycles mix the phases of a TTL that is half jitter; measure later ones
        run = jitter.simulate(200, 100, 50, form=form, cycles=160, seed=seed)
        middle = (run.starts >= 4000) & (run.starts < 10_000)
        return run.per_bin[middle].sum() / 6000

    assert agrees(200 / jitter.ttl_range(100, 50, form).mean, rate)


def test_jitter_in_whole_minutes_keeps_peaks_that_the_formula_does_not_know():
    assert contradicts(
        jitter.expected_peak(KEYS, 300),
        lambda seed: float(jitter.simulate(KEYS, HOUR, 300, step=60, seed=seed).peak),
    )
    assert jitter.simulate(KEYS, HOUR, 300, step=60).peak > KEYS / 5


def test_extremes_give_finite_numbers():
    assert jitter.expected_peak(1, 1e9) <= 1
    assert jitter.expected_peak(KEYS, 0.5) == KEYS
    assert jitter.simulate(1, 0, 0).peak == 1
    assert jitter.simulate(1, 1e9, 10).per_bin.sum() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jitter.ttl_range(10, 20, "subtractive"), "width must be .* at most 10"),
        (lambda: jitter.ttl_range(10, 2, "mixed"), "form must be one of additive"),
        (lambda: jitter.simulate(0, 10, 1), "keys must be a whole number from 1"),
        (lambda: jitter.simulate(10**6, 9, 1, cycles=10**6), "keys . cycles must be .* at most"),
        (lambda: jitter.simulate(2, 10, 1e12), "bins must be .* at most 5e"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).endswith(".")
