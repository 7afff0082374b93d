"""Checks and hints of lab 14: ten cases with a reason, an index, a cache removed, an N + 1."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cachelab.judge.trial import Trial, TrialWorld
from cachelab.judge.world import CACHE_KINDS
from cachelab.models import ttl as ttl_model
from cachelab.models import worth
from cachelab.origin import Size
from cachelab.record.verdict import short

# cases ---------------------------------------------------------------------------------------

VERDICTS = ("cache", "no cache", "fix the query")
RULES = {
    "writes": "it is written as often as it is read, or more often",
    "security": "it guards something: a stale answer lets somebody in",
    "traffic": "rate x time is too little to matter",
    "joins": "many sources can make it wrong, and few reads fall into its budget",
    "owner": "nobody can say when it becomes wrong, or who clears it",
    "query": "the query reads far more than it shows",
    "none": "no rule speaks against it, and it pays",
}
HOP = 0.0005  # seconds of a lookup or a store in the cache
WORTH = 0.1  # connections: less is not worth a copy that may be wrong
MUST = 3.0  # connections: whoever leaves so many on the table has to do something
LITTLE = 0.5  # connections: below it, traffic is a reason
FAR_MORE = 100  # rows read for each row shown
WORDS = 4  # of a reason, at least


@dataclass(frozen=True)
class Case:
    """One thing that somebody wants to cache.

    `keys`: how many different ones; `reads`, `writes`: of one key (of what it is made of), per
    second; `query`: seconds; `budget`: seconds that an answer may be old, None if nobody knows;
    `sources`: tables it is made of; `read`, `shown`: rows of one query; `guards`: whether a stale
    answer lets somebody in. `model` is one right answer: a verdict, a rule, a reason.
    """

    name: str
    keys: int
    reads: float
    writes: float
    query: float
    budget: float | None
    sources: int
    read: int
    shown: int
    model: tuple[str, str, str]
    guards: bool = False


CASES = (
    Case(
        "refund",
        *(50, 0.02, 0.000_001, 0.004, 0, 1, 3, 3),
        ("no cache", "security", "Stale for a second is a refund paid out by a dismissed clerk."),
        guards=True,
    ),
    Case(
        "courier",
        *(300, 0.2, 1, 0.004, 5, 1, 1, 1),
        ("no cache", "writes", "Five writes a read: deleted at each, one read in six would hit."),
    ),
    Case(
        "auction",
        *(1, 2_000, 1, 0.02, 1, 1, 1, 1),
        ("cache", "none", "Written each second, but read 2,000 times: a TTL of 1 s is enough."),
    ),
    Case(
        "best sellers",
        *(5, 2, 1, 1.2, 3_600, 2, 40_000, 5),
        ("cache", "none", "12 connections busy; an hour old is fine. Or keep the turnover."),
    ),
    Case(
        "my orders",
        *(100_000, 0.000_5, 0.000_01, 0.04, 0, 1, 200_000, 200),
        ("fix the query", "query", "It scans all orders to show 200: an index on user_id."),
    ),
    Case(
        "search",
        *(400_000, 0.000_1, 0.5, 0.03, 60, 6, 300, 20),
        ("no cache", "joins", "Six tables, and 0.6 % of the reads would find a copy of a minute."),
    ),
    Case(
        "countries",
        *(1, 2_000, 0.000_000_03, 0.004, 86_400, 1, 250, 250),
        ("cache", "none", "It changes once a year; an hour of TTL, in each process."),
    ),
    Case(
        "partner's rate",
        *(30, 2, 0.01, 0.08, None, 1, 1, 1),
        ("no cache", "owner", "They tell nobody when they change it: agree on a budget first."),
    ),
    Case(
        "product page",
        *(500, 0.1, 0.000_1, 0.004, 300, 1, 1, 1),
        ("no cache", "traffic", "50 x 4 ms keep 0.2 of one connection busy. Nobody would notice."),
    ),
    Case(
        "export",
        *(1, 0.000_02, 1, 3.0, 60, 3, 200_000, 200_000),
        ("no cache", "traffic", "Twice a day: no second reader ever meets the copy of the first."),
    ),
)


def judge_cases(answer: Any, trial: Trial) -> str:
    """Each verdict holds against the case's figures, and the rule that is named fits."""
    given = trial.call(answer)
    if not isinstance(given, Mapping):
        trial.fail(
            f"judge_cases gave {short(given)}; expected was a dict such as"
            ' {"refund": ("no cache", "security", "why, in words of your own")}.'
        )
    missing = [case.name for case in CASES if case.name not in given]
    if missing:
        trial.fail(f"Of the ten cases these are missing: {', '.join(missing)}.")
    for case in CASES:
        entry = given[case.name]
        if not isinstance(entry, (tuple, list)) or len(entry) != 3:
            trial.fail(
                f"{case.name}: {short(entry)} was given; expected were three texts: a verdict, a"
                " rule and a reason."
            )
        verdict, rule, _ = entry
        if not isinstance(verdict, str) or verdict not in VERDICTS:
            trial.fail(f"{case.name}: {short(verdict)} is none of {', '.join(VERDICTS)}.")
        if not isinstance(rule, str) or rule not in RULES:
            trial.fail(f"{case.name}: {short(rule)} is none of the rules {', '.join(RULES)}.")
        objection = _against(case, verdict)
        if objection:
            trial.fail(f"{case.name}, {verdict!r}: {objection}.")
        misfit = _does_not_fit(case, verdict, rule)
        if misfit:
            trial.fail(f"{case.name}, {verdict!r} because of {rule!r}: {misfit}.")
    _expect_reasons(trial, given)
    return "Ten verdicts that hold against the figures, each with its rule and a reason."


