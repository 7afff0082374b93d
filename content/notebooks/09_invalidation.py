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
# # Find every copy when the original changes
#
# **About 30 minutes.**
#
# **What you'll do.** Let one price change reach its copies in three ways and count who sees the old
# one. Rename Alice, and hunt her old name through the cache. Lose a message, kill a process between
# two steps, and run two releases at once; then make each of them harmless.
#
# **What you'll learn.** What TTL, delete and event each promise; why a list of keys goes wrong, and
# what a tag does instead; what pub/sub, a stream and an outbox lose; why a version in a key needs a
# release in between.
#
# **What you'll need.** `05_cache_aside`; `11_stale_data` helps with the race between fill and delete.

# %%
import json
import random
import time
from collections import Counter
from functools import partial
from itertools import pairwise

import sqlalchemy as sa

import cachelab
from cachelab import stage
from cachelab.models import staleness
from cachelab.patterns import cache_aside, outbox, stream_consumer, tags
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## One price, three ways to tell
#
# Two things are hard in computer science, goes Phil Karlton's joke: cache invalidation and naming
# things. This chapter has both; names come last. A price makes an easy start: it has one key. In four
# hours it is asked for about every five seconds and changed about every twenty minutes, both drawn
# once, with a seed.

# %%
PRICE = "price:v1:1"
draw = random.Random(9)
asked = [second for second in range(14_400) if draw.random() < 1 / 5]
changed = [second + 0.5 for second in range(14_400) if draw.random() < 1 / 1_200]


def at_each(moments, act):
    for before, now in pairwise([0, *moments]):
        time.sleep(now - before)
        act(now)


# %% [markdown]
# Customers read by cache-aside. The editor changes the row and then **tells**, in one of three ways.
# With a **TTL** alone nobody is told. With **explicit** invalidation the editor deletes the key. With
# an **event** the editor publishes what happened, and a listener deletes the key, here two seconds
# later.


# %%
def customers(seconds, cache, db):
    def price():
        return db.product(1)["price_cents"]

    at_each(asked, lambda _: cache_aside.read(cache, PRICE, price, seconds))


def editor(tell, cache, db):
    def change(now):
        db.update_product(1, price_cents=500 + int(now))
        tell(cache)

    at_each(changed, change)


# %%
def listener(cache, db):
    with cache.pubsub() as heard:
        heard.subscribe("product.updated")
        for _ in range(1 + len(changed)):  # the first message only says "subscribed"
            message = heard.get_message(timeout=14_400)
            if message and message["type"] == "message":
                time.sleep(2)  # the way through the queue
                cache.delete(PRICE)


# %%
def four_hours(seconds, tell, faults=()):
    actors = {"customers": partial(customers, seconds), "editor": partial(editor, tell)}
    run = stage.run({**actors, "listener": listener}, faults=faults)
    longest = max((event.stale_for for event in run.stale), default=0)
    stale = f"{len(run.stale):4} of {run.hits:,} hits with an old price"
    print(f"{run.queries:3} queries, {stale}, the oldest for {longest:,.0f} s")
    return run


# %% [markdown]
# The article's example is a price with a TTL of ten minutes. The other two ways keep a TTL of an hour,
# as a backstop.

# %%
question = "With a TTL of ten minutes, what share of the hits shows an old price, in per cent?"
predict(question, key="ttl", unit="%")


# %%
def nobody(cache): ...


def explicit(cache):
    cache.delete(PRICE)


def event(cache):
    cache.publish("product.updated", "1")


print(len(changed), "changes")
by_ttl = four_hours(600, nobody)
by_hand = four_hours(3_600, explicit)
by_event = four_hours(3_600, event)
reveal("ttl", round(100 * len(by_ttl.stale) / by_ttl.hits))

# %% [markdown]
# The TTL asks most often and is wrong most often. Whoever deletes is right at once, and asks once per
# change. The event is late by the time of its journey. How much that costs has a formula: the share
# of the hits is (1 - exp(-2md)) / 2, for m changes a second and a delay of d seconds. For a delay as
# short as this that is just md, the share of the time that lies between a change and its event.

