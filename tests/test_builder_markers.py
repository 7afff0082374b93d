"""The builder understands a source wholly, or says file, cell and line of what it does not."""

import shutil
from pathlib import Path

import pytest

from tools.build import build, main
from tools.markers import (
    SourceError,
    looks_like_a_marker,
    read_source,
    solution_lines,
    solved,
    stub,
)

FIXTURES = Path(__file__).parent / "fixtures" / "builder"
LAB = "content/labs/90_first.py"
NOTEBOOK = "content/notebooks/90_first.py"
BEGIN, END = "    ### BEGIN SOLUTION\n", "    ### END SOLUTION\n"
READ = '# %% exercise="90_first.read" minutes=3\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES / "content", tmp_path / "content")
    return tmp_path


def errors_after(root: Path, name: str, old: str, new: str) -> tuple[list[SourceError], str]:
    path = root / name
    text = path.read_text()
    assert old in text
    text = text.replace(old, new, 1)
    path.write_text(text)
    source, errors = read_source(root, path)
    assert (source is None) == bool(errors)
    return errors, text


def test_the_fixtures_are_right(root: Path) -> None:
    for name in (LAB, NOTEBOOK):
        source, errors = read_source(root, root / name)
        assert errors == []
        assert source is not None


SPELLINGS = [
    "### begin solution",
    "###BEGIN SOLUTION",
    "#BEGIN SOLUTION",
    "# BEGIN SOLUTION",
    "## BEGIN SOLUTION",
    "#### BEGIN SOLUTION",
    "### BEGIN  SOLUTION",
    "### BEGIN SOLUTION ",
    "### BEGIN SOLUTIONS",
    "### BEGIN SOLUTION:",
    "### BEGIN_SOLUTION",
    "### BEGINSOLUTION",
    "### BEGIN SOLUTON",
    "### BEGNI SOLUTION",
    "### SOLUTION BEGIN",
    "### START SOLUTION",
    "### BEGIN",
    "### BEGIN HIDDEN TESTS",
    "pass  ### BEGIN SOLUTION",
]


@pytest.mark.parametrize("marker", SPELLINGS)
def test_a_misspelt_begin_is_an_error_on_its_line(root: Path, marker: str) -> None:
    errors, text = errors_after(root, LAB, BEGIN, f"    {marker}\n")
    line = text.splitlines().index(f"    {marker}") + 1
    mine = [error for error in errors if error.line == line]
    assert [error.cell for error in mine] == [3]
    assert "looks like a solution marker" in mine[0].what
    assert str(mine[0]).startswith(f"{LAB}, cell 3, line {line}: `{marker.strip()}`")


@pytest.mark.parametrize("marker", [each.replace("BEGIN", "END") for each in SPELLINGS])
def test_a_misspelt_end_is_an_error(root: Path, marker: str) -> None:
    errors, _ = errors_after(root, LAB, END, f"    {marker}\n")
    assert any("looks like a solution marker" in error.what for error in errors)


def test_a_misspelt_marker_outside_any_exercise_is_an_error(root: Path) -> None:
    errors, text = errors_after(root, LAB, "origin =", "# begin solution\norigin =")
    line = text.splitlines().index("# begin solution") + 1
    assert [(error.cell, error.line) for error in errors] == [(2, line)]


@pytest.mark.parametrize(
    "comment",
    [
        "# the end of the solution's first half",
        "# Resolution",
        "# begin with the origin",
        "value = 1  # no solution yet",
        'print("BEGIN SOLUTION")',
    ],
)
def test_an_ordinary_comment_is_not_taken_for_a_marker(comment: str) -> None:
    assert not looks_like_a_marker(comment)


