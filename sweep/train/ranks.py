"""One run on several processes, the ranks: which rank this process is, and what the ranks do together.

Every rank goes through the same loop and takes its shard of every batch; only rank 0 reads and writes the store. What all ranks
must know, such as whether to stop or what a file says, is exchanged on the host, so that nobody waits for a device.

With `ALONE`, the default, a run has one process; everything here then costs nothing and changes nothing.
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

from models.language_model import LanguageModel
from sweep.errors import InputError

TIMEOUT_S = 1800.0  # for a rank that hangs: rank 0 may take long for a checkpoint or a corpus. A dead rank is noticed at once

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """This process among the ranks of a run; a context manager that connects them.

    With `strategy` "ddp", every rank holds the whole model. With "fsdp", every rank holds a shard of weights, gradients and
    moments, and gathers a block's weights when it needs them.
    """

    rank: int = 0
    size: int = 1  # number of ranks
    local_rank: int = 0  # number of this process on its machine, which chooses its GPU
    device: str = "cpu"  # or "cuda"
    strategy: str = "none"  # for one process, else "ddp" or "fsdp"

    @classmethod
    def from_environment(cls, device: str, strategy: str, environment: Mapping[str, str] = os.environ) -> "Parallel":
        """The rank that torchrun or srun made of this process, as its `environment` says; `ALONE` on `device` if neither did.
        `strategy` is "ddp" or "fsdp", for more than one process. Raises InputError under srun without MASTER_ADDR."""
        if "RANK" in environment:
            rank, size, local_rank = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        elif "SLURM_STEP_ID" in environment:  # a job's script has the other variables too, but srun did not start it
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
                # Modulo the GPUs it sees: Slurm may show each task only its own.
                torch.cuda.set_device(self.local_rank % torch.cuda.device_count())
            # A port for each job, because two may share a machine. torchrun sets one itself.
            os.environ.setdefault("MASTER_PORT", str(10_000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 50_000))
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo",
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=TIMEOUT_S),
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # After an error NCCL could wait here for ranks that are gone; the end of the process closes it as well.
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
        """For each of `wishes`, whether any rank has it: the same answer on all ranks."""
        if self.size == 1:
            return list(wishes)
        flags = torch.tensor(wishes, dtype=torch.uint8)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return [bool(flag) for flag in flags.tolist()]

    def share(self, count: int, most: int) -> list[tuple[slice, int]]:
        """This rank's rows of a batch of `count`, as slices of at most `most` rows, each with how many of its rows count.

        Ranks differ by one row at most. All ranks get the same number of slices, none of them empty, because FSDP's ranks
        communicate in every pass through the model: a rank that has no row left gets the first row again, which counts 0.
        """
        start, stop = count * self.rank // self.size, count * (self.rank + 1) // self.size
        passes = math.ceil(math.ceil(count / self.size) / most)
        slices = [slice(low, min(low + most, stop)) for low in range(start, start + passes * most, most)]
        return [(rows, rows.stop - rows.start) if rows.start < rows.stop else (slice(0, 1), 0) for rows in slices]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
            values.div_(self.size)
        return values

    def shard(self, model: LanguageModel, device: str) -> LanguageModel:
        """Put `model`, which is equal on all ranks, on their devices, and let it average its gradients over the ranks.

        bf16 is the same autocast as on one process. FSDP's MixedPrecisionPolicy would keep the residual stream in bf16 too, and
        a run must not depend on how many ranks train it. The price: weights are gathered in fp32, and their bf16 copies, which
        the backward pass needs, take memory from the forward pass until then.
        """
        if self.strategy == "ddp":
            return Replicated(model.to(device))  # type: ignore[return-value]
        if self.strategy == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(device, (self.size,))
            for block in model.blocks:  # one block after another: the whole model may fit on no device
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
            return model
        return model.to(device)

    def accumulating(self, model: LanguageModel, more: bool) -> AbstractContextManager[None]:
        """A context for a forward and backward pass: with `more` of them to come in this step, DDP does not average yet.

        FSDP averages in each pass: whole gradients would take the memory that sharding saves.
        """
        return model.no_sync() if more and self.strategy == "ddp" else nullcontext()  # type: ignore[operator]

    def whole(self, value: Tensor) -> Tensor:
        """The value of a scalar that under FSDP is a sum over the ranks."""
        return value.full_tensor() if self.strategy == "fsdp" else value  # type: ignore[attr-defined]

    def gather(self, model: LanguageModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state of model and optimizer as one process would have it, on rank 0's host; meaningless on other ranks.

        So a checkpoint is one file, and any number of ranks with any strategy can resume from it. That works as long as 12
        bytes per parameter, a few GB at a sweep's sizes, fit in the memory of one host and are written in seconds. For larger
        models each rank would have to write its own shard.
        """
        if self.size == 1:
            return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict

        inner = getattr(model, "module", model)  # that inside DDP
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        if self.strategy == "fsdp":
            inner.reshard()  # type: ignore[operator]  # an evaluation leaves the root's weights gathered
        # torch would take a step to fill a state that is still empty. It returns nothing on the other ranks.
        named: Any = get_optimizer_state_dict(inner, optimizer, options=options) if optimizer.state else None
        numbered = optimizer.state_dict()
        if named:
            names = [name for group in named["param_groups"] for name in group["params"]]
            numbered = _renamed(named, {name: number for number, name in enumerate(names)})
        return {"model": get_model_state_dict(inner, options=options), "optimizer": numbered}

    def scatter(self, state: dict[str, Any], model: LanguageModel, optimizer: torch.optim.Optimizer) -> None:
        """Load what `gather` returned; `state` is read on rank 0 and ignored on the others."""
        if self.size == 1:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            return
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict

        inner = getattr(model, "module", model)  # that inside DDP
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(inner, state["model"] if self.rank == 0 else {}, options=options)
        if self.on_rank0(lambda: bool(state["optimizer"]["state"])):
            name_of = {parameter: name for name, parameter in inner.named_parameters()}
            names = [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
            named = _renamed(state["optimizer"], dict(enumerate(names))) if self.rank == 0 else {}
            set_optimizer_state_dict(inner, optimizer, named, options=options)


ALONE = Parallel()


class Replicated(DistributedDataParallel):
    """A LanguageModel under DDP with the model's `loss`, which calls `self`, so that DDP sees the forward pass."""

    def __init__(self, model: LanguageModel) -> None:
        with warnings.catch_warnings():  # torch 2.13 renames the option
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(model, broadcast_buffers=False, gradient_as_bucket_view=True)  # the buffers are constants

    loss = LanguageModel.loss


def _renamed(state: dict[str, Any], new: Mapping[Any, Any]) -> dict[str, Any]:
    """The state of an optimizer with its parameters by other keys: by number, as in `state_dict`, or by name."""
    return {
        "state": {new[key]: value for key, value in state["state"].items()},
        "param_groups": [{**group, "params": [new[key] for key in group["params"]]} for group in state["param_groups"]],
    }
