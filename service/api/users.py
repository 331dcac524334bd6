"""People who may sign in: added, kept out, given another role or password."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.access import passwords
from service.access.principal import Admin
from service.api.bodies import Body
from service.api.deps import Services, Serving
from service.db.repository import users
from service.db.repository.users import Role
from service.db.tables import UserRow
from service.errors import InspectionError, problem_docs
from service.metadata import Name

router = APIRouter(prefix="/v1/users", tags=["access"])
Password = Annotated[
    str,
    Field(
        min_length=passwords.MIN_LENGTH,
        max_length=passwords.MAX_LENGTH,
        json_schema_extra={"writeOnly": True},
    ),
]
UserName = Annotated[Name, Path(description="in any case; it is kept in lower case")]


class UserOut(BaseModel):
    name: str = Field(description="shown as `who` in what the person changes")
    role: str = Field(description="operator: reviews and reads everything; admin: changes everything")
    disabled: bool = Field(description="may not sign in")
    locked_until: datetime | None = Field(description="after too many wrong passwords")
    created_at: datetime
    last_sign_in_at: datetime | None


class UserIn(Body):
    name: Name
    role: Role
    password: Password


class UserChange(Body):
    """What is given is changed; the person is signed out everywhere."""

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


def document(row: UserRow) -> UserOut:
    return UserOut.model_validate(row, from_attributes=True)


@router.post("", status_code=201, summary="Add a person", responses=problem_docs(409, 422, 503))
async def add(body: UserIn, serving: Serving, who: Admin) -> UserOut:
    """Passwords have at least 12 characters and are stored as argon2id."""

    def run(password_hash: str) -> Callable[[Session], UserRow]:
        return lambda session: users.add(session, who, body.name, body.role, password_hash)

    return await _change(serving, run(await asyncio.to_thread(passwords.hashed, body.password)))


@router.get("", summary="Everybody who may sign in", responses=problem_docs(503))
async def everyone(serving: Serving, who: Admin) -> list[UserOut]:
    """Also those who are disabled."""

    def run() -> list[UserOut]:
        with serving.database.read() as session:
            return [document(row) for row in users.everyone(session)]

    return await asyncio.to_thread(run)


@router.patch("/{name}", summary="Change a person", responses=problem_docs(404, 422, 503))
async def change(name: UserName, body: UserChange, serving: Serving, who: Admin) -> UserOut:
    """Role, password, or whether they may sign in."""
    if body == UserChange():
        raise InspectionError(422, "nothing-to-change", "give a role, a password or disabled")
    password_hash = None
    if body.password is not None:
        password_hash = await asyncio.to_thread(passwords.hashed, body.password)

    def run(session: Session) -> UserRow:
        row = users.get(session, name)
        if body.role is not None:
            users.set_role(session, who, name, body.role)
        if body.disabled is not None:
            users.set_disabled(session, who, name, body.disabled)
        if password_hash is not None:
            users.set_password(session, who, name, password_hash)
        return row

    return await _change(serving, run)


async def _change(serving: Services, make: Callable[[Session], UserRow]) -> UserOut:
    def run() -> UserOut:
        with serving.database.write() as session:
            return document(make(session))

    shown = await asyncio.to_thread(run)
    serving.access.callers.forget()
    return shown
