"""Answers to lab 16, wrong and right, as learners write them."""

from __future__ import annotations

import itertools
import json
import random
from urllib.parse import quote

import redis
from redis.crc import key_slot

from answers import Wrong

# tags ----------------------------------------------------------------------------------------


def no_tag(kind, user):
    return f"{kind}:v1:{user}"


def one_tag_for_the_shop(kind, user):
    return f"{{shop}}:{kind}:{user}"


def kind_as_tag(kind, user):
    return f"{{{kind}}}:{user}"


def bare_id(kind, user):
    return f"{{{user}}}:{kind}"


def braces_dropped(kind, user):
    plain = user.replace("{", "").replace("}", "")
    return f"{{user:{plain}}}:{kind}"


def ten_buckets(kind, user):
    return f"{{{sum(user.encode()) % 10}}}:{kind}:{user}"


def one_key_for_all_kinds(kind, user):
    return f"{{user:{user}}}"


def pythons_hash(kind, user):
    return f"{{{hash(user)}}}:{kind}:{user}"


def placeholder_for_nobody(kind, user):
    return f"{{user:{quote(user or 'anonymous', safe='')}}}:{kind}"


def in_small_letters(kind, user):
    return f"{{user:{quote(user.lower(), safe='')}}}:{kind}"


def as_bytes(kind, user):
    return f"{{user:{user}}}:{kind}".encode()


def without_end(kind, user):
    return f"{{user:{user}:{kind}"


def quoted_id(kind, user):
    return f"{kind}:v1:{{u{quote(user, safe='')}}}"


def many_buckets(kind, user):
    return f"{{{key_slot(user.encode())}}}:{kind}:{user}"


def id_as_json(kind, user):
    return "{user-" + json.dumps(user).replace("}", "\\u007d") + "}" + kind


# local ---------------------------------------------------------------------------------------


def never_kept(cluster, key, local, now):
    return cluster.get(key)


def kept_for_ever(cluster, key, local, now):
    if key not in local:
        if len(local) >= 100:
            local.clear()
        local[key] = cluster.get(key)
    return local[key]


def none_is_not_kept(cluster, key, local, now):
    value, since = local.get(key, (None, -10))
    if value is None or now - since > 1:
        value = cluster.get(key)
        if len(local) >= 100:
            local.clear()
        local[key] = (value, now)
    return value


def each_read_prolongs(cluster, key, local, now):
    value, since = local.get(key, (None, -10))
    if now - since > 1:
        value = cluster.get(key)
    if len(local) >= 100:
        local.clear()
    local[key] = (value, now)
    return value


def one_place_for_all(cluster, key, local, now):
    if "value" not in local or now - local["since"] > 1:
        local.update(value=cluster.get(key), since=now)
    return local["value"]


def without_bound(cluster, key, local, now):
    value, since = local.get(key, (None, -10))
    if now - since > 1:
        value = cluster.get(key)
        local[key] = (value, now)
    return value


def a_tenth_of_a_second(cluster, key, local, now):
    value, since = local.get(key, (None, -10))
    if now - since > 0.1:
        value = cluster.get(key)
        if len(local) >= 100:
            local.clear()
        local[key] = (value, now)
    return value


def by_whole_seconds_late(cluster, key, local, now):
    value, since = local.get(key, (None, -10))
    if int(now) - int(since) > 1:
        value = cluster.get(key)
        if len(local) >= 100:
            local.clear()
        local[key] = (value, now)
    return value


def stale_then_asks(cluster, key, local, now):
    if key not in local:
        local[key] = (cluster.get(key), now)
    value, since = local[key]
    if now - since > 1:
        if len(local) >= 100:
            local.clear()
        local[key] = (cluster.get(key), now)
    return value


def stops_when_full(cluster, key, local, now):
    value, since = local.get(key, (None, -10))
    if now - since > 1:
        value = cluster.get(key)
        if key in local or len(local) < 100:
            local[key] = (value, now)
    return value


