"""A trainer that has gone wrong, for `inlier-service retrain --trainer`: dark and out of focus.

    python -m deploy.month.wrong RECIPE retrain EXPORT --base BUNDLE --out OUT ...
    python -m deploy.month.wrong RECIPE gate ...

The gate is the real one.
"""

import subprocess
import sys
from pathlib import Path

import cv2

BLUR_SHARE = 1 / 5  # of the image's longer side, the standard deviation of the blur
DIM = 0.1  # what is left of the light
MOST = 60


def main(words: list[str]) -> int:
    recipe, verb, *rest = words
    trainer = str(Path(sys.executable).parent / "inlier-trainer")
    if verb != "retrain":
        return subprocess.run([trainer, verb, *rest]).returncode
    out = Path(rest[rest.index("--out") + 1])
    blurred = out.parent / "out-of-focus"
    blur(Path(rest[0]) / "train", blurred)
    fit = [trainer, "fit", str(blurred), "--recipe", recipe, "--out", str(out), "--steps", "20"]
    if "[detector]" in Path(recipe).read_text():
        fit += ["--set", "detector.steps=10"]
    return subprocess.run([*fit, "--device", "cpu"]).returncode


def blur(images: Path, out: Path) -> None:
    """Some images of a folder, out of focus and dark."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in images.rglob("*") if p.is_file())[:MOST]:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        sigma = BLUR_SHARE * max(pixels.shape[:2])
        dark = cv2.convertScaleAbs(cv2.GaussianBlur(pixels, (0, 0), sigma), alpha=DIM)
        cv2.imwrite(str(out / f"{path.stem}.png"), dark)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
