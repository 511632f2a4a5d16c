"""The recipe of the model that ships: `tales`."""

import random
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from unmask_diffusion import GenerationSettings, Sampler

from training.bundle import Content, Measured
from training.codes import codes_by_group
from training.evaluation import Model, Order, held_out_loss, share_copied, texts_of
from training.recipe import Recipe
from training.session import Options, train
from training.sources import TaleSource, end_token_id
from training.tales import CLASSES, WORDS, build_tokenizer, is_consistent, tale_with_log_probability, word_groups

RECIPE = Recipe(
    name="tales",
    length=96,
    vocabulary_size=CLASSES,
    base=32,
    hidden_size=128,
    blocks=4,
    heads=4,
    batch_tokens=2048,
)

HELD_OUT = 256
HELD_OUT_SEED = 99
ORDERS = {
    "random, temperature 1 (the API's default)": Order(),
    "random, temperature 0.7": Order(temperature=0.7),
    "blocks of 8 tokens, temperature 1": Order(8),
    "blocks of 8 tokens, temperature 0.7": Order(8, 0.7),
    "left to right, temperature 1": Order(1),
    "left to right, temperature 0.7": Order(1, 0.7),
}
DESCRIPTION = "A small model that tells short tales in the language of its own generator, and knows nothing else."
EXAMPLES = (
    "Once upon a time, there was a",
    "Long ago, far away, lived a",
    "Not so far from the station lived a",
    "On a hill behind the pond lived a",
    "In a house by the windmill lived a",
)
GENERATION = GenerationSettings(temperature=0.7, sampler=Sampler(block_length=8))
ABOUT = """A small masked diffusion language model (MDLM-Prime) that tells short tales: it knows the few hundred words
of its generated tales and nothing else.

- Data: tales told by the generator in `training/tales` (plots, sentences and words; no outside text), made on the spot.
- Licence: Apache-2.0, weights and text.
- Judged by `is_consistent`: a tale holds if every sentence is one of the language, the plot runs from its beginning to
  its end, and names, things, kinds and places stay themselves throughout. One slip anywhere and it does not.
- Limits: prompts in other words are read letter by letter and lead it astray; it has no knowledge of the world.
  "Once upon a time, there was a" is a good beginning.
"""


def run(recipe: Recipe, options: Options) -> Measured:
    """Train `tales`."""
    tokenizer = build_tokenizer()
    end = end_token_id(tokenizer)
    vocabulary = tokenizer.get_vocab()
    groups = [[vocabulary[piece] for piece in group] for group in word_groups()]
    groups[-1].append(end)
    codes = codes_by_group(groups, recipe.vocabulary_size, recipe.base)
    used = torch.tensor(sorted({token for group in groups for token in group}))
    source = TaleSource(tokenizer, end)
    judge = TalesJudge(source, recipe)
    content = Content(codes, tokenizer, end, DESCRIPTION, EXAMPLES, GENERATION)
    return train(recipe, options, content, source, used, judge, ABOUT)


class TalesJudge:
    """Measures a model on tales that it has not seen, and on tales that it tells."""

    orders = ORDERS

    def __init__(self, source: TaleSource, recipe: Recipe) -> None:
        chance = random.Random(HELD_OUT_SEED)
        told = [tale_with_log_probability(chance) for _ in range(HELD_OUT)]
        texts = [text for text, _ in told]
        self.tokenizer, self.end_token_id = source.tokenizer, source.end_token_id
        self.canvases = source.canvases(texts, recipe.length)
        lengths = [len(encoding.ids) + 1 for encoding in source.tokenizer.encode_batch(texts)]
        self.tokens_a_tale = sum(lengths) / len(lengths)
        self.entropy = -sum(log for _, log in told) / sum(lengths)
        self.names = {source.tokenizer.encode(f" {name}").ids[0] for name in WORDS["hero"]}
        self.seed = recipe.seed
        self.precision = recipe.product_dtype(torch.device("cpu"))

    def measure(self, model: Model) -> Measured:
        """The bound is of the whole canvas; a token is one of the tale or its first end token."""
        network, codes = model.denoiser, model.sub_tokenizer.codes
        bound = held_out_loss(network, codes, self.canvases, "marginals", self.seed, self.precision)
        copied = share_copied(network, codes, self.canvases[:64], self.names)
        return Measured(bound / self.tokens_a_tale, self.entropy, copied)

    def judge(self, measured: Measured, drawn: Mapping[str, Tensor]) -> Measured:
        """The share of free samples that hold in each order; of the first order, some that do and some that do not."""
        told = {name: texts_of(canvases, self.tokenizer, self.end_token_id) for name, canvases in drawn.items()}
        texts = [text for each in told.values() for text in each]
        verdicts = [(text, is_consistent(text)) for text in next(iter(told.values()))]
        good = tuple(text for text, verdict in verdicts if verdict)
        bad = tuple((text, "; ".join(verdict.broken[:2])) for text, verdict in verdicts if not verdict)
        return replace(
            measured,
            consistent=tuple(
                (name, sum(map(bool, map(is_consistent, each))), len(each)) for name, each in told.items()
            ),
            copies=len(texts) - len(set(texts)),
            good=good[:5],
            bad=bad[:5],
        )
