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
# # Keep it in the process, and know who still has the old one
#
# **About 30 minutes.**
#
# **What you'll do.** Cache a feature flag in ten processes, flip it, and count who serves the old value
# and until when. Tell the pods by a broadcast, and break that twice. Then bound a cache by hand, check
# its hit rate against a formula, and let one export wash it out.
#
# **What you'll learn.** What a cache in the process is good for; what a TTL, a restart and a broadcast
# each do about the old value; how to bound it; which of Python's ready-made caches does what.
#
# **What you'll need.** `01_latency_freshness_cost`.

# %%
import json
import math
import random
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict

import cachelab
from cachelab import stage, widgets
from cachelab.models import eviction
from cachelab.predict import predict, recap, reveal
from cachelab.trace import Trace

lab = cachelab.start()

# %% [markdown]
# ## A dictionary is a cache
#
# The nearest place to keep a copy is a variable. **Predict:** 100,000 reads of a flag; what does the
# trace show?

# %%
memory = {}


def is_on(name):
    if name not in memory:
        memory[name] = lab.db.flag(name)
    return memory[name]


with lab.record() as run:
    answers = [is_on("new_checkout") for _ in range(100_000)]
print(run)

# %% [markdown] given=[99999]
# One query, and not one trip over a network: nothing is faster, as `01_latency_freshness_cost` measures.
# Flags, configuration, lookup tables: small, read all the time, changed seldom. That is what the article
# recommends it for.
#
# Look at the last line again. There were 99,999 hits and the trace has none, because no server took part.
# Nobody counts them, nobody sees how old they are, and nobody else can delete the copy.
#
# ## Ten processes, ten dictionaries
#
# These are ten real processes of the shop, called **pods**, A to J. Each has a dictionary and the
# same database. At `read` a pod gives what it remembers; at `flip` it switches the flag on and
# forgets its own copy.

# %%
POD = """
import sys, sqlalchemy as sa
engine, memory = sa.create_engine(sys.stdin.readline().strip()), {}
for order in sys.stdin:
    with engine.begin() as db:
        if order.strip() == "flip":
            db.execute(sa.text("UPDATE flags SET enabled = true WHERE name = 'new_checkout'"))
            memory.clear()
        if not memory:
            asked = sa.text("SELECT enabled FROM flags WHERE name = 'new_checkout'")
            memory["new_checkout"] = db.scalar(asked)
    print("on" if memory["new_checkout"] else "off", flush=True)
"""


# %%
def start_pod():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pod = subprocess.Popen([sys.executable, "-c", POD], **pipes)
    url = lab.db.engine.url.render_as_string(hide_password=False)
    print(url, file=pod.stdin, flush=True)
    return pod


def ask(pod, order="read"):
    print(order, file=pod.stdin, flush=True)
    return pod.stdout.readline().strip()


predict("Pod A flips the flag. How many of the ten pods then say that it is on?", key="pods")

# %%
lab.db.set_flag("new_checkout", False)
pods = {name: start_pod() for name in "ABCDEFGHIJ"}
print("before: ", *[f"{name} {ask(pod):4}" for name, pod in pods.items()])
ask(pods["A"], "flip")
now = {name: ask(pod) for name, pod in pods.items()}
print("flipped:", *[f"{name} {said:4}" for name, said in now.items()])
reveal("pods", list(now.values()).count("on"))

# %% [markdown]
# Memory is not shared. A knows because it forgot its own copy; the other nine cannot know, and having no
# TTL they never will. A new process starts with an empty dictionary, so C gets a restart:

# %%
pods["C"].kill()
pods["C"].communicate()
pods["C"] = start_pod()
print("restart:", *[f"{name} {ask(pod):4}" for name, pod in pods.items()])
for pod in pods.values():
    pod.communicate()  # ends its input, and with it the pod
lab.db.set_flag("new_checkout", False)

# %% [markdown]
# ## Until when?
#
# The article has the same ten pods, and says that a TTL or a restart ends it. True, but when is that? For
# times we take the stage and its virtual clock. A pod with a TTL:


# %%
class Pod:
    """One process of the shop, with a memory of its own."""

    def __init__(self, cache, db, ttl):
        self.db, self.ttl, self.memory = db, ttl, {}

    def is_on(self, name):
        now = time.monotonic()
        value, until = self.memory.get(name, (None, 0))
        if now >= until:
            value = self.db.flag(name)
            self.memory[name] = value, now + self.ttl
        return value


