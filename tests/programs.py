"""Actor programs by chance, and what becomes of each in all orders: pruning must lose nothing.

A program is data, so that one that fails can be put into a test: for each actor a list of
operations, and what may go wrong. `draw(seed)` makes one, `ends(program, prune=...)` plays it.
"""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import factorial, prod
from typing import Any

import redis
import sqlalchemy as sa

from cachelab import stage
from cachelab.origin import User
from cachelab.stage import faults

KEYS = ("a", "b", "p")  # p names another key
USERS = (1, 2)


@dataclass(frozen=True)
class Program:
    """What the actors do, and what may go wrong: each a call, with its arguments."""

    actors: dict[str, list[tuple[Any, ...]]]
    threads: bool = False  # of one process, or each a process of its own
    options: dict[str, Any] = field(default_factory=dict)
    faults: list[tuple[Any, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class Operation:
    """One thing that an actor can do: how many steps it has at most, and what it is told."""

    do: Callable[..., Any]
    steps: int
    takes: str
    often: int


OPERATIONS: dict[str, Operation] = {}


def operation(steps: int = 1, takes: str = "", often: int = 2) -> Callable[[Any], Any]:
    """Register an operation. `takes`: k a key, K another key, u a user."""

    def register(do: Callable[..., Any]) -> Callable[..., Any]:
        OPERATIONS[do.__name__.rstrip("_")] = Operation(do, steps, takes, often)
        return do

    return register


class Player:
    """An actor that obeys a program."""

    def __init__(self, name: str, program: list[tuple[Any, ...]], shared: Shared) -> None:
        self.name, self.program, self.shared = name, program, shared

    def __call__(self, cache: Any, db: Any) -> list[Any]:
        self.cache, self.db, self.number = cache, db, 0
        self.threads: list[threading.Thread] = []
        seen = []
        for number, (what, *arguments) in enumerate(self.program):
            self.number = number
            try:
                seen.append(OPERATIONS[what].do(self, *arguments))
            except (redis.RedisError, sa.exc.SQLAlchemyError) as error:
                seen.append(type(error).__name__)
        for thread in self.threads:
            thread.join()
        return seen

    @property
    def mark(self) -> str:
        """A value that nobody else writes."""
        return f"{self.name}{self.number}"


class Shared:
    """What the actors of one run have in common, as the threads of a process."""

    def __init__(self) -> None:
        self.lock, self.event = threading.Lock(), threading.Event()
        self.notes: list[str] = []


# Strings, hashes, lists ---------------------------------------------------------------------------


@operation(takes="k", often=6)
def get(me, key):
    return me.cache.get(key)


@operation(takes="k", often=6)
def set_(me, key):
    return me.cache.set(key, me.mark)


@operation(takes="k")
def set_for_a_while(me, key):
    return me.cache.set(key, me.mark, ex=10)


@operation(takes="k")
def set_if_new(me, key):
    return me.cache.set(key, me.mark, nx=True)


@operation(takes="k", often=3)
def append(me, key):
    return me.cache.append(key, me.mark)


@operation(takes="k", often=3)
def delete(me, key):
    return me.cache.delete(key)


@operation(takes="kK")
def rename(me, key, other):
    return me.cache.rename(key, other)


@operation(takes="kK")
def copy(me, key, other):
    return me.cache.copy(key, other, replace=True)


@operation(takes="kK")
def mget(me, key, other):
    return me.cache.mget(key, other)


@operation(takes="k")
def getdel(me, key):
    return me.cache.getdel(key)


@operation(takes="k")
def expire(me, key):
    return me.cache.expire(key, 5)


@operation()
def keys(me):
    return sorted(me.cache.scan_iter())


@operation(steps=2, takes="k", often=4)
def add_if_there(me, key):
    if me.cache.get(key):
        return me.cache.append(key, me.mark)
    return None


@operation(steps=2, takes="kK", often=3)
def carry(me, key, other):
    return me.cache.set(other, str(me.cache.get(key)))


@operation(often=8)
def hset(me):
    return me.cache.hset("h", "f", me.mark)


@operation(often=8)
def hgetall(me):
    return me.cache.hgetall("h")


@operation(often=4)
def hincrby(me):
    return me.cache.hincrby("h", "n")


@operation()
def push(me):
    return me.cache.rpush("l", me.mark)


@operation()
def pop(me):
    return me.cache.lpop("l")


@operation()
def sort_by_others(me):
    """SORT reads keys that it builds from its list."""
    return me.cache.sort("names", by="*", get="*", alpha=True)


# Scripts ------------------------------------------------------------------------------------------


@operation(takes="k", often=3)
def script_declared(me, key):
    return me.cache.eval("return redis.call('append', KEYS[1], ARGV[1])", 1, key, me.mark)


@operation(takes="k", often=3)
def script_undeclared_read(me, key):
    return me.cache.eval("return redis.call('get', ARGV[1])", 0, key)


@operation(takes="k", often=3)
def script_undeclared_write(me, key):
    return me.cache.eval("return redis.call('append', ARGV[1], ARGV[2])", 0, key, me.mark)


@operation(often=3)
def script_key_from_a_key(me):
    return me.cache.eval("return redis.call('get', redis.call('get', KEYS[1]))", 1, "p")


@operation(often=3)
def script_writes_where_a_key_says(me):
    script = "return redis.call('set', redis.call('get', KEYS[1]) or 'a', ARGV[1])"
    return me.cache.eval(script, 1, "p", me.mark)


@operation(takes="kK")
def script_branches(me, key, other):
    script = """if redis.call('exists', KEYS[1]) == 1 then return redis.call('get', ARGV[1]) end
    return redis.call('set', ARGV[1], ARGV[2])"""
    return me.cache.eval(script, 1, key, other, me.mark)


@operation()
def script_over_all_keys(me):
    return me.cache.eval("return #redis.call('keys', '*')", 0)


@operation(takes="k")
def script_by_its_sum(me, key):
    script = me.cache.register_script("return redis.call('append', KEYS[1], ARGV[1])")
    return script(keys=[key], args=[me.mark])


# Pipelines and clients ----------------------------------------------------------------------------


@operation(takes="kK", often=3)
def transaction(me, key, other):
    return me.cache.pipeline().get(key).set(other, me.mark).execute()


@operation(steps=2, takes="kK", often=3)
def pipeline(me, key, other):
    return me.cache.pipeline(transaction=False).get(key).set(other, me.mark).execute()


@operation(steps=2, takes="kK", often=3)
def pipeline_writes(me, key, other):
    pipe = me.cache.pipeline(transaction=False)
    return pipe.append(key, me.mark).append(other, me.mark).execute()


@operation(steps=3, takes="kK", often=3)
def compare_and_set(me, key, other):
    with me.cache.pipeline() as pipe:
        pipe.watch(key)
        found = pipe.get(key)
        pipe.multi()
        pipe.set(other, f"{found}{me.mark}")
        return pipe.execute()


@operation(takes="k")
def transaction_with_a_script(me, key):
    pipe = me.cache.pipeline()
    pipe.eval("return redis.call('get', ARGV[1])", 0, key)
    return pipe.set("b", me.mark).execute()


@operation(steps=2, takes="k", often=3)
def client_of_its_own(me, key):
    mine = redis.Redis(connection_pool=me.cache.connection_pool)
    return mine.set(key, f"{mine.get(key)}{me.mark}")


@operation(steps=2, takes="k")
def one_connection(me, key):
    mine = me.cache.client()
    return mine.set(key, f"{mine.get(key)}{me.mark}")


@operation(steps=2, takes="kK")
def pipeline_of_its_own(me, key, other):
    mine = redis.Redis(connection_pool=me.cache.connection_pool)
    return mine.pipeline(transaction=False).get(key).set(other, me.mark).execute()


@operation(takes="k", often=6)
def publish(me, key):
    return me.cache.publish("news", key)


@operation(steps=3, often=8)
def listen(me):
    messages = me.cache.pubsub(ignore_subscribe_messages=True)
    messages.subscribe("news")
    messages.get_message(timeout=0.1)
    return str(messages.get_message(timeout=0.1))


# SQL ----------------------------------------------------------------------------------------------


def rows(me, statement, **values):
    with me.db.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement), values)]


