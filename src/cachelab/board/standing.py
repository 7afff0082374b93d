"""The instructor's side of the board: who is where, which exercise is hard, what goes wrong.

What is on the board was written by others: it is read with suspicion, and shown as plain text.
"""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import fmean
from typing import Any

import redis

from cachelab.board.posting import JOINED, SCHEMA
from cachelab.board.stream import (
    BOARD,
    LONGEST_MESSAGE,
    LONGEST_NAME,
    ROSTER,
    BoardError,
    connect,
    place,
    plain,
    reason,
)
from cachelab.record.verdict import OUTCOMES

PAGE = 5_000
STUCK = 3  # failures in a row on one exercise, after which somebody should go and look
EXERCISE = re.compile(r"\d\d_[a-z0-9_]{1,40}\.[a-z0-9_]{1,40}")
VERDICT = re.compile(r"[0-9a-f]{16}")
JUDGED = {"passed", "failed", "proved nothing"}


# Counting ------------------------------------------------------------------------------------


@dataclass
class Person:
    """One learner, as far as the board knows."""

    name: str
    at: float  # when last heard of, seconds since 1970 by the clock of the board's server
    exercise: str = ""
    outcome: str = JOINED
    passed: set[str] = field(default_factory=set)
    tries: Counter[str] = field(default_factory=Counter)  # until passed, that one included
    failures: int = 0  # in a row, on the exercise where they are

    @property
    def is_stuck(self) -> bool:
        """Whether somebody should go and look."""
        return self.failures >= STUCK


