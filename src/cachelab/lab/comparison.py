"""The library table: what becomes of each behaviour in each library, tried out and not looked up.

A rig is a library set up as its own documentation advises; a trial is one behaviour tried on a
fresh rig. `table(lab)` tries all of them. The libraries come with the extra `test`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from html import escape
from importlib import metadata
from typing import Any

import redis

from cachelab.cache import server as servers
from cachelab.patterns.production import ProductionCache, connect

Load = Callable[[], Any]
NOWHERE = "redis://127.0.0.1:1/0"  # nobody listens there


@dataclass(frozen=True)
class Place:
    """Where a rig keeps things, and for how long (s)."""

    url: str
    prefix: str
    folder: str
    ttl: float = 30
    lock: float = 10
    swr: bool = False  # set up for stale-while-revalidate or early refresh, with this TTL


# The rigs: what a reader of each documentation would write -------------------------------------


class Rig:
    """A library behind two functions.

    `local`: it keeps values in this process or on its disk. `early`: it has a way to renew a
    value before somebody has to wait.
    """

    package = ""
    local = False
    early = False

    def __init__(self, place: Place) -> None:
        self.place = place
        self.set_up(place)

    def set_up(self, place: Place) -> None:
        raise NotImplementedError

    def read(self, key: str, load: Load) -> Any:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError

    def start(self, key: str, load: Load) -> tuple[Future[Any], Callable[[], None]]:
        """A read under way, and a function that cuts the request short."""
        found: Future[Any] = Future()

        def request() -> None:
            try:
                found.set_result(self.read(key, load))
            except BaseException as error:
                found.set_exception(error)

        thread = threading.Thread(target=request, daemon=True)
        thread.start()

        def stop() -> None:  # as a worker that aborts a request does
            if not thread.is_alive():
                return  # its number may be somebody else's by now
            number, error = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, error)

        return found, stop


class Ours(Rig):
    """Chapter 13."""

    early = True

    def set_up(self, place: Place) -> None:
        self.cache = ProductionCache(connect(place.url, 1.0), place.prefix, hold=place.lock)
        self.stale = 10 if place.swr else 0

    def read(self, key: str, load: Load) -> Any:
        return self.cache.get(key, load, self.place.ttl, stale=self.stale)

    def delete(self, key: str) -> None:
        self.cache.delete(key)


class Dogpile(Rig):
    """A region with a distributed lock; for early answers, its runner with a thread."""

    package = "dogpile.cache"
    early = True

    def set_up(self, place: Place) -> None:
        from dogpile.cache import make_region

        def in_a_thread(region: Any, key: str, creator: Load, mutex: Any) -> None:
            def run() -> None:
                try:
                    region.set(key, creator())
                finally:
                    mutex.release()

            threading.Thread(target=run, daemon=True).start()

        self.region = make_region(
            async_creation_runner=in_a_thread if place.swr else None,
            serializer=lambda value: json.dumps(value).encode(),
            deserializer=json.loads,
        ).configure(
            "dogpile.cache.redis",
            expiration_time=place.ttl,
            arguments={
                "url": place.url,
                "distributed_lock": True,
                "thread_local_lock": False,
                "lock_timeout": place.lock,
                "redis_expiration_time": int(2 * place.ttl) + 1,
            },
        )

    def read(self, key: str, load: Load) -> Any:
        return self.region.get_or_create(self.place.prefix + key, load)

    def delete(self, key: str) -> None:
        self.region.delete(self.place.prefix + key)


class Async(Rig):
    """A library of coroutines: a loop in a thread; the loads are in threads of their own."""

    def __init__(self, place: Place) -> None:
        self.loop = asyncio.new_event_loop()
        # As many threads as readers: what bounds the origin should be the library, not this.
        self.loop.set_default_executor(ThreadPoolExecutor(64))
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        super().__init__(place)

    async def aread(self, key: str, load: Load) -> Any:
        raise NotImplementedError

    def do(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def read(self, key: str, load: Load) -> Any:
        return self.do(self.aread(key, load)).result(20)

    def start(self, key: str, load: Load) -> tuple[Future[Any], Callable[[], None]]:
        task = self.do(self.aread(key, load))

        def stop() -> None:
            task.cancel()

        return task, stop


class Cashews(Async):
    """`cache(...)` with a lock on Redis; for early answers, `cache.early`."""

    package = "cashews"
    early = True

    def set_up(self, place: Place) -> None:
        import cashews

        self.cache = cashews.Cache()
        self.cache.setup(place.url)
        name = place.prefix + "{key}"

        async def get(key: str, load: Load) -> Any:
            return await asyncio.to_thread(load)

        if place.swr:
            self.get: Any = self.cache.early(ttl=10, early_ttl=place.ttl, key=name)(get)
        elif place.lock == Place.lock:
            self.get = self.cache(ttl=place.ttl, key=name, lock=True)(get)
        else:  # with `lock=True` a lock lives as long as the value
            kept = self.cache(ttl=place.ttl, key=name)(get)
            self.get = self.cache.locked(ttl=place.lock, key="lock:" + name, wait=True)(kept)

    async def aread(self, key: str, load: Load) -> Any:
        return await self.get(key, load)

    def delete(self, key: str) -> None:
        self.do(self.cache.delete(self.place.prefix + key)).result(5)


class Aiocache(Async):
    """`cached_stampede` on Redis, with JSON."""

    package = "aiocache"

    def set_up(self, place: Place) -> None:
        import redis.asyncio
        from aiocache import Cache, cached_stampede
        from aiocache.serializers import JsonSerializer

        async def get(key: str, load: Load) -> Any:
            return await asyncio.to_thread(load)

        self.get: Any = cached_stampede(
            lease=place.lock,
            ttl=place.ttl,
            key_builder=lambda _, key, __: place.prefix + key,
            cache=Cache.REDIS,
            serializer=JsonSerializer(),
            connection_pool_class=lambda **_: redis.asyncio.ConnectionPool.from_url(place.url),
        )(get)

    async def aread(self, key: str, load: Load) -> Any:
        return await self.get(key, load)

    def delete(self, key: str) -> None:
        self.do(self.get.cache.delete(self.place.prefix + key)).result(5)


class Cachetools(Rig):
    """`cached` with a condition, on a cache that asks for the TTL of each value."""

    package = "cachetools"
    local = True

    def set_up(self, place: Place) -> None:
        import cachetools

        def ends(_: str, value: Any, now: float) -> float:
            return now + (1 if value is None else place.ttl * random.uniform(0.85, 1))

        self.cache: Any = cachetools.TLRUCache(1_000, ttu=ends, timer=self.now)
        condition = threading.Condition()
        self.get: Any = cachetools.cached(
            self.cache, key=lambda key, load: key, condition=condition
        )(lambda key, load: load())

    skipped = 0.0

    def now(self) -> float:
        return time.monotonic() + self.skipped

    def read(self, key: str, load: Load) -> Any:
        return self.get(key, load)

    def delete(self, key: str) -> None:
        self.cache.pop(key, None)


class Diskcache(Rig):
    """`memoize` around a barrier around `memoize`; for early answers, `memoize_stampede`."""

    package = "diskcache"
    local = True
    early = True

    def set_up(self, place: Place) -> None:
        import diskcache

        self.cache: Any = diskcache.Cache(place.folder)
        kept = self.cache.memoize(name="get", expire=place.ttl, ignore={1})

        def get(key: str, load: Load) -> Any:
            return load()

        if place.swr:
            early = diskcache.memoize_stampede(self.cache, place.ttl, name="early", ignore={1})
            self.get: Any = early(get)
        else:
            guard = diskcache.barrier(self.cache, diskcache.Lock, "barrier", expire=place.lock)
            self.get = kept(guard(kept(get)))

    def read(self, key: str, load: Load) -> Any:
        return self.get(self.place.prefix + key, load)

    def delete(self, key: str) -> None:
        self.cache.delete(self.get.__cache_key__(self.place.prefix + key, None))


class LockRecipe(Rig):
    """Cache-aside under redis-py's own `Lock`, with a second look once the lock is ours."""

    package = "redis"

    def set_up(self, place: Place) -> None:
        self.client = redis.Redis.from_url(place.url)

    def read(self, key: str, load: Load) -> Any:
        name = self.place.prefix + key
        if (raw := self.client.get(name)) is not None:
            return json.loads(raw)
        with self.client.lock("lock:" + name, timeout=self.place.lock, blocking_timeout=10):
            if (raw := self.client.get(name)) is not None:
                return json.loads(raw)
            value = load()
            self.client.set(name, json.dumps(value), px=int(1000 * self.place.ttl))
            return value

    def delete(self, key: str) -> None:
        self.client.delete(self.place.prefix + key)


