"""Models small enough to know everything about, and the statistics that hold samplers to them."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import chi2
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from unmask_diffusion import (
    ActiveSample,
    AddBos,
    Denoiser,
    GenerationRequest,
    MarkovDenoiser,
    NetworkShape,
    Painter,
    Plan,
    PrimeDenoiser,
    Reveal,
    SubTokenizer,
    TableDenoiser,
    UNetDenoiser,
    UNetShape,
    evaluate,
    make_plan,
    read_sample,
    replay,
    smallest_base,
)
from unmask_kernels import Draws

# A statistical test's seed is fixed, so its outcome is too; a correct sampler and another seed (or another way to
# number the random draws) would fail one test in this many.
FALSE_ALARM_RATE = 1e-5


@dataclass(frozen=True)
class ToyModel:
    """Satisfies `unmask_diffusion.Model`."""

    denoiser: Denoiser
    sub_tokenizer: SubTokenizer
    tokenizer: Tokenizer | None = None
    end_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    add_bos: AddBos = "never"
    full_canvas: bool = True
    carry_over: bool = True
    clock: int = 1
    image: Painter | None = None


class DenoiserAround:
    """A denoiser that behaves as another one; subclasses change some of it. Satisfies `unmask_diffusion.Denoiser`."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner = inner

    @property
    def length(self) -> int:
        return self.inner.length

    @property
    def vocabulary_size(self) -> int:
        return self.inner.vocabulary_size

    @property
    def activation_bytes_per_token(self) -> int:
        return self.inner.activation_bytes_per_token

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        return self.inner.trunk(canvases, rows)

    def head(self, features: Tensor) -> Tensor:
        return self.inner.head(features)

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        return self.inner.draw(features, codes, draws)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        return self.inner.joint_logits(sub_tokens)


def code_table(classes: int, digits: int, base: int | None = None) -> SubTokenizer:
    return SubTokenizer.from_base(classes, digits, base or smallest_base(classes, digits))


