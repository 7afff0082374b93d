"""A trace is written as JSON that any reader gets back whole."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tried import ANY_TEXT, tried

from cachelab.record.trace import KINDS, Event, Trace

TIMES = st.floats(0, 1e12, allow_nan=False)
EVENTS = st.builds(
    Event,
    at=TIMES,
    actor=ANY_TEXT,
    kind=st.sampled_from(sorted(KINDS)),
    what=ANY_TEXT,
    on=ANY_TEXT,
    detail=ANY_TEXT,
    took=TIMES,
    age=st.none() | TIMES,
    stale_for=st.none() | TIMES,
)


@tried(100)
@given(st.lists(EVENTS, max_size=4))
def test_a_written_trace_is_text_and_is_read_again_as_it_was(events):
    written = Trace(events=events).to_json()
    rows = json.loads(written.encode("utf-8"))
    kept = [Event(**{"what": "", **row}) for row in rows]
    times = ("at", "took", "age", "stale_for")
    whole = [
        replace(one, **{n: round(v, 9) for n in times if (v := getattr(one, n)) is not None})
        for one in events
    ]
    assert kept == whole
    assert Trace(events=kept).to_json() == written
