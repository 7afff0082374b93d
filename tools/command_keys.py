"""Makes the table of where commands have their keys, from what the wheel's Valkey says of itself.

.venv/bin/python -m tools.command_keys    # writes src/cachelab/cache/command_keys.json
"""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from cachelab.cache import server
from cachelab.cache.command_keys import TABLE_FILE, Spec


def read_table(there: server.Server) -> dict[str, list[Spec]]:
    """The commands of a live server in capitals, subcommands as `OBJECT|ENCODING`, by name."""
    table: dict[str, list[Spec]] = {}

    def add(rows: Iterable[list[Any]]) -> None:
        for row in rows:
            specs, below = row[8], row[9]
            table[row[0].upper()] = [_spec(one) for one in specs if "not_key" not in one["flags"]]
            add(below)

    connection = there.connection_pool(protocol=3).get_connection()
    connection.send_command("COMMAND")
    add(connection.read_response())
    return dict(sorted(table.items()))


def _spec(spec: dict[str, Any]) -> Spec:
    begin, find = spec["begin_search"], spec["find_keys"]
    if "unknown" in {begin["type"], find["type"]}:
        return ["?"]
    at = begin["spec"]
    where = at["index"] if begin["type"] == "index" else f"{at['keyword']}@{at['startfrom']}"
    rule = find["spec"]
    if find["type"] == "range":
        return [where, rule["lastkey"], rule["keystep"], rule["limit"]]
    return [where, "n", rule["keynumidx"], rule["firstkey"], rule["keystep"]]


def dumps(table: dict[str, list[Spec]]) -> str:
    """The text of the file: one command a line."""
    rows = [f"  {json.dumps(name)}: {json.dumps(specs)}" for name, specs in table.items()]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def main() -> None:
    """Start the wheel's server and write what it says."""
    with closing(server.start(server.from_wheel(), where="from the wheel")) as there:
        TABLE_FILE.write_text(dumps(read_table(there)))


if __name__ == "__main__":
    main()
