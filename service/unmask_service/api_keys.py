"""API keys: clients send the key, the server keeps only a name and a hash of it.

A key has 256 random bits, so one round of SHA-256 without salt is enough: nobody can try them all, and no two keys are
the same.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unmask_service.settings import SettingsError, option_of, variable_of

# people and scanners for secrets in logs and repositories recognise a key by it
PREFIX = "unmask-key-"
RANDOM_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class ApiKey:
    """A key as the server knows it."""

    name: str  # of its holder; may be logged
    digest: bytes  # SHA-256 of the key


def new_key() -> str:
    """Make a random key."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def line_of(name: str, key: str) -> str:
    """The line for the server, `name:sha256`; raises SettingsError for an invalid name."""
    if not _NAME.fullmatch(name):
        raise SettingsError("a key's name has 1 to 64 letters, digits, dots, dashes and underscores")
    return f"{name}:{_digest_of(key.encode()).hex()}"


def read_api_keys(file: Path | None, lines: str | None) -> tuple[ApiKey, ...]:
    """Read the accepted keys from a file of lines, and from lines that are separated by commas or spaces.

    Raises SettingsError: the file cannot be read, a line is invalid, or there is no key in it.
    """
    keys: list[ApiKey] = []
    if file is not None:
        try:
            read = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise SettingsError(f"{option_of('api_keys_file')}: {file}: {error.strerror}") from error
        keys += _parse(option_of("api_keys_file"), read)
    if lines is not None:
        keys += _parse(variable_of("api_keys"), re.split(r"[\s,]+", lines))
    return tuple(keys)


def holder_of(key: bytes, keys: Sequence[ApiKey]) -> str | None:
    """The name of an accepted key, else None. It takes as long for a wrong key as for a right one."""
    digest, holder = _digest_of(key), None
    for known in keys:
        if hmac.compare_digest(digest, known.digest):
            holder = known.name
    return holder


def _digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _parse(source: str, lines: Iterable[str]) -> list[ApiKey]:
    # lines are never repeated in errors: somebody may have written the key itself
    keys = []
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].strip()
        name, _, digest = entry.partition(":")
        if entry and not (_NAME.fullmatch(name) and _DIGEST.fullmatch(digest)):
            raise SettingsError(f"{source}, line {number}: expected name:sha256 as `unmask key NAME` prints it")
        if entry:
            keys.append(ApiKey(name, bytes.fromhex(digest)))
    if not keys:
        raise SettingsError(f"{source} holds no key: the server would refuse everybody")
    return keys
