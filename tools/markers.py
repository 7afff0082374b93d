"""Read a py:percent source, find its solution regions, and say where what is wrong.

A source is `content/notebooks/NN_slug.py` or `content/labs/NN_slug.py`. In a lab, an exercise is a
code cell whose header says `exercise="NN_slug.name" minutes=8`; in it, the lines between
`### BEGIN SOLUTION` and `### END SOLUTION` are the solution. Its title is the heading above it, and
right after it come its three hints, text cells with `tags=["hint"]`. Whatever looks like a marker
and is not exactly one is an error here, because a marker that is overlooked puts a solution into a
learner's hands.
"""

# mypy: disable-error-code="no-untyped-call"
# IPython leaves its functions unannotated.

import ast
import difflib
import hashlib
import io
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
from IPython.core.inputtransformer2 import TransformerManager

KNOWN_TAGS = (
    "solution",
    "hint",
    "live",
    "sqlite",
    "widget",
    "nbval-ignore-output",
    "raises-exception",
)
LONGEST_CODE_CELL = 15
HINTS = 3  # of each exercise
SHORTEST_LEAK = 9  # characters: `return x` may stand anywhere

_BEGIN = re.compile(r"[ \t]*### BEGIN SOLUTION")
_END = re.compile(r"[ \t]*### END SOLUTION")
_STEM = re.compile(r"\d\d_[a-z0-9_]+")
_HEADER = re.compile(r"\s*#\s*%%(\s.*)?")
_LINE_KEY = "cachelab_line"
# Where `splitlines` ends a line and Python does not: a marker behind one would be seen by one only.
_ODD_BREAK = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True)
class SourceError:
    """One thing that is wrong in one source, with the place where it is."""

    file: str
    cell: int
    line: int
    what: str

    def __str__(self) -> str:
        return printable(f"{self.file}, cell {self.cell}, line {self.line}: {self.what}")


@dataclass(frozen=True)
class Cell:
    """One cell of a source. `line` is its header's line, `first` that of its text, both from 1."""

    number: int
    kind: str  # "code" or "markdown"
    text: str
    line: int
    first: int
    tags: tuple[str, ...] = ()
    exercise: str | None = None
    minutes: int | None = None
    given: tuple[float, ...] = ()  # numbers of the text that no cell shows

    @property
    def is_hint(self) -> bool:
        """Whether the cell is in the catalogue alone, and in no notebook."""
        return "hint" in self.tags

    @property
    def is_solution(self) -> bool:
        """Whether the whole cell is left out of the lab."""
        return "solution" in self.tags


@dataclass(frozen=True)
class Source:
    """One source file: `room` is "notebooks" or "labs", `path` is relative to the root.

    `sha256` is that of all that a notebook is made from: without hints, minutes and given=.
    """

    path: str
    room: str
    stem: str
    sha256: str
    cells: tuple[Cell, ...]


