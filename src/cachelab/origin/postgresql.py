"""The shop on PostgreSQL: in a schema of its own, dropped when its lab has ended."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cachelab.origin.schema import Base
from cachelab.origin.seed import FULL, Size, rows
from cachelab.process.errors import OneSentence
from cachelab.process.guard import Guard

OUR_SCHEMA = re.compile(r"cachelab_(\d{8})_[0-9a-f]{8}")
OUR_COMMENT = "Cachelab: the shop of one lab, gone with its kernel"
CONNECT_SECONDS = 5
KEPT_DAYS = 2  # what a machine that lost its power has left is dropped by a later lab
# One core a statement, rows in the order of the table, no wait for the disk: as SQLite does it.
PLAIN = {
    "synchronous_commit": "off",
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",
    "jit": "off",
}


class OriginError(OneSentence, ValueError):
    """The database named is of no use to us; its text is one sentence."""


def open_postgresql(url: str, guard: Guard | None = None, size: Size = FULL) -> sa.Engine:
    """An engine for a fresh shop on a PostgreSQL server.

    The shop lives in a schema of its own, one for each lab: no other table of the database is
    touched or seen. The schema is dropped when `guard` closes or its process ends, however that
    comes. OriginError, one sentence, when the server cannot be used.
    """
    asked = _postgresql_url(url)
    schema = f"cachelab_{datetime.now(UTC):%Y%m%d}_{secrets.token_hex(4)}"
    settings = {"search_path": schema, "application_name": schema, **PLAIN}
    given = [asked.query.get("options", ""), *(f"-c{k}={v}" for k, v in settings.items())]
    engine = connect_postgresql(
        asked.update_query_dict({"options": " ".join(map(str, filter(None, given)))})
    )
    try:
        with engine.connect() as connection:
            _drop_left_over(connection)
            connection.commit()
            if guard is not None:
                wish = [sys.executable, "-m", "cachelab.origin.postgresql", "--drop", schema]
                guard.on_exit(wish, env={**os.environ, "CACHELAB_DATABASE_URL": url})
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
            connection.exec_driver_sql(f"COMMENT ON SCHEMA {schema} IS '{OUR_COMMENT}'")
            seed_postgresql(connection, size)
            connection.commit()
    except sa.exc.SQLAlchemyError as error:
        engine.dispose()
        raise OriginError(why_not(error, asked)) from None
    return engine


def connect_postgresql(url: sa.URL) -> sa.Engine:
    """An engine that many threads may use; the URL says in which schema it works.

    OriginError, one sentence, when nobody can be reached there.
    """
    try:
        engine = sa.create_engine(
            url,
            # As many at once as with SQLite; when they rest, few: a server has 100 for everybody.
            pool_size=4,
            max_overflow=28,
            pool_timeout=60,
            connect_args={
                "connect_timeout": url.query.get("connect_timeout", CONNECT_SECONDS),
                "prepare_threshold": None,  # a pooler in front of the server may not keep them
            },
        )
    except ImportError:
        raise OriginError(
            "PostgreSQL needs a driver that is not installed: pip install 'psycopg[binary]', or"
            " unset the variable to use SQLite."
        ) from None
    try:
        # SQLAlchemy's own first questions to a server are nobody's queries: ask them now.
        engine.connect().close()
    except sa.exc.SQLAlchemyError as error:
        raise OriginError(why_not(error, url)) from None
    return engine


def drop_schema(url: str, schema: str) -> None:
    """Drop one schema that a lab has made; ValueError for any other name."""
    if not OUR_SCHEMA.fullmatch(schema):
        raise ValueError(f"a schema of ours looks like cachelab_20261231_1a2b3c4d, not {schema!r}.")
    asked = _postgresql_url(url)
    engine = connect_postgresql(asked)
    try:
        with engine.begin() as connection:
            if schema in _ours(connection):
                connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    except sa.exc.SQLAlchemyError as error:
        raise OriginError(why_not(error, asked)) from None
    finally:
        engine.dispose()


def _postgresql_url(url: str) -> sa.URL:
    try:
        asked = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise OriginError(
            "this is no URL of a database; write postgresql://user:password@host:5432/database."
        ) from None
    backend = asked.get_backend_name()
    if backend not in {"postgresql", "postgres"}:  # hosted servers hand out the short form
        raise OriginError(f"only PostgreSQL is supported; this names {backend}.")
    return asked.set(drivername="postgresql+psycopg")


def _ours(connection: sa.Connection) -> list[str]:
    """The schemas that labs of this user have made."""
    found = connection.execute(
        sa.text(
            "SELECT nspname FROM pg_namespace"
            " WHERE pg_get_userbyid(nspowner) = current_user"
            " AND obj_description(oid, 'pg_namespace') = :comment"
        ),
        {"comment": OUR_COMMENT},
    )
    return [name for name in found.scalars() if OUR_SCHEMA.fullmatch(name)]


def _drop_left_over(connection: sa.Connection) -> None:
    """Drop the schemas of labs that ended days ago without being able to clear up."""
    before = f"{datetime.now(UTC) - timedelta(days=KEPT_DAYS):%Y%m%d}"
    asked = "SELECT application_name FROM pg_stat_activity WHERE usename = current_user"
    in_use = set(connection.exec_driver_sql(asked).scalars())
    for schema in _ours(connection):
        if schema.split("_")[1] < before and schema not in in_use:
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def why_not(error: sa.exc.SQLAlchemyError, asked: sa.URL) -> str:
    """What a server said, and what to do, in one sentence without the password."""
    said = str(getattr(error, "orig", None) or error)
    # A host of several addresses fails once for each: the last reason stands for all.
    reason = re.split(r"(?:FATAL|ERROR|failed): +", said)[-1].strip().splitlines()[0].rstrip(".")
    user, database = asked.username or "you", asked.database or asked.username or "it"
    if "permission denied for database" in reason:
        return (
            f"the user {user} may not make a schema in the database {database}: have GRANT CREATE"
            f" ON DATABASE {database} TO {user} run there, or unset the variable to use SQLite."
        )
    place = f"{asked.host or 'the local socket'}:{asked.port or 5432}/{database}"
    return (
        f"PostgreSQL at {place} does not let {user} in ({reason}): see that it runs and that the"
        " URL is right, or unset the variable to use SQLite."
    )


def seed_postgresql(connection: sa.Connection, size: Size = FULL) -> None:
    """Create the shop in the schema that the connection stands in, which is empty."""
    Base.metadata.create_all(connection, checkfirst=False)
    driver: Any = connection.connection.driver_connection
    for table, data in rows(size).items():
        # COPY takes a second for what INSERT takes ten.
        with driver.cursor().copy(f"COPY {table} FROM STDIN (FREEZE)") as copying:
            for row in data:
                copying.write_row(row)
        if "id" in Base.metadata.tables[table].columns:
            # The ids were given; the next row without one follows them, as it does on SQLite.
            last = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {len(data)})"
            connection.exec_driver_sql(last)
    connection.exec_driver_sql("ANALYZE " + ", ".join(Base.metadata.tables))


def main(arguments: Sequence[str] | None = None) -> int:
    """Drop a schema in the database of CACHELAB_DATABASE_URL; 0 if it is gone, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m cachelab.origin.postgresql", description=main.__doc__
    )
    parser.add_argument("--drop", metavar="SCHEMA", required=True)
    schema = parser.parse_args(arguments).drop
    try:
        drop_schema(os.environ.get("CACHELAB_DATABASE_URL", ""), schema)
    except ValueError as error:
        print(f"Nothing was dropped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
