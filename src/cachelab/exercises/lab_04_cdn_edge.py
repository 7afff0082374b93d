"""Checks and hints of lab 04: what the origin tells the edge, judged behind a real one."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from cachelab import edge
from cachelab.judge.trial import Trial, new_hash_seed
from cachelab.judge.world import TrialWorld
from cachelab.record.trace import Trace
from cachelab.record.verdict import short

DAY = 86_400
USERS = {"alice": 1, "bruno": 2}
FROM_STORE = ("HIT", "STALE", "UPDATING", "REVALIDATED")
ASKED_WITHIN = 4.0  # seconds, for one request through the edge

# What a response says ------------------------------------------------------------------------


class Policy:
    """What caches may do with a response that carries these headers.

    RFC 9111 for the directives, RFC 5861 for the two stale windows.
    """

    def __init__(self, headers: dict[str, str]) -> None:
        named = {name.lower(): value for name, value in headers.items()}
        self.given = "cache-control" in named
        self.text = named.get("cache-control", "")
        self.says: dict[str, str] = {}
        for directive in self.text.split(","):
            name, _, value = (part.strip().lower() for part in directive.partition("="))
            if not (
                value and name in ("private", "no-cache")
            ):  # private="Set-Cookie" spares a field
                self.says[name] = value.strip('"')
        self.vary = {one.strip().lower() for one in named.get("vary", "").split(",")} - {""}

    def __contains__(self, directive: str) -> bool:
        return directive in self.says

    def seconds(self, directive: str) -> int | None:
        """The directive's value in seconds; None if it is not there or not a whole number."""
        value = self.says.get(directive, "")
        return int(value) if value.isascii() and value.isdigit() else None

    @property
    def browser(self) -> int:
        """For how many seconds a browser may use it without asking."""
        if "no-store" in self or "no-cache" in self:
            return 0
        return self.seconds("max-age") or 0

    @property
    def shared(self) -> int:
        """For how many seconds an edge may use it without asking."""
        if "private" in self or "no-store" in self or "no-cache" in self:
            return 0
        own = self.seconds("s-maxage")
        return own if own is not None else self.browser

    @property
    def window(self) -> int:
        """For how many seconds more an old copy may be served."""
        if {"no-store", "no-cache", "must-revalidate"} & self.says.keys():
            return 0
        windows = ("stale-while-revalidate", "stale-if-error")
        return max(self.seconds(name) or 0 for name in windows)

    @property
    def guessed(self) -> bool:
        """Whether a browser may guess for how long it is fresh (RFC 9111, section 4.2.2)."""
        return self.seconds("max-age") is None and not {"no-store", "no-cache"} & self.says.keys()

    @property
    def oldest(self) -> int:
        """The age in seconds of the oldest copy that anybody may be served."""
        return max(self.browser, self.shared) + self.window


def _headers(trial: Trial, got: Any, what: str) -> Policy:
    """The policy of what the answer gave for headers; ends the judging if they are none."""
    trial.expect(
        isinstance(got, dict),
        f"The headers of {what} are {short(got)} (a {type(got).__name__}); expected was a dict.",
    )
    for name, value in got.items():
        fine = all(isinstance(one, str) and one.isascii() for one in (name, value))
        trial.expect(
            fine and re.fullmatch(r"[\w-]+", name) and value.isprintable(),
            f"{what} has the header {short(name)}: {short(value)}, which cannot be sent; both must"
            " be a str, on one line.",
        )
    policy = Policy(got)
    trial.expect(
        policy.given,
        f"{what} has no Cache-Control, so each cache on the way decides for itself.",
    )
    for name in ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"):
        trial.expect(
            name not in policy or policy.seconds(name) is not None,
            f"{what} says `{policy.text}`; {name} needs a whole number of seconds after `=`.",
        )
    clash = "public" in policy and ("private" in policy or "no-store" in policy)
    trial.expect(
        not clash, f"{what} says `{policy.text}`: that both allows and forbids shared caches."
    )
    return policy


