"""`demo-data`: made-up photographs of a brushed-metal flange, some defective, in the MVTec-AD layout.

For the demo and the tests, where no real images may be shipped. The truth about the training images
goes to `train_truth.csv`, which nothing in the trainer reads.
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Mask = NDArray[np.uint8]
OVERSAMPLING = 2  # drawn at twice the size, then averaged: edges look optical
OUTER, BORE, BOLT_CIRCLE, BOLT = 0.84, 0.26, 0.56, 0.075  # radii in units of half the image side
LIGHT = (-0.6, -0.8)  # direction the light comes from
TRUTH_LEVELS = 4  # a pixel belongs to a defect if the defect changed it by more gray levels than this


@dataclass
class Scene:
    """A part before it is photographed; defects change `metal` or `coverage` in place."""

    metal: Float  # [S, S] brightness of the part's surface, 0..1
    coverage: Float  # [S, S] 1 where the part is, 0 where the background shows
    background: Float  # [S, S]
    x: Float  # [S, S] position relative to the part's centre, in units of half the image side
    y: Float


Defect = Callable[[Scene, np.random.Generator], None]


def _smooth_noise(rng: np.random.Generator, side: int, sigma_x: float, sigma_y: float) -> Float:
    """Gaussian-filtered white noise `[side, side]`, zero mean and unit variance."""
    white = rng.standard_normal((side, side), dtype=np.float32)
    noise = np.asarray(cv2.GaussianBlur(white, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y), dtype=np.float32)
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


def _step(distance: Float, side: int) -> Float:
    """1 where `distance` is negative, 0 where positive, with an edge of about a pixel and a half."""
    return np.clip(0.5 - distance * side / 3, 0, 1)


def _rim(distance: Float) -> Float:
    """The bevel along an edge: 1 on the edge, fading inwards."""
    return np.asarray(np.exp(-((distance / 0.03) ** 2)), dtype=np.float32)


def draw_scene(rng: np.random.Generator, side: int) -> Scene:
    """A good part: pose, light, grain and background vary a little from part to part."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    grid_x, grid_y = np.meshgrid(axis, axis)
    x, y = grid_x - rng.uniform(-0.03, 0.03), grid_y - rng.uniform(-0.03, 0.03)
    turn = math.radians(rng.uniform(-4, 4))
    radius = np.hypot(x, y)
    towards_light = (x * LIGHT[0] + y * LIGHT[1]) / np.maximum(radius, 1e-3)

    streaks = _smooth_noise(rng, side, side / 10, 0.8) + 0.6 * _smooth_noise(rng, side, side / 4, side / 60)
    rotation = cv2.getRotationMatrix2D((side / 2, side / 2), -math.degrees(turn), 1.0)
    streaks = cv2.warpAffine(streaks, rotation, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    across = y * math.cos(turn) - x * math.sin(turn)
    metal = 0.52 + 0.035 * streaks - 0.10 * (x * 0.5 + y * 0.9)
    metal += 0.13 * np.exp(-(((across + rng.normal(0.25, 0.04)) / 0.35) ** 2))  # anisotropic highlight
    metal += 0.20 * towards_light * _rim(radius - OUTER)
    metal -= 0.20 * towards_light * _rim(radius - BORE)

    coverage = _step(radius - OUTER, side) * _step(BORE - radius, side)
    for k in range(4):
        angle = turn + math.pi / 4 + k * math.pi / 2
        dx, dy = x - BOLT_CIRCLE * math.cos(angle), y - BOLT_CIRCLE * math.sin(angle)
        hole = np.hypot(dx, dy)
        metal -= 0.18 * (dx * LIGHT[0] + dy * LIGHT[1]) / np.maximum(hole, 1e-3) * _rim(hole - BOLT)
        coverage = coverage * _step(BOLT - hole, side)

    background = 0.15 + 0.012 * _smooth_noise(rng, side, 1.2, 1.2) + 0.03 * grid_x
    shift = np.array([[1, 0, side * 0.02], [0, 1, side * 0.03]], dtype=np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(coverage, shift, (side, side)), (0, 0), side * 0.02)
    return Scene(metal.astype(np.float32), coverage.astype(np.float32), background * (1 - 0.6 * shadow), x, y)


def _place(scene: Scene, rng: np.random.Generator, margin: float) -> tuple[float, float]:
    """A random spot on the part's surface, at least `margin` inside its outer edge and off its holes."""
    while True:
        radius, angle = rng.uniform(BORE + margin, OUTER - margin), rng.uniform(0, 2 * math.pi)
        x, y = radius * math.cos(angle), radius * math.sin(angle)
        nearest = np.unravel_index(np.argmin((scene.x - x) ** 2 + (scene.y - y) ** 2), scene.x.shape)
        if scene.coverage[nearest] > 0.99:
            return x, y


def scratch(scene: Scene, rng: np.random.Generator) -> None:
    """A thin curved groove: a bright flank beside a dark one."""
    side = scene.metal.shape[0]
    x, y = _place(scene, rng, 0.08)
    angle, length, bend = rng.uniform(0, math.pi), rng.uniform(0.22, 0.6), rng.uniform(-0.3, 0.3)
    along = np.linspace(-0.5, 0.5, 40) * length
    px = x + along * math.cos(angle) - bend * along**2 / length * math.sin(angle)
    py = y + along * math.sin(angle) + bend * along**2 / length * math.cos(angle)
    centre_x, centre_y = -scene.x[0, 0] - 1, -scene.y[0, 0] - 1
    points = (np.stack([px + centre_x, py + centre_y], axis=1) + 1) / 2 * (side - 1)
    line = np.zeros_like(scene.metal)
    cv2.polylines(line, [np.round(points * 16).astype(np.int32)], False, 1.0, 1, cv2.LINE_AA, 4)
    line = np.clip(cv2.GaussianBlur(line, (0, 0), side * rng.uniform(0.0025, 0.005)) * 2.5, 0, 1)
    strength = rng.uniform(0.15, 0.40)
    scene.metal += strength * line - 0.8 * strength * np.roll(line, (2, 1), axis=(0, 1))


def spot(scene: Scene, rng: np.random.Generator) -> None:
    """A stain: a few merged soft ellipses, darker than the surface."""
    x, y = _place(scene, rng, 0.1)
    size, strength = rng.uniform(0.035, 0.10), rng.uniform(0.12, 0.35)
    stain = np.zeros_like(scene.metal)
    for _ in range(4):
        dx, dy = scene.x - x - rng.normal(0, size / 2), scene.y - y - rng.normal(0, size / 2)
        radii = size * rng.uniform(0.5, 1.0, 2)
        stain = np.maximum(stain, np.clip(2.5 - 2.5 * np.hypot(dx / radii[0], dy / radii[1]), 0, 1))
    scene.metal *= 1 - strength * 1.6 * stain


def dent(scene: Scene, rng: np.random.Generator) -> None:
    """A shallow hollow: shaded on the side of the light, bright on the other."""
    x, y = _place(scene, rng, 0.14)
    size, strength = rng.uniform(0.035, 0.08), rng.uniform(0.15, 0.40)
    dx, dy = (scene.x - x) / size, (scene.y - y) / size
    slope = -(dx * LIGHT[0] + dy * LIGHT[1]) * np.exp(0.5 - 0.5 * (dx**2 + dy**2))
    scene.metal += strength * slope


def chip(scene: Scene, rng: np.random.Generator) -> None:
    """A piece broken off the outer edge: the background shows."""
    side = scene.metal.shape[0]
    angle, size = rng.uniform(0, 2 * math.pi), rng.uniform(0.06, 0.14)
    dx = scene.x - (OUTER + 0.02) * math.cos(angle)
    dy = scene.y - (OUTER + 0.02) * math.sin(angle)
    ragged = 1 + 0.15 * np.sin(5 * np.arctan2(dy, dx) + rng.uniform(0, 2 * math.pi))
    gap = np.hypot(dx, dy) - size * ragged
    scene.metal += 0.15 * _rim(gap)
    scene.coverage *= 1 - _step(gap, side)


DEFECTS: dict[str, Defect] = {"scratch": scratch, "spot": spot, "dent": dent, "chip": chip}


def photograph(scene: Scene, size: int, noise: Float, exposure: float) -> Mask:
    """Scene -> `[size, size]` uint8: composed, averaged down, exposed, with sensor noise."""
    full = scene.metal * scene.coverage + scene.background * (1 - scene.coverage)
    small = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(np.clip(small * exposure + noise, 0, 1) * 255), dtype=np.uint8)


