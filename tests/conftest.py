"""Let the tests import `tools`, which is not installed, and share the work out among processes."""

from __future__ import annotations

import gc
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# A shell has what it starts with `&` ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Whose tests take seconds each and need no other's: they are shared out one by one.
BY_TEST = (
    "test_cli.py",
    "test_cli_submissions.py",
    "test_bootstrap.py",
    "test_judge.py",
    "test_stage_explore.py",
)
# But these use what is made once.
TOGETHER = "test_a_submission_(cannot_reach|has_a_bounded)|test_what_a_lab_needs_goes_through"
# What takes longest comes first, so that no worker is left with it alone at the end; the contract,
# in its small parts, comes last.
CONTRACT = "test_exercises_contract.py"
FIRST = (
    *BY_TEST,
    "test_scaffold.py",
    "test_server.py",
    "test_library_table.py",
    "test_builder_nbval.py",
    "test_stage_repeat.py",
    "test_traffic.py",
    "test_widgets.py",
    "test_nodes_cluster.py",
    "test_edge.py",
    "test_foreign_server.py",
    "test_jupyter.py",
    "test_server_cluster.py",
    "test_builder.py",
    "test_production.py",
    "test_write_back_crashes.py",
    "test_patterns_write_back.py",
    "test_patterns_stampede.py",
    "test_nodes.py",
    "test_workshop.py",
    "test_incident.py",
    "test_stage_hostile.py",
    "test_exercises.py",
    "test_edge_processes.py",
    "test_stage_parity.py",
    "test_faults.py",
    "test_security.py",
    "test_benchmarks.py",
    "test_fuzz_check.py",
    "test_fuzz_builder.py",
)


class ByFileTestAndLab(LoadScopeScheduling):
    """A file stays on one worker; some are shared out by tests, and the contract by labs."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).name
        if file in BY_TEST and not re.search(TOGETHER, nodeid):
            return nodeid
        lab = re.search(rf"{CONTRACT}::.*\[(\d\d_\w+)\.", nodeid)
        return lab[1] if lab else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Only for `--dist loadscope`, which `make test-units` asks for."""
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False  # the number of its tests says little about a file
    return ByFileTestAndLab(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first, unless a random order is asked for."""
    if config.pluginmanager.hasplugin("randomly"):
        return
    place = {name: number for number, name in enumerate(FIRST)} | {CONTRACT: len(FIRST) + 1}
    items.sort(key=lambda item: place.get(item.path.name, len(FIRST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Say which file to edit below a failure of a test that knows it."""
    report = yield
    mark = item.get_closest_marker("edit")
    given = item.callspec.params if hasattr(item, "callspec") else {}
    of = next((given[name] for name in ("path", "exercise", "lab", "stem") if name in given), None)
    if mark is not None and of is not None and report.failed:
        stem = getattr(of, "lab", getattr(of, "stem", of))
        room = "notebooks" if getattr(of, "parent", Path()).name == "notebooks" else "labs"
        report.sections.append(("what to edit", mark.args[0].format(stem=stem, room=room)))
    return report


def pytest_collection_finish() -> None:
    """Spare the garbage collector thousands of tests: the stage has it look at everything."""
    gc.collect()
    gc.freeze()
