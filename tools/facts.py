"""What documents say of chapters and exercises: held to the sources, which alone decide.

Some lines are repeated word for word: the table in the README, a guide's headings and minutes, a
lab's minutes and its link to the next chapter. `make notebooks` rewrites those. The rest is only
looked at: counts, names of chapters and exercises, judges, known answers, and numbers in prose,
which have to stand in the code or the output of their section.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path

from tools import catalogue, coverage
from tools.catalogue import Entry
from tools.markers import Cell, Source, headings, printable
from tools.numbers import NUMBER, numbers_in, value_of

REBUILD = "run `make notebooks`"
LEAST_NUMBER = 10  # that prose has to prove: smaller ones are words like any other
FEWEST_WRONG = 3  # known wrong answers to an exercise

STEM = re.compile(r"\b(\d\d_[a-z][a-z0-9_]*)(?:\.([a-z][a-z0-9_]*))?")
ENDINGS = {"ipynb", "py", "md", "html", "svg", "toml", "js", "pdf"}
ROW = re.compile(r"^\| (\d\d) \| .*? \| (?P<does>.*) \| .*? \|$")
QUOTE = re.compile(r"^> `(?P<exercise>[\w.]+)`, (?P<answer>.+?): “(?P<sentence>.+)”$")
COUNTED = re.compile(
    rf"({NUMBER}) (?:more )?(chapters|labs|exercises|notebooks|guides|ideas)\b(?! =)", re.IGNORECASE
)
FUNCTIONS = re.compile(
    rf"minutes\.\*\* ({NUMBER}) (?:small )?(?:functions|puzzles)(?: and (a|{NUMBER}) \w+)?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Problem:
    """One thing that is not as its source says, and what puts it right."""

    product: str
    what: str
    source: str = ""
    command: str = REBUILD

    def __str__(self) -> str:
        came_from = f" [source: {self.source}]" if self.source else ""
        return printable(f"{self.product}: {self.what}{came_from}; {self.command}.")


@dataclass(frozen=True)
class Chapter:
    """A chapter as its two sources have it; `minutes` are those of the notebook."""

    stem: str
    title: str
    minutes: int
    promise: str
    lab_title: str
    exercises: tuple[Entry, ...]

    @property
    def total(self) -> int:
        """Minutes of all exercises."""
        return sum(each["minutes"] for each in self.exercises)

    @property
    def sources(self) -> str:
        return f"content/notebooks/{self.stem}.py, content/labs/{self.stem}.py"


def chapters(root: Path, entries: Sequence[Entry]) -> list[Chapter]:
    """All chapters that have both sources, in order; `entries` is the catalogue."""
    found = []
    for path in sorted((root / "content" / "notebooks").glob("[0-9][0-9]_*.py")):
        lab = root / "content" / "labs" / path.name
        if lab.exists():
            text = path.read_text("utf-8")
            minutes = re.search(r"\*\*About (\d+) minutes", text)
            promise = re.search(r"\*\*What you'll do\.\*\* (.+?)\n#\n", text, re.DOTALL)
            mine = tuple(entry for entry in entries if catalogue.lab_of(entry) == path.stem)
            does = " ".join(promise[1].replace("\n#", " ").split()) if promise else ""
            title, other = _title(text), _title(lab.read_text("utf-8"))
            found.append(
                Chapter(path.stem, title, int(minutes[1]) if minutes else 0, does, other, mine)
            )
    return found


def _title(text: str) -> str:
    found = re.search(r"^# # (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


# Lines that are written anew ---------------------------------------------------------------------


@dataclass(frozen=True)
class Derived:
    """A file with lines that follow from the sources: as it is, and as it should be."""

    name: str
    text: str
    right: str
    source: str


def derived(root: Path, entries: Sequence[Entry]) -> Iterator[Derived]:
    """Each file that has such lines, right or not; `entries` is the catalogue."""
    known = chapters(root, entries)

    def file(name: str, source: str, right: Callable[[str], str]) -> Iterator[Derived]:
        if (root / name).exists():
            text = (root / name).read_text("utf-8")
            yield Derived(name, text, right(text), source)

    for chapter, after in zip(known, [*known[1:], None], strict=False):
        lab = f"content/labs/{chapter.stem}.py"
        yield from file(lab, lab, partial(_lab, chapter, after))
        guide = f"workshop/guide/{chapter.stem}.md"
        yield from file(guide, chapter.sources, partial(_guide, chapter))
    all_sources = "content/notebooks/*.py, content/labs/*.py"
    yield from file("README.md", all_sources, partial(_readme, known))
    yield from file(coverage.TABLE, coverage.TABLE, coverage.counted)


def _lab(chapter: Chapter, after: Chapter | None, text: str) -> str:
    about = -(-chapter.total // 5) * 5 or 5
    text = re.sub(r"\*\*About \d+ minutes", f"**About {about} minutes", text, count=1)
    text = re.sub(r"\n#\n# \*\*Next:\*\* [^\n]*\n+\Z", "\n", text)
    return text + f"#\n# **Next:** `notebooks/{after.stem}.ipynb`.\n" if after else text


def _guide(chapter: Chapter, text: str) -> str:
    title = chapter.lab_title[:1].lower() + chapter.lab_title[1:]
    lines = {f"# {chapter.stem}": f"# {chapter.stem}: {title}"}
    time = f"*Time: notebook {chapter.minutes} minutes, exercises {chapter.total} minutes.*"
    lines["*Time"] = time
    for each in chapter.exercises:
        head = f"### `{each['id']}`"
        lines[head] = f"{head}: {each['title']}, {each['minutes']} minutes"
    return re.sub(
        r"^(# \d\d_\w+|\*Time|### `[\w.]+`):.*$",
        lambda found: lines.get(found[1], found[0]),
        text,
        flags=re.MULTILINE,
    )


def _readme(known: Sequence[Chapter], text: str) -> str:
    """The README with a row for each chapter; what one does there is the row's own."""
    before, header, rest = text.partition(
        "| | notebook | what you do there | lab |\n|---|---|---|---|\n"
    )
    old, end, after = rest.partition("\n\n")
    does = {row[1]: row["does"] for line in old.splitlines() if (row := ROW.match(line))}
    rows = []
    for each in known:
        number, count = each.stem[:2], len(each.exercises)
        notebook = f"[{each.title}](notebooks/{each.stem}.ipynb)"
        lab = f"[{count} exercise{'s' * (count != 1)}](labs/{each.stem}.ipynb)"
        rows.append(f"| {number} | {notebook} | {does.get(number, each.promise)} | {lab} |")
    return f"{before}{header}" + "\n".join(rows) + end + after if header else text


