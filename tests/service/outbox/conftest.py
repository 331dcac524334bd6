"""Sinks and messages in a database, a private MQTT broker, and certificates."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.processes import free_port
from service.db.repository import outbox
from service.db.session import Database
from service.db.tables import SinkRow
from service.ids import id_time, new_id
from service.outbox.message import EVENTS, new_secret
from service.settings import Settings

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data=tmp_path / "data",
        log_level="warning",
        decode_processes=0,
        shutdown_grace_s=5,
        sink_allow="127.0.0.1,localhost",
        sink_retry_s=0.05,
        sink_timeout_s=2,
        sink_attempts=3,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    settings.data.mkdir()
    made = Database(settings.url)
    made.migrate()
    yield made
    made.close()


def add_sink(database: Database, url: str, **values: object) -> SinkRow:
    identifier = new_id()
    row = SinkRow(
        **{
            "id": identifier,
            "kind": "webhook",
            "name": identifier,
            "address": url,
            "secret": new_secret(),
            "events": list(EVENTS),
            "created_by": "test",
            "created_at": id_time(identifier),
            **values,
        }
    )
    with database.write() as session:
        session.add(row)
    return row


def announce(database: Database, count: int = 1, event: str = "inspection.finished") -> None:
    for number in range(count):
        with database.write() as session:
            outbox.announce(session, event, "bolt", {"number": number, "station": "cam/1"})


def statuses(database: Database, sink: SinkRow) -> list[str]:
    """Of all messages to the sink, in the order of creation."""
    with database.read() as session:
        rows = outbox.deliveries(session, sink.id, status=None, limit=1000, before=None)
    return [row.status for row in reversed(rows)]


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function to its end."""

    async def main() -> None:
        await work()

    asyncio.run(main())


def missing(what: str) -> None:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("CI") or os.environ.get("REQUIRE_SERVERS"):
        pytest.fail(what)
    pytest.skip(what)


class Broker:
    """A mosquitto of our own that can be stopped and started again."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port()
        self._config = folder / f"mosquitto-{self.port}.conf"
        # Root would become the user mosquitto, who cannot read a test's files.
        user = ["user root"] if os.geteuid() == 0 else []
        text = [f"listener {self.port} 127.0.0.1", "persistence false", "log_dest stderr", *user, *lines]
        self._config.write_text("\n".join(text) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        with self._config.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(self._config.with_suffix(".log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if MOSQUITTO is None:
        missing("mosquitto is not installed (Debian: apt-get install mosquitto)")
    made = Broker(tmp_path, "allow_anonymous true")
    made.start()
    yield made
    made.stop()


@dataclass(frozen=True)
class Certificates:
    """An authority, and a certificate of it for one name."""

    authority: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def certificates(folder: Path, name: str) -> Certificates:
    """Made by openssl; the certificate is for the name alone, not for an address."""
    if shutil.which("openssl") is None:
        missing("openssl is not installed (Debian: apt-get install openssl)")
    folder.mkdir(exist_ok=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={name}")
    (folder / "ext").write_text(f"subjectAltName=DNS:{name}\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signed)
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
