"""Answers to lab 11, wrong and right, as learners write them."""

from __future__ import annotations

import contextlib
import json
import threading

import redis

from answers import Wrong
from cachelab import stage

KEY = "user:v1:1"
LEASE = f"lease:{KEY}"

# twice ---------------------------------------------------------------------------------------

TWICE = ["writer DEL", "reader GET", "reader SELECT", "writer UPDATE", "writer DEL", "reader SET"]


def the_race_of_the_notebook():
    return [
        "reader GET",
        "reader SELECT",
        "writer DEL",
        "writer UPDATE",
        "writer DEL",
        "reader SET",
    ]


def writer_first():
    writes = ["writer DEL", "writer UPDATE", "writer DEL"]
    return [*writes, "reader GET", "reader SELECT", "reader SET"]


def reader_between_the_deletes():
    reads = ["reader GET", "reader SELECT", "reader SET"]
    return ["writer DEL", *reads, "writer UPDATE", "writer DEL"]


def stops_half_way():
    return TWICE[:4]


def stores_before_it_reads():
    return ["writer DEL", "reader GET", "reader SET", *TWICE[3:5], "reader SELECT"]


def one_delete_too_many():
    return [*TWICE, "writer DEL"]


def one_text():
    return ", ".join(TWICE)


def a_step_of_its_own_making():
    return ["writer DEL", "reader LOOK", *TWICE[2:]]


def no_steps():
    return []


def in_small_letters():
    return tuple(step.lower() for step in TWICE)


def found_by_the_stage():
    def reader(cache, db):
        stored = cache.get(KEY)
        if stored is None:
            stored = json.dumps(db.user(1))
            cache.set(KEY, stored, ex=300)
        return stored

    def writer(cache, db):
        cache.delete(KEY)
        db.update_user(1, email="new@example.org")
        cache.delete(KEY)

    def fine(world):
        return "alice@" not in (world.cache.get(KEY) or "")

    found = stage.explore(
        {"reader": reader, "writer": writer}, fine, setup=reader, commit_apart=False
    )
    steps = [f"{event.actor} {event.what}" for event in found.counterexample]
    return [step for step in steps if step != "writer COMMIT"]


# flag ----------------------------------------------------------------------------------------

FIRST = ["first GET", "first SET", "first SELECT"]
WRITES = ["writer UPDATE", "writer DEL"]
SECOND = ["second GET", "second SET", "second SELECT", "second EVAL"]
FLAG = [*FIRST, *WRITES, "second GET", "second SET", "first EVAL", *SECOND[2:]]


def one_after_the_other():
    return [*WRITES, *FIRST, "first EVAL", "second GET"]


def void_as_it_should_be():
    return [*FIRST, *WRITES, "first EVAL", *SECOND]


def second_without_a_lease():
    return [*FIRST, "second GET", "second SET", "second SELECT", "second EVAL"]


def deleted_at_the_end():
    return [*FIRST, "first EVAL", "second GET", *WRITES]


def forgets_the_second():
    return [*FIRST, *WRITES, "first EVAL"]


def takes_the_lease_late():
    return ["first GET", "first SELECT", "first SET", *FLAG[3:]]


def calls_it_a_fill():
    return [step.replace("EVAL", "FILL") for step in FLAG]


def the_second_is_the_late_one():
    other = {"first": "second", "second": "first", "writer": "writer"}
    return [f"{other[step.split()[0]]} {step.split()[1]}" for step in FLAG]


def second_reads_before_the_fill():
    return [*FIRST, *WRITES, "second GET", "second SET", "second SELECT", "first EVAL", SECOND[3]]


# versioned -----------------------------------------------------------------------------------

_LOCK = threading.Lock()  # in each process another one


def under_a_lock_of_the_process(cache, key, row):
    with _LOCK:
        kept = cache.get(key)
        if kept is not None and json.loads(kept)["version"] >= row["version"]:
            return False
        cache.set(key, json.dumps(row), ex=300)
        return True


SCRIPT = """
local kept = redis.call('GET', KEYS[1])
if kept and cjson.decode(kept).version >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 300)
return 1
"""


