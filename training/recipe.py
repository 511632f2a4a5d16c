"""A training recipe: every number that decides what comes out, and the clock that schedules hang on."""

from dataclasses import dataclass
from typing import Literal

from training.objective import Objective


@dataclass(frozen=True)
class Recipe:
    """What a run is made of; kept with its checkpoints and in the bundle's provenance.

    Attributes:
        name: of the model.
        seed: of parameters, data and masks.
        length: the longest canvas. shortest: the shortest one.
        full_share: share of batches on the longest canvas; the others draw a length between the two, most often
        usual_share: of the longest (where most texts just fit, so that little is spent on what follows their end).
        vocabulary_size: classes, base ** 2. base: of the two digits.
        hidden_size, blocks, heads: the network. absolute_positions: whether it is told where on the canvas a token is.
            Without it, all positions of a fully masked canvas look alike, and a text that has a beginning cannot begin.
        simple_share: share of the two easiest levels of the tales at the end of the curriculum. What an hour on two CPU
            cores can learn to tell without a slip is simple tales; with a GPU, 0 gives the full language alone.
        batch_tokens: tokens a batch, whatever the canvas length.
        objective, weight_floor: see `objective`.
        muon_rate: learning rate of the blocks' matrices. adam_rate: of everything else.
        weight_decay: of the blocks' matrices, relative to the learning rate.
        warm_up_steps: linear rise of the learning rate. decay_from: progress at which its linear fall begins.
        ema_decay: of the weights that are kept.
        copy_strength: how much of the mean of what it attends to a block passes on at the start.
        precision: of matrix products.
    """

    name: str
    seed: int = 0
    length: int = 128
    shortest: int = 16
    usual_length: int = 72
    full_share: float = 0.1
    usual_share: float = 0.8
    vocabulary_size: int = 4096
    base: int = 64
    hidden_size: int = 192
    blocks: int = 6
    heads: int = 6
    absolute_positions: bool = True
    batch_tokens: int = 4096
    objective: Objective = "marginals"
    weight_floor: float = 0.3
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    weight_decay: float = 0.02
    warm_up_steps: int = 50
    decay_from: float = 0.4
    ema_decay: float = 0.998
    copy_strength: float = 0.5
    precision: Literal["bfloat16", "float32"] = "bfloat16"

    def rate_factor(self, step: int, progress: float) -> float:
        """What the learning rates are multiplied by: warm-up, plateau, linear fall to zero at progress 1."""
        fall = (1 - progress) / (1 - self.decay_from) if progress > self.decay_from else 1.0
        return min(1.0, (step + 1) / self.warm_up_steps) * max(fall, 0.0)


@dataclass(frozen=True)
class Budget:
    """How long a run is: so many steps (reproducible anywhere), or so many minutes (fits what you have).

    Attributes:
        minutes: of training, earlier parts of a resumed run counted in. steps: used instead where given.
    """

    minutes: float
    steps: int | None = None

    def progress(self, steps: int, seconds: float) -> float:
        """The share of the budget that is spent, from 0 to 1."""
        return min(1.0, steps / self.steps if self.steps is not None else seconds / (60 * self.minutes))
