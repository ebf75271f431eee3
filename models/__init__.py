"""Pure-torch decoder-only Transformers: shapes, the module, and what they cost in parameters and FLOPs.

Nothing here knows about sweeps. `ModelConfig`, `SizeLadder` and the accounting are importable without torch;
the module itself is `models.transformer.Transformer`.
"""

from models.accounting import ParameterCounts, count_parameters, flops_per_token
from models.config import ModelConfig
from models.ladder import SizeLadder

__all__ = ["ModelConfig", "ParameterCounts", "SizeLadder", "count_parameters", "flops_per_token"]