def random_table(classes: int, length: int, seed: int) -> Tensor:
    """Log-probabilities [C] · L of a joint distribution whose positions depend on each other."""
    scores = torch.randn((classes,) * length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return scores.flatten().log_softmax(0).view(scores.shape)


def table_model(classes: int, length: int, digits: int, base: int | None = None, seed: int = 0) -> ToyModel:
    sub_tokenizer = code_table(classes, digits, base)
    return ToyModel(TableDenoiser(random_table(classes, length, seed), sub_tokenizer), sub_tokenizer)


def random_chain(classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """(log_initial [C], log_transition [C, C]), normalised."""
    generator = torch.Generator().manual_seed(seed)
    initial = torch.randn(classes, generator=generator, dtype=torch.float64)
    transition = torch.randn(classes, classes, generator=generator, dtype=torch.float64)
    return initial.log_softmax(0), transition.log_softmax(1)


def markov_model(classes: int, length: int, digits: int, base: int | None = None, seed: int = 0) -> ToyModel:
    sub_tokenizer = code_table(classes, digits, base)
    return ToyModel(MarkovDenoiser(*random_chain(classes, seed), length, sub_tokenizer), sub_tokenizer)


def random_network(shape: NetworkShape, seed: int = 0) -> PrimeDenoiser:
    """A network whose logits are far from flat, so that a wrong bit anywhere is likely to show."""
    network = PrimeDenoiser(shape)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        scale = 1.0 if parameter.ndim == 1 else 2.0 / math.sqrt(parameter.shape[1])
        nn.init.normal_(parameter, std=scale, generator=generator)
    return network.requires_grad_(False).eval()


def prime_model(
    classes: int = 30,
    length: int = 24,
    digits: int = 2,
    base: int | None = None,
    dtype: torch.dtype = torch.float32,
    full_canvas: bool = False,
) -> ToyModel:
    sub_tokenizer = code_table(classes, digits, base)
    shape = NetworkShape(length, classes, digits, sub_tokenizer.base, hidden_size=48, blocks=2, heads=4)
    network = random_network(shape).serve_in(dtype)
    return ToyModel(network, sub_tokenizer, full_canvas=full_canvas)


# pictures of 4 x 4 pixels, red, green and blue bytes of two digits
PICTURES = UNetShape(4, 4, 3, 256, 2, 16, widths=(96, 96), blocks=1, attention=(False, True), head_channels=32)


def random_unet(shape: UNetShape, seed: int = 0) -> UNetDenoiser:
    """An image network whose logits are far from flat."""
    network = UNetDenoiser(shape)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        scale = 0.5 if parameter.ndim == 1 else 1.0 / math.sqrt(parameter[0].numel())
        nn.init.normal_(parameter, std=scale, generator=generator)
    return network.requires_grad_(False).eval()


def picture_model() -> ToyModel:
    sub_tokenizer = code_table(256, 2)
    painter = Painter(PICTURES.height, PICTURES.width, PICTURES.channels, None, sub_tokenizer)
    return ToyModel(random_unet(PICTURES), sub_tokenizer, clock=3, image=painter)


END_TOKEN = "<|end|>"  # noqa: S105 — no password
# what the messages say, one after the other; for some of them it does what a template should not
SCRIBES_TEMPLATE = """
{%- set said = messages | map(attribute='content') | join -%}
{%- if said == 'loop' %}{% for _ in range(99999) %}{% for _ in range(99999) %}{% endfor %}{% endfor %}{% endif -%}
{%- if said == 'raise' %}{{ raise_exception('roles must alternate') }}{% endif -%}
{%- if said == 'reach' %}{{ said.__class__.__mro__ }}{% endif -%}
{{ said }}"""
# no byte twice; characters of several bytes, a combining mark, and what readers of lines take for their end
SCRIBES_TEXT = "Ab🙂cn\u0303\u2028d\x85e-stop!xyz"


def end_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The end token of a tokenizer from `byte_tokenizer`."""
    end = tokenizer.token_to_id(END_TOKEN)
    return () if end is None else (end,)


def byte_tokenizer(merges: Sequence[tuple[str, str]] = (("t", "h"), ("th", "e"), ("Ġ", "the"))) -> Tokenizer:
    """Byte-level BPE with every byte, a few merges and, as the last id, the end token."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_TOKEN, special=True)])
    return tokenizer


def plan_for(model: ToyModel, **fields: object) -> Plan:
    return make_plan(model, GenerationRequest.model_validate(fields))


def run_to_end(model: ToyModel, samples: Sequence[ActiveSample], places: int | None = None) -> list[list[Reveal]]:
    """Take samples through the sampler, at most `places` of them in one evaluation; return the log of each.

    Where places are fewer than samples, some join while others are half done, as they do in a server.
    """
    logs: list[list[Reveal]] = [[] for _ in samples]
    while running := [i for i, each in enumerate(samples) if not each.finished][:places]:
        for i, outcome in zip(running, evaluate(model, [samples[i] for i in running]), strict=True):
            for entry in samples[i].apply(outcome):
                assert isinstance(entry, Reveal), entry
                logs[i].append(entry)
    return logs


def samples_of(model: ToyModel, plan: Plan) -> list[ActiveSample]:
    """All samples of a plan, at their start."""
    return [ActiveSample.start(model, plan, index) for index in range(plan.request.n)]


def log_that_goes_on_from_anywhere(model: ToyModel, plan: Plan) -> list[Reveal]:
    """Draw a plan's samples together, and check that plan and log are their whole state.

    After each evaluation a replay of the log gives the samples' digits, and new samples that get a part of the log go
    on identically.
    """
    active = samples_of(model, plan)
    log: list[Reveal] = []
    prefixes = []
    while running := [each for each in active if not each.finished]:
        for each, outcome in zip(running, evaluate(model, running), strict=True):
            for entry in each.apply(outcome):
                assert isinstance(entry, Reveal)
                log.append(entry)
        prefixes.append(len(log))
        rebuilt = replay(model, plan, log)
        assert all(torch.equal(state, live.digits) for state, live in zip(rebuilt, active, strict=True))
    for taken in prefixes[:: max(1, len(prefixes) // 4)]:
        again = samples_of(model, plan)
        for entry in log[:taken]:
            again[entry.sample].reveal(entry)
        rest = run_to_end(model, again)
        assert sorted([*log[:taken], *itertools.chain(*rest)], key=str) == sorted(log, key=str)
    assert all((each.digits != model.sub_tokenizer.mask_id).all() for each in active)
    return log


def sequences(model: ToyModel, plans: Iterable[Plan], places: int = 512) -> list[tuple[int, ...]]:
    """The tokens of every sample of the plans, many samples an evaluation."""
    active = [ActiveSample.start(model, plan, i) for plan in plans for i in range(plan.request.n)]
    for start in range(0, len(active), places):
        run_to_end(model, active[start : start + places])
    return [read_sample(model, each.plan, each.index, each.digits).token_ids for each in active]


def every_state(sub_tokenizer: SubTokenizer) -> list[tuple[int, ...]]:
    """All that can be known of a token on its way: any of its digits masked, the others those of a class."""
    digits, mask = sub_tokenizer.sub_tokens_per_token, sub_tokenizer.mask_id
    codes: list[list[int]] = sub_tokenizer.codes.tolist()
    hidden = itertools.product((False, True), repeat=digits)
    return sorted({tuple(mask if h else d for d, h in zip(c, hide, strict=True)) for hide in hidden for c in codes})


def agrees_with(state: Sequence[int], code: Sequence[int], mask_id: int) -> bool:
    return all(digit in (mask_id, known) for digit, known in zip(state, code, strict=True))


def chi_square_p(counts: Mapping[tuple[int, ...], int], probabilities: Mapping[tuple[int, ...], float]) -> float:
    """p-value of counts under probabilities; cells with fewer than 5 expected are put together."""
    assert math.isclose(sum(probabilities.values()), 1, rel_tol=1e-5), "the probabilities must sum to 1"
    strange = [outcome for outcome in counts if probabilities.get(outcome, 0) <= 0]
    assert not strange, f"outcomes of probability 0 came out: {strange[:5]}"
    total = sum(counts.values())
    cells = [(counts.get(outcome, 0), total * p) for outcome, p in probabilities.items() if p > 0]
    rare = [cell for cell in cells if cell[1] < 5]
    common = [cell for cell in cells if cell[1] >= 5]
    if rare:
        common.append((sum(count for count, _ in rare), sum(expected for _, expected in rare)))
    statistic = sum((count - expected) ** 2 / expected for count, expected in common)
    return float(chi2.sf(statistic, len(common) - 1))


def transition_p(chains: Iterable[Sequence[int]], transition: Tensor) -> float:
    """p-value of a Markov chain's transition counts under the true [C, C]: chi-square, C (C - 1) degrees of freedom."""
    classes = len(transition)
    counts = torch.zeros(classes, classes, dtype=torch.float64)
    for chain in chains:
        ids = torch.tensor(chain)
        counts += torch.bincount(ids[:-1] * classes + ids[1:], minlength=classes**2).view(classes, classes)
    expected = counts.sum(1, keepdim=True) * transition
    assert expected.min() > 5, "too few transitions to test"
    return float(chi2.sf(float(((counts - expected) ** 2 / expected).sum()), classes * (classes - 1)))
