"""The catalogue of exercises, which the library ships: made from the labs' sources."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tools.markers import Source, exercises

CATALOGUE = "src/cachelab/exercises/catalogue.json"

Entry = dict[str, Any]  # id, title, function, signature, minutes, hints


def lab_of(entry: Entry) -> str:
    """The stem of an entry's lab."""
    return str(entry["id"]).partition(".")[0]


def made(root: Path, sources: Sequence[Source]) -> list[Entry]:
    """The catalogue as the sources have it; of a lab that is not among them, as it stands."""
    labs = {source.stem: exercises(source) for source in sources if source.room == "labs"}
    for stem, entries in groupby(stored(root), lab_of):
        if (root / "content" / "labs" / f"{stem}.py").exists():
            labs.setdefault(stem, list(entries))
    return [entry for stem in sorted(labs) for entry in labs[stem]]


def stored(root: Path) -> list[Entry]:
    """The catalogue that the library has; [] if there is none, or none that can be read."""
    try:
        entries = json.loads((root / CATALOGUE).read_text(encoding="utf-8"))
        return [entry for entry in entries if lab_of(entry)]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def dumps(entries: Sequence[Entry]) -> str:
    """The text of the file."""
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def differences(root: Path, sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    """Each way in which the library's catalogue is not that of the sources, and the lab's stem."""
    wanted = {entry["id"]: entry for entry in made(root, sources)}
    found = {entry["id"]: entry for entry in stored(root)}
    for name in [*wanted, *(name for name in found if name not in wanted)]:
        one, other = wanted.get(name, {}), found.get(name, {})
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        if not one or not other:
            yield f"{'has an' if other else 'lacks the'} exercise {name}", name.partition(".")[0]
        elif keys:
            yield f"has another {', '.join(keys)} of {name}", lab_of(one)
    path = root / CATALOGUE
    if list(wanted) != list(found) or (
        wanted == found and wanted and path.read_bytes().decode() != dumps(list(wanted.values()))
    ):
        yield "was not written by the builder", ""
