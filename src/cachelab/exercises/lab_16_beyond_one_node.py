"""Checks and hints of lab 16: tags, a hot key, a replica read knowingly, a write that survives."""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.crc import key_slot

from cachelab.cache import server as servers
from cachelab.cache.client import Cache, TracedPipeline
from cachelab.judge.trial import Trial, new_hash_seed
from cachelab.record.trace import Trace
from cachelab.record.verdict import short

SLOTS = 16_384
THIRDS = [(0, 5_460), (5_461, 10_921), (10_922, 16_383)]


def slot_of(key: str) -> int:
    return int(key_slot(key.encode()))


def node_of(key: str, ranges: Sequence[tuple[int, int]] = THIRDS) -> int:
    slot = slot_of(key)
    return next(n for n, (first, last) in enumerate(ranges) if first <= slot <= last)


# tags ----------------------------------------------------------------------------------------

KINDS = ("profile", "cart", "orders")
AWKWARD = (
    *("", "}", "{", "{}", "}{", "a}b", "a{b", "1:2", "Ünal", "1}", "{1}"),
    *("Bob", "bob", " bob", "anonymous", "None", "_"),  # told apart all the same
)


def judge_tags(answer: Any, trial: Trial) -> str:
    """A user's keys share a slot, users do not, and no two keys are the same."""
    users = [str(number) for number in range(1, 301)]
    keys = _keys(answer, trial, users)
    again = _keys(answer, trial, ["1"])["1"]
    trial.expect(again == keys["1"], f"The keys of user '1' were {keys['1']}, and then {again}.")
    with new_hash_seed(answer):
        there = _keys(answer, trial, ["1"])["1"]
    trial.expect(
        there == keys["1"],
        f"The key of user '1' depends on hash(), which differs from process to process: nobody else"
        f" finds {keys['1'][0]!r}.",
    )
    _expect_different(trial, keys)
    _expect_together(trial, {user: keys[user] for user in users[:50]})
    slots = {slot_of(keys[user][0]) for user in users}
    trial.expect(
        len(slots) > 1,
        f"All keys of all 300 users are in slot {min(slots):,}: one node has them all, and the"
        " others have nothing to do.",
    )
    shares = Counter(node_of(key) for every in keys.values() for key in every)
    most = max(shares.values()) / sum(shares.values())
    trial.expect(
        most < 0.5 and len(slots) > 200,
        f"The 300 users are in {len(slots)} slots, and one of three nodes has {most:.0%} of all"
        " keys; about 297 slots and a third were expected.",
    )
    awkward = _keys(answer, trial, AWKWARD)
    _expect_together(trial, awkward)
    _expect_different(trial, {**keys, **awkward})
    return (
        f"300 users in {len(slots)} slots, each with all keys in one; {len(AWKWARD)} awkward ids"
        " as well."
    )


def _keys(answer: Any, trial: Trial, users: Sequence[str]) -> dict[str, list[str]]:
    given = trial.call(lambda: {user: [answer(kind, user) for kind in KINDS] for user in users})
    for user, every in given.items():
        for kind, got in zip(KINDS, every, strict=True):
            trial.expect(
                type(got) is str and got != "",
                f"key({kind!r}, {user!r}) gave {short(got)}; a key, a text, was expected.",
            )
    keys: dict[str, list[str]] = given
    return keys


def _expect_together(trial: Trial, keys: dict[str, list[str]]) -> None:
    for user, (one, *others) in keys.items():
        for other in others:
            trial.expect(
                slot_of(one) == slot_of(other),
                f"{one!r} is in slot {slot_of(one):,} and {other!r} in slot {slot_of(other):,}, and"
                f" both are keys of the user {user!r}: an MGET of them is refused with CROSSSLOT.",
            )


def _expect_different(trial: Trial, keys: dict[str, list[str]]) -> None:
    owners: dict[str, str] = {}
    for user, every in keys.items():
        for kind, key in zip(KINDS, every, strict=True):
            mine = f"the {kind} of user {user!r}"
            before = owners.setdefault(key, mine)
            trial.expect(before == mine, f"{key!r} is the key of {before} and also that of {mine}.")


