"""Checks and hints of lab 11: orders that break a cache, and code that no order breaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from cachelab import stage
from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.origin import Permission
from cachelab.record.trace import Trace
from cachelab.record.verdict import Verdict, short
from cachelab.stage.replay import Impossible, replay

KEY = "user:v1:1"
LEASE = f"lease:{KEY}"
OLD, NEW = "alice@example.org", "new@example.org"
MOST_STEPS = 30

# The actors of the puzzles: the same code as in the lab ---------------------------------------

FILL = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1], 'EX', 300)
return 1
"""


def reader(cache: Any, db: Any) -> Any:
    stored = cache.get(KEY)
    if stored is not None:
        return json.loads(stored)
    user = db.user(1)
    cache.set(KEY, json.dumps(user), ex=300)
    return user


def writer(cache: Any, db: Any) -> None:
    cache.delete(KEY)
    db.update_user(1, email=NEW)
    cache.delete(KEY)


def flagging_reader(cache: Any, db: Any) -> Any:
    stored = cache.get(KEY)
    if stored is not None:
        return json.loads(stored)
    leased = cache.set(LEASE, "1", nx=True, ex=10)
    user = db.user(1)
    if leased:
        cache.eval(FILL, 2, KEY, LEASE, json.dumps(user))
    return user


def flag_deleting_writer(cache: Any, db: Any) -> None:
    db.update_user(1, email=NEW)
    cache.delete(KEY, LEASE)


# twice, flag ---------------------------------------------------------------------------------


def judge_twice(answer: Any, trial: Trial) -> Verdict:
    """The order that is given leaves the old address, though two deletes are in it."""
    steps = {"reader": ("GET", "SELECT", "SET"), "writer": ("DEL", "UPDATE")}
    actors = {"reader": reader, "writer": writer}
    return _judge_order(answer, trial, actors, steps, setup=reader)


def judge_flag(answer: Any, trial: Trial) -> Verdict:
    """The order that is given leaves the old address, though a lease was asked for."""
    reads = ("GET", "SET", "SELECT", "EVAL")
    steps = {"first": reads, "second": reads, "writer": ("UPDATE", "DEL")}
    actors = {"first": flagging_reader, "second": flagging_reader, "writer": flag_deleting_writer}
    return _judge_order(answer, trial, actors, steps)


def _judge_order(
    answer: Any,
    trial: Trial,
    actors: Mapping[str, Callable[..., Any]],
    steps: Mapping[str, Sequence[str]],
    setup: Callable[..., Any] | None = None,
) -> Verdict:
    order = _steps(trial.call(answer), trial, steps)
    try:
        trace = replay(actors, order, setup=setup)
    except Impossible as why:
        if why.step > len(order):
            trial.fail(f"After {len(order)} steps {why}.", trace=why.trace)
        step = f"Step {why.step}, {order[why.step - 1]}, is not possible"
        trial.fail(f"{step}: {why}.", trace=why.trace)
    stored = trace.world.cache.get(KEY)
    if stored is None:
        trial.fail(
            "This order ends well: nothing is left in the cache, so the next reader asks the"
            " database and gets the new address.",
            trace=trace,
        )
    if json.loads(stored)["email"] != OLD:
        stored_by = [
            e.actor for e in trace if e.kind == "fill" or (e.what, e.detail) == ("EVAL", "1")
        ]
        trial.fail(
            f"This order ends well: the cache holds the new address, stored by {stored_by[-1]}.",
            trace=trace,
        )
    return Verdict(
        "passed",
        "At the end the database has the new address and the cache the old one, until its TTL of"
        " 300 s is over.",
        counterexample=Trace(clock=float, events=list(trace.events), exact=True),
        schedules=1,
    )


