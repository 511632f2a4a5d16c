"""The trained networks as bundles, which `unmask serve` opens: two tokens of ids, no text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from unmask_diffusion.networks import Parameterization
from unmask_model_store import PrimeConfig, write_bundle

from training.toy.experiment import Options
from training.toy.learning import Learnt


def write_bundles(learnt: Mapping[Parameterization, Learnt], options: Options, folder: Path) -> None:
    """Write every network to folder/PARAMETERIZATION."""
    for parameterization, each in learnt.items():
        config = PrimeConfig(
            architecture="prime",
            name=f"toy-{options.picture}-{parameterization}",
            provenance={
                "command": "python -m training.toy",
                "options": dataclasses.asdict(options),
                "torch": torch.__version__,
                "steps": each.steps,
            },
            **vars(each.network.shape),
        )
        write_bundle(folder / parameterization, config, each.network.state_dict(), card=_card(config), replace=True)


def _card(config: PrimeConfig) -> str:
    return f"""# {config.name}

Two tokens, x and y, of 512 classes each: points of a picture, by `python -m training.toy`. Ask for
`{{"canvas": [null, null]}}`, or give one of the two.
"""
