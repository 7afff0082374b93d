"""Answers to lab 05, wrong and right, as learners write them."""

from __future__ import annotations

import contextlib
import functools
import json
import pickle
import threading
import time

import redis

from answers import Wrong

# read ----------------------------------------------------------------------------------------

_LOCK = threading.Lock()  # in each process another one, which dies with it


def read_under_a_lock_of_the_process(cache, db, user_id):
    with _LOCK:
        stored = cache.get(f"user:v1:{user_id}")
        if stored is not None:
            return json.loads(stored)
        user = db.user(user_id)
        cache.set(f"user:v1:{user_id}", json.dumps(user), ex=300)
        return user


def never_fills(cache, db, user_id):
    stored = cache.get(f"user:v1:{user_id}")
    return json.loads(stored) if stored else db.user(user_id)


def never_looks(cache, db, user_id):
    user = db.user(user_id)
    cache.set(f"user:v1:{user_id}", json.dumps(user), ex=300)
    return user


def fill_without_ttl(cache, db, user_id):
    return _read(cache, f"user:v1:{user_id}", lambda: db.user(user_id), None)


def ttl_of_an_hour(cache, db, user_id):
    return _read(cache, f"user:v1:{user_id}", lambda: db.user(user_id), 3600)


def one_key_for_all(cache, db, user_id):
    return _read(cache, "user:v1:1", lambda: db.user(user_id), 300)


def text_on_a_hit(cache, db, user_id):
    key = f"user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return stored
    user = db.user(user_id)
    cache.set(key, json.dumps(user), ex=300)
    return user


def pickled(cache, db, user_id):
    key = f"user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return pickle.loads(bytes.fromhex(stored))
    user = db.user(user_id)
    cache.set(key, pickle.dumps(user).hex(), ex=300)
    return user


_remembered: dict[object, object] = {}


def in_a_dict_of_its_own(cache, db, user_id):
    mark = (id(db), user_id)
    if mark not in _remembered:
        _remembered[mark] = db.user(user_id)
        cache.set(f"user:v1:{user_id}", json.dumps(_remembered[mark]), ex=300)
    return _remembered[mark]


def asks_twice(cache, db, user_id):
    key = f"user:v1:{user_id}"
    if not cache.exists(key):
        cache.set(key, json.dumps(db.user(user_id)), ex=300)
        return db.user(user_id)
    return json.loads(cache.get(key))


def prolongs_on_read(cache, db, user_id):
    key = f"user:v1:{user_id}"
    stored = cache.getex(key, ex=300)
    if stored is not None:
        return json.loads(stored)
    user = db.user(user_id)
    cache.set(key, json.dumps(user), ex=300)
    return user


def ttl_in_a_second_command(cache, db, user_id):
    key = f"user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    user = db.user(user_id)
    cache.set(key, json.dumps(user))
    cache.expire(key, 300)
    return user


def read_in_a_pipeline(cache, db, user_id):
    key = f"user:v1:{user_id}"
    if (stored := cache.get(key)) is None:
        stored = json.dumps(db.user(user_id))
        with cache.pipeline() as pipe:
            pipe.set(key, stored)
            pipe.expire(key, 300)
            pipe.execute()
    return json.loads(stored)


def read_with_exists(cache, db, user_id):
    key = f"user:v1:{user_id}"
    if cache.exists(key):
        return json.loads(cache.get(key))
    user = db.user(user_id)
    cache.execute_command("SETEX", key, 300, json.dumps(user))
    return user


def stores_then_gets(cache, db, user_id):
    key = f"user:v1:{user_id}"
    stored = cache.get(key)
    if stored is None:
        cache.set(key, json.dumps(db.user(user_id)), ex=300)
        stored = cache.get(key)
    return json.loads(stored)


class ReadUser:
    """An object that can be called is a function too."""

    def __call__(self, cache, db, user_id):
        return _read(cache, f"user:v1:{user_id}", lambda: db.user(user_id), 300)


# values --------------------------------------------------------------------------------------