def _expect_reasons(trial: Trial, given: Mapping[str, Any]) -> None:
    texts: Counter[str] = Counter()
    for case in CASES:
        reason = given[case.name][2]
        words = reason.split() if isinstance(reason, str) else []
        if len(words) < WORDS:
            trial.fail(
                f"{case.name}: the reason is {short(reason)}; expected were at least {WORDS} words,"
                " for whoever asks in a year."
            )
        texts[" ".join(words).lower()] += 1
    often = max(texts.values())
    if often > 2:
        trial.fail(f"The same reason stands at {often} cases; expected was one for each of them.")


def _saved(case: Case) -> float:
    """Connections set free by a copy that uses up the budget."""
    if not case.budget:
        return 0.0
    total = case.keys * case.reads
    return worth.saved_per_second(total, _hits(case), HOP, case.query, HOP)


def _hits(case: Case) -> float:
    return ttl_model.hit_ratio(case.reads, case.budget) if case.budget else 0.0


def _busy(case: Case) -> float:
    return case.keys * case.reads * case.query


def _reads_too_much(case: Case) -> bool:
    return case.read >= FAR_MORE * case.shown


def _against(case: Case, verdict: str) -> str:
    """What speaks against the verdict, "" if nothing does."""
    rows = f"it reads {case.read:,} row{'s' * (case.read > 1)} to show {case.shown:,}"
    if verdict == "fix the query":
        return "" if _reads_too_much(case) else f"{rows}: there is nothing to mend in it"
    if verdict == "no cache":
        if _reads_too_much(case):
            return f"that leaves the query as it is, and {rows}"
        if _saved(case) >= MUST:
            return (
                f"its queries keep {_busy(case):.1f} connections busy, and a copy within the budget"
                f" would free {_saved(case):.1f} of them"
            )
        return ""
    if case.budget is None:
        return "nobody can say how old it may be, so no TTL is right"
    if case.budget == 0:
        return "the budget is 0 s, so no copy is good enough"
    if _saved(case) < WORTH:
        return (
            f"{_hits(case):.1%} of the reads would hit within the budget, which frees"
            f" {max(0.0, _saved(case)):.2f} of one connection, its own trips taken off; a copy must"
            f" free {WORTH:g} at least"
        )
    return ""


