"""Answers to lab 12, wrong and right, as learners write them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import numpy as np

from answers import Wrong

# report --------------------------------------------------------------------------------------


def _report(
    run,
    name,
    table,
    seconds,
    *,
    mine=lambda event, name: event.on.split(":")[0] == name,
    writes=lambda event, table: event.on.split()[0] == table,
    who=lambda event: (event.actor, event.on),
    begins=lambda event: event.at - event.took,
    shortest=min,
    spent=lambda events: sum(event.took for event in events),
):
    events = [event for event in run if mine(event, name)]
    count = Counter(event.kind for event in events)
    wrote = sum(event.kind == "write" and writes(event, table) for event in run)
    missed, queries = {}, []
    for event in events:
        if event.kind == "miss":
            missed[who(event)] = event.at
        if event.kind == "fill" and who(event) in missed:
            queries.append(begins(event) - missed.pop(who(event)))
    ttls = [int(e.detail[4:-2]) for e in events if e.kind == "fill" and e.detail[:3] == "TTL"]
    reads = count["hit"] + count["miss"]
    query = sum(queries) / len(queries) if queries else None
    saved = (count["hit"] * (query or 0) - spent(events)) / seconds
    return {
        "hits": count["hit"] / reads if reads else None,
        "ttl": shortest(ttls) if ttls else None,
        "query": query,
        "reads_per_write": reads / wrote if wrote else None,
        "saved": saved,
        "keep": saved >= 0.2,
    }


def only_the_verdict(run, name, table, seconds):
    return _report(run, name, table, seconds)["keep"]


def by_prefix(run, name, table, seconds):
    return _report(run, name, table, seconds, mine=lambda e, name: e.on.startswith(name))


def the_misses(run, name, table, seconds):
    found = _report(run, name, table, seconds)
    return {**found, "hits": 1 - found["hits"]}


def of_the_whole_cache(run, name, table, seconds):
    return {**_report(run, name, table, seconds), "hits": run.hit_rate}


def divides_by_no_reads(run, name, table, seconds):
    events = [event for event in run if event.on.startswith(name + ":")]
    hits = sum(event.kind == "hit" for event in events)
    reads = hits + sum(event.kind == "miss" for event in events)
    return {**_report(run, name, table, seconds), "hits": hits / reads}


def infinite_reads(run, name, table, seconds):
    found = _report(run, name, table, seconds)
    return {**found, "reads_per_write": found["reads_per_write"] or float("inf")}


def the_longest(run, name, table, seconds):
    return _report(run, name, table, seconds, shortest=max)


def anybodys_fill(run, name, table, seconds):
    return _report(run, name, table, seconds, who=lambda event: event.on)


def to_the_end(run, name, table, seconds):
    return _report(run, name, table, seconds, begins=lambda event: event.at)


def the_query_events(run, name, table, seconds):
    took = [e.took for e in run if e.kind == "query" and e.on.split()[0] == table]
    return {
        **_report(run, name, table, seconds),
        "query": sum(took) / len(took) if took else None,
    }


def as_in_the_notebook(run, name, table, seconds):
    missed, queries = {}, []
    for event in run:
        if event.on.startswith(name + ":") and event.kind == "miss":
            missed[event.actor, event.on] = event.at
        elif event.on.startswith(name + ":") and event.kind == "fill":
            queries.append(event.at - event.took - missed[event.actor, event.on])
    return {**_report(run, name, table, seconds), "query": sum(queries) / len(queries)}


def a_miss_counts_twice(run, name, table, seconds):
    missed, queries = {}, []
    for event in run:
        if not event.on.startswith(f"{name}:"):
            continue
        if event.kind == "miss":
            missed[event.actor, event.on] = event.at
        elif event.kind == "fill" and (event.actor, event.on) in missed:
            queries.append(event.at - event.took - missed[event.actor, event.on])
    mean = sum(queries) / len(queries) if queries else None
    return {**_report(run, name, table, seconds), "query": mean}


def any_key_of_the_actor(run, name, table, seconds):
    return _report(run, name, table, seconds, who=lambda event: event.actor)


def all_writes(run, name, table, seconds):
    return _report(run, name, table, seconds, writes=lambda event, table: True)


def lookups_are_free(run, name, table, seconds):
    return _report(run, name, table, seconds, spent=lambda events: 0)


def only_lookups_cost(run, name, table, seconds):
    def spent(events):
        return sum(event.took for event in events if event.kind in ("hit", "miss"))

    return _report(run, name, table, seconds, spent=spent)


def deletes_are_free(run, name, table, seconds):
    def spent(events):
        return sum(event.took for event in events if event.kind in ("hit", "miss", "fill"))

    return _report(run, name, table, seconds, spent=spent)


def of_the_whole_trace(run, name, table, seconds):
    found = _report(run, name, table, seconds)
    return {**found, "saved": found["saved"] * seconds}


def seventy_per_cent(run, name, table, seconds):
    found = _report(run, name, table, seconds)
    return {**found, "keep": (found["hits"] or 0) >= 0.7}


def by_kinds_of_events(run, name, table, seconds):
    hits = [e for e in run.of("hit") if e.on.startswith(f"{name}:")]
    misses = [e for e in run.of("miss") if e.on.startswith(f"{name}:")]
    fills = [e for e in run.of("fill") if e.on.startswith(f"{name}:")]
    deletes = [e for e in run.of("delete") if e.on.startswith(f"{name}:")]
    waits = []
    for miss in misses:
        own = [
            fill.at - fill.took - miss.at
            for fill in fills
            if (fill.actor, fill.on) == (miss.actor, miss.on) and fill.at > miss.at
        ]
        waits += own[:1]
    lives = [float(fill.detail.split(" ")[1]) for fill in fills if fill.detail.endswith(" s")]
    writes = [e for e in run.of("write") if f"{e.on} ".startswith(f"{table} ")]
    mean = sum(waits) / len(waits) if waits else None
    reads = len(hits) + len(misses)
    lost = sum(event.took for event in hits + misses + fills + deletes)
    free = (len(hits) * (mean or 0.0) - lost) / seconds
    return {
        "hits": len(hits) / reads if reads > 0 else None,
        "ttl": min(lives) if lives else None,
        "query": mean,
        "reads_per_write": reads / len(writes) if writes else None,
        "saved": free,
        "keep": free > 0.2,
    }


def backwards_from_each_fill(run, name, table, seconds):
    mine = [event for event in run if re.match(rf"{name}:", event.on)]
    waits = []
    for number, fill in enumerate(mine):
        if fill.kind != "fill":
            continue
        for before in reversed(mine[:number]):
            if (before.actor, before.on) == (fill.actor, fill.on) and before.kind != "hit":
                if before.kind == "miss":
                    waits.append(fill.at - fill.took - before.at)
                break
    hits, misses = (sum(event.kind == kind for event in mine) for kind in ("hit", "miss"))
    wrote = [e for e in run if e.kind == "write" and table in e.on]
    ttls = (re.fullmatch(r"TTL (\d+) s", e.detail) for e in mine if e.kind == "fill")
    query = float(np.mean(waits)) if waits else None
    saved = (hits * (query or 0) - np.sum([event.took for event in mine])) / seconds
    return {
        "hits": hits / (hits + misses) if hits + misses else None,
        "ttl": min((int(found[1]) for found in ttls if found), default=None),
        "query": query,
        "reads_per_write": (hits + misses) / len(wrote) if wrote else None,
        "saved": saved,
        "keep": saved >= 0.2,
    }


def with_more_than_asked(run, name, table, seconds):
    return {**_report(run, name, table, seconds), "name": name}


# why_missed ----------------------------------------------------------------------------------


def _why(
    run,
    *,
    late=lambda event, end: event.at >= end,
    empty_delete=False,
    forgets=True,
    needs_fill=True,
    deletes=("DEL", "UNLINK"),
):
    why = {"first": 0, "written": 0, "expired": 0, "evicted": 0}
    end, written = {}, set()
    for event in run:
        key = event.on
        if event.kind == "fill":
            words = event.detail.split()
            end[key] = event.at + float(words[1]) if words[0] == "TTL" else float("inf")
            if forgets:
                written.discard(key)
        elif event.kind == "delete" and event.what in deletes:
            there = key in end and not late(event, end[key])
            if there or (empty_delete and (key in end or not needs_fill)):
                written.add(key)
        elif event.kind == "miss":
            if key in written:
                why["written"] += 1
            elif key not in end:
                why["first"] += 1
            else:
                why["expired" if late(event, end[key]) else "evicted"] += 1
    return why


def any_delete(run):
    return _why(run, empty_delete=True)


def any_delete_at_all(run):
    return _why(run, empty_delete=True, needs_fill=False)


def deleted_for_ever(run):
    return _why(run, forgets=False)


def no_eviction(run):
    found = _why(run)
    found["expired"] += found.pop("evicted")
    return {**found, "evicted": 0}


def expires_later(run):
    return _why(run, late=lambda event, end: event.at > end)


def only_del(run):
    return _why(run, deletes=("DEL",))


def from_the_first_fill(run):
    first = {}
    for event in run:
        if event.kind == "fill" and event.detail.startswith("TTL"):
            first.setdefault(event.on, event.at + int(event.detail.split()[1]))
    return _why(run, late=lambda event, _: event.at >= first.get(event.on, float("inf")))


def one_for_each_key(run):
    seen, why = set(), {"first": 0, "written": 0, "expired": 0, "evicted": 0}
    for event in run:
        if event.kind == "miss" and event.on not in seen:
            seen.add(event.on)
            why["first"] += 1
    return why


def one_key_only(run):
    why = {"first": 0, "written": 0, "expired": 0, "evicted": 0}
    state, end = "first", 0.0
    for event in run:
        if event.kind == "fill":
            words = event.detail.split()
            state, end = "copy", event.at + (int(words[1]) if words[0] == "TTL" else 1e12)
        elif event.kind == "delete" and state == "copy" and event.at < end:
            state = "written"
        elif event.kind == "miss" and state == "copy":
            why["expired" if event.at >= end else "evicted"] += 1
        elif event.kind == "miss":
            why[state] += 1
    return why


def a_miss_forgets_the_fill(run):
    why, ends, deleted = {"first": 0, "written": 0, "expired": 0, "evicted": 0}, {}, set()
    for event in run:
        if event.kind == "fill":
            timed = event.detail.startswith("TTL")
            ends[event.on] = event.at + (int(event.detail.split()[1]) if timed else 1e12)
            deleted.discard(event.on)
        elif event.kind == "delete" and event.at < ends.get(event.on, 0):
            deleted.add(event.on)
        elif event.kind == "miss":
            end = ends.pop(event.on, None)
            if event.on in deleted:
                why["written"] += 1
            elif end is None:
                why["first"] += 1
            else:
                why["expired" if event.at >= end else "evicted"] += 1
    return why


def only_what_there_was(run):
    return {reason: count for reason, count in _why(run).items() if count}


def by_a_state(run):
    count = Counter(first=0, written=0, expired=0, evicted=0)
    there, gone = {}, {}
    for event in run:
        match event.kind:
            case "fill":
                ttl = re.search(r"TTL (\d+)", event.detail)
                there[event.on] = event.at + int(ttl[1]) if ttl else float("inf")
                gone.pop(event.on, None)
            case "delete" if event.on in there and event.on not in gone:
                gone[event.on] = "written" if event.at < there[event.on] else "expired"
            case "miss" if event.on in there:
                late = "expired" if event.at >= there[event.on] else "evicted"
                count[gone.setdefault(event.on, late)] += 1
            case "miss":
                count["first"] += 1
    return dict(count)


def key_by_key(run):
    events = {}
    for event in run:
        events.setdefault(event.on, []).append(event)
    total = Counter({"first": 0, "written": 0, "expired": 0, "evicted": 0})
    for mine in events.values():
        for number, event in enumerate(mine):
            if event.kind != "miss":
                continue
            before = mine[:number]
            fills = [n for n, one in enumerate(before) if one.kind == "fill"]
            if not fills:
                total["first"] += 1
                continue
            fill = before[fills[-1]]
            life = float(fill.detail.split()[1]) if "TTL " in fill.detail[:4] else float("inf")
            gone = [one for one in before[fills[-1] :] if one.kind == "delete"]
            if any(one.at < fill.at + life for one in gone):
                total["written"] += 1
            elif event.at < fill.at + life:
                total["evicted"] += 1
            else:
                total["expired"] += 1
    return total


def trusts_the_detail(run):
    why = {"first": 0, "written": 0, "expired": 0, "evicted": 0}
    state = {}
    for event in run:
        if event.kind == "fill":
            words = event.detail.split()
            ttl = int(words[1]) if words[0] == "TTL" else None
            state[event.on] = ("copy", None if ttl is None else event.at + ttl)
        elif event.kind == "delete" and event.detail != "nothing there":
            state[event.on] = ("written", None)
        elif event.kind == "miss":
            kind, until = state.get(event.on, ("first", None))
            if kind == "copy":
                kind = "evicted" if until is None or event.at < until else "expired"
            why[kind] += 1
    return why


# rates ---------------------------------------------------------------------------------------


def _rates(reads):
    hits = [read for read in reads if not read.asked]
    return {
        "hits": len(hits) / len(reads),
        "at_once": sum(read.waited < 0.01 for read in hits) / len(reads),
        "time": 1 - sum(read.waited for read in reads) / sum(read.query for read in reads),
    }


def without_an_empty_log(reads):
    return _rates(reads)


def zero_for_nothing(reads):
    return _rates(reads) if reads else {"hits": 0, "at_once": 0, "time": 0}


def per_cent(reads):
    return {name: 100 * rate for name, rate in _rates(reads).items()}


def waiting_is_no_hit(reads):
    found = _rates(reads)
    return {**found, "hits": found["at_once"]}


def waiting_is_at_once(reads):
    found = _rates(reads)
    return {**found, "at_once": found["hits"]}


def at_once_of_the_hits(reads):
    found = _rates(reads)
    return {**found, "at_once": found["at_once"] / found["hits"] if found["hits"] else 0.0}


def mean_of_shares(reads):
    own = [1 - read.waited / read.query for read in reads]
    return {**_rates(reads), "time": sum(own) / len(own)}


def hits_spare_all(reads):
    spared = sum(read.query for read in reads if not read.asked)
    return {**_rates(reads), "time": spared / sum(read.query for read in reads)}


def never_below_zero(reads):
    found = _rates(reads)
    return {**found, "time": max(0, found["time"])}


def the_hit_rate_thrice(reads):
    share = sum(not read.asked for read in reads) / len(reads)
    return dict.fromkeys(("hits", "at_once", "time"), share)


def ten_is_less(reads):
    quick = sum(read.waited <= 0.01 and not read.asked for read in reads)
    return {**_rates(reads), "at_once": quick / len(reads)}


def quick_misses_too(reads):
    quick = sum(read.waited < 0.01 for read in reads)
    return {**_rates(reads), "at_once": quick / len(reads)}


def a_tuple(reads):
    return tuple(_rates(reads).values())


def in_a_loop(reads):
    if len(reads) == 0:
        return {"hits": None, "at_once": None, "time": None}
    hit = quick = spared = whole = 0.0
    for read in reads:
        hit += not read.asked
        quick += not read.asked and read.waited < 0.01
        spared += read.query - read.waited
        whole += read.query
    return {"time": spared / whole, "at_once": quick / len(reads), "hits": hit / len(reads)}


def with_numpy(reads):
    if not reads:
        return {"hits": None, "at_once": None, "time": None}
    table = np.array([(read.waited, read.query, read.asked) for read in reads])
    hit = table[:, 2] == 0
    time = 1 - table[:, 0].sum() / table[:, 1].sum()
    return {"hits": hit.mean(), "at_once": (hit & (table[:, 0] < 0.01)).mean(), "time": time}


def rounded(reads):
    if not reads:
        return dict.fromkeys(("hits", "at_once", "time"))
    return {name: round(rate, 4) for name, rate in _rates(reads).items()}


# choose --------------------------------------------------------------------------------------


def _worth(item):
    return item.reads * (item.query - 0.0005)


def _fill(items, room, key, *, stop=False, positive=True):
    chosen = []
    for item in sorted(items, key=key, reverse=True):
        if positive and _worth(item) <= 0:
            continue
        if item.size <= room:
            chosen.append(item.name)
            room -= item.size
        elif stop:
            break
    return chosen


def the_popular(items, room):
    return _fill(items, room, lambda item: item.reads)


def the_slow(items, room):
    return _fill(items, room, lambda item: item.query)


def the_small(items, room):
    return _fill(items, room, lambda item: -item.size)


def the_worthy(items, room):
    return _fill(items, room, _worth)


def reads_per_byte(items, room):
    return _fill(items, room, lambda item: item.reads / item.size)


def in_the_given_order(items, room):
    return _fill(items, room, lambda item: 0)


def free_lookups(items, room):
    return _fill(items, room, lambda i: i.reads * i.query / i.size, positive=False)


def stops_at_the_first(items, room):
    return _fill(items, room, lambda item: _worth(item) / item.size, stop=True)


def less_than_the_room(items, room):
    chosen = []
    for item in sorted(items, key=lambda item: _worth(item) / item.size, reverse=True):
        if _worth(item) > 0 and item.size < room:
            chosen.append(item.name)
            room -= item.size
    return chosen


def everything(items, room):
    return [item.name for item in items if _worth(item) > 0]


def nothing(items, room):
    return []


def the_items(items, room):
    names = _fill(items, room, lambda item: _worth(item) / item.size)
    return [item for item in items if item.name in names]


def one_name(items, room):
    return items[0].name


def tries_them_all(items, room):
    best, found = 0.0, ()
    good = [item for item in items if _worth(item) > 0]
    for many in range(1, len(good) + 1):
        for some in combinations(good, many):
            worth = sum(map(_worth, some))
            if worth > best and sum(item.size for item in some) <= room:
                best, found = worth, some
    return {item.name for item in found}


def by_branches(items, room):
    good = sorted(
        (item for item in items if _worth(item) > 0), key=lambda i: _worth(i) / i.size, reverse=True
    )

    def best(number, left):
        if number == len(good):
            return 0.0, []
        without = best(number + 1, left)
        if good[number].size > left:
            return without
        worth, names = best(number + 1, left - good[number].size)
        return max(without, (worth + _worth(good[number]), [good[number].name, *names]))

    return best(0, room)[1]


def by_table(items, room):
    step = 1_000_000
    best = {0: (0.0, ())}
    for item in items:
        if _worth(item) <= 0:
            continue
        need = -(-item.size // step)
        for used, (worth, names) in list(best.items()):
            total, better = used + need, worth + _worth(item)
            if total * step <= room and better > best.get(total, (-1.0, ()))[0]:
                best[total] = (better, (*names, item.name))
    return list(max(best.values())[1])


def greedy_and_generous(items, room):
    return tuple(_fill(items, room, lambda item: _worth(item) / item.size))


WRONG = {
    "12_over_caching.report": [
        Wrong("only the verdict", only_the_verdict, "expected was a dict with"),
        Wrong("by prefix", by_prefix, "counts other keys that begin with 'product'"),
        Wrong("misses", the_misses, "that is the share of misses"),
        Wrong("of the whole cache", of_the_whole_cache, "the hit rate of the whole cache"),
        Wrong("divides by no reads", divides_by_no_reads, "ZeroDivisionError"),
        Wrong("infinite", infinite_reads, "nobody wrote to flags"),
        Wrong("the longest TTL", the_longest, "that is the longest"),
        Wrong("anybody's fill", anybodys_fill, "are no pair"),
        Wrong("a miss counts twice", a_miss_counts_twice, "not for those after it"),
        Wrong("any key", any_key_of_the_actor, "a miss of one key and the fill of another"),
        Wrong("deletes are free", deletes_are_free, "deletes take time as well"),
        Wrong("to the end of the fill", to_the_end, "to the end of the fill"),
        Wrong("query events", the_query_events, "'query' is None; expected was"),
        Wrong("a fill without a miss", as_in_the_notebook, "KeyError"),
        Wrong("all writes", all_writes, "nobody wrote to flags"),
        Wrong("lookups are free", lookups_are_free, "what its commands took is not taken off"),
        Wrong("only lookups cost", only_lookups_cost, "fills and deletes take time as well"),
        Wrong("whole trace", of_the_whole_trace, "for the whole trace, not for a second"),
        Wrong("70 %", seventy_per_cent, "whatever its hit rate"),
    ],
    "12_over_caching.why_missed": [
        Wrong("any delete", any_delete, "deleted after 80 s, when it had expired"),
        Wrong("any delete at all", any_delete_at_all, "before its first fill: you count 1 written"),
        Wrong("deleted for ever", deleted_for_ever, "deleted, filled for 60 s, and gone"),
        Wrong("no eviction", no_eviction, "gone after 12 s: you count 1 first, 1 expired"),
        Wrong("expires later", expires_later, "exactly 60 s ago"),
        Wrong("only DEL", only_del, "deleted by UNLINK"),
        Wrong("the first fill's TTL", from_the_first_fill, "after 50 s once more"),
        Wrong("once a key", one_for_each_key, "deleted after 12 s: you count 1 first;"),
        Wrong(
            "a miss forgets", a_miss_forgets_the_fill, "missed twice: you count 1 first, 1 evicted"
        ),
        Wrong("one key only", one_key_only, "Each key by itself is right"),
        Wrong("without zeros", only_what_there_was, "expected was a dict with"),
    ],
    "12_over_caching.rates": [
        Wrong("empty log", without_an_empty_log, "ZeroDivisionError"),
        Wrong("zero for nothing", zero_for_nothing, "expected was None for each"),
        Wrong("per cent", per_cent, "yours is per cent"),
        Wrong("waiting is no hit", waiting_is_no_hit, "is still one that asked nothing"),
        Wrong("waiting is at once", waiting_is_at_once, "waited for a query of another"),
        Wrong("quick misses too", quick_misses_too, "does not count, however quick"),
        Wrong("of the hits", at_once_of_the_hits, "per hit, not per read"),
        Wrong("mean of shares", mean_of_shares, "the mean of each read's share"),
        Wrong("a hit spares all", hits_spare_all, "stores and waiting take time too"),
        Wrong("never below zero", never_below_zero, "may cost more than it spares"),
        Wrong(
            "the hit rate thrice",
            the_hit_rate_thrice,
            "(that is the hit rate",
        ),
        Wrong("10 ms is less", ten_is_less, "10 ms is not less than 10 ms"),
        Wrong("a tuple", a_tuple, "expected was a dict with"),
    ],
    "12_over_caching.choose": [
        Wrong("popular", the_popular, "is too little"),
        Wrong("slow", the_slow, "is too little"),
        Wrong("small", the_small, "is too little"),
        Wrong("worthy", the_worthy, "is too little"),
        Wrong("reads per byte", reads_per_byte, "is too little"),
        Wrong("in the given order", in_the_given_order, "is too little"),
        Wrong("free lookups", free_lookups, "it saves nothing"),
        Wrong("stops at the first", stops_at_the_first, "would still have fitted"),
        Wrong("less than the room", less_than_the_room, "comments would still have fitted"),
        Wrong("everything", everything, "what you chose takes"),
        Wrong("nothing", nothing, "you save 0.0 connections"),
        Wrong("items", the_items, "expected was the name of an item"),
        Wrong("one name", one_name, "expected was a list of names"),
    ],
}

RIGHT = {
    "12_over_caching.report": [by_kinds_of_events, backwards_from_each_fill, with_more_than_asked],
    "12_over_caching.why_missed": [key_by_key, by_a_state, trusts_the_detail],
    "12_over_caching.rates": [in_a_loop, with_numpy, rounded],
    "12_over_caching.choose": [tries_them_all, by_table, by_branches, greedy_and_generous],
}
