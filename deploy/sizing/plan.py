"""The arithmetic of docs/sizing.md: from images a minute to cores and disk."""

import argparse
import math
from dataclasses import dataclass

# Measured; docs/sizing.md says how. Bytes for each inspection, files at 256 x 256 px.
ROW_BYTES = 3372
FILE_BYTES = 198_455
# docs/benchmarks.md, "Speed": `fast` under ONNX Runtime, batch 8, images a second of a core at 128 x 128 px;
# with 8 network calls an image, where it makes 6 by now.
CORE_IMAGES_PER_S = 4.01
MEASURED_PX = 128 * 128
# A queue with random arrivals is short as long as this share of the capacity is used at most.
USED = 0.6


@dataclass(frozen=True)
class Plan:
    """What so many lines need."""

    images_per_s: float
    millions_a_year: float
    cores: int
    rows_gb: float  # for the time that is kept
    files_gb: float


def plan(lines: int, per_minute: float, hours: float, keep_days: int, side_px: int = 256) -> Plan:
    """Lines that each make `per_minute` images for `hours` a day, kept for `keep_days`.

    The network's cost is linear in its pixels. `side_px` is what the network sees.
    """
    rate = lines * per_minute / 60
    a_day = lines * per_minute * 60 * hours
    core = CORE_IMAGES_PER_S * MEASURED_PX / side_px**2
    return Plan(
        images_per_s=rate,
        millions_a_year=a_day * 365 / 1e6,
        cores=math.ceil(rate / (USED * core)),
        rows_gb=a_day * keep_days * ROW_BYTES / 1e9,
        files_gb=a_day * keep_days * FILE_BYTES * (side_px / 256) ** 2 / 1e9,
    )


def table() -> str:
    """1, 10 and 1000 lines of 30 parts a minute, two shifts, 30 days kept, as on the page."""
    names = (
        "lines",
        "network sees",
        "images/s",
        "images a year",
        "cores for `fast`",
        "rows",
        "images and maps",
    )
    rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for lines in (1, 10, 1000):
        for side in (128, 256):
            made = plan(lines, 30, 16, 30, side)
            cells = (lines, f"{side} px", f"{made.images_per_s:g}", f"{made.millions_a_year:,.1f} M")
            needs = (f"{made.cores:,}", f"{made.rows_gb:,.1f} GB", f"{made.files_gb:,.0f} GB")
            rows.append("| " + " | ".join(map(str, (*cells, *needs))) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1)
    parser.add_argument("--per-minute", type=float, default=30, help="images of each line")
    parser.add_argument("--hours", type=float, default=16, help="a day")
    parser.add_argument("--keep-days", type=int, default=30)
    parser.add_argument("--side-px", type=int, default=256, help="of what the network sees")
    given = parser.parse_args()
    print(plan(given.lines, given.per_minute, given.hours, given.keep_days, given.side_px))


if __name__ == "__main__":
    main()