# local ---------------------------------------------------------------------------------------

PODS, SECONDS, PER_SECOND, ROOM = 10, 5, 60, 100


def judge_local(answer: Any, trial: Trial) -> str:
    """A hot key costs a trip per pod and second, and nobody gets an older value than that."""
    world = trial.world()
    local: dict[Any, Any] = {}
    world.put("price:7", "1990")
    world.put("price:8", "500")
    for key, right in (("price:7", "1990"), ("price:8", "500"), ("price:7", "1990")):
        got = trial.call(answer, world.cache, key, local, 50.0)
        trial.expect(got == right, f"{key} is {right!r}, and read_hot gave {short(got)}.")
    since, kept = 50.0, "1990"
    for now, price, what in (
        (50.05, "1990", "it was read 0.05 s ago"),
        (60.0, "990", "the value kept is 10 s old"),
        (61.5, "980", "the value kept is 1.5 s old"),
        (62.4, "980", ""),
        (62.55, "970", "the value kept was read 1.05 s ago and given out since"),
        (63.4, "970", ""),
    ):
        world.put("price:7", price)
        before = _trips(world.trace)
        got = trial.call(answer, world.cache, "price:7", local, now)
        asked = _trips(world.trace) - before
        age = now - since
        trial.expect(
            asked <= 1 and not (asked and age <= 0.1) and (asked or age <= 1),
            f"At second {now:g} {what or 'there was one read'}, and read_hot asked the cluster"
            f" {asked} times.",
        )
        since, kept = (now, price) if asked else (since, kept)
        trial.expect(
            got == kept, f"At second {now:g} read_hot gave {short(got)}; expected was {kept!r}."
        )

    world, local = trial.world(), {}
    for number in range(20):
        got = trial.call(answer, world.cache, "price:9", local, number / 400)
        trial.expect(got is None, f"There is no price:9, and read_hot gave {short(got)}.")
    asked = _trips(world.trace)
    trial.expect(
        asked == 1,
        f"A key that is not there was read 20 times in 0.05 s, and the cluster was asked"
        f" {asked} times: a missing key can be hot too.",
    )
    world.put("price:9", "5")
    got = trial.call(answer, world.cache, "price:9", local, 2.0)
    trial.expect(got == "5", f"price:9 is there since, and 1.5 s later read_hot gave {short(got)}.")
    world.cache.delete("price:9")
    got = trial.call(answer, world.cache, "price:9", local, 4.0)
    trial.expect(
        got is None, f"price:9 was deleted, and 2 s after the last read read_hot gave {short(got)}."
    )
    return _under_load(answer, trial)


def _under_load(answer: Any, trial: Trial) -> str:
    world, pods = trial.world(), [dict[Any, Any]() for _ in range(PODS)]
    history: list[tuple[float, str]] = []
    seen: list[tuple[float, Any]] = []
    reads = PODS * SECONDS * PER_SECOND

    def traffic() -> None:
        for number in range(reads):
            now = number / (PODS * PER_SECOND)
            if number % 137 == 0:
                history.append((now, str(number)))
                world.put("price:7", str(number))
            got = answer(world.cache, "price:7", pods[number * 7 % PODS], now)
            seen.append((now, got))

    trial.call(traffic, seconds=4.0)
    began = [at for at, _ in history]
    ends = dict(zip((text for _, text in history), [*began[1:], SECONDS], strict=True))
    oldest = 0.0
    for now, got in seen:
        known = type(got) is str and got in ends
        trial.expect(known, f"read_hot gave {short(got)}, which never was the price.")
        oldest = max(oldest, now - ends[got])
    trial.expect(oldest <= 1.0, f"An answer had been wrong for {oldest:.2f} s; 1 s is allowed.")
    asked, most = _trips(world.trace), PODS * (SECONDS + 1)
    trial.expect(
        asked <= most,
        f"{reads:,} reads in {PODS} pods in {SECONDS} s asked the node of the hot key {asked:,}"
        f" times; one a second and pod is {most} at most.",
    )
    local: dict[Any, Any] = {}
    held: list[int] = []

    def many_keys() -> None:
        for number in range(300):
            answer(world.cache, f"price:{number}", local, 10 + number / 1_000)
            inside = (len(one) for one in local.values() if type(one) in (dict, list))
            held.append(max([len(local), *inside]))

    trial.call(many_keys)
    trial.expect(
        held[-1] <= ROOM,
        f"After 300 different keys `local` holds {held[-1]} of them; {ROOM} were allowed.",
    )
    trial.expect(
        max(held) <= ROOM,
        f"While 300 different keys were read `local` held {max(held)}; {ROOM} were allowed.",
    )
    before = _trips(world.trace)

    def one_more() -> None:
        for number in range(20):
            answer(world.cache, "price:500", local, 20 + number / 400)

    trial.call(one_more)
    asked_again = _trips(world.trace) - before
    trial.expect(
        asked_again == 1,
        f"Ten seconds after 300 different keys another one was read 20 times in 0.05 s, and the"
        f" cluster was asked {asked_again} times: what is over has to make room.",
    )
    return f"{reads:,} reads cost {asked} trips, and the oldest answer was {oldest:.2f} s late."


