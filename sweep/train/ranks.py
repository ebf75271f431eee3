"""One run on several processes: which of them this is, and the few things that they do together.

Every process, a rank, goes through the same loop and takes its share of every batch; rank 0 alone touches the store. What all
must know, such as whether to stop or what a file says, is agreed on the host, so that no device is waited for.

`ALONE`, the default, is one process: everything here then costs nothing and changes nothing.
"""

import math
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from models.transformer import Transformer
from sweep.errors import InputError

TIMEOUT_S = 1800.0  # for a rank that hangs; one that died is noticed at once. Rank 0 may be long at a checkpoint, or a corpus

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """This process among those that train a run; a context manager while they are connected.

    Attributes:
        rank, size: which one of how many.
        local_rank: which one on its machine, and so which GPU.
        device: "cpu" or "cuda".
        strategy: "ddp", every rank holds the model; "fsdp", every rank holds its share of weights, gradients and moments, and
            gathers a block's weights when it needs them; "none" for one process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: str = "cpu"
    strategy: str = "none"

    @classmethod
    def from_environment(cls, device: str, strategy: str, environment: Mapping[str, str] = os.environ) -> "Parallel":
        """This process as torchrun or srun started it; alone if neither did.

        Args:
            device: "cpu" or "cuda".
            strategy: "ddp" or "fsdp", for more than one process.
            environment: of the process.

        Raises:
            InputError: under srun without MASTER_ADDR.
        """
        if "RANK" in environment:
            rank, size, local_rank = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        elif "SLURM_STEP_ID" in environment:  # a job's script has the other variables too, but is no step of srun
            names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
            rank, size, local_rank = (int(environment[name]) for name in names)
            if size > 1 and "MASTER_ADDR" not in environment:
                first = 'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
                raise InputError(f"srun runs {size} tasks, but MASTER_ADDR is not set; before srun: {first}")
        else:
            return cls(device=device)
        return cls(rank=rank, size=size, local_rank=local_rank, device=device, strategy=strategy if size > 1 else "none")

    def __enter__(self) -> "Parallel":
        if self.size > 1:
            if self.device == "cuda":
                # Of those it sees: Slurm may show each task its own alone.
                torch.cuda.set_device(self.local_rank % torch.cuda.device_count())
            # Each job its own port, for two may share a machine; torchrun has set one.
            os.environ.setdefault("MASTER_PORT", str(10_000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 50_000))
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo",
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=TIMEOUT_S),
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # After an error NCCL could wait here for ranks that are gone: the end of the process will do.
        if self.size > 1 and (kind is None or self.device == "cpu"):
            dist.destroy_process_group()

    def on_rank0(self, work: Callable[[], T]) -> T:
        """Let rank 0 do `work`; every rank gets what it returns, or the exception that it raises."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def any_rank(self, *wishes: bool) -> list[bool]:
        """Which of `wishes` at least one rank has: the same answer on all."""
        if self.size == 1:
            return list(wishes)
        flags = torch.tensor(wishes, dtype=torch.uint8)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return [bool(flag) for flag in flags.tolist()]

    def share(self, count: int, most: int) -> list[tuple[slice, int]]:
        """This rank's rows of `count`, at most `most` at a time, and how many rows of each slice count.

        Shares differ by one row at most. All ranks get as many slices, none of them empty, because under FSDP all ranks meet in
        every pass through the model: one that has no row left takes the first, which then counts for nothing.
        """
        start, stop = count * self.rank // self.size, count * (self.rank + 1) // self.size
        passes = math.ceil(math.ceil(count / self.size) / most)
        slices = [slice(low, min(low + most, stop)) for low in range(start, start + passes * most, most)]
        return [(rows, rows.stop - rows.start) if rows.start < rows.stop else (slice(0, 1), 0) for rows in slices]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over ranks, in place."""
        if self.size == 1:
            return values
        dist.all_reduce(values)
        return values.div_(self.size)

    def shard(self, model: Transformer, device: str) -> Transformer:
        """`model`, equal on all ranks, on their devices and made to average its gradients over them.

        bf16 is the same autocast as on one process, not FSDP's MixedPrecisionPolicy, which would keep the residual stream in
        bf16, too: a run must not depend on how many ranks train it. The price is that weights are gathered in fp32, and their
        bf16 copies, which backward needs, stay from a forward pass until then.
        """
        if self.strategy == "ddp":
            return Replicated(model.to(device))  # type: ignore[return-value]
        if self.strategy == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(device, (self.size,))
            for block in model.blocks:  # one after another: the whole may fit no device
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
            return model
        return model.to(device)

    def accumulating(self, model: Transformer, more: bool) -> AbstractContextManager[None]:
        """Around a forward and backward pass: with `more` of them to come, DDP's ranks need not meet yet.

        FSDP's do meet in each: gradients that are not shared out would take the memory that it saves.
        """
        return model.no_sync() if more and self.strategy == "ddp" else nullcontext()  # type: ignore[operator]

    def whole(self, value: Tensor) -> Tensor:
        """A scalar that FSDP may hold as parts of a sum."""
        return value.full_tensor() if self.strategy == "fsdp" else value  # type: ignore[attr-defined]

    def gather(self, model: Transformer, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The whole state of both as one process would have it, on rank 0's host; of no meaning on other ranks.

        A checkpoint is thus one file, whoever wrote it: any number of ranks, by any strategy, can take it up, and its checksum
        and its predecessor work as ever. This is right for as long as 12 bytes per parameter, a few GB at a sweep's sizes, fit
        the memory of one host and are written in seconds; beyond, each rank would have to write its own part.
        """
        if self.size == 1:
            return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict

        inner, options = _inner(model), StateDictOptions(full_state_dict=True, cpu_offload=True)
        if self.strategy == "fsdp":
            inner.reshard()  # type: ignore[operator]  # an evaluation leaves the outermost weights gathered, for a backward pass
        # Asked for a state that is still empty, torch would make one, by a step.
        named = get_optimizer_state_dict(inner, optimizer, options=options) if optimizer.state else None
        numbered = _numbered(named) if named else optimizer.state_dict()
        return {"model": get_model_state_dict(inner, options=options), "optimizer": numbered}

    def scatter(self, state: dict[str, Any], model: Transformer, optimizer: torch.optim.Optimizer) -> None:
        """Load what `gather` returned: `state` is read on rank 0 and ignored on the others."""
        if self.size == 1:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            return
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        inner, options = _inner(model), StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(inner, state["model"] if self.rank == 0 else {}, options=options)
        if self.on_rank0(lambda: bool(state["optimizer"]["state"])):
            named = _named(state["optimizer"], inner, optimizer) if self.rank == 0 else {}
            set_optimizer_state_dict(inner, optimizer, named, options=options)


ALONE = Parallel()


class Replicated(DistributedDataParallel):
    """A Transformer under DDP, with its `loss`: that calls `self`, so DDP sees the forward pass."""

    def __init__(self, model: Transformer) -> None:
        with warnings.catch_warnings():  # the option has another name from torch 2.13 on
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(model, broadcast_buffers=False, gradient_as_bucket_view=True)  # the buffers are constants

    loss = Transformer.loss


def _inner(model: Transformer) -> Transformer:
    """The model without DDP around it."""
    return getattr(model, "module", model)


def _numbered(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state with parameters by number, as `state_dict` has it, from one with parameters by name."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    return {
        "state": {numbers[name]: value for name, value in state["state"].items()},
        "param_groups": [{**group, "params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]],
    }


def _named(state: dict[str, Any], model: Transformer, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The inverse of `_numbered`."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    names = [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    return {
        "state": {names[number]: value for number, value in state["state"].items()},
        "param_groups": [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]],
    }
