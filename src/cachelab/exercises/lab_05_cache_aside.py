"""Checks and hints of lab 05: cache-aside, in the cases in which it goes wrong."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from cachelab import stage
from cachelab.judge.trial import Trial, new_hash_seed
from cachelab.judge.world import TrialWorld
from cachelab.record.verdict import short

# read ----------------------------------------------------------------------------------------


def judge_read(answer: Any, trial: Trial) -> None:
    """A miss asks once and fills, a hit does not ask, and a copy ends with its TTL."""
    world = trial.world()
    alice, bruno = world.truth.user(1), world.truth.user(2)
    key = "user:v1:1"

    first = trial.call(answer, world.cache, world.db, 1)
    _expect_value(trial, first, alice, "The first read of user 1")
    asked = world.db.queries
    trial.expect(asked > 0, "The first read asked no query, so its value cannot be the database's.")
    trial.expect(asked == 1, f"The first read asked {asked} queries; one is enough.")
    _expect_copy(trial, world, key, 300)
    _expect_json(trial, world, key, alice)

    before = world.trace.hits
    second = trial.call(answer, world.cache, world.db, 1)
    trial.expect(
        world.db.queries == 1,
        "The second read asked the database again, although a copy was in the cache.",
    )
    _expect_value(trial, second, alice, "The second read of user 1")
    trial.expect(
        world.trace.hits > before,
        "The second read asked neither the cache nor the database; what one process remembers by"
        " itself, no other process can see or delete.",
    )

    other = trial.call(answer, world.cache, world.db, 2)
    _expect_value(trial, other, bruno, "The read of user 2, after two of user 1,")

    world.fast_forward(200)
    trial.call(answer, world.cache, world.db, 1)  # a hit, which must not prolong the copy's life
    world.someone_else.update_user(1, email="new@example.org")
    world.fast_forward(101)
    late = trial.call(answer, world.cache, world.db, 1)
    _expect_value(
        trial, late, world.truth.user(1), "301 seconds after the fill, the read of user 1"
    )
    _gone_at_any_step(answer, trial, key, alice)
    readers = {f"reader {n}": _with(answer, 1) for n in (1, 2)}
    trial.every_order(readers, lambda world: _left_well(world, key, alice), crashes=1)


def _gone_at_any_step(answer: Any, trial: Trial, key: str, truth: Any) -> None:
    """A copy may expire, or be deleted, between two commands of a reader."""
    for held in (True, False):
        for step in (1, 2, 3):
            world = trial.world()
            if held:
                world.put(key, json.dumps(truth), seconds=300)
            world.after_cache_command(step, functools.partial(_delete, world, key))
            ended = trial.attempt(answer, world.cache, world.db, 1)
            who = "had seen" if held else "had left"
            got = f"got {type(ended.error).__name__}" if ended.error else short(ended.value)
            trial.expect(
                ended.error is None and ended.value == truth,
                f"A copy that the reader {who} was deleted before their next command, and they"
                f" {got}: what was asked once is not sure to be there when it is asked again.",
            )


def _delete(world: TrialWorld, key: str) -> None:
    with world.trace.acting("somebody else"):
        world.cache.delete(key)


def _left_well(world: stage.World, key: str, truth: Any) -> str | bool:
    wrong = [got for got in world.answers.values() if got != truth]
    if wrong:
        return f"Of two readers at once, one got {short(wrong[0])}."
    if world.cache.ttl(key) == -1:
        return "A process died half-way and left a copy without a TTL, which stays for ever."
    return True


# values --------------------------------------------------------------------------------------


def judge_values(answer: Any, trial: Trial) -> None:
    """0 and None are answers: right, cached, and each with its own TTL."""
    cases = ((1, "in stock", 60, 60), (7, "sold out", 60, 60), (999, "unknown", 1, 10))
    for product_id, what, least, most in cases:
        world = trial.world()
        truth = world.truth.stock(product_id)
        for turn in ("first", "second", "third"):
            got = trial.call(answer, world.cache, world.db, product_id)
            right = got == truth and type(got) is type(truth)
            trial.expect(
                right,
                f"The {turn} read of product {product_id} ({what}) gave {short(got)}; the database"
                f" has {truth!r}.",
            )
            if turn == "first":
                key = f"stock:v1:{product_id}"
                _expect_some_copy(trial, world, key, f"the read of product {product_id} ({what})")
                _expect_ttl(trial, world, key, least, most)
        asked = world.db.queries
        trial.expect(
            asked == 1,
            f"Product {product_id} is {what}: three reads asked {asked} queries; expected was 1.",
        )


# update --------------------------------------------------------------------------------------


def judge_update(answer: Any, trial: Trial) -> None:
    """Afterwards nobody is served the old row, whenever a reader came along.

    That the writer itself dies between commit and delete is not asked here: no order of the two
    survives it without an outbox (chapter 09).
    """
    world = trial.world()
    _fill_everything(world.cache, world.db)
    trial.call(answer, world.cache, world.db, 1, NEW)
    truth, bystander = world.truth.user(1), world.truth.user(2)
    trial.expect(
        truth is not None and truth["email"] == NEW,
        f"After change_email the database has {short(truth and truth['email'])} for user 1;"
        f" expected was {NEW!r}.",
    )
    trial.expect(bystander is not None and bystander["email"] != NEW, "User 2 was changed as well.")
    with world.trace.acting("reader"):
        seen = {
            "user:v1:1": _profile(world.cache, world.db, 1)["email"],
            "user:public:v1:1": _public_page(world.cache, world.db, 1)["email"],
        }
    stale = [key for key, value in seen.items() if value != NEW]
    trial.expect(not stale, f"Readers of {' and '.join(stale)} are still served the old address.")
    gone = [key for key in BYSTANDERS if world.peek(key) is None]
    trial.expect(
        not gone,
        f"Gone from the cache: {', '.join(gone)}; that has nothing to do with user 1.",
    )
    _one_copy_alone(answer, trial)
    writers = {name: _changes(answer, f"{name}@example.org") for name in ("one", "another")}
    trial.every_order(writers, _copies_are_the_row, setup=_fill_everything)
    actors = {
        "writer": _with(answer, 1, NEW),
        "profile reader": _with(_profile, 1),
        "page reader": _with(_public_page, 1),
    }
    trial.every_order(actors, _nothing_old_is_left, setup=_fill_everything)


def _one_copy_alone(answer: Any, trial: Trial) -> None:
    """A copy goes also when the other one is not there."""
    for key, read in (("user:v1:1", _profile), ("user:public:v1:1", _public_page)):
        world = trial.world()
        with world.trace.acting("reader"):
            read(world.cache, world.db, 1)
        trial.call(answer, world.cache, world.db, 1, NEW)
        with world.trace.acting("reader"):
            seen = read(world.cache, world.db, 1)["email"]
        trial.expect(
            seen == NEW,
            f"With {key} alone in the cache, its readers are still served the old address.",
        )


def _changes(answer: Any, email: str) -> Callable[[Any, Any], str]:
    def change(cache: Any, db: Any) -> str:
        answer(cache, db, 1, email)
        return "changed"

    return change


def _copies_are_the_row(world: stage.World) -> str | bool:
    kept = {key: world.cache.get(key) for key in ("user:v1:1", "user:public:v1:1")}
    truth = (world.db.user(1) or {})["email"]
    other = [key for key, text in kept.items() if text and json.loads(text)["email"] != truth]
    if not other:
        return True
    return (
        f"Two changes came at once, and {' and '.join(other)} was left with the one, the database"
        " with the other: a new value that is stored can be old by then, a delete cannot."
    )


def _nothing_old_is_left(world: stage.World) -> str | bool:
    kept = {key: world.cache.get(key) for key in ("user:v1:1", "user:public:v1:1")}
    old = [key for key, text in kept.items() if text and json.loads(text)["email"] != NEW]
    if not old:
        return True
    return (
        f"A reader who came along in the middle stored the old row again ({' and '.join(old)}),"
        " and there it stays: a copy was deleted while the database still had the old row."
    )


NEW = "new@example.org"
BYSTANDERS = ("user:v1:2", "user:v1:12", "user:public:v1:10", "session:abc")


def _fill_everything(cache: Any, db: Any) -> None:
    _profile(cache, db, 1), _profile(cache, db, 2), _public_page(cache, db, 1)
    for key in BYSTANDERS[1:]:
        cache.set(key, "somebody else's")


def _profile(cache: Any, db: Any, user_id: int) -> Any:
    return _read(cache, f"user:v1:{user_id}", lambda: db.user(user_id))


def _public_page(cache: Any, db: Any, user_id: int) -> Any:
    def load() -> dict[str, Any]:
        user = db.user(user_id)
        return {"name": user["name"], "email": user["email"]}

    return _read(cache, f"user:public:v1:{user_id}", load)


def _read(cache: Any, key: str, load: Callable[[], Any]) -> Any:
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = load()
    cache.set(key, json.dumps(value), ex=300)
    return value


def _with(function: Any, *args: Any) -> Callable[[Any, Any], Any]:
    """An actor of the stage that calls `function(cache, db, *args)`."""
    return lambda cache, db: function(cache, db, *args)


# cache_down ----------------------------------------------------------------------------------


def judge_cache_down(answer: Any, trial: Trial) -> None:
    """The product comes back, for one query, whatever the cache does; database errors show."""
    world = trial.world()
    truth = world.truth.product(1)
    for turn in ("first", "second"):
        got = trial.call(answer, world.cache, world.db, 1)
        _expect_value(trial, got, truth, f"With a healthy cache, the {turn} read of product 1")
    trial.expect(
        world.db.queries == 1,
        f"With a healthy cache two reads asked {world.db.queries} queries; expected was 1.",
    )
    _expect_copy(trial, world, "product:v1:1", 300)

    early, late = trial.world(), trial.world()
    early.cache_down()
    late.on("query", late.cache_down)
    cases = {"dead before the read": early, "dying between the GET and the SET": late}
    ends = {when: trial.attempt(answer, w.cache, w.db, 1) for when, w in cases.items()}
    errors = {when: type(end.error).__name__ for when, end in ends.items() if end.error}
    trial.expect(
        not errors,
        f"With the cache {', and also '.join(errors)}, the customer got an error"
        f" ({', '.join(dict.fromkeys(errors.values()))}) though the database is fine.",
    )
    for when, end in ends.items():
        _expect_served(trial, cases[when], end.value, truth, f"With the cache {when}")

    early.cache_up()
    for _ in range(2):
        trial.call(answer, early.cache, early.db, 1)
    trial.expect(
        early.db.queries == 2,
        "After the cache came back two reads asked"
        f" {early.db.queries - 1} queries; expected was one, and then a hit.",
    )

    run = trial.play(
        [_with(answer, 1) for _ in range(20)],
        spread=2.0,
        hop=0.001,
        faults=[stage.CacheDown(0.5, 1.5)],
    )
    wrong = [got for got in run.answers.values() if got != truth]
    trial.expect(
        not wrong,
        f"Of 20 readers around an outage of the cache, one got {short(wrong[:1])}.",
        trace=run,
    )
    trial.expect(
        run.elapsed < 2.5,
        f"Around an outage of one second the last of 20 readers was kept until {run.elapsed:.1f} s"
        " instead of 2 s: a dead cache is not waited for.",
        trace=run,
    )

    slow, half = trial.world(), trial.world()
    slow.cache_hangs()
    ended = trial.attempt(answer, slow.cache, slow.db, 1)
    trial.expect(
        ended.error is None,
        "The cache did not answer in time, and the customer got the error"
        f" {type(ended.error).__name__}: there are more kinds of redis.RedisError than a lost"
        " connection.",
    )
    _expect_served(trial, slow, ended.value, truth, "With a cache that does not answer in time")
    half.on("fill", half.cache_down)
    trial.call(answer, half.cache, half.db, 1)
    half.cache_up()
    for key in half.keys():
        trial.expect(
            half.ttl(key) is not None,
            f"The cache died right after the SET, and {key} was left without a TTL: it would stay"
            " for ever.",
        )

    for state, down in (("alive", False), ("dead", True)):
        world = trial.world()
        world.break_database()
        if down:
            world.cache_down()
        ended = trial.attempt(answer, world.cache, world.db, 1)
        trial.expect(
            ended.error is not None,
            f"The database failed while the cache was {state}, and the function returned"
            f" {short(ended.value)}: the caller would take that for the truth.",
        )
        trial.expect(
            not world.keys(),
            f"The database failed, and {short(world.peek((world.keys() or [''])[0]))} was stored"
            " all the same: the next reader would take that for the truth.",
        )


def _expect_served(trial: Trial, world: TrialWorld, got: Any, truth: Any, when: str) -> None:
    _expect_value(trial, got, truth, f"{when}, the read of product 1")
    asked = world.db.queries
    trial.expect(asked == 1, f"{when}, one read asked {asked} queries; expected was 1.")
    failed = world.trace.errors
    trial.expect(
        failed <= 4, f"{when}, the cache was tried {failed} times; one GET and one SET are enough."
    )


# version -------------------------------------------------------------------------------------


def judge_version(answer: Any, trial: Trial) -> None:
    """The old release's entries neither break the new shape nor are changed by it."""
    world = trial.world()
    old = json.dumps({"name": "Alice"})
    world.put("profile:v1:1", old, seconds=200)
    right = {"name": "Alice", "initials": "A"}
    for turn in ("first", "second"):
        got = trial.call(answer, world.cache, world.db, 1)
        _expect_value(
            trial, got, right, f"With an entry of the old release in the cache, the {turn} read"
        )
        trial.expect(
            world.peek("profile:v1:1") == old,
            f"The old release's entry {old} became {short(world.peek('profile:v1:1'))}: its pods"
            " still need it.",
        )
    asked = world.db.queries
    trial.expect(asked <= 1, f"Two reads of one profile asked {asked} queries; expected was 1.")

    world = trial.world()
    with world.trace.acting("reader"):
        _fill_everything(world.cache, world.db)
    others = {key: world.peek(key) for key in world.keys()}
    for turn in ("first", "second"):
        got = trial.call(answer, world.cache, world.db, 1)
        who = f"With a copy of the user under user:v1:1 too, the {turn} read"
        _expect_value(trial, got, right, who)
    changed = [key for key, text in others.items() if world.peek(key) != text]
    trial.expect(not changed, f"{' and '.join(changed)} was changed, which is not a profile.")
    got = trial.call(answer, world.cache, world.db, 2)
    _expect_value(
        trial, got, {"name": "Bruno", "initials": "B"}, "The read of user 2, after two of user 1,"
    )
    before = world.db.queries
    with new_hash_seed(answer):
        trial.call(answer, world.cache, world.db, 1)
    trial.expect(
        world.db.queries == before,
        "Another process asked the database again, although a copy was in the cache: it looks for"
        " it under another key.",
    )

    world = trial.world()
    world.someone_else.update_user(1, name="Alice Moreau")
    for _ in range(2):
        got = trial.call(answer, world.cache, world.db, 1)
        _expect_value(trial, got, {"name": "Alice Moreau", "initials": "AM"}, "A read")
    asked = world.db.queries
    trial.expect(asked == 1, f"Two reads of one profile asked {asked} queries; expected was 1.")
    for key in world.keys():
        _expect_ttl(trial, world, key, 300, 300)
    world.put("profile:v1:1", json.dumps({"name": "Alice Moreau"}), seconds=300)
    got = trial.call(answer, world.cache, world.db, 1)
    _expect_value(
        trial,
        got,
        {"name": "Alice Moreau", "initials": "AM"},
        "After a pod of the old release had filled its own key, a read",
    )
    _grows_no_older(answer, trial)


