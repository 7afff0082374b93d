"""A verdict reads well as text and as a panel, and is the same on every run."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError
from datetime import date
from html.parser import HTMLParser

import pytest

from cachelab.record.trace import Trace
from cachelab.record.verdict import OUTCOMES, Verdict, one_line, short


def a_trace() -> Trace:
    trace = Trace(clock=lambda: 0.0, actor=lambda: "reader")
    trace.add("miss", "GET", "user:1")
    trace.add("query", "SELECT", "users 1", "1 row")
    trace.add("note", "<b>not bold</b>")
    return trace


def full(outcome="failed") -> Verdict:
    return Verdict(
        outcome,
        "The second read gave 0; expected was {'id': 1} & <more>.",
        "Look at `json.loads`, not at `<eval>`.",
        a_trace(),
        1_000,
        "05_cache_aside.read",
        "looking\nfound",
    )


class Panel(HTMLParser):
    """Reads a panel: which tags, which attributes, what text; unbalanced tags are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_only_a_passed_verdict_is_true(outcome):
    assert bool(Verdict(outcome, "So it is.")) is (outcome == "passed")


def test_another_outcome_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^An outcome is one of passed, .*; this is 'fine'\.$"):
        Verdict("fine", "So it is.")


def test_a_verdict_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        full().outcome = "passed"


def test_as_text_it_says_everything_once():
    assert repr(full()).splitlines() == [
        "✗ failed: 05_cache_aside.read",
        "The second read gave 0; expected was {'id': 1} & <more>.",
        "Hint: Look at `json.loads`, not at `<eval>`.",
        "Orders tried: 1,000",
        "What happened:",
        *(f"  {line}" for line in str(a_trace()).splitlines()),
        "It printed:",
        "  looking",
        "  found",
    ]
    assert str(full()) == repr(full())


def test_a_passed_verdict_is_two_lines():
    assert repr(Verdict("passed", "All is well.", exercise="a.b")) == "✓ passed: a.b\nAll is well."


def test_four_outcomes_have_four_signs_words_and_borders():
    heads = {repr(Verdict(outcome, "So.")).splitlines()[0] for outcome in OUTCOMES}
    assert len(heads) == 4
    assert len({head.split()[0] for head in heads}) == 4
    borders = {
        re.search(r"border-left:([^;]*)", full(outcome)._repr_mimebundle_()["text/html"])[1]
        for outcome in OUTCOMES
    }
    assert len(borders) == 4


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_panel_has_the_same_words_escaped_and_nothing_that_runs(outcome):
    bundle = full(outcome)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    panel = Panel(bundle["text/html"])
    for piece in (outcome, "05_cache_aside.read", "& <more>.", "<b>not bold</b>", "looking"):
        assert piece in panel.text
    assert not {"script", "style", "link", "img", "b"} & set(panel.tags)
    names = {name for name, _ in panel.attributes}
    assert names <= {"style", "role", "aria-hidden"}  # no ids, no classes, no handlers
    assert panel.tags.count("details") == 2
    assert "<code>json.loads</code>" in bundle["text/html"]


def test_the_panel_stands_on_a_light_and_on_a_dark_page():
    """It sets no colour of text or page, but for the sign and the border."""
    html = full()._repr_mimebundle_()["text/html"]
    html = html.replace("background:transparent", "")
    assert "background" not in html
    coloured = re.findall(r"[^-]color:(#\w+)[^>]*>([^<]*)<", html)
    assert [text for _, text in coloured] == ["✗"]


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_sign_and_border_are_seen_on_white_and_on_jupyterlabs_dark_grey(outcome):
    html = Verdict(outcome, "So.")._repr_mimebundle_()["text/html"]
    colour = re.search(r"color:(#\w{6})", html)[1]
    assert contrast(colour, "#ffffff") >= 3
    assert contrast(colour, "#111111") >= 3


def test_a_summary_is_one_line_without_addresses():
    verdict = Verdict("failed", "It gave\n  <Cache object at 0x7f0a12> twice.", printed="at 0xff")
    assert verdict.summary == "It gave <Cache object> twice."
    assert len(one_line("word " * 1_000)) == 400


def test_as_a_dict_it_is_json():
    told = json.loads(json.dumps(full().as_dict()))
    assert told["outcome"] == "failed"
    assert told["counterexample"] == str(a_trace()).splitlines()
    assert Verdict("passed", "Fine.").as_dict()["counterexample"] is None


class Rude:
    def __repr__(self):
        raise KeyError("no")


class Liar(dict):
    def __repr__(self):
        return "x" * 10_000


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (0, "0"),
        ("", "''"),
        ([], "[]"),
        ({"b": 1, "a": 2}, "{'b': 1, 'a': 2}"),
        (b"bytes", "b'bytes'"),
        (date(2025, 1, 2), "datetime.date(2025, 1, 2)"),
        (Rude(), "<Rude object>"),
        ([Rude()], "[<Rude object>]"),
        (Liar(a=1), "Liar({'a': 1})"),
        (object(), "<object object>"),
        (len, "<built-in function len>"),
        (short, "<function short>"),
        ("two\nlines", r"'two\nlines'"),
        (ValueError("x"), "ValueError('x')"),
    ],
)
def test_a_value_is_shown_as_a_sentence_can_hold_it(value, shown):
    assert short(value) == shown


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000, list(range(1_000)), dict.fromkeys(range(50), "y" * 100), 10**5_000, {1, 2, 3}],
    ids=lambda value: type(value).__name__,
)
def test_a_long_value_is_cut_to_80_characters(value):
    assert len(short(value)) <= 80
    assert "\n" not in short(value)


def test_a_value_that_holds_itself_is_shown():
    loop: list = []
    loop.append(loop)
    assert len(short(loop)) <= 80
