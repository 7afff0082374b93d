"""The site: what the notebooks hold is in it, nothing is broken, and bad input loses nothing."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt

from tools import site as tool
from tools.site import Book, CannotBuild, Chapter

# The first test may build the whole site, on a busy machine.
pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
LABS = sorted((ROOT / "labs").glob("[0-9][0-9]_*.ipynb"))
LABS = [path for path in LABS if "backup" not in path.name]


@pytest.fixture(scope="session")
def site() -> Path:
    """The site as `make site` leaves it; built only if something has changed since."""
    where = ROOT / tool.SITE
    if not tool.is_current(ROOT, where):
        tool.build(ROOT, where)
    return where


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def words(page: str) -> str:
    """What a page says: no tags, no entities, single spaces."""
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())


def paragraphs(markdown: str) -> list[str]:
    """The words of every paragraph, item, cell and title; diagrams and comments left out."""
    markdown = re.sub(r"<!--.*?-->|```mermaid\n.*?```", "", markdown, flags=re.DOTALL)
    rendered = MarkdownIt("commonmark").enable("table").render(markdown)
    return [words(block) for block in re.split(r"</?(?:p|li|td|th|h\d|pre)\b[^>]*>", rendered)]


def article(page: str) -> str:
    return page.split('<article role="main"', 1)[1].split("</article>", 1)[0]


def ways_of(page: Path) -> str:
    """The line below a page's title: where to go from here."""
    return text_of(page).split('<div class="ways', 1)[1].split("</div>", 1)[0]


# What is in it


def test_every_notebook_and_every_solution_is_a_page_and_says_what_it_says(site: Path) -> None:
    assert NOTEBOOKS
    for path in [*NOTEBOOKS, *SOLUTIONS]:
        page = article(text_of(site / path.parent.name / f"{path.stem}.html"))
        said = words(page)
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            where = f"{path.parent.name}/{path.name}, cell {number}"
            if cell.cell_type == "code":
                assert " ".join(cell.source.split()) in said, where
            for text in paragraphs(cell.source) if cell.cell_type == "markdown" else []:
                assert text in said, where
            for output in cell.get("outputs", []):
                if output.output_type == "stream":
                    assert " ".join(output.text.split()) in said, where


def test_every_stored_picture_panel_and_diagram_is_in_its_page(site: Path) -> None:
    pictures = panels = diagrams = 0
    for path in [*NOTEBOOKS, *SOLUTIONS]:
        page = article(text_of(site / path.parent.name / f"{path.stem}.html"))
        cells = nbformat.read(path, as_version=4).cells
        data = [o.data for cell in cells for o in cell.get("outputs", []) if "data" in o]
        markdown = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        frames = sum("<img" in each.get("text/html", "") for each in data)
        figures = sum("image/png" in each and "text/html" not in each for each in data)
        assert len(re.findall(r"<img ", page)) == frames + figures, path.name
        verdicts = sum('role="status"' in each.get("text/html", "") for each in data)
        assert len(re.findall(r'<div role="status"', page)) == verdicts, path.name
        drawn = sum("text/vnd.mermaid" in each for each in data) + markdown.count("```mermaid")
        assert page.count('<pre class="mermaid">') == drawn, path.name
        pictures, panels, diagrams = pictures + frames, panels + verdicts, diagrams + drawn
    assert pictures >= 9
    assert panels >= 70
    assert diagrams >= 10


def test_every_picture_has_words_for_those_who_do_not_see_it(site: Path) -> None:
    for path in site.rglob("*.html"):
        for tag in re.findall(r"<img [^>]*>", article(text_of(path)), flags=re.DOTALL):
            alt = re.search(r'alt="([^"]*)"', tag)
            assert alt is not None, (path.name, tag[:200])
            assert len(alt[1].split()) >= 5, (path.name, alt[1])


