"""Strict nbval is strict: it goes red for a changed digit, and leaves out only what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.provisioning import local_provisioner
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, RunningKernel
from nbval.plugin import get_sanitize_patterns
from processes import is_alive, within

from tools import warm_kernel
from tools.build import build, check
from tools.notebook import dumps, loads

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[1]
SANITIZE = PROJECT / "tests" / "nbval_sanitize.cfg"
STRICT = [
    *("-p", "tools.nbval_live", "-p", "no:randomly", "-p", "no:cacheprovider"),
    *("--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(SANITIZE)),
    *("--nbval-cell-timeout", "60"),
]
XDIST = ["-n", "2", "--dist", "loadscope"]
PRINTED = "cache: Valkey 9.1.2 (our own, from the wheel) | origin: SQLite 3.45.1"
ELSEWHERE = "cache: Redis 7.0.15 (yours, at localhost:6379) | origin: PostgreSQL 15.8"


def nbval(root: Path, backend: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on the built notebooks as `make test` does."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env |= {
        "CACHELAB_BACKEND": backend,
        "CACHELAB_BUILDING": "1",  # a cell of the fixture prints it
        "CACHELAB_KERNELS": "cold",  # for two small notebooks it is the cheaper start
        "PYTHONPATH": str(PROJECT),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        *STRICT,
        "--rootdir",
        ".",
        *options,
        "notebooks",
        "solutions",
    ]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=110)


def replace(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (root / name).write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nbval")
    shutil.copytree(PROJECT / "tests/fixtures/builder/content", root / "content")
    assert build(root, say=lambda line: None) == []
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "project"))


def test_live_cells_are_left_out_under_fakeredis_and_counted(root: Path) -> None:
    # Were the live cell run, its output would differ; the printed server differs, and may.
    replace(root, "notebooks/90_first.ipynb", '"killed 1 server\\n"', '"killed 2 servers\\n"')
    replace(root, "notebooks/90_first.ipynb", f'"{PRINTED}\\n"', f'"{ELSEWHERE}\\n"')
    run = nbval(root, "fake", *XDIST)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "fakeredis: 1 cells tagged live left out" in run.stdout
    assert re.search(r"10 passed", run.stdout)


def test_a_changed_digit_is_red_and_an_unexecuted_cell_only_in_the_check(root: Path) -> None:
    replace(root, "solutions/90_first.ipynb", "both: [42, 42]", "both: [42, 43]")
    notebook = loads((root / "notebooks/90_first.ipynb").read_text(encoding="utf-8"))
    notebook.cells[1].execution_count, notebook.cells[1].outputs = None, []
    (root / "notebooks/90_first.ipynb").write_text(dumps(notebook), encoding="utf-8")

    run = nbval(root, "live")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed, 10 passed" in run.stdout  # nbval lets the unexecuted cell pass
    assert "solutions/90_first.ipynb::Cell 4" in run.stdout
    assert "left out" not in run.stdout

    found = [str(problem) for problem in check(root)]
    assert any("solutions/90_first.ipynb: has outputs that were not" in each for each in found)
    assert any("notebooks/90_first.ipynb: was not run to the end" in each for each in found)


def test_cells_that_say_sqlite_are_left_out_on_postgresql_only_and_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(root, "notebooks/90_first.ipynb", '"live"', '"sqlite"')
    run = nbval(root, "live", "--collect-only", "-q")
    assert "11 tests collected" in run.stdout, run.stdout + run.stderr
    assert "left out" not in run.stdout
    monkeypatch.setenv("CACHELAB_DATABASE_URL", "postgresql://localhost/class")
    run = nbval(root, "live", "--collect-only", "-q")
    assert "10/11 tests collected (1 deselected)" in run.stdout
    assert "PostgreSQL: 1 cells tagged sqlite left out" in run.stdout


def test_live_cells_are_run_on_a_live_server(root: Path) -> None:
    replace(root, "notebooks/90_first.ipynb", '"killed 1 server\\n"', '"killed 2 servers\\n"')
    run = nbval(root, "live")
    assert "1 failed, 10 passed" in run.stdout, run.stdout + run.stderr


def test_without_an_nginx_a_chapter_behind_the_edge_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CACHELAB_EDGE", "none")
    names = [f"{room}/04_cdn_edge.ipynb" for room in ("notebooks", "solutions")]
    command = [sys.executable, "-m", "pytest", *STRICT, "--collect-only", "-q", *names]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=110)
    assert run.returncode == 5  # nothing is left to run
    assert re.search(r"no nginx: \d\d cells behind an edge left out", run.stdout)


def test_what_is_left_out_is_counted_without_xdist_too(built: Path) -> None:
    run = nbval(built, "fake", "--collect-only", "-q")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "fakeredis: 1 cells tagged live left out" in run.stdout
    assert "10/11 tests collected (1 deselected)" in run.stdout


def test_the_cells_of_a_notebook_stay_in_order_when_tests_are_shuffled(built: Path) -> None:
    env = dict(os.environ, PYTHONPATH=str(PROJECT))
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tools.nbval_live", "-p", "no:cacheprovider"),
            *("--randomly-seed", "1"),
            *("--rootdir", ".", "--nbval", "--collect-only", "-q", "notebooks", "solutions"),
        ],
        cwd=built,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    cells = re.findall(r"notebooks/90_first.ipynb::Cell (\d)", run.stdout)
    assert cells == ["0", "1", "2", "3", "4", "5"], run.stdout


def test_notebooks_that_share_a_name_are_refused_rather_than_lost(built: Path) -> None:
    run = nbval(built, "live", *XDIST, "--rootdir", str(SANITIZE.parent))
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "notebooks lies outside pytest's root folder" in run.stdout + run.stderr


LOOK = """
import json, os, signal, sys, threading
seen = {
    "path": sys.path, "argv": sys.argv[:1], "folder": os.getcwd(), "name": __name__,
    "signals": [str(signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGCHLD)],
    "leads its session": os.getsid(0) == os.getpid(), "threads": threading.active_count(),
    "backend": os.environ["MPLBACKEND"], "ours": [m for m in sys.modules if m == "cachelab"],
    "names": sorted(set(dir()) - {"seen"}), "inherited": os.path.realpath("/proc/self/fd/0")[:5],
}
with open("seen.json", "w") as file:
    json.dump(seen, file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every kernel starts by itself")
def test_a_warm_kernel_is_a_process_of_its_own_and_finds_what_a_cold_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_provisioner, "launch_kernel", local_provisioner.launch_kernel)
    seen: dict[str, dict[str, object]] = {}
    for how in ("cold", "warm"):
        monkeypatch.setenv("CACHELAB_KERNELS", how)
        warm = warm_kernel.install()
        assert (warm is None) == (how == "cold")
        kernel = RunningKernel(CURRENT_ENV_KERNEL_NAME, cwd=str(tmp_path))
        try:
            kernel.await_reply(kernel.execute_cell_input(LOOK), timeout=60)
            seen[how] = loads_json(tmp_path / "seen.json")
            if how == "warm":
                # A cell that takes too long is interrupted, and the kernel goes on.
                endless = kernel.execute_cell_input("import time; time.sleep(60)")
                time.sleep(0.5)
                kernel.interrupt()
                kernel.await_reply(endless, timeout=20)
                assert kernel.is_alive()
                pid = kernel.km.provisioner.pid
        finally:
            kernel.stop()
            if warm is not None:
                warm.close()
    assert within(5, lambda: not is_alive(pid))
    cold = seen["cold"]
    assert cold.pop("inherited") in ("pipe:", "/dev/", "/proc")
    assert seen["warm"].pop("inherited") == "/dev/"
    assert seen["warm"] == cold
    assert cold["ours"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every kernel starts by itself")
def test_warm_kernels_are_gone_when_the_run_that_started_them_is_killed() -> None:
    code = (
        "import sys; from tools import warm_kernel; from nbval.kernel import *\n"
        "warm = warm_kernel.install(); one = RunningKernel(CURRENT_ENV_KERNEL_NAME)\n"
        "print(warm._process.pid, one.km.provisioner.pid, flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "CACHELAB_KERNELS": "warm"}
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert run.stdout is not None
    pids = run.stdout.readline().split()
    assert len(pids) == 2
    assert all(is_alive(pid) for pid in pids)
    run.kill()
    run.communicate()
    assert within(20, lambda: not any(is_alive(pid) for pid in pids))


def loads_json(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_no_sanitizer_rule_is_ignored() -> None:
    text = SANITIZE.read_text(encoding="utf-8")
    written = [line for line in text.splitlines() if line.startswith("regex:")]
    assert written
    assert len(get_sanitize_patterns(text)) == len(written)
    for regex, _ in get_sanitize_patterns(text):
        re.compile(regex)


@pytest.mark.parametrize(
    "line",
    [
        PRINTED,
        ELSEWHERE,
        "cache: fakeredis 2.40 (no server was found) | origin: SQLite 3.40.0",
        "cache: Valkey 9.1.2 (our own, from PATH) | origin: PostgreSQL 15.8 at localhost",
    ],
)
def test_the_line_that_start_prints_is_the_same_on_every_machine(line: str) -> None:
    text = f"before\n{line}\nhits 3 | misses 4\n"
    for regex, new in get_sanitize_patterns(SANITIZE.read_text(encoding="utf-8")):
        text = re.sub(regex, new, text)
    assert text == "before\ncache: SERVER | origin: DATABASE\nhits 3 | misses 4\n"
