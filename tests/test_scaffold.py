"""What `make chapter` and `make explorer` write is green before it is touched, or is not there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tools import ready, scaffold

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".cachelab", "node_modules", "__pycache__", ".*_cache"
)
PYTEST = [
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:randomly",
    "-p",
    "no:nbval",
    "-p",
    "no:valkey",
    "-p",
    "no:xdist",
]


STEM, EXERCISE = "98_slug_of_24_characters_xy", "exercise_of_24_charactrs"
TITLE = "A title of sixty characters, which is as long as it can be!!"
NOTEBOOK, LAB = f"content/notebooks/{STEM}.py", f"content/labs/{STEM}.py"
JUDGE, ANSWERS = f"src/cachelab/exercises/lab_{STEM}.py", f"tests/answers/lab_{STEM}.py"
GUIDE = f"workshop/guide/{STEM}.md"
BUILD = ("-m", "tools.build")
HAS_RUFF = find_spec("ruff") is not None  # `make lint` installs it


class House:
    """A copy of the project, with the scaffold's templates and the builder in it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(shutil.copytree(ROOT, root, ignore=NOT_COPIED))

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        env |= {"PYTHONPATH": str(self.root / "src"), "CACHELAB_HOME": str(self.root / "home")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def succeeds(self, *arguments: str) -> str:
        run = self.python(*arguments)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def is_well_formed(self) -> None:
        if HAS_RUFF:
            self.succeeds("-m", "ruff", "check", ".")
            self.succeeds("-m", "ruff", "format", "--check", ".")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "house")


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["up", "a_name_of_24_characters_"])
def test_an_untouched_explorer_is_green(house: House, name: str) -> None:
    said = house.succeeds("-m", "tools.scaffold", "explorer", name, TITLE)
    assert said.splitlines() == [
        f"written    src/cachelab/models/{name}.py",
        f"written    src/cachelab/widgets/{name}.py",
        f"written    tests/test_models_{name}.py",
    ]
    tests = ["tests/test_models_inputs.py", "tests/test_widgets.py", "tests/test_architecture.py"]
    only = f"{name}_explorer or every_model or every_explorer or architecture or {name}.py"
    passed = house.succeeds(*PYTEST, f"tests/test_models_{name}.py", *tests, "-k", only)
    assert " passed" in passed
    house.is_well_formed()


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A house with an untouched chapter of the longest names."""
    house = House(tmp_path_factory.mktemp("chapter") / "house")
    said = house.succeeds("-m", "tools.scaffold", "chapter", STEM, TITLE, EXERCISE)
    assert [line.split()[1] for line in said.splitlines() if line.startswith("written")] == [
        *(LAB, NOTEBOOK, JUDGE, ANSWERS, GUIDE)
    ]
    return house


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_untouched_chapter_is_green_but_for_what_is_left_to_write(chapter: House) -> None:
    assert "match content/" in chapter.succeeds("-m", "tools.build", "--check")
    contract = chapter.succeeds(*PYTEST, "tests/test_exercises_contract.py", "-k", STEM)
    assert re.search(r"\b3\d passed", contract)
    chapter.succeeds(*PYTEST, "tests/test_coverage.py", "tests/test_links.py")
    chapter.is_well_formed()
    texts = [*PYTEST, "tests/test_content.py", "tests/test_workshop.py", "-k", STEM]
    told = chapter.python(*texts).stdout
    failed = re.findall(r"^FAILED tests/\w+\.py::(\w+)", told, re.M)
    assert failed == [
        "test_a_guide_can_be_read_in_the_three_minutes_before_the_lab",
        "test_a_notebook_is_a_half_hour_and_not_a_book",
    ]
    left = [*PYTEST, "tests/test_scaffold.py", "-k", "nothing_that_a_scaffold"]
    told = chapter.python(*left).stdout
    assert all(f"{file}:" in told for file in (NOTEBOOK, LAB, JUDGE, ANSWERS, GUIDE))
    newest = (chapter.root / "CHANGELOG.md").read_text("utf-8").split("\n## ")[1]
    assert newest.rstrip().endswith(f"\n- Chapter `{STEM}`: {TITLE}.")


# What is changed in a file of the chapter, and what is run then and has to name that file.
CONTRACT = (*PYTEST, "tests/test_exercises_contract.py", "-k", f"{STEM} and not whatever")
TEXTS = (*PYTEST, "tests/test_workshop.py", "-k", STEM)
PLANTED = {
    "a cell that fails": (NOTEBOOK, "import json", "import jsn", BUILD),
    "a solution that is wrong": (LAB, "ex=60)", "ex=61)", BUILD),
    "a hint that is missing": (LAB, "# TODO: what to use.\n", "#\n", BUILD),
    "a judge that fails": (JUDGE, "world.truth", "world.truths", CONTRACT),
    "a judge of another name": (JUDGE, "def judge_", "def judges_", CONTRACT),
    "no wrong answers": (ANSWERS, f'{STEM}.{EXERCISE}": [\n', 'else": [\n', CONTRACT),
    "a wrong answer that passes": (ANSWERS, "ex=300", "ex=60", CONTRACT),
    "a sentence that is not said": (ANSWERS, '"has no TTL"', '"has a TTL"', CONTRACT),
    "a sentence that is not quoted right": (GUIDE, "has no TTL.", "has a TTL.", TEXTS),
    "a question that is none": (GUIDE, "telling?", "telling.", TEXTS),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("planted", PLANTED)
def test_a_failure_names_the_file_to_edit(chapter: House, planted: str) -> None:
    file, right, wrong, command = PLANTED[planted]
    path = chapter.root / file
    text = path.read_text("utf-8")
    assert right in text
    path.write_text(text.replace(right, wrong), "utf-8")
    try:
        run = chapter.python(*command)
    finally:
        path.write_text(text, "utf-8")
    assert run.returncode != 0
    assert file in re.sub(r"^tests/\w+\.py.*|_{3,}.*", "", run.stdout + run.stderr, flags=re.M)


def test_nothing_that_a_scaffold_wrote_is_left_to_write() -> None:
    written = ["content", "workshop/guide", "src/cachelab", "tests/answers"]
    paths = [path for name in written for path in (ROOT / name).rglob("*.[pm][yd]")]
    left = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted([*paths, *(ROOT / "tests").glob("test_models_*.py")])
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if "TODO:" in line
    ]
    assert not left, "\n".join(["edit:", *left])


# Refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chapter", "17_else", "Else", "read"], "The number 17 is taken by 17_incident: take"),
        (["chapter", "18_incident", "Again", "read"], "The slug incident is taken by 17_incident"),
        (["chapter", "18-cold", "Cold", "read"], "'18-cold' is no name for a chapter: write"),
        (["chapter", "cold_start", "Cold", "read"], "'cold_start' is no name for a chapter"),
        (["chapter", "18_" + "x" * 25, "Long", "read"], "is no name for a chapter"),
        (["chapter", "18_cold", "read"], "A new chapter needs a stem, a title and an exercise"),
        (["chapter", "18_cold", "", "read"], "'' is no title: write one line"),
        (["chapter", "18_cold", "Cold", "json"], "'json' has another meaning there"),
        (["chapter", "18_cold", "Cold", "Read"], "'Read' is no name for an exercise"),
        (["explorer", "worth", "Worth"], "src/cachelab/models/worth.py is there already: take"),
        (["explorer", "inputs", "Inputs"], "'inputs' has another meaning there"),
        (["explorer", "Cold-start", "Cold"], "'Cold-start' is no name for a model: write"),
        (["explorer", "lambda", "Lambda"], "'lambda' is no name for a model"),
        (["explorer", "cold_start"], "A new explorer needs a name and a title, got ['cold_start']"),
        (["explorer", "cold", "start", "Cold"], "A new explorer needs a name and a title"),
        (["explorer", "cold_start", " "], "' ' is no title: write one line"),
        (["explorer", "cold_start", 'Say "no"'], "is no title"),
        (["explorer", "cold_start", "long " * 20], "is no title"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_nothing_behind(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for there in ("src/cachelab/models/worth.py", "content/notebooks/17_incident.py"):
        (tmp_path / there).parent.mkdir(parents=True)
        (tmp_path / there).write_text("")
    before = files(tmp_path)
    assert scaffold.main(words, tmp_path) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err
    assert output.err.count("\n") == 1
    assert output.err.endswith(".\n")
    assert files(tmp_path) == before


@pytest.mark.parametrize("words", [[], ["99_nothing"], ["05_cache_aside", "06_write_through"]])
def test_make_ready_of_no_chapter_or_model_is_one_sentence_with_those_there_are(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ready.main(words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "05_cache_aside, " in said
    assert ", worth" in said


def test_what_cannot_be_written_to_the_end_is_taken_away_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tests").write_text("a file where the folder has to be")
    before = files(tmp_path)
    assert scaffold.main(["explorer", "cold_start", "Cold start"], tmp_path) == 1
    assert "tests cannot be written" in capsys.readouterr().err
    assert files(tmp_path) == before
