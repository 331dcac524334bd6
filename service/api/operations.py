"""Health, metrics, and the description of the API itself."""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel

from service.access.principal import Camera
from service.access.routes import declarations
from service.api.deps import Serving
from service.errors import InspectionError, Problem, problem_docs
from service.metadata import Metadata
from service.review.shell import page

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/healthz/live", summary="Is the process alive?")
async def live() -> Health:
    """Answers as long as the event loop turns."""
    return Health()


@router.get("/healthz/ready", summary="May images be sent?", responses=problem_docs(503))
async def ready(serving: Serving) -> Health:
    """After the warm-up, while the database answers and jobs are taken, until shutdown begins."""
    if not serving.ready or not serving.runtime.healthy:
        raise InspectionError(503, "not-ready", "the model is not ready to take images", retry_after_s=1)
    await asyncio.to_thread(serving.ledger.ping)
    return Health()


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, serving: Serving, who: Camera) -> Response:
    """In the Prometheus text format, or in OpenMetrics with exemplars where `Accept` asks for it."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(serving.metrics.registry), headers={"Content-Type": media_type})


@router.get("/docs", include_in_schema=False)
async def docs(request: Request, who: Camera) -> HTMLResponse:
    # Rendered here and not by a script from a CDN: the service runs where there is no internet.
    schema = request.app.openapi()
    return page(request, "docs.html", api=schema, operations=_operations(schema))


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request, who: Camera) -> JSONResponse:
    return JSONResponse(request.app.openapi())


def _operations(schema: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Operations by tag, in the order of the routes."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            entry = {"method": method.upper(), "path": path, **operation}
            groups.setdefault(operation.get("tags", ["other"])[0], []).append(entry)
    return groups


def describe_api(app: FastAPI) -> None:
    """Make `app.openapi()` tell the truth about errors: problem documents, not FastAPI's own shape."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            schemas = schema["components"]["schemas"]
            for model in (Problem, Metadata):
                own = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(own.pop("$defs", {}))
                schemas[model.__name__] = own
            for methods in schema["paths"].values():
                for operation in methods.values():
                    for parameter in operation.get("parameters", ()):
                        parameter["schema"] = _given(parameter["schema"])
                    if "requestBody" in operation:  # text that is no UTF-8, a form without an end
                        operation["responses"].setdefault("400", problem_docs(400)[400])
                    if "422" in operation["responses"]:
                        operation["responses"]["422"] = problem_docs(422)[422]
            _describe_access(app, schema)
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter without null: one in a path, query or header is there or is not."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**kinds[0], **{name: value for name, value in schema.items() if name != "anyOf"}}


def _describe_access(app: FastAPI, schema: dict[str, Any]) -> None:
    """Say of every operation which scope it needs, and how it is refused."""
    schema["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "an API key, `inl_...`"},
        "session": {"type": "apiKey", "in": "cookie", "name": "__Host-inlier"},
    }
    for route in declarations(app):
        for method in route.methods:
            operation = schema["paths"].get(route.path, {}).get(method.lower())
            if operation is None:
                continue
            refusals = problem_docs(429)
            if route.scope == "public":
                operation["security"] = []
            else:
                operation["security"] = [{"key": []}, {"session": []}]
                operation["x-inlier-scope"] = route.scope
                refusals = problem_docs(401, 403, 429)
            operation["responses"].update({str(status): value for status, value in refusals.items()})