def test_every_lab_and_every_notebook_can_be_downloaded_as_it_is(site: Path) -> None:
    for path in [*LABS, *NOTEBOOKS]:
        links = [
            (page.parent / href).resolve()
            for page in [site / "notebooks" / f"{path.stem}.html"]
            for href in re.findall(r'href="([^"]+\.ipynb)"', ways_of(page))
        ]
        copies = [one.read_bytes() for one in links if one.name == path.name]
        assert path.read_bytes() in copies, path
    for path in SOLUTIONS:
        ways = ways_of(site / "solutions" / path.with_suffix(".html").name)
        assert f'href="../notebooks/{path.stem}.html"' in ways
        assert f"/{path.name}" in ways


def test_the_sidebar_has_every_chapter_once_in_its_part_and_in_order(site: Path) -> None:
    sidebar = text_of(site / "index.html").split('class="sidebar-tree"', 1)[1]
    sidebar = sidebar.split("</aside>", 1)[0]
    found = re.findall(r'class="caption-text">([^<]+)|toctree-l1.*?href="notebooks/(\w+)', sidebar)
    part, parts = "", dict[str, list[str]]()
    for caption, stem in found:
        part = caption or part
        parts.setdefault(part, []).extend([stem] if stem else [])
    assert [stem for stems in parts.values() for stem in stems] == [p.stem for p in NOTEBOOKS]
    begins = [(name, int(stems[0][:2])) for name, stems in parts.items() if stems]
    assert begins == list(tool.PARTS)


def test_every_page_has_a_title_and_a_description_of_its_own(site: Path) -> None:
    titles, descriptions = [], []
    for path in [site / "index.html", *site.glob("*s/*.html")]:
        page = text_of(path)
        title = re.search(r"<title>(.+?)</title>", page, re.DOTALL)
        described = re.search(r'<meta content="([^"]{40,})" name="description"', page)
        assert title, path
        assert described, path
        titles.append(title[1])
        descriptions.append(described[1])
    assert len(set(titles)) == len(titles) == 1 + len(NOTEBOOKS) + len(SOLUTIONS)
    assert len(set(descriptions)) == len(descriptions)


def test_a_chapter_named_in_the_table_of_claims_is_a_link_to_it(site: Path) -> None:
    page = text_of(site / "COVERAGE.html")
    linked = re.findall(r'href="notebooks/\d\d_\w+\.html"', article(page))
    rows = re.findall(r"^\|.*\| `\d\d_\w+` ·", text_of(ROOT / "content" / "COVERAGE.md"), re.M)
    assert len(linked) >= len(rows) >= 100


def test_no_file_of_the_site_names_a_folder_of_the_machine_that_built_it(site: Path) -> None:
    for path in site.rglob("*"):
        if path.suffix in {".html", ".js", ".css", ".svg", ".txt"}:
            assert str(ROOT) not in text_of(path), path


# Links


def test_no_page_has_a_broken_link_and_none_fetches_from_elsewhere(site: Path) -> None:
    assert len(list(site.rglob("*.html"))) > len(NOTEBOOKS) + len(SOLUTIONS)
    assert tool.faults(site) == []


