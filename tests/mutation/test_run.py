"""What `make mutation` changes; run by hand: cosmic-ray is in no lock (see CONTRIBUTING.md)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = Path(__file__).with_name("run.py")
SOURCE = '''"""Says three times."""

CALLS: int | None = 0


class Cache:
    hits: int = 0

    def get(self, key: "str | None", ttl: float = 5) -> "int | None":
        self.hits += 1
        fresh = ttl > 0
        print(key)
        return self.hits if fresh and key else False
'''


@pytest.fixture
def mutation():
    sys.path.insert(0, str(RUN.parent))
    try:
        import run

        yield run
    finally:
        sys.path.remove(str(RUN.parent))
        sys.modules.pop("run", None)


def test_each_mutant_changes_one_thing_that_runs_and_no_annotation(mutation, tmp_path):
    (tmp_path / "cache.py").write_text(SOURCE)
    found = mutation.mutants_of(tmp_path / "cache.py", "cache")
    changes = [mutation.changed(SOURCE, mutant) for mutant in found]
    shown = sorted(mutation.shown(SOURCE, after)[1].split("\n+ ")[1] for after in changes if after)
    assert shown == sorted(
        [
            "CALLS: int | None = 1",
            "CALLS: int | None = -1",
            "hits: int = 1",
            "hits: int = -1",
            'def get(self, key: "str | None", ttl: float = 6) -> "int | None":',
            'def get(self, key: "str | None", ttl: float = 4) -> "int | None":',
            "self.hits += 2",
            "self.hits += 0",
            "pass",
            "pass",
            "fresh = ttl >= 0",
            "fresh = ttl > 1",
            "fresh = ttl > -1",
            "return self.hits if not fresh and key else False",
            "return self.hits if fresh or key else False",
            "return self.hits if fresh and key else True",
            "return None",
        ]
    )


def test_every_room_names_sources_and_tests_that_exist(mutation):
    for folder, modules in mutation.ROOMS.values():
        for module, runs in modules.items():
            assert (ROOT / folder / f"{module}.py").is_file()
            for run in runs:
                for name in run.partition(" -k ")[0].split():
                    assert (ROOT / "tests" / name).is_file()


def test_tests_that_end_with_an_error_kill_and_those_that_do_not_end_time_out(mutation, tmp_path):
    tree = tmp_path / "tree"
    (tree / "tests").mkdir(parents=True)
    (tree / "tests" / "test_right.py").write_text("def test_right(): pass\n")
    (tree / "tests" / "test_wrong.py").write_text("def test_wrong(): assert False\n")
    (tree / "tests" / "test_slow.py").write_text("import time\ntime.sleep(600)\n")
    assert mutation.tested(tree, ["test_right.py"], 60) == "survived"
    assert mutation.tested(tree, ["test_right.py", "test_wrong.py"], 60) == "killed"
    assert mutation.tested(tree, ["test_slow.py"], 3) == "timed out"


def test_nine_of_ten_has_the_interval_of_wilsons_formula(mutation):
    assert mutation.interval(9, 10) == (
        pytest.approx(0.596, abs=5e-4),
        pytest.approx(0.982, abs=5e-4),
    )
    assert mutation.interval(60, 60)[1] == pytest.approx(1)
