"""The measurement: every sampler at every budget, saved after each so that an interrupted run goes on."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unmask_diffusion import Model, RequestError, SamplingError

from unmask_service.frontier.drawing import draw, plans_of
from unmask_service.frontier.measures import ENTROPY, Criterion, Truth, Value, values_of
from unmask_service.frontier.samplers import REFERENCE, Draw

# how many standard errors of a difference are no noise: of some sixty cells less than one is wrong in five runs
CLEAR = 3.0


@dataclass(frozen=True)
class Settings:
    """What all cells have in common; a file is continued only with the same."""

    model: str  # its name
    samples: int  # of each sampler
    seed: int
    length: int  # tokens of a sample
    scored: int  # network evaluations that bound the probability of a sample


@dataclass(frozen=True)
class Cell:
    """One sampler at one setting."""

    sampler: str
    family: str
    setting: str
    request: Mapping[str, Any]
    evaluations: float = 0.0  # network evaluations, mean of a sample
    seconds: float = 0.0  # of drawing all samples
    values: Mapping[str, Value] = field(default_factory=dict)
    impossible: str | None = None  # why there are no values


@dataclass
class Frontier:
    """All that has been measured so far."""

    settings: Settings
    criteria: tuple[Criterion, ...]
    truth: dict[str, Value] | None  # the measures of as many samples of the truth itself
    cells: list[Cell] = field(default_factory=list)

    @property
    def reference(self) -> Mapping[str, Value] | None:
        """The measures of the truth, or where there is none, of the model's exact samples."""
        return self.truth or next((each.values for each in self.cells if each.sampler == REFERENCE), None)

    def entropy_gap(self, cell: Cell) -> Value:
        """How far the entropy of samples is above the truth's, in nats; below 0 they are colder."""
        (own, error), (true, noise) = cell.values[ENTROPY], (self.reference or cell.values)[ENTROPY]
        return own - true, (error**2 + noise**2) ** 0.5

    def is_colder(self, cell: Cell) -> bool:
        """Whether a sampler clearly lowers the temperature."""
        gap, error = self.entropy_gap(cell)
        return gap < -CLEAR * error

    def save(self, file: Path) -> None:
        """Write everything as JSON; a reader never sees half of it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(file.name + ".part")
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")
        temporary.replace(file)

    @classmethod
    def load(cls, file: Path) -> "Frontier":
        """Read what `save` wrote.

        Raises:
            RequestError: the file holds something else.
        """
        try:
            read = json.loads(file.read_text())
            cells = [Cell(**{**each, "values": values_of(each["values"])}) for each in read["cells"]]
            criteria = tuple(Criterion(**each) for each in read["criteria"])
            truth = None if read["truth"] is None else values_of(read["truth"])
            return cls(Settings(**read["settings"]), criteria, truth, cells)
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError("out", f"{file} is no frontier's JSON: choose another file, or delete it") from error


# hears what is being measured and how many of all network evaluations are done
Report = Callable[[str, int, int], None]


def measure(
    model: Model,
    truth: Truth,
    draws: Sequence[Draw],
    settings: Settings,
    file: Path,
    report: Report = lambda _name, _done, _planned: None,
) -> Frontier:
    """Measure every sampler, and write the file after each one; what the file has already is not measured again.

    Raises:
        RequestError: the file is of other settings, or no frontier's.
    """
    found = Frontier.load(file) if file.exists() else None
    if found is None:
        own = truth.draw(settings.samples, settings.seed + 1)
        found = Frontier(settings, tuple(truth.criteria), None if own is None else truth.values(own))
    elif found.settings != settings:
        raise RequestError("out", f"{file} has other settings, {found.settings}: choose another file, or delete it")
    known = {(each.sampler, each.setting) for each in found.cells}
    left = [each for each in draws if (each.contender, each.setting) not in known]
    costs = [_cost(model, each, settings) for each in left]
    done, planned = 0, sum(costs)
    for each, cost in zip(left, costs, strict=True):
        name = f"{each.contender}, {each.setting}"

        def listen(evaluations: int, name: str = name, done: int = done) -> None:
            report(name, done + evaluations, planned)

        listen(0)
        found.cells.append(_cell(model, truth, each, settings, listen))
        found.save(file)
        done += cost
    report("", planned, planned)
    return found


def _cost(model: Model, each: Draw, settings: Settings) -> int:
    """Network evaluations of all samples, at most; 0 where there will be none."""
    try:
        plans = plans_of(model, each.request, settings.samples, settings.seed, settings.length)
    except RequestError:
        return 0
    return sum(plan.network_evaluations for plan in plans)


def _cell(model: Model, truth: Truth, each: Draw, settings: Settings, report: Callable[[int], None]) -> Cell:
    about = (each.contender, each.family, each.setting, each.request)
    try:
        plans = plans_of(model, each.request, settings.samples, settings.seed, settings.length)
        drawn = draw(model, plans, report)
        return Cell(*about, drawn.network_evaluations, drawn.seconds, truth.values(drawn.tokens))
    except (RequestError, SamplingError) as error:
        return Cell(*about, impossible=str(error))
