"""Checks and hints of lab 09: after a rename, is the old name anywhere?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import sqlalchemy as sa

from cachelab import stage
from cachelab.judge.trial import Trial
from cachelab.judge.world import TrialWorld
from cachelab.record.verdict import short

KEY, PUBLIC = "user:v1:1", "user:public:v1:1"
LOG, GROUP = "users:log", "invalidation"
OLD, NEW = "Alice", "Alicia"

# explicit ------------------------------------------------------------------------------------


def judge_explicit(answer: Any, trial: Trial) -> str:
    """The row is new, both copies are gone after the commit, and nobody else's are."""
    world = trial.world()
    others = ["user:v1:2", "user:v1:10", "user:v1:11", "user:public:v1:12", "price:v1:1"]
    for key in (KEY, PUBLIC, *others):
        world.put(key, f'"{OLD}"', 300)
    got = trial.call(answer, world.cache, world.db, 1, NEW)
    _expect_renamed(trial, world, "After rename(cache, db, 1, 'Alicia')")
    for key in (KEY, PUBLIC):
        held = world.peek(key)
        trial.expect(held is None, f"After the rename {key} still holds {short(held)}.")
    gone = [key for key in others if world.peek(key) is None]
    trial.expect(not gone, f"The rename of user 1 also deleted {', '.join(gone)}.")
    trial.expect(got is True, f"rename gave {short(got)}; expected was True, the copies are gone.")
    held_by_2 = world.truth.user(2) or {}
    trial.expect(held_by_2.get("name") == "Bruno", "The rename of user 1 also changed user 2.")

    world = trial.world()
    # Until the commit everybody reads the old row; somebody who does so fills at that moment.
    for key in (KEY, PUBLIC):
        world.on("commit", partial(world.put, key, f'"{OLD}"', 300))
    trial.call(answer, world.cache, world.db, 1, NEW)
    left = [key for key in (KEY, PUBLIC) if world.peek(key) is not None]
    trial.expect(
        not left,
        f"A reader filled {' and '.join(left)} just before the commit, and that stayed: the delete"
        " has to come after the commit.",
    )

    world = trial.world()
    got = trial.call(answer, world.cache, world.db, 1, NEW)
    trial.expect(
        got is True,
        f"With no copy in the cache rename gave {short(got)}; expected was True: there is none.",
    )

    for which, fails in (("dead", TrialWorld.cache_down), ("hanging", TrialWorld.cache_hangs)):
        world = trial.world()
        fails(world)
        ended = trial.attempt(answer, world.cache, world.db, 1, NEW)
        if ended.error is not None:
            trial.fail(
                f"With a {which} cache rename raised {type(ended.error).__name__}; expected was"
                " False, and the new name in the database."
            )
        _expect_renamed(trial, world, f"With a {which} cache")
        trial.expect(
            ended.value is False,
            f"With a {which} cache rename gave {short(ended.value)}; expected was False, as the"
            " copies could not be deleted.",
        )
    _expect_told_of_one_lost_command(answer, trial)

    world = trial.world()
    world.break_database()
    ended = trial.attempt(answer, world.cache, world.db, 1, NEW)
    trial.expect(
        ended.error is not None,
        f"The database failed, and rename gave {short(ended.value)}; the error has to be raised.",
    )
    return "Renamed, and both copies gone after the commit; a dead cache is told of, not raised."


def _expect_told_of_one_lost_command(answer: Any, trial: Trial) -> None:
    """One command gets lost: True would be wrong as long as a copy is there."""
    for lost in (1, 2):
        world = trial.world()
        for key in (KEY, PUBLIC):
            world.put(key, f'"{OLD}"', 300)
        _lose(world, lost)
        ended = trial.attempt(answer, world.cache, world.db, 1, NEW)
        left = [key for key in (KEY, PUBLIC) if world.peek(key) is not None]
        said = type(ended.error).__name__ if ended.error else short(ended.value)
        trial.expect(
            ended.value is False or not left,
            f"Command number {lost} to the cache got lost, {' and '.join(left)} stayed, and rename"
            f" {'raised' if ended.error else 'gave'} {said}; expected was False.",
        )


