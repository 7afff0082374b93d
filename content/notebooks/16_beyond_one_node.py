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
# # Leave the one cache server, and keep your promises
#
# **About 30 minutes.**
#
# **What you'll do.** Start a primary with two replicas, read old values from one of them, and bring a
# deleted e-mail address back by a failover. Start a cluster, see how it shares out keys, let one key
# fill one node, spread it in three ways, and kill a primary while others write.
#
# **What you'll learn.** What replication promises and what `WAIT` adds; what a slot and a hash tag are;
# why more nodes do not help a hot key, and what does; what a client sees of a failover, and what is lost.
#
# **What you'll need.** `05_cache_aside`; `02_in_memory` for the local cache. Real servers for about half
# of the cells; the other half runs anywhere.

# %%
import json
import random
import threading
import time
from binascii import crc_hqx
from collections import Counter
from itertools import count, pairwise

import redis

import cachelab
from cachelab import nodes
from cachelab.figures import PALETTE, Picture
from cachelab.models import staleness
from cachelab.patterns.local_cache import LocalCache
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## A second copy of everything
#
# The article draws one Redis for all instances, and says what happens when it is down: the database gets
# everything. Can more of them help? One server is one memory, one core and one power supply, and there are two
# cures, which are often mixed up. A **replica** holds a copy of *all* keys: for the day the primary dies, and for more reads. A **cluster**
# gives each node a *part* of the keys: for more data and more writes. First the replica.
#
# ```mermaid
# sequenceDiagram
#     participant App
#     participant Primary
#     participant Replica
#     App->>Primary: SET price 990
#     Primary-->>App: OK
#     Primary->>Replica: SET price 990
#     App->>Replica: GET price
# ```
#
# The order of the arrows is the point: the primary answers first and sends afterwards. This is
# **asynchronous** replication, and Redis and Valkey have no other.

# %% tags=["live"]
group = nodes.replicated(replicas=2)
primary, (first, second) = group.primary.client, group.replicas
primary.set("price:v1:1", 1_990)
group.settle()
for node in group:
    print(f"{node.name:10} {node.role:8} price {node.client.get('price:v1:1')}")

# %% [markdown]
# Three real servers, and they end with this kernel. Write a price a hundred times, and read it from both
# replicas each time, at once. **Predict:** how many reads are old?


# %% tags=["live"]
def old_reads(prices):
    old = Counter()
    for price in prices:
        primary.set("price:v1:1", price)
        for replica in group.replicas:
            old[replica.name] += replica.client.get("price:v1:1") != str(price)
    return dict(old)


# %% tags=["live", "nbval-ignore-output"]
print(old_reads(range(100)))

# %% [markdown]
# Run that cell again: another number each time, perhaps 0. It is a race between your second command and
# the primary's message, on one machine, where the message needs no cable. That is the nasty part. A test on a
# laptop is green, and a busy replica or another data centre is not a laptop. To see what the race hides, hold
# the first replica back (`CLIENT PAUSE`, for writes): it goes on answering, and applies nothing.

# %% tags=["live"]
group.hold(first)
print(old_reads(range(100, 200))["replica 1"], "old reads; behind:", group.lag(first) > 0)
group.release(first)
group.settle()
print("released; behind:", group.lag(first) > 0)

# %% [markdown]
# A hundred of a hundred, and not an error anywhere: a replica that is behind answers as readily as one that is
# not.
#
# How bad is it? For *other* readers a lag of `d` seconds makes (1 - exp(-2md)) / 2 of the reads old, at `m`
# writes a second: the formula for late events of `09_invalidation`.

# %%
for lag in (0.001, 0.1, 5):
    others = staleness.stale_share_delayed(write_rate=1 / 60, delay=lag)
    print(f"lag {lag * 1_000:5,.0f} ms: {others:7.3%} of the others' reads are old")

