"""The trace: what it records, counts, prints and stores."""

from __future__ import annotations

import contextlib
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelab.record.freshness import Served
from cachelab.record.trace import KINDS, Event, Trace, say_seconds


def trace_of(*kinds: str) -> Trace:
    trace = Trace(clock=lambda: 0.0, exact=True)
    for kind in kinds:
        trace.add(kind, kind.upper(), "key")
    return trace


def test_each_counter_counts_its_own_kind() -> None:
    trace = trace_of("hit", "hit", "hit", "miss", "fill", "query", "query", "write", "error")
    counts = (trace.hits, trace.misses, trace.fills, trace.queries, trace.writes, trace.errors)
    assert counts == (3, 1, 1, 2, 1, 1)
    assert trace.hit_rate == 0.75


def test_the_hit_rate_of_no_reads_is_unknown_not_zero() -> None:
    assert trace_of("query").hit_rate is None


def test_an_unknown_kind_of_event_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="No such kind of event: 'hitt'; known are command, "):
        trace_of("hitt")


def test_a_stale_hit_is_counted_and_printed_with_how_long_it_was_wrong() -> None:
    trace = trace_of("hit")
    trace.add("hit", "GET", "user:v1:1", served=Served(age=300.0, stale_for=240.0))
    assert [event.stale_for for event in trace.stale] == [240.0]
    assert "hit, STALE: wrong for 4 min" in trace.table()
    assert trace.summary().endswith("1 stale answer (wrong for 4 min)")


def test_a_real_run_does_not_print_the_milliseconds_it_took() -> None:
    trace = Trace()
    trace.add("hit", "GET", "k", served=Served(age=0.013, stale_for=0.0131), took=0.0007)
    assert "under 1 min" in str(trace)
    assert "ms" not in str(trace)


def test_a_run_on_the_stage_prints_exact_times() -> None:
    trace = Trace(clock=lambda: 0.0, exact=True)
    trace.add("hit", "GET", "k", served=Served(age=0.5, stale_for=0.41))
    assert "wrong for 0.41 s" in str(trace)


def test_a_long_trace_prints_its_first_and_last_rows_and_how_many_between() -> None:
    lines = trace_of(*["hit"] * 800).table(most=24).splitlines()
    assert len(lines) == 1 + 18 + 1 + 5
    assert lines[19] == "... 777 more ..."
    assert lines[-1].split()[0] == "800"


def test_acting_names_the_actor_inside_only() -> None:
    trace = Trace()
    trace.add("hit", "GET")
    with trace.acting("admin tool"):
        trace.add("hit", "GET")
    trace.add("hit", "GET")
    assert [event.actor for event in trace] == ["app", "admin tool", "app"]


def test_a_thread_is_an_actor_of_its_own_name() -> None:
    trace = Trace()
    thread = threading.Thread(target=trace.add, args=("hit", "GET"), name="reader 7")
    thread.start()
    thread.join()
    assert trace.actors == ["reader 7"]


def test_nothing_is_recorded_off_the_record_and_everything_after_it() -> None:
    trace = Trace()
    with contextlib.suppress(RuntimeError), trace.off_the_record():
        trace.add("hit", "GET")
        raise RuntimeError("inside")
    trace.add("miss", "GET")
    assert [event.kind for event in trace] == ["miss"]


def test_off_the_record_of_one_thread_does_not_silence_another() -> None:
    trace = Trace()
    with trace.off_the_record():
        thread = threading.Thread(target=trace.add, args=("hit", "GET"))
        thread.start()
        thread.join()
    assert trace.hits == 1


def test_elapsed_goes_from_the_first_start_to_the_last_end() -> None:
    clock = iter([2.0, 5.0])
    trace = Trace(clock=lambda: next(clock))
    trace.add("query", "SELECT", took=1.5)
    trace.add("query", "SELECT", took=0.1)
    assert trace.elapsed == pytest.approx(4.5)


times = st.floats(0, 1e6).map(lambda seconds: round(seconds, 6))
events = st.builds(
    Event,
    at=times,
    actor=st.text(),
    kind=st.sampled_from(sorted(KINDS)),
    what=st.text(),
    on=st.text(),
    detail=st.text(),
    took=times,
    age=st.none() | times,
    stale_for=st.none() | times,
)


@given(st.lists(events))
def test_a_stored_trace_reads_back_the_same(some: list[Event]) -> None:
    text = Trace(events=some).to_json()
    again = [Event(**{"what": "", **row}) for row in json.loads(text)]
    assert again == some
    assert Trace(events=again).to_json() == text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (3.5e-6, "4 us"),
        (0.02, "20 ms"),
        (0.41, "0.41 s"),
        (8.0, "8 s"),
        (45.2, "45 s"),
        (240.4, "4 min"),
        (3599.9, "59 min"),
        (90_000, "25 h"),
    ],
)
def test_durations_are_said_as_a_person_would(seconds: float, said: str) -> None:
    assert say_seconds(seconds) == said
