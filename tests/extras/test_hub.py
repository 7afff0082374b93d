"""The hub of workshop/hub: a class logs in, each with a kernel, a cache and keys of their own.

CACHELAB_HUB_LEARNERS says how many learners (3, at least 3). Needs CI's lock, node and npm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import redis
import yaml
from traitlets.config.loader import PyFileConfigLoader

PROJECT = Path(__file__).resolve().parents[2]
HUB = PROJECT / "workshop" / "hub"
sys.path[:0] = [str(HUB), str(PROJECT / "tests")]

import accounts  # noqa: E402
import homes  # noqa: E402
import rehearse  # noqa: E402
import run  # noqa: E402
import spawner  # noqa: E402
from processes import within  # noqa: E402

from cachelab.board import learners as board_learners  # noqa: E402
from cachelab.cache import server as servers  # noqa: E402
from cachelab.process.guard import Guard  # noqa: E402

LEARNERS = int(os.environ.get("CACHELAB_HUB_LEARNERS", "3"))
EXERCISES = ["cache_down", "read", "update", "values", "version"]
pytestmark = pytest.mark.timeout(900)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Hub:
    """A hub that runs: its process, where it is and what it said."""

    process: subprocess.Popen[str]
    folder: Path
    url: str = ""
    said: list[str] = field(default_factory=list)

    def passwords(self) -> dict[str, str]:
        return accounts.handed_out(self.folder)

    def everything(self) -> list[psutil.Process]:
        """The hub and all that runs under it, kernels and caches of learners too."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def log(self) -> str:
        return "\n".join(file.read_text("utf-8") for file in (self.folder / "logs").iterdir())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.said += self.process.communicate(timeout=120)[0].splitlines()


