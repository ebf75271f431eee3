"""Text in, batches out: sources -> tokenizer -> token files with a manifest -> sequences in a seeded order."""

from sweep.config import CorpusSpec
from sweep.data.batches import TrainingSequences, validation_sequences
from sweep.data.corpus import Corpus, CorpusRecipe
