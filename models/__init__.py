"""Language models in plain torch: shapes, the module, and their parameters and FLOPs.

Nothing here imports from sweep/. `ModelConfig`, `SizeLadder` and the accounting can be imported without torch; the module is
`models.language_model.LanguageModel`.
"""

from models.accounting import ParameterCounts, count_parameters, flops_per_token
from models.config import ModelConfig
from models.ladder import SizeLadder
