"""Where a report's numbers come from, and their cost: the provenance of the runs in a store, or what is known about a table."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.fit.questions.footprint import Footprint, footprint
from sweep.store import RunDirectory
from sweep.store.runs import provenance
from sweep.store.states import DONE
from sweep.words import counted

if TYPE_CHECKING:
    import pandas as pd

Facts = tuple[tuple[str, str], ...]
MAX_NAMES = 6


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of the finished runs on one kind of device, as Touvron et al. 2023 (arXiv 2302.13971, section 6) count it.

    Attributes:
        device: "cpu" or "cuda".
        runs: how many.
        seconds: of one core or one GPU, over all runs. Runs that shared a GPU each count their whole time, so that it is an
            upper bound there.
        C: FLOPs of these runs.
        watts: the assumed power of one core or GPU.
        pue, tonnes_per_MWh: of the building and its electricity; see `footprint`.
    """

    device: str
    runs: int
    seconds: float
    C: float
    watts: float
    pue: float = 1.1
    tonnes_per_MWh: float = 0.385

    @property
    def unit(self) -> str:
        return "core" if self.device == "cpu" else "GPU"

    @property
    def flops_per_second(self) -> float:
        """Achieved by one core or GPU, the mean over the sweep."""
        return self.C / self.seconds

    @property
    def taken(self) -> Footprint:
        """The footprint of these runs."""
        return self.of(self.C)

    def of(self, C: float) -> Footprint:
        """The footprint of `C` FLOPs at the speed and power of these runs."""
        power = {"watts": self.watts, "pue": self.pue, "tonnes_per_MWh": self.tonnes_per_MWh}
        return footprint(C, flops_per_second=self.flops_per_second, **power)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a report says about its runs, beside the fits.

    Attributes:
        title: of the report.
        from_store: whether isosweep trained the runs.
        trained: hardware, software and data of the runs, by name.
        made: software and date of this report, by name.
        cost: by device, or why it is not known.
        setup: the training choices that the checklist lists, as far as they are known.
        config: the sweep's whole configuration, as YAML.
        hidden: directories of which the report shows nothing, as it shows no absolute path; None if it shows all.
    """

    title: str
    from_store: bool
    trained: Facts
    made: Facts
    cost: list[Cost] | str
    setup: dict[str, str]
    config: str
    hidden: tuple[str, ...] | None = None


def of_store(runs: Sequence[RunDirectory], corpus: Facts, *, places: bool = False) -> Facts:
    """Commits, versions, devices and dates of all starts of the finished runs, and the corpus; the hosts, if `places`."""
    done = [run for run in runs if run.status_or_failed()["state"] == DONE]
    starts = [start for run in done for start in run.starts()]
    packages = sorted({name for start in starts for name in start.get("versions", {})})
    times = sorted(str(start["time"]) for start in starts if "time" in start)
    found = [
        ("Runs", f"{len(done)} finished, {counted(len(starts), 'start')} (a resumed run has several)"),
        ("Trained", f"{times[0]} to {times[-1]}" if times else "not recorded"),
        ("Commit", _distinct(start.get("commit") for start in starts)),
        ("Python", _distinct(start.get("python") for start in starts)),
        *((name, _distinct(start.get("versions", {}).get(name) for start in starts)) for name in packages),
        *([("Host", _distinct(start.get("host") for start in starts))] if places else []),
        ("Platform", _distinct(start.get("platform") for start in starts)),
        *((name.capitalize(), _distinct(start.get(name) for start in starts)) for name in ("device", "engine", "precision")),
    ]
    return tuple((name, value) for name, value in found if value != "not recorded" or name in ("Commit", "Host")) + corpus


def of_table(table: str, curves: str | None, rows: int) -> Facts:
    """The files, with their hashes and the number of rows."""
    named = [("Table of runs", f"{_describe(table)}, {counted(rows, 'row')}")]
    if curves:
        named.append(("Curves", _describe(curves)))
    return (*named, ("Training", "not known from a table: neither code, host nor corpus"))


def setup_of_table(frame: "pd.DataFrame") -> dict[str, str]:
    """The training choices that the columns of a runs.csv show, by their names in the checklist."""

    def spread(column: str) -> str:
        values = frame[column].dropna()
        if values.empty:
            return "not recorded"
        return f"{values.min():g}" if values.nunique() == 1 else f"{values.min():g} to {values.max():g}"

    found = {}
    numeric = frame.select_dtypes("number")
    shape = [f"{name} {spread(name)}" for name in ("n_layers", "d_model", "n_heads", "d_ff") if name in numeric]
    if shape:
        found["Architecture"] = "Transformers, " + ", ".join(shape)
    if "peak_lr" in numeric:
        found["Learning rate"] = f"peak {spread('peak_lr')}"
    if "batch_tokens" in numeric:
        found["Batch"] = f"{spread('batch_tokens')} tokens"
    if "seed" in frame:
        seeds = frame["seed"].dropna().unique()
        found["Seeds"] = f"{len(seeds)} ({', '.join(map(str, seeds[:MAX_NAMES]))}); one run for each (N, D) and seed"
    if "precision" in frame:
        found["Precision"] = ", ".join(map(str, frame["precision"].dropna().unique()[:MAX_NAMES]))
    return found


def of_report(*, places: bool = False) -> Facts:
    """Software and date of this report; the host, if `places`."""
    from importlib.metadata import version

    now = provenance()
    packages = ("isosweep", "numpy", "scipy", "pandas", "matplotlib", "plotly")
    versions = ", ".join(f"{name} {now['versions'].get(name) or version(name)}" for name in packages)
    return (
        ("Made", now["time"] + (f" on {now['host']}" if places else "")),
        ("Commit", now["commit"] or "not run from a checkout"),
        ("Versions", f"Python {now['python']}, {versions}"),
        ("Platform", now["platform"]),
    )


def costs(
    frame: "pd.DataFrame",
    C: dict[str, float],
    *,
    run_id: str,
    core_watts: float,
    gpu_watts: float,
    pue: float = 1.1,
    tonnes_per_MWh: float = 0.385,
) -> list[Cost] | str:
    """The cost of the runs of a table, by device, or why it is not known.

    Args:
        frame: a row per run, with the columns `seconds` of wall-clock time; `device`, by default "cpu"; and `cores`, the number
            of cores or GPUs, by default 1.
        C: FLOPs of the runs that finished, by name, as `sweep.fit.runs_from_frame` names them.
        run_id: the column of names.
        core_watts, gpu_watts: the power of one core and of one GPU.
        pue, tonnes_per_MWh: of the building and its electricity; see `footprint`.
    """
    import pandas as pd

    if "seconds" not in frame:
        return "The table has no column “seconds” with each run's wall-clock time, so hours, energy and CO₂ are not known."
    names = frame[run_id].astype(str) if run_id in frame else pd.Series([f"row {i + 1}" for i in range(len(frame))])
    rows = pd.DataFrame({"C": names.map(C).to_numpy(dtype=float)})
    rows["seconds"] = pd.to_numeric(frame["seconds"], errors="coerce").to_numpy()
    rows["cores"] = pd.to_numeric(frame["cores"], errors="coerce").fillna(1).to_numpy() if "cores" in frame else 1
    rows["device"] = frame["device"].fillna("cpu").astype(str).to_numpy() if "device" in frame else "cpu"
    rows = rows.query("C > 0 and seconds > 0")
    if rows.empty:
        return "The column “seconds” has no positive number for any finished run, so hours, energy and CO₂ are not known."
    return [
        Cost(
            device=str(device),
            runs=len(part),
            seconds=float((part["seconds"] * part["cores"]).sum()),
            C=float(part["C"].sum()),
            watts=core_watts if device == "cpu" else gpu_watts,
            pue=pue,
            tonnes_per_MWh=tonnes_per_MWh,
        )
        for device, part in rows.groupby("device")
    ]


def _distinct(values: Iterable[Any]) -> str:
    counts = Counter(str(value) for value in values if value is not None)
    if not counts:
        return "not recorded"
    if len(counts) == 1:
        return next(iter(counts))
    named = [f"{value} ({counted(n, 'start')})" for value, n in counts.most_common()]
    more = [f"{len(named) - MAX_NAMES} more"] if len(named) > MAX_NAMES else []
    return ", ".join(named[:MAX_NAMES] + more)


def _describe(source: str) -> str:
    path = Path(source)
    if not path.is_file():
        return source
    with open(path, "rb") as file:
        return f"{path.name}, SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