def _grows_no_older(answer: Any, trial: Trial) -> None:
    """300 s after a change of name nobody is given the old one, and initials are of each word."""
    world = trial.world()
    world.put("profile:v1:1", json.dumps({"name": "Alice"}), seconds=200)
    world.someone_else.update_user(1, name="Alice Maria McCoy")
    world.fast_forward(190)
    trial.call(answer, world.cache, world.db, 1)
    world.fast_forward(111)
    got = trial.call(answer, world.cache, world.db, 1)
    trial.expect(
        not isinstance(got, dict) or got.get("name") != "Alice",
        "301 s after a change of name a read still gave the old one: what is made from a copy of"
        " the old release is as old as that copy, and lives another 300 s.",
    )
    right = {"name": "Alice Maria McCoy", "initials": "AMM"}
    _expect_value(trial, got, right, "A read of somebody with a name of three words")


# What several of them expect -----------------------------------------------------------------


def _expect_value(trial: Trial, got: Any, truth: Any, who: str) -> None:
    shown, kind = short(got), type(got).__name__
    trial.expect(
        type(got) is type(truth), f"{who} gave {shown} (a {kind}); expected was {short(truth)}."
    )
    trial.expect(got == truth, f"{who} gave {shown}; the right answer is {short(truth)}.")


