"""`unmask import`, `unmask pull`: official checkpoints become bundles. `unmask models`: the bundles that are known."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unmask_service.cli.options import ModelDir
from unmask_service.settings import read_settings

if TYPE_CHECKING:
    from unmask_model_store.importers import Progress, Request


StoredDtype = Literal["float32", "bfloat16"]
Weights = Literal["ema", "raw"]
Canvas = Literal["full", "as_requested"]

TokenizerOption = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="FILE_OR_DIR",
        help="tokenizer.json, a pair of vocabulary and merges (name either), or a folder with them; "
        "default: the checkpoint folder's own, or GPT-2's from the hub's cache for 50257 classes, else none",
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="the model's name for the server; default: the folder's name")
]
DtypeOption = Annotated[
    StoredDtype | None,
    typer.Option(
        "--dtype",
        help="type of the blocks' projections in the bundle; default: float32, and what llama-shaped networks are "
        "stored in",
    ),
]
WeightsOption = Annotated[Weights, typer.Option("--weights", help="ema, as in official evaluation, or raw")]
CanvasOption = Annotated[
    Canvas | None,
    typer.Option(
        "--canvas",
        help="full: the network always sees its whole length; default: full, as_requested for llama-shaped networks",
    ),
]
CodesOption = Annotated[
    Path | None, typer.Option("--codes", metavar="FILE", help="the table that shuffles an MDM-Prime-v2's token ids")
]
HeadsOption = Annotated[
    int | None, typer.Option("--heads", metavar="N", min=1, help="attention heads, where the file does not say")
]
BaseOption = Annotated[
    int | None, typer.Option("--base", metavar="B", min=2, help="base of the digits, where the file does not say")
]
LengthOption = Annotated[
    int | None, typer.Option("--length", metavar="L", min=1, help="the longest canvas, where the file does not say")
]
MaskOption = Annotated[
    int | None, typer.Option("--mask-id", metavar="ID", min=0, help="the mask's token, where no file says")
]
SubTokensOption = Annotated[
    int | None,
    typer.Option("--sub-tokens", metavar="L", min=1, help="sub-tokens per token, where the file does not say"),
]
HeadChannelsOption = Annotated[
    int | None,
    typer.Option(
        "--head-channels",
        metavar="N",
        min=1,
        help="channels of an image model's attention heads, which no file tells; default: 64, as in all official ones",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="replace the bundle that is there")]


def import_checkpoint(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="a .ckpt, .pth, .pt or .safetensors file, or a folder of Hugging Face's or Megatron's"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="the bundle's folder")],
    tokenizer: TokenizerOption = None,
    name: NameOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = "ema",
    canvas: CanvasOption = None,
    codes: CodesOption = None,
    heads: HeadsOption = None,
    sub_tokens: SubTokensOption = None,
    base: BaseOption = None,
    length: LengthOption = None,
    mask_id: MaskOption = None,
    head_channels: HeadChannelsOption = None,
    force: ForceOption = False,
) -> None:
    """Turn an official checkpoint into a bundle: MDM-Prime, of text or of images, MDLM, SMDM, LLaDA, Dream or a2d.

    Nothing in the file is executed.

    For example:

        unmask import checkpoint.ckpt --out ./mdm-prime --tokenizer tokenizer.json
        unmask import ./LLaDA-8B-Instruct --out ./llada
        unmask serve --model ./mdm-prime
    """
    from unmask_model_store.importers import Request

    options = Request(file, out, tokenizer, name, dtype=dtype, weights=weights, canvas=canvas, force=force)
    options = replace(options, codes=codes, heads=heads, sub_tokens=sub_tokens, base=base, length=length)
    _run(replace(options, mask_id=mask_id, head_channels=head_channels))


def pull(
    target: Annotated[
        str,
        typer.Argument(
            metavar="REPO[/PATH]",
            help="OWNER/NAME, OWNER/NAME/PATH, or a known name: mdm-prime-owt, mdlm-owt, mdm-prime-cifar10, "
            "mdm-prime-imagenet32, mdm-prime-v2-slimpajama, llada-8b-instruct, dream-7b-instruct, …",
        ),
    ],
    sub_tokens: Annotated[
        int | None,
        typer.Option(
            "--sub-tokens",
            metavar="L",
            help="the model with L sub-tokens per token: 2, 3, 4, 6 or 8 of mdm-prime-owt; 1, 2, 3, 4 or 8 of images",
        ),
    ] = None,
    carry_over: Annotated[
        bool, typer.Option("--carry-over", help="the model that was trained with carry-over")
    ] = False,
    super_token: Annotated[
        bool, typer.Option("--super-token", help="the image model whose tokens are halves of a pixel's 24 bits")
    ] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="branch, tag or commit; default: main")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="the bundle's folder; default: in the models' folder")
    ] = None,
    tokenizer: TokenizerOption = None,
    name: NameOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = "ema",
    canvas: CanvasOption = None,
    codes: CodesOption = None,
    force: ForceOption = False,
    model_dir: ModelDir = None,
) -> None:
    """Download a checkpoint from the Hugging Face hub and import it.

    Files in the hub's cache are not downloaded again.

    For example:

        unmask pull mdm-prime-owt --sub-tokens 4
        unmask serve --model mdm-prime-owt-l4
        unmask pull mdm-prime-cifar10 --sub-tokens 2
    """
    settings = read_settings(model_dir=model_dir)
    from unmask_model_store import BundleError, default_model_dir
    from unmask_model_store.importers import Request, check_place, hub

    wanted = hub.parse(target, sub_tokens, carry_over, revision, super_token)
    models_folder = settings.model_dir or default_model_dir()
    if out is None:
        if models_folder is None:
            raise BundleError(f"{target}: this user has no home directory for models: say --out or --model-dir")
        out = models_folder / (name or wanted.name)
    check_place(out, force)  # before gigabytes are fetched
    if wanted.sizes and codes is None:
        raise BundleError(
            f"{target}: say --codes FILE: the shuffle table lies beside the official code, not on the hub"
        )
    file = hub.fetch(wanted)
    tokenizer = tokenizer or (hub.fetch_gpt2() if wanted.official else None)
    request = Request(file, out, tokenizer, name, dtype=dtype, weights=weights, canvas=canvas, force=force)
    _run(replace(request, origin=wanted.facts(file), codes=codes, **wanted.sizes))


def models(model_dir: ModelDir = None) -> None:
    """List the models that can be named: those that ship and those in the models' folder.

    For example:

        unmask models
    """
    settings = read_settings(model_dir=model_dir)
    from unmask_model_store import default_model_dir, list_bundles

    models_folder = settings.model_dir or default_model_dir()
    found = list_bundles(models_folder)
    if not found:
        typer.echo(f"no models in {models_folder}" if models_folder else "no models", err=True)
    rows = [(name, _describe(folder), str(folder)) for name, folder in found.items()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    for name, words, folder in rows:
        typer.echo(f"{name:{widths[0]}}  {words:{widths[1]}}  {folder}")


def _describe(folder: Path) -> str:
    from unmask_model_store import BundleError, read_config

    try:
        config = read_config(folder)
    except BundleError:
        return "cannot be opened"
    return f"{config.architecture}, {config.sizes}"


def _run(request: "Request") -> None:
    from unmask_model_store import NetworkConfig, UNetConfig
    from unmask_model_store.importers import import_checkpoint

    with _progress() as progress:
        imported = import_checkpoint(request, progress)
    config = imported.config
    if imported.ignored:
        names = ", ".join(imported.ignored[:8]) + (", …" if len(imported.ignored) > 8 else "")
        typer.echo(f"named by the file's pickle, recorded and not executed: {names}", err=True)
    if not imported.has_tokenizer and config.architecture != "unet":
        typer.echo("no tokenizer: the model takes and returns token ids (--tokenizer adds one)", err=True)
    for note in imported.notes:
        typer.echo(note, err=True)
    sizes = [config.sizes]
    if isinstance(config, UNetConfig):
        sizes.append(config.switches)
    elif isinstance(config, NetworkConfig):
        sizes.append(f"{config.blocks} blocks of {config.hidden_size}")
    typer.echo(f"{request.out}: {', '.join(sizes)}")


@contextmanager
def _progress() -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description:8}"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {what: bar.add_task(what, total=None) for what in ("checksum", "weights")}

        def progress(what: str, done: int, total: int) -> None:
            bar.update(tasks[what], completed=done, total=total)

        yield progress
