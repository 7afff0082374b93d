"""The class board: verdicts told to a Redis of the class, and what an instructor reads there.

Nothing is sent anywhere unless CACHELAB_CLASS_URL is set.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cachelab.board.settings import URL_VARIABLE

if TYPE_CHECKING:
    from cachelab.board.standing import Watch
    from cachelab.record.verdict import Verdict

__all__ = ["check", "join", "watch"]


def check(exercise_id: str, answer: Any) -> Verdict:
    """Judge `answer`, the function that the exercise asks for; takes at most 10 s.

    Never raises for anything that the answer does. Raises UnknownExercise for an id that is none.
    With CACHELAB_CLASS_URL set the class board is told the outcome, never the code.
    """
    from cachelab import exercises

    verdict = exercises.check(exercise_id, answer)
    if os.environ.get(URL_VARIABLE) and os.environ.get("CACHELAB_JUDGING") != "1":
        from cachelab.board import posting

        posting.report(verdict)
    return verdict


def join(name: str) -> None:
    """Choose the name under which the class board shows you; it is kept for the next time.

    1 to 40 characters. Raises BoardError, one sentence, for any other.
    """
    from cachelab.board import posting

    print(posting.join(name))


def watch(url: str | None = None) -> Watch:
    """The board at `url` (None: CACHELAB_CLASS_URL), for a notebook; BoardError if it is not one.

    The last line of a cell shows it as it is then; `.live(minutes=90)` keeps it up to date.
    """
    from cachelab.board.standing import Watch

    return Watch(url or os.environ.get(URL_VARIABLE, ""))
