"""NVIDIA's MPS: with it the kernels of several processes run on a GPU at the same time, without it they take turns."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
USUAL_PIPES = Path("/tmp/nvidia-mps")
TIMEOUT_S = 30
# Makes a context on the first GPU, as a process that trains would. This takes a tenth of a second; importing torch takes some.
PROBE = """
import ctypes
cuda, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
error = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0)
raise SystemExit(error or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
"""


def available() -> bool:
    """Whether MPS can be had on this machine: its program is there, or somebody has started it."""
    return _running() or shutil.which(CONTROL) is not None


@contextmanager
def served(wanted: bool) -> Iterator[bool]:
    """MPS for the processes that are started in this context, if `wanted`; yields whether they have it.

    One that is running is used. Else it is started, with directories of its own, and stopped at the end. If it does not work
    here, one line says so.
    """
    if not wanted or not available():
        yield False
        return
    if _running():
        yield True
        return
    # A directory in /tmp: sockets have short names, and a store may be on a file system that has none.
    with tempfile.TemporaryDirectory(prefix="isosweep-mps-") as directory, _environment(directory):
        try:
            problem = _start()
            if not problem:
                yield True
                return
        finally:
            _control("quit", "-t", "5")
    print(f"isosweep: MPS does not work here ({problem}): one process at a time uses a GPU", file=sys.stderr)
    yield False


@contextmanager
def _environment(directory: str) -> Iterator[None]:
    """Let the processes that are started in this context find MPS in `directory`."""
    before = dict(os.environ)
    os.environ |= {PIPES: directory, LOGS: directory}
    try:
        yield
    finally:
        for name in (PIPES, LOGS):
            del os.environ[name]
        os.environ |= {name: before[name] for name in (PIPES, LOGS) if name in before}


def _running() -> bool:
    return (Path(os.environ.get(PIPES, USUAL_PIPES)) / "control").exists()


def _start() -> str:
    """Start the daemon, and try it; what is wrong, or ""."""
    try:
        started = subprocess.run([CONTROL, "-d"], capture_output=True, text=True, timeout=TIMEOUT_S)
        if started.returncode:
            return (started.stderr or started.stdout).strip() or f"{CONTROL} ends with {started.returncode}"
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if probe.returncode == 0 else f"CUDA error {probe.returncode}"


def _control(*command: str) -> None:
    """Tell the daemon something, if it is there to listen."""
    try:
        subprocess.run([CONTROL], input=" ".join(command) + "\n", capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return
