"""What came of judging an answer: the outcome, one sentence, a hint, and the run that shows it."""

from __future__ import annotations

import html
import re
import reprlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cachelab.record.trace import Event, Trace

Outcome = Literal["passed", "failed", "proved nothing", "not attempted"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

MIME = "application/vnd.cachelab.verdict+json"  # `as_dict`, for programs that read a notebook

# Told by word and sign as well as by colour; the colours are told apart by the colour-blind too,
# and stand on a light and on a dark page.
_SIGNS = {"passed": "✓", "failed": "✗", "proved nothing": "?", "not attempted": "○"}
_COLOURS = {
    "passed": "#009e73",
    "failed": "#d55e00",
    "proved nothing": "#cc79a7",
    "not attempted": "#8a8a8a",
}
_LINES = {
    "passed": "solid",
    "failed": "solid",
    "proved nothing": "double",
    "not attempted": "dashed",
}
_SUMMARY_CHARS = 400
_MOST_LANES, _MOST_CELLS, _WIDEST = 6, 16, 110  # of a drawing; characters in a text


@dataclass(frozen=True)
class Verdict:
    """The outcome of judging one answer; true when it passed.

    `outcome` is one of `OUTCOMES`: "proved nothing" means that the run could not have shown the
    fault, "not attempted" that the stub is still there. `summary` is one sentence: what was seen
    against what was expected. `counterexample` is the Trace of the run that failed, or None.
    `schedules` is how many orders of the actors were run. `printed` is what the answer printed,
    shortened. `why` explains the counter-example, a sentence each; `order` is the text with which
    `stage.replay` plays it again.
    """

    outcome: Outcome
    summary: str
    hint: str = ""
    counterexample: Trace | None = None
    schedules: int = 0
    exercise: str = ""
    printed: str = ""
    why: tuple[str, ...] = ()
    order: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            known = ", ".join(OUTCOMES)
            raise ValueError(f"An outcome is one of {known}; this is {self.outcome!r}.")
        object.__setattr__(self, "summary", one_line(self.summary))
        object.__setattr__(self, "hint", one_line(self.hint))
        object.__setattr__(self, "printed", without_addresses(self.printed))

    def __bool__(self) -> bool:
        return self.outcome == "passed"

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain values for JSON; the counter-example as lines of text."""
        shown = self.counterexample
        return {
            "exercise": self.exercise,
            "outcome": self.outcome,
            "summary": self.summary,
            "hint": self.hint,
            "schedules": self.schedules,
            "printed": self.printed,
            "why": list(self.why),
            "order": self.order,
            "counterexample": None if shown is None else str(shown).splitlines(),
        }

    def lanes(self) -> list[str]:
        """The explained counter-example as one line an actor; none if it is too wide for that."""
        shown = _lanes(self.counterexample) if self.why and self.counterexample else []
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        if not shown or sum(widths) + 3 * len(widths) > _WIDEST:
            return []
        return [
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in shown
        ]

    def __repr__(self) -> str:
        head = f"{_SIGNS[self.outcome]} {self.outcome}"
        lines = [f"{head}: {self.exercise}" if self.exercise else head, self.summary]
        if self.hint:
            lines.append(f"Hint: {self.hint}")
        if self.schedules > 1:
            lines.append(f"Orders tried: {self.schedules:,}")
        if self.why:
            lines.append("Why:")
            lines += [f"  {line}" for line in (*self.why, *self.lanes())]
        if self.order:
            lines.append(f"This order again: stage.replay(actors, {self.order!r})")
        if self.counterexample is not None:
            lines.append("What happened:")
            lines += [f"  {line}" for line in str(self.counterexample).splitlines()]
        if self.printed:
            lines.append("It printed:")
            lines += [f"  {line}" for line in self.printed.splitlines()]
        return "\n".join(lines)

    __str__ = __repr__

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": _panel(self)}


def one_line(text: str) -> str:
    """`text` without line breaks and addresses, cut where nobody would read on."""
    joined = " ".join(without_addresses(str(text)).split())
    return joined if len(joined) <= _SUMMARY_CHARS else joined[: _SUMMARY_CHARS - 3] + "..."


def without_addresses(text: str) -> str:
    """`<Cache object at 0x7f5b>` as `<Cache object>`: the same on every run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def short(value: Any, chars: int = 80) -> str:
    """A value as a sentence can hold it: at most `chars` characters, one line, no addresses.

    Only well-known types are asked for their own `repr`: that of a learner's class may do anything.
    """
    try:
        text = _SHORT.repr(value)
    except Exception:
        text = f"<{type(value).__name__} object>"
    text = " ".join(text.split())
    return text if len(text) <= chars else text[: chars - 3] + "..."


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 6
        self.maxlevel = 4

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        # In its own order, which is what the learner wrote; reprlib would sort the keys.
        if level <= 0:
            return "{...}"
        items = [
            f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}"
            for key, item in list(x.items())[: self.maxdict]
        ]
        return "{" + ", ".join(items + ["..."] * (len(x) > self.maxdict)) + "}"

    def repr_instance(self, x: Any, level: int) -> str:
        kind = type(x)
        if kind.__module__ in _KNOWN_MODULES:
            return without_addresses(repr(x))[:200]
        for base in _KNOWN_BASES:
            if isinstance(x, base):
                return f"{kind.__name__}({self.repr1(base(x), level)})"
        return f"<{kind.__name__} object>"


