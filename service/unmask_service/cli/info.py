"""`unmask info`: what a bundle is, and what a full canvas of it costs; or what was found of this machine."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask_service.cli.options import Device, Dtype, ModelDir, Threads
from unmask_service.settings import Settings, read_settings

if TYPE_CHECKING:
    from unmask_model_store import OpenModelFacts


def info(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="a bundle's folder, or the name of a known model; default: the server's"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, for scripts")] = False,
    machine: Annotated[
        bool, typer.Option("--machine", help="in place of a model: processors, quota, GPU, threads and fingerprint")
    ] = False,
    model_dir: ModelDir = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Show what a model is: sizes, parameters, memory, and what a full canvas costs.

    Opens and checks the whole bundle. With --machine no model is opened.

    For example:

        unmask info
        unmask info ./my-bundle --json
        unmask info --machine
    """
    settings = read_settings(model=model, model_dir=model_dir, device=device, dtype=dtype, threads=threads)
    if machine:
        if model is not None:
            raise typer.BadParameter("with --machine no model is opened: leave MODEL out")
        found = machine_facts(settings)
        typer.echo(json.dumps(found)) if as_json else show_table("this machine", rows_of_machine(found))
        return
    from unmask_model_store import default_model_dir, find_bundle, open_bundle, open_facts

    folder = find_bundle(settings.first_model, settings.model_dir or default_model_dir())
    facts = open_facts(open_bundle(folder, settings.dtype, settings.device))
    if as_json:
        typer.echo(json.dumps(asdict(facts)))
    else:
        show(facts)


def show(facts: "OpenModelFacts") -> None:
    """A table for people."""
    show_table(facts.name, rows_of(facts))


def show_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Rows of a name and a value on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


def machine_facts(settings: Settings) -> dict[str, Any]:
    """What this process finds of its machine or container, and what the server would make of it."""
    import torch
    from unmask_kernels import CPU_HAS_BFLOAT16, FUSES_GELU
    from unmask_model_store import resolve_device, resolve_dtype

    from unmask_service.engine import fingerprint, processor_name
    from unmask_service.machine import available_memory, cpu_quotas, most_threads, processors_of_affinity

    device = resolve_device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    most = most_threads(settings.threads)
    fingerprints, before = {}, torch.get_num_threads()
    for threads in sorted({1, most}):
        torch.set_num_threads(threads)
        fingerprints[threads] = fingerprint(device, dtype)
    torch.set_num_threads(before)
    return {
        "processor": processor_name(),
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "affinity": processors_of_affinity(),
        "quota": min(cpu_quotas(), default=None),
        "memory_available": available_memory(),
        "bfloat16": CPU_HAS_BFLOAT16,
        "fused_gelu": [str(dtype).removeprefix("torch.") for dtype in FUSES_GELU],
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "torch": torch.__version__,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": most,
        "fingerprints": fingerprints,
    }


def rows_of_machine(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of the machine in words."""
    quota = "no CPU quota" if found["quota"] is None else f"a CPU quota of {found['quota']:g}"
    fingerprints: dict[int, str] = found["fingerprints"]
    return [
        ("processor", f"{found['processor'] or 'unknown'} ({found['architecture']}, {found['instructions']})"),
        ("cores", f"{found['cores']}, of which this process may use {found['affinity']}; {quota}"),
        ("memory", f"{readable_bytes(found['memory_available'])} can still be taken"),
        (
            "bfloat16",
            "multiplied by the processor" if found["bfloat16"] else "not on this processor: float32 is faster",
        ),
        ("GPUs", ", ".join(found["gpus"]) or "none"),
        ("torch", found["torch"]),
        ("networks run", f"on {found['device']} in {found['dtype']}"),
        ("threads", f"{found['threads']}; `unmask serve` measures whether one is as fast, unless a number is given"),
        *(
            ("fingerprint", f"{value} with {threads} thread{'s' if threads > 1 else ''}")
            for threads, value in fingerprints.items()
        ),
    ]


def rows_of(facts: "OpenModelFacts") -> list[tuple[str, str]]:
    """The facts in words."""
    classes, digits, flops = facts.vocabulary_size, facts.sub_tokens_per_token, facts.flops_an_evaluation
    carried = f"trained with{'' if facts.carry_over else 'out'} carry-over"
    trained = "" if facts.parameterization is None else f", {facts.parameterization} head, {carried}"
    whole = {"full": "always the whole length", "as_requested": "as long as the request"}[facts.canvas]
    about = [] if facts.description is None else [("what it is", facts.description)]
    about += [("for example" if number == 0 else "", example) for number, example in enumerate(facts.examples)]
    if facts.generation is not None:
        about.append(("recommended", json.dumps(facts.generation)))
    return [
        *about,
        ("folder", facts.path),
        ("architecture", facts.architecture + trained),
        *([] if facts.switches is None else [("network", facts.switches)]),
        ("parameters", f"{facts.parameters:,}"),
        ("vocabulary", f"{classes:,} tokens, each {digits} digits of base {facts.base}"),
        *picture_of(facts),
        ("canvas", f"at most {facts.length:,} tokens; {whole}"),
        (
            "text",
            ("a tokenizer" if facts.tokenizer else "no tokenizer: ids only")
            + ("" if facts.end_token_id is None else f", end token {' or '.join(map(str, facts.end_token_ids))}"),
        ),
        ("on disk", readable_bytes(facts.bytes_on_disk)),
        ("in memory", f"{readable_bytes(facts.bytes_in_memory)} ({facts.dtype} on {facts.device})"),
        ("a full canvas", f"{facts.evaluations:,} network evaluations, exactly first-hitting"),
        *([] if flops is None else [("", f"{flops / 1e9:.3g} GFLOP a network evaluation")]),
        ("logits", f"{readable_bytes(facts.logit_bytes_an_evaluation)} an evaluation, one sub-token at a time"),
        ("", f"{readable_bytes(facts.logit_bytes_at_once)} if all were revealed at once"),
    ]


def picture_of(facts: "OpenModelFacts") -> list[tuple[str, str]]:
    """The row of an image model: the size of its pictures and their colours."""
    if facts.image is None:
        return []
    colours = {
        1: "256 levels of grey",
        2: "24-bit colours, two tokens a pixel",
        3: "24-bit colours, a token each channel",
    }
    palette, channels = facts.image.get("palette"), facts.image["channels"]
    kind = colours[channels] if palette is None else f"a palette of {len(palette)} colours"
    size = f"{facts.image['width']} x {facts.image['height']} pixels"
    return [("picture", f"{size}, {kind}; sampler.clock {facts.clock}")]


def readable_bytes(count: float) -> str:
    """Bytes in a unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
