"""What is noted of a picture on its way to the network."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.decode import Image
from service.prepare import marks

FLOAT32 = 1e-5  # relative; what fractions of 1 in float32 are good for


def exact(gray: NDArray[np.int64], top: int) -> tuple[float, float]:
    """Mean and variance of the Laplacian of `[H, W]`, in whole numbers until they are divided."""
    padded = np.pad(gray, 1, mode="reflect")
    edges = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * gray
    count, total, squares = edges.size, int(edges.sum()), int((edges**2).sum())
    return int(gray.sum()) / count / top, (count * squares - total**2) / count**2 / top**2


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("picture", ["noise", "extremes", "flat", "column"])
def test_marks_are_exact(kind: type[np.uint8] | type[np.uint16], picture: str) -> None:
    rng, top = np.random.default_rng(3), int(np.iinfo(kind).max)
    shape = (9, 1) if picture == "column" else (301, 487)
    pixels: NDArray[Any] = rng.integers(0, top, shape, endpoint=True).astype(kind)
    if picture == "extremes":  # as large as a Laplacian becomes
        pixels = (top * (np.indices(shape).sum(axis=0) % 2)).astype(kind)
    elif picture == "flat":
        pixels = np.full(shape, top, dtype=kind)
    assert marks(Image(pixels[:, :, None], "image/png")) == pytest.approx(
        exact(pixels.astype(np.int64), top), rel=1e-12, abs=1e-15
    )


def test_colour_counts_as_its_gray_value() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    gray: NDArray[Any] = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    assert marks(Image(pixels, "image/png")) == marks(Image(gray[:, :, None], "image/png"))


def test_they_are_what_older_rows_hold() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (200, 300, 1)).astype(np.uint8)
    gray = pixels[:, :, 0].astype(np.float32) / np.float32(255)
    older = float(gray.mean()), float(cv2.Laplacian(gray, cv2.CV_32F).var())
    assert marks(Image(pixels, "image/png")) == pytest.approx(older, rel=FLOAT32)
