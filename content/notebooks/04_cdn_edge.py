# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Let an edge answer for you, and tell it what it may keep
#
# **About 30 minutes.**
#
# **What you'll do.** Put a real nginx in front of the shop, serve ten thousand readers from one call,
# send 800 at once, and then show one user's e-mail address to another. Plug that leak, and break the
# plug.
#
# **What you'll learn.** What each word of `Cache-Control` permits; what an edge does when a copy is
# missing or old; what `Vary`, ETags and versioned URLs are for; why private data leaks without anybody
# writing `public`.
#
# **What you'll need.** `01_latency_freshness_cost`, and an nginx:
# `make` has installed one where it could.

# %%
import hashlib
from itertools import product

import cachelab
from cachelab.edge.absent import start_or_explain
from cachelab.predict import predict, recap, reveal

lab = cachelab.start()

# %% [markdown]
# ## The third place
#
# The **edge** of a CDN, a content delivery network, is a cache that speaks HTTP and stands between your
# readers and your servers, in many places of the world. It is made for what is the same for
# everybody: landing pages, articles, images. You do not call it: it reads the headers of your responses
# and obeys them. So its program is what you write into `Cache-Control`.
#
# ```mermaid
# sequenceDiagram
#     participant Reader
#     participant Edge
#     participant Origin
#     Reader->>Edge: GET /product/1
#     Edge->>Origin: GET /product/1
#     Origin-->>Edge: 200, Cache-Control: max-age=3600
#     Edge-->>Reader: 200, MISS
#     Reader->>Edge: GET /product/1
#     Edge-->>Reader: 200, HIT, Age: 10
# ```
#
# Here is one edge, on this machine: a real nginx with two sites. *Naive* is its cache switched on, as
# one pastes it from a tutorial. *Guarded* has the rules below on top, and we shall meet each of them.
# (If the next cell names something that is missing, read on: the outputs are stored here.)

# %%
shop = start_or_explain()
shop

# %%
print(shop.guarded.rules)

# %% [markdown]
# `shop.origin` is the web application behind it, and it counts. This is the header that the article
# gives to a product page:

# %%
ARTICLE = "public, max-age=3600, stale-while-revalidate=86400"
shop.origin.page("/product/1", lab.db.product(1), headers={"Cache-Control": ARTICLE})
shop.guarded.get("/product/1")

# %%
shop.wait(1)
shop.guarded.get("/product/1")

# %% [markdown]
# The first was a MISS, the second a HIT. `Age` says how many seconds ago the origin made it. (A CDN
# sends it along; nginx does not, so the panel works it out from the origin's `Date`.)
#
# ## Ten thousand readers
#
# With this header, the article promises, 10,000 users see the page and the origin is not asked once.
# We begin with an empty edge.

# %%
predict("10,000 readers, one after the other. How many reach the origin?", key="many", unit="calls")

# %%
shop.forget()  # empties the edge
many = shop.guarded.repeat("/product/1", times=10_000)
print(many.statuses, many.cache)
reveal("many", many.origin_calls)

# %% [markdown]
# One, not none: somebody has to bring the copy. And it is one **for each edge and each hour**. A CDN is
# many edges, and they share what they hold only where it has a common tier between them and you. Nor
# is one hour all that this header permits:

# %%
fresh, stale = 3_600, 86_400
print(f"calls a day, 100 edges: {100 * 86_400 // fresh:,}")
print("oldest page a reader may be served:", (fresh + stale) / 3600, "hours")

# %% [markdown] given=[25, 10000]
# Twenty-five hours: one of freshness, and then a day in which the old page may still be served while a
# new one is fetched. On a busy page only the few who come during that fetch see the old one. On a page
# that is read twice a day, everybody gets the page that was fetched for the reader before, half a day
# old. Budget the *sum*, as in `01_latency_freshness_cost`.
#
# ## 800 at once
#
# Ten thousand in a row are easy. Now 800 arrive at an empty edge before the origin has answered the
# first of them.

# %%
predict("800 at once on the naive site, the edge empty: origin calls?", key="naive", unit="calls")

# %%
shop.forget()
cold = {site.name: site.burst("/product/1", readers=800) for site in (shop.naive, shop.guarded)}
for name, burst in cold.items():
    print(f"{name}: {burst.origin_calls} origin calls, answers {burst.statuses}")
reveal("naive", cold["naive"].origin_calls)

# %% [markdown] given=[500]
# A cache switched on does not stop a stampede (`10_stampede`): until the first answer is there,
# each of the 800 is a miss. `proxy_cache_lock` lets one through and has the others wait. This is
# called **request collapsing**; inside a program the same is a single-flight (`08_read_through`).
# It has two limits. A waiter that has waited `proxy_cache_lock_timeout` goes to the origin, like
# all the others. And nginx's waiters look only every 500 ms whether the copy is there. See it, with
# an origin that takes 0.2 s and 100 readers who come within 0.05 s:

