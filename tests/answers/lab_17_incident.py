"""Answers to lab 17, wrong and right, as learners write them."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
import zlib
from contextlib import suppress

import redis
import sqlalchemy as sa

from answers import Wrong
from cachelab.incident import LONGEST, parts
from cachelab.origin import Product

# diagnose ------------------------------------------------------------------------------------

FOUND = {
    "one_ttl": [1256],
    "absent_for_ever": [134],
    "hash_in_key": [697],
    "lock_without_token": [113, 119],
    "delete_before_commit": [504, 517],
    "pool_of_100": [3024],
}


def blames_the_cache():
    return {**FOUND, "cache_down": [3024]}


def blames_a_hot_key():
    return {**FOUND, "hot_key": [3024]}


def cites_a_customer_who_waited():
    return {**FOUND, "lock_without_token": [121]}


def cites_the_first_search():
    return {**FOUND, "hash_in_key": [52]}


def cites_what_is_not_there():
    return {**FOUND, "one_ttl": [999_999]}


def finds_five():
    return {name: cited for name, cited in FOUND.items() if name != "lock_without_token"}


def cites_nothing():
    return {**FOUND, "one_ttl": []}


def invents_a_suspect():
    return {**FOUND, "the_intern": [504]}


def a_list_of_names():
    return list(FOUND)


def one_number_each():
    return {name: cited[0] for name, cited in FOUND.items()}


def by_what_was_stored():
    return FOUND | {"one_ttl": (2, 4, 1304), "absent_for_ever": {2883}, "pool_of_100": [3023]}


# lifetime ------------------------------------------------------------------------------------


def _bound(kind, found):
    return LONGEST[kind] if found else min(LONGEST[kind], LONGEST["absent"])


def jitter_on_top(kind, found):
    return int(_bound(kind, found) * random.uniform(1, 1.15))


def no_jitter(kind, found):
    return _bound(kind, found)


def ten_seconds_for_all(kind, found):
    return 10


def absence_as_long_as_the_rest(kind, found):
    return int(LONGEST[kind] * random.uniform(0.8, 1))


def absence_not_at_all(kind, found):
    return a_tenth_off(kind, found) * bool(found)


def absence_for_ever(kind, found):
    return int(_bound(kind, found) * random.uniform(0.8, 1)) if found else None


def half_a_second_of_jitter(kind, found):
    return max(1, int(_bound(kind, found) - random.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])))


def fractions(kind, found):
    return _bound(kind, found) * random.uniform(0.8, 1)


def by_hand(kind, found):
    low, high = {
        "product": (480, 600),
        "stock": (7, 10),
        "search": (240, 300),
        "best": (70, 90),
    }[kind]
    if not found:
        low, high = min(low, 20), min(high, 30)
    return random.randint(low, high)


def a_tenth_off(kind, found):
    bound = _bound(kind, found)
    return max(1, bound - random.randrange(int(bound * 0.15) + 1))


# key -----------------------------------------------------------------------------------------


def first_letters(words):
    return f"search:v1:{words[:40]}"


def without_spaces(words):
    return f"search:v1:{words.replace(' ', '')}"


def sorted_words(words):
    return "search:v1:" + " ".join(sorted(words.split()))


def crc_of_16_bits(words):
    return f"search:v1:{zlib.crc32(words.encode()) & 0xFFFF}"


def hash_without_sign(words):
    return f"search:v1:{abs(hash(words)):x}"


def hash_of_a_tuple(words):
    return f"search:v1:{hash(('search', words))}"


def crc_of_32_bits(words):
    return f"search:v1:{zlib.crc32(words.encode())}"


def spaces_at_the_ends_cut(words):
    return f"search:v1:{words.strip()}"


def with_underscores(words):
    return "search:v1:" + words.replace(" ", "_")


def only_ascii(words):
    return "search:v1:" + words.encode("ascii", "ignore").decode()


def drawn_anew(words):
    return f"search:v1:{uuid.uuid4().hex}"


def no_namespace(words):
    return words


def by_sha(words):
    return f"search:v1:{hashlib.sha256(words.encode()).hexdigest()}"


def as_json(words):
    return "search:" + json.dumps(["v1", words])


# lock ----------------------------------------------------------------------------------------

FREE = """if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0"""
FILL = """if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1"""


def _locked(cache, key, load, ttl, *, ex=30, look=True, fence=True, free=FREE, token=None):
    lock, token = f"lock:{key}", token or uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=ex):
        return None
    try:
        if look and (raw := cache.get(key)) is not None:
            return json.loads(raw)
        value = load()
        if fence:
            cache.eval(FILL, 2, lock, key, token, json.dumps(value), ttl)
        else:
            cache.set(key, json.dumps(value), ex=ttl)
        return value
    finally:
        cache.eval(free, 1, lock, token)


def token_without_a_second_look(cache, key, load, ttl):
    return _locked(cache, key, load, ttl, look=False)


def token_and_five_seconds(cache, key, load, ttl):
    return _locked(cache, key, load, ttl, ex=5)


def token_and_no_fence(cache, key, load, ttl):
    return _locked(cache, key, load, ttl, fence=False)


def frees_whoever_has_it(cache, key, load, ttl):
    return _locked(cache, key, load, ttl, free="return redis.call('DEL', KEYS[1])")


def the_same_token_always(cache, key, load, ttl):
    return _locked(cache, key, load, ttl, token="mine")


def lock_for_ever(cache, key, load, ttl):
    return _locked(cache, key, load, ttl, ex=None)


def looks_then_deletes(cache, key, load, ttl):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    try:
        if (raw := cache.get(key)) is not None:
            return json.loads(raw)
        value = load()
        cache.eval(FILL, 2, lock, key, token, json.dumps(value), ttl)
        return value
    finally:
        if cache.get(lock) == token:
            cache.delete(lock)


def not_freed_after_an_error(cache, key, load, ttl):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    raw = cache.get(key)
    value = json.loads(raw) if raw is not None else load()
    if raw is None:
        cache.eval(FILL, 2, lock, key, token, json.dumps(value), ttl)
    cache.eval(FREE, 1, lock, token)
    return value


def asks_without_the_lock(cache, key, load, ttl):
    got = _locked(cache, key, load, ttl)
    return load() if got is None else got


def stores_if_nothing_is_there(cache, key, load, ttl):
    def fill(value):
        cache.set(key, json.dumps(value), ex=ttl, nx=True)

    return _filled(cache, key, load, fill)


def looks_at_the_token_then_stores(cache, key, load, ttl):
    lock = cache.lock(f"lock:{key}", timeout=60, blocking=False)
    if not lock.acquire():
        return None
    try:
        if (raw := cache.get(key)) is not None:
            return json.loads(raw)
        value = load()
        if lock.owned():
            cache.set(key, json.dumps(value), ex=ttl)
        return value
    finally:
        with suppress(redis.exceptions.LockError):
            lock.release()


def _filled(cache, key, load, fill):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None
    try:
        if (raw := cache.get(key)) is not None:
            return json.loads(raw)
        value = load()
        fill(value)
        return value
    finally:
        cache.eval(FREE, 1, lock, token)


def is_there_a_lock(cache, key, load, ttl):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if cache.exists(lock):
        return None
    cache.set(lock, token, ex=30)
    try:
        if (raw := cache.get(key)) is not None:
            return json.loads(raw)
        value = load()
        cache.eval(FILL, 2, lock, key, token, json.dumps(value), ttl)
        return value
    finally:
        cache.eval(FREE, 1, lock, token)


def looks_before_the_lock(cache, key, load, ttl):
    if (raw := cache.get(key)) is not None:
        return json.loads(raw)
    return _locked(cache, key, load, ttl, look=False)


def empty_is_nothing(cache, key, load, ttl):
    def again():
        return json.loads(cache.get(key) or "null") or load()

    return _locked(cache, key, again, ttl, look=False)


def expire_in_a_second_step(cache, key, load, ttl):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.setnx(lock, token):
        return None
    cache.expire(lock, 30)
    try:
        if (raw := cache.get(key)) is not None:
            return json.loads(raw)
        value = load()
        cache.eval(FILL, 2, lock, key, token, json.dumps(value), ttl)
        return value
    finally:
        cache.eval(FREE, 1, lock, token)


def by_watching(cache, key, load, ttl):
    lock, token = f"lock:{key}", uuid.uuid4().hex
    if not cache.set(lock, token, nx=True, ex=30):
        return None

    def while_mine(do):
        with cache.pipeline() as pipe, suppress(redis.WatchError):
            pipe.watch(lock)
            if pipe.get(lock) == token:
                pipe.multi()
                do(pipe)
                pipe.execute()

    try:
        if (raw := cache.get(key)) is not None:
            return json.loads(raw)
        value = load()
        while_mine(lambda pipe: pipe.set(key, json.dumps(value), ex=ttl))
        return value
    finally:
        while_mine(lambda pipe: pipe.delete(lock))


def as_the_pattern(cache, key, load, ttl):
    return parts.rebuild(cache, key, load, ttl)


def by_redis_pys_lock(cache, key, load, ttl):
    """redis-py's Lock has token and release; the fence is ours."""
    lock = cache.lock(f"lock:{key}", timeout=60, blocking=False)
    if not lock.acquire():
        return None
    try:
        raw = cache.get(key)
        if raw is not None:
            return json.loads(raw)
        value = load()
        cache.eval(FILL, 2, lock.name, key, lock.local.token, json.dumps(value), ttl)
        return value
    finally:
        with suppress(redis.exceptions.LockError):
            lock.release()


