"""CACHELAB_REDIS_URL may name a cluster: the lessons run there, in one slot, and leave nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from processes import within
from test_nodes import live

from cachelab.cache import nodes
from cachelab.cache import server as servers
from cachelab.lab import Lab

ROOT = Path(__file__).resolve().parents[1]
SOURCES = str(ROOT / "src")
CHAPTERS = {"05"} if not os.environ.get("CACHELAB_MORE_CHAPTERS") else {"00", "03", "07", "09"}

pytestmark = [live, pytest.mark.slow]


@pytest.fixture(scope="module")
def groups() -> Iterator[list[nodes.Cluster]]:
    started: list[nodes.Cluster] = []
    yield started
    for group in started:
        group.close()


@pytest.fixture
def cluster(groups: list[nodes.Cluster], monkeypatch: pytest.MonkeyPatch) -> nodes.Cluster:
    """A cluster that somebody else uses too; a new one after a test that has killed a node."""
    if not groups or not all(node.is_running for node in groups[-1]):
        for name in ("CACHELAB_BACKEND", "CACHELAB_REDIS_URL"):
            monkeypatch.delenv(name, raising=False)
        groups.append(nodes.cluster(primaries=3, replicas=1))
        for number in range(100):
            groups[-1].client.set(f"user:v1:{number}", "somebody else's")
    return groups[-1]


def url_of(cluster: nodes.Cluster, name: str = "A") -> str:
    return f"redis://:{cluster.password}@127.0.0.1:{cluster[name].port}/0"


def keys_on(cluster: nodes.Cluster) -> dict[str, int]:
    return {node.name: node.client.dbsize() for node in cluster.primaries}


@pytest.fixture
def lab(cluster: nodes.Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("CACHELAB_REDIS_URL", url_of(cluster))
    monkeypatch.delenv("CACHELAB_BACKEND", raising=False)
    started = Lab()
    yield started
    started.close()


def test_a_lab_on_a_cluster_uses_commands_of_many_keys_and_leaves_no_key(
    cluster: nodes.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys_on(cluster)
    monkeypatch.setenv("CACHELAB_REDIS_URL", url_of(cluster))
    monkeypatch.delenv("CACHELAB_BACKEND", raising=False)
    lab = Lab()
    try:
        assert ", a cluster)" in repr(lab)
        cache = lab.cache
        names = [f"user:v1:{number}" for number in range(30)]
        assert cache.mset(dict.fromkeys(names, "ours"))
        assert cache.mget(names) == ["ours"] * 30
        with cache.pipeline() as pipe:
            assert pipe.set("a", 1).incr("b").get("a").execute() == [True, 1, "1"]
        assert cache.eval("return redis.call('MGET', KEYS[1], KEYS[2])", 2, "a", "b") == ["1", "1"]
        with cache.lock("lock", timeout=5):
            assert lab.keys() == sorted([*names, "a", "b", "lock"])
        assert cache.dbsize() == 32
        owner = cluster.owner(lab.server.prefix + "a")
        grown = {name: many - before[name] for name, many in keys_on(cluster).items()}
        assert grown == {name: 32 * (name == owner.name) for name in before}
        cache.set("short", 1, ex=10)
        lab.fast_forward(11)
        assert cache.get("short") is None
        with pytest.raises(RuntimeError, match="FLUSHALL"):
            cache.flushall()
        lab.kill_cache()
        with pytest.raises(redis.ConnectionError, match="unplugged from"):
            cache.get("a")
        lab.restart_cache()
        assert lab.keys() == []
        cache.set("left over", 1)
    finally:
        lab.close()
    assert keys_on(cluster) == before


def test_learners_are_spread_over_the_nodes(cluster: nodes.Cluster) -> None:
    owners = set()
    for _ in range(12):
        server = servers.foreign(url_of(cluster))
        owners.add(cluster.owner(server.prefix).name)
        server.close()
    assert len(owners) > 1


def test_what_we_wrote_on_a_cluster_goes_after_kill_9_too(cluster: nodes.Cluster) -> None:
    before = keys_on(cluster)
    elsewhere = f"while there.nodes[0]['port'] == {cluster['B'].port}:\n"
    code = (
        "import time\nfrom cachelab import server as servers\nthere = servers.find()\n"
        f"{elsewhere}    there.close()\n    there = servers.find()\n"
        "there.client().set(there.prefix + 'a', 1)\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCES, "CACHELAB_REDIS_URL": url_of(cluster, "B")},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert sum(keys_on(cluster).values()) == sum(before.values()) + 1
    process.kill()
    process.wait()
    process.stdout.close()
    assert within(20, lambda: keys_on(cluster) == before)


@pytest.mark.timeout(600)
def test_the_chapters_run_on_a_cluster(cluster: nodes.Cluster) -> None:
    before = keys_on(cluster)
    options = "-q -p tools.nbval_live -p no:cacheprovider -p no:randomly --nbval"
    options += " --nbval-current-env --nbval-cell-timeout 60"
    options += " --nbval-sanitize-with tests/nbval_sanitize.cfg"
    books = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    names = [str(book.relative_to(ROOT)) for book in books if book.name[:2] in CHAPTERS]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CACHELAB_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), *names],
        cwd=ROOT,
        env={**kept, "CACHELAB_REDIS_URL": url_of(cluster, "C")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert keys_on(cluster) == before


def test_when_the_node_with_our_slot_dies_the_lab_goes_on_at_its_replica(
    cluster: nodes.Cluster, lab: Lab
) -> None:
    owner = cluster.owner(lab.server.prefix)
    lab.cache.set("a", 1)
    line = owner.client.client()
    line.publish("cachelab", "all that was written")
    assert line.wait(1, 5_000) == 1
    cluster.kill(owner)
    with pytest.raises(redis.ConnectionError):
        lab.cache.get("a")
    cluster.wait_for_takeover(cluster[owner.name + "2"])

    def goes_on() -> bool:
        try:
            return bool(lab.cache.get("a") == "1")
        except redis.ConnectionError:
            return False

    assert within(5, goes_on)
    assert lab.keys() == ["a"]
    lab.clear()
    assert lab.keys() == []