LAB_ERRORS = {
    "nested": (BEGIN, BEGIN + BEGIN, 3, BEGIN + BEGIN, 1, "inside the one begun on line"),
    "begin without end": (END, "", 3, BEGIN, 0, "never ends"),
    "end without begin": (BEGIN, "", 3, END, 0, "never began"),
    "two ends": (END, END + END, 3, END + END, 1, "never began"),
    "empty": (
        "    found_in_origin = origin[key]\n    return found_in_origin + 1\n",
        "\n",
        3,
        BEGIN,
        0,
        "is empty",
    ),
    "only a comment": (
        "    found_in_origin = origin[key]\n    return found_in_origin + 1\n",
        "    # as above\n",
        3,
        BEGIN,
        0,
        "is empty",
    ),
    "not an exercise": (READ, "# %%\n", 3, BEGIN, 0, "without exercise="),
    "no region": (BEGIN, "", 3, END, 0, "never began"),
    "exercise without region": (
        'origin = {"alice": 41}',
        'origin = {"alice": 41}\n\n# %% exercise="90_first.none"\nnothing = 1',
        3,
        '# %% exercise="90_first.none"',
        0,
        "has no solution region",
    ),
    "another file's stem": (READ, '# %% exercise="91_second.read"\n', 3, "91_sec", 0, "90_first."),
    "no stem": (READ, '# %% exercise="read"\n', 3, 'exercise="read"', 0, "90_first."),
    "marker in text": (
        "# Change `read`",
        "# ### BEGIN SOLUTION\n# Change `read`",
        1,
        "# ### BEGIN",
        0,
        "in a text cell",
    ),
    "marker in a string": (
        '    """Return the number of `key` plus one."""\n    ### BEGIN SOLUTION',
        '    """Return the number.\n    ### BEGIN SOLUTION\n    """',
        3,
        BEGIN,
        0,
        "inside a string",
    ),
    "exercise twice": ("90_first.both", "90_first.read", 9, "def both", -1, "already in cell 3"),
    "exercise on text": (
        '# %% [markdown] tags=["solution"]',
        '# %% [markdown] exercise="90_first.x"',
        7,
        "90_first.x",
        0,
        "belongs on a code cell",
    ),
    "exercise cell dropped": (
        READ,
        '# %% exercise="90_first.read" tags=["solution"]\n',
        3,
        '# %% exercise="90_first.read"',
        0,
        "its stub is needed",
    ),
    "stub does not compile": (
        "    ### BEGIN SOLUTION\n    numbers = [read(first), read(second)]\n",
        "    numbers = (\n    ### BEGIN SOLUTION\n    read(first), read(second))\n",
        9,
        "def both",
        -1,
        "With its solution taken out",
    ),
    "does not compile": (
        'print("both:"',
        'x = = 1\nprint("both:"',
        13,
        "x = = 1",
        0,
        "does not compile",
    ),
    "unknown tag": ('tags=["solution"]', 'tags=["solutions"]', 7, "solutions", 0, "is unknown"),
    "tag of code on text": ('tags=["solution"]', 'tags=["live"]', 7, '["live"]', 0, "code cells"),
    "tags not a list": (
        'tags=["solution"]',
        'tags="solution"',
        7,
        'tags="solution"',
        0,
        "cannot read this cell",
    ),
    "unknown key": (READ, '# %% excercise="90_first.read"\n', 3, "excercise", 0, "does not know"),
    "unreadable header": (READ, "# %% exercise=90_first.read\n", 3, "exercise=90", 0, "header"),
    "two titles": (
        "# The origin holds",
        "# # Another\n#\n# The origin holds",
        7,
        "# # Another",
        0,
        "second H1",
    ),
    "two titles, underlined": (
        "# The origin holds",
        "# Another\n# =====\n#\n# The origin holds",
        7,
        "# Another",
        0,
        "second H1",
    ),
    "no title": ("# # Write", "# ## Write", 1, "# %% [markdown]", 0, "first cell must be text"),
    "code first": (
        "# %% [markdown]\n",
        "# %%\nx = 1\n\n# %% [markdown]\n",
        1,
        "# %%",
        0,
        "first cell must be text",
    ),
    "semicolon": (
        '"alice", "alice"))',
        '"alice", "alice"));',
        13,
        '"alice"));',
        0,
        "ends with `;`",
    ),
    "semicolon before a comment": (
        '"alice", "alice"))',
        '"alice", "alice")) ; # quiet\n# really',
        13,
        "# really",
        0,
        "ends with `;`",
    ),
    "old input": ('print("both:"', 'In[1]\nprint("both:"', 13, "In[1]", 0, "`In[`"),
    "old output": ('print("both:"', 'Out[1]\nprint("both:"', 13, "Out[1]", 0, "`Out[`"),
    "magic call": (
        'print("both:"',
        'get_ipython().magic("who")\nprint("both:"',
        13,
        "get_ipython",
        0,
        "get_ipython().magic",
    ),
    "empty cell": ('origin = {"alice": 41}\n', "", 2, "# %%\n", 0, "is empty"),
    "raw cell": ("# %%\norigin", "# %% [raw]\n# origin", 2, "# %% [raw]", 0, "raw cell"),
    "text before the first header": (
        "# %% [markdown]",
        "x = 1\n# %% [markdown]",
        1,
        "x = 1",
        0,
        "before the first",
    ),
    "no minutes": (" minutes=3", "", 3, READ.split(" minutes")[0], 0, "has no minutes"),
    "minutes of nothing": ("minutes=3", "minutes=0", 3, "minutes=0", 0, "has no minutes"),
    "minutes as text": ("minutes=3", 'minutes="3"', 3, 'minutes="3"', 0, "has no minutes"),
    "minutes elsewhere": (
        "# %%\norigin",
        "# %% minutes=3\norigin",
        2,
        "# %% minutes=3",
        0,
        "behind exercise=",
    ),
    "two functions": (
        READ,
        READ + "def other():\n    pass\n\n\n",
        3,
        "def other",
        0,
        "defines 2 functions",
    ),
    "no docstring": (
        '    """Return the number of `key` plus one."""\n',
        "",
        3,
        "def read",
        0,
        "has no docstring",
    ),
    "no function": (
        "def read(key):",
        "class Read:\n  def read(key):",
        3,
        "class Read",
        0,
        "defines 0 functions",
    ),
    "two hints": (
        '# %% [markdown] tags=["hint"]\n# In `origin`.\n\n',
        "",
        3,
        READ,
        0,
        "has 2 hints, not 3",
    ),
    "four hints": (
        "# In `origin`.",
        '# In `origin`.\n\n# %% [markdown] tags=["hint"]\n# There.',
        3,
        READ,
        0,
        "has 4 hints, not 3",
    ),
    "an empty hint": ("# In `origin`.", "#", 5, "#\n\n# %% [markdown] tags", -1, "is empty"),
    "the same hint twice": (
        "# In `origin`.",
        "# Where is the\n# number?",
        5,
        "# Where is the\n",
        -1,
        "says what another",
    ),
    "a hint elsewhere": (
        "# %%\norigin",
        '# %% [markdown] tags=["hint"]\n# Early.\n\n# %%\norigin',
        2,
        '# %% [markdown] tags=["hint"]',
        0,
        "right after the cell of its exercise",
    ),
    "a hint in code": (
        '# %% [markdown] tags=["hint"]\n# In `origin`.',
        '# %% tags=["hint"]\norigin',
        5,
        '# %% tags=["hint"]',
        0,
        "is for text cells",
    ),
}


