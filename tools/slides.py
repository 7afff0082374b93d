"""Makes slides of chapters from their built notebooks, in .cachelab/slides, that need no network.

    make slides ARGS="10_stampede"      one chapter
    make slides                         all of them

What becomes a slide is a matter of rules, not of marks in the sources:

- a heading begins a slide, and what does not fit goes to the next one below it;
- of a paragraph its first sentence is shown, and those that have something in bold; all of it is in
  the speaker's notes (press S). Lists, tables, diagrams and questions are shown whole;
- what a cell prints or draws comes after a key press, so that the room can guess first;
- imports and code over 12 lines are left out, long output is cut;
- the last slide names the exercises of the lab.

reveal.js and mermaid come from npm, once, pinned in workshop/slides/package-lock.json.
"""

# mypy: disable-error-code="no-untyped-call"
# nbformat leaves its functions unannotated.

from __future__ import annotations

import argparse
import ast
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "workshop" / "slides"
VENDOR = {  # from node_modules to what stands beside the pages
    "reveal.js/dist/reveal.css": "dist/reveal.css",
    "reveal.js/dist/reveal.js": "dist/reveal.js",
    "reveal.js/dist/plugin/notes.js": "dist/notes.js",
    "reveal.js/dist/theme/white.css": "dist/theme/white.css",
    "@mermaid-js/tiny/dist/mermaid.tiny.js": "dist/mermaid.tiny.js",
}
HEIGHT = 620  # px of a slide of 1280 x 720 that may be filled
CODE_LINES = 12
OUTPUT_LINES = 14
OUTPUT_CHARS = 105
LINE_CHARS = 84  # of prose
IMAGE, DIAGRAM = 410, 470  # px


class NoSlides(Exception):
    """Slides cannot be made; the text is one sentence."""


@dataclass
class Slide:
    """What is on one slide: cells that are there at once, and after a key press; and the notes."""

    heading: str
    cells: list[NotebookNode] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    filled: int = 0
    is_below: bool = False


# What becomes a slide -------------------------------------------------------------------------


def deck(notebook: NotebookNode, turns: Sequence[str] = ()) -> NotebookNode:
    """The notebook's cells cut into slides, with nbconvert's slide types.

    `turns` are lines for a last slide, the exercises. Raises nothing; the notebook is not changed.
    """
    slides: list[Slide] = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            _prose(slides, cell.source, is_title=number == 0)
        elif cell.cell_type == "code":
            _code(slides, cell)
    if turns:
        slides.append(Slide("## Your turn"))
        _put(slides, _markdown("\n".join(turns)), 46 * len(turns))
    made: NotebookNode = nbformat.v4.new_notebook()
    made.metadata = dict(notebook.metadata)
    made.metadata["title"] = slides[0].heading.lstrip("# ") if slides else "Slides"
    made.cells = [cell for slide in slides for cell in _cells_of(slide)]
    for number, cell in enumerate(made.cells):
        cell.id = f"slide-{number}"
    return made


def _cells_of(slide: Slide) -> Iterator[NotebookNode]:
    heading = _markdown(slide.heading)
    heading.metadata["slideshow"] = {"slide_type": "subslide" if slide.is_below else "slide"}
    yield heading
    yield from slide.cells
    if slide.notes:
        notes = _markdown("\n\n".join(slide.notes))
        notes.metadata["slideshow"] = {"slide_type": "notes"}
        yield notes


def _put(slides: list[Slide], cell: NotebookNode, height: int, kind: str = "-") -> None:
    """Onto the slide at the end, or, if it is full, onto a new one below it."""
    slide = slides[-1]
    if slide.cells and slide.filled + height > HEIGHT:
        again = f"{slide.heading.removesuffix(_MORE)}{_MORE}"
        slides.append(Slide(again, is_below=True))
        kind = "-"  # a new slide is a key press already
    cell.metadata["slideshow"] = {"slide_type": kind}
    slides[-1].cells.append(cell)
    slides[-1].filled += height


_MORE = " *(continued)*"


# Prose ---------------------------------------------------------------------------------------


def _prose(slides: list[Slide], text: str, *, is_title: bool) -> None:
    # What the builder says of itself, and the line before the table of one's guesses.
    text = re.sub(r"<!--.*?-->\s*|^Your guesses, and what came:$", "", text, flags=re.DOTALL | re.M)
    for block in blocks(text):
        if re.match(r"#{1,3} ", block):
            slides.append(Slide(block, is_below=block.startswith("###")))
            continue
        if not slides:
            slides.append(Slide("# "))
        shown = block if is_title and block.startswith("**") else on_the_slide(block)
        if shown:
            _put(slides, _markdown(shown), _height(shown))
        if shown != block:
            slides[-1].notes.append(block)


