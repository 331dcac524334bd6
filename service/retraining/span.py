"""Lengths of time as a schedule writes them."""

from typing import Annotated

from pydantic import AfterValidator

from service.access.cli import duration
from service.errors import StartupError


def _a_duration(value: str) -> str:
    try:
        duration(value)
    except StartupError as error:
        raise ValueError(str(error)) from None
    return value


Span = Annotated[str, AfterValidator(_a_duration)]
"""Text that `duration` understands, such as "30d"; ValueError for any other."""