# %%
share = staleness.stale_share_delayed(write_rate=1 / 1_200, delay=2)
print(f"model {by_event.hits * share:.1f} hits, stage {len(by_event.stale)}")

# %% [markdown]
# So for *one key in one cache* the plain delete wins. What the event buys is something else: the
# editor's code names no key. For that to matter, there have to be many.
#
# ## Who holds Alice's name?
#
# Here is the shop with four kinds of pages. A comment thread shows the authors' names, and so does a
# feed, which is what a writer sees of the comments on her own articles.

# %%
SAID = """SELECT comments.id, user_id, users.name AS author FROM comments
    JOIN users ON users.id = user_id JOIN articles ON articles.id = article_id
    WHERE {} = :id ORDER BY comments.id"""


def rows(sql, number):
    with lab.db.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.text(sql), {"id": number})]


USERS = "SELECT id AS user_id, {} FROM users WHERE id = :id"
kinds = {
    "user:v1": (USERS.format("name, email"), [1]),
    "user:public:v1": (USERS.format("name, bio"), [1]),
    "comments:v1": (SAID.format("article_id"), range(1, 201)),
    "feed:v1": (SAID.format("author_id"), range(2, 202)),
}


# %%
def plain(key, load):
    return cache_aside.read(lab.cache, key, load, 3_600)


def showing(name, read=plain):
    """The keys of all pages that show this name, having read every page."""
    found = []
    for kind, (sql, numbers) in kinds.items():
        for number in numbers:
            page = read(f"{kind}:{number}", partial(rows, sql, number))
            if f'"{name}"' in json.dumps(page):
                found.append(f"{kind}:{number}")
    return found


# %% [markdown]
# Alice has been a customer for a while, and now she wants to be called Alicia. The article's
# `updateUser` clears three keys by hand, `user`, `permissions` and `user:public`, and asks whoever adds
# a cache to add its key there too.

# %%
predict("How many pages still show her old name after that?", key="alice", unit="pages")

# %%
lab.db.update_user(1, name="Alice")  # as it was, should you run this twice
lab.clear()
before = showing("Alice")
lab.db.update_user(1, name="Alicia")
lab.cache.delete("user:v1:1", "permissions:v1:1", "user:public:v1:1")
after = showing("Alice")

print("before:", dict(Counter(key.rpartition(":")[0] for key in before)))
print("after: ", dict(Counter(key.rpartition(":")[0] for key in after)))
print(lab.trace.errors, "errors")
reveal("alice", len(after))

# %% [markdown]
# The article warns that a forgotten key makes a silent bug, and its own list forgets nearly all. One of
# the three that it does clear, `permissions`, holds no name. Nothing warned anybody.
#
# The cache does not know what a copy was made of. The **dependency map** has to come from somewhere,
# and a list by hand is the worst place. Who knows in which threads Alice has written? The database.

# %%
THREADS = "SELECT DISTINCT article_id AS n FROM comments WHERE user_id = :id"
FEEDS = f"SELECT DISTINCT author_id AS n FROM articles WHERE id IN ({THREADS})"

threads = [f"comments:v1:{row['n']}" for row in rows(THREADS, 1)]
feeds = [f"feed:v1:{row['n']}" for row in rows(FEEDS, 1)]
lab.cache.delete("user:v1:1", "user:public:v1:1", *threads, *feeds)
print(f"{len(threads)} threads and {len(feeds)} feeds deleted")
print(len(showing("Alice")), "old names left")

# %% [markdown]
# This map is never out of date, but it must be written anew for every kind of page, by somebody who
# knows all pages. Two other ways need no map:
#
# - **Hold ids, not copies.** A thread that holds user ids and looks up the names under `user:v1:*`
#   with one `MGET` (`03_distributed`) holds no name that could get old. Try that first.
# - **Tags.** A copy says what it is made of, when it is filled.
#
# ## Tags, first try
#
# The obvious form: for each user a set of the keys that hold something of them. The reader adds its key
# after the fill; the writer deletes what is in the set.


