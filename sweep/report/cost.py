"""The cost of a sweep: hours, energy and CO2, as Touvron et al. 2023 (arXiv 2302.13971, section 6) count them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.fit.frontier import Footprint, footprint

if TYPE_CHECKING:
    import pandas as pd

PUE, TONNES_PER_MWH = 1.1, 0.385  # the defaults of `footprint`


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of the finished runs on one kind of device.

    Attributes:
        device: "cpu" or "cuda".
        runs: how many.
        seconds: of one core or one GPU, over all runs. Runs that shared a GPU each count their whole time, so that it is an
            upper bound there.
        C: FLOPs of these runs.
        watts: the assumed power of one core or GPU.
    """

    device: str
    runs: int
    seconds: float
    C: float
    watts: float

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
        return footprint(C, flops_per_second=self.flops_per_second, watts=self.watts, pue=PUE, tonnes_per_MWh=TONNES_PER_MWH)


def costs(frame: "pd.DataFrame", C: dict[str, float], *, run_id: str, core_watts: float, gpu_watts: float) -> list[Cost] | str:
    """The cost of the runs of a table, by device, or why it is not known.

    Args:
        frame: a row per run, with the columns `seconds` of wall-clock time; `device`, by default "cpu"; and `cores`, the number
            of cores or GPUs, by default 1.
        C: FLOPs of the runs that finished, by name, as `sweep.fit.runs_from_frame` names them.
        run_id: the column of names.
        core_watts, gpu_watts: of one core and one GPU.
    """
    import pandas as pd

    if "seconds" not in frame:
        return "The table has no column “seconds” with each run's wall-clock time, so hours, energy and CO₂ are not known."
    names = frame[run_id].astype(str) if run_id in frame else pd.Series([f"row {i + 1}" for i in range(len(frame))])
    seconds = pd.to_numeric(frame["seconds"], errors="coerce").to_numpy()
    known: dict[str, Any] = {"name": names.to_numpy(), "seconds": seconds, "C": names.map(C).to_numpy(dtype=float)}
    known["cores"] = pd.to_numeric(frame["cores"], errors="coerce").fillna(1).to_numpy() if "cores" in frame else 1
    known["device"] = frame["device"].fillna("cpu").astype(str).to_numpy() if "device" in frame else "cpu"
    rows = pd.DataFrame(known).query("C > 0 and seconds > 0")
    if rows.empty:
        return "The column “seconds” has no positive number for any finished run, so hours, energy and CO₂ are not known."
    return [
        Cost(
            device=str(device),
            runs=len(part),
            seconds=float((part["seconds"] * part["cores"]).sum()),
            C=float(part["C"].sum()),
            watts=core_watts if device == "cpu" else gpu_watts,
        )
        for device, part in rows.groupby("device")
    ]
