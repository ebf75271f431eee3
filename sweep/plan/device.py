"""Where runs train."""

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