GOOD = (
    '<h1 id="top">A</h1><a href="https://example.org/x">out</a> <a href="b.html#part">b</a>'
    '<a href="#top">up</a><img alt="" src="data:image/png;base64,AAAA"><img src="sub/i.png">'
    '<svg><use href="#top"></use></svg><link rel="stylesheet" href="s.css?v=1">'
)
PLANTED = {
    '<a href="c.html">': "is not there",
    '<a href="b.html#nothing">': "has no such anchor",
    '<a href="#nothing">': "has no such anchor",
    '<a href="sub">': "is a folder",
    '<a href="../../etc/hosts">': "leads out of the site",
    '<a href="/b.html">': "begins at the root of a server",
    '<a href="javascript:alert(1)">': "has the scheme javascript",
    '<img src="sub/j.png">': "is not there",
    '<img srcset="sub/i.png 1x, sub/k.png 2x">': "is not there",
    '<script src="https://cdn.example/require.js"></script>': "is fetched from elsewhere",
    '<link rel="stylesheet" href="//cdn.example/font.css">': "is fetched from elsewhere",
    '<img src="http://pictures.example/i.png">': "is fetched from elsewhere",
    '<iframe src="https://video.example/"></iframe>': "is fetched from elsewhere",
    "<style>@import 'https://fonts.example/a.css';</style>": "is fetched from elsewhere",
    '<p style="background: url(https://pictures.example/b.png)">': "is fetched from elsewhere",
    '<script type="module">import x from "https://esm.example/x";</script>': "from elsewhere",
    '<script>const x = await import("//esm.example/x");</script>': "from elsewhere",
}


def small_site(folder: Path, planted: str = "") -> Path:
    (folder / "sub").mkdir()
    (folder / "sub" / "i.png").write_bytes(b"")
    (folder / "s.css").write_text("body { background: url('sub/i.png'); }")
    (folder / "b.html").write_text('<h1 id="part">B</h1>')
    (folder / "a.html").write_text(f"{GOOD}\n{planted}\n")
    return folder


def test_a_whole_site_has_no_faults(tmp_path: Path) -> None:
    assert tool.faults(small_site(tmp_path)) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found_with_its_page_and_line(tmp_path: Path, planted: str) -> None:
    found = tool.faults(small_site(tmp_path, planted))
    assert len(found) == 1
    assert found[0].startswith("a.html:2: ")
    assert PLANTED[planted] in found[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.css", "@font-face { src: url(https://fonts.example/a.woff2); }"),
        ("s.css", "body { background: url('sub/none.png'); }"),
        ("x.js", 'import x from "https://esm.example/x";'),
        ("x.js", 'script.src = "https://cdn.example/x.js";'),
    ],
)
def test_a_fault_in_a_style_or_a_script_is_found(tmp_path: Path, name: str, text: str) -> None:
    small_site(tmp_path)
    (tmp_path / name).write_text(text)
    found = tool.faults(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{name}:1: ")


# How a notebook becomes a page

ONE = Chapter("01_one", "One", "30", "Do one thing.", has_lab=True, has_solution=True)
TWO = Chapter("02_two", "Two", "30", "Do two things.", has_lab=True, has_solution=False)


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("see `02_two`.", "see [`02_two`](02_two.ipynb)."),
        ("`labs/02_two.ipynb`", "[`labs/02_two.ipynb`](path:../files/labs/02_two.ipynb)"),
        ("`notebooks/02_two.ipynb`", "[`notebooks/02_two.ipynb`](02_two.ipynb)"),
        ("`solutions/01_one`", "[`solutions/01_one`](../solutions/01_one.ipynb)"),
        ("`solutions/02_two`", "`solutions/02_two`"),  # there is none
        ("`01_one`", "`01_one`"),  # the page itself
        ("`02_two.lock` is an exercise", "`02_two.lock` is an exercise"),
        ("`17_none`", "`17_none`"),
        ("[`02_two`](elsewhere.md)", "[`02_two`](elsewhere.md)"),
        ("```python\nx = '`02_two`'\n```\n`02_two`", None),
    ],
)
def test_a_chapter_that_a_text_names_becomes_a_link(written: str, becomes: str | None) -> None:
    linked = Book([ONE, TWO]).linked(written, "notebooks", "notebooks/01_one")
    assert linked == (becomes or "```python\nx = '`02_two`'\n```\n[`02_two`](02_two.ipynb)")


def test_a_widget_that_needs_a_kernel_gives_way_to_its_first_frame() -> None:
    data = {tool.VIEW: {"model_id": "gone"}, "text/html": "<p>frame</p>", "text/plain": "frame"}
    output = nbformat.v4.new_output("display_data", data)
    cell = tool.shown(nbformat.v4.new_code_cell("slider()", outputs=[output]))
    assert dict(cell.outputs[0].data) == {"text/html": "<p>frame</p>", "text/plain": "frame"}


