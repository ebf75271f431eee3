"""Measuring how fast training steps are on this machine: by size, by engine, and with several processes at once."""

import multiprocessing
import os
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from operator import itemgetter
from pathlib import Path
from threading import Barrier
from typing import Any, Protocol

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from models import ModelConfig, flops_per_token
from sweep.data import TrainingSequences
from sweep.errors import InputError
from sweep.files import write_json
from sweep.plan.cost import PLAIN
from sweep.plan.run import OptimizerSettings, RunConfig, ScheduleSettings
from sweep.store.runs import read_benchmarks
from sweep.train.device import describe_device, matmul_peak
from sweep.train.engine import Engine, make_engine
from sweep.train.engine.native import NativeEngine

MAX_WAIT_S = 300  # for the other processes
WARM_UP_STEPS = 5  # more than a CUDA graph needs before it is captured
STEPS_OF_BREAKDOWN = 10


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the table."""

    N: int
    engine: str  # see `sweep.train.engine`, or "plain": fp32, module + torch.optim.AdamW + clip_grad_norm_
    precision: str
    device: str  # its name
    processes: int  # that trained at the same time, each a model of its own
    threads: int  # of each process
    batch_tokens: int  # per step of each process
    tokens_per_s: float  # of all processes together; medians over steps
    flops_per_s: float  # of all processes together; exact FLOPs, causal attention counted half
    peak_flops_per_s: float  # of a large matrix product, measured by all processes together just before
    memory_bytes: int  # the most that one process held: GPU memory, or its resident set on a CPU
    first_step_s: float  # with compilation
    breakdown: dict[str, float]  # share of a step's time by operation, largest first

    @property
    def share_of_peak(self) -> float:
        return self.flops_per_s / self.peak_flops_per_s


def measure(
    model: ModelConfig,
    engine: str,
    *,
    device: str,
    precision: str,
    processes: int,
    threads: int,
    batch_tokens: int,
    seconds: float,
) -> Measurement:
    """Train `processes` models at once on random tokens for about `seconds`; with 0 processes one model, in this process.
    Raises InputError if a process fails, for instance because memory runs out."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # which the processes inherit; else torch's profiler logs much
    run = run_of(model, precision, max(1, batch_tokens // model.context_length))
    arguments = (run, engine, device, threads, seconds)
    reports = _in_processes(processes, *arguments) if processes else [_report(Barrier(1), *arguments, 0)]
    tokens_per_s = sum(run.batch_tokens / report["step_s"] for report in reports)
    return Measurement(
        N=run.N,
        engine=engine,
        precision=run.precision,
        device=reports[0]["device"],
        processes=max(1, processes),
        threads=threads,
        batch_tokens=run.batch_tokens,
        tokens_per_s=tokens_per_s,
        flops_per_s=tokens_per_s * flops_per_token(model, "exact"),
        peak_flops_per_s=sum(report["peak"] for report in reports),
        memory_bytes=max(report["memory"] for report in reports),
        first_step_s=reports[0]["first_step_s"],
        breakdown=reports[0]["breakdown"],
    )


def _in_processes(
    processes: int, run: RunConfig, engine: str, device: str, threads: int, seconds: float
) -> list[dict[str, Any]]:
    """The report of each of `processes` that train at the same time. Raises InputError if one fails."""
    context = multiprocessing.get_context("spawn")
    barrier, started = context.Barrier(processes, timeout=MAX_WAIT_S), []
    for index in range(processes):
        ours, theirs = context.Pipe()
        arguments = (theirs, barrier, run, engine, device, threads, seconds, index)
        process = context.Process(target=_train, args=arguments, daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    reports: list[dict[str, Any]] = []
    errors: list[str] = []
    for process, pipe in started:
        try:
            report = pipe.recv()
        except EOFError:
            report = "the process died"
        process.join()
        (errors if isinstance(report, str) else reports).append(report)
    if errors:
        cause = min(errors, key=lambda error: error.startswith("BrokenBarrier"))  # this follows from another process's error
        raise InputError(f"bench: {engine} with {processes} processes at N = {run.N:,}: {cause}")
    return reports


def run_of(model: ModelConfig, precision: str, batch_size: int) -> RunConfig:
    """A run whose steps can be measured."""
    return RunConfig(
        model=model,
        corpus="random",
        batch_size=batch_size,
        steps=10**6,
        optimizer=OptimizerSettings(peak_lr=1e-4, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, grad_clip=1.0),
        schedule=ScheduleSettings(warmup_steps=1, final_fraction=0.1, cycle=1.0),
        seed=0,
        precision=precision,
        evaluation_points=1,
    )


class _Waits(Protocol):
    """A barrier of threads or of processes."""

    def wait(self) -> object: ...

    def abort(self) -> object: ...


def _train(connection: Connection, barrier: _Waits, *arguments: Any) -> None:
    """Measure in one of the processes, and send the report, or a line about the error, to the parent."""
    try:
        connection.send(_report(barrier, *arguments))
    except Exception as error:
        barrier.abort()
        connection.send(f"{type(error).__name__}: {error}")


def _report(
    barrier: _Waits, run: RunConfig, engine: str, device: str, threads: int, seconds: float, index: int
) -> dict[str, Any]:
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(index % torch.cuda.device_count())
    barrier.wait()
    # All processes measure the peak of their cores at once; a GPU that several share is measured by one, while the others wait.
    measures = device == "cpu" or index < torch.cuda.device_count()
    peak = matmul_peak(device, run.precision) if measures else 0.0
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    barrier.wait()
    begin = time.perf_counter()
    trained = _build(engine, run, device)
    trained.step(0)
    _wait(device)
    first_step_s = time.perf_counter() - begin
    for step in range(1, WARM_UP_STEPS):
        trained.step(step)
    _wait(device)
    barrier.wait()
    times: list[float] = []
    step, end = WARM_UP_STEPS, time.perf_counter() + seconds
    at_once = 1 if device == "cpu" else 20  # as in training, steps on a GPU are queued and rarely waited for
    while time.perf_counter() < end or not times:
        start = time.perf_counter()
        for _ in range(at_once):
            trained.step(step)
            step += 1
        _wait(device)
        times.append((time.perf_counter() - start) / at_once)
    memory = torch.cuda.max_memory_reserved() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    barrier.wait()
    return {
        "device": describe_device(device),
        "step_s": statistics.median(times),
        "peak": peak,
        "memory": memory,
        "first_step_s": first_step_s,
        "breakdown": _breakdown(trained, step, device),
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _build(engine: str, run: RunConfig, device: str) -> Engine:
    tokens = np.random.default_rng(0).integers(0, run.model.vocab_size, 2**22, dtype=np.uint32)
    sequences = TrainingSequences(tokens, context_length=run.model.context_length, batch_size=run.batch_size, seed=0)
    if engine != PLAIN:
        return make_engine(engine, run, sequences, device=device)
    plain: Any = make_engine("eager", run, sequences, device=device)
    o = run.optimizer
    settings: Any = {"betas": (o.beta1, o.beta2), "eps": o.eps, "weight_decay": o.weight_decay}
    plain.optimizer = torch.optim.AdamW(plain.model.parameters(), **settings)
    return plain


def _breakdown(engine: Engine, step: int, device: str) -> dict[str, float]:
    """Shares of a step's time: by the native engine's kernels, or by the operations that torch's profiler saw."""
    spent: dict[str, float] = defaultdict(float)
    if isinstance(engine, NativeEngine):

        def timed(name: str, call: Any) -> None:
            begin = time.perf_counter()
            call()
            spent[name] += time.perf_counter() - begin

        for calls in (engine.forward, engine.head, engine.backward):
            calls[:] = [partial(timed, call.func.__name__.removesuffix(f"_{engine.run.precision}"), call) for call in calls]
        begin = time.perf_counter()
        for later in range(step, step + STEPS_OF_BREAKDOWN):
            engine.step(later)
        spent["other"] = time.perf_counter() - begin - sum(spent.values())
    else:
        with profile(activities=[ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU]) as profiled:
            for later in range(step, step + STEPS_OF_BREAKDOWN):
                engine.step(later)
            _wait(device)
        for event in profiled.key_averages():
            spent[event.key] += event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
    whole = sum(spent.values()) or 1.0
    largest = sorted(spent.items(), key=lambda pair: -pair[1])[:12]
    return {name[:60]: round(value / whole, 4) for name, value in largest}


def save(path: Path, measurements: Sequence[Measurement]) -> None:
    """Add rows to the JSON list at `path`; a row replaces an older one of the same size, engine and machine."""
    key = itemgetter("N", "engine", "precision", "device", "processes", "threads", "batch_tokens")
    rows = [*read_benchmarks(path), *map(asdict, measurements)]
    write_json(path, list({key(row): row for row in rows}.values()))