def _expect_some_copy(trial: Trial, world: TrialWorld, key: str, after: str) -> None:
    found = world.keys()
    trial.expect(found != [], f"After {after} the cache is empty: nothing was stored.")
    named = ", ".join(found)
    trial.expect(key in found, f"After {after} the cache holds {named}; expected was {key}.")


def _expect_copy(trial: Trial, world: TrialWorld, key: str, seconds: int) -> None:
    _expect_some_copy(trial, world, key, "a first read")
    _expect_ttl(trial, world, key, seconds, seconds)


def _expect_ttl(trial: Trial, world: TrialWorld, key: str, least: float, most: float) -> None:
    left = world.ttl(key)
    trial.expect(left is not None, f"The copy under {key} has no TTL: it would stay for ever.")
    wanted = f"{most:g} s" if least == most else f"{least:g} to {most:g} s"
    trial.expect(
        least - min(1, least / 10) < (left or 0) <= most,
        f"The copy under {key} lives {left:g} s; expected was {wanted}.",
    )


def _expect_json(trial: Trial, world: TrialWorld, key: str, truth: Any) -> None:
    stored = world.peek(key)
    try:
        decoded = json.loads(stored) if isinstance(stored, str) else None
    except ValueError:
        decoded = None
    trial.expect(
        decoded == truth, f"Under {key} is stored {short(stored)}, which is not the row as JSON."
    )
