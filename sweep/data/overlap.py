"""How much of the held-out text occurs in the training text: no document is in both, but sentences and licences may be."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

GRAM_BYTES = 64  # about the 13 words that GPT-3 was checked with (Brown et al., arXiv 2005.14165, appendix C)
BLOCK = 1 << 16  # tokens hashed at once, so that the hashes stay in the cache
FILTER_BITS = 22
MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that multiplying loses no bit


def measure_overlap(directory: Path, dtype: np.dtype, bytes_per_token: float) -> dict:
    """The fraction of held-out n-grams that also occur in the training tokens, compared by 64-bit hashes.

    `directory` holds train.bin and validation.bin, with ids of type `dtype`. Returns {"tokens": n, "share": fraction of the
    n-grams at all held-out positions}; n is the power of two closest to `GRAM_BYTES` of text.
    """
    doublings = max(1, round(np.log2(GRAM_BYTES / bytes_per_token)))
    n = 2**doublings
    held_out = gram_hashes(np.fromfile(directory / "validation.bin", dtype=dtype), doublings)
    if not len(held_out):
        return {"tokens": n, "share": 0.0}
    wanted = np.unique(held_out)
    # A Bloom filter on the first bits of each hash: one look-up rules out nearly all n-grams that are not wanted.
    shift = np.uint64(64 - FILTER_BITS)
    maybe = np.zeros(2**FILTER_BITS, dtype=bool)
    maybe[wanted >> shift] = True
    found = np.zeros(len(wanted), dtype=bool)
    train = np.memmap(directory / "train.bin", dtype=dtype, mode="r")

    def look(start: int) -> None:
        hashes = gram_hashes(train[start : start + BLOCK + n - 1], doublings)
        hits = hashes[maybe[hashes >> shift]]
        places = np.minimum(np.searchsorted(wanted, hits), len(wanted) - 1)
        found[places[wanted[places] == hits]] = True

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # numpy releases the GIL
        list(threads.map(look, range(0, len(train), BLOCK)))
    return {"tokens": n, "share": float(found[np.searchsorted(wanted, held_out)].mean())}


def gram_hashes(ids: np.ndarray, doublings: int) -> np.ndarray:
    """A hash of the 2**doublings tokens from each position on, shape (positions,), uint64.

    It is a polynomial in an odd number modulo 2**64, built by joining two halves in each doubling. Its high bits are finally
    mixed into the low ones.
    """
    hashes, power = ids.astype(np.uint64), MULTIPLIER
    for i in range(doublings):
        half = 2**i
        joined = hashes[:-half] * np.uint64(power)
        joined += hashes[half:]
        hashes, power = joined, power * power % 2**64
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(MULTIPLIER)
    return hashes
