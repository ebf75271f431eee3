"""The corpora of sweeps for commands: made where they are missing, and described in a line."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.commands import console
from sweep.config import SweepConfig
from sweep.errors import InputError
from sweep.plan.written import SweepPlan
from sweep.store import Store

if TYPE_CHECKING:
    from sweep.data import Corpus, CorpusRecipe


def make_corpus(config: SweepConfig, recipe: "CorpusRecipe") -> "Corpus":
    """The corpus on disk, made if it is not there. Raises InputError if the store cannot be written, or the corpus in it has
    changed since it was made."""
    store = Store(Path(config.store))
    store.require_writable()
    if (found := recipe.find(store.corpora)) is not None:
        found.verify()
        return found
    from sweep.follow.progress import CorpusProgress

    print(f"tokenising {config.data.source} ({config.data.tokenizer}) into {store.corpora / recipe.fingerprint}")
    with CorpusProgress(console(), recipe.contents.size()) as progress:
        corpus = recipe.build(store.corpora, workers=config.data.workers, advance=progress)
    print(describe_corpus(corpus))
    return corpus


def corpus_of(plan: SweepPlan, store: Store) -> "Corpus":
    """The corpus of a launched sweep. Raises InputError if the store does not hold it."""
    from sweep.data import Corpus

    directory = store.corpora / plan.corpus.fingerprint
    if not directory.is_dir():
        raise InputError(f"{directory} is missing; copy the corpus into the store, or launch the sweep again from its text")
    return Corpus.open(directory)


def describe_written(plan: SweepPlan, store: Store) -> str:
    """One line about the corpus of a launched sweep, which the store need not hold."""
    if (store.corpora / plan.corpus.fingerprint).is_dir():
        return describe_corpus(corpus_of(plan, store))
    facts = plan.corpus
    return f"corpus {facts.fingerprint}: {facts.training_tokens:,.0f} tokens to train on; this store does not hold it"


def describe_recipe(recipe: "CorpusRecipe", root: Path) -> str:
    """One line about a corpus that may not be made yet."""
    if (corpus := recipe.find(root)) is not None:
        return describe_corpus(corpus)
    most = recipe.training_tokens(root)
    known = f"at most {most:,.0f} tokens to train on" if math.isfinite(most) else "its size is not known"
    return f"corpus {recipe.fingerprint}: not made yet; {known}"


def describe_corpus(corpus: "Corpus") -> str:
    """One line about a corpus."""
    parts, per_token = corpus.manifest["parts"], corpus.bytes_per_token
    lengths = {part: f"{described['tokens']:,}" for part, described in parts.items()}
    text = f"corpus {corpus.fingerprint}: {lengths['train']} tokens to train on, {lengths['validation']} held out"
    if per_token is not None:
        text += f", {per_token:.3g} {'byte' if f'{per_token:.3g}' == '1' else 'bytes'} per token"
    if left_out := corpus.left_out():
        text += f"; left out of the text: {left_out}"
    if overlap := corpus.manifest.get("overlap"):
        text += f"; {overlap['share']:.1%} of the held-out {overlap['tokens']}-grams are in training too"
    if entropy := corpus.manifest.get("entropy_rate"):
        text += f"; entropy rate {entropy:.5f} nats per token"
    return text


def source_rows(recipe: "CorpusRecipe", root: Path, horizon: int) -> list[list[str]]:
    """One row for each source of a mixture: name, share of the training tokens, tokens, epochs in the corpus and in `horizon`
    tokens. Before the corpus is made they are estimated from the sources' sizes in bytes, where these are known.
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
