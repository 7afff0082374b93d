"""The machinery under the exercises: the catalogue, trials, worlds, attempts, hints."""

from __future__ import annotations

import functools
import gc
import json
import os
import threading
import time
import weakref
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from cachelab import exercises
from cachelab.exercises import UnknownExercise, catalogue, check, find, hint, judge_in
from cachelab.judge.exercise import Exercise
from cachelab.judge.world import TrialWorld, _guard
from cachelab.process.patience import Patience

FIXTURES = str(Path(__file__).parent / "fixtures" / "exercises")


@pytest.fixture(autouse=True)
def _throw_away_exercises(monkeypatch):
    monkeypatch.setattr(exercises, "__path__", [*exercises.__path__, FIXTURES])
    monkeypatch.delenv("CACHELAB_STRICT", raising=False)
    monkeypatch.delenv("CACHELAB_JUDGING", raising=False)
    exercises.forget_progress()


@pytest.fixture
def world():
    made = TrialWorld()
    yield made
    made.close()


# The catalogue -------------------------------------------------------------------------------


def test_a_lab_is_found_by_the_name_of_its_module():
    assert "90_throw_away" in exercises.labs()
    ids = [exercise.id for exercise in catalogue("90_throw_away")]
    assert ids[:2] == ["90_throw_away.first", "90_throw_away.nothing"]
    assert [exercise.id for exercise in catalogue()][-5:] == ids
    assert catalogue("91_nothing_here") == []


def test_an_exercise_says_all_that_the_contract_lists():
    exercise = find("90_throw_away.first")
    assert exercise.lab == "90_throw_away"
    assert (exercise.title, exercise.function) == ("First", "first")
    assert (exercise.signature, exercise.minutes) == ("first(cache, db, user_id)", 5)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("90_throw_away.frist", "did you mean 90_throw_away.first"),
        ("90_throwaway.first", "did you mean 90_throw_away.first"),
        ("90_throw_away.endles", "did you mean 90_throw_away.endless"),
        ("90_" + 30 * "q", "did you mean 90_throw_away.first"),
        ("", "known are"),
        (7, "known are"),
        (None, "known are"),
    ],
)
def test_an_unknown_exercise_gets_one_sentence_with_what_comes_close(asked, said):
    with pytest.raises(UnknownExercise, match="There is no exercise") as raised:
        check(asked, print)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value._render_traceback_() == [f"UnknownExercise: {raised.value}"]


def test_an_exercise_without_a_judge_gets_one_sentence_that_says_where_it_is_missed(monkeypatch):
    find("90_throw_away.first")
    monkeypatch.delattr("cachelab.exercises.lab_90_throw_away.judge_first")
    said = r"^90_throw_away.first has no judge: write judge_first in \S+lab_90_throw_away.py\.$"
    with pytest.raises(ValueError, match=said):
        find("90_throw_away.first")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "first"}, "its id is not of the form"),
        ({"function": "other"}, "signature and function differ"),
        ({"hints": ("one", "two")}, "it has 2 hints, not 3"),
        ({"minutes": 0}, "it takes no time"),
    ],
)
def test_an_exercise_that_cannot_be_used_is_refused_when_it_is_made(change, said):
    fields = vars(find("90_throw_away.first")) | change
    with pytest.raises(ValueError, match=said):
        Exercise(**fields)


# Checking ------------------------------------------------------------------------------------


def right(cache, db, user_id):
    return db.user(user_id)


def test_a_right_answer_passes_with_the_judges_words():
    verdict = check("90_throw_away.first", right)
    assert (verdict.outcome, verdict.summary) == ("passed", "It gave the user.")
    assert verdict.exercise == "90_throw_away.first"


@pytest.mark.parametrize(
    "answer",
    [
        functools.partial(lambda more, cache, db, user_id: db.user(user_id), 1),
        lambda *args: args[1].user(args[2]),
        lambda cache, db, user_id, extra=5: db.user(user_id),
        type("Called", (), {"__call__": lambda self, cache, db, user_id: db.user(user_id)})(),
        functools.lru_cache(right),
    ],
    ids=["partial", "star", "default", "object", "cached"],
)
def test_whatever_can_be_called_as_asked_is_an_answer(answer):
    assert check("90_throw_away.first", answer)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "A function first(cache, db, user_id) was expected, but this is None."),
        (
            {"name": 1},
            "A function first(cache, db, user_id) was expected, but this is {'name': 1}.",
        ),
        (lambda: 1, "first takes 0 arguments, but first(cache, db, user_id) was expected."),
        (
            lambda cache, db: 1,
            "first takes 2 arguments (cache, db), but first(cache, db, user_id) was expected.",
        ),
        (
            lambda cache, db, user_id, *, now: 1,
            "first takes 4 arguments (cache, db, user_id, now),"
            " but first(cache, db, user_id) was expected.",
        ),
    ],
)
def test_what_cannot_be_called_as_asked_fails_in_one_sentence(answer, said):
    assert check("90_throw_away.first", answer).summary == said