# %%
KEY = "user:v1:1"


def adding_reader(cache, db):
    user = cache_aside.read(cache, KEY, lambda: db.user(1), 300)
    cache.sadd("keys-of:user:1", KEY)
    return user


def set_deleting_writer(cache, db):
    db.update_user(1, name="Alicia")
    cache.delete("keys-of:user:1", *cache.smembers("keys-of:user:1"))


def holds_the_truth(world):
    stored = world.cache.get(KEY)
    if stored and json.loads(stored)["name"] != world.db.user(1)["name"]:
        return "the old name stays in the cache."


# %%
actors = {"reader": adding_reader, "writer": set_deleting_writer}
first_try = stage.explore(actors, holds_the_truth, commit_apart=False)
print(first_try.summary)
cachelab.lanes(first_try.counterexample)

# %% [markdown] given=[30]
# In the lanes the reader has stored the old name (square), and the writer looks into the empty set (the
# second circle: a miss) before the key is in it (dot). Adding the key first does not help: then the
# fill can come last, as in `11_stale_data`.
#
# ## Tags, with a clock
#
# Turn it round: let the writer not look for copies, but leave word, and every reader check. A counter
# serves as the **clock**. Forgetting a tag moves the clock on and writes the new time under the tag, as
# its **mark**; it stays for 30 days, longer than any copy. A copy carries its tags and the time *before
# its query*, and is **void**, a miss, as soon as one of its tags has a later mark.

# %%
print(tags.FORGET, end="\n\n")
cachelab.show(tags.read)


# %%
def tags_of(value):
    people = value if isinstance(value, list) else [value]
    return {f"user:{row.get('user_id', row.get('id'))}" for row in people}


def tagged_reader(cache, db):
    return tags.read(cache, KEY, lambda: db.user(1), tags_of, 300)


def forgetting_writer(cache, db):
    db.update_user(1, name="Alicia")
    tags.forget(cache, "user:1")


def tells_the_truth(world):
    if tagged_reader(world.cache, world.db) != world.db.user(1):
        return "the next reader gets the old name."


# %%
actors = {"a": tagged_reader, "b": tagged_reader, "writer": forgetting_writer}
stage.explore(actors, tells_the_truth)

# %% [markdown]
# No order is left over: a fill that began before the write has an older time, however late it ends.
# Now the whole shop, with the same pages. **Predict:** how many commands void them all?


# %%
def tagged(key, load):
    return tags.read(lab.cache, key, load, tags_of, 3_600)


lab.clear()
showing("Alicia", tagged)
with lab.record() as writing:
    lab.db.update_user(1, name="Ally")
    tags.forget(lab.cache, "user:1")
with lab.record() as reading:
    left = showing("Alicia", tagged)
most = max(len(json.loads(lab.cache.get(key))["tags"]) for key in before)
print(len(left), "old names left;", writing.count("command"), "command to the cache")
print(reading.queries, "pages loaded again, the others served from the cache")
print("most tags on one page:", most)

# %% [markdown]
# One command, whatever the pages. **What it costs:** every hit makes a second trip, and reads one mark
# for each of the page's tags.
#
# **Break the fix.** The truth now lies in the marks. Let the server evict one, or let the writer die
# between its commit and `forget`:


# %%
def eviction(cache, db):
    cache.unlink("tag:user:1")


actors = {"reader": tagged_reader, "writer": forgetting_writer}
evicted = stage.explore({**actors, "eviction": eviction}, tells_the_truth, setup=tagged_reader)
died = stage.explore(actors, tells_the_truth, setup=tagged_reader, crashes=1)
print("Evicted:", evicted.summary)
print("Died:   ", died.summary)