def printable(text: str) -> str:
    """A sentence whose quotations hold nothing that a terminal would obey."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def read_source(root: Path, path: Path) -> tuple[Source | None, list[SourceError]]:
    """Read and check one source file.

    Returns the source and the errors found. The source is None when there is any error: nothing
    is built from a source that is not wholly understood.
    """
    name = path.relative_to(root).as_posix()
    room = path.parent.name
    if not _STEM.fullmatch(path.stem):
        return None, [
            SourceError(
                name, 1, 1, "The file name is not of the form 05_cache_aside.py; rename it."
            )
        ]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        what = f"The file is not UTF-8 text (byte {error.start}); save it as UTF-8."
        return None, [SourceError(name, 1, 1, what)]
    odd = _ODD_BREAK.search(text)
    if odd:
        what = f"The character U+{ord(odd[0]):04X} ends a line for some programs only; take it out."
        above = text[: odd.start()].split("\n")
        number = sum(1 for line in above if _HEADER.fullmatch(line)) or 1
        return None, [SourceError(name, number, len(above), what)]
    try:
        parsed = _parse(text)
    except Exception as error:  # jupytext raises whatever its YAML and JSON readers raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        number, line = _unreadable_cell(text)
        what = f"jupytext cannot read this cell's header ({reason}); correct it."
        return None, [SourceError(name, number, line, what)]
    if not text.strip() or not parsed:
        what = "The file has no cell; begin with a `# %% [markdown]` cell that holds the title."
        return None, [SourceError(name, 1, 1, what)]
    if parsed[0][1] and not parsed[0][0].text.strip() and _blank_lines(text):
        what = "More than one blank line stands before the first `# %%` header; leave one."
        return None, [SourceError(name, 1, _blank_lines(text), what)]
    cells: list[Cell] = []
    errors: list[SourceError] = []
    for cell, complaints in parsed:
        cells.append(cell)
        errors += [SourceError(name, cell.number, cell.line, what) for what in complaints]
    source = Source(name, room, path.stem, _sha256(text, cells), tuple(cells))
    errors += _errors(source)
    errors.sort(key=lambda error: (error.cell, error.line))
    return (None if errors else source), errors


def _sha256(text: str, cells: Sequence[Cell]) -> str:
    lines = text.splitlines(keepends=True)
    kept = lines[: cells[0].line - 1]
    for cell, end in zip(cells, [*(cell.line - 1 for cell in cells[1:]), len(lines)], strict=True):
        if not cell.is_hint:
            header = re.sub(r" minutes=\d+| given=\[[^]]*\]", "", lines[cell.line - 1])
            kept += [header, *lines[cell.line : end]]
    return hashlib.sha256("".join(kept).encode()).hexdigest()


def _parse(text: str) -> list[tuple[Cell, list[str]]]:
    """Cells as jupytext reads them, each with the complaints about its header."""
    lines = text.splitlines()
    # jupytext does not say on which line a cell began. So read the text once more, with the
    # line's number written into each header, and let jupytext itself say which headers count.
    numbered = [
        f"{line.rstrip()} {_LINE_KEY}={number}" if _HEADER.fullmatch(line) else line
        for number, line in enumerate(lines, 1)
    ]
    plain = jupytext.reads(text, fmt="py:percent").cells
    placed = jupytext.reads("\n".join(numbered), fmt="py:percent").cells
    result = []
    for number, (node, twin) in enumerate(zip(plain, placed, strict=True), 1):
        found = re.search(rf"{_LINE_KEY}\D*(\d+)", str(twin.metadata))
        line = int(found[1]) if found else 1
        complaints = _header_complaints(node, has_header=bool(found))
        tags = _tags(node)
        exercise, minutes = node.metadata.get("exercise"), node.metadata.get("minutes")
        given = node.metadata.get("given")
        result.append(
            (
                Cell(
                    number=number,
                    kind=node.cell_type,
                    text=node.source,
                    line=line,
                    first=_first_line(lines, line, node),
                    tags=tuple(tags or ()),
                    exercise=None if exercise is None else str(exercise),
                    minutes=minutes if type(minutes) is int and minutes > 0 else None,
                    given=tuple(map(float, given)) if _are_numbers(given) else (),
                ),
                complaints,
            )
        )
    return result


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) for each in value)


def _tags(node: Any) -> list[str] | None:
    """The tags of a cell; None when what stands there is no list of texts."""
    tags = node.metadata.get("tags", [])
    fits = isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
    return tags if fits else None


def _unreadable_cell(text: str) -> tuple[int, int]:
    """Number and line of the cell with which jupytext begins to fail."""
    lines = text.splitlines()
    headers = [number for number, line in enumerate(lines, 1) if _HEADER.fullmatch(line)]
    for cell, header in enumerate(headers, 1):
        try:
            jupytext.reads("\n".join(lines[:header]), fmt="py:percent")
        except Exception:  # whatever it was, it was read before by the caller
            return (1, 1) if cell == 1 else (cell, header)
    return 1, 1


def _blank_lines(text: str) -> int:
    """The line of the first header if two or more blank ones stand before it, else 0.

    jupytext makes an empty cell of them, which nobody sees in the source.
    """
    above: list[str] = []
    for line in text.splitlines():
        if _HEADER.fullmatch(line):
            return len(above) + 1 if above[-2:] == ["", ""] else 0
        above.append(line.strip())
    return 0


def _first_line(lines: list[str], header: int, node: Any) -> int:
    """Line number of the first line of a cell's text; blank lines after the header may be gone."""
    skipped = next((n for n, line in enumerate(node.source.splitlines()) if line.strip()), 0)
    not_text = ("",) if node.cell_type == "code" else ("", "#", '"""', "'''")
    for number in range(header + 1, len(lines) + 1):
        if lines[number - 1].strip() not in not_text:
            return number - skipped
    return header


