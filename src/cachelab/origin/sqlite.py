"""The shop on SQLite: a file seeded once and copied for each lab, and an engine for it."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cachelab.origin.schema import Base
from cachelab.origin.seed import FULL, SCHEMA, Size, rows


def seed_sqlite(path: Path | str, size: Size = FULL) -> None:
    """Create the shop in a new SQLite file."""
    engine = sa.create_engine(f"sqlite:///{path}")
    try:
        Base.metadata.create_all(engine)
    finally:
        engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        with connection:
            connection.execute("PRAGMA journal_mode=WAL")
            for table, data in rows(size).items():
                marks = ", ".join("?" * len(data[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", data)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def copy_of_shop(folder: Path, cached_in: Path, size: Size = FULL) -> Path:
    """A fresh SQLite file of the shop in `folder`, copied from one seeded once in `cached_in`.

    `cached_in` that cannot be written is no error, nor is a damaged file in it: the shop is then
    seeded anew, in about a second. Raises OSError, with its reason, if `folder` is full.
    """
    target = folder / "shop.sqlite"
    master = cached_in / f"shop-{SCHEMA}-{size.orders}.sqlite"
    try:
        if not _is_whole(master):
            cached_in.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Two kernels may do this at once: each writes its own file, the last rename wins.
            own = cached_in / f".{master.name}.{threading.get_native_id()}"
            try:
                own.unlink(missing_ok=True)
                seed_sqlite(own, size)
                own.replace(master)
            finally:
                for left in cached_in.glob(f"{own.name}*"):
                    left.unlink()
        shutil.copyfile(master, target)
    except (OSError, sqlite3.Error, sa.exc.SQLAlchemyError):
        target.unlink(missing_ok=True)
        try:
            seed_sqlite(target, size)
        except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
            said = str(getattr(error, "orig", None) or error)
            raise OSError(errno.EIO, said, str(target)) from None
    return target


def _is_whole(path: Path) -> bool:
    """Whether this is a SQLite file of the length that its first page names."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
        page = int.from_bytes(head[16:18], "big")
        told = (65_536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
        return head.startswith(b"SQLite format 3\0") and 0 < told == path.stat().st_size
    except OSError:
        return False


def open_sqlite(path: Path) -> sa.Engine:
    """An engine for a shop file that many threads may use."""
    engine = sa.create_engine(
        f"sqlite:///{path}",
        # 32 open files are enough for any capacity that a lesson sets; the others queue here.
        pool_size=32,
        max_overflow=0,
        pool_timeout=60,
        connect_args={"timeout": 10, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def quick(connection: Any, _: Any) -> None:
        # Nothing here must survive a power cut; a commit need not wait for the disk.
        connection.execute("PRAGMA synchronous=OFF")

    @sa.event.listens_for(engine, "handle_error")
    def advise(context: Any) -> None:
        said = next(
            (do for seen, do in ADVICE.items() if seen in str(context.original_exception)), ""
        )
        if said and context.sqlalchemy_exception is not None:
            context.sqlalchemy_exception.add_note(said)

    return engine


# What SQLite says when the fault is not the learner's, and what stands under it in a notebook.
ADVICE = {
    "database is locked": (
        "Another program holds the shop's database, and a write waited 10 s for it: end that"
        " program and run the cell again, or take a shop of your own with cachelab.start()."
    ),
    "disk is full": (
        "The disk of the temp folder is full, and what was committed before is kept: make room"
        " there and run the cell again."
    ),
    "disk I/O error": (
        "The disk of the temp folder refuses to write, and what was committed before is kept: make"
        " room there and run the cell again."
    ),
}
