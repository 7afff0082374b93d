"""What a notebook has in place of an edge where there is no nginx: one sentence, for each use."""

from __future__ import annotations

from typing import Any

from cachelab.edge.nginx import EdgeError
from cachelab.edge.sites import Edge, start


class Absent:
    """Stands where an Edge would; whatever it is asked for raises EdgeError with the same sentence.

    So a notebook whose first cell found no nginx says in each later one what is missing, and not
    that some name is not defined.
    """

    def __init__(self, why: EdgeError) -> None:
        self._why = str(why)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # IPython asks for its own ways to show something
            raise AttributeError(name)
        raise EdgeError(self._why)

    def __repr__(self) -> str:
        return self._why


def start_or_explain() -> Edge | Absent:
    """`edge.start()`; where that is not possible, what says so when it is shown or used."""
    try:
        return start()
    except EdgeError as why:
        return Absent(why)
