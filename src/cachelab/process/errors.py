"""Errors that say it in one sentence: a notebook shows that sentence and no traceback."""

from __future__ import annotations


class OneSentence(Exception):
    """Its text says what was seen and what to do; where it was raised is of no use to a learner."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]  # IPython prints this instead of a traceback
