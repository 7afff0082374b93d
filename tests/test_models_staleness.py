"""Tests of the staleness model: golden values, simulated reads and writes, and where forms fail."""

import math
import random
from functools import cache

import pytest
from models_ztest import agrees, contradicts, printed

from cachelab.models import staleness


@pytest.mark.parametrize(
    ("writes", "digits"), [(1, "0.3679"), (0.5, "0.2131"), (5, "0.8013"), (1.2, "0.4177")]
)
def test_the_stale_share_has_its_golden_values(writes, digits):
    assert printed(staleness.ttl_only(writes / 10, 10).stale_share, digits)


def test_mean_staleness_and_versions_behind_have_their_golden_values():
    form = staleness.ttl_only(0.1, 10)
    assert printed(form.mean_staleness, "1.3212")
    assert printed(form.versions_behind, "0.5")


def test_the_worst_case_grows_with_additive_jitter_and_a_revalidation_window():
    assert staleness.ttl_only(1, 100).worst == 100
    assert staleness.ttl_only(1, 100, jitter=0.15).worst == pytest.approx(115)
    assert staleness.ttl_only(1, 3600, window=86_400).worst == 25 * 3600


@pytest.mark.parametrize(
    ("rate", "writes", "life", "digits"),
    [(4, 1, None, "0.8"), (4, 1, 1.5, "0.7565"), (7, 3, None, "0.7")],
)
def test_delete_on_write_has_its_golden_values(rate, writes, life, digits):
    assert printed(staleness.hit_ratio_delete_on_write(rate, writes, life), digits)


@pytest.mark.parametrize(("fill", "digits"), [(0.01, "0.0100"), (0.05, "0.0488"), (0.1, "0.0952")])
def test_the_fill_race_has_its_golden_values(fill, digits):
    assert printed(staleness.fill_race(20, 1, fill).probability, digits)


def test_one_write_and_twenty_reads_a_second_poison_an_entry_every_minute_and_a_half():
    assert printed(staleness.fill_race(20, 1, 0.01, single_flight=False).seconds_between, "89")
    assert printed(staleness.fill_race(20, 1, 0.01).seconds_between, "107")


@pytest.mark.parametrize("writes", [0.5, 1, 5])
def test_ttl_only_is_what_simulated_hits_see(writes):
    form = staleness.ttl_only(writes / 10, 10)

    @cache
    def run(seed):
        return staleness.simulate(10, writes / 10, 10, reads=40_000, seed=seed)

    assert agrees(form.stale_share, lambda seed: run(seed).stale_share)
    assert agrees(form.mean_staleness, lambda seed: run(seed).mean_staleness)
    assert agrees(form.versions_behind, lambda seed: run(seed).versions_behind)


def test_no_hit_is_staler_than_the_ttl_and_some_come_close():
    run = staleness.simulate(10, 1, 10)
    assert 9 < run.worst <= staleness.ttl_only(1, 10).worst


@pytest.mark.parametrize(("rate", "writes", "life"), [(4, 1, None), (4, 1, 1.5), (7, 3, None)])
def test_delete_on_write_hits_as_often_as_simulated_and_is_never_stale(rate, writes, life):
    def run(seed):
        result = staleness.simulate(rate, writes, life, delete_delay=0, seed=seed)
        assert result.stale_share == result.poisoned == 0
        return result.hit_ratio

    assert agrees(staleness.hit_ratio_delete_on_write(rate, writes, life), run)


@pytest.mark.parametrize("delay", [0.01, 0.5, 3])
def test_the_stale_share_of_late_deletes_is_what_simulated_hits_see(delay):
    assert agrees(
        staleness.stale_share_delayed(1, delay),
        lambda seed: (
            staleness.simulate(20, 1, delete_delay=delay, reads=40_000, seed=seed).stale_share
        ),
    )


def test_for_long_delays_the_simple_form_of_late_deletes_does_not_hold():
    assert staleness.stale_share_delayed(1, 0.01) == pytest.approx(1 - math.exp(-0.01), rel=0.01)
    assert contradicts(
        1 - math.exp(-1),
        lambda seed: staleness.simulate(20, 1, delete_delay=1, seed=seed).stale_share,
    )


@pytest.mark.parametrize("life", [None, 0.5])
def test_fills_store_an_old_version_as_often_as_the_race_says(life):
    form = staleness.fill_race(20, 1, 0.1, ttl=life)

    @cache
    def run(seed):
        return staleness.simulate(20, 1, life, delete_delay=0, fill_time=0.1, seed=seed)

    assert agrees(form.probability, lambda seed: run(seed).poisoned_share)
    assert agrees(form.per_second, lambda seed: run(seed).poisoned / run(seed).seconds)
    assert agrees(form.probability, lambda seed: run(seed).stale_share)  # of the hits, too