# %% [markdown]
# Pod A starts at 0 s, B at 6 s, and so on to J at 54 s. Each is asked once a second and notes what it
# says. At 100.5 s an admin flips the flag.


# %%
def ten_pods(make_pod, admin, until=180, restart=lambda number: None, **options):
    def serving(number):
        def play(cache, db):
            pod, seen = make_pod(cache, db), []
            while (now := db.trace.clock()) < until:
                if now == restart(number):
                    pod = make_pod(cache, db)
                seen.append((now, pod.is_on("new_checkout")))
                time.sleep(1)
            return seen

        return play

    actors = {name: (6 * number, serving(number)) for number, name in enumerate("ABCDEFGHIJ")}
    return stage.run({**actors, "admin": (100.5, admin)}, **options)


# %%
def flips(cache, db):
    db.set_flag("new_checkout", True)


def wrong(run):
    """For each pod, the seconds at which it served the old value after the flip."""
    served = {name: run.answers[name] for name in "ABCDEFGHIJ"}
    return {name: [at for at, on in seen if at > 100.5 and not on] for name, seen in served.items()}


predict(
    "TTL 60 s, flip at 100.5 s. At which second does the last pod follow?", key="last", unit="s"
)

# %%
run = ten_pods(lambda cache, db: Pod(cache, db, ttl=60), flips)
for name, seconds in wrong(run).items():
    filled = max(event.at for event in run.of("query") if event.actor == name and event.at < 100.5)
    marks = "x" * math.ceil(len(seconds) / 2)
    print(f"{name} filled at {filled:3.0f} s {marks:28} follows at {filled + 60:.0f} s")
print(f"wrong for {sum(map(len, wrong(run).values())) / 10:.0f} s on average")
reveal("last", max(map(max, wrong(run).values())) + 1)

# %%
cachelab.lanes(Trace(events=run.of("query", "commit")), by="time")

# %% [markdown]
# An `x` is two seconds of wrong answers; in the lanes a diamond is a query, which fills the pod's copy,
# and the bar of the last row is the flip. Each pod follows at **its own last fill plus the TTL**. So the
# TTL is the worst case, about half of it the mean, and for that long the pods *disagree*, though nobody
# did anything wrong.
#
# What does that look like from outside? The admin flips the flag on pod A and then reloads the page every
# two seconds. A load balancer picks a pod each time.


# %%
def admin_reloads(cache, db):
    pods, draw = [Pod(cache, db, ttl=60) for _ in range(10)], random.Random(2)
    for pod in pods:
        pod.is_on("new_checkout")
        time.sleep(6)
    db.set_flag("new_checkout", True)
    pods[0].memory.clear()
    seen = ""
    for _ in range(30):
        seen += "+" if draw.choice(pods).is_on("new_checkout") else "-"
        time.sleep(2)
    return seen


predict("Of 30 reloads, how often is the page back at off after it was on?", key="back")

# %%
seen = stage.run({"admin": admin_reloads}).answers["admin"]
print(seen)
reveal("back", seen.count("+-"))

# %% [markdown] given=[10]
# A plus is `on`. Whoever sees this flips again, and again, and then files a bug that nobody can
# reproduce. Age alone would be bearable; going *back* is not. If a user must read their own writes, the
# copy does not belong in ten memories.
#
# ## Restart, or tell them
#
# Two other ways to get rid of the old value: a rolling restart, here of pods without a TTL, one every 20
# seconds from 110 s on; and a **broadcast**: whoever flips publishes the flag's name, and each pod has a
# thread that listens and drops what is named.


# %%
class ToldPod(Pod):
    def __init__(self, cache, db, ttl):
        super().__init__(cache, db, ttl)
        news = cache.pubsub(ignore_subscribe_messages=True)
        news.subscribe("flags")
        threading.Thread(target=self.listen, args=[news], daemon=True).start()

    def listen(self, news):
        for message in news.listen():
            self.memory.pop(message["data"], None)


def tells(cache, db):
    db.set_flag("new_checkout", True)
    cache.publish("flags", "new_checkout")


# %%
def kind(pod, ttl):
    return lambda cache, db: pod(cache, db, ttl)


