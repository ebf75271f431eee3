"""The whole configuration, as conf/sweep.yaml composes it."""

from dataclasses import dataclass, field

from sweep.config.analysis import AskConfig, Columns, FiguresConfig, FitConfig, NextConfig, ReportConfig
from sweep.config.data import DataConfig
from sweep.config.fields import choice, number
from sweep.config.machine import BenchConfig, ClusterConfig, RuntimeConfig, TrackerConfig
from sweep.config.training import EvaluationConfig, GridConfig, ModelFamily, OptimizerConfig, ScheduleConfig


@dataclass(kw_only=True)
class SweepConfig:
    """A whole sweep."""

    name: str = "sweep"
    seed: int = number(0, at_least=0, below=2**63)
    device: str = choice("auto", "cpu", "cuda")
    precision: str = choice("auto", "fp32", "bf16", "bf16_residual")
    store: str = "store"
    out: str = "store/sweeps/sweep"
    model: ModelFamily = field(default_factory=ModelFamily)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    ask: AskConfig = field(default_factory=AskConfig)
    figures: FiguresConfig = field(default_factory=FiguresConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    next: NextConfig = field(default_factory=NextConfig)
    table: str | None = None
    curves: str | None = None
    where: str | None = None
    missing: str = choice("refuse", "drop")
    columns: Columns = field(default_factory=Columns)