# A real edge ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _an_edge(trial: Trial) -> Iterator[Any]:
    """A real edge of this judging's own; without an nginx nothing is proved."""
    try:
        shop = edge.start()
    except edge.EdgeError as missing:
        trial.nothing_proved(f"{str(missing).rstrip('.')}.")
    with shop:
        yield shop


def _record(trace: Trace, reader: str, path: str, answer: Any) -> None:
    """Put into the trace what the edge did for a reader, so that a verdict can show it."""
    kind = "hit" if answer.cache in FROM_STORE else "miss"
    status = "" if answer.cache in ("HIT", "MISS") else f"{answer.cache or 'not cached'}: "
    trace.add(kind, "GET", path, f"{status}{short(answer.text)}", actor=reader)


class Stagehand:
    """Has the answer called by the judge's own thread, under its limits, when the origin asks."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._asked = queue.SimpleQueue()

    def page(self, act: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A page for the origin: `act(request)`, called by whoever waits in `get`."""

        def respond(request: Any) -> Any:
            reply: Future[Any] = Future()
            self._asked.put((lambda: act(request), reply))
            return reply.result(timeout=ASKED_WITHIN)

        return respond

    def get(self, site: Any, path: str, **options: Any) -> Any:
        """What `site.get(path, **options)` gives, while this thread answers for the origin."""
        answer: Future[Any] = Future()

        def ask() -> None:
            try:
                answer.set_result(site.get(path, **options))
            except BaseException as error:
                answer.set_exception(error)
            self._asked.put(None)

        threading.Thread(target=ask, name="reader", daemon=True).start()
        while (asked := self._asked.get(timeout=ASKED_WITHIN)) is not None:
            act, reply = asked
            try:
                reply.set_result(act())
            except BaseException:
                reply.set_exception(RuntimeError("the judging is over"))
                raise
        return answer.result()


# headers -------------------------------------------------------------------------------------

EIGHT = ("product", "article", "account", "invoice", "stylesheet", "home", "search", "feed")


def judge_headers(answer: Any, trial: Trial) -> None:
    """Each response is kept by whom it may, for as long as it may; and the real edge does so."""
    given = {name: trial.call(answer, name) for name in EIGHT}
    for name in EIGHT:
        policy = _headers(trial, given[name], f"`{name}`")
        for wrong, reason in RULES[name](policy):
            trial.expect(not wrong, f"`{name}` with `{policy.text}`: {reason}")
    with _an_edge(trial) as shop:
        for name in EIGHT:
            path = f"/{name}"
            shop.origin.page(path, _speak, headers=given[name])
            _send_readers(trial, shop, name, path)


Complaints = list[tuple[Any, str]]
GUESS = "without `max-age` or `no-cache` a browser may guess for how long it is fresh, and not ask."


def _product(policy: Policy) -> Complaints:
    kept, oldest = policy.shared, policy.oldest
    return [
        (kept == 0, "the edge keeps nothing, and every reader reaches the origin."),
        (oldest > 60, f"a reader may be served one {oldest:,} s old; expected was at most 60 s."),
        (policy.guessed, GUESS),
    ]


def _article(policy: Policy) -> Complaints:
    spoken = sorted(policy.vary - {"accept-language", "accept-encoding"})
    return [
        (
            "accept-language" not in policy.vary,
            "nothing says that it depends on Accept-Language, so the first reader's language is"
            " served to all.",
        ),
        (spoken, f"it also varies by {', '.join(spoken)}, on which the text does not depend."),
        (
            policy.shared < 300,
            f"the edge keeps it for {policy.shared} s; expected were 300 or more.",
        ),
    ]


def _account(policy: Policy) -> Complaints:
    return [
        (
            "private" not in policy and "no-store" not in policy,
            "a shared cache may keep one user's address; only `private` and `no-store` forbid it.",
        ),
    ]


