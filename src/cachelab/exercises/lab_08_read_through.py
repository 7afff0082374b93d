"""Checks and hints of lab 08: a register of loaders, a batch, absence, a place for a guard."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from cachelab import stage
from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.origin import Product, User
from cachelab.patterns.read_through import Entity
from cachelab.patterns.single_flight import SingleFlight
from cachelab.record.verdict import short

Row = Callable[[Any], Any]


class RecordingLoader:
    """A loader of the register: remembers what it was asked, and gives those that exist."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.asked: list[Any] = []

    def __call__(self, ids: Any) -> dict[Any, Any]:
        self.asked.append(ids)
        if type(ids) not in (list, tuple, set, frozenset):
            return {}
        found = {id: self.row(id) for id in ids}
        return {id: row for id, row in reversed(found.items()) if row is not None}


# registry ------------------------------------------------------------------------------------


def judge_registry(answer: Any, trial: Trial) -> None:
    """All that differs between two things comes from the register; errors and junk are not kept."""
    world = trial.world()
    users, products, stocks = (
        RecordingLoader(world.db.user),
        RecordingLoader(world.db.product),
        RecordingLoader(world.db.stock),
    )
    register = {
        "user": Entity(users, 300, 5),
        "product": Entity(products, 600, 9, version=3),
        "stock": Entity(stocks, 60, 5),
    }
    truth = world.truth
    cases: list[tuple[str, int, str, Any, int]] = [
        ("user", 1, "user:v1:1", truth.user(1), 300),
        ("product", 1, "product:v3:1", truth.product(1), 600),
        ("user", 2, "user:v1:2", truth.user(2), 300),
        ("stock", 7, "stock:v1:7", 0, 60),
        ("product", 999, "product:v3:999", None, 9),
    ]
    for name, id, key, value, seconds in cases:
        call = f"read(cache, register, {name!r}, {id})"
        loader = register[name].load
        assert isinstance(loader, RecordingLoader)
        loader.asked.clear()
        for turn in ("first", "second"):
            got = trial.call(answer, world.cache, register, name, id)
            _expect_list(trial, loader, "read")
            _expect_value(trial, got, value, f"The {turn} {call}")
            if turn == "first":
                _expect_copy(trial, world, key, value, seconds, call)
        asked = len(loader.asked)
        trial.expect(
            asked == 1,
            f"{call} twice asked the loader {asked} times; expected was 1"
            f"{' (None is an answer, too)' if value is None else ''}.",
        )

    register["user"] = register["user"]._replace(version=2)
    trial.call(answer, world.cache, register, "user", 1)
    trial.expect(
        "user:v2:1" in world.keys(),
        "The register's version of user went from 1 to 2, and after the next read there is no"
        f" user:v2:1 in the cache: {', '.join(world.keys())}.",
    )
    _broken_copy(answer, trial)
    _failing_loader(answer, trial, 1)
    _unknown_name(answer, trial)


def _broken_copy(answer: Any, trial: Trial) -> None:
    world = trial.world()
    right = world.truth.user(1)
    register = {"user": Entity(RecordingLoader(world.db.user), 300)}
    world.put("user:v1:1", '{"id": 1, "na', seconds=200)
    ended = trial.attempt(answer, world.cache, register, "user", 1)
    trial.expect(
        ended.error is None,
        f"The cache held a text that is no JSON, and read raised {type(ended.error).__name__};"
        " expected was the row, as after a miss.",
    )
    _expect_value(trial, ended.value, right, "With a text that is no JSON in the cache, read")
    trial.expect(
        _decoded(world.peek("user:v1:1")) == right,
        f"The text that is no JSON is still in the cache: {short(world.peek('user:v1:1'))}.",
    )


