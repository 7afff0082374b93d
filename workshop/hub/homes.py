"""A learner's home: a copy of the workbook, filled up at each start and never written over."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

COPIED = ("notebooks", "labs", "solutions")
# What `cachelab reset` and `cachelab doctor` read; a learner's file browser does not show them.
LINKED = ("content", "tools", "pyproject.toml", "requirements.txt")


def prepare(home: Path, workbook: Path, labs: Path | None = None) -> list[Path]:
    """Put what is missing of `workbook` into `home` and return the files that were put there.

    A file that is there stays as it is, whatever is in it; one that was deleted comes back.
    `labs`: a folder of labs as they are given (None: the workbook's own). OSError, with the file's
    name in it, when one cannot be written.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = []
    for folder in COPIED:
        source = labs if folder == "labs" and labs is not None else workbook / folder
        (home / folder).mkdir(exist_ok=True)
        for file in sorted(source.glob("[0-9]*.ipynb")):
            if ".backup-" not in file.name and _put(file, home / folder / file.name):
                made.append(home / folder / file.name)
    for name in LINKED:
        _link(workbook / name, home / name)
    return made


def _put(source: Path, target: Path) -> bool:
    """Copy a file to where there is none, whole or not at all; whether it was."""
    if os.path.lexists(target):
        return False
    number, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    os.close(number)
    new = Path(name)
    try:
        shutil.copyfile(source, new)
        new.chmod(0o600)
        # A hard link, unlike a rename, fails where a file has come to be in the meantime.
        os.link(new, target)
    except FileExistsError:
        return False
    finally:
        new.unlink(missing_ok=True)
    return True


def _link(source: Path, target: Path) -> None:
    """A symbolic link, made anew where the workbook has moved; what a learner put there stays."""
    if not source.exists() or (target.exists() and not target.is_symlink()):
        return
    if target.is_symlink():
        if target.readlink() == source:
            return
        target.unlink()
    with contextlib.suppress(FileExistsError):
        target.symlink_to(source)
