"""Try an image: verdict, maps, and the film of its reconstruction, without a trace in the line's data."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from service.access.principal import Operator
from service.api.deps import Services, Serving
from service.api.upload import read_in_time
from service.db.repository.scores import Span
from service.errors import InspectionError
from service.middleware import SECURITY_HEADERS
from service.recipes.book import RecipeBook
from service.review.desk import Chart, among_others
from service.review.shell import context, page
from service.trials import Begun, Event, Judged, Shot

router = APIRouter(include_in_schema=False)
_RECIPES = 500
_STAGES = ("decode", "preprocess", "queue", "inference", "postprocess")
# Pictures of a trial are at no address: the page makes them of what it was sent.
_POLICY = dict(SECURITY_HEADERS)["Content-Security-Policy"] + "; img-src 'self' blob:"


@router.get("/try")
async def form(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """Where an image can be dropped."""
    book = RecipeBook(serving.database)
    rows = await asyncio.to_thread(book.page, archived=False, after="", limit=_RECIPES)
    recipes = {row.name: _profiles(serving, row.name) for row in rows}
    headers = {"Content-Security-Policy": _POLICY}
    return page(request, "try.html", headers=headers, recipes=recipes, possible=serving.trials.possible)


@router.post("/try")
async def run(request: Request, serving: Serving, who: Operator) -> StreamingResponse:
    """What happens to an image, as JSON lines: `begun`, `frame` by frame, `result`, or `problem`."""
    events = serving.trials.run(lambda: read_in_time(request, serving.settings.body_timeout_s), who)
    first = await anext(events)  # what is wrong with the image or the request is a problem as everywhere
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    lines = _lines(request, serving, first, events)
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


def _profiles(serving: Services, recipe: str) -> dict[str, Any]:
    manifest = serving.engines.serving(recipe).manifest
    return {
        "default": serving.engines.default_profile(recipe, manifest),
        "calls": {name: spec.network_calls for name, spec in manifest.profiles.items()},
    }


async def _lines(
    request: Request, serving: Services, first: Event, events: AsyncIterator[Event]
) -> AsyncIterator[str]:
    yield _line(_told(first))
    try:
        async for event in events:
            told = (
                await asyncio.to_thread(_result, request, serving, event)
                if isinstance(event, Judged)
                else _told(event)
            )
            yield _line(told)
    except InspectionError as error:
        yield _line({"event": "problem", "code": error.code, "detail": error.detail})


def _line(told: dict[str, Any]) -> str:
    return json.dumps(told, separators=(",", ":")) + "\n"


def _told(event: Event) -> dict[str, Any]:
    if isinstance(event, Begun):
        return {"event": "begun", "kind": event.kind, "steps": event.steps}
    assert isinstance(event, Shot)
    clean = None if event.clean is None else _text(event.clean)
    told = {"event": "frame", "phase": event.phase, "t": event.t, "number": event.number}
    return {**told, "noisy": _text(event.noisy), "clean": clean}


def _result(request: Request, serving: Services, judged: Judged) -> dict[str, Any]:
    template = serving.pages.get_template("parts/trial.html")
    html = template.render(**context(request), trial=judged, chart=_chart(serving, judged), stages=_STAGES)
    pictures = {name: _text(data) for name, data in judged.pictures.items()}
    return {
        "event": "result",
        "verdict": judged.judgement.verdict.value,
        "score": judged.judgement.score,
        "latency_ms": judged.latency_ms,
        "html": html,
        "pictures": pictures,
    }


def _chart(serving: Services, judged: Judged) -> Chart:
    span = Span(judged.recipe, judged.model.hash, judged.profile, judged.mask_id)
    limits = judged.limits.limits
    score = judged.judgement.score
    return among_others(serving.scores, serving.ledger, span, score, limits.review, limits.reject)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