def _failing_loader(answer: Any, trial: Trial, wanted: Any) -> None:
    function = trial.exercise.function
    for what in (ValueError("no such column"), TimeoutError("the database does not answer")):
        world = trial.world()

        def fails(ids: Any, what: Exception = what) -> dict[Any, Any]:
            raise what

        ended = trial.attempt(answer, world.cache, {"user": Entity(fails, 300)}, "user", wanted)
        trial.expect(
            ended.error is not None,
            f"The loader raised {type(what).__name__}, and {function} returned"
            f" {short(ended.value)}: the caller would take that for the truth.",
        )
        trial.expect(
            ended.error is what,
            f"The loader raised {type(what).__name__}; what reached the caller was"
            f" {type(ended.error).__name__}.",
        )
        kept = [f"{key}: {short(world.peek(key))}" for key in world.keys()]
        trial.expect(not kept, f"The loader failed, and something was stored: {', '.join(kept)}.")


def _unknown_name(answer: Any, trial: Trial) -> None:
    world = trial.world()
    register = {"user": Entity(RecordingLoader(world.db.user), 300)}
    ended = trial.attempt(answer, world.cache, register, "usr", 1)
    how = type(ended.error).__name__ if ended.error else f"the answer {short(ended.value)}"
    trial.expect(
        isinstance(ended.error, KeyError),
        f"'usr' is not in the register; a KeyError was expected, and there was {how}.",
    )


# batch ---------------------------------------------------------------------------------------


def judge_batch(answer: Any, trial: Trial) -> None:
    """Every id gets its value, in one look, one load of what is missing, one trip of fills."""
    world = trial.world()
    loader = RecordingLoader(world.db.product)
    register = {"product": Entity(loader, 600, 9, version=3)}

    def ask(ids: list[int], when: str) -> None:
        loader.asked.clear()
        got = trial.call(answer, world.cache, register, "product", list(ids))
        _expect_list(trial, loader, "read_many")
        _expect_all(trial, got, {id: world.truth.product(id) for id in ids}, when)

    ask([3, 1, 2], "With an empty cache, read_many of [3, 1, 2]")
    asked = sorted(id for ids in loader.asked for id in ids)
    trial.expect(
        asked == [1, 2, 3], f"With an empty cache the loader was asked for {asked}, not [1, 2, 3]."
    )
    for id in (1, 2, 3):
        _expect_copy(
            trial, world, f"product:v3:{id}", world.truth.product(id), 600, "read_many of three"
        )
    ask([1, 2, 3], "With all three in the cache, read_many of [1, 2, 3]")
    trial.expect(
        not loader.asked, f"All three were in the cache, and the loader was asked: {loader.asked}."
    )
    ask([1, 999, 5, 2], "With two of four in the cache, read_many of [1, 999, 5, 2]")
    trial.expect(
        sorted(id for ids in loader.asked for id in ids) == [5, 999],
        f"1 and 2 were in the cache, 5 and 999 were not; the loader was asked for"
        f" {', '.join(map(short, loader.asked))}.",
    )
    _expect_copy(trial, world, "product:v3:999", None, 9, "read_many of one that does not exist")
    ask([999, 1], "With the absence of 999 in the cache, read_many of [999, 1]")
    trial.expect(
        not loader.asked,
        "That 999 does not exist was in the cache, and the loader was asked for it again.",
    )
    world.put("product:v3:1", '{"id": 1, "na', seconds=200)
    ask([1, 2], "With a copy of 1 that is no JSON, read_many of [1, 2]")
    ask([6, 6, 1], "read_many of [6, 6, 1], where 6 is named twice,")
    trial.expect(
        sorted(id for ids in loader.asked for id in ids) == [6],
        f"6 was named twice and not in the cache, 1 was; the loader was asked for"
        f" {', '.join(map(short, loader.asked))}, not [6].",
    )
    ask([], "read_many of no ids at all")
    trial.expect(not loader.asked, "For no ids at all the loader was asked.")
    _round_trips(answer, trial)
    _zero(answer, trial)
    _texts(answer, trial)
    _failing_loader(answer, trial, [1])


