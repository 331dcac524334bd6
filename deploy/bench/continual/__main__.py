"""What a model forgets of its parts when it learns another one, by strategy.

Parts are folders in the MVTec-AD layout. For each seed a model learns the old parts, then goes on with the
new one by every strategy of `inlier-trainer extend`; beside them one learns all parts together from the
beginning (`together`), in as many steps. Every bundle is measured on every part's own test images.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.bundle import Bundle, load_bundle
from trainer.console import quiet
from trainer.continual.plan import Strategy
from trainer.data import find_images
from trainer.evaluate import evaluate
from trainer.extend import extend
from trainer.fit import fit
from trainer.protocol import Settings
from trainer.recipe import Recipe, load_recipe
from trainer.testset import Sources

RECIPE = Path(__file__).with_name("continual.toml")
ARMS: tuple[tuple[str, Strategy, dict[str, Any]], ...] = (
    ("finetune", "finetune", {}),
    ("replay 25 %", "replay", {"share": 0.25}),
    ("projection .99", "projection", {"energy": 0.99}),
    ("projection .999", "projection", {"energy": 0.999}),
)
Parts = Mapping[str, Path]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.bench.continual", description=__doc__)
    parser.add_argument(
        "out", type=Path, help="folder for bundles and results.json; a later run goes on there"
    )
    parser.add_argument("--old", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--new", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    names = ["before", *(name for name, _, _ in ARMS), "together"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="what to train now")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--train-limit", type=int, default=60, help="training images of each part")
    parser.add_argument("--test-limit", type=int, default=80, help="test images of each part")
    options = parser.parse_args()
    torch.set_num_threads(1)
    old = dict(named(text) for text in options.old)
    parts = {**old, **dict([named(options.new)])}
    results = options.out / "results.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    for seed in options.seeds:
        for name, make in _bundles(options, old, parts, seed):
            key = f"{seed} {name}"
            if name in options.only and key not in found:
                found[key] = _measured(make(), parts, options.test_limit)
                results.write_text(json.dumps(found, indent=2) + "\n")
                print(key, found[key], file=sys.stderr, flush=True)
    print(table(found, list(old), options.new.partition("=")[0]))


def named(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    return name, Path(folder)


def _bundles(
    options: argparse.Namespace, old: Parts, parts: Parts, seed: int
) -> Iterator[tuple[str, Callable[[], Bundle]]]:
    out: Path = options.out / str(seed)
    of_old = linked(out / "old", old, options.train_limit)
    of_all = linked(out / "all", parts, options.train_limit)
    overrides = {"training.seed": seed, "training.steps": options.steps}
    recipe: Recipe = load_recipe(str(RECIPE), overrides)

    def anew(images: Path, to: Path) -> Bundle:
        return fit(images, recipe, to, "cpu", quiet, name=to.name).bundle

    def going_on(strategy: Strategy, how: dict[str, Any], to: Path) -> Bundle:
        how = {"steps": options.steps, **how}
        return extend(of_all, base(), to, "cpu", quiet, strategy=strategy, **how).bundle

    base = partial(_once, out / "before", partial(anew, of_old))
    yield "before", base
    for name, strategy, how in ARMS:
        yield (
            name,
            partial(_once, out / name.replace(" %", "").replace(" ", "-"), partial(going_on, strategy, how)),
        )
    yield "together", partial(_once, out / "together", partial(anew, of_all))


def _once(out: Path, make: Callable[[Path], Bundle]) -> Bundle:
    if not (out / "bundle").exists():
        make(out)
    return load_bundle(out / "bundle")


def linked(folder: Path, parts: Parts, limit: int) -> Path:
    """A folder of training images for every part, links to some of them."""
    for name, source in parts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        images = find_images(source / "train")
        for index in np.unique(np.linspace(0, len(images) - 1, min(limit, len(images))).round().astype(int)):
            link = folder / name / f"{index:04}{images[index].suffix}"
            if not link.exists():
                link.symlink_to(images[index].resolve())
    return folder


def _measured(bundle: Bundle, parts: Parts, limit: int) -> dict[str, dict[str, float]]:
    """Image and pixel AUROC of every part that the bundle knows."""
    found = {}
    for part in bundle.manifest.parts:
        settings = Settings(threads=1, limit=limit, metric_px=96)
        result = evaluate(bundle, Sources(parts[part]), [f"fast.{part}"], settings)
        overall = result.profiles[f"fast.{part}"].overall
        found[part] = {"image": float(overall.image_auroc or 0), "pixel": float(overall.pixel_auroc or 0)}
    return found


def table(found: Mapping[str, Any], old: Sequence[str], new: str) -> str:
    """Mean over seeds; of old parts, what was lost against before (positive: forgotten), with its range."""
    arms: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    for key, measured in found.items():
        seed, _, name = key.partition(" ")
        arms[name].append((measured, found[f"{seed} before"]))
    head = ["strategy", "seeds", "old: image AUROC", "forgotten", "old: pixel AUROC", "forgotten"]
    head += ["new: image AUROC", "new: pixel AUROC"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, pairs in arms.items():
        cells = [name, str(len(pairs))]
        for kind in ("image", "pixel"):
            now = np.array([np.mean([measured[part][kind] for part in old]) for measured, _ in pairs])
            lost = np.array([np.mean([before[part][kind] for part in old]) for _, before in pairs]) - now
            cells.append(f"{now.mean():.3f}")
            cells.append(
                "-" if name == "before" else f"{lost.mean():+.3f} ({lost.min():+.3f} to {lost.max():+.3f})"
            )
        known = [measured[new] for measured, _ in pairs if new in measured]
        for kind in ("image", "pixel"):
            cells.append(f"{np.mean([each[kind] for each in known]):.3f}" if known else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
