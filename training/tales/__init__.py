"""A language of small tales: its grammar, its tokenizer, and a judge of whether a tale holds together."""

from training.tales.consistency import Consistency, is_consistent
from training.tales.grammar import FULL, entropy, tale, tale_with_log_probability
from training.tales.language import WORDS
from training.tales.tokenizer import CLASSES, END_TOKEN, build_tokenizer, word_groups

__all__ = [
    "CLASSES",
    "END_TOKEN",
    "FULL",
    "WORDS",
    "Consistency",
    "build_tokenizer",
    "entropy",
    "is_consistent",
    "tale",
    "tale_with_log_probability",
    "word_groups",
]
