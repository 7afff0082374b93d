"""Cachelab, the caching workbook: what a notebook imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachelab.board import check, join
    from cachelab.exercises import hint
    from cachelab.figures import lanes, sequence, show
    from cachelab.lab import start

__version__ = "0.1.0"
__all__ = ["check", "hint", "join", "lanes", "sequence", "show", "start"]

_HOMES = {
    "start": "cachelab.lab",
    "check": "cachelab.board",
    "hint": "cachelab.exercises",
    "join": "cachelab.board",
    "lanes": "cachelab.figures",
    "sequence": "cachelab.figures",
    "show": "cachelab.figures",
}


def __getattr__(name: str) -> Any:
    # Found when first used: importing cachelab itself costs next to nothing.
    if name not in _HOMES:
        raise AttributeError(f"module 'cachelab' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
