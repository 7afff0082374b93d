"""A class before the class: everybody logs in at once and runs lab 05's solution on the hub.

    .venv/bin/python workshop/hub/rehearse.py

reads the names and passwords in .cachelab/hub/learners.csv, logs each of them in through the form,
runs the notebook in a kernel of their own, all at the same time, and prints who passed, who sees
whose keys, and what memory each took. It leaves no kernel behind; the servers go on to run.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
import requests
import websocket

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "solutions/05_cache_aside.ipynb"
VERDICT = re.compile(r"\S (passed|failed|proved nothing|not attempted): (\S+)")
SERVER_SECONDS, CELL_SECONDS = 300.0, 120.0

# What each learner's kernel says of itself: in their own words, after lab 05 has run.
PUT = "lab.cache.set('learner:' + {name!r}, {name!r})"
TELL = """
import json, os
print(json.dumps({"keys": lab.keys(), "line": str(lab), "home": os.environ["HOME"],
    "cachelab_home": os.environ["CACHELAB_HOME"], "prefix": lab.server.prefix,
    "kernel": os.getpid(), "server": os.getppid(), "cache": getattr(lab.server, "pid", 0)}))
"""


class Broken(Exception):
    """The rehearsal cannot go on; the text is one sentence."""


@dataclass
class Learner:
    """One of the class at work: `token` opens their own server, and nothing else."""

    hub: str
    name: str
    password: str = field(repr=False)
    session: requests.Session = field(default_factory=requests.Session, repr=False)
    token: str = field(default="", repr=False)
    kernel: str = ""

    def log_in(self) -> None:
        """Through the form, as a browser does; then ask for a token of their own."""
        form = f"{self.hub}hub/login"
        self.session.get(form, timeout=60).raise_for_status()
        filled = {"username": self.name, "password": self.password, "_xsrf": self._xsrf()}
        page = self.session.post(form, data=filled, timeout=120)
        if page.status_code >= 400 or "/hub/login" in urlsplit(page.url).path:
            raise Broken(f"{self.name} was not let in ({page.status_code}).")
        answer = self.session.post(
            f"{self.hub}hub/api/users/{self.name}/tokens",
            headers={"X-XSRFToken": self._xsrf(), "Referer": f"{self.hub}hub/token"},
            json={"note": "rehearsal", "expires_in": 7200},
            timeout=60,
        )
        if answer.status_code >= 300:
            raise Broken(f"{self.name} got no token ({answer.status_code}: {answer.text[:200]}).")
        self.token = answer.json()["token"]

    def _xsrf(self) -> str:
        cookies = [cookie for cookie in self.session.cookies if cookie.name.endswith("_xsrf")]
        # The most exact path: the hub's own, not that of a learner's server.
        own = [cookie for cookie in cookies if cookie.path.rstrip("/").endswith("/hub")]
        return str((own or cookies)[0].value)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """One request with the token; `path` is below the hub's address."""
        headers = {"Authorization": f"token {self.token}"}
        return requests.request(
            method, f"{self.hub}{path}", headers=headers, timeout=120, **options
        )

    def at_home(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a request to the learner's own server; Broken when it is refused."""
        answer = self.ask(method, f"user/{self.name}/{path}", **options)
        if answer.status_code >= 300:
            raise Broken(f"{self.name}: {method} {path} gave {answer.status_code}.")
        return answer.json() if answer.content else None

    def start_server(self) -> None:
        """Ask for the server, unless the login has, and wait until it is ready."""
        deadline = time.monotonic() + SERVER_SECONDS
        while True:
            answer = self.ask("GET", f"hub/api/users/{self.name}")
            server = answer.json().get("servers", {}).get("")
            if server and server["ready"]:
                return
            if time.monotonic() > deadline:
                raise Broken(f"{self.name} has no server after {SERVER_SECONDS:.0f} s.")
            if not server:
                self.ask("POST", f"hub/api/users/{self.name}/server")
            time.sleep(0.5)

    def stop_server(self) -> None:
        """End the server and wait until the hub says that it has ended."""
        self.ask("DELETE", f"hub/api/users/{self.name}/server")
        deadline = time.monotonic() + 60
        while self.ask("GET", f"hub/api/users/{self.name}").json().get("servers"):
            if time.monotonic() > deadline:
                raise Broken(f"{self.name}'s server does not end.")
            time.sleep(0.2)

    def start_kernel(self) -> None:
        """A kernel of their own."""
        self.kernel = self.at_home("POST", "api/kernels", json={})["id"]

    def stop_kernel(self) -> None:
        """End it; its cache ends with it."""
        self.at_home("DELETE", f"api/kernels/{self.kernel}")

    def wire(self, of: str | None = None, kernel: str | None = None) -> websocket.WebSocket:
        """A websocket to a kernel, the own one unless another learner's is asked for."""
        place = f"user/{of or self.name}/api/kernels/{kernel or self.kernel}/channels"
        return websocket.create_connection(
            f"{self.hub.replace('http', 'ws', 1)}{place}?session_id={uuid.uuid4().hex}",
            header=[f"Authorization: token {self.token}"],
            timeout=CELL_SECONDS,
        )


def run_cell(wire: websocket.WebSocket, code: str) -> list[dict[str, Any]]:
    """Run a cell and return its outputs; Broken with the error's name when it raises."""
    identity = uuid.uuid4().hex
    header = {"msg_id": identity, "msg_type": "execute_request", "session": identity}
    header |= {"username": "", "version": "5.3", "date": ""}
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}}
    wire.send(json.dumps({**request, "content": content, "buffers": []}))
    outputs: list[dict[str, Any]] = []
    idle = replied = False
    while not (idle and replied):
        message = json.loads(wire.recv())
        if message["parent_header"].get("msg_id") != identity:
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        if kind in {"stream", "display_data", "execute_result"}:
            outputs.append(content)
        elif kind == "error":
            raise Broken(f"a cell raised {content['ename']}: {content['evalue']}")
        idle = idle or (kind == "status" and content["execution_state"] == "idle")
        replied = replied or kind == "execute_reply"
    return outputs


