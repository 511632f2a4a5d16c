"""Settings: the one reader of the environment. Unknown UNMASK_ variables are refused.

Every option of the server's commands is a setting; the command line wins over the environment.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

PREFIX = "UNMASK_"
# the client's key, for `unmask bench` and for curl: not a setting of the server
CLIENT_VARIABLES = {"UNMASK_API_KEY"}
# what Kubernetes sets in every pod beside a Service named unmask, unmask-api, …: UNMASK_PORT=tcp://10.0.0.1:8000
_KUBERNETES = re.compile(
    r"""UNMASK(_[A-Z0-9_]+)?_(
    SERVICE_HOST=[0-9a-f.:]+
    |SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]+
    |PORT(_[0-9]+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://\[?[0-9a-f.:]+\]?:[0-9]+
    |PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO=(tcp|udp|sctp)|PORT=[0-9]+|ADDR=[0-9a-f.:]+)
    )""",
    re.VERBOSE,
)
# as unmask_diffusion.MAX_SAMPLES and unmask_service.engine.lanes.MOST_LANES, which would import torch
MOST_SAMPLES, MOST_LANES = 64, 32
# `unmask serve` serves them when it is told no other
SHIPPED_MODELS = ("tales", "faces")

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16"]
Speculation = Literal["auto", "off"] | Annotated[int, Field(ge=1, le=MOST_LANES)]
LogFormat = Literal["text", "json"]
# a path without its last slash; no part begins with a dot
PATH = r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*"
ORIGIN = r"https?://[^\s/,*@]+"
LogLevel = Literal["debug", "info", "warning", "error"]


class SettingsError(ValueError):
    """A setting is unknown or out of range; the message names it."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _addresses(value: str) -> str:
    """Addresses and networks without blanks. Raises ValueError: one is neither."""
    listed = [each.strip() for each in value.split(",")]
    for each in listed:
        if each not in ("*", ""):
            ipaddress.ip_network(each)
    return ",".join(listed)


