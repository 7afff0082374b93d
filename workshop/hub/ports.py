"""A free port that no program gets by chance, for forty servers that start at once.

Between looking for a port and listening on it a server needs seconds. Linux and macOS give whoever
asks for any port one above 32,767; so what is chosen below that stays free.
"""

from __future__ import annotations

import secrets
import socket

LOWEST, BEYOND = 20_000, 32_000
given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on and that was not given before; OSError if none."""
    for _ in range(1000):
        port = LOWEST + secrets.randbelow(BEYOND - LOWEST)
        with socket.socket() as probe:
            if port not in given and probe.connect_ex(("127.0.0.1", port)) != 0:
                given.add(port)
                return port
    raise OSError(f"No port from {LOWEST} to {BEYOND - 1} is free on this machine.")
