"""Settings: what is wrong with one is said with its name, its value and what it may be; the documentation lists all."""

from pathlib import Path

import pytest
from unmask_service.settings import SettingsError, read_settings, settings_table

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.mark.parametrize("value", ["0", "33", "many", "1.5"])
def test_a_number_of_lanes_that_cannot_be_is_refused_with_what_can(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_SPECULATION", value)
    bound = {"0": "greater than or equal to 1", "33": "less than or equal to 32"}.get(value, "valid integer")
    with pytest.raises(SettingsError, match=rf"UNMASK_SPECULATION: .*'auto' or 'off'.*{bound}.*'{value}'"):
        read_settings()


@pytest.mark.parametrize(("value", "read"), [("auto", "auto"), ("off", "off"), ("1", 1), ("32", 32)])
def test_speculation_is_a_word_or_a_number(value: str, read: str | int) -> None:
    assert read_settings(speculation=value).speculation == read


def test_the_documentation_has_every_setting() -> None:
    assert settings_table() in DOCUMENTATION.read_text(encoding="utf-8")
