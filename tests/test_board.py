"""The class board: what is sent, what never is, none lost, none counted twice, and what shows."""

from __future__ import annotations

import getpass
import json
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import jupytext
import pytest
import redis

import cachelab
from cachelab import board
from cachelab.board import posting, standing
from cachelab.board.posting import Learner, Sender
from cachelab.board.standing import Board, Watch, as_html, as_text
from cachelab.board.stream import BOARD, LONGEST_NAME, ROSTER, BoardError, connect
from cachelab.cache import server as servers
from cachelab.command import cli
from cachelab.exercises import messages
from cachelab.exercises.messages import message_template
from cachelab.record import verdict
from cachelab.record.verdict import Verdict

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((Path(cachelab.__file__).parent / "board" / "board.json").read_text())
ID = "00_start_here.remember"
SECRET = "my_secret_code"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no server for Windows")


@pytest.fixture(scope="module")
def redis_of_the_class() -> Iterator[servers.OurServer]:
    one = servers.start(servers.from_wheel(), where="the class's", tcp=True)
    yield one
    one.close()


@pytest.fixture
def url(redis_of_the_class: servers.OurServer) -> str:
    """The address of an empty board."""
    at = redis_of_the_class.address
    with redis_of_the_class.client() as client:
        client.delete(BOARD, ROSTER, f"{BOARD}:learner-01")
    return f"redis://:{at['password']}@{at['host']}:{at['port']}/0"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A learner who has not chosen a name, in a process that has told nothing."""
    for name in ("CACHELAB_CLASS_URL", "CACHELAB_NAME", "CACHELAB_JUDGING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CACHELAB_HOME", str(tmp_path / "home"))
    posting._reset_senders()
    posting._attempts.clear()
    yield tmp_path / "home"
    posting._reset_senders()


def entries(url: str) -> list[dict[str, str]]:
    with connect(url) as client:
        return [fields for _, fields in client.xrange(BOARD)]


def settle() -> None:
    for sender in posting._senders.values():
        assert sender.close(20)


def wrong(cache: Any, key: str, value: Any, seconds: int) -> None:
    my_secret_code = str(value)
    cache.set(key, my_secret_code, ex=seconds)


def right(cache: Any, key: str, value: Any, seconds: int) -> None:
    cache.set(key, json.dumps(value), ex=seconds)


# What is sent --------------------------------------------------------------------------------

NO_SOCKETS = """
import json, os, sys
def refuse(event, args):
    if event.startswith("socket."):
        os.write(2, f"{event} {args}".encode())
        os._exit(9)  # from whatever thread
sys.addaudithook(refuse)
import cachelab
cachelab.join("Ada")
def remember(cache, key, value, seconds):
    cache.set(key, json.dumps(value), ex=seconds)