def _put(cache, key, row, script=SCRIPT):
    return bool(cache.eval(script, 1, key, json.dumps(row), row["version"]))


def always_stores(cache, key, row):
    cache.set(key, json.dumps(row), ex=300)
    return True


def looks_and_then_stores(cache, key, row):
    stored = cache.get(key)
    if stored is not None and json.loads(stored)["version"] >= row["version"]:
        return False
    cache.set(key, json.dumps(row), ex=300)
    return True


def only_when_empty(cache, key, row):
    return bool(cache.set(key, json.dumps(row), nx=True, ex=300))


def compares_texts(cache, key, row):
    older = "tostring(cjson.decode(kept).version) >= ARGV[2]"
    asked = "cjson.decode(kept).version >= tonumber(ARGV[2])"
    return _put(cache, key, row, SCRIPT.replace(asked, older))


def takes_the_same_version(cache, key, row):
    return _put(cache, key, row, SCRIPT.replace(">=", ">"))


def put_without_ttl(cache, key, row):
    return _put(cache, key, row, SCRIPT.replace(", 'EX', 300", ""))


def does_not_say(cache, key, row):
    _put(cache, key, row)


def version_in_a_key_of_its_own(cache, key, row):
    script = """
    local kept = redis.call('GET', KEYS[2])
    if kept and tonumber(kept) >= tonumber(ARGV[2]) then return 0 end
    redis.call('SET', KEYS[1], ARGV[1], 'EX', 300)
    redis.call('SET', KEYS[2], ARGV[2], 'EX', 300)
    return 1
    """
    text = json.dumps(row)
    return bool(cache.eval(script, 2, key, f"{key}:version", text, row["version"]))


def keeps_the_old_ttl(cache, key, row):
    stores = "redis.call('SET', KEYS[1], ARGV[1], 'EX', 300)"
    keeps = stores.replace("'EX', 300", "'KEEPTTL'")
    return _put(cache, key, row, SCRIPT.replace(stores, f"if kept then {keeps} else {stores} end"))


def prolongs_what_it_refuses(cache, key, row):
    refuses = "redis.call('EXPIRE', KEYS[1], 300) return 0"
    return _put(cache, key, row, SCRIPT.replace("return 0", refuses))


def watches_without_a_second_try(cache, key, row):
    if cache.set(key, json.dumps(row), nx=True, ex=300):
        return True
    with cache.pipeline() as pipe:
        pipe.watch(key)
        if json.loads(pipe.get(key))["version"] >= row["version"]:
            return False
        pipe.multi()
        pipe.set(key, json.dumps(row), ex=300)
        pipe.execute()
    return True


def watches(cache, key, row):
    with cache.pipeline() as pipe:
        while True:
            try:
                pipe.watch(key)
                stored = pipe.get(key)
                if stored is not None and json.loads(stored)["version"] >= row["version"]:
                    return False
                pipe.multi()
                pipe.set(key, json.dumps(row), ex=300)
                pipe.execute()
                return True
            except redis.WatchError:
                continue


def with_a_registered_script(cache, key, row):
    script = cache.register_script(SCRIPT)
    return script(keys=[key], args=[json.dumps(row), row["version"]]) == 1


def as_lua_tells_it(cache, key, row):
    return cache.eval(SCRIPT, 1, key, json.dumps(row), row["version"])


# lease ---------------------------------------------------------------------------------------

FILL = """
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1], 'EX', 300)
return 1
"""


def _leased(
    cache, db, user_id, token, *, ex=10, fill=FILL, nx=True, early=True, last=True, give_up=False
):
    key = f"user:v1:{user_id}"
    lease = f"lease:{key}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    leased = early and cache.set(lease, token, nx=nx, ex=ex)
    if give_up and not leased:
        return None
    user = db.user(user_id)
    if not early:
        leased = cache.set(lease, token, nx=nx, ex=ex)
    if leased and last:
        cache.eval(fill, 2, key, lease, json.dumps(user), token)
    return user


def plain_cache_aside(cache, db, user_id, token):
    key = f"user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    user = db.user(user_id)
    cache.set(key, json.dumps(user), ex=300)
    return user


def lease_after_the_query(cache, db, user_id, token):
    return _leased(cache, db, user_id, token, early=False)