def _trips(trace: Trace) -> int:
    return sum(event.kind in ("hit", "miss", "command") for event in trace)


# copies --------------------------------------------------------------------------------------


KEYS = ("product:v1:7", "product:v1:8", "{user:1}:feed", "a}b", "user:1:feed", "price:v1:7")


def judge_copies(answer: Any, trial: Trial) -> str:
    """One copy on each node, the same names each time, for any key and any cut of the slots."""
    sixths = [(SLOTS * n // 6, SLOTS * (n + 1) // 6 - 1) for n in range(6)]
    uneven = [(0, 9_999), (10_000, 10_039), (10_040, 16_383)]
    cuts = (("three equal nodes", THIRDS), ("six equal nodes", sixths), ("uneven nodes", uneven))
    for said, ranges in cuts:
        seen: dict[str, str] = {}
        for key in KEYS:
            names = _copies(answer, trial, key, ranges)
            homes = Counter(node_of(name, ranges) for name in names)
            counts = [homes[number] for number in range(len(ranges))]
            trial.expect(
                counts == [1] * len(ranges),
                f"On {said} the copies of {key!r} are {short(names)}: {counts} a node; one on each"
                " was expected.",
            )
            trial.expect(
                sorted(_copies(answer, trial, key, ranges)) == sorted(names),
                f"The copies of {key!r} have other names when asked for again: the writer and the"
                " readers would not meet.",
            )
            for name in names:
                trial.expect(
                    name not in seen, f"{name!r} is a copy of {seen.get(name)!r} and of {key!r}."
                )
                seen[name] = key
    names = _copies(answer, trial, KEYS[0], THIRDS)
    with new_hash_seed(answer):
        there = _copies(answer, trial, KEYS[0], THIRDS)
    trial.expect(
        sorted(there) == sorted(names),
        f"The copies of {KEYS[0]!r} depend on hash(), which differs from process to process: a"
        f" reader elsewhere does not find {names[0]!r}.",
    )
    return "One copy on each of three, six, and three uneven nodes, under the same names each time."


def _copies(answer: Any, trial: Trial, key: str, ranges: list[tuple[int, int]]) -> list[str]:
    got = trial.call(lambda: _listed(answer(key, list(ranges))))
    trial.expect(
        type(got) is list and all(type(name) is str for name in got),
        f"copy_keys({key!r}, ...) gave {short(got)}; a list of keys was expected.",
    )
    names: list[str] = got
    return names


def _listed(given: Any) -> Any:
    kinds = (list, tuple, set, frozenset)
    return list(given) if type(given) in kinds or hasattr(given, "__next__") else given


# A primary with replicas, in this process -----------------------------------------------------

READS = frozenset(
    {"GET", "MGET", "EXISTS", "TTL", "PTTL", "TYPE", "STRLEN", "GETRANGE", "HGET", "HGETALL"}
    | {"HMGET", "SCAN", "KEYS", "PING", "DBSIZE", "TIME", "ECHO", "SMEMBERS", "LRANGE"}
)


class Stand:
    """A primary and replicas as clients of fakeredis; what is written there arrives here later.

    `lags`: one a replica, ms until it has a write; None: it is cut off. `now` (ms) moves only in
    WAIT and by `pass_by`. `down`: the numbers of dead nodes, 0 being the primary. As with a pool
    that many threads share, each command of a plain client goes over a connection of its own.
    """

    missed: Sequence[str] = ()  # it stands among a trial's worlds, and has no limits of theirs

    def __init__(self, lags: Sequence[float | None]) -> None:
        self.lags, self.now = list(lags), 0.0
        self.trace = Trace(clock=lambda: self.now / 1000, exact=True)
        self.log: list[tuple[float, tuple[Any, ...]]] = []
        self.last: dict[int, int] = {}  # connection -> number of its last write
        self.down: set[int] = set()
        self.dies_before = ""  # the primary dies when this command comes
        self.trips: Counter[int] = Counter()
        self.waits: list[str] = []  # how each WAIT was asked
        self.patience = 0.0  # ms, of the last WAIT
        self.endless = False
        pools = [servers.fake().connection_pool() for _ in range(1 + len(self.lags))]
        self.raw = [redis.Redis.from_pool(pool) for pool in pools]
        self.applied = [0] * len(pools)
        self.connections = itertools.count(1)
        self.nodes = [Copy(self, number, pool) for number, pool in enumerate(pools)]

    @property
    def primary(self) -> Copy:
        return self.nodes[0]

    @property
    def replicas(self) -> list[Copy]:
        return self.nodes[1:]

    def pass_by(self, ms: float) -> None:
        """Let time pass: what was written arrives."""
        self.now += ms

    def fast_forward(self, seconds: float) -> None:
        """As a TrialWorld of a trial."""
        self.now += 1000 * seconds

    def close(self) -> None:
        """As a TrialWorld of a trial."""
        for client in self.raw:
            client.connection_pool.disconnect()

    def peek(self, number: int, key: str) -> Any:
        """What node `number` holds."""
        self.arrive(number)
        return self.raw[number].get(key)

    def arrive(self, number: int) -> None:
        """Apply what has come to this node by now."""
        if number == 0 or self.lags[number - 1] is None:
            return
        for at, args in self.log[self.applied[number] :]:
            if at + (self.lags[number - 1] or 0.0) > self.now:
                break
            self.raw[number].execute_command(*args)
            self.applied[number] += 1

    def run(
        self, number: int, connection: int, args: tuple[Any, ...], send: Callable[[], Any]
    ) -> Any:
        """One command to one node over one connection."""
        name = str(args[0]).upper().split(" ")[0]
        self.trips[number] += 1
        if number == 0 and name == self.dies_before:
            self.down.add(0)
        if number in self.down:
            self.trace.add("error", name, "", "ConnectionError")
            raise redis.ConnectionError("Connection refused: the server is gone.")
        self.arrive(number)
        if name == "WAIT":
            had = "the connection of the write" if connection in self.last else "another connection"
            self.waits.append(had)
            self.patience = float(args[2])
            return self.wait(self.last.get(connection, 0), int(args[1]), float(args[2]))
        if number and name not in READS:
            raise redis.exceptions.ReadOnlyError("You can't write against a read only replica.")
        reply = send()
        if name not in READS:
            self.log.append((self.now, args))
            self.last[connection] = len(self.log)
        return reply

    def wait(self, written: int, replicas: int, ms: float) -> int:
        """WAIT: how many replicas have write number `written`, after `ms` at most."""
        at = self.log[written - 1][0] if written else self.now
        due = sorted(at + lag for lag in self.lags if lag is not None)
        if written == 0:
            due = [self.now] * len(self.lags)  # nothing was written here: all have it
        enough = due[replicas - 1] if 0 < replicas <= len(due) else float("inf")
        if replicas > 0:
            if ms == 0 and enough == float("inf"):
                self.endless = True
                raise redis.TimeoutError("Timeout reading from socket")
            until = enough if ms == 0 else min(enough, self.now + ms)
            self.now = max(self.now, until)
        return sum(one <= self.now for one in due)


class Copy(Cache):
    """A client of one node of a Stand."""

    def __init__(self, stand: Stand, number: int, pool: Any, connection: int = 0) -> None:
        self.stand, self.number, self.fixed = stand, number, connection
        super().__init__(connection_pool=pool, trace=stand.trace)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As in redis-py, by way of the stand."""
        connection = self.fixed or next(self.stand.connections)
        send = super().execute_command
        return self.stand.run(self.number, connection, args, lambda: send(*args, **options))

    def client(self) -> Copy:
        """The same client on one connection of its own."""
        return self._on(next(self.stand.connections))

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Pipe:
        """Commands for one connection."""
        return Pipe(self, transaction, shard_hint)

    def _on(self, connection: int) -> Copy:
        return Copy(self.stand, self.number, self.connection_pool, connection)


class Pipe(TracedPipeline):
    """A pipeline to one node of a Stand."""

    def __init__(self, copy: Copy, transaction: bool, shard_hint: Any) -> None:
        super().__init__(copy, transaction, shard_hint)
        self._in_one = bool(transaction)
        self._copy = copy._on(copy.fixed or next(copy.stand.connections))

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the queued commands; a WAIT in a transaction does not wait."""
        asked = list(self.command_stack)
        replies: list[Any] = []
        in_one = self._in_one or bool(self.explicit_transaction)
        self.reset()
        for args, options in asked:
            name = str(args[0]).upper()
            if in_one and name in {"MULTI", "EXEC"}:
                continue
            if in_one and name == "WAIT":
                self._copy.stand.waits.append("a transaction")
                replies.append(0)
                continue
            try:
                replies.append(self._copy.execute_command(*args, **options))
            except redis.ResponseError as error:
                if raise_on_error:
                    raise
                replies.append(error)
        return replies


def _stand(trial: Trial, *lags: float | None) -> Stand:
    made = Stand(lags)
    trial.worlds.append(made)  # type: ignore[arg-type]
    return made


# replica -------------------------------------------------------------------------------------

KEY = "profile:v1:1"


def _write(stand: Stand, version: int, key: str = KEY) -> None:
    stand.primary.set(key, _text(version))


def _text(version: int) -> str:
    return json.dumps({"version": version, "email": f"alice-{version}@example.org"})


def judge_replica(answer: Any, trial: Trial) -> str:
    """The replica, unless it is older than what this user wrote or saw; then the primary."""

    def expect(
        stand: Stand, session: dict[str, int], right: int | None, when: str, *, trips: str, by: int
    ) -> None:
        before = Counter(stand.trips)
        got = trial.call(answer, stand.primary, stand.nodes[by], KEY, session)
        wanted = None if right is None else json.loads(_text(right))
        trial.expect(
            got is None or type(got) is dict,
            f"{when}, and read gave {short(got)}; a row, a dict, or None was expected.",
        )
        if wanted and type(got) is dict and type(got.get("version")) is int:
            trial.expect(
                got["version"] == right,
                f"{when}, and read gave version {got['version']}; expected was version {right}.",
            )
        trial.expect(
            got == wanted,
            f"{when}, and read gave {short(got)}; expected was {short(wanted)}.",
        )
        asked = {"primary": stand.trips[0] - before[0], "replica": stand.trips[by] - before[by]}
        seen = ", ".join(f"{name} {many}" for name, many in asked.items() if many)
        trial.expect(seen == trips, f"{when}: read asked {seen or 'nobody'}; expected was {trips}.")

    stand = _stand(trial, 10.0)
    _write(stand, 4)
    stand.pass_by(20)
    expect(stand, {}, 4, "The replica has version 4", trips="replica 1", by=1)
    _write(stand, 5)
    expect(stand, {}, 4, "A visitor reads while the replica is late", trips="replica 1", by=1)
    both = "primary 1, replica 1"
    other = {"profile:v1:2": 99}
    expect(stand, other, 4, "The session has written another key", trips="replica 1", by=1)
    trial.expect(
        other.get("profile:v1:2") == 99,
        "The session had written version 99 of profile:v1:2, and a read of another key has taken"
        " that note away.",
    )
    session = {KEY: 5}
    late = "This user has just written version 5 and the replica has version 4"
    expect(stand, session, 5, late, trips=both, by=1)
    stand.pass_by(20)
    caught = "The replica has caught up with what this user wrote"
    expect(stand, session, 5, caught, trips="replica 1", by=1)
    _write(stand, 6)
    stand.pass_by(20)
    expect(stand, session, 6, "Somebody else has written version 6", trips="replica 1", by=1)

    stand, session = _stand(trial, 10.0), {KEY: 1}
    expect(stand, {}, None, "Nobody has written anything", trips="replica 1", by=1)
    _write(stand, 1)
    new = "This user has just made the profile and the replica has none"
    expect(stand, session, 1, new, trips=both, by=1)
    stand.primary.delete(KEY)
    stand.pass_by(20)
    gone = "The profile was deleted, on the replica too"
    expect(stand, session, None, gone, trips=both, by=1)

    stand, session = _stand(trial, 0.0, 1_000.0), {}
    _write(stand, 6)
    stand.pass_by(2_000)
    _write(stand, 7)
    expect(stand, session, 7, "One replica has version 7", trips="replica 1", by=1)
    back = "The same user saw version 7, and the next replica has version 6"
    expect(stand, session, 7, back, trips=both, by=2)

    stand = _stand(trial, 0.0, 1_000.0)
    _write(stand, 9)
    stand.pass_by(2_000)
    _write(stand, 10)
    ten = "This user has just written version 10 and the replica has version 9"
    expect(stand, {KEY: 10}, 10, ten, trips=both, by=2)
    session = {KEY: 8}
    wrote = "This user wrote version 8, and one replica has version 10"
    expect(stand, session, 10, wrote, trips="replica 1", by=1)
    since = "This user wrote version 8 and saw version 10 since, and the next replica has version 9"
    expect(stand, session, 10, since, trips=both, by=2)
    stand.primary.delete(KEY)
    late = "The profile this user wrote is deleted, and the replica still has an older one"
    expect(stand, {KEY: 10}, None, late, trips=both, by=2)

    stand = _stand(trial, 0.0)
    _write(stand, 3)
    stand.down.add(1)
    expect(stand, {}, 3, "The replica is down", trips=both, by=1)
    return _share_of_replicas(answer, trial)


def _share_of_replicas(answer: Any, trial: Trial) -> str:
    stand, version, session = _stand(trial, 10.0), 1, dict[str, int]()
    _write(stand, version)
    stand.pass_by(20)
    stand.trips.clear()
    for number in range(200):
        if number % 50 == 49:
            version += 1
            _write(stand, version)
            stand.trips[0] -= 1
            session[KEY] = version
        got = trial.call(answer, stand.primary, stand.nodes[1], KEY, session)
        seen = got.get("version") if isinstance(got, dict) else None
        trial.expect(
            seen == version,
            f"After its own write of version {version} the user got version {seen}.",
        )
        stand.pass_by(4)
    at_primary = stand.trips[0]
    trial.expect(
        at_primary <= 20,
        f"Of 200 reads with four writes {at_primary} went to the primary; the replica is late for"
        " three reads after each, which makes 12.",
    )
    return f"Of 200 reads {200 - at_primary} were answered by the replica, and none was too old."


# failover ------------------------------------------------------------------------------------

VALUE = '{"email": "alice@example.org"}'
PAIR = (KEY, VALUE)


def judge_failover(answer: Any, trial: Trial) -> str:
    """True means that every replica has it; anything else is remembered and said."""

    def saved(stand: Stand, again: list[Any] | None = None, replicas: int = 2) -> Any:
        given: list[Any] = [] if again is None else again
        ended = trial.attempt(answer, stand.primary, KEY, VALUE, replicas, given)
        got = ended.value
        trial.expect(
            not stand.endless and stand.now <= 150,
            "With a replica cut off, WAIT was asked with timeout 0, which has no end."
            if stand.endless
            else f"With a replica cut off, save took {stand.now:,.0f} ms; 100 ms were allowed.",
        )
        if ended.error is not None:
            trial.fail(ended.sentence("save"))
        trial.expect(
            got is True or got is False, f"save gave {short(got)}; True or False was expected."
        )
        return got

    stand, again = _stand(trial, 5.0, 8.0), list[Any]()
    got = saved(stand, again)
    held = stand.raw[0].get(KEY)
    trial.expect(
        held is None or stand.log,
        "save wrote over a connection that it made itself; use the client it was given, for"
        " instance primary.client().",
    )
    trial.expect(held is not None, f"After save there is nothing under {KEY} on the primary.")
    trial.expect(held == VALUE, f"The primary holds {short(held)}; expected was {VALUE}.")
    left = stand.raw[0].ttl(KEY)
    trial.expect(left > 0, f"The copy under {KEY} has no TTL: it would stay for ever.")
    trial.expect(295 <= left <= 300, f"The copy lives {left} s; expected was 300 s.")
    asked = ""
    if "a transaction" in stand.waits:
        asked = ", and WAIT was asked in a transaction, where it does not wait"
    elif stand.waits:
        asked = f", and WAIT was asked on {stand.waits[-1]}, for {stand.patience:g} ms at most"
    trial.expect(got, f"Both replicas had the write after 8 ms, and save gave False{asked}.")
    trial.expect(again == [], f"All went well, and `again` holds {short(again)}.")

    for lost, lags in ((2, (5.0, None)), (1, (None, 5.0))):
        stand, again = _stand(trial, *lags), list[Any]()
        got = saved(stand, again)
        if got:
            asked = f" (WAIT was asked on {stand.waits[-1]})" if stand.waits else ""
            trial.expect(
                stand.peek(lost, KEY) == VALUE,
                f"save gave True{asked}; the primary died, replica {lost} became the new one, and"
                " the write was not there.",
            )
        trial.expect(
            stand.raw[0].get(KEY) == VALUE,
            "One replica was cut off, and save took the write back: others may have read it, and"
            " the delete can get lost as well.",
        )
        _expect_remembered(trial, again, "One of two replicas did not have the write")

    stand, again = _stand(trial, None, None), [("other", "1")]
    trial.expect(
        saved(stand, again) is False, "No replica had the write, and save gave True all the same."
    )
    trial.expect(
        ("other", "1") in again, f"`again` held ('other', '1') before, and then {short(again)}."
    )
    _expect_remembered(trial, again, "No replica had the write")

    stand, again = _stand(trial, 5.0), []
    got = saved(stand, again, replicas=1)
    trial.expect(got, "There is one replica, it had the write after 5 ms, and save gave False.")

    stand, again = _stand(trial, 5.0, 5.0, None), []
    got = saved(stand, again, replicas=3)
    trial.expect(
        not got, "Of three replicas two had the write, and save gave True: the third may be next."
    )
    _expect_remembered(trial, again, "Of three replicas two had the write")

    for command, when in (("SET", "before the write"), ("WAIT", "between the write and WAIT")):
        stand, again = _stand(trial, 5.0, 5.0), []
        stand.dies_before = command
        if command == "SET":
            stand.down.add(0)
        ended = trial.attempt(answer, stand.primary, KEY, VALUE, 2, again)
        trial.expect(
            ended.error is None,
            f"The primary died {when}, and save raised {type(ended.error).__name__}; False was"
            " expected.",
        )
        trial.expect(
            ended.value is False,
            f"The primary died {when}, and save gave {short(ended.value)}; False was expected.",
        )
        _expect_remembered(trial, again, f"The primary died {when}")
    return "True only where every replica had the write; six times it was not sure, and said so."


def _expect_remembered(trial: Trial, again: list[Any], when: str) -> None:
    many = sum(isinstance(one, list | tuple) and tuple(one) == PAIR for one in again)
    trial.expect(
        many == 1,
        f"{when}, and (key, value) is in `again` {many} times: {short(again)}; once was expected.",
    )
