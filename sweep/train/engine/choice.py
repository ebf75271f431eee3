"""Which engine trains a run on a CPU: the native one where it computes what autograd computes, and is faster.

Both are found out when a shape is first trained on a machine, and kept: see `sweep.plan.measured`.
"""

import logging
import shutil
import statistics
import time
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweep.data import TrainingSequences
from sweep.plan import measured
from sweep.plan.measured import Measured
from sweep.plan.run import RunConfig
from sweep.train.engine.autograd import AutogradEngine
from sweep.train.engine.kernels import NoKernels
from sweep.train.engine.native import NativeEngine, supports

log = logging.getLogger(__name__)

SECONDS = 0.2  # for which each engine is measured, and at least MIN_STEPS
MIN_STEPS = 2
MAX_TOKENS = 2**12  # of a step: a larger batch is measured in part, or the measurement would take as long as much of the run
SPREAD = 0.2  # standard deviation by which weights are changed before steps are compared: at the start all gains are one
# Largest relative distance of a step's loss, and of each parameter's gradient and update, from autograd's.
TOLERANCE = {"fp32": 0.01, "bf16": 0.1}  # of shapes up to 5 M parameters, rounding reached 0.0005 and 0.014


def choose_on_cpu(run: RunConfig) -> Measured:
    """What trains `run` in this process, with its number of threads: "native" or "eager", and why. Says so if the native engine
    should have been able to and was not right."""
    threads = torch.get_num_threads()
    if (known := measured.read(run, threads)) is None:
        known = _measure(run)
        measured.keep(run, threads, known)
    if known.why_not_native and shutil.which(measured.compiler()):  # of a missing compiler the launch has spoken
        _warn_once(known.why_not_native)
    return known


@lru_cache
def _warn_once(reason: str) -> None:
    log.warning("steps are torch's own, several times slower: %s", reason)


def _measure(run: RunConfig) -> Measured:
    run = replace(run, batch_size=min(run.batch_size, max(1, MAX_TOKENS // run.model.context_length)))
    rates = {"eager": _tokens_per_s(AutogradEngine(run, _sequences(run), device="cpu"))}
    if not (reason := supports(run)):
        try:
            reason = difference(replace(run, precision="fp32")) or (difference(run) if run.precision != "fp32" else "")
            if not reason:
                rates["native"] = _tokens_per_s(NativeEngine(run, _sequences(run)))
        except NoKernels as error:
            reason = str(error)
    fastest = max(rates, key=lambda name: rates[name])
    return Measured(engine=fastest, tokens_per_s=rates, why_not_native=reason, processor=measured.processor_name())


def difference(run: RunConfig) -> str:
    """How the native engine's step differs from autograd's by more than rounding, from the same changed weights; "" if it does
    not."""
    engines = [kind(run, _sequences(run)) for kind in (_autograd, NativeEngine)]
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: weight + SPREAD * torch.randn(weight.shape, generator=generator) * max(weight.std(correction=0).item(), 0.1)
        for name, weight in engines[0].state()["model"].items()
    }
    results: list[dict[str, Tensor]] = []
    for engine in engines:
        engine.load({"model": weights, "optimizer": {"state": {}}})
        loss, norm = engine.step(0)
        results.append({"loss": loss, "norm of the gradient": norm, **_gradients_and_updates(engine.state(), weights)})
    if results[0].keys() != results[1].keys():
        return "its step is not that of models.language_model.LanguageModel: other parameters have gradients"
    apart = {name: _distance(results[1][name], results[0][name]) for name in results[0]}
    if run.precision == "bf16":  # in the first step an update is the gradient's sign, which rounding can turn
        apart = {name: distance for name, distance in apart.items() if not name.startswith("update")}
    worst = max(apart, key=lambda name: apart[name])
    if apart[worst] <= TOLERANCE[run.precision]:
        return ""
    return f"its step is not that of models.language_model.LanguageModel: {worst} is {apart[worst]:.2g} away in {run.precision}"


def _autograd(run: RunConfig, sequences: TrainingSequences) -> AutogradEngine:
    return AutogradEngine(run, sequences, device="cpu")


def _gradients_and_updates(state: dict[str, Any], before: dict[str, Tensor]) -> dict[str, Tensor]:
    """By parameter: the first moment after a step, which is the clipped gradient times 1 - beta1, and how the weight moved."""
    moments = {f"gradient {number}": each["exp_avg"] for number, each in state["optimizer"]["state"].items()}
    return moments | {f"update of {name}": state["model"][name] - weight for name, weight in before.items()}


def _distance(found: Tensor, expected: Tensor) -> float:
    distance = ((found - expected).norm() / (expected.norm() + 1e-30)).item()
    return distance if np.isfinite(distance) else float("inf")


def _tokens_per_s(engine: NativeEngine | AutogradEngine) -> float:
    """The median over a few steps, after one that does not count."""
    engine.step(0)
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < MIN_STEPS:
        begin = time.perf_counter()
        engine.step(len(times) + 1)
        times.append(time.perf_counter() - begin)
    return engine.run.batch_tokens / statistics.median(times)


def _sequences(run: RunConfig) -> TrainingSequences:
    """Random tokens, enough for a batch of different sequences."""
    T = run.model.context_length
    tokens = np.random.default_rng(0).integers(0, run.model.vocab_size, run.batch_size * T + 1, dtype=np.uint32)
    return TrainingSequences(tokens, context_length=T, batch_size=run.batch_size, seed=0)
