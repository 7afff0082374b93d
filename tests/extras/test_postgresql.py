"""PostgreSQL as the origin: the same shop, the same trace, nothing of others touched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from postgres import Cluster, binaries, cluster
from processes import is_alive, within

from cachelab import origin
from cachelab.lab import Lab, traffic
from cachelab.origin import SMALL, Origin, postgresql
from cachelab.patterns import cache_aside
from cachelab.process.guard import Guard
from cachelab.record.trace import Trace

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'cachelab%' ORDER BY 1"


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as one:
        yield one


@pytest.fixture
def url(server: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CACHELAB_BACKEND", "fake")
    monkeypatch.setenv("CACHELAB_DATABASE_URL", server.url())
    return server.url()


def asked(server: Cluster, statement: str) -> list[Any]:
    with psycopg.connect(server.url("owner"), autocommit=True) as owner:
        cursor = owner.execute(statement)
        return cursor.fetchall() if cursor.description else []


def shop_on(url: str, guard: Guard) -> Origin:
    return Origin(origin.open_postgresql(url, guard, SMALL), Trace(clock=float))


def what_happened(trace: Trace) -> list[tuple[str, str, str, str]]:
    return [(event.kind, event.what, event.on, event.detail) for event in trace]


# The same shop ---------------------------------------------------------------------------------


def test_every_table_holds_the_rows_that_it_has_on_sqlite(url: str, tmp_path: Path) -> None:
    lite = origin.open_sqlite(origin.copy_of_shop(tmp_path, tmp_path, SMALL))
    with Guard() as guard:
        big = shop_on(url, guard).engine
        for table in origin.Base.metadata.sorted_tables:
            statement = sa.select(table).order_by(*table.primary_key)
            with lite.connect() as here, big.connect() as there:
                assert here.execute(statement).all() == there.execute(statement).all(), table.name
        big.dispose()
    lite.dispose()


def use(db: Origin) -> list[Any]:
    """All that the shop asks, and what a lesson does besides."""
    seen: list[Any] = [db.user(1), db.product(7), db.stock(7), db.bio(3), db.permissions(2)]
    seen += [db.flag("new_checkout"), db.article(5), db.comments(1), db.best_sellers("garden", 3)]
    db.update_user(2, email="new@example.org", bio="")
    db.acting_as("admin tool").set_flag("new_checkout", True)
    with db.session() as session:
        session.add(origin.Comment(article_id=5, user_id=1, text="100 % wool"))
        session.commit()
        seen.append(
            session.scalars(sa.select(origin.Comment.id).order_by(-origin.Comment.id)).all()
        )
    with db.engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO flags VALUES (:n, :e)"),
            [{"n": "a", "e": True}, {"n": "b", "e": False}],
        )
        changed = sa.text("UPDATE products SET stock = stock - :n WHERE id = :id RETURNING stock")
        seen.append(connection.execute(changed, {"n": 1, "id": 3}).scalar_one())
        like = sa.text("SELECT id FROM comments WHERE text LIKE '100 %' ORDER BY id")
        seen.append(connection.execute(like).scalars().all())
    with db.engine.connect() as connection:
        connection.execute(sa.text("DELETE FROM flags WHERE name = :n"), {"n": "a"})
        connection.rollback()
    return [*seen, db.flag("a"), db.queries, db.writes]


def test_the_same_use_gives_the_same_answers_and_the_same_trace_as_on_sqlite(
    url: str, tmp_path: Path
) -> None:
    lite = Origin(
        origin.open_sqlite(origin.copy_of_shop(tmp_path, tmp_path, SMALL)), Trace(clock=float)
    )
    with Guard() as guard:
        big = shop_on(url, guard)
        assert use(lite) == use(big)
        assert what_happened(lite.trace) == what_happened(big.trace)
        big.engine.dispose()
    lite.engine.dispose()


def test_a_stale_hit_is_seen_with_a_percent_sign_in_the_statement(url: str) -> None:
    lab = Lab()
    try:

        def query() -> list[int]:
            with lab.db.engine.connect() as connection:
                options = {"no_parameters": True}
                like = "SELECT count(*) FROM comments WHERE text LIKE '100 %'"
                found = connection.exec_driver_sql(like, execution_options=options)
                return [row[0] for row in found]

        assert cache_aside.read(lab.cache, "wool", query, 300) == [0]
        with lab.someone_else.session() as session:
            session.add(origin.Comment(article_id=5, user_id=1, text="100 % wool"))
            session.commit()
        assert cache_aside.read(lab.cache, "wool", query, 300) == [0]
        assert len(lab.trace.stale) == 1
    finally:
        lab.close()


def test_readers_in_other_processes_ask_the_same_schema(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHELAB_BACKEND", "live")
    lab = Lab()
    try:
        lab.db.update_user(1, email="new@example.org")
        burst = traffic.burst(lab, whoever, 8, processes=2)
        assert {answer["email"] for answer in burst.answers} == {"new@example.org"}
        assert burst.trace.queries == 8
    finally:
        lab.close()


def whoever(cache, db):
    return db.user(1)


# Nothing of anybody else's ---------------------------------------------------------------------


def everything(server: Cluster) -> bytes:
    """The whole database as SQL."""
    dump = [str(binaries() / "pg_dump"), "--no-sync", server.url("owner")]
    text = subprocess.run(dump, capture_output=True, check=True).stdout
    # Newer ones guard their dump by a word drawn anew each time.
    return b"\n".join(line for line in text.splitlines() if not line.startswith(b"\\"))


def test_tables_of_the_same_names_that_are_somebody_elses_stay_as_they_were(
    server: Cluster, url: str
) -> None:
    for schema in ("public", "cachelab", "cachelab_20010101_0a0b0c0d"):
        asked(server, f"CREATE SCHEMA IF NOT EXISTS {schema}")
        asked(server, f"GRANT ALL ON SCHEMA {schema} TO learner")
        for table in ("users", "orders", "flags", "outbox"):
            asked(server, f"CREATE TABLE {schema}.{table} (id int, name text)")
            asked(server, f"INSERT INTO {schema}.{table} VALUES (1, 'not Alice')")
            asked(server, f"ALTER TABLE {schema}.{table} OWNER TO learner")
    try:
        before = everything(server)
        assert before.count(b"not Alice") == 12
        schemas = asked(server, SCHEMAS)
        lab = Lab()
        assert lab.db.user(1)["name"] == "Alice"
        lab.db.update_user(1, name="Alicia")
        with lab.db.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM orders"))
            connection.execute(sa.text("DROP TABLE flags"))
        lab.close()
        # pg_dump locks all tables, and would get into the way of the drop that it waits for.
        assert within(20, lambda: asked(server, SCHEMAS) == schemas)
        assert everything(server) == before
    finally:
        for schema in ("cachelab", "cachelab_20010101_0a0b0c0d"):
            asked(server, f"DROP SCHEMA {schema} CASCADE")
        asked(server, "DROP TABLE public.users, public.orders, public.flags, public.outbox")


def test_two_labs_on_one_database_see_nothing_of_each_other(url: str) -> None:
    first, second = Lab(), Lab()
    try:
        first.db.update_user(1, email="first@example.org")
        assert second.db.user(1)["email"] == "alice@example.org"
    finally:
        first.close()
        second.close()


def test_the_schema_is_gone_after_the_lab_is_closed_and_after_its_kernel_is_killed(
    server: Cluster, url: str
) -> None:
    assert within(20, lambda: asked(server, SCHEMAS) == [])
    lab = Lab()
    assert len(asked(server, SCHEMAS)) == 1
    lab.close()
    assert within(20, lambda: asked(server, SCHEMAS) == [])

    kernel = "import cachelab, sys; cachelab.start(); sys.stdin.read()"
    running = subprocess.Popen(
        [sys.executable, "-c", kernel], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert "origin: PostgreSQL" in running.stdout.readline()
    assert len(asked(server, SCHEMAS)) == 1
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert within(20, lambda: asked(server, SCHEMAS) == [])


def test_what_a_power_cut_has_left_is_dropped_days_later_unless_somebody_uses_it(
    server: Cluster, url: str
) -> None:
    old, used, young = (f"cachelab_{day}_0a0b0c0d" for day in ("20200101", "20200102", "99990101"))
    with psycopg.connect(url, autocommit=True) as learner:
        for schema in (old, used, young):
            learner.execute(f"CREATE SCHEMA {schema}")
            learner.execute(f"COMMENT ON SCHEMA {schema} IS '{postgresql.OUR_COMMENT}'")
    try:
        with psycopg.connect(url, application_name=used), Guard() as guard:
            shop_on(url, guard).engine.dispose()
            left = [name for (name,) in asked(server, SCHEMAS)]
        assert old not in left
        assert {used, young} <= set(left)
    finally:
        for schema in (used, young):
            origin.drop_schema(url, schema)


# Databases that cannot be used -----------------------------------------------------------------


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("dead", r"at 127\.0\.0\.1:\d+/class does not let learner in \(Connection refused\)"),
        ("dead, several addresses", r"at localhost:\d+/class .*\(Connection refused\)"),
        ("wrong password", r'\(password authentication failed for user "learner"\)'),
        ("no such database", r'\(database "nope" does not exist\)'),
        ("no right", r"guest may not make a schema.* GRANT CREATE ON DATABASE class TO guest "),
        ("read only", r"\(cannot execute CREATE SCHEMA in a read-only transaction\)"),
        ("full", r"\((sorry, )?too many (clients|connections)"),
    ],
)
def test_a_database_that_cannot_be_used_gets_one_sentence_without_the_password(
    server: Cluster, monkeypatch: pytest.MonkeyPatch, which: str, said: str
) -> None:
    urls = {
        "dead": f"postgresql://learner:{server.password}@127.0.0.1:{closed_port()}/class",
        "dead, several addresses": f"postgresql://learner:{server.password}@localhost:1/class",
        "wrong password": server.url(password=server.password + "x"),
        "no such database": server.url(database="nope"),
        "no right": server.url("guest"),
        "read only": server.url() + "?options=-cdefault_transaction_read_only%3Don",
        "full": server.url(),
    }
    monkeypatch.setenv("CACHELAB_BACKEND", "fake")
    monkeypatch.setenv("CACHELAB_DATABASE_URL", urls[which])
    if which == "full":
        asked(server, "ALTER ROLE learner CONNECTION LIMIT 0")
    try:
        with pytest.raises(RuntimeError, match=said) as raised:
            Lab()
    finally:
        asked(server, "ALTER ROLE learner CONNECTION LIMIT -1")
    text = str(raised.value)
    assert text.startswith("CACHELAB_DATABASE_URL cannot be used: ")
    assert text.endswith("unset the variable to use SQLite.")
    assert server.password not in text
    assert "\n" not in text
    assert asked(server, SCHEMAS) == [] or within(20, lambda: asked(server, SCHEMAS) == [])


# The server of these tests ---------------------------------------------------------------------


def test_the_private_server_is_gone_when_the_test_that_started_it_is_killed() -> None:
    code = (
        "import sys; from postgres import cluster\n"
        "with cluster() as one: print(one.pid, flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    test = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert test.stdout is not None
    pid = int(test.stdout.readline())
    assert is_alive(pid)
    test.kill()
    test.communicate()
    assert within(10, lambda: not is_alive(pid))
