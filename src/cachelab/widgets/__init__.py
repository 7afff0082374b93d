"""Explorers: a model, its picture and sliders, with a reading in words and a question.

One module an explorer, named after its model: `ttl.py` has `ttl_explorer`. It is found by its
name, and imported when it is first asked for.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from cachelab.widgets.explorer import Explorer

EXPLORERS = [f"{one.name}_explorer" for one in iter_modules(__path__) if one.name != "explorer"]

__all__ = ["EXPLORERS", "Explorer", *EXPLORERS]


def __getattr__(name: str) -> Any:
    if name not in EXPLORERS:
        raise AttributeError(f"There is no {name} in widgets: there are {', '.join(EXPLORERS)}.")
    return getattr(import_module(f"{__name__}.{name.removesuffix('_explorer')}"), name)