def write(me, *statements, **values):
    with me.db.engine.begin() as connection:
        return [connection.execute(sa.text(one), values).rowcount for one in statements]


@operation(takes="u", often=3)
def select(me, user):
    return me.db.user(user)["bio"]


@operation(steps=2, takes="u", often=4)
def update(me, user):
    return me.db.update_user(user, bio=me.mark)


@operation(often=5)
def select_joined(me):
    return rows(
        me,
        "SELECT users.bio, p.name FROM users, permissions AS p"
        " WHERE p.user_id = users.id AND users.id < 3 ORDER BY 1, 2",
    )


@operation()
def select_from_a_view(me):
    return rows(me, "SELECT bio FROM bios ORDER BY id")


@operation()
def select_nested(me):
    return rows(me, "SELECT name FROM main.flags WHERE (SELECT bio FROM `users` WHERE id=1) > 'm'")


@operation(takes="u")
def select_by_another_column(me, user):
    return rows(me, "SELECT count(*) FROM users WHERE bio = :bio", bio=f"x{user}")


@operation(steps=2)
def update_with_a_trigger(me):
    """The trigger writes into users."""
    return write(me, "UPDATE flags SET enabled = NOT enabled WHERE name = 'watched'")


@operation(steps=2, often=5)
def insert(me):
    return write(
        me, "INSERT OR REPLACE INTO permissions (user_id, name) VALUES (1, :name)", name=me.mark
    )


