"""Configuration that changes no result: where runs train, how a step is computed, where curves are mirrored to."""

import re
from dataclasses import dataclass, field
from typing import Any

from sweep.config.fields import checked, choice, number, private

TIME_LIMIT = r"[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}|(?i:UNLIMITED|INFINITE)"


def time_problem(text: str) -> str | None:
    """What is wrong with a time limit; None if nothing is. Slurm itself reads it."""
    forms = "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED"
    return None if re.fullmatch(TIME_LIMIT, text) else f"is no time as Slurm writes it: {forms}"


@dataclass(kw_only=True)
class SlurmConfig:
    """The resources that an array task requests from Slurm; conf/cluster/slurm.yaml explains each field. `time_limit_minutes`
    is an older name of `time_limit`."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_task: int = number(0, at_least=0)
    cpus_per_task: int = number(2, at_least=1)
    memory_mb: int | None = number(None, at_least=1)
    time_limit: str | None = checked(time_problem, default=None)
    time_limit_minutes: int | None = number(None, at_least=1)
    task_minutes: float = number(60, above=0)
    max_at_once: int | None = number(None, at_least=1)
    signal_s: int = number(120, at_least=1)
    directives: list[str] = private(list)
    setup: list[str] = private(list)
    python: str | None = None

    def limit(self) -> str | None:
        """The time limit as sbatch takes it; None leaves it to the estimates."""
        return self.time_limit or (str(self.time_limit_minutes) if self.time_limit_minutes else None)

    def limit_s(self) -> float:
        """The time limit in seconds; infinite if it is estimated, or there is none. Slurm reads 0 as none."""
        days, _, clock = (self.limit() or "").rpartition("-")
        parts = [int(part) for part in clock.split(":") if part.isdigit()]
        clocks = bool(days) or len(parts) == 3  # D-HH, D-HH:MM, D-HH:MM:SS, HH:MM:SS; else MM, MM:SS
        units = (3600, 60, 1) if clocks else (60, 1)
        seconds = 86_400 * int(days or 0) + sum(part * unit for part, unit in zip(parts, units, strict=False))
        return seconds or float("inf")


@dataclass(kw_only=True)
class ClusterConfig:
    """How runs share the machine or the cluster, and how one run is distributed over several processes (`strategy`). Nothing
    here changes a result."""

    launcher: str = "local"  # the name of a launcher in sweep.launch
    workers: str = "auto"
    threads: int = number(1, at_least=1)
    checkpoint_interval_s: float = number(60, at_least=0)
    log_interval_s: float = number(1, at_least=0)
    micro_batch: int | None = number(None, at_least=1)
    strategy: str = choice("ddp", "fsdp")
    slurm: SlurmConfig | None = None
    options: dict[str, Any] = private(dict)  # for a launcher of your own, which checks them


@dataclass(kw_only=True)
class RuntimeConfig:
    """How a step is computed, which changes results only by rounding; see `sweep.train.engine`. `compile` is "auto" (the
    fastest way), "on" (torch.compile, whether or not it pays) or "off" (eager torch)."""

    compile: str = choice("auto", "on", "off")


@dataclass(kw_only=True)
class BenchConfig:
    """What `isosweep bench` measures: every size with every engine and every number of concurrent processes (by default as many
    as a launch would use). Engine "auto" is the one that a launch would choose, "plain" a textbook step in fp32."""

    sizes: list[float] = field(default_factory=lambda: [3e4, 1e5, 4e5, 8e5, 5e6])
    engines: list[str] = field(default_factory=lambda: ["auto"])
    processes: list[int] = field(default_factory=list)
    batch_tokens: int | None = number(None, at_least=1)
    seconds: float = number(3, above=0)


@dataclass(kw_only=True)
class TrackerConfig:
    """Where curves are mirrored to; see `sweep.tracking`. Nothing here changes a result."""

    kind: str = choice("none", "wandb")
    project: str = "isosweep"
    entity: str | None = None
    mode: str = choice("auto", "online", "offline")
    timeout_s: float = number(60, above=0)
