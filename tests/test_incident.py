"""The incident game: the same traffic to the byte, faults that show, scenarios that may be bad."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from functools import cache

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cachelab import incident, stage
from cachelab.exercises import lab_17_incident as lab
from cachelab.incident import night as nights
from cachelab.incident.evidence import evidence, objection
from cachelab.incident.parts import FAULTS, LONGEST, SOUND, with_faults
from cachelab.incident.pods import MOST_CLIENTS, hash, hash_per_process
from cachelab.incident.report import TEMPLATE, curves_of
from cachelab.incident.scenario import scenario, schema
from cachelab.incident.service import Service
from cachelab.record.trace import Trace

SHIPPED = sorted(incident.scenarios())
PAGES = list(schema()["properties"]["traffic"]["properties"]["mix"]["properties"])
SMALL = {
    "title": "a short night",
    "pager": "it rings",
    "clock": "23:58",
    "faults": ["one_ttl", "absent_for_ever", "hash_in_key", "delete_before_commit"],
    "traffic": {
        "seed": 3,
        "seconds": 240,
        "rate": 0.8,
        "mix": {"product": 3, "stock": 3, "search": 2, "shelf": 1, "best": 1, "missing": 2},
        "bursts": [{"at": 200, "customers": 20, "page": "product"}],
    },
    "events": {"price_jobs": [60], "stock_every": 5, "launch_at": 70, "restart_every": 50},
    "database": {"slots": 2},
    "good": {"wrong": 0, "slow": 20, "queries": 400},
}


def changed(**more):
    """SMALL as a copy, with other values; `traffic__rate` is one inside a table."""
    data = json.loads(json.dumps(SMALL))
    for path, value in more.items():
        *tables, name = path.split("__")
        table = data
        for one in tables:
            table = table[one]
        if value is None:
            del table[name]
        else:
            table[name] = value
    return data


@cache
def played(name="small", faults=None):
    chosen = scenario(changed()) if name == "small" else incident.load(name)
    return incident.play(chosen, faults=faults)


# The same night ------------------------------------------------------------------------------


def test_the_same_night_is_the_same_to_the_byte():
    again = incident.play(scenario(changed()))
    assert again.trace.to_json() == played().trace.to_json()
    assert again.answers == played().answers


def test_no_hash_seed_of_a_process_changes_a_night():
    code = (
        "import hashlib, json, sys\n"
        "from cachelab import incident\n"
        "from cachelab.incident.scenario import scenario\n"
        "run = incident.play(scenario(json.loads(sys.argv[1])))\n"
        "print(hashlib.sha256(run.trace.to_json().encode()).hexdigest())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "4711"}
    command = [sys.executable, "-c", code, json.dumps(SMALL)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=110)
    here = hashlib.sha256(played().trace.to_json().encode()).hexdigest()
    assert done.stdout.strip() == here


def test_whatever_the_service_does_the_same_customers_ask_the_same():
    asked = [answer.request for answer in played().answers]
    assert [answer.request for answer in played("small", ()).answers] == asked
    assert len(asked) == len(nights.traffic(played().night)) > 150


def test_the_chapters_night_is_the_one_that_the_lab_knows():
    assert played(lab.NIGHT).score == lab.BEFORE


# Faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.slow
def test_a_shipped_night_is_bad_as_it_is_and_good_without_its_faults(name):
    assert not played(name).good
    assert played(name, ()).good
    assert played(name).score.harm > 2 * played(name, ()).score.harm


@pytest.mark.parametrize("name", SHIPPED)
def test_the_journal_shows_every_planted_fault_and_none_in_a_sound_night(name):
    found = evidence(played(name))
    assert [fault for fault in found if not found[fault]] == []
    sound = played(name, ())
    sound = nights.Run(sound.night, sound.trace, sound.answers, tuple(FAULTS), 0)
    assert {fault: sorted(seen)[:3] for fault, seen in evidence(sound).items() if seen} == {}


ALONE = {
    "one_ttl": (lab.LIFETIMES, "wrong"),
    "absent_for_ever": (lab.LIFETIMES, "wrong"),
    "hash_in_key": (lab.SEARCHES, "slow"),
    "lock_without_token": (lab.BESTS, "queries"),
    "delete_before_commit": (lab.PRICES, "wrong"),
}


@pytest.mark.parametrize("fault", ALONE)
@pytest.mark.slow
def test_each_fault_alone_is_felt(fault):
    focus, what = ALONE[fault]
    sound = incident.play(focus, faults=()).score
    faulty = incident.play(focus, faults=[fault]).score
    assert getattr(faulty, what) > getattr(sound, what)
    assert sound.wrong == 0


def test_a_pool_of_100_refuses_the_101st_caller_of_one_pod():
    crowd = [{"at": 100, "customers": 280, "page": "product"}]
    data = changed(traffic__bursts=crowd, events__restart_every=None)
    run = incident.play(scenario(data), faults=["pool_of_100"])
    refused = [e for e in run.trace if e.detail == "MaxConnectionsError"]
    assert len(refused) == 280 - 2 * 100
    assert run.connections == 200


def test_the_server_refuses_connections_above_its_own_limit():
    crowd = [{"at": 100, "customers": 300, "page": "product"}]
    data = changed(traffic__bursts=crowd, events__restart_every=None)
    big = {"connect": lambda wire: redis.ConnectionPool(max_connections=10_000, **wire)}
    run = incident.play(scenario(data), big, faults=())
    assert run.connections == MOST_CLIENTS
    assert run.grep("max number of clients reached").total == 300 - MOST_CLIENTS


def test_two_faults_of_one_part_are_both_there():
    part = with_faults(["one_ttl", "absent_for_ever"])["lifetime"]
    assert part("stock", True) == part("search", True) > LONGEST["stock"]
    assert part("product", False) is None


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: incident.play("three_in_the_morning", faults=["gremlins"]), "known are one_ttl"),
        (lambda: incident.play("three_in_the_morning", {"retry": print}), "its parts are lifetime"),
        (lambda: incident.play("three_in_the_morning", {"connect": 7}), "must be a function"),
        (lambda: incident.play("three_in_the_mourning"), "did you mean three_in_the_morning?"),
        (lambda: played().grep("("), "no regular expression"),
        (lambda: played().grep(since="tea time"), "no time of day"),
    ],
)
def test_what_cannot_be_played_or_searched_is_one_sentence(ask, said):
    with pytest.raises(incident.IncidentError, match=r"\.$") as caught:
        ask()
    assert said in str(caught.value)


def test_an_entry_that_shows_nothing_is_answered_with_what_it_is_and_what_to_look_for():
    run = played()
    known = evidence(run)
    harmless = next(n for n in range(1, 500) if not any(n in seen for seen in known.values()))
    assert "does not show it; look for" in objection(run, "hash_in_key", harmless, known)
    for number in (0, len(run.trace) + 1, "7", True, None):
        assert "no entry of the journal" in objection(run, "hash_in_key", number, known)


# What is right and what is wrong -------------------------------------------------------------


def _truth(sold):
    playing = nights.NightState(scenario(changed()), SOUND, sold=sold)
    return nights._Oracle(playing, Trace(clock=float))


@pytest.mark.parametrize(
    ("at", "said", "right"), [(110, 9, True), (110, 20, True), (114, 9, True), (116, 9, False)]
)
def test_an_answer_is_wrong_when_it_is_older_than_was_promised(at, said, right):
    truth = _truth([(50.0, 1, 9), (100.0, 1, 20)])
    request = nights.PageRequest("pod-1.1 r1", at, "stock", 1)
    assert truth.allows(nights.PageAnswer(request, said, "", 0.1)) is right


def test_no_answer_is_slow_and_not_wrong():
    request = nights.PageRequest("pod-1.1 r1", 10, "stock", 1)
    failed = nights.PageAnswer(request, None, "Busy: no", 0.1)
    assert failed.slow
    assert _truth([]).allows(failed)


def test_the_harm_is_the_formula_that_is_printed():
    score = incident.Score(1_000, 7, 20, 300)
    assert score.harm == 10 * 7 + 3 * 20 + 300
    assert "harm = 10 x 7 + 3 x 20 + 300 = 430" in repr(score)


def test_a_service_that_answers_nobody_is_not_a_good_one():
    def fails(*_):
        raise RuntimeError("no")

    run = incident.play(scenario(changed()), dict.fromkeys(("search_key", "connect"), fails))
    assert run.score.slow == run.score.answers
    assert not run.good


def test_a_part_that_never_ends_is_stuck_with_a_sentence(monkeypatch):
    monkeypatch.setattr(nights, "WALL_SECONDS", 2.0)

    def for_ever(cache, key, load, ttl):
        while True:
            cache.get(key)

    data = changed(traffic__mix={"best": 1}, traffic__bursts=[], traffic__seconds=90)
    with pytest.raises(stage.Stuck, match=r"waits for|goes on for ever|longer than"):
        incident.play(scenario(data), {"rebuild": for_ever})


# Pods ----------------------------------------------------------------------------------------


def _as(pod, value):
    with Trace().acting(f"{pod} r1"):
        return hash(value)


def test_a_text_has_another_hash_in_each_process_and_a_number_has_not():
    for text in ("lamp", b"lamp", ("a", "lamp"), frozenset({"lamp"})):
        seen = {_as(pod, text) for pod in ("pod-1.1", "pod-2.1", "pod-1.2")}
        assert len(seen) == 3
        assert _as("pod-1.1", text) == _as("pod-1.1", text)
    for number in (7, 2.5, None, (1, 2)):
        assert {_as(pod, number) for pod in ("pod-1.1", "pod-2.1")} == {builtins.hash(number)}


def test_a_learners_hash_is_the_pods_during_a_night_and_pythons_before_and_after():
    space = {}
    exec("def key(words):\n    return hash(words)", space)
    with hash_per_process([space["key"]]):
        with Trace().acting("pod-1.1 r1"):
            inside = space["key"]("lamp")
    assert inside == _as("pod-1.1", "lamp")
    assert space["key"]("lamp") == builtins.hash("lamp")
    assert "hash" not in space


# What is shown -------------------------------------------------------------------------------


def test_the_curves_add_up_to_the_score():
    run = played()
    _, queries, _, wrong = curves_of(run)
    assert sum(queries.values) == run.score.queries
    assert sum(wrong.values) == run.score.wrong


def test_the_picture_says_its_numbers_of_both_nights():
    said = repr(incident.curves(played(), played("small", ())))
    assert said.count("wrong answers highest") == 2
    assert "23:5" in said or "00:0" in said


def test_a_night_that_passes_midnight_is_searched_by_the_time_of_day():
    run = played()
    late = run.grep(since="00:01", most=1)
    assert late.total
    assert "00:01:" in late.lines[0]
    assert run.grep(since="23:58", until="00:05").total == len(run.trace)


def test_the_page_shows_what_is_written_and_what_is_still_to_be_written():
    page = repr(incident.page(played(), {"summary": "All slept.", "actions": [("a", "b", "c")]}))
    assert "All slept." in page
    assert "a · b · c" in page
    assert TEMPLATE["impact"] in page
    assert TEMPLATE["summary"] not in page


# Scenario files ------------------------------------------------------------------------------


def test_the_schema_knows_the_faults_of_the_catalogue_and_the_pages_of_the_service():
    rule = schema()
    Draft202012Validator.check_schema(rule)
    assert rule["properties"]["faults"]["items"]["enum"] == list(FAULTS)
    traffic = rule["properties"]["traffic"]["properties"]
    assert traffic["bursts"]["items"]["properties"]["page"]["enum"] == PAGES
    assert all(hasattr(Service, page) for page in PAGES if page != "missing")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_valid_by_the_schema(name):
    data = tomllib.loads(incident.scenarios()[name].read_text("utf-8"))
    assert list(Draft202012Validator(schema()).iter_errors(data)) == []
    assert len(SHIPPED) == 3


def test_a_scenario_is_loaded_from_any_path(tmp_path):
    file = tmp_path / "ours.toml"
    text = incident.scenarios()["black_friday"].read_text("utf-8")
    file.write_text(text.replace("Black Friday", "Ours"), "utf-8")
    assert incident.load(file).title.startswith("Ours")
    assert incident.load(str(file)).name == "ours"


SENTENCES = [
    (
        {"faults": ["one_tll"]},
        "faults, entry 1, is 'one_tll'; did you mean one_ttl? Known are one_ttl",
    ),
    ({"faults": ["one_ttl", "one_ttl"]}, "faults names 'one_ttl' twice"),
    ({"faults": []}, "faults has 0 entries; 1 to 6 are allowed"),
    ({"traffic__rate": 0}, "traffic.rate is 0; a number is allowed, above 0 and up to 50"),
    ({"traffic__rate": "many"}, "traffic.rate is 'many'; a number is allowed"),
    ({"traffic__rate": True}, "traffic.rate is True; a number is allowed"),
    ({"traffic__rate": float("nan")}, "traffic.rate is nan; a number is allowed"),
    ({"traffic__seed": 1.5}, "traffic.seed is 1.5; a whole number is allowed, 0 to 1,000,000"),
    ({"traffic__seed": 10**400}, "a whole number is allowed"),
    ({"traffic__speed": 3}, "traffic.speed is no key of a scenario; did you mean seed?"),
    ({"traffic": None}, "traffic is missing; expected was a table: Who comes when"),
    ({"traffic__mix__checkout": 3}, "traffic.mix.checkout is no key"),
    ({"traffic__mix": {"best": 0}}, "gives every page a weight of 0"),
    ({"traffic__rate": 50}, "traffic has 12,020 customers"),
    ({"traffic__bursts": [{"at": 9, "page": "best"}]}, "entry 1,.customers is missing"),
    ({"clock": "3 a.m."}, "clock is '3 a.m.'; The time of day at which it begins"),
    ({"title": ""}, "title has 0 characters; 1 to 120 are allowed"),
    ({"events__price_jobs": [500]}, "names second 500, and the night ends after 240"),
    ({"events__launch_at": None}, "without a product that appears nobody could see the fault"),
    ({"database": 7}, "database is 7; a table is allowed"),
]


@pytest.mark.parametrize(("change", "said"), SENTENCES, ids=[said[:40] for _, said in SENTENCES])
def test_a_wrong_value_is_told_by_file_key_what_was_seen_and_what_is_allowed(change, said):
    with pytest.raises(incident.IncidentError) as caught:
        scenario(changed(**change), file="ours.toml")
    text = str(caught.value)
    assert text.startswith("ours.toml: ")
    assert said in text
    assert is_one_sentence(text)


def is_one_sentence(text):
    return "\n" not in text and text.endswith(".") and "Traceback" not in text and len(text) < 600


def complaint(do):
    """What an IncidentError says; "" if there is none. Nothing else may be raised."""
    try:
        do()
    except incident.IncidentError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"title = ", b"[a]\n[a]", b"x = 1" + b"0" * 5_000, b"a = " + b"[" * 3_000],
)
def test_a_file_that_is_no_toml_is_one_sentence(tmp_path, content):
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(incident.IncidentError) as caught:
        incident.load(file)
    assert "broken.toml" in str(caught.value)
    assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize("name", ["", "nowhere", "no/such/file.toml", "x\0y", None, 7, "a" * 5_000])
def test_a_name_that_is_no_scenario_is_one_sentence_that_lists_the_known_ones(name):
    with pytest.raises(incident.IncidentError) as caught:
        incident.load(name)
    assert all(known in str(caught.value) for known in SHIPPED)
    assert is_one_sentence(str(caught.value))


def test_a_folder_is_no_scenario(tmp_path):
    with pytest.raises(incident.IncidentError, match="cannot be read"):
        incident.load(tmp_path)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from([*FAULTS, *PAGES, "03:00", "", 0, -1, 1e308]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(table, path=()):
    for name, value in table.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_stands_in_a_file_it_is_a_scenario_of_the_schema_or_one_sentence(data):
    table = changed()
    for _ in range(data.draw(st.integers(1, 3))):
        *above, name = data.draw(st.sampled_from(list(places(table))))
        inner = table
        for one in above:
            inner = inner[one]
        what = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "remove":
            del inner[name]
        elif what == "replace":
            inner[name] = data.draw(VALUES)
        else:
            inner[data.draw(st.text(max_size=8))] = data.draw(VALUES)
    said = complaint(lambda: scenario(table))
    fine = list(Draft202012Validator(schema()).iter_errors(table)) == []
    assert is_one_sentence(said) if said else fine


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return tmp_path_factory.mktemp("incident") / "damaged.toml"


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(noise=st.binary(max_size=40), at=st.integers(0, 1_500), cut=st.integers(0, 30))
def test_however_a_file_is_damaged_it_is_a_scenario_or_one_sentence(damaged, noise, at, cut):
    text = incident.scenarios()["three_in_the_morning"].read_bytes()
    damaged.write_bytes(text[:at] + noise + text[at + cut :])
    said = complaint(lambda: incident.load(damaged))
    assert not said or is_one_sentence(said)
