# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Watch a class at work
#
# **For the instructor.** Who is where, which exercise is hard, and which wrong answers are common, as the verdicts
# come in. `cachelab board` shows the same in a terminal.
#
# **What you'll need:** `CACHELAB_CLASS_URL`, set before JupyterLab is started: the address of the class's Redis, with
# a user who may read the board (the one with which `cachelab class create` was called, not a learner's).
#
# The board holds names that people chose, exercise ids, outcomes, and of a failed verdict the check's own words.
# No code is sent to it, and no value that somebody's code gave: where one stood, there is a "…".

# %%
from cachelab import board

room = board.watch()

# %% [markdown]
# ## As it is now
#
# Run the cell again to see what is new; only that is read. *Stuck* is who failed three times in a row on the exercise
# where they are: go there first, and ask what they expected to see.

# %%
room

# %% [markdown]
# ## As it changes
#
# Leave this running on the big screen, or only on yours; the stop button ends it. When a third of the room gives the
# same wrong answer, stop everybody and talk about it.

# %%
room.live(minutes=90)

# %% [markdown]
# ## One exercise
#
# Who has not passed it yet? Take the id from the first table.

# %%
told = room.read()
exercise = told["exercises"][-1]["exercise"] if told["exercises"] else ""
waiting = [
    one["name"]
    for one in told["people"]
    if one["exercise"] == exercise and one["outcome"] != "passed"
]
print(f"{exercise or 'no exercise yet'}: at work are {', '.join(waiting) or 'none'}")
