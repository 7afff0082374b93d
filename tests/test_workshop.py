"""The workshop kit says what is so: guides, paths and slides, held to catalogue and notebooks."""

from __future__ import annotations

import html
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from answers import Wrong, wrong
from answers.__main__ import main as print_quotes

from cachelab.command.cli import examine, main
from cachelab.edge import EdgeError, nginx
from cachelab.exercises import catalogue, check, labs
from tools import slides

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "workshop"
GUIDES = {path.stem: path for path in sorted((KIT / "guide").glob("[0-9][0-9]_*.md"))}
PATHS = {path.stem: path for path in sorted((KIT / "paths").glob("*.toml"))}
SLACK = 1 / 15  # of the time is left over: a room is slower than its teacher
pytestmark = pytest.mark.edit("workshop/guide/{stem}.md")
WORDS = (300, 600)  # of a guide, the quoted sentences not counted


# Guides --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quote:
    """A verdict that a guide quotes: of which exercise, which known wrong answer, what it says."""

    exercise: str
    answer: str
    sentence: str


QUOTE = re.compile(r"^> `(?P<exercise>[\w.]+)`, (?P<answer>.+?): “(?P<sentence>.+)”$", re.M)


def quotes(stem: str) -> list[Quote]:
    return [Quote(**found.groupdict()) for found in QUOTE.finditer(GUIDES[stem].read_text("utf-8"))]


def answer_of(quote: Quote) -> Wrong:
    known = {one.name: one for one in wrong(quote.exercise)}
    assert quote.answer in known, f"{quote.answer!r} is none of {', '.join(known)}"
    return known[quote.answer]


def test_every_lab_has_a_guide_and_every_guide_a_lab():
    assert sorted(GUIDES) == labs(), "workshop/guide/ has not one guide for each lab"


@pytest.mark.parametrize("stem", GUIDES)
def test_a_guide_names_each_exercise_of_its_lab_with_its_minutes_and_no_other(stem):
    text = GUIDES[stem].read_text("utf-8")
    named = re.findall(r"^### `([\w.]+)`: (.+), (\d+) minutes$", text, re.M)
    assert named == [(one.id, one.title, str(one.minutes)) for one in catalogue(stem)]
    assert len(re.findall(r"^### ", text, re.M)) == len(named)


@pytest.mark.parametrize("stem", GUIDES)
def test_a_guide_has_the_parts_that_an_instructor_looks_for(stem):
    text = GUIDES[stem].read_text("utf-8")
    total = sum(one.minutes for one in catalogue(stem))
    (notebook,) = re.findall(r"\*\*About (\d+) minutes", notebook_text(stem))
    assert f"notebook {notebook} minutes, exercises {total} minutes" in text
    for part in ("## In the room", "## Late, or short of time", "## For the break"):
        assert text.count(part) == 1, part
    for_the_break = text.partition("## For the break")[2]
    assert for_the_break.count("?") == 1


@pytest.mark.parametrize("stem", GUIDES)
def test_each_exercise_of_a_guide_has_a_question_to_ask_and_a_wrong_answer_to_expect(stem):
    parts = re.split(r"^##+ ", GUIDES[stem].read_text("utf-8"), flags=re.M)
    for one in catalogue(stem):
        part = next((part for part in parts if part.startswith(f"`{one.id}`")), None)
        assert part, f"there is no heading ### `{one.id}`"
        assert [found["exercise"] for found in QUOTE.finditer(part)].count(one.id) >= 1, one.id
        asking = [text for text in part.split("\n\n") if text.startswith("Ask: ")]
        assert [text.rstrip()[-1] for text in asking] == ["?"], one.id


@pytest.mark.parametrize("stem", GUIDES)
def test_a_guide_can_be_read_in_the_three_minutes_before_the_lab(stem):
    words = len(QUOTE.sub("", GUIDES[stem].read_text("utf-8")).split())
    assert WORDS[0] <= words <= WORDS[1], f"{words} words"


@pytest.mark.parametrize("stem", GUIDES)
@pytest.mark.slow
def test_a_quoted_verdict_is_the_sentence_that_the_check_gives(stem):
    try:
        nginx.candidates()
    except EdgeError as why:
        if stem == "04_cdn_edge":
            pytest.skip(str(why))
    text = GUIDES[stem].read_text("utf-8")
    assert text.count("\n> ") == len(quotes(stem)), "a quote that is not of the fixed form"
    for quote in quotes(stem):
        said = check(quote.exercise, answer_of(quote).function).summary
        assert said == quote.sentence


def test_the_command_for_contributors_prints_the_wrong_answers_as_a_guide_quotes_them(capsys):
    assert print_quotes(["00_start_here"]) == 0
    printed = capsys.readouterr().out.splitlines()
    quoted = [found[0] for found in QUOTE.finditer(GUIDES["00_start_here"].read_text("utf-8"))]
    assert quoted
    assert set(quoted) <= set(printed)


def test_the_command_for_contributors_says_which_labs_there_are(capsys):
    assert print_quotes(["99_nothing"]) == 1
    said = capsys.readouterr().err
    assert "99_nothing" in said
    assert said.count("\n") == 1


