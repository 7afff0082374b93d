"""The production cache: cache-aside that keeps ten promises, each with a test, in one file."""

import json
import logging
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)
LONGEST = 30 * 86_400  # seconds that a copy may live, and that a forgotten tag is remembered
Load = Callable[[], Any]
Copy = tuple[Any, float, list[str]]  # value; fresh until (s since the epoch); marks of its tags

# One script is one step for everybody else. The lock is a lease as well: who lost it, because it
# expired or because somebody deleted the key meanwhile, may have loaded an old row.
STORE_IF_OURS = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[3]) > 0 then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return redis.call('PEXPIRE', KEYS[2], ARGV[4])
"""


class Busy(Exception):
    """No answer within the budget: say 503, or show something older."""


def connect(url: str, wait: float = 0.04, connections: int = 64) -> redis.Redis:
    """A client that fails fast: at most `wait` s for a connection or an answer, and no retry.

    With redis-py's own defaults a dead server holds each caller for seconds.
    """
    how: dict[str, Any] = {"max_connections": connections, "retry": Retry(NoBackoff(), 0)}
    how |= dict.fromkeys(("timeout", "socket_timeout", "socket_connect_timeout"), wait)
    return redis.Redis.from_pool(redis.BlockingConnectionPool.from_url(url, **how))


class Breaker:
    """After `limit` failures in a row the cache is left alone; one call each `rest` s tries it."""

    def __init__(self, limit: int, rest: float, metrics: Counter[str]) -> None:
        self.limit, self.rest, self._lock = limit, rest, threading.Lock()
        self.failures, self._again, self.metrics = 0, 0.0, metrics

    def allows(self) -> bool:
        """Whether this call may ask the cache."""
        if self.failures < self.limit:
            return True
        with self._lock:
            if time.monotonic() < self._again:
                self.metrics["bypassed"] += 1
                return False
            self._again = time.monotonic() + self.rest
            return True

    def failed(self, error: Exception) -> Literal[False]:
        """The cache did not answer."""
        self.metrics["cache_errors"] += 1
        with self._lock:
            self.failures, self._again = self.failures + 1, time.monotonic() + self.rest
        log.log(logging.WARNING if self.failures == self.limit else logging.DEBUG, "%s", error)
        return False


@dataclass(eq=False)
class ProductionCache:
    """Cache-aside for one kind of thing, `name`; make one for a process, for all its threads.

    Values are JSON; each caller gets an own copy. Times are in seconds. A load runs in a thread of
    ours: a request that is cut short stops nobody's, and it needs a session and a timeout of its
    own. Not promised: one clock for several machines; the new row for who waits elsewhere for a
    load from before a delete (it is not stored); more than one Redis node.
    """

    client: Any  # a redis.Redis with short timeouts: see `connect`
    name: str
    version: int = 1  # of the values' shape: a new shape, a new number
    absent_ttl: float = 5.0  # of None, "there is no such row"
    jitter: float = 0.15  # share of a TTL that may be taken off
    hold: float = 10.0  # how long a lock outlives its process: longer than the slowest load
    budget: float = 12.0  # longest wait for a load, whoever does it
    origin_slots: int = 8  # loads at once in this process
    failures: int = 3  # in a row, until the cache is left alone
    rest: float = 0.5  # until it is tried again; also a renewal that has failed

    def __post_init__(self) -> None:
        self.metrics = Counter[str]()
        self.breaker = Breaker(self.failures, self.rest, self.metrics)
        self._slots, self._lock = threading.BoundedSemaphore(self.origin_slots), threading.Lock()
        self._loads: dict[str, Future[str]] = {}
        self._pending: list[tuple[Any, ...]] = []  # what the cache must hear first when it is back

    def get(
        self, key: str, load: Load, ttl: float, *, stale: float = 0, tags: Sequence[str] = ()
    ) -> Any:
        """The value of `key`: a copy at most `ttl` seconds old, else one `load()` for all.

        For `stale` seconds more the old copy is served at once while one thread renews it, also if
        that fails. None is kept for `absent_ttl`. A cache that is down is a miss; an error of
        `load` goes to all who wait for it. `forget_tag` of one of `tags` ends the copy.
        Raises Busy; ValueError for times that are none; TypeError for a value that is not JSON.
        """
        if not 0 < ttl <= ttl + stale <= LONGEST:
            raise ValueError(f"ttl {ttl} and stale {stale}: seconds, together up to {LONGEST}.")
        name = f"{self.name}:v{self.version}:{key}"
        copy = self._lookup(name, tags)
        past = time.time() - copy[1] if copy else LONGEST  # seconds since its TTL was over
        self.metrics["hits" if past < 0 else "stale" if past < stale else "misses"] += 1
        if copy and past < 0:
            return copy[0]
        future = self._shared_load(name, load, ttl, stale, tags)
        if copy and past < stale:
            return copy[0]
        try:
            return json.loads(future.result(self.budget))[0]
        except TimeoutError:
            if future.done():
                raise  # it is the load's own
            raise Busy(f"{name} was not loaded within {self.budget:g} s") from None

    def delete(self, *keys: str) -> bool:
        """Forget keys whose rows have changed, after the commit; whether the cache has heard it.

        Fills that are under way are void. A cache that is down hears of it first when it is back.
        """
        names = [f"{self.name}:v{self.version}:{key}" for key in keys]
        return self._send("DEL", *names, *(f"lock:{name}" for name in names))

    def forget_tag(self, tag: str) -> bool:
        """Forget every copy with this tag, of any name: one command, however many there are."""
        return self._send("SET", f"tag:{tag}", uuid.uuid4().hex, "EX", LONGEST)

    def _lookup(self, name: str, tags: Sequence[str]) -> Copy | None:
        """The copy that the cache has, fresh or not; None also if either of them is broken."""
        if not self.breaker.allows():
            return None
        pending, self._pending = (self._pending, []) if self._pending else ([], self._pending)
        if False in [self._send(*command) for command in pending]:
            return None
        try:
            return self._fetch(name, tags)[0]
        except redis.RedisError as error:
            return self.breaker.failed(error) or None

    def _fetch(self, name: str, tags: Sequence[str]) -> tuple[Copy | None, list[str]]:
        """In one trip: the copy, if it can be used, and the marks that its tags have now."""
        names = [name, *(f"tag:{tag}" for tag in tags)]
        reply = self.client.execute_command("MGET" if tags else "GET", *names, NEVER_DECODE=True)
        self.breaker.failures = 0
        raw, *found = reply if tags else [reply]
        marks = [(mark or b"").decode("ascii", "replace") for mark in found]
        if raw is None:
            return None, marks
        try:
            value, until, then = json.loads(raw)
            return ((value, float(until), then) if then == marks else None), marks
        except (ValueError, TypeError, RecursionError):
            self.metrics["corrupt"] += 1
            return None, marks

    def _send(self, *command: Any) -> bool:
        """Send this, also when the breaker is open; what does not arrive is kept for later."""
        try:
            self.client.execute_command(*command)
            return True
        except redis.RedisError as error:
            self._pending.append(command)
            log.error("stale until the cache is back: %s", command[1])
            return self.breaker.failed(error)
        finally:
            with self._lock:
                self._loads.clear()  # who comes from now on must not join a load from before

    def _shared_load(self, name: str, *how: Any) -> Future[str]:
        """The load of `name` that is under way in this process, or a new one."""
        with self._lock:
            if future := self._loads.get(name):
                self.metrics["shared"] += 1
                return future
            future = Future()
            threading.Thread(target=self._run_load, args=(future, name, *how), daemon=True).start()
            self._loads[name] = future
            return future

    def _run_load(self, future: Future[str], name: str, *how: Any) -> None:
        end: Any = RuntimeError(f"the load of {name} was stopped")
        try:
            end = self._fill(name, *how)
        except Exception as error:
            end = error
        finally:
            with self._lock:
                if self._loads.get(name) is future:
                    del self._loads[name]
            (future.set_result if isinstance(end, str) else future.set_exception)(end)

    def _fill(self, name: str, load: Load, ttl: float, stale: float, tags: Sequence[str]) -> str:
        """A fresh copy, as text: from whoever has the lock, or loaded by us and stored."""
        lock, token, pause, mine = f"lock:{name}", uuid.uuid4().hex, 0.02, False
        until, copy, marks = time.monotonic() + self.budget, None, list[str]()
        try:
            while self.breaker.allows():
                mine = bool(self.client.set(lock, token, nx=True, px=int(self.hold * 1000)))
                copy, marks = self._fetch(name, tags)  # again: the last holder may have filled it
                if copy and time.time() < copy[1]:
                    self._store_and_unlock(name, token if mine else "", "", 0, 0)
                    return json.dumps(copy)
                if mine:
                    break
                if time.monotonic() > until:
                    raise Busy(f"{name} was not filled within {self.budget:g} s")
                time.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, 0.2)
        except redis.RedisError as error:
            self.breaker.failed(error)
            self._pending.append(("DEL", lock))  # it may be ours, and only the answer was lost
            mine = False
        began, held = time.time(), token if mine else ""
        self.metrics["loads"] += 1
        try:
            with self._slots:
                value = load()
            life = (self.absent_ttl if value is None else ttl) * (1 - self.jitter * random.random())
            text = json.dumps([value, began + life, marks])
        except BaseException:
            self.metrics["load_errors"] += 1
            self._store_and_unlock(name, held, "", 0, int(self.rest * 1000) if copy else 0)
            raise
        keep = life - (time.time() - began) + (0 if value is None else stale)
        self._store_and_unlock(name, held, text, int(keep * 1000), 0)
        return text

    def _store_and_unlock(self, name: str, token: str, text: str, keep: int, rest: int) -> None:
        """Store the text for `keep` ms, and leave the lock in `rest` ms, if it is still ours."""
        if not token:
            return
        try:
            ours = self.client.eval(STORE_IF_OURS, 2, name, f"lock:{name}", token, text, keep, rest)
            self.metrics["voided" if not ours else "fills" if keep > 0 else "unfilled"] += 1
        except redis.RedisError as error:
            self.breaker.failed(error)
