"""Whatever file is handed in, `cachelab check` gives 0, 1 or 2, and JSON or one sentence."""

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tried import ANY_JSON, ANY_TEXT, cut, is_sentence, printed, tried

from cachelab.command import cli
from cachelab.submission import notebook

ROOT = Path(__file__).resolve().parents[2]
LAB = json.loads((ROOT / "labs" / "00_start_here.ipynb").read_text("utf-8"))
SCHEMA = json.loads(files("cachelab").joinpath("submission/check.json").read_text("utf-8"))


class NoKernel(notebook._Run):
    """A run in which no cell is run: what is not a matter of the file is left out."""

    def start(self):
        pass

    def cell(self, number, cell):
        assert isinstance(cell.text, str)

    def judge(self, exercise):
        said = f"Not attempted: the lab defines no {exercise.function}."
        return notebook.Verdict("not attempted", said, exercise=exercise.id).as_dict()

    def close(self):
        pass


@pytest.fixture
def without_a_kernel(monkeypatch):
    monkeypatch.setattr(notebook, "_Run", NoKernel)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("handed in")


def check(path, content):
    """The exit code, after a look at what was printed."""
    path.write_bytes(content)
    with printed() as told:
        code = cli.main(["check", str(path), "--json"])
    if code == 2:
        assert told["out"] == ""
        assert is_sentence(told["err"].removesuffix("\n")), told["err"]
        return code
    assert told["err"] == ""
    judged = json.loads(told["out"])
    jsonschema.validate(judged, SCHEMA)
    assert code == (judged["passed"] != judged["total"])
    if notebook._Run is NoKernel:  # a second time costs nothing: as text
        with printed() as plain:
            assert cli.main(["check", str(path)]) == code
        assert all(line.isprintable() for line in plain["out"].split("\n"))
    return code


NAMES = st.sampled_from(
    ["00_start_here.ipynb", "my work.ipynb", "00_start_here.py", "home", "\x1b[31m.ipynb"]
)


@pytest.mark.usefixtures("without_a_kernel")
@tried(80)
@given(NAMES, st.binary(max_size=60) | ANY_TEXT.map(lambda text: text.encode("utf-8", "replace")))
@example("00_start_here.py", b"def answer():\n    return 1\n")
@example("00_start_here.ipynb", b"[" * 100_000)
@example("00_start_here.ipynb", b"1" * 5_000)
def test_any_bytes_get_an_exit_code_and_a_sentence(folder, name, content):
    assert check(folder / name, content) == 2


PLACES = st.sampled_from(
    [
        ["cells"],
        ["cells", 0],
        ["cells", 1, "source"],
        ["cells", 1, "cell_type"],
        ["cells", 1, "metadata"],
        ["cells", 1, "metadata", "exercise"],
        ["metadata"],
        ["metadata", "cachelab"],
        ["metadata", "cachelab", "source"],
        ["metadata", "language_info"],
        ["metadata", "kernelspec", "language"],
        ["nbformat"],
    ]
)


@pytest.mark.usefixtures("without_a_kernel")
@tried(50)
@given(NAMES, st.lists(st.tuples(PLACES, ANY_JSON), min_size=1, max_size=2))
@example("\udcff.ipynb", [(["nbformat"], 4)])
@example("\x1b[31m.ipynb", [(["nbformat"], 4)])
@example("\x1b[31m.ipynb", [(["cells"], 7)])
@example("my work.ipynb", [(["metadata", "cachelab", "source"], "\0/\ud800")])
@example("my work.ipynb", [(["metadata", "kernelspec", "language"], "\ud800")])
def test_any_notebook_gets_an_exit_code_and_json(folder, name, changes):
    raw = json.loads(json.dumps(LAB))
    raw["metadata"].pop("language_info", None)
    for path, value in changes:
        inner = raw
        try:
            for part in path[:-1]:
                inner = inner[part]
            inner[path[-1]] = value
        except (LookupError, TypeError):
            continue  # an earlier change has taken the place away
    check(folder / name, json.dumps(raw).encode())


@pytest.mark.usefixtures("without_a_kernel")
@tried(50)
@given(st.integers(0), st.integers(0, 3_000), st.binary(max_size=20))
def test_however_a_lab_is_damaged_it_gets_an_exit_code(folder, at, gone, noise):
    check(folder / "00_start_here.ipynb", cut(json.dumps(LAB).encode(), at, gone, noise))


LINES = st.sampled_from(
    [
        "raise SystemExit(3)",
        "1 / 0",
        "raise ValueError('\\ud800')",
        "print('\\ud800\\x1b[31m')",
        "def warm_up(*a, **k): raise KeyboardInterrupt",
        "raise BaseException('\\x1b[31m')",
        "del __builtins__",
        "globals().clear()",
        "import sys; sys.stdout = None",
        "import json; json.dumps = None",
        "__name__ = 5",
        "class E(Exception):\n    __str__ = None\nraise E",
    ]
)


# With a kernel: a second or two for each, so all lines of one example share it.
@tried(1)
@given(st.lists(LINES | ANY_TEXT, min_size=3, max_size=6))
@example(["x = '\0'", "\x85\u2028", "%%nothing\n", "raise ValueError('\\ud800')"])
@example(["x = '\ud800'"])
def test_whatever_its_cells_are_a_lab_gets_an_exit_code_and_json(folder, texts):
    raw = json.loads(json.dumps(LAB))
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    raw["cells"] += [{**cell, "id": f"x{n}", "source": text} for n, text in enumerate(texts)]
    code = check(folder / "00_start_here.ipynb", json.dumps(raw).encode())
    half = any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)
    assert code == 2 if half else code in (0, 1)