@dataclass
class Board:
    """What the verdicts on the board add up to; `read` takes in those that are new."""

    people: dict[tuple[str, str], Person] = field(default_factory=dict)
    wrong: dict[tuple[str, str], Counter[tuple[str, str]]] = field(default_factory=dict)
    judged: Counter[str] = field(default_factory=Counter)  # verdicts, by exercise
    failed: Counter[str] = field(default_factory=Counter)
    verdicts: int = 0
    twice: int = 0  # the same verdict again: sent anew after its answer was lost
    unread: int = 0  # entries that are no verdicts
    _seen: set[str] = field(default_factory=set, repr=False)
    _last: dict[str, str] = field(default_factory=dict, repr=False)

    def read(self, client: redis.Redis) -> int:
        """Take in what was appended since the last call, and return how many entries that were."""
        new = 0
        users: Any = client.hkeys(ROSTER)
        for stream in (BOARD, *(f"{BOARD}:{name}" for name in users)):
            self._last.setdefault(stream, "0-0")
        while True:
            asked: dict[Any, Any] = dict(self._last)
            answer: Any = client.xread(asked, count=PAGE) or {}
            pages = answer.items() if isinstance(answer, dict) else answer
            got = 0
            for stream, entries in pages:
                # RESP3 wraps the entries of a stream in one more list.
                rows = entries[0] if entries and isinstance(entries[0], list) else entries
                for entry, fields in rows:
                    self.add(stream, entry, fields or {})
                    self._last[stream] = entry
                    got += 1
            new += got
            if not got:
                return new

    def add(self, stream: str, entry: str, fields: Mapping[str, str]) -> None:
        """Take in one entry of a stream; what is no verdict is counted and left out."""
        exercise, outcome = fields.get("exercise", ""), fields.get("outcome", "")
        verdict, who = fields.get("id", ""), fields.get("learner", "")[: LONGEST_NAME + 5]
        fits = EXERCISE.fullmatch(exercise) if outcome in OUTCOMES else outcome == JOINED
        if fields.get("v") != SCHEMA or not VERDICT.fullmatch(verdict) or not who or not fits:
            self.unread += 1
            return
        if verdict in self._seen:
            self.twice += 1
            return
        self._seen.add(verdict)
        name = plain(fields.get("name", ""), LONGEST_NAME) or "(no name)"
        at = int(entry.partition("-")[0]) / 1000
        # The stream is part of who it is: nobody passes for a learner with a stream of their own.
        person = self.people.setdefault((stream, who), Person(name, at))
        person.name, person.at = name, max(at, person.at)
        if outcome == JOINED:
            return
        self.verdicts += 1
        if exercise != person.exercise:
            person.failures = 0
        person.exercise, person.outcome = exercise, outcome
        if outcome not in JUDGED:
            return
        self.judged[exercise] += 1
        if exercise not in person.passed:
            person.tries[exercise] += 1
        if outcome == "passed":
            person.passed.add(exercise)
            person.failures = 0
            return
        person.failures += 1
        self.failed[exercise] += outcome == "failed"
        said = plain(fields.get("message", ""), LONGEST_MESSAGE) or "(nothing said)"
        self.wrong.setdefault((exercise, said), Counter())[stream, who] += 1

    # Telling ---------------------------------------------------------------------------------

    def as_dict(self, now: float | None = None) -> dict[str, Any]:
        """All of it as plain values for JSON; the shape is that of `board.json`."""
        return {
            "schema": 1,
            "learners": len(self.people),
            "verdicts": self.verdicts,
            "sent_again": self.twice,
            "unread": self.unread,
            "exercises": self._exercises(),
            "wrong_answers": self._wrong(),
            "people": self._people(time.time() if now is None else now),
        }

    def _people(self, now: float) -> list[dict[str, Any]]:
        """The stuck first, then by name; two of one name are told apart by a number."""
        taken: Counter[str] = Counter()
        rows = []
        for person in self.people.values():
            taken[person.name] += 1
            again = taken[person.name]
            rows.append(
                {
                    "name": person.name if again == 1 else f"{person.name} ({again})",
                    "exercise": person.exercise,
                    "outcome": person.outcome,
                    "tries": person.tries[person.exercise] if person.exercise else 0,
                    "passed": len(person.passed),
                    "stuck": person.is_stuck,
                    "minutes_ago": round(max(0.0, now - person.at) / 60, 1),
                }
            )
        return sorted(rows, key=lambda row: (not row["stuck"], row["name"].casefold()))

    def _exercises(self) -> list[dict[str, Any]]:
        tried: dict[str, list[Person]] = {}
        for person in self.people.values():
            for exercise in person.tries:
                tried.setdefault(exercise, []).append(person)
        rows = []
        for exercise, people in sorted(tried.items()):
            through = [one.tries[exercise] for one in people if exercise in one.passed]
            judged = self.judged[exercise]
            rows.append(
                {
                    "exercise": exercise,
                    "tried": len(people),
                    "passed": len(through),
                    "failed_share": round(self.failed[exercise] / judged, 3) if judged else 0.0,
                    "tries_until_passed": round(fmean(through), 2) if through else None,
                }
            )
        return rows

    def _wrong(self) -> list[dict[str, Any]]:
        rows = [
            {
                "exercise": exercise,
                "message": message,
                "learners": len(who),
                "times": sum(who.values()),
            }
            for (exercise, message), who in self.wrong.items()
        ]
        return sorted(rows, key=lambda row: (-row["learners"], -row["times"], row["exercise"]))


# Showing -------------------------------------------------------------------------------------

Row = Sequence[str]


