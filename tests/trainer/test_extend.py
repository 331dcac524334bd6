"""A bundle that learns a further part: what it keeps, what it is trained on, and what is refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from models.bundle import Bundle, load_bundle
from models.unet import UNet, UNetConfig
from tests.conftest import part, silent
from trainer.cli import cli
from trainer.continual.plan import Continual, Strategy
from trainer.data import DataError, find_images, load_training_set
from trainer.extend import ExtendError, extend, old_parts
from trainer.fit import fit
from trainer.outer import Run
from trainer.recipe import Recipe, parse_recipe
from trainer.retrain import recipe_of

VIEWS = {"ring": slice(None), "hole": slice(None, None, -1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 rings, 12 lit from the left, and 12 new ones, which come first by name."""
    root = tmp_path_factory.mktemp("parts")
    for name, count in (("ring", 14), ("hole", 12), ("Blank", 12)):
        (root / name).mkdir()
        for index in range(count):
            image = part(index)[:, VIEWS.get(name, slice(None))]
            cv2.imwrite(str(root / name / f"{index:02}.png"), image if name in VIEWS else 255 - image)
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, folder: Path, tiny_recipe: Recipe) -> Bundle:
    values = tiny_recipe.model_dump(mode="json")
    recipe = parse_recipe({**values, "data": {**values["data"], "parts": "folders"}})
    copied = folder.with_name("copied")
    for name in VIEWS:
        (copied / name).mkdir(parents=True)
        for image in (folder / name).iterdir():
            (copied / name / image.name).write_bytes(image.read_bytes())
    return fit(
        copied, recipe, tmp_path_factory.mktemp("base"), "cpu", silent, name="rings", version="1"
    ).bundle


def network(bundle: Bundle) -> UNet:
    net = UNet(UNetConfig.from_dict(bundle.manifest.network.shape()))
    net.load_state_dict(load_file(bundle.file("model.safetensors")))
    return net.eval()


def answers(bundle: Bundle, label: int | None) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)
    known = () if label is None else (torch.full((2,), label),)
    with torch.no_grad():
        return network(bundle)(x, torch.tensor([10.0, 80.0]), *known)


def test_a_further_part_behind_the_others(folder: Path, base: Bundle, tmp_path: Path) -> None:
    words = ["extend", folder, "--base", base.path, "--out", tmp_path / "out", "--steps", "3"]
    answer = CliRunner().invoke(cli, [*map(str, words), "--device", "cpu"])
    assert answer.exit_code == 0, answer.output
    assert "kept        hole, ring, by replay" in answer.output
    made = load_bundle(tmp_path / "out/bundle")
    manifest = made.manifest
    assert manifest.parts == ("hole", "ring", "blank")  # old labels stand
    assert {"fast.hole", "fast.ring", "fast.blank"} <= set(manifest.profiles)
    assert [manifest.calibration[f"fast.{name}"].images for name in manifest.parts] == [12, 14, 12]
    record = manifest.training_data.extended
    assert record is not None
    assert (record.base, record.old_parts) == (base.hash, ("hole", "ring"))
    assert (record.strategy, record.old_images_trained_on) == ("replay", 4)
    assert not torch.equal(answers(made, 0), answers(base, 0))


@pytest.mark.parametrize(
    ("strategy", "share", "of_part"),
    [
        ("replay", 0.25, [2, 2, 12]),
        ("replay", 0.5, [6, 6, 12]),
        ("replay", 0.9, [12, 14, 12]),
        ("finetune", 0.25, [0, 0, 12]),
        ("projection", 0.25, [0, 0, 12]),
    ],
)
def test_what_each_strategy_trains_on_and_moves(
    folder: Path, base: Bundle, tmp_path: Path, strategy: Strategy, share: float, of_part: list[int]
) -> None:
    plan = Continual(base, old_parts(base), strategy, share)
    files, parts = plan.ordered(
        find_images(folder), [path.parent.name.lower() for path in find_images(folder)]
    )
    data = load_training_set(files, [False] * len(files), (32, 32), 1, tmp_path / "all.npy", parts=parts)
    recipe = recipe_of(base, 3)
    run = plan.run(Run(recipe, data, tmp_path, "cpu", silent))
    assert run.data.labels is not None
    assert np.bincount(run.data.labels, minlength=3).tolist() == of_part
    trained = run.train(recipe, run.data, tmp_path / "checkpoint").net
    before = network(base).class_embedding.weight
    assert torch.equal(trained.class_embedding.weight[:2], before) == (strategy == "projection")
    assert not torch.equal(trained.class_embedding.weight[2], before.mean(0))


def test_it_begins_as_the_base(folder: Path, base: Bundle, tiny_bundle: Bundle, tmp_path: Path) -> None:
    """Before any step old parts are judged as ever, also by a network that knew no labels."""
    for bundle, labels in ((base, (0, 1)), (tiny_bundle, (None,))):
        plan = Continual(bundle, old_parts(bundle), "finetune")
        weights = load_file(plan.initial(3, tmp_path / "initial.safetensors"))
        net = UNet(UNetConfig.from_dict({**bundle.manifest.network.shape(), "classes": 3}))
        net.load_state_dict(weights)
        x = torch.linspace(-1, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)
        for label in labels:
            with torch.no_grad():
                found = net.eval()(x, torch.tensor([10.0, 80.0]), torch.full((2,), label or 0))
            assert torch.allclose(found, answers(bundle, label), atol=1e-6)


def test_what_cannot_be_learned(folder: Path, base: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all images are of parts that the base knows"):
        extend(folder.with_name("copied"), base, tmp_path / "a", "cpu", silent, steps=1)
    missing = tmp_path / "data"
    for name in ("ring", "blank"):
        (missing / name).mkdir(parents=True)
        (missing / name / "0.png").write_bytes((folder / "ring/00.png").read_bytes())
    with pytest.raises(DataError, match="there are no images of hole"):
        extend(missing, base, tmp_path / "b", "cpu", silent, steps=1)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/extend.json").write_text(json.dumps({"base": "another"}))
    with pytest.raises(ExtendError, match="another base or strategy"):
        extend(folder, base, tmp_path / "c", "cpu", silent, steps=1)
