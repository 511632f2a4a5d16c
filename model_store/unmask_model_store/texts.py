"""What a bundle says of texts beside its tokenizer: the names of special tokens, and the template of a chat.

The two files are those of transformers: `tokenizer_config.json`, and `chat_template.jinja`, which wins where both have
a template. Nothing else of them is read.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask_model_store.bundle import BundleOutline
from unmask_model_store.config import BundleError

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
MOST_BYTES = 16 << 20  # of either file
DEFAULT_TEMPLATE = "default"


@dataclass(frozen=True)
class TextSettings:
    """Special tokens by their text, and the template that turns messages into a prompt; None: there is none."""

    bos_token: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None
    chat_template: str | None = None


def read_text_settings(bundle: BundleOutline) -> TextSettings:
    """Read the settings of a bundle: special tokens that its files do not name are those of its own configuration.

    Raises BundleError: a file is too large, or broken.
    """
    file = bundle.path / TOKENIZER_CONFIG_FILE
    try:
        config = json.loads(_read(file) or "{}")
    except ValueError as error:
        raise BundleError(f"{file}: is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise BundleError(f"{file}: must be a JSON object")
    template = _read(bundle.path / CHAT_TEMPLATE_FILE)
    own = bundle.config
    ids = {
        "bos_token": own.bos_token_id,
        "eos_token": next(iter(own.end_token_ids), None),
        "pad_token": own.pad_token_id,
    }
    return TextSettings(
        **{name: _token(file, name, config.get(name)) or _text(bundle, token) for name, token in ids.items()},
        chat_template=_template(file, config.get("chat_template")) if template is None else template,
    )


def _read(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise BundleError(f"{file}: has more than {MOST_BYTES} bytes")
        return content.decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{file}: cannot be read: {error}") from error


def _token(file: Path, name: str, value: Any) -> str | None:  # noqa: ANN401 — JSON
    """A token's text; the file may have an object with its `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise BundleError(f"{file}: {name} must be a string or null")
    return value


def _text(bundle: BundleOutline, token: int | None) -> str | None:
    return None if token is None or bundle.tokenizer is None else bundle.tokenizer.id_to_token(token)


def _template(file: Path, value: Any) -> str | None:  # noqa: ANN401 — JSON
    """A template, or the one called default of a list of templates with names."""
    if isinstance(value, list):
        named = [each for each in value if isinstance(each, dict) and each.get("name") == DEFAULT_TEMPLATE]
        value = named[0].get("template") if named else None
    if value is not None and not isinstance(value, str):
        raise BundleError(f"{file}: chat_template must be a string, or a list of templates with names")
    return value
