"""Answers to lab 08, wrong and right, as learners write them."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
import weakref

import sqlalchemy as sa

from answers import Wrong
from cachelab.exercises.lab_08_read_through import create_account, find_account, load_account
from cachelab.origin import User
from cachelab.patterns.read_through import ReadThrough
from cachelab.patterns.single_flight import SingleFlight

# registry ------------------------------------------------------------------------------------


def _one(cache, key, entity, id, absent_ttl=None):
    stored = cache.get(key)
    if stored is not None:
        with contextlib.suppress(ValueError):
            return json.loads(stored)
    value = entity.load([id]).get(id)
    absent_ttl = entity.absent_ttl if absent_ttl is None else absent_ttl
    cache.set(key, json.dumps(value), ex=absent_ttl if value is None else entity.ttl)
    return value


def version_written_out(cache, register, name, id):
    return _one(cache, f"{name}:v1:{id}", register[name], id)


def no_name_in_the_key(cache, register, name, id):
    return _one(cache, f"v{register[name].version}:{id}", register[name], id)


def one_ttl_for_all(cache, register, name, id):
    entity = register[name]._replace(ttl=300)
    return _one(cache, f"{name}:v{entity.version}:{id}", entity, id)


def absence_as_long_as_the_rest(cache, register, name, id):
    entity = register[name]
    return _one(cache, f"{name}:v{entity.version}:{id}", entity, id, entity.ttl)


def absence_not_kept(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    stored = cache.get(key)
    if stored is not None:
        with contextlib.suppress(ValueError):
            return json.loads(stored)
    value = entity.load([id]).get(id)
    if value is not None:
        cache.set(key, json.dumps(value), ex=entity.ttl)
    return value


def zero_is_nothing(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    stored = cache.get(key)
    if stored is not None:
        with contextlib.suppress(ValueError):
            return json.loads(stored)
    value = entity.load([id]).get(id) or None
    cache.set(key, json.dumps(value), ex=entity.ttl if value else entity.absent_ttl)
    return value


def one_id_for_the_loader(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = entity.load(id)
    cache.set(key, json.dumps(value), ex=entity.ttl)
    return value


def stores_the_loaders_dict(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = entity.load([id])
    cache.set(key, json.dumps(value), ex=entity.ttl)
    return value


def broken_copy_raises(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = entity.load([id]).get(id)
    cache.set(key, json.dumps(value), ex=entity.absent_ttl if value is None else entity.ttl)
    return value


def broken_copy_is_nothing(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    stored = cache.get(key)
    if stored is not None:
        try:
            return json.loads(stored)
        except ValueError:
            return None
    return _one(cache, key, entity, id)


def errors_are_absence(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    try:
        return _one(cache, key, entity, id)
    except Exception:
        return None


def decodes_and_loads_in_one_try(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    try:
        stored = cache.get(key)
        if stored is not None:
            return json.loads(stored)
        value = entity.load([id]).get(id)
    except ValueError:
        cache.delete(key)
        return decodes_and_loads_in_one_try(cache, register, name, id)
    cache.set(key, json.dumps(value), ex=entity.absent_ttl if value is None else entity.ttl)
    return value


def wraps_the_error(cache, register, name, id):
    entity = register[name]
    try:
        return _one(cache, f"{name}:v{entity.version}:{id}", entity, id)
    except Exception as error:
        raise RuntimeError("could not load") from error


def unknown_is_none(cache, register, name, id):
    if name not in register:
        return None
    entity = register[name]
    return _one(cache, f"{name}:v{entity.version}:{id}", entity, id)


def ttl_in_a_second_command(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    value = entity.load([id]).get(id)
    cache.set(key, json.dumps(value))
    return value


_seen = weakref.WeakKeyDictionary()


def remembers_the_register(cache, register, name, id):
    entity = _seen.setdefault(cache, {}).setdefault(name, register[name])
    return _one(cache, f"{name}:v{entity.version}:{id}", entity, id)


def by_the_pattern(cache, register, name, id):
    return ReadThrough(cache, register).read(name, id)


def with_a_decoder_and_setex(cache, register, name, id):
    def decoded(text):
        try:
            return True, json.loads(text)
        except (TypeError, ValueError):
            return False, None

    entity = register[name]
    key = ":".join((name, f"v{entity.version}", str(id)))
    found, value = decoded(cache.get(key))
    if not found:
        value = entity.load((id,)).get(id)
        ttl = entity.ttl if value is not None else entity.absent_ttl
        cache.execute_command("SETEX", key, ttl, json.dumps(value))
    return value


def deletes_what_is_broken(cache, register, name, id):
    entity = register[name]
    key = f"{name}:v{entity.version}:{id}"
    [stored] = cache.mget([key])
    if stored is not None:
        try:
            return json.loads(stored)
        except json.JSONDecodeError:
            cache.delete(key)
    rows = entity.load([id])
    if id in rows:
        cache.set(key, json.dumps(rows[id]), px=entity.ttl * 1000)
        return rows[id]
    cache.set(key, "null", px=entity.absent_ttl * 1000)
    return None


# batch ---------------------------------------------------------------------------------------


def _keys(register, name, ids):
    return {id: f"{name}:v{register[name].version}:{id}" for id in ids}


def _look(cache, keys):
    found = {}
    for id, stored in zip(keys, cache.mget(list(keys.values())) if keys else [], strict=True):
        with contextlib.suppress(TypeError, ValueError):
            found[id] = json.loads(stored)
    return found


def _store(cache, entity, keys, values, absent_ttl=None):
    with cache.pipeline() as pipe:
        for id, value in values.items():
            kept = (absent_ttl or entity.absent_ttl) if value is None else entity.ttl
            pipe.set(keys[id], json.dumps(value), ex=kept)
        pipe.execute()


def one_by_one(cache, register, name, ids):
    entity = register[name]
    return {id: _one(cache, f"{name}:v{entity.version}:{id}", entity, id) for id in ids}


def looks_one_by_one(cache, register, name, ids):
    entity, keys, found = register[name], _keys(register, name, ids), {}
    for id, key in keys.items():
        with contextlib.suppress(TypeError, ValueError):
            found[id] = json.loads(cache.get(key))
    missing = [id for id in keys if id not in found]
    if missing:
        rows = entity.load(missing)
        found |= {id: rows.get(id) for id in missing}
        _store(cache, entity, keys, {id: found[id] for id in missing})
    return found


def loads_all_if_one_is_missing(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    found = _look(cache, keys)
    if len(found) < len(keys):
        rows = entity.load(list(keys))
        found = {id: rows.get(id) for id in keys}
        _store(cache, entity, keys, found)
    return found


def loads_each_by_itself(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    found = _look(cache, keys)
    fresh = {id: entity.load([id]).get(id) for id in keys if id not in found}
    if fresh:
        _store(cache, entity, keys, fresh)
    return found | fresh


def stores_one_by_one(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    found = _look(cache, keys)
    missing = [id for id in keys if id not in found]
    rows = entity.load(missing) if missing else {}
    for id in missing:
        value = found[id] = rows.get(id)
        cache.set(
            keys[id], json.dumps(value), ex=entity.absent_ttl if value is None else entity.ttl
        )
    return found


def leaves_out_what_does_not_exist(cache, register, name, ids):
    found = by_the_pattern_many(cache, register, name, ids)
    return {id: value for id, value in found.items() if value is not None}


def absence_is_loaded_again(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    found = {id: value for id, value in _look(cache, keys).items() if value is not None}
    missing = [id for id in keys if id not in found]
    if missing:
        rows = entity.load(missing)
        found |= {id: rows.get(id) for id in missing}
        _store(cache, entity, keys, {id: found[id] for id in missing})
    return found


def zero_is_loaded_again(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    found = {id: value for id, value in _look(cache, keys).items() if value or value is None}
    missing = [id for id in keys if id not in found]
    if missing:
        rows = entity.load(missing)
        found |= {id: rows.get(id) for id in missing}
        _store(cache, entity, keys, {id: found[id] for id in missing})
    return found


def takes_the_rows_in_their_order(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    found = _look(cache, keys)
    missing = [id for id in keys if id not in found]
    if missing:
        fresh = dict(zip(missing, entity.load(missing).values(), strict=False))
        _store(cache, entity, keys, fresh)
        found |= fresh
    return found


def no_ids_is_an_error(cache, register, name, ids):
    entity, keys, found = register[name], _keys(register, name, ids), {}
    for id, stored in zip(keys, cache.mget(list(keys.values())), strict=True):
        with contextlib.suppress(TypeError, ValueError):
            found[id] = json.loads(stored)
    missing = [id for id in keys if id not in found]
    if missing:
        rows = entity.load(missing)
        found |= {id: rows.get(id) for id in missing}
        _store(cache, entity, keys, {id: found[id] for id in missing})
    return found


def msets_without_ttl(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    found = _look(cache, keys)
    missing = [id for id in keys if id not in found]
    if missing:
        rows = entity.load(missing)
        found |= {id: rows.get(id) for id in missing}
        cache.mset({keys[id]: json.dumps(found[id]) for id in missing})
    return found


def a_list_of_values(cache, register, name, ids):
    return list(by_the_pattern_many(cache, register, name, ids).values())


def one_broken_copy_breaks_all(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    texts = cache.mget(list(keys.values())) if keys else []
    found = {id: json.loads(text) for id, text in zip(keys, texts, strict=True) if text}
    missing = [id for id in keys if id not in found]
    if missing:
        rows = entity.load(missing)
        found |= {id: rows.get(id) for id in missing}
        _store(cache, entity, keys, {id: found[id] for id in missing})
    return found


def by_the_pattern_many(cache, register, name, ids):
    return ReadThrough(cache, register).read_many(name, ids)


def with_a_pipeline_of_gets(cache, register, name, ids):
    entity, found = register[name], {}
    ids = sorted(set(ids))
    if not ids:
        return {}
    with cache.pipeline(transaction=False) as pipe:
        for id in ids:
            pipe.get(f"{name}:v{entity.version}:{id}")
        texts = pipe.execute()
    for id, text in zip(ids, texts, strict=True):
        try:
            found[id] = json.loads(text)
        except (TypeError, ValueError):
            continue
    missing = set(ids) - found.keys()
    if missing:
        found.update({**dict.fromkeys(missing), **entity.load(missing)})
        with cache.pipeline() as pipe:
            for id in missing:
                ttl = entity.absent_ttl if found[id] is None else entity.ttl
                pipe.set(f"{name}:v{entity.version}:{id}", json.dumps(found[id]), px=1000 * ttl)
            pipe.execute()
    return found


def with_mset_and_expire_in_one_trip(cache, register, name, ids):
    entity, keys = register[name], _keys(register, name, ids)
    found = _look(cache, keys)
    missing = [id for id in keys if id not in found]
    if missing:
        rows = entity.load(missing)
        found |= {id: rows.get(id) for id in missing}
        with cache.pipeline(transaction=True) as pipe:
            pipe.mset({keys[id]: json.dumps(found[id]) for id in missing})
            for id in missing:
                pipe.expire(keys[id], entity.absent_ttl if found[id] is None else entity.ttl)
            pipe.execute()
    return found


# absence -------------------------------------------------------------------------------------


def only_the_database(cache, db, name, email):
    create_account(db, name, email)


def only_the_cache(cache, db, name, email):
    cache.set(f"account:v1:{email}", json.dumps({"name": name, "email": email}), ex=300)


def deletes_after_the_commit(cache, db, name, email):
    create_account(db, name, email)
    cache.delete(f"account:v1:{email}")


def deletes_twice_with_a_nap(cache, db, name, email):
    create_account(db, name, email)
    cache.delete(f"account:v1:{email}")
    time.sleep(0.2)
    cache.delete(f"account:v1:{email}")


def stores_before_the_commit(cache, db, name, email):
    with db.session() as session:
        user = User(name=name, email=email, bio="", role="customer", version=1)
        user.id = session.scalar(sa.select(sa.func.max(User.id))) + 1
        row = {"id": user.id, "name": name, "email": email}
        cache.set(f"account:v1:{email}", json.dumps(row), ex=300)
        session.add(user)
        session.commit()


def stores_only_where_nothing_is(cache, db, name, email):
    create_account(db, name, email)
    cache.set(f"account:v1:{email}", json.dumps(load_account(db, email)), ex=300, nx=True)


def stores_without_a_ttl(cache, db, name, email):
    create_account(db, name, email)
    cache.set(f"account:v1:{email}", json.dumps(load_account(db, email)))


def stores_without_the_id(cache, db, name, email):
    create_account(db, name, email)
    cache.set(f"account:v1:{email}", json.dumps({"name": name, "email": email}), ex=300)


def empties_the_cache(cache, db, name, email):
    create_account(db, name, email)
    cache.flushdb()


def hides_the_error(cache, db, name, email):
    with contextlib.suppress(Exception):
        create_account(db, name, email)
        cache.set(f"account:v1:{email}", json.dumps(load_account(db, email)), ex=300)


def sign_up_with_a_session(cache, db, name, email):
    with db.session() as session:
        user = User(name=name, email=email, bio="", role="customer", version=1)
        session.add(user)
        session.commit()
        row = {"id": user.id, "name": user.name, "email": user.email}
    cache.set(f"account:v1:{email}", json.dumps(row), px=300_000)


def sign_up_and_look_for_a_visitor(cache, db, name, email):
    create_account(db, name, email)
    cache.delete(f"account:v1:{email}")
    find_account(cache, db, email)  # loads, and stores the row as any visitor would
    cache.set(f"account:v1:{email}", json.dumps(load_account(db, email)), ex=60)


def sign_up_in_a_pipeline(cache, db, name, email):
    create_account(db, name, email)
    with cache.pipeline() as pipe:
        pipe.delete(f"account:v1:{email}")
        pipe.set(f"account:v1:{email}", json.dumps(load_account(db, email)), ex=300)
        pipe.execute()


# guard ---------------------------------------------------------------------------------------


def _aside(cache, db, product_id, fill=True):
    key = f"product:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    product = db.product(product_id)
    if fill:
        cache.set(key, json.dumps(product), ex=300)
    return product


def a_key_of_its_own(cache, db, flight, product_id):
    key = f"product:v1:{product_id}:{uuid.uuid4()}"
    return flight.do(key, lambda: _aside(cache, db, product_id))


def a_flight_of_its_own(cache, db, flight, product_id):
    return SingleFlight().do(f"product:v1:{product_id}", lambda: _aside(cache, db, product_id))


def one_key_for_all(cache, db, flight, product_id):
    return flight.do("product", lambda: _aside(cache, db, product_id))


def fills_outside(cache, db, flight, product_id):
    key = f"product:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    product = flight.do(key, lambda: db.product(product_id))
    cache.set(key, json.dumps(product), ex=300)
    return product


def the_first_fills_later(cache, db, flight, product_id):
    key = f"product:v1:{product_id}"
    mine = []

    def load():
        mine.append(True)
        return db.product(product_id)

    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)
    product = flight.do(key, load)
    if mine:
        cache.set(key, json.dumps(product), ex=300)
    return product


def never_fills(cache, db, flight, product_id):
    return flight.do(f"product:v1:{product_id}", lambda: _aside(cache, db, product_id, fill=False))


def forgets_to_return(cache, db, flight, product_id):
    flight.do(f"product:v1:{product_id}", lambda: _aside(cache, db, product_id))


def never_looks(cache, db, flight, product_id):
    def load():
        product = db.product(product_id)
        cache.set(f"product:v1:{product_id}", json.dumps(product), ex=300)
        return product

    return flight.do(f"product:v1:{product_id}", load)


def looks_before_and_inside(cache, db, flight, product_id):
    stored = cache.get(f"product:v1:{product_id}")
    if stored is not None:
        return json.loads(stored)
    return flight.do(product_id, lambda: _aside(cache, db, product_id))


def shares_the_text(cache, db, flight, product_id):
    key = f"product:v1:{product_id}"

    def text():
        stored = cache.get(key)
        if stored is None:
            stored = json.dumps(db.product(product_id))
            cache.set(key, stored, ex=300)
        return stored

    return json.loads(flight.do(("product", product_id), text))


def _many(cache, register, name, ids, *, once=True, own=lambda id, key: id, hides=False):
    """A batch with parts to change."""
    entity, found = register[name], {}
    keys = {id: f"{name}:v{entity.version}:{id}" for id in ids}
    if not keys:
        return {}
    for (id, key), stored in zip(keys.items(), cache.mget(list(keys.values())), strict=True):
        with contextlib.suppress(TypeError, ValueError):
            found[own(id, key)] = json.loads(stored)
    missing = [id for id in (keys if once else ids) if id not in found]
    if missing:
        try:
            rows = entity.load(missing)
        except Exception:
            if not hides:
                raise
            return {id: found.get(id) for id in keys}
        with cache.pipeline() as pipe:
            for id in missing:
                value = found[id] = rows.get(id)
                kept = entity.absent_ttl if value is None else entity.ttl
                pipe.set(keys[id], json.dumps(value), ex=kept)
            pipe.execute()
    return found


def loads_twice_what_is_named_twice(cache, register, name, ids):
    return _many(cache, register, name, ids, once=False)


def reads_the_ids_off_the_keys(cache, register, name, ids):
    return _many(cache, register, name, ids, own=lambda id, key: int(key.split(":")[2]))


def shows_what_it_has(cache, register, name, ids):
    return _many(cache, register, name, ids, hides=True)


def stores_before_and_takes_it_back(cache, db, name, email):
    key = f"account:v1:{email}"
    cache.set(key, json.dumps({"id": 0, "name": name, "email": email}), ex=300)
    try:
        create_account(db, name, email)
    except Exception:
        cache.delete(key)
        raise
    cache.set(key, json.dumps(load_account(db, email)), ex=300)


def looks_only_before_the_flight(cache, db, flight, product_id):
    key = f"product:v1:{product_id}"
    stored = cache.get(key)
    if stored is not None:
        return json.loads(stored)

    def load_and_fill():
        product = db.product(product_id)
        cache.set(key, json.dumps(product), ex=300)
        return product

    return flight.do(key, load_and_fill)


WRONG = {
    "08_read_through.registry": [
        Wrong("the version is written out", version_written_out, "expected was product:v3:1"),
        Wrong("the key has no name", no_name_in_the_key, "expected was user:v1:1"),
        Wrong("one TTL for all", one_ttl_for_all, "lives 300 s; expected was 600 s"),
        Wrong(
            "absence as long as the rest", absence_as_long_as_the_rest, "600 s; expected was 9 s"
        ),
        Wrong("absence is not kept", absence_not_kept, "expected was product:v3:999"),
        Wrong("zero is nothing", zero_is_nothing, "expected was 0"),
        Wrong("one id for the loader", one_id_for_the_loader, "a loader takes a list of ids"),
        Wrong("stores the loader's dict", stores_the_loaders_dict, "the right answer is"),
        Wrong("a broken copy raises", broken_copy_raises, "read raised JSONDecodeError"),
        Wrong(
            "a broken copy is nothing", broken_copy_is_nothing, "no JSON in the cache, read gave"
        ),
        Wrong("errors are absence", errors_are_absence, "read returned None"),
        Wrong("one try around all", decodes_and_loads_in_one_try, "was RecursionError"),
        Wrong("wraps the error", wraps_the_error, "what reached the caller was RuntimeError"),
        Wrong("unknown is None", unknown_is_none, "a KeyError was expected"),
        Wrong("no TTL", ttl_in_a_second_command, "has no TTL"),
        Wrong("remembers the register", remembers_the_register, "no user:v2:1"),
    ],
    "08_read_through.batch": [
        Wrong("one by one", one_by_one, "(20 to look, 20 to store)"),
        Wrong("looks one by one", looks_one_by_one, "(20 to look, 1 to store)"),
        Wrong("loads all if one is missing", loads_all_if_one_is_missing, "1 and 2 were in the"),
        Wrong("loads each by itself", loads_each_by_itself, "called the loader 20 times"),
        Wrong("stores one by one", stores_one_by_one, "(1 to look, 20 to store)"),
        Wrong("leaves out what is not", leaves_out_what_does_not_exist, "says nothing about 999"),
        Wrong("absence is loaded again", absence_is_loaded_again, "asked for it again"),
        Wrong("zero is loaded again", zero_is_loaded_again, "A stock of 0 is in the cache"),
        Wrong("rows in their order", takes_the_rows_in_their_order, "the right answer is"),
        Wrong("no ids is an error", no_ids_is_an_error, "refuses MGET without a key"),
        Wrong("MSET without TTL", msets_without_ttl, "has no TTL"),
        Wrong("a list of values", a_list_of_values, "a dict by id was expected"),
        Wrong("named twice", loads_twice_what_is_named_twice, "asked for [6, 6], not [6]"),
        Wrong("ids off the keys", reads_the_ids_off_the_keys, "['a:b', '7'] also has 7"),
        Wrong("shows what it has", shows_what_it_has, "and read_many returned {1: None}"),
        Wrong("one broken copy breaks all", one_broken_copy_breaks_all, "raised JSONDecodeError"),
    ],
    "08_read_through.absence": [
        Wrong("only the database", only_the_database, "is told that there is no such account"),
        Wrong("only the cache", only_the_cache, "the database has None"),
        Wrong("deletes after the commit", deletes_after_the_commit, "where nothing was"),
        Wrong("deletes twice, with a nap", deletes_twice_with_a_nap, "took 30 s until it stored"),
        Wrong("stores before the commit", stores_before_the_commit, "the cache says that there is"),
        Wrong("only where nothing is", stores_only_where_nothing_is, "was refused"),
        Wrong("no TTL", stores_without_a_ttl, "has no TTL"),
        Wrong("without the id", stores_without_the_id, "finds {'name'"),
        Wrong("empties the cache", empties_the_cache, "Gone from the cache"),
        Wrong("takes it back", stores_before_and_takes_it_back, "for a moment the cache had"),
        Wrong("hides the error", hides_the_error, "as if Zoe had an account"),
    ],
    "08_read_through.guard": [
        Wrong("a flight of its own", a_flight_of_its_own, "was used not at all"),
        Wrong("a key of its own", a_key_of_its_own, "under 200 different keys"),
        Wrong("one key for all", one_key_for_all, "asked for product 2 and got"),
        Wrong("fills outside", fills_outside, "cost 200 fills"),
        Wrong("the first fills later", the_first_fills_later, "In 32 of all 40 orders"),
        Wrong("looks before", looks_only_before_the_flight, "In 8 of all 24 orders"),
        Wrong("never fills", never_fills, "After a first read the cache holds nothing"),
        Wrong("forgets to return", forgets_to_return, "gave None"),
        Wrong("never looks", never_looks, "Two reads asked 2 queries"),
    ],
}

RIGHT = {
    "08_read_through.registry": [by_the_pattern, with_a_decoder_and_setex, deletes_what_is_broken],
    "08_read_through.batch": [
        by_the_pattern_many,
        with_a_pipeline_of_gets,
        with_mset_and_expire_in_one_trip,
    ],
    "08_read_through.absence": [
        sign_up_with_a_session,
        sign_up_and_look_for_a_visitor,
        sign_up_in_a_pipeline,
    ],
    "08_read_through.guard": [looks_before_and_inside, shares_the_text],
}