def _invoice(policy: Policy) -> Complaints:
    return [
        (
            "no-store" not in policy,
            "the browser may still write the bank data to its disk; only `no-store` forbids that.",
        ),
    ]


def _stylesheet(policy: Policy) -> Complaints:
    kept = min(policy.shared, policy.browser)
    return [
        (
            kept < 30 * DAY,
            f"some cache keeps it for {kept:,} s only; expected were 30 days ({30 * DAY:,} s) or"
            " more.",
        ),
        (
            "immutable" not in policy,
            "on a reload a browser asks again, though this content can never change under this"
            " name.",
        ),
    ]


def _home(policy: Policy) -> Complaints:
    return [
        ("no-store" in policy, "it may be kept, and with `no-store` no 304 can ever save it."),
        (
            policy.oldest > 0,
            f"a cache may serve it for {policy.oldest:,} s without asking; expected was to ask each"
            " time.",
        ),
        (policy.guessed, GUESS),
    ]


def _search(policy: Policy) -> Complaints:
    return [
        (
            policy.browser > 0,
            f"a browser keeps it for {policy.browser} s, and no purge reaches a browser.",
        ),
        (
            policy.shared != 600,
            f"the edge serves it for {policy.shared} s without asking; expected was 600 s.",
        ),
        (
            policy.window > 0,
            f"an old one may be served for {policy.window} s more; expected were 600 s in all.",
        ),
        (policy.guessed, GUESS),
    ]


def _feed(policy: Policy) -> Complaints:
    return [
        (
            not 30 <= policy.shared <= 60,
            f"it is fresh for {policy.shared:,} s at the edge; expected were 30 to 60 s.",
        ),
        (
            not policy.seconds("stale-while-revalidate")
            or policy.window == 0
            or "proxy-revalidate" in policy,
            "when it is no longer fresh, somebody waits for the slow query.",
        ),
        (
            "s-maxage" in policy,
            "beside `s-maxage` the standard forbids an old copy, as beside `must-revalidate`: at an"
            " edge that obeys somebody waits for the slow query.",
        ),
        (policy.guessed, GUESS),
        (
            policy.oldest > 600,
            f"a reader may be served one {policy.oldest:,} s old, fresh time and stale window added"
            " up; expected were at most 600 s.",
        ),
        (
            policy.oldest < 300,
            f"after {policy.oldest} s without a reader the next one waits; a reader may well be"
            " served one 300 s old.",
        ),
    ]


RULES: dict[str, Callable[[Policy], Complaints]] = {
    "product": _product,
    "article": _article,
    "account": _account,
    "invoice": _invoice,
    "stylesheet": _stylesheet,
    "home": _home,
    "search": _search,
    "feed": _feed,
}

# Of four readers in a row, how many reach the origin.
REACH = {
    "product": 1,
    "article": 2,
    "account": 4,
    "invoice": 4,
    "stylesheet": 1,
    "home": 4,
    "search": 1,
    "feed": 1,
}
READERS = ("alice de", "bruno en", "bruno de", "alice en")


def _speak(request: Any) -> str:
    """A page that says in which language, and for whom, it was made."""
    language = request.headers.get("Accept-Language", "none")
    return f"made for {request.user or 'nobody'} in {language}"


def _send_readers(trial: Trial, shop: Any, name: str, path: str) -> None:
    """Four readers at the edge; personal pages also at the naive one, which knows no cookies."""
    personal = name in ("account", "invoice")
    for site in (shop.naive, shop.guarded) if personal else (shop.guarded,):
        trace, before = Trace(clock=float), shop.origin.calls_to(path)
        for reader in READERS:
            user, language = reader.split()
            options = {"user": user} if personal else {}
            got = site.get(path, headers={"Accept-Language": language}, **options)
            _record(trace, reader, path, got)
            whose = user if personal else "nobody"
            trial.expect(
                f"for {whose} in" in got.text,
                f"`{name}`: at the {site.name} edge {user} was given the page {short(got.text)}.",
                trace=trace,
            )
            trial.expect(
                name != "article" or got.text.endswith(language),
                f"`{name}`: a reader who asked for {language} was given {short(got.text)}.",
                trace=trace,
            )
        asked = shop.origin.calls_to(path) - before
        trial.expect(
            asked == REACH[name],
            f"`{name}`: of four readers at the {site.name} edge {asked} reached the origin;"
            f" expected were {REACH[name]}.",
            trace=trace,
        )


