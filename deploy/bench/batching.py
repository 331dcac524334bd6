"""`make bench-batching`: continuous against static batching under open-loop Poisson load.

Real batchers and a real bundle's profiles, chains alone and chains among one-step images, with the network
on this CPU and with stand-ins, whose network calls sleep a while for each call and each image in it and
compute nothing, all the rest being real: one like an accelerator, one like an idle CPU. Both batchers get the
same arrival times. An image's latency counts from the moment it was due to arrive, and is given in multiples
of a lone request's of its profile.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from deploy.bench.bundle import small_bundle
from models.bundle import Bundle, load_bundle
from models.engine import BundleEngine, Engine, open_engine
from service.batching import Batching, Job, open_batching
from service.metrics import Metrics

KINDS: tuple[Literal["continuous", "static"], ...] = ("continuous", "static")
console = Console(highlight=False, soft_wrap=True, stderr=True)


WORKLOADS: dict[str, dict[str, float]] = {"chains": {"paper": 1.0}, "mixed": {"fast": 0.8, "paper": 0.2}}
"""Shares of the profiles of the recipe beside this file."""
STAND_INS = {"flat": (10.0, 0.3), "linear": (0.2, 2.0)}
"""Milliseconds of a call, and of each image in it."""


@dataclass(frozen=True)
class Load:
    """What one repetition of one load gave the images of one profile, in multiples of a lone one's time."""

    device: str
    workload: str
    load: float
    batching: str
    profile: str
    rate: float  # images a second of all profiles
    lone_s: float
    mean_batch: float
    ratios: list[float]


