"""Drawings of what happened: lanes (one row an actor) and the sequence diagram of a trace."""

from __future__ import annotations

import inspect
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cachelab.record.trace import Event, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by every kind of colour vision; shapes differ as well.
PALETTE = {
    "green": "#009E73",
    "orange": "#E69F00",
    "blue": "#0072B2",
    "sky": "#56B4E9",
    "red": "#D55E00",
    "pink": "#CC79A7",
    "grey": "#5f5f5f",
}


@dataclass(frozen=True)
class Mark:
    """How one kind of event is drawn: matplotlib's marker, its colour, filled or hollow."""

    label: str
    marker: str
    colour: str
    filled: bool = True


MARKS = {
    "hit": Mark("hit", "o", PALETTE["green"]),
    "stale": Mark("stale hit", "o", PALETTE["red"]),
    "miss": Mark("miss", "o", PALETTE["green"], filled=False),
    "fill": Mark("fill", "s", PALETTE["sky"]),
    "delete": Mark("delete", "x", PALETTE["sky"]),
    "command": Mark("command", ".", PALETTE["grey"]),
    "query": Mark("origin query", "D", PALETTE["blue"]),
    "write": Mark("origin write", "^", PALETTE["orange"]),
    "commit": Mark("commit", "|", PALETTE["orange"]),
    "rollback": Mark("rollback", "v", PALETTE["orange"], filled=False),
    "sleep": Mark("sleep", "_", PALETTE["grey"]),
    "wait": Mark("wait", "_", PALETTE["grey"]),
    "error": Mark("error", "X", PALETTE["red"]),
    "crash": Mark("crash", "P", PALETTE["red"]),
    "note": Mark("note", "*", PALETTE["pink"]),
}


@dataclass(frozen=True)
class Picture:
    """A finished figure with the sentence that says what it shows.

    A front end shows the picture; a terminal, a screen reader and nbval get the sentence.
    """

    figure: Figure
    description: str

    def __repr__(self) -> str:
        return self.description

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        # No software version in the file: the same drawing is the same bytes.
        self.figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


def lanes(trace: Trace, *, by: str = "order", most: int = 12) -> Picture:
    """One row an actor, time to the right; operations differ by shape as well as by colour.

    `by="order"` gives every event the same room (a real run, whose milliseconds mean nothing);
    `by="time"` uses the clock of the trace in seconds (a run on the stage). More than `most`
    actors are folded to the first, the last, and how many stand between.
    """
    if by not in {"order", "time"}:
        raise ValueError(f'by is "order" or "time"; this is {by!r}.')
    events = trace.events
    actors = list(dict.fromkeys(event.actor for event in events))
    rows, folded = _fold(actors, most)
    figure, axes = _axes(height=1.1 + 0.42 * max(1, len(rows)))
    place = {name: -number for number, name in enumerate(rows)}
    seen: dict[str, Mark] = {}
    crowd: dict[str, list[float]] = {}  # what the folded actors did, by mark
    for number, event in enumerate(events, 1):
        x = float(number) if by == "order" else event.at
        mark = "stale" if event.is_stale else event.kind
        seen[mark] = MARKS[mark]
        y = place.get(event.actor)
        if y is None:
            crowd.setdefault(mark, []).append(x)
            continue
        if by == "time" and event.took > 0:
            style = ":" if event.kind in {"wait", "sleep"} else "-"
            axes.plot([x - event.took, x], [y, y], style, color=MARKS[mark].colour, linewidth=2)
        _draw(axes, x, y, MARKS[mark])
        if event.is_stale:
            said = f"stale {trace.say(event.stale_for or 0.0)}"
            axes.annotate(said, (x, y), (0, 9), textcoords="offset points", ha="center", size=8)
    for kind, times in crowd.items():
        _draw_crowd(axes, times, place["..."], MARKS[kind])
    axes.set_yticks(list(place.values()), [_row_name(name, folded) for name in rows])
    axes.set_ylim(-len(rows) + 0.35, 0.65)
    if by == "order":
        axes.set_xlabel("events, in the order in which they happened")
        axes.set_xticks(range(1, len(events) + 1) if len(events) <= 20 else [1, len(events)])
        axes.set_xlim(0.4, max(1, len(events)) + 0.6)
    else:
        axes.set_xlabel("time in seconds")
    _legend(axes, list(seen.values()))
    many = f"{len(actors)} actor{'' if len(actors) == 1 else 's'}"
    return Picture(figure, f"Lanes of {many}, {len(events)} events: {trace.summary()}.")


@dataclass(frozen=True)
class Rich:
    """A text that a front end can show better, as `rich` of the type `mime`; others show `text`."""

    text: str
    mime: str
    rich: str

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {self.mime: self.rich, "text/plain": self.text}


