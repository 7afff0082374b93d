"""Build the site: a static book of all notebooks and solved labs, searchable, its links checked.

python -m tools.site                    into .cachelab/site
python -m tools.site --to FOLDER        into FOLDER, which must be new, empty or an earlier site

The outputs stored in the notebooks are shown; nothing is run. The diagrams are drawn by a script
from npm, fetched once; without npm they stay text, and the build says so.
"""

# mypy: disable-error-code="no-untyped-call"
# nbformat is unannotated.

import argparse
import hashlib
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from urllib.parse import unquote, urlsplit

import nbformat
from nbformat import NotebookNode

from tools import links

ROOT = Path(__file__).resolve().parent.parent
WORK = Path(".cachelab/site-work")  # below the root: what is fetched once, and what was built from
SITE = Path(".cachelab/site")
MARK = ".cachelab-site"  # a folder that holds it may be replaced
SCRIPT = "node_modules/@mermaid-js/tiny/dist/mermaid.tiny.js"
VIEW = "application/vnd.jupyter.widget-view+json"
MERMAID = "text/vnd.mermaid"

# The parts of the book, and the number of the chapter that each begins with.
PARTS = (
    ("Start", 0),
    ("Three caches", 2),
    ("Four patterns", 5),
    ("Where it breaks", 9),
    ("In production", 13),
    ("Beyond one machine", 16),
)
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


class CannotBuild(Exception):
    """The site cannot be built; the text is the one sentence that says why and what to do."""


@dataclass(frozen=True)
class Chapter:
    """What the book says about a chapter; `minutes` and `promise` are "" where it does not say."""

    stem: str
    title: str
    minutes: str
    promise: str
    has_lab: bool
    has_solution: bool

    @property
    def number(self) -> int:
        return int(self.stem[:2])


# Gathering the pages -----------------------------------------------------------------------------


def read(path: Path) -> NotebookNode:
    """A notebook, as nbformat 4. Raises CannotBuild with the file and the cure."""
    try:
        notebook: NotebookNode = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        why = shorten(str(error), 120, placeholder="...")
        raise CannotBuild(
            f"{path.parent.name}/{path.name} is not a readable notebook ({why}): "
            "run make notebooks, then make site again."
        ) from None
    return notebook