print(cachelab.check("00_start_here.remember", remember).outcome)
print(cachelab.check("00_start_here.remember", 5).outcome)
"""


def test_without_the_variable_no_socket_is_opened(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_SOCKETS], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Kept: 'Ada'. CACHELAB_CLASS_URL is not set, so nothing is sent anywhere.",
        "passed",
        "failed",
    ]


def test_a_verdict_is_told_with_these_fields_and_no_others(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHELAB_CLASS_URL", url)
    cachelab.join("Ada")
    assert cachelab.check(ID, wrong).outcome == "failed"
    assert cachelab.check(ID, right).outcome == "passed"
    settle()
    joined, first, second = entries(url)
    same = {"v": "1", "name": "Ada", "learner": joined["learner"]}
    assert joined == {**same, "id": joined["id"], "exercise": "", "outcome": "joined"}
    about = {**same, "exercise": ID}
    assert first == {
        **about,
        "id": first["id"],
        "outcome": "failed",
        "attempt": "1",
        "message": "After remember(cache, 'greeting:1', … the text … is stored, which is not JSON.",
    }
    assert second == {**about, "id": second["id"], "outcome": "passed", "attempt": "2"}
    assert len({one["id"] for one in (joined, first, second)}) == 3
    assert capsys.readouterr().out == (
        f"You are on the board at {url.rpartition('@')[2].removesuffix('/0')} as 'Ada'.\n"
    )


def test_the_message_is_made_where_the_check_runs_and_in_no_thread(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An error in it, in a thread beside the next check, has lost a verdict before.
    threads: set[str] = set()
    real = messages._phrases

    def noted(lab: str) -> frozenset[str]:
        threads.add(threading.current_thread().name)
        return real(lab)

    monkeypatch.setattr(messages, "_phrases", noted)
    monkeypatch.setenv("CACHELAB_CLASS_URL", url)
    cachelab.join("Ada")
    cachelab.check(ID, wrong)
    settle()
    assert len(entries(url)) == 2
    assert threads == {threading.current_thread().name}


def test_an_error_that_nobody_foresaw_is_told_once_and_never_a_traceback(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHELAB_CLASS_URL", url)
    cachelab.join("Ada")
    capsys.readouterr()

    def fails(sender: Sender, post: posting.Post) -> None:
        raise SystemError("AST constructor recursion depth mismatch (before=15, after=18)")

    monkeypatch.setattr(Sender, "_send", fails)
    assert cachelab.check(ID, wrong).outcome == "failed"
    assert cachelab.check(ID, right).outcome == "passed"
    said = capsys.readouterr()
    assert said.out.count("takes nothing from you (AST constructor recursion depth mismatch") == 1
    assert (said.out.count("\n"), said.err) == (1, "")


def raises(cache: Any, key: str, value: Any, seconds: int) -> None:
    raise ValueError(SECRET + " is the password")


def leaves(cache: Any, key: str, value: Any, seconds: int) -> None:
    sys.exit("my_secret_code")


def spins(cache: Any, key: str, value: Any, seconds: int) -> None:
    my_secret_code = True
    while my_secret_code:
        pass


def stores(cache: Any, key: str, value: Any, seconds: int) -> None:
    cache.set(SECRET, SECRET)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (raises, "remember raised ValueError … line … ValueError …"),
        (leaves, "remember … line … ; it should return, so that the program goes on."),
        (spins, "remember did not come back within … s; it was … line …"),
        (stores, "After remember(cache, 'greeting:1', … the cache holds … expected was … alone."),
        (SECRET, "A function remember(cache, key, value, seconds) was expected, but this is …"),
        (
            lambda my_secret_code: 1,
            "remember takes … argument … , but remember(cache, key, value, seconds) was expected.",
        ),
    ],
)
def test_nothing_of_the_learners_code_is_in_the_message(answer: Any, told: str) -> None:
    judged = cachelab.exercises.check(ID, answer)
    assert judged.outcome == "failed"
    message = message_template(judged)
    assert SECRET not in message
    assert re.findall(r"\w+", message) == re.findall(r"\w+", told), message


def test_numbers_are_left_out_so_that_one_mistake_has_one_message() -> None:
    told = [f"The first read asked {n} queries; one is enough." for n in (2, 37)]
    failed = [Verdict("failed", one, exercise="05_cache_aside.read") for one in told]
    said = {message_template(one) for one in failed}
    assert said == {"The first read asked … queries; one is enough."}


def test_a_key_is_left_out_though_the_check_has_it_in_its_code() -> None:
    told = "The copy under user:v1:1 has no TTL: it would stay for ever."
    failed = Verdict("failed", told, exercise="05_cache_aside.read")
    assert message_template(failed) == told.replace("user:v1:1", "…")


def test_inside_cachelab_check_nothing_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHELAB_CLASS_URL", url)
    monkeypatch.setenv("CACHELAB_NAME", "Ada")
    monkeypatch.setenv("CACHELAB_JUDGING", "1")
    cachelab.check(ID, wrong)
    assert posting._senders == {}


# The name ------------------------------------------------------------------------------------


def test_a_learner_without_a_name_is_asked_once_and_nothing_is_sent(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHELAB_CLASS_URL", url)
    for _ in range(2):
        cachelab.check(ID, 5)
    said = capsys.readouterr().out
    assert said.count('cachelab.join("a name of your choice")') == 1
    assert getpass.getuser() not in said
    assert entries(url) == []


def test_a_name_is_kept_for_the_next_kernel_for_its_owners_eyes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cachelab.join("  Ada   Lovelace ")
    first = posting.learner()
    assert first is not None
    assert first.name == "Ada Lovelace"
    (file,) = home.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    cachelab.join("Ada L.")
    second = posting.learner()
    assert second is not None
    assert (second.name, second.id) == ("Ada L.", first.id)


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"name": 5, "learner": "x"}', '{"name": "Ada"}'])
def test_a_broken_name_file_means_no_name(home: Path, kept: str) -> None:
    home.mkdir()
    (home / "learner.json").write_text(kept)
    assert posting.learner() is None


def test_cachelab_name_comes_before_the_kept_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHELAB_NAME", "Grace")
    cachelab.join("Ada")
    assert "goes on calling you 'Grace'" in capsys.readouterr().out
    assert posting.learner() == Learner("Grace", "name:Grace")


@pytest.mark.parametrize("name", ["", "   ", None, 5, "x" * (LONGEST_NAME + 1)])
def test_what_is_no_name_is_refused_in_one_sentence(home: Path, name: Any) -> None:
    with pytest.raises(BoardError, match="A name for the board"):
        cachelab.join(name)
    assert not home.exists()


# None lost, none twice -----------------------------------------------------------------------


@pytest.mark.slow
def test_two_hundred_learners_post_twenty_verdicts_each_while_their_connections_are_cut(
    url: str,
) -> None:
    senders = [Sender(url, Learner(f"learner {n}", f"{n:016x}")) for n in range(200)]
    begin = threading.Barrier(201)

    def learn(sender: Sender) -> None:
        begin.wait()
        for n in range(20):
            sender.post({"exercise": ID, "outcome": "passed", "attempt": str(n)})

    learners = [threading.Thread(target=learn, args=(sender,)) for sender in senders]
    for learner in learners:
        learner.start()
    cut = 0
    with connect(url) as client:
        begin.wait()
        while any(learner.is_alive() for learner in learners):
            cut += client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.2)
    assert cut > 0
    assert all(sender.close(60) for sender in senders)
    told = Board()
    with connect(url) as client:
        assert told.read(client) >= 4_000
        assert told.verdicts == 4_000
        assert told.read(client) == 0
    assert len(told.people) == 200
    assert told.judged[ID] == 4_000
    assert told.unread == 0
    assert {person.outcome for person in told.people.values()} == {"passed"}


def test_a_verdict_whose_answer_was_lost_is_sent_again_and_counted_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = redis.Redis.xadd, []

    def loses_every_other_answer(self: Any, *args: Any, **options: Any) -> Any:
        added = real(self, *args, **options)
        calls.append(added)
        if len(calls) % 2:
            raise redis.ConnectionError("the answer was lost")
        return added

    monkeypatch.setattr(redis.Redis, "xadd", loses_every_other_answer)
    sender = Sender(url, Learner("Ada", "a" * 16))
    for n in range(5):
        sender.post({"exercise": ID, "outcome": "failed", "attempt": str(n), "message": "Wrong."})
    assert sender.close(20)
    told = Board()
    with connect(url) as client:
        told.read(client)
    assert (len(calls), told.verdicts, told.twice) == (10, 5, 5)
    assert told.as_dict()["exercises"][0]["failed_share"] == 1.0


# A board that is not there -------------------------------------------------------------------


@pytest.fixture(params=["refuses", "is silent"])
def dead(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a port where nobody listens, and of one where nobody answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            one.listen()
        yield f"redis://:secret@127.0.0.1:{one.getsockname()[1]}"


def test_a_dead_board_costs_one_check_a_moment_and_the_others_nothing(
    dead: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHELAB_CLASS_URL", dead)
    monkeypatch.setenv("CACHELAB_NAME", "Ada")
    judged = Verdict("passed", "Well done.", exercise=ID)
    said, took = "", []
    until = time.monotonic() + 30
    while (not said or len(took) < 20) and time.monotonic() < until:
        began = time.monotonic()
        posting.report(judged)
        took.append(time.monotonic() - began)
        time.sleep(0.05)
        said += capsys.readouterr().out
    # 0.2 s and nothing; bounds for a machine that is busy with other things.
    assert took[0] < 2.0
    assert sum(took[1:20]) < 1.0
    assert len(said.splitlines()) == 1
    assert "does not answer" in said
    assert "secret" not in said


def test_a_board_that_stays_dead_is_left_alone(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(posting, "connect", lambda url: connect(url, seconds=0.2))
    sender = Sender(dead, Learner("Ada", "a" * 16))
    sender.post({"exercise": ID, "outcome": "passed"})
    until = time.monotonic() + 30
    while not sender.given_up and time.monotonic() < until:
        time.sleep(0.02)
    assert sender.given_up
    sender.post({"exercise": ID, "outcome": "passed"})
    assert sender.post({"exercise": ID, "outcome": "passed"}) == ""
    assert sender._posts.empty()


def test_a_board_that_comes_back_gets_what_it_missed(
    redis_of_the_class: servers.OurServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "SILENT_SECONDS", 0.01)
    sender = Sender(url, Learner("Ada", "a" * 16))
    redis_of_the_class.pause()
    try:
        said = [sender.post({"exercise": ID, "outcome": "failed", "message": "No."})]
        while not any(said):
            time.sleep(0.1)
            said.append(sender.post({"exercise": ID, "outcome": "passed"}))
        assert "does not answer" in said[-1]
    finally:
        redis_of_the_class.resume()
    assert sender.close(30)
    told = Board()
    with connect(url) as client:
        told.read(client)
    assert (told.verdicts, told.judged[ID]) == (len(said), len(said))


def test_a_board_that_refuses_says_so_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    sender = Sender(re.sub(r"//:[^@]+@", "//:wrong@", url), Learner("Ada", "a" * 16))
    said = sender.post({"exercise": ID, "outcome": "passed"})
    assert "takes nothing from you" in said or "does not answer" in said
    assert sender.post({"exercise": ID, "outcome": "passed"}) == ""
    assert entries(url) == []


@pytest.mark.parametrize(
    "bad", ["nonsense", "http://example.org", "redis://h:port", "redis://:s3cret@h:x"]
)
def test_an_address_that_cannot_be_read_never_breaks_a_check(
    bad: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CACHELAB_CLASS_URL", bad)
    monkeypatch.setenv("CACHELAB_NAME", "Ada")
    assert cachelab.check(ID, 5).outcome == "failed"
    cachelab.check(ID, 5)
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert "cannot be read" in said
    assert "s3cret" not in said


# What the instructor sees --------------------------------------------------------------------


def entry(n: int, who: str, outcome: str, exercise: str = ID, **more: str) -> dict[str, str]:
    told = {"v": "1", "id": f"{n:016x}", "learner": who, "name": who, "exercise": exercise}
    return {**told, "outcome": outcome, **more}


def sample() -> Board:
    """Ada passes at the third try, Bob is stuck, Cid has joined, and another Bob passed at once."""
    told = Board()
    rows = [
        entry(1, "ada", "failed", message="It has no TTL."),
        entry(2, "ada", "proved nothing", message="Nobody read."),
        entry(3, "ada", "passed"),
        entry(4, "ada", "failed", message="It has no TTL."),
        *(entry(n, "bob", "failed", message="It has no TTL.") for n in (5, 6, 7)),
        entry(8, "bob", "not attempted"),
        entry(9, "cid", "joined", exercise=""),
        {**entry(10, "b2", "passed", exercise="05_cache_aside.read"), "name": "bob"},
    ]
    for n, row in enumerate(rows):
        told.add(BOARD, f"{60_000 * n}-0", row)
    return told


def test_the_board_tells_who_is_where_what_is_hard_and_what_goes_wrong() -> None:
    told = sample().as_dict(now=600)
    jsonschema.validate(told, SCHEMA)
    assert told["exercises"] == [
        {"exercise": ID, "tried": 2, "passed": 1, "failed_share": 0.714, "tries_until_passed": 3.0},
        {
            "exercise": "05_cache_aside.read",
            "tried": 1,
            "passed": 1,
            "failed_share": 0.0,
            "tries_until_passed": 1.0,
        },
    ]
    assert told["wrong_answers"][0] == (
        {"exercise": ID, "message": "It has no TTL.", "learners": 2, "times": 5}
    )
    people = [(one["name"], one["outcome"], one["tries"], one["stuck"]) for one in told["people"]]
    assert people == [
        ("bob", "not attempted", 3, True),
        ("ada", "failed", 3, False),
        ("bob (2)", "passed", 1, False),
        ("cid", "joined", 0, False),
    ]
    assert told["people"][0]["minutes_ago"] == 3.0
    text = as_text(told)
    assert "4 learners, 9 verdicts, 1 stuck" in text
    assert re.search(r"bob +STUCK +00_start_here.remember", text)


def test_what_strangers_put_on_the_board_is_left_out_or_shown_as_plain_text() -> None:
    told = Board()
    bad: list[dict[str, str]] = [
        {},
        {"v": "2"},
        entry(1, "x", "won"),
        entry(2, "x", "passed", exercise="<script>"),
        {**entry(3, "x", "passed"), "id": "1"},
        {**entry(4, "", "passed")},
    ]
    for row in bad:
        told.add(BOARD, "1-1", row)
    assert (told.unread, told.verdicts, told.people) == (len(bad), 0, {})
    name, message = "\x1b[2J<b>Eve</b>\n" + "x" * 1000, "\x1b]0;title\x07<script>alert(1)</script>"
    told.add(BOARD, "1-2", {**entry(5, "eve", "failed", message=message), "name": name})
    shown = told.as_dict()
    assert "\x1b" not in as_text(shown)
    assert "<script>" not in as_html(shown)
    assert "<b>" not in as_html(shown)
    assert len(shown["people"][0]["name"]) == LONGEST_NAME


def test_only_what_is_new_is_read_again(url: str) -> None:
    told = Board()
    with connect(url) as client:
        for n in range(3):
            client.xadd(BOARD, entry(n, "ada", "passed"))
        assert told.read(client) == 3
        client.xadd(BOARD, entry(3, "ada", "passed"))
        client.hset(ROSTER, "learner-01", "0")
        client.xadd(f"{BOARD}:learner-01", entry(4, "ada", "passed"))
        assert told.read(client) == 2
        assert told.read(client) == 0
    # The same name on a stream of its own is somebody else.
    assert [one["name"] for one in told.as_dict()["people"]] == ["ada", "ada (2)"]


def test_the_command_prints_the_board_once_as_text_and_as_json(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["board", "--url", url, "--once"]) == 0
    assert "0 learners, 0 verdicts" in capsys.readouterr().out
    with connect(url) as client:
        client.xadd(BOARD, entry(1, "ada", "failed", message="It has no TTL."))
    monkeypatch.setenv("CACHELAB_CLASS_URL", url)
    assert cli.main(["board", "--once", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, SCHEMA)
    assert told["people"][0]["name"] == "ada"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_live_board_prints_only_when_something_is_new(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    naps = iter(range(4))

    def nap(_: float) -> None:
        n = next(naps)
        if n == 2:
            with connect(url) as client:
                client.xadd(BOARD, entry(1, "ada", "passed"))
        if n == 3:
            raise KeyboardInterrupt

    # Not in `time` itself: the sender of another test may still be trying, in a thread.
    monkeypatch.setattr("cachelab.board.commands.time", SimpleNamespace(sleep=nap))
    assert cli.main(["board", "--url", url, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["verdicts"] for line in lines] == [0, 1]


def test_a_board_that_cannot_be_read_is_one_sentence_and_exit_code_2(
    dead: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "connect", lambda url: connect(url, seconds=0.3))
    for bad in (dead, "nonsense"):
        assert cli.main(["board", "--once", "--url", bad]) == 2
        told = capsys.readouterr()
        assert (told.out, len(told.err.splitlines())) == ("", 1)
        assert "secret" not in told.err


def test_a_board_without_an_address_says_how_to_name_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["board"])
    assert left.value.code == 2
    assert "set CACHELAB_CLASS_URL" in capsys.readouterr().err
    with pytest.raises(BoardError, match="set CACHELAB_CLASS_URL"):
        board.watch()


def test_a_board_in_a_notebook_is_read_anew_each_time_it_is_shown(url: str) -> None:
    room = Watch(url)
    assert "0 learners" in room._repr_mimebundle_()["text/html"]
    with connect(url) as client:
        client.xadd(BOARD, entry(1, "ada", "passed"))
    assert "ada" in room._repr_mimebundle_()["text/plain"]
    assert "ada" in room._repr_mimebundle_()["text/html"]

    listed = SCHEMA["properties"]["people"]["items"]["properties"]["outcome"]["enum"]
    assert set(listed) == {"joined", *verdict.OUTCOMES}


# The instructor's notebook -------------------------------------------------------------------

SOURCE = ROOT / "content" / "workshop" / "board.py"
NOTEBOOK = ROOT / "workshop" / "board.ipynb"


def test_the_instructors_notebook_matches_its_source() -> None:
    wanted = [
        (cell.cell_type, cell.source) for cell in jupytext.read(SOURCE, fmt="py:percent").cells
    ]
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in found["cells"]] == wanted, (
        "workshop/board.ipynb is made from content/workshop/board.py: .venv/bin/jupytext --to"
        " notebook --update -o workshop/board.ipynb content/workshop/board.py"
    )
    assert not any(cell.get("outputs") for cell in found["cells"])


@pytest.mark.parametrize("board_holds", [0, 40])
def test_the_instructors_notebook_runs_on_an_empty_and_on_a_full_board(
    url: str, board_holds: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect(url) as client:
        for n in range(board_holds):
            client.xadd(BOARD, entry(n, f"learner {n % 8}", "failed", message="It has no TTL."))

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("CACHELAB_CLASS_URL", url)
    monkeypatch.setattr("cachelab.board.standing.time.sleep", stop)
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    last = capsys.readouterr().out.splitlines()[-1]
    if board_holds:
        assert last.startswith(f"{ID}: at work are learner 0, learner 1")
    else:
        assert last == "no exercise yet: at work are none"
