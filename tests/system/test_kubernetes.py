"""The Kubernetes manifests: rendered, held to Kubernetes' own schemas, and to the program that they start."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from unmask_service import cli
from unmask_service.settings import Settings, read_settings

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "docker" / "kubernetes"
# of operators, so Kubernetes has no schemas for them
CUSTOM = {"ScaledObject", "ServiceMonitor", "PodMonitor"}
COMPONENTS = ("../redis", "../gpu", "../keda", "../prometheus", "../../grafana")
Manifest = dict[str, Any]


def rendered(folder: Path) -> list[Manifest]:
    text = subprocess.run(["kubectl", "kustomize", folder], check=True, stdout=subprocess.PIPE, text=True).stdout
    return list(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def example() -> list[Manifest]:
    return rendered(KUBERNETES / "example")


@pytest.fixture(scope="module")
def base() -> list[Manifest]:
    return rendered(KUBERNETES / "base")


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """The specification of each pod and its container of Unmask."""
    for each in manifests:
        if each["kind"] == "Deployment":
            spec = each["spec"]["template"]["spec"]
            (container,) = spec["containers"]
            yield spec, container


def environment_of(container: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """What the container's environment holds; values of secrets are left out."""
    maps = {each["metadata"]["name"]: each["data"] for each in manifests if each["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= maps[source["configMapRef"]["name"]]
    return found | {each["name"]: each["value"] for each in container["env"] if "value" in each}


def of_kind(kind: str, manifests: list[Manifest]) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


def test_every_manifest_has_kubernetes_own_shape(example: list[Manifest], base: list[Manifest]) -> None:
    checked = [each for each in example + base if each["kind"] not in CUSTOM]
    for each in checked:
        kubernetes_validate.validate(each, "1.33", strict=True)
    assert {each["kind"] for each in example if each not in checked} == CUSTOM


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_goes_with_the_base_alone(component: str, tmp_path: Path) -> None:
    folder = KUBERNETES / "base"
    relative = [str(path.resolve()) for path in (folder, folder / component)]
    links = [tmp_path / name for name in ("base", "component")]
    for link, target in zip(links, relative, strict=True):
        subprocess.run(["cp", "--recursive", target, link], check=True)
    kustomization = {"kind": "Kustomization", "resources": ["base"], "components": ["component"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    assert len(rendered(tmp_path)) >= len(rendered(folder))


def test_environments_are_settings(
    example: list[Manifest], base: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for manifests in (example, base):
        for _, container in pods(manifests):
            environment = environment_of(container, manifests)
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            read = read_settings()
            (command,) = container["args"]
            assert command in {each.name or each.callback.__name__ for each in cli.app.registered_commands}  # type: ignore[union-attr]
            assert read.models_of(command) == ("tales",)
            # the port that is listened on and what probes and monitors ask for
            ports = {each["name"]: each["containerPort"] for each in container["ports"]}
            listening = {"metrics": read.metrics_port} | ({"http": read.port} if command == "api" else {})
            assert ports == listening
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container[probe]["httpGet"]
                assert asked["path"] == ("/ready" if probe == "readinessProbe" else "/health")
                assert asked["port"] in ports
            for name in environment:
                monkeypatch.delenv(name)


def test_pods_have_time_to_drain_and_no_rights(example: list[Manifest]) -> None:
    for spec, container in pods(example):
        drain = float(environment_of(container, example)["UNMASK_DRAIN_SECONDS"])
        assert drain == Settings.model_fields["drain_seconds"].default
        command = container.get("lifecycle", {"preStop": {"exec": {"command": ["sleep", "0"]}}})["preStop"]["exec"]
        assert spec["terminationGracePeriodSeconds"] >= drain + float(command["command"][1]) + 5
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_the_user_is_the_images(example: list[Manifest]) -> None:
    image = (ROOT / "docker" / "Dockerfile").read_text()
    for spec, _ in pods(example):
        user = spec["securityContext"]
        assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in image


def test_selectors_find_something(example: list[Manifest]) -> None:
    templates = [
        each["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for each in of_kind(kind, example)
    ]
    services = [each["metadata"].get("labels", {}) for each in of_kind("Service", example)]

    def selects(selector: dict[str, str], labels: list[dict[str, str]]) -> bool:
        return any(selector.items() <= each.items() for each in labels)

    for each in example:
        spec = each.get("spec", {})
        if each["kind"] == "Service":
            assert selects(spec["selector"], templates)
        elif each["kind"] == "NetworkPolicy":
            assert selects(spec["podSelector"]["matchLabels"], templates)
        elif each["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            assert selects(spec["selector"]["matchLabels"], templates)
        elif each["kind"] == "ServiceMonitor":
            assert selects(spec["selector"]["matchLabels"], services)
        elif each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            deployments = [found["metadata"]["name"] for found in of_kind("Deployment", example)]
            assert spec["scaleTargetRef"]["name"] in deployments


def test_who_scales_says_how_many(example: list[Manifest], base: list[Manifest]) -> None:
    """A Deployment that names its replicas would undo an autoscaler's decision whenever it is applied."""
    assert all("replicas" not in each["spec"] for each in of_kind("Deployment", example))
    workers = [each for each in of_kind("Deployment", base) if "worker" in each["metadata"]["name"]]
    assert [each["spec"]["replicas"] for each in workers] == [1]


def test_what_is_scaled_on_is_a_metric(example: list[Manifest]) -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    (scaled,) = of_kind("ScaledObject", example)
    (trigger,) = scaled["spec"]["triggers"]
    metric = trigger["metadata"]["query"].removeprefix("max(").removesuffix(")")
    assert f"`{metric}`" in documented


def test_all_boards_are_there(example: list[Manifest]) -> None:
    boards = {
        name
        for each in of_kind("ConfigMap", example)
        if each["metadata"].get("labels", {}).get("grafana_dashboard")
        for name in each["data"]
    }
    assert boards == {path.name for path in (ROOT / "docker" / "grafana" / "boards").glob("*.json")}


def test_the_gpu_worker_has_the_image_and_a_gpu(example: list[Manifest]) -> None:
    ((_, worker),) = [pair for pair in pods(example) if pair[1]["name"] == "worker"]
    assert worker["image"] == "unmask:cuda"
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert environment_of(worker, example)["UNMASK_DEVICE"] == "cuda"
