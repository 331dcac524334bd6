"""Kubernetes' and systemd's files: valid by their own schemas and tools, true of what they start."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.test_docs import explain

ROOT = Path(__file__).parents[2]
KUBERNETES, SYSTEMD = ROOT / "deploy/kubernetes", ROOT / "deploy/systemd"
OVERLAYS = ("cpu", "gpu", "airgapped")
CUSTOM = {"ServiceMonitor", "ScaledObject"}  # of operators: their schemas are not Kubernetes' own
SETTINGS = {f"INLIER_{name.upper()}" for name in Settings.model_fields}
Object = dict[str, Any]


def base() -> list[Object]:
    names = yaml.safe_load((KUBERNETES / "base/kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((KUBERNETES / "base" / name).read_text())]


def rendered(overlay: str) -> list[Object]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, and overlays are put together by its kustomize")
    command = ["kubectl", "kustomize", KUBERNETES / "overlays" / overlay]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    assert "deprecated" not in made.stderr
    return list(yaml.safe_load_all(made.stdout))


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """(name, pod spec) of everything that runs."""
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] in ("Deployment", "Job"):
            yield name, one["spec"]["template"]["spec"]
        if one["kind"] == "CronJob":
            yield name, one["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def check(objects: list[Object]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for one in objects:
        if one["kind"] not in CUSTOM:
            validate.validate(one, validate.latest_version(), strict=True)


def test_the_base_is_valid() -> None:
    check(base())
    assert {one["kind"] for one in base()} >= CUSTOM | {"Deployment", "Job", "CronJob", "NetworkPolicy"}


def test_a_wrong_field_is_noticed() -> None:
    objects = base()
    (pod,) = [pod for name, pod in pods(objects) if name == "Deployment inlier-api"]
    pod["containers"][0]["readOnly"] = True
    with pytest.raises(Exception, match="readOnly"):
        check(objects)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_valid_and_guarded(overlay: str) -> None:
    objects = rendered(overlay)
    check(objects)
    claims = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    for one in objects:
        assert one["metadata"]["namespace"] == "inlier", one["metadata"]["name"]
        assert one["kind"] != "Secret", "secrets are referred to, never written here"
    for name, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False), name
        for container in pod["containers"]:
            guard = container["securityContext"]
            assert guard["readOnlyRootFilesystem"], name
            assert guard["capabilities"] == {"drop": ["ALL"]}, name
            assert not guard["allowPrivilegeEscalation"], name
            assert re.search(r":v?\d[\w.-]*$", container["image"]), name
            assert "memory" in container["resources"]["limits"], name
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims, name


def test_the_gpu_is_asked_for_by_what_uses_it_alone() -> None:
    for name, pod in pods(rendered("gpu")):
        (container,) = pod["containers"]
        wanted = name in (
            "Deployment inlier-worker",
            "CronJob inlier-retrain-default",
            "Job inlier-train",
        )
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == wanted, name
        assert ("-gpu:" in container["image"]) == wanted, name
        assert ("nodeSelector" in pod) == wanted, name


def test_nothing_comes_from_the_internet_where_there_is_none() -> None:
    objects = rendered("airgapped")
    for name, pod in pods(objects):
        for container in pod["containers"]:
            assert container["image"].startswith("registry.plant.example/"), name
    (settings,) = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    assert settings["INLIER_BLOBS"] == "/data/blobs"
    assert "INLIER_S3_ENDPOINT" not in settings


def test_objects_refer_to_one_another() -> None:
    objects = base()
    labels, ports = {}, {}
    for one in objects:
        if one["kind"] == "Deployment":
            template = one["spec"]["template"]
            labels[one["metadata"]["name"]] = template["metadata"]["labels"]
            named = [port for container in template["spec"]["containers"] for port in container["ports"]]
            ports[one["metadata"]["name"]] = {port["name"] for port in named}
    for one in objects:
        spec, name = one.get("spec", {}), one["metadata"]["name"]
        if one["kind"] in ("Service", "PodDisruptionBudget", "ServiceMonitor"):
            selector = spec["selector"].get("matchLabels", spec["selector"])
            assert selector.items() <= labels[name].items(), (one["kind"], name)
        if one["kind"] == "Service":
            assert {port["targetPort"] for port in spec["ports"]} <= ports[name]
        if one["kind"] == "ServiceMonitor":
            assert {endpoint["port"] for endpoint in spec["endpoints"]} <= ports[name]
        if one["kind"] == "NetworkPolicy" and "ingress" in spec:
            allowed = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            assert allowed <= ports[name]
        if one["kind"] == "ScaledObject":
            assert spec["scaleTargetRef"]["name"] in labels
            assert "inlier_queue_oldest_seconds" in spec["triggers"][0]["metadata"]["query"]


def test_settings_and_commands_exist() -> None:
    (settings,) = [one["data"] for one in base() if one["kind"] == "ConfigMap"]
    assert set(settings) <= SETTINGS
    Settings(**{name.removeprefix("INLIER_").lower(): value for name, value in settings.items()})
    retrain = yaml.safe_load_all((KUBERNETES / "overlays/gpu/retrain.yaml").read_text())
    for name, pod in pods([*base(), *retrain]):
        for container in pod["containers"]:
            if container["image"].startswith("inlier/"):
                assert explain(["inlier-service", *container["args"]]) is None, name


def test_the_first_training_waits_and_has_a_gpu_for_each_process() -> None:
    job = yaml.safe_load((KUBERNETES / "overlays/gpu/train.yaml").read_text())
    assert job["spec"]["suspend"]
    ((_, pod),) = pods([job])
    (container,) = pod["containers"]
    assert f"--nproc-per-node={container['resources']['limits']['nvidia.com/gpu']}" in container["command"]
    assert explain(["inlier-trainer", *container["args"]]) is None


# --- systemd ---

UNITS = sorted(SYSTEMD.glob("*.service"))


def lines(path: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", path.read_text(), re.M)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_start_commands_and_settings_that_exist(path: Path) -> None:
    for line in lines(path, "ExecStart"):
        program, *rest = line.split()
        assert explain([Path(program).name, *rest]) is None
    given = {pair.split("=")[0] for line in lines(path, "Environment") for pair in line.split()}
    example = re.findall(r"^(?:# )?(INLIER_\w+)=", (SYSTEMD / "inlier.env.example").read_text(), re.M)
    assert given | set(example) <= SETTINGS
    assert lines(path, "User") == ["inlier"]
    for stop_s in lines(path, "TimeoutStopSec"):
        assert int(stop_s) > Settings.model_fields["shutdown_grace_s"].default


def test_timers_have_their_services() -> None:
    for timer in SYSTEMD.glob("*.timer"):
        assert timer.with_suffix(".service").exists()


def test_systemd_accepts_the_units_and_finds_them_confined() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    units = [*UNITS, *SYSTEMD.glob("*.timer")]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60
    )
    said = [line for line in checked.stderr.splitlines() if "is not executable" not in line]
    assert said == []
    for path in UNITS:
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", path]
        confined = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert confined.returncode == 0, confined.stdout[-200:]
