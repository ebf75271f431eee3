"""Training one run, from top to bottom: every rank goes through all of this, and only rank 0 reads and writes the store."""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, cast

import torch
from torch import Tensor

from models import flops_per_token
from sweep.claim import Claim, LostError
from sweep.data import Corpus, TrainingSequences
from sweep.plan import measured
from sweep.plan.cost import choose_engine, is_simple
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, states
from sweep.train.checkpoint import kept_steps, load_checkpoint, save_checkpoint
from sweep.train.curve import Curve, cut, problem_of
from sweep.train.device import describe_device, matmul_peak
from sweep.train.engine import make_engine
from sweep.train.engine.autograd import attention_kernel
from sweep.train.engine.choice import choose_on_cpu
from sweep.train.events import Progress
from sweep.train.noise_scale import measure_noise_scale
from sweep.train.objective import held_out, training_batches
from sweep.train.runtime import Runtime
from sweep.train.schedule import learning_rate

MIN_MEASURED_S = 0.5  # of training, for its speed to say something


def train(
    run: RunConfig,
    corpus: Corpus,
    directory: RunDirectory,
    runtime: Runtime = Runtime(),
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[int], bool] = lambda step: False,
) -> str:
    """Train `run` from its last checkpoint, or from the start, to its horizon, and write what happens to `directory`.

    With several ranks, each makes this call, and all return the same state.

    Args:
        run, corpus, directory: what to train, the data it names, and where its files are.
        runtime: device, intervals, and the other ranks.
        on_progress: called about every `runtime.log_interval_s`, on rank 0.
        should_stop: called before every step with the steps done; True, on any rank, writes a checkpoint and ends the call.

    Returns:
        The state that status.json now has: "done", "diverged" (a loss was not finite) or "interrupted"; or "running" if
        another process owns the run, which is then left alone.

    Raises:
        InputError: if the directory belongs to another configuration, all its checkpoints are damaged, or the disk is full.
    """
    parallel = runtime.parallel
    parallel.on_rank0(lambda: directory.create(run))
    with suppress(LostError), directory.own() if parallel.rank == 0 else nullcontext() as claim:
        engine = choose_engine(
            runtime.device,
            simple=is_simple(run),
            compiled=runtime.compile,
            compile_pays=runtime.compile_pays,
            parallel_size=parallel.size,
            micro_batch=runtime.micro_batch,
        )
        on_card = runtime.device == "cuda" and run.model.body == "transformer"
        notes: dict[str, Any] = {"attention": attention_kernel(run)} if on_card else {}
        chosen = None
        if engine == "native" and claim is not None:  # the run of another process needs no engine
            chosen = choose_on_cpu(run)
            engine, notes = chosen.engine, {"tokens_per_s": chosen.tokens_per_s, "why_not_native": chosen.why_not_native}

        def reason_to_leave() -> str | None:
            """The state of a run that this process must not train; else write down that it does, and return None."""
            if claim is None:
                return states.RUNNING
            if (state := directory.status()["state"]) in states.FINAL_STATES:
                return state
            directory.require_space(run, runtime.keep)
            directory.add_provenance(
                claim,
                device=describe_device(runtime.device),
                engine=engine,
                **{name: note for name, note in notes.items() if note},
                ranks=parallel.size,
                strategy=parallel.strategy,
                corpus=corpus.manifest["parts"],
            )
            return None

        if (state := parallel.on_rank0(reason_to_leave)) is not None:
            return state
        training = _Training(run, corpus, directory, runtime, engine, claim)
        state = training.loop(on_progress, should_stop)
        if chosen and state == states.DONE and training.training_s() > MIN_MEASURED_S:
            measured.keep(run, torch.get_num_threads(), chosen.with_rate(training.tokens_per_s()))
        return state
    return states.RUNNING  # this process was suspended so long that another took over the run


