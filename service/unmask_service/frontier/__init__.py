"""Samplers measured against the truth, at equal numbers of network evaluations: `unmask frontier`."""

from unmask_service.frontier.drawing import Drawn, draw, plans_of
from unmask_service.frontier.grid import Cell, Frontier, Settings, measure
from unmask_service.frontier.measures import (
    Criterion,
    Judge,
    MarkovTruth,
    ModelTruth,
    TableTruth,
    Truth,
    Value,
    entropy,
    mean_and_error,
    share_and_error,
    truth_of,
)
from unmask_service.frontier.report import Best, best_within, draw_figure, tables_of, verdicts
from unmask_service.frontier.samplers import CONTENDERS, Contender, Draw, draws_of

__all__ = [
    "CONTENDERS",
    "Best",
    "Cell",
    "Contender",
    "Criterion",
    "Draw",
    "Drawn",
    "Frontier",
    "Judge",
    "MarkovTruth",
    "ModelTruth",
    "Settings",
    "TableTruth",
    "Truth",
    "Value",
    "best_within",
    "draw",
    "draw_figure",
    "draws_of",
    "entropy",
    "mean_and_error",
    "measure",
    "plans_of",
    "share_and_error",
    "tables_of",
    "truth_of",
    "verdicts",
]
