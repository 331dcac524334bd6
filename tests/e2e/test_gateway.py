"""The example gateway as a process, between a PLC's sockets and a service whose verdicts are known."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.settings import Settings
from tests.e2e.fake_plc import Line, ModbusServer
from tests.service.conftest import PixelEngine, flat
from tests.service.live import free_port, live
from tests.service.receiver import HANG_UP, Receiver

GATEWAY = Path(__file__).parents[2] / "deploy/examples/plc_gateway.py"
PATIENT_S = 60  # a budget that no test comes near, on however slow a machine


@pytest.fixture
def engine() -> PixelEngine:
    return PixelEngine()


@pytest.fixture
def url(tmp_path: Path, engine: PixelEngine) -> Iterator[str]:
    settings = Settings(
        data=tmp_path / "data", log_level="warning", shutdown_grace_s=5, decode_processes=0, auth="off"
    )
    with live(settings, engine) as address:
        yield address


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """The file that the camera's picture is in."""
    return tmp_path / "picture.png"


@contextmanager
def gateway(url: str, camera: Path, *flags: object, budget_s: float = PATIENT_S) -> Iterator[Line]:
    """The gateway for this service and camera -> a PLC's connection to it."""
    command = [sys.executable, GATEWAY, "--camera", camera.as_uri(), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*map(str, command), "--budget-s", str(budget_s), *map(str, flags)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "INLIER_URL": url},
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("listening on "), said
        with closing(Line(said.removeprefix("listening on ").strip())) as line:
            yield line
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_every_verdict_has_an_output_of_its_own(url: str, camera: Path) -> None:
    with gateway(url, camera) as plc:
        for value, told in ((1, "1 PASS"), (5, "2 REVIEW"), (9, "4 REJECT")):
            camera.write_bytes(flat(value))
            assert plc.say(f"INSPECT A-{value}").startswith(f"A-{value} {told} score ")


def test_registers_are_cleared_and_then_hold_the_verdict_with_a_count(url: str, camera: Path) -> None:
    with ModbusServer() as plc, gateway(url, camera, "--modbus", plc.address, "--register", 40) as line:
        for serial, value in (("A-1", 1), ("A-2", 9)):
            camera.write_bytes(flat(value))
            line.say(f"INSPECT {serial}")
        plc.shutdown()
    assert {first for first, _ in plc.written} == {40}
    outputs, counts = zip(*(values for _, values in plc.written), strict=True)
    assert outputs == (0, 1, 0, 4)
    start = counts[0]
    assert [(count - start) % 65_536 for count in counts] == [0, 1, 1, 2]


def test_a_plc_that_refuses_its_registers_is_told_review(url: str, camera: Path) -> None:
    camera.write_bytes(flat(1))
    with ModbusServer(refuses=True) as plc, gateway(url, camera, "--modbus", plc.address) as line:
        assert line.say("INSPECT A-1").startswith("A-1 2 REVIEW the registers were not written")
        plc.shutdown()


def test_a_repeated_trigger_is_the_first_picture_and_another_shot_another(
    url: str, camera: Path, engine: PixelEngine
) -> None:
    camera.write_bytes(flat(1))
    engine.batches.clear()  # the warm-up
    with gateway(url, camera) as plc:
        first = plc.say("INSPECT A-1")
        camera.write_bytes(flat(9))
        assert plc.say("INSPECT A-1") == first
        assert plc.say("INSPECT A-1 2").startswith("A-1 4 REJECT")
    assert [value for _, values in engine.batches for value in values] == [1, 9]


def test_no_verdict_in_time_is_review_and_the_next_trigger_gets_it(
    url: str, camera: Path, engine: PixelEngine
) -> None:
    camera.write_bytes(flat(1))
    with gateway(url, camera, budget_s=1) as plc:
        engine.go.clear()
        started = time.monotonic()
        assert plc.say("INSPECT A-1") == "A-1 2 REVIEW no verdict within 1 s"
        assert time.monotonic() - started >= 1
        engine.go.set()
        while "PASS" not in (answer := plc.say("INSPECT A-1")):
            assert time.monotonic() - started < PATIENT_S, answer


def test_an_error_is_review(url: str, camera: Path) -> None:
    camera.write_bytes(flat(254))  # the engine answers nonsense
    with gateway(url, camera) as plc:
        assert plc.say("INSPECT A-1").startswith("A-1 2 REVIEW ERROR: ")


def test_no_picture_no_service_and_no_sense_are_review(url: str, camera: Path) -> None:
    with gateway(url, camera) as plc:
        assert plc.say("INSPECT A-1").startswith("A-1 2 REVIEW no picture from the camera")
        camera.write_bytes(b"no image")
        assert plc.say("INSPECT A-2").startswith("A-2 2 REVIEW the service answered 415")
        assert plc.say("PLEASE").startswith("- 2 REVIEW ")
    camera.write_bytes(flat(1))
    with gateway(f"http://127.0.0.1:{free_port()}", camera, budget_s=0.5) as plc:
        assert plc.say("INSPECT A-1").startswith("A-1 2 REVIEW ")


def test_a_service_that_says_later_is_asked_again_with_the_same_key(camera: Path) -> None:
    camera.write_bytes(flat(1))
    receiver = Receiver(status=422, answers=[503, HANG_UP, 429])
    receiver.start()
    try:
        with gateway(f"http://127.0.0.1:{receiver.port}", camera) as plc:
            assert plc.say("INSPECT A-1").startswith("A-1 2 REVIEW the service answered 422")
    finally:
        receiver.stop()
    assert [one.headers["idempotency-key"] for one in receiver.received] == ["A-1/1"] * 4