def test_an_argument_with_a_default_may_be_given_or_not():
    two_ways = "90_throw_away.bug"
    assert "was expected" in check(two_ways, lambda cache: 1).summary
    assert "was expected" in check(two_ways, lambda cache, seconds: 1).summary
    assert "was expected" not in check(two_ways, lambda cache, seconds=9: 1).summary


def test_a_stub_is_not_attempted_and_another_not_implemented_error_is_a_failure():
    def stub(cache, db, user_id):
        raise NotImplementedError("90_throw_away.first")

    def other(cache, db, user_id):
        raise NotImplementedError("later")

    verdict = check("90_throw_away.first", stub)
    assert (verdict.outcome, verdict.summary) == (
        "not attempted",
        "Not attempted: first still raises NotImplementedError. Replace that line with your code.",
    )
    assert check("90_throw_away.first", other).outcome == "failed"


def test_a_table_that_is_gone_is_told_as_the_answers_doing():
    def drops(cache, db, user_id):
        with db.engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE users"))
        return db.user(user_id)

    said = "The database has no such table: users: the answer removed it."
    assert check("90_throw_away.first", drops).summary == said


def test_a_run_that_shows_nothing_proves_nothing():
    assert check("90_throw_away.nothing", lambda cache: 1).outcome == "proved nothing"
    assert check("90_throw_away.nothing", lambda cache: cache.get("x")).outcome == "passed"


def test_a_failure_carries_its_trace_and_the_judges_hint():
    verdict = check("90_throw_away.first", lambda cache, db, user_id: cache.get("user"))
    assert [event.what for event in verdict.counterexample] == ["GET"]
    assert (verdict.summary, verdict.hint) == ("It gave None.", "Ask the database.")


def test_an_error_in_the_judge_is_no_failure_of_the_learner(monkeypatch):
    verdict = check("90_throw_away.bug", lambda cache, seconds=3: 1)
    assert verdict.outcome == "proved nothing"
    assert "ZeroDivisionError: of the judge" in verdict.summary
    assert "please report it" in verdict.summary
    monkeypatch.setenv("CACHELAB_STRICT", "1")
    with pytest.raises(ZeroDivisionError):
        check("90_throw_away.bug", lambda cache, seconds=3: 1)


def test_a_judge_may_give_the_verdict_itself():
    verdict = check("90_throw_away.verdict", lambda cache, *, keyword=1: 1)
    assert (verdict.outcome, verdict.schedules, verdict.exercise) == (
        "passed",
        10,
        "90_throw_away.verdict",
    )


def test_all_calls_together_end_in_time():
    limit = Patience(10)
    verdict = check("90_throw_away.endless", lambda cache: time.sleep(0.7))
    assert limit.left() > 0
    assert verdict.outcome == "failed"
    assert verdict.summary == "All calls of endless together took longer than 8 s."


def test_what_the_answer_prints_is_in_the_verdict_and_nowhere_else(capsys):
    def noisy(cache, db, user_id):
        print("asking for", user_id, cache)
        return None

    verdict = check("90_throw_away.first", noisy)
    assert verdict.printed.startswith("asking for 1 <cachelab.cache.client.Cache")
    assert "0x" not in verdict.printed
    assert capsys.readouterr().out == ""


def test_a_verdict_keeps_nothing_of_the_answer_alive():
    class Big:
        pass

    seen = []

    def answer(cache, db, user_id):
        big = Big()
        seen.append(weakref.ref(big))
        raise KeyError("gone")

    verdict = check("90_throw_away.first", answer)
    gc.collect()
    assert verdict.outcome == "failed"
    assert seen[0]() is None


def test_while_a_whole_lab_is_judged_check_waits_for_the_end(monkeypatch):
    monkeypatch.setenv("CACHELAB_JUDGING", "1")
    called = []
    verdict = check("90_throw_away.first", lambda *args: called.append(1))
    assert (verdict.outcome, called) == ("not attempted", [])


def test_a_function_is_judged_by_its_name_in_a_notebook():
    assert judge_in({"first": right}, "90_throw_away.first")
    missing = judge_in({"frist": right}, "90_throw_away.first")
    assert missing.outcome == "not attempted"
    assert missing.summary == "Not attempted: the lab defines no first."


