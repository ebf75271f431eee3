"""Compiling ahead: processes that compile the shapes of a launch, several at a time, while its workers train others."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from sweep.launch.launchers import Launch
from sweep.plan.cost import CONTEXT_BYTES, Shape, memory_bytes, sequences_at_once, shape_of
from sweep.plan.run import RunConfig

CORES_EACH = 4  # of a process: the sooner the first shapes are there, the sooner workers begin
MAX_PROCESSES = 8
MEMORY = 0.25  # of a GPU's free memory, for all of them


@dataclass
class _Compiler:
    """The parent's end of a process that compiles one shape after another: the one at present, and the memory that may take."""

    process: BaseProcess
    connection: Connection
    shape: Shape | None = None
    memory: float = 0.0


class Ahead:
    """The shapes of a launch that are still to be compiled, in the order of `runs`; a context that ends the processes.

    A shape is compiled by taking a step, into torch's cache in the store. If that fails, so will the worker, which then trains
    eagerly and says why.
    """

    def __init__(self, runs: Sequence[RunConfig], launch: Launch, cores: int) -> None:
        self.launch, self.most = launch, min(MAX_PROCESSES, max(1, cores // CORES_EACH))
        self.compilers: list[_Compiler] = []
        self.waiting: dict[Shape, RunConfig] = {}
        if launch.device == "cuda" and launch.compile != "off":
            for run in runs:
                if launch.compile == "on" or run.run_id in launch.worth_compiling:
                    self.waiting.setdefault(shape_of(run), run)

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *exception: object) -> None:
        for compiler in self.compilers:
            compiler.process.kill()
            compiler.process.join()
            compiler.connection.close()

    @property
    def going(self) -> list[Shape]:
        """The shapes that are being compiled."""
        return [compiler.shape for compiler in self.compilers if compiler.shape is not None]

    def has(self, run: RunConfig) -> bool:
        """Whether a worker can begin with `run` at once, as far as compiling goes."""
        return shape_of(run) not in self.waiting and shape_of(run) not in self.going

    def go_on(self, queue: Collection[RunConfig], free_bytes: float) -> None:
        """Hear what has been compiled, and start what can be compiled beside the rest: shapes of `queue`, on GPUs that had
        `free_bytes`."""
        if not (self.waiting or self.compilers):
            return
        for compiler in list(self.compilers):
            with suppress(EOFError, ConnectionResetError):
                if not compiler.connection.poll():
                    continue
                compiler.connection.recv()
                compiler.shape, compiler.memory = None, CONTEXT_BYTES
                continue
            compiler.process.join()  # it has died
            self.compilers.remove(compiler)
        wanted = {shape_of(run) for run in queue}
        for shape, run in list(self.waiting.items()):
            if shape in wanted:
                memory = CONTEXT_BYTES + memory_bytes(run, sequences_at_once(run))
                if self.going and sum(each.memory for each in self.compilers) + memory > MEMORY * free_bytes:
                    return
                chosen = next((each for each in self.compilers if each.shape is None), None) or self._started()
                if chosen is None:
                    return
                chosen.shape, chosen.memory = shape, memory
                with suppress(OSError):  # it has just died, which is found out above
                    chosen.connection.send(run)
            del self.waiting[shape]
        for idle in [each for each in self.compilers if each.shape is None]:  # nothing is left to do
            idle.connection.close()
            self.compilers.remove(idle)

    def _started(self) -> _Compiler | None:
        """A new process, if there may be one more."""
        if len(self.compilers) >= self.most:
            return None
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self.launch, len(self.compilers))
        process = context.Process(target=compile_shapes, args=arguments, name="isosweep-compiler", daemon=True)
        process.start()
        theirs.close()
        self.compilers.append(_Compiler(process, ours))
        return self.compilers[-1]


def compile_shapes(connection: Connection, launch: Launch, number: int) -> None:
    """Take a step of each run that `connection` delivers, on GPU `number` modulo how many there are, to fill torch's cache; and
    tell when that is done, or has failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool ends this process
    logging.disable()  # a worker meets the same problems, and says so
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(CORES_EACH))
    from sweep.launch.worker import empty_gpu_cache, set_up_torch

    set_up_torch(launch.store, launch.cluster, launch.device, launch.compile)
    import torch

    if launch.device == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())
    with suppress(EOFError, OSError):
        while True:
            run = connection.recv()
            with suppress(Exception):
                _take_a_step(run, launch)
            if launch.device == "cuda":
                empty_gpu_cache()
            connection.send(None)


def _take_a_step(run: RunConfig, launch: Launch) -> None:
    import numpy as np

    from sweep.data import TrainingSequences
    from sweep.train.engine.autograd import AutogradEngine

    at_once, T = launch.cluster.micro_batch or sequences_at_once(run), run.model.context_length
    one = replace(run, batch_size=min(run.batch_size, at_once + run.batch_size % at_once))  # with the part that is left over
    sequences = TrainingSequences(
        np.zeros(one.batch_tokens + 1, np.uint16), context_length=T, batch_size=one.batch_size, seed=0
    )
    AutogradEngine(one, sequences, device=launch.device, compiled=True, micro_batch=at_once).step(0)