# Everything that does not fit --------------------------------------------------------------------


def problems(root: Path, sources: Sequence[Source]) -> Iterator[Problem]:
    """What is said somewhere and is not so, each with the file to edit."""
    entries = catalogue.made(root, sources)
    for each in derived(root, entries):
        pairs = zip_longest(each.text.splitlines(), each.right.splitlines(), fillvalue="")
        for number, (old, new) in enumerate(pairs, 1):
            if old != new:
                what = f"line {number} says {_cut(old, new)}, and has to say {_cut(new, old)}"
                yield Problem(each.name, what, each.source)
                break
    known = chapters(root, entries)
    yield from _promised(root, known)
    yield from _guides(root, known)
    yield from _judges(root, known)
    yield from _answers(root, known)
    yield from _named(root, known)
    yield from _coverage(root)
    for source in sources:
        yield from _prose(root, source)


def _cut(text: str, other: str) -> str:
    """A line, from shortly before the place where it differs from another."""
    at = next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), 0)
    begin = max(0, at - 20)
    piece = text[begin : begin + 90]
    return f"“{'…' * (begin > 0)}{piece}{'…' * (len(text) > begin + 90)}”" if text else "nothing"


def _promised(root: Path, known: Sequence[Chapter]) -> Iterator[Problem]:
    """The number of functions with which a lab begins."""
    for chapter in known:
        name = f"content/labs/{chapter.stem}.py"
        text = (root / name).read_text("utf-8")
        found = FUNCTIONS.search(" ".join(text.replace("\n#", " ").split()))
        if found:
            more = 0 if found[2] is None else 1 if found[2] == "a" else value_of(found[2])
            said, count = value_of(found[1]) + more, len(chapter.exercises)
            if said != count:
                words = found[0].partition("** ")[2]
                what = f"its first text promises “{words}”, and it has {count} exercises"
                yield Problem(name, what, "", f"edit {name}")


