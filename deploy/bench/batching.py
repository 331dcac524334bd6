"""`make bench-batching`: continuous against static batching under open-loop Poisson load.

Real batchers and a real bundle's chain profile, once with the network on this CPU and once with a stand-in
for an accelerator: a network call that sleeps CALL_MS + ROW_MS for each image in it and computes nothing,
all the rest being real. Both batchers get the same arrival times. An image's latency counts from the moment
it was due to arrive, and is given in multiples of a lone request's.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.bundle import Bundle, load_bundle
from models.engine import BundleEngine, Engine, open_engine
from service.batching import Batching, Job, open_batching
from service.metrics import Metrics

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
KINDS: tuple[Literal["continuous", "static"], ...] = ("continuous", "static")
console = Console(highlight=False, soft_wrap=True, stderr=True)


@dataclass(frozen=True)
class Run:
    """One batcher under one load; times in seconds, ratios to the lone request."""

    device: str
    batching: str
    load: float
    rate: float  # images a second
    images: int
    p50: float
    p95: float
    p99: float
    lone_s: float
    mean_batch: float


@dataclass(frozen=True)
class Bench:
    """An engine, and how it is asked."""

    device: str
    engine: Engine
    profile: str
    slots: int

    def open(self, kind: Literal["continuous", "static"], metrics: Metrics) -> Batching:
        return open_batching(
            kind, self.engine, metrics, queue_size=1_000_000, batch_size=self.slots, batch_delay_s=0.005
        )

    def job(self, number: int) -> Job:
        spec = self.engine.manifest.preprocess
        rng = np.random.default_rng(number)
        image = rng.uniform(-1, 1, (spec.channels, spec.height, spec.width)).astype(np.float32)
        return Job(str(number), image, number, self.profile)

    async def lone_s(self, images: int = 15) -> float:
        """Median latency of images sent one after the other."""
        batcher = self.open("continuous", Metrics())
        spent = []
        for number in range(images):
            started = time.monotonic()
            await batcher.submit(self.job(number))
            spent.append(time.monotonic() - started)
        await batcher.close()
        return float(np.median(spent))

    async def saturated(self, kind: Literal["continuous", "static"], images: int) -> tuple[float, float]:
        """Images a second when all are there at once, and the mean batch."""
        metrics = Metrics()
        batcher = self.open(kind, metrics)
        started = time.monotonic()
        await asyncio.gather(*(batcher.submit(self.job(number)) for number in range(images)))
        rate = images / (time.monotonic() - started)
        await batcher.close()
        return rate, mean_batch(metrics)

    async def latencies(
        self, kind: Literal["continuous", "static"], due_s: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Seconds from when each image was due to its answer, and the mean batch."""
        metrics = Metrics()
        batcher = self.open(kind, metrics)
        jobs = [self.job(number) for number in range(len(due_s))]
        begun = time.monotonic()

        async def one(job: Job, due: float) -> float:
            await asyncio.sleep(begun + due - time.monotonic())
            await batcher.submit(job)
            return time.monotonic() - begun - due

        spent = await asyncio.gather(*(one(job, due) for job, due in zip(jobs, due_s, strict=True)))
        await batcher.close()
        return np.asarray(spent), mean_batch(metrics)


def mean_batch(metrics: Metrics) -> float:
    value = metrics.registry.get_sample_value
    return (value("inlier_batch_size_sum") or 0.0) / max(value("inlier_batch_size_count") or 0.0, 1.0)


def stand_in(bundle: Bundle, call_ms: float, row_ms: float) -> Engine:
    """The bundle's engine on a device whose calls take that long and leave the CPU alone."""

    def net(x: NDArray[np.float32], t: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep((call_ms + row_ms * len(x)) / 1000)
        return x

    return BundleEngine(bundle, net, "gpu")


async def measure(bench: Bench, loads: Sequence[float], images: int, seed: int) -> list[Run]:
    """All loads, both batchers, the same arrivals for both."""
    lone_s = await bench.lone_s()
    saturated = {kind: await bench.saturated(kind, 12 * bench.slots) for kind in KINDS}
    for kind, (rate, batch) in saturated.items():
        console.print(f"{bench.device}: saturated, {kind}: {rate:.2f} images/s, mean batch {batch:.2f}")
    console.print(f"{bench.device}: a lone request takes {1000 * lone_s:.0f} ms")
    capacity = min(rate for rate, _ in saturated.values())
    runs = []
    for load in loads:
        gaps = np.random.default_rng(seed).exponential(1 / (load * capacity), images)
        for kind in KINDS:
            spent, batch = await bench.latencies(kind, np.cumsum(gaps))
            p50, p95, p99 = (float(q) / lone_s for q in np.quantile(spent, (0.5, 0.95, 0.99)))
            rate = load * capacity
            runs.append(Run(bench.device, kind, load, rate, images, p50, p95, p99, lone_s, batch))
            console.print(f"{bench.device}: {load:.0%}, {kind}: p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f}")
    return runs


def table(runs: Sequence[Run]) -> str:
    lines = [
        "| network on | load | images/s | batching | p50 | p95 | p99 | mean batch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        ratios = " | ".join(f"{ratio:.2f}" for ratio in (run.p50, run.p95, run.p99))
        lines.append(
            f"| {run.device} | {run.load:.0%} | {run.rate:.1f} | {run.batching} | {ratios} "
            f"| {run.mean_batch:.1f} |"
        )
    return "\n".join(lines)


def small_bundle(folder: Path) -> Path:
    """A bundle of the recipe beside this file, trained once by the trainer's own commands."""
    bundle, parts = folder / "run" / "bundle", folder / "parts"
    if not bundle.exists():
        if not parts.exists():
            tool("demo-data", parts, "--images", 48)
        shutil.rmtree(folder / "run", ignore_errors=True)  # what an interrupted training left
        recipe = Path(__file__).with_suffix(".toml")
        tool("fit", parts / "train", "--recipe", recipe, "--out", folder / "run", "--device", "cpu")
    return bundle


def tool(*words: object) -> None:
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # a tiny network: threads would wait for each other
    command = [str(BIN / "inlier-trainer"), *map(str, words)]
    subprocess.run(command, check=True, stdout=sys.stderr, env=one_thread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="bundle [default: a small one, trained once]")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--slots", type=int, default=8, help="images at once")
    parser.add_argument("--images", type=int, default=300, help="images per load")
    parser.add_argument("--loads", type=float, nargs="+", default=(0.5, 0.8), help="shares of capacity")
    parser.add_argument("--call-ms", type=float, default=10.0, help="of the stand-in, per call")
    parser.add_argument("--row-ms", type=float, default=0.3, help="of the stand-in, per image in the call")
    parser.add_argument("--threads", type=int, default=1, help="of the network on the CPU")
    parser.add_argument("--cpu-only", action="store_true", help="leave the stand-in out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    bundle = load_bundle(asked.bundle or small_bundle(ROOT / ".bench"))
    engines: dict[str, Engine] = {
        f"stand-in, {asked.call_ms:g} + {asked.row_ms:g} ms an image": stand_in(
            bundle, asked.call_ms, asked.row_ms
        ),
        "this CPU": open_engine(bundle, threads=asked.threads),
    }
    runs: list[Run] = []
    for device, engine in engines.items():
        if asked.cpu_only and device != "this CPU":
            continue
        bench = Bench(device, engine, asked.profile, asked.slots)
        runs += asyncio.run(measure(bench, asked.loads, asked.images, asked.seed))
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
