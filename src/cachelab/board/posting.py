"""The learner's side of the board: a name, and a way for verdicts that never slows a check."""

# redis-py is typed in part only.
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import atexit
import json
import os
import queue
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import redis

from cachelab.board.settings import URL_VARIABLE
from cachelab.board.stream import (
    LENGTH,
    LONGEST_NAME,
    BoardError,
    connect,
    place,
    plain,
    reason,
    stream_of,
)
from cachelab.exercises.messages import message_template
from cachelab.record.verdict import Verdict

SCHEMA = "1"
WAIT_SECONDS = 0.2  # what a board that does not answer may cost a check, once
PATIENCE_SECONDS = 30.0  # how long one verdict is tried behind the learner's back
LONGEST_PAUSE = 2.0
SILENT_SECONDS = 1.5  # without an answer and without an error, before the learner is told
JOIN_SECONDS = 5.0  # `join` waits to see whether the board is there
LAST_SECONDS = 1.0  # at the end of the process, for what is still under way

JOINED = "joined"


# The name ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learner:
    """Who is at work: the chosen name, and an id that tells two people of one name apart."""

    name: str
    id: str


def learner() -> Learner | None:
    """The name that was chosen: CACHELAB_NAME, or what `join` has kept; None if there is none.

    Never the name of the operating system's user.
    """
    named = os.environ.get("CACHELAB_NAME", "")
    if named.strip():
        name = _fit(named)
        return Learner(name, f"name:{name}")
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
        return Learner(_fit(kept["name"]), str(kept["learner"])[:LONGEST_NAME])
    except (OSError, ValueError, KeyError, TypeError, BoardError):
        return None  # not there, or not ours any more: the learner is asked again


def join(name: str) -> str:
    """Keep `name` for the board and greet it; returns the sentence to show."""
    chosen = _fit(name)
    before = learner()
    same = before.id if before and not before.id.startswith("name:") else secrets.token_hex(8)
    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.{os.getpid()}")
        new.touch(mode=0o600)
        new.write_text(json.dumps({"schema": 1, "name": chosen, "learner": same}), "utf-8")
        new.replace(file)
    except OSError as error:
        raise BoardError(
            f"The name cannot be kept in {file.parent} ({error.strerror}): set CACHELAB_NAME"
            " before you start JupyterLab instead."
        ) from None
    overruled = os.environ.get("CACHELAB_NAME", "").strip()
    if overruled and overruled != chosen:
        return f"Kept; but CACHELAB_NAME is set, so the board goes on calling you {overruled!r}."
    url = os.environ.get(URL_VARIABLE)
    if not url:
        return f"Kept: {chosen!r}. {URL_VARIABLE} is not set, so nothing is sent anywhere."
    _reset_senders()
    sender = _sender(url, Learner(chosen, same))
    trouble = sender.post({"exercise": "", "outcome": JOINED}, wait=JOIN_SECONDS)
    return trouble or f"You are on the board at {sender.place} as {chosen!r}."


