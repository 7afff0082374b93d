"""Draws the rooms of the library from their real imports: all into docs/architecture.md, and a
picture to remember, of its nine floors, into README.md.

.venv/bin/python -m tools.rooms            # write the picture anew
.venv/bin/python -m tools.rooms --check    # say whether it is still what the code does
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs/architecture.md")
PACKAGE = "cachelab"
FACADE = "__init__"  # cachelab/__init__.py, all that a notebook imports
BEGIN = "<!-- drawn by `python -m tools.rooms`; do not edit -->\n"
END = "<!-- end of the picture -->\n"
README = Path("README.md")
# A floor of the small picture: what it is for, and its rooms.
FLOORS = {
    "what you type": [FACADE, "__main__", "command", "board"],
    "checks": ["submission", "exercises", "judge"],
    "the night at three": ["incident"],
    "pictures and sliders": ["widgets", "figures"],
    "the lab of a notebook": ["lab"],
    "the stage": ["stage"],
    "code and formulas to use": ["models", "patterns"],
    "real parts": ["edge", "origin", "cache"],
    "ground": ["record", "process"],
}

Graph = dict[str, set[str]]


def layers(root: Path) -> list[str]:
    """The rooms in the order that import-linter keeps, the highest first."""
    config = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    (contract,) = config["tool"]["importlinter"]["contracts"]
    return [str(layer).strip("()") for layer in contract["layers"]]


def imports(root: Path) -> Graph:
    """Which rooms each room imports, anywhere in its files: inside functions and for types too.

    A room is a module or a package right under `src/cachelab`.
    """
    house = root / "src" / PACKAGE
    graph: Graph = {}
    for parts, names in _files(house):
        others = {name.split(".")[1] for name in names} - {parts[0]}
        graph.setdefault(parts[0], set()).update(others)
    # `from cachelab import check` is a name of the facade, `from cachelab import stage` a room.
    return {room: {one if one in graph else FACADE for one in graph[room]} for room in graph}


def circles(root: Path) -> list[list[str]]:
    """The files that import each other in a circle, each circle sorted by name.

    Imports inside functions and for types count. A package is its `__init__.py`.
    """
    known = {".".join([PACKAGE, *parts]): names for parts, names in _files(root / "src" / PACKAGE)}
    graph = {file: {_file_of(name, known) for name in known[file]} for file in known}
    below = {file: reach(graph, file) for file in graph}
    found = {
        tuple(sorted(other for other in below[file] if file in below[other]))
        for file in graph
        if file in below[file]
    }
    return [list(circle) for circle in sorted(found)]


def classes(root: Path) -> dict[str, list[str]]:
    """The public classes of the house: for each name the files that define it."""
    house = root / "src" / PACKAGE
    found: dict[str, list[str]] = {}
    for file in sorted(house.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"), str(file))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(file.relative_to(house).as_posix())
    return found


def private_uses(root: Path, theirs: Container[str] = ()) -> list[str]:
    """Where a room uses a name with a leading underscore of another room: "file:line name".

    The name of an attribute says whose it is: of a room that defines it. One of `self` may be
    defined in several rooms, one of anything else only in the room that uses it. What no room
    defines, and what is in `theirs`, belongs to a library.
    """
    house = root / "src" / PACKAGE
    trees = {file: ast.parse(file.read_text("utf-8"), str(file)) for file in house.rglob("*.py")}
    rooms = {file: file.relative_to(house).with_suffix("").parts[0] for file in trees}
    owners: dict[str, set[str]] = {}
    for file, tree in trees.items():
        for name in filter(_is_private, _defined(tree)):
            owners.setdefault(name, set()).add(rooms[file])
    found = []
    for file, tree in sorted(trees.items()):
        room, where = rooms[file], file.relative_to(house)
        for name in sorted(_imported(tree, where.parts[:-1])):
            _, other, *rest = name.split(".")
            if other != room and any(map(_is_private, [other, *rest])):
                found.append(f"{where.as_posix()} {name}")
        for line, name, is_own in _attributes(tree):
            of = owners.get(name, set()) if name not in theirs else set()
            if of - {room} and not (is_own and room in of):
                found.append(f"{where.as_posix()}:{line} {name}")
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(node: ast.AST) -> Iterator[str]:
    """The names that a module and its classes define, and what methods assign to self or cls."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child.name
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for one in ast.walk(child):
                if isinstance(one, ast.ClassDef):
                    yield from _defined(one)
                elif isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store):
                    yield from [one.attr] if ast.unparse(one.value) in ("self", "cls") else []
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        else:
            yield from _defined(child)


