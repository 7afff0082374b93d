"""Build the notebooks, labs and solutions from `content/`, or check that they still match it.

python -m tools.build                   build what has changed
python -m tools.build --force           build everything
python -m tools.build 05_cache_aside    only this chapter
python -m tools.build --check           compare, run nothing; exit 1 if anything differs
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from nbformat import NotebookNode

from tools import catalogue, facts
from tools.facts import REBUILD, Problem
from tools.markers import Source, SourceError, read_source, solution_lines
from tools.notebook import (
    BUILDER,
    CellFailed,
    blank,
    cells_sha256,
    dumps,
    execute,
    has_error,
    loads,
    outputs_sha256,
    rooms,
    seal,
    shown,
)

ROOMS = ("notebooks", "labs", "solutions")


def read_sources(
    root: Path, stems: Sequence[str] = ()
) -> tuple[list[Source], list[SourceError], list[Path]]:
    """Read all sources, or those of the named stems: sources, errors, and all the files seen."""
    files = [
        path
        for room in ("notebooks", "labs")
        for path in sorted((root / "content" / room).glob("*.py"))
        if not stems or path.stem in stems
    ]
    sources: list[Source] = []
    errors: list[SourceError] = []
    for path in files:
        source, wrong = read_source(root, path)
        errors += wrong
        if source is not None:
            sources.append(source)
    return sources, errors, files


def unknown_stems(root: Path, stems: Sequence[str]) -> str | None:
    """One sentence when there is nothing to build or a named stem has no source."""
    known = sorted({path.stem for path in (root / "content").glob("*/*.py")})
    if not known:
        return f"No source was found in {root / 'content'}: is this the root of the project?"
    wrong = [stem for stem in stems if stem not in known]
    if wrong:
        return f"No source is called {', '.join(wrong)}; there are {', '.join(known)}."
    return None


def build(
    root: Path,
    stems: Sequence[str] = (),
    force: bool = False,
    say: Callable[[str], None] = print,
) -> list[Problem | SourceError]:
    """Build every product whose source has changed; with `force`, every one.

    Nothing is built while any of the sources is wrong. A product whose cells do not run stays as
    it was. `say` is told one line for each product. Returns what went wrong; empty = all is built.
    """
    sources, errors, _ = read_sources(root, stems)
    if errors:
        return list(errors)
    # The facts are of all chapters, whichever are built; and the solutions are judged by them.
    if _write_facts(root, read_sources(root)[0] if stems else sources, say):
        sources, _, _ = read_sources(root, stems)
    failures: list[Problem | SourceError] = []
    for source in sources:
        for room in rooms(source):
            name = f"{room}/{source.stem}.ipynb"
            if not force and not differences(root, source, room):
                say(f"unchanged  {name}")
                continue
            try:
                ran, kept = _build_one(root, source, room, anew=force)
            except CellFailed as failure:
                cell = shown(source)[max(0, failure.number - 1)]
                left = "is left as it was" if (root / name).exists() else "was not written"
                what = f"{failure.reason} ({name} {left})"
                failures.append(SourceError(source.path, cell.number, cell.line, what))
                say(f"failed     {name}")
            else:
                how = "built      " if ran else "rewritten  "
                say(how + name + (f" (your edited lab is now {kept})" if kept else ""))
    return failures


def _write_facts(root: Path, sources: Sequence[Source], say: Callable[[str], None]) -> bool:
    """Write what follows from the sources elsewhere; returns whether a source was among it."""
    entries = catalogue.made(root, sources)
    wrong = [each for each in facts.derived(root, entries) if each.text != each.right]
    for each in wrong:
        _write(root / each.name, each.right)
        say(f"rewritten  {each.name}")
    if any(catalogue.differences(root, sources)):
        _write(root / catalogue.CATALOGUE, catalogue.dumps(entries))
        say(f"built      {catalogue.CATALOGUE}")
    return any(each.name.startswith("content/") for each in wrong)


def _build_one(root: Path, source: Source, room: str, *, anew: bool) -> tuple[bool, str | None]:
    """Write one product; where only text has changed, with the outputs that are there.

    Returns whether it was run (a lab never is, and counts as run), and the name of the backup when
    a learner's lab stood there.
    """
    path = root / room / f"{source.stem}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)  # a kernel starts in it
    notebook = blank(source, room)
    ran = room == "labs" or anew or not _take_outputs(path, notebook)
    if ran and room != "labs":
        execute(notebook, path.parent, root)
    kept = _keep_edited_lab(path) if room == "labs" else None
    _write(path, dumps(seal(notebook, source)))
    return ran, kept


def _take_outputs(path: Path, notebook: NotebookNode) -> bool:
    """Fill in what an earlier run of the same code left behind; False where there is none."""
    try:
        found = loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    noted = found.metadata.get("cachelab", {})
    kept = noted.get("builder"), noted.get("cells_sha256"), noted.get("outputs_sha256")
    if kept != (BUILDER, cells_sha256(found), outputs_sha256(found)) or _not_run(found):
        return False
    old, new = (
        [(cell.source, cell.metadata) for cell in _code(each)] for each in (found, notebook)
    )
    if old != new:
        return False
    _fill_in(notebook, found)
    return True


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _fill_in(notebook: NotebookNode, ran: NotebookNode) -> None:
    """Give a notebook what running another of the same code has left behind."""
    for new, old in zip(_code(notebook), _code(ran), strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count
    if "widgets" in ran.metadata:
        notebook.metadata["widgets"] = ran.metadata["widgets"]


def _write(path: Path, text: str) -> None:
    """Put a file in its place whole, or leave the one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half_written = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half_written.write_text(text, encoding="utf-8", newline="\n")
        half_written.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        half_written.unlink(missing_ok=True)


