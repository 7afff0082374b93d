"""Writes docs/parity.md, from the table and a run on every side.

PYTHONPATH=tests python -m parity    with redis-server 7.0 on PATH for its part of the page
"""

from __future__ import annotations

from contextlib import closing

from cachelab.cache import server
from parity import Server, compare, page


def main() -> None:
    """Write the page."""
    with closing(server.start(server.from_wheel(), where="wheel")) as wheel:
        valkey = Server("valkey", wheel)
        text = page.ours(page.here(valkey))
        try:
            redis = server.start(server.from_path(), where="path")
        except server.ServerUnfit:
            text += page.theirs_as_written()
        else:
            with closing(redis):
                text += page.theirs(compare(Server("redis", redis), valkey))
    page.PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
