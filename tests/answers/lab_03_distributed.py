"""Answers to lab 03, wrong and right, as learners write them."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import secrets
import time
import uuid
from urllib.parse import quote

from answers import Wrong

# session_store -------------------------------------------------------------------------------


def _sessions(*, draw=lambda: secrets.token_urlsafe(24), life=1800, prolongs=True, ends_old=True):
    """A session store with parts to change."""

    def session_store(cache):
        def log_in(user_id, old_id=None):
            if old_id is not None and ends_old:
                cache.delete(f"session:v1:{old_id}")
            session_id = draw()
            cache.set(f"session:v1:{session_id}", json.dumps(user_id), ex=life)
            return session_id

        def who_is(session_id):
            key = f"session:v1:{session_id}"
            stored = cache.getex(key, ex=life) if prolongs else cache.get(key)
            return None if stored is None else json.loads(stored)

        def log_out(session_id):
            cache.delete(f"session:v1:{session_id}")

        return log_in, who_is, log_out

    return session_store


sessions_for_an_hour = _sessions(life=3600)
sessions_without_ttl = _sessions(life=None, prolongs=False)
sessions_not_sliding = _sessions(prolongs=False)
sessions_by_random = _sessions(draw=lambda: f"{random.getrandbits(128):032x}")
_numbers = itertools.count(1)
sessions_one_by_one = _sessions(draw=lambda: f"session-number-{next(_numbers):06}")
sessions_short_ids = _sessions(draw=lambda: secrets.token_hex(4))
old_session_stays = _sessions(ends_old=False)
sessions_by_uuid = _sessions(draw=lambda: str(uuid.uuid4()))


def sessions_in_the_pod(cache):
    own = {}

    def log_in(user_id, old_id=None):
        session_id = secrets.token_urlsafe(24)
        own.pop(old_id, None)
        own[session_id] = user_id
        return session_id

    return log_in, own.get, lambda session_id: own.pop(session_id, None)


def remembers_what_it_read(cache):
    log_in, ask, log_out = _sessions()(cache)
    known = {}

    def who_is(session_id):
        if session_id not in known and (user_id := ask(session_id)) is not None:
            known[session_id] = user_id
        return known.get(session_id)

    def forget(session_id):
        known.pop(session_id, None)
        log_out(session_id)

    return log_in, who_is, forget


def session_of_the_user(cache):
    _, who_is, log_out = _sessions()(cache)

    def log_in_by_name(user_id, old_id=None):
        session_id = hashlib.sha256(str(user_id).encode()).hexdigest()
        cache.set(f"session:v1:{session_id}", user_id, ex=1800)
        return session_id

    return log_in_by_name, who_is, log_out


def prolongs_with_a_set(cache):
    log_in, _, log_out = _sessions()(cache)

    def who_is(session_id):
        stored = cache.get(f"session:v1:{session_id}")
        if stored is None:
            return None
        cache.set(f"session:v1:{session_id}", stored, ex=1800)
        return json.loads(stored)

    return log_in, who_is, log_out


def ttl_of_a_session_in_a_second_command(cache):
    _, who_is, log_out = _sessions()(cache)

    def log_in(user_id, old_id=None):
        if old_id:
            log_out(old_id)
        session_id = secrets.token_hex(16)
        cache.set(f"session:v1:{session_id}", user_id)
        cache.expire(f"session:v1:{session_id}", 1800)
        return session_id

    return log_in, who_is, log_out


def keeps_the_browsers_id(cache):
    log_in, who_is, log_out = _sessions()(cache)

    def log_in_under_the_old_id(user_id, old_id=None):
        if old_id is None:
            return log_in(user_id)
        cache.set(f"session:v1:{old_id}", user_id, ex=1800)
        return old_id

    return log_in_under_the_old_id, who_is, log_out


def user_as_text(cache):
    log_in, _, log_out = _sessions()(cache)
    return log_in, lambda session_id: cache.getex(f"session:v1:{session_id}", ex=1800), log_out


def logs_out_of_this_pod_only(cache):
    log_in, ask, _ = _sessions()(cache)
    ended = set()

    def who_is(session_id):
        return None if session_id in ended else ask(session_id)

    return log_in, who_is, ended.add


def under_another_name(cache):
    log_in, who_is, log_out = _sessions()(cache)

    def log_in_elsewhere(user_id, old_id=None):
        session_id = log_in(user_id, old_id)
        cache.rename(f"session:v1:{session_id}", f"session:{session_id}")
        return session_id

    return log_in_elsewhere, who_is, log_out


def forgets_to_return(cache):
    _sessions()(cache)


def session_as_a_hash(cache):
    def log_in(user_id, old_id=None):
        session_id = uuid.uuid4().hex
        with cache.pipeline() as pipe:
            if old_id:
                pipe.delete(f"session:v1:{old_id}")
            pipe.hset(f"session:v1:{session_id}", mapping={"user": user_id})
            pipe.expire(f"session:v1:{session_id}", 1800)
            pipe.execute()
        return session_id

    def who_is(session_id):
        key = f"session:v1:{session_id}"
        user_id = cache.hget(key, "user")
        cache.expire(key, 1800)
        return user_id and int(user_id)

    return [log_in, who_is, lambda session_id: cache.unlink(f"session:v1:{session_id}")]


class Sessions:
    """The functions may be methods."""

    def __init__(self, cache):
        self.cache = cache

    def log_in(self, user_id, old_id=None):
        session_id = secrets.token_urlsafe(16)
        if old_id:
            self.log_out(old_id)
        self.cache.set(f"session:v1:{session_id}", user_id, px=1_800_000)
        return session_id

    def who_is(self, session_id):
        stored = self.cache.get(f"session:v1:{session_id}")
        self.cache.set(f"session:v1:{session_id}", stored or "", ex=1800, xx=True)
        return int(stored) if stored else None

    def log_out(self, session_id):
        self.cache.delete(f"session:v1:{session_id}")


def store_by_methods(cache):
    sessions = Sessions(cache)
    return sessions.log_in, sessions.who_is, sessions.log_out


# key -----------------------------------------------------------------------------------------


def plain_f_string(entity, version, item):
    return f"{entity}:{version}:{item}"


def by_hash(entity, version, item):
    safe = quote(str(item), safe="")
    return f"{entity}:{version}:{safe if len(safe) <= 100 else 'hash=' + str(hash(item))}"


def colon_to_underscore(entity, version, item):
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", str(item))
    if len(safe) > 100:
        safe = "sha256=" + hashlib.sha256(str(item).encode()).hexdigest()
    return f"{entity}:{version}:{safe}"


def cut_off(entity, version, item):
    return f"{entity}:{version}:{quote(str(item), safe='')[:100]}"


def only_quoted(entity, version, item):
    return f"{entity}:{version}:{quote(str(item), safe='')}"


def only_the_colons(entity, version, item):
    text = str(item).replace("%", "%25").replace(":", "%3A")
    if len(text) > 100:
        text = "sha256=" + hashlib.sha256(text.encode()).hexdigest()
    return f"{entity}:{version}:{text}"


def digest_for_all(entity, version, item):
    return f"{entity}:{version}:{hashlib.sha256(str(item).encode()).hexdigest()}"


def digest_like_any_id(entity, version, item):
    safe = quote(str(item), safe="")
    if len(safe) > 100:
        safe = hashlib.sha256(str(item).encode()).hexdigest()
    return f"{entity}:{version}:{safe}"


def a_new_key_each_time(entity, version, item):
    safe = quote(str(item), safe="")
    return f"{entity}:{version}:{safe if len(safe) <= 100 else 'long=' + uuid.uuid4().hex}"


def lower_case(entity, version, item):
    if isinstance(item, str):
        item = item.lower()
    safe = quote(str(item), safe="")
    if len(safe) > 100:
        safe = "sha256=" + hashlib.sha256(str(item).encode()).hexdigest()
    return f"{entity}:{version}:{safe}"


def as_bytes(entity, version, item):
    return f"{entity}:{version}:{item}".encode()


def marked_digest_for_odd_ids(entity, version, item):
    text = str(item)
    if not re.fullmatch(r"[\w.-]{1,100}", text, re.ASCII):
        text = "#" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{entity}:{version}:{text}"


def hex_of_odd_ids(entity, version, item):
    text = str(item)
    if not text or any(not (c.isascii() and (c.isalnum() or c in "-_.")) for c in text):
        text = "~" + text.encode().hex()
    if len(text) > 120:
        text = "~~" + hashlib.sha512(text.encode()).hexdigest()
    return ":".join((entity, version, text))


def ends_and_length(entity, version, item):
    safe = quote(str(item), safe="")
    if len(safe) > 100:
        safe = f"{safe[:40]}={len(safe)}={safe[-40:]}"
    return f"{entity}:{version}:{safe}"


# rollout -------------------------------------------------------------------------------------


def only_the_newest(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    cache.delete(f"user:{versions[-1]}:{user_id}")


def only_the_oldest(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    cache.delete(f"user:{versions[0]}:{user_id}")


def always_v1_and_v2(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    cache.delete(f"user:v1:{user_id}", f"user:v2:{user_id}")


def deletes_before_the_commit(cache, db, user_id, name, versions):
    cache.delete(*[f"user:{version}:{user_id}" for version in versions])
    db.update_user(user_id, name=name)


def one_of_them_before_the_commit(cache, db, user_id, name, versions):
    first, *rest = [f"user:{version}:{user_id}" for version in versions]
    cache.delete(first)
    db.update_user(user_id, name=name)
    if rest:
        cache.delete(*rest)


def writes_the_new_row_for_all(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    for version in versions:
        cache.set(f"user:{version}:{user_id}", json.dumps({"name": name}), ex=300)


def all_users_of_these_versions(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    for version in versions:
        for other in (user_id, user_id + 1):
            cache.delete(f"user:{version}:{other}")


def searches(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    for key in cache.scan_iter(f"user:*:{user_id}"):
        cache.delete(key)


def renames_nobody(cache, db, user_id, name, versions):
    cache.delete(*[f"user:{version}:{user_id}" for version in versions])


def unlinks_in_a_pipeline(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    with cache.pipeline() as pipe:
        for version in versions:
            pipe.unlink(f"user:{version}:{user_id}")
        pipe.execute()


def deletes_one_by_one(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    for version in reversed(versions):
        cache.delete(f"user:{version}:{user_id}")


def lets_them_expire(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    for version in versions:
        cache.expire(f"user:{version}:{user_id}", 0)


# read_many -----------------------------------------------------------------------------------


def one_by_one(cache, load, ids):
    found = []
    for one in ids:
        stored = cache.get(f"product:v1:{one}")
        if stored is None:
            stored = json.dumps(load([one]).get(one))
            cache.set(f"product:v1:{one}", stored, ex=30 if stored == "null" else 300)
        found.append(json.loads(stored))
    return found


def gets_one_by_one(cache, load, ids):
    found = {one: cache.get(f"product:v1:{one}") for one in ids}
    return _load_and_fill(cache, load, ids, found)


def sets_one_by_one(cache, load, ids):
    found = _mget(cache, ids)
    missing = [one for one, text in found.items() if text is None]
    if missing:
        loaded = load(missing)
        for one in missing:
            value = loaded.get(one)
            found[one] = json.dumps(value)
            cache.set(f"product:v1:{one}", found[one], ex=30 if value is None else 300)
    return [json.loads(found[one]) for one in ids]


def loads_all_if_one_is_missing(cache, load, ids):
    found = _mget(cache, ids)
    if None in found.values():
        found = dict.fromkeys(found)
    return _load_and_fill(cache, load, ids, found)


def loads_always(cache, load, ids):
    loaded = load(list(dict.fromkeys(ids)))
    return _load_and_fill(cache, lambda _: loaded, ids, _mget(cache, ids))


def hits_first(cache, load, ids):
    found = _mget(cache, ids)
    hits = [one for one in ids if found[one] is not None]
    misses = [one for one in ids if found[one] is None]
    return _load_and_fill(cache, load, hits + misses, found)


def leaves_out_the_absent(cache, load, ids):
    return [row for row in _load_and_fill(cache, load, ids, _mget(cache, ids)) if row is not None]


def forgets_the_absent(cache, load, ids):
    return _load_and_fill(cache, load, ids, _mget(cache, ids), absent=None)


def keeps_the_absent_as_long(cache, load, ids):
    return _load_and_fill(cache, load, ids, _mget(cache, ids), absent=300)


def fills_with_mset(cache, load, ids):
    found = _mget(cache, ids)
    missing = [one for one, text in found.items() if text is None]
    if missing:
        loaded = load(missing)
        found |= {one: json.dumps(loaded.get(one)) for one in missing}
        cache.mset({f"product:v1:{one}": found[one] for one in missing})
    return [json.loads(found[one]) for one in ids]


def fills_with_mset_and_expires_later(cache, load, ids):
    found = _mget(cache, ids)
    missing = [one for one, text in found.items() if text is None]
    if missing:
        loaded = load(missing)
        found |= {one: json.dumps(loaded.get(one)) for one in missing}
        cache.mset({f"product:v1:{one}": found[one] for one in missing})
        with cache.pipeline() as pipe:
            for one in missing:
                pipe.expire(f"product:v1:{one}", 300 if loaded.get(one) else 30)
            pipe.execute()
    return [json.loads(found[one]) for one in ids]


def asks_for_nothing(cache, load, ids):
    stored = cache.mget([f"product:v1:{one}" for one in ids])
    return _load_and_fill(cache, load, ids, dict(zip(ids, stored, strict=True)))


def loads_an_empty_list(cache, load, ids):
    found = _mget(cache, ids)
    loaded = load([one for one, text in found.items() if text is None])
    return _load_and_fill(cache, lambda _: loaded, ids, found)


def never_stores(cache, load, ids):
    found = _mget(cache, ids)
    loaded = load([one for one, text in found.items() if text is None])
    return [loaded.get(one) for one in ids]


def loads_twice_what_comes_twice(cache, load, ids):
    if not ids:
        return []
    keys = [f"product:v1:{one}" for one in ids]
    texts = cache.mget(keys)
    missing = [one for one, text in zip(ids, texts, strict=True) if text is None]
    loaded = load(missing) if missing else {}
    found = dict(zip(ids, texts, strict=True))
    return _load_and_fill(cache, lambda _: loaded, ids, found)


def gives_a_dict(cache, load, ids):
    return dict(zip(ids, _load_and_fill(cache, load, ids, _mget(cache, ids)), strict=True))


def pipeline_of_gets(cache, load, ids):
    if not ids:
        return []
    wanted = sorted(set(ids))
    with cache.pipeline(transaction=False) as pipe:
        for one in wanted:
            pipe.get(f"product:v1:{one}")
        found = dict(zip(wanted, pipe.execute(), strict=True))
    return _load_and_fill(cache, load, ids, found, absent=5)


def mset_and_expire_in_one_transaction(cache, load, ids):
    found = _mget(cache, ids)
    missing = {one for one, text in found.items() if text is None}
    if missing:
        loaded = load(missing)
        found |= {one: json.dumps(loaded.get(one)) for one in missing}
        with cache.pipeline(transaction=True) as pipe:
            pipe.mset({f"product:v1:{one}": found[one] for one in missing})
            for one in missing:
                pipe.expire(f"product:v1:{one}", 300 if one in loaded else 30)
            pipe.execute()
    return [json.loads(found[one]) for one in ids]


# What several of them do ---------------------------------------------------------------------


def _mget(cache, ids):
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return {}
    texts = cache.mget([f"product:v1:{one}" for one in wanted])
    return dict(zip(wanted, texts, strict=True))


def _load_and_fill(cache, load, ids, found, absent=30):
    missing = [one for one, text in found.items() if text is None]
    if missing:
        loaded = load(missing)
        with cache.pipeline() as pipe:
            for one in missing:
                value = loaded.get(one)
                found[one] = json.dumps(value)
                if value is not None or absent:
                    pipe.set(f"product:v1:{one}", found[one], ex=absent if value is None else 300)
            pipe.execute()
    return [json.loads(found[one]) for one in ids]


def ids_by_the_clock(cache):
    def draw():
        return hashlib.sha256(str(time.time()).encode()).hexdigest()

    return _sessions(draw=draw)(cache)


def stripped(entity, version, item):
    safe = quote(str(item).strip(), safe="")
    if len(safe) > 100:
        safe = "sha256=" + hashlib.sha256(safe.encode()).hexdigest()
    return f"{entity}:{version}:{safe}"


def dollar_lets_a_newline_through(entity, version, item):
    text = str(item)
    if not re.match(r"^[A-Za-z0-9._-]{1,100}$", text):
        text = "#" + hashlib.sha256(text.encode()).hexdigest()
    return f"{entity}:{version}:{text}"


def length_of_the_id_and_not_of_the_key(entity, version, item):
    text = str(item)
    if len(text) <= 100:
        return f"{entity}:{version}:{quote(text, safe='')}"
    return f"{entity}:{version}:=" + hashlib.sha256(text.encode()).hexdigest()


def two_digits_of_the_digest(entity, version, item):
    safe = quote(str(item), safe="")
    if len(safe) > 100:
        safe = safe[:90] + "=" + hashlib.sha256(str(item).encode()).hexdigest()[:2]
    return f"{entity}:{version}:{safe}"


def changes_the_copies(cache, db, user_id, name, versions):
    db.update_user(user_id, name=name)
    for version in versions:
        key = f"user:{version}:{user_id}"
        stored = cache.get(key)
        if stored is not None:
            cache.set(key, json.dumps({**json.loads(stored), "name": name}), ex=300)


def deletes_before_and_after(cache, db, user_id, name, versions):
    keys = [f"user:{version}:{user_id}" for version in versions]
    cache.delete(*keys)
    db.update_user(user_id, name=name)
    cache.delete(*keys)


WRONG = {
    "03_distributed.session_store": [
        Wrong("in the pod's memory", sessions_in_the_pod, "the cache holds nothing"),
        Wrong("remembers what it read", remembers_what_it_read, "After a logout on pod 9"),
        Wrong(
            "logs out of one pod only",
            logs_out_of_this_pod_only,
            "After log_out the session is still in the cache",
        ),
        Wrong("under another name", under_another_name, "the cache holds session:"),
        Wrong("no TTL", sessions_without_ttl, "has no TTL: nobody is ever"),
        Wrong("another TTL", sessions_for_an_hour, "lives 3,600 s more"),
        Wrong("not sliding", sessions_not_sliding, "After a read the session lives 600 s more"),
        Wrong("prolongs with a SET", prolongs_with_a_set, "brought the session back"),
        Wrong("TTL in a second command", ttl_of_a_session_in_a_second_command, "without a TTL"),
        Wrong("an id made of the user", session_of_the_user, "Two logins of user 1 got the same"),
        Wrong("numbers in a row", sessions_one_by_one, "characters differ"),
        Wrong("ids from random", sessions_by_random, "can be computed"),
        Wrong("ids by the clock", ids_by_the_clock, "Two logins at the same moment"),
        Wrong("short ids", sessions_short_ids, "16 characters or more"),
        Wrong("the id of the browser", keeps_the_browsers_id, "that the browser came with"),
        Wrong("the old session stays", old_session_stays, "that named it as old_id"),
        Wrong("user as text", user_as_text, "gave '1'; expected was 1"),
        Wrong("forgets to return", forgets_to_return, "gave None; expected were three functions"),
    ],
    "03_distributed.key": [
        Wrong("as it comes", plain_f_string, "with 3 colons"),
        Wrong("hash()", by_hash, "depends on hash()"),
        Wrong("colon to underscore", colon_to_underscore, "share the key 'search:v1:7_orders'"),
        Wrong("cut off", cut_off, "... (10,001 characters) share"),
        Wrong("ends and length", ends_and_length, "(10,000 characters) and 'xxxxxx'... (10,000"),
        Wrong("only quoted", only_quoted, "has 10,010 characters"),
        Wrong("only the colons", only_the_colons, "it holds ' '"),
        Wrong("a digest for all", digest_for_all, "expected was 'user:v1:7'"),
        Wrong("a digest like any id", digest_like_any_id, "so mark what is no plain id"),
        Wrong("a new key each time", a_new_key_each_time, "Asked twice"),
        Wrong("lower case", lower_case, "'Lamp' and 'lamp' share"),
        Wrong("bytes", as_bytes, "gave b'user:v1:7'"),
        Wrong("without its blanks", stripped, "'lamp' and ' lamp' share"),
        Wrong("$ and a newline", dollar_lets_a_newline_through, r"it holds '\n'"),
        Wrong("length of the id", length_of_the_id_and_not_of_the_key, "has 370 characters"),
        Wrong("two digits", two_digits_of_the_digest, "300 long ids, alike but for their last"),
    ],
    "03_distributed.rollout": [
        Wrong("only the newest", only_the_newest, "the pods that read v1 are still"),
        Wrong("only the oldest", only_the_oldest, "the pods that read v2 are still"),
        Wrong("always v1 and v2", always_v1_and_v2, "v3 and v4 and v5 are still"),
        Wrong("delete before the commit", deletes_before_the_commit, "stored the old name again"),
        Wrong("one before the commit", one_of_them_before_the_commit, "that reads v1 came along"),
        Wrong("writes for all", writes_the_new_row_for_all, "not the shape it knows"),
        Wrong("the next user too", all_users_of_these_versions, "not made from user 1: user:v1:2"),
        Wrong("before and after", deletes_before_and_after, "In 450 of all 1,722 orders"),
        Wrong("changes the copies", changes_the_copies, "a pod that reads v2 got"),
        Wrong("searches", searches, "walks through every key"),
        Wrong("only the cache", renames_nobody, "After rename the database has 'Alice'"),
    ],
    "03_distributed.read_many": [
        Wrong("one by one", one_by_one, "load was called 3 times"),
        Wrong("GET by GET", gets_one_by_one, "each of them in the cache, took 15 trips"),
        Wrong("SET by SET", sets_one_by_one, "took 16 trips to the cache; expected were 2"),
        Wrong("loads all", loads_all_if_one_is_missing, "[5, 3, 9] for"),
        Wrong("loads always", loads_always, "[3, 12, 7] for"),
        Wrong("hits first", hits_first, "in this order"),
        Wrong("without the absent", leaves_out_the_absent, "expected was a list of 3"),
        Wrong("absence is not kept", forgets_the_absent, "expected was also product:v1:999"),
        Wrong("absence for 300 s", keeps_the_absent_as_long, "expected was 1 to 30 s"),
        Wrong("MSET", fills_with_mset, "has no TTL"),
        Wrong("MSET, then EXPIRE", fills_with_mset_and_expires_later, "took 3 trips"),
        Wrong("MGET of nothing", asks_for_nothing, "An empty list took 1 trip"),
        Wrong("loads nothing", loads_an_empty_list, "once, with []"),
        Wrong("never stores", never_stores, "nothing; expected was also"),
        Wrong("twice what comes twice", loads_twice_what_comes_twice, "[2, 2] for"),
        Wrong("a dict", gives_a_dict, "expected was a list of 3"),
    ],
}

RIGHT = {
    "03_distributed.session_store": [sessions_by_uuid, session_as_a_hash, store_by_methods],
    "03_distributed.key": [marked_digest_for_odd_ids, hex_of_odd_ids],
    "03_distributed.rollout": [unlinks_in_a_pipeline, deletes_one_by_one, lets_them_expire],
    "03_distributed.read_many": [pipeline_of_gets, mset_and_expire_in_one_transaction],
}
