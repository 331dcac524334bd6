"""PatchCore's distances against brute force, and the greedy coreset against its definition."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from models.preprocess import to_float
from trainer.baselines.patchcore import PatchCore, PatchCoreSettings, greedy_coreset


def grids(features, images):  # type: ignore[no-untyped-def]
    """Patch vectors `[B, P, F]`."""
    found = features.features(torch.from_numpy(to_float(images))).numpy()
    return found.reshape(*found.shape[:2], -1).transpose(0, 2, 1)


@pytest.mark.parametrize("neighbours", [1, 5])
def test_distances_equal_brute_force(parts, features, neighbours: int) -> None:  # type: ignore[no-untyped-def]
    method = PatchCore(PatchCoreSettings(patches=700, neighbours=neighbours), lambda depth: features)
    method.fit(parts.train)
    assert method.bank.shape == (700, 6)
    known = {tuple(vector) for vector in grids(features, parts.train).reshape(-1, 6)}
    assert all(tuple(vector) in known for vector in method.bank)
    index = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(method.bank.astype(np.float64))
    for amap, vectors in zip(method.score(parts.bad), grids(features, parts.bad), strict=True):
        distances, _ = index.kneighbors(vectors.astype(np.float64))
        expected = distances.mean(axis=1).reshape(16, 16)
        # at the corners the upsampled map is the patch's own value; float32 squares cost some digits
        corners = amap[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners == pytest.approx(expected[[0, 0, -1, -1], [0, -1, 0, -1]], abs=2e-3)
        assert amap.max() == pytest.approx(expected.max(), rel=0.35)


def test_with_room_for_all_a_known_image_is_at_distance_zero_but_not_from_the_others(parts, features) -> None:  # type: ignore[no-untyped-def]
    method = PatchCore(PatchCoreSettings(patches=10**6), lambda depth: features)
    method.fit(parts.train)
    assert len(method.bank) == len(parts.train) * 256
    rows = np.array([3, 38])
    assert method.score(parts.train[rows]).max() < 2e-3
    others = method.score_training(parts.train[rows], rows)
    vectors = grids(features, parts.train).astype(np.float64)
    for row, amap in zip(rows, others, strict=True):
        rest = np.delete(vectors, row, axis=0).reshape(-1, 6)
        expected = cdist(vectors[row], rest).min(axis=1).reshape(16, 16)
        assert amap[0, 0] == pytest.approx(expected[0, 0], abs=2e-3)
        assert amap[-1, -1] == pytest.approx(expected[-1, -1], abs=2e-3)
        assert amap.max() > 0.01


def test_an_image_alone_in_memory_is_compared_with_nothing(parts, features) -> None:  # type: ignore[no-untyped-def]
    method = PatchCore(PatchCoreSettings(), lambda depth: features)
    method.fit(parts.train[:1])
    assert method.score_training(parts.train[:1], np.array([0])).max() == 0


def test_the_coreset_always_takes_the_farthest() -> None:
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 3)))
    chosen = greedy_coreset(vectors, 12, first=5).tolist()
    assert chosen[0] == 5
    assert len(set(chosen)) == 12
    distances = cdist(vectors.numpy(), vectors.numpy())
    for step in range(1, 12):
        nearest = distances[:, chosen[:step]].min(axis=1)
        assert nearest[chosen[step]] == pytest.approx(nearest.max())
    assert sorted(greedy_coreset(vectors[:4], 9, first=0).tolist()) == [0, 1, 2, 3]
    assert sorted(greedy_coreset(torch.zeros(5, 2), 5, first=0).tolist()) == [0, 1, 2, 3, 4]


def test_a_coreset_covers_better_than_chance(parts, features) -> None:  # type: ignore[no-untyped-def]
    radius = {}
    for sampling in ("random", "coreset"):
        method = PatchCore(
            PatchCoreSettings(patches=40, sampling=sampling, pool=2000), lambda depth: features
        )
        method.fit(parts.train[:10])
        assert len(method.bank) == 40
        vectors = grids(features, parts.train[:10]).reshape(-1, 6)
        radius[sampling] = cdist(vectors, method.bank).min(axis=1).max()
    assert radius["coreset"] < 0.7 * radius["random"]
