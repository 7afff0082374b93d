"""What a statement is about, read from its text: tables, ids, a label for the trace."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_TABLE = re.compile(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+\"?(\w+)", re.IGNORECASE)
READS, WRITES = {"SELECT", "WITH", "VALUES"}, {"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"}


def tables_of(statement: str) -> tuple[str, ...]:
    """The tables that a statement names, each once."""
    return tuple(dict.fromkeys(name.lower() for name in _TABLE.findall(statement)))


# One row of one table, by its key and by nothing else. Whatever is written in another way may be
# about any row.
_KEY = r"(?:\1\.)?id = (?:\?|%\(\w+\)s(?:::\w+)?)\s*"
_ONE_ROW = re.compile(
    rf"\s*SELECT [\w., *]+\s+FROM (\w+)\s+WHERE {_KEY}"
    rf"|\s*UPDATE (\w+) SET (?:(?!\bWHERE\b|\bid\b\"?\s*=).)*\s+WHERE {_KEY.replace('1', '2')}",
    re.IGNORECASE | re.DOTALL,
)


@lru_cache(maxsize=500)
def _table_of_one_row(statement: str) -> str | None:
    found = _ONE_ROW.fullmatch(statement)
    return None if found is None else (found[1] or found[2]).lower()


def rows_touched(
    statement: str, tables: tuple[str, ...], values: list[Any]
) -> dict[str, frozenset[int] | None]:
    """The tables of a statement, with the ids it is about where its text leaves no doubt."""
    one = _table_of_one_row(statement)
    if one is None or tables != (one,) or not values or type(values[-1]) is not int:
        return dict.fromkeys(tables)
    return {one: frozenset([values[-1]])}


_NAMED = re.compile(r"%\((\w+)\)s")


def in_order(statement: str, parameters: Any) -> list[Any]:
    """The values as the statement asks for them; PostgreSQL's driver takes them by name."""
    if not isinstance(parameters, dict):
        return list(parameters)
    return [parameters[name] for name in _NAMED.findall(statement) if name in parameters]


def label(tables: tuple[str, ...], parameters: list[Any], verb: str) -> str:
    """What a statement is about: 'users 1'. A SELECT ends in LIMIT, an UPDATE in its WHERE."""
    about = ", ".join(tables) or "?"
    simple = parameters and all(isinstance(value, (int, str)) for value in parameters)
    chosen = (parameters[-1] if verb == "UPDATE" else parameters[0]) if simple else ""
    return f"{about} {str(chosen)[:20]}".rstrip()
