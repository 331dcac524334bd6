"""The figures of a month as Markdown."""

from collections.abc import Sequence
from typing import Any

NAMES = {
    "overkill": "good, rejected",
    "review_good": "good, sent to a person",
    "escape": "defective, passed",
}


def tables(figures: dict[str, Any]) -> str:
    """Spans with both arms and their difference, escapes by type, and what happened."""
    lines = ["| days | what | of | without | with | difference, points |", "|---|---|---|---|---|---|"]
    for span in figures["spans"]:
        first, last = span["days"]
        cells = (_percent(span["without"]), _percent(span["with"]), _percent(span["difference"], "+.1f"))
        what = f"{first} to {last}, {span['span']} | {NAMES[span['measure']]}"
        lines.append(f"| {what} | {span['of']} ({span['tiles']} tiles) | {' | '.join(cells)} |")
    lines += ["", "| type, since the new one came | passed without | with |", "|---|---|---|"]
    for kind, arms in figures["escapes_by_kind"].items():
        lines.append(f"| {kind} | {arms['without']} | {arms['with']} |")
    lines += ["", "| day | what happened | why |", "|---|---|---|"]
    for event in figures["events"]:
        model = f", {event['model'][:6]}" if event["model"] else ""
        lines.append(f"| {event['day']:.2f} | {event['what']}{model} | {event['detail']} |")
    answers, lost = figures["answers"], figures["lost"]
    lines += [
        "",
        f"{figures['inspections']} inspections, {figures['changes']} changes of model, "
        f"{len(lost)} lost or failed; "
        f"{answers['all']} answers ({answers['audits']} to audits), {answers['wrong']} wrong; "
        f"{figures['seconds'] / 60:.1f} minutes; commit {figures['commit']}; {figures['machine']}",
        *lost[:20],
    ]
    return "\n".join(lines)


def _percent(shares: Sequence[float], form: str = ".1f") -> str:
    value, low, high = (format(100 * share, form) for share in shares)
    return f"{value} ({low} to {high})"
