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
# # Store a value, and get the same value back
#
# **About 10 minutes.** Two small functions to warm up, and to see how a lab works.
#
# **What you'll need:** the notebook `00_start_here`.
#
# Replace each line that raises `NotImplementedError` with your own code, then run the cell below it.
# `cachelab.hint("...")` gives hints, three for each exercise.

# %%
import json

import cachelab

lab = cachelab.start()

# %% [markdown]
# ## 1. Remember
#
# A cache stores text. Your program has values: dicts, lists, numbers, `None`. **JSON** is the
# bridge. (Never `pickle`: reading a pickle runs whatever code somebody put into it, and other
# services cannot read it at all.)
#
# Store `value` as JSON under `key`, for `seconds` seconds and no longer.


# %% exercise="00_start_here.remember" minutes=4
def remember(cache, key, value, seconds):
    """Store a value for a while.

    cache: a redis-py client. key: str. value: anything that JSON can hold.
    seconds: whole seconds, at least 1, after which the cache must have forgotten it.
    Returns nothing.
    """
    ### BEGIN SOLUTION
    cache.set(key, json.dumps(value), ex=seconds)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# A redis-py client stores text: which function of Python's json module makes text of a value?

# %% [markdown] tags=["hint"]
# `cache.set(key, text, ex=...)` stores a text together with its TTL in seconds.

# %% [markdown] tags=["hint"]
# One line: `cache.set(key, json.dumps(value), ex=seconds)`.

# %%
cachelab.check("00_start_here.remember", remember)

# %% [markdown] tags=["solution"]
# Why `json.dumps` and not `str`? `str({"a": None})` gives `{'a': None}`, which is Python, not JSON:
# the quotes and the `None` are wrong for every reader that is not Python, and `json.loads` refuses
# it. And why `ex=`? Without it the copy stays for ever: a cache that never forgets is a second
# database that nobody updates.

# %% [markdown]
# ## 2. Recall
#
# The other way round. The catch: what may be stored includes `None`, which JSON writes as `null`.
# "Nothing is stored" and "the stored value is None" are two different answers.


# %% exercise="00_start_here.recall" minutes=5
def recall(cache, key, default=None):
    """Read back what `remember` stored.

    Returns the value; or `default` if the cache has nothing under this key.
    """
    ### BEGIN SOLUTION
    stored = cache.get(key)
    if stored is None:
        return default
    return json.loads(stored)
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# `cache.get(key)` gives the stored text, or None if there is none. When do you look for None:
# before decoding, or after?

# %% [markdown] tags=["hint"]
# Before: afterwards, a stored `null` and nothing at all look the same.

# %% [markdown] tags=["hint"]
# `stored = cache.get(key)`; if `stored is None`, return the default; else `json.loads(stored)`.

# %%
cachelab.check("00_start_here.recall", recall)

# %% [markdown] tags=["solution"]
# `stored is None` asks whether the cache had *nothing*. A test like `if not value` after decoding
# would also throw away 0, "", [] and None, which are perfectly good values: a product that is sold
# out has a stock of 0. Chapter 05 shows what that mistake costs.

# %% [markdown]
# ## Try it on the real cache
#
# Once both pass, they work on the live server of this notebook as well. What do you expect in the
# trace?

# %%
lab.clear()
# Call your functions here, for instance: remember(lab.cache, "greeting", {"to": "Alice"}, 60)
print(lab.trace)

# %% tags=["solution"]
remember(lab.cache, "greeting", {"to": "Alice", "times": 0}, 60)
print(recall(lab.cache, "greeting"), recall(lab.cache, "nothing here", "a default"))

# %% [markdown]
# ## Recap
#
# - Values go through JSON on their way in and out.
# - Every copy gets a TTL.
# - "Not in the cache" and "None" are different answers.
#
# **Next:** `notebooks/01_latency_freshness_cost.ipynb`.