# %% [markdown]
# Little, as long as the lag is short. But the one who has just *written* reads within milliseconds, and
# gets the old value each time the page is faster than the lag: "I saved my address, and it's not there." So
# read from replicas *knowingly*: whoever has just written reads from the primary. The lab does that.
#
# ## WAIT, and what it does not promise
#
# `WAIT 2 100` blocks until two replicas have acknowledged what *this connection* has written, 100 ms at
# most, and says how many have. This connection: from a pool you get any, hence `client()`, which keeps one.

# %% tags=["live"]
group.hold(first)
line = primary.client()
line.set("price:v1:1", 990)
print("replicas that have it:", line.wait(2, 100))
print("primary says:", line.get("price:v1:1"))

# %% [markdown]
# One of two. Nothing was undone: `WAIT` is a question, not a transaction. Fewer than asked means "I don't
# know whether this survives", and your program has to do something about it.
#
# Enough is not a promise either. For a cache the write that matters is a *delete*. Alice's copy is on all three servers.
# She changes her address, the writer deletes the copy, and waits for one replica.

# %% tags=["live"]
KEY = "user:v1:1"
lab.db.update_user(1, email="alice@old-job.example")
group.release(first)
line.set(KEY, json.dumps(lab.db.user(1)), ex=300)
print("stored on", line.wait(2, 5_000), "replicas")

group.hold(first)
lab.db.update_user(1, email="alice@new-job.example")
line.delete(KEY)
print("deleted on", line.wait(1, 5_000), "replica")

# %% [markdown]
# Now the primary dies, and somebody makes the first replica the new one. **Predict:** what is in the cache,
# and for how long?

# %% tags=["live"]
group.kill(group.primary)
group.release(first)
group.promote(first)
for node in group.primary, second:
    copy, left = node.client.get(KEY), node.client.ttl(KEY)
    print(f"{node.name}: {json.loads(copy)['email']}, for most of 300 s: {200 < left <= 300}")
print("database: ", lab.db.user(1)["email"])

# %% [markdown] given=[16000]
# The old address is back from the dead, on the second replica too, which had acknowledged the delete: it
# follows the new primary now and copies what that has. `WAIT` says how many have a write; it has no say in who
# is elected. Sentinel and Cluster try to take the replica that has most, says the manual of `WAIT`, which makes
# this rare and not impossible. Only if *every* replica that may be elected has the write does a failover keep it.
#
# What ends the mistake is what ended all the others: the TTL, the backstop of `11_stale_data`. A cache whose
# deletes must not get lost needs short TTLs, or versions in the values.
#
# ## Sixteen thousand slots
#
# In a cluster a key's node is computed, not looked up. CRC16 of the key, modulo 16,384, is its **slot**,
# and each primary owns some slots. If the key has something in braces, only that is hashed: a **hash tag**.