# leak ----------------------------------------------------------------------------------------

WAYS = {"user": "a session cookie", "bearer": "an Authorization header"}


def judge_leak(answer: Any, trial: Trial) -> None:
    """Nobody is shown another's address, behind either edge; the visitor's page is kept."""
    world = trial.world()
    greetings = {name: world.truth.user(number)["email"] for name, number in USERS.items()}  # type: ignore[index]
    policies = {}
    for name, number in [*USERS.items(), ("a visitor", None)]:
        headers, body = _pair(trial, trial.call(answer, world.db, number), f"The page of {name}")
        policies[name] = _headers(trial, headers, f"The page of {name}")
        if number is None:
            trial.expect(
                "@" not in body, f"The visitor's page is {short(body)}: it has an address."
            )
            _, again = _pair(trial, trial.call(answer, world.db, None), "The page of a visitor")
            trial.expect(
                again == body,
                f"Two visitors were given {short(body)} and {short(again)}; expected was the same"
                " page for all.",
            )
        else:
            address = greetings[name]
            trial.expect(
                address in body, f"The page of {name} is {short(body)}; it should show {address!r}."
            )
    with _an_edge(trial) as shop:
        for site in (shop.naive, shop.guarded):
            for way in WAYS:
                _visit(trial, world, answer, shop, site, way, greetings, policies)
    kept = policies["a visitor"].shared
    trial.expect(kept >= 60, f"An edge keeps the visitor's page for {kept} s; expected were 60 s.")
    policy = policies["alice"]
    does = "keeps that, one copy for each session" if policy.shared else "happens not to keep that"
    trial.expect(
        "private" in policy or "no-store" in policy,
        f"A user's page says `{policy.text}`: this edge {does}, and a shared cache may; only"
        " `private` and `no-store` forbid it.",
    )


def _pair(trial: Trial, got: Any, what: str) -> tuple[Any, str]:
    """`(headers, body)`; ends the judging if the answer gave something else."""
    fine = isinstance(got, tuple) and len(got) == 2 and isinstance(got[1], str)
    trial.expect(fine, f"{what} is {short(got)}; expected was (headers, body), the body a str.")
    return got[0], got[1]


def _visit(
    trial: Trial,
    world: TrialWorld,
    answer: Any,
    shop: Any,
    site: Any,
    way: str,
    greetings: dict[str, str],
    policies: dict[str, Policy],
) -> None:
    """Visitors and two users come along, in an order in which each finds the other's copies."""
    hand = Stagehand()

    def act(request: Any) -> Any:
        whose = f"The page of {request.user or 'a visitor'}"
        with world.trace.acting("origin"):
            got = trial.call(answer, world.db, USERS.get(request.user))
        headers, body = _pair(trial, got, whose)
        _headers(trial, headers, whose)
        return edge.Reply(body, headers=headers)

    world.trace.clear()
    path = f"/hello-{site.name}-{way}"  # a path of its own: nothing is left of the one before
    shop.origin.page(path, hand.page(act))

    def read(name: str | None) -> str:
        options = {way: name} if name else {}
        got = hand.get(site, path, **options)
        _record(world.trace, name or "visitor", path, got)
        text: str = got.text
        return text

    where = f"Behind the {site.name} edge"
    for name in ("alice", "bruno", None):
        page = read(name)
        for other, address in greetings.items():
            trial.expect(
                other == name or address not in page,
                f"{where} {name or 'a visitor'} ({WAYS[way] if name else 'no session'}) was shown"
                f" {other}'s page (`{policies[other].text}`): {short(page)}.",
            )
    before = shop.origin.calls_to(path)
    for _ in range(3):
        read(None)
    asked, policy = shop.origin.calls_to(path) - before, policies["a visitor"]
    says = f"`{policy.text}`" + (f", Vary: {', '.join(sorted(policy.vary))}" if policy.vary else "")
    trial.expect(
        asked == 0,
        f"{where} three more visitors asked the origin {asked} times; their page ({says}) is the"
        " same for all, and the edge should keep it.",
    )
    for name in ("alice", "bruno"):
        page = read(name)
        trial.expect(
            greetings[name] in page,
            f"{where} {name} ({WAYS[way]}) was given the page of the visitor before, {short(page)}:"
            " the edge was not told on which headers it depends.",
        )