class ArticleRecipe(Rig):
    """What the article calls production-grade cache-aside, in Python."""

    package = "redis"

    def set_up(self, place: Place) -> None:
        self.client = redis.Redis.from_url(place.url)

    def read(self, key: str, load: Load) -> Any:
        name = self.place.prefix + key
        if (raw := self.client.get(name)) is not None:
            return json.loads(raw)
        value = load()
        with contextlib.suppress(redis.RedisError):
            self.client.set(name, json.dumps(value), px=int(1000 * self.place.ttl))
        return value

    def delete(self, key: str) -> None:
        self.client.delete(self.place.prefix + key)


RIGS: dict[str, type[Rig]] = {
    "ours": Ours,
    "dogpile.cache": Dogpile,
    "cashews": Cashews,
    "aiocache": Aiocache,
    "cachetools": Cachetools,
    "diskcache": Diskcache,
    "redis-py Lock": LockRecipe,
    "the article": ArticleRecipe,
}


# The trials ------------------------------------------------------------------------------------


class CountingOrigin:
    """A slow origin that counts its calls, and how many there are at once."""

    def __init__(self, seconds: float = 0.1, value: Any = "right") -> None:
        self.seconds, self.value, self.error = seconds, value, ""
        self.calls = self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        with self._lock:
            self.calls, self.now = self.calls + 1, self.now + 1
            self.most, value = max(self.most, self.now), self.value
        try:
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:
                time.sleep(0.005)  # short, so that whoever is stopped is stopped soon
        finally:
            with self._lock:
                self.now -= 1
        if self.error:
            raise OSError(self.error)
        return value


