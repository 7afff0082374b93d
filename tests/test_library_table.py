"""The library table of chapter 13: a cell a test, so that a library's fix changes the table."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator

import pytest

from cachelab.lab import comparison
from cachelab.lab.comparison import BEHAVIOURS, RIGS, Table
from cachelab.process.errors import OneSentence

pytestmark = pytest.mark.slow

# y: yes, n: no, -: the question does not arise (no Redis under it). Columns as in RIGS.
EXPECTED = {
    "one_process": "yyyyyyyn",
    "four_processes": "yyynnyyn",
    "leader_stopped": "yynnyyyn",
    "leader_fails": "ynynnnnn",
    "lock_ends": "ynnnnnnn",
    "down_fast": "ynyn--nn",
    "down_bounded": "ynnn--nn",
    "corrupt": "ynyy--nn",
    "none_kept": "ynnnynnn",
    "delete_during_fill": "ynnnnnnn",
    "nobody_waits": "yyynnynn",
    "jitter": "ynnnynnn",
}
MEANS = {"y": True, "n": False, "-": None}


@pytest.fixture(scope="module")
def measured() -> Iterator[Table]:
    logging.disable(logging.CRITICAL)  # cashews logs each command that a dead server misses
    try:
        yield comparison.table()
    except OneSentence as error:
        pytest.skip(str(error))
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("library", RIGS)
def test_a_cell_of_the_table_is_what_was_measured_when_it_was_written(
    measured: Table, behaviour: str, library: str
) -> None:
    right = expected(behaviour, library)
    found = measured.cells[behaviour][library]
    if found != right:  # the machine may have been busy: once more, this library alone
        found = again(library).cells[behaviour][library]
    assert found == right, measured.why.get((behaviour, library))


def expected(behaviour: str, library: str) -> bool | None:
    return MEANS[EXPECTED[behaviour][list(RIGS).index(library)]]


@functools.cache
def again(library: str) -> Table:
    return comparison.table([library])


def test_the_table_names_every_library_with_its_version(measured: Table) -> None:
    assert all(name in str(measured) for name in RIGS)
    assert all(f">{name}</th>" in measured._repr_html_() for name in RIGS)
    packages = {rig.package for rig in RIGS.values() if rig.package}
    assert all(package in comparison.versions() for package in packages)


def test_only_ours_has_no_gap() -> None:
    whole = [name for name in RIGS if all(expected(key, name) for key in BEHAVIOURS)]
    assert whole == ["ours"]
