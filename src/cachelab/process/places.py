"""Where in the code of whoever called us something happened: outside of libraries and of ours."""

from __future__ import annotations

import contextlib
import linecache
import os
import sysconfig
import traceback
from dataclasses import dataclass
from types import FrameType, TracebackType

import greenlet


@dataclass(frozen=True)
class Where:
    """A place in the code that was run: line of its file or cell, and the text there.

    `file` is the name of a file, without its folder; "" for a cell of a notebook.
    """

    line: int
    text: str
    function: str
    file: str = ""

    def __str__(self) -> str:
        return f"line {self.line} (`{self.text}`)" if self.text else f"line {self.line}"

    @property
    def short(self) -> str:
        """As a log names it: "service.py:12", or "line 12" of a cell."""
        return f"{self.file}:{self.line}" if self.file else f"line {self.line}"

    @property
    def full(self) -> str:
        """The same with the text: "service.py:12, `cache.delete(key)`"."""
        return f"{self.short}, `{self.text}`" if self.text else self.short


_NOT_THEIRS = tuple(
    os.path.join(os.path.realpath(path), "")
    for path in {
        os.path.dirname(os.path.dirname(__file__)),
        *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        os.path.dirname(os.path.dirname(greenlet.__file__)),
    }
)


def _is_their_file(name: str) -> bool:
    if name.startswith("<"):
        return name.startswith(("<ipython-input", "<stdin"))
    return not os.path.realpath(name).startswith(_NOT_THEIRS)


def _where(name: str, line: int, function: str) -> Where:
    text = " ".join(linecache.getline(name, line).split())
    short = text if len(text) <= 60 else text[:57] + "..."
    return Where(line, short, function, _file_name(name))


def _file_name(name: str) -> str:
    """The last part of a path; "" for a cell, whose file has another name in every run."""
    folder, last = os.path.split(name)
    is_cell = name.startswith("<") or os.path.basename(folder).startswith("ipykernel_")
    return "" if is_cell else last


def place_at(frame: FrameType | None) -> Where | None:
    """The innermost place outside libraries, of a running frame."""
    while frame is not None:
        if _is_their_file(frame.f_code.co_filename):
            return _where(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return None


def place_in(trace: TracebackType | None, *, besides: str = "") -> Where | None:
    """The innermost place outside libraries, and outside the file `besides`, of a traceback."""
    found = None
    with contextlib.suppress(RecursionError):
        for frame, line in traceback.walk_tb(trace):
            name = frame.f_code.co_filename
            if name != besides and _is_their_file(name):
                found = (name, line, frame.f_code.co_name)
    return _where(*found) if found else None