def sequence(trace: Trace, *, most: int = 30) -> Rich:
    """The Mermaid sequence diagram of what happened, at most `most` events of it.

    JupyterLab draws it, everything else gets its text.
    Compare it with the diagram that was intended: the difference is the lesson.
    """
    events = [e for e in trace if e.kind not in {"sleep"}]
    names = list(dict.fromkeys(event.actor for event in events[:most]))
    ids = {name: f"A{number}" for number, name in enumerate(names)}
    lines = ["sequenceDiagram"]
    lines += [f"    participant {ids[name]} as {_safe(name)}" for name in names]
    lines += ["    participant Cache", "    participant Origin"]
    for event in events[:most]:
        lines += [f"    {line}" for line in _messages(trace, event, ids[event.actor])]
    if len(events) > most and names:
        over = f"Note over {ids[names[0]]},Origin: ... {len(events) - most} more events"
        lines.append(f"    {over}")
    text = "\n".join(lines)
    return Rich(text, "text/vnd.mermaid", text)


def show(thing: Any) -> Rich:
    """The source of a function, class or module, as it is in the library: never a second copy."""
    text = inspect.getsource(thing).rstrip()
    return Rich(text, "text/markdown", f"```python\n{text}\n```")


# Inside --------------------------------------------------------------------------------------


def _axes(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # slow to import: only when something is drawn

    figure = Figure(figsize=(8.4, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _fold(actors: list[str], most: int) -> tuple[list[str], int]:
    """The rows to draw, and how many actors the row of dots stands for."""
    if len(actors) <= most:
        return actors or ["nobody"], 0
    first, last = most // 2, (most - 1) // 2
    return [*actors[:first], "...", *actors[-last:]], len(actors) - first - last


def _row_name(name: str, folded: int) -> str:
    return f"({folded} more)" if name == "..." else name


def _draw(axes: Axes, x: float, y: float, mark: Mark) -> None:
    face = mark.colour if mark.filled else "white"
    line = mark.marker in "x|_"  # these have no face
    axes.plot(
        [x],
        [y],
        mark.marker,
        color=mark.colour,
        markersize=9,
        markeredgewidth=2.2 if line else 1.6,
        markerfacecolor=mark.colour if line else face,
    )
    if mark.label == "stale hit":
        axes.plot([x], [y], "o", color=mark.colour, markersize=15, markerfacecolor="none")


def _draw_crowd(axes: Axes, times: list[float], y: float, mark: Mark) -> None:
    """What many actors did, in one row: small and pale, so that density shows."""
    axes.plot(
        times,
        [y] * len(times),
        mark.marker,
        color=mark.colour,
        markerfacecolor=mark.colour if mark.filled else "white",
        markersize=5,
        alpha=0.35,
    )


def _legend(axes: Axes, marks: list[Mark]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=mark.marker,
            color=mark.colour,
            markersize=8,
            markeredgewidth=1.8,
            markerfacecolor=mark.colour if mark.filled else "white",
            label=mark.label,
        )
        for mark in marks
    ]
    if lines:
        axes.legend(
            handles=lines,
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=min(6, len(lines)),
            columnspacing=1.2,
            handletextpad=0.2,
            frameon=False,
            fontsize=9,
            borderaxespad=0.2,
        )


def _messages(trace: Trace, event: Event, actor: str) -> list[str]:
    on, detail = _safe(event.on), _safe(event.detail)
    if event.kind in {"hit", "miss"}:
        answer = event.kind.upper()
        if event.is_stale:
            answer += f", STALE: wrong for {trace.say(event.stale_for or 0.0)}"
        return [f"{actor}->>Cache: {event.what} {on}", f"Cache-->>{actor}: {answer}"]
    if event.kind in {"fill", "delete", "command"}:
        more = f" ({detail})" if detail else ""
        return [f"{actor}->>Cache: {event.what} {on}{more}"]
    if event.kind in {"query", "write"}:
        return [f"{actor}->>Origin: {event.what} {on}", f"Origin-->>{actor}: {detail}"]
    if event.kind in {"commit", "rollback"}:
        return [f"{actor}->>Origin: {event.what}"]
    if event.kind == "error":
        where = "Origin" if event.what in {"SELECT", "INSERT", "UPDATE", "DELETE"} else "Cache"
        return [f"{actor}-x{where}: {event.what} {on} ({detail})"]
    return [f"Note over {actor}: {' '.join(filter(None, [_safe(event.what), on, detail]))}"]


def _safe(text: str) -> str:
    """Text that Mermaid does not read as its own syntax."""
    return text.replace(";", ",").replace("#", "no. ").replace("\n", " ").replace("%%", "%")