def _header_complaints(node: Any, *, has_header: bool) -> list[str]:
    complaints = []
    metadata = dict(node.metadata)
    if node.cell_type == "raw":
        complaints.append("A raw cell shows nothing to a learner; write markdown or code.")
    elif not has_header:
        complaints.append("Text stands before the first `# %%` header, or under another header.")
    if "incorrectly_encoded_metadata" in metadata:
        seen = re.sub(rf"\s*{_LINE_KEY}=\d+", "", str(metadata["incorrectly_encoded_metadata"]))
        complaints.append(
            f"The cell header cannot be read: `{seen}`; "
            'write tags=["live"] or exercise="05_cache_aside.read".'
        )
        return complaints
    known = {"tags", "exercise", "minutes", "given", "lines_to_next_cell", "cell_marker"}
    for key in sorted(set(metadata) - known):
        complaints.append(
            f"The cell header says `{key}`, which the builder does not know; "
            "only tags=, exercise=, minutes= and given= may stand there."
        )
    if "given" in metadata and (
        node.cell_type != "markdown" or not _are_numbers(metadata["given"])
    ):
        complaints.append("given= lists numbers of a text; write given=[10, 0.5].")
    tags = _tags(node)
    if tags is None:
        complaints.append('The tags are no list of texts; write tags=["live"].')
    for tag in tags or ():
        if tag not in KNOWN_TAGS:
            complaints.append(f"The tag {tag!r} is unknown; known are {', '.join(KNOWN_TAGS)}.")
        elif node.cell_type == "markdown" and tag not in ("solution", "hint"):
            complaints.append(f"The tag {tag!r} is for code cells; take it off this text.")
        elif node.cell_type == "code" and tag == "hint":
            complaints.append("The tag 'hint' is for text cells; take it off this code.")
    return complaints


def _errors(source: Source) -> list[SourceError]:
    """What is wrong in the source beyond its cell headers."""
    errors: list[SourceError] = []

    def add(cell: Cell, line: int, what: str) -> None:
        errors.append(SourceError(source.path, cell.number, line, what))

    _check_title(source, add)
    seen: dict[str, int] = {}
    for cell in source.cells:
        if cell.kind == "markdown":
            if cell.exercise is not None:
                add(cell, cell.line, "exercise= belongs on a code cell, not on text.")
            for number, line in enumerate(cell.text.splitlines(), cell.first):
                if line.lstrip().startswith("#") and looks_like_a_marker(line):
                    add(cell, number, f"`{line.strip()}` is a solution marker in a text cell.")
        elif cell.kind == "code":
            before = len(errors)
            _check_exercise(source, cell, seen, add)
            _check_regions(source, cell, add)
            _check_code(source, cell, add, markers_are_right=len(errors) == before)
    if source.room == "notebooks":
        for cell in source.cells:
            for tag in {"solution", "hint"} & set(cell.tags):
                add(cell, cell.line, f"The tag {tag!r} belongs in content/labs.")
    else:
        _check_hints(source, add)
    return errors


