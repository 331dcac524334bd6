"""Picture sheets: the best and worst cases of an evaluation, on one colour scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator
from numpy.typing import NDArray

Picture = NDArray[np.uint8] | NDArray[np.float32]

HIGHEST, MISSED = "Highest-scored defects", "Lowest-scored defects (missed first)"
ALARMS, TYPICAL = "Highest-scored good parts (false alarms first)", "Typical good parts"
GROUPS = (HIGHEST, MISSED, ALARMS, TYPICAL)
PANELS = ("image", "reconstruction", "anomaly map", "defect and alarm")

_MAP = "inferno"
_TRUTH, _FOUND = "#00c8ff", "#ff8c1a"
_INK, _SOFT, _EMPTY = "#1a1f27", "#5b6573", "#eceff3"
_VERDICTS = {"PASS": "#1d7f4a", "REVIEW": "#b36b00", "REJECT": "#c22636"}
# inches
_PANEL, _GAP, _GUTTER, _MARGIN = 1.42, 0.05, 0.4, 0.4
_CAPTION, _GROUP, _NAMES, _HEAD, _FOOT = 0.3, 0.38, 0.16, 0.95, 0.8
_PER_ROW = 2
_NAME_CHARACTERS = 46


@dataclass(frozen=True)
class Case:
    """One image of a sheet."""

    group: str
    name: str
    score: float  # raw
    calibrated: float
    verdict: str
    image: NDArray[np.uint8]  # [h, w, C]
    reconstruction: NDArray[np.uint8]  # [h, w, C]
    map: NDArray[np.float32]  # [h, w]
    mask: NDArray[np.bool_]  # [h, w]


@dataclass(frozen=True)
class SheetScale:
    """The fixed colour scale of a profile and its thresholds, in map units."""

    map_max: float
    review: float
    reject: float


def choose_cases(
    scores: NDArray[np.float64], defective: NDArray[np.bool_], per_group: int = 4
) -> dict[str, list[int]]:
    """Pick images for the four groups by raw score; none appears twice, small sets are shared out."""
    bad, good = np.flatnonzero(defective), np.flatnonzero(~defective)
    bad = bad[np.argsort(-scores[bad], kind="stable")]
    good = good[np.argsort(-scores[good], kind="stable")]
    top = min(per_group, (len(bad) + 1) // 2)
    low = min(per_group, len(bad) - top)
    alarms = min(per_group, (len(good) + 1) // 2)
    middle = max(alarms, (len(good) - per_group) // 2)
    return {
        HIGHEST: [int(i) for i in bad[:top]],
        MISSED: [int(i) for i in bad[::-1][:low]],
        ALARMS: [int(i) for i in good[:alarms]],
        TYPICAL: [int(i) for i in good[middle : middle + per_group]],
    }


def write_sheet(path: Path, cases: Sequence[Case], *, title: str, subtitle: str, scale: SheetScale) -> None:
    """Draw image, reconstruction, map and mask of every case into one PNG at `path`.

    The last panel outlines the true defect and the area at or above the review threshold. Every map
    shares the colour scale 0 to `scale.map_max`.
    """
    groups = [(name, [case for case in cases if case.group == name]) for name in GROUPS]
    groups = [(name, members) for name, members in groups if members]
    rows = sum(-(-len(members) // _PER_ROW) for _, members in groups)
    case_width = len(PANELS) * _PANEL + (len(PANELS) - 1) * _GAP
    width = 2 * _MARGIN + _PER_ROW * case_width + (_PER_ROW - 1) * _GUTTER
    height = _HEAD + _FOOT + _NAMES + len(groups) * _GROUP + rows * (_PANEL + _CAPTION)
    figure = Figure(figsize=(width, height), facecolor="white")
    page = _Page(figure, width, height)
    page.text(_MARGIN, 0.42, title, size=17, weight="bold")
    page.text(_MARGIN, 0.7, subtitle, size=10, color=_SOFT)
    y = _HEAD
    for name, members in groups:
        page.text(_MARGIN, y + 0.24, name, size=12, weight="bold")
        if y == _HEAD:
            _panel_names(page, case_width, y + 0.46)
            y += _NAMES
        y += _GROUP
        for index, case in enumerate(members):
            column = index % _PER_ROW
            _draw_case(page, case, _MARGIN + column * (case_width + _GUTTER), y, scale)
            if column == _PER_ROW - 1 or index == len(members) - 1:
                y += _PANEL + _CAPTION
    _draw_scale(page, scale, height - 0.42)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, format="png")


@dataclass(frozen=True)
class _Page:
    """Places things by inches from the top left corner."""

    figure: Figure
    width: float
    height: float

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        top = 1.0 - (y + height) / self.height
        return self.figure.add_axes((x / self.width, top, width / self.width, height / self.height))

    def text(self, x: float, y: float, words: str, size: float = 9, color: str = _INK, **style: Any) -> None:
        # file names may hold a dollar sign, which matplotlib would read as mathematics
        place = (x / self.width, 1.0 - y / self.height)
        self.figure.text(*place, words, size=size, color=color, parse_math=False, **style)


def _panel_names(page: _Page, case_width: float, y: float) -> None:
    for column in range(_PER_ROW):
        left = _MARGIN + column * (case_width + _GUTTER)
        for index, name in enumerate(PANELS):
            center = left + index * (_PANEL + _GAP) + _PANEL / 2
            page.text(center, y, name, size=8, color=_SOFT, ha="center")


def _draw_case(page: _Page, case: Case, x: float, y: float, scale: SheetScale) -> None:
    panels = [page.axes(x + k * (_PANEL + _GAP), y, _PANEL, _PANEL) for k in range(len(PANELS))]
    pictures: tuple[Picture, ...] = (case.image, case.reconstruction, case.map, case.image)
    for axes, picture in zip(panels, pictures, strict=True):
        _show(axes, picture, scale)
    for area, color in ((case.map >= scale.review, _FOUND), (case.mask, _TRUTH)):
        _outline(panels[-1], area, color)
    name = case.name if len(case.name) <= _NAME_CHARACTERS else "…" + case.name[1 - _NAME_CHARACTERS :]
    below = y + _PANEL + 0.16
    right = x + len(PANELS) * _PANEL + (len(PANELS) - 1) * _GAP
    page.text(x, below, name, size=8.5)
    figures = f"raw {case.score:.3f}   calibrated {case.calibrated:+.2f}"
    page.text(right - 0.62, below, figures, size=8.5, color=_SOFT, ha="right")
    page.text(right, below, case.verdict, size=8.5, color=_VERDICTS[case.verdict], ha="right", weight="bold")


def _corner(shape: tuple[int, ...]) -> tuple[int, float, float]:
    """Side of the square panel that holds a picture `[h, w, ...]`, and the picture's offset in it."""
    side = max(shape[:2])
    return side, (side - shape[1]) / 2, (side - shape[0]) / 2


