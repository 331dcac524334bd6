"""`python -m tests.drawn KIND OUT`: draw a kind in the MVTec-AD layout, contaminants apart."""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tests.drawn import board, gear, weave
from tests.drawn.draw import SIDE, Float, Pixels, Rng, photograph, truth

FEWEST_PX = 12
KINDS: dict[str, tuple[Callable[[Rng, str | None], Float], tuple[str, ...]]] = {
    "board-a": (board.draw, ("open", "short", "thin", "hole")),
    "board-b": (board.draw, ("missing", "turned", "scratch", "flux")),
    "gear": (gear.draw, ("tooth", "chip", "hole", "scratch", "rust")),
    "weave": (weave.draw, ("thread", "float", "hole", "stain", "hair")),
}


def picture(kind: str, entropy: tuple[int, ...], defect: str | None) -> tuple[Pixels, Pixels]:
    """A photograph `[SIDE, SIDE, C]` and the mask of its defect; without the defect all else is the same."""
    draw, _ = KINDS[kind]
    shots = []
    for wanted in (None, defect) if defect else (None,):
        rng = np.random.default_rng(entropy)
        scene = draw(rng, wanted)
        look = np.random.default_rng((*entropy, 9))
        noise = 0.01 * look.standard_normal((SIDE, SIDE, scene.shape[2]), dtype=np.float32)
        shots.append(photograph(scene, noise, float(look.uniform(0.93, 1.07))))
    return shots[-1], truth(shots[0], shots[-1])


def defective(kind: str, entropy: tuple[int, ...], defect: str) -> tuple[Pixels, Pixels]:
    """The first picture whose defect can be seen: one may fall on what hides it."""
    for attempt in range(100):
        pixels, mask = picture(kind, (*entropy, attempt), defect)
        if np.count_nonzero(mask) >= FEWEST_PX:
            return pixels, mask
    raise ValueError(f"no {defect} of 100 on {kind} could be seen")


def write(kind: str, out: Path, good: int, contaminants: int, tests: int, seed: int) -> None:
    """`train/good`, `contamination`, `test/<type>` and `ground_truth/<type>` below `out`."""
    types = KINDS[kind][1]

    def save(path: Path, pixels: Pixels) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), pixels):
            raise OSError(f"could not write {path}")

    for index in range(good):
        save(out / "train" / "good" / f"{index:03d}.png", picture(kind, (seed, 0, index), None)[0])
    for index in range(contaminants):
        defect = types[index % len(types)]
        save(out / "contamination" / f"{index:03d}.png", defective(kind, (seed, 1, index), defect)[0])
    for index in range(tests):
        save(out / "test" / "good" / f"{index:03d}.png", picture(kind, (seed, 2, index), None)[0])
        defect = types[index % len(types)]
        pixels, mask = defective(kind, (seed, 3, index), defect)
        save(out / "test" / defect / f"{index:03d}.png", pixels)
        save(out / "ground_truth" / defect / f"{index:03d}_mask.png", mask)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.drawn", description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--good", type=int, default=120)
    parser.add_argument("--contaminants", type=int, default=30)
    parser.add_argument("--tests", type=int, default=50, help="good ones, and as many defective ones")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.kind, args.out, args.good, args.contaminants, args.tests, args.seed)


if __name__ == "__main__":
    main()