class Settings(BaseModel):
    """How a process of Unmask runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_list)] | None = Field(
        None,
        description="a bundle's folder, or the name of a known model; `serve` and `api` take several (repeat the "
        "option; commas in the variable), and the first is the default of requests; left out: tales, and for `serve` "
        "all models that ship",
    )
    model_dir: Path | None = Field(
        None, description="folder of further models, which can be named (XDG's unmask/models)"
    )
    host: str = Field("127.0.0.1", min_length=1, description="the address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="the port to listen on; 0 takes a free one")
    keep_alive_seconds: int = Field(
        75,
        ge=1,
        le=3600,
        description="an idle connection is closed after so long; more than the proxies before the server keep theirs",
    )
    root_path: str = Field(
        "",
        max_length=200,
        pattern=f"^{PATH}$",
        description="path under which a proxy serves this server, such as /llm; the proxy may remove it or not",
    )
    trusted_proxies: Annotated[str, AfterValidator(_addresses)] = Field(
        "127.0.0.1,::1",
        description="addresses or networks of proxies whose X-Forwarded-Prefix (the path that they have removed) is "
        "believed, separated by commas; * for all",
    )
    device: Device = Field("auto", description="where the network runs; auto takes a GPU where there is one")
    dtype: Dtype = Field(
        "auto",
        description="dtype of the network's projections; auto: bfloat16 where the processor, or the GPU, multiplies it",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="threads of the arithmetic on the CPU; left out: one, or torch's choice where that is faster",
    )
    max_requests: int = Field(256, ge=1, description="most requests that may wait or run; more are answered 429")
    max_evaluations: int | None = Field(
        None,
        ge=1,
        description="most network evaluations that may wait or run, unless a request is alone; left out: no bound",
    )
    max_body_bytes: int = Field(
        1 << 20, ge=1, description="the largest request body in bytes; larger ones are answered 413"
    )
    max_samples: int = Field(MOST_SAMPLES, ge=1, le=MOST_SAMPLES, description="the largest n of a request")
    tokens_per_tick: int = Field(
        4096, ge=1, description="most tokens of all canvases that share one network evaluation"
    )
    speculation: Speculation = Field(
        "auto",
        description="lanes of a sample: states that one evaluation may try, drafts included; no token depends on it. "
        "auto: as many as pay for themselves; off: one; a number: so many where they fit into the tick",
    )
    memory_budget: int | None = Field(
        None,
        ge=1,
        description="most bytes for the activations of one network evaluation, so that fewer tokens may share it; "
        "left out: half of what the device, container or machine has free once the model is loaded",
    )
    hang_seconds: float = Field(
        300.0,
        gt=0,
        allow_inf_nan=False,
        description="a network evaluation that takes longer has hung: the process ends",
    )
    drain_seconds: float = Field(
        30.0, ge=0, allow_inf_nan=False, description="time that running generations have to end after SIGTERM"
    )
    redis_url: SecretStr | None = Field(
        None, description="where `api` and `worker` meet: redis://host:6379/0, rediss://user:password@host, …"
    )
    redis_prefix: str = Field(
        "unmask", min_length=1, max_length=64, pattern=r"^[^\s{}]+$", description="prefix of all keys in Redis"
    )
    lease_seconds: float = Field(
        10.0, ge=0.1, le=3600, description="a worker that is silent for so long loses its generations to other workers"
    )
    orphan_seconds: float = Field(
        600.0, ge=1, le=10**7, description="a generation that no client reads for so long is cancelled"
    )
    keep_seconds: float = Field(
        600.0, ge=1, le=10**7, description="a detached generation can be read for so long after its end"
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="a port of its own for /metrics, /health and /ready; left out: /metrics is on the API's port, "
        "and a worker listens on none",
    )
    api_keys_file: Path | None = Field(
        None,
        description="file of API keys, a line each as `unmask key NAME` prints it (name:sha256, with limits "
        "name:sha256:requests=8); with keys, all but /health, /ready and pages needs one; SIGHUP reads it again",
    )
    api_keys: str | None = Field(None, description="the same lines, separated by commas or spaces")
    cors_origins: Annotated[str, Field(pattern=rf"^(\*|{ORIGIN}(,{ORIGIN})*)$")] | None = Field(
        None,
        description="origins whose pages may use the API from browsers, separated by commas; * for all; left out: none",
    )
    log_format: LogFormat = Field("text", description="format of the log: lines for people, or a JSON object a line")
    log_prompts: bool = Field(
        False, description="log the tokens that requests give, as ids; they are never logged otherwise"
    )
    log_level: LogLevel = Field("info", description="the least severe messages to log")

    @property
    def first_model(self) -> str:
        """The model of commands that take only one."""
        return (self.model or SHIPPED_MODELS)[0]

    def models_of(self, command: str) -> tuple[str, ...]:
        """The models of `serve`, `api` or `worker`. Raises SettingsError: several for a worker, which has only one."""
        if self.model is None:
            return SHIPPED_MODELS if command == "serve" else (self.first_model,)
        if command == "worker" and len(self.model) > 1:
            raise SettingsError(f"--model (UNMASK_MODEL): a worker evaluates one model (got {', '.join(self.model)})")
        return self.model


def read_settings(**given: object) -> Settings:
    """Read settings: the values that are given and not None, then the environment, then the defaults.

    With names given, only these settings are read: a command does not fail for a setting that it does not use. Raises
    SettingsError: a value is out of range, or the environment holds an unknown UNMASK_ variable.
    """
    environment = {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
    for name in kubernetes_variables():
        del environment[name.upper()]
    _refuse_unknown(environment)
    values: dict[str, object] = {}
    for name in given or Settings.model_fields:
        value = given.get(name)
        if value is None:
            value = environment.get(variable_of(name))
            value = value.split(",") if name == "model" and value else value
        if value not in (None, ""):
            values[name] = value
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_first_complaint(error, given)) from error


def kubernetes_variables() -> list[str]:
    """Names of the UNMASK_ variables that Kubernetes has set for its Services. They are ignored."""
    return sorted(name for name, value in os.environ.items() if _KUBERNETES.fullmatch(f"{name.upper()}={value}"))


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def option_of(name: str) -> str:
    """The command-line option of a setting."""
    return "--" + name.replace("_", "-")


def settings_table() -> str:
    """All settings as a Markdown table, for the documentation."""
    rows = ["| option | variable | default | what |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        rows.append(f"| `{option_of(name)}` | `{variable_of(name)}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = [variable_of(name) for name in Settings.model_fields]
    for name in sorted(environment.keys() - CLIENT_VARIABLES):
        if name not in known:
            close = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), Settings.model_fields, n=1)
            hint = f"; did you mean {variable_of(close[0])}?" if close else f" (known: {', '.join(known)})"
            raise SettingsError(f"{name} is not a setting{hint}")


def _first_complaint(error: ValidationError, given: Mapping[str, Any]) -> str:
    """Name the first wrong setting; where it may have one of several types, say what each of them wants."""
    first, *others = error.errors(include_url=False, include_context=False)
    name = str(first["loc"][0])
    source = option_of(name) if given.get(name) is not None else variable_of(name)
    complaints = [first["msg"], *(each["msg"] for each in others if each["loc"][0] == name)]
    return f"{source}: {' or: '.join(complaints)} (got {first['input']!r})"
