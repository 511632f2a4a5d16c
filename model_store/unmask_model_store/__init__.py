"""A model on disk: the bundle format, safe loading, and where bundles are found."""

from unmask_model_store.bundle import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Bundle,
    BundleOutline,
    SkipInitialisation,
    open_bundle,
    open_outline,
    read_card,
    read_config,
    resolve_device,
    resolve_dtype,
    write_bundle,
)
from unmask_model_store.config import (
    BundleConfig,
    BundleError,
    ImageConfig,
    MarkovConfig,
    PrimeConfig,
    TableConfig,
    ranges_of,
)
from unmask_model_store.facts import ModelFacts, OpenModelFacts, open_facts, read_facts
from unmask_model_store.store import SHIPPED_MODEL, default_model_dir, find_bundle, list_bundles

__all__ = [
    "SHIPPED_MODEL",
    "TOKENIZER_FILE",
    "WEIGHTS_FILE",
    "Bundle",
    "BundleConfig",
    "BundleError",
    "BundleOutline",
    "ImageConfig",
    "MarkovConfig",
    "ModelFacts",
    "OpenModelFacts",
    "PrimeConfig",
    "SkipInitialisation",
    "TableConfig",
    "default_model_dir",
    "find_bundle",
    "list_bundles",
    "open_bundle",
    "open_facts",
    "open_outline",
    "ranges_of",
    "read_card",
    "read_config",
    "read_facts",
    "resolve_device",
    "resolve_dtype",
    "write_bundle",
]
