"""The training report: self-contained, escaped, and readable whatever a run left behind."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.bundle import ProfileCalibration, Thresholds
from trainer.report import Scale, curve_chart, histogram, png_url, write_report

CALIBRATION = ProfileCalibration(
    residual_scales=(0.1,),
    score_location=0.5,
    score_scale=0.2,
    suggested=Thresholds(review=1.6, reject=2.9),
    median_location=0.0,
    median_scale=0.1,
    map_max=6.0,
    images=200,
)
EVIL = '<img src=x onerror="alert(1)">.png'


class Balance(HTMLParser):
    """Fails on a tag that is closed without having been opened, or left open."""

    VOID = frozenset({"meta", "img", "br", "line", "rect", "polygon", "polyline", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def report(path: Path, **changes: Any) -> str:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "recipe": {"name": "default", "training": {"steps": 300, "note": "</pre><b>"}},
        "loss_curve": [(step, 1.0 / step + 0.01) for step in range(1, 301)],
        "lr_curve": [(step, 3e-4) for step in range(1, 301)],
        "scores": {"fast": np.sort(np.exp(0.5 + 0.2 * rng.standard_normal(200)))},
        "calibration": {"fast": CALIBRATION},
        "audit": [(EVIL, 5.25, rng.integers(0, 255, (3, 40, 30), dtype=np.uint8))],
        "summary": {"model": "tiles <1>", "training images": 200, "final_loss": 0.0123456},
    }
    write_report(path, **(values | changes))
    return path.read_text(encoding="utf-8")


def test_report_is_whole_escaped_and_self_contained(tmp_path: Path) -> None:
    html = report(tmp_path / "report.html")
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert "onerror" in html
    assert EVIL not in html
    assert "</pre><b>" not in html
    assert "tiles &lt;1&gt;" in html
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', html) == []
    assert "http://" not in html
    assert "https://" not in html
    assert "<script" not in html
    for shown in ("5.25", "0.01235", "Learning rate", "Profile fast", "review", "reject"):
        assert shown in html


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_curve": [], "lr_curve": []},
        {"loss_curve": [(1, float("nan")), (2, 0.5)]},
        {"loss_curve": [(1, 0.5)], "lr_curve": [(1, 0.0)]},
        {"scores": {"fast": np.empty(0)}, "audit": [], "summary": {}},
        {"scores": {"fast": np.full(30, 1.7)}},
        {"scores": {"fast": np.array([0.0, 1.0, 1e9])}},
    ],
)
def test_report_survives_unusual_runs(tmp_path: Path, changes: dict[str, Any]) -> None:
    html = report(tmp_path / "report.html", **changes)
    assert "nan" not in re.findall(r'(?:points|x|y|height|width)="([^"]*)"', html)
    assert "Resolved recipe" in html


def test_histogram_counts_every_image_and_colours_by_threshold() -> None:
    raw = np.array([CALIBRATION.score.raw(z) for z in [0.0] * 50 + [2.0] * 5 + [3.5] * 3 + [400.0]])
    chart = histogram("fast", raw, CALIBRATION)
    counts = {band: 0 for band in ("pass", "review", "reject")}
    for bar in chart.bars:
        counts[bar.band] += int(bar.title.split()[0])
    assert counts == {"pass": 50, "review": 5, "reject": 4}
    assert chart.note.endswith("last bar: 1")


def test_curve_is_thinned_and_inside_the_chart() -> None:
    chart = curve_chart("loss", [(step, 1.0 / step) for step in range(1, 20_001)], log=True)
    points = np.array([[float(v) for v in pair.split(",")] for pair in chart.line.split()])
    assert len(points) <= 300
    assert points.min() >= 0
    assert (np.diff(points[:, 1]) >= 0).all()  # the loss falls, the SVG's y axis points down


def test_scale_puts_round_ticks_where_they_belong() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert (150.0, "5") not in scale.ticks
    assert (140.0, "4") in scale.ticks
    assert Scale(0.01, 1.0, 0.0, 100.0, log=True)(np.array([0.1]))[0] == pytest.approx(50.0)


def test_thumbnails_keep_their_colours() -> None:
    pixels = np.zeros((3, 300, 200), dtype=np.uint8)
    pixels[0] = 250  # red
    png = base64.b64decode(png_url(pixels).removeprefix("data:image/png;base64,"))
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (160, 107, 3)
    assert image[0, 0].tolist() == [0, 0, 250]
    assert png_url(np.zeros((1, 20, 20), dtype=np.uint8)).startswith("data:image/png")