# prices --------------------------------------------------------------------------------------


def _updates(session, prices):
    for product, cents in prices.items():
        session.execute(sa.update(Product).where(Product.id == product).values(price_cents=cents))


def _keys(prices):
    return [f"product:v1:{product}" for product in prices]


def delete_first(cache, db, prices):
    cache.delete(*_keys(prices))
    with db.session() as session:
        _updates(session, prices)
        session.commit()


def deletes_inside_the_transaction(cache, db, prices):
    with db.engine.begin() as connection:
        _updates(connection, prices)
        cache.delete(*_keys(prices))


def forgets_the_commit(cache, db, prices):
    with db.session() as session:
        _updates(session, prices)
    cache.delete(*_keys(prices))


def one_transaction_each(cache, db, prices):
    for product, cents in prices.items():
        db.update_product(product, price_cents=cents)
        cache.delete(f"product:v1:{product}")


def forgets_the_copies(cache, db, prices):
    with db.session() as session:
        _updates(session, prices)
        session.commit()


def only_the_first_copy(cache, db, prices):
    with db.session() as session:
        _updates(session, prices)
        session.commit()
    cache.delete(_keys(prices)[0])


def deletes_every_product(cache, db, prices):
    with db.session() as session:
        _updates(session, prices)
        session.commit()
    for key in cache.scan_iter("product:v1:*"):
        cache.delete(key)