# %%
def tag(key):
    start = key.find("{")
    end = key.find("}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else key


def slot(key):
    return crc_hqx(tag(key).encode(), 0) % 16_384


# %%
from redis.crc import key_slot

for key in ("user:v1:1", "{user:1}:profile", "{user:1}:cart", "cart:{}:1", "a{b}{c}", "order:{1"):
    same = slot(key) == key_slot(key.encode())
    print(f"{key:17} hashed: {tag(key):10} slot {slot(key):6,}  as redis-py says: {same}")

# %% [markdown]
# The first pair of braces counts; an empty pair, or one that is not closed, does not. With three equal
# primaries:

# %%
NODES = {"A": range(5_461), "B": range(5_461, 10_922), "C": range(10_922, 16_384)}


def node_of(key):
    return next(name for name, slots in NODES.items() if slot(key) in slots)


question = "Of 300 users, how many have profile and cart in the same slot, without a tag?"
predict(question, key="pairs", unit="users")


# %%
def plain(kind, user):
    return f"{kind}:v1:{user}"


def by_user(kind, user):
    return f"{{user:{user}}}:{kind}"


def by_shop(kind, user):
    return f"{{shop}}:{kind}:{user}"


# %%
pairs = {}
for key in (plain, by_user, by_shop):
    users = range(1, 301)
    pairs[key] = sum(slot(key("profile", user)) == slot(key("cart", user)) for user in users)
    shares = dict(sorted(Counter(node_of(key("cart", user)) for user in users).items()))
    print(f"{key.__name__:8} pairs in one slot: {pairs[key]:3}  carts by node: {shares}")
reveal("pairs", pairs[plain])

# %% [markdown]
# Whatever touches several keys *at once* (`MGET`, `MULTI`, a Lua script) needs them in one slot; one
# node is not enough, since slots move. A tag for the whole shop makes that true for everything, and leaves
# two of three nodes idle. Tag by what belongs together: a user, an order.
#
# ## A real cluster
#
# Three primaries, each with a replica. The first group is gone: there is one at a time.

# %% tags=["live"]
cluster = nodes.cluster(primaries=3, replicas=1, node_timeout=3.0)
print(cluster.ranges())
small = len(cluster.nodes) <= 6 and cluster.memory() < 200
print("six servers in under 200 MB:", small)

# %% [markdown]
# Every node knows who owns what. Ask the wrong one, and look at the reply as it comes over the wire:

# %% tags=["live"]
key = "user:v1:1"
right, wrong = cluster["C"], cluster["A"]
print("right node:", right.wire(f"GET {key}"))
print("wrong node:", wrong.wire(f"GET {key}").rpartition(":")[0])
print("two slots: ", right.wire(f"MGET {key} cart:v1:1"))
print("one slot:  ", cluster.owner("{user:1}:cart").wire("MGET {user:1}:profile {user:1}:cart"))

# %% [markdown]
# `$-1` is "no such key", and `*2` begins a list of two values. `MOVED` names the slot and the node to ask instead (its port is cut off here). A cluster client follows it, and
# keeps a map of all slots, so that it seldom has to. `CROSSSLOT` is final: nobody collects your keys
# for you. A client can (`mget_nonatomic` of redis-py), in one trip per node and not as one step.

# %% tags=["live"]
client = cluster.client
with cluster.served("get") as served:
    for user in range(1, 301):
        client.get(plain("cart", user))
counted = {name: served[name] for name in "ABC"}
print(counted, "as computed:", counted == Counter(node_of(plain("cart", n)) for n in users))

# %% [markdown]
# ## One key, one node
#
# A sale: 60 % of all reads ask for product 7, the others for any of a thousand. A slot cannot be split, so
# its node gets a share of **h + (1 - h) / n**, for a hot share `h` and `n` nodes.

# %%
question = "60 % of the reads ask for one key. What share does its node get, of three nodes?"
predict(question, key="hot", unit="%")


# %%
def busiest(hot, many):
    return hot + (1 - hot) / many


for many in (3, 6, 100):
    print(f"{many:3} nodes: the busiest gets {busiest(0.6, many):.0%}")
reveal("hot", round(100 * busiest(0.6, 3)))

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(8.4, 2.8), layout="constrained")
axes = figure.add_subplot(xlabel="nodes", ylabel="share of the busiest node", ylim=(0, 1.05))
styles = (0.6, "red", "-o"), (0.2, "blue", "--s"), (0, "green", ":^")
for hot, colour, line in styles:
    shares = [busiest(hot, many) for many in range(1, 13)]
    axes.plot(range(1, 13), shares, line, color=PALETTE[colour], ms=4, label=f"hot key {hot:.0%}")
axes.legend(frameon=False)
Picture(
    figure, "Busiest node's share over 1 to 12 nodes: it falls to the hot key's share and stays."
)

# %% [markdown]
# Without a hot key (dotted) each node more helps; with one, the line lies down on its share. Twice the nodes,
# and the busiest has 67 instead of 73 %. Here are 3,000 such reads, by the slots and by the nodes' own
# count:

# %%
draw = random.Random(16)
asked = [7 if draw.random() < 0.6 else draw.randint(1, 1_000) for _ in range(3_000)]
computed = Counter(node_of(f"product:v1:{product}") for product in asked)
print({name: f"{computed[name] / len(asked):.0%}" for name in NODES})