def one_over(cluster, key, local, now):
    value, since = local.get(key, (None, -10))
    if now - since > 1:
        value = cluster.get(key)
        if len(local) > 100:
            local.clear()
        local[key] = (value, now)
    return value


def old_rather_than_none(cluster, key, local, now):
    value, since = local.get(key, (None, -10))
    if now - since > 1:
        found = cluster.get(key)
        if len(local) >= 100:
            local.clear()
        local[key] = (value if found is None else found, now)
    return local[key][0]


def oldest_goes(cluster, key, local, now):
    kept = local.get(key)
    if kept and now < kept["until"]:
        return kept["value"]
    value = cluster.get(key)
    local.pop(key, None)
    local[key] = {"value": value, "until": now + 1}
    while len(local) > 100:
        local.pop(next(iter(local)))
    return value


def what_is_over_goes(cluster, key, local, now):
    if key in local and now - local[key][1] <= 1:
        return local[key][0]
    for one in [one for one, (_, since) in local.items() if now - since > 1]:
        del local[one]
    value = cluster.get(key)
    if len(local) < 100:
        local[key] = (value, now)
    return value


def by_the_second(cluster, key, local, now):
    second = local.setdefault(int(now), {})
    for old in [one for one in local if one < int(now)]:
        del local[old]
    if key not in second:
        if len(second) >= 100:
            second.clear()
        second[key] = cluster.get(key)
    return second[key]


def only_the_newest(cluster, key, local, now):
    kept = local.setdefault("kept", {})
    if key in kept and now - kept[key][0] < 1:
        return kept[key][1]
    value = cluster.mget([key])[0]
    local["kept"] = {**dict(list(kept.items())[-50:]), key: (now, value)}
    return value


# copies --------------------------------------------------------------------------------------


def numbered(key, ranges):
    return [f"{key}:{number}" for number in range(len(ranges))]


def tags_in_order(key, ranges):
    return [f"{{{number}}}:{key}" for number in range(len(ranges))]


def by_chance(key, ranges):
    found = {}
    while len(found) < len(ranges):
        name = f"{{{random.randrange(10**6)}}}:{key}"
        found.setdefault(_home(name, ranges), name)
    return list(found.values())


def tag_behind(key, ranges):
    found = {}
    for number in range(5_000):
        name = f"{key}:{{{number}}}"
        found.setdefault(_home(name, ranges), name)
    return list(found.values())


def only_the_tag(key, ranges):
    found = {}
    for number in itertools.count():
        name = f"{{{number}}}"
        found.setdefault(_home(name, ranges), name)
        if len(found) == len(ranges):
            return list(found.values())


def a_hundred_tries(key, ranges):
    found = {}
    for number in range(100):
        name = f"{{{number}}}:{key}"
        found.setdefault(_home(name, ranges), name)
    return list(found.values())


def tag_by_hash(key, ranges):
    found = {}
    for number in itertools.count():
        name = f"{{{hash(key)}-{number}}}:{key}"
        found.setdefault(_home(name, ranges), name)
        if len(found) == len(ranges):
            return list(found.values())


def without_its_braces(key, ranges):
    return one_after_the_other(key.replace("{", "").replace("}", ""), ranges)


def only_the_last_word(key, ranges):
    return one_after_the_other(key.rpartition(":")[2], ranges)


def by_node(key, ranges):
    return {number: f"{{{number}}}:{key}" for number in range(len(ranges))}


def one_after_the_other(key, ranges):
    names = []
    for first, last in ranges:
        tries = (f"{{copy{number}}}{key}" for number in itertools.count())
        names.append(next(name for name in tries if first <= key_slot(name.encode()) <= last))
    return names


def as_a_generator(key, ranges):
    missing, number = list(ranges), 0
    while missing:
        number += 1
        name = f"{{{number:x}}}|{key}"
        home = next(each for each in ranges if each[0] <= key_slot(name.encode()) <= each[1])
        if home in missing:
            missing.remove(home)
            yield name


