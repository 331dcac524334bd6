"""Logging to stderr: readable lines for people, one JSON object a line for collectors."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str] = ContextVar("request_id", default="")
_noted: ContextVar[dict[str, str]] = ContextVar("noted", default={})  # noqa: B039 - never changed in place
address: ContextVar[str] = ContextVar("address", default="")  # of the client whose request is answered
_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What `extra=` added, the id of the request being answered, and what `note` said of the work at hand."""
    found = {name: value for name, value in vars(record).items() if name not in _PLAIN}
    if request_id.get():
        found.setdefault("request_id", request_id.get())
    return {**_noted.get(), **found}


def note(**fields: str | None) -> None:
    """Let every further line of this task say `fields`; tasks and threads started from it say them, too."""
    _noted.set({**_noted.get(), **{name: value for name, value in fields.items() if value is not None}})


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    def __init__(self, colour: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._colour = colour

    def formatMessage(self, record: logging.LogRecord) -> str:
        # Values come from clients; repr keeps a line break in one of them from forging a log line.
        fields = "".join(f" {name}={value!r}" for name, value in _fields(record).items())
        line = super().formatMessage(record) + fields
        start = _COLOURS.get(record.levelname, "") if self._colour else ""
        return f"{start}{line}\x1b[0m" if start else line


def configure(level: str, style: str) -> None:
    """Send everything at or above `level` to stderr in `style` (text or json)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Each request is logged once, by our own middleware; alembic's notes on its dialect interest nobody.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("alembic").setLevel(logging.WARNING)
