"""The recipe of the image model that ships: `faces`."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from unmask_diffusion import GenerationSettings, Sampler
from unmask_diffusion.request import TemperatureSchedule
from unmask_model_store import ImageConfig

from training.bundle import Content, Measured
from training.evaluation import Model, Order, held_out_loss
from training.faces.composition import SIDE, Avatars
from training.faces.judge import is_whole
from training.faces.palette import BASE, PALETTE
from training.faces.sheet import sheet_of
from training.recipe import Recipe
from training.session import Options, train

CLOCK = 3  # training masks canvases as `sampler.clock` 3 meets them

RECIPE = Recipe(
    name="faces",
    length=SIDE * SIDE,
    usual_length=SIDE * SIDE,
    shortest=SIDE * SIDE,
    full_share=1.0,
    usual_share=0.0,
    vocabulary_size=len(PALETTE),
    base=BASE,
    hidden_size=128,
    blocks=5,
    heads=4,
    batch_tokens=24 * SIDE * SIDE,
    weight_floor=0.1,
    mask_clock=CLOCK,
    decay_from=0.5,
)

HELD_OUT = 256
HELD_OUT_SEED = 99
SHOWN = Order(steps=64, clock=CLOCK, temperature=0.3)
ORDERS = {
    "64 groups, clock 3, temperature 0.3": SHOWN,
    "32 groups, clock 3, temperature 0.3": replace(SHOWN, steps=32),
    "64 groups, clock 3, temperature 0.6": replace(SHOWN, temperature=0.6),
}
SHEET = 32  # samples shown after an evaluation, and in the model card
DESCRIPTION = "A small model that draws avatars of 16 × 16 pixels in 64 colours, and knows nothing else."
# variety where the parts are chosen, at first; hardly any chance where they are finished
SCHEDULE = TemperatureSchedule(start=0.8, change=-0.7, power=0.5)
# a digit that the network got wrong early is masked again and mended
GENERATION = GenerationSettings(sampler=Sampler(name="remasking", steps=96, rate=0.2, temperature_schedule=SCHEDULE))
ABOUT = """A small masked diffusion model (MDM-Prime) of pictures: it draws avatars of 16 × 16 pixels in 64 colours. The
first digit of a pixel is its family, such as skin, hair or clothes, and draws the picture as a poster; the second one
is the colour.

- Data: avatars composed on the spot by `training/faces` from the parts of DiceBear's "pixel art" (designs: CC0 1.0).
- Licence: Apache-2.0 for the weights.
- Trained in three stages: with 24, 12 and 8 shapes of hair, and ever fewer of the other parts; a new run has the last
  stage's parts from the beginning.
- Judged by `parts_of`: a picture is whole if some choice of parts and colours draws it exactly. One wrong pixel
  anywhere and it is not.

"""


def run(recipe: Recipe, options: Options) -> Measured:
    """Train `faces`."""
    classes = list(range(recipe.vocabulary_size))
    image = ImageConfig(height=SIDE, width=SIDE, channels=1, palette=list(PALETTE))
    content = Content(
        classes, description=DESCRIPTION, generation=GENERATION, image=image, clock=CLOCK, verdict="whole"
    )
    source = Avatars()
    judge = FacesJudge(source, recipe, options.out / "sheet.png")
    return train(recipe, options, content, source, torch.tensor(classes), judge, ABOUT)


class FacesJudge:
    """Measures a model on avatars that it has not seen, and on those that it draws."""

    orders = ORDERS

    def __init__(self, source: Avatars, recipe: Recipe, sheet: Path) -> None:
        """`sheet` is the file that shows free samples after each evaluation."""
        self.parts, self.entropy, self.sheet = source.parts, source.entropy / recipe.length, sheet
        self.canvases = source.batch(random.Random(HELD_OUT_SEED), HELD_OUT)
        self.seed = recipe.seed
        self.precision = recipe.product_dtype(torch.device("cpu"))

    def measure(self, model: Model) -> Measured:
        """The valid bound, and a sheet of free samples."""
        codes = model.sub_tokenizer.codes
        bound = held_out_loss(model.denoiser, codes, self.canvases, "marginals", self.seed, self.precision)
        sheet = sheet_of(SHOWN.draw(model, SHEET, torch.Generator().manual_seed(self.seed)))
        self.sheet.parent.mkdir(parents=True, exist_ok=True)
        self.sheet.write_bytes(sheet)
        return Measured(bound / self.canvases.shape[1], self.entropy, sheet=sheet)

    def judge(self, measured: Measured, drawn: Mapping[str, Tensor]) -> Measured:
        """The share of free samples that are whole in each order; a sheet of the first one."""
        whole = tuple(
            (name, sum(is_whole(picture, self.parts) for picture in pictures), len(pictures))
            for name, pictures in drawn.items()
        )
        pictures = torch.cat(list(drawn.values()))
        copies = len(pictures) - len(pictures.unique(dim=0))
        sheet = sheet_of(next(iter(drawn.values()))[:SHEET])
        return replace(measured, consistent=whole, copies=copies, sheet=sheet)
