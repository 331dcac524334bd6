"""Ignore masks: where a part is not inspected, whatever is there.

Inside the mask every map of evidence is filled with what is typical outside it, before smoothing, so that
nothing leaks out over its edge; afterwards the area is 0 in the anomaly map, and neither the score nor the
median of the image is taken over it.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]  # [H, W], True where the part is not inspected


class MaskError(ValueError):
    """The mask cannot be used; the message says why."""


def from_pixels(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Mask:
    """Decoded image `[H, W]` or `[H, W, C]` -> mask: True where it is nearer to white than to black."""
    gray = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if gray.ndim == 3:
        gray = gray[:, :, :3].mean(axis=2)
    return np.asarray(gray >= 0.5)


def from_polygons(polygons: Iterable[Sequence[tuple[float, float]]], height: int, width: int) -> Mask:
    """The union of polygons of (x, y) corners in pixels of an image of that size; MaskError for others."""
    canvas = np.zeros((height, width), dtype=np.uint8)
    for number, corners in enumerate(polygons):
        if len(corners) < 3:
            raise MaskError(f"polygon {number} has {len(corners)} corners; at least 3 are needed")
        points = np.asarray(corners, dtype=np.float64)
        if not ((points >= 0) & (points <= (width, height))).all():  # also false for not-a-number
            raise MaskError(f"polygon {number} leaves the image of {width} x {height} pixels")
        # One by one: drawn together, what two polygons share would be left out.
        cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 1)
    return canvas.astype(np.bool_)


def to_png(mask: Mask) -> bytes:
    """White where the part is not inspected, black elsewhere."""
    return bytes(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes())


def resize(mask: Mask, size: tuple[int, int]) -> Mask:
    """`[H, W]` -> `[*size]`, each pixel that of the nearest place."""
    if mask.shape == size:
        return mask
    found = cv2.resize(mask.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(found, dtype=np.bool_)


def check(mask: Mask, size: tuple[int, int]) -> None:
    """MaskError unless something is left to inspect in a map of (height, width)."""
    if resize(mask, size).all():
        raise MaskError("the mask covers everything: nothing would be inspected")


def join(*masks: Mask | None) -> Mask | None:
    """What any of the masks covers, at the size of the first one that is not None."""
    found: Mask | None = None
    for mask in masks:
        if mask is not None:
            found = mask if found is None else found | resize(mask, (found.shape[0], found.shape[1]))
    return found


def fill(values: Float, mask: Mask | None) -> Float:
    """`[..., H, W]` with each map's median outside the mask put inside it; the input is not changed."""
    if mask is None:
        return values
    inside = resize(mask, (values.shape[-2], values.shape[-1]))
    filled = values.copy()
    filled[..., inside] = np.median(values[..., ~inside], axis=-1)[..., None]
    return filled


def hide(values: Float, mask: Mask | None, low: float = 0.0) -> Float:
    """`[..., H, W]` with `low` inside the mask; the input is not changed."""
    if mask is None:
        return values
    return np.where(resize(mask, (values.shape[-2], values.shape[-1])), np.float32(low), values)


def outside(values: Float, mask: Mask | None) -> Float:
    """The pixels `[N]` of a map `[H, W]` that are inspected."""
    if mask is None:
        return values.ravel()
    return np.asarray(values[~resize(mask, (values.shape[0], values.shape[1]))])


def inspected_share(mask: Mask | None, size: tuple[int, int]) -> float:
    """Share of a map of (height, width) that is inspected."""
    return 1.0 if mask is None else float((~resize(mask, size)).mean())
