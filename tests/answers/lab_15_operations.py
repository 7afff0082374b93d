"""Answers to lab 15, wrong and right, as learners write them."""

from __future__ import annotations

import json
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

from answers import Wrong

# floor ---------------------------------------------------------------------------------------


def seventy_for_all(reads, query_time, slots):
    return 0.7


def the_share_that_fits(reads, query_time, slots):
    return min(1.0, slots / (reads * query_time)) if reads else 0.0


def below_zero(reads, query_time, slots):
    return 1 - slots / (reads * query_time) if reads else 0.0


def in_per_cent(reads, query_time, slots):
    return 100 * floor_with_an_if(reads, query_time, slots)


def one_slot(reads, query_time, slots):
    return max(0.0, 1 - 1 / (reads * query_time)) if reads else 0.0


def to_one_decimal(reads, query_time, slots):
    return round(floor_with_an_if(reads, query_time, slots), 1)


def divides_by_no_reads(reads, query_time, slots):
    return max(0.0, 1 - slots / (reads * query_time))


def floor_with_an_if(reads, query_time, slots):
    if reads * query_time <= slots:
        return 0
    return (reads - slots / query_time) / reads


# alert ---------------------------------------------------------------------------------------


def below_seventy(pods, baseline):
    hits, misses = _sums(pods)
    return hits < 0.7 * (hits + misses)


def ten_points_lower(pods, baseline):
    hits, misses = _sums(pods)
    if hits + misses < 200 or not sum(baseline):
        return False
    return hits / (hits + misses) < baseline[0] / sum(baseline) - 0.1


def mean_of_the_pods(pods, baseline):
    shares = [misses / (hits + misses) for hits, misses in pods if hits + misses]
    if not shares or not sum(baseline):
        return False
    mean, reads = sum(shares) / len(shares), sum(map(sum, pods))
    before = baseline[1] / sum(baseline)
    return mean > 1.5 * before and (mean - before) * reads >= 50


def only_the_busy_pods(pods, baseline):
    return should_alert_by_sums([pod for pod in pods if sum(pod) >= 100], baseline)


def should_alert_by_sums(pods, baseline):
    return bool(sum(baseline)) and no_yesterday(pods, baseline)


def only_the_factor(pods, baseline):
    hits, misses = _sums(pods)
    if not sum(baseline):
        return False
    return misses > 1.5 * (hits + misses) * baseline[1] / sum(baseline)


def factor_and_many_reads(pods, baseline):
    return sum(_sums(pods)) >= 200 and only_the_factor(pods, baseline)


def only_the_fifty(pods, baseline):
    hits, misses = _sums(pods)
    if not sum(baseline):
        return False
    return misses - (hits + misses) * baseline[1] / sum(baseline) >= 50


def any_change(pods, baseline):
    hits, misses = _sums(pods)
    expected = (hits + misses) * baseline[1] / max(1, sum(baseline))
    return abs(misses - expected) >= 50 and not expected / 1.5 <= misses <= 1.5 * expected


def ratio_of_two_shares(pods, baseline):
    hits, misses = _sums(pods)
    if not hits + misses or not sum(baseline):
        return False
    return (misses / (hits + misses)) / (baseline[1] / sum(baseline)) > 1.5 and misses >= 60


def over_fifty_more(pods, baseline):
    hits, misses = _sums(pods)
    if not sum(baseline):
        return False
    expected = (hits + misses) * baseline[1] / sum(baseline)
    return misses > 1.5 * expected and misses - expected > 50


def fifty_misses(pods, baseline):
    return sum(misses for _, misses in pods) >= 50 and only_the_factor(pods, baseline)


def from_half_on(pods, baseline):
    hits, misses = _sums(pods)
    if not sum(baseline):
        return False
    expected = (hits + misses) * baseline[1] / sum(baseline)
    return misses >= 1.5 * expected and misses - expected >= 50


