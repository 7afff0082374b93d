"""pytest plugin: how long each cell of an nbval run took, and how large each kernel became.

`-p benchmarks.nbval_report` writes it as JSON to the file that CACHELAB_BENCH_REPORT names:
{"notebooks/10_stampede.ipynb": {"cells": [seconds, ...], "resident": bytes}, ...}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

found: dict[str, dict[str, Any]] = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    yield
    try:
        pid = item.parent.kernel.km.provisioner.pid
        item.user_properties.append(("resident", psutil.Process(pid).memory_info().rss))
    except (AttributeError, TypeError, psutil.Error):
        pass  # not a notebook, or its kernel is gone: no figure, and no harm


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" and not hasattr(report, "wasxfail"):
        told = found.setdefault(report.nodeid.partition("::")[0], {"cells": [], "resident": 0})
        told["cells"].append(report.duration)
        told["resident"] = dict(report.user_properties).get("resident", told["resident"])


def pytest_sessionfinish(session: Any) -> None:
    # Under xdist the workers report to the first process, which hears of every cell.
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["CACHELAB_BENCH_REPORT"]).write_text(json.dumps(found), "utf-8")
