"""Known answers to lab 07: write-back."""

import hashlib
import json
import threading
import uuid

import redis
import sqlalchemy as sa

from answers import Wrong

OPEN, SEALED, NOTES = "views:v1:open", "views:v1:sealed", "views:v1:notes"
ADD = sa.text("UPDATE articles SET views = views + :more WHERE id = :id")
CLAIM = sa.text("INSERT INTO flushed (batch) VALUES (:batch)")
KNOWN = sa.text("SELECT 1 FROM flushed WHERE batch = :batch")


def rows_of(sums):
    return [{"id": int(article), "more": int(views)} for article, views in sums.items()]


def write(db, sums):
    if sums:
        with db.engine.begin() as connection:
            connection.execute(ADD, rows_of(sums))


# flush ---------------------------------------------------------------------------------------


def never_empties(cache, db):
    write(db, cache.hgetall(OPEN))


def deletes_after_reading(cache, db):
    write(db, cache.hgetall(OPEN))
    cache.delete(OPEN)


def deletes_between(cache, db):
    sums = cache.hgetall(OPEN)
    cache.delete(OPEN)
    write(db, sums)


def a_transaction_an_article(cache, db):
    sums = _renamed(cache)
    for article, views in sums.items():
        write(db, {article: views})
    cache.delete(SEALED)


def an_update_a_view(cache, db):
    sums = _renamed(cache)
    with db.engine.begin() as connection:
        for article, views in sums.items():
            for _ in range(int(views)):
                connection.execute(ADD, {"id": int(article), "more": 1})
    cache.delete(SEALED)


def sets_the_views(cache, db):
    sums = _renamed(cache)
    with db.engine.begin() as connection:
        for article, views in sums.items():
            connection.execute(
                sa.text("UPDATE articles SET views = :more WHERE id = :id"),
                {"id": int(article), "more": int(views)},
            )
    cache.delete(SEALED)


def nothing_to_rename(cache, db):
    cache.rename(OPEN, SEALED)
    write(db, cache.hgetall(SEALED))
    cache.delete(SEALED)


def only_empties(cache, db):
    cache.delete(OPEN)


def keeps_the_renamed(cache, db):
    """The next RENAME replaces it, so it does no harm, as long as something is open."""
    write(db, _renamed(cache))


def takes_in_one_multi(cache, db):
    with cache.pipeline() as pipe:
        pipe.hgetall(OPEN)
        pipe.delete(OPEN)
        sums = pipe.execute()[0]
    write(db, sums)


def subtracts_what_it_flushed(cache, db):
    sums = {article: int(views) for article, views in cache.hgetall(OPEN).items() if int(views)}
    write(db, sums)
    for article, views in sums.items():
        cache.hincrby(OPEN, article, -views)


def subtracts_and_adds_zero(cache, db):
    sums = cache.hgetall(OPEN)
    write(db, sums)
    for article, views in sums.items():
        cache.hincrby(OPEN, article, -int(views))


def copies_then_deletes(cache, db):
    if cache.copy(OPEN, SEALED, replace=True):
        cache.delete(OPEN)
        write(db, cache.hgetall(SEALED))
        cache.delete(SEALED)


def reads_the_column_and_sets_it(cache, db):
    """One flush at a time, and all in one transaction: nobody else changes the column."""
    sums = _renamed(cache)
    with db.engine.begin() as connection:
        for article, more in sums.items():
            asked = sa.text("SELECT views FROM articles WHERE id = :id")
            views = connection.execute(asked, {"id": int(article)}).scalar_one() + int(more)
            set_to = sa.text("UPDATE articles SET views = :views WHERE id = :id")
            connection.execute(set_to, {"id": int(article), "views": views})


def takes_in_a_script(cache, db):
    take = "local s = redis.call('HGETALL', KEYS[1]) redis.call('DEL', KEYS[1]) return s"
    flat = cache.eval(take, 1, OPEN)
    write(db, dict(zip(flat[::2], flat[1::2], strict=True)))


