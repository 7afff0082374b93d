"""What holds for every exercise: stub not attempted, solution passes, wrong answers fail by name.

And whatever an answer does, there is a verdict of one sentence within 10 s.
"""

# ruff: noqa: SIM105, E722 - written as the careless write it

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from answers import right, wrong

from cachelab import edge, exercises
from cachelab.edge import nginx
from cachelab.exercises import Exercise, catalogue, check
from cachelab.process.limits import CHECK_SECONDS
from cachelab.process.patience import Patience

ROOT = Path(__file__).resolve().parents[1]
HURRY = 0.05  # seconds for a call that will not end
EXERCISES = catalogue()
pytestmark = pytest.mark.edit("content/labs/{stem}.py")


def name_of(answer) -> str:
    named = getattr(answer, "func", answer)  # a partial
    return getattr(named, "__name__", type(answer).__name__)


def without_nginx() -> str:
    """Why exercises behind the edge cannot be judged here; "" where they can."""
    try:
        nginx.candidates()
    except edge.EdgeError as why:
        return str(why)
    return ""


NO_NGINX = without_nginx()


def here(exercise, *more):
    """A parameter, left out where its lab needs an nginx and there is none."""
    left_out = bool(NO_NGINX) and exercise.lab == "04_cdn_edge"
    marks = pytest.mark.skipif(left_out, reason=NO_NGINX or "has nginx")
    label = ": ".join([exercise.id, *(getattr(one, "name", "") or name_of(one) for one in more)])
    return pytest.param(exercise, *more, marks=marks, id=label)


every = pytest.mark.parametrize("exercise", [here(exercise) for exercise in EXERCISES])
RIGHT = [here(exercise, answer) for exercise in EXERCISES for answer in right(exercise.id)]


@pytest.fixture(autouse=True)
def _as_a_maintainer(monkeypatch):
    """An error in a judge is an error here, not a verdict. Attempts are counted from none."""
    monkeypatch.setenv("CACHELAB_STRICT", "1")
    monkeypatch.delenv("CACHELAB_JUDGING", raising=False)
    exercises.forget_progress()


