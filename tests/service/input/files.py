"""Image files made here: whole ones in many forms, and ones that are damaged in a way that can be seen."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from tests.service.conftest import texture

PIXELS = texture(1, (48, 64))


def encoded(image: Pillow.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb() -> Pillow.Image:
    return Pillow.fromarray(PIXELS)


def cmyk() -> Pillow.Image:
    """With black in it, and no two channels alike."""
    rng = np.random.default_rng(5)
    inks = cv2.GaussianBlur(rng.integers(0, 255, (48, 64, 4), dtype=np.uint8), (0, 0), 4)
    return Pillow.frombytes("CMYK", (64, 48), inks.tobytes())


def opencv(suffix: str, pixels: NDArray[np.uint8] | NDArray[np.uint16], *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


def without_adobe_marker(jpeg: bytes) -> bytes:
    """A CMYK file of a program that does not say how its inks are written."""
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


LZW = (cv2.IMWRITE_TIFF_COMPRESSION, 5)
WHOLE: dict[str, bytes] = {
    "png": encoded(rgb(), "PNG"),
    "png stored": encoded(rgb(), "PNG", compress_level=0),
    "png 16 bit": opencv(".png", PIXELS.astype(np.uint16) * 257),
    "png gray": encoded(rgb().convert("L"), "PNG"),
    "png palette": encoded(rgb().quantize(16), "PNG"),
    "jpeg": encoded(rgb(), "JPEG", quality=95),
    "jpeg progressive": encoded(rgb(), "JPEG", quality=95, progressive=True),
    "jpeg cmyk": encoded(cmyk(), "JPEG", quality=98),
    "bmp": encoded(rgb(), "BMP"),
    "tiff": encoded(rgb(), "TIFF"),
    "tiff lzw": encoded(rgb(), "TIFF", compression="tiff_lzw"),
    "tiff gray lzw": opencv(".tiff", PIXELS[:, :, 0], *LZW),
    "tiff deflate": encoded(rgb(), "TIFF", compression="tiff_adobe_deflate"),
    "tiff jpeg": encoded(rgb(), "TIFF", compression="jpeg"),
    "webp": encoded(rgb(), "WEBP"),
    "webp lossless": encoded(rgb(), "WEBP", lossless=True),
}


def _zeroed(data: bytes, at: float, count: int = 40) -> bytes:
    start = round(len(data) * at)
    return data[:start] + bytes(count) + data[start + count :]


def _damaged() -> dict[str, bytes]:
    found = {f"{name} at {share:.0%}": WHOLE[name][: round(len(WHOLE[name]) * share)]
             for name in WHOLE for share in (0.3, 0.6, 0.95)}  # fmt: skip
    seen: list[tuple[str, float]] = [("png", 0.5), ("png stored", 0.5), ("tiff lzw", 0.3), ("tiff lzw", 0.6)]
    seen += [("tiff gray lzw", 0.4), ("jpeg cmyk", 0.5), ("jpeg cmyk", 0.8)]
    return found | {f"{name}, a hole at {at:.0%}": _zeroed(WHOLE[name], at) for name, at in seen}


DAMAGED = _damaged()
"""Cut off, or with a hole that the decoder notices. What has no checksum may hide one (BMP, raw TIFF)."""
