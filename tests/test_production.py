"""The production cache keeps its ten promises: on the stage, on fakeredis and on real servers."""

from __future__ import annotations

import inspect
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from actors import by_process

from cachelab import stage
from cachelab.lab import Lab, traffic
from cachelab.patterns import production
from cachelab.patterns.production import Busy, ProductionCache
from cachelab.process.errors import OneSentence

KEY = "product:v1:1"


def process(load: Any = None, ttl: float = 60, stale: float = 0, **options: Any) -> Any:
    """A process: its readers share one ProductionCache, made by the first of them."""
    made: list[ProductionCache] = []

    def play(cache: Any, db: Any) -> Any:
        if not made:
            made.append(ProductionCache(cache, "product", **options))
        ask = (lambda: load(db)) if load else (lambda: db.product(1))
        return made[0].get("1", ask, ttl, stale=stale)

    play.made = made
    return play


def right(run: stage.StageTrace) -> int:
    """How many got what the database has."""
    truth = run.world.db.product(1)
    return sum(answer == truth for answer in run.answers.values())


def slow(seconds: float) -> Callable[[Any], Any]:
    """A load that has its row at once and comes back with it later."""

    def load(db: Any) -> Any:
        row = db.product(1)
        time.sleep(seconds)
        return row

    return load


def shared(cache: Any) -> ProductionCache:
    """The one ProductionCache of this process, whatever the process."""
    return vars(cache).setdefault("products", ProductionCache(cache, "product", budget=30))


def hot_reader(cache: Any, db: Any) -> Any:
    return shared(cache).get("1", lambda: db.product(1), 300)


