"""Whatever is read as a stored trace is a trace or one sentence; what was written is read again."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st
from tried import ANY_JSON, ANY_TEXT, NUMBERS, cut, is_sentence, tried

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
ROWS = st.fixed_dictionaries(
    {
        "at": NUMBERS | ANY_JSON,
        "actor": ANY_TEXT | ANY_JSON,
        "kind": st.sampled_from(sorted(KINDS)) | ANY_JSON,
    },
    optional={
        "what": ANY_TEXT | ANY_JSON,
        "on": ANY_TEXT,
        "took": NUMBERS | ANY_JSON,
        "age": NUMBERS,
        "stale_for": NUMBERS,
        "else": ANY_JSON,
    },
)


def read(text: str | bytes) -> None:
    """Read it; a trace can be shown and written again, and the rest is one sentence."""
    try:
        trace, why = Trace.from_json(text), None
    except ValueError as error:
        trace, why = Trace(), error
    if why is not None:
        assert type(why) is ValueError
        assert is_sentence(str(why)), str(why)
        return
    assert str(trace)
    assert trace.elapsed == trace.elapsed  # a number
    written = trace.to_json()
    assert Trace.from_json(written.encode("utf-8")).to_json() == written


@tried(100)
@given(st.binary(max_size=60) | ANY_TEXT)
@example(b"[" * 100_000)
@example("[" + "1" * 5_000 + "]")
@example(b"[" * 970 + b"]" * 970)
@example(b"\xef\xbb\xbf[]")
def test_any_bytes_are_a_trace_or_one_sentence(text):
    read(text)


@tried(150)
@given(st.lists(ROWS, max_size=3) | ANY_JSON)
@example([{"at": 1, "actor": "a", "kind": []}])
@example([{"at": float("nan"), "actor": "a", "kind": "hit"}])
@example([{"at": 10**400, "actor": "a", "kind": "hit"}])
@example(["two\nlines"])
@example(["\ud800"])
@example([{"at": 1e308, "actor": "a", "kind": "hit", "took": -1e308}])
def test_any_json_is_a_trace_or_one_sentence(value):
    read(json.dumps(value))


@tried(100)
@given(st.lists(EVENTS, max_size=4))
def test_a_written_trace_is_text_and_is_read_again_as_it_was(events):
    written = Trace(events=events).to_json()
    kept = Trace.from_json(written.encode("utf-8")).events
    times = ("at", "took", "age", "stale_for")
    whole = [
        replace(one, **{n: round(v, 9) for n in times if (v := getattr(one, n)) is not None})
        for one in events
    ]
    assert kept == whole
    assert Trace(events=kept).to_json() == written


STORED = Trace(
    events=[Event(0.5, "reader 1", "hit", "GET", "user:1", "é", 0.1, 3.0, 2.0)] * 2
).to_json()


@tried(150)
@given(st.integers(0, 400), st.integers(0, 20), st.binary(max_size=8))
def test_however_a_written_trace_is_damaged_it_is_a_trace_or_one_sentence(at, gone, noise):
    read(cut(STORED.encode(), at, gone, noise))
