"""Closed forms and seeded simulators of caches: pure NumPy, no clock, no server, no global state.

Every module pairs a formula with a simulator that shares no code with it, so that each can be held
against the other. Times are in seconds, rates per second, ratios between 0 and 1.

One module a model, found by its name and imported when it is first asked for; the first line of
each says what it is a model of. `inputs` is what they share.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

MODELS = [one.name for one in iter_modules(__path__) if one.name != "inputs"]

__all__ = ["MODELS", *MODELS]


def __getattr__(name: str) -> ModuleType:
    if name not in MODELS:
        raise AttributeError(f"There is no model {name}: there are {', '.join(MODELS)}.")
    return import_module(f"{__name__}.{name}")
