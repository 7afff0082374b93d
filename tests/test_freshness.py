"""Staleness as measured: which hits were wrong, and for how long."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from worlds import World, world

from cachelab.origin import User


@pytest.fixture
def w(tmp_path: Path) -> World:
    return world(tmp_path)


def wrong_for(w: World) -> list[float | None]:
    """For each hit, in order: seconds since it stopped being true, None if it was true."""
    return [event.stale_for for event in w.trace.of("hit")]


def test_a_hit_is_true_until_somebody_writes_and_wrong_from_then_on(w: World) -> None:
    w.read(1)
    w.clock.now = 10
    w.read(1)
    w.clock.now = 20
    w.db.update_user(1, email="new@example.org")
    w.clock.now = 50
    w.read(1)
    assert wrong_for(w) == [None, 30.0]
    assert [event.age for event in w.trace.of("hit")] == [10.0, 50.0]


def test_a_write_to_another_row_of_the_table_makes_nothing_stale(w: World) -> None:
    w.read(1)
    w.db.update_user(2, email="new@example.org")
    w.read(1)
    assert wrong_for(w) == [None]


def test_a_write_that_changes_no_value_makes_nothing_stale(w: World) -> None:
    w.db.set_flag("recommendations", True)
    w.cache.get("flag")
    w.cache.set("flag", json.dumps(w.db.flag("recommendations")))
    w.db.set_flag("recommendations", True)
    w.cache.get("flag")
    assert wrong_for(w) == [None]


def test_a_value_is_true_again_when_the_row_is_changed_back(w: World) -> None:
    w.cache.set("flag", json.dumps(w.db.flag("recommendations")))
    w.db.set_flag("recommendations", False)
    w.cache.get("flag")
    w.db.set_flag("recommendations", True)
    w.cache.get("flag")
    assert wrong_for(w) == [0.0, None]


def test_a_fill_or_a_delete_ends_the_staleness(w: World) -> None:
    w.read(1)
    w.db.update_user(1, email="new@example.org")
    w.cache.delete("user:v1:1")
    w.read(1)
    w.read(1)
    assert wrong_for(w) == [None]


def test_an_old_row_stored_after_the_commit_is_stale_from_its_first_hit(w: World) -> None:
    # The race of cache-aside: GET, SELECT, and only then another's UPDATE and DEL, then our SET.
    w.cache.get("user:v1:1")
    old = w.db.user(1)
    w.clock.now = 5
    with w.trace.acting("writer"):
        w.db.update_user(1, email="new@example.org")
        w.cache.delete("user:v1:1")
    w.clock.now = 9
    w.cache.set("user:v1:1", json.dumps(old))
    w.cache.get("user:v1:1")
    assert wrong_for(w) == [4.0]


def test_an_uncommitted_write_makes_nothing_stale_and_a_rolled_back_one_never_does(
    w: World,
) -> None:
    w.read(1)
    with w.db.session() as session:
        session.execute(sa.update(User).where(User.id == 1).values(email="never@example.org"))
        w.read(1)
        session.rollback()
    w.read(1)
    assert wrong_for(w) == [None, None]
    assert w.trace.count("rollback") == 1


def test_a_key_made_of_two_reads_is_stale_when_either_changes(w: World) -> None:
    def page() -> None:
        if w.cache.get("page") is None:
            parts = [w.db.user(1), w.db.product(2)]
            w.cache.set("page", json.dumps(parts))

    page()
    w.db.update_product(2, stock=77)
    page()
    assert wrong_for(w) == [0.0]


def test_one_read_may_fill_several_keys(w: World) -> None:
    user = w.db.user(1)
    assert user is not None
    w.cache.set("user:v1:1", json.dumps(user))
    w.cache.set("public:v1:1", json.dumps(user["name"]))
    w.db.update_user(1, name="Alicia")
    w.cache.mget("user:v1:1", "public:v1:1")
    assert wrong_for(w) == [0.0, 0.0]


def test_a_nested_read_does_not_lend_its_rows_to_the_outer_key_alone(w: World) -> None:
    w.cache.get("outer")
    w.cache.get("inner")
    w.cache.set("inner", json.dumps(w.db.product(2)))
    w.cache.set("outer", json.dumps(w.db.user(1)))
    w.db.update_user(1, name="Alicia")
    w.cache.get("inner")
    w.cache.get("outer")
    assert wrong_for(w) == [None, 0.0]


def test_a_value_that_was_not_read_from_the_origin_is_never_called_stale(w: World) -> None:
    w.read(1)
    w.cache.set("greeting", "hello")
    w.db.update_user(1, name="Alicia")
    w.cache.get("greeting")
    assert wrong_for(w) == [None]


def test_what_a_writer_stores_itself_is_not_blamed_on_what_it_read_before(w: World) -> None:
    w.read(1)
    w.db.update_user(1, name="Alicia")
    w.cache.set("user:v1:1", json.dumps({"name": "Alicia"}))
    w.cache.get("user:v1:1")
    assert wrong_for(w) == [None]


def test_orm_sessions_and_raw_sql_are_seen_like_everything_else(w: World) -> None:
    with w.db.session() as session:
        user = session.get(User, 1)
        assert user is not None
        w.cache.set("name", user.name)
        user.name = "Alicia"
        session.commit()
    w.cache.get("name")
    with w.db.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT email FROM users WHERE id = 2").one()
        w.cache.set("email", row.email)
        connection.execute(sa.text("UPDATE users SET email = :e WHERE id = 2"), {"e": "x@y.org"})
        connection.commit()
    w.cache.get("email")
    assert wrong_for(w) == [0.0, 0.0]


def test_a_write_that_commits_by_itself_is_a_commit(w: World) -> None:
    w.read(1)
    with w.db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("UPDATE users SET email = 'x' WHERE id = 1")
    w.read(1)
    assert wrong_for(w) == [0.0]
    assert w.trace.count("rollback") == 0


def test_two_threads_do_not_mix_up_what_they_have_read(w: World) -> None:
    barrier = threading.Barrier(2, timeout=20)

    def reader(user_id: int) -> None:
        w.cache.get(f"user:v1:{user_id}")
        user = w.db.user(user_id)
        barrier.wait()
        w.cache.set(f"user:v1:{user_id}", json.dumps(user))

    threads = [threading.Thread(target=reader, args=(n,), name=f"r{n}") for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    w.db.update_user(1, name="Alicia")
    w.cache.mget("user:v1:1", "user:v1:2")
    assert wrong_for(w) == [0.0, None]