@operation(steps=2, takes="u", often=5)
def delete_rows(me, user):
    return write(me, "DELETE FROM permissions WHERE user_id = :user", user=user)


@operation(steps=2)
def update_from_another_table(me):
    return write(me, "UPDATE users SET bio = (SELECT count(*) FROM permissions) || '' WHERE id = 2")


@operation(steps=3, takes="u", often=3)
def read_and_write(me, user):
    with me.db.session() as session:
        bio = session.scalar(sa.select(User.bio).where(User.id == user))
        session.execute(sa.update(User).where(User.id == user).values(bio=f"{bio}{me.mark}"[-20:]))
        session.commit()


@operation(steps=3, takes="u")
def read_for_update(me, user):
    with me.db.session() as session:
        found = session.scalar(sa.select(User).where(User.id == user).with_for_update())
        found.bio = f"{found.bio}{me.mark}"[-20:]
        session.commit()


@operation(steps=3, takes="uk", often=3)
def write_both(me, user, key):
    with me.db.session() as session:
        session.execute(sa.update(User).where(User.id == user).values(bio=me.mark))
        me.cache.set(key, me.mark)
        session.commit()


@operation(steps=2, takes="u")
def write_and_take_back(me, user):
    with me.db.session() as session:
        session.execute(sa.update(User).where(User.id == user).values(bio=me.mark))
        session.rollback()


# Threads, locks, time -----------------------------------------------------------------------------


@operation(takes="k", steps=1)
def thread(me, key):
    me.threads.append(threading.Thread(target=me.cache.append, args=(key, me.mark)))
    me.threads[-1].start()


@operation(takes="k", steps=2)
def thread_waited_for(me, key):
    mine = threading.Thread(target=me.cache.append, args=(key, me.mark))
    mine.start()
    mine.join()
    return me.cache.get(key)


@operation(takes="k", steps=3, often=10)
def with_a_lock(me, key):
    with me.shared.lock:
        return me.cache.set(key, f"{me.cache.get(key)}{me.mark}")


@operation(takes="k", steps=2, often=6)
def with_a_lock_if_free(me, key):
    if me.shared.lock.acquire(blocking=False):
        me.cache.append(key, me.mark)
        me.shared.lock.release()
        return True
    return False


@operation(takes="k")
def remember(me, key):
    """Something in memory, between two commands."""
    found = me.cache.get(key)
    me.shared.notes.append(me.mark)
    return found, list(me.shared.notes)


@operation()
def signal(me):
    me.shared.event.set()


@operation(steps=2, takes="k")
def wait_for_the_signal(me, key):
    return me.shared.event.wait(0.3), me.cache.get(key)


@operation(often=3)
def sleep(me):
    time.sleep(0.1)


@operation(steps=2, takes="k")
def with_a_lock_in_the_cache(me, key):
    mine = me.cache.lock("lock", timeout=5, blocking=False)
    return mine.acquire() and me.cache.append(key, me.mark)


# What may go wrong --------------------------------------------------------------------------------

FAULTS: list[tuple[Any, ...]] = [
    ("CacheDown", 0.05, 0.15),
    ("SlowCommand", "SET", 0.2),
    ("SlowCommand", "GET", 0.2, 1),
    ("KeyExpires", "a", 1),
    ("KeyExpires", "b", 2),
    ("DropMessage", 1),
    ("Pause", "x", 1, 0.2),
]


# What the search itself may let go wrong, in programs of few steps.
OPTIONS: list[tuple[tuple[str, Any], ...]] = [
    (("crashes", 1),),
    (("expiry", 1),),
    (("expiry", "a"),),
    (("failures", 1),),
    (("losses", 1),),
    (("crashes", 1), ("expiry", 1)),
]


# What makes no difference between processes: each has its own.
SHARED = {"with_a_lock", "with_a_lock_if_free", "signal", "wait_for_the_signal", "remember"}


