"""Several real servers on this machine, a primary with replicas or a cluster, to break on purpose.

Each is a process of ours on 127.0.0.1 with a password, and dies with this process. There is one
group at a time: starting another ends the one before, so there are never more than six of them.
"""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from cachelab.cache import server as servers
from cachelab.cache.server import OurServer, ServerError, ServerUnfit
from cachelab.process.guard import Guard, GuardError

SLOTS = 16_384
MOST = 6  # server processes of a group; with the Lab's own that makes seven
NODE_TIMEOUT = 3.0  # s of silence after which a cluster takes a node for dead
FORMING_TIMEOUT = 1.0  # nodes gossip about twice in this time, so they get to know all sooner
READY_SECONDS = 40.0
LETTERS = "ABCDEF"

# A lesson's data is small: what a server sets aside for a replica is small too.
SMALL = {
    "repl_backlog_size": "1mb",
    "repl_diskless_sync": "yes",
    "repl_diskless_sync_delay": "0",
    # An older Redis lists a replica only when it has been sent something.
    "repl_ping_replica_period": "1",
}
CLUSTERED = {
    "cluster_enabled": "yes",
    "cluster_config_file": "nodes.conf",
    # A cache may lose a third of its keys and serve the others.
    "cluster_require_full_coverage": "no",
    "cluster_allow_replica_migration": "no",
    # Here a replica is held back on purpose, and is to be elected all the same.
    "cluster_replica_validity_factor": "0",
}


@dataclass
class Node:
    """One server of a group: `name` ("A", "A2"), `client` (redis-py, text, no retries)."""

    name: str
    server: OurServer = field(repr=False)
    client: redis.Redis = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.server.address["port"])

    @property
    def is_running(self) -> bool:
        """Whether its process lives; a paused one does."""
        try:
            return self.server.is_running()
        except GuardError:
            return False  # the group was closed

    @property
    def role(self) -> str:
        """ "primary" or "replica", in the node's own eyes."""
        return "primary" if self.client.role()[0] in ("master", "primary") else "replica"

    def wire(self, command: str) -> str:
        """The first line of the reply as it comes over the wire, "-MOVED 5474 127.0.0.1:7001"."""
        with socket.create_connection(("127.0.0.1", self.port), 2.0) as line:
            line.sendall(f"AUTH {self.server.address['password']}\r\n{command}\r\n".encode())
            with line.makefile(encoding="utf-8", newline="\r\n") as replies:
                replies.readline()
                return replies.readline().rstrip()

    def calls(self, command: str) -> int:
        """How often the node has answered this command since it was started."""
        counted = self.client.info("commandstats").get(f"cmdstat_{command.lower()}", {})
        return int(counted.get("calls", 0))

    def offset(self) -> int:
        """Bytes of the stream of writes: sent by a primary, applied by a replica."""
        told = self.client.info("replication")
        return int(told.get("slave_repl_offset", told["master_repl_offset"]))


@dataclass
class Nodes:
    """Some servers that belong together; `with` or `close` ends them, and so does the kernel."""

    nodes: list[Node]
    password: str = field(repr=False)
    guard: Guard = field(repr=False)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"There is no node {name!r}; there are {', '.join(n.name for n in self)}.")

    def kill(self, node: Node) -> None:
        """End a node at once, as a power cut would (SIGKILL)."""
        node.server.kill()

    def pause(self, node: Node) -> None:
        """Freeze a node (SIGSTOP): it keeps its connections and answers nothing."""
        node.server.pause()

    def resume(self, node: Node) -> None:
        """Let a frozen node go on; it does not know that time has passed."""
        node.server.resume()

    def hold(self, replica: Node, seconds: float = 600.0) -> None:
        """Let a replica apply nothing more: it goes on answering reads, from what it has.

        CLIENT PAUSE with WRITE holds back every write, that of the primary's stream too.
        """
        replica.client.client_pause(round(seconds * 1000), all=False)

    def release(self, replica: Node) -> None:
        """Let a replica that was held go on.

        It applies what waits; but if its primary is dead, it first has to notice that, and then
        what it had not applied is lost.
        """
        at = replica.client.info("replication").get("master_port")
        if at is not None and not self._at(at).is_running:
            what = f"{replica.name} has not noticed that its primary is gone"
            _until(lambda: not _is_linked(replica), READY_SECONDS, what)
        replica.client.client_unpause()

    def memory(self) -> float:
        """MB of memory that the running nodes hold together, as the servers count it."""
        used = (int(node.client.info("memory")["used_memory_rss"]) for node in self._running())
        return sum(used) / 1e6

    @contextlib.contextmanager
    def served(self, command: str) -> Iterator[Counter[str]]:
        """How often each node answers this command inside, by its name; known when it ends."""
        count: Counter[str] = Counter()
        before = {node.name: node.calls(command) for node in self._running()}
        yield count
        for node in self._running():
            count[node.name] = node.calls(command) - before[node.name]

    def close(self) -> None:
        """End every node; safe to call twice."""
        for node in self.nodes:
            node.client.close()
        self.guard.close()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{len(self.nodes)} nodes of {self.nodes[0].server.name}"

    def _running(self) -> list[Node]:
        return [node for node in self.nodes if node.is_running]

    def _at(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == int(port))


