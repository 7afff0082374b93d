"""The rows that the shop begins with: the same on every machine."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

SEED = 20  # of the shop's data: the same rows on every machine
SCHEMA = 1  # raise it when the tables or the seed data change, so that old copies are not used


@dataclass(frozen=True)
class Size:
    """How many rows of each kind the shop is seeded with."""

    users: int = 1_000
    products: int = 500
    articles: int = 200
    comments: int = 5_000
    orders: int = 200_000


FULL = Size()
SMALL = Size(users=20, products=20, articles=5, comments=20, orders=50)  # for checks: copied often

_NAMES = ("Alice", "Bruno", "Chen", "Dalia", "Emre", "Fatou", "Goran", "Hana", "Ines", "Jonas")
_GOODS = ("lamp", "chair", "desk", "kettle", "rug", "clock", "mug", "shelf", "stool", "vase")
_ROOMS = ("kitchen", "office", "bedroom", "garden", "hall")


def rows(size: Size = FULL) -> dict[str, list[tuple[Any, ...]]]:
    """The seed data, table name to rows in column order; the same on every machine."""
    draw = random.Random(SEED)
    people = [_NAMES[i % len(_NAMES)] for i in range(size.users)]
    users = [
        (
            i,
            name if i <= len(_NAMES) else f"{name} {i}",
            f"{name.lower()}@example.org" if i <= len(_NAMES) else f"{name.lower()}{i}@example.org",
            f"Likes a good {_GOODS[i % len(_GOODS)]}." if i % 3 else "",
            "admin" if i == 2 else "customer",
            1,
        )
        for i, name in enumerate(people, 1)
    ]
    products = [
        (
            i,
            f"{_ROOMS[i % len(_ROOMS)]} {_GOODS[i % len(_GOODS)]} {i}",
            _ROOMS[i % len(_ROOMS)],
            500 + 25 * (i * 37 % 400),
            0 if i % 7 == 0 else i * 13 % 90 + 1,
            1,
        )
        for i in range(1, size.products + 1)
    ]
    permissions = [(2, "orders:refund"), (2, "users:edit"), (3, "articles:edit")]
    flags = [("new_checkout", False), ("recommendations", True)]
    articles = [
        (
            i,
            1 + i % size.users,
            f"How to choose a {_GOODS[i % len(_GOODS)]}, part {i}",
            i * 97 % 9000,
        )
        for i in range(1, size.articles + 1)
    ]
    # The last article has no comments yet: an empty list is a value too.
    comments = [
        (
            i,
            1 + int((size.articles - 1) * draw.random() ** 2),
            1 + int(size.users * draw.random() ** 2),
            f"Comment {i}: my {_GOODS[i % len(_GOODS)]} agrees.",
        )
        for i in range(1, size.comments + 1)
    ]
    first_day, orders = date(2025, 1, 1), []
    days = [(first_day + timedelta(days=d)).isoformat() for d in range(365)]
    uniform = draw.random
    for i in range(1, size.orders + 1):
        product = 1 + int(size.products * uniform() ** 2)
        quantity = 1 + int(3 * uniform())
        price = products[product - 1][3]
        user, day = 1 + int(size.users * uniform()), days[i * 365 // (size.orders + 1)]
        orders.append((i, user, product, quantity, quantity * price, day))
    return {
        "users": users,
        "products": products,
        "permissions": permissions,
        "flags": flags,
        "articles": articles,
        "comments": comments,
        "orders": orders,
    }
