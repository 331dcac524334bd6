"""PaDiM's Gaussians and distances against numpy's, position by position."""

import numpy as np
import pytest
import torch

from models.preprocess import to_float
from trainer.baselines.base import BaselineError
from trainer.baselines.padim import Padim, PadimSettings


def vectors(features, images, chosen):  # type: ignore[no-untyped-def]
    found = features.features(torch.from_numpy(to_float(images))).numpy()
    return found[:, chosen].reshape(len(images), len(chosen), -1).transpose(0, 2, 1).astype(np.float64)


def test_gaussians_and_distances_are_numpys(parts, features) -> None:  # type: ignore[no-untyped-def]
    method = Padim(PadimSettings(dims=4, ridge=0.003), lambda depth: features)
    method.fit(parts.train)
    chosen, means, covariances = method.gaussians()
    assert len(set(chosen.tolist())) == 4
    x, new = vectors(features, parts.train, chosen), vectors(features, parts.bad, chosen)
    maps = method.score(parts.bad)
    corners = {0: maps[:, 0, 0], 255: maps[:, -1, -1]}  # there the upsampled map is the patch's own value
    for position in (0, 17, 100, 255):
        covariance = np.cov(x[:, position], rowvar=False) + 0.003 * np.eye(4)
        mean = x[:, position].mean(axis=0)
        assert means[position] == pytest.approx(mean)
        assert covariances[position] == pytest.approx(covariance)
        away = new[:, position] - mean
        expected = np.sqrt(np.einsum("bi,ij,bj->b", away, np.linalg.inv(covariance), away))
        if position in corners:
            assert corners[position] == pytest.approx(expected, rel=1e-4)
        assert method._distances(parts.bad)[:, position].numpy() == pytest.approx(expected)


def test_more_dimensions_than_images_still_have_a_distance(parts, features) -> None:  # type: ignore[no-untyped-def]
    method = Padim(PadimSettings(dims=100), lambda depth: features)
    method.fit(parts.train[:3])
    assert np.isfinite(method.score(parts.bad)).all()
    with pytest.raises(BaselineError, match="at least two"):
        method.fit(parts.train[:1])


def test_trimming_leaves_contaminants_out(parts, features) -> None:  # type: ignore[no-untyped-def]
    """A fifth of the images has the same spot: the plain Gaussian widens there, the trimmed one does not."""
    train = parts.train[:30].copy()
    train[:6, :, 30:34, 30:34] = 0
    where = 7 * 16 + 7
    spreads = {}
    for trim in (0.0, 0.25):
        method = Padim(PadimSettings(dims=6, ridge=1e-4, trim=trim), lambda depth: features)
        method.fit(train)
        spreads[trim] = np.trace(method.gaussians()[2][where])
    clean = Padim(PadimSettings(dims=6, ridge=1e-4), lambda depth: features)
    clean.fit(train[6:])
    expected = np.trace(clean.gaussians()[2][where])
    assert spreads[0.0] > 5 * expected
    assert spreads[0.25] < 1.2 * expected


@pytest.mark.parametrize("trim", [0.0, 0.2])
def test_training_images_are_judged_by_the_others(parts, features, trim: float) -> None:  # type: ignore[no-untyped-def]
    """As if the Gaussians were fitted again without the image; one left out by trimming stays as it is."""
    settings = PadimSettings(dims=4, ridge=1e-9, trim=trim)
    method = Padim(settings, lambda depth: features)
    method.fit(parts.train)
    rows = np.array([2, 37])
    found = method.score_training(parts.train[rows], rows)
    if trim:
        kept = method._weights[:, 0].numpy() > 0
        chosen = method.gaussians()[0]
        x = vectors(features, parts.train, chosen)[:, 0]
        for row, amap in zip(rows, found, strict=True):
            others = np.delete(x, row, axis=0)[np.delete(kept, row)]
            away = x[row] - others.mean(axis=0)
            assert amap[0, 0] == pytest.approx(
                np.sqrt(away @ np.linalg.inv(np.cov(others, rowvar=False)) @ away), rel=1e-3
            )
        return
    for row, amap in zip(rows, found, strict=True):
        again = Padim(settings, lambda depth: features)
        again.fit(np.delete(parts.train, row, axis=0))
        assert amap == pytest.approx(again.score(parts.train[[row]])[0], rel=1e-3)
        assert amap.max() > 1.05 * method.score(parts.train[[row]]).max()
