"""Our commands as a user has them, and a service that runs while it is needed."""

import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from kept import ROOT
from told import DemoError, tail

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0


def tool(name: str, *arguments: object, publish: Path | None = None) -> None:
    """Run one of our commands with its output on this terminal; with `publish`, that folder appears whole."""
    partial = publish.with_name(publish.name + ".partial") if publish else None
    if partial:
        shutil.rmtree(partial, ignore_errors=True)
    command = [str(BIN / name), *(str(partial if a == publish and partial else a) for a in arguments)]
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        raise DemoError(f"`{' '.join(command)}` ended with status {status}")
    if partial and publish:
        partial.rename(publish)


def tell(*arguments: object, stdin: str = "") -> str:
    """The last line that a command of the service prints."""
    command = [str(BIN / "inlier-service"), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise DemoError(f"`{' '.join(command)}` ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.splitlines()[-1]


@contextmanager
def service(bundle: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """A ready service on an empty database -> its address, a camera's key, and demo's password."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    key = tell("keys", "create", "demo-camera", "--scope", "camera", "--data", folder / "data")
    password = secrets.token_urlsafe(12)
    tell("users", "add", "demo", "--role", "admin", "--data", folder / "data", stdin=password)
    port, log = free_port(8000), folder / "service.log"
    command = [BIN / "inlier-service", "serve", "--bundle", bundle, "--data", folder / "data", "--port", port]
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this script alone, which then stops the service in order.
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(process, url, log)
            yield url, key, password
        finally:
            process.terminate()
            try:
                status = process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
    if status:
        raise DemoError(f"the service ended with status {status}{tail(log)}")


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"the service did not start (status {process.returncode}){tail(log)}")
        try:
            if httpx.get(f"{url}/healthz/ready", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise DemoError(f"the service was not ready after {START_TIMEOUT_S:.0f} s{tail(log)}")


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no free TCP port")