def unprotected_old_fills(seed, reads, writes, fill, seconds):
    """Fills per second that store an old version when every miss fills: event by event."""
    draw = random.Random(seed)
    next_read, next_write, last_write = draw.expovariate(reads), draw.expovariate(writes), -1.0
    started, cached, old = [], False, 0
    while (now := min(next_read, next_write, *(begun + fill for begun in started))) < seconds:
        if now == next_read:
            started += [] if cached else [now]
            next_read += draw.expovariate(reads)
        elif now == next_write:
            last_write, cached = now, False
            next_write += draw.expovariate(writes)
        else:
            old += started.pop(0) < last_write
            cached = True
    return old / seconds


def test_unprotected_fills_race_as_often_as_the_form_says():
    assert agrees(
        staleness.fill_race(20, 1, 0.05, single_flight=False).per_second,
        lambda seed: unprotected_old_fills(seed, 20, 1, 0.05, 500),
    )


def test_unprotected_fills_race_within_five_percent_of_the_form_while_writes_are_rarer_than_fills():
    counted = [unprotected_old_fills(seed, 20, 3, 0.1, 1000) for seed in range(16)]
    form = staleness.fill_race(20, 3, 0.1, single_flight=False).per_second
    assert form == pytest.approx(sum(counted) / 16, rel=0.05)


def test_a_periodic_writer_makes_half_the_hits_stale_where_the_formula_says_0_368():
    def run(seed):
        return staleness.simulate(
            2, 0.1, 10, writes="periodic", reads=40_000, seed=seed
        ).stale_share

    assert contradicts(staleness.ttl_only(0.1, 10).stale_share, run)
    assert sum(run(seed) for seed in range(30)) / 30 == pytest.approx(0.5, abs=0.01)


def test_small_write_rates_join_the_series_without_a_jump():
    for field in ("stale_share", "mean_staleness", "versions_behind"):
        below = getattr(staleness.ttl_only(0.9999e-3, 1), field)
        above = getattr(staleness.ttl_only(1.0001e-3, 1), field)
        assert above == pytest.approx(below, rel=1e-3)
    assert staleness.ttl_only(1e-9, 1).stale_share == pytest.approx(5e-10)
    assert staleness.ttl_only(1e-4, 2).mean_staleness == pytest.approx(2 * (2e-4 / 6 - 4e-8 / 24))
    assert staleness.ttl_only(9e-4, 1).stale_share == pytest.approx(9e-4 / 2 - 8.1e-7 / 6, rel=1e-9)


@pytest.mark.parametrize("writes", [0, 1e-12, 1e12])
@pytest.mark.parametrize("life", [0, 1e-9, 1e9])
def test_extremes_give_finite_numbers(writes, life):
    form = staleness.ttl_only(writes, life)
    assert 0 <= form.stale_share <= 1
    assert 0 <= form.mean_staleness <= life == form.worst
    assert 0 <= staleness.hit_ratio_delete_on_write(5, writes, life) <= 1
    assert 0 <= staleness.stale_share_delayed(writes, life) <= 0.5
    race = staleness.fill_race(5, writes, life, ttl=1)
    assert 0 <= race.probability <= 1
    assert math.isfinite(race.per_second)
    assert race.seconds_between > 0


def test_without_reads_or_writes_nothing_is_stale():
    assert staleness.ttl_only(0, 60) == staleness.Staleness(0, 0, 0, 60)
    assert staleness.hit_ratio_delete_on_write(0, 0) == 0
    assert staleness.hit_ratio_delete_on_write(5, 0) == 1
    assert staleness.fill_race(5, 0, 1).seconds_between == math.inf
    assert staleness.fill_race(0, 5, 1).per_second == 0
    assert staleness.fill_race(5, 1, 0).per_second == 0
    assert staleness.simulate(10, 0, 5, reads=500).stale_share == 0
    assert staleness.simulate(0, 0, 5, reads=500).hits == 0
    assert staleness.simulate(10, 5, 0, reads=500).hits == 0
    assert staleness.simulate(10, 0, None, reads=500).fills == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: staleness.ttl_only(-1, 5), "write_rate must be a finite number of writes/s"),
        (lambda: staleness.stale_share_delayed(1, -1), "delay must be"),
        (lambda: staleness.fill_race(1, 1, math.inf), "fill_time must be"),
        (lambda: staleness.simulate(1, 1e9), "writes must be .* at most 2e"),
        (lambda: staleness.simulate(1, 1, writes="rarely"), "arrivals must be one of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).endswith(".")
