"""A private PostgreSQL server for tests: on 127.0.0.1, in a temp folder, gone with its test.

    python tests/postgres.py make test-notebooks-live

runs a command with CACHELAB_DATABASE_URL set to such a server, and ends with the command's code.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from cachelab.process.guard import Guard

# initdb and the server refuse to be root.
USER = "postgres" if os.getuid() == 0 else None
START_SECONDS = 60


@dataclass(frozen=True)
class Cluster:
    """A running server with the database `class`.

    `owner` is the superuser; `learner` may make schemas in the database, `guest` may only connect.
    """

    port: int
    password: str
    pid: int

    def url(self, user: str = "learner", password: str = "", database: str = "class") -> str:
        """The URL for one of its users."""
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"


def binaries() -> Path:
    """The folder with `initdb`, `postgres` and `pg_dump`: Debian keeps it off the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    if found:
        places.append(Path(found).resolve().parent)
    for place in places:
        if all((place / name).exists() for name in ("initdb", "postgres", "pg_dump")):
            return place
    raise FileNotFoundError("There is no PostgreSQL: apt-get install postgresql.")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A fresh server for the time of the block."""
    home = Path(tempfile.mkdtemp(prefix="cachelab-postgres-", dir="/tmp"))
    with Guard() as guard:
        guard.on_exit(["rm", "-rf", str(home)])  # also when we are killed
        password = secrets.token_hex(8)
        (home / "password").write_text(password)
        if USER:
            for place in (home, home / "password"):
                shutil.chown(place, USER)
        data, bins = home / "data", binaries()
        made_by = ["-U", "owner", "--pwfile", home / "password", "--auth=scram-sha-256"]
        _run([bins / "initdb", "-D", data, *made_by, "--locale=C.UTF-8", "--no-sync"], home)
        port = _free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",
            "log_min_messages": "fatal",
        }
        command = [bins / "postgres", "-D", data, *(f"--{k}={v}" for k, v in settings.items())]
        pid = guard.spawn([*_as_user(), *map(str, command)], log="postgres.log")
        one = Cluster(port, password, pid)
        _wait(one, guard)
        _prepare(one)
        try:
            yield one
        finally:
            # SIGQUIT: at once, but without leaving shared memory behind, as SIGKILL would.
            guard.signal(pid, signal.SIGQUIT)
            until = time.monotonic() + 10
            while guard.returncode(pid) is None and time.monotonic() < until:
                time.sleep(0.05)


def _prepare(one: Cluster) -> None:
    with psycopg.connect(one.url("owner", database="postgres"), autocommit=True) as owner:
        for name in ("learner", "guest"):
            owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{one.password}'")
        owner.execute("CREATE DATABASE class")
        owner.execute("GRANT CREATE ON DATABASE class TO learner")


def _as_user() -> list[str]:
    if USER is None:
        return []
    who = pwd.getpwnam(USER)
    ids = [f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps=-all", "--"]


def _run(command: list[object], home: Path) -> None:
    argv = [*_as_user(), *map(str, command)]
    done = subprocess.run(argv, cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _wait(one: Cluster, guard: Guard) -> None:
    # It takes connections a little before it answers on them.
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and guard.returncode(one.pid) is None:
        try:
            psycopg.connect(one.url("owner", database="postgres"), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    said = (guard.folder / "postgres.log").read_text(errors="replace").strip()
    raise RuntimeError(f"PostgreSQL did not start: {said}")


def main(command: list[str]) -> int:
    """Run `command` with a fresh server in CACHELAB_DATABASE_URL; returns its exit code."""
    if not command:
        print("usage: python tests/postgres.py COMMAND [ARGUMENT ...]", file=sys.stderr)
        return 2
    # A timeout's SIGTERM has to run the `finally`s too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with cluster() as one:
        env = {**os.environ, "CACHELAB_DATABASE_URL": one.url()}
        return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
