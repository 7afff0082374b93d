"""Predict, run: ask for a guess before the answer is shown, and set the two side by side after."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets

VIEW = "application/vnd.jupyter.widget-view+json"
# Beyond this factor a guess is of the wrong size, and the factor is worth telling.
FAR = 1.5

Answer = float | str


@dataclass
class Asked:
    """One question of this notebook: what was asked, guessed and found (None: not yet)."""

    question: str
    unit: str
    choices: tuple[str, ...]
    guess: Answer | None = None
    result: Answer | None = None

    def shown(self, answer: Answer | None, missing: str) -> str:
        """An answer with its unit."""
        if answer is None:
            return missing
        if isinstance(answer, str):
            return answer
        one = answer == 1 and len(self.unit) > 1  # "1 call", but "1 s"
        return f"{_number(answer)} {self.unit.removesuffix('s') if one else self.unit}".strip()


# In the order in which they were asked; they live as long as the kernel.
_asked: dict[str, Asked] = {}


class Predict(ipywidgets.VBox):  # type: ignore[misc]
    """A question with a place for the guess: a choice, or a number with its unit."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._note = ipywidgets.HTML()
        self.entry = _entry(asked)
        self.entry.observe(self._guessed, names="value")
        words = ipywidgets.HTML(f"<p><strong>Predict:</strong> {escape(asked.question)}</p>")
        row = [self.entry] if asked.choices else [self.entry, ipywidgets.Label(asked.unit)]
        super().__init__([words, ipywidgets.HBox(row), self._note])
        self._tell()

    def _guessed(self, change: dict[str, Any]) -> None:
        asked = self._asked
        if asked.result is not None:  # too late: what was guessed before the answer stays
            return
        value = change["new"]
        if asked.choices:
            asked.guess = value
            self._tell()
            return
        number = parsed(value)
        if number is not None or not value.strip():
            asked.guess = number
            self._tell()
        else:
            kept = asked.shown(asked.guess, "none yet")
            self._say(f"{value!r} is not a number; write one such as 1,200 or 0.5. Kept: {kept}.")

    def _tell(self) -> None:
        self._say(f"Your guess: {self._asked.shown(self._asked.guess, 'none yet')}.")

    def _say(self, text: str) -> None:
        self._note.value = f'<p role="status">{escape(text)}</p>'

    def __repr__(self) -> str:
        asked = self._asked
        options = f" ({' / '.join(asked.choices)})" if asked.choices else ""
        unit = f" (in {asked.unit})" if asked.unit else ""
        guess = asked.shown(asked.guess, "none yet")
        return f"Predict: {asked.question}{options}{unit}\nYour guess: {guess}."

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        data: dict[str, Any] = {"text/plain": repr(self)}
        # A stored view would be of a model that is gone, and shown as an error.
        if os.environ.get("CACHELAB_BUILDING") != "1":
            view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            data[VIEW] = view
        return data


@dataclass(frozen=True)
class Comparison:
    """A guess beside its result, in one sentence each."""

    asked: Asked

    def __repr__(self) -> str:
        asked = self.asked
        guess = asked.shown(asked.guess, "none")
        result = asked.shown(asked.result, "none")
        return f"{asked.question}\nYour guess: {guess}. Result: {result}.{_judged(asked)}"


@dataclass(frozen=True)
class Recap:
    """All guesses and results so far; a table in a front end, the same rows in text."""

    rows: tuple[tuple[str, str, str], ...]

    HEADS = ("question", "your guess", "result")

    def __repr__(self) -> str:
        if not self.rows:
            return "No question was asked yet."
        wide = [max(map(len, column)) for column in zip(self.HEADS, *self.rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip()
            for row in (self.HEADS, *self.rows)
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        data = {"text/plain": repr(self)}
        if self.rows:
            heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in self.HEADS)
            body = "".join(
                "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
                for row in self.rows
            )
            data["text/html"] = (
                f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
            )
        return data


def predict(question: str, *, key: str, unit: str = "", choices: Sequence[str] = ()) -> Predict:
    """Ask `question`; the guess is kept under `key` until `reveal(key, result)`.

    With `choices` one of them is chosen, otherwise a number is written, in `unit`. Asking the
    same again keeps the guess and takes a new one until the next reveal. ValueError for a choice
    of fewer than two, or for both a unit and choices.
    """
    options = tuple(map(str, choices))
    if options and unit:
        raise ValueError(f"A choice has no unit: give either choices or unit={unit!r}, not both.")
    if options and len(set(options)) < max(2, len(options)):
        raise ValueError(f"A choice needs at least two different answers, got {list(options)!r}.")
    asked = Asked(question, unit, options)
    before = _asked.get(key)
    if before and (before.question, before.choices) == (question, options):
        asked.guess = before.guess
    _asked[key] = asked
    return Predict(asked)


def reveal(key: str, result: float | str) -> Comparison:
    """Set the result beside the guess; from now on the guess stays as it is.

    ValueError if nothing was asked under `key`, or if the result is not of the question's kind.
    """
    asked = _asked.get(key)
    if asked is None:
        known = ", ".join(_asked) or "none"
        raise ValueError(f"No question has the key {key!r}; asked so far: {known}.")
    if asked.choices:
        if result not in asked.choices:
            raise ValueError(
                f"The result {result!r} is none of the choices: {', '.join(asked.choices)}."
            )
        asked.result = str(result)
    else:
        try:
            asked.result = float(result)
        except (TypeError, ValueError):
            raise ValueError(f"The result of {key!r} must be a number, got {result!r}.") from None
    return Comparison(asked)


def recap() -> Recap:
    """Every question of this notebook so far, with guess and result."""
    return Recap(
        tuple(
            (
                asked.question,
                asked.shown(asked.guess, "none"),
                asked.shown(asked.result, "not revealed yet"),
            )
            for asked in _asked.values()
        )
    )


def parsed(text: str) -> float | None:
    """The finite number in `text` ("1,200", "1 200", "0.5", "8 s"), or None."""
    words = text.replace(",", "").replace("_", "").replace("\N{NO-BREAK SPACE}", " ").split()
    while len(words) > 1 and words[0].lstrip("+-").isdigit() and words[1].isdigit():
        words[:2] = [words[0] + words[1]]
    try:
        number = float(words[0]) if words else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and len(words) <= 2 else None


# Inside ----------------------------------------------------------------------------------------


def _entry(asked: Asked) -> Any:
    if asked.choices:
        return ipywidgets.RadioButtons(
            options=asked.choices, value=asked.guess, layout={"width": "max-content"}
        )
    written = _number(asked.guess) if isinstance(asked.guess, float) else ""
    return ipywidgets.Text(
        value=written,
        placeholder="a number",
        tooltip=f"Your guess in {asked.unit}" if asked.unit else "Your guess",
        layout={"width": "12em"},
    )


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _judged(asked: Asked) -> str:
    guess, result = asked.guess, asked.result
    if guess is None:
        return ""
    if isinstance(guess, str) or isinstance(result, str):
        return " Right." if guess == result else " Not this one."
    if guess == result:
        return " Exactly."
    if result is None or guess * result <= 0:
        return ""
    factor = max(guess / result, result / guess)
    if factor <= FAR:
        return f" Off by {100 * abs(guess - result) / abs(result):.0f} %."
    size = f"{factor:.1f}" if factor < 10 else f"{factor:,.0f}"
    return f" {size} times too {'high' if abs(guess) > abs(result) else 'low'}."