def without_tag_where_it_goes(key, ranges):
    found, plain = {}, key.replace("%", "%25").replace("{", "%7b").replace("}", "%7d")
    for number in itertools.count():
        name = f"{plain}#{number}"
        found.setdefault(_home(name, ranges), name)
        if len(found) == len(ranges):
            return set(found.values())


def _home(name, ranges):
    slot = key_slot(name.encode())
    return next(n for n, (first, last) in enumerate(ranges) if first <= slot <= last)


# replica -------------------------------------------------------------------------------------


def _row(node, key):
    stored = node.get(key)
    return None if stored is None else json.loads(stored)


def always_the_replica(primary, replica, key, session):
    return _row(replica, key)


def always_the_primary(primary, replica, key, session):
    return _row(primary, key)


def primary_for_all_who_write(primary, replica, key, session):
    return _row(primary if key in session else replica, key)


def primary_for_all_in_a_session(primary, replica, key, session):
    row = _row(replica, key)
    if session and (row is None or row["version"] < max(session.values())):
        row = _row(primary, key)
    return row


def does_not_remember(primary, replica, key, session):
    try:
        row = _row(replica, key)
    except redis.ConnectionError:
        return _row(primary, key)
    if (row["version"] if row else 0) < session.get(key, 0):
        row = _row(primary, key)
    return row


def missing_is_an_error(primary, replica, key, session):
    row = _row(replica, key)
    if row["version"] < session.get(key, 0):
        row = _row(primary, key)
    return row


def missing_is_believed(primary, replica, key, session):
    row = _row(replica, key)
    if row is not None and row["version"] < session.get(key, 0):
        row = _row(primary, key)
    return row


def missing_asks_the_primary(primary, replica, key, session):
    row = _row(replica, key)
    if row is None or row["version"] < session.get(key, 0):
        row = _row(primary, key)
    return row


def replica_down_is_an_error(primary, replica, key, session):
    row = _row(replica, key)
    if (row["version"] if row else 0) < session.get(key, 0):
        row = _row(primary, key)
    session[key] = max(row["version"] if row else 0, session.get(key, 0))
    return row


def one_version_too_strict(primary, replica, key, session):
    row = _row(replica, key)
    if (row["version"] if row else 0) <= session.get(key, 0):
        row = _row(primary, key)
    return row


def gives_the_text(primary, replica, key, session):
    return replica.get(key)


def asks_both_and_compares(primary, replica, key, session):
    rows = [_row(node, key) for node in (replica, primary)]
    return max(rows, key=lambda row: row["version"] if row else 0)


def _read(primary, replica, key, session, *, note=True, old=lambda row, seen: row < seen):
    """The solution, with what a learner might do instead."""
    try:
        row, down = _row(replica, key), False
    except redis.RedisError:
        row, down = None, True
    if down or old(row["version"] if row else 0, session.get(key, 0)):
        row = _row(primary, key)
    if note and row:
        session[key] = max(row["version"], session.get(key, 0))
    return row


def versions_as_text(*args):
    return _read(*args, old=lambda row, seen: bool(seen) and (not row or str(row) < str(seen)))


def first_note_stays(primary, replica, key, session):
    row = _read(primary, replica, key, session, note=False)
    if row:
        session.setdefault(key, row["version"])
    return row


def notes_only_this(primary, replica, key, session):
    row = _read(primary, replica, key, session)
    seen = session.get(key)
    session.clear()
    if seen is not None:
        session[key] = seen
    return row


def old_is_better_than_none(primary, replica, key, session):
    try:
        row = _row(replica, key)
    except redis.RedisError:
        return _row(primary, key)
    if (row["version"] if row else 0) < session.get(key, 0):
        row = _row(primary, key) or row
    if row:
        session[key] = max(row["version"], session.get(key, 0))
    return row