def draw(seed: int, most: int = 40) -> Program:
    """A program with at most about so many orders."""
    chance = random.Random(seed)
    names = list(OPERATIONS)
    often = [OPERATIONS[name].often for name in names]
    while True:
        actors: dict[str, list[tuple[Any, ...]]] = {}
        for actor in "xyz"[: chance.choice((2, 2, 2, 3))]:
            chosen = chance.choices(names, often, k=chance.randint(1, 4))
            actors[actor] = [(name, *_arguments(OPERATIONS[name], chance)) for name in chosen]
        steps = [sum(OPERATIONS[name].steps for name, *_ in one) for one in actors.values()]
        if 2 < factorial(sum(steps)) // prod(map(factorial, steps)) <= most:
            break
    options = dict(chance.choice(OPTIONS)) if sum(steps) < 6 and chance.random() < 0.4 else {}
    wrong = [chance.choice(FAULTS)] if chance.random() < 0.2 else []
    shares = any(SHARED & {name for name, *_ in one} for one in actors.values())
    return Program(actors, shares and chance.random() < 0.8, options, wrong)


def _arguments(kind: Operation, chance: random.Random) -> list[Any]:
    key, other = chance.sample(KEYS, 2)
    given = {"k": key, "K": other, "u": chance.choice(USERS)}
    return [given[letter] for letter in kind.takes]


# Playing one --------------------------------------------------------------------------------------


def furnish(cache: Any, db: Any) -> None:
    """What every order starts from."""
    cache.mset({"a": "1", "p": "b"})
    cache.hset("h", "n", 1)
    cache.rpush("l", "1")
    cache.sadd("names", "a", "b")
    write_to = (
        "DELETE FROM permissions WHERE user_id > 2",
        "INSERT OR REPLACE INTO flags (name, enabled) VALUES ('watched', 0)",
        "CREATE VIEW bios AS SELECT id, bio FROM users WHERE id < 3",
        "CREATE TRIGGER seen AFTER UPDATE ON flags WHEN new.name = 'watched'"
        " BEGIN UPDATE users SET bio = bio || '!' WHERE id = 1; END",
    )
    with db.engine.begin() as connection:
        for statement in write_to:
            connection.execute(sa.text(statement))


def state(world: Any) -> str:
    """Everything that an order leaves, in one text."""
    cache, db = world.cache, world.db
    with suppress(redis.ConnectionError):
        kept = [
            cache.mget("a", "b", "p", "lock"),
            cache.hgetall("h"),
            cache.lrange("l", 0, -1),
            [cache.ttl(key) for key in KEYS],
        ]
    with db.engine.connect() as connection:
        stored = [
            [tuple(row) for row in connection.execute(sa.text(f"SELECT {what}"))]
            for what in (
                "id, bio FROM users WHERE id < 3",
                "user_id, name FROM permissions WHERE user_id < 3 ORDER BY 1, 2",
                "enabled FROM flags WHERE name = 'watched'",
            )
        ]
    return repr((kept, stored, sorted(world.answers.items())))


def is_bad(end: str) -> bool:
    """Whether the invariant fails: in about one end of four, and in the same always."""
    return zlib.crc32(end.encode()) % 4 == 0


def ends(program: Program, limit: int = 400, **how: Any) -> tuple[set[str], stage.Exploration]:
    """Every end that some order of the program has, and the verdict of `is_bad` on them."""
    seen: set[str] = set()

    def actors() -> Any:
        shared = Shared()
        made = {name: Player(name, list(does), shared) for name, does in program.actors.items()}
        return stage.threads(made) if program.threads else made

    def invariant(world: Any) -> str | None:
        end = state(world)
        seen.add(end)
        return "a bad end" if is_bad(end) else None

    verdict = stage.explore(
        actors,
        invariant,
        setup=furnish,
        limit=limit,
        faults=[getattr(faults, name)(*arguments) for name, *arguments in program.faults],
        allow_errors=True,
        **program.options,
        **how,
    )
    return seen, verdict


def lost(program: Program) -> str | None:
    """What the pruned search loses of the full one, in one sentence; None if it loses nothing."""
    try:
        full, whole = ends(program, prune=False)
        if not whole.exhaustive:
            return None
        pruned, verdict = ends(program)
    except stage.Stuck as error:  # the search takes for an order what is none
        return f"{error} {program}"
    if pruned != full:
        return f"of {len(full)} ends it has {len(pruned)}: {program}"
    if verdict.outcome != whole.outcome:
        return f"{verdict.outcome}, but of all orders {whole.outcome}: {program}"
    return None