def misses_for_so_many_hits(pods, baseline):
    hits, misses = _sums(pods)
    if not baseline[0]:
        return False
    expected = hits * baseline[1] / baseline[0]
    return misses > 1.5 * expected and misses - expected >= 50


def no_yesterday(pods, baseline):
    hits, misses = _sums(pods)
    expected = (hits + misses) * baseline[1] / sum(baseline)
    return misses > 1.5 * expected and misses - expected >= 50


def each_pod_by_itself(pods, baseline):
    return any(no_yesterday([pod], baseline) for pod in pods if sum(baseline))


def alert_with_early_returns(pods, baseline):
    reads, misses = 0, 0
    for pod in pods:
        reads += pod[0] + pod[1]
        misses += pod[1]
    before = baseline[0] + baseline[1]
    if before == 0 or misses < 50:
        return False
    usual = reads * (baseline[1] / before)
    if misses - usual < 50:
        return False
    return misses > usual * 3 / 2


# register ------------------------------------------------------------------------------------


def _findings(register, keys_and_lives):
    for prefix, entry in register.items():
        if not entry["owner"]:
            yield prefix, "no owner"
        if not entry["cleared_by"]:
            yield prefix, "nothing clears it"
    for key, left in keys_and_lives:
        prefix = max((p for p in register if key.startswith(p)), key=len, default=None)
        if left == -2:
            continue
        if prefix is None:
            yield key, "unknown"
        elif left == -1:
            yield key, "no TTL"
        elif left > register[prefix]["ttl"]:
            yield key, "TTL too long"


def _paged(cache):
    keys = cache.scan_iter(count=500)
    while page := list(islice(keys, 500)):
        pipe = cache.pipeline(transaction=False)
        for key in page:
            pipe.ttl(key)
        yield from zip(page, pipe.execute(), strict=True)


def uses_keys(cache, register):
    lives = []
    found = cache.keys("*")
    pipe = cache.pipeline()
    for key in found:
        pipe.ttl(key)
    lives = pipe.execute() if found else []
    return list(_findings(register, zip(found, lives, strict=True)))


def one_trip_a_key(cache, register):
    return list(_findings(register, ((key, cache.ttl(key)) for key in cache.scan_iter())))


def only_the_keys(cache, register):
    fine = {
        prefix: {**entry, "owner": "x", "cleared_by": "x"} for prefix, entry in register.items()
    }
    return list(_findings(fine, _paged(cache)))


def the_first_prefix(cache, register):
    found = list(_findings({p: {**e, "ttl": 1e9} for p, e in register.items()}, _paged(cache)))
    for key, left in _paged(cache):
        prefix = next((p for p in register if key.startswith(p)), None)
        if prefix and left > register[prefix]["ttl"]:
            found.append((key, "TTL too long"))
    return found


def by_the_word(cache, register):
    words = {prefix.split(":")[0] for prefix in register}
    found = [pair for pair in _findings(register, _paged(cache)) if pair[1] != "unknown"]
    return found + [
        (k, "unknown") for k in cache.scan_iter(count=500) if k.split(":")[0] not in words
    ]


def gone_is_no_ttl(cache, register):
    lives = ((key, -1 if left < 0 else left) for key, left in _paged(cache))
    return list(_findings(register, lives))


def no_ttl_is_short(cache, register):
    lives = [(key, max(left, -1) + (left == -1)) for key, left in _paged(cache) if left != -2]
    return list(_findings(register, lives))


def mends_what_it_finds(cache, register):
    found = list(_findings(register, _paged(cache)))
    for key, problem in found:
        if problem == "no TTL":
            cache.expire(key, 300)
    return found


def says_it_all_about_the_unknown(cache, register):
    found = list(_findings(register, _paged(cache)))
    unknown = {key for key, problem in found if problem == "unknown"}
    return found + [(k, "no TTL") for k, left in _paged(cache) if k in unknown and left == -1]


def prints_sentences(cache, register):
    return [f"{key}: {problem}" for key, problem in _findings(register, _paged(cache))]