@dataclass(repr=False)
class Replicated(Nodes):
    """A primary that takes the writes, and replicas that follow it."""

    primary: Node
    replicas: list[Node]

    def lag(self, replica: Node) -> int:
        """Bytes of writes that the primary has done and the replica has not; both must answer."""
        return self.primary.offset() - replica.offset()

    def settle(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every running replica has applied all; ServerError if one does not."""
        for replica in self.replicas:
            if replica.is_running:
                what = f"{replica.name} is still behind"
                _until(lambda one=replica: self.lag(one) <= 0, seconds, what)  # type: ignore[misc]

    def promote(self, replica: Node) -> None:
        """Make a replica the primary, and let the running others follow it.

        The old primary is not asked: if it lives, it takes itself for the primary still.
        """
        replica.client.replicaof("NO", "ONE")
        self.primary, self.replicas = replica, [one for one in self.replicas if one is not replica]
        for other in self.replicas:
            if other.is_running:
                self.follow(other)

    def follow(self, node: Node) -> None:
        """Make a node a replica of the primary: it drops what it has and copies what that has."""
        node.client.replicaof("127.0.0.1", str(self.primary.port))
        if node not in self.replicas:
            self.replicas.append(node)
        _wait_until_fed(self.primary, node)

    def __enter__(self) -> Replicated:
        return self


@dataclass(repr=False)
class Cluster(Nodes):
    """Primaries that share the slots, each with its replicas; `client` is redis-py's own."""

    client: RedisCluster

    def open(self, **options: Any) -> RedisCluster:
        """Another cluster client; `options` as in redis-py's RedisCluster.

        Without retries, so that every error is seen, and with 5 s for an answer.
        """
        return _open([node for node in self.nodes if node.is_running], self.password, **options)

    def slot(self, key: str) -> int:
        """The slot of a key, 0 to 16,383."""
        return int(key_slot(key.encode()))

    def ranges(self) -> dict[str, list[tuple[int, int]]]:
        """The slots of each primary, as (first, last), by its name; as the running nodes see it."""
        seen: dict[str, list[tuple[int, int]]] = {}
        for first, last, (_, port, *_), *_ in self._slots():
            seen.setdefault(self._at(port).name, []).append((first, last))
        return dict(sorted(seen.items()))

    def owner(self, key: str) -> Node:
        """The node that has the key's slot, dead or alive."""
        slot = self.slot(key)
        for first, last, (_, port, *_), *_ in self._slots():
            if first <= slot <= last:
                return self._at(port)
        raise ServerError(f"Slot {slot} has no owner: its node is gone and nobody took over.")

    @property
    def primaries(self) -> list[Node]:
        """The nodes that own slots now."""
        return [self[name] for name in self.ranges()]

    def wait_for_takeover(self, replica: Node, seconds: float = READY_SECONDS) -> None:
        """Wait until every running node takes this replica for the owner of its primary's slots."""

        def done() -> bool:
            views = [_owners(node) for node in self._running()]
            return all(replica.port in view for view in views) and replica.role == "primary"

        _until(done, seconds, f"{replica.name} has not taken over")

    def close(self) -> None:
        """End every node; safe to call twice."""
        with contextlib.suppress(redis.RedisError):
            self.client.close()
        super().close()

    def __enter__(self) -> Cluster:
        return self

    def _slots(self) -> list[Any]:
        for node in self._running():
            with contextlib.suppress(redis.RedisError):
                slots: list[Any] = _raw(node.client, "CLUSTER SLOTS")
                return slots
        raise ServerError("No node of the cluster answers: start it again with nodes.cluster().")


# Starting them --------------------------------------------------------------------------------


def replicated(replicas: int = 2) -> Replicated:
    """A primary and its replicas, all in step; ends the group before.

    Raises ServerError, one sentence, where no real server can be had.
    """
    if not 1 <= replicas < MOST:
        raise ServerError(f"One to {MOST - 1} replicas can be started here, not {replicas}.")
    names = ["primary", *(f"replica {number}" for number in range(1, replicas + 1))]
    with _starting() as (guard, password):
        nodes = [_node(name, guard, password, SMALL) for name in names]
        group = Replicated(nodes, password, guard, nodes[0], [])
        for node in nodes[1:]:
            group.follow(node)
        _remember(group)
        return group


def cluster(
    primaries: int = 3, replicas: int = 0, *, node_timeout: float = NODE_TIMEOUT
) -> Cluster:
    """A cluster of primaries A, B, C and, with `replicas`, of A2, B2, C2; ends the group before.

    `node_timeout`: seconds of silence after which the others take a node for dead. Raises
    ServerError, one sentence, where no real server can be had.
    """
    if primaries < 3 or replicas not in (0, 1) or primaries * (1 + replicas) > MOST:
        raise ServerError(
            f"A cluster here has 3 to {MOST} primaries and 0 or 1 replica of each, {MOST} nodes at"
            f" most; asked were {primaries} and {replicas}."
        )
    names = [letter + copy for copy in ("", "2")[: 1 + replicas] for letter in LETTERS[:primaries]]
    forming = min(FORMING_TIMEOUT, node_timeout)
    settings = {**SMALL, **CLUSTERED, "cluster_node_timeout": _ms(forming)}
    with _starting() as (guard, password):
        nodes = [_node(name, guard, password, settings) for name in names]
        _introduce(nodes)
        _share_slots(nodes[:primaries])
        for replica, primary in zip(nodes[primaries:], nodes, strict=False):
            replica.client.execute_command("CLUSTER REPLICATE", _id(primary))
        for node in nodes:
            _until(
                lambda node=node: _agrees(node, len(nodes), primaries),  # type: ignore[misc]
                READY_SECONDS,
                f"{node.name} does not see the whole cluster",
            )
        for replica, primary in zip(nodes[primaries:], nodes, strict=False):
            _wait_until_fed(primary, replica)
        for node in nodes:
            node.client.config_set("cluster-node-timeout", _ms(node_timeout))
        group = Cluster(nodes, password, guard, _open(nodes, password, retry=Retry(NoBackoff(), 3)))
        _remember(group)
        return group


_group: Nodes | None = None


def _remember(group: Nodes) -> None:
    global _group
    _group = group


@contextlib.contextmanager
def _starting() -> Iterator[tuple[Guard, str]]:
    """A fresh guard and password, after the group before is gone; all is ended on an error."""
    global _group
    if _group is not None:
        _group.close()
        _group = None
    guard = Guard()
    try:
        yield guard, secrets.token_urlsafe(24)
    except BaseException:
        guard.close()
        raise


def _node(name: str, guard: Guard, password: str, settings: Mapping[str, str]) -> Node:
    binary, where = _binary(os.environ)
    try:
        server = servers.start(
            binary,
            where=where,
            guard=guard,
            tcp=True,
            password=password,
            masterauth=password,
            **settings,
        )
    except ServerUnfit as why:
        raise ServerError(str(why)) from None
    return Node(name, server, server.client(max_connections=8))


def _binary(environ: Mapping[str, str]) -> tuple[Path, str]:
    """The server that a Lab would start here, and whose it is; ServerError where there is none."""
    backend, asked = environ.get("CACHELAB_BACKEND", ""), environ.get("CACHELAB_SERVER", "")
    reasons = []
    if backend.strip().lower() == "fake":
        reasons.append("CACHELAB_BACKEND is fake")
    else:
        for where, look in servers.places(environ).items():
            if asked.strip().lower() in ("", where):
                try:
                    return look(), servers.WHERE[where]
                except ServerUnfit as why:
                    reasons.append(str(why).rstrip("."))
    raise ServerError(
        f"Several nodes need a real server, and none can be had ({'; '.join(reasons)}):"
        f" {servers.GET_ONE}, or read on and leave the cells out that use it."
    )


def _introduce(nodes: list[Node]) -> None:
    """Each node gets an epoch of its own, and meets each other."""
    for number, node in enumerate(nodes, 1):
        node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number)
    for number, node in enumerate(nodes):
        for other in nodes[number + 1 :]:
            node.client.execute_command("CLUSTER MEET", "127.0.0.1", other.port)
    for node in nodes:
        _until(
            lambda node=node: _known(node) == len(nodes),  # type: ignore[misc]
            READY_SECONDS,
            f"{node.name} has not met all",
        )


