"""How many readers reach the database when one hot key is missing, and how long the last one waits.

N readers arrive over a window (rate r = N / window) and find the key missing; the query takes D on
an idle database with c slots; the first answer fills the cache. The tipping point is r D / c = 1.

"fcfs": c slots, one query each, the others queue in order. "ps": all queries run at once and
share the c slots equally (processor sharing), none faster than alone.

Sources: derived for this course and checked against the simulator and SimPy; FCFS is the Lindley
recursion (Lindley, "The theory of queues with a single server", 1952), one per slot.
"""

import math
from dataclasses import dataclass

import numpy as np

from cachelab.models.inputs import FloatArray, count, number, one_of, uniforms

DISCIPLINES = ("fcfs", "ps")
ARRIVALS = ("even", "random", "front-loaded")
SAME_MOMENT = 1e-9  # relative: an arrival this close to the first answer still misses


@dataclass(frozen=True)
class Prediction:
    """Closed form of a stampede.

    queries: mean readers that reach the database; first_answer, last_answer: s after the first
    arrival; mean_wait: s over the readers that query. NaN where no closed form is claimed.
    """

    queries: float
    first_answer: float
    last_answer: float
    mean_wait: float


@dataclass(frozen=True, eq=False)
class Stampede:
    """A simulated stampede.

    arrivals: s after the first, shape (readers,); waits: s from arrival to answer, shape
    (readers,), 0 for a hit; queries: readers that reached the database; first_answer,
    last_answer: s after the first arrival; longest_wait: s.
    """

    arrivals: FloatArray
    waits: FloatArray
    queries: int
    first_answer: float
    last_answer: float

    @property
    def longest_wait(self) -> float:
        return float(self.waits.max())

    @property
    def mean_wait(self) -> float:
        """Mean wait (s) of the readers that arrived before the cache was filled."""
        return float(self.waits[: _arrived_by(self.arrivals, self.first_answer)].mean())


def load(read_rate: float, query_time: float, slots: int) -> float:
    """Work offered per slot, r D / c: above 1 a database that shares its slots tips over."""
    rate = number("read_rate", read_rate, "reads/s")
    return rate * number("query_time", query_time, "seconds") / count("slots", slots)