def _does_not_fit(case: Case, verdict: str, rule: str) -> str:
    """Why the rule is no reason for the verdict, "" if it is one."""
    goes_with = {"query": "fix the query", "none": "cache"}.get(rule, "no cache")
    if goes_with != verdict:
        return f"that rule leads to {goes_with!r}"
    budget = "no" if case.budget is None else f"a budget of {case.budget:,g} s and"
    facts = {
        "writes": (
            case.reads <= case.writes,
            f"there are {case.reads / case.writes:,.4g} reads for each write",
        ),
        "security": (case.guards, "a stale answer lets nobody in"),
        "traffic": (
            _busy(case) < LITTLE,
            f"its queries keep {_busy(case):.1f} connections busy",
        ),
        "joins": (
            case.sources >= 4,
            f"it is made of {case.sources} table{'s' * (case.sources > 1)}",
        ),
        "owner": (case.budget is None, f"it has {budget} a TTL that can keep it"),
    }
    fits, fact = facts.get(rule, (True, ""))
    return "" if fits else fact


@dataclass(frozen=True)
class Review:
    """What a learner judged and wrote, each beside the model answer; prints as a list."""

    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(self.lines)


def review(judged: Callable[[], Any]) -> Review:
    """Your verdict and reason beside the model's; the model's only where you gave a reason."""
    try:
        given = judged()
    except NotImplementedError:
        return Review(("Nothing to compare yet: write your own reasons first.",))
    lines: list[str] = []
    for case in CASES:
        entry = given.get(case.name) if isinstance(given, Mapping) else None
        whole = isinstance(entry, (tuple, list)) and len(entry) == 3 and bool(str(entry[2]).strip())
        yours = f"{entry[0]}, {entry[1]}: {entry[2]}" if whole and entry else "no reason yet"
        verdict, rule, reason = case.model
        model = f"{verdict}, {rule}: {reason}" if whole else "shown when you have written yours"
        lines += [case.name, f"   you    {yours}", f"   model  {model}"]
    return Review(tuple(lines))


# index ---------------------------------------------------------------------------------------

SLOW = (
    "SELECT id, placed_on, total_cents FROM orders"
    " WHERE user_id = :user AND substr(placed_on, 1, 7) = substr(:first, 1, 7)"
    " ORDER BY placed_on DESC, id DESC"
)
SHOP = Size(users=20, products=20, articles=5, comments=20, orders=6_000)
MARCH = {"user": 1, "first": "2025-03-01", "after": "2025-04-01"}
ASKED = (
    MARCH,
    {"user": 2, "first": "2025-12-01", "after": "2026-01-01"},
    {"user": 3, "first": "2025-02-01", "after": "2025-03-01"},
    {"user": 999, "first": "2025-03-01", "after": "2025-04-01"},
    {"user": 1, "first": "2030-01-01", "after": "2030-02-01"},
)
# The edges of the month, and twins: same day, same total.
NEW = (
    (1, "2025-02-28", 100),
    (1, "2025-03-01", 200),
    (1, "2025-03-31", 300),
    (1, "2025-03-31", 300),
    (1, "2025-04-01", 400),
)
MORE = 3_000  # orders that the query does not show
GROWTH = 1_000  # steps that so many orders may add
MOST_STEPS = 3_000_000
MOST_INDEXES = 2


