"""API keys and their quotas: clients send the key, the server keeps only a name, a hash of the key and its limits.

A key has 256 random bits, so one round of SHA-256 without salt is enough: nobody can try them all, and no two keys are
the same.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmask_service.settings import SettingsError, option_of, variable_of

# people and scanners for secrets in logs and repositories recognise a key by it
PREFIX = "unmask-key-"
RANDOM_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class Quota(BaseModel):
    """What the holder of a key may take of the queue of each model. None is no limit but those of the queue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client: str = ""  # name of the key; empty where no key is needed
    requests: int | None = Field(default=None, ge=1)  # most requests that may wait or run
    evaluations_per_minute: int | None = Field(default=None, ge=1)  # of planned network evaluations
    weight: float = Field(default=1.0, ge=0.01, le=100)  # share of the engines, against other clients that wait too

    @property
    def seconds_per_evaluation(self) -> float:
        """How long a network evaluation takes of the quota; 0 without a limit."""
        return 60 / self.evaluations_per_minute if self.evaluations_per_minute else 0.0


NO_QUOTA = Quota()  # of everybody where no key is needed
# of the HTTP request that is being answered
current_quota: ContextVar[Quota] = ContextVar("quota of the request's API key", default=NO_QUOTA)


@dataclass(frozen=True)
class ApiKey:
    """A key as the server knows it."""

    digest: bytes  # SHA-256 of the key
    quota: Quota  # of its holder, whose name may be logged

    @property
    def name(self) -> str:
        return self.quota.client


def new_key() -> str:
    """Make a random key."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def line_of(name: str, key: str, **limits: float | None) -> str:
    """The line for the server: `name:sha256`, and `:limit=value` for each limit that is not None.

    Raises SettingsError: the name or a limit is invalid.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError("a key's name has 1 to 64 letters, digits, dots, dashes and underscores")
    given = [f"{limit}={value}" for limit, value in limits.items() if value is not None]
    line = ":".join([name, _digest_of(key.encode()).hex(), *given])
    _parse("the key", [line])
    return line


def read_api_keys(file: Path | None, lines: str | None) -> tuple[ApiKey, ...]:
    """Read the accepted keys from a file of lines, and from lines that are separated by commas or spaces.

    All keys of a name share one quota, which at least one of their lines has.

    Raises SettingsError: the file cannot be read, a line is invalid, lines of one name have different limits, or there
    is no key.
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
    quotas: dict[str, Quota] = {}
    for key in keys:
        if key.quota != Quota(client=key.name) and quotas.setdefault(key.name, key.quota) != key.quota:
            raise SettingsError(f"API keys: the lines of {key.name!r} have different limits; they share one quota")
    return tuple(replace(key, quota=quotas.get(key.name, key.quota)) for key in keys)


def quota_of(key: bytes, keys: Sequence[ApiKey]) -> Quota | None:
    """The quota, with the holder's name, of an accepted key, else None. A wrong key takes as long as a right one."""
    digest, quota = _digest_of(key), None
    for known in keys:
        if hmac.compare_digest(digest, known.digest):
            quota = known.quota
    return quota


def _digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _parse(source: str, lines: Iterable[str]) -> list[ApiKey]:
    # lines are never repeated in errors: somebody may have written the key itself
    keys = []
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].strip()
        name, _, rest = entry.partition(":")
        digest, *limits = rest.split(":")
        if entry and not (_NAME.fullmatch(name) and _DIGEST.fullmatch(digest)):
            raise SettingsError(f"{source}, line {number}: expected name:sha256 as `unmask key NAME` prints it")
        if entry:
            keys.append(ApiKey(bytes.fromhex(digest), _quota_from(f"{source}, line {number}", name, limits)))
    if not keys:
        raise SettingsError(f"{source} holds no key: the server would refuse everybody")
    return keys


def _quota_from(line: str, name: str, limits: Sequence[str]) -> Quota:
    pairs = [limit.partition("=")[::2] for limit in limits]
    values = dict(pairs)
    if len(values) < len(pairs) or not values.keys() <= Quota.model_fields.keys() - {"client"}:
        raise SettingsError(f"{line}: after the hash come requests=, evaluations_per_minute= and weight=, each once")
    try:
        return Quota.model_validate({"client": name, **values})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise SettingsError(f"{line}: {first['loc'][0]}: {first['msg']}") from None
