"""Operators who answer what the line asks them, and are wrong now and then."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from deploy.month.line import LEARNING, Line, MonthError
from deploy.month.plan import GOOD

_PAGE = 200
_LEVEL = {"PASS": 0.0, "REVIEW": 0.5, "REJECT": 1.0}


class Operators:
    """They see what the review queue shows: what the model asks about or rejects, and the random audits."""

    def __init__(self, line: Line, truth: Mapping[str, str], wrong_answers: float, seed: int) -> None:
        self._line, self._truth, self._wrong = line, truth, wrong_answers
        self._rng = np.random.default_rng([seed, 1])
        self.answers = self.wrong = self.audits = 0

    def answer_all(self) -> None:
        """Until nothing of the learning recipe waits for a person."""
        with httpx.Client(base_url=self._line.url, headers=self._line.operator, timeout=60) as http:
            while items := _checked(http.get("/v1/review-queue", params=_WANTED))["items"]:
                for item in items:
                    self._answer(http, item)

    def compare(self, pairs: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Parts that an active model and its shadow judge differently -> on how many the shadow is nearer to
        what a person sees, and on how many it is farther from it. REVIEW is halfway."""
        better = worse = 0
        for pair in pairs:
            serial = self._line.get(f"/v1/inspections/{pair['inspection']}")["serial"]
            right = 0.0 if self._sees_good(serial) else 1.0
            active, shadow = (abs(_LEVEL[pair[side]["verdict"]] - right) for side in ("active", "shadow"))
            better += shadow < active
            worse += shadow > active
        return better, worse

    def _sees_good(self, serial: str) -> bool:
        """The truth, or now and then its opposite."""
        return (self._truth[serial] == GOOD) != bool(self._rng.random() < self._wrong)

    def _answer(self, http: httpx.Client, item: dict) -> None:  # type: ignore[type-arg]
        seen = self._sees_good(item["serial"])
        body = {
            "decision": "good" if seen else "defective",
            "expected_revision": item["review"]["revision"],
        }
        _checked(http.post(f"/v1/inspections/{item['id']}/reviews", json=body))
        self.answers += 1
        self.wrong += seen != (self._truth[item["serial"]] == GOOD)
        self.audits += item["verdict"] == "PASS"


_WANTED = {"recipe": LEARNING, "limit": _PAGE}


def _checked(answer: httpx.Response) -> dict:  # type: ignore[type-arg]
    if not answer.is_success:
        raise MonthError(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")
    return dict(answer.json())
