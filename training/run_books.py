"""The recipe for real prose: `books`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.books import CHAPTER_END, read_books, token_ids, train_tokenizer
from training.bundle import Content, Measured
from training.codes import codes_by_context
from training.evaluation import Model, Order, held_out_loss, texts_of
from training.recipe import Recipe
from training.session import Options, train
from training.sources import TextSource

RECIPE = Recipe(
    name="books",
    vocabulary_size=4096,
    base=64,
    hidden_size=256,
    heads=8,
    absolute_positions=False,
    batch_tokens=8192,
)

HELD_OUT = 128
# one part in so many of the text is held out: its end
HELD_OUT_PART = 50
ABOUT = """A small masked diffusion language model (MDLM-Prime) of children's books, trained from nothing.

- Data: the books in the folder that `--books` named.
- Licence of the weights: Apache-2.0; see the books for theirs.
- Limits: storybook phrases rather than stories.

"""


def run(recipe: Recipe, options: Options, folder: Path) -> Measured:
    """Train `books`.

    Raises:
        ValueError: the folder holds no books, or too little text.
    """
    texts = read_books(folder)
    tokenizer = train_tokenizer(texts, recipe.vocabulary_size)
    ids = token_ids(tokenizer, texts)
    cut = len(ids) - len(ids) // HELD_OUT_PART
    if len(ids) - cut < recipe.length:
        raise ValueError(f"{folder} holds only {len(ids)} tokens; a canvas is {recipe.length}")
    lines = ids[: cut // recipe.length * recipe.length].long().view(-1, recipe.length)
    codes = codes_by_context(lines, recipe.vocabulary_size, recipe.base)
    held_out = ids[cut:].long().unfold(0, recipe.length, max(1, (len(ids) - cut) // HELD_OUT))

    content = Content(codes, tokenizer, tokenizer.token_to_id(CHAPTER_END))
    judge = _BooksJudge(recipe, tokenizer, held_out)
    return train(recipe, options, content, TextSource(ids[:cut]), lines.unique(), judge, ABOUT)


class _BooksJudge:
    """Measures a model on the end of the text; its samples are shown as they are."""

    orders: Mapping[str, Order] = {"random, temperature 1": Order()}

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, held_out: Tensor) -> None:
        self.recipe, self.tokenizer, self.held_out = recipe, tokenizer, held_out

    def measure(self, model: Model) -> Measured:
        precision = self.recipe.product_dtype(torch.device("cpu"))
        codes = model.sub_tokenizer.codes
        bound = held_out_loss(model.denoiser, codes, self.held_out, "marginals", self.recipe.seed, precision)
        return Measured(bound / self.recipe.length)

    def judge(self, measured: Measured, drawn: Mapping[str, Tensor]) -> Measured:
        end = self.tokenizer.token_to_id(CHAPTER_END)
        texts = [text for canvases in drawn.values() for text in texts_of(canvases, self.tokenizer, end)]
        return replace(measured, good=tuple(texts))
