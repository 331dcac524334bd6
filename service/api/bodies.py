"""What the JSON bodies of requests have in common."""

from typing import Annotated
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from python_multipart.multipart import parse_options_header

from service.errors import InspectionError


class Body(BaseModel):
    """A JSON body: no unknown names, and no value of another type that happens to look like a right one."""

    model_config = ConfigDict(extra="forbid", strict=True)


# JSON has no type of its own for these: they are written as strings.
Uuid = Annotated[UUID, Field(strict=False)]


def utf8_only(request: Request) -> None:
    """InspectionError 415 for a form in another encoding: some of Python's fail, or give no text."""
    _, options = parse_options_header(request.headers.get("content-type"))
    charset = options.get(b"charset", b"utf-8").strip().lower()
    if charset not in (b"utf-8", b"utf8", b"us-ascii"):
        raise InspectionError(
            415, "unsupported-charset", "forms are read as UTF-8; leave the charset out of Content-Type"
        )