@pytest.fixture(scope="module", params=["fake", "wheel", "path"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """fakeredis, Valkey from the wheel, and the server that is installed: Redis on Debian."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CACHELAB_REDIS_URL", raising=False)
        patch.setenv("CACHELAB_BACKEND", "fake" if request.param == "fake" else "live")
        if request.param != "fake":
            patch.setenv("CACHELAB_SERVER", request.param)
        try:
            made = Lab()
        except OneSentence as error:
            pytest.skip(str(error))
        yield made
        made.close()


@pytest.fixture
def shop(lab: Lab) -> Lab:
    lab.clear()
    vars(lab.cache).pop("products", None)
    lab.db.latency, lab.db.capacity = 0.0, None
    return lab


@pytest.fixture
def products(shop: Lab) -> ProductionCache:
    return ProductionCache(shop.cache, "product")


# 1. Eight hundred cold readers ------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.parametrize("query", [0.05, 0.25, 8.0])
def test_800_cold_readers_ask_the_origin_once_on_the_stage(processes: int, query: float) -> None:
    run = stage.run(
        by_process([process() for _ in range(processes)] * (800 // processes)), latency=query
    )
    assert (run.queries, right(run)) == (1, 800)
    assert run.elapsed < query + 0.3


@pytest.mark.parametrize("processes", [1, 4])
@pytest.mark.slow
def test_800_cold_readers_ask_the_origin_once_on_a_server(shop: Lab, processes: int) -> None:
    if processes > 1 and not shop.server.is_live:
        pytest.skip("fakeredis lives in one process")
    shop.db.latency = 0.05
    burst = traffic.burst(shop, hot_reader, 800, processes=processes)
    assert burst.errors == []
    assert (burst.queries, len(burst.answers)) == (1, 800)
    assert all(answer == burst.answers[0] and answer["id"] == 1 for answer in burst.answers)


# 2. The leader goes away -----------------------------------------------------------------------


def test_a_leader_that_is_cut_short_takes_nobody_with_it() -> None:
    made: list[ProductionCache] = []

    def reader(budget: float) -> Any:
        def play(cache: Any, db: Any) -> Any:
            if not made:
                made.append(ProductionCache(cache, "product"))
            made[0].budget = budget
            return made[0].get("1", lambda: slow(1)(db), 60)

        return play

    run = stage.run({"leader": reader(0.1), **{f"r{n}": (0.01, reader(9)) for n in range(9)}})
    assert isinstance(run.answers["leader"], Busy)
    assert (run.queries, right(run)) == (1, 9)


def test_a_leader_whose_process_dies_is_replaced_when_its_lock_ends() -> None:
    leader, others = process(slow(1), hold=3), process(slow(1), hold=3)
    cast = {"leader": leader, **{f"r{n}": (0.5, others) for n in range(20)}}
    run = stage.run(cast, crash=("leader", 5))
    assert run.of("crash")
    assert right(run) == 20
    assert 3 < run.elapsed < 5


def test_a_load_that_is_stopped_half_way_leaves_nobody_waiting() -> None:
    def stopped(db: Any) -> Any:
        db.product(1)
        raise SystemExit

    run = stage.run(stage.threads([process(stopped)] * 10), latency=0.1)
    assert {str(answer) for answer in run.answers.values()} == {
        "the load of product:v1:1 was stopped"
    }
    assert run.elapsed < 1
    assert run.world.cache.exists("lock:" + KEY) == 0


# 3. The leader fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 4])
def test_a_load_that_fails_is_tried_once_a_process_and_not_800_times(processes: int) -> None:
    def fails(db: Any) -> Any:
        db.product(1)
        raise TimeoutError("lost")

    readers = [process(fails) for _ in range(processes)] * (800 // processes)
    run = stage.run(by_process(readers), latency=0.1)
    assert run.queries == processes
    assert {repr(answer) for answer in run.answers.values()} == {"TimeoutError('lost')"}


def test_after_a_failure_the_next_read_tries_again(products: ProductionCache) -> None:
    def fails() -> Any:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        products.get("1", fails, 60)
    assert products.get("1", lambda: "there", 60) == "there"
    assert products.metrics["load_errors"] == 1


# 4. The lock ends during the load --------------------------------------------------------------


def test_a_fill_whose_lock_has_expired_does_not_overwrite_what_is_newer() -> None:
    late, prompt = process(slow(8), hold=2), process(slow(1))

    def update(cache: Any, db: Any) -> None:
        db.update_product(1, price_cents=1)

    run = stage.run({"late": late, "update": (3, update), "prompt": (4, prompt)})
    kept = json.loads(run.world.cache.get(KEY))[0]
    assert kept == run.world.db.product(1)
    assert late.made[0].metrics["voided"] == 1


# 5. Redis is down ------------------------------------------------------------------------------


def test_a_dead_cache_adds_no_wait_and_fails_no_read() -> None:
    readers = [process() for _ in range(10)] * 20
    run = stage.run(readers, latency=0.1, spread=3, faults=[stage.CacheDown(1, 2)])
    assert right(run) == 200
    assert run.elapsed < 3.2


def test_800_readers_of_one_key_are_one_query_also_when_the_cache_is_down() -> None:
    readers = stage.threads([process()] * 800)
    run = stage.run(readers, latency=0.1, faults=[stage.CacheDown(0, 9)])
    assert (run.queries, right(run)) == (1, 800)


def test_a_cache_that_does_not_answer_costs_each_reader_one_timeout_at_most(shop: Lab) -> None:
    if not shop.server.is_live:
        pytest.skip("fakeredis always answers")
    client = shop.client(socket_timeout=0.04, socket_connect_timeout=0.04)
    products = ProductionCache(client, "product", rest=30)
    shop.pause_cache()
    try:
        sent = [products.get(str(n), lambda: 1, 60) for n in range(20)]
    finally:
        shop.resume_cache()
    assert sent == [1] * 20
    assert products.metrics["cache_errors"] <= 4
    assert products.metrics["bypassed"] >= 16


def test_origin_concurrency_never_exceeds_its_bound_when_the_cache_is_down(shop: Lab) -> None:
    origin = Origin()
    products = ProductionCache(shop.cache, "product", origin_slots=4, rest=0.2)
    crowd = Crowd(products, origin, readers=200, keys=40)
    with crowd:
        crowd.wait_for(lambda: products.metrics["hits"] > 500)
        shop.kill_cache()
        before = origin.calls
        crowd.wait_for(lambda: products.metrics["bypassed"] > 200 and origin.calls > before + 40)
        shop.restart_cache()
        back = time.monotonic()
        hits = products.metrics["hits"]
        crowd.wait_for(lambda: products.metrics["hits"] > hits)
        took = time.monotonic() - back
    assert crowd.errors == []
    assert crowd.wrong == 0
    assert 1 <= origin.most <= 4
    assert took < 1


class Origin:
    """Counts its calls, and how many there were at once."""

    def __init__(self, seconds: float = 0.005) -> None:
        self.seconds, self.calls, self.now, self.most = seconds, 0, 0, 0
        self._lock = threading.Lock()

    def load(self, key: str) -> str:
        with self._lock:
            self.calls, self.now = self.calls + 1, self.now + 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
        return f"value of {key}"


class Crowd:
    """Threads that read until the block ends."""

    def __init__(
        self, products: ProductionCache, origin: Origin, *, readers: int, keys: int
    ) -> None:
        self.products, self.origin, self.keys = products, origin, keys
        self.errors: list[str] = []
        self.wrong = 0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.read, args=(n,)) for n in range(readers)]

    def read(self, number: int) -> None:
        draw = random.Random(number)
        while not self.over.wait(draw.uniform(0.01, 0.1)):
            key = str(draw.randrange(self.keys))
            try:
                value = self.products.get(key, lambda k=key: self.origin.load(k), 30)
                self.wrong += value != f"value of {key}"
            except Exception as error:
                self.errors.append(repr(error))

    def __enter__(self) -> Crowd:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(20)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)


def test_what_a_dead_cache_was_not_told_it_hears_first_when_it_is_back() -> None:
    reader = process(ttl=300, rest=0.2)

    def update(cache: Any, db: Any) -> bool:
        db.update_product(1, price_cents=1)
        return reader.made[0].delete("1")

    cast = {"before": reader, "update": (5, update), "after": (7, reader)}
    run = stage.run(stage.threads(cast), faults=[stage.CacheDown(4, 6)])
    assert run.answers["update"] is False
    assert run.answers["after"] == run.world.db.product(1)


# 6. A broken copy ------------------------------------------------------------------------------

BROKEN = [
    b"not JSON", b"", b"\xff\xfe", b"null", b"7", b'"abc"', b"[1]", b'{"a":1,"b":2,"c":3}',
    b'[1, "soon", []]', b"[" * 5_000,
]  # fmt: skip


THREE_PARTS = {b'"abc"', b'{"a":1,"b":2,"c":3}'}  # look like a copy with other tags


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_copy_is_a_miss_and_is_replaced(
    shop: Lab, products: ProductionCache, text: bytes
) -> None:
    shop.cache.set(KEY, text, ex=60)
    assert [products.get("1", lambda: "good", 60) for _ in range(2)] == ["good", "good"]
    assert products.metrics["loads"] == 1
    assert products.metrics["corrupt"] == (0 if text in THREE_PARTS else 2)  # looked at twice


# 7. Nothing is a value, too --------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "", [], {}, False])
def test_a_value_that_looks_like_nothing_is_kept(products: ProductionCache, value: Any) -> None:
    for _ in range(3):
        found = products.get("1", lambda: value, 60)
        assert found == value
        assert type(found) is type(value)
    assert products.metrics["loads"] == 1


def test_absence_has_a_ttl_of_its_own(shop: Lab) -> None:
    products = ProductionCache(shop.cache, "product", absent_ttl=5)
    products.get("absent", lambda: None, 300, stale=600)
    products.get("there", lambda: 1, 300, stale=600)
    assert 4 <= shop.cache.pttl("product:v1:absent") / 1000 <= 5
    assert 800 <= shop.cache.pttl("product:v1:there") / 1000 <= 900


# 8. A delete during a fill ---------------------------------------------------------------------


def never_stale(world: stage.World) -> str | None:
    kept = world.cache.get(KEY)
    if kept is not None and json.loads(kept)[0] != world.db.product(1):
        return "an old row is left in the cache"
    return None


def own(cache: Any) -> ProductionCache:
    return ProductionCache(cache, "product")


def test_no_order_of_two_readers_and_a_delete_leaves_an_old_row() -> None:
    def read(cache: Any, db: Any) -> Any:
        return own(cache).get("1", lambda: db.product(1), 60)

    def write(cache: Any, db: Any) -> None:
        db.update_product(1, price_cents=1)
        own(cache).delete("1")

    for readers in (1, 2):
        cast = {**{f"reader {n}": read for n in range(readers)}, "writer": write}
        verdict = stage.explore(cast, never_stale, commit_apart=False)
        assert verdict.outcome == "passed", verdict


def test_no_order_of_a_reader_and_a_forgotten_tag_serves_an_old_row_afterwards() -> None:
    def read(cache: Any, db: Any) -> Any:
        return own(cache).get("1", lambda: db.product(1), 60, tags=["lamps"])

    def write(cache: Any, db: Any) -> None:
        db.update_product(1, price_cents=1)
        own(cache).forget_tag("lamps")

    def next_reader_is_right(world: stage.World) -> bool:
        raw, mark = world.cache.mget(KEY, "tag:lamps")
        value, _, marks = json.loads(raw) if raw else (None, 0, [])
        return marks != [mark or ""] or value == world.db.product(1)

    cast = {"reader": read, "writer": write}
    verdict = stage.explore(cast, next_reader_is_right, commit_apart=False)
    assert verdict.outcome == "passed", verdict


def test_who_comes_after_a_delete_does_not_join_a_load_from_before_it() -> None:
    reader = process(slow(5))

    def update(cache: Any, db: Any) -> None:
        db.update_product(1, price_cents=1)
        reader.made[0].delete("1")

    run = stage.run(stage.threads({"early": reader, "update": (1, update), "late": (2, reader)}))
    assert run.answers["late"]["price_cents"] == 1
    assert json.loads(run.world.cache.get(KEY))[0]["price_cents"] == 1


# 9. Stale while one renews ---------------------------------------------------------------------


def test_a_stale_copy_is_served_at_once_while_exactly_one_renews_it() -> None:
    pods = [process(ttl=60, stale=600) for _ in range(4)]

    def timed(read: Any) -> Any:
        def play(cache: Any, db: Any) -> float:
            began = time.monotonic()
            read(cache, db)
            return time.monotonic() - began

        return play

    cast: dict[str, Any] = {"first": pods[0]}
    cast |= {f"r{n}": (61.0, timed(pods[n % 4])) for n in range(200)}
    run = stage.run(cast, latency=0.25)
    assert run.queries == 2
    assert max(run.answers[f"r{n}"] for n in range(200)) < 0.005


def test_a_stale_copy_is_served_when_the_origin_fails_and_tried_again_later() -> None:
    broken: list[bool] = []

    def load(db: Any) -> Any:
        row = db.product(1)
        if broken:
            raise OSError("the origin is down")
        return row

    reader = process(load, ttl=60, stale=600, rest=5)
    cast: dict[str, Any] = {"first": reader, "breaks": (30, lambda: broken.append(True))}
    cast |= {f"r{n}": (70.0 + n / 10, reader) for n in range(100)}
    run = stage.run(stage.threads(cast))
    assert right(run) == 101
    assert run.queries == 1 + 2  # 10 s, one try each 5 s


def test_a_reader_who_allows_nothing_stale_gets_nothing_stale() -> None:
    lenient, strict = process(ttl=60, stale=600), process(ttl=60)
    run = stage.run({"first": lenient, "strict": (70, strict)})
    assert run.queries == 2


# 10. Jitter keeps the bound --------------------------------------------------------------------


def test_no_answer_is_older_than_its_ttl_and_the_ends_are_spread() -> None:
    ends = Counter()
    rng = random.Random(13)

    def many(cache: Any, db: Any) -> None:
        products = ProductionCache(cache, "product", absent_ttl=60)
        for n in range(200):
            began = time.time()
            products.get(str(n), lambda: time.sleep(rng.uniform(0, 2)), 60)
            raw = cache.get(f"product:v1:{n}")
            fresh_until = json.loads(raw)[1]
            assert 50.9 <= fresh_until - began <= 60.001
            assert cache.pttl(f"product:v1:{n}") / 1000 <= fresh_until - time.time() + 0.001
            ends[round(fresh_until - began)] += 1

    run = stage.run({"one": many})
    assert run.answers["one"] is None
    assert len(ends) >= 9


# And the rest ----------------------------------------------------------------------------------


def test_the_version_is_part_of_the_key(shop: Lab) -> None:
    old, new = (ProductionCache(shop.cache, "product", version=v) for v in (1, 2))
    assert old.get("1", lambda: "old shape", 60) == "old shape"
    assert new.get("1", lambda: {"shape": "new"}, 60) == {"shape": "new"}
    assert old.get("1", lambda: "loaded again", 60) == "old shape"


def test_a_forgotten_tag_ends_every_copy_that_has_it(shop: Lab) -> None:
    users, pages = ProductionCache(shop.cache, "user"), ProductionCache(shop.cache, "page")
    counts: Counter[str] = Counter()

    def read(cache: ProductionCache, key: str, *tags: str) -> None:
        cache.get(key, lambda: counts.update([key]) or key, 60, tags=tags)

    def all_of_them() -> None:
        read(users, "1", "user:1")
        read(pages, "7", "user:2", "user:1")
        read(pages, "8", "user:2")

    all_of_them(), all_of_them()
    assert set(counts.values()) == {1}
    users.forget_tag("user:1")
    all_of_them()
    assert counts == {"1": 2, "7": 2, "8": 1}


def test_a_delete_ends_one_copy_and_no_other(products: ProductionCache) -> None:
    for key in "12":
        products.get(key, lambda: "old", 60)
    assert products.delete("1") is True
    assert [products.get(key, lambda: "new", 60) for key in "12"] == ["new", "old"]


def test_each_caller_has_a_copy_of_its_own_of_one_shape(products: ProductionCache) -> None:
    made = products.get("1", lambda: {"sizes": (1, 2)}, 60)
    made["sizes"].append(3)
    assert products.get("1", dict, 60) == {"sizes": [1, 2]}


def test_a_value_that_is_not_json_is_an_error_and_leaves_no_lock(
    shop: Lab, products: ProductionCache
) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        products.get("1", lambda: {1, 2}, 60)
    assert shop.keys() == []


@pytest.mark.parametrize(("ttl", "stale"), [(0, 0), (-1, 5), (60, -1), (31 * 86_400, 0)])
def test_times_that_are_none_are_refused(
    products: ProductionCache, ttl: float, stale: float
) -> None:
    with pytest.raises(ValueError, match="seconds, together up to"):
        products.get("1", lambda: 1, ttl, stale=stale)


def test_the_metrics_tell_hits_misses_and_loads(products: ProductionCache) -> None:
    for _ in range(5):
        products.get("1", lambda: 1, 60)
    assert products.metrics == {"misses": 1, "hits": 4, "loads": 1, "fills": 1}


def test_its_client_waits_for_nobody() -> None:
    client = production.connect("redis://127.0.0.1:1/0")
    products = ProductionCache(client, "product")
    assert [products.get("1", lambda: 1, 60) for _ in range(20)] == [1] * 20
    options = client.connection_pool.connection_kwargs
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 0.04


def test_it_has_at_most_250_lines() -> None:
    assert len(inspect.getsource(production).splitlines()) <= 250


def test_without_jitter_a_copy_lives_its_ttl_and_its_stale_time_to_the_millisecond() -> None:
    def read(cache: Any, db: Any) -> int:
        products = ProductionCache(cache, "product", jitter=0)
        products.get("1", lambda: db.product(1), 60, stale=30)
        return cache.pttl(KEY)

    run = stage.run({"one": read})
    assert 89_990 <= run.answers["one"] <= 90_000


def test_the_third_failure_in_a_row_and_not_the_second_leaves_the_cache_alone(
    products: ProductionCache,
) -> None:
    breaker = products.breaker
    for allowed in (True, True, False):
        breaker.failed(OSError("lost"))
        assert breaker.allows() is allowed
    assert products.metrics == {"cache_errors": 3, "bypassed": 1}


def test_after_its_rest_one_call_tries_the_cache_and_the_others_wait_for_what_it_finds() -> None:
    def calls(cache: Any, db: Any) -> list[bool]:
        breaker = production.Breaker(1, 5, Counter())
        breaker.failed(OSError("lost"))
        before = breaker.allows()
        time.sleep(5.1)
        both = [breaker.allows(), breaker.allows()]
        time.sleep(5.1)
        return [before, *both, breaker.allows(), breaker.allows()]

    assert stage.run({"one": calls}).answers["one"] == [False, True, False, True, False]


def test_a_copy_half_a_second_past_its_ttl_counts_as_stale() -> None:
    reader = process(ttl=60, stale=600, jitter=0)
    run = stage.run(stage.threads({"first": reader, "late": (60.5, reader)}))
    assert right(run) == 2
    metrics = reader.made[0].metrics
    assert (metrics["misses"], metrics["hits"], metrics["stale"]) == (1, 0, 1)


def test_a_load_that_fails_is_counted_as_no_fill(products: ProductionCache) -> None:
    with pytest.raises(ZeroDivisionError):
        products.get("1", lambda: 1 // 0, 60)
    assert products.metrics == {"misses": 1, "loads": 1, "load_errors": 1, "unfilled": 1}


def test_one_answer_ends_the_row_of_failures(products: ProductionCache) -> None:
    breaker = products.breaker
    breaker.failed(OSError("lost"))
    assert products.get("1", lambda: 1, 60) == 1
    for _ in range(2):
        breaker.failed(OSError("lost"))
    assert breaker.allows()
