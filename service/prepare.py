"""From an image to what the network is given, and what is noted of the picture on the way."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.decode import Image
from models.preprocess import Preprocess, preprocess


@dataclass
class Prepared:
    """A network input with the marks of its picture; `spent_s` is the time of the stages so far."""

    model_hash: str  # whose preprocessing it went through
    tensor: NDArray[np.float32]  # [C, H, W] in [-1, 1]
    brightness: float
    sharpness: float
    started: float  # monotonic; when this process first had the image
    ready: float  # monotonic; when it was ready for the engine
    spent_s: dict[str, float] = field(default_factory=dict)


class Handover:
    """What this process prepared when it accepted an image, for its own worker; the oldest go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: OrderedDict[str, Prepared] = OrderedDict()

    def give(self, identifier: str, prepared: Prepared) -> None:
        self._waiting[identifier] = prepared
        while len(self._waiting) > self._most:
            self._waiting.popitem(last=False)

    def find(self, identifier: str) -> Prepared | None:
        """It stays until `forget`: an attempt may fail and the next one wants it again."""
        return self._waiting.get(identifier)

    def forget(self, identifier: str) -> None:
        self._waiting.pop(identifier, None)


def network_input(image: Image, spec: Preprocess) -> tuple[NDArray[np.float32], float, float]:
    """The network's input `[C, H, W]`, and brightness and sharpness of the picture as it was sent."""
    return preprocess(image, spec), *marks(image)


def marks(image: Image) -> tuple[float, float]:
    """Mean gray value in 0..1, and the variance of the Laplacian of the gray image in 0..1.

    The latter is the usual measure of focus (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield
    microscopy").
    """
    pixels: NDArray[Any] = image.pixels
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.shape[2] == 3 else pixels[:, :, 0]
    wide = gray.dtype == np.uint16
    # In the integers of the picture, which is exact and several times as fast as in fractions of 1: four
    # times 65535 has its place in a float32, too.
    edges = cv2.Laplacian(gray, cv2.CV_32F if wide else cv2.CV_16S)
    mean = cv2.sumElems(edges)[0] / edges.size
    variance = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - mean**2
    top = 65535.0 if wide else 255.0
    return cv2.mean(gray)[0] / top, max(0.0, variance) / top**2