def _steps(given: Any, trial: Trial, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The steps as the stage writes them; ends the judging if they cannot be read."""
    example = next(f"{name} {operations[0]}" for name, operations in known.items())
    if type(given) not in (list, tuple):
        trial.fail(f'A list of steps such as "{example}" was expected; this is {short(given)}.')
    if len(given) == 0:
        trial.fail("The list is empty: not a single step is taken.")
    if len(given) > MOST_STEPS:
        trial.fail(f"There are {len(given):,} steps in the list; no order here has so many.")
    order: list[str] = []
    for number, step in enumerate(given, 1):
        words = step.split() if type(step) is str else []
        name, operation = (words[0].lower(), words[1].upper()) if len(words) == 2 else ("", "")
        if operation not in known.get(name, ()):
            may = "; ".join(f"{who}: {', '.join(does)}" for who, does in known.items())
            trial.fail(f"Step {number} is {short(step, 40)}, which is none of the steps ({may}).")
        order.append(f"{name} {operation}")
    return order


# versioned -----------------------------------------------------------------------------------


def judge_versioned(answer: Any, trial: Trial) -> str:
    """Only a newer row is stored, whoever comes first, second, or at the same moment."""
    world = trial.world()
    key = "product:v1:7"
    turns = (
        (8, "a", True, "on an empty cache"),
        (9, "b", True, "over version 8"),
        (10, "c", True, "over version 9"),
        (9, "d", False, "over version 10"),
        (10, "e", False, "over another row of version 10"),
    )
    kept: dict[str, Any] = {}
    since = 0  # seconds since the last one that was to be stored
    for version, name, stored, over in turns:
        row = {"id": 7, "name": name, "version": version}
        world.fast_forward(60)
        kept = row if stored else kept
        got = trial.call(answer, world.cache, key, dict(row))
        found = world.peek(key)
        said = f"put_if_newer of version {version} {over}"
        trial.expect(found is not None, f"After {said} there is nothing under {key}.")
        trial.expect(
            _decoded(found) == kept,
            f"After {said} the cache holds {short(found)}; expected was {json.dumps(kept)}.",
        )
        trial.expect(
            isinstance(got, int) and got == stored,
            f"{said} gave {short(got)}; expected was {stored}.",
        )
        left = world.ttl(key)
        trial.expect(left is not None, "The copy has no TTL: it would stay for ever.")
        since += 60
        if stored:
            since = 0
            trial.expect(
                299 <= (left or 0) <= 300,
                f"After {said} the copy lives {left:.0f} s; expected was 300 s.",
            )
        trial.expect(
            (left or 0) <= 300 - since,
            f"{said} stored nothing, and gave the old copy {left:.0f} s; {300 - since} s were left"
            " of its 300.",
        )

    with world.trace.acting("eviction"):
        world.cache.delete(key)
    trial.call(answer, world.cache, key, kept)
    trial.expect(
        _decoded(world.peek(key)) == kept,
        f"The copy of version 10 was deleted, and version 10 could not be stored again: {key} holds"
        f" {short(world.peek(key))}.",
    )

    def writes(email: str) -> Callable[..., Any]:
        def write(cache: Any, db: Any) -> Any:
            db.update_user(1, email=email)
            return answer(cache, KEY, db.user(1))

        return write

    def reads(cache: Any, db: Any) -> Any:
        return answer(cache, KEY, db.user(1))

    one, two = writes("one@example.org"), writes("two@example.org")
    trial.every_order({"reader": reads, "writer": one}, _newest_is_kept, limit=1_000)
    writers = {"one writer": one, "another": two}
    found = trial.every_order(writers, _newest_is_kept, limit=1_000)
    # Where an old copy is there already, nobody gets through by being the first.
    trial.every_order(writers, _newest_is_kept, limit=1_000, setup=reads)
    return f"Of two writers the newer row always stays; {_uncapital(found.summary)}"


def _newest_is_kept(world: stage.World) -> str | bool:
    kept, truth = _decoded(world.cache.get(KEY)), world.db.user(1) or {}
    if kept == truth:
        return True
    version = kept.get("version") if isinstance(kept, dict) else None
    return (
        f"of two that store at the same time the older wins: the cache holds version {version}, the"
        f" database has {truth.get('version')}."
    )


# lease ---------------------------------------------------------------------------------------


def judge_lease(answer: Any, trial: Trial) -> str:
    """Whoever fills holds the lease at that moment, and everybody gets an answer."""
    world = trial.world()
    alice = world.truth.user(1)
    during: list[tuple[Any, float | None]] = []
    world.on("query", lambda: during.append((world.peek(LEASE), world.ttl(LEASE))))

    got = trial.call(answer, world.cache, world.db, 1, "token-1")
    _expect_row(trial, got, alice, "The first read")
    asked = world.db.queries
    trial.expect(asked == 1, f"The first read asked {asked} queries; expected was 1.")
    trial.expect(
        _decoded(world.peek(KEY)) == alice,
        f"After the first read {KEY} holds {short(world.peek(KEY))}; expected was the row as JSON.",
    )
    left = world.ttl(KEY)
    trial.expect(left is not None, f"The copy under {KEY} has no TTL: it would stay for ever.")
    trial.expect(299 <= (left or 0) <= 300, f"The copy lives {left:.0f} s; expected was 300 s.")
    lease, seconds = during[0]
    if lease is None:
        ever = any(LEASE in event.on for event in world.trace)
        late = f"The lease was taken only after the query: during it nothing was under {LEASE}."
        trial.fail(late if ever else f"No lease was taken: nothing ever was under {LEASE}.")
    trial.expect(
        seconds is not None, "The lease has no TTL: a reader that dies with it blocks all fills."
    )
    trial.expect(
        0 < (seconds or 0) <= 10, f"The lease lasts {seconds:.0f} s; expected were 10 s at most."
    )
    got = trial.call(answer, world.cache, world.db, 1, "token-2")
    _expect_row(trial, got, alice, "A read with a copy in the cache")
    trial.expect(world.db.queries == 1, "A read with a copy in the cache asked the database.")

    _refill(answer, trial)
    _somebody_elses(answer, trial)
    _lease_ends_by_itself(answer, trial)

    def reads(token: str) -> Callable[..., Any]:
        return lambda cache, db: answer(cache, db, 1, token)

    def writes(cache: Any, db: Any) -> None:
        db.update_user(1, email=NEW)
        cache.delete(KEY, LEASE)

    actors = {"one reader": reads("token-1"), "another": reads("token-2"), "writer": writes}
    found = trial.every_order(actors, _nothing_old, limit=2_000, seconds=5.0)
    return f"Everybody gets a row and no old one is left; {_uncapital(found.summary)}"


def _refill(answer: Any, trial: Trial) -> None:
    world = trial.world()
    trial.call(answer, world.cache, world.db, 1, "token-1")
    with world.trace.acting("eviction"):
        world.cache.delete(KEY)
    trial.call(answer, world.cache, world.db, 1, "token-2")
    trial.expect(
        world.peek(KEY) is not None,
        "When the copy was gone again, the next reader could not fill: the lease of the first is"
        " still there.",
    )


def _somebody_elses(answer: Any, trial: Trial) -> None:
    world = trial.world()
    alice = world.truth.user(1)
    world.put(LEASE, "somebody else's token", 10)
    got = trial.call(answer, world.cache, world.db, 1, "token-1")
    _expect_row(trial, got, alice, "A read while somebody else had the lease")
    trial.expect(
        world.peek(KEY) is None, "A reader filled the cache although somebody else had the lease."
    )
    trial.expect(
        world.peek(LEASE) == "somebody else's token",
        f"Somebody else's lease became {short(world.peek(LEASE))}.",
    )
    world = trial.world()
    world.on("query", lambda: world.put(LEASE, "somebody else's token", 10))
    trial.call(answer, world.cache, world.db, 1, "token-1")
    trial.expect(
        world.peek(LEASE) == "somebody else's token",
        "During the query the lease was lost and became somebody else's, and then it became"
        f" {short(world.peek(LEASE))}: give back only your own.",
    )


def _lease_ends_by_itself(answer: Any, trial: Trial) -> None:
    """Whichever cache command a reader dies after, no lease without a TTL is left."""
    for number in range(1, 5):
        world = trial.world()
        for_ever: list[bool] = []

        def look(world: TrialWorld = world, for_ever: list[bool] = for_ever) -> None:
            for_ever.append(world.peek(LEASE) is not None and world.ttl(LEASE) is None)

        world.after_cache_command(number, look)
        trial.call(answer, world.cache, world.db, 1, "token-1")
        trial.expect(
            not any(for_ever),
            "Between two commands the lease had no TTL: a reader that dies just then blocks all"
            " fills.",
        )


def _nothing_old(world: stage.World) -> str | bool:
    truth = world.db.user(1)
    kept = _decoded(world.cache.get(KEY))
    for name, got in world.answers.items():
        if name != "writer" and (not isinstance(got, dict) or got.get("email") not in (OLD, NEW)):
            return f"{name} got {short(got)} instead of a row."
    if kept is None or kept == truth:
        return True
    return (
        "the cache holds the old row although the writer has deleted it: a reader stored it after"
        " its lease was void."
    )


# permission ----------------------------------------------------------------------------------

ALICE, BRUNO, CHEN = 1, 2, 3
RIGHTS = "permissions:v1:2"


def judge_permission(answer: Any, trial: Trial) -> None:
    """Right for everybody; never late for money; at most 10 s late for the rest."""
    world = trial.world()
    cases = (
        (BRUNO, "users:edit", True),
        (ALICE, "users:edit", False),
        (CHEN, "articles:edit", True),
        (BRUNO, "articles:edit", False),
        (BRUNO, "users", False),
        (BRUNO, "orders:refund", True),
        (CHEN, "orders:refund", False),
    )
    for turn in ("first", "second"):
        for user, permission, truth in cases:
            got = trial.call(answer, world.cache, world.db, user, permission)
            trial.expect(
                got is truth,
                f"may(cache, db, {user}, {permission!r}) gave {short(got)} at the {turn} time;"
                f" expected was {truth}.",
            )
    _is_cached(answer, trial)
    _money_is_never_late(answer, trial)
    _others_are_not_late_for_long(answer, trial)
    _without_cache_or_database(answer, trial)

    def asks(cache: Any, db: Any) -> Any:
        return answer(cache, db, BRUNO, "users:edit")

    def deletes(cache: Any, db: Any) -> None:
        cache.delete(RIGHTS)

    actors = {"one": asks, "two": asks, "HR": deletes}
    trial.every_order(actors, _no_copy_for_ever, crashes=1, limit=1_000)


def _no_copy_for_ever(world: stage.World) -> str | bool:
    if world.cache.ttl(RIGHTS) == -1:
        return "a process died half-way and left a copy without a TTL, which stays for ever."
    return True


def _is_cached(answer: Any, trial: Trial) -> None:
    for user, who in ((BRUNO, "Bruno"), (ALICE, "Alice, who may do nothing,")):
        world = trial.world()
        for _ in range(3):
            trial.call(answer, world.cache, world.db, user, "users:edit")
        asked = world.db.queries
        trial.expect(asked == 1, f"Three checks of {who} asked {asked} queries; expected was 1.")
        key = f"permissions:v1:{user}"
        found = ", ".join(world.keys()) or "nothing"
        trial.expect(key in world.keys(), f"The cache holds {found}; expected was {key}.")
        left = world.ttl(key)
        trial.expect(left is not None, f"The copy under {key} has no TTL: it stays for ever.")
        trial.expect(0 < (left or 0) <= 10, f"The copy lives {left:.0f} s; the budget is 10 s.")


def _money_is_never_late(answer: Any, trial: Trial) -> None:
    world = trial.world()
    for permission in ("users:edit", "orders:refund"):
        trial.call(answer, world.cache, world.db, BRUNO, permission)
    _revoke(world)
    late = trial.call(answer, world.cache, world.db, BRUNO, "orders:refund")
    trial.expect(
        late is False, "Bruno's right to refund was revoked, and his next refund went through."
    )
    with world.truth.engine.begin() as connection:
        connection.execute(sa.insert(Permission).values(user_id=BRUNO, name="orders:cancel"))
    allowed = trial.call(answer, world.cache, world.db, BRUNO, "orders:cancel")
    trial.expect(
        allowed is True,
        "Bruno was given orders:cancel, and a copy from before that decided against him.",
    )


def _others_are_not_late_for_long(answer: Any, trial: Trial) -> None:
    world = trial.world()

    def edits() -> Any:
        return trial.call(answer, world.cache, world.db, BRUNO, "users:edit")

    edits()
    _revoke(world)
    with world.trace.acting("someone else"):
        world.cache.delete(RIGHTS)
    trial.expect(
        edits() is False,
        "Bruno's rights were revoked and the key deleted, and still he was let through.",
    )
    world = trial.world()
    edits()
    _revoke(world)  # and the delete gets lost
    for wait in (6, 6):
        world.fast_forward(wait)
        late = edits()
    trial.expect(
        late is False,
        "Bruno's rights were revoked and the delete got lost: 12 s later he was still let through.",
    )


def _without_cache_or_database(answer: Any, trial: Trial) -> None:
    world = trial.world()
    world.cache_down()
    for permission, truth in (("users:edit", True), ("orders:refund", True), ("x:y", False)):
        ended = trial.attempt(answer, world.cache, world.db, BRUNO, permission)
        how = (
            f"raised {type(ended.error).__name__}" if ended.error else f"gave {short(ended.value)}"
        )
        trial.expect(
            ended.error is None and ended.value is truth,
            f"With a dead cache the check of {permission!r} {how}; expected was {truth}.",
        )
    world.break_database()
    for permission in ("users:edit", "orders:refund"):
        ended = trial.attempt(answer, world.cache, world.db, BRUNO, permission)
        trial.expect(
            ended.error is not None,
            f"With cache and database down the check of {permission!r} gave {short(ended.value)};"
            " nobody can know that, so the error has to be raised.",
        )


def _revoke(world: TrialWorld) -> None:
    gone = sa.delete(Permission).where(Permission.user_id == BRUNO)
    with world.truth.engine.begin() as connection:
        connection.execute(gone)


# What several of them expect -----------------------------------------------------------------


def _uncapital(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _decoded(stored: Any) -> Any:
    try:
        return json.loads(stored)
    except (TypeError, ValueError):
        return None


def _expect_row(trial: Trial, got: Any, truth: Any, who: str) -> None:
    trial.expect(
        type(got) is type(truth) and got == truth,
        f"{who} gave {short(got)} (a {type(got).__name__}); expected was {short(truth)}.",
    )
