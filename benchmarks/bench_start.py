"""What it costs to import Cachelab and to start a Lab, beside the parts these are made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Row, Target

ROOT = Path(__file__).resolve().parents[1]
TITLE = "Importing Cachelab and starting a Lab"
BUDGET = 50.0
IMPORT = Target(1.3)
START = Target(0.5, "ours")  # s

# What a notebook imports: what it starts with, and all names that `cachelab` has for it.
IMPORTS = {
    "import cachelab, and its start": "from cachelab import start",
    "import cachelab, and all its names": (
        "from cachelab import check, hint, join, lanes, sequence, show, start"
    ),
}

# Prints the modules of others that `what` brought, in the order in which they came.
BROUGHT = """
import json, sys
before = set(sys.modules)
{what}
standard = sys.stdlib_module_names | set(sys.builtin_module_names)
def is_theirs(name):
    first, found = name.partition(".")[0], sys.modules[name]
    from_file = getattr(getattr(found, "__spec__", None), "origin", None)
    return first not in standard and first != "cachelab" and from_file
print(json.dumps([name for name in sys.modules if name not in before and is_theirs(name)]))
"""

# Prints the seconds of processor time that an import took: no other program decides.
TIMED_IMPORT = """
import importlib, json, sys, time
names = json.loads(sys.argv[1])
began = time.process_time()
for name in names:
    importlib.import_module(name)
{what}
print(time.process_time() - began)
"""

# Prints the seconds that `start()` took, its imports not counted.
TIMED_START = """
import sys, time
import cachelab
start = cachelab.start
began = time.perf_counter()
lab = start()
lab.cache.ping()
lab.db.queries
took = time.perf_counter() - began
lab.close()
print(took)
"""

# The same by hand: the server until it answers, a copy of the shop, a connection to each.
TIMED_PARTS = """
import os, shutil, subprocess, sys, tempfile, time
import redis, sqlalchemy
binary, shop = sys.argv[1:]
folder = tempfile.mkdtemp()
began = time.perf_counter()
at = folder + "/redis.sock"
options = ["--port", "0", "--unixsocket", at, "--save", "", "--dir", folder]
server = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
client = redis.Redis(unix_socket_path=at, retry=None)
while True:
    try:
        client.ping()
        break
    except redis.RedisError:
        time.sleep(0.002)
path = shutil.copy(shop, folder)
with sqlalchemy.create_engine(f"sqlite:///{path}").connect() as connection:
    connection.exec_driver_sql("select 1")
took = time.perf_counter() - began
server.kill()
server.wait()
shutil.rmtree(folder)
print(took)
"""


def asked(code: str, *arguments: str, home: str = "") -> str:
    """The last line that a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **({"CACHELAB_HOME": home} if home else {})},
        cwd=ROOT / "docs",  # where no `benchmarks` or `tools` is in the way
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode != 0:
        raise RuntimeError(f"a fresh Python failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip().splitlines()[-1]


def in_turn(rounds: int, ours: list[str], theirs: list[str], home: str) -> tuple[float, float]:
    """The shortest times (s) of two programs, run in turn."""
    took: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for found, program in zip(took, (ours, theirs), strict=True):
            seconds = float(asked(*program, home=home))
            if turn:  # the first writes the .pyc files
                found.append(seconds)
    return min(took[0]), min(took[1])


def rows(tiny: bool = False) -> Iterator[Row]:
    """Imports beside what they bring of others; `start()` beside its parts."""
    rounds = 1 if tiny else 5
    with tempfile.TemporaryDirectory(prefix="cachelab-bench-") as home:
        for what, line in IMPORTS.items():
            brought = asked(BROUGHT.format(what=line))
            count = len({name.partition(".")[0] for name in json.loads(brought)})
            ours, theirs = in_turn(
                rounds,
                [TIMED_IMPORT.format(what=line), "[]"],
                [TIMED_IMPORT.format(what=""), brought],
                home,
            )
            yield Row(
                what,
                ours,
                beside=f"importing what these bring of others ({count} packages)",
                theirs=theirs,
                target=IMPORT,
                short=what,
            )
        first = float(asked(TIMED_START, home=home))
        binary, shop = parts(home)
        if binary is None:
            yield Row("start()", not_run="no server can be started here")
            return
        ours, theirs = in_turn(rounds, [TIMED_START], [TIMED_PARTS, binary, shop], home)
        yield Row(
            "start(): a server, a seeded shop, a client of each",
            ours,
            beside="the server until it answers, a copy of the shop, by hand",
            theirs=theirs,
            target=START,
            short="start()",
        )
        yield Row(
            "the first start() on a machine, which seeds the shop", first, "s", "start()", ours
        )


def parts(home: str) -> tuple[str | None, str]:
    """The server's binary (None: there is none) and the seeded shop's file under `home`."""
    from cachelab.cache import server

    shops = sorted(Path(home).rglob("shop-*.sqlite"), key=lambda path: path.stat().st_size)
    for look in (server.from_path, server.from_wheel):
        try:
            return str(look()), str(shops[-1])
        except server.ServerUnfit:
            continue
    return None, ""