# %% tags=["nbval-ignore-output"]
shop.origin.latency = 0.2  # seconds
shop.forget()
slow = shop.guarded.burst("/product/1", readers=100, over=0.05)
print(f"the origin takes 0.2 s; the slowest of 100 readers waited {slow.slowest:.1f} s")

# %% [markdown]
# **Break the fix.** The lock is for one key, and the key is the whole URL. A newsletter puts a different
# tracking code on each link. **Predict** how many of 100 readers reach the origin.

# %%
shop.origin.latency = 0
shop.origin.reset()
for number in range(100):
    shop.guarded.get(f"/product/1?utm_id={number}")
print(shop.origin.calls, "of 100")

# %% [markdown]
# Same page, a hundred keys. Have the edge drop parameters that do not change the page.
#
# ## Stale, while one refresh runs
#
# The copy's freshness ends, and 800 readers are there. With a window of `stale-while-revalidate`
# they need not wait: they get the old copy while the edge asks once. To see it soon, the page below
# is fresh for one second. **Predict** how many are served the old price.

# %%
price = {"Cache-Control": "public, max-age=1, stale-while-revalidate=60"}
shop.origin.page("/price/1", "4.99", headers=price)
shop.guarded.get("/price/1")
shop.origin.page("/price/1", "5.99", headers=price)  # the price goes up
shop.wait(1)

# %%
shop.origin.latency = 1.0
old = shop.guarded.burst("/price/1", readers=800)
print(dict(sorted(old.cache.items())), "origin calls:", old.origin_calls)
print("did anybody wait for the origin?", old.slowest >= shop.origin.latency)
print("old prices:", sum(answer.text == "4.99" for answer in old.answers))

# %% [markdown]
# One reader set off the refresh (STALE), all others came while it ran (UPDATING), and nobody waited.
# That is the good news and the bad: all 800 answers were quick, and all 800 were wrong. Who comes
# after the refresh gets the new one:

# %%
shop.origin.latency = 0
shop.wait(2)
print(shop.guarded.get("/price/1").text)

# %% [markdown]
# **Break the fix.** "No old prices", says the shop, and the window goes out of the header. The lock is
# still there.

# %%
predict(
    "No window, the copy has just expired, 800 at once on guarded: origin calls?",
    key="expired",
    unit="calls",
)

# %%
shop.origin.page("/price/2", "4.99", headers={"Cache-Control": "public, max-age=1"})
shop.guarded.get("/price/2")
shop.wait(1)
expired = shop.guarded.burst("/price/2", readers=800)
print(expired.cache)
reveal("expired", expired.origin_calls)

# %% [markdown]
# All of them. Nginx's lock is for a key that is *not there*; a copy that is there but old is asked after
# by every reader. So on this edge a busy page needs both: the lock for the cold start, and a window,
# if only of a few seconds, for each expiry after it.

# %% [markdown]
# ## The leak
#
# Now a page that is different for each user. The origin looks at the session and answers rightly,
# always. A developer has copied the header from the product page.

# %%
EMAILS = {name: lab.db.user(number)["email"] for name, number in {"alice": 1, "bruno": 2}.items()}


def account(request):
    return f"Signed in as {EMAILS[request.user]}"


shop.origin.page("/me", account, headers={"Cache-Control": "public, max-age=60"})
for name in ("alice", "bruno"):
    answer = shop.naive.get("/me", user=name)
    print(f"{name}: {answer.cache}, {answer.text}")

# %% [markdown]
# Bruno reads Alice's address, and the origin was never asked: nothing in your logs will tell. The edge
# did what the header says, since its key is the URL, and cookies are not part of it.
#
# The article warns of `public`. So the developer deletes that word.

# %%
predict(
    "With max-age=60 alone, without public: is Bruno shown Alice's address?",
    key="leak",
    choices=["yes", "no"],
)


# %%
def leaks(site, header, way):
    shop.forget()
    shop.origin.page("/me", account, headers={"Cache-Control": header})
    site.get("/me", **{way: "alice"})
    return EMAILS["alice"] in site.get("/me", **{way: "bruno"}).text


ways = list(product((shop.naive, shop.guarded), ("user", "bearer")))
print(f"{'':19}", *(f"{site.name}, {way:8}" for site, way in ways))
for header in ("public, max-age=60", "max-age=60", "no-cache", "private, max-age=60", "no-store"):
    found = ["LEAK" if leaks(site, header, way) else "-" for site, way in ways]
    print(f"{header:19}", "  {:15}{:15}{:17}{}".format(*found))
