"""Checks and hints of lab 06: two writes, the second of which may fail, come late, or be wasted."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import redis
import sqlalchemy as sa

from cachelab import stage
from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.record.trace import Event
from cachelab.record.verdict import short

USER, PRODUCT = "user:v1:1", "product:v1:1"
NEW = "new@example.org"

# both ----------------------------------------------------------------------------------------


def judge_both(answer: Any, trial: Trial) -> None:
    """The row of the database is in the cache, whole, after the commit and not before it."""
    world = trial.world()
    _put_users(world)
    bystander = world.peek("user:v1:2")
    early = _stored_early(world, USER, "email", NEW)
    got = trial.call(answer, world.cache, world.db, 1, NEW)
    _expect_saved_email(trial, world, "change_email")
    trial.expect(
        not early,
        f"The cache held {NEW!r} before the database had committed it: if that fails, readers are"
        " served what was never true.",
    )
    _expect_row(trial, world, USER, world.truth.user(1), 300)
    truth = world.truth.user(1)
    trial.expect(
        type(got) is dict and got == truth,
        f"change_email returned {short(got)}; expected was the new row, {short(truth)}.",
    )
    trial.expect(
        world.peek("user:v1:2") == bystander and world.keys() == [USER, "user:v1:2"],
        f"After a write to user 1 the cache holds {', '.join(world.keys())}; nothing but {USER} was"
        " to change.",
    )

    world = trial.world()
    trial.call(answer, world.cache, world.db, 2, NEW)
    trial.expect(
        _decoded(world.peek("user:v1:2")) == world.truth.user(2),
        f"After a write to user 2, of whom there was no copy, user:v1:2 holds"
        f" {short(world.peek('user:v1:2'))}; expected was the row as JSON.",
    )

    world = trial.world()
    _put_users(world)
    world.truth.update_user(1, name="Alice Moreau")  # and nobody tells the cache
    trial.call(answer, world.cache, world.db, 1, NEW)
    kept, truth = _decoded(world.peek(USER)), world.truth.user(1)
    trial.expect(
        kept == truth,
        f"An old copy was in the cache before the write: now it holds {short(kept)}, and the"
        f" database {short(truth)}. What is stored has to come from the database.",
    )
    _somebody_was_faster(answer, trial)

    _refused(answer, trial, (1, NEW), USER)
    actors = {"writer": _with(answer, 1, NEW), "reader": _reads_user}
    trial.every_order(actors, _no_copy_for_ever, crashes=1, limit=1_000)


# second_write --------------------------------------------------------------------------------

WORDS = ("stored", "deleted", "stale")


def judge_second_write(answer: Any, trial: Trial) -> None:
    """Whatever the cache does after the commit: no error, and the truth about what is left."""
    world = trial.world()
    _put_product(world)
    early = _stored_early(world, PRODUCT, "price_cents", 999)
    told = _told(trial, trial.attempt(answer, world.cache, world.db, 1, 999), "a healthy cache")
    _expect_saved_price(trial, world)
    trial.expect(
        not early, "The cache held the new price before the database had committed it: 999 cents."
    )
    trial.expect(
        told == "stored", f"With a healthy cache change_price returned {told!r}, not 'stored'."
    )
    _expect_row(trial, world, PRODUCT, world.truth.product(1), 60)

    for fails, when in (
        (1, "one cache command after the commit failing"),
        (2, "two cache commands after the commit failing"),
        (None, "the cache out of reach from the commit on"),
    ):
        world = trial.world()
        _put_product(world)
        _cut_after_commit(world, fails)
        _expect_truth_told(answer, trial, world, when, one_more=fails == 1)

    world = trial.world()
    _cut_after_commit(world, 1)
    when = "one cache command after the commit failing, and no old copy there"
    _expect_truth_told(answer, trial, world, when, one_more=True)

    world = trial.world()
    _put_product(world)
    _fill_up(world)
    when = "a full cache, which refuses to store and not to delete"
    _expect_truth_told(answer, trial, world, when, one_more=True)

    world = trial.world()
    _put_product(world)
    world.after_cache_command(1, world.cache_down)
    _expect_truth_told(answer, trial, world, "the cache out of reach after the first command")

    world = trial.world()
    _put_product(world)
    world.cache_down()
    _expect_truth_told(answer, trial, world, "the cache dead from the start")

    _refused(answer, trial, (1, 999), PRODUCT)
    world = trial.world()
    world.cache_down()
    _refuse_updates(world)
    ended = trial.attempt(answer, world.cache, world.db, 1, 999)
    trial.expect(
        isinstance(ended.error, sa.exc.DBAPIError),
        "The database refused the update while the cache was dead, and change_price"
        f" {_how(ended)}; the caller has to see the database's error.",
    )


def _cut_after_commit(world: TrialWorld, fails: int | None) -> None:
    """The cache is out of reach from the commit on, for so many commands (None: for good).

    A reader comes along just before the commit: what was deleted by then is stored again.
    """
    old = world.peek(PRODUCT)
    failed = 0

    def refill() -> None:
        if old is not None and world.peek(PRODUCT) is None:
            world.put(PRODUCT, old, 60)

    def count() -> None:
        nonlocal failed
        failed += 1
        if failed == fails:
            world.cache_up()

    world.on("write", refill)
    world.on("commit", world.cache_down)
    world.on("error", count)


def _fill_up(world: TrialWorld) -> None:
    """From now on the cache has no room: a single command that stores is refused."""
    send = world.cache.execute_command

    def refuse(*args: Any, **options: Any) -> Any:
        command = str(args[0]).upper()
        if command in {"SET", "SETEX", "PSETEX", "EVAL", "EVALSHA"}:
            world.trace.add("error", command, PRODUCT, "OutOfMemoryError")
            raise redis.exceptions.OutOfMemoryError(
                "command not allowed when used memory > 'maxmemory'."
            )
        return send(*args, **options)

    world.cache.execute_command = refuse  # type: ignore[method-assign]


def _expect_truth_told(
    answer: Any, trial: Trial, world: TrialWorld, when: str, *, one_more: bool = False
) -> None:
    """No error, the new price in the database, and a word that fits what the cache holds.

    `one_more`: only one command fails, so that a second one could have made it right.
    """
    told = _told(trial, trial.attempt(answer, world.cache, world.db, 1, 999), when)
    _expect_saved_price(trial, world, when)
    kept = world.peek(PRODUCT)
    left = "deleted" if kept is None else "stale"
    if _decoded(kept) == world.truth.product(1):
        left = "stored"
    said = {"stored": "the new row", "deleted": "nothing", "stale": "the old price"}[left]
    trial.expect(
        left != "stale" or not one_more,
        f"With {when}, the old price is still in the cache: {_readers(world)}. A second command"
        " would have got through.",
    )
    trial.expect(
        told == left,
        f"With {when}, change_price returned {told!r}, but the cache holds {said}; expected was"
        f" {left!r}.",
    )
    tried = world.trace.errors
    trial.expect(
        tried <= 6, f"With {when}, the cache was tried {tried} times; two commands are enough."
    )


def _readers(world: TrialWorld) -> str:
    left = world.ttl(PRODUCT)
    return "readers get it for ever" if left is None else f"readers get it for {left:.0f} s"


def _told(trial: Trial, ended: Any, when: str) -> Any:
    trial.expect(
        ended.error is None,
        f"With {when}, change_price {_how(ended)}, though the price was changed: the caller would"
        " take it for not done.",
    )
    known = type(ended.value) is str and ended.value in WORDS
    trial.expect(
        known,
        f"With {when}, change_price returned {short(ended.value)}; expected was 'stored',"
        " 'deleted' or 'stale'.",
    )
    return ended.value


def _expect_saved_price(trial: Trial, world: TrialWorld, when: str = "a healthy cache") -> None:
    product = world.truth.product(1) or {}
    trial.expect(
        product.get("price_cents") == 999,
        f"With {when}, the database has a price of {product.get('price_cents')} after"
        " change_price; expected was 999.",
    )
    trial.expect(
        product.get("version") == 2,
        f"With {when}, the row was updated {product.get('version', 1) - 1} times; expected was 1.",
    )


# two_writers ---------------------------------------------------------------------------------


def judge_two_writers(answer: Any, trial: Trial) -> str:
    """The newest row stays, in all orders of two writers, and with a reader among them."""
    world = trial.world()
    _put_users(world)
    trial.call(answer, world.cache, world.db, 1, NEW)
    _expect_saved_email(trial, world, "save_email")
    refused = [event for event in world.trace if (event.what, event.detail) == ("EVAL", "0")]
    kept, truth = _decoded(world.peek(USER)), world.truth.user(1)
    trial.expect(
        not refused or kept == truth,
        "The script refused the new row although an older one was there: it has to be given the"
        " version of the row that it stores.",
    )
    _expect_row(trial, world, USER, truth, 300)
    _from_nine_to_ten(answer, trial)
    _somebody_was_faster(answer, trial)

    writers = {
        "one writer": _with(answer, 1, "one@example.org"),
        "another": _with(answer, 1, "two@example.org"),
    }
    trial.every_order(writers, _newest_is_kept, setup=_reads_user, limit=1_000)
    one = {"writer": writers["one writer"], "reader": _reads_user}
    trial.every_order(one, _never_uncommitted, crashes=1, limit=1_000)
    for number in (1, 2, 3):
        _one_is_slow(answer, trial, number)
    three = {**writers, "reader": _reads_user}
    # Enough for all orders of a lock, a script or a loop; with WATCH there are too many for 10 s.
    found = trial.every_order(three, _newest_is_kept, limit=200, commit_apart=False, seconds=6)
    return f"Of two writers the newer row stays, with a reader too; {_uncapital(found.summary)}"


def _from_nine_to_ten(answer: Any, trial: Trial) -> None:
    """As texts, "9" is more than "10"."""
    world = trial.world()
    for _ in range(8):
        world.truth.update_user(1, bio="Likes tea.")
    _put_users(world)
    trial.call(answer, world.cache, world.db, 1, NEW)
    kept, truth = _decoded(world.peek(USER)), world.truth.user(1)
    trial.expect(
        kept == truth,
        f"After an update from version 9 to 10 the cache holds {short(kept)}, the database"
        f" {short(truth)}: compare versions as numbers; as texts, '9' is more than '10'.",
    )


def _one_is_slow(answer: Any, trial: Trial, number: int) -> None:
    """The first writer stands still before its cache command of this number; the other passes."""
    cast = {
        "slow writer": _with(answer, 1, "one@example.org"),
        "another": (2, _with(answer, 1, "two@example.org")),
    }
    run = trial.play(cast, setup=_reads_user, faults=[stage.Pause("slow writer", number, 5)])
    well = _newest_is_kept(run.world)
    trial.expect(
        well is True,
        "One writer stood still for 5 s in front of a cache command, and another came along"
        f" meanwhile: {well}",
        trace=run,
    )


def _somebody_was_faster(answer: Any, trial: Trial) -> None:
    """What is read before the update is no longer true after it."""
    world = trial.world()
    _put_users(world)

    def overtake() -> None:
        if not world.trace.writes and world.db.queries == 1:
            world.truth.update_user(1, name="Alice Moreau")

    world.on("query", overtake)
    trial.call(answer, world.cache, world.db, 1, NEW)
    kept, truth = _decoded(world.peek(USER)), world.truth.user(1)
    trial.expect(
        kept == truth,
        f"Somebody changed the name between {trial.exercise.function}'s read and its update: the"
        f" cache holds {short(kept)}, the database {short(truth)}; what is stored has to be read"
        " after the update.",
    )


def _newest_is_kept(world: stage.World) -> str | bool:
    text, truth = world.cache.get(USER), world.db.user(1) or {}
    if world.trace.writes < 2:
        return f"of two updates {world.trace.writes} reached the database."
    if truth.get("version") != 3:
        return (
            f"after two updates of version 1 the database has version {truth.get('version')}: each"
            " has to raise it, there."
        )
    if text is None:
        return f"at the end there is nothing under {USER}, though both writers are through."
    kept = _decoded(text)
    if kept == truth:
        return True
    if not isinstance(kept, dict):
        return f"the cache holds {short(text)}, which is not a row as JSON."
    kept_version, version = kept.get("version"), truth.get("version")
    if kept_version == version:
        return (
            f"the cache says {kept.get('email')!r} and the database {truth.get('email')!r}, both as"
            f" version {version}: that version and that row were not read together."
        )
    return (
        f"the older row stays: the cache holds version {kept_version}, the database has version"
        f" {version}."
    )


def _never_uncommitted(world: stage.World) -> str | bool:
    kept, truth = _decoded(world.cache.get(USER)), world.db.user(1) or {}
    if isinstance(kept, dict) and kept.get("email") not in ("alice@example.org", truth["email"]):
        return (
            f"a writer died and its update was rolled back, but the cache says"
            f" {kept.get('email')!r}, which was never true."
        )
    return _no_copy_for_ever(world)


# worth ---------------------------------------------------------------------------------------

CASES = (
    ("no requests", "", 0, 0),
    ("one write", "wa", 0, 1),
    ("a write and a read of it", "wa ra", 1, 0),
    ("a read before the write", "ra wa", 0, 1),
    ("two reads after a write", "wa ra ra", 1, 0),
    ("two writes before a read", "wa wa ra", 1, 1),
    ("a read of another key", "wa rb", 0, 1),
    ("two keys in turns", "wa wb ra", 1, 1),
    ("two keys, both read", "wa wb rb ra", 2, 0),
    ("reads only", "ra rb ra", 0, 0),
)


def judge_worth(answer: Any, trial: Trial) -> None:
    """Each write saves one miss or none, key by key."""
    for what, written, saved, wasted in CASES:
        requests = [({"r": "read", "w": "write"}[one[0]], one[1]) for one in written.split()]
        _expect_counts(answer, trial, requests, {"saved": saved, "wasted": wasted}, what)
    draw = random.Random(6)
    for _ in range(5):
        requests = [
            (draw.choice(("read", "write", "write")), f"user:v1:{draw.randrange(9)}")
            for _ in range(200)
        ]
        _expect_counts(answer, trial, requests, _counted(requests), "200 requests of nine keys")


def _counted(requests: list[tuple[str, str]]) -> dict[str, int]:
    writes = [number for number, (what, _) in enumerate(requests) if what == "write"]
    saved = 0
    for number in writes:
        _, key = requests[number]
        following = [what for what, other in requests[number + 1 :] if other == key]
        saved += following[:1] == ["read"]
    return {"saved": saved, "wasted": len(writes) - saved}


def _expect_counts(
    answer: Any, trial: Trial, requests: list[tuple[str, str]], counts: dict[str, int], what: str
) -> None:
    given = list(requests)
    got = trial.call(answer, given)
    shown = f" ({', '.join(' '.join(one) for one in requests)})" if 0 < len(requests) < 6 else ""
    trial.expect(
        isinstance(got, dict) and got == counts,
        f"For {what}{shown} worth gave {short(got)}; expected was {counts}.",
    )
    trial.expect(given == requests, f"For {what}{shown} worth changed the list that it was given.")


# What several of them use --------------------------------------------------------------------


def _with(function: Any, *args: Any) -> Callable[[Any, Any], Any]:
    """An actor of the stage that calls `function(cache, db, *args)`; its answer is never None."""

    def act(cache: Any, db: Any) -> Any:
        function(cache, db, *args)
        return "done"

    return act


def _reads_user(cache: Any, db: Any) -> Any:
    """Cache-aside for user 1 that fills only an empty key."""
    stored = cache.get(USER)
    if stored is None:
        stored = json.dumps(db.user(1))
        cache.set(USER, stored, ex=300, nx=True)
    return stored


def _put_users(world: TrialWorld) -> None:
    for user_id in (1, 2):
        world.put(f"user:v1:{user_id}", json.dumps(world.truth.user(user_id)), 200)


def _put_product(world: TrialWorld) -> None:
    world.put(PRODUCT, json.dumps(world.truth.product(1)), 45)


def _stored_early(world: TrialWorld, key: str, column: str, value: Any) -> list[Event]:
    """Filled with each event after which the cache has a value that the database has not."""
    early: list[Event] = []

    def watch(event: Event) -> None:
        kept = _decoded(world.peek(key))
        if isinstance(kept, dict) and kept.get(column) == value:
            row = world.truth.user(1) if key == USER else world.truth.product(1)
            if (row or {}).get(column) != value:
                early.append(event)

    world.trace.watchers.append(watch)
    return early


def _refuse_updates(world: TrialWorld) -> None:
    """Every statement of `.db` that changes rows fails, as by a constraint."""

    @sa.event.listens_for(world.db.engine, "before_cursor_execute")
    def refuse(_: Any, __: Any, statement: str, *___: Any) -> None:
        if not statement.lstrip().upper().startswith("SELECT"):
            world.trace.add("error", statement.split(None, 1)[0].upper(), "", "IntegrityError")
            raise sa.exc.IntegrityError(statement, None, sqlite3.IntegrityError("refused"))


def _refused(answer: Any, trial: Trial, args: tuple[Any, ...], key: str) -> None:
    """The database refuses: the caller sees its error, and the cache is as it was."""
    world = trial.world()
    _put_users(world)
    _put_product(world)
    before = world.peek(key)
    _refuse_updates(world)
    ended = trial.attempt(answer, world.cache, world.db, *args)
    name = trial.exercise.function
    trial.expect(
        isinstance(ended.error, sa.exc.DBAPIError),
        f"The database refused the update, and {name} {_how(ended)}; the caller has to see the"
        " database's error.",
    )
    after = world.peek(key)
    trial.expect(
        after == before,
        f"The database refused the update, and {key} became {short(after)}; it was to stay as it"
        " was.",
    )


def _how(ended: Any) -> str:
    if ended.error is not None:
        return f"raised {type(ended.error).__name__}"
    return f"returned {short(ended.value)}"


def _expect_saved_email(trial: Trial, world: TrialWorld, name: str) -> None:
    email = (world.truth.user(1) or {}).get("email")
    trial.expect(
        email == NEW,
        f"After {name} the database has {email!r} for user 1; expected was {NEW!r}.",
    )


def _expect_row(trial: Trial, world: TrialWorld, key: str, truth: Any, seconds: int) -> None:
    """The whole row as it is now, as JSON, for so many seconds."""
    stored = world.peek(key)
    trial.expect(
        stored is not None,
        f"After the write there is nothing under {key}: the next reader misses.",
    )
    kept = _decoded(stored)
    trial.expect(
        isinstance(kept, dict), f"Under {key} is stored {short(stored)}: not the row as JSON."
    )
    missing = [name for name in truth if name not in kept]
    trial.expect(
        not missing,
        f"Under {key} there is no {', '.join(missing)}: readers expect the whole row.",
    )
    fresh = {name for name in truth if kept[name] == truth[name]}
    if kept["version"] != truth["version"] and fresh | {"version"} == set(truth):
        trial.fail(
            f"Under {key} is version {kept['version']}, the database has {truth['version']}: the"
            " row was not read after the update."
        )
    trial.expect(
        kept == truth,
        f"Under {key} is still the old row: {short(kept)}; the database has {short(truth)}.",
    )
    left = world.ttl(key)
    trial.expect(left is not None, f"The copy under {key} has no TTL: it would stay for ever.")
    trial.expect(
        seconds - 1 < (left or 0) <= seconds,
        f"The copy under {key} lives {left:.0f} s; expected was {seconds} s.",
    )


def _no_copy_for_ever(world: stage.World) -> str | bool:
    if world.cache.ttl(USER) == -1:
        return "a process died half-way and left a copy without a TTL, which stays for ever."
    return True


def _decoded(stored: Any) -> Any:
    try:
        return json.loads(stored)
    except (TypeError, ValueError):
        return None


def _uncapital(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
