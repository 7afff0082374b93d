"""Every explorer has a still, a reading and a question, and survives the ends of its sliders."""

from __future__ import annotations

import base64
import html
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import matplotlib.image
import numpy as np
import pytest
import traitlets
from nbval.plugin import get_sanitize_patterns

from cachelab import models, widgets
from cachelab.models import MODELS
from cachelab.models import stampede as model
from cachelab.widgets import EXPLORERS, Explorer, stampede
from cachelab.widgets.explorer import PER_CENT, UNITS, fixed, percent, png, seconds, span
from cachelab.widgets.stampede import StampedeExplorer
from tools.build import build

PROJECT = Path(__file__).resolve().parents[1]
VIEW = "application/vnd.jupyter.widget-view+json"
ALL: dict[str, Callable[[], Any]] = {name: getattr(widgets, name) for name in EXPLORERS}
MADE = {name: make for name, make in ALL.items() if name != "stampede_explorer"}
# What the text of an axis or of a slider's value ends in, or holds, by what it is measured in.
SHOWN = {
    "seconds": r" (s|ms|min|h|\N{MICRO SIGN}s)$",
    "per second": r" per s$",
    "a count": r"^[\d,.]+$",
}


@pytest.fixture(params=MADE)
def explorer(request: pytest.FixtureRequest) -> Explorer:
    return MADE[request.param]()


@pytest.fixture(params=ALL)
def any_explorer(request: pytest.FixtureRequest) -> Any:
    return ALL[request.param]()


def pixels(picture: bytes) -> np.ndarray[Any, Any]:
    return (255 * matplotlib.image.imread(io.BytesIO(picture))).astype(int)[:, :, :3]


def ends(setting: Any) -> list[Any]:
    """Both ends of a slider, or every option of a list."""
    if isinstance(setting, ipywidgets.Dropdown):
        return [value for _, value in setting.options]
    if hasattr(setting, "options"):
        return [setting.options[0][1], setting.options[-1][1]]
    return [setting.min, setting.max]


