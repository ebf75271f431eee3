"""Dropout (Srivastava et al. 2014) whose masks are a function of keys, so that no generator has a state.

A mask is a hash of the sequence's key, the place in the model and the position in the sequence. So a step is the same however
it is cut into micro-batches or spread over processes, whether activations are kept or computed again, in a CUDA graph,
compiled, and after a resume. Residual dropout as in GPT-2; Kaplan et al. 2020 (section 4.1) measured L(N, D) at 0.1.
"""

import numpy as np
import torch
from torch import Tensor

PLACE, ELEMENT = -1640531535, -2048144789  # odd: 2^32 / golden ratio and a constant of xxHash, as signed numbers of 32 bits
MIX = -2048144789, -1028477387  # murmur3's finaliser


def keys(seed: int, step: int, count: int) -> np.ndarray:
    """The keys of the sequences of one step, shape (count,), int32."""
    return np.random.default_rng((seed, step, 1)).integers(-(2**31), 2**31, count).astype(np.int32)


def key_of(key_B: Tensor, place: int) -> Tensor:
    """The sequences' keys at one place of the model, shape (B,), int32."""
    signed = (place * PLACE + 2**31) % 2**32 - 2**31
    return _mixed(key_B + signed)


def dropped(x_BTD: Tensor, rate: float, key_B: Tensor | None, place: int) -> Tensor:
    """`x_BTD` with a share `rate` of its numbers set to zero and the others divided by 1 - rate; as it is without keys."""
    if key_B is None or not rate:
        return x_BTD
    _, T, D = x_BTD.shape
    element_TD = (torch.arange(T * D, device=x_BTD.device, dtype=torch.int32) * ELEMENT).view(T, D)
    hash_BTD = _mixed(key_of(key_B, place)[:, None, None] + element_TD)
    kept_BTD = hash_BTD >= int(rate * 2**32) - 2**31  # of the uniform numbers from -2^31 to 2^31 - 1
    return torch.where(kept_BTD, x_BTD / (1 - rate), 0.0)


def _mixed(x: Tensor) -> Tensor:
    """murmur3's finaliser without its last shift, which does not change the high bits. Products of int32 wrap, and a shift must
    not carry the sign along."""
    first, second = MIX
    x = (x ^ ((x >> 16) & 0xFFFF)) * first
    return (x ^ ((x >> 13) & 0x7FFFF)) * second
