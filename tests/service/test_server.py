"""The command line and real server processes on real sockets."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from models.bundle import Bundle
from service.cli import cli
from service.settings import Settings, describe
from tests.service.conftest import png, texture

ROOT = Path(__file__).parents[2]


def command(*arguments: str, module: str = "service.cli") -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INLIER_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def server(
    bundle: Bundle, data: Path, *flags: str, module: str = "service.cli"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    arguments = ["serve", "--bundle", str(bundle.path), "--data", str(data), "--port", "0", "--threads", "1"]
    arguments += ["--auth", "off"]  # test_access asks for keys
    process = subprocess.Popen(
        command(*arguments, *flags, module=module),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=data.parent,
    )
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"ready at (http://\S+)", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield process, found.group(1)
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def post(url: str, seed: int, **headers: str) -> httpx.Response:
    data = png(texture(seed))
    return httpx.post(
        f"{url}/v1/inspections", content=data, headers={"Content-Type": "image/png", **headers}, timeout=30
    )


@pytest.mark.promise(13)
@pytest.mark.timeout(120)
def test_an_open_overview_does_not_hold_up_the_end(bundle: Bundle, tmp_path: Path) -> None:
    # The grace period is far longer than the test may take: only a stream that ends by itself passes.
    with server(bundle, tmp_path / "data", "--shutdown-grace-s", "250") as (process, url):
        with httpx.stream("GET", f"{url}/overview/events", timeout=60) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: lines"
            process.send_signal(signal.SIGTERM)
            list(lines)  # ends
        assert process.wait(50) == 0


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(17)
def test_kill_loses_nothing_and_the_next_start_finishes(bundle: Bundle, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with server(bundle, data, "--batch-delay-ms", "5000", "--batch-size", "64") as (process, url):
        ids = [post(url, seed).json()["id"] for seed in range(5)]
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    with server(bundle, data) as (process, url):
        for identifier in ids:
            for _ in range(3000):
                body = httpx.get(f"{url}/v1/inspections/{identifier}").json()
                if body["status"] == "done":
                    break
                time.sleep(0.02)
            assert body["status"] == "done"
        # The wire, as the test client cannot show it: a chunked upload beyond the limit, and its answer.
        host, port = url.removeprefix("http://").split(":")
        assert b"413 " in chunked_flood(host, int(port))
        assert httpx.get(f"{url}/healthz/ready").status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def chunked_flood(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/inspections HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        for _ in range(40):
            connection.sendall(chunk)
        connection.sendall(b"0\r\n\r\n")
        return connection.recv(65536)


def failing(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment(**variables),
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("inlier-service: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.timeout(120)
def test_startup_problems_are_one_line_and_exit_2(bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    data = str(tmp_path / "data")
    broken = tmp_path / "broken"
    shutil.copytree(bundle.path, broken)
    with (broken / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert "sha256" in failing("serve", "--bundle", str(broken), "--data", data, "--port", "0")
    assert "--bundle" in failing("serve", "--data", data, "--port", "0")
    bad = failing("serve", INLIER_BUNDLE=str(bundle.path), INLIER_DATA=data, INLIER_BATCH_SIZE="0")
    assert "INLIER_BATCH_SIZE" in bad
    file = tmp_path / "file"
    file.write_text("")
    assert "--data" in failing("serve", "--bundle", str(bundle.path), "--data", str(file), "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "--port" in failing("serve", "--bundle", str(bundle.path), "--data", data, "--port", port)


def test_profile_must_be_in_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    line = failing(
        "serve", "--bundle", str(bundle.path), "--data", str(tmp_path / "d"), "--port", "0", "--profile", "no"
    )
    assert "fast" in line


def test_serving_onnx_imports_neither_torch_nor_the_trainer(bundle: Bundle, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from starlette.testclient import TestClient
import service
from service.settings import Settings
assert "cv2" not in sys.modules
from service.app import create_app
settings = Settings(bundle=Path({str(bundle.path)!r}), data=Path({str(tmp_path)!r}), auth="off")
with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
    image = Path({str(tmp_path / "x.png")!r}).read_bytes()
    headers = {{"Content-Type": "image/png", "Prefer": "wait=20"}}
    answer = client.post("/v1/inspections", content=image, headers=headers)
    assert answer.json()["status"] == "done", answer.text
found = [name for name in sys.modules if name.split(".")[0] in ("torch", "trainer")]
assert not found, found
"""
    (tmp_path / "x.png").write_bytes(png(texture(1)))
    subprocess.run([sys.executable, "-c", program], check=True, env=environment(), timeout=60)


def test_opencv_limit_is_set_before_its_import() -> None:
    program = "import service, os; print(os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])"
    for variables, expected in (({}, "64000000"), ({"INLIER_MAX_PIXELS": "1234"}, "1234")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=environment(**variables),
            check=True,
        )
        assert done.stdout.strip() == expected


def test_every_setting_is_a_documented_flag_and_variable() -> None:
    shown = CliRunner().invoke(cli, ["serve", "--help"]).output
    for setting in describe():
        assert setting["description"]
        assert f"{setting['flag']} " in shown
        assert setting["variable"] in shown
    assert len(describe()) == len(Settings.model_fields)


def test_db_upgrade(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["db", "upgrade", "--data", str(tmp_path / "new")])
    assert (result.exit_code, result.output) == (0, "the database is up to date\n")
    assert (tmp_path / "new" / "inlier.sqlite3").exists()
    bad = CliRunner().invoke(cli, ["db", "upgrade", "--database-url", "nonsense"])
    assert bad.exit_code == 2
