"""How many examples the fuzz tests try, what they write down, and what counts as one sentence.

In `make test` the same few each time. `CACHELAB_FUZZ=50 make test-units ARGS=tests/fuzz` tries
fifty times as many, others each time.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("CACHELAB_FUZZ", "1"))
LONGEST = 700  # characters of a sentence

# Half of a surrogate pair: JSON can hold it, UTF-8 cannot.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 10**30, 10**400, 1e308, 1e-308, float("nan"), float("inf")])
)
PLAIN = st.none() | st.booleans() | NUMBERS | ANY_TEXT
ANY_JSON = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)


def tried(examples: int) -> Any:
    """Settings for so many examples in `make test`."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def is_sentence(said: str) -> bool:
    """Whether this can be shown as it is: one line, whole, nothing that a terminal obeys."""
    return (
        said.isprintable()
        and said.endswith(".")
        and 10 < len(said) <= LONGEST
        and "Traceback" not in said
    )


@contextlib.contextmanager
def printed() -> Iterator[dict[str, str]]:
    """What is printed inside, as "out" and "err"; what is not UTF-8 fails, as in a terminal."""
    told = {"out": "", "err": ""}
    pages = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for name in told}
    with contextlib.redirect_stdout(pages["out"]), contextlib.redirect_stderr(pages["err"]):
        yield told
    for name, page in pages.items():
        page.seek(0)
        told[name] = page.read()


def cut(whole: bytes, at: int, gone: int, noise: bytes) -> bytes:
    """`whole` with `gone` bytes replaced by `noise`."""
    at %= len(whole) + 1
    return whole[:at] + noise + whole[at + gone :]