def renames_to_a_key_of_its_own(cache, db):
    if cache.exists(OPEN):
        sealed = f"views:v1:{uuid.uuid4().hex}"
        cache.rename(OPEN, sealed)
        with db.session() as session:
            for row in rows_of(cache.hgetall(sealed)):
                session.execute(ADD, row)
            session.commit()
        cache.unlink(sealed)


def _renamed(cache):
    try:
        cache.rename(OPEN, SEALED)
    except redis.ResponseError:
        return {}
    return cache.hgetall(SEALED)


# read ----------------------------------------------------------------------------------------


def only_the_table(cache, db, article_id):
    return db.article(article_id)["views"]


def only_what_waits(cache, db, article_id):
    return sum(int(cache.hget(key, article_id) or 0) for key in (OPEN, SEALED))


def not_the_sealed(cache, db, article_id):
    return int(cache.hget(OPEN, article_id) or 0) + db.article(article_id)["views"]


def nothing_waits_is_none(cache, db, article_id):
    waiting = int(cache.hget(OPEN, article_id)) + int(cache.hget(SEALED, article_id))
    return waiting + db.article(article_id)["views"]


def the_table_first(cache, db, article_id):
    stored = db.article(article_id)["views"]
    return stored + sum(int(cache.hget(key, article_id) or 0) for key in (OPEN, SEALED))


def sealed_first(cache, db, article_id):
    waiting = sum(int(cache.hget(key, article_id) or 0) for key in (SEALED, OPEN))
    return waiting + db.article(article_id)["views"]


def reads_and_flushes(cache, db, article_id):
    for key in (OPEN, SEALED):
        write(db, cache.hgetall(key))
        cache.delete(key)
    return db.article(article_id)["views"]


def all_articles(cache, db, article_id):
    waiting = sum(int(views) for key in (OPEN, SEALED) for views in cache.hvals(key))
    return waiting + db.article(article_id)["views"]


def as_text(cache, db, article_id):
    waiting = sum(int(cache.hget(key, article_id) or 0) for key in (OPEN, SEALED))
    return str(waiting + db.article(article_id)["views"])


def both_in_one_trip(cache, db, article_id):
    with cache.pipeline() as pipe:
        pipe.hget(SEALED, article_id)
        pipe.hget(OPEN, article_id)
        waiting = [int(views) for views in pipe.execute() if views is not None]
    return db.article(article_id)["views"] + sum(waiting)


def with_raw_sql(cache, db, article_id):
    opened = cache.hgetall(OPEN).get(str(article_id), "0")
    sealed = cache.hgetall(SEALED).get(str(article_id), "0")
    with db.engine.connect() as connection:
        asked = sa.text("SELECT views FROM articles WHERE id = :id")
        stored = connection.execute(asked, {"id": article_id}).scalar_one()
    return stored + int(opened) + int(sealed)


# replay --------------------------------------------------------------------------------------

_LOCK = threading.Lock()  # in each process another one


def under_a_lock_of_the_process(cache, db):
    with _LOCK:
        if not cache.exists("views:v1:sealed"):
            if not cache.exists("views:v1:open"):
                return
            cache.rename("views:v1:open", "views:v1:sealed")
        views = cache.hgetall("views:v1:sealed")
        rows = [{"id": int(article), "more": int(more)} for article, more in views.items()]
        with db.engine.begin() as connection:
            connection.execute(ADD, rows)
        cache.delete("views:v1:sealed")


def seal(cache, batch=None):
    """What waits, sealed; a batch that is sealed already goes first."""
    if not cache.exists(SEALED) and cache.exists(OPEN):
        if batch is not None:
            cache.hset(OPEN, "batch", batch)
        cache.rename(OPEN, SEALED)
    return cache.hgetall(SEALED)