def cells(room: str, lab: str) -> list[dict]:
    notebook = json.loads((ROOT / room / f"{lab}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(cell: dict) -> str:
    return "".join(cell["source"])


def defined_in(room: str, exercise: Exercise):
    """The exercise's function as a built notebook defines it.

    Only its own cell is run as it is; of the others, what defines something: imports, functions,
    classes, constants.
    """
    namespace: dict = {"__name__": "notebook"}
    for cell in cells(room, exercise.lab):
        if cell["metadata"].get("exercise") == exercise.id:
            exec(compile(text_of(cell), f"{exercise.lab}.ipynb", "exec"), namespace)
            break
        try:
            statements = ast.parse(text_of(cell)).body
        except SyntaxError:
            continue  # a magic
        kept = [one for one in statements if defines_something(one)]
        exec(compile(ast.Module(kept, []), f"{exercise.lab}.ipynb", "exec"), namespace)
    where = f"{room}/{exercise.lab}.ipynb"
    assert exercise.function in namespace, f"{where} defines no {exercise.function}: make notebooks"
    return namespace[exercise.function]


def defines_something(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        try:
            ast.literal_eval(statement.value)
        except ValueError:
            return False
        return True
    return isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


# The exercises and their labs ----------------------------------------------------------------


def test_every_lab_has_exercises_and_every_exercise_a_lab():
    built = {path.stem for path in (ROOT / "labs").glob("[0-9][0-9]_*.ipynb")}
    built = {stem for stem in built if "." not in stem}  # no backups
    assert {exercise.lab for exercise in EXERCISES} == built, "make notebooks"


@pytest.mark.parametrize("lab", sorted({exercise.lab for exercise in EXERCISES}))
def test_the_lab_asks_for_exactly_the_exercises_of_the_catalogue_in_their_order(lab):
    asked = [
        cell["metadata"]["exercise"]
        for cell in cells("labs", lab)
        if "exercise" in cell["metadata"]
    ]
    assert list(dict.fromkeys(asked)) == [exercise.id for exercise in catalogue(lab)]


@every
def test_the_lab_checks_the_exercise(exercise):
    checks = f'check("{exercise.id}", {exercise.function})'
    asked = any(checks in text_of(cell) for cell in cells("labs", exercise.lab))
    assert asked, f"no cell of the lab says cachelab.{checks}"


# Known answers -------------------------------------------------------------------------------


@every
def test_the_untouched_stub_is_not_attempted(exercise):
    verdict = check(exercise.id, defined_in("labs", exercise))
    assert (verdict.outcome, verdict.exercise) == ("not attempted", exercise.id)
    assert exercise.function in verdict.summary


@pytest.fixture
def patient(monkeypatch):
    """What is right is right on a slow machine too; how long checks take, `make bench` tells."""
    monkeypatch.setattr("cachelab.judge.trial.CHECK_SECONDS", 60.0)


@pytest.mark.usefixtures("patient")
@every
def test_the_solution_passes(exercise):
    verdict = check(exercise.id, defined_in("solutions", exercise))
    assert verdict.outcome == "passed", verdict


@pytest.mark.edit("tests/answers/lab_{stem}.py")
@every
def test_there_are_three_wrong_answers_and_another_right_one(exercise):
    named = sorted({answer.name for answer in wrong(exercise.id)})
    assert len(named) >= 3, f"{exercise.id} has the wrong answers {named}; three are the least"
    assert right(exercise.id), f"RIGHT has no answer to {exercise.id}"


@pytest.mark.edit("src/cachelab/exercises/lab_{stem}.py, or tests/answers/lab_{stem}.py")
@every
def test_each_wrong_answer_fails_for_a_reason_of_its_own(exercise):
    said: dict[str, str] = {}  # what was said, and to whom
    for answer in wrong(exercise.id):
        verdict = check(exercise.id, answer.function)
        assert verdict.outcome == "failed", f"{answer.name}: {verdict}"
        assert answer.expect in verdict.summary, f"{answer.name}: {verdict}"
        assert is_one_sentence(verdict.summary), answer.name
        other = said.setdefault(verdict.summary, answer.name)
        assert other == answer.name, f"{other} and {answer.name} are told the same"


@pytest.mark.edit("src/cachelab/exercises/lab_{stem}.py, or tests/answers/lab_{stem}.py")
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("exercise", "answer"), RIGHT)
def test_a_right_answer_written_another_way_passes(exercise, answer):
    verdict = check(exercise.id, answer)
    assert verdict.outcome == "passed", verdict


# Hostile answers -----------------------------------------------------------------------------


def raises(*args):
    raise ValueError("no\nway")


def loops(*args):
    while True:
        pass


def catches_everything(*args):
    while True:
        try:
            time.sleep(1)
        except:
            pass


def leaves(*args):
    sys.exit(1)


def asks_the_shell_to_leave(*args):
    builtins.exit()


def leaves_at_once(*args):
    os._exit(3)


def prints_megabytes(*args):
    for _ in range(50):
        print("x" * 100_000)


def drops_the_table(*args):
    for db in args:
        if hasattr(db, "engine"):
            with db.engine.begin() as connection:
                connection.execute(sa.text("DROP TABLE users"))
                connection.execute(sa.text("DROP TABLE products"))
            db.user(1)


def empties_the_cache_and_closes_it(*args):
    for cache in args:
        if hasattr(cache, "flushall"):
            cache.flushall()
            cache.close()
            cache.connection_pool.disconnect()


def starts_an_endless_thread(*args):
    threading.Thread(target=loops).start()


def returns_none(*args):
    return None


def returns_something_rude(*args):
    class Rude:
        def __eq__(self, other):
            raise KeyError("never compare me")

        def __repr__(self):
            raise KeyError("never print me")

        __hash__ = None

    return Rude()


def is_empty(*args):
    pass


async def is_async(*args):
    return None


def yields(*args):
    yield 1


def interrupts(*args):
    raise KeyboardInterrupt


HOSTILE = [
    raises,
    loops,
    catches_everything,
    leaves,
    asks_the_shell_to_leave,
    leaves_at_once,
    prints_megabytes,
    drops_the_table,
    empties_the_cache_and_closes_it,
    starts_an_endless_thread,
    returns_none,
    returns_something_rude,
    is_empty,
    is_async,
    yields,
    interrupts,
    lambda: 1,
    lambda a, b, c, d, e, f, g, h: 1,
    None,
    7,
    "read_user",
    int,
    print,
    object(),
]


@pytest.fixture
def impatient(monkeypatch):
    """An endless answer is stopped after 0.05 s, not 2: there are hundreds of them."""
    monkeypatch.setattr("cachelab.judge.trial.SECONDS", HURRY)


@pytest.mark.edit("src/cachelab/exercises/lab_{stem}.py")
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("exercise", "answer"), [here(one, answer) for one in EXERCISES for answer in HOSTILE]
)
def test_whatever_an_answer_does_there_is_a_verdict_of_one_sentence(exercise, answer, capsys):
    builtins.exit = getattr(builtins, "exit", sys.exit)
    before = (sys.stdout, sys.stderr, os._exit, builtins.exit, threading.Thread.start)
    limit = Patience(CHECK_SECONDS)
    verdict = check(exercise.id, answer)
    assert limit.left() > 0
    assert verdict.outcome == "failed", verdict
    assert is_one_sentence(verdict.summary)
    assert "0x" not in repr(verdict)
    assert (sys.stdout, sys.stderr, os._exit, builtins.exit, threading.Thread.start) == before
    assert capsys.readouterr() == ("", "")
    assert len(repr(verdict)) < 10_000


@pytest.mark.edit("src/cachelab/exercises/lab_{stem}.py")
@every
@pytest.mark.slow
def test_after_a_hostile_answer_the_next_check_still_works(exercise, monkeypatch):
    with monkeypatch.context() as hurried:
        hurried.setattr("cachelab.judge.trial.SECONDS", HURRY)
        for answer in (catches_everything, asks_the_shell_to_leave, drops_the_table):
            check(exercise.id, answer)
    assert check(exercise.id, right(exercise.id)[0]).outcome == "passed"


def is_one_sentence(text: str) -> bool:
    return bool(text) and "\n" not in text and text[-1] in ".!?" and "Traceback" not in text
