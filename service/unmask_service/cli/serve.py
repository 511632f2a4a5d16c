"""The server's commands: `unmask serve`, `unmask api`, `unmask worker`, and `unmask key`, which makes API keys."""

from typing import Annotated

import typer

from unmask_service.api_keys import line_of, new_key
from unmask_service.cli.options import settings_command

MODEL = ("model", "model_dir")
ENGINE = ("device", "dtype", "threads", "tokens_per_tick", "speculation", "memory_budget", "hang_seconds")
PROXY = ("root_path", "trusted_proxies", "keep_alive_seconds")
HTTP = ("host", "port", *PROXY, "metrics_port", "api_keys_file", "api_keys", "cors_origins")
ADMISSION = ("max_requests", "max_evaluations", "max_body_bytes", "max_samples")
KEPT = ("orphan_seconds", "keep_seconds")
REDIS = ("redis_url", "redis_prefix", "lease_seconds")
PROCESS = ("drain_seconds", "log_level", "log_format", "log_prompts")


serve = settings_command(
    "serve",
    (*MODEL, *HTTP, *ENGINE, *ADMISSION, *KEPT, *PROCESS),
    """Serve a model over HTTP: API and engine in one process.

    Every option can be set in the environment too; the command line wins.

    For example:

        unmask serve --model ./my-bundle --port 8123
        curl -N localhost:8123/generate -H 'Content-Type: application/json' -d '{"stream": true}'
    """,
)

api = settings_command(
    "api",
    (*MODEL, *REDIS, *HTTP, *ADMISSION, *KEPT, *PROCESS),
    """Serve the HTTP API of a model, with workers behind Redis. Any number of API processes may run.

    It reads everything of the model but the weights.

    For example:

        unmask worker --redis-url redis://localhost:6379/0
        unmask api --redis-url redis://localhost:6379/0 --port 8123
    """,
)

worker = settings_command(
    "worker",
    (*MODEL, *REDIS, *ENGINE, "host", "metrics_port", "keep_seconds", *PROCESS),
    """Evaluate a model for API processes, which are reached over Redis. Any number of workers may run.

    When a worker dies, others resume its generations from their logs, with the same tokens.

    For example:

        UNMASK_REDIS_URL=rediss://user:password@redis.example:6379/0 unmask worker --metrics-port 9464
    """,
)


def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the key's holder; the server's logs show it")],
    requests: Annotated[int | None, typer.Option(help="most requests of the holder that may wait or run")] = None,
    evaluations_per_minute: Annotated[
        int | None, typer.Option(help="most network evaluations that the holder's requests may plan a minute")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="the holder's share of the engines against others, whose default is 1")
    ] = None,
) -> None:
    """Make an API key: print the key on stderr, for the client, and its line on stdout, for the server.

    The server needs only the line. It holds a hash, from which nobody can compute the key, and the holder's quota.

    For example:

        unmask key alice --requests 8 --evaluations-per-minute 6000 >> api-keys
        unmask serve --api-keys-file api-keys
        curl -H 'Authorization: Bearer unmask-key-…' localhost:8000/v1/models
    """
    made = new_key()
    line = line_of(name, made, requests=requests, evaluations_per_minute=evaluations_per_minute, weight=weight)
    typer.echo(made, err=True)
    typer.echo(line)
