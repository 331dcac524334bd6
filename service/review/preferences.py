"""Language and theme of the pages, kept in cookies: they are known before anything is painted."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from service.access.browser import safe_next
from service.access.principal import Camera
from service.review import language, shell

router = APIRouter(include_in_schema=False)
_YEAR_S = 365 * 24 * 3600


class PreferencesForm(BaseModel):
    language: Literal["en", "de"] | None = None
    theme: Literal["auto", "light", "dark"] | None = None
    next: str = "/"


@router.post("/preferences")
async def prefer(request: Request, who: Camera, sent: Annotated[PreferencesForm, Form()]) -> Response:
    """Remember what was chosen in this browser, and go back."""
    response = RedirectResponse(safe_next(sent.next), 303)
    for name, value in ((language.COOKIE, sent.language), (shell.THEME_COOKIE, sent.theme)):
        if value is not None:
            # Nothing secret, and nothing is decided by it; scripts change the theme without a reload.
            response.set_cookie(name, value, max_age=_YEAR_S, path="/", samesite="lax")
    return response