def judge_index(answer: Any, trial: Trial) -> str:
    """The same orders; and the work does not grow with orders that are not shown."""
    world = trial.world(SHOP)
    before = _digest(trial, world)
    given = trial.call(answer, world.db)
    if not isinstance(given, (str, sa.TextClause)):
        trial.fail(f"repair gave {short(given)}; expected was the text of the repaired query.")
    sql = str(given).strip().rstrip(";")
    trial.expect(sql, "repair gave an empty text; expected was that of the repaired query.")
    trial.call(answer, world.db)
    trial.expect(
        _digest(trial, world) == before,
        "The orders themselves are no longer what they were; expected was another way to them.",
    )
    _expect_same(trial, world, sql, "")
    _sell(trial, world, NEW)
    _expect_same(trial, world, sql, "After five new orders, ")
    _expect_no_growth(trial, world, sql)
    with _database(world) as connection:
        asked = "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = 'orders'"
        indexes = connection.execute(asked).fetchone()[0]
    trial.expect(
        indexes <= MOST_INDEXES,
        f"There are {indexes} indexes on orders now, and each new order has to write them all;"
        f" expected were {MOST_INDEXES} at most.",
    )
    return "The same orders in the same order, and none is read that is not shown."


def _expect_same(trial: Trial, world: TrialWorld, sql: str, when: str) -> None:
    for asked in ASKED:
        right, _ = _steps(trial, world, SLOW, asked)
        found, _ = _steps(trial, world, sql, asked)
        case = f"{when}customer {asked['user']}, {str(asked['first'])[:7]}: the repaired query gave"
        case = case[:1].upper() + case[1:]
        if found and len(found[0]) != 3:
            trial.fail(f"{case} {len(found[0])} columns; expected were id, placed_on, total_cents.")
        if found == right:
            continue
        lost = [row for row in right if row not in found]
        extra = [row for row in found if row not in right]
        if lost:
            trial.fail(
                f"{case} {len(found)} orders; expected were {len(right)}, and the order of"
                f" {lost[0][1]} with id {lost[0][0]} is missing."
            )
        if extra:
            trial.fail(
                f"{case} {len(found)} orders; expected were {len(right)}, and {short(extra[0])}"
                " is none of them."
            )
        if len(found) != len(right):
            trial.fail(f"{case} {len(found)} orders; expected were {len(right)}: some are twice.")
        place, one, other = next(
            (n, here, there)
            for n, (here, there) in enumerate(zip(found, right, strict=True), 1)
            if here != there
        )
        trial.fail(
            f"{case} the right orders in another order: number {place} is {one[1]} with id"
            f" {one[0]}; expected was {other[1]} with id {other[0]}."
        )


def _expect_no_growth(trial: Trial, world: TrialWorld, sql: str) -> None:
    _, first = _steps(trial, world, sql, MARCH)
    _sell(trial, world, [(1, f"2025-{5 + n % 6:02}-{1 + n % 28:02}", n) for n in range(MORE)])
    _, second = _steps(trial, world, sql, MARCH)
    _sell(trial, world, [(2 + n % 15, f"2025-03-{1 + n % 28:02}", n) for n in range(MORE)])
    _, third = _steps(trial, world, sql, MARCH)
    of_the_customer, of_the_month = second - first > GROWTH, third - second > GROWTH
    if not of_the_customer and not of_the_month:
        return
    reads = (
        "every order of the shop"
        if of_the_customer and of_the_month
        else "every order of the customer"
        if of_the_customer
        else "every order of the month"
    )
    trial.fail(
        f"The query still reads {reads} (its plan: {_plan(trial, world, sql)}); expected was that"
        " it reads only what it shows."
    )


def _steps(
    trial: Trial, world: TrialWorld, sql: str, asked: Mapping[str, Any]
) -> tuple[list[tuple[Any, ...]], int]:
    """The rows, and how many steps SQLite took for them."""
    each, taken = 10, 0

    def count() -> int:
        nonlocal taken
        taken += each
        return taken > MOST_STEPS  # true: stop it

    with _database(world) as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.set_progress_handler(count, each)
        try:
            return connection.execute(sql, dict(asked)).fetchall(), taken
        except (sqlite3.Error, sqlite3.Warning) as error:
            if taken > MOST_STEPS:
                trial.fail(f"The query that repair gave did not end in {MOST_STEPS:,} steps.")
            trial.fail(f"The query that repair gave cannot be run: {short(str(error))}.")