def audit_that_yields(cache, register):
    yield from _findings(register, _paged(cache))


def audit_as_a_set(cache, register):
    return set(_findings(register, _paged(cache)))


def audit_by_cursor(cache, register):
    cursor, lives = 0, []
    while True:
        cursor, page = cache.scan(cursor, count=250)
        pipe = cache.pipeline(transaction=False)
        for key in page:
            pipe.pttl(key)
        lives += [
            (key, left if left < 0 else left / 1000)
            for key, left in zip(page, pipe.execute() if page else [], strict=True)
        ]
        if cursor == 0:
            return [[*pair] for pair in _findings(register, lives)]


# flush ---------------------------------------------------------------------------------------


def _escaped(text):
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def flush_with_keys(cache, namespace):
    keys = cache.keys(_escaped(namespace) + "*")
    return sum(cache.unlink(*keys[at : at + 500]) for at in range(0, len(keys), 500))


def flush_everything(cache, namespace):
    many = sum(1 for _ in cache.scan_iter(_escaped(namespace) + "*", count=500))
    if many:
        cache.flushdb()
    return many


def not_escaped(cache, namespace):
    keys, gone = cache.scan_iter(namespace + "*", count=500), 0
    while page := list(islice(keys, 500)):
        gone += cache.unlink(*page)
    return gone


def anywhere_in_the_key(cache, namespace):
    keys, gone = cache.scan_iter("*" + _escaped(namespace) + "*", count=500), 0
    while page := list(islice(keys, 500)):
        gone += cache.unlink(*page)
    return gone


def with_del(cache, namespace):
    keys, gone = cache.scan_iter(_escaped(namespace) + "*", count=500), 0
    while page := list(islice(keys, 500)):
        gone += cache.delete(*page)
    return gone


def all_in_one_unlink(cache, namespace):
    keys = list(cache.scan_iter(_escaped(namespace) + "*", count=500))
    return cache.unlink(*keys) if keys else 0


def one_huge_page(cache, namespace):
    keys, gone = cache.scan_iter(_escaped(namespace) + "*", count=1_000_000), 0
    while page := list(islice(keys, 500)):
        gone += cache.unlink(*page)
    return gone


def with_a_ttl_of_none(cache, namespace):
    found = cache.scan_iter(_escaped(namespace) + "*", count=500)
    return sum(cache.expire(key, 0) for key in found)


def unlink_of_nothing(cache, namespace):
    cursor, gone = None, 0
    while cursor != 0:
        cursor, page = cache.scan(cursor or 0, _escaped(namespace) + "*", 500)
        gone += cache.unlink(*page)
    return gone


def stops_at_an_empty_page(cache, namespace):
    cursor, gone = 0, 0
    while True:
        cursor, page = cache.scan(cursor, _escaped(namespace) + "*", 500)
        if not page:
            return gone
        gone += cache.unlink(*page)


def only_the_first_page(cache, namespace):
    _, page = cache.scan(0, _escaped(namespace) + "*", 1_000)
    return cache.unlink(*page) if page else 0


def counts_what_it_saw(cache, namespace):
    keys, gone = cache.scan_iter(_escaped(namespace) + "*", count=500), 0
    while page := list(islice(keys, 500)):
        cache.unlink(*page)
        gone += len(page)
    return gone


def says_nothing(cache, namespace):
    not_escaped(cache, namespace)


def one_script(cache, namespace):
    script = """
    local gone, cursor = 0, '0'
    repeat
      local page = redis.call('SCAN', cursor, 'COUNT', 1000)
      cursor = page[1]
      for _, key in ipairs(page[2]) do
        if string.sub(key, 1, #ARGV[1]) == ARGV[1] then gone = gone + redis.call('UNLINK', key) end
      end
    until cursor == '0'
    return gone"""
    return cache.eval(script, 0, namespace)


def compares_in_python(cache, namespace):
    cursor, gone = None, 0
    while cursor != 0:
        cursor, page = cache.scan(cursor or 0, count=800)
        ours = [key for key in page if key.startswith(namespace)]
        gone += cache.unlink(*ours) if ours else 0
    return gone


