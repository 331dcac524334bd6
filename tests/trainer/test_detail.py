"""Where half size loses structure that all parts share, and where it does not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.detail import Detail, measure_detail, sample_detail

Float = NDArray[np.float32]
SIDE = 128


def _traces(rng: np.random.Generator, shift_px: int) -> Float:
    """Thin lines in a part of the picture, the same ones each time, moved a little."""
    image = np.zeros((SIDE, SIDE), dtype=np.float32)
    fixed = np.random.default_rng(7)
    for _ in range(12):
        x, y, length = (int(v) for v in fixed.integers(10, 60, 3))
        cv2.line(image, (x, y), (x + length, y), 1.0, 1)
    moved = np.roll(image, tuple(rng.integers(-shift_px, shift_px + 1, 2)), (0, 1))
    return np.asarray(moved + rng.normal(0, 0.03, moved.shape), dtype=np.float32)


def _weave(rng: np.random.Generator) -> Float:
    """As fine, but with another phase in every image."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    phase = rng.uniform(0, 6.3, 2)
    return np.asarray(np.sign(np.sin(x * 1.3 + phase[0]) * np.sin(y * 1.3 + phase[1])), dtype=np.float32)


def _blob(rng: np.random.Generator) -> Float:
    """Aligned, but nothing fine about it."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]  # type: ignore[misc]
    return np.asarray(np.exp(-4 * (x**2 + y**2)) * rng.uniform(0.9, 1.1), dtype=np.float32)


def test_only_fine_structure_that_is_shared_matters() -> None:
    rng = np.random.default_rng(0)
    board = measure_detail(np.stack([_traces(rng, 1) for _ in range(16)]))
    cloth = measure_detail(np.stack([_weave(rng) for _ in range(16)]))
    plain = measure_detail(np.stack([_blob(rng) for _ in range(16)]))
    assert board.matters
    assert cloth.lost > 0.2
    assert cloth.shared < 0.1
    assert plain.shared > 0.3
    assert plain.lost < 0.1
    assert not cloth.matters
    assert not plain.matters


def test_exposure_does_not_count() -> None:
    rng = np.random.default_rng(0)
    images = np.stack([_traces(rng, 0) for _ in range(16)])
    gains = rng.uniform(0.3, 1.0, (16, 1, 1)).astype(np.float32)
    same, dimmed = measure_detail(images), measure_detail(images * gains)
    assert dimmed.shared == pytest.approx(same.shared, abs=0.02)


def test_too_few_images_or_none_that_can_be_read_say_nothing(tmp_path: Path) -> None:
    nothing = Detail(0.0, 0.0)
    assert measure_detail(np.zeros((3, SIDE, SIDE), dtype=np.float32)) == nothing
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert sample_detail([tmp_path / "broken.png"], SIDE) == nothing
    flat = measure_detail(np.zeros((10, SIDE, SIDE), dtype=np.float32))
    assert flat == nothing


def test_files_are_seen_as_the_network_sees_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for number in range(10):
        files.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(files[-1]), np.uint8(np.clip(255 * _traces(rng, 0), 0, 255)))  # type: ignore[call-overload]
    assert sample_detail(files, SIDE).matters
    assert not sample_detail(files[:5], SIDE).matters
