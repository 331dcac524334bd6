"""Fine structure: how much an image loses at half size, and whether all parts have it at the same places.

Grain and weave are lost at half size, too, but differ from image to image. Traces, holes and print
are the same on every part; a defect among them may be no larger than they are, so they must be seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.decode import DecodeError, decode
from models.evidence import resize
from models.preprocess import Preprocess, shrink, to_float, to_uint8

Float = NDArray[np.float32]

SAMPLE = 32
FEWEST = 8
SHARED, LOST = 0.3, 0.2
"""From where on detail is worth its price; decided on six sets, see `docs/LOG.md`, 2026-11-24."""
_NEAR_PX = 9  # of 256: parts need not be framed more exactly than this
_CELLS = 64
_TINY = 1e-12


@dataclass(frozen=True)
class Detail:
    """What half size costs a set of images, both 0 to 1."""

    lost: float  # root mean square of what half size loses, over the standard deviation of an image
    shared: float  # share of the variation of its energy over places that is common to all images

    @property
    def matters(self) -> bool:
        """Parts are aligned and their structure too fine for half size."""
        return self.lost >= LOST and self.shared >= SHARED


def measure_detail(images: Float) -> Detail:
    """Gray images `[N, H, W]`, even sides -> what half size loses of them.

    Energy of the lost detail is compared between places, not the detail itself, which a shift by a pixel
    would turn over. What is common is the covariance of the means of two halves of the images, in which
    what differs from image to image cancels.
    """
    if len(images) < FEWEST:
        return Detail(0.0, 0.0)
    near = 2 * round(_NEAR_PX * images.shape[2] / 512) + 1
    energies, lost = [], []
    for image in images:
        energy = (image - resize(shrink(image, 2), image.shape)) ** 2
        lost.append(float(energy.mean()))
        cells = resize(np.asarray(cv2.blur(energy, (near, near)), dtype=np.float32), (_CELLS, _CELLS))
        energies.append(cells / max(float(cells.mean()), _TINY))  # relative: exposure does not count
    contrast = max(float(images.var(axis=(1, 2)).mean()), _TINY)
    spread = max(float(np.mean([energy.var() for energy in energies])), _TINY)
    halves = np.stack([np.mean(energies[start::2], axis=0).ravel() for start in (0, 1)])
    common = float(np.cov(halves)[0, 1])
    return Detail(
        lost=float(np.clip(np.sqrt(np.mean(lost) / contrast), 0.0, 1.0)),
        shared=float(np.clip(common / spread, 0.0, 1.0)),
    )


def sample_detail(files: Sequence[Path], side: int) -> Detail:
    """Of up to `SAMPLE` of the images, spread evenly, as the network would see them at `side` pixels."""
    spec = Preprocess(height=side, width=side, channels=1)
    images = []
    for index in np.unique(np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).round().astype(int)):
        try:
            images.append(to_float(to_uint8(decode(files[index].read_bytes()), spec))[0])
        except (DecodeError, OSError):
            continue
    return measure_detail(np.stack(images)) if images else Detail(0.0, 0.0)
