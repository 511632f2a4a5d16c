"""`unmask serve`."""

from typing import Annotated

from unmask_service.cli.options import Device, Dtype, Model, ModelDir, Threads, setting
from unmask_service.settings import read_settings


def serve(
    model: Model = None,
    model_dir: ModelDir = None,
    host: Annotated[str | None, setting("host", metavar="HOST")] = None,
    port: Annotated[int | None, setting("port", metavar="PORT")] = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    max_requests: Annotated[int | None, setting("max_requests", metavar="N")] = None,
    max_evaluations: Annotated[int | None, setting("max_evaluations", metavar="N")] = None,
    max_body_bytes: Annotated[int | None, setting("max_body_bytes", metavar="BYTES")] = None,
    max_samples: Annotated[int | None, setting("max_samples", metavar="N")] = None,
    tokens_per_tick: Annotated[int | None, setting("tokens_per_tick", metavar="N")] = None,
    speculation: Annotated[str | None, setting("speculation", metavar="auto|off|N")] = None,
    memory_budget: Annotated[int | None, setting("memory_budget", metavar="BYTES")] = None,
    hang_seconds: Annotated[float | None, setting("hang_seconds", metavar="SECONDS")] = None,
    drain_seconds: Annotated[float | None, setting("drain_seconds", metavar="SECONDS")] = None,
    log_level: Annotated[str | None, setting("log_level", metavar="debug|info|warning|error")] = None,
) -> None:
    """Serve a model over HTTP: API and engine in one process.

    Every option can be set in the environment too; the command line wins.

    For example:

        unmask serve --model ./my-bundle --port 8123
        curl -N localhost:8123/generate -H 'Content-Type: application/json' -d '{"stream": true}'
    """
    settings = read_settings(
        model=model,
        model_dir=model_dir,
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        threads=threads,
        max_requests=max_requests,
        max_evaluations=max_evaluations,
        max_body_bytes=max_body_bytes,
        max_samples=max_samples,
        tokens_per_tick=tokens_per_tick,
        speculation=speculation,
        memory_budget=memory_budget,
        hang_seconds=hang_seconds,
        drain_seconds=drain_seconds,
        log_level=log_level,
    )
    from unmask_service.app import serve as run_server

    run_server(settings)