def draw_part(entropy: tuple[int, ...], size: int, defect: str | None) -> tuple[Mask, Mask]:
    """One photograph and the mask of its defect (255 inside), both `[size, size]` uint8.

    The same entropy gives the same part with and without a defect, so the truth is known exactly:
    the pixels that the defect changed.
    """
    rng = np.random.default_rng(entropy)
    scene = draw_scene(rng, size * OVERSAMPLING)
    noise = 0.008 * rng.standard_normal((size, size), dtype=np.float32)
    exposure = rng.uniform(0.94, 1.06)
    good = photograph(scene, size, noise, exposure)
    if defect is None:
        return good, np.zeros_like(good)
    DEFECTS[defect](scene, rng)
    bad = photograph(scene, size, noise, exposure)
    changed = cv2.absdiff(bad, good) > TRUTH_LEVELS
    mask = cv2.morphologyEx(changed.astype(np.uint8) * 255, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return bad, np.asarray(mask, dtype=np.uint8)


def _save(path: Path, pixels: Mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"could not write {path}")


def write_demo_data(out: Path, images: int, contamination: float, size: int, seed: int) -> dict[str, int]:
    """Write `train/`, `test/`, `ground_truth/` and `train_truth.csv` below `out`; returns image counts.

    Deterministic in all arguments. FileExistsError when `out` already holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name a folder that is empty or does not exist yet")
    types = tuple(DEFECTS)
    rng = np.random.default_rng(seed)
    defective = set(rng.permutation(images)[: round(images * contamination)].tolist())
    truth: list[tuple[str, str]] = []
    for index in range(images):
        kind = types[rng.integers(len(types))] if index in defective else None
        name = f"train/{index:04d}.png"
        _save(out / name, draw_part((seed, 0, index), size, kind)[0])
        truth.append((name, kind or "good"))
    with (out / "train_truth.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "truth"), *truth])

    counts = {"train": images, "train defective": len(defective)}
    for number, kind in enumerate(("good", *types)):
        counts[f"test {kind}"] = count = max(2, images // (8 if kind == "good" else 24))
        for index in range(count):
            defect = None if kind == "good" else kind
            pixels, mask = draw_part((seed, 1 + number, index), size, defect)
            _save(out / "test" / kind / f"{index:03d}.png", pixels)
            if defect:
                _save(out / "ground_truth" / kind / f"{index:03d}_mask.png", mask)
    return counts


@click.command("demo-data")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--images", type=click.IntRange(min=1), default=240, show_default=True, help="Training images.")
@click.option(
    "--contamination",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Share of the training images that are defective.",
)
@click.option("--size", type=click.IntRange(32, 1024), default=128, show_default=True, help="Pixels a side.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the parts.")
def demo_data(out: Path, images: int, contamination: float, size: int, seed: int) -> None:
    """Write made-up parts with known defects to OUT, in the MVTec-AD layout."""
    for what, count in write_demo_data(out, images, contamination, size, seed).items():
        click.echo(f"{what:<16}{count}")