def _check_hints(source: Source, add: Any) -> None:
    hints: dict[int, int] = {}  # by the number of the exercise's cell
    said: set[tuple[int, str]] = set()
    at = 0  # the exercise whose hints may stand here
    for cell in source.cells:
        if cell.minutes is not None and cell.exercise is None:
            add(cell, cell.line, "minutes= belongs behind exercise=; take it off this cell.")
        if cell.exercise is not None and cell.kind == "code":
            at = cell.number
            hints[at] = 0
        elif not cell.is_hint:
            at = 0
        elif not at:
            add(cell, cell.line, "A hint stands right after the cell of its exercise; move it.")
        else:
            hints[at] += 1
            text = " ".join(cell.text.split())
            if not text:
                add(cell, cell.line, "The hint is empty; write it, or remove the cell.")
            elif (at, text) in said:
                add(cell, cell.line, "The hint says what another of this exercise says.")
            said.add((at, text))
    for number, found in hints.items():
        if found != HINTS:
            cell = source.cells[number - 1]
            what = f"The exercise has {found} hints, not {HINTS}: write each into a text cell "
            add(cell, cell.line, what + 'with tags=["hint"], right after this one.')


def _check_title(source: Source, add: Any) -> None:
    first = source.cells[0]
    if first.kind != "markdown" or first.is_solution or not list(_titles(first)):
        add(first, first.line, "The first cell must be text with the title, a line `# Verb …`.")
    titles = [(cell, line) for cell in source.cells for line in _titles(cell)]
    for cell, line in titles[1:]:
        add(cell, line, "This is a second H1; a notebook has one, so write `## …`.")


def _titles(cell: Cell) -> Iterator[int]:
    """Line numbers of the H1 headings of a markdown cell, fenced blocks apart."""
    if cell.kind != "markdown":
        return
    fence = ""
    previous = ""
    for number, line in enumerate(cell.text.splitlines(), cell.first):
        bare = line.strip()
        opening = re.match(r"`{3,}|~{3,}", bare)
        if fence:
            if opening and bare.startswith(fence) and not bare.strip(fence[0]):
                fence = ""
        elif opening:
            fence = opening[0]
        elif re.match(r"# +\S", bare) and len(line) - len(line.lstrip()) < 4:
            yield number
        elif re.fullmatch(r"=+", bare) and previous:
            yield number - 1
        previous = bare


def _check_exercise(source: Source, cell: Cell, seen: dict[str, int], add: Any) -> None:
    name = cell.exercise
    if name is None:
        return
    if source.room == "notebooks":
        add(cell, cell.line, "An exercise belongs in content/labs, not in a notebook.")
        return
    stem, _, rest = name.partition(".")
    if stem != source.stem or not re.fullmatch(r"[a-z][a-z0-9_]*", rest):
        add(
            cell,
            cell.line,
            f"The exercise is called {name!r}; in this file it must be {source.stem}.some_name.",
        )
    if name in seen:
        add(cell, cell.line, f"The exercise {name!r} is already in cell {seen[name]}.")
    seen.setdefault(name, cell.number)
    if cell.is_solution:
        add(cell, cell.line, "An exercise cell cannot have the tag 'solution': its stub is needed.")
    if cell.minutes is None:
        add(cell, cell.line, "The exercise has no minutes; write them behind its name: minutes=8.")
    if _syntax_error(cell.text) is None and len(_functions(cell)) != 1:
        what = f"The exercise's cell defines {len(_functions(cell))} functions; one is expected: "
        add(cell, cell.first, what + "the answer. Others go into a cell of their own.")
    elif _syntax_error(cell.text) is None and not ast.get_docstring(_functions(cell)[0]):
        what = (
            "The function has no docstring; say what goes in, what comes out, and what must hold."
        )
        add(cell, cell.first, what)


