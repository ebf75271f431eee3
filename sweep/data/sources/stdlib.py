"""The running Python's standard library."""

import sysconfig
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.data.sources.reader import FileReader


class StandardLibrary(FileReader, name="stdlib"):
    """The .py files of the standard library, its tests included, one document each. Files that are not UTF-8 text are left
    out: they are inputs of the parser's tests."""

    known_by_content = True

    @cached_property
    def files(self) -> list[Path]:
        root = Path(sysconfig.get_paths()["stdlib"])
        found = sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix())
        return [path for path in found if not {"site-packages", "dist-packages"} & set(path.parts)]

    def most_tokens(self) -> float:
        return sum(path.stat().st_size + 1 for path in self.files)

    def check(self) -> None:
        """Nothing to check: the library is always there."""

    def units(self) -> list[Any]:
        return [self.files]

    def documents(self, unit: Any) -> Iterator[bytes]:
        for path in unit:
            content = path.read_bytes()
            if content and b"\0" not in content and content.decode("utf-8", errors="ignore").encode() == content:
                yield content
