"""Any TOML file is a night that can be played, or one sentence that names the file."""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tried import cut, is_sentence, tried

from cachelab import incident
from cachelab.incident.parts import FAULTS
from cachelab.incident.scenario import MOST_REQUESTS, schema

PAGES = list(schema()["properties"]["traffic"]["properties"]["mix"]["properties"])
NIGHT = {
    "title": "Short",
    "pager": "All of it is slow.",
    "clock": "23:59",
    "faults": ["one_ttl"],
    "traffic": {"seed": 1, "seconds": 60, "rate": 0.5, "mix": {"product": 1}},
    "database": {"slots": 2},
    "good": {"wrong": 0, "slow": 0, "queries": 50},
}


def in_toml(value):
    """A value as a TOML file writes it; tables in line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(in_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{in_toml(k)} = {in_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)  # numbers, inf and nan among them


def text_of(table):
    return "".join(f"{in_toml(name)} = {in_toml(value)}\n" for name, value in table.items())


# json.dumps writes a character beyond U+FFFF as two escapes, which TOML does not know.
TEXTS = st.text(st.characters(max_codepoint=0xFFFF), max_size=8)
VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.sampled_from([*FAULTS, *PAGES, "03:00", "03:00\n", "", 0, -1, 10**400, 1e308, 5e-324]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


PLACES = [
    *((name,) for name in (*NIGHT, "events", "else")),
    *(("traffic", name) for name in (*NIGHT["traffic"], "bursts")),
    ("traffic", "mix", "product"),
    ("traffic", "mix", "else"),
    ("database", "slots"),
    ("good", "wrong"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("scenarios") / "any night.toml"


def load(file, content):
    """The scenario in a file, or None after one sentence."""
    file.write_bytes(content)
    try:
        night, said = incident.load(file), ""
    except incident.IncidentError as why:
        night, said = None, str(why)
    assert night is not None or is_sentence(said), said
    assert night is not None or file.name in said
    assert night is None or night.time_of_day(night.seconds)
    return night


@tried(120)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
@example([(("traffic", "seconds"), 10**400)])
@example([(("clock",), "03:00\n")])
@example([(("events",), {"launch_at": float("nan")})])
def test_any_toml_is_a_scenario_or_one_sentence(file, changes):
    table = json.loads(json.dumps(NIGHT))
    for (*above, name), value in changes:
        inner = table
        for one in above:
            inner = inner.get(one) if isinstance(inner, dict) else None
        if isinstance(inner, dict):  # an earlier change may have taken the place away
            inner[name] = value
    night = load(file, text_of(table).encode("utf-8", "surrogatepass"))
    assert night is None or "\n" not in night.clock


@tried(120)
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode()))
@example(b"title = '" + b"\xc2\x85" * 3 + b"'")
@example(b"'\x1b[31m' = 1")
@example(b"a." * 5_000 + b"a = 1")
def test_any_bytes_are_a_scenario_or_one_sentence(file, content):
    load(file, content)


@tried(120)
@given(st.integers(0, 2_000), st.integers(0, 30), st.binary(max_size=8))
def test_however_a_scenario_is_damaged_it_is_a_scenario_or_one_sentence(file, at, gone, noise):
    load(file, cut(text_of(NIGHT).encode(), at, gone, noise))


SECONDS = st.floats(60, 7_200) | st.sampled_from([60, 61, 3_600, 7_200])


@st.composite
def nights(draw):
    """What every rule of the file allows, to its edges; at most 150 customers."""
    seconds = draw(SECONDS)
    below = st.floats(0, seconds, exclude_max=True)
    mix = draw(
        st.dictionaries(
            st.sampled_from(PAGES), st.floats(0, 100) | st.sampled_from([5e-324, 100]), min_size=1
        )
    )
    bursts = st.fixed_dictionaries(
        {"at": below, "customers": st.integers(1, 50), "page": st.sampled_from(PAGES)}
    )
    return NIGHT | {
        "clock": draw(st.sampled_from(["00:00", "23:59"])),
        "faults": draw(st.lists(st.sampled_from(list(FAULTS)), min_size=1, unique=True)),
        "traffic": {
            "seed": draw(st.integers(0, 10**6)),
            "seconds": seconds,
            "rate": draw(st.floats(5e-324, 100 / seconds)),
            "mix": mix,
            "bursts": draw(st.lists(bursts, max_size=1)),
        },
        "events": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "price_jobs": st.lists(below, max_size=2),
                    "stock_every": st.floats(60, 7_200),
                    "launch_at": below,
                    "restart_every": st.floats(300, 7_200),
                },
            )
        ),
        "database": {"slots": draw(st.sampled_from([1, 64]))},
    }


@tried(8)
@given(nights())
@example(NIGHT | {"traffic": NIGHT["traffic"] | {"rate": 5e-324, "mix": {"best": 5e-324}}})
@example(NIGHT | {"traffic": NIGHT["traffic"] | {"mix": {"best": 0}}})
def test_a_scenario_that_is_taken_can_be_played(file, table):
    night = load(file, text_of(table).encode())
    if night is not None:
        run = incident.play(night)
        assert len(run.answers) <= MOST_REQUESTS
        assert run.trace.to_json()