def start(folder: Path, *arguments: str, learners: int = LEARNERS) -> Hub:
    """The hub as `make hub` starts it, on a port and in a folder of the test's own."""
    command = [sys.executable, str(HUB / "run.py"), "--folder", str(folder)]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "CACHELAB_"))}
    process = subprocess.Popen(
        [*command, "--port", str(free_port()), "--learners", str(learners), *arguments],
        env=inherited,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    hub = Hub(process, folder)
    for line in process.stdout or ():
        hub.said.append(line)
        if found := re.search(r"the hub is at (http\S+) for", line):
            hub.url = found[1]
            return hub
    raise AssertionError("".join(hub.said))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """What `make hub` says when it does not start: one line."""
    before = os.umask(0o022)

    def said(*arguments: object) -> str:
        assert run.main([str(each) for each in arguments]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    yield said
    os.umask(before)


@dataclass
class Class:
    """A class that has worked through lab 05, kernels still running."""

    hub: Hub
    learners: list[rehearse.Learner]
    done: list[rehearse.Done]
    log: str  # of the hub, the proxy and every server, when all had done


def at_work(hub: Hub) -> Class:
    passwords = {k: v for k, v in hub.passwords().items() if k != accounts.INSTRUCTOR}
    learners, done = rehearse.rehearse(hub.url, passwords)
    return Class(hub, learners, done, hub.log())


def errors(log: str) -> list[str]:
    found = [line for line in log.splitlines() if re.match(r"\[(ERROR|CRITICAL|E |C )", line)]
    return found + [line for line in log.splitlines() if line.startswith("Traceback")]


@pytest.fixture(scope="module")
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    """Each learner with a cache server of their own, as the hub has it by itself."""
    hub = start(tmp_path_factory.mktemp("hub"))
    try:
        yield at_work(hub)
    finally:
        hub.end()


def test_every_learner_logs_in_and_passes_lab_05_in_a_kernel_of_their_own(
    own_caches: Class, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\n{rehearse.table(own_caches.done)}")
    assert len(own_caches.done) == LEARNERS
    for each in own_caches.done:
        assert each.verdicts == {f"05_cache_aside.{name}": "passed" for name in EXERCISES}
        assert Path(each.said["home"]) == own_caches.hub.folder / "homes" / each.name
        assert each.said["cachelab_home"].startswith(each.said["home"])
    assert len({each.said["kernel"] for each in own_caches.done}) == LEARNERS
    assert len({each.said["server"] for each in own_caches.done}) == LEARNERS


def test_each_sees_only_keys_of_their_own_on_a_cache_of_their_own(own_caches: Class) -> None:
    assert len({each.said["cache"] for each in own_caches.done}) == LEARNERS
    for each in own_caches.done:
        assert "our own" in each.said["line"]
        marks = [key for key in each.said["keys"] if key.startswith("learner:")]
        assert marks == [f"learner:{each.name}"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a socket's path may be too long")
def test_kernels_speak_over_sockets_since_forty_at_once_would_meet_on_ports(
    own_caches: Class,
) -> None:
    for each in own_caches.done[:-1]:  # the last one's is started again by another test
        command = psutil.Process(each.said["kernel"]).cmdline()
        connection = json.loads(Path(command[command.index("-f") + 1]).read_text())
        assert connection["transport"] == "ipc"


def test_no_token_opens_another_learners_server(own_caches: Class) -> None:
    answers = rehearse.refusals(own_caches.learners)
    assert len(answers) == 7 * LEARNERS
    at_others = {code for what, code in answers.items() if "hub/api" not in what}
    assert at_others == {403}
    # To the hub itself another's server is as good as not there.
    assert set(answers.values()) <= {403, 404}
    for learner in own_caches.learners:
        assert learner.at_home("GET", "api/kernels")[0]["id"] == learner.kernel


def test_a_page_is_opened_with_the_cookie_of_the_form_and_not_by_another_learner(
    own_caches: Class,
) -> None:
    me, other = own_caches.learners[:2]
    page = me.session.get(f"{me.hub}user/{me.name}/lab", timeout=60)
    assert page.status_code == 200
    assert "jupyter-config-data" in page.text
    assert me.session.get(f"{me.hub}user/{other.name}/lab", timeout=60).status_code == 403
    assert rehearse.requests.get(f"{me.hub}user/{me.name}/api/kernels", timeout=60).status_code in {
        401,
        403,
    }


def test_a_wrong_password_and_a_name_that_is_not_of_the_class_stay_out(own_caches: Class) -> None:
    hub = own_caches.hub
    for name, password in (("learner-01", "guess"), ("mallory", hub.passwords()["learner-01"])):
        with pytest.raises(rehearse.Broken, match="was not let in"):
            rehearse.Learner(hub.url, name, password).log_in()


def test_a_second_login_finds_the_work_as_it_was_and_a_deleted_lab_again(
    own_caches: Class,
) -> None:
    learner = own_caches.learners[-1]
    home = own_caches.hub.folder / "homes" / learner.name
    mine, deleted = home / "labs" / "05_cache_aside.ipynb", home / "labs" / "00_start_here.ipynb"
    given = deleted.read_bytes()
    mine.write_text("my work")
    deleted.unlink()
    learner.stop_server()
    assert not psutil.pid_exists(own_caches.done[-1].said["server"])
    learner.start_server()
    learner.start_kernel()
    assert mine.read_text() == "my work"
    assert deleted.read_bytes() == given


def test_a_reset_gives_back_the_learners_own_lab_and_touches_no_other(own_caches: Class) -> None:
    learner = own_caches.learners[0]
    theirs = PROJECT / "labs" / "05_cache_aside.ipynb"
    before = theirs.read_bytes()
    lab = own_caches.hub.folder / "homes" / learner.name / "labs" / "05_cache_aside.ipynb"
    given = lab.read_bytes()
    lab.write_text("spoilt")
    wire = learner.wire()
    code = "import subprocess; print(subprocess.run(['cachelab', 'reset', '05_cache_aside']))"
    assert "returncode=0" in rehearse.printed(rehearse.run_cell(wire, code))
    wire.close()
    assert lab.read_bytes() == given
    assert theirs.read_bytes() == before


def test_what_is_secret_can_be_read_by_its_owner_only(own_caches: Class) -> None:
    folder = own_caches.hub.folder
    names = ("learners.csv", "passwords.json", "cookie_secret", "hub.sqlite", "logs/hub.log")
    for name in names:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    for name in ("homes/learner-01", "logs"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o700, name
    kept = (folder / "passwords.json").read_text()
    assert not any(password in kept for password in own_caches.hub.passwords().values())


def test_the_hub_and_its_proxy_listen_on_this_machine_only(own_caches: Class) -> None:
    listening = [
        connection.laddr.ip
        for process in own_caches.hub.everything()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_no_log_holds_an_error(own_caches: Class) -> None:
    assert "User learner-01 took" in own_caches.log
    assert errors(own_caches.log) == []
    assert len(own_caches.hub.said) <= 4  # and nothing of all this on the terminal


@dataclass(frozen=True)
class Shared:
    """A class on one Redis, and then what became of its hub when parts of it were killed."""

    room: Class
    all_keys: list[str]
    urls: dict[str, str]
    refused: dict[str, bool]  # name: does the server refuse it another's key?
    proxy_was_replaced: bool
    under: list[psutil.Process]
    left_over: list[psutil.Process]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """One Redis with a user for each learner; at the end the proxy and the hub are killed."""
    folder = tmp_path_factory.mktemp("shared")
    redis_of_all = servers.start(servers.from_wheel(), where="the class's", tcp=True)
    port, password = redis_of_all.address["port"], redis_of_all.address["password"]
    file = folder / "class.csv"
    count = LEARNERS if "CACHELAB_HUB_LEARNERS" in os.environ else 2
    board_learners.create(f"redis://:{password}@127.0.0.1:{port}/0", count, file)
    urls = {row.name: row.url for row in board_learners.read_rows(file)}
    hub = start(folder / "hub", "--class-file", str(file), learners=count)
    try:
        room = at_work(hub)
        with redis_of_all.client() as client:
            keys = sorted(client.scan_iter(match="*:learner:*"))
        refused = {}
        for name, url in urls.items():
            other = next(key for key in keys if not key.endswith(name))
            with redis.Redis.from_url(url) as client:
                try:
                    client.get(other)
                    refused[name] = False
                except redis.exceptions.NoPermissionError:
                    refused[name] = True
        replaced = proxy_comes_back(hub, room.learners[0])
        under = hub.everything()
        hub.process.send_signal(signal.SIGKILL)
        hub.process.communicate(timeout=60)
        left_over = psutil.wait_procs(under, timeout=30)[1]
        yield Shared(room, keys, urls, refused, replaced, under, left_over)
    finally:
        hub.end()
        redis_of_all.close()


def proxy_comes_back(hub: Hub, learner: rehearse.Learner) -> bool:
    """Whether another proxy takes the place of one that was killed, and finds the learner."""

    def proxies() -> list[psutil.Process]:
        return [one for one in hub.everything() if "configurable-http-proxy" in str(one.cmdline())]

    def answers() -> bool:
        try:
            return learner.ask("GET", f"user/{learner.name}/api/status").status_code == 200
        except rehearse.requests.RequestException:
            return False

    (first,) = proxies()
    first.kill()
    return within(60, answers) and proxies() != [first]


def test_on_one_shared_redis_each_learner_sees_only_keys_of_their_own(shared: Shared) -> None:
    for each in shared.room.done:
        assert set(each.verdicts.values()) == {"passed"}
        assert each.said["prefix"].startswith(board_learners.prefix_of(each.name))
        marks = [key for key in each.said["keys"] if key.startswith("learner:")]
        assert marks == [f"learner:{each.name}"]
    # They really were on one server, all at once, and it tells them apart itself.
    assert [key.rpartition(":")[2] for key in shared.all_keys] == sorted(shared.urls)
    assert shared.refused == dict.fromkeys(shared.urls, True)
    assert errors(shared.room.log) == []


def test_a_proxy_that_ends_is_started_again(shared: Shared) -> None:
    assert shared.proxy_was_replaced


def test_a_hub_that_is_killed_leaves_nothing_behind(shared: Shared) -> None:
    under = {process.pid for process in shared.under}
    for each in shared.room.done:
        assert {each.said["server"], each.said["kernel"]} < under
    # Also the hub, its guard, the proxy, and a guard in each kernel.
    assert len(under) >= 3 + 3 * len(shared.room.done)
    assert shared.left_over == []


def test_the_command_of_the_readme_starts_this_hub_with_the_packages_of_ci() -> None:
    command = 'make hub ARGS="--learners 10"'
    assert command in (HUB / "README.md").read_text("utf-8")
    told = subprocess.run(
        ["make", "-n", "hub", "ARGS=--learners 10"], cwd=PROJECT, capture_output=True, text=True
    ).stdout
    assert "tools/bootstrap.py --ci" in told
    assert "workshop/hub/run.py --learners 10" in told


# Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--learners", "0"], "1 to 200 learners; this asks for 0"),
        (["--names", "no-such-file"], "no-such-file cannot be read (No such file or directory)"),
        (["--names", sys.executable], "is not UTF-8 text: --names takes one name a line"),
        (["--class-file", __file__], "is not a file of `cachelab class create`"),
        (["--ip", "0.0.0.0"], "cross the network in the clear"),
        (["--ip", "here"], "has to be an address"),
        (["--tls-cert", "cert.pem"], "give both --tls-cert and --tls-key"),
        (["--class-file", "no-such-file"], "`cachelab class create` makes one"),
        (["--idle-minutes", "0"], "has to be 1 or more"),
    ],
)
def test_what_cannot_be_started_is_refused_with_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert sentence in refused("--folder", tmp_path / "hub", *arguments)
    assert not (tmp_path / "hub").exists()


def test_a_machine_without_node_is_told_what_to_install(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused("--folder", tmp_path)
    assert "needs Node 20 or newer, and node is not on PATH" in said


def test_a_taken_port_and_a_hub_that_runs_already_get_one_sentence(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"Port {port} cannot be used" in refused("--folder", tmp_path, "--port", port)
    with run.only_hub_of(tmp_path):
        assert "A hub runs already" in refused("--folder", tmp_path, "--port", free_port())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ada\nAda", "Name 2 is 'Ada'"),
        ("../ada", "Name 1 is '../ada'"),
        ("ada\ninstructor", "is not instructor"),
        ("ada\n\nada\n", "ada is there twice"),
        ("", "these are 0"),
    ],
)
def test_a_list_of_names_that_cannot_be_used_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(accounts.BadNames, match=re.escape(sentence)):
        accounts.read_names(text)


# Names, passwords, homes ---------------------------------------------------------------------


def test_a_second_start_keeps_the_passwords_and_adds_only_who_is_new(tmp_path: Path) -> None:
    accounts.enrol(tmp_path, ["ada", "bob"])
    first = accounts.handed_out(tmp_path)
    assert set(first) == {"ada", "bob", "instructor"}
    assert accounts.enrol(tmp_path, ["ada", "bob", "cyd"]) == ["cyd"]
    assert first.items() < accounts.handed_out(tmp_path).items()
    # The list was handed out and deleted: the hashes go on to hold.
    (tmp_path / "learners.csv").unlink()
    assert accounts.enrol(tmp_path, ["ada", "bob", "cyd"]) == []
    hashes = accounts.kept(tmp_path)
    assert accounts.matches(hashes, "ada", first["ada"])
    assert not accounts.matches(hashes, "ada", first["bob"])
    assert not accounts.matches(hashes, "eve", "")


def test_a_home_is_filled_without_writing_over_anything(tmp_path: Path) -> None:
    workbook, home = tmp_path / "workbook", tmp_path / "home"
    for folder in (*homes.COPIED, "content", "tools"):
        (workbook / folder).mkdir(parents=True)
    for folder in homes.COPIED:
        (workbook / folder / "05_x.ipynb").write_text("as given")
    (workbook / "labs" / "05_x.backup-1.ipynb").write_text("the teacher's answers")
    assert len(homes.prepare(home, workbook)) == 3
    assert sorted(file.name for file in (home / "labs").iterdir()) == ["05_x.ipynb"]
    (home / "labs" / "05_x.ipynb").write_text("my work")
    (home / "notebooks" / "05_x.ipynb").unlink()
    (home / "notebooks" / "05_x.ipynb").symlink_to("nowhere")
    assert homes.prepare(home, workbook) == []
    assert (home / "labs" / "05_x.ipynb").read_text() == "my work"
    assert (home / "content").resolve() == (workbook / "content").resolve()
    # The workbook has moved: what points to it goes along.
    moved = workbook.rename(tmp_path / "moved")
    homes.prepare(home, moved)
    assert (home / "content").resolve() == (moved / "content").resolve()


def test_learners_get_the_labs_as_given_not_the_answers_of_whoever_starts_the_hub(
    own_caches: Class,
) -> None:
    labs = own_caches.hub.folder / "homes" / own_caches.learners[1].name / "labs"
    stems = sorted(file.stem for file in (PROJECT / "content" / "labs").glob("[0-9]*.py"))
    for stem in stems:
        assert (labs / f"{stem}.ipynb").read_bytes() == (run.LABS / f"{stem}.ipynb").read_bytes()
        assert "raise NotImplementedError" in (labs / f"{stem}.ipynb").read_text("utf-8")


def test_kernels_that_nobody_uses_end_after_the_minutes_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHELAB_ROOT", str(tmp_path))
    monkeypatch.setenv("CACHELAB_HUB_IDLE_MINUTES", "7")
    config = PyFileConfigLoader("singleuser_config.py", str(HUB)).load_config()
    assert config.MappingKernelManager.cull_idle_timeout == 7 * 60
    assert config.MappingKernelManager.cull_connected is False
    assert config.ServerApp.shutdown_no_activity_timeout == 14 * 60
    assert config.ServerApp.root_dir == str(tmp_path)


# The files for npm and for a cluster ---------------------------------------------------------


def test_the_proxys_lock_is_exact_and_names_no_registry() -> None:
    package = json.loads((HUB / "package.json").read_text())
    lock = json.loads((HUB / "package-lock.json").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", package["dependencies"]["configurable-http-proxy"])
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert (
        packages["node_modules/configurable-http-proxy"]["version"]
        == (package["dependencies"]["configurable-http-proxy"])
    )
    for name, each in packages.items():
        assert each["integrity"].startswith("sha512-"), name
        assert "resolved" not in each, name
        assert not each.get("hasInstallScript"), name


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((HUB / name).read_text("utf-8")))


def test_the_clusters_values_agree_with_the_image() -> None:
    (values,) = manifests("values.yaml")
    image, project = (HUB / "Dockerfile").read_text(), (PROJECT / "Dockerfile").read_text()
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    learner = values["singleuser"]
    built = compose["services"]["workbook"]["image"]
    assert re.search(r"^FROM (\S+)$", image, re.M)[1] == built  # type: ignore[index]
    name, _, tag = built.partition(":")
    assert learner["image"] == {"name": f"{name}-hub", "tag": tag}
    uid = int(re.search(r"useradd .*--uid (\d+) (\w+)", project)[1])  # type: ignore[index]
    assert learner["uid"] == learner["fsGid"] == uid == 1000
    assert learner["storage"]["homeMountPath"] == "/home/learner"
    # KubeSpawner's port is 8888 unless it is told another.
    assert "EXPOSE 8888" in project
    assert "port" not in learner
    program = Path(learner["cmd"][1])
    assert (PROJECT / program.relative_to("/workbook")).is_file()
    assert f'CMD ["python", "{program}"]' in image


def test_the_clusters_chart_and_packages_are_pinned_to_one_jupyterhub() -> None:
    text = (HUB / "values.yaml").read_text()
    hub = re.search(r"JupyterHub (\d+)\.\d+\.\d+", text)
    lock = (HUB / "requirements-cluster.txt").read_text()
    pinned = re.findall(r"^(\S+)==(\S+)", lock, re.M)
    assert hub is not None
    assert re.search(r"--version \d+\.\d+\.\d+ ", text)
    # A server speaks with a hub of its own major version only.
    assert dict(pinned)["jupyterhub"].split(".")[0] == hub[1]
    assert lock.count("--hash=sha256:") >= len(pinned) > 5
    have = dict(re.findall(r"^(\S+)==(\S+)", (PROJECT / "requirements.txt").read_text(), re.M))
    assert not set(dict(pinned)) & set(have)


def test_each_pod_gets_the_redis_url_and_the_prefix_of_its_own_learner() -> None:
    (values,) = manifests("values.yaml")
    c = SimpleNamespace(KubeSpawner=SimpleNamespace())
    exec(values["hub"]["extraConfig"]["cachelab"], {"c": c})
    spawner = SimpleNamespace(user=SimpleNamespace(name="ada"), environment={"KEPT": "1"})
    before = spawner.environment
    c.KubeSpawner.pre_spawn_hook(spawner)
    keys = {
        name: each["valueFrom"]["secretKeyRef"]["key"]
        for name, each in spawner.environment.items()
        if name != "KEPT"
    }
    assert keys == {
        "CACHELAB_REDIS_URL": "ada",
        "CACHELAB_CLASS_URL": "ada",
        "CACHELAB_PREFIX": "ada.prefix",
    }
    assert before == {"KEPT": "1"}


def test_the_clusters_redis_keeps_nothing_asks_a_password_and_answers_learners_only() -> None:
    deployment, service, policy = manifests("redis.yaml")
    (values,) = manifests("values.yaml")
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == compose["services"]["redis"]["image"]
    words = container["args"]
    assert words[words.index("--save") + 1] == ""
    assert words[words.index("--appendonly") + 1] == "no"
    (secret,) = container["env"]
    assert words[words.index("--requirepass") + 1] == f"$({secret['name']})"
    assert "secretKeyRef" in secret["valueFrom"]
    assert deployment["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    port = container["ports"][0]["containerPort"]
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["port"] == port
    (way_in,) = policy["spec"]["ingress"]
    assert way_in["ports"][0]["port"] == port
    (way_out,) = values["singleuser"]["networkPolicy"]["egress"]
    assert way_out["to"][0]["podSelector"]["matchLabels"] == labels
    assert way_out["ports"][0]["port"] == port


# A start that fails ---------------------------------------------------------------------------

STANDS_IN = """
import http.server, os

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(403 if self.path == "/user/ada/api" else 404)
        self.send_header("X-JupyterHub-Version", "6")
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_a_server_whose_port_was_taken_is_started_again_on_another(
    taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "learner.py"
    program.write_text(STANDS_IN)
    with contextlib.ExitStack() as ends:
        guard = Guard()
        ends.callback(guard.close)
        strangers = [ends.enter_context(socket.socket()) for _ in range(taken)]
        for one in strangers:
            one.bind(("127.0.0.1", 0))
            one.listen()  # it takes connections, and never answers
        ports = [one.getsockname()[1] for one in strangers]
        offered = iter([*ports, free_port()])
        monkeypatch.setattr(spawner, "free_port", lambda: next(offered))
        monkeypatch.setattr(spawner, "LEARNER", program)

        class Bare(spawner.LearnerSpawner):
            server = SimpleNamespace(base_url="/user/ada/")
            user = SimpleNamespace(name="ada")

            def get_args(self) -> list[str]:
                return []

            def get_env(self) -> dict[str, str]:
                return {**os.environ, "PORT": str(self.port)}

        monkeypatch.setattr(spawner.LearnerSpawner, "guard", guard, raising=False)
        one = Bare(logs=str(tmp_path))
        if taken == spawner.TRIES:
            with pytest.raises(RuntimeError, match=r"ended 3 times.*ada\.log says why"):
                asyncio.run(one.start())
            return
        assert asyncio.run(one.start())[1] not in ports
        assert asyncio.run(one.poll()) is None
