"""The name and the peak speed of the device that a run trains on."""

import platform
import time
from functools import lru_cache

import torch

from sweep.words import counted


def describe_device(device: str) -> str:
    """The device's name for provenance.json."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {counted(torch.get_num_threads(), 'thread')}"


WARM_UP_S = 0.3  # after which a GPU has left its idle clock rates


@lru_cache
def matmul_peak(device: str, precision: str) -> float:
    """FLOP/s of a large matrix product on `device` in the precision of the run, measured here in less than a second.

    MFU is quoted against this rather than a data sheet, so that it means the same on every machine.
    """
    size = 8192 if device == "cuda" else 768
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    a = torch.randn(size, size, device=device).to(dtype)

    def seconds() -> float:
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    end = time.perf_counter() + (WARM_UP_S if device == "cuda" else 0.0)
    while seconds() and time.perf_counter() < end:
        pass
    return 2 * size**3 / min(seconds() for _ in range(5))