# Paths ---------------------------------------------------------------------------------------


def path_of(name: str) -> dict:
    return tomllib.loads(PATHS[name].read_text("utf-8"))


def notebook_text(stem: str) -> str:
    cells = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text("utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def exercises_of(step: dict) -> list[str]:
    return step.get("exercises", [step["exercise"]] if "exercise" in step else [])


def test_there_are_paths_of_45_90_and_180_minutes_and_of_two_days():
    assert {path_of(name)["minutes"] for name in PATHS} == {45, 90, 180, 390}
    assert [path_of(name).get("days", 1) for name in PATHS].count(2) == 1


@pytest.mark.parametrize("name", PATHS)
def test_a_path_fits_its_time_with_slack(name):
    path = path_of(name)
    for day in range(1, path.get("days", 1) + 1):
        used = sum(step["minutes"] for step in path["steps"] if step.get("day", 1) == day)
        assert 0.8 * path["minutes"] <= used <= (1 - SLACK) * path["minutes"], f"day {day}: {used}"


@pytest.mark.parametrize("name", PATHS)
def test_a_step_is_a_talk_a_pause_some_exercises_or_a_notebook(name):
    for step in path_of(name)["steps"]:
        kinds = {"talk", "pause", "exercise", "exercises", "notebook"} & set(step)
        assert len(kinds) == 1, step
        assert set(step) <= kinds | {"minutes", "sections", "say", "day"}, step
        assert "sections" not in step or "notebook" in step, step


@pytest.mark.parametrize("name", PATHS)
def test_a_path_gives_each_exercise_its_minutes_at_least_and_names_none_twice(
    name,
):
    known = {one.id: one.minutes for one in catalogue()}
    named = []
    for step in path_of(name)["steps"]:
        wanted = exercises_of(step)
        named += wanted
        if wanted:
            assert step["minutes"] >= sum(known[one] for one in wanted), step
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", PATHS)
def test_every_section_of_a_path_is_a_heading_of_its_notebook(name):
    for step in path_of(name)["steps"]:
        if "notebook" in step:
            text = notebook_text(step["notebook"])
            headings = re.findall(r"^##+ (.+)$", text, re.M)
            assert set(step.get("sections", [])) <= set(headings), step
            if "sections" not in step:
                (minutes,) = re.findall(r"\*\*About (\d+) minutes", text)
                assert step["minutes"] >= int(minutes)


@pytest.mark.parametrize("name", PATHS)
def test_nobody_is_asked_for_an_exercise_before_something_of_its_chapter_was_shown(name):
    # A puzzle or a decision may stand alone; code needs its notebook first.
    alone = {"14_when_not_to_cache.cases"}
    shown = set()
    for step in path_of(name)["steps"]:
        shown.add(step.get("notebook"))
        for exercise in exercises_of(step):
            assert exercise in alone or exercise.partition(".")[0] in shown, exercise


def test_the_workshop_readme_has_the_time_of_each_path_and_the_exercises_in_it():
    text = (KIT / "README.md").read_text("utf-8")
    for name in PATHS:
        path = path_of(name)
        days = path.get("days", 1)
        exercises = sum(len(exercises_of(step)) for step in path["steps"])
        line = f"| [{name}](paths/{name}.toml) | {days} × {path['minutes']} | {exercises} |"
        assert line in text, line


def test_the_pre_flight_that_is_sent_out_has_the_lines_that_doctor_prints():
    text = (KIT / "README.md").read_text("utf-8")
    lines = text.partition("This is what you hope to get:\n\n```\n")[2].partition("\n```")[0]
    *found, last = lines.splitlines()
    names = [re.sub(r"^ok\s+(.+?): .*", r"\1", line) for line in found]
    assert names == [finding.name for finding in examine()]
    assert last == "All is well."


def test_every_command_in_the_kit_is_one_that_cachelab_has():
    pages = [*KIT.glob("*.md"), *GUIDES.values()]
    named = {
        command
        for page in pages
        for command in re.findall(r"(?:^|`|bin/)cachelab ([a-z]+)", page.read_text("utf-8"), re.M)
    }
    assert {"doctor", "check", "reset", "board", "class"} <= named
    for command in sorted(named):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, command


def test_every_file_that_the_kit_links_to_is_there():
    for page in [*KIT.glob("*.md"), *GUIDES.values()]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


# Slides --------------------------------------------------------------------------------------


def markdown(*texts: str) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    return notebook


def kinds(made: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.metadata["slideshow"]["slide_type"], cell.source) for cell in made.cells]


def test_a_heading_begins_a_slide_and_prose_goes_to_the_notes_but_for_its_first_sentence():
    made = slides.deck(
        markdown("# Title\n\n**What you'll do.** A. B.", "## One\n\nShown. Told. **Shown too.**")
    )
    assert kinds(made) == [
        ("slide", "# Title"),
        ("-", "**What you'll do.** A. B."),
        ("slide", "## One"),
        ("-", "Shown. **Shown too.**"),
        ("notes", "Shown. Told. **Shown too.**"),
    ]