def hides_the_error(cache, db, prices):
    with suppress(sa.exc.SQLAlchemyError):
        with db.session() as session:
            _updates(session, prices)
            session.commit()
    cache.delete(*_keys(prices))


def stores_what_it_knows(cache, db, prices):
    with db.session() as session:
        _updates(session, prices)
        session.commit()
    for product, cents in prices.items():
        row = {"id": product, "price_cents": cents}
        cache.set(f"product:v1:{product}", json.dumps(row), ex=600)


def before_and_after(cache, db, prices):
    cache.delete(*_keys(prices))
    with db.session() as session, session.begin():
        _updates(session, prices)
    cache.delete(*_keys(prices))


def in_one_statement_block(cache, db, prices):
    with db.engine.begin() as connection:
        _updates(connection, prices)
    pipe = cache.pipeline()
    for key in _keys(prices):
        pipe.unlink(key)
    pipe.execute()


def by_executemany(cache, db, prices):
    with db.session() as session:
        statement = sa.text("UPDATE products SET price_cents = :cents WHERE id = :id")
        session.execute(statement, [{"id": p, "cents": c} for p, c in prices.items()])
        session.commit()
    for key in _keys(prices):
        cache.delete(key)


# pool ----------------------------------------------------------------------------------------


def a_bigger_pool(wire):
    return redis.ConnectionPool(max_connections=10_000, **wire)


