"""Checks and hints of lab 03: what many pods share, by which names, and in how many trips."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from cachelab import stage
from cachelab.judge.trial import Trial, new_hash_seed
from cachelab.judge.world import TrialWorld
from cachelab.origin import Product
from cachelab.record.verdict import short

# session_store -------------------------------------------------------------------------------

LIFE = 1_800  # seconds without a request after which a session ends
THIEF = "an-id-that-a-thief-has-chosen-for-you"
Store = Sequence[Callable[..., Any]]


def judge_session_store(answer: Any, trial: Trial) -> str:
    """One pod logs in, all know it; a read prolongs it; a logout, or the next login, ends it."""
    world = trial.world()
    pods = [_store(answer, trial, world.cache) for _ in range(20)]
    session = _log_in(trial, pods[3], 1)
    key = f"session:v1:{session}"
    found = ", ".join(world.keys()) or "nothing"
    trial.expect(
        key in world.keys(),
        f"After log_in gave {short(session)} the cache holds {found}; expected was"
        " session:v1: and that id.",
    )
    _expect_life(trial, world, key, "After log_in")
    for number in (17, 3):
        _expect_user(
            trial, pods[number], session, 1, f"A login on pod 3, asked for on pod {number},"
        )
    _expect_secret_ids(trial, pods[3], session)

    other = _log_in(trial, pods[0], 2)
    before = world.keys()
    for number in (0, 3):
        _expect_user(trial, pods[number], "no-such-session", None, "An id that nobody was given")
    trial.call(pods[0][2], "no-such-session")
    trial.expect(
        world.keys() == before, "An id that nobody was given left or took a key in the cache."
    )
    trial.call(pods[9][2], session)
    trial.expect(
        key not in world.keys(),
        "After log_out the session is still in the cache: on the other pods, and for who has stolen"
        " its id, it goes on.",
    )
    for number in (9, 3, 17):
        what = f"After a logout on pod 9, the session on pod {number}"
        _expect_user(trial, pods[number], session, None, what)
    _expect_user(trial, pods[5], other, 2, "After user 1 had logged out, the session of user 2")

    _slides(answer, trial)
    _rotates(answer, trial)
    return _in_every_order(answer, trial)


def _slides(answer: Any, trial: Trial) -> None:
    world = trial.world()
    one, two = (_store(answer, trial, world.cache) for _ in range(2))
    session = _log_in(trial, one, 1)
    for pod, minutes in ((two, 20), (one, 40), (two, 60)):
        world.fast_forward(1_200)
        _expect_user(trial, pod, session, 1, f"{minutes} min after the login, with a read each 20,")
        _expect_life(trial, world, f"session:v1:{session}", "After a read")
    world.fast_forward(LIFE + 1)
    for pod in (one, two):
        _expect_user(trial, pod, session, None, f"{LIFE + 1:,} s after the last read, the session")


def _rotates(answer: Any, trial: Trial) -> None:
    world = trial.world()
    one, two = (_store(answer, trial, world.cache) for _ in range(2))
    mine = _log_in(trial, one, 1, THIEF)
    trial.expect(
        mine != THIEF,
        "log_in gave back the id that the browser came with: who has planted it there is logged in"
        " as well.",
    )
    _expect_user(trial, two, THIEF, None, "The id that a browser came with before its login")
    later = _log_in(trial, two, 1, mine)
    trial.expect(later != mine, "log_in gave back the id of the session before it.")
    _expect_user(trial, one, mine, None, "After a login that named it as old_id, the old session")
    _expect_user(trial, one, later, 1, "After a login with an old_id, the new session")


def _in_every_order(answer: Any, trial: Trial) -> str:
    session: list[str] = []

    def logs_in(cache: Any, db: Any) -> Any:
        return answer(cache)[0](1)

    def prepare(cache: Any, db: Any) -> None:
        session[:] = [logs_in(cache, db)]

    def back(world: stage.World) -> str | bool:
        if world.cache.exists(f"session:v1:{session[0]}"):
            return "a read at the moment of the logout brought the session back: it is alive again."
        return True

    actors = {
        "reader": lambda cache, db: answer(cache)[1](session[0]),
        "logout": lambda cache, db: answer(cache)[2](session[0]),
    }
    found = trial.every_order(actors, back, setup=prepare)
    run = trial.play({"pod 3": logs_in, "pod 17": logs_in})
    trial.expect(
        run.answers["pod 3"] != run.answers["pod 17"],
        "Two logins at the same moment, on pod 3 and on pod 17, got the same id: who knows the time"
        " knows the id; use `secrets`.",
        trace=run,
    )
    _dies(trial, logs_in, "log_in")
    return f"20 pods agree on who is logged in; {found.summary[:1].lower()}{found.summary[1:]}"


def _store(answer: Any, trial: Trial, cache: Any) -> Store:
    """The three functions of a pod; ends the judging if there are not three."""
    made = trial.call(answer, cache)
    fits = isinstance(made, (tuple, list)) and len(made) == 3 and all(map(callable, made))
    trial.expect(
        fits,
        f"session_store(cache) gave {short(made)}; expected were three functions: log_in, who_is,"
        " log_out.",
    )
    return list(made)


def _log_in(trial: Trial, pod: Store, *args: Any) -> str:
    given = trial.call(pod[0], *args)
    trial.expect(
        isinstance(given, str) and len(given) >= 16,
        f"log_in gave {short(given)}; expected was a text of 16 characters or more.",
    )
    return str(given)


def _expect_user(trial: Trial, pod: Store, session: str, truth: int | None, what: str) -> None:
    got = trial.call(pod[1], session)
    trial.expect(
        type(got) is type(truth) and got == truth,
        f"{what} gave {short(got)}; expected was {truth}.",
    )


def _expect_life(trial: Trial, world: TrialWorld, key: str, when: str) -> None:
    left = world.ttl(key)
    trial.expect(left is not None, f"{when} the session has no TTL: nobody is ever logged out.")
    trial.expect(
        LIFE - 1 < (left or 0) <= LIFE,
        f"{when} the session lives {left:,.0f} s more; expected were {LIFE:,} s.",
    )


def _expect_secret_ids(trial: Trial, pod: Store, first: str) -> None:
    """No two alike, nearly all of each drawn anew, and not by what random.seed() can repeat."""
    ids = [first, *(_log_in(trial, pod, 1) for _ in range(4))]
    for one, two in itertools.pairwise(ids):
        trial.expect(one != two, f"Two logins of user 1 got the same id, {short(one)}.")
        new = sum(a != b for a, b in itertools.zip_longest(one, two))
        trial.expect(
            new >= 8,
            f"Of two ids in a row, {short(one)} and {short(two)}, only {new} characters differ: who"
            " has one can guess the other.",
        )
    before = random.getstate()
    try:
        again = []
        for _ in range(2):
            random.seed(3)
            again.append(_log_in(trial, pod, 1))
    finally:
        random.setstate(before)
    trial.expect(
        again[0] != again[1],
        "After random.seed(3) two logins got the same id: what `random` draws can be computed; use"
        " `secrets`.",
    )


# key -----------------------------------------------------------------------------------------

MOST_CHARS = 200
IDS = (
    "7:orders",
    "7_orders",
    "7%3Aorders",
    "7orders",
    "7",
    "Lamp",
    "lamp",
    "red lamp",
    "red+lamp",
    "x\r\nDEL user:v1:1",
    "лампа",
    "*",
    "",
    "lamp/../desk",
    " lamp",
    "lamp\n",
    "x" * 10_000,
    "x" * 10_000 + "y",
    "x" * 5_000 + "y" + "x" * 4_999,
    "лампа" * 12,
    "y" + "x" * 10_000,
)


def judge_key(answer: Any, trial: Trial) -> str:
    """Plain ids as they are; any other id safe, short, of its own, and the same everywhere."""
    plain = (("user", "v1", 7), ("product", "v3", "lamp-12"), ("article", "v2", "2026_05.draft"))
    for entity, version, item in plain:
        got = trial.call(answer, entity, version, item)
        wanted = f"{entity}:{version}:{item}"
        call = f"make_key({entity!r}, {version!r}, {item!r})"
        trial.expect(got == wanted, f"{call} gave {short(got)}; expected was {wanted!r}.")
    keys = {item: _key_of(answer, trial, item) for item in IDS}
    for (one, key), (two, other) in itertools.combinations(keys.items(), 2):
        trial.expect(
            key != other,
            f"The ids {_id(one)} and {_id(two)} share the key {short(key)}: one is served the"
            " other's copy.",
        )
    many = [f"{'x' * 300}{number}" for number in range(300)]
    texts = trial.call(lambda: [answer("search", "v1", item) for item in many])
    trial.expect(
        len(set(map(str, texts))) == len(many),
        f"{len(many)} long ids, alike but for their last digits, have {len(set(map(str, texts)))}"
        " keys: a longer digest, or all of it, tells them apart.",
    )
    for item, key in keys.items():
        again = _key_of(answer, trial, item)
        trial.expect(
            again == key,
            f"Asked twice for the key of {_id(item)}, make_key gave {short(key)} and"
            f" {short(again)}: the second reader can never hit.",
        )
        with new_hash_seed(answer):
            elsewhere = _key_of(answer, trial, item)
        trial.expect(
            elsewhere == key,
            f"The key of {_id(item)} depends on hash(), which differs from process to process: no"
            " other pod finds the copy.",
        )
    long = IDS[-1]
    tail = keys[long].removeprefix("search:v1:")
    trial.expect(
        _key_of(answer, trial, tail) != keys[long],
        f"The id {_id(tail)} has the same key as {_id(long)}: somebody who chooses ids reaches"
        " another's copy, so mark what is no plain id.",
    )
    return f"{len(IDS)} odd ids have {len(set(keys.values()))} keys, each safe, short and its own."


def _key_of(answer: Any, trial: Trial, item: str) -> str:
    got = trial.call(answer, "search", "v1", item)
    said = f"The key of the id {_id(item)}"
    trial.expect(isinstance(got, str), f"{said} is {short(got)}; expected was a text.")
    key = str(got)
    trial.expect(
        key.startswith("search:v1:"), f"{said} is {short(key)}; it has to begin with 'search:v1:'."
    )
    trial.expect(
        key.count(":") == 2,
        f"{said} is {short(key)}, with {key.count(':')} colons; expected were 2, or nobody can tell"
        " where the id begins.",
    )
    odd = next((char for char in key if not "!" <= char <= "~"), None)
    trial.expect(
        odd is None,
        f"{said} is {short(key)}: it holds {odd!r}; expected were letters, digits and signs of"
        " ASCII, without blanks.",
    )
    trial.expect(
        len(key) <= MOST_CHARS,
        f"{said} has {len(key):,} characters; at most {MOST_CHARS} were asked for.",
    )
    return key


def _id(item: str) -> str:
    return repr(item) if len(item) <= 24 else f"{item[:6]!r}... ({len(item):,} characters)"


# rollout -------------------------------------------------------------------------------------

NEW = "Alice Moreau"


def judge_rollout(answer: Any, trial: Trial) -> str:
    """Afterwards no pod of any release that is running is served the old name."""
    for versions in (("v1", "v2"), ("v3", "v4", "v5"), ("v7",)):
        _renamed(answer, trial, versions)

    def writes(cache: Any, db: Any) -> Any:
        return answer(cache, db, 1, NEW, ("v1", "v2"))

    def fill(cache: Any, db: Any) -> None:
        for version in ("v1", "v2"):
            _read(cache, db, version, 1)

    actors = {
        "writer": writes,
        "v1 pod": lambda cache, db: _read(cache, db, "v1", 1),
        "v2 pod": lambda cache, db: _read(cache, db, "v2", 1),
    }
    found = trial.every_order(actors, _no_old_name, setup=fill)
    return f"No pod keeps the old name; {found.summary[:1].lower()}{found.summary[1:]}"


def _renamed(answer: Any, trial: Trial, versions: tuple[str, ...]) -> None:
    world = trial.world()
    with world.trace.acting("pods"):
        for version, user in itertools.product(versions, (1, 2, 11)):
            _read(world.cache, world.db, version, user)
    world.put("session:v1:1", "somebody's session", 1_800)
    before = set(world.keys())
    start = len(world.trace)

    trial.call(answer, world.cache, world.db, 1, NEW, versions)

    running = f"With {' and '.join(versions)} running"
    truth = world.truth.user(1) or {}
    trial.expect(
        truth.get("name") == NEW,
        f"After rename the database has {short(truth.get('name'))} for user 1; expected was"
        f" {NEW!r}.",
    )
    walked = [event.what for event in world.trace[start:] if event.what in {"KEYS", "SCAN"}]
    trial.expect(
        not walked,
        f"rename sent {', '.join(walked[:1])}, which walks through every key in the cache; the"
        " names of the keys are known.",
    )
    with world.trace.acting("pods"):
        got = {version: _read(world.cache, world.db, version, 1) for version in versions}
    stale = [version for version, value in got.items() if _name(value) != NEW]
    trial.expect(
        not stale,
        f"{running}, the pods that read {' and '.join(stale)} are still served"
        f" {short(_name(got[stale[0]]) if stale else None)}; expected was {NEW!r}.",
    )
    for version, value in got.items():
        trial.expect(
            value == _shaped(version, NEW),
            f"{running}, a pod that reads {version} got {short(value)}, which is not the shape it"
            " knows: delete a copy, do not write it for others.",
        )
    gone = sorted(before - set(world.keys()))
    trial.expect(not gone, f"Gone from the cache, and not made from user 1: {', '.join(gone)}.")


def _no_old_name(world: stage.World) -> str | bool:
    keys = {version: f"user:{version}:1" for version in ("v1", "v2")}
    # On the stage a key whose time is up at this very moment is still found.
    kept = {
        version: world.cache.get(key) for version, key in keys.items() if world.cache.pttl(key) != 0
    }
    old = [version for version, text in kept.items() if text and _name(_decoded(text)) != NEW]
    if not old:
        return True
    return (
        f"A pod that reads {' and '.join(old)} came along in the middle and stored the old name"
        " again: the copy was deleted while the database still had it."
    )


def _read(cache: Any, db: Any, version: str, user_id: int) -> Any:
    """Cache-aside of a release that knows this version, in its own shape."""
    key = f"user:{version}:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return _decoded(stored)
    value = _shaped(version, db.user(user_id)["name"])
    cache.set(key, json.dumps(value), ex=300)
    return value


def _shaped(version: str, name: str) -> dict[str, str]:
    """A user as a release of this version stores it; every second one has another field."""
    return {"shape": version, "called" if version in ("v2", "v4") else "name": name}


def _name(value: Any) -> Any:
    return value.get("name", value.get("called")) if isinstance(value, dict) else value


def _decoded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


# What several of them expect -----------------------------------------------------------------


def _dies(trial: Trial, act: Callable[[Any, Any], Any], what: str) -> None:
    """Wherever the pod dies that does this, it leaves nothing without a TTL."""
    for number in range(1, 8):
        run = trial.play({"pod": act}, crash=("pod", number))
        cache = run.world.cache
        endless = [key for key in sorted(cache.scan_iter()) if cache.ttl(key) == -1]
        trial.expect(
            not endless,
            f"A pod died in the middle of {what} and left"
            f" {'a key' if len(endless) == 1 else f'{len(endless)} keys'} without a TTL.",
            trace=run,
        )


# read_many -----------------------------------------------------------------------------------


def judge_read_many(answer: Any, trial: Trial) -> str:
    """Right, in order, in one load for what is missing; and in two trips, or one."""
    world = trial.world()
    loads: list[list[int]] = []
    load = _loader(world.db, loads)

    def read(ids: list[int], missing: list[int], what: str) -> None:
        truth = [world.truth.product(one) for one in ids]
        seen = len(loads)
        got = trial.call(answer, world.cache, load, list(ids))
        trial.expect(
            type(got) is list and len(got) == len(ids),
            f"{what}, read_many of {ids} gave {short(got)}; expected was a list of {len(ids)}.",
        )
        names = [_name(row) if row is not None else None for row in got]
        wanted = [row["name"] if row else None for row in truth]
        trial.expect(
            names == wanted,
            f"{what}, read_many of {ids} gave {short(names)}; expected was, in this order,"
            f" {short(wanted)}.",
        )
        trial.expect(got == truth, f"{what}, the rows are not those of the database: {short(got)}.")
        asked = loads[seen:]
        expected = [sorted(missing)] if missing else []
        trial.expect(
            [sorted(one) for one in asked] == expected,
            f"{what}, load was called {_with(asked)} for {ids}; expected was {_with(expected)}.",
        )

    read([7, 3, 12], [7, 3, 12], "With an empty cache")
    for one in (7, 3, 12):
        _expect_copy(trial, world, one, 300, 300)
    read([3, 12, 7], [], "With all of them in the cache")
    read([5, 3, 9], [5, 9], "With one of them in the cache")
    read([2, 3, 2], [2], "With an id that comes twice")
    read([999, 3, 1], [999, 1], "With an id that does not exist")
    _expect_copy(trial, world, 999, 1, 30)
    read([1, 999], [], "With an absence in the cache")
    read([], [], "With nothing to read")
    world.fast_forward(301)
    read([3], [3], "301 s after the fill")

    _trips(answer, trial)

    def reads(cache: Any, db: Any) -> Any:
        return answer(cache, _loader(db, []), [1, 2, 999])

    _dies(trial, reads, "the fill")
    return "read_many needs one load and two trips to the cache, and one trip when all is there."


def _trips(answer: Any, trial: Trial) -> None:
    """On the stage every trip to the cache takes one second, and nothing else takes any time."""
    ids = list(range(1, 16))

    def reads(cache: Any, db: Any) -> Any:
        return answer(cache, _loader(db, []), ids)

    run = trial.play({"reader": lambda cache, db: answer(cache, _loader(db, []), [])}, hop=1.0)
    trips = round(run.elapsed)
    trial.expect(
        trips == 0,
        f"An empty list took {trips} trip{'s' * (trips > 1)} to the cache; expected was none.",
        trace=run,
    )

    for what, setup, most in (("each", reads, 1), ("none", None, 2)):
        run = trial.play({"reader": reads}, hop=1.0, setup=setup)
        got = run.answers["reader"]
        trips = round(run.elapsed)
        trial.expect(
            isinstance(got, list) and len(got) == len(ids),
            f"Of 15 products, {what} in the cache, read_many gave {short(got)}.",
            trace=run,
        )
        trial.expect(
            trips <= most,
            f"15 products, {what} of them in the cache, took {trips} trips to the cache; expected"
            f" {'were 2' if most == 2 else 'was 1'}.",
            trace=run,
        )


def _loader(db: Any, loads: list[list[int]]) -> Callable[[Any], dict[int, Any]]:
    def load(ids: Any) -> dict[int, Any]:
        """One query for all the ids; an id that does not exist is not in the answer."""
        loads.append(list(ids))
        asked = sa.select(Product.__table__).where(Product.id.in_(loads[-1]))
        with db.engine.connect() as connection:
            return {row.id: dict(row._mapping) for row in connection.execute(asked)}

    return load


def _with(loads: list[list[int]]) -> str:
    if not loads:
        return "not at all"
    if len(loads) > 1:
        return f"{len(loads)} times"
    return f"once, with {short(loads[0])}"


def _expect_copy(trial: Trial, world: TrialWorld, one: int, least: int, most: int) -> None:
    key = f"product:v1:{one}"
    found = ", ".join(world.keys()) or "nothing"
    trial.expect(key in world.keys(), f"The cache holds {found}; expected was also {key}.")
    left = world.ttl(key)
    trial.expect(left is not None, f"The copy under {key} has no TTL: it would stay for ever.")
    wanted = f"{most} s" if least == most else f"{least} to {most} s"
    trial.expect(
        least - min(least, 5) < (left or 0) <= most,
        f"The copy under {key} lives {left:g} s; expected was {wanted}.",
    )
