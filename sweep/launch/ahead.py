"""Compiling ahead: processes that compile the shapes of a launch, several at a time, while its workers train others."""

import multiprocessing
import os
import signal
from collections.abc import Collection, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess

from sweep.launch.launchers import Launch
from sweep.plan.cost import CONTEXT_BYTES, Shape, memory_bytes, sequences_at_once, shape_of
from sweep.plan.run import RunConfig

CORES_EACH = 4  # of a process: the sooner the first shapes are there, the sooner workers begin
MAX_PROCESSES = 8
MEMORY = 0.25  # of a GPU's free memory, for all of them


class Ahead:
    """The shapes of a launch that are still to be compiled, in the order of `runs`; a context that ends the processes.

    A process compiles one shape, by taking a step, into torch's cache in the store. If it fails, so will the worker, which then
    trains eagerly and says why.
    """

    def __init__(self, runs: Sequence[RunConfig], launch: Launch, cores: int) -> None:
        self.launch, self.most = launch, min(MAX_PROCESSES, max(1, cores // CORES_EACH))
        compiled = {run.run_id for run in runs} if launch.compile == "on" else launch.worth_compiling
        first_of = {shape_of(run): run for run in reversed(runs) if run.run_id in compiled}
        self.waiting = {shape_of(run): run for run in runs if first_of.get(shape_of(run)) is run}
        if launch.device != "cuda" or launch.compile == "off":
            self.waiting.clear()
        self.going: dict[Shape, tuple[BaseProcess, float]] = {}  # with the memory that it may take

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *exception: object) -> None:
        for process, _ in self.going.values():
            process.kill()
            process.join()

    def has(self, run: RunConfig) -> bool:
        """Whether a worker can begin with `run` at once, as far as compiling goes."""
        return shape_of(run) not in self.waiting and shape_of(run) not in self.going

    def go_on(self, queue: Collection[RunConfig], free_bytes: float) -> None:
        """Start what can be compiled beside what is being compiled: shapes of `queue`, on GPUs that had `free_bytes`."""
        self.going = {shape: each for shape, each in self.going.items() if each[0].is_alive()}
        wanted = {shape_of(run) for run in queue}
        for shape, run in list(self.waiting.items()):
            if shape not in wanted:
                del self.waiting[shape]
                continue
            memory = CONTEXT_BYTES + memory_bytes(run, sequences_at_once(run))
            taken = sum(bytes_ for _, bytes_ in self.going.values())
            if self.going and (len(self.going) >= self.most or taken + memory > MEMORY * free_bytes):
                return
            process = multiprocessing.get_context("spawn").Process(
                target=compile_shape, args=(self.launch, run, len(self.waiting)), name="isosweep-compiler", daemon=True
            )
            process.start()
            self.going[shape] = process, memory
            del self.waiting[shape]


def compile_shape(launch: Launch, run: RunConfig, number: int) -> None:
    """Take a step of a run of this shape, on GPU `number` modulo how many there are, to fill torch's cache."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool ends this process
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(CORES_EACH))
    from sweep.launch.worker import set_up_torch

    set_up_torch(launch.store, launch.cluster, launch.device, launch.compile)
    import numpy as np
    import torch

    from sweep.data import TrainingSequences
    from sweep.train.engine.autograd import AutogradEngine

    if launch.device == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())
    at_once, T = launch.cluster.micro_batch or sequences_at_once(run), run.model.context_length
    one = replace(run, batch_size=min(run.batch_size, at_once + run.batch_size % at_once))  # with the part that is left over
    sequences = TrainingSequences(
        np.zeros(one.batch_tokens + 1, np.uint16), context_length=T, batch_size=one.batch_size, seed=0
    )
    AutogradEngine(one, sequences, device=launch.device, compiled=True, micro_batch=at_once).step(0)
