"""What the edge promises: the counts, the leak and its plug, freshness, and an honest origin."""

from __future__ import annotations

import asyncio
import http.client
import re
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from nbval.plugin import get_sanitize_patterns
from nginxes import WHICH, binary

from cachelab import edge
from cachelab.edge import EdgeError
from cachelab.edge.answers import Answer, Headers

SANITIZE = Path(__file__).parent / "nbval_sanitize.cfg"
LONG = "public, max-age=3600, stale-while-revalidate=86400"
SHORT = "max-age=1, stale-while-revalidate=60"


@pytest.fixture(scope="module", params=WHICH)
def running(request: pytest.FixtureRequest) -> Iterator[edge.Edge]:
    with edge.start(nginx=binary(request.param)) as made:
        yield made


@pytest.fixture
def shop(running: edge.Edge) -> edge.Edge:
    running.origin.latency = 0.0
    running.forget()
    running.origin.reset()
    return running


def both(shop: edge.Edge) -> list[edge.Site]:
    return [shop.naive, shop.guarded]


# How many reach the origin ----------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_requests_cost_the_origin_one_call(shop: edge.Edge) -> None:
    shop.origin.page("/mug", {"name": "Mug"}, headers={"Cache-Control": LONG})
    burst = shop.guarded.repeat("/mug")
    assert burst.origin_calls == shop.origin.calls == shop.origin.calls_to("/mug") == 1
    assert burst.cache == {"MISS": 1, "HIT": 9_999}
    assert burst.statuses == {200: 10_000}
    assert {answer.text for answer in burst.answers} == {'{"name": "Mug"}'}
    assert not burst.errors