def _functions(cell: Cell) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    body = ast.parse(TransformerManager().transform_cell(cell.text)).body
    return [one for one in body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]


def _check_regions(source: Source, cell: Cell, add: Any) -> None:
    opened = 0  # line number of the BEGIN that is open
    content = False
    found = False
    lines = cell.text.splitlines()
    comments = _comment_lines(cell.text)
    for number, line in enumerate(lines, cell.first):
        begin, end = bool(_BEGIN.fullmatch(line)), bool(_END.fullmatch(line))
        if not (begin or end):
            if looks_like_a_marker(line):
                add(
                    cell,
                    number,
                    f"`{line.strip()}` looks like a solution marker but is not exactly "
                    "`### BEGIN SOLUTION` or `### END SOLUTION`, alone on its line.",
                )
                found = True
            elif line.strip() and not line.lstrip().startswith("#"):
                content = True
            continue
        if source.room == "notebooks":
            add(cell, number, "A solution marker belongs in content/labs, not in a notebook.")
            continue
        if comments is not None and number - cell.first + 1 not in comments:
            add(cell, number, "This solution marker stands inside a string; move it out.")
        if not found and cell.exercise is None:
            add(
                cell,
                number,
                "A solution region stands in a cell without exercise=; "
                f'write `# %% exercise="{source.stem}.some_name"`.',
            )
        found = True
        if begin:
            if opened:
                add(cell, number, f"A solution begins here inside the one begun on line {opened}.")
            opened, content = number, False
        elif not opened:
            add(cell, number, "A solution ends here that never began.")
        else:
            if not content:
                add(cell, opened, "The solution region is empty: it holds no line of code.")
            opened = 0
    if opened:
        add(cell, opened, "A solution begins here that never ends.")
    if cell.exercise is not None and source.room == "labs" and not found:
        add(cell, cell.line, "The exercise has no solution region; mark one, or drop exercise=.")


def _check_code(source: Source, cell: Cell, add: Any, *, markers_are_right: bool) -> None:
    if not cell.text.strip():
        add(cell, cell.line, "The code cell is empty; remove it.")
        return
    if _ends_with_semicolon(cell.text):
        last = cell.first + len(cell.text.rstrip().splitlines()) - 1
        add(cell, last, "The cell ends with `;`, which hides an output from the checks; drop it.")
    for number, line in enumerate(cell.text.splitlines(), cell.first):
        found = re.search(r"\b(?:In|Out)\[|get_ipython\(\)\.(?:run_line_|run_cell_)?magic", line)
        if found:
            add(cell, number, f"`{found[0]}` works only inside a live session; do without it.")
    length = sum(1 for line in cell.text.splitlines() if line.strip())
    if source.room == "notebooks" and length > LONGEST_CODE_CELL:
        add(
            cell,
            cell.line,
            f"The code cell has {length} lines; the most is {LONGEST_CODE_CELL}: "
            "longer code is plumbing and moves to the library.",
        )
    broken = _syntax_error(cell.text)
    if broken:
        reason, row = broken
        add(cell, cell.first + row - 1, f"The code does not compile: {reason}.")
    elif source.room == "labs" and markers_are_right and cell.exercise is not None:
        broken = _syntax_error(stub(cell))
        if broken:
            add(
                cell,
                cell.line,
                f"With its solution taken out, the code does not compile: {broken[0]}.",
            )


def looks_like_a_marker(line: str) -> bool:
    """Whether a line is a solution marker, or somebody's attempt at one."""
    _, hash_sign, comment = line.partition("#")
    if not hash_sign:
        return False
    if re.match(r"\s*###\s*(BEGIN|END)\b", line, re.IGNORECASE):
        return True
    if re.search(r"\b(BEGIN|START|END|STOP)[\s_:#-]*SOLUTION", comment, re.IGNORECASE):
        return True
    letters = re.sub(r"[^A-Z]", "", comment.upper())
    models = ("BEGINSOLUTION", "ENDSOLUTION", "SOLUTIONBEGIN", "SOLUTIONEND")
    # 0.88 lets one or two wrong letters through to us, and leaves "# Resolution" alone.
    return any(difflib.SequenceMatcher(None, letters, m).ratio() >= 0.88 for m in models)