@dataclass(frozen=True)
class Bench:
    """An engine, and how it is asked."""

    device: str
    engine: Engine
    workload: str
    slots: int

    def open(self, kind: Literal["continuous", "static"], metrics: Metrics) -> Batching:
        return open_batching(kind, self.engine, metrics, batch_size=self.slots, batch_delay_s=0.005)

    @property
    def profiles(self) -> list[str]:
        return list(WORKLOADS[self.workload])

    def job(self, number: int, profile: str) -> Job:
        spec = self.engine.manifest.preprocess
        rng = np.random.default_rng(number)
        image = rng.uniform(-1, 1, (spec.channels, spec.height, spec.width)).astype(np.float32)
        return Job(str(number), image, number, profile)

    def jobs(self, count: int, seed: int) -> list[Job]:
        shares = list(WORKLOADS[self.workload].values())
        drawn = np.random.default_rng([seed, 1]).choice(self.profiles, count, p=shares)
        return [self.job(number, str(profile)) for number, profile in enumerate(drawn)]

    async def lone_s(self, profile: str, images: int = 15) -> float:
        """Median latency of images sent one after the other."""
        batcher = self.open("continuous", Metrics())
        spent = []
        for number in range(images):
            started = time.monotonic()
            await batcher.submit(self.job(number, profile))
            spent.append(time.monotonic() - started)
        await batcher.close()
        return float(np.median(spent))

    async def saturated(
        self, kind: Literal["continuous", "static"], images: int, seed: int
    ) -> tuple[float, float]:
        """Images a second when all are there at once, and the mean batch."""
        metrics = Metrics()
        batcher = self.open(kind, metrics)
        await batcher.warm_up(self.profiles[-1])
        warmed, jobs, started = batch_sums(metrics), self.jobs(images, seed), time.monotonic()
        await asyncio.gather(*(batcher.submit(job) for job in jobs))
        rate = images / (time.monotonic() - started)
        await batcher.close()
        return rate, mean_batch(metrics, warmed)

    async def latencies(
        self, kind: Literal["continuous", "static"], jobs: Sequence[Job], due_s: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Seconds from when each image was due to its answer, and the mean batch."""
        metrics = Metrics()
        batcher = self.open(kind, metrics)
        await batcher.warm_up(self.profiles[-1])  # as the service does when it starts
        warmed, begun = batch_sums(metrics), time.monotonic()

        async def one(job: Job, due: float) -> float:
            await asyncio.sleep(begun + due - time.monotonic())
            await batcher.submit(job)
            return time.monotonic() - begun - due

        spent = await asyncio.gather(*(one(job, due) for job, due in zip(jobs, due_s, strict=True)))
        await batcher.close()
        return np.asarray(spent), mean_batch(metrics, warmed)


def batch_sums(metrics: Metrics) -> tuple[float, float]:
    """Images in all calls, and calls."""
    value = metrics.registry.get_sample_value
    return value("inlier_batch_size_sum") or 0.0, value("inlier_batch_size_count") or 0.0


def mean_batch(metrics: Metrics, since: tuple[float, float]) -> float:
    images, calls = batch_sums(metrics)
    return (images - since[0]) / max(calls - since[1], 1.0)


def stand_in(bundle: Bundle, call_ms: float, row_ms: float) -> Engine:
    """The bundle's engine on a device whose calls take that long and leave the CPU alone."""

    def net(x: NDArray[np.float32], t: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep((call_ms + row_ms * len(x)) / 1000)
        return x

    return BundleEngine(bundle, net, "gpu")


async def measure(bench: Bench, loads: Sequence[float], images: int, seed: int) -> list[Load]:
    """All loads, both batchers, the same images and arrivals for both."""
    said = f"{bench.device}, {bench.workload}"
    lone_s = {profile: await bench.lone_s(profile) for profile in bench.profiles}
    saturated = {kind: await bench.saturated(kind, 12 * bench.slots, seed) for kind in KINDS}
    for kind, (rate, batch) in saturated.items():
        console.print(f"{said}: saturated, {kind}: {rate:.2f} images/s, mean batch {batch:.2f}")
    alone = ", ".join(f"{1000 * s:.1f} ms ({profile})" for profile, s in lone_s.items())
    console.print(f"{said}: a lone request takes {alone}")
    capacity = min(rate for rate, _ in saturated.values())
    found = []
    for load in loads:
        gaps = np.random.default_rng(seed).exponential(1 / (load * capacity), images)
        jobs = bench.jobs(images, seed)
        for kind in KINDS:
            spent, batch = await bench.latencies(kind, jobs, np.cumsum(gaps))
            for profile, alone_s in lone_s.items():
                of_profile = np.array([job.profile == profile for job in jobs])
                ours = (spent[of_profile] / alone_s).tolist()
                asked = (bench.device, bench.workload, load, kind, profile, load * capacity)
                found.append(Load(*asked, alone_s, batch, ours))
                console.print(f"{said}: {load:.0%}, {kind}, {profile}: {quantiles(ours)}")
    return found


def quantiles(ratios: Sequence[float]) -> str:
    return " | ".join(f"{ratio:.2f}" for ratio in np.quantile(ratios, (0.5, 0.95, 0.99)))


def table(found: Sequence[Load]) -> str:
    """Quantiles over the images of all repetitions, and the p50 of the best and the worst of these."""
    lines = [
        "| network on | workload | load | images/s | batching | profile | p50 | p95 | p99 | p50s | batch |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[object, ...], list[Load]] = {}
    for one in found:
        key = (one.device, one.workload, one.load, one.profile, one.batching)
        groups.setdefault(key, []).append(one)
    for (device, workload, load, profile, batching), members in groups.items():
        pooled = quantiles([ratio for one in members for ratio in one.ratios])
        medians = sorted(float(np.median(one.ratios)) for one in members)
        rate, batch = (fmean(getattr(one, name) for one in members) for name in ("rate", "mean_batch"))
        lines.append(
            f"| {device} | {workload} | {load:.0%} | {rate:.1f} | {batching} | {profile} | {pooled} "
            f"| {medians[0]:.2f} to {medians[-1]:.2f} | {batch:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="bundle [default: a small one, trained once]")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--slots", type=int, default=8, help="images at once")
    parser.add_argument("--images", type=int, default=300, help="images per load and repetition")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loads", type=float, nargs="+", default=(0.5, 0.8), help="shares of capacity")
    parser.add_argument("--engines", nargs="+", choices=("cpu", *STAND_INS), default=["cpu", *STAND_INS])
    parser.add_argument("--threads", type=int, default=1, help="of the network on the CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    bundle = load_bundle(asked.bundle or small_bundle(Path(__file__).with_suffix(".toml"), "batching"))
    engines: dict[str, Engine] = {}
    for name in asked.engines:
        if name == "cpu":
            engines["this CPU"] = open_engine(bundle, threads=asked.threads)
        else:
            call_ms, row_ms = STAND_INS[name]
            label = f"stand-in, {call_ms:g} + {row_ms:g} ms an image"
            engines[label] = stand_in(bundle, call_ms, row_ms)
    found: list[Load] = []
    for seed in range(asked.seed, asked.seed + asked.repeats):
        for device, engine in engines.items():
            for workload in asked.workloads:
                load_average = ", ".join(f"{load:.1f}" for load in os.getloadavg())
                console.print(f"repetition {seed}, load average {load_average}")
                bench = Bench(device, engine, workload, asked.slots)
                found += asyncio.run(measure(bench, asked.loads, asked.images, seed))
        if asked.json is not None:  # after each, should a later one be cut off
            asked.json.write_text(json.dumps([asdict(one) for one in found]) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
