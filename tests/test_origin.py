"""The origin: a real database whose speed and width are set, and every query counted."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from worlds import World, world

from cachelab import origin
from cachelab.origin import SMALL, Origin, postgresql, sqlite
from cachelab.origin.counting import asker
from cachelab.origin.statements import in_order, label
from cachelab.record.trace import Trace


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


def test_the_shop_has_as_many_rows_as_promised_and_is_the_same_everywhere(tmp_path: Path) -> None:
    path = origin.copy_of_shop(tmp_path, tmp_path / "kept")
    engine = origin.open_sqlite(path)
    with engine.connect() as connection:
        counts = {
            table: connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("users", "products", "articles", "comments", "orders")
        }
        total = connection.execute(sa.text("SELECT sum(total_cents) FROM orders")).scalar_one()
    engine.dispose()
    expected = {"users": 1000, "products": 500, "articles": 200, "comments": 5000}
    assert counts == {**expected, "orders": 200_000}
    assert total == 2_089_322_450


def test_the_shop_is_seeded_once_and_copied_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = origin.copy_of_shop(tmp_path / "a", tmp_path / "kept", SMALL)
    monkeypatch.setattr(sqlite, "seed_sqlite", None)
    second = origin.copy_of_shop(tmp_path / "b", tmp_path / "kept", SMALL)
    assert first.read_bytes() == second.read_bytes()


def test_a_cache_folder_that_cannot_be_written_costs_a_second_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where a folder should be")
    path = origin.copy_of_shop(tmp_path, tmp_path / "kept", SMALL)
    assert Origin(origin.open_sqlite(path), Trace()).user(1) is not None


def test_what_the_shop_asks_gives_values_that_look_like_nothing(w: World) -> None:
    assert w.db.user(1) == {
        "id": 1,
        "name": "Alice",
        "email": "alice@example.org",
        "bio": "Likes a good chair.",
        "role": "customer",
        "version": 1,
    }
    assert (w.db.stock(7), w.db.bio(3), w.db.permissions(1), w.db.user(999)) == (0, "", [], None)
    assert w.db.comments(5) == []
    assert w.db.comments(1)[0].keys() == {"id", "text", "author"}
    assert w.db.flag("no such flag") is None
    assert w.db.queries == 8


def test_best_sellers_are_sorted_by_turnover(w: World) -> None:
    best = w.db.best_sellers("garden", 3)
    turnover = [product["turnover_cents"] for product in best]
    assert turnover == sorted(turnover, reverse=True)
    assert len(best) == 3


def test_an_update_raises_the_version_and_commits(w: World) -> None:
    w.db.update_user(1, email="new@example.org")
    user = w.db.user(1)
    assert user is not None
    assert (user["email"], user["version"]) == ("new@example.org", 2)
    assert [event.kind for event in w.trace] == ["write", "commit", "query"]


def test_an_unknown_column_gets_one_sentence_with_the_known_ones(w: World) -> None:
    with pytest.raises(ValueError, match=r"users has the columns id, name.*; this names mail\."):
        w.db.update_user(1, mail="x")


def test_somebody_else_writes_under_another_name(w: World) -> None:
    w.db.acting_as("admin tool").update_user(1, role="admin")
    w.db.user(1)
    assert w.trace.actors == ["admin tool", "app"]
    assert w.db.writes == 1


def test_every_kind_of_statement_is_counted_and_labelled(w: World) -> None:
    with w.db.engine.begin() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM users")
        connection.execute(
            sa.text("INSERT INTO flags VALUES (:n, :e)"),
            [{"n": "a", "e": True}, {"n": "b", "e": False}],
        )
        connection.execute(sa.text("DELETE FROM flags WHERE name = :n"), {"n": "a"})
    done = [(e.kind, e.what, e.on, e.detail) for e in w.trace]
    assert done == [
        ("query", "SELECT", "users", "1 row"),
        ("write", "INSERT", "flags", "2 rows"),
        ("write", "DELETE", "flags a", "1 row"),
        ("commit", "COMMIT", "flags", ""),
    ]


def test_returning_gives_its_rows(w: World) -> None:
    with w.db.engine.begin() as connection:
        asked = sa.text("UPDATE users SET name = 'Z' WHERE id = 1 RETURNING name, version")
        assert tuple(connection.execute(asked).one()) == ("Z", 1)


def test_a_failing_statement_is_recorded_frees_its_slot_and_is_raised(w: World) -> None:
    w.db.capacity = 1
    for _ in range(2):
        with pytest.raises(sa.exc.OperationalError), w.db.engine.connect() as connection:
            connection.exec_driver_sql("SELECT * FROM nowhere")
    assert w.trace.errors == 2
    assert w.db.user(1) is not None


def test_statements_queue_for_the_slots_there_are(w: World) -> None:
    w.db.capacity, w.db.latency = 2, 0.02
    running, most, lock = 0, 0, threading.Lock()
    real = time.sleep

    def watched(seconds: float) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        real(seconds)
        with lock:
            running -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", watched)
        threads = [threading.Thread(target=w.db.user, args=(1,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 2
    assert w.trace.queries == 8
    assert w.trace.count("wait") >= 1


@pytest.mark.parametrize("slots", [0, -1, 1.5, "two"])
def test_a_capacity_that_makes_no_sense_gets_one_sentence(w: World, slots: object) -> None:
    with pytest.raises(ValueError, match="capacity is a whole number from 1, or None"):
        w.db.capacity = slots  # type: ignore[assignment]


@pytest.mark.parametrize("seconds", [-1, float("nan"), 1e9])
def test_a_latency_that_makes_no_sense_gets_one_sentence(w: World, seconds: float) -> None:
    with pytest.raises(ValueError, match="latency is a time in seconds"):
        w.db.latency = seconds


def test_many_threads_share_the_engine_without_an_error(w: World) -> None:
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                w.db.user(1 + number % 10)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert w.db.queries == 500


def test_only_postgresql_is_taken_as_another_database() -> None:
    with pytest.raises(ValueError, match="only PostgreSQL is supported; this names mysql"):
        origin.open_postgresql("mysql://localhost/x")


# PostgreSQL, as far as it can be seen without a server; the rest is in tests/extras


@pytest.mark.parametrize("url", ["no url", "postgresql://learner@localhost:port/shop", "://", ""])
def test_what_is_no_url_gets_one_sentence_with_an_example(url: str) -> None:
    with pytest.raises(origin.OriginError, match=r"write postgresql://user:password@host:5432/"):
        origin.open_postgresql(url)


def test_a_missing_driver_gets_one_sentence_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for url in ("postgresql://localhost/x", "postgres://localhost/x", "postgresql+psycopg2:///x"):
        with pytest.raises(origin.OriginError) as raised:
            origin.open_postgresql(url)
        assert str(raised.value) == (
            "PostgreSQL needs a driver that is not installed: pip install 'psycopg[binary]', or"
            " unset the variable to use SQLite."
        )


REFUSED = (
    "connection failed: connection to server at {}, port 1 failed: Connection refused\n\tIs the"
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (REFUSED.format('"127.0.0.1"'), "Connection refused"),
        (
            "Multiple connection attempts failed. All failures were:\n- hostaddr: '::1': "
            + REFUSED.format('"::1"')
            + " server running?\n- hostaddr: '127.0.0.1': "
            + REFUSED.format('"127.0.0.1"'),
            "Connection refused",
        ),
        ('... port 5432 failed: FATAL:  database "nope" does not exist', "database .* does not"),
        (
            "failed to resolve host 'nowhere': [Errno -2] Name or service not known",
            "Name or service",
        ),
        ("connection timeout expired", "connection timeout expired"),
    ],
)
def test_a_server_that_refuses_gets_one_sentence_with_its_reason_and_no_password(
    said: str, reason: str
) -> None:
    error = sa.exc.OperationalError("SELECT 1", {}, Exception(said))
    text = postgresql.why_not(error, sa.make_url("postgresql://learner:secret@h:1/shop"))
    assert re.fullmatch(
        rf"PostgreSQL at h:1/shop does not let learner in \([^\n]*{reason}[^\n]*\):"
        r" see that it runs and that the URL is right, or unset the variable to use SQLite\.",
        text,
    )
    assert "secret" not in text


def test_only_a_schema_of_ours_can_be_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("public", "cachelab", "cachelab_20261231_1a2b3c4d; DROP TABLE x", "users"):
        assert postgresql.main(["--drop", name]) == 1
        assert "a schema of ours looks like cachelab_20261231_1a2b3c4d" in capsys.readouterr().err


def test_parameters_by_name_are_labelled_as_those_by_position() -> None:
    statement = "UPDATE users SET version=(users.version + %(v)s), email=%(e)s WHERE id = %(k)s"
    by_name = {"k": 7, "e": "new@example.org", "v": 1}
    assert in_order(statement, by_name) == [1, "new@example.org", 7]
    assert label(("users",), in_order(statement, by_name), "UPDATE") == "users 7"
    assert in_order("SELECT ?", (7,)) == [7]


# What is asked again after a commit ---------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "values", "asked"),
    [
        ("UPDATE users SET name = :v WHERE id = :k", {"v": "Z", "k": 2}, [2]),
        ("UPDATE users SET name = :v WHERE users.id = :k", {"v": "Z", "k": 3}, []),
        ("update users set name = :v where id = :k", {"v": "Z", "k": 1}, [1]),
        # Any row may be meant: all are asked.
        ("UPDATE users SET id = :v WHERE id = :k", {"v": 900, "k": 3}, [1, 2]),
        ("UPDATE users SET name = :v WHERE id = :k", {"v": "Z", "k": "2"}, [1, 2]),
        ("UPDATE users SET name = :v WHERE id >= :k", {"v": "Z", "k": 2}, [1, 2]),
        (
            "UPDATE users SET name = :v WHERE name = :n OR id = :k",
            {"v": "Z", "n": "Alice", "k": 3},
            [1, 2],
        ),
        ("UPDATE users SET name = :v WHERE NOT id = :k", {"v": "Z", "k": 3}, [1, 2]),
        (
            "UPDATE users SET name = (SELECT :v FROM flags WHERE 1) WHERE id <> :k",
            {"v": "Z", "k": 1},
            [1, 2],
        ),
        ("UPDATE users SET name = :v", {"v": "Z"}, [1, 2]),
        ("DELETE FROM users WHERE id = :k", {"k": 2}, [1, 2]),
        ("UPDATE products SET stock = :v WHERE id = :k", {"v": 1, "k": 2}, []),
    ],
)
def test_after_a_commit_only_statements_about_rows_that_may_have_changed_are_asked_again(
    tmp_path: Path, write: str, values: dict[str, object], asked: list[int]
) -> None:
    engine = origin.open_sqlite(origin.copy_of_shop(tmp_path, tmp_path, SMALL))
    again, ask = [], asker(engine)

    def watched(statement: str, parameters: Any) -> tuple[Any, ...]:
        again.append(parameters[-1])
        return ask(statement, parameters)

    db = Origin(engine, Trace(), ask=watched)
    for user in (1, 2):
        db.user(user)
    with engine.begin() as connection:
        connection.execute(sa.text(write), values)
    engine.dispose()
    assert sorted(again) == asked


def test_rows_changed_by_one_transaction_are_all_asked_again(w: World) -> None:
    for user in (1, 2, 3):
        w.read(user)
    with w.db.engine.begin() as connection:
        for user in (1, 2):
            change = sa.text("UPDATE users SET name = 'Z' WHERE id = :k")
            connection.execute(change, {"k": user})
    for user in (1, 2, 3):
        w.read(user)
    assert [event.on for event in w.trace.stale] == ["user:v1:1", "user:v1:2"]
    with w.db.engine.begin() as connection:
        connection.execute(sa.text("UPDATE users SET name = 'Y' WHERE id > :k"), {"k": 2})
        connection.execute(sa.text("UPDATE users SET name = 'Z' WHERE id = :k"), {"k": 1})
    w.read(3)
    assert w.trace.stale[-1].on == "user:v1:3"


def test_a_statement_about_rows_that_nobody_named_is_asked_again_after_every_change(
    w: World,
) -> None:
    with w.db.engine.connect() as connection:
        admins = connection.execute(sa.text("SELECT name FROM users WHERE role = 'admin'")).all()
    w.cache.set("admins", json.dumps([name for (name,) in admins]))
    w.db.update_user(7, role="admin")
    w.cache.get("admins")
    assert [event.on for event in w.trace.stale] == ["admins"]
