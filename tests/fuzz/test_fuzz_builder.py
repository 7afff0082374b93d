"""Any mix of cells and markers is built whole and the same twice, or told with file and line."""

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tried import ANY_JSON, cut, is_sentence, printed, tried

from tools import build as builder

TITLE = "# %% [markdown]\n# # Read\n"
EXERCISE = """# %% exercise="90_fuzz.read" minutes=5
def read(cache):
    "What the cache has."
    ### BEGIN SOLUTION
    return cache.get("user:1")
    ### END SOLUTION
# %% [markdown] tags=["hint"]
# First.
# %% [markdown] tags=["hint"]
# Then.
# %% [markdown] tags=["hint"]
# At last.
"""
HEADERS = st.sampled_from(
    [
        "# %%",
        "# %% [markdown]",
        "# %% [raw]",
        "#%%",
        "# %% A name",
        '# %% tags=["live"]',
        '# %% tags=["solution"]',
        '# %% tags=["raises-exception"]',
        '# %% tags="live"',
        "# %% tags=5",
        "# %% tags=[[]]",
        "# %% tags=[1, null]",
        "# %% tags={}",
        '# %% [markdown] tags=["solution"]',
        '# %% exercise="90_fuzz.read"',
        '# %% exercise="90_fuzz.write"',
        '# %% exercise="90_fuzz.write" minutes=5',
        "# %% minutes=5",
        '# %% minutes="5"',
        '# %% [markdown] tags=["hint"]',
        '# %% tags=["hint"]',
        '# %% exercise="91_other.read"',
        "# %% exercise=7",
        '# %% exercise={"a": "b"}',
        '# %% exercise="90_fuzz.\\ud800"',
        '# %% {"tags": ["live"]}',
        "# %% {",
        "# %% id=",
        "# # %%",
        "# +",
        "# ---",
    ]
)
LINES = st.sampled_from(
    [
        "    ### BEGIN SOLUTION",
        "    ### END SOLUTION",
        "### BEGIN SOLUTION",
        "### END SOLUTION",
        "    ### BEGIN  SOLUTION",
        "# Begin solution",
        "def read(cache):",
        "    return cache.get('user:1')",
        '    raise NotImplementedError("90_fuzz.read")',
        '"""',
        "'''",
        "# # A title",
        "# ```python",
        "x = 1",
        "x = 1;",
        "%matplotlib inline",
        "!ls",
        "x = (",
        "  x",
        "\t",
        "",
        "x = '\x0c'  # \x0c### BEGIN SOLUTION",
        "# one\u2028### BEGIN SOLUTION",
        "x = '\x85'",
        "x = 1\r### END SOLUTION",
        "x = '\0'",
        "?x",
        "x = " + "-" * 3_000 + "1",
        "x = " + "[" * 300 + "]" * 300,
        "é = '\U0001f600'",
    ]
)
ANY_LINES = LINES | st.text(max_size=20)
CELLS = st.builds(
    lambda header, lines: "\n".join([header, *lines, ""]),
    HEADERS,
    st.lists(ANY_LINES, max_size=5),
) | st.just(EXERCISE)
SOURCES = st.builds(
    lambda title, cells: (title + "".join(cells)).encode(),
    st.sampled_from([TITLE, TITLE, TITLE, ""]),
    st.lists(CELLS, max_size=4),
)


def run(notebook: Any, folder: Path, root: Path) -> None:
    """What executing leaves behind, without a kernel: every cell in order, each with a word."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.execution_count = number
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{number}\n")]


@pytest.fixture(scope="module", autouse=True)
def without_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "execute", run)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a workbook")


def make(root: Path, *more: str) -> tuple[int, list[str]]:
    """The builder's exit code and what it complained of, line by line."""
    with printed() as told, warnings.catch_warnings():
        warnings.simplefilter("error")  # it would stand beside the sentence
        code = builder.main(["--root", str(root), *more])
    *said, count = told["err"].split("\n")[:-1] or [""]
    assert code == bool(said)
    assert not said or re.fullmatch(r"\d+ problems?\.", count)
    for line in said:
        assert is_sentence(line), line
    return code, said


def products(root: Path) -> dict[str, bytes]:
    """Every file there is beside the sources, half-written ones too."""
    rooms = (root / room for room in builder.ROOMS)
    return {str(f.relative_to(root)): f.read_bytes() for room in rooms for f in room.glob("*")}


def only(root: Path, room: str, content: bytes) -> str:
    """Let this be the one source."""
    for name in ("content", *builder.ROOMS):
        shutil.rmtree(root / name, ignore_errors=True)
    path = root / "content" / room / "90_fuzz.py"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path.relative_to(root).as_posix()


