"""What `threading.local` keeps: for each actor its own, though all run on one OS thread.

The interpreter keeps it by OS thread: up to Python 3.12 in a dict of the thread's state, from 3.13
on in each local under a key that the thread's state holds. Either is exchanged when another actor
goes on, so that every local is each actor's own, whoever made it and whatever its class.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Iterable
from typing import Any

_get_state = ctypes.pythonapi.PyThreadState_Get
_get_state.restype = ctypes.c_void_p
_get_dict = ctypes.pythonapi.PyThreadState_GetDict
_get_dict.restype = ctypes.c_void_p  # not py_object: the reference is borrowed
_WORD = ctypes.sizeof(ctypes.c_void_p)


def _kept() -> dict[Any, Any]:
    """The dict of this OS thread's state."""
    found: dict[Any, Any] = ctypes.cast(_get_dict(), ctypes.py_object).value
    return found


def _find_key() -> int | None:
    """Where in a thread's state its key is; None if there is none."""
    before, local = len(_kept()), threading.local()
    local.name = "any"
    if len(_kept()) > before:
        return None
    (key,) = next(found for found in gc.get_referents(local) if type(found) is dict and found)
    state = _get_state()
    for offset in range(0, 2048, _WORD):
        if ctypes.c_void_p.from_address(state + offset).value == id(key):
            return offset
    raise ImportError("This Python keeps thread locals in another way than CPython 3.11 to 3.14.")


_KEY = _find_key()


def exchange(old: Any, new: Any) -> None:
    """What is kept for this OS thread goes to `old.locals`; what is there for `new` takes effect.

    `locals` of both is None as long as there is nothing.
    """
    if _KEY is None:
        here = _kept()
        if here or old.locals:
            old.locals = dict(here)
        if here or new.locals:
            here.clear()
            here.update(new.locals or ())
        return
    slot = ctypes.c_void_p.from_address(_get_state() + _KEY)
    if old.locals is None:
        old.locals = slot.value  # the caller's own key
    if new.locals is None:
        new.locals = ActorKey()
    slot.value = new.locals if type(new.locals) is int else id(new.locals)


class ActorKey:
    """Under this one, locals keep what an actor has."""


_retired: list[ActorKey] = []


def retire(tasks: Iterable[Any]) -> None:
    """These are over: nobody asks for their locals any more."""
    for task in tasks:
        if type(task.locals) is ActorKey:
            _retired.append(task.locals)
        task.locals = None


def forget() -> None:
    """Take what retired tasks have left out of the locals that outlive them."""
    # An entry refers to its key, beside the list, the loop's variable and the argument.
    used = [key for key in _retired if sys.getrefcount(key) > 3]
    _retired.clear()
    if used:
        ours = set(map(id, used))
        for space in gc.get_referrers(*used):
            if type(space) is dict:
                for key in [key for key in space if id(key) in ours]:
                    del space[key]
