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
# # Tell the edge what it may keep
#
# **About 45 minutes.** Four functions of the shop's web application, each of a few lines. You write
# what the origin answers; the edge, a real nginx, does the rest. The notebook `04_cdn_edge` has shown
# every trap.
#
# The checks start an edge of their own and send readers through it, which takes a second or three.
# Without an nginx they say so and prove nothing. `cachelab.hint("04_cdn_edge.headers")` helps.

# %%
import hashlib
import json

import cachelab

lab = cachelab.start()

# %% [markdown] given=[10]
# ## 1. Choose headers for eight responses
#
# Two headers are enough, `Cache-Control` and `Vary`. Give each response as much cache as it can bear.
#
# | response | what it is | what must hold |
# |---|---|---|
# | `product` | the same page for everybody | the edge keeps it; nobody is served one older than 60 s |
# | `article` | a text in the language that `Accept-Language` asks for | the edge keeps each language for at least 5 minutes |
# | `account` | one user's name and e-mail | no shared cache keeps it |
# | `invoice` | one user's bank data | no cache at all keeps it, the browser's neither |
# | `stylesheet` | `/app.3f2a91c0.css`: its name is made from its content | kept by all for 30 days or more, and never asked for again, not even on a reload |
# | `home` | the HTML that names the stylesheet | may be kept, but whoever keeps it asks each time whether it still holds |
# | `search` | the same for everybody; when something changes, the edge is purged | the edge serves it for 10 minutes without asking; browsers, which nobody can purge, ask each time |
# | `feed` | the same for everybody; its query is slow | fresh for 30 to 60 s, and then nobody waits for a new one; nobody is served one older than 10 minutes, though some may be 5 minutes old |


# %% exercise="04_cdn_edge.headers" minutes=14
def headers_for(response):
    """The caching headers of one kind of response.

    response: str, one of the eight names in the table. Returns a dict of header names and values,
    both str, for instance {"Cache-Control": "..."}.
    """
    ### BEGIN SOLUTION
    return {
        "product": {"Cache-Control": "public, max-age=60"},
        "article": {"Cache-Control": "public, max-age=300", "Vary": "Accept-Language"},
        "account": {"Cache-Control": "private, max-age=60"},
        "invoice": {"Cache-Control": "no-store"},
        "stylesheet": {"Cache-Control": "public, max-age=31536000, immutable"},
        "home": {"Cache-Control": "no-cache"},
        "search": {"Cache-Control": "public, max-age=0, s-maxage=600"},
        "feed": {"Cache-Control": "public, max-age=60, stale-while-revalidate=540"},
    }[response]
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Three questions for each: who may keep it (everybody, the browser, nobody)? For how long without
# asking? On which request header does it depend?

# %% [markdown] tags=["hint"]
# Who: `public`, `private`, `no-store`. How long: `max-age`, and `s-maxage` for the edge alone.
# `no-cache` means keep, but ask each time. The oldest copy is max-age plus stale-while-revalidate.

# %% [markdown] tags=["hint"]
# A dict of eight dicts. The three that are easily missed: `search` has max-age=0 and s-maxage=600;
# `feed` has max-age=60 and stale-while-revalidate=540; `stylesheet` has immutable.

# %%
cachelab.check("04_cdn_edge.headers", headers_for)

# %% [markdown] tags=["solution"] given=[10]
# In `feed` the two numbers add up: 60 s fresh and 540 s stale are the ten minutes. (With
# `must-revalidate` or `s-maxage` beside it the standard would forbid the old copy.) In `product` a
# stale-while-revalidate would come out of the same 60 s. `home` asks each time and still saves bytes,
# by an ETag (exercise 3). `public` itself changes little where `max-age` stands already; it matters
# for requests with `Authorization`, where it says "share this all the same".

# %% [markdown]
# ## 2. Plug the leak
#
# The page `/hello` greets. For a visitor without a session it is the same text for all, and the edge
# shall keep it. For a user, who is known by a session cookie or by an `Authorization` header, it shows
# their e-mail address, and nobody else may ever see that: also not behind the *naive* edge, which
# knows nothing about cookies. And Alice shall see her own page also when a visitor was there before
# her.


# %% exercise="04_cdn_edge.leak" minutes=10
def hello(db, user_id):
    """The page /hello, as (headers, body).

    user_id: int, or None for a visitor without a session. The body is a str: for a user it contains
    the address, `db.user(user_id)["email"]`; for a visitor it is the same for all and holds no address.
    headers: dict of str. The edge keeps the visitor's page for at least 60 seconds.
    """
    ### BEGIN SOLUTION
    depends_on = {"Vary": "Cookie, Authorization"}
    if user_id is None:
        return {"Cache-Control": "public, max-age=60", **depends_on}, "Welcome to the shop"
    email = db.user(user_id)["email"]
    return {"Cache-Control": "private, no-cache", **depends_on}, f"Signed in as {email}"
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Two pages under one address: which of them may a shared cache keep, and how does it know which of
# the two a reader needs?

# %% [markdown] tags=["hint"]
# The user's page: a Cache-Control that keeps it out of every shared cache. The visitor's page: may
# be kept, but it answers only requests without a session.

# %% [markdown] tags=["hint"]
# User: `private` or `no-store`. Visitor: `public, max-age=60`, and `Vary: Cookie, Authorization`,
# so that the copy answers only requests that look like the first.

# %%
cachelab.check("04_cdn_edge.leak", hello)

