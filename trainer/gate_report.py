"""The gate's report for a person, in one file that needs no network and no script."""

import math
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from models.decode import decode
from models.preprocess import Preprocess, to_uint8
from trainer.gate import Gate
from trainer.report import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, histogram, png_url

MOST_SHOWN = 24
_SHOWN_PX = 320


def write_report(path: Path, gate: Gate) -> None:
    """Write the verdict, every criterion, and the images where only the candidate is wrong to `path`."""
    environment = Environment(
        loader=PackageLoader("trainer", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = figure
    facts = gate.facts
    html = environment.get_template("gate.html").render(
        passed=gate.passed,
        failed=[one.title.lower() for one in gate.criteria if one.passed is False],
        criteria=gate.criteria,
        candidate=facts["candidate"],
        active=facts["active"],
        worse=[(path.name, words, _thumbnail(path)) for path, words in gate.worse[:MOST_SHOWN]],
        more=max(0, len(gate.worse) - MOST_SHOWN),
        histograms=_histograms(gate),
        summary=_summary(gate),
        frame=(WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM),
    )
    path.write_text(html, encoding="utf-8", errors="backslashreplace")


def figure(value: float | None, unit: str) -> str:
    """A figure as a person reads it: shares in percent, counts whole, others to three digits."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "none"
    if unit == "share":
        return f"{value:.1%}"
    return f"{value:g}" if value == round(value) else f"{value:.3g}"


def _thumbnail(path: Path) -> str:
    image = decode(path.read_bytes())
    height, width = image.size
    scale = min(1.0, _SHOWN_PX / max(height, width))
    spec = Preprocess(
        height=max(8, round(scale * height)),
        width=max(8, round(scale * width)),
        channels=3 if image.pixels.shape[2] == 3 else 1,
    )
    return png_url(to_uint8(image, spec))


def _histograms(gate: Gate) -> list[Chart]:
    if not gate.recent.paths:
        return []
    return [
        histogram(side.profile, said.raw, side.calibration, f"{title}, profile {side.profile}")
        for title, side, said in (
            ("Candidate", gate.candidate, gate.recent.candidate),
            ("Active model", gate.active, gate.recent.active),
        )
    ]


def _summary(gate: Gate) -> dict[str, object]:
    facts = gate.facts
    found: dict[str, object] = {"date": facts["date"]}
    found["training set"] = (facts["training_set"] or "none named")[:12]
    for name in ("candidate", "active"):
        side = facts[name]
        found[name] = f"{side['name']} {side['version']} ({side['bundle_sha256'][:12]})"
        found[f"{name}'s limits"] = f"review from {side['review']:.2f}, reject from {side['reject']:.2f}"
    images = facts["images"]
    found["confirmed parts"] = f"{images['good']} good, {images['defective']} defective"
    found["missed defects"] = images["escapes"]
    found["recent images"] = images["recent"]
    found["ignore mask"] = "applied to both" if facts["masked"] else "none"
    found["processor"] = facts["hardware"]["processor"]
    return found