def stub(cell: Cell) -> str:
    """The cell's text as a learner gets it: each solution region raises NotImplementedError."""
    kept = []
    inside = False
    for line in cell.text.splitlines():
        if _BEGIN.fullmatch(line):
            inside = True
            indentation = line[: line.index("#")]
            kept.append(indentation + _not_solved(cell))
        elif _END.fullmatch(line):
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _not_solved(cell: Cell) -> str:
    """What stands where a solution was."""
    return f'raise NotImplementedError("{cell.exercise}")'


def solved(cell: Cell) -> str:
    """The cell's text with its solution and without the marker lines."""
    lines = cell.text.splitlines()
    return "\n".join(ln for ln in lines if not (_BEGIN.fullmatch(ln) or _END.fullmatch(ln)))


def exercises(source: Source) -> list[dict[str, Any]]:
    """What the catalogue says of each exercise of a lab, in their order."""
    found: list[dict[str, Any]] = []
    title = ""
    for cell in source.cells:
        if cell.kind == "markdown" and cell.is_hint:
            found[-1]["hints"].append(" ".join(cell.text.split()))
        elif cell.kind == "markdown":
            title = [title, *(text for _, text in headings(cell.text))][-1]
        elif cell.exercise is not None:
            (function,) = _functions(cell)
            for each in ast.walk(function.args):
                if isinstance(each, ast.arg):
                    each.annotation = None
            found.append(
                {
                    "id": cell.exercise,
                    "title": re.sub(r"^\d+\. +", "", title),
                    "function": function.name,
                    "signature": f"{function.name}({ast.unparse(function.args)})",
                    "minutes": cell.minutes,
                    "hints": [],
                }
            )
    return found


def headings(text: str) -> list[tuple[int, str]]:
    """Level and text of each heading in a text, fenced blocks apart."""
    outside = re.sub(r"^(```+|~~~+).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    return [
        (len(mark), title) for mark, title in re.findall(r"^(#+) +(.+)$", outside, re.MULTILINE)
    ]


def solution_lines(source: Source) -> list[str]:
    """Lines of the lab's solutions that stand nowhere else in it, stripped, short ones left out."""
    secret: list[str] = []
    public: list[str] = []
    for cell in source.cells:
        inside = False
        if cell.is_hint:
            continue
        if cell.exercise is not None:
            public.append(_not_solved(cell))
        for line in cell.text.splitlines():
            if _BEGIN.fullmatch(line) or _END.fullmatch(line):
                inside = bool(_BEGIN.fullmatch(line))
            else:
                (secret if inside or cell.is_solution else public).append(line.strip())
    return [
        line
        for line in dict.fromkeys(secret)
        if len(line) >= SHORTEST_LEAK and not any(line in other for other in public)
    ]


def _comment_lines(text: str) -> set[int] | None:
    """Lines, from 1, that hold a comment; None when Python alone cannot read the text."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return None
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def _ends_with_semicolon(text: str) -> bool:
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    blank |= {tokenize.INDENT, tokenize.DEDENT}
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return text.rstrip().endswith(";")
    written = [token.string for token in tokens if token.type not in blank]
    return bool(written) and written[-1] == ";"


def _syntax_error(text: str) -> tuple[str, int] | None:
    """Why IPython could not run the text, and on which of its lines; None when it could."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = TransformerManager().transform_cell(text)
            compile(code, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError) as error:
        row = getattr(error, "lineno", None) or 1
        return str(getattr(error, "msg", error)), min(row, len(text.splitlines()) or 1)
    except (MemoryError, RecursionError):
        return "an expression is nested too deep", 1
    return None
