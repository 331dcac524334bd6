"""Residuals by name: zero for equal images, SSIM by its formula, and structure where pixels say little."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.residuals import RESIDUALS, ssim, structure

Float = NDArray[np.float32]


def textured(seed: int = 0, side: int = 64) -> Float:
    grain = np.random.default_rng(seed).standard_normal((1, side, side)).astype(np.float32)
    return np.clip(0.3 * grain, -1, 1)


@pytest.mark.parametrize("name", RESIDUALS)
def test_equal_images_differ_nowhere_and_others_somewhere(name: str) -> None:
    x, y = textured(0), textured(1)
    np.testing.assert_allclose(RESIDUALS[name](x, x), 0, atol=1e-6)
    found = RESIDUALS[name](np.stack([x, y])[:, None], np.stack([[y, x], [x, y]]))
    assert found.shape == (2, 2, 64, 64)
    assert found.min() >= 0
    assert found[0, 0].mean() > 10 * found[0, 1].mean()


def test_ssim_of_constant_images_is_that_of_their_brightness() -> None:
    a, b = np.full((32, 32), 0.2, np.float32), np.full((32, 32), 0.6, np.float32)
    c1 = 0.01**2
    np.testing.assert_allclose(ssim(a, b), (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1), rtol=1e-4)
    np.testing.assert_allclose(ssim(a, a), 1, rtol=1e-5)


def test_ssim_of_an_image_and_its_negative_is_negative() -> None:
    x = (textured()[0] + 1) / 2
    assert float(np.mean(ssim(x, 1 - x))) < -0.5


def test_lost_texture_is_lost_structure_though_the_brightness_is_right() -> None:
    x = textured()
    restored = x.copy()
    restored[0, 20:44, 20:44] = cv2.GaussianBlur(x[0], (0, 0), 4)[20:44, 20:44]
    found = structure(x, restored)
    inside, outside = found[24:40, 24:40], found[:8]
    assert float(inside.min()) > 5 * float(outside.max())
    brighter = structure(x, x + np.float32(0.1))
    assert float(np.median(inside)) > 3 * float(np.median(brighter))
