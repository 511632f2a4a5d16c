"""`unmask frontier` with a truth for more models: judges of `tales` and `faces`, and chains that are known.

    python -m benchmarks.frontier tales
    python -m benchmarks.frontier faces
    python -m benchmarks.frontier chain-2         # a Markov chain whose tokens have two digits

Tales are judged by whether they are consistent, pictures by whether some choice of parts draws them; what the models
were trained on is the truth that the entropy of their samples is compared with.
"""

import random
from collections.abc import Sequence

import torch
import typer
from torch import Tensor
from unmask_model_store import Bundle
from unmask_service.cli import explanation
from unmask_service.cli.frontier import Subject, frontier_of, open_subject
from unmask_service.frontier import Criterion, Judge, Value, mean_and_error, share_and_error
from unmask_service.settings import Settings

from benchmarks.papers.chain import random_chain
from training.faces.composition import Avatars
from training.faces.judge import Patches, is_whole
from training.sources import TaleSource, end_token_id
from training.tales import is_consistent

CHAINS = {f"chain-{digits}": digits for digits in (1, 2, 3)}


class TalesJudge:
    """A tale is consistent if it breaks no rule."""

    criteria = (
        Criterion("consistent", "share of tales that break no rule of the language", "high"),
        Criterion("broken rules", "rules that a tale breaks", "low"),
    )

    def __init__(self, bundle: Bundle, length: int) -> None:
        assert bundle.tokenizer is not None  # noqa: S101
        self.tokenizer, self.length = bundle.tokenizer, length
        self.source = TaleSource(bundle.tokenizer, end_token_id(bundle.tokenizer))

    def draw(self, count: int, seed: int) -> Tensor:
        return self.source.batch(random.Random(seed), count, self.length)

    def values(self, tokens: Tensor) -> dict[str, Value]:
        broken = self.broken_rules(tokens)
        return {
            "consistent": share_and_error([each == 0 for each in broken]),
            "broken rules": mean_and_error(broken),
        }

    def broken_rules(self, tokens: Tensor) -> list[int]:
        """The number of rules that each tale breaks; int64 [N, L]."""
        end, found = self.source.end_token_id, []
        for ids in tokens.tolist():
            text = self.tokenizer.decode(ids[: ids.index(end)] if end in ids else ids, skip_special_tokens=False)
            found.append(len(is_consistent(text).broken))
        return found


class FacesJudge:
    """A picture is whole if some choice of parts and colours draws it."""

    criteria = (
        Criterion("whole", "share of pictures that some choice of parts and colours draws exactly", "high"),
        Criterion("unseen patches", "share of patches of 3 × 3 pixels that 20,000 composed avatars do not have", "low"),
    )

    def __init__(self, avatars: int = 20_000) -> None:
        self.source = Avatars()
        self.patches = Patches(self.source, avatars)

    def draw(self, count: int, seed: int) -> Tensor:
        return self.source.batch(random.Random(seed), count)

    def values(self, tokens: Tensor) -> dict[str, Value]:
        return {
            "whole": share_and_error([is_whole(each, self.source.parts) for each in tokens]),
            "unseen patches": mean_and_error([self.patches.unseen(each[None]) for each in tokens]),
        }


def judge_of(subject: Subject) -> Judge | None:
    """The judge of a model that ships, by its name."""
    if subject.name == "faces":
        return FacesJudge()
    if subject.name == "tales" and isinstance(subject.model, Bundle):
        return TalesJudge(subject.model, subject.model.config.length)
    return None


def opened(settings: Settings) -> Subject:
    """A chain, or a bundle with its judge."""
    if settings.first_model in CHAINS:
        torch.set_num_threads(1)  # the products are tiny: threads would spend their time waiting for each other
        return Subject(settings.first_model, random_chain().model(CHAINS[settings.first_model]))
    subject = open_subject(settings)
    return Subject(subject.name, subject.model, subject.recommended, judge_of(subject))


def main(given: Sequence[str] | None = None) -> None:
    """Run the command."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command(help=__doc__)(frontier_of(opened))
    try:
        app(given, standalone_mode=given is None)
    except Exception as error:
        line = explanation(error)
        if line is None:
            raise
        raise SystemExit(line) from error


if __name__ == "__main__":
    main()
