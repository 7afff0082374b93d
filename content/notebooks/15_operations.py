# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Run a cache for years, and survive the day it is empty
#
# **About 30 minutes.**
#
# **What you'll do.** Export a cache's counters and read them back, build an alert that does not cry wolf,
# hold the live keyspace against a register, flush a namespace while readers read, and lose the whole
# cache under full load: first without coming back, then with.
#
# **What you'll learn.** Why 70 % is the wrong alert; what a register finds that a document does not; how
# to delete without blocking; why a good hit rate is a debt; what keeps a shop down after the fault is
# gone; what to warm, and how fast.
#
# **What you'll need.** `05_cache_aside` and `10_stampede`.

# %%
import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice

import numpy as np

import cachelab
from cachelab import stage, traffic
from cachelab.figures import PALETTE, Picture
from cachelab.models import recovery
from cachelab.origin import Size
from cachelab.patterns import cache_aside
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## Count where it happens
#
# A server counts hits too, but for all namespaces together, and it does not know which queries they
# saved. So the process that reads does the counting: one counter, with the namespace and the result as
# labels. Never the key: each value of a label is a time series of its own, and keys come by the million.
# `prometheus-client` is the library for it.

# %%
import urllib.request

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client import Counter as Metric
from prometheus_client.parser import text_string_to_metric_families


def new_pod():
    registry = CollectorRegistry()
    asked = Metric("cache_requests", "Reads", ["namespace", "result"], registry=registry)
    web, _ = start_http_server(0, addr="127.0.0.1", registry=registry)
    return asked, web


def counted_read(asked, key, load, ttl):
    found = lab.cache.get(key)
    asked.labels(key.split(":")[0], "miss" if found is None else "hit").inc()
    return cache_aside.read(lab.cache, key, load, ttl) if found is None else json.loads(found)


# %% [markdown]
# Two pods. The busy one reads users again and again; the other has just started and reads ten products
# once. A monitoring system fetches their numbers by HTTP, as text, and so do we. **Predict:** what is
# the hit rate of the two together?

# %%
busy, quiet = new_pod(), new_pod()
for number in range(1_000):
    user = number % 10 + 1
    counted_read(busy[0], f"user:v1:{user}", lambda user=user: lab.db.user(user), 300)
for product in range(1, 11):
    counted_read(
        quiet[0], f"product:v1:{product}", lambda product=product: lab.db.product(product), 300
    )


# %%
def scrape(web):
    url = f"http://127.0.0.1:{web.server_port}/metrics"
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    totals = [one for one in samples if one.name == "cache_requests_total"]
    return {(one.labels["namespace"], one.labels["result"]): int(one.value) for one in totals}


pages = [scrape(web) for _, web in (busy, quiet)]
print(*pages, sep="\n")


# %%
def rate(counts):
    hits = sum(many for (_, result), many in counts.items() if result == "hit")
    return hits / sum(counts.values())


print(f"mean of the two rates: {sum(map(rate, pages)) / 2:.1%}")
print(f"all hits / all reads:  {rate(Counter(pages[0]) + Counter(pages[1])):.1%}")
for _, web in (busy, quiet):
    web.shutdown(), web.server_close()

# %% [markdown]
# The mean of two rates gives ten reads the weight of a thousand. Export counts, add them up, divide last.
# Also: a counter starts at 0 again with its process, so take differences and treat a drop as a restart
# (Prometheus' `rate` does); and look at each namespace by itself.
#
# ## An alert at 70 %?
#
# The article's advice is to wake somebody when the hit rate drops below 70 %. Here is a day of five
# caches, in windows of ten minutes, with less traffic at night. Three of them have an incident of one
# hour: a deployment changed how keys are built, and the hit rate falls.

# %%
caches = {  # reads a minute, hit rate, share of the reads at night; incident: begin (min), hit rate
    "products": (6_000, 0.97, 0.2, (840, 0.80)),
    "permissions": (2_000, 0.90, 0.2, (600, 0.40)),
    "search": (300, 0.55, 0.2, (1_080, 0.25)),
    "reports": (3, 0.80, 0.1, None),
    "country codes": (40, 0.999, 0.2, None),
}

# %%
dice = np.random.RandomState(15)


