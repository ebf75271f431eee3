"""Text in, batches out: sources -> tokenizer -> a token memmap with a manifest -> windows in a seeded order."""

from sweep.data.batches import TrainingWindows, validation_windows
from sweep.data.corpus import Corpus, CorpusSpec, build_corpus, find_corpus

__all__ = ["Corpus", "CorpusSpec", "TrainingWindows", "build_corpus", "find_corpus", "validation_windows"]
