"""Settings: what is wrong with one is said with its name, its value and what it may be; the documentation lists all."""

from pathlib import Path

import pytest
from unmask_service.settings import SettingsError, kubernetes_variables, read_settings, settings_table

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


# --- whose variables they are ----------------------------------------------------------------------------------------

KUBERNETES = {
    "UNMASK_SERVICE_HOST": "10.0.0.1",
    "UNMASK_SERVICE_PORT": "8000",
    "UNMASK_SERVICE_PORT_HTTP": "8000",
    "UNMASK_PORT": "tcp://10.0.0.1:8000",
    "UNMASK_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "UNMASK_PORT_8000_TCP_PROTO": "tcp",
    "UNMASK_PORT_8000_TCP_PORT": "8000",
    "UNMASK_PORT_8000_TCP_ADDR": "10.0.0.1",
    "UNMASK_API_SERVICE_HOST": "fd00::1",
    "UNMASK_API_SERVICE_PORT": "8000",
    "UNMASK_API_PORT": "tcp://[fd00::1]:8000",
    "UNMASK_REDIS_PORT_6379_TCP_ADDR": "10.0.0.2",
    "UNMASK_METRICS_PORT": "udp://10.0.0.3:9464",
}


def test_variables_of_kubernetes_services_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert (settings.port, settings.metrics_port) == (8000, None)
    assert kubernetes_variables() == sorted(KUBERNETES)
    assert read_settings(port="8123").port == 8123


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UNMASK_SERVICE_HOST", "example.org"),
        ("UNMASK_SERVICE_PORTS", "8000"),
        ("UNMASK_SERVICE_PORT", "tcp"),
        ("UNMASK_HOST_SERVICE", "10.0.0.1"),
        ("UNMASK_PORT", "http://10.0.0.1:8000"),
        ("UNMASK_PORT", "tcp://10.0.0.1"),
        ("UNMASK_PORT_8000_TCP", "8000"),
        ("UNMASK_PROT", "8000"),
    ],
)
def test_what_only_resembles_them_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        read_settings()


def test_a_command_reads_only_the_settings_that_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_PORT", "many")
    monkeypatch.setenv("UNMASK_THREADS", "3")
    assert read_settings(model=None, threads=None).threads == 3
    with pytest.raises(SettingsError, match=r"UNMASK_PORT: .*'many'"):
        read_settings()
    monkeypatch.setenv("UNMASK_PROT", "8000")
    with pytest.raises(SettingsError, match="UNMASK_PROT is not a setting; did you mean UNMASK_PORT"):
        read_settings(model=None)


def test_a_clients_key_is_not_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_API_KEY", "unmask-key-x")
    assert read_settings().api_keys is None


def test_an_empty_variable_is_none_and_names_have_no_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_PORT", "")
    monkeypatch.setenv("unmask_host", "::1")
    monkeypatch.setenv("UNMASK_LOG_PROMPTS", "true")
    settings = read_settings()
    assert (settings.port, settings.host, settings.log_prompts) == (8000, "::1", True)
