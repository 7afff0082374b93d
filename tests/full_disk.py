"""Does to a full disk what a learner does, and prints what is seen; run by test_faults.py.

python full_disk.py tmpfs FOLDER    FOLDER is a small disk of its own
python full_disk.py limit FOLDER    no file may grow instead
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEM = "05_cache_aside"
LAB = f"labs/{STEM}.ipynb"


@contextlib.contextmanager
def full(way: str, disk: Path) -> Iterator[None]:
    """No byte more can be written inside."""
    if way == "limit":
        kept = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, kept[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        return
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65_536)
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)
    try:
        yield
    finally:
        filler.unlink()


def saved(root: Path, name: str) -> str:
    """Save a notebook as JupyterLab does; returns what its window says, or "saved"."""
    from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
    from nbformat.sign import NotebookNotary
    from tornado.web import HTTPError

    # With a notary of its own: what it knows of this machine's notebooks is kept elsewhere.
    notary = NotebookNotary(data_dir=str(root), db_file=":memory:", secret=b"a secret")
    there = AsyncLargeFileManager(root_dir=str(root), notary=notary)
    there.log.setLevel("CRITICAL")
    content = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    model = {"type": "notebook", "format": "json", "content": content}
    try:
        asyncio.run(there.save(model, name))
    except HTTPError as error:
        said = re.sub(r": '[^']*'( -> '[^']*')?$", "", str(error.log_message))
        return f"File Save Error for {Path(name).name}: {said}."
    return "saved"


def tell(way: str, disk: Path) -> dict[str, tuple[str, str]]:
    """What is seen and what is kept, by what was tried; a wrong end is an AssertionError."""
    from sqlalchemy.exc import OperationalError

    from cachelab import board
    from cachelab.board.stream import BoardError
    from cachelab.cache.server import ServerError
    from cachelab.command import cli
    from cachelab.lab import Lab
    from tools import build as builder

    told = {}
    tempfile.tempdir = str(disk)
    home = disk / "home"
    os.environ |= {"CACHELAB_BACKEND": "fake", "CACHELAB_HOME": str(home), "TMPDIR": str(disk)}
    root = disk / "workbook"
    for part in (f"content/labs/{STEM}.py", LAB):
        (root / part).parent.mkdir(parents=True)
        shutil.copy(ROOT / part, root / part)
    lab_file = root / LAB
    work = lab_file.read_bytes().replace(b'"source": [', b'"source": ["# mine\\n",', 1)
    lab_file.write_bytes(work)
    cli.project_root = lambda: root

    def files() -> dict[Path, bytes]:
        # JupyterLab leaves an empty file of its own beside what it could not save.
        there = (path for path in root.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in there if not path.name.startswith(".~")}

    before = files()

    def nothing_changed() -> None:
        assert files() == before, set(files()) ^ set(before)

    with full(way, disk):
        error = raised(Lab, ServerError)
    told["starting a lab"] = (f"ServerError: {error}", "Everything: nothing was started.")
    assert not list(disk.glob("cachelab-*"))

    lab = Lab()
    lab.db.update_user(1, bio="kept")
    with full(way, disk):
        write = raised(lambda: change_many(lab), OperationalError)
        assert lab.db.user(1)["bio"] == "kept"
    change_many(lab)
    assert lab.db.user(1)["version"] == 3
    lab.close()
    told["a write to the database"] = (
        f"{type(write).__name__}: {write.args[0]} ... {write.__notes__[0]}",
        "All that was committed before; reads go on.",
    )

    with full(way, disk):
        said = saved(root, LAB)
    nothing_changed()
    told["saving a notebook"] = (
        said,
        "The notebook as it was saved before; the new one is in the window until it can be saved.",
    )
    assert saved(root, "other.ipynb") == "saved"
    (root / "other.ipynb").unlink()
    shutil.rmtree(root / ".ipynb_checkpoints")

    with full(way, disk), printed_errors() as lines:
        assert cli.main(["reset", STEM]) == 2
    nothing_changed()
    told["cachelab reset"] = (lines(), "The lab, as it was.")

    with full(way, disk), printed_errors() as lines:
        assert cli.main(["check", str(lab_file)]) == 2
    nothing_changed()
    told["cachelab check"] = (lines(), "The lab, as it was.")

    with full(way, disk), printed_errors() as lines:
        assert builder.main(["--root", str(root), STEM]) == 1
    nothing_changed()
    told["make notebooks"] = (lines(), "The lab and what was built before, as they were.")

    with full(way, disk):
        error = raised(lambda: board.join("Alice"), BoardError)
    assert not (home / "learner.json").exists()
    told["the name for the class board"] = (
        f"BoardError: {error}",
        "Everything; the name is asked for again.",
    )
    return told


def change_many(lab: Any) -> None:
    """One transaction that changes row 1 and many others."""
    with lab.db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET bio = bio || hex(zeroblob(4000)), version = 3")


def raised(do: Any, kind: type[BaseException]) -> Any:
    try:
        do()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


@contextlib.contextmanager
def printed_errors() -> Iterator[Any]:
    import io

    page = io.StringIO()
    with contextlib.redirect_stderr(page):
        yield page.getvalue


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    print(json.dumps(tell(sys.argv[1], Path(sys.argv[2]))))
