"""isosweep: scaling-law sweeps of small Transformers, from a Hydra grid to IsoFLOP plots."""

__version__ = "0.1.0"
