"""The whole configuration, as conf/sweep.yaml composes it."""

import re
from dataclasses import dataclass, field

from sweep.config.analysis import AskConfig, Columns, CompareConfig, FiguresConfig, FitConfig, NextConfig, ReportConfig
from sweep.config.data import DataConfig
from sweep.config.fields import checked, choice, number, on_one_line
from sweep.config.machine import BenchConfig, ClusterConfig, RuntimeConfig, TrackerConfig
from sweep.config.training import (
    AboutConfig,
    AxisConfig,
    EvaluationConfig,
    GridConfig,
    ModelFamily,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from sweep.errors import InputError

MAX_NAME = 200  # bytes; a file system allows 255


def name_problem(name: str) -> str | None:
    """What is wrong with a sweep's name; None if nothing is. It is a folder of the store, a word on the command line and the
    name of Slurm's jobs: no path, no flag, no override."""
    if re.fullmatch(r"[^\W_]([^/\\=]*[^/\\=\s.])?", name) and name.isprintable() and len(name.encode()) <= MAX_NAME:
        return None
    allowed = f"it begins with a letter or a digit, ends with no dot or blank, has at most {MAX_NAME} bytes"
    return f"cannot be a sweep's name; {allowed}, and none of / \\ = and what is not printable"


def check_name(name: str) -> None:
    """Raises InputError if `name` is none that a sweep may have."""
    if (problem := name_problem(name)) is not None:
        raise InputError(f"name={on_one_line(name)} {problem}")


@dataclass(kw_only=True)
class SweepConfig:
    """A whole sweep; or several of other corpora, if `sweeps` gives the overrides of each by a label: they are launched one by
    one as <name>-<label>, and compared under <name>."""

    name: str = checked(name_problem, default="sweep")
    sweeps: dict[str, list[str]] | None = None
    seed: int = number(0, at_least=0, below=2**63)
    device: str = choice("auto", "cpu", "cuda")
    precision: str = choice("auto", "fp32", "bf16", "bf16_residual", "bf16_weights")
    store: str = "store"
    out: str = "store/sweeps/sweep"
    model: ModelFamily = field(default_factory=ModelFamily)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    axis: AxisConfig = field(default_factory=AxisConfig)
    about: AboutConfig = field(default_factory=AboutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    ask: AskConfig = field(default_factory=AskConfig)
    figures: FiguresConfig = field(default_factory=FiguresConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    next: NextConfig = field(default_factory=NextConfig)
    table: str | None = None
    tables: dict[str, str] | None = None
    curves: str | None = None
    where: str | None = None
    missing: str = choice("refuse", "drop")
    columns: Columns = field(default_factory=Columns)
