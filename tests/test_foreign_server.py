"""The whole workbook on a server that belongs to somebody else, whose keys stay as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cachelab.cache import server as servers
from cachelab.lab import Lab
from cachelab.patterns import cache_aside

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
KEYS = 10_000


@pytest.fixture(scope="module")
def stranger() -> Iterator[servers.OurServer]:
    """A server on a port, with 10,000 keys that are not ours."""
    one = servers.start(servers.from_wheel(), where="a stranger's", tcp=True)
    with one.client().pipeline(transaction=False) as pipe:
        for n in range(0, KEYS, 4):
            pipe.set(f"user:v1:{n}", f"somebody else's {n}")
            pipe.set(f"stock:v1:{n}", n, ex=86_400)
            pipe.hset(f"cart:{n}", mapping={"lamp": n, "desk": 1})
            pipe.rpush(f"jobs:{n}", "a", "b", n)
        pipe.execute()
    yield one
    one.close()


@pytest.fixture
def url(stranger: servers.OurServer) -> str:
    port, password = stranger.address["port"], stranger.address["password"]
    return f"redis://:{password}@127.0.0.1:{port}/0"


def everything(stranger: servers.OurServer) -> dict[str, tuple[bytes, int]]:
    """Every key with what it holds, byte for byte, and the moment at which it expires."""
    client = stranger.client(decode_responses=False)
    keys = sorted(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.dump(key)
            pipe.execute_command("PEXPIRETIME", key)
        answers = pipe.execute()
    return dict(zip(keys, zip(answers[::2], answers[1::2], strict=True), strict=True))


def test_a_lab_is_used_to_the_full_and_the_others_keys_stay_byte_for_byte(
    stranger: servers.OurServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(stranger)
    assert len(before) == KEYS
    monkeypatch.setenv("CACHELAB_REDIS_URL", url)
    lab = Lab()
    try:
        for _ in range(2):
            cache_aside.read(lab.cache, "user:v1:0", lambda: lab.db.user(1), 300)
        assert lab.keys() == ["user:v1:0"]
        assert lab.trace.hits == 1
        lab.fast_forward(301)
        assert lab.keys() == []
        cache_aside.read(lab.cache, "user:v1:0", lambda: lab.db.user(1), 300)
        lab.kill_cache()
        with pytest.raises(redis.ConnectionError, match="unplugged from"):
            lab.cache.get("user:v1:0")
        assert stranger.client().ping()
        lab.restart_cache()
        assert lab.cache.get("user:v1:0") is None
        lab.cache.set("left over", 1)
        lab.clear()
        with pytest.raises(RuntimeError, match="FLUSHALL"):
            lab.cache.flushall()
        lab.kill_cache()
    finally:
        lab.close()
    assert everything(stranger) == before


# What they send differs most: killing, streams, scripts, scans. All chapters would take minutes.
CHAPTERS = {"05"} if not os.environ.get("CACHELAB_MORE_CHAPTERS") else {"00", "07", "09", "15"}


@pytest.mark.timeout(900)
def test_the_chapters_run_on_a_strangers_server_and_leave_it_as_it_was(
    stranger: servers.OurServer, url: str
) -> None:
    before = everything(stranger)
    strict = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "60"]
    plugins = ["-p", "tools.nbval_live", "-p", "no:cacheprovider"]
    sanitized = ["--nbval-sanitize-with", "tests/nbval_sanitize.cfg"]
    two_at_a_time = ["-p", "no:randomly", "-n", "3", "--dist", "loadscope"]
    # The solutions judge on worlds of their own; what reaches the server is in the notebooks.
    names = [
        one for one in sorted((ROOT / "notebooks").glob("*.ipynb")) if one.name[:2] in CHAPTERS
    ]
    books = [str(path.relative_to(ROOT)) for path in names]
    command = ["-m", "pytest", "-q", *plugins, *strict, *sanitized, *two_at_a_time, *books]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CACHELAB_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**kept, "CACHELAB_REDIS_URL": url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert everything(stranger) == before