def stock_if_value(cache, db, product_id):
    key = f"stock:v1:{product_id}"
    stored = cache.get(key)
    value = json.loads(stored) if stored else None
    if value:
        return value
    value = db.stock(product_id)
    cache.set(key, json.dumps(value), ex=10 if value is None else 60)
    return value


def absence_not_cached(cache, db, product_id):
    key = f"stock:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = db.stock(product_id)
    if value is not None:
        cache.set(key, json.dumps(value), ex=60)
    return value


def absence_for_a_minute(cache, db, product_id):
    return _read(cache, f"stock:v1:{product_id}", lambda: db.stock(product_id), 60)


def absence_is_zero(cache, db, product_id):
    key = f"stock:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return int(stored)
    value = db.stock(product_id) or 0
    cache.set(key, value, ex=60)
    return value


def stock_as_text(cache, db, product_id):
    key = f"stock:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return stored
    value = db.stock(product_id)
    cache.set(key, str(value), ex=10 if value is None else 60)
    return value


def with_a_sentinel(cache, db, product_id):
    key = f"stock:v1:{product_id}"
    stored = cache.get(key)
    if stored == "absent":
        return None
    if stored is not None:
        return int(stored)
    stock = db.stock(product_id)
    if stock is None:
        cache.set(key, "absent", ex=5)
    else:
        cache.set(key, stock, ex=60)
    return stock


def absence_is_below_zero(cache, db, product_id):
    """A stock is never below 0."""
    stored = cache.get(f"stock:v1:{product_id}")
    if stored is not None:
        return None if int(stored) < 0 else int(stored)
    stock = db.stock(product_id)
    kept, ttl = (-1, 10) if stock is None else (stock, 60)
    cache.set(f"stock:v1:{product_id}", kept, ex=ttl)
    return stock


# update --------------------------------------------------------------------------------------


def only_the_database(cache, db, user_id, email):
    db.update_user(user_id, email=email)


def only_the_cache(cache, db, user_id, email):
    cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")