# %% tags=["live"]
with cluster.served("get") as served:
    for product in asked:
        client.get(f"product:v1:{product}")
print("counted as computed:", all(served[name] == computed[name] for name in NODES))

# %% [markdown]
# ### First answer: keep it in the process
#
# Ten pods, 300 reads a second, and in each pod a local cache for the hottest keys, for one second
# (`02_in_memory`). What reaches the cluster in ten seconds:

# %%
HOT, now, trips = "product:v1:7", 0.0, Counter()
pods = [LocalCache(maxsize=10, ttl=1.0, clock=lambda: now) for _ in range(10)]


def read(pod, key):
    def ask():
        trips[key] += 1

    return pod.get(key, ask) if key == HOT else ask()


for number, product in enumerate(asked):
    now = number / 300
    read(draw.choice(pods), f"product:v1:{product}")
print(f"{asked.count(7):,} reads of product 7, {trips[HOT]} of them at node {node_of(HOT)}")

# %% [markdown]
# The hot key costs at most one read per pod and second, however many customers come. The price: each pod is
# up to a second late, for itself, and a delete does not reach it.
#
# ### Second answer: several copies
#
# The value is stored under several names, and a reader takes any. The usual recipe numbers them: `:0`,
# `:1`, `:2`.

# %%
numbered = [f"product:v1:7:{number}" for number in range(3)]
question = "Three numbered copies. On how many of the three nodes is at least one?"
predict(question, key="copies", unit="nodes")

# %%
homes = [node_of(name) for name in numbered]
print(homes)
reveal("copies", len(set(homes)))

# %% [markdown]
# Chance spreads many keys well, and three keys badly. Don't hope, compute: number *tags* until each node
# has a copy. (The tag goes in front, since the first braces count.)


# %%
def copies_of(key):
    found = {}
    for number in count():
        name = f"{{{number}}}:{key}"
        found.setdefault(node_of(name), name)
        if len(found) == len(NODES):
            return [found[node] for node in NODES]


copies = copies_of("product:v1:7")
print(copies)
spread = Counter(node_of(draw.choice(copies)) for product in asked if product == 7)
print("hot reads by node:", dict(sorted(spread.items())))

# %% [markdown]
# **Break the fix.** A new price is three writes now, in three slots, so no transaction can hold them
# together. The writer dies after the first:

# %%
lab.cache.mset(dict.fromkeys(copies, 1_990))
lab.cache.set(copies[0], 990)  # and here it dies
seen = [lab.cache.get(draw.choice(copies)) for _ in range(300)]
back = sum(pair == ("990", "1990") for pair in pairwise(seen))
print(f"of 300 reads {seen.count('990')} see the new price; from new back to old: {back} times")

# %% [markdown]
# ### Third answer: read the replicas too
#
# redis-py takes turns between a primary and its replica, if told to.

# %% tags=["live"]
from redis.cluster import LoadBalancingStrategy

reader = cluster.open(load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN)
with cluster.served("get") as served:
    for _ in range(600):
        reader.get("product:v1:7")
print({name: served[name] for name in ("A", "A2")})

# %% [markdown]
# Half each, and every second read comes from a server that may be behind, as above. Which answer? Local, if
# a second late is within the budget: it is the only one that also saves the trip. Copies, if a delete must
# reach all readers. Replicas, if they stand idle anyway and reads are what is short.
#
# ## Kill a primary under load
#
# One writer per primary, each writing numbered keys one after the other and noting what it saw. The
# clients do not retry, so that we see everything.


# %% tags=["live"]
def writer(client, key, log):
    for number in count():
        try:
            client.set(f"{key}:{number}", number)
            log.append((time.monotonic(), "ok"))
        except redis.RedisError as error:
            log.append((time.monotonic(), type(error).__name__))
        if stop.wait(0.005):
            return


# %% [markdown]
# Beside them, forty orders go to node A and reach its replica. Then the replica is held back, as by a slow
# line, and forty more are written and acknowledged. Then A dies. **Predict:** which writers see errors?
# How many of the eighty orders are lost?