def _guides(root: Path, known: Sequence[Chapter]) -> Iterator[Problem]:
    folder = root / "workshop" / "guide"
    for chapter in known if folder.exists() else ():
        name = f"workshop/guide/{chapter.stem}.md"
        if not (root / name).exists():
            yield Problem(name, "is missing: each lab has a guide", "", "write it")
            continue
        text = (root / name).read_text("utf-8")
        wanted = [each["id"] for each in chapter.exercises]
        if re.findall(r"^### `([\w.]+)`", text, re.MULTILINE) != wanted:
            what = f"its `### ` headings are not those of {', '.join(wanted)}, in this order"
            yield Problem(name, what, chapter.sources, f"edit {name}")
        answers = _known_answers(root, chapter.stem)
        for number, line in enumerate(text.splitlines(), 1):
            quote = QUOTE.match(line)
            if quote and answers:
                exercise, answer, sentence = quote.groups()
                expected = answers["WRONG"].get(exercise, {}).get(answer)
                what = f"line {number} quotes “{answer}”, "
                if expected is None:
                    what += f"no known wrong answer to {exercise}"
                elif expected not in sentence:
                    what += f"whose verdict says “{expected}”"
                else:
                    continue
                yield Problem(name, what, _answers_of(chapter.stem), f"edit {name}")


def _judges(root: Path, known: Sequence[Chapter]) -> Iterator[Problem]:
    folder = root / "src" / "cachelab" / "exercises"
    for chapter in known if (folder / "__init__.py").exists() else ():
        name = f"src/cachelab/exercises/lab_{chapter.stem}.py"
        lab = f"content/labs/{chapter.stem}.py"
        wanted = {"judge_" + each["id"].partition(".")[2]: each["id"] for each in chapter.exercises}
        tree = _tree(root / name)
        found = (
            {one.name for one in tree.body if isinstance(one, ast.FunctionDef)} if tree else set()
        )
        for function, exercise in wanted.items():
            if function not in found:
                yield Problem(name, f"has no {function}, the judge of {exercise}", lab, "write it")
        for function in sorted(found):
            if function.startswith("judge_") and function not in wanted:
                what = f"has {function}, but the lab has no exercise {chapter.stem}.{function[6:]}"
                yield Problem(name, what, lab, f"edit {name}")
    stems = {chapter.stem for chapter in known}
    for path in sorted(folder.glob("lab_*.py")) if known else ():
        if path.stem.removeprefix("lab_") not in stems:
            name = path.relative_to(root).as_posix()
            yield Problem(
                name, "judges a lab that has no source", "", "write the lab, or remove it"
            )


def _answers(root: Path, known: Sequence[Chapter]) -> Iterator[Problem]:
    for chapter in known if (root / "tests" / "answers").exists() else ():
        name = _answers_of(chapter.stem)
        answers = _known_answers(root, chapter.stem)
        if answers is None:
            yield Problem(name, "is missing: each exercise has known answers", "", "write it")
            continue
        ids = {each["id"] for each in chapter.exercises}
        for kind, fewest in (("WRONG", FEWEST_WRONG), ("RIGHT", 1)):
            for exercise in sorted(ids | set(answers[kind])):
                count = len(answers[kind].get(exercise, ()))
                if exercise not in ids:
                    what = f"{kind} names {exercise}, which is no exercise of the lab"
                    yield Problem(name, what, f"content/labs/{chapter.stem}.py", f"edit {name}")
                elif count < fewest:
                    what = (
                        f"{kind} has {count} answers to {exercise}; at least {fewest} are expected"
                    )
                    yield Problem(name, what, "", "write them")


