"""The engine's figures of one run of `make bench` as a picture.

python3 -m deploy.bench.speed.chart .bench/speed.json docs/images/speed.png
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from deploy.bench.speed.arms import PAPER_STEPS

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's colours: the loops of others, chains, single steps, baselines that only look.
KINDS = (
    ("`paper`", "#0072B2", "paper, 250 calls"),
    ("`fast`", "#009E73", "fast, 6 calls"),
    ("pa", "#999999", "our PatchCore and PaDiM: no reconstruction"),
    ("", "#D55E00", "others' loops, 250 calls"),
)


def images_a_second(arm: Mapping[str, Any], steps: int) -> np.ndarray:
    """`[rounds]`; of a chain that was cut short, as if all its steps had been run."""
    return arm["batch"] / np.asarray(arm["s"]) * (steps / PAPER_STEPS if arm["chain"] else 1)


def kind(name: str) -> int:
    """Which of KINDS an arm is."""
    return next(number for number, (begins, _, _) in enumerate(KINDS) if name.startswith(begins))


def draw(found: Mapping[str, Any], out: Path) -> None:
    """A bar for every arm, in the order they were measured; a line from the 10th to the 90th percentile."""
    arms = found["engine"]["arms"]
    rates = [images_a_second(arm, found["steps"]) for arm in arms]
    over = [rate / rates[0] for rate in rates]  # of the same round
    figure, panel = plt.subplots(figsize=(9, 0.36 * len(arms) + 1.6))
    seen: set[int] = set()
    for row, (arm, ratio) in enumerate(zip(arms, over, strict=True)):
        number = kind(arm["name"])
        low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
        _, colour, label = KINDS[number]
        panel.barh(row, middle, color=colour, label=None if number in seen else label)
        panel.plot([low, high], [row, row], color="black", lw=1.2)
        told = f"{middle:.2f}" if middle < 10 else f"{middle:.0f}"
        panel.text(high * 1.08, row, told, va="center", fontsize=9)
        seen.add(number)
    names = [f"{arm['name'].replace('`', '')}, batch {arm['batch']}" for arm in arms]
    panel.set_yticks(range(len(arms)), names)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlim(0.3, 3 * max(float(np.max(ratio)) for ratio in over))
    panel.set_xlabel("images a second, times the plain loop of the same round (logarithmic)")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="upper right")
    figure.suptitle(f"{found['machine']}, {found['threads']} threads, commit {found['commit']}", fontsize=11)
    figure.tight_layout()
    figure.savefig(out, dpi=110, facecolor="white")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    draw(json.loads(asked.json.read_text()), asked.out)


if __name__ == "__main__":
    main()