def _fit(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise BoardError('A name for the board is needed: cachelab.join("a name of your choice").')
    shown = plain(name, 10_000)
    if len(shown) > LONGEST_NAME:
        raise BoardError(
            f"A name for the board has at most {LONGEST_NAME} characters; this has {len(shown)}."
        )
    return shown


def _file() -> Path:
    home = os.environ.get("CACHELAB_HOME")
    return Path(home or platformdirs.user_cache_dir("cachelab")) / "learner.json"


# The way -------------------------------------------------------------------------------------


@dataclass
class Post:
    """One verdict on its way; `id` stays the same however often it is sent."""

    fields: dict[str, str]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    begun: bool = False  # whether the board has been asked to take it
    done: threading.Event = field(default_factory=threading.Event)


class Sender:
    """The way of one learner to the board: posts wait in a queue, and one thread brings them.

    A post whose answer is lost is sent again under the same id, and the board counts it once.
    """

    def __init__(self, url: str, who: Learner) -> None:
        self.place, self.stream, self.who = place(url), stream_of(url), who
        self.given_up = False
        self._trouble = ""  # why what is on its way has not arrived yet
        self._began: float | None = None  # since when it is on its way
        self._is_waited_for, self._has_said = True, False
        self._client = connect(url)
        self._posts: queue.SimpleQueue[Post | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="class board", daemon=True)
        self._thread.start()

    def post(self, fields: dict[str, str], wait: float = WAIT_SECONDS) -> str:
        """Send `fields`; returns a sentence the first time that something is wrong, else ""."""
        if not self.given_up:
            post = Post(fields)
            self._posts.put(post)
            if self._is_waited_for and not post.done.wait(wait) and post.begun:
                self._is_waited_for = False
        return self._sentence()

    def _sentence(self) -> str:
        began = self._began
        is_silent = began is not None and time.monotonic() - began > SILENT_SECONDS
        if self._has_said or not (self._trouble or is_silent):
            return ""
        self._has_said = True
        if self.given_up:
            return (
                f"The class board at {self.place} takes nothing from you ({self._trouble}): your"
                " checks go on as before, without it."
            )
        why = f" ({self._trouble})" if self._trouble else ""
        return (
            f"The class board at {self.place} does not answer{why}: your checks go on as before,"
            " and what it missed is sent if it comes back soon."
        )

    def close(self, seconds: float = LAST_SECONDS) -> bool:
        """Let what is under way arrive, for `seconds` at most; whether all of it did."""
        self._posts.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive() and not self.given_up

    def _send_all(self) -> None:
        while (post := self._posts.get()) is not None:
            if not self.given_up:
                try:
                    self._send(post)
                except Exception as error:  # a board is never worth a traceback
                    self._give_up(error)
            post.done.set()
        self._client.close()

    def _send(self, post: Post) -> None:
        fields: dict[Any, Any] = {
            "v": SCHEMA,
            "id": post.id,
            "learner": self.who.id,
            "name": self.who.name,
            **post.fields,
        }
        post.begun, self._began = True, time.monotonic()
        until, pause = self._began + PATIENCE_SECONDS, 0.05
        while True:
            try:
                self._client.xadd(self.stream, fields, maxlen=LENGTH, approximate=True)
                self._trouble, self._began = "", None
                return
            except redis.AuthenticationError as error:
                last: BaseException = error
                break
            except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
                # Nobody knows whether it arrived. The same id goes again.
                last, self._trouble = error, reason(error)
                if time.monotonic() + pause > until:
                    break
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except redis.RedisError as error:
                last = error
                break
        self._give_up(last)

    def _give_up(self, error: BaseException) -> None:
        self._trouble, self._began, self.given_up = reason(error), None, True


# One process ---------------------------------------------------------------------------------

_senders: dict[tuple[int, str, Learner], Sender] = {}
_attempts: Counter[str] = Counter()
_said: set[str] = set()


def report(verdict: Verdict) -> None:
    """Tell the board of a verdict; whatever goes wrong is one printed sentence, once."""
    try:
        said = _report(verdict)
    except Exception as error:
        said = f"The class board was not told ({reason(error)}): your checks go on as before."
    if said and said not in _said:
        _said.add(said)
        print(said)


def _report(verdict: Verdict) -> str:
    judged = verdict.outcome != "not attempted"
    _attempts[verdict.exercise] += judged
    who = learner()
    if who is None:
        return (
            "Your class has a board, and it does not know you yet: choose a name with"
            ' cachelab.join("a name of your choice"). Until then nothing is sent.'
        )
    fields = {
        "exercise": verdict.exercise,
        "outcome": verdict.outcome,
        "attempt": str(_attempts[verdict.exercise]),
    }
    if verdict.outcome in {"failed", "proved nothing"}:
        fields["message"] = plain(message_template(verdict))
    return _sender(os.environ[URL_VARIABLE], who).post(fields)


def _sender(url: str, who: Learner) -> Sender:
    # A forked process has the queue but not the thread: it gets a sender of its own.
    key = (os.getpid(), url, who)
    if key not in _senders:
        _senders[key] = Sender(url, who)
    return _senders[key]


def _reset_senders() -> None:
    """Begin anew: a board that was given up is tried again."""
    for (pid, _, _), sender in list(_senders.items()):
        if pid == os.getpid():
            sender.close(0.0)
    _senders.clear()
    _said.clear()


@atexit.register
def _flush_at_exit() -> None:
    until = time.monotonic() + LAST_SECONDS
    for (pid, _, _), sender in list(_senders.items()):
        if pid == os.getpid() and not sender.given_up:
            sender.close(max(0.0, until - time.monotonic()))