def _texts(answer: Any, trial: Trial) -> None:
    """An id may be a text, with a colon in it or all of digits; it comes back as it was."""
    world = trial.world()
    loader = RecordingLoader(lambda id: {"word": id})
    register = {"tag": Entity(loader, 60)}
    words = ["a:b", "7"]
    for turn in ("first", "second"):
        got = trial.call(answer, world.cache, register, "tag", list(words))
        right = {word: {"word": word} for word in words}
        _expect_all(trial, got, right, f"The {turn} read_many of {words}")
    asked = len(loader.asked)
    trial.expect(
        asked == 1, f"Two reads of {words} asked the loader {asked} times; expected was 1."
    )


def _zero(answer: Any, trial: Trial) -> None:
    world = trial.world()
    loader = RecordingLoader(world.db.stock)
    register = {"stock": Entity(loader, 60)}
    for turn in ("first", "second"):
        got = trial.call(answer, world.cache, register, "stock", [7, 1])
        right = {7: world.truth.stock(7), 1: world.truth.stock(1)}
        _expect_all(trial, got, right, f"The {turn} read_many of stocks, of which 7 is sold out,")
    asked = len(loader.asked)
    trial.expect(
        asked == 1,
        f"A stock of 0 is in the cache, and two reads asked the loader {asked} times; expected"
        " was 1.",
    )
    _expect_copy(trial, world, "stock:v1:7", 0, 60, "read_many of a stock of 0")


def _round_trips(answer: Any, trial: Trial) -> None:
    """On the stage a trip to the cache takes a second, and all else takes no time."""
    ids = list(range(1, 21))

    def page(cache: Any, db: Any) -> Any:
        return answer(cache, _products(db), "product", ids)

    def five(cache: Any, db: Any) -> None:
        rows = _products(db)["product"].load(ids[:5])
        for id, row in rows.items():
            cache.set(f"product:v1:{id}", json.dumps(row), ex=600)

    cases: list[tuple[str, Callable[..., Any] | None, int]] = [
        ("an empty cache", None, 20),
        ("5 of 20 in the cache", five, 15),
    ]
    for when, setup, missing in cases:
        run = trial.play({"page": page}, hop=1.0, setup=setup)
        got = run.answers["page"]
        if isinstance(got, BaseException):
            trial.fail(f"With {when}, read_many of 20 raised {type(got).__name__}.", trace=run)
        truth = {id: run.world.db.product(id) for id in ids}
        _expect_all(trial, got, truth, f"With {when}, read_many of 20")
        trips, looks, stores = (
            round(run.elapsed),
            _moments(run, "hit", "miss"),
            _moments(run, "fill"),
        )
        trial.expect(
            trips <= 2,
            f"With {when}, read_many of 20 made {trips} round trips to the cache ({looks} to look,"
            f" {stores} to store); expected were 2, one of each.",
            trace=run,
        )
        trial.expect(
            run.queries == 1,
            f"With {when}, read_many of 20 called the loader {run.queries} times; once is enough"
            f" for the {missing} that are missing.",
            trace=run,
        )

    run = trial.play(
        {"page": lambda cache, db: answer(cache, _products(db), "product", [])}, hop=1.0
    )
    trial.expect(
        run.elapsed == 0,
        "read_many of no ids at all went to the cache; a real server refuses MGET without a key.",
    )


def _moments(run: stage.StageTrace, *kinds: str) -> int:
    """At how many times such events were recorded: a batch is one moment."""
    return len({event.at for event in run.of(*kinds)})


def _products(db: Any) -> dict[str, Entity]:
    def load(ids: Any) -> dict[int, Any]:
        asked = sa.select(Product.__table__).where(Product.id.in_(list(ids)))
        with db.engine.connect() as connection:
            return {row.id: dict(row._mapping) for row in connection.execute(asked)}

    return {"product": Entity(load, 600)}


# absence: the same code as in the lab ---------------------------------------------------------

NAME, ZOE = "Zoe", "zoe@example.org"
SLOW = 30  # seconds
ACCOUNT = f"account:v1:{ZOE}"


