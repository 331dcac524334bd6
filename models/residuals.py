"""Residuals: how an image differs from its reconstruction, place by place, by the name a profile's map gives.

A residual takes images and reconstructions `[..., C, H, W]` in [-1, 1], which broadcast against each other,
and gives `[..., H, W]`: not negative, 0 where the two are equal.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from models.anomaly import residual as pixel
from models.evidence import resize, smooth

Float = NDArray[np.float32]
Residual = Callable[[Float, Float], Float]

SCALES = 3
WINDOW_PX = 1.5
"""Standard deviation of the Gaussian window, at every scale."""
_C1, _C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for a range of 1


def structure(x: Float, reconstruction: Float) -> Float:
    """Lost structure rather than lost brightness: `[..., C, H, W]` twice -> `[..., H, W]`.

    With both images brought to [0, 1] and halved `SCALES - 1` times, the mean over channels and scales s of

        (1 - SSIM(x_s, y_s)) + | |grad x_s| - |grad y_s| |

    each brought back to `[H, W]`: SSIM of Wang et al. 2004 (eq. 13) in a Gaussian window, and the
    difference of the gradients' magnitudes, in the range per pixel. The scales are averaged, not multiplied
    as in Wang et al. 2003, because each must say where. Both measures at several scales beside each other
    are those of RIAD (Zavrtanik et al. 2021).
    """
    x, y = np.broadcast_arrays(x, reconstruction)
    size = x.shape[-2:]
    planes = zip(x.reshape(-1, *size), y.reshape(-1, *size), strict=True)
    found = np.stack([_structure((a + 1) / 2, (b + 1) / 2) for a, b in planes])
    return np.asarray(found.reshape(x.shape).mean(axis=-3), dtype=np.float32)


def _structure(a: Float, b: Float) -> Float:
    """One plane `[H, W]` in [0, 1] against another."""
    size = a.shape
    total = np.zeros(size, dtype=np.float32)
    for scale in range(SCALES):
        smaller = tuple(max(1, side // 2**scale) for side in size)
        a, b = resize(a, smaller), resize(b, smaller)
        total += resize(1 - ssim(a, b) + np.abs(_gradient(a) - _gradient(b)), size)
    return np.asarray(np.maximum(total / SCALES, 0), dtype=np.float32)


def ssim(a: Float, b: Float) -> Float:
    """Structural similarity of two planes `[H, W]` in [0, 1] -> `[H, W]` in [-1, 1] (Wang et al. 2004)."""
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    above = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    return np.asarray(above / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)), dtype=np.float32)


def _window(values: Float) -> Float:
    return smooth(values, WINDOW_PX)


def _gradient(values: Float) -> Float:
    """Magnitude of the gradient of `[H, W]`, per pixel (Sobel)."""
    across = cv2.Sobel(values, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(values, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(np.hypot(across, down), dtype=np.float32)


RESIDUALS: dict[str, Residual] = {"pixel": pixel, "structure": structure}
