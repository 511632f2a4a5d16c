"""An evaluation of the published CIFAR-10 network against its own bare convolutions, in turns.

The weights are random: their values do not matter for the time. Each canvas is evaluated alone, so the bare
convolutions of B canvases are those of one canvas B times; "together" repeats them with B canvases at once, which is
what evaluating canvases alone gives up.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from unmask_diffusion import SubTokenizer, UNetDenoiser, UNetShape, evaluate
from unmask_diffusion.networks import unet

from benchmarks.evaluation.clock import Parts, in_turns
from benchmarks.evaluation.sizes import dtypes_here, peak_bytes
from benchmarks.harness import Figure, Numbers, Table
from benchmarks.machine_limits import seconds_of
from benchmarks.models import BareModel, plan_of, spread_out

CIFAR10 = UNetShape(32, 32, 3, 256, 2, 16, (288, 384, 384), 5, (False, True, False), 64)
SAMPLES = (1, 4)
CPU = torch.device("cpu")


def random_unet(shape: UNetShape, dtype: torch.dtype) -> BareModel[UNetDenoiser]:
    """A model with the weights that torch gives a new network, the same in every dtype but for rounding."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = UNetDenoiser(shape).requires_grad_(False).eval().serve_in(dtype)
    return BareModel(network, SubTokenizer.from_base(shape.vocabulary_size, shape.sub_tokens_per_token, shape.base))


class BareConvolutions:
    """The convolutions of one evaluation, recorded from a real one and repeated with random maps."""

    def __init__(self, model: BareModel[UNetDenoiser]) -> None:
        self._layers: list[tuple[tuple[int, ...], nn.Conv2d]] = []

        def noted(x: Tensor, layer: nn.Conv2d) -> Tensor:
            self._layers.append((tuple(x.shape), layer))
            return convolve(x, layer)

        convolve = unet.convolve
        canvas = model.sub_tokenizer.masked(model.denoiser.length)
        with patch.object(unet, "convolve", noted), FlopCounterMode(display=False) as counter, torch.inference_mode():
            model.denoiser.trunk([canvas], [torch.arange(1)])
        self.flops: int = counter.get_total_flops()  # of one canvas, attention with it

    def calls(self, canvases: int) -> list[Callable[[], Tensor]]:
        """All of them, with so many canvases at once."""
        return [
            partial(F.conv2d, self._maps(canvases, shape, layer), layer.weight, layer.bias, padding=layer.padding)
            for shape, layer in self._layers
        ]

    @staticmethod
    def _maps(canvases: int, shape: tuple[int, ...], layer: nn.Conv2d) -> Tensor:
        return torch.randn(canvases, *shape[1:]).to(layer.weight.dtype)


@torch.inference_mode()
def measured_pictures(rounds: int, shape: UNetShape = CIFAR10) -> Numbers:
    """Seconds of evaluations of 1 and of 4 canvases, and of the bare convolutions, in every dtype that pays here."""
    rows: list[dict[str, Any]] = []
    figures = []
    for dtype in dtypes_here():
        model = random_unet(shape, dtype)
        bare = BareConvolutions(model)
        ways: dict[str, Callable[[int], Parts]] = {}
        for samples in SAMPLES:
            ours = spread_out(model, plan_of(model, samples, seed=1), 0.5)
            alone, together = bare.calls(1) * samples, bare.calls(samples)
            ways |= {
                f"ours {samples}": partial(_timed, [partial(evaluate, model, ours)]),
                f"bare {samples}": partial(_timed, alone),
                f"together {samples}": partial(_timed, together),
            }
        medians = in_turns(ways, dict.fromkeys(ways, rounds), f"{str(dtype)[6:]}: 1 and 4 canvases, bare and whole")
        for samples in SAMPLES:
            seconds, alone_seconds, together_seconds = (
                medians[f"{kind} {samples}"]["total"] for kind in ("ours", "bare", "together")
            )
            rows.append(
                {
                    "dtype": str(dtype)[6:],
                    "samples": samples,
                    "seconds": seconds,
                    "bare_convolutions": alone_seconds,
                    "bare_convolutions_together": together_seconds,
                    "ratio_to_convolutions": seconds / alone_seconds,
                    "gflops_a_second": samples * bare.flops / seconds / 1e9,
                }
            )
            measure = f"CIFAR-10 network, {str(dtype)[6:]}, B = {samples}: times bare convolutions"
            figures.append(Figure(measure, seconds / alone_seconds, "at most", 1.4))
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    print(Table("The published CIFAR-10 network", [key.replace("_", " ") for key in rows[0]], cells))
    return {
        "size": "cifar10",
        "parameters": shape.parameters,
        "gflop_a_canvas": bare.flops / 1e9,
        "activation_bytes_a_canvas": model.denoiser.activation_bytes_per_token * shape.length,
        "peak_bytes": peak_bytes(),
        "rows": rows,
        "figures": figures,
    }


def _timed(calls: Sequence[Callable[[], object]], _turn: int) -> Parts:
    return {"total": seconds_of(lambda: [call() for call in calls], CPU)}
