"""Inspections as CSV and JSON lines: one row each, made while they are read."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from service.api.schemas import document
from service.db.tables import InspectionRow

Format = Literal["csv", "jsonl"]
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
COLUMNS = (
    *("id", "status", "verdict", "created_at", "finished_at", "captured_at", "recipe", "part_id", "serial"),
    *("lot", "line", "station", "score", "score_raw", "review", "reject", "margin", "wanted", "audit"),
    *("review_state", "review_revision", "disagreement", "model_name", "model_version", "model_hash"),
    *("profile", "image_sha256", "image_width_px", "image_height_px", "error_code", "error_detail"),
    *("regions", "latency_ms", "attributes"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def portion(rows: Sequence[InspectionRow], form: Format, *, first: bool) -> bytes:
    """Rows as text; the first portion of a CSV begins with the names of the columns."""
    if form == "jsonl":
        return "".join(f"{document(row).model_dump_json()}\n" for row in rows).encode()
    text = io.StringIO()
    writer = csv.writer(text)
    if first:
        writer.writerow(COLUMNS)
    writer.writerows(_cells(row) for row in rows)
    return text.getvalue().encode()


def _cells(row: InspectionRow) -> Iterator[Any]:
    return (cell(getattr(row, name)) for name in COLUMNS)


def cell(value: Any) -> Any:
    """A value as a CSV cell; text that a spreadsheet would run as a formula is quoted with '."""
    if value is None or isinstance(value, (int, float)):
        return json.dumps(value) if isinstance(value, bool) else value
    if isinstance(value, datetime):
        return value.isoformat()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text
