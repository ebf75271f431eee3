"""What was measured on this machine of the shapes that it trained: which engine is fastest for each, and how fast.

A file for each shape in the user's cache. Its name is a hash of all that the speed depends on, so what no longer holds is not
found: the processor, torch, the sources of model and engines, the compiler's flags, the shape and the number of threads.
"""

import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from sweep.cache import cache_folder, read_own, write_own
from sweep.files import content_hash
from sweep.plan.cost import shape_of
from sweep.plan.run import RunConfig

SOURCES = (Path("models"), Path("sweep/train/engine"))
SWITCHES = ("CXX", "ISOSWEEP_CXXFLAGS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one shape: the engine that trains it, tokens/s of each engine that was measured, and why the native one is not used
    (or "")."""

    engine: str
    tokens_per_s: dict[str, float]
    why_not_native: str = ""
    processor: str = ""  # its name, for who reads the file

    def rate(self) -> float:
        """tokens/s of the engine that trains the shape."""
        return self.tokens_per_s[self.engine]

    def with_rate(self, tokens_per_s: float) -> "Measured":
        """The same, after a whole run had this speed."""
        return replace(self, tokens_per_s=self.tokens_per_s | {self.engine: round(tokens_per_s, 1)})


def read(run: RunConfig, threads: int) -> Measured | None:
    """What is known of the shape of `run`; None if nothing."""
    folder = cache_folder()
    content = read_own(folder / _name(run, threads)) if folder else None
    try:
        return Measured(**json.loads(content)) if content else None
    except (ValueError, TypeError):
        return None  # damaged: it will be measured again


def keep(run: RunConfig, threads: int, measured: Measured) -> None:
    """Write it for later processes, if that is possible."""
    if folder := cache_folder():
        try:
            write_own(folder / _name(run, threads), json.dumps(asdict(measured), indent=1).encode())
        except OSError:
            return  # each process measures for itself


def _name(run: RunConfig, threads: int) -> str:
    model, sequences, precision, optimizer = shape_of(run)
    shape = {"model": asdict(model), "sequences": sequences, "precision": precision, "optimizer": optimizer}
    return f"engine-{content_hash({**_machine(), **shape, 'threads': threads})}.json"


@lru_cache
def _machine() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    sources = [path for folder in SOURCES for path in sorted((root / folder).iterdir()) if path.is_file()]
    torch = find_spec("torch")  # found, not imported: a plan must not wait for that
    version = Path(torch.origin).with_name("version.py") if torch and torch.origin else None
    return {
        "processor": processor(),
        "torch": version.read_text() if version else "",
        "sources": content_hash([path.read_text(encoding="utf-8") for path in sources]),
        "switches": content_hash([os.environ.get(name, "") for name in SWITCHES]),
    }


def compiler() -> str:
    """The C++ compiler of the native engine's kernels."""
    return os.environ.get("CXX", "g++")


def processor() -> str:
    """The processor, with what it can do: machines that share a home directory may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def processor_name() -> str:
    """The processor as a person calls it."""
    names = [line.partition(":")[2].strip() for line in processor().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
