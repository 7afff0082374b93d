"""Cachelab, the caching workbook: its public face, which is all that a notebook imports."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cachelab.board import check, join
    from cachelab.cache import nodes, server
    from cachelab.exercises import hint
    from cachelab.figures import lanes, predict, sequence, show
    from cachelab.lab import comparison, start, traffic
    from cachelab.record import trace

__version__ = "0.1.0"
__all__ = [
    "check",
    "comparison",
    "hint",
    "join",
    "lanes",
    "nodes",
    "predict",
    "sequence",
    "server",
    "show",
    "start",
    "trace",
    "traffic",
]

# What a notebook finds under `cachelab`, and the room that has it. Rooms that it imports by their
# own name (edge, figures, incident, lab, models, origin, patterns, stage, widgets) need no row.
_FUNCTIONS = {
    "start": "cachelab.lab",
    "check": "cachelab.board",
    "hint": "cachelab.exercises",
    "join": "cachelab.board",
    "lanes": "cachelab.figures",
    "sequence": "cachelab.figures",
    "show": "cachelab.figures",
}
_MODULES = {
    "comparison": "cachelab.lab",
    "nodes": "cachelab.cache",
    "predict": "cachelab.figures",
    "server": "cachelab.cache",
    "trace": "cachelab.record",
    "traffic": "cachelab.lab",
}


def __getattr__(name: str) -> Any:
    # Found when first used: importing cachelab itself costs next to nothing.
    if name in _FUNCTIONS:
        value = getattr(import_module(_FUNCTIONS[name]), name)
    elif name in _MODULES:
        value = import_module(f"{_MODULES[name]}.{name}")
    else:
        raise AttributeError(f"module 'cachelab' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS, *_MODULES])


class _PublicName:
    """Lets `from cachelab.predict import predict` find the module in its room."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, module = name.rpartition(".")
        public = package == "cachelab" and module in _MODULES
        return ModuleSpec(name, _PublicName) if public else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        name = module.__name__.rpartition(".")[2]
        sys.modules[module.__name__] = import_module(f"{_MODULES[name]}.{name}")


sys.meta_path.append(_PublicName)
