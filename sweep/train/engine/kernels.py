"""The compiled kernels.cpp: built on first use and cached."""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

FLAGS = (
    *("-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-fopenmp", "-fPIC", "-shared"),
)
SOURCE = Path(__file__).with_name("kernels.cpp")


class NoKernels(Exception):
    """The kernels cannot be built on this machine."""


@lru_cache
def kernels() -> ctypes.CDLL:
    """The compiled kernels.cpp: built on first use, in a few seconds, and kept in ~/.cache for this kind of processor.

    $ISOSWEEP_CXXFLAGS is appended to the compiler's flags: with -mno-avx512f the kernels are those of a machine without
    AVX-512. $CXXFLAGS is ignored, because conda sets it for the oldest processors.
    Raises NoKernels if there is no C++ compiler ($CXX, or g++), or it refuses the source.
    """
    compiler = os.environ.get("CXX", "g++")
    flags = [*FLAGS, *shlex.split(os.environ.get("ISOSWEEP_CXXFLAGS", ""))]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isosweep"
    sources = [path.read_text(encoding="utf-8") for path in (SOURCE, *sorted(SOURCE.parent.glob("*.h")))]
    identity = "\0".join([*sources, compiler, *flags, platform.machine(), _processor()])
    library = cache / f"kernels-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as directory:  # another process may build them at the same time
                made = Path(directory) / "kernels.so"
                subprocess.run([compiler, *flags, str(SOURCE), "-o", str(made)], check=True, capture_output=True, text=True)
                os.replace(made, library)
        except subprocess.CalledProcessError as error:
            first = (error.stderr.strip().splitlines() or ["no message"])[0]
            raise NoKernels(f"{compiler} refuses {SOURCE.name}: {first}") from error
        except OSError as error:
            raise NoKernels(f"{compiler}: {error.strerror}") from error
    loaded = ctypes.CDLL(str(library))
    loaded.sum_of_squares_fp32.restype = loaded.sum_of_squares_bf16.restype = ctypes.c_double
    return loaded


def _processor() -> str:
    """The processor that -march=native compiles for; machines that share a home directory may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
