"""Answers to lab 02, wrong and right, as learners write them."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections import Counter, OrderedDict

import cachetools

from answers import Wrong
from cachelab.patterns.local_cache import LocalCache

# ttl -----------------------------------------------------------------------------------------


def never_remembers(load, ttl, clock):
    return load


def a_clock_of_its_own(load, ttl, clock):
    return make_ttl(load, ttl, time.monotonic)


def if_value(load, ttl, clock):
    kept = {}

    def get(key):
        value, until = kept.get(key, (None, 0))
        if value and clock() < until:
            return value
        value = load(key)
        kept[key] = value, clock() + ttl
        return value

    return get


def if_not_none(load, ttl, clock):
    kept = {}

    def get(key):
        value, until = kept.get(key, (None, 0))
        if value is not None and clock() < until:
            return value
        kept[key] = value, _ = load(key), clock() + ttl
        return value

    return get


def prolongs_on_read(load, ttl, clock):
    kept = {}

    def get(key):
        now = clock()
        value = kept[key][0] if key in kept and now < kept[key][1] else load(key)
        kept[key] = value, now + ttl
        return value

    return get


def one_second_too_long(load, ttl, clock):
    kept = {}

    def get(key):
        now = clock()
        if key in kept and now <= kept[key][1]:
            return kept[key][0]
        kept[key] = load(key), now + ttl
        return kept[key][0]

    return get


def one_value_for_all(load, ttl, clock):
    kept = []

    def get(key):
        now = clock()
        if not kept or now >= kept[0][1]:
            kept[:] = [(load(key), now + ttl)]
        return kept[0][0]

    return get


def one_time_for_all(load, ttl, clock):
    kept, until = {}, float("-inf")

    def get(key):
        nonlocal until
        now = clock()
        if now >= until:
            kept.clear()
            until = now + ttl
        if key not in kept:
            kept[key] = load(key)
        return kept[key]

    return get


def the_latest_time_for_all(load, ttl, clock):
    kept, until = {}, float("-inf")

    def get(key):
        nonlocal until
        now = clock()
        if key not in kept or now >= until:
            kept[key], until = load(key), now + ttl
        return kept[key]

    return get


def counts_from_the_end(load, ttl, clock):
    kept = {}

    def get(key):
        if key in kept and clock() < kept[key][1]:
            return kept[key][0]
        kept[key] = load(key), clock() + ttl
        return kept[key][0]

    return get


def whole_seconds(load, ttl, clock):
    return make_ttl(load, int(ttl), clock)


def old_rather_than_an_error(load, ttl, clock):
    kept = {}

    def get(key):
        now = clock()
        if key in kept and now < kept[key][1]:
            return kept[key][0]
        try:
            kept[key] = load(key), now + ttl
        except Exception:
            if key not in kept:
                raise
        return kept[key][0]

    return get


def remembers_errors(load, ttl, clock):
    def outcome(key):
        try:
            return load(key), None
        except Exception as error:
            return None, error

    get = make_ttl(outcome, ttl, clock)

    def raising(key):
        value, error = get(key)
        if error:
            raise error
        return value

    return raising


def hides_errors(load, ttl, clock):
    get = make_ttl(load, ttl, clock)

    def quiet(key):
        try:
            return get(key)
        except Exception:
            return None

    return quiet


def make_ttl(load, ttl, clock):
    kept = {}

    def get(key):
        now = clock()
        if key in kept and now < kept[key][1]:
            return kept[key][0]
        kept[key] = load(key), now + ttl
        return kept[key][0]

    return get


def age_instead_of_end(load, ttl, clock):
    values, loaded = {}, {}

    def get(key):
        now = clock()
        age = now - loaded.get(key, float("-inf"))
        if age >= ttl:
            values[key] = load(key)
            loaded[key] = now
        return values[key]

    return get


class AsAClass:
    def __init__(self, load, ttl, clock):
        self.load, self.ttl, self.clock, self.kept = load, ttl, clock, {}

    def __call__(self, key):
        began = self.clock()
        try:
            value, until = self.kept[key]
        except KeyError:
            until = began
        if until <= began:
            value = self.load(key)
            self.kept[key] = (value, began + self.ttl)
        return value


def by_the_pattern(load, ttl, clock):
    kept = LocalCache(1_000, ttl, clock)
    return lambda key: kept.get(key, lambda: load(key))


def by_the_text_of_the_key(load, ttl, clock):
    kept = {}

    def get(key):
        now = clock()
        if str(key) not in kept or now - kept[str(key)][1] >= ttl:
            kept[str(key)] = load(key), now
        return kept[str(key)][0]

    return get


def with_a_bound(load, ttl, clock):
    kept = OrderedDict()

    def get(key):
        now = clock()
        if key not in kept or now - kept[key][1] >= ttl:
            kept[key] = load(key), now
            if len(kept) > 128:
                kept.popitem(last=False)
        return kept[key][0]

    return get


def sweeps_what_is_too_old(load, ttl, clock):
    kept, lock = OrderedDict(), threading.RLock()

    def get(key):
        with lock:
            now = clock()
            while kept and now - next(iter(kept.values()))[0] >= ttl:
                kept.popitem(last=False)
            if key not in kept:
                kept[key] = now, load(key)
            return kept[key][1]

    return get


# lru -----------------------------------------------------------------------------------------


def keeps_nothing(load, room):
    return load


def unbounded(load, room):
    kept = {}

    def get(key):
        if key not in kept:
            kept[key] = load(key)
        return kept[key]

    return get


def first_in_first_out(load, room):
    kept = OrderedDict()

    def get(key):
        if key not in kept:
            kept[key] = load(key)
            if len(kept) > room:
                kept.popitem(last=False)
        return kept[key]

    return get


def the_newest_goes(load, room):
    kept = OrderedDict()

    def get(key):
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        value = load(key)
        kept[key] = value
        if len(kept) > room:
            kept.popitem()
        return value

    return get


def empties_when_full(load, room):
    kept = {}

    def get(key):
        if key not in kept:
            value = load(key)
            if len(kept) >= room:
                kept.clear()
            kept[key] = value
        return kept[key]

    return get


def one_too_few(load, room):
    return lru(load, room - 1) if room > 1 else load


def one_too_many(load, room):
    return lru(load, room + 1)


def evicts_before_the_load(load, room):
    kept = OrderedDict()

    def get(key):
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        if len(kept) >= room:
            kept.popitem(last=False)
        kept[key] = load(key)
        return kept[key]

    return get


def lru_without_none(load, room):
    kept = OrderedDict()

    def get(key):
        value = kept.get(key)
        if value is None:
            value = load(key)
        kept[key] = value
        kept.move_to_end(key)
        if len(kept) > room:
            kept.popitem(last=False)
        return value

    return get


def least_frequently_used(load, room):
    kept, uses = {}, Counter()

    def get(key):
        if key not in kept:
            value = load(key)
            if len(kept) >= room:
                victim = min(kept, key=lambda one: uses[one])
                del kept[victim], uses[victim]
            kept[key] = value
        uses[key] += 1
        return kept[key]

    return get


def at_random(load, room):
    kept, draw = {}, random.Random(1)

    def get(key):
        if key not in kept:
            value = load(key)
            if len(kept) >= room:
                del kept[draw.choice(sorted(kept))]
            kept[key] = value
        return kept[key]

    return get


def a_list_that_grows(load, room):
    kept, used = {}, []

    def get(key):
        used.append(key)
        if key not in kept:
            value = load(key)
            if len(kept) >= room:
                victim = min(kept, key=lambda one: len(used) - used[::-1].index(one))
                del kept[victim]
            kept[key] = value
        return kept[key]

    return get


def values_that_stay(load, room):
    kept, everything = lru(load, room), []

    def get(key):
        value = kept(key)
        if not isinstance(value, str):
            everything.append(value)
        return value

    return get


def swallows(load, room):
    def quiet(key):
        try:
            return get(key)
        except Exception:
            return None

    get = lru(load, room)
    return quiet


def lru(load, room):
    """With a plain dict, whose order is the order of insertion."""
    kept = {}

    def get(key):
        value = kept.pop(key) if key in kept else load(key)
        kept[key] = value
        if len(kept) > room:
            del kept[next(iter(kept))]
        return value

    return get


def from_functools(load, room):
    return functools.lru_cache(maxsize=room)(load)


def from_cachetools(load, room):
    return cachetools.cached(cachetools.LRUCache(room), lock=threading.Lock())(load)


def by_the_time_of_use(load, room):
    kept, used, turn = {}, {}, 0

    def get(key):
        nonlocal turn
        turn += 1
        if key not in kept:
            value = load(key)
            if len(kept) == room:
                oldest = min(used, key=used.get)
                del kept[oldest], used[oldest]
            kept[key] = value
        used[key] = turn
        return kept[key]

    return get


# refresh -------------------------------------------------------------------------------------


def on_every_read(load, clock):
    load()
    return load


def never_again(load, clock):
    kept = load()
    return lambda: kept


def on_the_first_read(load, clock):
    kept, due = {}, float("-inf")

    def table():
        nonlocal kept, due
        if clock() >= due:
            kept, due = load(), clock() + 3600
        return kept

    return table


def starts_without_a_table(load, clock):
    kept, due = {}, float("-inf")

    def table():
        nonlocal kept, due
        now = clock()
        if now >= due:
            try:
                kept, due = load(), now + 3600
            except Exception:
                due = now + 60
        return kept

    table()
    return table


def only_once_more(load, clock):
    kept, began, refreshed = load(), clock(), False

    def table():
        nonlocal kept, refreshed
        if not refreshed and clock() >= began + 3600:
            kept, refreshed = load(), True
        return kept

    return table


def the_reader_gets_the_error(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal kept, due
        if clock() >= due:
            kept, due = load(), clock() + 3600
        return kept

    return table


def none_rather_than_old(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal kept, due
        if clock() >= due:
            try:
                kept, due = load(), clock() + 3600
            except Exception:
                kept, due = None, clock() + 60
        return kept

    return table


def asks_on_every_read(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal kept, due
        if clock() >= due:
            with contextlib.suppress(Exception):
                kept, due = load(), clock() + 3600
        return kept

    return table


def waits_another_hour(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal kept, due
        if clock() >= due:
            due = clock() + 3600
            with contextlib.suppress(Exception):
                kept = load()
        return kept

    return table


def peace_only_once(load, clock):
    kept, due, failed = load(), clock() + 3600, False

    def table():
        nonlocal kept, due, failed
        if clock() >= due:
            try:
                kept, due, failed = load(), clock() + 3600, False
            except Exception:
                due = due if failed else clock() + 60
                failed = True
        return kept

    return table


def in_place(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal due
        if clock() >= due:
            try:
                fresh = load()
                due = clock() + 3600
                kept.clear()
                kept.update(fresh)
            except Exception:
                due = clock() + 60
        return kept

    return table


def only_adds(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal due
        if clock() >= due:
            try:
                kept.update(load())
                due = clock() + 3600
            except Exception:
                due = clock() + 60
        return kept

    return table


def empties_first(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal kept, due
        if clock() >= due:
            kept = {}
            try:
                kept = load()
                due = clock() + 3600
            except Exception:
                due = clock() + 60
        return kept

    return table


def empty_is_nothing(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal kept, due
        if not kept or clock() >= due:
            try:
                kept, due = load(), clock() + 3600
            except Exception:
                due = clock() + 60
        return kept

    return table


def tries_three_times(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal kept, due
        if clock() >= due:
            due = clock() + 60
            for _ in range(3):
                try:
                    kept, due = load(), clock() + 3600
                    break
                except Exception:
                    pass
        return kept

    return table


def loads_twice_on_start(load, clock):
    load()
    return the_reader_gets_the_error(load, clock)


class Table:
    def __init__(self, load, clock):
        self.load, self.clock = load, clock
        self.loaded = self.tried = clock()
        self.kept = load()

    def __call__(self):
        now = self.clock()
        if now - self.loaded >= 3600 and (self.tried == self.loaded or now - self.tried >= 60):
            self.tried = now
            try:
                self.kept = self.load()
                self.loaded = now
            except Exception:
                pass
        return self.kept


def on_a_grid(load, clock):
    """Hourly as counted from the start, whatever happened in between."""
    due, kept = clock() + 3600, load()

    def table():
        nonlocal kept, due
        now = clock()
        if now >= due:
            try:
                kept = load()
                while due <= now:
                    due += 3600
            except Exception:
                due = now + 60
        return dict(kept)

    return table


def from_the_end_of_the_load(load, clock):
    kept, due = load(), clock() + 3600

    def table():
        nonlocal kept, due
        if clock() >= due:
            try:
                kept, due = load(), clock() + 3600
            except Exception:
                due = clock() + 60
        return kept

    return table


def makes_up_for_each_hour(load, clock):
    due = clock() + 3600
    kept = load()

    def table():
        nonlocal kept, due
        now = clock()
        if now >= due:
            try:
                kept, due = load(), due + 3600
            except Exception:
                due = now + 60
        return kept

    return table


def empty_is_a_failure(load, clock):
    due = clock() + 3600
    kept = load()

    def table():
        nonlocal kept, due
        now = clock()
        if now >= due:
            due = now + 60
            with contextlib.suppress(Exception):
                if found := load():
                    kept, due = found, now + 3600
        return kept

    return table


def as_a_generator(load, clock):
    due, kept = clock() + 3600, load()

    def tables(kept, due):
        while True:
            now = clock()
            if now >= due:
                due = now + 60
                with contextlib.suppress(Exception):
                    kept, due = load(), now + 3600
            yield kept

    given = tables(kept, due)
    return lambda: next(given)


# broadcast -----------------------------------------------------------------------------------


def remembers_nothing(cache, db):
    return db.flag


def only_a_ttl(cache, db):
    return make_ttl(db.flag, 60, time.monotonic)


def without_a_ttl(cache, db):
    return _told(cache, db, ttl=float("inf"))


def ninety_seconds(cache, db):
    return _told(cache, db, ttl=90)


def ten_seconds(cache, db):
    return _told(cache, db, ttl=10)


def _told(cache, db, *, ttl=60, everything=False, most=10_000, wait=0.0, eager=True):
    kept, news = {}, cache.pubsub(ignore_subscribe_messages=True)
    if eager:
        news.subscribe("flags")

    def is_on(name):
        for _ in range(most):
            if not news.subscribed:
                break
            message = news.get_message(timeout=wait)
            if message is None:
                break
            if everything:
                kept.clear()
            kept.pop(message["data"], None)
        now = time.monotonic()
        if name not in kept or now >= kept[name][1]:
            kept[name] = db.flag(name), now + ttl
        if not news.subscribed:
            news.subscribe("flags")
        return kept[name][0]

    return is_on


def drops_everything(cache, db):
    return _told(cache, db, everything=True)


def one_message_a_read(cache, db):
    return _told(cache, db, most=1)


def waits_for_messages(cache, db):
    return _told(cache, db, wait=1.0)


def subscribes_after_the_load(cache, db):
    return _told(cache, db, eager=False)


def only_what_is_on(cache, db):
    kept, news = {}, cache.pubsub(ignore_subscribe_messages=True)
    news.subscribe("flags")

    def is_on(name):
        while (message := news.get_message()) is not None:
            kept.pop(message["data"], None)
        value, until = kept.get(name, (None, 0))
        if value and time.monotonic() < until:
            return value
        kept[name] = db.flag(name), time.monotonic() + 60
        return kept[name][0]

    return is_on


def no_such_flag_is_asked_again(cache, db):
    kept, news = {}, cache.pubsub(ignore_subscribe_messages=True)
    news.subscribe("flags")

    def is_on(name):
        while (message := news.get_message()) is not None:
            kept.pop(message["data"], None)
        value, until = kept.get(name, (None, 0))
        if value is not None and time.monotonic() < until:
            return value
        kept[name] = db.flag(name), time.monotonic() + 60
        return kept[name][0]

    return is_on


def in_the_shared_cache(cache, db):
    def is_on(name):
        stored = cache.get(f"flag:{name}")
        if stored is not None:
            return {"1": True, "0": False, "": None}[stored]
        value = db.flag(name)
        cache.set(f"flag:{name}", "" if value is None else int(value), ex=60)
        return value

    return is_on


def in_a_thread(cache, db):
    kept, news = {}, cache.pubsub(ignore_subscribe_messages=True)
    news.subscribe("flags")

    def listen():
        for message in news.listen():
            kept.pop(message["data"], None)

    threading.Thread(target=listen, daemon=True).start()

    def is_on(name):
        now = time.monotonic()
        if name not in kept or now >= kept[name][1]:
            kept[name] = db.flag(name), now + 60
        return kept[name][0]

    return is_on


def in_a_thread_with_the_pattern(cache, db):
    kept, news = LocalCache(100, 60, lambda: time.monotonic()), cache.pubsub()
    news.subscribe("flags")

    def listen():
        for message in news.listen():
            if message["type"] == "message":
                kept.forget(message["data"])

    threading.Thread(target=listen, daemon=True).start()
    return lambda name: kept.get(name, lambda: db.flag(name))


def with_cachetools(cache, db):
    kept = cachetools.TTLCache(100, 60)
    flag = cachetools.cached(kept, key=str)(db.flag)
    news = cache.pubsub()
    news.subscribe(flags=lambda message: kept.pop(message["data"], None))

    def is_on(name):
        for _ in range(20):  # what has a function of its own is given to it, and None comes back
            news.get_message()
        return flag(name)

    return is_on


def turns_it_round(cache, db):
    kept, news = {}, cache.pubsub(ignore_subscribe_messages=True)
    news.subscribe("flags")

    def is_on(name):
        while message := news.get_message():
            if message["data"] in kept:
                value, until = kept[message["data"]]
                kept[message["data"]] = not value, until
        now = time.monotonic()
        if name not in kept or now >= kept[name][1]:
            kept[name] = db.flag(name), now + 60
        return kept[name][0]

    return is_on


def hears_after_the_answer(cache, db):
    kept, news = {}, cache.pubsub()
    news.subscribe("flags")

    def is_on(name):
        now = time.monotonic()
        if name not in kept or now >= kept[name][1]:
            kept[name] = db.flag(name), now + 60
        value = kept[name][0]
        while message := news.get_message():
            if message["type"] == "message":
                kept.pop(message["data"], None)
        return value

    return is_on


def loads_at_once_what_is_named(cache, db):
    kept, news = {}, cache.pubsub()
    news.subscribe("flags")

    def load(name):
        now = time.monotonic()
        kept[name] = db.flag(name), now

    def is_on(name):
        heard = [one["data"] for one in iter(news.get_message, None) if one["type"] == "message"]
        for named in set(heard) & kept.keys():
            load(named)
        if name not in kept or time.monotonic() - kept[name][1] >= 60:
            load(name)
        return kept[name][0]

    return is_on


WRONG = {
    "02_in_memory.ttl": [
        Wrong("never remembers", never_remembers, "second get('a') there were 2 loads"),
        Wrong("a clock of its own", a_clock_of_its_own, "by the clock that was passed in"),
        Wrong("if value", if_value, "The origin gave 0: three reads"),
        Wrong("if not None", if_not_none, "The origin gave None: three reads"),
        Wrong("a read prolongs", prolongs_on_read, "must not make it live longer"),
        Wrong("at the TTL itself", one_second_too_long, "exactly 60 s"),
        Wrong("one value for all keys", one_value_for_all, "get('b') gave 'a, load 1'"),
        Wrong("one time for all keys", one_time_for_all, "when only 'a' was too old"),
        Wrong("the latest time for all", the_latest_time_for_all, "needs a time of its own"),
        Wrong("age from the end of the load", counts_from_the_end, "from the beginning of the"),
        Wrong("whole seconds", whole_seconds, "TTL of 0.5 s a value was loaded again"),
        Wrong("old rather than an error", old_rather_than_an_error, "older than promised"),
        Wrong("remembers errors", remembers_errors, "gave the error again"),
        Wrong("hides errors", hides_errors, "A load failed, and get gave None"),
        Wrong("by the text of the key", by_the_text_of_the_key, "these are three keys"),
        Wrong("with a bound", with_a_bound, "no bound but the TTL"),
    ],
    "02_in_memory.lru": [
        Wrong("keeps nothing", keeps_nothing, "The second get('a') gave 'a, load 2'"),
        Wrong("unbounded", unbounded, "eight keys 8 values are still"),
        Wrong("first in, first out", first_in_first_out, "a had to go; the least"),
        Wrong("the newest goes", the_newest_goes, "d had to go"),
        Wrong("empties when full", empties_when_full, "a and c had to go"),
        Wrong("one too few", one_too_few, "another read of a went"),
        Wrong("one too many", one_too_many, "eight keys 4 values are still"),
        Wrong("evicts before the load", evicts_before_the_load, "a value that never came"),
        Wrong("None is nothing", lru_without_none, "The origin gave None: three reads"),
        Wrong("least frequently used", least_frequently_used, "with the least recently"),
        Wrong("a list that grows", a_list_that_grows, "keys are still held"),
        Wrong("values that stay", values_that_stay, "values are still held"),
        Wrong("swallows errors", swallows, "A load failed, and get gave None"),
    ],
    "02_in_memory.refresh": [
        Wrong("loads on every read", on_every_read, "Within the first hour the table was loaded"),
        Wrong("never again", never_again, "3,600 s after the start, table() gave"),
        Wrong("loads on the first read", on_the_first_read, "make_table loaded nothing"),
        Wrong("starts without a table", starts_without_a_table, "must not start"),
        Wrong("only once more", only_once_more, "7,200 s after the start, table() gave"),
        Wrong("the reader gets the error", the_reader_gets_the_error, "the reader got the error"),
        Wrong("None rather than old", none_rather_than_old, "failed, and table() gave None"),
        Wrong("asks on every read", asks_on_every_read, "a minute of peace."),
        Wrong("waits another hour", waits_another_hour, "did not try again"),
        Wrong("peace only once", peace_only_once, "for the second time"),
        Wrong("in place", in_place, "in their hands"),
        Wrong("only adds", only_adds, "'USD': 1.1"),
        Wrong("empties first", empties_first, "failed, and table() gave {}"),
        Wrong("an empty table is none", empty_is_nothing, "The origin's table was empty, and"),
        Wrong("tries three times", tries_three_times, "there were 3 loads, not one"),
        Wrong("loads twice on start", loads_twice_on_start, "On start the table was loaded 2"),
        Wrong("age from the end of the load", from_the_end_of_the_load, "3,600 s after it began"),
        Wrong("makes up for each hour", makes_up_for_each_hour, "five reads after that"),
        Wrong("empty is a failure", empty_is_a_failure, "The origin's table was emptied"),
    ],
    "02_in_memory.broadcast": [
        Wrong("remembers nothing", remembers_nothing, "which is True, asked 3 queries"),
        Wrong("only what is on", only_what_is_on, "which is False, asked 3 queries"),
        Wrong("no such flag", no_such_flag_is_asked_again, "which is None, asked 3 queries"),
        Wrong("only a TTL", only_a_ttl, "A flag was flipped and broadcast"),
        Wrong("no TTL", without_a_ttl, "A message was lost, and 284 s"),
        Wrong("90 s", ninety_seconds, "A message was lost, and 88 s"),
        Wrong("10 s", ten_seconds, "with one message three pods asked"),
        Wrong("drops everything", drops_everything, "50 messages about another flag"),
        Wrong("one message a read", one_message_a_read, "hear all that has arrived"),
        Wrong("waits for messages", waits_for_messages, "is_on waits for messages"),
        Wrong("subscribes too late", subscribes_after_the_load, "reached nobody"),
        Wrong("in the shared cache", in_the_shared_cache, "in the shared cache"),
        Wrong("a thread that drops too early", in_a_thread, "was loading was old already"),
        Wrong("turns it round", turns_it_round, "a second time, without a flip"),
        Wrong("hears after the answer", hears_after_the_answer, "is heard before the answer"),
    ],
}

RIGHT = {
    "02_in_memory.ttl": [
        age_instead_of_end,
        AsAClass,
        by_the_pattern,
        sweeps_what_is_too_old,
    ],
    "02_in_memory.lru": [lru, from_functools, from_cachetools, by_the_time_of_use],
    "02_in_memory.refresh": [Table, on_a_grid, as_a_generator],
    "02_in_memory.broadcast": [
        in_a_thread_with_the_pattern,
        with_cachetools,
        _told,
        loads_at_once_what_is_named,
    ],
}
