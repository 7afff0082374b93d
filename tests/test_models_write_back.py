"""Tests of the write-back model: what a crash loses."""

import math
from functools import cache

import pytest
from models_ztest import agrees, contradicts, printed

from cachelab.models import write_back


def test_the_loss_has_its_golden_values():
    assert write_back.loss(500, 5) == write_back.Loss(1250, 2500)
    assert write_back.loss(500, 5, flush_time=0.5).worst == 2750
    assert printed(write_back.loss_by_batch(100).mean, "49.5")
    assert write_back.loss_by_batch(100).worst == 99


def test_coalescing_has_its_golden_values():
    form = write_back.coalescing(500, 5, 1000)
    assert printed(form.rows_per_flush, "917.92")
    assert printed(form.dirty_keys_lost, "633")
    assert form.saving == pytest.approx(2500 / form.rows_per_flush)


def test_a_crash_loses_what_the_form_says():
    assert agrees(
        write_back.loss(500, 5).mean,
        lambda seed: write_back.simulate(500, 5, intervals=40, seed=seed).lost.mean(),
    )


def test_no_crash_loses_more_than_an_interval_of_writes():
    run = write_back.simulate(500, 5, intervals=200)
    worst = write_back.loss(500, 5).worst
    assert 0.9 * worst < run.lost.max() < worst + 4.5 * worst**0.5


@pytest.mark.parametrize("keys", [1000, 100, 20_000])
def test_coalescing_is_what_simulated_flushes_write_and_lose(keys):
    form = write_back.coalescing(500, 5, keys)

    @cache
    def run(seed):
        return write_back.simulate(500, 5, keys, intervals=40, seed=seed)

    assert agrees(form.rows_per_flush, lambda seed: run(seed).rows.mean())
    assert agrees(form.dirty_keys_lost, lambda seed: run(seed).dirty.mean())
    assert agrees(form.saving, lambda seed: run(seed).saving)


def test_flushing_by_batch_loses_half_a_batch_on_average():
    assert agrees(
        write_back.loss_by_batch(100).mean,
        lambda seed: write_back.simulate_batch(100, seed=seed).mean(),
    )
    assert write_back.simulate_batch(100).max() == write_back.loss_by_batch(100).worst
    assert write_back.simulate_batch(1).max() == write_back.loss_by_batch(1).mean == 0


def test_with_popular_keys_a_flush_writes_fewer_rows_than_the_form_says():
    assert contradicts(
        write_back.coalescing(500, 5, 1000).rows_per_flush,
        lambda seed: write_back.simulate(500, 5, 1000, skew=1, seed=seed).rows.mean(),
    )
    skewed, even = (write_back.simulate(500, 5, 1000, skew=skew) for skew in (1, 0))
    assert skewed.saving > even.saving


def test_popular_keys_are_drawn_by_zipf_and_fill_as_many_rows_as_their_shares_say():
    weights = [1 / rank for rank in range(1, 21)]
    per_flush = [50 * weight / sum(weights) for weight in weights]
    rows = sum(1 - math.exp(-writes) for writes in per_flush)

    def run(seed):
        return write_back.simulate(50, 1, 20, skew=1, intervals=200, seed=seed).rows.mean()

    assert agrees(rows, run)


def test_in_each_crash_the_dirty_keys_are_among_the_lost_writes_and_the_rows():
    run = write_back.simulate(50, 1, 20, intervals=200)
    assert (run.dirty <= run.lost).all()
    assert (run.dirty <= run.rows).all()
    assert ((run.dirty > 0) == (run.lost > 0)).all()


def test_small_rates_join_the_series_without_a_jump():
    below = write_back.coalescing(0.9999e-6, 1, 1)
    above = write_back.coalescing(1.0001e-6, 1, 1)
    assert above.dirty_keys_lost == pytest.approx(below.dirty_keys_lost, rel=1e-3)
    assert above.saving == pytest.approx(below.saving, rel=1e-9)
    assert write_back.coalescing(1e-6, 0.9, 1).saving - 1 == pytest.approx(4.5e-7, rel=1e-3)


@pytest.mark.parametrize("rate", [0, 1e-9, 1e12])
@pytest.mark.parametrize("every", [0, 1e-9, 1e6])
@pytest.mark.parametrize("keys", [1, 10_000_000])
def test_extremes_give_finite_numbers(rate, every, keys):
    loss, form = write_back.loss(rate, every), write_back.coalescing(rate, every, keys)
    assert 0 <= loss.mean <= loss.worst < math.inf
    assert 0 <= form.dirty_keys_lost <= form.rows_per_flush <= keys
    assert 1 <= form.saving < math.inf


def test_without_writes_nothing_is_lost():
    run = write_back.simulate(0, 5, 10)
    assert run.lost.sum() == run.dirty.sum() == run.rows.sum() == run.saving == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: write_back.loss(-1, 5), "write_rate must be"),
        (lambda: write_back.loss_by_batch(0), "batch must be a whole number"),
        (lambda: write_back.coalescing(1, 1, 0), "keys must be a whole number"),
        (lambda: write_back.simulate(1, 0), "flush_every must be .* above 0"),
        (lambda: write_back.simulate(1e9, 1e9), "writes must be .* at most 1e"),
        (lambda: write_back.simulate(1, 1, 10**7), "keys . intervals must be .* at most 2e"),
        (lambda: write_back.simulate(1, 1, skew=-1), "skew must be"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).endswith(".")
