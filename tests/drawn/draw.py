"""What all drawn kinds share: noise, strokes, and the photograph of a scene with its mask of truth."""

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Rng = np.random.Generator
SIDE = 256
OVER = 2
"""Drawn this many times larger, then averaged: edges look optical."""
_TRUTH_LEVELS = 6
"""A pixel belongs to the defect if it changed by more gray levels than this."""
_SHIFT = 4  # fractional bits of cv2's coordinates


def grain(rng: Rng, sigma_px: float, side: int = SIDE * OVER) -> Float:
    """Smooth noise `[side, side]`, zero mean, unit variance."""
    coarse = max(1, int(sigma_px // 4))  # blurred small: wide kernels are slow
    white = rng.standard_normal((side // coarse, side // coarse), dtype=np.float32)
    small = cv2.GaussianBlur(white, (0, 0), sigma_px / coarse)
    noise = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


def stroke(points: NDArray[np.float64], width_px: float) -> Float:
    """Opacity `[S, S]` of a line through `points [N, 2]` (x, y), pixels of the scene."""
    canvas = np.zeros((SIDE * OVER, SIDE * OVER), dtype=np.uint8)
    fixed = np.round(points * 2**_SHIFT).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, 255, max(1, round(width_px)), cv2.LINE_AA, _SHIFT)
    return canvas.astype(np.float32) / 255


def wander(rng: Rng, start: NDArray[np.float64], length_px: float, wobble: float) -> NDArray[np.float64]:
    """A slightly crooked path `[N, 2]` in a random direction."""
    turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wobble, 24))
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length_px / 24
    return np.asarray(start + np.cumsum(steps, axis=0), dtype=np.float64)


def blot(rng: Rng, centre: NDArray[np.float64], radius_px: float) -> Float:
    """Opacity `[S, S]` of a ragged spot."""
    y, x = np.mgrid[: SIDE * OVER, : SIDE * OVER].astype(np.float32)
    away = np.hypot(x - centre[0], y - centre[1]) / radius_px
    return np.asarray(np.clip(3 * (1.1 - away + 0.35 * grain(rng, radius_px / 2)), 0, 1), dtype=np.float32)


def photograph(scene: Float, noise: Float, exposure: float) -> Pixels:
    """Scene `[S, S, C]` in 0..1 -> `[SIDE, SIDE, C]`: averaged down, exposed, with the sensor's noise."""
    small = cv2.resize(scene, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(SIDE, SIDE, -1)
    return np.asarray(np.rint(255 * np.clip(small * exposure + noise, 0, 1)), dtype=np.uint8)


def truth(good: Pixels, bad: Pixels) -> Pixels:
    """255 where the defect changed the photograph, closed a little, `[SIDE, SIDE]`."""
    changed = (np.abs(bad.astype(np.int16) - good).max(axis=2) > _TRUTH_LEVELS).astype(np.uint8)
    return np.asarray(255 * cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.uint8)
