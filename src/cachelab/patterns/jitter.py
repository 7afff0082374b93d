"""Jitter: copies that were made together should not all expire together."""

import random
from collections.abc import Callable

Draw = Callable[[], float]


def ttl(seconds: int, share: float = 0.15, draw: Draw = random.random) -> int:
    """A TTL from `(1 - share) * seconds` to `seconds`: whole seconds, at least 1.

    Jitter is taken off, never added: whoever promised that an answer is at most
    `seconds` old keeps the promise. `draw` gives numbers from 0 to below 1. It
    spreads different keys; for one hot key it changes nothing.
    """
    return max(1, int(seconds - seconds * share * draw()))
