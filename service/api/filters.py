"""Which inspections, in which order, from where: the query parameters of pages, counts and exports."""

import base64
import binascii
import math
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from service.api.export import Format
from service.api.schemas import AnyVerdict, Status
from service.db.repository.filters import Filter
from service.db.repository.inspections import ATTRIBUTE_TEXT
from service.db.repository.search import Order, Position
from service.db.tables import FILTERS
from service.errors import InspectionError
from service.metadata import PLAIN, Label, Moment, Name

_ATTRIBUTE = "attr."
_ATTRIBUTE_NAME = re.compile(r"attr\.[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_ATTRIBUTES = 8
_AttributeValue = Annotated[str, StringConstraints(max_length=1024, pattern=PLAIN)]
_Score = Annotated[float, Field(allow_inf_nan=False)]


class Common(BaseModel):
    """Filters of every list of inspections; all that are given must hold."""

    verdict: AnyVerdict | None = None
    recipe: Name | None = None
    line: Label | None = None
    station: Label | None = None
    lot: Label | None = None
    serial: Label | None = None
    model_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    since: Moment | None = Field(default=None, description="created at or after, with time zone")
    until: Moment | None = Field(default=None, description="created before, with time zone")

    @property
    def equal(self) -> dict[str, str | bool]:
        """The columns that are to be equal to something."""
        return {name: value for name in FILTERS if (value := getattr(self, name, None)) is not None}

    def filter(self) -> Filter:
        return Filter(equal=self.equal, since=self.since, until=self.until)


class Which(Common):
    """Filters; all that are given must hold. Also `attr.NAME=VALUE`, any number up to 8."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _AttributeValue]

    status: Status | None = None
    part_id: Label | None = None
    profile: Name | None = None
    review_state: Literal["none", "good", "defective", "unsure"] | None = None
    disagreement: bool | None = Field(default=None, description="person and model disagree")
    wanted: bool | None = Field(default=None, description="a person should look, or should have")
    score_min: _Score | None = Field(default=None, description="calibrated score at least")
    score_max: _Score | None = Field(default=None, description="calibrated score at most")
    captured_since: Moment | None = Field(default=None, description="taken at or after, with time zone")
    captured_until: Moment | None = Field(default=None, description="taken before, with time zone")
    order: Order = Field(default="newest", description="`margin`: nearest to a limit first")

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.__pydantic_extra__:
            if not _ATTRIBUTE_NAME.fullmatch(name):
                raise ValueError(f"unknown parameter {name[:64]!r}; attributes are asked for as attr.NAME")
        if len(self.__pydantic_extra__) > _MAX_ATTRIBUTES:
            raise ValueError(f"at most {_MAX_ATTRIBUTES} attributes can be asked for at once")
        return self

    def filter(self) -> Filter:
        return Filter(
            equal=self.equal,
            attributes={
                name.removeprefix(_ATTRIBUTE): value[:ATTRIBUTE_TEXT]
                for name, value in self.__pydantic_extra__.items()
            },
            since=self.since,
            until=self.until,
            captured_since=self.captured_since,
            captured_until=self.captured_until,
            score_min=self.score_min,
            score_max=self.score_max,
        )

    @property
    def filters_something(self) -> bool:
        return self.filter() != Filter()


class ListQuery(Which):
    """Which inspections, and which page of them."""

    limit: int = Field(default=50, ge=1, le=500, description="most inspections on a page")
    cursor: Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z0-9_-]*$")] | None = Field(
        default=None, description="opaque; from `next`"
    )

    def address(self, path: str, following: Position) -> str:
        """The address of the page that follows, with the same filters."""
        values = self.model_dump(mode="json", exclude_defaults=True, exclude={"cursor"})
        return f"{path}?{urlencode({**values, 'cursor': encode_cursor(self.order, following)})}"

    def position(self) -> Position | None:
        """Where the page begins; 422 for a cursor that this service did not make for this order."""
        return None if self.cursor is None else decode_cursor(self.order, self.cursor)


class ExportQuery(Which):
    """Which inspections, and how to write them."""

    format: Format = Field(default="csv", description="`csv`, or `jsonl`: one JSON document a line")


def encode_cursor(order: Order, position: Position) -> str:
    """Order and position as one opaque word."""
    margin = "" if position.margin is None else position.margin.hex()
    return base64.urlsafe_b64encode(f"{order} {position.id} {margin}".encode()).decode().rstrip("=")


def decode_cursor(order: Order, cursor: str) -> Position:
    """The position a cursor stands for; 422 for one that this service did not make for this order."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        made_for, identifier, margin = text.split(" ")
        position = Position(identifier, float.fromhex(margin) if margin else None)
    except (binascii.Error, ValueError, OverflowError):
        made_for, position = "", Position("")
    finite = position.margin is not None and math.isfinite(position.margin)
    if made_for != order or not _ID.fullmatch(position.id) or finite != (order == "margin"):
        detail = "cursor must be taken from `next` of an earlier page of the same order"
        raise InspectionError(422, "invalid-cursor", detail)
    return position
