"""Faults of a learner's machine, done to the real thing: each row of docs/faults.md is seen.

`CACHELAB_WRITE_FAULTS=1 make test-units ARGS=tests/test_faults.py` writes what was seen there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from full_disk import saved
from processes import within

from cachelab import origin as shop
from cachelab.cache import server as servers
from cachelab.cache.ours import free_address
from cachelab.command import CommandError, cli, jupyter
from cachelab.lab import Lab
from cachelab.patterns import cache_aside
from cachelab.patterns.production import ProductionCache
from cachelab.submission import notebook as judging
from tools import build as builder

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "faults.md"
STEM = "05_cache_aside"
LAB = f"labs/{STEM}.ipynb"

# Every row of the table, in its order; a test below sees each.
FAULTS = (
    "kill -9 of the cache server",
    "kill -9 of a server of your own (CACHELAB_REDIS_URL)",
    "The cache server stops (SIGSTOP)",
    "The cache takes 200 ms to answer",
    "The cache comes back with other data",
    "Another program holds the database",
    "The kept copy of the shop is damaged",
    "The disk is full: starting a lab",
    "The disk is full: a write to the database",
    "The disk is full: saving a notebook",
    "The disk is full: cachelab check",
    "The disk is full: cachelab reset",
    "The disk is full: make notebooks",
    "The disk is full: the name for the class board",
    "The folder may not be written: saving a notebook",
    "The folder may not be written: cachelab reset",
    "The folder may not be written: cachelab doctor",
    "The folder may not be written: make notebooks",
    "The port for JupyterLab is taken",
    "A port for a cache server is taken",
    "The clock of the machine jumps an hour",
    "Two kernels on one notebook",
    "A lab file is cut off in the middle",
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no server on Windows")


# The table -----------------------------------------------------------------------------------


def rows() -> dict[str, tuple[str, str]]:
    """The table as it stands: fault -> what is seen, what is kept."""
    found = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", TABLE.read_text("utf-8"), re.MULTILINE)
    return {fault: (sees, kept) for fault, sees, kept in found[1:] if set(fault) != {"-"}}


def seen(fault: str, sees: str, kept: str) -> None:
    """Hold one row of the table to what a test saw; paths of this machine are left out."""
    assert "Traceback" not in sees
    sees = re.sub(r"(?<![\w.])(?:/[\w.,+-]+)*/([\w.-]+)", r".../\1", sees)
    sees = " ".join(sees.split()).replace("|", "\\|")
    assert fault in FAULTS
    if os.environ.get("CACHELAB_WRITE_FAULTS") == "1":
        write(fault, sees, kept)
    assert rows()[fault] == (sees, kept)


def write(fault: str, sees: str, kept: str) -> None:
    table = {**rows(), fault: (sees, kept)}
    above = TABLE.read_text("utf-8").partition("| fault |")[0]
    lines = ["| fault | what the learner sees | what is kept |", "|---|---|---|"]
    lines += [
        f"| {name} | {table[name][0]} | {table[name][1]} |" for name in FAULTS if name in table
    ]
    TABLE.write_text(above + "\n".join(lines) + "\n", "utf-8")


def test_the_table_has_each_fault_once_and_in_order() -> None:
    assert list(rows()) == list(FAULTS)


def shown(error: BaseException) -> str:
    """The end of what JupyterLab shows of an error: its name, its words, what to do."""
    words = f"{type(error).__name__}: {error}".rstrip(".")
    words = re.sub(r"server-\w{6}", "server", re.sub(r"Error \d+ conn", "Error 111 conn", words))
    return ". ".join([words, *getattr(error, "__notes__", ())])


# The cache -----------------------------------------------------------------------------------


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("CACHELAB_BACKEND", "live")
    one = Lab()
    yield one
    one.close()


def process_of(lab: Lab) -> int:
    assert isinstance(lab.server, servers.OurServer)
    return lab.server.pid


def read(lab: Lab, cache: Any = None) -> Any:
    return cache_aside.read(cache or lab.cache, "user:v1:1", lambda: lab.db.user(1), 300)


def test_a_killed_server_is_told_with_what_to_do_and_the_database_is_as_it_was(lab: Lab) -> None:
    lab.db.update_user(1, email="new@example.org")
    read(lab)
    pid, before = process_of(lab), len(lab.trace)
    os.kill(pid, signal.SIGKILL)
    assert within(10, lambda: not lab.server.is_running())  # type: ignore[attr-defined]
    with pytest.raises(redis.ConnectionError) as error:
        lab.cache.get("user:v1:1")
    with pytest.raises(redis.ConnectionError) as again, lab.cache.pipeline() as pipeline:
        pipeline.get("a").execute()
    assert "lab.restart_cache()" in shown(again.value)
    assert read(lab)["email"] == "new@example.org"  # a dead cache is a miss
    assert len(lab.trace) > before
    lab.restart_cache()
    read(lab)
    with lab.record() as run:
        assert read(lab)["email"] == "new@example.org"
    assert run.hits == 1
    seen(
        "kill -9 of the cache server",
        shown(error.value),
        "The database, the trace and all that was written in the notebook; the cache is lost.",
    )


def test_a_server_of_the_learners_own_that_dies_is_told_with_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with contextlib.closing(servers.start(servers.from_wheel(), where="", tcp=True)) as server:
        port = server.address["port"]
        monkeypatch.delenv("CACHELAB_BACKEND", raising=False)
        monkeypatch.setenv(
            "CACHELAB_REDIS_URL", f"redis://:{server.address['password']}@127.0.0.1:{port}"
        )
        with contextlib.closing(Lab()) as lab:
            lab.kill_cache()  # pulls the plug on our side only
            with pytest.raises(redis.ConnectionError) as unplugged:
                lab.cache.get("user:v1:1")
            assert "lab.restart_cache() puts it in again" in shown(unplugged.value)
            lab.restart_cache()
            read(lab)
            os.kill(server.pid, signal.SIGKILL)
            assert within(10, lambda: not server.is_running())
            with pytest.raises(redis.ConnectionError) as error:
                lab.cache.get("user:v1:1")
            assert read(lab) == lab.db.user(1)
    said = shown(error.value)
    assert server.address["password"] not in said
    seen(
        "kill -9 of a server of your own (CACHELAB_REDIS_URL)",
        said.replace(str(port), "6379"),
        "The database, the trace and all that was written in the notebook.",
    )


def test_a_stopped_server_is_told_with_what_to_do_and_goes_on_where_it_was(lab: Lab) -> None:
    hasty = lab.client(socket_timeout=0.1)
    read(lab)
    os.kill(process_of(lab), signal.SIGSTOP)
    with pytest.raises(redis.TimeoutError) as error:
        hasty.get("user:v1:1")
    assert read(lab, hasty)["id"] == 1  # from the database
    lab.resume_cache()
    with lab.record() as run:
        read(lab)
    assert run.hits == 1
    os.kill(process_of(lab), signal.SIGSTOP)
    lab.restart_cache()
    assert lab.keys() == []
    seen(
        "The cache server stops (SIGSTOP)",
        shown(error.value),
        "The database and what is in the cache, if it is resumed.",
    )


class Slow(threading.Thread):
    """A wire to a server of ours on which every answer takes so many seconds."""

    def __init__(self, there: dict[str, Any], seconds: float) -> None:
        super().__init__(daemon=True)
        self.there, self.seconds = (there["host"], there["port"]), seconds
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                far = socket.create_connection(self.there)
                for one, other, wait in ((near, far, 0.0), (far, near, self.seconds)):
                    threading.Thread(target=carry, args=(one, other, wait), daemon=True).start()


def carry(one: socket.socket, other: socket.socket, wait: float) -> None:
    with contextlib.suppress(OSError):
        while got := one.recv(65_536):
            time.sleep(wait)
            other.sendall(got)
        other.shutdown(socket.SHUT_WR)


def test_a_slow_cache_is_found_by_the_doctor_and_gives_right_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = servers.start(servers.from_wheel(), where="", tcp=True)
    wire = Slow(dict(server.address), 0.2)
    wire.start()
    server.address["port"] = wire.port
    monkeypatch.setattr(servers, "find", lambda **_: server)
    with contextlib.closing(Lab()) as lab, wire.listening:
        assert read(lab) == read(lab) == lab.db.user(1)
        assert (lab.trace.hits, lab.trace.misses, lab.trace.errors) == (1, 1, 0)
        # 0.2 s for each of three commands, on whatever machine.
        assert sum(e.took for e in lab.trace.of("hit", "miss", "fill")) >= 0.6
        (finding,) = cli._server()  # ends the server: a doctor leaves none behind
    assert finding.ok
    said = re.sub(r"^.*?; it takes [\d.]+ s", "it takes 0.2 s", finding.found)
    seen(
        "The cache takes 200 ms to answer",
        f"No error; cachelab doctor says of the cache server: {said}.",
        "Everything; every answer is right.",
    )


def test_a_cache_that_comes_back_with_other_data_is_not_believed(lab: Lab) -> None:
    kept = ProductionCache(lab.client(), "user")
    assert kept.get("1", lambda: lab.db.user(1), 300) == lab.db.user(1)
    plain = lab.server.client()
    before = plain.info("server")["run_id"]
    (name,) = plain.keys("user:*")
    os.kill(process_of(lab), signal.SIGKILL)
    lab.restart_cache()
    assert plain.info("server")["run_id"] != before
    for other in ("somebody else's", '{"id": 7}', "[1, 2, 3, 4]", b"\xff\xfe"):
        plain.set(name, other)
        assert kept.get("1", lambda: lab.db.user(1), 300) == lab.db.user(1)
    assert kept.metrics["corrupt"] >= 4
    assert kept.get("1", dict, 300) == lab.db.user(1)  # filled again
    seen(
        "The cache comes back with other data",
        "No error: the production cache counts each copy that is not its own"
        " (metrics['corrupt']) and asks the database.",
        "Everything in the database; every answer is right.",
    )


# The database --------------------------------------------------------------------------------

HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_locked_database_is_told_with_what_to_do_and_the_write_is_not_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CACHELAB_BACKEND", "fake")
    with contextlib.closing(Lab()) as lab:
        hasten(lab)
        command = [sys.executable, "-c", HOLD, str(lab.db.engine.url.database)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            assert lab.db.user(1)  # reads go on
            with pytest.raises(sa.exc.OperationalError) as error:
                lab.db.update_user(1, email="new@example.org")
            other.communicate()
        assert lab.db.user(1)["version"] == 1  # type: ignore[index]
        lab.db.update_user(1, email="new@example.org")
        assert lab.db.user(1)["version"] == 2  # type: ignore[index]
    said = error.value
    seen(
        "Another program holds the database",
        f"{type(said).__name__}: {said.args[0]} ... {said.__notes__[0]}",
        "All that was committed; reads go on meanwhile.",
    )


def hasten(lab: Lab) -> None:
    """Wait a tenth of a second for another writer, where a learner's lab waits ten."""

    @sa.event.listens_for(lab.db.engine, "checkout")
    def soon(connection: sqlite3.Connection, *_: Any) -> None:
        connection.execute("PRAGMA busy_timeout=100")


