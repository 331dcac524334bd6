"""Licences, SBOM, hashes and vulnerabilities of what is shipped."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import cyclonedx.schema
import jsonschema
import pytest
from referencing import Registry, Resource

from deploy.supply import audit, licenses, sbom
from deploy.supply.closure import closure, of_cuda, wanted

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(cyclonedx.schema.__file__).parent / "_res"


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-").replace(".", "-"): version for name, version in found}


@pytest.mark.skipif(sys.platform != "linux", reason="the page is of Linux; others need other packages")
def test_the_page_of_licences_is_as_installed() -> None:
    assert licenses.PAGE.read_text() == licenses.page(), "run: make licenses"


def test_a_licence_that_is_not_allowed_is_found() -> None:
    found = {
        "a": "MIT",
        "b": "GPL-3.0-only",
        "c": "Apache-2.0 OR GPL-2.0-only",
        "d": "MIT AND GPL-3.0-only",
        "certifi": "MPL-2.0",
        "psycopg": "GPL-3.0-only",
    }
    assert licenses.problems(found) == ["b: GPL-3.0-only", "d: MIT AND GPL-3.0-only", "psycopg: GPL-3.0-only"]


def test_what_torch_brings_for_cuda_is_told_apart() -> None:
    assert all(map(of_cuda, ("nvidia-cublas-cu12", "cuda-bindings", "triton")))
    assert not any(map(of_cuda, ("torch", "onnxruntime-gpu", "numpy")))


def test_everything_shipped_is_pinned_as_installed() -> None:
    found = closure([*wanted(None), *wanted("otel"), *wanted("trainer")])
    assert {"starlette", "torch", "opentelemetry-proto", "numpy"} <= set(found)
    assert "pytest" not in found
    for name, (package, _) in found.items():
        if of_cuda(name):
            continue  # which of them, torch says, whose version is pinned
        assert package.version.split("+")[0] == pins()[name.replace(".", "-")], name


def test_sboms_are_valid_and_whole(tmp_path: Path) -> None:
    resources = [
        (name, Resource.from_contents(json.loads((SCHEMAS / name).read_text())))
        for name in ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    ]
    schema = json.loads((SCHEMAS / "bom-1.6.SNAPSHOT.schema.json").read_text())
    base = schema["$id"].rsplit("/", 1)[0]
    registry = Registry().with_resources([(f"{base}/{name}", made) for name, made in resources])
    validator = jsonschema.Draft7Validator(schema, registry=registry)
    for path in sbom.write(tmp_path):
        validator.validate(json.loads(path.read_text()))
    made = json.loads((tmp_path / "sbom-service.json").read_text())
    parts = {part["name"]: part for part in made["components"]}
    assert set(parts) == set(closure(wanted(None)))
    assert "torch" not in parts
    assert parts["fastapi"]["purl"] == f"pkg:pypi/fastapi@{parts['fastapi']['version']}"
    needs = {each["ref"]: each.get("dependsOn", []) for each in made["dependencies"]}
    assert any(ref.startswith("starlette==") for ref in needs[parts["fastapi"]["bom-ref"]])
    assert parts["uvicorn"]["bom-ref"] in needs["inlier"]
    made["components"][0].pop("name")
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(made)


def test_an_audit_says_what_it_found_and_what_it_did_not_ask() -> None:
    fine = {"name": "a", "version": "1", "vulns": []}
    flawed = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    unknown = {"name": "c", "skip_reason": "not found"}
    assert audit.verdict([fine]) == (0, ["1 packages asked for, 0 known vulnerabilities"])
    assert audit.verdict([fine, flawed, unknown])[0] == 1
    assert audit.verdict([fine, unknown])[0] == 75
    status, said = audit.verdict("cannot connect")
    assert (status, "SKIPPED" in said[0]) == (75, True)
    assert any(line.startswith("fastapi==") for line in audit.pinned())


def test_hashes_pin_what_pip_resolved() -> None:
    spec = importlib.util.spec_from_file_location("hashes", ROOT / "docker/hashes.py")
    assert spec is not None
    assert spec.loader is not None
    hashes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hashes)

    def item(name: str, digest: str) -> dict[str, object]:
        archive = {"archive_info": {"hashes": {"sha256": digest}}}
        return {"metadata": {"name": name, "version": "1"}, "download_info": archive}

    made = hashes.lines([[item("B_b", "0" * 64)], [item("B_b", "1" * 64), item("a", "2" * 64)]])
    assert [line.split()[0] for line in made] == ["a==1", "b-b==1"]
    assert re.findall(r"sha256:(.)", made[1]) == ["0", "1"]


def test_pip_refuses_a_file_with_another_hash(tmp_path: Path) -> None:
    """What the line in the Dockerfile relies on."""
    package = tmp_path / "thing-1-py3-none-any.whl"
    package.write_bytes(b"not what was hashed")
    listed = tmp_path / "hashes.txt"
    listed.write_text(f"thing==1 --hash=sha256:{'0' * 64}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--no-index",
        "--find-links",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "--require-hashes", "-r", str(listed)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