def forgets_the_public_page(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.delete(f"user:v1:{user_id}")


def deletes_first(cache, db, user_id, email):
    cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")
    db.update_user(user_id, email=email)


def deletes_half_first(cache, db, user_id, email):
    cache.delete(f"user:public:v1:{user_id}")
    db.update_user(user_id, email=email)
    cache.delete(f"user:v1:{user_id}")


def deletes_everything(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    for key in cache.keys("*"):
        cache.delete(key)


def deletes_all_users(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    for key in cache.scan_iter("user:*"):
        cache.delete(key)


def changes_everybody(cache, db, user_id, email):
    for other in (1, 2):
        db.update_user(other, email=email)
    cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")


def unlinks_one_by_one(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.unlink(f"user:v1:{user_id}")
    cache.unlink(f"user:public:v1:{user_id}")


def deletes_before_and_after(cache, db, user_id, email):
    keys = [f"user:v1:{user_id}", f"user:public:v1:{user_id}"]
    cache.delete(*keys)
    db.update_user(user_id, email=email)
    cache.delete(*keys)


def by_a_pattern(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    for key in cache.scan_iter(f"user:*:{user_id}*"):
        cache.delete(key)


def stores_the_new_row(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.set(f"user:v1:{user_id}", json.dumps(db.user(user_id)), ex=300)
    cache.delete(f"user:public:v1:{user_id}")


def patches_the_copies(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    for key in (f"user:v1:{user_id}", f"user:public:v1:{user_id}"):
        stored = cache.get(key)
        if stored is not None:
            cache.set(key, json.dumps({**json.loads(stored), "email": email}), keepttl=True)


def only_if_the_profile_is_cached(cache, db, user_id, email):
    cached = cache.exists(f"user:v1:{user_id}")
    db.update_user(user_id, email=email)
    if cached:
        cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")


def lets_them_expire_now(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    for key in (f"user:v1:{user_id}", f"user:public:v1:{user_id}"):
        cache.expire(key, 0)


def deletes_in_a_pipeline(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    with cache.pipeline() as pipe:
        for key in (f"user:v1:{user_id}", f"user:public:v1:{user_id}"):
            pipe.delete(key)
        pipe.execute()


# cache_down ----------------------------------------------------------------------------------


def unguarded(cache, db, product_id):
    return _read(cache, f"product:v1:{product_id}", lambda: db.product(product_id), 300)


def only_the_get_is_guarded(cache, db, product_id):
    key = f"product:v1:{product_id}"
    try:
        stored = cache.get(key)
    except redis.RedisError:
        return db.product(product_id)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    cache.set(key, json.dumps(product), ex=300)
    return product


def only_the_set_is_guarded(cache, db, product_id):
    key = f"product:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    with contextlib.suppress(redis.RedisError):
        cache.set(key, json.dumps(product), ex=300)
    return product


def gives_up(cache, db, product_id):
    try:
        return unguarded(cache, db, product_id)
    except redis.RedisError:
        return None


def asks_again(cache, db, product_id):
    try:
        return unguarded(cache, db, product_id)
    except redis.RedisError:
        return db.product(product_id)


def hides_the_database(cache, db, product_id):
    key = f"product:v1:{product_id}"
    product = None
    try:
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
    except Exception:
        pass
    try:
        product = db.product(product_id)
        cache.set(key, json.dumps(product), ex=300)
    except Exception:
        pass
    return product


def insists(cache, db, product_id):
    key = f"product:v1:{product_id}"
    stored = None
    for _ in range(10):
        try:
            stored = cache.get(key)
            break
        except redis.RedisError:
            time.sleep(0.01)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    with contextlib.suppress(redis.RedisError):
        cache.set(key, json.dumps(product), ex=300)
    return product


def never_caches(cache, db, product_id):
    return db.product(product_id)


def guarded_by_helpers(cache, db, product_id):
    def quietly(command, *args, **options):
        try:
            return command(*args, **options)
        except redis.RedisError:
            return None

    key = f"product:v1:{product_id}"
    if (stored := quietly(cache.get, key)) is not None:
        return json.loads(stored)
    product = db.product(product_id)
    quietly(cache.set, key, json.dumps(product), ex=300)
    return product


def skips_the_fill_when_the_read_failed(cache, db, product_id):
    key, alive = f"product:v1:{product_id}", True
    stored = None
    try:
        stored = cache.get(key)
    except redis.RedisError:
        alive = False
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    if alive:
        with contextlib.suppress(redis.RedisError):
            cache.set(key, json.dumps(product), ex=300)
    return product


def _product(cache, db, product_id, error=redis.RedisError, store=None):
    """Cache-aside, with a try of its own for each of the two commands."""
    key, stored = f"product:v1:{product_id}", None
    with contextlib.suppress(error):
        stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    with contextlib.suppress(error):
        if store is None:
            cache.set(key, json.dumps(product), ex=300)
        else:
            store(key, json.dumps(product))
    return product


def suppresses_what_redis_raises(cache, db, product_id):
    return _product(cache, db, product_id)


def only_a_lost_connection(cache, db, product_id):
    return _product(cache, db, product_id, error=redis.ConnectionError)


def product_ttl_apart(cache, db, product_id):
    def store(key, text):
        cache.set(key, text)
        cache.expire(key, 300)

    return _product(cache, db, product_id, store=store)


def stores_after_an_error(cache, db, product_id):
    key, stored, product = f"product:v1:{product_id}", None, None
    with contextlib.suppress(redis.RedisError):
        stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    try:
        product = db.product(product_id)
    finally:
        with contextlib.suppress(redis.RedisError):
            cache.set(key, json.dumps(product), ex=300)
    return product


# version -------------------------------------------------------------------------------------


def _profile(db, user_id):
    name = db.user(user_id)["name"]
    return {"name": name, "initials": "".join(word[0] for word in name.split())}


def keeps_the_old_key(cache, db, user_id):
    return _read(cache, f"profile:v1:{user_id}", lambda: _profile(db, user_id), 300)


def deletes_the_old_entry(cache, db, user_id):
    cache.delete(f"profile:v1:{user_id}")
    return _read(cache, f"profile:v2:{user_id}", lambda: _profile(db, user_id), 300)


def rewrites_the_old_entry(cache, db, user_id):
    key = f"profile:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None and "initials" in json.loads(stored):
        return json.loads(stored)
    profile = _profile(db, user_id)
    cache.set(key, json.dumps(profile), ex=300)
    return profile


def first_letter_only(cache, db, user_id):
    def load():
        name = db.user(user_id)["name"]
        return {"name": name, "initials": name[0]}

    return _read(cache, f"profile:v2:{user_id}", load, 300)


def does_not_cache_at_all(cache, db, user_id):
    return _profile(db, user_id)


def profile_without_ttl(cache, db, user_id):
    return _read(cache, f"profile:v2:{user_id}", lambda: _profile(db, user_id), None)


def another_name_for_the_new_shape(cache, db, user_id):
    return _read(cache, f"profile:2026-03:{user_id}", lambda: _profile(db, user_id), 300)


def copes_with_the_old_shape(cache, db, user_id):
    key = f"profile:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        name = json.loads(stored)["name"]
    else:
        name = db.user(user_id)["name"]
        cache.set(key, json.dumps({"name": name}), ex=300)
    return {"name": name, "initials": "".join(word[0] for word in name.split())}


def from_the_old_copy(cache, db, user_id):
    key = f"profile:v2:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    old = cache.get(f"profile:v1:{user_id}")
    name = json.loads(old)["name"] if old else db.user(user_id)["name"]
    profile = {"name": name, "initials": "".join(word[0] for word in name.split())}
    cache.set(key, json.dumps(profile), ex=300)
    return profile


def _profile_under(key, initials_of=lambda name: "".join(word[0] for word in name.split())):
    def read_profile(cache, db, user_id):
        def load():
            name = db.user(user_id)["name"]
            return {"name": name, "initials": initials_of(name)}

        return _read(cache, key(user_id), load, 300)

    return read_profile


capitals = _profile_under(
    lambda user_id: f"profile:v2:{user_id}",
    lambda name: "".join(letter for letter in name if letter.isupper()),
)
one_key_for_all_profiles = _profile_under(lambda user_id: "profile:v2")
under_the_users_key = _profile_under(lambda user_id: f"user:v1:{user_id}")


def under_a_hash(cache, db, user_id):
    return _profile_under(lambda _: f"profile:{hash('name, initials')}:{user_id}")(
        cache, db, user_id
    )


def keeps_only_the_name(cache, db, user_id):
    name = _read(cache, f"profile:v2:{user_id}", lambda: db.user(user_id)["name"], 300)
    return {"name": name, "initials": "".join(word[0] for word in name.split())}


# What several of them do ---------------------------------------------------------------------


def _read(cache, key, load, ttl):
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = load()
    cache.set(key, json.dumps(value), ex=ttl)
    return value


WRONG = {
    "05_cache_aside.read": [
        Wrong("never fills", never_fills, "the cache is empty: nothing was stored"),
        Wrong("never looks", never_looks, "asked the database again"),
        Wrong("no TTL", fill_without_ttl, "has no TTL"),
        Wrong("another TTL", ttl_of_an_hour, "expected was 300 s"),
        Wrong("one key for all users", one_key_for_all, "The read of user 2"),
        Wrong("text on a hit", text_on_a_hit, "(a str)"),
        Wrong("pickle", pickled, "not the row as JSON"),
        Wrong("a dict of its own", in_a_dict_of_its_own, "neither the cache nor the database"),
        Wrong("asks twice", asks_twice, "asked 2 queries"),
        Wrong("TTL in a second command", ttl_in_a_second_command, "without a TTL, which stays"),
        Wrong("a hit prolongs the copy's life", prolongs_on_read, "s after the fill"),
        Wrong("EXISTS, then GET", read_with_exists, "the reader had seen was deleted"),
        Wrong("SET, then GET", stores_then_gets, "the reader had left was deleted"),
    ],
    "05_cache_aside.values": [
        Wrong("if value", stock_if_value, "is sold out: three reads asked 3 queries"),
        Wrong("absence is not cached", absence_not_cached, "(unknown) the cache is empty"),
        Wrong("absence for a minute", absence_for_a_minute, "expected was 1 to 10 s"),
        Wrong("absence is 0", absence_is_zero, "(unknown) gave 0"),
        Wrong("text on a hit", stock_as_text, "gave '14'"),
    ],
    "05_cache_aside.update": [
        Wrong("only the database", only_the_database, "user:v1:1 and user:public:v1:1 are still"),
        Wrong("only the cache", only_the_cache, "After change_email the database has"),
        Wrong("one key forgotten", forgets_the_public_page, "Readers of user:public:v1:1 are"),
        Wrong("delete before the commit", deletes_first, "stored the old row again"),
        Wrong("before and after", deletes_before_and_after, "of all 1,722 orders"),
        Wrong("half before the commit", deletes_half_first, "(user:public:v1:1)"),
        Wrong(
            "the whole cache",
            deletes_everything,
            "cache: user:v1:2, user:v1:12, user:public:v1:10, session:abc;",
        ),
        Wrong("all users", deletes_all_users, "cache: user:v1:2, user:v1:12, user:public:v1:10;"),
        Wrong("by a pattern", by_a_pattern, "cache: user:v1:12, user:public:v1:10;"),
        Wrong("stores the new row", stores_the_new_row, "and user:v1:1 was left with the one"),
        Wrong("patches the copies", patches_the_copies, "user:public:v1:1 was left with the one"),
        Wrong("only if one is cached", only_if_the_profile_is_cached, "1 alone in the cache"),
        Wrong("another user too", changes_everybody, "User 2 was changed as well"),
    ],
    "05_cache_aside.cache_down": [
        Wrong("no guard", unguarded, "dead before the read, and also dying"),
        Wrong("only the GET", only_the_get_is_guarded, "cache dying between the GET and"),
        Wrong("only the SET", only_the_set_is_guarded, "dead before the read, the customer"),
        Wrong("gives up", gives_up, "gave None"),
        Wrong("asks twice", asks_again, "one read asked 2 queries"),
        Wrong("hides the database's error", hides_the_database, "would take that for the truth"),
        Wrong("insists", insists, "the cache was tried"),
        Wrong("does not cache", never_caches, "two reads asked 2 queries"),
        Wrong("only a lost connection", only_a_lost_connection, "did not answer in time, and the"),
        Wrong("stores after an error", stores_after_an_error, "'null' was stored all the same"),
        Wrong("TTL in a second command", product_ttl_apart, "was left without a TTL"),
    ],
    "05_cache_aside.version": [
        Wrong("the old key", keeps_the_old_key, "gave {'name': 'Alice'}"),
        Wrong("deletes the old entry", deletes_the_old_entry, "became None"),
        Wrong("rewrites the old entry", rewrites_the_old_entry, "its pods still need it"),
        Wrong("one letter", first_letter_only, "'initials': 'AM'"),
        Wrong("does not cache", does_not_cache_at_all, "asked 2 queries"),
        Wrong("no TTL", profile_without_ttl, "has no TTL"),
        Wrong("from the old copy", from_the_old_copy, "as old as that copy"),
        Wrong("capitals", capitals, "'initials': 'AMMC'"),
        Wrong("one key for all", one_key_for_all_profiles, "The read of user 2"),
        Wrong("the user's key", under_the_users_key, "of the user under user:v1:1 too"),
        Wrong("a hash in the key", under_a_hash, "Another process asked the database again"),
    ],
}

RIGHT = {
    "05_cache_aside.read": [
        read_in_a_pipeline,
        read_under_a_lock_of_the_process,
        ReadUser(),
        functools.partial(lambda extra, cache, db, user_id: ReadUser()(cache, db, user_id), None),
    ],
    "05_cache_aside.values": [with_a_sentinel, absence_is_below_zero],
    "05_cache_aside.update": [
        unlinks_one_by_one,
        deletes_in_a_pipeline,
        lets_them_expire_now,
    ],
    "05_cache_aside.cache_down": [
        guarded_by_helpers,
        skips_the_fill_when_the_read_failed,
        suppresses_what_redis_raises,
    ],
    "05_cache_aside.version": [
        another_name_for_the_new_shape,
        copes_with_the_old_shape,
        keeps_only_the_name,
    ],
}