def in_brackets(cache, namespace):
    literal = re.sub(r"([*?\[])", r"[\1]", namespace)
    keys = list(cache.scan_iter(literal + "*"))
    return sum(cache.unlink(*keys[at : at + 100]) for at in range(0, len(keys), 100))


def one_by_one(cache, namespace):
    return sum(cache.unlink(key) for key in cache.scan_iter(_escaped(namespace) + "*", count=300))


def in_pipelines(cache, namespace):
    keys, gone = cache.scan_iter(_escaped(namespace) + "*", count=500), 0
    while page := list(islice(keys, 200)):
        pipe = cache.pipeline(transaction=False)
        for key in page:
            pipe.unlink(key)
        gone += sum(pipe.execute())
    return gone


# warm ----------------------------------------------------------------------------------------


def _fill(cache, load, product, ttl=lambda: random.randint(240, 300)):
    key = f"product:v1:{product}"
    if cache.exists(key):
        return 0
    try:
        row = load(product)
    except Exception:
        return 0
    cache.set(key, json.dumps(row), ex=ttl())
    return 1


def _hottest(counts, most):
    return [product for product, _ in sorted(counts.items(), key=lambda one: -one[1])][:most]


def one_after_the_other(cache, load, counts, most, workers):
    return sum(_fill(cache, load, product) for product in _hottest(counts, most))


def all_at_once(cache, load, counts, most, workers):
    with ThreadPoolExecutor(max(1, most)) as pool:
        return sum(pool.map(lambda product: _fill(cache, load, product), _hottest(counts, most)))


def everything(cache, load, counts, most, workers):
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(lambda one: _fill(cache, load, one), _hottest(counts, None)))


def in_the_order_of_the_numbers(cache, load, counts, most, workers):
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(lambda one: _fill(cache, load, one), sorted(counts)[:most]))


def coldest_of_the_hot_first(cache, load, counts, most, workers):
    with ThreadPoolExecutor(workers) as pool:
        hot = _hottest(counts, most)[::-1]
        return sum(pool.map(lambda one: _fill(cache, load, one), hot))


def one_ttl(cache, load, counts, most, workers):
    with ThreadPoolExecutor(workers) as pool:
        hot = _hottest(counts, most)
        return sum(pool.map(lambda one: _fill(cache, load, one, lambda: 300), hot))


def jitter_added(cache, load, counts, most, workers):
    with ThreadPoolExecutor(workers) as pool:
        hot = _hottest(counts, most)
        return sum(
            pool.map(lambda one: _fill(cache, load, one, lambda: random.randint(301, 345)), hot)
        )


def no_ttl(cache, load, counts, most, workers):
    with ThreadPoolExecutor(workers) as pool:
        hot = _hottest(counts, most)
        return sum(pool.map(lambda one: _fill(cache, load, one, lambda: None), hot))


def _stores(cache, product, row):
    cache.set(f"product:v1:{product}", json.dumps(row), ex=random.randint(240, 300))
    return 1


def replaces_what_is_there(cache, load, counts, most, workers):
    def fill(product):
        try:
            return _stores(cache, product, load(product))
        except Exception:
            return 0

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(fill, _hottest(counts, most)))


def loads_and_then_looks(cache, load, counts, most, workers):
    def fill(product):
        try:
            text = json.dumps(load(product))
        except Exception:
            return 0
        ttl = random.randint(240, 300)
        return int(bool(cache.set(f"product:v1:{product}", text, ex=ttl, nx=True)))

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(fill, _hottest(counts, most)))


def gives_up_at_an_error(cache, load, counts, most, workers):
    def fill(product):
        if cache.exists(f"product:v1:{product}"):
            return 0
        return _stores(cache, product, load(product))

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(fill, _hottest(counts, most)))


