"""Encoded image bytes -> pixels: the one decode path of trainer and service.

The format is sniffed from the content, never from a file name. Colour comes out as RGB.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


class DecodeError(ValueError):
    """The bytes are not an image that can be inspected; the message says why."""


class UnsupportedFormat(DecodeError):
    """The content is none of PNG, JPEG, BMP, TIFF, WebP."""


class TooManyPixels(DecodeError):
    """The image is larger than allowed."""


class TooSmall(DecodeError):
    """The image is smaller than anything that can be inspected."""


@dataclass(frozen=True)
class Image:
    """Decoded pixels `[H, W, C]`, uint8 or uint16, C = 1 (gray) or 3 (RGB), orientation applied."""

    pixels: Pixels
    media_type: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def sniff(data: bytes) -> str:
    """The media type told by the first bytes; UnsupportedFormat if it is none we read."""
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise UnsupportedFormat("not a PNG, JPEG, BMP, TIFF or WebP image (told by content, not by name)")


def decode(data: bytes, *, max_pixels: int = 1 << 26, min_side_px: int = 8) -> Image:
    """Decode one image; EXIF orientation is honoured, an alpha channel is dropped, 16 bits are kept.

    Raises UnsupportedFormat or DecodeError for anything that is not a whole, sane image, and MemoryError.
    """
    media_type = sniff(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error as error:
        # OpenCV has a limit of its own (OPENCV_IO_MAX_IMAGE_PIXELS) and checks it before it allocates.
        if "IMAGE_PIXELS" in error.err:
            raise TooManyPixels(f"more than the {max_pixels} px allowed") from None
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no memory to decode the {media_type} data") from None
        raise DecodeError(f"the {media_type} data could not be decoded: {error.err}") from None
    if pixels is None:
        raise DecodeError(f"the {media_type} data is damaged or incomplete")
    height, width = pixels.shape[:2]
    if height * width > max_pixels:
        raise TooManyPixels(f"{width} x {height} px is more than the {max_pixels} px allowed")
    if min(height, width) < min_side_px:
        raise TooSmall(f"{width} x {height} px is too small to inspect (at least {min_side_px} px a side)")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DecodeError(f"{pixels.dtype} pixels are not supported, only 8 and 16 bit")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    elif pixels.shape[2] == 3:
        pixels = np.ascontiguousarray(pixels[:, :, ::-1])
    else:
        raise DecodeError(f"{pixels.shape[2]} channels are not supported, only gray and colour")
    return Image(cast(Pixels, pixels), media_type)
