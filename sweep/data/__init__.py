"""Text in, batches out: sources -> tokenizer -> a token memmap with a manifest -> windows in a seeded order."""

from sweep.config import CorpusSpec
from sweep.data.batches import TrainingWindows, validation_windows
from sweep.data.corpus import Corpus, CorpusRecipe

__all__ = ["Corpus", "CorpusRecipe", "CorpusSpec", "TrainingWindows", "validation_windows"]
