"""Chapters that a text names as code, `05_cache_aside` or `labs/05_cache_aside.ipynb`, as links."""

import re
from collections.abc import Callable

NAMED = re.compile(r"(?<!\[)`(?:(notebooks|labs|solutions)/)?(\d\d_[a-z0-9_]+)(?:\.ipynb)?`(?!\])")
LINKED = re.compile(
    r"\[((?:\w+/)?\d\d_[a-z0-9_]+(?:\.ipynb)?)\]\((?:\.\./\w+/)?\d\d_[a-z0-9_]+\.ipynb\)"
)
FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)


def linked(text: str, target: Callable[[str, str], str | None], *, plain: bool = False) -> str:
    """Markdown in which chapters that are named as code are links; code blocks stay as they are.

    `target` gives the path for a room ("notebooks", "labs", "solutions") and a stem; None: no link.
    `plain` leaves the backquotes out: JupyterLab shows code as code, also where it is a link.
    """

    def link(found: re.Match[str]) -> str:
        path = target(found[1] or "notebooks", found[2])
        name = found[0].strip("`") if plain else found[0]
        return f"[{name}]({path})" if path else found[0]

    pieces, end = [], 0
    for fence in FENCE.finditer(text):
        pieces += [NAMED.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, NAMED.sub(link, text[end:])])


def unlinked(text: str) -> str:
    """The text before the builder linked it, for pages that have their chapters elsewhere."""
    return LINKED.sub(r"`\1`", text)
