"""Answers to lab 10, wrong and right, as learners write them."""

from __future__ import annotations

import contextlib
import json
import math
import random
import threading
import time
import uuid

import redis

from answers import Wrong

RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# jitter --------------------------------------------------------------------------------------


def no_jitter(seconds):
    return seconds


def added(seconds):
    return seconds + int(random.random() * seconds * 0.15)


def around_the_middle(seconds):
    return int(seconds * random.uniform(0.925, 1.075))


def a_float(seconds):
    return seconds * random.uniform(0.85, 1)


def always_the_same_draw(seconds):
    draw = random.Random(42)
    return int(seconds - seconds * 0.15 * draw.random())


def whole_minutes(seconds):
    return max(1, seconds - 60 * random.randrange(int(seconds * 0.15) // 60 + 1))


def any_life_at_all(seconds):
    return random.randint(1, seconds)


def zero_for_small(seconds):
    return int(seconds - seconds * 0.15 * random.random())


def half_of_the_range(seconds):
    return max(1, int(seconds - seconds * 0.075 * random.random()))


def the_shorter_of_two(seconds):
    return max(1, int(seconds - seconds * 0.15 * max(random.random(), random.random())))


def mean_of_two_draws(seconds):
    return max(1, int(seconds * (1 - 0.15 * (random.random() + random.random()) / 2)))


def by_randint(seconds):
    return random.randint(max(1, math.ceil(seconds * 0.85)), seconds)


def by_uniform(seconds):
    return max(1, math.floor(random.uniform(0.85, 1.0) * seconds))


# lock ----------------------------------------------------------------------------------------


def value_one_and_plain_delete(cache, key, load):
    if not cache.set(f"lock:{key}", "1", nx=True, ex=30):
        return None
    try:
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
        value = load()
        cache.set(key, json.dumps(value), ex=300)
        return value
    finally:
        cache.delete(f"lock:{key}")


def plain_delete(cache, key, load):
    return _refill(cache, key, load, release=lambda lock, token: cache.delete(lock))


def no_second_look(cache, key, load):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    try:
        value = load()
        cache.set(key, json.dumps(value), ex=300)
        return value
    finally:
        cache.eval(RELEASE, 1, lock, token)


def lock_without_ttl(cache, key, load):
    return _refill(cache, key, load, ex=None)


def lock_of_five_seconds(cache, key, load):
    return _refill(cache, key, load, ex=5)


def not_released_after_an_error(cache, key, load):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    stored = cache.get(key)
    if stored is None:
        stored = json.dumps(load())
        cache.set(key, stored, ex=300)
    cache.eval(RELEASE, 1, lock, token)
    return json.loads(stored)


def not_released_after_a_hit(cache, key, load):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    try:
        value = load()
        cache.set(key, json.dumps(value), ex=300)
        return value
    finally:
        cache.eval(RELEASE, 1, lock, token)


def never_released(cache, key, load):
    return _refill(cache, key, load, release=lambda lock, token: None)


def helps_itself(cache, key, load):
    got = _refill(cache, key, load)
    return load() if got is None else got


def no_lock_at_all(cache, key, load):
    value = load()
    cache.set(key, json.dumps(value), ex=300)
    return value


def takes_the_lock_by_force(cache, key, load):
    lock = f"lock:{key}"
    if cache.delete(lock):
        return None
    return _refill(cache, key, load)


def one_token_for_all(cache, key, load):
    return _refill(cache, key, load, token="mine")


def forgets_to_store(cache, key, load):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    try:
        stored = cache.get(key)
        return json.loads(stored) if stored is not None else load()
    finally:
        cache.eval(RELEASE, 1, lock, token)


def hides_the_error(cache, key, load):
    try:
        return _refill(cache, key, load)
    except Exception:
        return None


def looks_at_the_token_and_then_deletes(cache, key, load):
    def release(lock, token):
        if cache.get(lock) == token:
            cache.delete(lock)

    return _refill(cache, key, load, release=release)


def lock_and_ttl_in_two_steps(cache, key, load):
    def take(lock, token):
        return cache.setnx(lock, token) and cache.expire(lock, 30)

    return _refill(cache, key, load, take=take)


def by_redis_pys_own_lock(cache, key, load):
    lock = cache.lock(f"lock:{key}", timeout=30, blocking=False)
    if not lock.acquire():
        return None
    try:
        stored = cache.get(key)
        if stored is None:
            stored = json.dumps(load())
            cache.set(key, stored, ex=300)
        return json.loads(stored)
    finally:
        with contextlib.suppress(redis.exceptions.LockNotOwnedError):
            lock.release()


def by_a_watched_delete(cache, key, load):
    def release(lock, token):
        with cache.pipeline() as pipe:
            try:
                pipe.watch(lock)
                if pipe.get(lock) == token:
                    pipe.multi()
                    pipe.delete(lock)
                    pipe.execute()
            except redis.WatchError:
                pass

    return _refill(cache, key, load, release=release)


def _refill(cache, key, load, *, ex=30, token=None, take=None, release=None):
    lock, token = f"lock:{key}", token or uuid.uuid4().hex
    if not (take(lock, token) if take else cache.set(lock, token, nx=True, ex=ex)):
        return None
    try:
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
        value = load()
        cache.set(key, json.dumps(value), ex=300)
        return value
    finally:
        if release is None:
            cache.eval(RELEASE, 1, lock, token)
        else:
            release(lock, token)


# wait ----------------------------------------------------------------------------------------


def _patient(cache, key, load, budget, *, nap=0.1, after=None, again=True, look=True, ex=30):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    deadline, tried = time.monotonic() + budget, False
    while (stored := cache.get(key)) is None:
        if (again or not tried) and cache.set(lock, token, nx=True, ex=ex):
            try:
                stored = cache.get(key) if look else None
                if stored is None:
                    stored = json.dumps(load())
                    cache.set(key, stored, ex=300)
                return json.loads(stored)
            finally:
                cache.eval(RELEASE, 1, lock, token)
        tried = True
        left = deadline - time.monotonic()
        if left <= 0:
            if after is not None:
                return after()
            raise TimeoutError("too late")
        time.sleep(min(left, nap))
    return json.loads(stored)


def as_the_article_has_it(cache, key, load, budget):
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    got = _refill(cache, key, load)
    if got is not None:
        return got
    time.sleep(0.1)
    stored = cache.get(key)
    return load() if stored is None else json.loads(stored)


def then_helps_itself(cache, key, load, budget):
    return _patient(cache, key, load, budget, after=load)


def then_gives_none(cache, key, load, budget):
    return _patient(cache, key, load, budget, after=lambda: None)


def hands_over_the_error(cache, key, load, budget):
    return _patient(cache, key, load, budget, after=lambda: TimeoutError("too late"))


def lock_as_long_as_the_budget(cache, key, load, budget):
    return _patient(cache, key, load, budget, ex=budget)


def waits_for_ever(cache, key, load, budget):
    return _patient(cache, key, load, 60)


def sleeps_through_the_budget(cache, key, load, budget):
    return _patient(cache, key, load, budget, nap=budget)


def asks_all_the_time(cache, key, load, budget):
    return _patient(cache, key, load, budget, nap=0.01)


def never_naps(cache, key, load, budget):
    return _patient(cache, key, load, budget, nap=0)


def tries_the_lock_once(cache, key, load, budget):
    return _patient(cache, key, load, budget, again=False)


def looks_only_once(cache, key, load, budget):
    return _patient(cache, key, load, budget, look=False)


def gives_up_at_once(cache, key, load, budget):
    return _patient(cache, key, load, 0)


def everybody_has_to_get_the_lock(cache, key, load, budget):
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    lock = cache.lock(f"lock:{key}", timeout=30, blocking_timeout=budget, sleep=0.1)
    if not lock.acquire():
        raise TimeoutError(key)
    try:
        stored = cache.get(key)
        if stored is None:
            stored = json.dumps(load())
            cache.set(key, stored, ex=300)
        return json.loads(stored)
    finally:
        lock.release()


def by_redis_pys_lock_without_waiting(cache, key, load, budget):
    deadline = time.monotonic() + budget
    while (stored := cache.get(key)) is None:
        got = by_redis_pys_own_lock(cache, key, load)
        if got is not None:
            return got
        if time.monotonic() >= deadline:
            raise TimeoutError(key)
        time.sleep(min(0.2, max(0.01, deadline - time.monotonic())))
    return json.loads(stored)


def with_a_back_off(cache, key, load, budget):
    deadline, nap = time.time() + budget, 0.05
    while True:
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
        got = _refill(cache, key, load)
        if got is not None:
            return got
        left = deadline - time.time()
        if left <= 0:
            raise TimeoutError
        time.sleep(min(left, nap))
        nap = min(0.4, nap * 1.5)


# swr -----------------------------------------------------------------------------------------

_LOCK = threading.Lock()  # in each process another one


def renews_under_a_lock_of_the_process(cache, key, load, later):
    def fill():
        value = load()
        cache.set(key, json.dumps(value), ex=660)
        return value

    def renew():
        try:
            fill()
        finally:
            _LOCK.release()

    stored, left = cache.get(key), cache.pttl(key)
    if stored is None:
        return fill()
    if left <= 600_000 and _LOCK.acquire(blocking=False):
        later(renew)
    return json.loads(stored)


def _swr(cache, key, load, later, *, keep=660, fresh=600, flag=30, clear=True, extend=True):
    def fill():
        value = load()
        cache.set(key, json.dumps(value), ex=keep)
        if clear:
            cache.delete(f"renew:{key}")
        return value

    stored, left = cache.get(key), cache.pttl(key)
    if stored is None:
        return fill()
    if left <= fresh * 1000 and cache.set(f"renew:{key}", "1", nx=True, ex=flag):
        later(fill)
    return json.loads(stored)


def everybody_renews(cache, key, load, later):
    def fill():
        value = load()
        cache.set(key, json.dumps(value), ex=660)
        return value

    stored, left = cache.get(key), cache.pttl(key)
    if stored is None:
        return fill()
    if left <= 600_000:
        later(fill)
    return json.loads(stored)


def renews_itself_and_waits(cache, key, load, later):
    return _swr(cache, key, load, lambda call: call())


def renews_on_every_hit(cache, key, load, later):
    return _swr(cache, key, load, later, fresh=660)


def never_renews(cache, key, load, later):
    return _swr(cache, key, load, later, fresh=0)


def flag_without_ttl(cache, key, load, later):
    return _swr(cache, key, load, later, flag=None)


def window_of_a_day(cache, key, load, later):
    return _swr(cache, key, load, later, keep=86_460, fresh=86_400)


def window_too_short(cache, key, load, later):
    return _swr(cache, key, load, later, keep=600, fresh=540)


def keeps_no_longer_than_660_when_renewed(cache, key, load, later):
    def fill():
        value = load()
        cache.set(key, json.dumps(value), keepttl=True)
        return value

    stored, left = cache.get(key), cache.pttl(key)
    if stored is None:
        value = load()
        cache.set(key, json.dumps(value), ex=720)
        return value
    if left <= 660_000 and cache.set(f"renew:{key}", "1", nx=True, ex=30):
        later(fill)
    return json.loads(stored)


def with_a_time_stamp(cache, key, load, later):
    def fill():
        value = load()
        entry = {"value": value, "fresh_until": time.time() + 60}
        cache.set(f"soft:{key}", json.dumps(entry), px=660_000)
        return value

    stored = cache.get(f"soft:{key}")
    if stored is None:
        return fill()
    entry = json.loads(stored)
    if time.time() >= entry["fresh_until"] and cache.set(f"{key}:busy", "1", nx=True, px=30_000):
        later(fill)
    return entry["value"]


def with_a_second_key_and_a_pipeline(cache, key, load, later):
    def fill():
        value = load()
        with cache.pipeline() as pipe:
            pipe.set(key, json.dumps(value), ex=660)
            pipe.set(f"fresh:{key}", "1", ex=60)
            pipe.execute()
        return value

    stored, fresh = cache.mget(key, f"fresh:{key}")
    if stored is None:
        return fill()
    if fresh is None and cache.set(f"renewing:{key}", uuid.uuid4().hex, nx=True, ex=30):
        later(fill)
    return json.loads(stored)


# early ---------------------------------------------------------------------------------------


def _early(cache, key, load, ttl, beta, chance):
    """`chance(left, took, beta)`: whether to renew."""
    stored, left = cache.get(key), cache.pttl(key) / 1000
    if stored is not None:
        copy = json.loads(stored)
        if not chance(left, copy["took"], beta):
            return copy["value"]
    began = time.monotonic()
    value = load()
    took = time.monotonic() - began
    cache.set(key, json.dumps({"value": value, "took": took}), ex=ttl)
    return value


def never_early(cache, key, load, ttl, beta):
    return _early(cache, key, load, ttl, beta, lambda left, took, beta: False)


def wrong_sign(cache, key, load, ttl, beta):
    return _early(
        cache, key, load, ttl, beta, lambda left, took, b: left > took * b * -math.log(_draw())
    )


def forgets_beta(cache, key, load, ttl, beta):
    return _early(
        cache, key, load, ttl, beta, lambda left, took, b: left <= took * -math.log(_draw())
    )


def a_fixed_window(cache, key, load, ttl, beta):
    return _early(cache, key, load, ttl, beta, lambda left, took, b: left <= 5)


def decimal_logarithm(cache, key, load, ttl, beta):
    return _early(
        cache, key, load, ttl, beta, lambda left, took, b: left <= took * b * -math.log10(_draw())
    )


def forgets_the_time_of_the_load(cache, key, load, ttl, beta):
    return _early(cache, key, load, ttl, beta, lambda left, took, b: left <= b * -math.log(_draw()))


def does_not_store_what_it_renewed(cache, key, load, ttl, beta):
    stored, left = cache.get(key), cache.pttl(key) / 1000
    if stored is not None:
        copy = json.loads(stored)
        if left > copy["took"] * beta * -math.log(_draw()):
            return copy["value"]
        return load()
    began = time.monotonic()
    value = load()
    took = time.monotonic() - began
    cache.set(key, json.dumps({"value": value, "took": took}), ex=ttl)
    return value


def gives_the_entry(cache, key, load, ttl, beta):
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = load()
    cache.set(key, json.dumps({"value": value, "took": 1}), ex=ttl)
    return value


def _draw():
    return 1 - random.random()


def by_the_probability(cache, key, load, ttl, beta):
    def renew(left, took, beta):
        return took > 0 and random.random() < math.exp(-left / (took * beta))

    return _early(cache, key, load, ttl, beta, renew)


def with_the_expiry_in_the_entry(cache, key, load, ttl, beta):
    stored = cache.get(key)
    if stored is not None:
        value, took, expiry = json.loads(stored)
        if time.time() + took * beta * random.expovariate(1) < expiry:
            return value
    began = time.time()
    value = load()
    cache.set(key, json.dumps([value, time.time() - began, time.time() + ttl]), ex=ttl)
    return value


# What strangers wrote ------------------------------------------------------------------------


def _locked(cache, key, load, token, release):
    """What is under the lock; None if it is somebody else's."""
    lock = f"lock:{key}"
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    try:
        stored = cache.get(key)
        if stored is None:
            stored = json.dumps(load())
            cache.set(key, stored, ex=300)
        return json.loads(stored)
    finally:
        release(lock, token)


def the_clock_as_token(cache, key, load):
    def release(lock, token):
        cache.eval(RELEASE, 1, lock, token)

    return _locked(cache, key, load, str(time.time()), release)


def _waits(cache, key, load, budget, *, token=None, release=None, in_vain=None):
    token = token or uuid.uuid4().hex
    release = release or (lambda lock, token: cache.eval(RELEASE, 1, lock, token))
    deadline = time.monotonic() + budget
    while True:
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
        value = _locked(cache, key, load, token, release)
        if value is not None:
            return value
        if time.monotonic() >= deadline:
            if in_vain:
                in_vain()
            raise TimeoutError(key)
        time.sleep(0.1)


def waits_and_deletes_any_lock(cache, key, load, budget):
    return _waits(cache, key, load, budget, release=lambda lock, token: cache.delete(lock))


def waits_and_releases_in_two_steps(cache, key, load, budget):
    def release(lock, token):
        if cache.get(lock) == token:
            cache.delete(lock)

    return _waits(cache, key, load, budget, release=release)


def waits_with_one_token_for_all(cache, key, load, budget):
    return _waits(cache, key, load, budget, token="waiter")


def breaks_the_lock_when_tired(cache, key, load, budget):
    return _waits(cache, key, load, budget, in_vain=lambda: cache.delete(f"lock:{key}"))


def with_a_steady_nap(cache, key, load, budget):
    return _waits(cache, key, load, budget)


def _renews(cache, key, load, later, *, before=lambda: None, guard=30, **life):
    stored, left = cache.get(key), cache.pttl(key)
    if stored is None:
        value = load()
        cache.set(key, json.dumps(value), ex=660)
        return value
    if left <= 600_000 and cache.set(f"renew:{key}", "1", nx=True, ex=guard):
        before()
        later(lambda: cache.set(key, json.dumps(load()), **(life or {"ex": 660})))
    return json.loads(stored)


def deletes_before_it_renews(cache, key, load, later):
    return _renews(cache, key, load, later, before=lambda: cache.delete(key))


def renewed_with_the_old_ttl(cache, key, load, later):
    return _renews(cache, key, load, later, keepttl=True)


def guards_for_five_seconds(cache, key, load, later):
    return _renews(cache, key, load, later, guard=5)


def guards_without_release(cache, key, load, later):
    return _renews(cache, key, load, later)


def _fetches(
    cache, key, load, ttl, beta, *, chance=lambda: 1 - random.random(), before=None, took=None
):
    stored = cache.get(key)
    copy = json.loads(stored) if stored is not None else None
    if copy is not None:
        if cache.pttl(key) / 1000 > copy["took"] * beta * -math.log(chance()):
            return copy
        if before:
            before()
    began = time.monotonic()
    value = load()
    seconds = time.monotonic() - began
    seconds = took(copy, seconds) if took else seconds
    made = {"value": value, "took": seconds}
    cache.set(key, json.dumps(made), ex=ttl)
    return {**made, "old": copy}


def the_logarithm_of_nothing(cache, key, load, ttl, beta):
    return _fetches(cache, key, load, ttl, beta, chance=lambda: random.random())["value"]


def measures_the_first_load_only(cache, key, load, ttl, beta):
    def took(copy, seconds):
        return copy["took"] if copy else seconds

    return _fetches(cache, key, load, ttl, beta, took=took)["value"]


def measures_whole_seconds(cache, key, load, ttl, beta):
    return _fetches(cache, key, load, ttl, beta, took=lambda _, seconds: int(seconds))["value"]


def renews_and_gives_the_old(cache, key, load, ttl, beta):
    found = _fetches(cache, key, load, ttl, beta)
    return (found.get("old") or found)["value"]


def deletes_before_it_loads(cache, key, load, ttl, beta):
    return _fetches(cache, key, load, ttl, beta, before=lambda: cache.delete(key))["value"]


def by_an_exponential_draw(cache, key, load, ttl, beta):
    def chance():
        return math.exp(-random.expovariate(1))

    return _fetches(cache, key, load, ttl, beta, chance=chance)["value"]


WRONG = {
    "10_stampede.jitter": [
        Wrong("no jitter", no_jitter, "5000 were the same, 3600 s"),
        Wrong("added", added, "older than promised"),
        Wrong("around the middle", around_the_middle, "for a page that may be 3600 s old"),
        Wrong("a float", a_float, "(a float)"),
        Wrong("always the same draw", always_the_same_draw, "5000 were the same, 3254 s"),
        Wrong("whole minutes", whole_minutes, "would expire in one second"),
        Wrong("any life at all", any_life_at_all, "at least 85 %"),
        Wrong("0 for a small TTL", zero_for_small, "EX 0 is an error"),
        Wrong("half of the range", half_of_the_range, "were 346"),
        Wrong("the mean of two draws", mean_of_two_draws, "spread evenly it would be a third"),
        Wrong("the shorter of two", the_shorter_of_two, "on average; spread evenly"),
    ],
    "10_stampede.lock": [
        Wrong("value 1, plain delete", value_one_and_plain_delete, "used the same token, '1'"),
        Wrong("plain delete", plain_delete, "became somebody else's, and refill released it"),
        Wrong("look, then delete", looks_at_the_token_and_then_deletes, "delete in one step"),
        Wrong("lock, then TTL", lock_and_ttl_in_two_steps, "Between two commands the lock had no"),
        Wrong("no second look", no_second_look, "look once more when you have the lock"),
        Wrong("a lock without TTL", lock_without_ttl, "The lock has no TTL"),
        Wrong("a lock of 5 s", lock_of_five_seconds, "The lock lives 5 s"),
        Wrong("not released after an error", not_released_after_an_error, "the load had failed"),
        Wrong("not released after a hit", not_released_after_a_hit, "a copy was found"),
        Wrong("never released", never_released, "refill had returned"),
        Wrong("helps itself", helps_itself, "and refill asked the database"),
        Wrong("no lock at all", no_lock_at_all, "nothing was stored under lock:product:v1:1"),
        Wrong("takes it by force", takes_the_lock_by_force, "afterwards it held None"),
        Wrong("one token for all", one_token_for_all, "used the same token, 'mine'"),
        Wrong("forgets to store", forgets_to_store, "there is nothing under product:v1:1"),
        Wrong("hides the error", hides_the_error, "The load failed, and refill returned None"),
        Wrong("the clock as token", the_clock_as_token, "at the same moment used the same token"),
    ],
    "10_stampede.wait": [
        Wrong(
            "deletes any lock", waits_and_deletes_any_lock, "during the load and became somebody"
        ),
        Wrong("two steps", waits_and_releases_in_two_steps, "delete in one step"),
        Wrong("one token for all", waits_with_one_token_for_all, "used the same token, 'waiter'"),
        Wrong("breaks the lock", breaks_the_lock_when_tired, "after readers had given up"),
        Wrong("the article's", as_the_article_has_it, "a query of 1 s: 40 queries"),
        Wrong("helps itself in the end", then_helps_itself, "query of 8 s: 40 queries"),
        Wrong("gives None", then_gives_none, "got were 39 NoneType, 1 dict"),
        Wrong("hands over the error", hands_over_the_error, "as a value; raise it"),
        Wrong("a lock as long as the budget", lock_as_long_as_the_budget, "The lock lives 5 s"),
        Wrong("waits for ever", waits_for_ever, "got were 40 dict"),
        Wrong("sleeps through the budget", sleeps_through_the_budget, "somebody waited 5 s"),
        Wrong("everybody needs the lock", everybody_has_to_get_the_lock, "somebody waited 4.9 s"),
        Wrong("asks all the time", asks_all_the_time, "20 are enough"),
        Wrong("never naps", never_naps, "."),
        Wrong("tries the lock once", tries_the_lock_once, "TimeoutError"),
        Wrong("no second look", looks_only_once, "look once more"),
        Wrong("gives up at once", gives_up_at_once, "a reader got TimeoutError"),
    ],
    "10_stampede.swr": [
        Wrong("a lock of one process", renews_under_a_lock_of_the_process, "3 renewals; one is"),
        Wrong("deletes the copy first", deletes_before_it_renews, "during the renewal"),
        Wrong("keeps the old TTL", renewed_with_the_old_ttl, "was renewed again"),
        Wrong("a guard of 5 s", guards_for_five_seconds, "A renewal took 25 s"),
        Wrong("everybody renews", everybody_renews, "30 renewals; one is enough"),
        Wrong("waits for the renewal", renews_itself_and_waits, "nobody is to wait"),
        Wrong("renews on every hit", renews_on_every_hit, "while the copy was fresh"),
        Wrong("never renews", never_renews, "had it renewed"),
        Wrong("a flag without TTL", flag_without_ttl, "needs a TTL of 30 s"),
        Wrong("a window of a day", window_of_a_day, "there was still a copy"),
        Wrong("a window too short", window_too_short, "640 s after the first read"),
        Wrong("60 s too long", keeps_no_longer_than_660_when_renewed, "more than 60 + 600 s old"),
    ],
    "10_stampede.early": [
        Wrong("the logarithm of 0", the_logarithm_of_nothing, "random.random() may give 0.0"),
        Wrong("the first load's time", measures_the_first_load_only, "measure every load"),
        Wrong("whole seconds", measures_whole_seconds, "with its fraction"),
        Wrong("gives the old value", renews_and_gives_the_old, "not the new value"),
        Wrong("deletes the copy first", deletes_before_it_loads, "While one reader renewed"),
        Wrong("never early", never_early, "with 2 s to live 0 of 150"),
        Wrong("wrong sign", wrong_sign, "asked 2 queries"),
        Wrong("forgets beta", forgets_beta, "beta is 3"),
        Wrong("a fixed window", a_fixed_window, "with 2 s to live 150 of 150"),
        Wrong("decimal logarithm", decimal_logarithm, "expected were 29 to 82"),
        Wrong("forgets the time of the load", forgets_the_time_of_the_load, "with 2 s to live"),
        Wrong("does not store", does_not_store_what_it_renewed, "have a new life"),
        Wrong("gives the entry", gives_the_entry, "The second read gave {'value'"),
    ],
}

RIGHT = {
    "10_stampede.jitter": [by_randint, by_uniform],
    "10_stampede.lock": [by_redis_pys_own_lock, by_a_watched_delete],
    "10_stampede.wait": [
        by_redis_pys_lock_without_waiting,
        with_a_back_off,
        with_a_steady_nap,
    ],
    "10_stampede.swr": [
        with_a_time_stamp,
        with_a_second_key_and_a_pipeline,
        guards_without_release,
    ],
    "10_stampede.early": [
        by_the_probability,
        with_the_expiry_in_the_entry,
        by_an_exponential_draw,
    ],
}
