"""`make month`: a month on the line, with and without retraining, on labelled images of your own.

Fits a first model on contaminated images, starts the service, posts day after day of traffic to two recipes,
one of which is retrained every week, lets simulated operators answer, and counts from the service's database.
"""

import argparse
import csv
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from deploy.bench.commit import commit
from deploy.bench.db.__main__ import machine
from deploy.month.chart import draw
from deploy.month.count import by_day, by_span, escapes_by_kind, lost, read_models, read_rows
from deploy.month.plan import Month, Terms, plan, read_images
from deploy.month.play import play
from deploy.month.tables import tables

RECIPE = Path(__file__).with_name("month.toml")
FOLDER = Path(__file__).parents[2] / ".month"
CHANGES = ("activated", "rolled back")


def main() -> int:
    parser = argparse.ArgumentParser(prog="month", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="train/good, contamination/TYPE and test/TYPE"
    )
    parser.add_argument("--new-type", default=Terms.new_type, help="defect that is not seen before its day")
    parser.add_argument("--seed", type=int, default=Terms.seed)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="of the first training")
    parser.add_argument("--gate-option", default="", help="further words for `inlier-trainer gate`")
    parser.add_argument(
        "--work", type=Path, default=FOLDER, help="emptied, then everything is kept here [.month]"
    )
    parser.add_argument("--chart", type=Path, help="where the chart goes [month.png in --work]")
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # so that the service and the scheduler end as well
        signal.signal(number, _interrupt)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks: threads would wait for each other
    terms = Terms(new_type=asked.new_type, seed=asked.seed, gate_options=asked.gate_option)
    month = plan(read_images(asked.data, terms.alike), terms)
    told = play(month, terms, asked.recipe, asked.work, lambda text: print(text, flush=True))
    figures = count(told, month, terms, asked.work)
    write(figures, asked.work, asked.chart or asked.work / "month.png")
    print(tables(figures))
    return 1 if figures["lost"] else 0


def count(told: dict[str, Any], month: Month, terms: Terms, work: Path) -> dict[str, Any]:
    """All figures of a month that was played in `work`, each from the database there."""
    database = work / "data" / "inlier.sqlite3"
    rows = read_rows(database, told["parts"])
    changes = sum(event["what"].startswith(CHANGES) for event in told["events"])
    first = min(terms.retrain_after)
    spans = {
        "before the first retraining": (1, first),
        "until the drift": (first + 1, terms.drift_from - 1),
        "drift": (terms.drift_from, terms.new_from - 1),
        "drift and new type": (terms.new_from, terms.days),
        "all after the first retraining": (first + 1, terms.days),
    }
    return {
        "machine": machine(),
        "commit": commit(),
        "lost": lost(rows, told["sent"], read_models(database), changes),
        "inspections": len(rows),
        "changes": changes,
        "spans": by_span(
            rows, {name: span for name, span in spans.items() if span[0] <= span[1]}, terms.seed
        ),
        "days": by_day(rows),
        "escapes_by_kind": escapes_by_kind(rows, terms.new_from),
        **told,
    }


def write(figures: dict[str, Any], work: Path, chart: Path) -> None:
    """`month.json`, `month.csv`, and the chart."""
    (work / "month.json").write_text(json.dumps(figures, indent=1) + "\n")
    with (work / "month.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(figures["days"][0]))
        writer.writeheader()
        writer.writerows(figures["days"])
    chart.parent.mkdir(parents=True, exist_ok=True)
    draw(figures["days"], marks(figures), title(figures), chart)


def title(figures: dict[str, Any]) -> str:
    return f"A simulated month: {figures['inspections']} inspections, {len(figures['lost'])} lost or failed"


def marks(figures: dict[str, Any]) -> list[tuple[float, str]]:
    """What the chart explains, in the order of time."""
    terms = figures["terms"]
    found: Sequence[tuple[float, str]] = [
        (
            terms["drift_from"],
            f"the light begins to fade, {terms['drift_a_day']:.1%} of its brightness a day",
        ),
        (terms["new_from"], f"a new type of defect: {terms['new_type']}"),
        *((event["day"], _words(event)) for event in figures["events"]),
    ]
    return sorted(found)


def _words(event: dict[str, Any]) -> str:
    model = f" (model {event['model'][:6]})" if event["model"] else ""
    reason = f": {event['detail'].split(':')[0].lower()}" if event["what"].startswith("stopped") else ""
    return f"day {int(event['day'])}, {event['what']}{model}{reason}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
