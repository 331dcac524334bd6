"""What schemathesis reports and is right all the same: named one by one, with the reason.

All are `positive_data_acceptance`, "a request that fits its schema was refused": by a rule that JSON Schema
cannot say. Such a rule has a problem code of its own, so an exception names calls and a code, nothing wider.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.service.openapi.fuzz import Finding

_THRESHOLDS = "/v1/recipes/{recipe}/thresholds"


@dataclass(frozen=True)
class Explained:
    why: str
    problem: str
    operations: frozenset[str]
    also: Callable[[Finding], bool] = lambda found: True

    def covers(self, found: Finding) -> bool:
        return (
            found.check == "positive_data_acceptance"
            and found.problem == self.problem
            and found.operation in self.operations
            and self.also(found)
        )


def _explained(
    why: str, problem: str, *operations: str, also: Callable[[Finding], bool] = lambda found: True
) -> Explained:
    return Explained(why, problem, frozenset(operations), also)


def _says(words: str) -> Callable[[Finding], bool]:
    return lambda found: found.detail.endswith(words)


def _no_etag(found: Finding) -> bool:
    """schemathesis sends `0` for a header whose declared pattern has quotes, and calls it valid."""
    return not all(re.fullmatch(r'(W/)?"[0-9]{1,9}"', value) for value in found.headers.get("if-match", []))


EXPLAINED = (
    _explained(
        "a moment may lie in the past", "already-expired", "POST /v1/keys", "POST /v1/keys/{name}/rotate"
    ),
    _explained("which bundles lie in the folder", "invalid-bundle", "POST /v1/models"),
    _explained(
        "which profiles the active bundle has",
        "unknown-profile",
        *("POST /v1/recipes", "PATCH /v1/recipes/{recipe}", "POST /v1/inspections"),
        *(f"{method} {_THRESHOLDS}" for method in ("GET", "POST")),
        *(f"POST {_THRESHOLDS}/{name}" for name in ("preview", "suggest", "{version}/restore")),
        f"GET {_THRESHOLDS}/{{version}}/verdicts",
    ),
    _explained(
        "what goes with the kind of sink; of a change, with the stored one",
        *("wrong-kind", "POST /v1/webhooks", "PATCH /v1/webhooks/{webhook_id}"),
    ),
    _explained(
        "where messages may go, and what an address must have",
        *("invalid-address", "POST /v1/webhooks", "PATCH /v1/webhooks/{webhook_id}"),
    ),
    _explained("all values may be null, but not all at once", "nothing-to-change", "PATCH /v1/users/{name}"),
    _explained(
        "what polygons leave to inspect, and the size of the image that they are in",
        *("invalid-mask", "PUT /v1/recipes/{recipe}/mask", "POST /v1/recipes/{recipe}/mask/preview"),
    ),
    _explained("which cursors were given out", "invalid-cursor", "GET /v1/inspections"),
    _explained(
        "the revision is in the body or in a header", "revision-required", "PATCH /v1/recipes/{recipe}"
    ),
    _explained(
        "not valid at all: see `_no_etag`", "invalid-if-match", "PATCH /v1/recipes/{recipe}", also=_no_etag
    ),
    _explained(
        "one number must not be above another",
        *("invalid-parameters", f"POST {_THRESHOLDS}", f"POST {_THRESHOLDS}/preview"),
        also=_says("review must not be above reject"),
    ),
    _explained(
        "one number must not be above another",
        *("invalid-parameters", f"POST {_THRESHOLDS}/suggest"),
        also=_says("it includes what is rejected"),
    ),
)


def unexplained(findings: list[Finding]) -> list[Finding]:
    return [found for found in findings if not any(one.covers(found) for one in EXPLAINED)]