def _attributes(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Line and name of each attribute used, and whether it is one of self, cls or super().

    Those of a module of another library are left out.
    """
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if not alias.name.startswith(PACKAGE)
    }
    for node in ast.walk(tree):
        name, of = "", ""
        if isinstance(node, ast.Attribute):
            name, of = node.attr, ast.unparse(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            name, of = ast.unparse(node.args[1]).strip("'"), ast.unparse(node.args[0])
        if of not in modules:
            yield getattr(node, "lineno", 0), name, of in ("self", "cls", "super()")


def _file_of(name: str, known: Mapping[str, set[str]]) -> str:
    """The file that an imported name is in: a module, or the `__init__` of a package."""
    while name not in known and f"{name}.{FACADE}" not in known:
        name = name.rpartition(".")[0]
    return name if name in known else f"{name}.{FACADE}"


def _files(house: Path) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Each file of the house as the parts of its path, and the names of ours that it imports."""
    for file in sorted(house.rglob("*.py")):
        parts = file.relative_to(house).with_suffix("").parts
        yield parts, _imported(ast.parse(file.read_text("utf-8"), str(file)), parts[:-1])


def _imported(tree: ast.Module, folder: tuple[str, ...]) -> set[str]:
    """The names that a file in this folder of the house imports from the house."""
    found = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = [PACKAGE, *folder]
            within = package[: len(package) + 1 - node.level] if node.level else []
            start = [*within, node.module] if node.module else within
            names = [".".join([*start, one.name]) for one in node.names]
        found |= {name for name in names if name.startswith(f"{PACKAGE}.")}
    return found


def reach(graph: Mapping[str, set[str]], room: str) -> set[str]:
    """Every room that `room` imports, itself or through others."""
    seen: set[str] = set()
    waiting = list(graph[room])
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += graph[one]
    return seen


def upward(graph: Mapping[str, set[str]], order: list[str]) -> list[tuple[str, str]]:
    """The imports that go against the order; the facade stands above all."""
    height = {room: number for number, room in enumerate([FACADE, *order])}
    return [(a, b) for a in graph for b in sorted(graph[a]) if height[a] >= height[b]]


def arrows(graph: Mapping[str, set[str]], order: list[str]) -> Iterator[tuple[str, str]]:
    """The imports, highest room first, without those that follow from two others."""
    below = {room: reach(graph, room) for room in graph}
    rooms = [room for room in dict.fromkeys([FACADE, *order]) if room in graph]
    for room in rooms:
        for other in rooms:
            through = graph[room] - {other}
            if other in graph[room] and not any(other in below[one] for one in through):
                yield room, other


def picture(root: Path) -> str:
    """The picture as Mermaid: a box a room, an arrow an import."""
    graph, order = imports(root), layers(root)
    boxes = {room: _label(room) for room in [FACADE, *order] if room in graph}
    return _mermaid(boxes, arrows(graph, order))


def small_picture(root: Path) -> str:
    """The picture of the floors: a box a floor with its rooms, an arrow an import between them."""
    graph = imports(root)
    floor_of = {room: floor for floor, rooms in FLOORS.items() for room in rooms if room in graph}
    if missing := sorted(set(graph) - set(floor_of)):
        raise ValueError(f"{missing[0]} is on no floor: put it into FLOORS in tools/rooms.py.")
    floors: Graph = {floor: set() for floor in FLOORS if floor in floor_of.values()}
    for room, others in graph.items():
        floors[floor_of[room]] |= {floor_of[one] for one in others} - {floor_of[room]}
    boxes = {
        floor: f"<b>{floor}</b><br>" + ", ".join(_label(room) for room in FLOORS[floor])
        for floor in floors
    }
    return _mermaid(boxes, arrows(floors, list(floors)))


def _mermaid(boxes: Mapping[str, str], lines: Iterable[tuple[str, str]]) -> str:
    drawn = [f'    {_id(box)}["{label}"]' for box, label in boxes.items()]
    drawn += [f"    {_id(a)} --> {_id(b)}" for a, b in lines]
    return "\n".join(["```mermaid", "flowchart TD", *drawn, "```"]) + "\n"


def _id(room: str) -> str:
    # A bare name may be a word of Mermaid's, and a space ends it.
    return f"room_{room.strip('_').replace(' ', '_')}"


def _label(room: str) -> str:
    return PACKAGE if room == FACADE else room


def redrawn(text: str, drawing: str) -> str:
    """The page with `drawing` between its two marks; ValueError if it does not have them."""
    before, began, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not began or not ended:
        raise ValueError("it has no place for it: the two marks are gone.")
    return f"{before}{BEGIN}{drawing}{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """0 when all is well; 1 after one sentence when the picture is old or has no place."""
    parser = argparse.ArgumentParser(prog="python -m tools.rooms", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    return max(
        _draw(asked.root / page, draw, asked.root, asked.check)
        for page, draw in ((PAGE, picture), (README, small_picture))
    )


def _draw(page: Path, draw: Callable[[Path], str], root: Path, only_check: bool) -> int:
    try:
        text = page.read_text("utf-8")
        new = redrawn(text, draw(root))
    except (OSError, ValueError) as error:
        print(f"The picture in {page.name} was not drawn: {error}", file=sys.stderr)
        return 1
    if new == text:
        print(f"The picture in {page.name} is what the code does.")
    elif only_check:
        print(
            f"{page.name} shows other imports than the code has: python -m tools.rooms",
            file=sys.stderr,
        )
        return 1
    else:
        page.write_text(new, "utf-8")
        print(f"The picture in {page.name} was drawn anew.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
