"""What a study found, as a page to print, a table of parts, and figures for programs."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.msa.agreement import Agreement, Part, Rated
from service.msa.study import REFERENCES, Result, Study
from service.recipes.intervals import Share

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 300, 44, 890, 12, 270


def percent(share: Share) -> str:
    """A share with its 95 % interval."""
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def lines(study: Study, found: Agreement) -> list[str]:
    """The summary for a terminal."""
    kinds = [part.reference for part in found.parts]
    kappas = (("with the references", found.kappa_reference), ("among the trials", found.kappa_trials))
    return [
        f"study          {study.name}: {kinds.count('good')} good and {kinds.count('defective')} defective "
        f"parts, {study.trials} trials each",
        *(f"{name:<14} {percent(each.share)}  {each.rating}" for name, each in _rated(found)),
        f"consistency    {percent(found.consistency)}  parts decided alike in every trial",
        f"to a person    {percent(found.review)}  of all runs",
        *(f"kappa          {value:.2f} {name}" for name, value in kappas if value is not None),
        f"score          SD {found.score_sd:.3f} within a part; {found.near} parts within 3 SD of a limit"
        if found.score_sd is not None
        else "score          no part has two scores",
        *([f"no verdict     {found.failed} runs; they count as not accepted"] if found.failed else []),
        f"rating         {found.rating} (AIAG MSA, 4th edition)",
    ]


def write(study: Study, results: Sequence[Result], found: Agreement) -> list[Path]:
    """`report.html`, `report.json` and `parts.csv` in the study's folder."""
    html, document, table = (study.folder / name for name in ("report.html", "report.json", "parts.csv"))
    models = sorted({each.model for each in results})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["percent"] = percent
    page = environment.get_template("report.html").render(
        study=study,
        found=found,
        rated=_rated(found),
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        models=models,
        chart=_chart(found.parts, results),
        wrong=[part for part in _worst_first(found.parts) if part.wrong or not part.consistent],
        links={(each.part, each.trial): each.inspection for each in results},
    )
    html.write_text(page, encoding="utf-8")
    figures = {"study": study.name, "trials": study.trials, "models": models, "rating": found.rating}
    document.write_text(json.dumps({**figures, **asdict(found)}, indent=2) + "\n")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("part", "reference", "verdicts", "wrong", "consistent", "score_mean", "score_sd"))
        for part in found.parts:
            writer.writerow(_row(part))
    return [html, document, table]


def _rated(found: Agreement) -> list[tuple[str, Rated]]:
    return [
        ("effectiveness", found.effectiveness),
        ("misses", found.miss),
        ("false alarms", found.false_alarm),
    ]


def _row(part: Part) -> tuple[object, ...]:
    count = len(part.scores)
    mean = sum(part.scores) / count if count else None
    spread = None if mean is None or count < 2 else sum((s - mean) ** 2 for s in part.scores) / (count - 1)
    written = ("" if value is None else f"{value:.4f}" for value in (mean, spread and spread**0.5))
    return (part.part, part.reference, " ".join(part.verdicts), part.wrong, part.consistent, *written)


def _worst_first(parts: Sequence[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: (-part.wrong, part.part))


def _chart(parts: Sequence[Part], results: Sequence[Result]) -> dict[str, Any] | None:
    """Scores by part, good ones first and each kind by mean score, with the limits: dots of a drawing."""
    shown = [part for part in parts if part.scores]
    if not shown:
        return None
    shown.sort(key=lambda part: (REFERENCES.index(part.reference), sum(part.scores) / len(part.scores)))
    limits = {
        name: sorted({getattr(each, name) for each in results if getattr(each, name) is not None})
        for name in ("review", "reject")
    }
    values = [score for part in shown for score in part.scores] + limits["review"] + limits["reject"]
    low, high = min(values), max(values)
    step = (_RIGHT - _LEFT) / len(shown)

    def y(score: float) -> float:
        share = (score - low) / ((high - low) or 1.0)
        return float(round(_BOTTOM - share * (_BOTTOM - _TOP), 1))

    dots = [
        (round(_LEFT + (at + 0.5) * step, 1), y(score), part.reference, part.part, score)
        for at, part in enumerate(shown)
        for score in part.scores
    ]
    goods = sum(part.reference == "good" for part in shown)
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _RIGHT,
        "top": _TOP,
        "bottom": _BOTTOM,
        "dots": dots,
        "between": round(_LEFT + goods * step, 1),
        "limits": [(name, y(value), value) for name, found in limits.items() for value in found],
        "ends": [(y(value), value) for value in (low, high)],
    }