# revalidate ----------------------------------------------------------------------------------


def judge_revalidate(answer: Any, trial: Trial) -> None:
    """A 304 while the row is the same, a 200 with another ETag when it is not, also at the edge."""
    world = trial.world()
    etag = _full(trial, world, answer, 1, None, "The first request")
    _full(trial, world, answer, 2, None, "The request for product 2")
    again = _full(trial, world, answer, 1, None, "The first request, made again,")
    trial.expect(again == etag, f"The same row had the ETags {etag} and {again}; expected was one.")
    with new_hash_seed(answer):
        elsewhere = _full(trial, world, answer, 1, None, "The same request to another pod")
    trial.expect(
        elsewhere == etag,
        "Two processes give the same row two ETags (`hash()` of a text differs from process to"
        " process), so a reader who comes to another pod is never answered 304.",
    )

    mine, foreign = etag.removeprefix("W/"), '"something-else"'
    _not_modified(trial, world, answer, mine, etag)
    _full(trial, world, answer, 1, foreign, f"A request with If-None-Match: {foreign}")
    _full(trial, world, answer, 1, mine[:-2] + '"', "A request with only the ETag's beginning")
    longer = mine[:-1] + '7"'
    _full(trial, world, answer, 1, longer, "A request with an ETag that only begins like it")
    _not_modified(trial, world, answer, f"{foreign}, {mine}", etag)
    _not_modified(trial, world, answer, f"W/{mine}", etag)

    seen = {etag}
    for change in ({"price_cents": 4_321}, {"name": "Teapot, blue"}, {"stock": 3}):
        world.trace.clear()
        world.someone_else.update_product(1, **change)
        said = " and ".join(change)
        newer = _full(trial, world, answer, 1, mine, f"After a change of {said}, the request")
        trial.expect(
            newer not in seen,
            f"After a change of {said} the ETag is still {newer}: readers would keep the old page.",
        )
        seen.add(newer)

    with _an_edge(trial) as shop:
        _revalidate_at_the_edge(trial, world, answer, shop)


def _asked(trial: Trial, world: TrialWorld, answer: Any, product_id: int, known: str | None) -> Any:
    with world.trace.acting("origin"):
        got = trial.call(answer, world.db, product_id, known)
    fine = isinstance(got, tuple) and len(got) == 3 and isinstance(got[2], str)
    trial.expect(
        fine, f"product_page gave {short(got)}; expected was (status, headers, body), body a str."
    )
    asked = f"If-None-Match {known}: " if known else ""
    path = f"/product/{product_id}"
    world.trace.add("command", "GET", path, f"{asked}{short(got[0])}", actor="edge")
    return got