def blocks(text: str) -> list[str]:
    """Markdown cut at empty lines; a fence stays whole, a heading stands by itself."""
    found: list[str] = []
    lines: list[str] = []
    in_fence = False
    for line in [*text.splitlines(), ""]:
        in_fence ^= line.startswith("```")
        is_heading = not in_fence and re.match(r"#{1,6} ", line) is not None
        if (not line.strip() and not in_fence) or is_heading:
            if lines:
                found.append("\n".join(lines))
            lines = []
        if is_heading:
            found.append(line)
        elif line.strip() or in_fence:
            lines.append(line)
    return found + (["\n".join(lines)] if lines else [])


def on_the_slide(block: str) -> str:
    """What of a paragraph is shown: its first sentence, and those with something in bold.

    Lists, tables, fences, quotes and what asks for a guess are shown whole.
    """
    if re.match(r"[-*] |\d+\. |\||```|>", block):
        return block
    whole = " ".join(block.split())
    if "**Predict" in whole:
        return whole[whole.index("**Predict") :]
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z*`\"])", whole)
    return " ".join(s for number, s in enumerate(sentences) if number == 0 or "**" in s)


def _height(block: str) -> int:
    if block.startswith("```mermaid"):
        return DIAGRAM
    lines = block.splitlines()
    if block.startswith("```"):
        return 27 * len(lines) + 20
    if block.startswith("|"):
        return sum(14 + 31 * max(1, -(-len(line) // 100)) for line in lines)
    return 14 + sum(38 * max(1, -(-len(line) // LINE_CHARS)) for line in lines)


# Code and what came of it --------------------------------------------------------------------


def _code(slides: list[Slide], cell: NotebookNode) -> None:
    if not slides:
        slides.append(Slide("# "))
    if re.search(r"^recap\(", cell.source, re.MULTILINE):
        return
    if question := asked(cell.source):
        shown = f"**Predict:** {question}"
        _put(slides, _markdown(shown), _height(shown))
        return
    lines = cell.source.splitlines()
    is_widget = "widget" in cell.metadata.get("tags", [])
    is_plumbing = is_widget or len(lines) > CODE_LINES or only_imports(cell.source)
    if not is_plumbing:
        code = nbformat.v4.new_code_cell(cell.source)
        _put(slides, code, 27 * len(lines) + 30)
    for output in cell.get("outputs", []):
        if diagram := output.get("data", {}).get("text/vnd.mermaid"):
            _put(slides, _markdown(f"```mermaid\n{diagram}\n```"), DIAGRAM, "fragment")
            continue
        shown_output, height = _shown(output)
        if shown_output is None:
            continue
        made = nbformat.v4.new_code_cell("", outputs=[shown_output])
        made.metadata["transient"] = {"remove_source": True}  # no empty box above it
        _put(slides, made, height, "fragment")


def asked(source: str) -> str:
    """The question of a cell that only asks for a guess; "" for any other cell."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a magic
        return ""
    for node in body[-1:]:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "predict":
            for first in [*call.args[:1], *(k.value for k in call.keywords if k.arg == "question")]:
                if isinstance(first, ast.Constant) and len(body) == 1:
                    return str(first.value)
    return ""


def only_imports(source: str) -> bool:
    """Whether a cell only imports and starts the Lab: nothing to look at in a room."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    starts = [one for one in body if not isinstance(one, (ast.Import, ast.ImportFrom))]
    return all(isinstance(one, ast.Assign) and "start()" in ast.unparse(one) for one in starts)


def _shown(output: NotebookNode) -> tuple[NotebookNode | None, int]:
    """An output as a slide has it, and its height in px; None if it is not for a slide."""
    if output.output_type == "stream":
        text = _cut(output.text)
        if output.name == "stderr" or text.startswith("cache: "):  # what the Lab starts with
            return None, 0
        return _printed(text), _text_height(text)
    data = output.get("data", {})
    if "image/png" in data:  # also the first frame of an explorer
        return nbformat.v4.new_output("display_data", {"image/png": data["image/png"]}), IMAGE
    if "text/markdown" in data:  # a piece of the library
        source = data["text/markdown"]
        if len(source.splitlines()) > CODE_LINES + 4:
            return None, 0
        made = nbformat.v4.new_output("display_data", {"text/markdown": source})
        return made, 27 * len(source.splitlines()) + 20
    if "text/html" in data:
        panel = re.sub(r"<details.*?</details>", "", data["text/html"], flags=re.DOTALL)
        lines = data.get("text/plain", "").splitlines()
        made = nbformat.v4.new_output("display_data", {"text/html": panel})
        return made, 50 + max(40 * min(len(lines), 5), 31 * panel.count("<tr"))
    plain = data.get("text/plain", "")
    if not plain or "Your guess: none" in plain:
        return None, 0
    text = _cut(plain)
    return _printed(text), _text_height(text)


def _printed(text: str) -> NotebookNode:
    """Text as it was printed; in smaller letters where a line would not fit."""
    widest = max(map(len, text.splitlines()), default=0)
    if widest <= OUTPUT_CHARS:
        as_it_is: NotebookNode = nbformat.v4.new_output("stream", name="stdout", text=text)
        return as_it_is
    size = 19 * OUTPUT_CHARS / widest
    shown = f'<pre style="font-size: {size:.1f}px">{html.escape(text)}</pre>'
    smaller: NotebookNode = nbformat.v4.new_output("display_data", {"text/html": shown})
    return smaller


def _cut(text: str) -> str:
    lines = text.rstrip("\n").splitlines()
    if len(lines) > OUTPUT_LINES:
        lines = [*lines[: OUTPUT_LINES - 2], f"... {len(lines) - OUTPUT_LINES + 2} more lines"]
    return "\n".join(lines) + "\n"


def _text_height(text: str) -> int:
    return 27 * len(text.splitlines()) + 20


def _markdown(text: str) -> NotebookNode:
    cell: NotebookNode = nbformat.v4.new_markdown_cell(text)
    return cell


# Pages ---------------------------------------------------------------------------------------


def page(slides: NotebookNode) -> str:
    """The slides as HTML that refers to `vendor/` beside it and to nothing else."""
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    exporter = SlidesExporter(
        config=Config(),
        template_name="cachelab",
        extra_template_basedirs=[str(SOURCES / "template")],
        reveal_url_prefix="vendor",
        reveal_theme="white",
    )
    has_diagram = any("```mermaid" in cell.source for cell in slides.cells)
    made, _ = exporter.from_notebook_node(slides, {"reveal": {"mermaid": has_diagram}})
    return str(made)


def vendor(out: Path, downloads: Path) -> None:
    """Puts reveal.js and mermaid beside the pages; asks npm once, and again when the lock changed.

    Raises NoSlides where there is no npm, or npm fails.
    """
    lock = SOURCES / "package-lock.json"
    stamp = out / "vendor" / "package-lock.json"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    if shutil.which("npm") is None:
        raise NoSlides(
            "Slides need npm (Node 18 or newer) once, for reveal.js, and there is none on PATH."
        )
    downloads.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, downloads / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    ran = subprocess.run(command, cwd=downloads, capture_output=True, text=True)
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NoSlides(
            f"npm could not fetch reveal.js: {last}; run it again when there is a network."
        )
    for source, target in VENDOR.items():
        (out / "vendor" / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(downloads / "node_modules" / source, out / "vendor" / target)
    shutil.copy(lock, stamp)  # last: what is not complete is fetched again


def turns_of(stem: str) -> list[str]:
    """The lines of the last slide: the lab's exercises with their minutes, and the lab."""
    from cachelab.exercises import catalogue

    exercises = catalogue(stem)
    lines = [f"- **{one.title}** (`{one.id}`), {one.minutes} minutes" for one in exercises]
    if not lines:
        return []
    total = sum(one.minutes for one in exercises)
    return [f"Open `labs/{stem}.ipynb`: {total} minutes in all.", "", *lines]


def chapters() -> list[str]:
    """The stems of the built notebooks, in order."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the slides that are asked for; 0 when they are made, 1 with one sentence if not."""
    parser = argparse.ArgumentParser(prog="python -m tools.slides", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("stems", nargs="*", metavar="STEM", help="such as 10_stampede")
    parser.add_argument("--out", type=Path, default=ROOT / ".cachelab" / "slides")
    options = parser.parse_args(arguments)
    known = chapters()
    stems = [Path(stem).name.removesuffix(".ipynb") for stem in options.stems] or known
    for stem in stems:
        if stem not in known:
            print(f"There is no chapter {stem}: known are {', '.join(known)}.", file=sys.stderr)
            return 1
    try:
        vendor(options.out, ROOT / ".cachelab" / "slides-npm")
        for stem in stems:
            _make(stem, options.out)
    except NoSlides as why:
        print(why, file=sys.stderr)
        return 1
    return 0


def _make(stem: str, out: Path) -> None:
    text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text("utf-8")
    notebook: Any = nbformat.reads(json.dumps(json.loads(text)), as_version=4)
    slides = deck(notebook, turns_of(stem))
    target = out / f"{stem}.html"
    target.write_text(page(slides), "utf-8")
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in slides.cells]
    print(f"{target}: {sum(kind in ('slide', 'subslide') for kind in kinds)} slides")


if __name__ == "__main__":
    sys.exit(main())