def claimed(connection, batch):
    if connection.execute(KNOWN, {"batch": batch}).first() is not None:
        return False
    connection.execute(CLAIM, {"batch": batch})
    return True


def without_an_id(cache, db):
    write(db, seal(cache))
    cache.delete(SEALED)


def takes_and_then_writes(cache, db):
    takes_in_one_multi(cache, db)


def a_new_id_each_time(cache, db):
    sums = seal(cache)
    if sums:
        with db.engine.begin() as connection:
            if claimed(connection, uuid.uuid4().hex):
                connection.execute(ADD, rows_of(sums))
        cache.delete(SEALED)


def claims_first(cache, db):
    sums = seal(cache, uuid.uuid4().hex)
    if not sums:
        return
    batch = sums.pop("batch")
    with db.engine.begin() as connection:
        mine = claimed(connection, batch)
    if mine:
        write(db, sums)
    cache.delete(SEALED)


def claims_afterwards(cache, db):
    sums = seal(cache, uuid.uuid4().hex)
    if not sums:
        return
    batch = sums.pop("batch")
    with db.engine.connect() as connection:
        known = connection.execute(KNOWN, {"batch": batch}).first()
    if known is None:
        write(db, sums)
        with db.engine.begin() as connection:
            connection.execute(CLAIM, {"batch": batch})
    cache.delete(SEALED)


def numbered_in_the_cache(cache, db):
    sums = seal(cache, cache.incr("views:v1:batches"))
    _once(cache, db, sums)


def a_checksum(cache, db):
    sums = seal(cache)
    if sums:
        text = json.dumps(sums, sort_keys=True).encode()
        _once(cache, db, {**sums, "batch": hashlib.sha256(text).hexdigest()})


def seals_over_the_sealed(cache, db):
    if cache.exists(OPEN):
        cache.hset(OPEN, "batch", uuid.uuid4().hex)
        cache.rename(OPEN, SEALED)
    _once(cache, db, cache.hgetall(SEALED))


def deletes_the_open_one_too(cache, db):
    _once(cache, db, seal(cache, uuid.uuid4().hex))
    cache.delete(OPEN)


def _once(cache, db, sums):
    sums = dict(sums)
    if not sums:
        return
    batch = sums.pop("batch")
    with db.engine.begin() as connection:
        if claimed(connection, batch):
            connection.execute(ADD, rows_of(sums))
    cache.delete(SEALED)


def lets_the_database_refuse(cache, db):
    """The primary key says no: the transaction is rolled back, and the batch was counted before."""
    sums = seal(cache, uuid.uuid4().hex)
    if not sums:
        return
    batch = sums.pop("batch")
    try:
        with db.engine.begin() as connection:
            connection.execute(CLAIM, {"batch": batch})
            connection.execute(ADD, rows_of(sums))
    except sa.exc.IntegrityError:
        pass
    cache.delete(SEALED)


def an_id_after_the_renaming(cache, db):
    """Whoever finds a sealed batch without an id gives it one: nobody can have counted it."""
    if not cache.exists(SEALED) and cache.exists(OPEN):
        cache.rename(OPEN, SEALED)
    if cache.exists(SEALED):
        cache.hsetnx(SEALED, "batch", uuid.uuid4().hex)
        _once(cache, db, cache.hgetall(SEALED))


def an_id_in_the_key(cache, db):
    """Each batch under a key of its own, found again by SCAN."""
    if cache.exists(OPEN):
        cache.rename(OPEN, f"views:v1:batch:{uuid.uuid4().hex}")
    for key in sorted(cache.scan_iter("views:v1:batch:*")):
        sums = cache.hgetall(key)
        with db.engine.begin() as connection:
            done = "INSERT INTO flushed VALUES (:batch) ON CONFLICT DO NOTHING"
            if connection.execute(sa.text(done), {"batch": key}).rowcount == 1:
                connection.execute(ADD, rows_of(sums))
        cache.delete(key)


