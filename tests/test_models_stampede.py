"""Tests of the stampede model: golden values, SimPy as a second opinion, and where forms fail."""

import math

import numpy as np
import pytest
import simpy
from models_ztest import agrees, contradicts, printed

from cachelab.models import stampede


def simpy_first_come(times, query_time, slots):
    """The same stampede, event by event: (queries, time of the last answer)."""
    env = simpy.Environment()
    database = simpy.Resource(env, capacity=slots)
    cached, ends = [], []

    def reader(arrival):
        yield env.timeout(arrival)
        if cached:
            return
        with database.request() as slot:
            yield slot
            yield env.timeout(query_time)
        cached.append(True)
        ends.append(env.now)

    for arrival in times:
        env.process(reader(arrival))
    env.run()
    return len(ends), max(ends)


def shared_by_steps(times, query_time, slots, step):
    """Processor sharing by brute force: (queries, first answer, last answer)."""
    left, clock, arrived, ends = [], 0.0, 0, []
    while left or arrived == 0:
        while arrived < len(times) and times[arrived] <= clock + 1e-12 and not ends:
            left.append(query_time)
            arrived += 1
        share = min(1.0, slots / len(left)) * step
        left = [work - share for work in left]
        clock += step
        ends += [clock for work in left if work <= 1e-12]
        left = [work for work in left if work > 1e-12]
    return len(ends), ends[0], ends[-1]


@pytest.mark.parametrize(
    ("slots", "digits"), [(1, "8.0"), (4, "2.0"), (10, "0.8"), (16, "0.5"), (50, "0.16")]
)
@pytest.mark.parametrize("discipline", stampede.DISCIPLINES)
def test_800_at_once_end_at_the_golden_times(slots, digits, discipline):
    form = stampede.at_once(800, 0.01, slots, discipline)
    run = stampede.simulate(800, 0, 0.01, slots, discipline=discipline)
    assert printed(form.last_answer, digits)
    assert run.queries == form.queries == 800
    assert run.last_answer == pytest.approx(form.last_answer)
    assert run.first_answer == pytest.approx(form.first_answer)
    assert run.mean_wait == pytest.approx(form.mean_wait)


def test_the_mean_wait_of_800_in_one_queue_is_4_005_s():
    assert printed(stampede.at_once(800, 0.01, 1).mean_wait, "4.005")


@pytest.mark.parametrize(("readers", "slots"), [(7, 3), (1, 1), (3, 8), (10, 5), (11, 5)])
def test_the_mean_over_uneven_rounds_is_the_mean_of_the_rounds(readers, slots):
    rounds = [math.ceil(reader / slots) for reader in range(1, readers + 1)]
    assert stampede.at_once(readers, 2, slots).mean_wait == pytest.approx(2 * np.mean(rounds))


def test_41_of_800_reach_the_database_over_200_ms_and_the_last_ends_at_410_ms():
    form, run = stampede.spread_out(800, 0.2, 0.01, 1), stampede.simulate()
    assert run.queries == round(form.queries) == 41
    assert printed(form.last_answer, "0.41")
    assert printed(run.last_answer, "0.41")


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 10, 39, 40, 41, 50, 900])
@pytest.mark.parametrize("window", [0.05, 0.2, 3.0])
def test_the_form_for_a_queue_is_exact_for_even_arrivals(slots, window):
    form = stampede.spread_out(800, window, 0.01, slots)
    run = stampede.simulate(800, window, 0.01, slots)
    assert run.queries == math.floor(form.queries + 1e-9)
    assert run.first_answer == form.first_answer
    assert run.last_answer == pytest.approx(form.last_answer)


@pytest.mark.parametrize(("slots", "queries"), [(10, 211), (16, 74), (20, 56), (40, 41), (1, 800)])
def test_sharing_counts_have_their_golden_values(slots, queries):
    assert stampede.simulate(slots=slots, discipline="ps").queries == queries


@pytest.mark.parametrize(
    ("slots", "digits"), [(10, "201"), (16, "72"), (20, "54"), (40, "41"), (4, "800"), (1, "800")]
)
def test_the_fluid_form_of_sharing_has_its_golden_values(slots, digits):
    assert printed(stampede.spread_out(800, 0.2, 0.01, slots, "ps").queries, digits)


def test_where_arrivals_end_first_the_first_shared_answer_comes_at_6_75_and_0_96_s():
    for slots, digits in ((1, "6.75"), (4, "0.96")):
        run = stampede.simulate(slots=slots, discipline="ps")
        assert printed(run.first_answer, digits)
        form = stampede.spread_out(800, 0.2, 0.01, slots, "ps")
        assert form.first_answer == pytest.approx(run.first_answer, rel=0.03)
        assert run.last_answer == pytest.approx(800 * 0.01 / slots, rel=0.001)


@pytest.mark.parametrize("slots", [10, 16, 20, 30])
def test_the_fluid_form_of_sharing_is_within_six_percent_of_the_simulation(slots):
    form = stampede.spread_out(800, 0.2, 0.01, slots, "ps")
    run = stampede.simulate(slots=slots, discipline="ps")
    assert form.queries == pytest.approx(run.queries, rel=0.06)
    assert form.first_answer == pytest.approx(run.first_answer, rel=0.06)


def test_the_fluid_form_meets_the_simulation_as_the_readers_become_many():
    form = stampede.spread_out(200_000, 50, 1, 1000, "ps")
    run = stampede.simulate(200_000, 50, 1, 1000, discipline="ps")
    assert form.queries == pytest.approx(run.queries, rel=1e-3)
    assert form.first_answer == pytest.approx(run.first_answer, rel=1e-3)