in_turn = {"restart": lambda number: 110 + 20 * number, "until": 300}
runs = {
    "TTL of 60 s": ten_pods(kind(Pod, 60), flips),
    "rolling restart": ten_pods(kind(Pod, math.inf), flips, **in_turn),
    "broadcast": ten_pods(kind(ToldPod, math.inf), tells),
}
for name, run in runs.items():
    seconds = sorted(at for ats in wrong(run).values() for at in ats)
    last = f", the last at {seconds[-1]:.0f} s" if seconds else ""
    print(f"{name:15}: queries {run.queries}, wrong answers {len(seconds):3}{last}")

# %% [markdown]
# The restart takes as long as you are willing to roll, and throws away *everything* each pod knew. The
# broadcast is right at the next read, with one more query a pod and no TTL at all. So that is the answer?
#
# ## Break the broadcast: a lost message
#
# Pub/sub delivers a message to whoever is connected at that moment, and keeps none. **Predict:** this one
# gets lost on its way. Who is wrong at the end, with and without a TTL?

# %%
for ttl, name in {math.inf: "no TTL  ", 60: "TTL 60 s"}.items():
    run = ten_pods(kind(ToldPod, ttl), tells, until=400, faults=[stage.DropMessage("flags")])
    still = [pod for pod in "ABCDEFGHIJ" if not run.answers[pod][-1][1]]
    print(f"{name}: wrong at 400 s: {', '.join(still) or 'nobody'}")

# %% [markdown]
# Without a TTL: for ever. **The broadcast makes it fast, the TTL makes it end.** `09_invalidation` has
# channels that can catch up. Redis and Valkey can also remember for each client what it has read, and tell
# it when that changes (`CLIENT TRACKING`); that too ends with the connection.
#
# ## Break it again: a message that comes too early
#
# Nothing is lost this time. The query takes a second, and in that second the flag is flipped and the
# message arrives.


# %%
def reads_for_90_seconds(make_pod):
    def play(cache, db):
        pod, late = make_pod(cache, db), 0
        while db.trace.clock() < 90:
            late += not pod.is_on("new_checkout") and db.trace.clock() > 2.5
            time.sleep(1)
        return late

    return play


told = {"pod": (1, reads_for_90_seconds(kind(ToldPod, 60))), "admin": (0.2, tells)}
run = stage.run(told, latency=1)
print("wrong answers after the message:", run.answers["pod"])

# %%
cachelab.lanes(Trace(events=[event for event in run if event.at < 3]), by="time")

# %% [markdown]
# In the lanes, the message is the dot on the admin's triangle (the pod's own dot is its
# subscription): it falls into the pod's query. The thread drops what is there, which is nothing; then
# the query comes back with the old value, and that is kept for the whole TTL. It is the race of
# `11_stale_data`, inside one process, and the cure is the same: what is named *while it is being
# loaded* must not be kept. This is how we would carry it home:

# %%
from cachelab.patterns.local_cache import LocalCache

cachelab.show(LocalCache)


# %%
class CarefulPod(ToldPod):
    def __init__(self, cache, db, ttl):
        super().__init__(cache, db, ttl)
        self.memory = LocalCache(maxsize=1_000, ttl=ttl)

    def listen(self, news):
        for message in news.listen():
            self.memory.forget(message["data"])

    def is_on(self, name):
        return self.memory.get(name, lambda: self.db.flag(name))


careful = {**told, "pod": (1, reads_for_90_seconds(kind(CarefulPod, 60)))}
print("wrong answers after the message:", stage.run(careful, latency=1).answers["pod"])

# %% [markdown]
# ## A dictionary forgets nothing
#
# Two flags fit anywhere. Now cache pages: 20,000 of them, a few very popular (a Zipf law with exponent
# 0.8), 200,000 reads.

# %%
asked = eviction.zipf_requests(20_000, 0.8, 200_000, seed=2)
unbounded = {}
for number, page in enumerate(asked.tolist(), 1):
    unbounded[page] = "the page"
    if number in (1_000, 10_000, 100_000, 200_000):
        print(f"after {number:7,} reads: {len(unbounded):6,} pages held")

# %% [markdown]
# Nobody sees this in a test; in production it grows until the pod is killed for it. A TTL would not help: an
# entry that nobody asks for again is never looked at again. A cache needs a **bound**, and then somebody
# has to go. The usual choice is the **least recently used**, and an `OrderedDict` can do it:


# %%
class LRU:
    def __init__(self, maxsize):
        self.maxsize, self.kept, self.hits = maxsize, OrderedDict(), 0

    def read(self, key):
        if key in self.kept:
            self.kept.move_to_end(key)
            self.hits += 1
            return
        self.kept[key] = "the page"
        if len(self.kept) > self.maxsize:
            self.kept.popitem(last=False)