def _lose(world: TrialWorld, number: int) -> Callable[[], None]:
    """The `number`th command from now on does not reach the cache; returns how to call it off."""
    armed = [True]

    def cut() -> None:
        if armed:
            world.cache_down()

    if number == 1:
        cut()
    else:
        world.after_cache_command(number - 1, cut)
    world.after_cache_command(number, world.cache_up)

    def call_off() -> None:
        armed.clear()
        world.cache_up()

    return call_off


def _expect_renamed(trial: Trial, world: TrialWorld, when: str) -> None:
    name = (world.truth.user(1) or {}).get("name")
    trial.expect(name == NEW, f"{when} the database has the name {name!r}; expected was {NEW!r}.")


# keys ----------------------------------------------------------------------------------------


ARTICLE = sa.text(
    "INSERT INTO articles (id, author_id, title, views) VALUES (:number, 3, 'News', 0)"
)
COMMENT = sa.text(
    "INSERT INTO comments (id, article_id, user_id, text) VALUES (:id, :number, 4, 'Again.')"
)


def judge_keys(answer: Any, trial: Trial) -> str:
    """Of the pages of a small shop exactly those that show a user are named."""
    world = trial.world()
    most = 0
    for user in range(1, 21):
        most = max(most, _expect_pages(answer, trial, world, user))
    with world.truth.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO comments (id, article_id, user_id, text)"
                " VALUES (901, 5, 1, 'First!'), (902, 5, 6, 'Thanks.')"
            )
        )
        connection.execute(sa.text("DELETE FROM comments WHERE user_id = 2"))
        connection.execute(sa.text("UPDATE articles SET author_id = 1 WHERE id = 2"))
    for user in (1, 2, 6):
        most = max(
            most, _expect_pages(answer, trial, world, user, ", after some comments changed,")
        )
    with world.truth.engine.begin() as connection:
        for number in range(6, 126):
            added = {"number": number, "id": 1_000 + number}
            connection.execute(ARTICLE, added)
            connection.execute(COMMENT, added)
    most = max(most, _expect_pages(answer, trial, world, 4, ", after 120 comments more,"))
    trial.expect(not world.db.writes, "keys_of changed the database; it is only to read.")
    return f"No page shows an old name, for 20 users with up to {most} keys each."


def _expect_pages(answer: Any, trial: Trial, world: TrialWorld, user: int, when: str = "") -> int:
    got = trial.call(answer, world.db, user)
    named = _texts(got, trial, f"keys_of(db, {user})")
    true = _pages_with(world, user)
    who = (world.truth.user(user) or {})["name"]
    missed, needless = sorted(true - named), sorted(named - true)
    if missed:
        trial.fail(
            f"User {user} ({who}){when} is renamed, the {len(named)} keys of your list are deleted,"
            f" and the old name is still in {len(missed)} of {len(true)}: {_some(missed)}."
        )
    if needless:
        trial.fail(
            f"For user {user} ({who}){when} the list names {_some(needless)}, which"
            f" {'does' if len(needless) == 1 else 'do'} not hold this name."
        )
    return len(true)


def _pages_with(world: TrialWorld, user: int) -> set[str]:
    """The keys of all pages that show this user, found by making every page."""
    with world.truth.engine.connect() as connection:
        articles = connection.execute(sa.text("SELECT id, author_id FROM articles")).all()
        comments = connection.execute(sa.text("SELECT article_id, user_id FROM comments")).all()
    author = {article.id: article.author_id for article in articles}
    pages = {f"user:v1:{user}", f"user:public:v1:{user}"}
    pages |= {f"article:v1:{number}" for number, wrote in author.items() if wrote == user}
    for comment in comments:
        if comment.user_id == user:
            pages.add(f"comments:v1:{comment.article_id}")
            pages.add(f"feed:v1:{author[comment.article_id]}")
    return pages


