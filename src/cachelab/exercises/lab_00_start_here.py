"""Checks and hints of lab 00: values go in and out of a cache unchanged."""

from __future__ import annotations

import json
from typing import Any

from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.record.verdict import short

VALUES: tuple[Any, ...] = ({"to": "Alice", "times": 0}, 0, "", [], None, "a text", 2.5, True)


def judge_remember(answer: Any, trial: Trial) -> None:
    """Stored as JSON, under the key that was named, for the time that was named."""
    for seconds in (60, 5):
        for value in VALUES:
            world = trial.world()
            key, said = (
                "greeting:1",
                f"After remember(cache, 'greeting:1', {short(value)}, {seconds})",
            )
            trial.call(answer, world.cache, key, value, seconds)
            _expect_json(trial, world, key, value, said)
            left = world.ttl(key)
            if left is None:
                trial.fail(f"{said} the copy has no TTL: it would stay for ever.")
            trial.expect(
                seconds - 1 < left <= seconds,
                f"{said} the copy lives {left:g} s; it should live {seconds} s.",
            )
    world = trial.world()
    said = "After remember(cache, 'greeting:1', 'old', 60) and then remember(..., 'new', 20)"
    trial.call(answer, world.cache, "greeting:1", "old", 60)
    trial.call(answer, world.cache, "greeting:1", "new", 20)
    _expect_json(trial, world, "greeting:1", "new", said)
    left = world.ttl("greeting:1")
    trial.expect(left is not None, f"{said} the copy has no TTL: it would stay for ever.")
    trial.expect(
        19 <= (left or 0) <= 20, f"{said} the copy lives {left:.0f} s; it should live 20 s."
    )


def _expect_json(trial: Trial, world: TrialWorld, key: str, value: Any, said: str) -> None:
    found = world.keys()
    trial.expect(found != [], f"{said} the cache is empty.")
    named = ", ".join(found)
    trial.expect(found == [key], f"{said} the cache holds {named}; expected was {key} alone.")
    stored = world.peek(key)
    trial.expect(
        isinstance(stored, str), f"{said} the key holds a {world.kind(key)}; expected was a text."
    )
    try:
        decoded = json.loads(stored)
    except ValueError:
        trial.fail(f"{said} the text {short(stored)} is stored, which is not JSON.")
    trial.expect(
        _same(decoded, value),
        f"{said} the text {short(stored)} is stored, which is the JSON of something else.",
    )


def judge_recall(answer: Any, trial: Trial) -> None:
    """What was stored comes back, None included; the default only for what is not there."""
    for value in VALUES:
        world = trial.world()
        stored = json.dumps(value)
        world.put("greeting:1", stored)
        got = trial.call(answer, world.cache, "greeting:1", "a default")
        trial.expect(
            _same(got, value),
            f"The cache holds {short(stored)}; recall(cache, 'greeting:1', 'a default') gave"
            f" {short(got)} instead of {short(value)}.",
        )
        left = world.ttl("greeting:1")
        trial.expect(
            world.keys() == ["greeting:1"] and world.peek("greeting:1") == stored,
            f"The cache held {short(stored)}, and recall has changed that; only read it.",
        )
        trial.expect(
            left is None,
            "The copy had no TTL, and after recall it has one; only read it.",
        )
    for default in ("a default", None, 0, {"an object": {1, 2}}):
        world = trial.world()
        world.put("nothing:10", '"of another key"')
        got = trial.call(answer, world.cache, "nothing:1", default)
        trial.expect(
            _same(got, default),
            f"Nothing is stored under nothing:1; recall(cache, 'nothing:1', {short(default)}) gave"
            f" {short(got)} instead of the default.",
        )
        trial.expect(
            world.keys() == ["nothing:10"],
            "Nothing was stored under nothing:1, and recall has changed the cache; only read it.",
        )
    got = trial.call(answer, trial.world().cache, "nothing:1")
    trial.expect(
        got is None, f"Without a default and without a copy it gave {short(got)}, not None."
    )


def _same(one: Any, other: Any) -> bool:
    # 0 and False, 1 and True are equal in Python and different in JSON.
    return type(one) is type(other) and bool(one == other)
