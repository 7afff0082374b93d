"""No fact about a chapter or an exercise drifts in silence: `make check` names the file.

Each drift is one edit of a copy of the project. Those of a source are built first, as their author
would: what `make notebooks` puts right by itself is no drift.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import build as builder
from tools.build import build, check, main

ROOT = Path(__file__).resolve().parents[1]
STEM = "05_cache_aside"
NOTEBOOK, LAB = f"content/notebooks/{STEM}.py", f"content/labs/{STEM}.py"
GUIDE, JUDGES = f"workshop/guide/{STEM}.md", f"src/cachelab/exercises/lab_{STEM}.py"
ANSWERS, CATALOGUE = f"tests/answers/lab_{STEM}.py", "src/cachelab/exercises/catalogue.json"
COVERAGE = "content/COVERAGE.md"
COPIED = (
    *("content", "notebooks", "labs", "solutions", "workshop", "docs"),
    *("src/cachelab/exercises", "tests/answers", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"),
)


@dataclass(frozen=True)
class Drift:
    """One edit of `file`; `said` begins the sentence about it. `built`: it is built first."""

    file: str
    old: str
    new: str
    said: str
    built: bool = False
    stem: str = STEM


ROW = "| 05 | [Read around the cache: cache-aside](notebooks/05_cache_aside.ipynb) |"
NEXT = "#\n# **Next:** `notebooks/06_write_through.ipynb`.\n"

DRIFTS = {
    # What repeats a title, a number or an order
    "README: a row is missing": Drift("README.md", f"\n{ROW}", "\n| x ", "README.md: line "),
    "README: a title": Drift("README.md", "Read around the cache: c", "Read the c", "README.md: "),
    "README: a count": Drift(
        "README.md", "[5 exercises](labs/05", "[4 exercises](labs/05", "README"
    ),
    "README: a link": Drift("README.md", "](labs/05_cache_aside", "](labs/06_cache", "README.md: "),
    "a notebook's title": Drift(NOTEBOOK, "# # Read around", "# # Look around", "README.md: line "),
    "a notebook's minutes": Drift(
        NOTEBOOK, "About 30 min", "About 35 min", f"{GUIDE}: line 3 says"
    ),
    "a lab's title": Drift(LAB, "# # Write a cache", "# # Build a cache", f"{GUIDE}: line 1 says"),
    "a lab's minutes": Drift(LAB, "About 40 min", "About 35 min", f"{LAB}: line 16 says"),
    "a lab's next chapter": Drift(
        LAB, "notebooks/06_write_through", "notebooks/07_write_back", LAB
    ),
    "a lab without a next chapter": Drift(LAB, NEXT, "", f"{LAB}: line "),
    "a guide's title": Drift(
        GUIDE, "write a cache-aside", "write a cache", f"{GUIDE}: line 1 says"
    ),
    "a guide's minutes": Drift(GUIDE, "exercises 40 min", "exercises 45 min", f"{GUIDE}: line 3"),
    "a guide's heading": Drift(
        GUIDE, "`: Read, 7 minutes", "`: Look, 7 minutes", f"{GUIDE}: line "
    ),
    "an exercise's minutes in a guide": Drift(
        GUIDE, "Read, 7 min", "Read, 8 min", f"{GUIDE}: line "
    ),
    "a guide without an exercise": Drift(
        GUIDE, "### `05_cache_aside.read`", "#### `05_cache_aside.read`", f"{GUIDE}: its `### ` "
    ),
    "a guide quotes no known answer": Drift(
        GUIDE, "read`, no TTL:", "read`, no life:", f"{GUIDE}: line 15 quotes “no life”"
    ),
    "a guide quotes another verdict": Drift(
        GUIDE, "has no TTL: it would", "has a TTL: it would", f"{GUIDE}: line 15 quotes “no TTL”"
    ),
    # What the library knows of an exercise
    "a heading in a lab": Drift(LAB, "# ## 1. Read", "# ## 1. Look", f"{CATALOGUE}: has another t"),
    "the minutes of an exercise": Drift(
        LAB, "minutes=7", "minutes=9", f"{CATALOGUE}: has another m"
    ),
    "the function": Drift(LAB, "def read_user(", "def user(", f"{CATALOGUE}: has another function"),
    "an argument": Drift(LAB, "db, user_id):", "db, key):", f"{CATALOGUE}: has another signature"),
    "a hint": Drift(LAB, "# Three steps: ask", "# Ask", f"{CATALOGUE}: has another hints"),
    "a hint in the library": Drift(
        CATALOGUE, "Three steps: ask", "Ask", f"{CATALOGUE}: has another"
    ),
    "a title in the library": Drift(
        CATALOGUE, '"Read"', '"Look"', f"{CATALOGUE}: has another title"
    ),
    "a lost hint": Drift(
        LAB,
        '# %% [markdown] tags=["hint"]\n# Three steps',
        "# %% [markdown]\n# Three steps",
        f"{LAB}, cell 4, line 38: The exercise has 0 hints, not 3",
    ),
    "a judge's name": Drift(
        JUDGES, "def judge_read(", "def judge_reed(", f"{JUDGES}: has no judge_read"
    ),
    "a judge that is left over": Drift(
        JUDGES,
        "def judge_read(",
        "def judge_old(): ...\n\n\ndef judge_read(",
        f"{JUDGES}: has judge_old",
    ),
    "answers to no exercise": Drift(
        ANSWERS,
        '    "05_cache_aside.read": [',
        '    "05_cache_aside.reed": [',
        f"{ANSWERS}: WRONG ",
    ),
    # Counts and names in prose
    "CHANGELOG: a chapter is missing": Drift(
        "CHANGELOG.md", "`04_cdn_edge`", "on the edge", "CHANGELOG.md: says nothing of 04_cdn_edge"
    ),
    "CHANGELOG: the chapters": Drift(
        "CHANGELOG.md",
        "The whole book: chapters",
        "The whole book: twelve chapters",
        "CHANGELOG.md: ",
    ),
    "a count in a page": Drift(
        "workshop/README.md", "thirteen labs", "fourteen labs", "workshop/README.md: says “fourteen"
    ),
    "a count in a path": Drift(
        "workshop/paths/two-days.toml", "thirteen labs", "fourteen labs", "workshop/paths/two-days"
    ),
    "an exercise that a page names": Drift(
        "docs/board.md", "`05_cache_aside.read`", "`05_cache_aside.reed`", "docs/board.md: line "
    ),
    "a chapter that a page names": Drift(
        "workshop/README.md",
        "notebooks/17_incident",
        "notebooks/17_night",
        "workshop/README.md: line",
    ),
    "the functions that a lab promises": Drift(
        LAB,
        "Five functions, each",
        "Six functions, each",
        f"{LAB}: its first text promises",
        built=True,
    ),
    "COVERAGE: the ideas": Drift(COVERAGE, " ideas: ", "0 ideas: ", f"{COVERAGE}: line 3 says"),
    "COVERAGE: a number": Drift(
        COVERAGE, "1 hit, 2 misses, 2 fills", "1 hit, 2 misses, 9 fills", f"{COVERAGE}: line "
    ),
    "COVERAGE: a number in words": Drift(
        COVERAGE, "queries for three reads", "queries for ninety reads", f"{COVERAGE}: line "
    ),
    "COVERAGE: a cell": Drift(
        COVERAGE, "`cachelab.show(cache_a", "`cachelab.show(cash_a", COVERAGE
    ),
    "a number above the heading of what shows it": Drift(
        NOTEBOOK,
        "had to do anything: the first reader",
        "had to do anything: the first of 95 readers",
        f"{NOTEBOOK}: cell ",
        built=True,
    ),
    "a number of a notebook": Drift(
        NOTEBOOK,
        "With a query of 20 ms",
        "With a query of 30 ms",
        f"{NOTEBOOK}: cell ",
        built=True,
    ),
    "a number of a notebook, in words": Drift(
        "content/notebooks/00_start_here.py",
        "again: fifty visits",
        "again: forty visits",
        "content/notebooks/00_start_here.py: cell ",
        built=True,
        stem="00_start_here",
    ),
    "a number of a lab": Drift(
        "content/labs/10_stampede.py",
        "36.8 % of the reads renew",
        "38.6 % of the reads renew",
        "content/labs/10_stampede.py: cell ",
        built=True,
        stem="10_stampede",
    ),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    unwanted = shutil.ignore_patterns("__pycache__", "*.backup-*", "node_modules", "hub")
    for name in COPIED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture
def edit(project: Path) -> Iterator[Callable[[str, str, str], None]]:
    """Edits a file of the project; afterwards everything is as it was."""
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}

    def replace(name: str, old: str, new: str) -> None:
        text = (project / name).read_text("utf-8")
        assert old in text, f"{name} no longer says {old!r}: choose another edit"
        (project / name).write_text(text.replace(old, new, 1), "utf-8")

    yield replace
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def said_of(project: Path, stem: str) -> list[str]:
    return [str(problem) for problem in check(project, [stem])]


@pytest.fixture(scope="module")
def before(project: Path) -> dict[str, list[str]]:
    """What is said of a chapter before any edit."""
    return {stem: said_of(project, stem) for stem in {drift.stem for drift in DRIFTS.values()}}


def no_kernel(*_: object) -> None:
    raise AssertionError("an edit of a text has started a kernel")


@pytest.mark.slow
@pytest.mark.parametrize("kind", DRIFTS)
def test_a_drift_is_named_with_its_file(
    kind: str,
    project: Path,
    before: dict[str, list[str]],
    edit: Callable[[str, str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drift = DRIFTS[kind]
    edit(drift.file, drift.old, drift.new)
    if drift.built:
        monkeypatch.setattr(builder, "execute", no_kernel)
        build(project, [drift.stem], say=lambda line: None)
    new = [said for said in said_of(project, drift.stem) if said not in before[drift.stem]]
    assert any(said.startswith(drift.said) for said in new), new or "silent"
    assert all(said.endswith(".") and "\n" not in said for said in new)


def test_there_are_more_drifts_than_the_review_had() -> None:
    assert len(DRIFTS) >= 21


@pytest.mark.parametrize(
    "kinds",
    [
        ("README: a title", "README: a count", "README: a link"),
        ("a guide's title", "a guide's minutes", "a guide's heading"),
        ("a lab's minutes", "a lab's next chapter"),
        ("a hint in the library", "a title in the library"),
        ("COVERAGE: the ideas",),
    ],
    ids=lambda kinds: DRIFTS[kinds[0]].file,
)
def test_what_follows_from_the_sources_is_put_right_by_make_notebooks(
    kinds: tuple[str, ...],
    project: Path,
    edit: Callable[[str, str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builder, "execute", no_kernel)
    file = project / DRIFTS[kinds[0]].file
    right = file.read_text("utf-8")
    for kind in kinds:
        edit(DRIFTS[kind].file, DRIFTS[kind].old, DRIFTS[kind].new)
    assert build(project, [STEM], say=lambda line: None) == []
    assert file.read_text("utf-8") == right


def test_make_check_fails_on_a_drift(
    project: Path,
    edit: Callable[[str, str, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit("README.md", "[5 exercises](labs/05", "[6 exercises](labs/05")
    assert main(["--root", os.fspath(project), "--check"]) == 1
    said = capsys.readouterr().err
    assert "README.md: line " in said
    assert "[6 exercises]" in said
    assert "[5 exercises]" in said
    assert "[source: content/notebooks/*.py, content/labs/*.py]; run `make notebooks`." in said
