"""The commands `cachelab board` and `cachelab class`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from cachelab.board.settings import URL_VARIABLE

CLEAR = "\x1b[H\x1b[2J"
EVERY_SECONDS = 2.0
FILE = Path("class.csv")


def add_to(commands: Any) -> None:
    """Add both to the sub-parsers of the command line."""
    board = commands.add_parser(
        "board",
        help="show the class board",
        description="Show the class board: which exercise is hard, which wrong answers are common,"
        " who is where. Without --once it is kept up to date until Ctrl-C.",
    )
    _url(board)
    board.add_argument("--once", action="store_true", help="show it once and end")
    board.add_argument("--json", action="store_true", help="one JSON object, or one a line")
    board.add_argument("--rows", type=int, default=40, help="how many learners to show (40)")
    board.set_defaults(command=show, parser=board)

    classes = commands.add_parser("class", help="make or remove Redis users for a class")
    actions = classes.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser(
        "create",
        help="make a user for each learner",
        description="Make Redis users learner-01, learner-02, ...: each can touch only keys of"
        " their own and append to the board. Their addresses and passwords go into a file that"
        " only you can read. Run again, it makes only those that are missing.",
    )
    _url(create)
    create.add_argument("--learners", type=int, required=True, metavar="N")
    create.add_argument("--file", type=Path, default=FILE, help=f"what to write ({FILE})")
    create.add_argument(
        "--host", default="", help="HOST:PORT by which learners reach the server, if another"
    )
    create.set_defaults(command=create_class, parser=create)
    remove = actions.add_parser(
        "remove",
        help="remove those users and their keys",
        description="Remove the users that class create made, and the keys they left. The board is"
        " kept, unless --board is given.",
    )
    _url(remove)
    remove.add_argument("--board", action="store_true", help="delete the board too")
    remove.set_defaults(command=remove_class, parser=remove)


def _url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE, ""),
        help=f"the Redis of the class, redis://USER:PASSWORD@HOST:PORT (default: {URL_VARIABLE},"
        " which other users of this machine cannot read)",
    )


def _named(asked: argparse.Namespace) -> str:
    url: str = asked.url
    if not url:
        asked.parser.error(f"name the Redis of the class with --url, or set {URL_VARIABLE}")
    return url


def show(asked: argparse.Namespace) -> int:
    """`cachelab board`."""
    from cachelab.board.standing import Watch, as_text

    watch = Watch(_named(asked))
    before: dict[str, Any] = {}
    while True:
        told = watch.read()
        if asked.json:
            shown = json.dumps(told, indent=1 if asked.once else None, ensure_ascii=True)
        else:
            shown = as_text(told, max(1, asked.rows))
        if asked.once:
            print(shown)
            return 0
        if sys.stdout.isatty() and not asked.json:
            print(f"{CLEAR}{shown}\n\nCtrl-C ends it.", flush=True)
        elif {**told, "people": []} != before:
            before = {**told, "people": []}  # how long ago is no news
            print(shown, flush=True)
        try:
            time.sleep(EVERY_SECONDS)
        except KeyboardInterrupt:
            return 0


def create_class(asked: argparse.Namespace) -> int:
    """`cachelab class create`."""
    from cachelab.board import learners

    done = learners.create(_named(asked), asked.learners, asked.file, asked.host)
    print(f"{len(done.made)} users made, {len(done.existed) + len(done.unknown)} existed already.")
    print(
        f"What each learner is given is in {asked.file}, one line each: hand out the last column."
    )
    if done.unknown:
        print(
            f"The password of {', '.join(done.unknown[:5])}{' ...' * (len(done.unknown) > 5)} is"
            f" not in {asked.file}: remove the class and make it again, or name the right --file."
        )
    if done.note:
        print(done.note)
    return 1 if done.unknown else 0


def remove_class(asked: argparse.Namespace) -> int:
    """`cachelab class remove`."""
    from cachelab.board import learners

    names, keys = learners.remove(_named(asked), asked.board)
    print(f"{len(names)} users removed, {keys:,} keys deleted.")
    if not asked.board:
        print("The board is kept; class remove --board deletes it too.")
    return 0
