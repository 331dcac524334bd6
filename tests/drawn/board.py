"""A printed circuit: every board the same, framed within a pixel or two, full of fine structure."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.drawn.draw import OVER, SIDE, Float, Rng, blot, grain, stroke, wander

S = SIDE * OVER
_MASK, _COPPER, _TIN, _CHIP, _PRINT, _HOLE = (
    np.array(colour, dtype=np.float32)
    for colour in (
        (0.10, 0.26, 0.10),
        (0.22, 0.42, 0.22),
        (0.72, 0.74, 0.72),
        (0.13, 0.12, 0.12),
        (0.85, 0.88, 0.88),
        (0.04, 0.04, 0.04),
    )
)
_PITCH = 20  # pixels of the scene between grid points
_CHIPS = ((2, 3, 6, 5), (13, 4, 5, 7), (4, 14, 5, 5), (14, 16, 7, 4))  # left, top, width, height on the grid


class Layout:
    """The board as designed: traces between grid points, pads at their ends, chips with legs."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20)  # the design, the same for every board
        self.traces = []
        for _ in range(46):
            x, y = rng.integers(1, S // _PITCH, 2)
            points = [(x, y)]
            for _ in range(int(rng.integers(2, 5))):
                dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (1, -1))[int(rng.integers(6))]
                reach = int(rng.integers(2, 6))
                x, y = np.clip((x + dx * reach, y + dy * reach), 1, S // _PITCH - 1)
                points.append((x, y))
            self.traces.append(np.array(points, dtype=np.float64) * _PITCH)
        self.pads = np.unique(np.concatenate([trace[[0, -1]] for trace in self.traces]), axis=0)
        self.marks = [(int(x), int(y)) for x, y in rng.integers(2, S // _PITCH - 2, (14, 2)) * _PITCH]


LAYOUT = Layout()


def _mix(scene: Float, opacity: Float, colour: Float) -> None:
    scene += opacity[:, :, None] * (colour - scene)


def _discs(centres: NDArray[np.float64], radii: NDArray[np.float64] | float) -> Float:
    canvas = np.zeros((S, S), dtype=np.uint8)
    for centre, radius in zip(centres, np.broadcast_to(radii, len(centres)), strict=True):
        at = [round(16 * c) for c in centre.tolist()]
        cv2.circle(canvas, at, round(16 * float(radius)), 255, -1, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def _chip(
    scene: Float, box: tuple[int, int, int, int], number: int, tint: float, turned: bool = False
) -> None:
    left, top, width, height = (_PITCH * edge for edge in box)
    for leg in range(left + 6, left + width - 4, 12):
        scene[top - 8 : top + height + 8, leg : leg + 5] = _TIN
    scene[top : top + height, left : left + width] = _CHIP * tint
    text = np.zeros((height, width), dtype=np.uint8)
    cv2.putText(text, f"{47 * (number + 2)}B", (8, height // 2 + 6), 0, 0.55, 255, 1, cv2.LINE_AA)
    cv2.circle(text, (8, height - 8), 3, 255, -1, cv2.LINE_AA)
    if turned:
        text = cv2.rotate(text, cv2.ROTATE_180)
    inside = scene[top : top + height, left : left + width]
    inside += 0.5 * text[:, :, None].astype(np.float32) / 255


def draw(rng: Rng, defect: str | None) -> Float:
    """A board `[S, S, 3]`; what differs from board to board is drawn from `rng` first, the defect last."""
    shift, turn = rng.normal(0, 1.2 * OVER, 2), rng.normal(0, 0.25)
    tints, blobs = rng.uniform(0.8, 1.4, len(_CHIPS)), rng.normal(0, 0.5, len(LAYOUT.pads))
    sheen, cloth, tone = grain(rng, 60), grain(rng, 1.5), rng.normal(1, 0.04, 3)
    which = rng.integers(0, 1 << 30, 4)
    scene = np.ones((S, S, 3), dtype=np.float32) * _MASK
    broken = which[0] % len(LAYOUT.traces) if defect in ("open", "thin") else -1
    copper = np.zeros((S, S), dtype=np.float32)
    for number, trace in enumerate(LAYOUT.traces):
        line = stroke(trace, 5)
        if number == broken:
            a, b = trace[0], trace[1]
            spot = a + (0.35 + 0.3 * rng.random()) * (b - a)
            width = 9 if defect == "open" else 5
            offset = np.zeros(2) if defect == "open" else rng.choice([-3.0, 3.0], 2)
            line = line * (1 - blot(rng, spot + offset, width))
        copper = np.maximum(copper, line)
    if defect == "short":
        x, y = LAYOUT.traces[which[0] % len(LAYOUT.traces)][1]
        ends = np.array([[x, y], [x + rng.choice([-1, 1]) * _PITCH, y + rng.choice([-1, 1]) * _PITCH]])
        copper = np.maximum(copper, stroke(ends, 5))
    _mix(scene, copper, _COPPER)
    unbored = which[1] % len(LAYOUT.pads) if defect == "hole" else -1
    _mix(scene, _discs(LAYOUT.pads, 8 + blobs), _TIN)
    _mix(scene, _discs(np.delete(LAYOUT.pads, unbored, axis=0) if unbored >= 0 else LAYOUT.pads, 3.5), _HOLE)
    printed = np.zeros((S, S), dtype=np.uint8)
    for number, mark in enumerate(LAYOUT.marks):
        cv2.putText(printed, f"R{number}", mark, 0, 0.4, 255, 1, cv2.LINE_AA)
    _mix(scene, printed.astype(np.float32) / 255, _PRINT)
    odd = which[2] % len(_CHIPS)
    for number, (box, tint) in enumerate(zip(_CHIPS, tints, strict=True)):
        if not (defect == "missing" and number == odd):
            _chip(scene, box, number, float(tint), turned=defect == "turned" and number == odd)
    where = rng.uniform(0.12, 0.88, 2) * S
    if defect == "scratch":
        _mix(scene, 0.7 * stroke(wander(rng, where, rng.uniform(40, 160), 0.06), 2), _TIN)
    elif defect == "flux":
        _mix(scene, 0.35 * blot(rng, where, rng.uniform(14, 36)), np.array((0.35, 0.5, 0.6), np.float32))
    scene = scene * (1 + 0.05 * sheen + 0.03 * cloth)[:, :, None] * tone.astype(np.float32)
    move = cv2.getRotationMatrix2D((S / 2, S / 2), turn, 1.0)
    move[:, 2] += shift
    return np.asarray(cv2.warpAffine(scene, move, (S, S), borderMode=cv2.BORDER_REFLECT_101), np.float32)
