"""JupyterHub's login form, answered from the hashes in accounts.py."""

from __future__ import annotations

import asyncio
from typing import Any

from accounts import matches
from jupyterhub.auth import Authenticator
from traitlets import Dict


class PasswordFile(Authenticator):
    """A name comes in with its own password."""

    hashes = Dict(help="name to `salt$key`").tag(config=True)

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """The name when the password is its own, else None."""
        name, password = data["username"], data["password"].strip().lower()
        # Half a tenth of a second of hashing, beside the hub's other work.
        right = await asyncio.to_thread(matches, self.hashes, name, password)
        return name if right else None