def read_with_a_loop(primary, replica, key, session):
    best, seen = None, session.get(key, 0)
    for node in (replica, primary):
        try:
            best = _row(node, key)
        except redis.RedisError:
            if node is primary:
                raise
            continue
        if best is None and not seen:
            return None
        if best is not None and best["version"] >= seen:
            session[key] = best["version"]
            return best
    return best


def read_and_keep_versions_elsewhere(primary, replica, key, session):
    needed = max(session.get(key, 0), session.get(("seen", key), 0))
    try:
        text = replica.mget(key)[0]
        fresh = (json.loads(text)["version"] if text else 0) >= needed
    except (redis.ConnectionError, redis.TimeoutError):
        text, fresh = None, False
    if not fresh:
        text = primary.get(key)
    row = json.loads(text) if text else None
    if row:
        session["seen", key] = max(needed, row["version"])
    return row


# failover ------------------------------------------------------------------------------------


def only_set(primary, key, value, replicas, again):
    primary.set(key, value, ex=300)
    return True


def wait_from_the_pool(primary, key, value, replicas, again):
    try:
        primary.set(key, value, ex=300)
        have = primary.wait(replicas, 100)
    except redis.RedisError:
        have = -1
    if have >= replicas:
        return True
    again.append((key, value))
    return False


def wait_in_a_transaction(primary, key, value, replicas, again):
    try:
        with primary.pipeline() as pipe:
            pipe.set(key, value, ex=300)
            pipe.wait(replicas, 100)
            have = pipe.execute()[-1]
    except redis.RedisError:
        have = -1
    if have >= replicas:
        return True
    again.append((key, value))
    return False


def one_is_enough(primary, key, value, replicas, again):
    try:
        line = primary.client()
        line.set(key, value, ex=300)
        if line.wait(1, 100) >= 1:
            return True
    except redis.RedisError:
        pass
    again.append((key, value))
    return False


def wait_is_not_read(primary, key, value, replicas, again):
    line = primary.client()
    line.set(key, value, ex=300)
    line.wait(replicas, 100)
    return True


def waits_for_ever(primary, key, value, replicas, again):
    line = primary.client()
    line.set(key, value, ex=300)
    return line.wait(replicas, 0) >= replicas


def waits_for_seconds(primary, key, value, replicas, again):
    line = primary.client()
    line.set(key, value, ex=300)
    if line.wait(replicas, 2_000) >= replicas:
        return True
    again.append((key, value))
    return False


def takes_it_back(primary, key, value, replicas, again):
    line = primary.client()
    line.set(key, value, ex=300)
    if line.wait(replicas, 100) >= replicas:
        return True
    line.delete(key)
    again.append((key, value))
    return False


def forgets_to_remember(primary, key, value, replicas, again):
    line = primary.client()
    line.set(key, value, ex=300)
    return line.wait(replicas, 100) >= replicas


def an_error_is_an_error(primary, key, value, replicas, again):
    line = primary.client()
    line.set(key, value, ex=300)
    if line.wait(replicas, 100) >= replicas:
        return True
    again.append((key, value))
    return False


def only_wait_may_fail(primary, key, value, replicas, again):
    line = primary.client()
    line.set(key, value, ex=300)
    try:
        if line.wait(replicas, 100) >= replicas:
            return True
    except redis.RedisError:
        pass
    again.append((key, value))
    return False


def past_the_client(primary, key, value, replicas, again):
    pool = primary.connection_pool
    try:
        line = redis.Redis(connection_pool=pool, single_connection_client=True)
        line.set(key, value, ex=300)
        if line.wait(replicas, 100) >= replicas:
            return True
    except redis.RedisError:
        pass
    again.append((key, value))
    return False


def a_majority(primary, key, value, replicas, again):
    try:
        with primary.client() as line:
            line.set(key, value, ex=300)
            if line.wait(replicas, 100) > replicas / 2:
                return True
    except redis.RedisError:
        pass
    again.append((key, value))
    return False