def _full(
    trial: Trial, world: TrialWorld, answer: Any, product_id: int, known: str | None, what: str
) -> str:
    """The ETag of an answer that has to be a 200 with the row."""
    status, headers, body = _asked(trial, world, answer, product_id, known)
    trial.expect(status == 200, f"{what} was answered {short(status)}; expected was 200.")
    truth = world.truth.product(product_id)
    try:
        read = json.loads(body)
    except ValueError:
        read = None
    trial.expect(read == truth, f"{what} gave the body {short(body)}; the row is {short(truth)}.")
    etag = _validator(trial, headers, what)
    policy = Policy(headers)
    trial.expect(
        policy.shared == policy.browser == 1 and policy.window == 0,
        f"{what} says `{policy.text}`; expected was `max-age=1`, for all caches.",
    )
    return etag


def _validator(trial: Trial, headers: Any, what: str) -> str:
    _headers(trial, headers, what)
    etag: str = {name.lower(): value for name, value in headers.items()}.get("etag", "")
    trial.expect(
        re.fullmatch(r'(W/)?"[^"\s]+"', etag),
        f"{what} has the ETag {short(etag)}; expected was some text in double quotes.",
    )
    return etag


def _not_modified(trial: Trial, world: TrialWorld, answer: Any, known: str, etag: str) -> None:
    status, headers, body = _asked(trial, world, answer, 1, known)
    asked = f"A request with If-None-Match: {known}"
    trial.expect(
        status == 304,
        f"{asked} was answered {short(status)} though the row has not changed; expected was 304.",
    )
    trial.expect(
        body == "", f"{asked} was answered 304 with the body {short(body)}; a 304 has none."
    )
    said = _validator(trial, headers, f"The 304 to {known}")
    trial.expect(said == etag, f"The 304 carries the ETag {said}; expected was {etag}.")


def _revalidate_at_the_edge(trial: Trial, world: TrialWorld, answer: Any, shop: Any) -> None:
    """Two pages grow old at the edge; one of the two rows has changed meanwhile."""
    hand, statuses = Stagehand(), []
    world.trace.clear()

    def serve(product_id: int) -> Callable[[Any], Any]:
        def act(request: Any) -> Any:
            known = request.headers.get("If-None-Match")
            status, headers, body = _asked(trial, world, answer, product_id, known)
            _headers(trial, headers, f"The answer to the edge, {short(status)},")
            trial.expect(
                status in (200, 304),
                f"The edge was answered {short(status)}; expected was 200 or 304.",
            )
            statuses.append((product_id, known is not None, status))
            return edge.Reply(body, status=status, headers=headers)

        return hand.page(act)

    for product_id in (1, 2):
        shop.origin.page(f"/product/{product_id}", serve(product_id))
        hand.get(shop.guarded, f"/product/{product_id}")
    world.someone_else.update_product(2, price_cents=1_234)
    shop.wait(1)
    for product_id in (1, 2):
        page = hand.get(shop.guarded, f"/product/{product_id}")
        _record(world.trace, "reader", f"/product/{product_id}", page)
        row = world.truth.product(product_id)
        trial.expect(
            page.status == 200 and json.loads(page.text) == row,
            f"At the edge product {product_id} was answered {page.status} {short(page.text)};"
            f" expected was {short(row)}.",
        )
    expected = [(1, False, 200), (2, False, 200), (1, True, 304), (2, True, 200)]
    trial.expect(
        statuses == expected,
        f"The edge was answered {[status for *_, status in statuses]}; expected were"
        f" {[status for *_, status in expected]}.",
    )


# release -------------------------------------------------------------------------------------

TEAL, OLIVE = "h1 { color: teal; }", "h1 { color: olive; }"
LONG = "/* " + "x" * 5_000 + " */ h1 { color: red; }"


