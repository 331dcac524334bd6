"""Small images of the most suspicious training images, for the audit by people."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

COUNT = 200
SIDE_PX = 256
_QUALITY = 90  # small defects must stay to be seen


def shrunk(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Pixels `[C, H, W]` (gray or RGB) -> `[h, w, C]` in the order of OpenCV, no side above `side_px`."""
    bgr = np.ascontiguousarray(pixels.transpose(1, 2, 0)[:, :, ::-1])
    scale = side_px / max(bgr.shape[:2])
    if scale >= 1:
        return bgr
    return np.asarray(cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def write_thumbnails(path: Path, images: Sequence[NDArray[np.uint8]]) -> None:
    """Images `[C, H, W]` by rank as WebP: one uint8 array of bytes each, named "1", "2" and so on."""
    settings = [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
    encoded = (cv2.imencode(".webp", shrunk(pixels, SIDE_PX), settings)[1] for pixels in images)
    save_file({str(rank): data.ravel() for rank, data in enumerate(encoded, start=1)}, path)
