"""A scenario: a night's traffic, what else happens, the planted faults and the pager, as a file.

The format is `incident.json`, and it is read from there: what the schema says is what is
checked, and each fault of a file is one sentence.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from cachelab.incident.parts import FAULTS
from cachelab.process.errors import OneSentence
from cachelab.record.verdict import short

MOST_REQUESTS = 5_000


class IncidentError(OneSentence, ValueError):
    """A scenario that cannot be used, or a night that cannot be played; one sentence says why."""


@dataclass(frozen=True)
class Surge:
    """So many customers in one instant, `at` seconds, all on one kind of page."""

    at: float
    customers: int
    page: str


@dataclass(frozen=True)
class Targets:
    """What is good enough: at most so many wrong answers, slow answers and queries."""

    wrong: int
    slow: int
    queries: int


@dataclass(frozen=True)
class Scenario:
    """A night. Times are seconds from its start, `rate` is customers a second.

    `mix`: pages and their weights; `price_jobs`: when prices are changed; `stock_every`: seconds
    between two sales; `launch_at`: when the missing product appears, or None; `restart_every`:
    seconds after which a pod is restarted, or None; `slots`: statements that the database works on
    at once; `faults`: names from the catalogue.
    """

    name: str
    title: str
    pager: str
    clock: str
    faults: tuple[str, ...]
    seed: int
    seconds: float
    rate: float
    mix: dict[str, float]
    bursts: tuple[Surge, ...]
    price_jobs: tuple[float, ...]
    stock_every: float
    launch_at: float | None
    restart_every: float | None
    slots: int
    good: Targets

    def time_of_day(self, seconds: float, places: int = 0) -> str:
        """What the clock on the wall says after so many seconds: '03:14:07'."""
        hours, minutes = map(int, self.clock.split(":"))
        whole = math.floor(seconds * 10**places + 1e-6) / 10**places
        total = 3_600 * hours + 60 * minutes + whole
        width = 3 + places if places else 2
        return (
            f"{int(total // 3_600) % 24:02}:{int(total // 60) % 60:02}:"
            f"{total % 60:0{width}.{places}f}"
        )


# Which there are -----------------------------------------------------------------------------


def scenarios() -> dict[str, Path]:
    """The scenarios that come with the workbook: name to file."""
    for folder in _folders():
        if found := sorted(folder.glob("*.toml")):
            return {path.stem: path for path in found}
    return {}


def _folders() -> Iterator[Path]:
    package = Path(__file__).resolve().parents[1]
    yield package / "scenarios"  # in a wheel
    yield package.parents[1] / "workshop" / "scenarios"  # in the repository
    for folder in (Path.cwd(), *Path.cwd().parents):
        yield folder / "workshop" / "scenarios"


def load(name: str | Path) -> Scenario:
    """The scenario with this name, or in this file; IncidentError, one sentence, if it is none."""
    path = _path_of(name)
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise IncidentError(f"{path} cannot be read: {reason}.") from None
    except UnicodeDecodeError:
        raise IncidentError(f"{path.name} is not UTF-8 text; a TOML file was expected.") from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())[:160] or "it is nested too deeply"
        raise IncidentError(f"{path.name} is not a TOML file: {said.rstrip('.')}.") from None
    return scenario(data, path.stem, path.name)


def _path_of(name: str | Path) -> Path:
    known = scenarios()
    if isinstance(name, str) and name in known:
        return known[name]
    listed = ", ".join(known) or "none"
    if not isinstance(name, (str, Path)) or "\0" in str(name) or not str(name):
        raise IncidentError(
            f"A scenario is named by a text or a path, and this is {short(name)}; known are"
            f" {listed}."
        )
    path = Path(name)
    try:
        there = path.exists()
    except OSError:
        there = False
    if not there:
        close = difflib.get_close_matches(path.stem, known, n=1)
        advice = f"did you mean {close[0]}? Known are" if close else "known are"
        raise IncidentError(
            f"There is no scenario {short(str(name))}: {advice} {listed}, or give the path of a"
            " .toml file."
        )
    return path


def scenario(data: dict[str, Any], name: str = "scenario", file: str = "scenario") -> Scenario:
    """A scenario from what a TOML file holds; IncidentError names the file, the key, the rule."""
    for key, complaint in _complaints(data, schema(), ""):
        raise IncidentError(f"{file}: {key}{complaint}.")
    traffic, events = data["traffic"], data.get("events", {})
    made = Scenario(
        name=name,
        title=data["title"],
        pager=data["pager"].strip(),
        clock=data["clock"],
        faults=tuple(fault for fault in FAULTS if fault in data["faults"]),
        seed=traffic["seed"],
        seconds=float(traffic["seconds"]),
        rate=float(traffic["rate"]),
        mix={page: float(share) for page, share in traffic["mix"].items() if share},
        bursts=tuple(Surge(float(b["at"]), b["customers"], b["page"]) for b in _bursts(traffic)),
        price_jobs=tuple(sorted(map(float, events.get("price_jobs", [])))),
        stock_every=float(events.get("stock_every", 0)),
        launch_at=_optional(events.get("launch_at")),
        restart_every=_optional(events.get("restart_every")),
        slots=data["database"]["slots"],
        good=Targets(**data["good"]),
    )
    for complaint in _cross_field_errors(made):
        raise IncidentError(f"{file}: {complaint}.")
    return made


def _bursts(traffic: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = traffic.get("bursts", [])
    return found


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _cross_field_errors(made: Scenario) -> Iterator[str]:
    """What no single value shows."""
    if not made.mix:
        yield "traffic.mix gives every page a weight of 0; at least one must be above it"
    total = made.rate * made.seconds + sum(burst.customers for burst in made.bursts)
    if total > MOST_REQUESTS:
        yield (
            f"traffic has {total:,.0f} customers (rate x seconds and bursts); at most"
            f" {MOST_REQUESTS:,} are allowed"
        )
    times = [("traffic.bursts", burst.at) for burst in made.bursts]
    times += [("events.price_jobs", at) for at in made.price_jobs]
    times += [("events.launch_at", made.launch_at)] if made.launch_at is not None else []
    for key, at in times:
        if at >= made.seconds:
            yield (
                f"{key} names second {at:g}, and the night ends after {made.seconds:g}; an earlier"
                " one is allowed"
            )
    if "missing" in made.mix and made.launch_at is None and "absent_for_ever" in made.faults:
        yield (
            "absent_for_ever is planted and events.launch_at is not there; without a product that"
            " appears nobody could see the fault"
        )


# The schema ----------------------------------------------------------------------------------


@cache
def schema() -> dict[str, Any]:
    """`incident.json`, with the catalogue's faults in their place."""
    text = files("cachelab").joinpath("incident/incident.json").read_text("utf-8")
    read: dict[str, Any] = json.loads(text)
    return read