def test_checks_in_another_thread_work_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(check("90_throw_away.first", right)))
    thread.start()
    thread.join()
    assert found[0].outcome == "passed"


# Attempts and hints --------------------------------------------------------------------------


def test_after_three_failed_attempts_the_solution_is_named():
    def wrong(cache, db, user_id):
        return 0

    hints = [check("90_throw_away.first", wrong).hint for _ in range(4)]
    assert hints[0] == hints[1] == "Ask the database."
    assert hints[2] == hints[3]
    assert hints[2].endswith("One solution is in `solutions/90_throw_away.ipynb`.")


def test_stubs_do_not_count_as_attempts():
    def stub(cache, db, user_id):
        raise NotImplementedError("90_throw_away.first")

    for _ in range(5):
        assert check("90_throw_away.first", stub).hint == ""


def test_without_a_hint_of_its_own_a_failure_names_the_command_that_gives_one():
    verdict = check("90_throw_away.first", 7)
    assert verdict.hint == '`cachelab.hint("90_throw_away.first")` gives a hint.'


def test_hints_grow_more_direct_and_the_third_names_the_solution():
    shown = [repr(hint("90_throw_away.first")) for _ in range(4)]
    assert shown[0] == "Hint 1 of 3: Think of GET."
    assert shown[1] == "Hint 2 of 3: Then of SET."
    assert shown[2] == shown[3]
    assert shown[2] == (
        "Hint 3 of 3: Both in two lines. One solution is in solutions/90_throw_away.ipynb."
    )
    assert repr(hint("90_throw_away.nothing")).startswith("Hint 1")


def test_a_hint_is_markdown_in_jupyterlab():
    bundle = hint("90_throw_away.first")._repr_mimebundle_()
    assert bundle["text/markdown"] == "**Hint 1 of 3:** Think of `GET`."
    assert bundle["text/plain"] == "Hint 1 of 3: Think of GET."


# Worlds --------------------------------------------------------------------------------------


def test_a_world_shares_nothing_with_another(world):
    other = TrialWorld()
    try:
        world.cache.set("key", "1")
        world.db.update_user(1, name="Changed")
        assert other.cache.get("key") is None
        assert other.db.user(1)["name"] == "Alice"
        assert len(other.trace) == 2
    finally:
        other.close()


@pytest.mark.parametrize("script", [False, True])
def test_a_ttl_is_what_the_answer_left_however_long_the_judge_takes(world, script):
    if script:
        world.cache.eval("return redis.call('SET', KEYS[1], 'x', 'EX', 300)", 1, "k")
    else:
        world.cache.set("k", "x", ex=300)
    world.cache.get("k")
    world.cache.set("k", "y", nx=True)  # refused: writes nothing
    time.sleep(0.5)
    world.cache.get("k")
    assert 299.7 < world.ttl("k") <= 300
    world.fast_forward(100)
    assert 199.7 < world.ttl("k") <= 200
    world.put("k", "x", 10)
    assert 9.7 < world.ttl("k") <= 10


def test_a_ttl_is_exact_however_long_the_machine_takes_to_note_the_write(world):
    world.trace.watchers.insert(0, lambda event: time.sleep(0.2))
    world.cache.set("k", "x", ex=300)
    world.cache.set("short", "x", px=1_500)
    assert (world.ttl("k"), world.ttl("short")) == (300, 1.5)


def test_fast_forward_ends_what_is_due_and_moves_the_clock(world):
    world.cache.set("soon", "1", ex=10)
    world.cache.set("late", "1", ex=1_000)
    world.cache.set("never", "1")
    world.fast_forward(600)
    assert world.keys() == ["late", "never"]
    assert 399 < world.ttl("late") <= 400
    assert world.ttl("never") is None
    assert world.trace.clock() == 600


def test_a_world_reads_the_same_however_slow_the_machine_is(world):
    world.cache.get("key")
    time.sleep(0.01)
    world.fast_forward(5)
    world.cache.get("key")
    assert [event.at for event in world.trace] == [0, 5]


def test_a_cache_that_was_down_is_back_with_what_it_held(world):
    world.cache.set("key", "1")
    world.cache_down()
    with pytest.raises(redis.ConnectionError):
        world.cache.get("key")
    assert world.peek("key") == "1"
    world.fast_forward(5)
    with pytest.raises(redis.ConnectionError):
        world.cache.get("key")
    world.cache_up()
    assert world.cache.get("key") == "1"