predict("Room for 1,000 of the 20,000 pages. What share of the reads hits?", key="lru", unit="%")

# %%
lru = LRU(1_000)
for page in asked.tolist():
    lru.read(page)
simulated = eviction.simulate("lru", asked, 1_000, warm_up=0)
formula = eviction.che_hit_ratio(eviction.popularity(20_000, 0.8), 1_000)
print(f"by hand {lru.hits / 200_000:.1%}, formula {formula:.1%}")
print("the simulator has the same hits:", simulated.hits == lru.hits)
most = 1 - len(unbounded) / 200_000
print(f"without a bound {most:.1%}, in {len(unbounded) / 1_000:.0f} times the room")
reveal("lru", round(100 * lru.hits / 200_000))

# %% [markdown]
# A twentieth of the room, more than a third of the hits. (The formula is Che's, for a cache that has been
# full for a while.) The explorer draws hit ratio against room: lines are formulas, the diamond is a
# counted run. Its question is below it.

# %% tags=["widget"]
widgets.eviction_explorer()

# %% [markdown]
# ## Break it: one export
#
# At night a job reads every page once. From here on the caches are those of **cachetools**, which one
# would use. **Predict** the hit rate of a thousand reads before the job, and after it.


# %%
import cachetools


def hit_rate(cache, pages):
    hits = 0
    for page in pages:
        hits += page in cache
        if cache.get(page) is None:
            cache[page] = "the page"
    return f"{hits / len(pages):6.1%}"


# %%
later = eviction.zipf_requests(20_000, 0.8, 3_000, seed=3).tolist()
trends = [(page + 10_000) % 20_000 for page in asked.tolist()]  # other pages are popular now
for policy in (cachetools.LRUCache, cachetools.LFUCache):
    cache = policy(maxsize=1_000)
    hit_rate(cache, asked.tolist())
    quiet = hit_rate(cache, later[:1_000])
    hit_rate(cache, range(20_000))
    rates = quiet, hit_rate(cache, later[1_000:2_000]), hit_rate(cache, trends[:20_000])
    print(policy.__name__, "before {}, after the export {}, new favourites {}".format(*rates))

# %% [markdown]
# Each page of the export was the most recently used for a moment, and pushed out a page that people want.
# **Least frequently used** does not fall for that, and while popularity stays as it is it hits more. It has
# the opposite weakness, in the last column: when other pages become popular, it hangs on to the old
# favourites. Whatever the policy, let the export read *around* the cache.
#
# ## What one would use
#
# The `TTLCache` of cachetools is bounded, has a TTL, and takes its clock as an argument, so that a test
# need not wait:

# %%
now = 0.0
cache = cachetools.TTLCache(maxsize=1_000, ttl=60, timer=lambda: now)
cache["new_checkout"] = False
for now in (0.0, 59.9, 60.0):
    print(f"at {now:4} s:", cache.get("new_checkout", "gone"))

# %% [markdown]
# Its decorator `cached` takes a `lock=` for threads, or a `condition=`. Python's own `lru_cache` is safe
# for threads too. Safe for the dictionary; what about the database?


# %%
def remembering(**guard):
    flags = cachetools.TTLCache(maxsize=1_000, ttl=60)
    by_name = {"key": lambda db, name: name}
    return cachetools.cached(flags, **by_name, **guard)(lambda db, name: db.flag(name))


predict("200 threads miss at once, with a lock. How many queries?", key="lock")

# %%
import functools

readers = {
    "lru_cache": functools.lru_cache(lambda db, name: db.flag(name)),
    "lock": remembering(lock=threading.Lock()),
    "condition": remembering(condition=threading.Condition()),
}
for name, read in readers.items():
    crowd = [lambda cache, db, read=read: read(db, "new_checkout")] * 200
    crowd = stage.run(stage.threads(crowd), latency=0.05)
    print(f"{name:9}: queries {crowd.queries:3}")
    if name == "lock":
        revealed = reveal("lock", crowd.queries)
revealed

# %% [markdown]
# The lock is let go during the load. Only `condition=` makes the others wait for the first
# (**single-flight**, `10_stampede`). Our `LocalCache` does so as well; and it counts age from the start of a
# load, where cachetools counts from its end.
#
# `lru_cache` has three more things to trip over, in the next two cells:


# %%
class Shop:
    @functools.lru_cache(maxsize=128)  # noqa: B019 - the linter warns of what comes
    def flag(self, name):
        return lab.db.flag(name)


shop = Shop()
shop.flag("new_checkout")
lab.someone_else.set_flag("new_checkout", True)
print("after the flip, for ever:", shop.flag("new_checkout"))
try:
    shop.flag(["new_checkout"])
except TypeError:
    print("a list as the argument: TypeError")

# %%
import gc
import weakref

shop = weakref.ref(shop)
gc.collect()
print("the shop that nobody uses any more is still there:", shop() is not None)
lab.db.set_flag("new_checkout", False)

# %% [markdown]
# It has no TTL, and `cache_clear` drops everything, for one flag too. Arguments must be hashable. On a
# method, `self` is part of the key, so the cache keeps the object alive. It is meant for pure functions; a
# flag is not one.
#
# ## A copy that is no copy
#
# What comes from Redis was decoded for you alone. What comes from your own memory is **the same object for
# everybody**:


# %%
@cachetools.cached({})
def read_user(user_id):
    return lab.db.user(user_id)


headline = read_user(1)
headline["name"] = headline["name"].upper()
print("the next reader gets:", read_user(1)["name"])

# %% [markdown] given=[200]
# Nobody changed Alice's name, and for every reader of this pod she is ALICE. Keep what cannot be changed:
# a tuple, a frozen dataclass, or the JSON text, at the price of decoding.
#
# ## How much is a thousand entries?
#
# A bound on entries says nothing about memory. The comments of the shop's 200 articles, as JSON:

# %%
pages = [json.dumps(lab.db.comments(article)) for article in range(1, 201)]
sizes = sorted(map(len, pages))
print(f"one page: {sizes[0]} to {sizes[-1]:,} bytes")
print(f"100 pages: {sum(sizes[:100]):,} to {sum(sizes[-100:]):,} bytes")

by_bytes = cachetools.LRUCache(maxsize=10_000, getsizeof=len)
page_of = cachetools.cached(by_bytes)(lambda article: json.dumps(lab.db.comments(article)))
with lab.record() as run:
    [page_of(1) for _ in range(3)]
print(f"3 reads of a page of {len(pages[0]):,} bytes, room for 10,000: queries {run.queries}")

# %% [markdown]
# Bound by bytes where sizes differ, and know that what is larger than the whole cache is never kept, and
# nobody tells you. Beware of `sys.getsizeof`, too: it does not look inside. And what you keep as objects
# the garbage collector walks through, in every process:

# %%
print("getsizeof sees it all:", sys.getsizeof([pages]) > len(pages[0]))
for name, make in {"dicts": lambda n: {"id": n, "tags": ["new"]}, "texts": str}.items():
    walked = sum(gc.is_tracked(make(n)) for n in range(10_000))
    print(f"of 10,000 {name} the collector walks {walked:,}")

# %% [markdown]
# ## What it is right for
#
# A table that is small, the same for everybody, and may be old: flags, configuration, exchange rates. The
# article's example is a list of country codes, loaded on start and kept for an hour, of which a stale copy
# costs nothing. Agreed: the pods then disagree for up to an hour, and nobody minds. With two additions: a
# pod that could not load it must not start; and each pod gets **an hour of its own**:


# %%
draw = random.Random(2)


def refreshing(least):
    def pod(cache, db):
        while db.trace.clock() < 24 * 3600:
            db.flag("new_checkout")  # stands for the table
            time.sleep(draw.randint(least, 3_600))

    return pod


for name, least in {"3,600 s": 3_600, "3,060 to 3,600 s": 3_060}.items():
    run = stage.run([refreshing(least)] * 100)
    seconds = Counter(event.at for event in run.of("query") if event.at > 0)
    print(f"100 pods, every {name}: queries in the worst second {max(seconds.values())}")

# %% [markdown]
# Pods that start together refresh together, all day. What to do when a refresh fails is in the lab.

# %% [markdown]
# ## Recap
#
# - Every process has its own memory. A change is seen at each pod's own last fill plus the TTL; until then
#   pods disagree and users go back and forth.
# - A broadcast makes it fast, a TTL makes it end, and what is named during its load must not be kept.
# - Bound it, in bytes where sizes differ. LRU falls for a scan, LFU for a new fashion.
# - `lru_cache` and `lock=` do not stop a stampede; `condition=` does. All get the same object.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/02_in_memory.ipynb`. One memory for all pods is the next chapter,
# `03_distributed`.
