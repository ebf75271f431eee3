"""The signals that ask a launch to stop."""

import multiprocessing
import signal
from typing import Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class StopFlag:
    """Says whether one of `STOP_SIGNALS` has come while it was entered as a context manager. SIGHUP stays ignored where it is,
    as nohup has it.

    A second SIGINT raises KeyboardInterrupt as usual, except in worker processes.
    """

    def __init__(self) -> None:
        self._received: list[int] = []

    def __call__(self) -> bool:
        return bool(self._received)

    def asked_to_requeue(self) -> bool:
        """Whether a user signal came, as Slurm sends before a time limit or a preemption."""
        return bool({signal.SIGUSR1, signal.SIGUSR2} & set(self._received))

    def __enter__(self) -> Self:
        ours = [number for number in STOP_SIGNALS if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)]
        self._before = {number: signal.signal(number, self._handle) for number in ours}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        self._received.append(number)
        if self._received.count(signal.SIGINT) > 1 and multiprocessing.parent_process() is None:
            raise KeyboardInterrupt