def tables(told: Mapping[str, Any], rows: int) -> Iterator[tuple[str, Row, list[Row]]]:
    """Three tables, each a title, its columns and at most `rows` rows, from `Board.as_dict`."""
    yield (
        "Which exercise is hard",
        ("exercise", "tried", "passed", "failed", "tries until passed"),
        [
            (
                one["exercise"],
                f"{one['tried']:,}",
                f"{one['passed']:,}",
                f"{one['failed_share']:.0%} of verdicts",
                "-" if one["tries_until_passed"] is None else f"{one['tries_until_passed']:.1f}",
            )
            for one in told["exercises"][-rows:]
        ],
    )
    yield (
        "Which wrong answers are common",
        ("learners", "times", "exercise", "message"),
        [
            (f"{one['learners']:,}", f"{one['times']:,}", one["exercise"], one["message"])
            for one in told["wrong_answers"][: max(5, rows // 2)]
        ],
    )
    yield (
        "Who is where",
        ("name", "stuck", "exercise", "outcome", "tries", "passed in all", "last heard of"),
        [
            (
                one["name"],
                "STUCK" if one["stuck"] else "",
                one["exercise"] or "-",
                one["outcome"],
                f"{one['tries']}",
                f"{one['passed']}",
                f"{one['minutes_ago']:.0f} min ago",
            )
            for one in told["people"][:rows]
        ],
    )


def headline(told: Mapping[str, Any]) -> str:
    """How much is on the board, in one line."""
    stuck = sum(one["stuck"] for one in told["people"])
    parts = [f"{told['learners']:,} learners", f"{told['verdicts']:,} verdicts", f"{stuck} stuck"]
    if told["unread"]:
        parts.append(f"{told['unread']:,} entries that are no verdicts")
    return ", ".join(parts)


def as_text(told: Mapping[str, Any], rows: int = 40) -> str:
    """The board for a terminal."""
    lines = [f"Class board: {headline(told)}"]
    for title, columns, body in tables(told, rows):
        lines += ["", title]
        if not body:
            lines.append("  (nothing yet)")
            continue
        widths = [max(len(row[at]) for row in (columns, *body)) for at in range(len(columns))]
        for row in (columns, *body):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(("  " + "  ".join(cells)).rstrip())
    left_out = len(told["people"]) - rows
    if left_out > 0:
        lines.append(f"  ... and {left_out:,} more; --json tells of all")
    return "\n".join(lines)


def as_html(told: Mapping[str, Any], rows: int = 60) -> str:
    """The board for a notebook."""
    parts = [f"<p><strong>Class board:</strong> {escape(headline(told))}</p>"]
    for title, columns, body in tables(told, rows):
        head = "".join(f'<th style="text-align:left">{escape(one)}</th>' for one in columns)
        filled = "".join(
            "<tr>"
            + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row)
            + "</tr>"
            for row in body
        )
        empty = "" if body else "<p>(nothing yet)</p>"
        parts.append(
            f"<table><caption><strong>{escape(title)}</strong></caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{filled}</tbody></table>{empty}"
        )
    return "".join(parts)


class Watch:
    """A board that is read again each time it is shown."""

    def __init__(self, url: str) -> None:
        if not url:
            raise BoardError(
                "There is no board to watch: set CACHELAB_CLASS_URL, or name its Redis,"
                " redis://USER:PASSWORD@HOST:PORT."
            )
        self.place = place(url)
        self.board = Board()
        self._client = connect(url)

    def read(self) -> dict[str, Any]:
        """The board as it is now, as `Board.as_dict`; BoardError when it cannot be read."""
        try:
            self.board.read(self._client)
        except redis.exceptions.NoPermissionError:
            raise BoardError(
                f"This user may not read the board at {self.place}: use the address with which"
                " the class was made, not a learner's."
            ) from None
        except (redis.RedisError, OSError) as error:
            raise BoardError(
                f"The board at {self.place} cannot be read ({reason(error)})."
            ) from None
        return self.board.as_dict()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        told = self.read()
        return {"text/plain": as_text(told), "text/html": as_html(told)}

    def live(self, minutes: float = 90.0, every: float = 2.0) -> None:
        """Show the board in this cell and keep it up to date; the stop button ends it."""
        from IPython.display import HTML, DisplayHandle

        until = time.monotonic() + 60 * minutes
        shown = DisplayHandle()
        shown.display(HTML(as_html(self.read())))
        while time.monotonic() < until:
            try:
                time.sleep(min(every, max(0.0, until - time.monotonic())))
                shown.update(HTML(as_html(self.read())))
            except KeyboardInterrupt:
                return