def crowd(rig: Rig, readers: int, origin: Load, key: str = "k{}", wait: float = 15) -> list[Any]:
    """What `readers` who come at once get: a value, an error, or None if they wait in vain."""
    barrier = threading.Barrier(readers)
    got: list[Any] = [TimeoutError()] * readers

    def read(number: int) -> None:
        barrier.wait(10)
        try:
            got[number] = rig.read(key.format(number), origin)
        except BaseException as error:
            got[number] = error

    threads = [threading.Thread(target=read, args=(n,), daemon=True) for n in range(readers)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + wait
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return got


@dataclass(frozen=True)
class Trials:
    """One method a behaviour; each returns a bool, or None where the question does not arise."""

    make: type[Rig]
    place: Place

    def rig(self, **changes: Any) -> Rig:
        return self.make(replace(self.place, **changes))

    def one_process(self) -> bool:
        """One reader, and 39 more while its load is under way: a fair start for every lock."""

        def once(number: int) -> bool:
            rig, origin = self.rig(), CountingOrigin(0.8)
            first, _ = rig.start(f"k{number}", origin)
            time.sleep(0.1)
            got = [*crowd(rig, 39, origin, f"k{number}"), first.result(10)]
            return got == ["right"] * 40 and origin.calls == 1

        return any(once(number) for number in range(2))

    def leader_stopped(self) -> bool:
        rig, origin = self.rig(), CountingOrigin(1.0)
        _, stop = rig.start("k", origin)
        time.sleep(0.1)
        others = [rig.start("k", origin)[0] for _ in range(5)]
        time.sleep(0.5)  # all of them wait by now
        stop()
        return [other.result(8) for other in others] == ["right"] * 5 and origin.calls <= 2

    def leader_fails(self) -> bool:
        rig, origin = self.rig(), CountingOrigin(0.05)
        origin.error = "lost"
        crowd(rig, 20, origin, "k")
        return origin.calls <= 2

    def lock_ends(self) -> bool:
        """A slow load outlives its lock; meanwhile the row changes and somebody else fills."""
        slow, new = CountingOrigin(1.2, "old"), CountingOrigin(0.1, "new")
        rig = self.rig(lock=0.5)
        other = rig if self.make.local else self.rig(lock=0.5)
        first, _ = rig.start("k", slow)
        time.sleep(0.6)
        other.delete("k")
        second, _ = other.start("k", new)
        for read in (first, second):
            read.exception(5)
        return bool(other.read("k", lambda: "new") == "new")

    def down_fast(self) -> bool | None:
        if self.make.local:
            return None
        rig = self.rig(url=NOWHERE)
        for _ in range(3):  # the best of three: the machine may be busy
            began = time.monotonic()
            found, _ = rig.start("k", lambda: "right")
            with contextlib.suppress(TimeoutError):
                if found.exception(0.5) is None and time.monotonic() - began < 0.05:
                    return True
        return False

    def down_bounded(self) -> bool | None:
        if self.make.local:
            return None
        rig, origin = self.rig(url=NOWHERE), CountingOrigin(0.05)
        got = crowd(rig, 32, origin, "k{}", wait=2)
        return got == ["right"] * 32 and origin.most <= 8

    def corrupt(self) -> bool | None:
        if self.make.local:
            return None
        rig = self.rig()
        rig.read("k", lambda: "right")
        with redis.Redis.from_url(self.place.url) as client:
            for name in client.scan_iter(f"*{self.place.prefix}*"):
                if client.type(name) == b"string":
                    client.set(name, b"\xff not what you think", keepttl=True)
        return [rig.read("k", lambda: "right") for _ in range(2)] == ["right"] * 2

    def none_kept(self) -> bool:
        rig, origin = self.rig(ttl=30), CountingOrigin(0, None)
        once = [rig.read("k", origin) for _ in range(3)] == [None] * 3 and origin.calls == 1
        return once and self.longest(rig) <= 10

    def longest(self, rig: Rig) -> float:
        """The longest TTL (s) that anything of this rig has."""
        return max(self.lives(rig))

    def lives(self, rig: Rig) -> list[float]:
        if isinstance(rig, Cachetools):
            skips, ends = [n / 2 for n in range(70)], []
            for key in list(rig.cache):
                for rig.skipped in skips:
                    if key not in rig.cache:
                        ends.append(rig.skipped)
                        break
            return ends
        if isinstance(rig, Diskcache):
            return [rig.cache.get(key, expire_time=True)[1] - time.time() for key in rig.cache]
        with redis.Redis.from_url(self.place.url) as client:
            names = [n for n in client.scan_iter(f"*{self.place.prefix}*") if b"lock" not in n]
            return [client.pttl(name) / 1000 for name in names]

    def delete_during_fill(self) -> bool:
        rig, old = self.rig(), CountingOrigin(0.4, "old")
        first, _ = rig.start("k", old)
        time.sleep(0.2)
        rig.delete("k")
        first.exception(5)
        return bool(rig.read("k", lambda: "new") == "new")

    def nobody_waits(self) -> bool:
        """A hot key over more than two TTLs: only the first reader waits, one load at a time."""
        return self._hot() or (self.make.early and self._hot())  # the machine may be busy

    def _hot(self) -> bool:
        rig, origin = self.rig(ttl=1.2, swr=True), CountingOrigin(0.5)
        rig.read("k", origin)
        waits, end = [], time.monotonic() + 2.8
        while time.monotonic() < end:
            began = time.monotonic()
            rig.read("k", origin)
            waits.append(time.monotonic() - began)
            time.sleep(0.01)
        return max(waits) < 0.4 and origin.calls >= 2 and origin.most == 1

    def jitter(self) -> bool:
        rig = self.rig(ttl=30)
        for number in range(30):
            rig.read(f"k{number}", lambda: "right")
        lives = self.lives(rig)
        return max(lives) <= 30.5 and max(lives) - min(lives) > 1.5


BEHAVIOURS: dict[str, str] = {
    "one_process": "many cold readers, one process: 1 origin call",
    "four_processes": "... in four processes: 1 origin call",
    "leader_stopped": "leader cut short: the others get the value",
    "leader_fails": "leader's load fails: at most 2 tries for 20 readers",
    "lock_ends": "lock ends during a load: no stale overwrite",
    "down_fast": "cache down: under 50 ms more",
    "down_bounded": "... and at most 8 origin calls at once",
    "corrupt": "broken copy: a miss",
    "none_kept": "None is kept, with a TTL of its own",
    "delete_during_fill": "delete during a fill: no stale copy",
    "nobody_waits": "TTL over: nobody waits, one renews",
    "jitter": "TTLs spread, none longer than promised",
}


# Four processes --------------------------------------------------------------------------------


Pod = subprocess.Popen[str]


@contextlib.contextmanager
def four_pods() -> Iterator[list[Pod]]:
    """Four processes that wait for orders, and are gone afterwards."""
    command = [sys.executable, "-m", "cachelab.lab.comparison"]
    pods = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        bring_all()
        for one in pods:
            assert one.stdout
            one.stdout.readline()  # it is ready
        yield pods
    finally:
        for one in pods:
            one.kill()
            one.communicate()


def four_processes(pods: list[Pod], place: Place, name: str) -> bool:
    """Ten readers in each of four processes."""
    spot = replace(place, prefix=f"{place.prefix}4{name[:4]}:", folder=place.folder + name)
    said: list[Any] = []
    for word in (json.dumps([name, vars(spot)]), "go"):
        for one in pods:
            assert one.stdin
            print(word, file=one.stdin, flush=True)
        said = [json.loads(one.stdout.readline()) for one in pods if one.stdout]
    return sum(calls for calls, _ in said) == 1 and all(good for _, good in said)


def bring_all() -> None:
    """Import the libraries before somebody waits for one."""
    for package in ("aiocache", "cashews", "cachetools", "diskcache", "dogpile.cache"):
        importlib.import_module(package)


def pod() -> None:
    """One of the four: a library and a place, ready, go, and what came of it."""
    bring_all()
    print("ready", flush=True)
    for line in sys.stdin:
        name, place = json.loads(line)
        rig, origin = RIGS[name](Place(**place)), CountingOrigin(0.4)
        print("0", flush=True)
        sys.stdin.readline()
        got = crowd(rig, 10, origin, "k")
        print(json.dumps([origin.calls, got == ["right"] * 10]), flush=True)


# The table -------------------------------------------------------------------------------------


WORDS = {True: "yes", False: "-", None: "n/a"}


@dataclass(frozen=True, repr=False)
class Table:
    """`cells[behaviour][library]`: True, False, or None where the question does not arise."""

    cells: dict[str, dict[str, bool | None]]
    why: dict[tuple[str, str], str]  # the error that a False comes from, if one did

    def __repr__(self) -> str:
        names = list(self.cells["one_process"])
        wide = [max(len(name), 4) for name in names]
        head = " " * 54 + "  ".join(n.ljust(w) for n, w in zip(names, wide, strict=True))
        lines = [head.rstrip()]
        for key, text in BEHAVIOURS.items():
            row = [WORDS[self.cells[key][n]].ljust(w) for n, w in zip(names, wide, strict=True)]
            lines.append((text.ljust(54) + "  ".join(row)).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For a front end that would break the lines of the text, which are too long for a page."""
        names = ["", *self.cells["one_process"]]
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{escape(text)}</th>'
            + "".join(f"<td>{WORDS[found]}</td>" for found in self.cells[key].values())
            + "</tr>"
            for key, text in BEHAVIOURS.items()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def versions() -> str:
    """The libraries and their versions, in one line."""
    packages = dict.fromkeys(rig.package for rig in RIGS.values() if rig.package)
    return ", ".join(f"{name} {metadata.version(name)}" for name in packages)


def table(names: list[str] | None = None) -> Table:
    """Try all behaviours on these libraries (None: all) and a live server; takes some 15 s.

    The server is found as for `cachelab.start`, and is not the Lab's own. ServerError without one.
    """
    names = names or list(RIGS)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cachelab-"))
        server: Any = servers.find(tcp=True)
        stack.callback(server.close)
        if not server.is_live:
            raise servers.ServerError("The table needs a live server, and this is fakeredis.")
        url = getattr(server, "url", "")
        if not url:
            at = server.address
            url = f"redis://:{at['password']}@{at['host']}:{at['port']}/0"
        place = Place(url, f"{server.prefix}table:", f"{folder}/")
        pods = stack.enter_context(four_pods())
        cells: dict[str, dict[str, bool | None]] = {key: {} for key in BEHAVIOURS}
        why: dict[tuple[str, str], str] = {}

        def column(name: str) -> None:
            for key in BEHAVIOURS:
                if key == "four_processes":
                    continue
                spot = f"{name[:4]}:{key}:"
                there = replace(place, prefix=place.prefix + spot, folder=place.folder + spot)
                try:
                    cells[key][name] = getattr(Trials(RIGS[name], there), key)()
                except Exception as error:
                    cells[key][name] = False
                    why[key, name] = f"{type(error).__name__}: {error}"[:200]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(column, names))
        cells["four_processes"] |= {name: four_processes(pods, place, name) for name in names}
        with redis.Redis.from_url(url) as client:
            for found in client.scan_iter(f"*{place.prefix}*"):
                client.unlink(found)
    order = {key: {name: row[name] for name in names} for key, row in cells.items()}
    return Table(order, why)


if __name__ == "__main__":
    pod()
