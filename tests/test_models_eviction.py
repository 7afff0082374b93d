"""Tests of the eviction model: Che's approximation against simulated caches."""

import numpy as np
import pytest
from models_ztest import agrees, contradicts, printed

from cachelab.models import eviction

SHARES = eviction.popularity(20_000, 0.8)


@pytest.mark.parametrize(("policy", "digits"), [("lru", "0.34500"), ("fifo", "0.30800")])
def test_che_has_its_golden_values(policy, digits):
    assert printed(eviction.che_hit_ratio(SHARES, 1000, policy), digits)


def test_fifo_and_random_share_one_form():
    fifo = eviction.che_hit_ratio(SHARES, 1000, "fifo")
    assert fifo == eviction.che_hit_ratio(SHARES, 1000, "random")


@pytest.mark.parametrize("policy", ["lru", "fifo"])
def test_a_million_requests_hit_within_a_tenth_of_a_point_of_che(policy):
    requests = eviction.zipf_requests(20_000, 0.8, 1_000_000, seed=1)
    run = eviction.simulate(policy, requests, 1000)
    assert run.hit_ratio == pytest.approx(eviction.che_hit_ratio(SHARES, 1000, policy), abs=1e-3)


@pytest.mark.parametrize("policy", ["lru", "fifo", "random"])
def test_simulated_caches_hit_as_often_as_che_says(policy):
    shares = eviction.popularity(5000, 0.8)

    def run(seed):
        requests = eviction.zipf_requests(5000, 0.8, 20_000, seed=seed)
        return eviction.simulate(policy, requests, 500, warm_up=5000, seed=seed).hit_ratio

    assert agrees(eviction.che_hit_ratio(shares, 500, policy), run)


def test_the_characteristic_time_fills_the_cache():
    time = eviction.characteristic_time(SHARES, 1000)
    assert (1 - np.exp(-SHARES * time)).sum() == pytest.approx(1000)
    time = eviction.characteristic_time(SHARES, 1000, "fifo")
    assert (SHARES * time / (1 + SHARES * time)).sum() == pytest.approx(1000)


def test_sampled_lru_lies_between_random_and_lru_and_lfu_above_both():
    requests = eviction.zipf_requests(2000, 0.8, 100_000, seed=3)
    ratios = {name: eviction.simulate(name, requests, 200).hit_ratio for name in eviction.POLICIES}
    margin = 4.5 * 0.5 / 90_000**0.5
    assert ratios["random"] + margin < ratios["sampled"] < ratios["lru"] + margin
    assert ratios["lru"] + margin < ratios["lfu"]
    assert ratios["lfu"] < eviction.best_hit_ratio(eviction.popularity(2000), 200) + margin


def test_more_samples_come_closer_to_lru_and_one_sample_is_random():
    requests = eviction.zipf_requests(2000, 0.8, 100_000, seed=3)

    def hit_ratio(samples):
        run = eviction.simulate("sampled", requests, 200, samples=samples, pool=0)
        return run.hit_ratio

    lru, random = (eviction.simulate(name, requests, 200).hit_ratio for name in ("lru", "random"))
    margin = 4.5 * 0.5 / 90_000**0.5
    assert abs(hit_ratio(1) - random) < margin
    assert random + margin < hit_ratio(2) < hit_ratio(5) < lru + margin
    assert abs(hit_ratio(20) - lru) < margin


def test_a_loop_one_object_too_long_never_hits_lru_where_che_expects_most_to():
    loop = np.tile(np.arange(101), 50)
    shares = np.full(101, 1 / 101)
    assert eviction.simulate("lru", loop, 100).hits == 0
    assert eviction.che_hit_ratio(shares, 100) == pytest.approx(100 / 101)
    assert contradicts(
        eviction.che_hit_ratio(shares, 100),
        lambda seed: eviction.simulate("random", loop, 100, seed=seed).hit_ratio,
    )


