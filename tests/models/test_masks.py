"""Ignore masks: what they cover decides nothing, what they do not cover decides as before."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.anomaly import image_score, regions
from models.bundle import Bundle, MapRecipe, OneStepProfile, ProfileCalibration, Thresholds
from models.decode import decode
from models.engine import open_engine
from models.masks import MaskError, check, fill, from_pixels, from_polygons, join, outside, resize, to_png
from models.preprocess import preprocess
from models.scoring import score_image

SIZE = (32, 32)


def left_half() -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[:, :16] = True
    return mask


def spec(image_median: bool = False) -> OneStepProfile:
    return OneStepProfile(timesteps=(50.0,), map=MapRecipe(sigma_px=2.0, image_median=image_median))


CALIBRATION = ProfileCalibration(
    residual_scales=(0.2,),
    score_location=0.0,
    score_scale=0.1,
    median_location=0.0,
    median_scale=0.1,
    suggested=Thresholds(review=2.0, reject=3.0),
    map_max=4.0,
    images=10,
)


def scored(levels: NDArray[np.float32], ignore: NDArray[np.bool_] | None, image_median: bool = False):
    return score_image(
        levels, np.zeros((1, *SIZE), np.float32), None, spec(image_median), CALIBRATION, {}, ignore=ignore
    )


def plain(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0.18, 0.22, (1, *SIZE)).astype(np.float32)


def with_defect(column: int) -> NDArray[np.float32]:
    levels = plain()
    levels[0, 14:18, column : column + 4] = 3.0
    return levels


@pytest.mark.parametrize("image_median", [False, True])
def test_a_defect_inside_scores_as_none_and_one_outside_as_without_a_mask(image_median: bool) -> None:
    mask = left_half()
    good = scored(plain(), mask, image_median).score
    inside = scored(with_defect(12), mask, image_median)  # up to the very edge of the mask
    outside_ = scored(with_defect(24), mask, image_median)
    assert inside.score == pytest.approx(good, rel=1e-6)
    assert not regions(inside.map, 2 * good, SIZE)
    assert outside_.score > 3 * good
    assert outside_.map.max() == pytest.approx(
        scored(with_defect(24), None, image_median).map.max(), rel=0.02
    )
    # The guard of this test: without the mask the defect is seen.
    assert scored(with_defect(12), None, image_median).score > 3 * good


def test_nothing_of_the_map_is_left_inside() -> None:
    amap = scored(with_defect(12), left_half()).map
    assert not amap[:, :16].any()
    assert (amap[:, 16:] > 0.5).all()


@pytest.mark.parametrize("seed", range(40))
def test_the_score_is_the_mean_of_the_highest_pixels_outside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    share, top = rng.uniform(0.01, 0.9), rng.uniform(0.001, 0.2)
    amap, mask = rng.gamma(2.0, 1.0, SIZE).astype(np.float32), rng.random(SIZE) < share
    profile = OneStepProfile(timesteps=(50.0,), map=MapRecipe(sigma_px=0.0, top_fraction=top))
    levels, nothing = amap[None] * np.float32(0.2), np.zeros((1, *SIZE), np.float32)
    found = score_image(levels, nothing, None, profile, CALIBRATION, {}, ignore=mask)
    expected = image_score(outside(found.map, mask), top)
    assert found.score == pytest.approx(expected, rel=1e-5)


def test_a_mask_of_any_size_is_laid_over_the_map() -> None:
    large = resize(left_half(), (320, 320))
    np.testing.assert_array_equal(scored(plain(), large).map, scored(plain(), left_half()).map)


def test_covering_everything_is_refused() -> None:
    with pytest.raises(MaskError, match="covers everything"):
        scored(plain(), np.ones((8, 8), dtype=np.bool_))
    nearly = np.ones((3200, 3200), dtype=np.bool_)
    nearly[0, 0] = False  # which no pixel of the map is nearest to
    with pytest.raises(MaskError, match="covers everything"):
        check(nearly, SIZE)


def test_white_is_ignored_in_every_kind_of_image() -> None:
    expected = [[True, False], [True, False]]
    gray = np.array([[255, 0], [128, 100]], dtype=np.uint8)
    assert from_pixels(gray).tolist() == expected
    assert from_pixels(gray[:, :, None].repeat(3, 2)).tolist() == expected
    assert from_pixels(gray.astype(np.uint16) * 257).tolist() == expected
    assert (
        from_pixels(cv2.imdecode(np.frombuffer(to_png(from_pixels(gray)), np.uint8), 0)).tolist() == expected
    )


def test_polygons() -> None:
    square = [(4.0, 4.0), (12.0, 4.0), (12.0, 12.0), (4.0, 12.0)]
    shifted = [(x + 4, y) for x, y in square]
    mask = from_polygons([square, shifted], 20, 30)
    assert mask.shape == (20, 30)
    assert mask[4:13, 4:17].all()  # also where the two overlap
    assert mask.sum() == 9 * 13


@pytest.mark.parametrize(
    ("polygon", "complaint"),
    [
        ([(0.0, 0.0), (1.0, 1.0)], "2 corners"),
        ([(0.0, 0.0), (31.0, 0.0), (3.0, 3.0)], "leaves the image"),
        ([(0.0, 0.0), (float("nan"), 0.0), (3.0, 3.0)], "leaves the image"),
        ([(0.0, -1.0), (2.0, 0.0), (3.0, 3.0)], "leaves the image"),
    ],
)
def test_polygons_that_cannot_be(polygon: list[tuple[float, float]], complaint: str) -> None:
    with pytest.raises(MaskError, match=complaint):
        from_polygons([polygon], 20, 30)


def test_filling_keeps_the_median_and_the_input() -> None:
    values = np.random.default_rng(0).normal(size=(2, *SIZE)).astype(np.float32)
    before = values.copy()
    filled = fill(values, left_half())
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(filled[:, :, 16:], values[:, :, 16:])
    for old, new in zip(values, filled, strict=True):
        assert np.median(new) == pytest.approx(np.median(old[:, 16:]), abs=1e-6)


def test_joining() -> None:
    top = np.zeros((64, 64), dtype=np.bool_)
    top[:32] = True
    both = join(None, left_half(), top)
    assert both is not None
    assert both.shape == SIZE
    assert both.mean() == 0.75
    assert join(None, None) is None


def test_the_engine_takes_a_mask_for_each_image(
    tiny_bundle: Bundle, tiny_detector_bundle: Bundle, parts_folder: Path
) -> None:
    data = sorted(parts_folder.iterdir())[0].read_bytes()
    for bundle in (tiny_bundle, tiny_detector_bundle):
        engine = open_engine(bundle, threads=1)
        image = preprocess(decode(data), bundle.manifest.preprocess)
        masked, seen = engine.run(np.stack([image, image]), [1, 1], "fast", ignore=[left_half(), None])
        half = masked.map.shape[1] // 2
        assert not masked.map[:, :half].any()
        assert masked.map[:, half:].all()
        assert seen.map.all()
        (alone,) = engine.run(image[None], [1], "fast", ignore=[left_half()])
        assert alone.score == pytest.approx(masked.score, rel=1e-4)