# %% tags=["live"]
stop, logs = threading.Event(), {name: [] for name in NODES}
jobs = [(cluster.open(), key, logs[node_of(key)]) for key in copies_of("load")]
work = [threading.Thread(target=writer, args=job) for job in jobs]
for thread in work:
    thread.start()
while not all(logs.values()):
    stop.wait(0.1)  # until all are at it

# %% tags=["live"]
orders = [f"{copies_of('order')[0]}:{number}" for number in range(80)]
line = cluster["A"].client.client()
acknowledged = [line.set(key, "paid") for key in orders[:40]]
print("replicas that have forty:", line.wait(1, 5_000))
cluster.hold(cluster["A2"])
acknowledged += [line.set(key, "paid") for key in orders[40:]]

# %% tags=["live"]
cluster.kill(cluster["A"])
died = time.monotonic()
cluster.release(cluster["A2"])
cluster.wait_for_takeover(cluster["A2"])
while logs["A"][-1][1] != "ok":
    stop.wait(0.5)
stop.set()
for thread in work:
    thread.join()
print("slots now:", cluster.ranges())

# %% tags=["live"]
found = cluster.open()
kept = [found.get(key) is not None for key in orders]
print(f"orders acknowledged: {sum(acknowledged)}, kept: {sum(kept[:40])} and {sum(kept[40:])}")
for name, log in logs.items():
    errors = Counter(what for _, what in log if what != "ok")
    print(f"writer at {name}: saw errors: {bool(errors)}; served at the end: {log[-1][1] == 'ok'}")
cluster.close()

# %% [markdown]
# Two thirds of the shop noticed nothing. At A every write failed, until the others had missed it for 3 s
# (the **node timeout**), agreed on it, and elected its replica. And forty orders that had been acknowledged are gone,
# without an error to anybody: the new primary never had them. (Orders belong in a database; here they stand
# for whatever you believed to be stored.) Yours, measured:

# %% tags=["live", "nbval-ignore-output"]
errors = Counter(what for _, what in logs["A"] if what != "ok")
again = next(at for at, what in logs["A"] if at > died + 0.5 and what == "ok")
print(dict(errors), f"at A; served again after {again - died:.1f} s")
figure = Figure(figsize=(8.4, 1.8), layout="constrained")
axes = figure.add_subplot(xlabel="time since A was killed (s)", ylim=(2.6, -0.6))
for row, log in enumerate(logs.values()):
    for mark, colour, seen in (("|", "green", "ok"), ("x", "red", "ConnectionError")):
        moments = [at - died for at, what in log if what == seen]
        axes.plot(moments, [row] * len(moments), mark, color=PALETTE[colour], ms=6)
axes.set_yticks(range(3), [f"writer at {name}" for name in logs])
Picture(
    figure, "Writes over time, a bar if acknowledged, a cross if not: a gap at A, none at B, C."
)

# %% [markdown]
# The crosses are the outage: at A only, and over when the replica took its slots. A shorter node timeout ends it sooner, and takes a node that is only slow for dead more often. Retries
# bridge it only if together they last as long. So the code around the cache needs what it needs with one
# server: a fast failure, the database behind it, a breaker (`13_production_cache`), for a third of the keys.
#
# This cluster was told to go on with the two thirds (`cluster-require-full-coverage no`). The default is that
# *nobody* is served while a slot has no owner: right for a database, seldom for a cache.

# %% [markdown]
# ## Recap
#
# - A replica is a copy that is late by an unknown time, and says nothing about it.
# - `WAIT` tells how many have a write of this connection. Only if all who may be elected have it does a
#   failover keep it; a delete can be lost too, and the TTL is the backstop.
# - Keys that are used at once share a tag, and only those.
# - A hot key fills one node whatever their number: keep it in the process, in counted copies, or read
#   replicas.
# - A failover is seconds of errors for a part of the keys, and acknowledged writes can be gone.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/16_beyond_one_node.ipynb`.