def _share_slots(primaries: list[Node]) -> None:
    """Equal ranges, in order."""
    many = len(primaries)
    for number, node in enumerate(primaries):
        first, last = SLOTS * number // many, SLOTS * (number + 1) // many - 1
        node.client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)


def _open(nodes: list[Node], password: str, **options: Any) -> RedisCluster:
    settings: dict[str, Any] = {
        "startup_nodes": [ClusterNode("127.0.0.1", node.port) for node in nodes],
        "password": password,
        "decode_responses": True,
        "require_full_coverage": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": 5.0,
        "socket_connect_timeout": 0.5,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        **options,
    }
    return RedisCluster(**settings)


# Asking them ----------------------------------------------------------------------------------


def _until(done: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if done():
                return
        if time.monotonic() > deadline:
            raise ServerError(f"After {seconds:g} s {otherwise}: run this again.")
        time.sleep(0.02)


def _raw(client: redis.Redis, command: str) -> Any:
    """The reply as the server gave it, before redis-py makes something else of it."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*command.split())
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))


def _id(node: Node) -> str:
    return str(_raw(node.client, "CLUSTER MYID"))


def _known(node: Node) -> int:
    """How many nodes this one knows and is linked to, itself included."""
    lines = str(_raw(node.client, "CLUSTER NODES")).splitlines()
    return sum("handshake" not in line and " connected" in line for line in lines)


def _owners(node: Node) -> list[int]:
    """The ports of the slots' owners, as this node sees it."""
    return [int(slots[2][1]) for slots in _raw(node.client, "CLUSTER SLOTS")]


def _agrees(node: Node, nodes: int, primaries: int) -> bool:
    """Whether this node sees every node in its place, and all slots served."""
    told = str(_raw(node.client, "CLUSTER INFO"))
    slots = _raw(node.client, "CLUSTER SLOTS")
    return (
        "cluster_state:ok" in told
        and len(slots) == primaries
        and sum(len(each) - 2 for each in slots) == nodes
    )


def _wait_until_fed(primary: Node, replica: Node) -> None:
    """Wait until the replica has its first copy and has acknowledged what was sent after that."""
    mark = 0  # of the first look: on a busy machine it is always a little behind the newest

    def done() -> bool:
        nonlocal mark
        with contextlib.closing(primary.client.client()) as line:
            line.publish("cachelab", "who listens?")  # goes to the replicas as a write does
            line.wait(MOST, 20)  # has them answer now, not at the next second
        told = primary.client.info("replication")
        mark = mark or told["master_repl_offset"]
        fed = (told.get(f"slave{number}", {}) for number in range(MOST))
        offset = max((one["offset"] for one in fed if one.get("port") == replica.port), default=0)
        return _is_linked(replica) and offset >= mark > 0

    _until(done, READY_SECONDS, f"{replica.name} has not joined")


def _is_linked(replica: Node) -> bool:
    return replica.client.info("replication").get("master_link_status") == "up"
