"""pytest plugin for nbval runs: keep cells in order, and leave out `live` cells under fakeredis.

    python -m pytest -p tools.nbval_live -p no:randomly --nbval ... notebooks solutions

With CACHELAB_BACKEND=fake, cells tagged `live` (they kill or measure the real server) are not run,
and the summary says how many they were.
"""

import os
from typing import Any

import pytest
from nbval.plugin import IPyNbCell

_left_out = pytest.StashKey[int]()


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
    if os.environ.get("CACHELAB_BACKEND") != "fake":
        return
    live = [item for item in items if isinstance(item, IPyNbCell) and _is_live(item)]
    left_out = set(map(id, live))
    items[:] = [item for item in items if id(item) not in left_out]
    config.hook.pytest_deselected(items=live)
    config.stash[_left_out] = len(live)
    if hasattr(config, "workeroutput"):  # under xdist only the workers collect
        config.workeroutput["cachelab_live_left_out"] = len(live)


def _is_live(item: Any) -> bool:
    return "live" in item.cell.metadata.get("tags", [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    # Every worker collects the same cells, so the numbers are equal and must not be added up.
    count = getattr(node, "workeroutput", {}).get("cachelab_live_left_out")
    if count is not None:
        node.config.stash[_left_out] = count


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if _left_out in config.stash:
        count = config.stash[_left_out]
        terminalreporter.write_line(f"fakeredis: {count} cells tagged live left out")