def load_account(db: Any, email: str) -> dict[str, Any] | None:
    """The account with this address, or None."""
    asked = sa.select(User.id, User.name, User.email).where(User.email == email)
    with db.engine.connect() as connection:
        row = connection.execute(asked).first()
    return dict(row._mapping) if row else None


def find_account(cache: Any, db: Any, email: str, nap: float = 0.0) -> Any:
    """The account with this address, through the cache; absence only where nothing is.

    `nap`: seconds for which this visitor's process stands still before it stores; 0 in the lab.
    """
    key = f"account:v1:{email}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    account = load_account(db, email)
    if nap:
        time.sleep(nap)
    if account is None:
        cache.set(key, "null", ex=5, nx=True)
    else:
        cache.set(key, json.dumps(account), ex=300)
    return account


def create_account(db: Any, name: str, email: str) -> None:
    """A new user, committed."""
    with db.session() as session:
        session.add(User(name=name, email=email, bio="", role="customer", version=1))
        session.commit()


def judge_absence(answer: Any, trial: Trial) -> None:
    """From its return on everybody finds the account, in every order."""
    for before in ("nobody had asked for her", "a visitor had just asked for her"):
        world = trial.world()
        world.put("account:v1:alice@example.org", '{"id": 1}', seconds=300)
        world.put("session:abc", "somebody's session")
        if "visitor" in before:
            with world.trace.acting("visitor"):
                find_account(world.cache, world.db, ZOE)
        trial.call(answer, world.cache, world.db, NAME, ZOE)
        truth = load_account(world.truth, ZOE)
        trial.expect(
            truth is not None and truth["name"] == NAME,
            f"After sign_up the database has {short(truth)} under {ZOE}; expected was {NAME}.",
        )
        kept, left = world.peek(ACCOUNT), world.ttl(ACCOUNT)
        with world.trace.acting("visitor"):
            found = _found(world)
        when = f"When {before}, a visitor after sign_up"
        if found is None and any("refused" in e.detail for e in world.trace if e.on == ACCOUNT):
            trial.fail(f"{when} is told that there is no such account: the SET was refused.")
        trial.expect(
            found is not None,
            f"{when} is told that there is no such account: {ACCOUNT} holds null.",
        )
        trial.expect(
            found == truth,
            f"{when} finds {short(found)}; the database, and so find_account, has {short(truth)}.",
        )
        if kept is not None:
            trial.expect(
                left is not None, f"The copy under {ACCOUNT} has no TTL: it stays for ever."
            )
            trial.expect(
                0 < (left or 0) <= 300, f"The copy lives {left:.0f} s; expected was 300 s at most."
            )
        wanted = ("account:v1:alice@example.org", "session:abc")
        gone = [key for key in wanted if world.peek(key) is None]
        trial.expect(
            not gone, f"Gone from the cache: {' and '.join(gone)}, which are not about {ZOE}."
        )
    _failed_sign_up(answer, trial)

    def visits(cache: Any, db: Any) -> Any:
        return find_account(cache, db, ZOE) or "nobody"

    def signs_up(cache: Any, db: Any) -> Any:
        return answer(cache, db, NAME, ZOE) or "done"

    trial.every_order({"visitor": visits, "Zoe": signs_up}, _not_denied)
    trial.every_order({"visitor": visits, "Zoe": signs_up}, _not_denied, setup=visits)

    def visits_slowly(cache: Any, db: Any) -> Any:
        return find_account(cache, db, ZOE, SLOW)

    run = trial.play({"slow visitor": (0, visits_slowly), "Zoe": (1, signs_up)})
    trial.expect(
        _not_denied(run.world) is True,
        f"A visitor who had looked before, and took {SLOW} s until it stored what it knew, left"
        " null in the cache after sign_up was over.",
        trace=run,
    )


