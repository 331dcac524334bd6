"""`report.html`: a training run for a person, in one file that needs no network and no script."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from models.bundle import ProfileCalibration
from trainer.thumbnails import shrunk

Float = NDArray[np.float64]
Curve = Sequence[tuple[int, float]]
Suspect = tuple[str, float, NDArray[np.uint8]]
"""Name, calibrated score, pixels `[C, H, W]`."""

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 14, 34
THUMBNAIL_PX = 160
_BINS = 44
_CURVE_POINTS = 280


@dataclass(frozen=True)
class Scale:
    """Data values -> pixels along one axis of a chart; `log` for values that span decades."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: Float) -> Float:
        low, high = self._spread(np.array([self.low, self.high]))
        share = (self._spread(values) - low) / max(high - low, 1e-12)
        return np.asarray(self.start + share * (self.end - self.start))

    def _spread(self, values: Float) -> Float:
        return np.log10(values) if self.log else np.asarray(values, dtype=np.float64)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """(pixel, label) of round values inside the axis."""
        locator = LogLocator(subs=(1, 2, 5)) if self.log else MaxNLocator(6, steps=[1, 2, 5, 10])
        values = np.asarray(locator.tick_values(self.low, self.high), dtype=np.float64)
        values = values[(values >= self.low) & (values <= self.high)]
        return [(float(x), f"{v:g}") for x, v in zip(self(values), values, strict=True)]


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    band: str  # pass, review or reject
    title: str


@dataclass(frozen=True)
class Chart:
    """What the template draws as inline SVG; all positions in pixels of its view box."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    line: str = ""  # points of a polyline
    area: str = ""  # points of a polygon behind it
    bars: list[Bar] = field(default_factory=list)
    limits: list[tuple[float, str]] = field(default_factory=list)  # (x, name) of the two thresholds
    note: str = ""


def write_report(
    path: Path,
    *,
    recipe: Mapping[str, Any],
    loss_curve: Curve,
    lr_curve: Curve,
    scores: Mapping[str, Float],
    calibration: Mapping[str, ProfileCalibration],
    audit: Sequence[Suspect],
    summary: Mapping[str, Any],
) -> None:
    """Write the report of a training run to `path`.

    Curves are (step, value); `scores` the raw training scores per profile `[N]`; `audit` the most
    suspected training images, worst first; `summary` facts shown as they are. Names come from outside
    and are escaped.
    """
    environment = Environment(
        loader=PackageLoader("trainer", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    html = environment.get_template("report.html").render(
        summary=summary,
        curves=[
            curve_chart("Training loss", loss_curve, log=True),
            curve_chart("Learning rate", lr_curve),
        ],
        histograms=[histogram(name, values, calibration[name]) for name, values in scores.items()],
        thresholds=[(name, found, _raw_limits(found)) for name, found in calibration.items()],
        suspects=[(name, score, png_url(pixels)) for name, score, pixels in audit],
        recipe=json.dumps(recipe, indent=2, ensure_ascii=False, default=str),
        frame=(WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM),
    )
    path.write_text(html, encoding="utf-8", errors="backslashreplace")


def curve_chart(title: str, curve: Curve, log: bool = False) -> Chart:
    """A value over training steps: the median of a few hundred stretches, and their 10-90 % range."""
    finite = [(step, value) for step, value in curve if np.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return Chart(title, "step", "", [], [], note="nothing was recorded")
    points = np.array(finite, dtype=np.float64)
    parts = np.array_split(points, min(_CURVE_POINTS, len(points)))
    steps = np.array([part[:, 0].mean() for part in parts])
    low, middle, high = np.array([np.quantile(part[:, 1], (0.1, 0.5, 0.9)) for part in parts]).T
    x = Scale(0.0, float(points[-1, 0]), LEFT, WIDTH - RIGHT)
    bottom = float(low.min()) if log else 0.0
    y = Scale(bottom * 0.95, max(float(high.max()) * 1.05, bottom + 1e-9), HEIGHT - BOTTOM, TOP, log)
    forth, back = _points(x(steps), y(high)), _points(x(steps[::-1]), y(low[::-1]))
    return Chart(
        title, "step", "", x.ticks, y.ticks, line=_points(x(steps), y(middle)), area=f"{forth} {back}"
    )


def histogram(name: str, raw: Float, found: ProfileCalibration, title: str | None = None) -> Chart:
    """Calibrated scores under one profile with both suggested thresholds."""
    title = title or f"Profile {name}"
    values = np.array([found.score.calibrate(float(value)) for value in raw if np.isfinite(value)])
    if not len(values):
        return Chart(title, "", "", [], [], note="no training image was scored")
    limits = {"review": found.suggested.review, "reject": found.suggested.reject}
    low = min(float(values.min()), -3.0)
    # a far outlier must not flatten all others
    high = max(float(np.quantile(values, 0.99, method="lower")), *limits.values()) + 1.0
    counts, edges = np.histogram(np.clip(values, low, high), bins=_BINS, range=(low, high))
    x, y = Scale(low, high, LEFT, WIDTH - RIGHT), Scale(0.0, counts.max() * 1.05, HEIGHT - BOTTOM, TOP)
    bars = []
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        (x0, x1), (top,) = x(np.array([left, right])), y(np.array([float(count)]))
        middle = (left + right) / 2
        band = "reject" if middle >= limits["reject"] else "review" if middle >= limits["review"] else "pass"
        note = f"{count} images from {left:.2f} to {right:.2f}"
        height = HEIGHT - BOTTOM - float(top)
        bars.append(Bar(float(x0) + 0.5, float(top), float(x1 - x0) - 1, height, band, note))
    beyond = int((values > high).sum())
    return Chart(
        title,
        "calibrated score (robust standard deviations above a typical part)",
        "images",
        x.ticks,
        y.ticks,
        bars=bars,
        limits=[(float(x(np.array([value]))[0]), key) for key, value in limits.items()],
        note=f"images beyond the right edge, counted in the last bar: {beyond}" if beyond else "",
    )


def png_url(pixels: NDArray[np.uint8]) -> str:
    """Pixels `[C, H, W]` (gray or RGB) -> a small PNG as a data URL."""
    _, png = cv2.imencode(".png", shrunk(pixels, THUMBNAIL_PX))
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")


def _raw_limits(found: ProfileCalibration) -> tuple[float, float]:
    return found.score.raw(found.suggested.review), found.score.raw(found.suggested.reject)


def _points(x: Float, y: Float) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
