"""Answers to lab 00, wrong and right, as learners write them."""

from __future__ import annotations

import json

from answers import Wrong

# remember ------------------------------------------------------------------------------------


def as_python_text(cache, key, value, seconds):
    cache.set(key, str(value), ex=seconds)


def without_ttl(cache, key, value, seconds):
    cache.set(key, json.dumps(value))


def milliseconds(cache, key, value, seconds):
    cache.set(key, json.dumps(value), px=seconds)


def always_a_minute(cache, key, value, seconds):
    cache.set(key, json.dumps(value), ex=60)


def encoded_twice(cache, key, value, seconds):
    cache.set(key, json.dumps(json.dumps(value)), ex=seconds)


def only_what_is_true(cache, key, value, seconds):
    if value:
        cache.set(key, json.dumps(value), ex=seconds)


def under_another_key(cache, key, value, seconds):
    cache.set(f"cache:{key}", json.dumps(value), ex=seconds)


def as_a_hash(cache, key, value, seconds):
    cache.hset(key, "value", json.dumps(value))
    cache.expire(key, seconds)


def in_two_steps(cache, key, value, seconds):
    text = json.dumps(value, separators=(",", ":"))
    cache.set(name=key, value=text)
    cache.expire(key, seconds)


def only_the_first_time(cache, key, value, seconds):
    cache.set(key, json.dumps(value), ex=seconds, nx=True)


def keeps_the_old_ttl(cache, key, value, seconds):
    with cache.pipeline() as pipe:
        pipe.set(key, json.dumps(value), keepttl=True)
        pipe.expire(key, seconds, nx=True)
        pipe.execute()


def with_setex(cache, key, value, seconds):
    cache.execute_command("SETEX", key, seconds, json.dumps(value))


# recall --------------------------------------------------------------------------------------


def raw_text(cache, key, default=None):
    stored = cache.get(key)
    return default if stored is None else stored


def if_value(cache, key, default=None):
    stored = cache.get(key)
    value = json.loads(stored) if stored else None
    return value or default


def null_is_nothing(cache, key, default=None):
    value = json.loads(cache.get(key) or "null")
    return default if value is None else value


def no_default(cache, key, default=None):
    stored = cache.get(key)
    return None if stored is None else json.loads(stored)


def decodes_nothing(cache, key, default=None):
    return json.loads(cache.get(key))


def default_by_way_of_json(cache, key, default=None):
    return json.loads(cache.get(key) or json.dumps(default))


def takes_it_out(cache, key, default=None):
    stored = cache.getdel(key)
    return default if stored is None else json.loads(stored)


def prolongs_it(cache, key, default=None):
    stored = cache.getex(key, ex=300)
    return default if stored is None else json.loads(stored)


def stores_the_default(cache, key, default=None):
    stored = cache.get(key)
    if stored is None:
        cache.set(key, json.dumps(default, default=str), ex=60)
        return default
    return json.loads(stored)


def looks_for_a_beginning(cache, key, default=None):
    for found in cache.scan_iter(match=f"{key}*"):
        return json.loads(cache.get(found))
    return default


def by_an_exception(cache, key, default=None):
    try:
        return json.loads(cache.get(key))
    except TypeError:
        return default


def with_exists(cache, key, default=None):
    return json.loads(cache.get(key)) if cache.exists(key) else default


def with_mget(cache, key, default=None):
    for stored in cache.mget([key]):
        if stored is not None:
            return json.loads(stored)
    return default


WRONG = {
    "00_start_here.remember": [
        Wrong("Python's text instead of JSON", as_python_text, "which is not JSON"),
        Wrong("no TTL", without_ttl, "has no TTL"),
        Wrong("TTL in milliseconds", milliseconds, "it should live 60 s"),
        Wrong("a TTL of its own", always_a_minute, "it should live 5 s"),
        Wrong("encoded twice", encoded_twice, "the JSON of something else"),
        Wrong("values that look like nothing are left out", only_what_is_true, "cache is empty"),
        Wrong("another key", under_another_key, "expected was greeting:1 alone"),
        Wrong("a hash", as_a_hash, "holds a hash"),
        Wrong("only the first time", only_the_first_time, "the JSON of something else"),
        Wrong("keeps the old TTL", keeps_the_old_ttl, "it should live 20 s"),
    ],
    "00_start_here.recall": [
        Wrong("the stored text itself", raw_text, "instead of {'to': 'Alice', 'times': 0}"),
        Wrong("truth of the value", if_value, "instead of 0"),
        Wrong("null is taken for nothing", null_is_nothing, "instead of None"),
        Wrong("the default is forgotten", no_default, "instead of the default"),
        Wrong("decodes what is not there", decodes_nothing, "TypeError"),
        Wrong("the default by way of JSON", default_by_way_of_json, "TypeError"),
        Wrong("takes the copy out", takes_it_out, "recall has changed that"),
        Wrong("prolongs the copy", prolongs_it, "after recall it has one"),
        Wrong("stores the default", stores_the_default, "recall has changed the cache"),
        Wrong("another key's value", looks_for_a_beginning, "instead of the default"),
    ],
}

RIGHT = {
    "00_start_here.remember": [in_two_steps, with_setex],
    "00_start_here.recall": [with_exists, with_mget, by_an_exception],
}
