"""A whole training step on a CPU without autograd: torch multiplies the matrices, kernels.cpp does the rest.

The forward pass, the backward pass and AdamW are lists of calls on buffers that are allocated once. They are specific to this
architecture, compute what autograd and torch.optim.AdamW do up to rounding, and need no compilation per shape.
"""

import ctypes
import math
from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import ModelConfig
from models.blocks import rotary_tables
from models.language_model import LanguageModel
from sweep.data import TrainingSequences
from sweep.plan.run import RunConfig
from sweep.train.engine.autograd import by_decay
from sweep.train.engine.kernels import kernels
from sweep.train.schedule import learning_rate

MAX_LOGITS = 2**22  # at once: 16 MB in fp32


class _Stretch:
    """Parameters that AdamW updates in one pass: flat vectors of one length, with a view into each for every parameter.

    `scalar` is the copy of the weights in the precision of the run, for the matrix products; in fp32 it is `weight` itself.
    """

    def __init__(self, parameters: Mapping[str, Tensor], precision: torch.dtype, decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.weight = torch.cat([parameter.detach().flatten() for parameter in parameters.values()])
        self.mean, self.square = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.gradient = torch.zeros_like(self.weight, dtype=precision)
        self.scalar = self.weight if precision == self.weight.dtype else self.weight.to(precision)

    def views(self, vector: str) -> dict[str, Tensor]:
        parts = getattr(self, vector).split([parameter.numel() for parameter in self.parameters.values()])
        return {name: part.view_as(self.parameters[name]) for name, part in zip(self.parameters, parts, strict=True)}


# The fields of a run's identity that this engine computes. One that is added later is in the identity of runs in which it has
# another value than before, and those are not trained here until it is in this list.
SUPPORTED = {
    "run": "model corpus batch_size steps optimizer schedule seed precision evaluation_points unique_tokens noise_scale",
    "model": "vocab_size d_model n_layers n_heads n_kv_heads d_ff context_length tied_embeddings rope_theta norm_eps",
    "optimizer": "peak_lr beta1 beta2 eps weight_decay grad_clip",
    "schedule": "warmup_steps final_fraction cycle shape decay_fraction",
}


def supports(run: RunConfig) -> str:
    """Why this engine cannot train `run`, or "": a field of it, its precision, or the parameters of the model."""
    identity = run.identity()
    parts = {"run": identity, **{name: identity[name] for name in ("model", "optimizer", "schedule")}}
    if unknown := [
        f"{part}.{name}" for part, values in parts.items() for name in values if name not in SUPPORTED[part].split()
    ]:
        return f"the native engine does not know {', '.join(unknown)}"
    if run.precision not in ("fp32", "bf16"):
        return f"the native engine does not compute in precision={run.precision}"
    with torch.device("meta"):
        found = {name: tuple(value.shape) for name, value in LanguageModel(run.model).state_dict().items()}
    if changed := sorted(name for name, _ in found.items() ^ _parameters(run.model).items()):
        return f"the native engine has other parameters than the model: {', '.join(dict.fromkeys(changed))}"
    return ""


def _parameters(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The parameters that the program is written for, and their shapes."""
    block = {
        "attention_norm.weight": (c.d_model,),
        "attention.qkv.weight": ((c.n_heads + 2 * c.n_kv_heads) * c.head_dim, c.d_model),
        "attention.out.weight": (c.d_model, c.d_model),
        "feed_forward_norm.weight": (c.d_model,),
        "feed_forward.gate_up.weight": (2 * c.d_ff, c.d_model),
        "feed_forward.down.weight": (c.d_model, c.d_ff),
    }
    blocks = {f"blocks.{layer}.{name}": shape for layer in range(c.n_layers) for name, shape in block.items()}
    table = (c.vocab_size, c.d_model)
    return {"embedding.weight": table, **blocks, "norm.weight": (c.d_model,), "head.weight": table}


class NativeEngine:
    """See `sweep.train.engine.Engine`. Raises NoKernels where `kernels` does."""

    name = "native"

    def __init__(self, run: RunConfig, sequences: TrainingSequences) -> None:
        self.run, self.config, self.sequences = run, run.model, sequences
        self.kernels = kernels()
        self.kernels.set_threads(torch.get_num_threads())
        self.precision = torch.bfloat16 if run.precision == "bf16" else torch.float32
        self.rows = run.batch_size * run.model.context_length
        self.steps_done = 0
        self._lay_out_weights()
        self._write_program()

    def step(self, step: int) -> Tensor:
        self._take(self.sequences.batch(step))
        for buffer in self.accumulators:
            buffer.zero_()
        for call in chain(self.forward, self.head, self.backward):
            call()
        norm = self._update(learning_rate(step, self.run.steps, self.run.optimizer.peak_lr, self.run.schedule))
        return torch.tensor((self.losses.mean(), norm))

    def sequence_losses(self, sequences: np.ndarray) -> Tensor:
        B, means = self.run.batch_size, []
        for start in range(0, len(sequences), B):
            part = sequences[start : start + B]
            self._take(np.resize(part, (B, *part.shape[1:])))  # the last batch is padded with sequences that do not count
            for call in chain(self.forward, self.head_forward):
                call()
            means.append(self.losses.view(B, -1).double().mean(dim=1)[: len(part)])
        return torch.cat(means)

    def state(self) -> dict[str, Any]:
        step, moments = torch.tensor(float(self.steps_done)), {}
        if self.steps_done:
            for number, name in enumerate(self.numbered):
                mean, square = self.means[name].clone(), self.squares[name].clone()
                moments[number] = {"step": step.clone(), "exp_avg": mean, "exp_avg_sq": square}
        return {"model": {name: self.weights[name].clone() for name in self.names}, "optimizer": {"state": moments}}

    def load(self, state: dict[str, Any]) -> None:
        for name, value in state["model"].items():
            self.weights[name].copy_(value)
        for number, moments in state["optimizer"]["state"].items():
            self.means[self.numbered[number]].copy_(moments["exp_avg"])
            self.squares[self.numbered[number]].copy_(moments["exp_avg_sq"])
            self.steps_done = int(moments["step"])
        for stretch in self.stretches:
            stretch.scalar.copy_(stretch.weight)

    def _lay_out_weights(self) -> None:
        """Three stretches: matrices of the blocks; embedding and head, whose gradients are accumulated; gains of the norms."""
        model = LanguageModel(self.config)
        model.initialise(self.run.seed)
        self.names = list(model.state_dict())
        self.rotary_tables = rotary_tables(self.config.context_length, self.config.head_dim, self.config.rope_theta)

        matrices, gains = by_decay(model)
        self.numbered = [*matrices, *gains]
        blocks = {name: parameter for name, parameter in matrices.items() if name.startswith("blocks")}
        ends = {name: parameter for name, parameter in matrices.items() if name not in blocks}
        decay = self.run.optimizer.weight_decay
        parts = (blocks, self.precision, decay), (ends, torch.float32, decay), (gains, torch.float32, 0.0)
        self.stretches = [_Stretch(*part) for part in parts]
        self.weights, self.means, self.squares, self.gradients, self.scalars = (
            {name: view for stretch in self.stretches for name, view in stretch.views(vector).items()}
            for vector in ("weight", "mean", "square", "gradient", "scalar")
        )
        if self.config.tied_embeddings:
            for values in (self.weights, self.means, self.squares, self.gradients):
                values["head.weight"] = values["embedding.weight"]

    def _write_program(self) -> None:
        """Make the buffers and the lists of calls: `forward` up to the last norm, `head` with its backward pass, `backward`."""
        c, R = self.config, self.rows
        B, T, D, H, G, K, F = self.run.batch_size, c.context_length, c.d_model, c.n_heads, c.n_kv_heads, c.head_dim, c.d_ff
        self.ids, self.targets = torch.zeros(2, R, dtype=torch.int64)
        self.losses = torch.zeros(R)
        forward: list[partial[Any]] = []
        backward: list[partial[Any]] = []  # runs from the loss back, but is written in the order of the forward pass

        def scalars(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=self.precision)

        def linear(x: Tensor, name: str, y: Tensor, dy: Tensor, dx: Tensor) -> None:
            """y = x W^T, and its backward pass."""
            forward.append(partial(torch.mm, x, self.scalars[name].t(), out=y))
            backward.append(partial(torch.mm, dy, self.scalars[name], out=dx))
            backward.append(partial(torch.mm, dy.t(), x, out=self.gradients[name]))

        # Gradients of the residual stream (as sums, and as the products read them) and of a norm's output.
        dx_RD, dx_scalar_RD, dy_RD = torch.zeros(R, D), scalars(R, D), scalars(R, D)

        def norm(x_RD: Tensor, branch_RD: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
            """The residual stream with `branch_RD` added, and its norm."""
            new_RD = x_RD if branch_RD is None else torch.zeros(R, D)
            y_RD, inverse_rms_R, gain_D = scalars(R, D), torch.zeros(R), self.weights[name]
            forward.append(self._call("add_norm", x_RD, branch_RD, new_RD, gain_D, y_RD, inverse_rms_R, R, D, c.norm_eps))
            way_back = (dy_RD, new_RD, gain_D, inverse_rms_R, dx_RD, dx_scalar_RD, self.gradients[name])
            backward.append(self._call("norm_backward", *way_back, R, D))
            return new_RD, y_RD

        x_RD, branch_RD = torch.zeros(R, D), scalars(R, D)
        d_qkv, d_heads, d_gate_up, d_hidden = scalars(R, (H + 2 * G) * K), scalars(R, H * K), scalars(R, 2 * F), scalars(R, F)
        forward.append(self._call("embed", self.weights["embedding.weight"], self.ids, x_RD, R, D))
        backward.append(self._call("embed_backward", dx_RD, self.ids, self.gradients["embedding.weight"], R, D))
        for layer in range(c.n_layers):
            block = f"blocks.{layer}."
            qkv, heads, lse_BHT = scalars(R, (H + 2 * G) * K), scalars(R, H * K), torch.zeros(B, H, T)
            gate_up, hidden = scalars(R, 2 * F), scalars(R, F)

            x_RD, y_RD = norm(x_RD, branch_RD if layer else None, block + "attention_norm.weight")
            linear(y_RD, block + "attention.qkv.weight", qkv, d_qkv, dy_RD)
            inputs = (qkv, *self.rotary_tables, heads, lse_BHT)
            forward.append(self._call("attention", *inputs, B, T, H, G, K))
            backward.append(self._call("attention_backward", *inputs, d_heads, d_qkv, B, T, H, G, K))
            linear(heads, block + "attention.out.weight", branch_RD, dx_scalar_RD, d_heads)

            x_RD, y_RD = norm(x_RD, branch_RD, block + "feed_forward_norm.weight")
            linear(y_RD, block + "feed_forward.gate_up.weight", gate_up, d_gate_up, dy_RD)
            forward.append(self._call("swiglu", gate_up, hidden, R, F))
            backward.append(self._call("swiglu_backward", gate_up, d_hidden, d_gate_up, R, F))
            linear(hidden, block + "feed_forward.down.weight", branch_RD, dx_scalar_RD, d_hidden)
        _, y_RD = norm(x_RD, branch_RD, "norm.weight")
        self.forward, self.backward = forward, backward[::-1]
        self.head_forward = self._head(y_RD, dy_RD, backward=False)
        self.head = self._head(y_RD, dy_RD, backward=True)
        self.accumulators = [dx_RD] + [stretch.gradient for stretch in self.stretches[1:]]

    def _head(self, y_RD: Tensor, dy_RD: Tensor, *, backward: bool) -> list[partial[Any]]:
        """The calls from the last norm to the loss, and back with `backward`; a few rows at a time, to keep logits small."""
        R, V, weight = self.rows, self.config.vocab_size, self.weights["head.weight"]
        rows = min(R, max(1, MAX_LOGITS // V))
        scalar = weight if self.precision == weight.dtype else torch.zeros_like(weight, dtype=self.precision)
        d_scalar, logits = torch.zeros_like(scalar), torch.zeros(rows, V, dtype=self.precision)
        calls: list[partial[Any]] = [] if scalar is weight else [partial(scalar.copy_, weight)]
        for start in range(0, R, rows):
            some = slice(start, min(start + rows, R))
            y, part, targets, losses = y_RD[some], logits[: some.stop - start], self.targets[some], self.losses[some]
            calls.append(partial(torch.mm, y, scalar.t(), out=part))
            calls.append(self._call("cross_entropy", part, targets, losses, 1 / R if backward else 0.0, len(part), V))
            if backward:
                calls.append(partial(torch.mm, part, scalar, out=dy_RD[some]))
                calls.append(partial(torch.mm, part.t(), y, out=d_scalar))
                calls.append(partial(self.gradients["head.weight"].add_, d_scalar))
        return calls

    def _call(self, kernel: str, *arguments: Tensor | float | int | None) -> partial[Any]:
        """A call of a kernel, with its arguments converted once."""
        name = kernel if kernel.startswith("embed") else f"{kernel}_{self.run.precision}"
        call = partial(getattr(self.kernels, name), *map(_as_c, arguments))
        call.tensors = arguments  # type: ignore[attr-defined]  # these must live as long as the pointers
        return call

    def _take(self, ids_BS: np.ndarray) -> None:
        if (largest := ids_BS.max()) >= self.config.vocab_size:  # the kernels would read beyond the end of the table
            raise IndexError(f"id {largest} is beyond the embedding of a vocabulary of {self.config.vocab_size}")
        ids, shape = torch.from_numpy(ids_BS), (self.run.batch_size, self.config.context_length)
        self.ids.view(shape).copy_(ids[:, :-1])
        self.targets.view(shape).copy_(ids[:, 1:])

    def _update(self, lr: float) -> float:
        """Clip, update with AdamW, and return the norm of the gradient before clipping."""
        o, squares = self.run.optimizer, 0.0
        for stretch in self.stretches:
            sum_of_squares = getattr(self.kernels, f"sum_of_squares_{_suffix(stretch.gradient)}")
            squares += sum_of_squares(_as_c(stretch.gradient), ctypes.c_int64(stretch.gradient.numel()))
        norm = math.sqrt(squares)
        clip = min(1.0, o.grad_clip / (norm + 1e-6))  # torch.nn.utils.clip_grad_norm_
        self.steps_done += 1
        corrections = (1 - o.beta1**self.steps_done, 1 - o.beta2**self.steps_done)
        for stretch in self.stretches:
            vectors = (stretch.weight, stretch.mean, stretch.square, stretch.gradient, stretch.scalar)
            numbers = (clip, lr, o.beta1, o.beta2, o.eps, stretch.decay, *corrections)
            adamw = getattr(self.kernels, f"adamw_{_suffix(stretch.gradient)}")
            adamw(*map(_as_c, vectors), ctypes.c_int64(stretch.weight.numel()), *map(_as_c, numbers))
        return norm


def _as_c(argument: Tensor | float | int | None) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


def _suffix(tensor: Tensor) -> str:
    return "bf16" if tensor.dtype == torch.bfloat16 else "fp32"