def a_day(per_minute, hit_rate, night, incident=None):
    windows = []
    for minute in range(0, 1_440, 10):
        busy = 1 if 480 <= minute < 1_320 else night
        reads = dice.poisson(10 * per_minute * busy)
        broken = incident is not None and 0 <= minute - incident[0] < 60
        hits = dice.binomial(reads, incident[1] if broken else hit_rate)
        windows.append((int(hits), int(reads - hits), broken))
    return windows


# %%
def yesterday(figures):
    hits, misses, _ = zip(*a_day(*figures[:3]), strict=True)
    return sum(hits), sum(misses)


days = {name: (yesterday(figures), a_day(*figures)) for name, figures in caches.items()}


def test(rule):
    for name, (before, today) in days.items():
        calls = [broken for hits, misses, broken in today if rule(hits, misses, *before)]
        seen = "seen" if any(calls) else "MISSED"
        incident = f"incident {seen}" if caches[name][3] else "no incident"
        print(f"{name:14} {incident:16} false alarms: {calls.count(False)}")


predict("With an alert at 70 %, how many false alarms on that day?", key="false", unit="alarms")


# %%
def below_70(hits, misses, *_):
    return hits < 0.7 * (hits + misses)


test(below_70)
false = [below_70(*w) for _, today in days.values() for w in today if not w[2]]
reveal("false", sum(false))

# %% [markdown]
# Wrong both ways. *Search* is healthy at 55 %: its queries are slow and what people type varies, and each
# hit is worth having. It rings all day. *Reports* has three reads a window at night, and a single miss rings.
# And *products*, where something is really wrong, stays silent. It fell from 97 % to 80 %, which sounds
# harmless. For the database it is this:

# %%
for name in ("products", "permissions", "search"):
    _, healthy, _, (_, broken) = caches[name]
    times = (1 - broken) / (1 - healthy)
    print(f"{name:12} {healthy:.0%} to {broken:.0%}: {times:.1f} times the queries")

# %% [markdown]
# The database does not feel hits, it feels misses. So compare the misses with those that yesterday's
# traffic would lead to expect for as many reads. First try: half as many again, and at least 200 reads,
# so that a miss at night is no news.


# %%
def expected(hits, misses, hits_before, misses_before):
    return (hits + misses) * misses_before / (hits_before + misses_before)


def half_as_many_again(*counts):
    return counts[0] + counts[1] >= 200 and counts[1] > 1.5 * expected(*counts)


test(half_as_many_again)

# %% [markdown] given=[99.9]
# All three incidents, and silence at *search* and *reports*. But *country codes* rings: at 99.9 % less than one
# miss is expected in a window, so a single one is too many. A minimum of reads is not what was meant. What matters is
# how many misses *more* there are.


# %%
def alarm(*counts):
    extra = counts[1] - expected(*counts)
    return counts[1] > 1.5 * expected(*counts) and extra >= 50


test(alarm)

# %% [markdown]
# Fifty queries in ten minutes is a number you can defend: below it nobody need get up. It also weighs by
# traffic, since a cache with few readers cannot bring fifty.
#
# **Break the fix.** A key gets an unneeded parameter here, a TTL is shortened there: *products* loses half
# a point a day for three weeks. The rule compares with yesterday. **Predict:** on which day does it ring?


# %%
def seen_from(day):
    yesterday, today = (
        (60_000 * h, 60_000 * (1 - h)) for h in (0.975 - day / 200, 0.97 - day / 200)
    )
    return alarm(*today, *yesterday)


print("days on which it rings:", [day for day in range(21) if seen_from(day)])


# %% [markdown]
# Never: each day is hardly worse than the one before. So a relative alert needs an absolute one beside
# it after all, but its number is not 70. It comes from the database. Say that it has one slot for the
# queries of *products*, 0.1 s each, and four for those of *search*, half a second each:


# %%
def floor(reads, query, slots):
    return 1 - slots / (reads * query)


full = floor(reads=100, query=0.1, slots=1)  # per second; seconds
print(f"products: full at {full:.0%}, day", next(d for d in range(21) if 0.97 - d / 200 <= full))
print(f"search:   full at {floor(reads=5, query=0.5, slots=4):.0%}")

# %% [markdown] given=[90, 70]
# The misses fill the database when the hit rate falls below **1 − slots ÷ (reads × query time)**. For
# products that is 90 %, and an alert at 70 % would have come after the crash. For search it is below zero:
# the database could do without that cache.
#
# ## A register of keys
#
# The article asks for a comment at each key: what it holds, for how long, and what clears it. Comments stay
# true until the first deployment in a hurry. A register is the same three sentences as data, plus an owner,
# and data can be held against what is really in the server.


# %%
@dataclass(frozen=True)
class Entry:
    stores: str
    owner: str
    ttl: int  # seconds, at most
    cleared_by: str


REGISTER = {
    "user:v1:": Entry("a user's row", "accounts", 300, "change_email"),
    "user:public:v1:": Entry("a user's public page", "accounts", 300, "change_email"),
    "product:v1:": Entry("a product's row", "catalogue", 300, "price job"),
    "permissions:v1:": Entry("what a user may do", "", 10, "change of role"),
    "session:": Entry("who is logged in", "auth", 86_400, "log-out"),
}


# %% [markdown]
# The audit goes through the keyspace with `SCAN`, a page at a time, and asks for the TTLs of a page in one
# trip. A key belongs to the longest prefix that fits.


# %%
def audit(cache, register):
    yield from ((prefix, "no owner") for prefix, entry in register.items() if not entry.owner)
    cursor = None
    while cursor != 0:
        cursor, page = cache.scan(cursor or 0, count=500)
        pipe = cache.pipeline(transaction=False)
        for key in page:
            pipe.pttl(key)
        for key, left in zip(page, pipe.execute(), strict=True):
            prefix = max((p for p in register if key.startswith(p)), key=len, default=None)
            if left != -2:  # -2: gone since the SCAN
                yield from ((key, problem) for problem in problems(left, register.get(prefix)))


# %%
def problems(left, entry):
    if entry is None:
        yield "unknown"
    if left == -1:
        yield "no TTL"
    elif entry is not None and left > 1_000 * entry.ttl:
        yield f"TTL over {entry.ttl} s"


# %%
lab.clear()
for number in range(1, 41):
    lab.cache.set(f"user:v1:{number}", "{}", ex=300)
lab.cache.set("prodcut:v1:7", "{}", ex=300)
lab.cache.set("session:77", "{}")
lab.cache.set("permissions:v1:2", "[]", ex=600)
for found in sorted(set(audit(lab.cache, REGISTER))):
    print(*found, sep=": ")

# %% [markdown]
# A typing error that never hits, a session for ever, permissions that live far longer than somebody
# signed for, and nobody to ask. It cannot see a TTL that is *shorter* than registered, since every key's
# time runs down. Run it nightly, and at the end of your test suite: then a new key without an entry is a
# red test.
#
# The last column can be run as well. Fill what the register says `change_email` clears, call it, look:


# %%
def change_email(user, email):
    lab.db.update_user(user, email=email)
    lab.cache.delete(f"user:v1:{user}")


cleared = [f"{prefix}1" for prefix, entry in REGISTER.items() if entry.cleared_by == "change_email"]
for key in cleared:
    lab.cache.set(key, "{}", ex=300)
change_email(1, "alice@new-job.example")
print("still there:", [key for key in cleared if lab.cache.exists(key)])

# %% [markdown]
# "If you add a key, add it to the update" was forgotten, as it always is, but this time it shows before a
# user reports it.
#
# ## Flush a namespace, and only that
#
# Cache and database are two sources of truth, and one day they differ: a release has stored broken
# products. Nothing need be restarted for that. One key is one `UNLINK`. A namespace is `SCAN`, which walks
# a page at a time and lets others in between, and `UNLINK`, which takes keys out at once and frees their
# memory in the background.


# %%
def flush(cache, prefix):
    gone, found = 0, cache.scan_iter(match=f"{prefix}*", count=500)
    while page := list(islice(found, 500)):
        gone += cache.unlink(*page)
    return gone


with lab.trace.off_the_record():
    for name, many in (("product:v1", 5_000), ("product:v2", 500), ("session", 1_000)):
        lab.cache.mset({f"{name}:{number}": "{}" for number in range(many)})

print("deleted:", flush(lab.cache, "product:v1:"))
print("left:", dict(sorted(Counter(key.rpartition(":")[0] for key in lab.keys()).items())))

# %% [markdown]
# Nothing else is gone. `FLUSHALL` would have taken the sessions too, and logged everybody out. And
# `KEYS product:v1:*`? The server does one command at a time, and while it looks through all keys,
# everybody waits. The server counts its own microseconds; compare the longest command of each way.
# (Three seconds, please.)


# %% tags=["live", "nbval-ignore-output"]
def server_time(delete, *commands):
    with lab.trace.off_the_record():
        for start in range(0, 60_000, 10_000):
            lab.cache.mset({f"big:{start + number}": "x" * 100 for number in range(10_000)})
        before = lab.cache.info("commandstats")
        delete()
        after = lab.cache.info("commandstats")
    new = {"usec": 0, "calls": 0}
    was = [before.get(f"cmdstat_{name}", new) for name in commands]
    now = [after[f"cmdstat_{name}"] for name in commands]
    calls = zip(was, now, strict=True)
    return max((b["usec"] - a["usec"]) / (b["calls"] - a["calls"]) for a, b in calls)


# %% tags=["live", "nbval-ignore-output"]
at_once = server_time(lambda: lab.cache.delete(*lab.cache.keys("big:*")), "keys", "del")
in_pages = server_time(lambda: flush(lab.cache, "big:"), "scan", "unlink")
print(f"KEYS and DEL keep everybody waiting {at_once / in_pages:.0f} times as long as a page")

# %% [markdown]
# And `KEYS` grows with the number of *all* keys on the server, not only of yours.
#
# ### Under traffic
#
# On the stage, two seconds of readers: 100 a second of products, as many of sessions, and after one second
# the flush. The bug is still in the release: what it fills is broken. **Predict:** what have you flushed
# when it is over?


# %%
def warehouse(cache, _):
    for number in range(200):
        cache.set(f"session:{number}", "logged in", ex=86_400)
        if number < 20:
            cache.set(f"product:v1:{number + 1}", "broken", ex=300)


def product_reader(product, bug):
    def read(cache, db):
        if cache.get(f"product:v1:{product}") is None:
            row = json.dumps(db.product(product))
            cache.set(f"product:v1:{product}", "broken" if bug else row, ex=300)

    return read


# %%
def flushed_under_traffic(bug):
    actors, draw = {"flush": (1, lambda cache, _: flush(cache, "product:v1:"))}, random.Random(15)
    for number, at in enumerate(traffic.poisson(100, 2, seed=15)):
        session = f"session:{number % 200}"
        actors[f"session {number}"] = (at, lambda cache, _, key=session: cache.get(key))
        actors[f"product {number}"] = (at, product_reader(draw.randint(1, 20), bug))
    run = stage.run(actors, setup=warehouse, latency=0.01, capacity=4, hop=0.001)
    sessions = [got for name, got in run.answers.items() if name.startswith("session")]
    left = run.world.cache.mget([f"product:v1:{number}" for number in range(1, 21)])
    print(f"flushed {run.answers['flush']}; broken products left: {left.count('broken')}")
    print(f"sessions read: {len(sessions)}, found: {sessions.count('logged in')}")


flushed_under_traffic(bug=True)

# %% [markdown]
# Twenty flushed, and twenty broken again within a second. The cache was the symptom. First stop what
# fills it wrongly, then flush:

# %%
flushed_under_traffic(bug=False)

# %% [markdown]
# If the old pods cannot be stopped at once, the new release reads `product:v2:`. That is a flush without a
# single delete. Both leave the same behind: an empty namespace under full traffic.
#
# ## The cold path
#
# Your database sees only misses. If the cache is lost, it sees everything. How many times as much is that?


# %%
def reader_of_one_key(arrivals, ttl):
    def shop(cache, db):
        for now, then in zip(arrivals, [0.0, *arrivals], strict=False):
            time.sleep(now - then)
            if cache.get("product:v1:1") is None:
                cache.set("product:v1:1", json.dumps(db.product(1)), px=round(1_000 * ttl))

    return shop


question = "Hit rate 95 %. How many times the queries when the cache is lost?"
predict(question, key="surge", unit="times")

# %%
arrivals = traffic.poisson(1, 3_000, seed=15)
for hit_rate in (0.70, 0.90, 0.95, 0.99):
    ttl = hit_rate / (1 - hit_rate)  # seconds, at one read a second
    warm = stage.run([reader_of_one_key(arrivals, ttl)])
    counted = len(arrivals) / warm.queries
    print(f"{hit_rate:.0%}: formula {recovery.surge(hit_rate):5.1f} times, counted {counted:5.1f}")
reveal("surge", round(recovery.surge(0.95)))

# %% [markdown]
# The formula is **1 ÷ (1 − hit rate)**. It is the mean; a run of 3,000 reads strays a little. A low hit rate is a waste, but a high one is
# a debt: the better the cache, the less your database has seen of the load it must carry alone. So the
# article is right: test the cold path, at full load, with the cache **empty**. Whether it can pass at all,
# a division tells:

# %%
for reads in (30, 100):
    lost = recovery.cache_lost(reads, hit_ratio=0.9, query_time=0.02, slots=1)
    verdict = "carries it" if lost.survives else "does NOT"
    print(f"{reads} reads/s: load {lost.before:.0%} warm, {lost.after:.0%} cold, {verdict}")

# %% [markdown]
# ## The trigger is gone, the shop stays down
#
# Take the shop that can carry it: 30 reads a second, nine of ten cacheable, and a database for 50 queries
# a second. At ten seconds the cache loses everything and the database stops for five. A reader
# loses patience after one second, throws the late answer away, and tries again, at most twice.


# %%
def customer(product, tries, keep_late):
    def read(cache, db):
        for _ in range(tries):
            if product and cache.get(f"product:v1:{product}") is not None:
                return "served"
            began = time.monotonic()
            row = db.product(product or 1)
            in_time = time.monotonic() - began <= 1
            if product and (in_time or keep_late):
                cache.set(f"product:v1:{product}", json.dumps(row), ex=3_600)
            if in_time:
                return "served"

    return read


# %%
def outage(tries, keep_late=False):
    draw = random.Random(15)

    def anybody():
        product = draw.randint(1, 100) if draw.random() < 0.9 else None
        return customer(product, tries, keep_late)

    people = {f"customer {t}": (t, anybody()) for t in traffic.poisson(30, 50, seed=15)}
    actors = people | {"trouble": (10, trouble)}
    shop = {"latency": 0.02, "capacity": 1, "size": SHOP, "wall_limit": 40}
    run = stage.run(actors, setup=all_warm, **shop)
    lost = Counter(int(t // 10) for name, (t, _) in people.items() if not run.answers[name])
    unserved = [lost[ten] for ten in range(5)]
    print(f"tries: {tries}. Not served, every 10 s: {unserved}; queries: {run.queries:,}")


# %%
SHOP = Size(users=20, products=100, articles=5, comments=20, orders=50)


def all_warm(cache, db):
    for product in range(1, 101):
        cache.set(f"product:v1:{product}", "{}", ex=3_600)


def trouble(cache, db):
    cache.unlink(*(f"product:v1:{product}" for product in range(1, 101)))
    db.latency = 5
    db.product(1)  # in the only slot; all others wait for it
    db.latency = 0.02


question, answers = "With two retries, when are all served again?", ["after 5 s", "after 15 s"]
predict(question, key="down", choices=[*answers, "not in half a minute"])

# %%
outage(tries=1)
outage(tries=3)
reveal("down", "not in half a minute")

# %% [markdown]
# Without retries ten bad seconds. With them the shop stays down, though cache and database have long been
# well again: every reader asks three times, 30 × 3 is more than 50, each answer comes too late, is thrown
# away, and so nothing gets into the cache. This is a **metastable** state: the load keeps itself up. The
# model gives the rates at which it can happen, and draws it. It also tries a **door** in front of the shop,
# which for twenty seconds lets in one reader of five (**admission**), once early and once late:

# %%
low, high = recovery.retry_trap(capacity=50, hit_ratio=0.9, retries=2)
print(f"runs well warm, never comes back: {low:.0f} to {high:,.0f} reads a second")
runs = {
    "2 retries": recovery.simulate_outage(30, 50, 0.9, retries=2, keys=100),
    "no retries": recovery.simulate_outage(30, 50, 0.9, retries=0, keys=100),
}
for name, begin in (("door at 20 s", 20), ("door at 40 s", 40)):
    door = {"shed": (begin, begin + 20), "shed_to": 0.2}
    runs[name] = recovery.simulate_outage(30, 50, 0.9, retries=2, keys=100, **door)
for name, run in runs.items():
    print(f"{name:16} recovered: {run.recovered}")

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(8.4, 3), layout="constrained")
axes = figure.add_subplot(xlabel="time (s)", ylabel="queries offered (per second)")
styles = zip(runs.items(), ("red", "blue", "green"), ("-", "--", ":"), strict=False)
for (name, run), colour, line in styles:
    axes.plot(run.seconds, run.offered, line, color=PALETTE[colour], lw=2, label=name)
axes.axhline(50, color=PALETTE["grey"], lw=1)
axes.text(24, 52, "what the database can do")
axes.legend(frameon=False, loc=(0.75, 0.62))
Picture(figure, "Queries offered over 90 s: two retries stay above the database's 50 a second.")

# %% [markdown]
# The solid line, two retries, stays above the grey one: more than the database can do, for ever. The
# dotted line comes back: the few whom the door lets in from 20 s on are answered in time and fill the cache,
# then it opens. To fail some at once saves the rest. At 40 s the same door is too short, as a longer queue of questions nobody
# waits for has to be worked off first: shed early.
#
# There is a cheaper remedy, and it is in our code: the late answer was right, and was thrown away. Keep it.

# %%
outage(tries=3, keep_late=True)

# %% [markdown] given=[20]
# Five go away unserved, and then nobody. The fill belongs to the process, not to the reader who happened to
# ask. (Single-flight, from `10_stampede`, does the same and asks once.) **Break the fix** by a timeout that
# cancels the query with its reader: then nothing is left to keep, and you have the run before.
#
# ## Warm up: what is hot, and not too fast
#
# If a restart is planned, fill before the door opens. Reads are uneven, so a few keys are most of the
# work. Yesterday's counts say which. The same 400 readers in one second, after three kinds of
# preparation, on a database with one slot and queries of 20 ms:


# %%
draw = random.Random(15)
popular = draw.sample(range(1, 101), 100)  # the most popular first
weights = [1 / rank for rank in range(1, 101)]
yesterdays = Counter(draw.choices(popular, weights, k=5_000))
today = draw.choices(popular, weights, k=400)


def read(cache, db, product):
    return cache_aside.read(cache, f"product:v1:{product}", lambda: db.product(product), 300)


# %%
def opening(prepared):
    def warm(cache, db):
        for product in prepared:
            read(cache, db, product)

    visitors = [lambda cache, db, one=product: read(cache, db, one) for product in today]
    return stage.run(visitors, spread=1, setup=warm, latency=0.02, capacity=1, size=SHOP)


# %%
plans = {
    "cold": [],
    "30, by number": range(1, 31),
    "30, the hottest": [product for product, _ in yesterdays.most_common(30)],
}
for name, prepared in plans.items():
    run = opening(prepared)
    print(f"{name:16} {run.queries:3} queries, all served after {run.elapsed:.1f} s")

# %% [markdown]
# Thirty queries beforehand both times, but only the hottest thirty leave no queue at the end. How fast? A
# warm-up is itself a burst of misses: beside live traffic it gets a *bounded* share of the slots. And what
# was filled together expires together, the case that jitter was made for. Both are in the lab.
#
# ## The runbook
#
# One page, for three in the morning. Print it, and put your own commands in.
#
# | what you see | look first | then do |
# |---|---|---|
# | hit rate alarm | which namespace; what was deployed in the last hour; unknown keys in the audit | roll back; do not flush |
# | "I see old data" | one key: value, `PTTL`, the row's version; who clears it, by the register | `UNLINK` that key; then find the missing delete |
# | a whole kind of data is wrong | is the bug still filling it? | stop that first; `SCAN` + `UNLINK` the namespace, or a new version |
# | cache does not answer | is the database below its limit? 1 ÷ (1 − h) | let it be slow; bound the queries; shed load |
# | cache is back, shop is not | retries; queue at the database | retries off; let few in; open slowly |
# | restart planned | hottest keys from the counters | warm with few workers and jitter, then switch |
# | memory full | keys without TTL in the audit | give them TTLs; the owner decides, not you |
#
# Never at any hour: `KEYS` or `FLUSHALL` on a shared server, a restart "to be safe" (it empties the
# cache), a longer TTL to make an alarm stop.

# %% [markdown]
# ## Recap
#
# - Export counts by namespace, add, then divide. Alarm when *misses* are well above what yesterday leads to
#   expect, by a number that matters; beside it a floor from the database's limit. Not 70 %.
# - A register can be run: unknown keys, missing TTLs, nobody's keys, and deletes that were forgotten.
# - `SCAN` + `UNLINK`, a page at a time, after the cause is gone. A new version is a flush as well.
# - A lost cache is 1 ÷ (1 − h) times the load, and retries keep a shop down after the fault has passed.
#   Keep late answers, let few in, warm the hot keys first.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/15_operations.ipynb`.
