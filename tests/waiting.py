"""Waiting for other processes: as long as a slow and busy machine may need, and no longer than it does."""

import time
from collections.abc import Callable

PATIENCE_S = 300  # a test that passes never feels it


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return when `condition` holds; TimeoutError if it does not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {timeout_s:g} s")
        time.sleep(0.05)
