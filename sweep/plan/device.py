"""The device that runs train on."""

import sys
from pathlib import Path

from sweep.errors import InputError

GPU_NODES = (
    "/dev/nvidiactl",
    "/dev/dxg",
    "/dev/kfd",
)  # without any of these torch sees no GPU, and the slow import can be skipped


def resolve_device(name: str) -> str:
    """The device "cpu" or "cuda" for `name`, which is "auto", "cpu" or "cuda".

    "cuda" is not checked here: a sweep for a cluster's GPUs is planned on a login node that has none.
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
