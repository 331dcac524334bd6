"""Maps and images as PNG and JPEG: what is stored, and what people look at."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.decode import Image, decode
from models.preprocess import Preprocess, to_pixels, to_uint8

_COUNTS = 65535
_DIFFERENCE_GAIN = 4
PNG = "image/png"
JPEG = "image/jpeg"
_LEGEND_STEPS = 256
_OPAQUE_FROM = 0.5  # share of the colour scale
_FINER = 4  # grid on which outlines are drawn
_MAX_OUTLINES = 200


def encode_png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """`[H, W]`, or `[H, W, C]` gray, RGB or RGBA -> PNG."""
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels))
    if not done:
        raise ValueError(f"pixels of shape {pixels.shape} cannot be encoded")
    return data.tobytes()


def encode_map(amap: NDArray[np.float32]) -> tuple[bytes, float]:
    """Map `[H, W]` >= 0 -> 16-bit PNG and its scale in map units per count."""
    scale = max(float(amap.max()), 1e-6) / _COUNTS
    counts = np.rint(np.clip(amap / np.float32(scale), 0, _COUNTS)).astype(np.uint16)
    return encode_png(counts), scale


def decode_map(png: bytes, scale: float) -> NDArray[np.float32]:
    """Inverse of `encode_map`, up to half a count."""
    return _counts(png).astype(np.float32) * np.float32(scale)


def _counts(png: bytes) -> NDArray[np.uint16]:
    counts = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if counts is None:
        raise ValueError("not a PNG of a map")
    return counts.astype(np.uint16)


def colour_map(amap: NDArray[np.float32], top: float) -> bytes:
    """Map -> RGB PNG on the fixed scale 0..`top`; higher values saturate, so images can be compared."""
    return encode_png(_inferno(np.clip(amap / np.float32(top), 0.0, 1.0)))


def overlay(amap: NDArray[np.float32], top: float) -> bytes:
    """Map -> RGBA PNG in the colours of `colour_map`, the clearer the lower: laid over the image."""
    share = np.clip(amap / np.float32(top), 0.0, 1.0)
    alpha = np.rint(255 * np.minimum(1.0, share / _OPAQUE_FROM)).astype(np.uint8)
    return encode_png(np.dstack([_inferno(share), alpha]))


def packed(png: bytes) -> bytes:
    """A 16-bit map -> RGB PNG, high byte red, low byte green: browsers read no more than 8 bits."""
    wide = _counts(png)
    return encode_png(np.dstack((wide >> 8, wide & 255, np.zeros_like(wide))).astype(np.uint8))


def outlines(amap: NDArray[np.float32], threshold: float, image_size: tuple[int, int]) -> str:
    """Where the map `[H, W]` crosses a value, as the path of an SVG in pixels of an image (height, width)."""
    height, width = (side * _FINER for side in amap.shape)
    fine = cv2.resize(amap, (width, height), interpolation=cv2.INTER_LINEAR)
    found, _ = cv2.findContours((fine >= threshold).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    ratio_y, ratio_x = image_size[0] / height, image_size[1] / width
    path = []
    for outline in found[:_MAX_OUTLINES]:
        points = cv2.approxPolyDP(outline, 0.6, closed=True)[:, 0, :] + 0.5
        path.append("M" + "L".join(f"{x * ratio_x:.1f} {y * ratio_y:.1f}" for x, y in points) + "Z")
    return "".join(path)


def legend() -> bytes:
    """The colour scale of `colour_map` from 0 (left) to its top, `[1, 256]` PNG."""
    return encode_png(_inferno(np.linspace(0.0, 1.0, _LEGEND_STEPS, dtype=np.float32)[None]))


def encode_reconstruction(reconstruction: NDArray[np.float32]) -> bytes:
    """`[C, H, W]` in [-1, 1] -> PNG."""
    return encode_png(to_pixels(reconstruction))


def difference(image: Image, reconstruction_png: bytes) -> bytes:
    """|image - reconstruction| at the network's resolution, mean over channels, times 4, as gray PNG."""
    healthy = decode(reconstruction_png, min_side_px=1).pixels
    height, width, channels = healthy.shape
    spec = Preprocess(height=height, width=width, channels=3 if channels == 3 else 1)
    seen = to_uint8(image, spec).transpose(1, 2, 0)
    gap = np.abs(seen.astype(np.float32) - healthy.astype(np.float32)).mean(axis=2)
    return encode_png(np.clip(gap * _DIFFERENCE_GAIN, 0, 255).astype(np.uint8))


def preview(image: Image, size_px: int) -> bytes:
    """An upright 8-bit JPEG no larger than `size_px` a side: browsers cannot show TIFF."""
    pixels: NDArray[Any] = image.pixels
    shrink = min(1.0, size_px / max(image.size))
    if shrink < 1.0:
        height, width = (max(1, round(side * shrink)) for side in image.size)
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        pixels = pixels[:, :, ::-1]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return data.tobytes()


def _inferno(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    # Perceptually uniform and monotone in lightness, so it also reads in gray and for the colour-blind.
    counts = np.rint(values * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(counts, cv2.COLORMAP_INFERNO)[:, :, ::-1])
