"""What docker/ says, carried out without a container engine: files, environment, entrypoint, health check."""

import os
import re
import subprocess
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.processes import free_port
from models.bundle import Bundle
from service.settings import Settings
from tests.deploy.dockerfile import PATH, ROOT, context, image, stages
from tests.service.conftest import make_key, png, texture

TARGETS = ("service", "service-gpu", "trainer-gpu")
COMPOSE = sorted((ROOT / "docker").glob("compose*.yml"))
BIN = Path(sys.executable).parent
_NO_TORCH = "raise ImportError('this image has no torch')\n"


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A program of the development environment; without it the test is skipped, but never in CI."""
    program = BIN / name
    if not program.exists():
        why = f"{name} is not installed; run make venv"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)


# --- the file ---


def test_hadolint_has_nothing_to_say() -> None:
    linted = tool("hadolint", PATH)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN apt-get install curl\n")
    assert tool("hadolint", tmp_path / "Dockerfile").returncode == 1


@pytest.mark.parametrize("target", TARGETS)
def test_images_are_small_trusting_and_labelled(target: str) -> None:
    made = image(target)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", made.base)
    assert made.last("USER") == "10001:10001"
    assert made.labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert made.labels["org.opencontainers.image.version"] == "0.1.0"
    assert made.environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert made.command("ENTRYPOINT")[0] in ("inlier-service", "inlier-trainer")
    assert set(made.environment) & {"PIP_INDEX_URL", "INLIER_DATABASE_URL"} == set()
    for stage, _, to in made.copies:
        assert stage is None or stage in stages(PATH.read_text())
        assert to.startswith("/opt/")
    known = {f"INLIER_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in made.environment if name.startswith("INLIER_")} <= known


def test_what_is_copied_is_sent(tmp_path: Path) -> None:
    sent = context(tmp_path)
    for stage in stages(PATH.read_text()).values():
        for word, rest in stage.steps:
            if word == "COPY" and not rest.startswith("--from="):
                for source in rest.split()[:-1]:
                    assert "*" in source or (sent / source).exists(), source  # hashes need not be there
    names = {path.relative_to(sent).as_posix() for path in sent.rglob("*") if path.is_file()}
    assert not [name for name in names if "__pycache__" in name or name.startswith((".git", "tests", "docs"))]
    assert len(names) > 200


@pytest.mark.parametrize("flags", [(), ("--gpu",), ("--extra", "trainer")])
def test_everything_installed_is_pinned(flags: tuple[str, ...]) -> None:
    command = [sys.executable, "docker/requirements.py", *flags]
    wanted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    names = {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for line in wanted if line}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert names <= pinned
    assert len(names & {"onnxruntime", "onnxruntime-gpu"}) == 1
    assert ("torch" in names) == ("trainer" in flags)


# --- what it starts ---


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/opt of the image `service`: our code as the build installs it, and what is copied beside it."""
    folder = tmp_path_factory.mktemp("image")
    sent = context(folder / "context")
    build = "from setuptools import setup; setup()"
    installed = [sys.executable, "-c", build, "-q", "build_py", "--build-lib", folder / "opt/code"]
    subprocess.run(installed, cwd=sent, check=True, capture_output=True, timeout=120)
    for stage, sources, to in image("service").copies:
        if stage is None:
            (source,) = sources
            (folder / to.lstrip("/")).write_bytes((sent / source).read_bytes())
    return folder / "opt"