def _texts(got: Any, trial: Trial, said: str) -> set[str]:
    if isinstance(got, (str, bytes, dict)) or not isinstance(got, Iterable):
        trial.fail(f"{said} gave {short(got)} (a {type(got).__name__}); expected was a list.")
    found = []
    for number, one in enumerate(got):
        if number >= 1_000:
            trial.fail(f"{said} names more than 1,000 keys; the shop has not so many.")
        found.append(one)
    wrong = [one for one in found if not isinstance(one, str)]
    if wrong:
        trial.fail(f"{said} names {short(wrong[0])}, which is not a text.")
    return set(found)


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


# tagged --------------------------------------------------------------------------------------

FORGET = """
local now = redis.call('INCR', KEYS[1])
for i = 2, #KEYS do redis.call('SET', KEYS[i], now) end
return now
"""


def forget(cache: Any, *names: str) -> None:
    """The same as in the lab."""
    cache.eval(FORGET, 1 + len(names), "tags:clock", *(f"tag:{name}" for name in names))


def judge_tagged(answer: Any, trial: Trial) -> str:
    """A copy counts until one of its tags is forgotten, whenever its query was."""
    values: list[Any] = [{"name": OLD}, 0, "", [], None, False]
    for value in values:
        _expect_loads(answer, trial, value)
    _expect_end(answer, trial)
    _expect_voids(answer, trial)

    def reads(cache: Any, db: Any) -> Any:
        return answer(cache, KEY, ["user:1"], lambda: db.user(1))

    def writes(cache: Any, db: Any) -> None:
        db.update_user(1, name=NEW)
        forget(cache, "user:1")

    def next_reader(world: stage.World) -> str | bool:
        got, truth = reads(world.cache, world.db), world.db.user(1)
        if got == truth:
            return True
        if isinstance(got, dict) and got.get("name") == OLD:
            return (
                "the change was committed and the tag forgotten, and the next reader still gets"
                " the old name."
            )
        return f"the next reader gets {short(got)} instead of the row."

    found = trial.every_order({"one": reads, "another": reads, "writer": writes}, next_reader)
    trial.every_order({"one": reads, "writer": writes}, next_reader, setup=reads)
    trial.every_order(
        {"one": reads, "writer": writes, "second writer": writes}, next_reader, setup=reads
    )
    return f"What was forgotten is never served; {_uncapital(found.summary)}"


def _expect_loads(answer: Any, trial: Trial, value: Any) -> None:
    world, calls = trial.world(), 0

    def load() -> Any:
        nonlocal calls
        calls += 1
        return value

    for number in (1, 2, 3):
        got = trial.call(answer, world.cache, KEY, ["user:1"], load)
        trial.expect(
            type(got) is type(value) and got == value,
            f"Read number {number} of {short(value)} gave {short(got)}.",
        )
    trial.expect(calls > 0, "load was never called.")
    trial.expect(
        calls == 1, f"Three reads of {short(value)} called load {calls} times; expected was once."
    )
    left = world.ttl(KEY)
    trial.expect(world.peek(KEY) is not None, f"After a read nothing is under {KEY}.")
    trial.expect(left is not None, f"The copy under {KEY} has no TTL: it would stay for ever.")
    trial.expect(299 <= (left or 0) <= 300, f"The copy lives {left:.0f} s; expected was 300 s.")


def _expect_end(answer: Any, trial: Trial) -> None:
    """A copy ends 300 s after its query, however often it is read."""
    world, calls = trial.world(), 0

    def load() -> str:
        nonlocal calls
        calls += 1
        return f"load {calls}"

    for seconds in (0, 200, 101):
        world.fast_forward(seconds)
        trial.call(answer, world.cache, KEY, ["user:1"], load)
    trial.expect(
        calls == 2,
        f"Read at 0 s, 200 s and 301 s, a copy was loaded {calls} time{'s' * (calls > 1)}; expected"
        " was 2: it is kept for 300 s from its load, and a hit does not make it younger.",
    )


