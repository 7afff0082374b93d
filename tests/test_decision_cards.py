"""The decision cards of chapter 01: what the notebook and the lab show is what the check judges."""

from __future__ import annotations

import ast
import re
from dataclasses import astuple, fields
from pathlib import Path

import jupytext
import pytest

from cachelab.exercises.lab_01_latency_freshness_cost import CARDS, PLACES, ROOM, Card

CONTENT = Path(__file__).resolve().parents[1] / "content"
STEM = "01_latency_freshness_cost.py"


def cells(room: str, kind: str) -> list[str]:
    notebook = jupytext.read(CONTENT / room / STEM)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_the_notebooks_cards_have_the_fields_and_the_figures_that_are_judged() -> None:
    code = cells("notebooks", "code")
    (shape,) = [text for text in code if "class Card" in text]
    names = re.findall(r"^    (\w+): ", shape, re.MULTILINE)
    assert names == [one.name for one in fields(Card)]
    (listed,) = [text for text in code if text.startswith("CARDS = ")]
    statement = ast.parse(listed).body[0]
    assert isinstance(statement, ast.Assign)
    assert isinstance(statement.value, ast.List)
    shown = [
        tuple(ast.literal_eval(value) for value in call.args)
        for call in statement.value.elts
        if isinstance(call, ast.Call)
    ]
    assert shown == [astuple(card) for card in CARDS]


def test_the_labs_tables_have_the_figures_and_the_places_that_are_judged() -> None:
    (text,) = [text for text in cells("labs", "markdown") if "| data | keys" in text]
    rows = [
        [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    assert [row for row in rows if row[0] in {card.data for card in CARDS}] == [
        [str(value) for value in astuple(card)] for card in CARDS
    ]
    places = {row[0].strip('`"'): row[3] for row in rows if row[0].startswith("`")}
    assert tuple(places) == PLACES
    for place, room in places.items():
        assert (f"{ROOM[place]:g} GB" in room) if place in ROOM else room == ""


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.data)
def test_no_card_rules_out_every_place(card: Card) -> None:
    from cachelab.exercises.lab_01_latency_freshness_cost import _objection

    ttls = {1, card.budget // 4, card.budget}
    assert any(not _objection(card, place, ttl) for place in PLACES for ttl in ttls)
