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
    ],
    "00_start_here.recall": [
        Wrong("the stored text itself", raw_text, "instead of {'to': 'Alice', 'times': 0}"),
        Wrong("truth of the value", if_value, "instead of 0"),
        Wrong("null is taken for nothing", null_is_nothing, "instead of None"),
        Wrong("the default is forgotten", no_default, "instead of the default"),
        Wrong("decodes what is not there", decodes_nothing, "TypeError"),
    ],
}

RIGHT = {
    "00_start_here.remember": [in_two_steps, with_setex],
    "00_start_here.recall": [with_exists, with_mget],
}
