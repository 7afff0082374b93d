"""Names and passwords of a class: handed out from one file, checked against their hashes."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

INSTRUCTOR = "instructor"
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
MOST = 200
HANDED_OUT, KEPT = "learners.csv", "passwords.json"
# No 0, o, 1, l or i: a password is read from paper. Twelve of 31 are 59 bits.
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


class BadNames(ValueError):
    """These cannot be the names of a class; the text is one sentence."""


def numbered(count: int) -> list[str]:
    """learner-01 and on, as `cachelab class create` has them; BadNames beyond 1 to 200."""
    if not 1 <= count <= MOST:
        raise BadNames(f"A hub on one machine is for 1 to {MOST} learners; this asks for {count}.")
    return [f"learner-{number:02d}" for number in range(1, count + 1)]


def read_names(text: str) -> list[str]:
    """The names in a file, one a line; BadNames for one that cannot be a name, or twice there."""
    names = [line.strip() for line in text.splitlines() if line.strip()]
    for number, name in enumerate(names, 1):
        if not NAME.fullmatch(name) or name == INSTRUCTOR:
            raise BadNames(
                f"Name {number} is {name!r}, but a name is 1 to 32 small letters, digits and"
                f" hyphens, begins with a letter, and is not {INSTRUCTOR}."
            )
        if name in names[: number - 1]:
            raise BadNames(f"The name {name} is there twice: give each learner one of their own.")
    if not 1 <= len(names) <= MOST:
        raise BadNames(f"A hub on one machine is for 1 to {MOST} learners; these are {len(names)}.")
    return names


def enrol(folder: Path, names: Iterable[str]) -> list[str]:
    """Give each name that has none a password; return the names that are new.

    `learners.csv` (name, password) is for handing out and may be deleted afterwards;
    `passwords.json` holds the scrypt hashes that the hub checks. Both can be read by you alone.
    """
    hashes = kept(folder)
    new = [name for name in (*names, INSTRUCTOR) if name not in hashes]
    if not new:
        return []
    given = {name: "-".join(_some_letters() for _ in range(3)) for name in new}
    handed = {**handed_out(folder), **given}
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["name", "password"])
    writer.writerows(sorted(handed.items()))
    write_private(folder / HANDED_OUT, rows.getvalue())
    hashes |= {name: hashed(password) for name, password in given.items()}
    write_private(folder / KEPT, json.dumps(hashes, indent=1) + "\n")
    return new


def _some_letters() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(4))


def handed_out(folder: Path) -> dict[str, str]:
    """Name to password, of those in `learners.csv`; {} where it was deleted."""
    try:
        text = (folder / HANDED_OUT).read_text("utf-8")
    except FileNotFoundError:
        return {}
    return {row["name"]: row["password"] for row in csv.DictReader(io.StringIO(text))}


def kept(folder: Path) -> dict[str, str]:
    """Name to hash, of everybody who has a password."""
    try:
        found: dict[str, str] = json.loads((folder / KEPT).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return found


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(number, "w", encoding="utf-8") as out:
        out.write(text)
    new.replace(file)


def hashed(password: str, salt: bytes | None = None) -> str:
    """`salt$key` in hexadecimal, by scrypt (RFC 7914) with N = 2**14, r = 8, p = 1."""
    salt = secrets.token_bytes(16) if salt is None else salt
    key = hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
    return f"{salt.hex()}${key.hex()}"


def matches(hashes: Mapping[str, str], name: str, password: str) -> bool:
    """Whether it is that name's password; an unknown name takes as long as a known one."""
    wanted = hashes.get(name, f"{bytes(16).hex()}$")
    salt = bytes.fromhex(wanted.partition("$")[0])
    return hmac.compare_digest(hashed(password, salt), wanted)