def _plan(trial: Trial, world: TrialWorld, sql: str) -> str:
    rows, _ = _steps(trial, world, f"EXPLAIN QUERY PLAN {sql}", MARCH)
    return "; ".join(str(row[-1]) for row in rows)[:150]


def _sell(trial: Trial, world: TrialWorld, orders: Any) -> None:
    rows = [(user, day, cents) for user, day, cents in orders]
    insert = (
        "INSERT INTO orders (user_id, product_id, quantity, total_cents, placed_on)"
        " VALUES (?1, 1, 1, ?3, ?2)"
    )
    try:
        with _database(world) as connection, connection:
            connection.executemany(insert, rows)
    except sqlite3.Error as error:
        trial.fail(f"After repair no order can be stored any more: {short(str(error))}.")


def _digest(trial: Trial, world: TrialWorld) -> Any:
    asked = "SELECT count(*), sum(id * user_id), sum(total_cents), min(placed_on) FROM orders"
    try:
        with _database(world) as connection:
            return connection.execute(asked).fetchone()
    except sqlite3.Error as error:
        trial.fail(f"After repair the orders cannot be read any more: {short(str(error))}.")


@contextlib.contextmanager
def _database(world: TrialWorld) -> Iterator[sqlite3.Connection]:
    """The world's file, by a connection that nobody else has."""
    connection = sqlite3.connect(str(world.truth.engine.url.database), timeout=0.5)
    try:
        yield connection
    finally:
        connection.close()


# uncached ------------------------------------------------------------------------------------


def judge_uncached(answer: Any, trial: Trial) -> str:
    """Right after each write, by one query, with nothing in a cache."""
    world = trial.world()
    world.put("spent:v1:1", "1", 600)  # what the old release has left behind
    _expect_spent(answer, trial, world, "At first")
    _sell(trial, world, [(1, "2026-01-02", 1_350), (4, "2026-01-02", 50), (20, "2026-01-02", 7)])
    _expect_spent(answer, trial, world, "After a new order")
    _sell(trial, world, [(1, "2026-01-02", 1_350)])  # its twin
    _expect_spent(answer, trial, world, "After the same order once more")
    for change, when in (
        ("UPDATE orders SET total_cents = total_cents - 10", "After a discount"),
        ("UPDATE orders SET user_id = 4 WHERE user_id = 1", "After two accounts became one"),
        ("DELETE FROM orders WHERE user_id = 4", "After all orders were cancelled"),
    ):
        with world.truth.engine.begin() as connection:
            connection.execute(sa.text(change))
        _expect_spent(answer, trial, world, when)
    world.cache_down()
    _expect_spent(answer, trial, world, "With a dead cache")
    return "Right after every write, by one query, and there is nothing left to invalidate."


def _expect_spent(answer: Any, trial: Trial, world: TrialWorld, when: str) -> None:
    for user in (1, 4, 20, 999):
        orders, right = _orders_of(world, user)
        start = len(world.trace)
        got = trial.call(answer, world.cache, world.db, user)
        part = world.trace.events[start:]
        said = f"{when} spent(cache, db, {user}) gave {short(got)}"
        kind = "" if type(got) is int else f" (a {type(got).__name__})"
        trial.expect(
            type(got) is int and got == right,
            f"{said}{kind}; expected was {right}"
            + (", as this customer has no orders." if not orders else "."),
        )
        asked = [event for event in part if event.kind == "query"]
        trial.expect(
            len(asked) == 1,
            f"{said}, which is right, with {len(asked)} queries for {orders} orders; expected was"
            " 1 query.",
        )
        rows = sum(_rows(event.detail) for event in asked)
        trial.expect(
            rows <= orders + 1,
            f"{said}, which is right, but fetched {rows} rows; this customer has {orders} orders.",
        )
        used = [event for event in part if event.kind in CACHE_KINDS]
        if used:
            trial.fail(
                f"{said}, which is right, and still goes to the cache ("
                f"{f'{used[0].what} {used[0].on}'.strip()}); expected was none of it."
            )
        trial.expect(
            not any(event.kind == "write" for event in part),
            f"{said}, which is right, and wrote into the database; expected was only to read.",
        )