def test_tables_lists_fences_and_questions_are_shown_whole():
    table, points = "| a | b |\n|---|---|\n| 1 | 2 |", "- One. Two.\n- Three."
    fence = "```mermaid\nA->>B: # no heading\n\nB->>A: x\n```"
    asking = "Long, and more. **Predict:** how many? Go."
    made = slides.deck(markdown("## T", table, points, fence, asking))
    shown = [source for kind, source in kinds(made) if kind == "-"]
    assert shown == [table, points, fence, "**Predict:** how many? Go."]


def test_what_does_not_fit_goes_to_a_slide_below():
    made = slides.deck(markdown("## T", *[f"Sentence {n}." for n in range(40)]))
    assert [kind for kind, _ in kinds(made)].count("subslide") >= 2
    below = {source for kind, source in kinds(made) if kind == "subslide"}
    assert below == {"## T *(continued)*"}


def code(source: str, *outputs: nbformat.NotebookNode, tags: tuple[str, ...] = ()) -> list:
    notebook = markdown("## T")
    cell = nbformat.v4.new_code_cell(source, outputs=list(outputs))
    cell.metadata["tags"] = list(tags)
    notebook.cells.append(cell)
    return slides.deck(notebook).cells[1:]


def stream(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", text=text)


def test_what_a_cell_printed_comes_after_a_key_press_and_long_output_is_cut():
    shown, came = code("print(1)", stream("".join(f"line {n}\n" for n in range(30))))
    assert (shown.source, shown.outputs) == ("print(1)", [])
    assert came.metadata["slideshow"]["slide_type"] == "fragment"
    assert came.outputs[0].text.splitlines()[-1] == "... 18 more lines"


def test_imports_and_long_code_are_left_out_and_what_the_code_printed_stays():
    assert code("import json\n\nlab = cachelab.start()", stream("cache: Valkey\n")) == []
    (came,) = code("\n".join(f"x{n} = {n}" for n in range(13)), stream("13\n"))
    assert (came.source, came.outputs[0].text) == ("", "13\n")


def test_a_cell_that_asks_for_a_guess_is_its_question():
    (shown,) = code('predict("How many?", key="many")', stream("Your guess: none yet."))
    assert (shown.cell_type, shown.source) == ("markdown", "**Predict:** How many?")


def test_a_diagram_that_was_drawn_from_a_run_is_drawn_again():
    drawn = nbformat.v4.new_output("display_data", {"text/vnd.mermaid": "A->>B: GET"})
    _, came = code("cachelab.sequence(run)", drawn)
    assert came.source == "```mermaid\nA->>B: GET\n```"
    assert came.metadata["slideshow"]["slide_type"] == "fragment"


def test_a_line_too_long_for_a_slide_is_set_in_smaller_letters_and_not_cut():
    _, came = code("print(x)", stream("<" + "x" * 209 + "\n"))
    assert came.outputs[0].data["text/html"] == (
        f'<pre style="font-size: 9.5px">&lt;{"x" * 209}\n</pre>'
    )


def test_an_explorer_is_its_first_frame():
    frame = nbformat.v4.new_output(
        "execute_result", {"image/png": "AAAA", "text/html": "<script>", "text/plain": "x"}
    )
    (came,) = code("widgets.ttl_explorer()", frame, tags=("widget",))
    assert dict(came.outputs[0].data) == {"image/png": "AAAA"}


def test_a_page_of_slides_asks_for_nothing_but_what_lies_beside_it_and_ends_with_the_exercises():
    notebook = nbformat.read(ROOT / "notebooks" / "05_cache_aside.ipynb", as_version=4)
    made = slides.page(slides.deck(notebook, slides.turns_of("05_cache_aside")))
    asked = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"([^\"]*)\"", made)
    beside = {f"vendor/{target}" for target in slides.VENDOR.values()}
    assert {target for target in asked if not target.startswith("data:")} == beside
    assert not re.search(r"@import|import\(|url\(\s*[\"']?https?:", made)
    text = html.unescape(re.sub(r"<[^>]+>", "", made))
    for one in catalogue("05_cache_aside"):
        assert f"{one.title} ({one.id}), {one.minutes} minutes" in text


def test_what_npm_fetches_is_pinned_and_names_no_registry():
    lock = json.loads((KIT / "slides" / "package-lock.json").read_text("utf-8"))
    wanted = json.loads((KIT / "slides" / "package.json").read_text("utf-8"))["dependencies"]
    got = {name: one for name, one in lock["packages"].items() if name}
    assert {f"node_modules/{name}": v for name, v in wanted.items()} == {
        name: one["version"] for name, one in got.items()
    }
    assert all("integrity" in one and "resolved" not in one for one in got.values())


def test_a_chapter_that_is_not_there_is_one_sentence(capsys):
    assert slides.main(["99_nothing"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("There is no chapter 99_nothing: known are 00_start_here, ")
    assert said.count("\n") == 1
