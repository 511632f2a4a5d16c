"""docs/metrics.md lists every metric, each is used somewhere, and nothing asks for one that there is not."""

import pytest
from unmask_service.metrics import metrics_table

from tests.helpers_metrics import DOCUMENTATION, described_metrics, documented_metrics, metrics_in
from tests.system.boards import REPOSITORY, boards

RULES = sorted((REPOSITORY / "docker" / "prometheus").glob("*.yml"))


def asked_for() -> set[str]:
    expressions = [query.expression for board in boards() for panel in board.panels for query in panel.queries]
    return metrics_in("\n".join([*expressions, *(file.read_text() for file in RULES)]))


def test_the_documentation_has_every_metric() -> None:
    assert metrics_table() in DOCUMENTATION.read_text(encoding="utf-8")


def test_every_metric_has_a_panel_an_alert_or_a_paragraph() -> None:
    assert documented_metrics() - asked_for() - described_metrics() == set()


def test_boards_and_rules_ask_for_metrics_that_there_are() -> None:
    assert asked_for() - documented_metrics() == set()


@pytest.mark.parametrize("label", ["outcome", "reason", "phase", "operation", "ahead", "right"])
def test_the_documentation_says_what_a_label_may_be(label: str) -> None:
    assert f"`{label}`:" in DOCUMENTATION.read_text(encoding="utf-8")
