"""What "auto" becomes for images of different sizes, counts and devices."""

import pytest

from trainer.adapt import adapt
from trainer.detail import Detail
from trainer.device import Device
from trainer.recipe import load_recipe


@pytest.mark.parametrize(
    ("side", "device", "expected"),
    [(40, "cpu", 64), (100, "cpu", 128), (220, "cpu", 256), (620, "cpu", 256), (620, "gpu", 512)],
)
def test_size_follows_the_images(side: int, device: Device, expected: int) -> None:
    recipe = adapt(load_recipe("default"), [(side // 2, side)] * 5, 500, device)
    assert recipe.data.height_width == (expected, expected)
    assert recipe.data.size == expected
    assert recipe.profiles["fast"].map.sigma_px == expected / 128


def test_usual_sets_keep_the_recipe_and_small_ones_train_shorter() -> None:
    recipe = load_recipe("default")
    usual = adapt(recipe, [(400, 300)], 785, "cpu")
    assert usual.training == recipe.training
    assert usual.detector == recipe.detector
    assert adapt(recipe, [(400, 300)], 10, "cpu").training.steps == 500
    assert adapt(recipe, [(400, 300)], 10, "cpu", {"training.steps"}).training.steps == 2000
    assert adapt(recipe, [(400, 300)], 785, "gpu").training.batch_size == 32


def test_other_recipes_stay() -> None:
    recipe = load_recipe("paper")
    assert adapt(recipe, [(400, 300)], 3, "gpu") is recipe


FINE, COARSE = Detail(0.4, 0.9), Detail(0.1, 0.9)


def test_shared_detail_is_seen_at_full_size_in_crops() -> None:
    recipe, sizes = load_recipe("default"), [(400, 400)]
    asked: list[int] = []

    def measured(side: int) -> Detail:
        asked.append(side)
        return FINE

    sharp = adapt(recipe, sizes, 500, "cpu", detail=measured)
    assert asked == [256]
    assert (sharp.network.reduce, sharp.training.crop_px, sharp.training.flips) == (1, 128, False)
    assert sharp.profiles["fast"].map.sigma_px == 4.0
    assert sharp.training.steps == recipe.training.steps


@pytest.mark.parametrize("fixed", [set(), {"network.reduce"}, {"training.crop_px"}])
def test_other_parts_and_choices_stay_at_half_size(fixed: set[str]) -> None:
    recipe, sizes = load_recipe("default"), [(400, 400)]
    usual = adapt(recipe, sizes, 500, "cpu")
    found = adapt(recipe, sizes, 500, "cpu", fixed, lambda side: FINE if fixed else COARSE)
    assert found == usual
    assert (usual.network.reduce, usual.training.crop_px, usual.training.flips) == (2, None, True)
    assert "detail" not in usual.model_dump()["data"]  # as before there was a choice: old runs resume


def test_a_chosen_flip_stays() -> None:
    recipe = load_recipe("default", {"training.flips": True})
    sharp = adapt(recipe, [(400, 400)], 500, "cpu", {"training.flips"}, lambda side: FINE)
    assert sharp.training.flips
    assert sharp.network.reduce == 1
