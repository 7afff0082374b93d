"""fakeredis, as this library uses it, ends a key when a server would."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from cachelab.cache import server

WAYS = {
    "SET EX": lambda cache: cache.set("k", "v", ex=30),
    "SETEX": lambda cache: cache.execute_command("SETEX", "k", 30, "v"),
    "PSETEX": lambda cache: cache.psetex("k", 30_000, "v"),
    "EXPIRE": lambda cache: cache.set("k", "v") and cache.expire("k", 30),
    "GETEX EX": lambda cache: cache.set("k", "v") and cache.getex("k", ex=30),
    "GETEX PX": lambda cache: cache.set("k", "v") and cache.getex("k", px=30_000),
    "GETEX PXAT": lambda cache: (
        cache.set("k", "v") and cache.getex("k", pxat=round((time.time() + 30) * 1000))
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_lives_as_long_as_it_was_asked_to_to_the_millisecond(way):
    with closing(server.fake()) as found:
        cache = found.client()
        time.sleep(1 - time.time() % 1 + 0.9)  # late in a second, where cutting it off shows
        WAYS[way](cache)
        assert cache.pttl("k") > 29_500
