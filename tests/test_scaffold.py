"""What `make explorer` writes is green before an author has touched it, or is not there at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import scaffold

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
            timeout=110,
        )

    def succeeds(self, *arguments: str) -> str:
        run = self.python(*arguments)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "house")


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["up", "a_name_of_24_characters_"])
def test_an_untouched_explorer_is_green(house: House, name: str) -> None:
    title = "A title of sixty characters, which is as long as it can be.."
    said = house.succeeds("-m", "tools.scaffold", "explorer", name, title)
    assert said.splitlines() == [
        f"written    src/cachelab/models/{name}.py",
        f"written    src/cachelab/widgets/{name}.py",
        f"written    tests/test_models_{name}.py",
    ]
    tests = ["tests/test_models_inputs.py", "tests/test_widgets.py", "tests/test_architecture.py"]
    only = f"{name}_explorer or every_model or every_explorer or architecture or {name}.py"
    passed = house.succeeds(*PYTEST, f"tests/test_models_{name}.py", *tests, "-k", only)
    assert " passed" in passed
    if shutil.which("ruff", path=str(Path(sys.executable).parent)):
        house.succeeds("-m", "ruff", "check", "src", "tests")
        house.succeeds("-m", "ruff", "format", "--check", "src", "tests")


# Refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explorer", "worth", "Worth"], "src/cachelab/models/worth.py is there already: take"),
        (["explorer", "inputs", "Inputs"], "'inputs' is what all models share"),
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
    models = tmp_path / "src/cachelab/models"
    models.mkdir(parents=True)
    (models / "worth.py").write_text("")
    before = files(tmp_path)
    assert scaffold.main(words, tmp_path) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err
    assert output.err.count("\n") == 1
    assert output.err.endswith(".\n")
    assert files(tmp_path) == before


def test_what_cannot_be_written_to_the_end_is_taken_away_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tests").write_text("a file where the folder has to be")
    before = files(tmp_path)
    assert scaffold.main(["explorer", "cold_start", "Cold start"], tmp_path) == 1
    assert "tests cannot be written" in capsys.readouterr().err
    assert files(tmp_path) == before