def test_the_tipping_point_is_one_full_database():
    assert stampede.load(4000, 0.01, 40) == 1
    below = stampede.spread_out(800, 0.2, 0.01, 41, "ps")
    above = stampede.spread_out(800, 0.2, 0.01, 20, "ps")
    assert below.queries == 41 < above.queries


@pytest.mark.parametrize("slots", [1, 4, 10, 40, 60])
@pytest.mark.parametrize("window", [0, 0.2])
@pytest.mark.parametrize("arrivals", stampede.ARRIVALS)
def test_a_queue_counts_the_same_as_simpy(slots, window, arrivals):
    # 10.1 ms: SimPy adds up floats, so no arrival may fall on the very moment of the first answer
    run = stampede.simulate(800, window, 0.0101, slots, arrivals=arrivals, seed=5)
    queries, last = simpy_first_come(run.arrivals.tolist(), 0.0101, slots)
    assert run.queries == queries
    assert run.last_answer == pytest.approx(last)


@pytest.mark.parametrize(("slots", "window"), [(1, 0), (2, 0.3), (5, 0.3), (12, 0.3), (60, 0.3)])
def test_sharing_answers_as_brute_force_does(slots, window):
    run = stampede.simulate(60, window, 0.05, slots, discipline="ps", arrivals="random", seed=2)
    queries, first, last = shared_by_steps(run.arrivals.tolist(), 0.05, slots, 1e-4)
    assert run.queries == queries
    assert run.first_answer == pytest.approx(first, abs=4e-3)
    assert run.last_answer == pytest.approx(last, abs=4e-3)


def test_random_arrivals_query_as_often_as_the_form_says():
    # The first arrival opens the window, so 799 others share 0.2 * 800 / 801 s on average.
    assert agrees(
        stampede.spread_out(800, 0.2, 0.01, 1).queries,
        lambda seed: float(stampede.simulate(arrivals="random", seed=seed).queries),
        runs=200,
    )


def test_front_loaded_arrivals_query_far_more_often_than_the_form_says():
    assert contradicts(
        stampede.spread_out(800, 0.2, 0.01, 1).queries,
        lambda seed: float(stampede.simulate(arrivals="front-loaded", seed=seed).queries),
    )


def test_single_flight_makes_one_query_and_all_wait_for_it():
    for window, discipline in ((0, "fcfs"), (0.2, "ps"), (0.2, "fcfs")):
        run = stampede.simulate(800, window, 0.01, 1, discipline=discipline, single_flight=True)
        assert (run.queries, run.last_answer) == (1, 0.01)
        assert run.longest_wait == 0.01
        assert np.count_nonzero(run.waits) == (800 if window == 0 else 40)


def test_readers_after_the_first_answer_do_not_wait():
    run = stampede.simulate()
    assert np.count_nonzero(run.waits) == 41
    assert run.waits[0] == 0.01
    assert run.longest_wait == pytest.approx(0.40)
    assert run.arrivals[-1] == pytest.approx(0.19975)


@pytest.mark.parametrize("discipline", stampede.DISCIPLINES)
@pytest.mark.parametrize("readers", [1, 2, 800, 100_000])
@pytest.mark.parametrize("window", [0, 1e-9, 1e6])
@pytest.mark.parametrize("query_time", [0, 1e-9, 1e6])
@pytest.mark.parametrize("slots", [1, 800, 1_000_000])
def test_extremes_give_finite_numbers(discipline, readers, window, query_time, slots):
    run = stampede.simulate(readers, window, query_time, slots, discipline=discipline)
    form = stampede.spread_out(readers, window, query_time, slots, discipline)
    assert 1 <= run.queries <= readers
    assert 1 <= form.queries <= readers
    all_shared = window + query_time * max(1, readers / slots)
    assert query_time * (1 - 1e-9) <= form.first_answer <= all_shared * (1 + 1e-9)
    assert query_time * (1 - 1e-9) <= run.first_answer <= run.last_answer < math.inf
    assert np.isfinite(run.waits).all()
    assert run.waits.min() >= 0


def test_more_slots_than_readers_is_a_database_without_a_queue():
    for discipline in stampede.DISCIPLINES:
        run = stampede.simulate(10, 0, 0.5, 10_000, discipline=discipline)
        assert run.waits.tolist() == [0.5] * 10
        assert stampede.at_once(10, 0.5, 10_000, discipline).last_answer == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stampede.simulate(0), "readers must be a whole number from 1 to 1,000,000, got 0"),
        (lambda: stampede.simulate(slots=0), "slots must be a whole number"),
        (lambda: stampede.simulate(slots=1.5), "slots must be a whole number"),
        (lambda: stampede.simulate(window=-1), "window must be a finite number of seconds"),
        (lambda: stampede.simulate(query_time=math.nan), "query_time must be a finite number"),
        (lambda: stampede.simulate(discipline="lifo"), "discipline must be one of fcfs, ps"),
        (lambda: stampede.spread_out(5, 1, 1, 1, "lifo"), "discipline must be one of fcfs, ps"),
        (lambda: stampede.simulate(arrivals="late"), "arrivals must be one of even"),
        (lambda: stampede.load(1, 1, 0), "slots must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).endswith(".")


def test_front_loaded_arrivals_fill_the_window_and_half_of_them_its_first_quarter():
    at = stampede.simulate(arrivals="front-loaded", seed=3).arrivals
    assert at[0] == 0
    assert 0.19 < at[-1] <= 0.2
    # The median of 800 squared uniform draws: 1/4, standard error 1/56 of the window.
    assert abs(np.median(at) / 0.2 - 0.25) < 4.5 / 56
