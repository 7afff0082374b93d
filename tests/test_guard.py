"""What a Guard promises: its folder and its processes are gone when its process has ended."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import is_alive, within

from cachelab.process import guard as guards
from cachelab.process.guard import Guard, GuardError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no supervisor")

SOURCES = str(Path(guards.__file__).parents[1])
GONE_SECONDS = 2.0
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

OWNER = """
import json, os, sys, time
from cachelab.process.guard import Guard
guard = Guard()
pid = guard.spawn([sys.executable, "-c", "import time; time.sleep(600)"])
told = {"folder": str(guard.folder), "pid": pid, "supervisor": guard.supervisor.pid}
"""
TELL = "print(json.dumps(told), flush=True)\n"


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard() as made:
        yield made


def owner(code: str, **options: object) -> tuple[subprocess.Popen[str], dict[str, object]]:
    """A process that holds a guard, and what it told of itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER + code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCES},
        **options,  # type: ignore[call-overload]
    )
    STARTED.append(process)
    return process, json.loads(process.stdout.readline())


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        finish(STARTED.pop())


def is_gone(told: dict[str, object]) -> bool:
    return not (
        is_alive(told["pid"]) or is_alive(told["supervisor"]) or Path(str(told["folder"])).exists()
    )


def finish(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    process.stdout.close()


def test_its_folder_is_private_and_gone_after_close() -> None:
    guard = Guard()
    assert stat.S_IMODE(guard.folder.stat().st_mode) == 0o700
    locked = guard.folder / "locked"
    locked.mkdir()
    (locked / "file").touch()
    locked.chmod(0)
    guard.close()
    guard.close()
    assert not guard.folder.exists()
    with pytest.raises(GuardError, match="closed"):
        guard.spawn(SLEEP)


def test_a_child_runs_in_the_folder_with_the_environment_it_was_given(guard: Guard) -> None:
    code = "import os; print(os.getcwd(), sorted(os.environ)); raise SystemExit(3)"
    pid = guard.spawn(
        [sys.executable, "-I", "-S", "-c", code], env={"ONLY": "x", "LC_CTYPE": "C"}, log="told.log"
    )
    assert within(20, lambda: guard.returncode(pid) is not None)
    assert guard.returncode(pid) == 3
    said = (guard.folder / "told.log").read_text()
    assert said.strip() == f"{guard.folder.resolve()} ['LC_CTYPE', 'ONLY']"


def test_a_program_that_is_not_there_is_one_sentence(guard: Guard) -> None:
    with pytest.raises(GuardError) as caught:
        guard.spawn(["/nowhere/valkey-server"])
    assert str(caught.value) == (
        "/nowhere/valkey-server could not be started: No such file or directory."
    )


def test_a_killed_child_is_reaped_and_takes_its_whole_session_along(guard: Guard) -> None:
    code = (
        "import os, time\n"
        "child = os.fork()\n"
        "if not child:\n    os.setpgid(0, 0)\n    time.sleep(600)\n"
        "print(child, flush=True)\ntime.sleep(600)"
    )
    pid = guard.spawn([sys.executable, "-c", code])
    log = guard.folder / "child.log"
    assert within(20, lambda: log.read_text().endswith("\n"))
    grandchild = int(log.read_text())
    guard.kill(pid)
    assert not psutil.pid_exists(pid)
    assert guard.returncode(pid) == -signal.SIGKILL
    if sys.platform.startswith("linux"):
        assert within(GONE_SECONDS, lambda: not is_alive(grandchild))
    with pytest.raises(GuardError):
        guard.signal(pid, signal.SIGTERM)


def test_a_stopped_child_can_be_killed(guard: Guard) -> None:
    pid = guard.spawn(SLEEP)
    guard.signal(pid, signal.SIGSTOP)
    guard.kill(pid)
    assert not psutil.pid_exists(pid)


ENDS = {
    "kill -9": "time.sleep(600)",
    "os._exit": "os._exit(0)",
    "normal end": "",
    "an exception": "raise SystemExit('enough')",
    "abort": "os.abort()",
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_two_seconds_after_its_process_has_ended(end: str) -> None:
    process, told = owner(TELL + ENDS[end], stderr=subprocess.DEVNULL)
    if end == "kill -9":
        assert is_alive(told["pid"])
        assert Path(str(told["folder"])).exists()
        process.kill()
    process.wait(20)
    assert within(GONE_SECONDS, lambda: is_gone(told)), told
    finish(process)


def test_a_forked_child_that_lives_on_does_not_keep_the_guard_alive() -> None:
    code = "told['fork'] = os.fork()\nif told['fork']:\n    " + TELL + "time.sleep(600)"
    process, told = owner(code)
    try:
        process.kill()
        process.wait()
        assert within(GONE_SECONDS, lambda: is_gone(told)), told
        assert is_alive(told["fork"])
    finally:
        os.kill(int(str(told["fork"])), signal.SIGKILL)
        finish(process)


def test_a_forked_child_cannot_close_or_use_its_parents_guard() -> None:
    code = (
        """
fork = os.fork()
if not fork:
    try:
        guard.spawn(["true"])
    except RuntimeError as error:
        said = str(error)
    guard.close()
    os.write(1, (said + "\\n").encode())
    sys.exit(0)  # runs what atexit has, as multiprocessing's children may
os.waitpid(fork, 0)
told["running"] = guard.returncode(pid) is None and guard.folder.exists()
"""
        + TELL
        + "time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER + code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCES},
    )
    STARTED.append(process)
    assert "belongs to its parent" in process.stdout.readline()
    told = json.loads(process.stdout.readline())
    assert told["running"]
    assert is_alive(told["pid"])
    finish(process)
    assert within(GONE_SECONDS, lambda: is_gone(told))


def test_an_interrupt_of_the_whole_process_group_spares_the_children() -> None:
    code = "import signal; signal.signal(signal.SIGINT, lambda *_: print('hit', flush=True))\n"
    process, told = owner(code + TELL + "time.sleep(600)", start_new_session=True)
    assert {os.getsid(int(str(told[each]))) for each in ("pid", "supervisor")} == {
        told["pid"],
        told["supervisor"],
    }
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "hit\n"
    time.sleep(0.3)
    assert is_alive(told["pid"])
    assert is_alive(told["supervisor"])
    finish(process)
    assert within(GONE_SECONDS, lambda: is_gone(told))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs PR_SET_PDEATHSIG")
def test_children_die_with_a_killed_supervisor_and_the_next_guard_sweeps_its_folder() -> None:
    guard = Guard()
    pid = guard.spawn(SLEEP)
    guard.supervisor.kill()
    assert within(GONE_SECONDS, lambda: not is_alive(pid))
    with pytest.raises(GuardError, match=r"supervisor process is gone"):
        guard.spawn(SLEEP)
    os.utime(guard.folder / guards.LOCK_NAME, (1, 1))
    Guard().close()
    assert not guard.folder.exists()
    guard.close()


def test_a_terminated_supervisor_tidies_up_first() -> None:
    guard = Guard()
    pid = guard.spawn(SLEEP)
    guard.supervisor.terminate()
    assert within(GONE_SECONDS, lambda: not is_alive(pid) and not guard.folder.exists())
    guard.close()


def test_the_sweep_takes_only_dead_folders_of_ours(tmp_path: Path) -> None:
    def folder(name: str, age: float, lock: bool = True) -> Path:
        made = tmp_path / name
        made.mkdir()
        if lock:
            (made / guards.LOCK_NAME).touch()
            os.utime(made / guards.LOCK_NAME, (time.time() - age,) * 2)
        os.utime(made, (time.time() - age,) * 2)
        return made

    dead = folder("cachelab-1-deaddead", 100)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    unlocked = folder(f"cachelab-{gone.pid}-unlocked", 100, lock=False)
    folder(f"cachelab-{os.getpid()}-unlocked", 100, lock=False)
    folder("cachelab-1-newnewne", 0)
    folder(f"cachelab-{gone.pid}-newnewne", 0, lock=False)
    folder("cachelab-build-abcdefgh", 100)
    folder("cachelab-7-abcdefgh-backup", 100)
    folder("somebody-else", 100)
    (tmp_path / "cachelab-1-filefile").touch()
    (tmp_path / "cachelab-1-linklink").symlink_to(tmp_path / "somebody-else")
    held = folder("cachelab-1-heldheld", 100)
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX);"
            "print('held', flush=True); time.sleep(600)",
            str(held / guards.LOCK_NAME),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    STARTED.append(holder)
    holder.stdout.readline()
    left = {each.name for each in tmp_path.iterdir()} - {dead.name, unlocked.name}
    assert set(guards.sweep(tmp_path)) == {dead, unlocked}
    assert {each.name for each in tmp_path.iterdir()} == left
    finish(holder)


def test_two_guards_do_not_touch_each_other(guard: Guard) -> None:
    pid = guard.spawn(SLEEP)
    with Guard() as other:
        assert other.folder != guard.folder
        with pytest.raises(GuardError):
            other.signal(pid, signal.SIGKILL)
        other.kill(pid)
    assert is_alive(pid)
    assert guard.folder.exists()


def test_many_threads_share_a_guard(guard: Guard) -> None:
    wrong: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(5):
                pid = guard.spawn(SLEEP)
                assert guard.returncode(pid) is None
                guard.kill(pid)
                assert guard.returncode(pid) == -signal.SIGKILL
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_cleanup_command_runs_after_kill_9_with_its_secret_in_the_environment(
    tmp_path: Path,
) -> None:
    written, dropped = tmp_path / "written", tmp_path / "dropped"
    code = f"""
write = "import os, sys; open(sys.argv[1], 'w').write(os.environ['SECRET'])"
guard.on_exit([sys.executable, "-c", write, {str(written)!r}], env={{"SECRET": "s3cret"}})
number = guard.on_exit([sys.executable, "-c", write, {str(dropped)!r}], env={{"SECRET": "x"}})
guard.off_exit(number)
"""
    process, told = owner(code + TELL + "time.sleep(600)")
    lines = psutil.Process(int(str(told["supervisor"]))).cmdline()
    assert not any("s3cret" in part for part in lines)
    assert not written.exists()
    process.kill()
    process.wait()
    assert within(20, lambda: written.exists() and written.read_text() == "s3cret")
    assert within(20, lambda: is_gone(told))
    assert not dropped.exists()
    finish(process)


def test_a_temp_folder_too_long_for_a_socket_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards.tempfile, "gettempdir", lambda: "/tmp/" + "long" * 30)
    with Guard() as guard:
        assert guard.folder.parent == Path("/tmp")