class _Training:
    """The state of a run in training. `claim` is None on the ranks beside rank 0."""

    def __init__(
        self, run: RunConfig, corpus: Corpus, directory: RunDirectory, runtime: Runtime, engine: str, claim: Claim | None
    ) -> None:
        self.run, self.directory, self.runtime, self.parallel = run, directory, runtime, runtime.parallel
        self.claim = cast(Claim, claim)  # only rank 0 uses it
        self.sequences, self.held_out = training_batches(run, corpus), held_out(run, corpus)
        self.engine = make_engine(
            engine, run, self.sequences, device=runtime.device, micro_batch=runtime.micro_batch, parallel=self.parallel
        )
        # Evenly spaced, the last at the horizon.
        self.evaluate_at = {round(run.steps * (i + 1) / run.evaluation_points) for i in range(run.evaluation_points)}
        self.keep_at = set(kept_steps(run.steps, runtime.keep)) - {run.steps}  # a finished run has its last checkpoint
        self.step = 0  # optimizer steps done
        self.elapsed_before_s = 0.0  # in earlier starts
        self.beside_s = {"saving_s": 0.0, "evaluating_s": 0.0, "logging_s": 0.0}  # of this start, beside training steps
        self.pending: list[Tensor] = []  # loss and gradient norm of steps whose results are still on the device
        self.validation: dict[str, float] = {}

    def loop(self, on_progress: Callable[[Progress], None], should_stop: Callable[[int], bool]) -> str:
        """Train until the horizon, a divergence or a stop; the state. Raises LostError if another process owns the run now."""
        self.on_progress = on_progress
        self._resume()
        with Curve(self.directory.curve if self.parallel.rank == 0 else None, self.run) as self.curve:
            self.interval_start = self.saved_at = self.started = time.perf_counter()
            self.interval_step = self.step_before = self.step
            self._write_status(states.RUNNING)
            while self.step < self.run.steps:
                # Clocks and signals differ between ranks: if any rank wants to, all do.
                stop, save, log = self.parallel.any_rank(
                    should_stop(self.step),
                    time.perf_counter() - self.saved_at >= self.runtime.checkpoint_interval_s,
                    time.perf_counter() - self.interval_start >= self.runtime.log_interval_s,
                )
                if stop:
                    return self._stop(states.INTERRUPTED)
                self.pending.append(self.engine.step(self.step))
                self.step += 1
                evaluate, keep = self.step in self.evaluate_at, self.step in self.keep_at
                if log or evaluate or save or keep:
                    self._check()
                    if not self._log() or (evaluate and not self._evaluate()):
                        return self._stop(states.DIVERGED)
                if keep:  # before a checkpoint from which a resume would not come by here again
                    self._keep()
                if save:
                    self._save()
            return self._stop(states.DONE)

    def _resume(self) -> None:
        """Load the last checkpoint, and cut the curve back to it: the steps after it will be trained again."""
        weights: dict[str, Any] = {}

        def read() -> dict[str, Any]:
            curve = self.directory.curve
            checkpoint = load_checkpoint(self.directory.checkpoints, problem_of=lambda state: problem_of(curve, state))
            if checkpoint is None:
                checkpoint = {"step": 0, "elapsed_s": 0.0, "validation": {}, "curve_bytes": 0}
            else:  # the tensors are not broadcast with the rest: the engine sends them piece by piece
                weights.update(model=checkpoint.pop("model"), optimizer=checkpoint.pop("optimizer"))
            cut(curve, checkpoint, self.claim)
            return checkpoint

        checkpoint = self.parallel.on_rank0(read)
        self.step, self.elapsed_before_s = checkpoint["step"], checkpoint["elapsed_s"]
        self.validation = checkpoint["validation"]
        if self.step:
            self.engine.load(weights)

    def _log(self) -> bool:
        """Write the pending steps to the curve; False if a loss was not finite, in which case the curve ends before that step.

        This is the only place where training waits for the device.
        """
        if not self.pending:
            return True
        results = self.parallel.mean(torch.stack(self.pending)).tolist()  # the norms are the same on all ranks
        begin, run = time.perf_counter(), self.run
        for step, (loss, norm) in enumerate(results, start=self.step - len(results)):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.step = step
                return False
            lr = learning_rate(step, run.steps, run.optimizer.peak_lr, run.schedule)
            self.curve.write(step + 1, loss=loss, lr=lr, grad_norm=norm)
            self.last_loss = loss
        self.pending.clear()
        self.parallel.on_rank0(self._report)
        self.interval_start, self.interval_step = time.perf_counter(), self.step
        self.beside_s["logging_s"] += self.interval_start - begin
        return True

    def _report(self) -> None:
        """Add a row to throughput.jsonl, and tell `on_progress`."""
        seconds = time.perf_counter() - self.interval_start
        tokens_per_s = (self.step - self.interval_step) * self.run.batch_tokens / seconds
        mfu = None
        with suppress(torch.OutOfMemoryError):  # the card may have no room for the matrices that measure its peak
            peaks = self.runtime.peaks
            peak = peaks[self.run.precision] if peaks else matmul_peak(self.runtime.device, self.run.precision)
            peak *= self.parallel.size
            mfu = round(tokens_per_s * flops_per_token(self.run.model, "exact") / peak, 4)
        row = {"step": self.step, "loss": self.last_loss, "tokens_per_s": round(tokens_per_s, 1), "mfu": mfu}
        with open(self.directory.throughput, "a") as file:
            file.write(json.dumps(row) + "\n")
        run_id, steps = self.run.run_id, self.run.steps
        self.on_progress(Progress(run_id=run_id, step=self.step, steps=steps, loss=self.last_loss, tokens_per_s=tokens_per_s))

    def _evaluate(self) -> bool:
        """Write the held-out losses and their standard errors to the curve; False if one is not finite. The error is that of
        the mean over text; runs that share the held-out set differ by much less than it."""
        begin = time.perf_counter()
        for name, sequences in self.held_out.items():
            losses = self.engine.sequence_losses(sequences)
            loss, standard_error = losses.mean().item(), losses.std().item() / math.sqrt(len(losses))
            if not math.isfinite(loss):
                return False
            self.validation |= {name: loss, f"{name}_se": standard_error}
        noise = {}
        if self.run.noise_scale and isinstance(of := self.sequences, TrainingSequences):
            noise = measure_noise_scale(self.run, self.engine.state(), of, self.step, self.runtime.device, self.parallel)
        self.curve.write(self.step, **self.validation, **noise)
        self.interval_start = time.perf_counter()  # an evaluation must not look like slow steps
        self.beside_s["evaluating_s"] += self.interval_start - begin
        return True

    def _save(self, keep: int = 2) -> None:
        """Write a checkpoint, and the curve up to it; both are on disk when this returns."""
        begin = time.perf_counter()
        weights = self.engine.state()

        def write() -> None:
            elapsed_s = self.elapsed_before_s + time.perf_counter() - self.started
            at = {"step": self.step, **self.curve.sync(), "elapsed_s": elapsed_s}
            state = {**at, "validation": self.validation, **weights}
            save_checkpoint(self.directory.checkpoints, self.step, state, self.claim, keep=keep)
            self.beside_s["saving_s"] += time.perf_counter() - begin

        self.parallel.on_rank0(write)
        self._write_status(states.RUNNING)
        self.saved_at = time.perf_counter()

    def _keep(self) -> None:
        """Keep the weights as they are after this step."""
        begin, state = time.perf_counter(), {"step": self.step, "model": self.engine.state()["model"]}
        self.parallel.on_rank0(lambda: save_checkpoint(self.directory.kept, self.step, state, self.claim, keep=None))
        self.interval_start = time.perf_counter()
        self.beside_s["saving_s"] += self.interval_start - begin

    def _stop(self, state: str) -> str:
        """Put everything on disk, write `state` to status.json, and return it."""
        self._check()
        if state != states.DIVERGED:
            if not self._log():
                return self._stop(states.DIVERGED)
            self._save(keep=1 if state == states.DONE else 2)
        self.curve.file.flush()
        self._write_status(state)
        return state

    def _check(self) -> None:
        """Raises LostError, on all ranks, if another process has taken over the run."""
        self.parallel.on_rank0(lambda: self.claim.check())

    def training_s(self) -> float:
        """Seconds of this start in training steps."""
        return time.perf_counter() - self.started - sum(self.beside_s.values())

    def tokens_per_s(self) -> float:
        """Tokens trained on in this start, in a second of training steps."""
        return (self.step - self.step_before) * self.run.batch_tokens / self.training_s()

    def _write_status(self, state: str) -> None:
        seconds = time.perf_counter() - self.started
        values = {
            "step": self.step,
            "steps": self.run.steps,
            "tokens": self.step * self.run.batch_tokens,
            "device": self.runtime.device,
            "ranks": self.parallel.size,
            "elapsed_s": round(self.elapsed_before_s + seconds, 3),  # over all starts
            "training_s": round(self.training_s(), 3),  # of this start
            **{name: round(beside, 3) for name, beside in self.beside_s.items()},
            **self.validation,
            **({"curve_sha256": self.curve.digest.hexdigest()} if state == states.DONE else {}),
        }
        self.parallel.on_rank0(lambda: self.directory.write_status(state, self.claim, **values))
