"""The order of the rooms: a file imports from its own room and from rooms before it, and no two files import each other."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The order of the data. train comes after store, since it writes into it, and follow after fit, since watch shows the minima.
ROOMS = (
    "sweep", "models", "config", "plan", "data", "store", "train", "launch", "tracking", "tables",
    "fit", "compare", "follow", "figures", "report", "use", "commands",
)  # fmt: skip
MAX_FILES, MAX_LINES, MAX_LINES_OF_FIT = 12, 300, 200
TOP = ("sweep.cli", "sweep.__main__")  # they may import everything
FILES = sorted(path for package in ("models", "sweep") for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """The project's modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in named:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name and MODULES[name] != path:
                yield name


def room_of(module: str) -> int:
    if module in TOP:
        return len(ROOMS)
    parts = module.split(".")
    if parts[0] == "models":
        return ROOMS.index("models")
    return ROOMS.index(parts[1]) if len(parts) > 1 and parts[1] in ROOMS else ROOMS.index("sweep")


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path))
def test_a_file_imports_from_its_own_room_and_from_rooms_before_it(path: Path) -> None:
    room = room_of(module_of(path))
    late = [name for name in imports(path) if room_of(name) > room]
    assert not late


def test_no_two_files_import_each_other() -> None:
    edges = {(module_of(path), name) for path in FILES for name in imports(path) if MODULES[name].name != "__init__.py"}
    assert not [(a, b) for a, b in edges if (b, a) in edges and a < b]


def test_every_folder_is_a_room() -> None:
    folders = {path.parent.name for path in (ROOT / "sweep").glob("*/__init__.py")}
    assert folders == set(ROOMS) - {"sweep", "models"}


def test_files_and_folders_are_small() -> None:
    for path in FILES:
        most = MAX_LINES_OF_FIT if "fit" in path.parts else MAX_LINES
        assert len(path.read_text().splitlines()) <= most, path
    for folder in {path.parent for path in FILES}:
        assert len([path for path in folder.iterdir() if path.is_file()]) <= MAX_FILES, folder


def test_fits_import_no_torch_and_quickly() -> None:
    code = (
        "import sys, time; start = time.process_time(); import sweep.fit; spent = time.process_time() - start;"
        "assert not {'torch', 'matplotlib', 'hydra', 'wandb'} & set(sys.modules), 'heavy'; print(spent)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0  # 0.2 s of a processor that nobody else uses; numpy is most of it