def _expect_voids(answer: Any, trial: Trial) -> None:
    world, loads = trial.world(), {"a": 0, "b": 0, "c": 0}
    tags = {"a": ["user:1", "article:7"], "b": ["user:1"], "c": []}

    def read(key: str) -> None:
        def load() -> str:
            loads[key] += 1
            return f"{key} {loads[key]}"

        got = trial.call(answer, world.cache, key, list(tags[key]), load)
        trial.expect(
            got == f"{key} {loads[key]}",
            f"A read of {key}, tagged {tags[key]}, gave {short(got)}; the newest is"
            f" {key + ' ' + str(loads[key])!r}.",
        )

    def expect(after: str, a: int, b: int, c: int) -> None:
        for _ in range(2):
            for key in loads:
                read(key)
        for key, wanted in zip(loads, (a, b, c), strict=True):
            few = loads[key] < wanted
            said = f"After {after} the copy tagged {tags[key]} was"
            if few:
                trial.fail(f"{said} served although it is void.")
            trial.expect(
                loads[key] == wanted,
                f"{said} loaded {loads[key]} times in all; expected was {wanted}.",
            )

    expect("the first reads", 1, 1, 1)
    for names, wanted in (
        (("user:1",), (2, 2, 1)),
        (("user:2",), (2, 2, 1)),
        (("article:7",), (3, 2, 1)),
        (("user:1", "article:7"), (4, 3, 1)),
    ):
        with world.trace.acting("writer"):
            forget(world.cache, *names)
        expect(f"forget(cache, {', '.join(map(repr, names))})", *wanted)
    for _ in range(10):
        forget(world.cache, "user:9")  # the clock gets a second digit
    expect("ten changes of user 9", 4, 3, 1)
    forget(world.cache, "user:1")
    expect("one more of user 1, at time 15,", 5, 4, 1)


# consume -------------------------------------------------------------------------------------


def judge_consume(answer: Any, trial: Trial) -> str:
    """Every event is handled, also those of the dead, and acknowledged only then."""
    world = trial.world()
    _prepare(world.cache)
    got = trial.call(answer, world.cache, "one")
    trial.expect(got == 0 and got is not False, f"With no event consume gave {short(got)}, not 0.")

    for user in (1, 2, 7, 1):
        _publish(world.cache, user)
    for user in (1, 2, 3, 7):
        world.put(f"user:v1:{user}", "{}", 300)
    got = trial.call(answer, world.cache, "one")
    left = [user for user in (1, 2, 7) if world.peek(f"user:v1:{user}") is not None]
    trial.expect(
        not left,
        f"Events for the users 1, 2, 7 and 1 waited; after a pass user:v1:{(left or [0])[0]} is"
        " still there.",
    )
    trial.expect(
        world.peek("user:v1:3") is not None, "user:v1:3 was deleted without an event for it."
    )
    trial.expect(got == 4, f"Four events were handled, and consume gave {short(got)}.")
    pending = _pending(world)
    trial.expect(
        not pending, f"After the pass {pending} of 4 events are not acknowledged: they come again."
    )
    got = trial.call(answer, world.cache, "another")
    trial.expect(got == 0, f"Nothing was new, and a second consumer handled {short(got)} events.")

    world = trial.world()
    _prepare(world.cache)
    for user in range(250):
        _publish(world.cache, user)
    handled = 0
    for _ in range(20):
        handled += int(trial.call(answer, world.cache, "one") or 0)
        if handled >= 250:
            break
    trial.expect(
        handled == 250 and not _pending(world),
        f"After 250 events and 20 passes {handled} were handled and {_pending(world)} are not"
        " acknowledged.",
    )
    _expect_left_alone(answer, trial)
    found = _expect_all_told(answer, trial)
    _expect_none_dropped(answer, trial)
    return f"No event is lost and none is taken from a consumer at work; {_uncapital(found)}"


def _prepare(cache: Any) -> None:
    cache.xgroup_create(LOG, GROUP, id="0", mkstream=True)