def printed(outputs: Sequence[dict[str, Any]]) -> str:
    """What a cell wrote to stdout and stderr."""
    return "".join(output.get("text", "") for output in outputs)


@dataclass(frozen=True)
class Done:
    """What came of one learner: verdicts, what their kernel said, memory in MB, seconds."""

    name: str
    verdicts: dict[str, str]
    said: dict[str, Any]
    resident: dict[str, float]  # process to resident MB: pages shared with others count in each
    proportional: float  # MB: each shared page is shared out among those who share it
    ready_seconds: float
    lab_seconds: float


def work(learner: Learner, together: threading.Barrier) -> Done:
    """Log in, run the notebook cell by cell, and, when all have, look at the keys."""
    began = time.monotonic()
    try:
        learner.log_in()
        learner.start_server()
        learner.start_kernel()
        ready = time.monotonic() - began
        cells = learner.at_home("GET", f"api/contents/{quote(NOTEBOOK)}")["content"]["cells"]
        together.wait(SERVER_SECONDS)
        began = time.monotonic()
        wire = learner.wire()
        verdicts = {}
        for cell in cells:
            if cell["cell_type"] == "code":
                for output in run_cell(wire, cell["source"]):
                    if verdict := VERDICT.match(output.get("data", {}).get("text/plain", "")):
                        verdicts[verdict[2]] = verdict[1]
        lab_seconds = time.monotonic() - began
        run_cell(wire, PUT.format(name=learner.name))
        together.wait(SERVER_SECONDS)  # everybody's keys are there before anybody looks
        said = json.loads(printed(run_cell(wire, TELL)))
        resident, proportional = memory(said)
        together.wait(SERVER_SECONDS)  # nobody leaves before all have looked
        wire.close()
    except BaseException:
        together.abort()
        raise
    return Done(learner.name, verdicts, said, resident, proportional, ready, lab_seconds)


def memory(said: dict[str, Any]) -> tuple[dict[str, float], float]:
    """Resident MB of a learner's processes, and their proportional MB in sum (Linux; else 0)."""
    resident, proportional = {}, 0.0
    for what in ("server", "kernel", "cache"):
        if said[what]:
            full = psutil.Process(said[what]).memory_full_info()
            resident[what] = full.rss / 1e6
            proportional += getattr(full, "pss", 0) / 1e6
    return resident, proportional