def test_the_installed_code_is_whole(opt: Path) -> None:
    for package in ("models", "service", "trainer"):
        tracked = subprocess.run(
            ["git", "ls-files", package], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        assert [name for name in tracked if not (opt / "code" / name).exists()] == []


def test_the_entrypoint_serves_without_torch_and_is_healthy(
    opt: Path, tmp_path: Path, bundle_path: Path
) -> None:
    made, port, data = image("service"), free_port(), tmp_path / "data"
    shadow = tmp_path / "absent"
    shadow.mkdir()
    (shadow / "torch.py").write_text(_NO_TORCH)
    places = {"PYTHONPATH": f"{shadow}:{opt / 'code'}", "PATH": os.environ["PATH"]}
    places |= {"INLIER_DATA": str(data), "INLIER_PORT": str(port), "INLIER_BUNDLE": str(bundle_path)}
    environment = {**made.environment, **places}
    settings = Settings(data=data)
    key = make_key(settings, "camera")
    start = "import sys; from service.cli import cli; cli(sys.argv[1:], prog_name='inlier-service')"
    command = [sys.executable, "-c", start, *made.command("CMD")]
    files = {path for path in opt.rglob("*")}
    log = tmp_path / "log"
    check = made.last("HEALTHCHECK").partition("CMD ")[2]
    program, script, address = yaml.safe_load(check)
    assert (program, script) == ("python", "/opt/healthcheck.py")
    probe = [sys.executable, opt / "healthcheck.py", address.replace(":8000", f":{port}")]
    assert subprocess.run(probe, capture_output=True).returncode == 1  # nothing there yet
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while subprocess.run(probe, capture_output=True).returncode:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        headers = {**key, "Content-Type": "image/png", "Prefer": "wait=30"}
        url = f"http://127.0.0.1:{port}/v1/inspections"
        answer = httpx.post(url, content=png(texture()), headers=headers, timeout=60)
        assert answer.json()["verdict"] in ("PASS", "REVIEW", "REJECT"), answer.text
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    assert log.read_text().lstrip().startswith("{"), "JSON logs"
    assert {path for path in opt.rglob("*")} == files, "the root file system is read-only"


@pytest.fixture
def bundle_path(tiny_bundle: Bundle) -> Path:
    return tiny_bundle.path


# --- compose ---


def services(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    return found


def test_compose_files_are_valid() -> None:
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *COMPOSE)
    assert checked.returncode == 0, checked.stdout


def test_an_invalid_compose_file_is_noticed(tmp_path: Path) -> None:
    wrong = COMPOSE[0].read_text().replace("    restart:", "    restarts:", 1)
    (tmp_path / "compose.yml").write_text(wrong)
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yml")
    assert checked.returncode == 1


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_names_what_exists(path: Path) -> None:
    text, found = path.read_text(), services(path)
    volumes = set(yaml.safe_load(text).get("volumes", {}))
    known = {f"INLIER_{name.upper()}" for name in Settings.model_fields}
    for name, one in found.items():
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", one["image"]), f"{name}: a version, not what is newest"
        assert one["restart"] == "unless-stopped"
        if one["image"].startswith("inlier/"):
            assert one["build"]["target"] == one["image"].split("/")[1].split(":")[0]
            assert one["build"]["target"] in TARGETS
            assert one["read_only"]
            assert (one["cap_drop"], one["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
            grace_s = int(one["stop_grace_period"].removesuffix("s"))
            assert grace_s > Settings.model_fields["shutdown_grace_s"].default
            assert {key for key in one["environment"] if key.startswith("INLIER_")} <= known
            # Without it nobody could sign in: through a published port every client is another machine.
            assert ip_network(one["environment"]["INLIER_FORWARDED_ALLOW_IPS"]).is_private
        for port in one.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name}: reachable only through a reverse proxy"
        for volume in one.get("volumes", ()):
            if isinstance(volume, str):
                assert volume.split(":")[0] in volumes
            elif not volume["source"].startswith("$"):
                assert (path.parent / volume["source"]).is_dir(), volume["source"]
        for other, needed in one.get("depends_on", {}).items():
            healthy = "healthcheck" in found[other] or found[other]["image"].startswith("inlier/")
            assert needed["condition"] == "service_healthy"
            assert healthy, f"{name} waits for {other}, which does not say when it is healthy"


def test_prometheus_finds_the_processes_of_the_line() -> None:
    found = services(ROOT / "docker/compose.line.yml")
    targets = {
        kind: yaml.safe_load((ROOT / f"deploy/prometheus/targets/{kind}.yml").read_text())[0]["targets"]
        for kind in ("api", "workers")
    }
    assert targets["api"] == ["api:8000"]
    workers = [name for name, one in found.items() if one.get("command") == ["worker"]]
    assert targets["workers"] == [
        f"{name}:{Settings.model_fields['metrics_port'].default}" for name in workers
    ]
    assert "api" in found


def test_grafana_finds_its_dashboards() -> None:
    mounts = services(ROOT / "docker/compose.line.yml")["grafana"]["volumes"]
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/inlier.yml").read_text())
    path = provider["providers"][0]["options"]["path"]
    assert path in [mount["target"] for mount in mounts if not isinstance(mount, str)]


def test_the_example_has_every_variable_that_is_asked_for() -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker/compose.line.yml").read_text()))
    given = {line.split("=")[0] for line in (ROOT / "docker/line.env.example").read_text().splitlines()}
    assert wanted <= given
