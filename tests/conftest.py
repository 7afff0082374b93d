"""Let the tests import `tools`, which is not installed, and share the work out among processes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


class ByFileAndLab(LoadScopeScheduling):
    """A file stays on one worker; the contract, by far the largest, is shared out by labs.

    So are, one by one, the set-ups of the workbook: each takes seconds and needs no other, which
    is what keeps all workers busy to the end.
    """

    def _split_scope(self, nodeid: str) -> str:
        if "test_bootstrap.py::" in nodeid:
            return nodeid
        lab = re.search(r"test_exercises_contract\.py::.*\[(\d\d_\w+)\.", nodeid)
        return lab[1] if lab else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Only for `--dist loadscope`, which `make test-units` asks for."""
    return ByFileAndLab(config, log) if config.getvalue("dist") == "loadscope" else None
