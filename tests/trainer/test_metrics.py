"""Metrics against scikit-learn on every pixel; AUPRO against its definition and its authors' code."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pyaupro import PerRegionOverlap
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from trainer.metrics import (
    SquaredError,
    aupro,
    detection_metrics,
    pixel_metrics,
    pro_curve,
    rank_pixels,
    sorted_pixels,
    squared_error,
)

Maps = list[NDArray[np.float32]]
Masks = list[NDArray[np.bool_]]


def make_case(seed: int, images: int = 6, side: int = 24, levels: int = 0) -> tuple[Maps, Masks]:
    """Smooth maps that partly follow blob masks; `levels` > 0 rounds the scores so that many are equal."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for index in range(images):
        mask = ndimage.gaussian_filter(rng.standard_normal((side, side)), 2.0) > 0.12
        if index == 0:
            mask[:] = False  # one good image
        noise = ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.0)
        amap = (noise + 0.25 * ndimage.gaussian_filter(mask.astype(float), 1.5)).astype(np.float32)
        if levels:
            amap = (np.round(amap * levels) / levels).astype(np.float32)
        maps.append(amap)
        masks.append(mask)
    return maps, masks


def aupro_from_definition(maps: Maps, masks: Masks, limit: float) -> float:
    """Every threshold, every region, straight from Bergmann et al. 2020, with no shared code."""
    rates, overlaps = [0.0], [0.0]
    normal = np.concatenate([amap[~mask] for amap, mask in zip(maps, masks, strict=True)])
    regions = []
    for amap, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [amap[labels == k] for k in range(1, count + 1)]
    for threshold in np.unique(np.concatenate([amap.ravel() for amap in maps]))[::-1]:
        rates.append(float((normal >= threshold).mean()))
        overlaps.append(float(np.mean([(region >= threshold).mean() for region in regions])))
    area = 0.0
    for x0, x1, y0, y1 in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize("levels", [0, 40, 6])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_is_its_definition(levels: int, limit: float) -> None:
    for seed in range(4):
        maps, masks = make_case(seed, levels=levels)
        assert aupro(rank_pixels(maps, masks), limit) == pytest.approx(
            aupro_from_definition(maps, masks, limit), abs=1e-12
        )


@pytest.mark.parametrize("levels", [0, 40, 6])
def test_aupro_agrees_with_the_code_of_the_data_sets_authors(levels: int) -> None:
    """pyaupro ships the evaluation code published with MVTec AD, which merges equal scores like ours."""
    for seed in range(4):
        maps, masks = make_case(seed, side=48, levels=levels)
        metric = PerRegionOverlap(reference_implementation=True)
        metric.update(torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(masks)).int())
        rate, overlap = (values.numpy() for values in metric.compute())
        below = rate < 0.3  # cut by interpolation: their package's own limit keeps the last value instead
        x = np.append(rate[below], 0.3)
        y = np.append(overlap[below], np.interp(0.3, rate, overlap))
        # their rate is accumulated in float32
        assert aupro(rank_pixels(maps, masks)) == pytest.approx(np.trapezoid(y, x) / 0.3, abs=2e-6)


@pytest.mark.parametrize("levels", [0, 40, 6])
def test_pixel_metrics_equal_scikit_learn_on_every_pixel(levels: int) -> None:
    maps, masks = make_case(7, levels=levels)
    truth = np.concatenate([mask.ravel() for mask in masks])
    scores = np.concatenate([amap.ravel() for amap in maps])
    precision, recall, _ = precision_recall_curve(truth, scores)
    found = pixel_metrics(rank_pixels(maps, masks))
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert found.f1_max == pytest.approx(np.nanmax(2 * precision * recall / (precision + recall)), abs=1e-12)


def test_presorted_good_pixels_change_nothing() -> None:
    maps, masks = make_case(3)
    apart = rank_pixels(maps[1:], masks[1:], sorted_pixels(maps[:1]))
    together = rank_pixels(maps, masks)
    assert pixel_metrics(apart) == pixel_metrics(together)
    assert aupro(apart) == aupro(together)


def test_maps_may_differ_in_size() -> None:
    maps, masks = make_case(1, side=20)
    more_maps, more_masks = make_case(2, side=31)
    ranking = rank_pixels(maps + more_maps, masks + more_masks)
    assert ranking.normal + ranking.defective.sum() == 6 * (20**2 + 31**2)
    assert aupro(ranking) == pytest.approx(aupro_from_definition(maps + more_maps, masks + more_masks, 0.3))


def test_touching_corners_are_one_region_and_every_region_counts_alike() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[0, 0] = mask[1, 1] = True  # one region by 8-connectivity
    mask[4:, 3:] = True
    amap = mask.astype(np.float32)
    amap[4:, 3:] = 0  # the large region is missed altogether
    ranking = rank_pixels([amap], [mask])
    assert ranking.regions == 2
    rate, overlap = pro_curve(ranking)
    assert overlap[np.searchsorted(rate, 0.0, side="right") - 1] == pytest.approx(0.5)


def test_perfect_and_useless_maps() -> None:
    masks = make_case(5)[1]
    perfect = rank_pixels([mask.astype(np.float32) for mask in masks], masks)
    assert aupro(perfect) == pytest.approx(1.0)
    assert pixel_metrics(perfect).auroc == pixel_metrics(perfect).f1_max == pytest.approx(1.0)
    constant = rank_pixels([np.ones(mask.shape, dtype=np.float32) for mask in masks], masks)
    assert aupro(constant) == pytest.approx(0.15)  # one step from (0, 0) to (1, 1), cut at 0.3
    assert pixel_metrics(constant).auroc == pytest.approx(0.5)


def test_scores_above_one_are_not_tied() -> None:
    truth = np.array([False, False, True, True])
    assert detection_metrics(truth, np.array([1.0, 1.5, 1.6, 90.0])).auroc == 1.0


def test_what_is_undefined_is_none() -> None:
    maps, masks = make_case(0, images=2)
    for ranking in (
        rank_pixels(maps[:1], masks[:1]),
        rank_pixels([], []),
        rank_pixels([], [], sorted_pixels(maps)),
    ):
        assert aupro(ranking) is None
        assert pixel_metrics(ranking).auroc is None
    only_defect = rank_pixels([np.ones((4, 4), dtype=np.float32)], [np.ones((4, 4), dtype=bool)])
    assert aupro(only_defect) is None
    assert pixel_metrics(only_defect).average_precision is None
    assert detection_metrics(np.zeros(0, dtype=bool), np.zeros(0)).auroc is None
    with pytest.raises(ValueError, match="limit"):
        aupro(only_defect, limit=0.0)


def test_squared_error_inside_and_outside_of_the_mask() -> None:
    image = np.zeros((3, 2, 2), dtype=np.float32)
    reconstruction = image.copy()
    reconstruction[:, 0, 0] = 1.0
    reconstruction[0, 1, 1] = 0.3
    mask = np.array([[True, False], [False, False]])
    total = squared_error(image, reconstruction, mask) + squared_error(image, image, ~mask)
    assert total.mse_inside == pytest.approx(1.0 / 4)
    assert total.mse_outside == pytest.approx(0.03 / 4)
    assert SquaredError().mse_inside is None
    assert SquaredError().mse_outside is None
