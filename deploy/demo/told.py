"""What the demo tells the person who runs it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.metrics import roc_auc_score

from service.client import Inspection

console = Console(highlight=False, soft_wrap=True)
_COLOURS = {"PASS": "green", "REVIEW": "yellow", "REJECT": "red"}


class DemoError(Exception):
    """Something the demo needs did not work; the message is for the person who ran it."""


@dataclass(frozen=True)
class Inspected:
    """One posted image, what the service said of it, and the truth."""

    image: Path
    truth: str  # good, or the type of the defect
    answer: Inspection
    round_trip_ms: float
    amap: NDArray[np.float64]  # the anomaly map at the size of `mask`
    mask: NDArray[np.bool_]

    @property
    def name(self) -> str:
        return f"{self.truth}/{self.image.name}"


def print_table(results: list[Inspected]) -> None:
    width = max(len(result.name) for result in results) + 2
    console.print(f"\n   {'image':<{width}}{'verdict':<9}{'score':>8}{'ms':>8}   truth", style="bold")
    for result in sorted(results, key=lambda one: -(one.answer.score or 0)):
        verdict = str(result.answer.verdict)
        console.print(
            f"   {result.name:<{width}}[{_COLOURS[verdict]}]{verdict:<9}[/]"
            f"{result.answer.score:>8.2f}{result.round_trip_ms:>8.0f}   {result.truth}"
        )


def print_summary(results: list[Inspected]) -> None:
    defective = np.array([result.truth != "good" for result in results])
    scores = np.array([result.answer.score_raw for result in results])
    pixels = np.concatenate([result.mask.ravel() for result in results])
    values = np.concatenate([result.amap.ravel() for result in results])
    console.print()
    for name, wanted in (("good", ~defective), ("defective", defective)):
        verdicts = Counter(r.answer.verdict for r, w in zip(results, wanted, strict=True) if w)
        told = ", ".join(f"{verdicts[v]} {v}" for v in ("PASS", "REVIEW", "REJECT"))
        console.print(f"   {int(wanted.sum())} {name} parts: {told}")
    median = float(np.median([result.round_trip_ms for result in results]))
    console.print(f"   median round trip {median:.0f} ms, over HTTP and with everything stored")
    console.print(f"   image AUROC {roc_auc_score(defective, scores):.3f}")
    console.print(f"   pixel AUROC {roc_auc_score(pixels, values):.3f}")


def step(number: int, what: str, result: Path | None = None) -> None:
    kept = " (kept from before)" if result is not None and result.exists() else ""
    console.print(f"[bold]{number}/4[/] {what}[dim]{kept}[/]")


def bar(images: list[Path], what: str) -> Iterable[Path]:
    return track(images, f"   {what}", console=console) if console.is_terminal else images


def tail(log: Path) -> str:
    """The end of a log, for an error message."""
    lines = log.read_text(errors="replace").splitlines()[-15:]
    return "; the end of its log:\n" + "\n".join(lines) if lines else "; its log is empty"
