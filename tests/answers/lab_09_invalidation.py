"""Answers to lab 09, wrong and right, as learners write them."""

from __future__ import annotations

import contextlib
import json
import weakref
from itertools import count

import redis
import sqlalchemy as sa

from answers import Wrong

LOG, GROUP = "users:log", "invalidation"

# explicit ------------------------------------------------------------------------------------


def deletes_before_the_update(cache, db, user_id, name):
    try:
        cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")
    except redis.RedisError:
        db.update_user(user_id, name=name)
        return False
    db.update_user(user_id, name=name)
    return True


def _tells(cache, user_id, *kinds):
    try:
        cache.delete(*(f"{kind}:v1:{user_id}" for kind in kinds or ("user", "user:public")))
    except redis.RedisError:
        return False
    return True


def forgets_the_public_page(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    return _tells(cache, user_id, "user")


def by_a_pattern(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    try:
        for kind in ("user:v1", "user:public:v1"):
            for key in cache.keys(f"{kind}:{user_id}*"):
                cache.delete(key)
    except redis.RedisError:
        return False
    return True


def empties_the_cache(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    cache.flushdb()
    return True


def needs_the_cache(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")
    return True


def always_true(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    _tells(cache, user_id)
    return True


def says_nothing(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    _tells(cache, user_id)


def swallows_everything(cache, db, user_id, name):
    try:
        db.update_user(user_id, name=name)
        cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")
    except Exception:
        return False
    return True


def stores_the_new_row(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    try:
        cache.set(f"user:v1:{user_id}", json.dumps(db.user(user_id)), ex=300)
        cache.delete(f"user:public:v1:{user_id}")
    except redis.RedisError:
        return False
    return True


def only_deletes(cache, db, user_id, name):
    return _tells(cache, user_id)


def only_asks_the_cache_first(cache, db, user_id, name):
    try:
        cache.ping()
    except redis.RedisError:
        return False
    db.update_user(user_id, name=name)
    return _tells(cache, user_id)


def unlinks_one_by_one(cache, db, user_id, name):
    with db.session() as session:
        session.execute(
            sa.text("UPDATE users SET name = :name, version = version + 1 WHERE id = :id"),
            {"name": name, "id": user_id},
        )
        session.commit()
    told = True
    for kind in ("user", "user:public"):
        try:
            cache.unlink(f"{kind}:v1:{user_id}")
        except redis.RedisError:
            told = False
    return told


def deletes_twice(cache, db, user_id, name):
    with contextlib.suppress(redis.RedisError):
        cache.delete(f"user:v1:{user_id}")
    db.update_user(user_id, name=name)
    return _tells(cache, user_id)


def in_a_pipeline(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    try:
        with cache.pipeline() as pipe:
            pipe.delete(f"user:v1:{user_id}").delete(f"user:public:v1:{user_id}").execute()
    except redis.RedisError:
        return False
    return True


def only_what_refuses(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    try:
        cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}")
        return True
    except redis.ConnectionError:
        return False


def counts_what_it_deleted(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    try:
        return cache.delete(f"user:v1:{user_id}", f"user:public:v1:{user_id}") == 2
    except redis.RedisError:
        return False


def tells_of_the_last_only(cache, db, user_id, name):
    db.update_user(user_id, name=name)
    told = False
    for key in (f"user:v1:{user_id}", f"user:public:v1:{user_id}"):
        try:
            cache.delete(key)
            told = True
        except redis.RedisError:
            told = False
    return told


# keys ----------------------------------------------------------------------------------------

THREADS = "SELECT article_id FROM comments WHERE user_id = :user"
FEEDS = f"SELECT author_id FROM articles WHERE id IN ({THREADS})"
BYLINES = "SELECT id FROM articles WHERE author_id = :user"


def _found(db, sql, user_id):
    with db.engine.connect() as connection:
        return set(connection.execute(sa.text(sql), {"user": user_id}).scalars())


def _keys(db, user_id, **kinds):
    keys = [f"user:v1:{user_id}", f"user:public:v1:{user_id}"]
    for kind, sql in kinds.items():
        keys += [f"{kind}:v1:{number}" for number in _found(db, sql, user_id)]
    return keys


def as_in_the_article(db, user_id):
    return [f"user:v1:{user_id}", f"permissions:v1:{user_id}", f"user:public:v1:{user_id}"]


def two_keys(db, user_id):
    return _keys(db, user_id)


def no_feeds(db, user_id):
    return _keys(db, user_id, comments=THREADS, article=BYLINES)


def only_their_own_feed(db, user_id):
    return [*no_feeds(db, user_id), f"feed:v1:{user_id}"]


def no_bylines(db, user_id):
    return _keys(db, user_id, comments=THREADS, feed=FEEDS)


def every_thread(db, user_id):
    return _keys(db, user_id, comments="SELECT id FROM articles", feed=FEEDS, article=BYLINES)


def feeds_by_article(db, user_id):
    return _keys(db, user_id, comments=THREADS, feed=THREADS, article=BYLINES)


known = weakref.WeakKeyDictionary()


def remembers(db, user_id):
    kept = known.setdefault(db.engine, {})  # of this world
    if user_id not in kept:
        kept[user_id] = all_of_them(db, user_id)
    return kept[user_id]


def deletes_as_it_looks(db, user_id):
    keys = all_of_them(db, user_id)
    with db.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM comments WHERE user_id = -1"))
    return keys


def a_hundred_at_most(db, user_id):
    keys = [f"user:v1:{user_id}", f"user:public:v1:{user_id}"]
    for kind, sql in (("comments", THREADS), ("feed", FEEDS), ("article", BYLINES)):
        with db.engine.connect() as connection:
            found = connection.execute(sa.text(sql), {"user": user_id})
            keys += {f"{kind}:v1:{number}" for (number,) in found.fetchmany(100)}
    return keys


def one_text(db, user_id):
    return ", ".join(all_of_them(db, user_id))


def numbers(db, user_id):
    return [*_found(db, THREADS, user_id), user_id]


def all_of_them(db, user_id):
    return _keys(db, user_id, comments=THREADS, feed=FEEDS, article=BYLINES)


def as_a_generator(db, user_id):
    yield from (f"user:v1:{user_id}", f"user:public:v1:{user_id}")
    with db.engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "SELECT c.article_id, a.author_id, c.user_id FROM articles a"
                " LEFT JOIN comments c ON c.article_id = a.id"
            )
        ).all()
        for row in rows:
            if row.user_id == user_id:
                yield f"comments:v1:{row.article_id}"
                yield f"feed:v1:{row.author_id}"
        for number in connection.execute(sa.text(BYLINES), {"user": user_id}).scalars():
            yield f"article:v1:{number}"


def by_asking_the_shop(db, user_id):
    keys = {f"user:v1:{user_id}", f"user:public:v1:{user_id}"}
    name = db.user(user_id)["name"]
    for number in count(1):
        article = db.article(number)
        if article is None:
            return keys
        if article["author_id"] == user_id:
            keys.add(f"article:v1:{number}")
        if any(comment["author"] == name for comment in db.comments(number)):
            keys |= {f"comments:v1:{number}", f"feed:v1:{article['author_id']}"}


# tagged --------------------------------------------------------------------------------------


def _tagged(cache, key, names, load, *, at="before", void=lambda mark, at: mark > at, **options):
    stored, now, *marks = cache.mget(key, "tags:clock", *(f"tag:{name}" for name in names))
    if stored is not None:
        copy = json.loads(stored)
        if not any(void(int(mark or 0), copy["at"]) for mark in marks):
            return copy["value"]
    value = load()
    if at == "after":
        now = cache.get("tags:clock")
    cache.set(key, json.dumps({"at": int(now or 0), "value": value}), **{"ex": 300, **options})
    return value


def cache_aside(cache, key, names, load):
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = load()
    cache.set(key, json.dumps(value), ex=300)
    return value


def no_cache(cache, key, names, load):
    return load()


def the_clock_after_the_query(cache, key, names, load):
    return _tagged(cache, key, names, load, at="after")


def void_at_the_same_time(cache, key, names, load):
    return _tagged(cache, key, names, load, void=lambda mark, at: mark >= at and mark > 0)


def only_the_first_tag(cache, key, names, load):
    return _tagged(cache, key, names[:1], load)


def compares_texts(cache, key, names, load):
    return _tagged(cache, key, names, load, void=lambda mark, at: str(mark) > str(at))


def without_ttl(cache, key, names, load):
    return _tagged(cache, key, names, load, ex=None)


def an_hour(cache, key, names, load):
    return _tagged(cache, key, names, load, ex=3_600)


def a_hit_makes_it_younger(cache, key, names, load):
    value = _tagged(cache, key, names, load)
    cache.expire(key, 300)
    return value


def any_change_voids(cache, key, names, load):
    stored, now = cache.mget(key, "tags:clock")
    if stored is not None:
        copy = json.loads(stored)
        if copy["at"] == int(now or 0):
            return copy["value"]
    value = load()
    cache.set(key, json.dumps({"at": int(now or 0), "value": value}), ex=300)
    return value


def empty_is_a_miss(cache, key, names, load):
    stored, now, *marks = cache.mget(key, "tags:clock", *(f"tag:{name}" for name in names))
    copy = json.loads(stored) if stored else {}
    if copy.get("value") and all(int(mark or 0) <= copy["at"] for mark in marks):
        return copy["value"]
    value = load()
    cache.set(key, json.dumps({"at": int(now or 0), "value": value}), ex=300)
    return value


def marks_as_they_are(cache, key, names, load):
    stored, now, *marks = cache.mget(key, "tags:clock", *(f"tag:{name}" for name in names))
    if stored is not None:
        copy = json.loads(stored)
        if all(int(mark) <= copy["at"] for mark in marks):
            return copy["value"]
    value = load()
    cache.set(key, json.dumps({"at": int(now or 0), "value": value}), ex=300)
    return value


def the_marks_after_the_query(cache, key, names, load):
    tags = [f"tag:{name}" for name in names]
    stored = cache.get(key)
    if stored is not None:
        copy = json.loads(stored)
        if not tags or cache.mget(tags) == copy["marks"]:
            return copy["value"]
    value = load()
    marks = cache.mget(tags) if tags else []
    cache.set(key, json.dumps({"marks": marks, "value": value}), ex=300)
    return value


def by_equal_marks(cache, key, names, load):
    stored, *marks = cache.mget([key, *(f"tag:{name}" for name in names)])
    if stored is not None:
        copy = json.loads(stored)
        if copy["marks"] == marks:
            return copy["value"]
    value = load()
    cache.set(key, json.dumps({"marks": marks, "value": value}), ex=300)
    return value


def one_mget_of_the_marks(cache, key, names, load):
    stored, now = cache.mget(key, "tags:clock")
    if stored:
        copy = json.loads(stored)
        marks = cache.mget([f"tag:{name}" for name in names])  # redis-py answers [] for none
        if all(int(mark or 0) <= copy["at"] for mark in marks):
            return copy["value"]
    value = load()
    cache.set(key, json.dumps({"at": int(now or 0), "value": value}), px=300_000)
    return value


def in_single_steps(cache, key, names, load):
    stored = cache.get(key)
    if stored is not None:
        copy = json.loads(stored)
        if max([int(cache.get(f"tag:{name}") or 0) for name in names], default=0) <= copy["at"]:
            return copy["value"]
    now = int(cache.get("tags:clock") or 0)
    value = load()
    cache.set(key, json.dumps({"at": now, "value": value}), px=300_000)
    return value


def as_a_hash(cache, key, names, load):
    copy = cache.hgetall(key)
    now, *marks = cache.mget("tags:clock", *(f"tag:{name}" for name in names))
    if copy and all(int(mark or 0) <= int(copy["at"]) for mark in marks):
        return json.loads(copy["value"])
    value = load()
    with cache.pipeline() as pipe:
        pipe.hset(key, mapping={"at": int(now or 0), "value": json.dumps(value)})
        pipe.expire(key, 300)
        pipe.execute()
    return value


# consume -------------------------------------------------------------------------------------


def entries(reply):
    found = dict(reply or {}).get(LOG, [])
    return found[0] if found and isinstance(found[0], list) else found


def _new(cache, name, count=100):
    return entries(cache.xreadgroup(GROUP, name, {LOG: ">"}, count=count))


def _left(cache, name, seconds=60.0):
    return cache.xautoclaim(LOG, GROUP, name, round(seconds * 1000), count=100)[1]


def _handle(cache, found):
    for entry, event in found:
        cache.delete(f"user:v1:{event['user']}")
        cache.xack(LOG, GROUP, entry)
    return len(found)


def only_new_ones(cache, name):
    return _handle(cache, _new(cache, name))


def acknowledges_first(cache, name):
    found = [*_left(cache, name), *_new(cache, name)]
    for entry, event in found:
        cache.xack(LOG, GROUP, entry)
        cache.delete(f"user:v1:{event['user']}")
    return len(found)


def without_acknowledging(cache, name):
    found = _new(cache, name)
    for _, event in found:
        cache.delete(f"user:v1:{event['user']}")
    return len(found)


def not_acknowledged_by_the_server(cache, name):
    found = entries(cache.xreadgroup(GROUP, name, {LOG: ">"}, noack=True))
    return _handle(cache, [*_left(cache, name), *found])


def claims_at_once(cache, name):
    return _handle(cache, [*_left(cache, name, 0), *_new(cache, name)])


def claims_after_10_s(cache, name):
    return _handle(cache, [*_left(cache, name, 10), *_new(cache, name)])


def claims_after_an_hour(cache, name):
    return _handle(cache, [*_left(cache, name, 3_600), *_new(cache, name)])


def reads_past_the_group(cache, name):
    found = cache.xrange(LOG)
    for _, event in found:
        cache.delete(f"user:v1:{event['user']}")
    for entry, _ in _new(cache, name):
        cache.xack(LOG, GROUP, entry)
    return len(found)


def acknowledges_in_any_case(cache, name):
    found = [*_left(cache, name), *_new(cache, name)]
    for entry, event in found:
        with contextlib.suppress(redis.RedisError):
            cache.delete(f"user:v1:{event['user']}")
        cache.xack(LOG, GROUP, entry)
    return len(found)


def counts_only_what_is_new(cache, name):
    _handle(cache, _left(cache, name))
    return _handle(cache, _new(cache, name))


def counts_each_user_once(cache, name):
    found = [*_left(cache, name), *_new(cache, name)]
    _handle(cache, found)
    return len({event["user"] for _, event in found})


def acknowledges_the_last(cache, name):
    found = [*_left(cache, name), *_new(cache, name)]
    for _, event in found:
        cache.delete(f"user:v1:{event['user']}")
    if found:
        cache.xack(LOG, GROUP, found[-1][0])
    return len(found)


def one_at_a_time_and_no_count(cache, name):
    _handle(cache, [*_left(cache, name), *_new(cache, name)])


def always_the_same_user(cache, name):
    found = [*_left(cache, name), *_new(cache, name)]
    for entry, _ in found:
        cache.delete("user:v1:1")
        cache.xack(LOG, GROUP, entry)
    return len(found)


def acknowledges_in_one(cache, name):
    found = [*_left(cache, name), *_new(cache, name)]
    if found:
        cache.delete(*(f"user:v1:{event['user']}" for _, event in found))
        cache.xack(LOG, GROUP, *(entry for entry, _ in found))
    return len(found)


def with_xpending(cache, name):
    waiting = cache.xpending_range(LOG, GROUP, "-", "+", 100, idle=60_000)
    ids = [one["message_id"] for one in waiting]
    left = cache.xclaim(LOG, GROUP, name, 60_000, ids) if ids else []
    return _handle(cache, left) + _handle(cache, _new(cache, name))


def its_own_first(cache, name):
    own = entries(cache.xreadgroup(GROUP, name, {LOG: "0"}))
    return sum(
        _handle(cache, found) for found in (own, _left(cache, name), _new(cache, name)) if found
    )


def twenty_a_pass(cache, name):
    left = cache.xautoclaim(LOG, GROUP, name, 60_000, count=20)[1]
    return _handle(cache, left) + _handle(cache, _new(cache, name, 20))


# releases ------------------------------------------------------------------------------------

V1, BOTH, V2 = ("v1", {"v1"}), {"v1", "v2"}, ("v2", {"v2"})


def at_once():
    return [V1, V2]


def the_new_one_deletes_both():
    return [V1, ("v2", BOTH), V2]


def no_time_to_narrow():
    return [V1, ("v1", BOTH), V2]


def stays_wide():
    return [V1, ("v1", BOTH), ("v2", BOTH)]


def begins_wide():
    return [("v1", BOTH), ("v2", BOTH), V2]


def deletes_the_other():
    return [V1, ("v1", {"v2"}), ("v2", BOTH), V2]


def a_third_version():
    return [V1, ("v1", {"v1", "v3"}), V2]


def not_a_plan():
    return "v1, v2"


def as_tuples():
    return (("v1", ["v1"]), ("v1", ("v2", "v1")), ("v2", ["v1", "v2"]), ("v2", ["v2"]))


def with_a_pause():
    return [V1, V1, ("v1", BOTH), ("v1", BOTH), ("v2", BOTH), V2]


WRONG = {
    "09_invalidation.explicit": [
        Wrong("delete first", deletes_before_the_update, "has to come after the commit"),
        Wrong("one key", forgets_the_public_page, "user:public:v1:1 still holds"),
        Wrong("by a pattern", by_a_pattern, "also deleted user:v1:10, user:v1:11"),
        Wrong("flush", empties_the_cache, "also deleted"),
        Wrong("needs the cache", needs_the_cache, "rename raised ConnectionError"),
        Wrong("always True", always_true, "gave True; expected was False"),
        Wrong("says nothing", says_nothing, "rename gave None"),
        Wrong("swallows all", swallows_everything, "The database failed, and rename gave False"),
        Wrong("stores instead", stores_the_new_row, "user:v1:1 still holds"),
        Wrong("no update", only_deletes, "has the name 'Alice'; expected was 'Alicia'"),
        Wrong("only a refusal", only_what_refuses, "With a hanging cache rename raised TimeoutErr"),
        Wrong("counts deletes", counts_what_it_deleted, "With no copy in the cache rename gave"),
        Wrong(
            "tells of the last", tells_of_the_last_only, "user:v1:1 stayed, and rename gave True"
        ),
        Wrong("asks the cache first", only_asks_the_cache_first, "With a dead cache the database"),
    ],
    "09_invalidation.keys": [
        Wrong("three by hand", as_in_the_article, "is renamed, the 3 keys of your list"),
        Wrong("two keys", two_keys, "is renamed, the 2 keys of your list"),
        Wrong("no feeds", no_feeds, "feed:v1:"),
        Wrong("own feed", only_their_own_feed, "feed:v1:"),
        Wrong("no bylines", no_bylines, "article:v1:"),
        Wrong("every thread", every_thread, "which do not hold this name"),
        Wrong("feeds by article", feeds_by_article, "feed:v1:"),
        Wrong("a hundred", a_hundred_at_most, "after 120 comments more, is renamed"),
        Wrong("remembers", remembers, "after some comments changed"),
        Wrong("writes", deletes_as_it_looks, "changed the database"),
        Wrong("one text", one_text, "(a str); expected was a list"),
        Wrong("numbers", numbers, "which is not a text"),
    ],
    "09_invalidation.tagged": [
        Wrong("cache-aside", cache_aside, "served although it is void"),
        Wrong("no cache", no_cache, "called load 3 times"),
        Wrong("clock after", the_clock_after_the_query, "still gets the old name"),
        Wrong("same time", void_at_the_same_time, "loaded 3 times in all; expected was 2"),
        Wrong("first tag", only_the_first_tag, "['user:1', 'article:7'] was served"),
        Wrong("texts", compares_texts, "at time 15, the copy tagged"),
        Wrong("no TTL", without_ttl, "has no TTL"),
        Wrong("younger by a hit", a_hit_makes_it_younger, "a hit does not make it younger"),
        Wrong("an hour", an_hour, "lives 3600 s; expected was 300 s"),
        Wrong("any change", any_change_voids, "in all; expected was 1"),
        Wrong("empty", empty_is_a_miss, "Three reads of 0 called load 3 times"),
        Wrong("None is no number", marks_as_they_are, "TypeError"),
        Wrong("marks after", the_marks_after_the_query, "still gets the old name"),
    ],
    "09_invalidation.consume": [
        Wrong("only new", only_new_ones, "handled 0 of them (0 after an hour"),
        Wrong("ack first", acknowledges_first, "was never deleted"),
        Wrong("no ack", without_acknowledging, "4 of 4 events are not acknowledged"),
        Wrong("NOACK", not_acknowledged_by_the_server, "was never deleted"),
        Wrong("claims at once", claims_at_once, "1 s later consume handled 2"),
        Wrong("10 s", claims_after_10_s, "30 s later consume handled 2"),
        Wrong("an hour", claims_after_an_hour, "handled 0 of them (2 after an hour"),
        Wrong("acknowledges anyway", acknowledges_in_any_case, "nobody comes back for user:v1:1"),
        Wrong("counts what is new", counts_only_what_is_new, "what was left for it counts as well"),
        Wrong(
            "counts users", counts_each_user_once, "Four events were handled, and consume gave 3"
        ),
        Wrong("acks the last", acknowledges_the_last, "3 of 4 events are not acknowledged"),
        Wrong("no group", reads_past_the_group, "a second consumer handled 4"),
        Wrong("no count", one_at_a_time_and_no_count, "consume gave None"),
        Wrong("one user", always_the_same_user, "user:v1:2 is still there"),
    ],
    "09_invalidation.releases": [
        Wrong("at once", at_once, "2 of 5 renames are missed"),
        Wrong("new deletes both", the_new_one_deletes_both, "release 2 reads v2 and still shows"),
        Wrong("narrows too soon", no_time_to_narrow, "of release 3 renames Alice and deletes v2"),
        Wrong("stays wide", stays_wide, "The last release reads v2 and deletes v1 and v2"),
        Wrong("begins wide", begins_wide, "The first release reads v1 and deletes v1 and v2"),
        Wrong("deletes the other", deletes_the_other, "release 2 renames Alice and deletes v2"),
        Wrong("v3", a_third_version, "Release 2 is"),
        Wrong("no plan", not_a_plan, "A list of releases"),
    ],
}

RIGHT = {
    "09_invalidation.explicit": [unlinks_one_by_one, deletes_twice, in_a_pipeline],
    "09_invalidation.keys": [all_of_them, as_a_generator, by_asking_the_shop],
    "09_invalidation.tagged": [
        by_equal_marks,
        one_mget_of_the_marks,
        in_single_steps,
        as_a_hash,
    ],
    "09_invalidation.consume": [acknowledges_in_one, with_xpending, its_own_first, twenty_a_pass],
    "09_invalidation.releases": [as_tuples, with_a_pause],
}
