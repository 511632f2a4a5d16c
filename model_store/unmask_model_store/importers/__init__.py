"""Official checkpoints → bundles, executing nothing that they hold."""

from unmask_model_store.importers.checkpoint import Imported, Progress, check_place, import_checkpoint
from unmask_model_store.importers.source import Request
from unmask_model_store.importers.tokenizers import cached_gpt2, read_tokenizer
from unmask_model_store.importers.untrusted import ImportFailure

__all__ = [
    "ImportFailure",
    "Imported",
    "Progress",
    "Request",
    "cached_gpt2",
    "check_place",
    "import_checkpoint",
    "read_tokenizer",
]