@pytest.mark.parametrize("kind", LAB_ERRORS)
def test_each_error_names_file_cell_and_line(root: Path, kind: str) -> None:
    old, new, cell, place, offset, words = LAB_ERRORS[kind]
    errors, text = errors_after(root, LAB, old, new)
    line = text[: text.index(place)].count("\n") + 1 + offset
    found = [error for error in errors if words in error.what]
    assert found, [str(error) for error in errors]
    assert (found[0].file, found[0].cell, found[0].line) == (LAB, cell, line)
    assert str(found[0]).endswith(".")


NOTEBOOK_ERRORS = {
    "marker": ('print("hits', '### BEGIN SOLUTION\nprint("hits', "belongs in content/labs"),
    "misspelt marker": ('print("hits', '# begin solution\nprint("hits', "looks like a solution"),
    "exercise": ("# %%\nimport os", '# %% exercise="90_first.x"\nimport os', "content/labs"),
    "solution tag": ('tags=["live"]', 'tags=["solution"]', "belongs in content/labs"),
    "hint tag": (
        "# %% [markdown]\n# Predict",
        '# %% [markdown] tags=["hint"]\n# Predict',
        "belongs in content/labs",
    ),
    "long cell": ('print("hits', "x = 1\n" * 15 + "\n\n" + 'print("hits', "17 lines"),
}


@pytest.mark.parametrize("kind", NOTEBOOK_ERRORS)
def test_what_only_a_lab_may_have_is_an_error_in_a_notebook(root: Path, kind: str) -> None:
    old, new, words = NOTEBOOK_ERRORS[kind]
    errors, _ = errors_after(root, NOTEBOOK, old, new)
    assert any(words in error.what for error in errors), [str(error) for error in errors]


def test_blank_lines_before_the_first_header_get_one_sentence_that_says_so(root: Path) -> None:
    front = "# ---\n# jupyter:\n#   jupytext:\n#     formats: py:percent\n# ---\n"
    errors, text = errors_after(root, LAB, "# %% [markdown]", f"{front}\n\n# %% [markdown]")
    line = text.splitlines().index("# %% [markdown]") + 1
    assert [(error.cell, error.line) for error in errors] == [(1, line)]
    assert "More than one blank line" in errors[0].what


def test_fifteen_lines_are_not_too_long(root: Path) -> None:
    fifteen = "x = 1\n\n" * 13
    errors, _ = errors_after(root, NOTEBOOK, 'print("hits', fifteen + 'print("hits')
    assert errors == []


def test_a_file_that_jupytext_cannot_read_gets_one_sentence(root: Path) -> None:
    header = "# ---\n# jupyter:\n#   kernelspec:\n#     name: python3\n# ---\n\n"
    errors, _ = errors_after(root, LAB, "# %% [markdown]", header + "# %% [markdown]")
    assert ["jupytext cannot read this" in str(error) for error in errors] == [True]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\n\n"])
