"""The shop's slow database, whose queries are counted."""

from cachelab.origin.counting import Latency
from cachelab.origin.origin import Origin, peek
from cachelab.origin.postgresql import OriginError, connect_postgresql, drop_schema, open_postgresql
from cachelab.origin.schema import Article, Base, Comment, Flag, Order, Permission, Product, User
from cachelab.origin.seed import SMALL, Size, rows
from cachelab.origin.sqlite import copy_of_shop, open_sqlite, seed_sqlite

__all__ = [
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
    "Size",
    "User",
    "connect_postgresql",
    "copy_of_shop",
    "drop_schema",
    "open_postgresql",
    "open_sqlite",
    "peek",
    "rows",
    "seed_sqlite",
]