# %% [markdown] tags=["solution"]
# `private` keeps Alice's page out of the edge. `Vary` does the other half: without it the visitor's
# page, which the edge may keep, answers for everybody who asks for `/hello`, Alice included. The price
# is that a visitor with any cookie at all, say of a statistics script, gets a copy of their own. The
# cheaper way out is an address of its own for what is personal, such as `/me`.

# %% [markdown]
# ## 3. Answer "not modified"
#
# A product page is fresh for one second. After that the edge asks again, and names the copy that it
# holds in `If-None-Match`. If the row has not changed, answer 304 with an empty body.


# %% exercise="04_cdn_edge.revalidate" minutes=12
def product_page(db, product_id, if_none_match):
    """A product as JSON text, or "not modified", as (status, headers, body).

    if_none_match: None, or the request's header, a str: one ETag, or several with commas between.
    A cache that compresses puts W/ before ours; that counts as the same.
    A 200 has `db.product(product_id)` as JSON for its body. It has an ETag in double quotes, which
    is another one when the row is another, and the same in every process as long as it is not;
    and Cache-Control, max-age=1. A 304 has the same two headers, and the body "".
    """
    ### BEGIN SOLUTION
    body = json.dumps(db.product(product_id))
    etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:16]}"'
    headers = {"Cache-Control": "public, max-age=1", "ETag": etag}
    known = [one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")]
    if etag in known:
        return 304, headers, ""
    return 200, headers, body
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# Make the ETag first, from what the row is now. Then ask whether the reader named it.

# %% [markdown] tags=["hint"]
# The ETag is a text in double quotes: `f'"{row["version"]}"'`, or a digest of the body, from
# hashlib. Headers are the same for 200 and 304.

# %% [markdown] tags=["hint"]
# Split if_none_match at the commas, strip each part, remove a leading `W/`; if your ETag is among
# them, return `304, headers, ""`.

# %%
cachelab.check("04_cdn_edge.revalidate", product_page)

# %% [markdown] tags=["solution"]
# The query still runs: a 304 saves bytes, not database work. An ETag from the row's `version` is as
# right as one from its content, if whoever writes raises the version; a changed template, then, needs
# a version of its own. Python's `hash()` of a text differs between two processes, so two pods would
# never agree.

# %% [markdown]
# ## 4. Purge by version
#
# The shop's stylesheet shall stay in every cache for a year, and a new release shall be seen within a
# minute. Both at once: give each content a URL of its own. Releases go out by several pods at once,
# which must agree, and when a release is taken back, its predecessor's URL comes back too.


# %% exercise="04_cdn_edge.release" minutes=9
def release(css):
    """What the origin serves after a release: {path: (headers, body)}, two entries.

    css: str, the stylesheet. "/" is HTML, a str, that holds the stylesheet's path, and nobody is
    served one that is older than 60 seconds. The other path ends in .css (a query may follow); its
    body is `css`, it may be kept for 30 days or more, and is never asked for again on a reload.
    """
    ### BEGIN SOLUTION
    path = f"/app.{hashlib.sha256(css.encode()).hexdigest()[:12]}.css"
    html = f'<link rel="stylesheet" href="{path}"><h1>The shop</h1>'
    return {
        "/": ({"Cache-Control": "no-cache"}, html),
        path: ({"Cache-Control": "public, max-age=31536000, immutable"}, css),
    }
    ### END SOLUTION


# %% [markdown] tags=["hint"]
# What must be in the stylesheet's path, so that another content has another path and the same
# content always the same one?

# %% [markdown] tags=["hint"]
# `hashlib.sha256(css.encode()).hexdigest()[:12]` is short, and the same in every process. Which of
# the two pages may be kept for a year, and which must stay young?

# %% [markdown] tags=["hint"]
# "/" with `no-cache` (or max-age=60); the stylesheet with `public, max-age=31536000, immutable`
# under `/app.<digest>.css`.

# %%
cachelab.check("04_cdn_edge.release", release)

# %% [markdown] tags=["solution"]
# Nothing is purged; the old URL is no longer asked for. Keep the old files at the origin for as long as
# an old page may live: its readers ask for the old stylesheet.

# %% [markdown]
# ## On a real edge
#
# Now put your own release in front of the real edge, twice with a new stylesheet in between. How often
# is the origin asked for each path?

# %%
from cachelab import edge

with edge.start() as shop:
    # For instance: for path, (headers, body) in release("h1 { color: teal }").items():
    #                   shop.origin.page(path, body, headers=headers)
    # and then shop.guarded.get("/") and what it names.
    print(shop.guarded.name, shop.origin.calls)

# %% [markdown] tags=["solution"]
# Five readers of each release: the page is asked for each time, each stylesheet once.

# %% tags=["solution"]
with edge.start() as shop:
    for css in ("h1 { color: teal }", "h1 { color: maroon }"):
        for path, (headers, body) in release(css).items():
            shop.origin.page(path, body, headers=headers)
        for _ in range(5):
            html = shop.guarded.get("/").text
            shop.guarded.get(html.split('"')[3])
    print("the page:", shop.origin.calls_to("/"), "of 10 reads")
    print("stylesheets:", shop.origin.calls - shop.origin.calls_to("/"), "of 10 reads")

# %% [markdown]
# ## Recap
#
# - A response says itself who may keep it, for how long, and on what it depends.
# - `private` for what is personal, `Vary` for what looks different, `no-store` for what nobody may keep.
# - An ETag saves bytes; a URL made from the content saves the question.
#
# **Next:** `notebooks/05_cache_aside.ipynb`.
