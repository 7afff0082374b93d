"""What SECURITY.md claims of doors, files, secrets and stored notebooks, under the widest umask."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from processes import is_alive, within
from test_jupyter import Running

from cachelab.board import watch
from cachelab.board.posting import BoardError
from cachelab.cache import server
from cachelab.cache.server import ServerError
from cachelab.command.cli import main
from cachelab.widgets import stampede

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path for room in ("notebooks", "solutions") for path in ROOT.glob(f"{room}/*"))
NOTEBOOKS = [path for path in NOTEBOOKS if path.suffix == ".ipynb" and ".backup-" not in path.name]
PASSWORD = "hunter2-of-the-class"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no server is started on Windows")

# Everything of ours that listens or writes, in one process, as a kernel would have it.
EVERYTHING = """
import json, sys
from cachelab import edge, lab
from cachelab.cache import nodes, server

one = lab.Lab()
alone = server.start(server.from_wheel(), where="ours", tcp=True)
group = nodes.cluster(3)
try:
    shop = edge.start()
except edge.EdgeError:
    shop = None
guards = [one._guard, alone.guard, group.guard, *([shop.nginx.guard] if shop else [])]
print(json.dumps({
    "folders": [str(guard.folder) for guard in guards],
    "secrets": [alone.address["password"], group.password],
    "sites": len(shop.nginx.ports) if shop else 0,
}), flush=True)
sys.stdin.read()
"""


@dataclass
class Started:
    """A process that has started everything, what it told, and where it may write."""

    processes: list[psutil.Process]
    told: dict[str, Any]
    home: Path


def ours(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "CACHELAB"))}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), **more}


def family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    try:
        server.from_wheel()
    except server.ServerUnfit as why:
        pytest.skip(str(why))
    home = tmp_path_factory.mktemp("a") / "home"
    process = subprocess.Popen(
        [sys.executable, "-c", EVERYTHING],
        env=ours(CACHELAB_HOME=str(home), CACHELAB_SERVER="wheel"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        umask=0,
    )
    try:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        started = family(process.pid)
        yield Started(started, told, home)
    finally:
        process.kill()
        process.communicate()
    assert within(10, lambda: not any(is_alive(one.pid) for one in started))


@dataclass
class Jupyter:
    running: Running
    root: Path

    def raw(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and Location of an answer, redirects not followed, no token but in `headers`."""
        line = http.client.HTTPConnection(self.running.address.removeprefix("http://"), timeout=30)
        try:
            line.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            answer = line.getresponse()
            return answer.status, answer.getheader("Location", "")
        finally:
            line.close()


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """`cachelab lab` under the widest umask, with one kernel, on copies of two built notebooks."""
    root = tmp_path_factory.mktemp("a") / "clone"
    (root / "notebooks").mkdir(parents=True)
    for stem in ("00_start_here", "10_stampede"):
        shutil.copy(ROOT / "notebooks" / f"{stem}.ipynb", root / "notebooks")
    process = subprocess.Popen(
        [sys.executable, "-m", "cachelab", "lab", "--no-browser"],
        env=ours(CACHELAB_ROOT=str(root), HOME=str(root)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0,
    )
    try:
        running = Running(process)
        running.json("/api/kernels", method="POST")
        yield Jupyter(running, root)
    finally:
        process.terminate()
        process.communicate(timeout=30)


# Doors ---------------------------------------------------------------------------------------


def listening(processes: list[psutil.Process]) -> list[Any]:
    """The addresses at which these processes wait for somebody; one that has ended has none."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in process.net_connections("inet"):
                if each.status == psutil.CONN_LISTEN:
                    found.append(each.laddr)
    return found


def test_whatever_is_started_listens_on_the_loopback_address_only(everything: Started) -> None:
    doors = listening(everything.processes)
    # A server, three nodes of two ports each, and the edge's sites with the origin behind them.
    sites = everything.told["sites"]
    assert len(doors) == 1 + 3 * 2 + (sites and sites + 1)
    assert {door.ip for door in doors} == {"127.0.0.1"}


def test_jupyterlab_and_its_kernel_listen_on_the_loopback_address_only(jupyter: Jupyter) -> None:
    lab = jupyter.running.process.pid
    assert within(30, lambda: len(listening(family(lab))) > 1)
    assert {door.ip for door in listening(family(lab))} == {"127.0.0.1"}


@pytest.mark.parametrize("path", ["/", "/lab", "/files/README.md", "/nbconvert/html/x"])
def test_a_page_of_jupyterlab_without_the_token_is_the_login_page(
    jupyter: Jupyter, path: str
) -> None:
    status, where = jupyter.raw(path)
    while status in (301, 302) and not where.startswith("/login?"):
        status, where = jupyter.raw(where)
    assert (status, where.partition("?")[0]) == (302, "/login")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/contents"),
        ("GET", "/api/kernels"),
        ("POST", "/api/kernels"),
        ("GET", "/api/terminals"),
        ("POST", "/api/terminals"),
        ("GET", "/api/sessions"),
        ("GET", "/api/status"),
        ("PUT", "/api/contents/labs/mine.ipynb"),
        ("POST", "/api/shutdown"),
    ],
)
def test_a_request_to_jupyterlab_without_the_token_or_with_another_is_refused(
    jupyter: Jupyter, method: str, path: str
) -> None:
    other = "0" * len(jupyter.running.token)
    assert jupyter.raw(path, method)[0] == 403
    assert jupyter.raw(path, method, Authorization=f"token {other}")[0] == 403


def test_a_page_of_another_site_that_had_its_name_point_here_is_refused(jupyter: Jupyter) -> None:
    token = f"token {jupyter.running.token}"
    assert jupyter.raw("/api/contents", Authorization=token)[0] == 200
    assert jupyter.raw("/api/contents", Authorization=token, Host="evil.example")[0] == 403


# Files ---------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_to_others(folder: Path) -> list[str]:
    """What under `folder`, itself included, anybody but its owner could read or change."""
    if not mode(folder) & 0o077:
        return []  # nobody else comes past it
    inside = [path for path in folder.rglob("*") if mode(path) & 0o077]
    return [f"{mode(path):o} {path}" for path in (folder, *inside)]


def test_under_the_widest_umask_nobody_else_comes_into_our_folders(everything: Started) -> None:
    for folder in [*map(Path, everything.told["folders"]), everything.home]:
        assert folder.is_dir()
        assert open_to_others(folder) == []


def test_what_our_servers_write_is_for_their_owner_alone_even_if_the_folder_were_open(
    everything: Started,
) -> None:
    _, *of_servers = map(Path, everything.told["folders"])
    found = [path for folder in of_servers for path in folder.rglob("*")]
    assert {"nodes.conf"} <= {path.name for path in found}
    # nodes.conf is made with mode 0644 by the server's own code, less the umask.
    assert [f"{mode(path):o} {path}" for path in found if mode(path) & 0o077] == []


def test_under_the_widest_umask_nobody_else_reads_the_token_or_changes_what_a_kernel_runs(
    jupyter: Jupyter,
) -> None:
    private = jupyter.root / ".cachelab"
    token = jupyter.running.token.encode()
    holding = [path for path in private.rglob("*") if path.is_file() and token in path.read_bytes()]
    assert holding
    assert open_to_others(private) == []


def test_a_private_folder_that_was_open_is_closed_when_jupyterlab_starts(tmp_path: Path) -> None:
    from cachelab.command.jupyter import private_folder

    (tmp_path / ".cachelab").mkdir()
    (tmp_path / ".cachelab").chmod(0o777)
    assert mode(private_folder(tmp_path)) == 0o700


# Secrets -------------------------------------------------------------------------------------


def test_no_password_and_no_token_stands_in_a_command_line(
    everything: Started, jupyter: Jupyter
) -> None:
    secrets = [*everything.told["secrets"], jupyter.running.token]
    processes = [*everything.processes, *family(jupyter.running.process.pid)]
    lines = ""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            lines += " ".join(process.cmdline()) + "\n"
    assert "valkey-server" in lines
    assert [secret for secret in secrets if secret in lines] == []


def test_what_a_kernel_says_is_encrypted_on_its_way_where_it_can_be(jupyter: Jupyter) -> None:
    import zmq

    (file,) = (jupyter.root / ".cachelab/jupyter/runtime").glob("kernel-*.json")
    told = json.loads(file.read_text())
    assert mode(file) == 0o600
    assert any("curve" in name for name in told) == bool(zmq.has("curve"))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://learner:{PASSWORD}@127.0.0.1:1/0",
        f"rediss://:{PASSWORD}@127.0.0.1:1",
        f"redis://learner:{PASSWORD}@127.0.0.1:port",
        f"redis://learner:{PASSWORD}@[::1",
        f"http://learner:{PASSWORD}@127.0.0.1:1",
        f"learner:{PASSWORD}@127.0.0.1",
    ],
)
def test_a_sentence_about_a_server_or_a_board_never_holds_the_password(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHELAB_REDIS_URL", url)
    monkeypatch.setenv("CACHELAB_CLASS_URL", url)
    monkeypatch.delenv("CACHELAB_BACKEND", raising=False)
    with pytest.raises(ServerError) as refused:
        server.find()
    with pytest.raises(BoardError) as no_board:
        watch().read()
    assert main(["board"]) != 0
    printed = capsys.readouterr()
    said = [str(refused.value), str(no_board.value), printed.out, printed.err]
    assert all(PASSWORD not in one for one in said), said


def test_a_sentence_about_a_database_never_holds_the_password() -> None:
    from cachelab.origin import OriginError, open_postgresql

    with pytest.raises(OriginError) as refused:
        open_postgresql(f"postgresql+psycopg://learner:{PASSWORD}@127.0.0.1:1/shop")
    assert PASSWORD not in str(refused.value)


# Stored notebooks ----------------------------------------------------------------------------

SHOWN = {"text/plain", "text/html", "text/markdown", "image/png", "text/vnd.mermaid"}
ACTIVE = re.compile(
    r"<(?:script|iframe|object|embed|link|base|form)\b|\son\w+\s*=|javascript:", re.I
)
# The stampede explorer, which the page of the site brings to life.
SCRIPT = re.compile(r'\n<script type="module">\n(.*?)\nmountAll\(\);\n</script>', re.S)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_stored_notebook_holds_nothing_that_runs_but_our_own_explorer(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert "trusted" not in cell.metadata
        texts = [cell.source] if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert set(data) <= SHOWN
            texts += [data.get("text/html", ""), data.get("text/markdown", "")]
        for text in texts:
            scripts = SCRIPT.findall(text)
            assert all(script == stampede.module() for script in scripts)
            assert not ACTIVE.search(SCRIPT.sub("", text))


def test_the_explorer_of_a_stored_notebook_asks_no_server_for_anything() -> None:
    asks = re.compile(
        r"\b(?:fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import)\s*\(|eval"
    )
    assert not asks.search(stampede.module())
    assert set(re.findall(r"https?://[\w./]+", stampede.module())) <= {"http://www.w3.org/2000/svg"}


def test_jupyterlab_takes_no_built_notebook_for_trusted(jupyter: Jupyter) -> None:
    told = jupyter.running.json("/api/contents/notebooks/10_stampede.ipynb")["content"]["cells"]
    assert {cell["metadata"]["trusted"] for cell in told if cell["cell_type"] == "code"} == {False}
