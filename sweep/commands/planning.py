"""What the commands share: the runs of a sweep, its corpus, and where output goes."""

from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config import SweepConfig
from sweep.store import Store

if TYPE_CHECKING:
    from rich.console import Console

    from models import SizeLadder
    from sweep.data import Corpus, CorpusRecipe
    from sweep.grid import PlannedRun


def plan_runs(config: SweepConfig) -> tuple[list["PlannedRun"], "CorpusRecipe"]:
    """The runs of the sweep, and the corpus they need, which may not be made yet; nothing is written."""
    from sweep.data import CorpusRecipe, CorpusSpec

    data = config.data
    recipe = CorpusRecipe.read(
        CorpusSpec(
            source=data.source,
            paths=data.paths,
            tokenizer=data.tokenizer,
            vocab_size=data.vocab_size,
            validation_tokens=data.validation_tokens,
            shuffle_seed=data.shuffle_seed,
        )
    )
    return expand_on(config, recipe), recipe


def expand_on(config: SweepConfig, recipe: "CorpusRecipe") -> list["PlannedRun"]:
    """The runs of the sweep on the corpus of `recipe`."""
    from sweep.data.tokenizer import vocabulary
    from sweep.grid import expand

    return expand(
        config,
        corpus=recipe.fingerprint,
        vocab_size=vocabulary(config.data.tokenizer, config.data.vocab_size),
        training_tokens=recipe.training_tokens(corpora(config)),
    )


def ladder_of(config: SweepConfig) -> "SizeLadder":
    """The sizes that the sweep can have."""
    from models import SizeLadder
    from sweep.data.tokenizer import vocabulary

    data = config.data
    vocab_size = vocabulary(data.tokenizer, data.vocab_size)
    return SizeLadder(vocab_size=vocab_size, context_length=data.context_length, **vars(config.model))


def corpora(config: SweepConfig) -> Path:
    """Where the store keeps corpora."""
    return Store(Path(config.store)).corpora


def make_corpus(config: SweepConfig, recipe: "CorpusRecipe") -> "Corpus":
    """The corpus on disk, made if it is not there.

    Raises:
        InputError: if the store cannot be written, or the corpus in it has changed since it was made.
    """
    Store(Path(config.store)).require_writable()
    if (found := recipe.find(corpora(config))) is not None:
        found.verify()
    else:
        print(f"tokenising {config.data.source} ({config.data.tokenizer}) into {corpora(config) / recipe.fingerprint}")
    return recipe.build(corpora(config))


def console(width: int | None = None) -> "Console":
    """Standard output; off a terminal it is as wide as the widest table, so that nothing is cut."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=width or 120)