_TYPES: dict[str, Any] = {
    "object": (dict, "a table"),
    "array": (list, "a list"),
    "string": (str, "a text"),
    "integer": (int, "a whole number"),
    "number": ((int, float), "a number"),
}


def _complaints(value: Any, rule: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a value, as (key, sentence about it); the first is enough."""
    kind, called = _TYPES[rule["type"]]
    if not isinstance(value, kind) or isinstance(value, bool):
        yield key or "it", f" is {short(value)}; {called} is allowed{_range(rule)}"
    elif isinstance(value, dict):
        yield from _of_table(value, rule, key)
    elif isinstance(value, list):
        yield from _of_list(value, rule, key)
    elif isinstance(value, str):
        yield from _of_text(value, rule, key)
    elif not _within(value, rule):
        yield key, f" is {short(value)}; {called} is allowed{_range(rule)}"


def _of_table(value: dict[str, Any], rule: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    known, dot = rule["properties"], f"{key}." if key else ""
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {close[0]}? Allowed are" if close else "allowed are"
            yield f"{dot}{_plain(name)}", f" is no key of a scenario; {advice} {', '.join(known)}"
    for name in rule.get("required", ()):
        if name not in value:
            said = known[name].get("description", "").rstrip(".")
            yield (
                f"{dot}{name}",
                f" is missing; expected was {_TYPES[known[name]['type']][1]}: {said}",
            )
    for name, part in value.items():
        if name in known:
            yield from _complaints(part, known[name], f"{dot}{name}")


def _of_list(value: list[Any], rule: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    low, high = rule.get("minItems", 0), rule.get("maxItems", 1_000)
    if not low <= len(value) <= high:
        yield key, f" has {len(value)} entries; {low} to {high} are allowed"
    for number, part in enumerate(value, 1):
        yield from _complaints(part, rule["items"], f"{key}, entry {number},")
    if rule.get("uniqueItems"):
        twice = [part for number, part in enumerate(value) if part in value[:number]]
        if twice:
            yield key, f" names {short(twice[0])} twice; once is allowed"


def _of_text(value: str, rule: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    if "enum" in rule and value not in rule["enum"]:
        close = difflib.get_close_matches(value, rule["enum"], n=1)
        advice = f"did you mean {close[0]}? Known are" if close else "known are"
        yield key, f" is {short(value)}; {advice} {', '.join(rule['enum'])}"
    if "pattern" in rule and not re.fullmatch(rule["pattern"], value):
        yield key, f" is {short(value)}; {rule['description'].rstrip('.')}"
    low, high = rule.get("minLength", 0), rule.get("maxLength", 10_000)
    if not low <= len(value) <= high:
        yield key, f" has {len(value)} characters; {low} to {high} are allowed"


def _within(value: float, rule: dict[str, Any]) -> bool:
    low, high = rule.get("minimum", -math.inf), rule.get("maximum", math.inf)
    above = rule.get("exclusiveMinimum", -math.inf)
    return bool(low <= value <= high and value > above)


def _range(rule: dict[str, Any]) -> str:
    if "exclusiveMinimum" in rule:
        return f", above {rule['exclusiveMinimum']:,} and up to {rule['maximum']:,}"
    return f", {rule['minimum']:,} to {rule['maximum']:,}" if "minimum" in rule else ""


def _plain(name: str) -> str:
    return name if re.fullmatch(r"[\w-]{1,40}", name) else short(name)
