"""The step by torch's autograd and AdamW or Adam: on any device, over several processes, eager or with the model compiled."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.dropout import keys
from models.language_model import LanguageModel
from sweep.claim import alone
from sweep.files import content_hash
from sweep.plan.code import require
from sweep.plan.cost import sequences_at_once
from sweep.plan.run import RESIDUAL_BF16, WEIGHTS_BF16, RunConfig
from sweep.train.objective import Batches, batch_loss, sequence_means
from sweep.train.ranks import ALONE, Parallel
from sweep.train.schedule import learning_rate

log = logging.getLogger(__name__)

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}  # AdamW is a subclass

EVALUATION_TOKENS = {"cpu": 2**13, "cuda": 2**16}  # per forward pass of an evaluation
MAX_SHAPES = 4096  # shapes that one process may compile
# On a GPU, the first of these that can compute the run's attention, whatever torch's own order is in this version.
ATTENTION = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)


def language_model(run: RunConfig) -> LanguageModel:
    """The module that `run` trains; its weights have no defined values. Raises InputError as `sweep.plan.code.require`."""
    require(run.model)
    model = LanguageModel(run.model)
    if run.precision in (RESIDUAL_BF16, WEIGHTS_BF16):
        model.residual_dtype = torch.bfloat16
    if run.precision == WEIGHTS_BF16:  # and so their gradients and moments; RoPE's tables, which are no weights, stay in fp32
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    return model


def by_decay(model: LanguageModel) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters by name: matrices, which decay, and gains of norms, which do not. AdamW's state has this order."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    matrices = {name: parameter for name, parameter in named.items() if parameter.ndim >= 2}
    return matrices, {name: parameter for name, parameter in named.items() if name not in matrices}


def build_optimizer(model: LanguageModel, run: RunConfig, lr: Tensor | None = None) -> torch.optim.Adam:
    """AdamW (arXiv 1711.05101) or Adam for `run`, fused; with a tensor `lr`, a CUDA graph can capture the step.

    Adam's decay is coupled: `weight_decay` x weight is added to the gradient, here after that was clipped. Moments have the
    weights' precision, and an update of weights in bf16 is rounded to it (Chinchilla, Fig. A6).
    """
    o, (matrices, gains) = run.optimizer, by_decay(model)
    return OPTIMIZERS[o.kind](
        [
            {"params": list(matrices.values()), "weight_decay": o.weight_decay},
            {"params": list(gains.values()), "weight_decay": 0.0},
        ],
        lr=o.peak_lr if lr is None else lr,
        betas=(o.beta1, o.beta2),
        eps=o.eps,
        fused=True,
        capturable=lr is not None and lr.is_cuda,
    )


class AutogradEngine:
    """See `sweep.train.engine.Engine`.

    With `compiled`, torch.compile makes the model's parts in the first step of a shape, which takes some seconds; where it
    cannot, one line says so, and the steps are eager. `micro_batch` is the number of sequences per forward pass; None for the
    whole batch, and on a GPU for as many as `sweep.plan.cost.sequences_at_once` says, or fewer if they do not fit.
    """

    lr: Tensor | None = None  # of a subclass whose learning rate is on the device

    def __init__(
        self,
        run: RunConfig,
        sequences: Batches,
        *,
        device: str,
        compiled: bool = False,
        micro_batch: int | None = None,
        parallel: Parallel = ALONE,
    ) -> None:
        self.run, self.sequences, self.device, self.parallel = run, sequences, device, parallel
        self.micro_batch = micro_batch or (run.batch_size if device == "cpu" else sequences_at_once(run))
        model = language_model(run)
        model.initialise(run.seed)
        self.model = parallel.shard(model, device)
        self.compiled = self.compiled_parts = compiled
        self.first = True  # no step has succeeded yet
        if compiled:  # a worker trains many shapes; by default torch silently stops compiling after eight
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = MAX_SHAPES
            self.model.compile_parts()
        if device == "cuda":  # partial sums of a product stay in float32
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        self.optimizer = build_optimizer(self.model, run, self.lr)
        self.may_shrink = micro_batch is None and parallel.size == 1

    def step(self, step: int) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.run.steps, self.run.optimizer.peak_lr, self.run.schedule)
        return self._step_on(to_device(self.sequences.batch(step), self.device), self._keys(step))

    @property
    def name(self) -> str:
        return "compiled" if self.compiled else "eager"

    def _keys(self, step: int) -> Tensor | None:
        """The keys of dropout in step `step`, shape (B,); None if nothing is dropped."""
        if not self.run.model.dropout:
            return None
        return to_device(keys(self.run.seed, step, self.run.batch_size), self.device)

    def _step_on(self, batch_BS: Tensor, key_B: Tensor | None = None) -> Tensor:
        """`optimizer_step`. A first one that cannot be compiled is taken eagerly; one that does not fit the GPU, with smaller
        micro-batches."""
        fresh = not self.optimizer.state
        while True:
            try:
                with self._compiling(), self._by(compiled=self.compiled), attention(self.device):
                    result = optimizer_step(
                        self.model, self.optimizer, batch_BS, self.run, self.micro_batch, self.parallel, key_B
                    )
                self.first = False
                return torch.stack(result)
            except RuntimeError as error:
                if not self.first:
                    raise
                if out_of_memory(error):
                    if not self.may_shrink or not self._shrink():
                        raise
                elif not self.compiled or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                    raise
                else:
                    cause = getattr(error, "inner_exception", error)
                    first_line = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
                    log.warning("%s: torch.compile fails here (%s); its steps are eager", self.run.run_id, first_line)
                    self.compiled = False
            self.optimizer.zero_grad()
            if fresh:  # half-updated moments must not be used
                self.optimizer.state.clear()

    def _by(self, *, compiled: bool) -> AbstractContextManager[object]:
        """The compiled parts of the model, or what they were made from."""
        return torch.compiler.set_stance("force_eager") if self.compiled_parts and not compiled else nullcontext()

    @contextmanager
    def _compiling(self) -> Iterator[None]:
        """Hold a lock during the first step of a compiled engine: one of the processes that share torch's cache compiles a
        shape, and the others wait and use the result."""
        cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        if not (self.compiled and self.first and cache):
            yield
            return
        shape = content_hash(asdict(self.run.model) | {"sequences": self.micro_batch, "precision": self.run.precision})
        with alone(Path(cache) / f"{shape}.claim"):
            yield

    def _shrink(self) -> bool:
        """Use less memory: halve the micro-batch, and at one sequence recompute the activations of each block."""
        if self.micro_batch > 1:
            self.micro_batch = (self.micro_batch + 1) // 2
            return True
        already, self.model.recompute = self.model.recompute, True
        return not already

    @torch.no_grad()
    def sequence_losses(self, sequences: np.ndarray) -> Tensor:
        device = next(self.model.parameters()).device
        losses = torch.zeros(len(sequences), dtype=torch.double, device=device)
        at_once = max(1, EVALUATION_TOKENS[device.type] // self.run.model.context_length)
        for rows, counted in self.parallel.share(len(sequences), at_once):
            ids = to_device(sequences[rows], device.type)
            # Eagerly: another number of sequences, and no gradients, would be compiled for themselves.
            with self._by(compiled=False), attention(device.type), autocast(self.run.precision, device.type):
                means = sequence_means(self.model, ids)
            if counted:  # only this rank has them, and the mean over ranks must equal them
                losses[rows] = means.double() * self.parallel.size
        return self.parallel.mean(losses)

    def state(self) -> dict[str, Any]:
        state = self.parallel.gather(self.model, self.optimizer)
        return {"model": state["model"], "optimizer": {"state": state["optimizer"]["state"]}}

    def load(self, state: dict[str, Any]) -> None:
        if "optimizer" in state:  # which only rank 0 has
            groups = self.optimizer.state_dict()["param_groups"]
            state = {"model": state["model"], "optimizer": {"state": state["optimizer"]["state"], "param_groups": groups}}
        self.parallel.scatter(state, self.model, self.optimizer)


def optimizer_step(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    batch_BS: Tensor,
    run: RunConfig,
    micro_batch: int,
    parallel: Parallel = ALONE,
    key_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One update from `batch_BS`, ids of shape (B, T + 1) or examples (see `sweep.train.objective`), taken `micro_batch` at a
    time; `key_B` are its keys of dropout.

    Each rank computes its shard, weighted so that the mean of the gradients over ranks is the mean over the batch.

    Returns:
        The batch's mean loss, to be averaged over ranks, and the norm of its gradient before clipping: scalars on the device.
    """
    total = torch.zeros((), device=batch_BS.device)
    shares = parallel.share(len(batch_BS), micro_batch)
    for i, (rows, counted) in enumerate(shares, start=1):
        part, key = batch_BS[rows], None if key_B is None else key_B[rows]
        with parallel.accumulating(model, more=i < len(shares)):
            with autocast(run.precision, batch_BS.device.type):
                part_loss = batch_loss(model, part, key) * (counted * parallel.size / len(batch_BS))
            part_loss.backward()
        total += part_loss.detach()
    grad_norm = parallel.whole(torch.nn.utils.clip_grad_norm_(model.parameters(), run.optimizer.grad_clip))
    optimizer.step()
    optimizer.zero_grad()
    return total, grad_norm