def the_default(wire):
    return redis.ConnectionPool(**wire)


def waits_twenty_seconds(wire):
    return redis.BlockingConnectionPool(max_connections=50, **wire)


def waits_for_ever(wire):
    return redis.BlockingConnectionPool(max_connections=50, timeout=None, **wire)


def does_not_wait(wire):
    return redis.BlockingConnectionPool(max_connections=50, timeout=0.001, **wire)


def without_the_wire(wire):
    return redis.BlockingConnectionPool(max_connections=50, timeout=1)


def a_client(wire):
    return redis.Redis(connection_pool=redis.ConnectionPool(**wire))


def of_a_hundred(wire):
    return redis.BlockingConnectionPool(timeout=2, max_connections=100, **wire)


def of_ten(wire):
    return redis.BlockingConnectionPool(10, 1.5, **wire)


# all -----------------------------------------------------------------------------------------


def _all(**other):
    return {**parts.SOUND, **other}


def four_of_five():
    return {name: part for name, part in parts.SOUND.items() if name != "connect"}


def the_old_lifetimes():
    return _all(lifetime=parts.one_ttl)


def the_old_lock():
    return _all(rebuild=parts.lock_without_token)


def short_lives():
    def lifetime(kind, found):
        if kind == "product" and found:
            return 120
        return parts.lifetime(kind, found)

    return _all(lifetime=lifetime)


def a_key_that_fails():
    return _all(search_key=lambda words: None)


def called_already():
    return _all(search_key=parts.search_key("lamp"))


def a_part_too_many():
    return _all(retry=print)


def written_another_way():
    return {
        "connect": of_a_hundred,
        "change_prices": in_one_statement_block,
        "rebuild": by_redis_pys_lock,
        "search_key": by_sha,
        "lifetime": a_tenth_off,
    }


# postmortem ----------------------------------------------------------------------------------

PAGE = {
    "summary": "Customers saw old prices and old stocks, and the new lamp was not to be found; some"
    " of them waited for many seconds, because the database was busy with one query.",
    "impact": "172 wrong answers, 151 slow answers and 441 queries, in twenty minutes of traffic.",
    "timeline": (
        ("03:00", "deploy"),
        ("03:02:10", "prices change"),
        ("03:06", "launch"),
        ("03:14", "mail"),
    ),
    "causes": {
        name: f"There is no test or alarm yet that would show {name} before a customer does."
        for name in FOUND
    },
    "detection": "Tickets, twelve minutes late; an age histogram would have shown it at 03:03.",
    "actions": [
        ("register of bounds", "catalogue lead", "2026-01-15"),
        ("two processes in CI", "platform lead", "2026-01-20"),
        ("alert on age", "on-call lead", "2026-02-01"),
    ],
}


def another_page():
    return PAGE


def without_actions():
    return {name: text for name, text in PAGE.items() if name != "actions"}


def two_words():
    return {**PAGE, "summary": "Cache broke."}


def other_numbers():
    return {**PAGE, "impact": "About 100 wrong answers, a lot of slow ones, and very many queries."}


def out_of_order():
    return {**PAGE, "timeline": PAGE["timeline"][::-1]}


def two_times():
    return {**PAGE, "timeline": PAGE["timeline"][:2]}


def one_cause():
    return {**PAGE, "causes": {"one_ttl": "Nobody had written down how old a stock may be."}}


def one_cause_for_all():
    return {**PAGE, "causes": dict.fromkeys(FOUND, "We did not look closely enough at it.")}


def owned_by_all():
    return {**PAGE, "actions": [(what, "everybody", when) for what, _, when in PAGE["actions"]]}


