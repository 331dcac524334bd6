"""schemathesis against a live service: every check, in the phases asked for -> what it found."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import schemathesis
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from tests.service.conftest import flat

# Random bytes would be no images: what a body or a part of type `binary` is, is one of these.
_IMAGES = st.sampled_from([flat(value) for value in (1, 4, 9)])
schemathesis.openapi.format("binary", _IMAGES)
schemathesis.openapi.media_type("image/png", _IMAGES)
schemathesis.openapi.media_type("image/*", _IMAGES)


_SPARED: set[str] = set()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """The key that everything is asked with must outlive the run: nothing is done to it."""
    for name, value in (case.path_parameters or {}).items():
        if value in _SPARED:
            case.path_parameters[name] = str(UUID(int=0))


@dataclass(frozen=True)
class Finding:
    """One failed check of one request."""

    operation: str  # method and path as in the description
    check: str
    message: str
    status: int
    problem: str  # the code of the problem document, '' if it is none
    detail: str
    headers: dict[str, list[str]]  # of the request, names in lower case
    curl: str

    def __str__(self) -> str:
        said = f"{self.status} {self.problem}: {self.detail}"
        return f"{self.operation}: {self.check}: {self.message[:300]}\n  {said[:300]}\n  {self.curl[:1500]}"


@dataclass(frozen=True)
class Report:
    cases: int
    checks: frozenset[str]  # that were made
    operations: frozenset[str]  # that were called
    findings: list[Finding]


def fuzz(
    url: str,
    key: dict[str, str],
    phases: Sequence[str],
    *,
    examples: int = 1,
    seed: int = 1,
    path: str | None = None,
    spared: Sequence[str] = (),
) -> Report:
    """`examples` for each call where they are random; `path` chooses paths; `spared` ids are never sent."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "suppress-health-check": ["all"],
            "headers": key,
            "continue-on-failure": True,
            "phases": {"enabled": False, **{phase: {"enabled": True} for phase in phases}},
            "generation": {"max-examples": examples, "deterministic": True},
        }
    )
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config, headers=key)
    if path is not None:
        schema = schema.include(path_regex=path)

    _SPARED.update(spared)
    cases, checks, operations, findings = 0, set[str](), set[str](), list[Finding]()
    for event in from_schema(schema).execute():
        if isinstance(event, events.FatalError):
            raise event.exception
        assert not isinstance(event, events.NonFatalError), event
        if isinstance(event, events.ScenarioFinished):
            cases += len(event.recorder.interactions)
            operations |= {node.value.operation.label for node in event.recorder.cases.values()}
            checks |= {made.name for all_of in event.recorder.checks.values() for made in all_of}
            findings += _findings(event)
    return Report(cases, frozenset(checks), frozenset(operations), findings)


def _findings(event: events.ScenarioFinished) -> Iterator[Finding]:
    recorder = event.recorder
    for case, made in recorder.checks.items():
        for check in made:
            if check.failure_info is None:
                continue
            exchange = recorder.interactions.get(case)
            response = exchange.response if exchange is not None else None
            document = _document(response.content if response is not None else b"")
            headers = exchange.request.headers if exchange is not None else {}
            yield Finding(
                operation=recorder.cases[case].value.operation.label,
                check=check.name,
                message=f"{check.failure_info.failure.title}: {check.failure_info.failure.message}",
                status=response.status_code if response is not None else 0,
                problem=str(document.get("type", "")).rpartition(":")[2],
                detail=str(document.get("detail", "")),
                headers={name.lower(): values for name, values in headers.items()},
                curl=check.failure_info.code_sample,
            )


def _document(body: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(body or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
