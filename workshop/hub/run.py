"""Starts the workbook for a class on one machine: `make hub ARGS="--learners 10"`.

One process that holds all others: the proxy and each learner's server are children of its guard, so
they end with it, also when it is killed. Everything it writes is in .cachelab/hub, for you alone.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import importlib.util
import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cachelab.command import CommandError
from cachelab.command.jupyter import refuse_taken_port
from cachelab.process.guard import Guard

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROXY = ROOT / ".cachelab" / "hub" / "proxy"
LABS = ROOT / ".cachelab" / "hub" / "labs"
PROGRAM = Path("node_modules", "configurable-http-proxy", "bin", "configurable-http-proxy")
OLDEST_NODE = 20
PROXY_SECONDS = 30.0
# A server, a kernel and a cache with lab 05 run: see README.md.
MEGABYTES_EACH = 250


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the hub until it is stopped; 1 after one sentence if it cannot be started."""
    asked = _parser().parse_args(arguments)
    os.umask(0o077)
    try:
        return _run(asked)
    except (CommandError, OSError) as why:
        print(why, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make hub", description="The workbook for a class on this machine."
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--learners", type=int, default=10, metavar="N", help="learner-01 to N (10)")
    who.add_argument("--names", type=Path, metavar="FILE", help="names instead, one a line")
    parser.add_argument("--port", type=int, default=8000, help="where to open it (8000)")
    parser.add_argument("--ip", default="127.0.0.1", help="another address needs a certificate")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    parser.add_argument(
        "--idle-minutes", type=int, default=60, metavar="N", help="end kernels unused so long (60)"
    )
    parser.add_argument(
        "--class-file",
        type=Path,
        metavar="CSV",
        help="what `cachelab class create` wrote",
    )
    parser.add_argument(
        "--folder", type=Path, default=PROXY.parent, help="homes, logs, secrets (.cachelab/hub)"
    )
    return parser


def _run(asked: argparse.Namespace) -> int:
    if importlib.util.find_spec("jupyterhub") is None:
        raise CommandError("JupyterHub is not installed here: start the hub with `make hub`.")
    import accounts
    import ports

    try:
        if asked.names:
            names = accounts.read_names(text_of(asked.names, "--names takes one name a line"))
        else:
            names = accounts.numbered(asked.learners)
    except accounts.BadNames as why:
        raise CommandError(str(why)) from None
    if asked.idle_minutes < 1:
        raise CommandError(f"--idle-minutes is {asked.idle_minutes}, but it has to be 1 or more.")
    if asked.class_file and asked.names:
        raise CommandError(
            "The users of --class-file are learner-01 and on: give --learners with it."
        )
    url = public_address(asked.ip, asked.port, asked.tls_cert, asked.tls_key)
    of_each = settings_of_each(asked.class_file, names)
    node = node_program()
    folder = asked.folder.resolve()
    (folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_hub_of(folder):
        refuse_taken_port(asked.ip, asked.port)
        program = installed_proxy()
        accounts.enrol(folder, names)
        labs_as_given(LABS)
        hub_port, proxy_api_port = ports.free_port(), ports.free_port()
        chosen = {
            "folder": str(folder),
            "names": names,
            "url": url,
            "hub_port": hub_port,
            "proxy_api_port": proxy_api_port,
            "labs": str(LABS),
            "of_each": of_each,
            "idle_minutes": asked.idle_minutes,
        }
        os.environ["CACHELAB_HUB"] = json.dumps(chosen)
        os.environ["CONFIGPROXY_AUTH_TOKEN"] = secrets.token_hex(32)
        proxy = [
            *(node, str(program), "--ip", asked.ip, "--port", str(asked.port)),
            *("--api-ip", "127.0.0.1", "--api-port", str(proxy_api_port)),
            *("--error-target", f"http://127.0.0.1:{hub_port}/hub/error", "--log-level", "warn"),
        ]
        if asked.tls_cert:
            proxy += ["--ssl-cert", str(asked.tls_cert.resolve())]
            proxy += ["--ssl-key", str(asked.tls_key.resolve())]
        many = f"{len(names)} learner{'s' if len(names) > 1 else ''}"
        about = [f"Cachelab: the hub is at {url} for {many}; Ctrl-C ends it."]
        where = folder / accounts.HANDED_OUT
        if where.exists():
            about.append(f"Cachelab: names and passwords are in {where}, which only you can read.")
        about += memory_advice(len(names))
        with Guard() as guard:
            serve(guard, proxy, proxy_api_port, folder / "logs", "\n".join(about))
    return 0


def public_address(ip: str, port: int, cert: Path | None, key: Path | None) -> str:
    """The URL that learners open; CommandError if passwords would cross a network in the clear."""
    if (cert is None) != (key is None):
        raise CommandError("A certificate needs its key: give both --tls-cert and --tls-key.")
    for file in (cert, key):
        if file is not None and not file.is_file():
            raise CommandError(f"There is no file {file}: --tls-cert and --tls-key are PEM files.")
    try:
        address = ipaddress.ip_address("127.0.0.1" if ip == "localhost" else ip)
    except ValueError:
        raise CommandError(
            f"--ip is {ip!r}, but it has to be an address, such as 127.0.0.1."
        ) from None
    if not address.is_loopback and cert is None:
        raise CommandError(
            f"At {ip} passwords would cross the network in the clear, so the hub is not started:"
            " give --tls-cert and --tls-key, or leave --ip out and use an SSH tunnel."
        )
    host = f"[{ip}]" if address.version == 6 else ip
    return f"{'https' if cert else 'http'}://{host}:{port}/"


def settings_of_each(file: Path | None, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Name to what makes a learner work on the class's Redis, from the file of `class create`.

    Its columns name, url and prefix are read. CommandError when it has no line for one of `names`.
    """
    if file is None:
        return {}
    text = text_of(file, "`cachelab class create` makes one")
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or not all(row.get(key) for row in rows for key in ("name", "url", "prefix")):
        raise CommandError(
            f"{file} is not a file of `cachelab class create`: name the one it wrote."
        )
    of_each = {
        row["name"]: {
            "CACHELAB_REDIS_URL": row["url"],
            "CACHELAB_PREFIX": row["prefix"],
            "CACHELAB_CLASS_URL": row["url"],
        }
        for row in rows
    }
    if missing := sorted(set(names) - set(of_each)):
        raise CommandError(
            f"{file} has no line for {', '.join(missing[:3])}{', ...' if missing[3:] else ''}: run"
            f" `cachelab class create --learners {len(names)}` again, which adds to it."
        )
    return of_each


def text_of(file: Path, advice: str) -> str:
    """A file's text; CommandError, with `advice`, when it cannot be read."""
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise CommandError(f"{file} cannot be read ({error.strerror}): {advice}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file} is not UTF-8 text: {advice}.") from None


def node_program() -> str:
    """Node's path; CommandError where there is none that the proxy runs on."""
    node = shutil.which("node")
    told = ""
    if node:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30)
        told = answer.stdout.strip()
    found = re.match(r"v(\d+)\.", told)
    if node is None or not found or int(found[1]) < OLDEST_NODE:
        seen = f"is {told}" if told else "is not on PATH"
        raise CommandError(
            f"The hub's proxy needs Node {OLDEST_NODE} or newer, and node {seen}: install Node and"
            " npm (Debian, Ubuntu: sudo apt install nodejs npm)."
        )
    return node


def installed_proxy() -> Path:
    """configurable-http-proxy as the lock names it; npm fetches it once, or CommandError."""
    lock = (HERE / "package-lock.json").read_bytes()
    digest = hashlib.sha256(lock).hexdigest()
    stamp = PROXY / "lock.sha256"
    if stamp.is_file() and stamp.read_text() == digest and (PROXY / PROGRAM).is_file():
        return PROXY / PROGRAM
    npm = shutil.which("npm")
    if npm is None:
        raise CommandError(
            "The hub's proxy is fetched by npm, and there is none on PATH: install it."
        )
    print("Cachelab: fetching the hub's proxy, only this once", flush=True)
    shutil.rmtree(PROXY, ignore_errors=True)
    PROXY.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, PROXY / name)
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run([npm, "ci", *quiet], cwd=PROXY, capture_output=True, text=True)
    if done.returncode != 0:
        said = next((line for line in done.stderr.splitlines() if line.strip()), "without a word")
        raise CommandError(
            f"npm could not fetch the hub's proxy ({said.strip()}): check the network or the"
            " proxy settings of npm and run the same command again."
        )
    stamp.write_text(digest)
    return PROXY / PROGRAM


def labs_as_given(folder: Path) -> None:
    """Build each lab from its source: those in labs/ may hold answers of whoever runs this."""
    sources = sorted((ROOT / "content" / "labs").glob("[0-9]*.py"))
    builder = [ROOT / "tools" / name for name in ("markers.py", "notebook.py")]
    folder.mkdir(mode=0o700, exist_ok=True)
    for gone in {file.stem for file in folder.glob("[0-9]*.ipynb")} - {one.stem for one in sources}:
        (folder / f"{gone}.ipynb").unlink()
    for source in sources:
        lab = folder / f"{source.stem}.ipynb"
        newest = max(file.stat().st_mtime for file in (source, *builder))
        if not lab.exists() or lab.stat().st_mtime < newest:
            _build(source, lab)


def _build(source: Path, lab: Path) -> None:
    sys.path.insert(0, str(ROOT))
    from tools import markers, notebook

    read, errors = markers.read_source(ROOT, source)
    if read is None:
        raise CommandError(f"A lab cannot be built ({errors[0]}): `make check` says more.")
    new = lab.with_name(f".{lab.stem}.{os.getpid()}")
    new.write_text(notebook.dumps(notebook.blank(read, "labs")), "utf-8")
    new.replace(lab)


@contextlib.contextmanager
def only_hub_of(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which our end releases too; CommandError where another hub has it."""
    import fcntl

    held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CommandError(
            f"A hub runs already in {folder}: end that one first, or give this one another --folder"
            " and --port."
        ) from None
    finally:
        os.close(held)


def memory_advice(learners: int) -> list[str]:
    """A sentence where the memory that is free will not do; [] otherwise, or if it is unknown."""
    try:
        import psutil
    except ImportError:
        return []
    free, needed = psutil.virtual_memory().available / 1e6, learners * MEGABYTES_EACH
    if free >= needed:
        return []
    return [
        f"Cachelab: {learners} learners at work need about {needed:,.0f} MB, and {free:,.0f} MB"
        " are free; nothing here limits what one of them takes."
    ]


def wait_for(guard: Guard, pid: int, port: int, log: Path) -> None:
    """Until somebody listens there; CommandError with the log's last line when the process ends."""
    deadline = time.monotonic() + PROXY_SECONDS
    while time.monotonic() < deadline and guard.returncode(pid) is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    lines = log.read_text("utf-8", "replace").strip().splitlines() if log.exists() else []
    raise CommandError(
        f"The hub's proxy did not start ({lines[-1] if lines else 'without a word'})."
    )


def serve(guard: Guard, proxy: list[str], api_port: int, logs: Path, about: str) -> None:
    """Start the proxy and be the hub, until a signal ends it."""
    from jupyterhub import app
    from spawner import LearnerSpawner
    from tornado.ioloop import PeriodicCallback

    LearnerSpawner.guard = guard
    log = logs / "proxy.log"
    running = guard.spawn(proxy, log=str(log))
    wait_for(guard, running, api_port, log)

    # Of the same name, since JupyterHub files its settings under it.
    class JupyterHub(app.JupyterHub):  # type: ignore[misc, unused-ignore]
        """The hub that says where it is, and starts its proxy again should that end."""

        async def start(self) -> None:
            await super().start()
            (logs.parent / "address").write_text(f"{self.bind_url}\n")  # for rehearse.py
            print(about, flush=True)
            watch = PeriodicCallback(self.keep_the_proxy, 2000)
            self._periodic_callbacks["keep_the_proxy"] = watch
            watch.start()

        async def keep_the_proxy(self) -> None:
            nonlocal running
            code = guard.returncode(running)
            if code is not None:
                self.log.error("The proxy ended with %s; it is started again", code)
                running = guard.spawn(proxy, log=str(log))
                await self.proxy.restore_routes()

    config: Any = HERE / "jupyterhub_config.py"
    JupyterHub.launch_instance([f"--config={config}"])


if __name__ == "__main__":
    sys.exit(main())