@tried(60)
@given(st.sampled_from(["labs", "notebooks"]), SOURCES)
@example("labs", (TITLE + EXERCISE).encode())
@example("notebooks", (TITLE + "# %%\nx = 1\n").encode())
@example("labs", (TITLE + EXERCISE.replace("return", "# \u2028    return")).encode())
@example(
    "labs",
    (
        TITLE + EXERCISE.replace("return", 'raise NotImplementedError("90_fuzz.read")\n    return')
    ).encode(),
)
@example("labs", (TITLE + "# %%\nx = " + "-" * 100_000 + "1\n").encode())
@example("labs", (TITLE + "# %% tags=5\nx = 1\n").encode())
@example("labs", (TITLE + '# %% tags="live"\nx = 1\n').encode())
@example("labs", (TITLE + '# %%\n"""\n"""\n    ### BEGIN SOLUTION\n').encode())
def test_a_source_is_built_whole_and_the_same_twice_or_told_with_file_and_line(root, room, content):
    file = only(root, room, content)
    code, said = make(root)
    if code:
        assert products(root) == {}
        for line in said:
            found = re.match(rf"{file}, cell (\d+), line (\d+): ", line)
            assert found, line
            assert 1 <= int(found[2]) <= len(re.split(rb"\r\n?|\n", content))
            assert 1 <= int(found[1]) <= content.count(b"%%") + 1
        return
    built = products(root)
    rooms = {"labs": {"labs", "solutions"}, "notebooks": {"notebooks"}}[room]
    assert set(built) == {f"{name}/90_fuzz.ipynb" for name in rooms}
    for name, text in built.items():
        notebook = json.loads(text)
        nbformat.validate(notebook)
        shown = "".join("".join(cell["source"]) for cell in notebook["cells"])
        assert "SOLUTION" not in shown or not name.startswith("labs")
    assert make(root, "--check") == (0, [])
    assert make(root, "--force") == (0, [])
    assert products(root) == built


@tried(60)
@given(
    st.sampled_from(["labs", "notebooks"]),
    st.integers(0),
    st.integers(0, 40),
    st.binary(max_size=80),
)
@example("labs", 30, 0, b"\0")
def test_any_bytes_in_a_source_are_built_or_told(root, room, at, gone, noise):
    only(root, room, cut((TITLE + EXERCISE).encode(), at, gone, noise))
    code, _ = make(root)
    assert bool(products(root)) != bool(code)


@dataclass
class Built:
    """A workbook and its files as they were built."""

    root: Path
    files: dict[str, bytes]

    def put_right(self, name: str, work: bytes) -> None:
        """With `work` as one product the check says so; building mends it and keeps a lab's."""
        self.as_it_was()
        (self.root / name).write_bytes(work)
        code, said = make(self.root, "--check")
        assert all(line.startswith(f"{name}: ") for line in said)
        assert code == (work != self.files[name])
        assert make(self.root) == (0, [])
        after = products(self.root)
        kept = {name: after.pop(name) for name in list(after) if ".backup-" in name}
        assert after == self.files
        assert set(kept.values()) <= {work}

    def as_it_was(self) -> None:
        for name in products(self.root):
            (self.root / name).unlink()
        for name, text in self.files.items():
            (self.root / name).write_bytes(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("built")
    only(root, "labs", (TITLE + EXERCISE).encode())
    assert make(root) == (0, [])
    return Built(root, products(root))


def changed(text: bytes, path: list[Any], value: Any) -> bytes:
    """A notebook's text with another value at some place of it."""
    raw = json.loads(text)
    inner = raw
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(raw).encode()


VIEW = "application/vnd.jupyter.widget-view+json"
PLACES = st.sampled_from(
    [
        ["cells"],
        ["metadata"],
        ["metadata", "cachelab"],
        ["metadata", "cachelab", "cells_sha256"],
        ["metadata", "widgets"],
        ["metadata", "kernelspec"],
        ["cells", 1],
        ["cells", 1, "source"],
        ["cells", 1, "metadata"],
        ["cells", 1, "metadata", "tags"],
        ["cells", 1, "id"],
        ["cells", 1, "outputs"],
        ["cells", 1, "execution_count"],
        ["nbformat"],
        ["nbformat_minor"],
    ]
)
STATES = st.sampled_from(
    [
        {"application/vnd.jupyter.widget-state+json": []},
        {"application/vnd.jupyter.widget-state+json": {"state": {"a" * 32: 5}}},
        [{"output_type": "display_data", "metadata": {}, "data": {VIEW: "no model"}}],
        [{"output_type": "display_data", "metadata": {}, "data": {VIEW: {"model_id": 5}}}],
    ]
)


@tried(40)
@given(st.sampled_from(["labs", "solutions"]), PLACES, ANY_JSON | STATES)
@example("labs", ["metadata", "cachelab"], 5)
@example("labs", ["metadata", "widgets"], {"application/vnd.jupyter.widget-state+json": []})
@example("solutions", ["metadata", "widgets"], [])
@example("labs", ["metadata"], ["x" * 3_000])
def test_any_notebook_where_a_product_was_is_told_and_built_over(built, room, path, value):
    name = f"{room}/90_fuzz.ipynb"
    built.put_right(name, changed(built.files[name], path, value))


@tried(60)
@given(
    st.sampled_from(["labs", "solutions"]),
    st.integers(0),
    st.integers(0, 2_000),
    st.binary(max_size=20),
)
@example("labs", 0, 0, b"[" * 100_000)
@example("labs", 0, 0, b"[" + b"1" * 5_000 + b",")
def test_any_bytes_where_a_product_was_are_told_and_built_over(built, room, at, gone, noise):
    name = f"{room}/90_fuzz.ipynb"
    built.put_right(name, cut(built.files[name], at, gone, noise))