def corners(explorer: Explorer) -> Iterator[dict[str, Any]]:
    names = list(explorer.settings)
    for values in itertools.product(*(ends(explorer.settings[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def test_every_explorer_moves_a_model_of_its_name() -> None:
    assert {name.removesuffix("_explorer") for name in EXPLORERS} <= set(MODELS)
    assert [name for name in EXPLORERS if not callable(getattr(widgets, name))] == []


def test_an_explorer_or_a_model_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no luck_explorer in widgets: .*ttl_explorer"):
        _ = widgets.luck_explorer
    with pytest.raises(AttributeError, match=r"no model luck: there are .*ttl"):
        _ = models.luck


@pytest.mark.slow
def test_no_corner_of_the_sliders_crashes_goes_blank_or_reads_like_a_bug(
    explorer: Explorer,
) -> None:
    # What moves is left out for a moment: the picture without it is what "blank" would be.
    canvas = explorer._canvas
    seen = 0
    for corner in corners(explorer):
        for name, value in corner.items():
            explorer.settings[name].unobserve_all("value")
            explorer.settings[name].value = value
        explorer.redraw()
        drawn = pixels(explorer.picture.value)
        moving, canvas._moving = canvas._moving, []
        blank = canvas.pixels()
        canvas._moving = moving
        assert np.count_nonzero((drawn != blank).any(axis=2)) > 20, corner
        assert explorer.said.endswith("."), corner
        assert not re.search(r"\b(nan|inf|None|e[+-]\d+)\b|-0\b", explorer.said), explorer.said
        seen += 1
    assert seen >= 4


@pytest.mark.slow
def test_moving_any_one_setting_redraws_and_reads_again(explorer: Explorer) -> None:
    for setting in explorer.settings.values():
        if setting.disabled:
            continue
        picture, said, start = explorer.picture.value, explorer.said, setting.value
        setting.value = next(value for value in reversed(ends(setting)) if value != start)
        assert (explorer.picture.value, explorer.said) != (picture, said), setting.description
        assert explorer.said in explorer.reading.value.replace("&lt;", "<")
        setting.value = start
        assert (explorer.picture.value, explorer.said) == (picture, said), setting.description


@pytest.mark.slow
def test_the_figure_is_made_once(explorer: Explorer) -> None:
    figure = explorer._canvas.figure
    artists = [len(axes.get_children()) for axes in figure.axes]
    name, setting = next(iter(explorer.settings.items()))
    for value in ends(setting) * 3:
        explorer.settings[name].value = value
    assert explorer._canvas.figure is figure
    assert [len(axes.get_children()) for axes in figure.axes] == artists


def test_axes_are_named_with_their_units(explorer: Explorer) -> None:
    for axes in explorer._canvas.figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        # A count has no unit; everything else says it.
        words = f"{axes.get_xlabel()} | {axes.get_ylabel()}"
        unit = re.search(r"\(s\)|\(ms\)|\(%|seconds|reads of|per second", words)
        assert unit, f"no axis says its unit, as in (s), (ms), (%), per second: {words}"


def test_lines_are_told_apart_without_colour(explorer: Explorer) -> None:
    for axes in explorer._canvas.figure.axes:
        named = [line for line in axes.lines if not line.get_label().startswith("_")]
        looks = [(str(line.get_linestyle()), line.get_marker()) for line in named]
        assert len(set(looks)) == len(looks), [line.get_label() for line in named]


@pytest.mark.slow
def test_a_still_stands_without_a_kernel_with_its_reading_and_its_question(
    any_explorer: Any,
) -> None:
    data = any_explorer._repr_mimebundle_()
    text = data["text/plain"]
    assert any_explorer.said in text
    assert any_explorer.question in text
    assert any_explorer.question.endswith("?")
    picture = pixels(base64.b64decode(data["image/png"]))
    assert picture.shape[1] == 800
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    page = data["text/html"]
    assert html.escape(any_explorer.said) in page.split("<p>", 1)[1]
    assert re.search(r'<img alt="[^"]{200,}" src="data:image/png;base64,iVBOR', page)
    assert data[VIEW]["model_id"] == any_explorer.model_id


@pytest.mark.parametrize("name", ALL)
@pytest.mark.slow
def test_the_same_explorer_made_twice_gives_the_same_still(name: str) -> None:
    first, second = (ALL[name]()._repr_mimebundle_() for _ in range(2))
    assert {**first, VIEW: None} == {**second, VIEW: None}


def test_while_the_notebooks_are_built_no_view_of_a_model_that_will_be_gone_is_stored(
    any_explorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHELAB_BUILDING", "1")
    assert VIEW not in any_explorer._repr_mimebundle_()


def test_every_slider_says_its_unit_or_counts_things(explorer: Explorer) -> None:
    for name, setting in explorer.settings.items():
        assert setting.description
        if isinstance(setting, ipywidgets.Dropdown):
            continue
        assert setting.unit in UNITS.values(), name
        if isinstance(setting, ipywidgets.SelectionSlider):
            labels = [label for label, _ in setting.options if label != "0 s"]
            assert all(re.search(SHOWN[setting.unit], label) for label in labels), (name, labels)
        else:
            assert ("%" in setting.description) == (setting.unit == PER_CENT), name


# What the readings say is what the models, and the figures of the course, say.


def test_the_default_readings_give_the_known_numbers() -> None:
    assert "90.9 %" in widgets.ttl_explorer().said  # rT = 10: 10/11
    assert "(formula: 53)" in widgets.jitter_explorer().said
    assert "3,900 s old: 300 s past the TTL" in widgets.jitter_explorer().said
    assert "(formula: 36.8 %)" in widgets.staleness_explorer().said  # mT = 1
    assert "1,250 acknowledged writes on average" in widgets.write_back_explorer().said
    assert "918 rows" in widgets.write_back_explorer().said
    assert "hit ratio of 22.2 % on" in widgets.worth_explorer().said
    assert "e^(1/beta) = 2.7" in widgets.early_refresh_explorer().said
    stampede_says = widgets.stampede_explorer().said
    assert stampede_says.startswith("41 of 800 reach the database; the longest wait is 0.40 s")


def test_subtractive_jitter_keeps_the_promise_and_additive_jitter_does_not() -> None:
    explorer = widgets.jitter_explorer()
    assert "past the TTL" in explorer.said
    explorer.settings["form"].value = "subtractive"
    assert "the promise of the TTL is kept" in explorer.said
    assert "Keys live 150 s less on average." in explorer.said  # half the width of 5 min
    explorer.settings["form"].value = "mean-preserving"
    assert "past the TTL" in explorer.said
    assert "less on average" not in explorer.said


def test_a_deleted_copy_is_never_stale_and_the_delay_counts_only_if_the_delete_is_late() -> None:
    explorer = widgets.staleness_explorer()
    assert explorer.settings["delay"].disabled
    explorer.settings["after"].value = "delete"
    assert explorer.said.startswith("0.0 % of the hits are out of date")
    explorer.settings["after"].value = "late"
    assert not explorer.settings["delay"].disabled
    assert not explorer.said.startswith("0.0 %")


def test_a_lookup_slower_than_the_query_never_pays() -> None:
    explorer = widgets.worth_explorer()
    explorer.settings["lookup"].value = 0.1
    assert "no hit ratio is enough" in explorer.said
    assert "% more than the query alone" in explorer.said


# The stampede explorer


def test_the_stampede_explorer_is_the_model_at_the_same_settings() -> None:
    explorer = widgets.stampede_explorer(slots=10, discipline="ps")
    expected = model.simulate(800, 0.2, 0.01, 10, discipline="ps")
    assert explorer.result.queries == expected.queries == 211
    assert explorer.said.startswith("211 of 800 reach the database")
    explorer.single_flight = True
    assert explorer.said.startswith("1 of 800 reaches the database")


@pytest.mark.parametrize("wrong", [{"readers": 0}, {"slots": 101}, {"discipline": "lifo"}])
def test_the_stampede_explorer_refuses_what_its_controls_cannot_show(wrong: Any) -> None:
    with pytest.raises(traitlets.TraitError):
        StampedeExplorer(**wrong)


def test_no_corner_of_the_stampede_explorer_crashes_its_still() -> None:
    ranges = [(low, high) for low, high, _ in stampede.RANGES.values()]
    for corner in itertools.product(*ranges):
        for discipline in stampede.DISCIPLINES:
            settings = dict(zip(stampede.RANGES, corner, strict=True))
            explorer = StampedeExplorer(**settings, discipline=discipline)
            assert not re.search("nan|inf", explorer.said)
    # Drawing takes its time, so only the widest corners are drawn.
    for settings in ({"readers": 10, "slots": 100, "query_ms": 1}, {"window_ms": 0}):
        assert len(np.unique(stampede.still(StampedeExplorer(**settings)))) > 50


def test_traits_and_table_of_ranges_agree() -> None:
    for name, (low, high, start) in stampede.RANGES.items():
        trait = StampedeExplorer.class_traits()[name]
        assert (trait.min, trait.max, trait.default_value) == (low, high, start)


def test_the_page_of_the_stampede_explorer_needs_nothing_from_elsewhere() -> None:
    page = widgets.stampede_explorer()._repr_mimebundle_()["text/html"]
    addresses = set(re.findall(r"https?://[^\s\"'`]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert not re.search(r"\bimport\b\s*[({*\"']|\bfetch\(|src=\"(?!data:)", page)
    assert page.count("</script>") == 1
    assert "</div>\n<script" in page
    assert "41 of 800 reach the database" in page


# Numbers as they are read


def test_a_file_written_by_our_encoder_is_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 11, 3)).astype(np.uint8)
    assert np.array_equal(
        np.round(255 * matplotlib.image.imread(io.BytesIO(png(picture)))), picture
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 s"),
        (0.00025, "250 \N{MICRO SIGN}s"),
        (0.012, "12 ms"),
        (0.4, "0.40 s"),
        (0.125, "0.13 s"),
        (0.002125, "2.13 ms"),
        (12.34, "12.3 s"),
        (1000, "1,000 s"),
    ],
)
def test_a_duration_is_said_with_its_unit(value: float, said: str) -> None:
    assert seconds(value) == said


def test_a_share_is_all_or_nothing_only_when_it_is() -> None:
    assert [percent(share) for share in (0, 1e-9, 0.5, 1 - 1e-9, 1)] == [
        "0.0 %",
        "under 0.1 %",
        "50.0 %",
        "over 99.9 %",
        "100.0 %",
    ]


def test_a_chosen_duration_is_said_shortly() -> None:
    values = (0.01, 1.5, 90, 300, 3600)
    assert [span(value) for value in values] == ["10 ms", "1.5 s", "90 s", "5 min", "1 h"]
    assert fixed(2500, 0) == "2,500"


# In a notebook: built, and compared by strict nbval

SOURCE = """# %% [markdown]
# # Move a slider

# %% tags=["widget"]
from cachelab.widgets import jitter_explorer, stampede_explorer

stampede_explorer()

# %% tags=["widget"]
jitter_explorer()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("widgets")
    (root / "content/notebooks").mkdir(parents=True)
    (root / "content/notebooks/91_widgets.py").write_text(SOURCE, "utf-8")
    assert build(root, say=lambda line: None) == []
    return root


def test_a_built_notebook_holds_stills_and_no_models(built: Path) -> None:
    text = (built / "notebooks/91_widgets.ipynb").read_text("utf-8")
    assert VIEW not in text
    assert "widget-state" not in text
    assert text.count('"image/png": "') == 2
    assert "41 of 800 reach the database" in text


@pytest.mark.slow
def test_a_built_notebook_passes_strict_nbval(built: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(built, tmp_path / "project"))
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env.pop("CACHELAB_BUILDING", None)
    options = ["-p", "tools.nbval_live", "-p", "no:randomly", "-p", "no:cacheprovider", "--nbval"]
    sanitize = ["--nbval-sanitize-with", str(PROJECT / "tests/nbval_sanitize.cfg")]
    command = [sys.executable, "-m", "pytest", *options, "--nbval-current-env", *sanitize]
    run = subprocess.run(
        [*command, "--nbval-cell-timeout", "60", "--rootdir", ".", "notebooks"],
        cwd=root,
        env=env | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_a_still_drawn_a_little_differently_elsewhere_is_not_compared_byte_for_byte() -> None:
    page = widgets.stampede_explorer()._repr_mimebundle_()["text/html"]
    rules = get_sanitize_patterns((PROJECT / "tests/nbval_sanitize.cfg").read_text("utf-8"))
    for pattern, replacement in rules:
        page = re.sub(pattern, replacement, page)
    assert "data:image/png;base64,iVBOR" not in page
    assert "41 of 800 reach the database" in page
