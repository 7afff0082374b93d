"""A guess is kept before the answer is shown, and stands beside it after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cachelab.figures import predict as module
from cachelab.figures.predict import parsed, predict, recap, reveal

VIEW = "application/vnd.jupyter.widget-view+json"
ASK = "How many of 800 reach the database?"


@pytest.fixture(autouse=True)
def fresh_notebook() -> Iterator[None]:
    module._asked.clear()
    yield
    module._asked.clear()


def test_without_a_front_end_it_says_one_known_line_and_goes_on() -> None:
    asked = predict(ASK, key="naive", unit="readers")
    assert repr(asked) == f"Predict: {ASK} (in readers)\nYour guess: none yet."
    assert repr(reveal("naive", 41)) == f"{ASK}\nYour guess: none. Result: 41 readers."
    assert "none" in repr(recap())


def test_a_number_is_kept_while_it_is_written() -> None:
    asked = predict(ASK, key="naive", unit="readers")
    asked.entry.value = "1,2"
    asked.entry.value = "1,200"
    assert repr(asked).endswith("Your guess: 1,200 readers.")


def test_what_is_no_number_is_named_and_loses_nothing() -> None:
    asked = predict(ASK, key="naive", unit="readers")
    asked.entry.value = "800"
    asked.entry.value = "many <b>"
    assert "is not a number" in asked.children[-1].value
    assert "Kept: 800 readers." in asked.children[-1].value
    assert "<b>" not in asked.children[-1].value
    assert "Your guess: 800 readers" in repr(reveal("naive", 41))


def test_a_guess_taken_back_is_none() -> None:
    asked = predict(ASK, key="naive")
    asked.entry.value = "800"
    asked.entry.value = ""
    assert "Your guess: none yet." in repr(asked)


def test_a_choice_begins_with_nothing_chosen() -> None:
    asked = predict("Does jitter help one hot key?", key="jitter", choices=["yes", "no"])
    assert asked.entry.value is None
    assert repr(asked).startswith("Predict: Does jitter help one hot key? (yes / no)\n")
    asked.entry.value = "yes"
    said = repr(reveal("jitter", "no"))
    assert said.endswith("Your guess: yes. Result: no. Not this one.")


def test_a_guess_made_after_the_answer_does_not_count() -> None:
    asked = predict(ASK, key="naive")
    asked.entry.value = "800"
    reveal("naive", 41)
    asked.entry.value = "41"
    assert "800" in repr(recap())
    assert "Your guess: 800. Result: 41" in repr(reveal("naive", 41))


def test_asking_again_keeps_the_guess_and_takes_a_new_one() -> None:
    predict(ASK, key="naive").entry.value = "800"
    reveal("naive", 41)
    again = predict(ASK, key="naive")
    assert "Your guess: 800." in repr(again)
    assert again.entry.value == "800"
    assert "not revealed yet" in repr(recap())
    again.entry.value = "41"
    assert repr(reveal("naive", 41)).endswith("Result: 41. Exactly.")


def test_another_question_under_the_same_key_begins_without_a_guess() -> None:
    predict(ASK, key="naive").entry.value = "800"
    assert "none yet" in repr(predict("How long is the longest wait?", key="naive", unit="s"))


@pytest.mark.parametrize(
    ("guess", "result", "said"),
    [
        ("800", 41, "20 times too high."),
        ("1", 41, "41 times too low."),
        ("100", 41, "2.4 times too high."),
        ("40", 41, "Off by 2 %."),
        ("41", 41, "Exactly."),
        ("-800", -41, "20 times too high."),
        ("0", 41, "Result: 41."),
        ("5", 0, "Result: 0."),
        ("0", 0, "Exactly."),
    ],
)
def test_a_number_is_judged_by_its_size(guess: str, result: float, said: str) -> None:
    predict(ASK, key="naive").entry.value = guess
    assert repr(reveal("naive", result)).endswith(said)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("800", 800),
        (" 1,200 ", 1200),
        ("1 200", 1200),
        ("0.5", 0.5),
        ("8 s", 8),
        ("1e3", 1000),
        ("-3", -3),
        ("", None),
        ("all", None),
        ("nan", None),
        ("inf", None),
        ("1 to 5", None),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, number: float | None) -> None:
    assert parsed(text) == number


def test_the_recap_lists_every_question_in_order_with_guess_and_result() -> None:
    assert repr(recap()) == "No question was asked yet."
    assert "text/html" not in recap()._repr_mimebundle_()
    predict(ASK, key="naive", unit="readers").entry.value = "800"
    predict("Is 1 < 2?", key="less", choices=("yes", "no"))
    reveal("naive", 41)
    assert repr(recap()).splitlines() == [
        "question                             your guess   result",
        "--------------------------------------------------------",
        "How many of 800 reach the database?  800 readers  41 readers",
        "Is 1 < 2?                            none         not revealed yet",
    ]
    table = recap()._repr_mimebundle_()["text/html"]
    assert table.count("<tr>") == 3
    assert '<th scope="col">your guess</th>' in table
    assert "Is 1 &lt; 2?" in table


def test_a_stored_notebook_holds_the_line_and_not_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = predict(ASK, key="naive")
    assert asked._repr_mimebundle_()[VIEW]["model_id"] == asked.model_id
    monkeypatch.setenv("CACHELAB_BUILDING", "1")
    assert set(asked._repr_mimebundle_()) == {"text/plain"}


def test_a_wrong_call_is_refused_with_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"No question has the key 'naive'; asked so far: none\."):
        reveal("naive", 41)
    with pytest.raises(ValueError, match=r"A choice has no unit"):
        predict(ASK, key="naive", unit="readers", choices=["1", "41"])
    with pytest.raises(ValueError, match=r"at least two different answers"):
        predict(ASK, key="naive", choices=["1", "1"])
    predict(ASK, key="naive")
    with pytest.raises(ValueError, match=r"must be a number, got 'many'"):
        reveal("naive", "many")
    predict("Which?", key="which", choices=["queue", "sharing"])
    with pytest.raises(ValueError, match=r"none of the choices: queue, sharing"):
        reveal("which", "other")


@pytest.mark.parametrize(
    ("unit", "answer", "told"),
    [("calls", 1, "1 call."), ("calls", 2, "2 calls."), ("s", 1, "1 s.")],
)
def test_one_of_a_unit_is_told_in_the_singular(unit: str, answer: int, told: str) -> None:
    predict(ASK, key="one", unit=unit)
    assert repr(reveal("one", answer)).endswith(told)
