"""The comparison with the HTTP-cache suite's baseline: no difference passes unseen."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SUITE = Path(__file__).parent / "http_cache"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The runner, with files of its own to write."""
    spec = importlib.util.spec_from_file_location("http_cache_run", SUITE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(module, "NAIVE", tmp_path / "naive.json")
    return module


def seen(**outcomes: str) -> dict[str, dict[str, Any]]:
    return {
        test: {"set": "s", "kind": "required", "name": test, "outcome": outcome, "why": "because"}
        for test, outcome in outcomes.items()
    }


def sites(**guarded: str) -> dict[str, dict[str, dict[str, Any]]]:
    return {"guarded": seen(**guarded), "naive": seen(**{**guarded, "auth": "fail"})}


def test_what_differs_in_either_way_or_is_new_or_gone_is_named(run: ModuleType) -> None:
    run.accepted("1.31", sites(auth="pass", age="fail", vary="pass"))
    assert run.compare("1.31", seen(auth="pass", age="fail", vary="pass")) == []
    assert run.compare("1.31", seen(auth="fail", age="pass", fresh="pass")) == [
        "age: was fail, now pass (because)",
        "auth: was pass, now fail (because)",
        "fresh: was not there, now pass (because)",
        "vary: was pass, now not there",
    ]


def test_another_version_keeps_only_in_what_it_differs(run: ModuleType) -> None:
    run.accepted("1.31", sites(auth="pass", age="fail"))
    run.accepted("1.22", sites(auth="pass", age="pass"))
    told = json.loads(run.BASELINE.read_text())
    assert told["outcomes"] == {"auth": "pass", "age": "fail"}
    assert told["except"] == {"1.22": {"age": "pass"}}
    assert run.compare("1.22", seen(auth="pass", age="pass")) == []
    assert run.compare("1.31", seen(auth="pass", age="pass")) == [
        "age: was fail, now pass (because)"
    ]
    # Accepting the rule anew leaves what is known of the others.
    run.accepted("1.31", sites(auth="pass", age="fail"))
    assert run.compare("1.22", seen(auth="pass", age="pass")) == []


def test_the_naive_sites_file_holds_what_it_does_otherwise(run: ModuleType) -> None:
    run.accepted("1.31", sites(auth="pass", age="fail"))
    assert json.loads(run.NAIVE.read_text()) == {
        "auth": {
            "name": "auth",
            "kind": "required",
            "naive": "fail",
            "guarded": "pass",
            "why": "because",
        }
    }


def test_the_stored_baseline_has_no_leak_and_keeps_to_the_window() -> None:
    outcomes = json.loads((SUITE / "baseline.json").read_text())["outcomes"]
    for test in ("other-authorization", "swr-in-window", "swr-past-window", "vary-no-match"):
        assert outcomes[test] == "pass", test
    naive = json.loads((SUITE / "naive.json").read_text())
    assert naive["other-authorization"]["naive"] == "fail"
