"""Answers to lab 06, wrong and right, as learners write them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from itertools import pairwise

import redis
import sqlalchemy as sa

from answers import Wrong
from cachelab.origin import User
from cachelab.patterns import versioned_set, write_through

# both ----------------------------------------------------------------------------------------


def _key(user_id):
    return f"user:v1:{user_id}"


def only_the_database(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    return db.user(user_id)


def only_the_cache(cache, db, user_id, email):
    user = {**db.user(user_id), "email": email}
    cache.set(_key(user_id), json.dumps(user), ex=300)
    return user


def deletes(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.delete(_key(user_id))
    return db.user(user_id)


def only_what_has_changed(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.set(_key(user_id), json.dumps({"email": email}), ex=300)
    return db.user(user_id)


def as_a_python_text(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.set(_key(user_id), str(user), ex=300)
    return user


def the_row_of_before(cache, db, user_id, email):
    user = {**db.user(user_id), "email": email}
    db.update_user(user_id, email=email)
    cache.set(_key(user_id), json.dumps(user), ex=300)
    return user


def builds_on_the_copy(cache, db, user_id, email):
    stored = cache.get(_key(user_id))
    user = json.loads(stored) if stored is not None else db.user(user_id)
    db.update_user(user_id, email=email)
    user = {**user, "email": email, "version": user["version"] + 1}
    cache.set(_key(user_id), json.dumps(user), ex=300)
    return user


def both_without_ttl(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.set(_key(user_id), json.dumps(user))
    return user


def keeps_the_old_ttl(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.set(_key(user_id), json.dumps(user), keepttl=True)
    return user


def ttl_in_a_second_command(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.set(_key(user_id), json.dumps(user))
    cache.expire(_key(user_id), 300)
    return user


def cache_first(cache, db, user_id, email):
    user = db.user(user_id)
    user = {**user, "email": email, "version": user["version"] + 1}
    cache.set(_key(user_id), json.dumps(user), ex=300)
    db.update_user(user_id, email=email)
    return user


def deletes_before(cache, db, user_id, email):
    cache.delete(_key(user_id))
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.set(_key(user_id), json.dumps(user), ex=300)
    return user


def only_where_there_is_a_copy(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.set(_key(user_id), json.dumps(user), ex=300, xx=True)
    return user


def returns_nothing(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.set(_key(user_id), json.dumps(db.user(user_id)), ex=300)


def hides_the_refusal(cache, db, user_id, email):
    with contextlib.suppress(Exception):
        db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.set(_key(user_id), json.dumps(user), ex=300)
    return user


def with_returning(cache, db, user_id, email):
    change = sa.text(
        "UPDATE users SET email = :email, version = version + 1 WHERE id = :id"
        " RETURNING id, name, email, bio, role, version"
    )
    with db.engine.begin() as connection:
        row = connection.execute(change, {"email": email, "id": user_id}).one()
    user = dict(row._mapping)
    cache.setex(_key(user_id), 300, json.dumps(user))
    return user


def with_the_orm(cache, db, user_id, email):
    with db.session() as session:
        user = session.get(User, user_id)
        user.email, user.version = email, User.version + 1
        session.commit()
        row = {column.name: getattr(user, column.name) for column in User.__table__.columns}
    cache.set(_key(user_id), json.dumps(row), ex=300)
    return row


def by_the_pattern(cache, db, user_id, email):
    def save():
        db.update_user(user_id, email=email)
        return db.user(user_id)

    return write_through.write(cache, _key(user_id), save, 300)


def deletes_and_stores_in_a_pipeline(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    with cache.pipeline() as pipe:
        pipe.delete(_key(user_id))
        pipe.set(_key(user_id), json.dumps(user, indent=1), px=300_000)
        pipe.execute()
    return user


# second_write --------------------------------------------------------------------------------


def _price(product_id):
    return f"product:v1:{product_id}"


def unguarded(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    cache.set(_price(product_id), json.dumps(db.product(product_id)), ex=60)
    return "stored"


def only_swallows(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    try:
        cache.set(_price(product_id), json.dumps(db.product(product_id)), ex=60)
    except redis.RedisError:
        return "stale"
    return "stored"


def unguarded_delete(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    try:
        cache.set(_price(product_id), json.dumps(db.product(product_id)), ex=60)
        return "stored"
    except redis.RedisError:
        cache.delete(_price(product_id))
        return "deleted"


def always_says_stored(cache, db, product_id, price_cents):
    _change(cache, db, product_id, price_cents)
    return "stored"


def says_nothing(cache, db, product_id, price_cents):
    _change(cache, db, product_id, price_cents)


def says_deleted_either_way(cache, db, product_id, price_cents):
    told = _change(cache, db, product_id, price_cents)
    return "deleted" if told == "stale" else told


def hides_the_database(cache, db, product_id, price_cents):
    try:
        return _change(cache, db, product_id, price_cents)
    except Exception:
        return "stale"


def takes_the_update_back(cache, db, product_id, price_cents):
    before = db.product(product_id)["price_cents"]
    told = _change(cache, db, product_id, price_cents)
    if told == "stale":
        db.update_product(product_id, price_cents=before)
    return told


def cache_before_database(cache, db, product_id, price_cents):
    row = db.product(product_id)
    row = {**row, "price_cents": price_cents, "version": row["version"] + 1}
    told = _store_or_delete(cache, _price(product_id), row)
    db.update_product(product_id, price_cents=price_cents)
    return told


def deletes_before_the_commit(cache, db, product_id, price_cents):
    deleted = False
    with contextlib.suppress(redis.RedisError):
        cache.delete(_price(product_id))
        deleted = True
    db.update_product(product_id, price_cents=price_cents)
    try:
        cache.set(_price(product_id), json.dumps(db.product(product_id)), ex=60)
        return "stored"
    except redis.RedisError:
        return "deleted" if deleted else "stale"


def only_deletes(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    try:
        cache.delete(_price(product_id))
        return "deleted"
    except redis.RedisError:
        return "stale"


def for_a_day(cache, db, product_id, price_cents):
    return _change(cache, db, product_id, price_cents, ttl=86_400)


def insists(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    row = json.dumps(db.product(product_id))
    for _ in range(10):
        with contextlib.suppress(redis.RedisError):
            cache.set(_price(product_id), row, ex=60)
            return "stored"
    return "stale"


def updates_again(cache, db, product_id, price_cents):
    for _ in range(2):
        db.update_product(product_id, price_cents=price_cents)
        told = _store_or_delete(cache, _price(product_id), db.product(product_id))
        if told != "stale":
            break
    return told


def stores_and_tries_again(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    row, key = json.dumps(db.product(product_id)), _price(product_id)
    steps = [
        ("stored", lambda: cache.setex(key, 60, row)),
        ("stored", lambda: cache.setex(key, 60, row)),
        ("deleted", lambda: cache.unlink(key)),
    ]
    for told, step in steps:
        try:
            step()
            return told
        except redis.RedisError:
            continue
    return "stale"


def deletes_then_stores(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    told, key = "stale", _price(product_id)
    with contextlib.suppress(redis.RedisError):
        cache.delete(key)
        told = "deleted"
    with contextlib.suppress(redis.RedisError):
        cache.set(key, json.dumps(db.product(product_id)), ex=60)
        told = "stored"
    return told


def one_pipeline_twice(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    for _ in range(2):
        with contextlib.suppress(redis.RedisError), cache.pipeline() as pipe:
            pipe.set(_price(product_id), json.dumps(db.product(product_id)))
            pipe.expire(_price(product_id), 60)
            pipe.execute()
            return "stored"
    return "stale"


def _change(cache, db, product_id, price_cents, ttl=60):
    db.update_product(product_id, price_cents=price_cents)
    return _store_or_delete(cache, _price(product_id), db.product(product_id), ttl)


def _store_or_delete(cache, key, row, ttl=60):
    with contextlib.suppress(redis.RedisError):
        cache.set(key, json.dumps(row), ex=ttl)
        return "stored"
    with contextlib.suppress(redis.RedisError):
        cache.delete(key)
        return "deleted"
    return "stale"


# two_writers ---------------------------------------------------------------------------------

SCRIPT = versioned_set.SET_IF_NEWER


def _put(cache, user, version=None, script=SCRIPT, seconds=300):
    number = user["version"] if version is None else version
    cache.eval(script, 1, _key(user["id"]), json.dumps(user), number, seconds)


def last_one_stores(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.set(_key(user_id), json.dumps(db.user(user_id)), ex=300)


_LOCK = threading.Lock()  # in each process another one


def under_a_lock_of_the_process(cache, db, user_id, email):
    with _LOCK:
        last_one_stores(cache, db, user_id, email)


def looks_and_then_stores(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    stored = cache.get(_key(user_id))
    if stored is None or json.loads(stored)["version"] < user["version"]:
        cache.set(_key(user_id), json.dumps(user), ex=300)


def counts_the_version_itself(cache, db, user_id, email):
    user = db.user(user_id)
    db.update_user(user_id, email=email)
    _put(cache, {**user, "email": email, "version": user["version"] + 1})


def version_from_before(cache, db, user_id, email):
    version = db.user(user_id)["version"]
    db.update_user(user_id, email=email)
    _put(cache, db.user(user_id), version)


def deletes_for_two(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.delete(_key(user_id))


def only_into_an_empty_key(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    cache.delete(_key(user_id))
    cache.set(_key(user_id), json.dumps(db.user(user_id)), ex=300, nx=True)


def inside_the_transaction(cache, db, user_id, email):
    with db.engine.begin() as connection:
        change = "UPDATE users SET email = :email, version = version + 1 WHERE id = :id"
        connection.execute(sa.text(change), {"email": email, "id": user_id})
        asked = sa.text("SELECT * FROM users WHERE id = :id")
        row = connection.execute(asked, {"id": user_id}).one()
        cache.set(_key(user_id), json.dumps(dict(row._mapping)), ex=300)


def script_without_ttl(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    _put(cache, db.user(user_id), script=SCRIPT.replace(", 'EX', ARGV[3]", ""))


def counts_in_the_orm(cache, db, user_id, email):
    with db.session() as session:
        user = session.get(User, user_id)
        session.refresh(user)
        user.email, user.version = email, user.version + 1
        session.commit()
    _put(cache, db.user(user_id))


def stores_again_a_second_later(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    for pause in (1, 0):
        cache.set(_key(user_id), json.dumps(db.user(user_id)), ex=300)
        time.sleep(pause)


def stores_until_it_is_true(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = None
    while user != db.user(user_id):
        user = db.user(user_id)
        cache.set(_key(user_id), json.dumps(user), ex=300)


def watches(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    key = _key(user_id)
    with cache.pipeline() as pipe:
        while True:
            try:
                pipe.watch(key)
                stored, user = pipe.get(key), db.user(user_id)
                if stored is None or json.loads(stored)["version"] < user["version"]:
                    pipe.multi()
                    pipe.set(key, json.dumps(user), ex=300)
                    pipe.execute()
                return
            except redis.WatchError:
                continue


def one_at_a_time(cache, db, user_id, email):
    with cache.lock(f"lock:{_key(user_id)}", timeout=10):
        db.update_user(user_id, email=email)
        cache.set(_key(user_id), json.dumps(db.user(user_id)), ex=300)


def through_the_pattern(cache, db, user_id, email):
    by_the_pattern(cache, db, user_id, email)


def put_of_the_pattern(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    return versioned_set.put(cache, _key(user_id), db.user(user_id), 300)


# worth ---------------------------------------------------------------------------------------


def every_read_saves(requests):
    reads = sum(what == "read" for what, _ in requests)
    writes = len(requests) - reads
    return {"saved": reads, "wasted": max(0, writes - reads)}


def any_later_read(requests):
    saved = sum(
        what == "write" and ("read", key) in requests[number + 1 :]
        for number, (what, key) in enumerate(requests)
    )
    writes = sum(what == "write" for what, _ in requests)
    return {"saved": saved, "wasted": writes - saved}


def whatever_comes_next(requests):
    saved = wasted = 0
    for number, (what, _) in enumerate(requests):
        if what == "write":
            following = requests[number + 1 : number + 2]
            read = bool(following) and following[0][0] == "read"
            saved, wasted = saved + read, wasted + (not read)
    return {"saved": saved, "wasted": wasted}


def forgets_the_last(requests):
    saved = wasted = 0
    unread = set()
    for what, key in requests:
        if what == "write":
            wasted += key in unread
            unread.add(key)
        elif key in unread:
            saved += 1
            unread.remove(key)
    return {"saved": saved, "wasted": wasted}


def every_read_of_a_written_key(requests):
    written, saved, writes = set(), 0, 0
    for what, key in requests:
        if what == "write":
            written.add(key)
            writes += 1
        else:
            saved += key in written
    return {"saved": saved, "wasted": writes - saved}


def as_a_pair(requests):
    counts = from_the_end(requests)
    return counts["saved"], counts["wasted"]


def eats_the_list(requests):
    counts = from_the_end(requests)
    requests.clear()
    return counts


def from_the_end(requests):
    following, counts = {}, {"saved": 0, "wasted": 0}
    for what, key in reversed(requests):
        if what == "write":
            counts["saved" if following.get(key) == "read" else "wasted"] += 1
        following[key] = what
    return counts


def key_by_key(requests):
    saved = wasted = 0
    for key in {key for _, key in requests}:
        own = [what for what, other in requests if other == key] + ["end"]
        for what, after in pairwise(own):
            saved += (what, after) == ("write", "read")
            wasted += what == "write" and after != "read"
    return {"saved": saved, "wasted": wasted}


def fears_a_dead_cache_only(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    key, row = f"product:v1:{product_id}", json.dumps(db.product(product_id))
    try:
        cache.set(key, row, ex=60)
        return "stored"
    except (redis.ConnectionError, redis.TimeoutError):
        pass
    try:
        cache.delete(key)
        return "deleted"
    except (redis.ConnectionError, redis.TimeoutError):
        return "stale"


def deleted_only_if_there_was_one(cache, db, product_id, price_cents):
    db.update_product(product_id, price_cents=price_cents)
    key, row = f"product:v1:{product_id}", json.dumps(db.product(product_id))
    try:
        cache.set(key, row, ex=60)
        return "stored"
    except redis.RedisError:
        pass
    try:
        return "deleted" if cache.delete(key) else "stale"
    except redis.RedisError:
        return "stale"


COMPARES_TEXTS = """
local kept = redis.call('GET', KEYS[1])
if kept and tostring(cjson.decode(kept).version) >= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
"""


def compares_versions_as_texts(cache, db, user_id, email):
    db.update_user(user_id, email=email)
    user = db.user(user_id)
    cache.eval(COMPARES_TEXTS, 1, f"user:v1:{user_id}", json.dumps(user), str(user["version"]), 300)


def under_a_lock(cache, db, user_id, email):
    with cache.lock(f"lock:user:{user_id}", timeout=10):
        db.update_user(user_id, email=email)
        cache.set(f"user:v1:{user_id}", json.dumps(db.user(user_id)), ex=300)


WRONG = {
    "06_write_through.both": [
        Wrong("only the database", only_the_database, "is still the old row"),
        Wrong("only the cache", only_the_cache, "After change_email the database has"),
        Wrong("deletes", deletes, "there is nothing under user:v1:1"),
        Wrong("only what changed", only_what_has_changed, "no id, name, bio, role, version"),
        Wrong("a text of Python's", as_a_python_text, "not the row as JSON"),
        Wrong("the row of before", the_row_of_before, "was not read after the update"),
        Wrong("builds on the copy", builds_on_the_copy, "An old copy was in the cache before"),
        Wrong("no TTL", both_without_ttl, "has no TTL"),
        Wrong("the old TTL", keeps_the_old_ttl, "lives 200 s"),
        Wrong("TTL in a second command", ttl_in_a_second_command, "a process died half-way"),
        Wrong("cache first", cache_first, "before the database had committed it"),
        Wrong("deletes before", deletes_before, "user:v1:1 became None"),
        Wrong("only where there is one", only_where_there_is_a_copy, "of whom there was no copy"),
        Wrong("returns nothing", returns_nothing, "change_email returned None"),
        Wrong("hides the refusal", hides_the_refusal, "refused the update, and change_email ret"),
    ],
    "06_write_through.second_write": [
        Wrong("no guard", unguarded, "change_price raised ConnectionError"),
        Wrong("only swallows", only_swallows, "A second command would have got through"),
        Wrong("the delete has no guard", unguarded_delete, "two cache commands after the commit"),
        Wrong("always 'stored'", always_says_stored, "but the cache holds nothing"),
        Wrong("says nothing", says_nothing, "returned None; expected was 'stored'"),
        Wrong("'deleted' either way", says_deleted_either_way, "the cache holds the old price"),
        Wrong("hides the database", hides_the_database, "see the database's error"),
        Wrong("takes it back", takes_the_update_back, "has a price of"),
        Wrong("cache first", cache_before_database, "before the database had committed"),
        Wrong("deletes before", deletes_before_the_commit, "the old price is still in the cache"),
        Wrong("only deletes", only_deletes, "returned 'deleted', not 'stored'"),
        Wrong("for a day", for_a_day, "lives 86400 s"),
        Wrong("only a dead cache", fears_a_dead_cache_only, "raised OutOfMemoryError"),
        Wrong("counts what it deleted", deleted_only_if_there_was_one, "and no old copy there"),
        Wrong("insists", insists, "the cache was tried 10 times"),
        Wrong("updates again", updates_again, "was updated 2 times"),
    ],
    "06_write_through.two_writers": [
        Wrong("last one stores", last_one_stores, "the older row stays"),
        Wrong("a lock of one process", under_a_lock_of_the_process, "the older row stays"),
        Wrong("looks, then stores", looks_and_then_stores, "the older row stays"),
        Wrong("counts itself", counts_the_version_itself, "Somebody changed the name between"),
        Wrong("the version of before", version_from_before, "The script refused the new row"),
        Wrong("deletes", deletes_for_two, "there is nothing under user:v1:1"),
        Wrong("only an empty key", only_into_an_empty_key, "the older row stays"),
        Wrong("inside the transaction", inside_the_transaction, "which was never true"),
        Wrong("once more, later", stores_again_a_second_later, "stood still for 5 s"),
        Wrong("no TTL", script_without_ttl, "has no TTL"),
        Wrong("9 is more than 10", compares_versions_as_texts, "compare versions as numbers"),
        Wrong("an ORM counts", counts_in_the_orm, "each has to raise it, there"),
    ],
    "06_write_through.worth": [
        Wrong("every read saves", every_read_saves, "a read before the write (read a, write a)"),
        Wrong("any later read", any_later_read, "two writes before a read"),
        Wrong("whatever comes next", whatever_comes_next, "a read of another key"),
        Wrong("forgets the last", forgets_the_last, "For one write (write a)"),
        Wrong("every read counts", every_read_of_a_written_key, "two reads after a write"),
        Wrong("a pair", as_a_pair, "worth gave (0, 0)"),
        Wrong("eats the list", eats_the_list, "changed the list"),
    ],
}

RIGHT = {
    "06_write_through.both": [
        with_returning,
        with_the_orm,
        by_the_pattern,
        deletes_and_stores_in_a_pipeline,
    ],
    "06_write_through.second_write": [
        stores_and_tries_again,
        deletes_then_stores,
        one_pipeline_twice,
    ],
    "06_write_through.two_writers": [
        watches,
        stores_until_it_is_true,
        one_at_a_time,
        through_the_pattern,
        put_of_the_pattern,
        under_a_lock,
    ],
    "06_write_through.worth": [from_the_end, key_by_key],
}