def lease_without_ttl(cache, db, user_id, token):
    return _leased(cache, db, user_id, token, ex=None)


def lease_of_a_day(cache, db, user_id, token):
    return _leased(cache, db, user_id, token, ex=86_400)


def the_same_token_for_all(cache, db, user_id, token):
    return _leased(cache, db, user_id, "1")


def looks_at_the_lease_first(cache, db, user_id, token):
    key, lease = f"user:v1:{user_id}", f"lease:user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    leased = cache.set(lease, token, nx=True, ex=10)
    user = db.user(user_id)
    if leased and cache.get(lease) == token:
        cache.set(key, json.dumps(user), ex=300)
        cache.delete(lease)
    return user


def gives_up_without_a_lease(cache, db, user_id, token):
    return _leased(cache, db, user_id, token, give_up=True)


def takes_everybodys_lease(cache, db, user_id, token):
    return _leased(cache, db, user_id, token, nx=False)


def keeps_the_lease(cache, db, user_id, token):
    return _leased(cache, db, user_id, token, fill=FILL.replace("redis.call('DEL', KEYS[2])", ""))


def takes_and_never_fills(cache, db, user_id, token):
    return _leased(cache, db, user_id, token, last=False)


def fill_that_stays(cache, db, user_id, token):
    return _leased(cache, db, user_id, token, fill=FILL.replace(", 'EX', 300", ""))


def ttl_of_the_lease_later(cache, db, user_id, token):
    key, lease = f"user:v1:{user_id}", f"lease:user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    leased = cache.setnx(lease, token) and cache.expire(lease, 10)
    user = db.user(user_id)
    if leased:
        cache.eval(FILL, 2, key, lease, json.dumps(user), token)
    return user


def gives_back_any_lease(cache, db, user_id, token):
    key, lease = f"user:v1:{user_id}", f"lease:user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    leased = cache.set(lease, token, nx=True, ex=10)
    user = db.user(user_id)
    if leased:
        cache.eval(FILL, 2, key, lease, json.dumps(user), token)
        cache.delete(lease)
    return user


def lease_with_watch(cache, db, user_id, token):
    key, lease = f"user:v1:{user_id}", f"lease:user:v1:{user_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    leased = cache.set(lease, token, nx=True, ex=5)
    user = db.user(user_id)
    if leased:
        with cache.pipeline() as pipe, contextlib.suppress(redis.WatchError):
            pipe.watch(lease)
            if pipe.get(lease) == token:
                pipe.multi()
                pipe.set(key, json.dumps(user), ex=300)
                pipe.delete(lease)
                pipe.execute()
    return user


def lease_and_look_in_one_script(cache, db, user_id, token):
    key, lease = f"user:v1:{user_id}", f"lease:user:v1:{user_id}"
    take = """
    local kept = redis.call('GET', KEYS[1])
    if kept then return {kept, 0} end
    if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'EX', 10) then return {'', 1} end
    return {'', 0}
    """
    stored, leased = cache.eval(take, 2, key, lease, token)
    if stored:
        return json.loads(stored)
    user = db.user(user_id)
    if leased:
        cache.eval(FILL, 2, key, lease, json.dumps(user), token)
    return user


# permission ----------------------------------------------------------------------------------


def _may(cache, db, user_id, permission, *, ttl=10, money=True, sliding=False):
    if money and permission.startswith("orders:"):
        return permission in db.permissions(user_id)
    key = f"permissions:v1:{user_id}"
    stored = None
    with contextlib.suppress(redis.RedisError):
        stored = cache.getex(key, ex=ttl) if sliding else cache.get(key)
    if stored is not None:
        return permission in json.loads(stored)
    allowed = db.permissions(user_id)
    with contextlib.suppress(redis.RedisError):
        cache.set(key, json.dumps(allowed), ex=ttl)
    return permission in allowed


def a_minute_for_all(cache, db, user_id, permission):
    return _may(cache, db, user_id, permission, ttl=60)


def money_from_the_copy(cache, db, user_id, permission):
    return _may(cache, db, user_id, permission, money=False)


def knows_one_kind_of_money(cache, db, user_id, permission):
    return _may(cache, db, user_id, permission, money=permission == "orders:refund")


