"""One error shape for everything: RFC 9457 `application/problem+json` with a request id."""

import errno
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.blobs.base import BlobsUnavailable

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL = ("is full", "No space left")  # as SQLite and as PostgreSQL say it
_TOO_MUCH_ASKED = "54"  # PostgreSQL's class of limits that a statement goes beyond


class StartupError(RuntimeError):
    """The service cannot start; the message tells the person who started it what to do."""


class InspectionError(Exception):
    """A request that cannot be answered as asked: HTTP status, stable `code`, and what to do about it."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


class Problem(BaseModel):
    """RFC 9457 problem details, the body of every error."""

    type: str = Field(description="stable identifier of the kind of problem: `urn:inlier:problem:<code>`")
    title: str = Field(description="the HTTP status in words")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="what is wrong and what to do about it")
    instance: str = Field(description="path of the request")
    request_id: str = Field(description="the request's id, also in `X-Request-ID` and in the service's log")
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="for invalid parameters: `{location, message}` each"
    )


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


ErrorPage = Callable[[Mapping[str, Any], InspectionError, Mapping[str, str]], Response | None]
"""(scope, error, headers) -> the error as a page, for a person; None: not for a person."""


def problem(scope: Mapping[str, Any], error: InspectionError) -> Response:
    """The response for an error within the request of an ASGI `scope`."""
    headers = {"Cache-Control": "no-store", **error.headers}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    scope.get("state", {})["problem_code"] = error.code
    as_page: ErrorPage | None = getattr(scope["app"].state, "error_page", None) if "app" in scope else None
    shown = None if as_page is None else as_page(scope, error, headers)
    if shown is not None:
        return shown
    body = {
        "type": f"urn:inlier:problem:{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "instance": scope.get("path", ""),
        "request_id": scope.get("state", {}).get("request_id", ""),
        **error.extra,
    }
    return ProblemResponse(body, error.status, headers)


def _disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def wants_storage(error: Exception) -> bool:
    """Whether a full disk, or a store that does not answer, is all that was wrong."""
    return _disk_full(error) or isinstance(error, BlobsUnavailable)


def wants_database(error: Exception) -> bool:
    """Whether the database is what was wrong - away, cut off, locked, full - and not what it was asked."""
    if isinstance(error, NoConnection):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    asked_wrongly = (
        str(getattr(error.orig, "sqlstate", None) or "").startswith(_TOO_MUCH_ASKED)
        or getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    )
    return isinstance(error, OperationalError) and not asked_wrongly


def as_inspection_error(error: Exception) -> InspectionError:
    """Any exception as a problem: full disks and unreachable databases are told apart from our own bugs."""
    if isinstance(error, InspectionError):
        return error
    full = _disk_full(error)
    if isinstance(error, OperationalError) or wants_database(error):
        full = any(words in str(error) for words in _FULL)
        if not full:
            detail = "the database does not answer; nothing was stored, send the request again"
            return InspectionError(503, "database-unavailable", detail, retry_after_s=5)
    if isinstance(error, BlobsUnavailable):
        detail = "the store of images does not answer; nothing was accepted, send the request again"
        return InspectionError(503, "storage-unavailable", detail, retry_after_s=5)
    if full:
        detail = "the disk of the service is full; nothing was stored, free space and send the request again"
        return InspectionError(507, "storage-full", detail, retry_after_s=60)
    detail = "the service failed on this request; the log has the reason under the request id"
    return InspectionError(500, "internal-error", detail)


async def _inspection_error(request: Request, error: Exception) -> Response:
    return problem(request.scope, as_inspection_error(error))


def not_found(path: str) -> InspectionError:
    return InspectionError(404, "not-found", f"nothing is at {path}; the calls are listed at /docs")


def wrong_method(method: str, path: str, allowed: Iterable[str]) -> InspectionError:
    headers = {"Allow": ", ".join(sorted(allowed))}
    return InspectionError(405, "method-not-allowed", f"{method} is not possible at {path}", headers=headers)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem(request.scope, not_found(request.url.path))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    known = InspectionError(error.status_code, code, str(error.detail), headers=error.headers)
    return problem(request.scope, known)


def validation_error(items: list[dict[str, Any]]) -> InspectionError:
    """422 from pydantic's error items; the rejected values are left out, they may be anything."""
    found = [
        {"location": ".".join(str(part) for part in item["loc"]), "message": item["msg"]} for item in items
    ]
    detail = "; ".join(f"{item['location']}: {item['message']}" for item in found[:5])
    return InspectionError(422, "invalid-parameters", detail, extra={"errors": found[:50]})


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(request.scope, validation_error([dict(item) for item in error.errors()]))


def install_handlers(app: FastAPI) -> None:
    """Register the handlers; exceptions of no known kind are caught by the request middleware."""
    app.add_exception_handler(InspectionError, _inspection_error)
    app.add_exception_handler(OperationalError, _inspection_error)
    app.add_exception_handler(BlobsUnavailable, _inspection_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation)


def problem_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the given error statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
