"""The compiled kernels.cpp: built on first use and cached."""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import stat
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from sweep.files import write_atomically

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
    compiler = os.environ.get("CXX", "g++")
    flags = [*FLAGS, *shlex.split(os.environ.get("ISOSWEEP_CXXFLAGS", ""))]
    sources = [path.read_text(encoding="utf-8") for path in (SOURCE, *sorted(SOURCE.parent.glob("*.h")))]
    identity = "\0".join([*sources, compiler, *flags, platform.machine(), _processor()]).encode()
    cache = cache_folder()
    kept = cache / f"kernels-{hashlib.sha256(identity).hexdigest()[:16]}.so" if cache else None
    content = (kept and read_own(kept)) or b""
    library, digest = content[:-32], content[-32:]
    if hashlib.sha256(identity + library).digest() != digest:
        library = _build(compiler, flags)
        try:
            if kept:
                write_own(kept, library + hashlib.sha256(identity + library).digest())
        except OSError as error:
            log.warning("the kernels are built anew by each process: %s", error)
    loaded = _load(library, [None, cache] if cache else [None])
    loaded.sum_of_squares_fp32.restype = loaded.sum_of_squares_bf16.restype = ctypes.c_double
    return loaded


def cache_folder() -> Path | None:
    """isosweep's folder in $XDG_CACHE_HOME or ~/.cache, made if need be, into which nobody else can write; None where it
    cannot be had, which is logged. What is in it may be damaged, or lie there from before it was closed: see `read_own`."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (home if home.is_absolute() else Path.home() / ".cache") / "isosweep"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                raise PermissionError(f"{folder} belongs to another user")
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        log.warning("nothing is cached, and each process builds the kernels anew: %s", error)
        return None
    return folder


def read_own(path: Path) -> bytes | None:
    """The content of a file that belongs to this user and that nobody else may write; None if `path` is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait for its writer
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
            return file.read() if own else None
    except OSError:
        return None


def write_own(path: Path, content: bytes) -> None:
    """Write what `read_own` reads, atomically and whatever the umask. Raises OSError."""
    write_atomically(path, content)
    path.chmod(0o600)


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


def _processor() -> str:
    """The processor that -march=native compiles for; machines that share a home directory may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