reveal("leak", "yes" if leaks(shop.naive, "max-age=60", "user") else "no")

# %% [markdown] given=[9111]
# `user` sends a session cookie, `bearer` an `Authorization` header. A bare `max-age` leaks as well:
# whatever may be kept is kept, unless it is forbidden. For `Authorization` this nginx breaks the
# standard: RFC 9111, section 3.5, has a shared cache keep such an answer only if the response says
# `public`, `s-maxage` or `must-revalidate`. For cookies the standard has no such rule. So:
#
# 1. **At the origin:** what is personal says `private` (only the reader's browser may keep it) or
#    `no-store` (nobody may).
# 2. **At the edge:** whoever shows a session neither reads the store nor writes it. These are the two
#    last lines of *guarded*.
#
# **Break the fix.** The guard knows cookies and `Authorization`. The mobile app sends its session in a
# header of its own. **Predict** what Bruno sees.


# %%
def by_key(request):
    return f"Signed in as {EMAILS[request.headers['X-Api-Key']]}"


shop.origin.page("/app/me", by_key, headers={"Cache-Control": "max-age=60"})
for name in ("alice", "bruno"):
    print(f"{name}:", shop.guarded.get("/app/me", headers={"X-Api-Key": name}).text)

# %% [markdown]
# A guard at the edge is a second line. The first is the header, because only the origin knows what is
# personal.
#
# ## What each word permits
#
# **Predict** for each header how many of three readers in a row reach the origin.

# %%
words = ["public, max-age=60", "max-age=0, s-maxage=60", "max-age=31536000, immutable"]
words += ["no-cache", "private, max-age=60", "no-store", None]
for header in words:
    shop.forget()
    shop.origin.page("/word", "a page", headers={"Cache-Control": header} if header else {})
    shop.origin.reset()
    for _ in range(3):
        shop.guarded.get("/word")
    print(f"{header!s:28}", shop.origin.calls)

# %% [markdown]
# - `max-age` is for all caches, `s-maxage` for shared ones, and there it wins.
#   `max-age=0, s-maxage=60` keeps the copy where you can **purge** it, that is, delete it by a call, and not in
#   browsers, where you cannot.
# - `immutable` tells a browser not to ask again even on a reload. The edge does not care.
# - `no-cache` does **not** forbid keeping. It means *ask before each use*. This nginx then keeps nothing;
#   a browser keeps it and asks, see below. `no-store` is the word that forbids.
# - `must-revalidate` is about a copy that is old: it may not be served before the origin has been asked.
#   `proxy-revalidate` says the same to shared caches only.
# - With no word at all this nginx keeps nothing, but other caches may guess. Always say something.
#
# ## Does the edge keep to the standard?
#
# There is a public test suite for HTTP caches, `http-cache-tests`, and this project runs it in
# front of both sites. Here is where they differ (`tests/http_cache/naive.json`; an ETag, the
# subject of a section below, is a name for what a response holds):
#
# | what the suite asks of a shared cache | naive | guarded |
# |---|---|---|
# | required: no reuse of an answer to a request with `Authorization` | fails | passes |
# | required: an old copy with `must-revalidate` is asked after by its ETag | fails | passes |
# | required: nothing old where `must-revalidate`, `proxy-revalidate` or `s-maxage` forbid it | passes | fails |
# | optimal: serve the old copy within its stale-while-revalidate window | fails | passes |
# | optimal: reuse after `Authorization` where `public`, `s-maxage`, `must-revalidate` allow it | passes | fails |
# | optimal: reuse for requests with a cookie | passes | fails |
#
# The last two are the price of the guard: it throws hits away, also where they would be harmless. The
# third is a fault that the guard has brought in. An edge that obeys would say EXPIRED here, and ask:

# %%
words = ["must-revalidate", "proxy-revalidate", "s-maxage=1"]
for word in words:
    both = f"max-age=1, stale-while-revalidate=60, {word}"
    shop.origin.page(f"/old/{word}", "a page", headers={"Cache-Control": both})
    shop.guarded.get(f"/old/{word}")
shop.wait(1)
print({word: shop.guarded.get(f"/old/{word}").cache for word in words})

# %% [markdown] given=[9111]
# It says STALE: each of the three words forbids it (RFC 9111, section 4.2.4), but this nginx looks
# at the window alone. So do not put such a word and a window into one header. An edge is a program
# with faults of its own: send yours the requests that matter to you.
#
# ## One address, several pages: Vary
#
# The shop greets in the reader's language, from `Accept-Language`. **Predict** what the second reader
# gets.

# %%
HELLO = {"de": "Guten Tag", "en": "Good day"}


