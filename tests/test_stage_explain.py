"""A counter-example that explains itself: the two operations, their lines, the order again."""

from __future__ import annotations

import inspect
import json
import time

import pytest

from cachelab import stage
from cachelab.stage.orders import Choice, parsed, written

NEW = "new@example.org"


def reader(cache, db):
    found = cache.get("user:1")
    if found is not None:
        return json.loads(found)
    row = db.user(1)
    cache.set("user:1", json.dumps(row), ex=300)
    return row


def writer(cache, db):
    db.update_user(1, email=NEW)
    cache.delete("user:1")


def warm(cache, db):
    cache.set("user:1", json.dumps(db.user(1)))


def fresh(world):
    found = world.cache.get("user:1")
    return found is None or json.loads(found)["email"] == world.db.user(1)["email"] or "Stale."


def at(function, text):
    """Where a line of a function stands, as a sentence names it."""
    lines, first = inspect.getsourcelines(function)
    number = next(n for n, line in enumerate(lines, first) if text in line)
    return f"test_stage_explain.py:{number}, `{text}`"


def told(trace):
    return [(event.actor, event.what, event.on) for event in trace]


ACTORS = {"reader": reader, "writer": writer}


# The two operations -------------------------------------------------------------------------


def test_the_two_operations_that_conflict_are_named_with_their_lines():
    verdict = stage.explore(ACTORS, fresh)
    deleted = at(writer, 'cache.delete("user:1")')
    stored = at(reader, 'cache.set("user:1", json.dumps(row), ex=300)')
    assert verdict.why == (
        f"writer's DEL user:1 ({deleted}) comes before reader's SET user:1 ({stored}).",
        "The other way round it holds. The nearest order that passes parts from this one at #5.",
    )
    assert told(verdict.nearest)[:4] == told(verdict.counterexample)[:4]
    assert told(verdict.nearest)[4] == ("reader", "SET", "user:1")
    assert verdict.counterexample.world.cache.get("user:1") is not None


def test_a_death_is_named_by_what_came_before_and_what_never_came():
    verdict = stage.explore(ACTORS, fresh, setup=warm, crashes=1)
    updated = at(writer, "db.update_user(1, email=NEW)")
    deleted = at(writer, 'cache.delete("user:1")')
    assert verdict.why[0] == (f"writer dies after its COMMIT users ({updated}), before {deleted}.")
    assert verdict.why[1].startswith("Without that it holds. ")


def test_the_end_of_a_ttl_is_named_by_the_operations_around_it():
    def setup(cache, db):
        cache.set("k", "v", ex=9)

    def checks(cache, db):
        if cache.exists("k"):
            return cache.get("k").upper()
        return "miss"

    verdict = stage.explore({"checks": checks}, lambda world: None, setup=setup, expiry=1)
    exists, got = at(checks, 'if cache.exists("k"):'), at(checks, 'return cache.get("k").upper()')
    assert verdict.why[0] == (
        f"The TTL of k ends after checks's EXISTS k ({exists}) and before checks's GET k ({got})."
    )
    assert verdict.order == "checks, k!ends, checks"
    again = stage.replay({"checks": checks}, verdict.order, setup=setup)
    assert again.to_json() == verdict.counterexample.to_json()


def test_a_lost_reply_is_named_by_the_command_that_it_belongs_to():
    def count(cache, db):
        try:
            cache.incr("n")
        except Exception:
            cache.incr("n")

    verdict = stage.explore(
        {"one": count, "two": count}, lambda world: world.cache.get("n") == "2", failures=1
    )
    sent = at(count, 'cache.incr("n")')
    assert verdict.why[0].endswith(f"INCRBY n ({sent}) is done, and its reply is lost.")


def test_where_every_order_fails_nothing_is_made_up():
    verdict = stage.explore(ACTORS, lambda world: "no")
    assert (verdict.outcome, verdict.why, verdict.nearest) == ("failed", (), None)
    assert verdict.order


def test_a_verdict_shows_the_lanes_the_lines_and_the_order():
    verdict = stage.explore(ACTORS, fresh)
    text = repr(verdict)
    assert "  reader | GET miss | SELECT |        |        |     | SET\n" in text
    assert "  writer |          |        | UPDATE | COMMIT | DEL |\n" in text
    assert "This order again: stage.replay(actors, 'reader*2, writer*3, reader')" in text
    page = verdict._repr_mimebundle_()["text/html"]
    assert page.count("<tr>") == 2
    assert "<td" in page
    assert "The other way round it holds." in page
    told = verdict.as_dict()
    assert told["why"] == list(verdict.why)
    assert told["order"] == verdict.order


# The order again ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"commit_apart": False},
        {"setup": warm, "crashes": 1},
        {"failures": 1, "allow_errors": True},
        {"expiry": 1},
        {"faults": [stage.SlowCommand("SET", 2)]},
    ],
)
def test_an_order_that_is_pasted_is_played_again(options):
    verdict = stage.explore(ACTORS, fresh, **options)
    assert verdict.outcome == "failed"
    given = {name: options[name] for name in ("setup", "commit_apart", "faults") if name in options}
    again = stage.replay(ACTORS, verdict.order, **given)
    assert again.to_json() == verdict.counterexample.to_json()


def test_actors_that_a_function_makes_are_made_anew_for_a_pasted_order():
    def actors():
        seen = []

        def note(cache, db):
            seen.append(cache.incr("n"))
            cache.set("last", len(seen))

        return {"one": note, "two": note}

    verdict = stage.explore(actors, lambda world: world.cache.get("last") == "2" or "lost")
    for _ in range(2):
        again = stage.replay(actors, verdict.order)
        assert told(again) == told(verdict.counterexample)


@pytest.mark.parametrize(
    "choices",
    [
        [Choice("reader"), Choice("reader"), Choice("writer")],
        [Choice("slow writer"), Choice("reader", "dies")],
        [Choice("a, b*2!"), Choice("100 %", "times out late"), Choice("user:1", "ends")],
        [Choice("Zoë/thread-1")],
    ],
)
def test_an_order_is_read_as_it_was_written(choices):
    assert parsed(written(choices)) == choices


@pytest.mark.parametrize("text", ["", "reader,", "reader*0", "!dies", "reader*2*3", "a!B"])
def test_a_text_that_is_no_order_is_one_sentence(text):
    with pytest.raises(ValueError, match="An order is written like"):
        stage.replay(ACTORS, text)


@pytest.mark.parametrize(
    ("text", "step", "said"),
    [
        ("reader*9", 4, "reader cannot go on there"),
        ("nobody", 1, "nobody cannot go on there"),
        ("reader", 2, "the order ends while reader and writer still have something to do"),
        ("user:1!ends", 1, "the TTL of user:1 cannot end there"),
        ("reader*2, reader!times out, writer*4", 7, "writer cannot go on there"),
        ("reader!is lost", 1, r"reader cannot go on \(is lost\) there"),
    ],
)
def test_an_order_that_cannot_be_is_refused_at_its_step(text, step, said):
    with pytest.raises(stage.Impossible, match=said) as refused:
        stage.replay(ACTORS, text)
    assert refused.value.step == step


def test_a_pasted_order_takes_as_long_as_it_takes():
    def slow(cache, db):
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
        return cache.get("k")

    assert stage.replay({"slow": slow}, "slow", wall_limit=60).answers == {"slow": None}
