"""What an evaluation found, and its three forms: JSON for machines, CSV per image, a table for people."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.sheet import Case, SheetScale

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TypeResult:
    """Metrics of one defect type, or of all together, against all good images; None where undefined.

    `mse_*` are squared reconstruction errors on pixels in [-1, 1]; `escape` is the share of the defective
    images that PASS at the suggested thresholds.
    """

    images: int
    image_auroc: float | None
    image_ap: float | None
    image_f1_max: float | None
    pixel_auroc: float | None
    pixel_auprc: float | None
    pixel_aupro: float | None
    pixel_f1_max: float | None
    mse_unmasked: float | None
    mse_masked: float | None
    verdicts: dict[str, int]
    escape: float | None


@dataclass(frozen=True)
class GoodResult:
    """Good images: `overkill` is the share that REJECT, `review_load` the share that REVIEW."""

    images: int
    mse: float | None
    verdicts: dict[str, int]
    overkill: float | None
    review_load: float | None


@dataclass(frozen=True)
class Timing:
    """Engine time, decoding left out: medians over batches and, one image at a time, after a warm-up."""

    network_calls_per_image: int
    batch_size: int
    seconds_per_image: float
    seconds_alone: float


@dataclass(frozen=True)
class ImageResult:
    """One image's line in the CSV."""

    path: str
    type: str
    raw_score: float
    calibrated_score: float
    verdict: str
    seconds: float


@dataclass(frozen=True)
class ProfileResult:
    """One profile's figures; `cases` and `scale` are for the picture sheet and stay out of the JSON."""

    profile: str
    spec: dict[str, Any]
    thresholds: dict[str, float]
    timing: Timing
    overall: TypeResult
    types: dict[str, TypeResult]
    good: GoodResult
    images: list[ImageResult]
    cases: list[Case]
    scale: SheetScale

    def to_dict(self) -> dict[str, Any]:
        kept = ("spec", "thresholds")
        plain = {name: getattr(self, name) for name in kept}
        types = {kind: asdict(found) for kind, found in self.types.items()}
        parts = {name: asdict(getattr(self, name)) for name in ("timing", "overall", "good")}
        return plain | parts | {"types": types}


@dataclass(frozen=True)
class EvaluationResult:
    """All profiles on one set of images, and how they were measured."""

    protocol: dict[str, Any]
    profiles: dict[str, ProfileResult]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "protocol": self.protocol,
            "profiles": {name: found.to_dict() for name, found in self.profiles.items()},
        }


def write_json(path: Path, result: EvaluationResult) -> None:
    text = json.dumps(result.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, result: EvaluationResult) -> None:
    """One line per profile and image."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["profile", *(field.name for field in fields(ImageResult))])
        for name, found in result.profiles.items():
            for image in found.images:
                writer.writerow([name, *(getattr(image, field.name) for field in fields(ImageResult))])


_COLUMNS = (
    ("image\nAUROC", "image_auroc"),
    ("\nAP", "image_ap"),
    ("\nF1", "image_f1_max"),
    ("pixel\nAUROC", "pixel_auroc"),
    ("\nAUPRC", "pixel_auprc"),
    ("\nAUPRO", "pixel_aupro"),
    ("\nF1", "pixel_f1_max"),
    ("MSE in\nmask", "mse_masked"),
)


def print_result(result: EvaluationResult, console: Console) -> None:
    """A table per profile: one line per defect type, all of them, and the good images."""
    for found in result.profiles.values():
        console.print(_table(found))
        console.print(Text(_facts(found)))
    console.print(Text(_protocol(result.protocol)))


def _table(found: ProfileResult) -> Table:
    table = Table(
        title=Text(f"profile {found.profile}", style="bold"), box=box.SIMPLE_HEAD, title_justify="left"
    )
    table.add_column("\ntype")
    for head in ("\nimages", *(head for head, _ in _COLUMNS), "pass / review\n/ reject"):
        table.add_column(head, justify="right", no_wrap=True)
    for kind, row in found.types.items():
        table.add_row(*_cells(kind, row))
    table.add_section()
    table.add_row(*_cells("all defects", found.overall), style="bold")
    good = found.good
    dashes = ["-"] * len(_COLUMNS)
    table.add_row(Text("good"), str(good.images), *dashes, _verdicts(good.verdicts))
    return table


def _cells(kind: str, row: TypeResult) -> list[str | Text]:
    metrics = [_number(getattr(row, name)) for _, name in _COLUMNS]
    return [Text(kind), str(row.images), *metrics, _verdicts(row.verdicts)]


def _facts(found: ProfileResult) -> str:
    timing, good, bad = found.timing, found.good, found.overall
    lines = (
        f"{timing.network_calls_per_image} network calls, {_ms(timing.seconds_per_image)} ms per image "
        f"in batches of {timing.batch_size}, {_ms(timing.seconds_alone)} ms alone",
        f"at the suggested thresholds: escape {_share(bad.escape)}, overkill {_share(good.overkill)}, "
        f"good parts to review {_share(good.review_load)}",
        f"reconstruction MSE: good images {_number(good.mse, 5)}, defective ones "
        f"{_number(bad.mse_unmasked, 5)} outside and {_number(bad.mse_masked, 5)} inside of the mask",
    )
    return "".join(f"  {line}\n" for line in lines)


def _protocol(protocol: dict[str, Any]) -> str:
    good = protocol["images_per_type"].get("good", 0)
    size = f"{protocol['metric_px']} px" if protocol["metric_px"] else "each image's own size"
    notes = [
        f"{protocol['images']} images of {protocol['data']} ({good} good), pixel metrics at {size}, "
        f"{protocol['runtime']} on {protocol['device']}"
    ]
    if protocol["images"] + len(protocol["skipped"]) < protocol["images_found"]:
        notes.append(f"a part of the {protocol['images_found']} images, as --limit asked")
    notes += _listed("unreadable, left out", [f"{name} ({why})" for name, why in protocol["skipped"]])
    notes += _listed("defective but nothing marked in the mask, pixels taken as normal", protocol["unmarked"])
    return "\n".join(f"  {note}" for note in notes)


def _listed(what: str, names: Sequence[str], most: int = 5) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{len(names)} {what}: {', '.join(names[:most])}{more}"]


def _verdicts(counts: dict[str, int]) -> str:
    return " / ".join(str(counts[name]) for name in ("PASS", "REVIEW", "REJECT"))


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.{1 if seconds < 0.1 else 0}f}"