@pytest.mark.parametrize("damage", ["cut off", "empty", "something else"])
def test_a_damaged_copy_of_the_shop_is_made_anew(tmp_path: Path, damage: str) -> None:
    home, folder = tmp_path / "home", tmp_path / "lab"
    folder.mkdir()
    whole = shop.copy_of_shop(folder, home, shop.SMALL).read_bytes()
    (kept,) = home.iterdir()
    left = {"cut off": whole[: len(whole) // 2], "empty": b"", "something else": b"x" * 9_000}
    kept.write_bytes(left[damage])
    again = shop.copy_of_shop(folder, home, shop.SMALL)
    with contextlib.closing(sqlite3.connect(again)) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (20,)
    assert [file.name for file in home.iterdir()] == [kept.name]
    assert len(kept.read_bytes()) == len(whole)
    seen(
        "The kept copy of the shop is damaged",
        "Nothing: the shop is seeded anew, in about a second.",
        "Everything; the shop is the same on every machine.",
    )


# The disk ------------------------------------------------------------------------------------


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder with a short name: a lab turns away from one that is too long for a socket's."""
    with tempfile.TemporaryDirectory(prefix="full-") as folder:
        (place := Path(folder) / "disk").mkdir()
        yield place


def test_a_full_disk_is_told_and_what_was_there_is_whole(disk: Path) -> None:
    # A small disk of its own where one may be mounted, else a limit on the length of files.
    script = [sys.executable, str(Path(__file__).with_name("full_disk.py"))]
    mount = 'mount -t tmpfs -o size=30m none "$0" && exec "$@"'
    ways = {
        "tmpfs": ["unshare", "-rm", "sh", "-c", mount, str(disk), *script, "tmpfs", str(disk)],
        "limit": [*script, "limit", str(disk)],
    }
    if (
        shutil.which("unshare") is None
        or subprocess.run([*ways["tmpfs"][:6], "true"], capture_output=True, check=False).returncode
    ):
        del ways["tmpfs"]
    way, command = next(iter(ways.items()))
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told) == 7
    for what, (said, kept) in told.items():
        for words in OTHER_WORDS if way == "limit" else ():
            said = said.replace(*words)
        seen(f"The disk is full: {what}", said, kept)


# What a file that may not grow is called where no small disk may be mounted.
OTHER_WORDS = (
    ("disk I/O error", "database or disk is full"),
    ("refuses to write", "is full"),
    ("[Errno 27]", "[Errno 28]"),
    ("File too large", "No space left on device"),
)


# Permission ----------------------------------------------------------------------------------


@contextlib.contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Nothing in `root` may be written inside, whoever we are."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in root.rglob("*.*"):
        path.chmod(0o444)
    for folder in folders:
        folder.chmod(0o555)
    if am_root := os.geteuid() == 0:
        os.seteuid(65_534)  # permissions mean nothing to root
    try:
        yield
    finally:
        if am_root:
            os.seteuid(0)
        for folder in folders:
            folder.chmod(0o755)


def test_a_folder_that_may_not_be_written_is_told_and_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    with tempfile.TemporaryDirectory(prefix="cachelab workbook ") as folder:
        root = Path(folder)
        for part in (f"content/labs/{STEM}.py", LAB):
            (root / part).parent.mkdir(parents=True)
            shutil.copy(ROOT / part, root / part)
        (root / "tools").mkdir()
        monkeypatch.setattr(cli, "project_root", lambda: root)
        work = (root / LAB).read_bytes() + b" "
        (root / LAB).write_bytes(work)
        before = sorted(root.rglob("*"))
        with read_only(root):
            told["saving a notebook"] = saved(root, LAB)
            assert cli.main(["reset", STEM]) == 2
            told["cachelab reset"] = capsys.readouterr().err
            finding = next(iter(cli._folders()))
            assert not finding.ok
            told["cachelab doctor"] = f"PROBLEM workbook: {finding.found}; {finding.advice}."
            assert builder.main(["--root", str(root), STEM]) == 1
            (told["make notebooks"],) = capsys.readouterr().err.splitlines()
        assert (root / LAB).read_bytes() == work
        assert sorted(root.rglob("*")) == before
    for what, said in told.items():
        said = re.sub(r"cachelab workbook \w+", "workbook", said)
        seen(f"The folder may not be written: {what}", said, "The lab, as it was.")


# Ports ---------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
        yield port


def test_a_taken_port_of_jupyterlab_is_told_with_what_to_do(taken: int) -> None:
    with pytest.raises(CommandError) as refused:
        jupyter.refuse_taken_port("127.0.0.1", taken)
    seen(
        "The port for JupyterLab is taken",
        str(refused.value).replace(str(taken), "8888"),
        "Everything: nothing was started.",
    )


def test_a_taken_port_of_a_server_is_left_to_its_owner(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses, theirs = free_address, [taken]

    def unlucky(path: Path, tcp: bool) -> Any:
        listen, address = addresses(path, tcp)
        if theirs:
            listen["port"] = str(theirs[0])
            address["port"] = theirs.pop()
        return listen, address

    monkeypatch.setattr("cachelab.cache.ours.free_address", unlucky)
    with contextlib.closing(servers.start(servers.from_wheel(), where="", tcp=True)) as server:
        assert server.address["port"] != taken
        assert server.client().ping()
    seen(
        "A port for a cache server is taken",
        "Nothing: the server is started on another port.",
        "Everything; the other program keeps its port.",
    )


# The clock -----------------------------------------------------------------------------------


def test_a_clock_that_jumps_moves_no_count_and_no_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHELAB_BACKEND", "fake")
    real = time.time
    for hours in (1, -1):
        with contextlib.closing(Lab()) as lab:
            kept = ProductionCache(lab.client(), "shop")
            read(lab)
            kept.get("1", lambda: lab.db.user(1), 300)
            lab.someone_else.update_user(1, email="new@example.org")
            at = lab.trace.clock()
            monkeypatch.setattr(time, "time", lambda by=3_600 * hours: real() + by)
            # A TTL is a moment of the server's clock: an hour ahead all is over, and asked anew.
            # An hour back it may be served for an hour more.
            stale = hours == -1
            assert (read(lab)["email"] == "alice@example.org") == stale
            found = kept.get("1", lambda: lab.db.user(1), 300)
            assert (found["email"] == "alice@example.org") == stale
            lab.fast_forward(300)
            assert lab.trace.clock() - at < 360
            assert all(e.age is None or e.age < 60 for e in lab.trace)
            assert lab.trace.elapsed < 60
            monkeypatch.setattr(time, "time", real)
    seen(
        "The clock of the machine jumps an hour",
        "No error: the trace, ages and staleness go by a clock that nobody can set. A TTL is a"
        " moment of the server's clock: after a jump ahead the copies are over and read anew, after"
        " a jump back a copy may be served for as much longer.",
        "Everything; verdicts and the stage have a clock of their own.",
    )


def test_a_clock_that_was_set_back_overwrites_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 1, 1)

    lab = tmp_path / "05_cache_aside.ipynb"
    for module, keep in ((builder, builder._keep_edited_lab), (cli, cli._keep)):
        monkeypatch.setattr(module, "datetime", Stopped)
        for work in ("one", "two", "three"):
            lab.write_text(f"{work}, {module.__name__}")
            keep(lab)
    kept = {file.read_text() for file in tmp_path.glob("*.backup-*")}
    assert kept == {
        f"{n}, {m}"
        for n in ("one", "two", "three")
        for m in ("tools.build", "cachelab.command.cli")
    }


# Two at once ---------------------------------------------------------------------------------

KERNEL = """
import sys, cachelab
lab = cachelab.start()
lab.cache.set("whose", sys.argv[1])
lab.db.update_user(1, email=sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(lab.cache.get("whose"), lab.db.user(1)["email"], lab.keys())
"""


def test_two_kernels_on_one_notebook_do_not_meet(tmp_path: Path) -> None:
    env = {**os.environ, "CACHELAB_HOME": str(tmp_path / "home"), "CACHELAB_BACKEND": "live"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", KERNEL, name],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second")
    ]
    said = []
    for one in both:
        assert one.stdout is not None
        said.append([one.stdout.readline().strip(), one.stdout.readline().strip()])
    assert [line[1] for line in said] == ["ready", "ready"]
    for one, name in zip(both, ("first", "second"), strict=True):
        assert one.communicate("\n", timeout=60)[0] == f"{name} {name} ['whose']\n"
        assert one.returncode == 0
    assert len(list((tmp_path / "home").iterdir())) == 1  # seeded by both, kept once
    assert said[0] == said[1]
    started = re.sub(
        r"(Valkey|Redis) [\d.]+ \(our own, from [\w ]+\)",
        "Valkey 9.1 (our own, from the wheel)",
        re.sub(r"SQLite [\d.]+", "SQLite 3", said[0][0]),
    )
    seen(
        "Two kernels on one notebook",
        f"Each has a lab of its own and says so: {started}.",
        "Everything of both: each has its own cache, database and trace.",
    )


# A file --------------------------------------------------------------------------------------


def test_a_lab_that_was_cut_off_is_told_and_can_be_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "content" / "labs" / f"{STEM}.py"
    source.parent.mkdir(parents=True)
    shutil.copy(ROOT / "content" / "labs" / source.name, source)
    monkeypatch.setattr(cli, "project_root", lambda: tmp_path)
    lab = tmp_path / LAB
    assert cli.main(["reset", STEM]) == 0
    whole = lab.read_bytes()
    cut_off = whole[: whole.index(b"minutes")]
    lab.write_bytes(cut_off)
    with pytest.raises(judging.CannotJudge) as error:
        judging.read_lab(lab)
    assert cli.main(["reset", STEM]) == 0
    assert lab.read_bytes() == whole
    (kept,) = lab.parent.glob("*.backup-*")
    assert kept.read_bytes() == cut_off
    seen(
        "A lab file is cut off in the middle",
        re.sub(r"line \d+ column \d+ \(char \d+\)", "line 90", str(error.value)),
        "What is left of it: cachelab reset gives the lab back and keeps the rest as a backup.",
    )