def first_text(notebook: NotebookNode) -> str:
    """The first Markdown cell, without the builder's comment."""
    texts = (str(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"<!--.*?-->\s*", "", next(texts, ""), flags=re.DOTALL)


def plain(markdown: str) -> str:
    """A paragraph without markup, on one line."""
    return " ".join(re.sub(r"[*`]", "", markdown).split())


def read_chapters(root: Path) -> list[Chapter]:
    """Every chapter that has a notebook, in order. Raises CannotBuild."""
    paths = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise CannotBuild(f"{root / 'notebooks'} holds no notebook: run make notebooks first.")
    stems = {path.stem for path in paths}
    for path in sorted((root / "solutions").glob("*.ipynb")):
        if path.stem not in stems:
            raise CannotBuild(
                f"solutions/{path.name} has no chapter notebooks/{path.name}: "
                "run make notebooks, or move it away."
            )
    chapters = []
    for path in paths:
        text = first_text(read(path))
        title = re.search(r"^# +(.+)$", text, re.MULTILINE)
        if title is None:
            raise CannotBuild(
                f"notebooks/{path.name} does not begin with a title: its first text needs a "
                "line '# ...'; add it to the source, then run make notebooks."
            )
        minutes = re.search(r"\*\*About (\d+) minutes", text)
        promise = re.search(r"\*\*What you'll do\.\*\* *(.+?)(?:\n\s*\n|\Z)", text, re.DOTALL)
        chapters.append(
            Chapter(
                path.stem,
                plain(title[1]),
                minutes[1] if minutes else "",
                plain(promise[1]) if promise else "",
                (root / "labs" / path.name).exists(),
                (root / "solutions" / path.name).exists(),
            )
        )
    return chapters


@dataclass(frozen=True)
class Book:
    """The chapters, and where a text finds them: `at` is the folder of the page that points."""

    chapters: Sequence[Chapter]
    by_stem: dict[str, Chapter] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_stem", {each.stem: each for each in self.chapters})

    def target(self, at: str, room: str, stem: str) -> str | None:
        """The relative path of a chapter's page or file; None if the book has none."""
        chapter = self.by_stem.get(stem)
        here = {
            "notebooks": chapter is not None,
            "labs": chapter is not None and chapter.has_lab,
            "solutions": chapter is not None and chapter.has_solution,
        }
        if not here[room]:
            return None
        if room == "labs":  # a file to download, which MyST would take for a page without "path:"
            return "path:" + posixpath.relpath(f"files/labs/{stem}.ipynb", at or ".")
        return posixpath.relpath(f"{room}/{stem}.ipynb", at or ".")

    def linked(self, text: str, at: str, own: str = "") -> str:
        """Markdown in which every chapter that is named as code is a link, but not to itself."""

        def target(room: str, stem: str) -> str | None:
            return None if f"{room}/{stem}" == own else self.target(at, room, stem)

        return links.linked(links.unlinked(text), target)

    def parts(self) -> Iterator[tuple[str, list[Chapter]]]:
        """Each part that has chapters."""
        ends = [first for _, first in PARTS[1:]] + [100]
        for (name, first), end in zip(PARTS, ends, strict=True):
            inside = [each for each in self.chapters if first <= each.number < end]
            if inside:
                yield name, inside


def diagram(text: str) -> str:
    """A Mermaid diagram as HTML: its text, until static/diagrams.js draws it."""
    return f'<pre class="mermaid">\n{escape(text.strip())}\n</pre>'


def ways(*links: tuple[str, str | None]) -> str:
    """Where to go from here, in a line below the title; (words, path), left out without a path."""
    line = " · ".join(f"[{words}]({path})" for words, path in links if path)
    return f"\n```{{container}} ways\n{line}\n```\n"


def page(notebook: NotebookNode, room: str, chapter: Chapter, book: Book) -> NotebookNode:
    """The notebook as a page of the book, its outputs as they are stored.

    Chapters that a text names become links; diagrams become HTML; each figure gets its stored text
    as its alternative; a widget's view, which would need a kernel, gives way to its first frame.
    """
    own = f"{room}/{chapter.stem}"
    if room == "notebooks":
        described = chapter.promise or chapter.title
        line = ways(
            ("Download this notebook", f"path:../files/notebooks/{chapter.stem}.ipynb"),
            ("Download its lab", book.target(room, "labs", chapter.stem)),
            ("The lab, solved", book.target(room, "solutions", chapter.stem)),
        )
    else:
        described = f"The solved lab of the chapter: {chapter.title}."
        line = ways(
            ("The chapter", book.target(room, "notebooks", chapter.stem)),
            ("Download the lab and try it first", book.target(room, "labs", chapter.stem)),
        )
    cells, titled = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"<!--.*?-->\s*", "", cell.source, flags=re.DOTALL)
            text = book.linked(text, room, own)
            text = DIAGRAM.sub(lambda found: diagram(found[1]), text)
            if not titled and re.search(r"^# ", text, re.MULTILINE):
                title = re.compile(r"^# .+$", re.MULTILINE)
                text = title.sub(lambda found: f"{found[0]}\n{line}", text, count=1)
                titled = True
            cell = nbformat.v4.new_markdown_cell(text, id=cell.id)
        elif cell.cell_type == "code":
            cell = shown(cell)
        cells.append(cell)
    if room == "notebooks" and chapter.has_solution:
        solved = f"```{{toctree}}\n:hidden:\n\nThe lab, solved <../solutions/{chapter.stem}>\n```"
        cells.append(nbformat.v4.new_markdown_cell(solved, id="site-solved"))
    kept = {key: notebook.metadata[key] for key in ("kernelspec",) if key in notebook.metadata}
    kept["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    kept["myst"] = {"html_meta": {"description": shorten(described, 220, placeholder=" ...")}}
    made: NotebookNode = nbformat.v4.new_notebook(cells=cells, metadata=kept)
    return made


def shown(cell: NotebookNode) -> NotebookNode:
    """A code cell whose stored outputs a page can show."""
    outputs = []
    for output in cell.outputs:
        if "data" in output:
            data = {kind: value for kind, value in output.data.items() if kind != VIEW}
            if MERMAID in data:
                data = {"text/html": diagram(data[MERMAID]), "text/plain": data[MERMAID]}
            output = nbformat.from_dict({**output, "data": data})
        outputs.append(output)
    metadata: dict[str, object] = {"tags": cell.metadata.get("tags", [])}
    said = [o.data.get("text/plain", "") for o in outputs if "image/png" in o.get("data", {})]
    if said:
        metadata["mystnb"] = {"image": {"alt": " ".join(" ".join(said).split())}}
    made: NotebookNode = nbformat.v4.new_code_cell(
        cell.source,
        id=cell.id,
        execution_count=cell.execution_count,
        outputs=outputs,
        metadata=metadata,
    )
    return made


def explorer_of(notebooks: dict[str, NotebookNode]) -> tuple[str, str] | None:
    """The stem and the HTML of the first explorer that lives without a kernel."""
    for stem, notebook in notebooks.items():
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                html = output.get("data", {}).get("text/html", "")
                if 'class="cachelab-stampede"' in html and 'type="module"' in html:
                    return stem, html
    return None


def front_matter(description: str) -> str:
    """What stands above a Markdown page: its description, for search engines and previews."""
    quoted = json.dumps(shorten(description, 220, placeholder=" ..."), ensure_ascii=False)
    return f"---\nmyst:\n  html_meta:\n    description: {quoted}\n---\n\n"


def start_page(
    text: str, book: Book, others: Sequence[str], notebooks: dict[str, NotebookNode]
) -> str:
    """The first page: site/start.md with the list of chapters, the explorer and the contents."""

    def link(stem: str, words: str = "", anchor: str = "") -> str:
        title = words or f"{stem[:2]} · {book.by_stem[stem].title}"
        return f"[{title}](notebooks/{stem}.ipynb{anchor})"

    table = []
    for name, chapters in book.parts():
        table += [f"### {name}", "", "| | chapter | minutes | lab |", "|---|---|---|---|"]
        for each in chapters:
            lab = " · ".join(
                f"[{words}]({path})"
                for words, path in (
                    ("download", book.target("", "labs", each.stem)),
                    ("solved", book.target("", "solutions", each.stem)),
                )
                if path
            )
            row = (each.stem[:2], link(each.stem, each.title), each.minutes, lab)
            table.append(f"| {' | '.join(row)} |")
        table.append("")
    first = book.chapters[0]
    found = explorer_of(notebooks)
    has_words = re.search(r"^## Words$", _all_text(notebooks[first.stem]), re.MULTILINE)
    filled = {
        "first": link(first.stem),
        "words": link(first.stem, f"chapter {first.stem[:2]}", "#words" if has_words else ""),
        "explorer": f"chapter {link(found[0])}" if found else "chapter 10",
        "try": f"````````{{raw}} html\n{found[1]}\n````````" if found else "",
        "chapters": "\n".join(table),
        "coverage": "[The article, idea by idea](COVERAGE.md)",
    }
    if found is None:  # nothing to try: the section goes
        text = re.sub(r"^## One thing to try.*?(?=^## )", "", text, flags=re.M | re.S)
    if "COVERAGE" not in others:
        text = re.sub(r"^## What came of.*?(?=^## |\Z)", "", text, flags=re.M | re.S)
    text = re.sub(r"@(\w+)@", lambda name: filled[name[1]], text)

    trees = []
    for name, chapters in book.parts():
        lines = [f"{e.stem[:2]} · {e.title} <notebooks/{e.stem}>" for e in chapters]
        trees.append("\n".join([f"```{{toctree}}\n:hidden:\n:caption: {name}\n", *lines, "```"]))
    if others:
        trees.append(
            "\n".join(["```{toctree}\n:hidden:\n:caption: To look things up\n", *others, "```"])
        )
    about = (
        "The caching workbook: break a cache, see why it broke, fix it, prove the fix. "
        "All chapters and solved labs."
    )
    return front_matter(about) + text.rstrip() + "\n\n" + "\n\n".join(trees) + "\n"


def _all_text(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def gather(root: Path, into: Path) -> list[Chapter]:
    """Write what Sphinx reads into the folder `into`: pages, files to download. Raises CannotBuild.

    A page for each notebook and solution, and for each Markdown file of content/.
    """
    book = Book(read_chapters(root))
    notebooks: dict[str, NotebookNode] = {}
    for room in ("notebooks", "solutions"):
        (into / room).mkdir(parents=True)
        for chapter in book.chapters:
            path = root / room / f"{chapter.stem}.ipynb"
            if not path.exists():
                continue
            notebook = read(path)
            if room == "notebooks":
                notebooks[chapter.stem] = notebook
            nbformat.write(page(notebook, room, chapter, book), into / room / path.name)
    for room in ("notebooks", "labs"):
        (into / "files" / room).mkdir(parents=True)
        for chapter in book.chapters:
            path = root / room / f"{chapter.stem}.ipynb"
            if path.exists():
                shutil.copyfile(path, into / "files" / room / path.name)
    others = sorted((root / "content").glob("*.md"))
    for path in others:
        text = path.read_text("utf-8")
        described = plain(" ".join(re.sub(r"^# +", "", text).split("\n\n")[:2]))
        (into / path.name).write_text(front_matter(described) + book.linked(text, ""), "utf-8")
    start = (root / "site" / "start.md").read_text("utf-8")
    stems = [path.stem for path in others]
    (into / "index.md").write_text(start_page(start, book, stems, notebooks), "utf-8")
    return list(book.chapters)


# The script that draws the diagrams --------------------------------------------------------------


def fetch_script(root: Path) -> Path | str:
    """The script from npm, fetched once for each lock; or why there is none, in one sentence."""
    folder = root / WORK / "npm"
    lock = root / "site" / "package-lock.json"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    script, stamp = folder / SCRIPT, folder / "lock.sha256"
    if script.exists() and stamp.exists() and stamp.read_text() == wanted:
        return script
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm on PATH; install Node.js, then run make site again"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(root / "site" / name, folder / name)
    try:
        ran = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        said = ran.stderr.strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [str(error)]
    if not script.exists():
        why = said[0] if said else "it gave no reason"
        return f"npm could not fetch them ({shorten(why, 160, placeholder='...')})"
    stamp.write_text(wanted)
    return script


# Building ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """What was built: the number of pages, and why the diagrams are not drawn ("" if they are)."""

    pages: int
    without_diagrams: str


def build(root: Path, site: Path, *, script: Path | str | None = None) -> Built:
    """Build the site anew and put it in the place of the folder `site`.

    `script` is what `fetch_script` returns; it is asked if None. Raises CannotBuild, also for
    broken links; what was at `site` then stays.
    """
    absent = [name for name in ("sphinx", "myst_nb", "furo") if find_spec(name) is None]
    if absent:
        raise CannotBuild(
            f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed: "
            "make site sets up what it needs."
        )
    if site.is_file() or (site.is_dir() and any(site.iterdir()) and not (site / MARK).exists()):
        raise CannotBuild(
            f"{site} holds something that is not an earlier site, and it would be replaced: "
            "name an empty folder."
        )
    found = fetch_script(root) if script is None else script
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix=".site-") as temporary:
        source, out = Path(temporary, "source"), Path(temporary, "site")
        gather(root, source)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "--no-color", "-b"]
        command += ["html", "-c", str(root / "site"), "-d", str(Path(temporary, "doctrees"))]
        if isinstance(found, Path):
            command += ["-t", "diagrams"]
        ran = subprocess.run(
            [*command, str(source), str(out)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "NO_COLOR": "1"},
        )
        if ran.returncode != 0:
            lines = (ran.stderr or ran.stdout).replace(f"{source}{os.sep}", "").strip()
            raise CannotBuild(f"Sphinx did not accept every page:\n{lines}")
        (out / ".buildinfo").unlink(missing_ok=True)
        shutil.rmtree(out / "_sources", ignore_errors=True)  # empty
        (out / ".nojekyll").touch()  # GitHub's pages would leave out what begins with "_"
        if isinstance(found, Path):
            shutil.copyfile(found, out / "_static" / "mermaid.tiny.js")
            licence = found.parent.parent / "LICENSE"
            if licence.exists():
                shutil.copyfile(licence, out / "_static" / "mermaid.LICENSE.txt")
        wrong = faults(out)
        if wrong:
            raise CannotBuild(
                f"{len(wrong)} broken in the pages; mend the sources that they come from:\n"
                + "\n".join(wrong)
            )
        (out / MARK).write_text(inputs_digest(root) + "\n")
        if site.exists():
            shutil.rmtree(site)
        out.replace(site)
    pages = len(list(site.rglob("*.html")))
    return Built(pages, "" if isinstance(found, Path) else found)


