"""The shop's slow database, whose queries are counted."""

from cachelab.origin.counting import Latency, SemaphoreLike
from cachelab.origin.origin import Origin, peek
from cachelab.origin.postgresql import (
    OriginError,
    connect_postgresql,
    drop_schema,
    open_postgresql,
    seed_postgresql,
)
from cachelab.origin.schema import Article, Base, Comment, Flag, Order, Permission, Product, User
from cachelab.origin.seed import FULL, SMALL, Size, rows
from cachelab.origin.sqlite import copy_of_shop, open_sqlite, seed_sqlite

__all__ = [
    "FULL",
    "SMALL",
    "Article",
    "Base",
    "Comment",
    "Flag",
    "Latency",
    "Order",
    "Origin",
    "OriginError",
    "Permission",
    "Product",
    "SemaphoreLike",
    "Size",
    "User",
    "connect_postgresql",
    "copy_of_shop",
    "drop_schema",
    "open_postgresql",
    "open_sqlite",
    "peek",
    "rows",
    "seed_postgresql",
    "seed_sqlite",
]