def judge_release(answer: Any, trial: Trial) -> None:
    """One URL a content, the same wherever it is made; the page that names it stays young."""
    first = _released(trial, trial.call(answer, TEAL), TEAL)
    again = _released(trial, trial.call(answer, TEAL), TEAL)
    trial.expect(
        again[0] == first[0],
        f"The same stylesheet was released as {first[0]} and as {again[0]}: two pods would not"
        " agree, and everybody fetches it twice.",
    )
    with new_hash_seed(answer):
        elsewhere = _released(trial, trial.call(answer, TEAL), TEAL)
    trial.expect(
        elsewhere[0] == first[0],
        "Two processes give the same stylesheet two URLs: `hash()` of a text differs from process"
        " to process.",
    )
    _all_differ(trial, answer)
    _policies(trial, *first)  # before an edge is needed
    with _an_edge(trial) as shop:
        _roll_out(trial, answer, shop)


def _released(trial: Trial, got: Any, css: str) -> tuple[str, Any]:
    """The stylesheet's path, and all pages; ends the judging if the release is none."""
    trial.expect(
        isinstance(got, dict) and len(got) == 2 and "/" in got,
        f"release gave {short(got)}; expected was a dict of two pages, one of them '/'.",
    )
    (path,) = (one for one in got if one != "/")
    trial.expect(
        isinstance(path, str) and re.fullmatch(r"/[\w./-]+\.css(\?[\w.=&-]+)?", path),
        f"The stylesheet's path is {short(path)}; expected was one like '/app.css'.",
    )
    for where in ("/", path):
        _pair(trial, got[where], f"The page {where}")
    html, body = got["/"][1], got[path][1]
    trial.expect(body == css, f"Under {path} lies {short(body)}; the stylesheet is {short(css)}.")
    trial.expect(path in html, f"The page / is {short(html)}, which does not name {path}.")
    return path, got


def _all_differ(trial: Trial, answer: Any) -> None:
    sheets = [TEAL, OLIVE, LONG, LONG.replace("red", "tan")]
    sheets += [f"h1 {{ margin: {number}px {600 - number}px; }}" for number in range(300)]
    paths: dict[str, str] = {}
    released = trial.call(lambda: [answer(css) for css in sheets])
    for css, got in zip(sheets, released, strict=True):
        path, _ = _released(trial, got, css)
        trial.expect(
            path not in paths,
            f"Two different stylesheets have the same URL {path}: who holds one is never given the"
            " other.",
        )
        paths[path] = css


def _policies(trial: Trial, path: str, pages: Any) -> None:
    page = _headers(trial, pages["/"][0], "The page /")
    trial.expect(
        page.oldest <= 60,
        f"The page / says `{page.text}`: for {page.oldest:,} s readers may be given one that names"
        " the old stylesheet; expected was at most 60 s.",
    )
    sheet = _headers(trial, pages[path][0], "The stylesheet")
    kept = min(sheet.shared, sheet.browser)
    trial.expect(
        kept >= 30 * DAY,
        f"The stylesheet says `{sheet.text}`: somebody asks for it again after {kept:,} s, though"
        f" under its URL it never changes; expected were {30 * DAY:,} s or more.",
    )
    trial.expect(
        "immutable" in sheet,
        f"The stylesheet says `{sheet.text}`: on a reload a browser asks for it again; `immutable`"
        " tells it not to.",
    )


def _roll_out(trial: Trial, answer: Any, shop: Any) -> None:
    """Two releases; readers of both pages find their own stylesheet, and each is fetched once."""
    paths = {}
    for css in (TEAL, OLIVE):
        path, pages = _released(trial, trial.call(answer, css), css)
        _policies(trial, path, pages)
        for where, (headers, body) in pages.items():
            shop.origin.page(where, body, headers=headers)
        paths[css] = path
        shop.guarded.get("/")
        for sheet, its_path in paths.items():
            for _ in range(3):
                got = shop.guarded.get(its_path).text
                trial.expect(
                    got == sheet,
                    f"At the edge {its_path} is {short(got)}; its page was made for"
                    f" {short(sheet)}.",
                )
    asked = [shop.origin.calls_to(path) for path in paths.values()]
    trial.expect(
        asked == [1, 1],
        f"For two stylesheets and nine readers the origin was asked {asked} times; expected was"
        " once for each.",
    )
