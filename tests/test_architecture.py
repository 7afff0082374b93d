"""The page on the architecture says what is so: its picture, its rooms, what each must not know."""

from __future__ import annotations

import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from tools import rooms

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / rooms.PAGE).read_text("utf-8")
ORDER = rooms.layers(ROOT)
GRAPH = rooms.imports(ROOT)
PARAGRAPHS = {
    part.partition("`")[0]: " ".join(part.partition("\n")[2].split("\n## ")[0].split())
    for part in PAGE.split("\n### `")[1:]
}
every = pytest.mark.parametrize("room", PARAGRAPHS)


def part(room: str, begins: str) -> str:
    """The sentence of a room's paragraph that begins so, to the next full stop or the end."""
    found = re.search(rf"{begins}(.*?)(?:\. |\.$)", PARAGRAPHS[room])
    assert found, f"{room} does not say {begins!r}"
    return found[1]


def names(text: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", text)


def test_the_picture_is_what_the_code_imports():
    assert rooms.redrawn(PAGE, rooms.picture(ROOT)) == PAGE, "draw it: python -m tools.rooms"


def test_the_small_picture_of_the_readme_is_what_the_code_imports():
    readme = (ROOT / rooms.README).read_text("utf-8")
    assert rooms.redrawn(readme, rooms.small_picture(ROOT)) == readme, "python -m tools.rooms"
    assert 7 <= rooms.small_picture(ROOT).count('["') <= 9


def test_there_are_at_most_eighteen_rooms():
    assert len(set(GRAPH) - {rooms.FACADE}) <= 18


def test_no_room_imports_a_room_above_it():
    assert rooms.upward(GRAPH, ORDER) == []


def test_no_files_import_each_other_in_a_circle():
    assert rooms.circles(ROOT) == []


# A pattern is copied out as one file, so each brings the error that both mean.
SAME_IN_BOTH = {"Busy": ["patterns/production.py", "patterns/token_lock.py"]}


def test_a_public_class_has_a_name_of_its_own():
    assert {name: files for name, files in rooms.classes(ROOT).items() if len(files) > 1} == (
        SAME_IN_BOTH
    )


# Names of a library that a room of ours has too.
THEIRS = {
    "_mapping",  # a row of SQLAlchemy
    "_last_timestamp",  # uuid
    "_lock",  # a Condition of threading
    "_name",  # a thread
    "_name_to_func",  # a socket of fakeredis
    "_node",  # uuid
    "_server",  # a connection of fakeredis
    "_threads",  # a pool of concurrent.futures
}


def test_a_name_with_a_leading_underscore_does_not_leave_its_room():
    assert rooms.private_uses(ROOT, THEIRS) == []


def test_every_room_has_its_paragraph_in_the_order_of_the_rooms():
    assert list(PARAGRAPHS) == [rooms.FACADE, *ORDER]
    assert sorted(PARAGRAPHS) == sorted(GRAPH)


@every
def test_a_public_name_of_the_page_is_one_of_the_room(room):
    told = part(room, "Public: ")
    if told.startswith("nothing"):
        return  # a program: importing it would run it
    assert names(told)
    where = rooms.PACKAGE if room == rooms.FACADE else f"{rooms.PACKAGE}.{room}"
    for name in names(told):
        owner, _, last = name.rpartition(".")
        module = import_module(f"{where}.{owner}" if owner else where)
        assert hasattr(module, last), name
        assert last in getattr(module, "__all__", [last]), name


@every
def test_a_room_does_not_reach_what_it_must_not_know(room):
    told = part(room, "Must not know: ")
    known = rooms.reach(GRAPH, room)
    named = set(names(told)) & set(PARAGRAPHS)
    assert named or "any other room" in told
    assert not named & known
    assert "any other room" not in told or not known


def test_the_lists_of_rooms_for_contributors_have_every_room():
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## The rooms")[2]
    first = "\n".join(re.findall(r"^\| (`.*?) \|", table.partition("\n## ")[0], re.M))
    told = {name.rstrip("/") for name in re.findall(r"`([\w/]+)`", first)}
    assert told == set(ORDER) - {"__main__"}


# The tool


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three rooms, the upper two of which import the one below."""
    code = tmp_path / "src" / "cachelab"
    (code / "attic").mkdir(parents=True)
    (code / "__init__.py").write_text("")
    (code / "attic" / "__init__.py").write_text("from cachelab.attic import roof\n")
    (code / "attic" / "roof.py").write_text("def f():\n    from cachelab import hall\n")
    (code / "hall.py").write_text("import cachelab.cellar as below\n")
    (code / "cellar.py").write_text("import json\n")
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.importlinter.contracts]]\nlayers = ["(attic)", "(hall)", "(cellar)"]\n'
    )
    (tmp_path / "docs").mkdir()
    for page in (rooms.PAGE, rooms.README):
        (tmp_path / page).write_text(f"Before\n{rooms.BEGIN}{rooms.END}After\n")
    monkeypatch.setattr(
        rooms, "FLOORS", {"top": [rooms.FACADE, "attic"], "low": ["hall", "cellar"]}
    )
    return tmp_path


def test_an_import_in_a_function_counts_and_one_of_a_neighbour_in_the_same_room_does_not(house):
    found = {"__init__": set(), "attic": {"hall"}, "hall": {"cellar"}, "cellar": set()}
    assert rooms.imports(house) == found


@pytest.mark.parametrize(
    ("line", "room"),
    [
        ("from ..cellar import x", "cellar"),
        ("from .. import cellar", "cellar"),
        ("from .roof import x", None),
        ("from cachelab import start", "__init__"),
        ("import cachelab.cellar", "cellar"),
        ("from typing import Any", None),
    ],
)
def test_every_way_to_write_an_import_is_seen(house, line, room):
    (house / "src/cachelab/attic/roof.py").write_text(line + "\n")
    assert rooms.imports(house)["attic"] == ({room} if room else set())


def test_an_import_that_goes_up_is_found(house):
    (house / "src/cachelab/cellar.py").write_text("from cachelab.attic import roof\n")
    assert rooms.upward(rooms.imports(house), rooms.layers(house)) == [("cellar", "attic")]


@pytest.mark.parametrize(
    "line",
    [
        "from cachelab.attic import roof",
        "def f():\n    from cachelab.attic.roof import f",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cachelab.attic.roof",
        "from . import roof",
    ],
)
def test_files_that_import_each_other_are_found_in_functions_and_for_types_too(house, line):
    assert rooms.circles(house) == []
    (house / "src/cachelab/attic/roof.py").write_text("from cachelab.attic.beam import wood\n")
    (house / "src/cachelab/attic/beam.py").write_text(line + "\n")
    (circle,) = rooms.circles(house)
    assert circle == ["cachelab.attic.beam", "cachelab.attic.roof"]


def test_a_class_that_two_files_define_is_found_and_a_private_one_is_not(house):
    for room in ("hall", "cellar"):
        (house / f"src/cachelab/{room}.py").write_text("class Door: ...\nclass _Key: ...\n")
    assert rooms.classes(house) == {"Door": ["cellar.py", "hall.py"]}


CELLAR = """
_wine = 1
class Shelf:
    _old: int = 0
    def __init__(self):
        self._new = 1
    def _lift(self): ...
"""


@pytest.mark.parametrize(
    "line",
    [
        "from cachelab.cellar import _wine",
        "from cachelab._shed import spade",
        "def f():\n    from ..cellar import _wine",
        "from cachelab import cellar\ncellar._wine",
        "def f(shelf): return shelf._new",
        "def f(shelf): shelf._new = 2",
        "def f(shelf): return shelf._old",
        "def f(shelf): return getattr(shelf, '_old', 0)",
        "def f(shelf): return shelf.neighbour._lift()",
        "class Low(Shelf):\n    def f(self): return self._lift()",
        # The room has a name of its own that is the same.
        "class Box:\n    def f(self, shelf):\n        self._new = shelf._new",
    ],
)
def test_a_private_name_of_another_room_is_found_however_it_is_reached(house, line):
    (house / "src/cachelab/cellar.py").write_text(CELLAR)
    (house / "src/cachelab/attic/beam.py").write_text(line + "\n")
    (found,) = rooms.private_uses(house)
    assert found.startswith("attic/beam.py")


@pytest.mark.parametrize(
    "line",
    [
        "def f(row): return row._mapping",
        "import os\nos._lift()",
        "class Box:\n    def __init__(self): self._new = 1\n    def f(self): return self._new",
        "from cachelab.attic.roof import _tile",
        "def f(roof): return roof._slope",
        "def f(shelf): return shelf.__dict__",
    ],
)
def test_a_private_name_of_a_library_or_of_the_room_itself_is_not_found(house, line):
    (house / "src/cachelab/cellar.py").write_text(CELLAR)
    (house / "src/cachelab/attic/roof.py").write_text("_tile = 1\nclass Roof:\n    _slope = 1\n")
    (house / "src/cachelab/attic/beam.py").write_text(line + "\n")
    assert rooms.private_uses(house) == []


def test_an_arrow_that_follows_from_two_others_is_not_drawn(house):
    (house / "src/cachelab/attic/roof.py").write_text("from cachelab import cellar, hall\n")
    graph = rooms.imports(house)
    drawn = list(rooms.arrows(graph, rooms.layers(house)))
    assert drawn == [("attic", "hall"), ("hall", "cellar")]


def test_the_command_says_that_the_picture_is_old_draws_it_and_leaves_the_rest_alone(house, capsys):
    assert rooms.main(["--check", "--root", str(house)]) == 1
    assert "python -m tools.rooms" in capsys.readouterr().err
    assert rooms.main(["--root", str(house)]) == 0
    assert rooms.main(["--check", "--root", str(house)]) == 0
    text = (house / rooms.PAGE).read_text()
    assert text.startswith("Before\n")
    assert text.endswith("After\n")
    assert "room_attic --> room_hall" in text
    assert "room_top --> room_low" in (house / rooms.README).read_text()


def test_a_room_that_is_on_no_floor_is_one_sentence(house, capsys):
    (house / "src/cachelab/garage.py").write_text("")
    assert rooms.main(["--root", str(house)]) == 1
    assert "garage is on no floor: put it into FLOORS" in capsys.readouterr().err


def test_a_page_without_a_place_for_the_picture_is_one_sentence_and_stays(house, capsys):
    (house / rooms.PAGE).write_text("Nothing here\n")
    assert rooms.main(["--root", str(house)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (house / rooms.PAGE).read_text() == "Nothing here\n"
    shutil.rmtree(house / "docs")
    assert rooms.main(["--root", str(house)]) == 1
