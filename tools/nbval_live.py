"""pytest plugin for nbval runs: keep cells in order, and leave out what cannot run here.

    python -m pytest -p tools.nbval_live -p no:randomly --nbval ... notebooks solutions

With CACHELAB_BACKEND=fake, cells tagged `live` (they kill or measure the real server) are not run;
with CACHELAB_DATABASE_URL, cells tagged `sqlite` (they show what only SQLite does) are not; on a
machine without any nginx, notebooks that use the edge are not. The summary says how many cells each
of the three left out.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from nbval.plugin import IPyNbCell

from tools import warm_kernel

_warm = pytest.StashKey[warm_kernel.Warm | None]()
_left_out = pytest.StashKey[dict[str, int]]()
LIVE, SQLITE, EDGE = (
    "fakeredis: {} cells tagged live left out",
    "PostgreSQL: {} cells tagged sqlite left out",
    "no nginx: {} cells behind an edge left out",
)


def pytest_configure(config: pytest.Config) -> None:
    # pytest names a file outside its root folder by its last part only, and xdist then runs,
    # without a word, only one of two notebooks of the same name.
    root = config.rootpath.resolve()
    for argument in config.args:
        path = (config.invocation_params.dir / argument.partition("::")[0]).resolve()
        if not path.is_relative_to(root):
            raise pytest.UsageError(
                f"{path} lies outside pytest's root folder {root}, where notebooks of the same "
                "name cannot be told apart; start pytest in the project's root, or give --rootdir."
            )
    config.stash[_warm] = warm_kernel.install()


def pytest_unconfigure(config: pytest.Config) -> None:
    warm = config.stash.get(_warm, None)
    if warm is not None:
        warm.close()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A plugin that shuffles tests would shuffle the cells of a notebook too.
    order = {id(item): place for place, item in enumerate(items)}
    first: dict[str, int] = {}
    for item in items:
        first.setdefault(str(item.path), order[id(item)])
    items.sort(
        key=lambda item: (
            (first[str(item.path)], item.cell_num)
            if isinstance(item, IPyNbCell)
            else (order[id(item)], 0)
        )
    )
    found: dict[str, list[pytest.Item]] = {}
    cells = [item for item in items if isinstance(item, IPyNbCell)]
    if os.environ.get("CACHELAB_BACKEND") == "fake":
        found[LIVE] = [cell for cell in cells if _is_tagged(cell, "live")]
    if os.environ.get("CACHELAB_DATABASE_URL"):
        found[SQLITE] = [cell for cell in cells if _is_tagged(cell, "sqlite")]
    behind = [cell for cell in cells if _uses_the_edge(cell.path)]
    if behind and not _has_nginx():
        found[EDGE] = behind
    left_out = {id(item) for some in found.values() for item in some}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]
    config.stash[_left_out] = {what: len(some) for what, some in found.items()}
    if hasattr(config, "workeroutput"):  # under xdist only the workers collect
        config.workeroutput["cachelab_left_out"] = config.stash[_left_out]


def _is_tagged(cell: IPyNbCell, tag: str) -> bool:
    return tag in cell.cell.metadata.get("tags", [])


@cache
def _uses_the_edge(notebook: Path) -> bool:
    """Whether the chapter does: its solutions use the edge through their checks."""
    chapter = notebook.parents[1] / "notebooks" / notebook.name
    text = (chapter if chapter.exists() else notebook).read_text(encoding="utf-8")
    return bool(re.search(r"(from|import) cachelab\.edge", text))


def _has_nginx() -> bool:
    from cachelab import edge
    from cachelab.edge import nginx

    try:
        return bool(nginx.candidates())
    except edge.EdgeError:
        return False


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    # Every worker collects the same cells, so the numbers are equal and must not be added up.
    counts = getattr(node, "workeroutput", {}).get("cachelab_left_out")
    if counts is not None:
        node.config.stash[_left_out] = counts


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for what, count in config.stash.get(_left_out, {}).items():
        terminalreporter.write_line(what.format(count))
