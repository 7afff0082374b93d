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
# # Use more than one node without breaking a promise
#
# **About 45 minutes.** Five small functions: for keys that stay together, for a key that is too hot, for
# reading a replica, and for a write that has to survive. You need the notebook `16_beyond_one_node`.
#
# The checks bring models of several nodes, with a lag they set themselves, so all exercises work on any
# machine. `cachelab.hint("16_beyond_one_node.tags")` helps.

# %%
import itertools
import json

import redis
from redis.crc import key_slot

import cachelab
from cachelab import nodes

lab = cachelab.start()

# %% [markdown]
# ## 1. Hash tags
#
# A page reads a user's profile, cart and orders with one `MGET`, from a cluster. So they have to be in one
# slot, and the users in many. The ids come from outside and may be any text: `""` and `"}"` have been seen.


# %% exercise="16_beyond_one_node.tags" minutes=6
def key(kind, user):
    """The key of one kind of data of one user.

    kind: "profile", "cart" or "orders"; user: any text, also "". All keys of a user are in one
    slot; different users are spread over the slots; no two keys are the same.
    """
    ### BEGIN SOLUTION
    return f"{{user:{user}}}:{kind}"
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What must be in the braces: what all keys of one user share, and no two users do.

# %% [markdown] tags=["hint"]
# `{}` with nothing inside is no tag. What does your key look like for the user ''? And for '}'?

# %% [markdown] tags=["hint"]
# Something of your own inside helps: `f"{{user:{user}}}:{kind}"`.

# %%
cachelab.check("16_beyond_one_node.tags", key)

# %% [markdown] tags=["solution"]
# The word `user:` inside the braces is no decoration: an empty tag would be no tag. A `}` in an id only ends
# the tag earlier, at the same place for all three kinds.

# %% [markdown]
# ## 2. A hot key, kept for a second
#
# Everybody reads the same product. Keep what you have read in `local`, a dict of this process, and answer
# from it for a second. A missing key can be hot too.


# %% exercise="16_beyond_one_node.local" minutes=8
def read_hot(cluster, key, local, now):
    """The value of a key, at most 1 s old: a text, or None if the cluster has none.

    cluster: a redis-py client; local: a dict of this process, empty at first, to keep in it what
    you like of at most 100 keys; now: seconds, never going back.
    """
    ### BEGIN SOLUTION
    value, since = local.get(key, (None, None))
    if since is None or now - since > 1:
        value = cluster.get(key)
        if len(local) >= 100:
            local.clear()
        local[key] = (value, now)
    return value
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Keep the value together with the second at which you asked for it.

# %% [markdown] tags=["hint"]
# A value that is None is an answer too: ask whether the key is in `local`, not whether its value is
# true. And make room before the 101st.

# %% [markdown] tags=["hint"]
# `value, since = local.get(key, (None, None))`; if `since is None or now - since > 1`, then `if
# len(local) >= 100: local.clear()` and `local[key] = (cluster.get(key), now)`.

# %%
cachelab.check("16_beyond_one_node.local", read_hot)

# %% [markdown] tags=["solution"]
# The node of the hot key now sees one read per pod and second, however many customers come. To clear all
# when it is full is crude and enough: what is hot is back within a read.

# %% [markdown]
# ## 3. A hot key, once on each node
#
# A second may be too old. Then the value gets several copies, one on each node, and a reader takes any.
# Find the names. `key_slot(name.encode())` of redis-py tells a name's slot. The writer and all readers call
# your function by themselves, and have to get the same names.


# %% exercise="16_beyond_one_node.copies" minutes=8
def copy_keys(key, ranges):
    """Names for copies of `key`: a list of texts, exactly one name for each node.

    ranges: the slots of each node, as (first, last), both included; every slot is in one of them.
    Copies of different keys have different names. The key may hold braces itself.
    """
    ### BEGIN SOLUTION
    names = {}
    for number in itertools.count():
        name = f"{{{number}}}:{key}"
        slot = key_slot(name.encode())
        home = next(one for one in ranges if one[0] <= slot <= one[1])
        names.setdefault(home, name)
        if len(names) == len(ranges):
            return list(names.values())
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# You cannot choose a slot, but you can try names until one falls where you want it.

# %% [markdown] tags=["hint"]
# Try `{0}:key`, `{1}:key`, `{2}:key`... in order; so everybody finds the same names. The tag stands
# in front, since the first braces count.

# %% [markdown] tags=["hint"]
# For n in itertools.count(): `name = f"{{{n}}}:{key}"`, find the range that has
# `key_slot(name.encode())`, `names.setdefault(range, name)`; stop when each range has one.

# %%
cachelab.check("16_beyond_one_node.copies", copy_keys)

# %% [markdown] tags=["solution"]
# The tag stands in front, since the first braces of a key count. When slots move to another node, the names
# change too: fill the new copies before you delete the old ones.

