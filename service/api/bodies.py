"""What the JSON bodies of requests have in common."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Body(BaseModel):
    """A JSON body: no unknown names, and no value of another type that happens to look like a right one."""

    model_config = ConfigDict(extra="forbid", strict=True)


# JSON has no type of its own for these: they are written as strings.
Uuid = Annotated[UUID, Field(strict=False)]
