"""The configuration of a sweep: the schema, and composing conf/ and overrides into it."""

from sweep.config.analysis import AskConfig, Columns, FitConfig, NextConfig, ReportConfig
from sweep.config.composing import compose, compose_with_choices, conf_directory, from_omegaconf, read_times_as_text
from sweep.config.data import CorpusSpec, DataConfig, MemmapConfig, SourceConfig, SyntheticConfig
from sweep.config.machine import BenchConfig, ClusterConfig, RuntimeConfig, SlurmConfig, TrackerConfig
from sweep.config.overrides import override
from sweep.config.secrets import shown
from sweep.config.sweep import SweepConfig, check_name
from sweep.config.training import (
    AroundGrid,
    EvaluationConfig,
    GridConfig,
    GridRun,
    HorizonsGrid,
    IsoflopGrid,
    ModelFamily,
    NamedRun,
    OptimizerConfig,
    PowerRule,
    ScheduleConfig,
    Shape,
)
