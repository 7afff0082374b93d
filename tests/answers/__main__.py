"""Prints what each known wrong answer of a lab is told, as the lab's guide quotes it.

PYTHONPATH=tests .venv/bin/python -m answers 05_cache_aside
"""

from __future__ import annotations

import sys

from answers import wrong
from cachelab.exercises import catalogue, check, labs


def main(arguments: list[str]) -> int:
    """One line a wrong answer of the labs named; 1 after one sentence if a lab is not known."""
    unknown = [stem for stem in arguments if stem not in labs()]
    if unknown or not arguments:
        named = ", ".join(unknown) or "no lab was named"
        print(f"Name a lab that has exercises ({named}): {', '.join(labs())}.", file=sys.stderr)
        return 1
    for stem in arguments:
        for exercise in catalogue(stem):
            for answer in wrong(exercise.id):
                verdict = check(exercise.id, answer.function)
                print(f"> `{exercise.id}`, {answer.name}: “{verdict.summary}”")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
