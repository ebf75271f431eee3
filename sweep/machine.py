"""What differs between the machines that isosweep runs on: cores, the language's encoding, and who reads the output."""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

GONE = (errno.EPIPE, errno.EIO)  # the reader has ended, as head does; the terminal was closed


def cores() -> int:
    """Cores that this process may use; where the system does not say (macOS), all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def speak_utf8() -> None:
    """Start this program again in Python's UTF-8 mode if the locale has another encoding: paths, text and files are UTF-8 then,
    here and in every process that this one starts. What is printed keeps the encoding of the terminal, which shows ? for what
    it lacks."""
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    encoding = sys.stdout.encoding if sys.stdout else "ascii"
    os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{encoding}:replace"}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class _Heard(io.FileIO):
    """A stream that nobody may be reading any more: `lost` is told of the error, once, and what follows goes nowhere; unless
    `lost` raises."""

    def __init__(self, descriptor: int, lost: Callable[[OSError], None]) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.lost = lost

    def write(self, data: Any, /) -> Any:
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            self.lost(error)
            return len(data)


def survive_lost_output(lost: Callable[[OSError], None]) -> None:
    """Keep standard output and standard error writable: an error while writing calls `lost`, if it was output, and no more is
    written then. A character that the terminal lacks becomes ?."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            tell = lost if name == "stdout" else lambda error: None
            buffer = io.BufferedWriter(_Heard(stream.fileno(), tell))
            lines = stream.line_buffering or name == "stderr"
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, "replace", line_buffering=lines))
