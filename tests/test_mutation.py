"""What `make mutation` says when it cannot begin; tests/mutation/test_run.py has the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "mutation" / "run.py"


def test_without_cosmic_ray_one_sentence_says_what_to_install():
    code = f"import runpy, sys; sys.modules['cosmic_ray'] = None; runpy.run_path({str(RUN)!r})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 1
    assert said.stdout == ""
    assert said.stderr.count("\n") == 1
    assert "pip install cosmic-ray" in said.stderr