def test_800_at_once_on_a_cold_key_are_800_calls_naive_and_one_guarded(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": LONG})
    naive, guarded = shop.naive.burst("/mug"), shop.guarded.burst("/mug")
    assert (naive.origin_calls, naive.cache) == (800, {"MISS": 800})
    assert (guarded.origin_calls, guarded.cache) == (1, {"MISS": 1, "HIT": 799})
    for burst in (naive, guarded):
        assert burst.statuses == {200: 800}
        assert {answer.text for answer in burst.answers} == {"Mug"}
        assert not burst.errors


def test_the_origin_answers_nobody_before_everybody_has_asked(shop: edge.Edge) -> None:
    shop.origin.page("/count", lambda _: str(shop.origin.calls))
    assert {answer.text for answer in shop.naive.burst("/count", 200).answers} == {"200"}


def test_800_at_once_on_a_stale_copy_are_answered_within_50_ms_and_cost_one_call(
    shop: edge.Edge,
) -> None:
    shop.origin.page("/mug", "old", headers={"Cache-Control": SHORT})
    shop.guarded.get("/mug")
    shop.origin.page("/mug", "new", headers={"Cache-Control": SHORT})
    shop.wait(1)
    shop.origin.latency = 2.0
    burst = shop.guarded.burst("/mug")
    assert shop.origin.log[-1].status == 0  # all have their answer, and the origin has given none
    assert burst.origin_calls == 1
    assert burst.cache == {"STALE": 1, "UPDATING": 799}
    assert {answer.text for answer in burst.answers} == {"old"}
    assert burst.slowest < 0.050  # the bound of the issue, by nginx's own clock


def test_naive_makes_the_first_reader_of_a_stale_copy_wait_for_the_origin(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": SHORT})
    shop.naive.get("/mug")
    shop.wait(1)
    shop.origin.latency = 0.2
    burst = shop.naive.burst("/mug", 50)
    assert burst.cache == {"EXPIRED": 1, "UPDATING": 49}
    assert burst.origin_calls == 1
    assert burst.slowest >= 0.2


def test_past_its_window_nothing_stale_is_served(shop: edge.Edge) -> None:
    headers = {"Cache-Control": "max-age=1, stale-while-revalidate=1"}
    shop.origin.page("/mug", "old", headers=headers)
    for site in both(shop):
        site.get("/mug")
    shop.origin.page("/mug", "new", headers=headers)
    shop.wait(2)
    for site in both(shop):
        assert site.get("/mug").text == "new"


def test_the_lock_collapses_a_cold_key_and_not_one_that_has_expired(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": "max-age=1"})
    assert shop.guarded.burst("/mug", 40).origin_calls == 1
    shop.wait(1)
    # A limit of nginx, not of ours: without a stale copy it may serve, everybody goes.
    assert shop.guarded.burst("/mug", 40).origin_calls == 40


def test_readers_that_come_over_a_while_are_not_held_up_for_each_other(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": LONG})
    burst = shop.naive.burst("/mug", 20, over=0.4)
    assert burst.seconds >= 0.38
    assert burst.statuses == {200: 20}
    assert 1 <= burst.origin_calls < 20


def test_each_edge_asks_for_itself(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": LONG})
    with edge.start(upstream=shop.origin.address, nginx=shop.nginx.binary) as second:
        for site in (shop.guarded, second.guarded, shop.guarded, second.guarded):
            assert site.get("/mug").text == "Mug"
        assert shop.origin.calls == 2
        with pytest.raises(EdgeError, match="counts nothing here"):
            second.origin.reset()
        second.forget()
        assert second.guarded.get("/mug").cache == "MISS"
        assert shop.guarded.get("/mug").cache == "HIT"


# Whose answer it is -----------------------------------------------------------------------------


def whose(request: edge.Request) -> dict[str, Any]:
    return {"email": f"{request.user or 'nobody'}@shop.example"}


@pytest.mark.parametrize("how", ["user", "bearer"])
@pytest.mark.parametrize("cache_control", ["public, max-age=60", "max-age=60", "s-maxage=60"])
def test_naive_serves_alices_email_to_bob_and_guarded_does_not(
    shop: edge.Edge, cache_control: str, how: str
) -> None:
    shop.origin.page("/me", whose, headers={"Cache-Control": cache_control})
    asked = {
        site.name: [site.get("/me", **{how: who}).json()["email"] for who in ("alice", "bob")]
        + [site.get("/me").json()["email"]]
        for site in both(shop)
    }
    assert asked["naive"] == ["alice@shop.example"] * 3
    assert asked["guarded"] == ["alice@shop.example", "bob@shop.example", "nobody@shop.example"]


def test_guarded_serves_no_strangers_page_to_alice(shop: edge.Edge) -> None:
    shop.origin.page("/me", whose, headers={"Cache-Control": "max-age=60"})
    assert [shop.guarded.get("/me").cache for _ in range(2)] == ["MISS", "HIT"]
    for asking in (
        {"user": "alice"},
        {"bearer": "alice"},
        {"headers": {"cookie": "session=alice"}},
    ):
        answer = shop.guarded.get("/me", **asking)
        assert (answer.cache, answer.json()["email"]) == ("BYPASS", "alice@shop.example")
    # ... and leaves the stored one alone.
    assert shop.guarded.get("/me").json()["email"] == "nobody@shop.example"


@pytest.mark.parametrize(
    "cache_control",
    ["private, max-age=60", "no-store", "no-cache", "max-age=0", "s-maxage=0, max-age=60"],
)
def test_what_must_not_be_stored_is_not(shop: edge.Edge, cache_control: str) -> None:
    shop.origin.page("/me", whose, headers={"Cache-Control": cache_control})
    for site in both(shop):
        for who in ("alice", "bob"):
            assert site.get("/me", user=who).json()["email"] == f"{who}@shop.example"
        assert {site.get("/me").cache for _ in range(2)} == {"MISS"}


def test_an_answer_that_sets_a_cookie_is_not_stored(shop: edge.Edge) -> None:
    headers = {"Cache-Control": "max-age=60", "Set-Cookie": "session=alice"}
    shop.origin.page("/login", "welcome", headers=headers)
    for site in both(shop):
        assert [site.get("/login").cache for _ in range(2)] == ["MISS", "MISS"]
    assert shop.origin.calls == 4


def test_vary_keeps_a_copy_for_each_value_and_its_absence_serves_the_wrong_one(
    shop: edge.Edge,
) -> None:
    def greet(request: edge.Request) -> str:
        return {"de": "Hallo"}.get(request.headers.get("Accept-Language", ""), "Hello")

    def greetings(path: str, site: edge.Site) -> list[str]:
        return [
            site.get(path, headers={"Accept-Language": language}).text
            for language in ("en", "de", "en", "de")
        ]

    shop.origin.page(
        "/varies", greet, headers={"Cache-Control": "max-age=60", "Vary": "Accept-Language"}
    )
    shop.origin.page("/forgot", greet, headers={"Cache-Control": "max-age=60"})
    for site in both(shop):
        shop.origin.reset()
        assert greetings("/varies", site) == ["Hello", "Hallo", "Hello", "Hallo"]
        assert shop.origin.calls == 2
        assert greetings("/forgot", site) == ["Hello"] * 4


def test_another_query_is_another_page(shop: edge.Edge) -> None:
    shop.origin.page("/a.css", lambda request: request.path, headers={"Cache-Control": LONG})
    for path in ("/a.css?v=1", "/a.css?v=2", "/a.css?v=1"):
        assert shop.guarded.get(path).text == path
    assert [call.path for call in shop.origin.log] == ["/a.css?v=1", "/a.css?v=2"]


# Freshness and ETags ----------------------------------------------------------------------------


def test_an_expired_copy_is_asked_after_by_its_etag(shop: edge.Edge) -> None:
    headers = {"Cache-Control": "max-age=1", "ETag": '"v1"'}
    shop.origin.page("/mug", "Mug" * 100, headers=headers)
    for site in both(shop):
        site.get("/mug")
    shop.wait(1)
    shop.origin.reset()
    answer = shop.guarded.get("/mug")
    assert (answer.cache, answer.text) == ("REVALIDATED", "Mug" * 100)
    assert [(call.if_none_match, call.status, call.bytes) for call in shop.origin.log] == [
        ('"v1"', 304, 0)
    ]
    # Naive asks for all of it again.
    assert shop.naive.get("/mug").cache == "EXPIRED"
    assert (shop.origin.log[-1].if_none_match, shop.origin.log[-1].bytes) == (None, 300)
    shop.origin.page("/mug", "Cup", headers={**headers, "ETag": '"v2"'})
    shop.wait(1)
    answer = shop.guarded.get("/mug")
    assert (answer.cache, answer.text, answer.headers["etag"]) == ("EXPIRED", "Cup", '"v2"')


def test_a_reader_that_holds_the_copy_gets_304_from_the_store(shop: edge.Edge) -> None:
    headers = {"Cache-Control": "max-age=60", "ETag": '"v1"'}
    shop.origin.page("/mug", "Mug", headers=headers)
    shop.guarded.get("/mug")
    for tag, status in (('"v1"', 304), ('"v0"', 200)):
        answer = shop.guarded.get("/mug", headers={"If-None-Match": tag})
        assert (answer.status, answer.cache) == (status, "HIT")
    assert shop.origin.calls == 1


def test_the_origins_own_max_age_ends_and_wait_waits_until_then(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": "max-age=1"})
    for site in both(shop):
        site.get("/mug")
    shop.wait(1)
    assert [site.get("/mug").cache for site in both(shop)] == ["EXPIRED", "EXPIRED"]


def test_an_age_is_told_from_the_date_of_the_origin(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": "max-age=60"})
    for site in both(shop):
        first = site.get("/mug")
        assert first.age is None
        assert "Age" not in first.headers
    shop.wait(1)
    for site in both(shop):
        assert 1 <= (site.get("/mug").age or 0) <= 30


def test_an_age_adds_up_what_the_headers_say() -> None:
    def answer(**headers: str) -> Answer:
        return Answer(200, Headers({"X-Cache": "HIT", **headers}), b"", 0.0, arrived=1_000_010.9)

    date = formatdate(1_000_000, usegmt=True)
    assert answer(Date=date).age == 10
    assert answer(Date=date, Age="7").age == 17
    assert answer(Date=formatdate(1_000_020, usegmt=True)).age == 0
    assert answer(Date="yesterday").age is None
    assert answer().age is None
    assert Answer(200, Headers({"X-Cache": "MISS", "Date": date}), b"", 0.0).age is None


def test_forget_empties_both_sites_and_leaves_the_count_alone(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": LONG, "Vary": "Accept-Language"})
    for site in both(shop):
        assert [site.get("/mug").cache for _ in range(2)] == ["MISS", "HIT"]
    shop.forget()
    assert shop.origin.calls == 2
    for site in both(shop):
        assert [site.get("/mug").cache for _ in range(2)] == ["MISS", "HIT"]


def test_forget_waits_for_a_refresh_that_would_fill_the_store_again(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "old", headers={"Cache-Control": SHORT})
    shop.guarded.get("/mug")
    shop.wait(1)
    shop.origin.latency = 0.6
    assert shop.guarded.get("/mug").cache == "STALE"
    assert not shop.origin.is_idle
    shop.forget()
    assert shop.origin.is_idle
    assert shop.guarded.get("/mug").cache == "MISS"


def test_after_a_stale_answer_the_refresh_is_counted(shop: edge.Edge) -> None:
    shop.origin.page("/mug", "Mug", headers={"Cache-Control": SHORT})
    shop.guarded.get("/mug")
    shop.wait(1)
    stale = shop.guarded.get("/mug")
    assert (stale.cache, shop.origin.calls) == ("STALE", 2)
    assert shop.guarded.get("/mug").cache == "HIT"
    # However late nginx sends the refresh.
    late = threading.Timer(0.3, direct, (shop, "/mug", ""))
    late.start()
    shop._run(shop._wait_for_calls(2, [stale]))
    assert shop.origin.calls == 3
    late.join()


# The origin -------------------------------------------------------------------------------------


def test_a_page_may_be_text_bytes_json_or_a_function(shop: edge.Edge) -> None:
    origin = shop.origin
    origin.page("/text", "grün")
    origin.page("/bytes", b"\x00\x01")
    origin.page("/json", {"mug": ["grün", None, 1]})
    origin.page("/function", lambda request: {"path": request.path, "method": request.method})
    origin.page(
        "/reply", lambda _: edge.Reply([1], 201, {"X-More": "yes"}), headers={"X-Given": "too"}
    )
    origin.page("/gone", "gone", status=410)
    get = shop.naive.get
    assert (get("/text").text, get("/text").headers["content-type"]) == (
        "grün",
        "text/plain; charset=utf-8",
    )
    assert get("/bytes").body == b"\x00\x01"
    assert get("/json").json() == {"mug": ["grün", None, 1]}
    assert get("/function?a=1").json() == {"path": "/function?a=1", "method": "GET"}
    reply = get("/reply")
    assert (reply.status, reply.json()) == (201, [1])
    assert (reply.headers["x-more"], reply.headers["X-GIVEN"]) == ("yes", "too")
    assert get("/gone").status == 410
    missing = get("/missing")
    assert (missing.status, missing.text) == (404, "There is no page at /missing.")
    with pytest.raises(ValueError, match="begins with /"):
        origin.page("mug", "")


def test_a_page_that_raises_is_a_500_that_says_so_and_is_not_stored(shop: edge.Edge) -> None:
    shop.origin.page("/broken", lambda _: 1 / 0, headers={"Cache-Control": LONG})
    shop.origin.page("/odd", lambda _: object())
    answer = shop.guarded.get("/broken")
    assert answer.status == 500
    assert answer.text == "The page at /broken raised ZeroDivisionError: division by zero"
    assert shop.guarded.get("/odd").status == 500
    shop.origin.page("/broken", "mended")
    assert shop.guarded.get("/broken").text == "mended"


def test_a_header_with_a_line_break_is_refused(shop: edge.Edge) -> None:
    shop.origin.page("/split", "x", headers={"X-Bad": "a\r\nSet-Cookie: session=eve"})
    answer = shop.naive.get("/split")
    assert answer.status == 500
    assert "Set-Cookie" not in answer.headers
    with pytest.raises(ValueError, match="line break"):
        shop.naive.get("/split", headers={"X-Bad": "a\r\nb"})


def test_the_log_says_who_asked_what_in_order(shop: edge.Edge) -> None:
    shop.origin.page("/me", whose, headers={"ETag": '"e"'})
    shop.naive.get("/me", user="alice")
    shop.naive.get("/me", bearer="bob")
    shop.guarded.get("/me", user="carol")
    direct(shop, "/me", '"e"')
    shop.naive.get("/me", method="HEAD")
    assert [str(call) for call in shop.origin.log] == [
        "GET /me, by alice: 200, 31 bytes",
        "GET /me, by bob: 200, 29 bytes",
        "GET /me, by carol: 200, 31 bytes",
        'GET /me, by a stranger, If-None-Match "e": 304, 0 bytes',
        "GET /me, by a stranger: 200, 32 bytes",  # nginx makes a GET of a HEAD it may store
    ]
    assert shop.origin.calls_to("/me") == 5
    assert shop.origin.calls_to("/you") == 0
    shop.origin.reset()
    assert (shop.origin.calls, shop.origin.log) == (0, [])


@pytest.mark.parametrize(
    ("held", "status"),
    [('"a"', 304), ('W/"a"', 304), ('"b", "a"', 304), ("*", 304), ('"b"', 200), ("a", 200)],
)
def test_the_origin_compares_etags_as_the_rfc_says(shop: edge.Edge, held: str, status: int) -> None:
    shop.origin.page("/mug", "Mug", headers={"ETag": '"a"', "Cache-Control": "no-store"})
    assert direct(shop, "/mug", held) == (status, '"a"', "Mug" if status == 200 else "")


def direct(shop: edge.Edge, path: str, held: str) -> tuple[int, str | None, str]:
    """What the origin itself answers to a reader who holds a copy: status, ETag, body."""
    connection = http.client.HTTPConnection("127.0.0.1", shop.origin.port, timeout=20)
    connection.request("GET", path, headers={"If-None-Match": held})
    answer = connection.getresponse()
    found = (answer.status, answer.headers["ETag"], answer.read().decode())
    connection.close()
    return found


def test_the_origin_keeps_a_connection_and_survives_nonsense(shop: edge.Edge) -> None:
    async def talk() -> tuple[list[bytes], bytes]:
        got = []
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.origin.port)
        for _ in range(2):
            writer.write(b"POST /mug HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            got.append(await reader.readuntil(b"POST abc"))
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.origin.port)
        writer.write(b"nonsense\r\n\r\n")
        rest = await reader.read()
        writer.close()
        return got, rest

    shop.origin.page("/mug", lambda request: f"{request.method} {request.body.decode()}")
    got, rest = asyncio.run(talk())
    assert all(b"200 OK" in each for each in got)
    assert rest == b""
    assert shop.naive.get("/mug").text == "GET "


# What is shown ----------------------------------------------------------------------------------


def test_an_answer_and_a_burst_are_one_line_that_is_the_same_on_every_run(shop: edge.Edge) -> None:
    headers = {"Cache-Control": "max-age=60", "ETag": '"v1"'}
    shop.origin.page("/mug", {"name": "<b>Mug</b>"}, headers=headers)
    assert repr(shop.guarded.get("/mug")) == (
        "200 MISS | from the origin: the edge had no copy | Cache-Control: max-age=60"
        ' | ETag: "v1" | {"name": "<b>Mug</b>"}'
    )
    assert repr(shop.guarded.get("/mug", headers={"If-None-Match": '"v1"'})) == (
        '304 HIT | from the edge\'s store | Cache-Control: max-age=60 | ETag: "v1" | no body'
    )
    shop.forget()
    assert repr(shop.naive.burst("/mug", 5)) == "5 readers | 5 × 200 | 5 MISS | 5 origin calls"
    assert re.fullmatch(
        r"edge: nginx \d+\.\d+ \| sites: naive, guarded \| origin: 127\.0\.0\.1", repr(shop)
    )
    assert repr(shop.guarded) == "site: guarded"
    assert re.fullmatch(r"origin: 127\.0\.0\.1 \| \d+ pages \| 6 calls", repr(shop.origin))


def test_the_panel_shows_status_cache_age_and_headers_and_escapes_what_it_shows(
    shop: edge.Edge,
) -> None:
    shop.origin.page("/mug", "<script>", headers={"Cache-Control": "max-age=60", "Vary": "Cookie"})
    shop.guarded.get("/mug")
    panel = shop.guarded.get("/mug")._repr_mimebundle_()
    rows = dict(re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", panel["text/html"]))
    assert re.fullmatch(r"\d+ s", rows.pop("Age"))
    assert rows == {
        "Status": "200",
        "X-Cache": "HIT",
        "Answered by": "the edge&#x27;s store",
        "Cache-Control": "max-age=60",
        "ETag": "-",
        "Vary": "Cookie",
        "Set-Cookie": "-",
        "Body": "&lt;script&gt;",
    }
    assert "20:" not in panel["text/plain"]


def test_the_version_and_an_age_do_not_make_a_notebook_differ(shop: edge.Edge) -> None:
    def compared(text: str) -> str:
        for regex, new in get_sanitize_patterns(SANITIZE.read_text(encoding="utf-8")):
            text = re.sub(regex, new, text)
        return text

    assert compared(repr(shop)) == (
        "edge: nginx VERSION | sites: naive, guarded | origin: 127.0.0.1"
    )
    old, older = (
        Answer(200, Headers({"X-Cache": "HIT", "Age": age, "Date": formatdate(0)}), b"", 0.0, 9.0)
        for age in ("1", "12")
    )
    assert old._repr_html_() != older._repr_html_()
    assert compared(old._repr_html_()) == compared(older._repr_html_())


def test_a_site_shows_the_rules_in_which_it_differs(shop: edge.Edge) -> None:
    assert "proxy_cache naive;" in shop.naive.rules
    assert "proxy_cache_lock" not in shop.naive.rules
    for rule in ("proxy_cache_lock on;", "proxy_no_cache $has_credentials;"):
        assert rule in shop.guarded.rules
    conf = (shop.nginx.folder / "nginx.conf").read_text()
    assert all(site.rules in conf for site in both(shop))


def test_headers_are_found_in_any_spelling() -> None:
    headers = Headers.parse("ETag: x\r\nSet-Cookie: a\r\nset-cookie: b")
    assert headers["etag"] == headers["ETAG"] == "x"
    assert headers["Set-Cookie"] == "a, b"
    assert "eTag" in headers
    assert 1 not in headers
    assert list(headers) == ["ETag", "set-cookie"]
    assert headers == {"ETag": "x", "set-cookie": "a, b"}


# What it refuses --------------------------------------------------------------------------------


def test_what_cannot_be_done_is_one_sentence(
    shop: edge.Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(*call: Any, **named: Any) -> str:
        with pytest.raises((EdgeError, ValueError, TypeError)) as caught:
            call[0](*call[1:], **named)
        return str(caught.value)

    assert "this is 0." in says(shop.naive.burst, "/mug", 0)
    assert "1 to 2,000 readers" in says(shop.naive.burst, "/mug", 5_000)
    assert "0 to 30 seconds" in says(shop.naive.burst, "/mug", 5, over=-1)
    assert "1 to 100,000 times" in says(shop.naive.repeat, "/mug", 0)
    assert "not colour" in says(shop.naive.repeat, "/mug", 5, colour="red")
    assert "begins with /" in says(shop.naive.get, "mug")
    assert "0 to 60 seconds" in says(shop.wait, 3_600)
    assert "like 127.0.0.1:8000" in says(edge.start, upstream="http://127.0.0.1:1")
    monkeypatch.setattr("resource.getrlimit", lambda _: (1_024, 1_024))
    assert says(shop.naive.burst, "/mug", 800) == (
        "800 readers need 2,500 open files, but this process may have 1,024: start it after"
        " `ulimit -n 2500`, or take fewer readers."
    )


def test_a_closed_edge_and_one_whose_nginx_died_say_so(shop: edge.Edge) -> None:
    made = edge.start(nginx=shop.nginx.binary)
    made.nginx.guard.kill(made.nginx.pid)
    with pytest.raises(EdgeError, match=r"naive site gave no answer \(ConnectionRefusedError\)"):
        made.naive.get("/mug")
    assert len(made.naive.burst("/mug", 3).errors) == 3
    folder = made.nginx.guard.folder
    made.close()
    made.close()
    assert not folder.exists()
    for use in (lambda: made.naive.get("/mug"), made.forget):
        with pytest.raises(EdgeError, match="This edge is closed"):
            use()


def test_a_reader_never_waits_for_ever(shop: edge.Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachelab.edge.readers.WALL_SECONDS", 0.2)
    shop.origin.page("/slow", "late")
    shop.origin.latency = 1.0
    with pytest.raises(EdgeError, match="gave no answer"):
        shop.naive.get("/slow")
    burst = shop.naive.burst("/slow", 3)
    assert [error.partition(":")[0] for error in burst.errors] == ["TimeoutError"] * 3