def at_once(readers: int, query_time: float, slots: int, discipline: str = "fcfs") -> Prediction:
    """N readers at one instant: all query.

    fcfs: reader i (from 1) waits ceil(i/c) D, so the last ceil(N/c) D. ps: all finish together at
    max(1, N/c) D.
    """
    readers, slots = count("readers", readers), count("slots", slots)
    query_time = number("query_time", query_time, "seconds")
    if one_of("discipline", discipline, DISCIPLINES) == "ps":
        together = max(1.0, readers / slots) * query_time
        return Prediction(readers, together, together, together)
    rounds = -(-readers // slots)
    in_full_rounds = slots * (rounds - 1) * rounds / 2
    in_last_round = (readers - slots * (rounds - 1)) * rounds
    mean = (in_full_rounds + in_last_round) / readers * query_time
    return Prediction(readers, query_time, rounds * query_time, mean)


def spread_out(
    readers: int, window: float, query_time: float, slots: int, discipline: str = "fcfs"
) -> Prediction:
    """N readers evenly over `window` s; those after the first answer hit.

    fcfs: the first answer comes at D, so min(N, 1 + rD) query whatever c is; the last of them ends
    ceil(queries/c) D after the first reader of its slot arrived (exact for even arrivals).
    ps: 1 + rD up to the tipping point; above it min(N, c exp(rD/c - 1)), first answer at
    (c/r) exp(rD/c - 1): a fluid form, good to some 5 %. If arrivals end before that, the readers
    left share the slots. Its last answer is left to `simulate`.
    """
    readers, slots = count("readers", readers), count("slots", slots)
    query_time = number("query_time", query_time, "seconds")
    if number("window", window, "seconds") == 0:
        return at_once(readers, query_time, slots, discipline)
    rate = readers / window
    queries = min(float(readers), 1 + rate * query_time)
    if one_of("discipline", discipline, DISCIPLINES) == "fcfs":
        last = math.floor(queries + SAME_MOMENT) - 1  # the last to query, from 0
        ends = (last % slots) / rate + (last // slots + 1) * query_time  # its slot never idles
        return Prediction(queries, query_time, ends, math.nan)
    offered = load(rate, query_time, slots)
    if offered <= 1:
        return Prediction(queries, query_time, math.nan, math.nan)
    if offered - 1 <= math.log(readers / slots):
        queries = slots * math.exp(offered - 1)
        return Prediction(queries, queries / rate, math.nan, math.nan)
    # The first query has had window's worth of a shrinking share; the rest at the share c/N.
    done = slots / rate * (1 + math.log(readers / slots)) if readers > slots else window
    first = window + (query_time - done) * max(1.0, readers / slots)
    return Prediction(readers, first, math.nan, math.nan)


def simulate(
    readers: int = 800,
    window: float = 0.2,
    query_time: float = 0.01,
    slots: int = 1,
    *,
    discipline: str = "fcfs",
    single_flight: bool = False,
    arrivals: str = "even",
    seed: int = 0,
) -> Stampede:
    """Run one stampede on a cold key.

    window: s, 0 for all at once; arrivals: "even", "random" (uniform over the window) or
    "front-loaded" (dense at first). With single_flight one reader queries and the rest wait.
    """
    readers, slots = count("readers", readers, high=1_000_000), count("slots", slots)
    query_time = number("query_time", query_time, "seconds")
    one_of("discipline", discipline, DISCIPLINES)
    times = _arrival_times(readers, number("window", window, "seconds"), arrivals, seed)
    if single_flight:
        ends = np.array([query_time])
        first = query_time
    elif discipline == "fcfs":
        first = query_time
        missed = times[: _arrived_by(times, first)]
        ends = _ends_first_come(missed, query_time, slots)
    else:
        first, ends = _ends_shared(times, query_time, slots)
    waits = np.where(times <= first, first - times, 0.0)
    waits[: len(ends)] = ends - times[: len(ends)]
    return Stampede(times, waits, len(ends), float(first), float(ends[-1]))


def _arrival_times(readers: int, window: float, pattern: str, seed: int) -> FloatArray:
    if one_of("arrivals", pattern, ARRIVALS) == "even":
        return np.arange(float(readers)) * (window / readers)
    places: FloatArray = np.sort(uniforms(seed, "stampede", readers))
    if pattern == "front-loaded":
        places = places**2
    times: FloatArray = (places - places[0]) * window
    return times


def _arrived_by(times: FloatArray, moment: float) -> int:
    return int(np.searchsorted(times, moment * (1 + SAME_MOMENT), side="right"))


def _ends_first_come(times: FloatArray, query_time: float, slots: int) -> FloatArray:
    """Equal queries leave in order, so query i takes the slot of query i - c: start = max(arrival,
    end of i - c), one running maximum per slot, all slots side by side as columns."""
    slots = min(slots, len(times))
    rounds = -(-len(times) // slots)
    grid = np.full(rounds * slots, np.inf)
    grid[: len(times)] = times
    served_before: FloatArray = np.arange(float(rounds))[:, None] * query_time
    starts = np.maximum.accumulate(grid.reshape(rounds, slots) - served_before, axis=0)
    ends: FloatArray = (starts + served_before + query_time).ravel()
    return ends[: len(times)]


def _ends_shared(times: FloatArray, query_time: float, slots: int) -> tuple[float, FloatArray]:
    """First answer and end of each query when n queries run at min(1, c/n) of full speed.

    Work done by the first query is followed from arrival to arrival; nobody leaves before it, and
    nobody joins after it. Then the queries leave in order of arrival.
    """
    speed = np.minimum(1.0, slots / np.arange(1, len(times) + 1))  # with 1, 2, ... N running
    work = np.concatenate(([0.0], np.cumsum(np.diff(times) * speed[:-1])))  # at each arrival
    running = _arrived_by(work, query_time)
    first = times[running - 1] + (query_time - work[running - 1]) / speed[running - 1]
    behind = np.diff(work[:running], prepend=0.0)  # extra work owed to each next query
    still_running = np.arange(running, 0, -1)
    ends: FloatArray = first + np.cumsum(behind / speed[still_running - 1])
    return float(first), ends
