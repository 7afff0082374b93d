"""Puts the edge before the public HTTP-cache suite and compares what it does with what it did.

    .venv/bin/python tests/http_cache/run.py             compare with baseline.json
    .venv/bin/python tests/http_cache/run.py --accept    take today's outcomes as the baseline

Needs Node 18 or newer and npm, which fetches http-cache-tests once into .cachelab. CACHELAB_EDGE
chooses the nginx. The suite's own server would listen on every interface; loopback.cjs, loaded
before it, keeps it to 127.0.0.1. A full pass means nothing, says the suite: so each outcome of the
guarded site, pass or fail, is held to its baseline, and a difference in either way is a failure.
Where one nginx differs from the others, baseline.json has its outcomes under its version: 1.22
goes by whichever of Expires and Cache-Control comes first, later ones let Cache-Control win.
`naive.json` tells in what the naive site differs from the guarded one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cachelab import edge
from cachelab.process.guard import Guard

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE, VERSION = "http-cache-tests", "0.4.5"
BASELINE, NAIVE = HERE / "baseline.json", HERE / "naive.json"
# Sets of tests, and single ones of sets that are about other things.
CHOSEN = [
    *("cc-freshness", "cc-parse", "age-parse", "cc-response", "stale", "swr"),
    *("vary", "vary-parse", "auth", "other"),
    *("headers-store-Set-Cookie", "headers-store-Set-Cookie2"),
]
NEEDED = [f"{PACKAGE}/client/runner.mjs", f"{PACKAGE}/tests/other.mjs", "node-fetch/lib/index.js"]
CLIENT_SECONDS = 300.0

Outcomes = dict[str, dict[str, Any]]


def main() -> int:
    """Compare, or accept; 0 when nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="write baseline.json and naive.json")
    accept = parser.parse_args().accept
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            sys.exit(f"The HTTP-cache suite needs {program}, and there is none on PATH.")
    suite = installed(ROOT / ".cachelab" / f"{PACKAGE}-{VERSION}")
    began = time.monotonic()
    with Guard() as guard:
        with edge.start(upstream=f"127.0.0.1:{suite_server(suite, guard)}") as shop:
            version = shop.nginx.version
            sites = {site.name: outcomes(suite, site) for site in (shop.guarded, shop.naive)}
    family = ".".join(version.split(".")[:2])
    print(f"{PACKAGE} {VERSION}, nginx {version}: {tally(sites['guarded'])} on the guarded site")
    if accept:
        accepted(family, sites)
        return 0
    differences = compare(family, sites["guarded"])
    for line in differences:
        print(f"FAILED {line}")
    passed = len(sites["guarded"]) - len(differences)
    print(f"{passed} passed, {len(differences)} failed in {time.monotonic() - began:.0f}s")
    return 1 if differences else 0


def installed(folder: Path) -> Path:
    """The suite's folder; npm fetches it when it is not there."""
    suite = folder / "node_modules" / PACKAGE
    if not all((suite.parent / each).is_file() for each in NEEDED):
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        command = ["npm", "install", "--prefix", str(folder), *options, "--loglevel=error"]
        subprocess.run([*command, f"{PACKAGE}@{VERSION}"], check=True, cwd=folder)
    return suite


def suite_server(suite: Path, guard: Guard) -> int:
    """Start the suite's server, which ends with `guard`, and return its port on 127.0.0.1."""
    env = {
        **os.environ,
        "npm_config_protocol": "http",
        "npm_config_port": "8000",
        "npm_config_pidfile": str(guard.folder / "suite.pid"),
    }
    script = str(suite / "server" / "server.mjs")
    command = [shutil.which("node") or "node", "--require", str(HERE / "loopback.cjs"), script]
    pid = guard.spawn(command, env=env, log="suite.log")
    log, deadline = guard.folder / "suite.log", time.monotonic() + 30
    while time.monotonic() < deadline and guard.returncode(pid) is None:
        if found := re.search(r"Listening on http://127\.0\.0\.1:(\d+)/", log.read_text()):
            return int(found[1])
        time.sleep(0.05)
    sys.exit(f"The suite's server did not start: {log.read_text().strip()[-500:]}")


def outcomes(suite: Path, site: edge.Site) -> Outcomes:
    """What became of each test on this site: set, kind, name, outcome and why."""
    told = subprocess.run(
        ["node", "--no-warnings", HERE / "client.mjs", suite, site.url, json.dumps(CHOSEN)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=CLIENT_SECONDS,
        check=True,
    ).stdout
    found: Outcomes = {}
    for test, each in json.loads(told).items():
        result = each.pop("result")
        outcome, why = (
            ("pass", "") if result is True else (KINDS.get(result[0], "error"), result[1])
        )
        found[test] = {**each, "outcome": outcome, "why": why}
    return found


# Setup: what the test needs before it can look was not to be had, such as a stored response.
KINDS = {"Assertion": "fail", "Setup": "setup", "AssertionError": "fail", "SetupError": "setup"}


def compare(family: str, now: Outcomes) -> list[str]:
    """One line for each test whose outcome is not that of the baseline."""
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    was = {**baseline["outcomes"], **baseline["except"].get(family, {})}
    is_now = {test: each["outcome"] for test, each in now.items()}
    return [
        f"{test}: was {was.get(test, 'not there')}, now {is_now.get(test, 'not there')}"
        f"{' (' + now[test]['why'] + ')' if now.get(test, {}).get('why') else ''}"
        for test in sorted({*was, *is_now})
        if was.get(test) != is_now.get(test)
    ]


def accepted(family: str, sites: dict[str, Outcomes]) -> None:
    """Write today's outcomes: the first nginx to come as the rule, others where they differ."""
    now = {test: each["outcome"] for test, each in sorted(sites["guarded"].items())}
    old = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    rule = family if old.get("nginx") in (None, family) else old["nginx"]
    exceptions = old.get("except", {})
    if rule != family:
        differ = {test: each for test, each in now.items() if old["outcomes"].get(test) != each}
        exceptions = {**exceptions, family: differ}
        now = old["outcomes"]
    kept = {"suite": f"{PACKAGE} {VERSION}", "nginx": rule, "outcomes": now}
    write(BASELINE, {**kept, "except": {name: each for name, each in exceptions.items() if each}})
    if rule == family:
        guarded = sites["guarded"]
        write(
            NAIVE,
            {
                test: {
                    "name": each["name"],
                    "kind": each["kind"],
                    "naive": each["outcome"],
                    "guarded": guarded[test]["outcome"],
                    "why": each["why"] or guarded[test]["why"],
                }
                for test, each in sorted(sites["naive"].items())
                if each["outcome"] != guarded[test]["outcome"]
            },
        )


def write(file: Path, what: Any) -> None:
    """As JSON, in a stable order."""
    file.write_text(json.dumps(what, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {file.relative_to(ROOT)}")


def tally(found: Outcomes) -> str:
    """ "70 pass, 30 fail" """
    counted: dict[str, int] = {}
    for each in found.values():
        counted[each["outcome"]] = counted.get(each["outcome"], 0) + 1
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counted.items()))


if __name__ == "__main__":
    sys.exit(main())
