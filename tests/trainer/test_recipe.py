from pathlib import Path
from typing import Any

import pytest

from trainer.recipe import RecipeError, available_recipes, load_recipe, parse_override, parse_recipe


@pytest.mark.parametrize("name", available_recipes())
def test_every_shipped_recipe_resolves_with_the_promised_profiles(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert {"paper", "fast"} <= set(recipe.profiles)
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


def test_the_standard_profiles_are_the_slides_chain_and_two_quick_ones() -> None:
    profiles = load_recipe("default").profiles
    numbers = {n: (p.t_noise, p.t_start, p.n_steps) for n, p in profiles.items() if p.kind == "chain"}
    assert numbers == {"paper": (100, 100, 250), "few": (100, 100, 5)}
    assert profiles["fast"].network_calls == 6


def test_lengths_follow_the_size_that_the_network_sees() -> None:
    reduced = load_recipe("default", {"network.reduce": 2, "data.size": 256})
    whole = load_recipe("default", {"network.reduce": 1, "data.size": 256})
    assert whole.profiles["fast"].map.sigma_px == 4.0
    assert reduced.profiles["fast"].map.sigma_px == 2.0


def test_training_covers_the_largest_timestep_of_inference_and_no_more() -> None:
    assert load_recipe("default").largest_timestep == 200


def test_the_default_has_a_detector_and_the_demo_has_none() -> None:
    default, demo = load_recipe("default"), load_recipe("demo")
    assert default.detector is not None
    assert (default.detector.backbone, default.data.height_width) == ("auto", (256, 256))
    assert (demo.detector, demo.network.reduce, demo.training.corruption.name) == (None, 1, "none")


def test_flags_override_the_file() -> None:
    recipe = load_recipe("default", {"training.steps": 7, "training.penalty": "mse", "data.size": [64, 128]})
    assert recipe.training.steps == 7
    assert recipe.training.penalty.name == "mse"
    assert recipe.data.height_width == (64, 128)
    assert load_recipe("default", {"training.penalty.delta": 0.5}).training.penalty.model_extra == {
        "delta": 0.5
    }


def test_a_file_is_a_recipe_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[training]\nsteps = 5\npenalty = "mse"\n')
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.training.steps, recipe.training.penalty.name) == ("mine", 5, "mse")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.penalty": "hubre"}, r"penalty 'hubre' is unknown; choose one of .*huber.*mse"),
        ({"training.penalty.dleta": 1}, "dleta"),
        ({"training.penalty.delta": -1}, "delta must be positive"),
        ({"training.stpes": 1}, "training.stpes"),
        ({"data.size": 100}, "divisible by the network's stride 32"),
        ({"training.crop_px": 48}, r"crop_px 48 must be divisible by the network's stride 32"),
        ({"network.reduce": 1, "data.size": 288}, r"detector.crop_px must be divisible by 64"),
        ({"detector.crop_px": 100}, r"detector.crop_px must be divisible by 64"),
        ({"detector.backbone": "borrowed"}, r"detector\.backbone"),
        ({"training.target": "image"}, r"training\.target"),
        ({"training.steps.x": 1}, "not a section"),
        ({"process.steps": 150}, "go beyond process.steps"),
        ({"process.beta_start": 2}, "not a noise schedule"),
        ({"training.seed": 2**40}, "training.seed"),
        ({"profiles": {"fast": {"kind": "one_step", "timesteps": [50]}}}, r"\['paper'\] are missing"),
        ({"calibration.reject_rate": 0.5}, "must not exceed"),
    ],
)
def test_mistakes_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("default", overrides)


def test_a_recipe_file_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "Tile A (new).toml"
    path.write_text("[training]\nsteps = 5\n")
    assert load_recipe(str(path)).name == "tile-a--new"


def test_unknown_recipes_and_broken_files(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes('name = "kachel-\xe4"'.encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(str(tmp_path / "latin.toml"))
    with pytest.raises(RecipeError, match=r"choose one of .*default"):
        load_recipe("nope")
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe("nope.toml")
    (tmp_path / "x.toml").write_text("a = = 1")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(str(tmp_path / "x.toml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b=1", ("a.b", 1)), ("a=huber", ("a", "huber")), ("a=[1,2]", ("a", [1, 2])), ("a=x=y", ("a", "x=y"))],
)
def test_overrides_on_the_command_line(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


def test_override_without_a_value() -> None:
    with pytest.raises(RecipeError, match="must look like"):
        parse_override("training.steps")
