"""Let the tests import `tools`, which is not installed; begin with the files that take longest."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Few tests, but slow ones: begun last, each would keep one worker busy while the others are done.
LONGEST = (
    "test_exercises_contract",
    "test_library_table",
    "test_foreign_server",
    "test_builder_nbval",
    "test_cli",
    "test_bootstrap",
    "test_server",
    "test_traffic",
    "test_jupyter",
    "test_production",
    "test_write_back_crashes",
    "test_stage_repeat",
    "test_edge",
    "test_widgets",
    "test_builder",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order within a file stays; it needs `--no-loadscope-reorder` with xdist."""
    place = {stem: number for number, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))