# bound ---------------------------------------------------------------------------------------


def counts_articles(cache, article_id, now, flush):
    with cache.pipeline() as pipe:
        if article_id is not None:
            pipe.hincrby(OPEN, article_id, 1)
            pipe.hsetnx(NOTES, "since", now)
        pipe.hlen(OPEN)
        pipe.hget(NOTES, "since")
        waiting, since = pipe.execute()[-2:]
    if since is not None and (waiting >= 100 or now - float(since) >= 5):
        flush()


def since_the_last_view(cache, article_id, now, flush):
    with cache.pipeline() as pipe:
        if article_id is not None:
            pipe.hincrby(OPEN, article_id, 1)
            pipe.hincrby(NOTES, "waiting", 1)
        pipe.hmget(NOTES, ["waiting", "last"])
        if article_id is not None:
            pipe.hset(NOTES, "last", now)
        replies = pipe.execute()
    waiting, last = replies[-1] if article_id is None else replies[2]
    if waiting is not None and (int(waiting) >= 100 or now - float(last or now) >= 5):
        flush()


def only_by_size(cache, article_id, now, flush):
    if article_id is not None:
        with cache.pipeline() as pipe:
            pipe.hincrby(OPEN, article_id, 1)
            pipe.hincrby(NOTES, "waiting", 1)
            if int(pipe.execute()[-1]) >= 100:
                flush()


def only_by_age(cache, article_id, now, flush):
    with cache.pipeline() as pipe:
        if article_id is not None:
            pipe.hincrby(OPEN, article_id, 1)
            pipe.hsetnx(NOTES, "since", now)
        pipe.hget(NOTES, "since")
        since = pipe.execute()[-1]
    if since is not None and now - float(since) >= 5:
        flush()


def exactly_a_hundred(cache, article_id, now, flush):
    with cache.pipeline() as pipe:
        if article_id is not None:
            pipe.hincrby(OPEN, article_id, 1)
            pipe.hincrby(NOTES, "waiting", 1)
            pipe.hsetnx(NOTES, "since", now)
        pipe.hmget(NOTES, ["waiting", "since"])
        waiting, since = pipe.execute()[-1]
    if waiting is not None and (int(waiting) == 100 or now - float(since) >= 5):
        flush()


_notes = {"waiting": 0, "since": None}


def remembers_in_python(cache, article_id, now, flush):
    if article_id is not None:
        cache.hincrby(OPEN, article_id, 1)
        _notes["waiting"] += 1
        if _notes["since"] is None:
            _notes["since"] = now
    old = _notes["since"] is not None and now - _notes["since"] >= 5
    if _notes["waiting"] >= 100 or old:
        _notes.update(waiting=0, since=None)
        flush()


def flushes_each_time(cache, article_id, now, flush):
    if article_id is not None:
        cache.hincrby(OPEN, article_id, 1)
        flush()


def never_flushes(cache, article_id, now, flush):
    if article_id is not None:
        cache.hincrby(OPEN, article_id, 1)


def counts_the_timer(cache, article_id, now, flush):
    with cache.pipeline() as pipe:
        pipe.hincrby(OPEN, str(article_id), 1)
        pipe.hincrby(NOTES, "waiting", 1)
        pipe.hsetnx(NOTES, "since", now)
        pipe.hmget(NOTES, ["waiting", "since"])
        waiting, since = pipe.execute()[-1]
    if int(waiting) >= 100 or now - float(since) >= 5:
        flush()


def notes_in_the_buffer(cache, article_id, now, flush):
    with cache.pipeline() as pipe:
        if article_id is not None:
            pipe.hincrby(OPEN, article_id, 1)
            pipe.hincrby(OPEN, "waiting", 1)
            pipe.hsetnx(OPEN, "since", now)
        pipe.hmget(OPEN, ["waiting", "since"])
        waiting, since = pipe.execute()[-1]
    if waiting is not None and (int(waiting) >= 100 or now - float(since) >= 5):
        flush()