def _publish(cache: Any, user: int) -> None:
    cache.xadd(LOG, {"user": user})


def _pending(world: Any) -> int:
    with world.trace.off_the_record():
        return int(world.cache.xpending(LOG, GROUP)["pending"])


def _expect_none_dropped(answer: Any, trial: Trial) -> None:
    """One command of a pass fails: an event whose key is still there is not acknowledged."""
    users = (1, 2, 3)
    for lost in range(2, 10):
        world = trial.world()
        _prepare(world.cache)
        for user in users:
            _publish(world.cache, user)
            world.put(f"user:v1:{user}", "{}", 300)
        call_off = _lose(world, lost)
        trial.attempt(answer, world.cache, "one")  # it may well say that something failed
        call_off()
        trial.call(answer, world.cache, "one")  # what it did not get to
        left = [user for user in users if world.peek(f"user:v1:{user}") is not None]
        trial.expect(
            len(left) <= _pending(world),
            f"Command number {lost} of a pass failed, and an event was acknowledged although its"
            f" key is still there: nobody comes back for user:v1:{(left or [0])[0]}.",
        )


def _expect_left_alone(answer: Any, trial: Trial) -> None:
    """Of two events that a colleague took at 0 s, none is claimed by 30 s, and both at 90 s."""

    def setup(cache: Any, db: Any) -> None:
        _prepare(cache)
        for user in (1, 2):
            _publish(cache, user)
            cache.set(f"user:v1:{user}", "{}")

    def takes(cache: Any, db: Any) -> None:
        cache.xreadgroup(GROUP, "the colleague", {LOG: ">"})

    def passes(cache: Any, db: Any) -> Any:
        return answer(cache, "one")

    times = {"1 s": 1, "30 s": 30, "90 s": 90, "an hour and a half": 5_400}
    later = {name: (at, passes) for name, at in times.items()}
    run = trial.play({"colleague": takes, **later}, setup=setup)
    for name in times:
        if isinstance(run.answers.get(name), BaseException):
            said = f"{type(run.answers[name]).__name__}: {run.answers[name]}"
            trial.fail(f"consume raised {said}".rstrip(".") + ".", trace=run)
    counts = {name: run.answers.get(name) for name in times}
    for name in ("1 s", "30 s"):
        trial.expect(
            counts[name] == 0,
            f"A colleague took two events at 0 s, and {name} later consume handled"
            f" {short(counts[name])} of them; expected was 0: it was still at work.",
            trace=run,
        )
    late = f" ({short(counts['an hour and a half'])} after an hour and a half)"
    left = run.world.cache.exists("user:v1:1", "user:v1:2")
    trial.expect(
        counts["90 s"] == 2 or left or counts["an hour and a half"] != 0,
        f"A colleague took two events at 0 s and died; 90 s later consume deleted their keys and"
        f" gave {short(counts['90 s'])}; expected was 2: what was left for it counts as well.",
        trace=run,
    )
    trial.expect(
        counts["90 s"] == 2,
        f"A colleague took two events at 0 s and died; 90 s later consume handled"
        f" {short(counts['90 s'])} of them{late}; expected was 2.",
        trace=run,
    )
    trial.expect(not left, f"{left} of the colleague's keys are still there.", trace=run)
    left = _pending(run.world)
    trial.expect(not left, f"{left} of the colleague's events stay unacknowledged.", trace=run)


def _expect_all_told(answer: Any, trial: Trial) -> str:
    def setup(cache: Any, db: Any) -> None:
        _prepare(cache)
        _publish(cache, 1)
        cache.set(KEY, "{}")

    def as_(name: str) -> Callable[..., Any]:
        return lambda cache, db: answer(cache, name)

    def all_gone(world: stage.World) -> str | bool:
        if world.cache.exists(KEY):
            return f"a consumer died, others came later, and {KEY} was never deleted."
        if world.cache.xpending(LOG, GROUP)["pending"]:
            return "others came later, and the event stays unacknowledged."
        return True

    actors = {
        "one": as_("one"),
        "another": as_("another"),
        "later": (100, as_("later")),
        "last": (200, as_("last")),
    }
    found = trial.every_order(actors, all_gone, setup=setup, crashes=1, limit=150, seconds=5.0)
    return found.summary