def greet(request):
    return HELLO[request.headers["Accept-Language"][:2]]


def readers(languages):
    shop.forget()
    return [shop.guarded.get("/", headers={"Accept-Language": one}).text for one in languages]


for vary in ({}, {"Vary": "Accept-Language"}):
    shop.origin.page("/", greet, headers={"Cache-Control": "max-age=60", **vary})
    print(readers(["de", "en", "de", "en"]), vary)

# %% [markdown]
# `Vary` adds a request header to the key, as the reader's browser happens to write it:

# %%
shop.origin.reset()
readers(["de", "de-DE", "de-AT", "de-DE,de;q=0.9", "de,en;q=0.5"])
print("five Germans, origin calls:", shop.origin.calls)
shop.origin.page("/", "Good day", headers={"Cache-Control": "max-age=60", "Vary": "Cookie"})
shop.origin.reset()
for number in range(100):
    shop.naive.get("/", user=f"visitor-{number}")
print("100 visitors, each with a cookie, origin calls:", shop.origin.calls)

# %% [markdown]
# `Vary: Cookie` keeps readers apart and the hit rate at zero: every session is a copy of its own.
# (That was *naive*; *guarded* keeps nothing of whoever shows a cookie.) Vary by what has few
# values, and let the edge normalise it.
#
# ## Ask, but do not fetch again: ETag and 304
#
# An **ETag** is a name for one state of the content. A cache that holds a copy asks "do you still
# have this one?", in `If-None-Match`, and the origin answers 304, *not modified*, without a body.

# %%
body = "x" * 50_000
etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:12]}"'
shop.origin.page("/long", body, headers={"Cache-Control": "max-age=1", "ETag": etag})
first = shop.guarded.get("/long")
again = shop.guarded.get("/long", headers={"If-None-Match": etag})
print("reader to edge:", first.status, len(first.text), "then", again.status, len(again.text))

# %%
shop.wait(1)
shop.origin.reset()
later = shop.guarded.get("/long")
print("edge to reader:", later.cache, later.status, len(later.text), "bytes")
print("edge to origin:", *shop.origin.log)

# %% [markdown]
# REVALIDATED: freshness was over, the edge asked with the ETag, and the 50,000 bytes were not sent
# again. A 304 saves bytes, not the question. **Predict** what comes when the content changes but
# somebody forgets to change the ETag.

# %%
shop.origin.page("/long", "y" * 50_000, headers={"Cache-Control": "max-age=1", "ETag": etag})
shop.wait(1)
wrong = shop.guarded.get("/long")
print(wrong.cache, wrong.status, "begins with", wrong.text[0])

# %% [markdown]
# The old content, for ever: an ETag must be made from the content, or from a version that every writer
# raises.
#
# ## Purge
#
# A page is wrong, and its hour is not over. A CDN has a **purge**: a call to its API that drops a URL, or all
# pages with a tag, on all its edges. Nginx as we have it has no such command (its
# `proxy_cache_purge` belongs to the commercial edition), and no purge reaches a browser. So the better
# purge is not to need one. **Predict** what the reader sees after this release:

# %%
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
shop.origin.page("/app.css", "teal", headers=FOREVER)
shop.guarded.get("/app.css")
shop.origin.page("/app.css", "olive", headers=FOREVER)
print(shop.guarded.get("/app.css").text)


# %%
def release(css):
    path = f"/app.{hashlib.sha256(css.encode()).hexdigest()[:8]}.css"
    shop.origin.page(path, css, headers=FOREVER)
    shop.origin.page("/shop", path, headers={"Cache-Control": "no-cache"})


for css in ("teal", "olive", "teal"):
    release(css)
    page = shop.guarded.get("/shop").text
    sheet = shop.guarded.get(page)
    print(f"{page}: {sheet.text}, {sheet.cache}")

# %% [markdown]
# New content has a new URL, and a rollback goes back to the old URL, which is still in the cache.
# It works because one page is *not* kept: the HTML that names the stylesheet. Give that a year, and
# nothing you release is ever seen. And keep old files at the origin, since old pages are still open
# in somebody's browser.
#
# ## Recap
#
# - The edge does what your headers say: one call for each edge and each lifetime, and the oldest page
#   is max-age *plus* the stale window.
# - A cache that is merely switched on collapses nothing. This one's lock helps at a cold start, a
#   stale window at each expiry.
# - What does not say `private` or `no-store` leaks, also without `public`.
# - `no-cache` means ask, `no-store` means do not keep; `Vary` is part of the key, so keep it small.
# - An ETag saves bytes. A URL made from the content saves the question and the purge.
#
# Your guesses, and what came:

# %%
recap()

# %% [markdown]
# **Now your turn:** `labs/04_cdn_edge.ipynb`.
