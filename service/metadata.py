"""What a client may say about an image."""

import json
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator

_MAX_ATTRIBUTES = 64
_MAX_ATTRIBUTE_BYTES = 16 * 1024


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("the time is out of range") from None


# No control characters: they break logs, CSV and, as NUL, PostgreSQL.
PLAIN = r"^[^\x00-\x1f\x7f]*$"
Label = Annotated[str, Field(min_length=1, max_length=128, pattern=PLAIN)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
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
    profile: Name | None = Field(
        default=None, description="reconstruction profile of the bundle [default: the recipe's]"
    )
    priority: Literal["camera", "backfill"] = Field(
        default="camera", description="`backfill` waits until no camera's image does"
    )
    deadline_ms: int | None = Field(
        default=None,
        ge=1,
        le=86_400_000,
        description="EXPIRED after this time from acceptance [default: the recipe's latency budget]",
    )


class Metadata(Traits):
    """All that is kept with an image; JSON of the `metadata` part of a multipart request."""

    model_config = ConfigDict(extra="forbid")

    attributes: dict[AttributeKey, Attribute] = Field(
        default_factory=dict, description="free-form values, at most 64", max_length=_MAX_ATTRIBUTES
    )

    @field_validator("attributes")
    @classmethod
    def _small(cls, value: dict[str, Attribute]) -> dict[str, Attribute]:
        if len(json.dumps(value).encode()) > _MAX_ATTRIBUTE_BYTES:
            raise ValueError(f"attributes must stay below {_MAX_ATTRIBUTE_BYTES} bytes as JSON")
        return value