def a_tenth_of_a_millisecond(primary, key, value, replicas, again):
    try:
        with primary.client() as line:
            line.set(key, value, ex=300)
            if line.wait(replicas, 0.1) >= replicas:
                return True
    except redis.RedisError:
        pass
    again.append((key, value))
    return False


def always_two(primary, key, value, replicas, again):
    try:
        line = primary.client()
        line.set(key, value, ex=300)
        if line.wait(2, 100) == 2:
            return True
    except redis.RedisError:
        pass
    again.append((key, value))
    return False


def without_ttl(primary, key, value, replicas, again):
    line = primary.client()
    line.set(key, value)
    return line.wait(replicas, 100) >= replicas


def empties_the_list(primary, key, value, replicas, again):
    again.clear()
    return _save(primary, key, value, replicas, again)


def in_a_pipeline(primary, key, value, replicas, again):
    try:
        with primary.pipeline(transaction=False) as pipe:
            pipe.set(key, value, ex=300)
            pipe.execute_command("WAIT", replicas, 100)
            _, have = pipe.execute()
    except redis.RedisError:
        have = 0
    safe = have >= replicas
    if not safe:
        again.append((key, value))
    return safe


def _save(primary, key, value, replicas, again):
    again.append((key, value))
    try:
        with primary.client() as line:
            line.execute_command("SET", key, value, "EX", 300)
            if line.execute_command("WAIT", replicas, 80) < replicas:
                return False
    except redis.RedisError:
        return False
    again.remove((key, value))
    return True


def tries_twice(primary, key, value, replicas, again):
    try:
        line = primary.client()
        line.set(key, value, px=300_000)
        for _ in range(2):
            if line.wait(replicas, 50) >= replicas:
                return True
    except redis.ConnectionError:
        pass
    again += [(key, value)]
    return False