def prolonged_by_each_check(cache, db, user_id, permission):
    return _may(cache, db, user_id, permission, sliding=True)


def never_from_the_cache(cache, db, user_id, permission):
    return permission in db.permissions(user_id)


def an_empty_list_is_nothing(cache, db, user_id, permission):
    if permission.startswith("orders:"):
        return permission in db.permissions(user_id)
    key = f"permissions:v1:{user_id}"
    allowed = []
    with contextlib.suppress(redis.RedisError):
        allowed = json.loads(cache.get(key) or "[]")
    if not allowed:
        allowed = db.permissions(user_id)
        with contextlib.suppress(redis.RedisError):
            cache.set(key, json.dumps(allowed), ex=10)
    return permission in allowed


def looks_for_it_in_the_text(cache, db, user_id, permission):
    if permission.startswith("orders:"):
        return permission in db.permissions(user_id)
    key = f"permissions:v1:{user_id}"
    stored = None
    with contextlib.suppress(redis.RedisError):
        stored = cache.get(key)
    if stored is None:
        stored = json.dumps(db.permissions(user_id))
        with contextlib.suppress(redis.RedisError):
            cache.set(key, stored, ex=10)
    return permission in stored


def needs_the_cache(cache, db, user_id, permission):
    if permission.startswith("orders:"):
        return permission in db.permissions(user_id)
    key = f"permissions:v1:{user_id}"
    stored = cache.get(key)
    if stored is None:
        stored = json.dumps(db.permissions(user_id))
        cache.set(key, stored, ex=10)
    return permission in json.loads(stored)


def refuses_when_in_doubt(cache, db, user_id, permission):
    try:
        return needs_the_cache(cache, db, user_id, permission)
    except redis.RedisError:
        return False


def allows_when_in_doubt(cache, db, user_id, permission):
    try:
        return _may(cache, db, user_id, permission)
    except Exception:
        return True


def ttl_in_a_second_step(cache, db, user_id, permission):
    if permission.startswith("orders:"):
        return permission in db.permissions(user_id)
    key = f"permissions:v1:{user_id}"
    stored = None
    with contextlib.suppress(redis.RedisError):
        stored = cache.get(key)
    if stored is not None:
        return permission in json.loads(stored)
    allowed = db.permissions(user_id)
    with contextlib.suppress(redis.RedisError):
        cache.set(key, json.dumps(allowed))
        cache.expire(key, 10)
    return permission in allowed


def a_shorter_ttl(cache, db, user_id, permission):
    return _may(cache, db, user_id, permission, ttl=3)


def fills_from_each_query(cache, db, user_id, permission):
    """Money is asked of the database, and the answer kept for the others."""
    key = f"permissions:v1:{user_id}"
    stored = None
    if not permission.startswith("orders:"):
        with contextlib.suppress(redis.RedisError):
            stored = cache.get(key)
    allowed = db.permissions(user_id) if stored is None else json.loads(stored)
    if stored is None:
        with contextlib.suppress(redis.RedisError):
            cache.set(key, json.dumps(allowed), px=9_500)
    return permission in allowed


