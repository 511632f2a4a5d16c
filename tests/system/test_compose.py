"""docker-compose.yml: valid by the specification and by docker-compose; services have no rights beyond their needs."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from unmask_service.settings import Settings, variable_of

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[2]
COMPOSE = REPOSITORY / "docker-compose.yml"
SCHEMA = Path(__file__).parent / "compose_specification" / "compose-spec.json"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
NAMES = sorted(SERVICES)


def validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_it_follows_the_compose_specification() -> None:
    wrong = [f"{error.instance_path}: {error.message}" for error in validator().iter_errors(composed())]
    assert not wrong


def test_the_schema_notices_what_is_no_option() -> None:
    composition = composed()
    composition["services"]["api"]["helthcheck"] = {}
    assert not validator().is_valid(composition)


def composed() -> Any:  # noqa: ANN401 — JSON
    return yaml.safe_load(COMPOSE.read_text())


@pytest.mark.parametrize("variables", [{}, {"WORKERS": "3", "API_ADDRESS": "0.0.0.0:80", "MODEL": "mine"}])
def test_docker_compose_reads_it(variables: dict[str, str]) -> None:
    assert shutil.which("docker-compose"), "this test needs Debian's docker-compose: make test-system installs it"
    command = ["docker-compose", "--file", str(COMPOSE), "config", "--quiet"]
    ended = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin"} | variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_service_has_no_rights_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "network_mode"} & set(service)
    assert service["pids_limit"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    # our own image says so itself
    assert "build" in service or not service["user"].startswith("0:")
    writable = [volume for volume in service.get("volumes", []) if not volume.endswith(":ro")]
    assert all(volume.partition(":")[0] in {"redis", "prometheus", "grafana"} for volume in writable)


@pytest.mark.parametrize("name", NAMES)
def test_a_service_has_a_health_check_and_a_pinned_image(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert "build" in service or re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)?", service["image"])


def test_what_is_published_is_for_this_machine_alone_unless_it_is_asked_for() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"\$\{[A-Z]+_ADDRESS:-127\.0\.0\.1:\d+\}:\d+", port) for port in published)
    assert "ports" not in SERVICES["redis"]
    assert SERVICES["redis"]["networks"] == ["internal"]


def test_the_documentation_has_every_variable() -> None:
    documented = (REPOSITORY / "docs" / "deployment.md").read_text()
    variables = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    assert variables
    assert not {variable for variable in variables if f"`{variable}`" not in documented}


def test_no_password_stands_in_it() -> None:
    assert not [line for line in COMPOSE.read_text().splitlines() if re.search(r"(?i)passw.*[:=] *\S", line)]


def test_redis_keeps_what_it_acknowledged() -> None:
    words = SERVICES["redis"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"


def test_the_image_is_given_settings_that_there_are() -> None:
    known = {variable_of(name) for name in Settings.model_fields}
    for name in ("api", "worker", "worker-gpu"):
        given = {variable for variable in SERVICES[name]["environment"] if variable.startswith("UNMASK_")}
        assert given <= known, name
    image = (REPOSITORY / "docker" / "Dockerfile").read_text()
    assert set(re.findall(r"\bUNMASK_[A-Z_]+", image)) <= known


def test_a_build_without_registries_installs_what_make_wheels_collects() -> None:
    """Both places: what the project needs, and the project."""
    image = (REPOSITORY / "docker" / "Dockerfile").read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "WHEELS ?= wheels" in makefile
    assert "COPY pyproject.toml constraints.txt wheel[s] ./wheels/" in image
    assert image.count("unmask-*.whl") == 3
    assert 'index="--no-index --find-links ."' in image
    # traces are an option of the image, so their packages are in both
    assert '["optional-dependencies"]["otel"]' in image
    assert "'.[otel]'" in makefile


def test_prometheus_finds_every_process_of_ours() -> None:
    configuration = yaml.safe_load((REPOSITORY / "docker" / "prometheus" / "prometheus.yml").read_text())
    (discovery,) = configuration["scrape_configs"][0]["dns_sd_configs"]
    ours = {name for name, service in SERVICES.items() if "build" in service}
    names = {name: {name, *aliases(SERVICES[name])} for name in ours}
    assert all(names[name] & set(discovery["names"]) for name in ours)
    assert {SERVICES[name]["environment"]["UNMASK_METRICS_PORT"] for name in ours} == {str(discovery["port"])}


def aliases(service: dict[str, Any]) -> list[str]:
    networks = service["networks"]
    return networks["internal"]["aliases"] if isinstance(networks, dict) else []


def test_what_the_build_sees_is_what_the_image_installs() -> None:
    """.dockerignore keeps all else out, so no secret and no virtual environment gets into a layer."""
    first, *admitted = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert first == "*"
    packages = ["bench", "diffusion", "kernels", "model_store", "service"]
    files = ["pyproject.toml", "constraints.txt", "docs/package.md", "LICENSE", "wheels"]
    assert {line[1:] for line in admitted if line.startswith("!")} == {*packages, *files}
