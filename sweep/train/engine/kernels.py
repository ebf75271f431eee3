"""The compiled kernels.cpp: built on first use and cached."""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from sweep.cache import cache_folder, read_own, write_own
from sweep.plan.measured import compiler, processor

FLAGS = (
    *("-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-fopenmp", "-fPIC", "-shared"),
)
SOURCE = Path(__file__).with_name("kernels.cpp")
log = logging.getLogger(__name__)


class NoKernels(Exception):
    """The kernels cannot be built on this machine."""


@lru_cache
def kernels() -> ctypes.CDLL:
    """The compiled kernels.cpp: built on first use, in a few seconds, and kept in `cache_folder` for this kind of processor.

    $ISOSWEEP_CXXFLAGS is appended to the compiler's flags: with -mno-avx512f the kernels are those of a machine without
    AVX-512. $CXXFLAGS is ignored, because conda sets it for the oldest processors.
    Raises NoKernels if there is no C++ compiler ($CXX, or g++), it refuses the source, or no folder lets libraries be loaded.
    """
    flags = [*FLAGS, *shlex.split(os.environ.get("ISOSWEEP_CXXFLAGS", ""))]
    sources = [path.read_text(encoding="utf-8") for path in (SOURCE, *sorted(SOURCE.parent.glob("*.h")))]
    identity = "\0".join([*sources, compiler(), *flags, platform.machine(), processor()]).encode()
    cache = cache_folder()
    kept = cache / f"kernels-{hashlib.sha256(identity).hexdigest()[:16]}.so" if cache else None
    content = (kept and read_own(kept)) or b""
    library, digest = content[:-32], content[-32:]
    if hashlib.sha256(identity + library).digest() != digest:
        library = _build(compiler(), flags)
        try:
            if kept:
                write_own(kept, library + hashlib.sha256(identity + library).digest())
        except OSError as error:
            log.warning("the kernels are built anew by each process: %s", error)
    loaded = _load(library, [None, cache] if cache else [None])
    loaded.sum_of_squares_fp32.restype = loaded.sum_of_squares_bf16.restype = ctypes.c_double
    return loaded


def _build(compiler: str, flags: list[str]) -> bytes:
    try:
        with tempfile.TemporaryDirectory() as directory:
            made = Path(directory) / "kernels.so"
            subprocess.run([compiler, *flags, str(SOURCE), "-o", str(made)], check=True, capture_output=True, text=True)
            return made.read_bytes()
    except subprocess.CalledProcessError as error:
        first = (error.stderr.strip().splitlines() or ["no message"])[0]
        raise NoKernels(f"{compiler} refuses {SOURCE.name}: {first}") from error
    except OSError as error:
        raise NoKernels(f"{compiler}: {error.strerror}") from error


def _load(library: bytes, folders: list[Path | None]) -> ctypes.CDLL:
    """Loaded from a file that nobody can change or cut short meanwhile: a copy in a directory of its own, in the first of
    `folders` (None: where temporary files are) that lets it be executed."""
    problem = ""
    for folder in folders:
        try:
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as directory:
                copy = Path(directory) / "kernels.so"
                copy.write_bytes(library)
                return ctypes.CDLL(str(copy))
        except OSError as error:
            problem = str(error)
    raise NoKernels(f"the kernels cannot be loaded: {problem}")
