"""JupyterLab as a learner meets it: for this machine only, offline, quiet, gone when ended."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cachelab.command import CommandError
from cachelab.command.jupyter import refuse_strangers, refuse_taken_port, set_environment

PROJECT = Path(__file__).resolve().parents[1]


def start(root: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`cachelab lab` on a folder of the test's own, without a home folder."""
    code = (
        "import sys; from pathlib import Path; import cachelab.command.jupyter as j; "
        f"j.project_root = lambda: Path({str(root)!r}); sys.exit(j.launch(sys.argv[1:]))"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "CACHELAB"))}
    # Nothing can be made below a file: to write there fails even for root.
    homeless = {"HOME": "/dev/null/home", "PYTHONPATH": str(PROJECT / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", code, "--no-browser", *arguments],
        env=inherited | homeless | environment,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said_until_it_ended(process: subprocess.Popen[str]) -> list[str]:
    """The lines it printed; it is ended if it does not end by itself."""
    try:
        return process.communicate(timeout=60)[0].strip().splitlines()
    finally:
        process.kill()


class Running:
    """A JupyterLab that answers: its address, its token, its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        for line in process.stdout or ():
            self.said.append(line)
            if found := re.search(r"(http://127\.0\.0\.1:\d+)(/\S*)\?token=(\w+)", line):
                self.address, self.opens, self.token = found.groups()
                self.wait_until_it_listens()
                return
        raise AssertionError("".join(self.said))

    def wait_until_it_listens(self) -> None:
        """It names its address a moment before it listens there."""
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(self.address.rsplit(":")[-1]))) == 0:
                    return
            time.sleep(0.05)

    def ask(self, path: str, *, method: str = "GET", token: bool = True) -> tuple[int, str]:
        headers = {"Authorization": f"token {self.token}"} if token else {}
        body = b"" if method == "POST" else None
        request = urllib.request.Request(
            self.address + path, headers=headers, method=method, data=body
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def json(self, path: str, *, method: str = "GET") -> Any:
        status, text = self.ask(path, method=method)
        assert status < 300
        return json.loads(text)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a") / "my clone"
    for folder in (
        "notebooks",
        "labs",
        "solutions",
        "src",
        "tests",
        "tools",
        "content",
        "docs",
        ".ci",
    ):
        (root / folder).mkdir(parents=True)
    for file in (
        "README.md",
        "Makefile",
        "pyproject.toml",
        "requirements.txt",
        "LICENSE",
        "SECURITY.md",
    ):
        (root / file).touch()
    empty = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (root / "notebooks" / "00_start_here.ipynb").write_text(json.dumps(empty))
    return root


@pytest.fixture(scope="module")
def lab(clone: Path) -> Iterator[Running]:
    process = start(clone)
    try:
        yield Running(process)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_it_answers_with_the_token_and_403_without(lab: Running) -> None:
    assert lab.ask("/api/contents", token=False)[0] == 403
    assert lab.ask("/api/contents")[0] == 200


def test_it_opens_the_first_notebook(lab: Running) -> None:
    assert lab.opens == "/lab/tree/notebooks/00_start_here.ipynb"


def test_the_file_browser_shows_what_a_learner_needs(lab: Running) -> None:
    shown = {item["name"] for item in lab.json("/api/contents")["content"]}
    assert shown == {"notebooks", "labs", "solutions", "README.md"}


def test_it_asks_nobody_for_news_updates_or_extensions(lab: Running) -> None:
    page = lab.ask("/lab")[1]
    found = re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.S)
    assert found
    config = json.loads(found[1])
    assert config["news"] == {"disabled": True}
    assert config["extensionManager"]["can_install"] is False
    assert "@jupyterlab/apputils-extension:announcements" in config["disabledExtensions"]
    name = "@jupyterlab/apputils-extension:notification"
    settings = lab.json(f"/lab/api/settings/{name}")["schema"]["properties"]
    assert settings["fetchNews"]["default"] == "false"
    assert settings["checkForUpdates"]["default"] is False


def test_the_page_names_no_other_machine(lab: Running) -> None:
    page = lab.ask("/lab")[1]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert loaded
    assert [link for link in loaded if re.match(r"(https?:)?//", link)] == []


def test_everything_is_written_inside_the_project(clone: Path, lab: Running) -> None:
    kernel = lab.json("/api/kernels", method="POST")
    assert list((clone / ".cachelab/jupyter/runtime").glob(f"kernel-{kernel['id']}.json"))


def test_its_kernels_end_with_it(clone: Path) -> None:
    running = Running(start(clone))
    running.json("/api/kernels", method="POST")
    children = psutil.Process(running.process.pid).children(recursive=True)
    assert children
    running.process.send_signal(signal.SIGTERM)
    running.process.communicate(timeout=30)
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--ServerApp.token="], {}, "not started without a token"),
        (["--IdentityProvider.token="], {}, "not started without a token"),
        (["--ip", "0.0.0.0"], {}, "open to other machines at '0.0.0.0'"),
        (["--ServerApp.ip=*"], {}, "open to other machines"),
        (["--IdentityProvider.token="], {"CACHELAB_CONTAINER": "1"}, "without a token"),
    ],
)
@pytest.mark.slow
def test_what_would_let_strangers_in_is_refused_with_one_sentence(
    clone: Path, arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    process = start(clone, *arguments, **environment)
    (line,) = [s for s in said_until_it_ended(process) if "deprecated" not in s]
    assert process.returncode == 1
    assert expected in line


def test_only_a_container_may_listen_to_all_addresses() -> None:
    refuse_strangers("0.0.0.0", container=True)
    with pytest.raises(CommandError, match="other machines"):
        refuse_strangers("0.0.0.0", container=False)


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_loopback_addresses_are_fine(ip: str) -> None:
    refuse_strangers(ip, container=False)


def test_the_token_of_the_container_is_the_token_of_jupyterlab(tmp_path: Path) -> None:
    environment = {"CACHELAB_TOKEN": "secret"}
    set_environment(tmp_path, environment)
    assert environment["JUPYTER_TOKEN"] == "secret"


def test_a_taken_port_that_was_asked_for_gets_one_sentence(clone: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(clone, "--port", str(port))
        (line,) = said_until_it_ended(process)
        assert process.returncode == 1
        assert line.startswith(f"Port {port} cannot be used")
        with pytest.raises(CommandError):
            refuse_taken_port("127.0.0.1", port)


def test_a_project_that_cannot_be_written_sends_jupyter_to_a_temp_folder(tmp_path: Path) -> None:
    (tmp_path / ".cachelab").write_text("a file where a folder is needed")
    code = (
        "import sys; from pathlib import Path; "
        "from cachelab.command.jupyter import set_environment; "
        "given = {}; set_environment(Path(sys.argv[1]), given); "
        "folder = Path(given['CACHELAB_HOME']).parent; print(folder, folder.is_dir())"
    )
    told = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True)
    folder, was_there = told.split()
    assert was_there == "True"
    assert not Path(folder).is_relative_to(tmp_path)
    assert not Path(folder).exists()  # it went with the process


def test_a_question_about_the_options_is_answered(clone: Path) -> None:
    process = start(clone, "--help")
    assert "--port" in "\n".join(said_until_it_ended(process))
    assert process.returncode == 0
