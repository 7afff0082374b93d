"""What chapter 04 says of the public HTTP-cache suite is what the suite's run has stored."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The rows of the chapter's table, in order, and the tests of the suite that each stands for.
ROWS = [
    {"other-authorization"},
    {"cc-resp-must-revalidate-stale"},
    {"swr-must-revalidate", "swr-proxy-revalidate", "swr-s-maxage"},
    {"swr-in-window"},
    {f"other-authorization-{word}" for word in ("public", "smaxage", "must-revalidate")},
    {"other-cookie"},
]


def test_the_chapters_table_tells_every_difference_between_the_naive_and_the_guarded_site():
    text = (ROOT / "content" / "notebooks" / "04_cdn_edge.py").read_text(encoding="utf-8")
    told = re.findall(r"^# \| (required|optimal): .*\| (\w+) \| (\w+) \|$", text, re.MULTILINE)
    stored = json.loads((ROOT / "tests" / "http_cache" / "naive.json").read_text(encoding="utf-8"))
    verb = {"pass": "passes", "fail": "fails"}
    expected = {
        name: (each["kind"], verb[each["naive"]], verb[each["guarded"]])
        for name, each in stored.items()
    }
    assert len(told) == len(ROWS)
    shown = {name: row for names, row in zip(ROWS, told, strict=True) for name in names}
    assert shown == expected
