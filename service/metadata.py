"""What a client may say about an image."""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
)

_MAX_ATTRIBUTES = 64
_MAX_ATTRIBUTE_BYTES = 16 * 1024
_YEAR = re.compile(r"\d{4}-")


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("the time is out of range") from None


def _whole(value: object) -> object:
    """5.0 as 5: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _written(value: object) -> object:
    # Not left to pydantic, which takes a number for seconds since 1970, or for milliseconds.
    if isinstance(value, str) and _YEAR.match(value):
        with suppress(ValueError):
            return datetime.fromisoformat(value.upper())
    if value is None or isinstance(value, datetime):
        return value
    raise ValueError("write the time with its time zone, as in 2026-01-31T12:00:00Z")


# No control characters: they break logs, CSV and, as NUL, PostgreSQL.
PLAIN = r"^[^\x00-\x1f\x7f]*$"
Label = Annotated[str, Field(min_length=1, max_length=128, pattern=PLAIN)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ProfileName = Annotated[Name, Field(examples=["fast"])]
Moment = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_in_utc)]
WHOLE = BeforeValidator(_whole)  # after the bounds, which would miss in the description else
AttributeKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
AttributeText = Annotated[str, Field(max_length=1024, pattern=PLAIN)]
AttributeNumber = Annotated[float, Field(allow_inf_nan=False)]
AttributeInteger = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Attribute = bool | AttributeInteger | AttributeNumber | AttributeText | None


class Traits(BaseModel):
    """The fixed fields, as query parameters or in the `metadata` part."""

    recipe: Name = Field(default="default", description="product recipe; decides which thresholds apply")
    part_id: Label | None = Field(default=None, description="part number or type")
    serial: Label | None = Field(default=None, description="serial number of this very part")
    lot: Label | None = Field(default=None, description="lot or batch")
    line: Label | None = Field(default=None, description="production line")
    station: Label | None = Field(default=None, description="station or camera")
    captured_at: Moment | None = Field(default=None, description="when the picture was taken, with time zone")
    profile: ProfileName | None = Field(
        default=None,
        description="reconstruction profile of the bundle [default: the recipe's]",
    )
    priority: Literal["camera", "backfill"] = Field(
        default="camera", description="`backfill` waits until no camera's image does"
    )
    deadline_ms: Annotated[int, Field(ge=1, le=86_400_000), WHOLE] | None = Field(
        default=None,
        description="EXPIRED after this time from acceptance [default: the recipe's latency budget]",
    )


class Metadata(Traits):
    """All that is kept with an image; JSON of the `metadata` part of a multipart request."""

    model_config = ConfigDict(extra="forbid")

    attributes: dict[AttributeKey, Attribute] = Field(
        default_factory=dict,
        description="free-form values, at most 64",
        max_length=_MAX_ATTRIBUTES,
        json_schema_extra={"additionalProperties": False},  # whose names fit the pattern, that is
    )

    @field_validator("attributes")
    @classmethod
    def _small(cls, value: dict[str, Attribute]) -> dict[str, Attribute]:
        if len(json.dumps(value).encode()) > _MAX_ATTRIBUTE_BYTES:
            raise ValueError(f"attributes must stay below {_MAX_ATTRIBUTE_BYTES} bytes as JSON")
        return value