def test_a_cache_that_hangs_times_out_in_every_kind_of_command_until_it_is_back(world):
    world.cache.set("key", "1")
    world.cache_hangs()
    for ask in (world.cache.get, lambda key: world.cache.pipeline().get(key).execute()):
        with pytest.raises(redis.TimeoutError):
            ask("key")
    world.cache_up()
    assert world.cache.get("key") == "1"
    world.cache_down()
    with pytest.raises(redis.ConnectionError):
        world.cache.get("key")


def test_a_broken_database_fails_for_all_but_the_judge(world):
    world.break_database()
    with pytest.raises(sa.exc.OperationalError, match="the database is down"):
        world.db.user(1)
    with pytest.raises(sa.exc.OperationalError), world.db.session() as session:
        session.execute(sa.text("SELECT 1"))
    assert world.truth.user(1)["name"] == "Alice"


def test_looking_leaves_no_trace(world):
    world.cache.set("key", "1", ex=9)
    world.trace.clear()
    world.put("other", "2", seconds=5)
    assert (world.peek("key"), world.peek("other"), world.peek("none")) == ("1", "2", None)
    assert world.keys() == ["key", "other"]
    assert world.kind("key") == "string"
    assert world.ttl("other") <= 5
    assert world.truth.user(1)["name"] == "Alice"
    assert (len(world.trace), world.db.queries) == (0, 0)


def test_what_the_judge_reads_is_not_taken_for_what_a_copy_was_made_of(world):
    """Freshness knows a copy by the reads before it: the judge's are not among them."""
    world.cache.get("user:1")
    world.truth.user(2)
    world.cache.set("user:1", json.dumps(world.db.user(1)))
    world.truth.update_user(2, name="Other")
    world.cache.get("user:1")
    assert world.trace.stale == []
    world.truth.update_user(1, name="Other")
    world.cache.get("user:1")
    assert len(world.trace.stale) == 1


def test_a_commit_of_the_judge_is_seen_in_the_trace_as_somebody_elses(world):
    world.truth.update_user(1, name="Other")
    assert [(event.actor, event.kind, event.on) for event in world.trace] == [
        ("someone else", "commit", "users")
    ]


def test_an_uncommitted_write_is_not_seen_and_does_not_block_readers(world):
    with world.db.session() as session:
        session.execute(sa.text("UPDATE users SET name = 'Half' WHERE id = 1"))
        assert world.db.user(1)["name"] == "Alice"
        session.commit()
    assert world.db.user(1)["name"] == "Half"


def test_a_judge_sees_all_that_a_key_holds(world):
    world.cache.set("text", "a")
    world.cache.hset("hash", mapping={"a": "1", "b": "2"})
    world.cache.rpush("list", "a", "b")
    world.cache.sadd("set", "a", "b")
    world.cache.zadd("zset", {"a": 1, "b": 2})
    assert {key: world.peek(key) for key in [*world.keys(), "none"]} == {
        "text": "a",
        "hash": {"a": "1", "b": "2"},
        "list": ["a", "b"],
        "set": {"a", "b"},
        "zset": [("a", 1.0), ("b", 2.0)],
        "none": None,
    }


def test_a_query_takes_no_time_unless_a_judge_asks_for_some(world):
    assert world.db.latency == 0
    assert TrialWorld(latency=0.5).db.latency == 0.5


def test_a_wait_for_ones_own_lock_ends_soon(world):
    began = time.monotonic()
    with world.db.session() as session:
        session.execute(sa.text("UPDATE users SET name = 'Half' WHERE id = 1"))
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            world.db.update_user(1, name="Whole")
    assert time.monotonic() - began < 2


def test_something_can_be_made_to_happen_after_the_nth_command(world):
    def read() -> None:
        world.cache.get("by the action")

    world.cache.set("before", "1")
    sent = world.after_cache_command(2, read)
    world.cache.get("first")
    world.cache.delete("second", "with two keys")
    world.cache.incr("third")
    assert sent() == 3
    assert [event.what for event in world.trace] == ["SET", "GET", "DEL", "GET", "INCRBY"]


def test_a_command_that_fails_counts_too(world):
    sent = world.after_cache_command(None, print)
    world.cache_down()
    with pytest.raises(redis.ConnectionError):
        world.cache.get("first")
    world.db.user(1)
    assert sent() == 1


def test_something_can_be_made_to_happen_after_each_query(world):
    world.on("query", world.cache_down)
    world.cache.set("key", "1")
    world.db.user(1)
    with pytest.raises(redis.ConnectionError):
        world.cache.get("key")


def test_a_closed_world_leaves_no_file():
    world = TrialWorld()
    folder = world._folder
    assert (folder / "shop.sqlite").exists()
    world.db.user(1)
    world.close()
    assert not folder.exists()
    assert _guard().folder.name.startswith(f"cachelab-{os.getpid()}-")