def _failed_sign_up(answer: Any, trial: Trial) -> None:
    world = trial.world()

    @sa.event.listens_for(world.db.engine, "before_cursor_execute")
    def full(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.lstrip().upper().startswith("INSERT"):
            cause = sqlite3.OperationalError("the disk is full")
            raise sa.exc.OperationalError(statement, None, cause)

    early: list[Any] = []

    def look(event: Any) -> None:
        found = _decoded(world.peek(ACCOUNT))
        if found is not None:
            early.append(found)

    world.trace.note("the database takes no more rows")
    world.trace.watchers.append(look)
    ended = trial.attempt(answer, world.cache, world.db, NAME, ZOE)
    trial.expect(
        ended.error is not None,
        "The database failed, and sign_up returned as if Zoe had an account.",
    )
    kept = _decoded(world.peek(ACCOUNT))
    trial.expect(
        kept is None,
        f"The database failed, and the cache says that there is an account: {short(kept)}.",
    )
    trial.expect(
        not early,
        f"The database refused the account, and for a moment the cache had"
        f" {short(early[0] if early else None)}: a visitor finds somebody who never was. First the"
        " commit.",
    )


def _not_denied(world: stage.World) -> str | bool:
    kept, truth = _decoded(world.cache.get(ACCOUNT)), load_account(world.db, ZOE)
    if world.cache.get(ACCOUNT) is None or kept == truth:
        return True
    if kept is None:
        return (
            "Zoe has signed up, and the cache holds null: a visitor who had looked before stored"
            " it afterwards, where nothing was."
        )
    return f"the cache holds {short(kept)} for an account that is {short(truth)}."


def _found(world: TrialWorld) -> Any:
    try:
        return find_account(world.cache, world.db, ZOE)
    except ValueError:
        return world.peek(ACCOUNT)


# guard ---------------------------------------------------------------------------------------

READERS = 200


class Flight(SingleFlight):
    """A SingleFlight that remembers under which keys it was used."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[Any] = set()

    def do(self, key: Any, call: Callable[[], Any]) -> Any:
        """As in SingleFlight."""
        self.keys.add(key)
        return super().do(key, call)


class HesitantFlight(SingleFlight):
    """A SingleFlight in front of which a thread may stand still, as it may anywhere.

    The stage switches at cache commands; so the pause is one.
    """

    cache: Any = None

    def do(self, key: Any, call: Callable[[], Any]) -> Any:
        """As in SingleFlight."""
        self.cache.exists("product:v1:1")
        return super().do(key, call)


def judge_guard(answer: Any, trial: Trial) -> str:
    """Together they cost one query and one fill, and everybody gets what they asked for."""
    world = trial.world()
    flight = SingleFlight()
    truth = world.truth.product(1)
    for turn in ("first", "second"):
        got = trial.call(answer, world.cache, world.db, flight, 1)
        _expect_value(trial, got, truth, f"The {turn} read of product 1")
        if turn == "first":
            _expect_copy(trial, world, "product:v1:1", truth, 300, "a first read")
    asked = world.db.queries
    trial.expect(asked == 1, f"Two reads asked {asked} queries; expected was 1.")

    shared = Flight()

    def reads(product_id: int) -> Callable[..., Any]:
        return lambda cache, db: answer(cache, db, shared, product_id)

    run = trial.play(stage.threads([reads(1)] * READERS), latency=0.01, capacity=1)
    _expect_everybody(trial, run, [1] * READERS)
    used = f"under {len(shared.keys)} different keys" if shared.keys else "not at all"
    how = f"the flight that they share was used {used}"
    trial.expect(
        run.queries == 1,
        f"{READERS} readers at once cost {run.queries} queries; expected was 1: {how}.",
        trace=run,
    )
    trial.expect(
        run.fills == 1,
        f"{READERS} readers at once cost {run.fills} fills; expected was 1: only the one that did"
        " the work stores it.",
        trace=run,
    )
    mixed = [1, 2] * (READERS // 2)
    run = trial.play(stage.threads([reads(id) for id in mixed]), latency=0.01, capacity=1)
    _expect_everybody(trial, run, mixed)
    trial.expect(
        run.queries == 2,
        f"{READERS} readers of two products cost {run.queries} queries; expected were 2.",
        trace=run,
    )

    def one_flight() -> list[stage.Actor]:
        own = HesitantFlight()

        def reader(cache: Any, db: Any) -> Any:
            own.cache = cache
            return answer(cache, db, own, 1)

        return stage.threads({"reader 1": reader, "reader 2": reader})

    def one_query(world: stage.World) -> str | None:
        asked = world.trace.queries
        if asked == 1:
            return None
        return (
            f"two readers together asked {asked} queries, not 1: one of them loaded when the"
            " other's flight was over. Either it had looked before, or the copy was not there yet;"
            " look, load and fill inside the flight."
        )

    trial.every_order(one_flight, one_query)
    return f"{READERS} readers at once cost 1 query and 1 fill, and everybody got their product."


def _expect_everybody(trial: Trial, run: stage.StageTrace, wanted: list[int]) -> None:
    truth = {id: run.world.db.product(id) for id in set(wanted)}
    for got, id in zip(run.answers.values(), wanted, strict=True):
        if isinstance(got, BaseException):
            trial.fail(
                f"One of {len(wanted)} readers at once got {type(got).__name__} instead of"
                f" product {id}.",
                trace=run,
            )
        trial.expect(
            got == truth[id],
            f"One of {len(wanted)} readers at once asked for product {id} and got {short(got)}.",
            trace=run,
        )


# What several of them expect -----------------------------------------------------------------


def _decoded(stored: Any) -> Any:
    try:
        return json.loads(stored)
    except (TypeError, ValueError):
        return None


def _expect_list(trial: Trial, loader: RecordingLoader, function: str) -> None:
    for ids in loader.asked:
        trial.expect(
            type(ids) in (list, tuple, set, frozenset),
            f"{function} called the loader with {short(ids)}; a loader takes a list of ids.",
        )


def _expect_value(trial: Trial, got: Any, truth: Any, who: str) -> None:
    shown, kind = short(got), type(got).__name__
    trial.expect(
        type(got) is type(truth), f"{who} gave {shown} (a {kind}); expected was {short(truth)}."
    )
    trial.expect(got == truth, f"{who} gave {shown}; the right answer is {short(truth)}.")


def _expect_all(trial: Trial, got: Any, truth: dict[Any, Any], who: str) -> None:
    trial.expect(
        isinstance(got, dict),
        f"{who} gave {short(got)} (a {type(got).__name__}); a dict by id was expected.",
    )
    absent = [id for id in truth if id not in got]
    trial.expect(not absent, f"{who} says nothing about {', '.join(map(short, absent))}.")
    surplus = [id for id in got if id not in truth]
    trial.expect(not surplus, f"{who} also has {', '.join(map(short, surplus[:3]))}.")
    for id, right in truth.items():
        found = got[id]
        trial.expect(
            type(found) is type(right) and found == right,
            f"{who} gave {short(found)} for {id}; the right answer is {short(right)}.",
        )


def _expect_copy(
    trial: Trial, world: TrialWorld, key: str, value: Any, seconds: int, after: str
) -> None:
    found = world.keys()
    named = ", ".join(found) or "nothing"
    trial.expect(key in found, f"After {after} the cache holds {named}; expected was {key}.")
    left = world.ttl(key)
    trial.expect(left is not None, f"The copy under {key} has no TTL: it would stay for ever.")
    trial.expect(
        seconds - min(seconds, 5) < (left or 0) <= seconds,
        f"The copy under {key} lives {left:.0f} s; expected was {seconds} s.",
    )
    stored = world.peek(key)
    trial.expect(
        isinstance(stored, str) and stored == "null"
        if value is None
        else _decoded(stored) == value,
        f"Under {key} is stored {short(stored)}; expected was {short(json.dumps(value))}.",
    )