_KNOWN_MODULES = frozenset({"builtins", "datetime", "decimal", "fractions", "uuid"})
_KNOWN_BASES: tuple[Any, ...] = (dict, list, tuple, str, int, float)
_SHORT = _Short()


def _panel(verdict: Verdict) -> str:
    """The verdict for JupyterLab: inline styles only, so that it also stands in a saved page."""
    colour, line = _COLOURS[verdict.outcome], _LINES[verdict.outcome]
    parts = [
        f'<div role="status" style="border-left:6px {line} {colour};padding:4px 12px;'
        f'margin:4px 0;max-width:60em;line-height:1.4">',
        f'<div><span style="color:{colour};font-weight:bold" aria-hidden="true">'
        f"{_SIGNS[verdict.outcome]}</span> <strong>{verdict.outcome}</strong>",
        f' <code style="opacity:0.8">{html.escape(verdict.exercise)}</code></div>'
        if verdict.exercise
        else "</div>",
        f"<div>{html.escape(verdict.summary)}</div>",
    ]
    if verdict.hint:
        parts.append(f"<div><em>Hint:</em> {_with_code(verdict.hint)}</div>")
    if verdict.schedules > 1:
        parts.append(f'<div style="opacity:0.8">Orders tried: {verdict.schedules:,}</div>')
    parts += [f"<div>{_with_code(line)}</div>" for line in verdict.why]
    if verdict.why and verdict.counterexample is not None:
        parts.append(_drawn(_lanes(verdict.counterexample)))
    if verdict.order:
        again = f"`stage.replay(actors, {verdict.order!r})`"
        parts.append(f"<div>This order again: {_with_code(again)}</div>")
    if verdict.counterexample is not None:
        parts.append(_folded("What happened", str(verdict.counterexample)))
    if verdict.printed:
        parts.append(_folded("What it printed", verdict.printed))
    parts.append("</div>")
    return "".join(parts)


def _lanes(trace: Trace) -> list[list[str]]:
    """A row an actor: its name, then a cell for each event, empty where somebody else is on."""
    events = [event for event in trace.events if event.kind != "sleep"]
    actors = list(dict.fromkeys(event.actor for event in events))
    if len(actors) > _MOST_LANES or len(events) > _MOST_CELLS:
        return []
    return [
        [actor, *(_cell(event) if event.actor == actor else "" for event in events)]
        for actor in actors
    ]


def _cell(event: Event) -> str:
    how = "stale" if event.is_stale else event.kind
    return f"{event.what} {how}" if how in {"hit", "miss", "stale", "error"} else event.what


def _drawn(rows: list[list[str]]) -> str:
    """Lanes as a table: a row an actor, time to the right."""
    cell = "padding:2px 6px;text-align:left;border-bottom:1px solid"
    lines = [
        f'<tr><th scope="row" style="{cell}">{html.escape(name)}</th>'
        + "".join(f'<td style="{cell}">{html.escape(text)}</td>' for text in cells)
        + "</tr>"
        for name, *cells in rows
    ]
    table = f'<table style="border-collapse:collapse;font-size:0.9em">{"".join(lines)}</table>'
    return f'<div style="overflow-x:auto">{table}</div>' if rows else ""


def _with_code(text: str) -> str:
    """Escaped, with `backquoted` words set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _folded(title: str, text: str) -> str:
    return (
        f'<details style="margin-top:4px"><summary style="cursor:pointer">{title}</summary>'
        f'<pre style="overflow-x:auto;padding:4px 0;background:transparent">'
        f"{html.escape(text)}</pre>"
        "</details>"
    )
