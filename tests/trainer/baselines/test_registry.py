"""Every baseline keeps the interface and finds a pasted defect; wrong names and settings are one sentence."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.anomaly import image_score
from trainer.baseline import smooth
from trainer.baseline_command import baseline as command
from trainer.baselines.base import Baseline, BaselineError, batches, soft_threshold
from trainer.baselines.registry import BASELINES, build

SMALL = {"patchcore": {"patches": 2000}, "padim": {"dims": 6}}


def fitted(name: str, parts, features) -> Baseline:  # type: ignore[no-untyped-def]
    method, _ = build(name, SMALL.get(name, {}), lambda depth: features)
    method.fit(parts.train)
    return method


@pytest.mark.parametrize("name", BASELINES)
def test_pasted_defects_are_found(name: str, parts, features) -> None:  # type: ignore[no-untyped-def]
    method = fitted(name, parts, features)
    maps = smooth(method.score(np.concatenate([parts.good, parts.bad])), 1.0)
    assert maps.shape == (24, 64, 64)
    assert maps.dtype == np.float32
    assert (maps >= 0).all()
    scores = [image_score(amap, 0.003) for amap in maps]
    assert roc_auc_score([0] * 12 + [1] * 12, scores) > 0.9
    assert roc_auc_score(parts.masks.ravel(), maps[12:].ravel()) > 0.9


@pytest.mark.parametrize("name", BASELINES)
def test_a_map_depends_on_its_own_image_alone(name: str, parts, features) -> None:  # type: ignore[no-untyped-def]
    method = fitted(name, parts, features)
    together, alone = method.score(parts.bad[:3]), method.score(parts.bad[1:2])
    assert together[1] == pytest.approx(alone[0], rel=1e-3, abs=2e-3)


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_gives_the_same_maps(name: str, parts, features) -> None:  # type: ignore[no-untyped-def]
    first, second = (fitted(name, parts, features).score(parts.bad[:2]) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", ["rpca", "ssd"])
def test_what_reconstructs_removes_the_defect(name: str, parts, features) -> None:  # type: ignore[no-untyped-def]
    found = fitted(name, parts, features).inspect(parts.bad)
    assert found.restored is not None
    assert found.restored.shape == parts.bad.shape
    before = np.array([image[0][mask].mean() for image, mask in zip(parts.bad, parts.masks, strict=True)])
    after = np.array(
        [(x[0][mask].mean() + 1) * 127.5 for x, mask in zip(found.restored, parts.masks, strict=True)]
    )
    assert (after - before > 25).all()  # of the 45 that the spot is darker


def test_only_what_needs_features_asks_for_them() -> None:
    def load(depth: str) -> None:
        raise BaselineError("asked")

    for name in ("rpca", "ssd"):
        build(name, {}, load)  # type: ignore[arg-type]
    for name in ("patchcore", "padim"):
        with pytest.raises(BaselineError, match="asked"):
            build(name, {}, load)  # type: ignore[arg-type]


def test_mistakes_name_what_there_is(features) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BaselineError, match="choose among patchcore, padim, rpca, ssd"):
        build("best", {}, lambda depth: features)
    with pytest.raises(BaselineError, match=r"patchcore: patchs: .* has the settings seed, depth, patches"):
        build("patchcore", {"patchs": 3}, lambda depth: features)
    with pytest.raises(BaselineError, match=r"padim: trim: .*less than 0\.5"):
        build("padim", {"trim": 0.7}, lambda depth: features)


def test_help_and_documentation_name_every_method_and_setting() -> None:
    page = (Path(__file__).parents[3] / "docs/cli.md").read_text(encoding="utf-8")
    section = page.split("## inlier-trainer baseline")[1].split("\n## ")[0]
    for name, kind in BASELINES.items():
        assert name in (command.help or "")
        for key, field in kind.Settings.model_fields.items():
            assert f"`{key}`" in section, f"{name}: {key} is not documented"
            assert f"`{field.default}`" in section, f"{name}: default of {key}"


def test_soft_threshold_is_the_known_one() -> None:
    x = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    assert soft_threshold(x, 1.0).tolist() == [-2, 0, 0, 0, 0, 0, 2]
    assert soft_threshold(x.astype(np.float32), 1.0).dtype == np.float32


def test_batches_cover_everything_once() -> None:
    covered = [i for rows in batches(10, 4) for i in range(rows.start, rows.stop)]
    assert covered == list(range(10))
    assert batches(0, 4) == []