def stores_the_failure(cache, load, counts, most, workers):
    def fill(product):
        if cache.exists(f"product:v1:{product}"):
            return 0
        try:
            row = load(product)
        except Exception:
            row = None
        return _stores(cache, product, row)

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(fill, _hottest(counts, most)))


def counts_the_hottest(cache, load, counts, most, workers):
    with ThreadPoolExecutor(workers) as pool:
        hot = _hottest(counts, most)
        list(pool.map(lambda one: _fill(cache, load, one), hot))
    return len(hot)


def threads_and_a_semaphore(cache, load, counts, most, workers):
    slots, stored = threading.Semaphore(workers), []

    def fill(product):
        with slots:
            stored.append(_fill(cache, load, product))

    threads = [threading.Thread(target=fill, args=(one,)) for one in _hottest(counts, most)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(stored)


def a_few_threads_and_one_list(cache, load, counts, most, workers):
    hot, stored = _hottest(counts, most), []

    def work():
        while hot:
            stored.append(_fill(cache, load, hot.pop(0)))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(stored)


def loads_in_the_pool_stores_in_one_trip(cache, load, counts, most, workers):
    cold = [one for one in _hottest(counts, most) if not cache.exists(f"product:v1:{one}")]
    stored = 0
    with ThreadPoolExecutor(workers) as pool, cache.pipeline(transaction=False) as pipe:
        loading = {pool.submit(load, product): product for product in cold}
        for done in as_completed(loading):
            if done.exception() is None:
                text, ttl = json.dumps(done.result()), 300 - random.randrange(60)
                pipe.set(f"product:v1:{loading[done]}", text, ex=ttl)
                stored += 1
        pipe.execute()
    return stored


def ttls_in_steps(cache, load, counts, most, workers):
    hot = _hottest(counts, most)
    lives = {product: 300 - 60 * rank // max(1, len(hot)) for rank, product in enumerate(hot)}
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(lambda one: _fill(cache, load, one, lambda: lives[one]), hot))


# What several of them do ---------------------------------------------------------------------


def _sums(pods):
    return sum(hits for hits, _ in pods), sum(misses for _, misses in pods)


WRONG = {
    "15_operations.floor": [
        Wrong("70 % for all", seventy_for_all, "gave 0.7; expected was 0.9"),
        Wrong("the share that fits", the_share_that_fits, "gave 0.1; expected was 0.9"),
        Wrong("below zero", below_zero, "gave -0.6; expected was 0"),
        Wrong("per cent", in_per_cent, "gave 90; expected was 0.9"),
        Wrong("one slot", one_slot, "gave 0.99; expected was 0.8"),
        Wrong("one decimal", to_one_decimal, "gave 0.7; expected was 0.733333"),
        Wrong("divides by 0", divides_by_no_reads, "ZeroDivisionError"),
    ],
    "15_operations.alert": [
        Wrong("below 70 %", below_seventy, "fell from 97 % to 80 %, which is 12,000 misses"),
        Wrong("10 points lower", ten_points_lower, "fell from 97 % to 94.5 %"),
        Wrong("mean of the pods", mean_of_the_pods, "and a new one had 40 reads"),
        Wrong("only the busy pods", only_the_busy_pods, "Of 200 small pods each fell"),
        Wrong("only the factor", only_the_factor, "At night there were 3 reads"),
        Wrong("factor and 200 reads", factor_and_many_reads, "had 2 misses in 400 reads"),
        Wrong("only the 50", only_the_fifty, "fell from 97 % to 96.7 %"),
        Wrong("any change", any_change, "rose from 60 % to 95 %"),
        Wrong("ratio of two shares", ratio_of_two_shares, "ZeroDivisionError"),
        Wrong("more than 50 more", over_fifty_more, "had 80 reads, 70 of them misses"),
        Wrong("50 misses", fifty_misses, "had 160 reads, 70 of them misses"),
        Wrong("from 1.5 times on", from_half_on, "300 misses where 200"),
        Wrong("for so many hits", misses_for_so_many_hits, "270 misses where 200"),
        Wrong("no yesterday", no_yesterday, "ZeroDivisionError"),
    ],
    "15_operations.register": [
        Wrong("KEYS", uses_keys, "used KEYS"),
        Wrong("one trip a key", one_trip_a_key, "to the server 1,110 times"),
        Wrong("only the keys", only_the_keys, "does not report ('product:v1:', 'nothing clears"),
        Wrong("the first prefix", the_first_prefix, "the longest prefix allows 60 s"),
        Wrong("by the first word", by_the_word, "('user:v10:1', 'unknown')"),
        Wrong("-2 is no TTL", gone_is_no_ttl, "A key ended by itself"),
        Wrong("-1 is a short TTL", no_ttl_is_short, "('user:v1:5', 'no TTL')"),
        Wrong("mends", mends_what_it_finds, "an audit only looks"),
        Wrong("two words on the unknown", says_it_all_about_the_unknown, "('job:1', 'no TTL')"),
        Wrong("sentences", prints_sentences, "a list of pairs was expected"),
    ],
    "15_operations.flush": [
        Wrong("KEYS", flush_with_keys, "flush used KEYS"),
        Wrong("FLUSHDB", flush_everything, "such as 'old:product:v1:1'"),
        Wrong("a pattern", not_escaped, "flush of 'price[eur]:' also deleted 1"),
        Wrong("anywhere in the key", anywhere_in_the_key, "also deleted 1 of other namespaces"),
        Wrong("DEL", with_del, "UNLINK does it afterwards"),
        Wrong("EXPIRE 0", with_a_ttl_of_none, "deleted by EXPIRE and not by UNLINK"),
        Wrong("one UNLINK", all_in_one_unlink, "named 1,300 keys"),
        Wrong("one huge page", one_huge_page, "a page is at most 1,000 keys"),
        Wrong("UNLINK of nothing", unlink_of_nothing, "ResponseError"),
        Wrong("stops at an empty page", stops_at_an_empty_page, "3 of its 3 keys are still there"),
        Wrong("only the first page", only_the_first_page, "of its 1,300 keys are still there"),
        Wrong("counts what it saw", counts_what_it_saw, "flush gave 2, and expected was 1"),
        Wrong("says nothing", says_nothing, "flush gave None"),
        Wrong("one script", one_script, "never used SCAN but EVAL"),
    ],
    "15_operations.warm": [
        Wrong("one after the other", one_after_the_other, "The loads ran one after the other"),
        Wrong("all at once", all_at_once, "12 loads ran at the same time"),
        Wrong("everything", everything, "7 others were loaded as well"),
        Wrong("by number", in_the_order_of_the_numbers, "hottest products 4 were not loaded"),
        Wrong("coldest first", coldest_of_the_hot_first, "The first products that were loaded"),
        Wrong("one TTL", one_ttl, "only 1 different TTL"),
        Wrong("jitter added", jitter_added, "240 to 300 s were asked"),
        Wrong("no TTL", no_ttl, "has no TTL"),
        Wrong("replaces", replaces_what_is_there, "and warm_up replaced it"),
        Wrong("loads, then looks", loads_and_then_looks, "asked the database for it"),
        Wrong("gives up", gives_up_at_an_error, "One load failed, and warm_up raised"),
        Wrong("stores the failure", stores_the_failure, "something was stored for it"),
        Wrong("counts the hottest", counts_the_hottest, "one was there already; warm_up gave 12"),
    ],
}

RIGHT = {
    "15_operations.floor": [floor_with_an_if],
    "15_operations.alert": [alert_with_early_returns, should_alert_by_sums],
    "15_operations.register": [audit_that_yields, audit_as_a_set, audit_by_cursor],
    "15_operations.flush": [compares_in_python, in_brackets, one_by_one, in_pipelines],
    "15_operations.warm": [
        threads_and_a_semaphore,
        a_few_threads_and_one_list,
        ttls_in_steps,
        loads_in_the_pool_stores_in_one_trip,
    ],
}