def _orders_of(world: TrialWorld, user: int) -> tuple[int, int]:
    asked = "SELECT count(*), coalesce(sum(total_cents), 0) FROM orders WHERE user_id = ?"
    with _database(world) as connection:
        count, total = connection.execute(asked, (user,)).fetchone()
    return count, total


def _rows(detail: str) -> int:
    """'7 rows, takes 4 ms' -> 7."""
    number = detail.split(" ", 1)[0]
    return int(number) if number.isdigit() else 0


# n_plus_one ----------------------------------------------------------------------------------


MANY = 120  # orders: more than the LIMIT that somebody might put on a page


def judge_n_plus_one(answer: Any, trial: Trial) -> str:
    """Every order with its product's name, by a number of queries that does not grow."""
    world = trial.world()
    _sell(trial, world, [(1, "2026-01-02", 1_350), (1, "2026-01-02", 1_350)])  # twins
    for user in (1, 4, 999):
        _expect_page(answer, trial, world, user, "")
    with world.truth.engine.begin() as connection:
        connection.execute(sa.text("UPDATE products SET name = 'new lamp' WHERE id = 1"))
    _expect_page(answer, trial, world, 1, "After a product got a new name, ")
    with world.truth.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM products WHERE id = 1"))
    _expect_page(answer, trial, world, 1, "After product 1 was removed, ")
    _sell(trial, world, [(1, "2026-01-03", 100 + n) for n in range(MANY)])
    _expect_page(answer, trial, world, 1, f"After {MANY} more orders, ")
    return f"Every order with its product's name, by no more queries for {MANY} than for three."


def _expect_page(answer: Any, trial: Trial, world: TrialWorld, user: int, when: str) -> None:
    with _database(world) as connection:
        asked = (
            "SELECT o.id, p.name, o.quantity FROM orders o LEFT JOIN products p"
            " ON p.id = o.product_id WHERE o.user_id = ? ORDER BY o.id DESC"
        )
        found = connection.execute(asked, (user,)).fetchall()
    right = [dict(zip(("id", "product", "quantity"), row, strict=True)) for row in found]
    start = len(world.trace)
    got = trial.call(answer, world.db, user)
    queries = [event for event in world.trace.events[start:] if event.kind == "query"]
    said = f"{when}order_page(db, {user}) gave"
    if type(got) is not list:
        trial.fail(f"{said} {short(got)}; expected was a list of {len(right)} dicts.")
    wanted = {"id", "product", "quantity"}
    if not all(isinstance(each, Mapping) and set(each) == wanted for each in got):
        trial.fail(f'{said} {short(got)}; expected were dicts of "id", "product" and "quantity".')
    got = [dict(each) for each in got]
    lost = [each for each in right if each["id"] not in [one["id"] for one in got]]
    if lost:
        trial.fail(
            f"{said} {len(got)} orders; expected were {len(right)}, and {short(lost[0])} is"
            " missing."
        )
    trial.expect(len(got) == len(right), f"{said} {len(got)} orders; expected were {len(right)}.")
    for each, expected in zip(got, right, strict=True):
        trial.expect(
            each == expected, f"{said} {short(each)}; expected at this place was {short(expected)}."
        )
    trial.expect(
        len(queries) <= 2,
        f"{said} what it should, with {len(queries)} queries for {len(right)} orders; expected were"
        " 2 at most.",
    )
    rows = sum(_rows(event.detail) for event in queries)
    trial.expect(
        rows <= 2 * len(right) + 2,
        f"{said} what it should, but fetched {rows} rows to show {len(right)} orders.",
    )
