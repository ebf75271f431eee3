"""Where runs train."""

import sys
from pathlib import Path

from sweep.errors import InputError

GPU_NODES = (
    "/dev/nvidiactl",
    "/dev/dxg",
    "/dev/kfd",
)  # without any of them torch sees no GPU, and need not be imported to say so


def resolve_device(name: str) -> str:
    """ "cpu" or "cuda" for `name`, one of "auto", "cpu" and "cuda".

    "cuda" is believed without looking: a sweep for a cluster's GPUs is planned on a login node that has none.
    """
    if name != "auto":
        return name
    if sys.platform == "linux" and not any(Path(node).exists() for node in GPU_NODES):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def require_device(device: str) -> None:
    """Raises InputError if `device` is "cuda" and this machine has none that torch can use."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda, but torch sees no CUDA device here; use device=cpu, or launch on a machine with a GPU")
