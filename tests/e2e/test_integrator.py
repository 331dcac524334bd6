"""The guide for integrators is true: every block of it runs, in order, against a real service."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.processes import BIN, free_port
from models.bundle import Bundle
from service.app import create_app
from service.client_base import RETRIED
from service.settings import Settings
from tests.conftest import part
from tests.e2e.page import Block, blocks, run
from tests.service.conftest import png
from tests.service.outbox.conftest import Broker, broker

__all__ = ["broker"]  # a fixture
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/integrator.md").read_text()
TIMEOUT_S = 240


def folder_of_a_reader(folder: Path, bundle: Path) -> Path:
    """A clone with a bundle and two pictures, as far as the page needs them."""
    (folder / "runs/first").mkdir(parents=True)
    (folder / "runs/first/bundle").symlink_to(bundle)
    (folder / "deploy").symlink_to(ROOT / "deploy")
    (folder / "part.png").write_bytes(png(part(1)))
    (folder / "other.png").write_bytes(png(part(2)))
    return folder


def test_every_block_of_the_page_runs(tmp_path: Path, tiny_bundle: Bundle, broker: Broker) -> None:
    ports = {f"{port}": str(free_port()) for port in (8000, 9000, 9100)} | {"1883": str(broker.port)}
    found = blocks(PAGE, ports)
    printed = run(
        found, folder_of_a_reader(tmp_path, tiny_bundle.path), f"{BIN}:{os.environ['PATH']}", TIMEOUT_S
    )
    check_answers(found, printed)
    assert "inspection.finished A-21" in (tmp_path / "events.txt").read_text()
    assert "A-19" not in (tmp_path / "events.txt").read_text()
    assert not list((tmp_path / "camera").glob("*.png"))


def check_answers(found: list[Block], printed: list[str]) -> None:
    """What the blocks printed is what the page says of it."""
    said = {block.text: output for block, output in zip(found, printed, strict=True)}

    def after(words: str) -> str:
        """The output of the first block that says this and printed something."""
        return next(output for text, output in said.items() if words in text and output)

    assert json.loads(after("healthz/ready")) == {"status": "ok"}
    assert json.loads(after("/v1/recipes"))["latency_budget_ms"] == 20_000
    shown = next(json.loads(block.text) for block in found if block.language == "json")
    check_shape(shown, json.loads(after("Prefer: wait=10")))
    later = json.loads(after("cat verdict.json"))
    assert later["attributes"] == {"shot": 1, "torque_nm": 4.2}
    assert later["verdict"] in ("PASS", "REVIEW", "REJECT")
    assert [one["id"] for one in json.loads(after("attr.torque_nm=4.2"))["items"]] == [later["id"]]
    assert re.fullmatch(r"(PASS|REVIEW|REJECT) -?[\d.]+ http://\S+\n", after("python3 post.py"))
    assert json.loads(after('"kind": "mqtt"'))["kind"] == "mqtt"
    assert re.fullmatch(r"A-22 (1 PASS|2 REVIEW|4 REJECT) score \S+ \S+\n", after("INSPECT A-22"))


def check_shape(shown: object, real: object, where: str = "answer") -> None:
    """Whatever an example names is there, and of its kind."""
    assert isinstance(real, type(shown)), f"{where}: {real!r}"
    if isinstance(shown, dict) and isinstance(real, dict):
        for name, value in shown.items():
            check_shape(value, real[name], f"{where}.{name}")
    elif isinstance(shown, list) and isinstance(real, list) and real:
        check_shape(shown[0], real[0], f"{where}[0]")


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```bash\nfalse\n```\n", "ended with 1"),
        ("```bash\nfalse | true\n```\n", "ended with 1"),
        ("```bash terminal\nsleep 60\n```\n```bash\ninlier-service fly\n```\n", "No such command"),
    ],
)
def test_a_page_that_is_wrong_is_caught(tmp_path: Path, page: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        run(blocks(page, {}), tmp_path, f"{BIN}:{os.environ['PATH']}", 60)


def table_after(heading: str) -> Iterator[tuple[str, str, str]]:
    text = PAGE.partition(f"## {heading}")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (\d{3}(?:, \d{3})*) \| (.+?) \| (.+?) \|$", text, re.M):
        for status in row[0].split(", "):
            yield status, row[1], row[2]


def test_the_table_of_answers_is_what_the_api_declares() -> None:
    listed = {int(status): do for status, _, do in table_after("5. What the answers mean")}
    operation = create_app(Settings()).openapi()["paths"]["/v1/inspections"]["post"]
    assert set(listed) == {int(status) for status in operation["responses"]}
    again = {status for status, do in listed.items() if "send it again after `Retry-After`" in do}
    assert again == RETRIED - {502, 504}  # these two are a proxy's; the text names them
    for status in listed:
        if "do not repeat" in listed[status]:
            assert 400 <= status < 500
