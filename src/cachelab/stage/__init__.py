"""The stage: a learner's own code on a virtual clock, in every order that could happen.

`run` plays actors once and gives the trace; `explore` plays every order and gives a verdict;
`replay` plays one order that is given. An
actor is ordinary synchronous code: redis-py, SQLAlchemy, time, threads. It is switched only at a
cache command, a SQL statement, a commit or rollback, a sleep, and a wait for a lock; the Python
between two of those is one step.
"""

from __future__ import annotations

from cachelab.stage.faults import (
    CacheDown,
    DropMessage,
    Fault,
    KeyExpires,
    LockExpires,
    Pause,
    SlowCommand,
)
from cachelab.stage.replay import Impossible, replay
from cachelab.stage.scheduler import Limit, Refused, Stuck
from cachelab.stage.search import Exploration, explore
from cachelab.stage.world import Actor, StageTrace, World, run, threads

__all__ = [
    "Actor",
    "CacheDown",
    "DropMessage",
    "Exploration",
    "Fault",
    "Impossible",
    "KeyExpires",
    "Limit",
    "LockExpires",
    "Pause",
    "Refused",
    "SlowCommand",
    "StageTrace",
    "Stuck",
    "World",
    "explore",
    "replay",
    "run",
    "threads",
]
