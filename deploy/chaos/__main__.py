"""`make chaos`: a line on loopback to look at while things go wrong with it, at random, for minutes.

PostgreSQL, Redis, an API, two workers, Prometheus, and four cameras that post. Faults come at random, now and
then two at a time. In the end every image that the service accepted is accounted for.
"""

import argparse
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from deploy.chaos.faults import Fault, faults
from deploy.ops_test.checks import lost
from deploy.ops_test.line import Line, line, model_and_parts
from deploy.ops_test.load import Load, Posted, pictures
from deploy.ops_test.postgres import Missing
from deploy.processes import tool

console = Console()
MUST_BE_NONE = ("missing", "doubled", "images missing")
MEND_FIRST = ("redis", "postgres", "api", "workers", "cameras")
SECOND = 0.3
"""The chance that a fault gets company before it is mended."""


@dataclass
class Chaos:
    """The faults of one run; the same seed chooses the same ones in the same order."""

    line: Line
    load: Load
    seed: int
    bursts: list[Load] = field(default_factory=list)
    done: int = 0
    _began: float = 0.0

    def run(self, minutes: float) -> None:
        """Returns when the time is over and all is mended, also when it is interrupted."""
        chance, known = random.Random(self.seed), faults(self.line, self.load, self.bursts)
        self._began, ends = time.monotonic(), time.monotonic() + 60 * minutes
        while time.monotonic() < ends:
            time.sleep(chance.uniform(3, 8))
            some = [chance.choice(known)]
            others = [fault for fault in known if fault.target != some[0].target]
            if chance.random() < SECOND:
                some.append(chance.choice(others))
            self._suffer(some, chance)

    def _suffer(self, some: list[Fault], chance: random.Random) -> None:
        """One after the other; mended in the order in which one needs the other."""
        begun: list[Fault] = []
        try:
            for fault in some:
                begun.append(fault)
                self.tell(fault.name)
                fault.begin()
                self.done += 1
                time.sleep(chance.uniform(fault.shortest_s, fault.longest_s))
        finally:
            with no_interrupt():
                for fault in sorted(begun, key=lambda fault: MEND_FIRST.index(fault.target)):
                    fault.mend()
            self.tell("[dim]mended[/]")

    def tell(self, what: str) -> None:
        posted = self.posted
        counts = f"{len(posted):5} accepted, {sum(one.attempts > 1 for one in posted):3} sent again"
        console.print(f"{time.monotonic() - self._began:6.1f} s {counts}   {what}", highlight=False)

    @property
    def posted(self) -> list[Posted]:
        return [one for load in (self.load, *self.bursts) for one in load.posted]


def play(folder: Path, bundle: Path, parts: Path, minutes: float, rate: float, seed: int) -> list[str]:
    """Run it -> what is not as promised, in words; none if all is well."""
    with line(folder, bundle, faster=False) as up:
        invite(up)
        load = Load(up.url, up.camera, pictures(parts), rate, name="chaos")
        load.start()
        chaos = Chaos(up, load, seed)
        try:
            chaos.run(minutes)
        except KeyboardInterrupt:
            console.print("\nending early; every image is accounted for all the same")
        with no_interrupt():
            for each in (load, *chaos.bursts):
                each.stop()
            ended = lost(up, chaos.posted)
    refused = [text for each in (load, *chaos.bursts) for text in each.refused]
    given_up = sum(each.given_up for each in (load, *chaos.bursts))
    console.print(
        f"\n{chaos.done} faults, {len(chaos.posted)} images accepted, {given_up} given up by a camera"
    )
    for name, count in ended.items():
        note = "  attempts used up: they lie among the dead letters" if name == "failed" else ""
        console.print(f"  {name:<16}{count:6}{note}", highlight=False)
    wrong = [f"{ended[name]} {name}" for name in MUST_BE_NONE if ended.get(name)]
    wrong += [f"refused: {text}" for text in refused[:3]]
    return wrong if chaos.posted else [*wrong, "nothing was accepted"]


def invite(up: Line) -> None:
    """Where to look."""
    password = secrets.token_urlsafe(12)
    tool("inlier-service", "users", "add", "visitor", "--role", "admin", *up.store, stdin=password)
    link = tool("inlier-service", "users", "link", "visitor", *up.store).stdout.splitlines()[-1]
    console.print("look at the line, live (the link signs you in once):")
    console.print(f"  {up.url}{link}&next=/", soft_wrap=True)
    console.print(f"  later as visitor with the password {password}")
    console.print(f"Prometheus, with the rules and alerts: {up.prometheus.address}/alerts")
    console.print("for the dashboards give a Grafana this Prometheus: docs/metrics.md")
    console.print("Ctrl-C ends it early\n")


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Accounting is not cut short by a second Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5, help="how long things go wrong [5]")
    parser.add_argument(
        "--rate", type=float, default=4, help="images a second, of four stations together [4]"
    )
    parser.add_argument("--seed", type=int, default=None, help="choose the faults of an earlier run again")
    parser.add_argument("--bundle", type=Path, help="model to serve [one trained for it, kept in .bench]")
    parser.add_argument("--parts", type=Path, help="folder of PNG to post [those it was trained on]")
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    seed = secrets.randbelow(10_000) if asked.seed is None else asked.seed
    bundle, parts = model_and_parts(asked.bundle, asked.parts)
    folder = Path(tempfile.mkdtemp(prefix="inlier-chaos-"))
    console.print(f"seed {seed}; logs are in {folder}")
    try:
        wrong = play(folder, bundle, parts, asked.minutes, asked.rate, seed)
    except Missing as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    if wrong:
        console.print(f"[bold red]not as promised:[/] {'; '.join(wrong)}")
        console.print(f"again: make chaos ARGS='--seed {seed}'; logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    console.print("[bold green]nothing was lost[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
