"""Drawings: the picture, the sentence that says what it shows, and the diagram of what happened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis
from worlds import World, world

from cachelab import figures
from cachelab.figures import MARKS, lanes, sequence, show
from cachelab.patterns import cache_aside
from cachelab.record.freshness import Served
from cachelab.record.trace import KINDS, Trace


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


def trace_of(*pairs: tuple[str, str]) -> Trace:
    trace = Trace(clock=lambda: 0.0, exact=True)
    for actor, kind in pairs:
        trace.add(kind, "GET", "k", actor=actor)
    return trace


def rows(picture: figures.Picture) -> list[str]:
    return [label.get_text() for label in picture.figure.axes[0].get_yticklabels()]


def legend(picture: figures.Picture) -> list[str]:
    box = picture.figure.axes[0].get_legend()
    return [text.get_text() for text in box.get_texts()]


def test_every_kind_of_event_has_a_mark_and_no_two_look_alike() -> None:
    assert MARKS.keys() >= KINDS
    looks = {(mark.marker, mark.filled, mark.colour) for mark in MARKS.values()}
    assert len(looks) >= len(MARKS) - 1  # sleep and wait are drawn alike, on purpose


def test_marks_that_lie_about_freshness_differ_in_shape_not_only_in_colour(w: World) -> None:
    trace = trace_of(("a", "hit"))
    trace.add("hit", "GET", "k", served=Served(300, 240), actor="a")
    fresh_and_stale = lanes(trace).figure.axes[0]
    rings = [line for line in fresh_and_stale.lines if line.get_markersize() == 15]
    assert len(rings) == 1
    assert [text.get_text() for text in fresh_and_stale.texts] == ["stale 4 min"]


def test_lanes_has_a_row_for_each_actor_and_a_legend_of_what_occurred() -> None:
    picture = lanes(trace_of(("a", "miss"), ("b", "query"), ("a", "hit")))
    assert rows(picture) == ["a", "b"]
    assert legend(picture) == ["miss", "origin query", "hit"]


def test_hundreds_of_actors_are_folded_to_the_first_the_last_and_a_count() -> None:
    picture = lanes(trace_of(*[(f"reader {n}", "hit") for n in range(800)]), most=12)
    assert len(rows(picture)) == 12
    assert rows(picture)[5:8] == ["reader 5", "(789 more)", "reader 795"]
    assert [rows(picture)[0], rows(picture)[-1]] == ["reader 0", "reader 799"]


def test_what_folded_actors_did_is_drawn_in_their_common_row() -> None:
    picture = lanes(trace_of(*[(f"reader {n}", "hit") for n in range(800)]), most=12)
    crowd = [line for line in picture.figure.axes[0].lines if line.get_alpha() == 0.35]
    assert [len(line.get_xdata()) for line in crowd] == [789]


def test_time_on_the_axis_has_a_unit() -> None:
    trace = trace_of(("a", "hit"))
    assert lanes(trace, by="time").figure.axes[0].get_xlabel() == "time in seconds"
    with pytest.raises(ValueError, match='by is "order" or "time"; this is \'clock\''):
        lanes(trace, by="clock")


def test_the_same_trace_gives_the_same_picture_byte_for_byte(w: World) -> None:
    w.read(1)
    w.read(1)
    first, second = lanes(w.trace)._repr_png_(), lanes(w.trace)._repr_png_()
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_a_picture_says_in_words_what_it_shows(w: World) -> None:
    w.read(1)
    w.read(1)
    said = "Lanes of 1 actor, 4 events: 1 hit | 1 miss | 1 fill | 1 origin query."
    assert repr(lanes(w.trace)) == said


@pytest.mark.parametrize("by", ["order", "time"])
def test_an_empty_trace_can_be_drawn(by: str) -> None:
    assert repr(lanes(Trace(), by=by)).startswith("Lanes of 0 actors, 0 events")
    assert lanes(Trace(), by=by)._repr_png_()
    assert sequence(Trace()).text.splitlines()[0] == "sequenceDiagram"


def test_the_sequence_is_what_happened_in_order(w: World) -> None:
    w.read(1)
    w.read(1)
    assert sequence(w.trace).text.splitlines() == [
        "sequenceDiagram",
        "    participant A0 as app",
        "    participant Cache",
        "    participant Origin",
        "    A0->>Cache: GET user:v1:1",
        "    Cache-->>A0: MISS",
        "    A0->>Origin: SELECT users 1",
        "    Origin-->>A0: 1 row",
        "    A0->>Cache: SET user:v1:1 (TTL 300 s)",
        "    A0->>Cache: GET user:v1:1",
        "    Cache-->>A0: HIT",
    ]


def test_the_sequence_shows_a_stale_answer_and_a_failed_command(w: World) -> None:
    w.read(1)
    w.db.acting_as("someone else").update_user(1, email="n@example.org")
    w.clock.now = 240
    w.read(1)
    w.server.kill()
    with pytest.raises(redis.ConnectionError):
        w.read(1)
    text = sequence(w.trace).text
    assert "Cache-->>A0: HIT, STALE: wrong for 4 min" in text
    assert "A1->>Origin: COMMIT" in text
    assert "A0-xCache: GET user:v1:1 (ConnectionError)" in text


def test_a_long_sequence_is_cut_and_says_so() -> None:
    text = sequence(trace_of(*[("a", "hit")] * 100), most=30).text
    assert text.endswith("Note over A0,Origin: ... 70 more events")


def test_nothing_in_a_key_can_break_the_diagram() -> None:
    trace = Trace()
    trace.add("hit", "GET", "a;b#c%%d\nend", actor="x;y")
    for line in sequence(trace).text.splitlines():
        assert not re.search(r"[;#]|%%", line)


def test_show_gives_the_source_itself_highlighted_in_a_front_end() -> None:
    shown = show(cache_aside.read)
    assert repr(shown).startswith("def read(cache: redis.Redis, key: str")
    assert shown._repr_mimebundle_()["text/markdown"] == f"```python\n{shown!r}\n```"