def _show(axes: Axes, picture: Picture, scale: SheetScale) -> None:
    side, x, y = _corner(picture.shape)
    axes.set_facecolor(_EMPTY)
    extent = (x, x + picture.shape[1], y + picture.shape[0], y)
    if picture.ndim == 2:
        axes.imshow(picture, extent=extent, cmap=_MAP, vmin=0.0, vmax=scale.map_max)
    else:
        gray = picture.shape[2] == 1
        shown = picture[:, :, 0] if gray else picture
        axes.imshow(shown, extent=extent, cmap="gray" if gray else None, vmin=0, vmax=255)
    axes.set(xlim=(0, side), ylim=(side, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _outline(axes: Axes, area: NDArray[np.bool_], color: str) -> None:
    if not area.any():
        return
    _, x, y = _corner(area.shape)
    framed = np.pad(area, 1).astype(np.float32)  # so that an area at the edge is closed
    columns, rows = np.arange(framed.shape[1]) + x - 0.5, np.arange(framed.shape[0]) + y - 0.5
    axes.contour(columns, rows, framed, levels=[0.5], colors=[color], linewidths=1.1)


def _draw_scale(page: _Page, scale: SheetScale, y: float) -> None:
    bar = page.axes(_MARGIN, y, 3.6, 0.13)
    page.figure.colorbar(
        ScalarMappable(Normalize(0.0, scale.map_max), _MAP), cax=bar, orientation="horizontal"
    )
    marks = {0.0: "0", scale.review: f"review {scale.review:.2f}", scale.map_max: f"{scale.map_max:.2f}"}
    if scale.reject - scale.review > 0.2 * scale.map_max:
        marks[scale.reject] = f"reject {scale.reject:.2f}"
    ticks = sorted(value for value in marks if value <= scale.map_max)
    bar.xaxis.set_major_locator(FixedLocator(ticks))
    bar.xaxis.set_major_formatter(FixedFormatter([marks[value] for value in ticks]))
    bar.tick_params(labelsize=8, colors=_SOFT, length=3)
    page.text(_MARGIN, y - 0.08, "anomaly map, the same scale in every panel", size=8, color=_SOFT)
    page.text(_MARGIN + 4.3, y + 0.12, "true defect", size=9, color=_TRUTH, weight="bold")
    page.text(
        _MARGIN + 5.4, y + 0.12, "map at or above the review threshold", size=9, color=_FOUND, weight="bold"
    )
