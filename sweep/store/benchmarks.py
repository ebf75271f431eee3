"""bench.json, the speeds that `isosweep bench` measured, and how fast a sweep's runs are by that and by the finished runs."""

import json
from collections.abc import Iterable
from typing import Any

from sweep.config import SweepConfig
from sweep.errors import InputError
from sweep.files import write_json
from sweep.plan.device import resolve_device
from sweep.plan.estimate import Speed
from sweep.plan.run import RunConfig
from sweep.store.runs import Store

KEY = ("N", "engine", "precision", "device", "processes", "threads", "batch_tokens")


def read_benchmarks(store: Store) -> list[dict[str, Any]]:
    """The rows of the store's bench.json, as `sweep.train.bench.Measurement` defines them; none if there is no such file.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        return json.loads(store.bench.read_text())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InputError(f"{store.bench} is damaged ({error}); delete it and bench again") from error


def add_benchmarks(store: Store, measured: Iterable[dict[str, Any]]) -> None:
    """Add rows to the store's bench.json; a row replaces an older one of the same size, engine and machine."""
    rows = {tuple(row[name] for name in KEY): row for row in [*read_benchmarks(store), *measured]}
    write_json(store.bench, list(rows.values()))


def speed_of_sweep(runs: Iterable[RunConfig], store: Store, config: SweepConfig) -> Speed:
    """The speed that the finished ones of `runs`, or else the store's benchmarks, show."""
    pairs = [(run, store.run(run.run_id).status()) for run in runs]
    return Speed.measured(pairs, resolve_device(config.device), config.data.validation_tokens, read_benchmarks(store))
