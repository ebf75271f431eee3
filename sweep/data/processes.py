"""Worker processes for the text, which end with the process that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def worker_processes(number: int, prepare: Callable[..., None], *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool of `number` processes, each of which first calls `prepare(*arguments)`.

    They are terminated where the block raises or is interrupted, and exit when their parent is killed, even by SIGKILL.
    """
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(number, mp_context=SPAWN, initializer=_follow_parent, initargs=(prepare, arguments)) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise


def _follow_parent(prepare: Callable[..., None], arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent terminates its workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    prepare(*arguments)
