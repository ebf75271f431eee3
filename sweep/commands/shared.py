"""What the commands share: the runs of a sweep, its corpus, and where output goes."""

import math
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config import SweepConfig, compose
from sweep.store import Store

if TYPE_CHECKING:
    from rich.console import Console

    from models import SizeLadder
    from sweep.data import Corpus, CorpusRecipe
    from sweep.plan.grid import PlannedRun


def composed(options: Namespace) -> SweepConfig:
    """The configuration that a command's overrides make of conf/."""
    return compose(options.overrides, config_dir=options.config_dir)


def plan_runs(config: SweepConfig) -> tuple[list["PlannedRun"], "CorpusRecipe"]:
    """The runs of the sweep, and the corpus they need, which may not be made yet; nothing is written."""
    from sweep.data import CorpusRecipe

    recipe = CorpusRecipe.read(config.data)
    return expand_on(config, recipe), recipe


def expand_on(config: SweepConfig, recipe: "CorpusRecipe") -> list["PlannedRun"]:
    """The runs of the sweep on the corpus of `recipe`."""
    from sweep.plan.grid import expand

    return expand(
        config,
        corpus=recipe.fingerprint,
        vocab_size=recipe.vocab_size,
        training_tokens=recipe.training_tokens(corpora(config)),
    )


def ladder_of(config: SweepConfig) -> "SizeLadder":
    """The sizes that the sweep can have."""
    from models import SizeLadder
    from sweep.data import CorpusRecipe

    vocab_size = CorpusRecipe.read(config.data).vocab_size
    return SizeLadder(vocab_size=vocab_size, context_length=config.data.context_length, **vars(config.model))


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
        return found
    from sweep.follow.progress import CorpusProgress

    print(f"tokenising {config.data.source} ({config.data.tokenizer}) into {corpora(config) / recipe.fingerprint}")
    with CorpusProgress(console(), recipe.contents.size()) as progress:
        corpus = recipe.build(corpora(config), workers=config.data.workers, advance=progress)
    print(describe_corpus(recipe, corpora(config)))
    return corpus


def describe_corpus(recipe: "CorpusRecipe", root: Path) -> str:
    """One line about the corpus, made or not."""
    if (corpus := recipe.find(root)) is None:
        most = recipe.training_tokens(root)
        known = f"at most {most:,.0f} tokens to train on" if math.isfinite(most) else "its size is not known"
        return f"corpus {recipe.fingerprint}: not made yet; {known}"
    parts, per_token = corpus.manifest["parts"], corpus.bytes_per_token
    lengths = {part: f"{described['tokens']:,}" for part, described in parts.items()}
    text = f"corpus {corpus.fingerprint}: {lengths['train']} tokens to train on, {lengths['validation']} held out"
    if per_token is not None:
        text += f", {per_token:.3g} bytes per token"
    if overlap := corpus.manifest.get("overlap"):
        text += f"; {overlap['share']:.1%} of the held-out {overlap['tokens']}-grams are in training too"
    if entropy := corpus.manifest.get("entropy_rate"):
        text += f"; entropy rate {entropy:.5f} nats per token"
    return text


def source_rows(recipe: "CorpusRecipe", root: Path, horizon: int) -> list[list[str]]:
    """Of each source of a mixture: name, share of the training tokens, tokens, epochs in the corpus and in `horizon` tokens.

    Before the corpus is made they follow from the sources' sizes in bytes, where these are known.
    """
    from sweep.data.mixture import shares
    from sweep.data.text import TextContents

    if not isinstance(recipe.contents, TextContents) or recipe.spec.source != "mixture":
        return []
    if (corpus := recipe.find(root)) is not None:
        part = corpus.manifest["parts"]["train"]
        total, about = part["tokens"], ""
        known = {name: (source["share"], source["tokens"], source["epochs"]) for name, source in part["sources"].items()}
    else:
        planned = shares(recipe.contents.sources, recipe.contents.most_tokens())
        total, about = sum(share.tokens for share in planned.values()), "about "
        known = {name: (share.share, share.tokens, share.epochs) for name, share in planned.items()}

    def number(value: float, form: str) -> str:
        return about + format(value, form) if math.isfinite(value) else "?"

    return [
        [name, number(share, ".1%"), number(tokens, ",.0f"), number(epochs, ".3g"), number(epochs * horizon / total, ".3g")]
        for name, (share, tokens, epochs) in known.items()
    ]


def console(width: int | None = None) -> "Console":
    """Standard output; off a terminal it is as wide as the widest table, so that nothing is cut."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=width or 120)
