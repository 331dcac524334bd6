"""Large images by overlapping tiles: a denoiser that looks at a tile at a time.

Tiling happens inside each network call, so every sampler works on it unchanged, with one noise field for
the whole image and the tiles joined again at every step: a seam cannot grow along a chain. Memory is that
of `max_rows` tiles, whatever the image's size, and the number of network rows is linear in its pixels.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from models.drive import check
from models.parts import LabelledNet
from models.profiles import FeatureSource

Float = NDArray[np.float32]
Compare = Callable[[FeatureSource, Float, Float], Float]
"""Distance of features by source: images and reconstructions `[B, C, H, W]` -> `[B, H, W]`."""


def tile_starts(size_px: int, tile_px: int, overlap_px: int) -> list[int]:
    """First pixels of the tiles along one side; the last tile ends with the image and may overlap more."""
    if size_px <= tile_px:
        return [0]
    return [*range(0, size_px - tile_px, tile_px - overlap_px), size_px - tile_px]


def blend_windows(starts: Sequence[int], size_px: int, tile_px: int, overlap_px: int) -> Float:
    """Weights of each tile along one side, `[tiles, tile_px]`, summing to 1 over the tiles at every pixel.

    A side that meets another tile rises from 0 to 1 like a squared sine over the middle half of the
    overlap and is 0 in the outer quarter, where the network has seen the least of what lies beyond. A side
    at the border of the image stays 1.
    """
    margin = overlap_px / 4
    inside = np.arange(tile_px) + 0.5
    rise = np.sin(np.pi / 2 * np.clip((inside - margin) / max(overlap_px / 2, 1.0), 0.0, 1.0)) ** 2
    windows = np.ones((len(starts), tile_px))
    windows[1:] *= rise
    windows[:-1] *= rise[::-1]
    total = np.zeros(size_px)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + tile_px] += window
    for start, window in zip(starts, windows, strict=True):
        window /= total[start : start + tile_px]
    return windows.astype(np.float32)


def tiled(net: LabelledNet, tile_px: int | None, overlap_px: int) -> LabelledNet:
    """The network as it is, or by tiles where a side is set."""
    return net if tile_px is None else TiledDenoiser(net, tile_px, overlap_px)


def tiled_compare(compare: Compare, tile_px: int | None, overlap_px: int) -> Compare:
    """The comparison as it is, or by tiles where a side is set: an image and its reconstruction cut alike."""
    if tile_px is None:
        return compare

    def by_tiles(source: FeatureSource, images: Float, reconstructions: Float) -> Float:
        channels = images.shape[1]

        def net(both: Float, t: Float) -> Float:
            return compare(source, both[:, :channels], both[:, channels:])[:, None]

        both = np.concatenate([images, reconstructions], axis=1)
        return TiledDenoiser(net, tile_px, overlap_px)(both, np.zeros(len(both), dtype=np.float32))[:, 0]

    return by_tiles


class TiledDenoiser:
    """A network applied to overlapping tiles of `tile_px`, blended; itself a Denoiser, or a LabelledNet.

    `overlap_px` should be at least four times the distance at which a pixel still matters to the network:
    then a tile contributes only where it has seen all that the whole image would have shown, and the result
    is that of the whole image. `tile_px` and `tile_px - overlap_px` are multiples of the network's stride,
    and so are the image's sides, so that tiles lie on the network's own grid.
    """

    def __init__(
        self,
        net: LabelledNet,
        tile_px: int,
        overlap_px: int,
        max_rows: int = 16,
        *,
        stride_px: int = 1,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """`should_stop` is asked before each call of `net`; ValueError for a geometry that does not fit."""
        if tile_px < 1 or not 0 <= overlap_px <= tile_px // 2 or max_rows < 1:
            raise ValueError(f"tiles of {tile_px} px cannot overlap by {overlap_px} px, {max_rows} at once")
        if stride_px < 1 or tile_px % stride_px or overlap_px % stride_px:
            raise ValueError(
                f"tile and overlap ({tile_px}, {overlap_px}) must be multiples of {stride_px} px"
            )
        self._net, self._tile_px, self._overlap_px = net, tile_px, overlap_px
        self._max_rows, self._stride_px, self._should_stop = max_rows, stride_px, should_stop

    def __call__(self, x_t: Float, t: Float, *labels: NDArray[np.int64]) -> Float:
        """`x_t [B, C, H, W]`, `t [B]`, perhaps labels `[B]` -> all channels that the network returns.

        Images no larger than a tile go to the network as they are. Raises ValueError for sides that are not
        multiples of the stride, Cancelled when `should_stop` answers true.
        """
        height, width = x_t.shape[2:]
        if height % self._stride_px or width % self._stride_px:
            raise ValueError(f"{height} x {width} px is not a multiple of the stride, {self._stride_px} px")
        if height <= self._tile_px and width <= self._tile_px:
            return np.asarray(self._net(x_t, t, *labels))
        places = list(product(range(len(x_t)), self._side(height), self._side(width)))
        blended = np.empty(0, dtype=np.float32)  # the network decides how many channels there are
        for start in range(0, len(places), self._max_rows):
            check(self._should_stop, f"before tile {start} of {len(places)}")
            now = places[start : start + self._max_rows]
            tiles = np.stack([x_t[i, :, r, c] for i, (r, _), (c, _) in now])
            rows = [i for i, _, _ in now]
            answers = self._net(tiles, t[rows], *(label[rows] for label in labels))
            if start == 0:
                blended = np.zeros((len(x_t), answers.shape[1], height, width), dtype=np.float32)
            for answer, (i, (r, down), (c, across)) in zip(answers, now, strict=True):
                blended[i, :, r, c] += answer * (down[:, None] * across)
        return blended

    def _side(self, size_px: int) -> list[tuple[slice, Float]]:
        """Where the tiles lie along a side, and their weights there."""
        tile_px = min(self._tile_px, size_px)
        starts = tile_starts(size_px, tile_px, self._overlap_px)
        windows = blend_windows(starts, size_px, tile_px, self._overlap_px)
        return [(slice(s, s + tile_px), w) for s, w in zip(starts, windows, strict=True)]