def inputs_digest(root: Path) -> str:
    """SHA-256 over all that the site is made of."""
    paths = [
        *(path for room in ("notebooks", "labs", "solutions") for path in (root / room).glob("*")),
        *(root / "content").glob("*.md"),
        *(root / "site").rglob("*"),
        Path(__file__),
    ]
    total = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        total.update(f"{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()


def is_current(root: Path, site: Path) -> bool:
    """Was the site at `site` built from what is there now?"""
    mark = site / MARK
    return mark.exists() and mark.read_text().strip() == inputs_digest(root)


# Checking ----------------------------------------------------------------------------------------

# Where a page names what a browser then fetches by itself; only an <a href> may lead elsewhere.
FETCHED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
    "form": ("action",),
}
IN_STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)['\"]?\s*\)|@import\s+['\"]([^'\"]+)")
# A script that names another one by its full address fetches it.
IN_SCRIPT = re.compile(
    r"(?:\bfrom|\bimport|\bimport\(|\bimportScripts\(|\bfetch\(|\.src\s*=)\s*['\"`]"
    r"((?:https?:)?//[^'\"`\s]+)"
)


class _Page(HTMLParser):
    """What one page names: its anchors, its links (with their lines) and what it fetches."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[int, str]] = []
        self.fetched: list[tuple[int, str]] = []
        self.outside: list[tuple[int, str]] = []  # addresses in scripts
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line = self.getpos()[0]
        named = {name: value or "" for name, value in attrs}
        self._inside = tag
        self.anchors.update(
            value for name, value in named.items() if name == "id" or (tag, name) == ("a", "name")
        )
        if tag in ("a", "area") and "href" in named:
            self.links.append((line, named["href"]))
        for name in FETCHED.get(tag, ()):
            if name in named:
                urls = [named[name]]
                if name == "srcset":
                    urls = [part.split()[0] for part in named[name].split(", ") if part.strip()]
                self.fetched += [(line, url) for url in urls]
        self.fetched += [(line, url) for url in _in_style(named.get("style", ""))]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        line = self.getpos()[0]
        if self._inside == "style":
            self.fetched += [(line, url) for url in _in_style(data)]
        elif self._inside == "script":
            self.outside += [(line, url) for url in IN_SCRIPT.findall(data)]


def _in_style(text: str) -> list[str]:
    return [first or second for first, second in IN_STYLE.findall(text)]


def faults(site: Path) -> list[str]:
    """Every link, anchor, picture, script or style of the site that leads nowhere, or elsewhere.

    One line each: the page, the line, what is wrong. Only what a reader clicks may lead out.
    """
    site = site.resolve()
    pages = {path: _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    found: list[str] = []

    @cache
    def exists(path: Path) -> bool:
        return path.exists()

    def why_not(path: Path, url: str) -> str | None:
        """What is wrong with a path that the file `path` names."""
        parts = urlsplit(url)
        target = (
            path if not parts.path else Path(os.path.normpath(path.parent / unquote(parts.path)))
        )
        if parts.path.startswith("/"):
            return "begins at the root of a server, and the site may lie anywhere"
        if not target.is_relative_to(site):
            return "leads out of the site"
        if not exists(target):
            return "is not there"
        if target.is_dir():
            return "is a folder, which shows nothing when the site is opened as files"
        anchor = unquote(parts.fragment)
        if anchor and target in pages and anchor not in pages[target].anchors:
            return "has no such anchor"
        return None

    def look(path: Path, line: int, url: str, *, fetched: bool) -> None:
        scheme = urlsplit(url).scheme
        if scheme in ("http", "https") or url.startswith("//"):
            wrong = "is fetched from elsewhere" if fetched else None
        elif scheme in ("data", "mailto"):
            wrong = None
        elif scheme:
            wrong = f"has the scheme {scheme}, which a page should not need"
        else:
            wrong = why_not(path, url)
        if wrong:
            short = shorten(url, 120, placeholder="...") or "an empty address"
            found.append(f"{path.relative_to(site).as_posix()}:{line}: {short} {wrong}")

    for path, one in pages.items():
        for line, url in one.links:
            look(path, line, url, fetched=False)
        for line, url in one.fetched:
            look(path, line, url, fetched=True)
        for line, url in one.outside:
            look(path, line, url, fetched=True)
    for path in sorted(site.rglob("*.css")):
        for url in _in_style(path.read_text("utf-8")):
            look(path, 1, url, fetched=True)
    for path in sorted(site.rglob("*.js")):
        for url in IN_SCRIPT.findall(path.read_text("utf-8")):
            look(path, 1, url, fetched=True)
    return found


def main(argv: Sequence[str] | None = None, *, say: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(prog="make site", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=Path, default=ROOT / SITE, help="where the site goes")
    site = parser.parse_args(argv).to.absolute()
    began = time.monotonic()
    try:
        built = build(ROOT, site)
    except CannotBuild as reason:
        print(f"The site was not built. {reason}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"The site was not built. {error}: {site.parent} must be writable, with about 50 MB "
            "free; run make site again.",
            file=sys.stderr,
        )
        return 1
    if built.without_diagrams:
        say(f"The diagrams are shown as text, not drawn: {built.without_diagrams}.")
    shown_as = os.path.relpath(site)
    say(f"{built.pages} pages, no broken link, {time.monotonic() - began:.0f} s: {shown_as}")
    say(f"Open {shown_as}/index.html; or copy the folder to any web server.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