def _answers_of(stem: str) -> str:
    return f"tests/answers/lab_{stem}.py"


def _known_answers(root: Path, stem: str) -> dict[str, dict[str, dict[str, str]]] | None:
    """What WRONG and RIGHT of a lab list for each exercise, read and not run.

    By name, with the piece of the verdict that is expected.
    """
    tree = _tree(root / _answers_of(stem))
    if tree is None:
        return None
    found: dict[str, dict[str, dict[str, str]]] = {"WRONG": {}, "RIGHT": {}}
    for one in tree.body:
        targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
        value = getattr(one, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and target.id in found and isinstance(value, ast.Dict):
                for key, answers in zip(value.keys, value.values, strict=True):
                    listed = getattr(answers, "elts", [])
                    if isinstance(key, ast.Constant):
                        found[target.id][str(key.value)] = dict(map(_answer, listed))
    return found


def _answer(node: ast.expr) -> tuple[str, str]:
    arguments = node.args if isinstance(node, ast.Call) else []
    texts = [str(each.value) for each in arguments if isinstance(each, ast.Constant)]
    return (texts[0], texts[-1] if len(texts) > 1 else "") if texts else (ast.unparse(node), "")


def _tree(path: Path) -> ast.Module | None:
    try:
        return _parsed(path.read_text("utf-8"))
    except (OSError, SyntaxError):
        return None


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


# Names and counts --------------------------------------------------------------------------------


def _named(root: Path, known: Sequence[Chapter]) -> Iterator[Problem]:
    """Chapters and exercises that a document names, and how many it says there are."""
    if not (root / "README.md").exists():
        return
    stems = {chapter.stem for chapter in known}
    ids = {each["id"] for chapter in known for each in chapter.exercises}
    for name, text in documents(root):
        for number, line in enumerate(text.splitlines(), 1):
            for stem, exercise in STEM.findall(line):
                called = f"{stem}.{exercise}" if exercise and exercise not in ENDINGS else stem
                if stem not in stems or (called != stem and called not in ids):
                    what = f"line {number} names {called}, which there is not"
                    yield Problem(name, what, "content/", f"edit {name}")
    right = truths(root, known)
    for name, text in [*documents(root), *_path_texts(root)]:
        text = re.sub(r"<!-- bench:.*?<!-- /bench -->", "", text, flags=re.DOTALL)
        for written, noun in COUNTED.findall(" ".join(text.split())):
            value = value_of(written)
            if value > 1 and value not in right[noun.lower()]:
                counts = " or ".join(f"{each:g}" for each in sorted(right[noun.lower()]))
                what = f"says “{written} {noun}”, and there are {counts}"
                yield Problem(name, what, "content/", f"edit {name}")
    changes = root / "CHANGELOG.md"
    if changes.exists():
        for stem in sorted(stems - {stem for stem, _ in STEM.findall(changes.read_text("utf-8"))}):
            yield Problem("CHANGELOG.md", f"says nothing of {stem}", "", "edit CHANGELOG.md")


def documents(root: Path) -> list[tuple[str, str]]:
    """Name and text of each page that people read beside the notebooks."""
    patterns = ("*.md", "docs/*.md", "workshop/*.md", "workshop/guide/*.md", "content/*.md")
    paths = sorted(path for pattern in patterns for path in root.glob(pattern))
    return [(path.relative_to(root).as_posix(), path.read_text("utf-8")) for path in paths]


def _path_texts(root: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(root.glob("workshop/paths/*.toml")):
        yield path.relative_to(root).as_posix(), path.read_text("utf-8")


def truths(root: Path, known: Sequence[Chapter]) -> dict[str, set[float]]:
    """How many there are of what a page may count: in all, in a lab, in a path of the workshop."""
    counts = [len(chapter.exercises) for chapter in known]
    right: dict[str, set[float]] = {
        "exercises": {sum(counts), *counts},
        "ideas": {len(coverage.read_rows((root / coverage.TABLE).read_text("utf-8")))},
    }
    for noun in ("chapters", "labs", "notebooks", "guides"):
        right[noun] = {len(known)}
    for _, text in _path_texts(root):
        named = {".".join(found) for found in STEM.findall(text) if all(found)}
        right["exercises"].add(len(named))
        right["labs"].add(len({one.partition(".")[0] for one in named}))
    return right


def _coverage(root: Path) -> Iterator[Problem]:
    path = root / coverage.TABLE
    if not path.exists():
        return
    try:
        rows = coverage.read_rows(path.read_text("utf-8"))
    except ValueError as error:
        yield Problem(coverage.TABLE, str(error), "", f"edit {coverage.TABLE}")
        return
    for row in rows:
        place = coverage.PLACE.fullmatch(row.where)
        for fault in coverage.faults(row, coverage.cells_of(root, place[1]) if place else ()):
            source = f"content/notebooks/{place[1]}.py" if place else ""
            source = source.replace("notebooks/solutions/", "labs/")
            yield Problem(coverage.TABLE, fault, source, f"edit {coverage.TABLE}")


# Numbers in prose --------------------------------------------------------------------------------


def _prose(root: Path, source: Source) -> Iterator[Problem]:
    """Numbers of a text that neither its section shows nor its header gives."""
    judges = root / "src" / "cachelab" / "exercises" / f"lab_{source.stem}.py"
    shown = _shown(root, source)
    if shown is None:
        return  # not built yet, which is a problem of its own
    asked = frozenset[float]()
    if source.room == "labs" and judges.exists():  # what a lab asks for, its judge tries
        asked = _values(judges.read_text("utf-8"))
    everywhere = proved = asked.union(*shown)
    for begin, end in sections(source.cells):
        section = source.cells[begin:end]
        bare = begin == 0 or all(cell.kind == "markdown" for cell in section)
        before, proved = proved, everywhere if bare else asked.union(*shown[begin:end])
        for cell in section:
            if cell.kind != "markdown" or cell.is_hint:
                continue
            # What stands above the heading, in the same cell, is the end of the section before.
            head = re.search(r"^##+ ", cell.text, re.MULTILINE) if cell is section[0] else None
            for value, written, at in numbers_in(_prose_of(cell.text)):
                here = before if head and at < head.start() else proved
                if value >= LEAST_NUMBER and value not in here and value not in cell.given:
                    line = cell.first + cell.text[:at].count("\n")
                    what = (
                        f"cell {cell.number}, line {line}: no cell of this section shows {written}"
                    )
                    cure = f"correct it, or write given=[{value:.12g}] into the cell's header"
                    yield Problem(source.path, what, "", cure)


def sections(cells: Sequence[Cell]) -> Iterator[tuple[int, int]]:
    """Begin and end of each section: from one heading below the title to the next."""
    begins = [
        number
        for number, cell in enumerate(cells)
        if cell.kind == "markdown" and any(level > 1 for level, _ in headings(cell.text))
    ]
    yield from zip([0, *begins], [*begins, len(cells)], strict=True)


def _prose_of(text: str) -> str:
    """The text with blanks where no number is meant: fences, names of chapters, list numbers."""

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"\S", " ", found[0])

    for pattern in (
        r"^```.*?^```",
        r"`[^`\n]*\b\d\d_[a-z][^`\n]*`",
        r"^#+ \d+\. |^ *\d+\. |\*\*About \d+ minutes",
    ):
        text = re.sub(pattern, blank, text, flags=re.DOTALL | re.MULTILINE)
    return text


def _shown(root: Path, source: Source) -> list[frozenset[float]] | None:
    """For each cell of a source the numbers that its code and its output show."""
    built = coverage.cells_of(
        root, ("" if source.room == "notebooks" else "solutions/") + source.stem
    )
    ran = [cell for cell in built if coverage.is_code(cell)]
    if len(ran) != sum(cell.kind == "code" for cell in source.cells):
        return None
    texts = map(coverage.words_of, ran)
    return [_values(next(texts)) if cell.kind == "code" else frozenset() for cell in source.cells]


@cache
def _values(text: str) -> frozenset[float]:
    return frozenset(value for value, _, _ in numbers_in(text))