def _keep_edited_lab(path: Path) -> str | None:
    """Copy a lab that somebody has worked in, before it is built anew."""
    if not path.exists():
        return None
    try:
        old = loads(path.read_text(encoding="utf-8"))
        if cells_sha256(old) == old.metadata.get("cachelab", {}).get("cells_sha256"):
            return None
    except ValueError:
        pass  # half-edited: somebody's work all the same
    work = path.read_bytes()
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    # A clock that was set back may name this moment a second time.
    for again in ("", *(f"-{number}" for number in range(2, 100))):
        backup = path.with_name(f"{path.stem}.backup-{stamp}{again}.ipynb")
        try:
            kept = backup.open("xb")
        except FileExistsError:
            continue
        try:
            with kept:
                kept.write(work)
        except OSError as error:
            backup.unlink(missing_ok=True)  # a half is no copy
            raise OSError(error.errno, error.strerror, str(path)) from None
        return f"{path.parent.name}/{backup.name}"
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(backup))


def check(root: Path, stems: Sequence[str] = ()) -> list[Problem | SourceError]:
    """Compare every product with its source, without running anything. Empty = all match."""
    sources, errors, files = read_sources(root, stems)
    problems: list[Problem | SourceError] = list(errors)
    for source in sources:
        for room in rooms(source):
            problems += differences(root, source, room)
    for what, stem in catalogue.differences(root, sources):
        problems.append(Problem(catalogue.CATALOGUE, what, f"content/labs/{stem or '*'}.py"))
    if not stems:
        problems += _orphans(root, files)
    problems += facts.problems(root, sources)
    return problems


def _orphans(root: Path, sources: Sequence[Path]) -> list[Problem]:
    """Products without a source. A source with errors is a source."""
    stems = {(path.parent.name, path.stem) for path in sources}
    problems = []
    for room in ROOMS:
        home = "notebooks" if room == "notebooks" else "labs"
        for path in sorted((root / room).glob("*.ipynb")):
            if ".backup-" not in path.name and (home, path.stem) not in stems:
                source = f"content/{home}/{path.stem}.py"
                problems.append(
                    Problem(
                        f"{room}/{path.name}",
                        "has no source",
                        source,
                        "write that file, or remove the notebook",
                    )
                )
    return problems


