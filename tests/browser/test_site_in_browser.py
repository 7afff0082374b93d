"""The site in a real browser, opened as files, without a network: alive, searchable, readable."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT
from playwright.sync_api import Browser, Page, expect

from tools import site as tool

# The first test may build the whole site, on a busy machine.
pytestmark = pytest.mark.timeout(300)
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="session")
def site() -> Path:
    """The site as `make site` leaves it; built only if something has changed since."""
    where = ROOT / tool.SITE
    if not tool.is_current(ROOT, where):
        tool.build(ROOT, where)
    return where


@dataclass
class Reader:
    """A page without a network; what it asked for beyond the site, and what went wrong in it."""

    page: Page
    strangers: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def watch(self, own: str) -> None:
        def asked(url: str) -> None:
            if not url.startswith((own, "data:", "blob:")):
                self.strangers.append(url)

        self.page.on("request", lambda request: asked(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )


@pytest.fixture
def reader(browser: Browser, site: Path) -> Iterator[Reader]:
    """Somebody who opened the folder from disk, with the network off."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    one = Reader(context.new_page())
    one.watch(site.as_uri())
    yield one
    context.close()
    assert one.strangers == []
    assert one.errors == []


def goto(reader: Reader, site: Path, path: str) -> Page:
    reader.page.goto(f"{site.as_uri()}/{path}")
    return reader.page


@pytest.mark.parametrize("path", ["index.html", "notebooks/10_stampede.html"])
def test_the_stampede_explorer_moves_without_a_kernel_and_without_a_network(
    reader: Reader, site: Path, shots: Path, path: str
) -> None:
    page = goto(reader, site, path)
    reading = page.locator(".cachelab-reading").first
    explorer = page.locator(".cachelab-stampede").first
    expect(reading).to_contain_text("of 800 reach the database")
    picture = explorer.locator("svg > path").nth(2)
    before, drawn = reading.inner_text(), picture.get_attribute("d")
    slots = explorer.get_by_label("Database slots")
    slots.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(reading).not_to_have_text(before)
    assert picture.get_attribute("d") != drawn
    explorer.get_by_label("single-flight").check()
    expect(reading).to_contain_text("1 of 800 reaches the database")
    explorer.scroll_into_view_if_needed()
    page.screenshot(path=shots / f"site_explorer_{Path(path).stem}.png")


def test_every_first_frame_is_a_picture_that_loads(reader: Reader, site: Path) -> None:
    seen = 0
    for path in sorted((site / "notebooks").glob("*.html")):
        if "_explorer" not in path.read_text("utf-8"):
            continue
        page = goto(reader, site, f"notebooks/{path.name}")
        widths = page.evaluate(
            """() => Promise.all([...document.querySelectorAll(".cell_output img")].map(
                async img => { await img.decode(); return img.naturalWidth; }))"""
        )
        assert all(width >= 300 for width in widths), path.name
        seen += len(widths)
    assert seen >= 15


def test_every_diagram_is_drawn_and_drawn_again_when_the_colours_change(
    reader: Reader, site: Path, shots: Path
) -> None:
    drawn = 0
    for path in sorted((site / "notebooks").glob("*.html")):
        many = path.read_text("utf-8").count('<pre class="mermaid">')
        if not many:
            continue
        page = goto(reader, site, f"notebooks/{path.name}")
        figures = page.locator(".diagram[data-drawn=light] .diagram-picture > svg")
        expect(figures).to_have_count(many)
        drawn += many
    assert drawn >= 10
    page = goto(reader, site, "notebooks/05_cache_aside.html")
    page.emulate_media(color_scheme="dark")
    expect(page.locator(".diagram[data-drawn=dark] svg").first).to_be_visible()
    page.locator(".diagram").first.scroll_into_view_if_needed()
    page.screenshot(path=shots / "site_diagram_dark.png")
    page.locator(".theme-toggle-content button.theme-toggle").click()  # auto, then the other one
    expect(page.locator(".diagram[data-drawn=light] svg").first).to_be_visible()


def search(page: Page, words: str) -> None:
    """Ask the search box, and wait until the answer is whole."""
    page.locator(".sidebar-search").fill(words)
    page.keyboard.press("Enter")
    expect(page.locator("#search-results > p").first).to_contain_text("Search finished")


def test_the_search_finds_a_chapter_in_a_book_opened_as_files(reader: Reader, site: Path) -> None:
    page = goto(reader, site, "index.html")
    search(page, "stampede jitter")
    found = page.locator("#search-results ul.search a[href*='notebooks/10_stampede.html']").first
    expect(found).to_be_visible()
    found.click()
    expect(page.locator("h1")).to_contain_text("Stop a stampede")


def test_the_search_shows_excerpts_when_a_plain_web_server_has_the_book(
    browser: Browser, site: Path
) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    serve = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = f"http://127.0.0.1:{server.server_address[1]}/"
        context = browser.new_context()
        one = Reader(context.new_page())
        one.watch(own)
        one.page.goto(f"{own}index.html")
        search(one.page, "lease")
        expect(one.page.locator("#search-results p.context").first).to_contain_text(
            re.compile("lease", re.I)
        )
        context.close()
        server.shutdown()
    assert one.strangers == []
    assert one.errors == []


# What sticks out of the screen, and cannot be scrolled to within the text either.
STICKS_OUT = """() => {
    const article = document.querySelector("article");
    const scrolls = one => ["auto", "scroll", "hidden", "clip"].includes(
        getComputedStyle(one).overflowX);
    for (const one of article.querySelectorAll("*")) {
        if (one.getBoundingClientRect().right <= innerWidth + 1) continue;
        let around = one.parentElement;
        while (around !== article && !scrolls(around)) around = around.parentElement;
        if (around === article) return `${one.tagName} ${one.className} ${one.innerText}`;
    }
    const all = document.documentElement.scrollWidth;
    return all > innerWidth ? `the page, ${all} wide` : "";
}"""


def test_no_page_is_wider_than_a_telephone(reader: Reader, site: Path, shots: Path) -> None:
    reader.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    assert len(pages) > 30
    wide = []
    for path in pages:
        page = goto(reader, site, path)
        sticks_out = page.evaluate(STICKS_OUT)
        if sticks_out:
            wide.append((path, sticks_out[:120]))
        if path == "notebooks/10_stampede.html":
            page.screenshot(path=shots / "site_phone.png")
    assert wide == []
