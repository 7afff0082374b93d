"""Without an nginx a notebook says what is missing, in one sentence, wherever it uses the edge."""

from __future__ import annotations

import pytest
from answers import right

from cachelab import edge
from cachelab.edge.absent import Absent, start_or_explain
from cachelab.exercises import catalogue, check


@pytest.fixture
def _no_nginx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHELAB_EDGE", "none")


@pytest.mark.usefixtures("_no_nginx")
def test_what_stands_in_for_the_edge_shows_the_sentence_that_start_raises():
    with pytest.raises(edge.EdgeError) as raised:
        edge.start()
    assert repr(start_or_explain()) == str(raised.value)


@pytest.mark.usefixtures("_no_nginx")
@pytest.mark.parametrize("name", ["naive", "guarded", "origin", "wait", "forget"])
def test_every_use_of_it_says_the_same_sentence(name):
    shop = start_or_explain()
    with pytest.raises(edge.EdgeError, match="CACHELAB_EDGE is none"):
        getattr(shop, name)


def test_it_answers_a_front_end_that_asks_how_to_show_it():
    shop = Absent(edge.EdgeError("There is no nginx."))
    assert getattr(shop, "_repr_html_", None) is None


def test_with_an_nginx_it_is_the_edge():
    with start_or_explain() as shop:
        assert isinstance(shop, edge.Edge)


@pytest.mark.usefixtures("_no_nginx")
@pytest.mark.parametrize("exercise", catalogue("04_cdn_edge"), ids=lambda exercise: exercise.id)
def test_without_an_nginx_a_right_answer_of_lab_04_proves_nothing(exercise):
    verdict = check(exercise.id, right(exercise.id)[0])
    assert verdict.outcome == "proved nothing"
    assert "CACHELAB_EDGE is none" in verdict.summary


@pytest.mark.usefixtures("_no_nginx")
def test_without_an_nginx_a_header_that_breaks_a_rule_still_fails():
    verdict = check("04_cdn_edge.headers", lambda response: {"Cache-Control": "max-age=3600"})
    assert (verdict.outcome, "one 3,600 s old" in verdict.summary) == ("failed", True)
