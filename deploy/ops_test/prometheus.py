"""Debian's Prometheus on a folder of its own, asked over its API."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from deploy.processes import free_port


class Prometheus:
    """A server that answers at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query; AssertionError with Prometheus' words if it cannot be parsed."""
        answer = httpx.get(f"{self.address}/api/v1/query", params={"query": expression}, timeout=30).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        data: dict[str, Any] = answer["data"]
        result = data["result"]
        return result if data["resultType"] != "scalar" else [{"metric": {}, "value": result}]

    def until(self, expression: str, patience_s: float = 60.0) -> list[dict[str, Any]]:
        """The result once there is one."""
        deadline = time.monotonic() + patience_s
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"no data for {expression}"
            time.sleep(0.25)
        return found


@contextmanager
def running(config: Path, folder: Path) -> Iterator[Prometheus]:
    """A server on loopback that keeps its data in `folder`."""
    port, log = free_port(), folder / "prometheus.log"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if httpx.get(f"{address}/-/ready", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait(60)