def reads_and_writes_back(cache, article_id, now, flush):
    if article_id is not None:
        cache.hset(OPEN, article_id, int(cache.hget(OPEN, article_id) or 0) + 1)
        cache.hsetnx(NOTES, "since", now)
    waiting = sum(map(int, cache.hvals(OPEN)))
    since = cache.hget(NOTES, "since")
    if waiting >= 100 or (since is not None and now - float(since) >= 5):
        flush()


def notes_one_by_one(cache, article_id, now, flush):
    if article_id is not None:
        cache.hsetnx(NOTES, "since", now)
        cache.hincrby(NOTES, "waiting", 1)
        cache.hincrby(OPEN, article_id, 1)
    waiting, since = cache.hmget(NOTES, ["waiting", "since"])
    if since is not None and (int(waiting or 0) >= 100 or now - float(since) >= 5):
        flush()


def adds_in_python(cache, article_id, now, flush):
    if article_id is not None:
        cache.hincrby(OPEN, article_id, 1)
        cache.hset(NOTES, "waiting", int(cache.hget(NOTES, "waiting") or 0) + 1)
        cache.hsetnx(NOTES, "since", now)
    waiting, since = cache.hmget(NOTES, ["waiting", "since"])
    if waiting and (int(waiting) >= 100 or now - float(since or now) >= 5):
        flush()


def notes_after_the_view(cache, article_id, now, flush):
    if article_id is not None:
        cache.hincrby(OPEN, article_id, 1)
        cache.hincrby(NOTES, "waiting", 1)
        cache.hsetnx(NOTES, "since", now)
    waiting, since = cache.hmget(NOTES, ["waiting", "since"])
    if waiting and (int(waiting) >= 100 or now - float(since or now) >= 5):
        flush()


def keeps_a_deadline(cache, article_id, now, flush):
    if article_id is None:
        deadline = cache.hget(NOTES, "deadline")
        if deadline and float(deadline) <= now:
            flush()
        return
    with cache.pipeline() as pipe:
        pipe.hincrby(OPEN, article_id)
        pipe.hsetnx(NOTES, "deadline", now + 5)
        pipe.hincrby(NOTES, "size")
        pipe.hget(NOTES, "deadline")
        *_, size, deadline = pipe.execute()
    if size >= 100 or float(deadline) <= now:
        flush()


def adds_up_the_values(cache, article_id, now, flush):
    with cache.pipeline() as pipe:
        if article_id is not None:
            pipe.hincrby(OPEN, article_id, 1)
            pipe.hsetnx(NOTES, "since", now)
        pipe.hvals(OPEN)
        pipe.hget(NOTES, "since")
        values, since = pipe.execute()[-2:]
    if sum(map(int, values)) > 99 or (since is not None and now >= float(since) + 5):
        flush()


def in_one_script(cache, article_id, now, flush):
    script = """
    if ARGV[1] ~= '' then
      redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
      redis.call('HINCRBY', KEYS[2], 'n', 1)
      redis.call('HSETNX', KEYS[2], 'first', ARGV[2])
    end
    local notes = redis.call('HMGET', KEYS[2], 'n', 'first')
    if not notes[1] then return 0 end
    if tonumber(notes[1]) >= 100 or ARGV[2] - notes[2] >= 5 then return 1 end
    return 0
    """
    if cache.eval(script, 2, OPEN, NOTES, "" if article_id is None else article_id, now):
        flush()


