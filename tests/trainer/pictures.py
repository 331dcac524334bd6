"""Pictures as a line sends them: the parts of `tests.conftest`, good and with a dark spot, as PNG."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.conftest import part


def png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def defective(index: int) -> NDArray[np.uint8]:
    image = part(index)
    cv2.circle(image, (12 + index % 9, 25), 5, 20, -1)
    return image