def test_each_policy_evicts_the_object_it_names():
    #       fill 0 1 2, use 0 twice and 1 once, 3 evicts one of them, then ask for each again
    history = [0, 1, 2, 1, 0, 0, 3]
    for policy, victim in (("lru", 2), ("fifo", 0), ("lfu", 2)):
        for asked in (0, 1, 2, 3):
            run = eviction.simulate(policy, np.array([*history, asked]), 3, warm_up=7)
            assert run == eviction.EvictionRun(1, int(asked != victim))


def test_lfu_evicts_the_oldest_of_the_least_used():
    for asked, hit in ((0, False), (1, True)):
        run = eviction.simulate("lfu", np.array([0, 1, 2, asked]), 2, warm_up=3)
        assert run.hits == hit


@pytest.mark.parametrize("policy", eviction.POLICIES)
def test_a_cache_for_everything_misses_each_object_once_and_an_empty_one_always(policy):
    requests = np.tile(np.arange(50), 4)
    assert eviction.simulate(policy, requests, 50, warm_up=0).hits == 150
    assert eviction.simulate(policy, requests, 10**6, warm_up=0).hits == 150
    assert eviction.simulate(policy, requests, 0) == eviction.EvictionRun(180, 0)


def test_extremes_give_finite_numbers():
    for policy in ("lru", "fifo"):
        assert eviction.che_hit_ratio(SHARES, 0, policy) == 0
        assert eviction.che_hit_ratio(SHARES, 20_000, policy) == pytest.approx(1)
        assert 0.99 < eviction.che_hit_ratio(SHARES, 19_999, policy) < 1
        assert eviction.che_hit_ratio(eviction.popularity(1000, 0), 250, policy) == pytest.approx(
            0.25
        )
        assert 0.999 < eviction.che_hit_ratio(eviction.popularity(1000, 10), 500, policy) <= 1
    assert eviction.best_hit_ratio(SHARES, 0) == 0
    assert eviction.best_hit_ratio(SHARES, 10**6) == pytest.approx(1)
    assert eviction.popularity(1, 10) == [1]
    assert eviction.simulate("lru", np.array([], dtype=int), 5).hit_ratio == 0


def test_popularity_is_zipf():
    shares = eviction.popularity(100, 2)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] / shares[9] == pytest.approx(100)
    drawn = np.bincount(eviction.zipf_requests(100, 2, 100_000))
    expected = 100_000 * shares[0]
    assert abs(drawn[0] - expected) < 4.5 * (expected * (1 - shares[0])) ** 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eviction.popularity(0), "objects must be a whole number"),
        (lambda: eviction.popularity(5, -1), "exponent must be"),
        (lambda: eviction.che_hit_ratio(SHARES, -1), "capacity must be a whole number from 0"),
        (lambda: eviction.che_hit_ratio(SHARES, 5, "lfu"), "policy must be one of lru, fifo"),
        (lambda: eviction.simulate("mru", np.array([1]), 5), "policy must be one of lru, fifo"),
        (lambda: eviction.simulate("sampled", np.array([1]), 5, samples=0), "samples must be"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).endswith(".")


def test_requests_are_drawn_with_an_exponent_of_0_8_unless_told():
    assert (eviction.zipf_requests(500) == eviction.zipf_requests(500, 0.8, 2_000, 0)).all()


def test_each_block_of_requests_has_samples_of_its_own(monkeypatch):
    # With samples that came round again each request would look at the same slot: one place only.
    monkeypatch.setattr(eviction, "BLOCK", 1)
    requests = eviction.zipf_requests(500, 0.8, 20_000, seed=3)
    sampled = eviction.simulate("sampled", requests, 50, samples=1, pool=0)
    random = eviction.simulate("random", requests, 50)
    assert abs(sampled.hit_ratio - random.hit_ratio) < 4.5 * 0.5 / 18_000**0.5


@pytest.mark.parametrize("capacity", [0, 5])
def test_a_warm_up_longer_than_the_requests_leaves_none_to_count(capacity):
    run = eviction.simulate("lru", np.array([1, 2]), capacity, warm_up=5)
    assert run == eviction.EvictionRun(0, 0)