def test_a_file_without_text_gets_one_sentence(root: Path, content: bytes) -> None:
    (root / LAB).write_bytes(content)
    source, errors = read_source(root, root / LAB)
    assert source is None
    assert [error.line for error in errors] == [1]


def test_a_file_name_without_number_is_an_error(root: Path) -> None:
    (root / LAB).rename(root / "content/labs/first.py")
    source, errors = read_source(root, root / "content/labs/first.py")
    assert source is None
    assert "05_cache_aside.py" in str(errors[0])


def test_all_errors_of_all_files_are_listed_and_nothing_is_built(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors_after(root, LAB, BEGIN, "    ### begin solution\n")
    errors_after(root, NOTEBOOK, 'tags=["live"]', 'tags=["alive"]')
    errors_after(root, NOTEBOOK, "sum(range(5))", "sum(range(5));")
    assert main(["--root", str(root)]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert f"{LAB}, cell 3, line 13: `### begin solution`" in said
    assert f"{NOTEBOOK}, cell 5, line 23: The tag 'alive'" in said
    assert f"{NOTEBOOK}, cell 8, line 40: The cell ends with `;`" in said
    assert not (root / "labs").exists()
    assert not (root / "notebooks").exists()
    assert main(["--root", str(root), "--check"]) == 1
    assert f"{LAB}, cell 3, line 13" in capsys.readouterr().err


def test_errors_come_in_the_order_of_the_file(root: Path) -> None:
    errors_after(root, NOTEBOOK, 'print("hits 3 of 4")', 'print("hits 3 of 4");')
    errors, _ = errors_after(root, NOTEBOOK, 'tags=["live"]', 'tags=["alive"]')
    assert [error.cell for error in errors] == [2, 5]


def test_blank_lines_after_a_header_do_not_shift_the_lines(root: Path) -> None:
    errors, text = errors_after(root, LAB, READ + "def", READ + "\n\n\ndef")
    assert errors == []
    errors, text = errors_after(root, LAB, BEGIN, "    ### BEGIN\n")
    line = text.splitlines().index("    ### BEGIN") + 1
    assert (errors[0].cell, errors[0].line) == (3, line)


def test_a_header_inside_a_string_or_a_fence_does_not_shift_the_lines(root: Path) -> None:
    errors, text = errors_after(
        root,
        NOTEBOOK,
        'print("hits 3 of 4")',
        'text = """\n# %% not a cell\n"""\nprint("hits 3 of 4");',
    )
    line = text.splitlines().index('print("hits 3 of 4");') + 1
    assert [(error.cell, error.line) for error in errors] == [(2, line)]


def test_a_line_of_a_text_cell_in_quotes_has_its_number(root: Path) -> None:
    errors, text = errors_after(
        root,
        NOTEBOOK,
        "# Predict, then run.",
        '"""\nPredict, then run.\n\n# Second\n"""',
    )
    line = text.splitlines().index("# Second") + 1
    assert [(error.cell, error.line) for error in errors] == [(4, line)]


def test_an_unknown_name_on_the_command_line_gets_one_sentence(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(root), "91_none"]) == 1
    assert "No source is called 91_none; there are 90_first." in capsys.readouterr().err


def test_a_root_without_content_gets_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path), "--check"]) == 1
    assert "No source was found" in capsys.readouterr().err


def test_only_the_named_sources_are_read(root: Path) -> None:
    broken = root / "content/labs/91_second.py"
    broken.write_text((root / LAB).read_text())  # its exercises are of another stem
    (root / NOTEBOOK).unlink()
    assert len(build(root, ["91_second"], say=lambda line: None)) == 2
    source, errors = read_source(root, root / LAB)
    assert (source is not None, errors) == (True, [])


def test_a_region_becomes_one_stub_at_the_markers_indentation(root: Path) -> None:
    source, _ = read_source(root, root / LAB)
    assert source is not None
    both = source.cells[8]
    assert stub(both).splitlines()[2:] == [
        '    raise NotImplementedError("90_first.both")',
        "    if not numbers:",
        '        raise NotImplementedError("90_first.both")',
        "    return numbers",
    ]
    assert solved(both).splitlines()[2:] == [
        "    numbers = [read(first), read(second)]",
        "    if not numbers:",
        '        raise KeyError("neither was found")',
        "    return numbers",
    ]


def test_a_solution_line_that_the_lab_shows_elsewhere_is_no_secret(root: Path) -> None:
    source, _ = read_source(root, root / LAB)
    assert source is not None
    secret = "return found_in_origin + 1"
    assert secret in solution_lines(source)
    errors_after(root, LAB, "# Change `read`", f"# Not `{secret}`.\n# Change `read`")
    source, _ = read_source(root, root / LAB)
    assert source is not None
    assert secret not in solution_lines(source)
