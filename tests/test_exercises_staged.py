"""Judges that put an answer on the stage: in one run, and in every order."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from cachelab import stage
from cachelab.judge.exercise import Exercise
from cachelab.judge.trial import Trial, judge
from cachelab.process.patience import Patience
from cachelab.record.verdict import Verdict


def judged(judge_it: Callable[[Any, Trial], Any], answer: Callable[..., Any]) -> Verdict:
    """The verdict of a throw-away exercise."""
    exercise = Exercise(
        id="90_staged.bump",
        title="Bump",
        function="bump",
        signature="bump(cache, db)",
        minutes=1,
        hints=("a", "b", "c"),
        judge=judge_it,
    )
    return judge(exercise, answer)


def both_count(answer: Any, trial: Trial) -> None:
    trial.every_order(
        {"one": answer, "two": answer},
        lambda world: world.cache.get("n") == "2" or f"Two bumps made {world.cache.get('n')}.",
    )


def in_one_run(answer: Any, trial: Trial) -> None:
    run = trial.play({"one": answer, "two": answer})
    trial.expect(run.world.cache.get("n") == "2", "The counter is wrong.", trace=run)


def with_incr(cache: Any, db: Any) -> Any:
    return cache.incr("n")


def with_get_and_set(cache: Any, db: Any) -> None:
    cache.set("n", int(cache.get("n") or 0) + 1)


def test_an_answer_that_holds_in_every_order_passes_and_the_orders_are_counted() -> None:
    verdict = judged(both_count, with_incr)
    assert verdict.outcome == "passed"
    assert verdict.schedules >= 2


def test_the_order_that_breaks_an_answer_is_the_counterexample() -> None:
    verdict = judged(both_count, with_get_and_set)
    assert verdict.outcome == "failed"
    assert "orders" in verdict.summary
    assert "Two bumps made 1." in verdict.summary
    assert verdict.counterexample is not None
    assert [event.what for event in verdict.counterexample] == ["GET", "GET", "SET", "SET"]


def test_actors_that_never_meet_prove_nothing() -> None:
    verdict = judged(both_count_apart, with_incr)
    assert verdict.outcome == "proved nothing"


def both_count_apart(answer: Any, trial: Trial) -> None:
    trial.every_order({"one": lambda: 1, "two": lambda: 2}, lambda world: True)


def waits_for_ever(cache: Any, db: Any) -> None:
    while cache.get("never") is None:
        time.sleep(1)


def loops_for_ever(cache: Any, db: Any) -> None:
    while True:
        pass


@pytest.mark.parametrize("judge_it", [both_count, in_one_run])
@pytest.mark.parametrize(
    ("answer", "outcome"),
    # Somebody might still write what the first waits for: it is our time that is over.
    [(waits_for_ever, "proved nothing"), (loops_for_ever, "failed")],
)
@pytest.mark.slow
def test_an_answer_without_an_end_on_the_stage_is_one_sentence(
    judge_it: Callable[[Any, Trial], Any], answer: Callable[..., Any], outcome: str
) -> None:
    limit = Patience(10)
    verdict = judged(judge_it, answer)
    assert verdict.outcome == outcome
    assert "\n" not in verdict.summary
    assert verdict.summary.endswith(".")
    assert limit.left() > 0


def test_what_is_printed_on_the_stage_is_in_the_verdict_and_nowhere_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def chatty(cache: Any, db: Any) -> None:
        print("hello from the stage")
        cache.incr("n")

    verdict = judged(in_one_run, chatty)
    assert verdict.outcome == "passed"
    assert "hello from the stage" in verdict.printed
    assert capsys.readouterr().out == ""


def test_a_judge_sees_time_pass_at_once() -> None:
    def patient(cache: Any, db: Any) -> None:
        time.sleep(3_600)
        cache.incr("n")

    limit = Patience(10)
    assert judged(in_one_run, patient).outcome == "passed"
    assert limit.left() > 0


def test_a_stage_error_of_the_judge_itself_is_not_the_learners() -> None:
    def broken(answer: Any, trial: Trial) -> None:
        stage.run([])

    assert judged(broken, with_incr).outcome == "proved nothing"
