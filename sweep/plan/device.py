"""The device that runs train on."""

import sys
from collections.abc import Iterable
from pathlib import Path

from sweep.errors import InputError
from sweep.plan.run import RunConfig

MIN_GPU_HEAD = 32

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


def warn_of_narrow_heads(runs: Iterable[RunConfig], device: str) -> None:
    """Say so if `runs` have shapes made for CPUs and `device` is a GPU."""
    narrowest = min((run.model.head_dim for run in runs), default=MIN_GPU_HEAD)
    if device == "cuda" and narrowest < MIN_GPU_HEAD:
        print(f"isosweep: heads of {narrowest} numbers keep most of a GPU idle; model=ladder has wider ones", file=sys.stderr)


def require_device(device: str) -> None:
    """Raises InputError if `device` is "cuda" and this machine has none that torch can use."""
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        raise InputError("device=cuda, but torch sees no CUDA device here; use device=cpu, or launch on a machine with a GPU")
