"""Bytes -> pixels for requests: the shared decode path, off the event loop, with helpful errors."""

import asyncio

from models.decode import DecodeError, Image, TooManyPixels, TooSmall, UnsupportedFormat, decode, sniff
from service.errors import InspectionError

_FORMATS = "send a PNG, JPEG, BMP, TIFF or WebP image with 8 or 16 bits per channel"


class Decoder:
    """Decodes at most `concurrency` images at a time: a burst of large ones cannot fill the memory."""

    def __init__(self, max_pixels: int, concurrency: int = 2) -> None:
        self._max_pixels = max_pixels
        self._slots = asyncio.Semaphore(concurrency)

    async def decode(self, data: bytes) -> Image:
        """Decode one image; InspectionError 415 (format), 413 (pixels) or 422 (damaged, too small)."""
        async with self._slots:
            return await asyncio.to_thread(decode_or_explain, data, self._max_pixels)


def decode_or_explain(data: bytes, max_pixels: int) -> Image:
    """`models.decode` with its errors as problems that say what to do."""
    if not data:
        raise InspectionError(422, "empty-image", f"the image has no bytes; {_FORMATS}")
    try:
        return decode(data, max_pixels=max_pixels)
    except UnsupportedFormat as error:
        raise InspectionError(415, "unsupported-format", f"{error}; {_FORMATS}") from None
    except TooManyPixels:
        detail = (
            f"the {sniff(data)} image has more than the {max_pixels} pixels allowed; "
            "crop or shrink it, or raise INLIER_MAX_PIXELS"
        )
        raise InspectionError(413, "too-many-pixels", detail) from None
    except DecodeError as error:
        code = "image-too-small" if isinstance(error, TooSmall) else "damaged-image"
        raise InspectionError(422, code, f"{error}; {_FORMATS}") from None
