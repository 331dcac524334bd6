"""Labelled test images in the MVTec AD layout, made on the spot."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray


def part(index: int) -> NDArray[np.uint8]:
    """A gray part of 44 x 60 px with a gradient and grain."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:44, :60]
    return np.clip(100 + 0.5 * x + 0.3 * y + rng.normal(0, 5, (44, 60)), 0, 255).astype(np.uint8)


@pytest.fixture
def labelled_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of 6 good parts, 4 with a hole and 4 with a crack; returns its path."""

    def make(name: str = "parts") -> Path:
        root = tmp_path / name
        for kind, count in (("good", 6), ("hole", 4), ("crack", 4)):
            (root / "test" / kind).mkdir(parents=True)
            for index in range(count):
                image, mask = part(index + 100 * len(kind)), np.zeros((44, 60), np.uint8)
                if kind == "hole":
                    cv2.circle(mask, (15 + 5 * index, 20), 5, 255, -1)
                elif kind == "crack":
                    cv2.line(mask, (5, 10 + 4 * index), (50, 30), 255, 1)
                image[mask > 0] = 10
                cv2.imwrite(str(root / "test" / kind / f"{index}.png"), image)
                if kind != "good":
                    (root / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(root / "ground_truth" / kind / f"{index}_mask.png"), mask)
        return root

    return make
