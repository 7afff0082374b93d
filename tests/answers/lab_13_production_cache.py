"""Answers to lab 13, wrong and right, as learners write them."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
import weakref
from collections import Counter

import redis

from answers import Wrong

# envelope ------------------------------------------------------------------------------------


def _envelope(cache, db, product_id, *, key="product:v2:{}", catch=Exception, absent=5, ttl=300):
    key = key.format(product_id)
    try:
        return json.loads(cache.get(key))["value"]
    except catch:
        pass
    product = db.product(product_id)
    cache.set(key, json.dumps({"value": product}), ex=absent if product is None else ttl)
    return product


def no_envelope(cache, db, product_id):
    key = f"product:v2:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    cache.set(key, json.dumps(product), ex=5 if product is None else 300)
    return product


def trusts_the_text(cache, db, product_id):
    key = f"product:v2:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)["value"]
    product = db.product(product_id)
    cache.set(key, json.dumps({"value": product}), ex=5 if product is None else 300)
    return product


def only_broken_json(cache, db, product_id):
    key = f"product:v2:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        with contextlib.suppress(ValueError):
            return json.loads(stored)["value"]
    product = db.product(product_id)
    cache.set(key, json.dumps({"value": product}), ex=5 if product is None else 300)
    return product


def old_key(cache, db, product_id):
    return _envelope(cache, db, product_id, key="product:v1:{}")


def absence_for_five_minutes(cache, db, product_id):
    return _envelope(cache, db, product_id, absent=300)


def absence_is_a_miss(cache, db, product_id):
    key = f"product:v2:{product_id}"
    try:
        value = json.loads(cache.get(key))["value"]
        if value:
            return value
    except (ValueError, TypeError, KeyError):
        pass
    product = db.product(product_id)
    cache.set(key, json.dumps({"value": product}), ex=5 if product is None else 300)
    return product


def fills_only_what_is_missing(cache, db, product_id):
    key = f"product:v2:{product_id}"
    try:
        return json.loads(cache.get(key))["value"]
    except (ValueError, TypeError, KeyError):
        pass
    product = db.product(product_id)
    cache.set(key, json.dumps({"value": product}), ex=5 if product is None else 300, nx=True)
    return product


def keeps_the_time_of_the_nonsense(cache, db, product_id):
    key = f"product:v2:{product_id}"
    stored = cache.get(key)
    try:
        return json.loads(stored)["value"]
    except (ValueError, TypeError, KeyError):
        pass
    product = db.product(product_id)
    life = {"keepttl": True} if stored else {"ex": 5 if product is None else 300}
    cache.set(key, json.dumps({"value": product}), **life)
    return product


def looks_before_it_leaps(cache, db, product_id):
    key, missing = f"product:v2:{product_id}", object()
    stored, found = cache.get(key), missing
    if stored:
        try:
            copy = json.loads(stored)
        except json.JSONDecodeError:
            copy = None
        if isinstance(copy, dict) and set(copy) >= {"value"}:
            found = copy["value"]
    if found is not missing:
        return found
    product = db.product(product_id)
    cache.setex(key, 1 if product is None else 300, json.dumps({"version": 2, "value": product}))
    return product


# breaker -------------------------------------------------------------------------------------


def _guarded(
    cache,
    db,
    product_id,
    breaker,
    *,
    limit=3,
    rest=2.0,
    reset=True,
    catch=redis.RedisError,
    ttl=300,
    since_first=False,
):
    key = f"product:v1:{product_id}"

    def ask(command, *args, **options):
        if breaker.get("failures", 0) >= limit and time.monotonic() < breaker["again_at"]:
            return None
        try:
            reply = command(*args, **options)
        except catch:
            breaker["failures"] = breaker.get("failures", 0) + 1
            if not (since_first and 1 < breaker["failures"] <= limit):
                breaker["again_at"] = time.monotonic() + rest
            return None
        if reset:
            breaker["failures"] = 0
        return reply

    stored = ask(cache.get, key)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    ask(cache.set, key, json.dumps(product), ex=ttl)
    return product


def four_failures(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, breaker, limit=4)


def rests_from_the_first_failure(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, breaker, since_first=True)


def only_what_refuses(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, breaker, catch=redis.ConnectionError)


def for_ever(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, breaker, ttl=None)


SHARED = weakref.WeakKeyDictionary()


def one_for_all(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, SHARED.setdefault(cache.connection_pool, {}))


def counts_the_database_too(cache, db, product_id, breaker):
    key = f"product:v1:{product_id}"
    if breaker.get("failures", 0) < 3 or time.monotonic() >= breaker["again_at"]:
        try:
            stored = cache.get(key)
            product = db.product(product_id) if stored is None else json.loads(stored)
            if stored is None:
                cache.set(key, json.dumps(product), ex=300)
            breaker["failures"] = 0
            return product
        except Exception:
            breaker["failures"] = breaker.get("failures", 0) + 1
            breaker["again_at"] = time.monotonic() + 2
    return db.product(product_id)


def with_a_door(cache, db, product_id, breaker):
    @contextlib.contextmanager
    def door():
        try:
            yield
            breaker.clear()
        except redis.RedisError:
            breaker["bad"] = breaker.get("bad", 0) + 1
            breaker["closed_until"] = time.monotonic() + 2 if breaker["bad"] >= 3 else 0

    def is_open():
        return time.monotonic() >= breaker.get("closed_until", 0)

    key, stored = f"product:v1:{product_id}", None
    if is_open():
        with door():
            stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    if is_open():
        with door():
            cache.set(key, json.dumps(product), px=300_000)
    return product


def no_guard(cache, db, product_id, breaker):
    key = f"product:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    cache.set(key, json.dumps(product), ex=300)
    return product


def asks_each_time(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, breaker, limit=10**9)


def never_again(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, breaker, rest=1e9)


def rests_for_a_minute(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, breaker, rest=5.5)


def never_forgets_a_failure(cache, db, product_id, breaker):
    return _guarded(cache, db, product_id, breaker, reset=False)


def no_cache_at_all(cache, db, product_id, breaker):
    return db.product(product_id)


def hides_the_database_too(cache, db, product_id, breaker):
    try:
        return _guarded(cache, db, product_id, breaker)
    except Exception:
        return None


def closes_in_the_clock(cache, db, product_id, breaker):
    key, now = f"product:v1:{product_id}", time.monotonic()
    closed = now < breaker.setdefault("until", 0)
    recent = breaker.setdefault("recent", [])
    stored = None
    try:
        if not closed:
            stored = cache.get(key)
            recent.clear()
    except redis.RedisError:
        recent.append(now)
        closed = True
        if len(recent) >= 3:
            breaker["until"] = now + 2
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    if not closed:
        with contextlib.suppress(redis.RedisError):
            cache.set(key, json.dumps(product), ex=300)
    return product


# two ends ------------------------------------------------------------------------------------


def _two_ends(cache, db, product_id, *, life=None, alone=True, waits=False, keep=600, serve=True):
    key = f"product:v1:{product_id}"

    def fill():
        began = time.time()
        product = db.product(product_id)
        seconds = life() if life else 60 * (1 - 0.15 * random.random())
        copy = json.dumps({"value": product, "fresh_until": began + seconds})
        cache.set(key, copy, ex=int(seconds) + keep)
        cache.delete(f"renew:{key}")
        return product

    stored = cache.get(key)
    if stored is None:
        return fill()
    copy = json.loads(stored)
    if time.time() >= copy["fresh_until"] and serve:
        if waits:
            return fill()
        if not alone or cache.set(f"renew:{key}", 1, nx=True, ex=30):
            threading.Thread(target=fill).start()
    return copy["value"]


def one_end(cache, db, product_id):
    return no_guard(cache, db, product_id, None)


def everybody_renews(cache, db, product_id):
    return _two_ends(cache, db, product_id, alone=False)


def the_chosen_one_waits(cache, db, product_id):
    return _two_ends(cache, db, product_id, waits=True)


def nobody_renews(cache, db, product_id):
    return _two_ends(cache, db, product_id, serve=False)


def jitter_is_added(cache, db, product_id):
    return _two_ends(
        cache, db, product_id, life=lambda: 60 * (1 + 0.15 * random.random()), keep=590
    )


def no_jitter(cache, db, product_id):
    return _two_ends(cache, db, product_id, life=lambda: 59.9)


def too_much_jitter(cache, db, product_id):
    return _two_ends(cache, db, product_id, life=lambda: 46 + 4 * random.random(), keep=606)


def no_window(cache, db, product_id):
    return _two_ends(cache, db, product_id, keep=0)


def _renews(cache, db, product_id, take, give):
    """Two ends, with another way to pick the one who renews."""
    key = f"product:v1:{product_id}"

    def fill():
        product = db.product(product_id)
        life = 60 - random.uniform(0, 9)
        cache.set(key, json.dumps([product, time.time() + life]), ex=int(life) + 600)
        return product

    def renew():
        fill()
        give()

    stored = cache.get(key)
    if stored is None:
        return fill()
    value, until = json.loads(stored)
    if time.time() >= until and take():
        threading.Thread(target=renew, daemon=True).start()
    return value


def a_lock_for_ever(cache, db, product_id):
    def take():
        return cache.set(f"renew:{product_id}", 1, nx=True)

    return _renews(cache, db, product_id, take, lambda: None)


def freed_if_all_goes_well(cache, db, product_id):
    def take():
        return cache.setnx(f"renew:{product_id}", 1)

    return _renews(cache, db, product_id, take, lambda: cache.delete(f"renew:{product_id}"))


LOCKS = {number: threading.Lock() for number in range(1, 31)}


def one_of_this_process(cache, db, product_id):
    lock = LOCKS[product_id]
    return _renews(cache, db, product_id, lambda: lock.acquire(blocking=False), lock.release)


def one_lock_for_all_products(cache, db, product_id):
    def take():
        return cache.set("renewing", 1, nx=True, ex=10)

    return _renews(cache, db, product_id, take, lambda: cache.delete("renewing"))


def a_timer_and_a_lock_that_ends(cache, db, product_id):
    key = f"product:v1:{product_id}"

    def fill():
        row = db.product(product_id)
        fresh = 60 * random.uniform(0.85, 1)
        copy = {"row": row, "made": time.time(), "fresh": fresh}
        cache.set(key, json.dumps(copy), px=round(1000 * (fresh + 600)))
        return row

    copy = json.loads(cache.get(key) or "null")
    if not copy:
        return fill()
    if time.time() - copy["made"] > copy["fresh"] and cache.set(f"{key}:soon", "", nx=True, ex=60):
        threading.Timer(0, fill).start()
    return copy["row"]


def asks_redis_how_long(cache, db, product_id):
    """The earlier end is told from the TTL that is left."""
    key = f"product:v1:{product_id}"

    def fill():
        value = json.dumps({"value": db.product(product_id)})
        cache.set(key, value, px=600_000 + random.randint(51_000, 59_700))
        return json.loads(value)["value"]

    with cache.pipeline() as pipe:
        stored, left = pipe.get(key).pttl(key).execute()
    if stored is None:
        return fill()
    if left <= 600_000 and cache.set(f"renewing:{key}", "me", nx=True, px=5_000):
        threading.Thread(target=fill, daemon=True).start()
    return json.loads(stored)["value"]


# metrics -------------------------------------------------------------------------------------


def _counting(cache, db, product_id, counts, *, absent=5, error="errors", late=False, per=False):
    key, seen = f"product:v1:{product_id}", "misses"
    try:
        stored = cache.get(key)
    except redis.RedisError:
        stored, seen = None, error
    if stored is not None:
        counts["hits"] += 1
        return json.loads(stored)
    counts[seen] += 1
    if not late:
        counts["loads"] += 1
    product = db.product(product_id)
    if late:
        counts["loads"] += 1
    try:
        cache.set(key, json.dumps(product), ex=absent if product is None else 300)
    except redis.RedisError:
        counts["errors"] += per
    return product


def down_is_a_miss(cache, db, product_id, counts):
    return _counting(cache, db, product_id, counts, error="misses")


def one_for_each_command(cache, db, product_id, counts):
    return _counting(cache, db, product_id, counts, per=True)


def only_loads_that_worked(cache, db, product_id, counts):
    return _counting(cache, db, product_id, counts, late=True)


def counts_nothing(cache, db, product_id, counts):
    return _counting(
        cache, db, product_id, {**dict.fromkeys(("hits", "misses", "errors", "loads"), 0)}
    )


def truthy_hits(cache, db, product_id, counts):
    with contextlib.suppress(redis.RedisError):
        stored = cache.get(f"product:v1:{product_id}")
        value = json.loads(stored) if stored else None
        if value:
            counts["hits"] += 1
            return value
    counts["misses"] += 1
    counts["loads"] += 1
    product = db.product(product_id)
    with contextlib.suppress(redis.RedisError):
        cache.set(f"product:v1:{product_id}", json.dumps(product), ex=5 if product is None else 300)
    return product


def could_not_store_is_a_miss(cache, db, product_id, counts):
    return _counting(cache, db, product_id, counts)


def could_not_store_is_both(cache, db, product_id, counts):
    before = counts["errors"]
    value = _counting(cache, db, product_id, counts, per=True)
    counts["errors"] = min(counts["errors"], before + 1)
    return value


def only_a_refusal_is_an_error(cache, db, product_id, counts):
    return counted_at_the_end(cache, db, product_id, counts, catch=redis.ConnectionError)


def counted_at_the_end(cache, db, product_id, counts, catch=redis.RedisError):
    key, was, stored = f"product:v1:{product_id}", "misses", None
    try:
        try:
            stored = cache.get(key)
        except catch:
            was = "errors"
        if stored is not None:
            was = "hits"
            return json.loads(stored)
        counts.update(["loads"])
        product = db.product(product_id)
        if was == "misses":
            try:
                cache.set(key, json.dumps(product), px=300_000 if product else 5_000)
            except catch:
                was = "errors"
        return product
    finally:
        counts[was] += 1


def corrects_itself(cache, db, product_id, counts):
    key = f"product:v1:{product_id}"
    seen = Counter()
    with contextlib.suppress(redis.RedisError):
        stored = cache.get(key)
        seen["asked"] = 1
        if stored is not None:
            counts["hits"] += 1
            return json.loads(stored)
    counts.update({"loads": 1, "misses" if seen["asked"] else "errors": 1})
    product = db.product(product_id)
    if seen["asked"]:
        try:
            cache.set(key, json.dumps(product), ex=300 if product is not None else 3)
        except redis.RedisError:
            counts.subtract(["misses"])
            counts.update(["errors"])
    return product


WRONG = {
    "13_production_cache.envelope": [
        Wrong("no envelope", no_envelope, 'with the row under "value"'),
        Wrong("trusts the text", trusts_the_text, "With {half in the cache a read raised"),
        Wrong("only broken JSON", only_broken_json, "With null in the cache a read raised"),
        Wrong("the old key", old_key, "cache holds product:v1:1; expected was product:v2:1"),
        Wrong("absence for five minutes", absence_for_five_minutes, "at most 5 s"),
        Wrong("absence is a miss", absence_is_a_miss, "None is a value, too"),
        Wrong(
            "keeps its TTL", keeps_the_time_of_the_nonsense, "{half lives 9000 s; expected was 300"
        ),
        Wrong("does not replace", fills_only_what_is_missing, "should be replaced"),
    ],
    "13_production_cache.breaker": [
        Wrong("no guard", no_guard, "A customer got ConnectionError while the cache was down"),
        Wrong("asks each time", asks_each_time, "expected were at most 8"),
        Wrong("never again", never_again, "it must be tried again"),
        Wrong("rests too long", rests_for_a_minute, "was not one hit"),
        Wrong("adds up all failures", never_forgets_a_failure, "three failures in a row were"),
        Wrong("no cache at all", no_cache_at_all, "20 reads of 5 products asked 20"),
        Wrong("four failures", four_failures, "the next was sent 0.0 s later"),
        Wrong("from the first", rests_from_the_first_failure, "the next was sent 1.9 s later"),
        Wrong(
            "only a refusal", only_what_refuses, "did not answer in time, and a read raised Time"
        ),
        Wrong("for ever", for_ever, "has no TTL"),
        Wrong("one for all", one_for_all, "keep what you remember in `breaker`"),
        Wrong(
            "counts the database too", counts_the_database_too, "only what the cache fails counts"
        ),
        Wrong("hides the database's error", hides_the_database_too, "take that for the truth"),
    ],
    "13_production_cache.two_ends": [
        Wrong("one end", one_end, "TTL and window together"),
        Wrong("no window", no_window, "TTL and window together"),
        Wrong("everybody renews", everybody_renews, "50 readers at 75 s asked 50 queries"),
        Wrong("the chosen one waits", the_chosen_one_waits, "of 50 readers waited"),
        Wrong("nobody renews", nobody_renews, "50 readers at 75 s asked 0 queries"),
        Wrong("jitter is added", jitter_is_added, "never added"),
        Wrong("no jitter", no_jitter, "their ends are not spread"),
        Wrong("a lock for ever", a_lock_for_ever, "At 400 s the renewed copy had ended too, and 0"),
        Wrong(
            "freed if all goes well", freed_if_all_goes_well, "also when the one who renews dies"
        ),
        Wrong("one of this process", one_of_this_process, "asked 5 queries; expected was 1"),
        Wrong("one lock for all", one_lock_for_all_products, "keeps the others from theirs"),
        Wrong("too much jitter", too_much_jitter, "At 50.5 s"),
    ],
    "13_production_cache.metrics": [
        Wrong("a dead cache is a miss", down_is_a_miss, "misses 3, errors 0"),
        Wrong("each failed command", one_for_each_command, "errors 2"),
        Wrong("only loads that worked", only_loads_that_worked, "After a read whose load failed"),
        Wrong(
            "a miss all the same", could_not_store_is_a_miss, "hits 0, misses 1, errors 1, loads 2"
        ),
        Wrong(
            "a miss and an error", could_not_store_is_both, "hits 0, misses 1, errors 2, loads 2"
        ),
        Wrong("only a refusal", only_a_refusal_is_an_error, "read_counted raised TimeoutError"),
        Wrong("counts nothing", counts_nothing, "hits 0, misses 0"),
        Wrong("if value", truthy_hits, "two reads of a product that does not exist"),
    ],
}

RIGHT = {
    "13_production_cache.envelope": [looks_before_it_leaps],
    "13_production_cache.breaker": [closes_in_the_clock, with_a_door],
    "13_production_cache.two_ends": [asks_redis_how_long, a_timer_and_a_lock_that_ends],
    "13_production_cache.metrics": [counted_at_the_end, corrects_itself],
}
