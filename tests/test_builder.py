"""Products are built the same every time, and `--check` names whatever differs from the sources."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools import build as builder
from tools.build import build, check, main
from tools.markers import Source, read_source
from tools.notebook import blank, dumps, loads, outputs_sha256, seal

FIXTURES = Path(__file__).parent / "fixtures" / "builder"
LAB = "labs/90_first.ipynb"
SOLUTION = "solutions/90_first.ipynb"
NOTEBOOK = "notebooks/90_first.ipynb"
CATALOGUE = "src/cachelab/exercises/catalogue.json"
PRODUCTS = (NOTEBOOK, LAB, SOLUTION)


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built folder")  # with a space in its name
    shutil.copytree(FIXTURES / "content", root / "content")
    assert build(root, say=quiet) == []
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "project"))


def change(root: Path, name: str, edit: Callable[[Any], None]) -> None:
    notebook = loads((root / name).read_text(encoding="utf-8"))
    edit(notebook)
    (root / name).write_text(dumps(notebook), encoding="utf-8")


def change_source(root: Path, name: str, old: str, new: str) -> None:
    path = root / "content" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def entries(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / CATALOGUE).read_text(encoding="utf-8"))
    return found


def said_by_check(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["--root", str(root), "--check"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def texts(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in PRODUCTS}


# What is built


def test_what_was_just_built_passes_the_check(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(built), "--check"]) == 0
    assert "match content/" in capsys.readouterr().out


def test_the_check_takes_seconds(built: Path) -> None:
    begun = time.monotonic()
    check(built)
    assert time.monotonic() - begun < 5


def test_a_second_build_gives_the_same_bytes(root: Path) -> None:
    before = texts(root)
    assert build(root, force=True, say=quiet) == []
    assert texts(root) == before


def test_what_has_not_changed_is_not_run_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(builder, "execute", fail)
    lines: list[str] = []
    assert build(root, say=lines.append) == []
    assert [line.split() for line in lines] == [["unchanged", name] for name in PRODUCTS]


def test_force_a_changed_source_or_a_changed_output_runs_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(builder, "execute", lambda nb, folder, root: ran.append(folder.name))
    monkeypatch.setattr(builder, "_keep_edited_lab", lambda path: None)
    before = texts(root)

    def run(force: bool = False) -> list[str]:
        ran.clear()
        build(root, force=force, say=quiet)
        for name, content in before.items():
            (root / name).write_bytes(content)
        return list(ran)

    assert run() == []
    assert run(force=True) == ["notebooks", "solutions"]
    change_source(root, "labs/90_first.py", "found_in_origin + 1", "found_in_origin + 2")
    assert run() == ["solutions"]
    change_source(root, "labs/90_first.py", "found_in_origin + 2", "found_in_origin + 1")
    (root / NOTEBOOK).write_bytes(before[NOTEBOOK].replace(b"hits 3 of 4", b"hits 2 of 4", 1))
    assert run() == ["notebooks"]
    monkeypatch.setattr(builder, "BUILDER", "another")
    assert run() == ["notebooks", "solutions"]


def test_a_changed_text_is_rewritten_with_the_outputs_that_are_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a kernel was started")

    before = {name: loads((root / name).read_text()) for name in PRODUCTS}
    with monkeypatch.context() as patch:
        patch.setattr(builder, "execute", fail)
        change_source(root, "labs/90_first.py", "one less", "one fewer")
        change_source(root, "notebooks/90_first.py", "# Predict, then run.", "# Guess first.\n\n")
        lines: list[str] = []
        assert build(root, say=lines.append) == []
    assert lines == [f"rewritten  {NOTEBOOK}", f"built      {LAB}", f"rewritten  {SOLUTION}"]
    assert check(root) == []
    for name in (NOTEBOOK, SOLUTION):
        assert outputs_sha256(loads((root / name).read_text())) == outputs_sha256(before[name])
    rewritten = texts(root)
    assert build(root, force=True, say=quiet) == []
    assert texts(root) == rewritten


def test_names_limit_what_is_built(root: Path) -> None:
    for name in PRODUCTS:
        (root / name).unlink()
    other = (root / "content/labs/90_first.py").read_text().replace("90_first", "91_second")
    (root / "content/labs/91_second.py").write_text(other)
    assert main(["--root", str(root), "91_second"]) == 0
    assert (root / "labs/91_second.ipynb").exists()
    assert not (root / LAB).exists()


def test_the_catalogue_says_of_each_exercise_what_stands_in_its_lab(built: Path) -> None:
    first, second = entries(built)
    assert first == {
        "id": "90_first.read",
        "title": "Write a number",
        "function": "read",
        "signature": "read(key)",
        "minutes": 3,
        "hints": ["Where is the number?", "In `origin`.", "Look it up, and add one."],
    }
    assert (second["id"], second["minutes"]) == ("90_first.both", 4)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("minutes=3", "minutes=5", "has another minutes of 90_first.read"),
        ("def read(key)", "def read(key, default=None)", "another signature of 90_first.read"),
        ("def both(", "def two(", "has another function, signature of 90_first.both"),
        ("# # Write a number", "# # Read a number", "has another title of 90_first.read"),
        ("# # Write a number", "# # One\n#\n# ## 2. Two", "has another title of 90_first.read"),
        ("# In `origin`.", "# In the\n# `origin`.", "has another hints of 90_first.read"),
    ],
)
def test_a_fact_that_changes_in_a_lab_is_named_in_the_catalogue(
    root: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    change_source(root, "labs/90_first.py", old, new)
    line = f"{said} [source: content/labs/90_first.py]; run `make notebooks`."
    assert line in said_by_check(root, capsys)


def test_hints_and_minutes_are_in_the_catalogue_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(builder, "execute", fail)
    before = texts(root)
    change_source(root, "labs/90_first.py", "minutes=3", "minutes=5")
    change_source(root, "labs/90_first.py", "# In `origin`.", "# In the origin, a dict.")
    assert build(root, say=quiet) == []
    assert texts(root) == before
    assert entries(root)[0]["hints"][1] == "In the origin, a dict."
    assert check(root) == []
    for name in PRODUCTS:
        assert b"hint" not in before[name]
        assert b"minutes" not in before[name]


def test_a_catalogue_that_was_edited_or_whose_lab_is_gone_is_named_and_made_anew(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = (root / CATALOGUE).read_bytes()
    other = (root / "content/labs/90_first.py").read_text().replace("90_first", "91_second")
    for damaged, said in [
        (made.replace(b"Look it up", b"Look"), "has another hints of 90_first.read"),
        (made.replace(b"90_first.read", b"90_first.rid"), "has an exercise 90_first.rid"),
        (made.replace(b"  ", b"    "), "was not written by the builder"),
        (b"{", "lacks the exercise 90_first.both"),
        (b"[7]", "lacks the exercise 90_first.both"),
    ]:
        (root / CATALOGUE).write_bytes(damaged)
        assert f"{CATALOGUE}: {said}" in said_by_check(root, capsys)
        assert build(root, say=quiet) == []
        assert (root / CATALOGUE).read_bytes() == made
    (root / "content/labs/91_second.py").write_text(other)
    assert build(root, ["91_second"], say=quiet) == []
    assert [entry["id"][:9] for entry in entries(root)] == ["90_first."] * 2 + ["91_second"] * 2
    (root / "content/labs/91_second.py").unlink()
    assert "has an exercise 91_second.read" in said_by_check(root, capsys)
    build(root, say=quiet)
    assert (root / CATALOGUE).read_bytes() == made


def test_a_lab_has_stubs_and_neither_solutions_nor_outputs(built: Path) -> None:
    text = (built / LAB).read_text()
    lab = loads(text)
    assert [cell.cell_type for cell in lab.cells] == ["markdown"] + ["code"] * 5
    assert text.count('raise NotImplementedError(\\"90_first.read\\")') == 1
    assert text.count('raise NotImplementedError(\\"90_first.both\\")') == 2
    for secret in ("found_in_origin", "neither was found", "one less", "SOLUTION"):
        assert secret not in text
    for cell in lab.cells[1:]:
        assert (cell.execution_count, cell.outputs) == (None, [])
    assert [cell.metadata.get("exercise") for cell in lab.cells].count(None) == 4


def test_a_solution_is_run_and_has_no_marker_lines(built: Path) -> None:
    text = (built / SOLUTION).read_text()
    assert "found_in_origin" in text
    assert "SOLUTION" not in text
    solution = loads(text)
    assert [cell.execution_count for cell in solution.cells if cell.cell_type == "code"] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert solution.cells[-1].outputs[0].text == "both: [42, 42]\n"


def test_the_first_cell_says_what_it_was_made_from(built: Path) -> None:
    for name, room in ((NOTEBOOK, "notebooks"), (LAB, "labs"), (SOLUTION, "labs")):
        first = loads((built / name).read_text()).cells[0].source
        assert first.startswith(
            f"<!-- Generated from content/{room}/90_first.py: "
            "edit that file, then run make notebooks. -->\n\n# "
        )


def test_a_notebook_runs_in_its_own_folder_with_a_sign_that_it_is_being_built(built: Path) -> None:
    cells = loads((built / NOTEBOOK).read_text()).cells
    assert cells[2].outputs[0].data["text/plain"] == "('1', 'notebooks')"


def test_metadata_holds_nothing_that_varies(built: Path) -> None:
    for name in PRODUCTS:
        metadata = json.loads((built / name).read_text())["metadata"]
        assert metadata["language_info"] == {"name": "python"}
        assert metadata["kernelspec"]["display_name"] == "Python 3 (ipykernel)"
        assert set(metadata) <= {"cachelab", "kernelspec", "language_info", "widgets"}
        for cell in loads((built / name).read_text()).cells:
            assert set(cell.metadata) <= {"tags", "exercise"}


def test_an_expected_exception_is_kept_as_its_last_line(built: Path) -> None:
    (output,) = loads((built / NOTEBOOK).read_text()).cells[6].outputs
    assert output.traceback == ["ZeroDivisionError: division by zero"]


def test_lab_and_solution_share_their_cell_ids(built: Path) -> None:
    lab = [cell.id for cell in loads((built / LAB).read_text()).cells]
    solution = [cell.id for cell in loads((built / SOLUTION).read_text()).cells]
    assert len(set(solution)) == 7
    assert [each for each in solution if each in lab] == lab
    assert len(lab) == 6


def source_of(root: Path) -> Source:
    source, errors = read_source(root, root / "content/labs/90_first.py")
    assert source is not None, errors
    return source


def test_an_inserted_cell_changes_no_other_id(root: Path) -> None:
    before = [cell.id for cell in blank(source_of(root), "labs").cells]
    change_source(root, "labs/90_first.py", "# %%\norigin", "# %%\nx = 1\n\n# %%\norigin")
    after = [cell.id for cell in blank(source_of(root), "labs").cells]
    assert [each for each in after if each in before] == before
    assert len(after) == len(before) + 1


def test_equal_cells_have_ids_of_their_own(root: Path) -> None:
    change_source(
        root, "labs/90_first.py", "# %%\norigin", "# %%\nx = 1\n\n# %%\nx = 1\n\n# %%\norigin"
    )
    ids = [cell.id for cell in blank(source_of(root), "labs").cells]
    assert len(set(ids)) == len(ids) == 8
    assert ids[2] == f"{ids[1]}-2"


NAMES = "`90_first`, `labs/90_first.ipynb`, `91_next`, `solutions/91_next`; x = `91_next.lock`"


@pytest.mark.parametrize(
    ("room", "becomes"),
    [
        (
            "labs",
            "[90_first](../notebooks/90_first.ipynb), `labs/90_first.ipynb`,"
            " [91_next](../notebooks/91_next.ipynb),"
            " [solutions/91_next](../solutions/91_next.ipynb); x = `91_next.lock`",
        ),
        (
            "solutions",
            "[90_first](../notebooks/90_first.ipynb),"
            " [labs/90_first.ipynb](../labs/90_first.ipynb),"
            " [91_next](../notebooks/91_next.ipynb), [solutions/91_next](91_next.ipynb);"
            " x = `91_next.lock`",
        ),
    ],
)
def test_what_a_text_names_is_a_link_but_for_the_notebook_itself(
    root: Path, room: str, becomes: str
) -> None:
    change_source(
        root, "labs/90_first.py", "# %%\norigin", f"# %% [markdown]\n# {NAMES}\n\n# %%\norigin"
    )
    sources = [cell.source for cell in blank(source_of(root), room).cells]
    assert becomes in sources


def test_widget_ids_are_derived_and_only_what_is_shown_is_kept(built: Path) -> None:
    notebook = loads((built / NOTEBOOK).read_text())
    (holder,) = notebook.metadata.widgets.values()
    names = sorted(state.model_name for state in holder.state.values())
    assert names.count("IntSliderModel") == 1  # the other one is never shown
    assert "VBoxModel" in names
    view = notebook.cells[5].outputs[0].data["application/vnd.jupyter.widget-view+json"]
    assert holder.state[view.model_id].model_name == "VBoxModel"
    for child in holder.state[view.model_id].state.children:
        assert child.removeprefix("IPY_MODEL_") in holder.state


def test_pieces_of_a_stream_and_their_order_make_no_difference(root: Path) -> None:
    def stream(name: str, text: str) -> dict[str, str]:
        return {"output_type": "stream", "name": name, "text": text}

    hashes = set()
    for outputs in (
        [stream("stdout", "one\ntwo\n"), stream("stderr", "oh\n")],
        [stream("stderr", "oh\n"), stream("stdout", "one\n"), stream("stdout", "two\n")],
        [stream("stdout", "one\n"), stream("stderr", "oh\n"), stream("stdout", "two\n")],
    ):
        raw = json.loads((root / SOLUTION).read_text())
        shown = {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "3"}}
        raw["cells"][1]["outputs"] = [*outputs, shown, *outputs]
        hashes.add(outputs_sha256(seal(loads(json.dumps(raw)), source_of(root))))
    assert len(hashes) == 1


# Cells that fail


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise KeyError('bob')", "KeyError: 'bob'"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "The kernel died"),
        ("import os\nprint(os.getcwd())", "holds a path of this machine"),
    ],
)
def test_a_cell_that_fails_gets_one_sentence_and_leaves_the_old_product(
    root: Path, capsys: pytest.CaptureFixture[str], code: str, reason: str
) -> None:
    before = texts(root)
    change_source(root, "notebooks/90_first.py", "sum(range(5))", code)
    assert main(["--root", str(root)]) == 1
    said = capsys.readouterr()
    (line,) = (each for each in said.err.splitlines() if "90_first" in each)
    assert line.startswith("content/notebooks/90_first.py, cell 8, line 35: ")
    assert reason in line
    assert f"{NOTEBOOK} is left as it was" in line
    assert "Traceback" not in said.err
    assert texts(root) == before
    assert sorted(path.name for path in (root / "notebooks").iterdir()) == ["90_first.ipynb"]


def test_a_cell_that_should_raise_and_does_not_is_an_error(root: Path) -> None:
    change_source(root, "notebooks/90_first.py", "1 / 0", "1 / 1")
    (failure,) = build(root, say=quiet)
    assert "cell 7" in str(failure)
    assert "raised nothing" in str(failure)


def test_a_cell_that_takes_too_long_is_stopped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builder.execute
    monkeypatch.setattr(
        builder, "execute", lambda nb, folder, root: original(nb, folder, root, timeout=1)
    )
    change_source(root, "notebooks/90_first.py", "sum(range(5))", "import time\ntime.sleep(60)")
    (failure,) = build(root, say=quiet)
    assert "cell 8" in str(failure)
    assert "longer than 1 s" in str(failure)


def test_one_failure_does_not_keep_the_others_from_being_built(root: Path) -> None:
    change_source(root, "notebooks/90_first.py", "sum(range(5))", "nothing")
    change_source(root, "labs/90_first.py", "both:", "sum of both:")
    (failure,) = build(root, say=quiet)
    assert "NameError: name 'nothing' is not defined" in str(failure)
    assert "sum of both: [42, 42]" in (root / SOLUTION).read_text()


# What --check finds


def test_a_cell_never_executed_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def forget(notebook: Any) -> None:
        notebook.cells[-1].execution_count = None
        notebook.cells[-1].outputs = []

    change(root, SOLUTION, forget)
    said = said_by_check(root, capsys)
    assert f"{SOLUTION}: was not run to the end (cell 7 never executed)" in said
    assert "[source: content/labs/90_first.py]; run `make notebooks`." in said


def test_an_unexecuted_cell_is_found_even_when_the_hash_agrees(root: Path) -> None:
    def forget(notebook: Any) -> None:
        notebook.cells[-1].execution_count = None
        notebook.cells[-1].outputs = []
        seal(notebook, source_of(root))

    change(root, SOLUTION, forget)
    assert any("never executed" in str(problem) for problem in check(root))


def test_cells_run_out_of_order_are_found(root: Path) -> None:
    def swap(notebook: Any) -> None:
        for number, count in ((1, 2), (2, 1)):
            notebook.cells[number].execution_count = count
        seal(notebook, source_of(root))

    change(root, SOLUTION, swap)
    (problem,) = check(root)
    assert "was not run in order (cell 2 was run as number 2, not 1)" in str(problem)


def test_a_gap_in_the_order_is_found(root: Path) -> None:
    def skip(notebook: Any) -> None:
        notebook.cells[-1].execution_count = 6
        seal(notebook, source_of(root))

    change(root, SOLUTION, skip)
    (problem,) = check(root)
    assert "cell 7 was run as number 6, not 5" in str(problem)


@pytest.mark.parametrize("name", [NOTEBOOK, SOLUTION])
def test_one_changed_digit_of_an_output_is_found(root: Path, name: str) -> None:
    old, new = {NOTEBOOK: ("hits 3 of 4\\n", "hits 2 of 4\\n"), SOLUTION: ("42]", "43]")}[name]
    text = (root / name).read_text()
    assert text.count(old) == 1
    (root / name).write_text(text.replace(old, new))
    (problem,) = check(root)
    assert str(problem).startswith(f"{name}: has outputs that were not written by the builder")


def test_a_stored_exception_is_found_unless_the_cell_may_raise(root: Path) -> None:
    def fail(notebook: Any) -> None:
        del notebook.cells[6].metadata["tags"]

    change(root, NOTEBOOK, fail)
    assert any("holds an exception in cell 7" in str(problem) for problem in check(root))


def test_a_leaked_solution_line_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def leak(notebook: Any) -> None:
        notebook.cells[2].source += "\n    # return found_in_origin + 1"
        seal(notebook, source_of(root))

    change(root, LAB, leak)
    said = said_by_check(root, capsys)
    assert f"{LAB}: gives a line of the solution away in cell 3: `return found_in_o" in said
    assert f"{LAB}: does not match its source (cell 3 is the first that differs)" in said


def test_a_leaked_explanation_is_found(root: Path) -> None:
    def leak(notebook: Any) -> None:
        notebook.cells[0].source += "\nThe origin holds one less than what is asked for."

    change(root, LAB, leak)
    assert any("solution away in cell 1" in str(problem) for problem in check(root))


def test_an_edited_lab_is_named_with_what_gives_it_back(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(notebook: Any) -> None:
        notebook.cells[2].source = "def read(key):\n    return 42"

    change(root, LAB, work)
    said = said_by_check(root, capsys)
    assert (
        f"{LAB}: was edited by hand (cell 3 is the first that differs) "
        "[source: content/labs/90_first.py]; "
        "`cachelab reset 90_first` gives the original back and keeps a backup." in said
    )


def test_outputs_in_a_lab_are_found(root: Path) -> None:
    def run(notebook: Any) -> None:
        notebook.cells[1].execution_count = 1

    change(root, LAB, run)
    (problem,) = check(root)
    assert "holds the outputs of a run (cell 2)" in str(problem)
    assert "cachelab reset" in str(problem)


def test_an_edited_notebook_is_found(root: Path) -> None:
    def edit(notebook: Any) -> None:
        notebook.cells[3].source = "Run first, then predict."

    change(root, NOTEBOOK, edit)
    (problem,) = check(root)
    assert "was edited by hand (cell 4 is the first that differs)" in str(problem)


def test_a_product_older_than_its_source_is_found(root: Path) -> None:
    change_source(root, "labs/90_first.py", "one less", "one fewer")
    assert [(problem.product, problem.command) for problem in check(root)] == [  # type: ignore[union-attr]
        (LAB, "run `make notebooks`"),
        (SOLUTION, "run `make notebooks`"),
    ]
    assert "another version of its source" in str(check(root)[0])


def test_a_product_of_another_builder_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "BUILDER", "another")
    found = [str(problem) for problem in check(root)]
    assert ["version of the builder" in each for each in found] == [True] * 3
    assert [each.endswith("; run `make notebooks`.") for each in found] == [True] * 3


@pytest.mark.parametrize("name", PRODUCTS)
def test_metadata_of_another_program_is_found(root: Path, name: str) -> None:
    def save(notebook: Any) -> None:
        notebook.metadata["language_info"]["version"] = "3.11.2"

    change(root, name, save)
    (problem,) = check(root)
    assert "its metadata or its layout has changed" in str(problem)


@pytest.mark.parametrize("extra", [{"execution": {}}, {"collapsed": True}, {"tags": ["live"]}])
def test_metadata_of_a_cell_is_found(root: Path, extra: dict[str, object]) -> None:
    change(root, NOTEBOOK, lambda notebook: notebook.cells[1].metadata.update(extra))
    (problem,) = check(root)
    assert "its metadata or its layout has changed" in str(problem)


def test_another_layout_of_the_same_notebook_is_found(root: Path) -> None:
    path = root / NOTEBOOK
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    (problem,) = check(root)
    assert "its metadata or its layout has changed" in str(problem)


def test_windows_line_ends_are_no_difference(root: Path) -> None:
    for name in (*PRODUCTS, "content/labs/90_first.py", "content/notebooks/90_first.py"):
        path = root / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert check(root) == []


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "it is not valid JSON (line "),
        (lambda text: "", "it is not valid JSON"),
        (lambda text: "[]", "it is not a notebook of format 4.5"),
        (lambda text: text.replace('"nbformat_minor": 5', '"nbformat_minor": 4'), "format 4.5"),
        (lambda text: text.replace('"cell_type": "code"', '"cell_type": "cod"', 1), "not a valid"),
        (lambda text: text.replace('"outputs"', '"output"', 1), "it is not a valid notebook"),
        (lambda text: "<<<<<<< HEAD\n" + text, "it is not valid JSON (line 1"),
    ],
)
def test_a_half_edited_notebook_gets_one_sentence(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[str], str],
    words: str,
) -> None:
    (root / name).write_text(damage((root / name).read_text()))
    said = said_by_check(root, capsys).splitlines()
    assert len(said) == 2  # the problem, and how many they are
    assert said[0].startswith(f"{name}: cannot be read: ")
    assert words in said[0]


def test_a_notebook_that_is_not_text_gets_one_sentence(root: Path) -> None:
    (root / LAB).write_bytes(b"\xff\xfe{")
    (problem,) = check(root)
    assert "it is not UTF-8 text" in str(problem)


def test_a_missing_product_is_found(root: Path) -> None:
    (root / LAB).unlink()
    (problem,) = check(root)
    assert str(problem).startswith(f"{LAB}: is missing")


@pytest.mark.parametrize("room", ["notebooks", "labs", "solutions"])
def test_a_product_without_a_source_is_found(root: Path, room: str) -> None:
    shutil.copy(root / LAB, root / room / "91_second.ipynb")
    (problem,) = check(root)
    assert str(problem).startswith(f"{room}/91_second.ipynb: has no source")


def test_a_learners_backup_needs_no_source(root: Path) -> None:
    shutil.copy(root / LAB, root / "labs" / "90_first.backup-20250101-120000.ipynb")
    assert check(root) == []


def test_all_differences_are_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in PRODUCTS:
        (root / name).write_text("{")
    assert len(said_by_check(root, capsys).splitlines()) == 4


# What a learner wrote


@pytest.mark.parametrize("work", ["def read(key):\n    return 42", None])
def test_building_over_an_edited_lab_keeps_a_backup(root: Path, work: str | None) -> None:
    original = (root / LAB).read_bytes()
    if work is None:
        (root / LAB).write_text("{ half of it")
    else:
        change(root, LAB, lambda notebook: notebook.cells[2].update(source=work))
    edited = (root / LAB).read_bytes()
    lines: list[str] = []
    assert build(root, say=lines.append) == []
    assert (root / LAB).read_bytes() == original
    (backup,) = (root / "labs").glob("90_first.backup-*.ipynb")
    assert backup.read_bytes() == edited
    assert any(backup.name in line for line in lines)
    assert check(root) == []


def test_building_over_an_untouched_lab_keeps_no_backup(root: Path) -> None:
    change_source(root, "labs/90_first.py", "one less", "one fewer")
    (root / SOLUTION).unlink()
    assert builder._build_one(root, source_of(root), "labs", anew=False) == (True, None)
    assert len(list((root / "labs").iterdir())) == 1
