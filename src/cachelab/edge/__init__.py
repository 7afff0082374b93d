"""A real nginx in front of a small HTTP origin: one naive and one guarded site.

    from cachelab import edge

    shop = edge.start()
    shop.origin.page("/product/42", {"name": "Mug"}, headers={"Cache-Control": "max-age=60"})
    shop.guarded.get("/product/42")

`naive` is nginx's cache switched on and left at its defaults. `guarded` collapses requests for a
cold key, refreshes in the background within the header's own stale-while-revalidate window, asks
after expired copies by ETag, and neither stores nor serves from its store what a request with
Authorization or Cookie got. That is stricter than RFC 9111 section 3.5, which lets `public`,
`s-maxage` and `must-revalidate` share such an answer: `public` is the very header that is pasted
by mistake. Both keep to Cache-Control and Vary, and store nothing that sets a cookie, because
nginx does so by itself.

Four limits of nginx, each to be seen here: the lock collapses requests for a key that is not there,
not for one that has expired; who waits for the lock looks every 500 ms; a bypassed request loses
its If-None-Match on the way to the origin; and a response that allows stale-while-revalidate is
served stale even where must-revalidate or s-maxage forbid it (RFC 9111 section 4.2.4).
"""

from __future__ import annotations

from cachelab.edge.answers import Answer, Headers, HttpBurst
from cachelab.edge.http_origin import Call, HttpOrigin, Reply, Request
from cachelab.edge.nginx import EdgeError
from cachelab.edge.sites import Edge, Site, start

__all__ = [
    "Answer",
    "Call",
    "Edge",
    "EdgeError",
    "Headers",
    "HttpBurst",
    "HttpOrigin",
    "Reply",
    "Request",
    "Site",
    "start",
]
