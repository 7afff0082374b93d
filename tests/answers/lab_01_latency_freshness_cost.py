"""Answers to lab 01, wrong and right, as learners write them."""

from __future__ import annotations

import math
from fractions import Fraction

from answers import Wrong

# break_even ----------------------------------------------------------------------------------


def seventy_per_cent(query, lookup, store):
    return 0.7


def forgets_the_store(query, lookup, store):
    return lookup / query if lookup <= query else None


def what_a_hit_saves(query, lookup, store):
    return (query - lookup) / query if lookup <= query else None


def the_miss_rate(query, lookup, store):
    if lookup > query:
        return None
    return 1 - (lookup + store) / (query + store)


def in_per_cent(query, lookup, store):
    return 100 * (lookup + store) / (query + store) if lookup <= query else None


def without_a_never(query, lookup, store):
    return (lookup + store) / (query + store)


def never_is_one(query, lookup, store):
    return min(1.0, (lookup + store) / (query + store))


def store_only_above(query, lookup, store):
    return (lookup + store) / query if lookup <= query else None


def as_text(query, lookup, store):
    return f"{(lookup + store) / (query + store):.1%}"


def never_if_a_hit_takes_as_long(query, lookup, store):
    return (lookup + store) / (query + store) if lookup < query else None


def never_if_a_miss_takes_longer(query, lookup, store):
    return (lookup + store) / (query + store) if lookup + store <= query else None


def searched_for(query, lookup, store):
    low, high = 0.0, 1.0
    if lookup > query:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        if lookup + (1 - middle) * (query + store) > query:
            low = middle
        else:
            high = middle
    return high


def from_the_miss_rate(query, lookup, store):
    most_misses = (query - lookup) / (query + store)
    return None if most_misses < 0 else 1 - most_misses


def exactly_and_rounded(query, lookup, store):
    share = (Fraction(lookup) + Fraction(store)) / (Fraction(query) + Fraction(store))
    return round(share, 4) if share <= 1 else None


# memory_bill ---------------------------------------------------------------------------------


def _bill(keys, size, reads, ttl, replicas, price, *, giga=1e9, share=None):
    most = keys * size / giga
    if share is None:
        share = reads * ttl / (1 + reads * ttl)
    return {"most": most, "usual": most * share, "bill": most * (1 + replicas) * price}


def in_gib(keys, size, reads, ttl, replicas, price):
    return _bill(keys, size, reads, ttl, replicas, price, giga=2**30)


def in_megabytes(keys, size, reads, ttl, replicas, price):
    return _bill(keys, size, reads, ttl, replicas, price, giga=1e6)


def everybody_is_in(keys, size, reads, ttl, replicas, price):
    return _bill(keys, size, reads, ttl, replicas, price, share=1)


def reads_per_ttl(keys, size, reads, ttl, replicas, price):
    return _bill(keys, size, reads, ttl, replicas, price, share=min(1, reads * ttl))


def renewed_by_reads(keys, size, reads, ttl, replicas, price):
    return _bill(keys, size, reads, ttl, replicas, price, share=1 - math.exp(-reads * ttl))


def forgets_the_first_copy(keys, size, reads, ttl, replicas, price):
    found = _bill(keys, size, reads, ttl, replicas, price)
    return {**found, "bill": found["most"] * replicas * price}


def forgets_the_replicas(keys, size, reads, ttl, replicas, price):
    found = _bill(keys, size, reads, ttl, replicas, price)
    return {**found, "bill": found["most"] * price}


def pays_for_the_usual(keys, size, reads, ttl, replicas, price):
    found = _bill(keys, size, reads, ttl, replicas, price)
    return {**found, "bill": found["usual"] * (1 + replicas) * price}


def replicas_in_the_bound(keys, size, reads, ttl, replicas, price):
    found = _bill(keys * (1 + replicas), size, reads, ttl, 0, price)
    return found


def only_the_bill(keys, size, reads, ttl, replicas, price):
    return keys * size / 1e9 * (1 + replicas) * price


def rounded_away(keys, size, reads, ttl, replicas, price):
    found = _bill(keys, size, reads, ttl, replicas, price)
    return {part: f"{value:.2f} GB" for part, value in found.items()}


def by_the_gap(keys, size, reads, ttl, replicas, price):
    most = keys * size / 1_000_000_000
    usual = most * ttl / (ttl + 1 / reads) if reads else 0
    copies = sum(most for _ in range(replicas + 1))
    return {"most": most, "usual": usual, "bill": copies * price}


def rounded_to_three(keys, size, reads, ttl, replicas, price):
    found = _bill(keys, size, reads, ttl, replicas, price)
    return {part: round(value, 3) for part, value in found.items()}


# ttl_for -------------------------------------------------------------------------------------


def the_budget_itself(budget, jitter, window):
    return budget