# %% [markdown] given=[10]
# Keep marks where nothing is evicted. The writer that dies before it has told is a matter of events,
# and these come now.
#
# ## Events that get lost
#
# The article calls event-driven invalidation the right approach at scale. It is, if the event arrives.
# Back to the four hours, with pub/sub. **Predict** what one lost message does, with a TTL of ten
# minutes and with none.

# %%
lost = [stage.DropMessage("product.updated", nth=4)]
for seconds in (600, None):
    four_hours(seconds, event, lost)

# %% [markdown] given=[10]
# The TTL of ten minutes ended it; without one, only the next change of the price did. A name may never
# change again, and would be stale for ever. And it takes no broken
# network: pub/sub reaches those who listen *now*, and a listener that is being deployed does not.

# %%
heard = lab.cache.pubsub()
heard.subscribe("user.updated")
heard.get_message(timeout=5)
heard.close()  # a deploy: nobody listens
print("listeners reached:", lab.cache.publish("user.updated", "1"))
heard.subscribe("user.updated")  # back again
print([heard.get_message(timeout=1)["type"], heard.get_message(timeout=0.2)])
heard.close()

# %% [markdown]
# Nobody raised anything. Whoever listens by pub/sub has to drop *all* copies whenever it connects
# anew. Or use a log: a **stream** keeps what was said, and a **consumer group** knows who has handled
# what.

# %%
cachelab.show(stream_consumer.consume)

# %%
LOG = ("users:log", "invalidation")
forgotten = []


def forget_user(event):
    forgotten.append(event["user"])
    tags.forget(lab.cache, f"user:{event['user']}")


lab.clear()
stream_consumer.create(lab.cache, *LOG)
for user in (1, 2, 3):  # nobody is there
    stream_consumer.publish(lab.cache, "users:log", {"user": user})
print("back, handled:", stream_consumer.consume(lab.cache, *LOG, "one", forget_user))
print(forgotten)

# %% [markdown]
# And if a consumer dies with an event in its hands? It has not acknowledged it, so another claims it
# after a minute.

# %%
stream_consumer.publish(lab.cache, "users:log", {"user": 4})
lab.cache.xreadgroup("invalidation", "one", {"users:log": ">"})  # and dies here
take = partial(stream_consumer.consume, lab.cache, *LOG, "two", forget_user)
print("at once:", take(), "handled")
print("claimed after 0 s instead:", take(claim_after=0), "handled; in all", forgotten)

# %% [markdown]
# It may have died *after* it had forgotten the tag. Then the event is handled twice, and so handling
# must do no harm twice. This does none. (Each service that has copies of its own gets its own group.)
#
# ## The gap before the event
#
# The event is safe once it is in the log. Two systems are written to, one after the other: the
# database, then the log.


# %%
def prepare(cache, db):
    outbox.create(db.engine)
    stream_consumer.create(cache, *LOG)
    tagged_reader(cache, db)


def consumer(cache, db):
    def handle(event):
        tags.forget(cache, f"user:{event['user']}")

    return stream_consumer.consume(cache, *LOG, "one", handle, claim_after=60)


def publish(cache, event):
    return stream_consumer.publish(cache, "users:log", event)


# %%
def commit_then_publish(cache, db):
    db.update_user(1, name="Alicia")
    publish(cache, {"user": 1})


later = {"consumer later": (100, consumer), "consumer again": (200, consumer)}
actors = {"writer": commit_then_publish, "reader": tagged_reader, "consumer": consumer}
gap = stage.explore({**actors, **later}, tells_the_truth, setup=prepare, crashes=1)
print(gap.summary)
print([event.what for event in gap.counterexample if event.actor == "writer"])

# %% [markdown]
# Every consumer ran again, and there was nothing to consume. To publish first would be no better: then
# a crash announces what never happens, and a quick consumer acts before the commit.
#
# A **transactional outbox** writes the event into a table, *in the same transaction*. Either both are
# there or neither. A relay carries it on from there.

# %%
cachelab.show(outbox.relay)

# %%
RENAME = sa.text("UPDATE users SET name = 'Alicia', version = version + 1 WHERE id = 1")


