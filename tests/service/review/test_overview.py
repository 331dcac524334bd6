"""What the overview says of drift, once there is something to say."""

from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from service.drift.watch import Finding, Seen
from tests.service.conftest import flat

POST = {"Content-Type": "image/png", "Prefer": "wait=30"}


@pytest.mark.parametrize(
    ("moved", "shown", "hidden"),
    [
        (None, [], ["Drift", "No drift"]),
        (False, ["No drift"], []),
        (True, ["Drift", "brightness"], ["scores,"]),
    ],
)
def test_drift(client: TestClient, moved: bool | None, shown: list[str], hidden: list[str]) -> None:
    client.post("/v1/inspections", content=flat(2), headers=POST)
    if moved is not None:
        found = {
            trait: Finding(trait, 0.3, 0.25, 0.1, alarm, 1000, 500)  # type: ignore[arg-type]
            for trait, alarm in (("score", False), ("brightness", moved))
        }
        watch = client.app.state.services.drift  # type: ignore[attr-defined]
        watch._seen["default"] = Seen(datetime.now(UTC), "f" * 64, found)  # type: ignore[arg-type]
    page = client.get("/", headers={"Accept": "text/html"}).text
    header = page[page.index('class="panel line"') : page.index('class="charts"')]
    assert [text for text in shown if text not in header] == []
    assert [text for text in hidden if text in header] == []