def forgets_the_jitter(budget, jitter, window):
    return budget - window if budget - window >= 1 else None


def forgets_the_window(budget, jitter, window):
    seconds = int(budget / (1 + jitter))
    return seconds if seconds >= 1 else None


def takes_the_jitter_off(budget, jitter, window):
    seconds = int((budget - window) * (1 - jitter))
    return seconds if seconds >= 1 else None


def jitter_of_the_whole_budget(budget, jitter, window):
    seconds = int(budget / (1 + jitter) - window)
    return seconds if seconds >= 1 else None


def window_with_jitter_too(budget, jitter, window):
    seconds = int((budget - window - 300 * jitter) if budget >= 300 else (budget - window) // 2)
    return seconds if seconds >= 1 else None


def rounds_up(budget, jitter, window):
    seconds = math.ceil((budget - window) / (1 + jitter))
    return seconds if seconds >= 1 else None


def not_whole(budget, jitter, window):
    seconds = (budget - window) / (1 + jitter)
    return seconds if seconds >= 1 else None


def never_none(budget, jitter, window):
    return max(1, int((budget - window) / (1 + jitter)))


def zero_for_none(budget, jitter, window):
    return max(0, int((budget - window) / (1 + jitter)))


def half_of_it(budget, jitter, window):
    seconds = int((budget - window) / (1 + jitter) / 2)
    return seconds if seconds >= 1 else None


def a_second_less_to_be_sure(budget, jitter, window):
    ttl = math.ceil((budget - window) / (1 + jitter)) - 1
    return ttl if ttl >= 1 else None


def tried_out(budget, jitter, window):
    best = None
    for seconds in range(1, 100_000):
        if seconds * (1 + jitter) + window > budget:
            return best
        best = seconds
    return best


def as_a_float(budget, jitter, window):
    left = (budget - window) // (1 + jitter)
    return left if left >= 1 else None


# decide --------------------------------------------------------------------------------------


def _as_in(answers):
    return lambda card: answers.get(card.data, ("shared", card.budget))


BY_HAND = {
    "best sellers": ("edge", 3_000),
    "article and comments": ("process", 60),
    "feature flag": ("process", 30),
    "user profile": ("nowhere", None),
    "product price": ("edge", 60),
    "permissions": ("nowhere", 0),
    "stock at checkout": ("nowhere", None),
    "order history": ("shared", 15),
    "session": ("store", 1_800),
}


def ten_minutes_for_all(card):
    return ("shared", 600)


def nothing_at_all(card):
    return ("nowhere", None)


def the_budget_is_all(card):
    return ("shared", card.budget)


def all_in_the_process(card):
    return ("process", card.budget)


def all_at_the_edge(card):
    return ("edge", card.budget)


def under_five_milliseconds_never(card):
    if card.query is None:
        return ("store", 1_800)
    if card.query <= 0.005 or card.budget == 0:
        return ("nowhere", None)
    return ("shared", card.budget)


def stock_for_a_second(card):
    return _as_in({**BY_HAND, "stock at checkout": ("shared", 1)})(card)


def forgets_the_room(card):
    return _as_in({**BY_HAND, "order history": ("shared", 60)})(card)


def history_in_every_process(card):
    return _as_in({**BY_HAND, "order history": ("process", 60)})(card)


def session_is_cached(card):
    return _as_in({**BY_HAND, "session": ("shared", 1_800)})(card)


def session_is_asked_for(card):
    return _as_in({**BY_HAND, "session": ("nowhere", None)})(card)


def the_truth_in_the_store(card):
    return _as_in({**BY_HAND, "user profile": ("store", 300)})(card)


def ttl_of_nothing(card):
    return _as_in({**BY_HAND, "product price": ("shared", 0)})(card)


def permissions_in_the_process(card):
    return _as_in({**BY_HAND, "permissions": ("process", 3)})(card)


def only_a_place(card):
    return "shared"


def another_place(card):
    return ("redis", 60)


def by_rule(card):
    if card.query is None:
        return ("store", 1_800)
    hits = card.reads * card.budget / (1 + card.reads * card.budget)
    pays = hits >= 0.001 / (card.query + 0.0005)
    if card.budget == 0 or not pays or card.keys * card.size * hits > 10e9:
        return ("nowhere", None)
    return ["process" if card.keys < 10 else "shared", card.budget]


WRONG = {
    "01_latency_freshness_cost.break_even": [
        Wrong("70 % for all", seventy_per_cent, "gave 70.00%, but it pays before that"),
        Wrong("forgets the store", forgets_the_store, "gave 12.50%, but at that hit rate"),
        Wrong("what a hit saves", what_a_hit_saves, "gave 87.50%"),
        Wrong("the miss rate", the_miss_rate, "gave 77.78%"),
        Wrong("per cent", in_per_cent, "gave 22.22; a hit rate is a share"),
        Wrong("more than all reads", without_a_never, "gave 1.818"),
        Wrong("never is all reads", never_is_one, "gave 1.0; expected was None"),
        Wrong("the store is not spared", store_only_above, "gave 25.00%"),
        Wrong("a text", as_text, "gave '22.2%'; expected was a share"),
        Wrong("equal is never", never_if_a_hit_takes_as_long, "takes 1 ms, no longer than the 1"),
        Wrong("looks at the miss", never_if_a_miss_takes_longer, "takes 0.5 ms, against the 0.8"),
    ],
    "01_latency_freshness_cost.memory_bill": [
        Wrong("GiB", in_gib, "yours are GiB of 2^30 bytes"),
        Wrong("MB", in_megabytes, "'most' is 5e+05 GB; expected was 500"),
        Wrong("everybody is in", everybody_is_in, "'usual' is 500 GB; expected was 125"),
        Wrong("reads per TTL", reads_per_ttl, "'usual' is 166.7 GB"),
        Wrong("reads renew the TTL", renewed_by_reads, "'usual' is 141.7 GB"),
        Wrong(
            "only the replicas are paid",
            forgets_the_first_copy,
            "'bill' is 2,000; expected was 3,000",
        ),
        Wrong("replicas are free", forgets_the_replicas, "'bill' is 1,000; expected was 3,000"),
        Wrong("pays for the usual size", pays_for_the_usual, "'bill' is 750; expected was 3,000"),
        Wrong("replicas in the bound", replicas_in_the_bound, "the replicas belong to the bill"),
        Wrong("one number", only_the_bill, "gave 3000.0; expected was a dict"),
        Wrong("texts", rounded_away, "'most' is '500.00 GB'; expected was a number"),
    ],
    "01_latency_freshness_cost.ttl_for": [
        Wrong("the budget itself", the_budget_itself, "gave 300 s, and with that TTL an answer"),
        Wrong("forgets the jitter", forgets_the_jitter, "was 335.99 s old"),
        Wrong("forgets the window", forgets_the_window, "was 358.99 s old"),
        Wrong("takes the jitter off", takes_the_jitter_off, "gave 204 s, which keeps the budget"),
        Wrong(
            "the window is taken off last", jitter_of_the_whole_budget, "gave 200 s, which keeps"
        ),
        Wrong("jitter of a fixed number", window_with_jitter_too, "gave 195 s, which keeps"),
        Wrong("rounds up", rounds_up, "gave 209 s"),
        Wrong("not whole", not_whole, "expected was a whole number of seconds"),
        Wrong("never None", never_none, "gave 1; expected was None"),
        Wrong("zero for never", zero_for_none, "gave 0; expected was None"),
        Wrong("half of it", half_of_it, "gave 150 s, which keeps the budget"),
        Wrong("a second less", a_second_less_to_be_sure, "gave 299 s, which keeps the budget"),
    ],
    "01_latency_freshness_cost.decide": [
        Wrong("ten minutes for all", ten_minutes_for_all, "may be 600 s old, and the budget is 60"),
        Wrong("nothing", nothing_at_all, "best sellers, nowhere: its queries keep 12.0"),
        Wrong("all that has a budget", the_budget_is_all, "permissions, shared for 5 s: 4.8%"),
        Wrong("all in the process", all_in_the_process, "permissions, process for 5 s: 0.5%"),
        Wrong("all at the edge", all_at_the_edge, "feature flag, edge for 60 s: the edge shows"),
        Wrong("never under 5 ms", under_five_milliseconds_never, "feature flag, nowhere"),
        Wrong("stock for a second", stock_for_a_second, "the budget is 0 s"),
        Wrong("forgets the room", forgets_the_room, "28.3 GB there"),
        Wrong("history in every process", history_in_every_process, "in each of the ten"),
        Wrong("a session is a copy", session_is_cached, "no origin has it"),
        Wrong("a copy is a store", the_truth_in_the_store, "the database has it"),
        Wrong("a TTL of 0", ttl_of_nothing, "SET with EX 0 is an error"),
        Wrong(
            "permissions in the process", permissions_in_the_process, "permissions, process for 3 s"
        ),
        Wrong("asks nobody", session_is_asked_for, "there is nobody to ask each time"),
        Wrong("only a place", only_a_place, "expected was a place and a TTL"),
        Wrong("another place", another_place, "'redis' is none of the places"),
    ],
}

RIGHT = {
    "01_latency_freshness_cost.break_even": [
        searched_for,
        from_the_miss_rate,
        exactly_and_rounded,
    ],
    "01_latency_freshness_cost.memory_bill": [by_the_gap, rounded_to_three],
    "01_latency_freshness_cost.ttl_for": [tried_out, as_a_float],
    "01_latency_freshness_cost.decide": [by_rule, _as_in(BY_HAND)],
}