def rehearse(hub: str, passwords: dict[str, str]) -> tuple[list[Learner], list[Done]]:
    """Everybody at once; the learners (their kernels still run) and what came of each."""
    learners = [Learner(hub, name, password) for name, password in passwords.items()]
    together = threading.Barrier(len(learners))
    with ThreadPoolExecutor(len(learners)) as threads:
        futures = [threads.submit(work, learner, together) for learner in learners]
    broken = [error for future in futures if (error := future.exception())]
    # The first to break has set all others free: theirs is not the reason.
    for error in sorted(broken, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise error
    return learners, [future.result() for future in futures]


def refusals(learners: Sequence[Learner]) -> dict[str, int]:
    """What the hub answers when a learner asks for the next one's things with their own token."""
    answers = {}
    for learner, other in zip(learners, [*learners[1:], learners[0]], strict=True):
        asks = [
            ("GET", f"user/{other.name}/api/kernels"),
            ("POST", f"user/{other.name}/api/kernels"),
            ("GET", f"user/{other.name}/api/contents/labs/05_cache_aside.ipynb"),
            ("DELETE", f"user/{other.name}/api/kernels/{other.kernel}"),
            ("DELETE", f"hub/api/users/{other.name}/server"),
            ("POST", f"hub/api/users/{other.name}/tokens"),
        ]
        for method, path in asks:
            answers[f"{learner.name}: {method} {path}"] = learner.ask(method, path).status_code
        answers[f"{learner.name}: websocket of {other.name}"] = _knock(
            lambda me=learner, them=other: me.wire(them.name, them.kernel)
        )
    return answers


def _knock(connect: Callable[[], websocket.WebSocket]) -> int:
    try:
        connect().close()
    except websocket.WebSocketBadStatusException as refused:
        return int(refused.status_code)
    return 101


def table(done: Sequence[Done]) -> str:
    """Memory in MB, one line a learner, and the middle one's sum."""
    lines = ["learner          server  kernel  cache    sum  shared out   ready    lab"]
    for each in sorted(done, key=lambda one: one.name):
        mb = [each.resident.get(what, 0.0) for what in ("server", "kernel", "cache")]
        lines.append(
            f"{each.name:<15}{mb[0]:8.0f}{mb[1]:8.0f}{mb[2]:7.0f}{sum(mb):7.0f}"
            f"{each.proportional:12.0f}{each.ready_seconds:6.0f} s{each.lab_seconds:5.0f} s"
        )
    sums = sorted(sum(each.resident.values()) for each in done)
    lines.append(f"resident MB; the middle learner takes {sums[len(sums) // 2]:.0f} MB")
    return "\n".join(lines)


def problems(done: Sequence[Done], answers: dict[str, int]) -> list[str]:
    """What is not as it should be, one sentence each."""
    found = []
    for each in done:
        missed = {name: outcome for name, outcome in each.verdicts.items() if outcome != "passed"}
        if missed or len(each.verdicts) < 5:
            found.append(f"{each.name} passed not all exercises of lab 05: {each.verdicts}.")
        marks = [key for key in each.said["keys"] if key.startswith("learner:")]
        if marks != [f"learner:{each.name}"]:
            found.append(f"{each.name} sees {marks}, not only keys of their own.")
    found += [f"{what} gave {code}, not 403 or 404." for what, code in answers.items()
              if code not in {403, 404}]  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse and print; 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / ".cachelab" / "hub")
    parser.add_argument("--learners", type=int, help="only the first so many")
    asked = parser.parse_args(arguments)
    try:
        with (asked.folder / "learners.csv").open(encoding="utf-8") as file:
            passwords = {row["name"]: row["password"] for row in csv.DictReader(file)}
        hub = (asked.folder / "address").read_text("utf-8").strip()
    except FileNotFoundError as error:
        print(f"There is no {error.filename}: start the hub first, with `make hub`.")
        return 1
    passwords.pop("instructor", None)
    chosen = dict(sorted(passwords.items())[: asked.learners])
    try:
        learners, done = rehearse(hub, chosen)
    except requests.ConnectionError:
        print(f"Nobody answers at {hub}: start the hub first, with `make hub`.")
        return 1
    except (Broken, requests.RequestException) as why:
        print("The rehearsal broke off:", " ".join(str(why).split()))
        return 1
    answers = refusals(learners)
    print(table(done))
    found = problems(done, answers)
    for learner in learners:
        learner.stop_kernel()
    for sentence in found:
        print(sentence)
    print(f"{len(done)} learners at once, {len(answers)} refusals, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
