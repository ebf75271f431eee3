"""Where a run computes, and how fast that device can be."""

import time
from functools import lru_cache

from sweep.errors import InputError


def resolve_device(name: str) -> str:
    """ "cpu" or "cuda" for `name`, one of "auto", "cpu" and "cuda".

    "cuda" is believed without looking: a sweep for a cluster's GPUs is planned on a login node that has none.
    """
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def require_device(device: str) -> None:
    """Raises InputError if `device` is "cuda" and this machine has none that torch can use."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda, but torch sees no CUDA device here; use device=cpu, or launch on a machine with a GPU")


def describe_device(device: str) -> str:
    """The device's name for provenance.json."""
    import platform

    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


@lru_cache
def matmul_peak(device: str, precision: str) -> float:
    """FLOP/s of a large matrix product on `device` in the precision of the run, measured here in about 0.1 s.

    MFU is quoted against this rather than a data sheet, so that it means the same on every machine.
    """
    import torch

    size = 8192 if device == "cuda" else 768
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=device).to(dtype)

    def seconds() -> float:
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds()
    return 2 * size**3 / min(seconds() for _ in range(5))
