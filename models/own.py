"""Bodies of a user's own: a class that maps the residual stream to the residual stream.

    class Body(torch.nn.Module):
        def __init__(self, config: ModelConfig) -> None: ...        # d_model, n_layers, and what else it has a use for
        def forward(self, x_BTD: Tensor) -> Tensor: ...             # position t of the result depends on positions up to t

Nothing is imported from a file here: who may do so registers the class.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.blocks import Normal, Places
from models.config import ModelConfig

CLASSES: dict[str, type[nn.Module]] = {}  # by `ModelConfig.body`
SMALL = ModelConfig(vocab_size=8, d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=32, context_length=16)  # to try it
PROBE = 6  # tokens of that try
MAX_LEAK = 1e-6


class OwnBlock(nn.Module):
    """A user's own body. Raises LookupError if its class is not registered."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.body not in CLASSES:
            raise LookupError(f"model.body={config.body} is not loaded")
        self.config = config
        self.body = CLASSES[config.body](config)

    def forward(self, x_BTD: Tensor, places: Places, key_B: Tensor | None = None) -> Tensor:
        return self.body(x_BTD)

    def initialise(self, normal_: Normal, scale: float) -> None:
        """Take the weights that the class gives to a new instance, whose random numbers come from the seed of the model."""
        seed = torch.zeros(1)
        normal_(seed, 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed.view(torch.int32).item()))
            fresh = CLASSES[self.config.body](self.config)
        self.body.load_state_dict(fresh.state_dict())


def register(name: str, kind: type[nn.Module]) -> None:
    """Let `kind` be the body `name`, after a try with a small shape. Raises ValueError if it is not a module that maps
    (B, T, D) to (B, T, D), or if an output depends on later tokens: its losses would be too low."""
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"model.body={name} is not a torch.nn.Module; name a class that is one")
    CLASSES[name] = kind
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            body = kind(replace(SMALL, body=name))
            x_BTD = torch.randn(2, PROBE, SMALL.d_model)
            changed_BTD = x_BTD.clone()
            changed_BTD[:, PROBE // 2 :] += 1
            y_BTD, other_BTD = body(x_BTD), body(changed_BTD)
    except Exception as error:  # whatever the code of somebody else raises
        del CLASSES[name]
        raise ValueError(
            f"model.body={name} fails ({type(error).__name__}: {error}); it must map (B, T, D) to the same"
        ) from error
    if not isinstance(y_BTD, Tensor) or y_BTD.shape != x_BTD.shape:
        del CLASSES[name]
        raise ValueError(f"model.body={name} does not return the shape of its input, {tuple(x_BTD.shape)}; make it do so")
    early = slice(0, PROBE // 2)
    if (y_BTD[:, early] - other_BTD[:, early]).abs().max() > MAX_LEAK * y_BTD.abs().max():
        del CLASSES[name]
        raise ValueError(f"model.body={name} sees later tokens: an output changes with them; mask them")


def measured(config: ModelConfig) -> ModelConfig:
    """`config` with the numbers of its own body: the parameters, and the FLOPs per token of the products of a forward pass,
    counted by torch's FlopCounterMode on a sequence of T tokens without memory. Raises LookupError as `OwnBlock`."""
    T = config.context_length
    with torch.device("meta"), torch.no_grad():
        body = OwnBlock(config)
        with FlopCounterMode(display=False) as counter:
            body(torch.empty(1, T, config.d_model), Places())
    parameters = sum(parameter.numel() for parameter in body.parameters())
    return replace(config, body_parameters=parameters, body_flops=counter.get_total_flops() / T)
