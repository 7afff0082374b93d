"""Make a notebook from a source, run it, and write it so that equal content gives equal bytes."""

# mypy: disable-error-code="no-untyped-call"
# nbformat leaves its functions unannotated.

import hashlib
import json
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets import default

from tools.links import linked
from tools.markers import Cell, Source, solved, stub

BUILDER = "2"  # raise it when the same source would give another notebook
CELL_TIMEOUT = 60  # seconds

_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# A verdict as it is printed, other than passed.
_NOT_PASSED = re.compile(
    r"\S (?:failed|proved nothing|not attempted): (?P<lab>\w+)\.\w+\n(?P<told>.+)"
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class CellFailed(Exception):
    """A cell did not run as it should: `number` counts the cells of the product from 1."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason


def rooms(source: Source) -> tuple[str, ...]:
    """The folders a source is built into."""
    return ("notebooks",) if source.room == "notebooks" else ("labs", "solutions")


def shown(source: Source) -> list[Cell]:
    """The cells of a source that a notebook has, or a solution: all but the hints."""
    return [cell for cell in source.cells if not cell.is_hint]


def blank(source: Source, room: str) -> NotebookNode:
    """The notebook that a source gives in a room, before any cell has run."""
    notebook = nbformat.v4.new_notebook()
    seen: Counter[str] = Counter()
    for cell in shown(source):
        digest = hashlib.sha256(f"{cell.kind}\n{cell.text}".encode()).hexdigest()[:12]
        seen[digest] += 1
        if room == "labs" and cell.is_solution:
            continue
        text = cell.text
        if cell.kind == "code" and cell.exercise is not None:
            text = stub(cell) if room == "labs" else solved(cell)
        elif cell.kind == "markdown":
            text = linked(text, lambda to, stem: _path(source.stem, room, to, stem), plain=True)
        if not notebook.cells:
            text = (
                f"<!-- Generated from {source.path}: "
                f"edit that file, then run make notebooks. -->\n\n{text}"
            )
        new = nbformat.v4.new_code_cell if cell.kind == "code" else nbformat.v4.new_markdown_cell
        node = new(text)
        # The same source cell has the same id in lab and solution, and keeps it when cells
        # come and go around it.
        again = f"-{seen[digest]}" if seen[digest] > 1 else ""
        node.id = f"{source.stem[:40]}-{digest}{again}"
        if cell.tags:
            node.metadata["tags"] = list(cell.tags)
        if cell.exercise is not None:
            node.metadata["exercise"] = cell.exercise
        notebook.cells.append(node)
    return seal(notebook, source)


def _path(here: str, room: str, to: str, stem: str) -> str | None:
    """Where one notebook finds another; None for itself."""
    if to == room:
        return None if stem == here else f"{stem}.ipynb"
    return f"../{to}/{stem}.ipynb"


def seal(notebook: NotebookNode, source: Source) -> NotebookNode:
    """Put a notebook into its one written form, and note in it what it was made from."""
    widgets = notebook.metadata.get("widgets")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    if widgets:
        notebook.metadata["widgets"] = widgets
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _settled(cell.outputs)
    _rename_widgets(notebook, source.stem)
    notebook.metadata["cachelab"] = nbformat.from_dict(
        {
            "builder": BUILDER,
            "source": source.path,
            "source_sha256": source.sha256,
            "cells_sha256": cells_sha256(notebook),
            "outputs_sha256": outputs_sha256(notebook),
        }
    )
    return notebook


def _settled(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """A cell's outputs without what differs from run to run.

    How a stream is cut into pieces, and which of stdout and stderr comes first, is a matter of
    timing. A traceback names folders of this machine; its last line says what is needed.
    """
    settled: list[NotebookNode] = []
    run: dict[str, NotebookNode] = {}
    for output in outputs:
        if output.output_type == "stream":
            if output.name in run:
                run[output.name].text += output.text
            else:
                run[output.name] = output
            continue
        settled += [run[name] for name in sorted(run, reverse=True)]  # stdout, then stderr
        run = {}
        if output.output_type == "error":
            output.traceback = [f"{output.ename}: {output.evalue}"]
        settled.append(output)
    return settled + [run[name] for name in sorted(run, reverse=True)]


def _rename_widgets(notebook: NotebookNode, stem: str) -> None:
    """Give widget models derived ids, in the order they are met from the views; drop the rest."""
    holder = _table(notebook.metadata.get("widgets", {}).get(_WIDGET_STATE))
    states = _table(holder.get("state"))
    reached: dict[str, str] = {}

    def visit(model: str) -> None:
        if model in reached or model not in states:
            return
        reached[model] = hashlib.sha256(f"{stem}:{len(reached)}".encode()).hexdigest()[:32]
        for other in re.findall(r"[0-9a-f]{32}", json.dumps(states[model], sort_keys=True)):
            visit(other)

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            visit(str(_table(output.get("data", {}).get(_WIDGET_VIEW)).get("model_id", "")))
    if not reached:
        notebook.metadata.pop("widgets", None)
        return
    for model in reached:
        if "msg_id" in _table(_table(states[model]).get("state")):
            states[model]["state"]["msg_id"] = ""  # of an Output widget: of one session only
    kept = {"cells": notebook.cells, "state": {model: states[model] for model in reached}}
    text = re.sub(r"[0-9a-f]{32}", lambda found: reached.get(found[0], found[0]), json.dumps(kept))
    renamed = nbformat.from_dict(json.loads(text))
    notebook.cells = renamed.cells
    notebook.metadata["widgets"] = nbformat.from_dict(
        {_WIDGET_STATE: {"state": renamed.state, "version_major": 2, "version_minor": 0}}
    )


def _table(value: Any) -> dict[str, Any]:
    """A table of somebody's notebook, where one was expected; anything else counts as empty."""
    return value if isinstance(value, dict) else {}


def cells_sha256(notebook: NotebookNode) -> str:
    """Hash of what was written: kinds and texts of the cells, without outputs."""
    return _sha256([[cell.cell_type, cell.source] for cell in notebook.cells])


def outputs_sha256(notebook: NotebookNode) -> str:
    """Hash of what running it left behind: outputs, execution counts and widget state."""
    ran = [
        [cell.execution_count, cell.outputs] for cell in notebook.cells if cell.cell_type == "code"
    ]
    return _sha256([ran, notebook.metadata.get("widgets")])


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def dumps(notebook: NotebookNode) -> str:
    """The text of a notebook file."""
    text: str = nbformat.writes(
        notebook, version=nbformat.NO_CONVERT, indent=1, ensure_ascii=False, sort_keys=True
    )
    return text.rstrip("\n") + "\n"


def loads(text: str) -> NotebookNode:
    """Read a notebook file; ValueError with one clause when it is not a whole notebook."""
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise ValueError("it is not valid JSON (it is nested too deep)") from None
    except ValueError as error:  # a number of thousands of digits
        said = str(error).partition(";")[0]
        raise ValueError(f"it is not valid JSON ({said})") from None
    if not isinstance(raw, dict) or (raw.get("nbformat"), raw.get("nbformat_minor")) != (4, 5):
        raise ValueError("it is not a notebook of format 4.5")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is mended or refused below anyway
            nbformat.validate(raw)
            notebook: NotebookNode = nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat lets KeyError and others through on odd input
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        short = reason if len(reason) <= 200 else f"{reason[:197]}..."
        raise ValueError(f"it is not a valid notebook ({short})") from None
    for name in ("cachelab", "widgets"):
        if not isinstance(notebook.metadata.get(name, {}), dict):
            raise ValueError(f"it is not a valid notebook (its metadata {name!r} is no table)")
    return notebook


class _ThisPython(KernelSpecManager):
    """Finds one kernel: the Python that runs the builder, whatever the user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class _FreshKernel(AsyncKernelManager):
    @default("kernel_spec_manager")
    def _this_python(self) -> KernelSpecManager:
        return _ThisPython(parent=self)


def execute(notebook: NotebookNode, folder: Path, root: Path, timeout: int = CELL_TIMEOUT) -> None:
    """Run all cells in a fresh kernel whose working folder is `folder`; outputs go into the cells.

    Raises CellFailed for a cell that raises (unless tagged raises-exception), that raises nothing
    although so tagged, that takes longer than `timeout` seconds, that ends the kernel, that
    prints a path of this machine, or, in `solutions`, whose verdict is not *passed*.
    """
    at = 0

    def note(cell: NotebookNode, cell_index: int) -> None:
        nonlocal at
        at = cell_index + 1

    with tempfile.TemporaryDirectory(prefix="cachelab-build-") as scratch:
        # The user's own IPython start-up files and back-end choices must not show in the outputs.
        env = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
        env |= {
            "CACHELAB_BUILDING": "1",
            "CACHELAB_BACKEND": "live",
            "IPYTHONDIR": scratch,
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            kernel_manager_class=_FreshKernel,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],
            on_cell_start=note,
        )
        try:
            client.execute(env=env)
        except CellTimeoutError:
            raise CellFailed(at, f"The cell took longer than {timeout} s.") from None
        except DeadKernelError:
            raise CellFailed(at, "The kernel died while the cell ran.") from None
        except RuntimeError as error:
            raise CellFailed(at, f"The kernel did not start: {error}.") from None
        except CellExecutionError as error:
            last = f"{error.ename}: {error.evalue}".strip().splitlines()
            raise CellFailed(at, _ANSI.sub("", last[0] if last else "It failed.")) from None
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            _check_outputs(number, cell, root)
            if folder.name == "solutions":
                _check_verdicts(number, cell)


def _check_verdicts(number: int, cell: NotebookNode) -> None:
    for output in cell.outputs:
        verdict = _NOT_PASSED.match(output.get("data", {}).get("text/plain", ""))
        if verdict:
            judge = f"src/cachelab/exercises/lab_{verdict['lab']}.py"
            raise CellFailed(number, f"{judge} does not pass the solution: {verdict['told']}")


def _check_outputs(number: int, cell: NotebookNode, root: Path) -> None:
    tagged = "raises-exception" in cell.metadata.get("tags", [])
    if tagged and not has_error(cell):
        raise CellFailed(number, "The cell is tagged raises-exception but raised nothing.")
    for output in cell.outputs:
        shown = [output.get("text", ""), output.get("evalue", "")]
        data = output.get("data", {})
        shown += [data[mime] for mime in data if mime.startswith("text/")]
        for path in _own_paths(root):
            if any(path in text for text in shown):
                raise CellFailed(number, f"The output holds a path of this machine ({path}).")


def _own_paths(root: Path) -> list[str]:
    in_venv = [sys.prefix] if sys.prefix != sys.base_prefix else []
    return [str(root), *in_venv, "/ipykernel_"]


def has_error(cell: NotebookNode) -> bool:
    """Whether an exception is among the outputs of a code cell."""
    return any(output.output_type == "error" for output in cell.outputs)