# %% [markdown]
# ## 4. Read a replica, knowingly
#
# Values are JSON with a `version` that grows with each write. Whoever writes puts it into the session:
#
# ```python
# def write(primary, key, row, session):
#     primary.set(key, json.dumps(row), ex=300)
#     session[key] = row["version"]
# ```
#
# Read from the replica, unless that would take something back: what this user has written, or has already
# seen on another replica. If the replica is down, ask the primary.


# %% exercise="16_beyond_one_node.replica" minutes=10
def read(primary, replica, key, session):
    """The row under `key`, a dict, or None; never older than what this session wrote or saw.

    primary, replica: redis-py clients, of which each is asked once at most, the replica first.
    session: {key: version}, of the last write or read; yours to update.
    """

    ### BEGIN SOLUTION
    def ask(node):
        stored = node.get(key)
        row = None if stored is None else json.loads(stored)
        return row, row["version"] if row else 0

    known = session.get(key, 0)
    try:
        row, version = ask(replica)
    except redis.ConnectionError:
        version = -1
    if version < known or version < 0:
        row, version = ask(primary)
    session[key] = max(known, version)
    return row
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Ask the replica first. What does the session know that tells whether its answer is new enough?

# %% [markdown] tags=["hint"]
# A value that is missing has version 0. If the replica's version is below `session.get(key, 0)`,
# ask the primary. Then remember what was seen.

# %% [markdown] tags=["hint"]
# `stored = replica.get(key)` in a try; `version = json.loads(stored)['version'] if stored else 0`;
# if it is too low, the same with `primary`; at the end `session[key] = max(seen, version)`.

# %%
cachelab.check("16_beyond_one_node.replica", read)

# %% [markdown] tags=["solution"]
# "For five seconds after a write read the primary" needs no versions and guesses the lag; this knows it.
# The price is a second trip while the replica is late, and only for the one who has written.

# %% [markdown]
# ## 5. A write that survives
#
# Write, and say honestly whether every replica has it, because any of them may be the next primary. `WAIT`
# answers for the connection it comes on, and a pool gives you any: `primary.client()` keeps one. If you
# cannot be sure, do not take the write back (that can get lost too); leave `(key, value)` in
# `again`, and somebody will write it once more after the failover.


# %% exercise="16_beyond_one_node.failover" minutes=10
def save(primary, key, value, replicas, again):
    """Store `value` for 300 s; True if all replicas have acknowledged it, within 100 ms.

    primary: a redis-py client; replicas: how many there are; again: a list, to which (key, value)
    is appended whenever the answer is False: too few replicas, or an error of the primary's.
    """
    ### BEGIN SOLUTION
    try:
        line = primary.client()
        line.set(key, value, ex=300)
        have = line.wait(replicas, 100)
    except redis.RedisError:
        have = -1
    if have >= replicas:
        return True
    again.append((key, value))
    return False
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# WAIT answers for the connection it comes on. Which connection does your WAIT use, and which one
# your SET?

# %% [markdown] tags=["hint"]
# `line = primary.client()` keeps one connection: `line.set(...)`, `line.wait(...)`. Compare what
# WAIT says with `replicas`; it does not raise when there are fewer.

# %% [markdown] tags=["hint"]
# In a try: SET with ex=300, `have = line.wait(replicas, 100)`; on a RedisError `have = -1`. If
# `have >= replicas` return True; else append (key, value) to `again`, and return False.

# %%
cachelab.check("16_beyond_one_node.failover", save)

# %% [markdown] tags=["solution"]
# False does not mean "not stored": it means "nobody can say". To write the same value again does no harm,
# which is why it is the right thing to keep.

# %% [markdown]
# ## On real servers
#
# Three of them: a primary with two replicas. Try your `save` and `read` with a replica that is late.

# %% tags=["live"]
group = nodes.replicated(replicas=2)
again, session = [], {}
# For instance: group.hold(group.replicas[0]), then save(group.primary.client, ...)

# %% [markdown] tags=["solution"]
# Held back, the first replica is late, and both functions notice.

# %% tags=["live", "solution"]
primary, late = group.primary.client, group.replicas[0]
row = json.dumps({"version": 1, "email": "alice@example.org"})
print("all well:", save(primary, "profile:v1:1", row, 2, again), len(again))
group.hold(late)
row = json.dumps({"version": 2, "email": "alice@new-job.example"})
print("one late:", save(primary, "profile:v1:1", row, 2, again), len(again))
print("a visitor:", read(primary, late.client, "profile:v1:1", {}))
print("Alice:    ", read(primary, late.client, "profile:v1:1", {"profile:v1:1": 2}))

# %% tags=["live", "solution"]
group.close()

# %% [markdown]
# ## Recap
#
# - In the braces: what belongs together, and never nothing.
# - A hot key is kept in the process for a second, or has one counted copy on each node.
# - A replica is read by versions: never less than this user wrote or saw.
# - `WAIT` on the connection of the write, for all replicas; and a list for what nobody can be sure of.
#
# **Next:** `notebooks/17_incident.ipynb`.