def relay(cache, db):
    return outbox.relay(db.engine, partial(publish, cache))


def commit_with_outbox(cache, db):
    with db.engine.begin() as connection:
        connection.execute(RENAME)
        outbox.note(connection, user=1)
    return relay(cache, db)


later = {"relay": (50, relay), "relay again": (80, relay), **later}
actors = {"writer": commit_with_outbox, "reader": tagged_reader, "consumer": consumer}
stage.explore({**actors, **later}, tells_the_truth, setup=prepare, crashes=1)

# %% [markdown]
# All orders, and a crash at each step of each process: whatever was committed is told in the end.
# "In the end" means after the relay's next pass. For that long, and for a relay that is stopped, copies
# need their TTL.
#
# ## The server can tell too
#
# Copies inside a process (`02_in_memory`) have no key that anybody could delete. With `CLIENT TRACKING`
# the server remembers which connection has read which key, and sends word when it changes. redis-py has
# a cache built on it, which refuses Valkey and Redis before 7.4; the command itself works on both.

# %% tags=["live"]
aware, told = lab.client(protocol=3).client(), []
aware.connection._parser.set_invalidation_push_handler(told.append)
aware.execute_command("CLIENT TRACKING", "ON")

lab.cache.set("flag:v1:new_checkout", "off")
aware.get("flag:v1:new_checkout")  # from now on it is watched
for value in ("on", "off"):
    lab.cache.set("flag:v1:new_checkout", value)
    aware.ping()  # what the server pushed is read along with an answer
    print("told so far:", len(told))

# %% [markdown]
# Two changes, one message: the server forgets whom it has told, until they read again. And it is a
# message to a connection. When that breaks, drop every copy, as with pub/sub.
#
# ## Two releases at once
#
# The article puts a version into its keys: raise it, and the old copies are left to expire. But a
# rolling deploy runs both releases for a while. Release 1 reads and deletes `user:v1`,
# release 2 reads and deletes `user:v2`.

# %%
predict("Of the four pairs (who writes, who reads), how many show an old name?", key="deploy")


# %%
def pairs(*releases):
    """Which (writer, reader) leave an old name; a release is (what it reads, what it deletes)."""
    wrong = []
    for writer, (_, deletes) in enumerate(releases, 1):
        for reader, (reads, _) in enumerate(releases, 1):
            lab.cache.set(f"user:{reads}:1", "old")
            lab.cache.delete(*(f"user:{version}:1" for version in deletes))
            if lab.cache.get(f"user:{reads}:1") == "old":
                wrong.append(f"{writer} writes, {reader} reads")
    return wrong


both = ("v1", "v2")
print(apart := pairs(("v1", ["v1"]), ("v2", ["v2"])))
print(pairs(("v1", ["v1"]), ("v2", both)))
print(pairs(("v1", both), ("v2", both)))
reveal("deploy", len(apart))

# %% [markdown]
# Even if the new release deletes both, one pair is left, and only a change in the *old* release could
# help. So there has to be a release between, that still reads `v1` and deletes both. The lab asks for
# the whole plan. (Tags have no version: `user:1` voids both.)
#
# And the copies of the old version are no use to the new one: it starts with an empty cache. From a hit
# ratio h, that is 1 / (1 - h) times the usual queries at first:

# %%
for hit_ratio in (0.7, 0.95, 0.99):
    print(f"from {hit_ratio:.0%} hits: {1 / (1 - hit_ratio):.1f} times the queries")

# %% [markdown]
# ## Recap
#
# - TTL: wrong for as long as it lasts. Delete: right at once, for the keys that you know. Event: late
#   by its journey, but the writer need not know the keys.
# - The map of who holds what comes from a query, from ids instead of copies, or from tags, which void
#   a copy wherever it is.
# - Pub/sub forgets who was away. A log and a consumer group catch up, at least once.
# - Between commit and publish lies a crash. An outbox closes the gap.
# - A version in a key takes a release that deletes both. And under it all lies a TTL.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/09_invalidation.ipynb`.