WRONG = {
    "16_beyond_one_node.tags": [
        Wrong("no tag", no_tag, "refused with CROSSSLOT"),
        Wrong("one tag for the shop", one_tag_for_the_shop, "All keys of all 300 users are in"),
        Wrong("the kind as tag", kind_as_tag, "'{cart}:1' in slot"),
        Wrong("the bare id", bare_id, "keys of the user ''"),
        Wrong("braces dropped", braces_dropped, "is the key of the profile of user '' and also"),
        Wrong("ten buckets", ten_buckets, "in 10 slots"),
        Wrong("one key for all", one_key_for_all_kinds, "profile of user '1' and also"),
        Wrong("hash()", pythons_hash, "depends on hash()"),
        Wrong("a placeholder", placeholder_for_nobody, "also that of the profile of user 'anonym"),
        Wrong("in small letters", in_small_letters, "user 'Bob' and also"),
        Wrong("bytes", as_bytes, "a key, a text, was expected"),
        Wrong("no closing brace", without_end, "'{user:1:cart' in slot"),
    ],
    "16_beyond_one_node.local": [
        Wrong("never kept", never_kept, "it was read 0.05 s ago"),
        Wrong("for ever", kept_for_ever, "value kept is 10 s old"),
        Wrong("None is not kept", none_is_not_kept, "a missing key can be hot too"),
        Wrong("each read prolongs", each_read_prolongs, "1.05 s ago and given out since"),
        Wrong("one place for all", one_place_for_all, "price:8 is '500'"),
        Wrong("no bound", without_bound, "holds 300 of them"),
        Wrong("one over", one_over, "held 101; 100 were allowed"),
        Wrong("stops when full", stops_when_full, "what is over has to make room"),
        Wrong("old rather than None", old_rather_than_none, "price:9 was deleted"),
        Wrong("a tenth", a_tenth_of_a_second, "one a second and pod"),
        Wrong("whole seconds", by_whole_seconds_late, "the value kept is 1.5 s old"),
        Wrong("old first", stale_then_asks, "At second 60 read_hot gave '1990'"),
    ],
    "16_beyond_one_node.copies": [
        Wrong("numbered", numbered, "'product:v1:7:0'"),
        Wrong("tags in order", tags_in_order, "'{0}:product:v1:7'"),
        Wrong("by chance", by_chance, "other names when asked for again"),
        Wrong("tag behind", tag_behind, "copies of '{user:1}:feed' are"),
        Wrong("only the tag", only_the_tag, "and of 'product:v1:8'"),
        Wrong("a hundred tries", a_hundred_tries, "On uneven nodes"),
        Wrong("a dict", by_node, "a list of keys was expected"),
        Wrong("a tag by hash()", tag_by_hash, "depend on hash()"),
        Wrong("without its braces", without_its_braces, "copy of '{user:1}:feed' and of 'user:1"),
        Wrong("only the last word", only_the_last_word, "}feed' is a copy of"),
    ],
    "16_beyond_one_node.replica": [
        Wrong("always the replica", always_the_replica, "gave version 4; expected was version 5"),
        Wrong("always the primary", always_the_primary, "read asked primary 1; expected"),
        Wrong("whoever writes", primary_for_all_who_write, "asked primary 1; expected was primary"),
        Wrong("the largest version", primary_for_all_in_a_session, "has written another key"),
        Wrong("does not remember", does_not_remember, "saw version 7"),
        Wrong("missing is an error", missing_is_an_error, "TypeError"),
        Wrong("missing is believed", missing_is_believed, "gave None; expected was"),
        Wrong("missing asks", missing_asks_the_primary, "Nobody has written anything: read asked"),
        Wrong("replica down", replica_down_is_an_error, "ConnectionError"),
        Wrong(
            "too strict",
            one_version_too_strict,
            "caught up with what this user wrote: read",
        ),
        Wrong("the text", gives_the_text, "a row, a dict, or None"),
        Wrong("asks both", asks_both_and_compares, "read asked primary 1, replica 1; expected"),
        Wrong("versions as text", versions_as_text, "version 9; expected was version 10"),
        Wrong("the first note stays", first_note_stays, "and saw version 10 since"),
        Wrong("notes only this", notes_only_this, "has taken that note away"),
        Wrong("old, better than None", old_is_better_than_none, "still has an older one"),
    ],
    "16_beyond_one_node.failover": [
        Wrong("only SET", only_set, "save gave True; the primary died"),
        Wrong("from the pool", wait_from_the_pool, "WAIT was asked on another connection"),
        Wrong("transaction", wait_in_a_transaction, "where it does not wait"),
        Wrong("one is enough", one_is_enough, "WAIT was asked on the connection of the write"),
        Wrong("for ever", waits_for_ever, "timeout 0"),
        Wrong("for seconds", waits_for_seconds, "took 2,000 ms"),
        Wrong("takes it back", takes_it_back, "took the write back"),
        Wrong("forgets", forgets_to_remember, "is in `again` 0 times"),
        Wrong("an error", an_error_is_an_error, "died before the write, and save raised"),
        Wrong("past the client", past_the_client, "a connection that it made itself"),
        Wrong("always two", always_two, "There is one replica"),
        Wrong("a majority", a_majority, "Of three replicas two had the write"),
        Wrong("0.1 for 100 ms", a_tenth_of_a_millisecond, "for 0.1 ms at most"),
        Wrong("no TTL", without_ttl, "no TTL"),
        Wrong("empties the list", empties_the_list, "held ('other', '1') before"),
    ],
}

RIGHT = {
    "16_beyond_one_node.tags": [quoted_id, many_buckets, id_as_json],
    "16_beyond_one_node.local": [oldest_goes, what_is_over_goes, by_the_second, only_the_newest],
    "16_beyond_one_node.copies": [one_after_the_other, as_a_generator, without_tag_where_it_goes],
    "16_beyond_one_node.replica": [read_with_a_loop, read_and_keep_versions_elsewhere],
    "16_beyond_one_node.failover": [in_a_pipeline, _save, tries_twice],
}