def differences(root: Path, source: Source, room: str) -> list[Problem]:
    """How one product differs from what its source gives; empty when it does not."""
    path = root / room / f"{source.stem}.ipynb"
    name = f"{room}/{path.name}"
    restore = f"`cachelab reset {source.stem}` gives the original back and keeps a backup"

    def problem(what: str, command: str = REBUILD) -> Problem:
        return Problem(name, what, source.path, command)

    if not path.exists():
        return [problem("is missing")]
    edited = restore if room == "labs" else REBUILD
    try:
        text = path.read_bytes().decode("utf-8")
        found = loads(text)
    except UnicodeDecodeError:
        return [problem("cannot be read: it is not UTF-8 text", edited)]
    except ValueError as error:
        return [problem(f"cannot be read: {error}", edited)]

    wanted = blank(source, room)
    noted = found.metadata.get("cachelab", {})
    what: list[str] = []
    stale = False
    if noted.get("source_sha256") != source.sha256 or noted.get("source") != source.path:
        stale = True
        what.append("was built from another version of its source")
    elif noted.get("builder") != BUILDER:
        stale = True
        what.append("was built by another version of the builder")
    if cells_sha256(found) != noted.get("cells_sha256"):
        what.append(f"was edited by hand ({_first_difference(found, wanted)})")
    elif not stale and cells_sha256(found) != cells_sha256(wanted):
        what.append(f"does not match its source ({_first_difference(found, wanted)})")
    if room == "labs":
        what += _not_blank(found)
        what += _leaks(found, source)
    else:
        what += _not_run(found)
        if outputs_sha256(found) != noted.get("outputs_sha256"):
            what.append("has outputs that were not written by the builder")
    if not what:
        _fill_in(wanted, found)
        if text.replace("\r\n", "\n") != dumps(seal(wanted, source)):
            what.append("was saved by another program: its metadata or its layout has changed")
    if room == "labs" and not stale:
        return [problem(each, restore) for each in what]
    return [problem(each) for each in what]


def _first_difference(found: NotebookNode, wanted: NotebookNode) -> str:
    for number, (old, new) in enumerate(zip(found.cells, wanted.cells, strict=False), 1):
        if (old.cell_type, old.source) != (new.cell_type, new.source):
            return f"cell {number} is the first that differs"
    if len(found.cells) == len(wanted.cells):
        return "though its cells are those of the source"
    return f"{len(found.cells)} cells where the source gives {len(wanted.cells)}"


def _not_blank(lab: NotebookNode) -> list[str]:
    ran = [
        number
        for number, cell in enumerate(lab.cells, 1)
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None)
    ]
    return [f"holds the outputs of a run ({_cells(ran)})"] if ran else []


def _leaks(lab: NotebookNode, source: Source) -> list[str]:
    secret = solution_lines(source)
    return [
        f"gives a line of the solution away in cell {number}: `{line}`"
        for number, cell in enumerate(lab.cells, 1)
        for line in secret
        if any(line in written for written in cell.source.splitlines())
    ]


def _not_run(notebook: NotebookNode) -> list[str]:
    code = [(n, cell) for n, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]
    never = [number for number, cell in code if cell.execution_count is None]
    what = [f"was not run to the end ({_cells(never)} never executed)"] if never else []
    for expected, (number, cell) in enumerate(code, 1):
        if not never and cell.execution_count != expected:
            what.append(
                f"was not run in order (cell {number} was run as number {cell.execution_count}, "
                f"not {expected})"
            )
            break
    for number, cell in code:
        results = [out for out in cell.outputs if out.output_type == "execute_result"]
        if any(out.execution_count != cell.execution_count for out in results):
            what.append(f"has a result of another run in cell {number}")
        if has_error(cell) and "raises-exception" not in cell.metadata.get("tags", []):
            what.append(f"holds an exception in cell {number}")
    return what


def _cells(numbers: Sequence[int]) -> str:
    noun = "cell" if len(numbers) == 1 else "cells"
    shown = ", ".join(map(str, numbers[:5]))
    return f"{noun} {shown}" + (", …" if len(numbers) > 5 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 when all is well, 1 when anything is not."""
    parser = argparse.ArgumentParser(prog="python -m tools.build", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("stems", nargs="*", metavar="STEM", help="such as 05_cache_aside")
    parser.add_argument("--check", action="store_true", help="compare only; run nothing")
    parser.add_argument("--force", action="store_true", help="build what has not changed too")
    default_root = Path(__file__).resolve().parents[1]
    parser.add_argument("--root", type=Path, default=default_root, help="folder of the project")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    wrong = unknown_stems(root, options.stems)
    if wrong:
        print(wrong, file=sys.stderr)
        return 1
    try:
        if options.check:
            problems = check(root, options.stems)
        else:
            problems = build(root, options.stems, options.force)
    except KeyboardInterrupt:
        print("Stopped; what was not finished is as it was.", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or root
        print(
            f"{where} cannot be written or read ({error.strerror}); nothing of yours is lost.",
            file=sys.stderr,
        )
        return 1
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        print(f"{len(problems)} {noun}.", file=sys.stderr)
        return 1
    if options.check:
        print("notebooks/, labs/, solutions/, catalogue and documents match content/.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