WRONG = {
    "11_stale_data.twice": [
        Wrong("the race of the notebook", the_race_of_the_notebook, "has finished, after its GET"),
        Wrong("the writer first", writer_first, "holds the new address"),
        Wrong("the reader in between", reader_between_the_deletes, "nothing is left in the cache"),
        Wrong("half an order", stops_half_way, "the order ends while reader and writer"),
        Wrong("SET before SELECT", stores_before_it_reads, "its next operation is SELECT"),
        Wrong("one DEL too many", one_delete_too_many, "Step 7, writer DEL, is not possible"),
        Wrong("one text", one_text, "A list of steps such as"),
        Wrong("a step nobody takes", a_step_of_its_own_making, "Step 2 is 'reader LOOK'"),
        Wrong("no steps", no_steps, "The list is empty"),
    ],
    "11_stale_data.flag": [
        Wrong("one after the other", one_after_the_other, "new address, stored by first"),
        Wrong("the lease is void", void_as_it_should_be, "new address, stored by second"),
        Wrong("no lease, no fill", second_without_a_lease, "second has finished, after its SELECT"),
        Wrong("deleted at the end", deleted_at_the_end, "nothing is left in the cache"),
        Wrong("the second is forgotten", forgets_the_second, "while second still has"),
        Wrong("the lease late", takes_the_lease_late, "its next operation is SET"),
        Wrong("another word", calls_it_a_fill, "Step 8 is 'first FILL'"),
    ],
    "11_stale_data.versioned": [
        Wrong("a lock of one process", under_a_lock_of_the_process, "at the same time the older"),
        Wrong("always stores", always_stores, "version 9 over version 10 the cache holds"),
        Wrong("two steps", looks_and_then_stores, "of two that store at the same time"),
        Wrong("only when empty", only_when_empty, "version 9 over version 8"),
        Wrong("compares texts", compares_texts, "version 10 over version 9"),
        Wrong("the same version", takes_the_same_version, "another row of version 10"),
        Wrong("no TTL", put_without_ttl, "has no TTL"),
        Wrong("does not say", does_not_say, "gave None"),
        Wrong("a key for the version", version_in_a_key_of_its_own, "could not be stored again"),
        Wrong("keeps the old TTL", keeps_the_old_ttl, "expected was 300 s"),
        Wrong(
            "prolongs what it refuses",
            prolongs_what_it_refuses,
            "stored nothing, and gave the old copy",
        ),
        Wrong("no second try", watches_without_a_second_try, "raised WatchError"),
    ],
    "11_stale_data.lease": [
        Wrong("no lease", plain_cache_aside, "No lease was taken"),
        Wrong("the lease late", lease_after_the_query, "only after the query"),
        Wrong("a lease without TTL", lease_without_ttl, "The lease has no TTL"),
        Wrong("a lease of a day", lease_of_a_day, "The lease lasts 86400 s"),
        Wrong("one token for all", the_same_token_for_all, "after its lease was void"),
        Wrong("looks, then stores", looks_at_the_lease_first, "after its lease was void"),
        Wrong("gives up", gives_up_without_a_lease, "somebody else had the lease gave None"),
        Wrong("takes everybody's", takes_everybodys_lease, "although somebody else had the lease"),
        Wrong("keeps the lease", keeps_the_lease, "the lease of the first is still there"),
        Wrong("the TTL later", ttl_of_the_lease_later, "Between two commands the lease"),
        Wrong("gives back any", gives_back_any_lease, "give back only your own"),
        Wrong("never fills", takes_and_never_fills, "user:v1:1 holds None"),
        Wrong("a copy without TTL", fill_that_stays, "The copy under user:v1:1 has no TTL"),
    ],
    "11_stale_data.permission": [
        Wrong("a minute for all", a_minute_for_all, "lives 60 s; the budget is 10 s"),
        Wrong("money from the copy", money_from_the_copy, "his next refund went through"),
        Wrong("one kind of money", knows_one_kind_of_money, "Bruno was given orders:cancel"),
        Wrong("a check prolongs it", prolonged_by_each_check, "12 s later he was still let"),
        Wrong("no cache", never_from_the_cache, "checks of Bruno asked 3 queries"),
        Wrong("empty is nothing", an_empty_list_is_nothing, "may do nothing, asked 3 queries"),
        Wrong("part of the text", looks_for_it_in_the_text, "'users') gave True"),
        Wrong("needs the cache", needs_the_cache, "raised ConnectionError"),
        Wrong("refuses when in doubt", refuses_when_in_doubt, "'users:edit' gave False"),
        Wrong("allows when in doubt", allows_when_in_doubt, "With cache and database down"),
        Wrong("the TTL in a second step", ttl_in_a_second_step, "a process died half-way"),
    ],
}

RIGHT = {
    "11_stale_data.twice": [in_small_letters, found_by_the_stage],
    "11_stale_data.flag": [the_second_is_the_late_one, second_reads_before_the_fill],
    "11_stale_data.versioned": [watches, with_a_registered_script, as_lua_tells_it],
    "11_stale_data.lease": [lease_with_watch, lease_and_look_in_one_script],
    "11_stale_data.permission": [a_shorter_ttl, fills_from_each_query],
}
