"""Write the first, green version of a chapter or an explorer, for an author to fill.

python -m tools.scaffold chapter 18_slug 'Title' NAME    notebook, lab, judge, answers, guide
python -m tools.scaffold explorer NAME 'Title'           a model, its tests, its explorer

The templates lie in tools/templates/, each at the place where its file will lie. Nothing is
written unless all can be: a name that is taken, or none at all, is one sentence.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from string import Template

from tools.build import build

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "tools" / "templates"
LONGEST = 60  # characters of a title: it has to fit a line of code


class CannotWrite(Exception):
    """Nothing was written; the text is the one sentence that says why and what to do."""


def written(root: Path, kind: str, names: Mapping[str, str], note: str) -> list[Path]:
    """Write the files of a `kind`, and last a `note` into the changelog. Raises CannotWrite.

    Upper-case words of a template's path stand for `names`.
    """
    home = TEMPLATES / kind
    files = {}
    for template in sorted(home.rglob("*.in")):
        place = str(template.relative_to(home).with_suffix(""))
        for name, value in names.items():
            place = place.replace(name.upper(), value)
        files[root / place] = Template(template.read_text("utf-8")).substitute(names)
    there = [str(path.relative_to(root)) for path in files if path.exists()]
    if there:
        raise CannotWrite(f"{there[0]} is there already: take another name, or edit that file.")
    made: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            made.append(path)
            path.write_text(text, "utf-8", newline="\n")
        changelog = root / "CHANGELOG.md"
        newest = re.compile(r"\A(.*?^## .*?)(\s*(?:^## .*)?)\Z", re.MULTILINE | re.DOTALL)
        noted = newest.sub(rf"\1\n- {note}\2", changelog.read_text("utf-8"))
        changelog.write_text(noted, "utf-8", newline="\n")
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        why = f"{error.filename} cannot be written ({error.strerror})"
        raise CannotWrite(f"{why}; nothing is left of what was.") from None
    return made


def python_name(name: str, what: str, taken: Collection[str]) -> str:
    """`name` if it can name a Python function and is not `taken`; CannotWrite otherwise."""
    if name in taken:
        raise CannotWrite(f"{name!r} has another meaning there: take another name for {what}.")
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,23}", name) or keyword.iskeyword(name):
        raise CannotWrite(
            f"{name!r} is no name for {what}: write at most 24 lower-case letters, digits and _, "
            "as in 'cold_start'."
        )
    return name


def title_of(title: str) -> str:
    """`title` if it fits a heading and a string of Python; CannotWrite otherwise."""
    if not title.strip() or len(title) > LONGEST or re.search(r'["\\`\n]', title):
        raise CannotWrite(
            f"{title!r} is no title: write one line of at most {LONGEST} characters, without "
            'quotation marks ("), backslashes and backticks.'
        )
    return title.strip()


def explorer(root: Path, name: str, title: str) -> list[Path]:
    """Write the model, the tests and the explorer `name`."""
    python_name(name, "a model", {"inputs", "explorer"})
    names = {"name": name, "title": title_of(title)}
    return written(root, "explorer", names, f"`widgets.{name}_explorer`: {title_of(title)}.")


def chapter(root: Path, stem: str, title: str, exercise: str) -> list[Path]:
    """Write a chapter and its lab, with one exercise, and build what is made from them."""
    number, _, slug = stem.partition("_")
    if not re.fullmatch(r"\d\d_[a-z][a-z0-9_]{1,23}", stem):
        raise CannotWrite(
            f"{stem!r} is no name for a chapter: write two digits, _ and at most 24 lower-case "
            "letters, digits and _, as in '18_cold_start'."
        )
    there = sorted(path.stem for path in (root / "content/notebooks").glob("*.py"))
    for other in there:
        if other[:2] == number:
            raise CannotWrite(f"The number {number} is taken by {other}: take the next free one.")
        if other[3:] == slug:
            raise CannotWrite(f"The slug {slug} is taken by {other}: take another one.")
    python_name(exercise, "an exercise", {"cachelab", "json", "lab"})
    names = {"stem": stem, "number": number, "title": title_of(title), "exercise": exercise}
    made = written(root, "chapter", names, f"Chapter `{stem}`: {title_of(title)}.")
    before = [other for other in there if other < stem][-1:]  # its lab links to this chapter
    wrong = build(root, [*before, stem])
    if wrong:
        raise CannotWrite(f"{stem} is written, and cannot be built: {wrong[0]}")
    return made


# What is asked for, in words, and an example of it.
KINDS: dict[str, tuple[Callable[..., list[Path]], int, str, str]] = {
    "chapter": (chapter, 3, "a stem, a title and an exercise", "18_slug 'Title' exercise"),
    "explorer": (explorer, 2, "a name and a title", "cold_start 'Cold start'"),
}


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; 0 when all was written, 1 after one sentence when nothing was."""
    kind, *words = sys.argv[1:] if arguments is None else arguments
    write, number, asked, example = KINDS[kind]
    try:
        if len(words) != number:
            usage = f'make {kind} ARGS="{example}"'
            raise CannotWrite(f"A new {kind} needs {asked}, got {words}: {usage}.")
        made = write(root, *words)
    except CannotWrite as refusal:
        print(refusal, file=sys.stderr)
        return 1
    for path in made:
        print(f"written    {path.relative_to(root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
