"""Evidence: which entries of a night's journal show which fault, and what to say of the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from cachelab.incident.night import NEW, Run
from cachelab.incident.parts import FAULTS, LONGEST, PROMISED
from cachelab.record.trace import Event

# Who was not there. A sign of each is on the pager or in the curves, and means something else.
INNOCENT = {
    "cache_down": "the cache does not answer",
    "memory_full": "the cache evicts what is needed",
    "missing_index": "a query that scans a whole table",
    "hot_key": "one key that is too much for its server",
}
SUSPECTS = {**{name: fault.said for name, fault in FAULTS.items()}, **INNOCENT}
_WHY_NOT = {
    "cache_down": "in the same second in which it was called unavailable it answered others",
    "memory_full": "its memory stood at 2 %, and no copy was gone before its time",
    "missing_index": "the slow query takes as long on a quiet night, where a copy hides it",
    "hot_key": "its server had 3 % of one CPU to do, and each trip took 2 ms",
}
LOOK = {
    "one_ttl": "a copy of stock, search or best that lives longer than it may, or that is served"
    " when it is older than was promised",
    "absent_for_ever": "the copy that says 'null' and has no TTL, or 'not found' after the launch",
    "hash_in_key": "the same words under another key than before",
    "lock_without_token": "a lock taken, or a query sent, while somebody else's query still runs,"
    " or a lock deleted that is not one's own any more",
    "delete_before_commit": "a delete that comes before its commit, what is stored between them,"
    " or what was served of it later",
    "pool_of_100": "why a client calls the cache unavailable",
}


def evidence(run: Run) -> dict[str, set[int]]:
    """For each planted fault the numbers of the entries that show it."""
    events = run.trace.events
    return {name: set(_FINDERS[name](run, events)) for name in run.faults}


def objection(run: Run, fault: str, number: Any, known: dict[str, set[int]]) -> str:
    """Why entry `number` does not show `fault`, in a clause; "" if it does."""
    many = len(run.trace)
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= many:
        return f"{str(number)[:20]} is no entry of the journal, which has 1 to {many:,}"
    if number in known[fault]:
        return ""
    line = " ".join(run.line(number).split())
    return f"entry {line} does not show it; look for {LOOK[fault]}"


def alibi(name: str) -> str:
    """Why an innocent suspect was not it."""
    return _WHY_NOT[name]


# Each yields the numbers of entries ----------------------------------------------------------

Events = list[Event]


def _one_ttl(run: Run, events: Events) -> Iterator[int]:
    filled = [e for e in events if e.actor == "deploy" and e.kind == "fill"]
    together = len({event.detail for event in filled}) == 1
    for number, event in enumerate(events, 1):
        kind = event.on.partition(":")[0]
        lives = re.search(r"TTL (\d+) s", event.detail)
        if event.kind == "fill" and lives:
            too_long = kind in LONGEST and int(lives[1]) > LONGEST[kind]
            if too_long or (together and event.actor == "deploy"):
                yield number
        elif (
            event.kind == "hit"
            and kind in {"stock", "search"}
            and (event.stale_for or 0) > PROMISED[kind]
        ):
            yield number


def _absent_for_ever(run: Run, events: Events) -> Iterator[int]:
    launch = run.night.launch_at
    for number, event in enumerate(events, 1):
        stays = event.on.startswith("product:") and event.detail == "no TTL"
        told = event.what.startswith(f"GET /missing/{NEW} 200 not found")
        late = launch is not None and event.at > launch + PROMISED["absent"]
        old = event.on == f"product:v1:{NEW}" and event.is_stale
        if stays or old or (told and late):
            yield number


def _hash_in_key(run: Run, events: Events) -> Iterator[int]:
    words = {a.request.who: a.request.about for a in run.answers if a.request.page == "search"}
    first: dict[str, str] = {}
    for number, event in enumerate(events, 1):
        asked = words.get(event.actor) if event.on.startswith("search:") else None
        if asked is not None and first.setdefault(asked, event.on) != event.on:
            yield number


def _lock_without_token(run: Run, events: Events) -> Iterator[int]:
    holder, working, second = "", set[str](), set[str]()
    for number, event in enumerate(events, 1):
        lock = event.on.startswith("lock:")
        if lock and event.kind == "command" and "done" in event.detail:
            if working:
                second.add(event.actor)
                yield number
            working.add(event.actor)
            holder = event.actor
        elif lock and event.kind == "delete":
            if event.actor != holder or event.detail:
                yield number
            holder = "" if event.actor == holder else holder
            working.discard(event.actor)
        elif lock and event.what.startswith("EVAL"):  # freed by a script, which asks for the token
            holder = "" if event.actor == holder else holder
            working.discard(event.actor)
        elif event.actor in second and event.kind in {"query", "fill", "note"}:
            yield number


def _delete_before_commit(run: Run, events: Events) -> Iterator[int]:
    open_jobs: dict[str, set[str]] = {}
    commits = {event.actor: n for n, event in enumerate(events, 1) if event.kind == "commit"}
    for number, event in enumerate(events, 1):
        if event.actor.startswith("price-job"):
            if event.kind == "delete" and number < commits.get(event.actor, 0):
                open_jobs[event.actor] = set(event.on.split(", "))
                yield number
            elif event.kind in {"write", "commit"} and event.actor in open_jobs:
                yield number
                if event.kind == "commit":
                    del open_jobs[event.actor]
        elif (event.kind == "fill" and any(event.on in keys for keys in open_jobs.values())) or (
            event.on.startswith("product:")
            and event.on != f"product:v1:{NEW}"
            and (event.stale_for or 0) > PROMISED["product"]
        ):
            yield number


def _pool_of_100(run: Run, events: Events) -> Iterator[int]:
    for number, event in enumerate(events, 1):
        if event.detail == "MaxConnectionsError" or "Too many connections" in event.what:
            yield number


_FINDERS: dict[str, Callable[[Run, Events], Iterator[int]]] = {
    "one_ttl": _one_ttl,
    "absent_for_ever": _absent_for_ever,
    "hash_in_key": _hash_in_key,
    "lock_without_token": _lock_without_token,
    "delete_before_commit": _delete_before_commit,
    "pool_of_100": _pool_of_100,
}
