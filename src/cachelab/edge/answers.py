"""What a reader got from the edge: an Answer with its headers as a panel, or an HttpBurst."""

from __future__ import annotations

import html
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

# The answers that were in the edge's store before the request came.
FROM_STORE = frozenset({"HIT", "STALE", "UPDATING", "REVALIDATED"})

WHO = {
    "HIT": "the edge's store",
    "STALE": "the edge's store, past its max-age, while one request asks the origin",
    "UPDATING": "the edge's store, past its max-age, while another request asks the origin",
    "REVALIDATED": "the edge's store, after the origin said 304: unchanged",
    "MISS": "the origin: the edge had no copy",
    "EXPIRED": "the origin: the edge's copy was too old",
    "BYPASS": "the origin: the edge was told not to look in its store",
    "": "the origin: no cache was asked",
}
SHOWN = ("Cache-Control", "ETag", "Vary", "Set-Cookie")


class Headers(Mapping[str, str]):
    """Header fields by name, in any spelling; lines of the same name are joined by ", "."""

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        self._fields: dict[str, tuple[str, str]] = {}
        for name, value in pairs:
            key, said = name.lower(), str(value)
            if key in self._fields and not isinstance(fields, Mapping):
                said = f"{self._fields[key][1]}, {said}"
            self._fields[key] = (name, said)

    @classmethod
    def parse(cls, lines: str) -> Headers:
        """From the lines of a message's head, without its first."""
        pairs = (line.partition(":") for line in lines.split("\r\n") if ":" in line)
        return cls((name.strip(), value.strip()) for name, _, value in pairs)

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][1]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._fields.values())

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


@dataclass(frozen=True)
class Answer:
    """One answer of a site.

    status: the HTTP status; took: seconds that the reader waited; arrived: when (s since 1970).
    """

    status: int
    headers: Headers
    body: bytes
    took: float
    arrived: float = field(default_factory=time.time)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body, read as JSON; ValueError when it is none."""
        return json.loads(self.body)

    @property
    def cache(self) -> str:
        """What the edge's cache did: MISS, HIT, STALE, UPDATING, EXPIRED, REVALIDATED, BYPASS."""
        return self.headers.get("X-Cache", "")

    @property
    def age(self) -> int | None:
        """Seconds since the origin made what was served; None for an answer fresh from there.

        Told from the origin's Date, which the edge passes on, by this machine's clock, in whole
        seconds (RFC 9111 section 4.2.3, plus an Age that came from further up). nginx itself sends
        no Age. It also keeps the old Date after a 304, so a copy that was revalidated counts from
        when its body was made, where the RFC would start anew.
        """
        if self.cache not in FROM_STORE:
            return None
        try:
            made = parsedate_to_datetime(self.headers["Date"]).timestamp()
        except (KeyError, ValueError):
            return None
        further_up = self.headers.get("Age", "")
        return max(0, int(self.arrived - made)) + (int(further_up) if further_up.isdigit() else 0)

    @property
    def edge_seconds(self) -> float:
        """How long the edge took to begin its answer, by its own clock, to the millisecond.

        nginx's $request_time: it counts from when nginx read the request, so what a crowd waits
        unread before that is only in `took`.
        """
        return float(self.headers.get("X-Edge-Seconds", "nan"))

    @property
    def who(self) -> str:
        """Who answered, in words."""
        return WHO.get(self.cache, self.cache)

    def __repr__(self) -> str:
        parts = [f"{self.status} {self.cache}".rstrip(), f"from {self.who}"]
        parts += [f"{name}: {self.headers[name]}" for name in SHOWN if name in self.headers]
        return " | ".join([*parts, _short(self.text) or "no body"])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        age = "none: fresh from the origin" if self.age is None else f"{self.age} s"
        rows = {
            "Status": str(self.status),
            "X-Cache": self.cache or "-",
            "Answered by": self.who,
            "Age": age,
            **{name: self.headers.get(name, "-") for name in SHOWN},
            "Body": _short(self.text, 200),
        }
        lines = "".join(
            f'<tr><th scope="row" style="{_CELL};white-space:nowrap;opacity:0.8">{name}</th>'
            f'<td style="{_CELL};font-family:monospace;overflow-wrap:anywhere">'
            f"{html.escape(value)}</td></tr>"
            for name, value in rows.items()
        )
        style = "dashed" if self.cache in FROM_STORE else "solid"
        return (
            f'<div style="border-left:6px {style} currentColor;padding:2px;margin:4px 0">'
            '<table style="border-collapse:collapse;margin:0;max-width:60em">'
            f"<tbody>{lines}</tbody></table></div>"
        )


_CELL = "text-align:left;vertical-align:top;padding:1px 10px;background:transparent"


@dataclass(frozen=True)
class HttpBurst:
    """What became of many readers.

    answers: one a reader, in the order of the readers (None where there is an error); errors:
    what those saw who got none; origin_calls: requests that reached the origin meanwhile,
    background refreshes included; seconds: from the first request to the last answer.
    """

    readers: int
    answers: list[Answer]
    errors: list[str]
    origin_calls: int
    seconds: float

    @property
    def statuses(self) -> dict[int, int]:
        """How many answers had which HTTP status."""
        return dict(sorted(Counter(answer.status for answer in self.answers).items()))

    @property
    def cache(self) -> dict[str, int]:
        """How many answers had which cache status, the rarest first."""
        counted = Counter(answer.cache for answer in self.answers)
        return dict(sorted(counted.items(), key=lambda each: (each[1], each[0])))

    @property
    def slowest(self) -> float:
        """Seconds the edge took, by its own clock, to begin its slowest answer.

        The readers of a burst share one thread with the origin: their own clocks (`took`) measure
        this notebook too.
        """
        return max((answer.edge_seconds for answer in self.answers), default=float("nan"))

    def __repr__(self) -> str:
        statuses = ", ".join(f"{count:,} × {status}" for status, count in self.statuses.items())
        cache = ", ".join(
            f"{count:,} {name or 'without a cache'}" for name, count in self.cache.items()
        )
        calls = f"{self.origin_calls:,} origin call{'' if self.origin_calls == 1 else 's'}"
        errors = [f"{len(self.errors)} errors, the first: {self.errors[0]}"] if self.errors else []
        return " | ".join([f"{self.readers:,} readers", statuses, cache, calls, *errors])


def _short(text: str, chars: int = 60) -> str:
    joined = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return joined if len(joined) <= chars else joined[: chars - 3] + "..."
