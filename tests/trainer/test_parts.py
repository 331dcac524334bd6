"""Several kinds of parts in one training: folders, labels, and a network that knows which part it sees."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.engine_torch import TorchDenoiser
from models.parts import of_part
from models.preprocess import Preprocess, to_float
from models.process import DiffusionProcess
from models.scoring import residual_levels
from tests.conftest import part, silent
from trainer.batches import BatchMaker
from trainer.data import DataError, Mix, TrainingSet, find_images, load_training_set
from trainer.loop import recipe_digest, train
from trainer.outer import OUTERS, Run
from trainer.parts import find_parts, folder_parts
from trainer.recipe import Recipe, RecipeError, parse_recipe


def save(folder: Path, *names: str) -> Path:
    """Tiny images at these places, each a different one; the same names give the same images."""
    for index, name in enumerate(sorted(names)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), part(index, 16))
    return folder


def of_folders(recipe: Recipe, **training: Any) -> Recipe:
    values = recipe.model_dump(mode="json")
    return parse_recipe(
        {
            **values,
            "data": {**values["data"], "parts": "folders"},
            "training": {**values["training"], **training},
        }
    )


def test_the_first_folder_names_the_part(tmp_path: Path) -> None:
    folder = save(tmp_path, "Nut/a.png", "Nut/line 2/b.png", "bolt_m8/c.png")
    (tmp_path / "empty").mkdir()
    files = find_images(folder)
    found = dict(zip([path.name for path in files], folder_parts(folder, files), strict=True))
    assert found == {"a.png": "nut", "b.png": "nut", "c.png": "bolt_m8"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.png", "bolt/b.png", "nut/c.png"), r"1 images lie in .* itself, such as a\.png"),
        (("bolt/b.png",), "one folder only, bolt"),
        (("bolt/b.png", "nut M8/c.png"), r"\['nut M8'\] .* cannot name parts"),
        (("bolt/b.png", "-x/c.png"), "cannot name parts"),
        (("bolt/b.png", f"{'x' * 33}/c.png"), "cannot name parts"),
        (("bolt/b.png", "Bolt/c.png", "nut/d.png"), r"several folders for the parts \['bolt'\]"),
        (("bolt/test/b.png", "bolt/ground_truth/c.png", "nut/d.png"), "bolt holds test images and masks"),
    ],
)
def test_folders_that_cannot_be_parts(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    folder = save(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        folder_parts(folder, find_images(folder))


def test_parts_are_asked_for_and_exclude_a_mix(tiny_recipe: Recipe, tmp_path: Path) -> None:
    folder = save(tmp_path, "bolt/a.png", "nut/b.png")
    files, several = find_images(folder), of_folders(tiny_recipe)
    assert find_parts(tiny_recipe, folder, files, None) is None
    assert find_parts(several, folder, files, None) == ["bolt", "nut"]
    with pytest.raises(DataError, match="--mix"):
        find_parts(several, folder, files, Mix(folder, 0.2, 0))
    values = several.model_dump(mode="json")
    values["profiles"]["x" * 62] = values["profiles"]["fast"]
    with pytest.raises(RecipeError, match="too long"):
        find_parts(parse_recipe(values), folder, files, None)


def test_a_recipe_of_one_part_is_written_as_before(tiny_recipe: Recipe) -> None:
    assert "parts" not in tiny_recipe.model_dump(mode="json")["data"]
    assert of_folders(tiny_recipe).model_dump(mode="json")["data"]["parts"] == "folders"
    assert recipe_digest(of_folders(tiny_recipe)) != recipe_digest(tiny_recipe)
    values = tiny_recipe.model_dump(mode="json")
    values["profiles"]["fast"]["part"] = "bolt"
    with pytest.raises(RecipeError, match="name a part"):
        parse_recipe(values)


def load(folder: Path, cache: Path, parts: bool = True) -> TrainingSet:
    files = find_images(folder)
    named = folder_parts(folder, files) if parts else None
    return load_training_set(files, [False] * len(files), (16, 16), "auto", cache, parts=named)


def test_labels_follow_the_images_and_are_part_of_the_snapshot(tmp_path: Path) -> None:
    folder = save(tmp_path / "one", "bolt/a.png", "bolt/b.png", "nut/c.png", "nut/d.png")
    (folder / "bolt" / "a.png").write_bytes(b"torn")
    data = load(folder, tmp_path / "1.npy")
    assert data.parts == ("bolt", "nut")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1]
    assert data.groups == [("bolt", slice(0, 1)), ("nut", slice(1, 3))]
    moved = save(tmp_path / "two", "bolt/a.png", "bolt/b.png", "bolt/c.png", "nut/d.png")
    (moved / "bolt" / "a.png").write_bytes(b"torn")
    assert load(moved, tmp_path / "2.npy").snapshot != data.snapshot
    one, other = (load(place, tmp_path / "3.npy", parts=False) for place in (folder, moved))
    assert one.snapshot == other.snapshot
    assert one.groups == [(None, slice(0, 3))]
    (folder / "bolt" / "b.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"the parts \['bolt'\] could be read"):
        load(folder, tmp_path / "4.npy")


def dark_and_light(count: int = 16, side: int = 16) -> TrainingSet:
    """Flat dark parts and flat light ones, with grain."""
    rng = np.random.default_rng(0)
    values = np.repeat([60, 195], count)[:, None, None, None] + rng.normal(0, 6, (2 * count, 1, side, side))
    return TrainingSet(
        np.clip(values, 0, 255).astype(np.uint8),
        [Path(f"{label}/{i}.png") for label in ("dark", "light") for i in range(count)],
        [False] * 2 * count,
        list(range(2 * count)),
        [],
        "0" * 64,
        Preprocess(height=side, width=side, channels=1),
        ("dark", "light"),
        np.repeat([0, 1], count),
    )


def test_a_batch_carries_the_label_of_each_image(tiny_recipe: Recipe) -> None:
    data = dark_and_light()
    recipe = of_folders(tiny_recipe, corruption={"name": "structured", "probability": 1.0})
    make = BatchMaker(recipe, data.pixels, DiffusionProcess(), data.labels)
    seen = set()
    for step in range(4):
        batch = make(step)
        assert batch.label is not None
        assert batch.label.tolist() == (batch.x0.mean(dim=(1, 2, 3)) > 0).long().tolist()
        seen |= set(batch.label.tolist())
    assert seen == {0, 1}
    plain = BatchMaker(recipe, data.pixels, DiffusionProcess())(0)
    assert plain.label is None
    assert bool((plain.x_t == make(0).x_t).all())  # labels change nothing else


@pytest.fixture(scope="module")
def toy() -> Recipe:
    """Noised so far that brightness is nearly lost: what was there must come from the label."""
    return parse_recipe(
        {
            "name": "toy",
            "data": {"size": 16, "parts": "folders"},
            "network": {"widths": [16, 24], "attention": False},
            "training": {
                "steps": 300, "batch_size": 16, "precision": "fp32", "learning_rate": 3e-3,
                "warmup_steps": 10, "penalty": "mse", "ema_decay": 0.98,
            },
            "profiles": {
                "paper": {"kind": "chain", "t_noise": 600, "t_start": 600, "n_steps": 20, "sampler": "ddim"},
                "fast": {"kind": "one_step", "timesteps": [600]},
            },
        }
    )  # fmt: skip


def test_the_label_decides_what_is_healthy(toy: Recipe, tmp_path: Path) -> None:
    data = dark_and_light()
    net = TorchDenoiser(train(toy, data, tmp_path / "checkpoint", "cpu").net)
    images, process = to_float(data.pixels), toy.process.build()
    errors = np.empty((2, 2))  # [label told, true part]
    for told in (0, 1):
        _, healthy = residual_levels(
            of_part(net, told), process, toy.profiles["paper"], images, list(range(32))
        )
        errors[told] = np.abs(healthy - images).reshape(2, -1).mean(axis=1)
    assert errors.diagonal().max() < 0.3
    assert errors[0, 1] > 2 * errors[1, 1]
    assert errors[1, 0] > 2 * errors[0, 0]


@pytest.mark.parametrize("regularizer", ["none", "random", "adversarial"])
def test_every_call_of_a_step_is_told_the_label(toy: Recipe, tmp_path: Path, regularizer: str) -> None:
    values = toy.model_dump(mode="json")
    values["training"] |= {"steps": 2, "regularizer": regularizer}
    losses = train(parse_recipe(values), dark_and_light(), tmp_path / "checkpoint", "cpu").progress.losses
    assert np.isfinite(losses).all()


def test_crossfit_folds_every_part_by_itself(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = of_folders(tiny_recipe, steps=4)
    data = dark_and_light(6, 32)
    outer = OUTERS["crossfit"](drop=0.25)
    _, kept = outer(Run(recipe, data, tmp_path, "cpu", silent))
    assert kept.labels is not None
    assert kept.labels.tolist() == [data.parts.index(str(path.parent)) for path in kept.paths]
    assert len(kept.paths) == 9
    lines = (tmp_path / "outer" / "crossfit.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    for name in data.parts:
        own = [(row[1], float(row[2])) for row in rows if row[0].startswith(name)]
        assert sorted(fold for fold, _ in own) == ["0"] * 3 + ["1"] * 3
        for fold in ("0", "1"):  # scores compare between parts: each is about its own median
            assert np.median([score for f, score in own if f == fold]) == pytest.approx(0, abs=1e-3)
    few = replace(data, pixels=data.pixels[:9], paths=data.paths[:9], labels=np.repeat([0, 1], [6, 3]))
    with pytest.raises(DataError, match="3 images of light are too few"):
        outer(Run(recipe, few, tmp_path / "few", "cpu", silent))


def test_em_repairs_each_part_as_what_it_is(toy: Recipe, tmp_path: Path) -> None:
    values = toy.model_dump(mode="json")
    values["training"]["steps"] = 8
    data = dark_and_light(4)
    told: list[int] = []
    real = TorchDenoiser.__call__

    def spy(self: TorchDenoiser, x: Any, t: Any, label: Any = None) -> Any:
        told.extend(np.unique(label).tolist())
        return real(self, x, t, label)

    patched: Callable[..., Any] = spy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchDenoiser, "__call__", patched)
        _, repaired = OUTERS["em"]()(Run(parse_recipe(values), data, tmp_path, "cpu", silent))
    assert told == [0, 1, 0, 1]  # limits, then repairs, the parts never in one call
    assert repaired.labels is data.labels
    assert repaired.pixels.shape == data.pixels.shape