def autocast(precision: str, device: str) -> Any:
    """bf16 forward and backward, over fp32 master weights or weights in bf16 (Chinchilla, Fig. A6), or nothing."""
    return nullcontext() if precision == "fp32" else torch.autocast(device, torch.bfloat16)


def attention(device: str) -> AbstractContextManager[object]:
    """Choose the kernel of attention as `ATTENTION` says, on a GPU."""
    return sdpa_kernel(list(ATTENTION), set_priority=True) if device == "cuda" else nullcontext()


def attention_kernel(run: RunConfig) -> str:
    """The name of the kernel that `attention` chooses for `run` on this GPU."""
    m, dtype = run.model, torch.float32 if run.precision == "fp32" else torch.bfloat16
    q, k = (
        torch.zeros(1, heads, m.context_length, m.head_dim, dtype=dtype, device="cuda", requires_grad=True)
        for heads in (m.n_heads, m.n_kv_heads)
    )
    parameters = torch.backends.cuda.SDPAParams(q, k, k, None, 0.0, True, m.n_heads != m.n_kv_heads)
    can_use = {
        SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.can_use_cudnn_attention,
        SDPBackend.FLASH_ATTENTION: torch.backends.cuda.can_use_flash_attention,
        SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.can_use_efficient_attention,
    }
    chosen = next((kernel for kernel in ATTENTION if kernel in can_use and can_use[kernel](parameters)), SDPBackend.MATH)
    return chosen.name.removesuffix("_ATTENTION").lower()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device's memory ran out, in torch's allocator or in a call of CUDA; the end of a capture may hide that."""
    return any("out of memory" in str(each) for each in (error, error.__context__))


def to_device(ids: np.ndarray, device: str) -> Tensor:
    """Ids on `device`; the copy is asynchronous."""
    tensor = torch.from_numpy(ids)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor
