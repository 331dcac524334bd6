"""`make bench-service`: what the service adds to the engine, with a real server process on loopback.

Images of 1 MB arrive at a fixed rate whatever became of those before (open loop), each of other bytes and
waited for. Overhead is what the client waited, from the moment it began to send, less the time of the engine
that the answer states. The client runs on the same machine: how late it began after an image was due is
reported beside it. Processor time is that of the service's processes, engine included: what a request costs
also where the machine is too busy to answer in time.
"""

import argparse
import asyncio
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from deploy.bench.bundle import FOLDER, small_bundle
from deploy.bench.db.__main__ import machine
from deploy.processes import new_key, started

RECIPE = Path(__file__).with_name("batching.toml")
BYTES = 1_000_000
FORMATS = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Window:
    """One window of requests of one format; times in milliseconds, one of each request that was answered."""

    suffix: str
    bytes: int
    overhead_ms: list[float]
    total_ms: list[float]
    engine_ms: list[float]
    processor_ms: float  # a request, of the service's processes
    stages_ms: dict[str, float]  # medians, as the answers state them
    failed: int
    load: float
    late_ms: list[float]  # how much later than due the client began, of each request


def picture(suffix: str, target: int = BYTES) -> bytes:
    """An image of a part with grain, of about so many bytes."""
    side = 800
    while True:
        rng = np.random.default_rng(side)
        y, x = np.mgrid[:side, :side]
        part = 110 + 40 * np.sin(x / 90) + 30 * np.cos(y / 130)
        grain = rng.normal(0, 6, (side, side))
        data = cv2.imencode(suffix, np.clip(part + grain, 0, 255).astype(np.uint8))[1].tobytes()
        if len(data) >= target:
            return data
        side += 50


def distinct(data: bytes, number: int) -> bytes:
    """The same picture as bytes nobody has seen: what follows the end of an image is not read."""
    return data + number.to_bytes(8, "big")


@contextmanager
def serving(bundle: Path) -> Iterator[tuple[str, dict[str, str], int]]:
    """A service of its own on a free port -> its address, a camera's key as a header, its process."""
    data = Path(tempfile.mkdtemp(prefix="inlier-bench-"))
    words = ("serve", "--bundle", bundle, "--data", data, "--port", 0)
    key = new_key("bench", "camera", "--data", data)
    with started(data / "log", *words) as process:
        yield process.address, key, process.pid


def processor_s(pid: int) -> float:
    """What a process and those it started have used."""
    family, ticks = {pid}, 0
    for entry in sorted((path for path in Path("/proc").iterdir() if path.name.isdigit()), key=_number):
        with suppress(OSError):  # it has just ended
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(entry.name) in family or int(fields[1]) in family:
                family.add(int(entry.name))
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _number(path: Path) -> int:
    return int(path.name)


class Camera:
    """Posts images over connections that it keeps, and takes as little of the processors as that needs."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        url = urlsplit(address)
        self._host, self._port = url.hostname or "", url.port or 80
        given = {"Host": url.netloc, "Prefer": "wait=30", **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, media_type: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of the answer; OSError or EOFError when there is none."""
        reader, writer = await self._connection()
        first = f"POST {path} HTTP/1.1\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{first}{self._head}\r\n".encode())
        writer.write(body)
        said = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"\ncontent-length: (\d+)", said)
        answer = await reader.readexactly(int(length[1]) if length else 0)
        self._free.append((reader, writer))
        return int(said.split()[1]), json.loads(answer)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A kept one, if the server has not closed it for standing idle; else a new one."""
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def window(camera: Camera, pid: int, suffix: str, data: bytes, rate: float, seconds: float) -> Window:
    """So many seconds of requests, one every `1 / rate`."""
    answers: list[tuple[float, dict[str, float]]] = []
    late: list[float] = []
    failed = 0
    before, began = processor_s(pid), time.perf_counter()

    async def ask(number: int) -> None:
        nonlocal failed
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = distinct(data, time.time_ns())
        sent = time.perf_counter()
        late.append(1000 * (sent - due))
        try:
            status, said = await camera.post("/v1/inspections?profile=fast", FORMATS[suffix], body)
        except (OSError, EOFError):
            failed += 1
            return
        took = 1000 * (time.perf_counter() - sent)
        if status == 200 and said["status"] == "done":
            answers.append((took, said["latency_ms"]))
        else:
            failed += 1

    await asyncio.gather(*(ask(number) for number in range(round(rate * seconds))))
    each_ms = 1000 * (processor_s(pid) - before) / round(rate * seconds)
    names = dict.fromkeys(name for _, said in answers for name in said)
    stages = {  # an answer may come before all is measured
        name: float(np.median([said[name] for _, said in answers if name in said])) for name in names
    }
    total, engine = [took for took, _ in answers], [said["inference"] for _, said in answers]
    overhead = [a - b for a, b in zip(total, engine, strict=True)]
    load = os.getloadavg()[0]
    return Window(suffix, len(data), overhead, total, engine, each_ms, stages, failed, load, late)


async def measure(asked: argparse.Namespace) -> list[Window]:
    found = []
    with serving(small_bundle(RECIPE, "batching", side_px=32)) as (address, key, pid):
        pictures = {suffix: picture(suffix) for suffix in FORMATS}
        with closing(Camera(address, key)) as camera:
            for suffix, data in pictures.items():
                await window(camera, pid, suffix, data, asked.rate, 3)  # connections, caches
            for _ in range(asked.windows):
                for suffix, data in pictures.items():
                    found.append(await window(camera, pid, suffix, data, asked.rate, asked.seconds))
    return found


def table(windows: list[Window]) -> str:
    lines = [
        "| format | MB | window | answered | failed | engine | p50 | p95 | p99 | most | late p99 "
        "| processor | load |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(windows):
        p50, p95, p99, most = np.quantile(one.overhead_ms, (0.5, 0.95, 0.99, 1))
        lines.append(
            f"| {one.suffix[1:].upper()} | {one.bytes / 1e6:.2f} | {number // len(FORMATS) + 1} "
            f"| {len(one.total_ms)} | {one.failed} | {np.median(one.engine_ms):.1f} "
            f"| {p50:.1f} | {p95:.1f} | {p99:.1f} | {most:.1f} | {np.quantile(one.late_ms, 0.99):.1f} "
            f"| {one.processor_ms:.1f} | {one.load:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench-service", description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20, help="of each window")
    parser.add_argument("--windows", type=int, default=3, help="of each format")
    parser.add_argument("--json", type=Path, default=FOLDER / "service.json", help="where all figures go")
    asked = parser.parse_args()
    windows = asyncio.run(measure(asked))
    print(f"{asked.rate:g} requests a second; overhead, engine and processor time in ms\n\n{table(windows)}")
    for one in windows[-len(FORMATS) :]:
        print(one.suffix, ", ".join(f"{name} {spent:.1f}" for name, spent in one.stages_ms.items()))
    asked.json.write_text(
        json.dumps({"machine": machine(), "windows": [asdict(one) for one in windows]}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
