"""The whole sampler: known laws, official logits, the CPU's logits, and samples alone against in company."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from unmask_diffusion import Denoiser, MarkovDenoiser, SubTokenizer, TableDenoiser, sample
from unmask_kernels import Draws, draw_from_logits
from unmask_model_store import Bundle, find_bundle, open_bundle
from unmask_model_store.importers import Request, import_checkpoint
from unmask_model_store.store import default_model_dir
from unmask_service.engine import BrokenPromiseError, self_test

from benchmarks.gpu.part import Options, Result, run_part
from benchmarks.models import BareModel

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
CLASSES, LENGTH = 4, 3


class DrawnThere:
    """A denoiser that is known exactly, on the CPU, whose features are drawn from on the device."""

    def __init__(self, inner: TableDenoiser | MarkovDenoiser, device: torch.device) -> None:
        self.inner, self.device = inner, device
        self.length, self.vocabulary_size = inner.length, inner.vocabulary_size
        self.activation_bytes_per_token = inner.activation_bytes_per_token

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        return self.inner.trunk(canvases, rows).to(self.device)

    def head(self, features: Tensor) -> Tensor:
        return features

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        return draw_from_logits(features, codes, draws)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        return self.inner.joint_logits(sub_tokens)


def laws(options: Options) -> Iterator[Result]:
    """Samples of the two exact models against their distribution, by chi-square."""
    chance = torch.Generator().manual_seed(1)
    codes = SubTokenizer.from_base(CLASSES, 2, 2)
    table = torch.randn((CLASSES,) * LENGTH, generator=chance, dtype=torch.float64)
    initial = torch.randn(CLASSES, generator=chance, dtype=torch.float64)
    transition = torch.randn(CLASSES, CLASSES, generator=chance, dtype=torch.float64)
    chain = initial.log_softmax(0).view(-1, 1, 1) + (
        transition.log_softmax(1).view(CLASSES, CLASSES, 1) + transition.log_softmax(1).view(1, CLASSES, CLASSES)
    )
    exact: dict[str, tuple[TableDenoiser | MarkovDenoiser, Tensor]] = {
        "table": (TableDenoiser(table, codes), table.flatten().softmax(0)),
        "markov": (MarkovDenoiser(initial, transition, LENGTH, codes), chain.exp().flatten()),
    }
    count, batches = (64, 4) if options.small else (64, 64)
    for name, (denoiser, law) in exact.items():
        model = BareModel[Denoiser](DrawnThere(denoiser, options.device), codes)
        found: Counter[tuple[int, ...]] = Counter()
        for seed in range(batches):
            found.update(each.token_ids for each in sample(model, max_tokens=LENGTH, n=count, seed=seed))
        total = count * batches
        outcomes = zip(product(range(CLASSES), repeat=LENGTH), law.tolist(), strict=True)
        square = sum((found[ids] - total * share) ** 2 / (total * share) for ids, share in outcomes)
        freedom = len(law) - 1
        # about one false alarm in 100,000: mean and six deviations of chi-square
        held = square <= freedom + 6 * sqrt(2 * freedom)
        yield Result(f"{name}: {total} samples against its law", square, "chi2", held, f"{freedom} degrees of freedom")


def golden(options: Options) -> Iterator[Result]:
    """Logits of official checkpoints against the official code's."""
    with TemporaryDirectory() as folder:
        for name in ("A", "B"):
            import_checkpoint(Request(GOLDEN / f"tiny_{name}.ckpt", Path(folder) / name))
            bundle = open_bundle(Path(folder) / name, device=options.device.type)
            with np.load(GOLDEN / f"tiny_{name}.npz") as arrays:
                y, logits = torch.from_numpy(arrays["y"]), torch.from_numpy(arrays["logits"])
            found = bundle.denoiser.joint_logits(y).cpu()
            error = float((found - logits[..., : found.shape[-1]]).abs().max())
            yield Result(f"golden {name}: logits against the official ones", error, "error", error <= 3e-5)
            yield from company(f"golden {name}", bundle)


def tales(options: Options) -> Iterator[Result]:
    path = find_bundle("tales", default_model_dir())
    here, there = open_bundle(path), open_bundle(path, device=options.device.type)
    chance = torch.Generator().manual_seed(2)
    ids = torch.randint(here.denoiser.vocabulary_size, (4, here.denoiser.length), generator=chance)
    canvas = here.sub_tokenizer.encode(ids)
    canvas = canvas.masked_fill(torch.rand(canvas.shape, generator=chance) < 0.5, here.sub_tokenizer.mask_id)
    error = float((here.denoiser.joint_logits(canvas) - there.denoiser.joint_logits(canvas).cpu()).abs().max())
    yield Result("tales: logits against the CPU's", error, "error", error <= 1e-3)
    for dtype in ("float32", "bfloat16") if options.gpu else ("float32",):
        bundle = open_bundle(path, dtype, options.device.type)
        yield from company(f"tales in {dtype}", bundle)
        try:
            self_test(bundle)
            yield Result(f"tales in {dtype}: the self-test of the start", held=True)
        except BrokenPromiseError as error_found:
            yield Result(f"tales in {dtype}: the self-test of the start", held=False, note=str(error_found))


def company(name: str, bundle: Bundle) -> Iterator[Result]:
    """Whether a sample is the same alone and among seven others, filtered and greedy ones too."""
    for fields in ({}, {"top_k": 20, "top_p": 0.9}, {"temperature": 0.0}, {"sampler": {"steps": 4}}):
        request = {"max_tokens": min(12, bundle.denoiser.length), "seed": 5, **fields}
        alone = [each.token_ids for each in sample(bundle, n=1, **request)]
        among = [each.token_ids for each in sample(bundle, n=8, **request)]
        yield Result(f"{name}: alone and in company, {fields or 'exact'}", held=alone == among[:1])


def results(options: Options) -> Iterator[Result]:
    for part in (laws, golden, tales):
        yield from part(options)


if __name__ == "__main__":
    run_part(results)
