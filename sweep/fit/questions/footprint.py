"""GPU-hours, energy and CO2 of a computation (Touvron et al. 2023, arXiv 2302.13971, section 6 and table 15)."""

from dataclasses import dataclass

from sweep.errors import LawError
from sweep.fit.result import Record, positive

MANY_kWh = 1e4  # from here on in MWh and tonnes


@dataclass(frozen=True, kw_only=True)
class Footprint(Record):
    """What a computation takes: GPU-hours, kWh and kg of CO2."""

    gpu_hours: float
    kWh: float
    kg_CO2: float

    def line(self) -> str:
        if self.kWh < MANY_kWh:
            return f"{self.gpu_hours:.3g} GPU-hours, {self.kWh:.3g} kWh, {self.kg_CO2:.3g} kg CO2"
        return f"{self.gpu_hours:,.0f} GPU-hours, {self.kWh / 1e3:.4g} MWh, {self.kg_CO2 / 1e3:.4g} t CO2"


def footprint(C: float, *, flops_per_second: float, watts: float, pue: float = 1.1, tonnes_per_MWh: float = 0.385) -> Footprint:
    """The footprint of `C` FLOPs on GPUs that achieve `flops_per_second` each, which is not their peak; the rest is as for
    `footprint_of_hours`."""
    for name, value in {"C": C, "flops_per_second": flops_per_second}.items():
        positive(name, value)
    return footprint_of_hours(C / flops_per_second / 3600, watts=watts, pue=pue, tonnes_per_MWh=tonnes_per_MWh)


def footprint_of_hours(gpu_hours: float, *, watts: float, pue: float = 1.1, tonnes_per_MWh: float = 0.385) -> Footprint:
    """Wh = GPU-hours x power x PUE, tCO2eq = MWh x tCO2eq per MWh; the defaults are those of Touvron et al. 2023.

    Args:
        gpu_hours: of all GPUs together.
        watts: of one GPU.
        pue: power usage effectiveness of the building.
        tonnes_per_MWh: CO2 equivalent of the electricity.
    """
    for name, value in {"gpu_hours": gpu_hours, "watts": watts, "pue": pue}.items():
        positive(name, value)
    if not tonnes_per_MWh >= 0:
        raise LawError("bad_option", f"tonnes_per_MWh={tonnes_per_MWh!r} is out of range; it must not be negative")
    kWh = gpu_hours * watts * pue / 1e3
    return Footprint(gpu_hours=gpu_hours, kWh=kWh, kg_CO2=kWh * tonnes_per_MWh)