def due_soon():
    return {**PAGE, "actions": [(what, who, "soon") for what, who, _ in PAGE["actions"]]}


def one_action_three_times():
    return {**PAGE, "actions": [PAGE["actions"][0]] * 3}


def another_night():
    return {**PAGE, "timeline": [(f"14:{at:02}", "something") for at in range(4)]}


def no_such_time():
    return {**PAGE, "timeline": [*PAGE["timeline"], ("03:61", "all is well")]}


def blames_somebody():
    return {**PAGE, "detection": PAGE["detection"] + " It was human error, of course."}


WRONG = {
    "17_incident.diagnose": [
        Wrong("the cache was down", blames_the_cache, "cache_down was not it"),
        Wrong("a hot key", blames_a_hot_key, "hot_key was not it"),
        Wrong(
            "a customer who waited",
            cites_a_customer_who_waited,
            "does not show it; look for a lock",
        ),
        Wrong("a first search", cites_the_first_search, "look for the same words"),
        Wrong("an entry that is not there", cites_what_is_not_there, "is no entry of the journal"),
        Wrong("five of six", finds_five, "5 of six faults are shown"),
        Wrong("no entry", cites_nothing, "no entry of the journal is cited"),
        Wrong("an invented suspect", invents_a_suspect, "is none of the suspects"),
        Wrong("only names", a_list_of_names, "expected was a dict"),
    ],
    "17_incident.lifetime": [
        Wrong("jitter breaks the bound", jitter_on_top, "is the longest allowed"),
        Wrong("no jitter", no_jitter, "expires together"),
        Wrong("ten seconds for all", ten_seconds_for_all, "each copy that ends early is a query"),
        Wrong(
            "absence too long", absence_as_long_as_the_rest, "lifetime('product', False): of 400"
        ),
        Wrong("absence not stored", absence_not_at_all, "is an error"),
        Wrong("absence for ever", absence_for_ever, "stays for ever"),
        Wrong("too little jitter", half_a_second_of_jitter, "a tenth of"),
        Wrong("fractions", fractions, "an int, were expected"),
        Wrong("as it was", parts.one_ttl_absent_for_ever, "exactly 300 s"),
    ],
    "17_incident.key": [
        Wrong("hash()", parts.hash_in_key, "in another: neither finds"),
        Wrong("hash() without its sign", hash_without_sign, "in one process and"),
        Wrong("hash() of a tuple", hash_of_a_tuple, "what the other has stored"),
        Wrong("only the first letters", first_letters, "for 'xxx"),
        Wrong("spaces taken out", without_spaces, "both for 'red lamp' and for 'redlamp'"),
        Wrong("words sorted", sorted_words, "both for 'red lamp' and for 'lamp red'"),
        Wrong("16 bits", crc_of_16_bits, "different keys"),
        Wrong("32 bits", crc_of_32_bits, "for 'plumless' and for 'buckeroo'"),
        Wrong("ends cut", spaces_at_the_ends_cut, "both for 'lamp' and for ' lamp'"),
        Wrong("underscores", with_underscores, "both for 'red lamp' and for 'red_lamp'"),
        Wrong("only ASCII", only_ascii, "both for 'Stühle' and for 'Sthle'"),
        Wrong("drawn anew", drawn_anew, "no copy would ever be found again"),
        Wrong("no namespace", no_namespace, 'begins with "search:"'),
    ],
    "17_incident.lock": [
        Wrong("as it was", parts.lock_without_token, "The lock lasts 2 s"),
        Wrong("no second look", token_without_a_second_look, "look once more"),
        Wrong("a token, and five seconds", token_and_five_seconds, "The lock lasts 5 s"),
        Wrong("no fence", token_and_no_fence, "stored its older copy"),
        Wrong("frees anybody's", frees_whoever_has_it, "and rebuild freed it."),
        Wrong("one token", the_same_token_always, "used the same token"),
        Wrong("no TTL", lock_for_ever, "The lock has no TTL"),
        Wrong("looks, then deletes", looks_then_deletes, "delete in one step"),
        Wrong("kept after an error", not_freed_after_an_error, "the query had failed"),
        Wrong("asks all the same", asks_without_the_lock, "Somebody else had the lock"),
        Wrong("stores if nothing is there", stores_if_nothing_is_there, "had not stored yet"),
        Wrong("looks, then stores", looks_at_the_token_then_stores, "store in one step"),
        Wrong("is there a lock?", is_there_a_lock, "In 460 of all 498 orders"),
        Wrong("looks before the lock", looks_before_the_lock, "In 8 of all 34 orders"),
        Wrong("empty is nothing", empty_is_nothing, "an empty list is a value"),
        Wrong("a TTL in a second step", expire_in_a_second_step, "there without a TTL"),
    ],
    "17_incident.prices": [
        Wrong("delete first", delete_first, "between the delete and the commit"),
        Wrong("inside the transaction", deletes_inside_the_transaction, "the copy says"),
        Wrong("before and after", before_and_after, "between the delete and the commit"),
        Wrong("no commit", forgets_the_commit, "in the database there are"),
        Wrong("one transaction each", one_transaction_each, "2 commits"),
        Wrong("no delete", forgets_the_copies, "is still there"),
        Wrong("one delete", only_the_first_copy, "The copy of product [3]"),
        Wrong("deletes all", deletes_every_product, "was not changed"),
        Wrong("hides the error", hides_the_error, "has to see"),
        Wrong("stores what it knows", stores_what_it_knows, "a reader would have stored"),
    ],
    "17_incident.pool": [
        Wrong("a bigger pool", a_bigger_pool, "opened 140 connections"),
        Wrong("as it was", the_default, "Too many connections"),
        Wrong("waits 20 s", waits_twenty_seconds, "waited 20 s for a connection"),
        Wrong("waits for ever", waits_for_ever, "waited for it"),
        Wrong("hardly waits", does_not_wait, "of them got"),
        Wrong("a client", a_client, "expected was a pool"),
        Wrong("without the wire", without_the_wire, "pass it on as keywords"),
    ],
    "17_incident.all": [
        Wrong("four of five", four_of_five, "connect is not there"),
        Wrong("the old lifetimes", the_old_lifetimes, "wrong answers, the first at"),
        Wrong("the old lock", the_old_lock, "slow answers; at most 45"),
        Wrong("short lives", short_lives, "queries; at most 480"),
        Wrong("a key that fails", a_key_that_fails, "got an error"),
        Wrong("called already", called_already, "expected was your function"),
        Wrong("a part too many", a_part_too_many, "has no part 'retry'"),
    ],
    "17_incident.postmortem": [
        Wrong("no actions", without_actions, "Actions is empty"),
        Wrong("two words", two_words, "has 2 words"),
        Wrong("other numbers", other_numbers, "does not name the number of wrong answers"),
        Wrong("out of order", out_of_order, "not in order"),
        Wrong("two times", two_times, "has 2 entries"),
        Wrong("one cause", one_cause, "0 words about absent_for_ever"),
        Wrong("the same cause", one_cause_for_all, "says the same of two faults"),
        Wrong("owned by all", owned_by_all, "and that is nobody"),
        Wrong("due soon", due_soon, "write 2026-01-15"),
        Wrong("one action three times", one_action_three_times, "The same action"),
        Wrong("another night", another_night, "from 14:00 to 14:03"),
        Wrong("no such time", no_such_time, "'03:61' is no time of day"),
        Wrong("blames somebody", blames_somebody, "'human error'"),
    ],
}

RIGHT = {
    "17_incident.diagnose": [one_number_each, by_what_was_stored],
    "17_incident.lifetime": [parts.lifetime, by_hand, a_tenth_off],
    "17_incident.key": [by_sha, as_json],
    "17_incident.lock": [as_the_pattern, by_redis_pys_lock, by_watching],
    "17_incident.prices": [in_one_statement_block, by_executemany],
    "17_incident.pool": [of_a_hundred, of_ten],
    "17_incident.all": [written_another_way],
    "17_incident.postmortem": [another_page],
}