# Building, on a small book


def small_book(root: Path, second: str = "Nothing.") -> Path:
    """A book of one chapter with its lab and its solution."""
    shutil.copytree(ROOT / "site", root / "site")
    for room in ("notebooks", "labs", "solutions"):
        (root / room).mkdir()
        texts = [
            f"# The {room} of the chapter\n\n**About 5 minutes.**\n\n**What you'll do.** Read it.",
            second,
            "```mermaid\ngraph LR\n    A --> B\n```",
        ]
        cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
        path = root / room / "00_one.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return root


NO_NPM = "there is no npm on PATH; install Node.js, then run make site again"


def test_without_npm_the_site_is_built_its_diagrams_stay_text_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_book(tmp_path / "book")
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    built = tool.build(root, tmp_path / "site")
    assert built.without_diagrams == NO_NPM
    page = text_of(tmp_path / "site" / "notebooks" / "00_one.html")
    assert '<pre class="mermaid">\ngraph LR\n    A --&gt; B\n</pre>' in page
    assert "diagrams.js" not in page
    # A chapter that cannot be read: the site that was there stays.
    (root / "notebooks" / "00_one.ipynb").write_text("{")
    with pytest.raises(CannotBuild, match=r"^notebooks/00_one\.ipynb is not a readable notebook"):
        tool.build(root, tmp_path / "site")
    assert text_of(tmp_path / "site" / "notebooks" / "00_one.html") == page
    assert sorted(one.name for one in tmp_path.iterdir()) == ["book", "site"]


def test_an_npm_that_fails_is_quoted_and_the_diagrams_stay_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_book(tmp_path / "book")
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network is unreachable' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert tool.fetch_script(root) == "npm could not fetch them (npm error network is unreachable)"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda root: (root / "notebooks" / "00_one.ipynb").write_text("{"),
            r"^notebooks/00_one\.ipynb is not a readable notebook .*run make notebooks",
        ),
        (
            lambda root: shutil.rmtree(root / "notebooks"),
            r"holds no notebook: run make notebooks first\.$",
        ),
        (
            lambda root: (root / "solutions" / "00_one.ipynb").rename(
                root / "solutions/01_b.ipynb"
            ),
            r"^solutions/01_b\.ipynb has no chapter notebooks/01_b\.ipynb: run make notebooks",
        ),
        (
            lambda root: (root / "notebooks" / "00_one.ipynb").write_text(
                nbformat.writes(nbformat.v4.new_notebook())
            ),
            r"^notebooks/00_one\.ipynb does not begin with a title",
        ),
    ],
    ids=["broken JSON", "no notebooks", "a solution alone", "no title"],
)
def test_bad_input_is_one_sentence_that_names_the_file_and_the_cure(
    tmp_path: Path, spoil: object, said: str
) -> None:
    root = small_book(tmp_path / "book")
    assert callable(spoil)
    spoil(root)
    with pytest.raises(CannotBuild, match=said) as caught:
        tool.build(root, tmp_path / "site", script="none")
    assert "\n" not in str(caught.value)


def test_a_folder_of_somebody_elses_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CannotBuild, match="is not an earlier site"):
        tool.build(small_book(tmp_path / "book"), tmp_path, script="none")
    assert text_of(tmp_path / "thesis.txt") == "mine"


def test_the_lock_of_the_scripts_pins_by_hash_and_names_no_registry() -> None:
    lock = json.loads(text_of(ROOT / "site" / "package-lock.json"))
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert packages
    for name, each in packages.items():
        assert each["integrity"].startswith("sha512-"), name
        assert "resolved" not in each, name
    assert "://" not in json.dumps(lock)