# releases ------------------------------------------------------------------------------------

FIRST, LAST = ("v1", {"v1"}), ("v2", {"v2"})
KNOWN = {"v1", "v2"}
MOST = 10


def judge_releases(answer: Any, trial: Trial) -> str:
    """Whoever writes and whoever reads, in each pair of neighbours, the name is new."""
    plan = _plan(trial.call(answer), trial)
    world = trial.world()
    number, wrong = 0, []
    for place in range(len(plan)):
        live = range(place, min(place + 2, len(plan)))
        for writer in live:
            for reader in live:
                number += 1
                wrong += _rename_and_look(world, plan, writer, reader, f"Alice {number}")
    if wrong:
        more = f" {len(wrong)} of {number} renames are missed." if len(wrong) > 1 else ""
        trial.fail(wrong[0] + more)
    return (
        f"In {len(plan)} releases, {number} renames by any pod and reads by any other: no old name."
    )


def _rename_and_look(
    world: TrialWorld, plan: list[tuple[str, set[str]]], writer: int, reader: int, name: str
) -> list[str]:
    """One rename, and what is wrong with the page after it."""
    key = f"user:{plan[reader][0]}:1"

    def look() -> str:
        stored = world.cache.get(key)
        if stored is None:
            stored = json.dumps(world.db.user(1))
            world.cache.set(key, stored, ex=300)
        return str(json.loads(stored)["name"])

    reads, writes = f"release {reader + 1}", f"release {writer + 1}"
    with world.trace.acting(reads):
        look()
    with world.trace.acting(writes):
        world.db.update_user(1, name=name)
        world.cache.delete(*sorted(f"user:{version}:1" for version in plan[writer][1]))
    with world.trace.acting(reads):
        after = look()
    if after == name:
        return []
    pair = f"{min(reader, writer) + 1} and {max(reader, writer) + 1}"
    both = "" if reader == writer else f" (releases {pair} run at once)"
    return [
        f"A pod of {writes} renames Alice and deletes {' and '.join(sorted(plan[writer][1]))}; a"
        f" pod of {reads} reads {plan[reader][0]} and still shows the old name{both}."
    ]


def _plan(got: Any, trial: Trial) -> list[tuple[str, set[str]]]:
    if not isinstance(got, (list, tuple)) or not got:
        trial.fail(f"A list of releases (reads, deletes) was expected; this is {short(got)}.")
    if len(got) > MOST:
        trial.fail(f"{len(got)} releases; {MOST} are more than enough.")
    plan = []
    for number, release in enumerate(got, 1):
        reads, deletes = _release(release)
        if reads not in KNOWN or not deletes or not deletes <= KNOWN:
            trial.fail(
                f'Release {number} is {short(release)}; expected was such as ("v1", {{"v1"}}), with'
                ' "v1" and "v2" only and at least one to delete.'
            )
        plan.append((reads, deletes))
    for place, wanted, said in ((0, FIRST, "first"), (-1, LAST, "last")):
        trial.expect(
            plan[place] == wanted,
            f"The {said} release reads {plan[place][0]} and deletes"
            f" {' and '.join(sorted(plan[place][1]))}; it has to read {wanted[0]} and delete"
            f" {wanted[0]} only.",
        )
    return plan


def _release(given: Any) -> tuple[str, set[str]]:
    """What one release reads and deletes; nothing, if that is not what was given."""
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        return "", set()
    reads, deletes = given
    if isinstance(deletes, str):
        deletes = [deletes]
    if not isinstance(deletes, (set, frozenset, list, tuple)):
        return "", set()
    return str(reads), {str(one) for one in deletes}


def _uncapital(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