WRONG = {
    "07_write_back.flush": [
        Wrong("never empties the buffer", never_empties, "After a second flush, with no new view"),
        Wrong("read, write, delete", deletes_after_reading, "some are lost"),
        Wrong("read, delete, write", deletes_between, "some are lost"),
        Wrong("a transaction an article", a_transaction_an_article, "took 3 transactions"),
        Wrong("an UPDATE a view", an_update_a_view, "took 10 UPDATEs"),
        Wrong("sets instead of adding", sets_the_views, "article 1 has 3 views"),
        Wrong("renames nothing", nothing_to_rename, "no such key"),
        Wrong("only empties the buffer", only_empties, "article 1 has 97 views"),
        Wrong("adds zero", subtracts_and_adds_zero, "ran an UPDATE again"),
        Wrong("copies, then deletes", copies_then_deletes, "some are lost"),
    ],
    "07_write_back.read": [
        Wrong("only the table", only_the_table, "3 views in open, views gave 97"),
        Wrong("only what waits", only_what_waits, "nothing waiting, views gave 0"),
        Wrong("not the sealed batch", not_the_sealed, "2 views in sealed, views gave 97"),
        Wrong("nothing waiting is None", nothing_waits_is_none, "TypeError"),
        Wrong("the table first", the_table_first, "they moved on while it looked"),
        Wrong("sealed before open", sealed_first, "they moved on while it looked"),
        Wrong("flushes by itself", reads_and_flushes, "A read changed the buffer"),
        Wrong("all articles", all_articles, "nothing waiting, views gave 107"),
        Wrong("a text", as_text, "(a str)"),
    ],
    "07_write_back.replay": [
        Wrong("a lock of one process", under_a_lock_of_the_process, "(ids in flushed: 0)"),
        Wrong("no id", without_an_id, "some count twice (ids in flushed: 0)"),
        Wrong("takes, then writes", takes_and_then_writes, "some are lost"),
        Wrong("a new id each time", a_new_id_each_time, "some count twice (ids in flushed: 2)"),
        Wrong("claims in a transaction before", claims_first, "some are lost"),
        Wrong("claims in a transaction after", claims_afterwards, "some count twice"),
        Wrong(
            "an id that the cache counts", numbered_in_the_cache, "a crash that emptied the cache"
        ),
        Wrong("a checksum as id", a_checksum, "batches with the same views"),
        Wrong("seals over a sealed batch", seals_over_the_sealed, "some are lost"),
        Wrong("deletes the open batch too", deletes_the_open_one_too, "some are lost"),
    ],
    "07_write_back.bound": [
        Wrong("counts articles", counts_articles, "100 views of 3 articles wait"),
        Wrong("age of the last view", since_the_last_view, "A view has waited 5 s, through a view"),
        Wrong("only by size", only_by_size, "5.5 s, through a timer"),
        Wrong("only by age", only_by_age, "100 views of 100 articles"),
        Wrong("at exactly a hundred", exactly_a_hundred, "at 101 it was not called again"),
        Wrong("remembers in Python", remembers_in_python, "with 99 views waiting"),
        Wrong("flushes each time", flushes_each_time, "with 1 view waiting"),
        Wrong("never flushes", never_flushes, "was never called"),
        Wrong("counts the timer", counts_the_timer, "which is no article"),
        Wrong("notes in the buffer", notes_in_the_buffer, "the field 'waiting'"),
        Wrong("reads and writes back", reads_and_writes_back, "the rest is lost"),
        Wrong("notes one by one", notes_one_by_one, "was forgotten"),
        Wrong("adds in Python", adds_in_python, "each missed the other's view"),
        Wrong("notes after the view", notes_after_the_view, "the note stayed behind"),
    ],
}

RIGHT = {
    "07_write_back.flush": [
        takes_in_one_multi,
        subtracts_what_it_flushed,
        takes_in_a_script,
        renames_to_a_key_of_its_own,
        keeps_the_renamed,
        reads_the_column_and_sets_it,
    ],
    "07_write_back.read": [both_in_one_trip, with_raw_sql],
    "07_write_back.replay": [lets_the_database_refuse, an_id_after_the_renaming, an_id_in_the_key],
    "07_write_back.bound": [adds_up_the_values, in_one_script, keeps_a_deadline],
}
