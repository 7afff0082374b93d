"""Answers to lab 04, wrong and right, as learners write them."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import random
import time
import zlib

from answers import Wrong

# headers -------------------------------------------------------------------------------------

GOOD = {
    "product": {"Cache-Control": "public, max-age=60"},
    "article": {"Cache-Control": "public, max-age=300", "Vary": "Accept-Language"},
    "account": {"Cache-Control": "private, max-age=60"},
    "invoice": {"Cache-Control": "no-store"},
    "stylesheet": {"Cache-Control": "public, max-age=31536000, immutable"},
    "home": {"Cache-Control": "no-cache"},
    "search": {"Cache-Control": "public, max-age=0, s-maxage=600"},
    "feed": {"Cache-Control": "public, max-age=60, stale-while-revalidate=540"},
}


def _but(name, cache_control=None, **others):
    """The good table with one response changed."""
    headers = {} if cache_control is None else {"Cache-Control": cache_control}
    headers.update({key.replace("_", "-"): value for key, value in others.items()})
    table = {**GOOD, name: headers}
    return lambda response: table[response]


def the_articles_header_for_all(response):
    return {"Cache-Control": "public, max-age=3600, stale-while-revalidate=86400"}


def no_store_for_all(response):
    return {"Cache-Control": "no-store"}


def only_the_text(response):
    return GOOD[response]["Cache-Control"]


def another_choice_of_words(response):
    match response:
        case "product":
            value = "s-maxage=30, max-age=10, stale-while-revalidate=30"
        case "article":
            return {"cache-control": "Max-Age=600", "vary": "accept-language"}
        case "account":
            value = "private, no-cache"
        case "invoice":
            value = "no-store, private"
        case "stylesheet":
            value = "max-age=2592000,immutable"
        case "home":
            value = "public, max-age=0, must-revalidate"
        case "search":
            value = "s-maxage=600, max-age=0, must-revalidate"
        case "feed":
            value = "max-age=30, stale-while-revalidate=500"
    return {"Cache-Control": value}


def all_personal_pages_stored_nowhere(response):
    personal = response in ("account", "invoice")
    table = {
        **GOOD,
        "home": {"Cache-Control": "max-age=0", "ETag": '"1"'},
        "feed": {"Cache-Control": "max-age=45, stale-while-revalidate=300"},
    }
    return {"Cache-Control": "private, no-store"} if personal else table[response]


# leak ----------------------------------------------------------------------------------------

BOTH = {"Vary": "Cookie, Authorization"}
VISITOR = {"Cache-Control": "public, max-age=60"}


def _hello(personal, visitor):
    def hello(db, user_id):
        if user_id is None:
            return visitor, "Welcome to the shop"
        return personal, f"Signed in as {db.user(user_id)['email']}"

    return hello


public_for_all = _hello(VISITOR, VISITOR)
bare_max_age = _hello({"Cache-Control": "max-age=60"}, {"Cache-Control": "max-age=60"})
nobody_keeps_anything = _hello({"Cache-Control": "no-store"}, {"Cache-Control": "no-store"})
private_without_vary = _hello({"Cache-Control": "private"}, VISITOR)
varies_by_cookie_only = _hello({"Cache-Control": "private"}, {**VISITOR, "Vary": "Cookie"})
public_but_varies = _hello({**VISITOR, **BOTH}, {**VISITOR, **BOTH})
private_in_part = _hello({"Cache-Control": 'private="Set-Cookie"', **BOTH}, {**VISITOR, **BOTH})
asks_but_may_be_kept = _hello({"Cache-Control": "no-cache", **BOTH}, {**VISITOR, **BOTH})
says_nothing = _hello(BOTH, {**VISITOR, **BOTH})
kept_for_seconds = _hello({"Cache-Control": "private"}, {"Cache-Control": "max-age=5", **BOTH})
varies_by_everything = _hello({"Cache-Control": "private"}, {**VISITOR, "Vary": "*"})


def shows_the_name_only(db, user_id):
    if user_id is None:
        return {**VISITOR, **BOTH}, "Welcome to the shop"
    return {"Cache-Control": "private"}, f"Hello, {db.user(user_id)['name']}"


def greets_the_visitor_as_alice(db, user_id):
    email = db.user(user_id or 1)["email"]
    return {"Cache-Control": "private"}, f"Signed in as {email}"


no_store_for_users = _hello({"Cache-Control": "no-store"}, {**VISITOR, **BOTH})
varies_on_both_pages = _hello(
    {"Cache-Control": "private, max-age=30", "Vary": "Authorization, Cookie"},
    {"Cache-Control": "s-maxage=300, max-age=0", "Vary": "authorization,cookie"},
)


def as_json(db, user_id):
    headers = {"Content-Type": "application/json", "Vary": "Accept-Language, Cookie, Authorization"}
    if user_id is None:
        return {**headers, "Cache-Control": "max-age=3600"}, json.dumps({"email": None})
    user = db.user(user_id)
    return {**headers, "Cache-Control": "private,no-store"}, json.dumps({"email": user["email"]})


# revalidate ----------------------------------------------------------------------------------

FRESH = {"Cache-Control": "public, max-age=1"}


def _digest(text):
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'


def _page(
    db,
    product_id,
    if_none_match,
    *,
    tag=_digest,
    knows=None,
    fresh=FRESH,
    bare=None,
    rest="",
):
    """The right answer, with parts that can be put wrong."""
    body = json.dumps(db.product(product_id))
    etag = tag(body)
    headers = {**fresh, "ETag": etag}
    known = [one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")]
    if (knows or (lambda: etag in known))():
        return 304, headers if bare is None else bare, rest
    return 200, headers, body


def never_304(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, knows=lambda: False)


def any_etag_will_do(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, knows=lambda: bool(if_none_match))


def compares_the_whole_header(db, product_id, if_none_match):
    body = json.dumps(db.product(product_id))
    headers = {**FRESH, "ETag": _digest(body)}
    return (304, headers, "") if if_none_match == headers["ETag"] else (200, headers, body)


def knows_no_weak_ones(db, product_id, if_none_match):
    body = json.dumps(db.product(product_id))
    headers = {**FRESH, "ETag": _digest(body)}
    known = [one.strip() for one in (if_none_match or "").split(",")]
    return (304, headers, "") if headers["ETag"] in known else (200, headers, body)


def looks_for_a_part(db, product_id, if_none_match):
    body = json.dumps(db.product(product_id))
    headers = {**FRESH, "ETag": _digest(body)}
    part = (if_none_match or "").split(",")[-1].strip(' "').removeprefix('W/"')
    if part and part in headers["ETag"]:
        return 304, headers, ""
    return 200, headers, body


def sends_the_body_with_a_304(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, rest=json.dumps(db.product(product_id)))


def bare_304(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, bare={})


def not_quoted(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, tag=lambda body: _digest(body).strip('"'))


def from_the_id(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, tag=lambda body: f'"product-{product_id}"')


def from_the_price(db, product_id, if_none_match):
    price = db.product(product_id)["price_cents"]
    return _page(db, product_id, if_none_match, tag=lambda body: f'"{price}"')


def from_the_clock(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, tag=lambda body: f'"{time.perf_counter_ns()}"')


def from_pythons_hash(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, tag=lambda body: f'"{hash(body)}"')


def kept_for_an_hour(db, product_id, if_none_match):
    return _page(db, product_id, if_none_match, fresh={"Cache-Control": "public, max-age=3600"})


def always_the_first(db, product_id, if_none_match):
    return _page(db, 1, if_none_match)


def from_the_version(db, product_id, if_none_match):
    row = db.product(product_id)
    headers = {"etag": f'"{row["version"]}"', "cache-control": "max-age=1"}
    for known in (if_none_match or "").split(","):
        if known.strip() in (headers["etag"], "W/" + headers["etag"]):
            return 304, headers, ""
    return 200, headers, json.dumps(row)


def weak_from_a_checksum(db, product_id, if_none_match):
    text = json.dumps(db.product(product_id), sort_keys=True, indent=1)
    etag = f'W/"{zlib.crc32(text.encode()):x}"'
    given = [one.strip() for one in if_none_match.split(",")] if if_none_match else []
    same = any(one.split("W/")[-1] == etag[2:] for one in given)
    headers = {"Cache-Control": "max-age=1, public", "ETag": etag}
    return (304 if same else 200), headers, "" if same else text


# release -------------------------------------------------------------------------------------

YEAR = {"Cache-Control": "public, max-age=31536000, immutable"}
ASK = {"Cache-Control": "no-cache"}


def _release(css, mark, *, html=ASK, sheet=YEAR):
    path = f"/app.{mark}.css"
    return {"/": (html, f'<link rel="stylesheet" href="{path}">'), path: (sheet, css)}


def _sha(css):
    return hashlib.sha256(css.encode()).hexdigest()[:12]


def one_name_for_all(css):
    return {"/": (ASK, '<link href="/app.css">'), "/app.css": (YEAR, css)}


_count = itertools.cycle((1, 2))  # so that the sentence is the same each time


def counts_releases(css):
    return _release(css, f"v{next(_count)}")


def by_length(css):
    return _release(css, len(css))


def by_the_beginning(css):
    return _release(css, hashlib.sha256(css[:100].encode()).hexdigest()[:12])


def two_digits(css):
    return _release(css, _sha(css)[:2])


def by_pythons_hash(css):
    return _release(css, abs(hash(css)))


def at_random(css):
    return _release(css, random.random())


def page_for_a_year(css):
    return _release(css, _sha(css), html=YEAR)


def page_with_a_long_window(css):
    html = {"Cache-Control": "max-age=60, stale-while-revalidate=86400"}
    return _release(css, _sha(css), html=html)


def sheet_for_an_hour(css):
    return _release(css, _sha(css), sheet={"Cache-Control": "public, max-age=3600, immutable"})


def sheet_asked_for_on_reload(css):
    return _release(css, _sha(css), sheet={"Cache-Control": "public, max-age=31536000"})


def page_names_another(css):
    path = f"/app.{_sha(css)}.css"
    return {"/": (ASK, '<link href="/app.css">'), path: (YEAR, css)}


def private_sheet(css):
    return _release(css, _sha(css), sheet={"Cache-Control": "private, max-age=31536000, immutable"})


def body_in_capitals(css):
    return {**_release(css, _sha(css)), f"/app.{_sha(css)}.css": (YEAR, css.upper())}


def version_in_the_query(css):
    path = f"/static/app.css?v={hashlib.md5(css.encode()).hexdigest()}"
    html = {"cache-control": "public, max-age=30, stale-while-revalidate=30"}
    return {"/": (html, f"<style>@import '{path}'</style>"), path: (YEAR, css)}


def version_in_the_folder(css):
    path = f"/{zlib.crc32(css.encode()):08x}/app.css"
    sheet = {"Cache-Control": "immutable, max-age=2592000"}
    return {path: (sheet, css), "/": ({"Cache-Control": "max-age=0"}, f"<a href={path}>style</a>")}


class Release:
    """An object that can be called is a function too."""

    def __call__(self, css):
        return _release(css, _sha(css), html={"Cache-Control": "no-store"})


def tells_the_visitor_the_time(db, user_id):
    varies = {"Vary": "Cookie, Authorization"}
    if user_id is None:
        return {"Cache-Control": "max-age=60", **varies}, f"Hello, it is {time.time()}"
    return {"Cache-Control": "private", **varies}, db.user(user_id)["email"]


def looks_for_its_number(db, product_id, if_none_match):
    product = db.product(product_id)
    headers = {"Cache-Control": "max-age=1", "ETag": f'"{product["version"]}"'}
    if if_none_match and f'"{product["version"]}' in if_none_match:
        return 304, headers, ""
    return 200, headers, json.dumps(product)


WRONG = {
    "04_cdn_edge.headers": [
        Wrong("the article's header for all", the_articles_header_for_all, "90,000 s old"),
        Wrong("no-store for all", no_store_for_all, "`product` with `no-store`: the edge keeps"),
        Wrong("only the text", only_the_text, "(a str); expected was a dict"),
        Wrong("Expires alone", _but("product", Expires="0"), "`product` has no Cache-Control"),
        Wrong("a colon for =", _but("product", "max-age: 60"), "`product` with `max-age: 60`"),
        Wrong("no number", _but("product", "max-age=1m"), "needs a whole number of seconds"),
        Wrong("both at once", _but("account", "public, private"), "both allows and forbids"),
        Wrong("no Vary", _but("article", "max-age=300"), "Accept-Language, so the first"),
        Wrong(
            "Vary: Cookie too",
            _but("article", "max-age=300", Vary="Accept-Language, Cookie"),
            "it also varies by cookie",
        ),
        Wrong("a minute of article", _but("article", "max-age=60", Vary="Accept-Language"), "60 s"),
        Wrong("account: no-cache", _but("account", "no-cache"), "keep one user's address"),
        Wrong("account: public", _but("account", "public, max-age=60"), "`public, max-age=60`: a"),
        Wrong("invoice: private", _but("invoice", "private"), "the bank data to its disk"),
        Wrong(
            "not immutable", _but("stylesheet", "public, max-age=31536000"), "on a reload a browser"
        ),
        Wrong(
            "a day of style", _but("stylesheet", "max-age=86400, immutable"), "for 86,400 s only"
        ),
        Wrong("home: a minute", _but("home", "max-age=60"), "serve it for 60 s without asking"),
        Wrong("home: must-revalidate", _but("home", "must-revalidate"), "`home` with `must-reval"),
        Wrong(
            "search: only the edge", _but("search", "s-maxage=600"), "`s-maxage=600`: without `max"
        ),
        Wrong(
            "feed: s-maxage",
            _but("feed", "max-age=60, s-maxage=60, stale-while-revalidate=540"),
            "beside `s-maxage` the standard forbids",
        ),
        Wrong("home: no-store", _but("home", "no-store"), "no 304 can ever save it"),
        Wrong("search: max-age", _but("search", "max-age=600"), "no purge reaches a browser"),
        Wrong("search: no-cache", _but("search", "no-cache, s-maxage=600"), "expected was 600 s"),
        Wrong("feed: no window", _but("feed", "max-age=60"), "somebody waits for the slow query"),
        Wrong(
            "feed: window of 600 s",
            _but("feed", "max-age=60, stale-while-revalidate=600"),
            "one 660 s old",
        ),
        Wrong(
            "feed: must-revalidate",
            _but("feed", "max-age=60, stale-while-revalidate=540, must-revalidate"),
            "must-revalidate`: when it is no longer fresh",
        ),
        Wrong(
            "a cookie for all",
            _but("feed", GOOD["feed"]["Cache-Control"], Set_Cookie="a=1"),
            "edge 4 reached",
        ),
    ],
    "04_cdn_edge.leak": [
        Wrong("public for all", public_for_all, "bruno (a session cookie) was shown alice's"),
        Wrong("bare max-age", bare_max_age, "alice's page (`max-age=60`)"),
        Wrong("nobody keeps anything", nobody_keeps_anything, "asked the origin 3 times"),
        Wrong("private without Vary", private_without_vary, "alice (a session cookie) was given"),
        Wrong("Vary: Cookie only", varies_by_cookie_only, "alice (an Authorization header) was"),
        Wrong("public, but varies", public_but_varies, "this edge keeps that, one copy"),
        Wrong("private in part", private_in_part, '`private="Set-Cookie"`: this edge'),
        Wrong("no-cache", asks_but_may_be_kept, "`no-cache`: this edge happens not to keep"),
        Wrong("says nothing", says_nothing, "The page of alice has no Cache-Control"),
        Wrong("Vary: *", varies_by_everything, "Vary: *) is the same"),
        Wrong("kept for seconds", kept_for_seconds, "the visitor's page for 5 s"),
        Wrong("tells the time", tells_the_visitor_the_time, "expected was the same page for all"),
        Wrong("name only", shows_the_name_only, "it should show"),
        Wrong("greets all as Alice", greets_the_visitor_as_alice, "it has an address"),
    ],
    "04_cdn_edge.revalidate": [
        Wrong("never 304", never_304, "was answered 200 though the row has not changed"),
        Wrong("any ETag", any_etag_will_do, 'If-None-Match: "something-else" was answered 304'),
        Wrong("the whole header", compares_the_whole_header, 'If-None-Match: "something-else", "'),
        Wrong("no weak ones", knows_no_weak_ones, 'If-None-Match: W/"'),
        Wrong("a part of it", looks_for_a_part, "only the ETag's beginning was answered 304"),
        Wrong(
            "a number in the header", looks_for_its_number, "only begins like it was answered 304"
        ),
        Wrong("a body with the 304", sends_the_body_with_a_304, "a 304 has none"),
        Wrong("a bare 304", bare_304, "has no Cache-Control"),
        Wrong("no quotes", not_quoted, "expected was some text in double quotes"),
        Wrong("from the id", from_the_id, "After a change of price_cents, the request was"),
        Wrong("from the price", from_the_price, "After a change of name the ETag is still"),
        Wrong("from the clock", from_the_clock, "The same row had the ETags"),
        Wrong("Python's hash", from_pythons_hash, "Two processes give the same row two ETags"),
        Wrong("an hour", kept_for_an_hour, "expected was `max-age=1`"),
        Wrong("always product 1", always_the_first, "The request for product 2 gave"),
    ],
    "04_cdn_edge.release": [
        Wrong("one name for all", one_name_for_all, "have the same URL /app.css"),
        Wrong("counts", counts_releases, "two pods would not agree"),
        Wrong("by length", by_length, "have the same URL /app."),
        Wrong("by the beginning", by_the_beginning, "have the same URL /app.9a"),
        Wrong("two digits", two_digits, "have the same URL"),
        Wrong("Python's hash", by_pythons_hash, "Two processes give the same stylesheet"),
        Wrong("a year of page", page_for_a_year, "for 31,536,000 s readers may be given"),
        Wrong("a long window", page_with_a_long_window, "for 86,460 s readers may be given"),
        Wrong("an hour of style", sheet_for_an_hour, "somebody asks for it again after 3,600 s"),
        Wrong("not immutable", sheet_asked_for_on_reload, "on a reload a browser asks"),
        Wrong("private", private_sheet, "somebody asks for it again after 0 s"),
        Wrong("names another", page_names_another, "which does not name"),
        Wrong("another body", body_in_capitals, "COLOR"),
    ],
}

RIGHT = {
    "04_cdn_edge.headers": [another_choice_of_words, all_personal_pages_stored_nowhere],
    "04_cdn_edge.leak": [no_store_for_users, varies_on_both_pages, as_json],
    "04_cdn_edge.revalidate": [from_the_version, weak_from_a_checksum, functools.partial(_page)],
    "04_cdn_edge.release": [version_in_the_query, version_in_the_folder, Release()],
}
